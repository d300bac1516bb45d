//! In place of the primitives where the feature `pure-rust` is off: computes nothing, and leaves the check of points to
//! the host that verifies.

use super::Verdict;
use crate::keys::{Algorithm, Curve, Material, PublicKey};

/// There is none.
#[derive(Debug, Clone)]
pub(crate) enum Prepared {}

pub(super) const fn computes(_: Algorithm) -> bool {
    false
}

pub(crate) fn on_curve(_: Curve, _: &[u8]) -> bool {
    true
}

pub(crate) fn is_ed25519_key(_: &[u8; 32]) -> bool {
    true
}

pub(super) fn verify(_: Algorithm, key: &PublicKey, _: &[u8], _: &[u8]) -> Verdict {
    match key.prepared() {
        Some(never) => match *never {},
        None => Verdict::Unsupported,
    }
}

// === impl Prepared ===

impl Prepared {
    pub fn new(_: &Material) -> Option<Self> {
        None
    }
}
