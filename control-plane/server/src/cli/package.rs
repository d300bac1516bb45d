//! `tidegate package`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Ending, print};
use crate::oci;

/// Write the filter module in the form in which others take it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate package oci dist
  skopeo copy --preserve-digests oci:dist:headers docker://registry.example/tidegate/filter:headers
  skopeo copy --preserve-digests oci:dist:bodies docker://registry.example/tidegate/filter:bodies")]
pub(super) struct Arguments {
    #[command(subcommand)]
    form: Form,
}

#[derive(Debug, Subcommand)]
enum Form {
    Oci(OciArguments),
}

/// An OCI image layout with both builds of the module: `headers`, and `bodies` for proxies whose rules read bodies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate package oci dist
  tidegate package oci dist -o json

The images are what Istio's WasmPlugin and TrafficExtension take. The same module always has the same digest, whoever packages
it and wherever. Istio compares the digest of the manifest: copy it as it is (`--preserve-digests`).

Exit codes: 0 written; 2 the command line is wrong; 3 the folder is not empty, or cannot be written.")]
struct OciArguments {
    /// A folder that is empty or not there yet
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// How the digests are told
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let Form::Oci(arguments) = &arguments.form;
    let images = oci::images()?;
    oci::write_layout(&arguments.folder, &images)?;
    let folder = arguments.folder.display();
    let text = match arguments.output {
        Output::Json => {
            let image = |image: &oci::Image| json!({"name": image.name, "digest": format!("sha256:{}", image.digest()), "size": image.size()});
            let images: Vec<_> = images.iter().map(image).collect();
            format!("{:#}\n", json!({"layout": arguments.folder, "images": images}))
        }
        Output::Text => {
            let line = |image: &oci::Image| {
                format!("{:<8} sha256:{}  {} KiB\n", image.name, image.digest(), image.size().div_ceil(1024))
            };
            let lines: String = images.iter().map(line).collect();
            format!(
                "{lines}next: skopeo copy --preserve-digests oci:{folder}:headers docker://REGISTRY/REPOSITORY:headers\n"
            )
        }
    };
    print(&text)?;
    Ok(Ending::Done)
}
