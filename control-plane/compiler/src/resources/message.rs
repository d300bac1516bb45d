//! An Allow over gRPC: the name and everything else are in the message.
//!
//! The engine reads a field's every value, in every message of a stream, and a test holds only if it does of each. So a
//! later message cannot name another resource, and a field that is written twice cannot hide one of its values.
//!
//! INVARIANT: each field of the name is tested, and of alternatives no other is there. What the message may name besides is
//! tested, absent, or left open by the rule.

use tidegate_engine::model::{BodyField, Condition, Operand, PathPattern, SegmentPattern, TextTest};

use super::Wanted;
use super::allow::{Call, all_hosts, is_covered};
use super::bind;
use super::conditions::{all, any, not, present, text_like};
use super::deny::is_number_like;
use super::name::{Name, Segment, Value};
use super::options;
use super::refusal::Lack;
use super::{noise, repeat, seconds, stated};
use crate::catalogue::{Also, AlsoFrom, Flag, Grpc, MessageName, Method, NamePart, Source};
use crate::when;

/// A field of the message.
pub(super) fn field(numbers: &[u32]) -> Operand {
    Operand::Body(BodyField::Protobuf(numbers.to_vec()))
}

/// The call of a method with one of these names. What it lacks is noted.
pub(super) fn call<'m>(
    wanted: &Wanted<'_>,
    method: &'m Method,
    names: &[&Name],
    calls: &mut Vec<Call>,
    lack: &mut Lack<'m>,
) {
    let Some(grpc) = &method.grpc else { return };
    // INVARIANT: what the catalogue has no number of cannot be told; where REST is there it is called over that.
    let is_untold =
        |also: &Also| also.fields.is_empty() && also.name.is_none() && also.from == AlsoFrom::Body;
    let is_open = |also: &Also| wanted.unchecked.contains(also.role.as_str()) || also.only_narrows();
    let is_untold = |also: &Also| is_untold(also) && !is_open(also);
    if wanted.http
        && !method.bindings.is_empty()
        && (wanted.jobs.is_some() || method.also.iter().any(is_untold))
    {
        return;
    }
    let name = if names.iter().any(|name| name.covers(&method.pattern)) {
        Condition::True
    } else {
        let Some(condition) = named(method, grpc, names) else {
            lack.message_name(grpc);
            return;
        };
        condition
    };
    let mut parts = vec![name];
    for also in &method.also {
        parts.push(besides(wanted, also, names, lack));
        if options::are_in(wanted, also) {
            parts.push(options::in_message(wanted, also));
        }
    }
    parts.push(stated(wanted, method));
    parts.push(stated::in_state(method, &wanted.states, true));
    if !lack.has_grpc() {
        return;
    }
    let (hosts, host_condition) = all_hosts(wanted);
    let literal = |text: &String| SegmentPattern::Literal(text.clone());
    parts.insert(0, noise::absent(&wanted.service.name, |role| wanted.unchecked.contains(role)));
    parts.insert(0, host_condition);
    calls.push(Call {
        verb: "POST".to_owned(),
        hosts,
        path: PathPattern { segments: vec![literal(&grpc.service), literal(&grpc.method)] },
        grpc: true,
        encoded_slashes: false,
        condition: all(parts),
    });
}

/// The message has one of these names. `None`: none can be told.
fn named(method: &Method, grpc: &Grpc, names: &[&Name]) -> Option<Condition> {
    if method.is(Flag::OpaqueId) || method.is(Flag::SessionBound) {
        return None;
    }
    let mut ways = Vec::new();
    for way in &grpc.names {
        let told = |name: &&Name| {
            let named = is_named(way, name)?;
            Some(all(vec![named, repeat::in_message(method, &fields(way, name)?)?]))
        };
        let told: Vec<Condition> = names.iter().filter_map(told).collect();
        if told.is_empty() {
            continue;
        }
        // "Alternatives, of which exactly one may be set."
        let own = |numbers: &Vec<u32>| way.spans.iter().any(|(known, _)| known == numbers);
        let others = grpc.fields.values().filter(|numbers| !own(numbers));
        let mut parts = vec![any(told)];
        parts.extend(others.map(|numbers| not(present(field(numbers)))));
        ways.push(all(parts));
    }
    (!ways.is_empty()).then(|| any(ways))
}

