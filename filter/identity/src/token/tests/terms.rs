//! What an issuer demands of its tokens beyond what its pack does, and what it takes back.

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{accepted, gate, gate_with, refused, refuses_claims};
use crate::issuer::{DEFAULT_SKEW_S, IssuerSetSpec, IssuerSpec, Revoked, RevokedKind};
use crate::keys::{Algorithm, Jwk, KeyUse, PublicKey};
use crate::testing::{AUDIENCE, Gate, KEY_ID, NOW, Signer, claims, generic, google, issuer, with};
use crate::{At, Connection, PackKind, PureRust, TokenOutcome, Verdict, VerifySignature, base64url, json};

/// A connection with this certificate.
struct Over(Option<[u8; 32]>);

impl VerifySignature for Over {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        PureRust.verify(algorithm, key, input, signature)
    }
}

impl Connection for Over {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.0
    }
}

fn over(gate: &mut Gate, token: &str, certificate: Option<[u8; 32]>) -> TokenOutcome {
    let bearer = format!("Bearer {token}");
    gate.over(&[("authorization", &bearer)], At::now(NOW), &Over(certificate)).remove(0)
}

/// A token without `typ` or with this one.
fn typed(signer: &Signer, kind: Option<&str>) -> String {
    let header = match kind {
        Some(kind) => json!({"alg": "ES256", "kid": KEY_ID, "typ": kind}),
        None => json!({"alg": "ES256", "kid": KEY_ID}),
    };
    signer.sign(&header.to_string(), &generic().to_string())
}

#[test]
fn row_32_accepts_only_the_types_that_the_issuer_states() {
    let (signer, mut gate) = gate_with(|spec| spec.types = vec!["at+jwt".to_owned()]);
    for kind in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        accepted(&gate.bearer(&typed(&signer, Some(kind))));
    }
    // RFC 9068 §4: "reject tokens carrying any other value", which a missing one is.
    for kind in [None, Some("JWT"), Some("at"), Some("application/application/at+jwt"), Some("jwt+at")] {
        refused(&gate.bearer(&typed(&signer, kind)), TokenFault::TypeRefused);
    }
    let (signer, mut gate) = gate_with(|spec| spec.types = vec!["application/jwt".to_owned()]);
    for kind in [None, Some("JWT"), Some("application/JWT")] {
        accepted(&gate.bearer(&typed(&signer, kind)));
    }
    refused(&gate.bearer(&typed(&signer, Some("at+jwt"))), TokenFault::TypeRefused);
}

#[test]
fn row_32_lets_no_issuer_state_a_type_that_is_not_a_credential() {
    let never = ["dpop+jwt", "wit+jwt", "wpt+jwt", "secevent+jwt", "application/logout+jwt", "txntoken+jwt"];
    for kind in never {
        let mut spec = issuer(PackKind::Generic, &Signer::new(7));
        spec.types = vec!["jwt".to_owned(), kind.to_owned()];
        let error = IssuerSetSpec::new(vec![spec]).encode().unwrap_err().to_string();
        assert!(error.starts_with("`issuers[0].types[1]`: tokens of this type are"), "{error}");
    }
}

#[test]
fn row_30_demands_one_audience_where_the_issuer_says_so() {
    let token = |signer: &Signer, aud: Value| signer.token(&with(&generic(), &["aud"], Some(aud)));
    let (signer, mut gate) = gate_with(|spec| spec.single_audience = true);
    accepted(&gate.bearer(&token(&signer, json!(AUDIENCE))));
    accepted(&gate.bearer(&token(&signer, json!([AUDIENCE]))));
    refused(&gate.bearer(&token(&signer, json!([AUDIENCE, "other"]))), TokenFault::SeveralAudiences);
    refused(&gate.bearer(&token(&signer, json!([AUDIENCE, AUDIENCE]))), TokenFault::SeveralAudiences);
    refused(&gate.bearer(&token(&signer, json!([AUDIENCE, "istio-ca"]))), TokenFault::MintedForAnotherParty);
    let (signer, mut gate) = gate_with(|spec| spec.single_audience = false);
    accepted(&gate.bearer(&token(&signer, json!([AUDIENCE, "other"]))));
}

