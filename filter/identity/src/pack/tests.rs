use serde_json::{Value, json};
use tidegate_engine::{ClaimValue, TokenFault};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{ClaimKind, PackKind, Presence, Stability, another_party, is_shared_issuer, tenant_claims};
use crate::TokenOutcome;
use crate::issuer::IssuerSpec;
use crate::testing::{self, Gate, NOW, Signer, issuer, with};

fn gate(pack: PackKind) -> (Signer, Gate) {
    let signer = Signer::new(7);
    let spec = issuer(pack, &signer);
    (signer, Gate::new(vec![spec]))
}

#[track_caller]
fn accepts(pack: PackKind, claims: &Value) {
    let (signer, mut gate) = gate(pack);
    let outcome = gate.bearer(&signer.token(claims));
    assert!(matches!(outcome, TokenOutcome::Verified(_)), "{outcome:?}: {claims}");
}

#[track_caller]
fn refuses(pack: PackKind, claims: &Value, fault: TokenFault) {
    let (signer, mut gate) = gate(pack);
    assert_eq!(gate.bearer(&signer.token(claims)), TokenOutcome::Invalid(fault), "{claims}");
}

fn of_type(kind: ClaimKind) -> Vec<Value> {
    let all = [
        (ClaimKind::String, json!("text")),
        (ClaimKind::Integer, json!(7)),
        (ClaimKind::Boolean, json!(true)),
        (ClaimKind::Strings, json!(["a"])),
        (ClaimKind::Structure, json!({"a": 1})),
    ];
    let admits = |other: ClaimKind| match kind {
        ClaimKind::String | ClaimKind::Identifier => other == ClaimKind::String,
        ClaimKind::BooleanString => false,
        ClaimKind::StringOrStrings => matches!(other, ClaimKind::String | ClaimKind::Strings),
        ClaimKind::Structure => matches!(other, ClaimKind::Strings | ClaimKind::Structure),
        ClaimKind::Integer | ClaimKind::Boolean | ClaimKind::Strings => other == kind,
    };
    all.into_iter().filter(|(other, _)| !admits(*other)).map(|(_, value)| value).collect()
}

#[test]
fn accepts_what_each_issuer_really_sends() {
    for pack in PackKind::ALL {
        accepts(pack, &testing::claims(pack));
    }
}

/// Every claim that a pack knows, in every wrong type, missing, and null.
#[test]
fn refuses_every_known_claim_of_another_type() {
    for pack in PackKind::ALL {
        let (signer, mut gate) = gate(pack);
        let claims = testing::claims(pack);
        for spec in pack.claims() {
            // Put into an object that may not be there.
            let mut base = claims.clone();
            for depth in 1..spec.path.len() {
                let parent = &spec.path[..depth];
                if parent.iter().fold(&base, |value, name| &value[*name]).is_null() {
                    base = with(&base, parent, Some(json!({})));
                }
            }
            for wrong in of_type(spec.kind) {
                let outcome = gate.bearer(&signer.token(&with(&base, spec.path, Some(wrong.clone()))));
                let expected = TokenOutcome::Invalid(TokenFault::ClaimMalformed);
                assert_eq!(outcome, expected, "{pack:?} {:?} {wrong}", spec.path);
            }
            let null = gate.bearer(&signer.token(&with(&base, spec.path, Some(json!(null)))));
            let malformed = null == TokenOutcome::Invalid(TokenFault::ClaimMalformed);
            assert_eq!(malformed, spec.presence != Presence::Nullable, "{pack:?} {:?} null", spec.path);
            let missing = gate.bearer(&signer.token(&with(&base, spec.path, None)));
            if spec.presence == Presence::Required && spec.path != ["iss"] {
                assert_eq!(
                    missing,
                    TokenOutcome::Invalid(TokenFault::ClaimMissing),
                    "{pack:?} {:?}",
                    spec.path
                );
            }
            for depth in 1..spec.path.len() {
                let outcome = gate.bearer(&signer.token(&with(&base, &spec.path[..depth], Some(json!("x")))));
                assert_eq!(
                    outcome,
                    TokenOutcome::Invalid(TokenFault::ClaimMalformed),
                    "{pack:?} {:?}",
                    spec.path
                );
            }
        }
    }
}

