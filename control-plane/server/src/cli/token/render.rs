//! An explanation for people.

use crate::cli::paint::Color;
pub(super) use crate::cli::paint::Style;
use crate::cli::text::{hanging, labelled, table};
use crate::explain::token::{
    CheckLine, CheckResult, ConditionLine, EntryReport, Explanation, Holds, IssuerFacts, Mistake, Outcome,
    RuleReport,
};

/// Columns before what was found by a check.
const CHECK_INDENT: usize = 25;

/// All of it.
pub(super) fn text(explanation: &Explanation, style: Style) -> String {
    let mut text = verdict(explanation, style);
    if !explanation.mistakes.is_empty() {
        text.push_str(&heading("Hints", style));
        explanation.mistakes.iter().for_each(|mistake| text.push_str(&self::mistake(mistake)));
    }
    if !explanation.checks.is_empty() {
        text.push_str(&heading("Checks", style));
        explanation.checks.iter().for_each(|line| text.push_str(&check(line, style)));
    }
    if let Some(rules) = &explanation.rules {
        text.push_str(&heading("Rules", style));
        if rules.is_empty() {
            text.push_str("  none demands a token of this issuer\n");
        }
        rules.iter().for_each(|rule| text.push_str(&self::rule(rule, style)));
    }
    if !explanation.claims.is_empty() {
        text.push_str(&heading("What it says", style));
        let rows: Vec<_> =
            explanation.claims.iter().map(|line| [format!("  {}", line.claim), line.value.clone()]).collect();
        text.push_str(&table(&rows));
    }
    text
}

fn heading(title: &str, style: Style) -> String {
    format!("\n{}\n", style.paint(Color::Bold, title))
}

fn verdict(explanation: &Explanation, style: Style) -> String {
    let verdict = &explanation.verdict;
    let (word, color) = match verdict.outcome {
        Outcome::Verified => ("VERIFIED", Color::Good),
        Outcome::Plausible => ("PLAUSIBLE", Color::Good),
        Outcome::Refused => ("REFUSED", Color::Bad),
        Outcome::Absent => ("NO TOKEN", Color::Bad),
    };
    let reason = verdict.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let mut text = format!("{}: {}{reason}\n", style.paint(color, word), verdict.sentence);
    match &explanation.issuer {
        Some(IssuerFacts { name: Some(name), pack }) => {
            text.push_str(&format!("TrustedIssuer `{name}`, pack `{}`\n", pack.name()));
        }
        Some(IssuerFacts { name: None, pack }) => {
            text.push_str(&format!("no TrustedIssuer; checked as the pack `{}` would\n", pack.name()));
        }
        None => {}
    }
    if explanation.rules.is_some() && matches!(verdict.outcome, Outcome::Verified | Outcome::Plausible) {
        text.push_str(&match explanation.allowing().count() {
            0 => format!("{}: no rule lets anybody in with it\n", style.paint(Color::Bad, "NOT ALLOWED")),
            1 => "1 rule would let the right caller in with it\n".to_owned(),
            count => format!("{count} rules would let the right caller in with it\n"),
        });
    }
    match explanation.denying().count() {
        0 => {}
        1 => text.push_str("1 Deny may refuse whoever has it\n"),
        count => text.push_str(&format!("{count} Denies may refuse whoever has it\n")),
    }
    text
}

fn mistake(mistake: &Mistake) -> String {
    labelled("-", &mistake.what) + &labelled("fix", &mistake.fix)
}

fn check(line: &CheckLine, style: Style) -> String {
    let (word, color) = match line.result {
        CheckResult::Ok => ("ok", Color::Good),
        CheckResult::Failed => ("FAILED", Color::Bad),
        CheckResult::NotChecked => ("not checked", Color::Dim),
    };
    let reason = line.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let word = style.paint(color, &format!("{word:<11}"));
    let mut text =
        hanging(&format!("  {word} {:<10} ", line.check), CHECK_INDENT, &format!("{}{reason}", line.found));
    if let Some(fix) = &line.fix {
        text.push_str(&hanging(&format!("{:14}{:<11}", "", "fix:"), CHECK_INDENT, fix));
    }
    text
}

