//! A control plane for encoded rules: the real publisher and the real push, without files and compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tidegate::bundle::{Contents, Publisher, SectionStore, TrustedKey};
use tidegate::demo::issuers::Issuer;
use tidegate::directories::Index;
use tidegate::keys::NEVER;
use tidegate::push::{self, Hub, Lookups};
use tidegate::state::StateDir;
use tidegate_identity::keys::{KeyUse, select_for};
use tidegate_identity::{IssuerSetSpec, IssuerSpec, PackKind};
use tidegate_proto::v1 as pb;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::rules;

/// Serves until it is dropped.
pub struct ControlPlane {
    /// Where filters reach it.
    pub address: SocketAddr,
    /// Whose signature counts.
    pub trusted_keys: Vec<TrustedKey>,
    server: JoinHandle<()>,
    _state: tempfile::TempDir,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Offers each of these numbers of rules to the workload of that number.
    pub async fn start(sizes: &BTreeSet<usize>, issuer: &Issuer) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().try_into()?;
        let mut publisher = Publisher::open(Arc::new(StateDir::open(state.path())?), now)?;
        let mut store = SectionStore::default();
        let keys = keys(issuer)?;
        let mut contents = BTreeMap::new();
        for size in sizes {
            let sections = vec![
                store.section(pb::SectionKind::Rules, &rules::section(*size)?),
                store.section(pb::SectionKind::Keys, &keys),
            ];
            contents.insert(
                workload(*size),
                Contents {
                    coverage: pb::Coverage::Guarded,
                    sections,
                    candidate: Vec::new(),
                    required_capabilities: Vec::new(),
                    used_capabilities: Vec::new(),
                    suspended_until: 0,
                },
            );
        }
        let hub = Arc::new(Hub::new(Index::new(Duration::from_secs(120))));
        hub.distributor.publish(&publisher.publish(contents, now)?, Lookups::default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            if let Err(error) = push::serve_insecure(hub, listener).await {
                eprintln!("the control plane ended: {error}");
            }
        });
        Ok(Self { address, trusted_keys: publisher.keys().trusted(), server, _state: state })
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The workload with this many rules.
pub fn workload(rules: usize) -> String {
    format!("sales/rules-{rules}")
}

fn keys(issuer: &Issuer) -> Result<Vec<u8>> {
    let selection = select_for(&issuer.jwks().to_string(), KeyUse::Sig)?;
    ensure!(!selection.keys.is_empty(), "the issuer's keys are not fit: {:?}", selection.refused);
    let mut spec = IssuerSpec::new(rules::ISSUER, issuer.url(), PackKind::Gitlab);
    spec.keys = selection.keys;
    spec.valid_until = NEVER;
    Ok(IssuerSetSpec::new(vec![spec]).encode()?)
}
