//! The filter module that this binary carries.

#[cfg(test)]
mod module;
#[cfg(test)]
mod tests;

/// The packaged filter module, ready for Envoy's `envoy.wasm.runtime.v8`.
pub static FILTER_WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_filter.wasm"));

/// SHA-256 of [`FILTER_WASM`], lower-case hexadecimal, as Envoy's `RemoteDataSource.sha256` wants it.
pub const FILTER_SHA256: &str = env!("TIDEGATE_FILTER_SHA256");
