//! An object as it is written to a cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// An object of Istio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioObject {
    /// `group/version`.
    pub api_version: &'static str,
    /// Which kind.
    pub kind: &'static str,
    /// Where.
    pub namespace: String,
    /// Unique in the namespace among its kind.
    pub name: String,
    /// Whose it is.
    pub labels: BTreeMap<String, String>,
    /// What people are told.
    pub annotations: BTreeMap<String, String>,
    /// What it says.
    pub spec: Value,
}

// === impl IstioObject ===

impl IstioObject {
    /// The whole object; keys are in alphabetical order.
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({"name": self.name, "namespace": self.namespace, "labels": self.labels});
        if let Some(members) = metadata.as_object_mut().filter(|_| !self.annotations.is_empty()) {
            members.insert("annotations".to_owned(), json!(self.annotations));
        }
        json!({
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": metadata,
            "spec": self.spec,
        })
    }
}
