//! Cores, and the kernel's account of a process.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;

/// The core of the Envoys.
pub const PROXY_CORE: &str = "0";
/// The core of the load.
pub const LOAD_CORE: &str = "1";

/// Whether everything is there that the benchmark needs.
pub async fn check() -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "this benchmark reads Linux' /proc and pins threads; it runs on Linux only"
    );
    let cores = std::thread::available_parallelism()?.get();
    ensure!(
        cores >= 2,
        "this benchmark needs two cores, one for Envoy and one for the load; there is {cores}"
    );
    ensure!(
        Path::new("/proc/self/schedstat").exists(),
        "/proc/self/schedstat is missing: the kernel has no CONFIG_SCHED_INFO"
    );
    for (tool, package) in [("wrk", "wrk"), ("taskset", "util-linux")] {
        let found = Command::new(tool).arg("--version").output().await;
        ensure!(found.is_ok(), "`{tool}` is missing; on Debian and Ubuntu: apt-get install {package}");
    }
    Ok(())
}

/// Binds all threads of a process, and those they start from now on, to the core of the Envoys.
pub async fn pin(pid: u32) -> Result<()> {
    let output = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", PROXY_CORE, &pid.to_string()])
        .output()
        .await?;
    if !output.status.success() {
        bail!("taskset cannot pin process {pid}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Nanoseconds that all threads of a process have run.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // "time spent on the cpu", "time spent waiting on a runqueue", "# of timeslices run on this cpu".
        let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else {
            // The thread has ended.
            continue;
        };
        let ran = line.split(' ').next().context("schedstat is empty")?;
        total += ran.parse::<u64>().with_context(|| format!("schedstat: {line}"))?;
    }
    Ok(total)
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is missing")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
