use std::collections::BTreeMap;

use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::issuer::{IssuerSpec, Revoked, RevokedKind};
use crate::keys::{Algorithm, PublicKey};
use crate::signature::{Verdict, VerifySignature};
use crate::testing::{KEY_ID, NOW, Signer, claims, issuer, set, with};
use crate::{PackKind, base64url};

/// The first byte of a signature says what comes of it.
struct Told {
    certificate: Option<[u8; 32]>,
}

impl VerifySignature for Told {
    fn verify(&self, _: Algorithm, _: &PublicKey, _: &[u8], signature: &[u8]) -> Verdict {
        match signature.first() {
            Some(0) => Verdict::Valid,
            Some(1) => Verdict::Unsupported,
            Some(2) => Verdict::OverBudget,
            _ => Verdict::Invalid,
        }
    }
}

impl Connection for Told {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.certificate
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.number().is_multiple_of(times)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = self.number() % u64::try_from(from.len()).unwrap();
        from[usize::try_from(at).unwrap()].clone()
    }
}

fn header(random: &mut Random) -> Value {
    let mut header = json!({"alg": "ES256", "kid": KEY_ID});
    if random.once_in(2) {
        let unusual = random.pick(&["at+jwt", "JOSE", "wit+jwt"]);
        header["typ"] = if random.once_in(8) { unusual } else { "JWT" }.into();
    }
    if random.once_in(8) {
        header["alg"] =
            random.pick(&[json!("RS256"), json!("none"), json!("HS256"), json!(5), json!("ES384")]);
    }
    if random.once_in(8) {
        header["kid"] = random.pick(&[json!("other"), json!(5), json!("")]);
    }
    if random.once_in(8) {
        let name = random.pick(&["crit", "jku", "x5t", "x5t#S256", "zip"]);
        header[name] = json!("x");
    }
    header
}

fn changed(random: &mut Random, pack: PackKind) -> Value {
    let mut changed = claims(pack);
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2]) {
        let known = random.pick(pack.claims()).path;
        let path = random.pick(&[known, known, &["cnf"], &["exp"], &["iat"], &["nbf"], &["aud"], &["sub"]]);
        let (_, way) = path.split_last().unwrap();
        if !way.iter().fold(&changed, |object, name| &object[*name]).is_object() {
            continue;
        }
        let values = [
            None,
            Some(json!(null)),
            Some(json!("")),
            Some(json!("x")),
            Some(json!("istio-ca")),
            Some(json!([])),
            Some(json!(["x", "y"])),
            Some(json!({"x": 1})),
            Some(json!({"x5t#S256": base64url::encode(&[7; 32])})),
            Some(json!(true)),
            Some(json!(-1)),
            Some(json!(NOW)),
            Some(json!(NOW + 1000)),
        ];
        changed = with(&changed, path, random.pick(&values));
    }
    changed
}

fn terms(random: &mut Random, pack: PackKind, usual: &IssuerSpec) -> Issuer {
    let mut spec = usual.clone();
    if random.once_in(3) {
        match random.number() % 11 {
            0 => spec.valid_until = NOW - 1,
            1 => spec.retire_at = NOW,
            2 => spec.max_lifetime_s = 60,
            3 => spec.audiences = vec!["https://other.example".to_owned()],
            4 => spec.single_audience = true,
            5 => spec.require_cnf = true,
            6 => spec.types = vec!["at+jwt".to_owned()],
            7 => spec.algorithms = vec![Algorithm::Rs256],
            8 => spec.keys.clear(),
            9 => spec.skew_s = 0,
            _ => {
                let (kind, value) = random.pick(&[
                    (RevokedKind::Key, json!(KEY_ID)),
                    (RevokedKind::Subject, claims(pack)["sub"].clone()),
                ]);
                let value = value.as_str().unwrap().to_owned();
                spec.revoked = vec![Revoked { kind, value, until: random.pick(&[0, NOW, NOW + 1]) }];
            }
        }
    }
    spec.into()
}

fn text(random: &mut Random, pack: PackKind) -> String {
    let part = |value: Value| base64url::encode(value.to_string().as_bytes());
    let mut signature = [9; 64];
    signature[0] = random.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 3]);
    let length = random.pick(&[64, 64, 64, 64, 64, 64, 63, 0]);
    let signature = base64url::encode(&signature[..length]);
    let mut text = format!("{}.{}.{signature}", part(header(random)), part(changed(random, pack)));
    if random.once_in(12) {
        let at = usize::try_from(random.number() % u64::try_from(text.len()).unwrap()).unwrap();
        text = match random.number() % 4 {
            0 => text[..at].to_owned(),
            1 => format!("{}{}{}", &text[..at], random.pick(&["=", ".", "A", "é", " "]), &text[at..]),
            2 => format!("{text}="),
            _ => format!("{}{text}", random.pick(&["x", "eyJhbGciOi.", " "])),
        };
    }
    text
}

/// What verification says; `None`: this is no token at all.
fn verified(text: &[u8], issuer: &Issuer, at: At, connection: &Told) -> Option<Result<(), TokenFault>> {
    match token::read(text) {
        Reading::Opaque => None,
        Reading::Unattributable(fault) => Some(Err(fault)),
        Reading::Token(token) => Some(token.verify(issuer, at, connection).map(|_| ())),
    }
}

