//! `tidegate token`.

mod render;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use tidegate_compiler::{Compiled, TrustedIssuer};
use tidegate_identity::Jwk;

use super::fetching::FetchOptions;
use super::{Ending, complain, print, runtime};
use crate::clock;
use crate::explain::token::{Mistake, Owner, Pasted, Question, answer, owner};
use crate::keys::{Fetcher, KeySource, fit_keys};
use crate::rules::{load, load_environment};
use crate::serve::{compile_files, key_sources};

/// What a terminal's line discipline takes (Linux, termios(3): "the maximum line length is 4096 chars (including the
/// terminating newline)").
const MAX_LINE_BYTES: usize = 4095;

/// No answer of a provider with a token in it is longer.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Look at a token
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate token explain token.txt --rules rules
  pbpaste | tidegate token explain")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Explain(Explain),
}

/// Say what a token says, what every check comes to, and which rules it would satisfy
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate token explain token.txt --rules rules
  pbpaste | tidegate token explain --rules rules --env values/prod.yaml --fetch
  kubectl exec orders-worker -- cat /var/run/secrets/tidegate/token | tidegate token explain --keys jwks.json
  curl -sH 'Metadata-Flavor: Google' \"$METADATA_URL\" | tidegate token explain --audience https://orders.sales.example
  tidegate token explain token.txt --at 2026-11-21T03:00:00Z -o json | jq .verdict

The token is read from a file or from standard input, never from the command line, which others can see. Neither the token
nor its signature is printed. Nothing is sent anywhere; --fetch asks only issuers that the rules declare.

The checks are those of the filter, in its order. Without keys the signature is not checked, and the answer says so.

Exit codes: 0 the token would do, as far as was checked; 1 it would be refused, is no token for a filter, or no rule of those
that were given lets anybody in with it; 2 the command line is wrong; 3 a file cannot be read, the rules do not compile, or the
keys cannot be had.")]
struct Explain {
    /// File with the token; - or nothing: standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE", requires = "rules")]
    env: Option<PathBuf>,
    /// File with the issuer's key set (JWKS), to check the signature
    #[arg(long, value_name = "FILE", conflicts_with = "fetch")]
    keys: Option<PathBuf>,
    /// Fetch the key set of the issuer as the rules declare it, to check the signature
    #[arg(long, requires = "rules")]
    fetch: bool,
    /// What the service demands of the audience [default: what the rules' Guards demand]
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// As if it were then: RFC 3339 or Unix seconds [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<i64>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    fetching: FetchOptions,
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
        Command::Explain(arguments) => explain(arguments),
    }
}

fn explain(arguments: &Explain) -> anyhow::Result<Ending> {
    let compiled =
        arguments.rules.as_deref().map(|rules| compiled(rules, arguments.env.as_deref())).transpose()?;
    let file = arguments.file.as_deref().filter(|file| *file != Path::new("-"));
    let is_typed = file.is_none() && std::io::stdin().is_terminal();
    let input = input(file, is_typed)?;
    let Pasted { text, mut mistakes } = Pasted::read(&input);
    mistakes.extend((is_typed && input.len() >= MAX_LINE_BYTES).then(|| {
        Mistake::new(
            "cut_by_terminal",
            format!("terminals pass on no more than {MAX_LINE_BYTES} characters of a line"),
            "put the token into a file, or pipe it in",
        )
    }));
    let owner = owner(&text, compiled.as_ref())?;
    let keys = keys(arguments, &owner, compiled.as_ref())?;
    let question = Question {
        text: &text,
        now: arguments.at.unwrap_or_else(clock::now),
        audience: arguments.audience.as_deref(),
        rules: compiled.as_ref(),
        keys: keys.as_deref(),
    };
    let mut explanation = answer(&owner, &question);
    explanation.mistakes.splice(0..0, mistakes);
    match arguments.output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&explanation)?))?,
        Output::Text => print(&render::text(&explanation, render::Style::of_stdout()))?,
    }
    Ok(if explanation.would_do() { Ending::Done } else { Ending::Refused })
}

fn compiled(rules: &Path, environment: Option<&Path>) -> anyhow::Result<Compiled> {
    let loaded = load(rules)?;
    let environment = environment.map(load_environment).transpose()?.unwrap_or_default();
    match compile_files(&loaded.files, &environment).output.filter(|_| loaded.problems.is_empty()) {
        Some(compiled) => Ok(compiled),
        None => bail!("the rules do not compile; `tidegate check {}` says why", rules.display()),
    }
}

/// What was given for a token; without a file on standard input.
fn input(file: Option<&Path>, is_typed: bool) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match file {
        None => {
            if is_typed {
                complain("paste the token, then press Ctrl-D on a line of its own");
            }
            std::io::stdin()
                .lock()
                .take(MAX_INPUT_BYTES + 1)
                .read_to_end(&mut bytes)
                .context("cannot read standard input")?;
        }
        Some(file) => {
            let opened = File::open(file).with_context(|| format!("cannot read `{}`", file.display()))?;
            let mut opened = opened.take(MAX_INPUT_BYTES + 1);
            opened.read_to_end(&mut bytes).with_context(|| format!("cannot read `{}`", file.display()))?;
        }
    }
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!("more than {MAX_INPUT_BYTES} bytes were given; a token has a few thousand");
    }
    Ok(bytes)
}

/// The issuer's keys: given, written in the rules, or fetched. `None`: the signature is not checked.
fn keys(
    arguments: &Explain,
    owner: &Owner<'_>,
    compiled: Option<&Compiled>,
) -> anyhow::Result<Option<Vec<Jwk>>> {
    if let Some(file) = &arguments.keys {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        return match fit_keys(&text, pack(owner)) {
            Ok(selection) => Ok(Some(selection.keys)),
            Err(why) => bail!(
                "`{}`: {why}; it must be a JSON Web Key Set, {{\"keys\": […]}}, as the issuer publishes it",
                file.display()
            ),
        };
    }
    let (Owner::Declared(issuer), Some(compiled)) = (owner, compiled) else { return Ok(None) };
    let source = key_sources(compiled).remove(&issuer.name).map(|source| source.keys);
    match source {
        Some(source) if source.is_inline() || arguments.fetch => {
            let fetcher = arguments.fetching.fetcher()?;
            runtime()?.block_on(fetched(&fetcher, issuer, &source)).map(Some)
        }
        _ => Ok(None),
    }
}

fn pack(owner: &Owner<'_>) -> tidegate_identity::PackKind {
    match owner {
        Owner::Declared(issuer) => issuer.pack,
        Owner::Guessed(pack) => *pack,
    }
}

async fn fetched(fetcher: &Fetcher, issuer: &TrustedIssuer, source: &KeySource) -> anyhow::Result<Vec<Jwk>> {
    let of = || format!("cannot get the keys of `{}`", issuer.name);
    let document = fetcher.keys(source, None).await.with_context(of)?.document.unwrap_or_default();
    fit_keys(&document, issuer.pack)
        .map(|selection| selection.keys)
        .map_err(anyhow::Error::msg)
        .with_context(of)
}

fn moment(text: &str) -> Result<i64, String> {
    let parsed =
        text.parse().ok().or_else(|| text.contains('T').then(|| tidegate_compiler::moment(text)).flatten());
    parsed.ok_or_else(|| "write a moment as `2026-11-21T03:00:00Z`, or Unix seconds".to_owned())
}
