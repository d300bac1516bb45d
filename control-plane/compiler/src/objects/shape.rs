//! What is wrong with the shape of an object: fields, types and values.

use super::reader::FileReader;
use crate::diagnostic::{Code, Diagnostic};
use crate::place::{ObjectId, position_of};
use crate::suggest;
use crate::yaml::{DecodeFault, Fault, Node, Step, show_path};

/// A misspelt field is missing as well: one mistake, one finding.
pub(super) fn drop_consequences(faults: &mut Vec<DecodeFault>) {
    let misspelt: Vec<(Vec<Step>, &str)> = faults
        .iter()
        .filter_map(|DecodeFault { path, fault }| match fault {
            Fault::UnknownField { name, expected } => {
                let meant = suggest::closest(name, expected.iter().copied())?;
                path.split_last().map(|(_, parent)| (parent.to_vec(), meant))
            }
            _ => None,
        })
        .collect();
    faults.retain(|DecodeFault { path, fault }| match fault {
        Fault::MissingField { name } => {
            !misspelt.iter().any(|(parent, meant)| parent == path && meant == name)
        }
        _ => true,
    });
}

// === impl FileReader ===

impl FileReader<'_> {
    /// Says what is wrong with the shape of an object.
    pub(super) fn shape(
        &self,
        root: &Node<'_>,
        id: Option<&ObjectId>,
        mut path: Vec<Step>,
        fault: Fault,
    ) -> Diagnostic {
        let of_key = matches!(fault, Fault::UnknownField { .. });
        let at = position_of(root, &path, of_key);
        let (code, message, why, fix) = match fault {
            Fault::UnknownField { name, expected } => {
                let fix = match suggest::closest(&name, expected.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("known here: {}", suggest::list(expected.iter().copied())),
                };
                let why = "a field that nobody reads would be a condition that nobody checks";
                (Code::UnknownField, format!("unknown field `{name}`"), why, fix)
            }
            Fault::MissingField { name } => {
                path.push(Step::Key(name.to_owned()));
                let why = "it has no default";
                (Code::MissingField, format!("`{name}` is missing"), why, format!("write `{name}`"))
            }
            Fault::WrongType { expected, found } => {
                let fix = match expected.as_str() {
                    "a string" if !found.starts_with("a ") => "put the value in quotes".to_owned(),
                    "a whole number" if found.starts_with("the string") => "remove the quotes".to_owned(),
                    "a list" => "write a list: `[…]`, or lines that begin with `-`".to_owned(),
                    "`true` or `false`" => "write `true` or `false`, without quotes".to_owned(),
                    _ => format!("write {expected}"),
                };
                (
                    Code::WrongType,
                    format!("{expected} is expected here, not {found}"),
                    "nothing is converted",
                    fix,
                )
            }
            Fault::UnknownValue { value, expected } => {
                let fix = match suggest::closest(&value, expected.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("write one of {}", suggest::list(expected.iter().copied())),
                };
                (
                    Code::UnknownValue,
                    format!("`{value}` is not a value of this field"),
                    "nothing is guessed",
                    fix,
                )
            }
            Fault::Ambiguous { text, meaning } => (
                Code::AmbiguousScalar,
                format!("`{text}` without quotes is {meaning} to some YAML readers"),
                "the same file must mean the same everywhere",
                format!("write `\"{text}\"`"),
            ),
            Fault::Null => (
                Code::NullValue,
                "nothing is written here".to_owned(),
                "an empty field is neither \"any\" nor \"none\"",
                "write a value, or remove the field".to_owned(),
            ),
            Fault::Other(message) => {
                (Code::WrongType, message, "nothing is guessed", "correct the value".to_owned())
            }
        };
        self.diagnostic(code, id, at, show_path(&path), message, why.to_owned(), fix)
    }
}
