//! How an object reaches exactly one workload.
//!
//! Istio's rules (istio `pilot/pkg/model/policyattachment.go`, `extensions.go`): pods that belong to a Gateway of the Gateway
//! API are reached by `targetRefs` only, waypoints among them; all others by labels. An object without a match applies to
//! every listener, outbound ones too. Listeners of gateways count as CLIENT, those of waypoints as SERVER.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_compiler::fence::OF_PODS;
use tidegate_compiler::{LabelIndex, Mesh, Workload, WorkloadId};

use super::NoteCode;
use crate::plugin_config::Peers;

/// On the pods of a gateway: `mesh` says that its listeners accept certificates of the mesh's authority only, as an egress
/// gateway's do, so that the certificate's SPIFFE id is a peer. Without it there are no peers at a gateway.
pub const PEERS_LABEL: &str = "tidegate.dev/peers";

/// Gateway API: the Gateway that a pod serves.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
const WAYPOINT_CLASS: &str = "istio-waypoint";
/// Which of Istio's controllers made the pod.
const MANAGED: &str = "gateway.istio.io/managed";
const WAYPOINT_CONTROLLER: &str = "istio.io-mesh-controller";

/// What a workload is to Istio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A pod with a sidecar.
    Sidecar,
    /// A gateway that is reached by labels.
    Gateway,
    /// A gateway of the Gateway API.
    GatewayApi {
        /// The Gateway's name.
        name: String,
    },
    /// A waypoint.
    Waypoint {
        /// The Gateway's name.
        name: String,
    },
}

// === impl Place ===

impl Place {
    /// By what the mesh says of a workload.
    pub fn of(workload: &Workload) -> Self {
        let is = |label: &str, value: &str| workload.labels.get(label).is_some_and(|found| found == value);
        match workload.labels.get(GATEWAY_NAME) {
            Some(name) if is(MANAGED, WAYPOINT_CONTROLLER) || is(GATEWAY_CLASS, WAYPOINT_CLASS) => {
                Self::Waypoint { name: name.clone() }
            }
            Some(name) => Self::GatewayApi { name: name.clone() },
            None if workload.gateway => Self::Gateway,
            None => Self::Sidecar,
        }
    }

    /// Where the filter finds peers.
    pub fn peers(&self, workload: &Workload) -> Peers {
        match self {
            // Istio's inbound listeners accept certificates of the mesh's authority only.
            Self::Sidecar => Peers::Mesh,
            Self::Waypoint { .. } => Peers::Waypoint,
            Self::Gateway | Self::GatewayApi { .. } => {
                match workload.labels.get(PEERS_LABEL).map(String::as_str) {
                    Some("mesh") => Peers::Mesh,
                    _ => Peers::None,
                }
            }
        }
    }

    /// The members of a `spec` that say whom it reaches.
    pub(super) fn reach(
        &self,
        id: &WorkloadId,
        workload: &Workload,
        (mesh, index): (&Mesh, &LabelIndex<'_>),
    ) -> Result<Map<String, Value>, (NoteCode, String)> {
        let mut spec = Map::new();
        match self {
            Self::Sidecar | Self::Gateway if id.namespace == mesh.root_namespace => {
                return Err((
                    NoteCode::SelectsOthers,
                    format!(
                        "`{id}` is in the mesh's root namespace, where an object acts on the pods of every namespace, those as well \
                         that nobody listed; move it to a namespace of its own"
                    ),
                ));
            }
            Self::Sidecar | Self::Gateway => {
                spec.insert("selector".to_owned(), json!({"matchLabels": selector(id, workload, index)?}));
            }
            Self::GatewayApi { name } | Self::Waypoint { name } => {
                let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name});
                spec.insert("targetRefs".to_owned(), json!([gateway]));
            }
        }
        let mode = match self {
            // Nothing of what the pod itself sends.
            Self::Sidecar | Self::Waypoint { .. } => "SERVER",
            // All its listeners are such: whatever Istio takes them for, none is left out.
            Self::Gateway | Self::GatewayApi { .. } => "CLIENT_AND_SERVER",
        };
        // No ports: those that a Guard leaves out are the filter's to pass, and in waypoints a port never matches.
        spec.insert("match".to_owned(), json!([{"mode": mode}]));
        Ok(spec)
    }
}

/// Labels that all pods of this workload have and no others in the namespace.
fn selector(
    id: &WorkloadId,
    workload: &Workload,
    index: &LabelIndex<'_>,
) -> Result<BTreeMap<String, String>, (NoteCode, String)> {
    let labels: BTreeMap<String, String> = workload
        .labels
        .iter()
        .filter(|(name, _)| !OF_PODS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if labels.is_empty() {
        return Err((
            NoteCode::NotSelectable,
            format!(
                "`{id}` has no labels, and a selector without labels reaches the whole namespace; give its pods a label of \
                 their own"
            ),
        ));
    }
    let unusable = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains('*') || value.contains('*') || value.len() > 63
    };
    if let Some((name, value)) = labels.iter().find(unusable) {
        return Err((
            NoteCode::NotSelectable,
            format!(
                "the label `{name}: {value}` of `{id}` cannot be in a selector; Kubernetes has no such labels"
            ),
        ));
    }
    let is_another = |(other, workload): &(&WorkloadId, &Workload)| {
        *other != id && !workload.labels.contains_key(GATEWAY_NAME)
    };
    let other = index.having(&id.namespace, labels.iter()).into_iter().find(is_another);
    match other {
        None => Ok(labels),
        Some((other, _)) => Err((
            NoteCode::SelectsOthers,
            format!(
                "the labels of `{id}` select `{other}` as well, which would be decided by rules that are not its own; give \
                 the pods of `{}` a label of their own, or another value",
                id.name
            ),
        )),
    }
}
