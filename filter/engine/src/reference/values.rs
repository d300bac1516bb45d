//! Operands and their tests, naively: every value is made anew, every text is searched from the beginning.

use crate::body::FieldValue;
use crate::layout::MAX_TEXT;
use crate::model::{Operand, Pattern, Relation, Schedule, TextTest};
use crate::request::{Body, ClaimValue, Peer, Request};
use crate::truth::Truth;

use super::{glob_matches, value};

#[derive(Clone)]
enum Known {
    Text(String),
    /// All values of one field.
    Each(Vec<String>),
    Integer(i64),
    Boolean(bool),
    Items(usize),
}

/// What is known of an operand.
enum State {
    /// It is not there.
    Absent,
    /// Whether it is there cannot be told.
    Unknown,
    /// It is there; `None`: it cannot be read.
    Present(Option<Known>),
}

pub(super) fn compare(left: &Operand, relation: Relation, right: &Operand, request: &Request<'_>) -> Truth {
    let (left, right) = (state(left, request), state(right, request));
    if matches!(left, State::Absent) || matches!(right, State::Absent) {
        return Truth::False;
    }
    let (State::Present(Some(left)), State::Present(Some(right))) = (left, right) else {
        return Truth::Unknown;
    };
    relate(left, relation, right)
}

fn relate(left: Known, relation: Relation, right: Known) -> Truth {
    match (left, right, relation) {
        (Known::Each(texts), right, _) => {
            of_each(texts.into_iter().map(|text| relate(Known::Text(text), relation, right.clone())))
        }
        (left, Known::Each(texts), _) => {
            of_each(texts.into_iter().map(|text| relate(left.clone(), relation, Known::Text(text))))
        }
        (Known::Integer(left), Known::Integer(right), Relation::Equal) => Truth::from(left == right),
        (Known::Integer(left), Known::Integer(right), Relation::Less) => Truth::from(left < right),
        (Known::Integer(left), Known::Integer(right), Relation::LessOrEqual) => Truth::from(left <= right),
        (Known::Boolean(left), Known::Boolean(right), Relation::Equal) => Truth::from(left == right),
        (Known::Text(left), Known::Text(right), Relation::Equal) => Truth::from(left == right),
        _ => Truth::Unknown,
    }
}

pub(super) fn test(operand: &Operand, test: &TextTest, request: &Request<'_>) -> Truth {
    match (state(operand, request), test) {
        (State::Absent, _) => Truth::False,
        (State::Present(_), TextTest::Present) => Truth::True,
        (State::Present(Some(Known::Text(text))), test) => Truth::from(text_matches(&text, test)),
        (State::Present(Some(Known::Each(texts))), test) => {
            of_each(texts.iter().map(|text| Truth::from(text_matches(text, test))))
        }
        _ => Truth::Unknown,
    }
}

/// "Of some but not all, it is unknown."
fn of_each(truths: impl Iterator<Item = Truth>) -> Truth {
    let truths: Vec<Truth> = truths.collect();
    if truths.iter().all(|truth| *truth == Truth::True) {
        Truth::True
    } else if truths.iter().all(|truth| *truth == Truth::False) {
        Truth::False
    } else {
        Truth::Unknown
    }
}

fn text_matches(text: &str, test: &TextTest) -> bool {
    match test {
        TextTest::Present => true,
        TextTest::OneOf(all) => all.iter().any(|one| one == text),
        TextTest::Prefix(prefix) => text.strip_prefix(prefix.as_str()).is_some(),
        TextTest::Suffix(suffix) => text.strip_suffix(suffix.as_str()).is_some(),
        TextTest::Infix(infix) => text.contains(infix.as_str()),
        TextTest::Glob(glob) => glob_matches(glob, text),
        TextTest::Pattern(pattern) => accepts(pattern, text),
    }
}

fn accepts(pattern: &Pattern, text: &str) -> bool {
    let next = |state: u16, byte: u8| -> u16 {
        if state < 2 {
            return state;
        }
        let class = pattern.classes.get(usize::from(byte)).copied().unwrap_or(0);
        let at = (usize::from(state) - 2) * usize::from(pattern.class_count) + usize::from(class);
        pattern.transitions.get(at).copied().unwrap_or(0)
    };
    let end = text.bytes().fold(pattern.start, next);
    end == 1 || end >= pattern.ends_from
}

/// What an operand is, for who explains decisions. What cannot be told or read is unknown, a list's length is an integer.
pub fn operand_value(operand: &Operand, request: &Request<'_>) -> ClaimValue {
    match (operand, state(operand, request)) {
        (_, State::Absent) => ClaimValue::Absent,
        (Operand::Claim(claim), _) => value(*claim, request).clone(),
        (_, State::Unknown | State::Present(None)) => ClaimValue::Unknown,
        (_, State::Present(Some(Known::Text(text)))) => ClaimValue::String(text),
        (_, State::Present(Some(Known::Each(texts)))) => ClaimValue::Strings(texts),
        (_, State::Present(Some(Known::Integer(integer)))) => ClaimValue::Integer(integer),
        (_, State::Present(Some(Known::Boolean(boolean)))) => ClaimValue::Boolean(boolean),
        (_, State::Present(Some(Known::Items(_)))) => ClaimValue::Other,
    }
}

