//! Delivers one signal's records: batches, again and again with longer waits, until they are taken or too old.
//!
//! INVARIANT: every record that was taken from the queue is counted once: delivered, or lost by cause.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::client::{Accepted, Client, SendError};
use super::options::Signal;
use super::queue::Queue;
use super::{logs, spans};
use crate::clock;
use crate::decisions::record::Entry;
use crate::metrics::ExportLoss;
use crate::push::{Hub, stopped};

/// How batches are made, and how often they are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Records in a batch.
    pub batch: usize,
    /// Bytes in a batch, roughly.
    pub batch_bytes: usize,
    /// How long a batch waits to become full.
    pub linger: Duration,
    /// How long it is waited before the second attempt; before every further one twice as long.
    pub first_wait: Duration,
    /// The longest such wait.
    pub longest_wait: Duration,
    /// After so long a batch is given up.
    pub patience: Duration,
}

/// What one signal needs.
#[derive(Debug)]
pub(super) struct Deliver {
    pub signal: Signal,
    pub client: Client,
    pub queue: Arc<Queue>,
    pub hub: Arc<Hub>,
    pub resource: Resource,
    pub pace: Pace,
}

/// How an attempt to deliver ended.
enum Delivery {
    Taken(Accepted),
    TooLarge(String),
    Refused(String),
    /// Too old.
    GivenUp(String),
    Stopped(String),
}

// === impl Deliver ===

impl Deliver {
    /// Until the queue is closed and empty, or `grace` is over after the hub stopped.
    pub(super) async fn run(self, grace: Duration) {
        let mut attempts = Attempts::new(self.hub.stopping(), self.pace, grace);
        let mut is_losing = false;
        loop {
            let Pace { batch, batch_bytes, linger, .. } = self.pace;
            let mut batch = self.queue.next(batch, batch_bytes, linger).await;
            if batch.is_empty() {
                return;
            }
            let mut rest: Vec<Vec<Entry>> = Vec::new();
            loop {
                let delivery = self.deliver(&batch, &mut attempts).await;
                self.conclude(&batch, &delivery, &mut is_losing);
                if let Delivery::TooLarge(_) = delivery
                    && batch.len() > 1
                {
                    let second = batch.split_off(batch.len() / 2);
                    rest.push(second);
                    continue;
                }
                match rest.pop() {
                    Some(next) => batch = next,
                    None => break,
                }
            }
        }
    }

    async fn deliver(&self, batch: &[Entry], attempts: &mut Attempts) -> Delivery {
        let now = u64::try_from(clock::now_us()).unwrap_or(0).saturating_mul(1_000);
        let message = match self.signal {
            Signal::Traces => spans::request(&self.resource, batch),
            Signal::Logs | Signal::Metrics => logs::request(&self.resource, batch, now),
        };
        attempts.send(&self.client, self.signal, &message, &self.hub).await
    }

    fn conclude(&self, batch: &[Entry], delivery: &Delivery, is_losing: &mut bool) {
        let (word, export) = (self.signal.word(), &self.hub.metrics.export);
        let all = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let settled = || {
            self.queue.settled(batch.len());
            export.waiting(word, self.queue.waiting());
        };
        let (loss, why) = match delivery {
            Delivery::Taken(accepted) => {
                let rejected = accepted.rejected.min(all);
                export.delivered(word, all.saturating_sub(rejected), clock::now());
                if rejected > 0 {
                    export.lost(word, ExportLoss::Rejected, rejected);
                    warn!(
                        signal = word,
                        rejected, "the OTLP receiver took a batch but for some: {}", accepted.words
                    );
                }
                settled();
                *is_losing = false;
                return;
            }
            // Halves follow.
            Delivery::TooLarge(_) if batch.len() > 1 => return,
            Delivery::TooLarge(why) | Delivery::Refused(why) => (ExportLoss::Refused, why),
            Delivery::GivenUp(why) => (ExportLoss::GivenUp, why),
            Delivery::Stopped(why) => (ExportLoss::Stopped, why),
        };
        export.lost(word, loss, all);
        settled();
        if std::mem::replace(is_losing, true) {
            debug!(signal = word, lost = all, "records are not exported: {why}");
        } else {
            warn!(signal = word, lost = all, "records are not exported, and more may follow: {why}");
        }
    }
}

/// Attempts of one kind of message, one after the other.
#[derive(Debug)]
pub(super) struct Attempts {
    stop: watch::Receiver<bool>,
    pace: Pace,
    grace: Duration,
    /// When nothing is tried any more; known once the hub stopped.
    end: Option<Instant>,
    /// The receiver did not take the last message, and that was told.
    is_down: bool,
}

// === impl Attempts ===

impl Attempts {
    pub(super) fn new(stop: watch::Receiver<bool>, pace: Pace, grace: Duration) -> Self {
        Self { stop, pace, grace, end: None, is_down: false }
    }

    /// Whether the message was taken, for whoever only wants to know that.
    pub(super) async fn try_send(
        &mut self,
        client: &Client,
        signal: Signal,
        message: &[u8],
        hub: &Hub,
    ) -> Result<Accepted, String> {
        match self.send(client, signal, message, hub).await {
            Delivery::Taken(accepted) => Ok(accepted),
            Delivery::TooLarge(why)
            | Delivery::Refused(why)
            | Delivery::GivenUp(why)
            | Delivery::Stopped(why) => Err(why),
        }
    }

    async fn send(&mut self, client: &Client, signal: Signal, message: &[u8], hub: &Hub) -> Delivery {
        let began = Instant::now();
        let mut wait = self.pace.first_wait;
        loop {
            let sent = tokio::select! {
                sent = client.send(signal, message) => sent,
                () = self.over() => return Delivery::Stopped("the server stops".to_owned()),
            };
            hub.metrics.export.attempted(signal.word(), sent.is_ok());
            let (why, after) = match sent {
                Ok(accepted) => {
                    if std::mem::take(&mut self.is_down) {
                        info!(signal = signal.word(), "the OTLP receiver takes {signal} again");
                    }
                    return Delivery::Taken(accepted);
                }
                Err(SendError::TooLarge(why)) => return Delivery::TooLarge(why),
                Err(SendError::Never(why)) => {
                    // Whoever sends it tells so.
                    self.is_down = true;
                    return Delivery::Refused(why);
                }
                Err(SendError::Later { why, after }) => (why, after),
            };
            if std::mem::replace(&mut self.is_down, true) {
                debug!(signal = signal.word(), "not delivered yet: {why}");
            } else {
                warn!(
                    signal = signal.word(),
                    "the OTLP receiver does not take {signal}: {why}; it is tried again for {:?}",
                    self.pace.patience
                );
            }
            let pause = after.unwrap_or_else(|| jittered(wait));
            if began.elapsed().saturating_add(pause) > self.pace.patience {
                return Delivery::GivenUp(why);
            }
            wait = wait.saturating_mul(2).min(self.pace.longest_wait);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.over() => return Delivery::Stopped(why),
            }
        }
    }

    /// Resolves when the hub stopped and the grace is over.
    async fn over(&mut self) {
        stopped(&mut self.stop).await;
        let end = *self.end.get_or_insert_with(|| Instant::now() + self.grace);
        tokio::time::sleep_until(end).await;
    }
}

/// Between half of it and all of it, so that many servers do not come at once.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness they come at once, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    wait / 2 + wait.saturating_mul(u32::from(byte)) / 512
}
