//! Keeps the directories that rules name up to date.
//!
//! INVARIANT: every directory is followed by one task, which ends only when nothing names the directory any more.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tidegate_compiler::DirectoryQuery;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{AbortHandle, JoinError, JoinSet, spawn_blocking};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::google::Google;
use super::http::{ReadError, SourceError};
use super::index::Known;
use super::kubernetes::{Cluster, Pods};
use super::pace::{Pace, jittered};
use super::{Directories, Ids, Index, Options, runs};
use crate::clock;
use crate::metrics::{DirectoryLabel, Metrics, ReasonLabel};
use crate::push::{Hub, stopped};
use crate::state::{StateDir, StateError};

const FILE: &str = "directories.json";
/// For a whole reading.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long pods are watched at most before they are listed anew, so that a watch that leaves something out does no lasting
/// harm.
const WATCHED_FOR: Duration = Duration::from_secs(300);
/// Most readings at a time, so that what they hold in memory is bounded.
const READINGS: usize = 8;

/// Where directories are read.
#[derive(Debug)]
pub struct Sources {
    google: Arc<Google>,
    /// By TrustedIssuer.
    pub(super) clusters: BTreeMap<String, Arc<Cluster>>,
    pub(super) every: Duration,
    pub(super) watched_for: Duration,
    readings: Semaphore,
}

/// Follows one directory.
struct Follower {
    hub: Arc<Hub>,
    sources: Arc<Sources>,
    name: String,
    pace: Pace,
    /// Of watches that end before their time, however good the lists between them are.
    watches: Pace,
    /// What was said last about why it cannot be read.
    said: Option<String>,
}

// === impl Sources ===

impl Sources {
    /// # Errors
    /// When one of them cannot be used as it is configured.
    pub fn new(options: &Options) -> Result<Self, SourceError> {
        if options.fresh_for < options.every * 4 {
            let (every, fresh_for) = (options.every.as_secs(), options.fresh_for.as_secs());
            return Err(SourceError::Stale { every, fresh_for });
        }
        let mut clusters = BTreeMap::new();
        for cluster in &options.clusters {
            let api = Arc::new(Cluster::new(cluster)?);
            if clusters.insert(cluster.issuer.clone(), api).is_some() {
                return Err(SourceError::Twice { issuer: cluster.issuer.clone() });
            }
        }
        let google = Arc::new(Google::new(&options.google)?);
        let readings = Semaphore::new(READINGS);
        Ok(Self { google, clusters, every: options.every, watched_for: WATCHED_FOR, readings })
    }
}

/// Takes up what was known before the start.
///
/// # Errors
/// When it cannot be read.
pub fn restore(index: &Index, state: &StateDir) -> Result<(), StateError> {
    if let Some(known) = state.read_json(FILE)? {
        index.restore(known, clock::now());
    }
    Ok(())
}

