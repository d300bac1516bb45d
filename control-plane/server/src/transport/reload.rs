//! Certificate, key and authorities from files, read again when they change.
//!
//! INVARIANT: what is in use is a certificate with its own key and at least one authority, read as one. Files that do not
//! fit together, or are half written, change nothing; the next look takes them when they do.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tracing::{error, info};

use super::options::TlsOptions;
use super::tls::{Pem, ServerConfigs};
use crate::metrics::ReasonLabel;
use crate::push::{Hub, stopped};

/// How often the files are looked at. Mounted secrets change by swapped links, which not every file system announces.
const EVERY: Duration = Duration::from_secs(1);

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// One of them cannot be read.
    #[error("TLS: cannot read `{path}`: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// They are not what they are to be.
    #[error("TLS: `{certificate}`, `{key}` and `{authorities}`: {why}", certificate = certificate.display(), key = key.display(), authorities = authorities.display())]
    Invalid {
        /// The file with our certificate.
        certificate: PathBuf,
        /// The file with its key.
        key: PathBuf,
        /// The file with the mesh's authorities.
        authorities: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What is in use now.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    current: watch::Receiver<ServerConfigs>,
}

/// What a handshake began with, and what is in use since.
pub(super) struct Trusted {
    begun_with: ServerConfigs,
    current: watch::Receiver<ServerConfigs>,
}

/// Reads the files again.
pub(crate) struct Keeper {
    options: TlsOptions,
    trust_domains: Vec<String>,
    seen: Pem,
    /// What is wrong with the files, told once.
    complaint: Option<String>,
    current: watch::Sender<ServerConfigs>,
}

// === impl Certificates ===

impl Certificates {
    /// Reads the files.
    pub(crate) fn load(
        options: &TlsOptions,
        trust_domains: &[String],
    ) -> Result<(Self, Keeper), CertificateError> {
        let seen = read(options)?;
        let configs = judge(options, &seen, trust_domains)?;
        let (sender, current) = watch::channel(configs);
        let keeper = Keeper {
            options: options.clone(),
            trust_domains: trust_domains.to_vec(),
            seen,
            complaint: None,
            current: sender,
        };
        Ok((Self { current }, keeper))
    }

    /// What is in use now, and from now on.
    pub(super) fn trusted(&self) -> Trusted {
        let current = self.current.clone();
        let begun_with = current.borrow().clone();
        Trusted { begun_with, current }
    }
}

// === impl Trusted ===

impl Trusted {
    pub(super) fn grpc(&self) -> Arc<rustls::ServerConfig> {
        self.begun_with.grpc.clone()
    }

    pub(super) fn admin(&self) -> Arc<rustls::ServerConfig> {
        self.begun_with.admin.clone()
    }

    /// Resolves when other authorities are in use than in the handshake, and this chain is of none of them.
    pub(super) async fn ends(&self, chain: &[CertificateDer<'static>]) {
        let (mut current, mut judged_by) = (self.current.clone(), self.begun_with.authorities.clone());
        loop {
            let authorities = current.borrow_and_update().authorities.clone();
            // Our own certificate is renewed often, and says nothing about theirs.
            if authorities != judged_by && !authorities.trust(chain) {
                return;
            }
            judged_by = authorities;
            if current.changed().await.is_err() {
                // The watch over the files has ended, and with it the server does.
                return std::future::pending().await;
            }
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Runs until the server stops.
    pub(crate) async fn run(mut self, hub: Arc<Hub>) -> Result<(), Infallible> {
        let mut stop = hub.stopping();
        hub.metrics.certificate_not_after.set(self.current.borrow().not_after);
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stopped(&mut stop) => return Ok(()),
            }
            // Three small files: no task of its own is worth it.
            let result = match self.look() {
                Ok(false) => continue,
                Ok(true) => "taken",
                Err(error) => {
                    let complaint = error.to_string();
                    if self.complaint.as_ref() == Some(&complaint) {
                        continue;
                    }
                    error!("{complaint}; what was read before stays in use");
                    self.complaint = Some(complaint);
                    "refused"
                }
            };
            hub.metrics.certificate_reloads.get_or_create(&ReasonLabel::new(result)).inc();
            hub.metrics.certificate_not_after.set(self.current.borrow().not_after);
        }
    }

    /// Whether there is something new in use now.
    fn look(&mut self) -> Result<bool, CertificateError> {
        let pem = read(&self.options)?;
        if pem == self.seen {
            self.complaint = None;
            return Ok(false);
        }
        let configs = judge(&self.options, &pem, &self.trust_domains)?;
        info!(not_after = configs.not_after, "TLS: certificate, key and authorities were read again");
        self.current.send_replace(configs);
        self.seen = pem;
        self.complaint = None;
        Ok(true)
    }
}

fn read(options: &TlsOptions) -> Result<Pem, CertificateError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
    };
    Ok(Pem {
        certificate: read(&options.certificate)?,
        key: read(&options.key)?,
        authorities: read(&options.authorities)?,
    })
}

fn judge(
    options: &TlsOptions,
    pem: &Pem,
    trust_domains: &[String],
) -> Result<ServerConfigs, CertificateError> {
    ServerConfigs::new(pem, trust_domains).map_err(|why| CertificateError::Invalid {
        certificate: options.certificate.clone(),
        key: options.key.clone(),
        authorities: options.authorities.clone(),
        why,
    })
}
