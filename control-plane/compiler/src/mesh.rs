//! The inventory that rules act on: workloads, gateways, and who may target whom.
//!
//! INVARIANT: an object reaches workloads of its own namespace only, except in the root namespace, and never a workload of
//! a system namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::diagnostic::Code;
use crate::objects::Object;
use crate::place::{Findings, Place};
use crate::spec::{MeshSpec, SelectorSpec, WorkloadSpec};
use crate::syntax;

/// Namespaces that are never targets, besides those that begin with `kube-`.
const SYSTEM_NAMESPACES: [&str; 2] = ["istio-system", "tidegate-system"];

/// Namespace and name of a workload; unique in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Unique in the namespace.
    pub name: String,
}

/// The workloads that an object reaches. Many objects reach the same ones.
pub(crate) type Reach = Arc<BTreeSet<WorkloadId>>;

/// Most selectors whose reach is kept for other objects.
const MAX_KEPT: usize = 65_536;

/// What selectors reach in one mesh, found once.
#[derive(Debug, Default)]
pub(crate) struct Reaches(Mutex<HashMap<String, OfNamespace>>);

#[derive(Debug, Default)]
struct OfNamespace {
    all: Option<Reach>,
    selected: BTreeMap<BTreeMap<String, String>, Reach>,
}

/// A workload of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What selectors look at.
    pub labels: BTreeMap<String, String>,
    /// What its SPIFFE id names, where that is declared.
    pub service_account: Option<String>,
    /// Whether `via` and `target.gateway` may name it.
    pub gateway: bool,
}

/// The mesh that rules are compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Of the SPIFFE ids of its workloads.
    pub trust_domain: String,
    /// Objects of this namespace act on the whole mesh.
    pub root_namespace: String,
    /// Gateways included.
    pub workloads: BTreeMap<WorkloadId, Workload>,
}

/// Whether a namespace belongs to the mesh's own machinery.
pub fn is_system_namespace(namespace: &str) -> bool {
    SYSTEM_NAMESPACES.contains(&namespace) || namespace.starts_with("kube-")
}

/// Checks the declarations of the mesh.
pub(crate) fn check(meshes: &[Arc<Object<MeshSpec>>], findings: &mut Findings) -> Option<Mesh> {
    let object = match meshes {
        [] => return None,
        [one] => one,
        [_, others @ ..] => {
            for other in others {
                findings.add(
                    &other.source.place(),
                    Code::MeshCount,
                    "this is not the only Mesh",
                    "rules are compiled for one mesh",
                    "keep one of them",
                );
            }
            return None;
        }
    };
    let before = findings.errors();
    let root = object.source.place();
    let place = root.key("spec");
    let spec = &object.spec;
    if !syntax::is_trust_domain(&spec.trust_domain) {
        findings.add(
            &place.key("trustDomain"),
            Code::MalformedValue,
            format!("`{}` is not a trust domain", spec.trust_domain),
            "it is compared with SPIFFE ids byte for byte",
            "use lower-case letters, digits, `.`, `-` and `_`, e.g. `cluster.local`",
        );
    }
    check_label(&place.key("rootNamespace"), &spec.root_namespace, "a namespace", findings);
    let mut workloads = BTreeMap::new();
    for (field, list, gateway) in [("workloads", &spec.workloads, false), ("gateways", &spec.gateways, true)]
    {
        let Some(list) = list else { continue };
        let field = place.key(field);
        not_empty(&field, list, findings);
        for (index, workload) in list.iter().enumerate() {
            add_workload(&field.index(index), workload, gateway, &mut workloads, findings);
        }
    }
    (findings.errors() == before).then(|| Mesh {
        trust_domain: spec.trust_domain.clone(),
        root_namespace: spec.root_namespace.clone(),
        workloads,
    })
}

fn add_workload(
    place: &Place<'_>,
    spec: &WorkloadSpec,
    gateway: bool,
    workloads: &mut BTreeMap<WorkloadId, Workload>,
    findings: &mut Findings,
) {
    check_label(&place.key("namespace"), &spec.namespace, "a namespace", findings);
    if !syntax::is_object_name(&spec.name) {
        findings.add(
            &place.key("name"),
            Code::MalformedValue,
            format!("`{}` is not a name", spec.name),
            "names are DNS subdomains, as everywhere in Kubernetes",
            "use lower-case letters, digits, `-` and `.`",
        );
    }
    match &spec.service_account {
        Some(account) => check_account(&place.key("serviceAccount"), account, findings),
        None if gateway => findings.add(
            &place.key("serviceAccount"),
            Code::MissingField,
            "`serviceAccount` is missing",
            "behind a gateway, callers are told from others by the gateway's identity",
            "write the service account that the gateway runs as",
        ),
        None => {}
    }
    if let Some(labels) = &spec.labels
        && labels.is_empty()
    {
        empty_mapping(&place.key("labels"), findings);
    }
    let id = WorkloadId { namespace: spec.namespace.clone(), name: spec.name.clone() };
    let workload = Workload {
        labels: spec.labels.clone().unwrap_or_default(),
        service_account: spec.service_account.clone(),
        gateway,
    };
    if workloads.insert(id.clone(), workload).is_some() {
        findings.add(
            place,
            Code::DuplicateObject,
            format!("workload `{id}` is there twice"),
            "what it enforces would depend on the order of entries",
            "keep one of them; gateways are workloads already",
        );
    }
}

