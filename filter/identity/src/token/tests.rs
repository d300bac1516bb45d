//! The attack list, one test per row that applies to tokens, each with a twin that is accepted. Rows about claims are in
//! `claims`, those about what an issuer demands beyond them in `terms`, those
//! about JWT-SVIDs in `svid`.

mod claims;
mod svid;
mod terms;

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::issuer::IssuerSpec;
use crate::keys::Algorithm;
use crate::testing::{AUDIENCE, Gate, KEY_ID, NOW, Signer, generic, issuer, with};
use crate::{PackKind, TokenOutcome, base64url};

fn gate() -> (Signer, Gate) {
    let signer = Signer::new(7);
    let spec = issuer(PackKind::Generic, &signer);
    (signer, Gate::new(vec![spec]))
}

fn gate_with(change: impl FnOnce(&mut IssuerSpec)) -> (Signer, Gate) {
    let signer = Signer::new(7);
    let mut spec = issuer(PackKind::Generic, &signer);
    change(&mut spec);
    (signer, Gate::new(vec![spec]))
}

#[track_caller]
fn accepted(outcome: &TokenOutcome) {
    assert!(matches!(outcome, TokenOutcome::Verified(_)), "{outcome:?}");
}

#[track_caller]
fn refused(outcome: &TokenOutcome, fault: TokenFault) {
    assert_eq!(*outcome, TokenOutcome::Invalid(fault));
}

/// Each header is refused with this fault, the plain one is accepted.
#[track_caller]
fn refuses_headers(headers: &[Value], fault: TokenFault) {
    let (signer, mut gate) = gate();
    accepted(&gate.bearer(&signer.with_header(&json!({"alg": "ES256", "kid": KEY_ID, "typ": "JWT"}))));
    for header in headers {
        let outcome = gate.bearer(&signer.with_header(header));
        assert_eq!(outcome, TokenOutcome::Invalid(fault), "{header}");
    }
}

/// Each change of a claim is refused with this fault, the unchanged claims are accepted.
#[track_caller]
fn refuses_claims(changes: &[(&str, Option<Value>)], fault: TokenFault) {
    let (signer, mut gate) = gate();
    accepted(&gate.bearer(&signer.token(&generic())));
    for (name, value) in changes {
        let outcome = gate.bearer(&signer.token(&with(&generic(), &[name], value.clone())));
        assert_eq!(outcome, TokenOutcome::Invalid(fault), "{name}: {value:?}");
    }
}

