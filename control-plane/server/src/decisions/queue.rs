//! What waits for the store: bounded, with a reserve for refusals and what rules want in full, and a share for everybody.
//!
//! INVARIANT: pushing never waits for the store. What there is no room for is taken from the workload that has most waiting,
//! counted, and told with the next batch; of what is required, whoever waits for its being written is told at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lanes::{Lanes, Worth};
use super::record::Entry;
use super::slip::Ticket;

/// How long somebody waits at most, before what is required is taken.
const SOON: Duration = Duration::from_millis(20);

/// How much may wait, in bytes, roughly: of everything, and only of what is to be kept in any case.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// For what is ordinary.
    pub ordinary: usize,
    /// Besides, for everything else.
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
    lanes: Lanes<Queued>,
    lost: LostByWorkload,
    closed: bool,
}

/// An entry, and who waits for its being written.
#[derive(Debug)]
pub struct Queued {
    /// What is to be written.
    pub entry: Entry,
    /// Absent where nobody waits.
    pub ticket: Option<Ticket>,
}

/// How many were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Refusals, differences, gaps, and what a rule wants in full.
    pub in_full: u64,
    /// The others.
    pub other: u64,
}

/// Whose were dropped since the last batch.
pub type LostByWorkload = BTreeMap<Arc<str>, Lost>;

/// What there was.
#[derive(Debug, Default)]
pub struct Batch {
    /// By the time of their decisions.
    pub entries: Vec<Entry>,
    /// Who waits for some of them.
    pub tickets: Vec<Ticket>,
    /// What was dropped meanwhile.
    pub lost: LostByWorkload,
    /// Nothing more will come.
    pub is_last: bool,
}

// === impl Lost ===

impl Lost {
    /// All of them.
    pub fn all(self) -> u64 {
        self.in_full.saturating_add(self.other)
    }

    /// One more. What is required is not dropped: it is not acknowledged, and comes again.
    pub fn add(&mut self, worth: Worth) {
        match worth {
            Worth::Ordinary => self.other = self.other.saturating_add(1),
            Worth::Precious => self.in_full = self.in_full.saturating_add(1),
            Worth::Required => {}
        }
    }
}

// === impl Queued ===

impl From<Entry> for Queued {
    fn from(entry: Entry) -> Self {
        Self { entry, ticket: None }
    }
}

impl Queued {
    /// Without a ticket nobody sends it again: it is as any other that is to be kept.
    fn worth(&self) -> Worth {
        match self.entry.worth() {
            Worth::Required if self.ticket.is_none() => Worth::Precious,
            worth => worth,
        }
    }
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
    pub fn push(&self, entries: impl IntoIterator<Item = Queued>) -> Lost {
        let mut lost = Lost::default();
        let mut waiting = self.lock();
        for queued in entries {
            waiting.push(queued, self.room, &mut lost);
        }
        drop(waiting);
        self.arrived.notify_one();
        lost
    }

