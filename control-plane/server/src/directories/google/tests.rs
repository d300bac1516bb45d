use serde_json::{Value, json};

use super::super::testing::GoogleApi;
use super::*;

const JOBS: &str = "/v1b3/";
const INSTANCES: &str = "/compute/";
const TOKENS: &str = "/computeMetadata/";

fn client_of(api: &GoogleApi) -> Google {
    let url = || api.url.clone();
    Google::new(&GoogleOptions { dataflow: url(), compute: url(), metadata: url() }).unwrap()
}

async fn read(google: &Google) -> Result<Vec<String>, String> {
    let ids = google.workers("acme", "europe-west4", "orders").await;
    match ids {
        Ok(ids) => Ok(ids.into_iter().collect()),
        Err(error) => {
            let error = error.to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(!format!("{google:?}").contains("secret"), "{google:?}");
            Err(error)
        }
    }
}

/// A job with two machines.
async fn api() -> GoogleApi {
    let api = GoogleApi::start().await;
    api.state().job("2026-11-21_01", "orders", "JOB_STATE_RUNNING");
    api.state().instance("11", "2026-11-21_01", "RUNNING");
    api.state().instance("12", "2026-11-21_01", "RUNNING");
    api
}

#[tokio::test]
async fn machines_of_running_jobs_of_exactly_that_name_are_listed() {
    let api = api().await;
    for (id, name, state) in [
        ("2026-11-21_02", "orders-etl", "JOB_STATE_RUNNING"),
        ("2026-11-21_03", "order", "JOB_STATE_RUNNING"),
        ("2026-11-21_04", "Orders", "JOB_STATE_RUNNING"),
        ("2026-11-21_05", "orders", "JOB_STATE_DRAINING"),
        ("2026-11-21_06", "orders", "JOB_STATE_DONE"),
        ("2026-11-21_07", "orders", "JOB_STATE_UPDATED"),
        ("2026-11-21_08", "orders", "JOB_STATE_OF_TOMORROW"),
    ] {
        api.state().job(id, name, state);
        api.state().instance(&id[11..], id, "RUNNING");
    }
    assert_eq!(read(&client_of(&api)).await.unwrap(), ["05", "11", "12"]);
}

#[tokio::test]
async fn only_machines_that_can_send_requests_are_listed() {
    let api = api().await;
    let states = [
        "PROVISIONING",
        "STAGING",
        "STOPPING",
        "SUSPENDING",
        "SUSPENDED",
        "REPAIRING",
        "TERMINATED",
        "PENDING_STOP",
    ];
    for (ix, state) in states.into_iter().enumerate() {
        api.state().instance(&format!("2{ix}"), "2026-11-21_01", state);
    }
    assert_eq!(read(&client_of(&api)).await.unwrap(), ["11", "12", "20", "21"]);
}

#[tokio::test]
async fn every_page_is_read_with_one_token() {
    let api = api().await;
    for job in 0..7 {
        api.state().job(&format!("other-{job}"), "other", "JOB_STATE_RUNNING");
    }
    api.state().job("2026-11-21_02", "orders", "JOB_STATE_RUNNING");
    for id in 100..110 {
        api.state().instance(&id.to_string(), "2026-11-21_02", "RUNNING");
    }
    api.state().instances[7]["zone"] = json!("zones/europe-west4-c");
    api.state().page = 2;
    let google = client_of(&api);
    let expected: Vec<String> = (100..110).chain([11, 12]).map(|id: u32| id.to_string()).collect();
    assert_eq!(read(&google).await.unwrap(), expected);
    assert_eq!((api.count(JOBS), api.count(INSTANCES), api.count(TOKENS)), (5, 6, 1));
    assert_eq!(read(&google).await.unwrap(), expected);
    assert_eq!(api.count(TOKENS), 1);
}

#[tokio::test]
async fn no_job_means_no_machines() {
    let api = GoogleApi::start().await;
    assert_eq!(read(&client_of(&api)).await.unwrap(), [""; 0]);
    assert_eq!(api.count(INSTANCES), 0);
}