fn check_label(place: &Place<'_>, text: &str, what: &str, findings: &mut Findings) {
    if !syntax::is_label(text) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not {what}"),
            "it is compared byte for byte, and no request would have it",
            "use lower-case letters, digits and `-`",
        );
    }
}

/// A Kubernetes namespace.
pub(crate) fn check_namespace(place: &Place<'_>, text: &str, findings: &mut Findings) {
    check_label(place, text, "a namespace", findings);
}

/// A Kubernetes service account.
pub(crate) fn check_account(place: &Place<'_>, text: &str, findings: &mut Findings) {
    if !syntax::is_object_name(text) {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not a service account"),
            "it is compared byte for byte, and no request would have it",
            "write the account's name, without namespace and without patterns",
        );
    }
}

/// Refuses an empty list, which is neither "any" nor "none".
pub(crate) fn not_empty<T>(place: &Place<'_>, list: &[T], findings: &mut Findings) {
    if list.is_empty() {
        findings.add(
            place,
            Code::EmptyList,
            "the list is empty",
            "an empty list would never match; it is neither \"any\" nor a mistake to be guessed at",
            "write what should match, or remove the field for \"any\"",
        );
    }
}

fn empty_mapping(place: &Place<'_>, findings: &mut Findings) {
    findings.add(
        place,
        Code::EmptyValue,
        "nothing is written here",
        "an empty mapping is neither \"any\" nor \"none\"",
        "write what should match, or remove the field",
    );
}

/// Checks a selector.
pub(crate) fn check_selector(place: &Place<'_>, selector: &SelectorSpec, findings: &mut Findings) {
    if selector.match_labels.is_empty() {
        empty_mapping(&place.key("matchLabels"), findings);
    }
}

// === impl WorkloadId ===

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Mesh ===

impl Mesh {
    /// A declared gateway, by `namespace/name`.
    pub(crate) fn gateway(&self, namespace: &str, name: &str) -> Option<(&WorkloadId, &Workload)> {
        let id = WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() };
        self.workloads.get_key_value(&id).filter(|(_, workload)| workload.gateway)
    }

    /// The gateways, as they are written in rules.
    pub fn gateway_names(&self) -> Vec<String> {
        self.workloads.iter().filter(|(_, workload)| workload.gateway).map(|(id, _)| id.to_string()).collect()
    }

    /// The workloads that an object of this namespace reaches with this selector.
    fn reach(&self, namespace: &str, selector: Option<&SelectorSpec>) -> BTreeSet<WorkloadId> {
        let everywhere = namespace == self.root_namespace;
        // Names are not empty, so this is before every workload of the namespace.
        let first = WorkloadId {
            namespace: if everywhere { String::new() } else { namespace.to_owned() },
            name: String::new(),
        };
        self.workloads
            .range(first..)
            .take_while(|(id, _)| everywhere || id.namespace == namespace)
            .filter(|(id, _)| !is_system_namespace(&id.namespace))
            .filter(|(_, workload)| {
                selector.is_none_or(|selector| {
                    selector
                        .match_labels
                        .iter()
                        .all(|(label, value)| workload.labels.get(label) == Some(value))
                })
            })
            .map(|(id, _)| id.clone())
            .collect()
    }
}

// === impl Reaches ===

impl Reaches {
    /// The workloads of this mesh that an object of this namespace reaches with this selector.
    pub(crate) fn get(&self, mesh: &Mesh, namespace: &str, selector: Option<&SelectorSpec>) -> Reach {
        let labels = selector.map(|selector| &selector.match_labels);
        if let Some(known) = self.lock().get(namespace).and_then(|known| known.get(labels)) {
            return Arc::clone(known);
        }
        let made = Arc::new(mesh.reach(namespace, selector));
        self.lock().entry(namespace.to_owned()).or_default().put(labels, &made);
        made
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, OfNamespace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl OfNamespace ===

impl OfNamespace {
    fn get(&self, labels: Option<&BTreeMap<String, String>>) -> Option<&Reach> {
        labels.map_or(self.all.as_ref(), |labels| self.selected.get(labels))
    }

    fn put(&mut self, labels: Option<&BTreeMap<String, String>>, reach: &Reach) {
        match labels {
            None => self.all = Some(Arc::clone(reach)),
            Some(labels) if self.selected.len() < MAX_KEPT => {
                self.selected.insert(labels.clone(), Arc::clone(reach));
            }
            Some(_) => {}
        }
    }
}
