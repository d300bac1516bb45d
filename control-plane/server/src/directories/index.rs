//! Everything that is known about directories, and who waits for more.
//!
//! Pure but for the lock and the announcements: every change carries its time.
//!
//! INVARIANT: what is on offer changes when ids do, and otherwise only when a directory's end comes near, so that reading
//! every few seconds does not mean signing and pushing every few seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_compiler::DirectoryQuery;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Directories, DirectoryReport, Ids, Listing, Queries};
use crate::bucket::{SharedBucket, TokenBucket};

/// How often a directory is read because filters of one workload ask, beside the regular readings: machines of a growing job
/// start within seconds of each other, and one reading brings all that are there by then.
const ASKED_BURST: u32 = 4;
const ASKED_EVERY: Duration = Duration::from_secs(3);
/// The same for all workloads together: so many at least have to do their worst before the others wait.
const ALL_ASKED_BURST: u32 = 4 * ASKED_BURST;
const ALL_ASKED_EVERY: Duration = Duration::from_millis(750);

/// The index of directories.
#[derive(Debug)]
pub struct Index {
    fresh_for_s: i64,
    state: Mutex<State>,
    offered: watch::Sender<Arc<Directories>>,
    /// Announces readings and demands.
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    file: BTreeMap<String, Arc<Ids>>,
    queries: Arc<Queries>,
    /// By name; for every query that the file does not answer.
    entries: BTreeMap<String, Entry>,
    /// From before the start.
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Entry {
    last: Option<Reading>,
    /// Until when the last reading counts where it was pushed. Unix seconds.
    offered_until: i64,
    error: Option<String>,
    /// Readings are numbered: the last that began, that ended, and that somebody wants.
    began: u64,
    ended: u64,
    wanted: u64,
    asked: SharedBucket,
}

/// A good reading.
#[derive(Debug, Clone)]
struct Reading {
    ids: Arc<Ids>,
    /// When it began. Unix seconds.
    at: i64,
}

/// A good reading, for the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    ids: Ids,
    /// When it began. Unix seconds.
    at: i64,
}

/// What became of the wish for an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// A reading lists it.
    Listed,
    /// A reading that began after the wish does not list it, or failed.
    Unlisted,
    /// Nothing was read: too many wishes.
    Throttled,
    /// There is nothing to read.
    Unknown,
}

// === impl Index ===

impl Index {
    /// Nothing is known yet. A reading counts for `fresh_for`.
    pub fn new(fresh_for: Duration) -> Self {
        Self {
            fresh_for_s: i64::try_from(fresh_for.as_secs()).unwrap_or(i64::MAX),
            state: Mutex::default(),
            offered: watch::Sender::default(),
            changes: watch::Sender::default(),
        }
    }

    /// What is on offer, now and from now on.
    pub fn offered(&self) -> watch::Receiver<Arc<Directories>> {
        self.offered.subscribe()
    }

    /// Takes what a file says. It stands for every directory in it, whatever could be read.
    pub fn set_file(&self, file: BTreeMap<String, Ids>) {
        self.change(|state| {
            state.file = file.into_iter().map(|(name, ids)| (name, Arc::new(ids))).collect();
            state.reconcile(self.fresh_for_s);
        });
    }

    /// Takes what rules name. Nothing else is read or kept.
    pub fn set_queries(&self, queries: Arc<Queries>) {
        self.change(|state| {
            state.queries = queries;
            state.reconcile(self.fresh_for_s);
        });
    }

    /// Takes readings from before the start. They count as long as they would have, and never as if they were still to
    /// come: the clock may have been set back. `now`: Unix seconds.
    pub(super) fn restore(&self, mut known: BTreeMap<String, Known>, now: i64) {
        for known in known.values_mut() {
            known.at = known.at.min(now);
        }
        self.lock().known = known;
    }

    /// Every good reading, to be restored.
    pub(super) fn known(&self) -> BTreeMap<String, Known> {
        let known = |last: &Reading| Known { ids: (*last.ids).clone(), at: last.at };
        let state = self.lock();
        let entries = state.entries.iter();
        entries.filter_map(|(name, entry)| Some((name.clone(), known(entry.last.as_ref()?)))).collect()
    }

