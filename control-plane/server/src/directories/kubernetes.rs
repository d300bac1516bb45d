//! The pods of Tekton pipelines and tasks.
//!
//! Tekton labels the pods of a run with the names of its pipeline and task. They are listed once and watched from there
//! (Kubernetes API concepts, "efficient detection of changes"); only metadata travels, and pods that have ended are left
//! out by the API server. Who may create pods in the namespace can label one so; the token's service account is what a
//! rule should demand besides.
//!
//! A watch is asked to end soon and is then taken up again: its end at about that time says that everything until then was
//! told, which is how a quiet API server and a lost one are told apart. An end long before says nothing.
//!
//! INVARIANT: after any gap the pods are listed anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tidegate_compiler::TektonKind;
use tokio::time::Instant;
use url::Url;

use super::credentials::sensitive;
use super::http::{ReadError, SourceError, base, below, client, get, json, roots_of, system_roots};
use super::{ClusterOptions, Ids};
use crate::decisions::pods::{PodRun, Pods as Runs};

/// What every pod has.
const POD_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// For one page.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much later than asked for a watch may end.
const LATE: Duration = Duration::from_secs(5);
/// Pods per page.
const PAGE: &str = "500";
const MAX_PAGES: usize = 200;
/// Most ids of one directory.
const MAX_IDS: usize = 20_000;
/// Longest event of a watch, in bytes. An object is at most 1.5 MiB in etcd.
const MAX_EVENT: usize = 2 << 20;
/// Pods that have ended send no requests.
const ALIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";
const LIST: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
const WATCH: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// The API of one cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The TrustedIssuer of its tokens.
    issuer: String,
    client: Client,
    url: Url,
    token: Option<PathBuf>,
}

/// The pods of one pipeline or task, or those of all runs.
pub(super) struct Pods {
    cluster: Arc<Cluster>,
    /// `None`: of every one.
    namespace: Option<String>,
    label: &'static str,
    /// `None`: whatever it is.
    value: Option<String>,
    /// Which run a pod is of is told here.
    runs: Arc<Runs>,
    ids: Arc<Ids>,
    /// What a watch goes on from.
    version: String,
    watch: Option<Watch>,
}

/// An open watch: a JSON document per line.
struct Watch {
    url: Url,
    opened: Instant,
    /// When it was asked to end, from then on.
    within: Duration,
    response: Response,
    received: Vec<u8>,
    /// Up to where there is no line break.
    searched: usize,
}

#[derive(Deserialize)]
struct PodList {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Pod {
    metadata: PodMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMeta {
    uid: String,
    namespace: String,
    resource_version: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// The object of a `BOOKMARK`.
#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
}

/// The object of an `ERROR`.
#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
    #[serde(default)]
    message: String,
}

// === impl Cluster ===

impl Cluster {
    pub(super) fn new(options: &ClusterOptions) -> Result<Self, SourceError> {
        match &options.api {
            Some(api) => {
                let roots = api.ca.as_deref().map_or_else(|| Ok(system_roots()), roots_of)?;
                let (issuer, client) = (options.issuer.clone(), client(roots)?);
                Ok(Self { issuer, client, url: base(&api.url)?, token: api.token.clone() })
            }
            None => {
                let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
                let (Some(host), Some(port)) =
                    (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
                else {
                    return Err(SourceError::NotInCluster { issuer: options.issuer.clone() });
                };
                Self::of_this_pod(&options.issuer, &host, &port, Path::new(POD_FOLDER))
            }
        }
    }

    fn of_this_pod(issuer: &str, host: &str, port: &str, folder: &Path) -> Result<Self, SourceError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Ok(Self {
            issuer: issuer.to_owned(),
            client: client(roots_of(&folder.join("ca.crt"))?)?,
            url: base(&format!("https://{host}:{port}"))?,
            token: Some(folder.join("token")),
        })
    }

