//! JWT-SVIDs: whose token it is tells the trust domain of `sub`, and only where `iss` names nobody.

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepted, refused};
use crate::issuer::IssuerSpec;
use crate::testing::{Gate, KEY_ID, NOW, Signer, claims, generic, issuer, with};
use crate::{PackKind, TokenOutcome};

/// Two trust domains and an issuer of another kind, each with a key of its own and the same `kid`.
struct World {
    batch: Signer,
    edge: Signer,
    other: Signer,
    gate: Gate,
}

const BATCH: &str = "spiffe://batch.example/ns/etl/sa/orders";
const EDGE: &str = "spiffe://edge.example/ns/etl/sa/orders";

impl World {
    fn new() -> Self {
        let [batch, edge, other] = [7, 8, 9].map(Signer::new);
        let edge_spec = IssuerSpec {
            name: "edge".to_owned(),
            iss: vec!["spiffe://edge.example".to_owned()],
            ..issuer(PackKind::Spiffe, &edge)
        };
        let specs = vec![issuer(PackKind::Spiffe, &batch), edge_spec, issuer(PackKind::Generic, &other)];
        Self { gate: Gate::new(specs), batch, edge, other }
    }

    /// What becomes of a token for the first domain, the second, and the other issuer.
    fn ask(&mut self, token: &str) -> [TokenOutcome; 3] {
        let bearer = format!("Bearer {token}");
        self.gate.all(&[("authorization", &bearer)], NOW).try_into().unwrap()
    }
}

fn svid(sub: &str, iss: Option<&str>) -> Value {
    with(&with(&claims(PackKind::Spiffe), &["sub"], Some(json!(sub))), &["iss"], iss.map(|iss| json!(iss)))
}

const ABSENT: TokenOutcome = TokenOutcome::Absent;

fn invalid(fault: TokenFault) -> TokenOutcome {
    TokenOutcome::Invalid(fault)
}

#[test]
fn finds_the_issuer_by_the_trust_domain_of_the_subject() {
    let mut world = World::new();
    for iss in [None, Some("https://oidc.spire.example"), Some("spiffe://batch.example")] {
        let [batch, edge, other] = world.ask(&world.batch.token(&svid(BATCH, iss)));
        accepted(&batch);
        assert_eq!([edge, other], [ABSENT, ABSENT]);
    }
    let [batch, edge, other] = world.ask(&world.edge.token(&svid(EDGE, None)));
    accepted(&edge);
    assert_eq!([batch, other], [ABSENT, ABSENT]);
    // A domain that nobody speaks for, and no domain.
    for sub in
        ["spiffe://other.example/x", "spiffe://batch.example.evil/x", "batch.example", "robot", "spiffe://"]
    {
        assert_eq!(world.ask(&world.batch.token(&svid(sub, None))), [ABSENT, ABSENT, ABSENT], "{sub}");
    }
}

#[test]
fn row_07_verifies_an_id_only_with_the_keys_of_its_own_trust_domain() {
    let mut world = World::new();
    let forged = world.batch.token(&svid(EDGE, None));
    assert_eq!(world.ask(&forged), [ABSENT, invalid(TokenFault::BadSignature), ABSENT]);
    let forged = world.edge.token(&svid(BATCH, Some("https://oidc.spire.example")));
    assert_eq!(world.ask(&forged), [invalid(TokenFault::BadSignature), ABSENT, ABSENT]);
    // Whom `iss` names is asked, and is no help.
    let crossed = world.batch.token(&svid(EDGE, Some("spiffe://batch.example")));
    assert_eq!(world.ask(&crossed), [invalid(TokenFault::ClaimsContradict), ABSENT, ABSENT]);
    // Cached or not.
    let good = world.edge.token(&svid(EDGE, None));
    for _ in 0..2 {
        accepted(&world.ask(&good)[1]);
        assert_eq!(world.ask(&crossed)[0], invalid(TokenFault::ClaimsContradict));
    }
}

#[test]
fn row_07_leaves_tokens_of_other_issuers_alone() {
    let mut world = World::new();
    let iss = generic()["iss"].as_str().unwrap().to_owned();
    let theirs = with(&generic(), &["sub"], Some(json!(BATCH)));
    let [batch, edge, other] = world.ask(&world.other.token(&theirs));
    accepted(&other);
    assert_eq!([batch, edge], [ABSENT, ABSENT]);
    let forged = world.batch.token(&svid(BATCH, Some(&iss)));
    assert_eq!(world.ask(&forged), [ABSENT, ABSENT, invalid(TokenFault::BadSignature)]);
}

#[test]
fn takes_another_spelling_of_a_trust_domain_for_this_one_and_refuses_it() {
    let mut world = World::new();
    for sub in ["SPIFFE://batch.example/x", "spiffe://Batch.Example/x", "spiffe://batch.example"] {
        let outcomes = world.ask(&world.batch.token(&svid(sub, None)));
        assert_eq!(outcomes, [invalid(TokenFault::ClaimMalformed), ABSENT, ABSENT], "{sub}");
    }
}

#[test]
fn row_32_accepts_only_the_header_of_a_jwt_svid() {
    let mut world = World::new();
    let mut ask = |header: Value| {
        let token = world.batch.sign(&header.to_string(), &svid(BATCH, None).to_string());
        let [outcome, ..] = world.ask(&token);
        outcome
    };
    accepted(&ask(json!({"alg": "ES256", "kid": KEY_ID})));
    for kind in ["JWT", "JOSE"] {
        accepted(&ask(json!({"alg": "ES256", "kid": KEY_ID, "typ": kind})));
    }
    for kind in ["jwt", "jose", "application/jwt", "at+jwt", "wit+jwt", ""] {
        refused(&ask(json!({"alg": "ES256", "kid": KEY_ID, "typ": kind})), TokenFault::TypeRefused);
    }
    for member in ["x5t", "x5t#S256", "cty", "jku", "x"] {
        refused(&ask(json!({"alg": "ES256", "kid": KEY_ID, member: "x"})), TokenFault::HeaderRefused);
    }
}

#[test]
fn row_30_accepts_a_jwt_svid_for_one_audience_only() {
    let mut world = World::new();
    let mut ask = |aud: Value| {
        let claims = with(&svid(BATCH, None), &["aud"], Some(aud));
        let [outcome, ..] = world.ask(&world.batch.token(&claims));
        outcome
    };
    accepted(&ask(json!(["a"])));
    accepted(&ask(json!("a")));
    refused(&ask(json!(["a", "b"])), TokenFault::SeveralAudiences);
}
