//! Everything that could be wrong with a rules section, looked for once.
//!
//! INVARIANT: time is linear in the section's size. Strings lie one behind the other, and so do lists; a list is looked
//! through once for each kind of thing that it may list, however many records share it.

use std::collections::HashMap;

use crate::layout::{InvalidRules, MAX_DEPTH, MAX_ISSUERS, NONE, TRAILING_SLASH, Table, code, size, word};
use crate::{pattern, schedule};

use super::PolicySet;

mod conditions;

type Check = Result<(), &'static str>;

/// Bits for each word of the lists: whether one begins there, and what it was found to be a good list of.
mod good {
    pub const BEGINS: u16 = 1;
    pub const STRINGS: u16 = 1 << 1;
    pub const PORTS: u16 = 1 << 2;
    pub const ISSUERS: u16 = 1 << 3;
    pub const FROMS: u16 = 1 << 4;
    pub const OPERATIONS: u16 = 1 << 5;
    pub const HOSTS: u16 = 1 << 6;
    pub const PATHS: u16 = 1 << 7;
    pub const SEGMENTS: u16 = 1 << 8;
    pub const CLAIM_PATHS: u16 = 1 << 9;
    pub const WINDOWS: u16 = 1 << 10;
}

/// Up to so many conditions are looked at again each time that a record lists them.
const SHORT: usize = 4;

/// What a condition is made of.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// How deep it is nested.
    depth: u32,
    /// How many conditions it consists of, each counted as often as it is evaluated.
    parts: u32,
    /// Whether it reads claims.
    claims: bool,
}

struct Validation<'p> {
    policy: &'p PolicySet,
    /// How many records each table has.
    counts: [usize; Table::ALL.len()],
    /// See [`good`].
    lists: Vec<u16>,
    /// Whether a run of postings begins at this word.
    postings: Vec<bool>,
    automata: Vec<bool>,
    zones: Vec<bool>,
    operands: Vec<Extent>,
    conditions: Vec<Extent>,
    /// Of all conditions that a list refers to, together.
    condition_lists: HashMap<u32, Extent>,
    looked_at: usize,
}

/// Checks a section; returns how many records and list items were looked at.
pub(super) fn validate(policy: &PolicySet) -> Result<usize, InvalidRules> {
    let mut validation = Validation {
        policy,
        counts: Table::ALL.map(|table| policy.count(table)),
        lists: Vec::new(),
        postings: Vec::new(),
        automata: Vec::new(),
        zones: Vec::new(),
        operands: Vec::new(),
        conditions: Vec::new(),
        condition_lists: HashMap::new(),
        looked_at: 0,
    };
    validation.strings()?;
    validation.lists()?;
    validation.issuers()?;
    validation.guards()?;
    validation.operands()?;
    validation.conditions()?;
    validation.rules()?;
    validation.index()?;
    Ok(validation.looked_at)
}

// === impl Validation ===

impl<'p> Validation<'p> {
    /// The text consists of the strings, in their order.
    fn strings(&mut self) -> Result<(), InvalidRules> {
        let text = core::str::from_utf8(&self.policy.text).map_err(|_| InvalidRules::Text)?;
        let mut end = 0;
        self.each("strings", Table::Strings, |_, [offset, length]: [u32; 2]| {
            if size(offset) != end {
                return Err("it does not begin where the one before it ends");
            }
            end = end.checked_add(size(length)).ok_or("it lies outside the text")?;
            if end > text.len() {
                Err("it lies outside the text")
            } else if text.is_char_boundary(end) {
                Ok(())
            } else {
                Err("it cuts a character")
            }
        })?;
        if end == text.len() {
            return Ok(());
        }
        let (record, why) = (self.count(Table::Strings), "text follows the last one");
        Err(InvalidRules::Record { table: "strings", record, why })
    }

    /// Where lists and postings begin.
    fn lists(&mut self) -> Result<(), InvalidRules> {
        self.lists = vec![0; self.count(Table::Lists)];
        self.postings = vec![false; self.count(Table::Postings)];
        self.runs("lists", Table::Lists, |validation, at, _| {
            validation.lists.get_mut(at).map(|bits| *bits |= good::BEGINS).ok_or("it lies outside the table")
        })?;
        self.runs("postings", Table::Postings, |validation, at, clauses| {
            begins(&mut validation.postings, at)?;
            clauses.iter().try_for_each(|clause| validation.is_below(*clause, Table::Clauses))
        })?;
        self.automata = vec![false; self.count(Table::Automata)];
        self.zones = vec![false; self.count(Table::Zones)];
        self.runs("automata", Table::Automata, |validation, at, run| {
            begins(&mut validation.automata, at)?;
            pattern::check(run)
        })?;
        self.runs("zones", Table::Zones, |validation, at, run| {
            begins(&mut validation.zones, at)?;
            schedule::check_zone(run)
        })
    }

