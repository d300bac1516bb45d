use std::path::Path;

use clap::Parser;

use super::*;

const RULES: &str = r##"kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads:
  - {namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}
  gateways:
  - {namespace: egress, name: external, labels: {gateway: external}, serviceAccount: external}
---
kind: Guard
metadata: {name: egress, namespace: egress}
spec: {mode: Enforce, audience: "https://egress.example"}
---
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.sales.example"}
---
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: "https://gitlab.example.com", pack: gitlab, keys: {discovery: true}, headers: [{name: x-job-token}]}
---
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: "https://accounts.google.com", pack: google, keys: {discovery: true}, headers: [{name: x-google-token}]}
---
kind: Caller
metadata: {name: release, namespace: ci}
spec:
  anyOf:
  - peer: {namespace: ci, serviceAccounts: [runner]}
    tokens: [{issuer: gitlab, gitlab: {project: 4711, protectedRef: true, environment: production}}]
---
kind: Caller
metadata: {name: orders-etl, namespace: data}
spec:
  anyOf:
  - tokenOnly: {via: [egress/external]}
    tokens: [{issuer: google, dataflowJob: {name: orders-1, project: acme, region: europe-west4}, google: {serviceAccount: "etl@acme.iam.gserviceaccount.com"}}]
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}
---
kind: AccessRule
metadata: {name: release-launches-orders, namespace: egress}
spec:
  owner: team-billing
  contact: "#billing"
  target: {gateway: egress/external}
  effect: Allow
  mode: Enforce
  from: [{caller: ci/release}]
  to:
  - launch: {service: dataflow, project: acme, region: europe-west4, jobName: "orders-*", template: "gs://acme-templates/*",
             runAs: "etl@acme.iam.gserviceaccount.com", temp: "gs://acme-temp/*", unchecked: [parameters]}
---
kind: AccessRule
metadata: {name: orders-etl-publishes, namespace: egress}
spec:
  owner: team-billing
  target: {gateway: egress/external}
  effect: Allow
  mode: Enforce
  from: [{caller: data/orders-etl}]
  to: [{resources: {service: pubsub, actions: [publish], names: ["projects/acme/topics/orders-*"]}}]
"##;

const LAUNCH: &str = r#"{"launchParameter": {"jobName": "orders-1", "containerSpecGcsPath": "gs://acme-templates/v1",
  "parameters": {"outputTopic": "projects/acme/topics/orders-out", "table": "acme:sales.orders"},
  "environment": {"serviceAccountEmail": "etl@acme.iam.gserviceaccount.com", "tempLocation": "gs://acme-temp/orders"}}}"#;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

/// The report, as text.
fn preflight(text: &str, flags: &[&str]) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let rules = folder.path().display().to_string();
    let line = [&["preflight", "launch.json", "--rules", &rules][..], flags].concat();
    let Line { arguments } = Line::try_parse_from(line)?;
    let hints = Hints {
        project: Some("acme".to_owned()),
        region: arguments.region.clone().or_else(|| Some("europe-west4".to_owned())),
        ..Hints::default()
    };
    let plan = read(text, &hints).map_err(anyhow::Error::msg)?;
    let opened = folder::open(folder.path(), None)?.map_err(|_| anyhow!("the rules do not compile"))?;
    Asker { opened: &opened, arguments: &arguments }.report(plan)
}

fn shown(report: &Report) -> String {
    render::report(report, Path::new("rules"), Style::Plain)
}

#[test]
fn a_launch_that_passes_names_its_rule_and_what_was_not_asked() {
    let report = preflight(LAUNCH, &["--as", "ci/release"]).unwrap();
    assert_eq!((report.passed, report.refused, report.not_asked), (1, 0, 2));
    insta::assert_snapshot!(shown(&report));
}

#[test]
fn a_launch_that_is_refused_says_what_lacks_and_workers_are_asked_about() {
    let report = preflight(
        LAUNCH,
        &["--as", "ci/release", "--region", "europe-west1", "--worker-as", "data/orders-etl"],
    )
    .unwrap();
    assert_eq!((report.passed, report.refused, report.not_asked), (1, 2, 0));
    insta::assert_snapshot!(shown(&report));
}

