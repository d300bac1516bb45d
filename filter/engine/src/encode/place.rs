//! What an error is about. It costs nothing until there is one.

use std::fmt;

/// A Guard, a rule, or a part of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'p> {
    Guard(&'p str),
    Rule(&'p str),
    /// A rule's id, and which of its `from` or `to`.
    Part(&'p str, &'static str, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(id) => write!(f, "guard {id}"),
            Self::Rule(id) => write!(f, "rule {id}"),
            Self::Part(id, field, position) => write!(f, "rule {id}: {field}[{position}]"),
        }
    }
}
