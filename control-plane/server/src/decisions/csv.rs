//! Decisions for spreadsheets.
//!
//! INVARIANT: no cell is a formula, whether commas, semicolons or tabs part cells where it is opened: what others have written
//! may begin like one.

use super::record::{Entry, Gap, Recorded};

const HEAD: [&str; 25] = [
    "time",
    "id",
    "outcome",
    "reason",
    "workload",
    "rule",
    "commit",
    "author",
    "peer",
    "identities",
    "runKind",
    "run",
    "runFrom",
    "runProject",
    "runCommit",
    "initiator",
    "method",
    "host",
    "path",
    "operation",
    "resource",
    "revision",
    "trace",
    "standsFor",
    "gap",
];

/// A header and a line per entry (RFC 4180).
pub fn table(entries: &[Entry]) -> String {
    let mut text = head();
    for entry in entries {
        text.push_str(&entry_line(entry));
    }
    text
}

/// The header of a table of entries.
pub fn head() -> String {
    line(&HEAD)
}

/// The line of an entry.
pub fn entry_line(entry: &Entry) -> String {
    line(&match entry {
        Entry::Decision(recorded) => decision(recorded),
        Entry::Gap(gap) => missing(gap),
    })
}

fn decision(one: &Recorded) -> [String; HEAD.len()] {
    let source = one.rule.as_ref().and_then(|rule| rule.source.as_ref());
    let run = one.run.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    [
        one.time.to_string(),
        one.id.clone(),
        one.outcome.word().to_owned(),
        one.reason.clone(),
        one.workload.clone(),
        one.rule_name().unwrap_or_default().to_owned(),
        text(source.and_then(|source| source.commit.as_ref())),
        text(source.and_then(|source| source.author.as_ref())),
        text(one.peer.as_ref()),
        one.identities.join(" "),
        run.map(|run| run.kind.words().to_owned()).unwrap_or_default(),
        text(run.map(|run| &run.id)),
        run.map(|run| run.source().to_owned()).unwrap_or_default(),
        text(run.and_then(|run| run.project.as_ref())),
        text(run.and_then(|run| run.commit.as_ref())),
        text(run.and_then(|run| run.initiator.as_ref())),
        one.method.clone(),
        one.host.clone(),
        one.path.clone(),
        text(one.operation.as_ref().map(|operation| &operation.method)),
        text(one.resource.as_ref()),
        one.revision.map(|revision| format!("{}:{}", revision.epoch, revision.counter)).unwrap_or_default(),
        text(one.trace_id.as_ref()),
        one.stands_for.to_string(),
        String::new(),
    ]
}

fn missing(gap: &Gap) -> [String; HEAD.len()] {
    let mut cells: [String; HEAD.len()] = std::array::from_fn(|_| String::new());
    let lost = gap.lost.map_or("an unknown number".to_owned(), |lost| lost.to_string());
    let values = [(0, gap.time.to_string()), (2, "gap".to_owned()), (4, gap.workload.clone())];
    let last = HEAD.len() - 1;
    let values = values.into_iter().chain([(last, format!("{lost} missing: {}", gap.cause.words()))]);
    for (at, value) in values {
        if let Some(cell) = cells.get_mut(at) {
            *cell = value;
        }
    }
    cells
}

/// A line of these cells.
pub fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text.as_ref())).collect();
    format!("{}\r\n", cells.join(","))
}

fn cell(text: &str) -> String {
    let begins_as_space = text.starts_with(['\t', '\r', '\n']);
    let mut safe = String::with_capacity(text.len() + 2);
    if begins_as_space || is_formula(text) {
        safe.push('\'');
    }
    // Where something else than commas parts cells, quotes in the middle of one do not keep it together.
    for part in text.split_inclusive(PARTS) {
        if safe.ends_with(PARTS) && is_formula(part) {
            safe.push('\'');
        }
        safe.push_str(part);
    }
    match safe.contains([',', '"']) || safe.contains(PARTS) {
        true => format!("\"{}\"", safe.replace('"', "\"\"")),
        false => safe,
    }
}

/// What may part cells or lines besides commas, depending on the program and its language.
const PARTS: [char; 4] = [';', '\t', '\n', '\r'];

fn is_formula(cell: &str) -> bool {
    // In full width as well: some programs take them for the same.
    cell.trim_start_matches([' ', '"'])
        .starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd()", "'=cmd()"),
            ("@x,y", "\"'@x,y\""),
            ("-1", "'-1"),
            ("\u{ff1d}cmd()", "'\u{ff1d}cmd()"),
            ("\n=x", "\"'\n'=x\""),
            ("\tx", "\"'\tx\""),
            ("a;b", "\"a;b\""),
            ("a\tb", "\"a\tb\""),
            ("/v1;=cmd()", "\"/v1;'=cmd()\""),
            ("/v1; =cmd()", "\"/v1;' =cmd()\""),
            ("/v1;\"=cmd()", "\"/v1;'\"\"=cmd()\""),
            ("/v1;;\u{ff0d}1\t@x", "\"/v1;;'\u{ff0d}1\t'@x\""),
            ("/v1;v=1", "\"/v1;v=1\""),
        ] {
            assert_eq!(cell(text), expected, "{text}");
        }
    }
}
