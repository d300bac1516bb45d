//! Rows about keys, which are refused where they are read.

use serde_json::{Value, json};
use tidegate_identity::keys::{InvalidKey, MAX_KEYS, select_for};
use tidegate_identity::{Algorithm, KeyUse};

use crate::support::{KEYS, encode};

fn key(algorithm: Algorithm, changes: Value) -> Value {
    let mut key = serde_json::to_value(KEYS.jwk(algorithm)).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        key[name] = value.clone();
    }
    key
}

/// Why a key that is alone in its set is refused.
fn refusal(key: &Value) -> Option<InvalidKey> {
    let selection = select_for(&json!({"keys": [key]}).to_string(), KeyUse::Sig).unwrap();
    assert_eq!(selection.keys.len() + selection.refused.len(), 1);
    selection.refused.into_iter().next().map(|(_, why)| why)
}

fn odd(bits: usize) -> Value {
    let mut number = vec![0xa5; bits / 8];
    number[0] = 0x80;
    json!(encode(&number))
}

#[test]
fn row_17_refuses_weak_keys() {
    let rsa = |changes| key(Algorithm::Rs256, changes);
    let mut tried = 0;
    let mut refused = |key: Value, why: InvalidKey| {
        tried += 1;
        assert_eq!(refusal(&key), Some(why), "{key}");
    };
    refused(rsa(json!({"n": odd(512)})), InvalidKey::ModulusSize(512));
    refused(rsa(json!({"n": odd(1024)})), InvalidKey::ModulusSize(1024));
    refused(rsa(json!({"n": odd(16_384)})), InvalidKey::ModulusSize(16_384));
    for exponent in [&[1][..], &[3], &[17], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
        refused(rsa(json!({"e": encode(exponent)})), InvalidKey::Exponent);
    }
    let curves = [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512];
    for (algorithm, curve) in curves.into_iter().zip(tidegate_identity::keys::Curve::ALL) {
        let same = key(algorithm, json!({}))["x"].clone();
        refused(key(algorithm, json!({"y": same})), InvalidKey::NotOnCurve(curve));
        let zero = json!(encode(&vec![0; curve.bytes()]));
        refused(key(algorithm, json!({"x": zero, "y": zero})), InvalidKey::NotOnCurve(curve));
    }
    let ed25519 = |bytes: &[u8]| key(Algorithm::EdDsa, json!({"x": encode(bytes)}));
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one, [0xff; 32]] {
        refused(ed25519(&point), InvalidKey::UnsafePoint);
    }
    for length in [0, 31, 33, 57] {
        refused(ed25519(&vec![9; length]), InvalidKey::Member("x"));
    }
    for algorithm in Algorithm::ALL {
        assert_eq!(refusal(&key(algorithm, json!({}))), None);
    }
    println!(
        "row 17: {} tried, {tried} refused, {} accepted",
        tried + Algorithm::ALL.len(),
        Algorithm::ALL.len()
    );
}

#[test]
fn row_18_refuses_keys_for_another_purpose() {
    let mut tried = 0;
    for algorithm in Algorithm::ALL {
        let mut refused = |changes: Value, why: InvalidKey| {
            tried += 1;
            assert_eq!(refusal(&key(algorithm, changes)), Some(why));
        };
        for purpose in ["enc", "jwt-svid", "x509-svid", "wit-svid", "SIG", ""] {
            refused(json!({"use": purpose}), InvalidKey::Purpose("use"));
        }
        for operations in [json!([]), json!(["sign"]), json!(["encrypt", "wrapKey"]), json!(["Verify"])] {
            refused(json!({"key_ops": operations}), InvalidKey::Purpose("key_ops"));
        }
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            refused(json!({private: "AQAB"}), InvalidKey::Private(private));
        }
        refused(
            json!({"kty": "oct"}),
            match key(algorithm, json!({})).get("crv") {
                Some(curve) => InvalidKey::UnsupportedType(format!("oct {}", curve.as_str().unwrap())),
                None => InvalidKey::UnsupportedType("oct".to_owned()),
            },
        );
        for good in [json!({"use": "sig"}), json!({"key_ops": ["verify"]}), json!({"alg": algorithm.name()})]
        {
            assert_eq!(refusal(&key(algorithm, good)), None);
        }
    }
    println!("row 18: {tried} refused");
}

/// A set in which a `kid` is not one key, or which is larger than any issuer's, is no set.
#[test]
fn row_05_refuses_sets_that_are_ambiguous() {
    let select = |keys: Vec<Value>| select_for(&json!({"keys": keys}).to_string(), KeyUse::Sig);
    let rsa = || key(Algorithm::Rs256, json!({}));
    assert!(select(vec![rsa()]).is_ok());
    assert!(select(vec![rsa(), rsa()]).is_err());
    assert!(select(vec![rsa(); MAX_KEYS + 1]).is_err());
    let text = json!({"keys": [rsa()]}).to_string();
    let twice = text.replacen("{\"keys\"", "{\"keys\":[],\"keys\"", 1);
    assert!(select_for(&twice, KeyUse::Sig).is_err());
}
