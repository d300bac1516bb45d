//! Operands, tests of texts, and hours, in words.

use tidegate_engine::model::{Operand, PolicyModel, Schedule, TextTest, Window, Zone};
use tidegate_engine::{Request, reference};

use super::{claim_name, list, quoted, show_value};

/// Headers whose values are nobody else's to see.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// An operand as `when` writes it.
pub(super) fn name(model: &PolicyModel, operand: &Operand) -> String {
    match operand {
        Operand::Claim(claim) => claim_name(model, *claim),
        Operand::PeerNamespace => "peer.namespace".to_owned(),
        Operand::PeerServiceAccount => "peer.serviceAccount".to_owned(),
        Operand::PeerTrustDomain => "peer.trustDomain".to_owned(),
        Operand::Method => "request.method".to_owned(),
        Operand::Host => "request.host".to_owned(),
        Operand::Path => "request.path".to_owned(),
        Operand::Port => "request.port".to_owned(),
        Operand::Header(name) => format!("request.headers[{}]", quoted(name)),
        Operand::Query(name) => format!("request.query[{}]", quoted(name)),
        Operand::Body(field) => format!("request.body[{}]", quoted(&field.to_string())),
        Operand::Now | Operand::TokenClock => "now".to_owned(),
        Operand::Text(text) => quoted(text),
        Operand::Integer(integer) => integer.to_string(),
        Operand::Boolean(boolean) => boolean.to_string(),
        Operand::Length(inner) => format!("size({})", name(model, inner)),
        Operand::Plus(inner, number) if *number < 0 => {
            format!("{} - {}", name(model, inner), number.unsigned_abs())
        }
        Operand::Plus(inner, number) => format!("{} + {number}", name(model, inner)),
    }
}

pub(super) fn describe(test: &TextTest) -> String {
    match test {
        TextTest::Present => "is there".to_owned(),
        TextTest::OneOf(values) => format!("is {}", list(values)),
        TextTest::Prefix(prefix) => format!("begins with {}", quoted(prefix)),
        TextTest::Suffix(suffix) => format!("ends with {}", quoted(suffix)),
        TextTest::Infix(infix) => format!("contains {}", quoted(infix)),
        TextTest::Glob(glob) => format!("is like {}", quoted(glob)),
        TextTest::Pattern(pattern) => format!("matches {}", quoted(&pattern.source)),
    }
}

/// What an operand is; `None` where the words say it already.
pub(super) fn actual(operand: &Operand, request: &Request<'_>) -> Option<String> {
    match operand {
        Operand::Text(_) | Operand::Integer(_) | Operand::Boolean(_) => None,
        Operand::Header(name) if SECRET.contains(&name.as_str()) => Some("not shown".to_owned()),
        operand => Some(show_value(&reference::operand_value(operand, request))),
    }
}

/// What both sides are.
pub(super) fn compared(
    model: &PolicyModel,
    left: &Operand,
    right: &Operand,
    request: &Request<'_>,
) -> Option<String> {
    match (actual(left, request), actual(right, request)) {
        (Some(value), Some(other)) => Some(format!("{value}; {} is {other}", name(model, right))),
        (value, other) => value.or(other),
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// E.g. `Mon-Fri 08:00-18:00 in Europe/Berlin`.
pub(super) fn hours(schedule: &Schedule) -> String {
    let windows: Vec<String> = schedule.windows.iter().map(window).collect();
    format!("{} in {}", windows.join(" or "), schedule.zone.name)
}

fn window(window: &Window) -> String {
    let days: Vec<(usize, &str)> = DAYS
        .iter()
        .enumerate()
        .filter(|(day, _)| {
            window.days.checked_shr(u32::try_from(*day).unwrap_or(u32::MAX)).unwrap_or(0) & 1 == 1
        })
        .map(|(day, name)| (day, *name))
        .collect();
    let in_a_row = days.windows(2).all(|pair| match pair {
        [(before, _), (day, _)] => before.saturating_add(1) == *day,
        _ => true,
    });
    let days = match days.as_slice() {
        [(_, first), .., (_, last)] if in_a_row && days.len() > 2 => format!("{first}-{last}"),
        days => days.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(","),
    };
    format!("{days} {}-{}", minute(i64::from(window.from)), minute(i64::from(window.to)))
}

fn minute(of_day: i64) -> String {
    format!("{:02}:{:02}", of_day.div_euclid(60), of_day.rem_euclid(60))
}

/// What the clocks of the schedule show. `now`: Unix seconds.
pub(super) fn clock(schedule: &Schedule, now: i64) -> String {
    let Zone { name, offsets, until } = &schedule.zone;
    let known = offsets.iter().rev().find(|offset| offset.since <= now).filter(|_| now < *until);
    let Some(offset) = known else { return format!("what time it is in {name} is not known") };
    let local = now.saturating_add(i64::from(offset.seconds));
    // 1970-01-01 was a Thursday.
    let day = local.div_euclid(86_400).saturating_add(3).rem_euclid(7);
    let day = usize::try_from(day).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or_default();
    format!("{day} {}", minute(local.rem_euclid(86_400).div_euclid(60)))
}
