//! The CustomResourceDefinitions.
//!
//! The API server keeps fields that it does not know, so that the controller sees and refuses them with the diagnostic of
//! the command line, instead of rules that silently lost a condition.

use serde_json::{Value, json};
use tidegate_compiler::Kind;

/// The group of our kinds.
pub(crate) const GROUP: &str = "tidegate.dev";
/// Their version.
pub(crate) const VERSION: &str = "v1alpha1";

/// The kinds that are written in clusters; the Mesh is made from pods, and RuleTests belong into CI.
pub(crate) const KINDS: [Kind; 4] = [Kind::TrustedIssuer, Kind::Caller, Kind::Guard, Kind::AccessRule];

/// The plural of one of [`KINDS`].
pub(crate) fn plural(kind: Kind) -> String {
    format!("{}s", kind.as_str().to_lowercase())
}

/// The kind of what people did besides rules, and its plural. Only the control plane writes it.
pub(crate) const INTERVENTION: (&str, &str) = ("Intervention", "interventions");

/// All definitions, to be installed in this order.
pub fn crds() -> Vec<Value> {
    KINDS.into_iter().map(crd).chain([intervention()]).collect()
}

fn intervention() -> Value {
    let (kind, plural) = INTERVENTION;
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let columns = [
        column("Revocations", ".spec.revocations[*].id"),
        column("Suspended", ".spec.suspensions[*].workload"),
        column("Pinned", ".spec.pin.digest"),
    ];
    let description =
        "What people revoked, suspended and pinned, as `tidegate serve` wrote it for all of its replicas.";
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "labels": {"app.kubernetes.io/part-of": "tidegate"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": ["tgi"],
            },
            "scope": "Namespaced",
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": description,
                    "properties": {"spec": {
                        "type": "object",
                        "description": "`tidegate revoke --list` says what it means. Not to be edited.",
                        "x-kubernetes-preserve-unknown-fields": true,
                    }},
                }},
            }],
        },
    })
}

fn crd(kind: Kind) -> Value {
    let (short, description) = match kind {
        Kind::TrustedIssuer => ("ti", "Who may issue tokens, with which keys, for whom."),
        Kind::Caller => ("tgc", "One named identity and its forms in several systems."),
        Kind::Guard => ("tgg", "Declares that workloads are guarded: what no AccessRule allows is refused."),
        _ => ("tgr", "Allows or denies callers operations or data. A Deny that matches always wins."),
    };
    let plural = plural(kind);
    let condition = |kind: &str| format!(r#".status.conditions[?(@.type=="{kind}")].status"#);
    let column = |name: &str, path: &str| json!({"name": name, "type": "string", "jsonPath": path});
    let mut columns = match kind {
        Kind::TrustedIssuer => vec![column("Issuer", ".spec.issuer"), column("Pack", ".spec.pack")],
        Kind::Guard => vec![column("Mode", ".spec.mode")],
        Kind::AccessRule => vec![
            column("Effect", ".spec.effect"),
            column("Mode", ".spec.mode"),
            column("Owner", ".spec.owner"),
        ],
        _ => Vec::new(),
    };
    columns.push(column("Accepted", &condition("Accepted")));
    columns.push(column("Compiled", &condition("Compiled")));
    if matches!(kind, Kind::Guard | Kind::AccessRule) {
        columns.push(column("Fenced", &condition("Fenced")));
        columns.push(column("Attached", &condition("Attached")));
        columns.push(column("Enforced", ".status.enforced"));
    }
    columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "labels": {"app.kubernetes.io/part-of": "tidegate"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.as_str(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.as_str().to_lowercase(),
                "shortNames": [short],
                "categories": ["tidegate"],
            },
            "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": description,
                    "properties": {
                        "spec": {
                            "type": "object",
                            "description": "Checked by the control plane; what is wrong is in the status.",
                            "x-kubernetes-preserve-unknown-fields": true,
                        },
                        "status": status(),
                    },
                }},
            }],
        },
    })
}

fn status() -> Value {
    json!({
        "type": "object",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "enforced": {"type": "string", "description": "How many proxies enforce it, of how many."},
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "reason", "message", "lastTransitionTime"],
                    "properties": {
                        "type": {"type": "string"},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "reason": {"type": "string"},
                        "message": {"type": "string"},
                        "observedGeneration": {"type": "integer", "format": "int64"},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_definition_that_keeps_what_it_does_not_know() {
        for crd in crds() {
            let name = &crd["metadata"]["name"];
            let version = &crd["spec"]["versions"][0];
            let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            assert_eq!(spec["x-kubernetes-preserve-unknown-fields"], true, "{name}");
            assert!(version["subresources"]["status"].is_object(), "{name}");
            let names = &crd["spec"]["names"];
            assert_eq!(*name, format!("{}.{GROUP}", names["plural"].as_str().unwrap()));
        }
        let scopes: Vec<_> = crds().iter().map(|crd| crd["spec"]["scope"].clone()).collect();
        assert_eq!(scopes, ["Cluster", "Namespaced", "Namespaced", "Namespaced", "Namespaced"]);
    }
}
