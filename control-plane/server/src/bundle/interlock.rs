//! The interlock: a value per workload that its filter sets and Istio's own policy demands, where that could say nothing else of
//! callers without a certificate.
//!
//! All values come from one secret of the state folder, so that objects which are written at different times and places agree.
//!
//! INVARIANT: from the value of one workload follows nothing about another's.

use std::path::Path;

use aws_lc_rs::hmac;
use tidegate_compiler::WorkloadId;

use super::{BundleError, hex};
use crate::state::{self, StateDir, StateError};

const FILE: &str = "interlock-secret";
/// Bytes of the secret.
const SECRET: usize = 32;
/// Hexadecimal digits of a value: 128 bits.
const DIGITS: usize = 32;

/// Values of the interlock.
#[derive(Debug)]
pub struct Interlocks(hmac::Key);

// === impl Interlocks ===

impl Interlocks {
    /// Loads the secret, making it if it is not there yet.
    ///
    /// # Errors
    /// When it cannot be read, written or made.
    pub fn open(state: &StateDir) -> Result<Self, BundleError> {
        if let Some(secret) = state.read(FILE)? {
            return Ok(Self::parse(&secret).map_err(|why| state.damaged(FILE, why))?);
        }
        let mut secret = [0; SECRET];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| BundleError::Signing)?;
        state.write(FILE, &secret)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// The same of a state folder that another process may own; `None` when there is no secret.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn peek(root: &Path) -> Result<Option<Self>, StateError> {
        let Some(secret) = state::read(root, FILE)? else { return Ok(None) };
        let damaged = |why| StateError::Damaged { path: root.join(FILE), why };
        Self::parse(&secret).map(Some).map_err(damaged)
    }

    fn parse(secret: &[u8]) -> Result<Self, String> {
        match secret.len() {
            SECRET => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret))),
            other => Err(format!("it has {other} bytes instead of {SECRET}")),
        }
    }

    /// A workload's value.
    pub fn value(&self, workload: &WorkloadId) -> String {
        let tag = hmac::sign(&self.0, format!("tidegate interlock\0{workload}").as_bytes());
        let mut value = hex(tag.as_ref());
        value.truncate(DIGITS);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> WorkloadId {
        WorkloadId { namespace: "sales".into(), name: name.into() }
    }

    #[test]
    fn values_stay_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Interlocks::peek(folder.path()).unwrap().is_none());
        let open = || Interlocks::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let first = open().value(&id("a"));
        assert_eq!(first.len(), 32);
        assert_eq!(first, open().value(&id("a")));
        assert_eq!(first, Interlocks::peek(folder.path()).unwrap().unwrap().value(&id("a")));
        assert_ne!(first, open().value(&id("b")));
        let other = tempfile::tempdir().unwrap();
        let elsewhere = Interlocks::open(&StateDir::open(other.path()).unwrap()).unwrap();
        assert_ne!(first, elsewhere.value(&id("a")));
    }

    #[test]
    fn a_damaged_secret_is_an_error_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.write(FILE, b"short").unwrap();
        assert!(Interlocks::open(&state).is_err());
        assert!(Interlocks::peek(folder.path()).is_err());
        assert_eq!(state.read(FILE).unwrap().as_deref(), Some(&b"short"[..]));
    }
}
