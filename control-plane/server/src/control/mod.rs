//! What people do to what is in force without changing rules: revoke, suspend, and go back to earlier rules.
//!
//! It stands between what is accepted and what is put in force. Rules that are accepted pass through it; a pin holds them
//! back, revocations are added to them. What is in the keys (revoked tokens) or in manifests (suspensions) goes to the
//! publisher directly.
//!
//! INVARIANT: what was acknowledged is on disk. What ends does so without anybody: here, and in filters by their own clocks.

mod history;
mod kept;
mod overlay;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tidegate_compiler::{Compilation, Compiler};
use tidegate_identity::{IssuerSetSpec, Revoked};
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::history::History;
pub use self::history::{RuleSet, digest};
pub use self::kept::{
    AskedPin, AskedRevocation, AskedSuspension, Kept, MAX_REVOCATION_S, Pin, Revocation, Suspension, Target,
};
use crate::clock;
use crate::kube::is_of_cluster;
use crate::push::{Hub, stopped};
use crate::rules::AcceptedRules;
use crate::serve::{InForce, compile_again};
use crate::state::{StateDir, StateError};

const FILE: &str = "control.json";
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
    kept: watch::Sender<Arc<Kept>>,
    /// Whether this program writes Istio's policies, which refuse whatever filters say.
    is_fenced: bool,
}

