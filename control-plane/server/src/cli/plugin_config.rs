//! `tidegate plugin-config`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::running::{AdminTls, answered, base};
use super::{Ending, print, runtime};
use tidegate_compiler::Compiled;

use crate::bundle::{Interlocks, Keyring};
use crate::istio::interlocks_of;
use crate::plugin_config::{ControlPlane, Peers, PluginConfig};
use crate::rules::{self, SetName};
use crate::serve::compile_files;

/// Print the configuration of the filter at one workload, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate plugin-config --state state --workload sales/orders-api
  tidegate plugin-config --state state --workload ingress/dataflow-in --peers none
  tidegate plugin-config --state state --workload sales/orders-api --warm-start http://127.0.0.1:15081
  tidegate plugin-config --state state --workload sales/orders-api --fips

The state folder is the one of `tidegate serve`, which may run meanwhile.")]
pub(super) struct Arguments {
    /// State folder of `tidegate serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Whose filter
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: String,
    /// Where a peer is to be found
    #[arg(long, value_enum, default_value_t = Peers::Mesh)]
    peers: Peers,
    /// Name of the Envoy cluster that leads to the control plane
    #[arg(long, value_name = "NAME", default_value = "tidegate")]
    cluster: String,
    /// Authority of the gRPC stream
    #[arg(long, value_name = "HOST", default_value = "tidegate.tidegate-system.svc")]
    authority: String,
    /// Admin address of a running control plane, to include the workload's Bundle, so that the filter enforces from its
    /// first request on
    #[arg(long, value_name = "URL")]
    warm_start: Option<String>,
    #[command(flatten)]
    tls: AdminTls,
    /// Verify signatures with the proxy's cryptography or not at all: for proxies whose cryptography is validated to FIPS
    /// 140. Tokens signed with PS* or EdDSA are refused then
    #[arg(long)]
    fips: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let Some(keys) = Keyring::peek(&arguments.state)? else {
        bail!(
            "state folder `{}` holds no signing keys; `--state` must name the folder of a `tidegate serve` that has been \
             started at least once",
            arguments.state.display()
        );
    };
    let compiled = compiled(arguments)?;
    let workloads = || compiled.iter().flat_map(|compiled| compiled.workloads.keys());
    let Some(id) = workloads().find(|id| id.to_string() == arguments.workload) else {
        let known: Vec<String> = workloads().map(ToString::to_string).collect();
        bail!(
            "workload `{}` is not in the Mesh of the accepted rules; known are: {}",
            arguments.workload,
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        );
    };
    let mut config = PluginConfig::new(&arguments.workload, keys);
    config.peers = arguments.peers;
    config.fips = arguments.fips;
    // Nothing where the state is older than the interlock.
    let secret = Interlocks::peek(&arguments.state)?;
    config.interlock =
        compiled.as_ref().zip(secret).and_then(|(rules, secret)| interlocks_of(rules, &secret).remove(id));
    config.control_plane =
        Some(ControlPlane { cluster: arguments.cluster.clone(), authority: arguments.authority.clone() });
    if let Some(admin) = &arguments.warm_start {
        config =
            config.with_bundle(&runtime()?.block_on(bundle(admin, &arguments.tls, &arguments.workload))?);
    }
    print(&format!("{}\n", serde_json::to_string_pretty(&config)?))?;
    Ok(Ending::Done)
}

/// What filters are to enforce.
fn compiled(arguments: &Arguments) -> anyhow::Result<Option<Compiled>> {
    let Some(accepted) = rules::read(&arguments.state, SetName::Accepted)? else { return Ok(None) };
    Ok(compile_files(&accepted.files, &accepted.environment).output)
}

async fn bundle(admin: &str, tls: &AdminTls, workload: &str) -> anyhow::Result<Vec<u8>> {
    let url = format!("{}/bundle/{workload}", base(admin));
    let client = tls.client(&url)?;
    let failed = || format!("cannot fetch the Bundle; is `tidegate serve` running at {admin}?");
    let answer = client.get(&url).send().await.with_context(failed)?;
    let answer = answered(answer).await.with_context(failed)?;
    Ok(answer.bytes().await?.to_vec())
}
