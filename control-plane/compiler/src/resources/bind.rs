//! A name and an HTTP binding of the catalogue to a path pattern, and to what must hold besides.

use tidegate_engine::model::{Condition, Operand, PathPattern, SegmentPattern, TextTest};

use super::conditions::{all, any, member, not, path_like, spellings, text_like, without_query};
use super::name::{Bound, Segment, Value, encode, glob_matches};
use crate::catalogue::{Also, Binding, Method, NamePart, Part, Source, Template};
use crate::when;

/// Why a name cannot be told in a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// A default counts where the request says nothing, and readers differ about several places.
    Default(String),
    /// It has slashes, which are sent encoded in one segment, and such paths are refused.
    EncodedSlash,
    /// Wildcards before a `**`, in a value that is one string.
    Wildcards,
}

/// What a path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BoundPath {
    pub(super) pattern: PathPattern,
    /// The same as a glob, `*` for what is open.
    pub(super) glob: String,
    /// The same, segment by segment.
    shown: Vec<String>,
    /// A name's slashes are encoded in one segment.
    pub(super) encoded_slashes: bool,
    /// Paths that have an encoded slash where the names have none, as globs.
    pub(super) too_many: Vec<String>,
    /// The pattern alone says too little: the path goes on after several open segments.
    pub(super) is_cut: bool,
    /// The last segment is open, and without a verb of the template.
    pub(super) is_open: bool,
}

// === impl BoundPath ===

impl Default for BoundPath {
    fn default() -> Self {
        let pattern = PathPattern { segments: Vec::new() };
        Self {
            pattern,
            glob: String::new(),
            shown: Vec::new(),
            encoded_slashes: false,
            too_many: Vec::new(),
            is_cut: false,
            is_open: false,
        }
    }
}

impl BoundPath {
    fn push(&mut self, segment: SegmentPattern) {
        let shown = match &segment {
            SegmentPattern::Literal(text) | SegmentPattern::Glob(text) => text,
            SegmentPattern::One | SegmentPattern::Rest => "*",
        };
        self.glob.push('/');
        self.glob.push_str(shown);
        self.shown.push(shown.to_owned());
        self.is_open = !matches!(segment, SegmentPattern::Literal(_));
        // Nothing can follow the rest of a path: then only the glob tells.
        if self.pattern.segments.last() == Some(&SegmentPattern::Rest) {
            self.is_cut = true;
        } else {
            self.pattern.segments.push(segment);
        }
    }

    /// Several segments of the path, of which the last may stand for one or more.
    fn push_many(&mut self, names: &[Segment], suffix: &str) {
        for (at, one) in names.iter().enumerate() {
            let last = at.saturating_add(1) == names.len();
            if *one == Segment::Rest {
                self.push(SegmentPattern::One);
                self.pattern.segments.push(SegmentPattern::Rest);
                self.glob.push_str(suffix);
                self.is_cut = !suffix.is_empty();
            } else {
                self.push(segment(one, if last { suffix } else { "" }));
            }
        }
    }
}

/// What is demanded of a segment of a variable.
fn demanded<'b>(bound: &'b Bound<'_>, name: &str, index: usize) -> &'b Value {
    bound
        .iter()
        .find(|(from, _)| matches!(from, Source::Path(variable, at) if variable == name && *at == index))
        .map_or(&Value::Any, |(_, value)| value)
}

/// The path that a template becomes with a name.
pub(super) fn path(template: &Template, bound: &Bound<'_>) -> Result<BoundPath, Obstacle> {
    let mut path = BoundPath::default();
    // Of every open segment, how it looks with one slash more than it may have.
    let mut closed: Vec<(usize, String)> = Vec::new();
    for part in template.parts() {
        let at = path.shown.len();
        let Part::Variable { name, index, rest, suffix } = part else {
            if let Part::Literal(text) = part {
                path.push(SegmentPattern::Literal(text.clone()));
            }
            continue;
        };
        let names: &[Segment] = match demanded(bound, name, *index) {
            Value::Any if *rest => &[Segment::Rest],
            Value::Any => &[Segment::Any],
            Value::One(one) => std::slice::from_ref(one),
            Value::Many(many) => many,
        };
        match names {
            _ if *rest => path.push_many(names, suffix),
            [one] if *one != Segment::Rest => {
                if !matches!(one, Segment::Literal(_)) {
                    closed.push((at, format!("*{ENCODED_SLASH}*{suffix}")));
                }
                path.push(segment(one, suffix));
            }
            names => {
                path.encoded_slashes = true;
                let (joined, more) = joined(names)?;
                closed.extend(more.map(|more| (at, format!("{more}{suffix}"))));
                path.push(pattern(format!("{joined}{suffix}")));
            }
        }
        path.is_open &= !suffix.contains(':');
    }
    if path.pattern.segments.is_empty() {
        path.push(SegmentPattern::Literal(String::new()));
    }
    if path.encoded_slashes {
        for (at, more) in closed {
            let shown = path.shown.iter().enumerate();
            let with = |(position, shown): (usize, &String)| {
                format!("/{}", if position == at { more.as_str() } else { shown.as_str() })
            };
            let glob = shown.map(with).collect();
            path.too_many.push(glob);
        }
    }
    Ok(path)
}