/// The fields say this name. `None`: they cannot, or it cannot be told.
pub(super) fn is_named(way: &MessageName, name: &Name) -> Option<Condition> {
    let said = |(numbers, pieces): (&[u32], Vec<Piece>)| {
        let segments: Vec<Segment> = pieces.into_iter().map(|piece| piece.segment).collect();
        said(field(numbers), &segments)
    };
    Some(all(fields(way, name)?.into_iter().map(said).collect::<Option<Vec<_>>>()?))
}

/// A segment of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The collection that it is of: what stands before it in the name.
    pub(super) parent: String,
    pub(super) segment: Segment,
}

/// What each field has to be, so that the name is this one.
pub(super) fn fields<'w>(way: &'w MessageName, name: &Name) -> Option<Vec<(&'w [u32], Vec<Piece>)>> {
    let is_open_inside = way.parts.iter().rev().skip(1).any(is_many);
    if let ([(numbers, _)], true) = (way.spans.as_slice(), is_open_inside) {
        // The service knows where `**` ends; the field is the name.
        let piece = |segment: &Segment| Piece { parent: String::new(), segment: segment.clone() };
        return Some(vec![(numbers, name.segments().iter().map(piece).collect())]);
    }
    let mut bound = name.bind(&way.parts)?.into_iter();
    let mut parent = String::new();
    let mut pieces = Vec::new();
    for part in &way.parts {
        let segments = match part {
            NamePart::Literal(text) => vec![Segment::Literal(text.clone())],
            NamePart::Variable { many, .. } => match bound.next()?.1 {
                Value::Any if *many => vec![Segment::Rest],
                Value::Any => vec![Segment::Any],
                Value::One(one) => vec![one],
                Value::Many(many) => many,
            },
        };
        let piece = |segment| Piece { parent: parent.clone(), segment };
        pieces.push(segments.into_iter().map(piece).collect::<Vec<_>>());
        parent = match part {
            NamePart::Literal(text) => text.clone(),
            NamePart::Variable { .. } => String::new(),
        };
    }
    let mut pieces = pieces.into_iter();
    let mut spans = Vec::new();
    for (numbers, width) in &way.spans {
        let pieces: Vec<Piece> = pieces.by_ref().take(*width).flatten().collect();
        // What is in no field is the same in every name.
        if !numbers.is_empty() {
            spans.push((numbers.as_slice(), pieces));
        }
    }
    Some(spans)
}

fn is_many(part: &NamePart) -> bool {
    matches!(part, NamePart::Variable { many: true, from: Source::Message(..) })
}

/// A string is this part of a name.
pub(super) fn said(operand: Operand, segments: &[Segment]) -> Option<Condition> {
    match segments {
        // Whatever it is; if it is not there, the service refuses the request, or takes what the rule leaves open.
        [Segment::Any | Segment::Rest] => Some(Condition::True),
        _ => bind::text(&operand, &Value::Many(segments.to_vec())).ok(),
    }
}

/// What must hold of something else that the message may name.
fn besides<'m>(wanted: &Wanted<'_>, also: &'m Also, names: &[&Name], lack: &mut Lack<'m>) -> Condition {
    if wanted.stated.contains_key(also.role.as_str()) {
        if also.fields.is_empty() {
            lack.message(also);
        }
        return Condition::True;
    }
    if wanted.unchecked.contains(also.role.as_str()) || also.only_narrows() || is_covered(also, names) {
        return Condition::True;
    }
    if repeat::of(also).is_some() {
        return Condition::True;
    }
    if let Some(second) = &also.name {
        return second_name(wanted, also, second, lack);
    }
    if !also.fields.is_empty() && seconds::is_named(wanted, also) {
        return seconds::said(wanted, also, &field(&also.fields));
    }
    if also.fields.is_empty() || also.is_needed() {
        lack.message(also);
        return Condition::True;
    }
    not(present(field(&also.fields)))
}

