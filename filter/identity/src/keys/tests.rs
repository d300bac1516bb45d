use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{
    Algorithm, Curve, InvalidKey, InvalidKeySet, Jwk, KeySelection, KeyUse, MAX_KEYS, PublicKey, select_for,
};
use crate::base64url;
use crate::json;
use crate::testing::Signer;

fn read(value: &Value) -> Result<Jwk, InvalidKey> {
    read_for(value, KeyUse::Sig)
}

fn read_for(value: &Value, purpose: KeyUse) -> Result<Jwk, InvalidKey> {
    Jwk::from_json(&json::parse(&value.to_string(), json::Limits::KEYS).unwrap(), purpose)
}

fn select(document: &str) -> Result<KeySelection, InvalidKeySet> {
    select_for(document, KeyUse::Sig)
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

/// The base point of the curve.
fn p384() -> Value {
    json!({
        "kty": "EC", "kid": "e", "alg": "ES384", "use": "sig", "crv": "P-384",
        "x": "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3",
        "y": "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f",
    })
}

/// RFC 7520 §3.1.
fn p521() -> Value {
    json!({
        "kty": "EC", "kid": "e", "alg": "ES512", "use": "sig", "crv": "P-521",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
    })
}

fn ed25519() -> Value {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    json!({
        "kty": "OKP", "kid": "o", "alg": "EdDSA", "use": "sig", "crv": "Ed25519", "x": base64url::encode(key.as_bytes()),
    })
}

fn all() -> [Value; 5] {
    [rsa(), p256(), p384(), p521(), ed25519()]
}

/// Those on which points are checked here: in modules only the first.
fn checked_curves() -> impl Iterator<Item = Curve> {
    Curve::ALL.into_iter().take(if cfg!(target_arch = "wasm32") { 1 } else { 3 })
}

fn set(value: &Value, name: &str, to: Value) -> Value {
    let mut value = value.clone();
    value[name] = to;
    value
}

#[test]
fn reads_fit_keys_and_writes_them_back() {
    let more = json!({"kty": "RSA", "n": rsa()["n"], "e": "AQAB", "x5c": ["MII"], "ext": true});
    let issued = set(&p384(), "issuer", json!("https://login.microsoftonline.com/{tenantid}/v2.0"));
    for key in all().into_iter().chain([more, issued]) {
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
    for curve in checked_curves() {
        for byte in [0, 1, 0xff] {
            let number = vec![byte; curve.bytes()];
            let refused = Err(InvalidKey::NotOnCurve(curve));
            assert_eq!(Jwk::ec(None, None, curve, &number, &number), refused, "{curve} {byte}");
        }
    }
    for (key, curve) in [p256(), p384(), p521()].into_iter().zip(checked_curves()) {
        assert_eq!(read(&set(&key, "y", key["x"].clone())), Err(InvalidKey::NotOnCurve(curve)));
    }
}

#[test]
fn row_17_refuses_ed25519_keys_with_which_anything_verifies() {
    let key = |hex: &str| {
        let bytes: Vec<_> =
            (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        Jwk::ed25519(None, None, &bytes)
    };
    // RFC 8032 §7.1, tests 1 and 2.
    assert!(key("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").is_ok());
    assert!(key("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c").is_ok());
    for (unsafe_, why) in [
        ("0100000000000000000000000000000000000000000000000000000000000000", "order 1"),
        ("0100000000000000000000000000000000000000000000000000000000000080", "order 1, sign of zero"),
        ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "order 2"),
        ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "order 2, sign of zero"),
        ("0000000000000000000000000000000000000000000000000000000000000000", "order 4, all zero"),
        ("0000000000000000000000000000000000000000000000000000000000000080", "order 4"),
        ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "order 8"),
        ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85", "order 8"),
        ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "order 8"),
        ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "order 8"),
        ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "p, another 0"),
        ("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "p, another 0"),
        ("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "p + 1, another 1"),
        ("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "p + 3, another 3"),
        ("0200000000000000000000000000000000000000000000000000000000000000", "not on the curve"),
    ] {
        assert_eq!(key(unsafe_), Err(InvalidKey::UnsafePoint), "{why}");
    }
    // Row 48: other verifiers panic here.
    for length in [0, 1, 31, 33, 57, 64] {
        assert_eq!(Jwk::ed25519(None, None, &vec![9; length]), Err(InvalidKey::Member("x")), "{length}");
    }
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
        for key in all() {
            assert_eq!(read(&set(&key, private, json!("AQ"))), Err(InvalidKey::Private(private)));
        }
    }
}

