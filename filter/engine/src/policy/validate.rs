//! Everything that could be wrong with a rules section, looked for once.

use crate::layout::{
    InvalidRules, MAX_CONDITION_DEPTH, MAX_DEPTH, MAX_ISSUERS, NONE, TRAILING_SLASH, Table, code, size, word,
};

use super::PolicySet;

type Check = Result<(), &'static str>;

impl PolicySet {
    pub(super) fn validate(&self) -> Result<(), InvalidRules> {
        if core::str::from_utf8(&self.text).is_err() {
            return Err(InvalidRules::Text);
        }
        self.each("strings", Table::Strings, |[offset, length]: [u32; 2]| {
            let text = self.text.get(size(offset)..).and_then(|rest| rest.get(..size(length)));
            match text {
                Some(text) if core::str::from_utf8(text).is_ok() => Ok(()),
                Some(_) => Err("it cuts a character"),
                None => Err("it lies outside the text"),
            }
        })?;
        self.each("issuers", Table::Issuers, |[name, slots]: [u32; 2]| {
            self.is_string(name)?;
            let slots = self.is_list(slots)?;
            if slots.len() > usize::from(u16::MAX) {
                return Err("too many slots");
            }
            slots
                .iter()
                .try_for_each(|path| self.is_list(*path)?.iter().try_for_each(|part| self.is_string(*part)))
        })?;
        // An issuer's index would be ambiguous; and a policy with more than so many is not one.
        let names: Vec<&str> = (0..word(self.count(Table::Issuers)))
            .map(|issuer| {
                let [name, _]: [u32; 2] = self.record(Table::Issuers, issuer);
                self.string(name)
            })
            .collect();
        if names.len() > MAX_ISSUERS {
            return Err(InvalidRules::Record {
                table: "issuers",
                record: names.len(),
                why: "there are too many",
            });
        }
        for (record, name) in names.iter().enumerate() {
            if names.iter().take(record).any(|earlier| earlier == name) {
                return Err(InvalidRules::Record { table: "issuers", record, why: "it is there twice" });
            }
        }
        self.each("guards", Table::Guards, |[id, mode, ports, audiences]: [u32; 4]| {
            self.is_string(id)?;
            if mode != code::ENFORCE && mode != code::SHADOW {
                return Err("unknown mode");
            }
            self.are_ports(ports)?;
            self.optional(audiences, |audience| self.is_string(audience))
        })?;
        self.each("meta", Table::Meta, |[owner, contact]: [u32; 2]| {
            self.is_string(owner)?;
            self.is_string(contact)
        })?;
        self.conditions()?;
        self.each("froms", Table::Froms, |record: [u32; 6]| self.from(record))?;
        self.each("operations", Table::Operations, |record: [u32; 6]| self.operation(record))?;
        self.each("rules", Table::Rules, |[id, meta, flags, froms, operations]: [u32; 5]| {
            self.is_string(id)?;
            self.is_below(meta, Table::Meta)?;
            if flags & !code::RULE_FLAGS != 0 {
                return Err("unknown flags");
            }
            if froms == NONE {
                return Err("it says nothing about callers");
            }
            self.optional(froms, |from| self.is_below(from, Table::Froms))?;
            self.optional(operations, |operation| self.is_below(operation, Table::Operations))
        })?;
        self.each("directories", Table::Directories, |[name]: [u32; 1]| self.is_string(name))?;
        self.index()
    }

    fn each<const WIDTH: usize>(
        &self,
        name: &'static str,
        table: Table,
        check: impl Fn([u32; WIDTH]) -> Check,
    ) -> Result<(), InvalidRules> {
        for position in 0..self.count(table) {
            check(self.record(table, word(position))).map_err(|why| InvalidRules::Record {
                table: name,
                record: position,
                why,
            })?;
        }
        Ok(())
    }

    fn is_below(&self, position: u32, table: Table) -> Check {
        if size(position) < self.count(table) {
            Ok(())
        } else {
            Err("it refers to a record that is not there")
        }
    }

    fn is_string(&self, string: u32) -> Check {
        self.is_below(string, Table::Strings)
    }

