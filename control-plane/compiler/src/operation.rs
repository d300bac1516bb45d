//! `to` entries: methods, paths, hosts, ports and gRPC methods.
//!
//! INVARIANT: a pattern is written exactly as the engine's one normalisation reads requests. What would be read
//! differently is refused, so that no rule matches more, or less, than it says.

use std::collections::BTreeSet;

use tidegate_engine::model::{Condition, Effect, HostPattern, OperationModel, PathPattern, SegmentPattern};
use tidegate_engine::normal;

use crate::diagnostic::Code;
use crate::launch;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::resources;
use crate::spec::{GrpcSpec, HttpSpec, OperationSpec};
use crate::suggest;

mod fields;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

/// Checks the `to` of a rule. `None` if anything is wrong with it.
pub(crate) fn check(
    place: &Place<'_>,
    to: &[OperationSpec],
    effect: Effect,
    findings: &mut Findings,
) -> Option<Vec<OperationModel>> {
    not_empty(place, to, findings);
    let before = findings.errors();
    let operations: Vec<_> = to
        .iter()
        .enumerate()
        .map(|(index, operation)| check_operation(&place.index(index), operation, effect, findings))
        .collect();
    let operations = operations.into_iter().collect::<Option<Vec<_>>>();
    operations
        .map(|operations| {
            let mut operations: Vec<_> = operations.into_iter().flatten().collect();
            // They are kept.
            operations.shrink_to_fit();
            operations
        })
        .filter(|_| findings.errors() == before && !to.is_empty())
}

fn check_operation(
    place: &Place<'_>,
    spec: &OperationSpec,
    effect: Effect,
    findings: &mut Findings,
) -> Option<Vec<OperationModel>> {
    let written: Vec<&str> = [
        ("http", spec.http.is_some()),
        ("grpc", spec.grpc.is_some()),
        ("launch", spec.launch.is_some()),
        ("resources", spec.resources.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, written)| written.then_some(name))
    .collect();
    let [_] = written.as_slice() else {
        findings.add(
            place,
            Code::NotExactlyOne,
            if written.is_empty() {
                "the entry does not say what is called".to_owned()
            } else {
                format!("{} are in the same entry", suggest::list(written))
            },
            "an entry is one kind of operation",
            "write `http`, `grpc`, `resources` or `launch`; for several, write several entries",
        );
        return None;
    };
    match spec {
        OperationSpec { http: Some(http), .. } => {
            check_http(&place.key("http"), http, findings).map(|operation| vec![operation])
        }
        OperationSpec { grpc: Some(grpc), .. } => {
            check_grpc(&place.key("grpc"), grpc, findings).map(|operation| vec![operation])
        }
        OperationSpec { resources: Some(resources), .. } => {
            resources::check(&place.key("resources"), resources, effect, findings)
        }
        OperationSpec { launch, .. } => {
            launch::check(&place.key("launch"), launch.as_ref()?, effect, findings)
        }
    }
}

fn check_http(place: &Place<'_>, spec: &HttpSpec, findings: &mut Findings) -> Option<OperationModel> {
    let HttpSpec { methods, paths, hosts, ports, headers, query } = spec;
    let no_fields = headers.is_none() && query.is_none();
    if methods.is_none() && paths.is_none() && hosts.is_none() && ports.is_none() && no_fields {
        findings.add(
            place,
            Code::EmptyValue,
            "nothing is written here",
            "an empty mapping is neither \"any\" nor \"none\"",
            "write `methods` and `paths`; for any operation, remove `to`",
        );
        return None;
    }
    let before = findings.errors();
    let methods = methods
        .as_ref()
        .map(|methods| each(&place.key("methods"), methods, findings, check_method))
        .map(|methods| methods.into_iter().collect());
    let paths = paths
        .as_ref()
        .map(|paths| each(&place.key("paths"), paths, findings, check_path))
        .map(|paths| paths.into_iter().collect());
    let hosts = check_hosts(place, hosts.as_deref(), findings);
    let ports = check_ports(&place.key("ports"), ports.as_deref(), findings);
    let condition = fields::check(place, headers.as_deref(), query.as_deref(), findings);
    let grpc = false;
    (findings.errors() == before).then_some(OperationModel {
        ports,
        methods,
        hosts,
        paths,
        grpc,
        encoded_slashes: false,
        condition,
    })
}

fn check_grpc(place: &Place<'_>, spec: &GrpcSpec, findings: &mut Findings) -> Option<OperationModel> {
    let before = findings.errors();
    let services = each(&place.key("services"), &spec.services, findings, check_service);
    let methods = spec
        .methods
        .as_ref()
        .map(|methods| each(&place.key("methods"), methods, findings, check_grpc_method));
    let hosts = check_hosts(place, spec.hosts.as_deref(), findings);
    let ports = check_ports(&place.key("ports"), spec.ports.as_deref(), findings);
    let mut paths = BTreeSet::new();
    for service in services {
        let service = SegmentPattern::Literal(service);
        match &methods {
            None => {
                paths.insert(PathPattern { segments: vec![service, SegmentPattern::One] });
            }
            Some(methods) => {
                for method in methods {
                    let method = SegmentPattern::Literal(method.clone());
                    paths.insert(PathPattern { segments: vec![service.clone(), method] });
                }
            }
        }
    }
    (findings.errors() == before).then(|| OperationModel {
        ports,
        // gRPC over HTTP/2: "Request-Headers → Call-Definition: Method → ":method POST"".
        methods: Some(vec!["POST".to_owned()]),
        hosts,
        paths: Some(paths.into_iter().collect()),
        grpc: true,
        encoded_slashes: false,
        condition: Condition::True,
    })
}

