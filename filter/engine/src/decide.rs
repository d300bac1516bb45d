//! The decision.
//!
//! Structure, outermost first: no Guard covers the port → allowed; the request is ambiguous → refused; any token is
//! invalid or meant for somebody else → refused; any Deny rule matches → refused; any Allow rule matches → allowed; else
//! refused. A rule matches iff *any* of its froms matches and *any* of its operations matches. A from matches iff its
//! peer *and* all its tokens *and* its condition hold. An operation matches iff its port *and* method *and* host *and*
//! path hold.

use crate::condition;
use crate::decision::{Decision, Guarding, Matches, RuleIx, ShadowDifference, enforce};
use crate::glob;
use crate::index::{self, Prefixes, Shape};
use crate::layout::{NONE, TRAILING_SLASH, Table, code, method_bit, size, word};
use crate::normal;
use crate::policy::PolicySet;
use crate::reason::{Outcome, Reason, TokenFault};
use crate::request::{ClaimValue, Peer, Request, TokenState};
use crate::truth::Truth;

/// Decides a request. Total: whatever the request is, there is an answer.
pub fn decide(policy: &PolicySet, request: &Request<'_>) -> Decision {
    let guarding = policy.guarding(request.port);
    if guarding == Guarding::None {
        return Decision { outcome: Outcome::Allow, reason: Reason::NotGuarded, rule: None, shadow: None };
    }
    if let Some(reason) =
        refused_before_rules(request, |audiences| policy.meant_for(audiences, request.port, request.host))
    {
        let refusal = ShadowDifference { outcome: Outcome::Deny, reason, rule: None };
        return enforce(guarding, refusal, refusal);
    }
    Search::new(policy, request).matches().settle(guarding, || token_required(policy, request))
}

/// What refuses a request whatever the rules say. `meant_for` tells whether a token with these audiences is for us.
pub(crate) fn refused_before_rules(
    request: &Request<'_>,
    meant_for: impl Fn(&[String]) -> bool,
) -> Option<Reason> {
    if let Some(ambiguity) = normal::ambiguity(request) {
        return Some(Reason::Ambiguous(ambiguity));
    }
    request.tokens.iter().find_map(|token| match token {
        TokenState::Absent => None,
        TokenState::Invalid(fault) => Some(Reason::TokenInvalid(*fault)),
        TokenState::Verified(token) if request.now >= token.expires_at.saturating_add(MAX_SKEW) => {
            Some(Reason::TokenInvalid(TokenFault::Expired))
        }
        TokenState::Verified(token) if !meant_for(&token.audiences) => {
            Some(Reason::TokenInvalid(TokenFault::WrongAudience))
        }
        TokenState::Verified(_) => None,
    })
}

/// No issuer's skew may be larger, in seconds: a second net under the identity layer's own check.
const MAX_SKEW: i64 = 120;

/// Whether some Allow would let this caller in, but only with a token, and it has sent none.
fn token_required(policy: &PolicySet, request: &Request<'_>) -> bool {
    if request.tokens.iter().any(|token| matches!(token, TokenState::Verified(_))) {
        return false;
    }
    let subjects = match request.peer {
        Peer::Absent => [index::WITHOUT_PEER, index::ANYONE, index::ANYONE, index::ANYONE],
        Peer::Mesh { trust_domain, namespace, service_account } => [
            index::account_subject(trust_domain, namespace, service_account),
            index::namespace_subject(trust_domain, namespace),
            index::any_mesh_subject(trust_domain),
            index::ANYONE,
        ],
    };
    subjects.into_iter().any(|subject| {
        let mut found = false;
        probe(policy, index::key(index::TOKEN_REQUIRED, subject, 0, 0), |_| found = true);
        found
    })
}

