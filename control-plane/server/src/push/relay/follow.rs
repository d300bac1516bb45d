//! A replica that follows: keeps a stream to whoever the Lease names, and hands on what comes.
//!
//! INVARIANT: a replica that cannot reach the leader goes on with what it had from it for as long as it takes to elect another
//! one, unless something is revoked meanwhile, and then offers nothing: its filters find a replica that can.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pb::follow_request::Message as Up;
use pb::follow_response::Message as Down;
use pb::relay_client::RelayClient;
use tidegate_proto::v1 as pb;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::dial::{CONNECT, dial, words};
use super::round::{Assembler, Refused};
use super::uplink::{MAX_BATCHES, WAITING, in_turn, request};
use super::{Followed, Following, Link, RelayOptions, Relayed, Role, Served};
use crate::bundle::Keyring;
use crate::clock;
use crate::control::Kept;
use crate::kube::Leadership;
use crate::push::{Hub, stopped};
use crate::transport::{Security, scattered};

/// How soon it is tried again at first, and at most how late.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Most filters that are told of in one message.
const TOLD_AT_ONCE: usize = 64;
/// Largest message of a leader: who gets what, with 5 000 workloads under 1 MiB.
const MAX_ANSWER: usize = 16 << 20;
/// How long the publisher may take to offer what came.
const OFFERED_WITHIN: Duration = Duration::from_secs(30);
/// How long a leader may take from what is revoked in the cluster to what it has on offer.
const SETTLED: Duration = Duration::from_secs(5);

/// Follows until the server stops.
pub(crate) struct FollowTask {
    pub(crate) hub: Arc<Hub>,
    /// Absent: no other replica can be followed.
    pub(crate) options: Option<Box<RelayOptions>>,
    pub(crate) security: Security,
    /// What this replica is called.
    pub(crate) replica: String,
    /// What the leader's signatures are checked with.
    pub(crate) keys: Arc<Keyring>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// What is revoked, as the cluster has it.
    pub(crate) kept: watch::Receiver<Arc<Kept>>,
    pub(crate) followed: watch::Sender<Followed>,
    /// The number of what was put on offer last.
    pub(crate) served: watch::Receiver<Served>,
    /// After this time without the leader nothing is offered any more.
    pub(crate) lost_after: Duration,
}

/// Whom to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Nobody,
    /// There is a leader, and no way to follow it.
    Nowhere(String),
    At {
        leader: String,
        address: String,
    },
}

/// What has come.
#[derive(Default)]
struct Come {
    /// Rounds of all leaders.
    rounds: AtomicU64,
    /// What was revoked in what was on offer here last, of a leader or of this replica's own; absent: nothing ever was.
    kept: Mutex<Option<Arc<Kept>>>,
}

/// Why a stream ended.
struct Ended {
    why: String,
    /// It can never be otherwise while this leader leads.
    is_final: bool,
    /// What the leader has is older than what is on offer here.
    is_older: bool,
}

/// What a stream makes possible for as long as it lives.
struct Tied<'t> {
    hub: &'t Hub,
    link: Arc<Link>,
}

// === impl FollowTask ===