#[tokio::test]
async fn a_token_is_replaced_before_it_expires_and_when_it_is_refused() {
    let api = api().await;
    let google = client_of(&api);
    read(&google).await.unwrap();
    assert_eq!(api.count(TOKENS), 1);
    // As if it had been revoked: the next one is accepted.
    api.state().tokens += 1;
    assert_eq!(read(&google).await.unwrap(), ["11", "12"]);
    assert_eq!(api.count(TOKENS), 2);
    // None is accepted: one more is tried, and that is all.
    api.state().refuses_tokens = true;
    let error = read(&google).await.unwrap_err();
    assert!(error.contains("401") && error.contains("invalid credentials"), "{error}");
    assert_eq!(api.count(TOKENS), 3);
    // So short that none can be kept.
    api.state().refuses_tokens = false;
    api.state().expires_in = 60;
    let google = client_of(&api);
    read(&google).await.unwrap();
    assert_eq!(api.count(TOKENS), 5, "one for each request");
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_an_error() {
    let jobs = |more: Value| {
        let mut page = json!({"jobs": [{
            "id": "2026-11-21_01", "name": "orders", "projectId": "acme", "location": "europe-west4",
            "currentState": "JOB_STATE_RUNNING",
        }]});
        page.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        page.to_string()
    };
    let instance =
        |id: &str, label: &str| json!({"id": id, "status": "RUNNING", "labels": {JOB_LABEL: label}});
    let instances = |instance: Value, more: Value| {
        let mut page = json!({"items": {"zones/a": {"instances": [instance]}}});
        page.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        page.to_string()
    };
    let good = || instance("11", "2026-11-21_01");
    for (path, status, body, why) in [
        (JOBS, 200, jobs(json!({"failedLocation": [{"name": "europe-west4"}]})), "did not respond"),
        (JOBS, 200, jobs(json!({"jobs": [{"id": "x", "name": "orders"}]})), "missing field"),
        (JOBS, 200, jobs(json!({"nextPageToken": "0"})), "more than 200 pages"),
        (JOBS, 200, "[]".to_owned(), "invalid"),
        (JOBS, 200, "<html>".to_owned(), "expected value"),
        (JOBS, 200, String::new(), "EOF"),
        (JOBS, 200, "x".repeat(9 << 20), "more than 8388608 bytes"),
        (JOBS, 500, "<html>".to_owned(), "500"),
        (
            JOBS,
            403,
            r#"{"error": {"message": "Dataflow API is off"}}"#.to_owned(),
            "Dataflow API is off; let",
        ),
        (JOBS, 302, String::new(), "302"),
        (JOBS, 204, String::new(), "204"),
        (INSTANCES, 200, instances(good(), json!({"unreachables": ["zones/b"]})), "zones/b did not respond"),
        (INSTANCES, 200, instances(good(), json!({"warning": {"code": "UNREACHABLE"}})), "did not respond"),
        (
            INSTANCES,
            200,
            json!({"items": {"zones/c": {"warning": {"code": "UNREACHABLE"}}}}).to_string(),
            "zones/c did not respond",
        ),
        (INSTANCES, 200, instances(instance("11", "2026-11-21_99"), json!({})), "was asked for"),
        (INSTANCES, 200, instances(json!({"id": "11", "status": "RUNNING"}), json!({})), "was asked for"),
        (INSTANCES, 200, instances(instance("11x", "2026-11-21_01"), json!({})), "not the id of an instance"),
        (INSTANCES, 200, instances(instance("", "2026-11-21_01"), json!({})), "not the id of an instance"),
        (INSTANCES, 200, instances(json!({"id": 11, "status": "RUNNING"}), json!({})), "invalid type"),
        (INSTANCES, 429, r#"{"error": {"message": "quota"}}"#.to_owned(), "429"),
        (TOKENS, 404, String::new(), "service account"),
        (TOKENS, 200, json!({"access_token": "secret-9"}).to_string(), "not a metadata server"),
    ] {
        let api = api().await;
        api.state().instead.insert(path, (status, body.clone()));
        let body: String = body.chars().take(200).collect();
        match read(&client_of(&api)).await {
            Err(error) => assert!(error.contains(why), "{path} {status} {body}: {error}"),
            Ok(ids) => panic!("{path} {status} {body}: {ids:?}"),
        }
    }
}

#[tokio::test]
async fn a_job_of_another_place_or_with_another_id_is_an_error() {
    for (field, value) in
        [("projectId", "other"), ("location", "us-central1"), ("id", "x OR status=RUNNING"), ("id", "")]
    {
        let api = api().await;
        api.state().jobs[0][field] = json!(value);
        let error = read(&client_of(&api)).await.unwrap_err();
        assert!(
            error.contains("was not asked for") || error.contains("not the id of a job"),
            "{field} {value}: {error}"
        );
        assert_eq!(api.count(INSTANCES), 0, "{field} {value}");
    }
}

#[tokio::test]
async fn too_many_machines_are_an_error() {
    let api = api().await;
    for id in 0..20_000 {
        api.state().instance(&format!("9{id}"), "2026-11-21_01", "RUNNING");
    }
    api.state().page = 2_000;
    let error = read(&client_of(&api)).await.unwrap_err();
    assert!(error.contains("more than 20000 instances"), "{error}");
}

#[tokio::test]
async fn what_a_metadata_server_says_is_never_quoted() {
    use super::super::testing::{answer, serve};
    for body in [
        json!({"access_token": "secret", "expires_in": "secret", "token_type": "Bearer"}),
        json!({"access_token": ["secret"], "expires_in": 1, "token_type": "Bearer"}),
        json!({"access_token": "secret\nsecret", "expires_in": 600, "token_type": "Bearer"}),
        json!({"access_token": "", "expires_in": 600, "token_type": "Bearer"}),
        json!({"access_token": "secret", "expires_in": 600, "token_type": "secret"}),
        json!("secret"),
    ] {
        let text = body.to_string();
        let url = serve(move |_| {
            let mut answer = answer(200, text.clone());
            answer.headers_mut().insert("metadata-flavor", "Google".parse().unwrap());
            answer
        })
        .await;
        let options = GoogleOptions { dataflow: url.clone(), compute: url.clone(), metadata: url };
        let error = read(&Google::new(&options).unwrap()).await.unwrap_err();
        assert!(error.starts_with("no credentials: "), "{body}: {error}");
    }
}
