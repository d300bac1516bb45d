//! SPIFFE and generic.

use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Terms, accepts, judge_text, reads, refuses, string, strings};
use crate::pack::PackKind::{Generic, Spiffe};
use crate::pack::golden::{ISSUED, access_token, spiffe, with};
use crate::pack::in_trust_domain;

#[test]
fn spiffe_accepts_ids_of_its_trust_domain_only() {
    let subject = |id: &str| with(&spiffe(), &["sub"], Some(json!(id)));
    for id in [
        "spiffe://batch.example/orders",
        "spiffe://batch.example/a/b.c/D_e-f/0",
        "spiffe://batch.example/...",
    ] {
        accepts(Spiffe, &subject(id));
    }
    for other in ["spiffe://other.example/orders", "spiffe://batch.example.evil/orders", "spiffe://x/orders"]
    {
        refuses(Spiffe, &subject(other), TokenFault::ClaimsContradict);
    }
    let long = format!("spiffe://batch.example/{}", "a".repeat(2048));
    let long_domain = format!("spiffe://{}/a", "a".repeat(256));
    for malformed in [
        "orders",
        "spiffe://",
        "spiffe:///orders",
        // The trust domain itself is no workload.
        "spiffe://batch.example",
        "spiffe://batch.example/",
        "spiffe://batch.example//orders",
        "spiffe://batch.example/orders/",
        "spiffe://batch.example/./orders",
        "spiffe://batch.example/../orders",
        "spiffe://batch.example/or%64ers",
        "spiffe://batch.example/orders?x",
        "spiffe://batch.example/orders#x",
        "spiffe://batch.example/or:ders",
        "spiffe://batch.example:443/orders",
        "spiffe://user@batch.example/orders",
        "spiffe://BATCH.example/orders",
        "SPIFFE://batch.example/orders",
        "https://batch.example/orders",
        "spiffe:/batch.example/orders",
        " spiffe://batch.example/orders",
        "spiffe://batch.example/orders ",
        &long,
        &long_domain,
    ] {
        refuses(Spiffe, &subject(malformed), TokenFault::ClaimMalformed);
    }
}

#[test]
fn spiffe_says_whose_an_id_is() {
    assert!(in_trust_domain("spiffe://batch.example/a", "spiffe://batch.example"));
    for issuer in
        ["spiffe://batch.example/", "spiffe://other.example", "batch.example", "https://batch.example", ""]
    {
        assert!(!in_trust_domain("spiffe://batch.example/a", issuer), "{issuer}");
    }
    assert!(!in_trust_domain("spiffe://batch.example", "spiffe://batch.example"));
}

#[test]
fn spiffe_is_strict_about_headers_and_audiences() {
    assert!(Spiffe.pack().strict_header && Spiffe.pack().single_audience);
    assert_eq!(reads(Spiffe, &spiffe(), &["@subject"]), string("spiffe://batch.example/ns/etl/sa/orders"));
    assert_eq!(reads(Spiffe, &spiffe(), &["@human_in_loop"]), ClaimValue::Boolean(false));
}

#[test]
fn generic_demands_what_rfc_9068_does_unless_types_are_stated() {
    let stated = Terms { types_overridden: true, ..Terms::default() };
    accepts(Generic, &access_token());
    for name in ["sub", "client_id", "iat", "jti"] {
        // With `nbf`, from which the token's life could be told as well.
        let dated = with(&access_token(), &["nbf"], Some(json!(ISSUED)));
        let missing = with(&dated, &[name], None);
        refuses(Generic, &missing, TokenFault::ClaimMissing);
        assert!(judge_text(Generic, &missing.to_string(), &stated).is_ok(), "{name}");
    }
    for name in ["iss", "exp", "aud"] {
        let missing = with(&access_token(), &[name], None).to_string();
        assert_eq!(
            judge_text(Generic, &missing, &stated).map(|_| ()),
            Err(TokenFault::ClaimMissing),
            "{name}"
        );
    }
    // What is there has its type all the same.
    let mistyped = with(&access_token(), &["client_id"], Some(json!(7))).to_string();
    assert_eq!(judge_text(Generic, &mistyped, &stated).map(|_| ()), Err(TokenFault::ClaimMalformed));
}

#[test]
fn generic_reads_scopes_from_a_text_and_from_a_list() {
    let scopes =
        |value: Option<Value>| reads(Generic, &with(&access_token(), &["scope"], value), &["@scopes"]);
    assert_eq!(scopes(Some(json!("orders.read orders.write"))), strings(&["orders.read", "orders.write"]));
    assert_eq!(scopes(Some(json!(" orders.read  "))), strings(&["orders.read"]));
    assert_eq!(scopes(Some(json!(["orders.read"]))), strings(&["orders.read"]));
    assert_eq!(scopes(Some(json!(""))), strings(&[]));
    assert_eq!(scopes(None), strings(&[]));
}

#[test]
fn generic_knows_clients_and_guesses_nobody_else() {
    let human =
        |sub: &str| reads(Generic, &with(&access_token(), &["sub"], Some(json!(sub))), &["@human_in_loop"]);
    assert_eq!(human("orders"), ClaimValue::Boolean(false));
    assert_eq!(human("sam"), ClaimValue::Unknown);
    assert_eq!(reads(Generic, &access_token(), &["@subject"]), string("robot"));
}

#[test]
fn generic_hides_nothing_in_claims_that_rules_read() {
    let team = |value: Value| reads(Generic, &with(&access_token(), &["team"], Some(value)), &["team"]);
    assert_eq!(team(json!("größe")), string("größe"));
    assert_eq!(team(json!("billing\n")), ClaimValue::Other);
    assert_eq!(team(json!(["a", "b\u{202e}"])), ClaimValue::Other);
    assert_eq!(team(json!(["a", 1])), ClaimValue::Other);
    assert_eq!(team(json!([])), strings(&[]));
    assert_eq!(team(json!(null)), ClaimValue::Absent);
    assert_eq!(team(json!(1.0)), ClaimValue::Other);
    assert_eq!(team(json!(u64::MAX)), ClaimValue::Other);
    assert_eq!(team(json!(true)), ClaimValue::Boolean(true));
}
