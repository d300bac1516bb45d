use std::collections::BTreeSet;

use tidegate_compiler::{Inputs, SourceFile};

use super::*;
use crate::istio::IstioVersion;

fn objects(text: &str) -> Vec<Object> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.yaml");
    std::fs::write(&path, text).unwrap();
    read(&path).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Codes and severities, in order.
fn found(text: &str, against: &Against<'_>) -> Vec<(String, Severity)> {
    let findings = manifests(&objects(text), against);
    for finding in &findings {
        let parts = [&finding.message, &finding.why, &finding.fix, &finding.object, &finding.field];
        assert!(parts.iter().all(|part| !part.is_empty()), "{finding:#?}");
    }
    findings.into_iter().map(|finding| (finding.code, finding.severity)).collect()
}

#[track_caller]
fn finds(text: &str, expected: &[(&str, Severity)]) {
    let expected: Vec<(String, Severity)> =
        expected.iter().map(|(code, severity)| ((*code).to_owned(), *severity)).collect();
    assert_eq!(found(text, &Against::default()), expected, "{text}");
}

use Severity::{Error, Note, Warning};

const RULES: &str = "
kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}
  - {namespace: etl, name: worker, labels: {app: worker}, serviceAccount: worker}
---
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://a.example\"}
---
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: \"https://gitlab.example.com\", pack: gitlab, keys: {discovery: true}}
---
kind: AccessRule
metadata: {name: r, namespace: sales}
spec:
  owner: team
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {project: 4711}}]}]
  to: [{http: {methods: [GET], paths: [/v1]}}]
";

fn rules() -> Compiled {
    let sources = [SourceFile { path: "rules.yaml".into(), text: RULES.into() }];
    let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
    tidegate_compiler::compile(&inputs).output.unwrap()
}

fn plugin(kind: &str, change: impl Fn(String) -> String) -> String {
    let wasm = "url: oci://r.example/f, sha256: SHA, failStrategy: FAIL_RELOAD, pluginConfig: {workload: sales/a, peers: mesh, keys: \
                [{id: k1, publicKey: x}, {id: k2, publicKey: x}]}"
        .replace("SHA", &"a".repeat(64));
    let wasm = if kind == "WasmPlugin" { wasm } else { format!("wasm: {{{wasm}}}") };
    change(format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nmetadata: {{name: p, namespace: sales}}\nspec: {{selector: {{}}, phase: \
         AUTHZ, match: [{{mode: SERVER}}], {wasm}}}\n"
    ))
}

#[test]
fn plugins_of_ours_are_closed_pinned_and_in_their_place() {
    for kind in ["WasmPlugin", "TrafficExtension"] {
        let with = |from: &'static str, to: &'static str| plugin(kind, |text| text.replace(from, to));
        finds(&plugin(kind, |text| text), &[]);
        finds(&with("FAIL_RELOAD", "FAIL_OPEN"), &[("TD0101", Error)]);
        finds(&with("phase: AUTHZ", "phase: AUTHN"), &[("TD0104", Error)]);
        finds(&with("phase: AUTHZ, ", ""), &[("TD0104", Error)]);
        finds(&with("match: [{mode: SERVER}], ", ""), &[("TD0105", Warning)]);
        finds(&with("sha256: aaaa", "sha256: aaa"), &[("TD0103", Error)]);
        // Another's.
        finds(&with("pluginConfig", "other"), &[]);
        let other =
            plugin(kind, |text| text.replace("pluginConfig", "other").replace("FAIL_RELOAD", "FAIL_OPEN"));
        finds(&other, &[("TD0102", Warning)]);
        // Known by its label, whatever it is configured with.
        let label = "labels: {app.kubernetes.io/managed-by: tidegate}, name: p";
        let labelled = plugin(kind, |text| {
            text.replace("pluginConfig", "other")
                .replace("FAIL_RELOAD", "FAIL_OPEN")
                .replace("name: p", label)
        });
        finds(&labelled, &[("TD0101", Error)]);
    }
}

