//! Everything that could be wrong with a rules section, looked for once.
//!
//! INVARIANT: time is linear in the section's size. Strings lie one behind the other, and so do lists; a list is looked
//! through once for each kind of thing that it may list, however many records share it.

use std::collections::HashMap;

use crate::decision::RuleIx;
use crate::layout::{InvalidRules, MAX_ISSUERS, NONE, Table, code, size, word};
use crate::packed::Packed;
use crate::{pattern, schedule};

use super::{PolicySet, string_at};

mod conditions;
mod rules;

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
    pub const CLAIM_PATHS: u16 = 1 << 8;
    pub const WINDOWS: u16 = 1 << 9;
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
    /// Whether it reads the body.
    body: bool,
    /// Whether it reads the clock.
    clock: bool,
}

/// What was found while everything was looked at.
#[derive(Debug)]
pub(super) struct Validated {
    /// How many records and list items were looked at.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests count"))]
    pub looked_at: usize,
    /// Conditions that read the clock, of rules that deny: each once.
    pub timed_denies: Vec<u32>,
    /// Whether any condition reads the clock.
    pub reads_time: bool,
    /// Rules that nothing suspends, in order.
    pub revoking: Vec<RuleIx>,
}

struct Validation<'p> {
    policy: &'p PolicySet,
    /// How many records each table has.
    counts: [usize; Table::ALL.len()],
    /// One bit for each byte of the text: whether a string's length stands there.
    strings: Vec<u64>,
    /// See [`good`].
    lists: Vec<u16>,
    /// Whether a run begins at this word.
    automata: Vec<bool>,
    zones: Vec<bool>,
    operands: Vec<Extent>,
    /// How many operands are fields of the body.
    body_fields: usize,
    conditions: Vec<Extent>,
    /// Of all conditions that a list refers to, together.
    condition_lists: HashMap<u32, Extent>,
    revoking: Vec<RuleIx>,
    looked_at: usize,
}

/// Checks a section.
pub(super) fn validate(policy: &PolicySet) -> Result<Validated, InvalidRules> {
    let mut validation = Validation {
        policy,
        counts: Table::ALL.map(|table| policy.count(table)),
        strings: Vec::new(),
        lists: Vec::new(),
        automata: Vec::new(),
        zones: Vec::new(),
        operands: Vec::new(),
        body_fields: 0,
        conditions: Vec::new(),
        condition_lists: HashMap::new(),
        revoking: Vec::new(),
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
    let reads_time = validation.conditions.iter().any(|condition| condition.clock);
    let timed_denies = if reads_time { validation.timed_denies() } else { Vec::new() };
    let Validation { looked_at, revoking, .. } = validation;
    Ok(Validated { looked_at, timed_denies, reads_time, revoking })
}

// === impl Validation ===

impl<'p> Validation<'p> {
    /// The text consists of the strings, in their order.
    fn strings(&mut self) -> Result<(), InvalidRules> {
        let text = core::str::from_utf8(self.policy.text()).map_err(|_| InvalidRules::Text)?;
        self.strings = vec![0; text.len() / 64 + 1];
        let mut at = 0;
        while let Some(rest) = text.as_bytes().get(at..).filter(|rest| !rest.is_empty()) {
            self.looked_at += 1;
            let (_, behind) = string_at(rest).ok_or(InvalidRules::Text)?;
            if let Some(bits) = self.strings.get_mut(at / 64) {
                *bits |= 1 << (at % 64);
            }
            at = text.len().saturating_sub(behind.len());
            // Lengths are ASCII, so strings are whole characters if they end where one does.
            if !text.is_char_boundary(at) {
                return Err(InvalidRules::Text);
            }
        }
        Ok(())
    }

    /// Where lists begin.
    fn lists(&mut self) -> Result<(), InvalidRules> {
        self.lists = vec![0; self.count(Table::Lists)];
        self.runs("lists", Table::Lists, |validation, at, _| {
            validation.lists.get_mut(at).map(|bits| *bits |= good::BEGINS).ok_or("it lies outside the table")
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
            let length = size(*length);
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

    fn each_packed<const FIELDS: usize>(
        &mut self,
        table: Packed,
        mut check: impl FnMut(&mut Self, u32, [u32; FIELDS]) -> Check,
    ) -> Result<(), InvalidRules> {
        let policy = self.policy;
        for position in 0..policy.packed_count(table) {
            self.looked_at += 1;
            let at = word(position);
            check(self, at, policy.packed(table, at)).map_err(|why| InvalidRules::Record {
                table: table.name(),
                record: position,
                why,
            })?;
        }
        Ok(())
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

    fn is_packed(&self, position: u32, table: Packed) -> Check {
        if size(position) < self.policy.packed_count(table) {
            Ok(())
        } else {
            Err("it refers to a record that is not there")
        }
    }

    fn is_string(&mut self, string: u32) -> Check {
        let at = size(string);
        if self.strings.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 != 0) {
            Ok(())
        } else {
            Err("it refers to a string that is not there")
        }
    }

    /// [`NONE`], one thing that `check` accepts, or a list of them that is not empty.
    fn optional_of(
        &mut self,
        one_or_list: u32,
        kind: u16,
        mut check: impl FnMut(&mut Self, u32) -> Check,
    ) -> Check {
        if one_or_list == NONE {
            Ok(())
        } else if one_or_list & 1 == 0 {
            check(self, one_or_list >> 1)
        } else {
            self.optional(one_or_list >> 1, kind, check)
        }
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
}

/// Marks where a run begins.
fn begins(runs: &mut [bool], at: usize) -> Check {
    runs.get_mut(at).map(|begins| *begins = true).ok_or("it lies outside the table")
}

// === impl Extent ===

impl Extent {
    const LEAF: Self = Self { depth: 0, parts: 1, claims: false, body: false, clock: false };

    /// Of a condition around this one.
    fn wrapped(self) -> Self {
        Self { depth: self.depth.saturating_add(1), parts: self.parts.saturating_add(1), ..self }
    }
}

#[cfg(test)]
mod tests;
