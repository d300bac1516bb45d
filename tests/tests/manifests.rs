//! What `manifests/` holds: it can be read, built and installed, it grants no more than it has to, and its rules do what they
//! say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidegate::install;
use tidegate_compiler::{Inputs, SourceFile};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests")
}

/// Files of YAML below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Objects of Kubernetes, with their files.
fn objects() -> Vec<(PathBuf, Value)> {
    let of = |path: PathBuf| documents(&path).into_iter().map(move |object| (path.clone(), object));
    let all = ["base", "overlays", "examples"].iter().flat_map(|part| files(&root().join(part)));
    all.flat_map(of)
        .filter(|(_, object)| object["apiVersion"].is_string() && object["kind"] != "Kustomization")
        .collect()
}

fn of_kind<'o>(objects: &'o [(PathBuf, Value)], kind: &str) -> Vec<&'o Value> {
    objects.iter().map(|(_, object)| object).filter(|object| object["kind"] == kind).collect()
}

fn texts(value: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    value.as_array().map_or_else(BTreeSet::new, |items| items.iter().map(text).collect())
}

fn has(object: &Value, labels: &Value) -> bool {
    let labels = labels.as_object().unwrap();
    !labels.is_empty() && labels.iter().all(|(name, value)| object[name.as_str()] == *value)
}

/// Folders with a kustomization.
fn kustomizations() -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name == "kustomization.yaml");
    files(&root()).into_iter().filter(named).map(|path| path.parent().unwrap().to_owned()).collect()
}

fn kustomize(folder: &Path) -> Option<Vec<Value>> {
    let output = match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Err(_) => {
            println!("SKIPPED: {}: no `kubectl` here", folder.display());
            return None;
        }
        Ok(output) => output,
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", folder.display());
    assert!(told.is_empty(), "{}: a warning: {told}", folder.display());
    Some(serde_saphyr::from_multiple(str::from_utf8(&output.stdout).unwrap()).unwrap())
}

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let name = |object: &Value| {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
    };
    let count = objects.len();
    let named: BTreeMap<_, _> = objects.into_iter().map(|object| (name(&object), object)).collect();
    assert_eq!(named.len(), count, "an object is there twice");
    named
}

#[test]
fn every_file_can_be_read() {
    let files = files(&root());
    assert!(files.len() > 30, "{files:?}");
    for file in files {
        assert!(documents(&file).iter().all(Value::is_object) || is_patch(&file), "{}", file.display());
    }
}

/// A list of operations (RFC 6902).
fn is_patch(file: &Path) -> bool {
    documents(file)
        .iter()
        .all(|document| document.as_array().is_some_and(|all| all.iter().all(|one| one["op"].is_string())))
}

#[test]
fn kustomizations_build_and_list_every_file_beside_them() {
    let folders = kustomizations();
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        kustomize(&folder);
        let kustomization = &documents(&folder.join("kustomization.yaml"))[0];
        let mut listed = texts(&kustomization["resources"]);
        for patch in kustomization["patches"].as_array().into_iter().flatten() {
            listed.insert(patch["path"].as_str().unwrap().to_owned());
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let expected = name.ends_with(".yaml") && name != "kustomization.yaml";
            assert!(!expected || listed.contains(&name), "{}: {name} is in no list", folder.display());
        }
    }
}

