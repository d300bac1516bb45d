//! A Deny: every request that could be one of those that are meant.
//!
//! Any host, since nobody can list every name of a service; any spelling that the engine reads as the same; the whole
//! method where the body or a handle says what it is about; and what carries other requests.
//!
//! INVARIANT: whatever the same Allow would match is matched. Where it is not certain, more is matched, never less.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{
    Condition, HostPattern, Operand, OperationModel, PathPattern, SegmentPattern, TextTest,
};

use super::bind;
use super::conditions::{all, any, present, text_like};
use super::name::{Bound, Name, Segment, Value, encode};
use super::refusal::names_in_body;
use super::{Wanted, is_about};
use super::{message, noise};
use crate::catalogue::{AlsoFrom, Binding, Flag, Grpc, Method, NamePart, Part, Source};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::suggest;

/// What one request may be. Absent: anything.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    verbs: Option<Vec<String>>,
    hosts: Option<Vec<HostPattern>>,
    path: PathPattern,
    condition: Condition,
}

/// The operations of everything that could be what is wanted.
pub(super) fn operations(
    place: &Place<'_>,
    wanted: &Wanted<'_>,
    findings: &mut Findings,
) -> Vec<OperationModel> {
    let mut calls = Vec::new();
    let mut whole: BTreeSet<&str> = BTreeSet::new();
    let mut remote: BTreeMap<(&str, &str), Condition> = BTreeMap::new();
    let kinds: BTreeSet<&str> =
        wanted.methods.iter().map(|(method, _)| method.resource_type.as_str()).collect();
    let actions: BTreeSet<_> = wanted.methods.iter().map(|(method, _)| method.action).collect();
    for method in &wanted.service.methods {
        let chosen = wanted.methods.iter().any(|(known, _)| known.name == method.name);
        let is_carrier = method.pattern.first().is_some_and(|first| first == "**");
        let names_any = method.also.iter().any(|also| {
            names_in_body(also)
                && (kinds.contains(also.kind.as_str())
                    || ["sql.text", "opaque"].contains(&also.kind.as_str()))
        });
        let by_handle = actions.contains(&method.action)
            && [Flag::OpaqueId, Flag::SessionBound, Flag::BodyDecidesResources]
                .into_iter()
                .any(|flag| method.is(flag));
        // A second resource in the path is read whatever the method is called.
        for also in method.also.iter().filter(|also| also.from == AlsoFrom::Path) {
            if kinds.contains(also.kind.as_str()) {
                for binding in &method.bindings {
                    let parts = bind::second(method, binding, also);
                    let bounds = wanted.names.iter().filter_map(|name| name.bind(&parts));
                    calls.extend(bounds.flat_map(|bound| self::calls(wanted, binding, &bound)));
                }
            }
        }
        if is_carrier {
            // Of protobuf over HTTP the path says which method it is.
            if chosen || !method.name.ends_with(".protobuf_rpc") {
                calls.extend(method.bindings.iter().flat_map(|binding| of_any_name(wanted, binding)));
            }
        } else if names_any || by_handle {
            if !(chosen && wanted.names.iter().all(|name| name.covers(&method.pattern))) {
                whole.insert(&method.name);
            }
            calls.extend(method.bindings.iter().flat_map(|binding| of_any_name(wanted, binding)));
            remote.extend(method.grpc.iter().map(|grpc| (called(grpc), Condition::True)));
        } else if chosen {
            let names: Vec<&Name> = wanted.names.iter().filter(|name| is_about(method, name)).collect();
            if !wanted.stated.is_empty() || !wanted.states.is_empty() {
                whole.insert(&method.name);
            }
            for name in &names {
                for binding in &method.bindings {
                    calls.extend(of_name(wanted, method, binding, name));
                }
            }
            if let Some(grpc) = &method.grpc {
                let condition = if names.iter().any(|name| name.covers(&method.pattern)) {
                    Condition::True
                } else {
                    message::could_name(method, grpc, &names).unwrap_or_else(|| {
                        whole.insert(&method.name);
                        Condition::True
                    })
                };
                remote.insert(called(grpc), condition);
            }
        }
    }
    for ((service, method), condition) in remote {
        let literal = |text: &str| SegmentPattern::Literal(text.to_owned());
        // What is not read as gRPC is read in another way.
        let mut conditions = vec![condition];
        if conditions != [Condition::True] {
            conditions.extend(noise::GOOGLE_TYPE.map(|name| present(Operand::Query(name.to_owned()))));
        }
        let condition = any(conditions);
        for (before, condition) in [(None, condition), (Some("$rpc"), Condition::True)] {
            let segments = before.into_iter().chain([service, method]).map(literal).collect();
            calls.push(Call {
                verbs: None,
                hosts: wanted.hosts.clone(),
                path: PathPattern { segments },
                condition,
            });
        }
    }
    if !whole.is_empty() {
        let names: Vec<String> = whole.into_iter().map(str::to_owned).collect();
        findings.add(
            place,
            Code::WiderThanItLooks,
            format!("it refuses {} whatever they name", suggest::some_of(&names)),
            "what they are about is in the body, in a way that cannot be told",
            "nothing has to be changed if these callers need none of them",
        );
    }
    merge(calls)
}

