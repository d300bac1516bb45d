//! The one thread that writes the store: batches in, old files out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};

use super::segment::{Segment, SegmentError};
use super::{DAMAGED, FILES, Store, micros};
use crate::decisions::queue::{Batch, Queue};
use crate::decisions::record::{Entry, Gap, GapCause, Moment};
use crate::metrics::ReasonLabel;

/// How long entries wait for others that are written with them.
const TOGETHER: Duration = Duration::from_millis(200);
/// Most entries that are written together.
const MOST: usize = 4_096;
/// How often ages are looked at.
const PRUNE: Duration = Duration::from_secs(30);
/// How often a failure is told again.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Most damaged files that are kept for somebody to look at.
const MAX_DAMAGED: usize = 2;

/// Writes what is queued.
#[derive(Debug)]
pub struct Keeper {
    store: Arc<Store>,
    queue: Arc<Queue>,
    /// The number of the next entry.
    next: u64,
    /// The number of the next file.
    file: u64,
    pruned: Instant,
    told: Option<Instant>,
    /// Gaps of its own that still have to be written.
    gaps: Vec<Entry>,
}

// === impl Keeper ===

impl Keeper {
    /// For a store that was just opened.
    pub fn new(store: Arc<Store>, queue: Arc<Queue>) -> Self {
        let now = Instant::now();
        Self { store, queue, next: 0, file: 0, pruned: now, told: None, gaps: Vec::new() }
    }

    /// Runs until the queue is closed and everything in it is written. Blocking.
    pub fn run(mut self) {
        self.begin();
        loop {
            // Reading what was there before must not make what comes wait for long.
            let patience = if self.read_one() { Duration::ZERO } else { TOGETHER };
            let batch = self.queue.take(MOST, patience);
            let is_last = batch.is_last;
            self.write(batch);
            if self.pruned.elapsed() >= PRUNE {
                self.rotate();
                self.prune();
            }
            if is_last {
                return;
            }
        }
    }

    /// Goes on with the last file, where that is whole.
    fn begin(&mut self) {
        let last = self.unread(|files| files.pop());
        self.file = last.as_deref().and_then(number_of).map_or(1, |number| number.saturating_add(1));
        if let Some(path) = last {
            self.take_over(&path);
            self.next =
                self.store.segments().last().and_then(|one| one.next_number().ok().flatten()).unwrap_or(
                    // The numbers that a lost file had are not known; they are left out.
                    self.file << 32,
                );
        }
        self.prune();
    }

