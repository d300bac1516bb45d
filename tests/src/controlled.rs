//! A cluster whose controller brings the filters of a rig, and is where its rules are.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tidegate::istio::{Attach, IstioVersion, ModuleDigests, ModuleSource, Rollout};
use tidegate::kube::{FencePlan, LeaseOptions, PluginPlan};

use crate::kube_api::{KubeApi, kubeconfig};
use crate::objects;
use crate::rig::{GATEWAY, SERVICE};

/// How long the controller may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the proxy of a rig calls its pod.
const POD: &str = "orders-api-0";

/// A cluster.
pub struct Controlled {
    /// Its API.
    pub api: KubeApi,
    istio: IstioVersion,
    /// Where the control plane is to serve the module.
    pub modules: SocketAddr,
    case: Mutex<Vec<Value>>,
}

// === impl Controlled ===

impl Controlled {
    /// Starts it with the pods of a rig and these objects; its Mesh is made from the pods.
    pub async fn start(istio: IstioVersion, base: &str) -> Result<Self> {
        let modules = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let cluster = Self { api: KubeApi::start().await?, istio, modules, case: Mutex::default() };
        for crd in tidegate::kube::crds().into_iter().chain(istio_crds()) {
            cluster.apply(&crd)?;
        }
        let namespaces = ["sales", "ingress", "data", "etl", "ops", "ci", "istio-system", "tidegate-system"];
        for name in namespaces {
            cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
        }
        for (workload, labels) in
            [(SERVICE, json!({"app": "orders-api"})), (GATEWAY, json!({"istio": "ingress"}))]
        {
            cluster.apply(&pod(workload, &labels)?)?;
        }
        for object in objects_of(base)?.iter().filter(|object| object["kind"] != "Mesh") {
            cluster.apply(object)?;
        }
        Ok(cluster)
    }

    fn apply(&self, object: &Value) -> Result<()> {
        self.api.apply(object).map(drop).map_err(|why| anyhow!("{object:#}: {why}"))
    }

    /// How a control plane uses it.
    pub fn options(&self, folder: &Path) -> Result<tidegate::kube::Options> {
        let file = folder.join("kubeconfig");
        std::fs::write(&file, kubeconfig(&self.api.url()))?;
        let source = ModuleSource::served(&format!("http://{}", self.modules), ModuleDigests::of_modules())?;
        Ok(tidegate::kube::Options {
            kubeconfig: Some(file),
            trust_domain: "prod.example".into(),
            root_namespace: "istio-system".into(),
            fence: Some(FencePlan {
                istio: self.istio,
                settle: Duration::from_millis(100),
                plugins: Some(Box::new(PluginPlan {
                    modules: Rollout::only(source),
                    control_plane: objects::address(),
                    attach: Attach::Dormant,
                    fips: false,
                })),
            }),
            lease: LeaseOptions::new("tidegate-system", "rig"),
            relay: None,
        })
    }

    /// These are the rules of the case; those of the case before go.
    pub fn replace(&self, rules: &str) -> Result<()> {
        let now = objects_of(rules)?;
        let mut case = self.case.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |object: &Value| (object["kind"].clone(), object["metadata"].clone());
        for gone in case.iter().filter(|old| !now.iter().any(|new| name(new) == name(old))) {
            self.api.delete(gone).map_err(|why| anyhow!("{gone:#}: {why}"))?;
        }
        for object in &now {
            self.apply(object)?;
        }
        *case = now;
        Ok(())
    }

    /// The object that brings a workload's filter, as it is.
    pub fn plugin(&self, workload: &str) -> Option<Value> {
        let (kind, _) = self.kind();
        self.object(kind, workload)
    }

    /// An object of ours by the workload's name.
    pub fn object(&self, resource: &str, workload: &str) -> Option<Value> {
        let (namespace, name) = workload.split_once('/')?;
        self.api.objects(resource).into_iter().find(|object| {
            object["metadata"]["namespace"] == namespace
                && object["metadata"]["name"] == format!("tidegate-{name}").as_str()
        })
    }

    fn kind(&self) -> (&'static str, bool) {
        match self.istio.minor() >= 30 {
            true => ("trafficextensions.extensions.istio.io", true),
            false => ("wasmplugins.extensions.istio.io", false),
        }
    }

    /// What the object of a workload says of module and configuration, when it says what new pods begin with.
    pub async fn wasm(&self, workload: &str) -> Result<Value> {
        let since = Instant::now();
        loop {
            let spec = self.plugin(workload).map(|object| object["spec"].clone()).unwrap_or_default();
            let wasm = if self.kind().1 { spec["wasm"].clone() } else { spec };
            if wasm["pluginConfig"]["bundle"].is_string() {
                return Ok(wasm);
            }
            ensure!(since.elapsed() < PATIENCE, "no object brings a filter to {workload}: {wasm:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A pod of the rig's proxy.
fn pod(workload: &str, labels: &Value) -> Result<Value> {
    let (namespace, name) = workload.split_once('/').context("not `namespace/name`")?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": POD,
            "labels": labels,
            "annotations": {"tidegate.dev/gateway": (workload == GATEWAY).to_string()},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "u", "controller": true}
            ],
        },
        "spec": {"serviceAccountName": name, "containers": [{"name": "app"}, {"name": "istio-proxy"}]},
    }))
}

/// The documents of a file as objects.
fn objects_of(text: &str) -> Result<Vec<Value>> {
    let mut all: Vec<Value> = serde_saphyr::from_multiple(text)?;
    for object in &mut all {
        let Some(members) = object.as_object_mut() else { bail!("not an object: {object}") };
        members.entry("apiVersion").or_insert_with(|| json!("tidegate.dev/v1alpha1"));
    }
    Ok(all)
}

/// As much of Istio's definitions as is needed to store objects.
pub fn istio_crds() -> Vec<Value> {
    [
        ("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", "v1"),
        ("security.istio.io", "RequestAuthentication", "requestauthentications", "v1"),
        ("extensions.istio.io", "WasmPlugin", "wasmplugins", "v1alpha1"),
        ("extensions.istio.io", "TrafficExtension", "trafficextensions", "v1alpha1"),
    ]
    .map(|(group, kind, plural, version)| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "names": {
                    "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List"),
                },
                "scope": "Namespaced",
                "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }}}],
            },
        })
    })
    .into()
}
