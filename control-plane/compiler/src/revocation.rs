//! Rules that take something back for a time: added to what people wrote, and never by them.
//!
//! INVARIANT: what is a revocation is known by the path that it is given under. No file of a folder and no object of a
//! cluster can have it, so nobody writes a rule that nothing suspends.

use std::collections::BTreeMap;

use crate::tree::Tree;

/// How the path of a source begins whose rules nothing suspends (`RuleModel::revokes`).
pub const PATHS: &str = "\0revocation ";

/// How the names of a revocation's objects begin; nobody else's may ([`crate::Code::ReservedName`]).
pub const NAMES: &str = "tidegate-revoked-";

/// How far the forms of a frozen Caller stand from the left.
pub const INDENT: usize = 4;

/// How a reference to the environment begins.
pub const REFERENCE: &str = "${env.";

/// Whether a source of this path is a revocation.
pub fn is_revocation(path: &str) -> bool {
    path.starts_with(PATHS)
}

/// Who a Caller is, to be written down: its forms as YAML, with references to the environment, and what these refer to. How
/// much that may be is limited ([`crate::Code::CallerTooLarge`]). `None` where it cannot be read.
pub fn freeze(
    caller: Tree<'_>,
    environment: &BTreeMap<String, String>,
) -> Option<(Vec<String>, BTreeMap<String, String>)> {
    let forms = caller.at(&["spec", "anyOf"])?;
    let forms = forms.items().map(|form| form.block(INDENT)).collect::<Option<Vec<String>>>()?;
    let named = |name: &str| forms.iter().any(|form| form.contains(&format!("{REFERENCE}{name}}}")));
    let values = environment.iter().filter(|(name, _)| named(name));
    let values = values.map(|(name, value)| (name.clone(), value.clone())).collect();
    Some((forms, values))
}
