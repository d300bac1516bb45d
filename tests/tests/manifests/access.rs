//! Who may do what: the control plane at the API server, and others at the control plane.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::kube::{FencePlan, LeaseOptions, cluster_rules, crds, lease_rules};
use tidegate::serve::{Options, RuleSource};
use tidegate_compiler::fence::IstioVersion;

use crate::real::{RealApi, client};
use crate::{documents, objects, of_kind, root, texts};

/// What the files of the base that are made from the program have to say.
fn made() -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let labels = json!({"app.kubernetes.io/name": "tidegate", "app.kubernetes.io/part-of": "tidegate"});
    let role = |cluster: &str, rules: Vec<Value>| -> Vec<Value> {
        let mut metadata = json!({"name": "tidegate", "labels": labels});
        if cluster.is_empty() {
            metadata["namespace"] = "tidegate-system".into();
        }
        let (role, binding) = (format!("{cluster}Role"), format!("{cluster}RoleBinding"));
        let api = "rbac.authorization.k8s.io";
        let subject = json!({"kind": "ServiceAccount", "name": "tidegate", "namespace": "tidegate-system"});
        vec![
            json!({"apiVersion": format!("{api}/v1"), "kind": role, "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": format!("{api}/v1"), "kind": binding, "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": role, "name": "tidegate"}, "subjects": [subject],
            }),
        ]
    };
    vec![
        (
            "crds.yaml",
            "# What `tidegate crds` prints. A test compares them, and writes this file anew with TIDEGATE_BLESS=1.\n",
            crds(),
        ),
        (
            "cluster-role.yaml",
            "# Every verb that `tidegate serve --kube` uses, and no other: it reads who is in the mesh and rules, and keeps the state of rules\n\
             # and its own Istio objects. A test compares this with the program, and writes this file anew with TIDEGATE_BLESS=1.\n",
            role("Cluster", cluster_rules()),
        ),
        (
            "role.yaml",
            "# Which replica writes, and what people revoked, for all of them. A test compares this with the program, and writes this file anew with TIDEGATE_BLESS=1.\n",
            role("", lease_rules()),
        ),
    ]
}

#[test]
fn kinds_and_roles_are_those_of_the_program() {
    for (name, head, wanted) in made() {
        let path = root().join("base").join(name);
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            let text = tidegate::install::to_yaml(&wanted).unwrap();
            std::fs::write(&path, format!("{head}{text}")).unwrap();
        }
        assert_eq!(documents(&path), wanted, "{name}: TIDEGATE_BLESS=1 writes it anew");
    }
}

#[test]
fn roles_name_what_they_grant() {
    let objects = objects();
    let roles: Vec<&Value> = [of_kind(&objects, "ClusterRole"), of_kind(&objects, "Role")].concat();
    assert_eq!(roles.len(), 3);
    for role in roles {
        for rule in role["rules"].as_array().unwrap() {
            for field in ["apiGroups", "resources", "verbs"] {
                let texts = texts(&rule[field]);
                assert!(!texts.is_empty(), "{rule}");
                assert!(texts.iter().all(|text| !text.contains('*')), "a star: {rule}");
            }
            let resources = texts(&rule["resources"]);
            for powerful in [
                "secrets",
                "configmaps",
                "roles",
                "clusterroles",
                "rolebindings",
                "clusterrolebindings",
                "pods/exec",
                "serviceaccounts/token",
            ] {
                assert!(!resources.contains(powerful), "{rule}");
            }
            for verb in texts(&rule["verbs"]) {
                let known = ["get", "list", "watch", "create", "update", "patch", "delete"];
                assert!(known.contains(&verb.as_str()), "{rule}");
            }
            if rule["apiGroups"] == json!([""]) {
                assert_eq!(rule["verbs"], json!(["list", "watch"]), "core objects are only read: {rule}");
            }
        }
    }
}

fn resource(object: &Value) -> ApiResource {
    let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let lower = kind.to_lowercase();
    let plural = lower.strip_suffix('y').map_or_else(|| format!("{lower}s"), |stem| format!("{stem}ies"));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

fn api(client: &kube::Client, object: &Value) -> Api<DynamicObject> {
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource(object)),
        None => Api::all_with(client.clone(), &resource(object)),
    }
}

