//! Every method of the catalogue in a rule: what is allowed on one resource is that request and none that is like it, what
//! cannot be told is refused when it is compiled, and a Deny catches each of its requests.

mod common;

use std::collections::BTreeSet;

use common::calls::{EGRESS, Gateway, rule};
use common::{codes, compile_rules, shown};
use tidegate_compiler::catalogue::{
    self, AlsoFrom, Binding, Flag, Method, NamePart, Part, Precision, Service, Source,
};

const VALUE: &str = "a1";

fn methods() -> Vec<(&'static Service, &'static Method)> {
    catalogue::names()
        .map(|name| catalogue::service(name).unwrap().unwrap())
        .flat_map(|service| service.methods.iter().map(move |method| (service, method)))
        .collect()
}

/// The name of one resource of the binding.
fn name(binding: &Binding) -> String {
    let parts: Vec<&str> = binding
        .resource
        .iter()
        .map(|part| match part {
            NamePart::Literal(text) => text.as_str(),
            NamePart::Variable { .. } => VALUE,
        })
        .collect();
    parts.join("/")
}

/// The names of all resources of the binding.
fn every(binding: &Binding) -> String {
    let parts: Vec<&str> = binding
        .resource
        .iter()
        .map(|part| match part {
            NamePart::Literal(text) => text.as_str(),
            NamePart::Variable { many: true, .. } => "**",
            NamePart::Variable { .. } => "*",
        })
        .collect();
    parts.join("/")
}

/// The name of one resource of the method.
fn one(method: &Method) -> String {
    if method.pattern == ["**"] {
        return "**".to_owned();
    }
    let parts: Vec<&str> =
        method.pattern.iter().map(|part| if part.starts_with('*') { VALUE } else { part }).collect();
    parts.join("/")
}

/// A request of the binding on that resource.
struct Call {
    verb: String,
    host: String,
    path: String,
    query: Vec<String>,
    headers: Vec<String>,
}

impl Call {
    fn new(service: &Service, binding: &Binding) -> Self {
        let mut path = String::new();
        for part in binding.path.parts() {
            path.push('/');
            match part {
                Part::Literal(text) => path.push_str(text),
                Part::Variable { suffix, .. } => {
                    path.push_str(VALUE);
                    path.push_str(suffix);
                }
            }
        }
        if path.is_empty() {
            path.push('/');
        }
        let by_host =
            binding.resource.iter().any(|part| matches!(part, NamePart::Variable { from: Source::Host, .. }));
        let hosts = service.hosts.as_deref().unwrap_or_default();
        let form = match &binding.host {
            Some(form) => Some(form),
            None if by_host => hosts.iter().find(|form| form.exact().is_none()),
            None => hosts.first(),
        };
        let host = form.map_or("service.example".to_owned(), |form| form.glob().replace('*', VALUE));
        let mut query: Vec<String> = binding.query_has.iter().map(|name| format!("{name}=1")).collect();
        let mut headers: Vec<String> = binding
            .header_has
            .iter()
            .map(|header| if header.contains(": ") { header.clone() } else { format!("{header}: b/o") })
            .collect();
        for part in &binding.resource {
            let NamePart::Variable { from, .. } = part else { continue };
            match from {
                Source::Query(name, _) | Source::QueryElseBody(name, _) => {
                    query.push(format!("{name}={VALUE}"))
                }
                Source::Header(name) => headers.push(format!("{name}: {VALUE}")),
                Source::Path(..) | Source::Host | Source::Message(..) => {}
                Source::Body(_) | Source::BodyElse(..) | Source::BodyOrQuery(_) => {}
            }
        }
        Self { verb: binding.verb.clone(), host, path, query, headers }
    }

