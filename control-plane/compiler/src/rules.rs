//! `Guard`s and `AccessRule`s, checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_engine::model::{Audit, Disclosure, Effect, Lease, Mode, OnExpiry, OperationModel};

use crate::audit;
use crate::callers::{Entry, Who, check_from};
use crate::context::Context;
use crate::diagnostic::Code;
use crate::entries::Entries;
use crate::issuers::{check_audience, check_audiences};
use crate::mesh::{Reach, WorkloadId, check_selector, is_system_namespace};
use crate::objects::Object;
use crate::operation::{self, check_ports, names_exact_operations};
use crate::place::{Findings, Place, Source};
use crate::revocation::is_revocation;
use crate::rollout::{self, Rollout};
use crate::schedule::{self, Ending};
use crate::spec::{
    AccessRuleSpec, DisclosureSpec, EffectSpec, GuardSpec, ModeSpec, OnExpirySpec, OneOrMany, TargetSpec,
};
use crate::suggest;
use crate::text::{check_duration, check_text};
use crate::when::{Cost, Tree};

/// The longest that a stream may outlive a token that it was let in with, in seconds. Whoever wants more, and says so,
/// writes `onExpiry: keep`.
const MAX_GRACE_S: u32 = 3600;

/// A checked Guard.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) source: Arc<Source>,
    /// `namespace/name`.
    pub(crate) name: Arc<str>,
    pub(crate) mode: Mode,
    pub(crate) ports: Option<Vec<u16>>,
    /// Ports that speak no HTTP and pass unguarded.
    pub(crate) tcp_ports: Vec<u16>,
    pub(crate) audiences: Option<Vec<String>>,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) reach: Reach,
}

/// A checked AccessRule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) source: Arc<Source>,
    /// `namespace/name`.
    pub(crate) name: Arc<str>,
    pub(crate) effect: Effect,
    pub(crate) mode: Mode,
    pub(crate) owner: String,
    pub(crate) contact: String,
    pub(crate) disclosure: Disclosure,
    pub(crate) audit: Audit,
    pub(crate) lease: Lease,
    /// Nothing suspends it.
    pub(crate) revokes: bool,
    pub(crate) from: Entries,
    pub(crate) to: Option<Vec<OperationModel>>,
    pub(crate) reach: Reach,
}

// === impl Guard ===

impl Guard {
    /// Whether this is the same but for its place.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self { source: _, name, mode, ports, tcp_ports, audiences, rollout, reach } = self;
        *name == other.name
            && *mode == other.mode
            && *ports == other.ports
            && *tcp_ports == other.tcp_ports
            && *audiences == other.audiences
            && *rollout == other.rollout
            && *reach == other.reach
    }
}

// === impl Rule ===

impl Rule {
    /// Whether this is the same but for its place.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self {
            source: _,
            name,
            effect,
            mode,
            owner,
            contact,
            disclosure,
            audit,
            lease,
            revokes,
            from,
            to,
            reach,
        } = self;
        *name == other.name
            && *effect == other.effect
            && *mode == other.mode
            && *owner == other.owner
            && *contact == other.contact
            && *disclosure == other.disclosure
            && *audit == other.audit
            && *lease == other.lease
            && *revokes == other.revokes
            && *from == other.from
            && *to == other.to
            && *reach == other.reach
    }
}

