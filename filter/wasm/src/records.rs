//! Decision records on their way to the control plane.
//!
//! Requests never wait for them: what there is no room for is dropped and counted. Refusals, and what a rule wants in full,
//! have room that samples do not get; and what a rule requires has room that nothing else gets, and goes first, so that
//! however many are refused nobody is refused for want of room who could have passed. What was sent is kept until it is
//! acknowledged, and sent again over the next stream if this one ends before: the control plane knows by its id what it has
//! already.
//!
//! INVARIANT: bounded, however many requests there are and however long nobody takes them. What is missing is said: every
//! record that was dropped is in the count of a later batch.

use std::collections::VecDeque;
use std::mem;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tidegate_proto::v1 as pb;

use crate::stream::Pauses;

/// Bytes of records that are kept, those that were sent and not acknowledged included, give or take one record.
const MAX_BYTES: usize = 1 << 20;

/// Bytes of an entry beside its record, roughly.
const ENTRY_BYTES: usize = 32;

/// Bytes of a batch, of the 64 KiB that the control plane accepts.
const BATCH_BYTES: usize = 48 << 10;

/// As many records are sent without waiting for the next tick.
const BATCH_RECORDS: usize = 64;

/// Batches that may be on their way at once.
const WINDOW: usize = 4;

/// `ReportRequest.records`.
const RECORDS_TAG: u32 = 3;

/// Which room a record gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A sample: half of the room.
    Sample,
    /// To be complete, as far as it can be: three quarters.
    Full,
    /// Nothing passes without it: all of it.
    Required,
}

/// Records that wait, and the stream that takes them.
#[derive(Debug, Default)]
pub struct Records {
    stream: Stream,
    pauses: Pauses,
    /// Something is to be sent, or has to be at once when it comes: the stream is wanted.
    wanted: bool,
    required: VecDeque<Vec<u8>>,
    others: VecDeque<Vec<u8>>,
    sent: VecDeque<Batch>,
    bytes: usize,
    /// Of the last batch of this stream.
    sequence: u64,
    missing: Missing,
    /// Counts of what was not sampled are to be said, even if nothing else is.
    tells_counts: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// May be opened from this time on, in milliseconds.
    Closed(u64),
    /// With the host's token.
    Open(u32),
    /// Not wanted yet.
    #[default]
    New,
}

#[derive(Debug)]
struct Batch {
    sequence: u64,
    required: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
    missing: Missing,
}

/// What no record tells of, since the last batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Missing {
    dropped: u64,
    dropped_in_full: u64,
    unsampled: u64,
}

// === impl Class ===

impl Class {
    const fn room(self) -> usize {
        match self {
            Self::Sample => MAX_BYTES / 2,
            Self::Full => MAX_BYTES / 4 * 3,
            Self::Required => MAX_BYTES,
        }
    }
}

// === impl Records ===

impl Records {
    /// The stream is to be there before something has to be recorded.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether a record that must not be lost can be taken now: it has somewhere to go, and there is room for it.
    pub fn can_take(&self) -> bool {
        matches!(self.stream, Stream::Open(_)) && self.has_room(Class::Required)
    }

    /// An allowed request of which no record is made.
    pub fn skip(&mut self) {
        self.missing.unsampled = self.missing.unsampled.saturating_add(1);
    }

    /// Counts of requests without a record are to be said soon; otherwise they wait for the next record.
    pub fn tell_counts(&mut self) {
        self.tells_counts = true;
    }

    /// Whether there is room for a record.
    pub fn has_room(&self, class: Class) -> bool {
        self.bytes < class.room()
    }

    /// A record was not made because there is no room for it.
    pub fn drop_one(&mut self, class: Class) {
        let in_full = u64::from(class != Class::Sample);
        self.missing.dropped = self.missing.dropped.saturating_add(1);
        self.missing.dropped_in_full = self.missing.dropped_in_full.saturating_add(in_full);
    }

    /// Keeps a record (`DecisionRecord`) until it is acknowledged.
    pub fn push(&mut self, record: Vec<u8>, class: Class) {
        self.wanted = true;
        self.bytes = self.bytes.saturating_add(weight(&record));
        let waiting = if class == Class::Required { &mut self.required } else { &mut self.others };
        waiting.push_back(record);
    }

