//! Rows about claims behind a good signature.

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
use tidegate_identity::issuer::{Revoked, RevokedKind};
use tidegate_identity::{Algorithm, jose};

use crate::support::{KEYS, encode};
use crate::{
    AUDIENCE, CERTIFICATE, Case, NOW, claims, claims_with, good, header, refused, twin, with_claims,
    with_header,
};

pub(crate) fn cases() -> Vec<Case> {
    [json_rows(), texts(), sizes(), times(), audiences(), kinds(), bindings(), oracle()]
        .into_iter()
        .flatten()
        .collect()
}

/// A token with these claims in place of its own.
fn changed(changes: Value) -> String {
    with_claims(&claims_with(changes))
}

/// The claims, and this text before the last brace.
fn and(members: &str) -> String {
    let claims = claims().to_string();
    format!("{},{members}}}", claims.strip_suffix('}').unwrap())
}

/// The claims with this text for a number.
fn number(name: &str, text: &str) -> String {
    let claims = claims_with(json!({name: "@"}));
    with_claims(&claims.replace("\"@\"", text))
}

fn json_rows() -> Vec<Case> {
    let mut cases =
        vec![twin(19, with_claims(&and(r#""a":{"b":1,"c":{"b":2}}"#))), twin(20, good(Algorithm::Es256))];
    for twice in [
        r#""sub":"root""#,
        r#""sub":"robot""#,
        r#""\u0073ub":"root""#,
        r#""s\u0075\u0062":"root""#,
        r#""exp":99999999999"#,
        r#""a":1,"a":1"#,
        r#""a":{"b":[{"c":1,"c":2}]}"#,
        r#""iss":"https://other.example.com""#,
    ] {
        cases.push(refused(19, "a claim twice", with_claims(&and(twice)), TokenFault::Malformed));
    }
    for twice in [
        r#"{"alg":"ES256","alg":"ES256","kid":"P-256"}"#,
        r#"{"alg":"none","alg":"ES256","kid":"P-256"}"#,
        r#"{"alg":"ES256","kid":"P-256","\u0061lg":"none"}"#,
        r#"{"alg":"ES256","kid":"rsa","kid":"P-256"}"#,
    ] {
        cases.push(refused(19, "a header member twice", with_header(twice), TokenFault::Malformed));
    }
    let later = NOW + 500;
    for text in [
        format!("{later}.0"),
        format!("{later}.5"),
        format!("{later}e0"),
        "1.7952006e9".to_owned(),
        "9007199254740992".to_owned(),
        "18446744073709551616".to_owned(),
        "1e400".to_owned(),
        "-1".to_owned(),
        "-0".to_owned(),
    ] {
        cases.push(refused(20, "a number that is no date", number("exp", &text), TokenFault::ClaimMalformed));
        cases.push(refused(20, "a number that is no date", number("nbf", &text), TokenFault::ClaimMalformed));
    }
    for text in ["01", "+1", "0x10", "1.", ".5", "1e", "NaN", "Infinity", "--1", "1 2"] {
        cases.push(refused(20, "no number", number("exp", text), TokenFault::Malformed));
    }
    cases.push(twin(21, good(Algorithm::Es256)));
    for (name, wrong) in [
        ("exp", json!(later.to_string())),
        ("exp", json!([later])),
        ("exp", json!({})),
        ("exp", json!(true)),
        ("nbf", json!("0")),
        ("iat", json!([])),
        ("sub", json!(["robot"])),
        ("sub", json!(5)),
        ("sub", json!({})),
        ("sub", json!(true)),
        ("sub", json!("")),
        ("aud", json!({"a": AUDIENCE})),
        ("aud", json!(5)),
        ("aud", json!([AUDIENCE, 5])),
        ("aud", json!([[AUDIENCE]])),
        ("aud", json!([])),
        ("jti", json!(7)),
        ("iss", json!(5)),
    ] {
        cases.push(refused(21, "another type", changed(json!({name: wrong})), TokenFault::ClaimMalformed));
    }
    for name in ["exp", "nbf", "iat", "sub", "aud", "jti", "iss"] {
        cases.push(refused(21, "null", number(name, "null"), TokenFault::ClaimMalformed));
    }
    for text in [
        "[]",
        "null",
        "\"x\"",
        "{",
        "{}{}",
        "{} x",
        "\u{feff}{}",
        "",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":\"\\ud800\"}",
    ] {
        cases.push(refused(21, "claims that are no object", with_claims(text), TokenFault::Malformed));
    }
    let latin =
        [header(Algorithm::Es256).to_string().as_bytes(), b"{\"sub\":\"\xe4\"}"].map(encode).join(".");
    let signature = encode(&KEYS.sign(Algorithm::Es256, latin.as_bytes()));
    cases.push(refused(21, "no UTF-8", format!("{latin}.{signature}"), TokenFault::Malformed));
    cases
}

fn texts() -> Vec<Case> {
    let mut cases =
        vec![twin(23, changed(json!({"sub": "r\u{f6}bot \u{1f600}"}))), twin(24, good(Algorithm::Es256))];
    for hidden in [
        "a\u{0}",
        "a\nb",
        "a\r\nX: 1",
        "\u{1b}[31m",
        "a\u{7f}",
        "a\u{85}",
        "a\u{200b}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "a\u{feff}",
        "a\u{ad}b",
        "a\u{2028}b",
        "a\u{e0041}",
    ] {
        let token = changed(json!({"sub": hidden}));
        cases.push(refused(23, "characters that nobody sees", token, TokenFault::ClaimMalformed));
    }
    for like in [
        "https://Ledger.svc.example.com",
        "https://ledger.svc.example.com/",
        "https://l\u{435}dger.svc.example.com",
        "https://ledger.svc.e\u{301}xample.com",
        "https://ledger.svc.example.com.",
        "ledger.svc.example.com",
        "https://ledger.svc.example.c\u{6f}m ",
    ] {
        let token = changed(json!({"aud": like}));
        cases.push(refused(24, "an audience that looks like it", token, TokenFault::WrongAudience));
    }
    cases
}

fn sizes() -> Vec<Case> {
    let nested =
        |depth: usize| with_claims(&and(&format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth))));
    let members = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
        with_claims(&and(&members.join(",")))
    };
    let long = |length: usize| changed(json!({"x": "x".repeat(length)}));
    vec![
        twin(25, nested(15)),
        refused(25, "too deep", nested(16), TokenFault::TooLarge),
        refused(25, "far too deep", nested(5000), TokenFault::TooLarge),
        twin(25, members(249)),
        refused(25, "too many members", members(250), TokenFault::TooLarge),
        twin(25, with_claims(&and(&format!("\"x\":[{}1]", "1,".repeat(1023))))),
        refused(
            25,
            "too many elements",
            with_claims(&and(&format!("\"x\":[{}1]", "1,".repeat(1024)))),
            TokenFault::TooLarge,
        ),
        twin(25, long(8000)),
        refused(25, "too long", long(jose::MAX_TOKEN_BYTES), TokenFault::TooLarge),
        refused(25, "far too long", long(1 << 20), TokenFault::TooLarge),
        refused(25, "nothing but dots", format!("eyJ9{}", ".".repeat(10_000)), TokenFault::Malformed),
    ]
}

fn times() -> Vec<Case> {
    let dates = |iat: i64, nbf: i64, exp: i64| changed(json!({"iat": iat, "nbf": nbf, "exp": exp}));
    let skew = 30;
    let now = || dates(NOW, NOW, NOW + 300);
    vec![
        twin(26, good(Algorithm::Es256)),
        refused(26, "no end", changed(json!({"exp": null})), TokenFault::ClaimMissing),
        twin(27, dates(NOW, NOW, NOW + 3600)),
        twin(27, changed(json!({"iat": null}))),
        twin(27, changed(json!({"nbf": null}))),
        refused(27, "no beginning", changed(json!({"iat": null, "nbf": null})), TokenFault::ClaimMissing),
        refused(27, "too long", dates(NOW, NOW, NOW + 3631), TokenFault::LifetimeTooLong),
        refused(27, "ten years", dates(NOW, NOW, NOW + 315_360_000), TokenFault::LifetimeTooLong),
        refused(27, "since ever", dates(0, 0, NOW + 10), TokenFault::LifetimeTooLong),
        refused(27, "until the last date", dates(NOW, NOW, (1 << 53) - 1), TokenFault::LifetimeTooLong),
        // `nbf` must not hide when it was issued.
        refused(27, "issued long ago", dates(NOW - 10_000, NOW, NOW + 10), TokenFault::LifetimeTooLong),
        refused(28, "nbf - skew - 1", now(), TokenFault::NotYetValid).at(NOW - skew - 1),
        twin(28, now()).at(NOW - skew),
        twin(28, now()).at(NOW + 300 + skew - 1),
        refused(28, "exp + skew", now(), TokenFault::Expired).at(NOW + 300 + skew),
        refused(28, "exp + skew + 1", now(), TokenFault::Expired).at(NOW + 300 + skew + 1),
        refused(28, "issued later", dates(NOW + skew + 1, NOW, NOW + 300), TokenFault::NotYetValid),
        refused(28, "begins later", dates(NOW, NOW + skew + 1, NOW + 300), TokenFault::NotYetValid),
        refused(28, "ends before it begins", dates(NOW, NOW + 20, NOW + 10), TokenFault::ClaimsContradict),
        refused(28, "a clock before all", now(), TokenFault::NotYetValid).at(i64::MIN),
        refused(28, "a clock after all", now(), TokenFault::KeysStale).at(i64::MAX),
        twin(38, now()).at(NOW + 299),
        refused(38, "replayed after its end", now(), TokenFault::Expired).at(NOW + 40_000),
    ]
}

fn audiences() -> Vec<Case> {
    let aud = |value: Value| changed(json!({"aud": value}));
    let wrong = |attack, value| refused(30, attack, aud(value), TokenFault::WrongAudience);
    let mut cases = vec![
        twin(30, aud(json!([AUDIENCE]))),
        twin(30, aud(json!(["other", AUDIENCE]))),
        refused(30, "none", changed(json!({"aud": null})), TokenFault::ClaimMissing),
        refused(30, "empty", aud(json!("")), TokenFault::ClaimMalformed),
        refused(30, "an empty one", aud(json!([AUDIENCE, ""])), TokenFault::ClaimMalformed),
        wrong("another", json!("other")),
        wrong("others", json!(["other", "another"])),
        wrong("part", json!(AUDIENCE[..AUDIENCE.len() - 1])),
        wrong("more", json!(format!("{AUDIENCE}.evil.example"))),
        wrong("a list in a string", json!(format!("other {AUDIENCE}"))),
        wrong("a list in a string", json!(format!("{AUDIENCE},other"))),
        wrong("a pattern", json!("*")),
        refused(30, "several", aud(json!([AUDIENCE, "other"])), TokenFault::SeveralAudiences)
            .with(|spec| spec.single_audience = true),
        twin(30, aud(json!([AUDIENCE]))).with(|spec| spec.single_audience = true),
        twin(31, good(Algorithm::Es256)),
    ];
    let pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
    let wif = format!("https:{pool}");
    for party in
        ["sts.amazonaws.com", "istio-ca", "api://AzureADTokenExchange", "p.svc.id.goog", pool, wif.as_str()]
    {
        for value in [json!(party), json!([AUDIENCE, party]), json!([party, AUDIENCE])] {
            cases.push(refused(
                31,
                "minted for another party",
                aud(value),
                TokenFault::MintedForAnotherParty,
            ));
        }
    }
    cases
}

fn kinds() -> Vec<Case> {
    let typed = |kind: Value| {
        let mut header = header(Algorithm::Es256);
        header["typ"] = kind;
        with_header(&header.to_string())
    };
    let mut cases = vec![
        twin(32, with_header(r#"{"alg":"ES256","kid":"P-256"}"#)),
        twin(32, typed(json!("jwt"))),
        twin(32, typed(json!("application/JWT"))),
        twin(32, typed(json!("at+jwt"))).with(|spec| spec.types = vec!["at+jwt".to_owned()]),
        // An ID token where access tokens are demanded.
        refused(32, "an ID token", typed(json!("JWT")), TokenFault::TypeRefused)
            .with(|spec| spec.types = vec!["at+jwt".to_owned()]),
        refused(32, "no type", with_header(r#"{"alg":"ES256","kid":"P-256"}"#), TokenFault::TypeRefused)
            .with(|spec| spec.types = vec!["at+jwt".to_owned()]),
    ];
    for kind in [
        "at+jwt",
        "dpop+jwt",
        "wit+jwt",
        "wpt+jwt",
        "txntoken+jwt",
        "secevent+jwt",
        "logout+jwt",
        "kb+jwt",
        "JOSE",
        "JOSE+JSON",
        "JWT ",
        "",
    ] {
        cases.push(refused(32, "another type of token", typed(json!(kind)), TokenFault::TypeRefused));
    }
    for kind in [json!(1), json!(null), json!(["JWT"])] {
        cases.push(refused(32, "a type that is no text", typed(kind), TokenFault::Malformed));
    }
    cases
}

fn bindings() -> Vec<Case> {
    let digest = encode(&CERTIFICATE);
    let bound = || changed(json!({"cnf": {"x5t#S256": digest}}));
    let revoked = |kind, value: &str, until| {
        let revoked = Revoked { kind, value: value.to_owned(), until };
        move |spec: &mut tidegate_identity::IssuerSpec| spec.revoked = vec![revoked]
    };
    let taken_back = |attack| refused(39, attack, good(Algorithm::Es256), TokenFault::Revoked);
    let mut cases = vec![
        twin(37, bound()).over(CERTIFICATE),
        refused(37, "without the certificate", bound(), TokenFault::NotBound),
        refused(37, "with another certificate", bound(), TokenFault::NotBound).over([0xc4; 32]),
        refused(37, "unbound", good(Algorithm::Es256), TokenFault::NotBound)
            .over(CERTIFICATE)
            .with(|spec| spec.require_cnf = true),
        twin(39, good(Algorithm::Es256)).with(revoked(RevokedKind::Subject, "other", 0)),
        twin(39, good(Algorithm::Es256)).with(revoked(RevokedKind::Subject, "robot", NOW - 120)),
        taken_back("a revoked subject").with(revoked(RevokedKind::Subject, "robot", 0)),
        taken_back("a revoked token").with(revoked(RevokedKind::Token, "1", NOW + 1)),
        taken_back("a revoked key").with(revoked(RevokedKind::Key, "P-256", 0)),
        refused(39, "a retired issuer", good(Algorithm::Es256), TokenFault::IssuerRetired)
            .with(|spec| spec.retire_at = NOW),
        twin(39, good(Algorithm::Es256)).with(|spec| spec.retire_at = NOW + 1),
    ];
    for cnf in [
        json!({"jkt": digest}),
        json!({"x5t#S256": digest, "jkt": digest}),
        json!({"jwk": {"kty": "EC"}}),
        json!({"x5t": digest}),
        json!({"x5t#S256": [digest]}),
        json!({"x5t#S256": format!("{digest}=")}),
        json!({"x5t#S256": "c5".repeat(32)}),
        json!({}),
        json!([]),
        json!(digest),
    ] {
        let token = changed(json!({"cnf": cnf}));
        cases.push(refused(37, "another binding", token, TokenFault::NotBound).over(CERTIFICATE));
    }
    cases
}

/// Nothing of the claims is told before the signature verifies.
fn oracle() -> Vec<Case> {
    let mut cases = vec![twin(44, good(Algorithm::Es256))];
    for claims in [
        claims_with(json!({"exp": 1})),
        claims_with(json!({"aud": "other"})),
        claims_with(json!({"sub": null})),
        claims_with(json!({"sub": 5})),
        claims_with(json!({"cnf": {}})),
    ] {
        let input =
            [header(Algorithm::Es256).to_string(), claims].map(|part| encode(part.as_bytes())).join(".");
        let forged = format!("{input}.{}", encode(&KEYS.sign(Algorithm::Es256, b"something else")));
        let case = refused(44, "a forged token with another fault", forged, TokenFault::BadSignature);
        cases.push(case.with(|spec| {
            spec.revoked = vec![Revoked { kind: RevokedKind::Subject, value: "robot".to_owned(), until: 0 }];
        }));
    }
    cases
}
