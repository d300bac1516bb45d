use serde_json::{Value, json};
use tidegate_compiler::fence::{FenceOptions, Normalization, Surroundings, fence_in};
use tidegate_compiler::{Inputs, SourceFile};

use super::*;
use crate::bundle::Interlocks;
use crate::state::StateDir;

const MESH: &str = "
kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api, pod-template-hash: abc, istio.io/rev: stable}, serviceAccount: orders-api}
  - {namespace: sales, name: billing, labels: {app: billing}, serviceAccount: billing}
  - {namespace: etl, name: worker, labels: {app: worker}, serviceAccount: worker}
  - {namespace: sales, name: waypoint, labels: {gateway.networking.k8s.io/gateway-name: waypoint, gateway.istio.io/managed: istio.io-mesh-controller}, serviceAccount: waypoint}
  gateways:
  - {namespace: ingress, name: dataflow-in, labels: {istio: ingressgateway}, serviceAccount: dataflow-in}
  - {namespace: egress, name: external, labels: {istio: egressgateway, tidegate.dev/peers: mesh}, serviceAccount: external}
  - {namespace: ingress, name: api, labels: {gateway.networking.k8s.io/gateway-name: api}, serviceAccount: api}
";

fn guard(namespace: &str) -> String {
    format!(
        "---\nkind: Guard\nmetadata: {{name: g, namespace: {namespace}}}\nspec: {{mode: Enforce, audience: \"https://a.example\"}}\n"
    )
}

fn compiled(text: &str) -> Compiled {
    let sources = [SourceFile { path: "rules.yaml".into(), text: text.into() }];
    let compilation =
        tidegate_compiler::compile(&Inputs { sources: &sources, env: Default::default(), now: None });
    compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics))
}

fn all() -> String {
    format!("{MESH}{}{}{}", guard("sales"), guard("ingress"), guard("egress"))
}

fn digests() -> ModuleDigests {
    ModuleDigests { headers: "a".repeat(64), bodies: "b".repeat(64) }
}

fn options(istio: &str) -> PluginOptions {
    let source = ModuleSource::oci("registry.example/tidegate/filter", digests(), None).unwrap();
    PluginOptions {
        istio: istio.parse().unwrap(),
        modules: Rollout::only(source),
        control_plane: Address { host: "tidegate.tidegate-system.svc.cluster.local".into(), port: 15080 },
        keys: vec![TrustedKey { id: "k1".into(), public_key: "MFkw".into() }],
        attach: Attach::Guarded,
        without_filter: BTreeSet::new(),
        warm_starts: BTreeMap::new(),
        interlocks: BTreeMap::new(),
        priority: LAST,
        cold_start: None,
        fips: false,
    }
}

fn id(text: &str) -> WorkloadId {
    let (namespace, name) = text.split_once('/').unwrap();
    WorkloadId { namespace: namespace.into(), name: name.into() }
}

#[track_caller]
fn object(plugins: &Plugins, workload: &str) -> Value {
    let id = id(workload);
    let found = plugins
        .objects
        .iter()
        .find(|object| object.namespace == id.namespace && object.labels["tidegate.dev/workload"] == id.name);
    found.unwrap_or_else(|| panic!("no object for {workload}: {plugins:#?}")).to_json()
}

fn workloads(plugins: &Plugins) -> Vec<String> {
    let name =
        |object: &IstioObject| format!("{}/{}", object.namespace, object.labels["tidegate.dev/workload"]);
    plugins.objects.iter().map(name).collect()
}

#[test]
fn a_sidecar_has_a_wasm_plugin_until_1_29() {
    let object = object(&plugin_objects(&compiled(&all()), &options("1.29")), "sales/orders-api");
    assert_eq!(
        object,
        json!({
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {
                "name": "tidegate-orders-api",
                "namespace": "sales",
                "labels": {
                    "app.kubernetes.io/managed-by": "tidegate",
                    "tidegate.dev/part": "plugin",
                    "tidegate.dev/workload": "orders-api",
                },
            },
            "spec": {
                "selector": {"matchLabels": {"app": "orders-api"}},
                "match": [{"mode": "SERVER"}],
                "phase": "AUTHZ",
                "priority": i32::MIN,
                "url": format!("oci://registry.example/tidegate/filter@sha256:{}", "a".repeat(64)),
                "sha256": "a".repeat(64),
                "imagePullPolicy": "IfNotPresent",
                "type": "HTTP",
                "failStrategy": "FAIL_RELOAD",
                "pluginName": "tidegate",
                "pluginConfig": {
                    "workload": "sales/orders-api",
                    "peers": "mesh",
                    "controlPlane": {
                        "cluster": "outbound|15080||tidegate.tidegate-system.svc.cluster.local",
                        "authority": "tidegate.tidegate-system.svc.cluster.local",
                    },
                    "keys": [{"id": "k1", "publicKey": "MFkw"}],
                },
            },
        })
    );
}

