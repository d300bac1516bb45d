//! Which pods a policy reaches.
//!
//! A selector matches every pod that has its labels, and maybe more. All policies that reach a pod are one: ALLOWs add up,
//! DENYs as well. So it is known for every workload whose policies reach which others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::object::object;
use crate::mesh::{Mesh, Workload, WorkloadId};

/// The label by which gateways of the Gateway API, waypoints among them, are known to Istio: selectors pass them by.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The longest value of a label.
const MAX_LABEL: usize = 63;

/// How a workload's pods are named in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    /// `selector` or `targetRefs`.
    pub field: &'static str,
    pub value: Value,
}

/// A workload's pods. `None`: it has no labels that a selector can name.
pub(super) fn selector(workload: &Workload) -> Option<Selector> {
    if let Some(name) = workload.labels.get(GATEWAY_NAME).filter(|name| !name.is_empty()) {
        let target = object([
            ("group", Value::from("gateway.networking.k8s.io")),
            ("kind", Value::from("Gateway")),
            ("name", Value::from(name.as_str())),
        ]);
        return Some(Selector { field: "targetRefs", value: Value::Array(vec![target]) });
    }
    let fits = |(key, value): (&String, &String)| {
        !key.is_empty() && !key.contains('*') && !value.contains('*') && value.len() <= MAX_LABEL
    };
    if workload.labels.is_empty() || !workload.labels.iter().all(fits) {
        return None;
    }
    let labels: BTreeMap<&str, Value> =
        workload.labels.iter().map(|(key, value)| (key.as_str(), Value::from(value.as_str()))).collect();
    Some(Selector { field: "selector", value: object([("matchLabels", object(labels))]) })
}

/// The other workloads that the policies of a workload reach.
pub(super) fn also_reached<'m>(
    mesh: &'m Mesh,
    id: &WorkloadId,
    workload: &Workload,
) -> BTreeSet<&'m WorkloadId> {
    let everywhere = id.namespace == mesh.root_namespace;
    let first = WorkloadId {
        namespace: if everywhere { String::new() } else { id.namespace.clone() },
        name: String::new(),
    };
    let gateway = workload.labels.get(GATEWAY_NAME);
    mesh.workloads
        .range(first..)
        .take_while(|(other, _)| everywhere || other.namespace == id.namespace)
        .filter(|(other, _)| *other != id)
        .filter(|(_, other)| match gateway {
            Some(_) => other.labels.get(GATEWAY_NAME) == gateway,
            None => workload.labels.iter().all(|(key, value)| other.labels.get(key) == Some(value)),
        })
        .map(|(other, _)| other)
        .collect()
}
