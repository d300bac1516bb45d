use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::directories::{ApiOptions, ClusterOptions, GoogleOptions, Options as DirectoryOptions};
use tidegate::serve::{Options, Running, start};
use tidegate_engine::Truth;
use tidegate_engine::directory::Directories;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;
use tokio::time::timeout;

use crate::commands::json as read_json;
use crate::decisions::{Reporter, refused, until};
use crate::fixture::*;
use crate::testing::{ClusterApi, GoogleApi, event, pod};

const JOB: &str = "dataflow/acme/europe-west4/orders-etl";

const TEKTON_RULE: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: prod-cluster}
spec: {issuer: "https://kubernetes.prod.example", pack: kubernetes, keys: {jwksUri: "https://keys.invalid/certs"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: release, namespace: sales}
spec:
  owner: billing
  target: {selector: {matchLabels: {app: orders}}}
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: ci}
    tokens: [{issuer: prod-cluster, tekton: {pipeline: release}}]
  to: [{http: {methods: [POST], paths: ["/v1/release"]}}]
"#;

/// A job with one machine, and rules that let in the job and a namespace.
async fn world() -> (GoogleApi, Place) {
    let google = GoogleApi::start().await;
    google.state().job("2026-11-21_01", "orders-etl", "JOB_STATE_RUNNING");
    google.state().instance("4570", "2026-11-21_01", "RUNNING");
    let place = Place::new(&[("mesh.yaml", MESH), ("dataflow.yaml", DATAFLOW_RULE)]);
    (google, place)
}

async fn serve(google: &GoogleApi, place: &Place, every: u64, fresh_for: u64) -> Running {
    let url = || google.url.clone();
    let directories = DirectoryOptions {
        every: Duration::from_secs(every),
        fresh_for: Duration::from_secs(fresh_for),
        google: GoogleOptions { dataflow: url(), compute: url(), metadata: url() },
        clusters: vec![],
    };
    let mut running = start(Options { directories, ..place.options() }).await.unwrap();
    timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    running
}

/// What the directory section that travelled says now about an id.
fn lists(received: &Received, id: &str) -> Truth {
    lists_in(JOB, received, id)
}

fn lists_in(directory: &str, received: &Received, id: &str) -> Truth {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let section =
        received.manifest.sections.iter().find(|section| section.kind() == pb::SectionKind::Directory);
    let content = &received.sections[&section.unwrap().sha256];
    Directories::decode(content).unwrap().lists(directory, id, now.as_secs().try_into().unwrap())
}

async fn ask(filter: &Filter, nonce: u64, id: &str) {
    filter.send(Up::Lookup(pb::Lookup { nonce, directory: JOB.into(), id: id.into() })).await;
}

async fn answer(filter: &mut Filter) -> (u64, bool) {
    match filter.message().await.unwrap() {
        Some(Down::LookupResult(result)) => (result.nonce, result.listed),
        message => panic!("{message:?}"),
    }
}

