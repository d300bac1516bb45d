//! The committed code is what the `.proto` files say.
//!
//! `TIDEGATE_BLESS=1 cargo test -p tidegate-proto --test generated` writes it anew.

use std::path::{Path, PathBuf};

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        "tidegate/v1/policy_distribution.proto",
        "tidegate/v1/decision_sink.proto",
        "tidegate/v1/relay.proto",
    ];
    let descriptors = protox::compile(files, [root]).expect("the .proto files compile");
    tonic_prost_build::configure()
        .out_dir(into)
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .bytes(".tidegate.v1.SectionChunk.content")
        .compile_fds(descriptors)
        .expect("code is generated");
}

#[test]
fn the_committed_code_is_generated_from_the_proto_files() {
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/gen/tidegate.v1.rs");
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path());
    let fresh = std::fs::read_to_string(dir.path().join("tidegate.v1.rs")).unwrap();
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
    }
    let found = std::fs::read_to_string(&committed).unwrap();
    assert!(
        fresh == found,
        "proto/src/gen/tidegate.v1.rs is not what the .proto files generate; run \
         `TIDEGATE_BLESS=1 cargo test -p tidegate-proto --test generated` and commit the result"
    );
}
