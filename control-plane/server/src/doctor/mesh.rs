//! Objects of Istio that others write, and ports.

use serde_json::Value;
use tidegate_compiler::is_system_namespace;

use super::objects::texts;
use super::{Code, Finding, Object};

/// What ports are named when they speak HTTP (istio `pkg/config/protocol/instance.go`): the name, or the part before a dash.
const HTTP: [&str; 4] = ["http", "http2", "grpc", "grpc-web"];
/// Known to be something else.
const OTHER: [&str; 8] = ["tcp", "tls", "https", "mongo", "mysql", "redis", "udp", "hbone"];

pub(super) fn check(object: &Object, findings: &mut Vec<Finding>) {
    match object.kind() {
        "EnvoyFilter" if !object.is_ours() => envoy_filter(object, findings),
        "Service" if !is_system_namespace(object.namespace()) => ports(object, findings),
        "PeerAuthentication" => peer_authentication(object, findings),
        "AuthorizationPolicy" => dry_run(object, findings),
        "RequestAuthentication" if !object.is_ours() => request_authentication(object, findings),
        "Sidecar" => sidecar(object, findings),
        _ => {}
    }
}

fn envoy_filter(object: &Object, findings: &mut Vec<Finding>) {
    let patches = object.list("/spec/configPatches");
    let text = |patch: &Value, pointer: &str| {
        patch.pointer(pointer).and_then(Value::as_str).unwrap_or("nothing").to_owned()
    };
    let mut all: Vec<String> = patches
        .iter()
        .map(|patch| format!("{} {}", text(patch, "/patch/operation"), text(patch, "/applyTo")))
        .collect();
    all.sort();
    all.dedup();
    // These take away what decides.
    let removes = all.iter().any(|one| {
        (one.starts_with("REMOVE") || one.starts_with("REPLACE"))
            && (one.ends_with("FILTER") || one.ends_with("LISTENER") || one.ends_with("FILTER_CHAIN"))
    });
    let message = format!("it does: {}", if all.is_empty() { "nothing".to_owned() } else { all.join(", ") });
    findings
        .push(Finding::about(Code::ForeignEnvoyFilter, object, "spec.configPatches", message).worse(removes));
}

fn ports(object: &Object, findings: &mut Vec<Finding>) {
    // It selects no pods of the mesh.
    if object.text("/spec/type") == "ExternalName" || object.value.pointer("/spec/selector").is_none() {
        return;
    }
    for (index, port) in object.list("/spec/ports").iter().enumerate() {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = &port["port"];
        let name = port["name"].as_str().unwrap_or_default();
        let declared = port["appProtocol"].as_str().unwrap_or(name).to_ascii_lowercase();
        if protocol != "TCP" {
            continue;
        }
        let is = |known: &str| {
            declared == known || declared.strip_prefix(known).is_some_and(|rest| rest.starts_with('-'))
        };
        let field = format!("spec.ports[{index}]");
        // Kubernetes' own names (KEP-3726).
        let kubernetes = ["kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"];
        if HTTP.iter().any(|known| is(known)) || kubernetes.contains(&declared.as_str()) {
            continue;
        }
        let (code, message) = match OTHER.iter().find(|known| is(known)) {
            Some(known) => (Code::TcpPort, format!("port {number} is declared as {known}")),
            None => (Code::UndeclaredPort, format!("port {number} declares no protocol that Istio knows")),
        };
        findings.push(Finding::about(code, object, &field, message));
    }
}

fn peer_authentication(object: &Object, findings: &mut Vec<Finding>) {
    let is_open = |mode: &Value| mode == "PERMISSIVE" || mode == "DISABLE";
    let mode = &object.value["spec"]["mtls"]["mode"];
    if is_open(mode) {
        let message = format!("mTLS is {}", mode.as_str().unwrap_or_default());
        findings.push(Finding::about(Code::PlaintextAllowed, object, "spec.mtls.mode", message));
    }
    let of_ports = object.value.pointer("/spec/portLevelMtls").and_then(Value::as_object);
    // The control plane's own module has to be fetched without.
    let is_own = object.text("/metadata/labels/app.kubernetes.io~1part-of") == "tidegate";
    for (port, mtls) in of_ports.into_iter().flatten().filter(|_| !is_own) {
        if is_open(&mtls["mode"]) {
            let field = format!("spec.portLevelMtls[{port}].mode");
            let message = format!("mTLS is {} on port {port}", mtls["mode"].as_str().unwrap_or_default());
            findings.push(Finding::about(Code::PlaintextAllowed, object, &field, message));
        }
    }
}

fn dry_run(object: &Object, findings: &mut Vec<Finding>) {
    let annotations = texts(object.value.pointer("/metadata/annotations"));
    // As Go's `strconv.ParseBool`.
    let tried = annotations
        .get("istio.io/dry-run")
        .is_some_and(|value| ["1", "t", "T", "TRUE", "true", "True"].contains(&value.as_str()));
    if tried {
        let field = "metadata.annotations[istio.io/dry-run]";
        let message = "it is only tried".to_owned();
        findings.push(Finding::about(Code::DryRun, object, field, message).worse(object.is_ours()));
    }
}

fn request_authentication(object: &Object, findings: &mut Vec<Finding>) {
    for (index, rule) in object.list("/spec/jwtRules").iter().enumerate() {
        if rule["forwardOriginalToken"] != true {
            let issuer = rule["issuer"].as_str().unwrap_or_default();
            let message = format!("tokens of `{issuer}` are not forwarded");
            let field = format!("spec.jwtRules[{index}].forwardOriginalToken");
            findings.push(Finding::about(Code::HiddenToken, object, &field, message));
        }
    }
}

fn sidecar(object: &Object, findings: &mut Vec<Finding>) {
    if is_system_namespace(object.namespace()) {
        return;
    }
    if object.text("/spec/outboundTrafficPolicy/mode") == "ALLOW_ANY" {
        let message = "hosts that nobody declared are reached".to_owned();
        findings.push(Finding::about(Code::OpenEgress, object, "spec.outboundTrafficPolicy.mode", message));
    }
    // Istio ends TLS there by the certificates that it names, in place of the mesh's (istio.io, `Sidecar`, `IstioIngressListener`).
    for (index, listener) in object.list("/spec/ingress").iter().enumerate() {
        let mode = listener.pointer("/tls/mode").and_then(Value::as_str).unwrap_or_default();
        if matches!(mode, "MUTUAL" | "OPTIONAL_MUTUAL") {
            let port = &listener["port"]["number"];
            let message = format!("at port {port} it takes the certificates of its own authorities ({mode})");
            let field = format!("spec.ingress[{index}].tls");
            findings.push(Finding::about(Code::ForeignPeers, object, &field, message));
        }
    }
    let listeners = object.list("/spec/egress");
    let hosts = || {
        let of = |listener: &'_ Value| -> Vec<String> {
            let hosts = listener["hosts"].as_array().cloned().unwrap_or_default();
            hosts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        listeners.iter().flat_map(of)
    };
    let reaches = |host: String| {
        let (namespace, name) = host.split_once('/').unwrap_or(("*", &host));
        matches!(namespace, "*" | "tidegate-system")
            && (name == "*" || name.starts_with("tidegate.") || name.starts_with("*."))
    };
    if !listeners.is_empty() && !hosts().any(reaches) {
        let message = "it does not list `tidegate-system`".to_owned();
        findings.push(Finding::about(Code::HiddenControlPlane, object, "spec.egress", message));
    }
}
