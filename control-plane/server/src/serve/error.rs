//! Why a server does not start, or ended.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::GRACE;
use super::cluster::NoCluster;
use crate::bundle::BundleError;
use crate::directories::SourceError;
use crate::keys::FetcherError;
use crate::kube::ClusterError;
use crate::rules::LoadError;
use crate::state::StateError;
use crate::transport::{CertificateError, InvalidTransport};

/// Why a server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Rules, values or directories cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// State cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// What replicas share is not there.
    #[error(
        "folder `{path}` lacks `signing-key.p8`, `next-signing-key.p8` or `interlock-secret`; make all three with `tidegate secrets DIR`, or copy \
         them from the state folder of a `tidegate serve` that has been started once, or leave `--secrets` out",
        path = path.display()
    )]
    Secrets {
        /// The folder.
        path: PathBuf,
    },
    /// Keys or manifests cannot be read or made.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {purpose}: {source}; is another process there? `{flag}` chooses another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        purpose: &'static str,
        /// The option that sets it.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Who may connect is not said in a way that can be meant.
    #[error(transparent)]
    Transport(#[from] InvalidTransport),
    /// The server's certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A receiver of exports cannot be spoken to.
    #[error("export: {0}")]
    Export(#[from] crate::export::ClientError),
    /// A unix socket cannot be listened on.
    #[error(
        "cannot listen on the unix socket for filters: {0}; is another process there? `--sidecar-socket` chooses another place"
    )]
    Socket(io::Error),
    /// A file of certificates cannot be read.
    #[error("issuer CA `{path}`: {why}", path = path.display())]
    IssuerCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Fetching keys cannot be set up.
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
    /// Reading directories cannot be set up.
    #[error(transparent)]
    Directories(#[from] SourceError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A part of the server ended although nobody stopped it.
    #[error("{task} ended unexpectedly: {why}")]
    TaskEnded {
        /// Which one.
        task: &'static str,
        /// How.
        why: String,
    },
    /// Something did not end in time after it was told to.
    #[error("not everything ended within {} s", GRACE.as_secs())]
    Unfinished,
}

impl From<NoCluster> for ServeError {
    fn from(error: NoCluster) -> Self {
        match error {
            NoCluster::Cluster(error) => error.into(),
            NoCluster::Load(error) => error.into(),
        }
    }
}
