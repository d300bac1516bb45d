//! An issuer that is down, silent, floods, redirects or talks nonsense changes nothing but what is reported of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::issuers::Behaviour;
use tidegate_tests::corpus::{spiffe_id, token_of};
use tidegate_tests::rig::{Rig, SERVICE};

const PATIENCE: Duration = Duration::from_secs(30);

const RULES: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: either, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from:
  - {anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 4711}}]}
  - {anyMesh: true, tokens: [{issuer: prod-cluster, kubernetes: {namespace: etl}}]}
  to: [{http: {methods: [GET], paths: [\"/v1/orders\"]}}]
";

async fn status(rig: &Rig, token: &str) -> Result<u16> {
    let call = Call::new(Method::GET, "/v1/orders").authority("orders.sales.example").bearer(token);
    let endpoint = rig.service_as(&spiffe_id("etl/orders-worker"))?;
    Ok(endpoint.call(Protocol::Http2, call).await?.status.as_u16())
}

/// What the control plane reports of an issuer's last fetch.
fn error(rig: &Rig, issuer: &str) -> Result<Option<String>> {
    let server = rig.server.as_ref().context("the control plane is down")?;
    let reports = server.issuers();
    Ok(reports.into_iter().find(|report| report.name == issuer).context("no report")?.error)
}

pub async fn an_issuer_that_misbehaves_changes_nothing(rig: &Rig) -> Result<()> {
    rig.apply(RULES).await?;
    let manifest = || {
        let fleet = rig.server.as_ref().map(|server| server.fleet());
        fleet.and_then(|fleet| fleet.workloads.get(SERVICE).map(|report| report.manifest.clone()))
    };
    let before = manifest();
    let (gitlab, cluster) = (token_of(rig, "gitlab")?.sign()?, token_of(rig, "cluster")?.sign()?);
    let unknown = token_of(rig, "gitlab")?.header(|header| header["kid"] = "unknown".into()).sign()?;
    for behaviour in [
        Behaviour::Down,
        Behaviour::Huge,
        Behaviour::Elsewhere,
        Behaviour::Garbage,
        Behaviour::Empty,
        Behaviour::Silent,
    ] {
        rig.issuers.gitlab.behave(behaviour);
        // A token of a key that nobody knows makes the control plane ask now.
        let begin = Instant::now();
        while error(rig, "gitlab")?.is_none() {
            ensure!(begin.elapsed() < PATIENCE, "{behaviour:?} is not reported");
            let token = token_of(rig, "gitlab")?;
            let kid = format!("unknown-{}", begin.elapsed().as_millis());
            let token = token.header(|header| header["kid"] = kid.into()).sign()?;
            ensure!(
                status(rig, &token).await? == 401,
                "{behaviour:?}: a token of an unknown key is accepted"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let told = error(rig, "gitlab")?.unwrap_or_default();
        println!("{behaviour:?}: {told}");
        for (name, token) in [("gitlab", &gitlab), ("cluster", &cluster)] {
            ensure!(status(rig, token).await? == 200, "{behaviour:?}: a token of {name} is refused");
        }
        ensure!(status(rig, &unknown).await? == 401, "{behaviour:?}: a token of an unknown key is accepted");
        ensure!(error(rig, "prod-cluster")?.is_none(), "{behaviour:?}: the other issuer is affected");
        ensure!(manifest() == before, "{behaviour:?}: another manifest is on offer");
        // It recovers by itself.
        rig.issuers.gitlab.behave(Behaviour::Normal);
        let begin = Instant::now();
        while error(rig, "gitlab")?.is_some() {
            ensure!(begin.elapsed() < 2 * PATIENCE, "{behaviour:?}: the issuer does not recover");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
