//! A bounded queue of records between those who decide and a receiver.
//!
//! Half of the room is for refusals, differences, gaps and what rules want in full, if they need it. Where room is short
//! besides, it is made by the workload that has most waiting, of what is worth least.
//!
//! INVARIANT: pushing never waits, and says how many it cost.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::decisions::lanes::{Lanes, Worth};
use crate::decisions::record::Entry;

/// How much a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub entries: usize,
    /// Bytes of them, roughly.
    pub bytes: usize,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    lanes: Lanes<Entry>,
    /// Taken, and neither delivered nor lost yet.
    on_the_way: usize,
    is_closed: bool,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// It waits.
    pub is_kept: bool,
    /// How many were lost by it: others, or this one.
    pub lost: u64,
}

// === impl Queue ===

impl Queue {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, waiting: Mutex::default(), news: Notify::new() }
    }

    /// Appends a record.
    pub fn push(&self, entry: Entry) -> Pushed {
        let mut waiting = self.lock();
        let (bytes, worth) = (entry.weight(), entry.worth());
        let workload = entry.workload().to_owned();
        let mut lost = 0;
        if waiting.is_closed {
            return Pushed { is_kept: false, lost: 1 };
        }
        let lanes = &mut waiting.lanes;
        loop {
            let is_full =
                lanes.len() >= self.limits.entries || lanes.bytes().saturating_add(bytes) > self.limits.bytes;
            if !is_full {
                break;
            }
            let is_mostly_ordinary = lanes.ordinary_bytes() > lanes.bytes() / 2;
            let shed = if worth != Worth::Ordinary && is_mostly_ordinary {
                lanes.shed_most_ordinary()
            } else {
                lanes.shed(&workload, worth, bytes)
            };
            lost += 1;
            if shed.is_none() {
                return Pushed { is_kept: false, lost };
            }
        }
        lanes.push(&workload, worth, entry, bytes);
        drop(waiting);
        self.news.notify_one();
        Pushed { is_kept: true, lost }
    }

    /// Takes the next records, at most so many and so many bytes, but one at least. Waits for the first one, then at most
    /// `linger` for more. Empty when the queue is closed and nothing waits.
    pub async fn next(&self, most: usize, most_bytes: usize, linger: Duration) -> Vec<Entry> {
        loop {
            let (len, bytes, is_closed) = {
                let waiting = self.lock();
                (waiting.lanes.len(), waiting.lanes.bytes(), waiting.is_closed)
            };
            if len > 0 {
                if len < most && bytes < most_bytes && !is_closed {
                    let full = async {
                        while !self.is_full(most, most_bytes) {
                            self.news.notified().await;
                        }
                    };
                    // Whichever comes first.
                    let _ = tokio::time::timeout(linger, full).await;
                }
                let mut waiting = self.lock();
                let taken = waiting.take(most, most_bytes);
                waiting.on_the_way = waiting.on_the_way.saturating_add(taken.len());
                return taken;
            }
            if is_closed {
                return Vec::new();
            }
            self.news.notified().await;
        }
    }

    /// Nothing comes any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_one();
    }

    /// So many of those that were taken are delivered or lost.
    pub fn settled(&self, count: usize) {
        let mut waiting = self.lock();
        waiting.on_the_way = waiting.on_the_way.saturating_sub(count);
    }

    /// How many records wait here or are on their way.
    pub fn waiting(&self) -> usize {
        let waiting = self.lock();
        waiting.lanes.len().saturating_add(waiting.on_the_way)
    }

    fn is_full(&self, most: usize, most_bytes: usize) -> bool {
        let waiting = self.lock();
        waiting.lanes.len() >= most || waiting.lanes.bytes() >= most_bytes || waiting.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn take(&mut self, most: usize, most_bytes: usize) -> Vec<Entry> {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while taken.len() < most {
            let is_first = taken.is_empty();
            let next = self.lanes.pop_if(|next| {
                bytes = bytes.saturating_add(next);
                is_first || bytes <= most_bytes
            });
            let Some(next) = next else { break };
            taken.push(next);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decisions::record::{Audit, Outcome};
    use crate::export::attributes::testing::recorded;

    fn entry(outcome: Outcome, id: &str) -> Entry {
        let mut recorded = recorded();
        (recorded.outcome, recorded.shadow, recorded.ended) = (outcome, None, false);
        (recorded.candidate, recorded.audit) = (None, Audit::Unsaid);
        recorded.id = id.to_owned();
        Entry::Decision(Arc::new(recorded))
    }

    fn ids(entries: &[Entry]) -> Vec<&str> {
        let id = |entry: &'_ Entry| match entry {
            Entry::Decision(recorded) => recorded.id.clone(),
            Entry::Gap(_) => "gap".to_owned(),
        };
        entries.iter().map(|entry| &*Box::leak(id(entry).into_boxed_str())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_allowed_goes_first_when_room_is_short() {
        let queue = Queue::new(Limits { entries: 3, bytes: 1 << 20 });
        for (outcome, id, lost) in [
            (Outcome::Allow, "a1", 0),
            (Outcome::Deny, "d1", 0),
            (Outcome::Allow, "a2", 0),
            (Outcome::Allow, "a3", 1),
            (Outcome::Deny, "d2", 1),
            (Outcome::Deny, "d3", 1),
            (Outcome::Deny, "d4", 1),
        ] {
            assert_eq!(queue.push(entry(outcome, id)).lost, lost, "{id}");
        }
        let taken = queue.next(10, 1 << 20, Duration::from_secs(1)).await;
        assert_eq!(ids(&taken), ["d1", "d2", "d3"]);
        assert_eq!(queue.waiting(), 3, "on their way");
        queue.settled(3);
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_bounded_by_count_and_by_bytes_but_never_empty() {
        let queue = Queue::new(Limits { entries: 100, bytes: 1 << 20 });
        for id in ["1", "2", "3", "4", "5"] {
            assert_eq!(queue.push(entry(Outcome::Allow, id)).lost, 0);
        }
        assert_eq!(ids(&queue.next(2, 1 << 20, Duration::ZERO).await), ["1", "2"]);
        assert_eq!(ids(&queue.next(9, 1, Duration::ZERO).await), ["3"]);
        queue.close();
        assert_eq!(ids(&queue.next(9, 1 << 20, Duration::from_secs(9)).await), ["4", "5"]);
        assert!(queue.next(9, 1 << 20, Duration::ZERO).await.is_empty());
    }

    #[test]
    fn bytes_are_bounded_too_and_freed_again() {
        let one = entry(Outcome::Deny, "1").weight();
        let queue = Queue::new(Limits { entries: 100, bytes: 2 * one });
        let lost: Vec<u64> = ["1", "2", "3"].map(|id| queue.push(entry(Outcome::Deny, id)).lost).into();
        assert_eq!(lost, [0, 0, 1]);
        assert_eq!(queue.lock().take(1, usize::MAX).len(), 1);
        assert_eq!(queue.push(entry(Outcome::Deny, "4")), Pushed { is_kept: true, lost: 0 });
        assert_eq!(queue.lock().lanes.bytes(), 2 * one);
    }

    /// Whatever a workload says that its records are worth.
    #[test]
    fn a_flood_of_one_workload_does_not_push_out_what_others_wait_for() {
        let queue = Queue::new(Limits { entries: 10, bytes: 1 << 20 });
        let of = |workload: &str, audit: Audit, id: &str| {
            let Entry::Decision(mut recorded) = entry(Outcome::Allow, id) else { panic!() };
            let one = Arc::make_mut(&mut recorded);
            (one.workload, one.audit) = (workload.to_owned(), audit);
            Entry::Decision(recorded)
        };
        assert_eq!(queue.push(of("quiet", Audit::Unsaid, "q1")).lost, 0);
        assert_eq!(queue.push(of("quiet", Audit::Full, "q2")).lost, 0);
        let mut lost = 0;
        for number in 0..300 {
            let audit = [Audit::Unsaid, Audit::Full, Audit::Required][number % 3];
            lost += queue.push(of("loud", audit, "l")).lost;
        }
        assert_eq!(lost, 292);
        assert_eq!(queue.push(of("other", Audit::Unsaid, "o1")), Pushed { is_kept: true, lost: 1 });
        let taken = queue.lock().take(100, usize::MAX);
        let ids = ids(&taken);
        assert!(["q1", "q2", "o1"].iter().all(|id| ids.contains(id)), "{ids:?}");
    }

    /// What is allowed by a rule that wants it in full is dropped after samples, as refusals are.
    #[test]
    fn what_is_wanted_in_full_goes_after_samples() {
        let queue = Queue::new(Limits { entries: 2, bytes: 1 << 20 });
        let of = |audit: Audit, id: &str| {
            let Entry::Decision(mut recorded) = entry(Outcome::Allow, id) else { panic!() };
            Arc::make_mut(&mut recorded).audit = audit;
            Entry::Decision(recorded)
        };
        for (audit, id) in [
            (Audit::Sampled, "s1"),
            (Audit::Sampled, "s2"),
            (Audit::Full, "f1"),
            (Audit::Required, "r1"),
            (Audit::Sampled, "s3"),
        ] {
            queue.push(of(audit, id));
        }
        assert_eq!(ids(&queue.lock().take(100, usize::MAX)), ["r1", "f1"]);
    }
}
