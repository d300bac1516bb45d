//! What a request costs in Envoy: without any filter, with Envoy's own jwt_authn and RBAC, and with Tidegate.
//!
//! ```text
//! cargo bench -p tidegate-tests --bench envoy_overhead
//! cargo bench -p tidegate-tests --bench envoy_overhead -- --rounds 3 --seconds 1 --only tidegate-10,first-sight
//! cargo bench -p tidegate-tests --bench envoy_overhead -- -o json
//! cargo bench -p tidegate-tests --bench envoy_overhead -- --only tidegate-10 --against other.wasm
//! ```
//!
//! Every scenario has an Envoy of its own: the same binary with one worker, pinned to core 0, that answers by
//! `direct_response`, so that the filters' share stands out. `wrk` on core 1 sends the same request to one after the
//! other, in another order in each round. What a scenario *adds* is its difference to the scenario `none` of the same
//! round; figures are medians over the rounds. CPU is the kernel's account (`/proc/PID/task/*/schedstat`) of all
//! threads of the Envoy, over the number of requests. Only ratios travel between machines; the yardstick Y is what
//! jwt_authn with its token cache and RBAC with 10 policies add.
//!
//! INVARIANT: a run counts only if every answer had the status that the scenario is about. At the end each proxy's own
//! statistics must tell that tokens were verified, or were not, as its scenario says; otherwise the report says so, and
//! the benchmark fails.
//!
//! Linux only; needs `wrk` and `taskset`, and two cores with nothing else to do.

mod envoy_overhead {
    pub mod control;
    pub mod figures;
    pub mod load;
    pub mod machine;
    pub mod module;
    pub mod native;
    pub mod options;
    pub mod proxies;
    pub mod report;
    pub mod rules;
    pub mod runs;
    pub mod scenarios;
    pub mod tokens;
}

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use envoy_overhead::options::{Options, Output};
use envoy_overhead::report::Report;
use envoy_overhead::{machine, proxies, runs, scenarios};
use tidegate::demo::envoy::{EnvoyRelease, find_envoy};

fn main() -> Result<()> {
    let options = Options::parse();
    if !options.bench {
        // As `cargo test --all-targets` starts it.
        println!("SKIPPED: figures are not tests; run `cargo bench --bench envoy_overhead`");
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    let builds: Vec<String> = options
        .against
        .iter()
        .map(|path| path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned())
        .collect();
    let chosen = scenarios::with_builds(scenarios::choose(&options.only)?, &builds);
    if options.list {
        for scenario in &chosen {
            println!("{:<28} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    machine::check().await?;
    let binary = find_envoy(EnvoyRelease::Current, None).await?;
    options.announce(&chosen, &binary);
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let mut filters = vec![match &options.module {
        Some(path) => read(path)?,
        None => tidegate::FILTER_WASM.to_vec(),
    }];
    for path in &options.against {
        filters.push(read(path)?);
    }
    let mesh = proxies::start(&binary, &chosen, &filters).await?;
    let measured = runs::measure(&mesh, &options).await?;
    let report = Report::new(&chosen, &measured, &options, &binary.version.to_string());
    match options.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{:#}", report.to_json()),
    }
    ensure!(report.doubts.is_empty(), "not every scenario is what it says; see the end of the report");
    Ok(())
}
