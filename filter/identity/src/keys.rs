//! Public keys as issuers publish them (RFC 7517), and which of them are fit to verify tokens.
//!
//! INVARIANT: a [`Jwk`] or [`PublicKey`] that exists is fit: for signatures, asymmetric, public, large enough, on its
//! curve. There is no way to have an unfit one, and no default key.

use std::sync::OnceLock;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::base64url;
use crate::json::{self, Object, Value};

pub(crate) mod der;
#[cfg(test)]
mod tests;

/// Keys of one issuer.
pub const MAX_KEYS: usize = 64;
/// Bytes of a `kid`.
pub const MAX_KEY_ID_BYTES: usize = 256;
/// Bytes of a JWKS document.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;

const RSA_BITS: core::ops::RangeInclusive<u32> = 2048..=8192;
const P256_COORDINATE_BYTES: usize = 32;

/// A signature algorithm (RFC 7518 §3.1). Asymmetric only: `none` and the HMAC family cannot be expressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// The kind of key that an algorithm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyFamily {
    /// RSA.
    Rsa,
    /// ECDSA on NIST P-256.
    EcdsaP256,
}

/// A fit public key as data: what travels in the keys section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    key_id: Option<String>,
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    /// Big-endian, without leading zeros.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    P256 {
        x: [u8; P256_COORDINATE_BYTES],
        y: [u8; P256_COORDINATE_BYTES],
    },
}

/// A fit public key, ready to verify.
#[derive(Debug, Clone)]
pub struct PublicKey {
    jwk: Jwk,
    spki: Vec<u8>,
    /// The pure-Rust form, made when first needed: where the host verifies, never.
    rsa: OnceLock<Option<rsa::RsaPublicKey>>,
}

/// Why a key is not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not an object, or a member of another type than RFC 7517 says.
    #[error("`{0}`: missing or malformed")]
    Member(&'static str),
    /// Symmetric, or of a type or curve that is not supported.
    #[error("`kty`: key type `{0}` is not supported; supported are `RSA` and `EC` with `crv` `P-256`")]
    UnsupportedType(String),
    /// Meant for something else than signatures.
    #[error("`{0}`: the key is not meant for verifying signatures")]
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
    #[error("`x`, `y`: not a point on P-256")]
    NotOnCurve,
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

/// Selects the fit keys of a JWKS document. RFC 7517 §5: "Implementations SHOULD ignore JWKs within a JWK Set that use
/// "kty" values that are not understood by them, that are missing required members, or for which values are out of the
/// supported ranges"; what is left out is told.
///
/// # Errors
///
/// See [`InvalidKeySet`].
pub fn select(document: &str) -> Result<KeySelection, InvalidKeySet> {
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
        match Jwk::from_json(key) {
            Ok(jwk) if selection.keys.iter().any(|other| other.collides(&jwk)) => {
                return Err(InvalidKeySet::Duplicate);
            }
            Ok(jwk) => selection.keys.push(jwk),
            Err(reason) => selection.refused.push((position, reason)),
        }
    }
    Ok(selection)
}

// === impl Algorithm ===

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Rs384, Self::Rs512, Self::Es256];

    /// The name in JOSE headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of this exact name. RFC 7515 §4.1.1: "case-sensitive".
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// The kind of key that it needs.
    pub const fn family(self) -> KeyFamily {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 => KeyFamily::Rsa,
            Self::Es256 => KeyFamily::EcdsaP256,
        }
    }

    /// The hash, as Envoy's `verify_signature` names it.
    pub const fn hash_name(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Es256 => "sha256",
            Self::Rs384 => "sha384",
            Self::Rs512 => "sha512",
        }
    }
}

// === impl Jwk ===

