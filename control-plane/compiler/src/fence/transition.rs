//! From one state of a mesh to the next, so that nothing that is allowed is refused on the way.
//!
//! "Widening: Fence, settle, then Bundle. Narrowing: Bundle, receipts, then Fence." Most changes are both. In between stands a
//! Fence that contains the old and the new one.
//!
//! INVARIANT: whatever Bundle may be in force beside a step's Fence, the Fence contains it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::object::{IstioObject, object};
use super::{Fence, WorkloadFence};
use crate::mesh::WorkloadId;

/// One step. The next one is taken when this one is in force everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These objects are applied in their order, then those that are not among them any more are deleted; and proxies have
    /// settled.
    Fence(Fence),
    /// The new Bundles are pushed, and their receipts are in.
    Bundle,
}

/// The steps from one Fence to the next, with the Bundles that belong to them.
pub fn transition(old: &Fence, new: &Fence) -> Vec<Step> {
    let ids: BTreeSet<&WorkloadId> = old.workloads.keys().chain(new.workloads.keys()).collect();
    let none = Arc::<WorkloadFence>::default();
    let between: BTreeMap<WorkloadId, Arc<WorkloadFence>> = ids
        .into_iter()
        .map(|id| {
            let (old, new) = (old.workloads.get(id).unwrap_or(&none), new.workloads.get(id).unwrap_or(&none));
            (id.clone(), union(old, new))
        })
        .collect();
    let between = Fence { workloads: between };
    let mut steps = Vec::new();
    if objects(&between) != objects(old) {
        steps.push(Step::Fence(between.clone()));
    }
    steps.push(Step::Bundle);
    if objects(&between) != objects(new) {
        steps.push(Step::Fence(new.clone()));
    }
    steps
}

/// What is the same in memory is compared without a look at it.
fn objects(fence: &Fence) -> Vec<&Arc<IstioObject>> {
    fence.workloads.values().flat_map(|workload| &workload.objects).collect()
}

/// What both let through, and what both refuse.
fn union(old: &Arc<WorkloadFence>, new: &Arc<WorkloadFence>) -> Arc<WorkloadFence> {
    if old.objects == new.objects {
        return Arc::clone(new);
    }
    let mut objects = Vec::new();
    match (find(old, "ALLOW"), find(new, "ALLOW")) {
        (Some(a), Some(b)) if same_pods(a, b) => {
            // Without a RequestAuthentication no condition on a token holds, with one other tokens are refused: in between
            // there is neither.
            let bare = has_authentication(old) || has_authentication(new);
            let strip = |rule: Value| if bare { without_claims(rule) } else { rule };
            let mut rules: BTreeMap<String, Value> = BTreeMap::new();
            for rule in rules_of(a).iter().chain(rules_of(b)).cloned().map(strip) {
                rules.insert(rule.to_string(), rule);
            }
            objects.push(Arc::new(with_rules(b, rules.into_values().collect())));
            // The reverse for what is refused.
            if let (Some(a), Some(b)) = (find(old, "DENY"), find(new, "DENY"))
                && same_pods(a, b)
            {
                let both: Vec<Value> =
                    rules_of(b).iter().filter(|rule| rules_of(a).contains(rule)).cloned().collect();
                if !both.is_empty() {
                    objects.push(Arc::new(with_rules(b, both)));
                }
            }
        }
        // Where nothing is refused before or after, nothing is in between; but what keeps others' policies from refusing
        // everything stays for as long as they are there.
        (Some(one), None) | (None, Some(one)) if lets_everything_through(one) => {
            objects.push(Arc::clone(one));
        }
        _ => {}
    }
    Arc::new(WorkloadFence {
        objects,
        notes: new.notes.clone(),
        needs_filter: old.needs_filter || new.needs_filter,
        interlock: new.interlock.clone().or_else(|| old.interlock.clone()),
    })
}

fn find<'f>(fence: &'f WorkloadFence, action: &str) -> Option<&'f Arc<IstioObject>> {
    fence.objects.iter().find(|object| object.spec.get("action").and_then(Value::as_str) == Some(action))
}

fn has_authentication(fence: &WorkloadFence) -> bool {
    fence.objects.iter().any(|object| object.kind == "RequestAuthentication")
}

fn same_pods(a: &IstioObject, b: &IstioObject) -> bool {
    ["selector", "targetRefs"].iter().all(|field| a.spec.get(field) == b.spec.get(field))
}

fn rules_of(policy: &IstioObject) -> &[Value] {
    policy.spec.get("rules").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn lets_everything_through(policy: &IstioObject) -> bool {
    rules_of(policy).iter().any(|rule| rule.as_object().is_some_and(serde_json::Map::is_empty))
}

fn with_rules(policy: &IstioObject, rules: Vec<Value>) -> IstioObject {
    let mut members: BTreeMap<&str, Value> = policy
        .spec
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "rules")
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    if !rules.is_empty() {
        members.insert("rules", Value::Array(rules));
    }
    IstioObject { spec: object(members), ..policy.clone() }
}

/// The same rule for whatever token there is.
fn without_claims(rule: Value) -> Value {
    let Value::Object(members) = rule else { return rule };
    let kept = members.into_iter().filter_map(|(name, value)| match (name.as_str(), value) {
        ("when", Value::Array(conditions)) => {
            let of_token = |condition: &Value| {
                condition
                    .get("key")
                    .and_then(Value::as_str)
                    .is_some_and(|key| key.starts_with("request.auth."))
            };
            let rest: Vec<Value> = conditions.into_iter().filter(|condition| !of_token(condition)).collect();
            (!rest.is_empty()).then_some((name, Value::Array(rest)))
        }
        (_, value) => Some((name, value)),
    });
    Value::Object(kept.collect())
}
