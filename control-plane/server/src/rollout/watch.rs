//! What becomes of rules that are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_compiler::{Rollout as Plan, WorkloadPolicy};
use tidegate_proto::v1 as pb;
use tracing::{error, info, warn};

use super::select::choose;
use super::tally::More;
use super::{NotEnded, Phase, Rollout, Rollouts, SetRef, Staged, StagedPolicy, Tally};
use crate::bundle::Release;
use crate::control::Kept;
use crate::push::{Hub, VmSight};
use crate::serve::InForce;

/// After its start so long a control plane waits for the proxies to come back, before it chooses among those that are there
/// or says that none is.
const SETTLED: Duration = Duration::from_secs(15);
/// A canary that is away for so long is gone. Proxies count as gone after the same time.
const GONE_S: i64 = 60;
/// How often counts are written down.
const SAVED_EVERY_MS: u64 = 10_000;
/// So often filters of canaries may start anew where no others do.
const MOST_RESTARTS: u32 = 2;
/// Beyond twice the time that was asked for, so long is waited for a canary that enforces the rules, in seconds.
const PATIENCE_S: u64 = 600;
/// What a look covers at most: no clock and no sleep of the machine makes a hold shorter.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What is to be done with the rules.
enum Verdict {
    Wait,
    Promote(String),
    Abort(String),
}

/// A workload at this moment.
struct Scene<'s> {
    plan: &'s Plan,
    vms: &'s [VmSight],
    /// What canaries are offered, where that is on offer.
    release: Option<&'s Release>,
    /// Proxies that are there, or were a short time ago; and whether they compare.
    present: BTreeMap<&'s str, bool>,
    /// Whether whatever is refused passes for a time: that says nothing about the rules.
    is_suspended: bool,
    /// Whether proxies had the time to come back after the start.
    is_settled: bool,
    now: i64,
}

// === impl Rollouts ===

impl Rollouts {
    /// Chooses canaries where there are none. True: there are others now.
    pub(crate) fn choose(&mut self, in_force: &InForce, hub: &Hub, now: i64) -> bool {
        let is_settled = self.since.elapsed() >= SETTLED;
        let may_replace = self.since.elapsed().as_secs() >= u64::try_from(GONE_S).unwrap_or(0);
        let mut is_changed = false;
        let policies = policies(in_force);
        for (name, rollout) in self.stored.workloads.iter_mut().filter(|(_, one)| one.phase == Phase::Tried) {
            let Some(policy) = policies.get(name) else { continue };
            let Some(plan) = &policy.rollout else { continue };
            let vms = hub.fleet.sight(name);
            let present = present(&vms, now);
            let is_left = rollout.canaries.iter().any(|name| present.contains_key(name.as_str()));
            let tally = self.tallies.entry(name.clone()).or_default();
            let may = if rollout.canaries.is_empty() { is_settled || tally.is_settled } else { may_replace };
            let connected: BTreeSet<&str> =
                vms.iter().filter(|vm| vm.connected).map(|vm| vm.instance.as_str()).collect();
            if is_left || connected.is_empty() || !may {
                continue;
            }
            let there = present.iter().filter(|(name, _)| connected.contains(*name));
            let there = there.map(|(name, compares)| (*name, *compares));
            let chosen = choose(there, plan.canary.of(present.len()), (name, &rollout.rules.digest));
            info!(
                workload = name,
                rules = rollout.rules.number,
                canaries = chosen.len(),
                proxies = present.len(),
                again = !rollout.canaries.is_empty(),
                "canaries are chosen: {}",
                chosen.iter().cloned().collect::<Vec<_>>().join(", ")
            );
            rollout.canaries.extend(chosen);
            rollout.proxies = present.len();
            is_changed = true;
        }
        is_changed
    }

