//! One key: how it is written, and what makes it fit.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Algorithm, Curve, InvalidKey, KeyFamily, KeyUse, MAX_ISSUER_BYTES, MAX_KEY_ID_BYTES};
use crate::base64url;
use crate::json::{Object, Value};
use crate::signature::pure;

const RSA_BITS: core::ops::RangeInclusive<u32> = 2048..=8192;
/// Bytes of an Ed25519 key (RFC 8032 §5.1.5).
const ED25519_BYTES: usize = 32;

/// A fit public key as data: what travels in the keys section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    key_id: Option<String>,
    algorithm: Option<Algorithm>,
    issuer: Option<String>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Material {
    /// Big-endian, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// The uncompressed point of SEC 1 §2.3.3: 4, x, y.
    Ec { curve: Curve, point: Vec<u8> },
    /// The encoded point of RFC 8032 §5.1.2.
    Ed25519([u8; ED25519_BYTES]),
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
        Self::new(key_id, algorithm, material)
    }

    /// A key for ECDSA; both coordinates big-endian and in full length. RFC 7518 §6.2.1.2: "The length of this octet
    /// string MUST be the full size of a coordinate for the curve".
    ///
    /// # Errors
    ///
    /// When the key is not fit.
    pub fn ec(
        key_id: Option<String>,
        algorithm: Option<Algorithm>,
        curve: Curve,
        x: &[u8],
        y: &[u8],
    ) -> Result<Self, InvalidKey> {
        for (name, coordinate) in [("x", x), ("y", y)] {
            if coordinate.len() != curve.bytes() {
                return Err(InvalidKey::Member(name));
            }
        }
        let point = [&[0x04], x, y].concat();
        if !pure::on_curve(curve, &point) {
            return Err(InvalidKey::NotOnCurve(curve));
        }
        Self::new(key_id, algorithm, Material::Ec { curve, point })
    }

    /// An Ed25519 key: the encoded point.
    ///
    /// # Errors
    ///
    /// When the key is not fit.
    pub fn ed25519(
        key_id: Option<String>,
        algorithm: Option<Algorithm>,
        x: &[u8],
    ) -> Result<Self, InvalidKey> {
        let x = <[u8; ED25519_BYTES]>::try_from(x).map_err(|_| InvalidKey::Member("x"))?;
        if !pure::is_ed25519_key(&x) {
            return Err(InvalidKey::UnsafePoint);
        }
        Self::new(key_id, algorithm, Material::Ed25519(x))
    }

    fn new(
        key_id: Option<String>,
        algorithm: Option<Algorithm>,
        material: Material,
    ) -> Result<Self, InvalidKey> {
        let jwk = Self { key_id, algorithm, issuer: None, material };
        if jwk.key_id.as_deref().is_some_and(|id| id.is_empty() || id.len() > MAX_KEY_ID_BYTES) {
            return Err(InvalidKey::Member("kid"));
        }
        match jwk.algorithm {
            Some(algorithm) if algorithm.family() != jwk.family() => {
                Err(InvalidKey::Algorithm(algorithm.name().to_owned()))
            }
            _ => Ok(jwk),
        }
    }

    /// A key as RFC 7517 writes it. Members that are not known are ignored (RFC 7517 §4).
    ///
    /// # Errors
    ///
    /// When the key is not fit for this use.
    pub fn from_json(value: &Value, purpose: KeyUse) -> Result<Self, InvalidKey> {
        let members = value.as_object().ok_or(InvalidKey::Member("kty"))?;
        let family = family(members)?;
        // RFC 7518 §6.2.2 and §6.3.2, RFC 8037 §2, and `k` of symmetric keys.
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            if members.get(private).is_some() {
                return Err(InvalidKey::Private(private));
            }
        }
        if !purpose.admits(optional(members, "use")?) {
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
        let issuer = optional(members, "issuer")?.map(str::to_owned);
        if issuer.as_deref().is_some_and(|issuer| issuer.is_empty() || issuer.len() > MAX_ISSUER_BYTES) {
            return Err(InvalidKey::Member("issuer"));
        }
        let key = match family {
            KeyFamily::Rsa => Self::rsa(key_id, algorithm, &bytes(members, "n")?, &bytes(members, "e")?),
            KeyFamily::Ec(curve) => {
                Self::ec(key_id, algorithm, curve, &bytes(members, "x")?, &bytes(members, "y")?)
            }
            KeyFamily::Ed25519 => Self::ed25519(key_id, algorithm, &bytes(members, "x")?),
        };
        Ok(Self { issuer, ..key? })
    }

    /// `kid`.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// `alg`: if given, the only algorithm that the key is for.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// `issuer`, which Microsoft Entra writes beside each key: if given, the key is only for tokens of this issuer. What
    /// a `{tenantid}` in it stands for, the pack knows.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The kind of key.
    pub fn family(&self) -> KeyFamily {
        match &self.material {
            Material::Rsa { .. } => KeyFamily::Rsa,
            Material::Ec { curve, .. } => KeyFamily::Ec(*curve),
            Material::Ed25519(_) => KeyFamily::Ed25519,
        }
    }

    /// Whether the key may verify signatures of this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.family() == algorithm.family() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether some token could be verified with either key, so that "the" key of a `kid` would not be one. Keys for
    /// different issuers do not collide.
    pub fn collides(&self, other: &Self) -> bool {
        let apart = self.issuer.is_some() && other.issuer.is_some() && self.issuer != other.issuer;
        !apart
            && self.key_id.is_some()
            && self.key_id == other.key_id
            && Algorithm::ALL.into_iter().any(|a| self.fits(a) && other.fits(a))
    }

    pub(crate) fn material(&self) -> &Material {
        &self.material
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
        if let Some(issuer) = &self.issuer {
            members.serialize_entry("issuer", issuer)?;
        }
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                members.serialize_entry("e", &base64url::encode(exponent))?;
                members.serialize_entry("kty", "RSA")?;
                members.serialize_entry("n", &base64url::encode(modulus))?;
            }
            Material::Ec { curve, point } => {
                let (x, y) =
                    point.get(1..).unwrap_or_default().split_at_checked(curve.bytes()).unwrap_or_default();
                members.serialize_entry("crv", curve.name())?;
                members.serialize_entry("kty", "EC")?;
                members.serialize_entry("x", &base64url::encode(x))?;
                members.serialize_entry("y", &base64url::encode(y))?;
            }
            Material::Ed25519(x) => {
                members.serialize_entry("crv", "Ed25519")?;
                members.serialize_entry("kty", "OKP")?;
                members.serialize_entry("x", &base64url::encode(x))?;
            }
        }
        members.end()
    }
}

fn family(members: &Object) -> Result<KeyFamily, InvalidKey> {
    let kind = optional(members, "kty")?.ok_or(InvalidKey::Member("kty"))?;
    let curve = optional(members, "crv")?;
    let family = match (kind, curve) {
        ("RSA", None) => Some(KeyFamily::Rsa),
        ("EC", Some(name)) => Curve::from_name(name).map(KeyFamily::Ec),
        ("OKP", Some("Ed25519")) => Some(KeyFamily::Ed25519),
        _ => None,
    };
    family.ok_or_else(|| {
        InvalidKey::UnsupportedType(match curve {
            Some(curve) => format!("{kind} {curve}"),
            None => kind.to_owned(),
        })
    })
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn optional<'v>(members: &'v Object, name: &'static str) -> Result<Option<&'v str>, InvalidKey> {
    members.get(name).map(|value| value.as_str().ok_or(InvalidKey::Member(name))).transpose()
}

fn bytes(members: &Object, name: &'static str) -> Result<Vec<u8>, InvalidKey> {
    let text = optional(members, name)?.ok_or(InvalidKey::Member(name))?;
    base64url::decode(text.as_bytes()).ok_or(InvalidKey::Member(name))
}