    /// What is to be read.
    pub(super) fn followed(&self) -> Queries {
        let state = self.lock();
        let queries = state.queries.iter().filter(|(name, _)| state.entries.contains_key(*name));
        queries.map(|(name, query)| (name.clone(), query.clone())).collect()
    }

    /// A reading begins. Returns its number.
    pub(super) fn begin(&self, name: &str) -> u64 {
        self.lock().entries.get_mut(name).map_or(0, |entry| {
            entry.began += 1;
            entry.began
        })
    }

    /// A reading that began at `at` (Unix seconds) ended.
    pub(super) fn end(&self, name: &str, reading: u64, result: Result<Ids, String>, at: i64) {
        self.change(|state| {
            if let Some(entry) = state.entries.get_mut(name) {
                entry.ended = reading.min(entry.began).max(entry.ended);
            }
            match result {
                Ok(ids) => state.take(name, Arc::new(ids), at, self.fresh_for_s),
                Err(error) => state.fail(name, error),
            }
        });
    }

    /// The ids were these at `at` (Unix seconds), as is known without a reading.
    pub(super) fn note(&self, name: &str, ids: &Arc<Ids>, at: i64) {
        self.change(|state| state.take(name, ids.clone(), at, self.fresh_for_s));
    }

    /// Nothing is heard any more, without a reading.
    pub(super) fn fail(&self, name: &str, error: String) {
        self.change(|state| state.fail(name, error));
    }

