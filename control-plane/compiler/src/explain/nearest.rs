//! The rule that came nearest to letting a request in.

use tidegate_engine::model::{Effect, Mode};
use tidegate_engine::{Outcome, Truth};

use super::{Check, Explanation, PartTrace, RuleTrace, Subject};

/// An Allow with the entry and the operation of it that lack least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest<'e> {
    /// The rule.
    pub rule: &'e RuleTrace,
    /// The entry of `from`.
    pub entry: Option<&'e PartTrace>,
    /// The operation; `None`: the rule allows any.
    pub operation: Option<&'e PartTrace>,
}

/// For a request that no Allow lets in: the enforced Allow that lacks least, or a Shadow one where there is none. Of equal
/// ones the first in the order of ids.
pub fn nearest(explanation: &Explanation) -> Option<Nearest<'_>> {
    if explanation.enforced.outcome == Outcome::Allow {
        return None;
    }
    let of = |mode: Mode| {
        let rules =
            explanation.rules.iter().filter(move |rule| rule.effect == Effect::Allow && rule.mode == mode);
        rules.min_by_key(|rule| distance(rule))
    };
    let rule = of(Mode::Enforce).or_else(|| of(Mode::Shadow))?;
    Some(Nearest {
        rule,
        entry: rule.from.iter().min_by_key(|part| lacking(part)),
        operation: rule.to.iter().min_by_key(|part| lacking(part)),
    })
}

/// What a rule lacks, and against that what it has: less is nearer.
fn distance(rule: &RuleTrace) -> (u32, std::cmp::Reverse<usize>) {
    let least = |parts: &[PartTrace]| parts.iter().map(lacking).min().unwrap_or_default();
    let (from, to) = (least(&rule.from), least(&rule.to));
    let held = from.1.0.saturating_add(to.1.0);
    (from.0.saturating_add(to.0), std::cmp::Reverse(held))
}

/// Weighed demands that do not hold, and how many hold.
fn lacking(part: &PartTrace) -> (u32, std::cmp::Reverse<usize>) {
    let own = || part.checks.iter().filter(|check| check.depth == 0);
    let lack = own().filter(|check| check.holds != Truth::True || !check.reached).map(weight);
    let held = own().filter(|check| check.holds == Truth::True && check.reached).count();
    (lack.fold(0, u32::saturating_add), std::cmp::Reverse(held))
}

/// Another caller is further away than another value.
fn weight(check: &Check) -> u32 {
    match check.subject {
        Subject::Peer => 6,
        Subject::Path => 5,
        Subject::Host => 4,
        Subject::Token => 4,
        Subject::Method | Subject::Port | Subject::Grpc => 3,
        // What was not looked at may well hold.
        Subject::Condition if !check.reached => 0,
        Subject::Condition => 2,
    }
}

// === impl Nearest ===

impl<'e> Nearest<'e> {
    /// Its demands, who before what; those that were not looked at included.
    pub fn checks(&self) -> impl Iterator<Item = &'e Check> {
        let parts = self.entry.into_iter().chain(self.operation);
        parts.flat_map(|part| &part.checks)
    }

    /// How many of its demands hold, and how many there are.
    pub fn held(&self) -> (usize, usize) {
        let own = || self.checks().filter(|check| check.depth == 0);
        (own().filter(|check| check.holds == Truth::True && check.reached).count(), own().count())
    }
}
