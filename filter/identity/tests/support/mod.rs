//! Keys and tokens from aws-lc, the library on the other side of these tests.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, VerificationAlgorithm};
use jsonwebtoken::DecodingKey;
use tidegate_identity::keys::{Curve, KeyFamily};
use tidegate_identity::signature::ecdsa_der;
use tidegate_identity::{Algorithm, Connection, Jwk, PublicKey, Verdict, VerifySignature};

/// Made once per test binary; none is committed.
pub static KEYS: LazyLock<Keys> = LazyLock::new(Keys::generate);

pub struct Keys {
    pub rsa: KeyPair,
    pub ec: [EcdsaKeyPair; 3],
    pub ed25519: Ed25519KeyPair,
}

impl Keys {
    fn generate() -> Self {
        let ec = [
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        ];
        Self {
            rsa: KeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: ec.map(|algorithm| EcdsaKeyPair::generate(algorithm).unwrap()),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    fn curve(&self, curve: Curve) -> &EcdsaKeyPair {
        let [p256, p384, p521] = &self.ec;
        match curve {
            Curve::P256 => p256,
            Curve::P384 => p384,
            Curve::P521 => p521,
        }
    }

    /// The key for this algorithm, with its family's name as id.
    pub fn jwk(&self, algorithm: Algorithm) -> Jwk {
        let key_id = Some(key_id(algorithm).to_owned());
        match algorithm.family() {
            KeyFamily::Rsa => {
                // RFC 8017 appendix A.1.1: a sequence of the modulus, here of 256 bytes with a zero before, and the
                // exponent.
                let der = self.rsa.public_key().as_ref();
                assert_eq!(der[..9], [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00]);
                Jwk::rsa(key_id, None, &der[9..265], &der[267..]).unwrap()
            }
            KeyFamily::Ec(curve) => {
                let (x, y) = self.curve(curve).public_key().as_ref()[1..].split_at(curve.bytes());
                Jwk::ec(key_id, None, curve, x, y).unwrap()
            }
            KeyFamily::Ed25519 => Jwk::ed25519(key_id, None, self.ed25519.public_key().as_ref()).unwrap(),
        }
    }

    /// One key per family.
    pub fn jwks(&self) -> Vec<Jwk> {
        let one_each =
            [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa];
        one_each.map(|algorithm| self.jwk(algorithm)).to_vec()
    }

    pub fn decoding_key(&self, algorithm: Algorithm) -> DecodingKey {
        let jwk = serde_json::to_value(self.jwk(algorithm)).unwrap();
        let text = |name: &str| jwk[name].as_str().unwrap().to_owned();
        match algorithm.family() {
            KeyFamily::Rsa => DecodingKey::from_rsa_components(&text("n"), &text("e")).unwrap(),
            KeyFamily::Ec(_) => DecodingKey::from_ec_components(&text("x"), &text("y")).unwrap(),
            KeyFamily::Ed25519 => DecodingKey::from_ed_components(&text("x")).unwrap(),
        }
    }

    pub fn ec_pkcs8(&self) -> Vec<u8> {
        self.curve(Curve::P256).to_pkcs8v1().unwrap().as_ref().to_vec()
    }

    pub fn sign(&self, algorithm: Algorithm, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let encoding: &dyn signature::RsaEncoding = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
            Algorithm::EdDsa => return self.ed25519.sign(input).as_ref().to_vec(),
            Algorithm::Es256 => return self.sign_on(Curve::P256, input),
            Algorithm::Es384 => return self.sign_on(Curve::P384, input),
            Algorithm::Es512 => return self.sign_on(Curve::P521, input),
        };
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &random, input, &mut signature).unwrap();
        signature
    }

    fn sign_on(&self, curve: Curve, input: &[u8]) -> Vec<u8> {
        self.curve(curve).sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec()
    }

    /// A token of exactly these texts.
    pub fn token(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&self.sign(algorithm, input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// What aws-lc writes for this algorithm's public key.
    pub fn spki(&self, algorithm: Algorithm) -> Vec<u8> {
        match algorithm.family() {
            KeyFamily::Rsa => self.rsa.public_key().as_der().unwrap().as_ref().to_vec(),
            KeyFamily::Ec(curve) => self.curve(curve).public_key().as_der().unwrap().as_ref().to_vec(),
            KeyFamily::Ed25519 => self.ed25519.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }
}

/// The `kid` of the key for this algorithm.
pub fn key_id(algorithm: Algorithm) -> &'static str {
    match algorithm.family() {
        KeyFamily::Rsa => "rsa",
        KeyFamily::Ec(curve) => curve.name(),
        KeyFamily::Ed25519 => "ed25519",
    }
}

/// Verifies as Envoy's `verify_signature` does, with a library of the same family: the key as SPKI, ECDSA signatures as
/// DER. What that function does not do, this does as well, to compare.
pub struct LikeTheHost;

impl VerifySignature for LikeTheHost {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        let with: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_ASN1,
            Algorithm::Es384 => &signature::ECDSA_P384_SHA384_ASN1,
            Algorithm::Es512 => &signature::ECDSA_P521_SHA512_ASN1,
            Algorithm::EdDsa => &signature::ED25519,
        };
        let signature = match algorithm.family() {
            KeyFamily::Ec(_) => ecdsa_der(signature),
            KeyFamily::Rsa | KeyFamily::Ed25519 => Some(signature.to_vec()),
        };
        match signature.is_some_and(|signature| with.verify_sig(key.spki_der(), input, &signature).is_ok()) {
            true => Verdict::Valid,
            false => Verdict::Invalid,
        }
    }
}

impl Connection for LikeTheHost {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        None
    }
}

pub fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}
