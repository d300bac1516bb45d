//! Pods to workloads.
//!
//! A workload is what owns the pods: a Deployment (through its ReplicaSets), a StatefulSet, a DaemonSet, a CronJob or Job,
//! whatever else, or a bare pod itself. Its labels are those of its newest pod without what controllers add per pod or
//! revision.
//!
//! INVARIANT: two owners never become one workload, and what a workload is called does not depend on the order of pods.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_compiler::{WorkloadId, is_system_namespace};

/// What is written by controllers, differs between the pods of a workload, and is no property of it.
const PER_POD: [&str; 10] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/job-completion-index",
    "job-name",
];

/// The sidecar's container.
const PROXY: &str = "istio-proxy";
/// Declares a workload a gateway.
const GATEWAY_ANNOTATION: &str = "tidegate.dev/gateway";
const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// What is remembered of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    namespace: String,
    name: String,
    created: String,
    owner_kind: String,
    owner: String,
    labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
    /// Whether others reach the mesh through it, or leave it.
    gateway: bool,
    /// Whether there is a proxy in it.
    pub(crate) proxied: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    service_account_name: Option<String>,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
}

/// A workload, as its newest pod shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    labels: BTreeMap<String, String>,
    service_account: String,
    pub(crate) gateway: bool,
    /// Its pods with a proxy, by name.
    pub(crate) proxies: BTreeSet<String>,
    /// Its pods without one.
    pub(crate) bypassed: BTreeSet<String>,
}

/// All workloads of a cluster.
pub(crate) type Workloads = BTreeMap<WorkloadId, Seen>;

// === impl Seen ===

impl Seen {
    /// After the last of its pods is gone.
    pub(crate) fn without_pods(self) -> Self {
        Self { proxies: BTreeSet::new(), bypassed: BTreeSet::new(), ..self }
    }
}

// === impl Pod ===

impl Pod {
    /// What matters of a pod; `None` where it cannot be one of a workload.
    pub(crate) fn new(object: &DynamicObject) -> Option<Self> {
        let metadata = &object.metadata;
        let (namespace, name) = (metadata.namespace.clone()?, metadata.name.clone()?);
        // What the API server says is well formed; what is not has no proxy that could enforce anything.
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let spec: PodSpec = serde_json::from_value(spec).unwrap_or_default();
        let labels = metadata.labels.clone().unwrap_or_default();
        let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name));
        let is_istio =
            matches!(labels.get("istio").map(String::as_str), Some("ingressgateway" | "egressgateway"));
        let gateway = is_istio
            || labels.contains_key(GATEWAY_NAME_LABEL)
            || annotation(GATEWAY_ANNOTATION).is_some_and(|value| value == "true");
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|owner| owner.controller == Some(true));
        let (owner_kind, owner) = match controller {
            None => ("Pod".to_owned(), name.clone()),
            Some(owner) => owner_of(&owner.kind, &owner.name, labels.get("pod-template-hash")),
        };
        let has_proxy = spec.containers.iter().chain(&spec.init_containers).any(|one| one.name == PROXY);
        Some(Self {
            namespace,
            name,
            created: metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
            owner_kind,
            owner,
            labels: labels.into_iter().filter(|(key, _)| !PER_POD.contains(&key.as_str())).collect(),
            service_account: spec.service_account_name.unwrap_or_else(|| "default".to_owned()),
            gateway,
            proxied: has_proxy && !spec.host_network,
        })
    }

    /// Whether it can be a target of rules, or be named by them.
    fn counts(&self) -> bool {
        self.gateway || !is_system_namespace(&self.namespace)
    }
}

/// What stands behind the controller of a pod.
fn owner_of(kind: &str, name: &str, template: Option<&String>) -> (String, String) {
    if kind == "ReplicaSet"
        && let Some(template) = template
        && let Some(deployment) = name.strip_suffix(template.as_str()).and_then(|name| name.strip_suffix('-'))
        && !deployment.is_empty()
    {
        return ("Deployment".to_owned(), deployment.to_owned());
    }
    // `<CronJob>-<scheduled time in minutes>`.
    if kind == "Job"
        && let Some((cron_job, time)) = name.rsplit_once('-')
        && (8..=10).contains(&time.len())
        && time.bytes().all(|byte| byte.is_ascii_digit())
    {
        return ("CronJob".to_owned(), cron_job.to_owned());
    }
    (kind.to_owned(), name.to_owned())
}

