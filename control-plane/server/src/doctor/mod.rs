//! What is wrong with an installation, or will be: in rules, in manifests, and in a control plane that runs.
//!
//! INVARIANT: every finding says what, where, why it matters, and what to do. What cannot be read is an error, never a clean
//! result.

mod codes;
mod mesh;
mod objects;
mod plugins;
mod pods;
mod server;
mod upgrade;

use std::fmt;

use serde::Serialize;
use tidegate_compiler::{Compiled, Diagnostic};

pub use codes::Code;
pub use objects::{Object, ObjectsError, read};
pub use server::{Asked, server};
pub use upgrade::upgrade;

use crate::bundle::TrustedKey;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not enforced, or will not be.
    Error,
    /// Something may not be enforced, or somebody should look.
    Warning,
    /// Good to know.
    Note,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Stable; programs may rely on it.
    pub code: String,
    /// File, or where else it was found.
    #[serde(rename = "in")]
    pub source: String,
    /// Kind, namespace and name; may be empty.
    pub object: String,
    /// Path of the field; may be empty.
    pub field: String,
    /// What.
    pub message: String,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// What manifests are held against.
#[derive(Debug, Clone, Default)]
pub struct Against<'a> {
    /// Rules: what is about their guarded workloads weighs more.
    pub rules: Option<&'a Compiled>,
    /// The keys that the control plane signs with: the current one, then the next.
    pub keys: Option<&'a [TrustedKey]>,
}

/// Looks at manifests.
pub fn manifests(objects: &[Object], against: &Against<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for object in objects {
        plugins::check(object, against, &mut findings);
        pods::check(object, against, &mut findings);
        mesh::check(object, &mut findings);
    }
    findings
}

/// What the compiler says.
pub fn diagnostic(diagnostic: &Diagnostic) -> Finding {
    Finding {
        severity: if diagnostic.is_error() { Severity::Error } else { Severity::Warning },
        code: diagnostic.code.as_str().to_owned(),
        source: format!("{}:{}", diagnostic.file, diagnostic.line),
        object: diagnostic.object.clone().unwrap_or_default(),
        field: diagnostic.field.clone(),
        message: diagnostic.message.clone(),
        why: diagnostic.why.clone(),
        fix: diagnostic.fix.clone(),
    }
}

// === impl Finding ===

impl Finding {
    /// As bad as findings of this code are.
    fn new(code: Code, source: &str, object: String, field: &str, message: String) -> Self {
        Self {
            severity: code.severity(),
            code: code.as_str().to_owned(),
            source: source.to_owned(),
            object,
            field: field.to_owned(),
            message,
            why: code.why().to_owned(),
            fix: code.fix().to_owned(),
        }
    }

    fn about(code: Code, object: &Object, field: &str, message: String) -> Self {
        Self::new(code, &object.source, object.to_string(), field, message)
    }

    fn worse(mut self, is_worse: bool) -> Self {
        if is_worse {
            self.severity = Severity::Error;
        }
        self
    }
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

#[cfg(test)]
mod tests;
