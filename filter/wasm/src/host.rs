//! What the filter asks of Envoy. The one place that calls it.
//!
//! The hot calls are declared here rather than taken from the SDK: its convenience getters panic on unexpected status
//! codes and on bytes that are not UTF-8, and copy more than is needed. Which property and header semantics this relies
//! on is written in `filter/README.md`.

#[cfg(target_arch = "wasm32")]
pub mod envoy;
#[cfg(test)]
pub(crate) mod fake;

use tidegate_engine::Reason;

/// Calls to the proxy. Implemented by Envoy in wasm and by a fake in tests.
pub trait Host {
    /// All request headers in Envoy's serialised form, or `None` where they are not available now.
    fn request_headers(&self) -> Option<Vec<u8>>;
    /// A response header; `None` where there is none, or no response yet.
    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>>;
    /// A property of the connection or request; segments are separated by zero bytes.
    fn property(&self, path: &[u8]) -> Option<Vec<u8>>;
    /// Removes every value of a request header; whether that was possible.
    fn remove_request_header(&self, name: &[u8]) -> bool;
    /// Sets a request header to this value alone. Whether the proxy did.
    fn set_request_header(&self, name: &[u8], value: &[u8]) -> bool;
    /// Wall clock, in nanoseconds since 1970.
    fn now_ns(&self) -> u64;
    /// Random bits. Whoever sees them learns nothing of those before and after.
    fn random(&self) -> u64;
    /// Random bits that cost less, for what nobody sees: from some of them others can be told.
    fn draw(&self) -> u64;
    /// Answers the request in the upstream's stead.
    fn reply(&self, status: u16, headers: &[(&str, &str)], body: &[u8]);
    /// Checks a signature with the proxy's own cryptography. `None` where the proxy does not offer that.
    ///
    /// `hash` is `sha256`, `sha384` or `sha512`; `spki` the DER form of the key; an ECDSA signature is in DER form.
    fn verify_signature(&self, hash: &str, spki: &[u8], input: &[u8], signature: &[u8]) -> Option<bool>;
    /// What is said about the end of a stream, while its end is told.
    fn stream_end(&self) -> Vec<u8>;
    /// Adds to a counter of the proxy's statistics.
    fn count(&self, metric: Metric, by: u64);
    /// Adds to the counter of refusals for this reason: [`refusals_name`].
    fn count_refusals(&self, reason: Reason, by: u64);
    /// Leaves what was decided in the request's filter state, as `wasm.tidegate.decision`, for access logs. What was left
    /// there before is replaced.
    fn tell(&self, decision: &str);
    /// Writes to the proxy's log.
    fn log(&self, level: Level, message: &str);
}

/// The statistic that counts refusals for a reason. What stands before `;.;` is a tag, as Istio's own statistics have them: with
/// `extraStatTags: [tidegate_reason]` it becomes a label, without it stays a part of the name.
pub fn refusals_name(reason: Reason) -> String {
    ["tidegate_reason=.=", reason.code(), ";.;tidegate_refusals_by_reason_total"].concat()
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For people who look.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something does not work.
    Error,
}