    async fn get(&self, url: &Url, accept: HeaderValue, within: Duration) -> Result<Response, ReadError> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        if let Some(file) = &self.token {
            let failed = |why: &str| ReadError::Credentials(format!("`{}`: {why}", file.display()));
            let token = tokio::fs::read_to_string(file).await.map_err(|error| failed(&error.to_string()))?;
            let authorization = sensitive(token.trim()).ok_or_else(|| failed("not a bearer token"))?;
            headers.insert(AUTHORIZATION, authorization);
        }
        get(&self.client, url, headers, within).await
    }
}

// === impl Pods ===

impl Pods {
    /// Those of one pipeline or task.
    pub(super) fn new(
        cluster: Arc<Cluster>,
        (namespace, kind, name): (&str, TektonKind, &str),
        runs: Arc<Runs>,
    ) -> Self {
        let label = match kind {
            TektonKind::Pipeline => "tekton.dev/pipeline",
            TektonKind::Task => "tekton.dev/task",
        };
        let (namespace, value) = (Some(namespace.to_owned()), Some(name.to_owned()));
        Self { namespace, label, value, ..Self::of_runs(cluster, runs) }
    }

    /// Those of every run.
    pub(super) fn of_runs(cluster: Arc<Cluster>, runs: Arc<Runs>) -> Self {
        Self {
            cluster,
            namespace: None,
            label: "tekton.dev/taskRun",
            value: None,
            runs,
            ids: Arc::default(),
            version: String::new(),
            watch: None,
        }
    }

