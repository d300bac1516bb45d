#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{PureRust, Verdict, VerifySignature, check, ecdsa_der};
use crate::base64url;
use crate::keys::{Algorithm, Curve, Jwk, PublicKey};
use crate::testing::Signer;

/// An example of an RFC.
struct Example {
    algorithm: Algorithm,
    key: PublicKey,
    input: String,
    signature: Vec<u8>,
}

const RFC_7515_RSA: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1P\
     t0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-K\
     XBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethF\
     kMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RFC_7515_CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

const RFC_7520_RSA: &str = "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz\
     _AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZ\
     cD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3\
     __kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw";
const RFC_7520_PAYLOAD: &str = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0Z\
     XAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1p\
     Z2h0IGJlIHN3ZXB0IG9mZiB0by4";

fn bytes(text: &str) -> Vec<u8> {
    base64url::decode(text.as_bytes()).unwrap()
}

fn rsa(modulus: &str) -> PublicKey {
    Jwk::rsa(None, None, &bytes(modulus), &[1, 0, 1]).unwrap().into()
}

fn ec(curve: Curve, x: &str, y: &str) -> PublicKey {
    Jwk::ec(None, None, curve, &bytes(x), &bytes(y)).unwrap().into()
}

fn examples() -> Vec<Example> {
    let example = |algorithm, key, header: &str, payload, signature| Example {
        algorithm,
        key,
        input: format!("{}.{payload}", base64url::encode(header.as_bytes())),
        signature: bytes(signature),
    };
    vec![
        // RFC 7515 appendix A.2.
        example(
            Algorithm::Rs256,
            rsa(RFC_7515_RSA),
            r#"{"alg":"RS256"}"#,
            RFC_7515_CLAIMS,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJd\
             bF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN93\
             83LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhW\
             kWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        // RFC 7515 appendix A.3.
        example(
            Algorithm::Es256,
            ec(
                Curve::P256,
                "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            ),
            r#"{"alg":"ES256"}"#,
            RFC_7515_CLAIMS,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        // RFC 7520 §4.2.
        example(
            Algorithm::Ps384,
            rsa(RFC_7520_RSA),
            r#"{"alg":"PS384","kid":"bilbo.baggins@hobbiton.example"}"#,
            RFC_7520_PAYLOAD,
            "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo\
             6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUe\
             T3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510\
             a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
        ),
        // RFC 7520 §4.3.
        example(
            Algorithm::Es512,
            ec(
                Curve::P521,
                "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
                "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
            ),
            r#"{"alg":"ES512","kid":"bilbo.baggins@hobbiton.example"}"#,
            RFC_7520_PAYLOAD,
            "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDD\
             yYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
        ),
        // RFC 8037 appendix A.4.
        example(
            Algorithm::EdDsa,
            Jwk::ed25519(None, None, &bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).unwrap().into(),
            r#"{"alg":"EdDSA"}"#,
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ]
}

/// Answers as told, to see what reaches an implementation.
struct Always(Verdict);

impl VerifySignature for Always {
    fn verify(&self, _: Algorithm, _: &PublicKey, _: &[u8], _: &[u8]) -> Verdict {
        self.0
    }
}

#[test]
fn verifies_the_rfcs_examples_and_nothing_like_them() {
    for Example { algorithm, key, input, signature } in examples() {
        let ask = |algorithm, input: &[u8], signature: &[u8]| {
            check(&PureRust, algorithm, &key, input, signature) == Verdict::Valid
        };
        let input = input.as_bytes();
        if !PureRust::computes(algorithm) {
            assert_eq!(check(&PureRust, algorithm, &key, input, &signature), Verdict::Unsupported);
            continue;
        }
        assert!(ask(algorithm, input, &signature), "{algorithm:?}");
        assert!(!ask(algorithm, &input[1..], &signature), "{algorithm:?}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(!ask(other, input, &signature), "{algorithm:?} as {other:?}");
        }
        let middle = signature.len() / 2;
        for at in [0, 1, middle - 1, middle, signature.len() - 1] {
            let mut wrong = signature.clone();
            wrong[at] ^= 1;
            assert!(!ask(algorithm, input, &wrong), "{algorithm:?} {at}");
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn verifies_es384() {
    use p384::ecdsa::signature::Signer as _;
    let signer = p384::ecdsa::SigningKey::from_slice(&[7; 48]).unwrap();
    let point = signer.verifying_key().to_sec1_point(false);
    let (x, y) = point.as_bytes()[1..].split_at(48);
    let key = PublicKey::from(Jwk::ec(None, Some(Algorithm::Es384), Curve::P384, x, y).unwrap());
    let signature: p384::ecdsa::Signature = signer.sign(b"input");
    let ask = |input, signature: &[u8]| check(&PureRust, Algorithm::Es384, &key, input, signature);
    assert_eq!(ask(b"input", &signature.to_bytes()), Verdict::Valid);
    assert_eq!(ask(b"Input", &signature.to_bytes()), Verdict::Invalid);
    assert_eq!(ask(b"input", &[0; 96]), Verdict::Invalid);
    assert_eq!(ask(b"input", &[0xff; 96]), Verdict::Invalid);
}

#[test]
fn hands_over_only_signatures_of_the_right_length_and_fit_keys() {
    for Example { algorithm, key, signature, .. } in examples() {
        for verdict in [Verdict::Valid, Verdict::Invalid, Verdict::Unsupported, Verdict::OverBudget] {
            assert_eq!(check(&Always(verdict), algorithm, &key, b"", &signature), verdict);
        }
        let right = signature.len();
        assert_eq!(key.signature_len(), right);
        let reaches = |algorithm, key: &PublicKey, length: usize| {
            check(&Always(Verdict::Valid), algorithm, key, b"", &vec![0; length]) == Verdict::Valid
        };
        assert!(reaches(algorithm, &key, right));
        for length in [0, 1, 32, 63, 65, 70, 72, 95, 97, 131, 133, 255, 257, 512, right - 1, right + 1] {
            assert!(!reaches(algorithm, &key, length), "{algorithm:?} {length}");
        }
        for other in Algorithm::ALL.into_iter().filter(|other| other.family() != algorithm.family()) {
            assert!(!reaches(other, &key, right), "{algorithm:?} {other:?}");
        }
    }
    // A key that is only for another algorithm of its family.
    let only = Jwk::rsa(None, Some(Algorithm::Rs512), &bytes(RFC_7515_RSA), &[1, 0, 1]).unwrap().into();
    for algorithm in Algorithm::ALL {
        let verdict = check(&Always(Verdict::Valid), algorithm, &only, b"", &[0; 256]);
        assert_eq!(verdict == Verdict::Valid, algorithm == Algorithm::Rs512, "{algorithm:?}");
    }
}

#[test]
fn an_implementation_refuses_misfits_by_itself() {
    for Example { key, .. } in examples() {
        for signature in
            [&[][..], &[0; 64], &[0xff; 64], &[0; 96], &[0; 132], &[0; 256], &[0xff; 256], &[0; 1024]]
        {
            for algorithm in Algorithm::ALL {
                let computed = PureRust::computes(algorithm);
                let expected = if computed { Verdict::Invalid } else { Verdict::Unsupported };
                assert_eq!(PureRust.verify(algorithm, &key, b"x", signature), expected);
            }
        }
    }
}

#[test]
fn computes_every_algorithm_but_two_in_modules() {
    for algorithm in Algorithm::ALL {
        let two = matches!(algorithm, Algorithm::Es384 | Algorithm::Es512);
        assert_eq!(PureRust::computes(algorithm), !(cfg!(target_arch = "wasm32") && two));
        // What is not computed here, the host computes.
        assert!(PureRust::computes(algorithm) || algorithm.host_hash().is_some());
    }
}

#[test]
fn writes_ecdsa_signatures_as_der() {
    let mut signature = [0; 64];
    signature[31] = 1;
    signature[32] = 0x80;
    let der = ecdsa_der(&signature).unwrap();
    // A sequence of 38 bytes: 1, and a number of 33 bytes because its first bit is set.
    assert_eq!(der[..9], [0x30, 38, 0x02, 1, 1, 0x02, 33, 0, 0x80]);
    assert_eq!(der.len(), 40);
    for wrong in [&[1; 63][..], &[1; 65], &[1; 95], &[1; 128], &[1; 256], &[0; 64], &[0; 96], &[0; 132], &[]]
    {
        assert_eq!(ecdsa_der(wrong), None);
    }
    signature[32] = 0;
    assert_eq!(ecdsa_der(&signature), None);
    // P-521: more than 127 bytes take a length of two octets.
    let long = ecdsa_der(&[0x7f; 132]).unwrap();
    assert_eq!(long[..6], [0x30, 0x81, 136, 0x02, 66, 0x7f]);
    assert_eq!(long.len(), 139);
    assert_eq!(ecdsa_der(&[0xff; 96]).unwrap()[..5], [0x30, 102, 0x02, 49, 0]);

    for seed in 1..20 {
        let signature = Signer::new(seed).signature("input");
        let der = p256::ecdsa::DerSignature::from_bytes(&ecdsa_der(&signature).unwrap()).unwrap();
        let back = p256::ecdsa::Signature::try_from(der).unwrap();
        assert_eq!(back.to_bytes().as_slice(), signature);
    }
}
