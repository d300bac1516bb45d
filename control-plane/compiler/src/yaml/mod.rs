//! YAML as a tree in which every node knows its place.
//!
//! One reader makes one tree per document; values *and* places come from it, so the two cannot disagree. The tree is then
//! read by serde ([`decode`]) into plain types. There are two readers: a fast one of what is written plainly ([`plain`]), and
//! one of all of YAML for the rest; what both can read they read alike.
//!
//! INVARIANT: stricter than YAML wherever YAML readers differ. Duplicate keys, tags, merge keys, nulls and scalars that
//! some readers take for something else are errors, never guesses; aliases are expanded within a bound.

mod builder;
mod cut;
mod decode;
mod parse;
mod plain;
mod scalar;

use std::borrow::Cow;

pub(crate) use cut::cut;
pub(crate) use decode::{DecodeFault, Decoded, Fault, decode};
pub(crate) use parse::{Document, MAX_FILE_BYTES, MAX_NODES, parse, parse_each, parse_from};

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
pub(crate) struct Node<'t> {
    pub(crate) at: Position,
    pub(crate) value: Value<'t>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'t> {
    Scalar {
        text: Cow<'t, str>,
        style: Style,
    },
    List(Vec<Node<'t>>),
    Map(Vec<Entry<'t>>),
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
pub(crate) struct Entry<'t> {
    pub(crate) key: Cow<'t, str>,
    pub(crate) key_at: Position,
    pub(crate) value: Node<'t>,
}

/// One step from a node to a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

// === impl Node ===

impl<'t> Node<'t> {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry<'t>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(crate) fn item(&self, index: usize) -> Option<&Node<'t>> {
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

    /// The same, on its own.
    pub(crate) fn into_owned(self) -> Node<'static> {
        let value = match self.value {
            Value::Scalar { text, style } => Value::Scalar { text: Cow::Owned(text.into_owned()), style },
            Value::List(items) => Value::List(items.into_iter().map(Node::into_owned).collect()),
            Value::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|Entry { key, key_at, value }| Entry {
                        key: Cow::Owned(key.into_owned()),
                        key_at,
                        value: value.into_owned(),
                    })
                    .collect(),
            ),
            Value::Hole => Value::Hole,
        };
        Node { at: self.at, value }
    }

    fn step_mut(&mut self, step: &Step) -> Option<&mut Node<'t>> {
        match (step, &mut self.value) {
            (Step::Key(key), Value::Map(entries)) => {
                entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.value)
            }
            (Step::Index(index), Value::List(items)) => items.get_mut(*index),
            _ => None,
        }
    }

    fn at_path_mut(&mut self, path: &[Step]) -> Option<&mut Node<'t>> {
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
