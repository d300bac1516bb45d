//! Results for people.

use std::path::Path;

use crate::cli::paint::{Color, Style};
use crate::cli::text::{count, hanging, visible};
use crate::explain::report::{ConditionReport, Decided, NearestReport, decision_word};
use crate::ruletest::{CandidateReport, Coverage, Gap, Report, RuleCoverage, TestReport};

/// Rules with gaps that are told without `-v`.
const FEW: usize = 3;

/// What is shown of a report.
pub(super) struct View<'a> {
    pub folder: &'a Path,
    pub verbose: bool,
    pub fail_under: Option<u8>,
    /// Only some tests ran: nothing is said about coverage.
    pub is_partial: bool,
}

/// All of it.
pub(super) fn text(report: &Report, view: &View<'_>, style: Style) -> String {
    let mut text = String::new();
    let mut file = "";
    for test in &report.tests {
        if !view.verbose && test.passed {
            continue;
        }
        if file != test.file {
            file = &test.file;
            text.push_str(&format!(
                "{}\n",
                style.paint(Color::Bold, &visible(&view.folder.join(file).display().to_string()))
            ));
        }
        text.push_str(&self::test(test, style));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&summary(report, style));
    if !view.is_partial {
        text.push_str(&coverage(&report.coverage, view, style));
    }
    if let Some(differences) = &report.candidate {
        text.push_str(&candidate(differences, report.tests.len(), view, style));
    }
    text.push_str(&next(report, view));
    text
}

/// Where a candidate decides otherwise.
fn candidate(differences: &[CandidateReport], asked: usize, view: &View<'_>, style: Style) -> String {
    let mut text = match differences.len() {
        0 => format!("candidate: decides {} alike\n", count(asked, "request")),
        some => format!("candidate: decides {some} of {} otherwise\n", count(asked, "request")),
    };
    for one in differences {
        let place = format!("{}:{}", view.folder.join(&one.file).display(), one.line);
        let place = style.paint(Color::Dim, &visible(&place));
        text.push_str(&format!("  {} {}  {place}\n", style.paint(Color::Warn, "≠"), visible(&one.name)));
        text.push_str(&line("rules", &decided(&one.rules)));
        let other = match (&one.candidate, &one.error) {
            (Some(candidate), _) => decided(candidate),
            (None, error) => format!("cannot be asked: {}", error.as_deref().unwrap_or_default()),
        };
        text.push_str(&line("candidate", &other));
    }
    text
}

fn test(test: &TestReport, style: Style) -> String {
    let (sign, color) = if test.passed { ("✓", Color::Good) } else { ("✗", Color::Bad) };
    let line = style.paint(Color::Dim, &format!("line {}", test.line));
    let mut text = format!("  {} {}  {line}\n", style.paint(color, sign), visible(&test.name));
    if !test.passed {
        text.push_str(&failure(test, style));
    }
    text
}

/// What was expected and what was decided, in one line.
pub(super) fn difference(test: &TestReport) -> String {
    let actual = match (&test.actual, &test.error) {
        (Some(actual), _) => decided(actual),
        (None, Some(error)) => error.clone(),
        (None, None) => "nothing".to_owned(),
    };
    format!("expected {}, got {actual}", expected(test))
}

/// Everything about a test that fails.
pub(super) fn failure(test: &TestReport, style: Style) -> String {
    let mut text = line("expected", &expected(test));
    match (&test.actual, &test.error) {
        (Some(actual), _) => {
            text.push_str(&line("got", &decided(actual)));
            let shadow = actual.shadow.as_ref().map(|shadow| decided(shadow));
            if test.expected.shadow.is_some() || shadow.is_some() {
                let shadow = shadow.unwrap_or_else(|| "decides the same".to_owned());
                text.push_str(&line("Shadow", &shadow));
            }
        }
        (None, error) => text.push_str(&line("error", error.as_deref().unwrap_or_default())),
    }
    for issuer in &test.ignored_tokens {
        let note = format!("no rule of this workload names `{issuer}`: a filter does not look at its token");
        text.push_str(&line("note", &note));
    }
    if let Some(rule) = &test.rule {
        text.push_str(&line("rule", &format!("{} ({})", rule.rule, rule.effect)));
        text.push_str(&condition_lines(&rule.conditions, 6, style));
    }
    if let Some(nearest) = &test.nearest {
        text.push_str(&self::nearest(nearest, 4, style));
    }
    text
}

fn line(label: &str, text: &str) -> String {
    hanging(&format!("    {label:<10}"), 14, text)
}

fn expected(test: &TestReport) -> String {
    let expected = &test.expected;
    let mut words = vec![decision_word(expected.decision).to_owned()];
    words.extend(expected.reason.map(str::to_owned));
    words.extend(expected.rule.as_ref().map(|rule| format!("by {rule}")));
    if let Some(shadow) = &expected.shadow {
        let rule = shadow.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
        words.push(format!("(Shadow: {}{rule})", decision_word(shadow.decision)));
    }
    words.join(" ")
}

fn decided(decided: &Decided) -> String {
    let rule = decided.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
    format!("{} {}{rule}: {}", decision_word(decided.decision), decided.reason, decided.sentence)
}

