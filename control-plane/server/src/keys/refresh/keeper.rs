//! What is known of all issuers' keys, and when to ask for more.
//!
//! No I/O but for what must survive a restart.
//!
//! INVARIANT: keys change only by a document that came from the configured source and has fit keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::pace::Pace;
use crate::bucket::{SharedBucket, TokenBucket};
use crate::keys::desk::{KeyQuestion, MAX_WAITING};
use crate::keys::record::{Document, Record};
use crate::keys::report::{Alert, AlertReport, Facts, IssuerReport, Reports};
use crate::keys::{IssuerSource, KeyRing, KeySet, KeySource, KeySources, Known};
use crate::metrics::{AlertLabel, FetchLabel, IssuerLabel, Metrics, ReasonLabel};
use crate::state::{StateDir, StateError};

const FILE: &str = "issuer-keys.json";
/// How often an issuer is asked for keys because filters of one workload do not know them: two rotations at once, then one
/// every so often.
const ASKED_BURST: u32 = 2;
const ASKED_EVERY: Duration = Duration::from_secs(10);
/// The same for all workloads together: so many at least have to do their worst before the others wait.
const ALL_ASKED_BURST: u32 = 8 * ASKED_BURST;
const ALL_ASKED_EVERY: Duration = Duration::from_secs(1);
/// How long after a change filters may ask for what is on its way to them.
const SPREADS_FOR: Duration = Duration::from_secs(10);

pub(super) struct Keeper {
    state: Arc<StateDir>,
    reports: Arc<Reports>,
    issuers: BTreeMap<String, Issuer>,
    /// Written down.
    records: BTreeMap<String, Record>,
    ring: KeyRing,
    /// What was handed out last.
    shared: Arc<KeyRing>,
    /// Issuers that have metrics.
    shown: BTreeSet<String>,
    /// To be told when the ring is handed out, and whether there is such a key.
    answers: Vec<(oneshot::Sender<Option<u64>>, bool)>,
}

struct Issuer {
    source: IssuerSource,
    /// `None` while a fetch is under way, and for keys that need none.
    due: Option<Instant>,
    is_fetching: bool,
    pace: Pace,
    asked: SharedBucket,
    /// Questions that wait for the fetch.
    waiting: Vec<KeyQuestion>,
    /// When its keys became others than before.
    changed_at: Option<Instant>,
    refused: Vec<String>,
    error: Option<String>,
}

/// An issuer to be asked.
pub(super) struct Due {
    pub name: String,
    pub source: IssuerSource,
    pub known: Option<Known>,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn open(state: Arc<StateDir>, reports: Arc<Reports>) -> Result<Self, StateError> {
        let records = state.read_json(FILE)?.unwrap_or_default();
        let (issuers, ring, shared, shown, answers) = Default::default();
        Ok(Self { state, reports, issuers, records, ring, shared, shown, answers })
    }

    /// `now`: Unix seconds.
    pub(super) fn set_sources(&mut self, sources: Arc<KeySources>, now: i64) {
        self.issuers.retain(|name, issuer| {
            sources.get(name).is_some_and(|source| source.has_keys_of(&issuer.source))
        });
        self.records.retain(|name, _| sources.contains_key(name));
        self.ring.retain(|name| self.issuers.contains_key(name));
        for (name, source) in sources.iter() {
            match self.issuers.get_mut(name) {
                Some(issuer) => issuer.source = source.clone(),
                None => self.begin(name, source, now),
            }
        }
        self.ring.sources = sources;
    }

    /// Takes up an issuer whose keys are not those of before.
    fn begin(&mut self, name: &str, source: &IssuerSource, now: i64) {
        self.issuers.insert(name.to_owned(), Issuer::new(source.clone()));
        if !source.used {
            return;
        }
        match &source.keys {
            KeySource::Inline(document) => {
                // Its errors are kept with the issuer.
                let _ = self.adopt(name, Record::new(source.keys.clone(), document.clone(), now), now);
            }
            _ => {
                if let Some(record) = self.records.get(name).filter(|record| record.source == source.keys) {
                    let _ = self.adopt(name, record.clone().not_after(now), now);
                }
                if let Some(issuer) = self.issuers.get_mut(name) {
                    issuer.due = Some(Instant::now());
                }
                if self.ring.get(name).is_none() {
                    self.ring.pending.insert(name.to_owned());
                }
            }
        }
    }

