//! The Fence: what Istio itself enforces while the filter is missing or broken, from the same rules.
//!
//! For every guarded workload an ALLOW policy that contains whatever the filter may allow, as tight as Istio can say it in
//! [`MAX_BRANCHES`] branches, and a DENY policy of those Denies that Istio says exactly or narrower.
//!
//! INVARIANT: containment. No request that the filter allows is refused by the Fence. Where it is not sure how Istio reads
//! something, an ALLOW says more and a DENY says less, and a [`Note`] says why.
//!
//! INVARIANT: nothing is emitted that Istio would widen or skip without a word. Every branch of an ALLOW has a field that only
//! HTTP has, so that no connection passes a guarded port without being read as HTTP; every DENY has its ports. Rules and
//! Guards in Shadow mode never enter.
//!
//! INVARIANT: the same input gives the same bytes, for every version of Istio that [`IstioVersion`] names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tidegate_engine::model::{Audit, Effect, Mode};

use crate::Compiled;
use crate::mesh::WorkloadId;
use crate::plan::WorkloadPolicy;

mod again;
mod allow;
mod branch;
mod claims;
mod deny;
mod note;
mod object;
mod paths;
mod select;
mod transition;
mod version;
mod words;

pub use again::Fencer;
pub use branch::{MAX_BRANCHES, MAX_VALUES};
pub use note::{Note, NoteKind};
pub use object::{IstioObject, MANAGED_BY, MANAGER, PART, SECURITY_API, WORKLOAD, label, object_name};
pub use select::OF_PODS;
pub use transition::{Step, transition};
pub use version::{IstioVersion, UnknownIstio};

use again::{Basis, World};
use allow::{Allowed, Around, Enforced};

/// The header that only the filter sets, after it has removed whatever was sent under its name.
pub const INTERLOCK_HEADER: &str = "x-tidegate-interlock";

/// What a Fence is made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FenceOptions {
    /// The version of the mesh.
    pub istio: IstioVersion,
    /// Whether Istio verifies tokens as well, by a RequestAuthentication of ours, where that takes nothing away.
    pub claims: bool,
    /// A random value for each workload whose filter has been told it; visible ASCII without `*` at either end.
    pub interlock_secrets: BTreeMap<WorkloadId, String>,
}

/// What is known of the mesh besides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// What the mesh does to paths before anybody looks at them.
    pub normalization: Normalization,
    /// Whether the mesh takes peers of other trust domains for its own.
    pub aliases: Aliases,
    /// What Services say of workloads' ports, where that is known.
    pub declared_ports: BTreeMap<WorkloadId, BTreeMap<u16, PortProtocol>>,
}

/// `meshConfig.pathNormalization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalization {
    /// `BASE`, which is Istio's default, or one of the stronger ones.
    #[default]
    Base,
    /// `NONE`: every character may arrive encoded, and the Fence is wider for it.
    Off,
}

/// `meshConfig.trustDomainAliases`: Istio expands the name of a peer by them, so that its policies let pass whom rules do not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aliases {
    /// There may be some: a workload whose rules name peers needs the filter.
    #[default]
    Unknown,
    /// There are none.
    Absent,
}

/// As what a Service declares a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortProtocol {
    /// HTTP, HTTP/2 or gRPC.
    Http,
    /// Something else, TLS included.
    Tcp,
    /// Nothing: Istio looks at the first bytes.
    Undeclared,
}

/// The Fence of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fence {
    /// Every workload of the mesh.
    pub workloads: BTreeMap<WorkloadId, Arc<WorkloadFence>>,
}

/// The Fence of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkloadFence {
    /// In the order in which they are applied. Empty: Istio refuses nothing.
    pub objects: Vec<Arc<IstioObject>>,
    /// Where and why it is wider than the rules; sorted.
    pub notes: Vec<Note>,
    /// Whether rules say more than the Fence, or something is to be reported.
    pub needs_filter: bool,
    /// What the filter has to set; `None`: nothing.
    pub interlock: Option<Interlock>,
}

/// A header that the Fence demands and only the filter sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interlock {
    /// [`INTERLOCK_HEADER`].
    pub header: &'static str,
    /// The workload's value.
    pub value: String,
}

/// Makes the Fence for a mesh that normalises paths as Istio does by default.
pub fn fence(compiled: &Compiled, options: &FenceOptions) -> Fence {
    fence_in(compiled, options, &Surroundings::default())
}

/// The same for a mesh of which more is known.
pub fn fence_in(compiled: &Compiled, options: &FenceOptions, surroundings: &Surroundings) -> Fence {
    Fencer::new().fence_in(compiled, options, surroundings)
}

