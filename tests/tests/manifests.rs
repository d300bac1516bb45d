//! What `manifests/` holds: it can be read, built and installed, it grants no more than it has to, and its rules do what they
//! say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidegate_compiler::{Inputs, SourceFile};

#[path = "manifests/access.rs"]
mod access;
#[path = "manifests/admission.rs"]
mod admission;
#[path = "manifests/ci.rs"]
mod ci;
#[path = "manifests/control_plane.rs"]
mod control_plane;
#[path = "manifests/egress.rs"]
mod egress;
#[path = "kube/real.rs"]
#[allow(dead_code)]
mod real;
#[path = "manifests/schemas.rs"]
mod schemas;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("manifests")
}

/// Files of YAML below a folder, or the one that is named.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_owned()];
    }
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

pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Objects of Kubernetes, with their files.
pub(crate) fn objects() -> Vec<(PathBuf, Value)> {
    let of = |path: PathBuf| documents(&path).into_iter().map(move |object| (path.clone(), object));
    let all = ["base", "overlays", "examples", "ci/tekton", "ci/role.yaml"]
        .iter()
        .flat_map(|part| files(&root().join(part)));
    all.flat_map(of)
        .filter(|(_, object)| object["apiVersion"].is_string() && object["kind"] != "Kustomization")
        .collect()
}

pub(crate) fn of_kind<'o>(objects: &'o [(PathBuf, Value)], kind: &str) -> Vec<&'o Value> {
    objects.iter().map(|(_, object)| object).filter(|object| object["kind"] == kind).collect()
}

pub(crate) fn texts(value: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    value.as_array().map_or_else(BTreeSet::new, |items| items.iter().map(text).collect())
}

pub(crate) fn has(object: &Value, labels: &Value) -> bool {
    let labels = labels.as_object().unwrap();
    !labels.is_empty() && labels.iter().all(|(name, value)| object[name.as_str()] == *value)
}

/// Folders with a kustomization.
pub(crate) fn kustomizations() -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name == "kustomization.yaml");
    files(&root()).into_iter().filter(named).map(|path| path.parent().unwrap().to_owned()).collect()
}

pub(crate) fn kustomize(folder: &Path) -> Option<Vec<Value>> {
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

pub(crate) fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
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
pub(crate) fn kustomizations_build_and_list_every_file_beside_them() {
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
