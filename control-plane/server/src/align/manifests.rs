//! ServiceAccounts and pods of Kubernetes manifests.

use std::collections::BTreeSet;

use tidegate_compiler::tree::{self, Tree};

use super::checks::Code;
use super::{Finding, ManifestFile};

/// Annotations that give an account an identity of a cloud.
pub(super) const GOOGLE: &str = "iam.gke.io/gcp-service-account";
pub(super) const AWS: &str = "eks.amazonaws.com/role-arn";
pub(super) const AZURE: &str = "azure.workload.identity/client-id";

/// The lifetime of a projected token that does not say it, in seconds: `ServiceAccountTokenProjection.expirationSeconds`.
const DEFAULT_EXPIRATION_S: u64 = 3600;

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) accounts: Vec<Account>,
    pub(super) workloads: Vec<Workload>,
    /// Namespaces of which there is anything.
    pub(super) namespaces: BTreeSet<String>,
    pub(super) unreadable: Vec<Finding>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) file: String,
    pub(super) line: u32,
}

/// A ServiceAccount.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) spot: Spot,
    /// Those that this module knows.
    pub(super) annotations: Vec<Annotation>,
    /// `automountServiceAccountToken`
    pub(super) automount: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Annotation {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) spot: Spot,
}

/// A pod, or what makes pods.
#[derive(Debug)]
pub(super) struct Workload {
    /// `Deployment etl/orders-worker`
    pub(super) object: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) spot: Spot,
    pub(super) automount: Option<bool>,
    pub(super) tokens: Vec<Projected>,
}

/// A projected token.
#[derive(Debug)]
pub(super) struct Projected {
    /// `None`: the API server's own.
    pub(super) audience: Option<String>,
    pub(super) expiration_s: u64,
    pub(super) spot: Spot,
}

/// Reads manifests. What is neither a ServiceAccount nor has pods is passed over.
pub(super) fn read(files: &[ManifestFile]) -> Seen {
    let mut seen = Seen::default();
    for file in files {
        let (documents, faults) = tree::read(&file.text, None);
        seen.unreadable.extend(faults.into_iter().map(|fault| {
            Code::Unreadable.at(
                &Spot { file: file.name.clone(), line: fault.line },
                "YAML",
                fault.message,
                "what is there is not looked at",
                "correct it, or leave the file out",
            )
        }));
        documents.iter().for_each(|document| seen.object(&file.name, document.root()));
    }
    seen
}

// === impl Seen ===

impl Seen {
    fn object(&mut self, file: &str, object: Tree<'_>) {
        let Some(kind) = object.get("kind").and_then(Tree::text) else { return };
        // `kubectl get` writes lists, of objects and of their lists.
        if kind.ends_with("List") {
            let items = object.get("items").into_iter().flat_map(Tree::items);
            return items.for_each(|item| self.object(file, item));
        }
        let text = |path: &[&str]| object.at(path).and_then(Tree::text);
        let Some(name) = text(&["metadata", "name"]).or_else(|| text(&["metadata", "generateName"])) else {
            return;
        };
        let namespace = text(&["metadata", "namespace"]).unwrap_or("default").to_owned();
        let spot = |tree: Tree<'_>| Spot { file: file.to_owned(), line: tree.line() };
        if kind == "ServiceAccount" {
            let annotation = |name: &'static str| {
                let value = object.at(&["metadata", "annotations", name])?;
                Some(Annotation { name, value: value.text()?.to_owned(), spot: spot(value) })
            };
            self.namespaces.insert(namespace.clone());
            self.accounts.push(Account {
                namespace,
                name: name.to_owned(),
                spot: spot(object),
                annotations: [GOOGLE, AWS, AZURE].into_iter().filter_map(annotation).collect(),
                automount: flag(object.get("automountServiceAccountToken")),
            });
            return;
        }
        let path: &[&str] = match kind {
            "Pod" => &["spec"],
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
                &["spec", "template", "spec"]
            }
            "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
            _ => return,
        };
        // A pod that a workload made says the same as the workload.
        let is_made =
            object.at(&["metadata", "ownerReferences"]).is_some_and(|owners| owners.items().next().is_some());
        let Some(pod) = object.at(path).filter(|_| !is_made) else { return };
        self.namespaces.insert(namespace.clone());
        let account = pod.get("serviceAccountName").or_else(|| pod.get("serviceAccount"));
        self.workloads.push(Workload {
            object: format!("{kind} {namespace}/{name}"),
            namespace,
            account: account.and_then(Tree::text).unwrap_or("default").to_owned(),
            spot: spot(account.unwrap_or(pod)),
            automount: flag(pod.get("automountServiceAccountToken")),
            tokens: projected(pod, &spot),
        });
    }
}

fn projected(pod: Tree<'_>, spot: &impl Fn(Tree<'_>) -> Spot) -> Vec<Projected> {
    let volumes = pod.get("volumes").into_iter().flat_map(Tree::items);
    let sources = volumes.filter_map(|volume| volume.at(&["projected", "sources"])).flat_map(Tree::items);
    let tokens = sources.filter_map(|source| source.get("serviceAccountToken"));
    let one = |token: Tree<'_>| {
        let seconds = token.get("expirationSeconds").and_then(Tree::text).and_then(|text| text.parse().ok());
        Projected {
            audience: token
                .get("audience")
                .and_then(Tree::text)
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
            expiration_s: seconds.unwrap_or(DEFAULT_EXPIRATION_S),
            spot: spot(token.get("audience").unwrap_or(token)),
        }
    };
    tokens.map(one).collect()
}

fn flag(value: Option<Tree<'_>>) -> Option<bool> {
    match value?.text()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