/// What a workload's policies are by its own rules. INVARIANT: by nothing but what is in `world` and `basis`.
fn of_workload(world: &World, id: &WorkloadId, basis: &Basis) -> WorkloadFence {
    let Basis { policy, workload, alone, secret, ports } = basis;
    let mut notes = BTreeSet::new();
    let enforced = enforced(policy);
    let shadow = policy.model.rules.iter().any(|rule| rule.mode == Mode::Shadow)
        || policy.model.guards.iter().any(|guard| guard.mode == Mode::Shadow);
    if enforced == Enforced::Nowhere {
        let text = if policy.covered { "only Guards in Shadow mode cover it" } else { "no Guard covers it" };
        notes.insert(Note::new(NoteKind::Unguarded, None, format!("{text}: Istio refuses nothing")));
        return WorkloadFence {
            notes: notes.into_iter().collect(),
            needs_filter: policy.covered,
            ..WorkloadFence::default()
        };
    }
    let selector = match select::selector(&world.root_namespace, id, workload) {
        Ok(selector) => selector,
        Err(why) => {
            notes.insert(Note::new(NoteKind::Selection, None, why.why()));
            return WorkloadFence {
                notes: notes.into_iter().collect(),
                needs_filter: true,
                ..WorkloadFence::default()
            };
        }
    };
    port_notes(ports.as_ref(), &enforced, policy, &mut notes);
    let secret = secret.as_deref().and_then(|secret| usable(secret, &mut notes));
    let claims = if world.claims {
        claims::claims(&world.issuers, policy, &enforced, *alone, &mut notes)
    } else {
        None
    };
    let (denied, whole) = if *alone {
        deny::deny(policy, &enforced, &world.trust_domain, &mut notes)
    } else {
        let denies = policy.model.rules.iter().any(|rule| rule.effect == Effect::Deny);
        if denies {
            let text =
                "Denies are enforced by the filter only: other workloads' pods have its labels as well";
            notes.insert(Note::new(NoteKind::Deny, None, text));
        }
        (Vec::new(), !denies)
    };
    let around = Around {
        policy,
        enforced: &enforced,
        normalization: world.normalization,
        trust_domain: &world.trust_domain,
        gateway: select::is_gateway(workload),
        secret,
        claims: claims.as_ref(),
        undenied: whole && denied.is_empty(),
    };
    let Allowed { rules, exact, interlock } = allow::allow(&around, &mut notes);
    // Nobody else would record it.
    let recorded = policy.model.rules.iter().any(|rule| rule.audit != Audit::Sampled);
    let exact = exact && around.undenied && !shadow && !recorded;
    let aliases = world.aliases == Aliases::Unknown && allow::names_peers(policy);
    if exact && aliases {
        let text = "Istio says exactly what the rules say if the mesh has no `trustDomainAliases`, whose peers it takes for its own; \
                    that is not known, and so the filter is needed";
        notes.insert(Note::new(NoteKind::Assumption, None, text));
    } else if exact {
        let text = "Istio says exactly what the rules say, and the filter is not needed; without it, what is sent twice or in several \
                    spellings is judged as the application reads it, and nothing is recorded";
        notes.insert(Note::new(NoteKind::Assumption, None, text));
    }
    let exact = exact && !aliases;
    let mut objects = Vec::new();
    // Before the ALLOW, whose conditions rest on it.
    objects.extend(claims.map(|claims| claims.object(id, &selector)));
    objects.push(policy_object(id, "ALLOW", ("fence", ""), &selector, &rules));
    if !denied.is_empty() {
        objects.push(policy_object(id, "DENY", ("fence", "-deny"), &selector, &denied));
    }
    let interlock = secret
        .filter(|_| interlock)
        .map(|secret| Interlock { header: INTERLOCK_HEADER, value: secret.to_owned() });
    WorkloadFence {
        objects: objects.into_iter().map(Arc::new).collect(),
        notes: notes.into_iter().collect(),
        needs_filter: !exact,
        interlock,
    }
}

/// A policy without rules matches nothing: as an ALLOW it refuses everything.
fn policy_object(
    id: &WorkloadId,
    action: &str,
    named: (&str, &str),
    selector: &select::Selector,
    rules: &[Value],
) -> IstioObject {
    let mut members = vec![("action", Value::from(action))];
    if !rules.is_empty() {
        members.push(("rules", Value::Array(rules.to_vec())));
    }
    members.push((selector.field, selector.value.clone()));
    IstioObject::new(SECURITY_API, "AuthorizationPolicy", id, named, object::object(members))
}

fn enforced(policy: &WorkloadPolicy) -> Enforced {
    let mut ports = BTreeSet::new();
    for guard in policy.model.guards.iter().filter(|guard| guard.mode == Mode::Enforce) {
        match &guard.ports {
            None => return Enforced::Everywhere,
            Some(more) => ports.extend(more.iter().copied()),
        }
    }
    if ports.is_empty() { Enforced::Nowhere } else { Enforced::At(ports) }
}

fn usable<'s>(secret: &'s str, notes: &mut BTreeSet<Note>) -> Option<&'s str> {
    if words::exact(secret).is_some() && !secret.contains(' ') {
        return Some(secret);
    }
    let text = "the value of its interlock is empty, or has characters that Istio does not compare as they are: it is not used";
    notes.insert(Note::new(NoteKind::Open, None, text));
    None
}

/// "A guarded port that is not declared HTTP or gRPC is a diagnostic."
fn port_notes(
    declared: Option<&BTreeMap<u16, PortProtocol>>,
    enforced: &Enforced,
    policy: &WorkloadPolicy,
    notes: &mut BTreeSet<Note>,
) {
    let Some(declared) = declared else { return };
    let mut note = |text: String| notes.insert(Note::new(NoteKind::Port, None, text));
    for (port, protocol) in declared {
        let guarded = match enforced {
            Enforced::Nowhere => false,
            Enforced::Everywhere => !policy.tcp_ports.contains(port),
            Enforced::At(ports) => ports.contains(port) && !policy.tcp_ports.contains(port),
        };
        if !guarded {
            continue;
        }
        let fix = "declare it (`appProtocol: http` or `grpc`), or list it in the Guard's `tcpPorts`";
        match protocol {
            PortProtocol::Http => {}
            PortProtocol::Tcp => {
                note(format!(
                    "port {port} is guarded and declared as TCP: every connection is refused; {fix}"
                ));
            }
            PortProtocol::Undeclared => {
                note(format!(
                    "port {port} is guarded and not declared: what does not look like HTTP is refused; {fix}"
                ));
            }
        }
    }
    if let Enforced::At(ports) = enforced {
        for port in ports.iter().filter(|port| !declared.contains_key(port)) {
            note(format!("port {port} is guarded, and no Service declares it"));
        }
    }
}
