//! What `render` prints.

use clap::Parser;
use tidegate_compiler::{Inputs, SourceFile, compile};

use super::*;

#[derive(Debug, Parser)]
struct Alone {
    #[command(flatten)]
    arguments: Arguments,
}

const RULES: &str = "\
kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}
  - {namespace: sales, name: probe, labels: {app: probe}}
  - {namespace: etl, name: worker, labels: {app: worker}}
  gateways:
  - {namespace: ingress, name: in, labels: {istio: ingress}, serviceAccount: in}
---
kind: TrustedIssuer
metadata: {name: corp}
spec: {issuer: 'https://login.corp.example/', pack: generic, keys: {discovery: true}}
---
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, ports: [8080], tcpPorts: [5432], audience: 'https://orders.sales.example'}
---
kind: Guard
metadata: {name: edge, namespace: ingress}
spec: {mode: Enforce, audience: 'https://orders.sales.example'}
---
kind: AccessRule
metadata: {name: etl-writes, namespace: sales}
spec:
  owner: a
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: etl, serviceAccounts: [worker]}, tokens: [{issuer: corp, claims: {sub: a}}]}]
  to: [{http: {methods: [POST], paths: ['/v1/orders/{id}'], hosts: [orders.sales.example]}}]
---
kind: AccessRule
metadata: {name: nobody-deletes, namespace: sales}
spec:
  owner: a
  effect: Deny
  mode: Enforce
  from: [{anyone: true}]
  to: [{http: {methods: [DELETE]}}]
---
kind: AccessRule
metadata: {name: probes, namespace: sales}
spec:
  owner: a
  target: {selector: {matchLabels: {app: probe}}}
  effect: Allow
  mode: Enforce
  from: [{anyone: true}]
  to: [{http: {methods: [GET], paths: [/healthz]}}]
---
kind: AccessRule
metadata: {name: enter, namespace: ingress}
spec:
  owner: a
  target: {gateway: ingress/in}
  effect: Allow
  mode: Enforce
  from: [{tokenOnly: {via: [ingress/in]}, tokens: [{issuer: corp, claims: {sub: a}}]}]
  to: [{http: {methods: [POST], paths: ['/v1/orders/{id}']}}]
";

fn rendered(arguments: &[&str]) -> (Vec<Part>, Arguments) {
    let all = ["render", "rules"].iter().chain(arguments);
    let Alone { arguments } = Alone::try_parse_from(all).unwrap();
    let sources = [SourceFile { path: "rules.yaml".to_owned(), text: RULES.to_owned() }];
    let compilation = compile(&Inputs { sources: &sources, env: Default::default(), now: None });
    let compiled = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
    let parts = parts(&compiled, &arguments, BTreeMap::new());
    (parts, arguments)
}

#[test]
fn objects_with_notes_as_comments() {
    let (parts, arguments) = rendered(&[]);
    insta::assert_snapshot!(as_yaml(&parts, &arguments));
}

#[test]
fn a_summary_of_what_to_know() {
    insta::assert_snapshot!(summary(&rendered(&[]).0));
}

#[test]
fn tokens_that_istio_verifies_as_well() {
    let (parts, arguments) = rendered(&["--claims", "--istio", "1.31.2"]);
    let text = as_yaml(&parts, &arguments);
    assert!(text.starts_with("# Made by `tidegate render` for Istio 1.31. "), "{text}");
    assert!(text.contains("kind: RequestAuthentication"), "{text}");
}

#[test]
fn where_paths_are_not_normalised_it_is_wider() {
    let (parts, arguments) = rendered(&["--path-normalization", "none"]);
    let text = as_yaml(&parts, &arguments);
    assert!(text.contains("- \"/v1/%*\"\n") && text.contains("may be sent encoded"), "{text}");
}

#[test]
fn a_list_as_kubectl_reads_it() {
    let (parts, _) = rendered(&["-o", "json"]);
    let list = as_list(&parts);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"List".into(), &"v1".into()));
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "tidegate-in",
            "tidegate-orders-api",
            "tidegate-orders-api-deny",
            "tidegate-probe",
            "tidegate-probe-deny"
        ]
    );
}

#[test]
fn interlocks_are_of_workloads_that_there_are() {
    let sources = [SourceFile { path: "rules.yaml".to_owned(), text: RULES.to_owned() }];
    let compiled = compile(&Inputs { sources: &sources, env: Default::default(), now: None }).output.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("interlocks.yaml");
    std::fs::write(&file, "ingress/in: c2VjcmV0\n").unwrap();
    let Alone { arguments } = Alone::try_parse_from(["render", "rules"]).unwrap();
    let text = as_yaml(&parts(&compiled, &arguments, interlocks(&compiled, &file).unwrap()), &arguments);
    assert!(
        text.contains("- key: \"request.headers[x-tidegate-interlock]\"\n      values:\n      - c2VjcmV0\n"),
        "{text}"
    );
    assert!(!text.contains("#   open: "), "{text}");
    std::fs::write(&file, "ingress/other: c2VjcmV0\n").unwrap();
    let error = interlocks(&compiled, &file).unwrap_err().to_string();
    assert!(error.contains("there is no workload `ingress/other`"), "{error}");
}

#[test]
fn other_versions_are_refused() {
    for version in ["1.26", "1.32", "latest"] {
        let error = Alone::try_parse_from(["render", "rules", "--istio", version]).unwrap_err().to_string();
        assert!(error.contains("from 1.27 to 1.31"), "{error}");
    }
}
