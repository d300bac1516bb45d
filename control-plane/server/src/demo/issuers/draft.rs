//! A token before it is signed: right as it is, or bent into one of the forgeries that a verifier must refuse.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::keys::SigningKey;

/// A token before it is signed. Header and claims are JSON and may be set to anything.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The JOSE header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
    key: Arc<SigningKey>,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    Honest,
    None,
    HmacWithPublicKey,
    Damaged,
}

/// A token cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign a token with {algorithm}: {source}")]
pub struct MintError {
    algorithm: &'static str,
    source: jsonwebtoken::errors::Error,
}

impl Draft {
    pub(super) fn new(key: Arc<SigningKey>, with_type: bool, claims: Value) -> Self {
        let mut header = json!({"alg": key.kind().name(), "kid": key.id()});
        if with_type {
            header["typ"] = "JWT".into();
        }
        Self { header, claims, key, signature: Signature::Honest }
    }

    /// Changes the claims.
    pub fn claims(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.claims);
        self
    }

    /// Changes the JOSE header.
    pub fn header(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.header);
        self
    }

    /// Sets one claim at the top level.
    pub fn claim(self, name: &str, value: impl Into<Value>) -> Self {
        self.claims(|claims| {
            if let Some(members) = claims.as_object_mut() {
                members.insert(name.to_owned(), value.into());
            }
        })
    }

    /// Removes one claim at the top level.
    pub fn without(self, name: &str) -> Self {
        self.claims(|claims| {
            if let Some(members) = claims.as_object_mut() {
                members.remove(name);
            }
        })
    }

    /// Meant for somebody else, in the form (string or list) that the issuer uses.
    pub fn audience(self, audience: &str) -> Self {
        let is_list = self.claims.get("aud").is_some_and(Value::is_array);
        self.claim("aud", if is_list { json!([audience]) } else { json!(audience) })
    }

    /// Moves every time claim by this many seconds.
    pub fn shifted(self, seconds: i64) -> Self {
        self.claims(|claims| {
            for name in ["iat", "nbf", "exp"] {
                if let Some(value) = claims.get_mut(name)
                    && let Some(time) = value.as_i64()
                {
                    *value = time.saturating_add(seconds).into();
                }
            }
        })
    }

    /// Issued two hours ago, and over by now.
    pub fn expired(self) -> Self {
        self.shifted(-2 * 3600)
    }

    /// Signed by `key`; `alg` and `kid` follow it.
    pub fn signed_by(mut self, key: &Arc<SigningKey>) -> Self {
        self.key = Arc::clone(key);
        let (algorithm, id) = (key.kind().name(), key.id().to_owned());
        self.header(|header| {
            if let Some(members) = header.as_object_mut() {
                members.insert("alg".into(), algorithm.into());
                members.insert("kid".into(), id.into());
            }
        })
    }

    /// Signed by `key` under the header of the issuer's own: the same `kid`, another key.
    pub fn forged_with(mut self, key: &Arc<SigningKey>) -> Self {
        self.key = Arc::clone(key);
        self
    }

    /// `alg: none` and no signature.
    pub fn unsigned(mut self) -> Self {
        self.signature = Signature::None;
        self.with_algorithm("none")
    }

    /// `alg: HS256`, with the issuer's public key (as PEM) for a secret.
    pub fn hmac_with_public_key(mut self) -> Self {
        self.signature = Signature::HmacWithPublicKey;
        self.with_algorithm("HS256")
    }

    /// Signed, and then one bit of the signature turned over.
    pub fn damaged(mut self) -> Self {
        self.signature = Signature::Damaged;
        self
    }

    /// The JWS compact serialisation.
    pub fn sign(&self) -> Result<String, MintError> {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(&self.header), encode(&self.claims));
        let algorithm = self.key.kind().algorithm();
        let signature = match self.signature {
            Signature::None => String::new(),
            Signature::Honest => sign(&input, self.key.private(), algorithm)?,
            Signature::HmacWithPublicKey => {
                let secret = EncodingKey::from_secret(self.key.public_pem().as_bytes());
                sign(&input, &secret, Algorithm::HS256)?
            }
            Signature::Damaged => turn_one_bit(&sign(&input, self.key.private(), algorithm)?),
        };
        Ok(format!("{input}.{signature}"))
    }

    fn with_algorithm(self, algorithm: &str) -> Self {
        self.header(|header| {
            if let Some(members) = header.as_object_mut() {
                members.insert("alg".into(), algorithm.into());
            }
        })
    }
}

fn sign(input: &str, key: &EncodingKey, algorithm: Algorithm) -> Result<String, MintError> {
    let name = match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::HS256 => "HS256",
        _ => "RS256",
    };
    jsonwebtoken::crypto::sign(input.as_bytes(), key, algorithm)
        .map_err(|source| MintError { algorithm: name, source })
}

/// The result is still canonical base64url of the same length.
fn turn_one_bit(signature: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    if let Some(byte) = bytes.get_mut(17) {
        *byte ^= 1;
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
