//! YAML with lines, for readers of other objects than rules: Kubernetes manifests beside the rules.
//!
//! The same parser as for rules; so duplicate keys, tags and merge keys are faults here, too.

use std::collections::BTreeMap;

use crate::environment::substitute;
use crate::yaml::{self, Node, Style, Value};

/// A document or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'t>(&'t Node<'t>);

/// A document that can be read.
#[derive(Debug, Clone)]
pub struct TreeDocument(Node<'static>);

/// Something that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFault {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Reads all documents. Those with a fault inside are there without what is at fault. Values of the environment are put in
/// for `${env.name}`; what has none is left out, and is no fault here.
pub fn read(text: &str, env: Option<&BTreeMap<String, String>>) -> (Vec<TreeDocument>, Vec<TreeFault>) {
    let (documents, faults) = yaml::parse(text);
    let documents = documents.into_iter().map(|document| {
        let mut root = document.root;
        if let Some(env) = env {
            substitute(&mut root, env);
        }
        TreeDocument(root.into_owned())
    });
    let faults = faults.into_iter().map(|fault| TreeFault { line: fault.at.line, message: fault.message });
    (documents.collect(), faults.collect())
}

// === impl TreeDocument ===

impl TreeDocument {
    /// All of it.
    pub fn root(&self) -> Tree<'_> {
        Tree(&self.0)
    }
}

// === impl Tree ===

impl<'t> Tree<'t> {
    pub(crate) fn of(node: &'t Node<'t>) -> Self {
        Self(node)
    }

    /// A member.
    pub fn get(self, key: &str) -> Option<Self> {
        self.0.entry(key).map(|entry| Self(&entry.value))
    }

    /// A member of a member, and so on.
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }

    /// Items of a list; none if it is no list.
    pub fn items(self) -> impl Iterator<Item = Self> + use<'t> {
        let items = match &self.0.value {
            Value::List(items) => items.as_slice(),
            _ => &[],
        };
        items.iter().map(Self)
    }

    /// Names and values of a mapping; none if it is no mapping.
    pub fn members(self) -> impl Iterator<Item = (&'t str, Self)> + use<'t> {
        let members = match &self.0.value {
            Value::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        members.iter().map(|entry| (entry.key.as_ref(), Self(&entry.value)))
    }

    /// The text of a scalar.
    pub fn text(self) -> Option<&'t str> {
        self.0.text()
    }

    /// Counted from 1.
    pub fn line(self) -> u32 {
        self.0.at.line
    }

    /// Written again: members and items in lines of their own, so far from the left. What was in quotes is, and nothing else,
    /// so that it is read as it was. `None` where something in it could not be read.
    pub fn block(self, indent: usize) -> Option<String> {
        let mut text = String::new();
        block(self.0, indent, &mut text)?;
        Some(text)
    }
}

fn block(node: &Node<'_>, indent: usize, text: &mut String) -> Option<()> {
    let line = |text: &mut String, begin: &str, value: &Node<'_>| {
        text.extend(std::iter::repeat_n(' ', indent));
        text.push_str(begin);
        if matches!(&value.value, Value::Scalar { .. }) {
            text.push(' ');
            return block(value, 0, text);
        }
        text.push('\n');
        block(value, indent.saturating_add(2), text)
    };
    match &node.value {
        Value::Hole => return None,
        Value::Map(entries) if entries.is_empty() => {
            text.extend(std::iter::repeat_n(' ', indent));
            text.push_str("{}\n");
        }
        Value::List(items) if items.is_empty() => {
            text.extend(std::iter::repeat_n(' ', indent));
            text.push_str("[]\n");
        }
        Value::Map(entries) => {
            for entry in entries {
                let key = serde_json::Value::from(entry.key.as_ref());
                line(text, &format!("{key}:"), &entry.value)?;
            }
        }
        Value::List(items) => {
            for item in items {
                line(text, "-", item)?;
            }
        }
        Value::Scalar { text: scalar, style: Style::Quoted } => {
            text.push_str(&serde_json::Value::from(scalar.as_ref()).to_string());
            text.push('\n');
        }
        Value::Scalar { text: scalar, style: Style::Plain | Style::Substituted } => {
            text.push_str(scalar);
            text.push('\n');
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_again_is_read_as_it_was() {
        let text = "a: {b: [1, '1', true, \"x\\ny: #\", {c: []}, [2, [3]]], d: {}}\ne: |\n  two\n  lines\nf: ${env.x}-y z\n";
        let plain = |text: &str| {
            fn strip(node: &Node<'_>) -> String {
                match &node.value {
                    Value::Hole => "hole".to_owned(),
                    Value::Scalar { text, style } => format!("{style:?} {text:?}"),
                    Value::List(items) => format!("{:?}", items.iter().map(strip).collect::<Vec<_>>()),
                    Value::Map(entries) => {
                        let all = entries.iter().map(|entry| (entry.key.to_string(), strip(&entry.value)));
                        format!("{:?}", all.collect::<Vec<_>>())
                    }
                }
            }
            let (documents, faults) = read(text, None);
            assert_eq!(faults, [], "{text}");
            strip(documents.first().expect("a document").root().0)
        };
        let (documents, _) = read(text, None);
        let written = documents.first().expect("a document").root().block(0).expect("all can be read");
        assert_eq!(plain(&written), plain(text), "{written}");
        let nested = documents.first().expect("a document").root().block(4).expect("all can be read");
        assert_eq!(
            plain(&format!("x:\n{nested}")),
            format!("{:?}", [("x".to_owned(), plain(text))]),
            "{nested}"
        );
    }

    #[test]
    fn parts_are_found_with_their_lines() {
        let text = "kind: A\nspec:\n  list: [a, b]\n---\nkind: B\nspec: {list: [\"${env.x}\"]}\n---\nkind: C\nkind: C\n";
        let env = BTreeMap::from([("x".to_owned(), "y".to_owned())]);
        let (documents, faults) = read(text, Some(&env));
        let list = |position: usize| -> Vec<(Option<String>, u32)> {
            let document: &TreeDocument = documents.get(position).expect("it is there");
            let list = document.root().at(&["spec", "list"]).expect("it is there");
            list.items().map(|item| (item.text().map(str::to_owned), item.line())).collect()
        };
        assert_eq!(list(0), [(Some("a".to_owned()), 3), (Some("b".to_owned()), 3)]);
        assert_eq!(list(1), [(Some("y".to_owned()), 6)]);
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [9]);
        let root = documents.first().expect("it is there").root();
        assert_eq!(root.members().map(|(name, _)| name).collect::<Vec<_>>(), ["kind", "spec"]);
        assert!(root.get("other").is_none() && root.items().next().is_none());
    }
}
