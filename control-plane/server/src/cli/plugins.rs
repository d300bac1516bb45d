//! `tidegate plugins`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidegate_compiler::fence::{FenceOptions, IstioVersion, fence};
use tidegate_compiler::{Compiled, WorkloadId};

use super::text::{count, visible};
use super::{Ending, complain_text, folder, print, runtime};
use crate::bundle::{Interlocks, Keyring};
use crate::install::to_yaml;
use crate::istio::{
    Address, Attach, LAST, ModuleDigests, ModuleSource, PluginOptions, Plugins, Rollout, interlocks_of,
    plugin_objects, without_filter,
};
use crate::keys::plain_client;
use crate::oci;

/// Print the objects of Istio that bring the filter to every guarded workload
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate plugins rules --state state --module registry.example/tidegate/filter | kubectl diff -f -
  tidegate plugins rules --state state --module http://tidegate.tidegate-system.svc:15082 --istio 1.31
  tidegate plugins rules --state state --module registry.example/tidegate/filter --warm-start http://127.0.0.1:15081

A WasmPlugin for each workload, from Istio 1.30 on a TrafficExtension. The module is the one that this binary carries, pinned by its SHA-256: in a registry the images of `tidegate package oci`, or where `tidegate serve
--module-listen` serves it. On the pods of a gateway whose listeners accept certificates of the mesh only, the label
`tidegate.dev/peers: mesh` says so; without it nobody is a peer there. Standard error says what there is to know.

Exit codes: 0 printed; 1 the rules do not compile, or a guarded workload can have no object; 2 the command line is wrong; 3
something cannot be read or asked.")]
pub(super) struct Arguments {
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(value_name = "DIR")]
    rules: PathBuf,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// State folder of `tidegate serve`, which may run meanwhile: whose signatures filters are to trust
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where the module is: registry and repository, or http://HOST:PORT of `serve --module-listen`
    #[arg(long, value_name = "WHERE")]
    module: String,
    /// Name of a Secret with credentials for the registry, in the namespace of each workload
    #[arg(long, value_name = "NAME")]
    pull_secret: Option<String>,
    /// Version of Istio, 1.27 to 1.31
    #[arg(long, value_name = "VERSION", default_value_t = IstioVersion::default())]
    istio: IstioVersion,
    /// The control plane's Service, fully qualified
    #[arg(long, value_name = "HOST", default_value = "tidegate.tidegate-system.svc.cluster.local")]
    host: String,
    /// Its port for filters
    #[arg(long, value_name = "PORT", default_value_t = 15080)]
    port: u16,
    /// Workloads that nobody guards as well: to guard them later changes no listener
    #[arg(long)]
    dormant: bool,
    /// None where Istio alone says what the rules say (`tidegate render` tells where): without a filter headers that override methods
    /// or paths, and what is sent twice or in several spellings, are judged as the application reads them, and nothing is recorded
    #[arg(long, conflicts_with = "dormant")]
    leave_out_exact: bool,
    /// Admin address of a running control plane, to include every workload's Bundle, so that a new pod decides its first request
    #[arg(long, value_name = "URL")]
    warm_start: Option<String>,
    /// Within the phase AUTHZ higher ones come first [default: after all others]
    #[arg(long, value_name = "NUMBER", default_value_t = LAST, hide_default_value = true, allow_negative_numbers = true)]
    priority: i32,
    /// Verify signatures with the proxy's cryptography or not at all, as `plugin-config` explains
    #[arg(long)]
    fips: bool,
    /// How objects are written
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One document per object
    Yaml,
    /// One list, as kubectl reads it
    Json,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let opened = match folder::open(&arguments.rules, arguments.env.as_deref())? {
        Ok(opened) => opened,
        Err(ending) => return Ok(ending),
    };
    let plugins = plugin_objects(&opened.compiled, &options(arguments, &opened.compiled)?);
    let objects: Vec<Value> = plugins.objects.iter().map(|object| object.to_json()).collect();
    match arguments.output {
        Output::Yaml => print(&to_yaml(&objects)?)?,
        Output::Json => folder::print_json(&json!({"apiVersion": "v1", "kind": "List", "items": objects}))?,
    }
    complain_text(&summary(&plugins));
    let refused = plugins.notes.iter().any(|note| note.code.is_refusal());
    Ok(if refused { Ending::Refused } else { Ending::Done })
}

fn options(arguments: &Arguments, compiled: &Compiled) -> anyhow::Result<PluginOptions> {
    let Some(keys) = Keyring::peek(&arguments.state)? else {
        bail!(
            "state folder `{}` holds no signing keys; `--state` must name the folder of a `tidegate serve` that has been \
             started at least once",
            arguments.state.display()
        );
    };
    let is_served = arguments.module.starts_with("http://") || arguments.module.starts_with("https://");
    let module = match is_served {
        true if arguments.pull_secret.is_some() => bail!("`--pull-secret` is for registries"),
        true => ModuleSource::served(&arguments.module, ModuleDigests::of_modules())?,
        false => ModuleSource::oci(&arguments.module, oci::digests()?, arguments.pull_secret.clone())?,
    };
    // Istio refuses no headers that override, and nothing ambiguous: only who says so goes without the filter.
    let without_filter = if arguments.leave_out_exact {
        without_filter(&fence(compiled, &FenceOptions { istio: arguments.istio, ..FenceOptions::default() }))
    } else {
        Default::default()
    };
    let attach = if arguments.dormant { Attach::Dormant } else { Attach::Guarded };
    let warm_starts = match &arguments.warm_start {
        Some(admin) => runtime()?.block_on(bundles(admin, compiled))?,
        None => BTreeMap::new(),
    };
    Ok(PluginOptions {
        istio: arguments.istio,
        modules: Rollout::only(module),
        control_plane: Address { host: arguments.host.clone(), port: arguments.port },
        keys,
        attach,
        without_filter,
        warm_starts,
        // Nothing where the state is older than the interlock.
        interlocks: Interlocks::peek(&arguments.state)?
            .map(|secret| interlocks_of(compiled, &secret))
            .unwrap_or_default(),
        priority: arguments.priority,
        cold_start: None,
        fips: arguments.fips,
    })
}

/// What is on offer to each workload.
async fn bundles(admin: &str, compiled: &Compiled) -> anyhow::Result<BTreeMap<WorkloadId, Vec<u8>>> {
    let client = plain_client().context("cannot set up HTTP")?;
    let mut bundles = BTreeMap::new();
    for id in compiled.workloads.keys() {
        let url = format!("{}/bundle/{id}", admin.trim_end_matches('/'));
        let answer = client.get(&url).send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.with_context(|| {
            format!(
                "cannot fetch the Bundle of `{id}`; does `tidegate serve` run at {admin}, with these rules?"
            )
        })?;
        bundles.insert(id.clone(), answer.bytes().await?.to_vec());
    }
    Ok(bundles)
}

fn summary(plugins: &Plugins) -> String {
    let mut text = format!("{}\n", count(plugins.objects.len(), "object"));
    for note in &plugins.notes {
        let mark = if note.code.is_refusal() { "no object" } else { "note" };
        text.push_str(&format!("  {mark} [{}]: {}\n", note.code, visible(&note.message)));
    }
    text
}
