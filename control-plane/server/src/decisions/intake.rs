//! Where batches of filters come in: read, counted, handed to whoever listens and exports, and queued for the store.
//!
//! What a rule requires to be recorded is acknowledged when it is kept: written to the store. Where there is no store, when it
//! waits to be exported as a log record: it is in memory then, and lost if this process ends or the receiver takes nothing
//! for minutes, which is counted. Where neither is there nobody asked for records to be kept, and what is acknowledged is
//! counted and no more.
//!
//! INVARIANT: nothing here waits. A listener that is too slow misses records, and they are counted.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tidegate_proto::v1 as pb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tracing::warn;

use super::explain::{self, Explained};
use super::lanes::Worth;
use super::metrics::DecisionMetrics;
use super::pods::Pods;
use super::queue::{Queue, Queued, Room};
use super::read::{self, Known};
use super::record::{Entry, Gap, GapCause, Moment, Recorded};
use super::rules::History;
use super::slip::{Slip, Written};
use super::store::Store;
use crate::metrics::ReasonLabel;
use crate::push::Hub;

/// How many entries a listener may be behind.
const FEED: usize = 4_096;
/// Most questions at once: each may unpack the whole store.
const QUESTIONS: usize = 4;
/// Most followers at once.
const FOLLOWERS: usize = 32;
/// What may wait for the store, in bytes: refusals have half of it for themselves.
const ROOM: Room = Room { ordinary: 16 << 20, reserve: 16 << 20 };

/// Decisions of all filters.
#[derive(Debug)]
pub struct Decisions {
    metrics: DecisionMetrics,
    known: RwLock<Arc<Known>>,
    feed: broadcast::Sender<Entry>,
    kept: OnceLock<Kept>,
    exports: OnceLock<Arc<dyn Export>>,
    /// Somebody was told that what is required is not kept.
    told: AtomicBool,
    history: History,
    pods: Arc<Pods>,
    /// Questions to the store that may be answered at once.
    questions: Arc<Semaphore>,
    /// People who may follow decisions at once.
    followers: Arc<Semaphore>,
}

#[derive(Debug)]
struct Kept {
    store: Arc<Store>,
    queue: Arc<Queue>,
}

/// Takes decisions elsewhere.
pub trait Export: fmt::Debug + Send + Sync {
    /// Takes one, without waiting. False: there was no room for it, it was not counted, and will come again, which is so only
    /// where `comes_again`.
    fn take(&self, entry: &Entry, comes_again: bool) -> bool;

    /// Whether it exports records, not only spans or figures.
    fn keeps_records(&self) -> bool;
}

/// One stream of batches.
#[derive(Debug)]
pub struct Batches {
    /// Verified: `namespace/name`.
    workload: String,
    /// The last batch's number.
    last: u64,
}

/// Hears of decisions as they come.
#[derive(Debug)]
pub struct Feed {
    entries: broadcast::Receiver<Entry>,
    metrics: DecisionMetrics,
}

/// What a listener hears.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A decision or a gap.
    Entry(Entry),
    /// It was too slow for so many.
    Missed(u64),
}

// === impl Decisions ===

impl Decisions {
    /// Nothing is kept until [`Self::keep_in`].
    pub fn new(metrics: DecisionMetrics) -> Self {
        Self {
            metrics,
            known: RwLock::default(),
            feed: broadcast::Sender::new(FEED),
            kept: OnceLock::new(),
            exports: OnceLock::new(),
            told: AtomicBool::new(false),
            history: History::default(),
            pods: Arc::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        }
    }

    /// Queues what comes from now on for this store. Returns the queue, for the store's keeper.
    pub fn keep_in(&self, store: Arc<Store>) -> Arc<Queue> {
        self.kept.get_or_init(|| Kept { store, queue: Arc::new(Queue::new(ROOM)) }).queue.clone()
    }

    /// Exports what comes from now on. Only the first one that asks does.
    pub fn export_to(&self, exports: Arc<dyn Export>) {
        self.exports.get_or_init(|| exports);
    }

