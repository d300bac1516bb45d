//! What people do to what is in force without changing rules: revoke, suspend, and go back to earlier rules.
//!
//! It stands between what is accepted and what is put in force. Rules that are accepted pass through it; a pin holds them
//! back, revocations are added to them. What is in the keys (revoked tokens) or in manifests (suspensions) goes to the
//! publisher directly.
//!
//! Where replicas share a cluster, they share what people did (`kube::shared`); the state folder has a copy of what
//! was there last.
//!
//! INVARIANT: what was acknowledged is written down, in the cluster where there is one. What ends does so without anybody:
//! here, and in filters by their own clocks. It stays written down for a while: one clock that is ahead ends nothing for others.

mod act;
mod check;
mod history;
mod kept;
mod make;
mod overlay;
mod past;
mod staging;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidegate_compiler::Compiler;
use tokio::sync::watch;
use tracing::{error, info, warn};

pub use self::act::{Refused, Told};
use self::history::{Digests, History};
pub use self::history::{RuleSet, digest};
pub(crate) use self::history::{certain, names, short};
pub use self::kept::{
    AskedPin, AskedRevocation, AskedSuspension, Broken, Kept, MAX_REVOCATION_S, Pin, Revocation, Suspension,
    Target,
};
use self::make::{HALVINGS, Made, MadeOf, Maker};
pub use self::past::{End, EndHow, Intervention, InterventionKind, Past};
pub use self::staging::{AskedRollout, RolloutAction, RolloutDone};
use crate::clock;
use crate::kube::{SharedKept, is_of_cluster};
use crate::push::{Hub, stopped};
use crate::rollout::{RolloutReport, Rollouts};
use crate::rules::{AcceptedRules, RuleStore};
use crate::serve::InForce;
use crate::state::{StateDir, StateError};

const FILE: &str = "control.json";
/// Why nothing is in force.
const NOT_HERE: &str = "the pinned rules are not here, so this replica puts nothing in force; `tidegate rollback --release` lets the \
                        newest through";
/// How often ends are looked at, should the clock jump.
const LOOK: Duration = Duration::from_secs(30);

/// Puts in force what is accepted, as people have said.
#[derive(Debug)]
pub struct Control {
    state: Arc<StateDir>,
    hub: Arc<Hub>,
    inner: Mutex<Inner>,
    /// What is to be in force.
    out: watch::Sender<Option<Arc<InForce>>>,
    /// What counts now of what is written down.
    kept: watch::Sender<Arc<Kept>>,
    /// Where replicas keep it together; absent: there is only the state folder.
    shared: Option<Arc<SharedKept>>,
    /// Whether this program writes Istio's policies, which refuse whatever filters say.
    is_fenced: bool,
}

#[derive(Debug)]
struct Inner {
    /// What is written down, with what ended a short time ago.
    stored: Kept,
    history: History,
    digests: Digests,
    /// What was accepted last.
    judged: Option<Arc<InForce>>,
    /// For what nobody wrote as it is; absent where nothing is.
    compiler: Option<Compiler>,
    /// Of what the last output was made.
    made_of: Option<MadeOf>,
    /// Revocations that do not go together with the newest rules, and why.
    broken: Vec<Broken>,
    /// What is held back of changed rules.
    rollouts: Rollouts,
}

/// Everything there is to say.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlReport {
    /// Rules that were accepted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<RuleSet>,
    /// Rules that are kept on offer instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// What is taken back.
    pub revocations: Vec<Revocation>,
    /// Revocations that do not go together with the newest rules, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Broken>,
    /// Workloads whose Guards only report.
    pub suspensions: Vec<Suspension>,
    /// Rules that can be gone back to, oldest first.
    pub history: Vec<RuleSet>,
    /// Changed rules that not all proxies enforce.
    pub rollouts: Vec<RolloutReport>,
    /// What people did, as far as it is known: what has ended, and what is in force.
    pub interventions: Vec<Intervention>,
    /// What ended before then is not all known, in Unix seconds.
    pub interventions_since: i64,
}

// === impl Control ===

