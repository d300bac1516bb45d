//! What the cluster holds, as far as it concerns us: kept by the watches, read by everybody else.
//!
//! INVARIANT: a list replaces everything that was known of its kind at once, so nobody sees half of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use serde_json::{Value, json};
use tidegate_compiler::fence::IstioVersion;
use tidegate_compiler::{Kind, WorkloadId, spec};
use tokio::sync::watch;

use super::crds::KINDS;
use super::owned::{self, AUTHENTICATION, EXTENSION, Lives, PLUGIN};
use super::owned::{Key, Live};
use super::pods::{self, Pod, Workloads};
use crate::decisions::clean;
use crate::decisions::rules::{Authors, Written};
use crate::rules::{Files, ObjectPath};

/// The commit that changed an object last, and who wrote it: what brings objects here writes that.
const COMMIT: &str = "tidegate.dev/commit";
const AUTHOR: &str = "tidegate.dev/author";
/// Longest of them, in bytes.
const MAX_COMMIT: usize = 64;
const MAX_AUTHOR: usize = 128;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Watched {
    /// Objects of one of our kinds.
    Rules(Kind),
    /// Pods.
    Pods,
    /// Namespaces.
    Namespaces,
    /// Objects of Istio, of one of [`owned::KINDS`].
    Istio(&'static str),
}

/// One of our objects.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RuleObject {
    /// What it says, as a file of rules.
    pub(crate) text: Arc<str>,
    /// Who wrote that, as the object says.
    pub(crate) commit: Option<String>,
    pub(crate) author: Option<String>,
    pub(crate) uid: String,
    pub(crate) generation: i64,
    /// What is written there now.
    pub(crate) status: Value,
}

/// What is remembered of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Namespace {
    /// Whether it is being deleted: nothing can be created in it.
    pub(crate) is_ending: bool,
    /// Whether Istio is told to put no proxies into its pods.
    pub(crate) is_opted_out: bool,
}

/// The cluster as it was last told.
#[derive(Debug, Default)]
pub(crate) struct Index {
    state: Mutex<State>,
    /// Announces that rules or pods are others.
    inputs: watch::Sender<()>,
    /// Announces that rules, their statuses or pods are others.
    objects: watch::Sender<()>,
    /// Announces that objects of Istio, or namespaces, are others.
    policies: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    rules: BTreeMap<Kind, BTreeMap<String, Arc<RuleObject>>>,
    pods: BTreeMap<(String, String), Pod>,
    /// Of every pod, until pods are others.
    workloads: Option<BTreeMap<(String, String), WorkloadId>>,
    namespaces: BTreeMap<String, Namespace>,
    istio: Lives,
    listed: BTreeSet<Watched>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    /// An object of Istio.
    Policies,
    /// A status.
    Statuses,
    /// What policies and statuses depend on, and rules do not.
    Surroundings,
    /// Rules or pods.
    Inputs,
}

// === impl Watched ===

impl Watched {
    /// What must be listed before anything is judged.
    pub(crate) fn inputs() -> impl Iterator<Item = Self> {
        KINDS.into_iter().map(Self::Rules).chain([Self::Pods, Self::Namespaces])
    }

    /// The kinds of the Fence.
    pub(crate) fn fence() -> impl Iterator<Item = Self> {
        let kinds = owned::KINDS.into_iter().map(|(_, kind, _)| kind);
        kinds.filter(|kind| !matches!(*kind, PLUGIN | EXTENSION)).map(Self::Istio)
    }

    /// The kinds that bring filters: the one that is written, and the one of Istio before an upgrade.
    pub(crate) fn plugins(istio: IstioVersion) -> impl Iterator<Item = Self> {
        [PLUGIN, EXTENSION].into_iter().take(if istio.minor() >= 30 { 2 } else { 1 }).map(Self::Istio)
    }
}

// === impl RuleObject ===

