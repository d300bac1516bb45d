//! Writes rules: what they share is written once, and what differs from rule to rule is kept apart from it.
//!
//! Of the claims that a from demands to have a certain value, the one whose value is the rarest is lifted out of its condition: the
//! from has the value, and what must hold besides, many froms share.

use crate::layout::{NONE, code, method_bit, size, word};
use crate::model::{
    Audit, ClaimRef, Condition, Disclosure, Effect, FromModel, HostPattern, Lease, Mode, OnExpiry, Operand,
    OperationModel, PathPattern, PeerModel, Relation, RuleModel, SegmentPattern, Test, TextTest,
};

use super::pool::{Kind, ListOf};
use super::{EncodeError, Place, Writer};

/// Where a rule's froms and operations are.
pub(super) struct Written {
    /// Of each a number.
    pub froms: Vec<u32>,
    pub operations: Vec<u32>,
    /// As they lie in the rule's record, with numbers for positions.
    pub from_list: u32,
    pub to_list: u32,
    pub head: u32,
    pub id: u32,
}

pub(super) fn conjuncts(condition: &Condition) -> &[Condition] {
    match condition {
        Condition::All(parts) => parts,
        one => std::slice::from_ref(one),
    }
}

/// A claim that must be a certain string: however that is said, it is false where the claim is absent, and unknown where
/// it is no string.
pub(super) fn equality(condition: &Condition) -> Option<(ClaimRef, &str)> {
    match condition {
        Condition::Claim(claim, Test::OneOf(values))
        | Condition::Text(Operand::Claim(claim), TextTest::OneOf(values)) => match values.as_slice() {
            [value] => Some((*claim, value)),
            _ => None,
        },
        Condition::Compare(Operand::Claim(claim), Relation::Equal, Operand::Text(value))
        | Condition::Compare(Operand::Text(value), Relation::Equal, Operand::Claim(claim)) => {
            Some((*claim, value))
        }
        _ => None,
    }
}

/// A rule's flags, and its grace.
fn flags(rule: &RuleModel) -> Result<u32, EncodeError> {
    let mut flags = 0;
    if rule.effect == Effect::Deny {
        flags |= code::RULE_DENY;
    }
    if rule.mode == Mode::Shadow {
        flags |= code::RULE_SHADOW;
    }
    flags |= match rule.disclosure {
        Disclosure::Full => 0,
        Disclosure::Code => code::RULE_DISCLOSE_CODE,
        Disclosure::Opaque => code::RULE_DISCLOSE_NOTHING,
    };
    flags |= match rule.audit {
        Audit::Sampled => 0,
        Audit::Full => code::RULE_AUDIT_FULL,
        Audit::Required => code::RULE_AUDIT_REQUIRED,
    };
    if rule.lease.on_expiry == OnExpiry::Keep {
        flags |= code::RULE_KEEP;
    }
    let refuse = |why| EncodeError::Rule { place: format!("rule {}", rule.id), why };
    if rule.effect == Effect::Deny && rule.lease != Lease::default() {
        return Err(refuse("a Deny lets no stream in that could go on"));
    }
    if rule.revokes && (rule.effect != Effect::Deny || rule.mode != Mode::Enforce || rule.to.is_some()) {
        return Err(refuse("what takes something back is an enforced Deny of any operation"));
    }
    if rule.lease.grace_s > Lease::MAX_GRACE_S {
        return Err(EncodeError::Grace(format!("rule {}", rule.id)));
    }
    flags |= if rule.revokes { code::RULE_REVOKES } else { rule.lease.grace_s << code::RULE_GRACE_SHIFT };
    Ok(flags)
}

// === impl Writer ===