#[derive(Debug)]
struct Inner {
    history: History,
    /// What was accepted last.
    judged: Option<Arc<InForce>>,
    /// For what nobody wrote as it is; absent where nothing is.
    compiler: Option<Compiler>,
    /// Of which rules the last output was made, and with which revocations.
    made_of: Option<(Arc<InForce>, Option<u64>, BTreeSet<String>)>,
    /// Revocations that are not in force, and why.
    broken: Vec<(String, String)>,
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Asked(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
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
    /// Ids of revocations that are not in force, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<(String, String)>,
    /// Workloads whose Guards only report.
    pub suspensions: Vec<Suspension>,
    /// Rules that can be gone back to, oldest first.
    pub history: Vec<RuleSet>,
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
        is_fenced: bool,
    ) -> Result<Self, StateError> {
        let mut kept: Kept = state.read_json(FILE)?.unwrap_or_default();
        kept.expire(clock::now());
        let inner = Inner {
            history: History::open(state.clone())?,
            judged: None,
            compiler: None,
            made_of: None,
            broken: Vec::new(),
        };
        let control =
            Self { state, hub, inner: Mutex::new(inner), out, kept: watch::Sender::default(), is_fenced };
        control.announce(kept);
        Ok(control)
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
    pub(crate) fn name(&self, rules: &AcceptedRules) -> RuleSet {
        self.lock().history.next(rules, digest(rules, is_of_cluster), clock::now())
    }

    /// Rules were accepted. Blocking.
    pub(crate) fn put(&self, judged: Arc<InForce>) {
        let mut inner = self.lock();
        inner.judged = Some(judged.clone());
        let kept = self.kept.borrow().clone();
        match self.make(&mut inner, &kept) {
            Some(made) => self.emit(made),
            None if self.is_idle() => {
                error!(
                    "what was pinned or revoked cannot be put in force; the newest accepted rules are, without it"
                );
                self.emit(judged.clone());
            }
            None => {}
        }
        let pinned = kept.pin.as_ref().map(|pin| pin.number);
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
        if let Err(error) = inner.history.add(&judged.set, &judged.rules, pinned) {
            error!("rules are in force, and cannot be gone back to: {error}");
        }
    }

    /// Takes something back. Blocking.
    ///
    /// # Errors
    /// Where that cannot be done; nothing has changed then.
    pub fn revoke(&self, asked: AskedRevocation, by: &str) -> Result<Revocation, Refused> {
        let mut inner = self.lock();
        let Some(judged) = inner.judged.clone() else { return Err(not_ready()) };
        if let Some(issuer) = asked.target.issuer() {
            let known: Vec<&str> = judged.compiled.issuers.iter().map(|one| one.name.as_str()).collect();
            if !known.contains(&issuer) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Refused::Asked(format!(
                    "there is no TrustedIssuer `{issuer}`; declared are: {known}"
                )));
            }
        }
        let mut kept = Kept::clone(&self.kept.borrow());
        let revocation = kept.revoke(asked, by, clock::now()).map_err(Refused::Asked)?;
        check_keys(&judged, &revocation).map_err(Refused::Asked)?;
        let made = self.make(&mut inner, &kept);
        if let Some((_, why)) = inner.broken.iter().find(|(id, _)| *id == revocation.id) {
            return Err(Refused::Asked(format!("{} cannot be revoked: {why}", revocation.target)));
        }
        self.keep(kept)?;
        if let Some(made) = made {
            self.emit(made);
        }
        warn!(
            id = revocation.id,
            by,
            until = clock::rfc3339(revocation.until),
            "revoked: {}",
            revocation.target
        );
        Ok(revocation)
    }

    /// Ends a revocation or suspension. Blocking.
    ///
    /// # Errors
    /// Where there is none of this id.
    pub fn lift(&self, id: &str, by: &str) -> Result<(), Refused> {
        let mut inner = self.lock();
        let mut kept = Kept::clone(&self.kept.borrow());
        let before = kept.clone();
        kept.revocations.retain(|one| one.id != id);
        kept.suspensions.retain(|one| one.id != id && one.workload != id);
        if kept == before {
            return Err(Refused::Unknown(format!("nothing is revoked or suspended under `{id}`")));
        }
        let made = self.make(&mut inner, &kept);
        self.keep(kept)?;
        if let Some(made) = made {
            self.emit(made);
        }
        warn!(id, by, "revocation or suspension lifted");
        Ok(())
    }

    /// Lets the Guards of a workload only report for a time. Blocking.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub fn suspend(&self, asked: AskedSuspension, by: &str) -> Result<Suspension, Refused> {
        if self.is_fenced {
            return Err(Refused::Asked(
                "this control plane writes Istio's policies, and they refuse what filters let pass: a suspension would open \
                 nothing; set the Guard's mode to Shadow in the rules, which widens the policies first"
                    .to_owned(),
            ));
        }
        let inner = self.lock();
        let Some(in_force) = self.out.borrow().clone() else { return Err(not_ready()) };
        let found = in_force.compiled.workloads.iter().find(|(id, _)| id.to_string() == asked.workload);
        match found {
            None => {
                return Err(Refused::Asked(format!(
                    "there is no workload `{}` in the Mesh; write `namespace/name`",
                    asked.workload
                )));
            }
            Some((_, policy)) if !policy.covered => {
                return Err(Refused::Asked(format!(
                    "no Guard covers `{}`, so everything passes",
                    asked.workload
                )));
            }
            Some(_) => {}
        }
        let mut kept = Kept::clone(&self.kept.borrow());
        let suspension = kept.suspend(asked, by, clock::now()).map_err(Refused::Asked)?;
        self.keep(kept)?;
        drop(inner);
        warn!(
            workload = suspension.workload,
            by,
            ticket = suspension.ticket,
            until = clock::rfc3339(suspension.until),
            "suspended: what the Guard refuses passes and is reported"
        );
        Ok(suspension)
    }

    /// Puts earlier rules in force and keeps them there. Blocking.
    ///
    /// # Errors
    /// Where they are not kept any more or do not compile.
    pub fn pin(&self, asked: &AskedPin, by: &str) -> Result<Pin, Refused> {
        kept::check_text("reason", &asked.reason).map_err(Refused::Asked)?;
        let mut inner = self.lock();
        if inner.judged.is_none() {
            return Err(not_ready());
        }
        let set = inner.history.find(&asked.rules).map_err(Refused::Unknown)?;
        let mut kept = Kept::clone(&self.kept.borrow());
        let pin = Pin {
            number: set.number,
            digest: set.digest,
            reason: asked.reason.clone(),
            by: by.to_owned(),
            at: clock::now(),
        };
        kept.pin = Some(pin.clone());
        inner.made_of = None;
        let Some(made) = self.make(&mut inner, &kept) else {
            return Err(Refused::Asked(format!(
                "rule set {} cannot be put in force: it does not compile (any more); the log says why",
                pin.number
            )));
        };
        self.keep(kept)?;
        self.emit(made);
        warn!(number = pin.number, by, "earlier rules are in force and pinned: {}", pin.reason);
        Ok(pin)
    }

    /// Lets the newest rules through again. Blocking.
    ///
    /// # Errors
    /// Where nothing is pinned.
    pub fn release(&self, by: &str) -> Result<(), Refused> {
        let mut inner = self.lock();
        let mut kept = Kept::clone(&self.kept.borrow());
        let Some(pin) = kept.pin.take() else {
            return Err(Refused::Unknown(
                "nothing is pinned; the newest accepted rules are in force".to_owned(),
            ));
        };
        let made = self.make(&mut inner, &kept);
        self.keep(kept)?;
        if let Some(made) = made {
            self.emit(made);
        }
        info!(number = pin.number, by, "no longer pinned; the newest accepted rules are in force");
        Ok(())
    }

    /// The rules of this number in the history, if they are kept.
    pub(crate) fn rules_of(&self, number: u64) -> Result<Option<AcceptedRules>, StateError> {
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
            broken: inner.broken.clone(),
            suspensions: kept.suspensions.clone(),
            history: inner.history.sets().to_vec(),
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

    fn expire(&self) {
        let mut inner = self.lock();
        let mut kept = Kept::clone(&self.kept.borrow());
        if !kept.expire(clock::now()) {
            return;
        }
        let made = self.make(&mut inner, &kept);
        if let Err(error) = self.keep(kept.clone()) {
            // It has ended all the same, and is found ended at the next start.
            error!("what has ended is not written down: {error}");
            self.announce(kept);
        }
        if let Some(made) = made {
            self.emit(made);
        }
        info!("a revocation or suspension has ended");
    }

    /// What is to be in force; `None`: what is, or nothing is known.
    fn make(&self, inner: &mut Inner, kept: &Kept) -> Option<Arc<InForce>> {
        let judged = inner.judged.clone()?;
        let revoking: BTreeSet<String> = kept.rules().map(|one| one.id.clone()).collect();
        let pin = kept.pin.as_ref().filter(|pin| pin.digest != judged.set.digest);
        let made_of = (judged.clone(), pin.map(|pin| pin.number), revoking);
        let is_known = inner.made_of.as_ref().is_some_and(|(rules, pin, revoking)| {
            Arc::ptr_eq(rules, &made_of.0) && *pin == made_of.1 && *revoking == made_of.2
        });
        if is_known {
            return None;
        }
        let made = if pin.is_none() && made_of.2.is_empty() {
            inner.compiler = None;
            inner.broken.clear();
            Some(judged)
        } else {
            let (rules, set) = self.base(inner, kept, &judged);
            compile(inner, kept, rules, set, &judged)
        };
        if made.is_some() {
            inner.made_of = Some(made_of);
        }
        made
    }

    /// The rules that count: those that are pinned, with the cluster as it is now, or the newest.
    fn base(&self, inner: &Inner, kept: &Kept, judged: &Arc<InForce>) -> (Arc<AcceptedRules>, RuleSet) {
        let newest = || (judged.rules.clone(), judged.set.clone());
        let Some(pin) = &kept.pin else { return newest() };
        if pin.digest == judged.set.digest {
            return newest();
        }
        let pinned = inner.history.rules(pin.number);
        let set = inner.history.sets().iter().find(|set| set.number == pin.number);
        let (Ok(Some(mut rules)), Some(set)) = (pinned, set) else {
            error!(number = pin.number, "the pinned rules cannot be read; the newest are in force");
            return newest();
        };
        rules.files.retain(|path, _| !is_of_cluster(path));
        let now = judged.rules.files.iter().filter(|(path, _)| is_of_cluster(path));
        rules.files.extend(now.map(|(path, text)| (path.clone(), text.clone())));
        (Arc::new(rules), set.clone())
    }

    fn keep(&self, kept: Kept) -> Result<(), StateError> {
        self.state.write_json(FILE, &kept)?;
        self.announce(kept);
        Ok(())
    }

    fn announce(&self, kept: Kept) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.hub.metrics;
        metrics.revocations.set(count(kept.revocations.len()));
        metrics.suspensions.set(count(kept.suspensions.len()));
        metrics.pinned.set(i64::from(kept.pin.is_some()));
        self.kept.send_replace(Arc::new(kept));
    }

    fn emit(&self, made: Arc<InForce>) {
        self.hub.directories.set_queries(made.queries.clone());
        self.out.send_replace(Some(made));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether filters will take keys with this in them: what cannot be encoded would hold back every push.
fn check_keys(judged: &InForce, revocation: &Revocation) -> Result<(), String> {
    let Some((name, kind, value)) = revocation.target.in_keys() else { return Ok(()) };
    let Some(issuer) = judged.compiled.issuers.iter().find(|one| one.name == name) else { return Ok(()) };
    let mut spec = issuer.spec(Vec::new(), 0);
    spec.revoked.retain(|one| one.kind != kind || one.value != value);
    spec.revoked.push(Revoked { kind, value: value.to_owned(), until: revocation.until });
    let encoded = IssuerSetSpec::new(vec![spec]).encode();
    encoded.map(drop).map_err(|error| format!("{} cannot be revoked: {error}", revocation.target))
}

fn not_ready() -> Refused {
    Refused::Asked("no rules have been accepted yet; `tidegate check` and /diagnostics say why".to_owned())
}

/// Compiles rules with what is revoked. Revocations that do not compile are left out, and told.
fn compile(
    inner: &mut Inner,
    kept: &Kept,
    rules: Arc<AcceptedRules>,
    set: RuleSet,
    judged: &Arc<InForce>,
) -> Option<Arc<InForce>> {
    inner.broken.clear();
    let mut files = rules.files.clone();
    for revocation in kept.rules() {
        match overlay::rule(revocation, &judged.compiled) {
            Ok(text) => drop(files.insert(overlay::file(revocation), text)),
            Err(why) => inner.broken.push((revocation.id.clone(), why)),
        }
    }
    let compiler = inner.compiler.get_or_insert_with(Compiler::new);
    // Once more without those that are broken.
    for _ in 0..2 {
        let Compilation { diagnostics, output } = compile_again(compiler, &files, &rules.environment);
        if let Some(compiled) = output {
            for (id, why) in &inner.broken {
                error!(id, "a revocation is not in force: {why}");
            }
            let since = if set.digest == judged.set.digest { judged.since } else { Instant::now() };
            return Some(Arc::new(InForce::new(compiled, rules, set, since)));
        }
        let before = files.len();
        for revocation in kept.rules() {
            let file = overlay::file(revocation);
            let Some(found) = diagnostics.iter().find(|found| found.is_error() && found.file == file) else {
                continue;
            };
            files.remove(&file);
            inner.broken.push((revocation.id.clone(), found.message.clone()));
        }
        if files.len() == before {
            for found in diagnostics.iter().filter(|found| found.is_error()) {
                error!("{found}");
            }
            error!("the rules do not compile with what was done to them; what is in force stays");
            break;
        }
    }
    // None of them is put in force by this: nobody is to be told that it is.
    let why = "the rules do not compile with it, see the log; what was in force before stays";
    for revocation in kept.rules() {
        if !inner.broken.iter().any(|(id, _)| *id == revocation.id) {
            inner.broken.push((revocation.id.clone(), why.to_owned()));
        }
    }
    None
}
