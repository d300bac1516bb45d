//! The primitives, from RustCrypto and dalek. Nothing else in this crate names them.
//!
//! P-384 and P-521 are not in modules for wasm32: they would add 90 KiB to what every proxy loads, for algorithms that
//! the proxy's own cryptography computes. Whether a point is on one of these curves is left to that there.

use p256::ecdsa::signature::Verifier as _;
use p256::elliptic_curve::point::AffineCoordinates as _;
use rsa::traits::SignatureScheme;
use rsa::{Pkcs1v15Sign, Pss, RsaPublicKey};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::Verdict;
use crate::keys::{Algorithm, Curve, Material, PublicKey};

/// A key in the form that its primitive takes.
#[derive(Debug, Clone)]
pub(crate) enum Prepared {
    Rsa(RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
    #[cfg(not(target_arch = "wasm32"))]
    P384(p384::ecdsa::VerifyingKey),
    #[cfg(not(target_arch = "wasm32"))]
    P521(p521::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

pub(super) const fn computes(algorithm: Algorithm) -> bool {
    !(cfg!(target_arch = "wasm32") && matches!(algorithm, Algorithm::Es384 | Algorithm::Es512))
}

/// Whether this uncompressed point is one of the curve, and not the one at infinity.
pub(crate) fn on_curve(curve: Curve, point: &[u8]) -> bool {
    match curve {
        Curve::P384 | Curve::P521 if cfg!(target_arch = "wasm32") => true,
        curve => Prepared::ec(curve, point).is_some(),
    }
}

/// Whether this is the only encoding of a point of which the discrete logarithm is worth anything. Of a point of small
/// order anybody can sign anything (RFC 8032 §7: "contributory behavior"); of a second encoding (y not below p, or zero
/// with the sign bit set) verifiers differ.
pub(crate) fn is_ed25519_key(point: &[u8; 32]) -> bool {
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(point) else { return false };
    let canonical = ed25519_dalek::VerifyingKey::from(key.to_edwards()).to_bytes();
    !key.is_weak() && canonical == *point
}

pub(super) fn verify(algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
    if !computes(algorithm) {
        return Verdict::Unsupported;
    }
    let verified = key.prepared().and_then(|key| key.verify(algorithm, input, signature));
    if verified == Some(()) { Verdict::Valid } else { Verdict::Invalid }
}

// === impl Prepared ===

impl Prepared {
    pub fn new(material: &Material) -> Option<Self> {
        match material {
            Material::Rsa { modulus, exponent } => {
                let modulus = rsa::BoxedUint::from_be_slice_vartime(modulus);
                let exponent = rsa::BoxedUint::from_be_slice_vartime(exponent);
                RsaPublicKey::new(modulus, exponent).ok().map(Self::Rsa)
            }
            Material::Ec { curve, point } => Self::ec(*curve, point),
            Material::Ed25519(point) => {
                ed25519_dalek::VerifyingKey::from_bytes(point).ok().map(Self::Ed25519)
            }
        }
    }

    /// Of the two coordinates, which is less code than to read the point: the forms with one coordinate do not exist here.
    fn ec(curve: Curve, point: &[u8]) -> Option<Self> {
        let (x, y) = point.get(1..)?.split_at_checked(curve.bytes())?;
        match curve {
            Curve::P256 => {
                let (x, y) = (p256::FieldBytes::try_from(x).ok()?, p256::FieldBytes::try_from(y).ok()?);
                let point = p256::AffinePoint::from_coordinates(&x, &y).into_option()?;
                p256::ecdsa::VerifyingKey::from_affine(point).ok().map(Self::P256)
            }
            #[cfg(not(target_arch = "wasm32"))]
            Curve::P384 => {
                let (x, y) = (p384::FieldBytes::try_from(x).ok()?, p384::FieldBytes::try_from(y).ok()?);
                let point = p384::AffinePoint::from_coordinates(&x, &y).into_option()?;
                p384::ecdsa::VerifyingKey::from_affine(point).ok().map(Self::P384)
            }
            #[cfg(not(target_arch = "wasm32"))]
            Curve::P521 => {
                let (x, y) = (p521::FieldBytes::try_from(x).ok()?, p521::FieldBytes::try_from(y).ok()?);
                let point = p521::AffinePoint::from_coordinates(&x, &y).into_option()?;
                p521::ecdsa::VerifyingKey::from_affine(point).ok().map(Self::P521)
            }
            #[cfg(target_arch = "wasm32")]
            Curve::P384 | Curve::P521 => None,
        }
    }

    /// `None`: no.
    fn verify(&self, algorithm: Algorithm, input: &[u8], signature: &[u8]) -> Option<()> {
        match (self, algorithm) {
            (Self::Rsa(key), Algorithm::Rs256) => {
                rsa_verifies(key, Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(input), signature)
            }
            (Self::Rsa(key), Algorithm::Rs384) => {
                rsa_verifies(key, Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(input), signature)
            }
            (Self::Rsa(key), Algorithm::Rs512) => {
                rsa_verifies(key, Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(input), signature)
            }
            // RFC 7518 §3.5: "The size of the salt value is the same size as the hash function output", which is what
            // `Pss::new` demands.
            (Self::Rsa(key), Algorithm::Ps256) => {
                rsa_verifies(key, Pss::<Sha256>::new(), &Sha256::digest(input), signature)
            }
            (Self::Rsa(key), Algorithm::Ps384) => {
                rsa_verifies(key, Pss::<Sha384>::new(), &Sha384::digest(input), signature)
            }
            (Self::Rsa(key), Algorithm::Ps512) => {
                rsa_verifies(key, Pss::<Sha512>::new(), &Sha512::digest(input), signature)
            }
            (Self::P256(key), Algorithm::Es256) => {
                key.verify(input, &p256::ecdsa::Signature::from_slice(signature).ok()?).ok()
            }
            #[cfg(not(target_arch = "wasm32"))]
            (Self::P384(key), Algorithm::Es384) => {
                key.verify(input, &p384::ecdsa::Signature::from_slice(signature).ok()?).ok()
            }
            #[cfg(not(target_arch = "wasm32"))]
            (Self::P521(key), Algorithm::Es512) => {
                key.verify(input, &p521::ecdsa::Signature::from_slice(signature).ok()?).ok()
            }
            // RFC 8032 §5.1.7, and neither key nor R of small order.
            (Self::Ed25519(key), Algorithm::EdDsa) => {
                key.verify_strict(input, &ed25519_dalek::Signature::from_slice(signature).ok()?).ok()
            }
            _ => None,
        }
    }
}

fn rsa_verifies(
    key: &RsaPublicKey,
    scheme: impl SignatureScheme,
    hash: &[u8],
    signature: &[u8],
) -> Option<()> {
    key.verify(scheme, hash, signature).ok()
}
