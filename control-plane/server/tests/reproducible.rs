//! Same source, same digest: the filter built from another folder is the one that this binary carries.

use std::fs;
use std::path::Path;

#[allow(dead_code)]
#[path = "../src/package/build.rs"]
mod build;
#[allow(dead_code)]
#[path = "../src/package/module.rs"]
mod module;

/// Everything that cargo reads of the workspace; of other members only what names them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with('.') || name == "target") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

#[test]
fn the_filter_built_from_another_folder_has_the_same_digest() {
    if option_env!("TIDEGATE_FILTER_WASM").is_some_and(|path| !path.is_empty()) {
        let why = "SKIPPED: TIDEGATE_FILTER_WASM names the embedded module; there is no build to repeat";
        assert!(std::env::var_os("TIDEGATE_NO_SKIPS").is_none(), "{why}");
        println!("{why}");
        return;
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().canonicalize().unwrap();
    let elsewhere = tempfile::Builder::new().prefix("a folder of another name ").tempdir().unwrap();
    let root = elsewhere.path().canonicalize().unwrap().join("and depth/tidegate");
    copy(&workspace, &root);
    let target = elsewhere.path().join("target");
    for (bodies, digest, size) in [
        (false, tidegate::FILTER_SHA256, tidegate::FILTER_WASM.len()),
        (true, tidegate::FILTER_BODIES_SHA256, tidegate::FILTER_BODIES_WASM.len()),
    ] {
        let linked = build::build(&root, &target, bodies).unwrap();
        let packaged = module::package(&linked, bodies).unwrap();
        assert!(!packaged.dropped_exports.is_empty());
        let there = tidegate::bundle::hex(&tidegate::bundle::sha256(&packaged.module));
        assert_eq!(there, digest, "{size} bytes here, {} bytes there", packaged.module.len());
    }
}
