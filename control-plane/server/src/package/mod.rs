//! The filter module that this binary carries, in two builds.

#[cfg(test)]
mod module;
#[cfg(test)]
mod tests;

/// The packaged filter module, ready for Envoy's `envoy.wasm.runtime.v8`.
pub static FILTER_WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_filter.wasm"));

/// The same, for proxies whose rules depend on bodies: it is called for every piece of every body.
pub static FILTER_BODIES_WASM: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_filter_bodies.wasm"));

/// SHA-256 of [`FILTER_BODIES_WASM`], as [`FILTER_SHA256`].
pub const FILTER_BODIES_SHA256: &str = env!("TIDEGATE_FILTER_BODIES_SHA256");

/// SHA-256 of [`FILTER_WASM`], lower-case hexadecimal, as Envoy's `RemoteDataSource.sha256` wants it.
pub const FILTER_SHA256: &str = env!("TIDEGATE_FILTER_SHA256");
