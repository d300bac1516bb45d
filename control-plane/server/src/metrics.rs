//! What the control plane counts about itself.
//!
//! Names are those of Prometheus' conventions: base units, `_total` for counters (which the text format adds),
//! `_timestamp_seconds` for moments. Every one of them is in `control-plane/docs/telemetry.md`, and goes by OTLP too
//! ([`crate::export`]).
//!
//! INVARIANT: every label has a bounded set of values; nothing a client sends becomes a label.

mod decisions;
mod export;
mod fleet;
mod pipelines;
mod series;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::decisions::metrics::DecisionMetrics;
pub use decisions::Decided;
pub use export::{ExportLoss, ExportMetrics};
pub use fleet::FleetMetrics;
pub use pipelines::Pipelines;
pub use series::{Series, series};

/// All metrics, and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open streams of filters.
    pub streams: Gauge,
    /// Replicas that follow this one.
    pub followers: Gauge,
    /// 1 while this replica has a stream to the one that leads.
    pub follows: Gauge,
    /// Open streams of filters that lack a capability which their Bundle uses. Capabilities are ours, hence bounded.
    pub lacking: Family<CapabilityLabel, Gauge>,
    /// Pushes sent.
    pub pushes: Counter,
    /// Bytes of pushes sent, gRPC framing included.
    pub push_bytes: Counter,
    /// Pushes that filters acknowledged.
    pub acks: Counter,
    /// Pushes that filters refused, by reason.
    pub nacks: Family<ReasonLabel, Counter>,
    /// Streams that were refused, by gRPC code.
    pub refused_streams: Family<ReasonLabel, Counter>,
    /// Connections that were refused, by reason.
    pub refused_connections: Family<ReasonLabel, Counter>,
    /// Connections that were ended early, by reason.
    pub ended_connections: Family<ReasonLabel, Counter>,
    /// Streams that were refused or ended because their principal used too much, by what.
    pub quota_exceeded: Family<ReasonLabel, Counter>,
    /// Requests to the admin interface that were refused, by reason.
    pub refused_admin_requests: Family<ReasonLabel, Counter>,
    /// Changes of the server's certificate files, by what became of them.
    pub certificate_reloads: Family<ReasonLabel, Counter>,
    /// Unix seconds at which the server's certificate ends; 0 without one.
    pub certificate_not_after: Gauge,
    /// Decision records received, by outcome and by the workload that their peer is. Workloads are the Mesh's, hence bounded.
    pub decisions: Family<DecisionLabel, Counter>,
    /// Streams of decision records that were refused or ended, by reason.
    pub refused_reports: Family<ReasonLabel, Counter>,
    /// Decision records that filters say they dropped, by the workload that their peer is.
    pub decisions_dropped: Family<WorkloadLabel, Counter>,
    /// Batches of decision records that had to wait because their principal sends more than its share, by workload.
    pub reports_delayed: Family<WorkloadLabel, Counter>,
    /// Of decision records besides.
    pub decision_records: DecisionMetrics,
    /// What filters decided, by rule.
    pub decided: Decided,
    /// What filters say of themselves.
    pub fleet: FleetMetrics,
    /// What was exported.
    pub export: ExportMetrics,
    /// Compilations, by result.
    pub compilations: Family<ReasonLabel, Counter>,
    /// Seconds that the last compilation took.
    pub compile_seconds: Gauge<f64, AtomicU64>,
    /// Diagnostics of the rules on disk, by severity.
    pub diagnostics: Family<ReasonLabel, Gauge>,
    /// Diagnostics of the candidate on disk, by severity.
    pub candidate_diagnostics: Family<ReasonLabel, Gauge>,
    /// Workloads whose Bundle has a candidate.
    pub candidate_workloads: Gauge,
    /// Files whose last good text is in force instead of what is on disk.
    pub substituted_files: Gauge,
    /// Workloads that have a Bundle.
    pub workloads: Gauge,
    /// Counter of the last revision.
    pub revision: Gauge,
    /// Unix seconds until which each issuer's keys may be used. Issuers are configured, hence bounded.
    pub issuer_valid_until: Family<IssuerLabel, Gauge>,
    /// Unix seconds at which each issuer's keys were fetched last; 0 where they never were.
    pub issuer_fetched: Family<IssuerLabel, Gauge>,
    /// How many keys each issuer has.
    pub issuer_keys: Family<IssuerLabel, Gauge>,
    /// 1 where something about an issuer's keys wants attention.
    pub issuer_alerts: Family<AlertLabel, Gauge>,
    /// Attempts to fetch keys, by issuer and result.
    pub key_fetches: Family<FetchLabel, Counter>,
    /// Keys that filters asked for, by what came of it.
    pub key_lookups: Family<ReasonLabel, Counter>,
    /// Ids that filters asked for, by what came of it.
    pub directory_lookups: Family<ReasonLabel, Counter>,
    /// Readings of directories, by result.
    pub directory_reads: Family<ReasonLabel, Counter>,
    /// How many ids each directory lists. Directories are named by rules, hence bounded.
    pub directory_ids: Family<DirectoryLabel, Gauge>,
    /// Unix seconds until which each directory counts.
    pub directory_fresh_until: Family<DirectoryLabel, Gauge>,
    /// Revocations in force.
    pub revocations: Gauge,
    /// Revocations that do not go together with the newest rules.
    pub revocations_broken: Gauge,
    /// Workloads whose Guards are suspended.
    pub suspensions: Gauge,
    /// Workloads where canaries try changed rules.
    pub rollouts_tried: Gauge,
    /// Workloads where changed rules were given up.
    pub rollouts_aborted: Gauge,
    /// 1 while earlier rules are pinned.
    pub pinned: Gauge,
}