#[test]
fn row_37_accepts_a_bound_token_only_over_a_connection_with_its_certificate() {
    let (signer, mut gate) = gate();
    let certificate = [0xa5; 32];
    let bound = |digest: &[u8]| {
        signer.token(&with(&generic(), &["cnf"], Some(json!({"x5t#S256": base64url::encode(digest)}))))
    };
    let token = bound(&certificate);
    // The first time, and from the cache.
    for cached in [0, 1, 1] {
        assert_eq!(gate.authenticator.cached(), cached);
        let mut other = certificate;
        other[31] ^= 1;
        refused(&over(&mut gate, &token, None), TokenFault::NotBound);
        refused(&over(&mut gate, &token, Some(other)), TokenFault::NotBound);
        refused(&over(&mut gate, &token, Some([0; 32])), TokenFault::NotBound);
        accepted(&over(&mut gate, &token, Some(certificate)));
    }
    // A token that is bound to nothing does not care.
    let free = signer.token(&generic());
    accepted(&over(&mut gate, &free, None));
    accepted(&over(&mut gate, &free, Some(certificate)));
    // Not 32 bytes.
    for wrong in [&certificate[..31], &[certificate.as_slice(), &[0]].concat(), &[]] {
        refused(&over(&mut gate, &bound(wrong), Some(certificate)), TokenFault::NotBound);
    }
}

#[test]
fn row_37_refuses_every_other_confirmation() {
    let digest = base64url::encode(&[0; 32]);
    let certificate = Some([0; 32]);
    let (signer, mut gate) = gate();
    let mut ask =
        |cnf: Value| over(&mut gate, &signer.token(&with(&generic(), &["cnf"], Some(cnf))), certificate);
    accepted(&ask(json!({"x5t#S256": digest})));
    for cnf in [
        json!({"x5t#S256": digest, "jkt": "x"}),
        json!({"jkt": "x", "x5t#S256": digest}),
        json!({"x5t#S256": format!("{digest}=")}),
        json!({"x5t#S256": [digest]}),
        json!({"x5t#S256": null}),
        json!({"x5t#S512": digest}),
        json!({"x5t": digest}),
        json!({"X5T#S256": digest}),
        json!({"jkt": digest}),
        json!({"jwk": {}}),
        json!({"kid": KEY_ID}),
        json!({}),
        json!([]),
        json!(null),
        json!(digest),
        json!(true),
    ] {
        assert_eq!(ask(cnf.clone()), TokenOutcome::Invalid(TokenFault::NotBound), "{cnf}");
    }
    // Without a certificate there is nothing that it could be bound to.
    refuses_claims(&[("cnf", Some(json!({"x5t#S256": digest})))], TokenFault::NotBound);
}

#[test]
fn row_37_demands_a_binding_where_the_issuer_says_so() {
    let (signer, mut gate) = gate_with(|spec| spec.require_cnf = true);
    let digest = base64url::encode(&[7; 32]);
    let bound = signer.token(&with(&generic(), &["cnf"], Some(json!({"x5t#S256": digest}))));
    accepted(&over(&mut gate, &bound, Some([7; 32])));
    let free = signer.token(&generic());
    refused(&over(&mut gate, &free, Some([7; 32])), TokenFault::NotBound);
    refused(&over(&mut gate, &free, None), TokenFault::NotBound);
}

fn revoked(kind: RevokedKind, value: &str, until: i64) -> Revoked {
    Revoked { kind, value: value.to_owned(), until }
}

