//! Keeps Istio's policies, and the objects that bring filters, as rules say and in step with what filters enforce.
//!
//! Accepted rules do not reach filters directly: where they allow more than the policies in force, the policies become a
//! union of both first, and have time to settle; where they allow less, the policies follow when the filters have
//! acknowledged. "Widening: Fence, settle, then Bundle. Narrowing: Bundle, receipts, then Fence."
//!
//! A policy demands an interlock only after the filters were told it, and they are until no policy demands it any more.
//!
//! INVARIANT: nothing waits for ever: a Deny must reach the filters although the API server or Istio is not there. What
//! filters allow and the policies do not is refused meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tidegate_compiler::WorkloadId;
use tidegate_compiler::fence::{
    Fence, FenceOptions, Fencer, IstioObject, IstioVersion, Step, Surroundings, WorkloadFence, label,
    transition,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::index::{Index, Namespace, Watched};
use super::lease::Leadership;
use super::owned::{Agreed, Change, Desired, Key, Live, Lives, changes};
use super::plugins::{Attachments, PluginPlan, Wanted};
use super::pods::Workloads;
use super::view::{FenceView, Kept};
use super::writes::Writes;
use crate::clock;
use crate::push::{Hub, stopped};
use crate::serve::InForce;

/// How long rules wait at most for policies that let them through.
const LONGEST_WIDENING: Duration = Duration::from_secs(10);
/// How long policies wait at most for filters that do not acknowledge, or that were not told what policies will demand.
const LONGEST_NARROWING: Duration = Duration::from_secs(30);
/// How often filters are asked whether they have.
const RECEIPTS: Duration = Duration::from_millis(100);
/// How long the objects that bring filters are waited for: without them it is not known what filters were told.
const LISTED: Duration = Duration::from_secs(10);
/// What the watches tell of our own writes comes at once.
const QUIET: Duration = Duration::from_millis(20);

/// How policies are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencePlan {
    /// The version of the mesh.
    pub istio: IstioVersion,
    /// How long Istio may take to bring a policy to its proxies.
    pub settle: Duration,
    /// How filters are brought to workloads; absent: somebody else brings them.
    pub plugins: Option<Box<PluginPlan>>,
}

/// Keeps policies while this replica leads, and lets rules through in any case.
pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) hub: Arc<Hub>,
    /// Absent: there are no policies to keep.
    pub(crate) plan: Option<FencePlan>,
    /// Absent: others bring filters.
    pub(crate) attachments: Option<Attachments>,
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
    Narrowing { since: Instant, told_at: Option<Instant> },
    /// Everything is as rules say, once it is written.
    Steady { written_at: Option<Instant> },
}

struct State {
    /// Makes `last`.
    fencer: Fencer,
    /// What is known to be as it should.
    agreed: Arc<Agreed>,
    /// The rules of `last`.
    rules: Option<Arc<InForce>>,
    /// What rules say in the end.
    last: Fence,
    /// What should be there now, and its objects.
    between: Fence,
    desired: Desired,
    /// Workloads whose filters have to be told something before `last` is written.
    uninformed: BTreeSet<WorkloadId>,
    /// What brings filters; absent: nobody knows yet, and nothing is touched.
    wanted: Option<Wanted>,
    /// Whether something is another since it was made up.
    is_stale: bool,
    /// When what new pods begin with is looked at again.
    renew_at: Option<Instant>,
    phase: Phase,
    writes: Writes,
}

/// What is there, and where anything can be.
struct Scene {
    live: Lives,
    namespaces: BTreeMap<String, Namespace>,
    agreed: Arc<Agreed>,
}

// === impl Keeper ===