/// Header and claims as texts that `serde_json` would not write.
#[track_caller]
fn refuses_texts(texts: &[(&str, &str)], fault: TokenFault) {
    let (signer, mut gate) = gate();
    let header = format!(r#"{{"alg":"ES256","kid":"{KEY_ID}"}}"#);
    let claims = generic().to_string();
    accepted(&gate.bearer(&signer.sign(&header, &claims)));
    for (wrong_header, wrong_claims) in texts {
        let header = if wrong_header.is_empty() { &header } else { *wrong_header };
        let claims = if wrong_claims.is_empty() { &claims } else { *wrong_claims };
        let outcome = gate.bearer(&signer.sign(header, claims));
        assert_eq!(outcome, TokenOutcome::Invalid(fault), "{header} {claims}");
    }
}

/// The generic claims as text, with more members at the end.
fn claims_and(members: &str) -> String {
    let claims = generic().to_string();
    format!("{},{members}}}", claims.strip_suffix('}').unwrap())
}

#[test]
fn row_01_refuses_none_and_empty_signatures() {
    let algorithm = |name: &str| json!({"alg": name, "kid": KEY_ID});
    refuses_headers(
        &["none", "None", "NONE", "nOnE", "", "es256"].map(algorithm),
        TokenFault::AlgorithmRefused,
    );
    refuses_headers(&[json!({"kid": KEY_ID})], TokenFault::AlgorithmRefused);
    refuses_headers(&[json!({"alg": null, "kid": KEY_ID}), json!({"alg": ["ES256"]})], TokenFault::Malformed);

    let (signer, mut gate) = gate();
    let token = signer.token(&generic());
    let unsigned = &token[..=token.rfind('.').unwrap()];
    refused(&gate.bearer(unsigned), TokenFault::Malformed);
    let none = signer.with_header(&json!({"alg": "none"}));
    refused(&gate.bearer(&none[..=none.rfind('.').unwrap()]), TokenFault::AlgorithmRefused);
    accepted(&gate.bearer(&token));
}

#[test]
fn row_02_refuses_symmetric_and_other_algorithms() {
    let algorithm = |name: &str| json!({"alg": name, "kid": KEY_ID});
    let names = ["HS256", "HS384", "HS512", "RS256", "PS256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519"];
    refuses_headers(&names.map(algorithm), TokenFault::AlgorithmRefused);
    // Accepted by the issuer, but its key is for another one.
    let (signer, mut gate) = gate_with(|spec| spec.algorithms = vec![Algorithm::Rs256, Algorithm::Es256]);
    refused(&gate.bearer(&signer.with_header(&algorithm("RS256"))), TokenFault::KeyUnknown);
    accepted(&gate.bearer(&signer.with_header(&algorithm("ES256"))));
}

#[test]
fn row_03_refuses_keys_and_where_to_get_them_in_headers() {
    let header = |name: &str, value: Value| json!({"alg": "ES256", "kid": KEY_ID, name: value});
    refuses_headers(
        &[
            header("jwk", json!({"kty": "EC"})),
            header("jku", json!("https://evil.example/jwks")),
            header("x5u", json!("https://evil.example/cert")),
            header("x5c", json!(["MII"])),
            header("url", json!("https://evil.example")),
        ],
        TokenFault::HeaderRefused,
    );
    let (signer, mut gate) = gate();
    accepted(&gate.bearer(&signer.with_header(&header("x5t", json!("digest")))));
}

#[test]
fn row_04_compares_key_ids_as_opaque_text() {
    let header = |kid: Value| json!({"alg": "ES256", "kid": kid});
    let huge = "k".repeat(300);
    let kids = ["", "key-1 ", "KEY-1", "../key-1", "key-1\u{0}", "' OR 1=1", "https://x/key-1", &huge];
    refuses_headers(&kids.map(|kid| header(json!(kid))), TokenFault::KeyUnknown);
    refuses_headers(&[header(json!(1)), header(json!(null)), header(json!([KEY_ID]))], TokenFault::Malformed);
}

#[test]
fn row_05_accepts_a_missing_key_id_only_where_one_key_fits() {
    let bare = json!({"alg": "ES256"});
    let (signer, mut one) = gate();
    accepted(&one.bearer(&signer.with_header(&bare)));
    let (signer, mut two) = gate_with(|spec| spec.keys.push(Signer::new(8).jwk(Some("key-2"))));
    refused(&two.bearer(&signer.with_header(&bare)), TokenFault::KeyUnknown);
    accepted(&two.bearer(&signer.with_header(&json!({"alg": "ES256", "kid": KEY_ID}))));
    refused(
        &two.bearer(&signer.with_header(&json!({"alg": "ES256", "kid": "key-2"}))),
        TokenFault::BadSignature,
    );
    // A key without an id is not the key of every id.
    let (signer, mut nameless) = gate_with(|spec| spec.keys = vec![Signer::new(7).jwk(None)]);
    refused(
        &nameless.bearer(&signer.with_header(&json!({"alg": "ES256", "kid": KEY_ID}))),
        TokenFault::KeyUnknown,
    );
    accepted(&nameless.bearer(&signer.with_header(&bare)));
}

#[test]
fn row_07_compares_issuers_byte_for_byte() {
    let (signer, mut gate) = gate();
    accepted(&gate.bearer(&signer.token(&generic())));
    for other in [
        "https://issuer.example.com/",
        "https://ISSUER.example.com",
        "HTTPS://issuer.example.com",
        "https://issuer.example.com.evil.example",
        "https://issuer.example.com:443",
        "https://issuer.example.co",
        "issuer.example.com",
        " https://issuer.example.com",
        "https://issuer.example.com\u{0}",
        "https://issuer%2eexample.com",
        "",
    ] {
        let outcome = gate.bearer(&signer.token(&with(&generic(), &["iss"], Some(json!(other)))));
        assert_eq!(outcome, TokenOutcome::Absent, "{other:?}");
    }
    assert_eq!(gate.bearer(&signer.token(&with(&generic(), &["iss"], None))), TokenOutcome::Absent);
}

#[test]
fn row_07_never_verifies_with_another_issuers_key() {
    // Both issuers publish the same key id.
    let (ours, theirs) = (Signer::new(7), Signer::new(8));
    let other = IssuerSpec {
        iss: vec!["https://other.example.com".to_owned()],
        name: "other".to_owned(),
        ..issuer(PackKind::Generic, &theirs)
    };
    let mut gate = Gate::new(vec![issuer(PackKind::Generic, &ours), other]);
    refused(&gate.bearer(&theirs.token(&generic())), TokenFault::BadSignature);
    accepted(&gate.bearer(&ours.token(&generic())));
}

#[test]
fn row_09_refuses_without_keys_and_past_their_valid_until() {
    let (signer, mut none) = gate_with(|spec| spec.keys.clear());
    refused(&none.bearer(&signer.token(&generic())), TokenFault::KeyUnknown);
    let (signer, mut gate) = gate_with(|spec| spec.valid_until = NOW);
    let token = signer.token(&generic());
    refused(&gate.bearer_at(&token, NOW + 1), TokenFault::KeysStale);
    accepted(&gate.bearer_at(&token, NOW));
    // Stale keys are not even tried.
    refused(&gate.bearer_at(&Signer::new(9).token(&generic()), NOW + 1), TokenFault::KeysStale);
    refused(&gate.bearer_at(&Signer::new(9).token(&generic()), NOW), TokenFault::BadSignature);
    // And once more, now that the token is cached.
    refused(&gate.bearer_at(&token, NOW + 1), TokenFault::KeysStale);
}

#[test]
fn row_10_refuses_any_crit() {
    let header = |crit: Value| json!({"alg": "ES256", "kid": KEY_ID, "crit": crit});
    refuses_headers(
        &[
            header(json!(["x-unknown"])),
            header(json!([])),
            header(json!(["exp", "exp"])),
            header(json!("exp")),
            header(json!(null)),
        ],
        TokenFault::HeaderRefused,
    );
}

#[test]
fn row_11_refuses_b64() {
    let header = |b64: bool| json!({"alg": "ES256", "kid": KEY_ID, "b64": b64});
    refuses_headers(&[header(false), header(true)], TokenFault::HeaderRefused);
}

#[test]
fn row_12_accepts_exactly_three_parts() {
    let (signer, mut gate) = gate();
    let token = signer.token(&generic());
    let parts: Vec<_> = token.split('.').collect();
    accepted(&gate.bearer(&token));
    for broken in [
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[1], parts[2]),
        // RFC 7515 appendix F: detached.
        format!("{}.", parts[0]),
    ] {
        let outcome = gate.bearer(&broken);
        assert_eq!(outcome, TokenOutcome::Invalid(TokenFault::Malformed), "{broken}");
    }
    // Neither is a JWT to anybody.
    for opaque in [parts[0].to_owned(), format!(".{}.{}", parts[1], parts[2])] {
        assert_eq!(gate.bearer(&opaque), TokenOutcome::Absent, "{opaque}");
    }
}

