//! What is told of rollouts.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate_compiler::Rollout as Plan;

use super::{Phase, Rollouts};
use crate::serve::InForce;

/// Changed rules of a workload that not all of its proxies enforce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReport {
    /// `namespace/name`.
    pub workload: String,
    /// How far it is.
    pub state: RolloutState,
    /// Number of the rule set that is tried, or was given up.
    pub rules: u64,
    /// Its digest, hexadecimal.
    pub digest: String,
    /// Number of the rule set whose rules the others keep.
    pub before: u64,
    /// Its digest, hexadecimal.
    pub before_digest: String,
    /// When it began, in Unix seconds.
    pub since: i64,
    /// Proxies that are canaries, whether or not they are there.
    pub canaries: BTreeSet<String>,
    /// How many proxies there were when canaries were chosen.
    pub proxies: usize,
    /// For how long canaries have to enforce the rules, in seconds.
    pub hold_s: u32,
    /// For how long they have.
    pub held_s: u64,
    /// Requests that canaries have compared with the rules before.
    pub requests: u64,
    /// Those of them that are refused and were allowed before.
    pub new_refusals: u64,
    /// What share of them may be, e.g. `1%`; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_new_refusals: Option<String>,
    /// How many requests have to be compared before that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u32>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who gave it up; absent: the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<i64>,
}

/// How far a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutState {
    /// Canaries try the changed rules.
    Canary,
    /// Nobody enforces them.
    Aborted,
}

// === impl Rollouts ===

impl Rollouts {
    /// All of them, by workload.
    pub(crate) fn report(&self, in_force: Option<&InForce>) -> Vec<RolloutReport> {
        let plan = |workload: &str| -> Option<Plan> {
            let mut workloads = in_force?.compiled.workloads.iter();
            workloads.find(|(id, _)| id.to_string() == workload)?.1.rollout
        };
        let reports = self.stored.workloads.iter().map(|(workload, rollout)| {
            let plan = plan(workload);
            let abort_on = plan.and_then(|plan| plan.abort_on);
            let (state, why, by, at) = match rollout.phase.clone() {
                Phase::Tried => (RolloutState::Canary, None, None, None),
                Phase::Aborted { why, by, at } => (RolloutState::Aborted, Some(why), by, Some(at)),
            };
            RolloutReport {
                workload: workload.clone(),
                state,
                rules: rollout.rules.number,
                digest: rollout.rules.digest.clone(),
                before: rollout.before.number,
                before_digest: rollout.before.digest.clone(),
                since: rollout.since,
                canaries: rollout.canaries.clone(),
                proxies: rollout.proxies,
                hold_s: plan.map_or(0, |plan| plan.hold_s),
                held_s: rollout.held_ms / 1000,
                requests: rollout.requests,
                new_refusals: rollout.new_refusals,
                most_new_refusals: abort_on.map(|abort_on| abort_on.new_refusals.to_string()),
                min_requests: abort_on.map(|abort_on| abort_on.min_requests),
                why,
                by,
                at,
            }
        });
        reports.collect()
    }
}
