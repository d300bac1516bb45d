//! Envoy's own counters, Prometheus and the OTLP receiver agree.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::envoy::EnvoyRelease;
use tidegate::export::queue::Limits;
use tidegate::export::{Options, Pace, Protocol as Otlp, Signal, Target};
use tidegate_tests::corpus::spiffe_id;
use tidegate_tests::otlp::Receiver;
use tidegate_tests::rig::{Rig, SERVICE, Setup};

use super::prometheus::Prometheus;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(90);
const ALLOWED: u32 = 30;
/// By another method, and by another peer.
const REFUSED: u32 = 12;

/// Administrators may GET below `/v1`; a rule in Shadow mode would not have it.
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
  from: [{peer: {namespace: ops, serviceAccounts: [admin]}}]
  to: [{http: {methods: [GET], paths: [\"/v1/{**}\"]}}]
---
kind: AccessRule
metadata: {name: not-even-admins, namespace: sales}
spec:
  owner: team-platform
  effect: Deny
  mode: Shadow
  from: [{peer: {namespace: ops, serviceAccounts: [admin]}}]
  to: [{http: {methods: [GET], paths: [\"/v1/secret\"]}}]
";

fn target(signal: Signal, receiver: &Receiver) -> Result<Option<Target>> {
    Ok(Some(Target::new(signal, Otlp::Grpc, format!("http://{}", receiver.grpc).parse()?)))
}

async fn call(rig: &Rig, peer: &str, method: Method, path: &str) -> Result<u16> {
    let call = Call::new(method, path).authority("orders.sales.example");
    let answer = rig.service_as(&spiffe_id(peer))?.call(Protocol::Http2, call).await?;
    Ok(answer.status.as_u16())
}

/// Waits until `probe` gives `expected`.
async fn until<F>(what: &str, expected: f64, probe: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<f64>>,
{
    let begin = Instant::now();
    loop {
        let found = probe().await?;
        if found == expected {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{what}: {found} instead of {expected}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_numbers_from_three_sides() -> Result<()> {
    let receiver = Receiver::start().await?;
    let export = Options {
        logs: None,
        metrics: target(Signal::Metrics, &receiver)?,
        traces: None,
        resource: Vec::new(),
        interval: Duration::from_millis(500),
        queue: Limits::default(),
        pace: Pace::default(),
    };
    let rig = Rig::start_exporting(Setup::new(EnvoyRelease::Current, 2), export).await?;
    let server = rig.server.as_ref().context("the control plane runs")?;
    rig.apply(RULES).await?;
    let targets =
        [("envoy", rig.envoy.admin(), "/stats/prometheus"), ("tidegate", server.admin_addr, "/metrics")];
    let Some(prometheus) = Prometheus::start(&targets).await? else {
        println!("SKIPPED: no `prometheus` here (Debian's package `prometheus`)");
        return Ok(());
    };
    for _ in 0..3 {
        for number in 0..ALLOWED / 3 {
            let path = if number == 0 { "/v1/secret" } else { "/v1/orders" };
            ensure!(call(&rig, "ops/admin", Method::GET, path).await? == 200, "GET is allowed");
        }
        for _ in 0..REFUSED / 6 {
            ensure!(call(&rig, "ops/admin", Method::POST, "/v1/orders").await? == 403, "POST is refused");
            ensure!(call(&rig, "etl/other", Method::GET, "/v1/orders").await? == 403, "others are refused");
        }
    }
    let (allowed, refused) = (f64::from(ALLOWED), f64::from(REFUSED));

    // Envoy.
    #[allow(clippy::cast_precision_loss)]
    let of_envoy = |name: &'static str| {
        let envoy = &rig.envoy;
        async move { Ok(envoy.stats(name).await?.values().sum::<u64>() as f64) }
    };
    until("Envoy, allowed", allowed, || of_envoy("wasmcustom.tidegate_requests_allowed_total")).await?;
    until("Envoy, refused", refused, || of_envoy("wasmcustom.tidegate_requests_denied_total")).await?;
    // Prometheus, of Envoy and of the control plane.
    let of_control_plane = |outcome: &str| {
        format!(
            r#"tidegate_filter_requests_total{{job="tidegate",workload="{SERVICE}",outcome="{outcome}"}}"#
        )
    };
    for (query, expected) in [
        (r#"tidegate_requests_allowed_total{job="envoy"}"#.to_owned(), allowed),
        (r#"tidegate_requests_denied_total{job="envoy"}"#.to_owned(), refused),
        (r#"tidegate_shadow_differences_total{job="envoy"}"#.to_owned(), 3.0),
        (of_control_plane("allow"), allowed),
        (of_control_plane("deny"), refused),
        (r#"tidegate_filter_shadow_differences_total{job="tidegate"}"#.to_owned(), 3.0),
        (r#"tidegate_filter_vms{state="behind"}"#.to_owned(), 0.0),
    ] {
        let sum = format!("sum({query})");
        until(&query, expected, || prometheus.sum(&sum)).await?;
    }

    // The receiver.
    for (outcome, expected) in [("allow", allowed), ("deny", refused)] {
        let labels = [("tidegate.workload", SERVICE), ("tidegate.outcome", outcome)];
        let figure =
            || async { Ok(receiver.taken().figure("tidegate.filter_requests", &labels).unwrap_or(0.0)) };
        until(&format!("OTLP, {outcome}"), expected, figure).await?;
    }
    Ok(())
}