#[test]
fn plugins_trust_the_key_in_use_and_the_next() {
    let key = |id: &str| TrustedKey { id: id.into(), public_key: "x".into() };
    let text = plugin("WasmPlugin", |text| text);
    for (keys, expected) in [
        ([key("k1"), key("k2")], vec![]),
        ([key("k2"), key("k3")], vec![("TD0107".to_owned(), Warning)]),
        ([key("k4"), key("k1")], vec![("TD0106".to_owned(), Error)]),
    ] {
        assert_eq!(found(&text, &Against { rules: None, keys: Some(&keys) }), expected);
    }
}

fn pod(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: sales, {metadata}}}\nspec: {{containers: [], {spec}}}\n"
    )
}

#[test]
fn pods_that_no_proxy_guards() {
    let annotation = |name: &str, value: &str| pod(&format!("annotations: {{{name}: '{value}'}}"), "");
    finds(&pod("", ""), &[]);
    finds(&pod("", "hostNetwork: true"), &[("TD0203", Warning)]);
    finds(&pod("", "hostNetwork: false"), &[]);
    finds(&annotation("sidecar.istio.io/inject", "false"), &[("TD0202", Warning)]);
    finds(&annotation("sidecar.istio.io/inject", "true"), &[]);
    finds(&pod("labels: {sidecar.istio.io/inject: 'false'}", ""), &[("TD0202", Warning)]);
    finds(&annotation("traffic.sidecar.istio.io/excludeInboundPorts", "8080"), &[("TD0201", Warning)]);
    finds(&annotation("traffic.sidecar.istio.io/excludeInboundPorts", ""), &[]);
    finds(&annotation("sidecar.istio.io/interceptionMode", "NONE"), &[("TD0201", Warning)]);
    finds(&annotation("sidecar.istio.io/interceptionMode", "TPROXY"), &[]);
    finds(&annotation("inject.istio.io/templates", "grpc-agent"), &[("TD0202", Warning)]);
    finds(&annotation("inject.istio.io/templates", "ours, sidecar"), &[]);
    finds(&annotation("traffic.sidecar.istio.io/includeInboundPorts", "*"), &[]);
    finds(&annotation("traffic.sidecar.istio.io/includeInboundPorts", ""), &[("TD0201", Warning)]);
    finds(
        &annotation("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/8"),
        &[("TD0204", Warning)],
    );
    finds(
        &annotation("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
        &[("TD0204", Warning)],
    );
    finds(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {istio-injection: disabled}}\n",
        &[("TD0202", Warning)],
    );
    // A waypoint is a proxy itself, and nothing of the system's is guarded.
    finds(
        &pod("labels: {sidecar.istio.io/inject: 'false', gateway.networking.k8s.io/gateway-name: w}", ""),
        &[],
    );
    finds(&pod("", "hostNetwork: true").replace("namespace: sales", "namespace: kube-system"), &[]);
    finds(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system, labels: {istio-injection: disabled}}\n",
        &[],
    );
}

#[test]
fn templates_of_pods_are_looked_at_as_well() {
    let template = "template: {metadata: {labels: {app: x}}, spec: {hostNetwork: true}}";
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Job"] {
        let text = format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: x, namespace: a}}\nspec: {{{template}}}\n"
        );
        finds(&text, &[("TD0203", Warning)]);
    }
    let text = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: x, namespace: a}}\nspec: {{jobTemplate: {{spec: {{{template}}}}}}}\n"
    );
    let findings = manifests(&objects(&text), &Against::default());
    assert_eq!(findings[0].field, "spec.jobTemplate.spec.template.spec.hostNetwork");
}