impl Jwk {
    /// An RSA key; both numbers big-endian.
    ///
    /// # Errors
    ///
    /// When the key is not fit.
    pub fn rsa(
        key_id: Option<String>,
        algorithm: Option<Algorithm>,
        modulus: &[u8],
        exponent: &[u8],
    ) -> Result<Self, InvalidKey> {
        let modulus = without_zeros(modulus);
        let exponent = without_zeros(exponent);
        let bytes = u32::try_from(modulus.len()).map_err(|_| InvalidKey::ModulusSize(u32::MAX))?;
        let first = modulus.first().copied().unwrap_or(0);
        let bits = bytes.saturating_mul(8).saturating_sub(first.leading_zeros());
        if !RSA_BITS.contains(&bits) {
            return Err(InvalidKey::ModulusSize(bits));
        }
        if modulus.last().is_none_or(|b| b & 1 == 0) {
            return Err(InvalidKey::ModulusEven);
        }
        let value = exponent.iter().try_fold(0_u32, |e, b| e.checked_mul(256)?.checked_add(u32::from(*b)));
        if !value.is_some_and(|e| e >= 65_537 && e & 1 == 1) {
            return Err(InvalidKey::Exponent);
        }
        let material = Material::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() };
        Self { key_id, algorithm, material }.checked()
    }

    /// A P-256 key; both coordinates big-endian.
    ///
    /// # Errors
    ///
    /// When the key is not fit.
    pub fn p256(
        key_id: Option<String>,
        algorithm: Option<Algorithm>,
        x: [u8; P256_COORDINATE_BYTES],
        y: [u8; P256_COORDINATE_BYTES],
    ) -> Result<Self, InvalidKey> {
        let jwk = Self { key_id, algorithm, material: Material::P256 { x, y } };
        p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(&x, &y)).map_err(|_| InvalidKey::NotOnCurve)?;
        jwk.checked()
    }

    /// A key as RFC 7517 writes it. Members that are not known are ignored (RFC 7517 §4).
    ///
    /// # Errors
    ///
    /// When the key is not fit.
    pub fn from_json(value: &Value) -> Result<Self, InvalidKey> {
        let members = value.as_object().ok_or(InvalidKey::Member("kty"))?;
        let kind = required(members, "kty")?;
        let curve = optional(members, "crv")?;
        match (kind, curve) {
            ("RSA", None) | ("EC", Some("P-256")) => {}
            (kind, None) => return Err(InvalidKey::UnsupportedType(kind.to_owned())),
            (kind, Some(curve)) => return Err(InvalidKey::UnsupportedType(format!("{kind} {curve}"))),
        }
        // RFC 7518 §6.2.2 and §6.3.2, and `k` of symmetric keys.
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            if members.get(private).is_some() {
                return Err(InvalidKey::Private(private));
            }
        }
        if optional(members, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(InvalidKey::Purpose("use"));
        }
        if let Some(operations) = members.get("key_ops") {
            let operations = operations.as_array().ok_or(InvalidKey::Member("key_ops"))?;
            if !operations.iter().any(|o| o.as_str() == Some("verify")) {
                return Err(InvalidKey::Purpose("key_ops"));
            }
        }
        let key_id = optional(members, "kid")?.map(str::to_owned);
        let algorithm = match optional(members, "alg")? {
            Some(name) => Some(Algorithm::from_name(name).ok_or(InvalidKey::Algorithm(name.to_owned()))?),
            None => None,
        };
        if kind == "RSA" {
            return Self::rsa(key_id, algorithm, &bytes(members, "n")?, &bytes(members, "e")?);
        }
        Self::p256(key_id, algorithm, coordinate(members, "x")?, coordinate(members, "y")?)
    }

    /// `kid`.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// `alg`: if given, the only algorithm that the key is for.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// The kind of key.
    pub fn family(&self) -> KeyFamily {
        match self.material {
            Material::Rsa { .. } => KeyFamily::Rsa,
            Material::P256 { .. } => KeyFamily::EcdsaP256,
        }
    }

    /// Whether the key may verify signatures of this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.family() == algorithm.family() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether some token could be verified with either key, so that "the" key of a `kid` would not be one.
    pub fn collides(&self, other: &Self) -> bool {
        self.key_id.is_some()
            && self.key_id == other.key_id
            && Algorithm::ALL.into_iter().any(|a| self.fits(a) && other.fits(a))
    }

    fn checked(self) -> Result<Self, InvalidKey> {
        if self.key_id.as_deref().is_some_and(|id| id.is_empty() || id.len() > MAX_KEY_ID_BYTES) {
            return Err(InvalidKey::Member("kid"));
        }
        match self.algorithm {
            Some(algorithm) if algorithm.family() != self.family() => {
                Err(InvalidKey::Algorithm(algorithm.name().to_owned()))
            }
            _ => Ok(self),
        }
    }
}

