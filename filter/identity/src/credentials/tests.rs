use serde_json::json;
use tidegate_engine::TokenFault;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Hidden, Scheme, hidden};
use crate::issuer::{IssuerSpec, TokenHeader};
use crate::testing::{Gate, NOW, Signer, generic, google, issuer, with};
use crate::{PackKind, TokenOutcome};

const SEVERAL: TokenOutcome = TokenOutcome::Invalid(TokenFault::SeveralTokens);
const MALFORMED: TokenOutcome = TokenOutcome::Invalid(TokenFault::Malformed);

fn gate() -> (String, Gate) {
    let signer = Signer::new(7);
    (signer.token(&generic()), Gate::new(vec![issuer(PackKind::Generic, &signer)]))
}

#[track_caller]
fn accepted(outcome: &TokenOutcome) {
    assert!(matches!(outcome, TokenOutcome::Verified(_)), "{outcome:?}");
}

#[test]
fn row_33_refuses_several_tokens() {
    let (token, mut gate) = gate();
    let bearer = format!("Bearer {token}");
    accepted(&gate.headers(&[("authorization", &bearer), ("x-other", "1")], NOW));
    for headers in [
        vec![("authorization", bearer.as_str()), ("authorization", &bearer)],
        vec![("authorization", &bearer), ("Authorization", "")],
        vec![("authorization", "Basic eDp5"), ("authorization", &bearer)],
        vec![("authorization", "Bearer opaque"), ("authorization", "Bearer opaque")],
        vec![("authorization", &format!("{bearer}, {bearer}"))],
        vec![("authorization", &format!("{bearer},{bearer}"))],
        vec![("authorization", &format!("{bearer},"))],
        vec![("authorization", &format!("Basic eDp5, {bearer}"))],
        vec![("authorization", &format!("Bearer opaque, {bearer}"))],
        vec![("authorization", &format!("{bearer} {token}"))],
        vec![("authorization", &format!("{bearer};{token}"))],
        vec![("authorization", &format!("Bearer {token}={token}"))],
    ] {
        let outcome = gate.headers(&headers, NOW);
        let one_text = headers.len() == 1 && headers[0].1.contains('=');
        assert_eq!(outcome, if one_text { MALFORMED } else { SEVERAL }, "{headers:?}");
    }
}

#[test]
fn row_33_refuses_one_issuers_tokens_in_two_headers() {
    let signer = Signer::new(7);
    let mut spec = issuer(PackKind::Generic, &signer);
    spec.headers.push(TokenHeader { name: "x-token".to_owned(), prefix: None });
    let mut gate = Gate::new(vec![spec]);
    let token = signer.token(&generic());
    let bearer = format!("Bearer {token}");
    accepted(&gate.headers(&[("authorization", &bearer)], NOW));
    accepted(&gate.headers(&[("x-token", &token)], NOW));
    accepted(&gate.headers(&[("x-token", &token), ("authorization", "Bearer ya29.opaque")], NOW));
    assert_eq!(gate.headers(&[("x-token", &token), ("authorization", &bearer)], NOW), SEVERAL);
    // A broken second one counts.
    let broken = format!("{bearer}=");
    assert_eq!(gate.headers(&[("x-token", &token), ("authorization", &broken)], NOW), SEVERAL);
}

#[test]
fn row_34_reads_the_scheme_without_case_and_one_space() {
    let (token, mut gate) = gate();
    for good in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        accepted(&gate.headers(&[("authorization", &format!("{good} {token}"))], NOW));
    }
    accepted(&gate.headers(&[("Authorization", &format!("Bearer {token}"))], NOW));
    for bad in [
        format!("Bearer  {token}"),
        format!("Bearer\t{token}"),
        format!(" Bearer {token}"),
        format!("Bearer {token} "),
        format!("Bearer {token}\t"),
        format!("Bearer {token}\0"),
        format!("Bearer \"{token}\""),
        format!("Bearer:{token}"),
        format!("Bearer={token}"),
        format!("Bearer Bearer {token}"),
        format!("JWT {token}"),
        format!("DPoP {token}"),
        format!("Bearer token={token}"),
        token.clone(),
    ] {
        assert_eq!(gate.headers(&[("authorization", &bad)], NOW), MALFORMED, "{bad:?}");
    }
}

