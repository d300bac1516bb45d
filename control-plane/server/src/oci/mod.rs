//! The filter module as OCI images, in an image layout on disk (OCI image-layout 1.0.0), without Docker.
//!
//! Istio takes an image whose last layer is a `tar+gzip` with a file `plugin.wasm`, the *compat* variant of the Wasm image
//! specification (istio `pkg/wasm/imagefetcher.go`, `extractOCIStandardImage`); every registry stores such images.
//!
//! INVARIANT: same module, same digests. No time, no name of a machine, user or version is in an image.

mod tar;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use crate::bundle::{hex, sha256};
use crate::istio::ModuleDigests;
use crate::{FILTER_BODIES_WASM, FILTER_WASM};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The file that Istio looks for.
const PLUGIN: &str = "plugin.wasm";

/// One image: a manifest, a configuration and one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What the layout calls it.
    pub name: &'static str,
    manifest: Blob,
    config: Blob,
    layer: Blob,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    digest: String,
    content: Vec<u8>,
}

/// Why there is no layout.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// Something is there.
    #[error("`{path}` is not empty; name a new folder, or remove what is in it", path = .0.display())]
    NotEmpty(PathBuf),
    /// The file system refuses.
    #[error("cannot write `{path}`: {source}", path = path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The layer cannot be made.
    #[error("cannot compress the module: {0}")]
    Compress(#[from] io::Error),
}

/// Both builds of the module that this binary carries.
///
/// # Errors
/// When they cannot be compressed.
pub fn images() -> Result<[Image; 2], OciError> {
    Ok([Image::new("headers", FILTER_WASM)?, Image::new("bodies", FILTER_BODIES_WASM)?])
}

/// Digests of the images' manifests, as Istio compares them.
///
/// # Errors
/// When they cannot be compressed.
pub fn digests() -> Result<ModuleDigests, OciError> {
    let [headers, bodies] = images()?;
    Ok(ModuleDigests { headers: headers.manifest.digest, bodies: bodies.manifest.digest })
}

/// Writes a layout with these images into a folder that is empty or not there.
///
/// # Errors
/// When something is there, or cannot be written.
pub fn write_layout(folder: &Path, images: &[Image]) -> Result<(), OciError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OciError::Write { path, source }
    };
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(OciError::NotEmpty(folder.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(OciError::Write { path: folder.to_owned(), source }),
    }
    let blobs = folder.join("blobs").join("sha256");
    fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
    for blob in images.iter().flat_map(|image| [&image.manifest, &image.config, &image.layer]) {
        let path = blobs.join(&blob.digest);
        fs::write(&path, &blob.content).map_err(failed(&path))?;
    }
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut entry = image.manifest.descriptor(MANIFEST);
            if let Some(members) = entry.as_object_mut() {
                members
                    .insert("annotations".into(), json!({"org.opencontainers.image.ref.name": image.name}));
            }
            entry
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    // The file that says what the folder is comes last.
    for (name, content) in [("index.json", index), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))] {
        let path = folder.join(name);
        fs::write(&path, content.to_string()).map_err(failed(&path))?;
    }
    Ok(())
}

// === impl Image ===

impl Image {
    /// With this module.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn new(name: &'static str, module: &[u8]) -> Result<Self, OciError> {
        let archive = tar::archive(PLUGIN, module);
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        gzip.write_all(&archive)?;
        let layer = Blob::new(gzip.finish()?);
        let config = json!({
            "architecture": "wasm",
            "os": "wasip1",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&sha256(&archive)))]},
        });
        let config = Blob::new(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
            "annotations": {
                "org.opencontainers.image.title": format!("Tidegate filter ({name})"),
                "org.opencontainers.image.licenses": "Apache-2.0",
                "dev.tidegate.module.sha256": hex(&sha256(module)),
            },
        });
        let manifest = Blob::new(manifest.to_string().into_bytes());
        Ok(Self { name, manifest, config, layer })
    }

    /// SHA-256 of the manifest, lower-case hexadecimal.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Bytes that a registry stores.
    pub fn size(&self) -> usize {
        [&self.manifest, &self.config, &self.layer].iter().map(|blob| blob.content.len()).sum()
    }
}

// === impl Blob ===

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        Self { digest: hex(&sha256(&content)), content }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.content.len(),
        })
    }
}

#[cfg(test)]
mod tests;
