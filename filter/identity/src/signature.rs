//! Who computes: the host, or pure Rust.
//!
//! INVARIANT: [`check`] is the only way from this crate to an implementation. It hands over signatures of the one
//! right length, with a key that fits the algorithm. An implementation that cannot tell answers `false`.

use rsa::Pkcs1v15Sign;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::keys::{Algorithm, PublicKey, der};

#[cfg(test)]
mod tests;

/// Verifies signatures.
pub trait VerifySignature {
    /// Whether `signature` is this key's for `input`. The signature is in JWS form: for ECDSA the two numbers with
    /// fixed length, one after the other (RFC 7518 §3.4); [`ecdsa_der`] makes the other form.
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> bool;
}

/// Verifies in this crate's own address space, for hosts that cannot and for the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PureRust;

/// Whether this is the key's signature.
pub fn check(
    verifier: &dyn VerifySignature,
    algorithm: Algorithm,
    key: &PublicKey,
    input: &[u8],
    signature: &[u8],
) -> bool {
    key.jwk().fits(algorithm)
        && signature.len() == key.signature_len()
        && verifier.verify(algorithm, key, input, signature)
}

/// The DER form (RFC 3279 §2.2.3) of a P-256 signature in JWS form. `None` if it has another length or one of its
/// numbers is zero ("psychic" signatures).
pub fn ecdsa_der(signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != 64 {
        return None;
    }
    let (r, s) = signature.split_at_checked(32)?;
    if [r, s].iter().any(|number| number.iter().all(|b| *b == 0)) {
        return None;
    }
    Some(der::sequence(&[&der::integer(r), &der::integer(s)]))
}

// === impl PureRust ===

impl VerifySignature for PureRust {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> bool {
        match algorithm {
            Algorithm::Rs256 => {
                rsa_verifies(key, Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(input), signature)
            }
            Algorithm::Rs384 => {
                rsa_verifies(key, Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(input), signature)
            }
            Algorithm::Rs512 => {
                rsa_verifies(key, Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(input), signature)
            }
            Algorithm::Es256 => p256_verifies(key, input, signature),
        }
    }
}

fn rsa_verifies(key: &PublicKey, scheme: Pkcs1v15Sign, hash: &[u8], signature: &[u8]) -> bool {
    key.as_rsa().is_some_and(|rsa| rsa.verify(scheme, hash, signature).is_ok())
}

fn p256_verifies(key: &PublicKey, input: &[u8], signature: &[u8]) -> bool {
    use p256::ecdsa::signature::Verifier;
    let Ok(signature) = p256::ecdsa::Signature::from_slice(signature) else { return false };
    key.as_p256().is_some_and(|key| key.verify(input, &signature).is_ok())
}
