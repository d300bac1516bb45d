//! What filters say of themselves, as figures: who enforces what is on offer, since when not, and what they decided.
//!
//! Receipts carry totals of one VM; a VM that goes takes its total with it. So what was added since the last look is what
//! counts, which makes counters that never fall. VMs are shown for ten minutes after they went: as long as somebody looks
//! more often, nothing is missed.
//!
//! INVARIANT: at most [`MAX_WORKLOADS`] workloads have series of their own; the others share one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::push::FleetReport;

/// How many workloads have series of their own.
pub const MAX_WORKLOADS: usize = 1_000;
/// Stands for the others.
const OTHER: &str = "other";
/// A VM that appears later than this after the first one of its proxy was restarted, in seconds: a proxy starts one per
/// worker at once.
const STARTING_S: i64 = 60;
/// 50 ms to 10 minutes.
const LAG_BUCKETS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// All of it.
#[derive(Debug, Clone)]
pub struct FleetMetrics {
    vms: Family<VmsLabel, Gauge>,
    requests: Family<RequestsLabel, Counter>,
    differences: Family<WorkloadLabel, Counter>,
    issued: Family<WorkloadLabel, Gauge>,
    behind: Gauge,
    restarts: Counter,
    lag: Histogram,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkloadLabel {
    workload: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VmsLabel {
    workload: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestsLabel {
    workload: String,
    outcome: &'static str,
}

#[derive(Debug, Default)]
struct Seen {
    /// Workloads with series of their own.
    named: BTreeSet<String>,
    totals: HashMap<(String, String, String), Totals>,
    /// When the first VM of a proxy was seen. Unix seconds.
    proxies: HashMap<(String, String), i64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    allowed: u64,
    denied: u64,
    differences: u64,
}

// === impl FleetMetrics ===

impl Default for FleetMetrics {
    fn default() -> Self {
        Self {
            vms: Family::default(),
            requests: Family::default(),
            differences: Family::default(),
            issued: Family::default(),
            behind: Gauge::default(),
            restarts: Counter::default(),
            lag: Histogram::new(LAG_BUCKETS),
            seen: Arc::default(),
        }
    }
}

impl FleetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "filter_vms",
            "Filter VMs by workload: enforcing what is on offer, behind it, or gone lately",
            self.vms.clone(),
        );
        registry.register(
            "filter_requests",
            "Requests that filters decided, as their receipts say, by workload and outcome",
            self.requests.clone(),
        );
        registry.register(
            "filter_shadow_differences",
            "Requests that Shadow rules would have decided otherwise, as receipts say, by workload",
            self.differences.clone(),
        );
        registry.register(
            "bundle_issued_timestamp_seconds",
            "When the Bundle that is on offer was issued, by workload",
            self.issued.clone(),
        );
        registry.register(
            "enforcement_behind_seconds",
            "For how long the Bundle that has waited longest for a connected filter has been on offer; 0 where all enforce",
            self.behind.clone(),
        );
        registry.register(
            "filter_restarts",
            "Filter VMs that started on proxies that were there already: crashes, and changes of the plugin",
            self.restarts.clone(),
        );
        registry.register(
            "enforcement_lag_seconds",
            "From when a Bundle was on offer until a filter acknowledged it",
            self.lag.clone(),
        );
    }

    /// A filter acknowledged what has been on offer for so long.
    pub fn acknowledged(&self, after: std::time::Duration) {
        self.lag.observe(after.as_secs_f64());
    }

    /// Takes what the fleet looks like now. `issued`: when what is on offer was issued, by workload. Unix seconds.
    pub fn observe(&self, report: &FleetReport, issued: &BTreeMap<String, i64>, now: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut vms, mut oldest) = (BTreeMap::<(String, &'static str), i64>::new(), None::<i64>);
        let mut present = HashMap::new();
        let mut proxies = HashMap::new();
        self.issued.clear();
        for (workload, found) in &report.workloads {
            let name = seen.name(workload);
            let label = WorkloadLabel { workload: name.clone() };
            if let Some(at) = issued.get(workload) {
                let oldest_issued = self.issued.get_or_create(&label);
                let known = oldest_issued.get();
                oldest_issued.set(if known == 0 { *at } else { known.min(*at) });
            }
            for state in ["enforcing", "behind", "gone"] {
                vms.entry((name.clone(), state)).or_default();
            }
            for vm in &found.vms {
                let state = match (vm.connected, vm.up_to_date) {
                    (false, _) => "gone",
                    (true, true) => "enforcing",
                    (true, false) => "behind",
                };
                let count = vms.entry((name.clone(), state)).or_default();
                *count = count.saturating_add(1);
                if state == "behind"
                    && let Some(at) = issued.get(workload)
                {
                    oldest = Some(oldest.map_or(*at, |oldest| oldest.min(*at)));
                }
                let proxy = (workload.clone(), vm.instance.clone());
                let key = (workload.clone(), vm.instance.clone(), vm.generation.clone());
                let known = seen.totals.get(&key).copied();
                let first = seen.proxies.get(&proxy).copied();
                if known.is_none() && first.is_some_and(|first| now.saturating_sub(first) > STARTING_S) {
                    self.restarts.inc();
                }
                proxies.insert(proxy, first.unwrap_or(now));
                let before = known.unwrap_or_default();
                let totals = vm.counters.map_or(before, |counters| Totals {
                    allowed: counters.allowed,
                    denied: counters.denied,
                    differences: counters.shadow_differences,
                });
                self.add(&name, before, totals);
                present.insert(key, totals);
            }
        }
        seen.totals = present;
        seen.proxies = proxies;
        self.vms.clear();
        for ((workload, state), count) in vms {
            self.vms.get_or_create(&VmsLabel { workload, state }).set(count);
        }
        self.behind.set(oldest.map_or(0, |oldest| now.saturating_sub(oldest).max(0)));
    }

    fn add(&self, workload: &str, before: Totals, now: Totals) {
        let requests = [("allow", before.allowed, now.allowed), ("deny", before.denied, now.denied)];
        for (outcome, before, now) in requests {
            let label = RequestsLabel { workload: workload.to_owned(), outcome };
            self.requests.get_or_create(&label).inc_by(now.saturating_sub(before));
        }
        let label = WorkloadLabel { workload: workload.to_owned() };
        let more = now.differences.saturating_sub(before.differences);
        self.differences.get_or_create(&label).inc_by(more);
    }
}

// === impl Seen ===

impl Seen {
    /// What the workload's series are called.
    fn name(&mut self, workload: &str) -> String {
        if !self.named.contains(workload) {
            if self.named.len() >= MAX_WORKLOADS {
                return OTHER.to_owned();
            }
            self.named.insert(workload.to_owned());
        }
        workload.to_owned()
    }
}

#[cfg(test)]
mod tests;