    /// Whether so many wait that they should not wait for the next tick.
    pub fn is_pressing(&self) -> bool {
        self.required.len().saturating_add(self.others.len()) >= BATCH_RECORDS
            && self.sent.len() < WINDOW
            && matches!(self.stream, Stream::Open(_))
    }

    /// Whether it is time to open the stream; `now_ms` is wall clock.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.wanted
            && match self.stream {
                Stream::New => true,
                Stream::Closed(due) => now_ms >= due,
                Stream::Open(_) => false,
            }
    }

    /// The stream was opened.
    pub fn opened(&mut self, token: u32) {
        self.stream = Stream::Open(token);
        self.sequence = 0;
    }

    /// The token of the open stream.
    pub fn token(&self) -> Option<u32> {
        match self.stream {
            Stream::Open(token) => Some(token),
            Stream::New | Stream::Closed(_) => None,
        }
    }

    /// The stream could not be opened, or was closed. What was not acknowledged is sent again.
    pub fn closed(&mut self, now_ms: u64, random: u64) {
        self.stream = Stream::Closed(now_ms.saturating_add(self.pauses.next(random)));
        while let Some(batch) = self.sent.pop_back() {
            for entry in batch.required.into_iter().rev() {
                self.required.push_front(entry);
            }
            for entry in batch.others.into_iter().rev() {
                self.others.push_front(entry);
            }
            self.missing.add(batch.missing);
        }
    }

    /// Every batch up to this one has been taken.
    pub fn acknowledged(&mut self, message: &[u8]) {
        let Ok(pb::ReportResponse { sequence }) = pb::ReportResponse::decode(message) else { return };
        self.pauses.reset();
        while let Some(batch) = self.sent.pop_front_if(|batch| batch.sequence <= sequence) {
            let entries = batch.required.iter().chain(&batch.others);
            let bytes = entries.fold(0, |sum: usize, entry| sum.saturating_add(weight(entry)));
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// The next batch to be sent, if there is something to say and it may be said now. `who`: as in `Hello`; said in the first
    /// batch of a stream.
    pub fn batch(&mut self, vm: &pb::VmId, who: impl FnOnce() -> pb::WorkloadHint) -> Option<Vec<u8>> {
        if !matches!(self.stream, Stream::Open(_)) || self.sent.len() >= WINDOW {
            return None;
        }
        let counts = self.missing.dropped > 0 || (self.tells_counts && self.missing.unsampled > 0);
        if self.required.is_empty() && self.others.is_empty() && !counts {
            return None;
        }
        self.tells_counts = false;
        self.sequence = self.sequence.saturating_add(1);
        let missing = mem::take(&mut self.missing);
        let mut message = pb::ReportRequest {
            sequence: self.sequence,
            vm: Some(vm.clone()),
            records: Vec::new(),
            dropped: missing.dropped,
            dropped_in_full: missing.dropped_in_full,
            unsampled: missing.unsampled,
            workload: (self.sequence == 1).then(who),
        }
        .encode_to_vec();
        let required = fill(&mut message, &mut self.required, true);
        let others = fill(&mut message, &mut self.others, required.is_empty());
        self.sent.push_back(Batch { sequence: self.sequence, required, others, missing });
        Some(message)
    }
}

/// Moves records into a message (`ReportRequest`), as many as fit. `one`: one at least.
fn fill(message: &mut Vec<u8>, waiting: &mut VecDeque<Vec<u8>>, one: bool) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let Some(entry) = waiting.pop_front_if(|entry| {
        (one && entries.is_empty()) || message.len().saturating_add(weight(entry)) <= BATCH_BYTES
    }) {
        encode_key(RECORDS_TAG, WireType::LengthDelimited, message);
        encode_varint(u64::try_from(entry.len()).unwrap_or(u64::MAX), message);
        message.extend_from_slice(&entry);
        entries.push(entry);
    }
    entries
}

// === impl Missing ===

impl Missing {
    fn add(&mut self, other: Self) {
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.dropped_in_full = self.dropped_in_full.saturating_add(other.dropped_in_full);
        self.unsampled = self.unsampled.saturating_add(other.unsampled);
    }
}

fn weight(record: &[u8]) -> usize {
    record.len().saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests;
