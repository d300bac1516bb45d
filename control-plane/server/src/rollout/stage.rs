//! What is held back when rules change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_compiler::{Compiled, Mesh, TrustedIssuer, WorkloadId, WorkloadPolicy};
use tidegate_engine::model::{GuardModel, Mode, RuleModel};
use tracing::{info, warn};

use super::shorten::shorten;
use super::{Phase, Rollout, Rollouts, SetRef, Staged, StagedPolicy};
use crate::bundle::{hex, sha256};
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

/// Rules before, and what they were compiled with.
type Base<'b> = (Arc<WorkloadPolicy>, &'b Compiled);

/// Whether a workload is covered, its ports without HTTP, and of each Guard whether it is enforced, and on which ports.
type Guarding<'p> = (bool, &'p [u16], Vec<(bool, Option<&'p [u16]>)>);

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
            if base.digest == output.set.digest {
                continue;
            }
            if changed.rollout.is_none() {
                if let Some(rollout) = rollout {
                    warn!(
                        workload = name,
                        given_up = rollout.phase != Phase::Tried,
                        "rules that were held back, or given up, go to all proxies at once: no Guard asks for `rollout` any more"
                    );
                }
                continue;
            }
            let found = match of_current(change, id, rollout.as_ref(), &base) {
                Some(found) => Some(found),
                None => {
                    let compiled = known.entry(base.digest.clone()).or_insert_with(|| compile(&base.digest));
                    compiled.as_ref().and_then(|compiled| of(compiled, id))
                }
            };
            let Some((policy, of)) = found else {
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
            if let Some(why) = not_held_back(of, (&policy, &before), &output.compiled, changed) {
                warn!(workload = name, "changed rules go to all proxies at once: {why}");
                continue;
            }
            let rollout = self.go_on(change, (id, changed), rollout, base);
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
        (id, changed): (&WorkloadId, &WorkloadPolicy),
        known: Option<Rollout>,
        before: SetRef,
    ) -> Rollout {
        let Change { output, now, fleet, .. } = *change;
        let rules = SetRef::from(&output.set);
        let section = hex(&sha256(&changed.rules));
        if let Some(known) = known {
            // What is revoked is in the section, and in no rule set.
            if known.rules.digest == rules.digest || known.section == section {
                return Rollout { rules, section, ..known };
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
            section,
            since: now,
            phase: Phase::Tried,
            canaries: Default::default(),
            proxies: 0,
            held_ms: 0,
            waited_ms: 0,
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
        (Some(staged), Some(_)) => Some((staged.as_accepted.clone(), &current.compiled)),
        (None, None) if current.set.digest == base.digest => of(&current.compiled, id),
        _ => None,
    }
}

fn of<'c>(compiled: &'c Compiled, id: &WorkloadId) -> Option<Base<'c>> {
    Some((compiled.workloads.get(id)?.clone(), compiled))
}

/// Why changed rules must not wait, if they must not. The rules before: as they were accepted, and with earlier ends.
fn not_held_back(
    of: &Compiled,
    (policy, before): (&WorkloadPolicy, &WorkloadPolicy),
    now: &Compiled,
    changed: &WorkloadPolicy,
) -> Option<String> {
    // Where nothing was refused before, whoever brings junk decides what canaries count.
    if guarding(before) != guarding(changed) {
        return Some("what its Guards cover, or whether they enforce, is not what it was".to_owned());
    }
    if let Some(what) = moved(&of.mesh, &now.mesh) {
        return Some(format!("{what} is not what it was"));
    }
    let root = &now.mesh.root_namespace;
    if !changed.is_root_rollout && of_root(before, root) != of_root(changed, root) {
        return Some(format!(
            "objects of the root namespace `{root}` have changed too, and no Guard of it asks for `rollout`"
        ));
    }
    let issuer = lost(policy, &of.issuers, &now.issuers)?;
    Some(format!("those before need the issuer `{issuer}`, which is no longer declared, or is another"))
}

/// What is guarded, whatever rules say.
fn guarding(policy: &WorkloadPolicy) -> Guarding<'_> {
    let guards = policy.model.guards.iter();
    let mut guards: Vec<_> =
        guards.map(|guard| (guard.mode == Mode::Enforce, guard.ports.as_deref())).collect();
    guards.sort_unstable();
    (policy.covered, &policy.tcp_ports, guards)
}

/// Who callers are: identities that the rules before name are not those of now.
fn moved(before: &Mesh, now: &Mesh) -> Option<String> {
    if before.trust_domain != now.trust_domain || before.root_namespace != now.root_namespace {
        return Some("the trust domain or the root namespace".to_owned());
    }
    let mut gateways = before.workloads.iter().filter(|(_, one)| one.gateway);
    let is_same = |(id, before): &(&WorkloadId, &tidegate_compiler::Workload)| {
        now.workloads.get(*id).is_some_and(|now| now.gateway && now.service_account == before.service_account)
    };
    gateways.find(|gateway| !is_same(gateway)).map(|(id, _)| format!("the gateway `{id}`"))
}

/// What objects of the root namespace enforce, without what is revoked: all have that.
fn of_root<'p>(policy: &'p WorkloadPolicy, root: &str) -> (Vec<&'p GuardModel>, Vec<&'p RuleModel>) {
    let is_root = |id: &str| id.split_once('/').is_some_and(|(namespace, _)| namespace == root);
    let guards = policy.model.guards.iter().filter(|guard| is_root(&guard.id));
    let rules = policy.model.rules.iter().map(|rule| &**rule);
    let rules = rules.filter(|rule| is_root(&rule.id) && rule.mode == Mode::Enforce && !rule.revokes);
    (guards.collect(), rules.collect())
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