#[test]
fn takes_other_credentials_for_absent() {
    let (token, mut gate) = gate();
    for value in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer ya29.a0AfH6SMBx-opaque_token.with.dots",
        "Bearer garbage.garbage.garbage",
        "Bearer v2.local.e30.e30",
        "Basic dXNlcjpwYXNzd29yZA==",
        "Digest username=\"x\", response=\"y.z\"",
        "Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gJDAi",
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu/s3/aws4_request, SignedHeaders=host, Signature=00",
    ] {
        assert_eq!(gate.headers(&[("authorization", value)], NOW), TokenOutcome::Absent, "{value:?}");
    }
    // A token of somebody nobody configured, in whatever form.
    let foreign = Signer::new(9).token(&with(&generic(), &["iss"], Some(json!("https://other.example.com"))));
    for value in [format!("Bearer {foreign}"), format!("DPoP {foreign}"), format!("Bearer  {foreign}")] {
        assert_eq!(gate.headers(&[("authorization", &value)], NOW), TokenOutcome::Absent, "{value:?}");
    }
    // In a header that nobody reads.
    assert_eq!(gate.headers(&[("x-authorization", &format!("Bearer {token}"))], NOW), TokenOutcome::Absent);
    assert_eq!(gate.headers(&[("cookie", &format!("t={token}"))], NOW), TokenOutcome::Absent);
    assert_eq!(gate.headers(&[], NOW), TokenOutcome::Absent);
}

#[test]
fn reads_an_issuer_only_in_its_own_headers() {
    let signer = Signer::new(7);
    let own = IssuerSpec {
        headers: vec![TokenHeader { name: "x-ci-token".to_owned(), prefix: None }],
        ..issuer(PackKind::Generic, &signer)
    };
    let google_issuer = issuer(PackKind::Google, &signer);
    let mut gate = Gate::new(vec![own, google_issuer]);
    let (ours, theirs) = (signer.token(&generic()), signer.token(&google()));
    let both = gate.all(&[("x-ci-token", &ours), ("authorization", &format!("Bearer {theirs}"))], NOW);
    both.iter().for_each(accepted);
    // Swapped: also where both are cached by now.
    let swapped = gate.all(&[("x-ci-token", &theirs), ("authorization", &format!("Bearer {ours}"))], NOW);
    assert_eq!(swapped, [TokenOutcome::Absent, TokenOutcome::Absent]);
    // `Bearer` does not belong there.
    let prefixed = gate.all(&[("x-ci-token", &format!("Bearer {ours}"))], NOW);
    assert_eq!(prefixed, [MALFORMED, TokenOutcome::Absent]);
}

#[test]
fn reads_several_schemes_in_one_header() {
    let signer = Signer::new(7);
    let scheme =
        |prefix: &str| TokenHeader { name: "authorization".to_owned(), prefix: Some(prefix.to_owned()) };
    let ci = IssuerSpec { headers: vec![scheme("Job")], ..issuer(PackKind::Generic, &signer) };
    let mut gate = Gate::new(vec![ci, issuer(PackKind::Google, &signer)]);
    let (ours, theirs) = (signer.token(&generic()), signer.token(&google()));
    accepted(&gate.all(&[("authorization", &format!("Job {ours}"))], NOW)[0]);
    accepted(&gate.all(&[("authorization", &format!("bearer {theirs}"))], NOW)[1]);
    let wrong = gate.all(
        &[("authorization", &format!("Bearer {}", signer.token(&with(&generic(), &["jti"], None))))],
        NOW,
    );
    assert_eq!(wrong, [MALFORMED, TokenOutcome::Absent]);
}

#[test]
fn a_fault_that_is_nobodys_is_everybodys() {
    let signer = Signer::new(7);
    let elsewhere = IssuerSpec {
        name: "elsewhere".to_owned(),
        iss: vec!["https://elsewhere.example.com".to_owned()],
        headers: vec![TokenHeader { name: "x-token".to_owned(), prefix: None }],
        ..issuer(PackKind::Generic, &signer)
    };
    let mut gate =
        Gate::new(vec![issuer(PackKind::Generic, &signer), issuer(PackKind::Google, &signer), elsewhere]);
    let outcomes = gate.all(&[("authorization", "Bearer eyJhbGciOiJFUzI1NiJ9.bm90IGpzb24.AAAA")], NOW);
    assert_eq!(outcomes, [MALFORMED, MALFORMED, TokenOutcome::Absent]);
}

