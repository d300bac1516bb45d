//! Which cluster, for `tidegate serve --kube`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tidegate_compiler::fence::{IstioVersion, UnknownIstio};

use crate::bundle::hex;
use crate::istio::{Address, Attach, ModuleDigests, ModuleSource, Rollout};
use crate::kube::{self, FencePlan, LeaseOptions, PluginPlan};
use crate::oci;
use crate::push::RelayOptions;
use crate::transport::{Security, TransportOptions};

/// Only with --kube.
#[derive(Debug, Args)]
#[group(multiple = true)]
pub(super) struct ClusterOptions {
    /// How the API server is reached; absent: KUBECONFIG, ~/.kube/config, or this pod's own account
    #[arg(long, value_name = "FILE", requires = "kube")]
    kubeconfig: Option<PathBuf>,
    /// Objects of this namespace act on the whole mesh: Istio's own
    #[arg(long, value_name = "NAME", default_value = "istio-system")]
    root_namespace: String,
    /// The version of Istio that policies are written for, 1.27 to 1.31; `none`: no policies are written
    #[arg(long, value_name = "VERSION", default_value = "1.30", value_parser = istio)]
    istio: Istio,
    /// How long Istio may take to bring a policy to its proxies, in milliseconds; rules that allow more wait for it
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    fence_settle: u64,
    #[command(flatten)]
    plugins: PluginFlags,
    /// Where the Lease is with which replicas agree on who writes
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "tidegate-system")]
    lease_namespace: String,
    /// How long a replica that leads and is gone is waited for, in seconds
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=300))]
    lease_duration: u64,
    /// What this replica is called; unique among them; absent: the machine's name
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    replica: Option<String>,
    /// Where other replicas reach this pod: at the port of --listen they get what this one signed when it leads. Absent: there only
    /// the replica that leads has anything for filters, unless --listen is one address
    #[arg(long, value_name = "IP", env = "POD_IP")]
    replica_ip: Option<IpAddr>,
    /// What all replicas run as, in --lease-namespace: they know each other by it
    #[arg(long, value_name = "NAME", env = "POD_SERVICE_ACCOUNT", default_value = "tidegate")]
    service_account: String,
    /// Headless Service of the replicas, which a sidecar knows them by [default: tidegate-replicas.NAMESPACE.svc.cluster.local, with
    /// --behind-sidecar]
    #[arg(long, value_name = "HOST")]
    replica_host: Option<String>,
}

/// How filters are brought to workloads.
#[derive(Debug, Args)]
struct PluginFlags {
    /// Write what brings filters too, a WasmPlugin for each workload, from Istio 1.30 on a TrafficExtension, with the module
    /// that is here: registry and repository, or http://HOST:PORT of --module-listen
    #[arg(long, value_name = "WHERE", requires = "kube")]
    module: Option<String>,
    /// Name of a Secret with credentials for the registry, in the namespace of each workload
    #[arg(long, value_name = "NAME", requires = "module")]
    pull_secret: Option<String>,
    /// SHA-256 of the two builds (headers, bodies) of the module that workloads have: those outside --module-share keep it, where this
    /// binary carries another one
    #[arg(long, value_name = "SHA256,SHA256", requires = "module", value_parser = digests)]
    module_before: Option<ModuleDigests>,
    /// How many of a hundred workloads get this binary's module; the same ones stay in as it grows
    #[arg(long, value_name = "PERCENT", requires = "module_before", default_value_t = 100, value_parser = clap::value_parser!(u8).range(..=100))]
    module_share: u8,
    /// Which workloads get a filter
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Attached::Dormant)]
    attach: Attached,
    /// This control plane's Service, fully qualified [default: tidegate.NAMESPACE.svc.cluster.local, where NAMESPACE is that of
    /// --lease-namespace]
    #[arg(long, value_name = "HOST")]
    service_host: Option<String>,
    /// Its port for filters
    #[arg(long, value_name = "PORT", default_value_t = 15080)]
    service_port: u16,
    /// Filters verify signatures with the proxy's cryptography or not at all, as `plugin-config` explains
    #[arg(long, requires = "module")]
    fips: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Attached {
    /// All that a Guard may ever cover: requests pass by a signed statement until one does, and guarding changes no listener
    Dormant,
    /// Those that a Guard covers
    Guarded,
}

#[derive(Debug, Clone, Copy)]
enum Istio {
    None,
    Version(IstioVersion),
}

fn istio(text: &str) -> Result<Istio, UnknownIstio> {
    if text == "none" { Ok(Istio::None) } else { text.parse().map(Istio::Version) }
}

fn digests(text: &str) -> Result<ModuleDigests, String> {
    let (headers, bodies) = text.split_once(',').ok_or("write both, with a comma between")?;
    Ok(ModuleDigests { headers: headers.trim().to_owned(), bodies: bodies.trim().to_owned() })
}

// === impl PluginFlags ===

