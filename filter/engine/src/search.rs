//! The rules that a request meets: candidates from the index, and the exact check of each.

use crate::condition::{self, Listing, Scope};
use crate::decision::{Matches, RuleIx};
use crate::glob;
use crate::index;
use crate::layout::{NONE, code, method_bit, size, word};
use crate::packed::Packed;
use crate::policy::PolicySet;
use crate::request::{Body, ClaimValue, Peer, Request, TokenState};
use crate::scan;
use crate::truth::Truth;

/// From so many entries of one bucket on, the first one with the right tag is searched for.
const MANY: u32 = 16;

/// Calls `found` with the target of every entry that carries the key's tag.
#[inline]
pub(crate) fn lookup(policy: &PolicySet, key: u64, mut found: impl FnMut(u32)) {
    let buckets = word(policy.packed_count(Packed::Starts)).saturating_sub(1);
    let bucket = index::bucket(key, buckets);
    let [mut at] = policy.packed(Packed::Starts, bucket);
    let [end] = policy.packed(Packed::Starts, bucket.saturating_add(1));
    if at >= end {
        return;
    }
    let tag = index::tag(key);
    if end.wrapping_sub(at) > MANY {
        at = first_with(policy, at, end, tag);
    }
    // A bucket's entries are ordered by their tags.
    while at < end {
        let [there, target] = policy.packed(Packed::Entries, at);
        if there == tag {
            found(target);
        } else if there > tag {
            return;
        }
        at = at.wrapping_add(1);
    }
}

