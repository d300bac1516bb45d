//! Rounds of runs, each in another order.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use tidegate_tests::raw::Random;

use super::load::{Amount, Counted};
use super::machine;
use super::options::Options;
use super::proxies::{Mesh, Proxy};

/// Connections of the part about latency.
const SINGLE: u32 = 1;
/// Seconds of the runs that do not count: V8 optimises what runs often, caches fill.
const WARM_UP_S: u32 = 1;
/// How often a run is tried before the benchmark gives up.
const ATTEMPTS: u32 = 3;

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// CPU of all of Envoy's threads per request, microseconds.
    pub cpu_us: f64,
    /// Requests per second.
    pub rps: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
}

/// What was measured of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Name of the scenario.
    pub name: &'static str,
    /// Under load, one per round.
    pub load: Vec<Sample>,
    /// With one connection, one per round; empty where that is not measured.
    pub single: Vec<Sample>,
    /// Resident memory after all runs, MiB.
    pub rss_mib: f64,
    /// Why it is not what it says, if so.
    pub doubt: Option<String>,
}

/// Measures all scenarios, in turns.
pub async fn measure(mesh: &Mesh, options: &Options) -> Result<Vec<Measured>> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut random = Random(seed);
    let mut measured: Vec<Measured> = mesh
        .proxies
        .iter()
        .map(|proxy| Measured { name: proxy.scenario.name, ..Measured::default() })
        .collect();
    let all: Vec<usize> = (0..mesh.proxies.len()).collect();
    let single: Vec<usize> = all.iter().copied().filter(|at| mesh.proxies[*at].scenario.latency).collect();

    for at in &all {
        run(&mesh.proxies[*at], options.connections, WARM_UP_S.min(options.seconds)).await?;
    }
    for round in 1..=options.rounds {
        eprintln!("under load: round {round} of {}", options.rounds);
        for at in shuffled(&all, &mut random) {
            measured[at].load.push(run(&mesh.proxies[at], options.connections, options.seconds).await?);
        }
    }
    for round in 1..=options.latency_rounds {
        eprintln!("one connection: round {round} of {}", options.latency_rounds);
        for at in shuffled(&single, &mut random) {
            measured[at].single.push(run(&mesh.proxies[at], SINGLE, options.seconds).await?);
        }
    }
    for (measured, proxy) in measured.iter_mut().zip(&mesh.proxies) {
        measured.rss_mib = precise(machine::resident_kib(proxy.pid())?) / 1024.0;
        measured.doubt = proxy.doubt().await?;
    }
    Ok(measured)
}

/// A run in which connections broke or requests got no answer in time does not count; it is tried again.
async fn run(proxy: &Proxy, connections: u32, seconds: u32) -> Result<Sample> {
    let mut broken = 0;
    for _ in 0..ATTEMPTS {
        let (sample, counted) = attempt(proxy, connections, seconds).await?;
        broken = counted.broken;
        if broken == 0 {
            return Ok(sample);
        }
        eprintln!(
            "scenario `{}`: {broken} broken connections or requests in {}; once more",
            proxy.scenario.name, counted.requests
        );
    }
    bail!("scenario `{}`: {broken} broken connections or requests in {ATTEMPTS} runs", proxy.scenario.name)
}

async fn attempt(proxy: &Proxy, connections: u32, seconds: u32) -> Result<(Sample, Counted)> {
    let amount = Amount { connections, seconds, first: proxy.sent.load(Ordering::Relaxed) };
    let before = machine::cpu_ns(proxy.pid())?;
    let counted =
        proxy.load.run(amount).await.with_context(|| format!("scenario `{}`", proxy.scenario.name))?;
    let after = machine::cpu_ns(proxy.pid())?;
    proxy.sent.fetch_add(counted.requests, Ordering::Relaxed);
    let sample = Sample {
        cpu_us: precise(after.saturating_sub(before)) / 1_000.0 / precise(counted.requests),
        rps: precise(counted.requests) * 1_000_000.0 / precise(counted.duration_us),
        p50_us: counted.p50_us,
        p99_us: counted.p99_us,
    };
    Ok((sample, counted))
}

/// Fisher and Yates.
fn shuffled(items: &[usize], random: &mut Random) -> Vec<usize> {
    let mut items = items.to_vec();
    for end in (1..items.len()).rev() {
        let chosen = random.below(u64::try_from(end + 1).unwrap_or(1));
        items.swap(end, usize::try_from(chosen).unwrap_or(0));
    }
    items
}

/// Counts of a benchmark are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn precise(number: u64) -> f64 {
    number as f64
}
