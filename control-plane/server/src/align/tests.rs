use std::collections::BTreeMap;

use super::*;
use crate::serve::compile_files;

const RULES: &str = r#"kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}
---
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.example"}
---
kind: TrustedIssuer
metadata: {name: cluster}
spec: {issuer: "https://kubernetes.example", pack: kubernetes, keys: {discovery: true}, maxLifetime: 1h}
---
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: "https://accounts.google.com", pack: google, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: aws}
spec: {issuer: "https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws", pack: aws, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: entra}
spec: {issuer: "https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0", pack: entra, keys: {discovery: true}}
---
"#;

fn caller(name: &str, peer: &str, tokens: &str) -> String {
    format!(
        "kind: Caller\nmetadata: {{name: {name}, namespace: data}}\nspec:\n  anyOf:\n  - peer: {{namespace: etl, serviceAccounts: [{peer}]}}\n{}---\n",
        if tokens.is_empty() { String::new() } else { format!("    tokens: [{tokens}]\n") }
    )
}

/// Findings as `file:line code`, and the report.
fn run(rules: &str, manifests: &str) -> (Vec<String>, Report) {
    let files = Files::from([("rules.yaml".to_owned(), format!("{RULES}{rules}"))]);
    let compilation = compile_files(&files, &BTreeMap::new());
    let compiled = compilation.output.unwrap_or_else(|| panic!("{rules}\n{:#?}", compilation.diagnostics));
    let manifests = [ManifestFile { name: "k8s.yaml".to_owned(), text: manifests.to_owned() }];
    let report = align(&manifests, &files, &BTreeMap::new(), &compiled, |file| format!("rules/{file}"));
    let told = |found: &Finding| format!("{}:{} {}", found.file, found.line, found.code.as_str());
    (report.findings.iter().map(told).collect(), report)
}

fn account(name: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: etl{more}}}\n---\n")
}

fn pod(account: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: worker, namespace: etl}}\nspec:\n  template:\n    spec:\n      serviceAccountName: {account}\n{more}---\n"
    )
}

fn volume(fields: &str) -> String {
    format!(
        "      volumes:\n      - name: token\n        projected: {{sources: [{{serviceAccountToken: {{path: token, {fields}}}}}]}}\n"
    )
}

const TOKEN: &str = "{issuer: cluster}";

#[test]
fn what_agrees_is_no_finding() {
    let rules = [
        caller("a", "worker", TOKEN),
        caller("b", "other", "{issuer: google, google: {serviceAccount: etl@acme.iam.gserviceaccount.com}}"),
    ]
    .concat();
    let manifests = [
        account("worker", ""),
        account("other", ", annotations: {iam.gke.io/gcp-service-account: etl@acme.iam.gserviceaccount.com}"),
        account(
            "unknown",
            ", annotations: {iam.gke.io/gcp-service-account: nobody@acme.iam.gserviceaccount.com}",
        ),
        pod("worker", &volume("audience: 'https://orders.example', expirationSeconds: 3600")),
        pod("other", ""),
        "kind: ConfigMap\nmetadata: {name: x}\n".to_owned(),
    ]
    .concat();
    let (told, report) = run(&rules, &manifests);
    assert_eq!(told, Vec::<String>::new(), "{report:#?}");
    assert_eq!((report.service_accounts, report.workloads, report.callers), (3, 2, 2));
}

#[test]
fn accounts_that_nobody_has_are_found_where_the_namespace_was_seen() {
    let rules = caller("a", "wroker, default", "");
    let (told, report) = run(&rules, &account("worker", ""));
    assert_eq!(told, ["rules/rules.yaml:33 AL001"]);
    assert_eq!(report.findings[0].fix, "did you mean `worker`?");
    let (told, report) = run(&rules, &account("worker", "").replace("etl", "sales"));
    assert_eq!((told, report.unseen), (vec![], BTreeSet::from(["etl".to_owned()])));
}

#[test]
fn annotations_and_callers_are_compared_for_each_cloud() {
    let role = "arn:aws:iam::123456789012:role/etl";
    let app = "aaaaaaaa-0000-4000-8000-000000000001";
    let cases = [
        (
            "iam.gke.io/gcp-service-account",
            "etl@acme.iam.gserviceaccount.com",
            "{issuer: google, google: {serviceAccount: VALUE}}",
        ),
        ("eks.amazonaws.com/role-arn", role, "{issuer: aws, aws: {account: '123456789012', role: 'VALUE'}}"),
        (
            "azure.workload.identity/client-id",
            app,
            "{issuer: entra, entra: {tenant: bbbbbbbb-0000-4000-8000-000000000002, app: VALUE, appOnly: true}}",
        ),
    ];
    for (annotation, value, token) in cases {
        let annotated = account("worker", &format!(", annotations: {{{annotation}: '{value}'}}"));
        let named = caller("a", "worker", &token.replace("VALUE", value));
        assert_eq!(run(&named, &annotated).0, Vec::<String>::new(), "{annotation}");
        let other = value.replace("etl", "other").replace("0001", "0009");
        let told = run(&caller("a", "worker", &token.replace("VALUE", &other)), &annotated).0;
        assert_eq!(told, ["k8s.yaml:3 AL002"], "{annotation}");
        assert_eq!(run(&caller("a", "worker", ""), &annotated).0, ["k8s.yaml:3 AL003"], "{annotation}");
        assert_eq!(run(&named, &account("worker", "")).0, ["rules/rules.yaml:34 AL004"], "{annotation}");
    }
    // A role by its name, which is that of the account.
    let annotated = account("worker", &format!(", annotations: {{eks.amazonaws.com/role-arn: '{role}'}}"));
    let by_name = |number: &str| {
        caller("a", "worker", &format!("{{issuer: aws, aws: {{account: '{number}', role: etl}}}}"))
    };
    assert_eq!(run(&by_name("123456789012"), &annotated).0, Vec::<String>::new());
    assert_eq!(run(&by_name("210987654321"), &annotated).0, ["k8s.yaml:3 AL002"]);
}