    /// Issuers to be asked now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let due = self.issuers.iter_mut().filter(|(_, issuer)| issuer.due.is_some_and(|due| due <= now));
        due.map(|(name, issuer)| {
            issuer.due = None;
            issuer.is_fetching = true;
            let record = self.records.get(name).filter(|record| record.source == issuer.source.keys);
            let known = record.and_then(Record::known);
            Due { name: name.clone(), source: issuer.source.clone(), known }
        })
        .collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.issuers.values().filter_map(|issuer| issuer.due).min()
    }

    /// Takes what a fetch brought. `now`: Unix seconds.
    pub(super) fn take(&mut self, due: &Due, result: Result<KeySet, String>, now: i64, metrics: &Metrics) {
        let name = due.name.as_str();
        let is_meant = |issuer: &&mut Issuer| issuer.is_fetching && issuer.source.has_keys_of(&due.source);
        let Some(issuer) = self.issuers.get_mut(name).filter(is_meant) else {
            // Configured differently since.
            return;
        };
        issuer.is_fetching = false;
        self.ring.pending.remove(name);
        let wished = result.as_ref().ok().and_then(|keys| keys.fresh_for);
        let is_new = matches!(&result, Ok(KeySet { document: Some(_), .. }));
        let record = result.and_then(|keys| self.received(due, keys, now));
        let adopted = record.and_then(|record| self.adopt(name, record, now));
        let Some(issuer) = self.issuers.get_mut(name) else { return };
        let label = match &adopted {
            Ok(_) if is_new => "ok",
            Ok(_) => "unchanged",
            Err(_) => "failed",
        };
        metrics.key_fetches.get_or_create(&FetchLabel { issuer: name.to_owned(), result: label }).inc();
        let wait = match adopted {
            Ok(refresh_hint) => issuer.pace.after_success(refresh_hint.or(wished)),
            Err(error) => {
                warn!(issuer = name, "cannot fetch keys, those known stay until they are too old: {error}");
                issuer.error = Some(error);
                issuer.pace.after_failure()
            }
        };
        issuer.due = Some(Instant::now() + wait);
        for question in std::mem::take(&mut issuer.waiting) {
            let is_listed = issuer.has(&self.ring, &question, Instant::now());
            metrics
                .key_lookups
                .get_or_create(&ReasonLabel::new(if is_listed { "found" } else { "unknown" }))
                .inc();
            self.answers.push((question.answer, is_listed));
        }
    }

    /// What an issuer has said, as it is remembered.
    fn received(&self, due: &Due, keys: KeySet, now: i64) -> Result<Record, String> {
        let before = self.records.get(&due.name).filter(|record| record.source == due.source.keys);
        let mut record = match (keys.document, before) {
            (Some(document), _) => Record::new(due.source.keys.clone(), document, now),
            (None, Some(before)) => Record { at: now, ..before.clone() },
            (None, None) => return Err("answered that nothing changed, and nothing is known".to_owned()),
        };
        record.url = keys.url;
        record.etag = keys.etag;
        record.replaced_at = before.and_then(|before| before.replaced_at);
        Ok(record)
    }

    /// Puts keys to use. Returns how often the issuer's bundle wants to be fetched.
    fn adopt(&mut self, name: &str, mut record: Record, now: i64) -> Result<Option<Duration>, String> {
        let Some(issuer) = self.issuers.get_mut(name) else { return Ok(None) };
        let document = Document::read(&record.document, issuer.source.pack);
        let before = self.records.get(name);
        let same_source = before.filter(|before| before.source == record.source);
        let document = document.and_then(|document| {
            let known =
                same_source.and_then(|before| Document::read(&before.document, issuer.source.pack).ok());
            match (document.sequence, known.and_then(|known| known.sequence)) {
                // SPIFFE Trust Domain and Bundle, section 4.1.1: the sequence grows with every change.
                (Some(new), Some(known)) if new < known => Err(format!(
                    "`spiffe_sequence` is {new}, and was {known}: an older bundle is never taken"
                )),
                _ => Ok(document),
            }
        });
        let document = match document {
            Ok(document) => document,
            Err(error) => {
                issuer.error = Some(error.clone());
                return Err(error);
            }
        };
        let since = before.map(|before| before.since.clone()).unwrap_or_default();
        let all_new = record.date(&document.keys, &since, now);
        if all_new && same_source.is_some() && !issuer.source.keys.is_inline() {
            warn!(issuer = name, "every key of the issuer is another one than before");
            record.replaced_at = Some(now);
        }
        issuer.error = None;
        issuer.refused.clone_from(&document.refused);
        let keys = record.keys(&document);
        match self.ring.get(name) {
            Some(known) if known.keys == keys.keys => {}
            Some(_) => {
                info!(issuer = name, keys = keys.keys.len(), "other keys than before");
                issuer.changed_at = Some(Instant::now());
            }
            None => info!(issuer = name, keys = keys.keys.len(), "first keys"),
        }
        self.ring.set(name, keys);
        // The time counts only in so far as the end moves with it.
        let is_worth_writing = before.is_none_or(|before| {
            before.valid_until() != record.valid_until()
                || *before != Record { at: before.at, ..record.clone() }
        });
        self.records.insert(name.to_owned(), record);
        if is_worth_writing && let Err(error) = self.state.write_json(FILE, &self.records) {
            warn!("keys are in use, and not written down for the next start: {error}");
        }
        Ok(document.refresh_hint)
    }

    /// A filter asks for a key. It is answered at once, or when the issuer has been asked.
    pub(super) fn take_question(&mut self, question: KeyQuestion, now: Instant, metrics: &Metrics) {
        let label = |label| metrics.key_lookups.get_or_create(&ReasonLabel::new(label)).inc();
        let issuer = self.issuers.get_mut(&question.issuer);
        let Some(issuer) = issuer.filter(|issuer| issuer.source.used && !issuer.source.keys.is_inline())
        else {
            label("unknown");
            return self.answers.push((question.answer, false));
        };
        let is_spreading = issuer.changed_at.is_some_and(|at| now.duration_since(at) < SPREADS_FOR);
        if is_spreading && issuer.has(&self.ring, &question, now) {
            label("found");
            self.answers.push((question.answer, true));
        } else if issuer.waiting.len() < MAX_WAITING
            && (issuer.is_fetching || issuer.asked.take(&question.workload, now))
        {
            if !issuer.is_fetching {
                issuer.due = Some(now);
            }
            issuer.waiting.push(question);
        } else {
            label("limited");
            self.answers.push((question.answer, false));
        }
    }

    /// What is known, to be handed out.
    pub(super) fn ring(&mut self) -> Arc<KeyRing> {
        if *self.shared != self.ring {
            self.ring.version += 1;
            self.shared = Arc::new(self.ring.clone());
        }
        self.shared.clone()
    }

    /// Answers questions, after what is known was handed out.
    pub(super) fn answer(&mut self) {
        for (answer, is_listed) in self.answers.drain(..) {
            // Who asked may have gone.
            let _ = answer.send(is_listed.then_some(self.shared.version));
        }
    }

    /// Tells people and metrics. `now`: Unix seconds.
    pub(super) fn show(&mut self, now: i64, metrics: &Metrics) {
        let label = |name: &str| IssuerLabel { issuer: name.to_owned() };
        let gone = self.shown.iter().filter(|name| !self.issuers.contains_key(*name));
        for name in gone {
            metrics.issuer_valid_until.remove(&label(name));
            metrics.issuer_fetched.remove(&label(name));
            metrics.issuer_keys.remove(&label(name));
            for alert in Alert::ALL {
                metrics.issuer_alerts.remove(&AlertLabel::new(name, alert));
            }
            for result in ["ok", "unchanged", "failed"] {
                metrics.key_fetches.remove(&FetchLabel { issuer: name.clone(), result });
            }
        }
        self.shown = self.issuers.keys().cloned().collect();
        let mut reports = BTreeMap::new();
        for (name, issuer) in &self.issuers {
            let keys = self.ring.get(name);
            let report = Facts {
                name,
                source: &issuer.source,
                record: self.records.get(name).filter(|record| record.source == issuer.source.keys),
                keys,
                refused: &issuer.refused,
                error: issuer.error.as_deref(),
                is_pending: self.ring.pending.contains(name),
                next_fetch_at: issuer.due.map(|due| now.saturating_add(seconds_until(due))),
            }
            .report(now);
            metrics
                .issuer_valid_until
                .get_or_create(&label(name))
                .set(keys.map_or(0, |keys| keys.valid_until));
            metrics.issuer_fetched.get_or_create(&label(name)).set(report.fetched_at.unwrap_or(0));
            let count = i64::try_from(report.keys.len()).unwrap_or(i64::MAX);
            metrics.issuer_keys.get_or_create(&label(name)).set(count);
            for alert in Alert::ALL {
                let is_raised = report.alerts.iter().any(|raised| raised.alert == alert);
                metrics.issuer_alerts.get_or_create(&AlertLabel::new(name, alert)).set(i64::from(is_raised));
            }
            reports.insert(name.clone(), report);
        }
        let mut shown = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, report) in &reports {
            log_alerts(shown.get(name).map_or(&[], |before| &before.alerts), report);
        }
        *shown = reports;
    }
}

