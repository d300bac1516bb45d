//! Tokens that Istio takes away, or refuses, before the filter sees them.
//!
//! A RequestAuthentication without `forwardOriginalToken: true` removes the tokens that it verifies; and of a header that one
//! reads, tokens of issuers that none names are refused (istio `pilot/pkg/security/authn/policy_applier.go`). All that apply to
//! a pod are one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_compiler::{Compiled, Kind, TrustedIssuer, Workload, WorkloadId, WorkloadPolicy};

use super::super::owned::{AUTHENTICATION, Key, Lives};
use super::{Condition, View, qualified, shortened, some_of};
use crate::rules::ObjectPath;

/// What is hidden of what the object needs.
pub(crate) type Hidden = BTreeMap<(Kind, String), Told>;

/// Each in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    stripped: BTreeSet<String>,
    refused: BTreeSet<String>,
}

/// A `jwtRules` entry.
struct Reading<'a> {
    of: &'a Key,
    is_ours: bool,
    issuer: &'a str,
    /// Lower case.
    headers: BTreeSet<String>,
    forwards: bool,
}

const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// What is hidden by which RequestAuthentication.
pub(crate) fn hidden(compiled: &Compiled, live: &Lives) -> Hidden {
    let all: Vec<(&Key, bool, &Value)> = live
        .iter()
        .filter(|(key, _)| key.kind == AUTHENTICATION)
        .map(|(key, live)| (key, live.is_ours(), &live.spec))
        .collect();
    let mut found = Hidden::new();
    if all.iter().all(|(_, is_ours, _)| *is_ours) {
        return found;
    }
    for (id, policy) in compiled.workloads.iter().filter(|(_, policy)| !policy.issuers.is_empty()) {
        let Some(workload) = compiled.mesh.workloads.get(id) else { continue };
        let root = compiled.mesh.root_namespace.as_str();
        let readings: Vec<Reading<'_>> = all
            .iter()
            .filter(|(key, _, spec)| applies(key, spec, (id, workload), root))
            .flat_map(|(key, is_ours, spec)| readings(key, *is_ours, spec))
            .collect();
        if readings.iter().all(|reading| reading.is_ours) {
            continue;
        }
        for issuer in compiled.issuers.iter().filter(|issuer| policy.issuers.contains(&issuer.name)) {
            let told = told(id, issuer, &readings);
            if told != Told::default() {
                for object in needing(policy, &issuer.name) {
                    let known: &mut Told = found.entry(object).or_default();
                    known.stripped.extend(told.stripped.iter().cloned());
                    known.refused.extend(told.refused.iter().cloned());
                }
            }
        }
    }
    found
}

/// What happens to the tokens of one issuer.
fn told(id: &WorkloadId, issuer: &TrustedIssuer, readings: &[Reading<'_>]) -> Told {
    let mut told = Told::default();
    for header in &issuer.headers {
        let readers: Vec<&Reading<'_>> =
            readings.iter().filter(|reading| reading.headers.contains(&header.name)).collect();
        let named = |reading: &&&Reading<'_>| issuer.issuers.iter().any(|name| name == reading.issuer);
        for reading in readers.iter().filter(named).filter(|reading| !reading.forwards) {
            told.stripped.insert(format!(
                "{id}: {} takes tokens of `{}` out of `{}`; add `forwardOriginalToken: true`",
                reading.of, issuer.name, header.name
            ));
        }
        if let Some(first) = readers.first().filter(|_| !readers.iter().any(|reading| named(&reading))) {
            told.refused.insert(format!(
                "{id}: {} reads `{}`, and none names the issuer of `{}`: its tokens are refused with 401; add it to `jwtRules`",
                first.of, header.name, issuer.name
            ));
        }
    }
    told
}

/// The Guards of a workload, and the rules that need tokens of this issuer.
fn needing<'p>(policy: &'p WorkloadPolicy, issuer: &'p str) -> impl Iterator<Item = (Kind, String)> + 'p {
    let model = &policy.model;
    let is_named =
        move |index: &u16| model.issuers.get(usize::from(*index)).is_some_and(|known| known.name == issuer);
    let guards = model.guards.iter().map(|guard| (Kind::Guard, guard.id.clone()));
    let rules = model
        .rules
        .iter()
        .filter(move |rule| rule.from.iter().any(|from| from.issuers.iter().any(is_named)))
        .map(|rule| (Kind::AccessRule, rule.id.clone()));
    guards.chain(rules)
}

/// Whether it acts on the workload's pods (istio `pilot/pkg/model/policyattachment.go`).
fn applies(key: &Key, spec: &Value, (id, workload): (&WorkloadId, &Workload), root: &str) -> bool {
    if key.namespace != id.namespace && key.namespace != root {
        return false;
    }
    let one = spec.get("targetRef").into_iter();
    let targets: Vec<&Value> =
        spec.get("targetRefs").and_then(Value::as_array).into_iter().flatten().chain(one).collect();
    if !targets.is_empty() {
        let name = workload.labels.get(GATEWAY_NAME);
        return targets.iter().any(|target| {
            let text = |field: &str| target.get(field).and_then(Value::as_str);
            text("kind") == Some("GatewayClass") && name.is_some()
                || (text("kind") == Some("Gateway") && text("name") == name.map(String::as_str))
        });
    }
    let labels = spec.pointer("/selector/matchLabels").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .all(|(label, value)| workload.labels.get(label).map(String::as_str) == value.as_str())
}

fn readings<'a>(key: &'a Key, is_ours: bool, spec: &'a Value) -> impl Iterator<Item = Reading<'a>> {
    let rules = spec.get("jwtRules").and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(move |rule| {
        let list = |field: &str| rule.get(field).and_then(Value::as_array).filter(|list| !list.is_empty());
        let named = list("fromHeaders").into_iter().flatten();
        let mut headers: BTreeSet<String> =
            named.filter_map(|header| Some(header.get("name")?.as_str()?.to_ascii_lowercase())).collect();
        let is_elsewhere =
            ["fromHeaders", "fromParams", "fromCookies"].iter().any(|field| list(field).is_some());
        if !is_elsewhere {
            headers.insert("authorization".to_owned());
        }
        Some(Reading {
            of: key,
            is_ours,
            issuer: rule.get("issuer")?.as_str()?,
            headers,
            forwards: rule.get("forwardOriginalToken").and_then(Value::as_bool).unwrap_or(false),
        })
    })
}

/// Present where something is hidden.
pub(super) fn condition(object: &ObjectPath, view: &View<'_>) -> Option<Condition> {
    let told = view.hidden.get(&(object.kind, qualified(object)))?;
    let reason = if told.stripped.is_empty() { "TokenRefused" } else { "TokenStripped" };
    let message = some_of(told.stripped.iter().chain(&told.refused));
    Some(Condition {
        kind: "TokenHidden",
        status: "True",
        reason: reason.into(),
        message: shortened(message),
    })
}

#[cfg(test)]
mod tests;