#[test]
fn finds_what_looks_like_a_jwt_wherever_it_hides() {
    let jwt = "eyJhIjoxfQ.e30.AA";
    let schemes = [Scheme { prefix: Some("DPoP".to_owned()), issuers: Vec::new() }];
    let hidden = |value: &'static str| hidden(value.as_bytes(), &schemes);
    assert_eq!(hidden(jwt), Hidden::One(jwt.as_bytes()));
    assert_eq!(hidden("x eyJhIjoxfQ.e30.AA y"), Hidden::One(jwt.as_bytes()));
    assert_eq!(hidden("eyJhIjoxfQ.e30.AA, x"), Hidden::Several);
    assert_eq!(hidden("eyJhIjoxfQ.e30.AA eyJhIjoxfQ.e30.AA"), Hidden::Several);
    // White space before the brace, the other alphabet, padding.
    for odd in ["ICB7fQ.e30.AA", "CnsifiI6MX0=.e30.AA", "eyJ+Ijp9.e30.AA", "77u/e30.e30.AA", "eyJ9%3D.e30.AA"]
    {
        assert_eq!(hidden(odd), Hidden::One(odd.as_bytes()), "{odd}");
    }
    // Attached to a scheme, or by a character that tokens have.
    for attached in [
        "BearereyJhIjoxfQ.e30.AA",
        "beareReyJhIjoxfQ.e30.AA",
        "dpopeyJhIjoxfQ.e30.AA",
        "Bearer-eyJhIjoxfQ.e30.AA",
        "Bearer_eyJhIjoxfQ.e30.AA",
        "Bearer%20eyJhIjoxfQ.e30.AA",
        "Bearer /eyJhIjoxfQ.e30.AA",
        "x.eyJhIjoxfQ.e30.AA",
    ] {
        assert_eq!(hidden(attached), Hidden::One(jwt.as_bytes()), "{attached}");
    }
    for none in
        ["", "eyJhIjoxfQ", "W10.e30.AA", "a.eyJhIjoxfQ.b", "ya29.x.y", ".", "...", "xeyJhIjoxfQ.e30.AA"]
    {
        assert_eq!(hidden(none), Hidden::Nothing, "{none}");
    }
}

#[test]
fn withholds_tokens_that_are_not_to_be_forwarded() {
    let signer = Signer::new(7);
    let hidden = IssuerSpec {
        forward: false,
        headers: vec![TokenHeader { name: "x-ci-token".to_owned(), prefix: None }],
        ..issuer(PackKind::Generic, &signer)
    };
    let mut gate = Gate::new(vec![hidden.clone(), issuer(PackKind::Google, &signer)]);
    let token = signer.token(&generic());
    let bearer = format!("Bearer {}", signer.token(&google()));
    let withheld = |gate: &Gate| gate.authenticator.withheld_headers().map(str::to_owned).collect::<Vec<_>>();
    gate.all(&[("x-ci-token", &token), ("authorization", &bearer)], NOW);
    assert_eq!(withheld(&gate), ["x-ci-token"]);
    gate.all(&[("x-ci-token", "opaque")], NOW);
    assert_eq!(withheld(&gate), ["x-ci-token"]);
    gate.all(&[("authorization", &bearer)], NOW);
    assert_eq!(withheld(&gate), [""; 0]);

    // A header that is shared: only the token of the one that is not to be forwarded.
    let shared = IssuerSpec { headers: vec![TokenHeader::authorization_bearer()], ..hidden };
    let mut gate = Gate::new(vec![shared, issuer(PackKind::Google, &signer)]);
    gate.all(&[("authorization", &bearer)], NOW);
    assert_eq!(withheld(&gate), [""; 0]);
    for _ in 0..2 {
        gate.all(&[("authorization", &format!("Bearer {token}"))], NOW);
        assert_eq!(withheld(&gate), ["authorization"]);
    }
    gate.all(&[("authorization", "Bearer opaque")], NOW);
    assert_eq!(withheld(&gate), [""; 0]);
}

#[test]
fn row_34_finds_tokens_that_are_attached_to_their_scheme() {
    let (token, mut gate) = gate();
    for before in
        ["Bearer", "bearer", "Bearer-", "Bearer_", "Bearer.", "Bearer/", "Bearer%20", "Bearer .", "x."]
    {
        let value = format!("{before}{token}");
        assert_eq!(gate.headers(&[("authorization", &value)], NOW), MALFORMED, "{before}");
    }
    // Within a word, and what cannot be signed.
    let unsigned = token.rsplit_once('.').unwrap().0;
    for value in [format!("x{token}"), format!("Bearer{unsigned}"), format!("x-{unsigned}")] {
        assert_eq!(gate.headers(&[("authorization", &value)], NOW), TokenOutcome::Absent, "{value}");
    }
    // No part of a token that stands apart is another one.
    let encrypted = "eyJlbmMiOiJ4In0.e30.x-eyJ.AA.AA";
    assert_eq!(hidden(encrypted.as_bytes(), &[]), Hidden::One(encrypted.as_bytes()));
    let listed = format!("x-{token}, y");
    assert_eq!(gate.headers(&[("authorization", &listed)], NOW), SEVERAL);
}
