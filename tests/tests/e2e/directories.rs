//! The workers of a Dataflow job, as Google's APIs list them: new ones are let in at once, stale readings let nobody in
//! unless a rule says so.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::issuers::GoogleInstance;
use tidegate_tests::corpus::{AUDIENCE, dataflow_worker};
use tidegate_tests::rig::Rig;

use crate::google_api::GoogleApi;

const JOB: &str = "2026-11-21_00_00_00-1";
const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "
kind: Guard
metadata: {name: edge, namespace: ingress}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: strict, namespace: ingress}
spec:
  owner: team-billing
  target: {gateway: ingress/dataflow-in}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: google, dataflowJob: {name: live-etl, project: acme, region: europe-west4}}]
  to: [{http: {methods: [POST], paths: [\"/v1/strict\"]}}]
---
kind: AccessRule
metadata: {name: degrades, namespace: ingress}
spec:
  owner: team-billing
  target: {gateway: ingress/dataflow-in}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens:
    - issuer: google
      google: {serviceAccount: orders-etl@acme.iam.gserviceaccount.com}
      dataflowJob: {name: live-etl, project: acme, region: europe-west4, onStale: degradeToServiceAccount}
  to: [{http: {methods: [POST], paths: [\"/v1/degrades\"]}}]
---
kind: AccessRule
metadata: {name: publishes, namespace: ingress}
spec:
  owner: team-billing
  target: {gateway: ingress/dataflow-in}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: google, dataflowJob: {name: live-etl, project: acme, region: europe-west4}}]
  to: [{resources: {service: pubsub, actions: [publish], names: [\"projects/acme/topics/orders\"]}}]
";

async fn status(rig: &Rig, machine: &str, path: &str, email: Option<&str>) -> Result<(u16, Duration)> {
    let mut worker = GoogleInstance { instance_id: machine.to_owned(), ..dataflow_worker() };
    if let Some(email) = email {
        email.clone_into(&mut worker.email);
    }
    let token = rig.issuers.google.instance_token(&worker, AUDIENCE).sign()?;
    let call = Call::new(Method::POST, path).authority("orders.sales.example").bearer(&token);
    let begin = Instant::now();
    let answer = rig.gateway()?.call(Protocol::Http2, call).await?;
    Ok((answer.status.as_u16(), begin.elapsed()))
}

/// Publishes over gRPC, where the message names the topic; the call's status.
async fn published(rig: &Rig, machine: &str, topic: &str) -> Result<Option<u32>> {
    let worker = GoogleInstance { instance_id: machine.to_owned(), ..dataflow_worker() };
    let token = rig.issuers.google.instance_token(&worker, AUDIENCE).sign()?;
    let topic = format!("projects/acme/topics/{topic}");
    let message = [&[10, u8::try_from(topic.len())?][..], topic.as_bytes()].concat();
    let call = Call::grpc("/google.pubsub.v1.Publisher/Publish", &message)
        .authority("pubsub.googleapis.com")
        .bearer(&token);
    Ok(rig.gateway()?.call(Protocol::Http2, call).await?.grpc_status())
}

/// Starts with a job of one machine.
pub async fn google() -> GoogleApi {
    let google = GoogleApi::start().await;
    google.state().job(JOB, "live-etl", "JOB_STATE_RUNNING");
    google.state().instance("1001", JOB, "RUNNING");
    google
}

pub async fn workers_come_and_go(rig: &Rig, google: &GoogleApi) -> Result<()> {
    rig.apply(RULES).await?;
    for path in ["/v1/strict", "/v1/degrades"] {
        let (status, _) = status(rig, "1001", path, None).await?;
        ensure!(status == 200, "a worker of the job was answered {status} at {path}");
    }
    // The job scales up: its new machine calls before anybody has looked.
    let mut slowest = Duration::ZERO;
    for machine in ["2001", "2002", "2003"] {
        google.state().instance(machine, JOB, "STAGING");
        let (status, after) = status(rig, machine, "/v1/strict", None).await?;
        ensure!(status == 200, "a new worker was answered {status} after {after:?}");
        slowest = slowest.max(after);
    }
    println!("new workers were let in at their first request, after {slowest:?} at most");
    // The same where the body decides as well: it waits with the request, and is read when the machine is listed.
    for (machine, topic, expected) in [("2004", "orders", 0), ("2005", "payments", 7), ("9998", "orders", 7)]
    {
        if machine != "9998" {
            google.state().instance(machine, JOB, "STAGING");
        }
        let status = published(rig, machine, topic).await?;
        ensure!(
            status == Some(expected),
            "the first message of {machine} to {topic} was answered {status:?}"
        );
    }
    // Machines of other jobs, and of none.
    google.state().instance("3001", "2026-11-21_00_00_00-2", "RUNNING");
    for machine in ["3001", "9999"] {
        for path in ["/v1/strict", "/v1/degrades"] {
            let (status, after) = status(rig, machine, path, None).await?;
            ensure!(status == 403, "machine {machine} was answered {status} at {path} after {after:?}");
            ensure!(after < Duration::from_secs(5), "a refusal took {after:?}");
        }
    }
    // Google's API fails for longer than a reading counts.
    google.state().instead.insert("/compute", (503, "{}".to_owned()));
    let begin = Instant::now();
    while status(rig, "1001", "/v1/strict", None).await?.0 == 200 {
        ensure!(begin.elapsed() < PATIENCE, "a stale reading still lets workers in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("stale after {:?}", begin.elapsed());
    let before = rig.stat("tidegate.*degraded").await?;
    let (degraded, _) = status(rig, "9999", "/v1/degrades", None).await?;
    ensure!(degraded == 200, "the rule that degrades to the service account answered {degraded}");
    let other = Some("other@acme.iam.gserviceaccount.com");
    let (other, _) = status(rig, "1001", "/v1/degrades", other).await?;
    ensure!(other == 403, "another service account was answered {other}");
    let begin = Instant::now();
    while rig.stat("tidegate.*degraded").await? == before {
        ensure!(begin.elapsed() < PATIENCE, "the degraded decision is not counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // And it is back.
    google.state().instead.clear();
    let begin = Instant::now();
    while status(rig, "1001", "/v1/strict", None).await?.0 != 200 {
        ensure!(begin.elapsed() < PATIENCE, "the directory does not recover");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (unlisted, _) = status(rig, "9999", "/v1/degrades", None).await?;
    ensure!(unlisted == 403, "a machine of no job was answered {unlisted} although the reading is fresh");
    Ok(())
}
