//! `tidegate tail`.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};

use super::{Asked, Which, query, render};
use crate::admin::Line;
use crate::cli::paint::Style;
use crate::cli::{Ending, complain, runtime};

/// Longest line, in bytes: a decision has a few hundred, with its explanation a few thousand.
const MAX_LINE: usize = 4 << 20;
/// The control plane says something at least so often.
const SILENCE: Duration = Duration::from_secs(40);
/// Until it is asked again after it went away.
const AGAIN: Duration = Duration::from_secs(2);
/// It may be followed for so long without being asked again.
const FOLLOWED: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Follow what is decided, as it is decided
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate tail
  tidegate tail --denied --from etl --why
  tidegate tail --workload sales/orders-api --differing          # what Shadow and candidate rules would change
  tidegate tail --run 91 -o json | jq -r '.decision.path'

Until it is stopped with Ctrl-C. Records come within seconds of their decisions. `--why` adds the nearest rule to refusals,
and what of it did not hold. It works where no decisions are kept (`tidegate serve --decisions off`), too.

Exit codes: 2 the command line is wrong; 3 the control plane does not answer.")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Say of refusals which rule was nearest, and what of it did not hold
    #[arg(long)]
    why: bool,
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
    /// For programs: an object per line
    Json,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut pairs = arguments.which.pairs();
    if arguments.why {
        pairs.push(("why", "true".to_owned()));
    }
    let admin = &arguments.asked.admin;
    let base = if admin.contains("://") { admin.clone() } else { format!("http://{admin}") };
    let url = format!("{}{}", base.trim_end_matches('/'), query("/decisions/tail", &pairs));
    let client = arguments.asked.tls.client(&url)?;
    runtime()?.block_on(async {
        // What does not work at all is told at once; what worked may be back soon.
        let mut response = follow(&client, &url).await?;
        complain("following; Ctrl-C ends it");
        loop {
            let why = match lines(&mut response, arguments.output).await {
                Ok(Ended::ByReader) => return Ok(Ending::Done),
                Ok(Ended::ByServer) => "the control plane ended it".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            complain(&format!(
                "{why}; asking again until it answers. What is decided meanwhile is not shown here"
            ));
            response = loop {
                tokio::time::sleep(AGAIN).await;
                if let Ok(response) = follow(&client, &url).await {
                    complain("following again");
                    break response;
                }
            };
        }
    })
}

enum Ended {
    /// Nobody reads what is printed any more.
    ByReader,
    ByServer,
}

async fn follow(client: &reqwest::Client, url: &str) -> anyhow::Result<reqwest::Response> {
    let asked = || {
        format!(
            "cannot follow the control plane at {url}; `--admin` must be the admin address of a running `tidegate serve`"
        )
    };
    let response = client.get(url).timeout(FOLLOWED).send().await.with_context(asked)?;
    if !response.status().is_success() {
        let status = response.status();
        let why = response.text().await.unwrap_or_default();
        bail!("{}: it answered {status}: {}", asked(), why.trim().chars().take(400).collect::<String>());
    }
    Ok(response)
}

/// Prints lines until there are no more.
async fn lines(response: &mut reqwest::Response, output: Output) -> anyhow::Result<Ended> {
    let style = Style::of_stdout();
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let chunk = tokio::time::timeout(SILENCE, response.chunk()).await;
        let chunk = chunk.map_err(|_| anyhow!("the control plane says nothing any more"))?;
        let Some(chunk) = chunk.context("the connection broke")? else { return Ok(Ended::ByServer) };
        buffer.extend(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if line.len() <= 1 {
                continue;
            }
            // One that a newer version writes is nothing to stop for.
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            let text = match output {
                Output::Text => render::line(&line, style),
                Output::Json => format!("{}\n", serde_json::to_string(&line)?),
            };
            if print_now(&text)? {
                return Ok(Ended::ByReader);
            }
        }
        if buffer.len() > MAX_LINE {
            bail!("the control plane sends a line without an end; is it another version?");
        }
    }
}

/// Whether nobody reads it any more.
fn print_now(text: &str) -> anyhow::Result<bool> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(false),
    }
}
