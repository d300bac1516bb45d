//! How changed rules reach proxies, checked.
//!
//! Pure: what is a canary and when one goes back is for those who know proxies.

use std::fmt;
use std::sync::Arc;

use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::rules::Guard;
use crate::spec::{AbortOnSpec, AmountSpec, RolloutSpec};
use crate::text::check_duration;

/// Most canaries that a number may ask for.
const MAX_CANARIES: u32 = 10_000;
/// Shortest time that proxies keep the rules before, in seconds.
const SHORTEST_S: u32 = 10;
/// The same where requests are compared: filters tell their counts every 30 s.
const SHORTEST_COMPARED_S: u32 = 60;
/// Longest, in seconds: so long may rules stay in force that their author has replaced.
const LONGEST_S: u32 = 24 * 3600;
/// Requests that are compared before anything follows from them, unless that is written.
const MIN_REQUESTS: u32 = 100;
/// Most that may be written.
const MAX_REQUESTS: u32 = 1_000_000;

/// How changed rules reach the proxies of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    /// How many proxies get them first.
    pub canary: Canary,
    /// How long the others keep the rules before, in seconds.
    pub hold_s: u32,
    /// When canaries go back; `None`: where a filter refuses the rules or does not survive them.
    pub abort_on: Option<AbortOn>,
}

/// How many proxies are canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// So many.
    Number(u32),
    /// A share of those that there are.
    Share(Share),
}

/// When canaries go back to the rules before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortOn {
    /// Where more of the requests are refused that the rules before would have allowed.
    pub new_refusals: Share,
    /// So many requests must have been compared.
    pub min_requests: u32,
}

/// A share, in hundredths of a percent; at most 10 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

// === impl Share ===

impl Share {
    const WHOLE: u32 = 10_000;

