//! Which rules and keys are used, and since when that is known.
//!
//! Filters tell which rules decided and which keys had signed ([`tidegate_proto::v1::Uses`]); here it is kept by the rule's
//! name, across restarts. Filters tell when something was used last, and tell all of it again with every stream: what they
//! tell may come late or twice, and still says the same.
//!
//! INVARIANT: nothing counts as unused that may have been used: what was not counted, and when, is kept as well. What is
//! kept is bounded, and a filter speaks only for rules of its own workload.

mod forecast;
mod ledger;
#[cfg(test)]
mod testing;
mod unused;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, warn};

use crate::admin;
use crate::clock;
use crate::keys::Reports;
use crate::push::{Hub, stopped};
use crate::serve::InForce;
use crate::state::StateDir;

pub use forecast::{Forecast, IssuerForecast, KeyForecast, KeyState, forecast};
pub use ledger::{Away, Ledger};
pub use unused::{RuleUse, UnusedReport, Verdict, unused};

const FILE: &str = "uses.json";
/// How often it is noted which filters are there.
const LOOK: Duration = Duration::from_secs(60);
/// How often it is written down. What was told meanwhile, filters tell again.
const SAVE: Duration = Duration::from_secs(300);

/// Reads what was known before. What cannot be read begins anew: it is said since when there are counts.
pub(crate) fn restore(hub: &Hub, state: &StateDir) {
    match state.read_json(FILE) {
        Ok(Some(kept)) => hub.uses.restore(kept),
        Ok(None) => {}
        Err(error) => warn!("which rules are used is counted anew: {error}"),
    }
}

/// Notes which filters are there and writes down what is known, until the server stops.
pub(crate) async fn keep(
    hub: Arc<Hub>,
    state: Arc<StateDir>,
    issuers: Arc<Reports>,
    mut offered: watch::Receiver<Option<Arc<InForce>>>,
) -> Result<(), Infallible> {
    let mut stop = hub.stopping();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut saved = Instant::now();
    loop {
        let is_over = tokio::select! {
            _ = look.tick() => false,
            changed = offered.changed() => changed.is_err(),
            () = stopped(&mut stop) => true,
        };
        // Without anything on offer no filter speaks to this replica.
        if offered.borrow_and_update().is_some() {
            hub.uses.observe(&admin::fleet(&hub), clock::now());
            hub.uses.published(&admin::issuers(&issuers), clock::now());
        }
        if is_over || saved.elapsed() >= SAVE {
            saved = Instant::now();
            if let Some(kept) = hub.uses.take_changed() {
                let state = state.clone();
                match spawn_blocking(move || state.write_json(FILE, &kept)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => error!("which rules are used is not written down: {error}"),
                    Err(error) => error!("which rules are used is not written down: {error}"),
                }
            }
        }
        if is_over {
            return Ok(());
        }
    }
}