    fn text(&self) -> String {
        let Self { verb, host, path, query, headers } = self;
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let headers: String = headers.iter().map(|header| format!("\n{header}")).collect();
        format!("{verb} {host}{path}{query}{headers}")
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> String {
        let Self { verb, host, path, query, headers } = self;
        let mut call = Self {
            verb: verb.clone(),
            host: host.clone(),
            path: path.clone(),
            query: query.clone(),
            headers: headers.clone(),
        };
        change(&mut call);
        call.text()
    }
}

/// Whether the resource's name has no part of it.
fn is_free(binding: &Binding, part: &Part) -> bool {
    let Part::Variable { name, .. } = part else { return false };
    !binding.resource.iter().any(
        |part| matches!(part, NamePart::Variable { from: Source::Path(variable, _), .. } if variable == name),
    )
}

/// An entry on these resources of a method.
fn entry(service: &Service, method: &Method, names: &[String], more: &str) -> String {
    let hosts = if service.hosts.is_none() { ", hosts: [service.example]" } else { "" };
    format!(
        "resources: {{service: {}, actions: [{}], names: [{}]{hosts}{more}}}",
        service.name,
        method.name,
        names.join(", ")
    )
}

fn quoted(name: &str) -> String {
    format!("'{name}'")
}

/// A second resource in the path is left open, so that the first one is what is looked at.
fn open_sources(method: &Method) -> &'static str {
    if method.also.iter().any(|also| also.from == AlsoFrom::Path) { ", unchecked: [source]" } else { "" }
}

#[test]
fn precision_says_what_compiles() {
    let (mut compiled, mut read) = (0, 0);
    for (service, method) in methods() {
        let is_grpc_only = method.http_precision().is_none_or(|precision| precision == Precision::Never);
        let protocols = if is_grpc_only { "" } else { ", protocols: [http]" };
        let more = format!("{}{protocols}", open_sources(method));
        let to = entry(service, method, &[quoted(&one(method))], &more);
        let compilation = compile_rules(&format!("{EGRESS}{}", rule("a", "Allow", &to)));
        let said = shown(&compilation);
        match method.precision() {
            Precision::Method => {
                assert!(compilation.output.is_some(), "{}: {said}", method.name);
                compiled += 1;
            }
            Precision::Body if compilation.output.is_some() => read += 1,
            Precision::Body => assert_eq!(codes(&compilation), ["TG0510"], "{}: {said}", method.name),
            Precision::Never => assert_eq!(codes(&compilation), ["TG0511"], "{}: {said}", method.name),
        }
    }
    assert_eq!((compiled, read), (426, 85));
}

/// How many methods an Allow of one resource may name, over HTTP or over gRPC. What needs more than a name (an account, SQL,
/// a credential) is not counted.
#[test]
fn states_how_many_methods_are_allowed_narrowly() {
    let (mut either, mut http, mut grpc) = (0, 0, 0);
    for (service, method) in methods() {
        let compiles = |protocol: &str| {
            let more = format!("{}, protocols: [{protocol}]", open_sources(method));
            let to = entry(service, method, &[quoted(&one(method))], &more);
            compile_rules(&format!("{EGRESS}{}", rule("a", "Allow", &to))).output.is_some()
        };
        let (over_http, over_grpc) = (compiles("http"), compiles("grpc"));
        either += i32::from(over_http || over_grpc);
        http += i32::from(over_http);
        grpc += i32::from(over_grpc);
    }
    assert_eq!((either, http, grpc), (511, 448, 275));
    let readme = include_str!("../catalogue/README.md");
    assert!(readme.contains(&format!(
        "{either} methods can be allowed on one resource: {http} over HTTP, {grpc} over gRPC"
    )));
}

