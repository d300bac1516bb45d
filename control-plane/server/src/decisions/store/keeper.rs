//! The one thread that writes the store: batches in, old files out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};

use super::carry::Carry;
use super::owed::Owed;
use super::segment::{Segment, SegmentError};
use super::{DAMAGED, FILES, Store, micros};
use crate::decisions::queue::{Batch, Lost, LostByWorkload, Queue};
use crate::decisions::record::{Entry, GapCause, Moment};
use crate::decisions::slip::Ticket;
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
    owed: Owed,
    /// What moves on before the oldest file is removed.
    carry: Option<Carry>,
    carried: Option<Carried>,
}

/// A file of which everything has moved that is to.
#[derive(Debug)]
struct Carried {
    path: PathBuf,
    /// By workload, how many precious ones go with it.
    lost: BTreeMap<String, u64>,
}

/// What is to be done about the oldest file.
enum Due {
    Nothing,
    /// It is to be removed: it is too old.
    Old(Arc<Segment>),
    /// It is to be removed: there is no room for it.
    Large(Arc<Segment>),
    /// There is hardly any room left: what is to outlive it moves to the next one.
    Soon(Arc<Segment>, Arc<Segment>),
    /// The same, and nothing is written before.
    Now(Arc<Segment>, Arc<Segment>),
}

// === impl Keeper ===

impl Keeper {
    /// For a store that was just opened.
    pub fn new(store: Arc<Store>, queue: Arc<Queue>) -> Self {
        let now = Instant::now();
        Self {
            owed: Owed::new(store.metrics.clone()),
            store,
            queue,
            next: 0,
            file: 0,
            pruned: now,
            told: None,
            carry: None,
            carried: None,
        }
    }

    /// Runs until the queue is closed and everything in it is written. Blocking.
    pub fn run(mut self) {
        self.begin();
        loop {
            // Reading what was there before must not make what comes wait for long.
            let patience = if self.read_one() || self.carry_some() { Duration::ZERO } else { TOGETHER };
            let batch = self.queue.take(MOST, patience);
            let is_last = batch.is_last;
            self.write(batch);
            if self.pruned.elapsed() >= PRUNE {
                self.rotate();
                self.prune();
                self.expire();
            }
            if is_last {
                // What has just been found to be missing.
                self.write(Batch::default());
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
        self.owed.add_unknown(GapCause::StoreDamaged);
    }

    /// Writes what is to be told of gaps. What cannot be written now goes with the next batch.
    fn write_gaps(&mut self) {
        let owed = self.owed.entries();
        if !owed.is_empty() && self.try_write(&owed).is_ok() {
            self.wrote(owed.len());
            self.owed.written(owed.len());
        }
    }

    fn wrote(&mut self, entries: usize) {
        let count = u64::try_from(entries).unwrap_or(u64::MAX);
        self.next = self.next.saturating_add(count);
        self.store.metrics.stored.inc_by(count);
    }

    fn write(&mut self, batch: Batch) {
        for (workload, lost) in &batch.lost {
            self.owed.add(workload, GapCause::ControlPlaneDropped, *lost);
        }
        let mut entries = batch.entries;
        let own = entries.len();
        entries.extend(self.owed.entries());
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
                self.wrote(entries.len());
                self.told = None;
                batch.tickets.into_iter().for_each(Ticket::written);
                // A file that had to be given up for it has just been added.
                self.owed.written(entries.len().saturating_sub(own));
                self.rotate();
            }
            Err(error) => {
                entries.truncate(own);
                self.failed(&error, entries);
            }
        }
    }

