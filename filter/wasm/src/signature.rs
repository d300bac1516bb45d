//! Signatures: by the proxy's own cryptography where it offers that, else in pure Rust.
//!
//! BoringSSL behind Envoy's foreign function is an order of magnitude faster than anything inside V8, which makes it a
//! matter of resisting floods, not only of speed. Which path is in use is probed once with a known signature: a proxy
//! without the function, or with one that does not tell right from wrong, gets the fallback.

use std::cell::Cell;

use tidegate_identity::keys::{Curve, KeyFamily};
use tidegate_identity::signature::ecdsa_der;
use tidegate_identity::{Algorithm, PublicKey, PureRust, Verdict, VerifySignature};

use crate::counters::Counters;
use crate::host::{Host, Level, Metric};

/// Verifies by the host or by the fallback.
#[derive(Clone, Copy)]
pub struct Signatures<'h> {
    host: &'h dyn Host,
    path: &'h Path,
    counters: &'h Counters,
}

/// Which path is in use. One per VM.
#[derive(Debug)]
pub struct Path {
    probed: Cell<Probed>,
    fips: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probed {
    NotYet,
    Host,
    Fallback,
}

// === impl Path ===

impl Path {
    /// Not probed yet. `fips`: never in pure Rust, which nobody has validated.
    pub fn new(fips: bool) -> Self {
        Self { probed: Cell::new(Probed::NotYet), fips }
    }

    /// Probes the host unless that has been done; whether it verifies.
    fn by_host(&self, host: &dyn Host) -> bool {
        if self.probed.get() == Probed::NotYet {
            let tells =
                |message: &[u8]| host.verify_signature("sha256", &PROBE_KEY, message, &PROBE_SIGNATURE);
            let right = tells(PROBE_MESSAGE) == Some(true) && tells(b"simple") == Some(false);
            self.probed.set(if right { Probed::Host } else { Probed::Fallback });
            let (level, what) = match (right, self.fips) {
                (true, false) => (Level::Info, "RS* and ES* by the proxy, PS* and EdDSA in WebAssembly"),
                (true, true) => (Level::Info, "RS* and ES* by the proxy, others not at all (`fips`)"),
                (false, false) => (
                    Level::Warn,
                    "all in WebAssembly, which is slow: this proxy offers no `verify_signature`",
                ),
                (false, true) => (
                    Level::Error,
                    "none can be verified: this proxy offers no `verify_signature`, and `fips` forbids anything else",
                ),
            };
            host.log(level, &format!("tidegate: signatures: {what}"));
        }
        self.probed.get() == Probed::Host
    }
}

// === impl Signatures ===

impl<'h> Signatures<'h> {
    /// Verifies with this host.
    pub fn new(host: &'h dyn Host, path: &'h Path, counters: &'h Counters) -> Self {
        Self { host, path, counters }
    }

    /// How many microseconds a check takes, roughly; the figures are those of `filter/README.md` ("Signatures by the
    /// proxy") and of measurements in V8. RSA grows with the square of the modulus, which is as long as the
    /// signature.
    pub fn cost_us(&self, algorithm: Algorithm, signature_len: usize) -> u32 {
        let square = u32::try_from(signature_len).map_or(u32::MAX, |len| len.saturating_mul(len));
        if self.path.by_host(self.host) && algorithm.host_hash().is_some() {
            match algorithm.family() {
                KeyFamily::Rsa => square / 4096,
                KeyFamily::Ec(Curve::P256) => 35,
                KeyFamily::Ec(Curve::P384) => 310,
                KeyFamily::Ec(Curve::P521) => 750,
                KeyFamily::Ed25519 => 0,
            }
        } else {
            match algorithm.family() {
                KeyFamily::Rsa => square / 175,
                KeyFamily::Ec(Curve::P256) => 700,
                KeyFamily::Ec(Curve::P384) => 2_000,
                KeyFamily::Ec(Curve::P521) => 5_000,
                KeyFamily::Ed25519 => 125,
            }
        }
    }
}

impl VerifySignature for Signatures<'_> {
    fn verify(&self, algorithm: Algorithm, key: &PublicKey, input: &[u8], signature: &[u8]) -> Verdict {
        let by_host = self.path.by_host(self.host);
        let Some(hash) = algorithm.host_hash().filter(|_| by_host) else {
            if self.path.fips {
                return Verdict::Unsupported;
            }
            self.counters.add(Metric::FallbackSignatures);
            return PureRust.verify(algorithm, key, input, signature);
        };
        let der;
        let signature = match algorithm.family() {
            KeyFamily::Ec(_) => match ecdsa_der(signature) {
                Some(converted) => {
                    der = converted;
                    der.as_slice()
                }
                None => return Verdict::Invalid,
            },
            KeyFamily::Rsa | KeyFamily::Ed25519 => signature,
        };
        self.counters.add(Metric::HostSignatures);
        // A host that fails now has told nothing: that is not "yes".
        match self.host.verify_signature(hash, key.spki_der(), input, signature) {
            Some(true) => Verdict::Valid,
            Some(false) | None => Verdict::Invalid,
        }
    }
}

