use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;

use super::*;

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The content that a descriptor names, held against its digest and size.
fn resolve<'f>(files: &'f BTreeMap<String, Vec<u8>>, descriptor: &Value, media_type: &str) -> &'f [u8] {
    assert_eq!(descriptor["mediaType"], media_type);
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = &files[digest];
    assert_eq!(hex(&sha256(content)), digest);
    assert_eq!(descriptor["size"], content.len());
    content
}

#[test]
fn a_layout_leads_to_both_modules() {
    let folder = tempfile::tempdir().unwrap();
    let images = images().unwrap();
    let at = folder.path().join("new/layout");
    write_layout(&at, &images).unwrap();
    let files = files(&at);
    let json = |content: &[u8]| serde_json::from_slice::<Value>(content).unwrap();
    assert_eq!(json(&files["oci-layout"]), json!({"imageLayoutVersion": "1.0.0"}));
    let index = json(&files["index.json"]);
    assert_eq!(index["schemaVersion"], 2);
    let mut named = Vec::new();
    for (entry, module) in
        index["manifests"].as_array().unwrap().iter().zip([FILTER_WASM, FILTER_BODIES_WASM])
    {
        named.push(entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap());
        let manifest = json(resolve(&files, entry, MANIFEST));
        assert_eq!((&manifest["schemaVersion"], &manifest["mediaType"]), (&json!(2), &json!(MANIFEST)));
        let config = json(resolve(&files, &manifest["config"], CONFIG));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        let mut archive = Vec::new();
        let layer = resolve(&files, &layers[0], LAYER);
        GzDecoder::new(layer).read_to_end(&mut archive).unwrap();
        let diff_id = format!("sha256:{}", hex(&sha256(&archive)));
        assert_eq!(config["rootfs"], json!({"type": "layers", "diff_ids": [diff_id]}));
        assert!(config.get("created").is_none() && config.get("history").is_none());
        assert_eq!(archive.len() % 512, 0);
        assert!(archive.starts_with(b"plugin.wasm\0"));
        assert_eq!(&archive[512..512 + module.len()], module);
        assert!(archive[512 + module.len()..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(named, ["headers", "bodies"]);
    let digests = digests().unwrap();
    assert_eq!([digests.headers.as_str(), digests.bodies.as_str()], [images[0].digest(), images[1].digest()]);
}

#[test]
fn same_module_same_digests() {
    let image = |module: &[u8]| Image::new("headers", module).unwrap();
    assert_eq!(image(b"module"), image(b"module"));
    assert_ne!(image(b"module").digest(), image(b"modulf").digest());
    // A value that was seen: compression or metadata that depend on anything else would show.
    assert_eq!(image(b"module").digest(), "b38e81a91195b842108dd5ee44d348e09252f90a5fc0f09b399b55008f6f11a3");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine"), "x").unwrap();
    let error = write_layout(folder.path(), &images().unwrap()).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert_eq!(files(folder.path()).len(), 1);
    let file = folder.path().join("mine");
    assert!(matches!(write_layout(&file, &[]), Err(OciError::Write { .. })));
}

/// The system's own tar reads it, where there is one.
#[test]
fn other_programs_read_the_layer() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("layer.tar");
    for size in [0, 1, 511, 512, 513, 70_000] {
        let content = vec![0xA5; size];
        fs::write(&archive, tar::archive("plugin.wasm", &content)).unwrap();
        let output = std::process::Command::new("tar").arg("-xOf").arg(&archive).arg("plugin.wasm").output();
        let Ok(output) = output else {
            println!("SKIPPED: no `tar` here");
            return;
        };
        assert!(output.status.success() && output.stderr.is_empty(), "{size}: {output:?}");
        assert_eq!(output.stdout, content, "{size}");
    }
}
