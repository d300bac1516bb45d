//! Every workload's policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::issuers::TrustedIssuer;
use crate::mesh::{Mesh, WorkloadId};
use crate::parallel;
use crate::place::Findings;
use crate::plan::{Planned, WorkloadPolicy};
use crate::rules::{Guard, Rule};
use crate::tally::Change;
use crate::warnings::{self, Budget, Notes};

use super::file::File;

/// What reaches which workload, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    rules: BTreeMap<WorkloadId, BTreeMap<Name, Arc<Rule>>>,
    /// Those whose rules came or went since they were planned. INVARIANT: all others were planned of just their `rules`.
    touched: BTreeSet<WorkloadId>,
    /// Of the same mesh and issuers.
    planned: BTreeMap<WorkloadId, Workload>,
}

/// A rule's name, and where it is in memory: while rules are broken there may be two of a name.
type Name = (Arc<str>, usize);

#[derive(Debug)]
struct Workload {
    planned: Planned,
    notes: Notes,
}

/// What reaches a workload now.
struct Reaching<'m> {
    id: &'m WorkloadId,
    guards: Vec<Arc<Guard>>,
    rules: Vec<Arc<Rule>>,
}

/// How much of what was made of a workload is still right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    /// All but places.
    Policy,
    All,
}

fn name(rule: &Arc<Rule>) -> Name {
    (Arc::clone(&rule.name), Arc::as_ptr(rule).addr())
}

/// The workloads that rules of these files reach, and these rules: those next to each other that reach the same ones at once.
fn reached(files: &[Arc<File>]) -> impl Iterator<Item = (&WorkloadId, &[Arc<Rule>])> {
    let rules = files.iter().flat_map(|file| file.rules.chunk_by(|a, b| Arc::ptr_eq(&a.reach, &b.reach)));
    rules.flat_map(|rules| {
        rules.iter().take(1).flat_map(|first| first.reach.iter()).map(move |id| (id, rules))
    })
}

fn touch(touched: &mut BTreeSet<WorkloadId>, id: &WorkloadId) {
    if !touched.contains(id) {
        touched.insert(id.clone());
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>], says_the_same: fn(&T, &T) -> bool) -> Kept {
    if a.len() != b.len() {
        return Kept::Nothing;
    }
    let mut kept = Kept::All;
    for (a, b) in a.iter().zip(b).filter(|(a, b)| !Arc::ptr_eq(a, b)) {
        if !says_the_same(a, b) {
            return Kept::Nothing;
        }
        kept = Kept::Policy;
    }
    kept
}

// === impl Workloads ===

impl Workloads {
    /// The rules of these files do not count any more.
    pub(super) fn remove(&mut self, files: &[Arc<File>]) {
        for (id, rules) in reached(files) {
            if let Some(known) = self.rules.get_mut(id) {
                rules.iter().for_each(|rule| drop(known.remove(&name(rule))));
                touch(&mut self.touched, id);
            }
        }
    }

    /// The rules of these files count.
    pub(super) fn add(&mut self, files: &[Arc<File>]) {
        for (id, rules) in reached(files) {
            touch(&mut self.touched, id);
            let rules = rules.iter().map(|rule| (name(rule), Arc::clone(rule)));
            match self.rules.get_mut(id) {
                Some(known) => known.extend(rules),
                None => drop(self.rules.insert(id.clone(), rules.collect())),
            }
        }
    }

    /// Mesh or issuers are others now: every policy is made anew.
    pub(super) fn forget_plans(&mut self) {
        self.planned.clear();
    }

