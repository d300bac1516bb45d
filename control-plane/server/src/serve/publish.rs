//! Signs and offers what changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::candidate::{Candidate, CandidateReport};
use super::contents::{Assembler, lookups};
use super::judgement::InForce;
use crate::bundle::Publisher;
use crate::clock;
use crate::control::Kept;
use crate::directories::Directories;
use crate::keys::KeyRing;
use crate::kube::Leadership;
use crate::push::{Followed, Following, Hub, Lookups, Served, stopped};
use crate::rollout;
use crate::transport::Roster;

/// How long new rules wait for the first answer of an issuer that was never asked, and for directories that were never
/// read.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);
/// How often ends are looked at: manifests, keys and directories are renewed hours before theirs.
const RENEW: Duration = Duration::from_secs(600);
/// How soon signing is tried again after it failed (a full disk).
const RETRY: Duration = Duration::from_secs(2);

pub(super) struct PublishTask {
    pub hub: Arc<Hub>,
    pub roster: Arc<Roster>,
    pub publisher: Publisher,
    pub in_force: watch::Receiver<Option<Arc<InForce>>>,
    /// What is compared with it, if anything.
    pub candidate: watch::Receiver<Option<Arc<Candidate>>>,
    pub candidate_report: Arc<Mutex<CandidateReport>>,
    pub keys: watch::Receiver<Arc<KeyRing>>,
    pub directories: watch::Receiver<Arc<Directories>>,
    /// What is revoked and suspended.
    pub kept: watch::Receiver<Arc<Kept>>,
    pub ready: watch::Sender<bool>,
    /// Announces the rules of which everything is on offer.
    pub offered: watch::Sender<Option<Arc<InForce>>>,
    /// Whether this replica is the one whose Bundles count.
    pub leadership: watch::Receiver<Leadership>,
    /// The term in which something was put on offer.
    pub term: Option<u64>,
    /// What another replica that leads has on offer.
    pub followed: watch::Receiver<Followed>,
    /// Tells what of that is on offer here.
    pub served: watch::Sender<Served>,
}

/// What one round works with.
struct Round {
    term: Option<u64>,
    in_force: Arc<InForce>,
    candidate: Option<Arc<Candidate>>,
    candidate_report: Arc<Mutex<CandidateReport>>,
    keys: Arc<KeyRing>,
    directories: Arc<Directories>,
    kept: Arc<Kept>,
}

enum Next {
    /// Everything is there.
    Now(Round),
    /// Something is missing that will be announced.
    Later,
    /// Keys or directories may still come.
    At(Instant),
}

// === impl PublishTask ===

