//! Attributes that all packs have.

use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepts, judge, reads, refuses, string, strings};
use crate::pack::golden::{self, with};
use crate::pack::{MAX_ACTORS, PackKind, extract};

/// A token that says whether its actor is an agent, where the issuer says that at all.
fn claims(pack: PackKind) -> Value {
    let claims = golden::claims(pack);
    match pack {
        PackKind::Entra => with(&claims, &["xms_act_fct"], Some(json!("99"))),
        _ => claims,
    }
}

fn delegated(pack: PackKind, act: Value) -> Value {
    with(&claims(pack), &["act"], Some(act))
}

fn chain(length: usize) -> Value {
    (1..length).fold(json!({"sub": "a0"}), |inner, at| json!({"sub": format!("a{at}"), "act": inner}))
}

#[test]
fn normalises_chains_of_actors() {
    for pack in PackKind::ALL {
        let none = claims(pack);
        assert_eq!(reads(pack, &none, &["@actor"]), ClaimValue::Absent, "{pack:?}");
        assert_eq!(reads(pack, &none, &["@actor_chain"]), strings(&[]), "{pack:?}");
        assert_eq!(reads(pack, &none, &["@actors"]), ClaimValue::Integer(0), "{pack:?}");

        let one = delegated(pack, json!({"sub": "agent", "client_id": "x"}));
        assert_eq!(reads(pack, &one, &["@actor"]), string("agent"), "{pack:?}");
        assert_eq!(reads(pack, &one, &["@actor_chain"]), strings(&["agent"]), "{pack:?}");
        assert_eq!(reads(pack, &one, &["@actors"]), ClaimValue::Integer(1), "{pack:?}");

        // RFC 8693 §4.1: the outermost is the current one.
        let two = delegated(pack, json!({"sub": "agent", "act": {"sub": "app"}}));
        assert_eq!(reads(pack, &two, &["@actor"]), string("agent"), "{pack:?}");
        assert_eq!(reads(pack, &two, &["@actor_chain"]), strings(&["agent", "app"]), "{pack:?}");

        accepts(pack, &delegated(pack, chain(MAX_ACTORS)));
        refuses(pack, &delegated(pack, chain(MAX_ACTORS + 1)), TokenFault::ClaimMalformed);
    }
}

#[test]
fn refuses_actors_that_are_none() {
    for pack in PackKind::ALL {
        for wrong in [
            json!("agent"),
            json!(["agent"]),
            json!([{"sub": "agent"}]),
            json!(null),
            json!(7),
            json!({}),
            json!({"sub": ""}),
            json!({"sub": 7}),
            json!({"sub": null}),
            json!({"sub": ["agent"]}),
            json!({"sub": "a\u{202e}gent"}),
            json!({"sub": "agent", "iss": 7}),
            json!({"sub": "agent", "iss": null}),
            json!({"sub": "agent", "iss": ""}),
            json!({"sub": "agent", "act": "app"}),
            json!({"sub": "agent", "act": null}),
            json!({"sub": "agent", "act": []}),
            json!({"sub": "agent", "act": {}}),
            json!({"sub": "agent", "act": {"sub": "app", "iss": []}}),
            json!({"sub": "agent", "act": {"sub": "app", "act": {"client_id": "x"}}}),
        ] {
            refuses(pack, &delegated(pack, wrong), TokenFault::ClaimMalformed);
        }
    }
}

/// `sub` is unique within its issuer only.
#[test]
fn takes_no_actor_of_another_issuer_for_one_of_this() {
    for pack in PackKind::ALL {
        let own = delegated(pack, json!({"sub": "agent", "iss": golden::issuer(pack)}));
        let own = with(&own, &["iss"], Some(json!(golden::issuer(pack))));
        assert_eq!(reads(pack, &own, &["@actor"]), string("agent"), "{pack:?}");

        let foreign = json!({"sub": "agent", "iss": "https://other.example.com"});
        let claims = delegated(pack, foreign.clone());
        assert_eq!(reads(pack, &claims, &["@actor"]), ClaimValue::Unknown, "{pack:?}");
        assert_eq!(reads(pack, &claims, &["@actor_chain"]), ClaimValue::Unknown, "{pack:?}");
        assert_eq!(reads(pack, &claims, &["@actors"]), ClaimValue::Integer(1), "{pack:?}");

        let inner = delegated(pack, json!({"sub": "agent", "act": foreign}));
        assert_eq!(reads(pack, &inner, &["@actor"]), string("agent"), "{pack:?}");
        assert_eq!(reads(pack, &inner, &["@actor_chain"]), ClaimValue::Unknown, "{pack:?}");
    }
}

