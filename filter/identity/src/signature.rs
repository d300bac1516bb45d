//! Who computes: the host, or pure Rust.
//!
//! | algorithm | Envoy (BoringSSL) | pure Rust natively | pure Rust in wasm32 |
//! | --- | --- | --- | --- |
//! | RS256, RS384, RS512, ES256 | yes | yes | yes, for hosts that do not |
//! | ES384, ES512 | yes | yes | no |
//! | PS256, PS384, PS512, EdDSA | no | yes | yes |
//!
//! INVARIANT: [`check`] is the only way from this crate to an implementation. It hands over signatures of the one
//! right length, with a key that fits the algorithm. An implementation that cannot tell never answers
//! [`Verdict::Valid`].

use crate::keys::{Algorithm, Curve, PublicKey, der};

#[cfg(feature = "pure-rust")]
pub(crate) mod pure;
#[cfg(not(feature = "pure-rust"))]
#[path = "signature/none.rs"]
pub(crate) mod pure;
#[cfg(test)]
mod tests;

/// What is known of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is this key's for this input.
    Valid,
    /// It is not.
    Invalid,
    /// Nobody here can compute this algorithm.
    Unsupported,
    /// It was not looked at, because too many are.
    OverBudget,
}

/// Verifies signatures.
pub trait VerifySignature {
    /// Whether `signature` is this key's for `input`. The signature is in JWS form: for ECDSA the two numbers with
    /// fixed length, one after the other (RFC 7518 §3.4); [`ecdsa_der`] makes the other form.
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict;
}

/// Verifies in this crate's own address space, for hosts that cannot and for the control plane. What it computes,
/// [`PureRust::computes`] says; of the rest it says [`Verdict::Unsupported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PureRust;

/// Whether this is the key's signature.
pub fn check(
    verifier: &dyn VerifySignature,
    algorithm: Algorithm,
    key: &PublicKey,
    input: &[u8],
    signature: &[u8],
) -> Verdict {
    if key.jwk().fits(algorithm) && signature.len() == key.signature_len() {
        verifier.verify(algorithm, key, input, signature)
    } else {
        Verdict::Invalid
    }
}

/// The DER form (RFC 3279 §2.2.3) of an ECDSA signature in JWS form. `None` if it has a length that no curve has, or
/// one of its numbers is zero ("psychic" signatures).
pub fn ecdsa_der(signature: &[u8]) -> Option<Vec<u8>> {
    let curve = Curve::ALL.into_iter().find(|curve| signature.len() == curve.bytes().saturating_mul(2))?;
    let (r, s) = signature.split_at_checked(curve.bytes())?;
    if [r, s].iter().any(|number| number.iter().all(|b| *b == 0)) {
        return None;
    }
    Some(der::sequence(&[&der::integer(r), &der::integer(s)]))
}

// === impl PureRust ===

impl PureRust {
    /// Whether this build computes the algorithm: natively all of them, in wasm32 all but ES384 and ES512, and without
    /// the feature `pure-rust` none.
    pub const fn computes(algorithm: Algorithm) -> bool {
        pure::computes(algorithm)
    }
}

impl VerifySignature for PureRust {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        pure::verify(algorithm, key, input, signature)
    }
}
