//! The filter module over HTTP, for installations without a registry.
//!
//! Proxies fetch it before they have any filter, by their agent, outside the mesh: so it has a port of its own, without mTLS,
//! and nothing else is there. A module is public, and whoever asks for it knows its SHA-256 from an Istio object and checks
//! it.
//!
//! INVARIANT: what is answered under a digest has that digest.

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use crate::bundle::{hex, sha256};
use crate::push::stopped;
use crate::state::{StateDir, StateError};
use crate::transport::Acceptor;
use crate::{FILTER_BODIES_SHA256, FILTER_BODIES_WASM, FILTER_SHA256, FILTER_WASM};

const FILE: &str = "modules.json";

/// The modules that are served, by digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modules(BTreeMap<String, Bytes>);

/// Digests of the builds of this version, and of those of the version before: proxies whose objects are not rewritten yet
/// fetch these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    current: BTreeSet<String>,
    previous: BTreeSet<String>,
}

/// Where a module is.
pub fn path(digest: &str) -> String {
    format!("/module/sha256/{digest}.wasm")
}

/// Serves until told to stop.
///
/// # Errors
/// When connections cannot be accepted any more.
pub(crate) async fn serve(
    modules: Modules,
    acceptor: Acceptor,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new().route("/module/sha256/{file}", get(module)).with_state(Arc::new(modules));
    axum::serve(acceptor, router)
        .with_graceful_shutdown(async move { stopped(&mut stop).await })
        .into_future()
        .await
}

async fn module(State(modules): State<Arc<Modules>>, Path(file): Path<String>) -> Response {
    let found = file.strip_suffix(".wasm").and_then(|digest| Some((digest, modules.0.get(digest)?)));
    let Some((digest, content)) = found else {
        return (StatusCode::NOT_FOUND, "no such module\n").into_response();
    };
    let mut response = content.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        headers.insert(header::ETAG, tag);
    }
    response
}

// === impl Modules ===

impl Modules {
    /// The modules of this binary, and those that the binary before it had. Writes down the former.
    ///
    /// # Errors
    /// When the state folder cannot be read or written.
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        let own = [(FILTER_SHA256, FILTER_WASM), (FILTER_BODIES_SHA256, FILTER_BODIES_WASM)];
        Self::open_with(
            state,
            own.map(|(digest, content)| (digest.to_owned(), Bytes::from_static(content))).into(),
        )
    }

    fn open_with(state: &StateDir, own: BTreeMap<String, Bytes>) -> Result<Self, StateError> {
        let digests: BTreeSet<String> = own.keys().cloned().collect();
        let before: Record = state.read_json(FILE)?.unwrap_or_default();
        let record = if before.current == digests {
            before.clone()
        } else {
            // Back to the version before: the one in between is the previous one now.
            Record { current: digests.clone(), previous: before.current.clone() }
        };
        let mut modules = own;
        for digest in &record.previous {
            if modules.contains_key(digest) {
                continue;
            }
            match state.read(&file(digest))? {
                Some(content) if hex(&sha256(&content)) == *digest => {
                    modules.insert(digest.clone(), content.into());
                }
                found => {
                    let state = if found.is_some() { "damaged" } else { "missing" };
                    warn!("the previous filter module {digest} is {state}: it is not served");
                }
            }
        }
        if record != before {
            for digest in &digests {
                if let Some(content) = modules.get(digest) {
                    state.write(&file(digest), content)?;
                }
            }
            // In this order: a crash leaves a file too many, never a record without its file.
            state.write_json(FILE, &record)?;
            for digest in before.previous.iter().chain(&before.current) {
                if !record.current.contains(digest) && !record.previous.contains(digest) {
                    state.remove(&file(digest))?;
                }
            }
        }
        Ok(Self(modules))
    }

    /// Their digests.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn file(digest: &str) -> String {
    format!("module-{digest}.wasm")
}

#[cfg(test)]
mod tests;
