//! A key that is ready to verify.

use std::sync::OnceLock;

use super::jwk::Material;
use super::{Jwk, der};
use crate::signature::pure::Prepared;

/// A fit public key, ready to verify.
#[derive(Debug, Clone)]
pub struct PublicKey {
    jwk: Jwk,
    spki: Vec<u8>,
    /// The pure-Rust form, made when first needed: where the host verifies, never.
    prepared: OnceLock<Option<Prepared>>,
}

// === impl PublicKey ===

impl PublicKey {
    /// The DER of the `SubjectPublicKeyInfo` (RFC 5280 §4.1), as the host's `verify_signature` takes it.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The key as data.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The only length in bytes that a JWS signature by this key has. RSA: that of the modulus (RFC 8017 §8.1.2 and
    /// §8.2.2: "If the length of the signature S is not k octets, output "invalid signature""); ECDSA: two numbers of
    /// the curve's length (RFC 7518 §3.4); Ed25519: 64 (RFC 8032 §5.1.6).
    pub fn signature_len(&self) -> usize {
        match self.jwk.material() {
            Material::Rsa { modulus, .. } => modulus.len(),
            Material::Ec { curve, .. } => curve.bytes().saturating_mul(2),
            Material::Ed25519(_) => 64,
        }
    }

    pub(crate) fn prepared(&self) -> Option<&Prepared> {
        self.prepared.get_or_init(|| Prepared::new(self.jwk.material())).as_ref()
    }
}

impl From<Jwk> for PublicKey {
    fn from(jwk: Jwk) -> Self {
        let spki = match jwk.material() {
            Material::Rsa { modulus, exponent } => der::rsa_spki(modulus, exponent),
            Material::Ec { curve, point } => der::ec_spki(*curve, point),
            Material::Ed25519(x) => der::ed25519_spki(x),
        };
        Self { jwk, spki, prepared: OnceLock::new() }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

impl Eq for PublicKey {}
