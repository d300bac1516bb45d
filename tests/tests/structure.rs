//! The arrows among our crates, and what the pure ones must never know.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may use whom (DESIGN: `engine ← identity ← compiler ← server`; `wasm → engine, identity, proto`).
const ARROWS: [(&str, &[&str]); 7] = [
    ("tidegate-proto", &[]),
    ("tidegate-engine", &[]),
    ("tidegate-identity", &["tidegate-engine"]),
    ("tidegate-filter", &["tidegate-engine", "tidegate-identity", "tidegate-proto"]),
    ("tidegate-compiler", &["tidegate-engine", "tidegate-identity"]),
    ("tidegate", &["tidegate-compiler", "tidegate-engine", "tidegate-identity", "tidegate-proto"]),
    (
        "tidegate-tests",
        &["tidegate", "tidegate-compiler", "tidegate-engine", "tidegate-identity", "tidegate-proto"],
    ),
];

/// What the pure crates must not reach, even through others.
const IMPURE: [&str; 10] = [
    "proxy-wasm",
    "tonic",
    "tokio",
    "kube",
    "rustls",
    "hyper",
    "reqwest",
    "aws-lc-rs",
    "jsonwebtoken",
    "notify",
];

const PURE: [&str; 3] = ["tidegate-engine", "tidegate-identity", "tidegate-compiler"];

/// Packages by id: name, and the ids of normal and build dependencies.
fn graph() -> BTreeMap<String, (String, Vec<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let id = node["id"].as_str().unwrap();
            let shipped = node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| {
                    dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev")
                })
                .map(|dependency| dependency["pkg"].as_str().unwrap().to_owned())
                .collect();
            (id.to_owned(), (names[id].to_owned(), shipped))
        })
        .collect()
}

#[test]
fn arrows_among_our_crates_point_one_way() {
    let graph = graph();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in ARROWS {
        let (_, (_, dependencies)) = graph
            .iter()
            .find(|(_, (package, _))| package == name)
            .unwrap_or_else(|| panic!("no package {name}"));
        for dependency in dependencies {
            let dependency = graph[dependency].0.as_str();
            assert!(
                !ours.contains(dependency) || allowed.contains(&dependency),
                "{name} must not depend on {dependency}; it may use {allowed:?}"
            );
        }
    }
    let found =
        graph.values().filter(|(name, _)| name == "tidegate" || name.starts_with("tidegate-")).count();
    assert_eq!(found, ARROWS.len(), "a new crate has to be placed in the arrows");
}

#[test]
fn pure_crates_reach_nothing_impure() {
    let graph = graph();
    for name in PURE {
        let start = graph.iter().find(|(_, (package, _))| package == name).map(|(id, _)| id.clone()).unwrap();
        let mut seen = BTreeSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(id) = open.pop() {
            let (package, dependencies) = &graph[&id];
            assert!(!IMPURE.contains(&package.as_str()), "{name} reaches {package}");
            open.extend(dependencies.iter().filter(|next| seen.insert((*next).clone())).cloned());
        }
    }
}

#[test]
fn the_top_level_is_what_was_agreed() {
    let allowed: BTreeSet<&str> = [
        "Cargo.toml",
        "Cargo.lock",
        "filter",
        "control-plane",
        "proto",
        "manifests",
        "tests",
        "README.md",
        "rust-toolchain.toml",
        "deny.toml",
        "LICENSE",
        "target",
    ]
    .into();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || allowed.contains(name.as_str()),
            "`{name}` does not belong at the top level"
        );
    }
}
