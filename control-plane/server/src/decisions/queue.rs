//! What waits for the store: bounded, with a reserve for refusals.
//!
//! INVARIANT: pushing never waits for the store. What there is no room for is counted, and told with the next batch.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::Entry;

/// How much may wait, in bytes, roughly: of everything, and only of what is to be kept in any case.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// For all of it.
    pub ordinary: usize,
    /// Besides, for refusals, differences and gaps.
    pub reserve: usize,
}

/// What waits.
#[derive(Debug)]
pub struct Queue {
    room: Room,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ordinary: VecDeque<(Entry, usize)>,
    precious: VecDeque<(Entry, usize)>,
    bytes: usize,
    lost: Lost,
    closed: bool,
}

/// How many were dropped since the last batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Refusals, differences and gaps.
    pub in_full: u64,
    /// The others.
    pub other: u64,
}

/// What there was.
#[derive(Debug, Default)]
pub struct Batch {
    /// By the time of their decisions.
    pub entries: Vec<Entry>,
    /// What was dropped meanwhile.
    pub lost: Lost,
    /// Nothing more will come.
    pub is_last: bool,
}

// === impl Queue ===

impl Queue {
    /// An empty one.
    pub fn new(room: Room) -> Self {
        Self { room, waiting: Mutex::default(), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds them, as far as there is room. Returns what was dropped: of these, or earlier ones that had to make room.
    pub fn push(&self, entries: impl IntoIterator<Item = (Entry, bool)>) -> Lost {
        let mut lost = Lost::default();
        let mut waiting = self.lock();
        for (entry, is_precious) in entries {
            let weight = entry.weight();
            let room = if is_precious { self.room.ordinary + self.room.reserve } else { self.room.ordinary };
            // What must not be lost takes the place of what may.
            while is_precious && waiting.bytes + weight > room {
                let Some((_, freed)) = waiting.ordinary.pop_front() else { break };
                waiting.bytes -= freed;
                lost.other += 1;
            }
            if waiting.closed || waiting.bytes + weight > room {
                if is_precious {
                    lost.in_full += 1
                } else {
                    lost.other += 1
                }
                continue;
            }
            waiting.bytes += weight;
            let of = if is_precious { &mut waiting.precious } else { &mut waiting.ordinary };
            of.push_back((entry, weight));
        }
        waiting.lost.in_full += lost.in_full;
        waiting.lost.other += lost.other;
        drop(waiting);
        self.arrived.notify_one();
        lost
    }

    /// What waits, at most so many and after at most so long.
    pub fn take(&self, most: usize, patience: Duration) -> Batch {
        let until = Instant::now() + patience;
        let mut waiting = self.lock();
        // A little patience makes fewer and larger writes.
        while !waiting.closed && waiting.ordinary.len() + waiting.precious.len() < most {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut entries = Vec::new();
        while entries.len() < most {
            let next = waiting.precious.pop_front();
            let Some((entry, weight)) = next.or_else(|| waiting.ordinary.pop_front()) else { break };
            waiting.bytes -= weight;
            entries.push(entry);
        }
        let is_last = waiting.closed && waiting.ordinary.is_empty() && waiting.precious.is_empty();
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        entries.sort_by_key(Entry::time);
        Batch { entries, lost, is_last }
    }

    /// Takes nothing more; what waits can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Gap, GapCause, Moment};
    use super::*;

    fn entry(at: i64) -> Entry {
        Entry::Gap(Gap {
            time: Moment(at),
            workload: String::new(),
            instance: String::new(),
            cause: GapCause::FilterDropped,
            lost: None,
            lost_in_full: 0,
        })
    }

    fn queue(ordinary: usize, reserve: usize) -> Queue {
        let one = entry(0).weight();
        Queue::new(Room { ordinary: ordinary * one, reserve: reserve * one })
    }

    fn push(queue: &Queue, at: i64, is_precious: bool) -> Lost {
        queue.push([(entry(at), is_precious)])
    }

    #[test]
    fn what_may_be_lost_is_lost_first_and_everything_lost_is_counted() {
        let queue = queue(2, 2);
        assert_eq!(push(&queue, 1, false), Lost::default());
        assert_eq!(push(&queue, 2, false), Lost::default());
        assert_eq!(push(&queue, 3, false), Lost { in_full: 0, other: 1 });
        assert_eq!(push(&queue, 4, true), Lost::default());
        assert_eq!(push(&queue, 5, true), Lost::default());
        assert_eq!(
            push(&queue, 6, true),
            Lost { in_full: 0, other: 1 },
            "the oldest of the others made room"
        );
        assert_eq!(push(&queue, 7, true), Lost { in_full: 0, other: 1 });
        assert_eq!(push(&queue, 8, true), Lost { in_full: 1, other: 0 });
        let batch = queue.take(10, Duration::ZERO);
        let times: Vec<i64> = batch.entries.iter().map(|entry| entry.time().0).collect();
        assert_eq!(times, [4, 5, 6, 7]);
        assert_eq!((batch.lost, batch.is_last), (Lost { in_full: 1, other: 3 }, false));
        assert_eq!(queue.take(10, Duration::ZERO).lost, Lost::default(), "it is told once");
        assert_eq!(push(&queue, 9, false), Lost::default());
    }

    #[test]
    fn a_closed_queue_is_emptied_and_takes_nothing() {
        let queue = queue(8, 1);
        push(&queue, 2, false);
        push(&queue, 1, false);
        queue.close();
        assert_eq!(push(&queue, 3, true), Lost { in_full: 1, other: 0 });
        let first = queue.take(1, Duration::from_secs(60));
        assert_eq!((first.entries.len(), first.is_last), (1, false));
        let last = queue.take(9, Duration::from_secs(60));
        assert_eq!((last.entries.len(), last.is_last), (1, true));
    }
}
