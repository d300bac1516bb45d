//! Which cluster, for `tidegate serve --kube`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tidegate_compiler::fence::{IstioVersion, UnknownIstio};

use crate::bundle::hex;
use crate::kube::{self, FencePlan, LeaseOptions};
use crate::transport::TransportOptions;

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
    /// Where the Lease is with which replicas agree on who writes
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "tidegate-system")]
    lease_namespace: String,
    /// How long a replica that leads and is gone is waited for, in seconds
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=300))]
    lease_duration: u64,
    /// What this replica is called; unique among them; absent: the machine's name
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    replica: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Istio {
    None,
    Version(IstioVersion),
}

fn istio(text: &str) -> Result<Istio, UnknownIstio> {
    if text == "none" { Ok(Istio::None) } else { text.parse().map(Istio::Version) }
}

// === impl ClusterOptions ===

impl ClusterOptions {
    /// For the mesh whose first trust domain this is.
    pub(super) fn options(self, transport: &TransportOptions) -> anyhow::Result<kube::Options> {
        let options = self;
        let fence = match options.istio {
            Istio::None => None,
            Istio::Version(istio) => {
                Some(FencePlan { istio, settle: Duration::from_millis(options.fence_settle) })
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
        Ok(kube::Options {
            kubeconfig: options.kubeconfig,
            trust_domain: mesh.to_owned(),
            root_namespace: options.root_namespace,
            fence,
            lease,
        })
    }
}
