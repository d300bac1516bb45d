#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::{PureRust, VerifySignature, check, ecdsa_der};
use crate::base64url;
use crate::keys::{Algorithm, Jwk, PublicKey};
use crate::testing::Signer;

/// RFC 7515 appendix A.2: RS256.
const RS256: [&str; 3] = [
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ\
     S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2\
     R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcD\
     TW9gb54h4FRWyuXpoQ",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp\
     0cnVlfQ",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU\
     Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d\
     O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig\
     cN_IoypGlUPQGe77Rw",
];

/// RFC 7515 appendix A.3: ES256.
const ES256: [&str; 4] = [
    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp\
     0cnVlfQ",
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
];

fn bytes(text: &str) -> Vec<u8> {
    base64url::decode(text.as_bytes()).unwrap()
}

fn rfc_rsa() -> PublicKey {
    Jwk::rsa(None, None, &bytes(RS256[0]), &[1, 0, 1]).unwrap().into()
}

fn rfc_p256() -> PublicKey {
    let coordinate = |text| bytes(text).try_into().unwrap();
    Jwk::p256(None, None, coordinate(ES256[0]), coordinate(ES256[1])).unwrap().into()
}

/// Answers as told, to see what reaches an implementation.
struct Always(bool);

impl VerifySignature for Always {
    fn verify(&self, _: Algorithm, _: &PublicKey, _: &[u8], _: &[u8]) -> bool {
        self.0
    }
}

#[test]
fn verifies_the_rfcs_rs256_example() {
    let (key, input, signature) = (rfc_rsa(), RS256[1].as_bytes(), bytes(RS256[2]));
    assert!(check(&PureRust, Algorithm::Rs256, &key, input, &signature));
    assert!(!check(&PureRust, Algorithm::Rs384, &key, input, &signature));
    assert!(!check(&PureRust, Algorithm::Rs512, &key, input, &signature));
    assert!(!check(&PureRust, Algorithm::Es256, &key, input, &signature));
    assert!(!check(&PureRust, Algorithm::Rs256, &key, &input[1..], &signature));
    for at in [0, 1, 128, 255] {
        let mut wrong = signature.clone();
        wrong[at] ^= 1;
        assert!(!check(&PureRust, Algorithm::Rs256, &key, input, &wrong), "{at}");
    }
}

#[test]
fn verifies_the_rfcs_es256_example() {
    let (key, input, signature) = (rfc_p256(), ES256[2].as_bytes(), bytes(ES256[3]));
    assert!(check(&PureRust, Algorithm::Es256, &key, input, &signature));
    assert!(!check(&PureRust, Algorithm::Rs256, &key, input, &signature));
    assert!(!check(&PureRust, Algorithm::Es256, &key, &input[1..], &signature));
    for at in [0, 31, 32, 63] {
        let mut wrong = signature.clone();
        wrong[at] ^= 1;
        assert!(!check(&PureRust, Algorithm::Es256, &key, input, &wrong), "{at}");
    }
}

#[test]
fn hands_over_only_signatures_of_the_right_length_and_fit_keys() {
    let (rsa, p256) = (rfc_rsa(), rfc_p256());
    assert!(check(&Always(true), Algorithm::Rs256, &rsa, b"", &[0; 256]));
    assert!(check(&Always(true), Algorithm::Es256, &p256, b"", &[0; 64]));
    assert!(!check(&Always(false), Algorithm::Es256, &p256, b"", &[0; 64]));
    for length in [0, 1, 64, 255, 257, 512] {
        assert!(!check(&Always(true), Algorithm::Rs256, &rsa, b"", &vec![0; length]), "{length}");
    }
    for length in [0, 32, 63, 65, 70, 72, 96, 256] {
        assert!(!check(&Always(true), Algorithm::Es256, &p256, b"", &vec![0; length]), "{length}");
    }
    assert!(!check(&Always(true), Algorithm::Es256, &rsa, b"", &[0; 256]));
    assert!(!check(&Always(true), Algorithm::Rs256, &p256, b"", &[0; 64]));
    // A key that is only for another algorithm of its family.
    let only: PublicKey =
        Jwk::rsa(None, Some(Algorithm::Rs512), &bytes(RS256[0]), &[1, 0, 1]).unwrap().into();
    assert!(!check(&Always(true), Algorithm::Rs256, &only, b"", &[0; 256]));
    assert!(check(&Always(true), Algorithm::Rs512, &only, b"", &[0; 256]));
}

#[test]
fn an_implementation_refuses_misfits_by_itself() {
    let (rsa, p256) = (rfc_rsa(), rfc_p256());
    for signature in [&[][..], &[0; 64], &[0xff; 64], &[0; 256], &[0xff; 256], &[0; 1024]] {
        for algorithm in Algorithm::ALL {
            assert!(!PureRust.verify(algorithm, &rsa, b"x", signature));
            assert!(!PureRust.verify(algorithm, &p256, b"x", signature));
        }
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
    for wrong in [&[1; 63][..], &[1; 65], &[0; 64], &[]] {
        assert_eq!(ecdsa_der(wrong), None);
    }
    signature[32] = 0;
    assert_eq!(ecdsa_der(&signature), None);

    for seed in 1..20 {
        let signature = Signer::new(seed).signature("input");
        let der = p256::ecdsa::DerSignature::from_bytes(&ecdsa_der(&signature).unwrap()).unwrap();
        let back = p256::ecdsa::Signature::try_from(der).unwrap();
        assert_eq!(back.to_bytes().as_slice(), signature);
    }
}
