//! What people ask for: each is checked, written down, and then put in force.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_identity::IssuerSetSpec;
use tracing::{info, warn};

use super::kept::{
    self, AskedPin, AskedRevocation, AskedSuspension, Kept, Pin, Revocation, Suspension, Target,
};
use super::make::Made;
use super::{Control, FILE, Inner, overlay, staging};
use crate::clock;
use crate::kube::{MAX_SHARED, SharedKept, Unshared};
use crate::serve::InForce;
use crate::state::StateError;

/// How often it is tried again when another replica was quicker.
const ATTEMPTS: usize = 8;
/// What is written otherwise when something is left out, in bytes.
const SLACK: usize = 64;

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Asked(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It is about what is not there any more: something else is.
    #[error("{0}")]
    Other(String),
    /// It cannot be written down for all replicas.
    #[error("{0}")]
    Away(String),
    /// It cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What was done, and what whoever did it should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told<T> {
    /// What was done.
    #[serde(flatten)]
    pub done: T,
    /// What it does not do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

// === impl Control ===

impl Control {
    /// Takes something back. Blocking.
    ///
    /// # Errors
    /// Where that cannot be done; nothing has changed then.
    pub fn revoke(&self, asked: AskedRevocation, by: &str) -> Result<Told<Revocation>, Refused> {
        let mut inner = self.lock();
        let judged = inner.judged.clone().ok_or_else(not_ready)?;
        if let Some(issuer) = asked.target.issuer() {
            let known: Vec<&str> = judged.compiled.issuers.iter().map(|one| one.name.as_str()).collect();
            if !known.contains(&issuer) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Refused::Asked(format!(
                    "there is no TrustedIssuer `{issuer}`; declared are: {known}"
                )));
            }
        }
        let frozen = match &asked.target {
            Target::Caller { name } => {
                let in_force = self.out.borrow().clone();
                let known = in_force.iter().chain([&judged]).map(|in_force| in_force.rules.clone());
                // Proxies that keep rules before let in whom the newest know no more.
                let before = staging::needed_by_rollouts(&inner);
                let mut known: Vec<_> = known.chain(before).collect();
                known.dedup_by(|one, other| Arc::ptr_eq(one, other));
                let mut found = known.iter().map(|rules| overlay::freeze(name, rules));
                found.find_map(Result::transpose).transpose().map_err(Refused::Asked)?
            }
            _ => None,
        };
        let revoked = self.change(&mut inner, |kept| {
            let revocation =
                kept.revoke(asked.clone(), frozen.clone(), by, clock::now()).map_err(Refused::Asked)?;
            check_keys(&judged, kept, &revocation).map_err(Refused::Asked)?;
            let id = revocation.id.clone();
            Ok((revocation, Some(id)))
        })?;
        warn!(id = revoked.id, by, until = clock::rfc3339(revoked.until), "revoked: {}", revoked.target);
        let mut warnings = evaded_while_suspended(&self.kept.borrow(), &revoked);
        if let Some(broken) = inner.broken.iter().find(|broken| broken.id == revoked.id && !broken.in_force) {
            warnings.push(format!("it is written down, and not in force: {}", broken.why));
        }
        Ok(Told { done: revoked, warnings })
    }

    /// Ends a revocation or suspension. Blocking.
    ///
    /// # Errors
    /// Where there is none of this id.
    pub fn lift(&self, id: &str, by: &str) -> Result<(), Refused> {
        let mut inner = self.lock();
        self.change(&mut inner, |kept| {
            if !kept.lift(id, by, clock::now()) {
                return Err(Refused::Unknown(format!("nothing is revoked or suspended under `{id}`")));
            }
            Ok(((), None))
        })?;
        warn!(id, by, "revocation or suspension lifted");
        Ok(())
    }

    /// Lets the Guards of a workload only report for a time. Blocking.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub fn suspend(&self, asked: AskedSuspension, by: &str) -> Result<Told<Suspension>, Refused> {
        if self.is_fenced {
            return Err(Refused::Asked(
                "this control plane writes Istio's policies, and they refuse what filters let pass; wider ones could not end by \
                 themselves where the control plane is gone, as a suspension has to; set the Guard's mode to Shadow in the rules, \
                 which widens the policies first"
                    .to_owned(),
            ));
        }
        let mut inner = self.lock();
        let in_force = self.out.borrow().clone().ok_or_else(not_ready)?;
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
        let suspension = self.change(&mut inner, |kept| {
            let suspension = kept.suspend(asked.clone(), by, clock::now()).map_err(Refused::Asked)?;
            Ok((suspension, None))
        })?;
        warn!(
            workload = suspension.workload,
            by,
            ticket = suspension.ticket,
            until = clock::rfc3339(suspension.until),
            "suspended: what the Guard refuses passes and is reported"
        );
        let kept = self.kept.borrow().clone();
        let evaded = kept.revocations.iter().filter(|one| is_evaded(one)).map(|one| one.target.to_string());
        let evaded: Vec<String> = evaded.collect();
        let warnings = match evaded.as_slice() {
            [] => Vec::new(),
            some => vec![format!(
                "until then whoever is revoked by a token alone passes without it: {}",
                some.join(", ")
            )],
        };
        Ok(Told { done: suspension, warnings })
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
        let pin = Pin {
            number: set.number,
            digest: set.digest,
            reason: asked.reason.clone(),
            by: by.to_owned(),
            at: clock::now(),
        };
        let digest = pin.digest.clone();
        let is_in_force = |made: &Made, current: Option<Arc<InForce>>| {
            made.output.as_ref().or(current.as_ref()).is_some_and(|one| one.set.digest == digest)
        };
        let pin = self.change_if(
            &mut inner,
            |kept| {
                kept.pin(pin.clone());
                Ok((pin.clone(), None))
            },
            |pin, made, current| {
                if is_in_force(made, current) {
                    return Ok(());
                }
                Err(Refused::Asked(format!(
                    "rule set {} cannot be put in force: it does not compile (any more); the log says why",
                    pin.number
                )))
            },
        )?;
        warn!(number = pin.number, by, "earlier rules are in force and pinned: {}", pin.reason);
        Ok(pin)
    }

    /// Lets the newest rules through again. Blocking.
    ///
    /// # Errors
    /// Where nothing is pinned.
    pub fn release(&self, by: &str) -> Result<(), Refused> {
        let mut inner = self.lock();
        let pin = self.change(&mut inner, |kept| match kept.unpin(by, clock::now()) {
            Some(pin) => Ok((pin, None)),
            None => {
                Err(Refused::Unknown("nothing is pinned; the newest accepted rules are in force".to_owned()))
            }
        })?;
        info!(number = pin.number, by, "no longer pinned; the newest accepted rules are in force");
        Ok(())
    }

    /// This replica leads: what the cluster has is known, and what is known is in the cluster. Blocking.
    ///
    /// # Errors
    /// With words where the cluster cannot be read or written.
    pub(crate) fn settle(&self) -> Result<(), String> {
        let Some(shared) = &self.shared else { return Ok(()) };
        for _ in 0..ATTEMPTS {
            let known = self.lock().stored.clone();
            let mut base = shared.read(&known)?;
            if base.is_stored {
                // Where it is older by now, this replica has written something later itself.
                self.learn(base.kept);
                return Ok(());
            }
            match write(shared, &mut base.kept, base.version) {
                Ok(()) => {
                    warn!(
                        revision = base.kept.revision,
                        "what is revoked, suspended and pinned was gone from the cluster, or an older one was there; it is written \
                         again"
                    );
                    return Ok(());
                }
                Err(Unshared::Raced) => {}
                Err(Unshared::TooLarge(bytes)) => {
                    return Err(format!(
                        "what is revoked takes {bytes} bytes, and the cluster keeps no more than {MAX_SHARED}"
                    ));
                }
                Err(Unshared::Failed(why)) => return Err(why),
            }
        }
        Err("others change what is revoked at the same time, again and again".to_owned())
    }

    /// As [`Self::change_if`], and a revocation that is asked for (its id is told beside it) has to go together with the newest
    /// rules.
    fn change<T>(
        &self,
        inner: &mut Inner,
        act: impl Fn(&mut Kept) -> Result<(T, Option<String>), Refused>,
    ) -> Result<T, Refused> {
        self.change_if(inner, act, |_, _, _| Ok(()))
    }

    /// Changes what is kept: on what is written now, tried again where another replica was quicker.
    fn change_if<T>(
        &self,
        inner: &mut Inner,
        act: impl Fn(&mut Kept) -> Result<(T, Option<String>), Refused>,
        may: impl Fn(&T, &Made, Option<Arc<InForce>>) -> Result<(), Refused>,
    ) -> Result<T, Refused> {
        for _ in 0..ATTEMPTS {
            let (mut stored, version) = match &self.shared {
                None => (inner.stored.clone(), None),
                Some(shared) => {
                    let base = shared.read(&inner.stored).map_err(Refused::Away)?;
                    (base.kept, base.version)
                }
            };
            let now = clock::now();
            stored.begin_past(now);
            stored.forget(now);
            stored.unbelieved.clear();
            let (done, asked) = act(&mut stored)?;
            stored.revision = stored.revision.saturating_add(1);
            let mut kept = stored.clone().at(now);
            let made = self.make(inner, &kept, asked.as_deref());
            if let Some(id) = asked
                && !made.is_nothing
                && let Some(broken) = made.broken.iter().find(|broken| broken.id == id)
            {
                let target = kept.revocations.iter().find(|one| one.id == id).map(|one| &one.target);
                let target = target.map_or(id.clone(), ToString::to_string);
                return Err(Refused::Asked(format!("{target} cannot be revoked: {}", broken.why)));
            }
            may(&done, &made, self.out.borrow().clone())?;
            match &self.shared {
                None => self.state.write_json(FILE, &stored)?,
                Some(shared) => match write(shared, &mut stored, version) {
                    Ok(()) => {
                        self.copy(&stored);
                        kept.past = stored.past.clone();
                    }
                    Err(Unshared::Raced) => continue,
                    Err(Unshared::TooLarge(bytes)) => {
                        return Err(Refused::Asked(without_room(bytes)));
                    }
                    Err(Unshared::Failed(why)) => return Err(Refused::Away(why)),
                },
            }
            inner.stored = stored;
            self.announce(kept);
            self.adopt(inner, made);
            return Ok(done);
        }
        Err(Refused::Away(
            "others change what is revoked at the same time, again and again; try again".to_owned(),
        ))
    }
}