    /// What waits, at most so many and after at most so long.
    pub fn take(&self, most: usize, patience: Duration) -> Batch {
        let (mut until, mut soon) = (Instant::now() + patience, None);
        let mut waiting = self.lock();
        // A little patience makes fewer and larger writes.
        while !waiting.closed && waiting.lanes.len() < most {
            if waiting.lanes.has_required() {
                until = until.min(*soon.get_or_insert_with(|| Instant::now() + SOON));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut batch = Batch::default();
        while batch.entries.len() < most {
            let Some(Queued { entry, ticket }) = waiting.lanes.pop_if(|_| true) else { break };
            batch.entries.push(entry);
            batch.tickets.extend(ticket);
        }
        batch.is_last = waiting.closed && waiting.lanes.len() == 0;
        batch.lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        batch.entries.sort_by_key(Entry::time);
        batch
    }

    /// Takes nothing more; what waits can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }
}

// === impl Waiting ===

impl Waiting {
    fn push(&mut self, queued: Queued, room: Room, lost: &mut Lost) {
        let (bytes, worth) = (queued.entry.weight(), queued.worth());
        let workload = queued.entry.workload().to_owned();
        loop {
            let is_full =
                self.lanes.bytes().saturating_add(bytes) > room.ordinary.saturating_add(room.reserve);
            let is_much =
                worth == Worth::Ordinary && self.lanes.ordinary_bytes().saturating_add(bytes) > room.ordinary;
            if !is_full && !is_much && !self.closed {
                return self.lanes.push(&workload, worth, queued, bytes);
            }
            let shed = match (self.closed, is_much) {
                (true, _) => None,
                (false, true) => self.lanes.shed_ordinary(&workload, bytes),
                (false, false) => self.lanes.shed(&workload, worth, bytes),
            };
            let (whose, what) = match &shed {
                Some(shed) => (shed.workload.clone(), shed.worth),
                None => (workload.as_str().into(), worth),
            };
            lost.add(what);
            if what != Worth::Required {
                self.lost.entry(whose).or_default().add(what);
            }
            if shed.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Audit, Outcome};
    use super::super::slip::{Slip, Written};
    use super::super::testing::recorded;
    use super::*;

    fn of(workload: &str, at: i64, is_precious: bool) -> Entry {
        let outcome = if is_precious { Outcome::Deny } else { Outcome::Allow };
        let mut recorded = recorded("AAAA-0000-0001", outcome, at);
        // All of them are as long.
        (recorded.workload, recorded.reason) = (workload.to_owned(), String::new());
        Entry::Decision(Arc::new(recorded))
    }

    fn required(workload: &str, at: i64) -> (Queued, Written) {
        let (slip, written) = Slip::new();
        let Entry::Decision(mut recorded) = of(workload, at, false) else { panic!() };
        Arc::make_mut(&mut recorded).audit = Audit::Required;
        (Queued { entry: Entry::Decision(recorded), ticket: Some(slip.ticket(7)) }, written)
    }

    fn queue(ordinary: usize, reserve: usize) -> Queue {
        let one = of("a", 0, false).weight();
        Queue::new(Room { ordinary: ordinary * one, reserve: reserve * one })
    }

    fn push(queue: &Queue, at: i64, is_precious: bool) -> Lost {
        queue.push([of("a", at, is_precious).into()])
    }

    fn times(batch: &Batch) -> Vec<i64> {
        batch.entries.iter().map(|entry| entry.time().0).collect()
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
        assert_eq!(times(&batch), [4, 5, 6, 7]);
        let lost = LostByWorkload::from([("a".into(), Lost { in_full: 1, other: 3 })]);
        assert_eq!((batch.lost, batch.is_last), (lost, false));
        assert_eq!(queue.take(10, Duration::ZERO).lost, LostByWorkload::default(), "it is told once");
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

    /// One pod says that everything it sends is a refusal, or required.
    #[test]
    fn who_floods_loses_its_own_and_nobody_else_loses_anything() {
        let queue = queue(4, 4);
        queue.push([of("b", 1, false).into(), of("b", 2, true).into()]);
        let (mut all, mut waits) = (Lost::default(), Vec::new());
        for at in 10..1_000 {
            let flood = match at % 3 {
                0 => of("a", at, false).into(),
                1 => of("a", at, true).into(),
                _ => {
                    let (queued, written) = required("a", at);
                    waits.push(written);
                    queued
                }
            };
            let lost = queue.push([flood]);
            all = Lost { in_full: all.in_full + lost.in_full, other: all.other + lost.other };
            if at == 500 {
                assert_eq!(queue.push([of("c", 3, false).into(), of("c", 4, true).into()]).other, 0);
            }
        }
        let batch = queue.take(100, Duration::ZERO);
        assert_eq!(times(&batch)[..4], [1, 2, 3, 4]);
        assert_eq!(batch.entries.len(), 8);
        assert_eq!(batch.lost.keys().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
        assert!(all.all() > 600 && all.all() < 990, "{all:?}");
    }

    #[tokio::test]
    async fn what_is_required_goes_last_and_whoever_waits_for_it_is_told() {
        let queue = queue(1, 1);
        let (first, written) = required("a", 1);
        assert_eq!(queue.push([first]), Lost::default());
        assert_eq!(push(&queue, 2, true), Lost::default());
        let (second, second_written) = required("a", 3);
        assert_eq!(queue.push([second]), Lost { in_full: 1, other: 0 }, "the refusal makes room");
        let (third, third_written) = required("a", 4);
        assert_eq!(queue.push([third]), Lost::default(), "it comes again");
        assert_eq!(third_written.unwritten().await, [7]);
        let batch = queue.take(10, Duration::ZERO);
        assert_eq!(times(&batch), [1, 3]);
        let mut tickets = batch.tickets.into_iter();
        tickets.next().unwrap().written();
        drop(tickets);
        assert_eq!((written.unwritten().await, second_written.unwritten().await), (vec![], vec![7]));
    }
}
