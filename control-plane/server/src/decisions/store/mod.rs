//! Recent decisions on disk: written by one thread, read by whoever asks, bounded by size and age. Who writes most does not push
//! out what is precious of others (`carry`).
//!
//! INVARIANT: a damaged file is set aside and everything else goes on. Nothing here stops the server once it runs.

mod carry;
mod keeper;
mod owed;
mod segment;
mod tally;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tracing::error;

use super::filter::Filter;
use super::metrics::DecisionMetrics;
use super::record::{Entry, Moment};
use crate::metrics::ReasonLabel;
use crate::state::{StateDir, StateError};

pub use keeper::Keeper;
pub use segment::{Segment, SegmentError};

/// How the store is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All of its files together, in bytes.
    pub max_size: u64,
    /// Nothing is kept for longer.
    pub max_age: Duration,
}

/// The smallest store that holds anything, in bytes: a new file takes a megabyte and a half.
pub const MIN_SIZE: u64 = 16 << 20;
/// How many files there are, roughly: at most so much is removed at once.
const FILES: u32 = 8;
/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What damaged files are called.
const DAMAGED: &str = "damaged";

/// The store.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    limits: Limits,
    metrics: DecisionMetrics,
    /// The last is the one that is written.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Files from before that still have to be looked at.
    unread: RwLock<Vec<PathBuf>>,
    /// One process at a time.
    _lock: StateDir,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Found {
    /// The latest first, with their numbers.
    pub entries: Vec<(u64, Entry)>,
    /// There may be more before this number.
    pub more: Option<u64>,
    /// It took too long; what is before `more` was not looked at.
    pub cut: bool,
    /// Something that is there could not be read.
    pub failed: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_size: 512 << 20, max_age: Duration::from_secs(14 * 24 * 3_600) }
    }
}

// === impl Store ===

impl Store {
    /// Opens a folder, for its owner only. Files that are there are read by the [`Keeper`].
    ///
    /// # Errors
    /// When the folder cannot be made or read, or another process uses it.
    pub fn open(folder: &Path, limits: Limits, metrics: DecisionMetrics) -> Result<Self, StateError> {
        let lock = StateDir::open(folder)?;
        make_private(folder).map_err(|source| StateError::Io {
            action: "make private",
            path: folder.to_owned(),
            source,
        })?;
        let listed = files(folder).map_err(|source| StateError::Io {
            action: "read",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            limits,
            metrics,
            segments: RwLock::default(),
            unread: RwLock::new(listed),
            _lock: lock,
        })
    }

    fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The latest entries before this number that the filter takes. Blocking.
    pub fn find(&self, filter: &Filter, before: u64, most: usize) -> Found {
        let (terms, rare) = (filter.terms(), filter.rare_terms());
        let until = filter.until.unwrap_or(Moment(i64::MAX));
        // What is due to be removed is not shown any more.
        let oldest = Moment(Moment::now().0.saturating_sub(micros(self.limits.max_age)));
        let since = filter.since.unwrap_or(oldest).max(oldest);
        let started = Instant::now();
        let mut found = Found::default();
        for segment in self.segments().iter().rev() {
            let failed = |error: SegmentError| {
                self.metrics.store_errors.get_or_create(&ReasonLabel::new(error.word())).inc();
                error!("the store of decisions: `{}` cannot be read: {error}", segment.path().display());
            };
            let blocks = match segment.blocks(&terms, &rare, before) {
                Ok(blocks) => blocks,
                Err(error) => {
                    found.failed = true;
                    failed(error);
                    continue;
                }
            };
            for first in blocks {
                let entries = match segment.block(first, since, until) {
                    Ok(entries) => entries,
                    Err(error) => {
                        found.failed = true;
                        failed(error);
                        continue;
                    }
                };
                for (number, entry) in entries.into_iter().rev() {
                    if number >= before || entry.time() < oldest || !filter.takes(&entry) {
                        continue;
                    }
                    found.entries.push((number, entry));
                    if found.entries.len() == most {
                        found.more = Some(number);
                        return found;
                    }
                }
                if started.elapsed() > PATIENCE {
                    found.more = Some(first);
                    found.cut = true;
                    return found;
                }
            }
        }
        found
    }

    /// Whether files from before are still being read.
    pub fn is_catching_up(&self) -> bool {
        !self.unread.read().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Files of the store, the oldest first. Their names are numbers of one length.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "redb") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(unix)]
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
