//! `tidegate crds`.

use clap::Args;
use serde_json::json;

use super::{Ending, print};

/// Print the CustomResourceDefinitions that `serve --kube` needs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate crds | kubectl apply -f -

One List in JSON, which is YAML. The API server keeps fields that it does not know, so that `serve --kube` can refuse them
with the diagnostic of `tidegate check`.")]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> anyhow::Result<Ending> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": crate::kube::crds()});
    print(&format!("{}\n", serde_json::to_string_pretty(&list)?))?;
    Ok(Ending::Done)
}