/// The workload of every pod, by `(namespace, pod)`.
pub(crate) fn workload_ids<'p>(
    pods: impl IntoIterator<Item = &'p Pod>,
) -> BTreeMap<(&'p str, &'p str), WorkloadId> {
    let pods: Vec<&Pod> = pods.into_iter().filter(|pod| pod.counts()).collect();
    let mut kinds: BTreeMap<(&str, &str), BTreeSet<(bool, &str)>> = BTreeMap::new();
    for pod in &pods {
        let is_rarer = pod.owner_kind != "Deployment";
        kinds.entry((&pod.namespace, &pod.owner)).or_default().insert((is_rarer, &pod.owner_kind));
    }
    let id = |pod: &Pod| {
        let first = kinds.get(&(pod.namespace.as_str(), pod.owner.as_str())).and_then(BTreeSet::first);
        // Two owners of one name: Deployments come first, others say what they are.
        let name = match first {
            Some((_, kind)) if *kind != pod.owner_kind => {
                format!("{}.{}", pod.owner, pod.owner_kind.to_lowercase())
            }
            _ => pod.owner.clone(),
        };
        WorkloadId { namespace: pod.namespace.clone(), name }
    };
    pods.into_iter().map(|pod| ((pod.namespace.as_str(), pod.name.as_str()), id(pod))).collect()
}

/// The workloads of these pods.
pub(crate) fn workloads<'p>(pods: impl Iterator<Item = &'p Pod> + Clone) -> Workloads {
    let ids = workload_ids(pods.clone());
    let mut newest: BTreeMap<&WorkloadId, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        if let Some(id) = ids.get(&(pod.namespace.as_str(), pod.name.as_str())) {
            newest.entry(id).or_default().push(pod);
        }
    }
    newest
        .into_iter()
        .filter_map(|(id, pods)| {
            let shown = pods.iter().max_by_key(|pod| (&pod.created, &pod.name))?;
            let names = |proxied: bool| {
                pods.iter().filter(|pod| pod.proxied == proxied).map(|pod| pod.name.clone()).collect()
            };
            let seen = Seen {
                labels: shown.labels.clone(),
                service_account: shown.service_account.clone(),
                gateway: shown.gateway,
                proxies: names(true),
                bypassed: names(false),
            };
            Some((id.clone(), seen))
        })
        .collect()
}

/// The Mesh that these workloads are, as an object.
pub(crate) fn mesh(trust_domain: &str, root_namespace: &str, workloads: &Workloads) -> Value {
    let list = |gateway: bool| -> Vec<Value> {
        workloads
            .iter()
            .filter(|(_, seen)| seen.gateway == gateway)
            .map(|(id, seen)| {
                let mut workload = json!({
                    "namespace": id.namespace,
                    "name": id.name,
                    "serviceAccount": seen.service_account,
                });
                if !seen.labels.is_empty() {
                    workload["labels"] = json!(seen.labels);
                }
                workload
            })
            .collect()
    };
    let mut spec = json!({"trustDomain": trust_domain, "rootNamespace": root_namespace});
    // An empty list would never match; absent says the same and is no mistake.
    for (field, list) in [("workloads", list(false)), ("gateways", list(true))] {
        if !list.is_empty() {
            spec[field] = list.into();
        }
    }
    json!({
        "apiVersion": tidegate_compiler::spec::API_VERSION,
        "kind": "Mesh",
        "metadata": {"name": "cluster"},
        "spec": spec,
    })
}

