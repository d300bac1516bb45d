//! Rows about what the header says: algorithms, keys, and how the token is to be read.

use serde_json::{Value, json};
use tidegate_engine::TokenFault;
use tidegate_identity::Algorithm;
use tidegate_identity::issuer::IssuerSpec;

use crate::support::{KEYS, encode, key_id};
use crate::{
    Case, Expected, ISSUER, NOW, case, claims, claims_with, good, header, refused, twin, with_claims,
    with_header,
};

pub(crate) fn cases() -> Vec<Case> {
    [algorithms(), keys(), issuers(), reading()].into_iter().flatten().collect()
}

/// The right header and more.
fn and(members: Value) -> String {
    let mut header = header(Algorithm::Es256);
    for (name, value) in members.as_object().unwrap() {
        header[name] = value.clone();
    }
    header.to_string()
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

fn algorithms() -> Vec<Case> {
    let token = good(Algorithm::Es256);
    let [head, payload, signature] = parts(&token);
    let mut cases = vec![
        twin(1, token.as_str()),
        refused(1, "empty signature", format!("{head}.{payload}."), TokenFault::Malformed),
        refused(1, "no algorithm", with_header(r#"{"kid":"P-256"}"#), TokenFault::AlgorithmRefused),
        refused(1, "null", with_header(&and(json!({"alg": null}))), TokenFault::Malformed),
        refused(1, "array", with_header(&and(json!({"alg": ["ES256"]}))), TokenFault::Malformed),
    ];
    for none in ["none", "None", "NONE", "nOnE", "none ", "", "null", "es256", "ES256 "] {
        let header = and(json!({"alg": none}));
        cases.push(refused(1, "none and a signature", with_header(&header), TokenFault::AlgorithmRefused));
        let bare = format!("{}.{payload}.", encode(header.as_bytes()));
        cases.push(refused(1, "none and no signature", bare, TokenFault::AlgorithmRefused));
        let other = format!("{}.{payload}.{signature}", encode(header.as_bytes()));
        cases.push(refused(1, "none for another", other, TokenFault::AlgorithmRefused));
    }

    // The public key, in whatever form, as the secret.
    for secret in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let jwk = serde_json::to_value(KEYS.jwk(secret)).unwrap();
        let raw = jwk.get("n").or(jwk.get("x")).unwrap().as_str().unwrap().as_bytes().to_vec();
        for secret_bytes in [KEYS.spki(secret), raw, jwk.to_string().into_bytes()] {
            let header = json!({"alg": "HS256", "kid": key_id(secret)}).to_string();
            let input = format!("{}.{payload}", encode(header.as_bytes()));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret_bytes);
            let tag = aws_lc_rs::hmac::sign(&key, input.as_bytes());
            let forged = format!("{input}.{}", encode(tag.as_ref()));
            cases.push(refused(2, "HMAC with the public key", forged, TokenFault::AlgorithmRefused));
        }
    }
    for symmetric in ["HS256", "HS384", "HS512", "HS1", "A128KW", "dir", "ES256K", "Ed448", "RSA-OAEP"] {
        let token = with_header(&and(json!({"alg": symmetric})));
        cases.push(refused(2, "an algorithm that nobody has", token, TokenFault::AlgorithmRefused));
    }
    for algorithm in Algorithm::ALL {
        cases.push(twin(2, good(algorithm)));
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let lie = KEYS.token(algorithm, &header(other).to_string(), &claims().to_string());
            cases.push(refused(2, "signed with another algorithm", lie, TokenFault::BadSignature));
            let kid = json!({"alg": other.name(), "kid": key_id(algorithm)});
            let lie = KEYS.token(algorithm, &kid.to_string(), &claims().to_string());
            let fault = match key_id(algorithm) == key_id(other) {
                true => TokenFault::BadSignature,
                false => TokenFault::KeyUnknown,
            };
            cases.push(refused(2, "a key for another algorithm", lie, fault));
            let only = |spec: &mut IssuerSpec| spec.algorithms = vec![other];
            let token = good(algorithm);
            cases.push(refused(2, "not the issuer's", token, TokenFault::AlgorithmRefused).with(only));
        }
    }
    cases
}

