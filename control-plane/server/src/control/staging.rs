//! Rules that are held back ([`crate::rollout`]) on their way into force.
//!
//! INVARIANT: what is held back is decided, and written down, before anything is put in force.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_compiler::{Compiled, Compiler};
use tracing::{error, warn};

use super::act::Refused;
use super::history::{History, certain};
use super::kept::{self, Kept};
use super::make::Maker;
use super::{Control, Inner};
use crate::clock;
use crate::push::stopped;
use crate::rollout::{Change, NotEnded, SetRef};
use crate::rules::AcceptedRules;
use crate::serve::InForce;

/// How often canaries are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What somebody wants to be done with rules that canaries try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AskedRollout {
    /// `namespace/name`.
    pub workload: String,
    /// Which changed rules are meant: number of the rule set, or the first 16 or more digits of its digest. Others may have come
    /// since somebody looked.
    pub rules: String,
    /// What.
    pub action: RolloutAction,
    /// Why.
    pub reason: String,
}

/// What can be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutAction {
    /// Every proxy gets them now.
    Promote,
    /// All go back to the rules before.
    Abort,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutDone {
    /// `namespace/name`.
    pub workload: String,
    /// Number of the rule set whose rules all of its proxies get.
    pub rules: u64,
    /// Its digest, hexadecimal.
    pub digest: String,
}

// === impl Control ===

impl Control {
    /// The same, but for what is held back.
    pub(super) fn stage(&self, inner: &mut Inner, output: Arc<InForce>) -> Arc<InForce> {
        // Where rules are a cluster's, nothing is held back (`kube::source` refuses to).
        if self.shared.is_some() {
            return output;
        }
        let (kept, current, now) = (self.kept.borrow().clone(), self.out.borrow().clone(), clock::now());
        let Inner { rollouts, history, judged, .. } = inner;
        let newest = judged.clone().unwrap_or_else(|| output.clone());
        let change = Change {
            output: &output,
            current: current.as_deref(),
            is_pinned: kept.pin.is_some(),
            fleet: &self.hub.fleet,
            now,
        };
        let staged = rollouts.stage(&change, |digest| earlier(history, &kept, &newest, digest));
        let output = if staged.is_empty() {
            output
        } else {
            let mut held_back = output.with_staged(staged);
            if rollouts.choose(&held_back, &self.hub, now) {
                held_back.staged = rollouts.staged(&held_back.staged);
            }
            Arc::new(held_back)
        };
        rollouts.save();
        self.count_rollouts(inner);
        output
    }

    /// Looks at canaries until the server stops.
    pub(crate) async fn try_out(self: Arc<Self>) -> Result<(), tokio::task::JoinError> {
        let mut stop = self.hub.stopping();
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            let passed = last.elapsed();
            last = Instant::now();
            let control = self.clone();
            tokio::task::spawn_blocking(move || control.look(passed)).await?;
        }
    }

    fn look(&self, passed: Duration) {
        let mut inner = self.lock();
        if !inner.rollouts.is_trying() {
            return;
        }
        let Some(in_force) = self.out.borrow().clone() else { return };
        let kept = self.kept.borrow().clone();
        if inner.rollouts.look(&in_force, &self.hub, &kept, passed, clock::now()) {
            self.stage_again(&inner, &in_force);
        }
    }

    /// Ends what canaries try, one way or the other. Blocking.
    ///
    /// # Errors
    /// Where nothing is tried there, or other rules than those that are meant.
    pub fn end_rollout(&self, asked: AskedRollout, by: &str) -> Result<RolloutDone, Refused> {
        let AskedRollout { workload, rules: asked, action, reason } = asked;
        kept::check_text("reason", &reason).map_err(Refused::Asked)?;
        let mut inner = self.lock();
        let ended = match action {
            RolloutAction::Promote => inner.rollouts.promote(&workload, &asked),
            RolloutAction::Abort => inner.rollouts.abort(&workload, &asked, reason.clone(), by, clock::now()),
        };
        let SetRef { number: rules, digest } = ended.map_err(|not_ended| match not_ended {
            NotEnded::Nothing => {
                let nothing = match action {
                    RolloutAction::Promote => "no changed rules are held back",
                    RolloutAction::Abort => "no canary tries changed rules",
                };
                Refused::Unknown(format!("{nothing} at `{workload}`; `tidegate rollout status` tells what is"))
            }
            NotEnded::Other(SetRef { number, digest }) => Refused::Other(format!(
                "at `{workload}` rules {number} ({}) are held back, and not `{asked}`; nothing has changed; look at \
                 `tidegate rollout status` again, and name them by their number or the first 16 or more digits of their digest",
                certain(&digest)
            )),
        })?;
        warn!(workload, by, rules, "somebody has decided which rules all proxies get: {reason}");
        // Not borrowed any more when it is replaced.
        let in_force = self.out.borrow().clone();
        if let Some(in_force) = in_force {
            self.stage_again(&inner, &in_force);
        }
        Ok(RolloutDone { workload, rules, digest })
    }

    fn stage_again(&self, inner: &Inner, in_force: &InForce) {
        let next = Arc::new(in_force.with_staged(inner.rollouts.staged(&in_force.staged)));
        self.hub.directories.set_queries(next.queries.clone());
        self.out.send_replace(Some(next));
        self.count_rollouts(inner);
    }

    fn count_rollouts(&self, inner: &Inner) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (tried, aborted) = inner.rollouts.counts();
        self.hub.metrics.rollouts_tried.set(count(tried));
        self.hub.metrics.rollouts_aborted.set(count(aborted));
    }
}

/// Numbers of the rule sets that must be kept.
pub(super) fn needed(inner: &Inner, kept: &Kept) -> BTreeSet<u64> {
    let mut digests = inner.rollouts.needed();
    digests.extend(kept.pin.iter().map(|pin| pin.digest.clone()));
    let sets = inner.history.sets().iter().rev();
    // The newest of each: it may have been accepted more than once.
    sets.filter_map(|set| digests.take(&set.digest).map(|_| set.number)).collect()
}

/// Rule sets that proxies may enforce while changed rules are held back, or given up.
pub(super) fn needed_by_rollouts(inner: &Inner) -> Vec<Arc<AcceptedRules>> {
    let digests = inner.rollouts.needed();
    let mut rules = Vec::new();
    for set in inner.history.sets().iter().rev().filter(|set| digests.contains(&set.digest)) {
        match inner.history.rules(set.number) {
            Ok(found) => rules.extend(found),
            // Nobody keeps them then: they are not staged either.
            Err(error) => error!(number = set.number, "earlier rules cannot be read: {error}"),
        }
    }
    rules
}

/// An earlier rule set with everything that is revoked now; `None`: it is not here, or does not compile so.
fn earlier(history: &History, kept: &Kept, newest: &Arc<InForce>, digest: &str) -> Option<Compiled> {
    let set = history.sets().iter().rev().find(|set| set.digest == digest)?;
    let rules = match history.rules(set.number) {
        Ok(rules) => rules?,
        Err(error) => {
            error!(number = set.number, "earlier rules cannot be read: {error}");
            return None;
        }
    };
    let mut compiler = Compiler::new();
    let maker =
        Maker { compiler: &mut compiler, history, kept, newest, current: None, asked: None, halvings: 0 };
    let compiled = maker.alone(&rules);
    compiler.discard();
    compiled
}
