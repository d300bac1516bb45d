//! What is kept of one decision, and of decisions that nobody will ever see.
//!
//! The JSON of these types is stable: the store, the admin interface, `-o json` and exporters write the same.
//!
//! INVARIANT: every text in here went through [`super::clean`]: it is short, holds nothing that a terminal obeys, and
//! nothing that looks like a token.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lanes::Worth;
use super::run::Run;
use super::time;

/// One decision, as a filter told it. Self-reported: it is what the filter says of itself, told over the connection of a
/// verified workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The id that the caller saw: `7Q4K-M2XD-0001`.
    pub id: String,
    /// When it was decided.
    pub time: Moment,
    /// The time that the filter told was absurd; `time` is when the record came.
    #[serde(default, skip_serializing_if = "is_false")]
    pub time_refused: bool,
    /// Verified: `namespace/name` of the workload that decided.
    pub workload: String,
    /// Pod or process that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What happened.
    pub outcome: Outcome,
    /// How completely its rule wants what it allows to be recorded, as far as the filter says it.
    #[serde(default, skip_serializing_if = "Audit::is_unsaid")]
    pub audit: Audit,
    /// Stable reason code. One of a newer filter may be unknown here.
    pub reason: String,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// SPIFFE id of the mesh peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Who called, in every form that is known: the peer's SPIFFE id, and `issuer:claim=value` of what tokens say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Names of the issuers whose tokens were verified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// Claims of verified tokens that are marked safe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// The run of a pipeline, or whatever else the tokens say that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// E.g. `POST`.
    pub method: String,
    /// As sent.
    pub host: String,
    /// As sent, without its query.
    pub path: String,
    /// The port that took it; absent where no rule depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What it does, where the catalogue knows the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// To what, where host and path say so: `projects/acme/topics/orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Revision of the Bundle that was enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// SHA-256 of its manifest, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Trace id of W3C Trace Context, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Parent span, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// `trace-flags` that the request came with: 1 where the caller's part of the trace is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_flags: Option<u8>,
    /// What deciding took, in nanoseconds.
    pub decided_in_ns: u64,
    /// What Shadow rules and Guards would have decided, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Difference>,
    /// What the candidate rules would have decided, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Difference>,
    /// Allowed without the answer of a directory, because the rule says that it may be.
    #[serde(default, skip_serializing_if = "is_false")]
    pub degraded: bool,
    /// It had been allowed; it was ended because what allowed it does not hold any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// How many requests the record stands for; more than 1 where a rule asks for samples.
    pub stands_for: u32,
    /// Always true: it is what the filter says.
    pub self_reported: bool,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It passed.
    Allow,
    /// It was refused.
    Deny,
    /// The filter does not say.
    Unknown,
}

/// How completely something is to be recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Audit {
    /// The filter does not say: it is older.
    #[default]
    Unsaid,
    /// A sample is enough.
    Sampled,
    /// None should be missing.
    Full,
    /// Without its record the request would not have passed.
    Required,
}

/// A rule, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRef {
    /// `namespace/name`.
    pub name: String,
    /// Where it was written when it decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RuleSource>,
}

/// The file of a rule, and the last change of that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSource {
    /// The file below the rules folder; of an object in a cluster, as diagnostics name it.
    pub file: String,
    /// The line at which the rule begins.
    pub line: u32,
    /// The commit that changed the file last; absent where the file is not as it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who wrote that commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Moment>,
    /// Commit and author are annotations of the object: whoever may write it says so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_annotations: bool,
}

/// A claim of a verified token that is marked safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// Names from the outside in, joined by dots.
    pub claim: String,
    /// As text; of a list, its items.
    pub values: Vec<String>,
}

/// A method of a service that the catalogue knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// As rules name it, e.g. `pubsub`.
    pub service: String,
    /// E.g. `projects.topics.publish`.
    pub method: String,
    /// `read`, `write`, `admin` or `launch`.
    pub action: String,
    /// What the calling account needs at the service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
}

/// Which Bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Of the control plane that signed it.
    pub epoch: u64,
    /// Grows with every Bundle.
    pub counter: u64,
}

/// What other rules would have decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What would have happened.
    pub outcome: Outcome,
    /// Reason code.
    pub reason: String,
    /// The rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Decisions of which there is no record, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// When it was noticed: they were decided before.
    pub time: Moment,
    /// Verified: `namespace/name` of the workload; empty where it concerns all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// Pod or process.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What happened to them.
    pub cause: GapCause,
    /// How many; absent where nobody can know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// How many of them were to be kept in any case: refusals, differences, `audit: full`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_in_full: u64,
}

/// Why there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GapCause {
    /// The filter's buffer was full.
    FilterDropped,
    /// Batches of the filter never arrived.
    BatchesMissing,
    /// The control plane could not keep up, and dropped them.
    ControlPlaneDropped,
    /// The store was damaged; what was set aside cannot be asked for.
    StoreDamaged,
    /// The store was full, and its oldest file went before its time.
    StoreFull,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// A decision.
    Decision(Arc<Recorded>),
    /// Decisions that are missing.
    Gap(Gap),
}

