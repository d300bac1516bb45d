//! `to: [{resources: …}]`: services, actions and names to requests.
//!
//! An Allow becomes exactly the requests that the catalogue lists for the methods, on the hosts that it lists, with the
//! names in path, query, headers and body. What cannot be told there is refused when it is compiled.
//! A Deny becomes every request that could be one of them: any host, any spelling, and whole methods where the body names
//! the resource.
//!
//! INVARIANT: an Allow matches no request that the service could take for another method or another resource. Whatever is
//! not certain is left out, and whoever wrote the rule is told.
//!
//! INVARIANT: a Deny matches at least what the same Allow would.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{Effect, HostPattern, OperationModel};

use crate::catalogue::{self, Action, HostForm, Method, Precision, Service};
use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::operation::{check_host, repeated};
use crate::place::{Findings, Place};
use crate::spec::{ProtocolSpec, ResourcesSpec};
use crate::suggest;

mod allow;
mod bind;
mod conditions;
mod deny;
mod jobs;
mod message;
mod name;
mod noise;
mod options;
mod refusal;
mod repeat;
mod seconds;
mod stated;

pub(crate) use jobs::{Data, Jobs, Kind};
pub(crate) use name::{Name, NameProblem};
pub(crate) use stated::DEFAULT;

/// Which requests are meant.
pub(crate) struct Wanted<'w> {
    pub(crate) service: &'static Service,
    /// With whether each was written by its name.
    pub(crate) methods: Vec<(&'static Method, bool)>,
    pub(crate) names: Vec<Name>,
    /// What is demanded of further things that requests name, by role: globs.
    pub(crate) stated: BTreeMap<&'static str, String>,
    /// Roles of further things that requests may name as they like.
    pub(crate) unchecked: BTreeSet<&'w str>,
    pub(crate) http: bool,
    pub(crate) grpc: bool,
    /// Hosts that the rule names.
    pub(crate) hosts: Option<Vec<HostPattern>>,
    /// Whether the rule lets read, so that a source may be read.
    pub(crate) reads: bool,
    /// What updates of jobs may ask for; empty: anything.
    pub(crate) states: Vec<stated::State>,
    /// Which jobs of BigQuery are meant, if the rule says so.
    pub(crate) jobs: Option<Jobs>,
}

/// The role of the project that is billed instead of the caller's.
pub(crate) const USER_PROJECT: &str = "userProject";

/// Checks an entry on resources. `None` if anything is wrong with it.
pub(crate) fn check(
    place: &Place<'_>,
    spec: &ResourcesSpec,
    effect: Effect,
    findings: &mut Findings,
) -> Option<Vec<OperationModel>> {
    let before = findings.errors();
    let names = check_names(&place.key("names"), &spec.names, findings);
    not_empty(&place.key("actions"), &spec.actions, findings);
    let service = find_service(&place.key("service"), &spec.service, findings)?;
    let hosts = check_hosts(place, service, spec.hosts.as_deref(), effect, findings);
    let (http, grpc) = check_protocols(place, spec.protocols.as_deref(), effect, findings);
    let mut methods: Vec<(&Method, bool)> = Vec::new();
    let mut states = Vec::new();
    for (at, action) in spec.actions.iter().enumerate() {
        let place = place.key("actions");
        let place = place.index(at);
        if spec.actions.iter().take(at).any(|earlier| earlier == action) {
            repeated(&place, action, findings);
        }
        let mut action = action.as_str();
        if let Some(state) = stated::state(action).filter(|_| service.name == "dataflow") {
            states.push(state);
            action = "jobs.update";
        }
        choose(&place, service, action, effect, &names, &mut methods, findings);
    }
    if spec.actions.iter().any(|action| {
        stated::state(action).is_none()
            && service.methods_of(action).any(|method| method.is_called("jobs.update"))
    }) {
        states.clear();
    }
    for (at, name) in names.iter().enumerate() {
        let met = |(method, _): &(&Method, bool)| {
            is_about(method, name) || method.also.iter().any(|also| seconds::is_about(service, also, name))
        };
        if !methods.is_empty() && !methods.iter().any(met) {
            refusal::name_never_matches(&place.key("names").index(at), service, &spec.actions, findings);
        }
    }
    methods.retain(|(method, _)| names.iter().any(|name| is_about(method, name)));
    let unchecked = check_unchecked(place, spec.unchecked.as_deref(), effect, &methods, findings);
    if findings.errors() > before {
        return None;
    }
    let wanted = Wanted {
        service,
        methods,
        names,
        stated: BTreeMap::new(),
        unchecked,
        http,
        grpc,
        hosts,
        reads: spec.actions.iter().any(|action| Action::parse(action) == Some(Action::Read)),
        states,
        jobs: None,
    };
    compile(place, &wanted, effect, findings)
}

