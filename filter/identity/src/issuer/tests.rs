use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    InvalidKeys, IssuerSet, IssuerSetSpec, IssuerSpec, MAX_REVOKED, Revoked, RevokedKind, TokenHeader,
};
use crate::PackKind;
use crate::keys::Algorithm;
use crate::testing::{Signer, issuer};

fn spec() -> IssuerSpec {
    issuer(PackKind::Generic, &Signer::new(7))
}

fn section() -> Value {
    serde_json::from_slice(&IssuerSetSpec::new(vec![spec()]).encode().unwrap()).unwrap()
}

fn decode(value: &Value) -> Result<IssuerSet, InvalidKeys> {
    IssuerSet::decode(value.to_string().as_bytes())
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut IssuerSpec), field: &str) {
    let mut wrong = spec();
    change(&mut wrong);
    match IssuerSetSpec::new(vec![wrong]).encode() {
        Err(InvalidKeys::Field { field: at, why }) => assert_eq!(at, format!("issuers[0].{field}"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn decodes_what_it_encodes() {
    let mut all: Vec<_> = PackKind::ALL.iter().map(|pack| issuer(*pack, &Signer::new(7))).collect();
    all[0].headers = vec![TokenHeader { name: "x-token".to_owned(), prefix: None }];
    all[1].allow_unbound = true;
    all[2].forward = false;
    let generic = all.last_mut().unwrap();
    generic.audiences = vec!["a".to_owned(), "b".to_owned()];
    generic.types = vec!["at+jwt".to_owned(), "jwt".to_owned()];
    generic.iss.push("https://other.example.com".to_owned());
    (generic.single_audience, generic.require_cnf, generic.retire_at) = (true, true, 5);
    generic.revoked =
        RevokedKind::ALL.map(|kind| Revoked { kind, value: "a \"b\" \u{e4}".to_owned(), until: 7 }).to_vec();
    let written = IssuerSetSpec::new(all);
    let bytes = written.encode().unwrap();
    assert_eq!(bytes, written.encode().unwrap());
    assert_eq!(IssuerSetSpec::decode(&bytes).unwrap(), written);
    let set = IssuerSet::decode(&bytes).unwrap();
    assert_eq!(set.issuers().len(), PackKind::ALL.len());
    let (kubernetes, gitlab) = (&set.issuers()[1], &set.issuers()[2]);
    assert!(kubernetes.allow_unbound() && kubernetes.forward() && !gitlab.forward());
    let generic = set.issuers().last().unwrap();
    assert_eq!(generic.iss(), ["https://issuer.example.com", "https://other.example.com"]);
    assert_eq!(generic.types(), ["at+jwt", "jwt"]);
    assert!(generic.single_audience() && generic.require_cnf() && generic.retire_at() == 5);
    assert_eq!((kubernetes.skew_s(), kubernetes.max_lifetime_s()), (30, 86_400));
    assert_eq!(
        IssuerSet::decode(&IssuerSetSpec::new(Vec::new()).encode().unwrap()),
        Ok(IssuerSet::default())
    );
}

#[test]
fn refuses_missing_unknown_and_mistyped_members() {
    assert!(decode(&section()).is_ok());
    let good = section();
    for name in good["issuers"][0].as_object().unwrap().keys() {
        let mut missing = good.clone();
        missing["issuers"][0].as_object_mut().unwrap().remove(name);
        assert!(matches!(decode(&missing), Err(InvalidKeys::Field { .. })), "{name}");
        for wrong in [json!(null), json!({}), json!(1.5), json!([[]])] {
            let mut mistyped = good.clone();
            mistyped["issuers"][0][name] = wrong.clone();
            assert!(decode(&mistyped).is_err(), "{name}: {wrong}");
        }
    }
    for (path, name) in
        [("", "x"), ("/issuers/0", "x"), ("/issuers/0", "issuer"), ("/issuers/0/headers/0", "x")]
    {
        let mut unknown = good.clone();
        unknown.pointer_mut(path).unwrap()[name] = json!([]);
        let Err(InvalidKeys::Field { field, why }) = decode(&unknown) else { panic!("{path}/{name}") };
        assert!(field.ends_with(name) && why == "is not known", "{field}: {why}");
    }
    for (path, wrong) in [
        ("/issuers/0/pack", json!("Google")),
        ("/issuers/0/pack", json!("saml")),
        ("/issuers/0/algorithms/0", json!("none")),
        ("/issuers/0/algorithms/0", json!("HS256")),
        ("/issuers/0/skew_s", json!(-1)),
        ("/issuers/0/max_lifetime_s", json!(1_u64 << 40)),
        ("/issuers/0/valid_until", json!(-1)),
        ("/issuers/0/retire_at", json!(-1)),
        ("/issuers/0/iss/0", json!(["https://issuer.example.com"])),
        ("/issuers/0/types/0", json!(1)),
        ("/issuers/0/revoked", json!([{"kind": "subject", "value": "x"}])),
        ("/issuers/0/revoked", json!([{"kind": "subject", "value": "x", "until": "0"}])),
        ("/issuers/0/revoked", json!([{"kind": "Subject", "value": "x", "until": 0}])),
        ("/issuers/0/revoked", json!([{"kind": "token", "value": 1, "until": 0}])),
        ("/issuers/0/revoked", json!([{"kind": "token", "value": "x", "until": 0, "why": "y"}])),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(path).unwrap() = wrong.clone();
        assert!(matches!(decode(&changed), Err(InvalidKeys::Field { .. })), "{path}: {wrong}");
    }
}

#[test]
fn refuses_other_versions_and_other_documents() {
    let mut other = section();
    other["version"] = json!(3);
    other["surprise"] = json!(true);
    assert_eq!(decode(&other), Err(InvalidKeys::Version { found: 3 }));
    assert_eq!(IssuerSet::decode(&[0xff]), Err(InvalidKeys::Encoding));
    for text in ["", "{", r#"{"version":2,"issuers":[],"issuers":[]}"#] {
        assert!(matches!(IssuerSet::decode(text.as_bytes()), Err(InvalidKeys::Json(_))), "{text}");
    }
    for text in ["[]", "{}", r#"{"version":2}"#, r#"{"issuers":[]}"#, r#"{"version":"2","issuers":[]}"#] {
        assert!(matches!(IssuerSet::decode(text.as_bytes()), Err(InvalidKeys::Field { .. })), "{text}");
    }
}

#[test]
fn refuses_the_whole_section_for_one_unfit_key() {
    let mut weak = section();
    weak["issuers"][0]["keys"][0]["x"] = weak["issuers"][0]["keys"][0]["y"].clone();
    let error = decode(&weak).unwrap_err();
    assert!(matches!(&error, InvalidKeys::Key { field, .. } if field == "issuers[0].keys[0]"), "{error}");
    assert_eq!(error.to_string(), "`issuers[0].keys[0]`: `x`, `y`: not a point on P-256");
}

#[test]
fn refuses_inconsistent_issuers() {
    refuses(|spec| spec.name.clear(), "name");
    refuses(|spec| spec.name = "a b".to_owned(), "name");
    refuses(|spec| spec.iss.clear(), "iss");
    refuses(|spec| spec.iss[0].clear(), "iss[0]");
    refuses(|spec| spec.iss.push("https://\u{e4}".to_owned()), "iss[1]");
    refuses(|spec| spec.iss.push(spec.iss[0].clone()), "iss[1]");
    refuses(|spec| spec.iss = (0..65).map(|n| format!("https://{n}.example")).collect(), "iss");
    refuses(|spec| spec.pack = PackKind::Google, "iss[0]");
    refuses(
        |spec| (spec.pack, spec.iss[0]) = (PackKind::Spiffe, "spiffe://Batch.example".to_owned()),
        "iss[0]",
    );
    refuses(
        |spec| {
            spec.pack = PackKind::Spiffe;
            spec.iss = vec!["spiffe://a.example".to_owned(), "spiffe://b.example".to_owned()];
        },
        "iss",
    );
    refuses(|spec| spec.audiences = vec![String::new()], "audiences[0]");
    refuses(|spec| spec.audiences = vec!["a".to_owned(), "sts.amazonaws.com".to_owned()], "audiences[1]");
    refuses(|spec| spec.algorithms.clear(), "algorithms");
    refuses(|spec| spec.algorithms = vec![Algorithm::Es256, Algorithm::Es256], "algorithms");
    refuses(|spec| spec.headers.clear(), "headers");
    refuses(|spec| spec.max_lifetime_s = 0, "max_lifetime_s");
    refuses(|spec| spec.max_lifetime_s = super::MAX_LIFETIME_S + 1, "max_lifetime_s");
    refuses(|spec| spec.skew_s = 121, "skew_s");
    refuses(|spec| spec.valid_until = -1, "valid_until");
    refuses(|spec| spec.retire_at = -1, "retire_at");
    for kind in ["", "JWT", "a b", "at+jwt", "application/jwt", "j\u{e4}t"] {
        refuses(|spec| spec.types.push(kind.to_owned()), "types[2]");
    }
    refuses(|spec| spec.types = vec!["a".to_owned(); 65], "types");
    let revoked = |value: &str, until| Revoked { kind: RevokedKind::Key, value: value.to_owned(), until };
    for wrong in [revoked("", 0), revoked("x\u{0}", 0), revoked("x", -1), revoked(&"x".repeat(2049), 0)] {
        refuses(|spec| spec.revoked = vec![wrong], "revoked[0]");
    }
    refuses(|spec| spec.revoked = vec![revoked("x", 0), revoked("x", 1)], "revoked[1]");
    refuses(|spec| spec.revoked = (0..=MAX_REVOKED).map(|n| revoked(&n.to_string(), 0)).collect(), "revoked");
    refuses(|spec| spec.keys = vec![Signer::new(1).jwk(None); 65], "keys");
    refuses(|spec| spec.keys.push(Signer::new(8).jwk(spec.keys[0].key_id())), "keys[1]");
    for header in ["", "Authorization", "x token", ":authority", "x_token", "x-tidegate-token", "x-t\u{e4}"] {
        refuses(
            |spec| spec.headers = vec![TokenHeader { name: header.to_owned(), prefix: None }],
            "headers[0]",
        );
    }
    for prefix in ["", "Bearer ", "Bea,rer", "B\u{e4}rer"] {
        refuses(|spec| spec.headers[0].prefix = Some(prefix.to_owned()), "headers[0]");
    }
    refuses(|spec| spec.headers.push(TokenHeader { prefix: None, ..spec.headers[0].clone() }), "headers[1]");
}

#[test]
fn carries_all_that_one_issuer_may_have() {
    let mut spec = spec();
    spec.iss = (0..64).map(|n| format!("https://{n}.example")).collect();
    let one = |n: usize| Revoked { kind: RevokedKind::ALL[n % 3], value: n.to_string(), until: 0 };
    spec.revoked = (0..MAX_REVOKED).map(one).collect();
    spec.keys = (1..=64).map(|seed| Signer::new(seed).jwk(Some(&seed.to_string()))).collect();
    let written = IssuerSetSpec::new(vec![spec]);
    assert_eq!(IssuerSetSpec::decode(&written.encode().unwrap()), Ok(written));
}

#[test]
fn refuses_two_issuers_that_one_token_could_name() {
    let twice = |change: fn(&mut IssuerSpec)| {
        let mut other = spec();
        change(&mut other);
        IssuerSetSpec::new(vec![spec(), other]).encode()
    };
    let field = |result: Result<Vec<u8>, InvalidKeys>| match result {
        Err(InvalidKeys::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        field(twice(|other| other.iss = vec!["https://other.example.com".to_owned()])),
        "issuers[1].name"
    );
    assert_eq!(field(twice(|other| other.name = "other".to_owned())), "issuers[1].iss[0]");
    assert_eq!(
        field(twice(|other| {
            other.name = "other".to_owned();
            other.iss.insert(0, "https://other.example.com".to_owned());
        })),
        "issuers[1].iss[1]"
    );
    assert!(
        twice(|other| {
            other.name = "other".to_owned();
            other.iss = vec!["https://other.example.com".to_owned()];
        })
        .is_ok()
    );
}
