//! The same rules as Envoy's own filters: jwt_authn puts the token's claims into dynamic metadata, RBAC compares one.

use serde_json::{Map, Value, json};
use tidegate::demo::mesh::HttpFilter;

use super::rules::{AUDIENCE, CLAIM, HOST};

/// How much is configured beyond what the decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As Istio writes RequestAuthentication and AuthorizationPolicy: lists in claims are made of texts with spaces,
    /// and every claim is compared as a list and as a string.
    Istio,
    /// The least that decides the same.
    Lean,
}

/// jwt_authn for the tokens of this issuer.
pub fn jwt_authn(issuer: &str, jwks: &Value, cache: bool, form: Form) -> HttpFilter {
    let mut provider = json!({
        "issuer": issuer,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": jwks.to_string()},
        "payload_in_metadata": "payload",
        "forward": true,
    });
    if cache {
        provider["jwt_cache_config"] = json!({});
    }
    if form == Form::Istio {
        provider["normalize_payload_in_metadata"] =
            json!({"space_delimited_claims": ["permission", "scope"]});
    }
    HttpFilter::Other(json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"issuer": provider},
            "rules": [{
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [{"provider_name": "issuer"}, {"allow_missing": {}}]}},
            }],
            "bypass_cors_preflight": true,
        },
    }))
}

/// RBAC with this many ALLOW policies, tried in the order of their names.
pub fn rbac(policies: usize, form: Form) -> HttpFilter {
    let policies: Map<String, Value> =
        (0..policies).map(|i| (format!("ns[sales]-policy[rule-{i:06}]-rule[0]"), policy(i, form))).collect();
    HttpFilter::Other(json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": policies},
        },
    }))
}

/// Nested and/or rules, in Istio's order: host, method, path.
fn policy(i: usize, form: Form) -> Value {
    let any = |rule: Value| json!({"or_rules": {"rules": [rule]}});
    let host =
        any(json!({"header": {"name": ":authority", "string_match": {"exact": HOST, "ignore_case": true}}}));
    let method = any(json!({"header": {"name": ":method", "string_match": {"exact": "GET"}}}));
    let path = any(json!({"url_path": {"path": {"prefix": format!("/svc{i}/orders/")}}}));
    let text = json!({"string_match": {"exact": i.to_string()}});
    let value = match form {
        Form::Istio => json!({"or_match": {"value_matchers": [{"list_match": {"one_of": text}}, text]}}),
        Form::Lean => text,
    };
    let claim = json!({"metadata": {
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": CLAIM}],
        "value": value,
    }});
    json!({
        "permissions": [{"and_rules": {"rules": [host, method, path]}}],
        "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [claim]}}]}}],
    })
}
