//! A token before it is signed: right as it is, or bent into one of the forgeries that a verifier must refuse.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{KeyError, SigningKey};

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

impl Draft {
    pub(super) fn new(key: Arc<SigningKey>, kind: Option<&str>, claims: Value) -> Self {
        let mut header = json!({"alg": key.kind().name(), "kid": key.id()});
        if let Some(kind) = kind {
            header["typ"] = kind.into();
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
    pub fn sign(&self) -> Result<String, KeyError> {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(&self.header), encode(&self.claims));
        let signature = match self.signature {
            Signature::None => Vec::new(),
            Signature::Honest => self.key.sign(input.as_bytes())?,
            Signature::HmacWithPublicKey => {
                let secret = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_pem().as_bytes());
                hmac::sign(&secret, input.as_bytes()).as_ref().to_vec()
            }
            Signature::Damaged => {
                let mut signature = self.key.sign(input.as_bytes())?;
                if let Some(byte) = signature.get_mut(17) {
                    *byte ^= 1;
                }
                signature
            }
        };
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn with_algorithm(self, algorithm: &str) -> Self {
        self.header(|header| {
            if let Some(members) = header.as_object_mut() {
                members.insert("alg".into(), algorithm.into());
            }
        })
    }
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