    /// Calls `check` with every run of a table and where it begins.
    fn runs(
        &mut self,
        name: &'static str,
        table: Table,
        mut check: impl FnMut(&mut Self, usize, &'p [u32]) -> Check,
    ) -> Result<(), InvalidRules> {
        let policy = self.policy;
        let (mut at, mut rest) = (0usize, policy.table(table));
        while let Some((length, behind)) = rest.split_first() {
            let length = size(length & !TRAILING_SLASH);
            let run = behind.split_at_checked(length).ok_or("it lies outside the table");
            let checked = run.and_then(|(items, behind)| {
                self.looked_at += items.len();
                check(self, at, items)?;
                Ok(behind)
            });
            rest = checked.map_err(|why| InvalidRules::Record { table: name, record: at, why })?;
            at = at.saturating_add(length).saturating_add(1);
        }
        Ok(())
    }

    fn issuers(&mut self) -> Result<(), InvalidRules> {
        let policy = self.policy;
        let count = self.count(Table::Issuers);
        if count > MAX_ISSUERS {
            let why = "there are too many";
            return Err(InvalidRules::Record { table: "issuers", record: count, why });
        }
        let mut names = Vec::with_capacity(count);
        self.each("issuers", Table::Issuers, |validation, [name, slots]: [u32; 2]| {
            validation.is_string(name)?;
            // An issuer's index would be ambiguous.
            if names.contains(&policy.bytes(name)) {
                return Err("it is there twice");
            }
            names.push(policy.bytes(name));
            if policy.list(slots).len() > usize::from(u16::MAX) {
                return Err("too many slots");
            }
            validation.list(slots, good::CLAIM_PATHS, |validation, path| {
                validation.list(path, good::STRINGS, Self::is_string)
            })
        })
    }

    fn guards(&mut self) -> Result<(), InvalidRules> {
        self.each("guards", Table::Guards, |validation, [id, mode, ports, audiences]: [u32; 4]| {
            validation.is_string(id)?;
            if mode != code::ENFORCE && mode != code::SHADOW {
                return Err("unknown mode");
            }
            validation.are_ports(ports)?;
            validation.are_strings(audiences)
        })
    }

    fn rules(&mut self) -> Result<(), InvalidRules> {
        self.each("meta", Table::Meta, |validation, [owner, contact]: [u32; 2]| {
            validation.is_string(owner)?;
            validation.is_string(contact)
        })?;
        self.each("froms", Table::Froms, Self::from)?;
        self.each("operations", Table::Operations, Self::operation)?;
        self.each("rules", Table::Rules, |validation, [id, meta, flags, froms, operations]: [u32; 5]| {
            validation.is_string(id)?;
            validation.is_below(meta, Table::Meta)?;
            if flags & ((1 << code::RULE_GRACE_SHIFT) - 1) & !code::RULE_FLAGS != 0 {
                return Err("unknown flags");
            }
            if froms == NONE {
                return Err("it says nothing about callers");
            }
            validation
                .optional(froms, good::FROMS, |validation, from| validation.is_below(from, Table::Froms))?;
            validation.optional(operations, good::OPERATIONS, |validation, operation| {
                validation.is_below(operation, Table::Operations)
            })
        })?;
        self.each("directories", Table::Directories, |validation, [name]: [u32; 1]| {
            validation.is_string(name)
        })
    }

    fn each<const WIDTH: usize>(
        &mut self,
        name: &'static str,
        table: Table,
        mut check: impl FnMut(&mut Self, [u32; WIDTH]) -> Check,
    ) -> Result<(), InvalidRules> {
        for position in 0..self.count(table) {
            self.looked_at += 1;
            check(self, self.policy.record(table, word(position))).map_err(|why| InvalidRules::Record {
                table: name,
                record: position,
                why,
            })?;
        }
        Ok(())
    }

    fn count(&self, table: Table) -> usize {
        self.counts.get(table.position()).copied().unwrap_or(0)
    }

    fn is_below(&self, position: u32, table: Table) -> Check {
        if size(position) < self.count(table) {
            Ok(())
        } else {
            Err("it refers to a record that is not there")
        }
    }

    fn is_string(&mut self, string: u32) -> Check {
        self.is_below(string, Table::Strings)
    }

    /// A list of things that `check` accepts. What was accepted once is not looked at again.
    fn list(&mut self, at: u32, kind: u16, mut check: impl FnMut(&mut Self, u32) -> Check) -> Check {
        let known = self.lists.get(size(at)).copied().unwrap_or(0);
        if known & good::BEGINS == 0 {
            return Err("it refers to a list that is not there");
        }
        if known & kind != 0 {
            return Ok(());
        }
        for item in self.policy.list(at) {
            self.looked_at += 1;
            check(self, *item)?;
        }
        if let Some(known) = self.lists.get_mut(size(at)) {
            *known |= kind;
        }
        Ok(())
    }

    /// [`NONE`], or a list that has items. An empty one would never match, and nothing writes it.
    fn optional(&mut self, at: u32, kind: u16, check: impl FnMut(&mut Self, u32) -> Check) -> Check {
        if at == NONE {
            return Ok(());
        }
        self.list(at, kind, check)?;
        if self.policy.list(at).is_empty() { Err("a list is empty") } else { Ok(()) }
    }

    fn are_strings(&mut self, at: u32) -> Check {
        self.optional(at, good::STRINGS, Self::is_string)
    }

    fn are_ports(&mut self, at: u32) -> Check {
        self.optional(at, good::PORTS, |_, port| {
            if port <= u32::from(u16::MAX) { Ok(()) } else { Err("a port is out of range") }
        })
    }

    fn from(&mut self, [kind, trust_domain, namespace, accounts, issuers, condition]: [u32; 6]) -> Check {
        match kind {
            code::PEER_MESH => {
                self.is_string(trust_domain)?;
                self.is_string(namespace)?;
                self.are_strings(accounts)?;
            }
            code::PEER_ANY_MESH => self.is_string(trust_domain)?,
            code::PEER_NONE | code::PEER_ANYONE => {}
            _ => return Err("unknown kind of peer"),
        }
        self.list(issuers, good::ISSUERS, |validation, issuer| validation.is_below(issuer, Table::Issuers))?;
        self.is_below(condition, Table::Conditions)
    }

    fn operation(&mut self, [flags, bits, others, ports, hosts, paths, condition]: [u32; 7]) -> Check {
        if self.known_condition(condition)?.claims {
            return Err("it reads a claim, and demands no token");
        }
        if flags & !code::OPERATION_FLAGS != 0 {
            return Err("unknown flags");
        }
        if bits == 0 && others == NONE {
            return Err("it allows no method");
        }
        self.are_strings(others)?;
        self.are_ports(ports)?;
        self.optional(hosts, good::HOSTS, |validation, host| match host >> code::KIND_SHIFT {
            code::HOST_EXACT | code::HOST_SUFFIX => validation.is_string(host & code::STRING_MASK),
            _ => Err("unknown kind of host"),
        })?;
        self.optional(paths, good::PATHS, Self::path)
    }

    fn path(&mut self, path: u32) -> Check {
        let mut rest_seen = false;
        self.list(path, good::SEGMENTS, |validation, segment| {
            if rest_seen {
                return Err("`{**}` is not the last segment");
            }
            match segment >> code::KIND_SHIFT {
                code::SEGMENT_LITERAL | code::SEGMENT_GLOB => {
                    validation.is_string(segment & code::STRING_MASK)?;
                }
                kind => rest_seen = kind == code::SEGMENT_REST,
            }
            Ok(())
        })
    }

    fn index(&mut self) -> Result<(), InvalidRules> {
        self.each("clauses", Table::Clauses, |validation, [rule, from, operation]: [u32; 3]| {
            validation.is_below(rule, Table::Rules)?;
            if from != NONE {
                validation.is_below(from, Table::Froms)?;
            }
            if operation != NONE {
                validation.is_below(operation, Table::Operations)?;
            }
            Ok(())
        })?;
        self.each("shapes", Table::Shapes, |validation, [subject, claim, depth]: [u32; 3]| {
            if subject > code::SUBJECT_TOKEN_REQUIRED || size(depth) > MAX_DEPTH {
                return Err("unknown shape");
            }
            if claim == NONE { Ok(()) } else { validation.is_claim(claim) }
        })?;
        if !self.count(Table::Buckets).is_power_of_two() {
            return Err(InvalidRules::Tables);
        }
        self.each("buckets", Table::Buckets, |validation, [tag, value]: [u32; 2]| {
            if tag == 0 {
                Ok(())
            } else if value & code::BUCKET_INLINE != 0 {
                validation.is_below(value & !code::BUCKET_INLINE, Table::Clauses)
            } else if validation.postings.get(size(value)) == Some(&true) {
                Ok(())
            } else {
                Err("it refers to postings that are not there")
            }
        })
    }
}

/// Marks where a run begins.
fn begins(runs: &mut [bool], at: usize) -> Check {
    runs.get_mut(at).map(|begins| *begins = true).ok_or("it lies outside the table")
}

// === impl Extent ===

impl Extent {
    const LEAF: Self = Self { depth: 0, parts: 1, claims: false };

    /// Of a condition around this one.
    fn wrapped(self) -> Self {
        Self { depth: self.depth.saturating_add(1), parts: self.parts.saturating_add(1), ..self }
    }
}

#[cfg(test)]
mod tests;