fn called(grpc: &Grpc) -> (&str, &str) {
    (&grpc.service, &grpc.method)
}

fn merge(calls: Vec<Call>) -> Vec<OperationModel> {
    let mut operations: Vec<OperationModel> = Vec::new();
    for Call { verbs, hosts, path, condition } in calls {
        let same = operations
            .iter_mut()
            .find(|known| known.condition == condition && known.hosts == hosts && known.methods == verbs);
        match same.and_then(|known| known.paths.as_mut()) {
            Some(paths) if paths.contains(&path) => {}
            Some(paths) => paths.push(path),
            None => operations.push(OperationModel {
                ports: None,
                methods: verbs,
                hosts,
                paths: Some(vec![path]),
                grpc: false,
                encoded_slashes: false,
                condition,
            }),
        }
    }
    for operation in &mut operations {
        if let Some(paths) = &mut operation.paths {
            paths.sort();
        }
    }
    operations
}

/// A binding whatever it names.
fn of_any_name(wanted: &Wanted<'_>, binding: &Binding) -> Vec<Call> {
    calls(wanted, binding, &Vec::new())
}

/// A binding with a name.
fn of_name(wanted: &Wanted<'_>, method: &Method, binding: &Binding, name: &Name) -> Vec<Call> {
    let mut found = Vec::new();
    if let Some(bound) = name.bind(&binding.resource) {
        for bound in aliases(method, &bound) {
            let bound: Bound<'_> = bound.iter().map(|(from, value)| (from, value.clone())).collect();
            found.extend(calls(wanted, binding, &bound));
        }
    }
    found
}

/// Whether a project's number may be written so.
pub(super) fn is_number_like(glob: &str) -> bool {
    glob.starts_with(|first: char| first.is_ascii_digit() || first == '*')
}

/// The same resource under other names: a project's number, `-` for every location, and decorators of tables.
fn aliases(method: &Method, bound: &Bound<'_>) -> Vec<Vec<(Source, Value)>> {
    let mut all: Vec<Vec<(Source, Value)>> = vec![Vec::new()];
    let mut before = "";
    let mut parts = bound.iter();
    for (at, kind) in method.pattern.iter().enumerate() {
        let is_open = kind == "*" || kind == "**";
        let parent = std::mem::replace(&mut before, kind.as_str());
        if !is_open {
            continue;
        }
        let Some((from, value)) = parts.next() else { break };
        let mut values = vec![value.clone()];
        if let Value::One(one) = value {
            match parent {
                // Numbers and `-` name projects, too; a project's id begins with a letter. Whose number it is nobody knows here.
                "projects" if at == 1 && is_number_like(one.glob()) => values = vec![Value::Any],
                "projects" if at == 1 => {
                    let numbers = ["0*", "1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*", "-", "_"];
                    values.extend(numbers.map(|number| Value::One(like(number))));
                }
                "locations" => values.push(Value::One(like("-"))),
                "tables" if method.name.starts_with("bigquery") => {
                    values.extend(["$*", "@*"].map(|end| Value::One(like(&format!("{}{end}", one.glob())))));
                }
                _ => {}
            }
        }
        all = all
            .iter()
            .flat_map(|known| {
                values.iter().map(|value| {
                    let mut known = known.clone();
                    known.push(((*from).clone(), value.clone()));
                    known
                })
            })
            .collect();
    }
    // Parts of a name that the pattern does not list.
    for known in &mut all {
        for (from, value) in bound {
            if !known.iter().any(|(there, _)| there == *from) {
                known.push(((*from).clone(), value.clone()));
            }
        }
    }
    all
}

