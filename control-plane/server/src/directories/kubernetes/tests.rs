use serde_json::{Value, json};

use super::super::ApiOptions;
use super::super::testing::{ClusterApi, event, pod};
use super::*;
use crate::decisions::record::{Claim, Outcome, Recorded};
use crate::decisions::testing::recorded;

const SECOND: Duration = Duration::from_secs(1);

fn labels() -> Value {
    json!({"tekton.dev/pipeline": "release", "tekton.dev/pipelineRun": "release-7xk2p", "tekton.dev/task": "build"})
}

fn cluster_of(api: &ClusterApi, token: Option<&Path>) -> Arc<Cluster> {
    let api = ApiOptions { url: api.url.clone(), token: token.map(Into::into), ca: None };
    Arc::new(Cluster::new(&ClusterOptions { issuer: "prod".into(), api: Some(api) }).unwrap())
}

fn pods_of(api: &ClusterApi) -> Pods {
    Pods::new(cluster_of(api, None), ("ci", TektonKind::Pipeline, "release"), Arc::default())
}

fn ids(pods: &Pods) -> Vec<&str> {
    pods.ids().iter().map(String::as_str).collect()
}

fn bookmark(version: u64) -> String {
    event("BOOKMARK", version, json!({"kind": "PartialObjectMetadata", "metadata": {}}))
}

/// Two pods.
async fn api() -> ClusterApi {
    let api = ClusterApi::start().await;
    api.state().pods = vec![pod("a", &labels()), pod("b", &labels())];
    api
}

#[tokio::test]
async fn the_pods_of_a_pipeline_or_task_are_listed_over_all_pages() {
    let api = api().await;
    api.state().pods.push(pod("c", &labels()));
    api.state().page = 1;
    for (kind, name, selector) in [
        (TektonKind::Pipeline, "release", "tekton.dev/pipeline=release"),
        (TektonKind::Task, "build", "tekton.dev/task=build"),
    ] {
        let mut pods = Pods::new(cluster_of(&api, None), ("ci", kind, name), Arc::default());
        assert_eq!(pods.list().await.unwrap().len(), 3);
        assert_eq!(ids(&pods), ["a", "b", "c"]);
        let asked = std::mem::take(&mut api.state().asked);
        assert_eq!(asked.len(), 3);
        for asked in asked {
            assert_eq!(asked.path, "/api/v1/namespaces/ci/pods");
            assert_eq!(asked.query["labelSelector"], selector);
            assert_eq!(asked.query["fieldSelector"], "status.phase!=Succeeded,status.phase!=Failed");
            assert!(asked.headers["accept"].contains("as=PartialObjectMetadataList"), "{asked:?}");
            assert!(!asked.headers.contains_key("authorization"));
        }
    }
}

#[tokio::test]
async fn the_pods_of_all_runs_are_listed_over_all_namespaces_and_told_with_what_their_labels_say() {
    let api = ClusterApi::start().await;
    api.state().everywhere = true;
    let of_run =
        json!({"tekton.dev/taskRun": "release-7xk2p-build", "tekton.dev/pipelineRun": "release-7xk2p"});
    let mut elsewhere = pod("b", &json!({"tekton.dev/taskRun": "lint-2"}));
    elsewhere["metadata"]["namespace"] = json!("other");
    api.state().pods = vec![pod("a", &of_run), elsewhere];
    api.state().watches = [(vec![event("ADDED", 101, pod("c", &of_run))], false)].into();
    let runs = Arc::<Runs>::default();
    let mut pods = Pods::of_runs(cluster_of(&api, None), runs.clone());
    pods.list().await.unwrap();
    pods.changed(SECOND).await.unwrap();
    assert_eq!(ids(&pods), ["a", "b", "c"]);
    for asked in &api.state().asked {
        assert_eq!(
            (asked.path.as_str(), asked.query["labelSelector"].as_str()),
            ("/api/v1/pods", "tekton.dev/taskRun")
        );
    }
    for (uid, run) in
        [("a", Some("release-7xk2p")), ("b", Some("lint-2")), ("c", Some("release-7xk2p")), ("d", None)]
    {
        assert_eq!(run_of(&runs, "prod", uid).as_deref(), run, "{uid}");
        assert_eq!(run_of(&runs, "other", uid), None, "{uid}");
    }
    api.state().pods = vec![pod("e", &json!({"tekton.dev/pipelineRun": "release-7xk2p"}))];
    let error = pods.list().await.unwrap_err().to_string();
    assert!(error.contains("was not asked for"), "{error}");
}