/// Unix microseconds; in JSON as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub i64);

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

// === impl Recorded ===

impl Recorded {
    /// What it is worth: refusals, streams that were ended, differences, and what a rule wants in full are the last to be
    /// dropped; what it requires is not acknowledged before it is kept.
    pub fn worth(&self) -> Worth {
        let is_ordinary = self.outcome == Outcome::Allow
            && !self.ended
            && self.shadow.is_none()
            && self.candidate.is_none();
        match self.audit {
            Audit::Required => Worth::Required,
            Audit::Unsaid | Audit::Sampled if is_ordinary => Worth::Ordinary,
            Audit::Unsaid | Audit::Sampled | Audit::Full => Worth::Precious,
        }
    }

    /// Name of the rule that decided.
    pub fn rule_name(&self) -> Option<&str> {
        self.rule.as_ref().map(|rule| rule.name.as_str())
    }

    /// How much memory it takes, in bytes, roughly.
    pub fn weight(&self) -> usize {
        let claims: usize = self.claims.iter().map(Claim::weight).sum();
        let texts = [&self.workload, &self.instance, &self.method, &self.host, &self.path];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        let identities: usize = self.identities.iter().map(|text| text.len() + 24).sum();
        let issuers: usize = self.issuers.iter().map(|text| text.len() + 24).sum();
        size_of::<Self>()
            + texts
            + claims
            + identities
            + issuers
            + self.peer.as_ref().map_or(0, String::len)
            + 512
    }
}

// === impl Claim ===

impl Claim {
    fn weight(&self) -> usize {
        let values: usize = self.values.iter().map(|value| value.len() + 24).sum();
        size_of::<Self>() + self.issuer.len() + self.claim.len() + values
    }
}

// === impl Outcome ===

impl Outcome {
    /// One of few words, for metrics and flags.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Unknown => "unspecified",
        }
    }
}

// === impl Audit ===

impl Audit {
    fn is_unsaid(&self) -> bool {
        *self == Self::Unsaid
    }

    /// One of few words; `None`: the filter does not say.
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Sampled => Some("sampled"),
            Self::Full => Some("full"),
            Self::Required => Some("required"),
        }
    }
}

// === impl Entry ===

impl Entry {
    /// What it is worth.
    pub fn worth(&self) -> Worth {
        match self {
            Self::Decision(recorded) => recorded.worth(),
            Self::Gap(_) => Worth::Precious,
        }
    }

    /// Whether it is among the last to be dropped.
    pub fn is_precious(&self) -> bool {
        self.worth() != Worth::Ordinary
    }

    /// `namespace/name` of the workload that decided; empty for gaps that concern all.
    pub fn workload(&self) -> &str {
        match self {
            Self::Decision(recorded) => &recorded.workload,
            Self::Gap(gap) => &gap.workload,
        }
    }

    /// How much memory it takes, in bytes, roughly.
    pub fn weight(&self) -> usize {
        match self {
            Self::Decision(recorded) => recorded.weight(),
            Self::Gap(gap) => size_of::<Gap>() + gap.workload.len() + gap.instance.len(),
        }
    }

    /// When it was decided, or noticed.
    pub fn time(&self) -> Moment {
        match self {
            Self::Decision(recorded) => recorded.time,
            Self::Gap(gap) => gap.time,
        }
    }
}

// === impl GapCause ===

impl GapCause {
    /// One of few words, for metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::FilterDropped => "filter_dropped",
            Self::BatchesMissing => "batches_missing",
            Self::ControlPlaneDropped => "control_plane_dropped",
            Self::StoreDamaged => "store_damaged",
            Self::StoreFull => "store_full",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::FilterDropped => "the filter's buffer was full",
            Self::BatchesMissing => "batches of the filter never arrived",
            Self::ControlPlaneDropped => "the control plane could not keep up",
            Self::StoreDamaged => "a file of the store was damaged and set aside",
            Self::StoreFull => "the store was full, and the oldest went",
        }
    }
}

// === impl Moment ===

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self(crate::clock::now_us())
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// From whole seconds since 1970.
    pub fn of_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&time::write(self.0))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time::write(self.0))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        time::read(&text).map(Self).ok_or_else(|| serde::de::Error::custom("not a time of RFC 3339 in UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_as_they_were_written() {
        let gap = Gap {
            time: Moment(1_795_203_600_000_001),
            workload: "sales/orders".to_owned(),
            instance: String::new(),
            cause: GapCause::FilterDropped,
            lost: Some(7),
            lost_in_full: 0,
        };
        let text = serde_json::to_string(&Entry::Gap(gap.clone())).unwrap();
        assert_eq!(
            text,
            r#"{"gap":{"time":"2026-11-20T19:40:00.000001Z","workload":"sales/orders","cause":"filterDropped","lost":7}}"#
        );
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), Entry::Gap(gap));
    }
}