#[test]
fn a_traffic_extension_says_the_same_from_1_30_on() {
    let compiled = compiled(&all());
    for workload in ["sales/orders-api", "sales/waypoint", "ingress/api", "egress/external"] {
        let plugin = object(&plugin_objects(&compiled, &options("1.29")), workload);
        let extension = object(&plugin_objects(&compiled, &options("1.30")), workload);
        assert_eq!(extension["kind"], "TrafficExtension");
        assert_eq!(extension["metadata"], plugin["metadata"]);
        let mut spec = extension["spec"].as_object().unwrap().clone();
        let wasm = spec.remove("wasm").unwrap();
        spec.extend(wasm.as_object().unwrap().clone());
        assert_eq!(Value::Object(spec), plugin["spec"], "{workload}");
    }
}

#[test]
fn every_place_has_its_form() {
    let plugins = plugin_objects(&compiled(&all()), &options("1.31"));
    let targets =
        |name: &str| json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}]);
    for (workload, selector, target, mode, peers) in [
        ("sales/billing", json!({"matchLabels": {"app": "billing"}}), Value::Null, "SERVER", "mesh"),
        ("sales/waypoint", Value::Null, targets("waypoint"), "SERVER", "waypoint"),
        ("ingress/api", Value::Null, targets("api"), "CLIENT_AND_SERVER", "none"),
        (
            "ingress/dataflow-in",
            json!({"matchLabels": {"istio": "ingressgateway"}}),
            Value::Null,
            "CLIENT_AND_SERVER",
            "none",
        ),
        (
            "egress/external",
            json!({"matchLabels": {"istio": "egressgateway", "tidegate.dev/peers": "mesh"}}),
            Value::Null,
            "CLIENT_AND_SERVER",
            "mesh",
        ),
    ] {
        let spec = &object(&plugins, workload)["spec"];
        assert_eq!(spec["selector"], selector, "{workload}");
        assert_eq!(spec["targetRefs"], target, "{workload}");
        assert_eq!(spec["match"], json!([{"mode": mode}]), "{workload}");
        assert_eq!(spec["wasm"]["pluginConfig"]["peers"], peers, "{workload}");
    }
    let codes: Vec<_> = plugins.notes.iter().map(|note| (note.workload.to_string(), note.code)).collect();
    assert_eq!(
        codes,
        [("ingress/api".into(), NoteCode::NoPeers), ("ingress/dataflow-in".into(), NoteCode::NoPeers)]
    );
}

#[test]
fn a_sidecar_says_nothing_of_peers_by_label() {
    let text = all().replace("labels: {app: billing}", "labels: {app: billing, tidegate.dev/peers: none}");
    let plugins = plugin_objects(&compiled(&text), &options("1.31"));
    assert_eq!(object(&plugins, "sales/billing")["spec"]["wasm"]["pluginConfig"]["peers"], "mesh");
}

#[test]
fn only_guarded_workloads_have_one_unless_it_is_attached_before() {
    let compiled = compiled(&format!("{MESH}{}", guard("egress")));
    let mut options = options("1.31");
    assert_eq!(workloads(&plugin_objects(&compiled, &options)), ["egress/external"]);
    options.attach = Attach::Dormant;
    let dormant = plugin_objects(&compiled, &options);
    assert_eq!(dormant.objects.len(), 7);
    options.without_filter = [id("sales/orders-api"), id("egress/external")].into();
    let fewer = workloads(&plugin_objects(&compiled, &options));
    assert_eq!(fewer.len(), 5);
    assert!(!fewer.contains(&"egress/external".to_owned()));
}

#[test]
fn system_namespaces_never_have_one() {
    let text = MESH.replace("namespace: etl,", "namespace: tidegate-system,");
    let mut options = options("1.31");
    options.attach = Attach::Dormant;
    assert!(
        !workloads(&plugin_objects(&compiled(&text), &options))
            .contains(&"tidegate-system/worker".to_owned())
    );
}

#[track_caller]
fn refused(text: &str, workload: &str, code: NoteCode, word: &str) {
    let plugins = plugin_objects(&compiled(text), &options("1.31"));
    assert!(!workloads(&plugins).contains(&workload.to_owned()), "{workload} has an object");
    let note = plugins.notes.iter().find(|note| note.workload == id(workload)).unwrap();
    assert_eq!(note.code, code);
    assert!(note.code.is_refusal() && note.message.contains(word), "{}", note.message);
}

