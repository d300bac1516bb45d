//! Proxies: what all filter VMs of one come to together.
//!
//! INVARIANT: a proxy counts as enforcing only if every VM of it that is connected does, and has been heard of lately.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{VmReport, WorkloadReport};

/// A filter sends a receipt every 30 s. One that sends none for longer than this is silent, whatever its stream is.
const SILENT_AFTER_S: i64 = 95;
/// A proxy whose last VM went away longer ago than this is gone: a pod that ended says no more than one that was cut off.
pub(super) const GONE_AFTER_S: i64 = 60;

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyReport {
    /// Pod or process name. Self-reported.
    pub instance: String,
    /// Whether it tries changed rules.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// What it comes to.
    pub standing: Standing,
    /// Connected VMs.
    pub vms: usize,
    /// Those of them that enforce what they are to.
    pub enforcing: usize,
    /// Unix seconds of its last message.
    pub seen_at: i64,
    /// What is to be known besides: why it refuses, which revision it has, what it lacks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What the VMs of a proxy come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Every VM enforces what it is to.
    Enforcing,
    /// Some do not yet.
    Lagging,
    /// One refused the push and keeps what it had.
    Refusing,
    /// Nothing is heard of it. What it enforces is not known.
    Silent,
    /// It went away, and nobody waits for it.
    Gone,
}

// === impl Standing ===

impl Standing {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Lagging => "lagging",
            Self::Refusing => "refusing",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

// === impl WorkloadReport ===

impl WorkloadReport {
    /// How many proxies are as it says.
    pub fn count(&self, standing: Standing) -> usize {
        self.proxies.iter().filter(|proxy| proxy.standing == standing).count()
    }

    /// How many proxies there are that are not gone.
    pub fn present(&self) -> usize {
        self.proxies.len() - self.count(Standing::Gone)
    }

    /// Whether every proxy that is not gone enforces what it is to.
    pub fn is_enforced(&self) -> bool {
        self.count(Standing::Enforcing) == self.present()
    }
}

/// The proxies of a workload, by name. `now`: Unix seconds.
pub(super) fn proxies(workload: &WorkloadReport, now: i64) -> Vec<ProxyReport> {
    let mut by_name = BTreeMap::<&str, Vec<&VmReport>>::new();
    for vm in &workload.vms {
        by_name.entry(&vm.instance).or_default().push(vm);
    }
    let is_canary =
        |name: &str| workload.canary.as_ref().is_some_and(|canary| canary.instances.contains(name));
    let report = |(instance, vms): (&str, Vec<&VmReport>)| ProxyReport {
        canary: is_canary(instance),
        ..proxy(instance, &vms, now)
    };
    by_name.into_iter().map(report).collect()
}

fn proxy(instance: &str, vms: &[&VmReport], now: i64) -> ProxyReport {
    let seen_at = vms.iter().map(|vm| vm.seen_at).max().unwrap_or(0);
    let live: Vec<&VmReport> = vms.iter().filter(|vm| vm.connected).copied().collect();
    let enforcing = live.iter().filter(|vm| vm.up_to_date).count();
    let refusal = live.iter().filter(|vm| !vm.up_to_date).find_map(|vm| vm.refusal.as_ref());
    let is_silent = |vm: &&VmReport| now.saturating_sub(vm.seen_at) > SILENT_AFTER_S;
    let (standing, detail) = if live.is_empty() {
        let is_gone = now.saturating_sub(seen_at) > GONE_AFTER_S;
        (if is_gone { Standing::Gone } else { Standing::Silent }, "its stream ended".to_owned())
    } else if live.iter().any(is_silent) {
        (Standing::Silent, "connected, and sends no receipts".to_owned())
    } else if let Some(refusal) = refusal {
        let detail = match refusal.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        (
            Standing::Refusing,
            format!("refused revision {}: {}{detail}", refusal.revision.counter, refusal.reason),
        )
    } else if enforcing == live.len() {
        let lacks = live.iter().find_map(|vm| vm.lacks.first());
        let lacks = lacks.map(|lacks| format!("lacks `{lacks}`: more is refused than the rules say"));
        (Standing::Enforcing, lacks.unwrap_or_default())
    } else {
        let behind = live.iter().find(|vm| !vm.up_to_date);
        let detail = match behind.and_then(|vm| vm.revision.as_ref()) {
            Some(revision) => format!("enforces revision {} still", revision.counter),
            None => "what it enforces is not known to be of this control plane".to_owned(),
        };
        (Standing::Lagging, detail)
    };
    ProxyReport {
        instance: instance.to_owned(),
        canary: false,
        standing,
        vms: live.len(),
        enforcing,
        seen_at,
        detail,
    }
}
