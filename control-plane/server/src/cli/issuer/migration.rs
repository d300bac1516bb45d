//! `tidegate issuer migration`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::forms::{Mention, Standing, mentions};
use crate::admin::UsageReport;
use crate::cli::running::{AdminTls, ask};
use crate::cli::text::{self, labelled, span};
use crate::cli::{Ending, print};
use crate::clock;
use crate::push::IssuerUseReport;
use crate::rules::{load, load_environment};
use crate::serve::compile_files;

mod forms;

/// A workload that saw a token longer ago no longer counts as in need of it, in seconds. Most jobs run once a week at least.
const LATELY_S: i64 = 7 * 24 * 3600;

/// Say what still needs a trusted issuer that is to be replaced by another
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate issuer migration gitlab gitlab-new --rules rules
  tidegate issuer migration gitlab gitlab-new --rules rules --env values/prod.yaml --admin http://127.0.0.1:15081

The way: declare NEW beside OLD; give every Caller and AccessRule that names OLD a further form that names NEW; change who
sends the tokens; when nothing needs OLD any more, set `retireAfter` on it, and later remove it.

Exit codes: 0 nothing needs OLD any more; 1 something does; 2 the command line is wrong; 3 the rules cannot be read or do not
compile, an issuer is not declared, or the control plane does not answer.")]
pub(super) struct Arguments {
    /// The TrustedIssuer that is to go
    #[arg(value_name = "OLD")]
    old: String,
    /// The TrustedIssuer that takes its place
    #[arg(value_name = "NEW")]
    new: String,
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(long, value_name = "DIR")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Admin address of a running control plane, to say which workloads still see tokens of OLD, and when
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    old: String,
    new: String,
    /// Whether nothing needs the old one any more, as far as was asked.
    done: bool,
    /// Every Caller and AccessRule that names the old one.
    objects: Vec<Mention>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
}

/// What filters saw.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    /// Since when the control plane hears of filters. Unix seconds.
    since: i64,
    old: Vec<IssuerUseReport>,
    new: Vec<IssuerUseReport>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let Arguments { old, new, .. } = arguments;
    if old == new {
        bail!(
            "OLD and NEW are both `{old}`; name the TrustedIssuer that is to go, then the one that takes its place"
        );
    }
    let loaded = load(&arguments.rules)?;
    let environment = arguments.env.as_deref().map(load_environment).transpose()?.unwrap_or_default();
    let compiled = compile_files(&loaded.files, &environment).output.filter(|_| loaded.problems.is_empty());
    let Some(compiled) = compiled else {
        bail!("the rules do not compile; `tidegate check {}` says why", arguments.rules.display());
    };
    let known: Vec<&str> = compiled.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    for name in [old, new] {
        if !known.contains(&name.as_str()) {
            bail!(
                "no TrustedIssuer `{name}` in `{}`; there are: {}; `tidegate issuer add URL` prints a new one",
                arguments.rules.display(),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
        }
    }
    let objects = mentions(&loaded.files, &environment, old, new)?;
    let seen = arguments
        .admin
        .as_deref()
        .map(|admin| ask(admin, &arguments.tls, "/usage").map(|usage| seen(usage, old, new)));
    let report = Report::new(old, new, objects, seen.transpose()?, clock::now());
    match arguments.output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        Output::Text => print(&report.text(clock::now()))?,
    }
    Ok(if report.done { Ending::Done } else { Ending::Refused })
}

fn seen(usage: UsageReport, old: &str, new: &str) -> Seen {
    let of = |name: &str| usage.uses.iter().filter(|report| report.issuer == name).cloned().collect();
    Seen { since: usage.since, old: of(old), new: of(new) }
}

// === impl Report ===

impl Report {
    fn new(old: &str, new: &str, objects: Vec<Mention>, seen: Option<Seen>, now: i64) -> Self {
        let is_ready = objects.iter().all(|object| object.standing == Standing::Both);
        let is_unseen = seen.as_ref().is_none_or(|seen| !seen.old.iter().any(|report| is_late(report, now)));
        Self { old: old.to_owned(), new: new.to_owned(), done: is_ready && is_unseen, objects, seen }
    }

    fn text(&self, now: i64) -> String {
        let Self { old, new, .. } = self;
        let mut text = format!("From `{old}` to `{new}`\n");
        let of = |standing: Standing| self.objects.iter().filter(move |object| object.standing == standing);
        let mut list = |head: String, standing: Standing| {
            let rows: Vec<[String; 3]> = of(standing).map(Mention::row).collect();
            if !rows.is_empty() {
                text.push_str(&format!("\n{head}\n"));
                text.extend(text::table(&rows).lines().map(|line| format!("  {line}\n")));
            }
        };
        list(format!("Without a form that names `{new}` (give them one):"), Standing::OldOnly);
        list(
            format!("Ready (they name `{new}` too; their forms for `{old}` can go at the end):"),
            Standing::Both,
        );
        if self.objects.is_empty() {
            text.push_str(&format!("\nNo Caller and no AccessRule names `{old}`.\n"));
        }
        text.push_str(&self.seen_text(now));
        text.push('\n');
        let waiting = of(Standing::OldOnly).count();
        text.push_str(&match (self.done, &self.seen) {
            (true, Some(_)) => format!(
                "Nothing needs `{old}` any more: set `retireAfter` on it, then remove it and the forms that name it.\n"
            ),
            (true, None) => format!(
                "The rules are ready. Before you retire `{old}`, ask with --admin which workloads still see its tokens.\n"
            ),
            (false, _) if waiting == 0 => format!("The rules are ready, and tokens of `{old}` are still sent.\n"),
            (false, _) => {
                let objects = if waiting == 1 { "object needs" } else { "objects need" };
                format!("Not yet: {waiting} {objects} a form that names `{new}`.\n")
            }
        });
        text
    }

    fn seen_text(&self, now: i64) -> String {
        let Some(seen) = &self.seen else { return String::new() };
        let mut text = String::new();
        for (name, uses) in [(&self.old, &seen.old), (&self.new, &seen.new)] {
            let verified: Vec<_> = uses.iter().filter(|report| report.last_verified_at.is_some()).collect();
            let refused: BTreeMap<&str, u64> = uses
                .iter()
                .filter(|report| report.refused > 0)
                .map(|report| (report.workload.as_str(), report.refused))
                .collect();
            text.push_str(&format!("\nTokens of `{name}` (heard of for {}):\n", span(now - seen.since)));
            if verified.is_empty() {
                text.push_str("  none was seen\n");
            }
            let rows = verified.iter().map(|report| {
                let at = report.last_verified_at.unwrap_or_default();
                [
                    report.workload.clone(),
                    format!("last {} ago", span(now - at)),
                    clock::rfc3339(at),
                    format!("{} requests", report.verified),
                ]
            });
            let rows: Vec<_> = rows.collect();
            text.extend(text::table(&rows).lines().map(|line| format!("  {line}\n")));
            for (workload, refused) in refused {
                text.push_str(&labelled("refused", &format!("{refused} requests at {workload}")));
            }
        }
        text
    }
}

/// Whether a token was verified lately.
fn is_late(report: &IssuerUseReport, now: i64) -> bool {
    report.last_verified_at.is_some_and(|at| now.saturating_sub(at) < LATELY_S)
}

#[cfg(test)]
mod tests;
