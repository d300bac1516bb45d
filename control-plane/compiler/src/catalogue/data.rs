//! The files of the catalogue, read.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::{
    Action, Also, AlsoFrom, Binding, Flag, Grpc, HostForm, MessageName, Method, NamePart, PermissionSource,
    Scope, Service, Source, Streaming, Template, template::VariablePart,
};
use crate::yaml::{self, Decoded};

/// A file of the catalogue that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidCatalogue(String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServiceSpec {
    service: String,
    hosts: Option<Vec<String>>,
    operator_hosts: Option<bool>,
    #[expect(dead_code, reason = "where the data comes from, for people")]
    discovery: Option<BTreeMap<String, String>>,
    reserved_first_segments: Option<Vec<String>>,
    methods: Vec<MethodSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MethodSpec {
    name: String,
    action: String,
    permissions: Option<Vec<String>>,
    permission_source: PermissionSource,
    flags: Option<Vec<Flag>>,
    http: Option<Vec<BindingSpec>>,
    resource: ResourceSpec,
    grpc: Option<GrpcSpec>,
    also: Option<Vec<AlsoSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BindingSpec {
    call: String,
    host: Option<String>,
    query: Option<BTreeMap<String, String>>,
    body: Option<BTreeMap<String, String>>,
    default: Option<BTreeMap<String, String>>,
    query_has: Option<Vec<String>>,
    header_has: Option<Vec<String>>,
    resource: Option<String>,
    #[expect(dead_code, reason = "the path says the same")]
    upload: Option<bool>,
    #[expect(dead_code, reason = "the path says the same")]
    download: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ResourceSpec {
    r#type: String,
    scope: Scope,
    pattern: String,
    template: String,
    #[expect(dead_code, reason = "where most of the name is, for people; bindings say it exactly")]
    from: String,
    vars: Option<BTreeMap<String, VarSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VarSpec {
    from: String,
    key: Option<String>,
    else_body: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GrpcSpec {
    method: String,
    streaming: Streaming,
    template: Option<String>,
    fields: BTreeMap<String, Vec<u32>>,
    any_of: Option<Vec<AlternativeSpec>>,
    #[expect(dead_code, reason = "such names are not read")]
    nested_bytes_at: Option<Vec<u32>>,
    #[expect(dead_code, reason = "a hint that the client sets")]
    routing: Option<String>,
    #[expect(dead_code, reason = "a hint that the client sets")]
    routing_params: Option<Vec<RoutingSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AlternativeSpec {
    template: String,
    fields: BTreeMap<String, Vec<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RoutingSpec {
    #[expect(dead_code, reason = "a hint that the client sets")]
    field: String,
    #[expect(dead_code, reason = "a hint that the client sets")]
    template: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AlsoSpec {
    role: String,
    r#type: String,
    from: AlsoFrom,
    path: Option<String>,
    fields: Option<Vec<u32>>,
    template_fields: Option<Vec<Vec<u32>>>,
}

/// Templates that are no names.
const HANDLES: [&str; 1] = ["{upload_id}"];

/// Reads one file.
///
/// # Errors
/// If it is not well formed, or says something about a variable that no request carries.
pub(super) fn read(text: &str) -> Result<Service, InvalidCatalogue> {
    let (documents, faults) = yaml::parse(text);
    let [document] = documents.as_slice() else {
        return Err(InvalidCatalogue(format!("{} documents instead of one", documents.len())));
    };
    if let Some(fault) = faults.first() {
        return Err(InvalidCatalogue(format!("line {}: {}", fault.at.line, fault.message)));
    }
    match yaml::decode::<ServiceSpec>(&document.root) {
        Decoded::Value(spec) => service(spec),
        Decoded::Faults(faults) => Err(InvalidCatalogue(format!("{faults:?}"))),
    }
}

fn service(spec: ServiceSpec) -> Result<Service, InvalidCatalogue> {
    let ServiceSpec { service, hosts, operator_hosts, reserved_first_segments, methods, .. } = spec;
    if hosts.is_some() == operator_hosts.unwrap_or(false) {
        return Err(InvalidCatalogue("hosts are either listed or the operator's".to_owned()));
    }
    let methods = methods
        .into_iter()
        .map(|spec| {
            let name = spec.name.clone();
            method(spec).map_err(|InvalidCatalogue(why)| InvalidCatalogue(format!("{name}: {why}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Service {
        name: service,
        hosts: hosts.map(|hosts| hosts.into_iter().map(HostForm::new).collect()),
        reserved_first_segments: reserved_first_segments.unwrap_or_default(),
        methods,
    })
}

fn method(spec: MethodSpec) -> Result<Method, InvalidCatalogue> {
    let MethodSpec {
        name,
        action,
        permissions,
        permission_source,
        flags,
        http,
        resource,
        grpc: grpc_spec,
        also,
    } = spec;
    let action =
        Action::parse(&action).ok_or_else(|| InvalidCatalogue(format!("no such action: {action}")))?;
    let pattern: Vec<String> = resource.pattern.split('/').map(str::to_owned).collect();
    let bindings = http
        .unwrap_or_default()
        .into_iter()
        .map(|spec| binding(spec, &resource, &pattern))
        .collect::<Result<Vec<_>, _>>()?;
    let grpc = grpc_spec.map(|spec| grpc(spec, &resource.template, &pattern, &bindings)).transpose()?;
    let also = also
        .unwrap_or_default()
        .into_iter()
        .map(|spec| self::also(spec, &pattern))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Method {
        name,
        action,
        permissions: permissions.unwrap_or_default(),
        permission_source,
        flags: flags.unwrap_or_default(),
        bindings,
        grpc,
        resource_type: resource.r#type,
        scope: resource.scope,
        pattern,
        also,
    })
}

fn also(spec: AlsoSpec, pattern: &[String]) -> Result<Also, InvalidCatalogue> {
    let AlsoSpec { role, r#type: kind, from, path, fields, template_fields } = spec;
    let path = path.unwrap_or_default();
    let name = match template_fields {
        Some(numbers) => {
            let variables = segments(&path).into_iter().filter_map(variable_name).map(str::to_owned);
            let fields: BTreeMap<String, Vec<u32>> = variables.zip(numbers).collect();
            Some(message_name(&path, &fields, pattern, &[])?)
        }
        None => None,
    };
    Ok(Also { role, kind, from, path, fields: fields.unwrap_or_default(), name })
}

/// What is between braces.
fn variable_name(segment: &str) -> Option<&str> {
    segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'))
}

/// How fields of a message make up a name. Of variables that a path has, too, it is known how many segments they are; else
/// only the first may be several.
fn message_name(
    template: &str,
    fields: &BTreeMap<String, Vec<u32>>,
    pattern: &[String],
    bindings: &[Binding],
) -> Result<MessageName, InvalidCatalogue> {
    let invalid = || InvalidCatalogue(format!("`{template}` is not `{}`", pattern.join("/")));
    let segments = segments(template);
    let mut name = MessageName { parts: Vec::new(), spans: Vec::new() };
    let of_template: Vec<String> = segments
        .iter()
        .map(|segment| variable_name(segment).map_or_else(|| (*segment).to_owned(), |_| "*".to_owned()))
        .collect();
    // An alternative may have a name of another form; then each variable is one segment.
    let is_other = segments.first().is_some_and(|first| variable_name(first).is_none())
        && segments.len() != pattern.len();
    let mut left = if is_other { &of_template } else { pattern };
    for (at, segment) in segments.iter().enumerate() {
        let variable = variable_name(segment);
        let of_path = variable.and_then(|name| bindings.iter().find_map(|one| one.path.variable(name)));
        // A variable that is a whole other name, of which the path says what it is like.
        let own: Option<Vec<String>> = of_path.filter(|_| segments.len() == 1).map(|own| {
            let text = |part: &VariablePart| match part {
                VariablePart::Literal(text) => text.clone(),
                VariablePart::Open { rest: true, .. } => "**".to_owned(),
                VariablePart::Open { .. } => "*".to_owned(),
            };
            own.iter().map(text).collect()
        });
        let width = match at {
            0 => left.len().checked_sub(segments.len().saturating_sub(1)).ok_or_else(invalid)?,
            _ => 1,
        };
        let (taken, rest) = left.split_at_checked(width).ok_or_else(invalid)?;
        left = rest;
        let taken = own.as_deref().unwrap_or(taken);
        let numbers = match variable {
            Some(variable) => fields.get(variable).cloned().ok_or_else(invalid)?,
            None if taken.iter().any(|one| one != segment) => return Err(invalid()),
            None => Vec::new(),
        };
        let mut open = 0usize;
        for part in taken {
            let many = part == "**";
            name.parts.push(if many || part == "*" {
                open = open.saturating_add(1);
                let from = Source::Message(numbers.clone(), open.saturating_sub(1));
                NamePart::Variable { from, many }
            } else {
                NamePart::Literal(part.clone())
            });
        }
        name.spans.push((numbers, taken.len()));
    }
    if left.is_empty() { Ok(name) } else { Err(invalid()) }
}

fn grpc(
    spec: GrpcSpec,
    template: &str,
    pattern: &[String],
    bindings: &[Binding],
) -> Result<Grpc, InvalidCatalogue> {
    let (service, method) = spec
        .method
        .split_once('/')
        .ok_or_else(|| InvalidCatalogue(format!("no gRPC method: {}", spec.method)))?;
    let template = spec.template.as_deref().unwrap_or(template);
    let others = spec.any_of.unwrap_or_default();
    let mut names = Vec::new();
    for (template, fields) in [(template, &spec.fields)]
        .into_iter()
        .chain(others.iter().map(|other| (&*other.template, &other.fields)))
    {
        // A handle stands for what was named elsewhere.
        let is_handle = HANDLES.contains(&template);
        if !is_handle && !fields.is_empty() {
            names.push(message_name(template, fields, pattern, bindings)?);
        }
    }
    let mut fields = spec.fields;
    fields.extend(others.into_iter().flat_map(|other| other.fields));
    let (service, method) = (service.to_owned(), method.to_owned());
    Ok(Grpc { service, method, streaming: spec.streaming, fields, names })
}

fn binding(
    spec: BindingSpec,
    resource: &ResourceSpec,
    pattern: &[String],
) -> Result<Binding, InvalidCatalogue> {
    let (verb, path) = spec
        .call
        .split_once(' ')
        .ok_or_else(|| InvalidCatalogue(format!("neither verb nor path: {}", spec.call)))?;
    let path = Template::parse(path)
        .map_err(|invalid| InvalidCatalogue(format!("{}: {}", invalid.template, invalid.why)))?;
    let (template, own) = match &spec.resource {
        Some(template) => (template, false),
        None => (&resource.template, true),
    };
    let mut parts = Vec::new();
    for segment in segments(template) {
        match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None => parts.push(NamePart::Literal(segment.to_owned())),
            Some(name) => variable(name, &path, &spec, resource, &mut parts)?,
        }
    }
    if own {
        align(&mut parts, pattern)?;
    }
    Ok(Binding {
        verb: verb.to_owned(),
        path,
        host: spec.host.map(HostForm::new),
        query_has: spec.query_has.unwrap_or_default(),
        header_has: spec.header_has.unwrap_or_default(),
        resource: parts,
    })
}

/// Segments of a name's template, `{v=a/b}` being one.
fn segments(template: &str) -> Vec<&str> {
    template.split('/').collect()
}

/// The parts of a name that a variable stands for, and where the request carries it.
fn variable(
    name: &str,
    path: &Template,
    binding: &BindingSpec,
    resource: &ResourceSpec,
    parts: &mut Vec<NamePart>,
) -> Result<(), InvalidCatalogue> {
    if let Some(segments) = path.variable(name) {
        parts.extend(segments.iter().map(|segment| match segment {
            VariablePart::Literal(text) => NamePart::Literal(text.clone()),
            VariablePart::Open { index, rest } => {
                NamePart::Variable { from: Source::Path(name.to_owned(), *index), many: *rest }
            }
        }));
        return Ok(());
    }
    let of = |map: &Option<BTreeMap<String, String>>| map.as_ref().and_then(|map| map.get(name).cloned());
    let from = if let Some(parameter) = of(&binding.query) {
        Source::Query(parameter, of(&binding.default))
    } else if let Some(field) = of(&binding.body) {
        match of(&binding.default) {
            Some(default) => Source::BodyElse(field, default),
            None => Source::Body(field),
        }
    } else if binding.host.as_ref().is_some_and(|host| host.contains(&format!("{{{name}}}"))) {
        Source::Host
    } else {
        resource
            .vars
            .as_ref()
            .and_then(|vars| vars.get(name))
            .and_then(VarSpec::source)
            .ok_or_else(|| InvalidCatalogue(format!("{}: nothing carries `{name}`", binding.call)))?
    };
    parts.push(NamePart::Variable { from, many: false });
    Ok(())
}

/// The canonical pattern says which parts may be several segments; otherwise the two are the same.
fn align(parts: &mut [NamePart], pattern: &[String]) -> Result<(), InvalidCatalogue> {
    if parts.len() != pattern.len() {
        return Err(InvalidCatalogue(format!("the name has not the parts of `{}`", pattern.join("/"))));
    }
    for (part, pattern) in parts.iter_mut().zip(pattern) {
        match (part, pattern.as_str()) {
            (NamePart::Variable { many, .. }, "**") => *many = true,
            (NamePart::Variable { many: false, .. }, "*") => {}
            // Buckets have no project: `_` stands for all.
            (NamePart::Literal(text), "*") if text == "_" => {}
            (NamePart::Literal(text), literal) if text == literal => {}
            (part, _) => return Err(InvalidCatalogue(format!("{part:?} is not `{pattern}`"))),
        }
    }
    Ok(())
}

// === impl VarSpec ===

impl VarSpec {
    fn source(&self) -> Option<Source> {
        let key = self.key.clone();
        Some(match (self.from.as_str(), &self.else_body) {
            ("query", None) => Source::Query(key?, None),
            ("query", Some(field)) => Source::QueryElseBody(key?, field.clone()),
            ("header", None) => Source::Header(key?),
            ("host", None) => Source::Host,
            ("body", None) => Source::Body(key?),
            ("bodyOrQuery", None) => Source::BodyOrQuery(key?),
            _ => return None,
        })
    }
}

// === impl InvalidCatalogue ===

impl fmt::Display for InvalidCatalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
