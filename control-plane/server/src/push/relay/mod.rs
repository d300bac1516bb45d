//! Several replicas that push: one leads, compiles and signs; the others push what it signed to the filters that are connected
//! to them, and tell it what these say.
//!
//! The way of a Bundle: the leader's end of a stream (`lead`) sends what is on offer there in rounds (`round`); the other end
//! (`follow`) checks them and hands them to the publisher, which offers them like its own. The way back (`uplink`): what filters
//! are and enforce (`fleet::relayed`), what they ask, which rules they use, and what they decided.
//!
//! INVARIANT: a replica that follows signs nothing. It offers only what a key signed that filters are told to trust, to the
//! workload that the manifest names, and never an older revision after a newer one. The leader counts what filters elsewhere
//! enforce while the stream of their replica lives, and not a moment longer.

mod dial;
mod follow;
mod lead;
mod round;
mod uplink;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tracing::warn;

pub(crate) use self::follow::FollowTask;
pub(super) use self::lead::{MAX_MESSAGE, body};
pub(crate) use self::uplink::Link;
use super::Hub;
use crate::bundle::Release;
use crate::metrics::ReasonLabel;
use crate::transport::{Caller, Members, Roster, VerifiedPeer};

/// How far the clock of another replica may be ahead, in seconds.
const MAX_AHEAD_S: u64 = 86_400;
/// For so long a leader that cannot be followed may be one that is about to be replaced: as long as a Deployment gives a rollout to
/// make progress unless it says otherwise.
const REPLACED_WITHIN: Duration = Duration::from_secs(600);

/// How replicas reach and know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOptions {
    /// What each of them runs as.
    pub account: VerifiedPeer,
    /// Where the others reach this one's port for filters, `HOST:PORT`; absent: where it listens, if that is one address.
    pub address: Option<String>,
    /// The host that is called there: what a sidecar knows replicas by; absent: the address.
    pub authority: Option<String>,
}

/// How far a replica follows the one that leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Following {
    /// Nobody else leads, as far as it is known.
    #[default]
    Nobody,
    /// There is no way to, and why. It can lead all the same, and filters get nothing here.
    Impossible(String),
    /// Nothing has come yet, and why where that is known.
    Beginning(Option<String>),
    /// What the leader has on offer is on offer here.
    Current,
    /// What is on offer here is what the leader had when it was lost, and why it was.
    Cut(String),
    /// It was lost too long ago: nothing is on offer here.
    Lost(String),
    /// What filters have here is later than what the leader has, which they refuse until it begins a later epoch.
    Ahead,
}

/// The same, with what is to be on offer.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// How far.
    pub state: Following,
    /// Since when it has been impossible, for whatever reason; absent: it is not.
    pub(crate) impossible_since: Option<Instant>,
    pub(crate) relayed: Option<Arc<Relayed>>,
}

/// Everything that a leader has on offer, checked.
#[derive(Debug)]
pub(crate) struct Relayed {
    /// Grows with every one of this process.
    pub(crate) number: u64,
    pub(crate) releases: BTreeMap<String, Arc<Release>>,
    /// Who gets them.
    pub(crate) members: Arc<Members>,
}

/// What of a leader was put on offer here last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served {
    pub(crate) number: u64,
    /// It was not: what is on offer is later.
    pub(crate) is_older: bool,
}

/// What streams need to know of other replicas.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    /// Absent: there are no others.
    replicas: OnceLock<Replicas>,
    /// Whether others may follow this one.
    serves: watch::Sender<bool>,
    role: RwLock<Role>,
    /// The latest epoch that this replica signed under, and that one that follows may have filters with.
    signed: AtomicU64,
    asked: AtomicU64,
}

#[derive(Debug)]
struct Replicas {
    account: VerifiedPeer,
    roster: Arc<Roster>,
}

/// Whose filters these are in the end.
#[derive(Debug, Clone, Default)]
pub(crate) enum Role {
    /// This replica's: it leads, or nobody does.
    #[default]
    Own,
    /// The leader's, who is asked and told; absent: who cannot be reached.
    Follower(Option<Arc<Link>>),
}

// === impl Following ===

impl Following {
    /// Whether filters find here what the leader has, or had last.
    pub fn offers(&self) -> bool {
        matches!(self, Self::Current | Self::Cut(_))
    }
}

// === impl Followed ===

impl Followed {
    /// Whether filters, or a rollout, may count on this replica.
    ///
    /// One that can only take over offers nothing. It is ready all the same while the leader may be about to go: if it never were,
    /// no rollout that changes keys or how replicas reach each other would ever come to replace the leader.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.state {
            Following::Impossible(_) => {
                self.impossible_since.is_some_and(|since| since.elapsed() < REPLACED_WITHIN)
            }
            state => state.offers(),
        }
    }

    /// `now`: since when, if that was not known before.
    fn says(&mut self, state: Following, now: Instant) {
        self.impossible_since = match state {
            Following::Impossible(_) => self.impossible_since.or(Some(now)),
            _ => None,
        };
        if !state.offers() {
            self.relayed = None;
        }
        self.state = state;
    }
}

// === impl Relay ===

impl Relay {
    /// There may be other replicas, of this account. Who gets what is in the roster.
    pub(crate) fn among(&self, account: VerifiedPeer, roster: Arc<Roster>) {
        self.replicas.get_or_init(|| Replicas { account, roster });
    }