#[test]
fn tokens_that_pods_project_are_compared_with_guards_and_issuers() {
    let rules = caller("a", "worker", TOKEN);
    let good = "audience: 'https://orders.example'";
    for (case, pod, expected) in [
        ("another audience", pod("worker", &volume("audience: vault")), vec!["k8s.yaml:14 AL005"]),
        ("no audience", pod("worker", &volume("expirationSeconds: 600")), vec!["k8s.yaml:14 AL005"]),
        (
            "too long",
            pod("worker", &volume(&format!("{good}, expirationSeconds: 7200"))),
            vec!["k8s.yaml:14 AL006"],
        ),
        ("only the default token", pod("worker", ""), vec!["k8s.yaml:11 AL008"]),
        (
            "none at all",
            pod("worker", "      automountServiceAccountToken: false\n"),
            vec!["k8s.yaml:11 AL007"],
        ),
        ("another account", pod("other", ""), vec![]),
        ("as it should be", pod("worker", &volume(good)), vec![]),
    ] {
        let manifests = format!("{}{pod}", account("worker", ""));
        let (told, report) = run(&rules, &manifests);
        assert_eq!(told, expected, "{case}: {report:#?}");
    }
    // The account itself says that nothing is mounted.
    let closed = account("worker", "").replace("---\n", "automountServiceAccountToken: false\n---\n");
    assert_eq!(run(&rules, &format!("{closed}{}", pod("worker", ""))).0, ["k8s.yaml:12 AL007"]);
    // A caller without a token needs none.
    let (told, _) =
        run(&caller("a", "worker", ""), &format!("{}{}", account("worker", ""), pod("worker", "")));
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn the_default_audience_is_good_where_a_guard_accepts_it() {
    let rules = format!(
        "{}kind: Guard\nmetadata: {{name: more, namespace: sales}}\nspec: {{mode: Enforce, audience: 'https://kubernetes.example'}}\n",
        caller("a", "worker", TOKEN)
    );
    let manifests = format!("{}{}", account("worker", ""), pod("worker", ""));
    assert_eq!(run(&rules, &manifests).0, Vec::<String>::new());
}

#[test]
fn one_account_is_one_caller() {
    let rules = [caller("a", "worker", ""), caller("b", "worker", "")].concat();
    let (told, report) = run(&rules, &account("worker", ""));
    assert_eq!(told, ["rules/rules.yaml:39 AL009"]);
    assert!(report.findings[0].what.contains("`data/a`"));
    assert_eq!((report.errors, report.warnings), (0, 1));
}

#[test]
fn what_kubectl_prints_is_read_and_pods_of_workloads_are_not_told_twice() {
    let list = format!(
        "apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n{}",
        [
            "- {apiVersion: v1, kind: ServiceAccount, metadata: {name: worker, namespace: etl, creationTimestamp: null}}\n",
            "- kind: Pod\n  metadata: {name: worker-1, namespace: etl, ownerReferences: [{kind: ReplicaSet, name: worker}]}\n  spec: {serviceAccountName: worker}\n",
            "- kind: CronJob\n  metadata: {name: nightly, namespace: etl}\n  spec: {jobTemplate: {spec: {template: {spec: {serviceAccountName: worker}}}}}\n",
            "- kind: Pod\n  metadata: {name: alone, namespace: etl}\n  spec: {containers: []}\n",
        ]
        .concat()
    );
    let (told, report) = run(&caller("a", "worker", TOKEN), &list);
    assert_eq!(told, ["k8s.yaml:11 AL008"]);
    assert_eq!((report.service_accounts, report.workloads), (1, 2));
    assert_eq!(report.findings[0].object, "CronJob etl/nightly");
}

#[test]
fn a_manifest_that_cannot_be_read_is_told() {
    let (told, report) = run(&caller("a", "worker", ""), "kind: ServiceAccount\nmetadata: {name: x\n");
    assert_eq!(report.findings[0].code, Code::Unreadable, "{told:?}");
    assert_eq!(report.errors, 1);
}

#[test]
fn a_report_is_readable() {
    let rules =
        [caller("a", "wroker", TOKEN), caller("b", "worker", TOKEN), caller("c", "worker", "")].concat();
    let manifests = [
        account("worker", ", annotations: {iam.gke.io/gcp-service-account: x@acme.iam.gserviceaccount.com}"),
        pod("worker", &volume("audience: vault")),
    ]
    .concat();
    insta::assert_snapshot!(crate::cli::align_text(&run(&rules, &manifests).1));
}
