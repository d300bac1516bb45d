//! Exports of evidence, as a stream of files: they may be larger than memory.
//!
//! INVARIANT: a stream that is not whole does not end with [`Frame::End`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use super::decisions::busy;
use super::{Admin, fleet};
use crate::bundle::{TrustedKey, hex, sha256};
use crate::clock;
use crate::decisions::filter::Filter;
use crate::decisions::record::{Entry, Moment};
use crate::decisions::store::Store;
use crate::decisions::time;
use crate::evidence::{
    Decisions, Inputs, MANIFEST, MAX_TIME_US, NOTICED_US, Rules, SIGNATURE, SignatureFile, Sink, StoreState,
    export,
};
use crate::kube::is_of_cluster;
use crate::uses::unused;

/// How much text is sent at once, in bytes.
const PIECE: usize = 64 << 10;
/// How many pieces wait for a slow reader.
const WAITING: usize = 4;
/// How long a reader may take nothing.
const STALLED: Duration = Duration::from_secs(60);
/// How many decisions are read at once.
const PAGE: usize = 1_000;
/// Most gaps that are told of those that were noticed later.
const MAX_LATER: usize = 10_000;
/// No decision has this reason: what is found by it are gaps.
const NO_REASON: &str = "(gaps)";

/// A line of an export on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Frame {
    /// A file begins.
    File(String),
    /// A part of it.
    Text(String),
    /// It cannot be finished, and why.
    Failed(String),
    /// That was all.
    End,
}

/// The key that signs exports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceKey {
    /// SHA-256 of the public key, hexadecimal.
    pub fingerprint: String,
    /// The key, as filters trust it as well.
    #[serde(flatten)]
    pub key: TrustedKey,
}

type Refused = (StatusCode, String);

pub(super) async fn key(State(admin): State<Admin>) -> Json<EvidenceKey> {
    let key = admin.signer.current();
    Json(EvidenceKey { fingerprint: key.fingerprint().unwrap_or_default(), key })
}

pub(super) async fn files(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    match begin(admin, query.as_deref().unwrap_or_default()) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response(),
        Err((status, why)) => (status, format!("{}\n", why.trim_end())).into_response(),
    }
}

fn asked(query: &str) -> Result<(Moment, Moment), Refused> {
    let invalid = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned());
    let (mut from, mut to) = (None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let asked = match &*name {
            "from" => &mut from,
            "to" => &mut to,
            _ => return Err(invalid("there are `from` and `to`")),
        };
        let at = time::read(&value).map(Moment);
        *asked = Some(at.ok_or_else(|| invalid("write times as `2026-11-21T03:00:00Z`"))?);
    }
    let (Some(from), Some(to)) = (from, to) else { return Err(invalid("`from` and `to` are needed")) };
    if from >= to {
        return Err(invalid("`from` has to be before `to`"));
    }
    if to > Moment::now() {
        return Err(invalid("`to` is in the future: an export of it would not be whole"));
    }
    if to.0.saturating_sub(from.0) > MAX_TIME_US {
        return Err(invalid("at most 400 days at once"));
    }
    Ok((from, to))
}

fn begin(admin: Admin, query: &str) -> Result<Body, Refused> {
    let span = asked(query)?;
    let one = admin.exports.clone().try_acquire_owned().map_err(|_| busy("too many exports of evidence"))?;
    let leave = admin.hub.decisions.question().ok_or_else(|| busy("too many questions"))?;
    let (sender, frames) = mpsc::channel(WAITING);
    let handle = Handle::current();
    // It ends with its reader, or when the last file is written.
    drop(spawn_blocking(move || {
        let _held = (one, leave);
        let mut sink = Frames { handle, sender, text: String::new() };
        if let Err(error) = write(&admin, span, &mut sink)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            warn!("an export of evidence failed: {error}");
            let _ = sink.send(&Frame::Failed(error.to_string()));
        }
    }));
    Ok(Body::from_stream(ReceiverStream::new(frames).map(Ok::<_, std::convert::Infallible>)))
}

fn write(admin: &Admin, span: (Moment, Moment), sink: &mut Frames) -> io::Result<()> {
    let store = admin.hub.decisions.store().cloned();
    let inputs = collect(admin, span, store.as_deref())?;
    let manifest = export(&inputs, &mut Stored::new(store, span), sink)?;
    let bytes = manifest.bytes()?;
    let signed = admin.signer.sign_evidence(&bytes).map_err(io::Error::other)?;
    put(sink, MANIFEST, &String::from_utf8_lossy(&bytes))?;
    put(sink, SIGNATURE, &String::from_utf8_lossy(&SignatureFile::from(signed).bytes()?))?;
    sink.flush()?;
    sink.send(&Frame::End)
}

