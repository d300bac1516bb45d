//! A bounded queue of records between those who decide and a receiver.
//!
//! Refusals, differences and gaps wait apart from the rest: where room is short, what was plainly allowed goes first.
//!
//! INVARIANT: pushing never waits, and says how many it cost.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

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
    precious: VecDeque<Entry>,
    ordinary: VecDeque<Entry>,
    bytes: usize,
    is_closed: bool,
}

// === impl Queue ===

impl Queue {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, waiting: Mutex::default(), news: Notify::new() }
    }

    /// Appends a record, and returns how many records were lost by that: others, or this one.
    pub fn push(&self, entry: Entry) -> u64 {
        let mut waiting = self.lock();
        let bytes = entry.weight();
        let is_precious = entry.is_precious();
        let mut lost = 0;
        while waiting.len() >= self.limits.entries || waiting.bytes.saturating_add(bytes) > self.limits.bytes
        {
            // The older of two that are worth the same has waited longer; the newer one goes.
            let evicted = if is_precious { waiting.ordinary.pop_front() } else { None };
            match evicted {
                Some(evicted) => {
                    waiting.bytes = waiting.bytes.saturating_sub(evicted.weight());
                    lost += 1;
                }
                None => return lost + 1,
            }
        }
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        let line = if is_precious { &mut waiting.precious } else { &mut waiting.ordinary };
        line.push_back(entry);
        drop(waiting);
        self.news.notify_one();
        lost
    }

    /// Takes the next records, at most so many and so many bytes, but one at least. Waits for the first one, then at most
    /// `linger` for more. Empty when the queue is closed and nothing waits.
    pub async fn next(&self, most: usize, most_bytes: usize, linger: Duration) -> Vec<Entry> {
        loop {
            let (len, bytes, is_closed) = {
                let waiting = self.lock();
                (waiting.len(), waiting.bytes, waiting.is_closed)
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
                return self.lock().take(most, most_bytes);
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

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_full(&self, most: usize, most_bytes: usize) -> bool {
        let waiting = self.lock();
        waiting.len() >= most || waiting.bytes >= most_bytes || waiting.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn len(&self) -> usize {
        self.precious.len() + self.ordinary.len()
    }

    fn take(&mut self, most: usize, most_bytes: usize) -> Vec<Entry> {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while taken.len() < most {
            let line = if self.precious.is_empty() { &mut self.ordinary } else { &mut self.precious };
            let Some(next) = line.front().map(Entry::weight) else { break };
            if !taken.is_empty() && bytes.saturating_add(next) > most_bytes {
                break;
            }
            bytes = bytes.saturating_add(next);
            self.bytes = self.bytes.saturating_sub(next);
            taken.extend(line.pop_front());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decisions::record::Outcome;
    use crate::export::attributes::testing::recorded;

    fn entry(outcome: Outcome, id: &str) -> Entry {
        let mut recorded = recorded();
        (recorded.outcome, recorded.shadow, recorded.ended) = (outcome, None, false);
        recorded.candidate = None;
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
            assert_eq!(queue.push(entry(outcome, id)), lost, "{id}");
        }
        let taken = queue.next(10, 1 << 20, Duration::from_secs(1)).await;
        assert_eq!(ids(&taken), ["d1", "d2", "d3"]);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_bounded_by_count_and_by_bytes_but_never_empty() {
        let queue = Queue::new(Limits { entries: 100, bytes: 1 << 20 });
        for id in ["1", "2", "3", "4", "5"] {
            assert_eq!(queue.push(entry(Outcome::Allow, id)), 0);
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
        let lost: Vec<u64> = ["1", "2", "3"].map(|id| queue.push(entry(Outcome::Deny, id))).into();
        assert_eq!(lost, [0, 0, 1]);
        assert_eq!(queue.lock().take(1, usize::MAX).len(), 1);
        assert_eq!(queue.push(entry(Outcome::Deny, "4")), 0);
        assert_eq!(queue.lock().bytes, 2 * one);
    }
}