    /// Where decisions are kept; `None`: nowhere.
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.kept.get().map(|kept| &kept.store)
    }

    /// Takes what is known of issuers and rules from now on.
    pub fn know(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// What is known of issuers and rules.
    pub fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rules that were in force.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Pods of Tekton, as far as somebody tells which there are.
    pub(crate) fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// Leave to ask the store; `None`: too many are asking.
    pub fn question(&self) -> Option<OwnedSemaphorePermit> {
        self.questions.clone().try_acquire_owned().ok()
    }

    /// Leave to follow; `None`: too many do.
    pub fn follower(&self) -> Option<OwnedSemaphorePermit> {
        self.followers.clone().try_acquire_owned().ok()
    }

    /// Why it was decided, by the rules that are known.
    pub(crate) fn explain(&self, recorded: &Recorded, hub: &Hub) -> Explained {
        let rules = self.history.of(recorded, hub);
        explain::explained(recorded.clone(), rules.as_ref(), &self.known())
    }

    /// Listens from now on.
    pub fn listen(&self) -> Feed {
        Feed { entries: self.feed.subscribe(), metrics: self.metrics.clone() }
    }

    /// A stream of batches of a verified workload.
    pub fn batches(&self, workload: &str) -> Batches {
        Batches { workload: workload.to_owned(), last: 0 }
    }

    /// The same, of a stream of which so many batches came before, to another replica.
    pub fn batches_after(&self, workload: &str, last: u64) -> Batches {
        Batches { workload: workload.to_owned(), last }
    }

    /// Takes a batch. `manifest`: SHA-256 of what the workload is to enforce now. `Some`: it is to be acknowledged only when
    /// everything in it is written.
    pub fn take(
        &self,
        batches: &mut Batches,
        manifest: Option<[u8; 32]>,
        batch: &pb::ReportRequest,
    ) -> Option<Written> {
        let now = Moment::now();
        let reader = Reader::new(self, &batches.workload, manifest, batch, now);
        let mut entries = Vec::with_capacity(batch.records.len().saturating_add(2));
        for raw in &batch.records {
            let read = reader.read(raw);
            self.metrics.tokens_removed.inc_by(read.tokens_removed);
            if read.recorded.time_refused {
                self.metrics.times_refused.inc();
            }
            self.metrics.decided.count(&read.recorded);
            entries.push(Entry::Decision(Arc::new(read.recorded)));
        }
        let gap = |cause: GapCause, lost: Option<u64>, lost_in_full: u64| {
            self.metrics.gaps.get_or_create(&ReasonLabel::new(cause.word())).inc();
            let (workload, instance) = (batches.workload.clone(), reader.instance.clone());
            let gap = Gap { time: now, workload, instance, cause, lost, lost_in_full };
            self.metrics.decided.count_gap(&gap);
            Entry::Gap(gap)
        };
        // "Grows by one per batch and stream, from 1."
        if batch.sequence != batches.last.saturating_add(1) {
            entries.push(gap(GapCause::BatchesMissing, None, 0));
        }
        if batch.dropped > 0 || batch.dropped_in_full > 0 {
            let lost = batch.dropped.max(batch.dropped_in_full);
            entries.push(gap(GapCause::FilterDropped, Some(lost), batch.dropped_in_full));
        }
        batches.last = batches.last.max(batch.sequence);
        self.metrics.dropped_in_full.inc_by(batch.dropped_in_full);
        self.metrics.unsampled.inc_by(batch.unsampled);
        if self.feed.receiver_count() > 0 {
            entries.iter().for_each(|entry| {
                // An error means that nobody listens any more.
                let _ = self.feed.send(entry.clone());
            });
        }
        if let (Some(exports), Some(_)) = (self.exports.get(), self.kept.get()) {
            entries.iter().for_each(|entry| {
                exports.take(entry, false);
            });
        }
        self.keep(entries.into_iter().enumerate())
    }

    /// Takes those of a batch again that were not written, which stand there in it.
    pub fn take_again(
        &self,
        workload: &str,
        manifest: Option<[u8; 32]>,
        batch: &pb::ReportRequest,
        unwritten: &[usize],
    ) -> Option<Written> {
        let reader = Reader::new(self, workload, manifest, batch, Moment::now());
        let raws = unwritten.iter().filter_map(|at| Some((*at, batch.records.get(*at)?)));
        self.keep(raws.map(|(at, raw)| (at, Entry::Decision(Arc::new(reader.read(raw).recorded)))))
    }

    /// Hands entries to the store, or where there is none to what exports them; each with where it stands in its batch.
    fn keep(&self, entries: impl Iterator<Item = (usize, Entry)>) -> Option<Written> {
        let mut slip: Option<(Arc<Slip>, Written)> = None;
        let mut ticket = |at: usize, entry: &Entry| {
            let is_required = entry.worth() == Worth::Required;
            is_required.then(|| slip.get_or_insert_with(Slip::new).0.ticket(at))
        };
        let queued = entries.map(|(at, entry)| Queued { ticket: ticket(at, &entry), entry });
        match (self.kept.get(), self.exports.get()) {
            (Some(kept), _) => {
                let lost = kept.queue.push(queued);
                for (reason, count) in [("in_full", lost.in_full), ("other", lost.other)] {
                    if count > 0 {
                        self.metrics.lost.get_or_create(&ReasonLabel::new(reason)).inc_by(count);
                    }
                }
            }
            (None, exports) => queued.for_each(|Queued { entry, ticket }| {
                let is_taken = exports.is_none_or(|exports| exports.take(&entry, ticket.is_some()));
                let Some(ticket) = ticket else { return };
                let keeps = exports.is_some_and(|exports| exports.keeps_records());
                if !keeps && !self.told.swap(true, Ordering::Relaxed) {
                    warn!(
                        "rules require records (`audit: required`), and nobody keeps them: serve with a store, or export \
                         them as logs"
                    );
                }
                if is_taken {
                    ticket.written();
                }
            }),
        }
        slip.map(|(_, written)| written)
    }
}

