//! The keys that sign manifests.
//!
//! Two keys exist at any time: the current one signs, the next one is already trusted by every filter that was
//! configured since. To rotate: stop `serve`, move `next-signing-key.p8` over `signing-key.p8`, start; a new next key is
//! made, and manifests are signed anew.
//!
//! INVARIANT: a private key leaves this module only into its own file, readable by its owner only.

use std::path::Path;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tidegate_proto::v1 as pb;

use super::{BundleError, hex, sha256};
use crate::state::{self, StateDir, StateError};

const CURRENT_FILE: &str = "signing-key.p8";
const NEXT_FILE: &str = "next-signing-key.p8";

/// The signing keys.
#[derive(Debug)]
pub struct Keyring {
    current: SigningKey,
    next: SigningKey,
    random: SystemRandom,
}

#[derive(Debug)]
struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
    spki_der: Vec<u8>,
}

/// A public key that filters trust, as the filter's plugin configuration states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// What [`pb::Signature::key_id`] says: the first 16 hexadecimal digits of the SHA-256 of the public key.
    pub id: String,
    /// SubjectPublicKeyInfo (RFC 5280 section 4.1), DER, base64 with padding. ECDSA P-256.
    #[serde(rename = "publicKey")]
    pub public_key: String,
}

/// What precedes the manifest of an export of evidence in the bytes that are signed, so that a signature of one kind can
/// never be taken for one of the other.
const EVIDENCE_CONTEXT: &[u8] = b"tidegate.v1.Evidence\0";

/// A signature over the manifest of an export of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceSignature {
    /// The key.
    pub key: TrustedKey,
    /// ECDSA P-256 with SHA-256, r || s.
    pub signature: Vec<u8>,
}

// === impl Keyring ===

impl Keyring {
    /// Loads the keys, making those that are not there yet.
    pub fn open(state: &StateDir) -> Result<Self, BundleError> {
        Ok(Self {
            current: SigningKey::open(state, CURRENT_FILE)?,
            next: SigningKey::open(state, NEXT_FILE)?,
            random: SystemRandom::new(),
        })
    }

    /// The keys of a folder that nobody writes to, such as a mounted Secret; `None` when one is not there.
    pub fn read(folder: &Path) -> Result<Option<Self>, BundleError> {
        let read = |name: &str| -> Result<Option<SigningKey>, BundleError> {
            let Some(pkcs8) = state::read(folder, name)? else { return Ok(None) };
            let damaged = |why| StateError::Damaged { path: folder.join(name), why };
            Ok(Some(SigningKey::parse(&pkcs8).map_err(damaged)?))
        };
        let both = read(CURRENT_FILE)?.zip(read(NEXT_FILE)?);
        Ok(both.map(|(current, next)| Self { current, next, random: SystemRandom::new() }))
    }

    /// What filters are told to trust, by the state folder of a process that may run; `None` when there are no keys.
    pub fn peek(state: &Path) -> Result<Option<Vec<TrustedKey>>, BundleError> {
        Ok(Self::read(state)?.map(|keys| keys.trusted()))
    }

    /// What filters are told to trust: the current key and the next.
    pub fn trusted(&self) -> Vec<TrustedKey> {
        [&self.current, &self.next].map(SigningKey::trusted).into()
    }

    /// Signs a serialized manifest.
    pub fn sign(&self, manifest: &[u8]) -> Result<pb::Signature, BundleError> {
        let input = tidegate_proto::manifest_signing_input(manifest);
        let signature = self.current.pair.sign(&self.random, &input).map_err(|_| BundleError::Signing)?;
        Ok(pb::Signature { key_id: self.current.id.clone(), signature: signature.as_ref().to_vec() })
    }

    /// Signs the manifest of an export of evidence. Filters do not take such a signature for one over what they enforce.
    pub fn sign_evidence(&self, manifest: &[u8]) -> Result<EvidenceSignature, BundleError> {
        let input = [EVIDENCE_CONTEXT, manifest].concat();
        let signature = self.current.pair.sign(&self.random, &input).map_err(|_| BundleError::Signing)?;
        Ok(EvidenceSignature { key: self.current.trusted(), signature: signature.as_ref().to_vec() })
    }

    /// The public key that signs.
    pub fn current(&self) -> TrustedKey {
        self.current.trusted()
    }

    /// Whether the current key made one of the signatures.
    pub fn is_signed(&self, signed: &pb::SignedManifest) -> bool {
        self.current.has_signed(signed)
    }

    /// Whether one of the keys that filters trust made one of the signatures: that of the replica that leads may be the next
    /// one.
    pub fn has_signed(&self, signed: &pb::SignedManifest) -> bool {
        self.current.has_signed(signed) || self.next.has_signed(signed)
    }
}

// === impl TrustedKey ===

impl TrustedKey {
    /// SHA-256 of the public key, hexadecimal; `None`: it is not base64.
    pub fn fingerprint(&self) -> Option<String> {
        Some(hex(&sha256(&STANDARD.decode(&self.public_key).ok()?)))
    }

    /// Whether it made this signature over the manifest of an export of evidence.
    pub fn has_signed_evidence(&self, manifest: &[u8], signature: &[u8]) -> bool {
        let Ok(spki) = STANDARD.decode(&self.public_key) else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, spki);
        key.verify(&[EVIDENCE_CONTEXT, manifest].concat(), signature).is_ok()
    }
}

