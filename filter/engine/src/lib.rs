//! The decision engine: who may do what, decided from plain data.
//!
//! [`decide`] is total: it takes a decoded [`PolicySet`] and a [`Request`] and returns a [`Decision`], never an error.
//! Everything that can fail fails in [`PolicySet::decode`] (in the filter) or in [`encode`] (in the compiler).
//!
//! The way of a request: [`normal`] makes one reading of method, host, path and headers out of the bytes that were sent;
//! [`decide`] finds the guard of the port, looks at the tokens, takes candidate rules from the index, checks each exactly,
//! and settles. For a request that is refused, [`unlisted()`] tells which id a directory would have had to list.
//! [`compare`] tells what another policy would have done, and [`decide_suspended`] decides while somebody lets the Guards only
//! report.
//!
//! INVARIANT: pure. No clock, no I/O, no randomness, no global state; the same inputs give the same decision on every
//! machine, natively and in wasm. No input makes it panic.
//!
//! INVARIANT: [`mod@reference`] is the meaning of a policy. The index only ever narrows the search; it never decides.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions
)]

pub mod body;
mod candidate;
mod condition;
mod decide;
mod decision;
pub mod directory;
mod encode;
mod glob;
mod hash;
mod index;
mod layout;
pub mod model;
pub mod normal;
mod operand;
mod packed;
mod pattern;
mod policy;
mod reason;
pub mod reference;
mod request;
pub mod scan;
mod schedule;
mod search;
mod truth;
mod unlisted;
mod until;

pub use candidate::{CandidateDifference, CandidateOutcome, compare};
pub use decide::{decide, decide_suspended, wanted_fields};
pub use decision::{Decision, Guarding, RuleIx, ShadowDifference};
pub use directory::{Directories, InvalidDirectories};
pub use encode::{EncodeError, Encoder, encode};
pub use layout::{InvalidRules, MAX_SECTION_BYTES, VERSION};
pub use policy::{PolicySet, RuleView};
pub use reason::{Ambiguity, Outcome, Reason, TokenFault};
pub use request::{Body, ClaimValue, HeaderFacts, Peer, Request, TokenState, VerifiedToken};
pub use truth::Truth;
pub use unlisted::{Unlisted, unlisted};
pub use until::until;