fn keys() -> Vec<Case> {
    let jwk = serde_json::to_value(KEYS.jwk(Algorithm::Es256)).unwrap();
    let refused_header =
        |attack, value| refused(3, attack, with_header(&and(value)), TokenFault::HeaderRefused);
    let mut cases = vec![
        twin(3, with_header(&and(json!({"x5t": "digest", "x5t#S256": "digest"})))),
        refused_header("jwk", json!({"jwk": jwk})),
        refused_header("jku", json!({"jku": "https://evil.example/jwks"})),
        refused_header("x5u", json!({"x5u": "https://evil.example/cert"})),
        refused_header("x5c", json!({"x5c": ["MII"]})),
        refused_header("url", json!({"url": "https://evil.example"})),
        refused_header("iss beside the key", json!({"iss": ISSUER})),
        twin(4, good(Algorithm::Es256)),
        twin(5, with_header(r#"{"alg":"ES256"}"#)),
        refused(5, "two keys fit", with_header(r#"{"alg":"ES256"}"#), TokenFault::KeyUnknown)
            .with(|spec| spec.keys.push(other_key("P-256-2"))),
        refused(5, "none fits", with_header(r#"{"alg":"ES256"}"#), TokenFault::KeyUnknown)
            .with(|spec| spec.keys.retain(|key| !key.fits(Algorithm::Es256))),
    ];
    let huge = "k".repeat(300);
    for kid in [
        "",
        "P-256 ",
        "p-256",
        "P-256\u{0}",
        "../P-256",
        "/dev/null",
        "' OR '1'='1",
        "https://x/P-256",
        "P-256,rsa",
        "*",
        "rsa",
        &huge,
    ] {
        cases.push(refused(4, "kid", with_header(&and(json!({"kid": kid}))), TokenFault::KeyUnknown));
    }
    for kid in [json!(1), json!(null), json!(["P-256"]), json!({"a": 1}), json!(true)] {
        cases.push(refused(
            4,
            "kid of another type",
            with_header(&and(json!({"kid": kid}))),
            TokenFault::Malformed,
        ));
    }
    cases
}

/// A key of somebody else.
fn other_key(key_id: &str) -> tidegate_identity::Jwk {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let curve = tidegate_identity::keys::Curve::P256;
    tidegate_identity::Jwk::ec(Some(key_id.to_owned()), None, curve, x, y).unwrap()
}

fn issuers() -> Vec<Case> {
    let named = |iss: Value| with_claims(&claims_with(json!({"iss": iss})));
    let mut cases = vec![
        twin(7, good(Algorithm::Es256)),
        refused(7, "another issuer's key of this id", good(Algorithm::Es256), TokenFault::BadSignature).with(
            |spec| {
                spec.keys = vec![other_key("P-256")];
            },
        ),
        case(7, "no issuer", with_claims(&claims_with(json!({"iss": null}))), Expected::Absent),
        refused(7, "several issuers", named(json!([ISSUER])), TokenFault::ClaimMalformed),
        refused(7, "an object for an issuer", named(json!({"iss": ISSUER})), TokenFault::ClaimMalformed),
        twin(9, good(Algorithm::Es256)),
        refused(9, "no keys", good(Algorithm::Es256), TokenFault::KeyUnknown).with(|spec| spec.keys.clear()),
        refused(9, "keys that are too old", good(Algorithm::Es256), TokenFault::KeysStale)
            .with(|spec| spec.valid_until = NOW - 1),
        refused(9, "keys that never were", good(Algorithm::Es256), TokenFault::KeysStale)
            .with(|spec| (spec.keys, spec.valid_until) = (Vec::new(), 0)),
    ];
    for like in [
        "https://issuer.example.com/",
        "https://issuer.example.com.",
        "https://Issuer.example.com",
        "HTTPS://issuer.example.com",
        "http://issuer.example.com",
        "https://issuer.example.com:443",
        "https://issuer.example.com/x",
        "https://issuer.example.com#",
        " https://issuer.example.com",
        "https://issuer.example.com\u{0}",
        "https://issuer.example.co",
        "https://user@issuer.example.com",
        "https://issuer\u{2024}example.com",
        "",
    ] {
        cases.push(case(7, "an issuer that looks like it", named(json!(like)), Expected::Absent));
    }
    cases
}

fn reading() -> Vec<Case> {
    let token = good(Algorithm::Es256);
    let [head, payload, signature] = parts(&token);
    let mut cases: Vec<_> = [10, 11, 12, 13, 14].into_iter().map(|row| twin(row, token.as_str())).collect();
    let mut header_refused = |row, attack, members| {
        cases.push(refused(row, attack, with_header(&and(members)), TokenFault::HeaderRefused));
    };
    for crit in [
        json!([]),
        json!(["exp"]),
        json!(["b64"]),
        json!(["alg"]),
        json!("x"),
        json!(null),
        json!(["x", "x"]),
    ] {
        header_refused(10, "crit", json!({"crit": crit}));
    }
    header_refused(10, "crit that names what is there", json!({"crit": ["x"], "x": 1}));
    header_refused(11, "b64", json!({"b64": false}));
    header_refused(11, "b64, critical", json!({"b64": false, "crit": ["b64"]}));
    header_refused(11, "b64 that changes nothing", json!({"b64": true}));
    header_refused(13, "nested", json!({"cty": "JWT"}));
    header_refused(13, "nested", json!({"cty": "application/jwt"}));
    header_refused(14, "compressed", json!({"zip": "DEF"}));
    header_refused(14, "compressed", json!({"zip": "none"}));
    header_refused(14, "encrypted", json!({"enc": "A256GCM"}));
    let malformed = |attack, text: String| refused(12, attack, text, TokenFault::Malformed);
    cases.extend([
        malformed("two parts", format!("{head}.{payload}")),
        malformed("four parts", format!("{token}.{signature}")),
        malformed("four parts, one empty", format!("{token}.")),
        malformed("five parts that are no JWE", format!("{token}.x.y")),
        malformed("six parts", format!("{token}.x.y.z")),
        malformed("detached payload", format!("{head}..{signature}")),
        malformed("no parts", "eyJ9.".to_owned()),
        case(
            12,
            "JWE",
            format!("{}.a.b.c.d", encode(br#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#)),
            Expected::Absent,
        ),
        case(12, "no header", format!(".{payload}.{signature}"), Expected::Absent),
        case(
            12,
            "JSON serialisation",
            json!({"payload": payload, "signature": signature}).to_string(),
            Expected::Absent,
        ),
    ]);
    cases
}
