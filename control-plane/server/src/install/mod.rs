//! The control plane's own objects: the base of `manifests/`, with a few values put in by place, never by text.
//!
//! INVARIANT: with the values as they are in the base, the objects are those of `kubectl kustomize manifests/base`, one by
//! one; and a chart with its own values gives the same.

mod edit;
mod helm;

use std::path::PathBuf;

use serde_json::Value;

pub use helm::write_chart;

/// The namespace in the base.
pub const NAMESPACE: &str = "tidegate-system";
/// The image in the base.
pub const IMAGE: &str = "ghcr.io/tidegate/tidegate:0.1.0";

/// The files that the base lists, in its order.
const BASE: [&str; 12] = [
    include_str!("../../../../manifests/base/namespace.yaml"),
    include_str!("../../../../manifests/base/crds.yaml"),
    include_str!("../../../../manifests/base/service-account.yaml"),
    include_str!("../../../../manifests/base/cluster-role.yaml"),
    include_str!("../../../../manifests/base/role.yaml"),
    include_str!("../../../../manifests/base/storage.yaml"),
    include_str!("../../../../manifests/base/deployment.yaml"),
    include_str!("../../../../manifests/base/service.yaml"),
    include_str!("../../../../manifests/base/pod-disruption-budget.yaml"),
    include_str!("../../../../manifests/base/network-policy.yaml"),
    include_str!("../../../../manifests/base/peer-authentication.yaml"),
    include_str!("../../../../manifests/base/authorization-policy.yaml"),
];

/// What differs from installation to installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the control plane is.
    pub namespace: String,
    /// Its image.
    pub image: String,
}

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Not a namespace.
    #[error("`{0}` is not a namespace: write lower-case letters, digits and `-`, at most 63")]
    Namespace(String),
    /// Not an image.
    #[error("`{0}` is not an image: write registry, repository and tag or digest, without spaces")]
    Image(String),
    /// What this binary carries cannot be used.
    #[error("the manifests of this binary are damaged: {0}; this is a defect, please report it")]
    Base(String),
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}", path = path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Files are there that would be mixed with the new ones.
    #[error("`{path}` is not empty; name a new folder, or remove what is in it", path = .0.display())]
    NotEmpty(PathBuf),
}

/// The objects, in the order in which they are to be applied.
///
/// # Errors
/// When a setting cannot be one.
pub fn objects(settings: &Settings) -> Result<Vec<Value>, InstallError> {
    settings.check()?;
    edit::set(base()?, settings)
}

/// Several documents of YAML.
///
/// # Errors
/// When an object cannot be written, which is a defect.
pub fn to_yaml(objects: &[Value]) -> Result<String, InstallError> {
    let mut text = String::new();
    for object in objects {
        let document =
            serde_saphyr::to_string(object).map_err(|error| InstallError::Base(error.to_string()))?;
        text.push_str("---\n");
        text.push_str(&document);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// The base as it is.
fn base() -> Result<Vec<Value>, InstallError> {
    let mut objects = Vec::new();
    for file in BASE {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(file).map_err(|error| InstallError::Base(error.to_string()))?;
        objects.extend(documents);
    }
    Ok(objects)
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { namespace: NAMESPACE.to_owned(), image: IMAGE.to_owned() }
    }
}

impl Settings {
    fn check(&self) -> Result<(), InstallError> {
        let label = |text: &str| {
            !text.is_empty()
                && text.len() <= 63
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !text.starts_with('-')
                && !text.ends_with('-')
        };
        if !label(&self.namespace) {
            return Err(InstallError::Namespace(self.namespace.clone()));
        }
        let image = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte))
                && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        };
        if !image(&self.image) {
            return Err(InstallError::Image(self.image.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