pub(crate) async fn apply(client: &kube::Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let since = Instant::now();
    loop {
        let how = PatchParams::apply("kubectl").force();
        match api(client, object).patch(name, &how, &Patch::Apply(object)).await {
            Ok(_) => return,
            // A kind, or its namespace, takes a moment.
            Err(kube::Error::Api(status))
                if status.code == 404 && since.elapsed() < Duration::from_secs(20) =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{object:#}: {error}"),
        }
    }
}

/// One API server at a time: it takes ports that are free, and this machine's whole attention.
pub(crate) static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A kubeconfig for an account instead of the administrator, with the groups that accounts are in.
pub(crate) fn as_account(kubeconfig: &str, namespace: &str, name: &str) -> String {
    let account = format!(
        "{{token: test-admin, as: \"system:serviceaccount:{namespace}:{name}\", as-groups: [\"system:serviceaccounts\", \"system:authenticated\"]}}"
    );
    let changed = kubeconfig.replace("{token: test-admin}", &account);
    assert_ne!(changed, kubeconfig);
    changed
}

/// The base, but for what needs kinds of Istio.
fn base() -> Vec<Value> {
    let all = tidegate::install::objects(&tidegate::install::Settings::default()).unwrap();
    all.into_iter().filter(|object| !object["apiVersion"].as_str().unwrap().contains("istio.io")).collect()
}

/// The command line of the Deployment, under its account, with its roles: everything is read and written, and nothing that was
/// asked for was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_are_enough_on_a_real_api_server() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else {
        return println!("SKIPPED: roles on a real API server: KUBEBUILDER_ASSETS is not set");
    };
    let _turn = TURN.lock().await;
    let real = RealApi::start(assets.as_ref()).await;
    let admin = client(&real.kubeconfig).await;
    for object in base() {
        apply(&admin, &object).await;
    }
    for (group, kind, plural) in [
        ("security.istio.io", "AuthorizationPolicy", "authorizationpolicies"),
        ("security.istio.io", "RequestAuthentication", "requestauthentications"),
    ] {
        apply(&admin, &definition(group, kind, plural)).await;
    }
    for namespace in ["sales", "etl"] {
        apply(&admin, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
            .await;
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "sales", "name": "orders", "labels": {"app": "orders"}},
        "spec": {
            "serviceAccountName": "orders", "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "proxy"}],
        },
    });
    let ours = |kind: &str, name: &str, spec: Value| {
        let metadata = json!({"namespace": "sales", "name": name});
        json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let guard = ours("Guard", "all", json!({"mode": "Enforce", "audience": "https://orders.sales.example"}));
    let rule = ours(
        "AccessRule",
        "etl",
        json!({
            "owner": "team", "target": {"selector": {"matchLabels": {"app": "orders"}}}, "effect": "Allow", "mode": "Enforce",
            "from": [{"peer": {"namespace": "etl"}}], "to": [{"http": {"methods": ["POST"], "paths": ["/v1"]}}],
        }),
    );
    let bad = ours("AccessRule", "bad", json!({"owner": "team", "nonsense": true}));
    for object in [&pod, &guard, &rule] {
        apply(&admin, object).await;
    }
    // New kinds take a moment.
    for kind in ["AuthorizationPolicy", "RequestAuthentication"] {
        let all = json!({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {}});
        until(kind, async || api(&admin, &all).list(&Default::default()).await.is_ok()).await;
    }

    // As the pod does it: its account, and nothing of the administrator's.
    let folder = tempfile::tempdir().unwrap();
    let as_account = as_account(&real.kubeconfig, "tidegate-system", "tidegate");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, &as_account).unwrap();
    let asked = client(&as_account).await;
    let secrets: Api<DynamicObject> = Api::all_with(
        asked,
        &ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets"),
    );
    let refused = secrets.list(&Default::default()).await;
    assert!(
        matches!(refused, Err(kube::Error::Api(status)) if status.code == 403),
        "it is not the administrator"
    );
    let running = tidegate::serve::start(options(folder.path(), kubeconfig)).await.unwrap();
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "sales", "name": "tidegate-orders"},
    });
    let event =
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": "sales"}});
    let fenced = async || {
        // A kind that has just been made may not answer at first.
        let Ok(rule) = api(&admin, &rule).get("etl").await else { return false };
        let conditions = rule.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Fenced" && one["status"] == "True")
    };
    until("the rule is fenced", fenced).await;
    let is_there = async || api(&admin, &policy).get_opt("tidegate-orders").await.unwrap().is_some();
    assert!(is_there().await);
    apply(&admin, &bad).await;
    let told = async || !api(&admin, &event).list(&Default::default()).await.unwrap().items.is_empty();
    until("an event tells of the bad rule", told).await;
    api(&admin, &bad).delete("bad", &Default::default()).await.unwrap();
    // A hand edit is set right, and what nobody needs any more is deleted.
    let edit = json!({"spec": {"action": "DENY"}});
    api(&admin, &policy)
        .patch("tidegate-orders", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();
    let right =
        async || api(&admin, &policy).get("tidegate-orders").await.unwrap().data["spec"]["action"] == "ALLOW";
    until("the policy is right again", right).await;
    api(&admin, &guard).delete("all", &Default::default()).await.unwrap();
    until("the policy is gone", async || !is_there().await).await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": "tidegate-system"}});
    let held = api(&admin, &lease).get("tidegate").await.unwrap();
    // Longer than a term: it was renewed as well.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let again = api(&admin, &lease).get("tidegate").await.unwrap();
    assert_ne!(held.data["spec"]["renewTime"], again.data["spec"]["renewTime"]);
    running.shutdown().await.unwrap();
    let left = api(&admin, &lease).get("tidegate").await.unwrap();
    assert!(
        left.data["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty),
        "it is given back: {left:?}"
    );
}

pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}: not yet");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{what}: after {:?}", since.elapsed());
}