impl Serialize for Jwk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        if let Some(algorithm) = self.algorithm {
            members.serialize_entry("alg", algorithm.name())?;
        }
        if let Some(key_id) = &self.key_id {
            members.serialize_entry("kid", key_id)?;
        }
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                members.serialize_entry("e", &base64url::encode(exponent))?;
                members.serialize_entry("kty", "RSA")?;
                members.serialize_entry("n", &base64url::encode(modulus))?;
            }
            Material::P256 { x, y } => {
                members.serialize_entry("crv", "P-256")?;
                members.serialize_entry("kty", "EC")?;
                members.serialize_entry("x", &base64url::encode(x))?;
                members.serialize_entry("y", &base64url::encode(y))?;
            }
        }
        members.end()
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The uncompressed point of SEC 1 §2.3.3.
fn point(x: &[u8; P256_COORDINATE_BYTES], y: &[u8; P256_COORDINATE_BYTES]) -> Vec<u8> {
    [&[0x04], x.as_slice(), y.as_slice()].concat()
}

fn optional<'v>(members: &'v Object, name: &'static str) -> Result<Option<&'v str>, InvalidKey> {
    members.get(name).map(|value| value.as_str().ok_or(InvalidKey::Member(name))).transpose()
}

fn required<'v>(members: &'v Object, name: &'static str) -> Result<&'v str, InvalidKey> {
    optional(members, name)?.ok_or(InvalidKey::Member(name))
}

fn bytes(members: &Object, name: &'static str) -> Result<Vec<u8>, InvalidKey> {
    base64url::decode(required(members, name)?.as_bytes()).ok_or(InvalidKey::Member(name))
}

/// RFC 7518 §6.2.1.2: "The length of this octet string MUST be the full size of a coordinate for the curve".
fn coordinate(members: &Object, name: &'static str) -> Result<[u8; P256_COORDINATE_BYTES], InvalidKey> {
    bytes(members, name)?.try_into().map_err(|_| InvalidKey::Member(name))
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

    /// The only length in bytes that a JWS signature by this key has. RSA: that of the modulus (RFC 8017 §8.2.2: "If
    /// the length of the signature S is not k octets, output "invalid signature""); ECDSA P-256: 64 (RFC 7518 §3.4).
    pub fn signature_len(&self) -> usize {
        match &self.jwk.material {
            Material::Rsa { modulus, .. } => modulus.len(),
            Material::P256 { x, y } => x.len().saturating_add(y.len()),
        }
    }

    pub(crate) fn as_rsa(&self) -> Option<&rsa::RsaPublicKey> {
        let Material::Rsa { modulus, exponent } = &self.jwk.material else { return None };
        let prepared = self.rsa.get_or_init(|| {
            let modulus = rsa::BoxedUint::from_be_slice_vartime(modulus);
            let exponent = rsa::BoxedUint::from_be_slice_vartime(exponent);
            rsa::RsaPublicKey::new(modulus, exponent).ok()
        });
        prepared.as_ref()
    }

    pub(crate) fn as_p256(&self) -> Option<p256::ecdsa::VerifyingKey> {
        let Material::P256 { x, y } = &self.jwk.material else { return None };
        p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(x, y)).ok()
    }
}

impl From<Jwk> for PublicKey {
    fn from(jwk: Jwk) -> Self {
        let spki = match &jwk.material {
            Material::Rsa { modulus, exponent } => der::rsa_spki(modulus, exponent),
            Material::P256 { x, y } => der::p256_spki(&point(x, y)),
        };
        Self { jwk, spki, rsa: OnceLock::new() }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

impl Eq for PublicKey {}
