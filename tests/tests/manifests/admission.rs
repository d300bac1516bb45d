//! What the API server refuses by `overlays/admission`.

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

use crate::access::{TURN, apply, as_account, definition, until};
use crate::real::{RealApi, client};
use crate::{documents, files, root};

const GROUPS: [(&str, &str, &str); 4] = [
    ("security.istio.io", "AuthorizationPolicy", "authorizationpolicies"),
    ("extensions.istio.io", "WasmPlugin", "wasmplugins"),
    ("networking.istio.io", "EnvoyFilter", "envoyfilters"),
    ("tidegate.dev", "Intervention", "interventions"),
];

fn policies() -> Vec<Value> {
    files(&root().join("overlays/admission")).iter().flat_map(|file| documents(file)).collect()
}

/// Every policy is bound, by its own name, and each of its messages says what to do.
#[test]
fn policies_are_bound_and_say_why() {
    let all = policies();
    let of = |kind: &str| -> Vec<&Value> { all.iter().filter(|one| one["kind"] == kind).collect() };
    let (policies, bindings) = (of("ValidatingAdmissionPolicy"), of("ValidatingAdmissionPolicyBinding"));
    assert_eq!((policies.len(), bindings.len()), (3, 3));
    for policy in policies {
        let name = &policy["metadata"]["name"];
        let binding = bindings.iter().find(|one| one["spec"]["policyName"] == *name).unwrap();
        assert_eq!(binding["metadata"]["name"], *name);
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        for one in policy["spec"]["validations"].as_array().unwrap() {
            let message = one["message"].as_str().unwrap();
            assert!(message.contains("tidegate") && message.len() > 80, "{message}");
        }
    }
    // What the control plane marks its own objects with.
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains(tidegate_compiler::fence::MANAGED_BY), "{text}");
}

struct Cluster {
    real: RealApi,
    admin: kube::Client,
}

impl Cluster {
    /// Creates it, as an account or the administrator; what it was refused with.
    async fn create(&self, account: Option<(&str, &str)>, object: &Value) -> Result<(), String> {
        let as_other = account.map(|(namespace, name)| as_account(&self.real.kubeconfig, namespace, name));
        let client = match &as_other {
            Some(kubeconfig) => client(kubeconfig).await,
            None => self.admin.clone(),
        };
        let created = api(&client, object)
            .create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap())
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status.message),
            Err(error) => panic!("{error}"),
        }
    }

    /// New policies take a moment: what was let through until then is another object each time.
    async fn refuses(&self, object: &Value, message: &str) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let tried = std::sync::atomic::AtomicU32::new(0);
        let refused = async || {
            let mut object = object.clone();
            let number = tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            object["metadata"]["name"] = format!("{name}-{number}").into();
            let created = self.create(None, &object).await;
            if let Err(why) = &created {
                assert!(why.contains(message), "{name}: refused with `{why}`, not `{message}`");
            }
            created.is_err()
        };
        until(&format!("{name} is refused"), refused).await;
    }
}

fn api(client: &kube::Client, object: &Value) -> Api<DynamicObject> {
    let kind = object["kind"].as_str().unwrap();
    let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap_or(("", "v1"));
    let plural = GROUPS.iter().find(|known| known.1 == kind).map_or("pods", |known| known.2);
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(client.clone(), object["metadata"]["namespace"].as_str().unwrap(), &resource)
}

fn pod(namespace: &str, name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {}, "annotations": {}},
        "spec": {"containers": [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "proxy"}]},
    });
    change(&mut pod);
    pod
}

