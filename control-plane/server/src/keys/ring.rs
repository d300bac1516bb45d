//! The keys of all issuers, as of now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_identity::Jwk;
use tidegate_identity::keys::{KeySelection, select};

use crate::clock;

/// Keys that are written in the rules do not get old: 9999-12-31T23:59:59Z.
pub const NEVER: i64 = 253_402_300_799;

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeySource {
    /// Written in the rules, as the text of a JWKS document.
    Inline(String),
    /// A JWKS document at this URL.
    Url(String),
    /// Found through the discovery document of this issuer.
    Discovery(String),
}

/// By name of the TrustedIssuer.
pub type KeySources = BTreeMap<String, KeySource>;

/// One issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKeys {
    /// None when the issuer was never reached.
    pub keys: Vec<Jwk>,
    /// Unix seconds; afterwards the filter refuses the issuer's tokens.
    pub valid_until: i64,
}

/// Keys as they came, for the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fetched {
    /// From where. Keys of another source never count.
    pub source: KeySource,
    /// Unix seconds.
    pub at: i64,
    /// The JWKS document.
    pub document: String,
}

/// What is known of one issuer's keys, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReport {
    /// `iss`-independent name of the TrustedIssuer.
    pub name: String,
    /// How many keys are in use.
    pub keys: usize,
    /// Keys of the document that are not fit, and why.
    pub refused: Vec<String>,
    /// Unix seconds; absent when no keys are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<i64>,
    /// Unix seconds of the last success; absent for keys that are written in the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<i64>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The keys of every issuer, by name. Whoever is missing has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
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

    pub(super) fn set(&mut self, name: &str, keys: IssuerKeys) {
        self.issuers.insert(name.to_owned(), Arc::new(keys));
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.issuers.retain(|name, _| keep(name));
        self.pending.retain(|name| keep(name));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.issuers.remove(name);
    }
}

// === impl Fetched ===

impl Fetched {
    /// The keys, and which ones of the document are not fit. A document without any fit key is an error: it is more
    /// likely broken than meant.
    pub(super) fn keys(&self) -> Result<(IssuerKeys, Vec<String>), String> {
        let KeySelection { keys, refused } = select(&self.document).map_err(|error| error.to_string())?;
        let refused: Vec<String> =
            refused.iter().map(|(position, why)| format!("keys[{position}]: {why}")).collect();
        if keys.is_empty() {
            return Err(match refused.as_slice() {
                [] => "the key set is empty".to_owned(),
                refused => format!("the key set has no key that is fit: {}", refused.join("; ")),
            });
        }
        let valid_until = match self.source {
            KeySource::Inline(_) => NEVER,
            KeySource::Url(_) | KeySource::Discovery(_) => clock::half_a_day_to_a_day_after(self.at),
        };
        Ok((IssuerKeys { keys, valid_until }, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    fn fetched(source: KeySource, at: i64, document: &str) -> Fetched {
        Fetched { source, at, document: document.to_owned() }
    }

    #[test]
    fn keys_count_for_half_a_day_to_a_day_and_change_rarely() {
        let source = KeySource::Url("https://issuer.example/keys".into());
        let document = crate::keys::testing::key_set("k1");
        let valid_until = |at| fetched(source.clone(), at, &document).keys().unwrap().0.valid_until;
        let mut distinct = std::collections::BTreeSet::new();
        for minutes in (0..48 * 60).step_by(5) {
            let at = 1_800_000_000 + minutes * 60;
            let remaining = valid_until(at) - at;
            assert!((12 * HOUR..=24 * HOUR).contains(&remaining), "{remaining}");
            distinct.insert(valid_until(at));
        }
        assert!(distinct.len() <= 5, "{distinct:?}");
    }

    #[test]
    fn keys_in_the_rules_do_not_get_old() {
        let document = crate::keys::testing::key_set("k1");
        let (keys, _) = fetched(KeySource::Inline(document.clone()), 0, &document).keys().unwrap();
        assert_eq!((keys.keys.len(), keys.valid_until), (1, NEVER));
    }

    #[test]
    fn a_document_without_a_fit_key_is_an_error_that_says_why() {
        let source = KeySource::Url("https://issuer.example/keys".into());
        let keys = |document: &str| fetched(source.clone(), 0, document).keys().unwrap_err();
        assert_eq!(keys(r#"{"keys": []}"#), "the key set is empty");
        let symmetric = keys(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#);
        assert!(symmetric.contains("keys[0]") && symmetric.contains("oct"), "{symmetric}");
        assert!(keys("<html>").contains("key set"), "{}", keys("<html>"));
    }
}