#[test]
fn an_allow_is_exactly_its_request() {
    let mut seen = 0;
    for (service, method) in methods() {
        if method.precision() != Precision::Method {
            continue;
        }
        for binding in method.bindings.iter().filter(|binding| binding.is_decidable()) {
            let has_default = binding.resource.iter().any(|part| {
                matches!(
                    part,
                    NamePart::Variable {
                        from: Source::Query(_, Some(_)) | Source::Body(_) | Source::BodyElse(..),
                        ..
                    }
                )
            });
            let more = format!("{}, protocols: [http]", open_sources(method));
            let to = entry(service, method, &[quoted(&name(binding))], &more);
            let output = compile_rules(&format!("{EGRESS}{}", rule("a", "Allow", &to))).output;
            let gateway = match &output {
                Some(output) => Gateway::new(output),
                None if has_default => continue,
                None => panic!("{}: {}", method.name, name(binding)),
            };
            let call = Call::new(service, binding);
            if has_default {
                // Where the location is not in the path, a default may count: the other path is for such rules.
                gateway.refuses(&[&call.text()]);
                continue;
            }
            seen += 1;
            gateway.allows(&[&call.text(), &call.with(|call| call.query.push("$.xgafv=2".to_owned()))]);
            let mut changed = vec![
                call.with(|call| call.verb = "TRACE".to_owned()),
                call.with(|call| call.host = "evil.example".to_owned()),
                call.with(|call| call.host = format!("evil.{}", call.host)),
                call.with(|call| call.path.push_str("/more")),
                call.with(|call| call.path = call.path.replacen(VALUE, "other", 1)),
                call.with(|call| call.path = call.path.replacen('/', "//", 1)),
                call.with(|call| call.path = format!("/x/..{}", call.path)),
                call.with(|call| call.path = format!("/upload{}", call.path)),
                call.with(|call| call.path = format!("/batch{}", call.path)),
                call.with(|call| call.path = format!("/resumable/upload{}", call.path)),
                call.with(|call| call.headers.push("x-http-method-override: DELETE".to_owned())),
            ];
            // An entity of an access list or a digest, of which nothing is demanded, may have colons.
            if !binding.path.parts().last().is_some_and(|last| is_free(binding, last)) {
                changed.push(call.with(|call| call.path.push_str(":more")));
            }
            if service.hosts.is_some() {
                for query in
                    ["$httpMethod=DELETE", "%24ct=text/plain", "access_token=x", "key=x", "userProject=x"]
                {
                    changed.push(call.with(|call| call.query.push(query.to_owned())));
                }
                changed.push(call.with(|call| call.headers.push("x-goog-api-key: x".to_owned())));
            }
            for variable in binding.path.variables() {
                changed.push(call.with(|call| call.query.push(format!("{variable}=other"))));
            }
            let own: Vec<String> =
                method.bindings.iter().map(|binding| Call::new(service, binding).text()).collect();
            let original = call.text();
            for call in changed.iter().filter(|changed| **changed != original) {
                // Paths in which nothing is demanded of the first variable, e.g. an entity of an access list.
                let names_it = open_sources(method).is_empty()
                    && binding
                        .resource
                        .iter()
                        .any(|part| matches!(part, NamePart::Variable { from: Source::Path(..), .. }));
                if (call.contains("other") && !names_it) || own.contains(call) {
                    continue;
                }
                assert!(!gateway.lets_pass(call), "{}: {call}", method.name);
            }
        }
    }
    assert!(seen > 450, "{seen}");
}