#[test]
fn row_39_refuses_what_was_revoked_as_long_as_it_is() {
    let ask = |revocation: Option<Revoked>| {
        let (signer, mut gate) = gate_with(|spec| spec.revoked = revocation.into_iter().collect());
        // Twice: what is revoked does not get into the cache.
        gate.bearer(&signer.token(&generic()));
        gate.bearer(&signer.token(&generic()))
    };
    accepted(&ask(None));
    for (kind, value) in
        [(RevokedKind::Subject, "robot"), (RevokedKind::Token, "1"), (RevokedKind::Key, KEY_ID)]
    {
        // To the end of the tolerance with which a token of this `exp` is accepted.
        let skew = i64::from(DEFAULT_SKEW_S);
        for until in [0, NOW + 1, NOW, NOW + 1 - skew] {
            refused(&ask(Some(revoked(kind, value, until))), TokenFault::Revoked);
        }
        for until in [1, NOW - skew] {
            accepted(&ask(Some(revoked(kind, value, until))));
        }
        for other in ["other", "ROBOT", "robot ", "11"] {
            accepted(&ask(Some(revoked(kind, other, 0))));
        }
        // The value of another kind.
        for other in RevokedKind::ALL.into_iter().filter(|other| *other != kind) {
            accepted(&ask(Some(revoked(other, value, 0))));
        }
    }
    // A token without an id cannot be revoked by one; one without `kid` is by the key that signed it.
    for (kind, value, is_revoked) in [(RevokedKind::Token, "1", false), (RevokedKind::Key, KEY_ID, true)] {
        let (signer, mut gate) = gate_with(|spec| spec.revoked = vec![revoked(kind, value, 0)]);
        let bare = signer.sign(r#"{"alg":"ES256"}"#, &with(&generic(), &["jti"], None).to_string());
        match is_revoked {
            true => refused(&gate.bearer(&bare), TokenFault::Revoked),
            false => accepted(&gate.bearer(&bare)),
        }
    }
}

#[test]
fn row_44_says_that_a_token_is_revoked_only_where_its_signature_verifies() {
    let (_, mut gate) = gate_with(|spec| spec.revoked = vec![revoked(RevokedKind::Subject, "robot", 0)]);
    refused(&gate.bearer(&Signer::new(9).token(&generic())), TokenFault::BadSignature);
}

#[test]
fn refuses_tokens_of_an_issuer_that_retired() {
    let (signer, mut gate) = gate_with(|spec| spec.retire_at = NOW);
    let token = signer.token(&generic());
    // Verified in time, and from the cache.
    for _ in 0..2 {
        accepted(&gate.bearer_at(&token, NOW - 1));
        refused(&gate.bearer_at(&token, NOW), TokenFault::IssuerRetired);
        refused(&gate.bearer_at(&token, NOW + 100_000_000), TokenFault::IssuerRetired);
    }
    let (signer, mut gate) = gate_with(|spec| spec.retire_at = 0);
    accepted(&gate.bearer(&signer.token(&generic())));
}

#[test]
fn accepts_any_of_an_issuers_names() {
    let names = ["https://a.example", "https://b.example/"];
    let (signer, mut gate) = gate_with(|spec| spec.iss = names.map(str::to_owned).to_vec());
    let token = |iss: &str| signer.token(&with(&generic(), &["iss"], Some(json!(iss))));
    for name in names {
        accepted(&gate.bearer(&token(name)));
    }
    for other in ["https://a.example/", "https://b.example", "https://issuer.example.com"] {
        assert_eq!(gate.bearer(&token(other)), TokenOutcome::Absent);
    }
}

#[test]
fn verifies_with_a_key_of_one_issuer_only_that_issuers_tokens() {
    let signer = Signer::new(7);
    let key = |signer: &Signer, issuer: &str| {
        let mut key = serde_json::to_value(signer.jwk(Some(KEY_ID))).unwrap();
        key["issuer"] = json!(issuer);
        Jwk::from_json(&json::parse(&key.to_string(), json::Limits::KEYS).unwrap(), KeyUse::Sig).unwrap()
    };
    let spec = IssuerSpec {
        iss: vec!["https://a.example".to_owned(), "https://b.example".to_owned()],
        keys: vec![key(&signer, "https://a.example"), key(&Signer::new(8), "https://b.example")],
        ..issuer(PackKind::Generic, &signer)
    };
    let mut gate = Gate::new(vec![spec]);
    let named = |iss: &str| with(&generic(), &["iss"], Some(json!(iss)));
    accepted(&gate.bearer(&signer.token(&named("https://a.example"))));
    accepted(&gate.bearer(&Signer::new(8).token(&named("https://b.example"))));
    refused(&gate.bearer(&signer.token(&named("https://b.example"))), TokenFault::BadSignature);
    refused(&gate.bearer(&Signer::new(8).token(&named("https://a.example"))), TokenFault::BadSignature);

    // A key for somebody whom nobody accepts is no key.
    let spec =
        IssuerSpec { keys: vec![key(&signer, "https://c.example")], ..issuer(PackKind::Generic, &signer) };
    refused(&Gate::new(vec![spec]).bearer(&signer.token(&generic())), TokenFault::KeyUnknown);
}

#[test]
fn verifies_with_a_key_of_a_tenant_only_that_tenants_tokens() {
    let signer = Signer::new(7);
    let ask = |key_issuer: &str| {
        let mut key = serde_json::to_value(signer.jwk(Some(KEY_ID))).unwrap();
        key["issuer"] = json!(key_issuer);
        let key = Jwk::from_json(&json::parse(&key.to_string(), json::Limits::KEYS).unwrap(), KeyUse::Sig);
        let spec = IssuerSpec { keys: vec![key.unwrap()], ..issuer(PackKind::Entra, &signer) };
        // Through the section: the member has to survive that.
        Gate::new(vec![spec]).bearer(&signer.token(&claims(PackKind::Entra)))
    };
    accepted(&ask("https://login.microsoftonline.com/{tenantid}/v2.0"));
    accepted(&ask("https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0"));
    // That of personal accounts signs for nobody else.
    for other in [
        "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        "https://login.partner.microsoftonline.cn/{tenantid}/v2.0",
        "https://login.microsoftonline.com/{tenantid}/v2.0/",
        "{tenantid}",
    ] {
        assert_eq!(ask(other), TokenOutcome::Invalid(TokenFault::KeyUnknown), "{other}");
    }
}

#[test]
fn row_39_revokes_a_token_by_the_id_that_its_issuer_gives() {
    let signer = Signer::new(7);
    let ask = |id: &str| {
        let revoked = vec![revoked(RevokedKind::Token, id, 0)];
        let spec = IssuerSpec { revoked, ..issuer(PackKind::Entra, &signer) };
        Gate::new(vec![spec]).bearer(&signer.token(&with(
            &claims(PackKind::Entra),
            &["jti"],
            Some(json!("other")),
        )))
    };
    refused(&ask("synthetic"), TokenFault::Revoked);
    accepted(&ask("other"));
}

/// Answers as told.
struct Always(Verdict);

impl VerifySignature for Always {
    fn verify(&self, _: Algorithm, _: &PublicKey, _: &[u8], _: &[u8]) -> Verdict {
        self.0
    }
}

impl Connection for Always {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

#[test]
fn tells_why_a_signature_was_not_checked() {
    let (signer, mut gate) = gate();
    let bearer = format!("Bearer {}", signer.token(&generic()));
    let mut ask = |verdict| {
        let outcome = gate.over(&[("authorization", &bearer)], At::now(NOW), &Always(verdict)).remove(0);
        (outcome, gate.authenticator.cached())
    };
    let invalid = |fault| (TokenOutcome::Invalid(fault), 0);
    assert_eq!(ask(Verdict::Invalid), invalid(TokenFault::BadSignature));
    assert_eq!(ask(Verdict::Unsupported), invalid(TokenFault::AlgorithmUnsupported));
    assert_eq!(ask(Verdict::OverBudget), invalid(TokenFault::CheckBudget));
    let (outcome, cached) = ask(Verdict::Valid);
    accepted(&outcome);
    assert_eq!(cached, 1);
    // What was verified before takes nothing from the budget.
    accepted(&ask(Verdict::OverBudget).0);
}

#[test]
fn a_google_token_cannot_be_revoked_by_an_id_that_it_has_not() {
    let signer = Signer::new(7);
    let subject = "100000000000000000001";
    let with_revocation =
        |kind| IssuerSpec { revoked: vec![revoked(kind, subject, 0)], ..issuer(PackKind::Google, &signer) };
    accepted(&Gate::new(vec![with_revocation(RevokedKind::Token)]).bearer(&signer.token(&google())));
    refused(
        &Gate::new(vec![with_revocation(RevokedKind::Subject)]).bearer(&signer.token(&google())),
        TokenFault::Revoked,
    );
}

#[test]
fn row_39_revokes_a_key_by_the_id_that_the_set_gives_it() {
    // Whoever holds the key also chooses what the header says.
    for header in [r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","kid":"key-1"}"#] {
        let ask = |id: &str| {
            let (signer, mut gate) = gate_with(|spec| spec.revoked = vec![revoked(RevokedKind::Key, id, 0)]);
            gate.bearer(&signer.sign(header, &generic().to_string()))
        };
        refused(&ask(KEY_ID), TokenFault::Revoked);
        accepted(&ask("key-2"));
    }
    // A key without id has none by which it could be revoked.
    let (signer, mut gate) = gate_with(|spec| {
        spec.keys = vec![Signer::new(7).jwk(None)];
        spec.revoked = vec![revoked(RevokedKind::Key, KEY_ID, 0)];
    });
    accepted(&gate.bearer(&signer.with_header(&json!({"alg": "ES256"}))));
}

#[test]
fn row_39_revokes_until_the_token_itself_has_ended() {
    let expires = 1_795_203_600;
    let ask = |until: i64, now: i64, expiry_grace_s: u32| {
        let (signer, mut gate) = gate_with(|spec| {
            spec.valid_until = i64::MAX;
            spec.revoked = vec![revoked(RevokedKind::Token, "1", until)];
        });
        let bearer = format!("Bearer {}", signer.token(&generic()));
        gate.over(&[("authorization", &bearer)], At { now, expiry_grace_s }, &PureRust).remove(0)
    };
    for (now, grace) in [(expires, 0), (expires + 29, 0), (expires + 30, 60), (expires + 89, 60)] {
        refused(&ask(expires, now, grace), TokenFault::Revoked);
        refused(&ask(i64::MAX, now, grace), TokenFault::Revoked);
        // It would be accepted otherwise.
        accepted(&ask(1, now, grace));
    }
    // The token ends with the revocation, not later.
    refused(&ask(expires, expires + 30, 0), TokenFault::Expired);
    refused(&ask(expires, expires + 90, 60), TokenFault::Expired);
}
