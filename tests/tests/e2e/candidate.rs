//! A candidate beside the rules in force: everything is answered as without it, and what it would do is counted.

use anyhow::{Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate_tests::corpus::{spiffe_id, token_of};
use tidegate_tests::rig::Rig;

const RULES: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: orders, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}
    tokens: [{issuer: prod-cluster}]
  to: [{http: {methods: [GET], paths: [\"/v1/orders\", \"/v1/old\"]}}]
";

/// Other paths, and an issuer whose tokens no rule in force accepts: nobody has its keys for the candidate.
const CANDIDATE: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: orders, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}
    tokens: [{issuer: prod-cluster}]
  to: [{http: {methods: [GET], paths: [\"/v1/orders\", \"/v1/new\"]}}]
---
kind: AccessRule
metadata: {name: release, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from: [{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 4711}}]}]
  to: [{http: {methods: [GET], paths: [\"/v1/release\"]}}]
";

const COUNTERS: [&str; 4] = ["compared", "would_allow", "would_deny", "unknown"];

async fn counted(rig: &Rig) -> Result<[u64; 4]> {
    let mut counted = [0; 4];
    for (count, name) in counted.iter_mut().zip(COUNTERS) {
        *count = rig.stat(&format!("tidegate_candidate_{name}_total")).await?;
    }
    Ok(counted)
}

pub async fn a_candidate_is_counted_and_changes_nothing(rig: &mut Rig) -> Result<()> {
    rig.apply(RULES).await?;
    let mut without = Vec::new();
    for beside in [false, true] {
        if beside {
            rig.stop_server().await?;
            rig.set_candidate(CANDIDATE)?;
            rig.start_server().await?;
            rig.wait("every VM to compare", || {
                let report = rig.server.as_ref().map(tidegate::serve::Running::candidate);
                let at =
                    report.as_ref().and_then(|report| report.workloads.get(tidegate_tests::rig::SERVICE));
                let ready =
                    at.is_some_and(|at| at.comparing == rig.threads() && at.connected == at.comparing);
                Ok((!ready).then(|| format!("{report:?}")))
            })
            .await?;
        }
        let endpoint = rig.service_as(&spiffe_id("etl/orders-worker"))?;
        let mut answers = Vec::new();
        for (path, issuer) in [
            ("/v1/orders", Some("cluster")),
            ("/v1/orders", None),
            ("/v1/old", Some("cluster")),
            ("/v1/new", Some("cluster")),
            ("/v1/release", Some("gitlab")),
            ("/v1/other", Some("cluster")),
        ] {
            let mut call = Call::new(Method::GET, path).authority("orders.sales.example");
            if let Some(issuer) = issuer {
                call = call.bearer(&token_of(rig, issuer)?.sign()?);
            }
            answers.push(endpoint.call(Protocol::Http2, call).await?.status.as_u16());
        }
        if beside {
            ensure!(answers == without, "with a candidate: {answers:?}, without: {without:?}");
        } else {
            ensure!(answers == [200, 401, 200, 403, 401, 403], "{answers:?}");
            ensure!(counted(rig).await? == [0; 4], "{:?}", counted(rig).await?);
            without = answers;
        }
    }
    let begin = std::time::Instant::now();
    let expected = [6, 1, 1, 1];
    while counted(rig).await? != expected {
        ensure!(begin.elapsed().as_secs() < 30, "counted {:?}, expected {expected:?}", counted(rig).await?);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    println!("with a candidate {without:?} stay; {COUNTERS:?} are {expected:?}");
    Ok(())
}
