//! Keeps Istio's policies as rules say, and in step with what filters enforce.
//!
//! Accepted rules do not reach filters directly: where they allow more than the policies in force, the policies become a
//! union of both first, and have time to settle; where they allow less, the policies follow when the filters have
//! acknowledged. "Widening: Fence, settle, then Bundle. Narrowing: Bundle, receipts, then Fence."
//!
//! INVARIANT: nothing waits for ever: a Deny must reach the filters although the API server or Istio is not there. What
//! filters allow and the policies do not is refused meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::Client;
use tidegate_compiler::WorkloadId;
use tidegate_compiler::fence::{
    Fence, FenceOptions, IstioVersion, Step, WorkloadFence, fence, label, transition,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::index::Index;
use super::lease::Leadership;
use super::owned::{Change, Desired, Key, Live, Unwritten, changes};
use crate::push::{Hub, stopped};
use crate::serve::InForce;

/// How long rules wait at most for policies that let them through.
const LONGEST_WIDENING: Duration = Duration::from_secs(10);
/// How long policies wait at most for filters that do not acknowledge.
const LONGEST_NARROWING: Duration = Duration::from_secs(30);
/// How often filters are asked whether they have.
const RECEIPTS: Duration = Duration::from_millis(100);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// What the watches tell of our own writes comes at once.
const QUIET: Duration = Duration::from_millis(20);
/// How many writes are under way at once.
const AT_ONCE: usize = 16;

/// How policies are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencePlan {
    /// The version of the mesh.
    pub istio: IstioVersion,
    /// How long Istio may take to bring a policy to its proxies.
    pub settle: Duration,
}

/// What there is to say about the Fence.
#[derive(Debug, Default)]
pub(crate) struct FenceView {
    /// By workload.
    pub(crate) workloads: BTreeMap<WorkloadId, Fenced>,
}

/// What there is to say about the Fence of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fenced {
    /// The policies are as they should be; and where and why they are wider than the rules.
    Done { notes: Vec<String>, is_open: bool },
    /// They are not yet.
    Pending,
    /// Somebody else has them.
    Conflict(String),
    /// They cannot be written.
    Failed(String),
}

/// Keeps policies while this replica leads, and lets rules through in any case.
pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) hub: Arc<Hub>,
    /// Absent: there are no policies to keep.
    pub(crate) plan: Option<FencePlan>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// What was accepted.
    pub(crate) accepted: watch::Receiver<Option<Arc<InForce>>>,
    /// What filters are to enforce.
    pub(crate) in_force: watch::Sender<Option<Arc<InForce>>>,
    /// Of which everything is on offer.
    pub(crate) offered: watch::Receiver<Option<Arc<InForce>>>,
    pub(crate) view: watch::Sender<Arc<FenceView>>,
}

/// Where a change is on its way.
#[derive(Debug)]
enum Phase {
    /// The union is being written; rules wait for it.
    Widening { rules: Arc<InForce>, since: Instant, settled_at: Option<Instant> },
    /// Filters are being told; the union stays.
    Narrowing { since: Instant },
    /// Everything is as rules say.
    Steady,
}

struct State {
    /// What rules say in the end.
    last: Fence,
    /// What should be there now.
    desired: Desired,
    phase: Phase,
    /// What could not be written, for which version of what is there.
    unwritten: BTreeMap<Key, (Option<String>, Change, Unwritten)>,
    retry_at: Option<Instant>,
}

// === impl Keeper ===

