//! One filter VM, as it is shown and judged.

use tidegate_proto::v1 as pb;

use super::{Compared, CountersReport, Vm, VmKey, VmReport, VmSight, Wanted};
use crate::bundle::hex;

// === impl Vm ===

impl Vm {
    pub(super) fn sight(&self, key: &VmKey) -> VmSight {
        let compared = |counters: &pb::Counters| Compared {
            requests: counters.candidate_compared,
            would_allow: counters.candidate_would_allow,
        };
        VmSight {
            instance: key.instance.clone(),
            generation: key.generation,
            connected: self.stream.is_some(),
            seen_at: self.seen_at,
            enforced: self.enforced.clone(),
            counted: self.counted.0.clone(),
            refusal: self.refusal.clone(),
            compares: self.capabilities.iter().any(|known| known == tidegate_proto::CANDIDATE),
            first: compared(&self.counted.1),
            now: self.counters.as_ref().map(compared).unwrap_or_default(),
        }
    }

    pub(super) fn report(&self, key: &VmKey, wanted: Option<&Wanted>) -> VmReport {
        let manifest = (!self.enforced.is_empty()).then(|| hex(&self.enforced));
        let uses = wanted.map(|wanted| wanted.uses.as_slice()).unwrap_or_default();
        VmReport {
            instance: key.instance.clone(),
            generation: format!("{:016x}", key.generation),
            connected: self.stream.is_some(),
            filter_version: self.filter_version.clone(),
            capabilities: self.capabilities.clone(),
            lacks: uses.iter().filter(|used| !self.capabilities.contains(used)).cloned().collect(),
            state: match self.state {
                pb::FilterState::Unspecified => "unspecified",
                pb::FilterState::NotReady => "not_ready",
                pb::FilterState::Ready => "ready",
                pb::FilterState::Invalid => "invalid",
            }
            .to_owned(),
            up_to_date: wanted.is_some_and(|wanted| self.enforced == wanted.sha256),
            manifest,
            revision: self.revision,
            refusal: self.refusal.clone(),
            seen_at: self.seen_at,
            counters: self.counters.map(CountersReport::from),
            keys_valid_until: self
                .issuers
                .iter()
                .filter(|issuer| issuer.keys_valid_until > 0)
                .map(|issuer| (issuer.issuer.clone(), issuer.keys_valid_until))
                .collect(),
        }
    }
}

// === impl CountersReport ===

impl From<pb::Counters> for CountersReport {
    fn from(counters: pb::Counters) -> Self {
        Self {
            allowed: counters.allowed,
            denied: counters.denied,
            shadow_differences: counters.shadow_differences,
            signature_checks_host: counters.signature_checks_host,
            signature_checks_fallback: counters.signature_checks_fallback,
            token_cache_hits: counters.token_cache_hits,
            nacks: counters.nacks,
            candidate_compared: counters.candidate_compared,
            candidate_would_allow: counters.candidate_would_allow,
            candidate_would_deny: counters.candidate_would_deny,
            candidate_unknown: counters.candidate_unknown,
            suspended: counters.suspended,
        }
    }
}