/// The gateways of a Mesh that was made here.
pub(crate) fn gateways_of(mesh: &str) -> Workloads {
    let mesh: Value = serde_json::from_str(mesh).unwrap_or_default();
    let gateways = mesh.pointer("/spec/gateways").and_then(Value::as_array).into_iter().flatten();
    gateways
        .filter_map(|gateway| {
            let text = |field: &str| gateway.get(field)?.as_str().map(str::to_owned);
            let labels = gateway.get("labels").cloned().unwrap_or_else(|| json!({}));
            let seen = Seen {
                labels: serde_json::from_value(labels).ok()?,
                service_account: text("serviceAccount")?,
                gateway: true,
                proxies: BTreeSet::new(),
                bypassed: BTreeSet::new(),
            };
            Some((WorkloadId { namespace: text("namespace")?, name: text("name")? }, seen))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(
        namespace: &str,
        name: &str,
        created: &str,
        owner: Option<(&str, &str)>,
        labels: Value,
        spec: Value,
    ) -> Pod {
        let mut metadata = json!({
            "namespace": namespace, "name": name, "creationTimestamp": created, "labels": labels,
        });
        if let Some((kind, name)) = owner {
            metadata["ownerReferences"] =
                json!([{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
        }
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        Pod::new(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn plain(namespace: &str, name: &str, owner: Option<(&str, &str)>) -> Pod {
        pod(namespace, name, "2026-01-01T00:00:00Z", owner, json!({}), json!({}))
    }

    #[test]
    fn pods_belong_to_what_stands_behind_their_controller() {
        let hash = json!({"pod-template-hash": "7d9f", "app": "orders"});
        for (owner, labels, expected) in [
            (Some(("ReplicaSet", "orders-7d9f")), hash.clone(), "orders"),
            (Some(("ReplicaSet", "orders")), json!({}), "orders"),
            (Some(("ReplicaSet", "7d9f")), hash.clone(), "7d9f"),
            (Some(("StatefulSet", "db")), json!({}), "db"),
            (Some(("Job", "nightly-29012345")), json!({}), "nightly"),
            (Some(("Job", "import-2026")), json!({}), "import-2026"),
            (None, json!({}), "one"),
        ] {
            let pod = pod("a", "one", "2026-01-01T00:00:00Z", owner, labels, json!({}));
            let ids = workload_ids([&pod]);
            assert_eq!(ids[&("a", "one")].to_string(), format!("a/{expected}"), "{owner:?}");
        }
    }

    #[test]
    fn two_owners_of_one_name_are_two_workloads() {
        let pods = [
            plain("a", "one", Some(("StatefulSet", "orders"))),
            plain("a", "two", Some(("Deployment", "orders"))),
            plain("b", "one", Some(("StatefulSet", "orders"))),
        ];
        let names: Vec<String> = workloads(pods.iter()).keys().map(ToString::to_string).collect();
        assert_eq!(names, ["a/orders", "a/orders.statefulset", "b/orders"]);
    }

    #[test]
    fn a_workload_is_as_its_newest_pod_without_what_differs_per_pod() {
        let of = |name: &str, created: &str, version: &str, account: &str, proxy: &str| {
            let labels = json!({"pod-template-hash": version, "app": "orders", "version": version});
            let spec =
                json!({"serviceAccountName": account, "containers": [{"name": "app"}, {"name": proxy}]});
            let owner = format!("orders-{version}");
            pod("a", name, created, Some(("ReplicaSet", &owner)), labels, spec)
        };
        let pods = [
            of("new", "2026-01-02T00:00:00Z", "v2", "orders-two", PROXY),
            of("old", "2026-01-01T00:00:00Z", "v1", "orders", "other"),
        ];
        let workloads = workloads(pods.iter());
        let seen = workloads.values().next().unwrap();
        assert_eq!(workloads.len(), 1);
        assert_eq!(json!(seen.labels), json!({"app": "orders", "version": "v2"}));
        assert_eq!(seen.service_account, "orders-two");
        assert_eq!((seen.proxies.len(), seen.bypassed.len()), (1, 1));
    }

    #[test]
    fn gateways_are_declared_and_count_everywhere_and_nothing_else_of_the_system_does() {
        let gateway = |namespace: &str, labels: Value| {
            pod(namespace, "gw", "2026-01-01T00:00:00Z", Some(("Deployment", "gw")), labels, json!({}))
        };
        let pods = [
            gateway("istio-system", json!({"istio": "ingressgateway"})),
            plain("istio-system", "istiod", None),
            plain("kube-system", "dns", None),
            gateway("b", json!({GATEWAY_NAME_LABEL: "x"})),
            gateway("c", json!({"istio": "pilot"})),
        ];
        let workloads = workloads(pods.iter());
        let mesh = mesh("cluster.local", "root", &workloads);
        assert_eq!(mesh["spec"]["gateways"].as_array().unwrap().len(), 2, "{mesh}");
        assert_eq!(mesh["spec"]["workloads"].as_array().unwrap().len(), 1, "{mesh}");
        let again = gateways_of(&mesh.to_string());
        assert_eq!(
            again.keys().collect::<Vec<_>>(),
            workloads.keys().filter(|id| workloads[*id].gateway).collect::<Vec<_>>()
        );
        let sources = [tidegate_compiler::SourceFile { path: "m".into(), text: mesh.to_string() }];
        let inputs = tidegate_compiler::Inputs { sources: &sources, env: BTreeMap::new(), now: None };
        assert_eq!(tidegate_compiler::compile(&inputs).diagnostics, []);
    }
}
