//! Kubernetes as the source of rules, and as the place where the Fence and the state of rules are written.
//!
//! The way of an object: `watches` keep the `index` as the cluster is, `pods` make the Mesh of it, `source` judges
//! every object like a file, `keeper` keeps Istio's policies and what brings filters (`plugins`) in step, `status` and `report`
//! say what became of it, and `lease` decides which replica writes. `shared` is where all replicas keep what people did besides.
//!
//! INVARIANT: nothing is judged before every kind was listed completely: what is absent counts as deleted. Nothing is
//! written without the lease, nothing that others own, and nothing that is as it should be already.

mod access;
mod crds;
mod index;
mod keeper;
mod lease;
mod owned;
mod plugins;
mod pods;
mod report;
mod shared;
mod source;
mod status;
mod view;
mod watches;
mod whois;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use access::{cluster_rules, lease_rules};
pub use crds::crds;
pub(crate) use index::{Index, Watched};
pub use keeper::FencePlan;
pub(crate) use keeper::Keeper;
pub(crate) use lease::Election;
pub use lease::{Leadership, LeaseOptions};
pub(crate) use plugins::Attachments;
pub use plugins::PluginPlan;
pub(crate) use report::StatusTask;
pub(crate) use shared::{MAX_SHARED, SharedKept, SharedTask, Unshared};
pub(crate) use source::{ClusterSource, Judged, is_of_cluster};
pub(crate) use view::FenceView;
pub(crate) use watches::follow;
pub(crate) use whois::PodRoster;

use crate::push::RelayOptions;

/// Who writes, in `managedFields` and events.
pub const MANAGER: &str = "tidegate";

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Which cluster, and what is not written in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How the API server is reached; absent: `KUBECONFIG`, `~/.kube/config`, or this pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// Of the SPIFFE ids of the mesh.
    pub trust_domain: String,
    /// Objects of this namespace act on the whole mesh.
    pub root_namespace: String,
    /// How Istio's policies are kept; absent: they are not.
    pub fence: Option<FencePlan>,
    /// How replicas agree on who writes.
    pub lease: LeaseOptions,
    /// How replicas reach each other; absent: only the one that leads has anything for filters.
    pub relay: Option<Box<RelayOptions>>,
}

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no configuration, or it cannot be read.
    #[error(
        "cannot tell how to reach the API server: {0}; name a kubeconfig with `--kubeconfig`, or run in a pod"
    )]
    Config(String),
    /// The client cannot be made.
    #[error("cannot make a client for the API server: {0}")]
    Client(#[source] kube::Error),
}

/// A client for the cluster. Nothing is asked yet.
pub(crate) async fn connect(options: &Options) -> Result<Client, ClusterError> {
    let failed = |error: &dyn std::fmt::Display| ClusterError::Config(error.to_string());
    let mut config = match &options.kubeconfig {
        Some(file) => {
            let file = Kubeconfig::read_from(file).map_err(|error| failed(&error))?;
            let from = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            from.map_err(|error| failed(&error))?
        }
        None => Config::infer().await.map_err(|error| failed(&error))?,
    };
    config.connect_timeout = Some(CONNECT);
    // What is tried again, and when, is decided where it is asked.
    config.default_retry = false;
    Client::try_from(config).map_err(ClusterError::Client)
}
