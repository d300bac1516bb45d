//! Many rules over many workloads: time, calls, memory. Printed; the large one where `TIDEGATE_KUBE_SCALE=large`.
//!
//! The control plane is a process of its own, so that its memory and its processor time are its own.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tidegate_tests::kube_api::Call;

use crate::cluster::{Cluster, condition, guard, on_every_tier, options_in, pod, rule};

mod on {
    use super::*;

    on_every_tier!(many_rules_over_many_workloads);
}

/// What anything of it may take.
const PATIENCE: Duration = Duration::from_secs(600);

async fn many_rules_over_many_workloads(cluster: Cluster) {
    let is_large = std::env::var("TIDEGATE_KUBE_SCALE").is_ok_and(|scale| scale == "large");
    let (rules, workloads) = if is_large { (5_000, 500) } else { (100, 10) };
    let tier = if cluster.fake.is_some() { "the fake" } else { "a real API server" };
    println!("on {tier}: {rules} rules over {workloads} workloads");
    let app = |workload: usize| format!("app-{workload}");
    let pods = (0..workloads).map(|at| pod("sales", &format!("{}-abc-1", app(at)), &app(at)));
    let name = |number: usize| format!("rule-{number}");
    let numbered =
        |number: usize| rule("sales", &name(number), &app(number % workloads), &format!("/v1/{number}"));
    let all: Vec<Value> = pods.chain((0..rules).map(numbered)).collect();
    stream::iter(all).for_each_concurrent(16, |object| async { drop(cluster.apply(object).await) }).await;
    let guard = cluster.apply(guard("sales")).await;
    let since = Instant::now();
    let control_plane = ControlPlane::start(&cluster);
    println!("on offer after {:.1?}; {control_plane}", since.elapsed());
    let last = numbered(rules - 1);
    let is_done = |object: &Value| {
        let is = |kind| {
            let condition = condition(object, kind);
            condition["status"] == "True"
                && condition["observedGeneration"] == object["metadata"]["generation"]
        };
        is("Compiled") && is("Fenced")
    };
    loop {
        if is_done(&cluster.get(&last).await.unwrap())
            && is_done(&cluster.get(&guard).await.unwrap())
            && cluster.list(&last).await.iter().all(is_done)
        {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "not everything is written");
        tokio::time::sleep(Duration::from_millis(if is_large { 250 } else { 20 })).await;
    }
    println!("every policy and status written after {:.1?}; {control_plane}", since.elapsed());
    // Pods here have no filter, which is reported after half a minute.
    let is_missed = |guard: &Value| condition(guard, "ControlPlaneUnreachable")["status"] == "True";
    while is_large && !is_missed(&cluster.get(&guard).await.unwrap()) {
        assert!(since.elapsed() < PATIENCE, "nobody misses filters");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // Nothing changes: nothing is written.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = Calls::of(&cluster).await;
    let quiet = Duration::from_secs(if is_large { 60 } else { 3 });
    tokio::time::sleep(quiet).await;
    // Nor is anything read: this test asks nothing meanwhile.
    let calls = before.since(&cluster, |_| false).await;
    println!(
        "in {quiet:?} without changes {} calls besides those for the lease; {control_plane}",
        calls.len()
    );
    assert!(calls.is_empty(), "{calls:?}");
    for mode in ["Shadow", "Enforce"] {
        let before = Calls::of(&cluster).await;
        let since = Instant::now();
        cluster.edit(&last, json!({"spec": {"mode": mode}})).await;
        let is_compiled = |rule: &Value| {
            condition(rule, "Compiled")["status"] == "True"
                && condition(rule, "Compiled")["observedGeneration"] == rule["metadata"]["generation"]
        };
        cluster.until(&last, is_compiled).await;
        let compiled = since.elapsed();
        cluster.until(&last, |rule| is_done(rule)).await;
        println!(
            "one of them changed to {mode}: its status says so after {compiled:.0?}, and that its policy does after {:.0?}; \
             {control_plane}",
            since.elapsed()
        );
        // What else it comes to.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let calls = before.since(&cluster, is_of_the_test).await;
        println!("calls: {calls:?}");
        // Twice, once while it is on its way, and only what says something of the workload whose rule it is.
        let of =
            |kind: &str| calls.iter().filter(|(what, _)| what.ends_with(kind)).map(|(_, n)| *n).sum::<u64>();
        let at_one = u64::try_from(rules / workloads).unwrap();
        assert!(of("accessrules") <= 2 * at_one + 2, "{calls:?}");
        assert!(of("guards") <= 3 && of("authorizationpolicies") <= 3, "{calls:?}");
    }
}

/// Calls by what they are, without those for leases. Of a real API server only writes are known.
struct Calls(BTreeMap<String, u64>);

impl Calls {
    async fn of(cluster: &Cluster) -> Self {
        if let Some(fake) = &cluster.fake {
            fake.take_calls();
            return Self(BTreeMap::new());
        }
        Self(Self::counted(cluster).await)
    }

    /// What has been called since then.
    async fn since(&self, cluster: &Cluster, but: impl Fn(&Call) -> bool) -> BTreeMap<String, u64> {
        let mut calls = BTreeMap::<String, u64>::new();
        if let Some(fake) = &cluster.fake {
            let counts = |call: &Call| !call.path.contains("/leases") && !but(call);
            for call in fake.take_calls().into_iter().filter(counts) {
                let kind = call.path.split('/').rev().nth(usize::from(call.path.ends_with("/status")) + 1);
                *calls.entry(format!("{} {}", call.method, kind.unwrap_or_default())).or_default() += 1;
            }
            return calls;
        }
        for (what, count) in Self::counted(cluster).await {
            let more = count - self.0.get(&what).copied().unwrap_or(0);
            if more > 0 {
                calls.insert(what, more);
            }
        }
        calls
    }

    /// By the metrics of a real API server: writes of what this is about.
    async fn counted(cluster: &Cluster) -> BTreeMap<String, u64> {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let metrics = cluster.client.request_text(request).await.unwrap();
        let mut calls = BTreeMap::new();
        for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\""))?;
                Some(rest.split_once('"')?.0.to_owned())
            };
            let (group, resource) = (label("group").unwrap(), label("resource").unwrap());
            let (verb, part) = (label("verb").unwrap(), label("subresource").unwrap());
            let is_ours = group == "tidegate.dev" || group.ends_with("istio.io") || resource == "events";
            // The edit of this test is a PATCH of a rule as well.
            let is_test = group == "tidegate.dev" && part.is_empty();
            if is_ours && !is_test && !["GET", "LIST", "WATCH"].contains(&verb.as_str()) {
                let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                *calls.entry(format!("{verb} {resource}")).or_insert(0) += count as u64;
            }
        }
        calls
    }
}

