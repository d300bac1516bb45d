//! Requests that were allowed and still live: what allowed them may end before they do.
//!
//! A stream may outlive its token by hours, and rules change under it. So each allowed request is kept here, as it was
//! sent, until the proxy deletes its context; it is decided again when a token expires and after everything that is
//! newly enforced. What is no longer allowed is ended.
//!
//! Looking at all of them takes time, which the worker thread needs for requests: it is done in slices, from the last
//! to the first.
//!
//! INVARIANT: every entry is of a live context, at most one per context. An entry that is ended is gone before the proxy
//! is asked to end the stream, so that this is never asked twice.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use tidegate_engine::body::FieldValue;
use tidegate_engine::model::BodyField;

use crate::request::Received;

/// Bytes of headers that may be kept per VM and configuration, of the 1 GiB that a VM can have. Requests beyond are
/// refused: what could not be ended is not begun.
const MAX_BYTES: usize = 256 << 20;

/// Bytes of an entry beside its headers, roughly.
const ENTRY_BYTES: usize = 128;

/// Requests that live.
#[derive(Debug, Default)]
pub struct Leases {
    entries: Vec<Entry>,
    /// Where a context's entry is.
    index: HashMap<u32, usize, BuildHasherDefault<ContextHasher>>,
    bytes: usize,
    /// Counts what was enforced; entries with another count have not been decided on by it.
    enforced: u32,
    /// Entries before this one have still to be looked at.
    remaining: usize,
    /// And then all of them once more: something else was enforced meanwhile. (Beginning anew each time would never get to
    /// the first ones while pushes come faster than entries can be looked at.)
    once_more: bool,
    /// No entry is due earlier; Unix seconds.
    next_due: i64,
}

/// A request that was allowed.
#[derive(Debug)]
pub struct Lease {
    /// Its context.
    pub context: u32,
    /// As it was sent.
    pub received: Received,
    /// How long it may go on.
    pub terms: Terms,
    /// What was recorded of it, to be compared; 0: nothing had to be.
    pub told: u64,
}

/// What bounds a request that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When the first of its tokens ceases to be accepted, in Unix seconds; `i64::MAX` without tokens.
    pub expires_at: i64,
    /// For how many seconds afterwards it may go on; `u32::MAX`: for ever.
    pub grace_s: u32,
    /// When something else that it rests on ends, in Unix seconds: its issuer's keys, its issuer, a directory, the hours of
    /// a rule. It is decided on again then, whatever the grace; `i64::MAX`: nothing does.
    pub again_at: i64,
}

#[derive(Debug)]
struct Entry {
    lease: Lease,
    /// Unix seconds.
    due: i64,
    enforced: u32,
}

/// Context ids are small numbers that the proxy chooses.
#[derive(Debug, Default)]
pub(crate) struct ContextHasher(u64);

// === impl Terms ===

impl Terms {
    /// For what no token bounds.
    pub const UNBOUNDED: Self = Self { expires_at: i64::MAX, grace_s: 0, again_at: i64::MAX };

    fn due(self) -> i64 {
        let expires = match self.grace_s {
            u32::MAX => i64::MAX,
            grace_s => self.expires_at.saturating_add(i64::from(grace_s)),
        };
        expires.min(self.again_at)
    }
}

// === impl Leases ===

impl Leases {
    /// Whether there is room for one more.
    pub fn has_room(&self, received: &Received) -> bool {
        self.bytes.saturating_add(received.bytes()).saturating_add(ENTRY_BYTES) <= MAX_BYTES
    }

    /// Keeps a request that has just been allowed; false: there is no room, and it must not go on.
    #[must_use]
    pub fn admit(&mut self, lease: Lease) -> bool {
        self.forget(lease.context);
        if !self.has_room(&lease.received) {
            return false;
        }
        self.bytes = self.bytes.saturating_add(weight(&lease));
        self.index.insert(lease.context, self.entries.len());
        let due = lease.terms.due();
        self.next_due = if self.entries.is_empty() { due } else { self.next_due.min(due) };
        self.entries.push(Entry { due, enforced: self.enforced, lease });
        true
    }

