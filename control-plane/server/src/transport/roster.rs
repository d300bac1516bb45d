//! Which workload runs as whom, as the Mesh object says.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tidegate_compiler::{Mesh, WorkloadId};

use super::{NodeHint, Refused, VerifiedPeer, WhoIs};

/// The workloads of the accepted Mesh, with their service accounts.
///
/// INVARIANT: a peer is a workload of the Mesh only if its trust domain is the Mesh's own, or both are aliases of each other
/// (`--trust-domain`). A namespace and an account of the same names elsewhere are somebody else.
#[derive(Debug, Default)]
pub struct Roster {
    /// Trust domains that are one mesh.
    aliases: Vec<String>,
    members: RwLock<Option<Arc<Members>>>,
}

/// Which workload runs as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    /// The Mesh's own.
    pub(crate) trust_domain: String,
    /// What workloads run as, where that is declared.
    pub(crate) accounts: BTreeMap<WorkloadId, Option<String>>,
}

// === impl Roster ===

impl Roster {
    /// Of a mesh that has these trust domains.
    pub fn new(trust_domains: &[String]) -> Self {
        Self { aliases: trust_domains.to_vec(), members: RwLock::default() }
    }

    /// Takes over what the Mesh says.
    pub fn replace(&self, mesh: &Mesh) {
        let accounts = mesh.workloads.iter();
        let accounts =
            accounts.map(|(id, workload)| (id.clone(), workload.service_account.clone())).collect();
        self.set(Arc::new(Members { trust_domain: mesh.trust_domain.clone(), accounts }));
    }

    /// Takes over what another replica says that the Mesh says.
    pub(crate) fn set(&self, members: Arc<Members>) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Some(members);
    }

    /// Who is who now; `None`: no rules have been compiled yet.
    pub(crate) fn members(&self) -> Option<Arc<Members>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_of(&self, peer: &VerifiedPeer, trust_domain: &str) -> bool {
        let is_alias = |domain: &str| self.aliases.iter().any(|alias| alias == domain);
        peer.trust_domain == trust_domain || (is_alias(&peer.trust_domain) && is_alias(trust_domain))
    }
}

impl WhoIs for Roster {
    /// The workload that the filter names, if it runs in the namespace and as the service account of the certificate.
    fn workload(&self, peer: &VerifiedPeer, hint: &NodeHint) -> Result<WorkloadId, Refused> {
        let Some(members) = self.members() else {
            return Err(Refused::NotReady("no rules have been compiled yet".to_owned()));
        };
        let Members { trust_domain, accounts } = &*members;
        if !self.is_of(peer, trust_domain) {
            return Err(Refused::NotItsOwn(format!(
                "the Mesh's trust domain is `{trust_domain}`, and `--trust-domain` does not list both"
            )));
        }
        let claimed = &hint.workload;
        let found = claimed.split_once('/').and_then(|(namespace, name)| {
            accounts.get_key_value(&WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() })
        });
        match found {
            None => Err(Refused::NotItsOwn(format!("the Mesh lists no workload `{claimed}`"))),
            Some((_, None)) => Err(Refused::NotItsOwn(format!(
                "the Mesh does not say which `serviceAccount` workload `{claimed}` runs as, so no filter can prove to be it"
            ))),
            Some((id, Some(account)))
                if id.namespace == peer.namespace && *account == peer.service_account =>
            {
                Ok(id.clone())
            }
            Some((id, Some(account))) => Err(Refused::NotItsOwn(format!(
                "workload `{claimed}` runs in namespace `{}` as `{account}`",
                id.namespace
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_compiler::Workload;

    use super::*;

    fn roster() -> Roster {
        roster_with(&[])
    }

    fn roster_with(aliases: &[&str]) -> Roster {
        let aliases: Vec<_> = aliases.iter().map(|alias| alias.to_string()).collect();
        let workload = |account: Option<&str>| Workload {
            labels: BTreeMap::new(),
            service_account: account.map(str::to_owned),
            gateway: false,
        };
        let id = |name: &str| WorkloadId { namespace: "sales".into(), name: name.into() };
        let roster = Roster::new(&aliases);
        roster.replace(&Mesh {
            trust_domain: "td".into(),
            root_namespace: "root".into(),
            workloads: BTreeMap::from([
                (id("orders"), workload(Some("orders-sa"))),
                (id("same"), workload(Some("orders-sa"))),
                (id("ledger"), workload(Some("ledger"))),
                (id("nobody"), workload(None)),
            ]),
        });
        roster
    }

    fn ask(roster: &Roster, peer: &str, workload: &str) -> Result<String, Refused> {
        let hint = NodeHint { pod_name: "pod".into(), pod_ip: None, workload: workload.into() };
        roster.workload(&peer.parse().unwrap(), &hint).map(|id| id.to_string())
    }

    #[test]
    fn a_peer_is_a_workload_of_its_own_namespace_and_account() {
        let roster = roster();
        for workload in ["sales/orders", "sales/same"] {
            let found = ask(&roster, "spiffe://td/ns/sales/sa/orders-sa", workload);
            assert_eq!(found.as_deref(), Ok(workload));
        }
    }

    #[test]
    fn a_peer_is_no_other_workload() {
        let roster = roster();
        for (peer, workload) in [
            ("spiffe://td/ns/sales/sa/orders-sa", "sales/ledger"),
            ("spiffe://td/ns/sales/sa/orders", "sales/orders"),
            ("spiffe://td/ns/other/sa/orders-sa", "sales/orders"),
            ("spiffe://td/ns/sales/sa/nobody", "sales/nobody"),
            ("spiffe://td/ns/sales/sa/orders-sa", "sales/unknown"),
            ("spiffe://td/ns/sales/sa/orders-sa", "orders"),
            ("spiffe://td/ns/sales/sa/orders-sa", ""),
            ("spiffe://td/ns/sales/sa/orders-sa", "sales/orders/x"),
        ] {
            let found = ask(&roster, peer, workload);
            assert!(matches!(found, Err(Refused::NotItsOwn(_))), "{peer} {workload}: {found:?}");
        }
    }

    #[test]
    fn a_peer_of_another_trust_domain_is_nobody_unless_both_are_the_mesh_s() {
        let own = "spiffe://td/ns/sales/sa/orders-sa";
        let other = "spiffe://other/ns/sales/sa/orders-sa";
        for (aliases, own_is, other_is) in [
            (&[][..], true, false),
            (&["td"][..], true, false),
            (&["other"][..], true, false),
            (&["other", "third"][..], true, false),
            (&["td", "other"][..], true, true),
        ] {
            let roster = roster_with(aliases);
            assert_eq!(ask(&roster, own, "sales/orders").is_ok(), own_is, "{aliases:?}");
            let asked = ask(&roster, other, "sales/orders");
            assert_eq!(asked.is_ok(), other_is, "{aliases:?}");
            assert!(other_is || matches!(asked, Err(Refused::NotItsOwn(_))), "{asked:?}");
        }
    }

    #[test]
    fn before_there_are_rules_nobody_is_anything() {
        let found = ask(&Roster::default(), "spiffe://td/ns/sales/sa/orders-sa", "sales/orders");
        assert!(matches!(found, Err(Refused::NotReady(_))), "{found:?}");
    }
}
