use std::collections::{BTreeMap, BTreeSet};

use super::{Action, AlsoFrom, Flag, Method, NamePart, Part, Precision, Service, Template, names, service};

/// Methods of Google services, and of GitLab, Kubernetes and Tekton.
const GOOGLE: usize = 521;
const OTHERS: usize = 88;

fn services() -> Vec<&'static Service> {
    names().map(|name| service(name).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

fn methods() -> Vec<(&'static Service, &'static Method)> {
    services().into_iter().flat_map(|service| service.methods.iter().map(move |one| (service, one))).collect()
}

#[test]
fn every_file_is_read_whole() {
    let mut google = 0;
    let mut others = 0;
    for (name, service) in names().zip(services()) {
        assert_eq!(service.name, name);
        match &service.hosts {
            None if name != "dataflow-windmill" => others += service.methods.len(),
            _ => google += service.methods.len(),
        }
    }
    assert_eq!((google, others), (GOOGLE, OTHERS));
    assert!(names().is_sorted());
    assert!(service("pubsubb").is_none());
}

#[test]
fn every_method_can_be_called_and_is_named_once() {
    let mut seen = BTreeSet::new();
    for (service, method) in methods() {
        let name = &method.name;
        assert!(seen.insert((&service.name, name)), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{name}");
        assert!(Action::parse(name).is_none() && method.is_called(name), "{name}");
        assert!(!method.bindings.is_empty() || method.grpc.is_some(), "{name}");
        assert_eq!(method.http_precision().is_some(), !method.bindings.is_empty(), "{name}");
        for binding in &method.bindings {
            assert!(tidegate_engine::normal::is_method(binding.verb.as_bytes()), "{name}");
            let last = binding.path.parts().len().saturating_sub(1);
            for (at, part) in binding.path.parts().iter().enumerate() {
                if let Part::Literal(text) = part
                    && !(text.is_empty() && at == last)
                {
                    let path = format!("/{text}");
                    let read = tidegate_engine::normal::path(path.as_bytes());
                    assert!(!read.ambiguous() && read.display().to_string() == path, "{name}: {text}");
                    assert!(at == last || !text.contains(':'), "{name}: {text}");
                }
            }
        }
        if let Some(grpc) = &method.grpc {
            let is_name = |text: &str| {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            assert!(grpc.service.split('.').all(is_name) && is_name(&grpc.method), "{}", grpc.path());
            assert!(!grpc.fields.is_empty() || method.is_never_allowed(), "{name}");
            for numbers in grpc.fields.values() {
                assert!(!numbers.is_empty() && !numbers.contains(&0), "{name}");
            }
        }
    }
}

/// No two methods of a service are the same request, unless a flag says that they are.
#[test]
fn no_two_methods_share_a_request_without_a_flag() {
    let mut calls: BTreeMap<_, Vec<&Method>> = BTreeMap::new();
    let mut grpc: BTreeMap<_, &Method> = BTreeMap::new();
    for (service, method) in methods() {
        for binding in &method.bindings {
            let shape: Vec<String> = binding
                .path
                .parts()
                .iter()
                .map(|part| match part {
                    Part::Literal(text) => text.clone(),
                    Part::Variable { rest, suffix, .. } => {
                        format!("{}{suffix}", if *rest { "**" } else { "*" })
                    }
                })
                .collect();
            let host = binding.host.as_ref().map(super::HostForm::as_str);
            let key = (&service.name, &binding.verb, shape, host, &binding.query_has, &binding.header_has);
            calls.entry(key).or_default().push(method);
        }
        if let Some(one) = &method.grpc
            && let Some(other) = grpc.insert((&service.name, one.path()), method)
        {
            panic!("{} and {} are {}", other.name, method.name, one.path());
        }
    }
    for (call, methods) in calls {
        let [_, _, ..] = methods.as_slice() else { continue };
        for method in &methods {
            assert!(method.is(Flag::HttpAmbiguous), "{call:?}: {}", method.name);
        }
    }
}

#[test]
fn names_are_carried_whole() {
    for (_, method) in methods() {
        for binding in &method.bindings {
            let many: Vec<usize> = binding
                .resource
                .iter()
                .enumerate()
                .filter(|(_, part)| matches!(part, NamePart::Variable { many: true, .. }))
                .map(|(at, _)| at)
                .collect();
            assert!(many.iter().all(|at| at + 1 == binding.resource.len()), "{}", method.name);
        }
        for also in &method.also {
            assert!(!also.role.is_empty() && !also.kind.is_empty(), "{}", method.name);
            let may_be_nowhere = also.role == "runAs" && also.from == AlsoFrom::Body;
            assert!(!also.path.is_empty() || may_be_nowhere, "{}: {}", method.name, also.role);
        }
    }
}

/// How precisely methods can be allowed without looking into bodies. The README states these figures.
#[test]
fn states_how_many_methods_need_a_body() {
    let mut count: BTreeMap<Precision, usize> = BTreeMap::new();
    for (_, method) in methods() {
        *count.entry(method.precision()).or_default() += 1;
    }
    let counts: Vec<(Precision, usize)> = count.into_iter().collect();
    assert_eq!(counts, [(Precision::Method, 426), (Precision::Body, 125), (Precision::Never, 58)]);
    let readme = include_str!("../../catalogue/README.md");
    for (precision, count) in counts {
        let line = format!("| `{}` | {count} |", format!("{precision:?}").to_lowercase());
        assert!(readme.contains(&line), "{line}");
    }
}

#[test]
fn actions_are_classes_or_the_ends_of_names() {
    let pubsub = service("pubsub").unwrap().unwrap();
    let called = |action: &str| -> Vec<&'static str> {
        pubsub.methods_of(action).map(|method| method.name.as_str()).collect()
    };
    assert_eq!(called("publish"), ["pubsub.projects.topics.publish"]);
    assert_eq!(called("topics.publish"), ["pubsub.projects.topics.publish"]);
    assert_eq!(called("pubsub.projects.topics.publish"), ["pubsub.projects.topics.publish"]);
    assert_eq!(called("ublish"), Vec::<&str>::new());
    assert_eq!(called(""), Vec::<&str>::new());
    assert_eq!(called("write").len(), 2);
    let iam = service("iamcredentials").unwrap().unwrap();
    assert!(iam.methods_of("launch").all(|method| !method.in_classes()));
    assert_eq!(iam.methods_of("generateAccessToken").count(), 1);
}

#[test]
fn templates_are_read_or_refused() {
    let literal = |text: &str| Part::Literal(text.to_owned());
    let variable = |name: &str, index, rest, suffix: &str| Part::Variable {
        name: name.to_owned(),
        index,
        rest,
        suffix: suffix.to_owned(),
    };
    for (text, parts) in [
        ("/", vec![]),
        ("/v1/{id}", vec![literal("v1"), variable("id", 0, false, "")]),
        (
            "/v1/{a.b=projects/*/topics/*}:publish",
            vec![
                literal("v1"),
                literal("projects"),
                variable("a.b", 0, false, ""),
                literal("topics"),
                variable("a.b", 1, false, ":publish"),
            ],
        ),
        ("/{id=**}.git/x", vec![variable("id", 0, true, ".git"), literal("x")]),
        ("/jobs:all", vec![literal("jobs:all")]),
        ("/a/", vec![literal("a"), literal("")]),
    ] {
        assert_eq!(Template::parse(text).unwrap().parts(), parts, "{text}");
    }
    for text in [
        "",
        "a",
        "//",
        "/a//",
        "/{",
        "/{}",
        "/{a",
        "/a}",
        "/{a=}",
        "/{a=b//c}",
        "/{a}{b}",
        "/{a=b*}",
        "/*",
        "/{a}/{a}",
        "/{a b}",
    ] {
        assert!(Template::parse(text).is_err(), "{text}");
    }
}

#[test]
fn open_hosts_are_globs() {
    let pubsub = service("pubsub").unwrap().unwrap();
    let hosts = pubsub.hosts.as_ref().unwrap();
    let globs: Vec<String> = hosts.iter().map(super::HostForm::glob).collect();
    assert!(globs.contains(&"pubsub.*.rep.googleapis.com".to_owned()), "{globs:?}");
    assert!(globs.contains(&"*-pubsub.googleapis.com".to_owned()), "{globs:?}");
    assert_eq!(hosts[0].exact(), Some("pubsub.googleapis.com"));
    assert_eq!(hosts[2].exact(), None);
}

/// A Deny keeps one condition per method of gRPC: were one there twice, the later would take the earlier's place.
#[test]
fn no_method_of_grpc_is_there_twice() {
    let mut known = std::collections::BTreeMap::new();
    for name in super::names() {
        let service = super::service(name).unwrap().unwrap();
        for method in &service.methods {
            let Some(grpc) = &method.grpc else { continue };
            let before = known.insert((name, grpc.path()), &method.name);
            assert_eq!(before, None, "{name}: {} is `{}` as well", grpc.path(), method.name);
        }
    }
    assert!(known.len() > 200, "{}", known.len());
}
