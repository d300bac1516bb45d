//! Servers on this machine that speak the same REST shapes as Google's and Kubernetes' APIs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, header};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

pub const JOB_LABEL: &str = "goog-dataflow-job-id";

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
}

pub type Answer = Response<Body>;

/// Answers every request with what `answer` says. Returns its address.
pub async fn serve(answer: impl Fn(&Asked) -> Answer + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(move |request: Request| {
        let url = url::Url::parse("http://host").unwrap().join(&request.uri().to_string()).unwrap();
        let headers = request.headers().iter();
        let asked = Asked {
            path: url.path().to_owned(),
            query: url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            headers: headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect(),
        };
        let answer = answer(&asked);
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

pub fn answer(status: u16, body: impl Into<Body>) -> Answer {
    Response::builder().status(status).body(body.into()).unwrap()
}

pub fn json_answer(value: &Value) -> Answer {
    answer(200, value.to_string())
}

/// Google's APIs and metadata server, all at one address.
#[derive(Clone)]
pub struct GoogleApi {
    pub url: String,
    state: Arc<Mutex<GoogleState>>,
}

pub struct GoogleState {
    pub jobs: Vec<Value>,
    /// With `zone`.
    pub instances: Vec<Value>,
    /// Entries per page.
    pub page: usize,
    /// How long tokens are said to live, in seconds.
    pub expires_in: u64,
    /// How many tokens were given out; the last one is accepted, unless:
    pub tokens: u32,
    pub refuses_tokens: bool,
    /// Answers instead of the usual ones, by beginning of the path.
    pub instead: BTreeMap<&'static str, (u16, String)>,
    pub asked: Vec<Asked>,
}

// === impl GoogleApi ===

impl GoogleApi {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(GoogleState {
            jobs: Vec::new(),
            instances: Vec::new(),
            page: 100,
            expires_in: 3_599,
            tokens: 0,
            refuses_tokens: false,
            instead: BTreeMap::new(),
            asked: Vec::new(),
        }));
        let shared = state.clone();
        let url = serve(move |asked| shared.lock().unwrap().answer(asked)).await;
        Self { url, state }
    }

    pub fn state(&self) -> MutexGuard<'_, GoogleState> {
        self.state.lock().unwrap()
    }

    /// How often a path that begins so was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.path.starts_with(path)).count()
    }
}

// === impl GoogleState ===

impl GoogleState {
    pub fn job(&mut self, id: &str, name: &str, state: &str) {
        self.jobs.push(json!({
            "id": id, "name": name, "projectId": "acme", "location": "europe-west4", "currentState": state,
            "type": "JOB_TYPE_STREAMING", "createTime": "2026-11-21T08:40:00Z",
        }));
    }

