//! What is counted about decision records.
//!
//! INVARIANT: no label comes from a record.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::{Decided, ReasonLabel};

/// Counters of decision records; clones count together.
#[derive(Debug, Clone, Default)]
pub struct DecisionMetrics {
    /// What was decided, by workload and rule.
    pub decided: Decided,
    /// Records that filters say they dropped although they were to be kept in any case.
    pub dropped_in_full: Counter,
    /// Allowed requests of which filters made no record, because their rule asks for samples.
    pub unsampled: Counter,
    /// Gaps, by cause.
    pub gaps: Family<ReasonLabel, Counter>,
    /// Records that the control plane dropped because it could not keep up: `in_full` or `other`.
    pub lost: Family<ReasonLabel, Counter>,
    /// Records that a listener missed because it was too slow.
    pub missed: Counter,
    /// Texts of records in which something looked like a token and was removed.
    pub tokens_removed: Counter,
    /// Records whose time was absurd.
    pub times_refused: Counter,
    /// Records written to the store.
    pub stored: Counter,
    /// Attempts to write to the store or read it that failed, by what was wrong.
    pub store_errors: Family<ReasonLabel, Counter>,
    /// Bytes of the store's files.
    pub store_bytes: Gauge,
    /// Unix seconds before which nothing is in the store any more; 0 while it is empty.
    pub store_since: Gauge,
}

// === impl DecisionMetrics ===

impl DecisionMetrics {
    /// Adds all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "decisions_dropped_in_full",
            "Refusals, differences and other decisions to be kept in any case that filters dropped",
            self.dropped_in_full.clone(),
        );
        registry.register(
            "decisions_unsampled",
            "Allowed requests without a record, because their rule asks for samples",
            self.unsampled.clone(),
        );
        registry.register("decision_gaps", "Gaps in decision records", self.gaps.clone());
        registry.register(
            "decisions_lost",
            "Decision records that the control plane dropped because it could not keep up",
            self.lost.clone(),
        );
        registry.register(
            "decisions_missed",
            "Decision records that a listener was too slow for",
            self.missed.clone(),
        );
        registry.register(
            "decision_tokens_removed",
            "Texts of decision records in which something looked like a token",
            self.tokens_removed.clone(),
        );
        registry.register(
            "decision_times_refused",
            "Decision records whose time was absurd",
            self.times_refused.clone(),
        );
        registry.register("decisions_stored", "Decision records written to the store", self.stored.clone());
        registry.register(
            "decision_store_errors",
            "Failures of the store of decisions",
            self.store_errors.clone(),
        );
        registry.register(
            "decision_store_bytes",
            "Size of the files of the store of decisions",
            self.store_bytes.clone(),
        );
        registry.register(
            "decision_store_since_seconds",
            "Before when nothing is in the store of decisions any more",
            self.store_since.clone(),
        );
    }
}
