//! Evaluates conditions.
//!
//! "Unknown" arises where a claim cannot be told (`ClaimValue::Unknown`), is of another type than the test, or where a
//! directory is stale. An absent claim is known to be absent: every test of it is false.

use crate::glob;
use crate::layout::{Table, code, long, size};
use crate::operand;
use crate::policy::PolicySet;
use crate::request::{ClaimValue, Peer, Request, TokenState};
use crate::scan;
use crate::schedule;
use crate::truth::Truth;

/// How directories answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listing<'a> {
    /// As they are, and [`code::LISTED_OR_STALE`] holds where they cannot tell.
    Lenient,
    /// As they are; [`code::LISTED_OR_STALE`] is [`code::LISTED`].
    Strict,
    /// As [`Self::Lenient`], but this directory lists this id.
    Assuming(u32, &'a str),
}

/// What a condition is evaluated for.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'p, 'r> {
    pub policy: &'p PolicySet,
    pub request: &'p Request<'r>,
    pub listing: Listing<'p>,
}

/// Evaluates a condition of the policy for a request.
pub(crate) fn evaluate(scope: &Scope<'_, '_>, condition: u32) -> Truth {
    let policy = scope.policy;
    let [operator, a, b, c] = policy.record(Table::Conditions, condition);
    match operator {
        code::TRUE => Truth::True,
        // Every one holds.
        code::ALL => {
            let mut all = Truth::True;
            for child in policy.list(a) {
                all = all.and(evaluate(scope, *child));
                if all == Truth::False {
                    break;
                }
            }
            all
        }
        // At least one holds.
        code::ANY => {
            let mut any = Truth::False;
            for child in policy.list(a) {
                any = any.or(evaluate(scope, *child));
                if any == Truth::True {
                    break;
                }
            }
            any
        }
        code::NOT => evaluate(scope, a).negate(),
        code::EQUAL | code::LESS | code::LESS_OR_EQUAL => operand::compare(scope, operator, a, b),
        code::TEXT_PRESENT..=code::TEXT_PATTERN => operand::test(scope, operator, a, b),
        code::WITHIN => schedule::within(policy.run(Table::Zones, a), policy.list(b), scope.request.now),
        _ => test(scope, operator, claim(scope.request, a), (b, c)),
    }
}

fn test(scope: &Scope<'_, '_>, operator: u32, claim: &ClaimValue, (b, c): (u32, u32)) -> Truth {
    let Scope { policy, request, .. } = *scope;
    match claim {
        ClaimValue::Absent => return Truth::False,
        ClaimValue::Unknown => return Truth::Unknown,
        _ => {}
    }
    match (operator, claim) {
        (code::PRESENT, _) => Truth::True,
        (code::ONE_OF, ClaimValue::String(value)) => {
            Truth::from(policy.list(b).iter().any(|known| scan::same(policy.bytes(*known), value.as_bytes())))
        }
        (code::INTEGER, ClaimValue::Integer(value)) => Truth::from(*value == long(b, c)),
        (code::BOOLEAN, ClaimValue::Boolean(value)) => Truth::from(u32::from(*value) == b),
        (code::GLOB, ClaimValue::String(value)) => {
            Truth::from(glob::matches(policy.bytes(b), value.as_bytes()))
        }
        (code::CONTAINS, ClaimValue::Strings(values)) => {
            Truth::from(values.iter().any(|value| value.as_bytes() == policy.bytes(b)))
        }
        (code::PEER_NAMESPACE, ClaimValue::String(value)) => match request.peer {
            Peer::Mesh { namespace, .. } => Truth::from(value == namespace),
            Peer::Absent => Truth::False,
        },
        (code::PEER_ACCOUNT, ClaimValue::String(value)) => match request.peer {
            Peer::Mesh { service_account, .. } => Truth::from(value == service_account),
            Peer::Absent => Truth::False,
        },
        (code::SAME, ClaimValue::String(value)) => match self::claim(request, b) {
            ClaimValue::String(other) => Truth::from(value == other),
            ClaimValue::Absent => Truth::False,
            _ => Truth::Unknown,
        },
        (code::LISTED | code::LISTED_OR_STALE, ClaimValue::String(value)) => {
            match (scope.listing, lists(policy, b, value, request)) {
                (Listing::Assuming(directory, id), _) if directory == b && id == value => Truth::True,
                (Listing::Strict, listed) => listed,
                (_, Truth::Unknown) if operator == code::LISTED_OR_STALE => Truth::True,
                (_, listed) => listed,
            }
        }
        // A claim of another type than the test's.
        _ => Truth::Unknown,
    }
}

