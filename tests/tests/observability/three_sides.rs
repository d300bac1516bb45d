//! Envoy's own counters, Prometheus and the OTLP receiver agree, and so does the access log; the dashboard shows it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::envoy::EnvoyRelease;
use tidegate::directories::GoogleOptions;
use tidegate::export::queue::Limits;
use tidegate::export::{Options, Pace, Protocol as Otlp, Signal, Target};
use tidegate_tests::corpus::{spiffe_id, token_of};
use tidegate_tests::otlp::{Receiver, text};
use tidegate_tests::rig::{Observed, Rig, SERVICE, Setup};

use super::dashboard;
use super::prometheus::Prometheus;
use crate::google_api::GoogleApi;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(90);
/// To an administrator.
const ALLOWED: u32 = 30;
/// To a job of a pipeline.
const PUBLISHED: u32 = 6;
/// By another method, and by another peer.
const REFUSED: u32 = 12;
/// What every request comes with (W3C Trace Context), and what a span is a child of.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Administrators may GET below `/v1`; a rule in Shadow mode would not have it. A pipeline publishes. Health is nobody's business.
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
  to: [{http: {methods: [GET], paths: [\"/v1/{**}\"]}}]
---
kind: AccessRule
metadata: {name: release-publishes, namespace: sales}
spec:
  owner: team-release
  effect: Allow
  mode: Enforce
  audit: full
  from: [{peer: {namespace: ci, serviceAccounts: [runner]}, tokens: [{issuer: gitlab, gitlab: {project: 4711}}]}]
  to: [{http: {methods: [POST], paths: [\"/v1/projects/{**}\"]}}]
---
kind: AccessRule
metadata: {name: health, namespace: sales}
spec:
  owner: team-platform
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: ops, serviceAccounts: [admin]}}]
  to: [{http: {methods: [GET], paths: [\"/healthz\"]}}]
---
kind: Guard
metadata: {name: edge, namespace: ingress}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: workers-enter, namespace: ingress}
spec:
  owner: team-billing
  target: {gateway: ingress/dataflow-in}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: google, dataflowJob: {name: live-etl, project: acme, region: europe-west4}}]
  to: [{http: {methods: [POST], paths: [\"/v1/orders/{id}\"]}}]
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

/// Makes filters enforce something else.
const LATER: &str = "---
kind: AccessRule
metadata: {name: readiness, namespace: sales}
spec:
  owner: team-platform
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: ops, serviceAccounts: [admin]}}]
  to: [{http: {methods: [GET], paths: [\"/readyz\"]}}]
";

fn target(signal: Signal, receiver: &Receiver) -> Result<Option<Target>> {
    Ok(Some(Target::new(signal, Otlp::Grpc, format!("http://{}", receiver.grpc).parse()?)))
}

fn traced(method: Method, path: &str) -> Call {
    Call::new(method, path)
        .authority("orders.sales.example")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
}

async fn call(rig: &Rig, peer: &str, method: Method, path: &str) -> Result<u16> {
    let answer = rig.service_as(&spiffe_id(peer))?.call(Protocol::Http2, traced(method, path)).await?;
    Ok(answer.status.as_u16())
}

/// As a job of a pipeline, to a topic.
async fn publish(rig: &Rig, token: &str) -> Result<u16> {
    let call = traced(Method::POST, "/v1/projects/acme/topics/orders:publish")
        .authority("pubsub.googleapis.com")
        .bearer(token);
    Ok(rig.service_as(&spiffe_id("ci/runner"))?.call(Protocol::Http2, call).await?.status.as_u16())
}

/// All of the traffic, in three parts with a pause behind each.
async fn traffic(rig: &Rig, pause: Duration) -> Result<()> {
    let token = token_of(rig, "gitlab")?.sign()?;
    for _ in 0..3 {
        for number in 0..ALLOWED / 3 {
            let path = if number == 0 { "/v1/secret" } else { "/v1/orders" };
            ensure!(call(rig, "ops/admin", Method::GET, path).await? == 200, "GET is allowed");
        }
        for _ in 0..PUBLISHED / 3 {
            ensure!(publish(rig, &token).await? == 200, "the pipeline may publish");
        }
        for _ in 0..REFUSED / 6 {
            ensure!(call(rig, "ops/admin", Method::POST, "/v1/orders").await? == 403, "POST is refused");
            ensure!(call(rig, "etl/other", Method::GET, "/v1/orders").await? == 403, "others are refused");
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// A mesh with what README says to Istio, and a control plane that exports everything.
async fn observed(release: EnvoyRelease, receiver: &Receiver) -> Result<Rig> {
    let readme = include_str!("../../../README.md");
    let block = readme.split("```yaml\n").find(|block| block.starts_with("meshConfig:"));
    let block = block.and_then(|block| block.split("```").next()).context("README configures Istio")?;
    let values: Value = serde_saphyr::from_str(block)?;
    let mesh = &values["meshConfig"];
    let tags = mesh["defaultConfig"]["extraStatTags"].as_array().context("extraStatTags")?;
    let export = Options {
        logs: target(Signal::Logs, receiver)?,
        metrics: target(Signal::Metrics, receiver)?,
        traces: target(Signal::Traces, receiver)?,
        resource: Vec::new(),
        interval: Duration::from_millis(500),
        queue: Limits::default(),
        pace: Pace::default(),
    };
    let google = GoogleApi::start().await;
    google.state().job("2026-11-21_00_00_00-1", "live-etl", "JOB_STATE_RUNNING");
    let google = GoogleOptions {
        dataflow: google.url.clone(),
        compute: google.url.clone(),
        metadata: google.url.clone(),
    };
    let observed = Observed {
        directories: tidegate::directories::Options { google, ..Default::default() },
        export,
        stat_tags: tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        format: mesh["accessLogFormat"].as_str().context("accessLogFormat")?.to_owned(),
    };
    let rig = Rig::start_observed(Setup::new(release, 2), observed).await?;
    rig.apply(RULES).await?;
    Ok(rig)
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
    let rig = observed(EnvoyRelease::Current, &receiver).await?;
    let server = rig.server.as_ref().context("the control plane runs")?;
    let targets =
        [("envoy", rig.envoy.admin(), "/stats/prometheus"), ("tidegate", server.admin_addr, "/metrics")];
    let Some(prometheus) = Prometheus::start(&targets).await? else {
        println!("SKIPPED: no `prometheus` here (Debian's package `prometheus`)");
        return Ok(());
    };
    // So that there is something that grows: one more rule is enforced, and traffic comes for longer than scrapes are apart.
    prometheus.until_scraped().await?;
    rig.apply(&format!("{RULES}{LATER}")).await?;
    traffic(&rig, Duration::from_secs(3)).await?;
    let (allowed, refused) = (f64::from(ALLOWED + PUBLISHED), f64::from(REFUSED));

    // Envoy.
    #[allow(clippy::cast_precision_loss)]
    let of_envoy = |name: &'static str| {
        let envoy = &rig.envoy;
        async move { Ok(envoy.stats(name).await?.values().sum::<u64>() as f64) }
    };
    until("Envoy, allowed", allowed, || of_envoy("wasmcustom.tidegate_requests_allowed_total")).await?;
    until("Envoy, refused", refused, || of_envoy("wasmcustom.tidegate_requests_denied_total")).await?;
    let by_reason = "tidegate_reason=.=no_allow_matched;.;tidegate_refusals_by_reason_total";
    until("Envoy, by reason", refused, || of_envoy(by_reason)).await?;
    // Prometheus, of Envoy and of the control plane.
    let of_control_plane = |metric: &str, outcome: &str| {
        format!(r#"{metric}{{job="tidegate",workload="{SERVICE}",outcome="{outcome}"}}"#)
    };
    let published = r#"pipeline="data/orders",service="pubsub",resource="projects/acme/topics/orders""#;
    for (query, expected) in [
        (r#"tidegate_requests_allowed_total{job="envoy"}"#.to_owned(), allowed),
        (r#"tidegate_requests_denied_total{job="envoy"}"#.to_owned(), refused),
        (r#"tidegate_refusals_by_reason_total{tidegate_reason="no_allow_matched"}"#.to_owned(), refused),
        ("tidegate_refusals_by_reason_total".to_owned(), refused),
        (r#"tidegate_shadow_differences_total{job="envoy"}"#.to_owned(), 3.0),
        (of_control_plane("tidegate_filter_requests_total", "allow"), allowed),
        (of_control_plane("tidegate_filter_requests_total", "deny"), refused),
        (of_control_plane("tidegate_rule_decisions_total", "allow"), allowed),
        (of_control_plane("tidegate_rule_decisions_total", "deny"), refused),
        (of_control_plane("tidegate_pipeline_decisions_total", "deny"), refused),
        (format!("tidegate_pipeline_decisions_total{{{published}}}"), f64::from(PUBLISHED)),
        (r#"tidegate_filter_shadow_differences_total{job="tidegate"}"#.to_owned(), 3.0),
        (r#"tidegate_rule_differences_total{rule="sales/not-even-admins",by="shadow"}"#.to_owned(), 3.0),
        (r#"tidegate_filter_vms{state="behind"}"#.to_owned(), 0.0),
    ] {
        let sum = format!("sum({query})");
        until(&query, expected, || prometheus.sum(&sum)).await?;
    }

    // The receiver.
    for (outcome, expected) in [("allow", allowed), ("deny", refused)] {
        let labels = [("tidegate.workload", SERVICE), ("tidegate.outcome", outcome)];
        for name in ["tidegate.filter_requests", "tidegate.rule_decisions"] {
            let figure = || async { Ok(receiver.taken().figure(name, &labels).unwrap_or(0.0)) };
            until(&format!("OTLP, {name}, {outcome}"), expected, figure).await?;
        }
    }
    the_receiver_knows_every_trace(&receiver).await?;
    the_access_log_names_every_decision(&rig, &receiver).await?;
    every_panel_shows_something(&prometheus).await?;
    the_access_log_tells_what_was_ended(&rig).await
}

/// The same format and tags; labels and lines are made by another Envoy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_envoy_tells_reasons_and_decisions_as_well() -> Result<()> {
    let receiver = Receiver::start().await?;
    let rig = observed(EnvoyRelease::Oldest, &receiver).await?;
    traffic(&rig, Duration::ZERO).await?;
    let line =
        format!(r#"tidegate_refusals_by_reason_total{{tidegate_reason="no_allow_matched"}} {REFUSED}"#);
    let reasons = || async {
        let text = rig.envoy.admin_get("/stats/prometheus").await?;
        Ok(if text.lines().any(|found| found == line) { 1.0 } else { 0.0 })
    };
    until(&line, 1.0, reasons).await?;
    the_receiver_knows_every_trace(&receiver).await?;
    the_access_log_names_every_decision(&rig, &receiver).await?;
    the_access_log_tells_what_was_ended(&rig).await
}

/// Logs and spans of every decision are of the trace that its request came with, through Envoy.
async fn the_receiver_knows_every_trace(receiver: &Receiver) -> Result<()> {
    let all = f64::from(ALLOWED + PUBLISHED + REFUSED);
    #[allow(clippy::cast_precision_loss)]
    let came = || async {
        let taken = receiver.taken();
        Ok(taken.logs.len().min(taken.spans.len()) as f64)
    };
    until("OTLP, logs and spans", all, came).await?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let taken = receiver.taken();
    for (_, record) in &taken.logs {
        ensure!(hex(&record.trace_id) == TRACE && hex(&record.span_id) == PARENT, "{record:?}");
        ensure!(record.flags == 1, "{record:?}");
        ensure!(text(&record.attributes, "tidegate.workload") == Some(SERVICE), "{record:?}");
        let refused = text(&record.attributes, "tidegate.decision.outcome") == Some("deny");
        ensure!(record.severity_text == if refused { "WARN" } else { "INFO" }, "{record:?}");
    }
    for span in &taken.spans {
        ensure!(hex(&span.trace_id) == TRACE && hex(&span.parent_span_id) == PARENT, "{span:?}");
        ensure!(span.name == "tidegate.decide", "{span:?}");
    }
    ensure!(taken.logs.len() == taken.spans.len(), "{} and {}", taken.logs.len(), taken.spans.len());
    Ok(())
}

/// What is recorded is in Envoy's access log by the same id, with the same outcome, reason and rule. What is not recorded is
/// told nobody.
async fn the_access_log_names_every_decision(rig: &Rig, receiver: &Receiver) -> Result<()> {
    const HEALTH: usize = 20;
    for _ in 0..HEALTH {
        ensure!(call(rig, "ops/admin", Method::GET, "/healthz").await? == 200, "health is allowed");
    }
    let expected = usize::try_from(ALLOWED + PUBLISHED + REFUSED)? + HEALTH;
    #[allow(clippy::cast_precision_loss)]
    let lines = || async { Ok(rig.access_log()?.len() as f64) };
    #[allow(clippy::cast_precision_loss)]
    until("lines of the access log", expected as f64, lines).await?;
    let taken = receiver.taken();
    let (mut found, mut untold) = (0, 0);
    for line in rig.access_log()? {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [.., outcome, reason, rule, id] = words[..] else { anyhow::bail!("{line}") };
        if !["allow", "deny"].contains(&outcome) {
            ensure!(id == "-" && line.contains("/healthz"), "{line}");
            untold += 1;
            continue;
        }
        let is_it = |attributes: &[_]| text(attributes, "tidegate.decision.id") == Some(id);
        let Some((_, record)) = taken.logs.iter().find(|(_, record)| is_it(&record.attributes)) else {
            // One of 100, which the receiver may not have yet.
            ensure!(rule == "sales/health", "{line} is not among the receiver's records");
            continue;
        };
        for (name, value) in [
            ("tidegate.decision.outcome", Some(outcome)),
            ("tidegate.decision.reason", Some(reason)),
            ("tidegate.rule.name", Some(rule).filter(|rule| *rule != "-")),
        ] {
            ensure!(text(&record.attributes, name) == value, "{line}: {name}: {record:?}");
        }
        found += 1;
    }
    ensure!(found >= ALLOWED + PUBLISHED + REFUSED, "{found} of the lines are of recorded decisions");
    ensure!(untold > HEALTH / 2, "{untold} lines of what is not recorded");
    Ok(())
}

/// A stream that a change of rules ends is told as ended, in place of what was told when it was allowed.
async fn the_access_log_tells_what_was_ended(rig: &Rig) -> Result<()> {
    let mut connection = rig.service_as(&spiffe_id("ops/admin"))?.connect(Protocol::Http2).await?;
    let call = traced(Method::GET, "/v1/orders/stream?interval_ms=20");
    let (head, mut body) = connection.start(call).await?.into_parts();
    ensure!(head.status == 200, "the stream is allowed: {}", head.status);
    rig.apply(&RULES.replace("/v1/{**}", "/v1/orders")).await?;
    let ends = tokio::time::timeout(PATIENCE, async { while let Some(Ok(_)) = body.frame().await {} });
    ends.await.context("the stream is not ended")?;
    let told = || async {
        let lines = rig.access_log()?;
        let line = lines.iter().find(|line| line.contains("/v1/orders/stream"));
        Ok(if line.is_some_and(|line| line.contains(" ended no_allow_matched - ")) { 1.0 } else { 0.0 })
    };
    until("the end in the access log", 1.0, told).await
}

async fn every_panel_shows_something(prometheus: &Prometheus) -> Result<()> {
    for panel in dashboard::dashboard().panels {
        for target in panel.targets {
            let query = target
                .expr
                .replace("$workload", ".*")
                .replace("$__rate_interval", "1m")
                .replace("$__range", "5m");
            let begin = Instant::now();
            loop {
                let rows = prometheus.query(&query).await?;
                // A quotient of nothing by nothing is no figure.
                if rows.iter().any(|(_, value)| value.is_finite()) {
                    break;
                }
                let title = &panel.title;
                ensure!(
                    begin.elapsed() < Duration::from_secs(20),
                    "`{title}` shows nothing: {query}: {rows:?}"
                );
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    // Pictures of traffic are not flat.
    for query in [
        r#"sum by (rule, reason) (increase(tidegate_rule_decisions_total{outcome="deny"}[5m]))"#,
        r#"sum by (pipeline, resource) (increase(tidegate_pipeline_decisions_total{pipeline="data/orders"}[5m]))"#,
        "sum(increase(tidegate_enforcement_lag_seconds_count[5m]))",
    ] {
        ensure!(prometheus.sum(query).await? > 0.0, "{query}: {:?}", prometheus.query(query).await?);
    }
    Ok(())
}
