//! An Allow: exactly the requests that the catalogue lists for the methods and names.
//!
//! INVARIANT: every operation demands methods, hosts and paths; none is left open.

use std::collections::BTreeSet;

use tidegate_engine::model::{
    Condition, HostPattern, Operand, OperationModel, PathPattern, SegmentPattern, TextTest,
};

use super::bind::{self, BoundPath, Obstacle};
use super::conditions::{
    self, all, any, member, none_of, not, path_like, present, spellings, text_like, without_query,
};
use super::name::{Bound, Name, Value};
use super::refusal::{self, Lack};
use super::{Wanted, is_about};
use super::{message, noise, options, repeat, seconds, stated};
use crate::catalogue::{
    Also, AlsoFrom, Binding, Flag, HostForm, Method, NamePart, Part, Service, Source, Template,
};
use crate::place::{Findings, Place};

/// What one request has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) verb: String,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) path: PathPattern,
    pub(super) grpc: bool,
    /// A name's slashes are encoded in one segment.
    pub(super) encoded_slashes: bool,
    pub(super) condition: Condition,
}

/// The operations of everything that is wanted. What of it cannot be enforced is reported.
pub(super) fn operations(
    place: &Place<'_>,
    wanted: &Wanted<'_>,
    findings: &mut Findings,
) -> Vec<OperationModel> {
    let mut calls = Vec::new();
    let mut lacks = Vec::new();
    for (method, by_name) in &wanted.methods {
        let names: Vec<&Name> = wanted.names.iter().filter(|name| is_about(method, name)).collect();
        let mut lack = Lack::new(method);
        let before = calls.len();
        let missing = stated::missing(wanted, method);
        if !missing.is_empty() {
            // A class stands for those methods that can say what the rule says.
            if *by_name || !wanted.methods.iter().any(|(other, _)| stated::missing(wanted, other).is_empty())
            {
                lack.missing(missing);
                lacks.push(lack);
            }
            continue;
        }
        if wanted.http && !method.bindings.is_empty() && !method.is(Flag::HttpAmbiguous) {
            over_http(wanted, method, &names, &mut calls, &mut lack);
        }
        if wanted.grpc && method.grpc.is_some() {
            message::call(wanted, method, &names, &mut calls, &mut lack);
        }
        if calls.len() == before && lack.is_nothing() && *by_name {
            refusal::not_over_protocol(place, method, findings);
        }
        if !lack.is_nothing() {
            lacks.push(lack);
        }
    }
    refusal::cannot_be_enforced(place, wanted, &lacks, findings);
    merge(calls)
}

