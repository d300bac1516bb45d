//! Whether what `manifests/` holds is what the API server takes.
//!
//! Kubernetes' own kinds are read as the types that are generated of its OpenAPI description: what they do not know, or take for
//! another type, is an error here. Istio's, and those of other projects, are checked against their definitions where
//! `TIDEGATE_ISTIO_CRDS` names a folder with them; without, against the members that are listed below.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::{admissionregistration, apps, autoscaling, core, networking, policy, rbac};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{kustomizations, kustomize, objects, root};

/// What the types make of an object.
fn read<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

type Reader = fn(&Value) -> Result<Value, String>;

const KUBERNETES: [(&str, Reader); 15] = [
    ("v1 Namespace", read::<core::v1::Namespace>),
    ("v1 PersistentVolumeClaim", read::<core::v1::PersistentVolumeClaim>),
    ("v1 Service", read::<core::v1::Service>),
    ("v1 ServiceAccount", read::<core::v1::ServiceAccount>),
    (
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy",
        read::<admissionregistration::v1::ValidatingAdmissionPolicy>,
    ),
    (
        "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding",
        read::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>,
    ),
    ("apps/v1 Deployment", read::<apps::v1::Deployment>),
    ("autoscaling/v2 HorizontalPodAutoscaler", read::<autoscaling::v2::HorizontalPodAutoscaler>),
    ("networking.k8s.io/v1 NetworkPolicy", read::<networking::v1::NetworkPolicy>),
    ("policy/v1 PodDisruptionBudget", read::<policy::v1::PodDisruptionBudget>),
    ("rbac.authorization.k8s.io/v1 ClusterRole", read::<rbac::v1::ClusterRole>),
    ("rbac.authorization.k8s.io/v1 ClusterRoleBinding", read::<rbac::v1::ClusterRoleBinding>),
    ("rbac.authorization.k8s.io/v1 Role", read::<rbac::v1::Role>),
    ("rbac.authorization.k8s.io/v1 RoleBinding", read::<rbac::v1::RoleBinding>),
    ("apiextensions.k8s.io/v1 CustomResourceDefinition", read::<apiextensions::v1::CustomResourceDefinition>),
];

/// Members of `spec`, down to where values are the user's; `[]` is any item. From the definitions of Istio 1.31, the Gateway API
/// 1.4, the Prometheus operator 0.86 and Tekton 1.6.
const OTHERS: [(&str, &str); 12] = [
    (
        "security.istio.io/v1 AuthorizationPolicy",
        "action selector.matchLabels.* rules[].from[].source.principals[] rules[].from[].source.namespaces[] \
         rules[].to[].operation.ports[] rules[].to[].operation.methods[] rules[].to[].operation.paths[]",
    ),
    ("security.istio.io/v1 PeerAuthentication", "selector.matchLabels.* mtls.mode portLevelMtls.*.mode"),
    ("networking.istio.io/v1 Sidecar", "outboundTrafficPolicy.mode egress[].hosts[]"),
    (
        "networking.istio.io/v1 Gateway",
        "selector.* servers[].port.number servers[].port.name servers[].port.protocol servers[].tls.mode servers[].hosts[]",
    ),
    (
        "networking.istio.io/v1 ServiceEntry",
        "hosts[] location resolution ports[].number ports[].name ports[].protocol ports[].targetPort",
    ),
    (
        "networking.istio.io/v1 DestinationRule",
        "host exportTo[] trafficPolicy.tls.mode trafficPolicy.tls.subjectAltNames[] subsets[].name trafficPolicy.portLevelSettings[].port.number \
         trafficPolicy.portLevelSettings[].tls.mode trafficPolicy.portLevelSettings[].tls.sni \
         trafficPolicy.portLevelSettings[].tls.subjectAltNames[] trafficPolicy.portLevelSettings[].tls.caCertificates \
         subsets[].trafficPolicy.portLevelSettings[].port.number subsets[].trafficPolicy.portLevelSettings[].tls.mode \
         subsets[].trafficPolicy.portLevelSettings[].tls.sni",
    ),
    (
        "networking.istio.io/v1 VirtualService",
        "hosts[] gateways[] http[].match[].gateways[] http[].match[].port http[].headers.request.remove[] \
         http[].route[].destination.host http[].route[].destination.subset http[].route[].destination.port.number",
    ),
    (
        "monitoring.coreos.com/v1 ServiceMonitor",
        "selector.matchLabels.* endpoints[].port endpoints[].path endpoints[].interval",
    ),
    (
        "gateway.networking.k8s.io/v1 Gateway",
        "gatewayClassName listeners[].name listeners[].port listeners[].protocol listeners[].hostname listeners[].tls.mode \
         listeners[].tls.certificateRefs[].name listeners[].allowedRoutes.namespaces.from \
         listeners[].allowedRoutes.namespaces.selector.matchLabels.*",
    ),
    (
        "gateway.networking.k8s.io/v1 HTTPRoute",
        "parentRefs[].name parentRefs[].namespace parentRefs[].sectionName hostnames[] rules[].backendRefs[].name \
         rules[].backendRefs[].port",
    ),
    (
        "tekton.dev/v1 Task",
        "description params[].name params[].type params[].description params[].default workspaces[].name workspaces[].description \
         workspaces[].optional stepTemplate.image stepTemplate.workingDir stepTemplate.env[].name stepTemplate.env[].value \
         stepTemplate.securityContext.allowPrivilegeEscalation stepTemplate.securityContext.runAsNonRoot \
         stepTemplate.securityContext.capabilities.drop[] stepTemplate.securityContext.seccompProfile.type \
         volumes[].name volumes[].projected.sources[].serviceAccountToken.audience \
         volumes[].projected.sources[].serviceAccountToken.expirationSeconds \
         volumes[].projected.sources[].serviceAccountToken.path steps[].name steps[].image steps[].script steps[].env[].name \
         steps[].env[].value steps[].volumeMounts[].name steps[].volumeMounts[].mountPath steps[].volumeMounts[].readOnly",
    ),
    (
        "tekton.dev/v1 Pipeline",
        "description params[].name params[].type params[].description params[].default workspaces[].name workspaces[].optional \
         tasks[].name tasks[].runAfter[] tasks[].taskRef.name tasks[].params[].name tasks[].params[].value \
         tasks[].workspaces[].name tasks[].workspaces[].workspace tasks[].when[].input tasks[].when[].operator \
         tasks[].when[].values[]",
    ),
];

