//! Which statuses need no second look: those that were right, of objects for which nothing is another since.
//!
//! INVARIANT: an object is passed over only if its status was found right, and everything that [`super::conditions`] reads of it
//! was compared since and is the same. What is of a workload or of all objects is compared once a round, and counts by the round
//! in which it came to be what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_compiler::WorkloadId;

use super::super::index::RuleObject;
use super::super::source::Judged;
use super::super::view::Kept;
use super::{Hidden, Proxies, View, qualified};
use crate::rules::{Finding, ObjectPath};

/// What was looked at.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    round: u64,
    /// What is the same for all objects, and since which round.
    whole: (Whole, u64),
    /// What every workload does, and since which round.
    workloads: BTreeMap<WorkloadId, (OfWorkload, u64)>,
    /// What was judged, and since which round.
    judged: (Option<Arc<Judged>>, u64),
    /// Objects whose status was found right, by path.
    right: BTreeMap<String, Right>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Whole {
    /// Files with errors hold others back.
    broken: BTreeSet<String>,
    hidden: Hidden,
    opted_out: BTreeSet<String>,
    /// Whether policies are kept, and what brings filters.
    keeps: (bool, bool),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct OfWorkload {
    proxies: Option<Proxies>,
    fenced: Option<Kept>,
    attached: Option<Kept>,
    unreachable: BTreeSet<String>,
}

/// What a judgement says of one object.
#[derive(Debug, PartialEq)]
struct OfObject {
    findings: Vec<Finding>,
    is_counting: bool,
    has_last_good: bool,
    reached: BTreeSet<WorkloadId>,
}

#[derive(Debug)]
struct Right {
    live: Arc<RuleObject>,
    /// Filters were offered what was judged. What is right then stays right while something else is on its way to them: of an
    /// object that did not change, what is known still holds.
    was_offered: bool,
    of: OfObject,
    /// In which round it was found right, and the last one in which `of` was compared.
    round: u64,
    compared: u64,
}

// === impl Looked ===

impl Looked {
    /// Compares what many objects share.
    pub(crate) fn begin(&mut self, judged: &Arc<Judged>, view: &View<'_>) {
        self.round = self.round.saturating_add(1);
        let round = self.round;
        if self.judged.0.as_ref().is_none_or(|known| !Arc::ptr_eq(known, judged)) {
            self.judged = (Some(Arc::clone(judged)), round);
        }
        let whole = Whole::new(view);
        if self.whole.0 != whole {
            self.whole = (whole, round);
        }
        let mut unreachable: BTreeMap<&WorkloadId, BTreeSet<String>> = BTreeMap::new();
        for (id, pod) in view.unreachable {
            unreachable.entry(id).or_default().insert(pod.clone());
        }
        let fence = view.fence;
        let attached = fence.and_then(|fence| fence.attached.as_ref());
        let mut ids: BTreeSet<&WorkloadId> = view.proxies.keys().chain(unreachable.keys().copied()).collect();
        ids.extend(fence.into_iter().flat_map(|fence| fence.workloads.keys()));
        ids.extend(attached.into_iter().flat_map(BTreeMap::keys));
        let nowhere = BTreeSet::new();
        // What is not there any more is forgotten, and what reached it looked at again: names of pods come and go without end.
        let gone: BTreeSet<WorkloadId> =
            self.workloads.extract_if(.., |id, _| !ids.contains(id)).map(|(id, _)| id).collect();
        if !gone.is_empty() {
            self.right.retain(|_, right| right.of.reached.is_disjoint(&gone));
        }
        for id in ids {
            let proxies = view.proxies.get(id);
            let fenced = fence.and_then(|fence| fence.workloads.get(id));
            let attached = attached.and_then(|attached| attached.get(id));
            let unreachable = unreachable.get(id).unwrap_or(&nowhere);
            let is_same = |known: &OfWorkload| {
                known.proxies.as_ref() == proxies
                    && known.fenced.as_ref() == fenced
                    && known.attached.as_ref() == attached
                    && known.unreachable == *unreachable
            };
            if !self.workloads.get(id).is_some_and(|(known, _)| is_same(known)) {
                let now = OfWorkload {
                    proxies: proxies.cloned(),
                    fenced: fenced.cloned(),
                    attached: attached.cloned(),
                    unreachable: unreachable.clone(),
                };
                self.workloads.insert(id.clone(), (now, round));
            }
        }
    }

    /// Whether this object's status is known to be right.
    pub(crate) fn is_right(
        &mut self,
        path: &str,
        object: impl FnOnce() -> Option<ObjectPath>,
        live: &Arc<RuleObject>,
        view: &View<'_>,
    ) -> bool {
        let Some(right) = self.right.get_mut(path) else { return false };
        if !Arc::ptr_eq(&right.live, live)
            || (view.is_offered && !right.was_offered)
            || self.whole.1 > right.round
        {
            return false;
        }
        if self.judged.1 > right.compared {
            let Some(object) = object() else { return false };
            if OfObject::new(path, &object, view) != right.of {
                return false;
            }
            right.compared = self.round;
        }
        let is_old = |id: &WorkloadId| self.workloads.get(id).is_none_or(|(_, since)| *since <= right.round);
        right.of.reached.iter().all(is_old)
    }

    /// It was looked at, and is right.
    pub(crate) fn found_right(
        &mut self,
        path: &str,
        object: &ObjectPath,
        live: &Arc<RuleObject>,
        view: &View<'_>,
    ) {
        let right = Right {
            live: Arc::clone(live),
            was_offered: view.is_offered,
            of: OfObject::new(path, object, view),
            round: self.round,
            compared: self.round,
        };
        self.right.insert(path.to_owned(), right);
    }

    /// It was looked at, and is not right.
    pub(crate) fn found_wrong(&mut self, path: &str) {
        self.right.remove(path);
    }

    /// These objects are all that are there.
    pub(crate) fn forget_all_but(&mut self, there: &[(String, Arc<RuleObject>)]) {
        if self.right.len() > there.len() {
            let there: BTreeSet<&str> = there.iter().map(|(path, _)| path.as_str()).collect();
            self.right.retain(|path, _| there.contains(path.as_str()));
        }
    }
}

// === impl Whole ===

impl Whole {
    fn new(view: &View<'_>) -> Self {
        let findings = view.judged.findings.iter();
        let broken = findings.filter(|(_, found)| found.iter().any(Finding::is_error));
        Self {
            broken: broken.map(|(file, _)| file.clone()).collect(),
            hidden: view.hidden.clone(),
            opted_out: view.opted_out.clone(),
            keeps: (view.fence.is_some(), view.fence.is_some_and(|fence| fence.attached.is_some())),
        }
    }
}

// === impl OfObject ===

impl OfObject {
    fn new(path: &str, object: &ObjectPath, view: &View<'_>) -> Self {
        let judged = view.judged;
        Self {
            findings: judged.findings.get(path).cloned().unwrap_or_default(),
            is_counting: judged.counting.get(path) == judged.loaded.files.get(path),
            has_last_good: judged.counting.contains_key(path),
            reached: view.reach.get(&(object.kind, qualified(object))).cloned().unwrap_or_default(),
        }
    }
}
