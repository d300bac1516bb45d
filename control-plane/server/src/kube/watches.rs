//! Keeps the index as the cluster is.
//!
//! INVARIANT: a watch never ends by itself: whatever goes wrong is tried again, later and later, up to a limit. Objects
//! travel as they are, so that one that is malformed is a finding about that object and not the end of the watch.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
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
/// After so many failures in a row a watch begins anew: within some seconds.
const ANEW_AFTER: u32 = 4;
/// Pods that have ended send and receive nothing.
const ALIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Later and later.
#[derive(Debug)]
struct Later(Duration);

// === impl Later ===

impl Later {
    fn new() -> Self {
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

/// The events of a watch.
///
/// Where it cannot go on from where it was, which the API server says in many ways (`storage is (re)initializing`, a version that
/// is in the future since its data was restored), it begins anew with a list.
pub(super) fn events(
    api: Api<DynamicObject>,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<DynamicObject>>> {
    let begin = move || watcher::watcher(api.clone(), config.clone()).backoff(Later::new()).boxed();
    let first = begin();
    stream::unfold((begin, first, 0_u32), |(begin, mut events, failures)| async move {
        let event = events.next().await?;
        let mut failures = match &event {
            Ok(_) | Err(watcher::Error::InitialListFailed(_)) => 0,
            Err(_) => failures.saturating_add(1),
        };
        if failures >= ANEW_AFTER {
            events = begin();
            failures = 0;
        }
        Some((event, (begin, events, failures)))
    })
    .boxed()
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
    let mut events = events(api, config);
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// What an API server says whose data was restored, or that is not ready: lists are answered, and watches from a later
    /// version than it has are not.
    fn refused() -> serde_json::Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429, "reason": "TooManyRequests",
            "message": "storage is (re)initializing", "metadata": {}, "details": {"retryAfterSeconds": 1},
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_go_on_begins_anew_with_a_list() {
        for is_event in [false, true] {
            let asked = Arc::<Mutex<Vec<String>>>::default();
            let seen = asked.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let query = request.uri().query().unwrap_or_default().to_owned();
                let mut asked = seen.lock().unwrap();
                let lists = asked.iter().filter(|query| !query.contains("watch=true")).count();
                let (status, body) = if !query.contains("watch=true") {
                    let version = if lists == 0 { "5000" } else { "7" };
                    let name = format!("pod-{lists}");
                    let item =
                        json!({"metadata": {"name": name, "namespace": "a", "resourceVersion": version}});
                    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": version}, "items": [item]});
                    (StatusCode::OK, list.to_string())
                } else if query.contains("resourceVersion=7") {
                    (StatusCode::OK, String::new())
                } else if is_event {
                    (StatusCode::OK, format!("{}\n", json!({"type": "ERROR", "object": refused()})))
                } else {
                    (StatusCode::TOO_MANY_REQUESTS, refused().to_string())
                };
                asked.push(query);
                let answer = Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap();
                async move { Ok::<_, Infallible>(answer) }
            });
            let api = Api::all_with(Client::new(service, "a"), &resource(Watched::Pods));
            let mut events = events(api, watcher::Config::default());
            let mut listed = Vec::new();
            while listed.len() < 2 {
                match tokio::time::timeout(Duration::from_secs(600), events.next()).await {
                    Ok(Some(Ok(Event::InitApply(object)))) => listed.extend(object.metadata.name),
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the watch ended"),
                    Err(_) => panic!("it is tried again and again: {:?}", asked.lock().unwrap()),
                }
            }
            assert_eq!(listed, ["pod-0", "pod-1"], "{is_event}");
            let tries =
                asked.lock().unwrap().iter().filter(|query| query.contains("resourceVersion=5000")).count();
            assert!((1..=12).contains(&tries), "{tries}");
        }
    }
}
