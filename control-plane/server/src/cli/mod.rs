//! The command line.
//!
//! Exit codes: 0 it worked; 1 refused (rules with errors, a test that fails, keys that want attention, …); 2 the
//! command line is wrong; 3 the environment is (a missing folder, a port in use, a damaged state); 4 it has not happened in
//! time.

mod access;
mod align;
mod asking;
mod check;
mod cluster;
mod completions;
mod crds;
pub(crate) mod decisions;
mod diff;
mod directories;
mod doctor;
mod duration;
mod evidence;
mod explain;
mod fetching;
mod fleet;
mod folder;
mod formats;
mod init;
mod install;
mod issuer;
mod junit;
mod keys;
mod module;
mod package;
mod paint;
mod plugin_config;
mod plugins;
mod preflight;
mod render;
mod report;
mod revoke;
mod rollback;
mod rollout;
mod running;
mod schema;
mod secrets;
mod serve;
mod suspend;
mod test;
mod text;
mod token;
mod transport;
mod unused;
mod watch;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::demo::scenario as demo;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  refused: rules with errors, a test that fails, a request that would be refused, keys that want attention, an issuer
     that is still needed
  2  the command line is wrong
  3  the environment is: a missing folder, a port in use, a damaged state
  4  it has not happened in time";

/// Checks every request of data pipelines against who sent it, what it may do, and to which data.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Arguments {
    /// What is logged to standard error, e.g. `info` or `tidegate::push=debug` [default: info; demo: error].
    #[arg(long, global = true, env = "TIDEGATE_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How it is logged.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line of text per event.
    Text,
    /// A JSON object per event.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Serve(Box<serve::Arguments>),
    Check(check::Arguments),
    Test(test::Arguments),
    Explain(Box<explain::Arguments>),
    Tail(Box<decisions::TailArguments>),
    Decisions(Box<decisions::Arguments>),
    Unused(unused::Arguments),
    Evidence(Box<evidence::Arguments>),
    WhoCan(access::WhoArguments),
    WhatCan(access::WhatArguments),
    Diff(diff::Arguments),
    Preflight(preflight::Arguments),
    Align(align::Arguments),
    Schema(schema::Arguments),
    Render(render::Arguments),
    PluginConfig(plugin_config::Arguments),
    Plugins(plugins::Arguments),
    Demo(demo::Arguments),
    Doctor(doctor::Arguments),
    Fleet(fleet::Arguments),
    Rollout(rollout::Arguments),
    Rollback(rollback::Arguments),
    Revoke(revoke::Arguments),
    Suspend(suspend::Arguments),
    Install(install::Arguments),
    Secrets(secrets::Arguments),
    Module(module::Arguments),
    Package(package::Arguments),
    Issuer(issuer::Arguments),
    Keys(keys::Arguments),
    Token(token::Arguments),
    Crds(crds::Arguments),
    Completions(completions::Arguments),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Exit code 0.
    Done,
    /// Exit code 1: what was asked is answered, and the answer is no.
    Refused,
    /// Exit code 2: the command line does not say enough, and that has been told.
    Usage,
    /// Exit code 4: it has not happened in time.
    Late,
    /// Exit code 3: something is wrong with the environment, and it has been told.
    Failed,
}

