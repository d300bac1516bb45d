//! What would be refused, for people.

use std::path::Path;

use tidegate_engine::Outcome;

use super::{Report, RequestReport};
use crate::cli::paint::{Color, Style};
use crate::cli::test::render::condition_lines;
use crate::cli::text::{count, hanging, visible};
use crate::explain::report::{ConditionReport, NearestReport};
use crate::explain::request::Answer;
use crate::preflight::By;

/// All of it.
pub(super) fn report(report: &Report, rules: &Path, style: Style) -> String {
    let mut text = format!("{}\n", style.paint(Color::Bold, &visible(&report.what)));
    report.requests.iter().for_each(|request| text.push_str(&self::request(request, style)));
    if !report.not_understood.is_empty() {
        text.push_str("\nnot understood, so not asked\n");
        for one in &report.not_understood {
            let line = if one.line > 0 { format!("line {}: ", one.line) } else { String::new() };
            let sign = style.paint(Color::Warn, "?");
            text.push_str(&hanging(&format!("  {sign} "), 4, &format!("{line}{}: {}", one.text, one.why)));
        }
    }
    text.push('\n');
    report.notes.iter().for_each(|note| text.push_str(&hanging("note: ", 6, note)));
    text.push_str(&summary(report, style));
    text.push_str(&next(report, rules));
    text
}

fn request(request: &RequestReport, style: Style) -> String {
    let (sign, color, word) = match request.answer.as_ref().map(|answer| answer.decided.decision) {
        Some(Outcome::Allow) => ("✓", Color::Good, "would pass"),
        Some(Outcome::Deny) => ("✗", Color::Bad, "WOULD BE REFUSED"),
        None => ("·", Color::Dim, "not asked"),
    };
    let by = match &request.by {
        By::Runner => String::new(),
        By::Workers => ", by the workers".to_owned(),
        By::Pod(peer) => visible(&format!(", by {}/{}", peer.namespace, peer.service_account)),
    };
    let line = if request.line > 0 { format!("  line {}", request.line) } else { String::new() };
    let mut text = format!(
        "\n  {} {}{by}: {}{}\n",
        style.paint(color, sign),
        style.paint(Color::Bold, &visible(&request.what)),
        style.paint(color, word),
        style.paint(Color::Dim, &line)
    );
    text.push_str(&row("request", &format!("{} {}", request.method, request.url)));
    for name in &request.names {
        text.push_str(&row(&name.role, &name.name));
    }
    match (&request.answer, &request.not_asked) {
        (Some(answer), _) => text.push_str(&self::answer(answer, style)),
        (None, Some(why)) => text.push_str(&row("because", why)),
        (None, None) => {}
    }
    text
}

fn answer(answer: &Answer, style: Style) -> String {
    let decided = &answer.decided;
    let who = answer.request.peer.as_deref().unwrap_or("no peer");
    let with = match answer.request.tokens.as_slice() {
        [] => String::new(),
        tokens => format!(" with a token of {}", tokens.join(" and ")),
    };
    let mut text = row("at", &format!("{}, as {who}{with}", answer.request.workload));
    let rule = decided.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
    text.push_str(&row("decision", &format!("{}: {}{rule}", decided.reason, decided.sentence)));
    if let Some(found) = &answer.nearest {
        text.push_str(&row("nearest", &lacks(found)));
        // What holds is many lines of a launch; `explain` has them all.
        let lacking = |one: &&ConditionReport| one.depth == 0 && one.holds != "yes";
        let lacking: Vec<ConditionReport> = found.conditions.iter().filter(lacking).cloned().collect();
        text.push_str(&condition_lines(&lacking, 17, style));
    }
    if decided.decision == Outcome::Deny {
        text.push_str(&row("do", answer.advice.fix));
        text.push_str(&row("turn", answer.advice.turn.words()));
    }
    if let Some(shadow) = &decided.shadow {
        let word = if shadow.decision == Outcome::Allow { "would allow it" } else { "would refuse it" };
        let rule = shadow.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
        text.push_str(&row("Shadow", &format!("{word}: {}{rule}", shadow.sentence)));
    }
    answer.notes.iter().for_each(|note| text.push_str(&row("note", note)));
    text
}

fn lacks(found: &NearestReport) -> String {
    let mode = if found.shadow { "; it is in Shadow mode and would only report" } else { "" };
    let contact = if found.contact.is_empty() { String::new() } else { format!(", {}", found.contact) };
    format!("{} ({}{contact}){mode}; what does not hold:", found.rule, found.owner)
}

fn row(label: &str, text: &str) -> String {
    hanging(&format!("    {label:<13}"), 17, text)
}

fn summary(report: &Report, style: Style) -> String {
    let refused = format!("{} refused", report.refused);
    let refused = if report.refused > 0 { style.paint(Color::Bad, &refused) } else { refused };
    format!(
        "{}: {} would pass, {refused}, {} not asked; {} not understood\n",
        count(report.requests.len(), "request"),
        report.passed,
        report.not_asked,
        count(report.not_understood.len(), "thing"),
    )
}

/// The next useful command.
fn next(report: &Report, rules: &Path) -> String {
    let answers = report.requests.iter().filter_map(|request| request.answer.as_ref());
    let refused = answers.into_iter().find(|answer| answer.decided.decision == Outcome::Deny);
    match refused {
        Some(answer) => format!(
            "next: tidegate who-can {} 'https://{}{}' --workload {} --rules {}\n",
            answer.request.method,
            answer.request.host,
            visible(&answer.request.path),
            answer.request.workload,
            rules.display()
        ),
        None => format!("next: tidegate test {}\n", rules.display()),
    }
}