#[test]
fn row_12_takes_encrypted_tokens_for_opaque() {
    let (_, mut gate) = gate();
    let header = base64url::encode(br#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    assert_eq!(gate.bearer(&format!("{header}.a2V5.aXY.Y2lwaGVy.dGFn")), TokenOutcome::Absent);
    let lie = base64url::encode(br#"{"alg":"ES256","kid":"key-1"}"#);
    refused(&gate.bearer(&format!("{lie}.a2V5.aXY.Y2lwaGVy.dGFn")), TokenFault::Malformed);
}

#[test]
fn row_12_takes_json_serialisation_for_opaque() {
    let (signer, mut gate) = gate();
    let token = signer.token(&generic());
    let parts: Vec<_> = token.split('.').collect();
    let json = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
    assert_eq!(gate.bearer(&json), TokenOutcome::Absent);
}

#[test]
fn row_13_refuses_nested_tokens() {
    refuses_headers(&[json!({"alg": "ES256", "kid": KEY_ID, "cty": "JWT"})], TokenFault::HeaderRefused);
}

#[test]
fn row_14_refuses_compression_and_encryption() {
    refuses_headers(
        &[
            json!({"alg": "ES256", "kid": KEY_ID, "zip": "DEF"}),
            json!({"alg": "ES256", "kid": KEY_ID, "enc": "A256GCM"}),
        ],
        TokenFault::HeaderRefused,
    );
}

#[test]
fn row_15_refuses_psychic_and_misshapen_signatures() {
    let (signer, mut gate) = gate();
    let token = signer.token(&generic());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = base64url::decode(signature.as_bytes()).unwrap();
    let (r, s) = signature.split_at(32);
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    let zero = [0; 32];
    for wrong in [
        vec![0; 64],
        [&zero, s].concat(),
        [r, &zero].concat(),
        [&order[..], s].concat(),
        [r, &order].concat(),
        [&order[..], &order].concat(),
        vec![0xff; 64],
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        [&[0], &signature[..]].concat(),
        crate::signature::ecdsa_der(&signature).unwrap(),
        [s, r].concat(),
    ] {
        let outcome = gate.bearer(&format!("{input}.{}", base64url::encode(&wrong)));
        assert_eq!(outcome, TokenOutcome::Invalid(TokenFault::BadSignature), "{wrong:x?}");
    }
    accepted(&gate.bearer(&token));
}

#[test]
fn row_16_takes_the_other_spelling_of_a_signature_for_another_token() {
    let (signer, mut gate) = gate();
    let token = signer.token(&generic());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature =
        p256::ecdsa::Signature::from_slice(&base64url::decode(signature.as_bytes()).unwrap()).unwrap();
    let (r, s) = (signature.r(), signature.s());
    let other = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
    let other = format!("{input}.{}", base64url::encode(&other.to_bytes()));
    accepted(&gate.bearer(&token));
    accepted(&gate.bearer(&other));
    assert_eq!(gate.authenticator.cached(), 2);
}

#[test]
fn row_19_refuses_duplicate_members_at_every_depth() {
    let nested = claims_and(r#""a":{"b":[{"c":1,"c":2}]}"#);
    let escaped = claims_and(r#""\u0073ub":"root""#);
    let plain = claims_and(r#""sub":"root""#);
    refuses_texts(
        &[
            ("", &plain),
            ("", &escaped),
            ("", &nested),
            (r#"{"alg":"ES256","alg":"ES256","kid":"key-1"}"#, ""),
            (r#"{"alg":"ES256","\u0061lg":"none","kid":"key-1"}"#, ""),
            (r#"{"alg":"none","kid":"key-1","alg":"ES256"}"#, ""),
        ],
        TokenFault::Malformed,
    );
    // Whose token it is cannot be told; that is no reason to let it pass.
    refuses_texts(&[("", &claims_and(r#""iss":"https://other.example.com""#))], TokenFault::Malformed);
}

#[test]
fn row_44_tells_nothing_of_the_claims_before_the_signature_verifies() {
    let (signer, mut gate) = gate_with(|spec| spec.audiences = vec![AUDIENCE.to_owned()]);
    let forger = Signer::new(9);
    let expired = with(&generic(), &["exp"], Some(json!(1)));
    let cases = [
        (expired, TokenFault::Expired),
        (with(&generic(), &["aud"], Some(json!("other"))), TokenFault::WrongAudience),
        (with(&generic(), &["exp"], None), TokenFault::ClaimMissing),
    ];
    for (claims, fault) in cases {
        refused(&gate.bearer(&forger.token(&claims)), TokenFault::BadSignature);
        refused(&gate.bearer(&signer.token(&claims)), fault);
    }
}

#[test]
fn refuses_every_token_with_one_character_changed() {
    let (signer, mut gate) = gate();
    let token = signer.token(&generic());
    for at in 0..token.len() {
        let old = token.as_bytes()[at];
        // Another character of the alphabet, the neighbour (unused bits), and one that is not of it.
        for new in [if old == b'A' { b'B' } else { b'A' }, old ^ 1, b'.', b'=', b' '] {
            if new == old {
                continue;
            }
            let mut bytes = token.clone().into_bytes();
            bytes[at] = new;
            let changed = String::from_utf8(bytes).unwrap();
            let outcome = gate.bearer(&changed);
            assert!(!matches!(outcome, TokenOutcome::Verified(_)), "{at}: {changed}");
        }
    }
    accepted(&gate.bearer(&token));
}

#[test]
fn keeps_what_the_engine_needs() {
    let signer = Signer::new(7);
    let mut gate = Gate::with_slots(
        vec![issuer(PackKind::Generic, &signer)],
        &[&["sub"], &["missing"], &["n"], &["list"], &["o"], &["o", "in"], &["sub", "x"], &["fraction"]],
    );
    let mut claims = generic();
    claims["n"] = json!(-5);
    claims["list"] = json!(["a", "b"]);
    claims["o"] = json!({"in": true});
    claims["fraction"] = json!(1.5);
    let TokenOutcome::Verified(token) = gate.bearer(&signer.token(&claims)) else { panic!() };
    assert_eq!(token.audiences, [AUDIENCE]);
    assert_eq!(token.expires_at, 1_795_203_600);
    use tidegate_engine::ClaimValue::{Absent, Boolean, Integer, Other, String as Text, Strings};
    assert_eq!(
        token.slots,
        [
            Text("robot".to_owned()),
            Absent,
            Integer(-5),
            Strings(vec!["a".to_owned(), "b".to_owned()]),
            Other,
            Boolean(true),
            Other,
            Other,
        ]
    );
}

#[test]
fn verifies_only_for_the_issuer_that_the_token_names() {
    let signer = Signer::new(7);
    let other = IssuerSpec {
        iss: vec!["https://other.example.com".to_owned()],
        ..issuer(PackKind::Generic, &signer)
    };
    let [ours, theirs] = [issuer(PackKind::Generic, &signer), other].map(crate::Issuer::from);
    let token = signer.token(&generic());
    let verify = |issuer| match super::read(token.as_bytes()) {
        super::Reading::Token(token) => {
            token.verify(issuer, crate::At::now(NOW), &crate::PureRust).map(|verified| verified.expires_at)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(verify(&ours), Ok(1_795_203_600));
    assert_eq!(verify(&theirs), Err(TokenFault::KeyUnknown));
}
