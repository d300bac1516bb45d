//! How much of the server one principal may use.
//!
//! Streams and connections are counted, messages, bytes and openings metered, per principal; and messages per stream, so
//! that one filter that talks too much is ended before it uses up what its principal has.
//!
//! Decision records have meters of their own, and who sends more than its share waits: it is not read on, and nothing is
//! acknowledged, so that a filter has to keep what it cannot send. Only a caller that pays for batches and goes away before
//! it has waited is refused ([`StreamPass::batch`]).
//!
//! INVARIANT: what one principal uses is never taken from another one's: of what all share (connections, bytes of unfinished
//! messages) nobody can have so much that others get nothing.
//!
//! # What one principal can make the server hold
//!
//! With the limits that there are unless others are asked for, and counting what it may send and not what filters do send
//! ([`QuotaOptions::worst_case`], which a test compares with this table):
//!
//! | what | how many | each | together |
//! | --- | --- | --- | --- |
//! | connections: a record of TLS, a frame of HTTP/2, tables of header compression | 2 048 | 48 KiB | 96 MiB |
//! | streams: what was sent and is not read, as its window allows; as much that is read and not looked at yet | 4 096 | 16 KiB | 64 MiB |
//! | streams: what is remembered of each | 4 096 | 16 KiB | 64 MiB |
//! | messages that are not finished | | | 4 MiB |
//! | **one principal** | | | **228 MiB** |
//!
//! A stream holds one unfinished message of at most 64 KiB, for at most 30 s; batches of records wait among them, at most
//! 48 of a principal, undecoded. All principals together have 16 384 connections
//! and 64 MiB of unfinished messages; one that has less than 64 KiB of these may always have more. So eight principals that
//! do their worst are **1 824 MiB**, and have all connections that there are.
//!
//! Behind a sidecar connections are the sidecar's: streams are counted and bytes metered as everywhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::VerifiedPeer;
use crate::bucket::TokenBucket;

/// How many principals are remembered before those that are gone are forgotten.
const MAX_REMEMBERED: usize = 4_096;
/// For how long what a principal used is remembered at least: longer than any bucket takes to fill.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Largest message of a filter, in bytes.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;
/// What a filter may send ahead on one stream, in bytes.
pub(crate) const STREAM_WINDOW: u32 = 8 << 10;
/// Streams of one connection. A proxy has one for each filter of a worker thread; a sidecar passes on those of many.
pub(crate) const STREAMS_PER_CONNECTION: u32 = 256;
/// What a filter may send ahead on one connection, in bytes: as much as on all of its streams, so that none that is not read
/// stops the others.
pub(crate) const CONNECTION_WINDOW: u32 = STREAMS_PER_CONNECTION * STREAM_WINDOW;
/// Batches of records of one principal that may be read at once: those that wait are never too many unfinished messages.
const TURNS: usize = 48;
/// Most records of a batch.
pub(crate) const MAX_RECORDS: usize = 1_024;
/// As many records a batch costs besides those that are in it.
const BATCH_COST: u32 = 8;
/// Bytes of unfinished messages that one principal may have. What is no longer than a window is counted with its stream.
const UNFINISHED: usize = 4 << 20;
/// Bytes of unfinished messages that all principals may have together.
const ALL_UNFINISHED: usize = 64 << 20;
/// Bytes of unfinished messages that one may have whatever others have: one message.
const ALWAYS_UNFINISHED: usize = MAX_MESSAGE;
/// What a connection holds whatever is sent on it, in bytes: a record of TLS (16 KiB), a frame of HTTP/2 (16 KiB) and its
/// headers, and two tables of header compression (4 KiB each).
const CONNECTION_BYTES: usize = 48 << 10;
/// What is remembered of a stream, in bytes: its state, what its filter said of itself, and its place in the fleet.
const STREAM_BYTES: usize = 16 << 10;

/// How much one principal may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaOptions {
    /// Open connections. A proxy has one per worker and one more.
    pub connections: u32,
    /// Open connections of all principals together.
    pub all_connections: u32,
    /// Open streams. A proxy has one or two on each connection.
    pub streams: u32,
    /// Messages per second, over all streams, without batches of records.
    pub messages_per_second: u32,
    /// Bytes per second that it sends, over all streams; as many again in batches of records.
    pub bytes_per_second: u32,
    /// Decision records per second, over all streams.
    pub records_per_second: u32,
}

/// What principals use.
#[derive(Debug)]
pub(crate) struct Quotas {
    options: QuotaOptions,
    shared: Arc<Shared>,
    accounts: Mutex<HashMap<VerifiedPeer, Arc<Account>>>,
}

/// What all use.
#[derive(Debug, Default)]
struct Shared {
    connections: AtomicU32,
    unfinished: AtomicUsize,
}

