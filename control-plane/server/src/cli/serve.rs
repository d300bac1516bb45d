//! `tidegate serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::cluster::ClusterOptions;
use super::directories::DirectoryOptions;
use super::fetching::FetchOptions;
use super::text::seconds;
use super::transport::TransportFlags;
use super::{Ending, runtime};
use crate::decisions;
use crate::decisions::store::{self, Limits};
use crate::export::OtlpFlags;
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
/decisions /bundle/NAMESPACE/NAME.

Decisions that filters report are kept in the folder of --decisions: who called what, when, and what was decided. That is
personal data (users that tokens name); files are readable by their owner only, hold no token, and are removed when they
are too old.")]
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
    /// Folder where the decisions that filters report are kept for `tidegate explain ID` and `tidegate decisions`, or `off`
    /// [default: decisions, in the folder of --state]
    #[arg(long, value_name = "DIR|off")]
    decisions: Option<PathBuf>,
    /// How large the files of --decisions may become together, e.g. 512MiB, 4GiB; at least 16MiB. The oldest go first
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size)]
    decisions_max_size: u64,
    /// How long decisions are kept, e.g. 12h, 30d; at least 1h
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = age)]
    decisions_max_age: Duration,
    #[command(flatten)]
    fetching: FetchOptions,
    #[command(flatten)]
    directories: DirectoryOptions,
    #[command(flatten)]
    transport: TransportFlags,
    #[command(flatten)]
    otlp: OtlpFlags,
}

/// `512MiB`
fn size(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = match unit.trim() {
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        "TiB" | "Ti" => 1_u64 << 40,
        _ => return Err("write a number and a unit: MiB, GiB or TiB".to_owned()),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| *size >= store::MIN_SIZE)
        .ok_or_else(|| format!("it is at least {} MiB", store::MIN_SIZE >> 20))
}

/// `30d`
fn age(text: &str) -> Result<Duration, String> {
    let seconds = seconds(text).filter(|seconds| *seconds >= 3_600);
    seconds.map(Duration::from_secs).ok_or_else(|| "write at least one hour: 12h, 30d".to_owned())
}

fn kept(folder: Option<PathBuf>, state: &Path) -> Option<PathBuf> {
    match folder {
        None => Some(state.join("decisions")),
        Some(off) if off.as_os_str() == "off" => None,
        some => some,
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Ending> {
    let transport: TransportOptions = arguments.transport.into();
    let rules = match arguments.rules {
        Some(folder) => RuleSource::Folder(folder),
        None => RuleSource::Cluster(arguments.cluster.options(&transport, arguments.listen)?),
    };
    let limits = Limits { max_size: arguments.decisions_max_size, max_age: arguments.decisions_max_age };
    let decisions = decisions::Options { folder: kept(arguments.decisions, &arguments.state), limits };
    let options = Options {
        rules,
        candidate: arguments.candidate,
        decisions,
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
        export: arguments.otlp.options()?,
    };
    runtime()?.block_on(crate::serve::run(options))?;
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_read_or_refused() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2Gi"), Ok(2 << 30));
        for text in
            ["", "MiB", "1MiB", "15MiB", "512", "512MB", "-1GiB", "99999999999999999999GiB", "9999999999TiB"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(age("12h"), Ok(Duration::from_secs(12 * 3_600)));
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for text in ["", "59m", "d", "1", "1y", "99999999999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decisions_are_kept_beside_the_state_unless_told_otherwise() {
        let state = Path::new("/state");
        assert_eq!(kept(None, state), Some("/state/decisions".into()));
        assert_eq!(kept(Some("/d".into()), state), Some("/d".into()));
        assert_eq!(kept(Some("off".into()), state), None);
    }
}
