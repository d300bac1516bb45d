//! Rows 20 to 37 of the attack list: what a token claims.

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepted, claims_and, gate, gate_with, refused, refuses_claims, refuses_headers};
use crate::testing::{AUDIENCE, Gate, KEY_ID, NOW, Signer, generic, issuer, kubernetes, with};
use crate::{PackKind, TokenOutcome};

#[test]
fn row_20_accepts_only_whole_seconds_for_times() {
    for (name, _) in [("exp", 0), ("iat", 0), ("nbf", 0)] {
        let text = |number: &str| {
            let claims = with(&generic(), &[name], None).to_string();
            format!(r#"{},"{name}":{number}}}"#, claims.strip_suffix('}').unwrap())
        };
        let (signer, mut gate) = gate();
        let header = format!(r#"{{"alg":"ES256","kid":"{KEY_ID}"}}"#);
        let good = if name == "exp" { "1795203600" } else { "1795200000" };
        accepted(&gate.bearer(&signer.sign(&header, &text(good))));
        for number in [
            "1795203600.0",
            "1795203600.5",
            "1.7952036e9",
            "1795203600e0",
            "-1",
            "-0",
            "9007199254740992",
            "9223372036854775807",
            "9223372036854775808",
            "1e400",
            "\"1795203600\"",
            "null",
            "true",
            "[]",
            "{}",
        ] {
            let outcome = gate.bearer(&signer.sign(&header, &text(number)));
            assert_eq!(outcome, TokenOutcome::Invalid(TokenFault::ClaimMalformed), "{name}: {number}");
        }
        for number in ["01795203600", "+1795203600", "0x6b", "NaN", "Infinity", ".5", "5.", "1e", "--1"] {
            let outcome = gate.bearer(&signer.sign(&header, &text(number)));
            assert_eq!(outcome, TokenOutcome::Invalid(TokenFault::Malformed), "{name}: {number}");
        }
    }
}

#[test]
fn row_21_takes_no_wrong_type_for_absent() {
    let wrong = [json!(5), json!(true), json!(null), json!({"a": 1}), json!([5]), json!(["a", 5]), json!([])];
    for value in &wrong {
        for name in ["iss", "sub", "aud", "jti"] {
            refuses_claims(&[(name, Some(value.clone()))], TokenFault::ClaimMalformed);
        }
    }
    // A list of issuers with the right one in it, which some verifiers accept.
    refuses_claims(&[("iss", Some(json!(["https://issuer.example.com"])))], TokenFault::ClaimMalformed);
    refuses_claims(
        &[
            ("sub", Some(json!(["robot"]))),
            ("sub", Some(json!(""))),
            ("azp", Some(json!(1))),
            ("client_id", Some(json!(["a"]))),
            ("email", Some(json!(false))),
        ],
        TokenFault::ClaimMalformed,
    );
}

#[test]
fn row_22_accepts_one_spelling_of_base64() {
    let (signer, mut gate) = gate();
    // Lengths that leave unused bits in each part.
    let token = signer.sign(&format!(r#"{{"alg":"ES256","kid":"{KEY_ID}"}}"#), &claims_and(r#""x":"yy""#));
    accepted(&gate.bearer(&token));
    let parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    for part in 0..3 {
        let spelled = |text: String| {
            let mut parts = parts.clone();
            parts[part] = text;
            parts.join(".")
        };
        let text = &parts[part];
        for other in [
            format!("{text}="),
            format!("{text}=="),
            format!("{text}A"),
            format!("{text}%3D"),
            format!("{text}\n"),
            format!("{} {}", &text[..8], &text[8..]),
            text.replace('_', "/").replace('-', "+") + if text.contains(['_', '-']) { "" } else { "=" },
        ] {
            let outcome = gate.bearer(&spelled(other.clone()));
            assert!(matches!(outcome, TokenOutcome::Invalid(_)), "{other}: {outcome:?}");
        }
        if text.len() % 4 != 0 {
            // The next character differs in unused bits only.
            let last = text.chars().next_back().unwrap();
            let next = char::from(last as u8 + 1);
            let other = format!("{}{next}", &text[..text.len() - 1]);
            let outcome = gate.bearer(&spelled(other.clone()));
            assert!(matches!(outcome, TokenOutcome::Invalid(_)), "{other}: {outcome:?}");
        }
    }
}

#[test]
fn row_23_refuses_control_and_invisible_characters_in_identities() {
    for character in
        ['\u{0}', '\n', '\u{1f}', '\u{7f}', '\u{85}', '\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}']
    {
        let text = json!(format!("robot{character}"));
        for name in ["sub", "aud", "jti", "email"] {
            refuses_claims(&[(name, Some(text.clone()))], TokenFault::ClaimMalformed);
        }
        refuses_claims(&[("aud", Some(json!([AUDIENCE, text])))], TokenFault::ClaimMalformed);
    }
}

#[test]
fn row_24_folds_and_normalises_nothing() {
    let (signer, mut gate) = gate_with(|spec| spec.audiences = vec![AUDIENCE.to_owned()]);
    let token = |audience: &str| signer.token(&with(&generic(), &["aud"], Some(json!(audience))));
    accepted(&gate.bearer(&token(AUDIENCE)));
    for other in [
        "https://Ledger.svc.example.com",
        "https://ledger.svc.example.com/",
        "https://l\u{435}dger.svc.example.com",
    ] {
        refused(&gate.bearer(&token(other)), TokenFault::WrongAudience);
    }
}

#[test]
fn row_25_bounds_length_depth_and_members() {
    let (signer, mut gate) = gate();
    let padded = |length: usize| signer.token(&with(&generic(), &["pad"], Some(json!("x".repeat(length)))));
    accepted(&gate.bearer(&padded(11_000)));
    refused(&gate.bearer(&padded(13_000)), TokenFault::TooLarge);
    let deep = |depth: usize| claims_and(&format!(r#""deep":{}{}"#, "[".repeat(depth), "]".repeat(depth)));
    let header = format!(r#"{{"alg":"ES256","kid":"{KEY_ID}"}}"#);
    accepted(&gate.bearer(&signer.sign(&header, &deep(15))));
    refused(&gate.bearer(&signer.sign(&header, &deep(16))), TokenFault::TooLarge);
    refused(&gate.bearer(&signer.sign(&header, &deep(4000))), TokenFault::TooLarge);
    let wide = |count: usize| {
        let members: Vec<_> = (0..count).map(|i| format!(r#""m{i}":0"#)).collect();
        claims_and(&members.join(","))
    };
    accepted(&gate.bearer(&signer.sign(&header, &wide(250))));
    refused(&gate.bearer(&signer.sign(&header, &wide(251))), TokenFault::TooLarge);
    // A long value that is no JWT is still no JWT.
    assert_eq!(gate.bearer(&"x".repeat(20_000)), TokenOutcome::Absent);
}

#[test]
fn row_26_requires_an_expiry() {
    refuses_claims(&[("exp", None)], TokenFault::ClaimMissing);
}

#[test]
fn row_27_bounds_the_lifetime() {
    let (signer, mut gate) = gate_with(|spec| spec.max_lifetime_s = 600);
    let token = |from: &str, lifetime: i64| {
        let claims = with(&with(&generic(), &["iat"], None), &[from], Some(json!(NOW)));
        signer.token(&with(&claims, &["exp"], Some(json!(NOW + lifetime))))
    };
    for from in ["iat", "nbf"] {
        accepted(&gate.bearer(&token(from, 630)));
        refused(&gate.bearer(&token(from, 631)), TokenFault::LifetimeTooLong);
        refused(&gate.bearer(&token(from, 315_360_000)), TokenFault::LifetimeTooLong);
        refused(&gate.bearer(&token(from, (1 << 53) - 1 - NOW)), TokenFault::LifetimeTooLong);
    }
    refuses_claims(&[("iat", None)], TokenFault::ClaimMissing);
}

#[test]
fn row_28_refuses_tokens_of_the_future_and_of_the_past() {
    let (signer, mut gate) = gate();
    let at = |iat: i64, nbf: i64, exp: i64| {
        signer.token(&json!({
            "iss": "https://issuer.example.com", "sub": "robot", "aud": AUDIENCE,
            "iat": iat, "nbf": nbf, "exp": exp,
        }))
    };
    let token = at(NOW, NOW, NOW + 300);
    for (now, fault) in [
        (NOW - 31, Some(TokenFault::NotYetValid)),
        (NOW - 30, None),
        (NOW + 329, None),
        (NOW + 330, Some(TokenFault::Expired)),
        (0, Some(TokenFault::NotYetValid)),
        (i64::MIN, Some(TokenFault::NotYetValid)),
    ] {
        // Twice: the second time from the cache.
        for _ in 0..2 {
            let outcome = gate.bearer_at(&token, now);
            match fault {
                None => accepted(&outcome),
                Some(fault) => refused(&outcome, fault),
            }
        }
    }
    refused(&gate.bearer(&at(NOW, NOW + 31, NOW + 300)), TokenFault::NotYetValid);
    accepted(&gate.bearer(&at(NOW, NOW + 30, NOW + 300)));
    refused(&gate.bearer(&at(NOW + 31, NOW, NOW + 300)), TokenFault::NotYetValid);
    refused(&gate.bearer(&at(NOW + 20, NOW, NOW + 20)), TokenFault::ClaimsContradict);
    refused(&gate.bearer(&at(NOW, NOW + 20, NOW + 10)), TokenFault::ClaimsContradict);
}

#[test]
fn row_30_demands_one_of_the_audiences() {
    let (signer, mut gate) = gate_with(|spec| spec.audiences = vec!["a".to_owned(), AUDIENCE.to_owned()]);
    let token = |audience: Value| signer.token(&with(&generic(), &["aud"], Some(audience)));
    accepted(&gate.bearer(&token(json!(AUDIENCE))));
    accepted(&gate.bearer(&token(json!(["z", AUDIENCE]))));
    for wrong in [
        json!("b"),
        json!(["b", "c"]),
        json!("aa"),
        json!(format!("a {AUDIENCE}")),
        json!(format!("{AUDIENCE}.evil.example")),
    ] {
        refused(&gate.bearer(&token(wrong)), TokenFault::WrongAudience);
    }
    refused(&gate.bearer(&signer.token(&with(&generic(), &["aud"], None))), TokenFault::ClaimMissing);
    refuses_claims(&[("aud", None)], TokenFault::ClaimMissing);
    refuses_claims(&[("aud", Some(json!("")))], TokenFault::ClaimMalformed);
    refuses_claims(&[("aud", Some(json!([AUDIENCE, ""])))], TokenFault::ClaimMalformed);
}

#[test]
fn row_31_names_tokens_that_were_minted_for_another_party() {
    let wif = "iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
    let (https, scheme_less) = (format!("https://{wif}"), format!("//{wif}"));
    for party in
        ["istio-ca", "sts.amazonaws.com", "api://AzureADTokenExchange", "p.svc.id.goog", &https, &scheme_less]
    {
        refuses_claims(
            &[("aud", Some(json!(party))), ("aud", Some(json!([AUDIENCE, party])))],
            TokenFault::MintedForAnotherParty,
        );
    }
    let signer = Signer::new(7);
    let mut gate = Gate::new(vec![issuer(PackKind::Kubernetes, &signer)]);
    accepted(&gate.bearer(&signer.token(&kubernetes())));
    for party in ["istio-ca", "sts.amazonaws.com"] {
        let claims = with(&kubernetes(), &["aud"], Some(json!([party])));
        refused(&gate.bearer(&signer.token(&claims)), TokenFault::MintedForAnotherParty);
    }
    // Not one of them, whatever it looks like.
    let (signer, mut gate) = self::gate();
    for other in
        ["istio-ca.example.com", "https://iam.googleapis.com/projects/1", "sts.amazonaws.com.example"]
    {
        accepted(&gate.bearer(&signer.token(&with(&generic(), &["aud"], Some(json!(other))))));
    }
}

#[test]
fn row_32_refuses_other_kinds_of_tokens_by_typ() {
    let header = |typ: &str| json!({"alg": "ES256", "kid": KEY_ID, "typ": typ});
    let kinds = [
        "dpop+jwt",
        "wit+jwt",
        "wpt+jwt",
        "txntoken+jwt",
        "logout+jwt",
        "secevent+jwt",
        "JOSE",
        "JWT ",
        "",
        "text/JWT",
    ];
    refuses_headers(&kinds.map(header), TokenFault::TypeRefused);
    refuses_headers(&[json!({"alg": "ES256", "kid": KEY_ID, "typ": 1})], TokenFault::Malformed);
    let (signer, mut gate) = gate();
    for kind in ["JWT", "jwt", "application/jwt", "at+jwt", "Application/at+JWT"] {
        accepted(&gate.bearer(&signer.with_header(&header(kind))));
    }
    let kubernetes_signer = Signer::new(7);
    let mut gate = Gate::new(vec![issuer(PackKind::Kubernetes, &kubernetes_signer)]);
    let token = kubernetes_signer.sign(&header("at+jwt").to_string(), &kubernetes().to_string());
    refused(&gate.bearer(&token), TokenFault::TypeRefused);
}
