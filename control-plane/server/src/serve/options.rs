//! What a server needs to be told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::ServeError;
use crate::keys::Network;
use crate::transport::TransportOptions;
use crate::{decisions, directories, export};

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where rules are.
    pub rules: RuleSource,
    /// Folder with rules that filters compare with those, and never enforce.
    pub candidate: Option<PathBuf>,
    /// Folder for what must survive a restart.
    pub state: PathBuf,
    /// Folder with the signing keys and the interlock's secret that all replicas have; `None`: the state folder's own.
    ///
    /// INVARIANT: whichever replica leads, filters trust its signature and set the interlock that its Fence demands.
    pub secrets: Option<PathBuf>,
    /// Where filters connect (gRPC).
    pub listen: SocketAddr,
    /// Where people and probes look (HTTP).
    pub admin: SocketAddr,
    /// Where proxies fetch the filter module (HTTP); `None`: nowhere.
    pub modules: Option<SocketAddr>,
    /// JSON file with directories.
    pub directory: Option<PathBuf>,
    /// Where other directories are read.
    pub directories: directories::Options,
    /// YAML or JSON file with values for `${env.name}`.
    pub environment: Option<PathBuf>,
    /// PEM files with certificate authorities that issuers may have, besides the system's.
    pub issuer_ca: Vec<PathBuf>,
    /// Whether keys may be fetched from loopback addresses.
    pub allow_issuer_loopback: bool,
    /// Private networks that keys may be fetched from.
    pub allow_issuer_networks: Vec<Network>,
    /// Who may connect.
    pub transport: TransportOptions,
    /// Where decisions are kept.
    pub decisions: decisions::Options,
    /// Where decisions and figures are exported to; `None`: nowhere.
    pub export: Option<export::Options>,
}

/// Where rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// In a folder: every `*.yaml` and `*.yml` below it.
    Folder(PathBuf),
    /// In a Kubernetes cluster, as its objects.
    Cluster(crate::kube::Options),
}

impl From<PathBuf> for RuleSource {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

/// The certificate authorities in PEM files.
pub(crate) fn authorities(files: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let mut all = Vec::new();
    for path in files {
        let found = certificates(path).map_err(|why| ServeError::IssuerCa { path: path.clone(), why })?;
        all.extend(found);
    }
    Ok(all)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| format!("not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("holds no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned());
    }
    Ok(certificates)
}
