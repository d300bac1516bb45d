//! Writes statuses, and events for refusals.
//!
//! INVARIANT: nothing is written that is there already: a cluster in which nothing changes is not written to. Only the
//! replica that holds the lease writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::{Value, json};
use tidegate_compiler::WorkloadId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::MANAGER;
use super::crds::{GROUP, VERSION, plural};
use super::index::{Index, RuleObject};
use super::lease::Leadership;
use super::source::Judged;
use super::status::{
    Condition, Hidden, Looked, Proxies, Reach, View, changed, conditions, hidden, proxies, reach,
};
use super::view::FenceView;
use crate::push::{Hub, stopped};
use crate::rules::ObjectPath;
use crate::serve::InForce;

/// What happens at once is written at once.
const QUIET: Duration = Duration::from_millis(50);
/// How often it is looked at what proxies enforce.
const TICK: Duration = Duration::from_secs(1);
/// How long after a failure nothing is written.
const RETRY: Duration = Duration::from_secs(2);
/// How many writes are under way at once.
const AT_ONCE: usize = 16;
/// For so long what is written was right when it was found; then it is looked again, if something is another.
const ANEW: Duration = Duration::from_millis(500);
/// How long a proxy may take to connect before it is reported.
const CONNECTS: Duration = Duration::from_secs(30);
/// Longest text of an event, in bytes (`events.k8s.io/v1`).
const MAX_NOTE: usize = 1_000;

/// Writes statuses while this replica is the one that writes.
pub(crate) struct StatusTask {
    pub(crate) client: Client,
    pub(crate) index: Arc<Index>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) judged: watch::Receiver<Arc<Judged>>,
    /// The rules of which everything is on offer.
    pub(crate) offered: watch::Receiver<Option<Arc<InForce>>>,
    /// What there is to say about policies, where any are kept.
    pub(crate) fence: Option<watch::Receiver<Arc<FenceView>>>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

/// Proxies without a stream, by workload and pod.
type Silent = BTreeSet<(WorkloadId, String)>;

/// A status that is to be written.
#[derive(Debug, PartialEq)]
struct Write {
    object: ObjectPath,
    uid: String,
    status: Value,
    /// What an event says, if the object is refused and was not before, or for another reason.
    refused: Option<String>,
}

/// Pods without a proxy, by workload.
fn bypassed(proxies: &BTreeMap<WorkloadId, Proxies>) -> BTreeMap<String, Vec<String>> {
    let with = proxies.iter().filter(|(_, found)| !found.bypassed.is_empty());
    with.map(|(id, found)| (id.to_string(), found.bypassed.iter().cloned().collect())).collect()
}

// === impl StatusTask ===

