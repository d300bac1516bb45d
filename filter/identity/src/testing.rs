//! Issuers and tokens for unit tests, natively and in wasm. Keys come from fixed bytes and are worth nothing.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};

use crate::issuer::{IssuerSet, IssuerSetSpec, IssuerSpec};
use crate::keys::{Algorithm, Jwk};
use crate::{Authenticator, CacheLimits, PackKind, PureRust, TokenOutcome, base64url};

pub const NOW: i64 = 1_795_200_100;
pub const AUDIENCE: &str = "https://ledger.svc.example.com";
pub const KEY_ID: &str = "key-1";

/// Signs with ES256.
pub struct Signer(SigningKey);

impl Signer {
    pub fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub fn jwk(&self, key_id: Option<&str>) -> Jwk {
        let point = self.0.verifying_key().to_sec1_point(false);
        let coordinate = |at: usize| point.as_bytes()[at..at + 32].try_into().unwrap();
        Jwk::p256(key_id.map(str::to_owned), None, coordinate(1), coordinate(33)).unwrap()
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
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        self.authenticator.authenticate(&headers, now, &PureRust, &mut self.outcomes);
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
    let issuer = match pack {
        PackKind::Google => "https://accounts.google.com",
        PackKind::Kubernetes => "https://kubernetes.example.com",
        PackKind::Gitlab => "https://gitlab.example.com",
        PackKind::Generic => "https://issuer.example.com",
    };
    IssuerSpec {
        algorithms: vec![Algorithm::Es256],
        valid_until: NOW + 100_000,
        keys: vec![signer.jwk(Some(KEY_ID))],
        ..IssuerSpec::new(pack.name(), issuer, pack)
    }
}

/// A copy in which the member at this path is something else, or missing.
pub fn with(claims: &Value, path: &[&str], value: Option<Value>) -> Value {
    let mut claims = claims.clone();
    let (last, way) = path.split_last().unwrap();
    let object = way.iter().fold(&mut claims, |object, name| &mut object[*name]).as_object_mut().unwrap();
    match value {
        Some(value) => object.insert((*last).to_owned(), value),
        None => object.remove(*last),
    };
    claims
}

pub fn generic() -> Value {
    json!({
        "iss": "https://issuer.example.com", "sub": "robot", "aud": AUDIENCE,
        "iat": 1_795_200_000_i64, "exp": 1_795_203_600_i64, "jti": "1",
    })
}

pub fn google() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE,
        "azp": "100000000000000000001", "sub": "100000000000000000001",
        "email": "df-worker@proj-example.iam.gserviceaccount.com", "email_verified": true,
        "iat": 1_795_200_000_i64, "exp": 1_795_203_600_i64,
        "google": {"compute_engine": {
            "project_id": "proj-example", "project_number": 123_456_789_012_i64, "zone": "europe-west4-b",
            "instance_id": "4570000000000000001",
            "instance_name": "orders-etl-11210101-ab1c-harness-x9z0",
            "instance_creation_timestamp": 1_795_199_000_i64,
            "instance_confidentiality": 1, "license_id": ["1000204"],
        }},
    })
}

pub fn kubernetes() -> Value {
    json!({
        "aud": [AUDIENCE], "iss": "https://kubernetes.example.com",
        "sub": "system:serviceaccount:etl:orders-runner",
        "exp": 1_795_203_600_i64, "iat": 1_795_200_000_i64, "nbf": 1_795_200_000_i64,
        "jti": "6f6b8a5e-0000-4000-8000-000000000001",
        "kubernetes.io": {
            "namespace": "etl",
            "serviceaccount": {"name": "orders-runner", "uid": "11111111-1111-4111-8111-111111111111"},
            "pod": {"name": "orders-run-7xk2p-pod", "uid": "22222222-2222-4222-8222-222222222222"},
            "node": {"name": "gke-prod-pool-1", "uid": "33333333-3333-4333-8333-333333333333"},
            "warnafter": 1_795_203_607_i64,
        },
    })
}

pub fn gitlab() -> Value {
    json!({
        "iss": "https://gitlab.example.com", "aud": AUDIENCE,
        "sub": "project_path:data/orders:ref_type:branch:ref:main",
        "iat": 1_795_200_000_i64, "nbf": 1_795_199_995_i64, "exp": 1_795_200_300_i64,
        "jti": "0b2f3c1a-0000-4000-8000-000000000002",
        "namespace_id": "72", "namespace_path": "data",
        "project_id": "20", "project_path": "data/orders", "project_visibility": "private",
        "job_project_id": "20", "job_project_path": "data/orders",
        "job_namespace_id": "72", "job_namespace_path": "data",
        "user_id": "9", "user_login": "sam", "user_email": "sam@example.com", "user_access_level": "developer",
        "pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "job_source": "push",
        "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
        "environment": "prod", "environment_protected": "true", "deployment_tier": "production",
        "environment_action": "start", "runner_id": 1, "runner_environment": "self-hosted",
        "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "ci_config_ref_uri": "gitlab.example.com/data/orders//.gitlab-ci.yml@refs/heads/main",
        "ci_config_sha": null,
    })
}

pub fn claims(pack: PackKind) -> Value {
    match pack {
        PackKind::Google => google(),
        PackKind::Kubernetes => kubernetes(),
        PackKind::Gitlab => gitlab(),
        PackKind::Generic => generic(),
    }
}
