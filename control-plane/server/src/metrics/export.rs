//! What becomes of records on their way to an OTLP receiver.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a record was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportLoss {
    /// The queue was full.
    Full,
    /// The receiver did not take it for too long.
    GivenUp,
    /// The receiver refused the batch for good.
    Refused,
    /// The receiver took the batch and refused this one.
    Rejected,
    /// The server stopped before.
    Stopped,
}

/// All of it, by signal.
#[derive(Debug, Clone, Default)]
pub struct ExportMetrics {
    taken: Family<SignalLabel, Counter>,
    delivered: Family<SignalLabel, Counter>,
    lost: Family<LossLabel, Counter>,
    waiting: Family<SignalLabel, Gauge>,
    requests: Family<ResultLabel, Counter>,
    last_success: Family<SignalLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabel {
    signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabel {
    signal: &'static str,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    signal: &'static str,
    result: &'static str,
}

// === impl ExportLoss ===

impl ExportLoss {
    /// Every cause.
    pub const ALL: [Self; 5] = [Self::Full, Self::GivenUp, Self::Refused, Self::Rejected, Self::Stopped];

    /// For labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::GivenUp => "gave_up",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
        }
    }
}

// === impl ExportMetrics ===

impl ExportMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "export_taken",
            "Records of decisions that were to be exported, by signal",
            self.taken.clone(),
        );
        registry.register(
            "export_delivered",
            "Records of decisions that the OTLP receiver took, by signal",
            self.delivered.clone(),
        );
        registry.register(
            "export_lost",
            "Records of decisions that were not exported, by signal and cause",
            self.lost.clone(),
        );
        registry.register(
            "export_waiting",
            "Records of decisions that wait to be exported, by signal",
            self.waiting.clone(),
        );
        registry.register(
            "export_requests",
            "Requests to the OTLP receiver, by signal and result",
            self.requests.clone(),
        );
        registry.register(
            "export_last_success_timestamp_seconds",
            "When the OTLP receiver took something last, by signal",
            self.last_success.clone(),
        );
    }

    /// This signal is exported: its figures are there from now on, so that the first loss is seen as a change. `records`:
    /// its records are counted, not only requests.
    pub fn expect(&self, signal: &'static str, records: bool) {
        for result in ["ok", "failed"] {
            self.requests.get_or_create(&ResultLabel { signal, result }).inc_by(0);
        }
        if records {
            let label = SignalLabel { signal };
            self.taken.get_or_create(&label).inc_by(0);
            self.delivered.get_or_create(&label).inc_by(0);
            self.waiting.get_or_create(&label).set(0);
            for loss in ExportLoss::ALL {
                self.lost.get_or_create(&LossLabel { signal, cause: loss.word() }).inc_by(0);
            }
        }
    }

    /// How many records of a signal were delivered and lost so far.
    pub fn so_far(&self, signal: &'static str) -> (u64, u64) {
        let lost =
            |loss: ExportLoss| self.lost.get_or_create(&LossLabel { signal, cause: loss.word() }).get();
        let delivered = self.delivered.get_or_create(&SignalLabel { signal }).get();
        (delivered, ExportLoss::ALL.into_iter().map(lost).sum())
    }

    /// Whether figures were ever taken.
    pub fn took_figures(&self, signal: &'static str) -> bool {
        self.last_success.get_or_create(&SignalLabel { signal }).get() > 0
    }

    /// A record is to be exported.
    pub fn taken(&self, signal: &'static str) {
        self.taken.get_or_create(&SignalLabel { signal }).inc();
    }

    /// The receiver took so many. `now`: Unix seconds.
    pub fn delivered(&self, signal: &'static str, records: u64, now: i64) {
        self.delivered.get_or_create(&SignalLabel { signal }).inc_by(records);
        self.last_success.get_or_create(&SignalLabel { signal }).set(now);
    }

    /// So many will never be delivered.
    pub fn lost(&self, signal: &'static str, loss: ExportLoss, records: u64) {
        self.lost.get_or_create(&LossLabel { signal, cause: loss.word() }).inc_by(records);
    }

    /// So many wait.
    pub fn waiting(&self, signal: &'static str, records: usize) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.waiting.get_or_create(&SignalLabel { signal }).set(records);
    }

    /// A request was answered, or not.
    pub fn attempted(&self, signal: &'static str, is_ok: bool) {
        let result = if is_ok { "ok" } else { "failed" };
        self.requests.get_or_create(&ResultLabel { signal, result }).inc();
    }

    /// The receiver took figures. `now`: Unix seconds.
    pub fn figures_delivered(&self, signal: &'static str, now: i64) {
        self.last_success.get_or_create(&SignalLabel { signal }).set(now);
    }
}