/// The run that a record is said to be of whose caller has this uid.
pub(crate) fn run_of(runs: &Runs, issuer: &str, uid: &str) -> Option<String> {
    let (issuer, claim) = (issuer.to_owned(), "kubernetes.io.pod.uid".to_owned());
    let claims = vec![Claim { issuer, claim, values: vec![uid.to_owned()] }];
    let mut called = Recorded { claims, run: None, ..recorded("7Q4K-M2XD-0001", Outcome::Deny, 0) };
    runs.complete(&mut called);
    called.run.map(|run| run.id)
}

#[tokio::test]
async fn a_watch_brings_changes_and_goes_on_where_the_last_one_ended() {
    let api = api().await;
    let first = [
        event("ADDED", 101, pod("c", &labels())),
        event("MODIFIED", 102, pod("c", &labels())),
        event("DELETED", 103, pod("a", &json!({}))),
        event("DELETED", 104, pod("unknown", &labels())),
        bookmark(200),
    ];
    // However the bytes come.
    let text = first.concat();
    let pieces = text.as_bytes().chunks(7).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
    api.state().watches = [(pieces, true), (vec![event("ADDED", 201, pod("d", &labels()))], false)].into();
    api.state().lasts = SECOND;
    let mut pods = pods_of(&api);
    pods.list().await.unwrap();
    pods.changed(SECOND).await.unwrap();
    assert_eq!(ids(&pods), ["a", "b", "c"]);
    pods.changed(SECOND).await.unwrap();
    assert_eq!(ids(&pods), ["b", "c"]);
    pods.changed(SECOND).await.unwrap();
    assert_eq!(ids(&pods), ["b", "c"], "it ended");
    pods.changed(SECOND).await.unwrap();
    assert_eq!(ids(&pods), ["b", "c", "d"]);
    let asked = api.state().asked.split_off(1);
    let versions: Vec<_> = asked.iter().map(|asked| asked.query["resourceVersion"].clone()).collect();
    assert_eq!(versions, ["100", "200"]);
    assert!(asked.iter().all(|asked| asked.query["timeoutSeconds"] == "1"), "{asked:?}");
    assert!(
        asked
            .iter()
            .all(|asked| asked.headers["accept"].ends_with("as=PartialObjectMetadata;g=meta.k8s.io;v=v1"))
    );
}

#[tokio::test]
async fn a_watch_that_ends_before_its_time_says_nothing() {
    let api = api().await;
    api.state().watches = [(Vec::new(), true), (vec![bookmark(200)], true)].into();
    let mut pods = pods_of(&api);
    pods.list().await.unwrap();
    for _ in 0..2 {
        let error = pods.changed(SECOND * 15).await.unwrap_err().to_string();
        assert!(error.contains("ended after 0 s instead of 15 s"), "{error}");
    }
}

