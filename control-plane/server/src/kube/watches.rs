//! Keeps the index as the cluster is.
//!
//! INVARIANT: a watch never ends by itself: whatever goes wrong is tried again, later and later, up to a limit. Objects
//! travel as they are, so that one that is malformed is a finding about that object and not the end of the watch.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tracing::{info, warn};

use super::crds::{GROUP, VERSION, plural};
use super::index::{Index, Watched};
use super::owned;
use crate::push::{Hub, stopped};

/// How soon a watch that failed is tried again at first, and at most how late.
pub(super) const RETRY: Duration = Duration::from_millis(200);
const LATEST_RETRY: Duration = Duration::from_secs(5);
/// Pods that have ended send and receive nothing.
const ALIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Later and later.
#[derive(Debug)]
pub(super) struct Later(Duration);

// === impl Later ===

impl Later {
    pub(super) fn new() -> Self {
        Self(RETRY)
    }
}

impl Iterator for Later {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.0;
        self.0 = (now * 2).min(LATEST_RETRY);
        Some(now)
    }
}

impl Backoff for Later {
    fn reset(&mut self) {
        self.0 = RETRY;
    }
}

/// How a kind is addressed.
pub(super) fn resource(watched: Watched) -> ApiResource {
    match watched {
        Watched::Rules(kind) => {
            let kind_of = GroupVersionKind::gvk(GROUP, VERSION, kind.as_str());
            ApiResource::from_gvk_with_plural(&kind_of, &plural(kind))
        }
        Watched::Pods => ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods"),
        Watched::Namespaces => {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Namespace"), "namespaces")
        }
        Watched::Istio(kind) => {
            // Every one of them has an address.
            let unknown = || ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
            owned::resource(kind).unwrap_or_else(unknown)
        }
    }
}

/// Watches one kind until the server stops.
pub(crate) async fn follow(
    client: Client,
    watched: Watched,
    index: Arc<Index>,
    hub: Arc<Hub>,
) -> Result<(), std::convert::Infallible> {
    let mut stop = hub.stopping();
    let kind = resource(watched);
    let api: Api<DynamicObject> = Api::all_with(client, &kind);
    let mut config = watcher::Config::default();
    if watched == Watched::Pods {
        config = config.fields(ALIVE);
    }
    let mut events = pin!(watcher::watcher(api, config).backoff(Later::new()));
    let mut listed = Vec::new();
    let mut said = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stopped(&mut stop) => return Ok(()),
        };
        match event {
            // The stream of a watcher has no end.
            None => return Ok(()),
            Some(Ok(event)) => {
                if said.take().is_some() {
                    info!("{} are watched again", kind.plural);
                }
                match event {
                    Event::Init => listed = Vec::new(),
                    Event::InitApply(object) => listed.push(object),
                    Event::InitDone => index.replace(watched, std::mem::take(&mut listed)),
                    Event::Apply(object) => index.apply(watched, &object),
                    Event::Delete(object) => index.delete(watched, &object),
                }
            }
            Some(Err(error)) => {
                let error = explain(&kind, &error);
                // The same words once, however often it is tried.
                if said.as_ref() != Some(&error) {
                    warn!("{error}");
                    said = Some(error);
                }
            }
        }
    }
}

fn explain(kind: &ApiResource, error: &watcher::Error) -> String {
    let cause = match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => Some(cause),
        _ => None,
    };
    let name =
        if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) };
    match cause {
        Some(kube::Error::Api(status)) if status.code == 404 && kind.group == GROUP => format!(
            "`{name}` cannot be watched: the cluster does not know the kind; install it: `tidegate crds | kubectl apply -f -`"
        ),
        Some(kube::Error::Api(status)) if status.code == 404 && kind.group.ends_with("istio.io") => format!(
            "`{name}` cannot be watched: the cluster does not know the kind; install Istio, or serve with `--istio none`"
        ),
        Some(kube::Error::Api(status)) => format!("`{name}` cannot be watched: {}", status.message),
        _ => format!("`{name}` cannot be watched for now: {error}"),
    }
}
