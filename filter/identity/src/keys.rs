//! Public keys as issuers publish them (RFC 7517), and which of them are fit to verify tokens.
//!
//! INVARIANT: a [`Jwk`] or [`PublicKey`] that exists is fit: for signatures, asymmetric, public, large enough, on its
//! curve. There is no way to have an unfit one, and no default key. (Whether a point is on a curve on which
//! [`crate::PureRust`] does not compute is left to the host that verifies, which refuses such keys.)

use crate::json::{self, Value};

mod algorithm;
pub(crate) mod der;
mod jwk;
mod public;
#[cfg(test)]
mod tests;

pub use algorithm::{Algorithm, Curve, KeyFamily};
pub use jwk::Jwk;
pub(crate) use jwk::Material;
pub use public::PublicKey;

/// Keys of one issuer.
pub const MAX_KEYS: usize = 64;
/// Bytes of a `kid`.
pub const MAX_KEY_ID_BYTES: usize = 256;
/// Bytes of a JWKS document.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Bytes of a key's `issuer`.
const MAX_ISSUER_BYTES: usize = 2048;

/// What the keys of a set are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// Signatures (RFC 7517 §4.2): `use` is `sig`, or missing.
    Sig,
    /// JWT-SVIDs of a SPIFFE bundle (SPIFFE Trust Domain and Bundle §4.2.2): `use` is `jwt-svid`. "If the `use` parameter
    /// is not set, or is set to an unknown value, the JWK element MUST be ignored."
    JwtSvid,
}

/// Why a key is not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not an object, or a member of another type than RFC 7517 says.
    #[error("`{0}`: missing or malformed")]
    Member(&'static str),
    /// Symmetric, or of a type or curve that is not supported.
    #[error(
        "`kty`: key type `{0}` is not supported; supported are `RSA`, `EC` with `crv` `P-256`, `P-384` or `P-521`, and \
         `OKP` with `crv` `Ed25519`"
    )]
    UnsupportedType(String),
    /// Meant for something else.
    #[error("`{0}`: the key is not meant for verifying signatures of these tokens")]
    Purpose(&'static str),
    /// `alg` names an algorithm that is not supported, or that does not fit the key.
    #[error("`alg`: algorithm `{0}` is not supported for this key")]
    Algorithm(String),
    /// A private key was published.
    #[error("`{0}`: a private key must not be published; treat it as compromised")]
    Private(&'static str),
    /// An RSA key of unacceptable size.
    #[error("`n`: RSA modulus of {0} bits; accepted are 2048 to 8192")]
    ModulusSize(u32),
    /// An RSA modulus that is even.
    #[error("`n`: the RSA modulus is even")]
    ModulusEven,
    /// An RSA exponent that is even, or too small, or too large.
    #[error("`e`: the RSA exponent must be odd and from 65537 to 4294967295")]
    Exponent,
    /// A point that is not on the curve.
    #[error("`x`, `y`: not a point on {0}")]
    NotOnCurve(Curve),
    /// An Ed25519 key with which signatures prove nothing, or that has two spellings.
    #[error("`x`: not an Ed25519 key: not on the curve, not canonical, or of small order")]
    UnsafePoint,
}

/// What is usable of a JWKS document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeySelection {
    /// Fit keys, in the order of the document.
    pub keys: Vec<Jwk>,
    /// Position and reason of every other one, to be reported.
    pub refused: Vec<(usize, InvalidKey)>,
}

/// Why a JWKS document is not usable at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeySet {
    /// Longer than [`MAX_JWKS_BYTES`].
    #[error("the key set has more than {MAX_JWKS_BYTES} bytes")]
    TooLong,
    /// More than [`MAX_KEYS`] keys.
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
    /// Not strict JSON.
    #[error("the key set is {0}")]
    Json(#[from] json::InvalidJson),
    /// No `keys` array.
    #[error("the key set has no array `keys`")]
    NoKeys,
    /// Two keys with one `kid` that could both verify the same token.
    #[error("the key set has two keys with the same `kid` and algorithm")]
    Duplicate,
}

/// Selects the keys of a JWKS document that are fit for this use. RFC 7517 §5: "Implementations SHOULD ignore JWKs within
/// a JWK Set that use "kty" values that are not understood by them, that are missing required members, or for which
/// values are out of the supported ranges"; what is left out is told.
///
/// # Errors
///
/// See [`InvalidKeySet`].
pub fn select_for(document: &str, purpose: KeyUse) -> Result<KeySelection, InvalidKeySet> {
    if document.len() > MAX_JWKS_BYTES {
        return Err(InvalidKeySet::TooLong);
    }
    let value = json::parse(document, json::Limits::KEYS)?;
    let keys = value.as_object().and_then(|set| set.get("keys")).and_then(Value::as_array);
    let keys = keys.ok_or(InvalidKeySet::NoKeys)?;
    if keys.len() > MAX_KEYS {
        return Err(InvalidKeySet::TooMany);
    }
    let mut selection = KeySelection::default();
    for (position, key) in keys.iter().enumerate() {
        match Jwk::from_json(key, purpose) {
            Ok(jwk) if selection.keys.iter().any(|other| other.collides(&jwk)) => {
                return Err(InvalidKeySet::Duplicate);
            }
            Ok(jwk) => selection.keys.push(jwk),
            Err(reason) => selection.refused.push((position, reason)),
        }
    }
    Ok(selection)
}

// === impl KeyUse ===

impl KeyUse {
    fn admits(self, purpose: Option<&str>) -> bool {
        match self {
            Self::Sig => purpose.is_none_or(|purpose| purpose == "sig"),
            Self::JwtSvid => purpose == Some("jwt-svid"),
        }
    }
}
