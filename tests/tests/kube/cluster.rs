//! A cluster of either tier, and a control plane that uses it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::istio::{Attach, ModuleDigests, ModuleSource, Rollout};
use tidegate::kube::{FencePlan, LeaseOptions, PluginPlan};
use tidegate::push::RelayOptions;
use tidegate::serve::{Options, RuleSource, Running};
use tidegate_compiler::fence::IstioVersion;
use tidegate_tests::kube_api::KubeApi;
use tidegate_tests::objects;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard};

use crate::real::{RealApi, client};

/// Longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on every tier that this machine has.
macro_rules! on_every_tier {
    ($name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for cluster in crate::cluster::tiers(stringify!($name)).await {
                super::$name(cluster).await;
            }
        }
    };
}
pub(crate) use on_every_tier;

/// An API server with our kinds and some namespaces.
pub struct Cluster {
    pub fake: Option<KubeApi>,
    pub client: Client,
    pub folder: TempDir,
    /// What the control plane uses: on a real server its own account, with the roles of the manifests and no others.
    account: String,
    /// The real one is used by one test at a time.
    turn: Option<MutexGuard<'static, Option<RealApi>>>,
}

static REAL: Mutex<Option<RealApi>> = Mutex::const_new(None);

/// What tests leave behind.
const LEFT: [(&str, &str); 11] = [
    ("tidegate.dev/v1alpha1", "AccessRule"),
    ("tidegate.dev/v1alpha1", "Guard"),
    ("tidegate.dev/v1alpha1", "Caller"),
    ("tidegate.dev/v1alpha1", "TrustedIssuer"),
    ("tidegate.dev/v1alpha1", "Intervention"),
    ("v1", "Pod"),
    ("security.istio.io/v1", "AuthorizationPolicy"),
    ("security.istio.io/v1", "RequestAuthentication"),
    ("extensions.istio.io/v1alpha1", "WasmPlugin"),
    ("extensions.istio.io/v1alpha1", "TrafficExtension"),
    ("coordination.k8s.io/v1", "Lease"),
];

/// The clusters to test with.
pub async fn tiers(test: &str) -> Vec<Cluster> {
    let mut all = vec![Cluster::fake().await];
    match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(assets) => all.push(Cluster::real(assets.as_ref()).await),
        None => eprintln!("SKIPPED: {test} on a real API server: KUBEBUILDER_ASSETS is not set"),
    }
    all
}

impl Cluster {
    pub async fn fake() -> Self {
        let api = KubeApi::start().await.unwrap();
        let kubeconfig = tidegate_tests::kube_api::kubeconfig(&api.url());
        Self::at(&kubeconfig, Some(api), None).await
    }

    async fn real(assets: &Path) -> Self {
        let mut turn = REAL.lock().await;
        if turn.is_none() {
            *turn = Some(RealApi::start(assets).await);
        }
        let kubeconfig = turn.as_ref().unwrap().kubeconfig.clone();
        let mut cluster = Self::at(&kubeconfig, None, Some(turn)).await;
        cluster.account = cluster.own_account(&kubeconfig).await;
        for (api_version, kind) in LEFT {
            let example = json!({"apiVersion": api_version, "kind": kind, "metadata": {}});
            for object in cluster.api(&example).list(&Default::default()).await.unwrap() {
                let object = json!({"apiVersion": api_version, "kind": kind, "metadata": object.metadata});
                if object["metadata"]["namespace"] != "kube-system" {
                    cluster.delete(&object).await;
                }
            }
        }
        cluster
    }

    async fn at(
        kubeconfig: &str,
        fake: Option<KubeApi>,
        turn: Option<MutexGuard<'static, Option<RealApi>>>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let account = kubeconfig.to_owned();
        let cluster = Self { fake, client: client(kubeconfig).await, folder, account, turn };
        for crd in tidegate::kube::crds().into_iter().chain(istio_crds(cluster.fake.is_some())) {
            cluster.apply(crd).await;
        }
        for namespace in ["sales", "etl", "data", "ingress", "mesh-config", "tidegate-system"] {
            cluster
                .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
                .await;
        }
        // New kinds take a moment.
        for (api_version, kind) in LEFT {
            let example = json!({"apiVersion": api_version, "kind": kind, "metadata": {}});
            let since = Instant::now();
            while cluster.api(&example).list(&Default::default()).await.is_err() {
                assert!(since.elapsed() < PATIENCE, "{kind} is not served");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        cluster
    }

    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, &self.account).unwrap();
        path
    }

