//! `tidegate render`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidegate_compiler::fence::{
    FenceOptions, IstioObject, IstioVersion, Normalization, Note, NoteKind, Surroundings, fence_in,
};
use tidegate_compiler::{Compiled, WorkloadId};

use super::text::{count, visible};
use super::{Ending, complain_text, folder, print};
use crate::rules::load_environment;

mod yaml;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One document per object, with what there is to know about it as comments
    Yaml,
    /// One list, as kubectl reads it
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Paths {
    /// BASE, which is Istio's default, or a stronger one
    Base,
    /// NONE
    None,
}

/// Print the objects of Istio that hold what rules say even where the filter is missing, without a cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate render rules > fence.yaml
  tidegate render rules --env values/prod.yaml --istio 1.31 | kubectl diff -f -
  tidegate render rules --interlocks interlocks.yaml   # a line such as ingress/dataflow-in: 9f2c01d7
  tidegate render rules -o json | jq -r '.items[] | \"\\(.kind) \\(.metadata.namespace)/\\(.metadata.name)\"'

For every guarded workload an AuthorizationPolicy that contains whatever the filter may allow, and one of the Denies that Istio can
say. The comments tell where and why they are wider than the rules; standard error has a summary. The same rules give the same bytes.

Where callers are known by their tokens only, anybody passes Istio's policies unless --interlocks has a value for the workload: then
only what its filter has let through does.

With --claims Istio verifies tokens as well (RequestAuthentication), at workloads where that refuses nothing that the filter allows.

Exit codes: 0 printed; 1 the rules do not compile; 2 the command line is wrong; 3 the rules cannot be read.")]
pub(super) struct Arguments {
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(value_name = "DIR")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// Version of Istio, 1.27 to 1.31
    #[arg(long, value_name = "VERSION", default_value_t = IstioVersion::default())]
    istio: IstioVersion,
    /// Let Istio verify tokens as well
    #[arg(long)]
    claims: bool,
    /// YAML or JSON file of workloads (namespace/name) to random values, which their filters have been told as well
    /// (`tidegate plugin-config --interlocks`): where the Fence would be open, it demands them
    #[arg(long, value_name = "FILE")]
    interlocks: Option<PathBuf>,
    /// What the mesh does to paths: `meshConfig.pathNormalization`
    #[arg(long, value_enum, default_value_t = Paths::Base)]
    path_normalization: Paths,
    /// How objects are written
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

/// Objects that belong together, and what there is to know about them.
struct Part {
    /// `namespace/name` of a workload.
    of: String,
    notes: Vec<Note>,
    needs_filter: bool,
    objects: Vec<IstioObject>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let opened = match folder::open(&arguments.rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let interlocks = match &arguments.interlocks {
        Some(path) => interlocks(&opened.compiled, path)?,
        None => BTreeMap::new(),
    };
    let parts = parts(&opened.compiled, arguments, interlocks);
    match arguments.output {
        Output::Yaml => print(&as_yaml(&parts, arguments))?,
        Output::Json => folder::print_json(&as_list(&parts))?,
    }
    complain_text(&summary(&parts));
    Ok(Ending::Done)
}

/// The values of a file, each of a workload of the mesh.
fn interlocks(compiled: &Compiled, path: &Path) -> anyhow::Result<BTreeMap<WorkloadId, String>> {
    let mut values = load_environment(path)?;
    let mut known = BTreeMap::new();
    for id in compiled.workloads.keys() {
        known.extend(values.remove(&id.to_string()).map(|value| (id.clone(), value)));
    }
    match values.keys().next() {
        Some(unknown) => bail!("`{}`: there is no workload `{unknown}`", path.display()),
        None => Ok(known),
    }
}

/// Everything that is written, workload by workload.
fn parts(
    compiled: &Compiled,
    arguments: &Arguments,
    interlock_secrets: BTreeMap<WorkloadId, String>,
) -> Vec<Part> {
    let options = FenceOptions { istio: arguments.istio, claims: arguments.claims, interlock_secrets };
    let normalization = match arguments.path_normalization {
        Paths::Base => Normalization::Base,
        Paths::None => Normalization::Off,
    };
    let fence = fence_in(compiled, &options, &Surroundings { normalization, ..Surroundings::default() });
    fence
        .workloads
        .into_iter()
        .map(|(id, workload)| Part {
            of: id.to_string(),
            notes: workload.notes,
            needs_filter: workload.needs_filter,
            objects: workload.objects,
        })
        .collect()
}

fn as_yaml(parts: &[Part], arguments: &Arguments) -> String {
    let mut text = format!(
        "# Made by `tidegate render` for Istio {}. Change the rules, not this file.\n",
        arguments.istio
    );
    for part in parts {
        let filter = if part.needs_filter { "needs the filter" } else { "needs no filter" };
        text.push_str(&format!("\n# {}: {filter}\n", part.of));
        for note in &part.notes {
            text.push_str(&format!("#   {}\n", visible(&note.to_string())));
        }
        for object in &part.objects {
            text.push_str("---\n");
            text.push_str(&yaml::document(&object.to_json()));
        }
    }
    text
}

fn as_list(parts: &[Part]) -> Value {
    let items: Vec<Value> = parts.iter().flat_map(|part| &part.objects).map(IstioObject::to_json).collect();
    json!({"apiVersion": "v1", "items": items, "kind": "List"})
}

fn summary(parts: &[Part]) -> String {
    let objects: usize = parts.iter().map(|part| part.objects.len()).sum();
    let mut text = format!("{} for {}\n", count(objects, "object"), count(parts.len(), "workload"));
    let mut line = |workloads: Vec<&str>, what: &str| {
        if !workloads.is_empty() {
            text.push_str(&format!("  {what}: {}\n", visible(&workloads.join(", "))));
        }
    };
    let with = |kind: NoteKind| -> Vec<&str> {
        let has = |part: &&Part| part.notes.iter().any(|note| note.kind == kind);
        parts.iter().filter(has).map(|part| part.of.as_str()).collect()
    };
    line(with(NoteKind::Open), "open without the filter (callers without a peer certificate)");
    line(with(NoteKind::Unguarded), "not guarded, or not at every port");
    line(with(NoteKind::Wider), "wider than the rules");
    line(with(NoteKind::Deny), "with Denies that the filter alone enforces");
    line(with(NoteKind::Selection), "whose pods other policies select, or none can");
    let alone = |part: &&Part| !part.needs_filter && !part.objects.is_empty();
    line(
        parts.iter().filter(alone).map(|part| part.of.as_str()).collect(),
        "said exactly by Istio, so that no filter is needed",
    );
    text
}

#[cfg(test)]
mod tests;
