//! What is told of filters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ProxyReport, Refusal};
use crate::bundle::Revision;

/// The whole index at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetReport {
    /// By workload (`namespace/name`).
    pub workloads: BTreeMap<String, WorkloadReport>,
}

/// A workload that has a Bundle or filters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadReport {
    /// SHA-256 of the manifest that is to be enforced; absent when the workload has none (any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Its revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Connected VMs.
    pub connected: usize,
    /// Connected VMs that enforce this manifest.
    pub enforcing: usize,
    /// Connected VMs that lack a capability which it uses.
    pub lacking: usize,
    /// VMs that were connected to another replica, which was lost sight of a moment ago: what they enforce is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: usize,
    /// Until when its Guards only report, in Unix seconds; absent: they refuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_until: Option<i64>,
    /// What some proxies are to enforce instead, to try it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryReport>,
    /// Every proxy, with what all of its VMs together come to.
    pub proxies: Vec<ProxyReport>,
    /// Capabilities that it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<String>,
    /// Every VM, also those that went away lately.
    pub vms: Vec<VmReport>,
}

/// What canaries of a workload are to enforce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryReport {
    /// SHA-256 of its manifest, hexadecimal.
    pub manifest: String,
    /// Its revision.
    pub revision: Revision,
    /// Which proxies are canaries, whether or not they are there.
    pub instances: BTreeSet<String>,
}

/// A filter VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmReport {
    /// Pod or process name. Self-reported.
    pub instance: String,
    /// Hexadecimal. Another one after each start of the VM.
    pub generation: String,
    /// Whether a stream is open.
    pub connected: bool,
    /// Self-reported.
    pub filter_version: String,
    /// What the filter can evaluate.
    pub capabilities: Vec<String>,
    /// What it lacks of what it is to enforce: requests whose rules need it are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// `unspecified`, `not_ready`, `ready` or `invalid`.
    pub state: String,
    /// SHA-256 of the manifest it enforces; absent when none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Revision of the manifest it enforces, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Whether that is what it is to enforce.
    pub up_to_date: bool,
    /// The last push, if the filter refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Unix seconds of its last message.
    pub seen_at: i64,
    /// Its totals, from its last receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<CountersReport>,
    /// Until when the keys of each issuer may be used as it has them, in Unix seconds, from its last receipt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys_valid_until: BTreeMap<String, i64>,
}

/// How much one workload uses the tokens of one issuer, as its filters say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerUseReport {
    /// `namespace/name`.
    pub workload: String,
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// Requests with a verified token, over the VMs that are shown.
    pub verified: u64,
    /// Requests with a token that must not be accepted, over the VMs that are shown.
    pub refused: u64,
    /// Unix seconds; absent: never. Also of VMs that are no longer shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_verified_at: Option<i64>,
}

/// [`pb::Counters`] for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct CountersReport {
    pub allowed: u64,
    pub denied: u64,
    pub shadow_differences: u64,
    pub signature_checks_host: u64,
    pub signature_checks_fallback: u64,
    pub token_cache_hits: u64,
    pub nacks: u64,
    pub candidate_compared: u64,
    pub candidate_would_allow: u64,
    pub candidate_would_deny: u64,
    pub candidate_unknown: u64,
    pub suspended: u64,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
