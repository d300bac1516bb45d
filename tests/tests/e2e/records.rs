//! What filters tell of their decisions reaches the control plane, whatever becomes of it meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate_tests::corpus::spiffe_id;
use tidegate_tests::rig::{Rig, SERVICE};

/// Administrators may GET, and each time is recorded; below `/v1/strict` not without.
const RULES: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: admins, namespace: sales}
spec:
  owner: team-platform
  effect: Allow
  mode: Enforce
  audit: full
  from: [{peer: {namespace: ops, serviceAccounts: [admin]}}]
  to: [{http: {methods: [GET], paths: [\"/v1/orders\"]}}]
---
kind: AccessRule
metadata: {name: strict, namespace: sales}
spec:
  owner: team-platform
  effect: Allow
  mode: Enforce
  audit: required
  from: [{peer: {namespace: ops, serviceAccounts: [admin]}}]
  to: [{http: {methods: [GET], paths: [\"/v1/strict\"]}}]
";

/// More than filters send at once.
const REQUESTS: u64 = 300;

/// Records that the control plane has taken: of allowed and of refused requests.
async fn taken(rig: &Rig) -> Result<[u64; 2]> {
    let server = rig.server.as_ref().context("the control plane runs")?;
    let endpoint = Endpoint::plain(server.admin_addr);
    let metrics = endpoint.call(Protocol::Http1, Call::new(Method::GET, "/metrics")).await?;
    let text = String::from_utf8(metrics.body.to_vec())?;
    let count = |outcome: &str| {
        let begin = format!("tidegate_decisions_total{{workload=\"{SERVICE}\",outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&begin));
        line.map_or(Ok(0), |number| number.parse::<u64>())
    };
    Ok([count("allow")?, count("deny")?])
}

/// Which rules decided is told too, and all of it to a control plane that has just started.
async fn used(rig: &Rig, rules: [&str; 2]) -> Result<()> {
    let server = rig.server.as_ref().context("the control plane runs")?;
    let begin = std::time::Instant::now();
    loop {
        let call = Call::new(Method::GET, "/unused?all=true");
        let answer = Endpoint::plain(server.admin_addr).call(Protocol::Http1, call).await?;
        let report: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let is_used = |rule: &&str| {
            let mut all = report["rules"].as_array().into_iter().flatten();
            all.any(|found| {
                let counts = found["proxies"] == 1 && found["counting"] == 1;
                found["rule"] == **rule && found["verdict"] == "used" && counts
            })
        };
        if rules.iter().all(is_used) {
            println!("which rules decided was told {:?} after the last request", begin.elapsed());
            return Ok(());
        }
        ensure!(begin.elapsed() < Duration::from_secs(90), "not told: {report:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn wait(rig: &Rig, expected: [u64; 2]) -> Result<Duration> {
    let begin = std::time::Instant::now();
    while taken(rig).await? != expected {
        let found = taken(rig).await?;
        ensure!(begin.elapsed() < Duration::from_secs(30), "{found:?} records arrived of {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(begin.elapsed())
}

async fn send(rig: &Rig, path: &str, count: u64, expected: u16) -> Result<()> {
    let mut connection = rig.service_as(&spiffe_id("ops/admin"))?.connect(Protocol::Http2).await?;
    for _ in 0..count {
        let call = Call::new(Method::GET, path).authority("orders.sales.example");
        let status = connection.call(call).await?.status.as_u16();
        ensure!(status == expected, "{path}: {status} instead of {expected}");
    }
    Ok(())
}

pub async fn every_decision_that_counts_arrives(rig: &mut Rig) -> Result<()> {
    rig.apply(RULES).await?;
    // The stream for what is required is there soon after the rules are.
    let mut tries = 0;
    while send(rig, "/v1/strict", 1, 200).await.is_err() {
        tries += 1;
        ensure!(tries < 100, "no stream takes records");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let [allowed, denied] = taken(rig).await?;
    send(rig, "/v1/orders", REQUESTS, 200).await?;
    send(rig, "/v1/secret", REQUESTS, 403).await?;
    send(rig, "/v1/strict", REQUESTS, 200).await?;
    let after = wait(rig, [allowed + 2 * REQUESTS, denied + REQUESTS]).await?;
    println!("{} records arrived {after:?} after the last request", 3 * REQUESTS);

    // Nobody takes them: requests go on, but for those that must be recorded. What was kept arrives later.
    rig.stop_server().await?;
    send(rig, "/v1/orders", REQUESTS, 200).await?;
    send(rig, "/v1/secret", REQUESTS, 403).await?;
    let refused = tokio::time::timeout(Duration::from_secs(10), async {
        while send(rig, "/v1/strict", 1, 503).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    refused.await.context("what must be recorded passes although nobody takes records")?;
    rig.start_server().await?;
    let begin = std::time::Instant::now();
    loop {
        // A new server counts from 0; what is refused in between is recorded too.
        let [allowed, denied] = taken(rig).await?;
        if allowed >= REQUESTS && denied > REQUESTS {
            println!("{allowed} and {denied} records of the time without control plane arrived");
            break;
        }
        ensure!(begin.elapsed() < Duration::from_secs(40), "{allowed} and {denied} records arrived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    used(rig, ["sales/admins", "sales/strict"]).await?;
    ensure!(rig.stat("wasmcustom.tidegate_records_dropped_total").await? == 0, "records were dropped");
    ensure!(rig.stat("wasm.*vm_reload").await? == 0, "a VM failed");
    Ok(())
}
