//! Keys that sign tokens, and what is published of them.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
};
use serde_json::{Value, json};

/// What kind of key, and with which algorithm it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with 2048 bits, RS256.
    Rs256,
    /// RSA with 2048 bits, PS256.
    Ps256,
    /// ECDSA on P-256, ES256.
    Es256,
    /// ECDSA on P-384, ES384.
    Es384,
    /// ECDSA on P-521, ES512.
    Es512,
    /// Ed25519, EdDSA.
    EdDsa,
}

/// A key pair with its id.
pub struct SigningKey {
    kind: KeyKind,
    id: String,
    jwk: Value,
    public_pem: String,
    public_der: Vec<u8>,
    private: Private,
}

enum Private {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key cannot be made, or cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("cannot make or use a {kind:?} key: {reason}")]
pub struct KeyError {
    kind: KeyKind,
    reason: String,
}

// === impl KeyKind ===

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Rs256, Self::Ps256, Self::Es256, Self::Es384, Self::Es512, Self::EdDsa];

    /// The value of `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Rs256 | Self::Ps256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Es256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::Es384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Self::Es512 => KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512),
            Self::EdDsa => KeyPair::generate_for(&PKCS_ED25519),
        }
    }

    /// The key's own members of a JWK: RFC 7518 §6, RFC 8037 §2.
    fn jwk(self, pair: &KeyPair) -> Result<Value, KeyError> {
        let curve = match self {
            Self::Rs256 | Self::Ps256 => {
                let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).map_err(failed(self))?;
                let jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(failed(self))?;
                return serde_json::to_value(jwk).map_err(failed(self));
            }
            Self::EdDsa => {
                return Ok(json!({
                    "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()),
                }));
            }
            Self::Es256 => "P-256",
            Self::Es384 => "P-384",
            Self::Es512 => "P-521",
        };
        // The uncompressed point of SEC 1 §2.3.3: 4, then both coordinates.
        let coordinates = pair.public_key_raw().get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        Ok(json!({"kty": "EC", "crv": curve, "x": x, "y": y}))
    }

    fn private(self, pair: &KeyPair) -> Result<Private, KeyError> {
        let der = pair.serialize_der();
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, &der).map(Private::Ecdsa).map_err(failed(self))
        };
        let rsa = |encoding: &'static dyn RsaEncoding| {
            RsaKeyPair::from_pkcs8(&der).map(|key| Private::Rsa(key, encoding)).map_err(failed(self))
        };
        match self {
            Self::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Self::Ps256 => rsa(&RSA_PSS_SHA256),
            Self::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Self::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Self::Es512 => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Self::EdDsa => Ed25519KeyPair::from_pkcs8(&der).map(Private::Ed25519).map_err(failed(self)),
        }
    }
}

// === impl SigningKey ===

impl SigningKey {
    /// A new key, whose id is its fingerprint.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let pair = kind.generate().map_err(failed(kind))?;
        let key = Self {
            kind,
            id: String::new(),
            jwk: kind.jwk(&pair)?,
            public_pem: pair.public_key_pem(),
            public_der: pair.subject_public_key_info(),
            private: kind.private(&pair)?,
        };
        let id = key.fingerprint_base64();
        Ok(key.with_id(&id).with_member("use", "sig").with_member("alg", kind.name()))
    }

    /// The same key under another id.
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self.with_member("kid", id)
    }

    /// The same key, published with another member, e.g. another `use`.
    pub fn with_member(mut self, name: &str, value: &str) -> Self {
        if let Some(members) = self.jwk.as_object_mut() {
            members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// RSA or elliptic curve.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The value of `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as a member of a key set.
    pub fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// The public key, SubjectPublicKeyInfo PEM.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public key, SubjectPublicKeyInfo DER.
    pub fn public_der(&self) -> &[u8] {
        &self.public_der
    }

    /// A signature in JWS form (RFC 7518 §3).
    pub fn sign(&self, input: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, input, &mut signature).map_err(failed(self.kind))?;
                Ok(signature)
            }
            Private::Ecdsa(key) => Ok(key.sign(&random, input).map_err(failed(self.kind))?.as_ref().to_vec()),
            Private::Ed25519(key) => Ok(key.sign(input).as_ref().to_vec()),
        }
    }

    /// As GitLab and Kubernetes name their keys: 43 characters.
    pub(super) fn fingerprint_base64(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.public_der))
    }

    /// As Google names its keys: 40 hexadecimal digits.
    pub(super) fn fingerprint_hex(&self) -> String {
        digest(&SHA256, &self.public_der).as_ref().iter().take(20).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

fn failed<E: fmt::Display>(kind: KeyKind) -> impl FnOnce(E) -> KeyError {
    move |reason| KeyError { kind, reason: reason.to_string() }
}
