//! Decisions and figures for whatever people look at already: an OpenTelemetry collector, by OTLP.
//!
//! The way of a record: it is handed over where it comes in, queued per signal ([`queue`]), made into OTLP
//! ([`logs`], [`spans`]) and delivered in batches (`deliver`, `client`). Figures are read from `/metrics` at an
//! interval ([`metrics`]), so both say the same. What there is, and by which names, is in
//! `control-plane/docs/telemetry.md`.
//!
//! INVARIANT: nobody waits for a receiver. What there is no room or no time for is dropped and counted, and the counts
//! add up: taken = delivered + lost by cause + still waiting.

pub mod attributes;
pub mod client;
mod deliver;
mod flags;
pub mod logs;
pub mod metrics;
mod openmetrics;
pub mod options;
pub mod queue;
pub mod spans;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::info;

use self::attributes::resource;
use self::client::Client;
use self::deliver::Deliver;
use self::queue::{Limits, Queue};
use crate::decisions::Export;
use crate::decisions::record::Entry;
use crate::metrics::{ExportLoss, ExportMetrics};
use crate::push::{Hub, stopped};

pub use client::ClientError;
pub use deliver::Pace;
pub use flags::OtlpFlags;
pub use options::{Flags, InvalidExport, Options, Protocol, Signal, Target};

/// How long it is tried to deliver what waits when the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// Exports what is decided from now on, until the hub stops. Nothing is connected to before something is to be sent.
///
/// # Errors
/// When a client cannot be made: certificate files that cannot be read.
pub fn start(options: Options, hub: &Arc<Hub>) -> Result<Exporter, ClientError> {
    let Options { logs, metrics, traces, resource: attributes, interval, queue, pace } = options;
    let resource = resource(&attributes);
    let records = |signal, target: Option<Target>| {
        let Some(target) = target else { return Ok(None) };
        let client = Client::new(&target)?;
        info!(endpoint = %target.endpoint, protocol = target.protocol.word(), "exporting {} by OTLP", signal);
        let queue = Arc::new(Queue::new(queue));
        Ok(Some(Deliver { signal, client, queue, hub: hub.clone(), resource: resource.clone(), pace }))
    };
    let metrics = match metrics {
        None => None,
        Some(target) => {
            let client = Client::new(&target)?;
            info!(endpoint = %target.endpoint, protocol = target.protocol.word(), "exporting metrics by OTLP");
            Some(metrics::Reader { client, hub: hub.clone(), resource: resource.clone(), interval, pace })
        }
    };
    let records: Vec<Deliver> =
        [records(Signal::Logs, logs)?, records(Signal::Traces, traces)?].into_iter().flatten().collect();
    for deliver in &records {
        hub.metrics.export.expect(deliver.signal.word(), true);
    }
    if metrics.is_some() {
        hub.metrics.export.expect(Signal::Metrics.word(), false);
    }
    let queues = records.iter().map(|deliver| (deliver.signal, deliver.queue.clone())).collect();
    let intake = Arc::new(Intake { queues, metrics: hub.metrics.export.clone() });
    hub.decisions.export_to(intake.clone());
    Ok(Exporter { hub: hub.clone(), intake, records, metrics })
}

/// What [`start`] made ready.
#[derive(Debug)]
pub struct Exporter {
    hub: Arc<Hub>,
    intake: Arc<Intake>,
    records: Vec<Deliver>,
    metrics: Option<metrics::Reader>,
}

/// Where decisions come in.
#[derive(Debug)]
struct Intake {
    queues: Vec<(Signal, Arc<Queue>)>,
    metrics: ExportMetrics,
}

// === impl Exporter ===

impl Exporter {
    /// Runs until the hub stops, and a little longer to deliver what waits.
    pub async fn run(self) -> Result<(), Infallible> {
        let Self { hub, intake, records, metrics } = self;
        let mut tasks = JoinSet::new();
        for deliver in records {
            tasks.spawn(deliver.run(GRACE));
        }
        if let Some(reader) = metrics {
            tasks.spawn(reader.run(GRACE));
        }
        stopped(&mut hub.stopping()).await;
        for (_, queue) in &intake.queues {
            queue.close();
        }
        finish(tasks).await
    }
}

// === impl Intake ===

impl Export for Intake {
    fn take(&self, entry: &Entry, comes_again: bool) -> bool {
        let mut is_kept = true;
        for (signal, queue) in &self.queues {
            let (is_record, word) = (*signal == Signal::Logs, signal.word());
            if !is_record && !spans::has_span(entry) {
                continue;
            }
            let pushed = queue.push(entry.clone());
            let mut lost = pushed.lost;
            if is_record && comes_again && !pushed.is_kept {
                (is_kept, lost) = (false, lost.saturating_sub(1));
            } else {
                self.metrics.taken(word);
            }
            if lost > 0 {
                self.metrics.lost(word, ExportLoss::Full, lost);
            }
            self.metrics.waiting(word, queue.waiting());
            if !is_kept {
                // Its span comes again with it.
                break;
            }
        }
        is_kept
    }

    fn keeps_records(&self) -> bool {
        self.queues.iter().any(|(signal, _)| *signal == Signal::Logs)
    }
}

/// Nothing comes any more; what waits is delivered, or the grace is over.
async fn finish(mut tasks: JoinSet<()>) -> Result<(), Infallible> {
    while let Some(ended) = tasks.join_next().await {
        // A task that panicked: whoever started this one has to know.
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    Ok(())
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 65_536, bytes: 64 << 20 }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: 2_048,
            batch_bytes: 2 << 20,
            linger: Duration::from_secs(1),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            patience: Duration::from_secs(300),
        }
    }
}
