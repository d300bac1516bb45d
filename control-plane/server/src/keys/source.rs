//! Where the keys of issuers come from, as the rules say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_identity::PackKind;

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeySource {
    /// Written in the rules, as the text of a JWKS document.
    Inline(String),
    /// A JWKS document at this URL.
    Url(String),
    /// Found through the discovery document of this issuer. For several tenants of Microsoft Entra ID it is the template that
    /// Entra publishes for them all, with `{tenantid}` as it is written there.
    Discovery(String),
}

/// One TrustedIssuer, as far as its keys are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSource {
    /// Where its keys come from.
    pub keys: KeySource,
    /// The `iss` of its tokens.
    pub issuers: Vec<String>,
    /// What its tokens look like.
    pub pack: PackKind,
    /// Whether any rule names it. Keys of others are neither fetched nor pushed.
    pub used: bool,
    /// After how many seconds its keys should be replaced; `None`: nobody is reminded.
    pub rotate_every_s: Option<i64>,
    /// Unix seconds from which on its tokens are refused; 0: never.
    pub retire_at: i64,
}

/// By name of the TrustedIssuer.
pub type KeySources = BTreeMap<String, IssuerSource>;

// === impl KeySource ===

impl KeySource {
    /// Whether the keys are written in the rules, so that there is nothing to fetch.
    pub fn is_inline(&self) -> bool {
        matches!(self, Self::Inline(_))
    }
}

// === impl IssuerSource ===

impl IssuerSource {
    /// Whether both have the same keys, whatever else differs.
    pub(super) fn has_keys_of(&self, other: &Self) -> bool {
        self.keys == other.keys && self.pack == other.pack && self.used == other.used
    }
}