#[cold]
fn first_with(policy: &PolicySet, mut low: u32, mut high: u32, tag: u32) -> u32 {
    while low < high {
        let middle = low.midpoint(high);
        let [there, _] = policy.packed(Packed::Entries, middle);
        if there < tag {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    low
}

/// A rule that may match: one of its froms and one of its operations; [`NONE`] stands for any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub rule: u32,
    pub from: u32,
    pub operation: u32,
}

/// Checks what the policy says against a request.
#[derive(Clone, Copy)]
pub(crate) struct Search<'p, 'r> {
    scope: Scope<'p, 'r>,
    method_bit: u32,
    /// Whatever depends on a body that was not read turns out well for the request.
    best: bool,
    /// Whatever cannot be told turns out well for the request.
    generous: bool,
}

// === impl Search ===

impl<'p, 'r> Search<'p, 'r> {
    pub fn new(policy: &'p PolicySet, request: &'p Request<'r>, listing: Listing<'p>) -> Self {
        let scope = Scope { policy, request, listing };
        Self { scope, method_bit: method_bit(request.method), best: false, generous: false }
    }

    /// The same, with the best body that there could be.
    pub fn best(self) -> Self {
        Self { best: true, ..self }
    }

    /// The same, with the best body that there could be where none was read.
    pub fn hopeful(self) -> Self {
        Self { best: self.scope.request.body == Body::Unread, ..self }
    }

    /// The same, with everything that cannot be told as good as it could be.
    pub fn generous(self) -> Self {
        Self { generous: true, ..self }
    }

    /// The first rule of each kind that matches.
    pub fn matches(&self) -> Matches {
        let mut matches = Matches::default();
        self.each_candidate(|candidate| self.candidate(candidate, &mut matches));
        matches
    }

    /// Calls `visit` with every candidate that the index offers: all that match the request, and some that do not.
    #[inline]
    pub fn each_candidate(&self, mut visit: impl FnMut(Candidate)) {
        let policy = self.scope.policy;
        policy.shapes().each_key(self.scope.request, |key| {
            lookup(policy, key, |target| {
                let position = target >> 2;
                match target & 3 {
                    code::TARGET_RULE => visit(Candidate { rule: position, from: NONE, operation: NONE }),
                    code::TARGET_CLAUSE => {
                        let [rule, from, operation] = policy.packed(Packed::Clauses, position);
                        visit(Candidate { rule, from, operation });
                    }
                    _ => {}
                }
            });
        });
    }

    #[inline]
    fn candidate(&self, Candidate { rule, from, operation }: Candidate, matches: &mut Matches) {
        let [_, head, froms, operations] = self.scope.policy.packed(Packed::Rules, rule);
        let [flags, _, _] = self.scope.policy.packed(Packed::Heads, head);
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
        let operation = self.operation_of(operation, operations, deny);
        if operation == Truth::False {
            return;
        }
        let from = if from == NONE { self.any(froms, Self::from) } else { self.from(from) };
        // A Deny matches on what cannot be told, an Allow does not.
        let matched = match operation.and(from) {
            Truth::True => true,
            Truth::Unknown => deny != self.generous,
            Truth::False => false,
        };
        if matched {
            *slot = Some(RuleIx(rule));
        }
    }

    /// Whether a whole rule matches: any of its froms, and any of its operations.
    pub fn rule(&self, rule: RuleIx) -> Truth {
        let [_, _, froms, operations] = self.scope.policy.packed(Packed::Rules, rule.0);
        self.operation_of(NONE, operations, false).and(self.any(froms, Self::from))
    }

    /// One operation, or any of the rule's. `deny`: of a Deny.
    pub fn operation_of(&self, operation: u32, operations: u32, deny: bool) -> Truth {
        if operation != NONE {
            self.operation(operation, deny)
        } else if operations == NONE && self.scope.request.path.keeps_slashes() {
            // "Any operation" does not say that encoded slashes are data.
            Truth::Unknown
        } else {
            self.any(operations, |search, one| search.operation(one, deny))
        }
    }

    /// Adds the fields of the body that decide whether an operation matches, by position.
    pub fn wanted_fields(&self, wanted: &mut Vec<u16>) {
        let policy = self.scope.policy;
        self.each_candidate(|candidate| {
            let [_, _, _, operations] = policy.packed(Packed::Rules, candidate.rule);
            let operations = if candidate.operation == NONE { operations } else { candidate.operation << 1 };
            if operations == NONE {
                return;
            }
            policy.each_of(operations, |operation| {
                let [_, _, condition] = policy.packed(Packed::Operations, operation);
                if condition != NONE && self.operation(operation, false) == Truth::Unknown {
                    condition::each_body_field(policy, condition, &mut |field| {
                        if !wanted.contains(&field) {
                            wanted.push(field);
                        }
                    });
                }
                false
            });
        });
    }

    /// Any of these; [`NONE`] is "no constraint".
    #[inline]
    fn any(&self, one_or_list: u32, holds: impl Fn(&Self, u32) -> Truth) -> Truth {
        if one_or_list == NONE {
            return Truth::True;
        }
        let mut any = Truth::False;
        self.scope.policy.each_of(one_or_list, |one| {
            any = any.or(holds(self, one));
            any == Truth::True
        });
        any
    }

    #[inline]
    pub fn from(&self, from: u32) -> Truth {
        let [peer, accounts, demand, value] = self.scope.policy.packed(Packed::Froms, from);
        if self.peer(peer, accounts) { self.demand(demand, value) } else { Truth::False }
    }

    /// Whether a rule that takes something back, of any operation, is about this caller. Whose a token is that is not accepted
    /// cannot be told, and what cannot be told makes a Deny match.
    pub fn takes_back(&self, rule: RuleIx) -> bool {
        let policy = self.scope.policy;
        let [_, _, froms, _] = policy.packed(Packed::Rules, rule.0);
        let about = |search: &Self, from: u32| {
            let [peer, accounts, demand, value] = policy.packed(Packed::Froms, from);
            let [issuers, _, _] = policy.packed(Packed::Demands, demand);
            if !search.peer(peer, accounts) {
                return Truth::False;
            }
            let of = |issuer: &u32| search.scope.request.tokens.get(size(*issuer));
            let issuers = policy.list(issuers);
            let is_invalid = |issuer: &u32| matches!(of(issuer), Some(TokenState::Invalid(_)));
            let is_absent = |issuer: &u32| matches!(of(issuer), None | Some(TokenState::Absent));
            if issuers.iter().any(is_invalid) && !issuers.iter().any(is_absent) {
                return Truth::Unknown;
            }
            search.demand(demand, value)
        };
        self.any(froms, about) != Truth::False
    }

    /// Whether a from is one for this peer, and demands a token.
    pub fn wants_token(&self, from: u32) -> bool {
        let [peer, accounts, demand, _] = self.scope.policy.packed(Packed::Froms, from);
        let [issuers, _, _] = self.scope.policy.packed(Packed::Demands, demand);
        self.peer(peer, accounts) && !self.scope.policy.list(issuers).is_empty()
    }

    #[inline]
    fn peer(&self, peer: u32, accounts: u32) -> bool {
        let [kind, trust_domain, namespace] = self.scope.policy.packed(Packed::Peers, peer);
        match (kind, self.scope.request.peer) {
            (code::PEER_ANYONE, _) => true,
            (code::PEER_NONE, Peer::Absent) => true,
            (code::PEER_ANY_MESH, Peer::Mesh { trust_domain: peer, .. }) => self.is(trust_domain, peer),
            (code::PEER_MESH, Peer::Mesh { trust_domain: peer, namespace: space, service_account }) => {
                (accounts == NONE
                    || self.scope.policy.each_of(accounts, |account| self.is(account, service_account)))
                    && self.is(namespace, space)
                    && self.is(trust_domain, peer)
            }
            _ => false,
        }
    }

    /// All tokens, the claim's value, and the condition besides.
    #[inline]
    fn demand(&self, demand: u32, value: u32) -> Truth {
        let [issuers, claim, condition] = self.scope.policy.packed(Packed::Demands, demand);
        let tokens = self.scope.policy.list(issuers).iter().all(|issuer| {
            matches!(self.scope.request.tokens.get(size(*issuer)), Some(TokenState::Verified(_)))
        });
        if !tokens {
            return Truth::False;
        }
        let equal = if claim == NONE {
            Truth::True
        } else {
            match condition::claim(self.scope.request, claim) {
                ClaimValue::Absent => Truth::False,
                ClaimValue::String(text) => Truth::from(self.is(value, text)),
                _ => Truth::Unknown,
            }
        };
        if equal == Truth::False { equal } else { equal.and(condition::evaluate(&self.scope, condition)) }
    }

    #[inline]
    fn is(&self, string: u32, text: &str) -> bool {
        scan::same(self.scope.policy.bytes(string), text.as_bytes())
    }

    /// The method, the path, the port, the host, for gRPC the content type, and the condition: first what is told quickly.
    #[inline]
    fn operation(&self, operation: u32, deny: bool) -> Truth {
        let [frame, paths, condition] = self.scope.policy.packed(Packed::Operations, operation);
        let [flags, bits, others, ports, hosts] = self.scope.policy.packed(Packed::Frames, frame);
        let Scope { policy, request, .. } = self.scope;
        if bits & self.method_bit == 0 && bits != NONE && !self.is_any(others, request.method) {
            return Truth::False;
        }
        let path = self.any(paths, Self::path);
        let port = || ports == NONE || policy.list(ports).contains(&u32::from(request.port));
        let host = || {
            hosts == NONE
                || request
                    .host
                    .is_some_and(|host| policy.list(hosts).iter().any(|pattern| self.host(*pattern, host)))
        };
        if path == Truth::False || !port() || !host() {
            return Truth::False;
        }
        let path = if flags & code::OPERATION_GRPC != 0 && !request.headers.grpc {
            // An Allow demands the content type, a Deny does not.
            path.and(Truth::Unknown)
        } else {
            path
        };
        let path = if flags & code::OPERATION_ENCODED_SLASHES == 0 && request.path.keeps_slashes() {
            path.and(Truth::Unknown)
        } else {
            path
        };
        if condition == NONE {
            return path;
        }
        let mut holds = condition::evaluate(&self.scope, condition);
        if self.best && holds == Truth::Unknown {
            condition::each_body_field(policy, condition, &mut |_| holds = Truth::from(!deny));
        }
        path.and(holds)
    }

    fn is_any(&self, list: u32, text: &[u8]) -> bool {
        let policy = self.scope.policy;
        list != NONE && policy.list(list).iter().any(|known| scan::same(policy.bytes(*known), text))
    }

    #[inline]
    fn host(&self, pattern: u32, host: &str) -> bool {
        let text = self.scope.policy.bytes(pattern >> 1);
        if pattern & 1 == code::HOST_EXACT {
            scan::same(text, host.as_bytes())
        } else {
            host.len() > text.len() && host.as_bytes().ends_with(text)
        }
    }

    /// True when the segments match; unknown when only the trailing slash differs, which servers treat differently.
    fn path(&self, pattern: u32) -> Truth {
        let path = self.scope.request.path;
        let mut rest = path.inner().as_bytes();
        let mut pattern = pattern;
        // Each turn takes a segment, so this ends where the path does.
        while let Some(node) = pattern.checked_sub(code::PATH_NODES) {
            if rest.is_empty() {
                return Truth::False;
            }
            let [what, next] = self.scope.policy.packed(Packed::Nodes, node);
            let (segment, behind) = scan::before(rest, b'/');
            let matched = match what & 3 {
                code::SEGMENT_LITERAL => scan::same(self.scope.policy.bytes(what >> 2), segment),
                code::SEGMENT_ONE => true,
                code::SEGMENT_GLOB => glob::matches(self.scope.policy.bytes(what >> 2), segment),
                _ => false,
            };
            if !matched {
                return Truth::False;
            }
            rest = behind;
            pattern = next;
        }
        match pattern {
            code::PATH_REST => Truth::True,
            _ if !rest.is_empty() => Truth::False,
            end if (end == code::PATH_END_SLASH) == path.trailing_slash() => Truth::True,
            _ => Truth::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
