//! The keys of all issuers, as of now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_identity::Jwk;

use super::KeySources;

/// Keys that are written in the rules do not get old: 9999-12-31T23:59:59Z.
pub const NEVER: i64 = 253_402_300_799;

/// One issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKeys {
    /// None when a SPIFFE trust domain has withdrawn them all.
    pub keys: Vec<Jwk>,
    /// Unix seconds; afterwards the filter refuses the issuer's tokens.
    pub valid_until: i64,
}

/// The keys of every issuer, by name. Whoever is missing has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
    /// Grows with every change.
    pub version: u64,
    issuers: BTreeMap<String, Arc<IssuerKeys>>,
    /// What this is the answer to.
    pub sources: Arc<KeySources>,
    /// Issuers without keys that were not asked yet.
    pub pending: BTreeSet<String>,
}

// === impl KeyRing ===

impl KeyRing {
    /// The keys of an issuer.
    pub fn get(&self, name: &str) -> Option<&IssuerKeys> {
        self.issuers.get(name).map(Arc::as_ref)
    }

    /// Whether an issuer has a key of this id. A token without one names none.
    pub(super) fn has(&self, name: &str, key_id: &str) -> bool {
        self.get(name).is_some_and(|keys| keys.keys.iter().any(|key| key.key_id() == Some(key_id)))
    }

    pub(super) fn set(&mut self, name: &str, keys: IssuerKeys) {
        self.issuers.insert(name.to_owned(), Arc::new(keys));
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.issuers.retain(|name, _| keep(name));
        self.pending.retain(|name| keep(name));
    }
}
