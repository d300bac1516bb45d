//! Keys of trusted issuers: where they come from, how long they count, and what happens when they cannot be fetched.
//!
//! INVARIANT: a failure never opens and never invents a key. What cannot be fetched keeps the last known good keys until
//! their `valid_until`; an issuer that was never reached has no keys, and its tokens are refused.

mod fetch;
mod guard;
mod refresh;
mod ring;
#[cfg(test)]
mod testing;

pub(crate) use fetch::plain_client;
pub use fetch::{FetchError, Fetcher, FetcherError};
pub use guard::AddressGuard;
pub use refresh::{Reports, refresh};
pub use ring::{IssuerKeys, IssuerReport, KeyRing, KeySource, KeySources, NEVER};