    /// Nothing can be written. What is required comes again; everything else is lost, and that is told once it works again.
    fn failed(&mut self, error: &SegmentError, entries: Vec<Entry>) {
        self.count(error);
        let mut lost = LostByWorkload::new();
        for entry in entries {
            lost.entry(entry.workload().into()).or_default().add(entry.worth());
        }
        for (workload, lost) in lost {
            for (reason, count) in [("in_full", lost.in_full), ("other", lost.other)] {
                self.store.metrics.lost.get_or_create(&ReasonLabel::new(reason)).inc_by(count);
            }
            if lost.all() > 0 {
                self.owed.add(&workload, GapCause::ControlPlaneDropped, lost);
            }
        }
        if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            error!(
                "the store of decisions in `{}`: nothing can be written: {error}; make room, or serve with \
                 `--decisions off`",
                self.store.folder.display()
            );
            self.told = Some(Instant::now());
        }
        self.prune();
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
        let is_full = segment.size() >= self.reserve();
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
        let oldest = Moment(Moment::now().0.saturating_sub(micros(self.store.limits.max_age)));
        let damaged = self.prune_damaged(oldest.0);
        let unread: u64 = self.unread(|files| files.iter().map(|path| length(path)).sum());
        loop {
            match self.due(damaged + unread, oldest) {
                Due::Nothing => break,
                Due::Old(segment) => self.remove(&segment),
                Due::Large(segment) => {
                    self.tell_lost(&segment);
                    // First: what is missing is told even if this process ends between the two.
                    self.write_gaps();
                    self.remove(&segment);
                }
                Due::Soon(from, to) => {
                    self.begin_to_carry(from, to, oldest);
                    break;
                }
                // Who writes faster than things move does not get ahead of them.
                Due::Now(from, to) => {
                    self.begin_to_carry(from, to, oldest);
                    while self.carry_on() {}
                }
            }
        }
        let segments = self.store.segments();
        let bytes: u64 = segments.iter().map(|one| one.size()).sum::<u64>() + damaged + unread;
        self.store.metrics.store_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.store.metrics.store_since.set(segments.first().map_or(0, |one| one.created().seconds()));
    }

    /// What is to be done about the oldest file, where there are so many other bytes.
    fn due(&self, others: u64, oldest: Moment) -> Due {
        let segments = self.store.segments();
        let Some(first) = segments.first().cloned() else { return Due::Nothing };
        let (max_size, reserve) = (self.store.limits.max_size, self.reserve());
        let total = segments.iter().map(|one| one.size()).sum::<u64>() + others;
        let has_moved = self.carried.as_ref().is_some_and(|carried| carried.path == first.path());
        match segments.get(1).cloned() {
            _ if first.created() < oldest => Due::Old(first),
            _ if has_moved && total + reserve > max_size => Due::Large(first),
            Some(second) if total > max_size => Due::Now(first, second),
            // What is to outlive it moves first.
            Some(second) if total + reserve > max_size => Due::Soon(first, second),
            _ => Due::Nothing,
        }
    }

    /// What a file may grow to.
    fn reserve(&self) -> u64 {
        self.store.limits.max_size / u64::from(FILES)
    }

    fn remove(&self, segment: &Segment) {
        self.change(|all| all.retain(|one| one.path() != segment.path()));
        info!("the store of decisions: `{}` is removed, it was due", segment.path().display());
        if let Err(error) = std::fs::remove_file(segment.path()) {
            warn!("the store of decisions: `{}` cannot be removed: {error}", segment.path().display());
        }
    }

    /// What goes with a file before its time, and should have been kept, is missing from now on.
    fn tell_lost(&mut self, segment: &Segment) {
        let Some(carried) = self.carried.take_if(|carried| carried.path == segment.path()) else { return };
        for (workload, count) in carried.lost.into_iter().filter(|(_, count)| *count > 0) {
            self.owed.add(&workload, GapCause::StoreFull, Lost { in_full: count, other: 0 });
        }
    }

    fn begin_to_carry(&mut self, from: Arc<Segment>, to: Arc<Segment>, oldest: Moment) {
        if self.carry.as_ref().is_some_and(|carry| carry.from().path() == from.path()) {
            return;
        }
        let path = from.path().to_owned();
        match Carry::begin(from, to, self.reserve() / 2, oldest) {
            Ok(carry) => self.carry = Some(carry),
            Err(error) => {
                self.owed.add_unknown(GapCause::StoreFull);
                self.give_up_carrying(path, BTreeMap::new(), &error);
            }
        }
    }

    /// Moves some more; says whether there was something to move.
    fn carry_some(&mut self) -> bool {
        let is_carrying = self.carry.is_some();
        if is_carrying && !self.carry_on() {
            self.prune();
        }
        is_carrying
    }

    /// Moves some more; says whether there is something left.
    fn carry_on(&mut self) -> bool {
        let Some(mut carry) = self.carry.take() else { return false };
        match carry.step() {
            Ok(false) => {
                self.carry = Some(carry);
                return true;
            }
            Ok(true) => {
                self.carried = Some(Carried { path: carry.from().path().to_owned(), lost: carry.lost() });
            }
            Err(error) => {
                self.give_up_carrying(carry.from().path().to_owned(), carry.lost(), &error);
            }
        }
        false
    }

    fn give_up_carrying(&mut self, path: PathBuf, lost: BTreeMap<String, u64>, error: &SegmentError) {
        self.count(error);
        error!("the store of decisions: what is to outlive `{}` cannot be moved: {error}", path.display());
        self.carried = Some(Carried { path, lost });
    }

    /// What was moved is not kept for longer than anything else.
    fn expire(&self) {
        let oldest = Moment(Moment::now().0.saturating_sub(micros(self.store.limits.max_age)));
        for segment in self.store.segments() {
            if let Err(error) = segment.expire(oldest) {
                self.count(&error);
                error!("the store of decisions: `{}`: {error}", segment.path().display());
            }
        }
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