#[tokio::test]
async fn pods_are_listed_anew_when_the_server_forgot_or_cannot_be_understood() {
    let status = |code: u16| json!({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "too old"}});
    let foreign = json!({"tekton.dev/pipeline": "other"});
    let mut elsewhere = pod("x", &labels());
    elsewhere["metadata"]["namespace"] = json!("other");
    for (lines, why) in [
        (vec![format!("{}\n", status(410))], "no longer known"),
        (vec![format!("{}\n", status(500))], "too old"),
        (vec!["{\n".to_owned()], "not an event"),
        (vec!["<html>\n".to_owned()], "not an event"),
        (vec![event("ADDED", 101, pod("x", &foreign))], "was not asked for"),
        (vec![event("ADDED", 101, pod("x", &json!({})))], "was not asked for"),
        (vec![event("ADDED", 101, elsewhere)], "was not asked for"),
        (vec![event("ADDED", 101, pod("", &labels()))], "was not asked for"),
        (vec![event("RENAMED", 101, pod("x", &labels()))], "not a kind of event"),
        (vec![r#"{"type": "ADD"#.to_owned()], "ended within an event"),
        (vec!["x".repeat(1 << 20); 4], "more than 2097152 bytes"),
    ] {
        let api = api().await;
        api.state().watches = [(lines.clone(), true)].into();
        let mut pods = pods_of(&api);
        pods.list().await.unwrap();
        let error = pods.changed(SECOND).await.unwrap_err().to_string();
        let line: String = lines[0].chars().take(100).collect();
        assert!(error.contains(why), "{line}: {error}");
        assert_eq!(ids(&pods), ["a", "b"], "{line}");
    }
    let api = api().await;
    let mut pods = pods_of(&api);
    pods.list().await.unwrap();
    api.state().instead = [(410, String::new()), (500, String::new())].into();
    assert!(matches!(pods.changed(SECOND).await, Err(ReadError::Gone { .. })));
    assert!(matches!(pods.changed(SECOND).await, Err(ReadError::Status { .. })));
}

#[tokio::test]
async fn a_list_that_is_not_what_was_asked_for_is_an_error() {
    let list = |items: Value| json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
    for (status, body, why) in [
        (200, list(json!([pod("x", &json!({"tekton.dev/pipeline": "other"}))])), "was not asked for"),
        (200, list(json!([{"metadata": {"uid": "x"}}])), "missing field"),
        (200, json!({"metadata": {}, "items": []}).to_string(), "resourceVersion"),
        (200, json!({"metadata": {"resourceVersion": "1", "continue": "0"}}).to_string(), ""),
        (200, "<html>".to_owned(), "expected value"),
        (403, r#"{"kind": "Status", "message": "pods is forbidden"}"#.to_owned(), "pods is forbidden"),
        (410, String::new(), "no longer known"),
        (301, String::new(), "301"),
    ] {
        let api = api().await;
        // Endless pages are cut as well; only then this is asked for more than once.
        api.state().instead = vec![(status, body.clone()); 300].into();
        let error = pods_of(&api).list().await.unwrap_err().to_string();
        assert!(error.contains(why), "{body}: {error}");
    }
}

#[tokio::test]
async fn the_token_is_read_for_every_request_and_never_shown() {
    let api = api().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let mut pods =
        Pods::new(cluster_of(&api, Some(&file)), ("ci", TektonKind::Pipeline, "release"), Arc::default());
    let error = pods.list().await.unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    for token in ["secret-1", "secret-2"] {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        pods.list().await.unwrap();
        let asked = api.state().asked.pop().unwrap();
        assert_eq!(asked.headers["authorization"], format!("Bearer {token}"));
    }
    for token in ["", "secret\nsecret", "secret\u{7f}"] {
        std::fs::write(&file, token).unwrap();
        let error = pods.list().await.unwrap_err().to_string();
        assert!(error.contains("not a bearer token") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_pod_uses_the_files_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let ca = rcgen::generate_simple_self_signed(vec!["kubernetes".to_owned()]).unwrap().cert.pem();
    std::fs::write(folder.path().join("ca.crt"), ca).unwrap();
    let cluster = Cluster::of_this_pod("prod", "fd00::1", "443", folder.path()).unwrap();
    assert_eq!(cluster.url.as_str(), "https://[fd00::1]/");
    assert_eq!(cluster.token, Some(folder.path().join("token")));
    std::fs::write(folder.path().join("ca.crt"), "no certificate").unwrap();
    let error = Cluster::of_this_pod("prod", "10.0.0.1", "443", folder.path()).unwrap_err().to_string();
    assert!(error.contains("ca.crt") && error.contains("no certificate"), "{error}");
}