#[test]
fn a_selector_that_reaches_others_is_not_written() {
    let also = all().replace("labels: {app: billing}", "labels: {app: orders-api, track: canary}");
    refused(&also, "sales/orders-api", NoteCode::SelectsOthers, "sales/billing");
    let plugins = plugin_objects(&compiled(&also), &options("1.31"));
    assert_eq!(
        object(&plugins, "sales/billing")["spec"]["selector"],
        json!({"matchLabels": {"app": "orders-api", "track": "canary"}}),
        "the other one can be told apart"
    );
    let none = all().replace("labels: {app: billing}, ", "");
    refused(&none, "sales/billing", NoteCode::NotSelectable, "no labels");
    let volatile = all().replace("labels: {app: billing}", "labels: {pod-template-hash: x}");
    refused(&volatile, "sales/billing", NoteCode::NotSelectable, "no labels");
    for label in ["\"app*\": x", "app: \"x*\"", &format!("app: {}", "x".repeat(64))] {
        let star = all().replace("labels: {app: billing}", &format!("labels: {{{label}}}"));
        refused(&star, "sales/billing", NoteCode::NotSelectable, "cannot be in a selector");
    }
}

#[test]
fn the_same_labels_elsewhere_are_no_matter() {
    let text = all().replace("labels: {app: worker}", "labels: {app: orders-api}");
    let plugins = plugin_objects(&compiled(&text), &options("1.31"));
    object(&plugins, "sales/orders-api");
    let waypoint = all().replace("labels: {gateway.net", "labels: {app: orders-api, gateway.net");
    let plugins = plugin_objects(&compiled(&waypoint), &options("1.31"));
    object(&plugins, "sales/orders-api");
}

#[test]
fn an_address_that_the_filter_cannot_take_is_refused() {
    let mut options = options("1.31");
    options.control_plane.host = format!("{}.svc.cluster.local", "t".repeat(50));
    let plugins = plugin_objects(&compiled(&all()), &options);
    assert_eq!(plugins.objects, []);
    assert!(plugins.notes.iter().all(|note| note.code == NoteCode::AddressTooLong));
}

