//! Changed rules reach some proxies of a workload first, and the others after a while or never (`rollout` of a Guard).
//!
//! A rule set that is accepted is compared with the last good one, workload by workload. Where a Guard asks for it and the rules
//! differ, canaries get the changed rules, compare every request with those before, and the others keep these. When the
//! canaries have enforced them for as long as `hold` says, everybody gets them; where they refuse too much, all go back.
//!
//! Only rules are held back. What is revoked, keys, directories, suspensions, a rollback and an earlier end of a rule reach every proxy
//! at once, with whichever rules it has: what is kept are the names of rule sets, and the rules before are compiled anew with all
//! that is revoked. Where that cannot be done, or what changes is who is guarded, who anybody is, or what the root namespace
//! enforces without having asked for this, the changed rules go to everybody.
//!
//! INVARIANT: what a workload keeps is what it enforced last before, never something newer that was given up.
//!
//! INVARIANT: nothing is held back for ever but by a decision that is told: `Phase::Tried` has an end even where no canary is
//! there, `Phase::Aborted` is shown, is a metric, and ends with the next change of the rules.

mod cluster;
mod report;
mod select;
mod shorten;
mod stage;
mod tally;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_compiler::{WorkloadId, WorkloadPolicy};
use tracing::error;

use self::tally::Tally;
use crate::bundle::Release;
use crate::control::{RuleSet, names};
use crate::push::CanaryRelease;
use crate::state::{StateDir, StateError};

pub(crate) use cluster::refused_in_cluster;
pub use report::{RolloutReport, RolloutState};
pub(crate) use stage::Change;

const FILE: &str = "rollouts.json";

/// Workloads whose proxies keep rules before.
pub type Staged = BTreeMap<WorkloadId, StagedPolicy>;

/// What the proxies of a workload keep.
#[derive(Debug, Clone)]
pub struct StagedPolicy {
    /// The rules before, which all but canaries enforce.
    pub before: Arc<WorkloadPolicy>,
    /// The same as they were accepted, without ends that were brought forward since.
    pub as_accepted: Arc<WorkloadPolicy>,
    /// Proxies that get the changed rules; `None`: nobody does any more.
    pub canaries: Option<Arc<BTreeSet<String>>>,
}

/// Decides which rules are held back, and remembers it across restarts.
#[derive(Debug)]
pub(crate) struct Rollouts {
    state: Arc<StateDir>,
    stored: Stored,
    /// What is on disk.
    written: Stored,
    /// What was seen of the canaries since the start, by workload.
    tallies: BTreeMap<String, Tally>,
    /// When this control plane began to hear of proxies.
    since: Instant,
    /// For how long it has looked at canaries.
    looked: Duration,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    /// The last rule set: that of every workload without an entry. Absent: there was none yet.
    last: Option<SetRef>,
    /// By workload (`namespace/name`).
    workloads: BTreeMap<String, Rollout>,
}

/// One workload's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rollout {
    /// Rules that proxies keep.
    before: SetRef,
    /// Rules that are tried.
    rules: SetRef,
    /// SHA-256 of the rules section that is tried, hexadecimal: rule sets differ by what others wrote.
    #[serde(default)]
    section: String,
    /// Unix seconds.
    since: i64,
    #[serde(flatten)]
    phase: Phase,
    /// Who tries them, whether or not they are there.
    canaries: BTreeSet<String>,
    /// How many proxies there were when these were chosen.
    proxies: usize,
    /// For how long canaries have enforced them, in milliseconds.
    held_ms: u64,
    /// For how long somebody has looked whether they do, in milliseconds: neither while this control plane was away, nor while
    /// the workload was suspended.
    #[serde(default)]
    waited_ms: u64,
    /// Requests that canaries have compared.
    requests: u64,
    /// Those of them that are refused and were allowed before.
    new_refusals: u64,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase")]
enum Phase {
    /// Canaries try the changed rules.
    Tried,
    /// Nobody enforces them.
    Aborted {
        /// Why.
        why: String,
        /// Who did it; absent: the control plane.
        by: Option<String>,
        /// Unix seconds.
        at: i64,
    },
}

/// A rule set, as it is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SetRef {
    pub(crate) number: u64,
    pub(crate) digest: String,
}

/// Why nobody's proxies get other rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotEnded {
    /// There is nothing to be decided.
    Nothing,
    /// Other rules are held back than those that were meant: these.
    Other(SetRef),
}

/// What canaries are offered.
pub fn offers(staged: &Staged, releases: &BTreeMap<String, Arc<Release>>) -> BTreeMap<String, CanaryRelease> {
    let offers = staged.iter().filter_map(|(id, staged)| {
        let (name, instances) = (id.to_string(), staged.canaries.clone()?);
        let release = releases.get(&name)?.clone();
        Some((name, CanaryRelease { release, instances }))
    });
    offers.collect()
}

// === impl Rollouts ===

impl Rollouts {
    /// Goes on where the last process stopped.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub(crate) fn open(state: Arc<StateDir>) -> Result<Self, StateError> {
        let stored: Stored = state.read_json(FILE)?.unwrap_or_default();
        let written = stored.clone();
        Ok(Self {
            state,
            stored,
            written,
            tallies: BTreeMap::new(),
            since: Instant::now(),
            looked: Duration::ZERO,
        })
    }

    /// Whether anything has to be looked at again and again.
    pub(crate) fn is_trying(&self) -> bool {
        self.stored.workloads.values().any(|rollout| rollout.phase == Phase::Tried)
    }

    /// Rule sets that must not be forgotten.
    pub(crate) fn needed(&self) -> BTreeSet<String> {
        let kept = self.stored.workloads.values().map(|rollout| &rollout.before);
        kept.chain(&self.stored.last).map(|set| set.digest.clone()).collect()
    }

    /// How many workloads try changed rules, and how many have given them up.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let tried = self.stored.workloads.values().filter(|rollout| rollout.phase == Phase::Tried).count();
        (tried, self.stored.workloads.len().saturating_sub(tried))
    }

    /// Writes down what changed. Before it is put in force: a restart must not offer to all what was held back.
    pub(crate) fn save(&mut self) {
        if self.stored == self.written {
            return;
        }
        match self.state.write_json(FILE, &self.stored) {
            Ok(()) => self.written = self.stored.clone(),
            Err(error) => error!("how far rollouts are is not written down for the next start: {error}"),
        }
    }
}

// === impl SetRef ===

impl SetRef {
    /// This one, if it is the one that somebody means: by its number, or by enough of its digest.
    fn meant(&self, asked: &str) -> Result<&Self, NotEnded> {
        match names(asked, self.number, &self.digest) {
            true => Ok(self),
            false => Err(NotEnded::Other(self.clone())),
        }
    }
}

impl From<&RuleSet> for SetRef {
    fn from(set: &RuleSet) -> Self {
        Self { number: set.number, digest: set.digest.clone() }
    }
}

#[cfg(test)]
mod tests;
