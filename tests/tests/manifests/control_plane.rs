//! The control plane's own objects, and what overlays make of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate::install;

use crate::{by_name, has, kustomize, objects, of_kind, root, texts};

#[test]
fn an_overlay_changes_what_it_says() {
    let Some(built) = kustomize(&root().join("overlays/modules")) else { return };
    let built = by_name(built);
    let deployment = &built["Deployment tidegate-system/tidegate"];
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = texts(&container["args"]);
    assert!(args.contains("--module-listen=0.0.0.0:15082"));
    // It is fetched at the Service, by the port that is opened for it.
    assert!(args.contains("--module=http://tidegate.tidegate-system.svc.cluster.local:15082"), "{args:?}");
    let ports = built["Service tidegate-system/tidegate"]["spec"]["ports"].to_string();
    assert!(ports.contains("15082"), "{ports}");
    assert_eq!(container["ports"].as_array().unwrap().len(), 3);
    let authentication = &built["PeerAuthentication tidegate-system/tidegate"]["spec"];
    assert_eq!(
        (&authentication["mtls"]["mode"], &authentication["portLevelMtls"]),
        (&json!("STRICT"), &json!({"15082": {"mode": "DISABLE"}}))
    );
    let open = &built["AuthorizationPolicy tidegate-system/tidegate-admin"]["spec"]["rules"][1];
    assert_eq!(
        open,
        &json!({"to": [{"operation": {"ports": ["15082"], "methods": ["GET", "HEAD"], "paths": ["/module/sha256/*"]}}]})
    );
    let Some(built) = kustomize(&root().join("overlays/monitoring")) else { return };
    let built = by_name(built);
    assert!(built.contains_key("ServiceMonitor tidegate-system/tidegate"));
    let base = by_name(install::objects(&install::Settings::default()).unwrap());
    for (name, object) in base {
        let changed = name.starts_with("Deployment") || name.starts_with("NetworkPolicy");
        assert!(changed || built[&name] == object, "{name}");
    }
}

