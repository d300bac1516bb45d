//! What was decided.

use crate::reason::{Outcome, Reason};

/// Position of a rule in its policy. Rules are in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIx(pub u32);

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The rule that decided: the first in order where several of the deciding effect matched.
    pub rule: Option<RuleIx>,
    /// The rule allows only because a directory is stale or missing and the rule says that it may be done without
    /// ([`crate::model::Test::ListedOrStale`]): with the directory's answer demanded it would not have matched.
    pub degraded: bool,
    /// What is decided depends on the body, which was not read: it has to be decided again with it. Until then nothing is
    /// allowed that some body would make refused.
    pub awaits_body: bool,
    /// What would have happened, where Shadow rules or a Shadow Guard make a difference.
    pub shadow: Option<ShadowDifference>,
}

impl Decision {
    /// The same where somebody has suspended the Guards: what they refuse passes, and is reported.
    pub(crate) fn unless_suspended(self) -> Self {
        if self.outcome == Outcome::Allow {
            return self;
        }
        let refused = ShadowDifference { outcome: self.outcome, reason: self.reason, rule: self.rule };
        Self {
            outcome: Outcome::Allow,
            reason: Reason::GuardInShadow,
            rule: None,
            shadow: Some(refused),
            ..self
        }
    }

    /// What is revoked is refused, whatever else there is to say.
    pub(crate) fn revoked(reason: Reason, rule: Option<RuleIx>) -> Self {
        Self { outcome: Outcome::Deny, reason, rule, degraded: false, awaits_body: false, shadow: None }
    }
}

/// A decision that was not enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowDifference {
    /// What would have happened.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The rule that would have decided.
    pub rule: Option<RuleIx>,
}

/// How the workload's port is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guarding {
    /// No Guard covers it.
    None,
    /// Only Guards in Shadow mode cover it.
    Shadow,
    /// At least one Guard in Enforce mode covers it.
    Enforce,
}

/// The first matching rule of each kind: all that a verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Matches {
    pub deny: Option<RuleIx>,
    pub allow: Option<RuleIx>,
    pub shadow_deny: Option<RuleIx>,
    pub shadow_allow: Option<RuleIx>,
}

impl Matches {
    /// With what else is denied.
    pub fn denied_as(self, other: &Self) -> Self {
        let first = |one: Option<RuleIx>, other: Option<RuleIx>| match (one, other) {
            (Some(one), Some(other)) => Some(if one.0 <= other.0 { one } else { other }),
            (one, other) => one.or(other),
        };
        Self {
            deny: first(self.deny, other.deny),
            shadow_deny: first(self.shadow_deny, other.shadow_deny),
            ..self
        }
    }

    /// Settles rules into a decision. Deny wins, whatever the order; without any Allow everything is refused.
    ///
    /// `token_required` tells whether a caller that nothing allows should hear that it lacks a token.
    pub fn settle(self, guarding: Guarding, token_required: impl Fn() -> bool) -> Decision {
        let refused = || if token_required() { Reason::TokenRequired } else { Reason::NoAllowMatched };
        let verdict = |deny: Option<RuleIx>, allow: Option<RuleIx>| match (deny, allow) {
            (Some(rule), _) => {
                ShadowDifference { outcome: Outcome::Deny, reason: Reason::DeniedBy, rule: Some(rule) }
            }
            (None, Some(rule)) => {
                ShadowDifference { outcome: Outcome::Allow, reason: Reason::AllowedBy, rule: Some(rule) }
            }
            (None, None) => ShadowDifference { outcome: Outcome::Deny, reason: refused(), rule: None },
        };
        let enforced = verdict(self.deny, self.allow);
        let candidate = verdict(self.deny.or(self.shadow_deny), self.allow.or(self.shadow_allow));
        enforce(guarding, enforced, candidate)
    }
}

/// Applies the Guard's mode to a verdict of the enforced rules, beside the verdict with Shadow rules included.
pub(crate) fn enforce(
    guarding: Guarding,
    enforced: ShadowDifference,
    candidate: ShadowDifference,
) -> Decision {
    match guarding {
        Guarding::None => Decision {
            outcome: Outcome::Allow,
            reason: Reason::NotGuarded,
            rule: None,
            degraded: false,
            awaits_body: false,
            shadow: None,
        },
        // Shadow rules report what they would do, against what is enforced now.
        Guarding::Enforce => Decision {
            outcome: enforced.outcome,
            reason: enforced.reason,
            rule: enforced.rule,
            degraded: false,
            awaits_body: false,
            shadow: (candidate.outcome != enforced.outcome).then_some(candidate),
        },
        // A Guard in Shadow mode evaluates all that, the implied refusal included, and reports.
        Guarding::Shadow => Decision {
            outcome: Outcome::Allow,
            reason: Reason::GuardInShadow,
            rule: None,
            degraded: false,
            awaits_body: false,
            shadow: (candidate.outcome == Outcome::Deny).then_some(candidate),
        },
    }
}
