//! Directories: which machines and pods belong to a job or a pipeline.
//!
//! No token names a Dataflow job or a Tekton pipeline; tokens name a machine or a pod. Rules that name the former compile
//! to "the id is listed in this directory", and here the lists are kept: only those that rules name, read every few
//! seconds, at once when a filter asks for an id that is not listed ([`Index::refreshed`]), and from a file where nothing
//! can be read.
//!
//! INVARIANT: a list is one whole answer of its source, or it is not taken: what is missing from it would be let past a
//! Deny. A list counts from when its reading began; when the source fails it stays as it is and runs out, which makes
//! every answer about it unknown. No credential is ever part of an error, a log line or a report.

mod credentials;
mod follow;
mod google;
mod http;
mod index;
mod kubernetes;
mod pace;
mod runs;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidegate_compiler::DirectoryQuery;

pub use follow::{Sources, keep, restore};
pub use http::SourceError;
pub use index::{Index, Looked};

/// Ids.
pub type Ids = BTreeSet<String>;

/// What there is to be known, by name of the directory.
pub type Queries = BTreeMap<String, DirectoryQuery>;

/// Every directory, as it is to be pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directories {
    /// By name. Whatever is missing is not known.
    pub listings: BTreeMap<String, Listing>,
    /// What this is the answer to.
    pub queries: Arc<Queries>,
    /// Directories that were never read and still may be.
    pub pending: BTreeSet<String>,
}

/// A directory, as it is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// All of them.
    pub ids: Arc<Ids>,
    /// Unix seconds; afterwards every answer is unknown. `None`: it is written in a file, and counts as long as that.
    pub fresh_until: Option<i64>,
}

/// What is known of a directory, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryReport {
    /// As in the directory section.
    pub name: String,
    /// `google`, `kubernetes` or `file`.
    pub source: &'static str,
    /// How many ids it lists.
    pub ids: usize,
    /// Unix seconds at which the last good reading began; absent when there was none, and for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at: Option<i64>,
    /// Unix seconds until which it counts where it was pushed; absent when there was no good reading, and for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_until: Option<i64>,
    /// Whether every answer about it is unknown.
    pub stale: bool,
    /// Why the last reading failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where directories are read, and how long they count.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often a directory is read.
    pub every: Duration,
    /// How long a reading counts.
    pub fresh_for: Duration,
    /// For the workers of Dataflow jobs.
    pub google: GoogleOptions,
    /// For the pods of Tekton pipelines and tasks.
    pub clusters: Vec<ClusterOptions>,
}

/// Where Google's APIs are. Credentials are sent there, so only over https, or to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleOptions {
    /// The Dataflow API, without `/v1b3`.
    pub dataflow: String,
    /// The Compute Engine API, without `/compute/v1`.
    pub compute: String,
    /// The metadata server, which gives credentials.
    pub metadata: String,
}

/// The Kubernetes API of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The TrustedIssuer of the cluster's tokens.
    pub issuer: String,
    /// `None`: the cluster that the server runs in, with what every pod has.
    pub api: Option<ApiOptions>,
}

/// A Kubernetes API that is reached from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiOptions {
    /// Its address.
    pub url: String,
    /// File with the bearer token; read for every request, so that it may be replaced.
    pub token: Option<PathBuf>,
    /// PEM file with the authorities that its certificate may have; without it the system's count.
    pub ca: Option<PathBuf>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(15),
            fresh_for: Duration::from_secs(120),
            google: GoogleOptions::default(),
            clusters: Vec::new(),
        }
    }
}

// === impl GoogleOptions ===

impl Default for GoogleOptions {
    fn default() -> Self {
        Self {
            dataflow: "https://dataflow.googleapis.com".to_owned(),
            compute: "https://compute.googleapis.com".to_owned(),
            metadata: "http://metadata.google.internal".to_owned(),
        }
    }
}
