//! What Istio can say of a path.
//!
//! Istio compares the bytes that were sent, after the mesh's own normalisation and without the query; the engine compares what
//! they stand for. A character that clients may send encoded therefore has several spellings, of which Istio knows one: the
//! others all begin with what comes before the character and a percent sign, and that much can be said.
//!
//! INVARIANT: [`containing`] matches every spelling of every path that the engine matches. [`within`] matches only paths that
//! the engine matches or refuses as ambiguous.

use std::collections::BTreeSet;

use tidegate_engine::model::{PathPattern, SegmentPattern};

use super::Normalization;
use super::words::Said;

/// One segment, of the bytes that paths without ambiguity consist of.
const ONE: &str = "{*}";

/// What may follow a slash: nothing as well.
const REST: &str = "{**}";

/// At least these paths; `None`: any path.
pub(super) fn containing(pattern: &PathPattern, normalization: Normalization) -> Option<Said> {
    let leading = leading(pattern);
    if leading.text.contains(['{', '}']) {
        return None;
    }
    let mut said = Said { values: BTreeSet::new(), wider: None };
    let literal = match leading.rest.split_first() {
        None => {
            said.values.insert(leading.text.clone());
            if leading.text.ends_with('*') {
                said.wider = Some("Istio takes a star at the end for a wildcard");
            }
            leading.text
        }
        Some((SegmentPattern::Rest, _)) => {
            if leading.text == "/" {
                return None;
            }
            said.values.insert(format!("{}*", leading.text));
            said.values.insert(leading.text.strip_suffix('/').unwrap_or(&leading.text).to_owned());
            leading.text
        }
        Some((SegmentPattern::Glob(glob), [])) if !glob.starts_with('*') => {
            let before = glob.split_once('*').map_or(glob.as_str(), |(before, _)| before);
            let literal = format!("{}{before}", leading.text);
            said.values.insert(format!("{literal}*"));
            said.wider = Some("a prefix of Istio goes on past slashes");
            literal
        }
        Some(_) => {
            template(pattern, leading.literals, normalization, &mut said);
            leading.text
        }
    };
    let others: Vec<String> = spelled(&literal, normalization).collect();
    if !others.is_empty() {
        said.wider = Some("a character may be sent encoded, and Istio compares what is sent");
    }
    said.values.extend(others);
    Some(said)
}

/// At most these paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Within {
    Any,
    Values(BTreeSet<String>),
    /// Istio cannot say it.
    Nothing,
}

/// At most these paths. Whether there is a slash at the end does not matter to a Deny.
pub(super) fn within(pattern: &PathPattern) -> Within {
    let leading = leading(pattern);
    if leading.text.contains(['{', '}']) {
        return Within::Nothing;
    }
    let bare = leading.text.strip_suffix('/').unwrap_or(&leading.text);
    match leading.rest.first() {
        None if bare.is_empty() => Within::Values(BTreeSet::from(["/".to_owned()])),
        None if bare.ends_with('*') => Within::Nothing,
        None => Within::Values(BTreeSet::from([bare.to_owned(), format!("{bare}/")])),
        Some(SegmentPattern::Rest) if bare.is_empty() => Within::Any,
        Some(SegmentPattern::Rest) => {
            let mut values = BTreeSet::from([format!("{bare}/*")]);
            if !bare.ends_with('*') {
                values.insert(bare.to_owned());
            }
            Within::Values(values)
        }
        Some(_) => {
            let mut text = String::new();
            let mut values = BTreeSet::new();
            for segment in &pattern.segments {
                match segment {
                    SegmentPattern::Literal(literal) if literal.is_empty() => break,
                    SegmentPattern::Literal(literal) if fits_template(literal) => {
                        text.push_str(&format!("/{literal}"))
                    }
                    SegmentPattern::One => text.push_str(&format!("/{ONE}")),
                    SegmentPattern::Rest => {
                        values.insert(format!("{text}/{REST}"));
                        break;
                    }
                    SegmentPattern::Literal(_) | SegmentPattern::Glob(_) => return Within::Nothing,
                }
            }
            values.insert(text);
            Within::Values(values)
        }
    }
}

/// What a pattern begins with.
struct Leading<'p> {
    /// Up to the first segment that is not literal, with the slash before it.
    text: String,
    /// How many segments that are.
    literals: usize,
    rest: &'p [SegmentPattern],
}

fn leading(pattern: &PathPattern) -> Leading<'_> {
    let mut text = String::new();
    let mut rest = pattern.segments.as_slice();
    let mut literals = 0usize;
    while let Some((SegmentPattern::Literal(literal), after)) = rest.split_first() {
        text.push('/');
        text.push_str(literal);
        rest = after;
        literals = literals.saturating_add(1);
    }
    if !rest.is_empty() || text.is_empty() {
        text.push('/');
    }
    Leading { text, literals, rest }
}

/// A template, and without its last part where that may be missing.
fn template(pattern: &PathPattern, literals: usize, normalization: Normalization, said: &mut Said) {
    let mut text = String::new();
    for (position, segment) in pattern.segments.iter().enumerate() {
        match segment {
            SegmentPattern::Literal(literal) if literal.is_empty() => {
                text.push_str(&format!("/{REST}"));
                said.wider = Some("a template of Istio that ends with a slash goes on");
            }
            SegmentPattern::Literal(literal)
                if fits_template(literal)
                    && (position < literals
                        || !literal.bytes().any(|byte| is_unstable(byte, normalization))) =>
            {
                text.push_str(&format!("/{literal}"));
            }
            SegmentPattern::Literal(_) => {
                text.push_str(&format!("/{ONE}"));
                said.wider = Some("a character may be sent encoded, and Istio compares what is sent");
            }
            SegmentPattern::One => text.push_str(&format!("/{ONE}")),
            SegmentPattern::Glob(_) => {
                text.push_str(&format!("/{ONE}"));
                said.wider = Some("Istio has no patterns inside of segments");
            }
            SegmentPattern::Rest => {
                said.values.insert(text.clone());
                text.push_str(&format!("/{REST}"));
            }
        }
    }
    said.values.insert(text);
}

/// Whether a literal may stand in a template: its characters, and no star, which would be taken for an operator.
fn fits_template(literal: &str) -> bool {
    literal.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte))
}

/// What every other spelling of a text begins with.
fn spelled(text: &str, normalization: Normalization) -> impl Iterator<Item = String> + use<'_> {
    text.char_indices()
        .filter(move |(_, character)| {
            u8::try_from(*character).map_or(true, |byte| is_unstable(byte, normalization))
        })
        .filter_map(|(at, _)| Some(format!("{}%*", text.get(..at)?)))
}

/// Whether a character of a literal may arrive encoded, or, if it is the percent sign of an encoding, with other digits.
fn is_unstable(byte: u8, normalization: Normalization) -> bool {
    match normalization {
        // Envoy decodes what RFC 3986 section 2.3 calls unreserved, and nothing else.
        Normalization::Base => {
            byte != b'/' && !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'.' | b'_' | b'~')
        }
        Normalization::Off => byte != b'/',
    }
}

#[cfg(test)]
mod tests;