/// The same calls in as few operations as possible.
fn merge(calls: Vec<Call>) -> Vec<OperationModel> {
    let mut operations: Vec<OperationModel> = Vec::new();
    for Call { verb, hosts, path, grpc, encoded_slashes, condition } in calls {
        let same = operations.iter_mut().find(|known| {
            known.grpc == grpc
                && known.encoded_slashes == encoded_slashes
                && known.condition == condition
                && known.hosts.as_ref() == Some(&hosts)
                && known.methods.as_ref().is_some_and(|methods| *methods == [verb.as_str()])
        });
        match same.and_then(|known| known.paths.as_mut()) {
            Some(paths) if paths.contains(&path) => {}
            Some(paths) => paths.push(path),
            None => operations.push(OperationModel {
                ports: None,
                methods: Some(vec![verb]),
                hosts: Some(hosts),
                paths: Some(vec![path]),
                grpc,
                encoded_slashes,
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

fn over_http<'m>(
    wanted: &Wanted<'_>,
    method: &'m Method,
    names: &[&Name],
    calls: &mut Vec<Call>,
    lack: &mut Lack<'m>,
) {
    let Some(besides) = besides_http(wanted, method, names, lack) else { return };
    for name in names {
        let mut obstacles = BTreeSet::new();
        let mut told = false;
        for binding in method.bindings.iter().filter(|binding| binding.is_decidable()) {
            if repeat::is_old(wanted, method, binding) {
                continue;
            }
            let Some(bound) = name.bind(&binding.resource) else { continue };
            // A second resource that the path names has to be one of the names as well.
            let sources = match source_parts(wanted, method, binding) {
                None => vec![any_source(method, binding, &bound)],
                Some(parts) => wanted
                    .names
                    .iter()
                    .filter_map(|name| name.bind(&parts).map(|bound| owned(&bound)))
                    .collect(),
            };
            for source in &sources {
                let Some(whole) = together(&bound, source) else { continue };
                match call(wanted, method, binding, &whole, &besides) {
                    Ok(call) => {
                        told = true;
                        calls.push(call);
                    }
                    Err(obstacle) => {
                        obstacles.insert(obstacle);
                    }
                }
            }
        }
        if !told {
            lack.name(obstacles);
        }
    }
}

/// Two names in one path. `None` if they disagree about a part.
fn together<'p>(bound: &Bound<'p>, source: &'p [(Source, Value)]) -> Option<Bound<'p>> {
    let mut whole = bound.clone();
    for (from, value) in source {
        match whole.iter().find(|(known, _)| *known == from) {
            Some((_, known)) if known == value => {}
            Some(_) => return None,
            None => whole.push((from, value.clone())),
        }
    }
    Some(whole)
}

fn owned(bound: &Bound<'_>) -> Vec<(Source, Value)> {
    bound.iter().map(|(from, value)| ((*from).clone(), value.clone())).collect()
}

/// The parts of a second resource that the path names, where it has to be one of the rule's names as well.
fn source_parts(wanted: &Wanted<'_>, method: &Method, binding: &Binding) -> Option<Vec<NamePart>> {
    let also = method
        .also
        .iter()
        .find(|also| also.from == AlsoFrom::Path && !wanted.unchecked.contains(also.role.as_str()))?;
    Some(bind::second(method, binding, also))
}

/// A second resource of the path that may be any; it holds slashes as the first does.
fn any_source(method: &Method, binding: &Binding, bound: &Bound<'_>) -> Vec<(Source, Value)> {
    let Some(also) = method.also.iter().find(|also| also.from == AlsoFrom::Path) else { return Vec::new() };
    let parts = bind::second(method, binding, also);
    let any = Name::any().bind(&parts).map(|any| owned(&any)).unwrap_or_default();
    any.into_iter().filter(|(from, _)| !bound.iter().any(|(known, _)| *known == from)).collect()
}

/// One binding with one name.
fn call(
    wanted: &Wanted<'_>,
    method: &Method,
    binding: &Binding,
    bound: &Bound<'_>,
    besides: &Condition,
) -> Result<Call, Obstacle> {
    let path = bind::path(&binding.path, bound)?;
    let elsewhere = bind::elsewhere(&wanted.service.name, bound)?;
    let (hosts, host_condition) = hosts_of(wanted, binding, bound);
    let mut parts = vec![
        host_condition,
        elsewhere,
        besides.clone(),
        repeat::in_json(wanted.service, method, binding, bound)?,
        without_query(binding.path.variables().flat_map(spellings)),
        siblings(wanted.service, method, binding),
    ];
    parts.extend(other_paths(wanted, method, binding, &path));
    // Only names of many segments have encoded slashes, and each only as many as it says.
    parts.push(none_of(path.too_many.iter().cloned().map(path_like).collect()));
    if method.name.starts_with("bigquery.") && has_open_table(&path) {
        // `t$20240101` and `t@-3600000` are parts of the table `t`.
        parts.push(none_of(
            ["$", "@"].map(|mark| Condition::Text(Operand::Path, TextTest::Infix(mark.to_owned()))).to_vec(),
        ));
    }
    Ok(Call {
        verb: binding.verb.clone(),
        hosts,
        path: path.pattern,
        grpc: false,
        encoded_slashes: path.encoded_slashes,
        condition: all(parts),
    })
}

/// Whether the table is a pattern that says how its name ends.
fn has_open_table(path: &BoundPath) -> bool {
    path.pattern.segments.iter().any(|segment| matches!(segment, SegmentPattern::Glob(_)))
}

/// What the path must not be, because it would be another method; and what it must be, because the pattern is cut.
fn other_paths(wanted: &Wanted<'_>, method: &Method, binding: &Binding, path: &BoundPath) -> Vec<Condition> {
    let mut parts = Vec::new();
    if path.is_cut {
        parts.push(path_like(path.glob.clone()));
    }
    if path.is_open && uses_verbs(wanted.service, &binding.path) {
        parts.push(not(bind::other_verb(path)));
    }
    let mut others: Vec<String> = wanted
        .service
        .methods
        .iter()
        .filter(|other| other.name != method.name)
        .flat_map(|other| &other.bindings)
        .filter(|other| other.verb == binding.verb && !other.is_xml() && other.host == binding.host)
        .filter_map(|other| bind::overlaps(path, other))
        .collect();
    others.sort();
    others.dedup();
    parts.push(none_of(others.into_iter().map(path_like).collect()));
    parts
}

/// Whether paths that begin like this one end with verbs after a colon.
fn uses_verbs(service: &Service, template: &Template) -> bool {
    let first = |template: &Template| match template.parts().first() {
        Some(Part::Literal(text)) => Some(text.clone()),
        _ => None,
    };
    let wanted = first(template);
    service
        .methods
        .iter()
        .flat_map(|method| &method.bindings)
        .any(|binding| binding.path.has_verb() && first(&binding.path) == wanted)
}

/// "The request is this method's only if …": its own parameters and headers, and none of those that make it another's.
fn siblings(service: &Service, method: &Method, binding: &Binding) -> Condition {
    let mut parts = Vec::new();
    let key = |name: &String| present(Operand::Query(name.clone()));
    if !binding.query_has.is_empty() {
        parts.push(any(binding.query_has.iter().map(key).collect()));
    }
    for header in &binding.header_has {
        parts.push(match header.split_once(": ") {
            Some((name, value)) => text_like(Operand::Header(name.to_owned()), value),
            None => present(Operand::Header(header.clone())),
        });
    }
    let mut keys: Vec<String> = service
        .methods
        .iter()
        .filter(|other| other.name != method.name)
        .flat_map(|other| &other.bindings)
        .filter(|other| other.verb == binding.verb && same_shape(&other.path, &binding.path))
        .flat_map(|other| other.query_has.iter().cloned())
        .filter(|name| !binding.query_has.contains(name))
        .collect();
    keys.sort();
    keys.dedup();
    parts.push(without_query(keys));
    all(parts)
}

fn same_shape(one: &Template, other: &Template) -> bool {
    one.parts().len() == other.parts().len()
        && one.parts().iter().zip(other.parts()).all(|parts| match parts {
            (Part::Literal(one), Part::Literal(other)) => one == other,
            (Part::Variable { suffix: one, .. }, Part::Variable { suffix: other, .. }) => one == other,
            _ => false,
        })
}

/// What must hold besides the name, for every request of the method over HTTP. `None`: it cannot be told.
fn besides_http<'m>(
    wanted: &Wanted<'_>,
    method: &'m Method,
    names: &[&Name],
    lack: &mut Lack<'m>,
) -> Option<Condition> {
    let service = wanted.service.name.as_str();
    let mut parts = vec![noise::absent(service, |role| wanted.unchecked.contains(role))];
    if let Some(jobs) = &wanted.jobs {
        parts.push(jobs.condition());
        return Some(all(parts));
    }
    for also in &method.also {
        let role = also.role.as_str();
        if wanted.stated.contains_key(role)
            || wanted.unchecked.contains(role)
            || also.only_narrows()
            || is_covered(also, names)
            || is_name_of(method, also)
            || repeat::of(also).is_some()
        {
            continue;
        }
        match also.from {
            AlsoFrom::Body if seconds::is_named(wanted, also) => {
                parts.push(seconds::said(wanted, also, &member(service, &also.path)));
                parts.push(not_as_parameter(also));
            }
            AlsoFrom::Body | AlsoFrom::BodyOrQuery if also.is_needed() => lack.open(also),
            AlsoFrom::Query => parts.push(without_query(spellings(&also.path))),
            AlsoFrom::Header => parts.push(conditions::without_headers([also.path.clone()])),
            AlsoFrom::Path if wanted.reads => {}
            AlsoFrom::Path => lack.source(also),
            // `variables[KEY]=…`: such parameters have names that nobody can list.
            AlsoFrom::BodyOrQuery if service == "gitlab" => lack.open(also),
            // An upload's body is the content, or both it and what is said of it.
            AlsoFrom::Body if service == "storage" && method.bindings.iter().any(is_upload) => {
                lack.open(also)
            }
            AlsoFrom::Body | AlsoFrom::BodyOrQuery => {
                parts.push(not(present(member(service, &also.path))));
                parts.push(not_as_parameter(also));
            }
            AlsoFrom::Grpc => {}
        }
    }
    let options = method.also.iter().filter(|also| options::are_in(wanted, also));
    parts.extend(options.map(|also| options::in_json(wanted, also)));
    for (role, stated) in &wanted.stated {
        let operands: Vec<Operand> = method
            .also
            .iter()
            .filter(|also| also.role == *role)
            .flat_map(|also| {
                let in_query = spellings(&also.path).into_iter().map(Operand::Query);
                let in_body = [member(service, &also.path)].into_iter();
                match also.from {
                    AlsoFrom::Query => in_query.collect::<Vec<_>>(),
                    AlsoFrom::BodyOrQuery => in_query.chain(in_body).collect(),
                    AlsoFrom::Header => vec![Operand::Header(also.path.clone())],
                    AlsoFrom::Body => in_body.collect(),
                    AlsoFrom::Path | AlsoFrom::Grpc => Vec::new(),
                }
            })
            .collect();
        parts.push(stated::said(service, role, &operands, stated));
    }
    let is_stated =
        |also: &&Also| wanted.stated.contains_key(also.role.as_str()) && also.from == AlsoFrom::Body;
    parts.extend(method.also.iter().filter(is_stated).map(not_as_parameter));
    parts.push(stated::in_state(method, &wanted.states, false));
    lack.has_http().then(|| all(parts))
}

fn is_upload(binding: &Binding) -> bool {
    matches!(binding.path.parts().first(), Some(Part::Literal(first)) if ["upload", "resumable"].contains(&first.as_str()))
}

/// What is in the body is not in the query besides.
fn not_as_parameter(also: &Also) -> Condition {
    without_query(spellings(&also.path.replace("[]", "")))
}

/// Whether it is the parameter that the resource's name is made of.
fn is_name_of(method: &Method, also: &Also) -> bool {
    method.bindings.iter().flat_map(|binding| &binding.resource).any(|part| match part {
        NamePart::Variable { from: Source::Query(name, _) | Source::QueryElseBody(name, _), .. } => {
            *name == also.path && also.from == AlsoFrom::Query
        }
        _ => false,
    })
}

/// Whether the rule's names cover whatever it may say: a suffix of a table's name, where the name is open at its end; the
/// name in the body, where the one in the query takes precedence over it.
pub(super) fn is_covered(also: &Also, names: &[&Name]) -> bool {
    match also.role.as_str() {
        "templateSuffix" => names.iter().all(|name| name.is_open_at_the_end()),
        "objectName" => also.from == AlsoFrom::Body,
        _ => false,
    }
}

/// The hosts of a service on which its paths mean what the catalogue says: not those of the XML surface of Cloud Storage,
/// where the same path is an object.
pub(super) fn forms<'s>(service: &Service, hosts: &'s [HostForm]) -> Vec<&'s HostForm> {
    const ONLY_XML: [&str; 6] = [
        "c.storage.googleapis.com",
        "commondatastorage.googleapis.com",
        "content-storage-download.googleapis.com",
        "storage-download.googleapis.com",
        "storage-upload.googleapis.com",
        "storage.cloud.google.com",
    ];
    let is_json = |form: &&HostForm| {
        service.name != "storage"
            || !(form.as_str().contains("{bucket}") || ONLY_XML.contains(&form.as_str()))
    };
    hosts.iter().filter(is_json).collect()
}

pub(super) fn all_hosts(wanted: &Wanted<'_>) -> (Vec<HostPattern>, Condition) {
    match (&wanted.hosts, &wanted.service.hosts) {
        (Some(hosts), _) => (hosts.clone(), Condition::True),
        (None, Some(hosts)) => conditions::hosts(&forms(wanted.service, hosts)),
        // INVARIANT: a service without hosts of its own is refused unless the rule names some.
        (None, None) => (Vec::new(), Condition::Any(Vec::new())),
    }
}

/// The hosts of one request, where the host may name a part of the resource.
fn hosts_of(wanted: &Wanted<'_>, binding: &Binding, bound: &Bound<'_>) -> (Vec<HostPattern>, Condition) {
    let named =
        binding.resource.iter().any(|part| matches!(part, NamePart::Variable { from: Source::Host, .. }));
    if !named {
        return all_hosts(wanted);
    }
    let value = bound.iter().find(|(from, _)| **from == Source::Host).map(|(_, value)| value);
    let open: Vec<&HostForm> = match (&binding.host, &wanted.service.hosts) {
        (Some(form), _) => vec![form],
        // Of hosts without a place for it the path says something else.
        (None, Some(hosts)) => hosts
            .iter()
            .filter(|form| form.exact().is_none() && !form.as_str().ends_with(".gcr.io"))
            .collect(),
        (None, None) => Vec::new(),
    };
    let (patterns, condition) = conditions::hosts(&open);
    let told = match value {
        Some(Value::One(one)) => {
            let with = |form: &&HostForm| {
                let glob = form.glob().replacen('*', one.glob(), 1);
                text_like(Operand::Host, &glob)
            };
            any(open.iter().map(with).collect())
        }
        _ => Condition::True,
    };
    match &wanted.hosts {
        Some(hosts) => (hosts.clone(), all(vec![condition, told])),
        None => (patterns, all(vec![condition, told])),
    }
}