/// What one principal uses.
#[derive(Debug)]
struct Account {
    streams: AtomicU32,
    connections: AtomicU32,
    unfinished: AtomicUsize,
    shared: Arc<Shared>,
    meters: Mutex<Meters>,
    /// Who has one reads a batch of records; the others wait in turn.
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Meters {
    openings: TokenBucket,
    messages: TokenBucket,
    bytes: TokenBucket,
    /// Of batches of records.
    records: TokenBucket,
    record_bytes: TokenBucket,
    used_at: Instant,
}

/// Counts a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPass {
    shared: Arc<Shared>,
    /// Absent where the connection is not its principal's own.
    account: Option<Arc<Account>>,
}

/// Counts bytes of an unfinished message until it is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    account: Arc<Account>,
    bytes: usize,
}

/// Counts a stream until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPass {
    account: Arc<Account>,
    messages: TokenBucket,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Connections,
    AllConnections,
    Unfinished,
    Streams,
    Openings,
    StreamMessages,
    Messages,
    Bytes,
    Records,
}

// === impl Quotas ===

impl Quotas {
    pub(crate) fn new(options: QuotaOptions) -> Self {
        Self { options, shared: Arc::default(), accounts: Mutex::default() }
    }

    /// One more connection, if there may be: of a principal, or one that is shared by many or by nobody.
    pub(crate) fn connect(&self, peer: Option<&VerifiedPeer>) -> Result<ConnectionPass, Exceeded> {
        let account = peer.map(|peer| self.account(peer));
        if let Some(account) = &account
            && !enter(&account.connections, self.options.connections)
        {
            return Err(Exceeded::Connections);
        }
        if !enter(&self.shared.connections, self.options.all_connections) {
            account.inspect(|account| leave(&account.connections));
            return Err(Exceeded::AllConnections);
        }
        Ok(ConnectionPass { shared: self.shared.clone(), account })
    }

    /// One more stream.
    pub(crate) fn open(&self, peer: &VerifiedPeer) -> Result<StreamPass, Exceeded> {
        let account = self.account(peer);
        let now = Instant::now();
        if !account.meter(now, |meters| meters.openings.take(now)) {
            return Err(Exceeded::Openings);
        }
        if !enter(&account.streams, self.options.streams) {
            return Err(Exceeded::Streams);
        }
        // A filter acknowledges, states what it enforces, and asks for ids while it holds at most some hundred requests.
        let messages = bucket(self.options.messages_per_second.div_ceil(4), 10);
        Ok(StreamPass { account, messages })
    }

    fn account(&self, peer: &VerifiedPeer) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(peer) {
            return account.clone();
        }
        let now = Instant::now();
        if accounts.len() >= MAX_REMEMBERED {
            accounts.retain(|_, account| Arc::strong_count(account) > 1 || account.is_recent(now));
        }
        let account = Arc::new(Account::new(&self.options, self.shared.clone(), now));
        accounts.insert(peer.clone(), account.clone());
        account
    }
}

/// So many per second, and as many at once as come up in some seconds.
fn bucket(per_second: u32, seconds: u32) -> TokenBucket {
    let per_second = per_second.max(1);
    TokenBucket::new(per_second.saturating_mul(seconds), Duration::from_secs(1) / per_second)
}

/// Whether there was room for one more.
fn enter(count: &AtomicU32, most: u32) -> bool {
    count.try_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < most).then(|| count + 1)).is_ok()
}

fn leave(count: &AtomicU32) {
    count.fetch_sub(1, Ordering::AcqRel);
}

// === impl Account ===

impl Account {
    fn new(options: &QuotaOptions, shared: Arc<Shared>, now: Instant) -> Self {
        // Everything may come back at once after a restart, and then again now and then.
        let refill = Duration::from_secs(30) / options.streams.max(1);
        Self {
            streams: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            unfinished: AtomicUsize::new(0),
            shared,
            meters: Mutex::new(Meters {
                openings: TokenBucket::new(options.streams.saturating_mul(2).max(1), refill),
                messages: bucket(options.messages_per_second, 10),
                bytes: bucket(options.bytes_per_second, 4),
                records: bucket(options.records_per_second, 2),
                record_bytes: bucket(options.bytes_per_second, 2),
                used_at: now,
            }),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    fn meter<T>(&self, now: Instant, act: impl FnOnce(&mut Meters) -> T) -> T {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.used_at = now;
        act(&mut meters)
    }

    fn is_recent(&self, now: Instant) -> bool {
        let meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        now.duration_since(meters.used_at) < REMEMBERED
    }
}

// === impl ConnectionPass ===

impl Drop for ConnectionPass {
    fn drop(&mut self) {
        leave(&self.shared.connections);
        if let Some(account) = &self.account {
            leave(&account.connections);
        }
    }
}

// === impl Unfinished ===

impl Unfinished {
    /// So many bytes are unfinished now.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let (own, all) = (&self.account.unfinished, &self.account.shared.unfinished);
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            let of_own = own.fetch_add(more, Ordering::AcqRel).saturating_add(more);
            let of_all = all.fetch_add(more, Ordering::AcqRel).saturating_add(more);
            self.bytes = bytes;
            let is_free = of_own <= ALWAYS_UNFINISHED;
            return if is_free || (of_own <= UNFINISHED && of_all <= ALL_UNFINISHED) {
                Ok(())
            } else {
                Err(Exceeded::Unfinished)
            };
        }
        let less = self.bytes.saturating_sub(bytes);
        own.fetch_sub(less, Ordering::AcqRel);
        all.fetch_sub(less, Ordering::AcqRel);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // To hold less is never refused.
        let _ = self.hold(0);
    }
}

