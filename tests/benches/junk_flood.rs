//! What a flood of junk tokens from one peer does to the latency of another.
//!
//! ```text
//! cargo bench -p tidegate-tests --bench junk_flood
//! ```
//!
//! One Envoy with one worker, so that both share a thread. A peer sends 500 requests per second with its own valid
//! token; in every second round another peer sends 1 000 tokens per second whose signatures are wrong, each another one,
//! over connections of its own. Both kinds of rounds alternate in one run; what is printed is the ratio of their
//! 99th percentiles (goal: at most 2).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::envoy::EnvoyRelease;
use tidegate_tests::corpus::{Suite, spiffe_id, token_of};
use tidegate_tests::rig::{Rig, Setup};
use tokio::time::{MissedTickBehavior, interval};

const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(5);
const VICTIM_RPS: u32 = 500;
const JUNK_RPS: u32 = 1_000;
const JUNK_CONNECTIONS: u32 = 4;

fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        // As `cargo test --all-targets` starts it.
        println!("SKIPPED: figures are not tests; run `cargo bench --bench junk_flood`");
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<()> {
    let rig = Rig::start(Setup::new(EnvoyRelease::Current, 1)).await?;
    rig.apply(&Suite::parse(include_str!("../corpus/main.yaml"))?.rules).await?;
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let with_flood = round % 2 == 1;
        let flood = with_flood.then(|| flood(&rig, round)).transpose()?;
        let mut latencies = victim(&rig).await?;
        let told = match flood {
            None => String::new(),
            Some(tasks) => {
                let mut junk = 0;
                for task in tasks {
                    junk += task.await??;
                }
                ensure!(
                    junk * 10 > u64::from(JUNK_RPS) * ROUND.as_secs() * 9,
                    "only {junk} junk tokens were sent"
                );
                format!(", {junk} junk tokens refused")
            }
        };
        latencies.sort_unstable();
        let figure = |share: usize| latencies[latencies.len() * share / 1000];
        println!("round {round}: p50 {:?}, p99 {:?}{told}", figure(500), figure(990));
        if with_flood { &mut flooded } else { &mut quiet }.push(figure(990));
    }
    quiet.sort_unstable();
    flooded.sort_unstable();
    let (quiet, flooded) = (quiet[quiet.len() / 2], flooded[flooded.len() / 2]);
    println!(
        "p99 of another peer: {quiet:?} without, {flooded:?} with {JUNK_RPS} junk tokens per second: ratio {:.2}",
        flooded.as_secs_f64() / quiet.as_secs_f64()
    );
    Ok(())
}

/// The latencies of a peer's requests, paced and one after the other.
async fn victim(rig: &Rig) -> Result<Vec<Duration>> {
    let token = token_of(rig, "cluster")?.sign()?;
    let mut connection = rig.service_as(&spiffe_id("etl/orders-worker"))?.connect(Protocol::Http2).await?;
    let mut pace = interval(Duration::from_secs(1) / VICTIM_RPS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut latencies = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < ROUND {
        pace.tick().await;
        let call = Call::new(Method::POST, "/v1/orders/7").authority("orders.sales.example").bearer(&token);
        let sent = Instant::now();
        let answer = connection.call(call).await?;
        latencies.push(sent.elapsed());
        ensure!(answer.status.as_u16() == 200, "the other peer was refused: {}", answer.status);
    }
    Ok(latencies)
}

/// Sends junk for a round; each connection returns how many tokens were refused.
fn flood(rig: &Rig, round: usize) -> Result<Vec<tokio::task::JoinHandle<Result<u64>>>> {
    (0..JUNK_CONNECTIONS)
        .map(|connection| {
            let count = JUNK_RPS * u32::try_from(ROUND.as_secs())? / JUNK_CONNECTIONS;
            let tokens = (0..count)
                .map(|number| {
                    let id = format!("{round}-{connection}-{number}");
                    Ok(token_of(rig, "cluster")?.claim("jti", id).damaged().sign()?)
                })
                .collect::<Result<Vec<_>>>()?;
            let endpoint = rig.service_as(&spiffe_id("ops/admin"))?;
            Ok(tokio::spawn(async move {
                let mut connection = endpoint.connect(Protocol::Http2).await?;
                let mut pace = interval(Duration::from_secs(1) * JUNK_CONNECTIONS / JUNK_RPS);
                pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut refused = 0;
                let begin = Instant::now();
                for token in tokens {
                    pace.tick().await;
                    if begin.elapsed() > ROUND {
                        break;
                    }
                    let call = Call::new(Method::POST, "/v1/orders/7")
                        .authority("orders.sales.example")
                        .bearer(&token);
                    let status = connection.call(call).await?.status.as_u16();
                    ensure!(matches!(status, 401 | 429), "junk was answered with {status}");
                    refused += 1;
                }
                Ok(refused)
            }))
        })
        .collect()
}
