//! `tidegate decisions`.

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::{Asked, Which, moment, query, render};
use crate::admin::Page;
use crate::cli::paint::Style;
use crate::cli::running::ask;
use crate::cli::{Ending, complain, print};
use crate::decisions::csv;
use crate::decisions::record::Entry;

/// Entries of one answer.
const PAGE: usize = 500;

/// List what was decided: who called what, when, and why it passed or not
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate decisions --denied --since 1h
  tidegate decisions --identity etl/orders-worker --since 24h
  tidegate decisions --run 91 -o csv > run-91.csv                 # everything that one pipeline did
  tidegate decisions --resource 'projects/acme/topics/*' --since 7d --limit 0 -o json
  tidegate decisions --resource 'https://orders.sales.example/v1/orders/*' --denied

The latest first. What filters report is kept by the control plane for a while (`tidegate serve --decisions…`); where records
are missing, that is shown as a gap. It is what filters say of themselves.

Exit codes: 0 there are some; 1 there are none; 2 the command line is wrong; 3 the control plane does not answer, or keeps no
decisions.")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Not older: 90s, 15m, 24h, 7d, or 2026-11-21T03:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Older
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    asked: Asked,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs: an array of objects
    Json,
    /// For spreadsheets (RFC 4180)
    Csv,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut pairs = arguments.which.pairs();
    for (name, flag, text) in [("since", "--since", &arguments.since), ("until", "--until", &arguments.until)]
    {
        if let Some(text) = text {
            pairs.push((name, moment(flag, text)?.to_string()));
        }
    }
    let limit = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    let mut entries: Vec<Entry> = Vec::new();
    let mut more: Option<u64> = None;
    loop {
        let mut asked = pairs.clone();
        asked.push(("limit", (limit - entries.len()).min(PAGE).to_string()));
        asked.extend(more.map(|before| ("before", before.to_string())));
        let page: Page = ask(&arguments.asked.admin, &arguments.asked.tls, &query("/decisions", &asked))?;
        if page.catching_up {
            complain(
                "the control plane has just started and still reads what was before; there may be more soon",
            );
        }
        let is_stuck = page.more.is_some() && page.more == more;
        entries.extend(page.entries);
        more = page.more;
        if is_stuck {
            bail!("the control plane answers the same again; is it another version?");
        }
        if more.is_none() || entries.len() >= limit {
            break;
        }
    }
    match arguments.output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&entries)?))?,
        Output::Csv => print(&csv::table(&entries))?,
        Output::Text => print(&render::list(&entries, more.is_some(), Style::of_stdout()))?,
    }
    let any = entries.iter().any(|entry| matches!(entry, Entry::Decision(_)));
    Ok(if any { Ending::Done } else { Ending::Refused })
}
