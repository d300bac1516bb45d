//! `tidegate module`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Ending, print};
use crate::package::{FILTER_BODIES_SHA256, FILTER_BODIES_WASM, FILTER_SHA256, FILTER_WASM};

/// Write the filter module that this binary carries, or its digest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate module --out tidegate_filter.wasm
  tidegate module                              # prints the SHA-256 digest, as Envoy's `sha256` wants it
  tidegate module --info
  tidegate module --bodies --out tidegate_filter_bodies.wasm    # for proxies whose rules depend on request bodies")]
pub(super) struct Arguments {
    /// Where to write the module
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The build that reads request bodies; it costs a little more per request
    #[arg(long)]
    bodies: bool,
    /// Print size and digest for people
    #[arg(long)]
    info: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let (module, sha256) = match arguments.bodies {
        true => (FILTER_BODIES_WASM, FILTER_BODIES_SHA256),
        false => (FILTER_WASM, FILTER_SHA256),
    };
    if let Some(path) = &arguments.out {
        std::fs::write(path, module).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if arguments.info {
        let (bytes, kibibytes) = (module.len(), module.len().div_ceil(1024));
        print(&format!("size    {kibibytes} KiB ({bytes} bytes)\nsha256  {sha256}\n"))?;
    } else {
        print(&format!("{sha256}\n"))?;
    }
    Ok(Ending::Done)
}
