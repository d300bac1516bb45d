//! The list of attacks on verifiers of tokens, row by row, each with a twin that is accepted.
//!
//! A row is a class of attack that is publicly known, by the number that it has in this project's list. Rows that are
//! missing here are about what this crate does not do: fetching keys (6, 8), the proxy's clock (29), headers that others
//! wrote (35), rules (36, 41 to 43, 46, 47). Each case goes through [`Authenticator`] twice, with pure Rust and as the
//! host verifies. What is known of these classes is in RFC 8725 and its successor.

#![cfg(not(target_arch = "wasm32"))]

#[path = "../support/mod.rs"]
mod support;

mod claims;
mod header;
mod keys;
mod signature;
mod transport;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{KEYS, LikeTheHost, key_id};
use tidegate_engine::TokenFault;
use tidegate_identity::issuer::{IssuerSetSpec, IssuerSpec};
use tidegate_identity::{
    Algorithm, At, Authenticator, CacheLimits, Connection, IssuerSet, PackKind, PublicKey, PureRust,
    TokenOutcome, Verdict, VerifySignature,
};

pub(crate) const ISSUER: &str = "https://issuer.example.com";
pub(crate) const AUDIENCE: &str = "https://ledger.svc.example.com";
pub(crate) const NOW: i64 = 1_795_200_100;
pub(crate) const CERTIFICATE: [u8; 32] = [0xc5; 32];

/// A request that is an attack, or the twin of one.
pub(crate) struct Case {
    row: u8,
    attack: &'static str,
    headers: Vec<(&'static str, String)>,
    issuer: IssuerSpec,
    at: At,
    certificate: Option<[u8; 32]>,
    expected: Expected,
}

/// What must become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Verified,
    /// No token at all: not of an issuer that is configured, or none that anybody takes for a signed JWT.
    Absent,
    Refused(TokenFault),
}

pub(crate) fn case(row: u8, attack: &'static str, token: impl Into<String>, expected: Expected) -> Case {
    let headers = vec![("authorization", format!("Bearer {}", token.into()))];
    let issuer = issuer();
    Case { row, attack, headers, issuer, at: At::now(NOW), certificate: None, expected }
}

/// The twin: it is accepted.
pub(crate) fn twin(row: u8, token: impl Into<String>) -> Case {
    case(row, "", token, Expected::Verified)
}

pub(crate) fn refused(row: u8, attack: &'static str, token: impl Into<String>, fault: TokenFault) -> Case {
    case(row, attack, token, Expected::Refused(fault))
}

impl Case {
    pub(crate) fn headers(mut self, headers: Vec<(&'static str, String)>) -> Self {
        self.headers = headers;
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut IssuerSpec)) -> Self {
        change(&mut self.issuer);
        self
    }

    pub(crate) fn at(mut self, now: i64) -> Self {
        self.at.now = now;
        self
    }

    pub(crate) fn over(mut self, certificate: [u8; 32]) -> Self {
        self.certificate = Some(certificate);
        self
    }
}

pub(crate) fn issuer() -> IssuerSpec {
    IssuerSpec {
        audiences: vec![AUDIENCE.to_owned()],
        types: vec!["jwt".to_owned()],
        algorithms: Algorithm::ALL.to_vec(),
        valid_until: NOW + 100_000,
        keys: KEYS.jwks(),
        ..IssuerSpec::new("issuer", ISSUER, PackKind::Generic)
    }
}

pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "robot", "aud": AUDIENCE, "jti": "1",
        "iat": NOW - 100, "nbf": NOW - 100, "exp": NOW + 500,
    })
}

/// The claims with these in place of their own; null removes one.
pub(crate) fn claims_with(changes: Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims.to_string()
}

pub(crate) fn header(algorithm: Algorithm) -> Value {
    json!({"alg": algorithm.name(), "kid": key_id(algorithm), "typ": "JWT"})
}

/// A token that is as it should be.
pub(crate) fn good(algorithm: Algorithm) -> String {
    KEYS.token(algorithm, &header(algorithm).to_string(), &claims().to_string())
}

/// ES256 with another header.
pub(crate) fn with_header(header: &str) -> String {
    KEYS.token(Algorithm::Es256, header, &claims().to_string())
}

/// ES256 with other claims.
pub(crate) fn with_claims(claims: &str) -> String {
    KEYS.token(Algorithm::Es256, &header(Algorithm::Es256).to_string(), claims)
}

/// The same keys over a connection with a certificate.
struct Over<'v>(&'v dyn VerifySignature, Option<[u8; 32]>);

impl VerifySignature for Over<'_> {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        self.0.verify(algorithm, key, input, signature)
    }
}

impl Connection for Over<'_> {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.1
    }
}

pub(crate) fn authenticator(specs: Vec<IssuerSpec>) -> Authenticator {
    let policy: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), Vec::new())).collect();
    let set = IssuerSet::decode(&IssuerSetSpec::new(specs).encode().unwrap()).unwrap();
    Authenticator::new(set, policy, CacheLimits::default()).unwrap()
}

fn run(case: &Case) -> [Expected; 2] {
    [&PureRust as &dyn VerifySignature, &LikeTheHost].map(|verifier| {
        let mut authenticator = authenticator(vec![case.issuer.clone()]);
        let headers: Vec<_> =
            case.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let mut out = Vec::new();
        authenticator.authenticate(&headers, case.at, &Over(verifier, case.certificate), &mut out);
        let found = match &out[..] {
            [TokenOutcome::Verified(_)] => Expected::Verified,
            [TokenOutcome::Absent] => Expected::Absent,
            [TokenOutcome::Invalid(fault)] => Expected::Refused(*fault),
            other => panic!("{other:?}"),
        };
        // Only what was verified is remembered; of several tokens each may be good.
        if found != Expected::Refused(TokenFault::SeveralTokens) {
            assert_eq!(authenticator.cached(), usize::from(found == Expected::Verified), "{}", case.attack);
        }
        found
    })
}

#[test]
fn every_attack_is_refused_and_every_twin_accepted() {
    let cases: Vec<_> = [header::cases(), signature::cases(), claims::cases(), transport::cases()]
        .into_iter()
        .flatten()
        .collect();
    let mut rows: BTreeMap<u8, [usize; 3]> = BTreeMap::new();
    for case in &cases {
        let found = run(case);
        assert_eq!(found, [case.expected; 2], "row {} {}: {:?}", case.row, case.attack, case.headers);
        let row = rows.entry(case.row).or_default();
        row[0] += 1;
        row[if case.expected == Expected::Verified { 2 } else { 1 }] += 1;
    }
    let mut sum = [0; 3];
    for (row, counts) in &rows {
        println!("row {row:2}: {} tried, {} refused, {} accepted", counts[0], counts[1], counts[2]);
        // Otherwise the row would show nothing.
        assert!(counts[1] > 0 && counts[2] > 0, "row {row}: {counts:?}");
        sum = std::array::from_fn(|at| sum[at] + counts[at]);
    }
    println!("all rows: {} tried, {} refused, {} accepted", sum[0], sum[1], sum[2]);
    let here = [1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28]
        .into_iter()
        .chain([30, 31, 32, 33, 34, 37, 38, 39, 44]);
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), here.collect::<Vec<_>>());
}
