//! How large a Caller may be: small enough to be revoked.
//!
//! Whoever revokes a Caller writes down who it is at that moment. Where replicas share a cluster, all that is revoked is one
//! object of it, of which there is a largest size. The author of a Caller must not be the one who can make it irrevocable, nor
//! take the room that others' revocations need.
//!
//! INVARIANT: measured is what is written down ([`revocation::freeze`]), not something like it.

use std::collections::BTreeMap;

use crate::revocation;
use crate::tree::Tree;
use crate::yaml::{Node, Step, Value};

/// Most forms of a Caller: a revocation makes an entry of a Deny at every workload of each.
const MAX_FORMS: usize = 32;

/// Most items of a list, or fields of a mapping, in a Caller.
const MAX_ITEMS: usize = 256;

/// Most bytes that a Caller takes where it is written down as revoked: of the largest, more than forty have room in 900 000,
/// where replicas keep what is revoked.
pub(super) const MAX_BYTES: usize = 16 << 10;

pub(super) const WHY: &str =
    "whoever revokes a Caller writes down who it is, and what is revoked has to have room beside others";

/// Of what there is too much.
pub(super) struct TooLarge {
    pub(super) path: Vec<Step>,
    pub(super) message: String,
    pub(super) fix: &'static str,
}

/// How many bytes a Caller takes where it is written down as revoked. `root`: as it is written, before values of the
/// environment are put in. `None`: it is none, or cannot be read.
pub(super) fn written(root: &Node<'_>, env: &BTreeMap<String, String>) -> Option<usize> {
    // Which kind it is may come from the environment, too.
    root.entry("kind")?.value.text().filter(|kind| *kind == "Caller" || kind.contains("${"))?;
    let (forms, values) = revocation::freeze(Tree::of(root), env)?;
    // In quotes, and with what is between it and the next one.
    let json = |text: &str| serde_json::Value::from(text).to_string().len().saturating_add(1);
    let forms = forms.iter().map(|form| json(form));
    let values = values.iter().flat_map(|(name, value)| [json(name), json(value)]);
    Some(forms.chain(values).fold(0, usize::saturating_add))
}

/// All of which a Caller has too much. `root`: with values of the environment.
pub(super) fn too_large(root: &Node<'_>, written: Option<usize>) -> Vec<TooLarge> {
    let mut found = Vec::new();
    let Some(spec) = root.entry("spec") else { return found };
    let mut path = vec![Step::Key("spec".to_owned())];
    let forms = spec.value.entry("anyOf").map_or(0, |forms| items(&forms.value));
    let any_of = || vec![Step::Key("spec".to_owned()), Step::Key("anyOf".to_owned())];
    if forms > MAX_FORMS {
        found.push(TooLarge {
            path: any_of(),
            message: format!("the Caller has {forms} forms, and {MAX_FORMS} are the most"),
            fix: "list accounts in one form that differ in nothing else, or declare several Callers",
        });
    } else {
        look(&spec.value, &mut path, &mut found);
    }
    if let Some(bytes) = written.filter(|bytes| *bytes > MAX_BYTES) {
        found.push(TooLarge {
            path: any_of(),
            message: format!("revoked, the Caller would take {bytes} bytes, and {MAX_BYTES} are the most"),
            fix: "declare several Callers, or demand what all of them share instead of listing each",
        });
    }
    found
}

fn items(node: &Node<'_>) -> usize {
    match &node.value {
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::Scalar { .. } | Value::Hole => 0,
    }
}

/// Lists and mappings that are too long, and nothing inside of them.
fn look(node: &Node<'_>, path: &mut Vec<Step>, found: &mut Vec<TooLarge>) {
    let count = items(node);
    if count > MAX_ITEMS {
        found.push(TooLarge {
            path: path.clone(),
            message: format!("{count} are listed, and in a Caller {MAX_ITEMS} are the most"),
            fix: "declare several Callers, or demand what all of them share instead of listing each",
        });
        return;
    }
    let mut inside = |step: Step, node: &Node<'_>| {
        path.push(step);
        look(node, path, found);
        path.pop();
    };
    match &node.value {
        Value::List(items) => {
            items.iter().enumerate().for_each(|(at, item)| inside(Step::Index(at), item));
        }
        Value::Map(entries) => {
            entries.iter().for_each(|entry| inside(Step::Key(entry.key.to_string()), &entry.value));
        }
        Value::Scalar { .. } | Value::Hole => {}
    }
}