/// A slash as it is sent inside of a segment.
const ENCODED_SLASH: &str = "%2F";

/// A name as one segment, and, where it has wildcards, what has more slashes than it may.
fn joined(names: &[Segment]) -> Result<(String, Option<String>), Obstacle> {
    // INVARIANT: names are only read if they can be encoded.
    let encoded: Vec<String> = names.iter().map(|one| encode(one.glob()).unwrap_or_default()).collect();
    let joined = encoded.join(ENCODED_SLASH);
    let (before, goes_on) = match names {
        [before @ .., Segment::Rest] => (before, true),
        before => (before, false),
    };
    if before.iter().all(|one| matches!(one, Segment::Literal(_))) {
        Ok((joined, None))
    } else if goes_on {
        Err(Obstacle::EncodedSlash)
    } else {
        Ok((joined, Some(format!("*{}", format!("{ENCODED_SLASH}*").repeat(names.len())))))
    }
}

fn pattern(text: String) -> SegmentPattern {
    if text == "*" {
        SegmentPattern::One
    } else if text.contains('*') {
        SegmentPattern::Glob(text)
    } else {
        SegmentPattern::Literal(text)
    }
}

/// The parts of a second resource that a binding's path names.
pub(super) fn second(method: &Method, binding: &Binding, also: &Also) -> Vec<NamePart> {
    let mut parts: Vec<NamePart> = also
        .path
        .split('/')
        .map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None => NamePart::Literal(segment.to_owned()),
            // What is not in the path is in no request, and then nothing is allowed.
            Some(name) if binding.path.variable(name).is_none() => {
                NamePart::Variable { from: Source::Body(name.to_owned()), many: false }
            }
            Some(name) => NamePart::Variable { from: Source::Path(name.to_owned(), 0), many: false },
        })
        .collect();
    if let Some(NamePart::Variable { many, .. }) = parts.last_mut() {
        *many = method.pattern.last().is_some_and(|last| last == "**");
    }
    parts
}

fn segment(segment: &Segment, suffix: &str) -> SegmentPattern {
    // INVARIANT: names are only read if they can be encoded.
    let encoded = |text: &str| format!("{}{suffix}", encode(text).unwrap_or_default());
    match segment {
        Segment::Literal(text) => SegmentPattern::Literal(encoded(text)),
        Segment::Glob(text) => SegmentPattern::Glob(encoded(text)),
        Segment::Any | Segment::Rest if suffix.is_empty() => SegmentPattern::One,
        Segment::Any | Segment::Rest => SegmentPattern::Glob(format!("*{suffix}")),
    }
}

/// What must hold of query, headers and body, so that the name is the one that was meant; host and path are seen to
/// elsewhere.
pub(super) fn elsewhere(service: &str, bound: &Bound<'_>) -> Result<Condition, Obstacle> {
    let mut parts = Vec::new();
    for (from, value) in bound {
        match (from, value) {
            (Source::Path(..) | Source::Host | Source::Message(..), _) => {}
            (_, value) if value.is_any() => {}
            (Source::Body(field), value) => parts.push(text(&member(service, field), value)?),
            // Of the two it is the body that says it.
            (Source::BodyOrQuery(field), value) => {
                parts.push(text(&member(service, field), value)?);
                parts.push(without_query(spellings(field)));
            }
            (Source::Query(parameter, Some(_)) | Source::BodyElse(parameter, _), _) => {
                return Err(Obstacle::Default(parameter.clone()));
            }
            (Source::Query(parameter, None), value) => parts.push(in_query(parameter, value)?),
            // "The value in the query overrides the one in the body."
            (Source::QueryElseBody(parameter, field), value) => {
                let in_body = text(&member(service, field), value)?;
                let only_body = all(vec![without_query(spellings(parameter)), in_body]);
                parts.push(any(vec![in_query(parameter, value)?, only_body]));
            }
            (Source::Header(header), value) => parts.push(text(&Operand::Header(header.clone()), value)?),
        }
    }
    Ok(all(parts))
}