/// Calls `found` with the value of every bucket that carries the key's tag.
fn probe(policy: &PolicySet, key: u64, mut found: impl FnMut(u32)) {
    let buckets = policy.count(Table::Buckets);
    let mask = word(buckets.saturating_sub(1));
    let tag = index::tag(key);
    let mut at = index::home(key, mask);
    // INVARIANT: at most half of the buckets are taken; were they all, this would still end.
    for _ in 0..buckets {
        let [there, value]: [u32; 2] = policy.record(Table::Buckets, at);
        if there == 0 {
            return;
        }
        if there == tag {
            found(value);
        }
        at = at.wrapping_add(1) & mask;
    }
}

/// One walk through the index.
struct Search<'p, 'r> {
    policy: &'p PolicySet,
    request: &'p Request<'r>,
    method_bit: u32,
    matches: Matches,
}

// === impl Search ===

impl<'p, 'r> Search<'p, 'r> {
    fn new(policy: &'p PolicySet, request: &'p Request<'r>) -> Self {
        Self { policy, request, method_bit: method_bit(request.method), matches: Matches::default() }
    }

    fn matches(mut self) -> Matches {
        let prefixes = Prefixes::of(self.request.path.segments());
        let (account, namespace) = match self.request.peer {
            Peer::Absent => (None, None),
            Peer::Mesh { trust_domain, namespace, service_account } => {
                let namespace = index::namespace_subject(trust_domain, namespace);
                (Some(crate::hash::bytes(namespace, service_account.as_bytes())), Some(namespace))
            }
        };
        let policy = self.policy;
        let (shapes, _) = policy.table(Table::Shapes).as_chunks::<3>();
        for [subject, claim, depth] in shapes {
            let shape = Shape { subject: *subject, claim: *claim, depth: *depth };
            let subject = match shape.subject {
                code::SUBJECT_NONE => Some(0),
                code::SUBJECT_ACCOUNT => account,
                code::SUBJECT_NAMESPACE => namespace,
                _ => None,
            };
            let Some((subject, prefix)) = subject.zip(prefixes.at(shape.depth)) else { continue };
            let value = if shape.claim == NONE {
                0
            } else {
                match condition::claim(self.request, shape.claim) {
                    ClaimValue::String(value) => index::claim_value(value),
                    // Only Allow rules are filed under claims, and no Allow holds without this one.
                    _ => continue,
                }
            };
            probe(policy, index::key(shape, subject, value, prefix), |value| self.candidates(value));
        }
        self.matches
    }

    fn candidates(&mut self, bucket: u32) {
        if bucket & code::BUCKET_INLINE != 0 {
            self.clause(bucket & !code::BUCKET_INLINE);
        } else {
            for clause in self.policy.run(Table::Postings, bucket).1 {
                self.clause(*clause);
            }
        }
    }

    fn clause(&mut self, clause: u32) {
        let [rule, from, operation] = self.policy.record(Table::Clauses, clause);
        let [_, _, flags, froms, operations] = self.policy.record(Table::Rules, rule);
        let deny = flags & code::RULE_DENY != 0;
        let slot = match (deny, flags & code::RULE_SHADOW != 0) {
            (true, false) => &self.matches.deny,
            (true, true) => &self.matches.shadow_deny,
            (false, false) => &self.matches.allow,
            (false, true) => &self.matches.shadow_allow,
        };
        // An earlier rule of this kind is known already.
        if slot.is_some_and(|known| known.0 <= rule) {
            return;
        }
        let operation = if operation == NONE {
            self.any(operations, |search, operation| search.operation(operation))
        } else {
            self.operation(operation)
        };
        if operation == Truth::False {
            return;
        }
        let from =
            if from == NONE { self.any(froms, |search, from| search.from(from)) } else { self.from(from) };
        // A Deny matches on what cannot be told, an Allow does not.
        let matched = match operation.and(from) {
            Truth::True => true,
            Truth::Unknown => deny,
            Truth::False => false,
        };
        if matched {
            let slot = match (deny, flags & code::RULE_SHADOW != 0) {
                (true, false) => &mut self.matches.deny,
                (true, true) => &mut self.matches.shadow_deny,
                (false, false) => &mut self.matches.allow,
                (false, true) => &mut self.matches.shadow_allow,
            };
            *slot = Some(RuleIx(rule));
        }
    }

