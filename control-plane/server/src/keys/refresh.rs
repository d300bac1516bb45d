//! Keeps the keys of all issuers fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::ring::Fetched;
use super::{FetchError, Fetcher, IssuerKeys, IssuerReport, KeyRing, KeySource, KeySources};
use crate::clock;
use crate::metrics::{IssuerLabel, Metrics, ReasonLabel};
use crate::push::Hub;
use crate::state::{StateDir, StateError};

const FILE: &str = "issuer-keys.json";
/// After a success.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// After the first failure; doubles up to [`EVERY`].
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// What is shown at the admin interface.
pub type Reports = Mutex<BTreeMap<String, IssuerReport>>;

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
    loop {
        let now = Instant::now();
        for (name, source) in keeper.take_due(now) {
            let fetcher = fetcher.clone();
            fetches.push(async move {
                let result = fetch(&fetcher, &source).await;
                (name, source, result)
            });
        }
        let next = keeper.next_due();
        tokio::select! {
            changed = sources.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                keeper.set_sources(sources.borrow_and_update().clone());
            }
            Some((name, source, result)) = fetches.next() => {
                let label = if result.is_ok() { "ok" } else { "failed" };
                hub.metrics.key_fetches.get_or_create(&ReasonLabel::new(label)).inc();
                keeper.take(&name, source, result.map_err(|error| error.to_string()), clock::now());
            }
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
        keeper.show(&hub.metrics);
        ring.send_if_modified(|current| {
            let is_changed = **current != keeper.ring;
            if is_changed {
                *current = Arc::new(keeper.ring.clone());
            }
            is_changed
        });
    }
}

async fn fetch(fetcher: &Fetcher, source: &KeySource) -> Result<String, FetchError> {
    match source {
        KeySource::Inline(document) => Ok(document.clone()),
        KeySource::Url(url) => fetcher.key_set(url).await,
        KeySource::Discovery(issuer) => fetcher.key_set(&fetcher.discover(issuer).await?).await,
    }
}

/// What is known, and when to ask again.
struct Keeper {
    state: Arc<StateDir>,
    reports: Arc<Reports>,
    issuers: BTreeMap<String, Issuer>,
    /// Everything that was ever fetched for a configured issuer, written down.
    fetched: BTreeMap<String, Fetched>,
    ring: KeyRing,
    /// Issuers that have a metric.
    shown: BTreeSet<String>,
}

struct Issuer {
    source: KeySource,
    /// `None` while a fetch is under way, and for keys that need none.
    due: Option<Instant>,
    retry: Duration,
}

// === impl Keeper ===

impl Keeper {
    fn open(state: Arc<StateDir>, reports: Arc<Reports>) -> Result<Self, StateError> {
        let fetched = state.read_json(FILE)?.unwrap_or_default();
        let (issuers, ring, shown) = Default::default();
        Ok(Self { state, reports, issuers, fetched, ring, shown })
    }

    fn set_sources(&mut self, sources: Arc<KeySources>) {
        self.issuers.retain(|name, issuer| sources.get(name) == Some(&issuer.source));
        self.fetched.retain(|name, fetched| sources.get(name) == Some(&fetched.source));
        self.ring.retain(|name| self.issuers.contains_key(name));
        self.lock_reports().retain(|name, _| self.issuers.contains_key(name));
        for (name, source) in sources.iter() {
            if self.issuers.contains_key(name) {
                continue;
            }
            let mut issuer = Issuer { source: source.clone(), due: Some(Instant::now()), retry: FIRST_RETRY };
            let mut report = IssuerReport { name: name.clone(), ..no_keys() };
            let known = match source {
                KeySource::Inline(document) => {
                    issuer.due = None;
                    Some(Fetched { source: source.clone(), at: 0, document: document.clone() })
                }
                KeySource::Url(_) | KeySource::Discovery(_) => self.fetched.get(name).cloned(),
            };
            if let Some(known) = known {
                self.adopt(name, &known, &mut report);
            }
            if issuer.due.is_some() && self.ring.get(name).is_none() {
                self.ring.pending.insert(name.clone());
            }
            self.lock_reports().insert(name.clone(), report);
            self.issuers.insert(name.clone(), issuer);
        }
        self.ring.sources = sources;
    }

