//! Bundles: content-addressed sections under a signed manifest, one per workload.
//!
//! INVARIANT: a revision is on disk before anything signed with it leaves this module, and equal content keeps its
//! manifest, so filters never see a revision go back or two contents under one revision.

mod interlock;
mod key;
mod publisher;
mod release;
mod revision;
mod section;

pub use interlock::Interlocks;
pub use key::{EvidenceSignature, Keyring, TrustedKey};
pub use publisher::{BundleError, Contents, Publisher, Releases};
pub use release::Release;
pub use revision::{Revision, Revisions};
pub use section::{Section, SectionStore};

/// SHA-256.
pub type Sha256 = [u8; 32];

/// The digest of `content`.
pub fn sha256(content: &[u8]) -> Sha256 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.as_ref());
    sha256
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
