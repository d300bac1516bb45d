//! What people revoked, suspended and pinned, as one object of the cluster: all replicas see the same, and whoever leads next
//! goes on with it.
//!
//! An Intervention in the namespace of the Lease, changed with the version that was read: of two replicas that write at once, one is
//! refused and begins again with what the other one wrote. It is watched, so that a change by another replica is pushed at once,
//! and nothing is asked where nothing changes.
//!
//! INVARIANT: a replica that has got the lease leads only when it has read this since then: until then the rest of the program
//! does not know that it does. What cannot be read is not taken for nothing.
//!
//! INVARIANT: what was known is not forgotten because the object is gone, or is an older one: the later revision counts, and
//! whoever leads writes it again, until that is done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::json;
use tidegate_compiler::fence::MANAGED_BY;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::MANAGER;
use super::crds::{GROUP, INTERVENTION, VERSION};
use super::lease::Leadership;
use super::watches::{RETRY, events};
use crate::clock;
use crate::control::{Control, Kept};
use crate::push::{Hub, stopped};

/// What the object is called.
pub(super) const NAME: &str = MANAGER;
/// Most bytes that are kept: etcd takes no request of more than 1.5 MiB.
pub(crate) const MAX_SHARED: usize = 900_000;
/// How long one request may take.
const LONGEST: Duration = Duration::from_secs(5);

/// The object. Its methods block, and must not be called by a task.
pub(crate) struct SharedKept {
    client: Client,
    namespace: String,
    runtime: Handle,
}

/// What a change starts from.
#[derive(Debug)]
pub(crate) struct Base {
    /// What counts.
    pub(crate) kept: Kept,
    /// Over which version it is written; `None`: there is no object.
    pub(crate) version: Option<String>,
    /// Whether it is written as it is.
    pub(crate) is_stored: bool,
}

/// Why it is not written.
#[derive(Debug)]
pub(crate) enum Unshared {
    /// Another replica was quicker.
    Raced,
    /// There is no room for so many bytes.
    TooLarge(usize),
    /// With words.
    Failed(String),
}

/// Follows the object, and lets this replica lead when it knows it.
pub(crate) struct SharedTask {
    pub(crate) shared: Arc<SharedKept>,
    pub(crate) control: Arc<Control>,
    pub(crate) hub: Arc<Hub>,
    /// As the lease has it.
    pub(crate) elected: watch::Receiver<Leadership>,
    /// As everybody else is to know it.
    pub(crate) leadership: watch::Sender<Leadership>,
}

// === impl SharedKept ===

impl fmt::Debug for SharedKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKept").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl SharedKept {
    /// Must be called in a tokio runtime.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), runtime: Handle::current() }
    }

    /// What is written, or what is known where that is later. Blocking.
    ///
    /// # Errors
    /// With words where it cannot be read.
    pub(crate) fn read(&self, known: &Kept) -> Result<Base, String> {
        let asked = self.runtime.block_on(async { timeout(LONGEST, self.api().get_opt(NAME)).await });
        let found = match asked {
            Err(_) => return Err(self.failed("read", "the API server does not answer")),
            Ok(Err(error)) => return Err(self.failed("read", &error.to_string())),
            Ok(Ok(found)) => found,
        };
        let version = found.as_ref().and_then(|found| found.metadata.resource_version.clone());
        let stored = found.map(|found| self.parse(&found)).transpose()?;
        Ok(match stored {
            Some(kept) if kept.revision >= known.revision => Base { kept, version, is_stored: true },
            _ => Base { kept: known.clone(), version, is_stored: *known == Kept::default() },
        })
    }

    /// Writes it over a version. Blocking.
    pub(crate) fn write(&self, kept: &Kept, version: Option<String>) -> Result<(), Unshared> {
        let failed = |error: &str| Unshared::Failed(self.failed("written", error));
        let (spec, bytes) = serde_json::to_value(kept)
            .and_then(|spec| Ok((spec, serde_json::to_vec(kept)?.len())))
            .map_err(|error| failed(&error.to_string()))?;
        if bytes > MAX_SHARED {
            return Err(Unshared::TooLarge(bytes));
        }
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": INTERVENTION.0,
            "metadata": {
                "name": NAME,
                "namespace": self.namespace,
                "resourceVersion": version,
                "labels": {MANAGED_BY: MANAGER, "app.kubernetes.io/part-of": MANAGER},
            },
            "spec": spec,
        });
        let object: DynamicObject =
            serde_json::from_value(object).map_err(|error| failed(&error.to_string()))?;
        let api = self.api();
        let how = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let is_new = version.is_none();
        let write = async {
            if is_new { api.create(&how, &object).await } else { api.replace(NAME, &how, &object).await }
        };
        match self.runtime.block_on(async { timeout(LONGEST, write).await }) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 && is_new => Err(failed(
                "the cluster does not know the kind; install it: `tidegate crds | kubectl apply -f -`",
            )),
            // It was changed, made or deleted since it was read.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 || status.code == 404 => {
                Err(Unshared::Raced)
            }
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(Unshared::Failed(format!(
                "the API server does not say whether `{}/{NAME}` was written; `tidegate revoke --list` shows what counts when it \
                 answers again",
                self.namespace
            ))),
        }
    }

    fn parse(&self, object: &DynamicObject) -> Result<Kept, String> {
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let kept = serde_json::from_value::<Kept>(spec).map_err(|why| {
            let Self { namespace, .. } = self;
            format!(
                "Intervention `{namespace}/{NAME}` is not what was written there: {why}; restore it, or delete it: the replica \
                 that leads writes again what it knows"
            )
        })?;
        let kept = kept.check(clock::now());
        for one in &kept.unbelieved {
            error!(
                id = one.id,
                "part of Intervention `{}/{NAME}` does not count: {}", self.namespace, one.why
            );
        }
        Ok(kept)
    }

    fn failed(&self, what: &str, error: &str) -> String {
        let Self { namespace, .. } = self;
        format!(
            "Intervention `{namespace}/{NAME}`, where all replicas keep what is revoked, cannot be {what}: {error}; nothing has \
             changed"
        )
    }

    fn api(&self) -> Api<DynamicObject> {
        let (kind, plural) = INTERVENTION;
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural);
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }
}