/// The operations of what is wanted. `None` if some of it cannot be enforced, which is then reported.
pub(crate) fn compile(
    place: &Place<'_>,
    wanted: &Wanted<'_>,
    effect: Effect,
    findings: &mut Findings,
) -> Option<Vec<OperationModel>> {
    let before = findings.errors();
    let operations = match effect {
        Effect::Allow => allow::operations(place, wanted, findings),
        Effect::Deny => deny::operations(place, wanted, findings),
    };
    (findings.errors() == before && !operations.is_empty()).then_some(operations)
}

/// Whether a resource of the method can have the name.
fn is_about(method: &Method, name: &Name) -> bool {
    method.bindings.iter().any(|binding| name.bind(&binding.resource).is_some())
        || (method.bindings.is_empty() && name.meets(&method.pattern))
        || method.grpc.iter().flat_map(|grpc| &grpc.names).any(|way| name.bind(&way.parts).is_some())
}

/// The service of this name.
pub(crate) fn find_service(
    place: &Place<'_>,
    name: &str,
    findings: &mut Findings,
) -> Option<&'static Service> {
    match catalogue::service(name) {
        Some(Ok(service)) => return Some(service),
        Some(Err(defect)) => findings.add(
            place,
            Code::Unfinished,
            format!("the catalogue of `{name}` cannot be read: {defect}"),
            "this is a defect of the compiler",
            "report it",
        ),
        None => {
            let names: Vec<&str> = catalogue::names().collect();
            findings.add(
                place,
                Code::UnknownInCatalogue,
                format!("there is no service `{name}` in the catalogue"),
                "only of known services it is known what a request does to which resource",
                match suggest::closest(name, names.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!(
                        "known are {}; others are described with `http` or `grpc`",
                        suggest::list(names)
                    ),
                },
            );
        }
    }
    None
}

fn check_names(place: &Place<'_>, names: &[String], findings: &mut Findings) -> Vec<Name> {
    not_empty(place, names, findings);
    let mut checked = Vec::new();
    for (at, text) in names.iter().enumerate() {
        let place = place.index(at);
        match Name::parse(text) {
            Ok(name) if checked.contains(&name) => repeated(&place, text, findings),
            Ok(name) => checked.push(name),
            Err(problem) => malformed_name(&place, text, problem, findings),
        }
    }
    checked
}

/// Reports a name that cannot be read.
pub(crate) fn malformed_name(place: &Place<'_>, text: &str, problem: NameProblem, findings: &mut Findings) {
    findings.add(
        place,
        Code::MalformedValue,
        format!("`{text}` is not the name of a resource"),
        problem.why,
        problem.fix,
    );
}