    /// The proxy has deleted the context, or it is to be ended.
    pub fn forget(&mut self, context: u32) {
        let Some(position) = self.index.remove(&context) else { return };
        if position >= self.entries.len() {
            return;
        }
        let gone = self.entries.swap_remove(position);
        self.bytes = self.bytes.saturating_sub(weight(&gone.lease));
        if let Some(moved) = self.entries.get(position) {
            self.index.insert(moved.lease.context, position);
        }
    }

    /// Something else is enforced from now on: all have to be decided on again.
    pub fn question_all(&mut self) {
        self.enforced = self.enforced.wrapping_add(1);
        if self.remaining == 0 {
            self.remaining = self.entries.len();
        } else {
            self.once_more = true;
        }
    }

    /// Whether some have still to be looked at.
    pub fn has_remaining(&self) -> bool {
        self.remaining > 0 || self.once_more
    }

    /// The position of the next one that has to be decided on again. It comes again unless it is [renewed](Self::renew)
    /// or [forgotten](Self::forget).
    pub fn next(&mut self, now: i64) -> Option<usize> {
        loop {
            if self.remaining == 0 && (self.once_more || now >= self.next_due) {
                self.remaining = self.entries.len();
                self.once_more = false;
                self.next_due = i64::MAX;
            }
            self.remaining = self.remaining.min(self.entries.len());
            while let Some(position) = self.remaining.checked_sub(1) {
                let Some(entry) = self.entries.get(position) else { break };
                if entry.enforced != self.enforced || entry.due <= now {
                    return Some(position);
                }
                self.next_due = self.next_due.min(entry.due);
                self.remaining = position;
            }
            if !self.once_more {
                return None;
            }
        }
    }

    /// The one at this position.
    pub fn get(&self, position: usize) -> Option<&Lease> {
        self.entries.get(position).map(|entry| &entry.lease)
    }

    /// Where a context's entry is.
    pub fn position(&self, context: u32) -> Option<usize> {
        self.index.get(&context).copied()
    }

    /// The one at this position has a body that says this, as far as it was read.
    pub fn set_body(&mut self, position: usize, fields: Vec<(BodyField, FieldValue)>) {
        if let Some(entry) = self.entries.get_mut(position) {
            // Bounded per body; what there was room for when it was admitted may grow by so much.
            self.bytes = self.bytes.saturating_sub(weight(&entry.lease));
            entry.lease.received.set_body(fields);
            self.bytes = self.bytes.saturating_add(weight(&entry.lease));
        }
    }

    /// This was recorded of the one at this position.
    pub fn set_told(&mut self, position: usize, told: u64) {
        if let Some(entry) = self.entries.get_mut(position) {
            entry.lease.told = told;
        }
    }

    /// The one at this position is still allowed, on these terms. It is due again no sooner than in a second.
    pub fn renew(&mut self, position: usize, terms: Terms, now: i64) {
        let enforced = self.enforced;
        if let Some(entry) = self.entries.get_mut(position) {
            entry.lease.terms = terms;
            entry.due = terms.due().max(now.saturating_add(1));
            entry.enforced = enforced;
            self.next_due = self.next_due.min(entry.due);
        }
        self.remaining = self.remaining.min(position);
    }
}

#[cfg(test)]
impl Leases {
    /// The contexts whose requests live.
    pub fn contexts(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| entry.lease.context)
    }
}

fn weight(lease: &Lease) -> usize {
    lease.received.bytes().saturating_add(ENTRY_BYTES)
}

// === impl ContextHasher ===

impl Hasher for ContextHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, context: u32) {
        self.0 = (self.0 ^ u64::from(context)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests;
