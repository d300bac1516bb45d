//! What is held back when rules change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_compiler::{Compiled, TrustedIssuer, WorkloadId, WorkloadPolicy};
use tracing::{info, warn};

use super::shorten::shorten;
use super::{Phase, Rollout, Rollouts, SetRef, Staged, StagedPolicy};
use crate::push::Fleet;
use crate::serve::InForce;

/// A change of what is to be in force.
pub(crate) struct Change<'c> {
    /// The newest rules, with everything that is revoked.
    pub(crate) output: &'c InForce,
    /// What is in force.
    pub(crate) current: Option<&'c InForce>,
    /// Somebody has put earlier rules in force: nothing of that is held back.
    pub(crate) is_pinned: bool,
    /// Which proxies there are.
    pub(crate) fleet: &'c Fleet,
    /// Unix seconds.
    pub(crate) now: i64,
}

/// Rules before, and the issuers that they were compiled with.
type Base<'b> = (Arc<WorkloadPolicy>, &'b [TrustedIssuer]);

// === impl Rollouts ===

impl Rollouts {
    /// What proxies keep of the rules before. `compile`: makes a rule set, by its digest, with everything that is revoked now.
    ///
    /// INVARIANT: `compile` is asked for whatever may have been made with other revocations.
    pub(crate) fn stage(
        &mut self,
        change: &Change<'_>,
        mut compile: impl FnMut(&str) -> Option<Compiled>,
    ) -> Staged {
        let Change { output, is_pinned, .. } = *change;
        let mut staged = Staged::new();
        let mut known: BTreeMap<String, Option<Compiled>> = BTreeMap::new();
        let last = self.stored.last.replace(SetRef::from(&output.set)).filter(|_| !is_pinned);
        let mut before = std::mem::take(&mut self.stored.workloads);
        for (id, changed) in &output.compiled.workloads {
            let name = id.to_string();
            let rollout = before.remove(&name).filter(|_| !is_pinned);
            let Some(base) = rollout.as_ref().map(|rollout| &rollout.before).or(last.as_ref()).cloned()
            else {
                continue;
            };
            if base.digest == output.set.digest || changed.rollout.is_none() {
                continue;
            }
            let found = match of_current(change, id, rollout.as_ref(), &base) {
                Some(found) => Some(found),
                None => {
                    let compiled = known.entry(base.digest.clone()).or_insert_with(|| compile(&base.digest));
                    compiled.as_ref().and_then(|compiled| of(compiled, id))
                }
            };
            let Some((policy, issuers)) = found else {
                warn!(
                    workload = name,
                    before = base.number,
                    "changed rules go to all proxies at once: those before are not here, or do not compile with what is revoked"
                );
                continue;
            };
            let Some(before) = shorten(&policy, changed) else {
                warn!(
                    workload = name,
                    "changed rules go to all proxies at once: those before cannot be encoded with earlier ends"
                );
                continue;
            };
            if before.rules == changed.rules && before.covered == changed.covered {
                continue;
            }
            if let Some(issuer) = lost(&policy, issuers, &output.compiled.issuers) {
                warn!(
                    workload = name,
                    issuer,
                    "changed rules go to all proxies at once: those before need an issuer that is no longer declared, or is another"
                );
                continue;
            }
            let rollout = self.go_on(change, id, rollout, base);
            let canaries = (rollout.phase == Phase::Tried).then(|| Arc::new(rollout.canaries.clone()));
            staged.insert(id.clone(), StagedPolicy { before, as_accepted: policy, canaries });
            self.stored.workloads.insert(name, rollout);
        }
        self.tallies.retain(|name, _| self.stored.workloads.contains_key(name));
        staged
    }

    /// The rollout that there is, where it is of the same rules, or a new one.
    fn go_on(
        &mut self,
        change: &Change<'_>,
        id: &WorkloadId,
        known: Option<Rollout>,
        before: SetRef,
    ) -> Rollout {
        let Change { output, current, now, fleet, .. } = *change;
        let rules = SetRef::from(&output.set);
        let is_same = |rollout: &Rollout| {
            let policy = |of: &InForce| of.compiled.workloads.get(id).cloned();
            let of_current = || {
                let current = current.filter(|current| current.set.digest == rollout.rules.digest);
                current.and_then(policy).zip(policy(output))
            };
            rollout.rules.digest == rules.digest
                || of_current().is_some_and(|(one, other)| one.rules == other.rules)
        };
        if let Some(known) = known {
            if is_same(&known) {
                return Rollout { rules, ..known };
            }
            info!(workload = %id, rules = rules.number, "rules have changed again: canaries begin anew, from the last good ones");
        }
        let name = id.to_string();
        let is_there = fleet.sight(&name).iter().any(|vm| vm.connected);
        self.tallies.insert(name, super::Tally::new(is_there));
        info!(workload = %id, rules = rules.number, before = before.number, "changed rules are tried by canaries first");
        Rollout {
            before,
            rules,
            since: now,
            phase: Phase::Tried,
            canaries: Default::default(),
            proxies: 0,
            held_ms: 0,
            requests: 0,
            new_refusals: 0,
        }
    }
}

/// The rules before, where they are in memory as they have to be. What was made with revocations is made anew.
fn of_current<'c>(
    change: &Change<'c>,
    id: &WorkloadId,
    rollout: Option<&Rollout>,
    base: &SetRef,
) -> Option<Base<'c>> {
    let current = change.current?;
    if !current.revoking.is_empty() || !change.output.revoking.is_empty() {
        return None;
    }
    match (current.staged.get(id), rollout) {
        // What stood before a rollout is what stands before the one that replaces it.
        (Some(staged), Some(_)) => Some((staged.as_accepted.clone(), &current.compiled.issuers)),
        (None, None) if current.set.digest == base.digest => of(&current.compiled, id),
        _ => None,
    }
}

fn of<'c>(compiled: &'c Compiled, id: &WorkloadId) -> Option<Base<'c>> {
    Some((compiled.workloads.get(id)?.clone(), &compiled.issuers))
}

/// An issuer whose tokens the rules read, and that is not what it was: trust that was taken back is not held back, and rules that
/// were written for one issuer are not for another of its name.
fn lost<'p>(policy: &'p WorkloadPolicy, before: &[TrustedIssuer], now: &[TrustedIssuer]) -> Option<&'p str> {
    let is_same = |before: &TrustedIssuer, now: &TrustedIssuer| {
        let issuers = |of: &TrustedIssuer| of.issuers.iter().cloned().collect::<BTreeSet<String>>();
        let is_for_fewer =
            now.allowed_namespaces.is_some() && now.allowed_namespaces != before.allowed_namespaces;
        before.pack == now.pack && issuers(before) == issuers(now) && !is_for_fewer
    };
    fn find<'a>(all: &'a [TrustedIssuer], name: &str) -> Option<&'a TrustedIssuer> {
        all.iter().find(|issuer| issuer.name == name)
    }
    let mut names = policy.model.issuers.iter().map(|issuer| issuer.name.as_str());
    names
        .find(|name| !find(before, name).zip(find(now, name)).is_some_and(|(one, other)| is_same(one, other)))
}
