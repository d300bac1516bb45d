//! `${env.name}`: one set of rules for several environments.
//!
//! Values replace text inside of scalars of a tree that is already parsed, so a value can never become a field, a list or
//! another document. What is replaced is not looked at again.
//!
//! INVARIANT: a reference without a value is an error, never an empty string.

use std::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::yaml::{Node, Position, Step, Style, Value, show_path};

/// A reference that cannot be replaced.
#[derive(Debug)]
pub(crate) struct EnvironmentFault {
    pub(crate) code: Code,
    pub(crate) at: Position,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) why: &'static str,
    pub(crate) fix: String,
}

/// Replaces every reference in a tree. What cannot be replaced becomes a hole.
pub(crate) fn substitute(root: &mut Node<'_>, env: &BTreeMap<String, String>) -> Vec<EnvironmentFault> {
    let mut faults = Vec::new();
    if !has_reference(root) {
        return faults;
    }
    walk(root, env, &mut Vec::new(), &mut faults);
    faults
}

/// Whether there is anything to look at.
fn has_reference(node: &Node<'_>) -> bool {
    match &node.value {
        Value::Hole => false,
        Value::Scalar { text, .. } => text.contains("${"),
        Value::List(items) => items.iter().any(has_reference),
        Value::Map(entries) => {
            entries.iter().any(|entry| entry.key.contains("${") || has_reference(&entry.value))
        }
    }
}

fn walk(
    node: &mut Node<'_>,
    env: &BTreeMap<String, String>,
    path: &mut Vec<Step>,
    faults: &mut Vec<EnvironmentFault>,
) {
    match &mut node.value {
        Value::Hole => {}
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(Step::Index(index));
                walk(item, env, path, faults);
                path.pop();
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                path.push(Step::Key(entry.key.clone().into_owned()));
                if entry.key.contains("${") {
                    faults.push(EnvironmentFault {
                        code: Code::EnvironmentMalformed,
                        at: entry.key_at,
                        field: show_path(path),
                        message: format!("`{}` is the name of a field", entry.key),
                        why: "only values come from the environment",
                        fix: "write the name out".to_owned(),
                    });
                }
                walk(&mut entry.value, env, path, faults);
                path.pop();
            }
        }
        Value::Scalar { text, style } => {
            if !text.contains("${") {
                return;
            }
            match replace(text, env) {
                Ok(replaced) => {
                    *text = replaced.into();
                    if *style == Style::Plain {
                        *style = Style::Substituted;
                    }
                }
                Err(problem) => {
                    faults.push(problem.at(node.at, show_path(path), env));
                    node.value = Value::Hole;
                }
            }
        }
    }
}

enum Problem {
    Unset(String),
    Malformed(String),
}

fn replace(text: &str, env: &BTreeMap<String, String>) -> Result<String, Problem> {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        replaced.push_str(before);
        let Some((reference, after)) = after.split_once('}') else {
            return Err(Problem::Malformed(format!("${{{after}")));
        };
        let name = reference.strip_prefix("env.").filter(|name| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        });
        let Some(name) = name else {
            return Err(Problem::Malformed(format!("${{{reference}}}")));
        };
        match env.get(name) {
            Some(value) => replaced.push_str(value),
            None => return Err(Problem::Unset(name.to_owned())),
        }
        rest = after;
    }
    replaced.push_str(rest);
    Ok(replaced)
}

// === impl Problem ===

impl Problem {
    fn at(self, at: Position, field: String, env: &BTreeMap<String, String>) -> EnvironmentFault {
        match self {
            Self::Unset(name) => EnvironmentFault {
                code: Code::EnvironmentUnset,
                at,
                field,
                message: format!("`${{env.{name}}}` has no value"),
                why: "an unset name would silently change what the rule matches",
                fix: match crate::suggest::closest(&name, env.keys().map(String::as_str)) {
                    Some(known) => {
                        format!("did you mean `${{env.{known}}}`? Otherwise give `{name}` a value")
                    }
                    None => format!("give `{name}` a value"),
                },
            },
            Self::Malformed(written) => EnvironmentFault {
                code: Code::EnvironmentMalformed,
                at,
                field,
                message: format!("`{written}` is not a reference to an environment value"),
                why: "only `${env.name}` is replaced, and nothing else that looks like it is left in rules",
                fix: "write `${env.name}`, the name of letters, digits, `_` and `-`".to_owned(),
            },
        }
    }
}
