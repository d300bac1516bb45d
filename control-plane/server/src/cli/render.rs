//! `tidegate render`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidegate_compiler::Compiled;
use tidegate_compiler::fence::{
    Aliases, FenceOptions, IstioObject, IstioVersion, Normalization, Note, NoteKind, Surroundings, fence_in,
};

use super::text::{count, visible};
use super::{Ending, complain_text, folder, print};
use crate::bundle::Interlocks;
use crate::istio;

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
  tidegate render rules --interlock state
  tidegate render rules -o json | jq -r '.items[] | \"\\(.kind) \\(.metadata.namespace)/\\(.metadata.name)\"'

For every guarded workload an AuthorizationPolicy that contains whatever the filter may allow, and one of the Denies that Istio can
say. The comments tell where and why they are wider than the rules; standard error has a summary. The same rules give the same bytes.

Where callers are known by their tokens only, anybody passes Istio's policies unless --interlock is given: then
only what the workload's filter has let through does.

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
    /// What the mesh does to paths: `meshConfig.pathNormalization`
    #[arg(long, value_enum, default_value_t = Paths::Base)]
    path_normalization: Paths,
    /// The mesh has no `meshConfig.trustDomainAliases`. With aliases Istio lets peers pass whom rules do not name, and the filter is needed
    /// wherever they name any
    #[arg(long)]
    no_trust_domain_aliases: bool,
    /// State folder of `tidegate serve`, which may run meanwhile: demand the interlock where only tokens tell callers, once all
    /// filters have the objects of `tidegate plugins`
    #[arg(long, value_name = "DIR")]
    interlock: Option<PathBuf>,
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
    objects: Vec<Arc<IstioObject>>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let opened = match folder::open(&arguments.rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let parts = parts(&opened.compiled, arguments)?;
    match arguments.output {
        Output::Yaml => print(&as_yaml(&parts, arguments))?,
        Output::Json => folder::print_json(&as_list(&parts))?,
    }
    complain_text(&summary(&parts));
    Ok(Ending::Done)
}

/// Everything that is written, workload by workload.
fn parts(compiled: &Compiled, arguments: &Arguments) -> anyhow::Result<Vec<Part>> {
    let interlock_secrets = match &arguments.interlock {
        None => Default::default(),
        Some(state) => match Interlocks::peek(state)? {
            None => bail!(
                "state folder `{}` holds no secret for the interlock; `--interlock` must name the folder of a `tidegate serve` \
                 that has been started at least once",
                state.display()
            ),
            Some(secret) => istio::interlock_secrets(compiled, &secret),
        },
    };
    let options = FenceOptions { istio: arguments.istio, claims: arguments.claims, interlock_secrets };
    let normalization = match arguments.path_normalization {
        Paths::Base => Normalization::Base,
        Paths::None => Normalization::Off,
    };
    let aliases = if arguments.no_trust_domain_aliases { Aliases::Absent } else { Aliases::Unknown };
    let around = Surroundings { normalization, aliases, ..Surroundings::default() };
    let fence = fence_in(compiled, &options, &around);
    let parts = fence
        .workloads
        .iter()
        .map(|(id, workload)| Part {
            of: id.to_string(),
            notes: workload.notes.clone(),
            needs_filter: workload.needs_filter,
            objects: workload.objects.clone(),
        })
        .collect();
    Ok(parts)
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
    let items: Vec<Value> =
        parts.iter().flat_map(|part| &part.objects).map(|object| object.to_json()).collect();
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
