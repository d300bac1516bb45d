//! Which workload a subscribing filter is of: what its certificate proves, its pod's name, and that pod in the API.

use std::sync::Arc;

use tidegate_compiler::WorkloadId;

use super::index::Index;
use crate::transport::{NodeHint, Refused, Roster, VerifiedPeer, WhoIs};

/// The roster of the Mesh, and the pods.
#[derive(Debug)]
pub(crate) struct PodRoster {
    index: Arc<Index>,
    roster: Arc<Roster>,
}

// === impl PodRoster ===

impl PodRoster {
    pub(crate) fn new(index: Arc<Index>, roster: Arc<Roster>) -> Self {
        Self { index, roster }
    }
}

impl WhoIs for PodRoster {
    /// The workload that the filter names, if the Mesh and its pod say the same.
    fn workload(&self, peer: &VerifiedPeer, hint: &NodeHint) -> Result<WorkloadId, Refused> {
        let claimed = self.roster.workload(peer, hint)?;
        let pod = format!("{}/{}", peer.namespace, hint.pod_name);
        match self.index.workload_of(&peer.namespace, &hint.pod_name) {
            // Without a list of pods the certificate has to do.
            None => Ok(claimed),
            Some(None) => Err(Refused::NotReady(format!("pod `{pod}` is not known (yet)"))),
            Some(Some((_, account))) if account != peer.service_account => {
                Err(Refused::NotItsOwn(format!("pod `{pod}` runs as `{account}`")))
            }
            Some(Some((workload, _))) if workload != claimed => {
                Err(Refused::NotItsOwn(format!("pod `{pod}` is of workload `{workload}`, not `{claimed}`")))
            }
            Some(Some(_)) => Ok(claimed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tidegate_compiler::{Mesh, Workload};

    use super::super::index::Watched;
    use super::*;

    fn roster() -> Arc<Roster> {
        let roster = Roster::default();
        let workload = |name: &str| {
            let id = WorkloadId { namespace: "sales".into(), name: name.into() };
            let account = Some("shared".to_owned());
            (id, Workload { labels: BTreeMap::new(), service_account: account, gateway: false })
        };
        roster.replace(&Mesh {
            trust_domain: "td".into(),
            root_namespace: "root".into(),
            workloads: [workload("orders"), workload("ledger")].into(),
        });
        Arc::new(roster)
    }

    #[test]
    fn a_filter_gets_what_is_for_its_own_pod_although_others_share_its_account() {
        let index = Arc::<Index>::default();
        let who_is = PodRoster::new(index.clone(), roster());
        let peer = VerifiedPeer {
            trust_domain: "td".into(),
            namespace: "sales".into(),
            service_account: "shared".into(),
        };
        let ask = |pod: &str, workload: &str| {
            let hint = NodeHint { pod_name: pod.into(), pod_ip: None, workload: format!("sales/{workload}") };
            who_is.workload(&peer, &hint)
        };
        assert!(ask("orders", "ledger").is_ok(), "nothing is known of pods");
        let pod = |name: &str, account: &str| {
            serde_json::from_value(json!({
                "metadata": {"namespace": "sales", "name": name}, "spec": {"serviceAccountName": account},
            }))
            .unwrap()
        };
        index.replace(Watched::Pods, vec![pod("orders", "shared"), pod("ledger", "other")]);
        assert_eq!(ask("orders", "orders").unwrap().name, "orders");
        assert!(matches!(ask("orders", "ledger"), Err(Refused::NotItsOwn(_))));
        assert!(matches!(ask("ledger", "ledger"), Err(Refused::NotItsOwn(_))), "its account is another");
        assert!(matches!(ask("new", "orders"), Err(Refused::NotReady(_))));
    }
}
