//! The wire contract `tidegate.v1` between filters and the control plane.
//!
//! Messages are always there; the gRPC stubs are behind the features `client` and `server`, so that the filter, which
//! runs inside Envoy, pulls in neither tonic nor tokio. The code in `gen/` is generated from `proto/tidegate/v1` and
//! committed; `tests/generated.rs` regenerates it and compares.
//!
//! INVARIANT: this crate knows nothing of the other crates.

/// Version 1 of the contract.
pub mod v1 {
    #![allow(missing_docs, clippy::all, rust_2018_idioms)]
    include!("gen/tidegate.v1.rs");
}

/// What precedes the manifest in the bytes that are signed, so that a signature over a manifest can never be taken for
/// a signature over anything else.
pub const MANIFEST_SIGNING_CONTEXT: &[u8] = b"tidegate.v1.Manifest\0";

/// The version of the contract that this crate speaks ([`v1::Hello::protocol_version`], [`v1::Manifest::format_version`]).
pub const VERSION: u32 = 1;

/// The capability to read bodies of requests ([`v1::Hello::capabilities`], [`v1::Manifest::used_capabilities`]).
pub const BODIES: &str = "bodies/1";

/// The capability to evaluate a candidate ([`v1::Hello::capabilities`], [`v1::Manifest::candidate`]).
pub const CANDIDATE: &str = "candidate/1";

/// The capability to end a suspended Guard by the filter's own clock ([`v1::Manifest::suspended_until`]). Without it the
/// Guard is not suspended.
pub const SUSPENSION: &str = "suspension/1";

/// The capability to tell which rules and keys are used ([`v1::Hello::capabilities`], [`v1::Uses`]).
pub const USES: &str = "uses/1";

/// How long a Guard may be suspended at most from when the manifest was issued, in seconds
/// ([`v1::Manifest::suspended_until`]).
pub const MAX_SUSPENSION_S: i64 = 8 * 3600;

/// The largest part of a section that travels in one message, in bytes.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;

/// The bytes that a manifest's signature covers.
pub fn manifest_signing_input(manifest: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(MANIFEST_SIGNING_CONTEXT.len() + manifest.len());
    input.extend_from_slice(MANIFEST_SIGNING_CONTEXT);
    input.extend_from_slice(manifest);
    input
}
