//! Keys with members of all kinds: what is accepted is for signatures, public and large enough, and verifies nothing by
//! chance.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate_identity::keys::{KeyFamily, select_for};
use tidegate_identity::signature::check;
use tidegate_identity::{Algorithm, KeyUse, PublicKey, PureRust, Verdict};
use tidegate_identity_fuzz::{Json, encode};

#[derive(Debug, Arbitrary)]
enum Number {
    /// As many bytes as the kind of key wants.
    Fitting(u8),
    Bytes(Vec<u8>),
    Text(Json),
}

#[derive(Debug, Arbitrary)]
struct Key {
    kind: u8,
    curve: u8,
    numbers: [Number; 2],
    others: Vec<(u8, Json)>,
}

const KINDS: [&str; 5] = ["RSA", "EC", "OKP", "oct", "rsa"];
const CURVES: [(&str, usize); 6] =
    [("P-256", 32), ("P-384", 48), ("P-521", 66), ("Ed25519", 32), ("X25519", 32), ("secp256k1", 32)];
const OTHERS: [&str; 10] = ["kid", "alg", "use", "key_ops", "issuer", "d", "k", "x5c", "ext", "oth"];

impl Key {
    fn text(&self) -> String {
        let kind = KINDS[usize::from(self.kind) % KINDS.len()];
        let (curve, bytes) = CURVES[usize::from(self.curve) % CURVES.len()];
        let names = if kind == "RSA" { ["n", "e"] } else { ["x", "y"] };
        let mut members = vec![format!("\"kty\":\"{kind}\"")];
        if kind != "RSA" {
            members.push(format!("\"crv\":\"{curve}\""));
        }
        for (name, number) in names.into_iter().zip(&self.numbers) {
            let value = match number {
                Number::Fitting(byte) if kind == "RSA" && name == "n" => {
                    encoded(&[vec![*byte | 0x80; 255], vec![*byte | 1]].concat())
                }
                Number::Fitting(_) if kind == "RSA" => "\"AQAB\"".to_owned(),
                Number::Fitting(byte) => encoded(&vec![*byte; bytes]),
                Number::Bytes(bytes) => encoded(bytes),
                Number::Text(text) => text.0.clone(),
            };
            members.push(format!("\"{name}\":{value}"));
        }
        for (name, value) in &self.others {
            members.push(format!("\"{}\":{}", OTHERS[usize::from(*name) % OTHERS.len()], value.0));
        }
        format!("{{{}}}", members.join(","))
    }
}

fn encoded(bytes: &[u8]) -> String {
    format!("\"{}\"", encode(bytes))
}

fuzz_target!(|input: (Vec<Key>, Vec<u8>)| {
    let (keys, junk) = input;
    let texts: Vec<_> = keys.iter().map(Key::text).collect();
    let document = format!("{{\"keys\":[{}]}}", texts.join(","));
    for purpose in [KeyUse::Sig, KeyUse::JwtSvid] {
        let Ok(selection) = select_for(&document, purpose) else { continue };
        for key in selection.keys {
            let key = PublicKey::from(key);
            let length = key.signature_len();
            assert!(key.jwk().family() != KeyFamily::Rsa || (256..=1024).contains(&length), "{document}");
            let mut signature = junk.clone();
            signature.resize(length, 0);
            for algorithm in Algorithm::ALL {
                let verdict = check(&PureRust, algorithm, &key, &junk, &signature);
                assert_eq!(verdict, Verdict::Invalid, "{algorithm:?} {document}");
            }
        }
    }
});
