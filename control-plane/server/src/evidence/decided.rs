//! Tables of decisions: all of them, and by identity, run and resource; and where some are missing.

use std::collections::BTreeMap;
use std::io;

use super::{Decisions, Inputs, Writer, row};
use crate::decisions::csv;
use crate::decisions::record::{Entry, Gap, Moment, Outcome, Recorded};

/// Most lines of a table that sums up; what is beyond is one line.
const MAX_ROWS: usize = 100_000;
/// Stands for what is beyond.
const OTHERS: &str = "(others)";
/// Stands for callers who proved nothing.
const NOBODY: &str = "(nobody proved anything)";

/// What was found while the decisions were written.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Records.
    pub records: u64,
    /// Records that stand for more than one request.
    pub samples: u64,
    /// Gaps.
    pub gaps: u64,
    /// Decisions of which there is no record, as far as that is known.
    pub lost: u64,
    /// Something that is there could not be read.
    pub has_failed: bool,
    /// What passed although the rules would not have it so: kind, workload, rule and why.
    pub exceptions: Table<4>,
}

/// What several decisions have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many requests, samples counted as often as they stand for.
    pub requests: u64,
    pub records: u64,
    pub has_samples: bool,
    pub first: Moment,
    pub last: Moment,
}

/// Decisions by what they have in common.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: BTreeMap<[String; N], Tally>,
}

// === impl Table ===

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self { rows: BTreeMap::new() }
    }
}

impl<const N: usize> Table<N> {
    fn add(&mut self, key: [String; N], recorded: &Recorded) {
        let has_room = self.rows.len() < MAX_ROWS || self.rows.contains_key(&key);
        let key = if has_room { key } else { std::array::from_fn(|_| OTHERS.to_owned()) };
        let requests = u64::from(recorded.stands_for.max(1));
        let tally = self.rows.entry(key).or_insert(Tally {
            requests: 0,
            records: 0,
            has_samples: false,
            first: recorded.time,
            last: recorded.time,
        });
        tally.requests = tally.requests.saturating_add(requests);
        tally.records = tally.records.saturating_add(1);
        tally.has_samples |= requests > 1;
        tally.first = tally.first.min(recorded.time);
        tally.last = tally.last.max(recorded.time);
    }

    pub fn rows(&self) -> impl Iterator<Item = (&[String; N], &Tally)> {
        self.rows.iter()
    }

    fn write(&self, out: &mut Writer<'_>, name: &str, head: [&str; N]) -> io::Result<()> {
        out.file(name, |out| {
            let head: Vec<&str> = head.into_iter().chain(Tally::HEAD).collect();
            out.line(&row(&head))?;
            for (key, tally) in &self.rows {
                let cells: Vec<String> = key.iter().cloned().chain(tally.cells()).collect();
                out.line(&row(&cells))?;
            }
            Ok(())
        })
    }
}

// === impl Tally ===

impl Tally {
    pub const HEAD: [&'static str; 5] = ["requests", "records", "estimated", "first", "last"];

    pub fn cells(&self) -> [String; 5] {
        let estimated = if self.has_samples { "yes" } else { "" };
        let Self { requests, records, first, last, .. } = self;
        [requests.to_string(), records.to_string(), estimated.to_owned(), first.to_string(), last.to_string()]
    }
}

/// Writes them.
pub(super) fn write(
    inputs: &Inputs,
    decisions: &mut dyn Decisions,
    out: &mut Writer<'_>,
) -> io::Result<Decided> {
    let mut decided = Decided::default();
    let (mut by_identity, mut by_run, mut by_resource) =
        (Table::<5>::default(), Table::<8>::default(), Table::<6>::default());
    let mut gaps: Vec<Gap> = Vec::new();
    out.file("decisions.csv", |out| {
        out.line(&csv::head())?;
        loop {
            let page = decisions.next();
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                out.line(&one_line(csv::entry_line(&entry)))?;
                match entry {
                    Entry::Gap(gap) => {
                        decided.gaps = decided.gaps.saturating_add(1);
                        decided.lost = decided.lost.saturating_add(gap.lost.unwrap_or(1));
                        if gaps.len() < MAX_ROWS {
                            gaps.push(gap);
                        }
                    }
                    Entry::Decision(recorded) => {
                        decided.count(&recorded);
                        for key in identities(&recorded) {
                            by_identity.add(key, &recorded);
                        }
                        by_run.add(run(&recorded), &recorded);
                        by_resource.add(resource(&recorded), &recorded);
                    }
                }
            }
        }
    })?;
    by_identity.write(
        out,
        "decisions-by-identity.csv",
        ["identity", "workload", "outcome", "reason", "rule"],
    )?;
    by_run.write(
        out,
        "decisions-by-run.csv",
        ["runKind", "issuer", "run", "runFrom", "project", "commit", "initiator", "outcome"],
    )?;
    by_resource.write(
        out,
        "decisions-by-resource.csv",
        ["resource", "action", "host", "workload", "outcome", "rule"],
    )?;
    decided.has_failed = decisions.has_failed();
    write_gaps(inputs, &gaps, decisions, &decided, out)?;
    Ok(decided)
}

/// What was quoted because it had lines has none: each record is one.
fn one_line(text: String) -> String {
    let Some(body) = text.strip_suffix("\r\n").filter(|body| body.contains(['\n', '\r'])) else {
        return text;
    };
    format!("{}\r\n", body.replace(['\n', '\r'], " "))
}

