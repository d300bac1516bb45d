//! When a rule holds: `notBefore`, `notAfter` and `schedule`.
//!
//! What clocks show in a time zone comes from the IANA database that is compiled in, never from the machine: the same rules
//! give the same output everywhere. Offsets are listed until [`HORIZON`]; what the law will say then nobody knows, and so
//! from then on it is unknown whether a schedule holds. UTC is known for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use tidegate_engine::model::{Offset, Operand, Relation, Schedule, Window, Zone};

use crate::diagnostic::{Code, Diagnostic};
use crate::mesh::not_empty;
use crate::operation::repeated;
use crate::place::{Findings, Place, Source};
use crate::spec::{AccessRuleSpec, DaySpec, ScheduleSpec, WindowSpec};
use crate::suggest;
use crate::text::check_moment;
use crate::when::{Tree, Value};

/// 2020-01-01T00:00:00Z: nothing is decided as of earlier times.
const BEGIN: i64 = 1_577_836_800;

/// 2050-01-01T00:00:00Z.
const HORIZON: i64 = 2_524_608_000;

const DAY_S: i64 = 86_400;

/// Minutes of a day.
const DAY_MIN: u16 = 1440;

/// Checks when a rule holds: all of these. Also its end, in Unix seconds.
pub(crate) fn check(
    place: &Place<'_>,
    spec: &AccessRuleSpec,
    findings: &mut Findings,
) -> (Vec<Tree>, Option<i64>) {
    let mut all = Vec::new();
    let moment = |field: &str, text: Option<&String>, findings: &mut Findings| {
        text.and_then(|text| {
            Some((check_moment(&place.key(field), text, findings)?, !text.contains(['T', 't'])))
        })
    };
    let time = |moment| Value::Request(Operand::Integer(moment));
    let not_before = moment("notBefore", spec.not_before.as_ref(), findings)
        // Of a day the end is read, and here its beginning counts.
        .map(|(moment, is_day)| if is_day { moment.saturating_sub(DAY_S) } else { moment });
    let not_after = moment("notAfter", spec.not_after.as_ref(), findings).map(|(moment, _)| moment);
    if let Some(moment) = not_before {
        all.push(Tree::Compare(time(moment), Relation::LessOrEqual, Value::Request(Operand::Now)));
    }
    if let Some(moment) = not_after {
        all.push(Tree::Compare(Value::Request(Operand::Now), Relation::Less, time(moment)));
    }
    if let (Some(begin), Some(end)) = (not_before, not_after)
        && end <= begin
    {
        findings.add(
            &place.key("notAfter"),
            Code::MalformedValue,
            "the rule ends before it begins",
            "it would never hold",
            "write a time that is later than `notBefore`",
        );
    }
    if let Some(schedule) = &spec.schedule {
        all.extend(check_schedule(&place.key("schedule"), schedule, findings).map(Tree::Within));
    }
    (all, not_after)
}

/// A rule with an end, in Unix seconds.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) at: i64,
    pub(crate) source: Arc<Source>,
    /// What is said of it, once it has been said.
    over: OnceLock<Vec<Diagnostic>>,
}

// === impl Ending ===

impl Ending {
    pub(crate) fn new(at: i64, source: Arc<Source>) -> Self {
        Self { at, source, over: OnceLock::new() }
    }

    /// What there is to say at this time.
    pub(crate) fn told(&self, now: i64) -> &[Diagnostic] {
        if now < self.at {
            return &[];
        }
        self.over.get_or_init(|| {
            let mut findings = Findings::default();
            findings.add(
                &self.source.place().key("spec").key("notAfter"),
                Code::RuleOver,
                "the rule holds no more",
                "its time is over",
                "remove the rule, or write a later time",
            );
            findings.into_found()
        })
    }
}

fn check_schedule(place: &Place<'_>, spec: &ScheduleSpec, findings: &mut Findings) -> Option<Schedule> {
    let zone = check_zone(&place.key("timeZone"), &spec.time_zone, findings);
    let place = place.key("windows");
    not_empty(&place, &spec.windows, findings);
    // Days by hours, so that the same hours are one window.
    let mut windows: BTreeMap<(u16, u16), u8> = BTreeMap::new();
    for (index, window) in spec.windows.iter().enumerate() {
        for Window { days, from, to } in check_window(&place.index(index), window, findings) {
            *windows.entry((from, to)).or_default() |= days;
        }
    }
    let windows: Vec<Window> =
        windows.into_iter().map(|((from, to), days)| Window { days, from, to }).collect();
    (!windows.is_empty()).then_some(())?;
    Some(Schedule { zone: zone?, windows })
}

