//! Verifies signatures outside of a filter: `jsonwebtoken`, which computes with aws-lc, and aws-lc itself for P-521, which
//! `jsonwebtoken` does not have.
//!
//! INVARIANT: the same verdicts as [`tidegate_identity::PureRust`]; a test compares them. Which keys and algorithms are fit
//! is decided before ([`tidegate_identity::signature::check`]).

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use tidegate_identity::signature::Verdict;
use tidegate_identity::{Algorithm, Connection, PublicKey, VerifySignature};

/// Verifies natively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Native;

// === impl Native ===

impl VerifySignature for Native {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        let valid = match theirs(algorithm) {
            Some(algorithm) => by_jsonwebtoken(algorithm, key, input, signature),
            None => UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, key.spki_der())
                .verify(input, signature)
                .is_ok(),
        };
        if valid { Verdict::Valid } else { Verdict::Invalid }
    }
}

/// No connection, hence no certificate.
impl Connection for Native {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

/// What `jsonwebtoken` calls the algorithm; `None`: it has no ES512.
fn theirs(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    use jsonwebtoken::Algorithm as Theirs;
    match algorithm {
        Algorithm::Rs256 => Some(Theirs::RS256),
        Algorithm::Rs384 => Some(Theirs::RS384),
        Algorithm::Rs512 => Some(Theirs::RS512),
        Algorithm::Ps256 => Some(Theirs::PS256),
        Algorithm::Ps384 => Some(Theirs::PS384),
        Algorithm::Ps512 => Some(Theirs::PS512),
        Algorithm::Es256 => Some(Theirs::ES256),
        Algorithm::Es384 => Some(Theirs::ES384),
        Algorithm::Es512 => None,
        Algorithm::EdDsa => Some(Theirs::EdDSA),
    }
}

/// Whatever it cannot do is not valid.
fn by_jsonwebtoken(
    algorithm: jsonwebtoken::Algorithm,
    key: &PublicKey,
    input: &[u8],
    signature: &[u8],
) -> bool {
    let key = decoding_key(key);
    let signature = URL_SAFE_NO_PAD.encode(signature);
    key.is_some_and(|key| jsonwebtoken::crypto::verify(&signature, input, &key, algorithm).unwrap_or(false))
}

fn decoding_key(key: &PublicKey) -> Option<DecodingKey> {
    let jwk = serde_json::to_value(key.jwk()).ok()?;
    let text = |name: &str| jwk.get(name)?.as_str();
    match text("kty")? {
        "RSA" => DecodingKey::from_rsa_components(text("n")?, text("e")?),
        "EC" => DecodingKey::from_ec_components(text("x")?, text("y")?),
        _ => DecodingKey::from_ed_components(text("x")?),
    }
    .ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        self as aws, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    };
    use tidegate_identity::keys::Curve;
    use tidegate_identity::{Jwk, PureRust, signature};

    use super::*;

    const INPUT: &[u8] = b"header.claims";

    /// A new key, and its signature of [`INPUT`].
    fn signed(algorithm: Algorithm) -> (PublicKey, Vec<u8>) {
        match algorithm {
            Algorithm::Rs256 => rsa(&aws::RSA_PKCS1_SHA256),
            Algorithm::Rs384 => rsa(&aws::RSA_PKCS1_SHA384),
            Algorithm::Rs512 => rsa(&aws::RSA_PKCS1_SHA512),
            Algorithm::Ps256 => rsa(&aws::RSA_PSS_SHA256),
            Algorithm::Ps384 => rsa(&aws::RSA_PSS_SHA384),
            Algorithm::Ps512 => rsa(&aws::RSA_PSS_SHA512),
            Algorithm::Es256 => ec(Curve::P256, &aws::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ec(Curve::P384, &aws::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => ec(Curve::P521, &aws::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDsa => {
                let key = Ed25519KeyPair::generate().unwrap();
                let public = Jwk::ed25519(None, None, key.public_key().as_ref()).unwrap();
                (public.into(), key.sign(INPUT).as_ref().to_vec())
            }
        }
    }

    fn rsa(encoding: &'static dyn RsaEncoding) -> (PublicKey, Vec<u8>) {
        let key = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        // RFC 8017 appendix A.1.1: a sequence of the modulus, here of 256 bytes with a zero before, and the exponent.
        let der = key.public_key().as_ref();
        assert_eq!(der[..9], [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00]);
        let public = Jwk::rsa(None, None, &der[9..265], &der[267..]).unwrap();
        let mut signature = vec![0; 256];
        key.sign(encoding, &SystemRandom::new(), INPUT, &mut signature).unwrap();
        (public.into(), signature)
    }

    fn ec(curve: Curve, algorithm: &'static EcdsaSigningAlgorithm) -> (PublicKey, Vec<u8>) {
        let key = EcdsaKeyPair::generate(algorithm).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(curve.bytes());
        let public = Jwk::ec(None, None, curve, x, y).unwrap();
        (public.into(), key.sign(&SystemRandom::new(), INPUT).unwrap().as_ref().to_vec())
    }

    /// What both say.
    fn verdict(algorithm: Algorithm, key: &PublicKey, input: &[u8], signed: &[u8]) -> Verdict {
        let verdict = signature::check(&Native, algorithm, key, input, signed);
        assert_eq!(
            verdict,
            signature::check(&PureRust, algorithm, key, input, signed),
            "{algorithm:?} {signed:?}"
        );
        verdict
    }

    #[test]
    fn verifies_what_pure_rust_verifies_and_nothing_else() {
        let all = Algorithm::ALL.map(|algorithm| (algorithm, signed(algorithm)));
        let mut refused = 0;
        for (algorithm, (key, signed)) in &all {
            assert_eq!(verdict(*algorithm, key, INPUT, signed), Verdict::Valid, "{algorithm:?}");
            let mut wrong =
                vec![vec![], signed[1..].to_vec(), [&signed[..], &[0]].concat(), vec![0; signed.len()]];
            for at in [0, signed.len() / 2, signed.len() - 1] {
                for bit in [1, 0x80] {
                    let mut damaged = signed.clone();
                    damaged[at] ^= bit;
                    wrong.push(damaged);
                }
            }
            assert_eq!(verdict(*algorithm, key, b"header.other", signed), Verdict::Invalid, "{algorithm:?}");
            for wrong in wrong {
                assert_eq!(
                    verdict(*algorithm, key, INPUT, &wrong),
                    Verdict::Invalid,
                    "{algorithm:?} {wrong:?}"
                );
                refused += 1;
            }
            // Neither another key nor another algorithm with the same key.
            for (other, (their_key, _)) in all.iter().filter(|(other, _)| other != algorithm) {
                for (algorithm, key) in [(other, their_key), (other, key), (algorithm, their_key)] {
                    assert_eq!(
                        verdict(*algorithm, key, INPUT, signed),
                        Verdict::Invalid,
                        "{algorithm:?} {other:?}"
                    );
                    refused += 1;
                }
            }
        }
        println!("{} algorithms, {refused} wrong signatures", all.len());
    }
}