    /// The policies, and the workloads that have a Guard. `None` if one cannot be made.
    pub(super) fn plan<'g>(
        &mut self,
        mesh: &Mesh,
        issuers: &BTreeMap<String, Option<TrustedIssuer>>,
        guards: impl Iterator<Item = &'g Arc<Guard>>,
        findings: &mut Findings,
    ) -> (Option<BTreeMap<WorkloadId, Arc<WorkloadPolicy>>>, BTreeSet<WorkloadId>) {
        let mut guards_of: BTreeMap<&WorkloadId, Vec<&'g Arc<Guard>>> = BTreeMap::new();
        for guard in guards {
            for id in guard.reach.iter() {
                guards_of.entry(id).or_default().push(guard);
            }
        }
        guards_of.values_mut().for_each(|guards| guards.sort_by(|a, b| a.name.cmp(&b.name)));
        self.planned.retain(|id, _| mesh.workloads.contains_key(id));
        let changed: Vec<(Reaching<'_>, Kept)> = mesh
            .workloads
            .keys()
            .filter_map(|id| {
                let known = self.planned.get(id);
                let guards: Vec<Arc<Guard>> =
                    guards_of.get(id).into_iter().flatten().map(|guard| Arc::clone(guard)).collect();
                if let Some(known) = known
                    && !self.touched.contains(id)
                    && same(&known.planned.guards, &guards, Guard::says_the_same) == Kept::All
                {
                    return None;
                }
                let rules =
                    self.rules.get(id).into_iter().flatten().map(|(_, rule)| Arc::clone(rule)).collect();
                let reaching = Reaching { id, guards, rules };
                let kept = known.map_or(Kept::Nothing, |known| known.kept(&reaching));
                (kept != Kept::All).then_some((reaching, kept))
            })
            .collect();
        self.touched.clear();
        let known = &self.planned;
        let planned = parallel::map_owned(changed, |(Reaching { id, guards, rules }, kept)| {
            let known = known.get(id).map(|known| &known.planned);
            let (planned, change) = match (kept, known) {
                (Kept::Policy, Some(known)) => (known.moved(id, issuers, guards, rules), None),
                (_, known) => Planned::new(id, mesh, issuers, guards, rules, known),
            };
            (id, (planned, kept, change))
        });
        let mut fresh: BTreeMap<&WorkloadId, (Planned, Kept, Option<Change>)> = planned.into_iter().collect();
        // How much is compared depends on the workloads before.
        let mut budget = Budget::new();
        let mut unnoted: Vec<(&WorkloadId, Planned, Option<Change>, usize)> = Vec::new();
        for id in mesh.workloads.keys() {
            let known = self.planned.get(id);
            let (planned, kept, change) = match fresh.remove(id) {
                Some((planned, kept, change)) => (Some(planned), kept, change),
                None => (None, Kept::All, None),
            };
            let tally = planned.as_ref().or(known.map(|known| &known.planned)).map(|planned| planned.tally);
            let compared = budget.take(tally.unwrap_or_default());
            let noted =
                kept != Kept::Nothing && known.is_some_and(|known| known.notes.compared() == compared);
            match (planned, noted) {
                (None, true) => {}
                (Some(planned), true) => {
                    if let Some(known) = self.planned.get_mut(id) {
                        known.planned = planned;
                    }
                }
                (planned, false) => {
                    unnoted.extend(
                        planned
                            .or(known.map(|known| known.planned.clone()))
                            .map(|planned| (id, planned, change, compared)),
                    );
                }
            }
        }
        let known = &self.planned;
        let notes = parallel::map(&unnoted, |(id, planned, change, compared)| match &planned.policy {
            Ok(policy) => {
                let before = change.as_ref().and_then(|change| Some((&known.get(*id)?.notes, change)));
                Notes::new(&policy.model, *compared, before)
            }
            Err(_) => Notes::default(),
        });
        for ((id, planned, _, _), notes) in unnoted.into_iter().zip(notes) {
            self.planned.insert(id.clone(), Workload { planned, notes });
        }
        for workload in self.planned.values() {
            findings.extend(workload.planned.findings.iter().cloned());
        }
        warnings::tell(
            self.planned.values().map(|workload| (workload.planned.rules.as_slice(), &workload.notes)),
            findings,
        );
        let policies = self.planned.iter().map(|(id, workload)| {
            let policy = workload.planned.policy.as_ref().ok()?;
            Some((id.clone(), Arc::clone(policy)))
        });
        (policies.collect(), guards_of.into_keys().cloned().collect())
    }
}

// === impl Workload ===

impl Workload {
    /// What is still right where these reach it.
    fn kept(&self, reaching: &Reaching<'_>) -> Kept {
        let guards = same(&self.planned.guards, &reaching.guards, Guard::says_the_same);
        let rules = same(&self.planned.rules, &reaching.rules, Rule::says_the_same);
        match (guards, rules) {
            (Kept::Nothing, _) | (_, Kept::Nothing) => Kept::Nothing,
            (Kept::All, Kept::All) => Kept::All,
            _ => Kept::Policy,
        }
    }
}