fn istio(kind: &str, namespace: &str, name: &str, labels: Value) -> Value {
    let (group, ..) = GROUPS.iter().find(|known| known.1 == kind).unwrap();
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "spec": {},
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_refuses_what_leads_past_the_proxy() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else {
        return println!("SKIPPED: admission on a real API server: KUBEBUILDER_ASSETS is not set");
    };
    let _turn = TURN.lock().await;
    let real = RealApi::start(assets.as_ref()).await;
    let admin = client(&real.kubeconfig).await;
    for (group, kind, plural) in GROUPS {
        apply(&admin, &definition(group, kind, plural)).await;
    }
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    for one in [
        namespace("sales", json!({"tidegate.dev/guarded": "true"})),
        namespace("other", json!({})),
        namespace("tidegate-system", json!({})),
    ] {
        apply(&admin, &one).await;
    }
    for object in policies() {
        if object["kind"] != "Kustomization" {
            apply(&admin, &object).await;
        }
    }
    let cluster = Cluster { real, admin };

    let annotated = |name: &'static str, value: &'static str| {
        move |pod: &mut Value| pod["metadata"]["annotations"][name] = value.into()
    };
    // The first also waits until policies are in force.
    cluster
        .refuses(
            &pod("sales", "bare", |pod| {
                pod["spec"]["containers"].as_array_mut().unwrap().pop();
            }),
            "no container istio-proxy",
        )
        .await;
    for (name, value, message) in [
        ("sidecar.istio.io/inject", "false", "sidecar.istio.io/inject"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "8080", "excludeInboundPorts"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth1", "excludeInterfaces"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "80", "includeInboundPorts"),
        ("traffic.sidecar.istio.io/includeInboundPorts", "", "includeInboundPorts"),
        ("sidecar.istio.io/interceptionMode", "NONE", "interceptionMode"),
        ("proxy.istio.io/config", "{interceptionMode: NONE}", "interceptionMode"),
        ("inject.istio.io/templates", "grpc-agent", "inject.istio.io/templates"),
        ("sidecar.istio.io/proxyImage", "mine", "proxyImage"),
        ("sidecar.istio.io/bootstrapOverride", "mine", "bootstrapOverride"),
    ] {
        cluster.refuses(&pod("sales", "annotated", annotated(name, value)), message).await;
    }
    cluster
        .refuses(
            &pod("sales", "labelled", |pod| {
                pod["metadata"]["labels"]["sidecar.istio.io/inject"] = "false".into()
            }),
            "inject",
        )
        .await;
    cluster
        .refuses(&pod("sales", "host", |pod| pod["spec"]["hostNetwork"] = true.into()), "hostNetwork")
        .await;
    cluster.refuses(&istio("EnvoyFilter", "sales", "mine", json!({})), "EnvoyFilter").await;
    let own = json!({tidegate_compiler::fence::MANAGED_BY: "tidegate"});
    for kind in ["AuthorizationPolicy", "WasmPlugin", "Intervention"] {
        cluster
            .refuses(&istio(kind, "other", "copied", own.clone()), "written by Tidegate's control plane")
            .await;
    }

    // And nothing else.
    for object in [
        pod("sales", "plain", |_| {}),
        pod("sales", "without-metadata", |pod| {
            pod["metadata"] = json!({"namespace": "sales", "name": "without-metadata"});
        }),
        pod("sales", "native", |pod| {
            pod["spec"]["initContainers"] = json!([pod["spec"]["containers"].as_array_mut().unwrap().pop()]);
        }),
        pod("sales", "usual", |pod| {
            pod["metadata"]["annotations"] = json!({
                "traffic.sidecar.istio.io/excludeInboundPorts": "",
                "traffic.sidecar.istio.io/includeInboundPorts": "*",
                "sidecar.istio.io/interceptionMode": "REDIRECT",
                "inject.istio.io/templates": "sidecar, ours",
            });
        }),
        pod("other", "free", |pod| pod["spec"]["hostNetwork"] = true.into()),
        istio("EnvoyFilter", "other", "theirs", json!({})),
        istio("AuthorizationPolicy", "sales", "theirs", json!({"app.kubernetes.io/managed-by": "Helm"})),
        istio("AuthorizationPolicy", "sales", "unlabelled", json!({})),
    ] {
        assert_eq!(cluster.create(None, &object).await, Ok(()), "{object}");
    }

    // The control plane writes, others neither change nor delete.
    for role in ["cluster-role.yaml", "service-account.yaml"] {
        for object in documents(&root().join("base").join(role)) {
            apply(&cluster.admin, &object).await;
        }
    }
    let ours = istio("AuthorizationPolicy", "sales", "ours", own);
    let created = async || cluster.create(Some(("tidegate-system", "tidegate")), &ours).await.is_ok();
    until("the control plane writes", created).await;
    let policies = api(&cluster.admin, &ours);
    let deleted = policies.delete("ours", &Default::default()).await.unwrap_err();
    assert!(deleted.to_string().contains("written by Tidegate's control plane"), "{deleted}");
    for change in [json!({"metadata": {"labels": null}}), json!({"spec": {"action": "DENY"}})] {
        let changed = policies.patch("ours", &Default::default(), &kube::api::Patch::Merge(&change)).await;
        let refused = changed.unwrap_err();
        assert!(refused.to_string().contains("written by Tidegate's control plane"), "{refused}");
    }
}
