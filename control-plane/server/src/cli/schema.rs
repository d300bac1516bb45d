//! `tidegate schema`.

use clap::Args;
use clap::builder::PossibleValuesParser;
use tidegate_compiler::{Kind, schema};

use super::{Ending, folder};

/// Print the JSON Schema of rules, for editors and for Kubernetes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate schema > tidegate.schema.json            # objects of every kind
  tidegate schema AccessRule
  tidegate schema AccessRule --structural           # as CustomResourceDefinitions want it

Editors complete and check a file whose first line is
  # yaml-language-server: $schema=tidegate.schema.json
and VS Code all files with the setting
  \"yaml.schemas\": {\"tidegate.schema.json\": \"rules/**/*.yaml\"}

The schema (JSON Schema 2020-12) is made of the types that rules are read into. It knows fields, types and names, not the mesh:
what else does not compile is said by `tidegate check --watch`.

Exit codes: 0 printed; 2 the command line is wrong.")]
pub(super) struct Arguments {
    /// Of which objects [default: all kinds]
    #[arg(value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::as_str)), ignore_case = true)]
    kind: Option<String>,
    /// As openAPIV3Schema of a CustomResourceDefinition: without references, and without what it cannot say
    #[arg(long, requires = "kind")]
    structural: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let named = |name: &String| Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name));
    folder::print_json(&match arguments.kind.as_ref().and_then(named) {
        None => schema::any(),
        Some(kind) if arguments.structural => schema::structural(kind),
        Some(kind) => schema::of(kind),
    })?;
    Ok(Ending::Done)
}