/// Members that are lost on the way, or come out as something else.
fn lost(wanted: &Value, found: &Value, place: &str, all: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (name, value) in wanted {
                let place = format!("{place}.{name}");
                match found.get(name) {
                    Some(found) => lost(value, found, &place, all),
                    // What is empty need not come out again.
                    None if value.is_null() || *value == Value::Object(Default::default()) => {}
                    None => all.push(format!("`{place}` is unknown")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                lost(wanted, found, &format!("{place}[{index}]"), all);
            }
        }
        _ if wanted == found => {}
        _ => all.push(format!("`{place}`: {wanted} came out as {found}")),
    }
}

/// Every leaf, with `[]` for items.
fn leaves(value: &Value, place: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let dot = if place.is_empty() { "" } else { "." };
                leaves(value, &format!("{place}{dot}{name}"), all);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| leaves(item, &format!("{place}[]"), all)),
        _ => all.push(place.to_owned()),
    }
}

/// `*` stands for one name of the user's own, which may have dots.
fn is_listed(leaf: &str, listed: &str) -> bool {
    listed.split_whitespace().any(|known| match known.split_once('*') {
        None => leaf == known,
        Some((before, after)) => {
            leaf.len() > before.len() + after.len() && leaf.starts_with(before) && leaf.ends_with(after)
        }
    })
}

/// What is wrong with an object, as far as this knows.
fn wrong_with(object: &Value, definitions: &BTreeMap<String, Value>) -> Vec<String> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let kind = format!("{} {}", text("apiVersion"), text("kind"));
    let mut all = Vec::new();
    if let Some((_, read)) = KUBERNETES.iter().find(|(known, _)| *known == kind) {
        match read(object) {
            Ok(found) => lost(object, &found, "", &mut all),
            Err(error) => all.push(error),
        }
        return all;
    }
    if let Some(schema) = definitions.get(&kind) {
        conforms(object, schema, "", &mut all);
        return all;
    }
    let Some((_, listed)) = OTHERS.iter().find(|(known, _)| *known == kind) else {
        return vec![format!("`{kind}` is of no known kind")];
    };
    let mut found = Vec::new();
    leaves(&object["spec"], "", &mut found);
    all.extend(
        found
            .into_iter()
            .filter(|leaf| !is_listed(leaf, listed))
            .map(|leaf| format!("`spec.{leaf}` is unknown")),
    );
    for name in object.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !["apiVersion", "kind", "metadata", "spec"].contains(&name.as_str()) {
            all.push(format!("`{name}` is unknown"));
        }
    }
    all
}