#[test]
fn an_explanation_comes_to_what_verification_says() {
    let mut random = Random(7);
    let (mut verdicts, mut failed, mut skipped) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let signer = Signer::new(7);
    let usual = PackKind::ALL.map(|pack| (pack, issuer(pack, &signer)));
    for _ in 0..6_000 {
        let (pack, usual) = random.pick(&usual);
        let issuer = terms(&mut random, pack, &usual);
        let of = if random.once_in(30) { random.pick(&PackKind::ALL) } else { pack };
        let text = text(&mut random, of);
        let now = NOW + random.pick(&[0, 0, 0, 0, 0, -500, 10_000]);
        let at = At { now, expiry_grace_s: random.pick(&[0, 0, 20_000]) };
        let connection = Told { certificate: random.pick(&[None, Some([7; 32]), Some([8; 32])]) };

        let expected = verified(text.as_bytes(), &issuer, at, &connection);
        let reports = explain(text.as_bytes(), &issuer, at, &connection);
        let outcome = (!reports.is_empty()).then(|| verdict(&reports));
        assert_eq!(outcome, expected, "{text} {reports:?}");

        let order: Vec<_> = reports.iter().map(|report| report.check).collect();
        let complete = if order.len() > 2 { Check::ALL.len() } else { order.len() };
        assert_eq!(order, Check::ALL[..complete], "each check once, in their order");
        for report in &reports {
            match report.finding {
                Finding::Holds => {}
                Finding::Fails(_) => *failed.entry(report.check).or_insert(0) += 1,
                Finding::NotChecked(basis) => {
                    let basis = reports.iter().find(|other| other.check == basis).unwrap();
                    assert_ne!(basis.finding, Finding::Holds, "{report:?}");
                    *skipped.entry(report.check).or_insert(0) += 1;
                }
            }
        }
        *verdicts.entry(format!("{expected:?}")).or_insert(0) += 1;
    }
    println!("{verdicts:#?}");
    // All checks were seen to fail, and to be left out those that rest on another.
    assert_eq!(failed.len(), Check::ALL.len(), "{failed:?}");
    let dependent = [
        Check::Algorithm,
        Check::Type,
        Check::Key,
        Check::Signature,
        Check::Revocation,
        Check::Lifetime,
        Check::Provider,
    ];
    assert_eq!(skipped.keys().copied().collect::<Vec<_>>(), dependent);
    assert!(verdicts["Some(Ok(()))"] > 300, "{verdicts:?}");
    assert!(verdicts.len() > 18, "{verdicts:?}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let signer = Signer::new(7);
    let mut spec = issuer(PackKind::Kubernetes, &signer);
    spec.audiences = vec!["https://other.example".to_owned()];
    let set = set(vec![spec]);
    let [issuer] = set.issuers() else { panic!("one issuer") };
    let token = Signer::new(8).token(&claims(PackKind::Kubernetes));
    let reports = explain(token.as_bytes(), issuer, At::now(NOW + 100_000), &crate::PureRust);
    let failed: Vec<_> =
        reports.iter().filter(|report| report.finding != Finding::Holds).map(|report| report.check).collect();
    let not_standing = [Check::Standing, Check::Signature, Check::Times, Check::Audience];
    assert_eq!(failed, not_standing[if issuer.valid_until() < NOW + 100_000 { 0 } else { 1 }..]);
    let reports = explain(
        signer.token(&claims(PackKind::Kubernetes)).as_bytes(),
        issuer,
        At::now(NOW),
        &crate::PureRust,
    );
    assert_eq!(verdict(&reports), Err(TokenFault::WrongAudience));
}

#[test]
fn what_is_no_token_is_not_explained() {
    let set = set(vec![issuer(PackKind::Generic, &Signer::new(7))]);
    let [issuer] = set.issuers() else { panic!("one issuer") };
    for text in ["", "ya29.a0AfB", "a.b.c", "opaque"] {
        assert_eq!(explain(text.as_bytes(), issuer, At::now(NOW), &crate::PureRust), [], "{text}");
    }
}

#[test]
fn what_is_wrong_with_claims_is_told_claim_by_claim() {
    let signer = Signer::new(7);
    let token = |claims: &Value| signer.token(claims).into_bytes();
    for pack in PackKind::ALL {
        let right = claims(pack);
        assert_eq!(wrong_claims(&token(&right), pack), [], "{pack:?}");
        let set = set(vec![issuer(pack, &signer)]);
        assert_eq!(owner(&token(&right), &set).map(Issuer::name), Some(pack.name()));
        let paths = [vec!["sub".to_owned()], vec!["@subject".to_owned()], vec!["nothing".to_owned()]];
        let read = slots(&token(&right), pack, &paths);
        assert_eq!(read[0], ClaimValue::String(right["sub"].as_str().unwrap().to_owned()));
        assert_eq!(read[2], ClaimValue::Absent);
        let wrong = with(&with(&right, &["aud"], None), &["exp"], Some(json!("soon")));
        let faults: Vec<_> =
            wrong_claims(&token(&wrong), pack).into_iter().map(|(spec, fault)| (spec.path, fault)).collect();
        assert_eq!(faults.len(), 2, "{pack:?} {faults:?}");
        assert!(faults.contains(&(&["aud"], TokenFault::ClaimMissing)), "{pack:?} {faults:?}");
        assert!(faults.contains(&(&["exp"], TokenFault::ClaimMalformed)), "{pack:?} {faults:?}");
    }
}
