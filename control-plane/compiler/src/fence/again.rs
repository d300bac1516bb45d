//! The Fence again after a change: only the workloads are made anew that rest on something that changed.
//!
//! INVARIANT: what [`Fencer::fence_in`] gives depends on its arguments alone, never on what was made before. So a workload's part
//! is kept beside everything that it was made of ([`World`], [`Basis`], and whose policies reach its pods), and that is compared
//! as a whole, not by digests. There is one way: a first Fence is one of which everything is new.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::note::{Note, NoteKind};
use super::select::{self, Reached};
use super::version::IstioVersion;
use super::{
    Aliases, Fence, FenceOptions, Normalization, PortProtocol, Surroundings, WorkloadFence, of_workload,
    policy_object,
};
use crate::Compiled;
use crate::issuers::TrustedIssuer;
use crate::mesh::{Mesh, Workload, WorkloadId};
use crate::plan::WorkloadPolicy;

/// Makes the Fence of a mesh again and again as rules and workloads change.
///
/// Keeps what it made, and what that was made of.
#[derive(Debug, Default)]
pub struct Fencer {
    world: Option<World>,
    /// Where `reached` was found.
    mesh: Option<Mesh>,
    reached: Reached,
    made: BTreeMap<WorkloadId, Made>,
}

/// What every workload's policies are made of. If it is another, nothing of what was made counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct World {
    pub(super) istio: IstioVersion,
    pub(super) claims: bool,
    pub(super) normalization: Normalization,
    pub(super) aliases: Aliases,
    pub(super) trust_domain: String,
    pub(super) root_namespace: String,
    /// None where no policies are made of them.
    pub(super) issuers: Vec<TrustedIssuer>,
}

/// What one workload's policies are made of besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Basis {
    /// The same in memory while its rules are the same.
    pub(super) policy: Arc<WorkloadPolicy>,
    pub(super) workload: Workload,
    /// Whether its policies reach no other workloads.
    pub(super) alone: bool,
    /// Of its interlock.
    pub(super) secret: Option<String>,
    /// What Services say of its ports, where that is known.
    pub(super) ports: Option<BTreeMap<u16, PortProtocol>>,
}

/// What was made of one workload.
#[derive(Debug)]
struct Made {
    basis: Basis,
    own: Arc<WorkloadFence>,
    /// Whose policies reach it as well, and what it is with that; absent: nobody's did.
    with_others: Option<(Vec<WorkloadId>, Arc<WorkloadFence>)>,
}

// === impl Fencer ===

impl Fencer {
    /// One that has made nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the Fence. Gives exactly what [`super::fence_in`] gives; what did not change is the same in memory.
    pub fn fence_in(
        &mut self,
        compiled: &Compiled,
        options: &FenceOptions,
        surroundings: &Surroundings,
    ) -> Fence {
        let world = World::new(compiled, options, surroundings);
        let world = match self.world.take().filter(|known| *known == world) {
            Some(known) => known,
            None => {
                self.made.clear();
                world
            }
        };
        if self.mesh.as_ref() != Some(&compiled.mesh) {
            self.reached = select::also_reached(&compiled.mesh);
            self.mesh = Some(compiled.mesh.clone());
        }
        let mut before = std::mem::take(&mut self.made);
        for (id, policy) in &compiled.workloads {
            let Some(workload) = compiled.mesh.workloads.get(id) else { continue };
            let basis = Basis {
                policy: Arc::clone(policy),
                workload: workload.clone(),
                alone: !self.reached.contains_key(id),
                secret: options.interlock_secrets.get(id).cloned(),
                ports: surroundings.declared_ports.get(id).cloned(),
            };
            let made = match before.remove(id).filter(|known| known.basis == basis) {
                Some(known) => known,
                None => Made { own: Arc::new(of_workload(&world, id, &basis)), basis, with_others: None },
            };
            self.made.insert(id.clone(), made);
        }
        let fence = self.with_others(&world);
        self.world = Some(world);
        fence
    }

    /// What workloads are with the policies of others that reach them.
    fn with_others(&mut self, world: &World) -> Fence {
        let mut reaching: BTreeMap<&WorkloadId, Vec<WorkloadId>> = BTreeMap::new();
        for (by, others) in &self.reached {
            if self.made.get(by).is_some_and(|made| !made.own.objects.is_empty()) {
                for id in others {
                    reaching.entry(id).or_default().push(by.clone());
                }
            }
        }
        let workloads = self.made.iter_mut().map(|(id, made)| {
            let Some(by) = reaching.remove(id) else {
                made.with_others = None;
                return (id.clone(), Arc::clone(&made.own));
            };
            let fence = match made.with_others.take().filter(|(known, _)| *known == by) {
                Some((_, known)) => known,
                None => Arc::new(reached_by(world, id, made, &by)),
            };
            made.with_others = Some((by, Arc::clone(&fence)));
            (id.clone(), fence)
        });
        Fence { workloads: workloads.collect() }
    }
}

/// A workload whose pods the policies of these others select as well.
fn reached_by(world: &World, id: &WorkloadId, made: &Made, others: &[WorkloadId]) -> WorkloadFence {
    let mut fence = WorkloadFence::clone(&made.own);
    let is_fenced = !fence.objects.is_empty();
    if is_fenced {
        fence.needs_filter = true;
    } else if let Ok(selector) = select::selector(&world.root_namespace, id, &made.basis.workload) {
        // Without a policy of its own, the others' ALLOW would be all that it gets.
        let everything = vec![super::object::object::<'_>([])];
        fence.objects.push(Arc::new(policy_object(id, "ALLOW", ("fence", ""), &selector, &everything)));
    }
    let what = if is_fenced {
        ": whatever passes there passes here"
    } else {
        ", and nothing is enforced here: everything passes"
    };
    fence.notes.extend(others.iter().map(|by| {
        let text = format!("its pods have the labels of {by} as well{what}");
        Note::new(NoteKind::Selection, None, text)
    }));
    fence.notes.sort();
    fence.notes.dedup();
    fence
}

// === impl World ===

impl World {
    fn new(compiled: &Compiled, options: &FenceOptions, surroundings: &Surroundings) -> Self {
        let FenceOptions { istio, claims, interlock_secrets: _ } = *options;
        let Surroundings { normalization, aliases, declared_ports: _ } = *surroundings;
        Self {
            istio,
            claims,
            normalization,
            aliases,
            trust_domain: compiled.mesh.trust_domain.clone(),
            root_namespace: compiled.mesh.root_namespace.clone(),
            issuers: if claims { compiled.issuers.clone() } else { Vec::new() },
        }
    }
}
