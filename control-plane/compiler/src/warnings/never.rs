//! Allows whose demands contradict each other.
//!
//! A Deny is another matter: it matches on what cannot be told, and of such a claim every demand is unknown.

use std::collections::BTreeMap;

use tidegate_engine::model::{ClaimRef, Condition, Effect, FromModel, RuleModel, Test};

use super::cover::demands;

/// Whether no request can have what the rule demands: no entry of it holds ever.
pub(super) fn is_contradictory(rule: &RuleModel) -> bool {
    rule.effect == Effect::Allow && !rule.from.is_empty() && rule.from.iter().all(contradicts)
}

/// Whether a claim would have to be two things at once.
fn contradicts(from: &FromModel) -> bool {
    let mut known: BTreeMap<(u16, u16), Value<'_>> = BTreeMap::new();
    let demands = demands(&from.condition);
    let is = |ClaimRef { issuer, slot }: ClaimRef| (issuer, slot);
    for demand in &demands {
        let Condition::Claim(claim, test) = demand else { continue };
        let value = match test {
            Test::OneOf(texts) => Value::Texts(texts.iter().map(String::as_str).collect()),
            Test::Integer(integer) => Value::Integer(*integer),
            Test::Boolean(boolean) => Value::Boolean(*boolean),
            Test::Contains(_) => Value::List,
            _ => continue,
        };
        let both = match known.remove(&is(*claim)) {
            None => Some(value),
            Some(before) => before.and(value),
        };
        let Some(both) = both else { return true };
        known.insert(is(*claim), both);
    }
    demands.iter().any(|demand| match demand {
        Condition::Not(inner) => match inner.as_ref() {
            Condition::Claim(claim, Test::OneOf(refused)) => match known.get(&is(*claim)) {
                Some(Value::Texts(texts)) => texts.iter().all(|text| refused.iter().any(|one| one == text)),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    })
}

enum Value<'m> {
    Texts(Vec<&'m str>),
    Integer(i64),
    Boolean(bool),
    List,
}

// === impl Value ===

impl Value<'_> {
    /// What is both; `None`: nothing is.
    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Texts(mut texts), Self::Texts(others)) => {
                texts.retain(|text| others.contains(text));
                (!texts.is_empty()).then_some(Self::Texts(texts))
            }
            (Self::Integer(a), Self::Integer(b)) => (a == b).then_some(Self::Integer(a)),
            (Self::Boolean(a), Self::Boolean(b)) => (a == b).then_some(Self::Boolean(a)),
            (Self::List, Self::List) => Some(Self::List),
            // Another type is unknown, and an Allow does not match then.
            _ => None,
        }
    }
}