    /// As of the last answer.
    pub(super) fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// Lists them anew.
    pub(super) async fn list(&mut self) -> Result<Ids, ReadError> {
        self.watch = None;
        let mut ids = Ids::new();
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let mut query = vec![("limit", PAGE)];
            if !next.is_empty() {
                query.push(("continue", &next));
            }
            let url = self.url(&query);
            let response = self.cluster.get(&url, LIST, TIMEOUT).await?;
            if response.status() == StatusCode::GONE {
                return Err(ReadError::gone(&url));
            }
            let page: PodList = json(&url, response).await?;
            for pod in page.items {
                ids.insert(self.uid(&url, pod.metadata)?);
            }
            if ids.len() > MAX_IDS {
                return Err(ReadError::answer(&url, format_args!("more than {MAX_IDS} pods")));
            }
            if page.metadata.next.is_empty() {
                if page.metadata.resource_version.is_empty() {
                    return Err(ReadError::answer(
                        &url,
                        "a list without a `resourceVersion` cannot be watched",
                    ));
                }
                self.version = page.metadata.resource_version;
                self.ids = Arc::new(ids.clone());
                return Ok(ids);
            }
            next = page.metadata.next;
        }
        Err(ReadError::answer(&self.url(&[]), format_args!("more than {MAX_PAGES} pages")))
    }

    /// Waits for the next change, for at most as long as `within`. Afterwards [`Self::ids`] are as they are now. After an
    /// error, and when this is not awaited to its end, they have to be listed anew.
    pub(super) async fn changed(&mut self, within: Duration) -> Result<(), ReadError> {
        let mut watch = match self.watch.take() {
            Some(watch) => watch,
            None => self.open(within).await?,
        };
        while let Some(line) = watch.line().await? {
            let is_changed = self.apply(&watch.url, &line)?;
            if is_changed {
                self.watch = Some(watch);
                return Ok(());
            }
        }
        let lasted = watch.opened.elapsed();
        if lasted < watch.within / 2 {
            let (lasted, within) = (lasted.as_secs(), watch.within.as_secs());
            let why = format_args!("the watch ended after {lasted} s instead of {within} s");
            return Err(ReadError::answer(&watch.url, why));
        }
        Ok(())
    }

    async fn open(&self, within: Duration) -> Result<Watch, ReadError> {
        let within = Duration::from_secs(within.as_secs().max(1));
        let seconds = within.as_secs().to_string();
        let url = self.url(&[
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", &self.version),
            ("timeoutSeconds", &seconds),
        ]);
        let opened = Instant::now();
        let response = self.cluster.get(&url, WATCH, within + LATE).await?;
        match response.status() {
            StatusCode::OK => Ok(Watch { url, opened, within, response, received: Vec::new(), searched: 0 }),
            StatusCode::GONE => Err(ReadError::gone(&url)),
            _ => Err(ReadError::status(&url, response).await),
        }
    }

    /// Whether the event changed the ids.
    fn apply(&mut self, url: &Url, line: &[u8]) -> Result<bool, ReadError> {
        let invalid =
            |error: serde_json::Error| ReadError::answer(url, format_args!("not an event: {error}"));
        let Event { kind, object } = serde_json::from_slice(line).map_err(invalid)?;
        match kind.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let pod: Pod = serde_json::from_value(object).map_err(invalid)?;
                if let Some(version) = pod.metadata.resource_version.clone() {
                    self.version = version;
                }
                let is_deleted = kind == "DELETED";
                // The last state of one that is gone need not be what was asked for.
                let uid = if is_deleted { pod.metadata.uid } else { self.uid(url, pod.metadata)? };
                if is_deleted != self.ids.contains(&uid) {
                    return Ok(false);
                }
                let ids = Arc::make_mut(&mut self.ids);
                if is_deleted {
                    ids.remove(&uid);
                } else if ids.len() < MAX_IDS {
                    ids.insert(uid);
                } else {
                    return Err(ReadError::answer(url, format_args!("more than {MAX_IDS} pods")));
                }
                Ok(true)
            }
            "BOOKMARK" => {
                let bookmark: Bookmark = serde_json::from_value(object).map_err(invalid)?;
                self.version = bookmark.metadata.resource_version;
                Ok(false)
            }
            "ERROR" => {
                let status: Status = serde_json::from_value(object).map_err(invalid)?;
                if status.code == Some(StatusCode::GONE.as_u16()) {
                    return Err(ReadError::gone(url));
                }
                Err(ReadError::answer(url, format_args!("the watch ended: {}", status.message)))
            }
            kind => Err(ReadError::answer(url, format_args!("`{kind}` is not a kind of event"))),
        }
    }

    /// The id of a pod that is what was asked for.
    fn uid(&self, url: &Url, pod: PodMeta) -> Result<String, ReadError> {
        let is =
            |wanted: &Option<String>, value: &String| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let is_wanted = is(&self.namespace, &pod.namespace)
            && pod.labels.get(self.label).is_some_and(|value| is(&self.value, value));
        if !is_wanted || pod.uid.is_empty() {
            return Err(ReadError::answer(url, format_args!("pod `{}` was not asked for", pod.uid)));
        }
        if let Some(run) = PodRun::new(&pod.namespace, &pod.labels) {
            self.runs.see(&self.cluster.issuer, &pod.uid, run);
        }
        Ok(pod.uid)
    }

    fn url(&self, query: &[(&str, &str)]) -> Url {
        let namespace = self.namespace.as_deref().map(|name| ["namespaces", name]);
        let path = ["api", "v1"].into_iter().chain(namespace.into_iter().flatten()).chain(["pods"]);
        let path: Vec<&str> = path.collect();
        let selector = match &self.value {
            Some(value) => format!("{}={value}", self.label),
            None => self.label.to_owned(),
        };
        let selectors = [("labelSelector", selector.as_str()), ("fieldSelector", ALIVE)];
        let query: Vec<_> = selectors.into_iter().chain(query.iter().copied()).collect();
        below(&self.cluster.url, &path, &query)
    }
}

// === impl Watch ===

impl Watch {
    /// The next line; `None` when the watch ended in good order.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        loop {
            let rest = self.received.get(self.searched..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let after = self.received.split_off(self.searched + at + 1);
                let line = std::mem::replace(&mut self.received, after);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.received.len();
            if self.received.len() > MAX_EVENT {
                return Err(ReadError::answer(
                    &self.url,
                    format_args!("an event of more than {MAX_EVENT} bytes"),
                ));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.received.extend_from_slice(&chunk),
                Ok(None) if self.received.is_empty() => return Ok(None),
                Ok(None) => return Err(ReadError::answer(&self.url, "the watch ended within an event")),
                Err(error) => return Err(ReadError::transport(&self.url, &error)),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
