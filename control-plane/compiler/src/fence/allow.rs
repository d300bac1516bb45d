//! What may pass: the ALLOW policy of a workload.
//!
//! INVARIANT: whatever the engine allows at a port that a Guard enforces matches a branch; what it lets pass because no Guard
//! enforces anything there matches a branch of its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_engine::model::{
    Condition, Effect, FromModel, Mode, OperationModel, PathPattern, PeerModel, RuleModel,
};

use super::branch::{Branch, Values, When, Widened, fit};
use super::claims::Claims;
use super::note::{Note, NoteKind};
use super::object::{object, strings};
use super::words::{self, exact};
use super::{INTERLOCK_HEADER, Normalization, paths};
use crate::plan::WorkloadPolicy;

/// Headers that some servers take for the method, host or path: the engine allows nothing that has one.
const OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Ports at which a Guard enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Enforced {
    Nowhere,
    Everywhere,
    At(BTreeSet<u16>),
}

/// The rules of an ALLOW policy.
pub(super) struct Allowed {
    pub rules: Vec<Value>,
    /// What Istio says is what the rules say.
    pub exact: bool,
    /// Some branch demands the interlock.
    pub interlock: bool,
}

/// What is known beside the rules.
pub(super) struct Around<'a> {
    pub policy: &'a WorkloadPolicy,
    pub enforced: &'a Enforced,
    pub normalization: Normalization,
    /// The mesh's own.
    pub trust_domain: &'a str,
    /// Its listeners may accept certificates of other authorities.
    pub gateway: bool,
    pub secret: Option<&'a str>,
    pub claims: Option<&'a Claims>,
    /// Nothing that is denied is left to the filter, or said by another policy.
    pub undenied: bool,
}

/// What may pass, and what there is to say about it.
pub(super) fn allow(around: &Around<'_>, notes: &mut BTreeSet<Note>) -> Allowed {
    let mut exact = true;
    let mut branches = Vec::new();
    let rules = around.policy.model.rules.iter();
    for rule in rules.filter(|rule| rule.effect == Effect::Allow && rule.mode == Mode::Enforce) {
        let operations = operations(rule, around, &mut exact, notes);
        if operations.is_empty() {
            continue;
        }
        for from in &rule.from {
            let start = caller(rule, from, around, &mut exact, notes);
            branches.extend(operations.iter().map(|operation| {
                let mut branch = Branch {
                    interlock: start.interlock,
                    principals: start.principals.clone(),
                    ..operation.clone()
                };
                for (key, when) in &start.when {
                    // A second condition on the same attribute would be lost in the map; one of the two is enough.
                    branch.when.entry(key.clone()).or_insert_with(|| when.clone());
                }
                if !(may_preflight(&branch.methods)) {
                    branch.when.extend(start.claims.clone());
                }
                branch
            }));
        }
    }
    // Where a connection has no port, as inside a waypoint, the filter refuses what `notPorts` lets pass.
    if around.gateway && matches!(around.enforced, Enforced::At(_)) {
        exact = false;
        let text = "a gateway's Guard names ports, and of a connection inside the proxy Istio knows none: the filter refuses it";
        notes.insert(Note::new(NoteKind::Wider, None, text));
    }
    let (branches, widened) = fit(branches);
    for widened in &widened {
        exact = false;
        notes.insert(Note::new(NoteKind::Wider, None, why(*widened)));
    }
    let interlock = branches.iter().any(|branch| branch.interlock);
    let overrides = exact && around.undenied && !branches.is_empty();
    let mut rules = emitted(&branches, around.secret, overrides);
    rules.extend(unguarded(around, notes));
    Allowed { rules, exact, interlock }
}

/// Whether an Allow that is enforced depends on which peer calls.
pub(super) fn names_peers(policy: &WorkloadPolicy) -> bool {
    policy
        .model
        .rules
        .iter()
        .filter(|rule| rule.effect == Effect::Allow && rule.mode == Mode::Enforce)
        .flat_map(|rule| &rule.from)
        .any(|from| matches!(from.peer, PeerModel::Mesh { .. } | PeerModel::AnyMesh { .. }))
}

fn why(widened: Widened) -> &'static str {
    match widened {
        Widened::Conditions => {
            "more than 32 branches: conditions on headers and claims are left to the filter"
        }
        Widened::Operations => {
            "more than 32 branches: of each caller's operations, every method goes with every host, path and port"
        }
        Widened::Callers => "more than 32 branches: callers share what any of them may do",
        Widened::Values => "more than 256 values in a list: what they have in common is said instead",
    }
}

/// What an entry says of the caller.
struct Caller {
    interlock: bool,
    principals: Values,
    when: BTreeMap<String, When>,
    claims: BTreeMap<String, When>,
}