impl Keeper {
    /// Runs until the server stops.
    pub(crate) async fn run(mut self) -> Result<(), std::convert::Infallible> {
        let mut stop = self.hub.stopping();
        let mut policies = self.index.policies();
        let mut seen: Option<Arc<InForce>> = None;
        let mut state = State {
            last: Fence::default(),
            desired: Desired::new(),
            phase: Phase::Steady,
            unwritten: BTreeMap::new(),
            retry_at: None,
        };
        loop {
            let leads = self.leadership.borrow_and_update().epoch.is_some();
            let accepted = self.accepted.borrow_and_update().clone();
            if let Some(rules) =
                accepted.filter(|rules| seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, rules)))
            {
                // Without a list of what is there, a union with it is a guess.
                if !leads || self.plan.is_none() || self.index.is_fence_listed() {
                    seen = Some(rules.clone());
                    self.begin(&mut state, rules, leads);
                } else {
                    self.release(rules.clone());
                }
            }
            let is_kept = leads && self.plan.is_some() && seen.is_some() && self.index.is_fence_listed();
            if is_kept {
                self.write(&mut state).await;
            }
            let wake = self.advance(&mut state, leads);
            if self.plan.is_some() {
                self.show(&state);
            }
            let wake = [wake, state.retry_at].into_iter().flatten().min();
            let until = async {
                match wake {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = policies.changed() => sleep(QUIET).await,
                _ = self.accepted.changed() => {}
                _ = self.leadership.changed() => {}
                () = until => state.retry_at = state.retry_at.filter(|time| *time > Instant::now()),
                () = stopped(&mut stop) => return Ok(()),
            }
        }
    }

    /// Rules were accepted.
    fn begin(&self, state: &mut State, rules: Arc<InForce>, leads: bool) {
        let Some(plan) = &self.plan else { return self.release(rules) };
        let options = FenceOptions { istio: plan.istio, ..FenceOptions::default() };
        state.last = fence(&rules.compiled, &options);
        state.unwritten.clear();
        if !leads {
            state.phase = Phase::Steady;
            state.desired = objects(&state.last);
            return self.release(rules);
        }
        let there = there(&self.index.owned(), &state.last);
        let steps = transition(&there, &state.last);
        match steps.first() {
            Some(Step::Fence(between)) => {
                state.desired = objects(between);
                state.phase = Phase::Widening { rules, since: Instant::now(), settled_at: None };
            }
            _ => {
                state.desired = objects(&there);
                // What belongs to workloads that are no more is part of what is there; it goes at the end.
                state.phase = Phase::Narrowing { since: Instant::now() };
                self.release(rules);
            }
        }
    }

    fn release(&self, rules: Arc<InForce>) {
        self.in_force.send_if_modified(|current| {
            let is_new = current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, &rules));
            *current = Some(rules);
            is_new
        });
    }

    /// Takes the next step when it is time; when to look again.
    fn advance(&self, state: &mut State, leads: bool) -> Option<Instant> {
        let now = Instant::now();
        match &mut state.phase {
            Phase::Steady => None,
            Phase::Widening { rules, since, settled_at } => {
                let is_written = self.missing(&state.desired).is_empty();
                let settle = self.plan.as_ref().map(|plan| plan.settle).unwrap_or_default();
                let settled = match settled_at {
                    Some(time) => *time,
                    None if is_written => *settled_at.insert(now + settle),
                    None => *since + LONGEST_WIDENING,
                };
                if leads && now < settled && now < *since + LONGEST_WIDENING {
                    return Some(settled);
                }
                if leads && !is_written {
                    warn!(
                        "filters get new rules although policies that let them through could not be written"
                    );
                }
                self.release(rules.clone());
                state.phase = Phase::Narrowing { since: now };
                Some(now + RECEIPTS)
            }
            Phase::Narrowing { since } => {
                if leads && now < *since + LONGEST_NARROWING && !self.is_acknowledged() {
                    return Some(now + RECEIPTS);
                }
                state.desired = objects(&state.last);
                state.phase = Phase::Steady;
                // To be written at once.
                Some(now)
            }
        }
    }

    /// Whether every connected filter enforces what was accepted.
    fn is_acknowledged(&self) -> bool {
        let same = |one: &Option<Arc<InForce>>, other: &Option<Arc<InForce>>| {
            one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
        };
        same(&self.offered.borrow(), &self.in_force.borrow())
            && crate::admin::fleet(&self.hub).workloads.values().all(|one| one.connected == one.enforcing)
    }

    /// What should be there and is not as it should be.
    fn missing(&self, desired: &Desired) -> BTreeSet<Key> {
        let changes = changes(&self.index.owned(), desired);
        changes.iter().filter(|change| !matches!(change, Change::Delete { .. })).map(Change::key).collect()
    }

    async fn write(&self, state: &mut State) {
        let live = self.index.owned();
        let due = |change: &Change| {
            let key = change.key();
            let version = live.get(&key).map(|live| live.version.clone());
            match state.unwritten.get(&key) {
                // A conflict stays one until something is another.
                Some((known, tried, Unwritten::Conflict(_))) => *known != version || tried != change,
                Some((_, _, Unwritten::Failed(_))) => state.retry_at.is_none(),
                None => true,
            }
        };
        let all = changes(&live, &state.desired);
        // What is no longer wanted is no longer unwritten.
        let wanted: BTreeSet<Key> = all.iter().map(Change::key).collect();
        let due: Vec<Change> = all.into_iter().filter(due).collect();
        state.unwritten.retain(|key, _| wanted.contains(key));
        let (deleted, applied): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|change| matches!(change, Change::Delete { .. }));
        for batch in [applied, deleted] {
            let results: Vec<(Change, Result<(), Unwritten>)> = stream::iter(batch)
                .map(|change| async {
                    // The lease may have gone meanwhile.
                    self.leadership.borrow().epoch?;
                    let result = change.make(&self.client, live.get(&change.key())).await;
                    Some((change, result))
                })
                .buffer_unordered(AT_ONCE)
                .filter_map(std::future::ready)
                .collect()
                .await;
            for (change, result) in results {
                let key = change.key();
                match result {
                    Ok(()) => {
                        info!("{key}: {}", change.word());
                        state.unwritten.remove(&key);
                    }
                    Err(why) => {
                        if state.unwritten.get(&key).is_none_or(|(_, _, known)| *known != why) {
                            warn!("{}", why.message());
                        }
                        if matches!(why, Unwritten::Failed(_)) {
                            state.retry_at = Some(Instant::now() + RETRY);
                        }
                        let version = live.get(&key).map(|live| live.version.clone());
                        state.unwritten.insert(key, (version, change, why));
                    }
                }
            }
        }
    }

    /// Says how far everything is.
    fn show(&self, state: &State) {
        let missing = self.missing(&objects(&state.last));
        let of = |fence: &WorkloadFence| {
            let keys: Vec<Key> = fence.objects.iter().map(Key::of).collect();
            let why = keys.iter().filter_map(|key| state.unwritten.get(key)).map(|(_, _, why)| why).min();
            match why {
                Some(Unwritten::Conflict(why)) => Fenced::Conflict(why.clone()),
                Some(Unwritten::Failed(why)) => Fenced::Failed(why.clone()),
                None if keys.iter().any(|key| missing.contains(key)) => Fenced::Pending,
                None if !matches!(state.phase, Phase::Steady) && !fence.objects.is_empty() => Fenced::Pending,
                None => Fenced::Done {
                    notes: fence.notes.iter().map(ToString::to_string).collect(),
                    is_open: fence.objects.is_empty(),
                },
            }
        };
        let workloads: BTreeMap<WorkloadId, Fenced> =
            state.last.workloads.iter().map(|(id, fence)| (id.clone(), of(fence))).collect();
        self.view.send_if_modified(|view| {
            let is_changed = view.workloads != workloads;
            if is_changed {
                *view = Arc::new(FenceView { workloads });
            }
            is_changed
        });
    }
}

