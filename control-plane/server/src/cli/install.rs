//! `tidegate install`.

use std::path::PathBuf;

use clap::Args;

use super::{Ending, print};
use crate::install::{IMAGE, NAMESPACE, Settings, objects, to_yaml, write_chart};

/// Print what the control plane needs in a cluster, or write it as a Helm chart
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate install | kubectl apply -f -
  tidegate install --namespace gate --image registry.example/tidegate@sha256:0123 | kubectl diff -f -
  tidegate install --helm chart && helm install tidegate chart --namespace tidegate-system --create-namespace

The same objects as `kubectl kustomize manifests/base`. Nothing is sent to a cluster.

Exit codes: 0 printed or written; 2 the command line is wrong; 3 a value cannot be used, or the folder cannot be written.")]
pub(super) struct Arguments {
    /// Where the control plane is to be
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// Its image
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// Write a Helm chart into this folder, which is empty or not there yet; namespace and image are chosen with Helm
    #[arg(long, value_name = "DIR", conflicts_with_all = ["namespace", "image"])]
    helm: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.helm {
        Some(folder) => write_chart(folder)?,
        None => {
            let settings =
                Settings { namespace: arguments.namespace.clone(), image: arguments.image.clone() };
            print(&to_yaml(&objects(&settings)?)?)?;
        }
    }
    Ok(Ending::Done)
}