    /// Reads `10%` or `0.5%`, with at most two digits after the point.
    fn parse(text: &str) -> Option<Self> {
        let (whole, part) = match text.strip_suffix('%')?.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, part)) => (whole, part),
            None => (text.strip_suffix('%')?, ""),
        };
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = whole == "0" || !(whole.is_empty() || whole.starts_with('0'));
        if !is_plain || whole.len() > 3 || part.len() > 2 || !is_number(whole) || !is_number(part) {
            return None;
        }
        let hundredths = format!("{part:0<2}").parse::<u32>().ok()?;
        let share = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths)?;
        (share <= Self::WHOLE).then_some(Self(share))
    }

    /// Whether `part` of `whole` is more than this.
    pub fn is_exceeded(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Self::WHOLE) > u128::from(whole) * u128::from(self.0)
    }

    /// So many of `whole`, rounded up.
    pub fn of(self, whole: usize) -> usize {
        let whole = u128::try_from(whole).unwrap_or(u128::MAX);
        let part = whole.saturating_mul(u128::from(self.0)).div_ceil(u128::from(Self::WHOLE));
        usize::try_from(part).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

// === impl Canary ===

impl Canary {
    /// How many of so many proxies: at least one, and never all of several.
    pub fn of(self, proxies: usize) -> usize {
        let asked = match self {
            Self::Number(number) => usize::try_from(number).unwrap_or(usize::MAX),
            Self::Share(share) => share.of(proxies),
        };
        asked.min(proxies.saturating_sub(1)).max(1)
    }
}

/// Checks a rollout. `None` if anything is wrong with it.
pub(crate) fn check(place: &Place<'_>, spec: &RolloutSpec, findings: &mut Findings) -> Option<Rollout> {
    let canary = check_canary(&place.key("canary"), &spec.canary, findings);
    let abort_on = spec.abort_on.as_ref().map(|spec| check_abort(&place.key("abortOn"), spec, findings));
    let hold = place.key("hold");
    let why = "so long may proxies enforce rules that their author has replaced";
    let hold_s = check_duration(&hold, &spec.hold, LONGEST_S, why, findings)?;
    let shortest = if abort_on.is_some() { SHORTEST_COMPARED_S } else { SHORTEST_S };
    if hold_s < shortest {
        findings.add(
            &hold,
            Code::MalformedValue,
            format!("`{}` is shorter than is accepted", spec.hold),
            "nothing could be seen of the canaries in it; filters tell their counts every 30 s",
            format!("write `{shortest}s` or more, or leave `rollout` out"),
        );
        return None;
    }
    let abort_on = match abort_on {
        None => None,
        Some(abort_on) => Some(abort_on?),
    };
    Some(Rollout { canary: canary?, hold_s, abort_on })
}

fn check_canary(place: &Place<'_>, spec: &AmountSpec, findings: &mut Findings) -> Option<Canary> {
    let AmountSpec(text) = spec;
    let share = Share::parse(text).filter(|share| (1..Share::WHOLE).contains(&share.0));
    let number = text.parse::<u32>().ok().filter(|number| (1..=MAX_CANARIES).contains(number));
    let canary = number.map(Canary::Number).or(share.map(Canary::Share));
    if canary.is_none() {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{}` is no number of proxies and no share of them", text.escape_debug()),
            "canaries are some of the proxies: not none, and not all",
            format!("write a number from 1 to {MAX_CANARIES}, or a share such as `10%`, less than `100%`"),
        );
    }
    canary
}

fn check_abort(place: &Place<'_>, spec: &AbortOnSpec, findings: &mut Findings) -> Option<AbortOn> {
    let share = Share::parse(&spec.new_refusals).filter(|share| share.0 < Share::WHOLE);
    if share.is_none() {
        findings.add(
            &place.key("newRefusals"),
            Code::MalformedValue,
            format!("`{}` is no share of requests", spec.new_refusals.escape_debug()),
            "canaries go back when more requests than this are refused that would have been allowed before",
            "write `1%` or `0.5%`, less than `100%`; `0%`: none may be",
        );
    }
    let min_requests = spec.min_requests.unwrap_or(MIN_REQUESTS);
    if !(1..=MAX_REQUESTS).contains(&min_requests) {
        findings.add(
            &place.key("minRequests"),
            Code::MalformedValue,
            format!("{min_requests} is not accepted"),
            "a share of no requests says nothing, and of very many it comes too late",
            format!("write a number from 1 to {MAX_REQUESTS}"),
        );
        return None;
    }
    Some(AbortOn { new_refusals: share?, min_requests })
}

/// How changed rules reach a workload that these Guards cover. `Err`: the two that do not say the same.
pub(crate) fn of<'g>(
    guards: impl Iterator<Item = &'g Guard>,
) -> Result<Option<Rollout>, (&'g Guard, &'g Guard)> {
    let mut found: Option<(&Guard, Rollout)> = None;
    for guard in guards {
        match (found, guard.rollout) {
            (Some((first, known)), Some(other)) if known != other => return Err((first, guard)),
            (None, Some(rollout)) => found = Some((guard, rollout)),
            _ => {}
        }
    }
    Ok(found.map(|(_, rollout)| rollout))
}

/// Whether a Guard is an object of this namespace.
pub(crate) fn is_in(guard: &Guard, namespace: &str) -> bool {
    guard.name.split_once('/').is_some_and(|(own, _)| own == namespace)
}

/// Says so where two Guards of a workload of this namespace declare different rollouts. What is said there is no error of
/// the root namespace, unless it contradicts itself.
pub(crate) fn refuse_two(guards: &[Arc<Guard>], namespace: &str, findings: &mut Findings) {
    let (own, roots): (Vec<&Guard>, Vec<&Guard>) =
        guards.iter().map(|guard| &**guard).partition(|guard| is_in(guard, namespace));
    if let Err((first, second)) = of(roots.into_iter().chain(own)) {
        findings.add(
            &second.source.place().key("spec").key("rollout"),
            Code::RolloutConflict,
            format!("Guard `{}` declares another rollout for the same workload", first.name),
            "changed rules reach a workload in one way",
            "declare the rollout in one of the Guards, or the same one in both",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_exactly_and_shown_as_they_are_written() {
        for (text, share) in [
            ("10%", Some(1_000)),
            ("0.5%", Some(50)),
            ("0.05%", Some(5)),
            ("0%", Some(0)),
            ("100%", Some(10_000)),
        ] {
            assert_eq!(Share::parse(text), share.map(Share), "{text}");
            assert_eq!(Share::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "%", "10", "-1%", "+1%", "1.%", ".5%", "01%", "0.001%", "101%", "1e1%", " 1%", "1 %"]
        {
            assert_eq!(Share::parse(text), None, "{text}");
        }
        assert!(Share(100).is_exceeded(2, 100) && !Share(100).is_exceeded(1, 100));
        assert!(Share(0).is_exceeded(1, u64::MAX) && !Share(0).is_exceeded(0, 0));
        assert!(!Share(9_999).is_exceeded(u64::MAX / 2, u64::MAX));
    }

    #[test]
    fn canaries_are_at_least_one_and_never_all_of_several() {
        let share = Canary::Share(Share(1_000));
        for (canary, proxies, expected) in [
            (share, 0, 1),
            (share, 1, 1),
            (share, 2, 1),
            (share, 11, 2),
            (share, 20, 2),
            (Canary::Share(Share(9_999)), 2, 1),
            (Canary::Share(Share(9_999)), 100, 99),
            (Canary::Number(3), 2, 1),
            (Canary::Number(3), 1, 1),
            (Canary::Number(3), 3, 2),
            (Canary::Number(3), 4, 3),
        ] {
            assert_eq!(canary.of(proxies), expected, "{canary:?} of {proxies}");
        }
    }
}