/// The objects of a Fence.
fn objects(fence: &Fence) -> Desired {
    let all = fence.workloads.values().flat_map(|workload| &workload.objects);
    all.map(|object| (Key::of(object), object.clone())).collect()
}

/// What is in the cluster, as a Fence: by the workload that `like` has under the object's label, or under the label itself.
fn there(owned: &BTreeMap<Key, Live>, like: &Fence) -> Fence {
    let names: BTreeMap<(&str, String), &WorkloadId> =
        like.workloads.keys().map(|id| ((id.namespace.as_str(), label(&id.name)), id)).collect();
    let mut there = Fence::default();
    for (key, live) in owned {
        let Some((workload, object)) = live.as_ours(key) else { continue };
        let id = match names.get(&(key.namespace.as_str(), workload.clone())) {
            Some(id) => (*id).clone(),
            None => WorkloadId { namespace: key.namespace.clone(), name: workload },
        };
        there.workloads.entry(id).or_default().objects.push(object);
    }
    // In the order in which a Fence has them, so that what is the same is found to be.
    for (id, workload) in &mut there.workloads {
        let order: Vec<Key> =
            like.workloads.get(id).map(|like| like.objects.iter().map(Key::of).collect()).unwrap_or_default();
        let place = |object: &tidegate_compiler::fence::IstioObject| {
            let key = Key::of(object);
            order.iter().position(|known| *known == key).unwrap_or(usize::MAX)
        };
        workload.objects.sort_by_key(place);
    }
    there
}