    /// Tells the shell of the real API server something.
    pub fn tell(&mut self, word: &str) {
        self.turn.as_mut().and_then(|turn| turn.as_mut()).unwrap().tell(word);
    }

    /// The control plane's account as the manifests make it, with a token of its own.
    async fn own_account(&self, admin: &str) -> String {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base");
        for file in ["service-account.yaml", "cluster-role.yaml", "role.yaml"] {
            let text = std::fs::read_to_string(base.join(file)).unwrap();
            for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
                self.apply(object).await;
            }
        }
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"expirationSeconds": 3600},
        });
        let request =
            http::Request::post("/api/v1/namespaces/tidegate-system/serviceaccounts/tidegate/token")
                .header("content-type", "application/json")
                .body(asked.to_string().into_bytes())
                .unwrap();
        let granted: Value = self.client.request(request).await.unwrap();
        let config = admin.replace("test-admin", granted["status"]["token"].as_str().unwrap());
        let asked = client(&config).await;
        let secrets = GroupVersionKind::gvk("", "v1", "Secret");
        let secrets: Api<DynamicObject> =
            Api::all_with(asked, &ApiResource::from_gvk_with_plural(&secrets, "secrets"));
        let refused = secrets.list(&Default::default()).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
        config
    }

    pub fn api(&self, object: &Value) -> Api<DynamicObject> {
        let api_version = object["apiVersion"].as_str().unwrap();
        let kind = object["kind"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let lower = kind.to_lowercase();
        let plural = match lower.strip_suffix('y') {
            Some(stem) if !lower.ends_with("way") => format!("{stem}ies"),
            _ => format!("{lower}s"),
        };
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        }
    }

    /// What `kubectl apply --server-side` does.
    pub async fn apply(&self, object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let how = PatchParams::apply("kubectl").force();
        let answer = self.api(&object).patch(&name, &how, &Patch::Apply(&object)).await;
        serde_json::to_value(answer.unwrap_or_else(|error| panic!("{object:#}: {error}"))).unwrap()
    }

    /// What `kubectl edit` does.
    pub async fn edit(&self, object: &Value, change: Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let how = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        self.api(object).patch(name, &how, &Patch::Merge(&change)).await.unwrap();
    }

    pub async fn delete(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api(object).delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn get(&self, object: &Value) -> Option<Value> {
        let name = object["metadata"]["name"].as_str().unwrap();
        let found = self.api(object).get_opt(name).await.unwrap();
        found.map(|found| serde_json::to_value(found).unwrap())
    }

    /// Everything of this object's kind, in all namespaces.
    pub async fn list(&self, like: &Value) -> Vec<Value> {
        let example = json!({"apiVersion": like["apiVersion"], "kind": like["kind"], "metadata": {}});
        let found = self.api(&example).list(&Default::default()).await.unwrap();
        found.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    /// Asks again until the object is as wanted; how long that took.
    pub async fn until(&self, object: &Value, is_wanted: impl Fn(&Value) -> bool) -> (Value, Duration) {
        let since = Instant::now();
        loop {
            let found = self.get(object).await.unwrap_or_default();
            if is_wanted(&found) {
                return (found, since.elapsed());
            }
            assert!(since.elapsed() < PATIENCE, "stays {found:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a condition has this status and reason.
    pub async fn condition(
        &self,
        object: &Value,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> (Value, Duration) {
        let (found, took) = self
            .until(object, |found| {
                let condition = condition(found, kind);
                condition["status"] == status
                    && condition["reason"] == reason
                    && condition["observedGeneration"] == found["metadata"]["generation"]
            })
            .await;
        (condition(&found, kind), took)
    }

    pub fn options(&self, replica: &str) -> Options {
        self.kubeconfig();
        options_in(self.folder.path(), replica)
    }

    /// The same, and it brings filters.
    pub fn options_with_plugins(&self, replica: &str, istio: IstioVersion, attach: Attach) -> Options {
        let mut options = self.options(replica);
        let source =
            ModuleSource::served("http://tidegate.tidegate-system.svc:15082", ModuleDigests::of_modules());
        if let RuleSource::Cluster(cluster) = &mut options.rules
            && let Some(fence) = &mut cluster.fence
        {
            fence.istio = istio;
            fence.plugins = Some(Box::new(PluginPlan {
                modules: Rollout::only(source.unwrap()),
                control_plane: objects::address(),
                attach,
                fips: false,
            }));
        }
        options
    }

    pub async fn serve(&self) -> Running {
        self.serve_as("one").await
    }

    /// Starts a replica and waits until it leads and offers something.
    pub async fn serve_as(&self, replica: &str) -> Running {
        self.serve_with(self.options(replica)).await
    }

    pub async fn serve_with(&self, options: Options) -> Running {
        let mut running = tidegate::serve::start(options).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
        running
    }
}

/// Of a replica with the cluster and the state of this folder.
pub fn options_in(folder: &Path, replica: &str) -> Options {
    Options {
        rules: RuleSource::Cluster(tidegate::kube::Options {
            kubeconfig: Some(folder.join("kubeconfig")),
            trust_domain: "prod.example".into(),
            root_namespace: "mesh-config".into(),
            fence: Some(FencePlan {
                istio: IstioVersion::V1_30,
                settle: Duration::from_millis(100),
                plugins: None,
            }),
            lease: LeaseOptions {
                duration: Duration::from_secs(2),
                ..LeaseOptions::new("tidegate-system", replica)
            },
            relay: Some(Box::new(RelayOptions {
                account: "spiffe://prod.example/ns/tidegate-system/sa/tidegate".parse().unwrap(),
                address: None,
                authority: None,
            })),
        }),
        secrets: None,
        candidate: None,
        state: folder.join(replica),
        listen: "127.0.0.1:0".parse().unwrap(),
        admin: "127.0.0.1:0".parse().unwrap(),
        modules: None,
        directory: None,
        directories: Default::default(),
        environment: None,
        issuer_ca: vec![],
        allow_issuer_loopback: false,
        allow_issuer_networks: vec![],
        decisions: Default::default(),
        transport: tidegate::transport::TransportOptions::insecure(),
        export: None,
    }
}

/// Status and body of a GET at the admin interface.
pub async fn admin(running: &Running, path: &str) -> (u16, String) {
    tell(running, "GET", path, &Value::Null).await
}

/// The same with another method, and JSON.
pub async fn tell(running: &Running, method: &str, path: &str, body: &Value) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(running.admin_addr).await.unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits until this holds; how long that took.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    since.elapsed()
}

/// Istio's definitions: as `TIDEGATE_ISTIO_CRDS` has them, else only as much as is needed to store objects.
fn istio_crds(is_fake: bool) -> Vec<Value> {
    if let Some(folder) = std::env::var_os("TIDEGATE_ISTIO_CRDS").filter(|_| !is_fake) {
        let mut all = Vec::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(path).unwrap();
                let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
                all.extend(
                    documents.into_iter().filter(|document| document["kind"] == "CustomResourceDefinition"),
                );
            }
        }
        return all;
    }
    tidegate_tests::controlled::istio_crds()
}

/// A condition of an object's status.
pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

/// A pod with a sidecar.
pub fn pod(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {"app": app, "pod-template-hash": "abc"},
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": format!("{app}-abc"),
                "uid": "00000000-0000-4000-8000-000000000001",
                "controller": true,
            }],
        },
        "spec": {
            "serviceAccountName": app,
            "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "proxy"}],
        },
    })
}

pub fn guard(namespace: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Guard",
        "metadata": {"namespace": namespace, "name": "all"},
        "spec": {"mode": "Enforce", "audience": "https://orders.sales.example"},
    })
}

/// A rule that lets `etl` post to one path of the workload `app`. Its owner is found in what filters get.
pub fn rule(namespace: &str, name: &str, app: &str, path: &str) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "AccessRule",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "owner": format!("owner-of-{path}"),
            "target": {"selector": {"matchLabels": {"app": app}}},
            "effect": "Allow",
            "mode": "Enforce",
            "from": [{"peer": {"namespace": "etl"}}],
            "to": [{"http": {"methods": ["POST"], "paths": [path]}}],
        },
    })
}
