//! `to: [{launch: …}]`: what is started, where, and as whom.
//!
//! Each service starts things through several methods of the catalogue; an entry covers all of them, or those that it
//! names. What it says becomes names (project, region, namespace, ref) and demands on further things that the request names
//! (template, account, job name), wherever it does: in path, query or body.
//!
//! INVARIANT: a field that the service does not have is refused, never ignored.

use std::collections::BTreeMap;

use tidegate_engine::model::{Effect, OperationModel};

use crate::catalogue::{Action, Also, Method};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::resources::{
    self, DEFAULT, Name, Wanted, check_hosts, check_protocols, check_unchecked, find_service, malformed_name,
};
use crate::spec::{LaunchServiceSpec, LaunchSpec};
use crate::suggest;
use crate::text::check_text;

mod jobs;

/// How a service starts things.
struct Launcher {
    /// In the catalogue.
    service: &'static str,
    /// Its methods, by the ends of their names.
    methods: &'static [&'static str],
    /// What names are made of: fields between braces.
    names: &'static [&'static str],
    /// Fields that stand for further things, and their roles.
    roles: &'static [(&'static str, &'static str)],
}

const DATAFLOW: Launcher = Launcher {
    service: "dataflow",
    methods: &["jobs.create", "templates.create", "templates.launch", "flexTemplates.launch"],
    names: &["projects/{project}/locations/{region}/jobs"],
    roles: &[
        ("template", "template"),
        ("runAs", "runAs"),
        ("jobName", "jobName"),
        ("temp", "temp"),
        ("temp", "staging"),
    ],
};

const BIGQUERY: Launcher = Launcher {
    service: "bigquery",
    methods: &["jobs.insert", "jobs.query"],
    names: &["projects/{project}/jobs"],
    roles: &[],
};

const GITLAB: Launcher = Launcher {
    service: "gitlab",
    methods: &["pipelines.trigger", "pipelines.triggerRefInPath", "pipelines.create"],
    names: &["projects/{project}/refs/{ref}"],
    roles: &[],
};

const TEKTON: Launcher = Launcher {
    service: "kubernetes",
    methods: &["tekton.pipelineruns.create", "tekton.taskruns.create"],
    names: &["namespaces/{namespace}/pipelineruns", "namespaces/{namespace}/taskruns"],
    roles: &[("template", "pipeline"), ("runAs", "runAs"), ("jobName", "name")],
};

/// Checks an entry. `None` if anything is wrong with it.
pub(crate) fn check(
    place: &Place<'_>,
    spec: &LaunchSpec,
    effect: Effect,
    findings: &mut Findings,
) -> Option<Vec<OperationModel>> {
    let before = findings.errors();
    let (shown, launcher) = match spec.service {
        LaunchServiceSpec::Dataflow => ("dataflow", DATAFLOW),
        LaunchServiceSpec::Bigquery => ("bigquery", BIGQUERY),
        LaunchServiceSpec::Gitlab => ("gitlab", GITLAB),
        LaunchServiceSpec::Tekton => ("tekton", TEKTON),
    };
    let fields = fields(place, spec, shown, &launcher, findings);
    let service = find_service(&place.key("service"), launcher.service, findings)?;
    let methods = choose(place, spec, &launcher, &service.methods, findings);
    let jobs = jobs::check(place, spec, effect, findings);
    let methods: Vec<(&'static Method, bool)> = match &jobs {
        Some(_) => methods.into_iter().filter(|(method, _)| method.is_called("jobs.insert")).collect(),
        None => methods,
    };
    let names = names(place, &launcher, &fields, findings);
    let hosts = check_hosts(place, service, spec.hosts.as_deref(), effect, findings);
    let (http, grpc) = check_protocols(place, spec.protocols.as_deref(), effect, findings);
    let unchecked = check_unchecked(place, spec.unchecked.as_deref(), effect, &methods, findings);
    let mut stated = BTreeMap::new();
    for (field, role) in launcher.roles {
        let Some(text) = fields.get(field) else { continue };
        if unchecked.contains(role) {
            findings.add(
                &place.key("unchecked"),
                Code::MalformedValue,
                format!("`{role}` is left open, and `{field}` says what it must be"),
                "one of the two is not meant",
                format!("remove `{role}` from `unchecked`, or `{field}`"),
            );
        }
        if ["template", "temp"].contains(field) && launcher.service == "dataflow" && !is_object(text) {
            findings.add(
                &place.key(field),
                Code::MalformedValue,
                format!("`{text}` is not an object in Cloud Storage"),
                "templates are named as the request names them, bucket and object",
                "write it as `gs://bucket/path`, `*` standing for any characters",
            );
        }
        stated.insert(*role, (*text).to_owned());
    }
    if let Some(region) = fields.get("region").filter(|_| effect == Effect::Allow) {
        // Workers may be elsewhere than the service that starts them.
        for (role, text) in [("workerRegion", (*region).to_owned()), ("workerZone", format!("{region}-*"))] {
            if !unchecked.contains(role) {
                stated.insert(role, text);
            }
        }
    }
    let runs_as = methods.iter().any(|(method, _)| method.also.iter().any(Also::is_run_as));
    if effect == Effect::Allow && runs_as && !fields.contains_key("runAs") && !unchecked.contains("runAs") {
        findings.add(
            place,
            Code::MissingField,
            "`runAs` is missing",
            "where a request names no account, what it starts runs as a default one, which may mostly do a lot",
            format!("write `runAs`; `runAs: {DEFAULT}` for requests that name none"),
        );
    }
    if effect == Effect::Allow && fields.get("runAs") == Some(&DEFAULT) {
        findings.add(
            &place.key("runAs"),
            Code::DefaultAccount,
            "what it starts runs as the default account",
            "everything else that names no account runs as the same, and it may mostly do a lot",
            "make an account for it, and write that",
        );
    }
    if findings.errors() > before {
        return None;
    }
    let wanted = Wanted {
        service,
        methods,
        names,
        stated,
        unchecked,
        http,
        grpc,
        hosts,
        reads: false,
        states: Vec::new(),
        jobs,
    };
    resources::compile(place, &wanted, effect, findings)
}

