//! Conditions on query, headers and host that come from the catalogue.

use tidegate_engine::model::{BodyField, Condition, HostPattern, Operand, TextTest};

use crate::catalogue::HostForm;

/// All of these; no part stands for "always".
pub(crate) fn all(mut parts: Vec<Condition>) -> Condition {
    parts.retain(|part| *part != Condition::True);
    parts.dedup();
    match parts.len() {
        0 => Condition::True,
        1 => parts.pop().unwrap_or_default(),
        _ => Condition::All(parts),
    }
}

/// Any of these; must not be empty.
pub(crate) fn any(mut parts: Vec<Condition>) -> Condition {
    if parts.len() == 1 { parts.pop().unwrap_or_default() } else { Condition::Any(parts) }
}

pub(crate) fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

/// None of these query parameters is there.
pub(crate) fn without_query(names: impl IntoIterator<Item = String>) -> Condition {
    none_of(names.into_iter().map(|name| present(Operand::Query(name))).collect())
}

/// None of these headers is there.
pub(crate) fn without_headers(names: impl IntoIterator<Item = String>) -> Condition {
    none_of(names.into_iter().map(|name| present(Operand::Header(name))).collect())
}

/// None of these holds.
pub(crate) fn none_of(parts: Vec<Condition>) -> Condition {
    if parts.is_empty() { Condition::True } else { not(any(parts)) }
}

pub(crate) fn present(operand: Operand) -> Condition {
    Condition::Text(operand, TextTest::Present)
}

/// The path as a whole, `*` standing for any characters.
pub(crate) fn path_like(glob: String) -> Condition {
    Condition::Text(Operand::Path, TextTest::Glob(glob))
}

/// A string that this glob matches, or is, if it has no `*`.
pub(crate) fn text_like(operand: Operand, glob: &str) -> Condition {
    let test = if glob.contains('*') {
        TextTest::Glob(glob.to_owned())
    } else {
        TextTest::OneOf(vec![glob.to_owned()])
    };
    Condition::Text(operand, test)
}

/// Hosts of these forms: patterns that the engine finds rules by, and what must hold of the host besides.
///
/// An open part stands for one label or a part of one, never for a dot: `storage.*.rep.googleapis.com` is not the host of a
/// bucket.
pub(crate) fn hosts(forms: &[&HostForm]) -> (Vec<HostPattern>, Condition) {
    let mut patterns = Vec::new();
    let mut exact = Vec::new();
    let mut open = Vec::new();
    for form in forms {
        match form.exact() {
            Some(name) => {
                patterns.push(HostPattern::Exact(name.to_owned()));
                exact.push(name.to_owned());
            }
            None => {
                let glob = form.glob();
                let tail = glob.rsplit('*').next().unwrap_or_default();
                if let Some(suffix) = tail.find('.').and_then(|at| tail.get(at..)) {
                    patterns.push(HostPattern::Suffix(suffix.to_owned()));
                }
                let dotted = path_free(glob.replace('*', "*.*"));
                open.push(all(vec![path_free(glob), not(dotted)]));
            }
        }
    }
    patterns.sort();
    patterns.dedup();
    if open.is_empty() {
        return (patterns, Condition::True);
    }
    if !exact.is_empty() {
        open.insert(0, Condition::Text(Operand::Host, TextTest::OneOf(exact)));
    }
    (patterns, any(open))
}

fn path_free(glob: String) -> Condition {
    Condition::Text(Operand::Host, TextTest::Glob(glob))
}

/// A member of a JSON body; of Google's services by each of the names that they take for the same.
pub(crate) fn member(service: &str, path: &str) -> Operand {
    let names = |step: &str| {
        let step = step.trim_end_matches("[]");
        match service {
            "kubernetes" | "gitlab" => vec![step.to_owned()],
            _ => spellings(step),
        }
    };
    Operand::Body(BodyField::Json(path.split('.').map(names).collect()))
}

/// It is absent, or this holds.
pub(crate) fn if_present(operand: Operand, condition: Condition) -> Condition {
    if condition == Condition::True { condition } else { any(vec![not(present(operand)), condition]) }
}

/// The spellings of a field's name that servers take for the same: `gcsPath` and `gcs_path`, part by part.
pub(crate) fn spellings(field: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for (at, part) in field.split('.').enumerate() {
        let mut forms = vec![part.to_owned(), snake(part), camel(part)];
        forms.sort();
        forms.dedup();
        let dot = if at == 0 { "" } else { "." };
        all = all
            .iter()
            .flat_map(|before| forms.iter().map(move |form| format!("{before}{dot}{form}")))
            .collect();
    }
    all
}

fn snake(text: &str) -> String {
    let mut snake = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn camel(text: &str) -> String {
    let mut parts = text.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
