//! Further resources of the same service that a body names: each has to be one of the rule's names, too.

use tidegate_engine::model::{Condition, Operand};

use super::Wanted;
use super::bind;
use super::conditions::{any, if_present};
use super::name::{Name, Value};
use crate::catalogue::{Also, Scope, Service};

/// What names of this kind of resource look like.
fn pattern<'s>(service: &'s Service, also: &Also) -> Option<&'s [String]> {
    let is_one =
        |method: &&crate::catalogue::Method| method.resource_type == also.kind && method.scope == Scope::Item;
    service.methods.iter().find(is_one).map(|method| method.pattern.as_slice())
}

/// Whether a name can be of what the body names.
pub(super) fn is_about(service: &Service, also: &Also, name: &Name) -> bool {
    pattern(service, also).is_some_and(|pattern| name.meets(pattern))
}

/// Whether the rule has a name of what the body names, as one string, and all of those can be looked for in a body: what
/// cannot is refused as something that the body may name, and not left out.
pub(super) fn is_named(wanted: &Wanted<'_>, also: &Also) -> bool {
    // Those are objects or paths, or are read with another right.
    const AS_A_NAME: [&str; 5] = ["deadLetter", "schema", "snapshot", "subscription", "topic"];
    let mut names = wanted.names.iter().filter(|name| is_about(wanted.service, also, name)).peekable();
    AS_A_NAME.contains(&also.role.as_str())
        && names.peek().is_some()
        && names.all(|name| told(&Operand::Method, name).is_some())
}

/// What holds of a string that is this name.
fn told(operand: &Operand, name: &Name) -> Option<Condition> {
    bind::text(operand, &Value::Many(name.segments().to_vec())).ok()
}

/// It is one of the rule's names, or not there.
pub(super) fn said(wanted: &Wanted<'_>, also: &Also, operand: &Operand) -> Condition {
    let names = wanted.names.iter().filter(|name| is_about(wanted.service, also, name));
    let told: Vec<Condition> = names.filter_map(|name| told(operand, name)).collect();
    if_present(operand.clone(), any(told))
}
