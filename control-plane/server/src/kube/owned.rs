//! Objects of Istio: what is there, what should be there, and how the one becomes the other.
//!
//! INVARIANT: only objects that carry our label *and* were applied by our field manager are changed or deleted. A field that
//! somebody edited by hand is set right; one that another controller applies is theirs, and reported.

use std::collections::BTreeMap;
use std::fmt;

use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions,
};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tidegate_compiler::fence::{IstioObject, MANAGED_BY, WORKLOAD};

use super::MANAGER;

/// The kinds that are written: API version, kind, plural.
pub(crate) const KINDS: [(&str, &str, &str); 2] = [
    ("security.istio.io/v1", "AuthorizationPolicy", "authorizationpolicies"),
    ("security.istio.io/v1", "RequestAuthentication", "requestauthentications"),
];

/// Kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An object that is there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Live {
    pub(crate) api_version: &'static str,
    pub(crate) uid: String,
    pub(crate) version: String,
    /// Whether our manager applied it.
    applied: bool,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Not kept of objects that are not ours.
    pub(crate) spec: Value,
}

/// What should be there.
pub(crate) type Desired = BTreeMap<Key, IstioObject>;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Apply(IstioObject),
    /// Fields that somebody added to one of ours.
    Strip {
        key: Key,
        fields: Vec<String>,
        version: String,
    },
    Delete {
        key: Key,
        uid: String,
        version: String,
    },
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unwritten {
    /// It is somebody else's, or a part of it.
    Conflict(String),
    /// It may work later.
    Failed(String),
}

// === impl Key ===