    /// Looks at the canaries; `passed`: since the last look. True: what proxies are to enforce is another now.
    pub(crate) fn look(
        &mut self,
        in_force: &InForce,
        hub: &Hub,
        kept: &Kept,
        passed: Duration,
        now: i64,
    ) -> bool {
        let passed = passed.min(LONGEST_LOOK);
        self.looked = self.looked.saturating_add(passed);
        let is_settled = self.looked >= SETTLED;
        let mut is_changed = self.choose(in_force, hub, now);
        let mut promoted = BTreeSet::new();
        let policies = policies(in_force);
        let mut is_worth_saving = false;
        for (name, rollout) in self.stored.workloads.iter_mut().filter(|(_, one)| one.phase == Phase::Tried) {
            let Some(policy) = policies.get(name) else { continue };
            let Some(plan) = &policy.rollout else { continue };
            let vms = hub.fleet.sight(name);
            let offered = hub.distributor.canary(name).map(|canary| canary.release);
            let release = offered.as_deref().filter(|release| is_of(release, policy));
            let is_suspended = kept.suspended_until(name, now).is_some();
            let present = present(&vms, now);
            let scene = Scene { plan, vms: &vms, release, present, is_suspended, is_settled, now };
            let tally = self.tallies.entry(name.clone()).or_default();
            let saved =
                |rollout: &Rollout| (rollout.held_ms / SAVED_EVERY_MS, rollout.waited_ms / SAVED_EVERY_MS);
            let before = saved(rollout);
            match scene.judge(rollout, tally, passed) {
                Verdict::Wait => is_worth_saving |= saved(rollout) != before,
                Verdict::Promote(why) => {
                    info!(
                        workload = name,
                        rules = rollout.rules.number,
                        "every proxy gets the changed rules: {why}"
                    );
                    promoted.insert(name.clone());
                }
                Verdict::Abort(why) => {
                    abort(name, rollout, why, None, now);
                    is_changed = true;
                }
            }
        }
        is_changed |= !promoted.is_empty();
        self.forget(&promoted);
        if is_changed || is_worth_saving {
            self.save();
        }
        is_changed
    }

    /// Gives the changed rules to every proxy, if they are those that are `asked` for. Returns which all get.
    pub(crate) fn promote(&mut self, workload: &str, asked: &str) -> Result<SetRef, NotEnded> {
        let rollout = self.stored.workloads.get(workload).ok_or(NotEnded::Nothing)?;
        let rules = rollout.rules.meant(asked)?.clone();
        self.forget(&[workload.to_owned()].into());
        self.save();
        Ok(rules)
    }

    /// Takes the changed rules back from the canaries, if they are those that are `asked` for. Returns which all get.
    pub(crate) fn abort(
        &mut self,
        workload: &str,
        asked: &str,
        why: String,
        by: &str,
        now: i64,
    ) -> Result<SetRef, NotEnded> {
        let rollout = self.stored.workloads.get_mut(workload).filter(|one| one.phase == Phase::Tried);
        let rollout = rollout.ok_or(NotEnded::Nothing)?;
        rollout.rules.meant(asked)?;
        abort(workload, rollout, why, Some(by.to_owned()), now);
        let before = rollout.before.clone();
        self.save();
        Ok(before)
    }

    /// What proxies keep now of what they kept.
    pub(crate) fn staged(&self, known: &Staged) -> Staged {
        let kept = known.iter().filter_map(|(id, staged)| {
            let rollout = self.stored.workloads.get(&id.to_string())?;
            let canaries = (rollout.phase == Phase::Tried).then(|| Arc::new(rollout.canaries.clone()));
            Some((id.clone(), StagedPolicy { canaries, ..staged.clone() }))
        });
        kept.collect()
    }

    fn forget(&mut self, workloads: &BTreeSet<String>) {
        self.stored.workloads.retain(|name, _| !workloads.contains(name));
        self.tallies.retain(|name, _| !workloads.contains(name));
    }
}

// === impl Scene ===

