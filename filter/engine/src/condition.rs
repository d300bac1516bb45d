//! Evaluates conditions on verified tokens.
//!
//! "Unknown" arises where a claim cannot be told (`ClaimValue::Unknown`), is of another type than the test, or where a
//! directory is stale. An absent claim is known to be absent: every test of it is false.

use crate::glob;
use crate::layout::{Table, code, size};
use crate::policy::PolicySet;
use crate::request::{ClaimValue, Peer, Request, TokenState};
use crate::truth::Truth;

/// Evaluates a condition of the policy for a request.
pub(crate) fn evaluate(policy: &PolicySet, condition: u32, request: &Request<'_>) -> Truth {
    let [operator, a, b, c] = policy.record(Table::Conditions, condition);
    match operator {
        code::TRUE => Truth::True,
        // Every one holds.
        code::ALL => {
            let mut all = Truth::True;
            for child in policy.list(a) {
                all = all.and(evaluate(policy, *child, request));
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
                any = any.or(evaluate(policy, *child, request));
                if any == Truth::True {
                    break;
                }
            }
            any
        }
        code::NOT => evaluate(policy, a, request).negate(),
        _ => test(policy, operator, claim(request, a), (b, c), request),
    }
}

fn test(
    policy: &PolicySet,
    operator: u32,
    claim: &ClaimValue,
    (b, c): (u32, u32),
    request: &Request<'_>,
) -> Truth {
    match claim {
        ClaimValue::Absent => return Truth::False,
        ClaimValue::Unknown => return Truth::Unknown,
        _ => {}
    }
    match (operator, claim) {
        (code::PRESENT, _) => Truth::True,
        (code::ONE_OF, ClaimValue::String(value)) => {
            Truth::from(policy.list(b).iter().any(|known| policy.bytes(*known) == value.as_bytes()))
        }
        (code::INTEGER, ClaimValue::Integer(value)) => Truth::from(*value == integer(b, c)),
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
        (code::LISTED, ClaimValue::String(value)) => {
            request.directories.lists(policy.directory(b), value, request.now)
        }
        // A claim of another type than the test's.
        _ => Truth::Unknown,
    }
}

fn integer(low: u32, high: u32) -> i64 {
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, g, h] = high.to_le_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
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