impl RuleObject {
    /// An object as a file: its path, and what it says without what the cluster adds.
    fn new(kind: Kind, object: &DynamicObject) -> Option<(String, Arc<Self>)> {
        let metadata = &object.metadata;
        let name = metadata.name.clone()?;
        let namespace = metadata.namespace.clone().filter(|_| kind.is_namespaced());
        let mut file = json!({
            "apiVersion": spec::API_VERSION,
            "kind": kind.as_str(),
            "metadata": {"name": name},
        });
        if let Some(namespace) = &namespace {
            file["metadata"]["namespace"] = json!(namespace);
        }
        if let Some(spec) = object.data.get("spec") {
            file["spec"] = spec.clone();
        }
        let annotation = |name: &str, most: usize| {
            let text = clean::text(metadata.annotations.as_ref()?.get(name)?, most);
            Some(text).filter(|text| !text.is_empty())
        };
        let found = Self {
            text: file.to_string().into(),
            commit: annotation(COMMIT, MAX_COMMIT),
            author: annotation(AUTHOR, MAX_AUTHOR),
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            status: object.data.get("status").cloned().unwrap_or_default(),
        };
        Some((ObjectPath { kind, namespace, name }.to_string(), Arc::new(found)))
    }

    /// The conditions that are written there now.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Value> {
        self.status.get("conditions").and_then(Value::as_array).into_iter().flatten()
    }
}

// === impl Index ===

impl Index {
    /// A kind was listed: this is all there is.
    pub(crate) fn replace(&self, watched: Watched, objects: Vec<DynamicObject>) {
        self.change(|state| {
            let is_first = state.listed.insert(watched);
            let changed = match watched {
                Watched::Rules(kind) => {
                    let all = objects.iter().filter_map(|object| RuleObject::new(kind, object)).collect();
                    let before = state.rules.insert(kind, all).unwrap_or_default();
                    let now = state.rules.get(&kind).into_iter().flatten();
                    let texts =
                        |(path, object): (&String, &Arc<RuleObject>)| (path.clone(), object.text.clone());
                    if before.iter().map(texts).eq(now.map(texts)) {
                        Change::Statuses
                    } else {
                        Change::Inputs
                    }
                }
                Watched::Pods => {
                    let all = objects.iter().filter_map(keyed_pod).collect();
                    let before = std::mem::replace(&mut state.pods, all);
                    if before == state.pods { Change::Statuses } else { Change::Inputs }
                }
                Watched::Namespaces => {
                    let all = objects.iter().filter_map(named_namespace).collect();
                    let before = std::mem::replace(&mut state.namespaces, all);
                    if before == state.namespaces { Change::Nothing } else { Change::Surroundings }
                }
                Watched::Istio(kind) => {
                    state.istio.retain(|key, _| key.kind != kind);
                    state.istio.extend(objects.iter().filter_map(|object| keyed_istio(kind, object)));
                    return of_istio(kind);
                }
            };
            if is_first { Change::Inputs } else { changed }
        });
    }

    /// An object is there, or is another one now.
    pub(crate) fn apply(&self, watched: Watched, object: &DynamicObject) {
        self.change(|state| match watched {
            Watched::Rules(kind) => {
                let Some((path, object)) = RuleObject::new(kind, object) else { return Change::Nothing };
                let text = object.text.clone();
                let before = state.rules.entry(kind).or_default().insert(path, object);
                if before.is_some_and(|before| before.text == text) {
                    Change::Statuses
                } else {
                    Change::Inputs
                }
            }
            Watched::Pods => {
                let Some((key, pod)) = keyed_pod(object) else { return Change::Nothing };
                if state.pods.get(&key) == Some(&pod) {
                    return Change::Nothing;
                }
                state.pods.insert(key, pod);
                Change::Inputs
            }
            Watched::Namespaces => {
                let Some((name, namespace)) = named_namespace(object) else { return Change::Nothing };
                let before = state.namespaces.insert(name, namespace.clone());
                if before == Some(namespace) { Change::Nothing } else { Change::Surroundings }
            }
            Watched::Istio(kind) => {
                let Some((key, live)) = keyed_istio(kind, object) else { return Change::Nothing };
                if state.istio.get(&key) == Some(&live) {
                    return Change::Nothing;
                }
                state.istio.insert(key, live);
                of_istio(kind)
            }
        });
    }