fn state(operand: &Operand, request: &Request<'_>) -> State {
    let known = |known| State::Present(Some(known));
    let peer = |read: fn(&str, &str, &str) -> String| match request.peer {
        Peer::Absent => State::Absent,
        Peer::Mesh { trust_domain, namespace, service_account } => {
            State::Present(Some(Known::Text(read(trust_domain, namespace, service_account))))
        }
    };
    match operand {
        Operand::Claim(claim) => match value(*claim, request) {
            ClaimValue::Absent => State::Absent,
            ClaimValue::Unknown => State::Unknown,
            ClaimValue::Boolean(value) => known(Known::Boolean(*value)),
            ClaimValue::Integer(value) => known(Known::Integer(*value)),
            ClaimValue::String(text) => known(Known::Text(text.clone())),
            ClaimValue::Strings(items) => known(Known::Items(items.len())),
            ClaimValue::Other => State::Present(None),
        },
        Operand::PeerTrustDomain => peer(|domain, _, _| domain.to_owned()),
        Operand::PeerNamespace => peer(|_, namespace, _| namespace.to_owned()),
        Operand::PeerServiceAccount => peer(|_, _, account| account.to_owned()),
        Operand::Method => State::Present(readable(request.method.to_vec())),
        Operand::Host => State::Present(request.host.and_then(|host| readable(host.as_bytes().to_vec()))),
        Operand::Path if request.path.ambiguous() => State::Present(None),
        Operand::Path => State::Present(readable(request.path.display().to_string().into_bytes())),
        Operand::Port => known(Known::Integer(i64::from(request.port))),
        Operand::Header(name) => {
            let dashed = |name: &[u8]| String::from_utf8_lossy(name).replace('_', "-");
            let all: Vec<_> =
                request.fields.iter().filter(|(there, _)| dashed(there) == dashed(name.as_bytes())).collect();
            match all.as_slice() {
                [] => State::Absent,
                [(there, value)] if *there == name.as_bytes() => State::Present(readable(value.to_vec())),
                _ => State::Unknown,
            }
        }
        Operand::Query(name) => parameter(name, request.query),
        Operand::Body(field) => match request.body {
            Body::Unread => State::Unknown,
            Body::Empty => State::Absent,
            Body::Read { fields, values } => {
                match fields.iter().zip(values).find(|(known, _)| *known == field) {
                    Some((_, FieldValue::Absent)) => State::Absent,
                    Some((_, FieldValue::Texts(texts))) => known(Known::Each(texts.clone())),
                    Some((_, FieldValue::Unknown)) | None => State::Unknown,
                }
            }
        },
        Operand::Now => known(Known::Integer(request.now)),
        Operand::TokenClock => known(Known::Integer(request.now - i64::from(request.expiry_grace_s))),
        Operand::Text(text) => known(Known::Text(text.clone())),
        Operand::Integer(value) => known(Known::Integer(*value)),
        Operand::Boolean(value) => known(Known::Boolean(*value)),
        Operand::Length(of) => match state(of, request) {
            State::Present(Some(Known::Text(text))) => {
                State::Present(i64::try_from(text.chars().count()).ok().map(Known::Integer))
            }
            State::Present(Some(Known::Items(items))) => {
                State::Present(i64::try_from(items).ok().map(Known::Integer))
            }
            State::Present(_) => State::Present(None),
            other => other,
        },
        Operand::Plus(to, more) => match state(to, request) {
            State::Present(Some(Known::Integer(value))) => {
                State::Present(value.checked_add(*more).map(Known::Integer))
            }
            State::Present(_) => State::Present(None),
            other => other,
        },
    }
}

fn readable(bytes: Vec<u8>) -> Option<Known> {
    if bytes.len() > MAX_TEXT || bytes.contains(&0) {
        None
    } else {
        String::from_utf8(bytes).ok().map(Known::Text)
    }
}

/// `%41` and the like, each replaced by its byte.
fn percent_decoded(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        if *byte == b'%' {
            let digits = core::str::from_utf8(raw.get(at + 1..at + 3)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    Some(out)
}

fn parameter(name: &str, query: &[u8]) -> State {
    if query.contains(&b';') || query.contains(&b'#') {
        return State::Unknown;
    }
    let mut values = Vec::new();
    for piece in query.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
        let mut parts = piece.splitn(2, |byte| *byte == b'=');
        let (there, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match percent_decoded(there) {
            None => return State::Unknown,
            Some(there) if there == name.as_bytes() => values.push(value),
            Some(_) => {}
        }
    }
    match values.as_slice() {
        [] => State::Absent,
        [value] if value.len() > MAX_TEXT || value.contains(&b'+') => State::Present(None),
        [value] => State::Present(percent_decoded(value).and_then(readable)),
        _ => State::Unknown,
    }
}

/// "The time of the request is in one of these windows."
pub(super) fn within(schedule: &Schedule, now: i64) -> Truth {
    const WEEK: i64 = 7 * 24 * 3600;
    let zone = &schedule.zone;
    let offset = zone.offsets.iter().rev().find(|offset| offset.since <= now);
    let Some(offset) = offset.filter(|_| now < zone.until) else { return Truth::Unknown };
    let Some(local) = now.checked_add(i64::from(offset.seconds)) else { return Truth::Unknown };
    // 1970-01-05 was a Monday.
    let of_week = (i128::from(local) - 4 * 24 * 3600).rem_euclid(i128::from(WEEK));
    Truth::from(schedule.windows.iter().any(|window| {
        (0..7).filter(|day| window.days & (1 << day) != 0).any(|day| {
            let midnight = i128::from(day) * 24 * 3600;
            let (from, to) = (i128::from(window.from) * 60, i128::from(window.to) * 60);
            of_week >= midnight + from && of_week < midnight + to
        })
    }))
}