#[test]
fn an_overlay_changes_what_it_says() {
    let Some(built) = kustomize(&root().join("overlays/modules")) else { return };
    let built = by_name(built);
    let deployment = &built["Deployment tidegate-system/tidegate"];
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert!(texts(&container["args"]).contains("--module-listen=0.0.0.0:15082"));
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
        assert!(name.starts_with("Deployment") || built[&name] == object, "{name}");
    }
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
fn roles_name_what_they_grant() {
    let objects = objects();
    let roles: Vec<&Value> = [of_kind(&objects, "ClusterRole"), of_kind(&objects, "Role")].concat();
    assert_eq!(roles.len(), 2);
    let writes = ["create", "update", "patch", "delete"];
    for role in roles {
        for rule in role["rules"].as_array().unwrap() {
            assert_eq!(rule.as_object().unwrap().len(), 3, "{rule}");
            for field in ["apiGroups", "resources", "verbs"] {
                let texts = texts(&rule[field]);
                assert!(!texts.is_empty(), "{rule}");
                assert!(texts.iter().all(|text| !text.contains('*')), "a star: {rule}");
            }
            let resources = texts(&rule["resources"]);
            for powerful in [
                "secrets",
                "roles",
                "clusterroles",
                "rolebindings",
                "clusterrolebindings",
                "pods/exec",
                "serviceaccounts/token",
            ] {
                assert!(!resources.contains(powerful), "{rule}");
            }
            for verb in texts(&rule["verbs"]) {
                assert!(
                    ["get", "list", "watch"].contains(&verb.as_str()) || writes.contains(&verb.as_str()),
                    "{rule}"
                );
            }
            if rule["apiGroups"] == json!([""]) {
                assert_eq!(
                    rule["verbs"],
                    json!(["get", "list", "watch"]),
                    "core objects are only read: {rule}"
                );
            }
        }
    }
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

/// The command line of the Deployment is one that this version has.
#[test]
fn the_control_plane_is_started_as_it_can_be() {
    for overlay in ["base", "overlays/modules"] {
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

#[test]
fn selectors_select_the_pods_beside_them() {
    let objects = objects();
    let deployments = of_kind(&objects, "Deployment");
    let pods = |namespace: &Value| -> Vec<&Value> {
        let of = deployments.iter().filter(|deployment| deployment["metadata"]["namespace"] == *namespace);
        of.map(|deployment| &deployment["spec"]["template"]["metadata"]["labels"]).collect()
    };
    let mut seen = 0;
    for (kind, pointer) in [
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("PeerAuthentication", "/spec/selector/matchLabels"),
        ("AuthorizationPolicy", "/spec/selector/matchLabels"),
        ("Gateway", "/spec/selector"),
    ] {
        for object in of_kind(&objects, kind) {
            let namespace = &object["metadata"]["namespace"];
            // Namespaces of the user's own pods.
            if let Some(selector) = object.pointer(pointer)
                && !["sales", "ci", "etl"].iter().any(|one| namespace == one)
            {
                seen += 1;
                assert!(
                    pods(namespace).iter().any(|labels| has(labels, selector)),
                    "{kind}: {selector} selects nothing"
                );
            }
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_ports_of_the_control_plane_are_open_for_whom_they_are_meant() {
    let objects = objects();
    let policies = of_kind(&objects, "AuthorizationPolicy");
    assert_eq!(policies.len(), 2);
    for policy in policies {
        assert_eq!(policy["spec"]["action"], "ALLOW");
        for rule in policy["spec"]["rules"].as_array().unwrap() {
            assert!(rule["from"][0]["source"].as_object().is_some_and(|source| !source.is_empty()), "{rule}");
            let operation = &rule["to"][0]["operation"];
            // Without ports and a field of HTTP, a rule would be about TCP as well.
            assert!(operation["ports"].is_array() && operation["methods"].is_array(), "{rule}");
            if operation["ports"] == json!(["15080"]) {
                let paths = texts(&operation["paths"]);
                let service = include_str!("../../proto/tidegate/v1/policy_distribution.proto");
                assert!(
                    service.contains("service PolicyDistribution {") && service.contains("rpc Subscribe(")
                );
                assert!(paths.contains("/tidegate.v1.PolicyDistribution/Subscribe"), "{paths:?}");
                assert!(
                    paths.iter().all(|path| path.starts_with("/tidegate.v1.") && !path.contains('*')),
                    "{paths:?}"
                );
            } else {
                assert_eq!(operation["ports"], json!(["15081"]));
                assert_eq!(rule["from"], json!([{"source": {"namespaces": ["tidegate-system"]}}]));
            }
        }
    }
    let strict =
        of_kind(&objects, "PeerAuthentication").into_iter().filter(|one| one["spec"]["mtls"].is_object());
    assert!(strict.inspect(|one| assert_eq!(one["spec"]["mtls"]["mode"], "STRICT")).count() >= 2);
}

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
                && !policy["spec"]["egress"].to_string().contains("ipBlock")
        });
        assert!(held, "{namespace}: a sidecar holds nobody back who goes around it");
    }
}

#[test]
fn rules_compile_and_their_tests_cover_them() {
    let mut folders: Vec<PathBuf> = files(&root())
        .iter()
        .map(|file| file.parent().unwrap().to_owned())
        .filter(|folder| folder.ends_with("rules"))
        .collect();
    folders.dedup();
    assert!(folders.len() >= 3, "{folders:?}");
    for folder in folders {
        let source = |path: &PathBuf| SourceFile {
            path: path.display().to_string(),
            text: std::fs::read_to_string(path).unwrap(),
        };
        let sources: Vec<SourceFile> = files(&folder).iter().map(source).collect();
        let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
        let compilation = tidegate_compiler::compile(&inputs);
        assert!(compilation.diagnostics.is_empty(), "{}: {:#?}", folder.display(), compilation.diagnostics);
        let compiled = compilation.output.unwrap();
        let tests = tidegate_compiler::check_tests(&inputs, &compiled);
        assert!(tests.diagnostics.is_empty(), "{}: {:#?}", folder.display(), tests.diagnostics);
        let report = tidegate::ruletest::run(&compiled, &tests, 1_795_426_200);
        assert_eq!(report.failed, 0, "{}: {:#?}", folder.display(), report.tests);
        assert!(report.passed >= 6, "{}", folder.display());
        assert_eq!(report.coverage.rules.percent(), 100, "{}", folder.display());
    }
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
