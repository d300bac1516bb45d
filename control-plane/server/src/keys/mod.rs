//! Keys of trusted issuers: where they come from, how long they count, and what happens when they cannot be fetched.
//!
//! INVARIANT: a failure never opens and never invents a key. What cannot be fetched keeps the last known good keys until
//! their `valid_until`; an issuer that was never reached has no keys, and its tokens are refused.

mod desk;
mod fetch;
mod guard;
mod record;
mod refresh;
mod report;
mod ring;
mod signature;
mod source;
#[cfg(test)]
pub(crate) mod testing;

pub use desk::KeyDesk;
pub(crate) use fetch::plain_client;
pub use fetch::{FetchError, Fetcher, FetcherError, KeySet, Known, ProviderMetadata};
pub use guard::{AddressGuard, AddressRefused, InvalidNetwork, Network};
pub(crate) use record::fit_keys;
pub use refresh::refresh;
pub use report::{Alert, AlertReport, IssuerReport, KeyReport, Reports, SourceReport};
pub use ring::{IssuerKeys, KeyRing, NEVER};
pub use signature::Native;
pub use source::{IssuerSource, KeySource, KeySources};
