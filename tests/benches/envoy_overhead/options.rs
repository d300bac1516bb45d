//! How long to measure what.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tidegate::demo::envoy::EnvoyBinary;

use super::scenarios::Scenario;

/// Measures what a request costs in Envoy with and without Tidegate, side by side.
#[derive(Debug, Clone, Parser)]
#[command(name = "envoy_overhead")]
pub struct Options {
    /// Rounds of the part under load; in each, every scenario has one run
    #[arg(long, env = "TIDEGATE_BENCH_ROUNDS", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Rounds of the part with one connection; 0 leaves it out
    #[arg(long, env = "TIDEGATE_BENCH_LATENCY_ROUNDS", default_value_t = 5)]
    pub latency_rounds: u32,
    /// Seconds of one run
    #[arg(long, env = "TIDEGATE_BENCH_SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Connections of the part under load
    #[arg(long, env = "TIDEGATE_BENCH_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Only scenarios with one of these names, or whose names contain one, besides `none` and the yardstick
    #[arg(long, env = "TIDEGATE_BENCH_ONLY", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Another packaged build of the filter than the one that the control plane carries
    #[arg(long, env = "TIDEGATE_BENCH_MODULE")]
    pub module: Option<PathBuf>,
    /// A packaged build to compare with it in the same rounds; may be given several times
    #[arg(long, value_name = "MODULE")]
    pub against: Vec<PathBuf>,
    /// How figures are printed
    #[arg(short, long, env = "TIDEGATE_BENCH_OUTPUT", value_enum, default_value = "text")]
    pub output: Output,
    /// Lists the scenarios and ends
    #[arg(long)]
    pub list: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people.
    Text,
    /// One JSON document.
    Json,
}

// === impl Options ===

impl Options {
    /// Says what is going to happen, on standard error.
    pub fn announce(&self, scenarios: &[Scenario], binary: &EnvoyBinary) {
        let single = scenarios.iter().filter(|scenario| scenario.latency).count();
        let runs = |rounds: u32, scenarios: usize| u64::from(rounds) * u64::try_from(scenarios).unwrap_or(0);
        let seconds = runs(self.rounds, scenarios.len()) + runs(self.latency_rounds, single);
        let seconds = seconds * (u64::from(self.seconds) * 100 + 15) / 100;
        eprintln!(
            "Envoy {} at {}: {} scenarios, {} rounds under load and {} with one connection, {} s each: about {} s",
            binary.version,
            binary.path.display(),
            scenarios.len(),
            self.rounds,
            self.latency_rounds,
            self.seconds,
            seconds + 30,
        );
    }
}