impl Keeper {
    /// Runs until the server stops.
    pub(crate) async fn run(mut self) -> Result<(), std::convert::Infallible> {
        let mut stop = self.hub.stopping();
        let mut policies = self.index.policies();
        let mut seen: Option<Arc<InForce>> = None;
        // Whether this replica led, and knew what brings filters.
        let mut before = (false, false);
        let patience = Instant::now() + LISTED;
        let mut state = State {
            fencer: Fencer::new(),
            agreed: Arc::default(),
            rules: None,
            last: Fence::default(),
            between: Fence::default(),
            desired: Desired::new(),
            uninformed: BTreeSet::new(),
            wanted: None,
            is_stale: true,
            renew_at: None,
            phase: Phase::Steady { written_at: None },
            writes: Writes::default(),
        };
        loop {
            let leads = self.leadership.borrow_and_update().epoch.is_some();
            let knows = self.are_plugins_listed();
            if (leads, knows) != before {
                before = (leads, knows);
                // What another replica left may be anywhere on the way.
                seen = None;
                state.wanted = None;
                self.attachments.iter_mut().for_each(Attachments::forget);
            }
            let is_listed = self.index.are_listed(Watched::fence())
                && (self.attachments.is_none() || knows || Instant::now() >= patience);
            let accepted = self.accepted.borrow_and_update().clone();
            if let Some(rules) =
                accepted.filter(|rules| seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, rules)))
            {
                // Without a list of what is there, a union with it is a guess.
                if !leads || self.plan.is_none() || is_listed {
                    seen = Some(rules.clone());
                    self.begin(&mut state, rules, leads);
                } else {
                    self.release(rules.clone());
                }
            }
            if leads && self.plan.is_some() && seen.is_some() {
                let scene = self.scene(&state.agreed);
                self.attach(&mut state, &scene);
                let all = scene.changes(&state);
                state.writes.make(&self.client, &self.leadership, &scene.live, all).await;
            }
            let wake = self.advance(&mut state, leads);
            if self.plan.is_some() {
                self.show(&state);
            }
            let waits = (leads && !is_listed).then_some(patience).filter(|time| *time > Instant::now());
            let wake = [wake, waits, state.writes.retry_at, state.renew_at].into_iter().flatten().min();
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
                _ = self.offered.changed() => state.is_stale = true,
                () = until => state.is_stale |= state.renew_at.is_some_and(|time| time <= Instant::now()),
                () = stopped(&mut stop) => return Ok(()),
            }
        }
    }

    fn scene(&self, agreed: &Arc<Agreed>) -> Scene {
        let (live, namespaces) = (self.index.owned(), self.index.namespaces());
        Scene { live, namespaces, agreed: Arc::clone(agreed) }
    }

    /// Whether the objects that bring filters are known.
    fn are_plugins_listed(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| self.index.are_listed(Watched::plugins(plan.istio)))
    }

    /// Rules were accepted.
    fn begin(&self, state: &mut State, rules: Arc<InForce>, leads: bool) {
        let Some(plan) = &self.plan else { return self.release(rules) };
        let attachments = self.attachments.as_ref().filter(|_| self.are_plugins_listed());
        let interlock_secrets =
            attachments.map(|attachments| attachments.secrets(&rules.compiled)).unwrap_or_default();
        let options = FenceOptions { istio: plan.istio, interlock_secrets, ..FenceOptions::default() };
        state.last = state.fencer.fence_in(&rules.compiled, &options, &Surroundings::default());
        state.rules = Some(rules.clone());
        state.is_stale = true;
        state.writes.forget();
        let now = Instant::now();
        if !leads {
            state.phase = Phase::Steady { written_at: None };
            state.desire(state.last.clone());
            return self.release(rules);
        }
        let scene = self.scene(&state.agreed);
        scene.agreed.forget_all_but(&scene.live);
        state.uninformed = attachments
            .map(|attachments| attachments.uninformed(&state.last, &scene.live))
            .unwrap_or_default();
        let there = scene.there(&state.last);
        let steps = transition(&there, &state.last);
        match steps.first() {
            Some(Step::Fence(between)) => {
                state.desire(between.clone());
                state.phase = Phase::Widening { rules, since: now, settled_at: None };
            }
            _ => {
                state.desire(there);
                // What belongs to workloads that are no more is part of what is there; it goes at the end.
                state.phase = Phase::Narrowing { since: now, told_at: None };
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

    /// Makes up what is to bring filters, where something is another.
    fn attach(&mut self, state: &mut State, scene: &Scene) {
        let is_listed = self.are_plugins_listed();
        let (Some(attachments), Some(plan), Some(rules)) = (&mut self.attachments, &self.plan, &state.rules)
        else {
            return;
        };
        let is_right = state.wanted.as_ref().is_some_and(|wanted| !wanted.is_in_between) && !state.is_stale;
        if !is_listed || is_right {
            return;
        }
        let (releases, directories) = self.hub.distributor.on_offer();
        let now = clock::now();
        let again = attachments.warm_up(&rules.compiled, (&releases, &directories), &scene.live, now);
        state.renew_at = again.map(|time| {
            let seconds = u64::try_from(time.saturating_sub(now)).unwrap_or(0).max(1);
            Instant::now() + Duration::from_secs(seconds)
        });
        let mut has_settled = false;
        if let Phase::Steady { written_at } = &mut state.phase
            && scene.has(&state.desired)
        {
            let settled = *written_at.get_or_insert_with(Instant::now) + plan.settle;
            has_settled = Instant::now() >= settled;
            if !has_settled {
                state.renew_at = Some(state.renew_at.map_or(settled, |at| at.min(settled)));
            }
        }
        state.wanted = Some(attachments.wanted(&rules.compiled, &state.last, &scene.live, has_settled));
        state.is_stale = false;
    }

    /// Takes the next step when it is time; when to look again.
    fn advance(&self, state: &mut State, leads: bool) -> Option<Instant> {
        let now = Instant::now();
        let settle = self.plan.as_ref().map(|plan| plan.settle).unwrap_or_default();
        match &mut state.phase {
            Phase::Steady { .. } => None,
            Phase::Widening { rules, since, settled_at } => {
                let scene = self.scene(&state.agreed);
                let is_told = state.uninformed.is_empty() || scene.has_wanted(state.wanted.as_ref());
                let is_written = scene.has(&state.desired);
                let settled = match settled_at {
                    Some(time) => *time,
                    None if is_written && is_told => *settled_at.insert(now + settle),
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
                state.phase = Phase::Narrowing { since: now, told_at: None };
                Some(now + RECEIPTS)
            }
            Phase::Narrowing { since, told_at } => {
                let is_late = !leads || now >= *since + LONGEST_NARROWING;
                if !is_late && !self.is_acknowledged() {
                    return Some(now + RECEIPTS);
                }
                if !is_late && !state.uninformed.is_empty() {
                    if !self.scene(&state.agreed).has_wanted(state.wanted.as_ref()) {
                        return Some(now + RECEIPTS);
                    }
                    let told = *told_at.get_or_insert(now) + settle;
                    if now < told || !self.are_connected(&state.uninformed) {
                        return Some(told.max(now + RECEIPTS));
                    }
                }
                state.desire(state.last.clone());
                state.uninformed.clear();
                state.is_stale = true;
                state.phase = Phase::Steady { written_at: None };
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
            && crate::admin::fleet(&self.hub)
                .workloads
                .values()
                .all(|one| one.connected == one.enforcing && one.lost == 0)
    }

    /// Whether every proxy of these has a filter that is connected.
    fn are_connected(&self, some: &BTreeSet<WorkloadId>) -> bool {
        let workloads: Workloads = self.index.workloads();
        let proxies = super::status::proxies(&workloads, &crate::admin::fleet(&self.hub));
        some.iter().all(|id| proxies.get(id).is_none_or(|proxies| proxies.silent.is_empty()))
    }

    /// Says how far everything is.
    fn show(&self, state: &State) {
        let scene = self.scene(&state.agreed);
        let is_there = |key: &Key, wanted: &Desired| {
            !scene.is_open(&key.namespace) || wanted.get(key).is_some_and(|object| scene.says(key, object))
        };
        let last = objects(&state.last);
        let workloads = state.last.workloads.iter().map(|(id, fence)| {
            let keys: Vec<Key> = fence.objects.iter().map(|object| Key::of(object)).collect();
            let is_settled = state.is_settled(id);
            let notes = fence.notes.iter().map(ToString::to_string).collect();
            (
                id.clone(),
                match keys.as_slice() {
                    [] => Kept::Open { notes },
                    keys => Kept::of(keys, notes, &state.writes, |key| is_settled && is_there(key, &last)),
                },
            )
        });
        let attached = |wanted: &Wanted| {
            let refused = wanted.refused.iter();
            let refused = refused.map(|(id, why)| (id.clone(), Kept::Open { notes: vec![why.clone()] }));
            let all = wanted.keys.iter().map(|(id, key)| {
                let of = std::slice::from_ref(key);
                (id.clone(), Kept::of(of, Vec::new(), &state.writes, |key| is_there(key, &wanted.objects)))
            });
            refused.chain(all).collect()
        };
        let view = FenceView {
            workloads: workloads.collect(),
            attached: self
                .attachments
                .is_some()
                .then(|| state.wanted.as_ref().map(attached).unwrap_or_default()),
        };
        self.view.send_if_modified(|known| {
            let is_changed = **known != view;
            if is_changed {
                *known = Arc::new(view);
            }
            is_changed
        });
    }
}

// === impl State ===

impl State {
    /// This should be there now.
    fn desire(&mut self, fence: Fence) {
        self.desired = objects(&fence);
        self.between = fence;
    }

    /// Whether what should be there of a workload now is what rules say in the end: a change is on its way to the workloads that it
    /// changes, and nothing is said anew of all others.
    fn is_settled(&self, id: &WorkloadId) -> bool {
        let none = Vec::new();
        let objects =
            [&self.between, &self.last].map(|fence| fence.workloads.get(id).map(|fence| &fence.objects));
        let [now, last] = objects.map(|objects| objects.unwrap_or(&none));
        !self.uninformed.contains(id) && now == last
    }
}

// === impl Scene ===

impl Scene {
    /// Whether anything can be created in a namespace.
    fn is_open(&self, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|namespace| !namespace.is_ending)
    }

    fn says(&self, key: &Key, wanted: &Arc<IstioObject>) -> bool {
        self.live.get(key).is_some_and(|live| self.agreed.says(key, live, wanted))
    }

    /// Whether everything is there that can be.
    fn has(&self, desired: &Desired) -> bool {
        desired.iter().all(|(key, wanted)| !self.is_open(&key.namespace) || self.says(key, wanted))
    }

    fn has_wanted(&self, wanted: Option<&Wanted>) -> bool {
        wanted.is_some_and(|wanted| self.has(&wanted.objects))
    }

    /// What is in the cluster, as a Fence: by the workload that `like` has under the object's label, or under the label itself.
    /// Where it says the same as `like`, it is the same in memory.
    fn there(&self, like: &Fence) -> Fence {
        let names: BTreeMap<(&str, String), &WorkloadId> =
            like.workloads.keys().map(|id| ((id.namespace.as_str(), label(&id.name)), id)).collect();
        let mut found: BTreeMap<WorkloadId, Vec<(&Key, &Arc<Live>)>> = BTreeMap::new();
        for (key, live) in self.live.iter().filter(|(key, _)| !key.brings_filters()) {
            let Some(workload) = live.workload() else { continue };
            let id = match names.get(&(key.namespace.as_str(), workload.clone())) {
                Some(id) => (*id).clone(),
                None => WorkloadId { namespace: key.namespace.clone(), name: workload.clone() },
            };
            found.entry(id).or_default().push((key, live));
        }
        let none = Arc::<WorkloadFence>::default();
        let workloads = found.into_iter().map(|(id, mut objects)| {
            let like = like.workloads.get(&id).unwrap_or(&none);
            // In the order in which a Fence has them, so that what is the same is found to be.
            let order: Vec<Key> = like.objects.iter().map(|object| Key::of(object)).collect();
            objects
                .sort_by_key(|(key, _)| order.iter().position(|known| known == *key).unwrap_or(usize::MAX));
            let is_same = objects.len() == order.len()
                && objects.iter().zip(&order).all(|((key, _), known)| *key == known)
                && like.objects.iter().zip(&order).all(|(object, key)| self.says(key, object));
            let fence = if is_same {
                Arc::clone(like)
            } else {
                let objects = objects.iter().map(|(key, live)| Arc::new(live.to_object(key)));
                Arc::new(WorkloadFence { objects: objects.collect(), ..WorkloadFence::default() })
            };
            (id, fence)
        });
        Fence { workloads: workloads.collect() }
    }

    /// What differs of everything that is known.
    fn changes(&self, state: &State) -> Vec<Change> {
        let wanted = state.wanted.as_ref();
        let mut desired = state.desired.clone();
        desired.extend(wanted.into_iter().flat_map(|wanted| wanted.objects.clone()));
        let mut all = changes(&self.live, &desired, &self.agreed);
        all.retain(|change| {
            let key = change.key();
            // Where everything ends, what is there protects pods to their end. Of what brings filters nothing goes before it is
            // known what should be there.
            self.is_open(&key.namespace) && (wanted.is_some() || !key.brings_filters())
        });
        all
    }
}

/// The objects of a Fence.
fn objects(fence: &Fence) -> Desired {
    let all = fence.workloads.values().flat_map(|workload| &workload.objects);
    all.map(|object| (Key::of(object), Arc::clone(object))).collect()
}