impl Writer<'_> {
    /// Writes a rule. `lifted`: of each from, which part of its condition is lifted out of it. Its names come last, so that what
    /// requests are compared with lies together: they are no part of what is noted.
    pub(super) fn rule(&mut self, rule: &RuleModel, lifted: &[Option<u32>]) -> Result<Written, EncodeError> {
        let place = Place::Rule(&rule.id);
        let froms = rule
            .from
            .iter()
            .zip(lifted)
            .enumerate()
            .map(|(position, (from, lifted))| {
                self.from(from, *lifted, Place::Part(&rule.id, "from", position))
            })
            .collect::<Result<Vec<u32>, _>>()?;
        let from_list = self.one_or_list(Some(&froms), ListOf::Froms, place, "from", |_, from| Ok(*from))?;
        let operations = rule
            .to
            .iter()
            .flatten()
            .enumerate()
            .map(|(position, one)| self.operation(one, Place::Part(&rule.id, "to", position)))
            .collect::<Result<Vec<u32>, _>>()?;
        let to = rule.to.is_some().then_some(operations.as_slice());
        let to_list = self.one_or_list(to, ListOf::Operations, place, "to", |_, one| Ok(*one))?;
        let flags = flags(rule)?;
        let noted = self.noted.len();
        let head = [flags, self.string(&rule.owner), self.string(&rule.contact)];
        let (head, id) = (self.record(Kind::Heads, head), self.string(&rule.id));
        self.noted.truncate(noted);
        Ok(Written { froms, operations, from_list, to_list, head, id })
    }

    /// Twice the position of the one thing, or twice the list's and one; [`NONE`] for `None`.
    fn one_or_list<'t, T>(
        &mut self,
        items: Option<&'t [T]>,
        of: ListOf,
        place: Place<'_>,
        field: &str,
        mut item: impl FnMut(&mut Self, &'t T) -> Result<u32, EncodeError>,
    ) -> Result<u32, EncodeError> {
        match items {
            Some([one]) => Ok(item(self, one)? << 1),
            Some(_) => Ok(self.optional(items, of, place, field, item)? << 1 | 1),
            None => Ok(NONE),
        }
    }

    fn from(&mut self, from: &FromModel, lifted: Option<u32>, place: Place<'_>) -> Result<u32, EncodeError> {
        let (peer, accounts) = match &from.peer {
            PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
                let accounts = self.one_or_list(
                    service_accounts.as_deref(),
                    ListOf::Texts,
                    place,
                    "peer.serviceAccounts",
                    |writer, account| Ok(writer.string(account)),
                )?;
                ([code::PEER_MESH, self.string(trust_domain), self.string(namespace)], accounts)
            }
            PeerModel::AnyMesh { trust_domain } => {
                ([code::PEER_ANY_MESH, self.string(trust_domain), NONE], NONE)
            }
            PeerModel::NoPeer => ([code::PEER_NONE, NONE, NONE], NONE),
            PeerModel::Anyone => ([code::PEER_ANYONE, NONE, NONE], NONE),
        };
        let mut issuers: Vec<u32> = from.issuers.iter().map(|issuer| u32::from(*issuer)).collect();
        issuers.sort_unstable();
        issuers.dedup();
        if issuers.iter().any(|issuer| word(self.issuers.len()) <= *issuer) {
            return Err(EncodeError::Dangling { place: place.to_string(), what: "issuer" });
        }
        let issuer_list = self.list(ListOf::Numbers, &issuers);
        self.parts = 0;
        let parts = conjuncts(&from.condition);
        let lifted = lifted.map(size).and_then(|at| Some((at, equality(parts.get(at)?)?)));
        let (claim, value, condition) = match lifted {
            None => (NONE, NONE, self.condition(&from.condition, &from.issuers, place, 0)?),
            Some((lifted, (claim, value))) => {
                let claim = self.claim(claim, &from.issuers, place)?;
                let mut rest = parts.iter().enumerate().filter(|(position, _)| *position != lifted);
                let value = self.string(value);
                // The value is written first.
                let rest = match (parts.len(), rest.next()) {
                    (..=1, _) | (_, None) => self.condition(&Condition::True, &from.issuers, place, 0)?,
                    (2, Some((_, only))) => self.condition(only, &from.issuers, place, 0)?,
                    (_, Some((_, first))) => {
                        let rest = std::iter::once(first).chain(rest.map(|(_, part)| part));
                        self.all(rest, &from.issuers, place)?
                    }
                };
                (claim, value, rest)
            }
        };
        let peer = self.record(Kind::Peers, peer);
        let demand = self.record(Kind::Demands, [issuer_list, claim, condition]);
        Ok(self.record(Kind::Froms, [peer, accounts, demand, value]))
    }

    fn operation(&mut self, operation: &OperationModel, place: Place<'_>) -> Result<u32, EncodeError> {
        let (bits, others) = match operation.methods.as_deref() {
            None => (NONE, NONE),
            Some([]) => return Err(EncodeError::Empty(format!("{place}.methods"))),
            Some(methods) => {
                let bits = methods.iter().fold(0, |bits, method| bits | method_bit(method.as_bytes()));
                let others = methods.iter().filter(|method| method_bit(method.as_bytes()) == 0);
                let others: Vec<u32> = others.map(|method| self.string(method)).collect();
                (bits, if others.is_empty() { NONE } else { self.list(ListOf::Texts, &others) })
            }
        };
        let ports =
            self.optional(operation.ports.as_deref(), ListOf::Numbers, place, "ports", |_, port| {
                Ok(u32::from(*port))
            })?;
        let hosts = self.optional(
            operation.hosts.as_deref(),
            ListOf::Hosts,
            place,
            "hosts",
            |writer, host| match host {
                HostPattern::Exact(name) => Ok(writer.string(name) << 1 | code::HOST_EXACT),
                HostPattern::Suffix(suffix) if suffix.starts_with('.') => {
                    Ok(writer.string(suffix) << 1 | code::HOST_SUFFIX)
                }
                HostPattern::Suffix(_) => Err(EncodeError::Pattern {
                    place: format!("{place}.hosts"),
                    why: "the suffix after `*` must begin with a dot",
                }),
            },
        )?;
        let paths =
            self.one_or_list(operation.paths.as_deref(), ListOf::Paths, place, "paths", |writer, path| {
                writer.path(path, place)
            })?;
        let mut flags = if operation.grpc { code::OPERATION_GRPC } else { 0 };
        if operation.encoded_slashes {
            flags |= code::OPERATION_ENCODED_SLASHES;
        }
        let frame = self.record(Kind::Frames, [flags, bits, others, ports, hosts]);
        // No tokens are demanded, so no claims can be read.
        self.parts = 0;
        let condition = match &operation.condition {
            Condition::True => NONE,
            condition => {
                self.of_operation = true;
                let written = self.condition(condition, &[], place, 0);
                self.of_operation = false;
                written?
            }
        };
        Ok(self.record(Kind::Operations, [frame, paths, condition]))
    }

    /// Writes a template from its end to its beginning. Its last segment may be an empty literal: a trailing slash.
    fn path(&mut self, path: &PathPattern, place: Place<'_>) -> Result<u32, EncodeError> {
        let refuse = |why| EncodeError::Pattern { place: format!("{place}.paths"), why };
        let slash = SegmentPattern::Literal(String::new());
        let (segments, mut next) = match path.segments.as_slice() {
            [] => return Err(refuse("a path has at least one segment; `/` is one empty literal")),
            [one] if *one == slash => (&[][..], code::PATH_END),
            [inner @ .., last] if *last == slash => (inner, code::PATH_END_SLASH),
            [inner @ .., SegmentPattern::Rest] => (inner, code::PATH_REST),
            all => (all, code::PATH_END),
        };
        for segment in segments.iter().rev() {
            let what = match segment {
                SegmentPattern::Literal(text) if text.is_empty() || text.contains('/') => {
                    return Err(refuse("a literal segment is not empty and has no slash"));
                }
                SegmentPattern::Literal(text) => self.string(text) << 2 | code::SEGMENT_LITERAL,
                SegmentPattern::One => code::SEGMENT_ONE,
                SegmentPattern::Rest => return Err(refuse("`{**}` can only be the last segment")),
                SegmentPattern::Glob(pattern) => self.string(pattern) << 2 | code::SEGMENT_GLOB,
            };
            next = self.record(Kind::Nodes, [what, next]).saturating_add(code::PATH_NODES);
        }
        Ok(next)
    }
}