// === impl SharedTask ===

impl SharedTask {
    /// Runs until the server stops.
    pub(crate) async fn run(self) -> Result<(), JoinError> {
        let mut stop = self.hub.stopping();
        let elected = self.elected.clone();
        tokio::select! {
            ended = self.lead(elected) => ended,
            ended = self.follow() => ended,
            () = stopped(&mut stop) => {
                // The lease is given back now.
                self.announce(Leadership::alone());
                Ok(())
            }
        }
    }

    /// Tells everybody else who leads: this replica only when it has read since it was elected.
    async fn lead(&self, mut elected: watch::Receiver<Leadership>) -> Result<(), JoinError> {
        let mut settled = None;
        let mut said = None;
        loop {
            let now = elected.borrow_and_update().clone();
            let Some(epoch) = now.epoch.filter(|epoch| settled != Some(*epoch)) else {
                self.announce(now);
                if elected.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            };
            self.announce(Leadership { epoch: None, is_known: false, unread: said.is_some(), ..now });
            let control = self.control.clone();
            let read = tokio::select! {
                read = spawn_blocking(move || control.settle()) => read?,
                _ = elected.changed() => continue,
            };
            match read {
                Ok(()) => {
                    settled = Some(epoch);
                    said = None;
                }
                Err(why) => {
                    if said.as_ref() != Some(&why) {
                        error!("this replica leads, and puts nothing in force: {why}");
                        said = Some(why);
                    }
                    tokio::select! {
                        () = sleep(RETRY) => {}
                        _ = elected.changed() => {}
                    }
                }
            }
        }
    }

    /// Takes over what other replicas write, and writes it again where it is gone or an older one.
    async fn follow(&self) -> Result<(), JoinError> {
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = events(self.shared.api(), config);
        let mut leadership = self.leadership.subscribe();
        let mut said = None;
        let mut unwritten = None;
        let mut is_listed = false;
        // Whether the cluster does not have what is known.
        let mut is_owed = false;
        loop {
            let leads = leadership.borrow_and_update().epoch.is_some();
            let event = tokio::select! {
                event = events.next() => event,
                written = self.write_again(unwritten.is_some()), if is_owed && leads => {
                    match written? {
                        Ok(()) => (is_owed, unwritten) = (false, None),
                        Err(why) if unwritten.as_ref() == Some(&why) => {}
                        Err(why) => {
                            error!("what is revoked, suspended and pinned is not in the cluster as it counts: {why}");
                            unwritten = Some(why);
                        }
                    }
                    continue;
                }
                Ok(()) = leadership.changed() => continue,
            };
            let result = match event {
                Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                    is_listed = true;
                    self.shared.parse(&object).map(Some)
                }
                Some(Ok(Event::Init)) => {
                    is_listed = false;
                    continue;
                }
                Some(Ok(Event::InitDone)) if is_listed => continue,
                // Deleted while nobody watched, or never written.
                Some(Ok(Event::Delete(_) | Event::InitDone)) => Ok(None),
                Some(Err(error)) => Err(self.shared.failed("watched", &error.to_string())),
                None => return Ok(()),
            };
            match result {
                Ok(stored) => {
                    if said.take().is_some() {
                        info!("{} are watched again", INTERVENTION.1);
                    }
                    let control = self.control.clone();
                    let is_known = spawn_blocking(move || match stored {
                        Some(stored) => control.learn(stored),
                        None => control.is_unwritten(),
                    });
                    is_owed = !is_known.await?;
                }
                Err(why) => {
                    if said.as_ref() != Some(&why) {
                        warn!("{why}");
                        said = Some(why);
                    }
                }
            }
        }
    }

    /// `is_later`: it has failed before.
    async fn write_again(&self, is_later: bool) -> Result<Result<(), String>, JoinError> {
        if is_later {
            sleep(RETRY).await;
        }
        let control = self.control.clone();
        spawn_blocking(move || control.settle()).await
    }

    fn announce(&self, now: Leadership) {
        self.leadership.send_if_modified(|known| {
            let is_changed = *known != now;
            *known = now;
            is_changed
        });
    }
}