/// The methods that an action stands for.
fn choose(
    place: &Place<'_>,
    service: &'static Service,
    action: &str,
    effect: Effect,
    names: &[Name],
    methods: &mut Vec<(&'static Method, bool)>,
    findings: &mut Findings,
) {
    let class = Action::parse(action);
    let before = findings.errors();
    let found: Vec<&Method> = service.methods_of(action).collect();
    if found.is_empty() {
        refusal::unknown_action(place, service, action, findings);
        return;
    }
    let meant: Vec<&Method> =
        found.iter().copied().filter(|method| names.iter().any(|name| is_about(method, name))).collect();
    for method in &meant {
        let by_name = class.is_none();
        if effect == Effect::Allow && method.precision() == Precision::Never {
            // Classes do not stand for what is never allowed.
            if by_name {
                refusal::never_allowed(place, method, findings);
            }
            continue;
        }
        if effect == Effect::Allow && !by_name && !method.in_classes() {
            continue;
        }
        match methods.iter_mut().find(|(known, _)| known.name == method.name) {
            Some((_, known_by_name)) => *known_by_name |= by_name,
            None => methods.push((method, by_name)),
        }
    }
    if meant.is_empty() && !names.is_empty() && findings.errors() == before {
        refusal::action_never_matches(place, action, &found, findings);
    }
}

/// Hosts that the rule names. They must be the service's, where those are known.
pub(crate) fn check_hosts(
    place: &Place<'_>,
    service: &Service,
    hosts: Option<&[String]>,
    effect: Effect,
    findings: &mut Findings,
) -> Option<Vec<HostPattern>> {
    let field = place.key("hosts");
    let Some(hosts) = hosts else {
        if service.hosts.is_none() && effect == Effect::Allow {
            findings.add(
                place,
                Code::MissingField,
                "`hosts` is missing",
                format!("`{}` is wherever the operator runs it", service.name),
                "write its hosts, e.g. `hosts: [gitlab.example.com]`",
            );
        }
        return None;
    };
    not_empty(&field, hosts, findings);
    if service.hosts.is_some() && effect == Effect::Deny {
        findings.add(
            &field,
            Code::MalformedValue,
            "`hosts` is in a Deny",
            "the service answers under many hosts, and a Deny covers every one",
            "remove it",
        );
    }
    let mut checked = Vec::new();
    for (at, text) in hosts.iter().enumerate() {
        let place = field.index(at);
        let Some(host) = check_host(&place, text, findings) else { continue };
        if let (Some(known), HostPattern::Exact(name)) = (&service.hosts, &host)
            && allow::forms(service, known).iter().any(|form| form.is(name))
        {
            checked.push(host);
        } else if let Some(known) = &service.hosts {
            let forms: Vec<&str> = allow::forms(service, known).iter().map(|form| form.as_str()).collect();
            findings.add(
                &place,
                Code::UnknownInCatalogue,
                format!("`{text}` is not a host of `{}`", service.name),
                "another host may take the same path for something else",
                format!("it has {}", suggest::list(forms)),
            );
        } else {
            checked.push(host);
        }
    }
    checked.sort();
    checked.dedup();
    Some(checked)
}

/// Whether HTTP, and whether gRPC is meant.
pub(crate) fn check_protocols(
    place: &Place<'_>,
    protocols: Option<&[ProtocolSpec]>,
    effect: Effect,
    findings: &mut Findings,
) -> (bool, bool) {
    let Some(protocols) = protocols else { return (true, true) };
    let place = place.key("protocols");
    not_empty(&place, protocols, findings);
    if effect == Effect::Deny {
        findings.add(
            &place,
            Code::MalformedValue,
            "`protocols` is in a Deny",
            "whatever is denied over one protocol would pass over the other",
            "remove it",
        );
    }
    (protocols.contains(&ProtocolSpec::Http), protocols.contains(&ProtocolSpec::Grpc))
}

/// Roles that the rule leaves open.
pub(crate) fn check_unchecked<'s>(
    place: &Place<'_>,
    roles: Option<&'s [String]>,
    effect: Effect,
    methods: &[(&Method, bool)],
    findings: &mut Findings,
) -> BTreeSet<&'s str> {
    let Some(roles) = roles else { return BTreeSet::new() };
    let place = place.key("unchecked");
    not_empty(&place, roles, findings);
    if effect == Effect::Deny {
        findings.add(
            &place,
            Code::MalformedValue,
            "`unchecked` is in a Deny",
            "a Deny covers requests whatever else they name",
            "remove it",
        );
        return BTreeSet::new();
    }
    let known: BTreeSet<&str> = methods
        .iter()
        .flat_map(|(method, _)| &method.also)
        .filter(|also| !also.only_narrows())
        .map(|also| also.role.as_str())
        .chain([USER_PROJECT])
        .collect();
    let mut checked = BTreeSet::new();
    for (at, role) in roles.iter().enumerate() {
        let place = place.index(at);
        if methods.is_empty() || known.contains(role.as_str()) {
            if !checked.insert(role.as_str()) {
                repeated(&place, role, findings);
            }
            continue;
        }
        findings.add(
            &place,
            Code::UnknownInCatalogue,
            format!("these methods name nothing as `{role}`"),
            "what is left open is written out exactly",
            match suggest::closest(role, known.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("they name {}", suggest::list(known.iter().copied())),
            },
        );
    }
    checked
}

// === impl HostForm ===

impl HostForm {
    /// Whether a host has this form; an open part holds no dot.
    fn is(&self, host: &str) -> bool {
        name::glob_matches(&self.glob(), host)
            && host.matches('.').count() == self.as_str().matches('.').count()
    }
}

#[cfg(test)]
mod tests;
