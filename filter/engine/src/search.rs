//! The rules that a request meets: candidates from the index, and the exact check of each.

use crate::condition::{self, Listing, Scope};
use crate::decision::{Matches, RuleIx};
use crate::glob;
use crate::index::{self, Prefixes, Shape};
use crate::layout::{NONE, TRAILING_SLASH, Table, code, method_bit, size, word};
use crate::policy::PolicySet;
use crate::request::{ClaimValue, Peer, Request, TokenState};
use crate::truth::Truth;

/// Calls `found` with the value of every bucket that carries the key's tag.
pub(crate) fn probe(policy: &PolicySet, key: u64, mut found: impl FnMut(u32)) {
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

/// Checks what the policy says against a request.
#[derive(Clone, Copy)]
pub(crate) struct Search<'p, 'r> {
    scope: Scope<'p, 'r>,
    method_bit: u32,
}

// === impl Search ===

impl<'p, 'r> Search<'p, 'r> {
    pub fn new(policy: &'p PolicySet, request: &'p Request<'r>, listing: Listing<'p>) -> Self {
        Self { scope: Scope { policy, request, listing }, method_bit: method_bit(request.method) }
    }

    /// The first rule of each kind that matches.
    pub fn matches(&self) -> Matches {
        let mut matches = Matches::default();
        self.each_clause(|clause| self.clause(clause, &mut matches));
        matches
    }

    /// Calls `visit` with every clause that the index offers: all that match the request, and some that do not.
    pub fn each_clause(&self, mut visit: impl FnMut(u32)) {
        let prefixes = Prefixes::of(self.scope.request.path.segments());
        let (account, namespace) = match self.scope.request.peer {
            Peer::Absent => (None, None),
            Peer::Mesh { trust_domain, namespace, service_account } => {
                let namespace = index::namespace_subject(trust_domain, namespace);
                (Some(crate::hash::bytes(namespace, service_account.as_bytes())), Some(namespace))
            }
        };
        let policy = self.scope.policy;
        let (shapes, _) = policy.table(Table::Shapes).as_chunks::<3>();
        for [subject, claim, depth] in shapes {
            let shape = Shape { subject: *subject, claim: *claim, depth: *depth };
            let subject = match shape.subject {
                code::SUBJECT_NONE => Some(0),
                code::SUBJECT_ACCOUNT => account,
                code::SUBJECT_NAMESPACE => namespace,
                _ => None,
            };
            let Some((subject, prefix)) = subject.zip(prefixes.at(shape.depth)) else {
                continue;
            };
            let value = if shape.claim == NONE {
                0
            } else {
                match condition::claim(self.scope.request, shape.claim) {
                    ClaimValue::String(value) => index::claim_value(value),
                    // Only Allow rules are filed under claims, and no Allow holds without this one.
                    _ => continue,
                }
            };
            probe(policy, index::key(shape, subject, value, prefix), |bucket| {
                if bucket & code::BUCKET_INLINE != 0 {
                    visit(bucket & !code::BUCKET_INLINE);
                } else {
                    for clause in policy.run(Table::Postings, bucket).1 {
                        visit(*clause);
                    }
                }
            });
        }
    }

    fn clause(&self, clause: u32, matches: &mut Matches) {
        let [rule, from, operation] = self.scope.policy.record(Table::Clauses, clause);
        let [_, _, flags, froms, operations] = self.scope.policy.record(Table::Rules, rule);
        let deny = flags & code::RULE_DENY != 0;
        let slot = match (deny, flags & code::RULE_SHADOW != 0) {
            (true, false) => &mut matches.deny,
            (true, true) => &mut matches.shadow_deny,
            (false, false) => &mut matches.allow,
            (false, true) => &mut matches.shadow_allow,
        };
        // An earlier rule of this kind is known already.
        if slot.is_some_and(|known| known.0 <= rule) {
            return;
        }
        let operation = self.operation_of(operation, operations);
        if operation == Truth::False {
            return;
        }
        let from = if from == NONE { self.any(froms, Self::from) } else { self.from(from) };
        // A Deny matches on what cannot be told, an Allow does not.
        let matched = match operation.and(from) {
            Truth::True => true,
            Truth::Unknown => deny,
            Truth::False => false,
        };
        if matched {
            *slot = Some(RuleIx(rule));
        }
    }

    /// Whether a whole rule matches: any of its froms, and any of its operations.
    pub fn rule(&self, rule: RuleIx) -> Truth {
        let [_, _, _, froms, operations] = self.scope.policy.record(Table::Rules, rule.0);
        self.operation_of(NONE, operations).and(self.any(froms, Self::from))
    }

    /// One operation, or any of the rule's.
    pub fn operation_of(&self, operation: u32, operations: u32) -> Truth {
        if operation == NONE { self.any(operations, Self::operation) } else { self.operation(operation) }
    }

    /// Any of a rule's list; no list is "any operation".
    fn any(&self, list: u32, holds: impl Fn(&Self, u32) -> Truth) -> Truth {
        if list == NONE {
            return Truth::True;
        }
        let mut any = Truth::False;
        for item in self.scope.policy.list(list) {
            any = any.or(holds(self, *item));
            if any == Truth::True {
                break;
            }
        }
        any
    }

    pub fn from(&self, from: u32) -> Truth {
        let [kind, trust_domain, namespace, accounts, issuers, condition] =
            self.scope.policy.record(Table::Froms, from);
        let peer = match (kind, self.scope.request.peer) {
            (code::PEER_ANYONE, _) => true,
            (code::PEER_NONE, Peer::Absent) => true,
            (code::PEER_ANY_MESH, Peer::Mesh { trust_domain: peer, .. }) => self.is(trust_domain, peer),
            (code::PEER_MESH, Peer::Mesh { trust_domain: peer, namespace: space, service_account }) => {
                self.is(namespace, space)
                    && self.is(trust_domain, peer)
                    && (accounts == NONE
                        || self
                            .scope
                            .policy
                            .list(accounts)
                            .iter()
                            .any(|account| self.is(*account, service_account)))
            }
            _ => false,
        };
        let tokens = peer
            && self.scope.policy.list(issuers).iter().all(|issuer| {
                matches!(self.scope.request.tokens.get(size(*issuer)), Some(TokenState::Verified(_)))
            });
        if tokens { condition::evaluate(&self.scope, condition) } else { Truth::False }
    }

    fn is(&self, string: u32, text: &str) -> bool {
        self.scope.policy.bytes(string) == text.as_bytes()
    }

    fn operation(&self, operation: u32) -> Truth {
        let [flags, bits, others, ports, hosts, paths, condition] =
            self.scope.policy.record(Table::Operations, operation);
        let request = self.scope.request;
        let method = bits == NONE
            || bits & self.method_bit != 0
            || (others != NONE
                && self
                    .scope
                    .policy
                    .list(others)
                    .iter()
                    .any(|known| self.scope.policy.bytes(*known) == request.method));
        let port = || ports == NONE || self.scope.policy.list(ports).contains(&u32::from(request.port));
        let host = || {
            hosts == NONE
                || request.host.is_some_and(|host| {
                    self.scope.policy.list(hosts).iter().any(|pattern| self.host(*pattern, host))
                })
        };
        if !(method && port() && host()) {
            return Truth::False;
        }
        let path = if paths == NONE { Truth::True } else { self.any(paths, Self::path) };
        let path = if flags & code::OPERATION_GRPC != 0 && !request.headers.grpc {
            // An Allow demands the content type, a Deny does not.
            path.and(Truth::Unknown)
        } else {
            path
        };
        if path == Truth::False { path } else { path.and(condition::evaluate(&self.scope, condition)) }
    }

    fn host(&self, pattern: u32, host: &str) -> bool {
        let text = self.scope.policy.bytes(pattern & code::STRING_MASK);
        if pattern >> code::KIND_SHIFT == code::HOST_EXACT {
            text == host.as_bytes()
        } else {
            host.len() > text.len() && host.as_bytes().ends_with(text)
        }
    }

    /// True when the segments match; unknown when only the trailing slash differs, which servers treat differently.
    fn path(&self, pattern: u32) -> Truth {
        let (trailing, segments) = self.scope.policy.run(Table::Lists, pattern);
        let mut path = self.scope.request.path.segments();
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
                        glob::matches(self.scope.policy.bytes(segment & code::STRING_MASK), there.as_bytes())
                    }
                },
            };
            if !matched {
                return Truth::False;
            }
        }
        if path.next().is_some() {
            Truth::False
        } else if (trailing & TRAILING_SLASH != 0) == self.scope.request.path.trailing_slash() {
            Truth::True
        } else {
            Truth::Unknown
        }
    }
}
