//! Counts in the VM's own memory, brought to the proxy's statistics on ticks: a request pays no host call for them.

use crate::host::{Host, Metric};

/// Totals since the VM started, and what of them the proxy has not seen yet.
#[derive(Debug, Default)]
pub struct Counters {
    totals: [u64; Metric::ALL.len()],
    pending: [u64; Metric::ALL.len()],
}

// === impl Counters ===

impl Counters {
    /// Counts one.
    pub fn add(&mut self, metric: Metric) {
        let position = metric.position();
        for counts in [&mut self.totals, &mut self.pending] {
            if let Some(count) = counts.get_mut(position) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// The total since the VM started.
    pub fn total(&self, metric: Metric) -> u64 {
        self.totals.get(metric.position()).copied().unwrap_or_default()
    }

    /// Brings what is pending to the proxy.
    pub fn flush(&mut self, host: &dyn Host) {
        for (metric, pending) in Metric::ALL.into_iter().zip(self.pending.iter_mut()) {
            if *pending > 0 {
                host.count(metric, *pending);
                *pending = 0;
            }
        }
    }
}
