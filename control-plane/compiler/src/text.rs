//! Values that several kinds of objects have: texts, lists of texts, durations, moments.

use std::collections::BTreeSet;

use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::syntax;

/// Strings that are not empty, each once.
pub(crate) fn strings(place: &Place<'_>, list: &[String], findings: &mut Findings) -> Vec<String> {
    not_empty(place, list, findings);
    let mut checked = BTreeSet::new();
    for (index, text) in list.iter().enumerate() {
        let place = place.index(index);
        check_text(&place, text, findings);
        if !checked.insert(text.clone()) {
            repeated(&place, text, findings);
        }
    }
    checked.into_iter().collect()
}

/// A string that can be compared: not empty, no control characters.
pub(crate) fn check_text(place: &Place<'_>, text: &str, findings: &mut Findings) {
    if text.is_empty() {
        findings.add(
            place,
            Code::EmptyValue,
            "the string is empty",
            "an empty string is neither \"any\" nor \"none\"",
            "write a value, or remove the field",
        );
    } else if !syntax::is_plain_text(text) {
        findings.add(
            place,
            Code::MalformedValue,
            "the string has control or invisible characters",
            "values with such characters are never accepted from tokens or requests",
            "remove them; a line break at the end comes from `|`",
        );
    }
}

/// A value that is compared byte for byte.
pub(crate) fn check_exact(place: &Place<'_>, text: &str, findings: &mut Findings) -> bool {
    let before = findings.errors();
    check_text(place, text, findings);
    if text.contains('*') {
        findings.add(
            place,
            Code::PatternInExactValue,
            format!("`{text}` looks like a pattern"),
            "claims are compared exactly; a `*` stands for itself, and no token has it",
            "list the values",
        );
    }
    findings.errors() == before
}

/// A duration of at most so many seconds, in seconds. `None` if it is not one.
pub(crate) fn check_duration(
    place: &Place<'_>,
    text: &str,
    longest_s: u32,
    why: &str,
    findings: &mut Findings,
) -> Option<u32> {
    let longest = syntax::show_duration(longest_s);
    match syntax::duration(text) {
        Some(seconds) if seconds <= longest_s => return Some(seconds),
        Some(_) => findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is longer than is accepted"),
            why,
            format!("write `{longest}` or less"),
        ),
        None => findings.add(
            place,
            Code::MalformedValue,
            format!("`{text}` is not a duration"),
            "a duration is a whole number with a unit",
            format!("write `30s`, `15m` or `1h`; at most `{longest}`"),
        ),
    }
    None
}

/// A day or a moment, in Unix seconds. `None` if it is not one.
pub(crate) fn check_moment(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<i64> {
    let moment = syntax::moment(text);
    if moment.is_none() {
        findings.add(
            place,
            Code::MalformedValue,
            format!("`{}` is neither a day nor a moment", text.escape_debug()),
            "times are written as RFC 3339 says, with an offset; of a day the end counts, in UTC",
            "write `2026-12-31`, or `2026-12-31T18:00:00Z`",
        );
    }
    moment
}
