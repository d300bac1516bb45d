use serde_json::json;
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Terms, accepts, judge_text, reads, refuses, string};
use crate::pack::PackKind::Kubernetes;
use crate::pack::golden::{AUDIENCE, issuer, kubernetes, with};

#[test]
fn compares_the_subject_with_the_nested_claims() {
    let token = kubernetes();
    accepts(Kubernetes, &token);
    for subject in [
        "system:serviceaccount:etl:other",
        "system:serviceaccount:other:orders-runner",
        "system:serviceaccount:etl:orders-runner:x",
        "system:serviceaccount:etl",
        "system:serviceaccounts:etl:orders-runner",
        "system:node:etl:orders-runner",
        "SYSTEM:serviceaccount:etl:orders-runner",
        "etl:orders-runner",
        "etl",
    ] {
        refuses(Kubernetes, &with(&token, &["sub"], Some(json!(subject))), TokenFault::ClaimsContradict);
    }
    let renamed = with(&token, &["kubernetes.io", "serviceaccount", "name"], Some(json!("other")));
    refuses(Kubernetes, &renamed, TokenFault::ClaimsContradict);
}

#[test]
fn refuses_tokens_of_secrets_and_of_the_api_server() {
    let token = kubernetes();
    let legacy = with(&token, &["kubernetes.io/serviceaccount/namespace"], Some(json!("etl")));
    refuses(Kubernetes, &legacy, TokenFault::WrongKind);
    let audience = |list| with(&token, &["aud"], Some(list));
    for own in [json!([issuer(Kubernetes)]), json!([AUDIENCE, issuer(Kubernetes)])] {
        refuses(Kubernetes, &audience(own), TokenFault::MintedForAnotherParty);
    }
    accepts(Kubernetes, &audience(json!([AUDIENCE, "https://other.example.com"])));
}

#[test]
fn demands_a_pod_unless_told_otherwise() {
    let token = with(&kubernetes(), &["kubernetes.io", "pod"], None);
    refuses(Kubernetes, &token, TokenFault::WrongKind);
    let unbound = Terms { allow_unbound: true, ..Terms::default() };
    assert!(judge_text(Kubernetes, &token.to_string(), &unbound).is_ok());
    // "Only one of pod, secret": nothing makes a token of both.
    let secret = Some(json!({"name": "s", "uid": "u"}));
    let both = with(&kubernetes(), &["kubernetes.io", "secret"], secret.clone());
    refuses(Kubernetes, &both, TokenFault::ClaimsContradict);
    let of_secret = with(&token, &["kubernetes.io", "secret"], secret);
    assert!(judge_text(Kubernetes, &of_secret.to_string(), &unbound).is_ok());
}

#[test]
fn says_whether_a_pod_is_there() {
    assert_eq!(reads(Kubernetes, &kubernetes(), &["@bound_to_pod"]), ClaimValue::Boolean(true));
    assert_eq!(reads(Kubernetes, &kubernetes(), &["@human_in_loop"]), ClaimValue::Boolean(false));
    let subject = "system:serviceaccount:etl:orders-runner";
    assert_eq!(reads(Kubernetes, &kubernetes(), &["@subject"]), string(subject));
    let unbound = with(&kubernetes(), &["kubernetes.io", "pod"], None).to_string();
    let claims =
        judge_text(Kubernetes, &unbound, &Terms { allow_unbound: true, ..Terms::default() }).unwrap();
    let path = ["@bound_to_pod".to_owned()];
    assert_eq!(crate::pack::extract(Kubernetes, &claims, &path), ClaimValue::Boolean(false));
}

#[test]
fn knows_nothing_of_a_pod_that_the_token_leaves_out() {
    let unbound = Terms { allow_unbound: true, ..Terms::default() };
    let bare = with(&with(&kubernetes(), &["kubernetes.io", "pod"], None), &["kubernetes.io", "node"], None);
    let claims = judge_text(Kubernetes, &bare.to_string(), &unbound).unwrap();
    for (what, name) in [("pod", "name"), ("pod", "uid"), ("node", "name"), ("node", "uid")] {
        let path = ["kubernetes.io", what, name].map(str::to_owned);
        assert_eq!(crate::pack::extract(Kubernetes, &claims, &path), ClaimValue::Unknown, "{what} {name}");
        let filled =
            with(&kubernetes(), &["kubernetes.io", what], Some(json!({"name": "name", "uid": "uid"})));
        assert_eq!(reads(Kubernetes, &filled, &["kubernetes.io", what, name]), string(name), "{what} {name}");
    }
    let secret = ["kubernetes.io", "secret", "name"].map(str::to_owned);
    assert_eq!(crate::pack::extract(Kubernetes, &claims, &secret), ClaimValue::Absent);
}
