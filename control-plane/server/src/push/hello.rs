//! The first message of a stream: what it may say, and whose stream it is.
//!
//! INVARIANT: where peers prove who they are, what a filter says about itself chooses among the workloads that it is, and
//! never more.

use std::sync::Arc;

use tidegate_proto::v1 as pb;
use tonic::Status;
use tracing::warn;

use super::Hub;
use crate::bundle::Sha256;
use crate::transport::{Caller, NodeHint, Refused, VerifiedPeer};

/// Longest `namespace/name`, in bytes: a DNS label, a slash and a DNS subdomain (RFC 1123).
pub(super) const MAX_WORKLOAD: usize = 63 + 1 + 253;
/// Longest name of an instance, in bytes (RFC 1035 limits host names to 253).
pub(super) const MAX_INSTANCE: usize = 253;
/// Longest version, capability or word that is kept, in bytes.
const MAX_WORD: usize = 64;
/// Most held sections in a `Hello`.
const MAX_LISTED: usize = 64;
/// Most capabilities that are kept: there are a handful.
const MAX_CAPABILITIES: usize = 16;

/// Who the peer of a stream proved to be, with what it said first.
pub(super) struct Proven {
    peer: Arc<VerifiedPeer>,
    hint: NodeHint,
}

// === impl Proven ===

impl Proven {
    /// Whether it is this workload still.
    pub(super) fn again(&self, hub: &Hub, workload: &str) -> Result<(), Status> {
        let now = who_is(hub, &self.peer, &self.hint)?;
        if now == workload {
            return Ok(());
        }
        // It named none, and is another one now.
        Err(Status::permission_denied(format!("{} is no longer workload `{workload}`", self.peer)))
    }
}

/// The workload that a caller is: the one that it names, if it is that one. Where nobody was asked who they are, the one that
/// it names.
pub(super) fn identify(
    hub: &Hub,
    named: Option<&pb::WorkloadHint>,
    caller: Option<Caller>,
) -> Result<(String, Option<Proven>), Status> {
    let workload = named.map(|hint| hint.workload.clone()).unwrap_or_default();
    let (peer, address) = match caller {
        None => return Err(Status::unauthenticated("nobody said who is calling")),
        Some(Caller::Unasked) => return Ok((workload, None)),
        Some(Caller::Peer { peer, address }) => (peer, address),
    };
    let pod_name = named.map(|hint| hint.instance.clone()).unwrap_or_default();
    let hint = NodeHint { pod_name, pod_ip: address, workload };
    let workload = who_is(hub, &peer, &hint)?;
    Ok((workload, Some(Proven { peer, hint })))
}

/// The peer's workload. What others are and run as is told to the log only.
fn who_is(hub: &Hub, peer: &VerifiedPeer, hint: &NodeHint) -> Result<String, Status> {
    let refused = match hub.who_is.workload(peer, hint) {
        Ok(workload) => {
            let workload = workload.to_string();
            if hint.workload.is_empty() || hint.workload == workload {
                return Ok(workload);
            }
            Refused::NotItsOwn(format!("it is workload `{workload}`"))
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::NotReady(why) => Err(Status::unavailable(format!("{why}; try again"))),
        Refused::NotItsOwn(why) => {
            warn!(%peer, workload = hint.workload, "a peer is refused that is not the workload that it says: {why}");
            Err(Status::permission_denied(format!(
                "{peer} may not have the Bundle of workload `{}`; `workload` in the plugin configuration must be one of the \
                 proxy's own namespace and service account that the Mesh lists",
                hint.workload
            )))
        }
    }
}

/// Bounds what a filter says of where it runs.
pub(super) fn validate_hint(hint: Option<&pb::WorkloadHint>) -> Result<(), Status> {
    let Some(hint) = hint else { return Ok(()) };
    if hint.workload.len() > MAX_WORKLOAD || hint.workload.chars().any(char::is_control) {
        return Err(invalid("workload.workload: `namespace/name`"));
    }
    if hint.instance.len() > MAX_INSTANCE || hint.instance.chars().any(char::is_control) {
        return Err(invalid("workload.instance: at most 253 bytes without control characters"));
    }
    Ok(())
}

fn invalid(what: &str) -> Status {
    Status::invalid_argument(format!("`{what}`"))
}

/// Bounds everything self-reported that is kept. Returns the held sections.
pub(super) fn validate(hello: &pb::Hello) -> Result<Vec<Sha256>, Status> {
    let invalid = |what: &str| invalid(&format!("hello.{what}"));
    validate_hint(hello.workload.as_ref())?;
    let instance = hello.vm.as_ref().map(|vm| vm.instance.as_str()).unwrap_or_default();
    if instance.len() > MAX_INSTANCE || instance.chars().any(char::is_control) {
        return Err(invalid("vm.instance: at most 253 bytes without control characters"));
    }
    if hello.filter_version.len() > MAX_WORD || hello.filter_version.chars().any(char::is_control) {
        return Err(invalid("filter_version: at most 64 bytes without control characters"));
    }
    let is_unfit = |word: &String| word.len() > MAX_WORD || word.chars().any(char::is_control);
    if hello.capabilities.len() > MAX_CAPABILITIES || hello.capabilities.iter().any(is_unfit) {
        return Err(invalid("capabilities: at most 16 of at most 64 bytes without control characters"));
    }
    if !matches!(hello.enforced_manifest.len(), 0 | 32) {
        return Err(invalid("enforced_manifest: a SHA-256 digest has 32 bytes"));
    }
    if hello.held_sections.len() > MAX_LISTED {
        return Err(invalid("held_sections: at most 64"));
    }
    hello
        .held_sections
        .iter()
        .map(|digest| Sha256::try_from(digest.as_slice()))
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("held_sections: a SHA-256 digest has 32 bytes"))
}
