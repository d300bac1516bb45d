//! Writes rules: what they share is written once, and what differs from rule to rule is kept apart from it.

use crate::layout::{NONE, code, method_bit, word};
use crate::model::{
    Audit, ClaimRef, Condition, Disclosure, Effect, FromModel, HostPattern, Lease, Mode, OnExpiry, Operand,
    OperationModel, PathPattern, PeerModel, PolicyModel, Relation, RuleModel, SegmentPattern, Test, TextTest,
};
use crate::packed::Packed;

use super::{EncodeError, Map, Place, Seed, Writer};

/// How many froms demand that a claim is a certain string.
pub(super) type Rarity<'m> = Map<(ClaimRef, &'m str), u32>;

/// Where a rule's froms and operations were written (`None`: any operation).
pub(super) struct Written {
    pub froms: Vec<u32>,
    pub operations: Option<Vec<u32>>,
    from_list: u32,
    to_list: u32,
}

pub(super) fn rarity(model: &PolicyModel, seed: Seed) -> Rarity<'_> {
    let mut rarity = Rarity::with_hasher(seed);
    for from in model.rules.iter().flat_map(|rule| &rule.from) {
        for part in conjuncts(&from.condition) {
            if let Some(equality) = equality(part) {
                *rarity.entry(equality).or_default() += 1;
            }
        }
    }
    rarity
}

fn conjuncts(condition: &Condition) -> &[Condition] {
    match condition {
        Condition::All(parts) => parts,
        one => std::slice::from_ref(one),
    }
}