fn identities(recorded: &Recorded) -> Vec<[String; 5]> {
    let of = |identity: &str| {
        [
            identity.to_owned(),
            recorded.workload.clone(),
            outcome(recorded),
            recorded.reason.clone(),
            recorded.rule_name().unwrap_or_default().to_owned(),
        ]
    };
    match recorded.identities.as_slice() {
        [] => vec![of(NOBODY)],
        all => all.iter().map(|identity| of(identity)).collect(),
    }
}

fn run(recorded: &Recorded) -> [String; 8] {
    let run = recorded.run.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    [
        run.map(|run| run.kind.words().to_owned()).unwrap_or_default(),
        text(run.map(|run| &run.issuer)),
        text(run.map(|run| &run.id)),
        run.map(|run| run.source().to_owned()).unwrap_or_default(),
        text(run.and_then(|run| run.project.as_ref())),
        text(run.and_then(|run| run.commit.as_ref())),
        text(run.and_then(|run| run.initiator.as_ref())),
        outcome(recorded),
    ]
}

fn resource(recorded: &Recorded) -> [String; 6] {
    [
        recorded.resource.clone().unwrap_or_default(),
        recorded.operation.as_ref().map(|operation| operation.action.clone()).unwrap_or_default(),
        recorded.host.clone(),
        recorded.workload.clone(),
        outcome(recorded),
        recorded.rule_name().unwrap_or_default().to_owned(),
    ]
}

fn outcome(recorded: &Recorded) -> String {
    if recorded.ended { "ended".to_owned() } else { recorded.outcome.word().to_owned() }
}

// === impl Decided ===

impl Decided {
    fn count(&mut self, recorded: &Recorded) {
        self.records = self.records.saturating_add(1);
        self.samples = self.samples.saturating_add(u64::from(recorded.stands_for > 1));
        let rule = recorded.rule_name().unwrap_or_default();
        let mut except = |kind: &str, rule: &str, why: &str| {
            let key = [kind, &recorded.workload, rule, why].map(str::to_owned);
            self.exceptions.add(key, recorded);
        };
        let passed = recorded.outcome == Outcome::Allow && !recorded.ended;
        let shadow = recorded.shadow.as_ref();
        if let Some(shadow) = shadow.filter(|shadow| passed && shadow.outcome == Outcome::Deny) {
            let rule = shadow.rule.as_deref().unwrap_or_default();
            let kind = if recorded.reason == "guard_in_shadow" {
                "passed-unenforced"
            } else {
                "shadow-would-refuse"
            };
            except(kind, rule, &shadow.reason);
        }
        if passed && recorded.degraded {
            except("passed-without-directory", rule, &recorded.reason);
        }
        if passed && recorded.reason == "not_guarded" {
            except("passed-unguarded", rule, &recorded.reason);
        }
        if recorded.time_refused {
            except(
                "time-of-record-refused",
                rule,
                "the filter told an absurd time; when the record came counts",
            );
        }
    }
}

/// Where records are missing, and where nobody knows.
fn write_gaps(
    inputs: &Inputs,
    gaps: &[Gap],
    decisions: &mut dyn Decisions,
    decided: &Decided,
    out: &mut Writer<'_>,
) -> io::Result<()> {
    let later = decisions.noticed_later();
    out.file("record-gaps.csv", |out| {
        out.line(&row(&["noticed", "workload", "instance", "cause", "lost", "lostInFull", "note"]))?;
        let mut gap = |gap: &Gap, note: &str| {
            out.line(&row(&[
                gap.time.to_string(),
                gap.workload.clone(),
                gap.instance.clone(),
                gap.cause.word().to_owned(),
                gap.lost.map_or("unknown".to_owned(), |lost| lost.to_string()),
                gap.lost_in_full.to_string(),
                note.to_owned(),
            ]))
        };
        for one in gaps {
            gap(one, "")?;
        }
        for entry in &later {
            if let Entry::Gap(one) = entry {
                gap(one, "noticed after the time that is asked for; what is missing may be of before")?;
            }
        }
        let mut note = |at: Moment, cause: &str, note: &str| {
            out.line(&row(&[at.to_string().as_str(), "", "", cause, "unknown", "", note]))
        };
        match inputs.store {
            None => note(inputs.from, "not_kept", "this control plane keeps no decisions (`--decisions off`)")?,
            Some(store) => {
                match store.since {
                    None => note(inputs.from, "store_empty", "no decision is kept")?,
                    Some(since) if since > inputs.from => {
                        note(since, "before_store", "what was decided before then is not kept, or not any more")?;
                    }
                    Some(_) => {}
                }
                if store.is_catching_up {
                    note(
                        inputs.made,
                        "still_reading",
                        "files from before the start were not read yet; export again",
                    )?;
                }
            }
        }
        if gaps.len() >= MAX_ROWS {
            note(inputs.from, "more", "further gaps are lines of decisions.csv")?;
        }
        if decided.has_failed {
            note(inputs.made, "store_unreadable", "a file of the store could not be read; its decisions are missing")?;
        }
        for away in &inputs.uses.away {
            let (from, until) = (Moment::of_seconds(away.from), Moment::of_seconds(away.until));
            if from < inputs.to && until > inputs.from {
                let words = format!(
                    "no filter was heard until {until}; filters keep records for that long only as far as there is room, and \
                     those that ended meanwhile have not told theirs"
                );
                note(from, "control_plane_away", &words)?;
            }
        }
        Ok(())
    })
}
