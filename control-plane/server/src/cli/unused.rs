//! `tidegate unused`.

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::decisions::moment;
use super::paint::{Color, Style};
use super::running::{AdminTls, DEFAULT_ADMIN, ask};
use super::text::{self, count, hanging, span};
use super::{Ending, folder, print};
use crate::clock;
use crate::uses::{RuleUse, UnusedReport, Verdict};

/// List grants that nobody needed: AccessRules with effect Allow that decided no request
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate unused
  tidegate unused --since 90d
  tidegate unused --since 2026-10-01T00:00:00Z -o json | jq -r '.rules[] | select(.verdict == \"unused\") | .rule'

Filters count which rule decided, and tell it about once a minute, and all of it again whenever they connect. A rule is listed as
unused only if every proxy that is to enforce it counts, for all of that time; why that cannot be said of others is said. A proxy
that ended takes with it what it counted in its last minute, and what it counted while the control plane was away. Where two
rules match, the first in order of their names decides; without the other nothing would have been refused. Rules in Shadow mode
and Denies are not listed.

Exit codes: 0 no rule is known to be unused; 1 some are; 2 the command line is wrong; 3 the control plane does not answer.")]
pub(super) struct Arguments {
    /// Used since then counts: 24h, 30d, or 2026-11-21T03:00:00Z
    #[arg(long, value_name = "TIME", default_value = "30d")]
    since: String,
    /// List those as well that were used
    #[arg(long)]
    all: bool,
    /// Admin address of a running control plane
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    #[command(flatten)]
    tls: AdminTls,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let now = clock::now();
    let since = moment("--since", &arguments.since)?.seconds();
    if since > now {
        return Err(anyhow!("`--since {}` is in the future", arguments.since));
    }
    let path = format!("/unused?since={since}&all={}", arguments.all);
    let report: UnusedReport = ask(&arguments.admin, &arguments.tls, &path)?;
    match arguments.output {
        Output::Json => folder::print_json(&report)?,
        Output::Text => print(&shown(&report, now, Style::of_stdout()))?,
    }
    let any = report.rules.iter().any(|rule| rule.verdict == Verdict::Unused);
    Ok(if any { Ending::Refused } else { Ending::Done })
}

/// `now`: Unix seconds.
fn shown(report: &UnusedReport, now: i64, style: Style) -> String {
    let of = |verdict| report.rules.iter().filter(move |rule| rule.verdict == verdict).collect::<Vec<_>>();
    let since = clock::rfc3339(report.since);
    let mut told = String::new();
    let unused = of(Verdict::Unused);
    if !unused.is_empty() {
        told.push_str(&head(&format!("NOT USED since {since}"), Color::Bad, style));
        told.push_str(&listed(&unused, now));
    }
    let early = of(Verdict::TooEarly);
    if !early.is_empty() {
        told.push_str(&head(
            "TOO EARLY to say: no use so far, not counted for long enough",
            Color::Warn,
            style,
        ));
        told.push_str(&listed(&early, now));
    }
    let unknown = of(Verdict::Unknown);
    if !unknown.is_empty() {
        told.push_str(&head(
            "CANNOT BE TOLD: no use is known, and not everything is counted",
            Color::Warn,
            style,
        ));
        for rule in &unknown {
            told.push_str(&format!("  {}\n", text::visible(&rule.rule)));
            for why in &rule.why {
                told.push_str(&hanging("      ", 6, why));
            }
        }
    }
    let used = of(Verdict::Used);
    if !used.is_empty() {
        told.push_str(&head(&format!("USED since {since}"), Color::Good, style));
        told.push_str(&listed(&used, now));
    }
    for away in &report.away {
        told.push_str(&format!(
            "Nothing was heard from {} to {}: proxies that ended meanwhile have not told what they counted.\n",
            clock::rfc3339(away.from),
            clock::rfc3339(away.until)
        ));
    }
    match report.began {
        None => told.push_str("This control plane has not begun to count: nothing is on offer to filters.\n"),
        Some(began) => told.push_str(&format!(
            "{} used since {since}, {} not as far as known. Counting began {}.\n",
            count(report.used, "grant"),
            unused.len() + early.len() + unknown.len(),
            clock::rfc3339(began)
        )),
    }
    if let Some(rule) = unused.first() {
        told.push_str(&format!(
            "next: tidegate decisions --rule {} --since 30d\n",
            text::visible(&rule.rule)
        ));
    }
    told
}

fn head(text: &str, color: Color, style: Style) -> String {
    format!("{}\n", style.paint(color, text))
}

fn listed(rules: &[&RuleUse], now: i64) -> String {
    let head = ["  RULE", "LAST USED", "COUNTED SINCE", "PROXIES", "WRITTEN"].map(str::to_owned);
    let rows = rules.iter().map(|rule| {
        let source = rule.source.as_ref();
        [
            format!("  {}", text::visible(&rule.rule)),
            rule.last_used.map_or("never".to_owned(), |at| format!("{} ago", span(now.saturating_sub(at)))),
            rule.counted_since.map_or("-".to_owned(), clock::rfc3339),
            format!("{} of {}", rule.counting, rule.proxies),
            source.map_or(String::new(), |source| text::visible(&format!("{}:{}", source.file, source.line))),
        ]
    });
    text::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
