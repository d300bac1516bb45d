//! Keys that sign tokens, and what is published of them.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use serde_json::Value;

/// What kind of key, and with which algorithm it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with 2048 bits, RS256.
    Rs256,
    /// ECDSA on P-256, ES256.
    Es256,
}

/// A key pair with its id.
#[derive(Clone)]
pub struct SigningKey {
    kind: KeyKind,
    id: String,
    jwk: Value,
    public_pem: String,
    public_der: Vec<u8>,
    private: EncodingKey,
}

/// A key cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a {kind:?} key: {reason}")]
pub struct KeyError {
    kind: KeyKind,
    reason: String,
}

// === impl KeyKind ===

impl KeyKind {
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
        }
    }

    /// The value of `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

// === impl SigningKey ===

impl SigningKey {
    /// A new key, whose id is its fingerprint.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let pair = match kind {
            KeyKind::Rs256 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyKind::Es256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        };
        let pair = pair.map_err(failed(kind))?;
        let pem = pair.serialize_pem();
        let private = match kind {
            KeyKind::Rs256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            KeyKind::Es256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let private = private.map_err(failed(kind))?;
        let jwk = Jwk::from_encoding_key(&private, kind.algorithm()).map_err(failed(kind))?;
        let jwk = serde_json::to_value(jwk).map_err(failed(kind))?;
        let public_der = pair.subject_public_key_info();
        let key =
            Self { kind, id: String::new(), jwk, public_pem: pair.public_key_pem(), public_der, private };
        let id = key.fingerprint_base64();
        Ok(key.with_id(&id))
    }

    /// The same key under another id.
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        if let Some(members) = self.jwk.as_object_mut() {
            members.insert("kid".into(), id.into());
            members.insert("use".into(), "sig".into());
            members.insert("alg".into(), self.kind.name().into());
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

    pub(super) fn private(&self) -> &EncodingKey {
        &self.private
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