/// The rule that lacks least, demand by demand.
pub(in crate::cli) fn nearest(nearest: &NearestReport, indent: usize, style: Style) -> String {
    let mode = if nearest.shadow { " (Shadow: it would only report)" } else { "" };
    let mut text = format!(
        "{:indent$}nearest   {}{mode}, {} of {} conditions hold\n",
        "",
        style.paint(Color::Bold, &nearest.rule),
        nearest.held,
        nearest.of
    );
    text.push_str(&condition_lines(&nearest.conditions, indent + 2, style));
    text
}

/// Demands one by one, with what the request has where they do not hold.
pub(in crate::cli) fn condition_lines(conditions: &[ConditionReport], indent: usize, style: Style) -> String {
    let width = conditions.iter().map(|condition| demand(condition).chars().count()).max().unwrap_or(0);
    // Long demands push what the request has to a line of its own.
    let width = width.min(52);
    conditions.iter().map(|one| condition(one, indent, width, style)).collect()
}

fn demand(condition: &ConditionReport) -> String {
    format!("{:depth$}{}", "", condition.demand, depth = 2 * condition.depth)
}

fn condition(condition: &ConditionReport, indent: usize, width: usize, style: Style) -> String {
    let (sign, color) = match condition.holds {
        "yes" => ("✓", Color::Good),
        "no" => ("✗", Color::Bad),
        "unknown" => ("?", Color::Warn),
        _ => ("·", Color::Dim),
    };
    let demand = visible(&demand(condition));
    let start = format!("{:indent$}{} ", "", style.paint(color, sign));
    let column = indent + 2;
    match &condition.actual {
        None => format!("{start}{}", hanging("", column, &demand)),
        Some(actual) if demand.chars().count() <= width => {
            let padded = format!("{start}{demand:<width$}   ");
            hanging(&padded, column + width + 3, &got(condition, actual))
        }
        Some(actual) => {
            let own = format!("{:>at$}", "", at = column + 2);
            format!(
                "{start}{}{}",
                hanging("", column, &demand),
                hanging(&own, column + 2, &got(condition, actual))
            )
        }
    }
}

fn got(condition: &ConditionReport, actual: &str) -> String {
    match condition.holds {
        "unknown" => format!("cannot be told: {actual}"),
        _ => format!("got {actual}"),
    }
}

fn summary(report: &Report, style: Style) -> String {
    let all = report.passed + report.failed;
    let failed = format!("{} failed", report.failed);
    let failed = if report.failed > 0 { style.paint(Color::Bad, &failed) } else { failed };
    let passed = format!("{} passed", report.passed);
    let passed = if report.failed == 0 { style.paint(Color::Good, &passed) } else { passed };
    format!("{}: {passed}, {failed}\n", count(all, "test"))
}

fn coverage(coverage: &Coverage, view: &View<'_>, style: Style) -> String {
    let Coverage { rules, conditions, by_rule } = coverage;
    let mut text = format!(
        "coverage: rules {} of {} ({} %), conditions {} of {} ({} %)",
        rules.covered,
        rules.total,
        rules.percent(),
        conditions.covered,
        conditions.total,
        conditions.percent()
    );
    if let Some(least) = view.fail_under.filter(|least| conditions.percent() < usize::from(*least)) {
        text.push_str(&style.paint(Color::Bad, &format!(", and {least} % are demanded")));
    }
    text.push('\n');
    let with_gaps: Vec<(&RuleCoverage, Vec<Gap>)> =
        by_rule.iter().map(|rule| (rule, rule.gaps())).filter(|(_, gaps)| !gaps.is_empty()).collect();
    let shown = if view.verbose { with_gaps.len() } else { FEW };
    for (rule, gaps) in with_gaps.iter().take(shown) {
        let place = view.folder.join(&rule.file).display().to_string();
        let place = style.paint(Color::Dim, &format!("{place}:{}", rule.line));
        text.push_str(&format!("  {}  {place}\n", rule.rule));
        let most = if view.verbose { gaps.len() } else { FEW };
        for gap in gaps.iter().take(most) {
            text.push_str(&hanging("    - ", 6, &gap.text));
            let most = if view.verbose { gap.parts.len() } else { FEW };
            gap.parts.iter().take(most).for_each(|part| text.push_str(&hanging("      - ", 8, part)));
            if gap.parts.len() > most {
                text.push_str(&format!("      - and {} more; -v shows them\n", gap.parts.len() - most));
            }
        }
        if gaps.len() > most {
            text.push_str(&format!("    - and {} more\n", gaps.len() - most));
        }
    }
    if with_gaps.len() > shown {
        text.push_str(&format!(
            "  and {} with gaps; -v shows them\n",
            count(with_gaps.len() - shown, "more rule")
        ));
    }
    text
}

/// The next useful command.
fn next(report: &Report, view: &View<'_>) -> String {
    let folder = view.folder.display();
    match report.tests.iter().find(|test| !test.passed) {
        Some(test) => {
            let at = view.folder.join(&test.file).display().to_string();
            format!("next: tidegate explain {at}:{} --rules {folder}\n", test.line)
        }
        None if view.is_partial => format!("next: tidegate test {folder}\n"),
        None => format!("next: tidegate serve --rules {folder} --state state\n"),
    }
}