/// A second resource has to be one of the names as well.
fn second_name<'m>(
    wanted: &Wanted<'_>,
    also: &'m Also,
    second: &MessageName,
    lack: &mut Lack<'m>,
) -> Condition {
    let told: Vec<Condition> = wanted.names.iter().filter_map(|name| is_named(second, name)).collect();
    if told.is_empty() {
        lack.message(also);
        return Condition::True;
    }
    if also.is_repeated_name() {
        let absent =
            |(numbers, _): &(Vec<u32>, usize)| (!numbers.is_empty()).then(|| not(present(field(numbers))));
        let none = all(second.spans.iter().filter_map(absent).collect());
        return any([vec![none], told].concat());
    }
    if !wanted.reads {
        lack.source(also);
    }
    any(told)
}

/// What the rule says of things that the message names.
fn stated(wanted: &Wanted<'_>, method: &Method) -> Condition {
    let said = |(role, stated): (&&str, &String)| {
        let operands: Vec<Operand> =
            method.also.iter().filter(|also| also.role == *role).map(|also| field(&also.fields)).collect();
        stated::said(&wanted.service.name, role, &operands, stated)
    };
    all(wanted.stated.iter().map(said).collect())
}

/// The message of a method could name one of these, in whatever spelling. `None`: any message could.
pub(super) fn could_name(method: &Method, grpc: &Grpc, names: &[&Name]) -> Option<Condition> {
    if method.is(Flag::OpaqueId) || method.is(Flag::SessionBound) || grpc.names.is_empty() {
        return None;
    }
    let is_there = |numbers: &[u32]| present(field(numbers));
    let mut ways = Vec::new();
    for way in &grpc.names {
        for spans in names.iter().filter_map(|name| fields(way, name)) {
            let many = spans.len() > 1;
            let mut parts = Vec::new();
            for (numbers, pieces) in &spans {
                let told = could_say(method, field(numbers), pieces)?;
                // "Absent, where a default applies."
                parts.push(if many { any(vec![told, not(is_there(numbers))]) } else { told });
            }
            if many {
                parts.push(any(spans.iter().map(|(numbers, _)| is_there(numbers)).collect()));
            }
            ways.push(all(parts));
        }
    }
    let named =
        |numbers: &Vec<u32>| grpc.names.iter().flat_map(|way| &way.spans).any(|(known, _)| known == numbers);
    // A handle could stand for any of them.
    ways.extend(grpc.fields.values().filter(|numbers| !named(numbers)).map(|numbers| is_there(numbers)));
    ways.push(not(any(grpc.fields.values().map(|numbers| is_there(numbers)).collect())));
    Some(any(ways))
}

/// A string could be this part of a name. `None`: that would take too large an automaton.
fn could_say(method: &Method, operand: Operand, pieces: &[Piece]) -> Option<Condition> {
    if let [Piece { segment: Segment::Any | Segment::Rest, .. }] = pieces {
        return Some(Condition::True);
    }
    let segments: Vec<String> = pieces.iter().map(|piece| spellings(method, piece)).collect();
    // With or without the service's name before it: `//pubsub.googleapis.com/projects/…`.
    let source = format!("^(?s:.*/)?{}/?$", segments.join("/"));
    let like = Condition::Text(operand.clone(), TextTest::Pattern(when::pattern(&source)?));
    // What is empty is as what is not there.
    let is_whole = pieces.len() > 1;
    Some(if is_whole { like } else { any(vec![like, text_like(operand, "")]) })
}

/// An expression for a segment of a name and for what else stands for the same: a project's number, `-` for every location,
/// decorators of tables.
fn spellings(method: &Method, piece: &Piece) -> String {
    let one = match &piece.segment {
        Segment::Any => return "[^/]*".to_owned(),
        Segment::Rest => return "(?s:.*)".to_owned(),
        Segment::Literal(text) | Segment::Glob(text) => {
            text.split('*').map(regex_syntax::escape).collect::<Vec<_>>().join("[^/]*")
        }
    };
    match piece.parent.as_str() {
        // Buckets have no project: any may be written.
        _ if one == "_" => "[^/]*".to_owned(),
        "projects" if is_number_like(piece.segment.glob()) => "[^/]*".to_owned(),
        "projects" => format!("(?:{one}|[0-9][^/]*|-|_)"),
        "locations" => format!("(?:{one}|-)"),
        "tables" if method.name.starts_with("bigquery") => format!("{one}(?:[$@][^/]*)?"),
        _ => one,
    }
}
