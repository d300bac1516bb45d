//! Objects of Istio: what is there, what should be there, and how the one becomes the other.
//!
//! INVARIANT: only objects that carry our label *and* were applied by our field manager are changed or deleted. A field that
//! somebody edited by hand is set right; one that another controller applies is theirs, and reported.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions,
};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tidegate_compiler::fence::{IstioObject, MANAGED_BY, WORKLOAD};

use super::MANAGER;

/// The kinds that are written: API version, kind, plural. First those of the Fence, then those that bring filters.
pub(crate) const KINDS: [(&str, &str, &str); 4] = [
    ("security.istio.io/v1", "AuthorizationPolicy", "authorizationpolicies"),
    ("security.istio.io/v1", AUTHENTICATION, "requestauthentications"),
    (EXTENSIONS, PLUGIN, "wasmplugins"),
    (EXTENSIONS, EXTENSION, "trafficextensions"),
];
const EXTENSIONS: &str = "extensions.istio.io/v1alpha1";
/// Brings a filter, in every version of Istio.
pub(crate) const PLUGIN: &str = "WasmPlugin";
/// Brings a filter, from Istio 1.30 on.
pub(crate) const EXTENSION: &str = "TrafficExtension";
/// Says which tokens Istio verifies, and which it takes away.
pub(crate) const AUTHENTICATION: &str = "RequestAuthentication";

/// Kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Everything of the kinds that are written, also what is of others.
pub(crate) type Lives = BTreeMap<Key, Arc<Live>>;

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
    /// Of objects that are not ours only kept where it says what becomes of tokens.
    pub(crate) spec: Value,
}

/// What should be there.
pub(crate) type Desired = BTreeMap<Key, Arc<IstioObject>>;

/// Remembers what was found to say what it should: of thousands of objects few are others from one look to the next.
///
/// INVARIANT: both are kept, so that nothing else can be where they are in memory.
#[derive(Debug, Default)]
pub(crate) struct Agreed(Mutex<BTreeMap<Key, Pair>>);

/// What is there, and what should be.
type Pair = (Arc<Live>, Arc<IstioObject>);

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Apply(Arc<IstioObject>),
    /// Fields that somebody added to one of ours, each by its way from the spec on.
    Strip {
        key: Key,
        fields: Vec<Vec<String>>,
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

    /// Whether it is of a kind that brings filters; else it is one of the Fence.
    pub(crate) fn brings_filters(&self) -> bool {
        matches!(self.kind, PLUGIN | EXTENSION)
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
            spec: match object.data.get("spec") {
                Some(spec) if applied || kind == AUTHENTICATION => spec.clone(),
                _ => Value::Null,
            },
        };
        Some((key, live))
    }

    /// Whether we made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.applied && self.is_labelled()
    }

    fn is_labelled(&self) -> bool {
        self.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
    }

    /// The label of its workload, if it is ours.
    pub(crate) fn workload(&self) -> Option<&String> {
        self.labels.get(WORKLOAD).filter(|_| self.is_ours())
    }

    /// As an object of a Fence.
    pub(crate) fn to_object(&self, key: &Key) -> IstioObject {
        IstioObject {
            api_version: self.api_version,
            kind: key.kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            spec: self.spec.clone(),
        }
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
    fn additions(&self, wanted: &IstioObject) -> Option<Vec<Vec<String>>> {
        let mut found = Vec::new();
        collect_additions(&self.spec, &wanted.spec, &mut Vec::new(), &mut found).then_some(found)
    }
}

/// Whether everything wanted is there; collects what is there besides. Lists are one value, as for the API server.
fn collect_additions(
    live: &Value,
    wanted: &Value,
    at: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> bool {
    let (Some(there), Some(wished)) = (live.as_object(), wanted.as_object()) else { return live == wanted };
    for name in there.keys().filter(|name| !wished.contains_key(*name)) {
        found.push(at.iter().chain([name]).cloned().collect());
    }
    wished.iter().all(|(name, value)| {
        let Some(live) = there.get(name) else { return false };
        at.push(name.clone());
        let is_there = collect_additions(live, value, at, found);
        at.pop();
        is_there
    })
}

// === impl Agreed ===

impl Agreed {
    /// Whether an object that is there says what it should.
    pub(crate) fn says(&self, key: &Key, live: &Arc<Live>, wanted: &Arc<IstioObject>) -> bool {
        let mut agreed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |(there, wished): &Pair| Arc::ptr_eq(there, live) && Arc::ptr_eq(wished, wanted);
        if agreed.get(key).is_some_and(is_known) {
            return true;
        }
        let says = live.says(wanted);
        if says {
            agreed.insert(key.clone(), (Arc::clone(live), Arc::clone(wanted)));
        }
        says
    }

    /// What is not there any more is not kept.
    pub(crate) fn forget_all_but(&self, live: &Lives) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| live.contains_key(key));
    }
}

/// What has to be done.
pub(crate) fn changes(live: &Lives, desired: &Desired, agreed: &Agreed) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, wanted) in desired {
        match live.get(key) {
            Some(there) if agreed.says(key, there, wanted) => {}
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
        if there.is_ours() && key.name.starts_with("tidegate-") && !desired.contains_key(key) {
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
                let mut nulls = Value::Object(Map::new());
                for field in fields {
                    set_null(&mut nulls, field);
                }
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

/// Says in a merge patch that a field is to go.
fn set_null(patch: &mut Value, way: &[String]) {
    let (Some((first, rest)), Some(members)) = (way.split_first(), patch.as_object_mut()) else { return };
    let member = members.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    if rest.is_empty() {
        *member = Value::Null;
    } else {
        set_null(member, rest);
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
mod tests;