/// Whether only exact methods and paths match.
pub(crate) fn is_exact(operation: &OperationModel) -> bool {
    operation.methods.is_some()
        && operation.paths.as_ref().is_some_and(|paths| {
            paths
                .iter()
                .all(|path| path.segments.iter().all(|segment| matches!(segment, SegmentPattern::Literal(_))))
        })
}

/// Checks every value of a list; a value that is there twice is reported, and counts once.
fn each<V: Ord>(
    place: &Place<'_>,
    values: &[String],
    findings: &mut Findings,
    check: fn(&Place<'_>, &str, &mut Findings) -> Option<V>,
) -> BTreeSet<V> {
    not_empty(place, values, findings);
    let mut checked = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let place = place.index(index);
        if let Some(one) = check(&place, value, findings)
            && !checked.insert(one)
        {
            repeated(&place, value, findings);
        }
    }
    checked
}

/// Reports a value that is in a list twice.
pub(crate) fn repeated(place: &Place<'_>, value: &str, findings: &mut Findings) {
    findings.add(
        place,
        Code::RepeatedValue,
        format!("`{value}` is in the list twice"),
        "it counts once; perhaps another value was meant",
        "remove or correct it",
    );
}

/// Checks ports of a workload.
pub(crate) fn check_ports(
    place: &Place<'_>,
    ports: Option<&[u16]>,
    findings: &mut Findings,
) -> Option<Vec<u16>> {
    let ports = ports?;
    not_empty(place, ports, findings);
    let mut checked = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let place = place.index(index);
        if *port == 0 {
            findings.add(
                &place,
                Code::MalformedValue,
                "0 is not a port",
                "no workload listens there",
                "write a port from 1 to 65535, or remove `ports` for any",
            );
        } else if !checked.insert(*port) {
            repeated(&place, &port.to_string(), findings);
        }
    }
    Some(checked.into_iter().collect())
}

fn check_hosts(
    parent: &Place<'_>,
    hosts: Option<&[String]>,
    findings: &mut Findings,
) -> Option<Vec<HostPattern>> {
    hosts
        .map(|hosts| each(&parent.key("hosts"), hosts, findings, check_host))
        .map(|hosts| hosts.into_iter().collect())
}

pub(crate) fn check_method(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<String> {
    let refused = |findings: &mut Findings, fix: String| {
        findings.add(
            place,
            Code::MalformedMethod,
            format!("`{text}` is not a method"),
            "methods are compared byte for byte, and case matters (RFC 9110 section 9.1)",
            fix,
        );
        None
    };
    if METHODS.contains(&text) {
        return Some(text.to_owned());
    }
    if text.is_empty() || text.contains('*') {
        return refused(findings, "for any method, remove `methods`".to_owned());
    }
    if let Some(known) = suggest::closest(text, METHODS) {
        return refused(findings, format!("did you mean `{known}`?"));
    }
    if !normal::is_method(text.as_bytes()) || text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return refused(findings, "write a method as it is sent, e.g. `POST`".to_owned());
    }
    Some(text.to_owned())
}

/// Checks a host, `*.` before it standing for one or more labels.
pub(crate) fn check_host(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<HostPattern> {
    let refused = |findings: &mut Findings, why: &str, fix: String| {
        findings.add(place, Code::MalformedHost, format!("`{text}` is not a host"), why, fix);
        None
    };
    let lower = text.to_ascii_lowercase();
    let (name, wildcard) = match lower.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (lower.as_str(), false),
    };
    if lower == "*" {
        return refused(
            findings,
            "a host that says nothing is no condition",
            "for any host, remove `hosts`".to_owned(),
        );
    }
    if name.contains('*') {
        let why = "a wildcard stands for whole labels at the beginning";
        return refused(findings, why, "write `*.example.com`".to_owned());
    }
    if name.contains("://") || name.contains('/') {
        return refused(findings, "a host is only a name", "remove scheme and path".to_owned());
    }
    match normal::host(name.as_bytes()) {
        Some(normal) if normal == name && !(wildcard && normal.starts_with('[')) => Some(if wildcard {
            HostPattern::Suffix(format!(".{name}"))
        } else {
            HostPattern::Exact(name.to_owned())
        }),
        Some(normal) => {
            let why = "hosts are compared without port and without a trailing dot";
            let shown = if wildcard { format!("*.{normal}") } else { normal.into_owned() };
            refused(findings, why, format!("write `{shown}`; ports go into `ports`"))
        }
        None => {
            refused(findings, "no request has it", "write a name such as `orders.example.com`".to_owned())
        }
    }
}

