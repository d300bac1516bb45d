//! Changed rules that a canary tries: what the filter itself counts takes them back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate_tests::corpus::spiffe_id;
use tidegate_tests::rig::{Rig, SERVICE};

/// Filters tell their counts every 30 s.
const PATIENCE: Duration = Duration::from_secs(120);

const ROLLOUT: &str = "  rollout: {canary: 1, hold: 1h, abortOn: {newRefusals: 10%, minRequests: 20}}\n";

fn rules(path: &str, rollout: &str) -> String {
    format!(
        "
kind: Guard
metadata: {{name: sales, namespace: sales}}
spec:
  mode: Enforce
  audience: \"https://orders.sales.example\"
{rollout}---
kind: AccessRule
metadata: {{name: orders, namespace: sales}}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from: [{{peer: {{namespace: etl, serviceAccounts: [orders-worker]}}}}]
  to: [{{http: {{methods: [GET], paths: [\"/v1/orders\", \"{path}\"]}}}}]
"
    )
}

/// The only proxy of the workload is its canary.
pub async fn a_canary_goes_back_when_it_refuses_too_much(rig: &Rig) -> Result<()> {
    rig.apply(&rules("/v1/old", "")).await?;
    let endpoint = rig.service_as(&spiffe_id("etl/orders-worker"))?;
    let status = async |path: &str| -> Result<u16> {
        let call = Call::new(Method::GET, path).authority("orders.sales.example");
        Ok(endpoint.call(Protocol::Http2, call).await?.status.as_u16())
    };
    ensure!(status("/v1/old").await? == 200 && status("/v1/new").await? == 403);
    std::fs::write(rig.rules_file(), rules("/v1/new", ROLLOUT))?;
    let workload = || rig.server.as_ref().and_then(|server| server.fleet().workloads.remove(SERVICE));
    rig.wait("the canary to enforce the changed rules", || {
        let found = workload();
        let is_tried =
            found.as_ref().is_some_and(|found| found.canary.is_some() && found.enforcing == rig.threads());
        Ok((!is_tried).then(|| format!("{found:?}")))
    })
    .await?;
    for _ in 0..15 {
        let answers = [status("/v1/new").await?, status("/v1/old").await?];
        ensure!(answers == [200, 403], "{answers:?}");
    }
    let begin = Instant::now();
    while status("/v1/old").await? != 200 {
        ensure!(begin.elapsed() < PATIENCE, "the canary does not go back: {:?}", workload());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("the rules before are back {:?} after the last of 15 refusals", begin.elapsed());
    ensure!(status("/v1/new").await? == 403);
    ensure!(workload().is_some_and(|found| found.canary.is_none()), "{:?}", workload());
    Ok(())
}