fn in_query(parameter: &str, value: &Value) -> Result<Condition, Obstacle> {
    let others = spellings(parameter).into_iter().filter(|other| other != parameter);
    Ok(all(vec![text(&Operand::Query(parameter.to_owned()), value)?, without_query(others)]))
}

/// A string that is a name or a part of it.
pub(super) fn text(operand: &Operand, value: &Value) -> Result<Condition, Obstacle> {
    let segments: &[Segment] = match value {
        Value::Any => return Ok(Condition::True),
        Value::One(one) => std::slice::from_ref(one),
        Value::Many(many) => many,
    };
    let glob = segments.iter().map(Segment::glob).collect::<Vec<_>>().join("/");
    let like = text_like(operand.clone(), &glob);
    let (before, ends_open) = match segments.split_last() {
        Some((Segment::Rest, before)) => (before, true),
        _ => (segments, false),
    };
    let all_literal = before.iter().all(|one| matches!(one, Segment::Literal(_)));
    if all_literal {
        return Ok(like);
    }
    if ends_open {
        return automaton(operand, segments);
    }
    // No `*` stands for a slash: there are no more of them than in the name.
    let more = format!("*{}", "/*".repeat(segments.len()));
    Ok(all(vec![like, not(text_like(operand.clone(), &more))]))
}

/// A string in which wildcards stand for parts of a segment, and the last for one or more segments.
fn automaton(operand: &Operand, segments: &[Segment]) -> Result<Condition, Obstacle> {
    let parts: Vec<String> = segments
        .iter()
        .map(|one| match one {
            Segment::Literal(text) => regex_syntax::escape(text),
            Segment::Any => "[^/]+".to_owned(),
            Segment::Glob(glob) => {
                glob.split('*').map(regex_syntax::escape).collect::<Vec<_>>().join("[^/]*")
            }
            Segment::Rest => "(?s:.+)".to_owned(),
        })
        .collect();
    let compiled = when::pattern(&format!("^{}$", parts.join("/"))).ok_or(Obstacle::Wildcards)?;
    Ok(Condition::Text(operand.clone(), TextTest::Pattern(compiled)))
}

/// The other binding's path as a glob, if this pattern matches requests that are rather the other's: where they meet, the
/// other says more. "Literal before variable, verb before none."
pub(super) fn overlaps(mine: &BoundPath, other: &Binding) -> Option<String> {
    let theirs: Vec<(String, bool)> = other
        .path
        .parts()
        .iter()
        .map(|part| match part {
            Part::Literal(text) => (text.clone(), false),
            Part::Variable { rest, suffix, .. } => (format!("*{suffix}"), *rest),
        })
        .collect();
    let (own, goes_on) = match mine.pattern.segments.as_slice() {
        [own @ .., SegmentPattern::Rest] => (own, true),
        own => (own, false),
    };
    let their_rest = theirs.iter().position(|(_, is_rest)| *is_rest);
    // What stands before and after the open middle, or everything.
    let before = their_rest.and_then(|at| theirs.get(..at)).unwrap_or(&theirs);
    let after = their_rest.and_then(|at| theirs.get(at..)).and_then(|rest| rest.get(1..)).unwrap_or_default();
    let long_enough = match (their_rest, goes_on) {
        (None, false) => before.len() == own.len(),
        (None, true) => before.len() >= own.len(),
        (Some(_), false) => own.len() > before.len().saturating_add(after.len()),
        (Some(_), true) => true,
    };
    if !long_enough {
        return None;
    }
    let mut says_more = false;
    for (own, (there, _)) in own.iter().zip(before) {
        says_more |= meeting(own, there)?;
    }
    if goes_on {
        says_more |= before.iter().skip(own.len()).chain(after).any(|(there, _)| there != "*");
    } else {
        for (own, (there, _)) in own.iter().rev().zip(after.iter().rev()) {
            says_more |= meeting(own, there)?;
        }
    }
    says_more.then(|| theirs.iter().map(|(there, _)| format!("/{there}")).collect())
}

/// Whether a segment of another template says more than one of ours; `None` if no segment is both.
fn meeting(own: &SegmentPattern, there: &str) -> Option<bool> {
    match own {
        SegmentPattern::Literal(text) => glob_matches(there, text).then_some(false),
        SegmentPattern::Glob(glob) if !there.contains('*') => glob_matches(glob, there).then_some(true),
        SegmentPattern::Glob(_) | SegmentPattern::One | SegmentPattern::Rest => Some(there != "*"),
    }
}

/// The path has another verb than the template's: its last segment is open, and has a colon.
pub(super) fn other_verb(path: &BoundPath) -> Condition {
    let before = path.glob.rsplit_once('/').map_or("", |(before, _)| before);
    path_like(format!("{before}/*:*"))
}
