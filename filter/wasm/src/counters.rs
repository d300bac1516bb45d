//! Counts in the VM's own memory, brought to the proxy's statistics on ticks: a request pays no host call for them.

use std::cell::{Cell, RefCell};

use tidegate_engine::Reason;

use crate::host::{Host, Metric};

/// Totals since the VM started, and what of them the proxy has not seen yet.
#[derive(Debug, Default)]
pub struct Counters {
    counts: [Count; Metric::ALL.len()],
    /// Refusals by reason, as far as the proxy has not seen them. Reasons are a closed set.
    refusals: RefCell<Vec<(Reason, u64)>>,
}

#[derive(Debug, Default)]
struct Count {
    total: Cell<u64>,
    pending: Cell<u64>,
}

// === impl Counters ===

impl Counters {
    /// Counts one.
    pub fn add(&self, metric: Metric) {
        if let Some(count) = self.counts.get(metric.position()) {
            count.total.set(count.total.get().saturating_add(1));
            count.pending.set(count.pending.get().saturating_add(1));
        }
    }

    /// Counts a refusal: in `metric`, and by its reason.
    pub fn refuse(&self, metric: Metric, reason: Reason) {
        self.add(metric);
        let mut refusals = self.refusals.borrow_mut();
        match refusals.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, pending)) => *pending = pending.saturating_add(1),
            None => refusals.push((reason, 1)),
        }
    }

    /// The total since the VM started.
    pub fn total(&self, metric: Metric) -> u64 {
        self.counts.get(metric.position()).map_or(0, |count| count.total.get())
    }

    /// Brings what is pending to the proxy.
    pub fn flush(&self, host: &dyn Host) {
        for (metric, count) in Metric::ALL.into_iter().zip(&self.counts) {
            let pending = count.pending.take();
            if pending > 0 {
                host.count(metric, pending);
            }
        }
        for (reason, pending) in self.refusals.borrow_mut().drain(..) {
            host.count_refusals(reason, pending);
        }
    }
}
