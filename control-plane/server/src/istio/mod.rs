//! Istio objects that bring the filter to guarded workloads: a WasmPlugin, or from Istio 1.30 on a TrafficExtension, each.
//!
//! Pure: from what was compiled, and from where module and control plane are, to objects. Whoever writes them to a cluster
//! or to a folder is elsewhere.
//!
//! INVARIANT: an object reaches exactly its workload. Where labels cannot say that, there is none, and a note.
//!
//! INVARIANT: nothing here fails open. The failure strategy is written out and never `FAIL_OPEN`, the module is pinned by
//! its SHA-256, and a listener is trusted to know the mesh's peers only where that is declared or given by Istio.

mod attach;
mod interlock;
mod plugin;
mod source;
mod warm;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tidegate_compiler::fence::Fence;
pub use tidegate_compiler::fence::{IstioObject, IstioVersion};
use tidegate_compiler::{Compiled, LabelIndex, WorkloadId, is_system_namespace};

pub use attach::{PEERS_LABEL, Place};
pub use interlock::{interlock_secrets, interlocks, interlocks_of};
pub use source::{InvalidSource, ModuleDigests, ModuleSource, Rollout};
pub use warm::{Change, DEBOUNCE_S, RENEW_S, Terms, WARM_START_BUDGET, Write, change, next_write};

use crate::bundle::TrustedKey;
use crate::plugin_config::ColdStart;

/// After every other plugin of its phase, so that what is decided is what goes on. Istio sorts plugins without a priority
/// with this one as well (istio `pilot/pkg/model/push_context.go`, `sortByPriority`).
pub const LAST: i32 = i32::MIN;

/// Most characters that the names of cluster and authority may have together, as the filter reads them.
const MAX_TARGET: usize = 120;

/// What objects are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginOptions {
    /// For which Istio.
    pub istio: IstioVersion,
    /// Which module, and where it is.
    pub modules: Rollout,
    /// Where filters reach the control plane.
    pub control_plane: Address,
    /// Whose signatures filters are to trust.
    pub keys: Vec<TrustedKey>,
    /// Which workloads get a filter.
    pub attach: Attach,
    /// Workloads whose rules Istio expresses exactly: they get none.
    pub without_filter: BTreeSet<WorkloadId>,
    /// Serialized `tidegate.v1.Bundle`s to begin with.
    pub warm_starts: BTreeMap<WorkloadId, Vec<u8>>,
    /// What filters set on requests that they let through, where the Fence demands it: [`interlocks`].
    pub interlocks: BTreeMap<WorkloadId, String>,
    /// Within the phase, higher ones come first.
    pub priority: i32,
    /// What happens to requests before the first Bundle is there; absent: the filter's defaults.
    pub cold_start: Option<ColdStart>,
    /// Signatures are verified by the proxy's cryptography or not at all.
    pub fips: bool,
}

/// A service in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Fully qualified, as Istio names its clusters, e.g. `tidegate.tidegate-system.svc.cluster.local`.
    pub host: String,
    /// The service's port.
    pub port: u16,
}

/// Which workloads get a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attach {
    /// Those that a Guard covers.
    #[default]
    Guarded,
    /// All that a Guard may ever cover. Until one does, requests pass by a signed statement that says so, and guarding
    /// changes no listener any more.
    Dormant,
}

/// Objects, and what there is to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plugins {
    /// At most one for each workload, in their order.
    pub objects: Vec<IstioObject>,
    /// In the order of workloads.
    pub notes: Vec<Note>,
}

/// Something to know about a workload's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose.
    pub workload: WorkloadId,
    /// What.
    pub code: NoteCode,
    /// What, why, and what to do.
    pub message: String,
}

/// What there may be to say about a workload's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteCode {
    /// There is no object: its labels select nothing, or cannot be written as a selector.
    NotSelectable,
    /// There is no object: it would reach another workload as well, or another namespace.
    SelectsOthers,
    /// There is no object: the control plane's address is too long for the filter.
    AddressTooLong,
    /// The object has no warm start: it would be too large.
    WarmStartTooLarge,
    /// The listeners of this gateway are not declared to accept the mesh's certificates only: rules with peers never
    /// match there.
    NoPeers,
}

/// Makes the objects of all workloads.
pub fn plugin_objects(compiled: &Compiled, options: &PluginOptions) -> Plugins {
    let mut plugins = Plugins::default();
    let mesh = (&compiled.mesh, &LabelIndex::new(&compiled.mesh));
    for (id, policy) in &compiled.workloads {
        let wanted = policy.covered || options.attach == Attach::Dormant;
        if !wanted || is_system_namespace(&id.namespace) || options.without_filter.contains(id) {
            continue;
        }
        let note = |(code, message)| Note { workload: id.clone(), code, message };
        match plugin::object(id, policy, mesh, options) {
            Ok((object, notes)) => {
                plugins.objects.push(object);
                plugins.notes.extend(notes.into_iter().map(note));
            }
            Err(why) => plugins.notes.push(note(why)),
        }
    }
    plugins
}

/// The guarded workloads whose rules Istio expresses exactly, for [`PluginOptions::without_filter`]: as far as is known of the mesh,
/// see [`tidegate_compiler::fence::Aliases`].
pub fn without_filter(fence: &Fence) -> BTreeSet<WorkloadId> {
    let exact = fence.workloads.iter().filter(|(_, fence)| !fence.needs_filter);
    exact.map(|(id, _)| id.clone()).collect()
}

// === impl Address ===

impl Address {
    /// Istio's name of the Envoy cluster (istio `pilot/pkg/model/service.go`, `BuildSubsetKey`).
    pub fn cluster(&self) -> String {
        format!("outbound|{}||{}", self.port, self.host)
    }

    fn is_too_long(&self) -> bool {
        self.cluster().len() + self.host.len() > MAX_TARGET
    }
}

// === impl NoteCode ===

impl NoteCode {
    /// As it is written in status and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSelectable => "not_selectable",
            Self::SelectsOthers => "selects_others",
            Self::AddressTooLong => "address_too_long",
            Self::WarmStartTooLarge => "warm_start_too_large",
            Self::NoPeers => "no_peers",
        }
    }

    /// Whether the workload has no object because of it.
    pub const fn is_refusal(self) -> bool {
        !matches!(self, Self::WarmStartTooLarge | Self::NoPeers)
    }
}

impl fmt::Display for NoteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