/// Counters in the proxy's statistics, as `wasmcustom.<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Requests that went on.
    Allowed,
    /// Requests that were refused by a decision.
    Denied,
    /// Requests that were refused because there is no Bundle or no usable configuration.
    Unavailable,
    /// Requests for which Shadow rules or Guards would have decided otherwise.
    ShadowDifferences,
    /// Signatures checked by the proxy.
    HostSignatures,
    /// Signatures checked in wasm.
    FallbackSignatures,
    /// Bundles installed.
    Installed,
    /// Bundles refused.
    Nacks,
    /// Streams to the control plane that were opened.
    StreamsOpened,
    /// Streams that the control plane refused or ended because of who this is, what it said, or how much.
    StreamsRefused,
    /// Streams that were given up because nothing was heard on them.
    StreamsSilent,
    /// Requests that were allowed although a directory could not be asked, because their rule says so.
    Degraded,
    /// Requests that were ended because what allowed them does not hold any more.
    LeasesEnded,
    /// Requests that were refused because the budget of signature checks was used up.
    OverBudget,
    /// Questions to the control plane: unknown keys, unlisted ids.
    Lookups,
    /// Requests that waited: for the first Bundle, or for the answer to a question.
    Held,
    /// Requests that were refused because the clock is wrong.
    ClockWrong,
    /// Tokens that were verified before.
    TokensRemembered,
    /// Decision records made.
    Records,
    /// Decision records for which there was no room.
    RecordsDropped,
    /// Decisions that a candidate was compared with.
    CandidateCompared,
    /// Requests that were refused, and that the candidate would have allowed.
    CandidateWouldAllow,
    /// Requests that were allowed, and that the candidate would have refused.
    CandidateWouldDeny,
    /// Requests of which it cannot be told what the candidate would have done.
    CandidateUnknown,
    /// Requests that passed only because the Guard is suspended.
    Suspended,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 25] = [
        Self::Allowed,
        Self::Denied,
        Self::Unavailable,
        Self::ShadowDifferences,
        Self::HostSignatures,
        Self::FallbackSignatures,
        Self::Installed,
        Self::Nacks,
        Self::StreamsOpened,
        Self::StreamsRefused,
        Self::StreamsSilent,
        Self::Degraded,
        Self::LeasesEnded,
        Self::OverBudget,
        Self::Lookups,
        Self::Held,
        Self::ClockWrong,
        Self::TokensRemembered,
        Self::Records,
        Self::RecordsDropped,
        Self::CandidateCompared,
        Self::CandidateWouldAllow,
        Self::CandidateWouldDeny,
        Self::CandidateUnknown,
        Self::Suspended,
    ];

    /// The statistic's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "tidegate_requests_allowed_total",
            Self::Denied => "tidegate_requests_denied_total",
            Self::Unavailable => "tidegate_requests_unavailable_total",
            Self::ShadowDifferences => "tidegate_shadow_differences_total",
            Self::HostSignatures => "tidegate_signatures_host_total",
            Self::FallbackSignatures => "tidegate_signatures_fallback_total",
            Self::Installed => "tidegate_bundles_installed_total",
            Self::Nacks => "tidegate_bundles_refused_total",
            Self::StreamsOpened => "tidegate_streams_opened_total",
            Self::StreamsRefused => "tidegate_streams_refused_total",
            Self::StreamsSilent => "tidegate_streams_silent_total",
            Self::Degraded => "tidegate_requests_degraded_total",
            Self::LeasesEnded => "tidegate_leases_ended_total",
            Self::OverBudget => "tidegate_requests_over_budget_total",
            Self::Lookups => "tidegate_lookups_total",
            Self::Held => "tidegate_requests_held_total",
            Self::ClockWrong => "tidegate_requests_clock_wrong_total",
            Self::TokensRemembered => "tidegate_tokens_remembered_total",
            Self::Records => "tidegate_records_total",
            Self::RecordsDropped => "tidegate_records_dropped_total",
            Self::CandidateCompared => "tidegate_candidate_compared_total",
            Self::CandidateWouldAllow => "tidegate_candidate_would_allow_total",
            Self::CandidateWouldDeny => "tidegate_candidate_would_deny_total",
            Self::CandidateUnknown => "tidegate_candidate_unknown_total",
            Self::Suspended => "tidegate_requests_suspended_total",
        }
    }

    /// Position in [`Metric::ALL`].
    pub fn position(self) -> usize {
        Self::ALL.iter().position(|metric| *metric == self).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every pattern begins with by which Istio finds labels in names of statistics, besides those that are bound to the
    /// beginning of other names (istio `tools/packaging/common/envoy_bootstrap.json`).
    const ISTIO: [&str; 8] = [
        "cache.",
        "component.",
        "tag.",
        "wasm_filter.",
        "rbac.",
        ".istio_dry_run_",
        ".shadow_",
        // `_rq(_(\d{3}))$`
        "_rq_",
    ];

    #[test]
    fn istio_finds_no_label_in_our_names_but_the_one_that_is_meant() {
        let plain = Metric::ALL.into_iter().map(|metric| metric.name().to_owned());
        for name in plain.chain(Reason::all().map(refusals_name)) {
            let full = format!("wasmcustom.{name}");
            for pattern in ISTIO {
                assert!(!full.contains(pattern), "{full}: {pattern}");
            }
        }
        for reason in Reason::all() {
            // What Istio makes of `extraStatTags: [tidegate_reason]`: `(tidegate_reason=\.=(.*?);\.;)`.
            let name = refusals_name(reason);
            let (tag, rest) = name.split_once(";.;").unwrap();
            assert_eq!(tag.strip_prefix("tidegate_reason=.="), Some(reason.code()));
            assert_eq!(rest, "tidegate_refusals_by_reason_total");
            // So that it stays one name of Prometheus where nobody knows the tag.
            assert!(reason.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        }
    }
}