/// As the Deployment has it, but for where it listens.
fn options(folder: &Path, kubeconfig: PathBuf) -> Options {
    let loopback = "127.0.0.1:0".parse().unwrap();
    Options {
        rules: RuleSource::Cluster(tidegate::kube::Options {
            kubeconfig: Some(kubeconfig),
            trust_domain: "prod.example".into(),
            root_namespace: "istio-system".into(),
            fence: Some(FencePlan {
                istio: IstioVersion::V1_30,
                settle: Duration::from_millis(100),
                plugins: None,
            }),
            lease: LeaseOptions {
                duration: Duration::from_secs(2),
                ..LeaseOptions::new("tidegate-system", "one")
            },
            relay: None,
        }),
        candidate: None,
        state: folder.join("state"),
        secrets: None,
        listen: loopback,
        admin: loopback,
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

pub(crate) fn definition(group: &str, kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    })
}

#[test]
fn the_ports_of_the_control_plane_are_open_for_whom_they_are_meant() {
    let objects = objects();
    let policies = of_kind(&objects, "AuthorizationPolicy");
    assert_eq!(policies.len(), 3);
    for policy in policies {
        assert_eq!(policy["spec"]["action"], "ALLOW");
        for rule in policy["spec"]["rules"].as_array().unwrap() {
            assert!(rule["from"][0]["source"].as_object().is_some_and(|source| !source.is_empty()), "{rule}");
            let operation = &rule["to"][0]["operation"];
            // Without ports and a field of HTTP, a rule would be about TCP as well.
            assert!(operation["ports"].is_array() && operation["methods"].is_array(), "{rule}");
            if policy["metadata"]["name"] == "tidegate-replicas" {
                let service = include_str!("../../../proto/tidegate/v1/relay.proto");
                assert!(service.contains("service Relay {") && service.contains("rpc Follow("));
                let expected =
                    json!({"ports": ["15080"], "methods": ["POST"], "paths": ["/tidegate.v1.Relay/Follow"]});
                assert_eq!(*operation, expected);
                let own =
                    json!([{"source": {"principals": ["cluster.local/ns/tidegate-system/sa/tidegate"]}}]);
                assert_eq!(rule["from"], own, "replicas alone");
            } else if operation["ports"] == json!(["15080"]) {
                let paths = texts(&operation["paths"]);
                let service = include_str!("../../../proto/tidegate/v1/policy_distribution.proto");
                assert!(
                    service.contains("service PolicyDistribution {") && service.contains("rpc Subscribe(")
                );
                assert!(paths.contains("/tidegate.v1.PolicyDistribution/Subscribe"), "{paths:?}");
                assert!(!paths.contains("/tidegate.v1.Relay/Follow"), "{paths:?}");
                assert!(
                    paths.iter().all(|path| path.starts_with("/tidegate.v1.") && !path.contains('*')),
                    "{paths:?}"
                );
            } else {
                assert_eq!(operation["ports"], json!(["15081"]));
                assert_eq!(rule["from"], json!([{"source": {"namespaces": ["tidegate-system"]}}]));
            }
        }
    }
    let strict =
        of_kind(&objects, "PeerAuthentication").into_iter().filter(|one| one["spec"]["mtls"].is_object());
    assert!(strict.inspect(|one| assert_eq!(one["spec"]["mtls"]["mode"], "STRICT")).count() >= 2);
}