impl Key {
    pub(crate) fn of(object: &IstioObject) -> Self {
        Self { kind: object.kind, namespace: object.namespace.clone(), name: object.name.clone() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}/{}`", self.kind, self.namespace, self.name)
    }
}

// === impl Live ===

impl Live {
    /// An object as it was told.
    pub(crate) fn new(
        (api_version, kind): (&'static str, &'static str),
        object: &DynamicObject,
    ) -> Option<(Key, Self)> {
        let metadata = &object.metadata;
        let managers = metadata.managed_fields.as_deref().unwrap_or_default();
        let applied = managers.iter().any(|entry| {
            entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Apply")
        });
        let key = Key { kind, namespace: metadata.namespace.clone()?, name: metadata.name.clone()? };
        let live = Self {
            api_version,
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            applied,
            labels: metadata.labels.clone().unwrap_or_default(),
            annotations: metadata.annotations.clone().unwrap_or_default(),
            spec: if applied { object.data.get("spec").cloned().unwrap_or_default() } else { Value::Null },
        };
        Some((key, live))
    }

    fn is_labelled(&self) -> bool {
        self.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
    }

    /// As an object of a Fence, and the label of its workload, if it is ours.
    pub(crate) fn as_ours(&self, key: &Key) -> Option<(String, IstioObject)> {
        let workload = self.labels.get(WORKLOAD)?.clone();
        let object = IstioObject {
            api_version: self.api_version,
            kind: key.kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            spec: self.spec.clone(),
        };
        (self.applied && self.is_labelled()).then_some((workload, object))
    }

    /// Whether it says what it should.
    fn says(&self, wanted: &IstioObject) -> bool {
        let has = |live: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(name, value)| live.get(name) == Some(value))
        };
        self.applied
            && has(&self.labels, &wanted.labels)
            && has(&self.annotations, &wanted.annotations)
            && self.spec == wanted.spec
    }

    /// Fields of the spec that only somebody else wants, where everything that we want is there.
    fn additions(&self, wanted: &IstioObject) -> Option<Vec<String>> {
        let none = Map::new();
        let (live, wanted) = (self.spec.as_object()?, wanted.spec.as_object().unwrap_or(&none));
        let is_there = wanted.iter().all(|(name, value)| live.get(name) == Some(value));
        is_there.then(|| live.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect())
    }
}

/// What has to be done.
pub(crate) fn changes(live: &BTreeMap<Key, Live>, desired: &Desired) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, wanted) in desired {
        match live.get(key) {
            Some(there) if there.says(wanted) => {}
            Some(there) => match there.additions(wanted).filter(|fields| there.applied && !fields.is_empty())
            {
                Some(fields) => {
                    let version = there.version.clone();
                    changes.push(Change::Strip { key: key.clone(), fields, version });
                }
                None => changes.push(Change::Apply(wanted.clone())),
            },
            None => changes.push(Change::Apply(wanted.clone())),
        }
    }
    // What is applied comes first: a policy that takes another's place is there before that one goes.
    for (key, there) in live {
        // A copy that somebody made has our labels, and may have our manager; it has another name.
        let is_ours = there.applied && there.is_labelled() && key.name.starts_with("tidegate-");
        if is_ours && !desired.contains_key(key) {
            let (uid, version) = (there.uid.clone(), there.version.clone());
            changes.push(Change::Delete { key: key.clone(), uid, version });
        }
    }
    changes
}

// === impl Unwritten ===

impl Unwritten {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Conflict(why) | Self::Failed(why) => why,
        }
    }
}

// === impl Change ===

impl Change {
    /// What was done.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Apply(_) => "applied",
            Self::Strip { .. } => "taken away what was added",
            Self::Delete { .. } => "deleted",
        }
    }

    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Apply(object) => Key::of(object),
            Self::Strip { key, .. } | Self::Delete { key, .. } => key.clone(),
        }
    }

    /// Makes the change. `live`: what is there, if anything.
    pub(crate) async fn make(&self, client: &Client, live: Option<&Live>) -> Result<(), Unwritten> {
        let key = self.key();
        let Some(api) = api(client, &key) else {
            return Err(Unwritten::Failed(format!("{key} is of a kind that is not written")));
        };
        let failed = |error: kube::Error| match error {
            kube::Error::Api(status) if status.code == 404 => {
                let what = format!("{key}: the namespace, or the kind, is not there: {}", status.message);
                Unwritten::Failed(what)
            }
            kube::Error::Api(status) => Unwritten::Failed(format!("{key}: {}", status.message)),
            error => Unwritten::Failed(format!("{key}: {error}")),
        };
        match self {
            Self::Apply(object) => {
                if live.is_some_and(|live| !live.applied) {
                    let why = "it was made by somebody else; rename or delete it";
                    return Err(Unwritten::Conflict(format!("{key} is not ours: {why}")));
                }
                let body = object.to_json();
                let apply = async |how: &PatchParams| api.patch(&key.name, how, &Patch::Apply(&body)).await;
                let how = PatchParams::apply(MANAGER);
                match apply(&how).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.code == 409 => {
                        let causes = status.details.as_ref().map(|details| details.causes.as_slice());
                        let others: Vec<&str> = causes
                            .unwrap_or_default()
                            .iter()
                            // An edit names the version that it was made with; an apply does not.
                            .filter(|cause| !cause.message.contains("\" using "))
                            .map(|cause| cause.message.as_str())
                            .collect();
                        if live.is_some() && !causes.unwrap_or_default().is_empty() && others.is_empty() {
                            return apply(&how.force()).await.map(|_| ()).map_err(failed);
                        }
                        let why = if others.is_empty() { status.message.clone() } else { others.join(", ") };
                        Err(Unwritten::Conflict(format!(
                            "{key}: {why}; stop the other one, or rename its object"
                        )))
                    }
                    Err(error) => Err(failed(error)),
                }
            }
            Self::Strip { fields, version, .. } => {
                let nulls: Map<String, Value> =
                    fields.iter().map(|field| (field.clone(), Value::Null)).collect();
                let body = json!({"metadata": {"resourceVersion": version}, "spec": nulls});
                let how = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                api.patch(&key.name, &how, &Patch::Merge(&body)).await.map(|_| ()).map_err(failed)
            }
            Self::Delete { uid, version, .. } => {
                let preconditions =
                    Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
                let how = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(&key.name, &how).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }
}

/// How a kind is addressed.
pub(crate) fn resource(kind: &str) -> Option<ApiResource> {
    let (api_version, kind, plural) = KINDS.into_iter().find(|(_, known, _)| *known == kind)?;
    let (group, version) = api_version.split_once('/')?;
    Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural))
}

fn api(client: &Client, key: &Key) -> Option<Api<DynamicObject>> {
    Some(Api::namespaced_with(client.clone(), &key.namespace, &resource(key.kind)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(spec: Value) -> IstioObject {
        let labels = [(MANAGED_BY, MANAGER), (WORKLOAD, "orders")];
        IstioObject {
            api_version: KINDS[0].0,
            kind: KINDS[0].1,
            namespace: "sales".into(),
            name: "tidegate-orders".into(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            annotations: BTreeMap::new(),
            spec,
        }
    }

    fn live(spec: Value, manager: &str, operation: &str, labels: Value) -> BTreeMap<Key, Live> {
        let object = json!({
            "apiVersion": KINDS[0].0,
            "kind": KINDS[0].1,
            "metadata": {
                "namespace": "sales", "name": "tidegate-orders", "uid": "u", "resourceVersion": "7",
                "labels": labels,
                "managedFields": [{"manager": manager, "operation": operation}],
            },
            "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        BTreeMap::from([Live::new((KINDS[0].0, KINDS[0].1), &object).unwrap()])
    }

    fn ours() -> Value {
        json!({MANAGED_BY: MANAGER, WORKLOAD: "orders"})
    }

    #[test]
    fn only_what_differs_is_written() {
        let object = wanted(json!({"action": "ALLOW", "rules": []}));
        let desired = Desired::from([(Key::of(&object), object.clone())]);
        let there = |spec| live(spec, MANAGER, "Apply", ours());
        assert_eq!(changes(&there(object.spec.clone()), &desired), []);
        assert_eq!(changes(&BTreeMap::new(), &desired), [Change::Apply(object.clone())]);
        assert_eq!(
            changes(&there(json!({"action": "DENY", "rules": []})), &desired),
            [Change::Apply(object.clone())]
        );
        let without_label = live(object.spec.clone(), MANAGER, "Apply", json!({}));
        assert_eq!(changes(&without_label, &desired), [Change::Apply(object)]);
    }

    #[test]
    fn what_somebody_added_is_taken_away() {
        let object = wanted(json!({"action": "ALLOW"}));
        let desired = Desired::from([(Key::of(&object), object)]);
        let added = live(json!({"action": "ALLOW", "selector": {}}), MANAGER, "Apply", ours());
        assert!(
            matches!(&changes(&added, &desired)[..], [Change::Strip { fields, .. }] if *fields == ["selector"])
        );
    }

    #[test]
    fn only_objects_of_ours_are_deleted() {
        let nothing = Desired::new();
        let spec = json!({"action": "ALLOW"});
        let count = |live| changes(&live, &nothing).len();
        assert_eq!(count(live(spec.clone(), MANAGER, "Apply", ours())), 1);
        assert_eq!(count(live(spec.clone(), "kubectl", "Apply", ours())), 0, "a copy that somebody made");
        assert_eq!(count(live(spec.clone(), MANAGER, "Update", ours())), 0);
        assert_eq!(count(live(spec, MANAGER, "Apply", json!({}))), 0);
    }
}