/// The message, key and signature of RFC 6979 appendix A.2.5 (P-256, SHA-256).
const PROBE_MESSAGE: &[u8] = b"sample";

/// SubjectPublicKeyInfo, DER.
const PROBE_KEY: [u8; 91] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86,
    0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04, 0x60, 0xFE, 0xD4, 0xBA, 0x25, 0x5A, 0x9D,
    0x31, 0xC9, 0x61, 0xEB, 0x74, 0xC6, 0x35, 0x6D, 0x68, 0xC0, 0x49, 0xB8, 0x92, 0x3B, 0x61, 0xFA, 0x6C,
    0xE6, 0x69, 0x62, 0x2E, 0x60, 0xF2, 0x9F, 0xB6, 0x79, 0x03, 0xFE, 0x10, 0x08, 0xB8, 0xBC, 0x99, 0xA4,
    0x1A, 0xE9, 0xE9, 0x56, 0x28, 0xBC, 0x64, 0xF2, 0xF1, 0xB2, 0x0C, 0x2D, 0x7E, 0x9F, 0x51, 0x77, 0xA3,
    0xC2, 0x94, 0xD4, 0x46, 0x22, 0x99,
];

/// ECDSA-Sig-Value, DER.
const PROBE_SIGNATURE: [u8; 72] = [
    0x30, 0x46, 0x02, 0x21, 0x00, 0xEF, 0xD4, 0x8B, 0x2A, 0xAC, 0xB6, 0xA8, 0xFD, 0x11, 0x40, 0xDD, 0x9C,
    0xD4, 0x5E, 0x81, 0xD6, 0x9D, 0x2C, 0x87, 0x7B, 0x56, 0xAA, 0xF9, 0x91, 0xC3, 0x4D, 0x0E, 0xA8, 0x4E,
    0xAF, 0x37, 0x16, 0x02, 0x21, 0x00, 0xF7, 0xCB, 0x1C, 0x94, 0x2D, 0x65, 0x7C, 0x41, 0xD4, 0x36, 0xC7,
    0xA1, 0xB6, 0xE2, 0x9F, 0x65, 0xF3, 0xE9, 0x00, 0xDB, 0xB9, 0xAF, 0xF4, 0x06, 0x4D, 0xC4, 0xAB, 0x2F,
    0x84, 0x3A, 0xCD, 0xA8,
];

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Verifier as _;
    use p256::ecdsa::{Signature, VerifyingKey};

    use super::*;

    #[test]
    fn the_probe_is_a_signature_over_its_message_and_no_other() {
        let key = VerifyingKey::from_sec1_bytes(&PROBE_KEY[26..]).unwrap();
        let signature = Signature::from_der(&PROBE_SIGNATURE).unwrap();
        assert!(key.verify(PROBE_MESSAGE, &signature).is_ok());
        assert!(key.verify(b"simple", &signature).is_err());
    }
}
