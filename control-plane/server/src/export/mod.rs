//! Decisions and figures for whatever people look at already: an OpenTelemetry collector, by OTLP.
//!
//! The way of a record: it is taken from the broadcast of decisions, queued per signal ([`queue`]), made into OTLP
//! ([`logs`], [`spans`]) and delivered in batches (`deliver`, `client`). Figures are read from `/metrics` at an
//! interval ([`metrics`]), so both say the same. What there is, and by which names, is in
//! `control-plane/docs/telemetry.md`.
//!
//! INVARIANT: nobody waits for a receiver. What there is no room or no time for is dropped and counted, and the counts
//! add up: taken = delivered + lost by cause + still waiting.

pub mod attributes;
pub mod client;
mod deliver;
pub mod logs;
pub mod metrics;
mod openmetrics;
pub mod options;
pub mod queue;
pub mod spans;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tracing::info;

use self::attributes::resource;
use self::client::Client;
use self::deliver::Deliver;
use self::queue::{Limits, Queue};
use crate::decisions::{Feed, Heard};
use crate::metrics::ExportLoss;
use crate::push::{Hub, stopped};

pub use client::ClientError;
pub use deliver::Pace;
pub use options::{Flags, InvalidExport, Options, Protocol, Signal, Target};

/// How long it is tried to deliver what waits when the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// Exports, until the hub stops. Nothing is connected to before something is to be sent. `feed`: decisions as they come.
///
/// # Errors
/// When a client cannot be made: certificate files that cannot be read.
pub fn start(options: Options, hub: &Arc<Hub>, feed: Feed) -> Result<Exporter, ClientError> {
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
    Ok(Exporter {
        hub: hub.clone(),
        feed,
        logs: records(Signal::Logs, logs)?,
        traces: records(Signal::Traces, traces)?,
        metrics,
    })
}

/// What [`start`] made ready.
#[derive(Debug)]
pub struct Exporter {
    hub: Arc<Hub>,
    feed: Feed,
    logs: Option<Deliver>,
    traces: Option<Deliver>,
    metrics: Option<metrics::Reader>,
}

// === impl Exporter ===

impl Exporter {
    /// Runs until the hub stops, and a little longer to deliver what waits.
    pub async fn run(self) -> Result<(), Infallible> {
        let Self { hub, mut feed, logs, traces, metrics } = self;
        let mut queues = Vec::new();
        let mut tasks = JoinSet::new();
        for deliver in [logs, traces].into_iter().flatten() {
            queues.push((deliver.signal, deliver.queue.clone()));
            tasks.spawn(deliver.run(GRACE));
        }
        if let Some(reader) = metrics {
            tasks.spawn(reader.run(GRACE));
        }
        let mut stop = hub.stopping();
        loop {
            let heard = tokio::select! {
                heard = feed.next() => heard,
                () = stopped(&mut stop) => break,
            };
            match heard {
                Some(heard) => take(&hub, &queues, heard),
                // Whoever reads decisions ended; figures go on.
                None => {
                    stopped(&mut stop).await;
                    break;
                }
            }
        }
        // What came before the stop is still to be sent.
        while let Some(Some(heard)) = feed.next().now_or_never() {
            take(&hub, &queues, heard);
        }
        for (_, queue) in &queues {
            queue.close();
        }
        finish(tasks).await
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

fn take(hub: &Hub, queues: &[(Signal, Arc<Queue>)], heard: Heard) {
    let entry = match heard {
        Heard::Entry(entry) => entry,
        Heard::Missed(missed) => {
            for (signal, _) in queues {
                hub.metrics.export.lost(signal.word(), ExportLoss::Behind, missed);
            }
            return;
        }
    };
    for (signal, queue) in queues {
        if *signal == Signal::Traces && !spans::has_span(&entry) {
            continue;
        }
        let word = signal.word();
        hub.metrics.export.taken(word);
        let lost = queue.push(entry.clone());
        if lost > 0 {
            hub.metrics.export.lost(word, ExportLoss::Full, lost);
        }
        hub.metrics.export.waiting(word, queue.len());
    }
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
