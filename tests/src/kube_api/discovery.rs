//! What clients such as kubectl ask first: which kinds there are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Shared;

/// The answer at an address of discovery.
pub(super) fn discovery(shared: &Shared, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let store = shared.store();
    let list = |group: &str, version: &str| {
        let all =
            store.resources.iter().filter(|r| r.group == group && r.versions.iter().any(|v| v == version));
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        let resources: Vec<Value> = all
            .map(|r| json!({"name": r.plural, "singularName": r.kind.to_lowercase(), "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs}))
            .collect();
        let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        (!resources.is_empty()).then(|| {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
        })
    };
    match parts.as_slice() {
        ["version"] => Some(json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0-fake"})),
        ["healthz" | "readyz" | "livez"] => Some(json!("ok")),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
            for resource in store.resources.iter().filter(|resource| !resource.group.is_empty()) {
                let versions = groups.entry(&resource.group).or_default();
                for version in &resource.versions {
                    let known =
                        json!({"groupVersion": format!("{}/{version}", resource.group), "version": version});
                    if !versions.contains(&known) {
                        versions.push(known);
                    }
                }
            }
            let groups: Vec<Value> = groups
                .into_iter()
                .map(|(name, versions)| json!({"name": name, "preferredVersion": versions[0], "versions": versions}))
                .collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", version] => list("", version),
        ["apis", group, version] => list(group, version),
        _ => None,
    }
}
