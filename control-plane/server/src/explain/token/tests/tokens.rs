//! Rules, and tokens that satisfy them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tidegate_compiler::Compiled;

use crate::rules::{Environment, Files};
use crate::serve::compile_files;

pub const NOW: i64 = 1_795_200_100;
pub const AUDIENCE: &str = "https://orders.sales.example";

pub const RULES: &str = r#"
kind: Mesh
metadata: {name: mesh}
spec:
  trustDomain: prod.example
  rootNamespace: istio-system
  workloads: [{namespace: sales, name: orders-api, labels: {app: orders-api}, serviceAccount: orders-api}]
  gateways: [{namespace: ingress, name: in, labels: {gateway: in}, serviceAccount: in}]
---
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.sales.example"}
---
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: "https://accounts.google.com", pack: google, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: cluster}
spec: {issuer: "https://cluster.example", pack: kubernetes, keys: {discovery: true}, maxLifetime: 1h}
---
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: "https://gitlab.example", pack: gitlab, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: entra}
spec:
  issuer: https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0
  pack: entra
  keys: {discovery: true}
  audiences: [aaaaaaaa-0000-4000-8000-000000000001, "https://orders.sales.example"]
---
kind: TrustedIssuer
metadata: {name: okta}
spec: {issuer: "https://id.example/oauth2/aus0example", pack: okta, keys: {discovery: true}}
---
kind: AccessRule
metadata: {name: etl, namespace: sales}
spec:
  owner: team
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/in]}
    tokens: [{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4}}]
  - peer: {namespace: ci, serviceAccounts: [runner, release]}
    tokens: [{issuer: cluster}]
  to: [{http: {methods: [POST]}}]
---
kind: AccessRule
metadata: {name: release, namespace: sales}
spec:
  owner: team
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Allow
  mode: Enforce
  from:
  - peer: {namespace: ci, serviceAccounts: [runner]}
    tokens: [{issuer: gitlab, gitlab: {project: 4711, protectedRef: true, environment: production}}]
  to: [{http: {methods: [PUT]}}]
---
kind: AccessRule
metadata: {name: no-tags, namespace: sales}
spec:
  owner: team
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Deny
  mode: Enforce
  from: [{anyMesh: true, tokens: [{issuer: gitlab, claims: {namespace_id: "72", ref_type: tag}}]}]
---
kind: AccessRule
metadata: {name: later, namespace: sales}
spec:
  owner: team
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Allow
  mode: Shadow
  from: [{anyMesh: true, tokens: [{issuer: gitlab, claims: {namespace_id: "73"}}]}]
"#;

pub fn rules() -> Compiled {
    let compilation =
        compile_files(&Files::from([("rules.yaml".into(), RULES.into())]), &Environment::default());
    compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics))
}

pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

pub fn with_header(header: Value, claims: &Value) -> String {
    format!("{}.{}.U0lHTkFUVVJF", part(&header), part(claims))
}

pub fn unsigned(claims: &Value) -> String {
    with_header(json!({"alg": "RS256", "kid": "k", "typ": "JWT"}), claims)
}

/// A copy with other members; null removes one.
pub fn with(claims: &Value, members: Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

pub fn google() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE, "azp": "100000000000000000001",
        "sub": "100000000000000000001", "email": "etl@acme.iam.gserviceaccount.com", "email_verified": true,
        "iat": NOW - 100, "exp": NOW + 3500,
        "google": {"compute_engine": {
            "project_id": "acme", "project_number": 123_456_789_012_i64, "zone": "europe-west4-b",
            "instance_id": "4570000000000000001", "instance_name": "etl-1",
            "instance_creation_timestamp": NOW - 1000,
        }},
    })
}

pub fn kubernetes(namespace: &str, account: &str) -> Value {
    json!({
        "iss": "https://cluster.example", "aud": [AUDIENCE],
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "iat": NOW - 100, "nbf": NOW - 100, "exp": NOW + 500,
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": account, "uid": "11111111-1111-4111-8111-111111111111"},
            "pod": {"name": "pod", "uid": "22222222-2222-4222-8222-222222222222"},
        },
    })
}

pub fn gitlab() -> Value {
    json!({
        "iss": "https://gitlab.example", "aud": AUDIENCE, "sub": "project_path:data/orders:ref_type:branch:ref:main",
        "iat": NOW - 10, "nbf": NOW - 15, "exp": NOW + 290, "jti": "1",
        "namespace_id": "72", "namespace_path": "data", "project_id": "4711", "project_path": "data/orders",
        "job_project_id": "4711", "job_namespace_id": "72", "pipeline_id": "1", "pipeline_source": "push",
        "job_id": "2", "ref": "main", "ref_type": "branch", "ref_protected": "true", "environment": "production",
    })
}

pub fn entra() -> Value {
    json!({
        "iss": "https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0", "aud": AUDIENCE,
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 4000, "azp": "cccccccc-0000-4000-8000-000000000003",
        "oid": "dddddddd-0000-4000-8000-000000000004", "sub": "pairwise",
        "tid": "bbbbbbbb-0000-4000-8000-000000000002", "scp": "read", "uti": "1", "ver": "2.0",
    })
}

pub fn entra_v1() -> Value {
    let issuer = "https://sts.windows.net/bbbbbbbb-0000-4000-8000-000000000002/";
    with(
        &entra(),
        json!({"iss": issuer, "ver": "1.0", "azp": null, "appid": "cccccccc-0000-4000-8000-000000000003"}),
    )
}

pub fn okta() -> Value {
    json!({
        "ver": 1, "jti": "AT.1", "iss": "https://id.example/oauth2/aus0example", "aud": AUDIENCE,
        "iat": NOW - 10, "exp": NOW + 3000, "cid": "0oa0example", "uid": "00u0example", "scp": ["read"], "sub": "sam",
    })
}