#[test]
fn row_18_takes_only_the_keys_for_svids_of_a_spiffe_bundle() {
    let mut bare = p256();
    bare.as_object_mut().unwrap().remove("use");
    assert!(read_for(&set(&p256(), "use", json!("jwt-svid")), KeyUse::JwtSvid).is_ok());
    assert!(read(&bare).is_ok());
    for key in [bare, p256(), set(&p256(), "use", json!("x509-svid")), set(&p256(), "use", json!("wit-svid"))]
    {
        assert_eq!(read_for(&key, KeyUse::JwtSvid), Err(InvalidKey::Purpose("use")), "{key}");
    }
    let bundle = json!({
        "spiffe_sequence": 7, "spiffe_refresh_hint": 300,
        "keys": [set(&p256(), "use", json!("x509-svid")), set(&p384(), "use", json!("jwt-svid"))],
    });
    let selection = select_for(&bundle.to_string(), KeyUse::JwtSvid).unwrap();
    assert_eq!(selection.keys, [read(&p384()).unwrap()]);
    assert_eq!(selection.refused, [(0, InvalidKey::Purpose("use"))]);
}

#[test]
fn refuses_other_types_curves_and_algorithms() {
    for key in [
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        set(&ed25519(), "crv", json!("Ed448")),
        set(&ed25519(), "crv", json!("X25519")),
        set(&ed25519(), "crv", json!("ed25519")),
        set(&ed25519(), "kty", json!("EC")),
        set(&p256(), "kty", json!("OKP")),
        set(&p256(), "crv", json!("P-192")),
        set(&p256(), "crv", json!("secp256k1")),
        set(&rsa(), "crv", json!("P-256")),
        set(&rsa(), "kty", json!("EC")),
        set(&rsa(), "kty", json!("rsa")),
    ] {
        assert!(matches!(read(&key), Err(InvalidKey::UnsupportedType(_))), "{key}");
    }
    // Between the curves: the label alone makes no point of another one.
    assert_eq!(read(&set(&p256(), "crv", json!("P-384"))), Err(InvalidKey::Member("x")));
    for key in all() {
        for algorithm in Algorithm::ALL {
            let read = read(&set(&key, "alg", json!(algorithm.name())));
            let curve = match &algorithm.name()[..2] {
                "RS" | "PS" => json!(null),
                _ if algorithm == Algorithm::Es256 => json!("P-256"),
                _ if algorithm == Algorithm::Es384 => json!("P-384"),
                _ if algorithm == Algorithm::Es512 => json!("P-521"),
                _ => json!("Ed25519"),
            };
            match key["crv"] == curve {
                true => assert_eq!(read.map(|key| key.algorithm()), Ok(Some(algorithm)), "{key}"),
                false => assert_eq!(read, Err(InvalidKey::Algorithm(algorithm.name().to_owned())), "{key}"),
            }
        }
        for unknown in ["HS256", "RSA-OAEP", "none", "", "ES256K", "Ed448"] {
            let refused = Err(InvalidKey::Algorithm(unknown.to_owned()));
            assert_eq!(read(&set(&key, "alg", json!(unknown))), refused);
        }
    }
    // RFC 9864's name for the same.
    assert_eq!(read(&set(&ed25519(), "alg", json!("Ed25519"))), read(&ed25519()));
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
        (rsa(), "issuer", json!(1)),
        (rsa(), "issuer", json!("")),
        (rsa(), "issuer", json!("i".repeat(2049))),
        (p256(), "x", json!("AQ")),
        (p384(), "y", json!("AQ")),
        (p521(), "x", json!(base64url::encode(&[1; 65]))),
        (ed25519(), "x", json!("AA")),
        (ed25519(), "x", json!(null)),
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
    // As Microsoft Entra might: one id, two issuers.
    let of = |key: &Value, issuer: &str| set(key, "issuer", json!(issuer));
    assert!(twins(of(&rsa(), "https://a.example"), of(&other, "https://b.example")).is_ok());
    assert_eq!(
        twins(of(&rsa(), "https://a.example"), of(&other, "https://a.example")),
        Err(InvalidKeySet::Duplicate)
    );
    assert_eq!(twins(of(&rsa(), "https://a.example"), other), Err(InvalidKeySet::Duplicate));
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
        let (x, y) = sec1.as_bytes()[1..].split_at(32);
        Jwk::ec(None, None, Curve::P256, x, y).unwrap().into()
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
    assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDsa));
    assert_eq!(serde_json::from_value::<Algorithm>(json!("Ed25519")).unwrap(), Algorithm::EdDsa);
    for name in ["none", "HS256", "rs256", "RS256 ", "", "PS1", "ES256K", "eddsa", "Ed448"] {
        assert_eq!(Algorithm::from_name(name), None, "{name}");
    }
}