    /// Resolves when somebody wants a reading that has not begun.
    pub(super) async fn wanted(&self, name: &str) {
        let mut changes = self.changes.subscribe();
        loop {
            if self.lock().entries.get(name).is_some_and(|entry| entry.wanted > entry.began) {
                return;
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// Whether the directory lists the id, after it was read again if it does not and the workload has not asked too often. Not
    /// bounded in time.
    pub async fn refreshed(&self, workload: &str, name: &str, id: &str) -> Looked {
        let mut changes = self.changes.subscribe();
        let reading = match self.want(workload, name, id, Instant::now()) {
            Ok(reading) => reading,
            Err(looked) => return looked,
        };
        loop {
            if let Some(looked) = self.looked(name, id, reading) {
                return looked;
            }
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }

    /// What is known of every directory, for people. `now`: Unix seconds.
    pub fn report(&self, now: i64) -> Vec<DirectoryReport> {
        let state = self.lock();
        let file = state.file.iter().map(|(name, ids)| DirectoryReport {
            name: name.clone(),
            source: "file",
            ids: ids.len(),
            read_at: None,
            fresh_until: None,
            stale: false,
            error: None,
        });
        let read = state.entries.iter().map(|(name, entry)| DirectoryReport {
            name: name.clone(),
            source: match state.queries.get(name) {
                Some(DirectoryQuery::TektonRun { .. }) => "kubernetes",
                Some(DirectoryQuery::DataflowJob { .. }) | None => "google",
            },
            ids: entry.last.as_ref().map_or(0, |last| last.ids.len()),
            read_at: entry.last.as_ref().map(|last| last.at),
            fresh_until: entry.last.as_ref().map(|_| entry.offered_until),
            stale: entry.last.is_none() || now > entry.offered_until,
            error: entry.error.clone(),
        });
        let mut all: Vec<_> = file.chain(read).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The number of the reading that will answer whether the id is listed, or the answer.
    fn want(&self, workload: &str, name: &str, id: &str, now: Instant) -> Result<u64, Looked> {
        let mut state = self.lock();
        let entry = state.entries.get_mut(name).ok_or(Looked::Unknown)?;
        if entry.lists(id) {
            return Err(Looked::Listed);
        }
        // What began before the question may have missed what it is about.
        let next = entry.began + 1;
        if entry.wanted < next {
            if entry.asked.take(workload, now) {
                entry.wanted = next;
            } else if entry.ended < entry.began {
                // Better than nothing.
                return Ok(entry.began);
            } else {
                return Err(Looked::Throttled);
            }
        }
        drop(state);
        self.changes.send_replace(());
        Ok(next)
    }

    fn looked(&self, name: &str, id: &str, reading: u64) -> Option<Looked> {
        match self.lock().entries.get(name) {
            Some(entry) if entry.lists(id) => Some(Looked::Listed),
            Some(entry) if entry.ended < reading => None,
            Some(_) => Some(Looked::Unlisted),
            None => Some(Looked::Unknown),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        // Under the lock, so that an older state never follows a newer one.
        self.offered.send_if_modified(|offered| {
            let directories = state.directories();
            let is_changed = **offered != directories;
            if is_changed {
                *offered = Arc::new(directories);
            }
            is_changed
        });
        drop(state);
        self.changes.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Makes an entry for everything that is to be read, and for nothing else.
    fn reconcile(&mut self, fresh_for_s: i64) {
        let Self { file, queries, entries, known } = self;
        entries.retain(|name, _| queries.contains_key(name) && !file.contains_key(name));
        for name in queries.keys().filter(|name| !file.contains_key(*name)) {
            entries.entry(name.clone()).or_insert_with(|| Entry::new(known.remove(name), fresh_for_s));
        }
    }

    fn take(&mut self, name: &str, ids: Arc<Ids>, at: i64, fresh_for_s: i64) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.error = None;
        let is_changed = entry.last.as_ref().is_none_or(|last| last.ids != ids);
        let is_set_back = entry.last.as_ref().is_some_and(|last| at < last.at);
        entry.last = Some(Reading { ids, at });
        let remaining = entry.offered_until.saturating_sub(at);
        if is_set_back {
            // What was read before did not happen later than now.
            for entry in self.entries.values_mut() {
                if let Some(last) = &mut entry.last {
                    last.at = last.at.min(at);
                }
                entry.renew(fresh_for_s);
            }
        } else if is_changed {
            entry.renew(fresh_for_s);
        } else if remaining < fresh_for_s / 3 * 2 {
            // Renewed while more than half of its time is left. All at once: one push instead of one for each.
            for entry in self.entries.values_mut() {
                entry.renew(fresh_for_s);
            }
        }
    }

    fn fail(&mut self, name: &str, error: String) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.error = Some(error);
        }
    }

    fn directories(&self) -> Directories {
        let read = self.entries.iter().filter_map(|(name, entry)| {
            let ids = entry.last.as_ref()?.ids.clone();
            Some((name.clone(), Listing { ids, fresh_until: Some(entry.offered_until) }))
        });
        let file = self.file.iter();
        let file = file.map(|(name, ids)| (name.clone(), Listing { ids: ids.clone(), fresh_until: None }));
        let pending = self.entries.iter().filter(|(_, entry)| entry.last.is_none() && entry.ended == 0);
        let pending: BTreeSet<String> = pending.map(|(name, _)| name.clone()).collect();
        Directories { listings: read.chain(file).collect(), queries: self.queries.clone(), pending }
    }
}

// === impl Entry ===

impl Entry {
    fn new(known: Option<Known>, fresh_for_s: i64) -> Self {
        let mut entry = Self {
            last: known.map(|known| Reading { ids: Arc::new(known.ids), at: known.at }),
            offered_until: 0,
            error: None,
            began: 0,
            ended: 0,
            wanted: 0,
            asked: SharedBucket::new(
                TokenBucket::new(ALL_ASKED_BURST, ALL_ASKED_EVERY),
                TokenBucket::new(ASKED_BURST, ASKED_EVERY),
            ),
        };
        entry.renew(fresh_for_s);
        entry
    }

    fn lists(&self, id: &str) -> bool {
        self.last.as_ref().is_some_and(|last| last.ids.contains(id))
    }

    fn renew(&mut self, fresh_for_s: i64) {
        if let Some(last) = &self.last {
            self.offered_until = last.at.saturating_add(fresh_for_s);
        }
    }
}

#[cfg(test)]
mod tests;