impl PluginFlags {
    /// Of a control plane in this namespace.
    fn plan(self, namespace: &str) -> anyhow::Result<Option<PluginPlan>> {
        let Some(place) = self.module else { return Ok(None) };
        let is_served = place.starts_with("http://") || place.starts_with("https://");
        let own = if is_served { ModuleDigests::of_modules() } else { oci::digests()? };
        let module = |digests| match is_served {
            true if self.pull_secret.is_some() => bail!("`--pull-secret` is for registries"),
            true => Ok(ModuleSource::served(&place, digests)?),
            false => Ok(ModuleSource::oci(&place, digests, self.pull_secret.clone())?),
        };
        let modules = match self.module_before {
            None => Rollout::only(module(own)?),
            Some(before) => {
                Rollout { next: Some((module(own)?, self.module_share)), ..Rollout::only(module(before)?) }
            }
        };
        let attach = match self.attach {
            Attached::Dormant => Attach::Dormant,
            Attached::Guarded => Attach::Guarded,
        };
        Ok(Some(PluginPlan {
            modules,
            control_plane: Address {
                host: self.service_host.unwrap_or_else(|| format!("tidegate.{namespace}.svc.cluster.local")),
                port: self.service_port,
            },
            attach,
            fips: self.fips,
        }))
    }
}

// === impl ClusterOptions ===

impl ClusterOptions {
    /// For the mesh whose first trust domain this is.
    pub(super) fn options(
        self,
        transport: &TransportOptions,
        listen: SocketAddr,
    ) -> anyhow::Result<kube::Options> {
        let options = self;
        let fence = match options.istio {
            Istio::None if options.plugins.module.is_some() => {
                bail!(
                    "`--module` writes objects of Istio, and `--istio none` says that none are written; leave out one"
                )
            }
            Istio::None => None,
            Istio::Version(istio) => {
                let settle = Duration::from_millis(options.fence_settle);
                Some(FencePlan {
                    istio,
                    settle,
                    plugins: options.plugins.plan(&options.lease_namespace)?.map(Box::new),
                })
            }
        };
        let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = options.replica.or_else(|| std::env::var("HOSTNAME").ok()).or_else(machine);
        let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let name = name.context("this machine has no name; name the replica with `--replica`")?;
        // Two processes of one name must not take each other for themselves.
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
        let mut lease = LeaseOptions::new(&options.lease_namespace, &format!("{name}_{}", hex(&random)));
        lease.duration = Duration::from_secs(options.lease_duration);
        let mesh = transport.trust_domains.first().map_or("cluster.local", String::as_str);
        let namespace = &options.lease_namespace;
        let account = format!("spiffe://{mesh}/ns/{namespace}/sa/{}", options.service_account);
        let host = || {
            let is_behind = matches!(transport.security, Security::Sidecar(_));
            is_behind.then(|| format!("tidegate-replicas.{namespace}.svc.cluster.local"))
        };
        let relay = RelayOptions {
            account: account
                .parse()
                .context("`--service-account`, `--lease-namespace` or `--trust-domain`")?,
            address: options.replica_ip.map(|ip| SocketAddr::new(ip, listen.port()).to_string()),
            authority: options.replica_host.or_else(host),
        };
        Ok(kube::Options {
            kubeconfig: options.kubeconfig,
            trust_domain: mesh.to_owned(),
            root_namespace: options.root_namespace,
            fence,
            lease,
            relay: Some(Box::new(relay)),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::transport::SidecarOptions;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long)]
        kube: bool,
        #[command(flatten)]
        cluster: ClusterOptions,
    }

    fn options(arguments: &[&str], security: Security) -> anyhow::Result<kube::Options> {
        let line = ["serve", "--kube", "--replica=one"].iter().chain(arguments);
        let line = Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
        line.cluster.options(&TransportOptions::new(security), "0.0.0.0:15080".parse().unwrap())
    }

    #[test]
    fn the_service_is_the_one_of_the_namespace_unless_it_is_named() {
        let host = |arguments: &[&str]| {
            let module = ["--module=http://gate.example:15082", "--lease-namespace=gate"];
            let all: Vec<&str> = module.iter().chain(arguments).copied().collect();
            let fence = options(&all, Security::Insecure).unwrap().fence.unwrap();
            fence.plugins.unwrap().control_plane.host
        };
        assert_eq!(host(&[]), "tidegate.gate.svc.cluster.local");
        assert_eq!(host(&["--service-host=gate.example"]), "gate.example");
    }

    #[test]
    fn replicas_are_known_by_their_account_and_reached_by_their_address() {
        let relay = |arguments: &[&str], security: Security| {
            let all: Vec<&str> = ["--lease-namespace=gate"].iter().chain(arguments).copied().collect();
            *options(&all, security).unwrap().relay.unwrap()
        };
        let sidecar = || Security::Sidecar(SidecarOptions::default());
        let found = relay(&["--replica-ip=10.0.0.7"], sidecar());
        assert_eq!(found.account.to_string(), "spiffe://cluster.local/ns/gate/sa/tidegate");
        assert_eq!(found.address.as_deref(), Some("10.0.0.7:15080"));
        assert_eq!(found.authority.as_deref(), Some("tidegate-replicas.gate.svc.cluster.local"));
        let found =
            relay(&["--replica-ip=fd00::7", "--service-account=gate", "--replica-host=r.example"], sidecar());
        assert_eq!(found.account.service_account, "gate");
        assert_eq!(found.address.as_deref(), Some("[fd00::7]:15080"));
        assert_eq!(found.authority.as_deref(), Some("r.example"));
        let found = relay(&[], Security::Insecure);
        assert_eq!((found.address, found.authority), (None, None));
        let error = options(&["--service-account=a/b"], Security::Insecure).unwrap_err();
        assert!(error.to_string().contains("--service-account"), "{error}");
    }
}
