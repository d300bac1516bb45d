//! How much of the server one principal may use.
//!
//! Streams and connections are counted, messages, bytes and openings metered, per principal; and messages per stream, so
//! that one filter that talks too much is ended before it uses up what its principal has.
//!
//! INVARIANT: what one principal uses is never taken from another one's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::VerifiedPeer;
use crate::bucket::TokenBucket;

/// How many principals are remembered before those that are gone are forgotten.
const MAX_REMEMBERED: usize = 4_096;
/// For how long what a principal used is remembered at least: longer than any bucket takes to fill.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How much one principal may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaOptions {
    /// Open streams. A proxy has one per worker and one more.
    pub streams: u32,
    /// Messages per second, over all streams.
    pub messages_per_second: u32,
    /// Bytes per second that it sends, over all streams.
    pub bytes_per_second: u32,
}

/// What principals use.
#[derive(Debug)]
pub(crate) struct Quotas {
    options: QuotaOptions,
    accounts: Mutex<HashMap<VerifiedPeer, Arc<Account>>>,
}

/// What one principal uses.
#[derive(Debug)]
struct Account {
    streams: AtomicU32,
    connections: AtomicU32,
    meters: Mutex<Meters>,
}

#[derive(Debug)]
struct Meters {
    openings: TokenBucket,
    messages: TokenBucket,
    bytes: TokenBucket,
    used_at: Instant,
}

/// Counts a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPass(Arc<Account>);

/// Counts a stream until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPass {
    account: Arc<Account>,
    messages: TokenBucket,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Streams,
    Openings,
    StreamMessages,
    Messages,
    Bytes,
}

// === impl Quotas ===

impl Quotas {
    pub(crate) fn new(options: QuotaOptions) -> Self {
        Self { options, accounts: Mutex::default() }
    }

    /// One more connection, if there may be.
    pub(crate) fn connect(&self, peer: &VerifiedPeer) -> Option<ConnectionPass> {
        let account = self.account(peer);
        let pass = enter(&account.connections, self.options.streams);
        pass.then(|| ConnectionPass(account))
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
        let account = Arc::new(Account::new(&self.options, now));
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
    fn new(options: &QuotaOptions, now: Instant) -> Self {
        // Everything may come back at once after a restart, and then again now and then.
        let refill = Duration::from_secs(30) / options.streams.max(1);
        Self {
            streams: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            meters: Mutex::new(Meters {
                openings: TokenBucket::new(options.streams.saturating_mul(2).max(1), refill),
                messages: bucket(options.messages_per_second, 10),
                bytes: bucket(options.bytes_per_second, 4),
                used_at: now,
            }),
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
        leave(&self.0.connections);
    }
}

// === impl StreamPass ===

impl StreamPass {
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
            Self::Streams => "streams",
            Self::Openings => "stream_openings",
            Self::StreamMessages => "stream_messages",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
        }
    }

    /// For the peer.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Streams => "too many open streams for this service account (`--max-streams-per-principal`)",
            Self::Openings => "streams are opened too often for this service account",
            Self::StreamMessages => "too many messages on this stream",
            Self::Messages => {
                "too many messages per second for this service account (`--max-messages-per-principal`)"
            }
            Self::Bytes => "too many bytes per second for this service account (`--max-bytes-per-principal`)",
        }
    }
}

// === impl QuotaOptions ===

impl Default for QuotaOptions {
    fn default() -> Self {
        Self { streams: 4_096, messages_per_second: 2_000, bytes_per_second: 8 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: QuotaOptions =
        QuotaOptions { streams: 2, messages_per_second: 4, bytes_per_second: 1_000 };

    fn peer(name: &str) -> VerifiedPeer {
        format!("spiffe://td/ns/a/sa/{name}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_counted_per_principal() {
        let quotas = Quotas::new(OPTIONS);
        let one = quotas.open(&peer("one")).unwrap();
        let _two = quotas.open(&peer("one")).unwrap();
        assert_eq!(quotas.open(&peer("one")).unwrap_err(), Exceeded::Streams);
        assert!(quotas.open(&peer("two")).is_ok(), "another principal has its own");
        drop(one);
        assert!(quotas.open(&peer("one")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_counted_per_principal() {
        let quotas = Quotas::new(OPTIONS);
        let one = quotas.connect(&peer("one")).unwrap();
        let _two = quotas.connect(&peer("one")).unwrap();
        assert!(quotas.connect(&peer("one")).is_none());
        assert!(quotas.connect(&peer("two")).is_some());
        drop(one);
        assert!(quotas.connect(&peer("one")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn openings_are_metered() {
        let quotas = Quotas::new(OPTIONS);
        let opened = (0..100).filter(|_| quotas.open(&peer("one")).is_ok()).count();
        assert_eq!(opened, 4);
        assert_eq!(quotas.open(&peer("one")).unwrap_err(), Exceeded::Openings);
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(quotas.open(&peer("one")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_talks_too_much_leaves_something_to_the_others() {
        let quotas = Quotas::new(OPTIONS);
        let mut loud = quotas.open(&peer("one")).unwrap();
        let mut quiet = quotas.open(&peer("one")).unwrap();
        let passed = (0..100).filter(|_| loud.message(1).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(loud.message(1), Err(Exceeded::StreamMessages));
        assert_eq!(quiet.message(1), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(loud.message(1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_metered_over_all_streams() {
        let quotas = Quotas::new(OPTIONS);
        let (mut one, mut two) = (quotas.open(&peer("one")).unwrap(), quotas.open(&peer("one")).unwrap());
        assert_eq!(one.message(3_000), Ok(()));
        assert_eq!(two.message(2_000), Err(Exceeded::Bytes));
        assert_eq!(two.message(1_000), Ok(()));
        let mut other = quotas.open(&peer("two")).unwrap();
        assert_eq!(other.message(4_000), Ok(()));
        assert_eq!(other.message(usize::MAX), Err(Exceeded::Bytes));
    }

    #[tokio::test(start_paused = true)]
    async fn coming_back_does_not_refill_anything_and_those_long_gone_are_forgotten() {
        let quotas = Quotas::new(OPTIONS);
        for number in 0..MAX_REMEMBERED * 2 {
            drop(quotas.open(&peer(&format!("n{number}"))).unwrap());
        }
        assert!(quotas.accounts.lock().unwrap().len() >= MAX_REMEMBERED, "recent ones are kept");
        tokio::time::advance(REMEMBERED).await;
        drop(quotas.open(&peer("last")).unwrap());
        assert_eq!(quotas.accounts.lock().unwrap().len(), 1);
    }
}
