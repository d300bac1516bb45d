//! What is known of the issuers' keys, for people: what is in use, since when, until when, and what wants attention.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tidegate_identity::Jwk;

use super::record::{Record, thumbprint};
use super::{IssuerKeys, IssuerSource, KeySource};

const DAY_S: i64 = 24 * 3600;
/// Keys that expire sooner are told of, in seconds.
const EXPIRES_SOON_S: i64 = DAY_S;
/// An issuer that retires sooner is told of, in seconds.
const RETIRES_SOON_S: i64 = 30 * DAY_S;
/// How long it is told that all keys were replaced, in seconds.
const REPLACED_LATELY_S: i64 = DAY_S;

/// What is shown at the admin interface.
pub type Reports = Mutex<BTreeMap<String, IssuerReport>>;

/// What is known of one issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReport {
    /// Name of the TrustedIssuer.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuers: Vec<String>,
    /// What its tokens look like.
    pub pack: String,
    /// Whether any rule names it. Keys of others are not fetched.
    pub used: bool,
    /// Where its keys come from.
    pub source: SourceReport,
    /// The keys in use.
    pub keys: Vec<KeyReport>,
    /// Keys of the document that are not fit, and why.
    pub refused: Vec<String>,
    /// Unix seconds; absent when no keys are there, and for keys that are written in the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<i64>,
    /// Unix seconds of the last success; absent for keys that are written in the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<i64>,
    /// Unix seconds of the next attempt; absent while one is under way, and where none is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_fetch_at: Option<i64>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What wants attention.
    pub alerts: Vec<AlertReport>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "at")]
pub enum SourceReport {
    /// They are written in the rules.
    Inline,
    /// They are at this URL.
    Url(String),
    /// They are where the metadata of this issuer says.
    Discovery(String),
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// `kid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// `alg`: if given, the only algorithm that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// `RSA 2048`, `P-256`, `Ed25519`, …
    pub kind: String,
    /// Names the key whatever its `kid` is (RFC 7638 with SHA-256).
    pub thumbprint: String,
    /// Unix seconds since which it is known here.
    pub since: i64,
    /// The only `iss` that it is for, as Microsoft Entra ID says of its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// Something that wants attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertReport {
    /// Which one.
    pub alert: Alert,
    /// What it is about, and what to do.
    pub text: String,
}

/// What may want attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alert {
    /// There are no keys: every token of the issuer is refused.
    NoKeys,
    /// The last known good keys are too old: every token of the issuer is refused.
    KeysExpired,
    /// They will be within a day.
    KeysExpireSoon,
    /// No key of the set before is in the one after, within the last day.
    KeysReplacedWholly,
    /// The youngest key is older than the rules want it to be.
    RotationOverdue,
    /// The issuer retires within 30 days.
    RetiresSoon,
    /// It has retired: every token of the issuer is refused.
    Retired,
}

/// What a report is about.
pub(super) struct Facts<'a> {
    pub name: &'a str,
    pub source: &'a IssuerSource,
    pub record: Option<&'a Record>,
    pub keys: Option<&'a IssuerKeys>,
    pub refused: &'a [String],
    pub error: Option<&'a str>,
    /// Whether it was not asked yet.
    pub is_pending: bool,
    /// Unix seconds.
    pub next_fetch_at: Option<i64>,
}

// === impl IssuerReport ===

impl IssuerReport {
    /// Whether its set has a key of this `kid`; empty: one without.
    pub fn publishes(&self, key_id: &str) -> bool {
        self.keys.iter().any(|key| key.key_id.as_deref().unwrap_or_default() == key_id)
    }
}

// === impl Facts ===