/// Tells once what begins and what ends.
fn log_alerts(before: &[AlertReport], report: &IssuerReport) {
    let is_among = |alerts: &[AlertReport], alert| alerts.iter().any(|raised| raised.alert == alert);
    for raised in report.alerts.iter().filter(|raised| !is_among(before, raised.alert)) {
        warn!(issuer = report.name, alert = raised.alert.name(), "{}", raised.text);
    }
    for ended in before.iter().filter(|ended| !is_among(&report.alerts, ended.alert)) {
        info!(issuer = report.name, alert = ended.alert.name(), "no longer");
    }
}

// === impl Issuer ===

impl Issuer {
    fn new(source: IssuerSource) -> Self {
        Self {
            source,
            due: None,
            is_fetching: false,
            pace: Pace::new(),
            asked: SharedBucket::new(
                TokenBucket::new(ALL_ASKED_BURST, ALL_ASKED_EVERY),
                TokenBucket::new(ASKED_BURST, ASKED_EVERY),
            ),
            waiting: Vec::new(),
            changed_at: None,
            refused: Vec::new(),
            error: None,
        }
    }

    /// Whether the issuer has the key that is asked for. A token without a key id is verified by the one key that fits it,
    /// which only a change can bring.
    fn has(&self, ring: &KeyRing, question: &KeyQuestion, now: Instant) -> bool {
        if question.key_id.is_empty() {
            self.changed_at.is_some_and(|at| now.duration_since(at) < SPREADS_FOR)
        } else {
            ring.has(&question.issuer, &question.key_id)
        }
    }
}

fn seconds_until(due: Instant) -> i64 {
    i64::try_from(due.saturating_duration_since(Instant::now()).as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