/// Checks a Guard. `None` if anything is wrong with it.
pub(crate) fn check_guard(
    object: &Object<GuardSpec>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Guard> {
    let before = findings.errors();
    let root = object.source.place();
    let place = root.key("spec");
    let spec = &object.spec;
    let audiences = spec.audience.as_ref().map(|audience| {
        let place = place.key("audience");
        match audience {
            OneOrMany::One(one) => {
                check_text(&place, one, findings);
                check_audience(&place, one, findings);
                vec![one.clone()]
            }
            OneOrMany::Many(many) => check_audiences(&place, many, findings),
        }
    });
    if let Some(selector) = &spec.selector {
        check_selector(&place.key("selector"), selector, findings);
    }
    let ports = check_ports(&place.key("ports"), spec.ports.as_deref(), findings);
    let tcp_ports =
        check_ports(&place.key("tcpPorts"), spec.tcp_ports.as_deref(), findings).unwrap_or_default();
    let rollout = spec.rollout.as_ref();
    let rollout = rollout.and_then(|spec| rollout::check(&place.key("rollout"), spec, findings));
    refuse_both(&place, ports.as_deref().unwrap_or_default(), &tcp_ports, findings);
    if refuse_system_namespace(&object.source, context, findings) {
        return None;
    }
    let reach = context.reach(object.source.namespace(), spec.selector.as_ref());
    warn_if_empty(&object.source, reach.as_ref(), findings);
    let reach = reach?;
    (findings.errors() == before).then(|| Guard {
        source: Arc::clone(&object.source),
        name: object.source.id.qualified_name().into(),
        mode: spec.mode.into(),
        ports,
        tcp_ports,
        audiences,
        rollout,
        reach,
    })
}

/// A port cannot be guarded and pass unguarded.
fn refuse_both(place: &Place<'_>, ports: &[u16], tcp_ports: &[u16], findings: &mut Findings) {
    for port in tcp_ports.iter().filter(|port| ports.contains(port)) {
        findings.add(
            &place.key("tcpPorts"),
            Code::MalformedValue,
            format!("{port} is in `ports` as well"),
            "requests are decided where a port speaks HTTP; what passes a TCP port is never looked at",
            "keep the port in one of the two",
        );
    }
}

/// Checks an AccessRule. `None` if anything is wrong with it. Its end is noted in any case.
pub(crate) fn check_rule(
    object: &Object<AccessRuleSpec>,
    context: &Context<'_>,
    endings: &mut Vec<Ending>,
    findings: &mut Findings,
) -> Option<Rule> {
    let before = findings.errors();
    let root = object.source.place();
    let place = root.key("spec");
    let spec = &object.spec;
    let effect = match spec.effect {
        EffectSpec::Allow => Effect::Allow,
        EffectSpec::Deny => Effect::Deny,
    };
    check_text(&place.key("owner"), &spec.owner, findings);
    if let Some(contact) = &spec.contact {
        check_text(&place.key("contact"), contact, findings);
    }
    let lease = check_lease(&place, spec, effect, findings);
    let (when, end) = schedule::check(&place, spec, findings);
    endings.extend(end.map(|at| Ending::new(at, Arc::clone(&object.source))));
    let from =
        check_from(&place.key("from"), &spec.from, effect, object.source.namespace(), context, findings);
    let to = spec.to.as_ref().map(|to| operation::check(&place.key("to"), to, effect, findings));
    if let Some(from) = &from {
        limit_cost(&place, from, findings);
    }
    if let Some(from) = &from
        && !matches!(to, Some(None))
    {
        limit_anyone(&place, from, effect, to.as_ref().and_then(Option::as_deref), findings);
    }
    if refuse_system_namespace(&object.source, context, findings) {
        return None;
    }
    let reach = reach(&place.key("target"), &object.source, spec.target.as_ref(), context, findings);
    if let Some(reach) = &reach {
        demand_plaintext(&place, spec, reach, context, findings);
    }
    let to = match to {
        None => None,
        Some(Some(to)) => Some(to),
        Some(None) => return None,
    };
    let (from, reach) = (from?, reach?);
    if findings.errors() != before {
        return None;
    }
    let from = Entries::new(effect, &when, from, &context.cache.names)
        .map_err(|why| {
            findings.add(
                &place.key("from"),
                Code::ConditionTooCostly,
                why,
                "a request that meets the rule evaluates all of it at worst",
                "write several rules, or shorter conditions",
            );
        })
        .ok()?;
    Some(Rule {
        source: Arc::clone(&object.source),
        name: object.source.id.qualified_name().into(),
        effect,
        mode: spec.mode.into(),
        owner: spec.owner.clone(),
        contact: spec.contact.clone().unwrap_or_default(),
        disclosure: spec.disclosure.map_or(Disclosure::Full, Disclosure::from),
        audit: audit::of(spec),
        lease,
        revokes: is_revocation(object.source.file()),
        from,
        to,
        reach,
    })
}

/// Most conditions of a rule.
const MAX_NODES: usize = 512;

/// Most transitions of a rule's automata: 32 KiB.
const MAX_TRANSITIONS: usize = 16_384;

/// A request that meets a rule evaluates all of its conditions at worst.
fn limit_cost(place: &Place<'_>, from: &[Entry], findings: &mut Findings) {
    let cost = from.iter().flat_map(|entry| &entry.when).map(Tree::cost).fold(Cost::default(), |a, b| a + b);
    for (what, is, most) in [
        ("conditions", cost.nodes, MAX_NODES),
        ("transitions in the automata of its regular expressions", cost.transitions, MAX_TRANSITIONS),
    ] {
        if is > most {
            findings.add(
                &place.key("from"),
                Code::ConditionTooCostly,
                format!("the rule has {is} {what}"),
                format!(
                    "a request that meets the rule evaluates all of them at worst, and {most} are the most"
                ),
                "write several rules, or shorter conditions",
            );
        }
    }
}

/// "Resources compile only for places where plaintext HTTP to that service exists": gateways, which originate TLS.
fn demand_plaintext(
    place: &Place<'_>,
    spec: &AccessRuleSpec,
    reach: &BTreeSet<WorkloadId>,
    context: &Context<'_>,
    findings: &mut Findings,
) {
    let Some(mesh) = context.mesh else { return };
    let others: Vec<String> = reach
        .iter()
        .filter(|id| mesh.workloads.get(id).is_some_and(|workload| !workload.gateway))
        .map(WorkloadId::to_string)
        .collect();
    if others.is_empty() {
        return;
    }
    for (at, to) in spec.to.iter().flatten().enumerate() {
        let field = match (&to.resources, &to.launch) {
            (Some(_), _) => "resources",
            (None, Some(_)) => "launch",
            (None, None) => continue,
        };
        findings.add(
            &place.key("to").index(at).key(field),
            Code::NoPlaintext,
            format!("{} would have to enforce it", suggest::some_of(&others)),
            "only a gateway that originates TLS sees requests to such services in plain text; in a sidecar the rule would \
             never match",
            "write the egress gateway, e.g. `target: {gateway: egress/external}`",
        );
    }
}

/// What becomes of streams that the rule lets in, once a token of theirs has expired.
fn check_lease(place: &Place<'_>, spec: &AccessRuleSpec, effect: Effect, findings: &mut Findings) -> Lease {
    let AccessRuleSpec { on_expiry, expiry_grace, .. } = spec;
    let grace_s = expiry_grace.as_deref().and_then(|text| {
        let why = "the token that lets the stream in is not good any more";
        check_duration(&place.key("expiryGrace"), text, MAX_GRACE_S, why, findings)
    });
    for (field, written) in [("onExpiry", on_expiry.is_some()), ("expiryGrace", expiry_grace.is_some())] {
        if written && effect == Effect::Deny {
            findings.add(
                &place.key(field),
                Code::MalformedValue,
                format!("`{field}` says nothing in a Deny"),
                "a Deny lets no stream in that could go on",
                "remove it, or write it in the Allow",
            );
        }
    }
    if *on_expiry == Some(OnExpirySpec::Keep) && expiry_grace.is_some() {
        findings.add(
            &place.key("expiryGrace"),
            Code::MalformedValue,
            "`expiryGrace` says nothing where streams are kept",
            "with `onExpiry: keep` they go on for as long as they last",
            "remove one of the two",
        );
    }
    Lease {
        on_expiry: match on_expiry {
            None | Some(OnExpirySpec::Reset) => OnExpiry::Reset,
            Some(OnExpirySpec::Keep) => OnExpiry::Keep,
        },
        grace_s: grace_s.unwrap_or(0),
    }
}

/// "`anyone: true` (health checks, scrapes, CORS preflight) needs exact methods and paths." A Deny may say more.
fn limit_anyone(
    place: &Place<'_>,
    from: &[Entry],
    effect: Effect,
    to: Option<&[OperationModel]>,
    findings: &mut Findings,
) {
    if from.iter().any(|entry| matches!(entry.who, Who::Anyone)) && !names_exact_operations(effect, to) {
        findings.add(
            &place.key("to"),
            Code::AnyoneTooWide,
            "`anyone` is allowed more than exact methods and paths",
            "nothing is known of such callers, so what they may do is written out",
            "write `methods` and `paths` in every entry of `to`, without `{…}` and `*`",
        );
    }
}

/// Whether the object may act at all.
fn refuse_system_namespace(source: &Source, context: &Context<'_>, findings: &mut Findings) -> bool {
    let namespace = source.namespace();
    let Some(mesh) = context.mesh else { return false };
    let refused = is_system_namespace(namespace) && namespace != mesh.root_namespace;
    if refused {
        findings.add(
            &source.place().key("metadata").key("namespace"),
            Code::SystemNamespace,
            format!("`{namespace}` is a system namespace"),
            "the mesh's own machinery is never guarded by rules that it must first deliver",
            "move the object to the namespace of the workloads, or to the root namespace",
        );
    }
    refused
}

/// The workloads that a rule targets. `None` if the target is wrong.
fn reach(
    place: &Place<'_>,
    source: &Source,
    target: Option<&TargetSpec>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Reach> {
    let namespace = source.namespace();
    let reach = match target {
        None => context.reach(namespace, None),
        Some(TargetSpec { selector: Some(selector), gateway: None }) => {
            check_selector(&place.key("selector"), selector, findings);
            context.reach(namespace, Some(selector))
        }
        Some(TargetSpec { selector: None, gateway: Some(text) }) => {
            let place = place.key("gateway");
            let (id, _) = context.gateway(&place, text, findings)?;
            let root = context.mesh.is_some_and(|mesh| mesh.root_namespace == namespace);
            if id.namespace != namespace && !root {
                findings.add(
                    &place,
                    Code::OutOfScope,
                    format!("`{text}` is in another namespace than the rule"),
                    "a rule acts in its own namespace; only rules of the root namespace act elsewhere",
                    format!("move the rule to the namespace `{}`", id.namespace),
                );
                return None;
            }
            if is_system_namespace(&id.namespace) {
                findings.add(
                    &place,
                    Code::SystemNamespace,
                    format!("`{text}` is in a system namespace"),
                    "workloads of system namespaces are never targets",
                    "run the gateway in a namespace of its own",
                );
                return None;
            }
            Some(Arc::new(BTreeSet::from([id.clone()])))
        }
        Some(TargetSpec { .. }) => {
            findings.add(
                place,
                Code::NotExactlyOne,
                "a target is either a selector or a gateway",
                "an empty target is neither \"all\" nor \"none\"",
                "write `selector` or `gateway`; for all workloads of the namespace, remove `target`",
            );
            None
        }
    };
    warn_if_empty(source, reach.as_ref(), findings);
    reach
}

fn warn_if_empty(source: &Source, reach: Option<&Reach>, findings: &mut Findings) {
    if reach.is_some_and(|reach| reach.is_empty()) {
        findings.add(
            &source.place(),
            Code::TargetsNothing,
            "no workload is targeted",
            "no declared workload is in its scope and has the labels that it selects",
            "check namespace and labels, or declare the workload",
        );
    }
}

// === impl From for the engine's types ===

impl From<ModeSpec> for Mode {
    fn from(spec: ModeSpec) -> Self {
        match spec {
            ModeSpec::Enforce => Self::Enforce,
            ModeSpec::Shadow => Self::Shadow,
        }
    }
}

impl From<DisclosureSpec> for Disclosure {
    fn from(spec: DisclosureSpec) -> Self {
        match spec {
            DisclosureSpec::Full => Self::Full,
            DisclosureSpec::Code => Self::Code,
            DisclosureSpec::Opaque => Self::Opaque,
        }
    }
}