#[tokio::test]
async fn rules_come_with_the_machines_of_their_jobs() {
    let (google, place) = world().await;
    let running = serve(&google, &place, 3_600, 4 * 3_600).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    assert_eq!((lists(&first, "4570"), lists(&first, "4571")), (Truth::True, Truth::False));
    let report = get_until(&running, "/directories", |report| report[0]["ids"] == 1).await;
    let (name, source, stale) = (&report[0]["name"], &report[0]["source"], &report[0]["stale"]);
    assert_eq!((name.as_str(), source.as_str(), stale.as_bool()), (Some(JOB), Some("google"), Some(false)));
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains(&format!(r#"tidegate_directory_ids{{directory="{JOB}"}} 1"#)), "{metrics}");
    assert!(!metrics.contains("secret") && !report.to_string().contains("secret"));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_machine_that_has_just_started_is_read_pushed_and_then_said_to_be_listed() {
    let (google, place) = world().await;
    let running = serve(&google, &place, 3_600, 4 * 3_600).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    google.state().instance("4571", "2026-11-21_01", "RUNNING");
    let begin = Instant::now();
    ask(&filter, 7, "4571").await;
    let second = filter.receive().await;
    assert_eq!(second.sections.len(), 1, "only the directory");
    assert_eq!(second.named()[..2], first.named()[..2]);
    assert_eq!((lists(&second, "4570"), lists(&second, "4571")), (Truth::True, Truth::True));
    // Nothing is said before it is installed.
    filter.expect_silence().await;
    filter.ack(&second).await;
    assert_eq!(answer(&mut filter).await, (7, true));
    println!("asked, read, pushed, installed: {:?}, of which 300 ms waiting", begin.elapsed());
    // A second time nobody is asked.
    ask(&filter, 8, "4571").await;
    assert_eq!(answer(&mut filter).await, (8, true));
    assert_eq!(google.count("/v1b3/"), 2);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_id_that_is_nowhere_is_denied_and_asking_again_costs_google_nothing() {
    let (google, place) = world().await;
    let running = serve(&google, &place, 3_600, 4 * 3_600).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    for nonce in 0..100 {
        ask(&filter, nonce, &format!("99{nonce}")).await;
    }
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(answer(&mut filter).await);
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..100).map(|nonce| (nonce, false)).collect::<Vec<_>>());
    assert!(google.count("/v1b3/") <= 1 + 5, "{}", google.count("/v1b3/"));
    // Of directories that its rules do not read it learns nothing.
    for directory in ["dataflow/acme/europe-west4/other", "", "x"] {
        filter
            .send(Up::Lookup(pb::Lookup { nonce: 1, directory: directory.into(), id: "4570".into() }))
            .await;
        assert_eq!(answer(&mut filter).await, (1, false), "{directory}");
    }
    // Google is slow or down: the answer comes all the same.
    google.state().instead.insert("/v1b3/", (503, String::new()));
    ask(&filter, 2, "4572").await;
    assert_eq!(answer(&mut filter).await, (2, false));
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains(r#"tidegate_directory_lookups_total{reason="unknown"} 3"#), "{metrics}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_directory_is_renewed_before_it_runs_out_and_runs_out_when_its_source_fails() {
    let (google, place) = world().await;
    let running = serve(&google, &place, 1, 6).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    let mut last = filter.install().await;
    for _ in 0..2 {
        assert_eq!(last.sections.len(), 1, "only the directory");
        assert_eq!(last.named()[..2], first.named()[..2]);
        assert_eq!(lists(&last, "4570"), Truth::True, "renewed in time");
        last = filter.install().await;
    }
    google.state().instead.insert("/compute/", (503, String::new()));
    let failed = get_until(&running, "/directories", |report| report[0]["error"].is_string()).await;
    assert!(failed[0]["error"].as_str().unwrap().contains("503"), "{failed}");
    let stale = get_until(&running, "/directories", |report| report[0]["stale"] == true).await;
    assert_eq!((stale[0]["ids"].as_u64(), running.is_ready()), (Some(1), true));
    // The filter knows by itself, from what it has; nothing is pushed.
    assert_eq!(lists(&last, "4570"), Truth::Unknown);
    filter.expect_silence().await;
    // New machines do not come while nobody can be asked, and come when somebody can.
    google.state().instance("4571", "2026-11-21_01", "RUNNING");
    google.state().instead.clear();
    let recovered = filter.install().await;
    assert_eq!((lists(&recovered, "4570"), lists(&recovered, "4571")), (Truth::True, Truth::True));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn rules_do_not_wait_long_for_a_directory_that_cannot_be_read() {
    let (google, place) = world().await;
    google.state().instead.insert("/", (503, String::new()));
    let running = serve(&google, &place, 3_600, 4 * 3_600).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    assert_eq!(lists(&first, "4570"), Truth::Unknown);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_while_google_is_down_takes_nothing_away() {
    let (google, place) = world().await;
    let running = serve(&google, &place, 3_600, 4 * 3_600).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["enforcing"] == 1).await;
    let written = async {
        while !place.state().join("directories.json").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    running.shutdown().await.unwrap();
    google.state().instead.insert("/", (503, String::new()));
    let running = serve(&google, &place, 3_600, 4 * 3_600).await;
    let resumed =
        pb::Hello { enforced_manifest: first.digest(), held_sections: first.named(), ..hello(WORKLOAD) };
    let mut filter = Filter::connect(&running, resumed).await;
    filter.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn pods_that_start_and_end_are_pushed_without_being_asked_for() {
    const PIPELINE: &str = "tekton/prod-cluster/ci/pipeline/release";
    let labels = json!({"tekton.dev/pipeline": "release"});
    let cluster = ClusterApi::start().await;
    cluster.state().pods = vec![pod("a", &labels)];
    let api = ApiOptions { url: cluster.url.clone(), token: None, ca: None };
    let clusters = vec![ClusterOptions { issuer: "prod-cluster".into(), api: Some(api) }];
    let place = Place::new(&[("mesh.yaml", MESH), ("tekton.yaml", TEKTON_RULE)]);
    let (every, fresh_for) = (Duration::from_secs(3_600), Duration::from_secs(4 * 3_600));
    let directories = DirectoryOptions { every, fresh_for, clusters, ..DirectoryOptions::default() };
    let gate = cluster.hold_watch();
    let mut running = start(Options { directories, ..place.options() }).await.unwrap();
    timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let lists = |received: &Received| ["a", "b"].map(|id| lists_in(PIPELINE, received, id));
    assert_eq!(lists(&filter.install().await), [Truth::True, Truth::False]);
    gate.send(event("ADDED", 101, pod("b", &labels))).unwrap();
    assert_eq!(lists(&filter.install().await), [Truth::True, Truth::True]);
    gate.send(event("DELETED", 102, pod("a", &labels))).unwrap();
    assert_eq!(lists(&filter.install().await), [Truth::False, Truth::True]);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_run_of_a_pod_that_no_rule_names_is_in_records_and_found_by_its_name() {
    let cluster = ClusterApi::start().await;
    cluster.state().everywhere = true;
    let labels =
        json!({"tekton.dev/taskRun": "release-7xk2p-build", "tekton.dev/pipelineRun": "release-7xk2p"});
    cluster.state().pods = vec![pod("5f2c8a1e", &labels)];
    let api = ApiOptions { url: cluster.url.clone(), token: None, ca: None };
    let clusters = vec![ClusterOptions { issuer: "prod-cluster".into(), api: Some(api) }];
    let place = Place::new(&[("mesh.yaml", MESH), ("tekton.yaml", TEKTON_RULE)]);
    let directories = DirectoryOptions { clusters, ..DirectoryOptions::default() };
    let folder = Some(place.state().join("decisions"));
    let decisions = tidegate::decisions::Options { folder, ..Default::default() };
    let mut running = start(Options { directories, decisions, ..place.options() }).await.unwrap();
    timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    let claim = |name: &str, value: &str| pb::RecordedClaim {
        issuer: "prod-cluster".into(),
        claim: format!("kubernetes.io.pod.{name}"),
        values: vec![value.into()],
    };
    let called = |id: &str, uid: &str| pb::DecisionRecord {
        issuers: vec!["prod-cluster".into()],
        claims: vec![claim("name", "release-7xk2p-build-pod"), claim("uid", uid)],
        ..refused(id)
    };
    let mut reporter = Reporter::connect(&running).await;
    // Pods are listed at some time after the start.
    let is_known = async {
        for count in 1_u32.. {
            let id = format!("7Q4K-M2XD-{count:04}");
            reporter.report(vec![called(&id, "5f2c8a1e")]).await;
            let found =
                read_json(&until(&running, &format!("/decisions/{id}"), |status, _| status == 200).await);
            let run = found[0]["decision"]["run"].clone();
            if run["kind"] == "pipelineRun" {
                return run;
            }
            // What the token alone says is a guess.
            assert_eq!(
                (&run["kind"], &run["guessed"], &run["byLabels"]),
                (&json!("taskRun"), &json!(true), &json!(null))
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!()
    };
    let run = timeout(PATIENCE, is_known).await.unwrap();
    let expected = json!({
        "kind": "pipelineRun", "id": "release-7xk2p", "issuer": "prod-cluster", "byLabels": true,
        "job": "release-7xk2p-build", "project": "ci",
    });
    assert_eq!(run, expected);
    reporter.report(vec![called("7Q4K-M2XD-9999", "another")]).await;
    until(&running, "/decisions/7Q4K-M2XD-9999", |status, _| status == 200).await;
    let page = read_json(&get(&running, "/decisions?run=release-7xk2p").await.1);
    let entries = page["entries"].as_array().unwrap();
    assert!(!entries.is_empty() && !page.to_string().contains("7Q4K-M2XD-9999"), "{page}");
    for form in ["release-7xk2p-build", "release-7xk2p-build-pod"] {
        let page = read_json(&get(&running, &format!("/decisions?run={form}")).await.1);
        assert!(page["entries"].as_array().unwrap().len() > entries.len(), "{form}: {page}");
    }
    running.shutdown().await.unwrap();
}
