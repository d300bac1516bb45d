//! Which replica writes.
//!
//! A Lease of `coordination.k8s.io`, changed with the version that was read: of two replicas that try at once, one is refused.
//! How long a lease lasts is measured with the clock of whoever waits, from when it saw the last change, so clocks need not
//! agree.
//!
//! Every term has an epoch, greater than those before it and than the holder's clock in Unix seconds, which Bundles are signed
//! under: filters never take those of an earlier term for newer.
//!
//! INVARIANT: a replica stops leading [`MARGIN`] before another one may begin, whether or not it reaches the API server.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::MANAGER;
use crate::clock;
use crate::push::{Hub, stopped};

/// The parts of its duration after which a lease is renewed, and after which its holder stops.
const RENEWED_AFTER: u32 = 5;
/// How much of the duration is left when a holder that could not renew stops, as a part of it.
const MARGIN: u32 = 5;
/// After so many times the duration of a Lease that was never read a replica goes by what it has.
const ALONE_AFTER: u32 = 2;
/// Where the epoch of the term is.
const EPOCH: &str = "tidegate.dev/epoch";
/// Where other replicas reach the holder.
const ADDRESS: &str = "tidegate.dev/address";
/// Where the ids of the keys are that filters trust.
const KEYS: &str = "tidegate.dev/trusted-keys";

/// Which lease, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Where the Lease is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
    /// Unique among replicas: the pod's name.
    pub identity: String,
    /// How long a holder that is gone is waited for.
    pub duration: Duration,
}

/// What a replica knows of the lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The epoch of the term, while this replica is the one that writes.
    pub epoch: Option<u64>,
    /// The other replica that is.
    pub other: Option<String>,
    /// Where it can be followed, if it says so: `HOST:PORT`.
    pub other_at: Option<String>,
    /// Whether filters of the other replica do not trust this one's signature: it would lead, and nobody would follow.
    pub is_stranger: bool,
    /// Whether the API server answered lately.
    pub reached: bool,
    /// Whether it was asked at all.
    pub is_known: bool,
    /// Whether this replica was elected and cannot read what is revoked: it does not lead before it can.
    pub unread: bool,
}

/// Takes part until the server stops.
pub(crate) struct Election {
    pub(crate) client: Client,
    pub(crate) options: LeaseOptions,
    /// Where other replicas reach this one; absent: they do not.
    pub(crate) address: Option<String>,
    pub(crate) hub: Arc<Hub>,
    /// Ids of the keys that filters are told to trust; the first one signs.
    pub(crate) keys: Vec<String>,
    pub(crate) leadership: watch::Sender<Leadership>,
}

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    object: DynamicObject,
    holder: Option<String>,
    duration: Duration,
    epoch: u64,
    keys: Option<String>,
    address: Option<String>,
}

/// How an attempt went.
enum Attempt {
    /// It is ours until then.
    Held { epoch: u64, until: Instant },
    /// It is somebody else's, who may have other keys.
    Others { holder: String, address: Option<String>, is_stranger: bool },
    /// Another replica was quicker; whose it is will be seen.
    Raced,
    /// Nobody knows.
    Failed(String),
}

// === impl Leadership ===

impl Leadership {
    /// Without a cluster there is no other replica.
    pub(crate) fn alone() -> Self {
        Self { reached: true, is_known: true, ..Self::default() }
    }
}

// === impl Election ===