#[test]
fn what_is_guarded_weighs_more() {
    let rules = rules();
    let against = Against { rules: Some(&rules), keys: None };
    let text = pod("labels: {app: orders-api, more: x}", "hostNetwork: true");
    assert_eq!(found(&text, &against), [("TD0203".to_owned(), Error)]);
    assert!(manifests(&objects(&text), &against)[0].message.contains("`sales/orders-api` is guarded"));
    for text in [
        pod("labels: {app: other}", "hostNetwork: true"),
        text.replace("namespace: sales", "namespace: etl"),
        pod("labels: {app: worker}", "hostNetwork: true").replace("namespace: sales", "namespace: etl"),
    ] {
        assert_eq!(found(&text, &against), [("TD0203".to_owned(), Warning)], "{text}");
    }
}

#[test]
fn ports_say_what_they_speak() {
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: a}}\nspec: {{selector: {{app: x}}, ports: [{{port: 80, {port}}}]}}\n"
        )
    };
    for good in [
        "name: http",
        "name: http-admin",
        "name: grpc",
        "name: grpc-web",
        "name: x, appProtocol: http",
        "appProtocol: HTTP2",
        "appProtocol: kubernetes.io/h2c",
        "name: x, protocol: UDP",
        "name: HTTP-x",
    ] {
        finds(&service(good), &[]);
    }
    for bad in [
        "name: web",
        "targetPort: 80",
        "name: httpx",
        "name: x-http",
        "name: http, appProtocol: my.example/x",
    ] {
        finds(&service(bad), &[("TD0401", Warning)]);
    }
    for tcp in ["name: tcp-x", "name: http, appProtocol: tcp", "name: https", "name: mysql"] {
        finds(&service(tcp), &[("TD0402", Note)]);
    }
    finds(&service("name: web").replace("selector: {app: x}, ", ""), &[]);
}

#[test]
fn objects_of_istio_that_weaken_it() {
    let object = |kind: &str, spec: &str| {
        format!("apiVersion: x/v1\nkind: {kind}\nmetadata: {{name: o, namespace: a}}\nspec: {spec}\n")
    };
    let filter = |operation: &str, to: &str| {
        object(
            "EnvoyFilter",
            &format!("{{configPatches: [{{applyTo: {to}, patch: {{operation: {operation}}}}}]}}"),
        )
    };
    finds(&filter("MERGE", "CLUSTER"), &[("TD0301", Warning)]);
    finds(&filter("REMOVE", "HTTP_FILTER"), &[("TD0301", Error)]);
    finds(&filter("REPLACE", "NETWORK_FILTER"), &[("TD0301", Error)]);
    finds(&object("PeerAuthentication", "{mtls: {mode: STRICT}}"), &[]);
    finds(&object("PeerAuthentication", "{mtls: {mode: PERMISSIVE}}"), &[("TD0501", Warning)]);
    finds(
        &object("PeerAuthentication", "{mtls: {mode: STRICT}, portLevelMtls: {'80': {mode: DISABLE}}}"),
        &[("TD0501", Warning)],
    );
    finds(&object("RequestAuthentication", "{jwtRules: [{issuer: i, forwardOriginalToken: true}]}"), &[]);
    finds(
        &object(
            "RequestAuthentication",
            "{jwtRules: [{issuer: i}, {issuer: j, forwardOriginalToken: false}]}",
        ),
        &[("TD0503", Warning), ("TD0503", Warning)],
    );
    let tried = |value: &str| {
        object("AuthorizationPolicy", "{}")
            .replace("name: o", &format!("name: o, annotations: {{istio.io/dry-run: '{value}'}}"))
    };
    finds(&tried("true"), &[("TD0502", Warning)]);
    finds(&tried("false"), &[]);
    finds(
        &tried("true").replace("name: o", "labels: {app.kubernetes.io/managed-by: tidegate}, name: o"),
        &[("TD0502", Error)],
    );
}