/// Off unless the overlay is used, and then one account alone, and nothing but what changes what is in force.
#[test]
fn who_may_revoke_is_named_by_an_overlay() {
    let base = by_name(install::objects(&install::Settings::default()).unwrap());
    let writers = |built: &std::collections::BTreeMap<String, Value>| -> Vec<String> {
        let pod = &built["Deployment tidegate-system/tidegate"]["spec"]["template"]["spec"];
        let args = texts(&pod["containers"][0]["args"]).into_iter();
        args.filter(|arg| arg.starts_with("--admin-writers")).collect()
    };
    assert_eq!(writers(&base), [] as [&str; 0]);
    let policy = "AuthorizationPolicy tidegate-system/tidegate-admin";
    assert!(!base[policy].to_string().contains("POST"));
    let Some(built) = kustomize(&root().join("overlays/admin-writers")) else { return };
    let built = by_name(built);
    let account = "cluster.local/ns/tidegate-system/sa/tidegate-oncall";
    assert_eq!(writers(&built), [format!("--admin-writers=spiffe://{account}")]);
    let expected = json!({
        "from": [{"source": {"principals": [account]}}],
        "to": [{"operation": {"ports": ["15081"], "methods": ["POST", "DELETE"], "paths": ["/control/*"]}}],
    });
    let rules = built[policy]["spec"]["rules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[1]), (2, &expected));
    assert!(built.contains_key("ServiceAccount tidegate-system/tidegate-oncall"));
    for (name, object) in base {
        assert!(name.starts_with("Deployment") || name == policy || built[&name] == object, "{name}");
    }
}

/// "Rules from files": nothing of the cluster is asked, so there is nothing that it would have to grant.
#[test]
fn rules_from_files_need_no_rights_in_the_cluster() {
    let Some(built) = kustomize(&root().join("overlays/files")) else { return };
    let base = by_name(install::objects(&install::Settings::default()).unwrap());
    let built = by_name(built);
    let gone = |name: &&String| !built.contains_key(*name);
    let kinds: BTreeSet<&str> =
        base.keys().filter(gone).filter_map(|name| name.split_whitespace().next()).collect();
    let expected = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Role", "RoleBinding"];
    assert_eq!(kinds, expected.into());
    let pod = &built["Deployment tidegate-system/tidegate"]["spec"]["template"]["spec"];
    let text = pod.to_string();
    assert!(text.contains("--rules=/etc/tidegate/rules") && !text.contains("--kube"), "{text}");
    assert!(!text.contains("serviceAccountToken") && pod["automountServiceAccountToken"].is_null(), "{text}");
    let account = &built["ServiceAccount tidegate-system/tidegate"];
    assert_eq!(account["automountServiceAccountToken"], false);
}

/// Credentials for the API server are for the one container that asks it.
#[test]
fn only_our_container_can_ask_the_api_server() {
    let base = by_name(install::objects(&install::Settings::default()).unwrap());
    assert_eq!(base["ServiceAccount tidegate-system/tidegate"]["automountServiceAccountToken"], false);
    let pod = &base["Deployment tidegate-system/tidegate"]["spec"]["template"]["spec"];
    assert!(pod["automountServiceAccountToken"].is_null());
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["name"] == "api-access").unwrap();
    assert_eq!(
        (&mount["mountPath"], &mount["readOnly"]),
        (&json!("/var/run/secrets/kubernetes.io/serviceaccount"), &json!(true))
    );
    let volumes = pod["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == "api-access").unwrap();
    let files = volume["projected"]["sources"].to_string();
    for file in ["\"token\"", "\"ca.crt\"", "\"namespace\""] {
        assert!(files.contains(file), "{files}");
    }
}

/// What Pod Security's levels say of a pod with istio-init, which has NET_ADMIN and NET_RAW and is root: `baseline` knows
/// neither right, `restricted` no root.
#[test]
fn the_namespace_takes_the_pod_that_istio_makes_of_ours() {
    let Some(base) = kustomize(&root().join("base")) else { return };
    let level = |built: Vec<Value>, mode: &str| {
        by_name(built)["Namespace /tidegate-system"]["metadata"]["labels"]
            [format!("pod-security.kubernetes.io/{mode}")]
        .clone()
    };
    assert_eq!(level(base.clone(), "enforce"), "privileged", "istio-init would be refused");
    assert_eq!(level(base.clone(), "warn"), "restricted");
    assert_eq!(level(base, "audit"), "restricted");
    let Some(cni) = kustomize(&root().join("overlays/istio-cni")) else { return };
    assert_eq!(
        level(cni, "enforce"),
        "restricted",
        "nothing of Istio's needs more beside the CNI node agent"
    );
}

/// Filters from everywhere, the admin interface from here, metrics for nobody who was not named.
#[test]
fn the_network_opens_no_port_for_more_than_it_is_for() {
    let ingress = |folder: &str| {
        let built = by_name(kustomize(&root().join(folder))?);
        Some(built["NetworkPolicy tidegate-system/tidegate"]["spec"]["ingress"].clone())
    };
    let Some(base) = ingress("base") else { return };
    let port = |number: u16| json!([{"port": number, "protocol": "TCP"}]);
    let expected = json!([
        {"from": [{"namespaceSelector": {}}], "ports": port(15080)},
        {"from": [{"podSelector": {}}], "ports": port(15081)},
    ]);
    assert_eq!(base, expected);
    let monitoring = ingress("overlays/monitoring").unwrap();
    let opened = json!({
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": port(15020),
    });
    assert_eq!(monitoring, json!([expected[0], expected[1], opened]));
}

#[test]
fn what_install_prints_is_what_kustomize_builds() {
    let Some(built) = kustomize(&root().join("base")) else { return };
    let objects = install::objects(&install::Settings::default()).unwrap();
    let printed = install::to_yaml(&objects).unwrap();
    assert_eq!(by_name(built), by_name(serde_saphyr::from_multiple(&printed).unwrap()));
    // Another reader of YAML takes it for the same.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), &printed).unwrap();
    std::fs::write(folder.path().join("kustomization.yaml"), "resources: [all.yaml]\n").unwrap();
    assert_eq!(by_name(kustomize(folder.path()).unwrap()), by_name(objects));
}

#[test]
fn containers_have_no_rights_that_they_do_not_need() {
    let objects = objects();
    let deployments = of_kind(&objects, "Deployment")
        .into_iter()
        .filter(|deployment| deployment["spec"]["selector"].is_object());
    let mut seen = 0;
    for deployment in deployments {
        seen += 1;
        let pod = &deployment["spec"]["template"];
        assert!(has(&pod["metadata"]["labels"], &deployment["spec"]["selector"]["matchLabels"]));
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod["spec"][field].is_null(), "{field}");
        }
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
        for container in pod["spec"]["containers"].as_array().unwrap() {
            assert_eq!(
                container["securityContext"],
                json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "runAsNonRoot": true,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                })
            );
            assert!(
                container["resources"]["requests"]["memory"].is_string()
                    && container["resources"]["limits"]["memory"].is_string()
            );
            let ports: Vec<&Value> =
                container["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                if container["name"] == "tidegate" {
                    assert!(ports.contains(&&container[probe]["httpGet"]["port"]), "{probe}");
                }
            }
            let volumes = pod["spec"]["volumes"].as_array();
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                assert!(volumes.unwrap().iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
            }
        }
    }
    assert_eq!(seen, 2);
}