#[test]
fn google_accepts_workloads_and_nobody_else() {
    let vm = testing::google();
    let account = with(&vm, &["google"], None);
    accepts(PackKind::Google, &vm);
    accepts(PackKind::Google, &account);
    // Without the address, and with the address as the authorized party.
    accepts(PackKind::Google, &with(&account, &["email"], None));
    let address = account["email"].clone();
    accepts(PackKind::Google, &with(&account, &["azp"], Some(address)));
    accepts(PackKind::Google, &with(&vm, &["azp"], None));

    let client = json!("1234-abc.apps.googleusercontent.com");
    for person in [
        with(&account, &["azp"], Some(client.clone())),
        with(&vm, &["azp"], Some(client)),
        with(&account, &["azp"], None),
        with(&account, &["azp"], Some(json!("100000000000000000002"))),
        with(&account, &["email"], Some(json!("sam@example.com"))),
        with(&account, &["email"], Some(json!("sam@gserviceaccount.com"))),
        with(&account, &["email"], Some(json!("sam@evil.example/x.gserviceaccount.com@gmail.com"))),
        with(&account, &["email"], Some(json!("a@b@c.gserviceaccount.com"))),
        with(&account, &["email_verified"], Some(json!(false))),
        with(&account, &["email_verified"], None),
    ] {
        refuses(PackKind::Google, &person, TokenFault::WrongKind);
    }
    refuses(PackKind::Google, &with(&vm, &["sub"], Some(json!("sam"))), TokenFault::ClaimMalformed);
}

#[test]
fn google_checks_the_machine() {
    let vm = testing::google();
    let at = |name: &'static str| ["google", "compute_engine", name];
    for missing in ["project_id", "project_number", "zone", "instance_id", "instance_name"] {
        refuses(PackKind::Google, &with(&vm, &at(missing), None), TokenFault::ClaimMissing);
    }
    for optional in ["instance_creation_timestamp", "instance_confidentiality", "license_id"] {
        accepts(PackKind::Google, &with(&vm, &at(optional), None));
    }
    for (name, wrong) in [
        ("project_number", json!(123_456_789_012.0)),
        ("project_number", json!("123456789012")),
        ("instance_id", json!(4_570_000_000_000_000_001_i64)),
        ("instance_id", json!("i-457")),
        ("instance_id", json!("")),
    ] {
        refuses(PackKind::Google, &with(&vm, &at(name), Some(wrong)), TokenFault::ClaimMalformed);
    }
    refuses(
        PackKind::Google,
        &with(&vm, &["google", "compute_engine"], Some(json!([]))),
        TokenFault::ClaimMalformed,
    );
    refuses(
        PackKind::Google,
        &with(&vm, &["google", "compute_engine"], Some(json!({}))),
        TokenFault::ClaimMissing,
    );
    let created =
        |seconds: i64| with(&vm, &at("instance_creation_timestamp"), Some(json!(1_795_200_000 + seconds)));
    accepts(PackKind::Google, &created(30));
    refuses(PackKind::Google, &created(31), TokenFault::ClaimsContradict);
}

#[test]
fn google_is_only_for_its_issuer() {
    assert!(PackKind::Google.refuses_issuer("https://accounts.google.com").is_none());
    for other in ["accounts.google.com", "https://accounts.google.com/", "https://issuer.example.com"] {
        assert!(PackKind::Google.refuses_issuer(other).is_some(), "{other}");
    }
}

#[test]
fn kubernetes_compares_the_subject_with_the_nested_claims() {
    let token = testing::kubernetes();
    accepts(PackKind::Kubernetes, &token);
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
        refuses(
            PackKind::Kubernetes,
            &with(&token, &["sub"], Some(json!(subject))),
            TokenFault::ClaimsContradict,
        );
    }
    let renamed = with(&token, &["kubernetes.io", "serviceaccount", "name"], Some(json!("other")));
    refuses(PackKind::Kubernetes, &renamed, TokenFault::ClaimsContradict);
}

#[test]
fn kubernetes_refuses_legacy_and_extended_tokens() {
    let token = testing::kubernetes();
    let legacy = with(&token, &["kubernetes.io/serviceaccount/namespace"], Some(json!("etl")));
    refuses(PackKind::Kubernetes, &legacy, TokenFault::WrongKind);
    refuses(PackKind::Kubernetes, &with(&token, &["exp"], None), TokenFault::ClaimMissing);
    let year = with(&token, &["exp"], Some(json!(1_795_200_000_i64 + 365 * 86_400)));
    refuses(PackKind::Kubernetes, &year, TokenFault::LifetimeTooLong);
    assert!(PackKind::Kubernetes.refuses_issuer("kubernetes/serviceaccount").is_some());
    assert!(PackKind::Kubernetes.refuses_issuer("https://kubernetes.default.svc").is_none());
}

#[test]
fn kubernetes_demands_a_pod_unless_told_otherwise() {
    let token = with(&testing::kubernetes(), &["kubernetes.io", "pod"], None);
    refuses(PackKind::Kubernetes, &token, TokenFault::WrongKind);
    let signer = Signer::new(7);
    let spec = IssuerSpec { allow_unbound: true, ..issuer(PackKind::Kubernetes, &signer) };
    assert!(matches!(Gate::new(vec![spec]).bearer(&signer.token(&token)), TokenOutcome::Verified(_)));
}