fn like(glob: &str) -> Segment {
    if glob.contains('*') { Segment::Glob(glob.to_owned()) } else { Segment::Literal(glob.to_owned()) }
}

/// The requests that a binding is, with what is demanded of its path.
fn calls(wanted: &Wanted<'_>, binding: &Binding, bound: &Bound<'_>) -> Vec<Call> {
    let path = match bind::path(&binding.path, bound) {
        Ok(path) => path.pattern,
        // The slashes of the name are encoded in one segment; the engine refuses such paths, unless it is told otherwise.
        Err(_) => with_encoded_slashes(binding, bound),
    };
    let (hosts, host_condition) = if binding.is_xml() {
        let (patterns, condition) = xml_hosts(binding, bound);
        (Some(patterns), condition)
    } else {
        (wanted.hosts.clone(), Condition::True)
    };
    // The request is this method's with any of these; what cannot be told counts as there.
    let own: Vec<Condition> = binding
        .query_has
        .iter()
        .map(|name| present(Operand::Query(name.clone())))
        .chain(binding.header_has.iter().map(|header| {
            let name = header.split(": ").next().unwrap_or_default();
            present(Operand::Header(name.to_owned()))
        }))
        .collect();
    let own = if own.is_empty() { Condition::True } else { any(own) };
    let mut verbs = vec![binding.verb.clone()];
    if binding.verb == "GET" {
        verbs.push("HEAD".to_owned());
    }
    if wanted.service.name == "gitlab" && binding.verb != "POST" {
        // A form can say another method (Rack).
        verbs.push("POST".to_owned());
    }
    let with = |verbs: Option<Vec<String>>, condition: Condition| Call {
        verbs,
        hosts: hosts.clone(),
        path: path.clone(),
        condition,
    };
    let mut calls = vec![with(Some(verbs), all(vec![host_condition.clone(), own.clone()]))];
    if wanted.service.hosts.is_some() {
        let overridden = noise::GOOGLE_METHOD.map(|name| present(Operand::Query(name.to_owned())));
        calls.push(with(None, all(vec![host_condition, own, any(overridden.to_vec())])));
    }
    calls
}

/// A path in which names with slashes are one segment.
fn with_encoded_slashes(binding: &Binding, bound: &Bound<'_>) -> PathPattern {
    let mut segments = Vec::new();
    for part in binding.path.parts() {
        segments.push(match part {
            Part::Literal(text) => SegmentPattern::Literal(text.clone()),
            Part::Variable { rest: true, .. } => {
                segments.push(SegmentPattern::Rest);
                return PathPattern { segments };
            }
            Part::Variable { name, index, suffix, .. } => {
                let value = bound.iter().find(
                    |(from, _)| matches!(from, Source::Path(known, at) if known == name && at == index),
                );
                let many: &[Segment] = match value {
                    Some((_, Value::Many(many))) => many,
                    Some((_, Value::One(one))) => std::slice::from_ref(one),
                    _ => &[Segment::Any],
                };
                let names: Vec<String> = many.iter().filter_map(|one| encode(one.glob())).collect();
                let text = format!("{}{suffix}", names.join("%2F"));
                match text.as_str() {
                    "*" => SegmentPattern::One,
                    _ if text.contains('*') => SegmentPattern::Glob(text),
                    _ => SegmentPattern::Literal(text),
                }
            }
        });
    }
    PathPattern { segments }
}

/// Hosts of the XML surface: whatever looks like Cloud Storage.
fn xml_hosts(binding: &Binding, bound: &Bound<'_>) -> (Vec<HostPattern>, Condition) {
    let patterns = vec![
        HostPattern::Exact("storage.cloud.google.com".to_owned()),
        HostPattern::Suffix(".googleapis.com".to_owned()),
    ];
    let is_storage = Condition::Text(Operand::Host, TextTest::Infix("storage".to_owned()));
    let named =
        binding.resource.iter().any(|part| matches!(part, NamePart::Variable { from: Source::Host, .. }));
    let bucket = bound.iter().find(|(from, _)| **from == Source::Host).map(|(_, value)| value);
    let condition = match bucket {
        Some(Value::One(one)) if named => {
            all(vec![is_storage, text_like(Operand::Host, &format!("{}.*", one.glob()))])
        }
        _ => is_storage,
    };
    (patterns, condition)
}