impl Election {
    /// Runs until the server stops, and gives the lease back then.
    pub(crate) async fn run(self) -> Result<(), std::convert::Infallible> {
        let mut stop = self.hub.stopping();
        let every = self.options.duration / RENEWED_AFTER;
        // Of another holder: what was seen, and since when.
        let mut watched: Option<(Value, Instant)> = None;
        // Of this one: until when it leads without renewing.
        let mut until: Option<Instant> = None;
        // The lease as this one wrote it last.
        let mut own: Option<DynamicObject> = None;
        let mut said = None;
        let (started, mut was_read) = (Instant::now(), false);
        loop {
            let begun = Instant::now();
            let limit = until.unwrap_or(begun + every).min(begun + every);
            let attempt = timeout(limit - begun, self.attempt(&mut watched, &mut own)).await;
            let attempt = attempt.unwrap_or_else(|_| Attempt::Failed("it does not answer".to_owned()));
            was_read |= !matches!(attempt, Attempt::Failed(_));
            match attempt {
                Attempt::Held { epoch, until: end } => {
                    until = Some(end);
                    if self.leadership.borrow().epoch.is_none() {
                        info!(epoch, "this replica leads");
                    }
                    said = None;
                    self.announce(Leadership { epoch: Some(epoch), ..Leadership::alone() });
                }
                Attempt::Others { holder, address, is_stranger } => {
                    until = None;
                    if self.leadership.borrow().other.as_ref() != Some(&holder) {
                        info!("`{holder}` leads; this replica waits");
                        if is_stranger {
                            warn!(
                                "filters do not trust this replica's signing key; give all replicas the same `--secrets`"
                            );
                        }
                    }
                    said = None;
                    let (other, other_at) = (Some(holder), address);
                    self.announce(Leadership { other, other_at, is_stranger, ..Leadership::alone() });
                }
                Attempt::Raced => {}
                Attempt::Failed(why) => {
                    if said.as_ref() != Some(&why) {
                        warn!("the lease cannot be renewed: {why}");
                        said = Some(why);
                    }
                    let known = self.leadership.borrow().clone();
                    let epoch = known.epoch.filter(|_| until.is_some_and(|end| Instant::now() < end));
                    // Before anybody said who leads, another one may: what is signed here would be later than what it signs.
                    let is_known = known.is_known
                        || was_read
                        || started.elapsed() >= self.options.duration * ALONE_AFTER;
                    self.announce(Leadership { epoch, reached: false, is_known, ..known });
                }
            }
            let next = begun + every;
            loop {
                let end = until.filter(|end| *end < next);
                tokio::select! {
                    () = sleep_until(end.unwrap_or(next)) => {}
                    () = stopped(&mut stop) => {
                        self.give_back().await;
                        return Ok(());
                    }
                }
                if end.is_none() {
                    break;
                }
                until = None;
                warn!("the lease ran out; this replica stops writing");
                self.announce(Leadership { reached: false, ..Leadership::alone() });
            }
        }
    }

    fn announce(&self, now: Leadership) {
        self.leadership.send_if_modified(|known| {
            let is_changed = *known != now;
            *known = now;
            is_changed
        });
    }

    async fn attempt(
        &self,
        watched: &mut Option<(Value, Instant)>,
        own: &mut Option<DynamicObject>,
    ) -> Attempt {
        let api = self.api();
        let begun = Instant::now();
        // What was written last is what is there; else writing is refused, and it is read next time.
        let known = match own.take() {
            Some(known) => Ok(Some(known)),
            None => api.get_opt(&self.options.name).await,
        };
        let seen = match known {
            Ok(Some(object)) => Seen::new(object),
            Ok(None) => {
                let epoch = next_epoch(0);
                let Some(lease) = self.lease(None, epoch) else { return Attempt::Failed("no lease".into()) };
                let created = api.create(&PostParams::default(), &lease).await;
                return self.outcome(created, own, epoch, begun);
            }
            Err(error) => return Attempt::Failed(error.to_string()),
        };
        let is_ours = seen.holder.as_deref() == Some(&self.options.identity);
        if let Some(holder) = seen.holder.clone().filter(|_| !is_ours) {
            let spec = seen.object.data.clone();
            if watched.as_ref().is_none_or(|(known, _)| *known != spec) {
                *watched = Some((spec, begun));
            }
            let since = watched.as_ref().map_or(begun, |(_, since)| *since);
            if begun < since + seen.duration {
                let signs = self.keys.first();
                let is_stranger = seen
                    .keys
                    .as_deref()
                    .zip(signs)
                    .is_some_and(|(trusted, signs)| !trusted.split(',').any(|id| id == signs));
                return Attempt::Others { holder, address: seen.address, is_stranger };
            }
            info!("`{holder}` did not renew the lease for {} s", seen.duration.as_secs_f32());
        }
        // A term that goes on keeps its epoch, unless filters elsewhere have something later; another one has another.
        let asked = self.hub.asked_epoch();
        let epoch = match self.leadership.borrow().epoch {
            Some(epoch) if is_ours && epoch == seen.epoch && asked < epoch => epoch,
            _ => next_epoch(seen.epoch.max(asked)),
        };
        let Some(lease) = self.lease(Some(&seen), epoch) else { return Attempt::Failed("no lease".into()) };
        let replaced = api.replace(&self.options.name, &PostParams::default(), &lease).await;
        self.outcome(replaced, own, epoch, begun)
    }