impl Scene<'_> {
    fn judge(&self, rollout: &mut Rollout, tally: &mut Tally, passed: Duration) -> Verdict {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(0);
        if let Some(release) = self.release {
            if let Some(why) = self.refusal(rollout, release) {
                return Verdict::Abort(why);
            }
            let More { requests, new_refusals } =
                tally.look(self.vms, &rollout.canaries, release.sha256(), self.now);
            if !self.is_suspended {
                rollout.requests = rollout.requests.saturating_add(requests);
                rollout.new_refusals = rollout.new_refusals.saturating_add(new_refusals);
            }
            let (of_canaries, of_others) = tally.restarts;
            if of_canaries > MOST_RESTARTS && of_others == 0 {
                return Verdict::Abort(format!(
                    "filters of canaries started anew {of_canaries} times, and no others did"
                ));
            }
            if let Some(abort_on) = &self.plan.abort_on
                && rollout.requests >= u64::from(abort_on.min_requests)
                && abort_on.new_refusals.is_exceeded(rollout.new_refusals, rollout.requests)
            {
                return Verdict::Abort(format!(
                    "{} of {} requests at canaries are refused that were allowed before; at most {} may be; whoever the changed rules \
                     refuse can bring that about by going on: if that was meant, promote them",
                    rollout.new_refusals, rollout.requests, abort_on.new_refusals
                ));
            }
            if !self.is_suspended && self.enforcing(rollout, release) > 0 {
                rollout.held_ms = rollout.held_ms.saturating_add(passed);
            }
        }
        if rollout.held_ms / 1000 >= u64::from(self.plan.hold_s) {
            return Verdict::Promote(match &self.plan.abort_on {
                Some(abort_on) if rollout.requests < u64::from(abort_on.min_requests) => {
                    let told = rollout.requests;
                    warn!(
                        requests = told,
                        "canaries had too few requests to tell whether the changed rules are good"
                    );
                    format!("the time is over, and canaries compared {told} requests only")
                }
                Some(_) => format!(
                    "{} of {} requests at canaries are refused that were allowed before",
                    rollout.new_refusals, rollout.requests
                ),
                None => "the time is over".to_owned(),
            });
        }
        // Time in which nobody looked, or nothing could be seen, is no time that proxies had.
        if self.is_suspended {
            return Verdict::Wait;
        }
        rollout.waited_ms = rollout.waited_ms.saturating_add(passed);
        tally.absent_ms = if self.present.is_empty() { tally.absent_ms.saturating_add(passed) } else { 0 };
        if !self.is_settled {
            return Verdict::Wait;
        }
        let (waited, hold) = (rollout.waited_ms / 1000, u64::from(self.plan.hold_s));
        if tally.absent_ms / 1000 >= hold {
            return Verdict::Promote("the time is over, and there was no proxy in all of it".to_owned());
        }
        if waited >= hold.saturating_mul(2).saturating_add(PATIENCE_S) {
            return Verdict::Abort(format!("no canary enforced them for long enough within {waited} s"));
        }
        Verdict::Wait
    }

    /// Why a filter does not take the rules, if one does not.
    fn refusal(&self, rollout: &Rollout, release: &Release) -> Option<String> {
        let vms = self.vms.iter().filter(|vm| rollout.canaries.contains(&vm.instance));
        let refused = vms.filter_map(|vm| Some((vm, vm.refusal.as_ref()?)));
        let mut refused = refused.filter(|(_, refusal)| refusal.revision == release.revision());
        refused.next().map(|(vm, refusal)| {
            format!(
                "the filter of `{}` refuses the rules: {} {}",
                vm.instance, refusal.reason, refusal.detail
            )
        })
    }

    /// How many canaries enforce the rules with every VM that is connected.
    fn enforcing(&self, rollout: &Rollout, release: &Release) -> usize {
        let mut proxies = BTreeMap::<&str, bool>::new();
        for vm in self.vms.iter().filter(|vm| vm.connected && rollout.canaries.contains(&vm.instance)) {
            *proxies.entry(&vm.instance).or_insert(true) &= vm.enforced == release.sha256();
        }
        proxies.into_values().filter(|enforces| *enforces).count()
    }
}

fn abort(workload: &str, rollout: &mut Rollout, why: String, by: Option<String>, now: i64) {
    error!(
        workload,
        rules = rollout.rules.number,
        before = rollout.before.number,
        by = by.as_deref().unwrap_or("the control plane"),
        "changed rules are given up, and all proxies enforce those before: {why}"
    );
    rollout.phase = Phase::Aborted { why, by, at: now };
}

/// Changed rules, by workload.
fn policies(in_force: &InForce) -> BTreeMap<String, &Arc<WorkloadPolicy>> {
    let staged = in_force.staged.keys();
    staged.filter_map(|id| Some((id.to_string(), in_force.compiled.workloads.get(id)?))).collect()
}

/// Whether a release has these rules: what is on offer may be what stood there before.
fn is_of(release: &Release, policy: &WorkloadPolicy) -> bool {
    let mut sections = release.sections().iter();
    sections
        .any(|section| section.kind() == pb::SectionKind::Rules && section.content()[..] == policy.rules[..])
}

fn present(vms: &[VmSight], now: i64) -> BTreeMap<&str, bool> {
    let mut present = BTreeMap::new();
    for vm in vms.iter().filter(|vm| vm.connected || now.saturating_sub(vm.seen_at) < GONE_S) {
        *present.entry(vm.instance.as_str()).or_insert(true) &= vm.compares;
    }
    present
}
