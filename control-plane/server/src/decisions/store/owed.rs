//! Gaps that still have to be written.

use crate::decisions::metrics::DecisionMetrics;
use crate::decisions::queue::Lost;
use crate::decisions::record::{Entry, Gap, GapCause, Moment};
use crate::metrics::ReasonLabel;

/// Most gaps that wait to be written, of as many workloads.
const MAX_GAPS: usize = 256;

/// What is lost and not told yet.
#[derive(Debug)]
pub(super) struct Owed {
    gaps: Vec<Gap>,
    metrics: DecisionMetrics,
}

// === impl Owed ===

impl Owed {
    pub fn new(metrics: DecisionMetrics) -> Self {
        Self { gaps: Vec::new(), metrics }
    }

    /// So many of a workload are lost. Until that is written it is one gap.
    pub fn add(&mut self, workload: &str, cause: GapCause, lost: Lost) {
        // Some few have a lot waiting; not all of a large mesh.
        let workload = if self.gaps.len() < MAX_GAPS { workload } else { "" };
        let gap = Gap {
            time: Moment::now(),
            workload: workload.to_owned(),
            instance: String::new(),
            cause,
            lost: Some(lost.all()),
            lost_in_full: lost.in_full,
        };
        // Those of which there was a record are told again if their gap goes the same way: the store's gaps have a count of
        // their own.
        if cause != GapCause::StoreFull {
            self.metrics.decided.count_gap(&gap);
        }
        let same = self
            .gaps
            .iter_mut()
            .find(|known| known.cause == cause && known.workload == workload && known.lost.is_some());
        if let Some(known) = same {
            known.lost = known.lost.map(|before| before.saturating_add(lost.all()));
            known.lost_in_full = known.lost_in_full.saturating_add(lost.in_full);
        } else {
            self.push(gap);
        }
    }

    /// Something is lost; of whom and how much is not known.
    pub fn add_unknown(&mut self, cause: GapCause) {
        let (workload, instance) = (String::new(), String::new());
        let gap = Gap { time: Moment::now(), workload, instance, cause, lost: None, lost_in_full: 0 };
        self.push(gap);
    }

    fn push(&mut self, gap: Gap) {
        self.metrics.gaps.get_or_create(&ReasonLabel::new(gap.cause.word())).inc();
        self.gaps.push(gap);
    }

    /// As they are to be written.
    pub fn entries(&self) -> Vec<Entry> {
        self.gaps.iter().cloned().map(Entry::Gap).collect()
    }

    /// So many, the first ones, are written.
    pub fn written(&mut self, count: usize) {
        self.gaps.drain(..count.min(self.gaps.len()));
    }
}