/// The command line as data, for documentation and its tests.
pub fn command_line() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    if std::env::args_os().skip(1).any(|argument| has_token(&argument.to_string_lossy())) {
        // What is wrong with a command line is told with its words, so it is not even parsed.
        complain(
            "there is a token on the command line, where others can see it; put it into a file, or pipe it in",
        );
        return ExitCode::from(2);
    }
    let arguments = Arguments::parse();
    let log = arguments.log.as_deref().unwrap_or(match &arguments.command {
        // Its table is the output; refusals and key errors are part of the show.
        Command::Demo(_) => "error",
        Command::Serve(_) | Command::Module(_) | Command::PluginConfig(_) | Command::Check(_) => "info",
        _ => "warn",
    });
    if let Err(error) = start_logging(log, arguments.log_format) {
        complain(&error);
        return ExitCode::from(2);
    }
    match run(arguments.command) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Refused) => ExitCode::from(1),
        Ok(Ending::Usage) => ExitCode::from(2),
        Ok(Ending::Late) => ExitCode::from(4),
        Ok(Ending::Failed) => ExitCode::from(3),
        Err(error) => {
            complain(&with_causes(&error));
            ExitCode::from(3)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Serve(arguments) => serve::run(*arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Tail(arguments) => decisions::run_tail(&arguments),
        Command::Decisions(arguments) => decisions::run(&arguments),
        Command::Unused(arguments) => unused::run(&arguments),
        Command::Evidence(arguments) => evidence::run(&arguments),
        Command::WhoCan(arguments) => access::who(&arguments),
        Command::WhatCan(arguments) => access::what(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Preflight(arguments) => preflight::run(&arguments),
        Command::Align(arguments) => align::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Secrets(arguments) => secrets::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::PluginConfig(arguments) => plugin_config::run(&arguments),
        Command::Plugins(arguments) => plugins::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Fleet(arguments) => fleet::run(&arguments),
        Command::Rollout(arguments) => rollout::run(&arguments),
        Command::Rollback(arguments) => rollback::run(&arguments),
        Command::Revoke(arguments) => revoke::run(&arguments),
        Command::Suspend(arguments) => suspend::run(&arguments),
        Command::Demo(arguments) => runtime()?.block_on(demo::run(arguments)),
        Command::Install(arguments) => install::run(&arguments),
        Command::Module(arguments) => module::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Issuer(arguments) => issuer::run(&arguments),
        Command::Keys(arguments) => keys::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn start_logging(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("`--log {filter}`: {error}"))?;
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logging.with_target(false).try_init(),
        LogFormat::Json => logging.json().try_init(),
    }
    .map_err(|error| format!("cannot start logging: {error}"))
}

/// An error and its causes, without those that its own words repeat already.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut told, cause| {
        if !told.contains(&cause) {
            told.push_str(if told.is_empty() { "" } else { ": " });
            told.push_str(&cause);
        }
        told
    })
}

/// Whether there is a signed JWT in it: its header is JSON, and that begins so in base64url.
fn has_token(argument: &str) -> bool {
    argument.split([' ', '=', '"', '\'']).any(|word| word.starts_with("eyJ") && word.contains('.'))
}

/// The same with text that has its line ends.
fn complain_text(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn complain(message: &str) {
    // When not even standard error is there, the exit code says it.
    let _ = writeln!(std::io::stderr(), "tidegate: {}", complaint(message));
}

/// Messages have lines, and may quote what others have written.
fn complaint(message: &str) -> String {
    message.split('\n').map(text::visible).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(crate) fn align_text(report: &crate::align::Report) -> String {
    align::shown(report)
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no room");
        let told = anyhow::Error::new(cause).context("cannot write: no room").context("stopped");
        assert_eq!(with_causes(&told), "stopped: cannot write: no room");
    }

    #[test]
    fn what_others_have_written_reaches_no_terminal_by_a_message() {
        assert_eq!(complaint("`a\u{1b}[2J`: is\nno `b\r`"), "`a\\u{1b}[2J`: is\nno `b\\u{d}`");
    }

    #[test]
    fn a_token_on_the_command_line_is_noticed() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
        for argument in
            [token, &format!("Bearer {token}"), &format!("--audience={token}"), &format!("TOKEN='{token}'")]
        {
            assert!(has_token(argument), "{argument}");
        }
        for argument in ["", "token", "-", "eyJ", "rules/eyJ.yaml", "a.eyJ", "https://orders.sales.example"] {
            assert!(!has_token(argument), "{argument}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("tidegate "), "{}: {help}", command.get_name());
        }
    }
}
