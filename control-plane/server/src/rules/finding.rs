//! What there is to say about rules on disk: the compiler's diagnostics, and files that it cannot be given.

use std::fmt;

use serde::Serialize;
use tidegate_compiler::Diagnostic;

/// Something about a file or what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Finding {
    /// About its content.
    Rule(Diagnostic),
    /// About the file itself.
    File(FileProblem),
}

/// A file that cannot be read as rules. Serialises with the fields of a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileProblem {
    /// The file, relative to the rules folder.
    pub file: String,
    line: u32,
    column: u32,
    /// Stable; programs may rely on it.
    pub code: &'static str,
    severity: &'static str,
    field: &'static str,
    /// What is wrong.
    pub message: String,
    /// Why it is refused.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

// === impl Finding ===

impl Finding {
    /// Whether nothing can be compiled with it.
    pub fn is_error(&self) -> bool {
        match self {
            Self::Rule(diagnostic) => diagnostic.is_error(),
            Self::File(_) => true,
        }
    }

    /// The file it is about; empty when it is about none.
    pub fn file(&self) -> &str {
        match self {
            Self::Rule(diagnostic) => &diagnostic.file,
            Self::File(problem) => &problem.file,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(diagnostic) => diagnostic.fmt(f),
            Self::File(FileProblem { file, code, message, why, fix, .. }) => {
                write!(f, "{file}: error[{code}]: {message}; {why}; {fix}")
            }
        }
    }
}

// === impl FileProblem ===

impl FileProblem {
    fn new(file: &str, code: &'static str, message: String, why: &'static str, fix: &'static str) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            code,
            severity: "error",
            field: "",
            message,
            why,
            fix,
        }
    }

    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        Self::new(
            file,
            "TG1001",
            format!("the file cannot be read: {error}"),
            "what it says is unknown, and a Deny in it must not disappear",
            "make it readable for this user, or delete it to remove its rules",
        )
    }

    pub(super) fn not_utf8(file: &str, offset: usize) -> Self {
        Self::new(
            file,
            "TG1002",
            format!("the file is not UTF-8 at byte {offset}"),
            "YAML is read as UTF-8 only, so that nobody reads it differently",
            "save it as UTF-8",
        )
    }

    pub(super) fn would_vanish(objects: &[String]) -> Self {
        Self::new(
            "",
            "TG1005",
            format!("with the last good form of the broken files, {} would disappear", objects.join(", ")),
            "they may have moved into a file that has errors, and what was in force must not disappear by a mistake",
            "mend the errors; deletions take effect together with that",
        )
    }

    pub(super) fn empty(file: &str) -> Self {
        Self::new(
            file,
            "TG1003",
            "the file is empty".to_owned(),
            "an empty file is more often a write that was cut off than a wish to remove rules",
            "delete the file to remove its rules",
        )
    }

    pub(super) fn too_large(file: &str, limit: u64) -> Self {
        Self::new(
            file,
            "TG1004",
            format!("the file is larger than {limit} bytes"),
            "rules are kept in memory",
            "split it",
        )
    }
}
