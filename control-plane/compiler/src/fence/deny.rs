//! What must not pass: the DENY policy of a workload.
//!
//! INVARIANT: at or below the rules. Whatever a DENY matches, the engine refuses; a Deny that Istio would only say wider is
//! left to the filter, and noted. Every DENY has its ports: without them it would be nothing but HTTP, which Istio drops where
//! it reads none, and what is left then is either wider (every port) or nothing at all (ztunnel, istio#61126).

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_engine::model::{Condition, Effect, FromModel, Mode, OperationModel, PeerModel, RuleModel};

use super::allow::Enforced;
use super::branch::MAX_BRANCHES;
use super::note::{Note, NoteKind};
use super::object::{object, strings};
use super::paths::{self, Within};
use super::words::{self, exact};
use crate::plan::WorkloadPolicy;

/// The rules of a DENY policy, and whether they are all that the rules say.
pub(super) fn deny(
    policy: &WorkloadPolicy,
    enforced: &Enforced,
    trust_domain: &str,
    notes: &mut BTreeSet<Note>,
) -> (Vec<Value>, bool) {
    let mut rules = BTreeSet::new();
    let mut whole = true;
    let aliases_harm = aliases_harm(policy, trust_domain);
    for rule in
        policy.model.rules.iter().filter(|rule| rule.effect == Effect::Deny && rule.mode == Mode::Enforce)
    {
        let mut lacks = |text: &str| {
            whole = false;
            notes.insert(Note::new(NoteKind::Deny, Some(&rule.id), text));
        };
        for from in &rule.from {
            let source = match source(from, trust_domain, aliases_harm) {
                Ok(source) => source,
                Err(why) => {
                    lacks(why);
                    continue;
                }
            };
            let any = [OperationModel::default()];
            for operation in rule.to.as_deref().unwrap_or(&any) {
                match said(operation, enforced, &mut lacks) {
                    Ok(None) => {}
                    Ok(Some(operation)) => {
                        let to = Value::Array(vec![object([("operation", operation)])]);
                        let from = source
                            .clone()
                            .map(|source| ("from", Value::Array(vec![object([("source", source)])])));
                        // Sorted by their bytes, whatever the order of rules.
                        let members = object(from.into_iter().chain([("to", to)]));
                        rules.insert((members.to_string(), Emitted(members)));
                    }
                    Err(why) => lacks(why),
                }
            }
        }
    }
    if rules.len() > MAX_BRANCHES {
        whole = false;
        let text =
            format!("{} branches: all but the first {MAX_BRANCHES} are left to the filter", rules.len());
        notes.insert(Note::new(NoteKind::Deny, None, text));
    }
    (rules.into_iter().take(MAX_BRANCHES).map(|(_, rule)| rule.0).collect(), whole)
}

/// A rule beside its bytes, which are compared before it.
#[derive(PartialEq, Eq)]
struct Emitted(Value);

impl PartialOrd for Emitted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Emitted {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// Istio takes the aliases of a trust domain, and `cluster.local`, for the mesh's own. Where an Allow names a peer of another
/// domain, a DENY of the mesh's could refuse it.
fn aliases_harm(policy: &WorkloadPolicy, own: &str) -> bool {
    let foreign = |rule: &RuleModel| {
        rule.from.iter().any(|from| match &from.peer {
            PeerModel::Mesh { trust_domain, .. } | PeerModel::AnyMesh { trust_domain } => trust_domain != own,
            PeerModel::NoPeer | PeerModel::Anyone => false,
        })
    };
    policy
        .model
        .rules
        .iter()
        .any(|rule| rule.effect == Effect::Allow && rule.mode == Mode::Enforce && foreign(rule))
}

/// Who is denied; `None`: everybody.
fn source(from: &FromModel, own: &str, aliases_harm: bool) -> Result<Option<Value>, &'static str> {
    if !from.issuers.is_empty() {
        return Err("it depends on tokens, and is enforced by the filter only");
    }
    if from.condition != Condition::True {
        return Err("it has conditions, and is enforced by the filter only");
    }
    match &from.peer {
        PeerModel::Anyone => Ok(None),
        // Nobody's certificate at all: a certificate of another authority is no peer either, and stays with the filter.
        PeerModel::NoPeer => Ok(Some(object([("notPrincipals", Value::Array(vec![Value::from("*")]))]))),
        PeerModel::Mesh { trust_domain, .. } | PeerModel::AnyMesh { trust_domain }
            if trust_domain != own || aliases_harm =>
        {
            Err(
                "peers of several trust domains, which Istio may take for one, are told apart by the filter only",
            )
        }
        peer @ (PeerModel::Mesh { .. } | PeerModel::AnyMesh { .. }) => match words::principals(peer) {
            Some(principals) => Ok(Some(object([("principals", strings(&principals))]))),
            None => Err("Istio has no word for the peer"),
        },
    }
}

/// What is denied; `Ok(None)`: it is never at a port that is guarded.
fn said(
    operation: &OperationModel,
    enforced: &Enforced,
    lacks: &mut impl FnMut(&str),
) -> Result<Option<Value>, &'static str> {
    if operation.condition != Condition::True {
        return Err("it has conditions, and is enforced by the filter only");
    }
    let ports: BTreeSet<u16> = match (&operation.ports, enforced) {
        (_, Enforced::Nowhere) => return Ok(None),
        (None, Enforced::Everywhere) => {
            return Err(
                "no ports are known, and a DENY of Istio without ports is not what it says: name `ports` in the Guard",
            );
        }
        (Some(ports), Enforced::Everywhere) => ports.iter().copied().collect(),
        (None, Enforced::At(guarded)) => guarded.clone(),
        (Some(ports), Enforced::At(guarded)) => {
            ports.iter().copied().filter(|port| guarded.contains(port)).collect()
        }
    };
    if ports.is_empty() {
        return Ok(None);
    }
    let mut members = Vec::new();
    if let Some(hosts) = &operation.hosts {
        members.push(("hosts", strings(&words::hosts_within(hosts))));
    }
    if let Some(methods) = &operation.methods {
        let methods = methods.iter().map(|method| exact(method)).collect::<Option<BTreeSet<_>>>();
        members.push((
            "methods",
            strings(&methods.ok_or("a method has a star, which Istio takes for a wildcard")?),
        ));
    }
    if let Some(patterns) = &operation.paths {
        let mut values = BTreeSet::new();
        let mut any = false;
        for pattern in patterns {
            match paths::within(pattern) {
                Within::Any => any = true,
                Within::Values(more) => values.extend(more),
                Within::Nothing => {
                    lacks("a path has a pattern that Istio lacks: it is enforced by the filter only")
                }
            }
        }
        if !any {
            if values.is_empty() {
                return Ok(None);
            }
            members.push(("paths", strings(&values)));
        }
    }
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    members.push(("ports", strings(&ports)));
    Ok(Some(object(members)))
}
