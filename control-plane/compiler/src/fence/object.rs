//! Objects of Istio as they are applied, and what they are called.
//!
//! INVARIANT: members are inserted in the order of their names, so that the bytes are the same whatever features `serde_json`
//! was built with.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::mesh::WorkloadId;

/// The API version of the objects of a Fence.
pub const SECURITY_API: &str = "security.istio.io/v1";

/// The label that every object of ours has, with [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY`], and the field manager of server-side apply.
pub const MANAGER: &str = "tidegate";

/// The label that says what an object is for: `fence`, `plugin` or `auth`.
pub const PART: &str = "tidegate.dev/part";

/// The label that says whose object it is: the workload's name, shortened where it is too long.
pub const WORKLOAD: &str = "tidegate.dev/workload";

/// The longest name of an object, and the longest value of a label.
const MAX_NAME: usize = 63;

/// An object that somebody else applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioObject {
    /// `group/version`.
    pub api_version: &'static str,
    /// Which kind.
    pub kind: &'static str,
    /// Where it belongs.
    pub namespace: String,
    /// Unique among its kind in the namespace.
    pub name: String,
    /// Those of every object of ours among them.
    pub labels: BTreeMap<String, String>,
    /// May be empty.
    pub annotations: BTreeMap<String, String>,
    /// What it says.
    pub spec: Value,
}

// === impl IstioObject ===

impl IstioObject {
    /// An object of ours for a workload. `part` as [`PART`], `suffix` such as `-deny`.
    pub fn new(
        api_version: &'static str,
        kind: &'static str,
        workload: &WorkloadId,
        (part, suffix): (&str, &str),
        spec: Value,
    ) -> Self {
        let labels =
            [(MANAGED_BY, MANAGER.to_owned()), (PART, part.to_owned()), (WORKLOAD, label(&workload.name))];
        Self {
            api_version,
            kind,
            namespace: workload.namespace.clone(),
            name: object_name(&workload.name, suffix),
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
            annotations: BTreeMap::new(),
            spec,
        }
    }

    /// As it is applied.
    pub fn to_json(&self) -> Value {
        let texts = |texts: &BTreeMap<String, String>| {
            let members = texts.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
            Value::Object(members.collect())
        };
        let mut metadata = Map::new();
        if !self.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), texts(&self.annotations));
        }
        metadata.insert("labels".to_owned(), texts(&self.labels));
        metadata.insert("name".to_owned(), Value::from(self.name.as_str()));
        metadata.insert("namespace".to_owned(), Value::from(self.namespace.as_str()));
        object([
            ("apiVersion", Value::from(self.api_version)),
            ("kind", Value::from(self.kind)),
            ("metadata", Value::Object(metadata)),
            ("spec", self.spec.clone()),
        ])
    }
}

/// An object of these members, which are in the order of their names.
pub(super) fn object<'m>(members: impl IntoIterator<Item = (&'m str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// An array of strings.
pub(super) fn strings<'s>(texts: impl IntoIterator<Item = &'s String>) -> Value {
    Value::Array(texts.into_iter().map(|text| Value::from(text.as_str())).collect())
}

/// `tidegate-<workload><suffix>`. Shortened with a hash where it is too long, and hashed where the workload's own name ends
/// as one of our suffixes, so that no two workloads' objects meet.
pub fn object_name(workload: &str, suffix: &str) -> String {
    let plain = format!("{MANAGER}-{workload}{suffix}");
    let ours = ["-deny", "-auth"].iter().any(|ending| workload.ends_with(ending));
    if plain.len() <= MAX_NAME && !ours {
        return plain;
    }
    let end = format!("-{}{suffix}", hash(workload));
    let room = MAX_NAME.saturating_sub(end.len()).saturating_sub(MANAGER.len()).saturating_sub(1);
    format!("{MANAGER}-{}{end}", beginning(workload, room))
}

/// A name as the value of a label.
pub fn label(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let hash = hash(name);
    format!("{}-{hash}", beginning(name, MAX_NAME.saturating_sub(hash.len()).saturating_sub(1)))
}

/// At most so many characters, none of `-` and `.` at the end. Names are ASCII.
fn beginning(name: &str, most: usize) -> String {
    let beginning: String = name.chars().take(most).collect();
    beginning.trim_end_matches(['-', '.']).to_owned()
}

/// FNV-1a, 64 bits: it tells names apart that people choose, and protects nothing.
fn hash(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_fit() {
        assert_eq!(object_name("orders-api", "-deny"), "tidegate-orders-api-deny");
        let long = "a".repeat(250);
        for suffix in ["", "-deny", "-auth"] {
            assert!(object_name(&long, suffix).len() <= MAX_NAME, "{suffix}");
            assert!(object_name(&long, suffix).ends_with(suffix), "{suffix}");
        }
        assert!(label(&long).len() <= MAX_NAME);
        assert_eq!(label("orders-api"), "orders-api");
        assert!(!label(&format!("{}.{}", "a".repeat(45), "b".repeat(80))).contains(".-"));
    }

    #[test]
    fn no_two_workloads_have_an_object_of_one_name() {
        let long = "a".repeat(60);
        let names =
            ["orders", "orders-deny", "orders-deny-deny", &long, &format!("{long}b"), &format!("{long}c")];
        let mut all: Vec<String> =
            names.iter().flat_map(|name| ["", "-deny"].map(|suffix| object_name(name, suffix))).collect();
        all.sort();
        let before = all.len();
        all.dedup();
        assert_eq!(all.len(), before, "{all:?}");
    }
}