fn rule(rule: &RuleReport, style: Style) -> String {
    let effect = if rule.allows { "Allow" } else { "Deny" };
    let mode = if rule.enforced { "" } else { ", Shadow" };
    let mut text = format!(
        "  {} {} ({effect}{mode}) at {}\n",
        holds(rule.holds, style),
        style.paint(Color::Bold, &rule.rule),
        rule.workloads.join(", ")
    );
    rule.entries.iter().for_each(|entry| text.push_str(&self::entry(entry, style)));
    text
}

fn entry(entry: &EntryReport, style: Style) -> String {
    let also = match entry.also.as_slice() {
        [] => String::new(),
        also => format!(", with a token of {} too", also.join(", ")),
    };
    let mut text = format!("    {} {}{also}\n", holds(entry.holds, style), entry.peer);
    entry.conditions.iter().for_each(|line| text.push_str(&condition(line, style)));
    text
}

fn condition(line: &ConditionLine, style: Style) -> String {
    let indent = " ".repeat(6 + 2 * line.depth);
    let actual = line.actual.as_ref().filter(|_| line.holds != Holds::Yes);
    let actual = actual.map(|actual| format!("; it is {actual}")).unwrap_or_default();
    format!("{indent}{} {}{actual}\n", holds(line.holds, style), line.demand)
}

fn holds(holds: Holds, style: Style) -> String {
    match holds {
        Holds::Yes => style.paint(Color::Good, "yes "),
        Holds::No => style.paint(Color::Bad, "NO  "),
        Holds::Unknown => style.paint(Color::Bad, "??? "),
        Holds::Depends => style.paint(Color::Dim, "may "),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_identity::PackKind;

    use super::*;
    use crate::explain::token::Verdict;

    fn explanation() -> Explanation {
        let condition = |depth, demand: &str, actual: &str, holds| ConditionLine {
            depth,
            demand: demand.into(),
            actual: Some(actual.into()),
            holds,
        };
        let line = |check, result, found: &str| CheckLine::made_up(check, result, found);
        let reason = Some("token_expired");
        Explanation {
            verdict: Verdict { outcome: Outcome::Refused, reason, sentence: "the token has expired".into() },
            issuer: Some(IssuerFacts { name: Some("gitlab".into()), pack: PackKind::Gitlab }),
            claims: vec![],
            checks: vec![
                line("framing", CheckResult::Ok, "three parts"),
                line("key", CheckResult::NotChecked, "no keys were given"),
                line("times", CheckResult::Failed, &"word ".repeat(40)),
            ],
            mistakes: vec![],
            rules: Some(vec![RuleReport {
                rule: "sales/release".into(),
                allows: true,
                enforced: false,
                workloads: vec!["sales/orders-api".into()],
                holds: Holds::No,
                entries: vec![EntryReport {
                    peer: "mesh peer ci/runner".into(),
                    also: vec!["google".into()],
                    holds: Holds::No,
                    conditions: vec![
                        condition(0, "project_id is \"4711\"", "\"4711\"", Holds::Yes),
                        condition(1, "environment is \"production\"", "missing", Holds::No),
                    ],
                }],
            }]),
        }
    }

    #[test]
    fn an_explanation_is_readable_without_colours() {
        let text = text(&explanation(), Style::Plain);
        assert!(
            text.starts_with("REFUSED: the token has expired (token_expired)\nTrustedIssuer `gitlab`"),
            "{text}"
        );
        for line in [
            "  ok          framing    three parts\n",
            "  not checked key        no keys were given\n",
            "  NO   sales/release (Allow, Shadow) at sales/orders-api\n",
            "    NO   mesh peer ci/runner, with a token of google too\n",
            "      yes  project_id is \"4711\"\n",
            "        NO   environment is \"production\"; it is missing\n",
        ] {
            assert!(text.contains(line), "{line:?}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn colours_change_no_word() {
        let colored = text(&explanation(), Style::Colored);
        assert!(colored.contains("\u{1b}[1;31mREFUSED\u{1b}[0m"), "{colored}");
        let plain =
            colored.split('\u{1b}').map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest));
        let first = colored.split('\u{1b}').next().unwrap_or_default();
        let plain: String = std::iter::once(first).chain(plain.skip(1)).collect();
        assert_eq!(plain, text(&explanation(), Style::Plain));
    }
}