fn check_service(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<String> {
    if !text.is_empty() && text.split('.').all(is_proto_name) {
        return Some(text.to_owned());
    }
    findings.add(
        place,
        Code::MalformedGrpc,
        format!("`{text}` is not a gRPC service"),
        "services are compared byte for byte with the first part of the path",
        "write the full name, e.g. `google.pubsub.v1.Publisher`",
    );
    None
}

fn check_grpc_method(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<String> {
    if is_proto_name(text) {
        return Some(text.to_owned());
    }
    findings.add(
        place,
        Code::MalformedGrpc,
        format!("`{text}` is not a gRPC method"),
        "methods are compared byte for byte with the last part of the path",
        "write the name alone, e.g. `Publish`; for any method, remove `methods`",
    );
    None
}

fn is_proto_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reads a path template.
pub(crate) fn check_path(place: &Place<'_>, text: &str, findings: &mut Findings) -> Option<PathPattern> {
    match path(text) {
        Ok(pattern) => Some(pattern),
        Err(PathProblem { why, fix }) => {
            findings.add(
                place,
                Code::AmbiguousPath,
                format!("`{text}` is not a path template with one reading"),
                why,
                fix,
            );
            None
        }
    }
}

struct PathProblem {
    why: &'static str,
    fix: String,
}

fn path(text: &str) -> Result<PathPattern, PathProblem> {
    let problem = |why: &'static str, fix: &str| Err(PathProblem { why, fix: fix.to_owned() });
    if text.is_empty() {
        return problem("an empty path matches nothing", "write `/…`, or remove `paths` for any");
    }
    let Some(inner) = text.strip_prefix('/') else {
        return problem("every path begins with a slash", &format!("write `/{text}`"));
    };
    if text.contains('?') {
        return problem("the query is not part of the path", "remove `?` and what follows");
    }
    if text.contains('#') {
        return problem("fragments are never sent", "remove `#` and what follows");
    }
    let parts: Vec<&str> = inner.split('/').collect();
    let mut segments = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let last = index.saturating_add(1) == parts.len();
        segments.push(segment(part, last)?);
    }
    Ok(PathPattern { segments })
}

fn segment(text: &str, last: bool) -> Result<SegmentPattern, PathProblem> {
    let problem = |why: &'static str, fix: String| Err(PathProblem { why, fix });
    match text {
        "" if last => return Ok(SegmentPattern::Literal(String::new())),
        "" => return problem("servers disagree about `//`", "write one slash".to_owned()),
        "{**}" if last => return Ok(SegmentPattern::Rest),
        "{**}" => {
            return problem(
                "`{**}` stands for the rest of the path",
                "put it last, without a slash after it, or write `{name}`".to_owned(),
            );
        }
        "*" | "{*}" => {
            return problem("one segment is written as a name in braces", "write `{id}` instead".to_owned());
        }
        "**" => {
            return problem("the rest of a path is written in braces", "write `{**}` instead".to_owned());
        }
        _ => {}
    }
    if let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        return if is_proto_name(name) {
            Ok(SegmentPattern::One)
        } else {
            problem("names in braces stand for one whole segment", "write a name such as `{id}`".to_owned())
        };
    }
    if text.contains(['{', '}']) {
        let why = "braces stand for a whole segment";
        return problem(why, "write `*` for a part of a segment, e.g. `orders-*`".to_owned());
    }
    let absolute = format!("/{text}");
    let read = normal::path(absolute.as_bytes());
    if read.ambiguous() {
        let encoded = percent_encoded(text);
        let absolute = format!("/{encoded}");
        if encoded != text && !normal::path(absolute.as_bytes()).ambiguous() {
            let why = "such characters are sent encoded, and requests are compared as they are sent";
            return problem(why, format!("write `{encoded}`"));
        }
        let why =
            "servers disagree about dot segments, `;`, backslashes, control and encoded separator characters";
        return problem(why, "write the path without them; no request that has them is allowed".to_owned());
    }
    let shown = read.display().to_string();
    if shown != absolute {
        let shown = shown.strip_prefix('/').unwrap_or(&shown);
        return problem("requests are compared in their decoded form", format!("write `{shown}`"));
    }
    Ok(if text.contains('*') {
        SegmentPattern::Glob(text.to_owned())
    } else {
        SegmentPattern::Literal(text.to_owned())
    })
}

/// Characters that no path has, as clients send them.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte == b' ' || byte == b'"' || byte >= 0x80 {
            encoded.push_str(&format!("%{byte:02X}"));
        } else {
            encoded.push(char::from(byte));
        }
    }
    encoded
}

/// What `anyone: true` demands of the operations that an Allow names.
pub(crate) fn names_exact_operations(effect: Effect, to: Option<&[OperationModel]>) -> bool {
    effect == Effect::Deny || to.is_some_and(|to| to.iter().all(is_exact))
}

#[cfg(test)]
mod tests;
