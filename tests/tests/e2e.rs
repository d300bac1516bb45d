//! Everything on a real Envoy. One mesh serves all scenarios of a test, one after the other.
//!
//! `TIDEGATE_LONG=1` sends a million hostile requests instead of a few thousand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::envoy::EnvoyRelease;
use tidegate::demo::mesh::Limits;
use tidegate::directories::GoogleOptions;
use tidegate_tests::corpus::{Suite, spiffe_id};
use tidegate_tests::raw::{Random, flood};
use tidegate_tests::rig::{Rig, Setup};

#[path = "../../control-plane/server/src/directories/testing.rs"]
#[allow(dead_code, missing_docs)]
mod google_api;

#[path = "../../control-plane/compiler/tests/istio/mod.rs"]
#[allow(missing_docs)]
mod istio;

mod e2e {
    pub mod bodies;
    pub mod bound_tokens;
    pub mod candidate;
    pub mod directories;
    pub mod evasions;
    pub mod fence;
    pub mod fence_scene;
    pub mod gateway_ports;
    pub mod hostile_push;
    pub mod interlock;
    pub mod leases;
    pub mod misbehaving_issuer;
    pub mod plugin_object;
    pub mod printed;
    pub mod records;
    pub mod revocations;
    pub mod rollout;
    pub mod rotation;
    pub mod transport;
}

const CORPUS: [(&str, &str); 3] = [
    ("main.yaml", include_str!("../corpus/main.yaml")),
    ("providers.yaml", include_str!("../corpus/providers.yaml")),
    ("conditions.yaml", include_str!("../corpus/conditions.yaml")),
];

pub(crate) async fn corpus(rig: &Rig) -> Result<()> {
    for (name, text) in CORPUS {
        let tally = Suite::parse(text)?.run(rig).await?;
        println!("{name}: {} allowed, {} refused", tally.allowed, tally.denied);
    }
    Ok(())
}