// === impl SigningKey ===

impl SigningKey {
    fn open(state: &StateDir, name: &str) -> Result<Self, BundleError> {
        let pkcs8 = match state.read(name)? {
            Some(pkcs8) => pkcs8,
            None => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
                let pkcs8 = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| BundleError::Signing)?;
                state.write(name, pkcs8.as_ref())?;
                pkcs8.as_ref().to_vec()
            }
        };
        Ok(Self::parse(&pkcs8).map_err(|why| state.damaged(name, why))?)
    }

    fn parse(pkcs8: &[u8]) -> Result<Self, String> {
        let invalid = |error: &dyn std::fmt::Display| format!("not an ECDSA P-256 key in PKCS #8: {error}");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|error| invalid(&error))?;
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|error| invalid(&error))?;
        let spki_der = spki.as_ref().to_vec();
        let mut id = hex(&sha256(&spki_der));
        id.truncate(16);
        Ok(Self { id, pair, spki_der })
    }

    fn has_signed(&self, signed: &pb::SignedManifest) -> bool {
        let input = tidegate_proto::manifest_signing_input(&signed.manifest);
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        signed.signatures.iter().any(|by| by.key_id == self.id && key.verify(&input, &by.signature).is_ok())
    }

    fn trusted(&self) -> TrustedKey {
        TrustedKey { id: self.id.clone(), public_key: STANDARD.encode(&self.spki_der) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::signature::Verifier;
    use p256::pkcs8::DecodePublicKey;

    #[test]
    fn a_filter_with_the_trusted_key_can_verify_with_another_implementation() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let signature = keys.sign(b"manifest").unwrap();
        let trusted = keys.trusted().into_iter().find(|key| key.id == signature.key_id).unwrap();
        let spki = STANDARD.decode(trusted.public_key).unwrap();
        let key = p256::ecdsa::VerifyingKey::from_public_key_der(&spki).unwrap();
        let parsed = p256::ecdsa::Signature::from_slice(&signature.signature).unwrap();
        key.verify(b"tidegate.v1.Manifest\0manifest", &parsed).unwrap();
        assert!(key.verify(b"manifest", &parsed).is_err(), "the context is part of what is signed");
    }

    #[test]
    fn evidence_is_signed_as_evidence_and_as_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let EvidenceSignature { key, signature } = keys.sign_evidence(b"m").unwrap();
        assert_eq!(key, keys.current());
        assert!(key.has_signed_evidence(b"m", &signature));
        assert!(!key.has_signed_evidence(b"n", &signature));
        assert!(!key.has_signed_evidence(b"m", &signature[1..]));
        assert!(!keys.trusted()[1].has_signed_evidence(b"m", &signature), "another key");
        let as_manifest = pb::Signature { key_id: key.id.clone(), signature };
        let signed = pb::SignedManifest { manifest: b"m".to_vec(), signatures: vec![as_manifest] };
        assert!(!keys.is_signed(&signed), "filters do not take it");
        let manifest = keys.sign(b"m").unwrap();
        assert!(!key.has_signed_evidence(b"m", &manifest.signature), "nor the other way");
        assert_eq!(key.fingerprint().unwrap()[..16], key.id);
        let other = TrustedKey { public_key: "?".to_owned(), ..key };
        assert!(other.fingerprint().is_none() && !other.has_signed_evidence(b"m", &manifest.signature));
    }

    #[test]
    fn keys_stay_across_restarts_and_differ_from_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap().trusted();
        let first = open();
        assert_eq!(first, open());
        assert_eq!(first.len(), 2);
        assert_ne!(first[0].id, first[1].id);
    }

    #[test]
    fn a_rotated_key_was_trusted_before_it_signs() {
        let folder = tempfile::tempdir().unwrap();
        let before = Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let old =
            pb::SignedManifest { manifest: b"m".to_vec(), signatures: vec![before.sign(b"m").unwrap()] };
        assert!(before.is_signed(&old));
        std::fs::rename(folder.path().join(NEXT_FILE), folder.path().join(CURRENT_FILE)).unwrap();
        let after = Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let id = after.sign(b"m").unwrap().key_id;
        assert!(before.trusted().iter().any(|key| key.id == id));
        assert!(!after.is_signed(&old), "manifests of the old key are signed anew");
    }

    #[test]
    fn a_folder_that_is_only_read_has_both_keys_or_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Keyring::read(folder.path()).unwrap().is_none());
        let own = Keyring::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        assert_eq!(Keyring::read(folder.path()).unwrap().unwrap().trusted(), own.trusted());
        std::fs::remove_file(folder.path().join(NEXT_FILE)).unwrap();
        assert!(Keyring::read(folder.path()).unwrap().is_none());
        std::fs::write(folder.path().join(NEXT_FILE), b"not a key").unwrap();
        assert!(Keyring::read(folder.path()).is_err());
    }

    #[test]
    fn a_damaged_key_is_an_error_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.write(CURRENT_FILE, b"not a key").unwrap();
        assert!(Keyring::open(&state).is_err());
        assert_eq!(state.read(CURRENT_FILE).unwrap().as_deref(), Some(&b"not a key"[..]));
    }
}
