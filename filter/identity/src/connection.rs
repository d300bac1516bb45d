//! What verification depends on besides the token: when it happens, and over which connection the token came.

use crate::signature::{PureRust, VerifySignature};

/// The time of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Unix seconds.
    pub now: i64,
    /// For so many seconds after `exp` a token counts as if it had not expired: the grace of a lease on a stream that
    /// began in time. Extends nothing else.
    pub expiry_grace_s: u32,
}

/// The connection over which a request came.
pub trait Connection: VerifySignature {
    /// SHA-256 of the DER of the client certificate of this TLS connection, if there is one.
    fn certificate_sha256(&self) -> Option<[u8; 32]>;
}

// === impl At ===

impl At {
    /// This moment, without grace.
    pub const fn now(now: i64) -> Self {
        Self { now, expiry_grace_s: 0 }
    }
}

// === impl Connection ===

/// No connection, hence no certificate.
impl Connection for PureRust {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// Whether two digests are the same, in a time that does not depend on where they differ.
pub(crate) fn same_digest(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b));
    core::hint::black_box(difference) == 0
}