    fn outcome(
        &self,
        result: Result<DynamicObject, kube::Error>,
        own: &mut Option<DynamicObject>,
        epoch: u64,
        begun: Instant,
    ) -> Attempt {
        match result {
            Ok(written) => {
                *own = Some(written);
                let until = begun + self.options.duration - self.options.duration / MARGIN;
                Attempt::Held { epoch, until }
            }
            // Somebody else was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Attempt::Raced,
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }

    /// The lease as this replica wants it.
    fn lease(&self, seen: Option<&Seen>, epoch: u64) -> Option<DynamicObject> {
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let before =
            |field: &str| seen.and_then(|seen| seen.object.data.pointer(&format!("/spec/{field}")).cloned());
        let is_ours = seen.is_some_and(|seen| seen.holder.as_deref() == Some(&self.options.identity));
        let transitions = before("leaseTransitions").and_then(|count| count.as_u64()).unwrap_or(0);
        let acquired = if is_ours { before("acquireTime") } else { None };
        let version = seen.and_then(|seen| seen.object.metadata.resource_version.clone());
        let mut annotations = json!({EPOCH: epoch.to_string(), KEYS: self.keys.join(",")});
        if let Some(address) = &self.address {
            annotations[ADDRESS] = json!(address);
        }
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.options.name,
                "namespace": self.options.namespace,
                "resourceVersion": version,
                "annotations": annotations,
            },
            "spec": {
                "holderIdentity": self.options.identity,
                "leaseDurationSeconds": self.options.duration.as_secs().max(1),
                "acquireTime": acquired.unwrap_or_else(|| now.clone().into()),
                "renewTime": now,
                "leaseTransitions": transitions + u64::from(!is_ours && seen.is_some()),
            },
        });
        serde_json::from_value(lease).ok()
    }

    /// So that another replica need not wait.
    async fn give_back(&self) {
        if self.leadership.borrow().epoch.is_none() {
            return;
        }
        self.announce(Leadership::alone());
        let api = self.api();
        let give = async {
            let mut lease = api.get(&self.options.name).await?;
            if lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str)
                == Some(&self.options.identity)
                && let Some(spec) = lease.data.get_mut("spec").and_then(Value::as_object_mut)
            {
                spec.insert("holderIdentity".to_owned(), "".into());
                api.replace(&self.options.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        // It runs out by itself otherwise.
        let _ = timeout(Duration::from_secs(1), give).await;
    }

    fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
        let kind = ApiResource::from_gvk_with_plural(&kind, "leases");
        Api::namespaced_with(self.client.clone(), &self.options.namespace, &kind)
    }
}

impl LeaseOptions {
    /// The lease of all replicas, as the pod or machine that this is.
    pub fn new(namespace: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: MANAGER.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
        }
    }
}

// === impl Seen ===

impl Seen {
    fn new(object: DynamicObject) -> Self {
        let spec = |field: &str| object.data.pointer(&format!("/spec/{field}"));
        let holder = spec("holderIdentity").and_then(Value::as_str).filter(|holder| !holder.is_empty());
        let holder = holder.map(str::to_owned);
        let seconds = spec("leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(15);
        let annotations = object.metadata.annotations.as_ref();
        let epoch =
            annotations.and_then(|all| all.get(EPOCH)).and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        let keys = annotations.and_then(|all| all.get(KEYS)).filter(|keys| !keys.is_empty()).cloned();
        let address = annotations.and_then(|all| all.get(ADDRESS)).filter(|at| !at.is_empty()).cloned();
        Self { holder, duration: Duration::from_secs(seconds), epoch, keys, address, object }
    }
}

/// Greater than this, and not behind the clock.
fn next_epoch(before: u64) -> u64 {
    u64::try_from(clock::now()).unwrap_or(0).max(before.saturating_add(1))
}