/// Writes it for all replicas. What has ended gives room to what is in force.
fn write(shared: &SharedKept, stored: &mut Kept, version: Option<String>) -> Result<(), Unshared> {
    match shared.write(stored, version.clone()) {
        Err(Unshared::TooLarge(bytes))
            if stored.past.make_room(bytes.saturating_add(SLACK).saturating_sub(MAX_SHARED)) =>
        {
            shared.write(stored, version)
        }
        written => written,
    }
}

/// Whether filters will take keys with this in them: what cannot be encoded would hold back every push, and what there is no
/// room for would be left out.
fn check_keys(judged: &InForce, kept: &Kept, revocation: &Revocation) -> Result<(), String> {
    let Some((name, _, _)) = revocation.target.in_keys() else { return Ok(()) };
    let Some(issuer) = judged.compiled.issuers.iter().find(|one| one.name == name) else { return Ok(()) };
    let mut spec = issuer.spec(Vec::new(), 0);
    let now = clock::now();
    let out = kept.without_room(name, spec.revoked.clone(), now);
    if !out.is_empty() {
        return Err(format!(
            "{} cannot be revoked: the keys of `{name}` have room for 4096 revoked tokens, subjects and keys, those of the rules \
             included, and this would be {} more; lift some (`tidegate revoke --list`), or revoke the key or the Caller instead of \
             single tokens",
            revocation.target,
            out.len()
        ));
    }
    spec.revoked = kept.revoked(name, spec.revoked, now);
    let encoded = IssuerSetSpec::new(vec![spec]).encode();
    encoded.map(drop).map_err(|error| format!("{} cannot be revoked: {error}", revocation.target))
}