    /// Any of a rule's list; no list is "any operation".
    fn any(&self, list: u32, holds: impl Fn(&Self, u32) -> Truth) -> Truth {
        if list == NONE {
            return Truth::True;
        }
        let mut any = Truth::False;
        for item in self.policy.list(list) {
            any = any.or(holds(self, *item));
            if any == Truth::True {
                break;
            }
        }
        any
    }

    fn from(&self, from: u32) -> Truth {
        let [kind, trust_domain, namespace, accounts, issuers, condition] =
            self.policy.record(Table::Froms, from);
        let peer = match (kind, self.request.peer) {
            (code::PEER_ANYONE, _) => true,
            (code::PEER_NONE, Peer::Absent) => true,
            (code::PEER_ANY_MESH, Peer::Mesh { trust_domain: peer, .. }) => self.is(trust_domain, peer),
            (code::PEER_MESH, Peer::Mesh { trust_domain: peer, namespace: space, service_account }) => {
                self.is(namespace, space)
                    && self.is(trust_domain, peer)
                    && (accounts == NONE
                        || self
                            .policy
                            .list(accounts)
                            .iter()
                            .any(|account| self.is(*account, service_account)))
            }
            _ => false,
        };
        let tokens = peer
            && self.policy.list(issuers).iter().all(|issuer| {
                matches!(self.request.tokens.get(size(*issuer)), Some(TokenState::Verified(_)))
            });
        if tokens { condition::evaluate(self.policy, condition, self.request) } else { Truth::False }
    }

    fn is(&self, string: u32, text: &str) -> bool {
        self.policy.bytes(string) == text.as_bytes()
    }

    fn operation(&self, operation: u32) -> Truth {
        let [flags, bits, others, ports, hosts, paths] = self.policy.record(Table::Operations, operation);
        let request = self.request;
        let method = bits == NONE
            || bits & self.method_bit != 0
            || (others != NONE
                && self.policy.list(others).iter().any(|known| self.policy.bytes(*known) == request.method));
        let port = || ports == NONE || self.policy.list(ports).contains(&u32::from(request.port));
        let host = || {
            hosts == NONE
                || request.host.is_some_and(|host| {
                    self.policy.list(hosts).iter().any(|pattern| self.host(*pattern, host))
                })
        };
        if !(method && port() && host()) {
            return Truth::False;
        }
        let path =
            if paths == NONE { Truth::True } else { self.any(paths, |search, path| search.path(path)) };
        if flags & code::OPERATION_GRPC != 0 && !request.headers.grpc {
            // An Allow demands the content type, a Deny does not.
            path.and(Truth::Unknown)
        } else {
            path
        }
    }

    fn host(&self, pattern: u32, host: &str) -> bool {
        let text = self.policy.bytes(pattern & code::STRING_MASK);
        if pattern >> code::KIND_SHIFT == code::HOST_EXACT {
            text == host.as_bytes()
        } else {
            host.len() > text.len() && host.as_bytes().ends_with(text)
        }
    }

    /// True when the segments match; unknown when only the trailing slash differs, which servers treat differently.
    fn path(&self, pattern: u32) -> Truth {
        let (trailing, segments) = self.policy.run(Table::Lists, pattern);
        let mut path = self.request.path.segments();
        for segment in segments {
            let matched = match segment >> code::KIND_SHIFT {
                code::SEGMENT_REST => return Truth::True,
                kind => match path.next() {
                    None => false,
                    Some(_) if kind == code::SEGMENT_ONE => true,
                    Some(there) if kind == code::SEGMENT_LITERAL => {
                        self.is(segment & code::STRING_MASK, there)
                    }
                    Some(there) => {
                        glob::matches(self.policy.bytes(segment & code::STRING_MASK), there.as_bytes())
                    }
                },
            };
            if !matched {
                return Truth::False;
            }
        }
        if path.next().is_some() {
            Truth::False
        } else if (trailing & TRAILING_SLASH != 0) == self.request.path.trailing_slash() {
            Truth::True
        } else {
            Truth::Unknown
        }
    }
}