    /// An object is gone.
    pub(crate) fn delete(&self, watched: Watched, object: &DynamicObject) {
        self.change(|state| {
            let was_known = match watched {
                Watched::Rules(kind) => RuleObject::new(kind, object)
                    .and_then(|(path, _)| state.rules.entry(kind).or_default().remove(&path))
                    .is_some(),
                Watched::Pods => keyed_pod(object).and_then(|(key, _)| state.pods.remove(&key)).is_some(),
                Watched::Namespaces => {
                    let known = object.metadata.name.as_ref().and_then(|name| state.namespaces.remove(name));
                    return if known.is_some() { Change::Surroundings } else { Change::Nothing };
                }
                Watched::Istio(kind) => {
                    let known = keyed_istio(kind, object).and_then(|(key, _)| state.istio.remove(&key));
                    return if known.is_some() { of_istio(kind) } else { Change::Nothing };
                }
            };
            if was_known { Change::Inputs } else { Change::Nothing }
        });
    }

    /// Whether everything that rules are made of was listed.
    pub(crate) fn is_listed(&self) -> bool {
        let state = self.lock();
        Watched::inputs().all(|watched| state.listed.contains(&watched))
    }

    /// Whether all of these were listed.
    pub(crate) fn are_listed(&self, mut some: impl Iterator<Item = Watched>) -> bool {
        let state = self.lock();
        some.all(|watched| state.listed.contains(&watched))
    }

    /// Objects of the kinds that are written, also those of others.
    pub(crate) fn owned(&self) -> Lives {
        self.lock().istio.clone()
    }

    /// Every namespace.
    pub(crate) fn namespaces(&self) -> BTreeMap<String, Namespace> {
        self.lock().namespaces.clone()
    }

    /// What was not listed yet.
    pub(crate) fn missing(&self) -> Vec<Watched> {
        let state = self.lock();
        Watched::inputs().filter(|watched| !state.listed.contains(watched)).collect()
    }

    /// Every rule as a file.
    pub(crate) fn files(&self) -> Files {
        let state = self.lock();
        let all = state.rules.values().flatten();
        all.map(|(path, object)| (path.clone(), object.text.to_string())).collect()
    }

    /// Every rule.
    pub(crate) fn rules(&self) -> Vec<(String, Arc<RuleObject>)> {
        let state = self.lock();
        let all = state.rules.values().flatten();
        all.map(|(path, object)| (path.clone(), object.clone())).collect()
    }

    /// The workloads that have pods.
    pub(crate) fn workloads(&self) -> Workloads {
        pods::workloads(self.lock().pods.values())
    }

    /// The workload and the service account of a pod, if there is one; `None`: nothing is known of pods.
    pub(crate) fn workload_of(&self, namespace: &str, pod: &str) -> Option<Option<(WorkloadId, String)>> {
        let mut state = self.lock();
        if !state.listed.contains(&Watched::Pods) {
            return None;
        }
        let State { pods, workloads, .. } = &mut *state;
        let key = (namespace.to_owned(), pod.to_owned());
        let workloads = workloads.get_or_insert_with(|| {
            let ids = pods::workload_ids(pods.values()).into_iter();
            ids.map(|((namespace, pod), id)| ((namespace.to_owned(), pod.to_owned()), id)).collect()
        });
        let found = workloads.get(&key).zip(pods.get(&key));
        Some(found.map(|(id, pod)| (id.clone(), pod.service_account.clone())))
    }

    /// Becomes changed when rules or pods are others.
    pub(crate) fn inputs(&self) -> watch::Receiver<()> {
        self.inputs.subscribe()
    }

