//! What is counted of a workload's rules, and goes on being counted as they come and go.

use tidegate_engine::model::{Condition, Effect, Mode, Operand, RuleModel, SharedRule};

/// With fewer rules an edit of a workload makes everything of it anew: that is as quick, and nothing has to be kept for it.
pub(crate) const MANY: usize = 256;

/// How many rules there are that are of some kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) rules: usize,
    /// Denies that look at tokens.
    pub(crate) denies: usize,
    /// Those that read bodies.
    bodies: usize,
}

/// How rules differ from others.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Those that are there no more, or say something else.
    pub(crate) gone: Vec<SharedRule>,
    /// Those that were not there, or said something else.
    pub(crate) new: Vec<SharedRule>,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn of(rule: &RuleModel) -> Self {
        let bodies = rule.to.iter().flatten().any(|operation| reads_body(&operation.condition));
        Self { rules: 1, denies: usize::from(looks(rule)), bodies: usize::from(bodies) }
    }

    /// Of these rules after they have changed.
    pub(crate) fn after(self, change: &Change) -> Self {
        let sum = |rules: &[SharedRule]| -> Self { rules.iter().map(|rule| Self::of(rule)).sum() };
        let (gone, new) = (sum(&change.gone), sum(&change.new));
        let after = |now: usize, gone: usize, new: usize| now.saturating_add(new).saturating_sub(gone);
        Self {
            rules: after(self.rules, gone.rules, new.rules),
            denies: after(self.denies, gone.denies, new.denies),
            bodies: after(self.bodies, gone.bodies, new.bodies),
        }
    }

    pub(crate) fn reads_bodies(self) -> bool {
        self.bodies > 0
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            rules: sum.rules.saturating_add(one.rules),
            denies: sum.denies.saturating_add(one.denies),
            bodies: sum.bodies.saturating_add(one.bodies),
        })
    }
}

/// Whether a Deny looks at tokens.
pub(crate) fn looks(rule: &RuleModel) -> bool {
    rule.effect == Effect::Deny
        && rule.mode == Mode::Enforce
        && rule.from.iter().any(|from| !from.issuers.is_empty())
}

fn reads_body(condition: &Condition) -> bool {
    match condition {
        Condition::All(parts) | Condition::Any(parts) => parts.iter().any(reads_body),
        Condition::Not(part) => reads_body(part),
        Condition::Compare(left, _, right) => is_of_body(left) || is_of_body(right),
        Condition::Text(read, _) => is_of_body(read),
        Condition::True | Condition::Claim(..) | Condition::Within(_) => false,
    }
}

fn is_of_body(read: &Operand) -> bool {
    match read {
        Operand::Body(_) => true,
        Operand::Length(inner) | Operand::Plus(inner, _) => is_of_body(inner),
        _ => false,
    }
}