impl Control {
    /// Goes on where the last process stopped. What is to be in force is sent to `out`.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub(crate) fn open(
        state: Arc<StateDir>,
        hub: Arc<Hub>,
        out: watch::Sender<Option<Arc<InForce>>>,
        shared: Option<Arc<SharedKept>>,
        is_fenced: bool,
    ) -> Result<Self, StateError> {
        let stored: Kept = state.read_json(FILE)?.unwrap_or_default();
        let kept = stored.clone().at(clock::now());
        let inner = Inner {
            stored,
            history: History::open(state.clone())?,
            digests: Digests::default(),
            judged: None,
            compiler: None,
            made_of: None,
            broken: Vec::new(),
            rollouts: Rollouts::open(state.clone())?,
        };
        let kept_in = watch::Sender::default();
        let control = Self { state, hub, inner: Mutex::new(inner), out, kept: kept_in, shared, is_fenced };
        control.announce(kept);
        Ok(control)
    }

    /// Where rule sets are kept.
    pub(crate) fn rule_store(&self) -> Arc<RuleStore> {
        self.lock().history.store().clone()
    }

    /// What is kept, and its changes.
    pub(crate) fn kept(&self) -> watch::Receiver<Arc<Kept>> {
        self.kept.subscribe()
    }

    /// Whether nothing was put in force yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.out.borrow().is_none()
    }

    /// What rules that are accepted now will be called.
    pub(crate) fn name(&self, rules: &Arc<AcceptedRules>) -> RuleSet {
        let mut inner = self.lock();
        let digest = inner.digests.of(rules, is_of_cluster);
        inner.history.next(rules, digest, clock::now())
    }

    /// Rules were accepted. Blocking.
    pub(crate) fn put(&self, judged: Arc<InForce>) {
        let mut inner = self.lock();
        inner.judged = Some(judged.clone());
        let kept = self.kept.borrow().clone();
        let made = self.make(&mut inner, &kept, None);
        self.adopt(&mut inner, made);
        if let Some(pin) = &kept.pin
            && pin.digest != judged.set.digest
        {
            warn!(
                accepted = judged.set.number,
                pinned = pin.number,
                "rules are accepted and not offered: earlier ones are pinned by {} (`tidegate rollback --release`)",
                pin.by
            );
        }
        let needed = staging::needed(&inner, &kept);
        if let Err(error) = inner.history.add(&judged.set, &judged.rules, &needed) {
            error!("rules are in force, and cannot be gone back to: {error}");
        }
    }

    /// What is written in the cluster, as another replica or this one wrote it; `false`: what is known is later, and has to be
    /// written there again. Blocking.
    pub(crate) fn learn(&self, stored: Kept) -> bool {
        let mut inner = self.lock();
        if stored.revision < inner.stored.revision {
            return false;
        }
        if stored == inner.stored {
            return true;
        }
        let kept = stored.clone().at(clock::now());
        let made = self.make(&mut inner, &kept, None);
        self.copy(&stored);
        info!(revision = stored.revision, "what is revoked, suspended and pinned is as the cluster has it");
        inner.stored = stored;
        self.announce(kept);
        self.adopt(&mut inner, made);
        true
    }

    /// Whether nobody has ever done anything here, so that there is nothing to write.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.lock().stored == Kept::default()
    }

    /// The rules of this number in the history, if they are kept.
    pub(crate) fn rules_of(&self, number: u64) -> Result<Option<Arc<AcceptedRules>>, StateError> {
        self.lock().history.rules(number)
    }

    /// Everything there is to say.
    pub fn report(&self) -> ControlReport {
        let inner = self.lock();
        let kept = self.kept.borrow().clone();
        let accepted = inner.judged.as_ref().map(|judged| judged.set.clone());
        ControlReport {
            accepted,
            pin: kept.pin.clone(),
            revocations: kept.revocations.clone(),
            broken: inner.broken.iter().chain(&kept.unbelieved).cloned().collect(),
            suspensions: kept.suspensions.clone(),
            history: inner.history.sets().to_vec(),
            rollouts: inner.rollouts.report(self.out.borrow().as_deref()),
            interventions: inner.stored.interventions(clock::now()),
            interventions_since: inner.stored.interventions_since(clock::now()),
        }
    }

    /// Ends what has an end, until the server stops.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), tokio::task::JoinError> {
        let mut stop = self.hub.stopping();
        let mut kept = self.kept();
        loop {
            let end = kept.borrow_and_update().next_end();
            let left = end.map_or(i64::MAX, |end| end.saturating_sub(clock::now()));
            let pause = u64::try_from(left).map_or(Duration::ZERO, Duration::from_secs).min(LOOK);
            tokio::select! {
                // The sender lives as long as this.
                _ = kept.changed() => continue,
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            let control = self.clone();
            tokio::task::spawn_blocking(move || control.expire()).await?;
        }
    }

    /// In a cluster every replica does this by its own clock. What has ended comes back if the clock was ahead and is set right.
    fn expire(&self) {
        let mut inner = self.lock();
        let kept = inner.stored.clone().at(clock::now());
        if kept == **self.kept.borrow() {
            return;
        }
        let made = self.make(&mut inner, &kept, None);
        self.announce(kept);
        self.adopt(&mut inner, made);
        info!(
            "what is revoked and suspended is what it is by the clock: something has ended, or the clock was set"
        );
    }

    /// What is to be in force. `asked`: the revocation that somebody wants.
    fn make(&self, inner: &mut Inner, kept: &Kept, asked: Option<&str>) -> Made {
        let Some(judged) = inner.judged.clone() else { return Made::default() };
        let of = MadeOf {
            judged: judged.clone(),
            pin: kept.pin.as_ref().map(|pin| pin.digest.clone()),
            revocations: kept.rules().cloned().collect(),
        };
        if inner.made_of.as_ref() == Some(&of) {
            return Made { of: Some(of), broken: inner.broken.clone(), ..Made::default() };
        }
        let is_as_written =
            of.revocations.is_empty() && of.pin.as_ref().is_none_or(|pin| *pin == judged.set.digest);
        let mut made = if is_as_written {
            inner.compiler = None;
            Made { output: Some(judged.clone()), of: Some(of), ..Made::default() }
        } else {
            let Some((rules, set)) = self.base(inner, kept, &judged) else { return nothing(kept) };
            let Inner { history, compiler, .. } = inner;
            let compiler = compiler.get_or_insert_with(Compiler::new);
            let current = self.out.borrow().clone();
            let maker =
                Maker { compiler, history, kept, newest: &judged, current, asked, halvings: HALVINGS };
            maker.make(rules, set, |rules| in_the_cluster_of(rules, &judged))
        };
        made.broken.extend(without_room(kept, made.output.as_ref().unwrap_or(&judged)));
        made
    }

    /// The rules that count: those that are pinned, with the cluster as it is now, or the newest. `None`: those that are pinned
    /// are not here, and none are in force that could stay.
    fn base(
        &self,
        inner: &Inner,
        kept: &Kept,
        judged: &Arc<InForce>,
    ) -> Option<(Arc<AcceptedRules>, RuleSet)> {
        let Some(pin) = kept.pin.as_ref().filter(|pin| pin.digest != judged.set.digest) else {
            return Some((judged.rules.clone(), judged.set.clone()));
        };
        let set = inner.history.sets().iter().rev().find(|set| set.digest == pin.digest);
        let pinned = set.map(|set| (inner.history.rules(set.number), set.clone()));
        if let Some((Ok(Some(rules)), set)) = pinned {
            return Some((Arc::new(in_the_cluster_of(AcceptedRules::clone(&rules), judged)), set));
        }
        error!(
            number = pin.number,
            digest = pin.digest,
            "the pinned rules are not among those that this replica keeps, so nothing newer is put in force; \
             `tidegate rollback --release` lets the newest through"
        );
        let current = self.out.borrow().clone()?;
        Some((Arc::new(in_the_cluster_of(AcceptedRules::clone(&current.rules), judged)), current.set.clone()))
    }

    /// Puts in force what was made.
    fn adopt(&self, inner: &mut Inner, made: Made) {
        let Made { output, of, broken, is_nothing: _ } = made;
        let count = broken.len().saturating_add(self.kept.borrow().unbelieved.len());
        self.hub.metrics.revocations_broken.set(i64::try_from(count).unwrap_or(i64::MAX));
        inner.made_of = of;
        inner.broken = broken;
        if let Some(output) = output {
            let output = self.stage(inner, output);
            self.hub.directories.set_queries(output.queries.clone());
            self.out.send_replace(Some(output));
        }
    }

    /// Where there is no cluster, this is where it is written; where there is one, what a start without it goes by.
    fn copy(&self, kept: &Kept) {
        if let Err(error) = self.state.write_json(FILE, kept) {
            error!("what is revoked and suspended is not written down for the next start: {error}");
        }
    }

    fn announce(&self, kept: Kept) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.hub.metrics;
        metrics.revocations.set(count(kept.revocations.len()));
        metrics.suspensions.set(count(kept.suspensions.len()));
        metrics.pinned.set(i64::from(kept.pin.is_some()));
        self.kept.send_replace(Arc::new(kept));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Earlier rules, with what the cluster is now.
fn in_the_cluster_of(mut rules: AcceptedRules, now: &InForce) -> AcceptedRules {
    rules.files.retain(|path, _| !is_of_cluster(path));
    let now = now.rules.files.iter().filter(|(path, _)| is_of_cluster(path));
    rules.files.extend(now.map(|(path, text)| (path.clone(), text.clone())));
    rules
}

/// Nothing at all is in force, so no revocation is.
fn nothing(kept: &Kept) -> Made {
    let broken = |id: &String| Broken { id: id.clone(), why: NOT_HERE.to_owned(), in_force: false };
    let broken = kept.revocations.iter().map(|one| broken(&one.id)).collect();
    Made { broken, is_nothing: true, ..Made::default() }
}

/// Revocations for which keys sections have no room, because the rules have come to revoke much.
fn without_room(kept: &Kept, in_force: &InForce) -> Vec<Broken> {
    let issuers = in_force.compiled.issuers.iter();
    let ids =
        issuers.flat_map(|issuer| kept.without_room(&issuer.name, issuer.revoked.clone(), clock::now()));
    let why =
        "the keys of its issuer have no room: 4096 tokens, subjects and keys are revoked that end later";
    ids.map(|id| Broken { id, why: why.to_owned(), in_force: false }).collect()
}
