use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{Algorithm, InvalidKey, InvalidKeySet, Jwk, MAX_KEYS, PublicKey, select};
use crate::base64url;
use crate::json;
use crate::testing::Signer;

fn read(value: &Value) -> Result<Jwk, InvalidKey> {
    Jwk::from_json(&json::parse(&value.to_string(), json::Limits::KEYS).unwrap())
}

/// An odd number of this many bits. Nobody has the private key.
fn modulus(bits: usize) -> Vec<u8> {
    let mut number = vec![0xa5; bits.div_ceil(8)];
    number[0] = match bits % 8 {
        0 => 0x80,
        rest => 1 << (rest - 1),
    };
    number
}

fn rsa() -> Value {
    json!({"kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": base64url::encode(&modulus(2048)), "e": "AQAB"})
}

fn p256() -> Value {
    let mut key = serde_json::to_value(Signer::new(7).jwk(Some("e"))).unwrap();
    key["use"] = json!("sig");
    key
}

fn set(value: &Value, name: &str, to: Value) -> Value {
    let mut value = value.clone();
    value[name] = to;
    value
}

#[test]
fn reads_fit_keys_and_writes_them_back() {
    for key in
        [rsa(), p256(), json!({"kty": "RSA", "n": rsa()["n"], "e": "AQAB", "x5c": ["MII"], "ext": true})]
    {
        let jwk = read(&key).unwrap();
        let written = serde_json::to_value(&jwk).unwrap();
        for (name, value) in written.as_object().unwrap() {
            assert_eq!(Some(value), key.get(name), "{name}");
        }
        assert_eq!(read(&written).unwrap(), jwk);
    }
    let operations = set(&rsa(), "key_ops", json!(["verify", "wrapKey"]));
    assert!(read(&operations).is_ok());
    // A leading zero octet, which RFC 7518 forbids and some write, is the same number.
    let mut zero = vec![0];
    zero.extend(modulus(2048));
    assert_eq!(read(&set(&rsa(), "n", json!(base64url::encode(&zero)))), read(&rsa()));
}

#[test]
fn row_17_refuses_weak_keys() {
    let sized = |bits: usize| Jwk::rsa(None, None, &modulus(bits), &[1, 0, 1]);
    for bits in [2048, 2049, 3072, 4096, 8192] {
        assert!(sized(bits).is_ok(), "{bits}");
    }
    for bits in [8, 512, 1024, 2047, 8193, 16_384] {
        assert_eq!(sized(bits), Err(InvalidKey::ModulusSize(bits as u32)));
    }
    assert_eq!(Jwk::rsa(None, None, &[], &[1, 0, 1]), Err(InvalidKey::ModulusSize(0)));
    let mut even = modulus(2048);
    *even.last_mut().unwrap() = 0xa4;
    assert_eq!(Jwk::rsa(None, None, &even, &[1, 0, 1]), Err(InvalidKey::ModulusEven));
    for exponent in [&[][..], &[0], &[1], &[3], &[17], &[1, 0, 0], &[0xff, 0xff], &[1, 0, 0, 0, 1]] {
        assert_eq!(Jwk::rsa(None, None, &modulus(2048), exponent), Err(InvalidKey::Exponent), "{exponent:?}");
    }
    for exponent in [&[1, 0, 1][..], &[1, 0, 3], &[0xff, 0xff, 0xff, 0xff]] {
        assert!(Jwk::rsa(None, None, &modulus(2048), exponent).is_ok(), "{exponent:?}");
    }
    assert_eq!(Jwk::p256(None, None, [0; 32], [0; 32]), Err(InvalidKey::NotOnCurve));
    assert_eq!(Jwk::p256(None, None, [0xff; 32], [0xff; 32]), Err(InvalidKey::NotOnCurve));
    assert_eq!(Jwk::p256(None, None, [1; 32], [1; 32]), Err(InvalidKey::NotOnCurve));
}

#[test]
fn row_18_refuses_keys_for_another_purpose() {
    for (name, value) in [("use", json!("enc")), ("use", json!("jwt-svid")), ("use", json!("x509-svid"))] {
        assert_eq!(read(&set(&rsa(), name, value)), Err(InvalidKey::Purpose("use")));
    }
    for operations in [json!(["encrypt"]), json!([]), json!(["sign"])] {
        assert_eq!(read(&set(&rsa(), "key_ops", operations)), Err(InvalidKey::Purpose("key_ops")));
    }
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert_eq!(read(&set(&rsa(), private, json!("AQ"))), Err(InvalidKey::Private(private)));
        assert_eq!(read(&set(&p256(), private, json!("AQ"))), Err(InvalidKey::Private(private)));
    }
}

#[test]
fn refuses_other_types_curves_and_algorithms() {
    for key in [
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
        set(&p256(), "crv", json!("P-384")),
        set(&p256(), "crv", json!("secp256k1")),
        set(&rsa(), "crv", json!("P-256")),
        set(&rsa(), "kty", json!("EC")),
        set(&rsa(), "kty", json!("rsa")),
    ] {
        assert!(matches!(read(&key), Err(InvalidKey::UnsupportedType(_))), "{key}");
    }
    for (key, algorithm) in
        [(rsa(), "ES256"), (p256(), "RS256"), (rsa(), "PS256"), (rsa(), "HS256"), (rsa(), "RSA-OAEP")]
    {
        let refused = Err(InvalidKey::Algorithm(algorithm.to_owned()));
        assert_eq!(read(&set(&key, "alg", json!(algorithm))), refused);
    }
}

