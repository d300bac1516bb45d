//! `headers` and `query` of an operation.
//!
//! INVARIANT: a field that is there twice, or cannot be read, lets no Allow match and every Deny, whatever is asked of it.

use tidegate_engine::model::{Condition, Operand, TextTest};

use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::spec::FieldSpec;
use crate::suggest;
use crate::syntax;
use crate::text::check_text;
use crate::when::{header_name, parameter_name};

/// Checks both lists: all that they say must hold.
pub(super) fn check(
    place: &Place<'_>,
    headers: Option<&[FieldSpec]>,
    query: Option<&[FieldSpec]>,
    findings: &mut Findings,
) -> Condition {
    let mut all = Vec::new();
    for (field, list) in [("headers", headers), ("query", query)] {
        let Some(list) = list else { continue };
        let place = place.key(field);
        not_empty(&place, list, findings);
        for (index, spec) in list.iter().enumerate() {
            let place = place.index(index);
            let operand = match field {
                "headers" => header_name(&spec.name).map(Operand::Header),
                _ => parameter_name(&spec.name).map(|()| Operand::Query(spec.name.clone())),
            };
            match operand {
                Ok(operand) => all.extend(check_one(&place, operand, spec, findings)),
                Err((why, fix)) => findings.add(
                    &place.key("name"),
                    Code::MalformedValue,
                    format!("`{}` is not a name that rules compare", spec.name),
                    why,
                    fix,
                ),
            }
        }
    }
    match (all.pop(), all.is_empty()) {
        (None, _) => Condition::True,
        (Some(only), true) => only,
        (Some(last), false) => {
            all.push(last);
            Condition::All(all)
        }
    }
}

fn check_one(
    place: &Place<'_>,
    operand: Operand,
    spec: &FieldSpec,
    findings: &mut Findings,
) -> Option<Condition> {
    let FieldSpec { exact, prefix, glob, present, absent, .. } = spec;
    let written: Vec<&str> = [
        ("exact", exact.is_some()),
        ("prefix", prefix.is_some()),
        ("glob", glob.is_some()),
        ("present", present.is_some()),
        ("absent", absent.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, written)| written.then_some(name))
    .collect();
    let [one] = written.as_slice() else {
        findings.add(
            place,
            Code::NotExactlyOne,
            match written.is_empty() {
                true => format!("nothing is said of `{}`", spec.name),
                false => format!("{} are in the same entry", suggest::list(written)),
            },
            "an entry says one thing; all entries must hold",
            "write one of `exact`, `prefix`, `glob`, `present` and `absent`",
        );
        return None;
    };
    if *present == Some(false) || *absent == Some(false) {
        let other = if present.is_some() { "absent" } else { "present" };
        findings.add(
            &place.key(one),
            Code::MalformedValue,
            format!("`{one}: false` says the contrary of what it is called"),
            "what is demanded is written as such",
            format!("write `{other}: true`"),
        );
        return None;
    }
    let place = place.key(one);
    let before = findings.errors();
    let test = match (exact, prefix, glob) {
        // An empty value is one that requests have.
        (Some(text), ..) if text.is_empty() => TextTest::OneOf(vec![String::new()]),
        (Some(text), ..) => {
            check_text(&place, text, findings);
            if text.contains('*') {
                findings.add(
                    &place,
                    Code::PatternInExactValue,
                    format!("`{text}` looks like a pattern"),
                    "with `exact` a `*` stands for itself",
                    format!("write `glob: \"{text}\"`"),
                );
            }
            TextTest::OneOf(vec![text.clone()])
        }
        (None, Some(text), _) => {
            check_text(&place, text, findings);
            TextTest::Prefix(text.clone())
        }
        (None, None, Some(text)) => {
            check_text(&place, text, findings);
            if !text.is_empty() && text.bytes().all(|byte| byte == b'*') {
                findings.add(
                    &place,
                    Code::MalformedValue,
                    format!("`{text}` matches whatever is there"),
                    "a pattern that says nothing is no condition",
                    "write `present: true`",
                );
            }
            if !syntax::is_plain_text(text) {
                return None;
            }
            TextTest::Glob(text.clone())
        }
        (None, None, None) => {
            let present = Condition::Text(operand, TextTest::Present);
            return Some(if absent.is_some() { Condition::Not(Box::new(present)) } else { present });
        }
    };
    (findings.errors() == before).then_some(Condition::Text(operand, test))
}
