//! How much checking of signatures callers may cause with tokens that turn out bad.
//!
//! A signature is by far the dearest thing that a caller can make a filter do: it costs a word in a header, and tens of
//! microseconds of the worker thread that serves everybody else. So every check is charged before it is made, in
//! microseconds that it takes, and what it cost is given back when the request is allowed: good tokens are free, however
//! many come over one connection (a gateway's carries those of thousands of workers). A token that verifies is not
//! enough: at some issuers anybody can get one.
//!
//! Charged are the connection, and beside it the VM's common purse. A connection that has brought an allowed request
//! with a token has proven itself: it may be shared by many callers, so it gets more of its own, and once the common
//! purse is empty it draws on a reserve that nobody else can touch.
//!
//! INVARIANT: no purse is ever charged below zero by more than one check. Memory is bounded: of connections beyond the
//! limit the ones that were not heard of for longest are forgotten, and begin anew.

use std::collections::HashMap;

/// One connection: bursts of 66 bad RS256 tokens of 30 µs, then 33 a second. Opening connections for more is dearer for
/// both sides than the tokens are: a TLS handshake costs the proxy about a millisecond.
const CONNECTION: Terms = Terms { capacity_us: 2_000, us_per_ms: 1 };

/// One that has proven itself: ten times that, a hundredth of the worker thread.
const PROVEN: Terms = Terms { capacity_us: 20_000, us_per_ms: 10 };

/// Everybody, per VM: a tenth of the worker thread, and one lull of 100 ms.
const COMMON: Terms = Terms { capacity_us: 100_000, us_per_ms: 100 };

/// Connections that have proven themselves, when the common purse is empty: another twentieth.
const RESERVE: Terms = Terms { capacity_us: 50_000, us_per_ms: 50 };

/// Connections that are remembered: at most twice as many, 32 bytes each.
const MAX_CONNECTIONS: usize = 4096;

/// The budget of one VM.
#[derive(Debug)]
pub struct Budget {
    common: Purse,
    reserve: Purse,
    connections: Connections,
}

/// What a check was charged; given back if the request is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Charge {
    us: u32,
    by: Payer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payer {
    Common,
    Reserve,
}

/// How a purse fills.
#[derive(Debug, Clone, Copy)]
struct Terms {
    capacity_us: u32,
    us_per_ms: u32,
}

#[derive(Debug, Clone, Copy)]
struct Purse {
    balance_us: i64,
    filled_at_ms: u64,
}

/// By the proxy's connection id, in two generations: the older one is forgotten when the newer one is full.
#[derive(Debug, Default)]
struct Connections {
    recent: HashMap<u64, Account>,
    older: HashMap<u64, Account>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    purse: Purse,
    proven: bool,
}

// === impl Budget ===

impl Budget {
    /// Everything full.
    pub fn new(now_ms: u64) -> Self {
        Self {
            common: Purse::full(COMMON, now_ms),
            reserve: Purse::full(RESERVE, now_ms),
            connections: Connections::default(),
        }
    }

    /// Charges a check that takes so many microseconds. `None`: it must not be made.
    pub fn charge(&mut self, connection: u64, us: u32, now_ms: u64) -> Option<Charge> {
        self.common.fill(COMMON, now_ms);
        self.reserve.fill(RESERVE, now_ms);
        let account = self.connections.account(connection, now_ms);
        account.purse.fill(account.terms(), now_ms);
        if account.purse.balance_us <= 0 {
            return None;
        }
        let (purse, by) = if self.common.balance_us > 0 {
            (&mut self.common, Payer::Common)
        } else if account.proven && self.reserve.balance_us > 0 {
            (&mut self.reserve, Payer::Reserve)
        } else {
            return None;
        };
        purse.take(us);
        account.purse.take(us);
        Some(Charge { us, by })
    }

    /// The request for which these checks were made is allowed: what was charged is given back, and the connection has
    /// proven itself.
    pub fn accept(&mut self, connection: u64, charges: &[Charge], now_ms: u64) {
        let account = self.connections.account(connection, now_ms);
        account.proven = true;
        for Charge { us, by } in charges {
            account.purse.give(*us, PROVEN);
            match by {
                Payer::Common => self.common.give(*us, COMMON),
                Payer::Reserve => self.reserve.give(*us, RESERVE),
            }
        }
    }

    /// Whether it gets tight: then it is worth a call to the proxy to note connections whose tokens are known already, so
    /// that their next ones may use the reserve.
    pub fn is_strained(&mut self, now_ms: u64) -> bool {
        self.common.fill(COMMON, now_ms);
        self.common.balance_us < i64::from(COMMON.capacity_us / 2)
    }
}

// === impl Purse ===

impl Purse {
    fn full(terms: Terms, now_ms: u64) -> Self {
        Self { balance_us: i64::from(terms.capacity_us), filled_at_ms: now_ms }
    }

    /// A clock that went back fills nothing; one that leapt ahead fills it once.
    fn fill(&mut self, terms: Terms, now_ms: u64) {
        let passed = i64::try_from(now_ms.saturating_sub(self.filled_at_ms)).unwrap_or(i64::MAX);
        self.filled_at_ms = now_ms;
        let gained = passed.saturating_mul(i64::from(terms.us_per_ms));
        self.balance_us = self.balance_us.saturating_add(gained).min(i64::from(terms.capacity_us));
    }

    fn take(&mut self, us: u32) {
        self.balance_us = self.balance_us.saturating_sub(i64::from(us));
    }

    fn give(&mut self, us: u32, terms: Terms) {
        self.balance_us = self.balance_us.saturating_add(i64::from(us)).min(i64::from(terms.capacity_us));
    }
}

// === impl Account ===

impl Account {
    fn terms(&self) -> Terms {
        if self.proven { PROVEN } else { CONNECTION }
    }
}

// === impl Connections ===

impl Connections {
    /// The account of a connection; a new one where it is not known.
    fn account(&mut self, connection: u64, now_ms: u64) -> &mut Account {
        if !self.recent.contains_key(&connection) && self.recent.len() >= MAX_CONNECTIONS {
            self.older = std::mem::take(&mut self.recent);
        }
        let older = &mut self.older;
        self.recent.entry(connection).or_insert_with(|| {
            older
                .remove(&connection)
                .unwrap_or(Account { purse: Purse::full(CONNECTION, now_ms), proven: false })
        })
    }
}

#[cfg(test)]
mod tests;
