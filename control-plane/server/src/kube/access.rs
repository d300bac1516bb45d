//! What the API server has to grant.
//!
//! INVARIANT: least privilege. Every verb here is one that is used, and what is used is here: a role that is made of it is
//! neither wider nor narrower than the program. Nothing has a star, and nobody else's Secrets, roles or pods are touched.

use serde_json::{Value, json};
use tidegate_compiler::fence::IstioVersion;

use super::crds::{GROUP, INTERVENTION};
use super::index::Watched;
use super::lease::LeaseOptions;
use super::shared;
use super::watches::resource;

/// `rules` of a ClusterRole: the objects of every namespace.
pub fn cluster_rules() -> Vec<Value> {
    let read = ["list", "watch"];
    // Server-side apply asks for `create` as well where nothing is there yet.
    let kept = ["list", "watch", "create", "patch", "delete"];
    let mut rules: Vec<Value> = Vec::new();
    let brought = Watched::plugins(IstioVersion::default());
    for watched in Watched::inputs().chain(Watched::fence()).chain(brought) {
        let kind = resource(watched);
        match watched {
            Watched::Rules(_) => {
                grant(&mut rules, &kind.group, &kind.plural, &read);
                grant(&mut rules, &kind.group, &format!("{}/status", kind.plural), &["patch"]);
            }
            Watched::Istio(_) => grant(&mut rules, &kind.group, &kind.plural, &kept),
            _ => grant(&mut rules, &kind.group, &kind.plural, &read),
        }
    }
    grant(&mut rules, "events.k8s.io", "events", &["create", "patch"]);
    rules
}

/// `rules` of a Role in the namespace of the Lease: the Lease, and the object that replicas share.
pub fn lease_rules() -> Vec<Value> {
    let lease = LeaseOptions::new("", "").name;
    let of = |group: &str, resource: &str, name: &str, verbs: &[&str]| {
        let (groups, resources) = ([group], [resource]);
        [
            // A name cannot be asked for before there is one.
            json!({"apiGroups": groups, "resources": resources, "verbs": ["create"]}),
            json!({"apiGroups": groups, "resources": resources, "resourceNames": [name], "verbs": verbs}),
        ]
    };
    let leases = of("coordination.k8s.io", "leases", &lease, &["get", "update"]);
    let shared = of(GROUP, INTERVENTION.1, shared::NAME, &["get", "list", "watch", "update"]);
    leases.into_iter().chain(shared).collect()
}

/// Adds to the rule of the same group and verbs.
fn grant(rules: &mut Vec<Value>, group: &str, resource: &str, verbs: &[&str]) {
    let (groups, verbs) = (json!([group]), json!(verbs));
    let same = rules
        .iter_mut()
        .find(|rule| rule.get("apiGroups") == Some(&groups) && rule.get("verbs") == Some(&verbs));
    match same.and_then(|rule| rule.get_mut("resources")).and_then(Value::as_array_mut) {
        Some(resources) => resources.push(Value::from(resource)),
        None => rules.push(json!({"apiGroups": groups, "resources": [resource], "verbs": verbs})),
    }
}
