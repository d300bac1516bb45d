//! Keys as they came: what a document says, and what is remembered of it across restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tidegate_identity::keys::{KeySelection, select_for};
use tidegate_identity::{InvalidKey, Jwk, KeyUse, PackKind};

use super::fetch::reason;
use super::{IssuerKeys, KeySource, Known, NEVER};
use crate::bundle::sha256;
use crate::clock;

/// What is added to half a day or a day for which fetched keys count, in seconds. After a day or more without an answer of
/// the issuer it is told that they expire, and a day remains to mend it.
const COUNTS_FOR_S: i64 = 36 * 3600;

/// What is remembered of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// From where. Keys of another source never count.
    pub source: KeySource,
    /// When the issuer last said so. Unix seconds.
    pub at: i64,
    /// The JWKS document.
    pub document: String,
    /// Where it was found.
    #[serde(default)]
    pub url: String,
    /// Its entity tag there.
    #[serde(default)]
    pub etag: Option<String>,
    /// When each key was seen first, by thumbprint. Unix seconds.
    #[serde(default)]
    pub since: BTreeMap<String, i64>,
    /// When no key of the set before was in the one after. Unix seconds.
    #[serde(default)]
    pub replaced_at: Option<i64>,
}

/// What a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    pub keys: Vec<Jwk>,
    /// Keys that are not fit, and why.
    pub refused: Vec<String>,
    /// `spiffe_sequence`.
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint`.
    pub refresh_hint: Option<Duration>,
}

/// Members that the SPIFFE Trust Domain and Bundle standard adds to a JWKS document (section 4.1).
#[derive(Deserialize)]
struct Bundle {
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

// === impl Record ===

impl Record {
    /// What has come from `source`, and is not known better.
    pub(super) fn new(source: KeySource, document: String, at: i64) -> Self {
        let (url, etag, since, replaced_at) = Default::default();
        Self { source, at, document, url, etag, since, replaced_at }
    }

    /// As it counts at `now` (Unix seconds): nothing happened later, whatever the clock was when it was written down.
    pub(super) fn not_after(mut self, now: i64) -> Self {
        self.at = self.at.min(now);
        self.replaced_at = self.replaced_at.map(|at| at.min(now));
        self
    }

    /// Until when keys that the issuer last named at `at` count. Unix seconds.
    pub(super) fn valid_until(&self) -> i64 {
        match self.source {
            KeySource::Inline(_) => NEVER,
            KeySource::Url(_) | KeySource::Discovery(_) => {
                clock::half_a_day_to_a_day_after(self.at.saturating_add(COUNTS_FOR_S))
            }
        }
    }

    pub(super) fn keys(&self, document: &Document) -> IssuerKeys {
        IssuerKeys { keys: document.keys.clone(), valid_until: self.valid_until() }
    }

    /// What need not come again.
    pub(super) fn known(&self) -> Option<Known> {
        Some(Known { url: self.url.clone(), etag: self.etag.clone()? })
    }

    /// Remembers since when there is each of these keys; `before`: what was remembered until now. Returns whether all
    /// are new where there were others.
    pub(super) fn date(&mut self, keys: &[Jwk], before: &BTreeMap<String, i64>, now: i64) -> bool {
        let dated = keys.iter().map(thumbprint);
        self.since =
            dated.map(|key| (key.clone(), before.get(&key).map_or(now, |at| now.min(*at)))).collect();
        let is_another = |key: &String| !before.contains_key(key);
        !before.is_empty() && !self.since.is_empty() && self.since.keys().all(is_another)
    }

    /// When the youngest key was seen first.
    pub(super) fn youngest(&self) -> Option<i64> {
        self.since.values().copied().max()
    }
}

// === impl Document ===

impl Document {
    /// Reads a key set of an issuer with this pack. A document without any fit key is an error: it is more likely broken
    /// than meant. But for SPIFFE: "The keys parameter may contain an empty array, which indicates that the trust domain
    /// has revoked any previously published keys".
    pub(super) fn read(text: &str, pack: PackKind) -> Result<Self, String> {
        let KeySelection { keys, refused } = fit_keys(text, pack)?;
        let (sequence, refresh_hint) = match purpose(pack) {
            KeyUse::Sig => (None, None),
            KeyUse::JwtSvid => {
                // INVARIANT: the selection has refused duplicate members.
                let bundle: Bundle = serde_json::from_str(text)
                    .map_err(|error| reason(&format!("not a SPIFFE bundle: {error}")))?;
                (bundle.spiffe_sequence, bundle.spiffe_refresh_hint.map(Duration::from_secs))
            }
        };
        Ok(Self { keys, refused: refused.iter().map(told).collect(), sequence, refresh_hint })
    }
}

/// The keys of a set that are fit for an issuer with this pack, if any is, or if there need not be any.
pub(crate) fn fit_keys(text: &str, pack: PackKind) -> Result<KeySelection, String> {
    let purpose = purpose(pack);
    let selection = select_for(text, purpose).map_err(|error| error.to_string())?;
    if selection.keys.is_empty() && (purpose == KeyUse::Sig || !selection.refused.is_empty()) {
        let refused: Vec<String> = selection.refused.iter().map(told).collect();
        return Err(match refused.as_slice() {
            [] => "the key set is empty".to_owned(),
            refused => reason(&format!("the key set has no key that is fit: {}", refused.join("; "))),
        });
    }
    Ok(selection)
}

fn told((position, why): &(usize, InvalidKey)) -> String {
    reason(&format!("keys[{position}]: {why}"))
}

/// What the keys of an issuer with this pack are for.
fn purpose(pack: PackKind) -> KeyUse {
    if pack.pack().strict_header { KeyUse::JwtSvid } else { KeyUse::Sig }
}

/// What names a key whatever its `kid` is (RFC 7638 with SHA-256).
pub(super) fn thumbprint(key: &Jwk) -> String {
    // RFC 7638 §3.2: only what makes the key counts, in lexicographic order, without white space.
    let members = serde_json::to_value(key).unwrap_or_default();
    let members: BTreeMap<&str, &serde_json::Value> = members
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| matches!(*name, "crv" | "e" | "kty" | "n" | "x" | "y"))
        .collect();
    let text = serde_json::to_vec(&members).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(sha256(&text))
}

#[cfg(test)]
mod tests;
