//! Who is calling: strict verification of tokens, the issuers' claim packs and key sets, and SPIFFE ids.
//!
//! This crate is pure. It reads no clock (the time is a parameter), does no I/O, fetches nothing, and knows neither
//! Envoy nor Kubernetes. It never decides what a caller may do; that is the engine's part.
//!
//! # The way of a token
//!
//! ```text
//! request headers ─ credentials ─ jose ─ json ─ issuer ─ keys + signature ─ token + pack ─ cache ─ engine::TokenState
//! ```
//!
//! [`Authenticator::authenticate`] yields one [`TokenOutcome`] per issuer of the policy: *absent*, *invalid* (refuses the
//! request, whoever the peer is) or *verified*.
//!
//! # Invariants
//!
//! - **No input panics.** Headers and tokens come from anybody, keys from the network. Indexing, slicing, unwrapping
//!   and `as` are denied by lint in this crate.
//! - **Nothing of a token is believed before its signature verifies**, except `iss`, which selects the issuer by exact
//!   byte comparison (where it names nobody, the trust domain of `sub` selects an issuer of JWT-SVIDs), and `alg` and
//!   `kid`, which select among what *that issuer's* set allows. Keys, algorithms and URLs are never taken from a token.
//! - **A wrong type is never "absent".** A known claim of another type than its [`pack`] says makes the token invalid.
//! - **Whatever this crate accepts, other verifiers accept.** Of several readings of the same bytes (duplicate members,
//!   non-canonical base64, several tokens) none is chosen: the token is invalid.
//! - **What looks like a signed JWT and cannot be attributed to an issuer is invalid, not absent**, for every issuer
//!   that reads this header. Absent are: no credential, another scheme, opaque values, encrypted tokens, and tokens that
//!   are well formed and whose issuer nobody configured.
//! - **Keys belong to one issuer.** There is no lookup by `kid` across issuers, no built-in key, and keys past their
//!   `valid_until` verify nothing, cached tokens included.
//! - **A token that is bound to a client certificate (`cnf`, `x5t#S256`) is accepted only over a connection with that
//!   certificate**, cached or not; one that is bound in another way is refused, because that cannot be checked here.
//! - Only verified tokens are cached. A hit compares the whole token, then checks its times, its issuer's `valid_until`
//!   and `retire_at`, and its binding again. What the issuer revokes leaves the cache with the section that says so.
//!
//! The order of checks is that of [`token`]; [`explain`] reports them one by one, for people.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(all(test, not(feature = "pure-rust")))]
compile_error!("the tests of this crate sign and verify; they need the feature `pure-rust`");

mod authenticator;
mod base64url;
mod cache;
mod connection;
mod credentials;
pub mod explain;
pub mod issuer;
pub mod jose;
pub mod json;
pub mod keys;
pub mod pack;
pub mod signature;
pub mod spiffe;
#[cfg(test)]
mod testing;
pub mod token;

pub use authenticator::{
    Authenticator, CacheLimits, Headers, KeyUsage, MissingIssuer, RecordedClaim, TokenOutcome, Usage,
    VerifiedUse, WantedKey,
};
pub use connection::{At, Connection};
pub use issuer::{
    InvalidKeys, Issuer, IssuerSet, IssuerSetSpec, IssuerSpec, Revoked, RevokedKind, TokenHeader,
};
pub use keys::{Algorithm, InvalidKey, Jwk, KeyUse, PublicKey};
pub use pack::PackKind;
pub use signature::{PureRust, Verdict, VerifySignature};
pub use spiffe::SpiffeId;