/// It asks for one rule again and again, and edits it.
fn is_of_the_test(call: &Call) -> bool {
    let is_rule = call.path.contains("/accessrules/") && !call.path.ends_with("/status");
    is_rule && ["GET", "PATCH"].contains(&call.method.as_str())
}

/// Ends when the pipe to it does.
struct ControlPlane {
    child: Child,
    /// What it prints at its end is for nobody, and must not break its pipe.
    _output: BufReader<ChildStdout>,
}

/// Where the cluster is that the process is to use.
const FOLDER: &str = "TIDEGATE_TEST_KUBE_FOLDER";

impl ControlPlane {
    /// Starts it, and waits until everything is on offer.
    fn start(cluster: &Cluster) -> Self {
        cluster.kubeconfig();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "scale::a_control_plane_of_its_own"])
            .env(FOLDER, cluster.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.by_ref().lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("everything is on offer")), "it ended: {:?}", child.wait());
        Self { child, _output: output }
    }

    /// Resident memory now and at most, in MiB.
    fn resident(&self) -> [u64; 2] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        ["VmRSS:", "VmHWM:"].map(|field| {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap_or("");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
        })
    }

    /// Processor time so far. In hundredths of a second, as everywhere (`USER_HZ`).
    fn worked(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).take(2);
        Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
    }
}

impl std::fmt::Display for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [now, most] = self.resident();
        write!(f, "it has {now} MiB ({most} at most) and has worked for {:.1?}", self.worked())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// No test: what [`ControlPlane`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_of_its_own() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut running = tidegate::serve::start(options_in(Path::new(&folder), "one")).await.unwrap();
    running.ready().await.unwrap();
    println!("everything is on offer");
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
    running.shutdown().await.unwrap();
}