fn caller(
    rule: &RuleModel,
    from: &FromModel,
    around: &Around<'_>,
    exact: &mut bool,
    notes: &mut BTreeSet<Note>,
) -> Caller {
    let mut note = |kind, text: &str| {
        notes.insert(Note::new(kind, Some(&rule.id), text));
    };
    let principals = words::principals_containing(&from.peer, around.trust_domain);
    if matches!(from.peer, PeerModel::Mesh { .. } | PeerModel::AnyMesh { .. }) && around.gateway {
        *exact = false;
        note(
            NoteKind::Wider,
            "at a gateway a certificate of another authority may have a peer's name: the filter tells them apart",
        );
    }
    let mut said = Vec::new();
    let whole = words::headers(&from.condition, &mut said);
    let claims = around.claims.map(|claims| claims.of(from)).unwrap_or_default();
    if !from.issuers.is_empty() {
        *exact = false;
        note(
            NoteKind::Wider,
            if claims.is_empty() {
                "tokens are checked by the filter"
            } else {
                "what tokens say besides is checked by the filter"
            },
        );
    } else if !whole {
        *exact = false;
        note(NoteKind::Wider, "conditions are checked by the filter");
    }
    if from.condition != Condition::True {
        *exact = false;
    }
    match &from.peer {
        PeerModel::Mesh { trust_domain, .. } | PeerModel::AnyMesh { trust_domain }
            if trust_domain != around.trust_domain =>
        {
            *exact = false;
            if words::is_pointer(&from.peer, around.trust_domain) {
                note(
                    NoteKind::Wider,
                    "Istio takes accounts of `cluster.local` for the mesh's own: the whole namespace is named instead",
                );
            }
        }
        _ => {}
    }
    let interlock = from.peer == PeerModel::NoPeer && around.secret.is_some();
    if from.peer == PeerModel::NoPeer {
        *exact = false;
        if interlock {
            note(
                NoteKind::Assumption,
                "callers without a peer pass only with the interlock, which the filter sets and must have been told",
            );
        } else {
            note(
                NoteKind::Open,
                "callers are known by their tokens only: without the filter anybody passes; with an interlock nobody would",
            );
        }
    }
    let mut when = BTreeMap::new();
    for (key, one) in said {
        when.entry(key).or_insert(one);
    }
    Caller { interlock, principals: principals.map_or(Values::Any, Values::Of), when, claims }
}

/// "An `OPTIONS` with `Origin` and `Access-Control-Request-Method` skips verification": it has no claims for Istio.
fn may_preflight(methods: &Values) -> bool {
    match methods {
        Values::Any => true,
        Values::Of(methods) => methods.contains("OPTIONS"),
    }
}

/// A rule's operations, whoever calls.
fn operations(
    rule: &RuleModel,
    around: &Around<'_>,
    exact: &mut bool,
    notes: &mut BTreeSet<Note>,
) -> Vec<Branch> {
    let any = [OperationModel::default()];
    let operations = rule.to.as_deref().unwrap_or(&any);
    operations.iter().filter_map(|operation| one_operation(rule, operation, around, exact, notes)).collect()
}

fn one_operation(
    rule: &RuleModel,
    operation: &OperationModel,
    around: &Around<'_>,
    is_exact: &mut bool,
    notes: &mut BTreeSet<Note>,
) -> Option<Branch> {
    let mut note = |text: &str| {
        notes.insert(Note::new(NoteKind::Wider, Some(&rule.id), text));
    };
    let ports = match (&operation.ports, around.enforced) {
        (_, Enforced::Nowhere) => return None,
        (None, Enforced::Everywhere) => Values::Any,
        (Some(ports), Enforced::Everywhere) => listed(ports),
        (None, Enforced::At(guarded)) => listed(guarded),
        (Some(ports), Enforced::At(guarded)) => {
            let both: BTreeSet<&u16> = ports.iter().filter(|port| guarded.contains(port)).collect();
            if both.is_empty() {
                return None;
            }
            listed(both)
        }
    };
    let methods = match &operation.methods {
        None => Values::Any,
        Some(methods) => match methods.iter().map(|method| exact(method)).collect::<Option<_>>() {
            Some(methods) => Values::Of(methods),
            None => {
                note("a method has a star, which Istio takes for a wildcard");
                Values::Any
            }
        },
    };
    let hosts = match &operation.hosts {
        None => Values::Any,
        Some(hosts) => {
            // `name:*` is any text after the colon.
            *is_exact = false;
            words::hosts_containing(hosts).map_or_else(
                || {
                    note("hosts that begin with any label are checked by the filter: Istio cannot say that a port may follow");
                    Values::Any
                },
                Values::Of,
            )
        }
    };
    let paths = path_values(operation.paths.as_deref(), around.normalization, &mut note);
    let mut said = Vec::new();
    if !words::headers(&operation.condition, &mut said) {
        note("conditions on the request are checked by the filter");
    }
    if operation.grpc {
        note("that it is gRPC is checked by the filter");
    }
    let literal = matches!(&paths, Values::Of(paths) if paths.iter().all(|path| !path.contains(['*', '{'])));
    if !literal || methods == Values::Any || operation.grpc || operation.condition != Condition::True {
        *is_exact = false;
    }
    let mut when = BTreeMap::new();
    for (key, one) in said {
        when.entry(key).or_insert(one);
    }
    Some(Branch { interlock: false, principals: Values::Any, hosts, methods, paths, ports, when })
}