#[test]
fn gitlab_types_its_claims() {
    let token = testing::gitlab();
    for (name, wrong) in [
        ("ref_protected", json!(true)),
        ("ref_protected", json!("TRUE")),
        ("environment_protected", json!("1")),
        ("project_id", json!(20)),
        ("project_id", json!("")),
        ("job_project_id", json!(20)),
        ("runner_id", json!("1")),
        ("groups_direct", json!("a,b")),
    ] {
        refuses(PackKind::Gitlab, &with(&token, &[name], Some(wrong)), TokenFault::ClaimMalformed);
    }
    // Branches may have any name, unless it hides something.
    accepts(PackKind::Gitlab, &with(&token, &["ref"], Some(json!("größe/ü"))));
    refuses(
        PackKind::Gitlab,
        &with(&token, &["ref"], Some(json!("main\u{200b}"))),
        TokenFault::ClaimMalformed,
    );
    refuses(PackKind::Gitlab, &with(&token, &["aud"], None), TokenFault::ClaimMissing);
}

#[test]
fn says_unknown_where_absence_says_nothing() {
    let signer = Signer::new(7);
    let slots: &[&[&str]] = &[&["groups_direct"], &["environment"], &["job_project_id"]];
    let mut gate = Gate::with_slots(vec![issuer(PackKind::Gitlab, &signer)], slots);
    let mut values = |claims: &Value| match gate.bearer_at(&signer.token(claims), NOW) {
        TokenOutcome::Verified(token) => token.slots.clone(),
        other => panic!("{other:?}"),
    };
    let with_groups = with(&testing::gitlab(), &["groups_direct"], Some(json!(["data"])));
    assert_eq!(values(&with_groups)[0], ClaimValue::Strings(vec!["data".to_owned()]));
    assert_eq!(values(&testing::gitlab())[0], ClaimValue::Unknown);
    assert_eq!(values(&with(&with_groups, &["groups_direct"], Some(json!(null))))[0], ClaimValue::Unknown);
    let without = with(&with(&with_groups, &["environment"], None), &["job_project_id"], Some(json!(null)));
    assert_eq!(values(&without)[1..], [ClaimValue::Absent, ClaimValue::Absent]);
}

#[test]
fn hides_nothing_in_claims_that_rules_read() {
    let signer = Signer::new(7);
    let mut gate = Gate::with_slots(vec![issuer(PackKind::Generic, &signer)], &[&["team"]]);
    let mut team = |value: Value| {
        let claims = with(&testing::generic(), &["team"], Some(value));
        match gate.bearer(&signer.token(&claims)) {
            TokenOutcome::Verified(token) => token.slots[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(team(json!("größe")), ClaimValue::String("größe".to_owned()));
    assert_eq!(team(json!("billing\n")), ClaimValue::Other);
    assert_eq!(team(json!(["a", "b\u{202e}"])), ClaimValue::Other);
    assert_eq!(team(json!(["a", 1])), ClaimValue::Other);
    assert_eq!(team(json!([])), ClaimValue::Strings(Vec::new()));
    assert_eq!(team(json!(null)), ClaimValue::Absent);
    assert_eq!(team(json!(1.0)), ClaimValue::Other);
    assert_eq!(team(json!(u64::MAX)), ClaimValue::Other);
}

#[test]
fn tells_the_compiler_what_it_must_know() {
    assert!(is_shared_issuer(PackKind::Gitlab, "https://gitlab.com"));
    assert!(!is_shared_issuer(PackKind::Gitlab, "https://gitlab.example.com"));
    assert!(is_shared_issuer(PackKind::Google, "https://accounts.google.com"));
    assert!(is_shared_issuer(PackKind::Generic, "https://token.actions.githubusercontent.com"));
    assert!(!is_shared_issuer(PackKind::Kubernetes, "https://kubernetes.default.svc"));
    for pack in PackKind::ALL {
        assert_eq!(PackKind::from_name(pack.name()), Some(pack));
        assert_eq!(serde_json::to_value(pack).unwrap(), json!(pack.name()));
        for path in tenant_claims(pack) {
            let claim = pack.claim(path);
            assert!(claim.is_some() || pack == PackKind::Generic, "{pack:?} {path:?}");
        }
        for (at, spec) in pack.claims().iter().enumerate() {
            assert!(pack.claims()[..at].iter().all(|other| other.path != spec.path), "{:?}", spec.path);
        }
    }
    let claim = |path: &[&str]| PackKind::Gitlab.claim(path).unwrap();
    assert_eq!(claim(&["ref_protected"]).kind, ClaimKind::BooleanString);
    assert_eq!(claim(&["project_path"]).stable, Stability::Renameable);
    assert_eq!(claim(&["project_id"]).stable, Stability::Stable);
    assert!(PackKind::Gitlab.claim(&["projectid"]).is_none());
    assert!(another_party("https://ledger.example.com").is_none());
}
