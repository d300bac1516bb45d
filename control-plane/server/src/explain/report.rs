//! Decisions and rules as they are reported: for programs as JSON, for people by the command line.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_compiler::explain::{Check, Explanation, Nearest, PartTrace, RuleTrace, Verdict, nearest};
use tidegate_engine::model::{Effect, Mode};
use tidegate_engine::{Outcome, Reason, Truth};

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// `Allow` or `Deny`.
    #[serde(serialize_with = "outcome")]
    pub decision: Outcome,
    /// The reason code.
    pub reason: &'static str,
    /// The reason in a sentence.
    pub sentence: &'static str,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What Shadow rules and Guards would decide, where they make a difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<Decided>>,
}

/// The rule that lacks least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestReport {
    /// `namespace/name`.
    pub rule: String,
    /// Whether it is only reported, not enforced.
    pub shadow: bool,
    /// Who answers for it.
    pub owner: String,
    /// How they are reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contact: String,
    /// Demands that hold.
    pub held: usize,
    /// All demands.
    pub of: usize,
    /// One by one.
    pub conditions: Vec<ConditionReport>,
}

/// One demand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionReport {
    /// How deep it lies in "any of", "all of" and "not".
    pub depth: usize,
    /// What must hold.
    pub demand: String,
    /// `yes`, `no`, `unknown`, or `notReached`.
    pub holds: &'static str,
    /// What the request has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
}

/// The same as it is read.
#[derive(Deserialize)]
struct WrittenCondition {
    depth: usize,
    demand: String,
    holds: String,
    actual: Option<String>,
}

/// A rule that takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// `namespace/name`.
    pub rule: String,
    /// `Allow` or `Deny`.
    pub effect: &'static str,
    /// Who answers for it.
    pub owner: String,
    /// How they are reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contact: String,
    /// The demands of the entry and the operation that match.
    pub conditions: Vec<ConditionReport>,
}

/// The same as it is read.
#[derive(Deserialize)]
struct WrittenRule {
    rule: String,
    effect: String,
    owner: String,
    #[serde(default)]
    contact: String,
    conditions: Vec<ConditionReport>,
}

impl From<WrittenCondition> for ConditionReport {
    fn from(written: WrittenCondition) -> Self {
        let known = ["yes", "no", "unknown", "notReached"];
        // A word of a newer version says nothing that is known.
        let holds = known.into_iter().find(|word| *word == written.holds).unwrap_or("unknown");
        Self { depth: written.depth, demand: written.demand, holds, actual: written.actual }
    }
}

impl From<WrittenRule> for RuleReport {
    fn from(written: WrittenRule) -> Self {
        let effect = if written.effect == "Allow" { "Allow" } else { "Deny" };
        let WrittenRule { rule, owner, contact, conditions, .. } = written;
        Self { rule, effect, owner, contact, conditions }
    }
}

impl<'de> Deserialize<'de> for ConditionReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WrittenCondition::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> Deserialize<'de> for RuleReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WrittenRule::deserialize(deserializer).map(Self::from)
    }
}

/// For serde.
pub(crate) fn outcome<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(decision_word(*outcome))
}

/// As tests write it.
pub fn decision_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "Allow",
        Outcome::Deny => "Deny",
    }
}

impl From<&Nearest<'_>> for NearestReport {
    fn from(nearest: &Nearest<'_>) -> Self {
        let (held, of) = nearest.held();
        Self {
            rule: nearest.rule.rule.clone(),
            shadow: nearest.rule.mode == Mode::Shadow,
            owner: nearest.rule.owner.clone(),
            contact: nearest.rule.contact.clone(),
            held,
            of,
            conditions: nearest.checks().map(ConditionReport::from).collect(),
        }
    }
}

impl From<&Check> for ConditionReport {
    fn from(check: &Check) -> Self {
        let holds = match check.holds {
            _ if !check.reached => "notReached",
            Truth::True => "yes",
            Truth::False => "no",
            Truth::Unknown => "unknown",
        };
        Self {
            depth: check.depth,
            demand: check.demand.clone(),
            holds,
            actual: check.actual.clone().filter(|_| check.reached && check.holds != Truth::True),
        }
    }
}

// === impl Decided ===

impl Decided {
    /// What an explanation says was decided.
    pub fn new(explanation: &Explanation) -> Self {
        let shadow = explanation.shadow.as_ref().map(|shadow| Box::new(Self::of(shadow)));
        Self { shadow, ..Self::of(&explanation.enforced) }
    }

    fn of(verdict: &Verdict) -> Self {
        Self {
            decision: verdict.outcome,
            reason: verdict.reason.code(),
            sentence: verdict.reason.sentence(),
            rule: verdict.rule.clone(),
            shadow: None,
        }
    }
}

/// As rules write it.
pub fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    }
}

// === impl NearestReport ===

impl NearestReport {
    /// Where nothing is wrong with the request but that no rule allows it: the rule that lacks least.
    pub fn of(explanation: &Explanation) -> Option<Self> {
        let is_unmatched =
            matches!(explanation.enforced.reason, Reason::NoAllowMatched | Reason::TokenRequired);
        nearest(explanation).filter(|_| is_unmatched).map(|found| Self::from(&found))
    }
}

// === impl RuleReport ===

impl RuleReport {
    /// The rule that decides.
    pub fn deciding(explanation: &Explanation) -> Option<Self> {
        Self::named(explanation, explanation.enforced.rule.as_deref())
    }

    /// The rule that would decide otherwise.
    pub fn in_shadow(explanation: &Explanation) -> Option<Self> {
        Self::named(explanation, explanation.shadow.as_ref()?.rule.as_deref())
    }

    fn named(explanation: &Explanation, id: Option<&str>) -> Option<Self> {
        let id = id?;
        explanation.rules.iter().find(|rule| rule.rule == id).map(Self::from)
    }
}

impl From<&RuleTrace> for RuleReport {
    fn from(rule: &RuleTrace) -> Self {
        // Of equal ones the first, as it is the first in the file.
        let best = |parts: &[PartTrace]| {
            let by_truth = |truth| parts.iter().find(|part| part.holds == truth);
            by_truth(Truth::True).or_else(|| by_truth(Truth::Unknown)).cloned()
        };
        let parts = [best(&rule.from), best(&rule.to)];
        let checks = parts.iter().flatten().flat_map(|part| &part.checks);
        Self {
            rule: rule.rule.clone(),
            effect: effect_word(rule.effect),
            owner: rule.owner.clone(),
            contact: rule.contact.clone(),
            conditions: checks.map(ConditionReport::from).collect(),
        }
    }
}