/// Administrators may GET below `/v1`, and whatever else is written here.
fn rules(method: &str) -> String {
    format!(
        "
kind: Guard
metadata: {{name: sales, namespace: sales}}
spec: {{mode: Enforce, audience: \"https://orders.sales.example\"}}
---
kind: AccessRule
metadata: {{name: admins, namespace: sales}}
spec:
  owner: team-platform
  effect: Allow
  mode: Enforce
  from: [{{peer: {{namespace: ops, serviceAccounts: [admin]}}}}]
  to: [{{http: {{methods: [{method}], paths: [\"/v1/{{**}}\"]}}}}]
"
    )
}

async fn status(rig: &Rig, method: Method) -> Result<u16> {
    let call = Call::new(method, "/v1/orders").authority("orders.sales.example");
    let answer = rig.service_as(&spiffe_id("ops/admin"))?.call(Protocol::Http2, call).await?;
    Ok(answer.status.as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_envoy() -> Result<()> {
    let mut rig = Rig::start(Setup::new(EnvoyRelease::Current, 2)).await?;
    corpus(&rig).await?;
    edits_are_enforced(&rig).await?;
    broken_rules_change_nothing(&rig).await?;
    a_lost_control_plane_changes_nothing(&mut rig).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_envoy() -> Result<()> {
    let rig = Rig::start(Setup::new(EnvoyRelease::Oldest, 1)).await?;
    corpus(&rig).await?;
    attacked(&rig).await
}

/// Tokens that no verifier must accept, and some that only look so.
async fn attacked(rig: &Rig) -> Result<()> {
    let tally = tidegate_tests::attacks::run(rig).await?;
    println!("attacks: {} tried, {} refused, {} accepted", tally.tried, tally.refused, tally.accepted);
    Ok(())
}

/// Decision records, on both Envoys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_recorded() -> Result<()> {
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        let mut rig = Rig::start(Setup::new(release, 2)).await?;
        e2e::records::every_decision_that_counts_arrives(&mut rig).await?;
    }
    Ok(())
}

/// What was allowed is ended when it is not any more, on both Envoys: they end streams differently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_live_as_long_as_they_are_allowed() -> Result<()> {
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        let rig = Rig::start(Setup::new(release, 1)).await?;
        e2e::leases::streams_end_with_their_tokens(&rig).await?;
        e2e::leases::streams_end_when_they_are_no_longer_allowed(&rig).await?;
        e2e::leases::two_filters_end_a_stream_once(&rig).await?;
        e2e::leases::many_streams_end_at_once(&rig).await?;
        e2e::leases::junk_stops_at_a_budget(&rig).await?;
        e2e::revocations::what_is_revoked_by_hand_ends_at_once(&rig).await?;
        ensure!(rig.stat("wasm.*vm_reload").await? == 0, "a VM failed");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuers_change_keys_and_misbehave() -> Result<()> {
    let rig = Rig::start(Setup::new(EnvoyRelease::Current, 2)).await?;
    e2e::bound_tokens::bound_tokens_need_their_certificate(&rig).await?;
    e2e::bound_tokens::revocations_reach_tokens_that_were_accepted(&rig).await?;
    e2e::misbehaving_issuer::an_issuer_that_misbehaves_changes_nothing(&rig).await?;
    e2e::rotation::keys_change_while_requests_flow(&rig).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candidates_are_counted_and_change_nothing() -> Result<()> {
    let mut rig = Rig::start(Setup::new(EnvoyRelease::Current, 1)).await?;
    e2e::candidate::a_candidate_is_counted_and_changes_nothing(&mut rig).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_rules_that_refuse_too_much_are_given_up() -> Result<()> {
    let rig = Rig::start(Setup::new(EnvoyRelease::Current, 1)).await?;
    e2e::rollout::a_canary_goes_back_when_it_refuses_too_much(&rig).await
}

/// A rule that is changed on disk is enforced everywhere, and what it replaces is not any more.
async fn edits_are_enforced(rig: &Rig) -> Result<()> {
    for (allowed, refused) in [("GET", "POST"), ("POST", "GET"), ("GET", "POST")] {
        let applied = rig.apply(&rules(allowed)).await?;
        println!("edit enforced by every VM after {:?}", applied.after);
        ensure!(status(rig, allowed.parse()?).await? == 200, "{allowed} is allowed");
        ensure!(status(rig, refused.parse()?).await? == 403, "{refused} is refused");
    }
    Ok(())
}

/// A bad file is refused with a diagnostic; what was in force stays.
async fn broken_rules_change_nothing(rig: &Rig) -> Result<()> {
    rig.apply(&rules("GET")).await?;
    let fleet =
        || rig.server.as_ref().map(|server| server.fleet().workloads["sales/orders-api"].manifest.clone());
    let before = fleet();
    for broken in [
        "kind: [",
        &rules("GET").replace("effect: Allow", "efect: Allow"),
        &rules("GET").replace("methods: [GET]", "methods: []"),
        &rules("GET").replace("{peer: {namespace: ops, serviceAccounts: [admin]}}", "{caller: ops/nobody}"),
    ] {
        std::fs::write(rig.rules_file(), broken)?;
        rig.wait("the bad file to be noticed", || {
            let findings = rig.server.as_ref().map(|server| server.diagnosis().findings).unwrap_or_default();
            Ok(findings.is_empty().then(|| "no findings".to_owned()))
        })
        .await?;
        ensure!(fleet() == before, "another manifest is on offer after {broken}");
        ensure!(status(rig, Method::GET).await? == 200, "GET is still allowed");
        ensure!(status(rig, Method::DELETE).await? == 403, "DELETE is still refused");
        std::fs::write(rig.rules_file(), rules("GET"))?;
        rig.wait("the mended file to be noticed", || {
            let findings = rig.server.as_ref().map(|server| server.diagnosis().findings).unwrap_or_default();
            Ok((!findings.is_empty()).then(|| format!("{findings:?}")))
        })
        .await?;
    }
    Ok(())
}

/// Under load the control plane goes away and comes back: no decision changes, and the next edit is enforced.
async fn a_lost_control_plane_changes_nothing(rig: &mut Rig) -> Result<()> {
    rig.apply(&rules("GET")).await?;
    let (stop, sent, wrong) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let endpoint = rig.service_as(&spiffe_id("ops/admin"))?;
    let load: Vec<_> = [(Method::GET, 200), (Method::POST, 403)]
        .into_iter()
        .map(|(method, expected)| {
            let (stop, sent, wrong) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&wrong));
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                let mut connection = endpoint.connect(Protocol::Http2).await?;
                while !stop.load(Ordering::Relaxed) {
                    let call = Call::new(method.clone(), "/v1/orders").authority("orders.sales.example");
                    let answer = connection.call(call).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                    if answer.status.as_u16() != expected {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let more = |by: u64| {
        let sent = Arc::clone(&sent);
        async move {
            let goal = sent.load(Ordering::Relaxed) + by;
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            while sent.load(Ordering::Relaxed) < goal {
                ensure!(tokio::time::Instant::now() < deadline, "the load stands still");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
    };
    more(200).await?;
    rig.stop_server().await?;
    more(500).await?;
    // A new connection and a new token-less decision without the control plane.
    ensure!(status(rig, Method::GET).await? == 200 && status(rig, Method::POST).await? == 403);
    rig.start_server().await?;
    more(500).await?;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await??;
    }
    let (sent, wrong) = (sent.load(Ordering::Relaxed), wrong.load(Ordering::Relaxed));
    ensure!(wrong == 0, "{wrong} of {sent} decisions changed");
    let applied = rig.apply(&rules("POST")).await.context("the edit after the restart")?;
    println!(
        "{sent} decisions while the control plane was away and back, none changed; next edit after {:?}",
        applied.after
    );
    ensure!(status(rig, Method::GET).await? == 403 && status(rig, Method::POST).await? == 200);
    Ok(())
}

/// Istio's own policies beside the filter: never narrower, and what they are worth without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_contains_what_the_filter_allows() -> Result<()> {
    let rig = Rig::start(Setup::new(EnvoyRelease::Current, 1)).await?;
    for (name, text) in CORPUS {
        e2e::fence::corpus(&rig, name, &Suite::parse(text)?).await?;
    }
    e2e::fence::requests_by_chance(&rig).await?;
    e2e::fence::no_order_of_updates_refuses_what_is_allowed(&rig).await
}

/// Of what has no port, Istio's policies know less than the filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_ports_needs_its_filter() -> Result<()> {
    let rig = Rig::start(Setup::new(EnvoyRelease::Current, 1)).await?;
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        e2e::gateway_ports::what_has_no_port_is_the_filters_to_refuse(&rig, release).await?;
    }
    Ok(())
}

/// Who runs Envoy without a mesh gets its whole configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_envoy_enforces() -> Result<()> {
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        let rig = Rig::start(Setup::new(release, 1)).await?;
        e2e::printed::is_one_that_enforces(&rig, release).await?;
    }
    Ok(())
}

/// Where only tokens tell callers, nobody gets past a filter that is missing, broken or another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_interlock_closes_what_is_open() -> Result<()> {
    for release in [EnvoyRelease::Current, EnvoyRelease::Oldest] {
        println!("{release:?}:");
        e2e::interlock::nobody_passes_without_the_filter(release, &CORPUS).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_a_dataflow_job() -> Result<()> {
    let google = e2e::directories::google().await;
    let urls = GoogleOptions {
        dataflow: google.url.clone(),
        compute: google.url.clone(),
        metadata: google.url.clone(),
    };
    let sources = tidegate::directories::Options {
        every: Duration::from_secs(2),
        fresh_for: Duration::from_secs(8),
        google: urls,
        clusters: Vec::new(),
    };
    let setup = Setup { bodies: true, ..Setup::new(EnvoyRelease::Current, 2) };
    let rig = Rig::start_with(setup, sources).await?;
    e2e::directories::workers_come_and_go(&rig, &google).await
}

/// Headers that no client sends: no VM fails, and the filter still decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_headers_harm_nothing() -> Result<()> {
    const CONNECTIONS: u64 = 8;
    let requests = if std::env::var_os("TIDEGATE_LONG").is_some() { 1_000_000 } else { 6_000 };
    let limits = Some(Limits { headers_kib: 8_000, headers: 2_000 });
    let rig = Rig::start(Setup { limits, ..Setup::new(EnvoyRelease::Current, 1) }).await?;
    let main = Suite::parse(CORPUS[0].1)?;
    rig.apply(&main.rules).await?;
    let address = rig.envoy.address("plain")?;
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|seed| {
            tokio::spawn(async move { flood(address, &mut Random(seed), requests / CONNECTIONS).await })
        })
        .collect();
    let mut total = std::collections::BTreeMap::new();
    for task in tasks {
        for (status, count) in task.await?? {
            *total.entry(status).or_insert(0) += count;
        }
    }
    println!("{requests} hostile requests, by status (0: closed): {total:?}");
    // Without a certificate only the probe is allowed, and no random path is `/healthz`.
    ensure!(!total.contains_key(&200), "a hostile request was let through: {total:?}");
    ensure!(!total.contains_key(&503) && !total.contains_key(&500), "the filter was not there: {total:?}");
    let reached = total.get(&403).copied().unwrap_or(0) + total.get(&401).copied().unwrap_or(0);
    ensure!(reached > requests / 2, "most requests reach the filter: {total:?}");
    ensure!(rig.stat("wasm.*vm_reload").await? == 0, "a VM failed");
    ensure!(rig.upstream.requests() == 0, "a request reached the application");
    main.run(&rig).await?;
    Ok(())
}

/// What the controller writes makes filters behave as what people write by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istio_objects_configure_filters() -> Result<()> {
    e2e::plugin_object::the_corpus_passes_by_objects().await?;
    e2e::plugin_object::a_pod_begins_with_the_warm_start().await?;
    e2e::plugin_object::a_waypoint_knows_who_opened_the_tunnel().await
}
