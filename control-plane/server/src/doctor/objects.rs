//! Objects of Kubernetes in files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 16;

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The file that it is in.
    pub source: String,
    /// All of it.
    pub value: Value,
}

/// Why objects cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The file system refuses.
    #[error("cannot read `{path}`: {source}", path = path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not YAML.
    #[error("`{file}` is not YAML: {why}; Helm templates have to be rendered first (`helm template`)")]
    Yaml {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Nothing is there.
    #[error(
        "`{0}` holds no object of Kubernetes; name a folder or file with manifests, or pipe `kubectl get … -o yaml` in"
    )]
    Empty(String),
}

/// Reads a file, a folder (every `*.yaml`, `*.yml` and `*.json` below it), or standard input for `-`.
///
/// # Errors
/// When something cannot be read, or nothing is there.
pub fn read(path: &Path) -> Result<Vec<Object>, ObjectsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ObjectsError::Read { path, source }
    };
    let mut objects = Vec::new();
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map_err(failed(path))?;
        parse("standard input", &text, &mut objects)?;
    } else {
        let mut found = Vec::new();
        files(path, 0, &mut found).map_err(failed(path))?;
        for file in found {
            let text = fs::read_to_string(&file).map_err(failed(&file))?;
            parse(&file.display().to_string(), &text, &mut objects)?;
        }
    }
    if objects.is_empty() {
        return Err(ObjectsError::Empty(path.display().to_string()));
    }
    Ok(objects)
}

fn files(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    for entry in entries {
        let is_manifest = entry.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        let is_folder = entry.is_dir();
        if (is_folder && depth < MAX_DEPTH) || (is_manifest && !is_folder) {
            files(&entry, depth.saturating_add(1), found)?;
        }
    }
    Ok(())
}

/// What is no object (values, patches) is left out: it is nothing that a cluster gets.
fn parse(file: &str, text: &str, objects: &mut Vec<Object>) -> Result<(), ObjectsError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| ObjectsError::Yaml { file: file.to_owned(), why: error.to_string() })?;
    for document in documents {
        flatten(file, document, objects);
    }
    Ok(())
}

fn flatten(file: &str, document: Value, objects: &mut Vec<Object>) {
    let is_list = document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match document.get("items").and_then(Value::as_array) {
        Some(items) if is_list => {
            for item in items {
                flatten(file, item.clone(), objects);
            }
        }
        _ if document.get("kind").is_some_and(Value::is_string) && document.get("apiVersion").is_some() => {
            objects.push(Object { source: file.to_owned(), value: document });
        }
        _ => {}
    }
}

// === impl Object ===

impl Object {
    /// A text; empty where there is none.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub(super) fn namespace(&self) -> &str {
        match self.text("/metadata/namespace") {
            "" => "default",
            namespace => namespace,
        }
    }

    /// Whether we wrote it.
    pub(super) fn is_ours(&self) -> bool {
        let labels = texts(self.value.pointer("/metadata/labels"));
        labels.get("app.kubernetes.io/managed-by").is_some_and(|by| by == "tidegate")
    }

    pub(super) fn list(&self, pointer: &str) -> &[Value] {
        self.value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind(), self.namespace(), self.text("/metadata/name"))
    }
}

/// The texts of a mapping, such as labels.
pub(super) fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    members.map(|(name, value)| (name.clone(), text(value))).collect()
}