/// Every replica has the same keys and a state of its own, and nobody but a replica follows one.
#[test]
fn replicas_share_keys_and_are_reached_by_each_other_alone() {
    let Some(built) = kustomize(&root().join("overlays/replicas")) else { return };
    let built = by_name(built);
    assert!(
        !built.contains_key("PersistentVolumeClaim tidegate-system/tidegate-state"),
        "one pod at a time has it"
    );
    let deployment = &built["Deployment tidegate-system/tidegate"]["spec"];
    let pod = &deployment["template"]["spec"];
    assert_eq!(pod["volumes"][0], json!({"name": "state", "emptyDir": {"sizeLimit": "2Gi"}}));
    let secret =
        json!({"name": "secrets", "secret": {"secretName": "tidegate-secrets", "defaultMode": 0o440}});
    assert!(pod["volumes"].as_array().unwrap().contains(&secret));
    let container = &pod["containers"][0];
    assert!(texts(&container["args"]).contains("--secrets=/etc/tidegate/secrets"));
    let named = |name: &str| {
        let env = container["env"].as_array().unwrap();
        env.iter().find(|one| one["name"] == name).unwrap()["valueFrom"]["fieldRef"]["fieldPath"].clone()
    };
    assert_eq!(
        (named("POD_IP"), named("POD_SERVICE_ACCOUNT")),
        (json!("status.podIP"), json!("spec.serviceAccountName"))
    );

    // What scales, and what may go at once.
    let scaler = &built["HorizontalPodAutoscaler tidegate-system/tidegate"]["spec"];
    assert_eq!(
        scaler["scaleTargetRef"],
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "tidegate"})
    );
    assert!(deployment["replicas"].is_null(), "two would say how many");
    let allowed =
        built["PodDisruptionBudget tidegate-system/tidegate"]["spec"]["maxUnavailable"].as_u64().unwrap();
    assert!(allowed < scaler["minReplicas"].as_u64().unwrap(), "one is always there");
    assert_eq!(scaler["metrics"][0]["containerResource"]["container"], container["name"]);
    assert!(container["resources"]["requests"]["cpu"].is_string());

    // The account that follows is the one of the pods, and the method is in no policy for others.
    let account =
        format!("cluster.local/ns/tidegate-system/sa/{}", pod["serviceAccountName"].as_str().unwrap());
    let rules = json!([{
        "from": [{"source": {"principals": [account]}}],
        "to": [{"operation": {"ports": ["15080"], "methods": ["POST"], "paths": ["/tidegate.v1.Relay/Follow"]}}],
    }]);
    assert_eq!(built["AuthorizationPolicy tidegate-system/tidegate-replicas"]["spec"]["rules"], rules);
    let of_filters = &built["AuthorizationPolicy tidegate-system/tidegate-grpc"]["spec"];
    assert!(!of_filters.to_string().contains("Relay"), "{of_filters}");
    let service = &built["Service tidegate-system/tidegate-replicas"];
    assert_eq!(service["spec"]["clusterIP"], "None");
    let destination = &built["DestinationRule tidegate-system/tidegate-replicas"]["spec"];
    assert_eq!(destination["host"], "tidegate-replicas.tidegate-system.svc.cluster.local");
    let tls = json!({"mode": "ISTIO_MUTUAL", "subjectAltNames": [format!("spiffe://{account}")]});
    assert_eq!(destination["trafficPolicy"]["tls"], tls);
    let egress = built["NetworkPolicy tidegate-system/tidegate"]["spec"]["egress"].as_array().unwrap();
    let own = json!({
        "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "tidegate"}}}],
        "ports": [{"port": 15080, "protocol": "TCP"}],
    });
    assert!(egress.contains(&own), "{egress:#?}");
    for (name, object) in by_name(install::objects(&install::Settings::default()).unwrap()) {
        let is_changed = ["Deployment", "NetworkPolicy", "PersistentVolumeClaim"]
            .iter()
            .any(|kind| name.starts_with(kind));
        assert!(is_changed || built[&name] == object, "{name}");
    }
}

/// The command line of the Deployment is one that this version has.
#[test]
fn the_control_plane_is_started_as_it_can_be() {
    for overlay in [
        "base",
        "overlays/admin-writers",
        "overlays/files",
        "overlays/istio-cni",
        "overlays/modules",
        "overlays/monitoring",
        "overlays/replicas",
    ] {
        let Some(built) = kustomize(&root().join(overlay)) else { return };
        let built = by_name(built);
        let container =
            &built["Deployment tidegate-system/tidegate"]["spec"]["template"]["spec"]["containers"][0];
        let arguments =
            container["args"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
        let typed: Vec<String> = std::iter::once("tidegate".to_owned()).chain(arguments).collect();
        if let Err(error) = tidegate::cli::command_line().try_get_matches_from(typed) {
            panic!("{overlay}: {error}");
        }
        let service = &built["Service tidegate-system/tidegate"]["spec"];
        let names = |list: &Value, field: &str| -> BTreeSet<String> {
            list.as_array().unwrap().iter().map(|port| port[field].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&service["ports"], "targetPort"), names(&container["ports"], "name"));
        assert!(service["ports"].as_array().unwrap().iter().all(|port| port["appProtocol"].is_string()));
    }
}