/// Reads the records of a batch.
struct Reader<'b> {
    workload: &'b str,
    instance: String,
    manifest: Option<[u8; 32]>,
    known: Arc<Known>,
    pods: &'b Pods,
    now: Moment,
}

// === impl Reader ===

impl<'b> Reader<'b> {
    fn new(
        decisions: &'b Decisions,
        workload: &'b str,
        manifest: Option<[u8; 32]>,
        batch: &pb::ReportRequest,
        now: Moment,
    ) -> Self {
        let vm = batch.vm.as_ref().map(|vm| vm.instance.as_str()).unwrap_or_default();
        let (known, pods) = (decisions.known(), &*decisions.pods);
        Self { workload, instance: read::instance(vm), manifest, known, pods, now }
    }

    fn read(&self, raw: &pb::DecisionRecord) -> read::Read {
        let from = read::From { workload: self.workload, instance: &self.instance, manifest: self.manifest };
        let mut read = read::record(raw, &from, &self.known, self.now);
        self.pods.complete(&mut read.recorded);
        read
    }
}

// === impl Batches ===

impl Batches {
    /// Whose: `namespace/name`.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// A batch goes to another replica. Returns the number of the one before it.
    pub fn pass(&mut self, sequence: u64) -> u64 {
        let before = self.last;
        self.last = before.max(sequence);
        before
    }
}

// === impl Feed ===

impl Feed {
    /// The next; `None`: nothing will come any more.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.entries.recv().await {
            Ok(entry) => Some(Heard::Entry(entry)),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                self.metrics.missed.inc_by(missed);
                Some(Heard::Missed(missed))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions() -> Decisions {
        Decisions::new(DecisionMetrics::default())
    }

    fn batch(sequence: u64) -> pb::ReportRequest {
        let record = pb::DecisionRecord { outcome: pb::Outcome::Deny.into(), ..Default::default() };
        pb::ReportRequest { sequence, records: vec![record], ..Default::default() }
    }

    async fn causes(feed: &mut Feed, count: usize) -> Vec<Option<GapCause>> {
        let mut causes = Vec::new();
        for _ in 0..count {
            causes.push(match feed.next().await {
                Some(Heard::Entry(Entry::Gap(gap))) => Some(gap.cause),
                Some(Heard::Entry(Entry::Decision(_))) => None,
                other => panic!("{other:?}"),
            });
        }
        causes
    }

    #[tokio::test]
    async fn batches_in_order_have_no_gaps_and_jumps_have() {
        let decisions = decisions();
        let mut feed = decisions.listen();
        let mut batches = decisions.batches("sales/orders");
        for sequence in [1, 2, 3, 5, 6] {
            decisions.take(&mut batches, None, &batch(sequence));
        }
        let expected = [None, None, None, None, Some(GapCause::BatchesMissing), None];
        assert_eq!(causes(&mut feed, 6).await, expected);
        let mut late = decisions.batches("sales/orders");
        decisions.take(&mut late, None, &batch(7));
        assert_eq!(causes(&mut feed, 2).await, [None, Some(GapCause::BatchesMissing)]);
    }