/// Whether a directory of the policy lists an id now; unknown while it is stale or missing.
fn lists(policy: &PolicySet, directory: u32, id: &str, request: &Request<'_>) -> Truth {
    request.directories.lists(policy.directory(directory), id, request.now)
}

/// Calls `found` for every id that the condition looks for in a directory which does not say that it lists it.
pub(crate) fn each_unlisted<'a>(
    policy: &PolicySet,
    condition: u32,
    request: &Request<'a>,
    found: &mut impl FnMut(u32, &'a str),
) {
    let [operator, a, b, _] = policy.record(Table::Conditions, condition);
    match operator {
        code::ALL | code::ANY => {
            for child in policy.list(a) {
                each_unlisted(policy, *child, request, found);
            }
        }
        code::NOT => each_unlisted(policy, a, request, found),
        code::LISTED | code::LISTED_OR_STALE => {
            if let ClaimValue::String(id) = claim(request, a)
                && lists(policy, b, id, request) != Truth::True
            {
                found(b, id);
            }
        }
        _ => {}
    }
}

/// Calls `found` for every field of the body that the condition reads, by position.
pub(crate) fn each_body_field(policy: &PolicySet, condition: u32, found: &mut impl FnMut(u16)) {
    let mut operand = |mut at: u32| {
        // What an operand is made of comes before it, so this ends.
        loop {
            let [kind, a, b, _] = policy.record(Table::Operands, at);
            match kind {
                code::OPERAND_BODY => found(u16::try_from(b).unwrap_or(u16::MAX)),
                code::OPERAND_LENGTH | code::OPERAND_PLUS if a < at => {
                    at = a;
                    continue;
                }
                _ => {}
            }
            return;
        }
    };
    let [operator, a, b, _] = policy.record(Table::Conditions, condition);
    match operator {
        code::ALL | code::ANY => {
            for child in policy.list(a) {
                each_body_field(policy, *child, found);
            }
        }
        code::NOT => each_body_field(policy, a, found),
        code::EQUAL | code::LESS | code::LESS_OR_EQUAL => {
            operand(a);
            operand(b);
        }
        code::TEXT_PRESENT..=code::TEXT_PATTERN => operand(a),
        _ => {}
    }
}

/// The first moment after now at which a condition may come out otherwise, only because time passes; `i64::MAX` if none.
pub(crate) fn next_change(scope: &Scope<'_, '_>, condition: u32) -> i64 {
    let policy = scope.policy;
    let [operator, a, b, _] = policy.record(Table::Conditions, condition);
    match operator {
        code::ALL | code::ANY => {
            policy.list(a).iter().map(|child| next_change(scope, *child)).min().unwrap_or(i64::MAX)
        }
        code::NOT => next_change(scope, a),
        code::EQUAL | code::LESS | code::LESS_OR_EQUAL => operand::next_change(scope, a, b),
        code::WITHIN => schedule::next_change(policy.run(Table::Zones, a), policy.list(b), scope.request.now),
        _ => i64::MAX,
    }
}

/// The claim that a word (issuer and slot) refers to.
pub(crate) fn claim<'a>(request: &Request<'a>, claim: u32) -> &'a ClaimValue {
    match request.tokens.get(size(claim >> 16)) {
        Some(TokenState::Verified(token)) => {
            token.slots.get(size(claim & 0xFFFF)).unwrap_or(&ClaimValue::Absent)
        }
        _ => &ClaimValue::Absent,
    }
}