    fn unread<T>(&self, with: impl FnOnce(&mut Vec<PathBuf>) -> T) -> T {
        with(&mut self.store.unread.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, with: impl FnOnce(&mut Vec<Arc<Segment>>) -> T) -> T {
        with(&mut self.store.segments.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads one more of the files from before, the latest first; says whether there was one.
    fn read_one(&mut self) -> bool {
        let Some(path) = self.unread(|files| files.last().cloned()) else { return false };
        self.take_over(&path);
        self.unread(|files| files.pop());
        true
    }

    fn take_over(&mut self, path: &Path) {
        match Segment::open(path) {
            Ok(segment) => self.change(|all| {
                let at = all.partition_point(|one| one.path() < path);
                all.insert(at, Arc::new(segment));
            }),
            Err(error @ SegmentError::Damaged(_)) => self.set_aside(path, &error),
            Err(error) => {
                self.count(&error);
                error!("the store of decisions: `{}` is left out: {error}", path.display());
            }
        }
    }

    fn count(&self, error: &SegmentError) {
        self.store.metrics.store_errors.get_or_create(&ReasonLabel::new(error.word())).inc();
    }

    /// A damaged file is kept for somebody to look at, and not used any more.
    fn set_aside(&mut self, path: &Path, why: &SegmentError) {
        self.count(why);
        let aside = path.with_extension(format!("redb.{DAMAGED}"));
        let moved = std::fs::rename(path, &aside).or_else(|_| std::fs::remove_file(path));
        let where_to = match moved {
            Ok(()) => format!("it is set aside as `{}`", aside.display()),
            Err(error) => format!("it cannot be set aside either: {error}"),
        };
        error!(
            "the store of decisions: `{}`: {why}; {where_to}, its decisions cannot be asked for any more, everything else \
             goes on",
            path.display()
        );
        self.gaps.push(self.gap(GapCause::StoreDamaged, None, 0));
    }

    fn gap(&self, cause: GapCause, lost: Option<u64>, lost_in_full: u64) -> Entry {
        self.store.metrics.gaps.get_or_create(&ReasonLabel::new(cause.word())).inc();
        let (workload, instance) = (String::new(), String::new());
        Entry::Gap(Gap { time: Moment::now(), workload, instance, cause, lost, lost_in_full })
    }

    fn write(&mut self, batch: Batch) {
        let mut entries = batch.entries;
        let lost = batch.lost.in_full.saturating_add(batch.lost.other);
        if lost > 0 {
            entries.push(self.gap(GapCause::ControlPlaneDropped, Some(lost), batch.lost.in_full));
        }
        entries.append(&mut self.gaps);
        if entries.is_empty() {
            return;
        }
        let written = self.try_write(&entries).or_else(|error| {
            // Another file may work where this one does not.
            self.abandon(&error);
            self.try_write(&entries)
        });
        match written {
            Ok(()) => {
                let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
                self.next = self.next.saturating_add(count);
                self.store.metrics.stored.inc_by(count);
                self.told = None;
                self.rotate();
            }
            Err(error) => {
                self.count(&error);
                let (precious, other): (Vec<_>, Vec<_>) =
                    entries.iter().partition(|entry| entry.is_precious());
                let lost = |reason, count: usize| {
                    let lost = self.store.metrics.lost.get_or_create(&ReasonLabel::new(reason)).clone();
                    lost.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                };
                lost("in_full", precious.len());
                lost("other", other.len());
                if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    error!(
                        "the store of decisions in `{}`: nothing can be written: {error}; make room, or serve with \
                         `--decisions off`",
                        self.store.folder.display()
                    );
                    self.told = Some(Instant::now());
                }
                // Told once it works again.
                if self.gaps.is_empty() {
                    let (all, precious) = (entries.len(), precious.len());
                    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                    self.gaps.push(self.gap(
                        GapCause::ControlPlaneDropped,
                        Some(count(all)),
                        count(precious),
                    ));
                } else if let Some(Entry::Gap(gap)) = self.gaps.last_mut() {
                    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                    gap.lost = gap.lost.map(|lost| lost.saturating_add(count(other.len() + precious.len())));
                    gap.lost_in_full = gap.lost_in_full.saturating_add(count(precious.len()));
                }
                self.prune();
            }
        }
    }

    fn try_write(&mut self, entries: &[Entry]) -> Result<(), SegmentError> {
        let segment = match self.store.segments().last().filter(|one| self.is_newest(one)) {
            Some(segment) => segment.clone(),
            None => self.new_file()?,
        };
        segment.append(self.next, entries)
    }

    /// Whether a file is the one that is written.
    fn is_newest(&self, segment: &Segment) -> bool {
        number_of(segment.path()).is_some_and(|number| number.saturating_add(1) == self.file)
    }

    fn new_file(&mut self) -> Result<Arc<Segment>, SegmentError> {
        let path = self.store.folder.join(format!("{:012}.redb", self.file));
        let segment = Arc::new(Segment::create(&path, Moment::now())?);
        self.file = self.file.saturating_add(1);
        self.change(|all| all.push(segment.clone()));
        Ok(segment)
    }

    /// Gives up the file that is written: a new one is begun with the next batch.
    fn abandon(&mut self, why: &SegmentError) {
        let newest = self.store.segments().last().filter(|one| self.is_newest(one)).cloned();
        let Some(segment) = newest else { return };
        self.change(|all| all.pop());
        let path = segment.path().to_owned();
        if let Some(segment) = Arc::into_inner(segment) {
            segment.close();
        }
        match why {
            SegmentError::Damaged(_) => self.set_aside(&path, why),
            SegmentError::Unavailable(_) => {
                self.count(why);
                // What is in it can be read again, if it is whole.
                self.take_over(&path);
            }
        }
        // Whatever became of it, it is not written any more.
        self.file = self.file.max(number_of(&path).map_or(0, |number| number.saturating_add(2)));
    }

    /// Begins a new file when the one that is written is large or old.
    fn rotate(&mut self) {
        let Some(segment) = self.store.segments().last().filter(|one| self.is_newest(one)).cloned() else {
            return;
        };
        let age = Moment::now().0.saturating_sub(segment.created().0);
        let is_full = segment.size() >= self.store.limits.max_size / u64::from(FILES);
        if is_full || age >= micros(self.store.limits.max_age / FILES) {
            // The next batch begins it.
            self.file = self.file.saturating_add(1);
        }
        if is_full || self.pruned.elapsed() >= PRUNE {
            self.prune();
        }
    }

    /// Removes what is too old, and of the rest the oldest, until it is small enough for the last file to double.
    fn prune(&mut self) {
        self.pruned = Instant::now();
        let limits = self.store.limits;
        let oldest = Moment::now().0.saturating_sub(micros(limits.max_age));
        let damaged = self.prune_damaged(oldest);
        let unread: u64 = self.unread(|files| files.iter().map(|path| length(path)).sum());
        let removed = self.change(|all| {
            let mut removed = Vec::new();
            loop {
                let sizes = all.iter().map(|one| one.size());
                let reserve = limits.max_size / u64::from(FILES);
                let total = sizes.sum::<u64>() + damaged + unread + reserve;
                let is_due = |one: &Arc<Segment>| {
                    one.created().0 < oldest || (total > limits.max_size && all.len() > 1)
                };
                match all.first() {
                    Some(first) if is_due(first) => removed.push(all.remove(0)),
                    _ => return removed,
                }
            }
        });
        for segment in removed {
            info!("the store of decisions: `{}` is removed, it was due", segment.path().display());
            if let Err(error) = std::fs::remove_file(segment.path()) {
                warn!("the store of decisions: `{}` cannot be removed: {error}", segment.path().display());
            }
        }
        let segments = self.store.segments();
        let bytes: u64 = segments.iter().map(|one| one.size()).sum::<u64>() + damaged + unread;
        self.store.metrics.store_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.store.metrics.store_since.set(segments.first().map_or(0, |one| one.created().seconds()));
    }

    /// Removes damaged files that are too old or too many. Returns the bytes of the rest.
    fn prune_damaged(&self, oldest: i64) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.store.folder) else { return 0 };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == DAMAGED));
        files.sort();
        let too_many = files.len().saturating_sub(MAX_DAMAGED);
        let is_old = |path: &Path| {
            let modified = std::fs::metadata(path).and_then(|about| about.modified());
            let since = modified.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            since.is_some_and(|since| micros(since) < oldest)
        };
        let mut left = 0;
        for (position, path) in files.iter().enumerate() {
            if position < too_many || is_old(path) {
                // What cannot be removed is counted, and tried again.
                let _ = std::fs::remove_file(path);
            }
            left += length(path);
        }
        left
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

/// The number in a file's name.
fn number_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}
