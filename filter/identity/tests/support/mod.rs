//! Keys and tokens from aws-lc, the library on the other side of these tests.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, VerificationAlgorithm};
use jsonwebtoken::DecodingKey;
use tidegate_identity::{Algorithm, Jwk, PublicKey, VerifySignature};

/// Made once per test binary; none is committed.
pub static KEYS: LazyLock<Keys> = LazyLock::new(Keys::generate);

pub struct Keys {
    pub rsa: KeyPair,
    pub ec: EcdsaKeyPair,
}

impl Keys {
    fn generate() -> Self {
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        Self {
            rsa: KeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(algorithm).unwrap(),
        }
    }

    pub fn jwk(&self, algorithm: Algorithm, key_id: &str) -> Jwk {
        let key_id = Some(key_id.to_owned());
        if algorithm == Algorithm::Es256 {
            let point = self.ec.public_key().as_ref();
            return Jwk::p256(
                key_id,
                None,
                point[1..33].try_into().unwrap(),
                point[33..65].try_into().unwrap(),
            )
            .unwrap();
        }
        // RFC 8017 appendix A.1.1: a sequence of the modulus, here of 256 bytes with a zero before, and the exponent.
        let der = self.rsa.public_key().as_ref();
        assert_eq!(der[..9], [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00]);
        Jwk::rsa(key_id, None, &der[9..265], &der[267..]).unwrap()
    }

    pub fn decoding_key(&self, algorithm: Algorithm) -> DecodingKey {
        let jwk = serde_json::to_value(self.jwk(algorithm, "k")).unwrap();
        let text = |name: &str| jwk[name].as_str().unwrap().to_owned();
        if algorithm == Algorithm::Es256 {
            DecodingKey::from_ec_components(&text("x"), &text("y")).unwrap()
        } else {
            DecodingKey::from_rsa_components(&text("n"), &text("e")).unwrap()
        }
    }

    pub fn ec_pkcs8(&self) -> Vec<u8> {
        self.ec.to_pkcs8v1().unwrap().as_ref().to_vec()
    }

    pub fn sign(&self, algorithm: Algorithm, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let encoding = match algorithm {
            Algorithm::Es256 => return self.ec.sign(&random, input).unwrap().as_ref().to_vec(),
            Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
        };
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &random, input, &mut signature).unwrap();
        signature
    }

    /// A token of exactly these texts.
    pub fn token(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&self.sign(algorithm, input.as_bytes()));
        format!("{input}.{signature}")
    }

    pub fn rsa_spki(&self) -> Vec<u8> {
        self.rsa.public_key().as_der().unwrap().as_ref().to_vec()
    }
}

/// Verifies as Envoy's `verify_signature` does: the key as SPKI, ECDSA signatures as DER, the library from the same
/// family.
pub struct LikeTheHost;

impl VerifySignature for LikeTheHost {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> bool {
        let (algorithm, signature): (&'static dyn VerificationAlgorithm, _) = match algorithm {
            Algorithm::Rs256 => (&signature::RSA_PKCS1_2048_8192_SHA256, Some(signature.to_vec())),
            Algorithm::Rs384 => (&signature::RSA_PKCS1_2048_8192_SHA384, Some(signature.to_vec())),
            Algorithm::Rs512 => (&signature::RSA_PKCS1_2048_8192_SHA512, Some(signature.to_vec())),
            Algorithm::Es256 => {
                (&signature::ECDSA_P256_SHA256_ASN1, tidegate_identity::signature::ecdsa_der(signature))
            }
        };
        signature.is_some_and(|signature| algorithm.verify_sig(key.spki_der(), input, &signature).is_ok())
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
