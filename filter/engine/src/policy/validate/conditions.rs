//! Conditions, and the operands that they read.

use std::collections::BTreeSet;

use crate::body::MAX_BODY_FIELDS;
use crate::layout::{
    InvalidRules, MAX_CONDITION_DEPTH, MAX_CONDITION_PARTS, MAX_OPERAND_DEPTH, NONE, Table, code, size, word,
};
use crate::model::BodyField;
use crate::packed::Packed;
use crate::until::each_condition;
use crate::{normal, schedule};

use super::{Check, Extent, SHORT, Validation, good};

// === impl Validation ===

impl Validation<'_> {
    /// Children come before their parents, so there are no cycles, and extents can be told in one pass.
    pub(super) fn conditions(&mut self) -> Result<(), InvalidRules> {
        self.each("conditions", Table::Conditions, |validation, record: [u32; 4]| {
            let extent = validation.condition(record)?;
            if extent.depth > MAX_CONDITION_DEPTH {
                return Err("conditions are nested too deep");
            }
            if extent.parts > MAX_CONDITION_PARTS {
                return Err("a condition has too many parts");
            }
            validation.conditions.push(extent);
            Ok(())
        })
    }

    fn condition(&mut self, [operator, a, b, _]: [u32; 4]) -> Result<Extent, &'static str> {
        match operator {
            code::TRUE => return Ok(Extent::LEAF),
            code::ALL | code::ANY => return self.condition_list(a).map(Extent::wrapped),
            code::NOT => return self.known_condition(a).map(Extent::wrapped),
            code::EQUAL | code::LESS | code::LESS_OR_EQUAL => {
                let (left, right) = (self.known_operand(a)?, self.known_operand(b)?);
                let (claims, body) = (left.claims || right.claims, left.body || right.body);
                return Ok(Extent { claims, body, clock: left.clock || right.clock, ..Extent::LEAF });
            }
            code::TEXT_PRESENT..=code::TEXT_PATTERN => return self.text_test(operator, a, b),
            code::WITHIN => {
                if self.zones.get(size(a)) != Some(&true) {
                    return Err("it refers to a time zone that is not there");
                }
                self.given(b, good::WINDOWS, |_, window| schedule::check_window(window))?;
                return Ok(Extent { clock: true, ..Extent::LEAF });
            }
            code::PRESENT | code::INTEGER | code::PEER_NAMESPACE | code::PEER_ACCOUNT => self.is_claim(a)?,
            code::BOOLEAN if b <= 1 => self.is_claim(a)?,
            code::ONE_OF => {
                self.given(b, good::STRINGS, Self::is_string)?;
                self.is_claim(a)?;
            }
            code::GLOB | code::CONTAINS => {
                self.is_string(b)?;
                self.is_claim(a)?;
            }
            code::SAME => {
                self.is_claim(b)?;
                self.is_claim(a)?;
            }
            code::LISTED | code::LISTED_OR_STALE => {
                self.is_below(b, Table::Directories)?;
                self.is_claim(a)?;
            }
            _ => return Err("unknown operator"),
        }
        Ok(Extent { claims: true, ..Extent::LEAF })
    }

    fn text_test(&mut self, operator: u32, operand: u32, argument: u32) -> Result<Extent, &'static str> {
        match operator {
            code::TEXT_PRESENT => {}
            code::TEXT_ONE_OF => self.given(argument, good::STRINGS, Self::is_string)?,
            code::TEXT_PATTERN if self.automata.get(size(argument)) == Some(&true) => {}
            code::TEXT_PATTERN => return Err("it refers to an automaton that is not there"),
            _ => self.is_string(argument)?,
        }
        let Extent { claims, body, .. } = self.known_operand(operand)?;
        Ok(Extent { claims, body, ..Extent::LEAF })
    }

    /// What an operand is made of comes before it.
    pub(super) fn operands(&mut self) -> Result<(), InvalidRules> {
        self.each("operands", Table::Operands, |validation, [kind, a, b, _]: [u32; 4]| {
            let mut extent = Extent::LEAF;
            match kind {
                code::OPERAND_CLAIM => {
                    validation.is_claim(a)?;
                    extent.claims = true;
                }
                code::OPERAND_HEADER => {
                    validation.is_string(a)?;
                    if !normal::is_field_name(validation.policy.bytes(a)) {
                        return Err("no header has this name");
                    }
                }
                code::OPERAND_QUERY => {
                    validation.is_string(a)?;
                    if validation.policy.bytes(a).is_empty() {
                        return Err("a query parameter has a name");
                    }
                }
                code::OPERAND_TEXT => validation.is_string(a)?,
                code::OPERAND_BODY => {
                    validation.is_string(a)?;
                    if size(b) != validation.body_fields || size(b) >= MAX_BODY_FIELDS {
                        return Err("fields of bodies are not numbered in order");
                    }
                    validation.body_fields += 1;
                    if validation.policy.string(a).parse::<BodyField>().is_err() {
                        return Err("no body has this field");
                    }
                    extent.body = true;
                }
                code::OPERAND_BOOLEAN if a > 1 => return Err("it is neither true nor false"),
                code::OPERAND_LENGTH | code::OPERAND_PLUS => {
                    extent = validation.known_operand(a)?.wrapped();
                    if extent.depth >= MAX_OPERAND_DEPTH {
                        return Err("operands are nested too deep");
                    }
                }
                code::OPERAND_NOW | code::OPERAND_TOKEN_CLOCK => extent.clock = true,
                code::OPERAND_PEER_NAMESPACE..=code::OPERAND_PORT
                | code::OPERAND_INTEGER
                | code::OPERAND_BOOLEAN => {}
                _ => return Err("unknown kind of operand"),
            }
            validation.operands.push(extent);
            Ok(())
        })
    }

    fn known_operand(&self, at: u32) -> Result<Extent, &'static str> {
        self.operands.get(size(at)).copied().ok_or("it refers to an operand that is not there")
    }

    /// A list that must be there and have items.
    fn given(&mut self, at: u32, kind: u16, check: impl FnMut(&mut Self, u32) -> Check) -> Check {
        if at == NONE {
            return Err("a list is missing");
        }
        self.optional(at, kind, check)
    }

    pub(super) fn known_condition(&self, at: u32) -> Result<Extent, &'static str> {
        self.conditions.get(size(at)).copied().ok_or("a child does not come before its parent")
    }

    fn condition_list(&mut self, at: u32) -> Result<Extent, &'static str> {
        if self.lists.get(size(at)).is_none_or(|known| known & good::BEGINS == 0) {
            return Err("it refers to a list that is not there");
        }
        // Children that come before one parent come before every later one.
        if let Some(known) = self.condition_lists.get(&at) {
            return Ok(*known);
        }
        let children = self.policy.list(at);
        let mut all = Extent::default();
        for child in children {
            self.looked_at += 1;
            let child = self.known_condition(*child)?;
            all.depth = all.depth.max(child.depth);
            all.parts = all.parts.saturating_add(child.parts);
            all.claims |= child.claims;
            all.body |= child.body;
            all.clock |= child.clock;
        }
        // To remember a short list costs more than to look through it again.
        if children.len() > SHORT {
            self.condition_lists.insert(at, all);
        }
        Ok(all)
    }

    pub(super) fn is_claim(&self, claim: u32) -> Check {
        let issuer = claim >> 16;
        self.is_below(issuer, Table::Issuers)?;
        let [_, slots]: [u32; 2] = self.policy.record(Table::Issuers, issuer);
        if size(claim & 0xFFFF) < self.policy.list(slots).len() {
            Ok(())
        } else {
            Err("it reads a claim without a slot")
        }
    }

    /// Conditions of enforced Deny rules that read the clock: each once, however many rules share it.
    pub(super) fn timed_denies(&mut self) -> Vec<u32> {
        let policy = self.policy;
        let mut denies = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for rule in 0..word(policy.packed_count(Packed::Rules)) {
            let [_, head, froms, operations] = policy.packed(Packed::Rules, rule);
            let [flags, _, _] = policy.packed(Packed::Heads, head);
            if flags & code::RULE_DENY == 0 || flags & code::RULE_SHADOW != 0 {
                continue;
            }
            // What many rules share is looked at once.
            let froms = if seen.insert((true, froms)) { froms } else { NONE };
            let operations = if seen.insert((false, operations)) { operations } else { NONE };
            each_condition(policy, froms, operations, |condition| {
                if self.conditions.get(size(condition)).is_some_and(|extent| extent.clock) {
                    denies.insert(condition);
                }
            });
        }
        denies.into_iter().collect()
    }
}
