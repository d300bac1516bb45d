//! `tidegate plugin-config`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::Args;

use super::running::{AdminTls, answered, base};
use super::{Ending, print, runtime};
use tidegate_compiler::Compiled;
use tidegate_engine::{Guarding, PolicySet};

use crate::bundle::{Interlocks, Keyring};
use crate::istio::interlocks_of;
use crate::plugin_config::{ControlPlane, EnvoyProxy, HostPort, IDENTITY_FILES, Peers, PluginConfig};
use crate::rules::{self, SetName};
use crate::serve::compile_files;
use crate::transport::VerifiedPeer;

/// Print the configuration of the filter at one workload, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate plugin-config --state state --workload sales/orders-api
  tidegate plugin-config --state state --workload ingress/dataflow-in --peers none
  tidegate plugin-config --state state --workload sales/orders-api --warm-start http://127.0.0.1:15081
  tidegate plugin-config --state state --workload sales/orders-api --fips
  tidegate plugin-config --state state --workload sales/orders-api --envoy --upstream 127.0.0.1:8081 > envoy.yaml
  tidegate plugin-config --state state --workload sales/orders-api --envoy --identity /etc/certs > envoy.yaml

The state folder is the one of `tidegate serve`, which may run meanwhile.")]
pub(super) struct Arguments {
    /// State folder of `tidegate serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Whose filter
    #[arg(long, value_name = "NAMESPACE/NAME")]
    workload: String,
    /// Where a peer is to be found [default: mesh; with --envoy and without --identity: none]
    #[arg(long, value_enum)]
    peers: Option<Peers>,
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
    #[command(flatten)]
    envoy: EnvoyArguments,
}

/// For those who run Envoy themselves.
#[derive(Debug, Args)]
#[command(next_help_heading = "A whole Envoy")]
struct EnvoyArguments {
    /// Print what `envoy --config-path` reads: a listener with the filter before one upstream, as YAML
    #[arg(long)]
    envoy: bool,
    /// The filter module, as `tidegate module --out` writes it
    #[arg(long, value_name = "FILE", default_value = "tidegate_filter.wasm", requires = "envoy")]
    module: PathBuf,
    /// Where Envoy listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", requires = "envoy")]
    listen: SocketAddr,
    /// What it guards
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081", requires = "envoy")]
    upstream: HostPort,
    /// Where filters connect to `tidegate serve` (its --listen)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:15080", requires = "envoy")]
    control_plane: HostPort,
    /// Folder with cert-chain.pem, key.pem and root-cert.pem: callers need a certificate of that authority, whose SPIFFE id
    /// is who they are. Absent: plain text, and nobody is a mesh peer
    #[arg(long, value_name = "DIR", requires = "envoy")]
    identity: Option<PathBuf>,
    /// SPIFFE id of the control plane: it is called by mutual TLS with the certificate of --identity. Absent: in plain text
    #[arg(long, value_name = "SPIFFE_ID", requires = "identity")]
    control_plane_id: Option<VerifiedPeer>,
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
    let without_peers = arguments.envoy.envoy && arguments.envoy.identity.is_none();
    config.peers = arguments.peers.unwrap_or(if without_peers { Peers::None } else { Peers::Mesh });
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
    if arguments.envoy.envoy {
        let policy = compiled.as_ref().and_then(|compiled| compiled.workloads.get(id));
        let rules = PolicySet::decode(policy.map_or(&[][..], |policy| &policy.rules));
        let rules = rules.map_err(|why| anyhow!("the accepted rules of `{id}` cannot be read: {why}"))?;
        let proxy = arguments.envoy.proxy(config.peers, &rules)?;
        print(&proxy.yaml(&config, &arguments.cluster)?)?;
    } else {
        print(&format!("{}\n", serde_json::to_string_pretty(&config)?))?;
    }
    Ok(Ending::Done)
}

impl EnvoyArguments {
    /// The Envoy that was asked for, if it may be: one that lets everything pass is not what somebody wants who asks for a filter.
    fn proxy(&self, peers: Peers, rules: &PolicySet) -> anyhow::Result<EnvoyProxy> {
        let port = self.listen.port();
        if port == 0 && rules.needs_port() {
            bail!("`--listen` needs a port: what is guarded, or what rules allow, depends on it");
        }
        let is_enforced = match rules.guarding(port) {
            Guarding::Enforce => true,
            Guarding::Shadow => false,
            Guarding::None => bail!(
                "no Guard covers port {port} of this workload, so every request would pass; name a guarded port with `--listen`, or \
                 declare a Guard for it"
            ),
        };
        match (peers, &self.identity) {
            (Peers::Mesh, None) => bail!(
                "`--peers mesh` needs `--identity`: on a listener in plain text nobody can prove to be a peer; leave `--peers` out, \
                 or name the folder with the certificates"
            ),
            (Peers::Waypoint, _) => bail!(
                "`--envoy` prints no waypoint: Istio configures those; leave `--envoy` out to get what the filter there needs"
            ),
            (Peers::Mesh | Peers::None, _) => {}
        }
        let module = std::path::absolute(&self.module).context("--module")?;
        if !module.is_file() {
            bail!(
                "there is no filter module at `{path}`; `tidegate module --out {path}` writes it",
                path = self.module.display()
            );
        }
        let identity = self.identity.as_ref().map(std::path::absolute).transpose().context("--identity")?;
        for file in identity.iter().flat_map(|folder| IDENTITY_FILES.map(|file| folder.join(file))) {
            if !file.is_file() {
                bail!("there is no `{}`; --identity needs {}", file.display(), IDENTITY_FILES.join(", "));
            }
        }
        Ok(EnvoyProxy {
            module,
            listen: self.listen,
            upstream: self.upstream.clone(),
            control_plane: self.control_plane.clone(),
            identity,
            control_plane_id: self.control_plane_id.clone(),
            is_enforced,
        })
    }
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
