//! Makes changes, and remembers those that could not be made.
//!
//! INVARIANT: what failed is tried again after a pause, what is a conflict when something is another, and nothing in a loop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::lease::Leadership;
use super::owned::{Change, Key, Lives, Unwritten};

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How many writes are under way at once.
const AT_ONCE: usize = 16;

/// What could not be written.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// For which version of what is there.
    unwritten: BTreeMap<Key, (Option<String>, Change, Unwritten)>,
    /// When what failed is tried again.
    pub(super) retry_at: Option<Instant>,
}

// === impl Writes ===

impl Writes {
    /// Everything is another now: what was a conflict may be none.
    pub(super) fn forget(&mut self) {
        self.unwritten.clear();
    }

    /// Why an object is not as it should be, if that was tried.
    pub(super) fn why(&self, key: &Key) -> Option<&Unwritten> {
        self.unwritten.get(key).map(|(_, _, why)| why)
    }

    /// Makes those changes that are due, as long as this replica leads. `all`: everything that differs.
    pub(super) async fn make(
        &mut self,
        client: &Client,
        leadership: &watch::Receiver<Leadership>,
        live: &Lives,
        all: Vec<Change>,
    ) {
        self.retry_at = self.retry_at.filter(|time| *time > Instant::now());
        let version = |key: &Key| live.get(key).map(|live| live.version.clone());
        let due = |change: &Change| {
            let key = change.key();
            match self.unwritten.get(&key) {
                // A conflict stays one until something is another.
                Some((known, tried, Unwritten::Conflict(_))) => *known != version(&key) || tried != change,
                Some((_, _, Unwritten::Failed(_))) => self.retry_at.is_none(),
                None => true,
            }
        };
        // What is no longer wanted is no longer unwritten.
        let wanted: BTreeSet<Key> = all.iter().map(Change::key).collect();
        let due: Vec<Change> = all.into_iter().filter(due).collect();
        self.unwritten.retain(|key, _| wanted.contains(key));
        let (deleted, applied): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|change| matches!(change, Change::Delete { .. }));
        let (brought, demanded): (Vec<_>, Vec<_>) =
            applied.into_iter().partition(|change| change.key().brings_filters());
        // Filters are told before anything is demanded of them, and what takes another's place is there before that one goes.
        for batch in [brought, demanded, deleted] {
            let results: Vec<(Change, Result<(), Unwritten>)> = stream::iter(batch)
                .map(|change| async {
                    // The lease may have gone meanwhile.
                    leadership.borrow().epoch?;
                    let there = live.get(&change.key()).map(AsRef::as_ref);
                    let result = change.make(client, there).await;
                    Some((change, result))
                })
                .buffer_unordered(AT_ONCE)
                .filter_map(std::future::ready)
                .collect()
                .await;
            for (change, result) in results {
                let key = change.key();
                match result {
                    Ok(()) => {
                        info!("{key}: {}", change.word());
                        self.unwritten.remove(&key);
                    }
                    Err(why) => {
                        if self.unwritten.get(&key).is_none_or(|(_, _, known)| *known != why) {
                            warn!("{}", why.message());
                        }
                        if matches!(why, Unwritten::Failed(_)) {
                            self.retry_at = Some(Instant::now() + RETRY);
                        }
                        let version = version(&key);
                        self.unwritten.insert(key, (version, change, why));
                    }
                }
            }
        }
    }
}
