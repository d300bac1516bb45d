//! Values that a request has, and tests of them.
//!
//! INVARIANT: nothing is allocated. What is percent-encoded is decoded on the stack, and only when a test needs it.
//!
//! "Absent" makes every test false; "unknown" makes every test unknown. What is there and cannot be read makes every test
//! unknown but that it is there.

use crate::body::FieldValue;
use crate::condition::{Scope, claim};
use crate::glob;
use crate::layout::{MAX_TEXT, Table, code, long, size};
use crate::normal::{self, Parameter};
use crate::pattern;
use crate::request::{Body, ClaimValue, Peer};
use crate::scan;
use crate::truth::Truth;

/// A value.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Absent,
    /// Whether it is there cannot be told.
    Unknown,
    /// It is there, and cannot be read as anything that is tested.
    Other,
    Text(&'a [u8]),
    /// A query parameter's value with encoded bytes.
    Encoded(&'a [u8]),
    Integer(i64),
    Boolean(bool),
    List(&'a [String]),
    /// Each of these, at least one.
    Each(&'a [String]),
}

/// Evaluates a comparison of two operands.
pub(crate) fn compare(scope: &Scope<'_, '_>, operator: u32, left: u32, right: u32) -> Truth {
    let (left, right) = (value(scope, left), value(scope, right));
    match (left, right) {
        (Value::Each(lefts), right) => {
            each(lefts, |left| relate_decoded(operator, Value::Text(left.as_bytes()), right))
        }
        (left, Value::Each(rights)) => {
            each(rights, |right| relate_decoded(operator, left, Value::Text(right.as_bytes())))
        }
        (left, right) => relate_decoded(operator, left, right),
    }
}

/// What holds of every value, and of none: of some only, it cannot be told.
fn each(values: &[String], holds: impl Fn(&String) -> Truth) -> Truth {
    let mut values = values.iter().map(holds);
    let Some(first) = values.next() else { return Truth::Unknown };
    if values.all(|other| other == first) { first } else { Truth::Unknown }
}

fn relate_decoded(operator: u32, left: Value<'_>, right: Value<'_>) -> Truth {
    match (left, right) {
        (Value::Encoded(left), right) => decoding(left, |left| match right {
            Value::Encoded(right) => decoding(right, |right| relate(operator, left, right)),
            right => relate(operator, left, right),
        }),
        (left, Value::Encoded(right)) => decoding(right, |right| relate(operator, left, right)),
        (left, right) => relate(operator, left, right),
    }
}

fn relate(operator: u32, left: Value<'_>, right: Value<'_>) -> Truth {
    match (operator, left, right) {
        (_, Value::Absent, _) | (_, _, Value::Absent) => Truth::False,
        (code::EQUAL, Value::Integer(left), Value::Integer(right)) => Truth::from(left == right),
        (code::LESS, Value::Integer(left), Value::Integer(right)) => Truth::from(left < right),
        (code::LESS_OR_EQUAL, Value::Integer(left), Value::Integer(right)) => Truth::from(left <= right),
        (code::EQUAL, Value::Boolean(left), Value::Boolean(right)) => Truth::from(left == right),
        (code::EQUAL, Value::Text(left), Value::Text(right)) => Truth::from(left == right),
        _ => Truth::Unknown,
    }
}

/// The first moment after now at which a comparison may come out otherwise, only because time passes; `i64::MAX` if none.
pub(crate) fn next_change(scope: &Scope<'_, '_>, left: u32, right: u32) -> i64 {
    let grace = i64::from(scope.request.expiry_grace_s);
    let (clock, other) = match (clock(scope, left), clock(scope, right)) {
        (Some(clock), None) => (clock, value(scope, right)),
        (None, Some(clock)) => (clock, value(scope, left)),
        // Either there is none, or both go on alike.
        _ => return i64::MAX,
    };
    let Value::Integer(other) = other else { return i64::MAX };
    let (of_tokens, ahead) = clock;
    let same = other.saturating_sub(ahead).saturating_add(if of_tokens { grace } else { 0 });
    // They become the same, and cease to be.
    [same, same.saturating_add(1)].into_iter().find(|moment| *moment > scope.request.now).unwrap_or(i64::MAX)
}

/// Whether an operand is a clock: of the tokens, and by how much it is ahead.
fn clock(scope: &Scope<'_, '_>, operand: u32) -> Option<(bool, i64)> {
    let [kind, a, b, c] = scope.policy.record(Table::Operands, operand);
    match kind {
        code::OPERAND_NOW => Some((false, 0)),
        code::OPERAND_TOKEN_CLOCK => Some((true, 0)),
        code::OPERAND_PLUS => {
            let (of_tokens, ahead) = clock(scope, a)?;
            Some((of_tokens, ahead.saturating_add(long(b, c))))
        }
        _ => None,
    }
}

/// Evaluates a test of one operand.
pub(crate) fn test(scope: &Scope<'_, '_>, operator: u32, operand: u32, argument: u32) -> Truth {
    match value(scope, operand) {
        Value::Absent => Truth::False,
        Value::Unknown => Truth::Unknown,
        _ if operator == code::TEXT_PRESENT => Truth::True,
        Value::Text(text) => Truth::from(test_text(scope, operator, text, argument)),
        Value::Each(texts) => {
            each(texts, |text| Truth::from(test_text(scope, operator, text.as_bytes(), argument)))
        }
        Value::Encoded(raw) => decoding(raw, |value| match value {
            Value::Text(text) => Truth::from(test_text(scope, operator, text, argument)),
            _ => Truth::Unknown,
        }),
        _ => Truth::Unknown,
    }
}

fn test_text(scope: &Scope<'_, '_>, operator: u32, text: &[u8], argument: u32) -> bool {
    let policy = scope.policy;
    match operator {
        code::TEXT_ONE_OF => policy.list(argument).iter().any(|known| scan::same(policy.bytes(*known), text)),
        code::TEXT_PREFIX => text.starts_with(policy.bytes(argument)),
        code::TEXT_SUFFIX => text.ends_with(policy.bytes(argument)),
        code::TEXT_INFIX => glob::contains(text, policy.bytes(argument)),
        code::TEXT_GLOB => glob::matches(policy.bytes(argument), text),
        code::TEXT_PATTERN => pattern::accepts(policy.run(Table::Automata, argument), text),
        _ => false,
    }
}

fn value<'a>(scope: &Scope<'a, 'a>, operand: u32) -> Value<'a> {
    let Scope { policy, request, .. } = *scope;
    let [kind, a, b, c] = policy.record(Table::Operands, operand);
    let of_peer = |read: fn(Peer<'a>) -> &'a str| match request.peer {
        Peer::Mesh { .. } => Value::Text(read(request.peer).as_bytes()),
        Peer::Absent => Value::Absent,
    };
    match kind {
        code::OPERAND_CLAIM => match claim(request, a) {
            ClaimValue::Absent => Value::Absent,
            ClaimValue::Unknown => Value::Unknown,
            ClaimValue::Boolean(value) => Value::Boolean(*value),
            ClaimValue::Integer(value) => Value::Integer(*value),
            ClaimValue::String(value) => Value::Text(value.as_bytes()),
            ClaimValue::Strings(values) => Value::List(values),
            ClaimValue::Other => Value::Other,
        },
        code::OPERAND_PEER_NAMESPACE => of_peer(|peer| peer.parts().1),
        code::OPERAND_PEER_ACCOUNT => of_peer(|peer| peer.parts().2),
        code::OPERAND_PEER_TRUST_DOMAIN => of_peer(|peer| peer.parts().0),
        code::OPERAND_METHOD => text(request.method),
        code::OPERAND_HOST => request.host.map_or(Value::Other, |host| text(host.as_bytes())),
        code::OPERAND_PATH if request.path.ambiguous() => Value::Other,
        code::OPERAND_PATH => text(request.path.text().as_bytes()),
        code::OPERAND_PORT => Value::Integer(i64::from(request.port)),
        code::OPERAND_HEADER => match normal::field(request.fields, policy.bytes(a)) {
            Parameter::Absent => Value::Absent,
            Parameter::Unknown => Value::Unknown,
            Parameter::Once(value) => text(value),
        },
        code::OPERAND_QUERY => match normal::parameter(request.query, policy.bytes(a)) {
            Parameter::Absent => Value::Absent,
            Parameter::Unknown => Value::Unknown,
            // To some a plus is a space, to others it is a plus.
            Parameter::Once(value) if value.len() > MAX_TEXT || value.contains(&b'+') => Value::Other,
            Parameter::Once(value) if value.contains(&b'%') => Value::Encoded(value),
            Parameter::Once(value) => text(value),
        },
        code::OPERAND_BODY => match request.body {
            Body::Unread => Value::Unknown,
            Body::Empty => Value::Absent,
            Body::Read { values, .. } => match values.get(size(b)) {
                Some(FieldValue::Absent) => Value::Absent,
                Some(FieldValue::Texts(texts)) => Value::Each(texts.as_slice()),
                Some(FieldValue::Unknown) | None => Value::Unknown,
            },
        },
        code::OPERAND_NOW => Value::Integer(request.now),
        code::OPERAND_TOKEN_CLOCK => Value::Integer(request.token_clock()),
        code::OPERAND_TEXT => Value::Text(policy.bytes(a)),
        code::OPERAND_INTEGER => Value::Integer(long(a, b)),
        code::OPERAND_BOOLEAN => Value::Boolean(a == 1),
        code::OPERAND_LENGTH => length(value(scope, a)),
        code::OPERAND_PLUS => match value(scope, a) {
            Value::Integer(value) => value.checked_add(long(b, c)).map_or(Value::Other, Value::Integer),
            Value::Absent => Value::Absent,
            Value::Unknown => Value::Unknown,
            _ => Value::Other,
        },
        _ => Value::Unknown,
    }
}

/// What was sent, if it can be read. Some readers end a text at a NUL, and others do not.
fn text(bytes: &[u8]) -> Value<'_> {
    if bytes.len() <= MAX_TEXT && !bytes.contains(&0) && core::str::from_utf8(bytes).is_ok() {
        Value::Text(bytes)
    } else {
        Value::Other
    }
}

fn length<'a>(value: Value<'_>) -> Value<'a> {
    let count = |count: usize| i64::try_from(count).map_or(Value::Other, Value::Integer);
    match value {
        Value::Absent => Value::Absent,
        Value::Unknown => Value::Unknown,
        Value::List(items) => count(items.len()),
        Value::Text(text) => match core::str::from_utf8(text) {
            Ok(text) => count(text.chars().count()),
            Err(_) => Value::Other,
        },
        Value::Encoded(raw) => {
            let mut counted = None;
            decoding(raw, |value| {
                if let Value::Text(text) = value {
                    counted = core::str::from_utf8(text).ok().map(|text| text.chars().count());
                }
                Truth::Unknown
            });
            counted.map_or(Value::Other, count)
        }
        Value::Other | Value::Each(_) | Value::Integer(_) | Value::Boolean(_) => Value::Other,
    }
}

/// Decodes a query parameter's value of at most [`MAX_TEXT`] bytes.
#[cold]
#[inline(never)]
fn decoding(raw: &[u8], with: impl FnOnce(Value<'_>) -> Truth) -> Truth {
    let mut buffer = [0; MAX_TEXT];
    let mut length = 0usize;
    for (byte, slot) in normal::decoded(raw).zip(&mut buffer) {
        let Some(byte) = byte else { return with(Value::Other) };
        *slot = byte;
        length = length.saturating_add(1);
    }
    with(buffer.get(..length).map_or(Value::Other, text))
}
