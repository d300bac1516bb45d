//! What a body says once more of the name that the path or another field says: it is absent, or the same.

use tidegate_engine::model::Condition;

use super::Wanted;
use super::bind::{self, Obstacle};
use super::conditions::{all, if_present, member};
use super::message::{self, Piece};
use super::name::{Bound, Value};
use crate::catalogue::{Also, Binding, Method, NamePart, Part, Service, Source};

/// A part of a name inside of what repeats it: member, number, and the collection that it is of. Empty: the whole.
type Repeated = (&'static str, Option<u32>, &'static str);

/// Whether the request is of an older version, in which the account is elsewhere: then nobody could say what it runs as.
pub(super) fn is_old(wanted: &Wanted<'_>, method: &Method, binding: &Binding) -> bool {
    let is_beta =
        binding.path.parts().iter().any(|part| matches!(part, Part::Literal(text) if text == "v1beta1"));
    let moved = method.also.iter().any(|also| also.role == "oldRunAs");
    is_beta && moved && !wanted.unchecked.contains("runAs")
}

/// What something repeats, if it repeats a name.
pub(super) fn of(also: &Also) -> Option<&'static [Repeated]> {
    match also.role.as_str() {
        "projectInBody" => Some(&[("", None, "projects")]),
        "locationInBody" => Some(&[("", None, "locations")]),
        "datasetInBody" => Some(&[("datasetId", Some(1), "datasets"), ("projectId", Some(2), "projects")]),
        "tableInBody" => Some(&[
            ("projectId", Some(1), "projects"),
            ("datasetId", Some(2), "datasets"),
            ("tableId", Some(3), "tables"),
        ]),
        _ => None,
    }
}

/// Of a JSON body.
pub(super) fn in_json(
    service: &Service,
    method: &Method,
    binding: &Binding,
    bound: &Bound<'_>,
) -> Result<Condition, Obstacle> {
    let mut parts = Vec::new();
    for also in &method.also {
        for (name, _, collection) in of(also).unwrap_or_default() {
            let Some((from, value)) = demanded(binding, bound, collection) else { continue };
            let path = match *name {
                "" => also.path.clone(),
                name => format!("{}.{name}", also.path),
            };
            // Where the body is what says it, that has been seen to.
            if matches!(from, Source::Body(field) if *field == path) || value.is_any() {
                continue;
            }
            let operand = member(&service.name, &path);
            parts.push(if_present(operand.clone(), bind::text(&operand, value)?));
        }
    }
    Ok(all(parts))
}

/// What is demanded of the name's part in a collection.
fn demanded<'b>(
    binding: &Binding,
    bound: &'b Bound<'_>,
    collection: &str,
) -> Option<(&'b Source, &'b Value)> {
    let at = binding
        .resource
        .iter()
        .position(|part| matches!(part, NamePart::Literal(text) if text == collection))?;
    let Some(NamePart::Variable { from, .. }) = binding.resource.get(at.checked_add(1)?) else { return None };
    bound.iter().find(|(known, _)| *known == from).map(|(from, value)| (*from, value))
}

/// Of a message. `None`: it cannot be told.
pub(super) fn in_message(method: &Method, name: &[(&[u32], Vec<Piece>)]) -> Option<Condition> {
    let mut parts = Vec::new();
    for also in method.also.iter().filter(|also| !also.fields.is_empty()) {
        for (_, number, collection) in of(also).unwrap_or_default() {
            let piece = name.iter().flat_map(|(_, pieces)| pieces).find(|piece| piece.parent == *collection);
            let Some(piece) = piece else { continue };
            let numbers: Vec<u32> = also.fields.iter().copied().chain(*number).collect();
            // The field that is the name.
            if name.iter().any(|(known, _)| **known == *numbers) {
                continue;
            }
            let operand = message::field(&numbers);
            let said = message::said(operand.clone(), std::slice::from_ref(&piece.segment))?;
            parts.push(if_present(operand, said));
        }
    }
    Some(all(parts))
}