    pub fn instance(&mut self, id: &str, job: &str, status: &str) {
        self.instances.push(json!({
            "id": id, "name": format!("worker-{id}"), "status": status, "zone": "zones/europe-west4-b",
            "labels": {JOB_LABEL: job, "team": "data"},
        }));
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        self.asked.push(asked.clone());
        let instead = self.instead.iter().find(|(path, _)| asked.path.starts_with(**path));
        if let Some((_, (status, body))) = instead {
            return answer(*status, body.clone());
        }
        if asked.path == "/computeMetadata/v1/instance/service-accounts/default/token" {
            assert_eq!(asked.headers["metadata-flavor"], "Google");
            self.tokens += 1;
            let token = json!({
                "access_token": format!("secret-{}", self.tokens),
                "expires_in": self.expires_in,
                "token_type": "Bearer",
            });
            let mut answer = json_answer(&token);
            answer.headers_mut().insert("metadata-flavor", "Google".parse().unwrap());
            return answer;
        }
        let is_current =
            asked.headers.get("authorization") == Some(&format!("Bearer secret-{}", self.tokens));
        if self.refuses_tokens || !is_current {
            return answer(401, r#"{"error": {"code": 401, "message": "invalid credentials"}}"#);
        }
        let first: usize = asked.query.get("pageToken").map_or(0, |token| token.parse().unwrap());
        match asked.path.as_str() {
            "/v1b3/projects/acme/locations/europe-west4/jobs" => {
                assert_eq!(asked.query["filter"], "ACTIVE");
                let mut page =
                    json!({"jobs": self.jobs.iter().skip(first).take(self.page).collect::<Vec<_>>()});
                if first + self.page < self.jobs.len() {
                    page["nextPageToken"] = json!((first + self.page).to_string());
                }
                if self.jobs.is_empty() {
                    // "The response body is empty {}."
                    page = json!({});
                }
                json_answer(&page)
            }
            "/compute/v1/projects/acme/aggregated/instances" => {
                let (label, job) = asked.query["filter"].split_once('=').unwrap();
                assert_eq!(label, "labels.goog-dataflow-job-id");
                let found = self.instances.iter().filter(|instance| instance["labels"][JOB_LABEL] == job);
                let found: Vec<&Value> = found.collect();
                let mut items = json!({
                    "zones/us-central1-a": {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "none"}},
                });
                for instance in found.iter().skip(first).take(self.page) {
                    let zone = &mut items[instance["zone"].as_str().unwrap()]["instances"];
                    if zone.is_null() {
                        *zone = json!([]);
                    }
                    zone.as_array_mut().unwrap().push((*instance).clone());
                }
                let mut page = json!({"kind": "compute#instanceAggregatedList", "items": items});
                if first + self.page < found.len() {
                    page["nextPageToken"] = json!((first + self.page).to_string());
                }
                json_answer(&page)
            }
            _ => answer(404, r#"{"error": {"code": 404, "message": "no such thing"}}"#),
        }
    }
}

/// The Kubernetes API of a cluster.
#[derive(Clone)]
pub struct ClusterApi {
    pub url: String,
    state: Arc<Mutex<ClusterState>>,
}

#[derive(Default)]
pub struct ClusterState {
    pub pods: Vec<Value>,
    pub version: u64,
    /// Pods per page, whatever is asked for; 0: as asked for.
    pub page: usize,
    /// What the next watches bring: pieces of their bodies, and whether they end then.
    pub watches: VecDeque<(Vec<String>, bool)>,
    /// For how long watches that end are open.
    pub lasts: Duration,
    /// Brings what is sent to the next watch, which does not end.
    held: Option<UnboundedReceiver<String>>,
    /// The status and body of the next answers, if they are not to be the usual ones.
    pub instead: VecDeque<(u16, String)>,
    pub asked: Vec<Asked>,
    /// Whether pods of all namespaces may be seen. Where they may not, nobody counts that somebody asked.
    pub everywhere: bool,
}

pub fn pod(uid: &str, labels: &Value) -> Value {
    let metadata = json!({"name": format!("pod-{uid}"), "namespace": "ci", "uid": uid, "labels": labels});
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

pub fn event(kind: &str, version: u64, mut object: Value) -> String {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    format!("{}\n", json!({"type": kind, "object": object}))
}

// === impl ClusterApi ===

impl ClusterApi {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(ClusterState { version: 100, ..Default::default() }));
        let shared = state.clone();
        let url = serve(move |asked| shared.lock().unwrap().answer(asked)).await;
        Self { url, state }
    }

    pub fn state(&self) -> MutexGuard<'_, ClusterState> {
        self.state.lock().unwrap()
    }

    /// The next watch brings what is sent here.
    pub fn hold_watch(&self) -> UnboundedSender<String> {
        let (sender, receiver) = unbounded_channel();
        self.state().held = Some(receiver);
        sender
    }
}

// === impl ClusterState ===

impl ClusterState {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.path == "/api/v1/pods" && !self.everywhere {
            return answer(403, r#"{"kind": "Status", "message": "pods is forbidden"}"#);
        }
        self.asked.push(asked.clone());
        if let Some((status, body)) = self.instead.pop_front() {
            return answer(status, body);
        }
        if asked.query.contains_key("watch")
            && let Some(held) = self.held.take()
        {
            let lines =
                UnboundedReceiverStream::new(held).map(|line| Ok::<_, std::io::Error>(Bytes::from(line)));
            return answer(200, Body::from_stream(lines));
        }
        if asked.query.contains_key("watch") {
            let (pieces, ends) = self.watches.pop_front().unwrap_or((Vec::new(), false));
            let pieces = stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
            let end = stream::once(tokio::time::sleep(self.lasts)).map(|()| Ok(Bytes::new()));
            return match ends {
                true => answer(200, Body::from_stream(pieces.chain(end))),
                false => answer(200, Body::from_stream(pieces.chain(stream::pending()))),
            };
        }
        let first: usize = asked.query.get("continue").map_or(0, |token| token.parse().unwrap());
        let limit = if self.page == 0 { asked.query["limit"].parse().unwrap() } else { self.page };
        let items: Vec<_> = self.pods.iter().skip(first).take(limit).collect();
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if first + limit < self.pods.len() {
            metadata["continue"] = json!((first + limit).to_string());
        }
        let list = json!({"kind": "PartialObjectMetadataList", "metadata": metadata, "items": items});
        let mut answer = json_answer(&list);
        answer.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        answer
    }
}
