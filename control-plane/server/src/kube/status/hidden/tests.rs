use serde_json::json;
use tidegate_compiler::{Inputs, SourceFile};

use super::super::super::owned::Live;
use super::*;

const RULES: &str = "
kind: Mesh
metadata: {name: m}
spec:
  trustDomain: td
  rootNamespace: root
  workloads:
  - {namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}
  - {namespace: data, name: lake, labels: {app: lake}, serviceAccount: lake}
---
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: \"https://gitlab.example\", pack: gitlab, keys: {discovery: true}}
---
kind: Guard
metadata: {name: g, namespace: sales}
spec: {mode: Enforce, audience: \"https://a.example\"}
---
kind: Guard
metadata: {name: g, namespace: data}
spec: {mode: Enforce, audience: \"https://a.example\"}
---
kind: AccessRule
metadata: {name: with-token, namespace: sales}
spec:
  owner: team
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {project: 7}}]}]
  to: [{http: {methods: [GET], paths: [/a]}}]
---
kind: AccessRule
metadata: {name: without, namespace: sales}
spec:
  owner: team
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: etl}}]
  to: [{http: {methods: [GET], paths: [/b]}}]
";

fn compiled() -> Compiled {
    let sources = [SourceFile { path: "r".into(), text: RULES.into() }];
    let compilation =
        tidegate_compiler::compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None });
    compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics))
}

fn authentication(namespace: &str, spec: Value) -> Lives {
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": AUTHENTICATION,
        "metadata": {"namespace": namespace, "name": "theirs"},
        "spec": spec,
    });
    let object = serde_json::from_value(object).unwrap();
    let (key, live) = Live::new(("security.istio.io/v1", AUTHENTICATION), &object).unwrap();
    [(key, live.into())].into()
}

fn names(found: &Hidden) -> Vec<String> {
    found.keys().map(|(kind, name)| format!("{} {name}", kind.as_str())).collect()
}

#[test]
fn a_token_that_is_not_forwarded_is_hidden_from_what_needs_it() {
    let rule = json!({"issuer": "https://gitlab.example"});
    for (namespace, spec) in [
        ("sales", json!({"jwtRules": [rule]})),
        ("root", json!({"jwtRules": [rule]})),
        ("sales", json!({"selector": {"matchLabels": {"app": "orders"}}, "jwtRules": [rule]})),
        ("sales", json!({"jwtRules": [{"issuer": "https://gitlab.example", "forwardOriginalToken": false}]})),
        (
            "sales",
            json!({"jwtRules": [{"issuer": "https://gitlab.example", "fromHeaders": [{"name": "Authorization"}]}]}),
        ),
    ] {
        let found = hidden(&compiled(), &authentication(namespace, spec.clone()));
        assert_eq!(names(&found), ["Guard sales/g", "AccessRule sales/with-token"], "{spec}");
        let told = &found[&(Kind::AccessRule, "sales/with-token".to_owned())];
        assert!(told.refused.is_empty());
        let told = told.stripped.first().unwrap();
        assert!(
            told.contains("`gitlab`") && told.contains("theirs") && told.contains("forwardOriginalToken"),
            "{told}"
        );
    }
}

#[test]
fn what_is_forwarded_or_elsewhere_is_not_hidden() {
    let issuer = "https://gitlab.example";
    let rule = json!({"issuer": issuer});
    for (namespace, spec) in [
        ("sales", json!({"jwtRules": [{"issuer": issuer, "forwardOriginalToken": true}]})),
        ("sales", json!({"jwtRules": [{"issuer": issuer, "fromHeaders": [{"name": "x-other"}]}]})),
        ("sales", json!({"jwtRules": [{"issuer": issuer, "fromParams": ["token"]}]})),
        ("sales", json!({"selector": {"matchLabels": {"app": "lake"}}, "jwtRules": [rule]})),
        ("sales", json!({"targetRefs": [{"kind": "Gateway", "name": "orders"}], "jwtRules": [rule]})),
        ("sales", json!({})),
        ("data", json!({"jwtRules": [rule]})),
        ("elsewhere", json!({"jwtRules": [rule]})),
    ] {
        let found = hidden(&compiled(), &authentication(namespace, spec.clone()));
        assert_eq!(names(&found), Vec::<String>::new(), "{namespace} {spec}");
    }
}

#[test]
fn a_token_of_an_issuer_that_nobody_names_is_refused() {
    let rule = json!({"issuer": "https://other.example", "forwardOriginalToken": true});
    let found = hidden(&compiled(), &authentication("sales", json!({"jwtRules": [rule]})));
    assert_eq!(names(&found), ["Guard sales/g", "AccessRule sales/with-token"]);
    let told = &found[&(Kind::Guard, "sales/g".to_owned())];
    assert!(told.stripped.is_empty() && told.refused.first().unwrap().contains("401"), "{told:?}");
    let both = json!([rule, {"issuer": "https://gitlab.example", "forwardOriginalToken": true}]);
    assert_eq!(hidden(&compiled(), &authentication("sales", json!({"jwtRules": both}))), Hidden::new());
}