fn put(sink: &mut Frames, name: &str, text: &str) -> io::Result<()> {
    sink.open(name)?;
    sink.write(text)
}

/// Everything but the decisions.
fn collect(admin: &Admin, (from, to): (Moment, Moment), store: Option<&Store>) -> io::Result<Inputs> {
    let hub = &admin.hub;
    let made = clock::now();
    let offered = admin.offered.borrow().clone();
    let control = admin.control.report();
    let mut files = BTreeMap::new();
    for (position, set) in control.history.iter().enumerate() {
        let next = control.history.get(position.saturating_add(1));
        if next.is_some_and(|next| next.at < from.seconds()) {
            continue;
        }
        let rules = admin.control.rules_of(set.number).map_err(io::Error::other)?;
        let of = rules.iter().flat_map(|rules| &rules.files).filter(|(name, _)| !is_of_cluster(name));
        let digests: BTreeMap<String, String> =
            of.map(|(name, text)| (name.clone(), hex(&sha256(text.as_bytes())))).collect();
        if rules.is_some() {
            files.insert(set.number, digests);
        }
    }
    let known = hub.decisions.known();
    let fleet = fleet(hub);
    let oldest = hub.metrics.decision_records.store_since.get();
    Ok(Inputs {
        from,
        to,
        made: Moment::of_seconds(made),
        rules: offered
            .map(|in_force| Rules { compiled: in_force.compiled.clone(), set: in_force.set.clone() }),
        uses: unused(&hub.uses, &fleet, &known.rules, (from.seconds(), made), true),
        control,
        files,
        sources: known.rules.clone(),
        fleet,
        bypassed: hub.bypassed(),
        store: store.map(|store| StoreState {
            since: Some(oldest).filter(|oldest| *oldest > 0).map(Moment::of_seconds),
            is_catching_up: store.is_catching_up(),
        }),
    })
}

/// Sends an export to whoever asked for it.
struct Frames {
    handle: Handle,
    sender: mpsc::Sender<Bytes>,
    text: String,
}

// === impl Frames ===

impl Frames {
    fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut line = serde_json::to_vec(frame)?;
        line.push(b'\n');
        let sent = self.handle.block_on(timeout(STALLED, self.sender.send(line.into())));
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads it any more")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() { Ok(()) } else { self.send(&Frame::Text(text)) }
    }
}

impl Sink for Frames {
    fn open(&mut self, name: &str) -> io::Result<()> {
        self.flush()?;
        self.send(&Frame::File(name.to_owned()))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.text.push_str(text);
        if self.text.len() >= PIECE { self.flush() } else { Ok(()) }
    }
}

/// Decisions of the store.
struct Stored {
    store: Option<Arc<Store>>,
    filter: Filter,
    /// What was read last; `None`: all.
    before: Option<u64>,
    has_failed: bool,
}

// === impl Stored ===

impl Stored {
    fn new(store: Option<Arc<Store>>, (from, to): (Moment, Moment)) -> Self {
        let filter = Filter { since: Some(from), until: Some(to), ..Filter::default() };
        Self { store, filter, before: Some(u64::MAX), has_failed: false }
    }
}

impl Decisions for Stored {
    fn next(&mut self) -> Vec<Entry> {
        let Some(store) = &self.store else { return Vec::new() };
        while let Some(before) = self.before {
            let found = store.find(&self.filter, before, PAGE);
            self.has_failed |= found.failed;
            self.before = found.more.filter(|more| *more < before);
            if !found.entries.is_empty() {
                return found.entries.into_iter().map(|(_, entry)| entry).collect();
            }
        }
        Vec::new()
    }

    fn noticed_later(&mut self) -> Vec<Entry> {
        let Some((store, to)) = self.store.as_ref().zip(self.filter.until) else { return Vec::new() };
        let filter = Filter {
            since: Some(to),
            until: Some(Moment(to.0.saturating_add(NOTICED_US))),
            reason: Some(NO_REASON.to_owned()),
            ..Filter::default()
        };
        let mut gaps = Vec::new();
        let mut before = Some(u64::MAX);
        while let Some(at) = before.filter(|_| gaps.len() < MAX_LATER) {
            let found = store.find(&filter, at, PAGE);
            self.has_failed |= found.failed;
            before = found.more.filter(|more| *more < at);
            gaps.extend(found.entries.into_iter().map(|(_, entry)| entry));
        }
        gaps
    }

    fn has_failed(&self) -> bool {
        self.has_failed
    }
}