/// `act.sub` alone would be the name of an actor of whichever issuer.
#[test]
fn lets_rules_read_actors_only_as_attributes() {
    for pack in PackKind::ALL {
        let claims = delegated(pack, json!({"sub": "agent", "act": {"sub": "app"}, "client_id": "x"}));
        for path in [&["act", "sub"][..], &["act", "iss"], &["act", "client_id"], &["act", "act", "sub"]] {
            assert!(pack.claim(path).is_none(), "{pack:?} {path:?}");
            assert_eq!(reads(pack, &claims, path), ClaimValue::Unknown, "{pack:?} {path:?}");
        }
        assert_eq!(reads(pack, &claims, &["act"]), ClaimValue::Other, "{pack:?}");
        assert_eq!(reads(pack, &claims, &["@actor"]), string("agent"), "{pack:?}");
    }
}

/// RFC 8417: what servers tell each other is no credential, whatever its `typ`.
#[test]
fn refuses_security_events() {
    for pack in PackKind::ALL {
        let events = |value| with(&golden::claims(pack), &["events"], Some(value));
        let logout = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
        for value in [logout, json!({}), json!(null), json!("x")] {
            refuses(pack, &events(value), TokenFault::WrongKind);
        }
        accepts(pack, &with(&golden::claims(pack), &["event"], Some(json!({}))));
    }
}

#[test]
fn reads_no_member_that_is_called_like_an_attribute() {
    for pack in PackKind::ALL {
        for name in ["@subject", "@actor", "@human_in_loop", "@nothing"] {
            let lie = with(&golden::claims(pack), &[name], Some(json!("root")));
            let honest = reads(pack, &golden::claims(pack), &[name]);
            assert_eq!(reads(pack, &lie, &[name]), honest, "{pack:?} {name}");
            assert_ne!(honest, string("root"), "{pack:?} {name}");
        }
        let nested = with(&golden::claims(pack), &["@x"], Some(json!({"y": "root"})));
        assert_eq!(reads(pack, &nested, &["@x", "y"]), ClaimValue::Absent, "{pack:?}");
        assert_eq!(reads(pack, &nested, &["@subject", "y"]), ClaimValue::Absent, "{pack:?}");
    }
}

#[test]
fn has_the_type_that_it_says() {
    use crate::pack::ClaimKind;
    for pack in PackKind::ALL {
        let claims = judge(pack, &golden::claims(pack)).unwrap();
        for spec in pack.derived_all() {
            let value = extract(pack, &claims, &[spec.name.to_owned()]);
            let fits = match value {
                ClaimValue::Absent | ClaimValue::Unknown => true,
                ClaimValue::Boolean(_) => spec.kind == ClaimKind::Boolean,
                ClaimValue::Integer(_) => spec.kind == ClaimKind::Integer,
                ClaimValue::Strings(_) => spec.kind == ClaimKind::Strings,
                ClaimValue::String(_) => matches!(
                    spec.kind,
                    ClaimKind::String | ClaimKind::Identifier | ClaimKind::Digits | ClaimKind::Guid
                ),
                ClaimValue::Other => false,
            };
            assert!(fits, "{pack:?} {}: {value:?}", spec.name);
        }
    }
}

#[test]
fn says_unknown_of_claims_that_are_distributed() {
    for pack in PackKind::ALL {
        let elsewhere = with(&golden::claims(pack), &["_claim_names"], Some(json!({"team": "src1"})));
        assert_eq!(reads(pack, &elsewhere, &["team"]), ClaimValue::Unknown, "{pack:?}");
        assert_eq!(reads(pack, &elsewhere, &["team", "lead"]), ClaimValue::Unknown, "{pack:?}");
        assert_eq!(reads(pack, &elsewhere, &["other"]), ClaimValue::Absent, "{pack:?}");
        for nothing in [json!(null), json!("team"), json!(["team"]), json!({})] {
            let claims = with(&golden::claims(pack), &["_claim_names"], Some(nothing));
            assert_eq!(reads(pack, &claims, &["team"]), ClaimValue::Absent, "{pack:?}");
        }
    }
}