#[test]
fn sidecars_show_the_control_plane_and_hold_the_rest_back() {
    let sidecar = |spec: &str| {
        format!(
            "apiVersion: x/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: a}}\nspec: {{{spec}}}\n"
        )
    };
    for good in [
        "",
        "egress: [{hosts: ['*/*']}]",
        "egress: [{hosts: ['./*']}, {hosts: ['tidegate-system/*']}]",
        "egress: [{hosts: ['tidegate-system/tidegate.tidegate-system.svc.cluster.local']}]",
    ] {
        finds(&sidecar(good), &[]);
    }
    for bad in [
        "egress: [{hosts: ['./*', 'istio-system/*']}]",
        "egress: [{hosts: []}]",
        "egress: [{hosts: ['tidegate-system/other']}]",
    ] {
        finds(&sidecar(bad), &[("TD0504", Warning)]);
    }
    finds(&sidecar("outboundTrafficPolicy: {mode: ALLOW_ANY}"), &[("TD0505", Warning)]);
    let ingress = |tls: &str| {
        sidecar(&format!(
            "ingress: [{{port: {{number: 8443, protocol: HTTPS, name: https}}, defaultEndpoint: '127.0.0.1:8080'{tls}}}]"
        ))
    };
    // Without client certificates nobody is a peer there.
    for good in ["", ", tls: {mode: SIMPLE, credentialName: c}"] {
        finds(&ingress(good), &[]);
    }
    for bad in ["MUTUAL", "OPTIONAL_MUTUAL"] {
        finds(
            &ingress(&format!(", tls: {{mode: {bad}, caCertificates: /etc/ca.pem}}")),
            &[("TD0506", Error)],
        );
    }
}

#[test]
fn lists_are_what_kubectl_prints() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: PodList, items: [{}]}}\n",
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a}, spec: {hostNetwork: true}}"
    );
    finds(&text, &[("TD0203", Warning)]);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read(folder.path()), Err(ObjectsError::Empty(_))));
    assert!(matches!(read(&folder.path().join("none")), Err(ObjectsError::Read { .. })));
    std::fs::write(folder.path().join("a.yaml"), "image: {{ .Values.image }}\n").unwrap();
    assert!(matches!(read(folder.path()), Err(ObjectsError::Yaml { .. })));
    std::fs::write(folder.path().join("a.yaml"), "just: values\n").unwrap();
    assert!(matches!(read(folder.path()), Err(ObjectsError::Empty(_))));
}

#[test]
fn our_own_manifests_are_healthy() {
    let manifests_folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    for folder in ["base", "overlays/egress", "overlays/modules", "examples"] {
        let objects = read(&manifests_folder.join(folder)).unwrap();
        let findings = manifests(&objects, &Against::default());
        let bad: Vec<_> = findings.iter().filter(|finding| finding.severity != Note).collect();
        // The port of the module, which the patch opens, is the one exception.
        let expected = if folder == "overlays/modules" { 1 } else { 0 };
        assert_eq!(bad.len(), expected, "{folder}: {bad:#?}");
    }
}

#[test]
fn an_upgrade_is_told_before_it_happens() {
    let version = |text: &str| text.parse::<IstioVersion>().unwrap();
    let rules = rules();
    let findings = upgrade(&rules, version("1.29"), version("1.31")).unwrap();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!((findings[0].code.as_str(), findings[0].severity), ("TD0701", Note));
    assert_eq!(findings[0].message, "WasmPlugin becomes TrafficExtension: sales/tidegate-orders-api");
    assert_eq!(upgrade(&rules, version("1.30"), version("1.31")).unwrap(), []);
    assert_eq!(upgrade(&rules, version("1.27"), version("1.29")).unwrap(), []);
}