#[test]
fn rules_that_read_bodies_get_the_build_that_does() {
    let rule = "---
kind: AccessRule
metadata: {name: publish, namespace: egress}
spec:
  owner: team
  target: {gateway: egress/external}
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: etl, serviceAccounts: [worker]}}]
  to: [{resources: {service: pubsub, actions: [publish], names: [\"projects/acme/topics/orders\"]}}]
";
    let plugins = plugin_objects(&compiled(&format!("{}{rule}", all())), &options("1.31"));
    assert_eq!(object(&plugins, "egress/external")["spec"]["wasm"]["sha256"], "b".repeat(64));
    assert_eq!(object(&plugins, "sales/billing")["spec"]["wasm"]["sha256"], "a".repeat(64));
}

#[test]
fn a_warm_start_has_a_budget() {
    let mut options = options("1.31");
    options.warm_starts = [
        (id("sales/billing"), vec![0; WARM_START_BUDGET]),
        (id("sales/orders-api"), vec![0; WARM_START_BUDGET + 1]),
    ]
    .into();
    let plugins = plugin_objects(&compiled(&all()), &options);
    let bundle =
        |workload: &str| object(&plugins, workload)["spec"]["wasm"]["pluginConfig"]["bundle"].clone();
    assert_eq!(bundle("sales/billing").as_str().unwrap().len(), 128 * 1024);
    assert_eq!(bundle("sales/orders-api"), Value::Null);
    let note = plugins.notes.iter().find(|note| note.workload == id("sales/orders-api")).unwrap();
    assert_eq!(note.code, NoteCode::WarmStartTooLarge);
    assert!(!note.code.is_refusal() && note.message.contains("97 KiB"), "{}", note.message);
}

#[test]
fn a_filter_is_told_its_own_interlock() {
    let mut options = options("1.31");
    options.interlocks = [(id("ingress/dataflow-in"), "secret".to_owned())].into();
    let plugins = plugin_objects(&compiled(&all()), &options);
    let interlock =
        |workload: &str| object(&plugins, workload)["spec"]["wasm"]["pluginConfig"]["interlock"].clone();
    assert_eq!(interlock("ingress/dataflow-in"), "secret");
    assert_eq!(interlock("ingress/api"), Value::Null);
}

/// Only tokens tell the callers of `ingress/dataflow-in`; everybody else needs a certificate, or no Guard is enforced.
#[test]
fn only_filters_whose_fence_demands_an_interlock_are_told_one() {
    const ISSUER: &str = "---
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: 'https://accounts.google.com', pack: google, keys: {jwksUri: 'https://www.googleapis.com/oauth2/v3/certs'}}
";
    const JOB: &str = "{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4}}";
    let tokens = |gateway: &str| format!("{{tokenOnly: {{via: [{gateway}]}}, tokens: [{JOB}]}}");
    let rule = |name: &str, target: &str, from: &str, mode: &str| {
        let (namespace, _) = target.split_once('/').unwrap();
        let kind = if namespace == "ingress" {
            format!("gateway: {target}")
        } else {
            "selector: {matchLabels: {app: orders-api}}".to_owned()
        };
        format!(
            "---\nkind: AccessRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{owner: a, target: {{{kind}}}, effect: \
             Allow, mode: {mode}, from: [{from}], to: [{{http: {{methods: [GET], paths: [/v1]}}}}]}}\n"
        )
    };
    let text = [
        all(),
        ISSUER.to_owned(),
        rule("edge", "ingress/dataflow-in", &tokens("ingress/dataflow-in"), "Enforce"),
        rule("tried", "ingress/api", &tokens("ingress/api"), "Shadow"),
        rule("inside", "sales/orders-api", "{peer: {namespace: etl}}", "Enforce"),
    ]
    .concat();
    let compiled = compiled(&text);
    let folder = tempfile::tempdir().unwrap();
    let secret = Interlocks::open(&StateDir::open(folder.path()).unwrap()).unwrap();
    let told = interlocks_of(&compiled, &secret);
    let edge = id("ingress/dataflow-in");
    assert_eq!(told, [(edge.clone(), secret.value(&edge))].into());
    // Whatever the Fence is made for, it demands no other ones.
    for istio in IstioVersion::ALL {
        for claims in [false, true] {
            let interlock_secrets = interlock_secrets(&compiled, &secret);
            let options = FenceOptions { istio, claims, interlock_secrets };
            for normalization in [Normalization::Base, Normalization::Off] {
                let around = Surroundings { normalization, ..Surroundings::default() };
                assert_eq!(interlocks(&fence_in(&compiled, &options, &around)), told, "{istio} {claims}");
            }
        }
    }
    let without = tidegate_compiler::fence::fence(&compiled, &FenceOptions::default());
    assert!(interlocks(&without).is_empty());
    let options = PluginOptions { interlocks: told, ..options("1.31") };
    for object in plugin_objects(&compiled, &options).objects {
        let has = object.to_json().to_string().contains("interlock");
        assert_eq!(has, object.name == "tidegate-dataflow-in", "{}", object.name);
    }
}

#[test]
fn nothing_ever_fails_open() {
    let compiled = compiled(&all());
    for istio in IstioVersion::ALL {
        let mut options = options("1.31");
        options.istio = istio;
        for object in plugin_objects(&compiled, &options).objects {
            let spec = object.to_json()["spec"].clone();
            let wasm = if istio.minor() >= 30 { &spec["wasm"] } else { &spec };
            assert_eq!(wasm["failStrategy"], "FAIL_RELOAD");
            assert_eq!(wasm["sha256"].as_str().unwrap().len(), 64);
            assert_eq!(spec["phase"], "AUTHZ");
            assert!(
                spec["priority"].is_i64(),
                "an absent priority would be one as well, but an unwritten one"
            );
        }
    }
}

#[test]
fn what_istio_expresses_exactly_needs_no_filter() {
    let rule = "---
kind: AccessRule
metadata: {name: exact, namespace: egress}
spec:
  owner: team
  target: {gateway: egress/external}
  effect: Deny
  mode: Enforce
  from: [{anyMesh: true}]
  to: [{http: {methods: [GET], paths: [/never]}}]
";
    let compiled = compiled(&format!("{}{rule}", all()));
    let fence = tidegate_compiler::fence::fence(&compiled, &Default::default());
    let without = without_filter(&fence);
    for (id, fence) in &fence.workloads {
        assert_eq!(without.contains(id), !fence.needs_filter, "{id}");
    }
    let options = PluginOptions { without_filter: without.clone(), ..options("1.31") };
    let plugins = plugin_objects(&compiled, &options);
    let named: BTreeSet<String> = workloads(&plugins).into_iter().collect();
    let expected: BTreeSet<String> = compiled
        .workloads
        .iter()
        .filter(|(id, policy)| policy.covered && !without.contains(id))
        .map(|(id, _)| id.to_string())
        .collect();
    assert_eq!(named, expected);
}
