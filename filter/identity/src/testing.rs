//! Issuers and tokens for unit tests, natively and in wasm. Keys come from fixed bytes and are worth nothing.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};

use crate::pack::golden;
pub use crate::pack::golden::{AUDIENCE, claims, generic, google, kubernetes, with};

use crate::issuer::{IssuerSet, IssuerSetSpec, IssuerSpec};
use crate::keys::{Algorithm, Curve, Jwk};
use crate::{At, Authenticator, CacheLimits, Connection, PackKind, PureRust, TokenOutcome, base64url};

pub const NOW: i64 = 1_795_200_100;
pub const KEY_ID: &str = "key-1";

/// Signs with ES256.
pub struct Signer(SigningKey);

impl Signer {
    pub fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub fn jwk(&self, key_id: Option<&str>) -> Jwk {
        let point = self.0.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        Jwk::ec(key_id.map(str::to_owned), None, Curve::P256, x, y).unwrap()
    }

    pub fn signature(&self, input: &str) -> Vec<u8> {
        let signature: Signature = self.0.sign(input.as_bytes());
        signature.to_bytes().to_vec()
    }

    /// A token of exactly these texts.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let input =
            format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(claims.as_bytes()));
        let signature = base64url::encode(&self.signature(&input));
        format!("{input}.{signature}")
    }

    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": KEY_ID, "typ": "JWT"}).to_string(), &claims.to_string())
    }

    pub fn with_header(&self, header: &Value) -> String {
        self.sign(&header.to_string(), &generic().to_string())
    }
}

/// Issuers in force, all of them named by the policy.
pub struct Gate {
    pub authenticator: Authenticator,
    outcomes: Vec<TokenOutcome>,
}

impl Gate {
    pub fn new(specs: Vec<IssuerSpec>) -> Self {
        Self::with_slots(specs, &[])
    }

    pub fn with_slots(specs: Vec<IssuerSpec>, slots: &[&[&str]]) -> Self {
        let policy: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), paths(slots))).collect();
        let authenticator = Authenticator::new(set(specs), policy, CacheLimits::default()).unwrap();
        Self { authenticator, outcomes: Vec::new() }
    }

    /// The first issuer's outcome.
    pub fn headers(&mut self, headers: &[(&str, &str)], now: i64) -> TokenOutcome {
        self.all(headers, now).first().cloned().unwrap_or_default()
    }

    pub fn all(&mut self, headers: &[(&str, &str)], now: i64) -> Vec<TokenOutcome> {
        self.over(headers, At::now(now), &PureRust)
    }

    /// All outcomes for a request that comes over this connection.
    pub fn over(
        &mut self,
        headers: &[(&str, &str)],
        at: At,
        connection: &dyn Connection,
    ) -> Vec<TokenOutcome> {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        self.authenticator.authenticate(&headers, at, connection, &mut self.outcomes);
        self.outcomes.clone()
    }

    pub fn bearer(&mut self, token: &str) -> TokenOutcome {
        self.bearer_at(token, NOW)
    }

    pub fn bearer_at(&mut self, token: &str, now: i64) -> TokenOutcome {
        self.headers(&[("authorization", &format!("Bearer {token}"))], now)
    }
}

pub fn set(issuers: Vec<IssuerSpec>) -> IssuerSet {
    IssuerSet::decode(&IssuerSetSpec::new(issuers).encode().unwrap()).unwrap()
}

pub fn paths(slots: &[&[&str]]) -> Vec<Vec<String>> {
    slots.iter().map(|path| path.iter().map(|name| (*name).to_owned()).collect()).collect()
}

/// An issuer of this pack with the key of this signer.
pub fn issuer(pack: PackKind, signer: &Signer) -> IssuerSpec {
    let issuer = golden::issuer(pack);
    // Of the generic pack both kinds of tokens are tried: those of RFC 9068 and others.
    let types =
        if pack == PackKind::Generic { vec!["jwt".to_owned(), "at+jwt".to_owned()] } else { Vec::new() };
    IssuerSpec {
        types,
        algorithms: vec![Algorithm::Es256],
        valid_until: NOW + 100_000,
        keys: vec![signer.jwk(Some(KEY_ID))],
        ..IssuerSpec::new(pack.name(), issuer, pack)
    }
}