impl PublishTask {
    /// Runs until the server stops.
    pub(super) async fn run(mut self) -> Result<(), JoinError> {
        let mut stop = self.hub.stopping();
        let mut assembler = Assembler::default();
        let last = self.publisher.last_revision();
        if last.counter > 0 {
            self.hub.signed_under(last.epoch);
        }
        loop {
            let wake = match self.next() {
                Next::At(time) => time,
                Next::Later => Instant::now() + RENEW,
                Next::Now(round) => {
                    let (hub, roster) = (self.hub.clone(), self.roster.clone());
                    let (in_force, term) = (round.in_force.clone(), round.term);
                    let mut publisher = self.publisher;
                    let published;
                    (publisher, assembler, published) = spawn_blocking(move || {
                        let published = publish(&hub, &roster, &mut publisher, &mut assembler, &round);
                        (publisher, assembler, published)
                    })
                    .await?;
                    self.publisher = publisher;
                    if published {
                        self.term = term;
                        self.offered.send_replace(Some(in_force));
                        self.ready.send_replace(true);
                    }
                    Instant::now() + if published { RENEW } else { RETRY }
                }
            };
            self.hub.fleet.prune(clock::now());
            // A sender that is gone is a task that ended, which ends the process.
            tokio::select! {
                _ = self.in_force.changed() => {}
                Ok(()) = self.candidate.changed() => {}
                _ = self.keys.changed() => {}
                _ = self.directories.changed() => {}
                _ = self.kept.changed() => {}
                // Nobody else can lead where rules are a folder, and nobody tells: that must not wake this up for ever.
                Ok(()) = self.leadership.changed() => {}
                Ok(()) = self.followed.changed() => {}
                () = sleep_until(wake) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
        }
    }

    /// Another replica signs, under a later epoch.
    fn follow(&mut self) {
        self.offered.send_if_modified(|offered| offered.take().is_some());
        let followed = self.followed.borrow_and_update().clone();
        match followed.state {
            // Streams go where there is something.
            Following::Impossible(_) | Following::Lost(_) => {
                self.hub.distributor.withdraw();
                self.ready.send_replace(false);
            }
            // What is on offer stays until it is known what follows.
            Following::Nobody
            | Following::Beginning(_)
            | Following::Current
            | Following::Cut(_)
            | Following::Ahead => {}
        }
        let Some(relayed) = followed.relayed.filter(|one| one.number > self.served.borrow().number) else {
            return;
        };
        let is_older = self.hub.distributor.is_ahead_of(&relayed.releases);
        if is_older {
            error!("what the leader has on offer is older than what is on offer here, which stays");
        } else {
            // First: whoever loses a workload must not get what is offered to it now.
            self.roster.set(relayed.members.clone());
            for gone in self.hub.distributor.publish(&relayed.releases, Lookups::default()) {
                self.hub.metrics.forget_workload(&gone);
            }
            self.hub.metrics.workloads.set(i64::try_from(relayed.releases.len()).unwrap_or(i64::MAX));
            self.ready.send_replace(true);
        }
        self.served.send_replace(Served { number: relayed.number, is_older });
    }

    fn next(&mut self) -> Next {
        let leadership = self.leadership.borrow_and_update().clone();
        if leadership.other.is_some() {
            self.follow();
            return Next::Later;
        }
        if !leadership.is_known {
            return Next::Later;
        }
        if let Some(epoch) = leadership.epoch
            && let Err(error) = self.publisher.begin_epoch(epoch)
        {
            error!("nothing new is pushed: {error}");
            return Next::At(Instant::now() + RETRY);
        }
        let Some(in_force) = self.in_force.borrow_and_update().clone() else { return Next::Later };
        let keys = self.keys.borrow_and_update().clone();
        let directories = self.directories.borrow_and_update().clone();
        let kept = self.kept.borrow_and_update().clone();
        let lacks = || kept.rules().any(|one| !in_force.revoking.contains(&one.id));
        if leadership.epoch.is_some() && leadership.epoch != self.term && lacks() {
            // What counts as newer must not lack what was revoked under the leader before; rules with it are on their way.
            return Next::Later;
        }
        if keys.sources != in_force.sources || directories.queries != in_force.queries {
            // They are those of other rules; the right ones are announced.
            return Next::Later;
        }
        let patience = Instant::from_std(in_force.since) + FIRST_ANSWERS;
        if !(keys.pending.is_empty() && directories.pending.is_empty()) && Instant::now() < patience {
            return Next::At(patience);
        }
        let candidate = self.candidate.borrow_and_update().clone();
        let candidate_report = self.candidate_report.clone();
        Next::Now(Round {
            term: leadership.epoch,
            in_force,
            candidate,
            candidate_report,
            keys,
            directories,
            kept,
        })
    }
}

/// Whether everything that is to be enforced is on offer.
fn publish(
    hub: &Hub,
    roster: &Roster,
    publisher: &mut Publisher,
    assembler: &mut Assembler,
    round: &Round,
) -> bool {
    let Round { in_force, keys, directories, kept, .. } = round;
    let now = clock::now();
    let mut contents = match assembler.contents(&in_force.compiled, keys, directories, kept, now) {
        Ok(contents) => contents,
        Err(error) => {
            error!("nothing new is pushed: the keys cannot be encoded: {error}");
            return false;
        }
    };
    let canaries = match assembler.stage(
        &mut contents,
        (&in_force.compiled, &in_force.staged),
        keys,
        directories,
        kept,
        now,
    ) {
        Ok(canaries) => canaries,
        Err(error) => {
            error!("nothing new is pushed: the keys cannot be encoded: {error}");
            return false;
        }
    };
    if let Some(candidate) = &round.candidate {
        let limits = candidate.limits(in_force);
        let without_keys = candidate.without_keys(in_force);
        let candidate = (&candidate.compiled, without_keys);
        let added = assembler.add_candidate(&mut contents, candidate, keys, directories, kept, now);
        if let Err(error) = added {
            error!("the candidate is left out: its keys cannot be encoded: {error}");
        }
        round.candidate_report.lock().unwrap_or_else(PoisonError::into_inner).limits = limits;
    }
    let compared = contents.values().filter(|contents| !contents.candidate.is_empty()).count();
    hub.metrics.candidate_workloads.set(i64::try_from(compared).unwrap_or(i64::MAX));
    let before = publisher.last_revision();
    let releases = match publisher.publish_staged(contents, canaries, now) {
        Ok(releases) => releases,
        Err(error) => {
            error!("nothing new is pushed: {error}");
            return false;
        }
    };
    hub.uses.offered(in_force, now);
    // First: whoever loses a workload must not get what is offered to it now.
    roster.replace(&in_force.compiled.mesh);
    let canaries = rollout::offers(&in_force.staged, &releases.canaries);
    let lookups = lookups(&in_force.compiled, &in_force.staged, directories);
    for gone in hub.distributor.publish_staged(&releases.all, canaries, lookups) {
        hub.metrics.forget_workload(&gone);
    }
    hub.key_desk.offers(keys.version);
    let revision = publisher.last_revision();
    hub.signed_under(revision.epoch);
    hub.metrics.workloads.set(i64::try_from(releases.all.len()).unwrap_or(i64::MAX));
    hub.metrics.revision.set(i64::try_from(revision.counter).unwrap_or(i64::MAX));
    if revision != before {
        let changed = revision.counter.saturating_sub(before.counter);
        info!(revision = revision.counter, changed, "bundles published");
    }
    if let Err(error) = publisher.save() {
        // They are signed anew after a restart.
        error!("bundles are on offer, and not written down for the next start: {error}");
    }
    true
}
