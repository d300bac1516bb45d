//! Options of every command that fetches issuers' keys.

use std::path::PathBuf;

use clap::Args;

use crate::keys::{AddressGuard, Fetcher, Network};
use crate::serve::authorities;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fetching keys")]
pub(super) struct FetchOptions {
    /// PEM file with certificate authorities of issuers, besides the system's. May be given several times
    #[arg(long, value_name = "PEM")]
    pub issuer_ca: Vec<PathBuf>,
    /// Fetch issuers' keys from loopback addresses too. For issuers on this machine only
    #[arg(long)]
    pub allow_issuer_loopback: bool,
    /// Fetch issuers' keys from this private network too, e.g. 10.20.0.0/16. May be given several times
    #[arg(long, value_name = "CIDR")]
    pub allow_issuer_network: Vec<Network>,
}

// === impl FetchOptions ===

impl FetchOptions {
    /// Fetches as `tidegate serve` does with the same options.
    pub(super) fn fetcher(&self) -> anyhow::Result<Fetcher> {
        let networks = self.allow_issuer_network.iter().copied();
        let guard = AddressGuard::new(self.allow_issuer_loopback, networks);
        Ok(Fetcher::new(&authorities(&self.issuer_ca)?, guard)?)
    }
}