    /// The items of a list, which must lie within the table.
    fn is_list(&self, at: u32) -> Result<&[u32], &'static str> {
        self.is_run(Table::Lists, at)
    }

    fn is_run(&self, table: Table, at: u32) -> Result<&[u32], &'static str> {
        self.table(table)
            .get(size(at)..)
            .and_then(<[u32]>::split_first)
            .and_then(|(length, rest)| rest.get(..size(length & !TRAILING_SLASH)))
            .ok_or("it refers to a list that is not there")
    }

    /// [`NONE`], or a list that has items. An empty one would never match, and nothing writes it.
    fn optional(&self, at: u32, check: impl Fn(u32) -> Check) -> Check {
        if at == NONE {
            return Ok(());
        }
        let items = self.is_list(at)?;
        if items.is_empty() {
            return Err("a list is empty");
        }
        items.iter().try_for_each(|item| check(*item))
    }

    fn are_ports(&self, at: u32) -> Check {
        self.optional(
            at,
            |port| if port <= u32::from(u16::MAX) { Ok(()) } else { Err("a port is out of range") },
        )
    }

    fn from(&self, [kind, trust_domain, namespace, accounts, issuers, condition]: [u32; 6]) -> Check {
        match kind {
            code::PEER_MESH => {
                self.is_string(trust_domain)?;
                self.is_string(namespace)?;
                self.optional(accounts, |account| self.is_string(account))?;
            }
            code::PEER_ANY_MESH => self.is_string(trust_domain)?,
            code::PEER_NONE | code::PEER_ANYONE => {}
            _ => return Err("unknown kind of peer"),
        }
        self.is_list(issuers)?.iter().try_for_each(|issuer| self.is_below(*issuer, Table::Issuers))?;
        self.is_below(condition, Table::Conditions)
    }

    fn operation(&self, [flags, bits, others, ports, hosts, paths]: [u32; 6]) -> Check {
        if flags & !code::OPERATION_FLAGS != 0 {
            return Err("unknown flags");
        }
        if bits == 0 && others == NONE {
            return Err("it allows no method");
        }
        self.optional(others, |method| self.is_string(method))?;
        self.are_ports(ports)?;
        self.optional(hosts, |host| match host >> code::KIND_SHIFT {
            code::HOST_EXACT | code::HOST_SUFFIX => self.is_string(host & code::STRING_MASK),
            _ => Err("unknown kind of host"),
        })?;
        self.optional(paths, |path| {
            let segments = self.is_list(path)?;
            for (position, segment) in segments.iter().enumerate() {
                match segment >> code::KIND_SHIFT {
                    code::SEGMENT_LITERAL | code::SEGMENT_GLOB => {
                        self.is_string(segment & code::STRING_MASK)?
                    }
                    code::SEGMENT_REST if position + 1 < segments.len() => {
                        return Err("`{**}` is not the last segment");
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// Children come before their parents, so there are no cycles, and depths can be told in one pass.
    fn conditions(&self) -> Result<(), InvalidRules> {
        let mut depths: Vec<u32> = Vec::with_capacity(self.count(Table::Conditions));
        for position in 0..self.count(Table::Conditions) {
            let depth = self
                .condition(self.record(Table::Conditions, word(position)), &depths)
                .map_err(|why| InvalidRules::Record { table: "conditions", record: position, why })?;
            depths.push(depth);
        }
        Ok(())
    }

    fn condition(&self, [operator, a, b, _]: [u32; 4], depths: &[u32]) -> Result<u32, &'static str> {
        let child = |at: u32| depths.get(size(at)).copied().ok_or("a child does not come before its parent");
        let depth = match operator {
            code::TRUE => 0,
            code::ALL | code::ANY => {
                let mut deepest = 0;
                for at in self.is_list(a)? {
                    deepest = deepest.max(child(*at)?);
                }
                deepest + 1
            }
            code::NOT => child(a)? + 1,
            code::PRESENT | code::INTEGER | code::PEER_NAMESPACE | code::PEER_ACCOUNT => self.is_claim(a)?,
            code::BOOLEAN if b <= 1 => self.is_claim(a)?,
            code::ONE_OF => {
                if b == NONE {
                    return Err("a list is missing");
                }
                self.optional(b, |value| self.is_string(value))?;
                self.is_claim(a)?
            }
            code::GLOB | code::CONTAINS => {
                self.is_string(b)?;
                self.is_claim(a)?
            }
            code::SAME => {
                self.is_claim(b)?;
                self.is_claim(a)?
            }
            code::LISTED => {
                self.is_below(b, Table::Directories)?;
                self.is_claim(a)?
            }
            _ => return Err("unknown operator"),
        };
        if depth > MAX_CONDITION_DEPTH { Err("conditions are nested too deep") } else { Ok(depth) }
    }

    /// A claim's depth as a condition is 0.
    fn is_claim(&self, claim: u32) -> Result<u32, &'static str> {
        let issuer = claim >> 16;
        self.is_below(issuer, Table::Issuers)?;
        let [_, slots]: [u32; 2] = self.record(Table::Issuers, issuer);
        if size(claim & 0xFFFF) < self.list(slots).len() {
            Ok(0)
        } else {
            Err("it reads a claim without a slot")
        }
    }

    fn index(&self) -> Result<(), InvalidRules> {
        self.each("clauses", Table::Clauses, |[rule, from, operation]: [u32; 3]| {
            self.is_below(rule, Table::Rules)?;
            if from != NONE {
                self.is_below(from, Table::Froms)?;
            }
            if operation != NONE {
                self.is_below(operation, Table::Operations)?;
            }
            Ok(())
        })?;
        self.each("shapes", Table::Shapes, |[subject, claim, depth]: [u32; 3]| {
            if subject > code::SUBJECT_TOKEN_REQUIRED || size(depth) > MAX_DEPTH {
                return Err("unknown shape");
            }
            if claim == NONE { Ok(()) } else { self.is_claim(claim).map(|_| ()) }
        })?;
        if !self.count(Table::Buckets).is_power_of_two() {
            return Err(InvalidRules::Tables);
        }
        self.each("buckets", Table::Buckets, |[tag, value]: [u32; 2]| {
            if tag == 0 {
                Ok(())
            } else if value & code::BUCKET_INLINE != 0 {
                self.is_below(value & !code::BUCKET_INLINE, Table::Clauses)
            } else {
                self.is_run(Table::Postings, value)?
                    .iter()
                    .try_for_each(|clause| self.is_below(*clause, Table::Clauses))
            }
        })
    }
}