// === impl StreamPass ===

impl StreamPass {
    /// For what comes on this stream.
    pub(crate) fn unfinished(&self) -> Unfinished {
        Unfinished { account: self.account.clone(), bytes: 0 }
    }

    /// A message of this many bytes came.
    pub(crate) fn message(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let now = Instant::now();
        if !self.messages.take(now) {
            return Err(Exceeded::StreamMessages);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.account.meter(now, |meters| {
            if !meters.messages.take(now) {
                Err(Exceeded::Messages)
            } else if !meters.bytes.take_many(bytes, now) {
                Err(Exceeded::Bytes)
            } else {
                Ok(())
            }
        })
    }

    /// Waits for the leave to read a batch of records, which lasts until it is dropped.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.account.turns.clone().acquire_owned().await.ok()
    }

    /// A batch of so many records in so many bytes came: how long it has to wait until it may be looked at. Whoever has a
    /// turn and waits never owes more than all turns together; those who do not wait do, and are refused.
    pub(crate) fn batch(&self, records: usize, bytes: usize) -> Result<Duration, Exceeded> {
        let now = Instant::now();
        let cost = u32::try_from(records).unwrap_or(u32::MAX).saturating_add(BATCH_COST);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.account.meter(now, |meters| {
            let by_records = meters.records.owe(cost, all_turns(MAX_RECORDS), now);
            let by_bytes = meters.record_bytes.owe(bytes, all_turns(MAX_MESSAGE), now);
            by_records.zip(by_bytes).map(|(records, bytes)| records.max(bytes)).ok_or(Exceeded::Records)
        })
    }
}

/// Twice what everybody who has a turn can send, where one batch is so large.
fn all_turns(largest: usize) -> u32 {
    let largest = u32::try_from(largest).unwrap_or(u32::MAX).saturating_add(BATCH_COST);
    u32::try_from(2 * TURNS).unwrap_or(u32::MAX).saturating_mul(largest)
}

impl Drop for StreamPass {
    fn drop(&mut self) {
        leave(&self.account.streams);
    }
}

// === impl Exceeded ===

impl Exceeded {
    /// For metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::AllConnections => "all_connections",
            Self::Unfinished => "unfinished_bytes",
            Self::Streams => "streams",
            Self::Openings => "stream_openings",
            Self::StreamMessages => "stream_messages",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Records => "records",
        }
    }

    /// For the peer.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Connections => {
                "too many open connections for this service account (`--max-connections-per-principal`)"
            }
            Self::AllConnections => "too many open connections (`--max-connections`)",
            Self::Unfinished => "too many messages are begun and not finished",
            Self::Streams => "too many open streams for this service account (`--max-streams-per-principal`)",
            Self::Openings => "streams are opened too often for this service account",
            Self::StreamMessages => "too many messages on this stream",
            Self::Messages => {
                "too many messages per second for this service account (`--max-messages-per-principal`)"
            }
            Self::Bytes => "too many bytes per second for this service account (`--max-bytes-per-principal`)",
            Self::Records => {
                "batches of records are sent on streams that are given up while they wait, too many for this service account \
                 (`--max-records-per-principal`)"
            }
        }
    }
}

// === impl QuotaOptions ===

impl Default for QuotaOptions {
    fn default() -> Self {
        Self {
            connections: 2_048,
            all_connections: 16_384,
            streams: 4_096,
            messages_per_second: 2_000,
            bytes_per_second: 8 << 20,
            records_per_second: 20_000,
        }
    }
}

impl QuotaOptions {
    /// The most that one principal can make the server hold, and the most that all can, in bytes.
    pub fn worst_case(&self) -> (usize, usize) {
        let many =
            |count: u32, each: usize| usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(each);
        let window = usize::try_from(STREAM_WINDOW).unwrap_or(usize::MAX);
        let per_stream = window.saturating_mul(2).saturating_add(STREAM_BYTES);
        let own = many(self.connections, CONNECTION_BYTES).saturating_add(many(self.streams, per_stream));
        let principals = self.all_connections.div_ceil(self.connections.max(1));
        let each = own.saturating_add(UNFINISHED);
        // Streams need connections, so only so many principals can have all of theirs.
        (each, many(principals, own).saturating_add(many(principals, UNFINISHED).min(ALL_UNFINISHED)))
    }
}

#[cfg(test)]
mod tests;
