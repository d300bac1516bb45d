//! Many rules over many workloads: time, calls, memory. Printed; the large one where `TIDEGATE_KUBE_SCALE=large`.
//!
//! The control plane is a process of its own, so that its memory is its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cluster::{Cluster, condition, guard, options_in, pod, rule};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rules_over_many_workloads() {
    let is_large = std::env::var("TIDEGATE_KUBE_SCALE").is_ok_and(|scale| scale == "large");
    let (rules, workloads) = if is_large { (5_000, 500) } else { (100, 10) };
    let cluster = Cluster::fake().await;
    let api = cluster.fake.as_ref().unwrap();
    for workload in 0..workloads {
        let app = format!("app-{workload}");
        cluster.apply(pod("sales", &format!("{app}-abc-1"), &app)).await;
    }
    let guard = cluster.apply(guard("sales")).await;
    for number in 0..rules {
        let app = format!("app-{}", number % workloads);
        cluster.apply(rule("sales", &format!("rule-{number}"), &app, &format!("/v1/{number}"))).await;
    }
    let since = Instant::now();
    let control_plane = ControlPlane::start(&cluster);
    let last = rule("sales", &format!("rule-{}", rules - 1), "app-0", "/");
    println!("{rules} rules over {workloads} workloads: on offer after {:?}", since.elapsed());
    let is_done = |object: &serde_json::Value| {
        condition(object, "Compiled")["status"] == "True" && condition(object, "Fenced")["status"] == "True"
    };
    loop {
        let all = api.objects("accessrules.tidegate.dev");
        if all.iter().all(is_done) && is_done(&cluster.get(&guard).await.unwrap()) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(600));
        tokio::time::sleep(Duration::from_millis(if is_large { 1_000 } else { 20 })).await;
    }
    println!("every policy and status written after {:?}", since.elapsed());
    println!("memory of the control plane: {} MiB", control_plane.resident());
    // Nothing changes: nothing is written.
    tokio::time::sleep(Duration::from_secs(2)).await;
    api.take_calls();
    let quiet = Duration::from_secs(if is_large { 60 } else { 3 });
    tokio::time::sleep(quiet).await;
    let (leases, others): (Vec<_>, Vec<_>) =
        api.take_calls().into_iter().partition(|call| call.path.contains("/leases"));
    println!(
        "in {quiet:?} without changes: {} calls besides {} for the lease of 2 s",
        others.len(),
        leases.len()
    );
    assert_eq!(others, []);
    let since = Instant::now();
    cluster.edit(&last, json!({"spec": {"mode": "Shadow"}})).await;
    cluster
        .until(&last, |rule| {
            condition(rule, "Compiled")["status"] == "True"
                && condition(rule, "Compiled")["observedGeneration"] == rule["metadata"]["generation"]
        })
        .await;
    println!("one of them changed: its status says so after {:?}", since.elapsed());
    println!("memory of the control plane: {} MiB", control_plane.resident());
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

    /// Resident memory, in MiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
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
