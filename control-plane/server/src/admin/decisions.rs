//! Decisions: one by its id, many by what they are about, and those that come.
//!
//! INVARIANT: no answer takes the server's threads or memory without a bound: so many questions and followers at once, so
//! many entries per page.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Admin;
use crate::decisions::explain::Explained;
use crate::decisions::filter::Filter;
use crate::decisions::record::{Entry, Gap, Moment, Outcome, Recorded};
use crate::decisions::store::Store;
use crate::decisions::{Feed, Heard, time};
use crate::push::{Hub, stopped};

/// Entries of a page where nobody says how many.
const PAGE: usize = 100;
/// Most entries of a page.
const MAX_PAGE: usize = 1_000;
/// Most decisions that one id can be of: ids are random, and filters may say any.
const SAME_ID: usize = 8;
/// How often a follower hears that nothing happened, which is how it is noticed that it went away.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Some of the decisions that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The latest first.
    pub entries: Vec<Entry>,
    /// Ask with `before` this number for what comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more: Option<u64>,
    /// It took too long: there may be others before `more`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// The store was just opened: there may be others that are not read yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub catching_up: bool,
}

/// A line of what a follower hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A decision.
    Decision(Arc<Recorded>),
    /// The same, explained.
    Explained(Box<Explained>),
    /// Decisions that are missing.
    Gap(Gap),
    /// So many came too fast for this follower.
    Missed(u64),
}

/// What a query says.
#[derive(Debug, Default)]
struct Asked {
    filter: Filter,
    limit: Option<usize>,
    before: Option<u64>,
    why: bool,
}

type Refused = (StatusCode, String);

// === impl Asked ===

impl Asked {
    fn parse(query: Option<&str>) -> Result<Self, Refused> {
        let mut asked = Self::default();
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        for (name, value) in pairs {
            let invalid = |what: &str| (StatusCode::BAD_REQUEST, format!("`{name}`: {what}\n"));
            let filter = &mut asked.filter;
            let text = || Some(value.clone());
            let moment = || {
                let told = time::read(&value).map(Moment);
                told.or_else(|| value.parse().ok().map(Moment::of_seconds))
                    .ok_or_else(|| invalid("write `2026-11-21T03:00:00Z`, or Unix seconds"))
            };
            let flag = || match value.as_str() {
                "" | "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(invalid("write `true` or `false`")),
            };
            let number = || value.parse().map_err(|_| invalid("write a number"));
            match name.as_str() {
                "id" => filter.id = text(),
                "identity" => filter.identity = text(),
                "from" => filter.from = text(),
                "run" => filter.run = text(),
                "resource" => filter.resource = text(),
                "workload" => filter.workload = text(),
                "rule" => filter.rule = text(),
                "reason" => filter.reason = text(),
                "trace" => filter.trace = text(),
                "since" => filter.since = Some(moment()?),
                "until" => filter.until = Some(moment()?),
                "denied" => filter.denied = flag()?,
                "differing" => filter.differing = flag()?,
                "why" => asked.why = flag()?,
                "limit" => {
                    let limit = usize::try_from(number()?).unwrap_or(MAX_PAGE);
                    if !(1..=MAX_PAGE).contains(&limit) {
                        return Err(invalid("1 to 1000"));
                    }
                    asked.limit = Some(limit);
                }
                "before" => asked.before = Some(number()?),
                _ => {
                    return Err(invalid(
                        "is nothing that can be asked for; there are id, identity, from, run, resource, workload, rule, \
                         reason, trace, since, until, denied, differing, limit, before, and for the tail why",
                    ));
                }
            }
        }
        asked.filter = asked.filter.normalized();
        Ok(asked)
    }
}

fn store(hub: &Hub) -> Result<Arc<Store>, Refused> {
    hub.decisions.store().cloned().ok_or_else(|| {
        let why = "decisions are not kept here: this control plane serves with `--decisions off`; look where they are \
                   exported to\n";
        (StatusCode::CONFLICT, why.to_owned())
    })
}

pub(super) fn busy(what: &str) -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{what} at once; try again in a moment\n"))
}

pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    answer(listed(&admin, query.as_deref()).await)
}

pub(super) async fn one(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    answer(found(&admin, id).await)
}

pub(super) async fn tail(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    match followed(admin, query.as_deref()) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response(),
        Err(refused) => refused.into_response(),
    }
}

fn answer<T: Serialize>(result: Result<T, Refused>) -> Response {
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(refused) => refused.into_response(),
    }
}

fn failed(error: &tokio::task::JoinError) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("the store of decisions cannot be read: {error}\n"))
}

