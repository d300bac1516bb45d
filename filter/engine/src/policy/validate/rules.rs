//! The checks of what lies in packed tables, and of the index.

use crate::index::{MAX_BEGINNING, MAX_LABELS, MAX_SEGMENTS, Shape};
use crate::layout::{InvalidRules, NONE, Table, code, size, word};
use crate::packed::Packed;

use super::{Check, RuleIx, Validation, good};

/// Whether nothing suspends a rule with these flags.
fn is_revoking(flags: u32) -> bool {
    flags & code::RULE_DENY != 0 && flags & code::RULE_REVOKES != 0
}

// === impl Validation ===

impl Validation<'_> {
    pub(super) fn rules(&mut self) -> Result<(), InvalidRules> {
        self.each_packed(Packed::Heads, |validation, _, [flags, owner, contact]| {
            if flags & ((1 << code::RULE_GRACE_SHIFT) - 1) & !code::RULE_FLAGS != 0 {
                return Err("unknown flags");
            }
            let upper = flags >> code::RULE_GRACE_SHIFT << code::RULE_GRACE_SHIFT;
            if flags & code::RULE_DENY != 0 && upper & !code::RULE_REVOKES != 0 {
                return Err("unknown flags");
            }
            validation.is_string(owner)?;
            validation.is_string(contact)
        })?;
        self.each_packed(Packed::Peers, |validation, _, [kind, trust_domain, namespace]| match kind {
            code::PEER_MESH => {
                validation.is_string(trust_domain)?;
                validation.is_string(namespace)
            }
            code::PEER_ANY_MESH => validation.is_string(trust_domain),
            code::PEER_NONE | code::PEER_ANYONE => Ok(()),
            _ => Err("unknown kind of peer"),
        })?;
        self.each_packed(Packed::Demands, |validation, _, [issuers, claim, condition]| {
            validation.list(issuers, good::ISSUERS, |validation, issuer| {
                validation.is_below(issuer, Table::Issuers)
            })?;
            if claim != NONE {
                validation.is_claim(claim)?;
            }
            if validation.known_condition(condition)?.body {
                return Err("it reads the body, which only operations do");
            }
            Ok(())
        })?;
        self.each_packed(Packed::Froms, |validation, _, [peer, accounts, demand, value]| {
            validation.is_packed(peer, Packed::Peers)?;
            validation.is_packed(demand, Packed::Demands)?;
            let [_, claim, _] = validation.policy.packed(Packed::Demands, demand);
            if claim != NONE {
                validation.is_string(value)?;
            }
            validation.optional_of(accounts, good::STRINGS, Self::is_string)
        })?;
        self.each_packed(Packed::Frames, Self::frame)?;
        self.each_packed(Packed::Nodes, |validation, position, [what, next]| {
            match what & 3 {
                code::SEGMENT_LITERAL | code::SEGMENT_GLOB => validation.is_string(what >> 2)?,
                code::SEGMENT_ONE => {}
                _ => return Err("unknown kind of segment"),
            }
            // What follows comes before, so every path ends.
            if next < code::PATH_NODES.saturating_add(position) {
                Ok(())
            } else {
                Err("what follows does not come before it")
            }
        })?;
        self.each_packed(Packed::Operations, |validation, _, [frame, paths, condition]| {
            validation.is_packed(frame, Packed::Frames)?;
            if condition != NONE && validation.known_condition(condition)?.claims {
                return Err("it reads a claim, and demands no token");
            }
            validation.optional_of(paths, good::PATHS, |validation, path| {
                if path < code::PATH_NODES {
                    return Ok(());
                }
                validation.is_packed(path.wrapping_sub(code::PATH_NODES), Packed::Nodes)
            })
        })?;
        self.each_packed(Packed::Rules, |validation, position, [id, head, froms, operations]| {
            validation.is_string(id)?;
            validation.is_packed(head, Packed::Heads)?;
            if froms == NONE {
                return Err("it says nothing about callers");
            }
            let [flags, _, _] = validation.policy.packed(Packed::Heads, head);
            if is_revoking(flags) {
                if operations != NONE || flags & code::RULE_SHADOW != 0 {
                    return Err("it takes something back, and is no enforced Deny of any operation");
                }
                validation.revoking.push(RuleIx(position));
            }
            validation.optional_of(froms, good::FROMS, |validation, from| {
                validation.is_packed(from, Packed::Froms)
            })?;
            validation.optional_of(operations, good::OPERATIONS, |validation, operation| {
                validation.is_packed(operation, Packed::Operations)
            })
        })?;
        self.each("directories", Table::Directories, |validation, [name]: [u32; 1]| {
            validation.is_string(name)
        })
    }

    fn frame(&mut self, _: u32, [flags, bits, others, ports, hosts]: [u32; 5]) -> Check {
        if flags & !code::OPERATION_FLAGS != 0 {
            return Err("unknown flags");
        }
        if bits == 0 && others == NONE {
            return Err("it allows no method");
        }
        self.are_strings(others)?;
        self.are_ports(ports)?;
        self.optional(hosts, good::HOSTS, |validation, host| validation.is_string(host >> 1))
    }

    pub(super) fn index(&mut self) -> Result<(), InvalidRules> {
        self.each_packed(Packed::Clauses, |validation, _, [rule, from, operation]| {
            validation.is_packed(rule, Packed::Rules)?;
            if from != NONE {
                validation.is_packed(from, Packed::Froms)?;
            }
            if operation != NONE {
                validation.is_packed(operation, Packed::Operations)?;
            }
            Ok(())
        })?;
        self.each("shapes", Table::Shapes, |validation, words: [u32; 6]| {
            let shape = Shape::of_words(words);
            let beginning = shape.beginning & 0xFF;
            if shape.subject > code::SUBJECT_NAMESPACE
                || shape.host > MAX_LABELS.saturating_add(1)
                || shape.segments >> MAX_SEGMENTS != 0
                || size(shape.beginning >> 8) >= MAX_SEGMENTS
                || beginning > MAX_BEGINNING
                || (beginning == 0) != (shape.beginning == 0)
            {
                return Err("unknown shape");
            }
            match shape.claim_kind {
                0 if shape.claim == NONE => Ok(()),
                code::CLAIM_TEXT | code::CLAIM_INTEGER | code::CLAIM_LIST => validation.is_claim(shape.claim),
                _ => Err("unknown shape"),
            }
        })?;
        let entries = word(self.policy.packed_count(Packed::Entries));
        let mut last = 0;
        self.each_packed(Packed::Starts, |validation, position, [start]| {
            let follows = if position == 0 { start == 0 } else { start >= last && start <= entries };
            if !follows {
                return Err("a bucket does not begin where the one before it ends");
            }
            let mut least = 0;
            for entry in last..start {
                let [tag, _] = validation.policy.packed(Packed::Entries, entry);
                if tag < least {
                    return Err("a bucket's entries are not in order");
                }
                least = tag;
            }
            last = start;
            Ok(())
        })?;
        if last != entries || self.policy.packed_count(Packed::Starts) < 2 {
            return Err(InvalidRules::Tables);
        }
        self.each_packed(Packed::Entries, |validation, _, [_, target]| match target & 3 {
            code::TARGET_RULE => validation.is_packed(target >> 2, Packed::Rules),
            code::TARGET_CLAUSE => validation.is_packed(target >> 2, Packed::Clauses),
            code::TARGET_TOKEN_REQUIRED => validation.is_packed(target >> 2, Packed::Froms),
            _ => Err("unknown kind of target"),
        })
    }
}
