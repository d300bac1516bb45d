//! Keeps the keys of all issuers fresh.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Fetcher, KeyRing, KeySources, Reports};
use crate::clock;
use crate::push::Hub;
use crate::state::{StateDir, StateError};

mod keeper;
mod pace;

use keeper::Keeper;

/// How often alerts are looked at: most of them come with time.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps keys fresh until its inputs end. Every change of `sources` is taken up at once.
pub async fn refresh(
    fetcher: Fetcher,
    state: Arc<StateDir>,
    mut sources: watch::Receiver<Arc<KeySources>>,
    ring: watch::Sender<Arc<KeyRing>>,
    reports: Arc<Reports>,
    hub: Arc<Hub>,
) -> Result<(), StateError> {
    let mut keeper = Keeper::open(state, reports)?;
    let mut fetches = FuturesUnordered::new();
    let mut look = Instant::now();
    loop {
        let now = Instant::now();
        for due in keeper.take_due(now) {
            let fetcher = fetcher.clone();
            fetches.push(async move {
                let result = fetcher.keys(&due.source.keys, due.known.as_ref()).await;
                (due, result)
            });
        }
        let wake = keeper.next_due().map_or(look, |due| due.min(look));
        // Questions change nothing that is shown, and there may be many.
        let is_question = tokio::select! {
            changed = sources.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                keeper.set_sources(sources.borrow_and_update().clone(), clock::now());
                false
            }
            Some((due, result)) = fetches.next() => {
                let result = result.map_err(|error| error.to_string());
                keeper.take(&due, result, clock::now(), &hub.metrics);
                false
            }
            question = hub.key_desk.next() => {
                keeper.take_question(question, Instant::now(), &hub.metrics);
                true
            }
            () = sleep_until(wake) => false,
        };
        if !is_question || look <= Instant::now() {
            keeper.show(clock::now(), &hub.metrics);
            look = Instant::now() + LOOK;
        }
        let current = keeper.ring();
        ring.send_if_modified(|known| {
            let is_changed = !Arc::ptr_eq(known, &current);
            *known = current;
            is_changed
        });
        keeper.answer();
    }
}

#[cfg(test)]
mod tests;
