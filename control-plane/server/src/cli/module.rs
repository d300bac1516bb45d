//! `tidegate module`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Ending, print};
use crate::package::{FILTER_SHA256, FILTER_WASM};

/// Write the filter module that this binary carries, or its digest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate module --out tidegate_filter.wasm
  tidegate module                              # prints the SHA-256 digest, as Envoy's `sha256` wants it
  tidegate module --info")]
pub(super) struct Arguments {
    /// Where to write the module
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print size and digest for people
    #[arg(long)]
    info: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if let Some(path) = &arguments.out {
        std::fs::write(path, FILTER_WASM).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if arguments.info {
        let (bytes, kibibytes) = (FILTER_WASM.len(), FILTER_WASM.len().div_ceil(1024));
        print(&format!("size    {kibibytes} KiB ({bytes} bytes)\nsha256  {FILTER_SHA256}\n"))?;
    } else {
        print(&format!("{FILTER_SHA256}\n"))?;
    }
    Ok(Ending::Done)
}
