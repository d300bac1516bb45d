//! YAML as a tree in which every node knows its place.
//!
//! One parser makes one tree per document; values *and* places come from it, so the two cannot disagree. The tree is then
//! read by serde ([`decode`]) into plain types.
//!
//! INVARIANT: stricter than YAML wherever YAML readers differ. Duplicate keys, tags, merge keys, nulls and scalars that
//! some readers take for something else are errors, never guesses; aliases are expanded within a bound.

mod decode;
mod parse;
mod scalar;

pub(crate) use decode::{DecodeFault, Decoded, Fault, decode};
pub(crate) use parse::{Document, MAX_FILE_BYTES, parse, parse_each};

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    /// Counted from 1.
    pub(crate) line: u32,
    /// Counted from 1, in characters.
    pub(crate) column: u32,
}

/// A node and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar {
        text: String,
        style: Style,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Stands where something unusable was found and reported, so that reading can go on to find the rest.
    /// INVARIANT: an object that ever had one is never used.
    Hole,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: may be a number, a boolean or null.
    Plain,
    /// In quotes or as a block: always a string.
    Quoted,
    /// Without quotes, and its text came from the environment: a string, or a number where one is wanted.
    Substituted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Node,
}

/// One step from a node to a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

// === impl Node ===

impl Node {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(crate) fn item(&self, index: usize) -> Option<&Node> {
        match &self.value {
            Value::List(items) => items.get(index),
            _ => None,
        }
    }

    /// The text of a string scalar, for reading `kind` and names out of documents that may be broken elsewhere.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    fn step_mut(&mut self, step: &Step) -> Option<&mut Node> {
        match (step, &mut self.value) {
            (Step::Key(key), Value::Map(entries)) => {
                entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.value)
            }
            (Step::Index(index), Value::List(items)) => items.get_mut(*index),
            _ => None,
        }
    }

    fn at_path_mut(&mut self, path: &[Step]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, step| node.step_mut(step))
    }
}

/// Writes a path as people do: `spec.from[0].claims["a.b"]`.
pub(crate) fn show_path(path: &[Step]) -> String {
    let mut shown = String::new();
    for step in path {
        push_step(&mut shown, step);
    }
    shown
}

pub(crate) fn push_step(shown: &mut String, step: &Step) {
    use std::fmt::Write as _;
    // Writing into a String cannot fail.
    let _ = match step {
        Step::Index(index) => write!(shown, "[{index}]"),
        Step::Key(key) if is_plain_name(key) && shown.is_empty() => write!(shown, "{key}"),
        Step::Key(key) if is_plain_name(key) => write!(shown, ".{key}"),
        Step::Key(key) => write!(shown, "[{key:?}]"),
    };
}

fn is_plain_name(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
