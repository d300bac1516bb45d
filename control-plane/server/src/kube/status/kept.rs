//! What is said of Istio's objects: *Fenced* and *Attached*.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_compiler::WorkloadId;

use super::super::view::{FenceView, Kept};
use super::{Condition, View, qualified, shortened, some_of};
use crate::rules::ObjectPath;

/// Both say it of what they are about.
struct Words {
    kind: &'static str,
    /// Not compiled.
    not_compiled: &'static str,
    /// What is on its way, of some workloads.
    pending: &'static str,
    /// Reason and message where a workload has nothing.
    open: (&'static str, &'static str),
}

const FENCED: Words = Words {
    kind: "Fenced",
    not_compiled: "Istio's policies do not have it as it is",
    pending: "the policies of",
    open: ("Open", "Istio alone refuses nothing at"),
};
const ATTACHED: Words = Words {
    kind: "Attached",
    not_compiled: "nothing of it is brought to proxies as it is",
    pending: "the objects that bring filters to",
    open: ("NoFilter", "no object can bring a filter to"),
};

/// Whether Istio's policies say the same.
pub(super) fn fenced(
    object: &ObjectPath,
    is_counting: bool,
    view: &View<'_>,
    fence: &FenceView,
) -> Condition {
    let notes = match said(&FENCED, object, is_counting, view, &fence.workloads) {
        Ok(notes) => notes,
        Err(condition) => return condition,
    };
    let (reason, message) = match notes.as_slice() {
        [] => ("Fenced", "Istio's policies say the same".to_owned()),
        notes => ("FencedWider", format!("wider than the rules:\n{}", notes.join("\n"))),
    };
    condition(&FENCED, "True", reason, message)
}

/// Whether what brings filters is there; `None`: others bring them.
pub(super) fn attached(
    object: &ObjectPath,
    is_counting: bool,
    view: &View<'_>,
    fence: &FenceView,
) -> Option<Condition> {
    let attached = fence.attached.as_ref()?;
    Some(match said(&ATTACHED, object, is_counting, view, attached) {
        Ok(_) => {
            let message = "every workload that it reaches has what brings its filter".to_owned();
            condition(&ATTACHED, "True", "Attached", message)
        }
        Err(condition) => condition,
    })
}

fn condition(words: &Words, status: &'static str, reason: &'static str, message: String) -> Condition {
    Condition { kind: words.kind, status, reason: reason.into(), message: shortened(message) }
}

/// What there is to note where all is well, or what is not.
fn said(
    words: &Words,
    object: &ObjectPath,
    is_counting: bool,
    view: &View<'_>,
    kept: &BTreeMap<WorkloadId, Kept>,
) -> Result<Vec<String>, Condition> {
    let not = |reason, message| Err(condition(words, "False", reason, message));
    if !is_counting {
        return not("NotCompiled", words.not_compiled.to_owned());
    }
    let Some(reached) = view.reach.get(&(object.kind, qualified(object))) else {
        return not("TargetsNothing", "no workload is reached by it".to_owned());
    };
    let mut conflicts = BTreeSet::new();
    let mut failures = BTreeSet::new();
    let mut pending = BTreeSet::new();
    let mut told = Vec::new();
    let mut open = BTreeSet::new();
    for id in reached {
        match kept.get(id) {
            Some(Kept::Conflict(why)) => drop(conflicts.insert(why.clone())),
            Some(Kept::Failed(why)) => drop(failures.insert(why.clone())),
            None | Some(Kept::Pending) => drop(pending.insert(id)),
            Some(Kept::Done { notes }) => told.extend(notes.iter().map(|note| format!("{id}: {note}"))),
            Some(Kept::Open { notes }) => {
                told.extend(notes.iter().map(|note| format!("{id}: {note}")));
                open.insert(id);
            }
        }
    }
    if !conflicts.is_empty() {
        not("Conflict", some_of(&conflicts))
    } else if !failures.is_empty() {
        not("NotWritten", some_of(&failures))
    } else if !pending.is_empty() {
        not("BeingWritten", format!("{} {} are on their way", words.pending, some_of(&pending)))
    } else if !open.is_empty() {
        let (reason, message) = words.open;
        not(reason, [vec![format!("{message} {}", some_of(&open))], told].concat().join("\n"))
    } else {
        Ok(told)
    }
}