/// What is written, by field. What the service does not have, or needs, is reported.
fn fields<'s>(
    place: &Place<'_>,
    spec: &'s LaunchSpec,
    shown: &str,
    launcher: &Launcher,
    findings: &mut Findings,
) -> BTreeMap<&'static str, &'s str> {
    let LaunchSpec { project, region, namespace, r#ref, job_name, template, run_as, temp, .. } = spec;
    let named = |field: &str| launcher.names.iter().any(|name| name.contains(&format!("{{{field}}}")));
    let mut fields = BTreeMap::new();
    for (field, text) in [
        ("project", project),
        ("region", region),
        ("namespace", namespace),
        ("ref", r#ref),
        ("jobName", job_name),
        ("template", template),
        ("runAs", run_as),
        ("temp", temp),
    ] {
        let known = named(field) || launcher.roles.iter().any(|(known, _)| *known == field);
        match text {
            Some(text) if known => {
                check_text(&place.key(field), text, findings);
                fields.insert(field, text.as_str());
            }
            Some(_) => findings.add(
                &place.key(field),
                Code::MalformedValue,
                format!("`{shown}` has no `{field}`"),
                "a part of a rule that says nothing would look as if it limited something",
                "remove it",
            ),
            None if field == "ref" && known => {
                fields.insert(field, "**");
            }
            None if named(field) => findings.add(
                place,
                Code::MissingField,
                format!("`{field}` is missing"),
                "what runs where is written out",
                format!("write `{field}`; `*` for any"),
            ),
            None => {}
        }
    }
    fields
}

/// The methods that start something.
fn choose(
    place: &Place<'_>,
    spec: &LaunchSpec,
    launcher: &Launcher,
    all: &'static [Method],
    findings: &mut Findings,
) -> Vec<(&'static Method, bool)> {
    let starts = |method: &&'static Method| {
        method.action == Action::Launch && launcher.methods.iter().any(|name| method.is_called(name))
    };
    let Some(written) = &spec.methods else {
        return all.iter().filter(starts).map(|method| (method, false)).collect();
    };
    let field = place.key("methods");
    crate::mesh::not_empty(&field, written, findings);
    let mut chosen: Vec<(&Method, bool)> = Vec::new();
    for (at, name) in written.iter().enumerate() {
        let found: Vec<&Method> = all.iter().filter(starts).filter(|method| method.is_called(name)).collect();
        if found.is_empty() {
            findings.add(
                &field.index(at),
                Code::UnknownInCatalogue,
                format!("`{name}` starts nothing"),
                "only methods that start something are part of a launch",
                match suggest::closest(name, launcher.methods.iter().copied()) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("they are {}", suggest::list(launcher.methods.iter().copied())),
                },
            );
        }
        chosen.extend(found.into_iter().map(|method| (method, true)));
    }
    chosen.dedup_by(|a, b| a.0.name == b.0.name);
    chosen
}

/// The names of the collections in which something is started.
fn names(
    place: &Place<'_>,
    launcher: &Launcher,
    fields: &BTreeMap<&'static str, &str>,
    findings: &mut Findings,
) -> Vec<Name> {
    let mut names = Vec::new();
    for template in launcher.names {
        let mut text = (*template).to_owned();
        for field in ["project", "region", "namespace", "ref"] {
            let Some(value) = fields.get(field) else { continue };
            if field != "ref" && value.contains('/') {
                let fix = if launcher.service == "gitlab" {
                    "write the project's number: paths are sent encoded, and such requests are refused"
                } else {
                    "write the name alone"
                };
                let why = "it is one segment of a name";
                findings.add(
                    &place.key(field),
                    Code::MalformedValue,
                    format!("`{value}` has a slash"),
                    why,
                    fix,
                );
                return Vec::new();
            }
            text = text.replace(&format!("{{{field}}}"), value);
        }
        if text.contains('{') {
            // A field is missing, and that has been reported.
            return Vec::new();
        }
        match Name::parse(&text) {
            Ok(name) => names.push(name),
            Err(problem) => malformed_name(place, &text, problem, findings),
        }
    }
    names
}

/// `gs://bucket/object`, either with `*`.
fn is_object(text: &str) -> bool {
    text.strip_prefix("gs://")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(bucket, object)| !bucket.is_empty() && !object.is_empty())
}
