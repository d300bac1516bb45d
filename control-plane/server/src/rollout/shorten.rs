//! Rules before, with the ends that their author has brought forward: a shorter time is never held back.
//!
//! INVARIANT: what is made here allows nothing that the rules before do not.

use std::sync::Arc;

use tidegate_compiler::WorkloadPolicy;
use tidegate_engine::model::{Condition, Effect, FromModel, Operand, Relation, RuleModel, SharedRule};

/// The rules before with earlier ends; the same where there are none. `None`: they cannot be encoded.
pub(super) fn shorten(before: &Arc<WorkloadPolicy>, changed: &WorkloadPolicy) -> Option<Arc<WorkloadPolicy>> {
    // INVARIANT: rules of a policy are in the order of their ids.
    let now = &changed.model.rules;
    let sooner = |rule: &SharedRule| {
        let at = now.binary_search_by(|other| other.id.cmp(&rule.id)).ok()?;
        let other = now.get(at).filter(|other| !other.is_same(rule) && rule.effect == Effect::Allow)?;
        end(other).filter(|end| self::end(rule).is_none_or(|known| *end < known))
    };
    let ends: Vec<Option<i64>> = before.model.rules.iter().map(sooner).collect();
    if ends.iter().all(Option::is_none) {
        return Some(before.clone());
    }
    let mut shortened = WorkloadPolicy::clone(before);
    for (rule, end) in shortened.model.rules.iter_mut().zip(ends) {
        if let Some(end) = end {
            rule.from.iter_mut().for_each(|from| limit(&mut from.condition, end));
        }
    }
    shortened.rules = tidegate_engine::encode(&shortened.model).ok()?;
    Some(Arc::new(shortened))
}

/// From when on no entry of the rule holds, in Unix seconds; `None`: nobody knows.
fn end(rule: &RuleModel) -> Option<i64> {
    let ends = rule.from.iter().map(|FromModel { condition, .. }| end_of(condition));
    ends.collect::<Option<Vec<i64>>>()?.into_iter().max()
}

fn end_of(condition: &Condition) -> Option<i64> {
    match condition {
        Condition::Compare(Operand::Now, Relation::Less, Operand::Integer(end)) => Some(*end),
        Condition::All(parts) => parts.iter().filter_map(end_of).min(),
        _ => None,
    }
}

/// Replaces the end where there is one, so that rules of which only the end was changed come to the same.
fn limit(condition: &mut Condition, end: i64) {
    match condition {
        Condition::Compare(Operand::Now, Relation::Less, Operand::Integer(known)) => *known = end.min(*known),
        Condition::All(parts) => match parts.iter_mut().find(|part| end_of(part).is_some()) {
            Some(part) => limit(part, end),
            None => parts.push(until(end)),
        },
        Condition::True => *condition = until(end),
        other => *other = Condition::All(vec![std::mem::take(other), until(end)]),
    }
}

fn until(end: i64) -> Condition {
    Condition::Compare(Operand::Now, Relation::Less, Operand::Integer(end))
}
