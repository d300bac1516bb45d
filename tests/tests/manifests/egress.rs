//! The way out of the mesh: the list of hosts is closed, and pods are held back.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{documents, has, objects, of_kind, root, texts};

#[test]
fn the_list_of_hosts_is_closed_and_the_same_everywhere() {
    let all = objects();
    let egress: Vec<(PathBuf, Value)> = all
        .iter()
        .filter(|(path, _)| path.ends_with("egress/hosts.yaml") || path.ends_with("egress/gateway.yaml"))
        .cloned()
        .collect();
    let entries: BTreeSet<String> =
        of_kind(&egress, "ServiceEntry").iter().flat_map(|entry| texts(&entry["spec"]["hosts"])).collect();
    assert!(entries.len() >= 2 && entries.iter().all(|host| !host.contains('*')), "{entries:?}");
    for entry in of_kind(&egress, "ServiceEntry") {
        // Port 443 would let a pod out past the gateway.
        assert_eq!(
            entry["spec"]["ports"],
            json!([{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 443}])
        );
        assert_eq!(entry["spec"]["resolution"], "DNS");
    }
    let routes: BTreeSet<String> =
        of_kind(&egress, "VirtualService").iter().flat_map(|route| texts(&route["spec"]["hosts"])).collect();
    assert_eq!(routes, entries);
    let gateway = of_kind(&egress, "Gateway")[0];
    let served: BTreeSet<String> = texts(&gateway["spec"]["servers"][0]["hosts"])
        .iter()
        .map(|host| host.strip_prefix("egress/").unwrap().to_owned())
        .collect();
    assert_eq!(served, entries);
    assert_eq!(gateway["spec"]["servers"][0]["tls"]["mode"], "ISTIO_MUTUAL");
    let (mut outside, mut subsets) = (BTreeSet::new(), BTreeSet::new());
    for rule in of_kind(&egress, "DestinationRule") {
        let host = rule["spec"]["host"].as_str().unwrap();
        if host == "external.egress.svc.cluster.local" {
            for subset in rule["spec"]["subsets"].as_array().unwrap() {
                let tls = &subset["trafficPolicy"]["portLevelSettings"][0]["tls"];
                assert_eq!(tls["mode"], "ISTIO_MUTUAL");
                let host = tls["sni"].as_str().unwrap().to_owned();
                assert_eq!(subset["name"], host.replace('.', "-"));
                subsets.insert(host);
            }
            continue;
        }
        let tls = &rule["spec"]["trafficPolicy"]["portLevelSettings"][0]["tls"];
        assert_eq!(
            (&tls["mode"], &tls["sni"], &tls["subjectAltNames"]),
            (&json!("SIMPLE"), &json!(host), &json!([host]))
        );
        assert!(tls["caCertificates"].is_string(), "certificates of {host} would not be checked");
        assert_eq!(rule["spec"]["exportTo"], json!(["."]), "others would originate TLS as well");
        outside.insert(host.to_owned());
    }
    assert_eq!((&outside, &subsets), (&entries, &entries));
}

#[test]
fn namespaces_that_are_locked_down_still_reach_the_control_plane() {
    let objects = objects();
    let sidecars = of_kind(&objects, "Sidecar");
    assert!(!sidecars.is_empty());
    for sidecar in sidecars {
        assert_eq!(sidecar["metadata"]["name"], "default");
        assert_eq!(sidecar["spec"]["outboundTrafficPolicy"]["mode"], "REGISTRY_ONLY");
        let hosts = texts(&sidecar["spec"]["egress"][0]["hosts"]);
        for needed in ["tidegate-system/*", "istio-system/*", "egress/*"] {
            assert!(hosts.contains(needed), "{hosts:?}");
        }
        assert!(!hosts.contains("*/*"), "{hosts:?}");
        let namespace = &sidecar["metadata"]["namespace"];
        let held = of_kind(&objects, "NetworkPolicy").into_iter().any(|policy| {
            policy["metadata"]["namespace"] == *namespace
                && policy["spec"]["podSelector"] == json!({})
                && policy["spec"]["policyTypes"] == json!(["Egress"])
        });
        assert!(held, "{namespace}: a sidecar holds nobody back who goes around it");
    }
}

/// Who may be reached beyond the own namespace, and at which ports.
#[test]
fn pods_that_are_locked_down_reach_no_pod_that_is_not() {
    let all: Vec<(PathBuf, Value)> =
        objects().into_iter().filter(|(path, _)| path.ends_with("egress/lock-down.yaml")).collect();
    let named = |namespace: &str, label: &str, value: &str| {
        json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "podSelector": {"matchLabels": {label: value}},
        })
    };
    let tcp = |port: u16| json!({"port": port, "protocol": "TCP"});
    let gateway = (named("egress", "app", "external"), json!([tcp(8443)]));
    let shared = [
        (named("tidegate-system", "app.kubernetes.io/name", "tidegate"), json!([tcp(15080)])),
        (named("istio-system", "app", "istiod"), json!([tcp(15012)])),
        (
            named("kube-system", "k8s-app", "kube-dns"),
            json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]),
        ),
    ];
    let mut seen = 0;
    for policy in of_kind(&all, "NetworkPolicy") {
        let is_gateway = policy["metadata"]["namespace"] == "egress";
        for rule in policy["spec"]["egress"].as_array().unwrap() {
            let [to] = rule["to"].as_array().unwrap().as_slice() else { panic!("{rule}") };
            let found = (to.clone(), rule["ports"].clone());
            let known = shared.contains(&found)
                || (!is_gateway && (found == gateway || found == (json!({"podSelector": {}}), Value::Null)))
                || (is_gateway && to["ipBlock"].is_object() && rule["ports"] == json!([tcp(443)]));
            assert!(known, "{rule}");
            seen += 1;
        }
    }
    assert_eq!(seen, 14);
    // The ports are those of the pods that are meant.
    let deployed = of_kind(&objects(), "Deployment").into_iter().cloned().collect::<Vec<_>>();
    let ports = |namespace: &str| {
        let one = deployed
            .iter()
            .find(|one| one["metadata"]["namespace"] == namespace && one["spec"]["selector"].is_object());
        one.unwrap()["spec"]["template"]["spec"]["containers"][0]["ports"].to_string()
    };
    assert!(ports("egress").contains("8443") && ports("tidegate-system").contains("15080"));
}

/// The rules of an overlay are about the workloads that the overlay makes.
#[test]
fn the_egress_rules_are_about_the_egress_gateway() {
    let folder = root().join("overlays/egress");
    let mesh = &documents(&folder.join("rules/mesh.yaml"))[0];
    let declared = &mesh["spec"]["gateways"][0];
    let gateway = documents(&folder.join("gateway.yaml"));
    let deployment = gateway.iter().find(|object| object["kind"] == "Deployment").unwrap();
    assert_eq!(
        (&declared["namespace"], &declared["name"]),
        (&deployment["metadata"]["namespace"], &deployment["metadata"]["name"])
    );
    assert_eq!(declared["serviceAccount"], deployment["spec"]["template"]["spec"]["serviceAccountName"]);
    assert!(has(&deployment["spec"]["template"]["metadata"]["labels"], &declared["labels"]));
}