    #[tokio::test]
    async fn what_filters_dropped_is_a_gap() {
        let decisions = decisions();
        let mut feed = decisions.listen();
        let dropping = pb::ReportRequest { dropped: 5, dropped_in_full: 2, unsampled: 9, ..batch(1) };
        decisions.take(&mut decisions.batches("sales/orders"), None, &dropping);
        feed.next().await.unwrap();
        let Some(Heard::Entry(Entry::Gap(gap))) = feed.next().await else { panic!() };
        assert_eq!((gap.lost, gap.lost_in_full, gap.workload.as_str()), (Some(5), 2, "sales/orders"));
        let metrics = &decisions.metrics;
        assert_eq!((metrics.dropped_in_full.get(), metrics.unsampled.get()), (2, 9));
        assert_eq!(metrics.gaps.get_or_create(&ReasonLabel::new("filter_dropped")).get(), 1);
    }

    #[tokio::test]
    async fn a_slow_listener_misses_and_the_misses_are_counted() {
        let decisions = decisions();
        let mut feed = decisions.listen();
        let mut batches = decisions.batches("sales/orders");
        let many = 5_000;
        for sequence in 1..=many {
            decisions.take(&mut batches, None, &batch(sequence));
        }
        let Some(Heard::Missed(missed)) = feed.next().await else { panic!() };
        assert_eq!(missed + u64::try_from(FEED).unwrap(), many);
        assert_eq!(decisions.metrics.missed.get(), missed);
    }

    fn auditing(audit: pb::Audit, sequence: u64) -> pb::ReportRequest {
        let mut batch = batch(sequence);
        batch.records[0].outcome = pb::Outcome::Allow.into();
        batch.records[0].audit = audit.into();
        batch
    }

    #[tokio::test]
    async fn what_is_required_is_to_be_acknowledged_only_when_it_is_written_and_comes_again_until_then() {
        let (decisions, folder) = (decisions(), tempfile::tempdir().unwrap());
        let store = Store::open(folder.path(), Default::default(), DecisionMetrics::default()).unwrap();
        let queue = decisions.keep_in(Arc::new(store));
        let mut batches = decisions.batches("sales/orders");
        for (sequence, audit) in (1..).zip([pb::Audit::Unspecified, pb::Audit::Sampled, pb::Audit::Full]) {
            assert!(decisions.take(&mut batches, None, &auditing(audit, sequence)).is_none());
        }
        let required = auditing(pb::Audit::Required, 4);
        let take = || queue.take(100, Default::default());
        let written = decisions.take(&mut batches, None, &required).expect("somebody waits");
        let mut waits = std::pin::pin!(written.unwritten());
        assert!(futures_util::poll!(&mut waits).is_pending());
        let taken = take();
        assert_eq!((taken.entries.len(), taken.tickets.len()), (4, 1));
        assert!(futures_util::poll!(&mut waits).is_pending(), "it is taken and not written");
        drop(taken);
        assert_eq!(waits.await, [0]);
        let written = decisions.take_again("sales/orders", None, &required, &[0]).unwrap();
        let taken = take();
        assert_eq!(taken.entries.len(), 1);
        taken.tickets.into_iter().for_each(super::super::slip::Ticket::written);
        assert_eq!(written.unwritten().await, [0; 0]);
    }

    #[derive(Debug, Default)]
    struct Exports {
        has_room: AtomicBool,
        taken: std::sync::Mutex<Vec<Entry>>,
    }

    impl Export for Exports {
        fn take(&self, entry: &Entry, comes_again: bool) -> bool {
            let is_taken = self.has_room.load(Ordering::Relaxed) || !comes_again;
            if is_taken {
                self.taken.lock().unwrap().push(entry.clone());
            }
            is_taken
        }

        fn keeps_records(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn without_a_store_what_is_required_is_acknowledged_when_it_waits_to_be_exported() {
        let (decisions, exports) = (decisions(), Arc::<Exports>::default());
        decisions.export_to(exports.clone());
        let mut batches = decisions.batches("sales/orders");
        assert!(decisions.take(&mut batches, None, &batch(1)).is_none());
        let required = auditing(pb::Audit::Required, 2);
        let written = decisions.take(&mut batches, None, &required).unwrap();
        assert_eq!(written.unwritten().await, [0], "there is no room");
        exports.has_room.store(true, Ordering::Relaxed);
        let again = decisions.take_again("sales/orders", None, &required, &[0]).unwrap();
        assert_eq!(again.unwritten().await, [0; 0]);
        assert_eq!(exports.taken.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn where_nobody_keeps_anything_everything_is_acknowledged() {
        let decisions = decisions();
        let required = auditing(pb::Audit::Required, 1);
        let written = decisions.take(&mut decisions.batches("sales/orders"), None, &required).unwrap();
        assert_eq!(written.unwritten().await, [0; 0]);
        assert!(decisions.told.load(Ordering::Relaxed));
    }
}
