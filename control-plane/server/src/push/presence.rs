//! A filter VM's entry in the fleet, and what is counted of it, for as long as its stream lives.

use std::sync::Arc;

use tidegate_proto::v1 as pb;
use tracing::{info, warn};

use super::fleet::{Refusal, StreamId, VmKey};
use super::{Hub, Offer};
use crate::bundle::Release;
use crate::clock;
use crate::metrics::CapabilityLabel;

/// The VM's entry in the fleet, for as long as the stream lives.
pub(super) struct Presence {
    hub: Arc<Hub>,
    pub key: VmKey,
    stream: StreamId,
    pub capabilities: Vec<String>,
    /// Those that its Bundle uses and that it does not have.
    lacks: Vec<String>,
}

// === impl Presence ===

impl Presence {
    pub(super) fn enter(hub: &Arc<Hub>, key: VmKey, hello: &pb::Hello) -> Self {
        let stream = hub.fleet.connect(&key, hello, clock::now());
        hub.metrics.streams.inc();
        let capabilities = hello.capabilities.clone();
        let presence = Self { hub: hub.clone(), key, stream, capabilities, lacks: Vec::new() };
        info!(vm = %presence, version = hello.filter_version, "filter connected");
        presence
    }

    /// Whether the filter evaluates candidates.
    pub(super) fn takes_candidate(&self) -> bool {
        self.capabilities.iter().any(|known| known == tidegate_proto::CANDIDATE)
    }

    /// Notes what a release uses and the filter lacks.
    pub(super) fn compare(&mut self, release: &Release) {
        let used = &release.manifest().used_capabilities;
        let lacks: Vec<String> =
            used.iter().filter(|used| !self.capabilities.contains(used)).cloned().collect();
        if lacks == self.lacks {
            return;
        }
        self.count_lacks(-1);
        self.lacks = lacks;
        self.count_lacks(1);
        for capability in &self.lacks {
            let fix = if capability == tidegate_proto::BODIES {
                "; give it the module that `tidegate module --bodies` writes"
            } else {
                ""
            };
            warn!(
                vm = %self,
                capability,
                "a filter lacks what its rules use: it refuses the requests that depend on it{fix}"
            );
        }
    }

    fn count_lacks(&self, by: i64) {
        for capability in &self.lacks {
            let label = CapabilityLabel { capability: capability.clone() };
            self.hub.metrics.lacking.get_or_create(&label).inc_by(by);
        }
    }

    pub(super) fn enforces(&self, release: &Release) {
        self.hub.fleet.enforces(&self.key, release.sha256(), Some(release.revision()), clock::now());
    }

    pub(super) fn enforces_other(&self, manifest: &[u8]) {
        self.hub.fleet.enforces(&self.key, manifest.get(..32).unwrap_or_default(), None, clock::now());
    }

    pub(super) fn refused(&self, offer: &Offer, reason: &str, detail: String) {
        let revision = offer.release().revision();
        let refusal = Refusal { revision, reason: reason.to_owned(), detail, at: clock::now() };
        self.hub.fleet.refused(&self.key, refusal);
    }

    pub(super) fn receipt(&self, receipt: &pb::Receipt) {
        if matches!(receipt.manifest_sha256.len(), 0 | 32) {
            self.hub.fleet.receipt(&self.key, receipt, clock::now());
        }
    }
}

impl std::fmt::Display for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:016x}", self.key.workload, self.key.instance, self.key.generation)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.hub.fleet.disconnect(&self.key, self.stream, clock::now());
        self.hub.metrics.streams.dec();
        self.count_lacks(-1);
        info!(vm = %self, "filter disconnected");
    }
}