    /// Issuers to be asked now.
    fn take_due(&mut self, now: Instant) -> Vec<(String, KeySource)> {
        let due = self.issuers.iter_mut().filter(|(_, issuer)| issuer.due.is_some_and(|due| due <= now));
        due.map(|(name, issuer)| {
            issuer.due = None;
            (name.clone(), issuer.source.clone())
        })
        .collect()
    }

    fn next_due(&self) -> Option<Instant> {
        self.issuers.values().filter_map(|issuer| issuer.due).min()
    }

    /// Takes what a fetch brought. `now`: Unix seconds.
    fn take(&mut self, name: &str, source: KeySource, result: Result<String, String>, now: i64) {
        let Some(issuer) = self.issuers.get_mut(name).filter(|issuer| issuer.source == source) else {
            // Configured differently since.
            return;
        };
        self.ring.pending.remove(name);
        let result = result.and_then(|document| {
            let fetched = Fetched { source, at: now, document };
            fetched.keys().map(|_| fetched)
        });
        match result {
            Ok(fetched) => {
                issuer.due = Some(Instant::now() + EVERY);
                issuer.retry = FIRST_RETRY;
                let mut report = IssuerReport { name: name.to_owned(), ..no_keys() };
                self.adopt(name, &fetched, &mut report);
                self.lock_reports().insert(name.to_owned(), report);
                let is_new = self.fetched.get(name).is_none_or(|known| known.document != fetched.document);
                if is_new {
                    info!(issuer = name, "fetched new keys");
                }
                self.fetched.insert(name.to_owned(), fetched);
                if let Err(error) = self.state.write_json(FILE, &self.fetched) {
                    warn!("keys are in use, and not written down for the next start: {error}");
                }
            }
            Err(error) => {
                issuer.due = Some(Instant::now() + issuer.retry);
                issuer.retry = (issuer.retry * 2).min(EVERY);
                warn!(issuer = name, "cannot fetch keys, those known stay until they are too old: {error}");
                if let Some(report) = self.lock_reports().get_mut(name) {
                    report.error = Some(error);
                }
            }
        }
    }

    /// Puts keys to use.
    fn adopt(&mut self, name: &str, fetched: &Fetched, report: &mut IssuerReport) {
        match fetched.keys() {
            Ok((keys, refused)) => {
                *report = describe(name, fetched, &keys, refused);
                self.ring.set(name, keys);
            }
            Err(error) => {
                report.error = Some(error);
                self.ring.remove(name);
            }
        }
    }

    fn show(&mut self, metrics: &Metrics) {
        let label = |name: &str| IssuerLabel { issuer: name.to_owned() };
        let gone = self.shown.iter().filter(|name| !self.issuers.contains_key(*name));
        for name in gone {
            metrics.issuer_valid_until.remove(&label(name));
        }
        self.shown = self.issuers.keys().cloned().collect();
        for name in self.issuers.keys() {
            let valid_until = self.ring.get(name).map_or(0, |keys| keys.valid_until);
            metrics.issuer_valid_until.get_or_create(&label(name)).set(valid_until);
        }
    }

    fn lock_reports(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, IssuerReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_keys() -> IssuerReport {
    IssuerReport {
        name: String::new(),
        keys: 0,
        refused: Vec::new(),
        valid_until: None,
        fetched_at: None,
        error: None,
    }
}

fn describe(name: &str, fetched: &Fetched, keys: &IssuerKeys, refused: Vec<String>) -> IssuerReport {
    IssuerReport {
        name: name.to_owned(),
        keys: keys.keys.len(),
        refused,
        valid_until: Some(keys.valid_until),
        fetched_at: (!matches!(fetched.source, KeySource::Inline(_))).then_some(fetched.at),
        error: None,
    }
}

#[cfg(test)]
mod tests;
