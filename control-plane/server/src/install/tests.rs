use std::collections::BTreeMap;

use super::*;

fn by_name(objects: &[Value]) -> BTreeMap<(String, String), Value> {
    let text = |object: &Value, pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let named = |object: &Value| ((text(object, "/kind"), text(object, "/metadata/name")), object.clone());
    let all: BTreeMap<_, _> = objects.iter().map(named).collect();
    assert_eq!(all.len(), objects.len(), "two objects of one kind and name");
    all
}

#[test]
fn what_is_not_said_is_as_in_the_base() {
    assert_eq!(objects(&Settings::default()).unwrap(), base().unwrap());
}

#[test]
fn the_base_lists_exactly_the_files_that_are_carried() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base");
    let text = std::fs::read_to_string(folder.join("kustomization.yaml")).unwrap();
    let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
    let listed: Vec<String> = kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| std::fs::read_to_string(folder.join(name.as_str().unwrap())).unwrap())
        .collect();
    assert_eq!(listed, BASE);
    let members: Vec<&String> = kustomization.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["apiVersion", "kind", "resources"],
        "a transformation would have to be repeated here"
    );
}

#[test]
fn namespace_and_image_are_put_in_everywhere() {
    let settings = Settings { namespace: "gate".into(), image: "r.example/t@sha256:00".into() };
    let objects = objects(&settings).unwrap();
    let all = serde_json::to_string(&objects).unwrap();
    assert!(!all.contains(NAMESPACE) && !all.contains(IMAGE), "{all}");
    let named = by_name(&objects);
    let of = |kind: &str, name: &str| named[&(kind.to_owned(), name.to_owned())].clone();
    assert_eq!(
        of("Deployment", "tidegate")["spec"]["template"]["spec"]["containers"][0]["image"],
        "r.example/t@sha256:00"
    );
    assert_eq!(of("ClusterRoleBinding", "tidegate-gate")["subjects"][0]["namespace"], "gate");
    assert_eq!(of("ClusterRoleBinding", "tidegate-gate")["roleRef"]["name"], "tidegate-gate");
    of("ClusterRole", "tidegate-gate");
    of("Namespace", "gate");
    // Kinds are the cluster's, and the same for all installations.
    of("CustomResourceDefinition", "guards.tidegate.dev");
    let admin = &of("AuthorizationPolicy", "tidegate-admin")["spec"]["rules"][0]["from"][0];
    assert_eq!(admin["source"]["namespaces"], serde_json::json!(["gate"]));
    let elsewhere = &of("NetworkPolicy", "tidegate")["spec"]["egress"][0]["to"][0];
    assert_eq!(elsewhere["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], "kube-system");
}

#[test]
fn what_cannot_be_a_setting_is_refused() {
    let with = |namespace: &str, image: &str| {
        objects(&Settings { namespace: namespace.into(), image: image.into() })
    };
    for namespace in ["", "A", "-a", "a-", "a.b", "a b", &"a".repeat(64), "{{ x }}"] {
        assert!(matches!(with(namespace, IMAGE), Err(InstallError::Namespace(_))), "{namespace}");
    }
    for image in ["", "a b", "a\nb", "{{ x }}", ":tag", "$(x)"] {
        assert!(matches!(with(NAMESPACE, image), Err(InstallError::Image(_))), "{image}");
    }
}

#[test]
fn yaml_is_read_as_what_was_written() {
    let objects = objects(&Settings::default()).unwrap();
    let again: Vec<Value> = serde_saphyr::from_multiple(&to_yaml(&objects).unwrap()).unwrap();
    assert_eq!(again, objects);
    // What other readers of YAML take for something else.
    let tricky = serde_json::json!({"apiVersion": "v1", "a": ["yes", "no", "on", "1e3", "0x1F", "15080", "null", "~", "", "::/0", "a: b", "# c", "- d", "*", "2001:db8::1", "12:30:45"]});
    let text = to_yaml(std::slice::from_ref(&tricky)).unwrap();
    for word in ["yes", "no", "on", "1e3", "15080", "null", "~"] {
        assert!(
            text.contains(&format!("\"{word}\"")) || text.contains(&format!("'{word}'")),
            "{word}: {text}"
        );
    }
}

/// As Helm evaluates the two expressions that there are.
#[test]
fn a_chart_gives_the_same_objects() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart");
    write_chart(&chart).unwrap();
    for (namespace, image) in [(NAMESPACE, IMAGE), ("gate", "r.example/t:1")] {
        let mut found = Vec::new();
        let folders = ["crds", "templates"].map(|folder| std::fs::read_dir(chart.join(folder)).unwrap());
        for entry in folders.into_iter().flatten() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let text =
                text.replace("{{ .Release.Namespace }}", namespace).replace("{{ .Values.image }}", image);
            assert!(!text.contains("{{"), "{text}");
            found.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
        }
        let mut expected = objects(&Settings { namespace: namespace.into(), image: image.into() }).unwrap();
        expected.retain(|object| object["kind"] != "Namespace");
        if namespace == NAMESPACE {
            // Releases of one cluster must not share what has no namespace.
            for object in &mut expected {
                if matches!(object["kind"].as_str(), Some("ClusterRole" | "ClusterRoleBinding")) {
                    object["metadata"]["name"] = format!("tidegate-{namespace}").into();
                }
                if object["kind"] == "ClusterRoleBinding" {
                    object["roleRef"]["name"] = format!("tidegate-{namespace}").into();
                }
            }
        }
        assert_eq!(by_name(&found), by_name(&expected));
    }
    // Nothing that Helm would evaluate, or take away.
    let kept: Vec<_> =
        std::fs::read_dir(chart.join("crds")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = kept.as_slice() else { panic!("{kept:?}") };
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("{{"), "{text}");
    assert_eq!(serde_saphyr::from_multiple::<Value>(&text).unwrap(), crate::kube::crds());
    let values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart.join("values.yaml")).unwrap()).unwrap();
    assert_eq!(values, serde_json::json!({"image": IMAGE}));
    let about: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(chart.join("Chart.yaml")).unwrap()).unwrap();
    assert_eq!((&about["apiVersion"], &about["name"]), (&"v2".into(), &"tidegate".into()));
    assert!(matches!(write_chart(&chart), Err(InstallError::NotEmpty(_))));
}
