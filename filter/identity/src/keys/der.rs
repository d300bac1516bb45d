//! The little DER (X.690) that the host's signature check needs.

use super::Curve;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// `AlgorithmIdentifier` of `rsaEncryption`, parameters NULL (RFC 3279 §2.3.1).
const RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `id-ecPublicKey` (RFC 5480 §2.1.1).
const EC: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `secp256r1`, `secp384r1` and `secp521r1` (RFC 5480 §2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
/// `id-Ed25519` (RFC 8410 §3), without parameters.
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

/// An element: tag, length, content.
fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let length = content.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    let octets = length.to_be_bytes();
    let octets = octets.get(octets.iter().take_while(|b| **b == 0).count()..).unwrap_or_default();
    let mut der = Vec::with_capacity(length.saturating_add(8));
    der.push(tag);
    match (octets, u8::try_from(octets.len())) {
        ([], _) => der.push(0),
        ([short], _) if *short < 0x80 => der.push(*short),
        // At most eight octets, so that this neither fails nor reaches the indefinite form.
        (_, count) => {
            der.push(0x80 | count.unwrap_or(0));
            der.extend_from_slice(octets);
        }
    }
    for part in content {
        der.extend_from_slice(part);
    }
    der
}

/// An INTEGER from a big-endian number that is not negative.
pub(crate) fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    let number = number.get(zeros..).unwrap_or_default();
    // The first bit is the sign; zero itself is one zero octet.
    let sign: &[u8] = if number.first().is_none_or(|b| *b >= 0x80) { &[0] } else { &[] };
    element(INTEGER, &[sign, number])
}

/// A SEQUENCE of these elements.
pub(crate) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, elements)
}

pub(super) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = sequence(&[&integer(modulus), &integer(exponent)]);
    sequence(&[&RSA, &element(BIT_STRING, &[&[0], &key])])
}

pub(super) fn ec_spki(curve: Curve, point: &[u8]) -> Vec<u8> {
    let curve: &[u8] = match curve {
        Curve::P256 => &P256,
        Curve::P384 => &P384,
        Curve::P521 => &P521,
    };
    sequence(&[&sequence(&[&EC, curve]), &element(BIT_STRING, &[&[0], point])])
}

pub(super) fn ed25519_spki(point: &[u8]) -> Vec<u8> {
    sequence(&[&sequence(&[&ED25519]), &element(BIT_STRING, &[&[0], point])])
}