/// A claim that must be a certain string: however that is said, it is false where the claim is absent, and unknown where
/// it is no string.
fn equality(condition: &Condition) -> Option<(ClaimRef, &str)> {
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

// === impl Writer ===

impl<'m> Writer<'m> {
    /// Writes a rule but for its record.
    pub(super) fn parts_of(&mut self, rule: &'m RuleModel) -> Result<Written, EncodeError> {
        let place = Place::Rule(&rule.id);
        let froms = rule
            .from
            .iter()
            .enumerate()
            .map(|(position, from)| self.from(from, Place::Part(&rule.id, "from", position)))
            .collect::<Result<Vec<u32>, _>>()?;
        let from_list = self.one_or_list(Some(&froms), place, "from", |_, from| Ok(*from))?;
        let operations = match &rule.to {
            None => None,
            Some(to) => Some(
                to.iter()
                    .enumerate()
                    .map(|(position, one)| self.operation(one, Place::Part(&rule.id, "to", position)))
                    .collect::<Result<Vec<u32>, _>>()?,
            ),
        };
        let to_list = self.one_or_list(operations.as_deref(), place, "to", |_, one| Ok(*one))?;
        Ok(Written { froms, operations, from_list, to_list })
    }

    /// Writes a rule's record. Its names come last, so that what requests are compared with lies together.
    pub(super) fn rule(&mut self, rule: &'m RuleModel, written: &Written) -> Result<(), EncodeError> {
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
        let head = [flags, self.string(&rule.owner), self.string(&rule.contact)];
        let head = self.share(Packed::Heads, head);
        let record = [self.string(&rule.id), head, written.from_list, written.to_list];
        self.put(Packed::Rules, &record);
        Ok(())
    }

    /// Twice the position of the one thing, or twice the list's and one; [`NONE`] for `None`.
    fn one_or_list<'t, T>(
        &mut self,
        items: Option<&'t [T]>,
        place: Place<'_>,
        field: &str,
        mut item: impl FnMut(&mut Self, &'t T) -> Result<u32, EncodeError>,
    ) -> Result<u32, EncodeError> {
        match items {
            Some([one]) => Ok(item(self, one)? << 1),
            Some(_) => Ok(self.optional(items, place, field, item)? << 1 | 1),
            None => Ok(NONE),
        }
    }

    fn from(&mut self, from: &'m FromModel, place: Place<'_>) -> Result<u32, EncodeError> {
        let (peer, accounts) = match &from.peer {
            PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
                let accounts = self.one_or_list(
                    service_accounts.as_deref(),
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
        if issuers.iter().any(|issuer| word(self.model.issuers.len()) <= *issuer) {
            return Err(EncodeError::Dangling { place: place.to_string(), what: "issuer" });
        }
        let issuer_list = self.list(&issuers);
        self.parts = 0;
        let (claim, value, condition) = match self.lifted(&from.condition) {
            None => (NONE, NONE, self.condition(&from.condition, &from.issuers, place, 0)?),
            Some((lifted, claim, value)) => {
                let claim = self.claim(claim, &from.issuers, place)?;
                let parts = conjuncts(&from.condition);
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
        let peer = self.share(Packed::Peers, peer);
        let demand = self.share(Packed::Demands, [issuer_list, claim, condition]);
        Ok(self.share(Packed::Froms, [peer, accounts, demand, value]))
    }

    /// Of the claims that must have a certain value the one with the rarest, and which part of the condition says so. What must
    /// hold besides, many froms share.
    fn lifted(&self, condition: &'m Condition) -> Option<(usize, ClaimRef, &'m str)> {
        let parts = conjuncts(condition).iter().enumerate().filter_map(|(position, part)| {
            let (claim, value) = equality(part)?;
            let rarity = self.rarity.get(&(claim, value)).copied().unwrap_or(0);
            Some((rarity, position, claim, value))
        });
        let rarest = parts.min_by_key(|(rarity, position, _, _)| (*rarity, *position));
        rarest.map(|(_, position, claim, value)| (position, claim, value))
    }

    fn operation(&mut self, operation: &'m OperationModel, place: Place<'_>) -> Result<u32, EncodeError> {
        let (bits, others) = match operation.methods.as_deref() {
            None => (NONE, NONE),
            Some([]) => return Err(EncodeError::Empty(format!("{place}.methods"))),
            Some(methods) => {
                let bits = methods.iter().fold(0, |bits, method| bits | method_bit(method.as_bytes()));
                let others = methods.iter().filter(|method| method_bit(method.as_bytes()) == 0);
                let others: Vec<u32> = others.map(|method| self.string(method)).collect();
                (bits, if others.is_empty() { NONE } else { self.list(&others) })
            }
        };
        let ports =
            self.optional(operation.ports.as_deref(), place, "ports", |_, port| Ok(u32::from(*port)))?;
        let hosts = self.optional(operation.hosts.as_deref(), place, "hosts", |writer, host| match host {
            HostPattern::Exact(name) => Ok(writer.string(name) << 1 | code::HOST_EXACT),
            HostPattern::Suffix(suffix) if suffix.starts_with('.') => {
                Ok(writer.string(suffix) << 1 | code::HOST_SUFFIX)
            }
            HostPattern::Suffix(_) => Err(EncodeError::Pattern {
                place: format!("{place}.hosts"),
                why: "the suffix after `*` must begin with a dot",
            }),
        })?;
        let paths = self.one_or_list(operation.paths.as_deref(), place, "paths", |writer, path| {
            writer.path(path, place)
        })?;
        let mut flags = if operation.grpc { code::OPERATION_GRPC } else { 0 };
        if operation.encoded_slashes {
            flags |= code::OPERATION_ENCODED_SLASHES;
        }
        let frame = self.share(Packed::Frames, [flags, bits, others, ports, hosts]);
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
        Ok(self.share(Packed::Operations, [frame, paths, condition]))
    }

    /// Writes a template from its end to its beginning. Its last segment may be an empty literal: a trailing slash.
    fn path(&mut self, path: &'m PathPattern, place: Place<'_>) -> Result<u32, EncodeError> {
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
            next = self.share(Packed::Nodes, [what, next]).saturating_add(code::PATH_NODES);
        }
        Ok(next)
    }
}