#[test]
fn objects_are_compared_one_by_one() {
    use crate::istio::IstioObject;
    let object = |kind: &'static str, name: &str, spec: i32| IstioObject {
        api_version: "x/v1",
        kind,
        namespace: "n".into(),
        name: name.into(),
        labels: Default::default(),
        annotations: Default::default(),
        spec: spec.into(),
    };
    let before: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| object("P", name, 1)).collect();
    let policy = IstioObject { api_version: "y/v1", ..object("Policy", "d", 1) };
    let after =
        [policy, object("Q", "a", 1), object("P", "b", 1), object("P", "c", 2), object("P", "new", 1)];
    let findings = upgrade::compare(&before, &after, "s");
    let told: Vec<_> =
        findings.iter().map(|finding| (finding.code.as_str(), finding.message.as_str())).collect();
    let expected = [
        ("TD0701", "P becomes Q: n/a"),
        ("TD0702", "not as before: P n/c"),
        ("TD0702", "no longer there: P n/d, P n/e"),
    ];
    assert_eq!(told, expected);
    assert_eq!(upgrade::compare(&before, &before, "s"), []);
    let findings = upgrade::compare(&before, &[], "s");
    assert!(findings[0].message.ends_with("P n/a, P n/b, P n/c and 2 more"), "{findings:?}");
}

#[test]
fn a_control_plane_that_runs() {
    let quiet = Asked { admin: "http://a".into(), ready: true, clock_ahead_s: Some(2), ..Asked::default() };
    assert_eq!(server(&quiet), []);
    let codes = |asked: &Asked| -> Vec<(String, Severity)> {
        server(asked).into_iter().map(|finding| (finding.code, finding.severity)).collect()
    };
    let one = |code: &str, severity| vec![(code.to_owned(), severity)];
    assert_eq!(codes(&Asked { ready: false, ..quiet.clone() }), one("TD0801", Error));
    assert_eq!(codes(&Asked { clock_ahead_s: Some(-5), ..quiet.clone() }), one("TD0802", Warning));
    assert_eq!(codes(&Asked { clock_ahead_s: Some(60), ..quiet.clone() }), one("TD0802", Error));
    assert_eq!(codes(&Asked { clock_ahead_s: Some(i64::MAX), ..quiet.clone() }), one("TD0802", Error));
    assert_eq!(codes(&Asked { clock_ahead_s: None, ..quiet.clone() }), []);
    let vm = |version: &str, up_to_date: bool, refusal: serde_json::Value, connected: bool| serde_json::json!({"connected": connected, "filterVersion": version, "upToDate": up_to_date, "refusal": refusal});
    let none = serde_json::Value::Null;
    let fleet = |vms: &[serde_json::Value]| Asked {
        fleet: serde_json::json!({"workloads": {"sales/a": {"vms": vms}}}),
        ..quiet.clone()
    };
    assert_eq!(codes(&fleet(&[vm("1", true, none.clone(), true), vm("1", true, none.clone(), true)])), []);
    assert_eq!(codes(&fleet(&[vm("1", false, none.clone(), true)])), one("TD0803", Warning));
    assert_eq!(codes(&fleet(&[vm("1", false, none.clone(), false)])), [], "it is gone");
    let refusal = serde_json::json!({"reason": "bad_signature", "detail": "key"});
    let refused = fleet(&[vm("1", false, refusal, true)]);
    assert_eq!(codes(&refused), one("TD0804", Error));
    assert!(server(&refused)[0].message.contains("bad_signature: key"));
    assert_eq!(
        codes(&fleet(&[vm("1", true, none.clone(), true), vm("2", true, none, true)])),
        one("TD0805", Note)
    );
}

#[test]
fn codes_are_unique_and_documented() {
    let documented = include_str!("../../../docs/doctor.md");
    let mut seen = BTreeSet::new();
    for code in Code::ALL {
        assert!(seen.insert(code.as_str()), "{code:?}");
        let row = format!(
            "| {} | {} | {} | {} | {} |",
            code.as_str(),
            code.severity(),
            code.title(),
            code.why(),
            code.fix()
        );
        assert!(documented.contains(&row), "control-plane/docs/doctor.md lacks: {row}");
    }
    assert_eq!(documented.matches("| TD").count(), Code::ALL.len());
}