/// With what is asked for, it would be so many bytes.
fn without_room(bytes: usize) -> String {
    format!(
        "there is no room for it: with it, what is revoked, suspended and pinned would take {bytes} bytes, and the cluster keeps \
         {MAX_SHARED} at most; nothing has changed; lift what is needed no more (`tidegate revoke --list`), or take the right \
         away in the rules"
    )
}

/// Whether a caller passes a suspended Guard by leaving the token out.
fn is_evaded(revocation: &Revocation) -> bool {
    let by_token = |frozen: &kept::Frozen| frozen.forms.iter().any(|form| form.contains("    \"tokens\":"));
    revocation.target.is_by_token() || revocation.frozen.as_ref().is_some_and(by_token)
}

fn evaded_while_suspended(kept: &Kept, revocation: &Revocation) -> Vec<String> {
    if !is_evaded(revocation) {
        return Vec::new();
    }
    let told = kept.suspensions.iter().map(|one| {
        format!(
            "`{}` is suspended until {}: until then whoever leaves the token out passes there; end that with `tidegate suspend \
             --resume {}`",
            one.workload,
            clock::rfc3339(one.until),
            one.workload
        )
    });
    told.collect()
}

fn not_ready() -> Refused {
    Refused::Asked("no rules have been accepted yet; `tidegate check` and /diagnostics say why".to_owned())
}

#[cfg(test)]
mod tests;