/// What a decision can be: [`DecisionLabel::outcome`].
pub const OUTCOMES: [&str; 3] = ["unspecified", "allow", "deny"];

/// A label with a fixed set of values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// One of few words.
    pub reason: &'static str,
}

/// Decisions of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabel {
    /// `namespace/name`, as the Mesh lists it.
    pub workload: String,
    /// One of few words.
    pub outcome: &'static str,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkloadLabel {
    /// `namespace/name`, as the Mesh lists it.
    pub workload: String,
}

/// A capability of filters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CapabilityLabel {
    /// Its stable name.
    pub capability: String,
}

/// The name of a TrustedIssuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IssuerLabel {
    /// Its name.
    pub issuer: String,
}

/// The name of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectoryLabel {
    /// Its name.
    pub directory: String,
}

/// An attempt to fetch an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabel {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// One of few words.
    pub result: &'static str,
}

/// Something about an issuer's keys that may want attention.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AlertLabel {
    /// Name of the TrustedIssuer.
    pub issuer: String,
    /// One of few words.
    pub alert: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// The text that Prometheus scrapes (OpenMetrics).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// A workload is gone.
    pub fn forget_workload(&self, workload: &str) {
        for outcome in OUTCOMES {
            self.decisions.remove(&DecisionLabel { workload: workload.to_owned(), outcome });
        }
        self.decisions_dropped.remove(&WorkloadLabel { workload: workload.to_owned() });
        self.reports_delayed.remove(&WorkloadLabel { workload: workload.to_owned() });
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let decision_records = DecisionMetrics::default();
        let mut metrics = Self {
            registry: Registry::with_prefix("tidegate"),
            streams: Gauge::default(),
            followers: Gauge::default(),
            follows: Gauge::default(),
            lacking: Family::default(),
            pushes: Counter::default(),
            push_bytes: Counter::default(),
            acks: Counter::default(),
            nacks: Family::default(),
            refused_streams: Family::default(),
            refused_connections: Family::default(),
            ended_connections: Family::default(),
            quota_exceeded: Family::default(),
            refused_admin_requests: Family::default(),
            certificate_reloads: Family::default(),
            certificate_not_after: Gauge::default(),
            decisions: Family::default(),
            refused_reports: Family::default(),
            decisions_dropped: Family::default(),
            reports_delayed: Family::default(),
            decided: decision_records.decided.clone(),
            decision_records,
            fleet: FleetMetrics::default(),
            export: ExportMetrics::default(),
            compilations: Family::default(),
            compile_seconds: Gauge::default(),
            diagnostics: Family::default(),
            candidate_diagnostics: Family::default(),
            candidate_workloads: Gauge::default(),
            substituted_files: Gauge::default(),
            workloads: Gauge::default(),
            revision: Gauge::default(),
            issuer_valid_until: Family::default(),
            issuer_fetched: Family::default(),
            issuer_keys: Family::default(),
            issuer_alerts: Family::default(),
            key_fetches: Family::default(),
            key_lookups: Family::default(),
            directory_lookups: Family::default(),
            directory_reads: Family::default(),
            directory_ids: Family::default(),
            directory_fresh_until: Family::default(),
            revocations: Gauge::default(),
            revocations_broken: Gauge::default(),
            suspensions: Gauge::default(),
            rollouts_tried: Gauge::default(),
            rollouts_aborted: Gauge::default(),
            pinned: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("streams", "Open streams of filters", metrics.streams.clone());
        registry.register("relay_followers", "Replicas that follow this one", metrics.followers.clone());
        registry.register(
            "relay_follows",
            "1 while this replica has a stream to the one that leads",
            metrics.follows.clone(),
        );
        registry.register(
            "streams_lacking",
            "Open streams of filters that lack a capability which their rules use",
            metrics.lacking.clone(),
        );
        registry.register("pushes", "Pushes sent", metrics.pushes.clone());
        registry.register("push_bytes", "Bytes of pushes sent", metrics.push_bytes.clone());
        registry.register("acks", "Pushes that filters acknowledged", metrics.acks.clone());
        registry.register("nacks", "Pushes that filters refused", metrics.nacks.clone());
        registry.register("refused_streams", "Streams that were refused", metrics.refused_streams.clone());
        registry.register(
            "refused_connections",
            "Connections that were refused",
            metrics.refused_connections.clone(),
        );
        registry.register(
            "ended_connections",
            "Connections that were ended early",
            metrics.ended_connections.clone(),
        );
        registry.register(
            "quota_exceeded",
            "Streams that were refused or ended because their principal used too much",
            metrics.quota_exceeded.clone(),
        );
        registry.register(
            "refused_admin_requests",
            "Requests to the admin interface that were refused",
            metrics.refused_admin_requests.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changes of the server's certificate files",
            metrics.certificate_reloads.clone(),
        );
        registry.register(
            "certificate_not_after_timestamp_seconds",
            "When the server's certificate ends",
            metrics.certificate_not_after.clone(),
        );
        registry.register("decisions", "Decision records received", metrics.decisions.clone());
        registry.register(
            "refused_reports",
            "Streams of decision records that were refused or ended",
            metrics.refused_reports.clone(),
        );
        registry.register(
            "decisions_dropped",
            "Decision records that filters dropped",
            metrics.decisions_dropped.clone(),
        );
        registry.register(
            "reports_delayed",
            "Batches of decision records that had to wait because their service account sends more than its share",
            metrics.reports_delayed.clone(),
        );
        metrics.decision_records.register(registry);
        metrics.decided.register(registry);
        metrics.fleet.register(registry);
        metrics.export.register(registry);
        registry.register("compilations", "Compilations of the rules", metrics.compilations.clone());
        registry.register(
            "compile_duration_seconds",
            "Duration of the last compilation",
            metrics.compile_seconds.clone(),
        );
        registry.register("diagnostics", "Diagnostics of the rules on disk", metrics.diagnostics.clone());
        let diagnostics = &metrics.candidate_diagnostics;
        registry.register(
            "candidate_diagnostics",
            "Diagnostics of the candidate on disk",
            diagnostics.clone(),
        );
        let workloads = &metrics.candidate_workloads;
        registry.register(
            "candidate_workloads",
            "Workloads whose rules are compared with a candidate",
            workloads.clone(),
        );
        registry.register(
            "substituted_files",
            "Files whose last good text is in force",
            metrics.substituted_files.clone(),
        );
        registry.register("workloads", "Workloads that have a Bundle", metrics.workloads.clone());
        registry.register("revision", "Counter of the last revision", metrics.revision.clone());
        registry.register(
            "issuer_valid_until_timestamp_seconds",
            "Until when an issuer's keys may be used",
            metrics.issuer_valid_until.clone(),
        );
        registry.register(
            "issuer_fetched_timestamp_seconds",
            "When an issuer's keys were fetched last",
            metrics.issuer_fetched.clone(),
        );
        registry.register("issuer_keys", "Keys that an issuer has", metrics.issuer_keys.clone());
        registry.register(
            "issuer_alert",
            "1 where something about an issuer's keys wants attention",
            metrics.issuer_alerts.clone(),
        );
        registry.register("key_fetches", "Attempts to fetch keys", metrics.key_fetches.clone());
        registry.register("key_lookups", "Keys that filters asked for", metrics.key_lookups.clone());
        let lookups = &metrics.directory_lookups;
        registry.register("directory_lookups", "Ids that filters asked for", lookups.clone());
        registry.register("directory_reads", "Readings of directories", metrics.directory_reads.clone());
        registry.register("directory_ids", "Ids that a directory lists", metrics.directory_ids.clone());
        registry.register(
            "directory_fresh_until_timestamp_seconds",
            "Until when a directory counts",
            metrics.directory_fresh_until.clone(),
        );
        registry.register("revocations", "Revocations in force", metrics.revocations.clone());
        registry.register(
            "revocations_broken",
            "Revocations that do not go together with the newest rules",
            metrics.revocations_broken.clone(),
        );
        registry.register("suspended", "Workloads whose Guards are suspended", metrics.suspensions.clone());
        registry.register(
            "rollouts_canary",
            "Workloads where canaries try changed rules, and the other proxies keep those before",
            metrics.rollouts_tried.clone(),
        );
        registry.register(
            "rollouts_aborted",
            "Workloads where changed rules were given up, and all proxies keep those before",
            metrics.rollouts_aborted.clone(),
        );
        registry.register("pinned", "1 while earlier rules are pinned", metrics.pinned.clone());
        metrics
    }
}

impl ReasonLabel {
    /// The label for this word.
    pub const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

// === impl AlertLabel ===

impl AlertLabel {
    /// The label for this alert of this issuer.
    pub fn new(issuer: &str, alert: crate::keys::Alert) -> Self {
        Self { issuer: issuer.to_owned(), alert: alert.name() }
    }
}
