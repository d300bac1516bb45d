//! What filters decided, by workload, outcome, reason and rule.
//!
//! INVARIANT: there are at most [`MAX_SERIES`] series, and [`MAX_WORKLOAD_SERIES`] of one workload: what a filter reports
//! is its own word, and one that invents names of rules takes no room from others. Beyond, rules count as `other`. A
//! reason that is not known counts as `unknown`. Workloads are verified.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tidegate_engine::Reason;

use super::Pipelines;
use crate::decisions::record::{Gap, Recorded};

/// How many series there are at most.
pub const MAX_SERIES: usize = 5_000;
/// How many of them are one workload's.
pub const MAX_WORKLOAD_SERIES: usize = 500;
/// Stands for rules beyond the budget.
const OTHER: &str = "other";
/// A millionth of a second to a tenth.
const BUCKETS: [f64; 11] = [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1];

/// All of it.
#[derive(Debug, Clone)]
pub struct Decided {
    decisions: Family<DecisionLabel, Counter>,
    differences: Family<DifferenceLabel, Counter>,
    missing: Family<GapLabel, Counter>,
    duration: Histogram,
    pipelines: Pipelines,
    budget: Arc<Mutex<Budget>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    workload: String,
    outcome: &'static str,
    reason: &'static str,
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DifferenceLabel {
    workload: String,
    by: &'static str,
    outcome: &'static str,
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapLabel {
    workload: String,
    cause: &'static str,
}

#[derive(Debug, Default)]
struct Budget {
    all: usize,
    by_workload: BTreeMap<String, usize>,
}

// === impl Decided ===

impl Default for Decided {
    fn default() -> Self {
        Self {
            decisions: Family::default(),
            differences: Family::default(),
            missing: Family::default(),
            duration: Histogram::new(BUCKETS),
            pipelines: Pipelines::default(),
            budget: Arc::default(),
        }
    }
}

impl Decided {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "rule_decisions",
            "Requests that filters recorded, by workload, outcome, reason and rule; a sample counts as often as it stands for",
            self.decisions.clone(),
        );
        registry.register(
            "rule_differences",
            "Requests that Shadow rules or candidate rules would have decided otherwise, by workload, what they would have decided, and rule",
            self.differences.clone(),
        );
        registry.register(
            "decision_gap_records",
            "Decisions of which there is no record, by workload and cause",
            self.missing.clone(),
        );
        registry.register(
            "decision_duration_seconds",
            "What deciding took in the filter, of recorded requests",
            self.duration.clone(),
        );
        self.pipelines.register(registry);
    }

    /// Counts a decision.
    pub fn count(&self, recorded: &Recorded) {
        let by = u64::from(recorded.stands_for.max(1));
        let label = DecisionLabel {
            workload: recorded.workload.clone(),
            outcome: recorded.outcome.word(),
            reason: Reason::from_code(&recorded.reason).map_or("unknown", |reason| reason.code()),
            rule: recorded.rule_name().unwrap_or_default().to_owned(),
        };
        let other = |mut label: DecisionLabel| {
            label.rule = OTHER.to_owned();
            label
        };
        self.add(&self.decisions, label, by, |label| &label.workload, other);
        let differences = [("shadow", &recorded.shadow), ("candidate", &recorded.candidate)];
        for (kind, difference) in differences {
            let Some(difference) = difference else { continue };
            let label = DifferenceLabel {
                workload: recorded.workload.clone(),
                by: kind,
                outcome: difference.outcome.word(),
                rule: difference.rule.clone().unwrap_or_default(),
            };
            let other = |mut label: DifferenceLabel| {
                label.rule = OTHER.to_owned();
                label
            };
            self.add(&self.differences, label, by, |label| &label.workload, other);
        }
        #[allow(clippy::cast_precision_loss)]
        self.duration.observe(recorded.decided_in_ns as f64 / 1e9);
        self.pipelines.count(recorded);
    }

    /// Counts what there is no record of. What nobody knows the number of counts as one.
    pub fn count_gap(&self, gap: &Gap) {
        let label = GapLabel { workload: gap.workload.clone(), cause: gap.cause.word() };
        let other = |mut label: GapLabel| {
            label.workload = OTHER.to_owned();
            label
        };
        self.add(&self.missing, label, gap.lost.unwrap_or(1).max(1), |label| &label.workload, other);
    }

    fn add<L: Clone + Eq + std::hash::Hash>(
        &self,
        family: &Family<L, Counter>,
        label: L,
        by: u64,
        workload: impl Fn(&L) -> &str,
        other: impl Fn(L) -> L,
    ) {
        if let Some(counter) = family.get(&label) {
            counter.inc_by(by);
            return;
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let label = if budget.take(workload(&label)) { label } else { other(label) };
        family.get_or_create(&label).inc_by(by);
    }
}

// === impl Budget ===

impl Budget {
    /// Whether there is room for one more series of this workload.
    fn take(&mut self, workload: &str) -> bool {
        let of_workload = self.by_workload.get(workload).copied().unwrap_or(0);
        if self.all >= MAX_SERIES || of_workload >= MAX_WORKLOAD_SERIES {
            return false;
        }
        self.all = self.all.saturating_add(1);
        self.by_workload.insert(workload.to_owned(), of_workload.saturating_add(1));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::attributes::testing::recorded;
    use crate::metrics::Metrics;

    #[test]
    fn a_decision_counts_as_often_as_it_stands_for() {
        let metrics = Metrics::default();
        let mut one = recorded();
        (one.shadow, one.candidate) = (None, None);
        metrics.decided.count(&one);
        one.stands_for = 10;
        metrics.decided.count(&one);
        one.reason = "made up".to_owned();
        metrics.decided.count(&one);
        let text = metrics.text();
        let line = r#"tidegate_rule_decisions_total{workload="sales/orders",outcome="deny",reason="denied_by_rule",rule="sales/no-launches"} 11"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains(r#"reason="unknown",rule="sales/no-launches"} 10"#), "{text}");
        assert!(text.contains("tidegate_decision_duration_seconds_count 3"), "{text}");
        assert!(!text.contains("made up"), "{text}");
    }

    #[test]
    fn a_filter_that_invents_rules_takes_no_room_from_others() {
        let metrics = Metrics::default();
        let mut one = recorded();
        (one.shadow, one.candidate, one.stands_for) = (None, None, 1);
        let name = |number: usize| format!("sales/invented-{number}");
        for number in 0..MAX_WORKLOAD_SERIES + 100 {
            one.rule = Some(crate::decisions::record::RuleRef { name: name(number), source: None });
            metrics.decided.count(&one);
        }
        one.workload = "sales/ledger".to_owned();
        metrics.decided.count(&one);
        let text = metrics.text();
        let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines(r#"rule_decisions_total{workload="sales/orders""#), MAX_WORKLOAD_SERIES + 1);
        assert!(text.contains(r#"rule="other"} 100"#), "the rest counts as other");
        assert!(text.contains(&format!(
            r#"workload="sales/ledger",outcome="deny",reason="denied_by_rule",rule="{}"}} 1"#,
            one.rule_name().unwrap()
        )));
    }
}
