//! `tidegate keys`.

mod forecast;

use clap::{Args, Subcommand, ValueEnum};

use super::running::{AdminTls, DEFAULT_ADMIN, ask};
use super::text::{self, labelled, span};
use super::{Ending, print};
use crate::clock;
use crate::keys::{IssuerReport, KeyReport, SourceReport};

/// Longest key id that is shown whole, in characters.
const MAX_KEY_ID: usize = 48;

/// Say in which state the keys of trusted issuers are
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate keys status
  tidegate keys status google gitlab --admin http://127.0.0.1:15081
  tidegate keys forecast                            # which workloads would miss a key")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(StatusArguments),
    Forecast(forecast::Arguments),
}

/// Say which keys a running control plane has, for how long they count, and what wants attention
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate keys status
  tidegate keys status google gitlab
  tidegate keys status --admin http://127.0.0.1:15081 -o json | jq -r '.[] | select(.alerts != []) | .name'

Keys count for two days and more after the issuer last named them. Meanwhile a failure to fetch them changes nothing.

Exit codes: 0 nothing wants attention; 1 something does; 2 the command line is wrong; 3 the control plane does not answer,
or does not know one of the issuers.")]
struct StatusArguments {
    /// Only these TrustedIssuers
    #[arg(value_name = "NAME")]
    names: Vec<String>,
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
    match &arguments.command {
        Command::Status(arguments) => status(arguments),
        Command::Forecast(arguments) => forecast::run(arguments),
    }
}

fn status(arguments: &StatusArguments) -> anyhow::Result<Ending> {
    let reports: Vec<IssuerReport> = ask(&arguments.admin, &arguments.tls, "/issuers")?;
    let reports = chosen(reports, &arguments.names)?;
    match arguments.output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&reports)?))?,
        Output::Text => print(&describe(&reports, clock::now()))?,
    }
    let is_quiet = reports.iter().all(|report| report.alerts.is_empty());
    Ok(if is_quiet { Ending::Done } else { Ending::Refused })
}

fn chosen(reports: Vec<IssuerReport>, names: &[String]) -> anyhow::Result<Vec<IssuerReport>> {
    let known: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        anyhow::bail!("no TrustedIssuer `{unknown}` in the rules that are in force; there are: {known}");
    }
    let is_chosen = |report: &IssuerReport| names.is_empty() || names.contains(&report.name);
    Ok(reports.into_iter().filter(is_chosen).collect())
}

/// `now`: Unix seconds.
fn describe(reports: &[IssuerReport], now: i64) -> String {
    if reports.is_empty() {
        return "The rules that are in force declare no TrustedIssuer.\n".to_owned();
    }
    let mut text = table(reports, now);
    for report in reports {
        text.push_str(&details(report, now));
    }
    let wanting: usize = reports.iter().map(|report| report.alerts.len()).sum();
    let things = if wanting == 1 { "thing wants" } else { "things want" };
    if wanting > 0 {
        text.push_str(&format!("\n{wanting} {things} attention.\n"));
    }
    text
}

fn table(reports: &[IssuerReport], now: i64) -> String {
    let ago = |at: Option<i64>| at.map_or("-".to_owned(), |at| format!("{} ago", span(now - at)));
    let until = |at: Option<i64>| at.map_or("-".to_owned(), |at| span(at - now));
    let rows = reports.iter().map(|report| {
        let is_inline = report.source == SourceReport::Inline && !report.keys.is_empty();
        [
            report.name.clone(),
            report.pack.clone(),
            report.keys.len().to_string(),
            if is_inline { "in the rules".to_owned() } else { ago(report.fetched_at) },
            if is_inline { "always".to_owned() } else { until(report.valid_until) },
            state(report),
        ]
    });
    let head = ["ISSUER", "PACK", "KEYS", "FETCHED", "COUNT FOR", "STATE"].map(str::to_owned);
    text::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

fn state(report: &IssuerReport) -> String {
    let alerts: Vec<&str> = report.alerts.iter().map(|raised| raised.alert.name()).collect();
    match (report.used, alerts.as_slice(), &report.error) {
        (false, ..) => "no rule names it".to_owned(),
        (true, [], None) if report.keys.is_empty() => "being fetched".to_owned(),
        (true, [], None) => "good".to_owned(),
        (true, [], Some(_)) => "good, last fetch failed".to_owned(),
        (true, alerts, _) => alerts.join(", "),
    }
}

fn details(report: &IssuerReport, now: i64) -> String {
    let mut text = format!("\n{}\n", report.name);
    let mut line = |label: &str, what: &str| text.push_str(&labelled(label, what));
    for issuer in &report.issuers {
        line("issuer", issuer);
    }
    if !report.used {
        line("keys", "not fetched: no rule names it");
        return text;
    }
    match &report.source {
        SourceReport::Inline => line("from", "the rules"),
        SourceReport::Url(url) => line("from", url),
        SourceReport::Discovery(issuer) => line("from", &format!("where the metadata of {issuer} says")),
    }
    for key in &report.keys {
        line("key", &described(key, now));
    }
    for refused in &report.refused {
        line("unfit", refused);
    }
    if let Some(until) = report.valid_until {
        line("count", &format!("until {}", clock::rfc3339(until)));
    }
    let is_told = |error: &String| report.alerts.iter().any(|raised| raised.text.contains(error));
    if let Some(error) = report.error.as_ref().filter(|error| !is_told(error)) {
        line("failed", error);
    }
    if let Some(next) = report.next_fetch_at {
        line("next", &format!("fetch in {}", span(next - now)));
    }
    for raised in &report.alerts {
        line("ATTENTION", &format!("{}: {}", raised.alert.name(), raised.text));
    }
    text
}

fn described(key: &KeyReport, now: i64) -> String {
    let shorten = |text: &str| match text.char_indices().nth(MAX_KEY_ID) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let id = key.key_id.as_deref().map_or("(no id)".to_owned(), shorten);
    let algorithm = key.algorithm.as_deref().map_or(String::new(), |name| format!(" for {name}"));
    let issuer = key.issuer.as_deref().map_or(String::new(), |issuer| format!(", only for {issuer}"));
    format!("{id}  {}{algorithm}, known for {}{issuer}", key.kind, span(now - key.since))
}

#[cfg(test)]
mod tests;
