//! `tidegate serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::cluster::ClusterOptions;
use super::directories::DirectoryOptions;
use super::fetching::FetchOptions;
use super::transport::TransportFlags;
use super::{Ending, runtime};
use crate::serve::{Options, RuleSource};
use crate::transport::TransportOptions;

/// Compile the rules of a folder or a cluster, and push them to filters whenever they change
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate serve --rules rules --state state --insecure-no-authentication      # to try things out
  tidegate serve --rules rules --state /var/lib/tidegate --env values/prod.yaml --listen 0.0.0.0:15080 \\
    --tls-cert tls/cert.pem --tls-key tls/key.pem --tls-ca tls/ca.pem --trust-domain prod.example
  tidegate serve --rules rules --state /var/lib/tidegate --listen 0.0.0.0:15080 --behind-sidecar
  tidegate serve --rules main --candidate next --state /var/lib/tidegate --listen 0.0.0.0:15080 --behind-sidecar
  tidegate serve --kube --state /var/lib/tidegate --listen 0.0.0.0:15080 --behind-sidecar

What is wrong with the rules is logged, and shown at http://ADMIN/diagnostics; the last good form of every file stays in
force, across restarts too. Also there: /healthz /readyz /metrics /fleet /candidate /issuers /directories
/bundle/NAMESPACE/NAME.")]
pub(super) struct Arguments {
    /// Folder with rules: every *.yaml and *.yml below it
    #[arg(long, value_name = "DIR", required_unless_present = "kube")]
    rules: Option<PathBuf>,
    /// Folder with a whole other set of rules that filters evaluate beside the first, and only report on: see /candidate
    #[arg(long, value_name = "DIR", requires = "rules")]
    candidate: Option<PathBuf>,
    /// Read rules and pods from a Kubernetes cluster instead, and write statuses there
    #[arg(long, conflicts_with = "rules")]
    kube: bool,
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Folder for what must survive a restart: keys, revisions, the last good rules. Private; one process at a time
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Folder with signing-key.p8, next-signing-key.p8 and interlock-secret of a state folder, which is only read: what all replicas
    /// of a control plane must share (a Secret). Absent: the state folder's own
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// Where filters connect (gRPC)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15080")]
    listen: SocketAddr,
    /// Where people and probes look (HTTP)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15081")]
    admin: SocketAddr,
    /// Where proxies fetch the filter module (HTTP, without mTLS; nothing else is there), where no registry has it
    #[arg(long, value_name = "ADDR")]
    module_listen: Option<SocketAddr>,
    /// YAML or JSON file with values for ${env.name}
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    #[command(flatten)]
    fetching: FetchOptions,
    #[command(flatten)]
    directories: DirectoryOptions,
    #[command(flatten)]
    transport: TransportFlags,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Ending> {
    let transport: TransportOptions = arguments.transport.into();
    let rules = match arguments.rules {
        Some(folder) => RuleSource::Folder(folder),
        None => RuleSource::Cluster(arguments.cluster.options(&transport)?),
    };
    let options = Options {
        rules,
        candidate: arguments.candidate,
        state: arguments.state,
        secrets: arguments.secrets,
        listen: arguments.listen,
        admin: arguments.admin,
        modules: arguments.module_listen,
        directory: arguments.directories.directory.clone(),
        directories: arguments.directories.into(),
        environment: arguments.env,
        issuer_ca: arguments.fetching.issuer_ca,
        allow_issuer_loopback: arguments.fetching.allow_issuer_loopback,
        allow_issuer_networks: arguments.fetching.allow_issuer_network,
        transport,
    };
    runtime()?.block_on(crate::serve::run(options))?;
    Ok(Ending::Done)
}