async fn listed(admin: &Admin, query: Option<&str>) -> Result<Page, Refused> {
    let asked = Asked::parse(query)?;
    let store = store(&admin.hub)?;
    let leave = admin.hub.decisions.question().ok_or_else(|| busy("too many questions"))?;
    let catching_up = store.is_catching_up();
    let found = spawn_blocking(move || {
        let _leave = leave;
        store.find(&asked.filter, asked.before.unwrap_or(u64::MAX), asked.limit.unwrap_or(PAGE))
    });
    let found = found.await.map_err(|error| failed(&error))?;
    let entries = found.entries.into_iter().map(|(_, entry)| entry).collect();
    Ok(Page { entries, more: found.more, cut: found.cut, catching_up })
}

async fn found(admin: &Admin, id: String) -> Result<Vec<Explained>, Refused> {
    let store = store(&admin.hub)?;
    let filter = Filter { id: Some(id), ..Filter::default() }.normalized();
    let leave = admin.hub.decisions.question().ok_or_else(|| busy("too many questions"))?;
    let catching_up = store.is_catching_up();
    let hub = admin.hub.clone();
    let all = spawn_blocking(move || {
        let _leave = leave;
        let mut all: Vec<Arc<Recorded>> = Vec::new();
        for (_, entry) in store.find(&filter, u64::MAX, SAME_ID).entries {
            // A filter that was cut off sends what it does not know to have arrived once more.
            if let Entry::Decision(recorded) = entry
                && !all.contains(&recorded)
            {
                all.push(recorded);
            }
        }
        all.iter().map(|recorded| hub.decisions.explain(recorded, &hub)).collect::<Vec<_>>()
    });
    let all = all.await.map_err(|error| failed(&error))?;
    if all.is_empty() {
        let why = if catching_up {
            "no decision with this id is known yet: files from before the start are still being read; try again\n"
        } else {
            "no decision with this id is known here: its record may not have come yet (they come within seconds), it was \
             allowed and only samples of its rule are kept, it was one of many refusals of callers that have proven nothing \
             and another one's record stands for it, it is too old, or another control plane has it\n"
        };
        let other = admin.leadership.borrow().other.clone();
        let elsewhere = other
            .map(|leader| format!("`{leader}` leads, and keeps what is decided now: ask that one as well\n"));
        return Err((StatusCode::NOT_FOUND, format!("{why}{}", elsewhere.unwrap_or_default())));
    }
    Ok(all)
}

fn followed(admin: Admin, query: Option<&str>) -> Result<Body, Refused> {
    let Asked { filter, why, .. } = Asked::parse(query)?;
    let leave = admin.hub.decisions.follower().ok_or_else(|| busy("too many follow decisions"))?;
    let feed = admin.hub.decisions.listen();
    let stop = admin.hub.stopping();
    let following = Following { hub: admin.hub, feed, filter, why, stop, _leave: leave };
    Ok(Body::from_stream(futures_util::stream::unfold(following, |mut following| async move {
        let line = following.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), following))
    })))
}

/// Somebody who follows.
struct Following {
    hub: Arc<Hub>,
    feed: Feed,
    filter: Filter,
    why: bool,
    stop: tokio::sync::watch::Receiver<bool>,
    /// One of few at once.
    _leave: tokio::sync::OwnedSemaphorePermit,
}

// === impl Following ===

impl Following {
    /// The next line, empty where nothing happens; `None`: the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        let until = tokio::time::Instant::now() + HEARTBEAT;
        loop {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let heard = tokio::select! {
                heard = timeout(left, self.feed.next()) => heard,
                () = stopped(&mut self.stop) => return None,
            };
            let line = match heard {
                Err(_) => return Some(Bytes::from_static(b"\n")),
                Ok(None) => return None,
                Ok(Some(Heard::Missed(count))) => Line::Missed(count),
                Ok(Some(Heard::Entry(entry))) if !self.filter.takes(&entry) => continue,
                Ok(Some(Heard::Entry(Entry::Gap(gap)))) => Line::Gap(gap),
                Ok(Some(Heard::Entry(Entry::Decision(recorded)))) => self.decision(recorded).await,
            };
            let mut text = serde_json::to_vec(&line).ok()?;
            text.push(b'\n');
            return Some(text.into());
        }
    }

    async fn decision(&self, recorded: Arc<Recorded>) -> Line {
        let is_worth_it = recorded.outcome == Outcome::Deny || recorded.ended;
        if !self.why || !is_worth_it {
            return Line::Decision(recorded);
        }
        let (hub, one) = (self.hub.clone(), recorded.clone());
        match spawn_blocking(move || hub.decisions.explain(&one, &hub)).await {
            Ok(explained) => Line::Explained(Box::new(explained)),
            Err(_) => Line::Decision(recorded),
        }
    }
}
