//! Which pods a policy reaches.
//!
//! A selector matches every pod that has its labels, and maybe more. All policies that reach a pod are one: ALLOWs add up,
//! DENYs as well. So it is known for every workload whose policies reach which others.
//!
//! INVARIANT: a policy stays in its workload's namespace. There is none with a selector in the root namespace.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::object;
use crate::labels::LabelIndex;
use crate::mesh::{Mesh, Workload, WorkloadId};

/// The workloads that the policies of another one reach, where there are any.
pub(super) type Reached = BTreeMap<WorkloadId, Vec<WorkloadId>>;

/// Why there is no policy for a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unselectable {
    /// It has no labels that a selector can name.
    Labels,
    /// "A policy in the root namespace applies to workloads in all namespaces": to those as well that the mesh does not list.
    RootNamespace,
}

/// The label by which gateways of the Gateway API, waypoints among them, are known to Istio: selectors pass them by.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Labels of pods, not of workloads: they change from pod to pod, with each rollout, or with an upgrade of Istio. A policy that
/// named them would not reach the next pods, and Istio lets everything through where no ALLOW is.
pub const OF_PODS: [&str; 13] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-revision-hash",
    "controller-uid",
    "istio.io/rev",
    "pod-template-generation",
    "pod-template-hash",
    "security.istio.io/tlsMode",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "statefulset.kubernetes.io/pod-name",
    "topology.istio.io/network",
];

/// The longest value of a label.
const MAX_LABEL: usize = 63;

/// How a workload's pods are named in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    /// `selector` or `targetRefs`.
    pub field: &'static str,
    pub value: Value,
}

/// A workload's pods.
pub(super) fn selector(root: &str, id: &WorkloadId, workload: &Workload) -> Result<Selector, Unselectable> {
    if let Some(name) = workload.labels.get(GATEWAY_NAME).filter(|name| !name.is_empty()) {
        let target = object([
            ("group", Value::from("gateway.networking.k8s.io")),
            ("kind", Value::from("Gateway")),
            ("name", Value::from(name.as_str())),
        ]);
        return Ok(Selector { field: "targetRefs", value: Value::Array(vec![target]) });
    }
    if id.namespace == root {
        return Err(Unselectable::RootNamespace);
    }
    let fits = |(key, value): (&String, &String)| {
        !key.is_empty() && !key.contains('*') && !value.contains('*') && value.len() <= MAX_LABEL
    };
    if own_labels(workload).next().is_none() || !own_labels(workload).all(fits) {
        return Err(Unselectable::Labels);
    }
    let labels: BTreeMap<&str, Value> =
        own_labels(workload).map(|(key, value)| (key.as_str(), Value::from(value.as_str()))).collect();
    Ok(Selector { field: "selector", value: object([("matchLabels", object(labels))]) })
}

/// Labels that all of its pods have, and keep.
fn own_labels(workload: &Workload) -> impl Iterator<Item = (&String, &String)> + Clone {
    workload.labels.iter().filter(|(key, _)| !OF_PODS.contains(&key.as_str()))
}

/// Whether it is a gateway, whose listeners are its owner's: a waypoint among them.
pub(super) fn is_gateway(workload: &Workload) -> bool {
    workload.gateway || workload.labels.contains_key(GATEWAY_NAME)
}

/// What the policies of every workload that can have any reach besides its own pods.
pub(super) fn also_reached(mesh: &Mesh) -> Reached {
    let index = LabelIndex::new(mesh);
    let of = |(id, workload): (&WorkloadId, &Workload)| {
        selector(&mesh.root_namespace, id, workload).ok()?;
        let alike = match workload.labels.get_key_value(GATEWAY_NAME) {
            Some(name) => index.having(&id.namespace, std::iter::once(name)),
            None => index.having(&id.namespace, own_labels(workload)),
        };
        let others = alike.into_iter().map(|(other, _)| other).filter(|other| *other != id);
        let others: Vec<WorkloadId> = others.cloned().collect();
        (!others.is_empty()).then(|| (id.clone(), others))
    };
    mesh.workloads.iter().filter_map(of).collect()
}

// === impl Unselectable ===

impl Unselectable {
    /// What there is to say about it.
    pub fn why(self) -> &'static str {
        match self {
            Self::Labels => {
                "it has no labels that a policy could select: there is no Fence, and only the filter enforces"
            }
            Self::RootNamespace => {
                "it is in the mesh's root namespace, where a policy acts on the pods of every namespace: there is no Fence, and only \
                 the filter enforces; move it to a namespace of its own"
            }
        }
    }
}
