//! The Envoy filter: refuses or admits each request by what the control plane pushed.
//!
//! The way of a request: [`request`] reads headers and peer from the [`host`], the identity crate establishes tokens with
//! what [`downstream`] verifies within the [`budget`], the engine decides, [`reply`] words a refusal. What was decided of a
//! request stands for those that are [`alike`]. What is allowed is kept in [`leases`] for as long as it lives, and decided
//! again. [`records`] of what was decided, [`samples`] among them, go to the control plane.
//!
//! The way of rules: [`stream`] receives a Bundle, [`bundle`] checks whose it is and puts its sections together, [`enforcer`]
//! holds what is enforced, [`candidate`] what is only compared with it. [`lookups`] are questions back.
//!
//! Only `host::envoy`, `root` and `http` exist in wasm alone; everything else is tested natively with a fake host.
//!
//! INVARIANT: what is not decided is refused. A filter without a Bundle, or with an unusable configuration, answers 503;
//! the only way to pass unguarded is a *signed* statement that the workload is not guarded.
//!
//! INVARIANT: no header and no message panics; a panic would stop every request of the worker thread.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions
)]

pub mod alike;
pub mod budget;
pub mod bundle;
pub mod candidate;
pub mod config;
pub mod counters;
pub mod downstream;
pub mod enforcer;
pub mod host;
pub mod leases;
pub mod lookups;
pub mod plugin;
pub mod records;
mod redact;
pub mod reply;
pub mod request;
pub mod samples;
pub mod signature;
pub mod strangers;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod ticks;
pub mod uses;

#[cfg(target_arch = "wasm32")]
mod http;
#[cfg(target_arch = "wasm32")]
mod root;

/// What every build of this filter can evaluate, by stable name; see `Hello.capabilities`.
const CAPABILITIES: [&str; 8] = [
    "rules/1",
    "keys/2",
    "directory/1",
    "lookup/1",
    "leases/1",
    tidegate_proto::CANDIDATE,
    tidegate_proto::SUSPENSION,
    tidegate_proto::USES,
];

/// What this build can evaluate.
pub fn capabilities() -> impl Iterator<Item = &'static str> {
    CAPABILITIES.into_iter().chain(cfg!(feature = "bodies").then_some(tidegate_proto::BODIES))
}

/// The filter's version, for people.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