    pub(crate) fn role(&self) -> Role {
        self.role.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, role: Role) {
        let is_own = matches!(role, Role::Own);
        *self.role.write().unwrap_or_else(PoisonError::into_inner) = role;
        self.serves.send_if_modified(|serves| std::mem::replace(serves, is_own) != is_own);
    }

    pub(super) fn signed_under(&self, epoch: u64) {
        self.signed.fetch_max(epoch, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Filters of a replica that follows may have something under this epoch. `now`: Unix seconds, which epochs are of.
    fn ask(&self, epoch: u64, now: i64) {
        let latest = u64::try_from(now).unwrap_or(0).saturating_add(MAX_AHEAD_S);
        // One that is far ahead would leave no room for later ones.
        if epoch <= latest {
            self.asked.fetch_max(epoch, Ordering::Relaxed);
        }
    }

    /// The latest epoch that this replica signed under.
    fn signed(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    fn members(&self) -> Option<Arc<Members>> {
        self.replicas.get()?.roster.members()
    }
}

/// Whether the caller may follow: a replica, and nobody else.
pub(super) fn admit(hub: &Hub, caller: Option<&Caller>) -> Result<(), Status> {
    let refuse = |reason, status: Status| {
        hub.metrics.refused_streams.get_or_create(&ReasonLabel::new(reason)).inc();
        warn!(reason, "a stream between replicas is refused: {}", status.message());
        Err(status)
    };
    let Some(replicas) = hub.relay.replicas.get() else {
        return refuse("no_replicas", Status::unimplemented("this control plane has no other replicas"));
    };
    match caller {
        None => Err(Status::unauthenticated("nobody said who is calling")),
        // Everybody on this machine may have everything.
        Some(Caller::Unasked) => Ok(()),
        Some(Caller::Peer { peer, .. }) if **peer == replicas.account => Ok(()),
        Some(Caller::Peer { peer, .. }) => {
            let why =
                format!("{peer} is no replica of this control plane, which runs as {}", replicas.account);
            refuse("not_a_replica", Status::permission_denied(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::directories::Index;

    #[test]
    fn nobody_follows_but_a_replica() {
        let hub = Hub::new(Index::new(Duration::from_secs(1)));
        let own = "spiffe://td/ns/gate/sa/tidegate";
        let peer = |id: &str| Caller::Peer { peer: Arc::new(id.parse().unwrap()), address: None };
        let code = |caller: Option<Caller>| admit(&hub, caller.as_ref()).err().map(|status| status.code());
        assert_eq!(code(Some(peer(own))), Some(Code::Unimplemented), "there are no replicas");
        hub.relay.among(own.parse().unwrap(), Arc::new(Roster::new(&[])));
        assert_eq!(code(Some(peer(own))), None);
        assert_eq!(code(Some(Caller::Unasked)), None);
        assert_eq!(code(None), Some(Code::Unauthenticated));
        for other in [
            "spiffe://td/ns/gate/sa/other",
            "spiffe://td/ns/sales/sa/tidegate",
            "spiffe://td2/ns/gate/sa/tidegate",
        ] {
            assert_eq!(code(Some(peer(other))), Some(Code::PermissionDenied), "{other}");
        }
    }

    #[test]
    fn an_epoch_that_would_leave_no_room_for_later_ones_is_not_taken_over() {
        let relay = Relay::default();
        for (epoch, expected) in
            [(1_000, 1_000), (900, 1_000), (u64::MAX, 1_000), (1_000 + MAX_AHEAD_S, 1_000 + MAX_AHEAD_S)]
        {
            relay.ask(epoch, 1_000);
            assert_eq!(relay.asked(), expected, "{epoch}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_only_take_over_is_ready_for_as_long_as_a_rollout_may_take_to_replace_the_leader() {
        let impossible = |why: &str| Following::Impossible(why.to_owned());
        let mut followed = Followed::default();
        assert!(!followed.is_ready(), "it is not known yet");
        followed.says(impossible("another key"), Instant::now());
        assert!(followed.is_ready());
        tokio::time::advance(REPLACED_WITHIN / 2).await;
        followed.says(impossible("another reason"), Instant::now());
        assert!(followed.is_ready());
        tokio::time::advance(REPLACED_WITHIN / 2).await;
        assert!(!followed.is_ready(), "for another reason it is still impossible");
        followed.says(Following::Beginning(None), Instant::now());
        assert!(!followed.is_ready());
        followed.says(Following::Current, Instant::now());
        assert!(followed.is_ready());
        followed.says(impossible("another key"), Instant::now());
        assert!(followed.is_ready(), "it had worked: something is being replaced");
        tokio::time::advance(REPLACED_WITHIN).await;
        assert!(!followed.is_ready());
    }

    #[test]
    fn who_follows_another_one_is_not_followed() {
        let relay = Relay::default();
        let serves = relay.serves.subscribe();
        assert!(!*serves.borrow(), "nothing is known yet");
        for (role, expected) in [(Role::Own, true), (Role::Follower(None), false), (Role::Own, true)] {
            relay.set(role);
            assert_eq!(*serves.borrow(), expected);
        }
    }
}