    /// Becomes changed when rules, their statuses or pods are others.
    pub(crate) fn objects(&self) -> watch::Receiver<()> {
        self.objects.subscribe()
    }

    /// Becomes changed when objects of Istio are others.
    pub(crate) fn policies(&self) -> watch::Receiver<()> {
        self.policies.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Change) {
        let mut state = self.lock();
        let changed = change(&mut state);
        if changed == Change::Inputs {
            state.workloads = None;
        }
        drop(state);
        match changed {
            Change::Nothing => {}
            Change::Policies => self.policies.send_replace(()),
            Change::Statuses => self.objects.send_replace(()),
            Change::Surroundings => {
                self.policies.send_replace(());
                self.objects.send_replace(());
            }
            Change::Inputs => {
                self.inputs.send_replace(());
                self.objects.send_replace(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authors for Index {
    fn written(&self) -> Vec<Written> {
        let state = self.lock();
        let rules = state.rules.get(&Kind::AccessRule).into_iter().flatten();
        let written = rules.filter(|(_, object)| object.commit.is_some() || object.author.is_some());
        written
            .map(|(path, object)| Written {
                path: path.clone(),
                text: object.text.clone(),
                commit: object.commit.clone(),
                author: object.author.clone(),
            })
            .collect()
    }
}

fn keyed_pod(object: &DynamicObject) -> Option<((String, String), Pod)> {
    let metadata = &object.metadata;
    Some(((metadata.namespace.clone()?, metadata.name.clone()?), Pod::new(object)?))
}

fn keyed_istio(kind: &str, object: &DynamicObject) -> Option<(Key, Arc<Live>)> {
    let (api_version, kind, _) = owned::KINDS.into_iter().find(|(_, known, _)| *known == kind)?;
    let (key, live) = Live::new((api_version, kind), object)?;
    Some((key, Arc::new(live)))
}

/// What may take tokens away matters to statuses as well.
fn of_istio(kind: &str) -> Change {
    if kind == AUTHENTICATION { Change::Surroundings } else { Change::Policies }
}

fn named_namespace(object: &DynamicObject) -> Option<(String, Namespace)> {
    let metadata = &object.metadata;
    let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    let namespace = Namespace {
        is_ending: metadata.deletion_timestamp.is_some(),
        is_opted_out: label("istio-injection") == Some("disabled"),
    };
    Some((metadata.name.clone()?, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, name: &str, annotations: Value) -> DynamicObject {
        let metadata = json!({"name": name, "namespace": "sales", "annotations": annotations});
        serde_json::from_value(json!({"kind": kind, "metadata": metadata, "spec": {"owner": "x"}})).unwrap()
    }

    #[test]
    fn who_wrote_a_rule_is_told_as_it_says_bounded_and_cleaned_and_makes_no_other_rule() {
        let index = Index::default();
        let rules = Watched::Rules(Kind::AccessRule);
        let said = json!({"tidegate.dev/commit": "3f2a".repeat(40), "tidegate.dev/author": "Dana\u{1b}[31m"});
        index.replace(
            rules,
            vec![object("AccessRule", "plain", json!(null)), object("AccessRule", "said", said)],
        );
        index.replace(
            Watched::Rules(Kind::Guard),
            vec![object("Guard", "all", json!({"tidegate.dev/commit": "3f2a"}))],
        );
        let written = index.written();
        let [one] = written.as_slice() else { panic!("{written:?}") };
        assert_eq!(one.path, "kube/AccessRule/sales/said.yaml");
        assert_eq!(
            (one.commit.as_deref(), one.author.as_deref()),
            (Some(&*"3f2a".repeat(16)), Some("Dana\u{fffd}[31m"))
        );
        assert!(!one.text.contains("3f2a"));
        let mut inputs = index.inputs();
        inputs.borrow_and_update();
        index.apply(rules, &object("AccessRule", "said", json!({"tidegate.dev/author": ""})));
        assert!(!inputs.has_changed().unwrap(), "the rules are the same");
        assert!(index.written().is_empty());
    }
}
