//! Decisions as filters report them: read, kept for a while, and handed on.
//!
//! The way of a record: a filter's batch is read and cleaned ([`record`] is what comes of it), offered to whoever listens,
//! exported, and queued for the store. Nothing of that ever waits: what there is no room for is dropped, counted, and shown as a
//! gap; but what a rule requires to be recorded is not acknowledged before it is kept (`slip`). Every workload has a share
//! of what waits (`lanes`) and of what is kept ([`store`]).
//!
//! INVARIANT: what a filter says is untrusted. It is never a label of a metric, never a path, and never shown as it came.

pub mod clean;
pub mod csv;
pub mod explain;
pub mod filter;
mod git;
mod intake;
pub(crate) mod lanes;
pub mod metrics;
pub mod operation;
pub(crate) mod pods;
mod queue;
pub mod read;
pub mod record;
pub(crate) mod rules;
pub mod run;
mod slip;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod time;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::{JoinError, spawn_blocking};

use crate::push::{Hub, stopped};
use crate::state::StateError;
use store::{Keeper, Limits, Store};

pub use intake::{Batches, Decisions, Export, Feed, Heard};
pub(crate) use rules::follow;
pub use slip::Written;

/// Where decisions are kept, and how many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The folder; `None`: they are not kept, only handed on.
    pub folder: Option<PathBuf>,
    /// How the store is bounded.
    pub limits: Limits,
}

/// Closes the queue when it is let go of, so that the thread that empties it ends.
#[derive(Debug)]
pub(crate) struct Writing {
    keeper: Option<Keeper>,
    queue: Arc<queue::Queue>,
}

/// Opens the store, if there is to be one, and queues what filters decide for it.
pub(crate) fn open(options: &Options, hub: &Hub) -> Result<Option<Writing>, StateError> {
    let Some(folder) = &options.folder else { return Ok(None) };
    let store = Arc::new(Store::open(folder, options.limits, hub.metrics.decision_records.clone())?);
    let queue = hub.decisions.keep_in(store.clone());
    Ok(Some(Writing { keeper: Some(Keeper::new(store, queue.clone())), queue }))
}

// === impl Writing ===

impl Writing {
    /// Writes until the server stops, and then what is left.
    pub(crate) async fn run(mut self, hub: Arc<Hub>) -> Result<(), JoinError> {
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        let mut stop = hub.stopping();
        let mut thread = spawn_blocking(move || keeper.run());
        tokio::select! {
            ended = &mut thread => return ended,
            () = stopped(&mut stop) => {}
        }
        self.queue.close();
        thread.await
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.queue.close();
    }
}