#[test]
fn refuses_malformed_members() {
    let long = "k".repeat(257);
    for (key, name, value) in [
        (rsa(), "kty", json!(null)),
        (rsa(), "kid", json!(1)),
        (rsa(), "kid", json!("")),
        (rsa(), "kid", json!(long)),
        (rsa(), "use", json!(["sig"])),
        (rsa(), "key_ops", json!("verify")),
        (rsa(), "alg", json!(null)),
        (rsa(), "n", json!(null)),
        (rsa(), "n", json!("AQAB=")),
        (rsa(), "e", json!("AQ AB")),
        (p256(), "x", json!("AQ")),
        (p256(), "y", json!(format!("AA{}", p256()["y"].as_str().unwrap()))),
    ] {
        assert!(
            matches!(read(&set(&key, name, value.clone())), Err(InvalidKey::Member(_))),
            "{name} {value}"
        );
    }
    for value in [json!(null), json!([]), json!("RSA"), json!({})] {
        assert_eq!(read(&value), Err(InvalidKey::Member("kty")));
    }
}

#[test]
fn selects_the_fit_keys_of_a_set_and_names_the_others() {
    let document = json!({"keys": [
        rsa(), {"kty": "oct", "k": "c2VjcmV0"}, p256(), set(&rsa(), "use", json!("enc")), 5,
    ], "extra": 1});
    let selection = select(&document.to_string()).unwrap();
    assert_eq!(selection.keys, [read(&rsa()).unwrap(), read(&p256()).unwrap()]);
    assert_eq!(
        selection.refused,
        [
            (1, InvalidKey::UnsupportedType("oct".to_owned())),
            (3, InvalidKey::Purpose("use")),
            (4, InvalidKey::Member("kty")),
        ]
    );
    assert_eq!(select(r#"{"keys":[]}"#).unwrap().keys, []);
}

#[test]
fn refuses_sets_that_are_not_sets() {
    for text in ["{}", "[]", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"Keys":[]}"#] {
        assert_eq!(select(text), Err(InvalidKeySet::NoKeys), "{text}");
    }
    for text in ["", "<html>", r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]}x"#] {
        assert!(matches!(select(text), Err(InvalidKeySet::Json(_))), "{text}");
    }
    let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
    assert_eq!(select(&many), Err(InvalidKeySet::TooMany));
    assert_eq!(select(&" ".repeat(super::MAX_JWKS_BYTES + 1)), Err(InvalidKeySet::TooLong));
    let other = set(&rsa(), "n", json!(base64url::encode(&modulus(3072))));
    let twins = |one: Value, two: Value| select(&json!({"keys": [one, two]}).to_string());
    assert_eq!(twins(rsa(), other.clone()), Err(InvalidKeySet::Duplicate));
    assert!(twins(rsa(), set(&other, "kid", json!("other"))).is_ok());
    assert!(twins(rsa(), set(&other, "alg", json!("RS384"))).is_ok());
    // As AWS does: one id, two families.
    assert!(twins(rsa(), set(&p256(), "kid", json!("r"))).is_ok());
}

#[test]
fn writes_the_spki_that_openssl_writes() {
    let key: PublicKey = Signer::new(7).jwk(None).into();
    let point = Signer::new(7).jwk(None);
    let p256: p256::PublicKey = {
        use p256::pkcs8::DecodePublicKey;
        p256::PublicKey::from_public_key_der(key.spki_der()).unwrap()
    };
    let again: PublicKey = {
        let sec1 = p256::ecdsa::VerifyingKey::from(p256).to_sec1_point(false);
        let at = |from: usize| sec1.as_bytes()[from..from + 32].try_into().unwrap();
        Jwk::p256(None, None, at(1), at(33)).unwrap().into()
    };
    assert_eq!(again.jwk(), &point);
    assert_eq!((key.spki_der().len(), key.signature_len()), (91, 64));

    let key: PublicKey = Jwk::rsa(None, None, &modulus(2048), &[1, 0, 1]).unwrap().into();
    // The first bit of the modulus is set, so its INTEGER has a leading zero.
    let start = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
        0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
    ];
    assert_eq!(key.spki_der()[..start.len()], start);
    assert_eq!(key.spki_der()[294 - 5..], [0x02, 0x03, 1, 0, 1]);
    assert_eq!((key.spki_der().len(), key.signature_len()), (294, 256));
}

#[test]
fn names_algorithms_exactly() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        assert_eq!(serde_json::to_value(algorithm).unwrap(), json!(algorithm.name()));
    }
    for name in ["none", "HS256", "rs256", "RS256 ", "", "PS256", "ES384"] {
        assert_eq!(Algorithm::from_name(name), None, "{name}");
    }
}