#[test]
fn a_caller_is_as_its_forms_demand_and_flags_count_over_it() {
    for (flags, decision) in [
        (vec!["--as", "ci/release"], "allowed_by_rule"),
        (vec!["--as", "ci/release", "--token", "gitlab:ref_protected=false"], "no_allow_matched"),
        (vec!["--as", "ci/release", "--peer", "ci/other"], "no_allow_matched"),
        (vec!["--peer", "ci/runner"], "token_required"),
        (
            vec![
                "--peer",
                "ci/runner",
                "--token",
                "gitlab:project_id=4711,job_project_id=4711,ref_protected=true,pipeline_source=push,environment=production",
            ],
            "allowed_by_rule",
        ),
    ] {
        let report = preflight(LAUNCH, &flags).unwrap();
        assert_eq!(report.requests[0].answer.as_ref().unwrap().decided.reason, decision, "{flags:?}");
    }
    // Known by its token alone, as directories list it; of two forms the one that is allowed.
    let worker = preflight(LAUNCH, &["--as", "ci/release", "--worker-as", "data/orders-etl"]).unwrap();
    let publish =
        worker.requests.iter().find(|request| request.what == "publish").unwrap().answer.as_ref().unwrap();
    assert_eq!(publish.decided.reason, "allowed_by_rule");
    assert_eq!(publish.request.tokens, ["google"]);
    assert!(publish.notes[0].contains("is taken to list it"), "{:?}", publish.notes);
}

#[test]
fn what_is_not_enough_is_refused_with_what_to_give() {
    for (flags, said) in [
        (vec![], "say who runs it"),
        (vec!["--as", "release"], "write `namespace/name`"),
        (vec!["--as", "ci/relase"], "did you mean `ci/release`?"),
        (vec!["--as", "ci/x\", y: \"z"], "is no Caller"),
        (vec!["--peer", "x"], "write `namespace/service-account`"),
        (vec!["--as", "ci/release", "--token", "github:a=b"], "there is no TrustedIssuer `github`"),
        (vec!["--as", "ci/release", "--token-file", "/nowhere"], "cannot read `/nowhere`"),
        (vec!["--as", "ci/release", "--workload", "egress/other"], "there is no workload `egress/other`"),
        (vec!["--as", "ci/release", "--worker-peer", "x"], "write `namespace/service-account`"),
        (
            vec!["--as", "ci/release", "--worker-peer", "a/b", "--worker-as", "data/orders-etl"],
            "cannot be used with",
        ),
    ] {
        let why = preflight(LAUNCH, &flags).map(|report| shown(&report)).expect_err(&format!("{flags:?}"));
        assert!(why.to_string().contains(said), "{flags:?}: {why}");
    }
}

#[test]
fn a_token_for_another_audience_is_noted() {
    let pipeline = |audience: &str| {
        format!(
            "job:\n  id_tokens: {{T: {{aud: '{audience}'}}}}\n  script: [gcloud pubsub topics publish orders-x --project acme]\n"
        )
    };
    let notes = |audience: &str| preflight(&pipeline(audience), &["--as", "ci/release"]).unwrap().notes;
    assert_eq!(notes("https://egress.example"), Vec::<String>::new());
    assert!(notes("https://other.example")[0].contains("token_wrong_audience"));
}

/// A run is written by others, and could draw a result of its own.
#[test]
fn what_a_run_says_reaches_no_terminal() {
    let run = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: a, namespace: \"ci\\e[2K\"}\n\
               spec: {serviceAccountName: \"a\\e[1A\", taskSpec: {steps: [{script: 'curl https://a.example/'}]}}\n";
    let report = preflight(run, &["--as", "ci/release"]).unwrap();
    assert!(report.requests.iter().any(|request| matches!(&request.by, By::Pod(_))));
    let shown = shown(&report);
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}
