//! The inner build of the filter for `wasm32-wasip1`.
//!
//! Shared by the build script and the test that builds from another folder.
//!
//! INVARIANT: the inner build sees nothing of the outer one but where the tools and registries are, and no path of this
//! machine enters the module: same source, same digest, whatever the folder, profile or user.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables that say where tools, registries and proxies are. Nothing else reaches the inner build.
const KEPT_VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    // Windows.
    "SystemRoot",
    "USERPROFILE",
];

/// Prefixes of variables that configure cargo's access to registries.
const KEPT_PREFIXES: &[&str] = &["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_"];

/// What the module is made of, relative to the workspace.
pub const SOURCES: &[&str] = &[
    "filter/engine/Cargo.toml",
    "filter/engine/src",
    "filter/identity/Cargo.toml",
    "filter/identity/src",
    "filter/wasm/Cargo.toml",
    "filter/wasm/src",
    "proto/Cargo.toml",
    "proto/src",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
];

/// Builds the filter of this workspace with this target folder, with or without what reads bodies; returns what the linker
/// wrote.
pub fn build(workspace: &Path, target: &Path, bodies: bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo did not set CARGO")?);
    cargo
        .current_dir(workspace)
        .env_clear()
        .envs(env::vars_os().filter(|(name, _)| is_kept(name)))
        .env("CARGO_ENCODED_RUSTFLAGS", remapped_paths(workspace)?.join("\x1f"))
        .args([
            "build",
            "--locked",
            "--profile",
            "filter",
            "-p",
            "tidegate-filter",
            "--target",
            "wasm32-wasip1",
        ])
        .arg("--target-dir")
        .arg(target)
        .args(if bodies { &["--features", "bodies"][..] } else { &[] });
    let output =
        cargo.output().map_err(|error| format!("cannot run cargo for the filter module: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the filter module does not build ({}); is the target there (`rustup target add wasm32-wasip1`)?\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let module: PathBuf =
        [target, "wasm32-wasip1".as_ref(), "filter".as_ref(), "tidegate_filter.wasm".as_ref()]
            .iter()
            .collect();
    fs::read(&module).map_err(|error| format!("cannot read `{}`: {error}", module.display()).into())
}

fn is_kept(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    KEPT_VARIABLES.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn remapped_paths(workspace: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .ok_or("neither CARGO_HOME nor HOME is set")?;
    let rustc: OsString = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc).current_dir(workspace).args(["--print", "sysroot"]).output()?;
    let sysroot = String::from_utf8(sysroot.stdout)?;
    Ok(vec![
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/rust", sysroot.trim()),
        format!("--remap-path-prefix={}=/tidegate", workspace.display()),
    ])
}
