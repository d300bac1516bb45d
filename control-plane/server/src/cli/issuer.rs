//! `tidegate issuer`.

mod add;
mod migration;

use clap::{Args, Subcommand};

use super::Ending;

/// Add a trusted issuer, or move from one to another
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate issuer add https://gitlab.example > rules/gitlab.yaml
  tidegate issuer migration gitlab gitlab-new --rules rules --admin http://127.0.0.1:15081")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Arguments),
    Migration(migration::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.command {
        Command::Add(arguments) => add::run(arguments),
        Command::Migration(arguments) => migration::run(arguments),
    }
}
