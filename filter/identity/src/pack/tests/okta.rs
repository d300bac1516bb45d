use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, reads, refuses, string, strings};
use crate::pack::PackKind::Okta;
use crate::pack::Stability;
use crate::pack::golden::{okta, okta_client, with};

#[test]
fn accepts_access_tokens_and_no_id_tokens() {
    accepts(Okta, &okta());
    accepts(Okta, &okta_client());
    accepts(Okta, &with(&okta(), &["jti"], None));
    // As Okta makes id tokens: no client, no scopes, another prefix. Each alone tells them apart.
    for (name, value) in [("jti", Some(json!("ID.synthetic"))), ("cid", None), ("scp", None)] {
        refuses(Okta, &with(&okta(), &[name], value), TokenFault::WrongKind);
    }
    refuses(Okta, &with(&okta(), &["scp"], Some(json!("ledger.read"))), TokenFault::ClaimMalformed);
    refuses(Okta, &with(&okta(), &["ver"], Some(json!("1"))), TokenFault::ClaimMalformed);
}

#[test]
fn reads_what_the_customer_configured_as_it_is() {
    for (value, read) in [
        (json!(["etl"]), strings(&["etl"])),
        (json!("etl"), string("etl")),
        (json!({"a": 1}), ClaimValue::Other),
        (json!(null), ClaimValue::Absent),
    ] {
        let claims = with(&okta(), &["groups"], Some(value));
        assert_eq!(reads(Okta, &claims, &["groups"]), read);
    }
}

#[test]
fn knows_what_servers_say_of_people_as_names() {
    for name in ["email", "name", "preferred_username"] {
        let path = [name.to_owned()];
        assert_eq!(Okta.claim(&path).map(|spec| spec.stable), Some(Stability::Renameable), "{name}");
        let claims = with(&okta(), &[name], Some(json!("sam")));
        accepts(Okta, &claims);
        assert_eq!(reads(Okta, &claims, &[name]), string("sam"));
        accepts(Okta, &with(&okta(), &[name], Some(json!(null))));
        refuses(Okta, &with(&okta(), &[name], Some(json!(7))), TokenFault::ClaimMalformed);
    }
    // What is never given to somebody else.
    assert_eq!(Okta.claim(&["uid".to_owned()]).map(|spec| spec.stable), Some(Stability::Stable));
}

#[test]
fn names_the_subject_by_what_is_not_renamed() {
    assert_eq!(reads(Okta, &okta(), &["@subject"]), string("00u0example"));
    assert_eq!(reads(Okta, &okta_client(), &["@subject"]), string("0oa0example"));
    let neither = with(&okta(), &["uid"], None);
    assert_eq!(reads(Okta, &neither, &["@subject"]), ClaimValue::Absent);
    assert_eq!(reads(Okta, &okta(), &["@scopes"]), strings(&["ledger.read"]));
    let human = |claims: &Value| reads(Okta, claims, &["@human_in_loop"]);
    assert_eq!(human(&okta()), ClaimValue::Boolean(true));
    assert_eq!(human(&okta_client()), ClaimValue::Boolean(false));
    assert_eq!(human(&neither), ClaimValue::Unknown);
}
