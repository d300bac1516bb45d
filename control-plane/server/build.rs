//! Builds the filter, packages it, and leaves it for the library to embed. `TIDEGATE_FILTER_WASM` names a packaged module
//! to embed instead, in both forms. (One that was built for headers only refuses what depends on a body.)

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest, Sha256};

#[path = "src/package/build.rs"]
mod build;
#[path = "src/package/module.rs"]
mod module;

const OVERRIDE: &str = "TIDEGATE_FILTER_WASM";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    for part in ["build.rs", "src/package/build.rs", "src/package/module.rs"] {
        println!("cargo::rerun-if-changed={part}");
    }
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    for (bodies, name) in [(true, "tidegate_filter_bodies"), (false, "tidegate_filter")] {
        let embedded = match env::var_os(OVERRIDE) {
            Some(path) if !path.is_empty() => read_override(Path::new(&path))?,
            _ => build_and_package(&out_dir, bodies)?,
        };
        let digest: String = Sha256::digest(&embedded).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(out_dir.join(format!("{name}.wasm")), &embedded)?;
        println!("cargo::rustc-env={}_SHA256={digest}", name.to_uppercase());
    }
    Ok(())
}

fn read_override(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read(path).map_err(|error| {
        format!("{OVERRIDE}: cannot read the packaged module `{}`: {error}", path.display()).into()
    })
}

fn build_and_package(out_dir: &Path, bodies: bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir
        .ancestors()
        .nth(2)
        .ok_or("the server crate is expected two folders below the workspace root")?
        .canonicalize()?;
    for source in build::SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let linked = build::build(&workspace, &target_dir(out_dir), bodies)?;
    let packaged = module::package(&linked, bodies)
        .map_err(|error| format!("cannot package the filter module: {error}"))?;
    Ok(packaged.module)
}

/// One target folder for all profiles of the outer build, beside theirs: in theirs the inner cargo would wait forever
/// for the outer one's lock.
fn target_dir(out_dir: &Path) -> PathBuf {
    let target = out_dir.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.unwrap_or(out_dir).join("filter-module")
}

fn variable(name: &str) -> Result<OsString, Box<dyn Error>> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}").into())
}
