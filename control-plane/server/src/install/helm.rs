//! A Helm chart of the same objects.
//!
//! Values are put in by the same edits; only that they are expressions here, which Helm evaluates inside quoted texts. The
//! namespace is the release's own, and Helm makes it.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::{IMAGE, InstallError, Settings, base, edit, to_yaml};

/// The kind of definitions of kinds, as a file is called.
const DEFINITION: &str = "customresourcedefinition";

/// Writes a chart into a folder that is empty or not there.
///
/// # Errors
/// When something is there, or cannot be written.
pub fn write_chart(folder: &Path) -> Result<(), InstallError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Write { path, source }
    };
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(InstallError::NotEmpty(folder.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(InstallError::Write { path: folder.to_owned(), source }),
    }
    let templates = folder.join("templates");
    fs::create_dir_all(&templates).map_err(failed(&templates))?;
    let write = |path: std::path::PathBuf, text: &str| fs::write(&path, text).map_err(failed(&path));
    let version = env!("CARGO_PKG_VERSION");
    write(
        folder.join("Chart.yaml"),
        &format!(
            "apiVersion: v2\nname: tidegate\ndescription: The control plane of Tidegate\ntype: application\nversion: {version}\n\
             appVersion: \"{version}\"\nkubeVersion: \">=1.29.0-0\"\n"
        ),
    )?;
    write(
        folder.join("values.yaml"),
        &format!("# Registry, repository, and tag or digest.\nimage: {IMAGE}\n"),
    )?;
    write(folder.join(".helmignore"), "*.orig\n")?;
    for (name, objects) in templated()? {
        // Helm installs these first, evaluates nothing in them, and does not take them away with the release: all rules of the
        // cluster would go with them.
        let parent = if name == DEFINITION { folder.join("crds") } else { templates.clone() };
        fs::create_dir_all(&parent).map_err(failed(&parent))?;
        write(parent.join(format!("{name}.yaml")), &to_yaml(&objects)?)?;
    }
    Ok(())
}

/// Files of templates, by kind.
fn templated() -> Result<Vec<(String, Vec<Value>)>, InstallError> {
    let settings = Settings {
        namespace: "{{ .Release.Namespace }}".to_owned(),
        image: "{{ .Values.image }}".to_owned(),
    };
    let base = base()?;
    // A brace of the base would be evaluated as well.
    if base.iter().any(|object| object.to_string().contains("{{")) {
        return Err(InstallError::Base("a manifest contains `{{`".to_owned()));
    }
    let mut files: Vec<(String, Vec<Value>)> = Vec::new();
    for object in edit::set(base, &settings)? {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        if kind == "namespace" {
            continue;
        }
        match files.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, objects)) => objects.push(object),
            None => files.push((kind, vec![object])),
        }
    }
    Ok(files)
}