#[test]
fn a_deny_catches_every_request_of_its_method() {
    let all = "kind: AccessRule\nmetadata: {name: all, namespace: egress}\nspec: {owner: a, target: {gateway: \
               egress/external}, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}\n---\n";
    for (service, method) in methods() {
        let mut names: Vec<String> = method.bindings.iter().map(name).collect();
        names.push(one(method));
        names.sort();
        names.dedup();
        for name in names {
            let to = entry(service, method, &[quoted(&name)], "").replace(", hosts: [service.example]", "");
            let compilation = compile_rules(&format!("{EGRESS}{all}{}", rule("d", "Deny", &to)));
            let Some(output) = &compilation.output else {
                panic!("{}: {}", method.name, shown(&compilation))
            };
            let gateway = Gateway::new(output);
            for binding in &method.bindings {
                if self::name(binding) != name {
                    continue;
                }
                let call = Call::new(service, binding);
                gateway.denies(&[&call.text()]);
                if service.hosts.is_some() && !binding.is_xml() {
                    gateway.denies(&[
                        &call.with(|call| call.host = "10.0.0.1".to_owned()),
                        &call.with(|call| {
                            call.verb = "POST".to_owned();
                            call.query.push("$httpMethod=X".to_owned());
                        }),
                    ]);
                }
            }
            if let Some(grpc) = &method.grpc {
                let host = "anything.example";
                gateway.denies(&[
                    &format!("POST {host}{}\ncontent-type: application/grpc", grpc.path()),
                    &format!("POST {host}{}\ncontent-type: application/grpc-web+proto", grpc.path()),
                    &format!("POST {host}/$rpc{}\ncontent-type: application/x-protobuf", grpc.path()),
                ]);
            }
            gateway.allows(&["GET unrelated.example/"]);
        }
    }
}

#[test]
fn classes_never_stand_for_what_mints_credentials_or_carries_requests() {
    for (service, method) in methods() {
        if !method.is(Flag::MintsCredentials) && !method.is_never_allowed() {
            continue;
        }
        let names = quoted(&one(method));
        let hosts = if service.hosts.is_none() { ", hosts: [service.example]" } else { "" };
        let to = format!(
            "resources: {{service: {}, actions: [{}], names: [{names}], protocols: [http]{hosts}}}",
            service.name,
            method.action.as_str()
        );
        let compilation = compile_rules(&format!("{EGRESS}{}", rule("a", "Allow", &to)));
        let Some(output) = &compilation.output else { continue };
        let gateway = Gateway::new(output);
        for binding in &method.bindings {
            gateway.refuses(&[&Call::new(service, binding).text()]);
        }
    }
}

/// A rule on every resource of a kind lets no request of another method pass, in its own service or another.
#[test]
fn an_allow_of_a_method_is_of_no_other() {
    let calls: Vec<(&str, &str, String)> = methods()
        .into_iter()
        .flat_map(|(service, method)| {
            let call = move |binding| {
                (service.name.as_str(), method.name.as_str(), Call::new(service, binding).text())
            };
            method.bindings.iter().map(call)
        })
        .collect();
    for (service, method) in methods() {
        if method.precision() == Precision::Never {
            continue;
        }
        let roles: BTreeSet<&str> =
            method.also.iter().filter(|also| !also.only_narrows()).map(|also| also.role.as_str()).collect();
        let roles: Vec<&str> = roles.into_iter().collect();
        let more =
            if roles.is_empty() { String::new() } else { format!(", unchecked: [{}]", roles.join(", ")) };
        let mut names: BTreeSet<String> =
            method.bindings.iter().map(|binding| quoted(&every(binding))).collect();
        if method.pattern.iter().rev().skip(1).any(|part| part == "**") {
            names = BTreeSet::from([quoted("**")]);
        } else {
            names.insert(quoted(&method.pattern.join("/")));
        }
        let names: Vec<String> = names.into_iter().collect();
        let compilation =
            compile_rules(&format!("{EGRESS}{}", rule("a", "Allow", &entry(service, method, &names, &more))));
        let Some(output) = &compilation.output else { panic!("{}: {}", method.name, shown(&compilation)) };
        let gateway = Gateway::new(output);
        let own: Vec<&str> = calls
            .iter()
            .filter(|(there, name, _)| *there == service.name && *name == method.name)
            .map(|(_, _, call)| call.as_str())
            .collect();
        if method.http_precision().is_some_and(|precision| precision != Precision::Never) {
            assert!(own.iter().any(|call| gateway.lets_pass(call)), "{}", method.name);
        }
        for (_, name, call) in &calls {
            if !own.contains(&call.as_str()) {
                assert!(!gateway.lets_pass(call), "{} lets {name} pass: {call}", method.name);
            }
        }
    }
}