/// The structural part of a definition's schema.
fn conforms(value: &Value, schema: &Value, place: &str, all: &mut Vec<String>) {
    let of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => schema["x-kubernetes-int-or-string"] != true || value.is_string() || value.is_u64(),
    };
    if !of_type {
        return all.push(format!("`{place}`: {value} is no {}", schema["type"]));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        all.push(format!("`{place}`: {value} is none of {known:?}"));
    }
    let count = value.as_array().map(Vec::len).or(value.as_str().map(str::len)).unwrap_or_default() as u64;
    let beyond = |name: &str| schema[name].as_u64().is_some_and(|limit| count > limit);
    if (value.is_array() && beyond("maxItems")) || (value.is_string() && beyond("maxLength")) {
        all.push(format!("`{place}` is too long"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value[required.as_str().unwrap_or_default()].is_null() {
            all.push(format!("`{place}.{required}` is missing"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(item, &schema["items"], &format!("{place}[{index}]"), all);
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let here = format!("{place}.{name}");
        match schema["properties"].get(name) {
            Some(schema) => conforms(member, schema, &here, all),
            None if place.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) => {}
            None if schema["additionalProperties"].is_object() => {
                conforms(member, &schema["additionalProperties"], &here, all);
            }
            None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => all.push(format!("`{here}` is unknown")),
        }
    }
}

/// Schemas by version and kind.
fn definitions() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let Some(folder) = std::env::var_os("TIDEGATE_ISTIO_CRDS") else {
        println!(
            "SKIPPED: definitions of Istio: TIDEGATE_ISTIO_CRDS is not set; members are compared with a list"
        );
        return all;
    };
    for file in crate::files(Path::new(&folder)) {
        for crd in crate::documents(&file).iter().filter(|one| one["kind"] == "CustomResourceDefinition") {
            let spec = &crd["spec"];
            for version in spec["versions"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let kind = format!(
                    "{}/{} {}",
                    text(&spec["group"]),
                    text(&version["name"]),
                    text(&spec["names"]["kind"])
                );
                all.insert(kind, version["schema"]["openAPIV3Schema"].clone());
            }
        }
    }
    assert!(!all.is_empty(), "no definition in {}", Path::new(&folder).display());
    all
}

#[test]
fn every_object_is_one_that_its_kind_allows() {
    let definitions = definitions();
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    let mut check = |from: &Path, object: &Value| {
        let wrong = wrong_with(object, &definitions);
        assert!(
            wrong.is_empty(),
            "{}: {}: {wrong:#?}\n{object:#}",
            from.display(),
            object["metadata"]["name"]
        );
        *by_kind.entry(object["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    };
    // As they are built, so that patches count; and what no kustomization lists.
    for folder in kustomizations() {
        for object in kustomize(&folder).into_iter().flatten() {
            check(&folder, &object);
        }
    }
    for (file, object) in objects() {
        let folder = file.parent().unwrap();
        let is_patch = folder.starts_with(root().join("overlays")) && !folder.ends_with("egress");
        // What rules say is another test's.
        let is_rule =
            object["apiVersion"].as_str().is_some_and(|version| version.starts_with("tidegate.dev/"));
        if !is_patch && !is_rule {
            check(&file, &object);
        }
    }
    println!("{by_kind:?}");
    assert!(by_kind.len() >= 20, "{by_kind:?}");
}

#[test]
fn what_is_misspelt_is_found() {
    let all = tidegate::install::objects(&tidegate::install::Settings::default()).unwrap();
    let definitions = BTreeMap::new();
    for (kind, pointer, name, value) in [
        (
            "Deployment",
            "/spec/template/spec/containers/0/securityContext",
            "readOnlyRootFileSystem",
            Value::from(true),
        ),
        ("Deployment", "/spec/template/spec", "hostnetwork", Value::from(true)),
        ("NetworkPolicy", "/spec/egress/0", "port", Value::from(53)),
        ("Service", "/spec/ports/0", "port", Value::from("http")),
        ("PodDisruptionBudget", "/spec", "maxunavailable", Value::from(1)),
        ("ClusterRole", "/rules/0", "verb", Value::from("get")),
        ("PeerAuthentication", "/spec", "mtls", Value::from("STRICT")),
        ("AuthorizationPolicy", "/spec/rules/0", "form", Value::from("x")),
        ("CustomResourceDefinition", "/spec", "scopes", Value::from("Namespaced")),
    ] {
        let mut object = all.iter().find(|object| object["kind"] == kind).unwrap().clone();
        assert_eq!(wrong_with(&object, &definitions), [""; 0], "{kind}");
        object.pointer_mut(pointer).unwrap()[name] = value;
        assert!(!wrong_with(&object, &definitions).is_empty(), "{kind} {pointer} {name}");
    }
}