impl Facts<'_> {
    /// `now`: Unix seconds.
    pub(super) fn report(&self, now: i64) -> IssuerReport {
        let fetched = self.keys.filter(|_| !self.source.keys.is_inline());
        let since = |key: &str| self.record.and_then(|record| record.since.get(key).copied()).unwrap_or(now);
        let key = |jwk: &Jwk| {
            let thumbprint = thumbprint(jwk);
            KeyReport {
                key_id: jwk.key_id().map(str::to_owned),
                algorithm: jwk.algorithm().map(|algorithm| algorithm.name().to_owned()),
                kind: kind(jwk),
                since: since(&thumbprint),
                thumbprint,
                issuer: jwk.issuer().map(str::to_owned),
            }
        };
        IssuerReport {
            name: self.name.to_owned(),
            issuers: self.source.issuers.clone(),
            pack: self.source.pack.name().to_owned(),
            used: self.source.used,
            source: match &self.source.keys {
                KeySource::Inline(_) => SourceReport::Inline,
                KeySource::Url(url) => SourceReport::Url(url.clone()),
                KeySource::Discovery(issuer) => SourceReport::Discovery(issuer.clone()),
            },
            keys: self.keys.into_iter().flat_map(|keys| &keys.keys).map(key).collect(),
            refused: self.refused.to_vec(),
            valid_until: fetched.map(|keys| keys.valid_until),
            fetched_at: fetched.and(self.record).map(|record| record.at),
            next_fetch_at: self.next_fetch_at,
            error: self.error.map(str::to_owned),
            alerts: self.alerts(now),
        }
    }

    fn alerts(&self, now: i64) -> Vec<AlertReport> {
        let mut alerts = Vec::new();
        let mut raise = |alert, text: String| alerts.push(AlertReport { alert, text });
        let source = self.source;
        if !source.used {
            return alerts;
        }
        let error = self.error.unwrap_or("the issuer publishes none");
        match self.keys {
            None if self.is_pending => {}
            None => {
                raise(Alert::NoKeys, format!("no keys were ever fetched, its tokens are refused: {error}"))
            }
            Some(keys) if keys.keys.is_empty() => {
                raise(
                    Alert::NoKeys,
                    "the trust domain has withdrawn its keys, its tokens are refused".to_owned(),
                );
            }
            Some(keys) if keys.valid_until <= now => raise(
                Alert::KeysExpired,
                format!("its keys could not be fetched for too long, its tokens are refused: {error}"),
            ),
            Some(keys) if keys.valid_until - now < EXPIRES_SOON_S => raise(
                Alert::KeysExpireSoon,
                format!("its keys cannot be fetched, and its tokens will be refused within a day: {error}"),
            ),
            Some(_) => {}
        }
        let replaced_at = self.record.and_then(|record| record.replaced_at);
        if replaced_at.is_some_and(|at| now - at < REPLACED_LATELY_S) {
            raise(
                Alert::KeysReplacedWholly,
                "no key of the set before is in the one it publishes now; unless the issuer announced it, ask whether its \
                 keys, or its server, were stolen"
                    .to_owned(),
            );
        }
        let youngest = self.record.and_then(Record::youngest);
        if let (Some(every), Some(youngest)) = (source.rotate_every_s, youngest)
            && now - youngest > every
        {
            raise(
                Alert::RotationOverdue,
                format!(
                    "its youngest key has been in use for {} days, and `rotateEvery` says {}; replace it, and remove the old \
                     one when its last token has expired",
                    (now - youngest) / DAY_S,
                    every / DAY_S
                ),
            );
        }
        if source.retire_at != 0 && source.retire_at <= now {
            raise(
                Alert::Retired,
                "`retireAfter` has passed, its tokens are refused; remove it from the rules".to_owned(),
            );
        } else if source.retire_at != 0 && source.retire_at - now <= RETIRES_SOON_S {
            raise(
                Alert::RetiresSoon,
                format!(
                    "its tokens will be refused in {} days; `tidegate issuer migration` says who still needs it",
                    (source.retire_at - now) / DAY_S
                ),
            );
        }
        alerts
    }
}

// === impl Alert ===

impl Alert {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::NoKeys,
        Self::KeysExpired,
        Self::KeysExpireSoon,
        Self::KeysReplacedWholly,
        Self::RotationOverdue,
        Self::RetiresSoon,
        Self::Retired,
    ];

    /// The word for metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoKeys => "no_keys",
            Self::KeysExpired => "keys_expired",
            Self::KeysExpireSoon => "keys_expire_soon",
            Self::KeysReplacedWholly => "keys_replaced_wholly",
            Self::RotationOverdue => "rotation_overdue",
            Self::RetiresSoon => "retires_soon",
            Self::Retired => "retired",
        }
    }
}

/// Type and size.
fn kind(key: &Jwk) -> String {
    let members = serde_json::to_value(key).unwrap_or_default();
    let text = |name: &str| members.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    match text("crv") {
        // Six bits per base64url character; moduli have a whole number of bytes and their first bit set.
        "" => format!("RSA {}", text("n").len() * 6 / 8 * 8),
        curve => curve.to_owned(),
    }
}

#[cfg(test)]
mod tests;