impl StatusTask {
    /// Runs until the server stops.
    pub(crate) async fn run(mut self) -> Result<(), std::convert::Infallible> {
        let mut stop = self.hub.stopping();
        let mut objects = self.index.objects();
        let recorder = Recorder::new(self.client.clone(), Reporter::from(MANAGER));
        let mut reach_of: (Option<Arc<Judged>>, Reach) = (None, Reach::new());
        let mut silent: BTreeMap<(WorkloadId, String), Instant> = BTreeMap::new();
        let mut said = None;
        // What the last round saw of proxies, and whether something else is another since.
        let mut seen: Option<(BTreeMap<WorkloadId, Proxies>, Silent)> = None;
        let mut is_stale = true;
        let mut looked = Looked::default();
        loop {
            if self.leadership.borrow_and_update().epoch.is_some() && self.index.is_listed() {
                let judged = self.judged.borrow_and_update().clone();
                if reach_of.0.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &judged)) {
                    reach_of = (Some(judged.clone()), reach(&judged));
                }
                // By the rules: what is revoked besides is of no object.
                let is_offered = self.offered.borrow_and_update().as_ref().map(|one| Arc::as_ptr(&one.rules))
                    == judged.in_force.as_ref().map(|one| Arc::as_ptr(&one.rules));
                let proxies = proxies(&self.index.workloads(), &crate::admin::fleet(&self.hub));
                let unreachable = unreachable(&proxies, &mut silent);
                let is_seen =
                    |seen: &(BTreeMap<_, _>, BTreeSet<_>)| seen.0 == proxies && seen.1 == unreachable;
                self.hub.set_bypassed(bypassed(&proxies));
                let is_right = !is_stale && seen.as_ref().is_some_and(is_seen);
                let fence = self.fence.as_mut().map(|fence| fence.borrow_and_update().clone());
                let hidden = match &judged.in_force {
                    Some(in_force) => hidden(&in_force.compiled, &self.index.owned()),
                    None => Hidden::new(),
                };
                let namespaces = self.index.namespaces().into_iter();
                let opted_out =
                    namespaces.filter(|(_, known)| known.is_opted_out).map(|(name, _)| name).collect();
                let view = View {
                    hidden: &hidden,
                    opted_out: &opted_out,
                    fence: fence.as_deref(),
                    judged: &judged,
                    reach: &reach_of.1,
                    proxies: &proxies,
                    unreachable: &unreachable,
                    is_offered,
                };
                // Five thousand statuses are not made up each second to find that nothing changed.
                let due = if is_right { Vec::new() } else { self.due(&judged, &mut looked, &view) };
                let (begun, all) = (Instant::now(), due.len());
                let mut begun_of = 0;
                let goes_on = |_: &Write| {
                    let goes_on = begun.elapsed() < ANEW || !self.is_another();
                    begun_of += usize::from(goes_on);
                    future::ready(goes_on)
                };
                let due = stream::iter(due).take_while(goes_on);
                let mut results = due.map(|write| self.write(&recorder, write)).buffer_unordered(AT_ONCE);
                let mut failed = None;
                while let Some(result) = results.next().await {
                    if self.leadership.borrow().epoch.is_none() {
                        break;
                    }
                    failed = result.err().or(failed);
                }
                drop(results);
                is_stale = failed.is_some() || begun_of < all;
                seen = Some((proxies, unreachable));
                match failed {
                    None => said = None,
                    Some(error) => {
                        if said.as_ref() != Some(&error) {
                            warn!("a status cannot be written: {error}");
                            said = Some(error);
                        }
                        tokio::select! {
                            () = sleep(RETRY) => {}
                            () = stopped(&mut stop) => return Ok(()),
                        }
                    }
                }
            }
            is_stale |= tokio::select! {
                _ = objects.changed() => {
                    sleep(QUIET).await;
                    true
                }
                _ = self.judged.changed() => {
                    // What follows at once is written in one go.
                    let _ = timeout(QUIET * 2, self.offered.changed()).await;
                    sleep(QUIET).await;
                    true
                }
                _ = self.offered.changed() => {
                    sleep(QUIET).await;
                    true
                }
                _ = self.leadership.changed() => true,
                () = changed_if_any(&mut self.fence) => {
                    sleep(QUIET).await;
                    true
                }
                () = sleep(TICK) => false,
                () = stopped(&mut stop) => return Ok(()),
            };
        }
    }

    /// Whether what statuses say is about to be another.
    fn is_another(&self) -> bool {
        let fence = self.fence.as_ref().is_some_and(|fence| fence.has_changed().unwrap_or(false));
        fence || self.judged.has_changed().unwrap_or(false) || self.offered.has_changed().unwrap_or(false)
    }

    /// Every status that is not as it should be.
    fn due(&self, judged: &Arc<Judged>, looked: &mut Looked, view: &View<'_>) -> Vec<Write> {
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let objects = self.index.rules();
        looked.begin(judged, view);
        looked.forget_all_but(&objects);
        due(&objects, looked, view, &now)
    }

    async fn write(&self, recorder: &Recorder, write: Write) -> Result<(), String> {
        let Write { object, uid, status, refused } = write;
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(GROUP, VERSION, object.kind.as_str()),
            &plural(object.kind),
        );
        let api: Api<DynamicObject> = match &object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        let body = json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": object.name},
            "status": status,
        });
        // Nobody else says what became of our objects.
        let how = PatchParams::apply(MANAGER).force();
        match api.patch_status(&object.name, &how, &Patch::Apply(&body)).await {
            Ok(_) => {}
            // Deleted meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(format!("{object}: {error}")),
        }
        if let Some(note) = refused {
            let event = Event {
                type_: EventType::Warning,
                reason: "Refused".to_owned(),
                note: Some(note),
                action: "Judge".to_owned(),
                secondary: None,
            };
            let regarding = ObjectReference {
                api_version: Some(kind.api_version.clone()),
                kind: Some(kind.kind.clone()),
                name: Some(object.name.clone()),
                namespace: object.namespace.clone(),
                uid: Some(uid),
                ..ObjectReference::default()
            };
            // The status says it already; an event is for those who watch events.
            if let Err(error) = recorder.publish(&event, &regarding).await {
                return Err(format!("{object}: an event: {error}"));
            }
        }
        Ok(())
    }
}

/// The statuses of these objects that are not as they should be. `now`: RFC 3339.
fn due(objects: &[(String, Arc<RuleObject>)], looked: &mut Looked, view: &View<'_>, now: &str) -> Vec<Write> {
    let write = |(path, live): &(String, Arc<RuleObject>)| {
        // Of a form that was not judged yet there is nothing to say.
        if view.judged.loaded.files.get(path).map(String::as_str) != Some(&live.text)
            || looked.is_right(path, || ObjectPath::parse(path), live, view)
        {
            return None;
        }
        let object = ObjectPath::parse(path)?;
        let (conditions, enforced) = conditions(path, &object, live, view);
        let Some(status) = changed(live, &conditions, enforced, now) else {
            looked.found_right(path, &object, live, view);
            return None;
        };
        looked.found_wrong(path);
        let refused = refusal(live, &conditions);
        Some(Write { object, uid: live.uid.clone(), status, refused })
    };
    objects.iter().filter_map(write).collect()
}

/// What an event says, if the object is refused for another reason than its status says.
fn refusal(live: &RuleObject, conditions: &[Condition]) -> Option<String> {
    let refused =
        conditions.iter().find(|condition| condition.kind == "Accepted" && condition.status == "False")?;
    let is_known = live.conditions().any(|known| {
        known["type"] == "Accepted"
            && known["status"] == "False"
            && known["message"] == refused.message.as_str()
    });
    let mut note = refused.message.clone();
    if note.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        note.truncate(end);
    }
    (!is_known).then_some(note)
}

/// Proxies that have had no stream for longer than connecting takes.
fn unreachable(
    proxies: &BTreeMap<WorkloadId, Proxies>,
    silent: &mut BTreeMap<(WorkloadId, String), Instant>,
) -> BTreeSet<(WorkloadId, String)> {
    let now = Instant::now();
    let is_silent = |(id, pod): &(WorkloadId, String)| {
        proxies.get(id).is_some_and(|proxies| proxies.silent.contains(pod))
    };
    silent.retain(|key, _| is_silent(key));
    for (id, proxies) in proxies {
        for pod in &proxies.silent {
            silent.entry((id.clone(), pod.clone())).or_insert(now);
        }
    }
    silent.iter().filter(|(_, since)| **since + CONNECTS <= now).map(|(key, _)| key.clone()).collect()
}

async fn changed_if_any(fence: &mut Option<watch::Receiver<Arc<FenceView>>>) {
    let is_alive = match fence {
        Some(fence) => fence.changed().await.is_ok(),
        None => false,
    };
    if !is_alive {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
