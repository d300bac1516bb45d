//! A small fake of the Kubernetes API server, over plain HTTP on loopback.
//!
//! What a controller meets: resource versions, lists in pages, watches with bookmarks and `410 Gone`, server-side apply
//! with an owner per leaf field and atomic lists, conflicts, the status subresource, optimistic concurrency, generations,
//! custom resources. No schemas, no access control, no finalizers, no garbage collection. Where it differs otherwise from
//! the real one, that is a defect of this module.

mod discovery;
mod fields;
mod http;
mod store;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Method;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use store::{Change, Store};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `GET`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Whether it opened a watch.
    pub is_watch: bool,
    /// `User-Agent`.
    pub agent: String,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    changed: watch::Sender<u64>,
    calls: Mutex<Vec<Call>>,
    /// Methods (empty: all) and the part of a path that fail, and how.
    failing: Mutex<Vec<(String, String, u16)>>,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct KubeApi {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Option<tokio::task::JoinHandle<()>>,
}

// === impl Shared ===

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        let version = self.store().version;
        self.changed.send_replace(version);
    }

    fn failure(&self, method: &Method, path: &str) -> Option<u16> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing
            .iter()
            .find(|(methods, part, _)| {
                (methods.is_empty() || methods == method.as_str()) && path.contains(part)
            })
            .map(|(_, _, code)| *code)
    }
}

// === impl KubeApi ===

impl KubeApi {
    /// Starts an empty cluster.
    pub async fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            changed: watch::Sender::new(0),
            calls: Mutex::default(),
            failing: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let serving = Some(tokio::spawn(accept(shared.clone(), listener)));
        Ok(Self { shared, address, serving })
    }

    /// Where it is, e.g. `http://127.0.0.1:12345`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes what clients need to find it.
    pub fn write_kubeconfig(&self, file: &Path) -> std::io::Result<()> {
        std::fs::write(file, kubeconfig(&self.url()))
    }

    /// What was asked since the last call of this.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls())
    }

    /// From now on, requests with this method (empty: any) whose path has this part fail with this code.
    pub fn fail(&self, method: &str, part: &str, code: u16) {
        self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner).push((
            method.into(),
            part.into(),
            code,
        ));
    }

    /// Nothing is told to fail any more.
    pub fn mend(&self) {
        self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// History is forgotten: watches that go on from before must list again.
    pub fn compact(&self) {
        let mut store = self.shared.store();
        store.version += 1;
        store.compacted = store.version;
        store.log.clear();
    }

    /// Nobody reaches it any more; open connections break.
    pub async fn cut_off(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // An error is the abort.
            let _ = serving.await;
        }
    }

    /// It is reached again, at the same address, with everything that it knew.
    pub async fn come_back(&mut self) -> std::io::Result<()> {
        self.cut_off().await;
        let listener = TcpListener::bind(self.address).await?;
        self.serving = Some(tokio::spawn(accept(self.shared.clone(), listener)));
        Ok(())
    }

    /// What `kubectl apply --server-side --force-conflicts` does; an error says why not.
    pub fn apply(&self, object: &Value) -> Result<Value, String> {
        let mut store = self.shared.store();
        let (resource, version, key) = store.address(object).ok_or("there is no such kind")?;
        let change = Change::Apply { config: object, force: true };
        let applied = store.change(&resource, &version, &key, "", &change, "kubectl");
        drop(store);
        self.shared.announce();
        applied.map_err(|refused| refused.message)
    }

    /// What `kubectl delete` does; an error says why not.
    pub fn delete(&self, object: &Value) -> Result<(), String> {
        let mut store = self.shared.store();
        let (resource, _, key) = store.address(object).ok_or("there is no such kind")?;
        let deleted = store.delete(&resource, &key, &Value::Null);
        drop(store);
        self.shared.announce();
        deleted.map(drop).map_err(|refused| refused.message)
    }

    /// Every object of a kind, by its plural and group (`accessrules.tidegate.dev`).
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let store = self.shared.store();
        store
            .objects
            .iter()
            .filter(|(key, _)| key.0 == group && key.1 == plural)
            .map(|(_, stored)| stored.object.clone())
            .collect()
    }
}

impl Drop for KubeApi {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// A file that names one cluster at `url`.
pub fn kubeconfig(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"{url}\"}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\nusers: [{{name: test, user: {{}}}}]\n"
    )
}

/// Ends with all of its connections when it is aborted.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let shared = shared.clone();
                let service = service_fn(move |request| http::answer(shared.clone(), request));
                connections.spawn(async move {
                    // An error is a client that went away.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