impl FollowTask {
    pub(crate) async fn run(self) -> Result<(), Infallible> {
        let mut stop = self.hub.stopping();
        let mut leadership = self.leadership.clone();
        let come = Come::default();
        loop {
            let target = self.target(&leadership.borrow_and_update());
            match &target {
                Target::Nobody => {
                    self.hub.relay.set(Role::Own);
                    self.say(Following::Nobody);
                }
                Target::Nowhere(why) => {
                    self.hub.relay.set(Role::Follower(None));
                    self.say(Following::Impossible(why.clone()));
                }
                Target::At { .. } => self.hub.relay.set(Role::Follower(None)),
            }
            tokio::select! {
                () = self.follow(&target, &come) => {}
                () = changed(&mut leadership, |now| self.target(now) != target) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            if target == Target::Nobody {
                let kept = self.kept.borrow().clone();
                come.had(Some(kept).filter(|_| self.hub.distributor.is_ready()));
            }
        }
    }

    fn target(&self, leadership: &Leadership) -> Target {
        let Some(leader) = leadership.other.clone() else { return Target::Nobody };
        if self.options.is_none() {
            return Target::Nowhere("this replica was not told how replicas reach each other".to_owned());
        }
        if leadership.is_stranger {
            return Target::Nowhere("its filters do not trust this replica's signing key".to_owned());
        }
        match leadership.other_at.clone() {
            Some(address) => Target::At { leader, address },
            None => Target::Nowhere("it does not say where it can be reached (`--replica-ip`)".to_owned()),
        }
    }

    /// Never ends.
    async fn follow(&self, target: &Target, come: &Come) {
        let (Target::At { leader, address }, Some(options)) = (target, &self.options) else {
            return std::future::pending().await;
        };
        self.say(self.without(None));
        let (mut pause, mut cut_at, mut said) = (RETRY.0, Instant::now(), None);
        loop {
            let begun = Instant::now();
            let Err(Ended { why, is_final, is_older }) = self.stream((address, options), come).await;
            let was_current = self.followed.borrow().state == Following::Current;
            if was_current {
                (cut_at, said) = (Instant::now(), None);
            }
            if said.as_ref() != Some(&why) {
                warn!("`{leader}` at {address} leads, and cannot be followed: {why}");
                said = Some(why.clone());
            }
            if is_final {
                self.say(Following::Impossible(why));
                return std::future::pending().await;
            }
            if is_older {
                self.say(Following::Ahead);
                sleep(scattered(pause)).await;
                pause = (pause * 2).min(RETRY.1);
                continue;
            }
            if !self.leadership.borrow().reached {
                // Nobody can be elected now: to go on with what there is is the best there is.
                cut_at = Instant::now();
            }
            let is_revoked = self.is_revoked_since(come);
            let is_lost = is_revoked || cut_at.elapsed() >= self.lost_after;
            self.say(match is_lost {
                true if is_revoked => Following::Lost(format!("something is revoked that never came; {why}")),
                true => Following::Lost(why),
                false => self.without(Some(why)),
            });
            if was_current && begun.elapsed() > RETRY.1 {
                // It had worked, and every connection has an end.
                pause = RETRY.0;
                continue;
            }
            let left = self.lost_after.saturating_sub(cut_at.elapsed());
            sleep(scattered(if is_lost { pause } else { pause.min(left) })).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// One stream, as long as it lives.
    async fn stream(
        &self,
        (address, options): (&str, &RelayOptions),
        come: &Come,
    ) -> Result<Infallible, Ended> {
        let channel = dial(address, options, &self.security).await.map_err(Ended::later)?;
        // Of another leader, where what this one has was older.
        let is_ahead = self.followed.borrow().state == Following::Ahead;
        let later = if is_ahead { self.hub.distributor.highest_epoch() } else { 0 };
        let mut assembler = Assembler::new(self.keys.clone(), &self.hub.distributor.releases());
        let (up, requests) = mpsc::channel(WAITING);
        let (bulk, batches) = mpsc::channel(MAX_BATCHES);
        let follower = pb::Follower {
            protocol_version: tidegate_proto::VERSION,
            replica: self.replica.clone(),
            held_sections: assembler.held().iter().map(|digest| digest.to_vec()).collect(),
            highest_epoch: self.hub.relay.signed().max(later),
        };
        // The first one has room.
        let _ = up.try_send(request(Up::Follower(follower)));
        let mut client = RelayClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let opened = timeout(CONNECT, client.follow(in_turn(requests, batches))).await;
        let down = opened.map_err(|_| Ended::later("it does not answer".to_owned()))?.map_err(Ended::from)?;
        let tied = Tied::new(&self.hub, Link::new(up.clone(), bulk));
        tokio::select! {
            ended = self.read(down.into_inner(), &mut assembler, &tied.link, come) => ended,
            ended = self.settle(come) => ended,
            ended = self.tell(&up) => ended,
        }
    }

    /// Takes what the leader sends.
    async fn read(
        &self,
        mut down: Streaming<pb::FollowResponse>,
        assembler: &mut Assembler,
        link: &Link,
        come: &Come,
    ) -> Result<Infallible, Ended> {
        loop {
            let message = down.message().await.map_err(Ended::from)?;
            let message = message.ok_or_else(|| Ended::later("it ended the stream".to_owned()))?;
            match message.message {
                Some(Down::Round(round)) => assembler.begin(round)?,
                Some(Down::Release(signed)) => assembler.release(signed, clock::now())?,
                Some(Down::Chunk(chunk)) => assembler.chunk(&chunk)?,
                Some(Down::RoundEnd(_)) => {
                    let (releases, members) = assembler.end()?;
                    let number = come.rounds.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                    let kept = self.kept.borrow().clone();
                    self.offer(Relayed { number, releases, members }).await?;
                    come.had(Some(kept));
                }
                Some(Down::Answer(answer)) => link.answered(&answer),
                Some(Down::RecordsTaken(taken)) => link.taken(&taken),
                // "Unknown message kinds are ignored by the receiver."
                None => {}
            }
        }
    }

    /// Has it offered here. What comes next may rest on it, and waits.
    async fn offer(&self, relayed: Relayed) -> Result<(), Ended> {
        let number = relayed.number;
        self.followed.send_modify(|followed| {
            if matches!(followed.state, Following::Lost(_)) {
                // Nothing is taken back any more.
                followed.says(Following::Beginning(None), Instant::now());
            }
            followed.relayed = Some(Arc::new(relayed));
        });
        let mut served = self.served.clone();
        let offered = timeout(OFFERED_WITHIN, served.wait_for(|served| served.number >= number)).await;
        match offered {
            Ok(Ok(served)) if served.is_older => {
                let why = "what it has on offer is older than what is on offer here".to_owned();
                Err(Ended { is_older: true, ..Ended::later(why) })
            }
            Ok(Ok(_)) => {
                if self.say(Following::Current) {
                    info!("what the leader has on offer is on offer here");
                }
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Ended::later("what came from it is not offered here".to_owned())),
        }
    }

    /// Tells the leader of filters here.
    async fn tell(&self, up: &mpsc::Sender<pb::FollowRequest>) -> Result<Infallible, Ended> {
        loop {
            let reports = self.hub.fleet.untold(TOLD_AT_ONCE, clock::now).await;
            let sent = up.send(request(Up::Filters(pb::FilterReports { reports }))).await;
            sent.map_err(|_| Ended::later("it ended the stream".to_owned()))?;
        }
    }

    /// Whether something is revoked that the last round did not have, as far as it can be told from here.
    fn is_revoked_since(&self, come: &Come) -> bool {
        let Some(had) = come.lock().clone() else { return false };
        let is_known = |id: &String| had.revocations.iter().any(|known| known.id == *id);
        !self.kept.borrow().revocations.iter().all(|one| is_known(&one.id))
    }

    /// What is revoked while a stream lives has come by it soon after, whichever is told here first.
    async fn settle(&self, come: &Come) -> Result<Infallible, Ended> {
        let mut kept = self.kept.clone();
        loop {
            if kept.changed().await.is_err() {
                // The server ends.
                return std::future::pending().await;
            }
            let now = kept.borrow_and_update().clone();
            sleep(SETTLED).await;
            come.had(Some(now));
        }
    }

    /// What is said while the leader is not followed yet, or not any more.
    fn without(&self, why: Option<String>) -> Following {
        match why {
            why if !self.hub.distributor.is_ready() => Following::Beginning(why),
            Some(why) => Following::Cut(why),
            None => Following::Cut("it is the leader since a moment ago".to_owned()),
        }
    }

    /// False: that was said.
    fn say(&self, state: Following) -> bool {
        self.followed.send_if_modified(|followed| {
            if followed.state == state {
                return false;
            }
            followed.says(state, Instant::now());
            true
        })
    }
}

// === impl Come ===

impl Come {
    fn had(&self, kept: Option<Arc<Kept>>) {
        *self.lock() = kept;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ended ===

impl Ended {
    fn later(why: String) -> Self {
        Self { why, is_final: false, is_older: false }
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match status.message() {
            "" => Self::later(words(&status)),
            said => Self::later(said.to_owned()),
        }
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self { is_final: matches!(refused, Refused::OtherKey(_)), ..Self::later(refused.to_string()) }
    }
}

// === impl Tied ===

impl<'t> Tied<'t> {
    fn new(hub: &'t Hub, link: Link) -> Self {
        let link = Arc::new(link);
        hub.relay.set(Role::Follower(Some(link.clone())));
        hub.fleet.begin_telling();
        hub.metrics.follows.set(1);
        Self { hub, link }
    }
}

impl Drop for Tied<'_> {
    fn drop(&mut self) {
        self.hub.relay.set(Role::Follower(None));
        self.hub.fleet.end_telling();
        self.hub.metrics.follows.set(0);
        self.link.end();
    }
}

/// Resolves when this holds of who leads.
async fn changed(leadership: &mut watch::Receiver<Leadership>, holds: impl Fn(&Leadership) -> bool) {
    // An error means that the election has ended, and with it the server does.
    if leadership.wait_for(|now| holds(now)).await.is_err() {
        std::future::pending::<()>().await;
    }
}