/// A window, or the two into which midnight cuts it.
fn check_window(place: &Place<'_>, spec: &WindowSpec, findings: &mut Findings) -> Vec<Window> {
    let mut days = 0;
    if let Some(list) = &spec.days {
        let place = place.key("days");
        not_empty(&place, list, findings);
        for (index, day) in list.iter().enumerate() {
            if days & bit(*day) != 0 {
                repeated(&place.index(index), &format!("{day:?}"), findings);
            }
            days |= bit(*day);
        }
    } else {
        days = 0x7F;
    }
    let from = check_clock(&place.key("from"), &spec.from, findings);
    let to = check_clock(&place.key("to"), &spec.to, findings);
    let (Some(from), Some(to)) = (from, to) else { return Vec::new() };
    if from == to || from == DAY_MIN || (from == 0 && to == 0) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("from `{}` to `{}` there is no time", spec.from, spec.to),
            "a window begins on its day, and ends later on it or on the next day",
            "for whole days write `from: \"00:00\"` and `to: \"24:00\"`",
        );
        return Vec::new();
    }
    if from < to {
        return vec![Window { days, from, to }];
    }
    let next_days = (days << 1 | days >> 6) & 0x7F;
    let evening = Window { days, from, to: DAY_MIN };
    let morning = (to > 0).then_some(Window { days: next_days, from: 0, to });
    [evening].into_iter().chain(morning).collect()
}

const fn bit(day: DaySpec) -> u8 {
    match day {
        DaySpec::Mon => 1,
        DaySpec::Tue => 2,
        DaySpec::Wed => 4,
        DaySpec::Thu => 8,
        DaySpec::Fri => 16,
        DaySpec::Sat => 32,
        DaySpec::Sun => 64,
    }
}

/// `HH:MM`, in minutes.
fn check_clock(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<u16> {
    let minutes = clock(text);
    if minutes.is_none() {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{}` is not a time of day", text.escape_debug()),
            "hours and minutes have two digits each",
            "write `\"08:00\"`, from `\"00:00\"` to `\"24:00\"`",
        );
    }
    minutes
}

fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let well_formed = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| well_formed)
    };
    match (number(hours)?, number(minutes)?) {
        (24, 0) => Some(DAY_MIN),
        (hours @ 0..24, minutes @ 0..60) => Some(hours * 60 + minutes),
        _ => None,
    }
}

fn check_zone(place: &Place<'_>, name: &str, findings: &mut Findings) -> Option<Zone> {
    let database = TimeZoneDatabase::bundled();
    let found = database.get(name).ok().filter(|zone| zone.iana_name() == Some(name) || name == "UTC");
    let Some(zone) = found else {
        let known: Vec<String> = database.available().map(|name| name.to_string()).collect();
        let close = database.get(name).ok().and_then(|zone| zone.iana_name().map(str::to_owned));
        let close =
            close.or_else(|| suggest::closest(name, known.iter().map(String::as_str)).map(str::to_owned));
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{}` is not a time zone", name.escape_debug()),
            "time zones have the names of the IANA database, and case matters",
            match close {
                Some(close) => format!("did you mean `{close}`?"),
                None => "write a name such as `Europe/Berlin` or `UTC`".to_owned(),
            },
        );
        return None;
    };
    let zone = offsets(name, &zone);
    if zone.is_none() {
        findings.add(
            place,
            Code::MalformedValue,
            format!("of the time zone `{name}` no offsets are known"),
            "it is not known what its clocks show",
            "write another name, e.g. `UTC`",
        );
    }
    zone
}

/// The offsets of a zone, from [`BEGIN`] to [`HORIZON`].
fn offsets(name: &str, zone: &TimeZone) -> Option<Zone> {
    let begin = Timestamp::from_second(BEGIN).ok()?;
    let mut offsets = vec![Offset { since: BEGIN, seconds: zone.to_offset(begin).seconds() }];
    for transition in zone.following(begin) {
        let since = transition.timestamp().as_second();
        if since >= HORIZON {
            break;
        }
        let seconds = transition.offset().seconds();
        // Only the name or the kind of time changes.
        if offsets.last().is_some_and(|last| last.seconds != seconds) {
            offsets.push(Offset { since, seconds });
        }
    }
    let until = if name == "UTC" { i64::MAX } else { HORIZON };
    Some(Zone { name: name.to_owned(), offsets, until })
}

#[cfg(test)]
mod tests;
