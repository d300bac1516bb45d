//! `tidegate keys forecast`.

use clap::Args;

use super::{MAX_KEY_ID, Output};
use crate::cli::paint::{Color, Style};
use crate::cli::running::{AdminTls, DEFAULT_ADMIN, ask};
use crate::cli::text::{self, count, span, visible};
use crate::cli::{Ending, folder, print};
use crate::clock;
use crate::uses::{Forecast, IssuerForecast, KeyForecast, KeyState};

/// Keys that cease to count sooner want attention, in seconds.
const SOON_S: i64 = 24 * 3_600;

/// Say which keys of issuers are in use, by which workloads, and what breaks when they go
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate keys forecast
  tidegate keys forecast gitlab google
  tidegate keys forecast -o json | jq -r '.issuers[].keys[] | select(.state == \"goneInUse\") | .keyId'

An issuer that rotates publishes the new key beside the old one and withdraws the old one later. Until then this says which
workloads still get tokens of the old one (LEAVING); afterwards, whether there were such until the end (GONE IN USE: they are
refused unless they have expired). Filters tell which keys had signed what they verified. That nobody uses a key (idle, gone) is
said only where every filter of the issuer's workloads tells, and was heard for a whole day: not before a replica has led for a day.

Exit codes: 0 nothing wants attention; 1 a key was in use when it went, or all keys of an issuer in use cease to count within a
day; 2 the command line is wrong; 3 the control plane does not answer, or does not know one of the issuers.")]
pub(super) struct Arguments {
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

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut forecast: Forecast = ask(&arguments.admin, &arguments.tls, "/keys/forecast")?;
    let known: Vec<String> = forecast.issuers.iter().map(|issuer| issuer.name.clone()).collect();
    if let Some(unknown) = arguments.names.iter().find(|name| !known.contains(name)) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        anyhow::bail!("no rule in force names a TrustedIssuer `{unknown}`; there are: {known}");
    }
    forecast.issuers.retain(|issuer| arguments.names.is_empty() || arguments.names.contains(&issuer.name));
    let now = clock::now();
    match arguments.output {
        Output::Json => folder::print_json(&forecast)?,
        Output::Text => print(&shown(&forecast, now, Style::of_stdout()))?,
    }
    let wanting = forecast
        .issuers
        .iter()
        .any(|issuer| ends_soon(issuer, now) || issuer.keys.iter().any(|key| key.state.wants_attention()));
    Ok(if wanting { Ending::Refused } else { Ending::Done })
}

fn ends_soon(issuer: &IssuerForecast, now: i64) -> bool {
    issuer.valid_until.is_some_and(|until| until.saturating_sub(now) < SOON_S)
        && issuer.keys.iter().any(|key| key.workloads > 0)
}

/// `now`: Unix seconds.
fn shown(forecast: &Forecast, now: i64, style: Style) -> String {
    if forecast.issuers.is_empty() {
        return "No rule in force names a TrustedIssuer.\n".to_owned();
    }
    let mut told = String::new();
    for issuer in &forecast.issuers {
        let until = match issuer.valid_until {
            None => "always".to_owned(),
            Some(until) if until <= now => "no more".to_owned(),
            Some(until) => format!("for {} without another answer of the issuer", span(until - now)),
        };
        told.push_str(&format!("{}  keys count {until}\n", style.paint(Color::Bold, &visible(&issuer.name))));
        if let Some(error) = issuer.error.as_ref().filter(|_| ends_soon(issuer, now)) {
            told.push_str(&text::labelled("ATTENTION", &format!("they cannot be fetched: {error}")));
        }
        let head = ["  KEY", "STATE", "PUBLISHED FOR", "LAST TOKEN", "WORKLOADS"].map(str::to_owned);
        let rows = issuer.keys.iter().map(|key| row(key, now));
        told.push_str(&text::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
        if issuer.keys.iter().any(|key| key.state == KeyState::Unknown) {
            for why in &issuer.why {
                told.push_str(&format!("  Whether nobody uses the others is not known: {}.\n", visible(why)));
            }
        }
    }
    if forecast.counting < forecast.filters {
        told.push_str(&format!(
            "{} of {} do not tell which keys they see: their version is too old.\n",
            forecast.filters - forecast.counting,
            count(forecast.filters, "filter")
        ));
    }
    told.push_str(&match (forecast.began, forecast.heard_since) {
        (Some(began), Some(heard)) => {
            let (began, heard) = (clock::rfc3339(began), clock::rfc3339(heard));
            format!("Counted since {began}, and heard without a gap since {heard}.\n")
        }
        (Some(began), None) => format!("Counted since {}; nothing is heard now.\n", clock::rfc3339(began)),
        (None, _) => "Nothing is counted yet.\n".to_owned(),
    });
    let wanting = forecast.issuers.iter().flat_map(|issuer| &issuer.keys);
    let wanting = wanting.filter(|key| key.state.wants_attention()).count();
    if wanting > 0 {
        told.push_str(&format!(
            "{} in use when the issuer withdrew it. next: tidegate decisions --denied --reason token_key_unknown --since 1h\n",
            if wanting == 1 { "1 key was".to_owned() } else { format!("{wanting} keys were") }
        ));
    }
    told
}

fn row(key: &KeyForecast, now: i64) -> [String; 5] {
    let id: String = key.key_id.as_deref().unwrap_or("(no id)").chars().take(MAX_KEY_ID).collect();
    let state = match key.state {
        KeyState::GoneInUse => "GONE IN USE",
        KeyState::Leaving => "LEAVING",
        KeyState::InUse => "in use",
        KeyState::Unknown => "unknown",
        KeyState::Idle => "idle",
        KeyState::Gone => "gone",
    };
    let more = if key.workloads > key.at.len() { ", …" } else { "" };
    let at = if key.at.is_empty() { String::new() } else { format!(": {}{more}", key.at.join(", ")) };
    [
        format!("  {}", visible(&id)),
        state.to_owned(),
        key.since.map_or("-".to_owned(), |since| span(now.saturating_sub(since))),
        key.last_verified
            .map_or("none seen".to_owned(), |at| format!("{} ago", span(now.saturating_sub(at)))),
        format!("{}{}", key.workloads, visible(&at)),
    ]
}

#[cfg(test)]
mod tests;
