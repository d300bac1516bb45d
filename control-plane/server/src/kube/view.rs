//! How far the keeping of Istio's objects is.

use std::collections::BTreeMap;

use tidegate_compiler::WorkloadId;

use super::owned::{Key, Unwritten};
use super::writes::Writes;

/// What there is to say about objects that are kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FenceView {
    /// The Fence of every workload.
    pub(crate) workloads: BTreeMap<WorkloadId, Kept>,
    /// What brings its filter; absent: others do.
    pub(crate) attached: Option<BTreeMap<WorkloadId, Kept>>,
}

/// What there is to say about objects of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// They are as they should be; and what there is to know about them.
    Done { notes: Vec<String> },
    /// There are none, and why.
    Open { notes: Vec<String> },
    /// They are not yet.
    Pending,
    /// Somebody else has them.
    Conflict(String),
    /// They cannot be written.
    Failed(String),
}

// === impl Kept ===

impl Kept {
    /// Of these objects, some of which may not have been written.
    pub(super) fn of(
        keys: &[Key],
        notes: Vec<String>,
        writes: &Writes,
        is_there: impl Fn(&Key) -> bool,
    ) -> Self {
        match keys.iter().filter_map(|key| writes.why(key)).min() {
            Some(Unwritten::Conflict(why)) => Self::Conflict(why.clone()),
            Some(Unwritten::Failed(why)) => Self::Failed(why.clone()),
            None if keys.iter().all(is_there) => Self::Done { notes },
            None => Self::Pending,
        }
    }
}