/// Keeps directories up to date until the server stops.
///
/// # Errors
/// When a task that follows one ends.
pub async fn keep(hub: Arc<Hub>, sources: Sources, state: Arc<StateDir>) -> Result<(), JoinError> {
    let sources = Arc::new(sources);
    let mut stop = hub.stopping();
    let mut offered = hub.directories.offered();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
    for (issuer, cluster) in &sources.clusters {
        tasks.spawn(runs::follow(hub.clone(), sources.clone(), issuer.clone(), cluster.clone()));
    }
    let mut shown = BTreeSet::new();
    let mut saved = BTreeMap::new();
    loop {
        let directories = offered.borrow_and_update().clone();
        let wanted = hub.directories.followed();
        running.retain(|name, task| {
            let is_wanted = wanted.contains_key(name);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for (name, query) in wanted {
            let (hub, sources) = (&hub, &sources);
            running.entry(name).or_insert_with_key(|name| {
                tasks.spawn(Follower::new(hub.clone(), sources.clone(), name.clone()).follow(query))
            });
        }
        show(&directories, &mut shown, &hub.metrics);
        saved = save(&state, hub.directories.known(), saved).await?;
        tokio::select! {
            _ = offered.changed() => {}
            Some(ended) = tasks.join_next() => match ended {
                Ok(never) => match never {},
                Err(error) if error.is_cancelled() => {}
                Err(error) => return Err(error),
            },
            () = stopped(&mut stop) => return Ok(()),
        }
    }
}

fn show(directories: &Directories, shown: &mut BTreeSet<String>, metrics: &Metrics) {
    let label = |name: &str| DirectoryLabel { directory: name.to_owned() };
    let queries = &directories.queries;
    for gone in shown.iter().filter(|name| !queries.contains_key(*name)) {
        metrics.directory_fresh_until.remove(&label(gone));
        metrics.directory_ids.remove(&label(gone));
    }
    *shown = queries.keys().cloned().collect();
    for name in queries.keys() {
        let listing = directories.listings.get(name);
        let ids = listing.map_or(0, |listing| listing.ids.len());
        let fresh_until = &metrics.directory_fresh_until;
        match listing.map(|listing| listing.fresh_until) {
            // What is written in a file has no end.
            Some(None) => _ = fresh_until.remove(&label(name)),
            until => _ = fresh_until.get_or_create(&label(name)).set(until.flatten().unwrap_or(0)),
        }
        metrics.directory_ids.get_or_create(&label(name)).set(i64::try_from(ids).unwrap_or(i64::MAX));
    }
}

/// Writes down what is known, for the next start. Returns what is written down.
async fn save(
    state: &Arc<StateDir>,
    known: BTreeMap<String, Known>,
    saved: BTreeMap<String, Known>,
) -> Result<BTreeMap<String, Known>, JoinError> {
    if known == saved {
        return Ok(saved);
    }
    let state = state.clone();
    spawn_blocking(move || match state.write_json(FILE, &known) {
        Ok(()) => known,
        Err(error) => {
            error!("directories are not written down for the next start: {error}");
            saved
        }
    })
    .await
}

// === impl Follower ===

impl Follower {
    fn new(hub: Arc<Hub>, sources: Arc<Sources>, name: String) -> Self {
        let [pace, watches] = [sources.every; 2].map(Pace::new);
        Self { hub, sources, name, pace, watches, said: None }
    }

    async fn follow(mut self, query: DirectoryQuery) -> Infallible {
        match query {
            DirectoryQuery::DataflowJob { project, region, name } => {
                self.follow_job(&project, &region, &name).await
            }
            DirectoryQuery::TektonRun { issuer, namespace, kind, name } => {
                match self.sources.clusters.get(&issuer).cloned() {
                    Some(cluster) => {
                        let runs = self.hub.decisions.pods().clone();
                        self.follow_pods(Pods::new(cluster, (&namespace, kind, &name), runs)).await
                    }
                    None => self.explain(&issuer).await,
                }
            }
        }
    }

    async fn follow_job(&mut self, project: &str, region: &str, name: &str) -> Infallible {
        let (google, sources) = (self.sources.google.clone(), self.sources.clone());
        loop {
            let permit = permission(&sources).await;
            let (reading, at) = self.begin();
            let result = in_time(google.workers(project, region, name)).await;
            let pause = self.end(reading, at, result);
            drop(permit);
            self.pause(pause).await;
        }
    }

    async fn follow_pods(&mut self, mut pods: Pods) -> Infallible {
        let sources = self.sources.clone();
        loop {
            let permit = permission(&sources).await;
            let (reading, at) = self.begin();
            let result = in_time(pods.list()).await;
            drop(permit);
            let is_listed = result.is_ok();
            let mut pause = self.end(reading, at, result);
            if is_listed {
                pause = self.watch(&mut pods).await;
            }
            self.pause(pause).await;
        }
    }

    /// Takes up changes until the pods have to be listed anew. Returns after what time.
    async fn watch(&mut self, pods: &mut Pods) -> Duration {
        let hub = self.hub.clone();
        let until = Instant::now() + jittered(self.sources.watched_for);
        loop {
            let changed = tokio::select! {
                changed = pods.changed(self.sources.every) => changed,
                () = hub.directories.wanted(&self.name) => return Duration::ZERO,
                () = tokio::time::sleep_until(until) => return Duration::ZERO,
            };
            match changed {
                Ok(()) => {
                    self.watches.after_success();
                    hub.directories.note(&self.name, pods.ids(), clock::now());
                }
                // Part of the protocol; should it be the answer always, this slows down all the same.
                Err(ReadError::Gone { .. }) => return self.watches.after_failure(),
                Err(error) => {
                    let error = error.to_string();
                    self.say(Some(&error));
                    hub.directories.fail(&self.name, error);
                    return self.watches.after_failure();
                }
            }
        }
    }

    async fn explain(&mut self, issuer: &str) -> Infallible {
        let why = format!(
            "nobody says where the Kubernetes API of issuer `{issuer}` is; start the server with `--tekton-cluster {issuer}`"
        );
        loop {
            let (reading, at) = self.begin();
            self.end(reading, at, Err(ReadError::NoSource(why.clone())));
            self.hub.directories.wanted(&self.name).await;
        }
    }

    fn begin(&self) -> (u64, i64) {
        (self.hub.directories.begin(&self.name), clock::now())
    }

    /// Returns after what time it is to be read again.
    fn end(&mut self, reading: u64, at: i64, result: Result<Ids, ReadError>) -> Duration {
        let label = if result.is_ok() { "ok" } else { "failed" };
        self.hub.metrics.directory_reads.get_or_create(&ReasonLabel::new(label)).inc();
        let result = result.map_err(|error| error.to_string());
        self.say(result.as_ref().err().map(String::as_str));
        let pause = if result.is_ok() { self.pace.after_success() } else { self.pace.after_failure() };
        // The clock may have been set back meanwhile.
        self.hub.directories.end(&self.name, reading, result, at.min(clock::now()));
        pause
    }

    /// Says when it cannot be read, for another reason than before, and when it can again.
    fn say(&mut self, error: Option<&str>) {
        let directory = &self.name;
        match error {
            Some(error) if self.said.as_deref() != Some(error) => {
                warn!(%directory, "cannot be read, what is known of it runs out: {error}");
            }
            None if self.said.is_some() => info!(%directory, "can be read again"),
            _ => {}
        }
        self.said = error.map(str::to_owned);
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.hub.directories.wanted(&self.name) => {}
        }
    }
}

/// `None` is never: the semaphore is not closed.
pub(super) async fn permission(sources: &Sources) -> Option<SemaphorePermit<'_>> {
    sources.readings.acquire().await.ok()
}

pub(super) async fn in_time<T>(reading: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    let result = tokio::time::timeout(TIMEOUT, reading).await;
    result.unwrap_or(Err(ReadError::Slow(TIMEOUT)))
}

#[cfg(test)]
mod tests;
