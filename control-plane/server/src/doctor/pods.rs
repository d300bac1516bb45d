//! Pods that no proxy guards, or not wholly.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_compiler::{Compiled, is_system_namespace};

use super::objects::texts;
use super::{Against, Code, Finding, Object};

/// Gateways and waypoints are proxies themselves.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

pub(super) fn check(object: &Object, against: &Against<'_>, findings: &mut Vec<Finding>) {
    if is_system_namespace(object.namespace()) {
        return;
    }
    if object.kind() == "Namespace" {
        namespace(object, findings);
        return;
    }
    let Some((pod, path)) = pod(object) else { return };
    let labels = texts(pod.pointer("/metadata/labels"));
    let annotations = texts(pod.pointer("/metadata/annotations"));
    if labels.contains_key(GATEWAY_NAME) {
        return;
    }
    let guarded = against.rules.and_then(|rules| guarded(rules, object.namespace(), &labels));
    let mut say = |code, field: String, what: String| {
        let message = match &guarded {
            Some(workload) => format!("{what}; `{workload}` is guarded"),
            None => what,
        };
        findings.push(Finding::about(code, object, &field, message).worse(guarded.is_some()));
    };
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        say(Code::HostNetwork, format!("{path}spec.hostNetwork"), "it is in the node's network".to_owned());
    }
    let opt_out = "sidecar.istio.io/inject";
    for (found, part) in [(&labels, "labels"), (&annotations, "annotations")] {
        if found.get(opt_out).is_some_and(|value| value == "false") {
            let field = format!("{path}metadata.{part}[{opt_out}]");
            say(Code::NoProxy, field, "no proxy is put beside it".to_owned());
        }
    }
    for (name, code, whole) in [
        ("traffic.sidecar.istio.io/excludeInboundPorts", Code::PortsPastProxy, ""),
        ("traffic.sidecar.istio.io/includeInboundPorts", Code::PortsPastProxy, "*"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", Code::OutboundPastProxy, ""),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", Code::OutboundPastProxy, ""),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", Code::OutboundPastProxy, "*"),
        ("traffic.sidecar.istio.io/excludeInterfaces", Code::PortsPastProxy, ""),
    ] {
        if let Some(value) = annotations.get(name).filter(|value| *value != whole) {
            let field = format!("{path}metadata.annotations[{name}]");
            say(code, field, format!("`{value}` is what Istio leaves out or restricts itself to"));
        }
    }
    let (mode, templates) = ("sidecar.istio.io/interceptionMode", "inject.istio.io/templates");
    if let Some(value) =
        annotations.get(mode).filter(|value| !matches!(value.as_str(), "REDIRECT" | "TPROXY"))
    {
        let field = format!("{path}metadata.annotations[{mode}]");
        say(Code::PortsPastProxy, field, format!("`{value}`: connections are not led through the proxy"));
    }
    let has_proxy = |value: &str| value.split(',').any(|one| matches!(one.trim(), "sidecar" | "gateway"));
    if let Some(value) = annotations.get(templates).filter(|value| !has_proxy(value)) {
        let field = format!("{path}metadata.annotations[{templates}]");
        say(Code::NoProxy, field, format!("`{value}`: no Envoy is put beside it"));
    }
}

fn namespace(object: &Object, findings: &mut Vec<Finding>) {
    let name = object.text("/metadata/name");
    let disabled = object.text("/metadata/labels/istio-injection") == "disabled";
    if disabled && !is_system_namespace(name) {
        let field = "metadata.labels[istio-injection]";
        let message = format!("no pod of `{name}` has a proxy");
        findings.push(Finding::about(Code::NoProxy, object, field, message));
    }
}

/// A pod, or the template of pods, and where it is.
fn pod(object: &Object) -> Option<(&Value, &'static str)> {
    let (pointer, path) = match object.kind() {
        "Pod" => ("", ""),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => {
            ("/spec/template", "spec.template.")
        }
        "CronJob" => ("/spec/jobTemplate/spec/template", "spec.jobTemplate.spec.template."),
        _ => return None,
    };
    Some((object.value.pointer(pointer)?, path))
}

/// The guarded workload that a pod with these labels is of.
fn guarded(rules: &Compiled, namespace: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let covered = rules.workloads.iter().filter(|(id, policy)| policy.covered && id.namespace == namespace);
    let mut found = covered.filter(|(id, _)| {
        rules.mesh.workloads.get(id).is_some_and(|workload| {
            !workload.labels.is_empty()
                && workload.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
        })
    });
    found.next().map(|(id, _)| id.to_string())
}