fn path_values(
    patterns: Option<&[PathPattern]>,
    normalization: Normalization,
    note: &mut impl FnMut(&str),
) -> Values {
    let Some(patterns) = patterns else { return Values::Any };
    let mut all = BTreeSet::new();
    for pattern in patterns {
        let Some(said) = paths::containing(pattern, normalization) else { return Values::Any };
        if let Some(why) = said.wider {
            note(&format!("paths: {why}"));
        }
        all.extend(said.values);
    }
    Values::Of(all)
}

fn listed<'p>(ports: impl IntoIterator<Item = &'p u16>) -> Values {
    Values::Of(ports.into_iter().map(u16::to_string).collect())
}

/// Branches with the same callers and conditions are one rule, with an operation each.
fn emitted(branches: &[Branch], secret: Option<&str>, overrides: bool) -> Vec<Value> {
    type Key<'b> = (bool, &'b Values, &'b BTreeMap<String, When>);
    let mut rules: BTreeMap<Key<'_>, Vec<Value>> = BTreeMap::new();
    for branch in branches {
        let key = (branch.interlock, &branch.principals, &branch.when);
        rules.entry(key).or_default().push(operation(branch));
    }
    rules
        .into_iter()
        .map(|((interlock, principals, when), operations)| {
            let mut members = Vec::new();
            if let Values::Of(principals) = principals {
                let source = object([("principals", strings(principals))]);
                members.push(("from", Value::Array(vec![object([("source", source)])])));
            }
            members.push(("to", Value::Array(operations)));
            let mut conditions: Vec<Value> = when.iter().map(|(key, when)| condition(key, when)).collect();
            if overrides {
                let none = When { values: BTreeSet::from(["*".to_owned()]), not: true };
                conditions.extend(
                    OVERRIDES.iter().map(|name| condition(&format!("request.headers[{name}]"), &none)),
                );
            }
            if let Some(secret) = secret.filter(|_| interlock) {
                let values = When { values: BTreeSet::from([secret.to_owned()]), not: false };
                conditions.push(condition(&format!("request.headers[{INTERLOCK_HEADER}]"), &values));
            }
            if !conditions.is_empty() {
                members.push(("when", Value::Array(conditions)));
            }
            object(members)
        })
        .collect()
}

fn condition(key: &str, when: &When) -> Value {
    // `key` is before `notValues`, and that is before `values`.
    object([
        ("key", Value::from(key)),
        (if when.not { "notValues" } else { "values" }, strings(&when.values)),
    ])
}

fn operation(branch: &Branch) -> Value {
    let mut members = Vec::new();
    let mut part = |name, values: &Values| {
        if let Values::Of(values) = values {
            members.push((name, strings(values)));
        }
    };
    part("hosts", &branch.hosts);
    // INVARIANT: every ALLOW has a field that only HTTP has, so that Istio drops the rule where it does not read HTTP.
    match &branch.methods {
        Values::Any => part("methods", &Values::one("*")),
        methods => part("methods", methods),
    }
    part("paths", &branch.paths);
    part("ports", &branch.ports);
    object([("operation", object(members))])
}

/// Ports that nothing guards, and those that speak no HTTP: whatever is sent there passes.
fn unguarded(around: &Around<'_>, notes: &mut BTreeSet<Note>) -> Vec<Value> {
    let mut rules = Vec::new();
    let mut rule = |field: &str, ports: &[&u16]| {
        let ports = Value::Array(ports.iter().map(|port| Value::from(port.to_string())).collect());
        let operation = object([("operation", object([(field, ports)]))]);
        rules.push(object([("to", Value::Array(vec![operation]))]));
    };
    if let Enforced::At(guarded) = around.enforced {
        let guarded: Vec<&u16> = guarded.iter().collect();
        rule("notPorts", &guarded);
        let shown: Vec<String> = guarded.iter().map(ToString::to_string).collect();
        let text = format!("every port but {} passes: no Guard is enforced there", shown.join(", "));
        notes.insert(Note::new(NoteKind::Unguarded, None, text));
    }
    let tcp: Vec<&u16> = around
        .policy
        .tcp_ports
        .iter()
        .filter(|port| match around.enforced {
            Enforced::Nowhere => false,
            Enforced::Everywhere => true,
            Enforced::At(guarded) => guarded.contains(port),
        })
        .collect();
    if !tcp.is_empty() {
        rule("ports", &tcp);
        let shown: Vec<String> = tcp.iter().map(ToString::to_string).collect();
        let text = format!("port {} passes as TCP, as `tcpPorts` of a Guard says", shown.join(", "));
        notes.insert(Note::new(NoteKind::Unguarded, None, text));
    }
    rules
}
