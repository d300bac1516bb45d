//! What a request does to which resource, by the compiler's catalogue: from host, method and path alone.
//!
//! For people and for looking things up; nothing is decided on it. What a body, a query or a message says is not known
//! here, so a resource that only they name is absent.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tidegate_compiler::catalogue::{self, Binding, HostForm, Method, NamePart, Part, Service, Source};

use super::clean::decoded;
use super::record::Operation;

/// No longer path is looked up, in segments.
const MAX_SEGMENTS: usize = 64;

/// Values of a template's variables: by name, one per open segment.
type Captured<'p> = BTreeMap<(&'p str, usize), String>;

/// Services that are at known hosts.
fn services() -> &'static [&'static Service] {
    static SERVICES: OnceLock<Vec<&'static Service>> = OnceLock::new();
    SERVICES.get_or_init(|| {
        // A file that cannot be read is a defect that the compiler's own tests find.
        let all = catalogue::names().filter_map(|name| catalogue::service(name)?.ok());
        all.filter(|service| service.hosts.is_some()).collect()
    })
}

/// Reads the catalogue, which takes a moment the first time.
pub fn warm() {
    services();
}

/// What a request is, and the resource that it names.
pub fn of(method: &str, host: &str, path: &str) -> Option<(Operation, Option<String>)> {
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    let is_there =
        |service: &&&Service| service.hosts.iter().flatten().any(|form| host_part(form, &host).is_some());
    let mut best: Option<(u32, &Service, &Method, Option<String>)> = None;
    let mut rivals = false;
    for service in services().iter().filter(is_there) {
        for (score, one, resource) in candidates(service, method, &host, path) {
            match &best {
                Some((least, ..)) if score < *least => continue,
                Some((least, _, other, _)) if score == *least => rivals |= other.name != one.name,
                _ => rivals = false,
            }
            best = Some((score, service, one, resource));
        }
    }
    let (_, service, one, resource) = best.filter(|_| !rivals)?;
    let operation = Operation {
        service: service.name.clone(),
        method: one.name.clone(),
        action: one.action.as_str().to_owned(),
        permissions: one.permissions.clone(),
    };
    Some((operation, resource))
}

/// Methods of all services that need a permission.
pub fn needing(permission: &str) -> Vec<(&'static str, &'static Method)> {
    let of = |service: &&'static Service| {
        let name = service.name.as_str();
        let needs = |method: &&Method| method.permissions.iter().any(|one| one == permission);
        service.methods.iter().filter(needs).map(move |method| (name, method)).collect::<Vec<_>>()
    };
    services().iter().flat_map(of).collect()
}

/// Methods that the request may be, the more of it is said literally the higher they score.
fn candidates<'s>(
    service: &'s Service,
    verb: &str,
    host: &str,
    path: &str,
) -> Vec<(u32, &'s Method, Option<String>)> {
    let mut found = Vec::new();
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    if segments.len() > MAX_SEGMENTS {
        return found;
    }
    for method in &service.methods {
        if verb == "POST" && method.grpc.as_ref().is_some_and(|grpc| grpc.path() == path) {
            // Messages name everything.
            found.push((u32::MAX, method, None));
        }
        for binding in method.bindings.iter().filter(|binding| binding.verb == verb) {
            let label = match &binding.host {
                Some(form) => match host_part(form, host) {
                    Some(label) => Some(label),
                    None => continue,
                },
                None => None,
            };
            let mut captured = Captured::new();
            let Some(literal) = matched(binding.path.parts(), &segments, &mut captured) else { continue };
            // What the query or a header decides is not known; without it the plain method is meant.
            let is_plain = binding.query_has.is_empty() && binding.header_has.is_empty();
            let score = literal.saturating_mul(2).saturating_add(u32::from(is_plain));
            found.push((score, method, resource(binding, &captured, label)));
        }
    }
    found
}

/// How many characters of the path the parts say literally; `None`: they do not match.
fn matched<'p>(parts: &'p [Part], segments: &[&str], captured: &mut Captured<'p>) -> Option<u32> {
    let Some((first, parts)) = parts.split_first() else {
        return (segments.is_empty() || segments == [""]).then_some(0);
    };
    let (segment, after) = segments.split_first()?;
    let long = |text: &str| u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
    match first {
        Part::Literal(text) if text == segment => {
            Some(long(text).saturating_add(matched(parts, after, captured)?))
        }
        Part::Literal(_) => None,
        Part::Variable { name, index, rest: false, suffix } => {
            let value = segment.strip_suffix(suffix.as_str()).filter(|value| !value.is_empty())?;
            // Without a verb of its own a variable does not take one.
            if suffix.is_empty() && parts.is_empty() && value.contains(':') {
                return None;
            }
            let literal = matched(parts, after, captured)?;
            captured.insert((name, *index), decoded(value));
            Some(literal.saturating_add(long(suffix)))
        }
        Part::Variable { name, index, rest: true, suffix } => {
            // As many as possible.
            (1..=segments.len()).rev().find_map(|count| {
                let (taken, left) = segments.split_at_checked(count)?;
                let taken = taken.join("/");
                let value = taken.strip_suffix(suffix.as_str()).filter(|value| !value.is_empty())?;
                let literal = matched(parts, left, captured)?;
                captured.insert((name, *index), decoded(value));
                Some(literal.saturating_add(long(suffix)))
            })
        }
    }
}

/// The name, if host and path say all of it.
fn resource(binding: &Binding, captured: &Captured<'_>, label: Option<&str>) -> Option<String> {
    let part = |part: &NamePart| match part {
        NamePart::Literal(text) => Some(text.clone()),
        NamePart::Variable { from: Source::Path(name, index), .. } => {
            captured.get(&(name.as_str(), *index)).cloned()
        }
        NamePart::Variable { from: Source::Host, .. } => {
            label.filter(|label| !label.is_empty()).map(str::to_owned)
        }
        NamePart::Variable { .. } => None,
    };
    let parts: Option<Vec<String>> = binding.resource.iter().map(part).collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join("/"))
}

/// What the open part of a host's form is, empty where nothing is open; `None`: it is another host.
fn host_part<'h>(form: &HostForm, host: &'h str) -> Option<&'h str> {
    if let Some(exact) = form.exact() {
        return (exact == host).then_some("");
    }
    let (before, rest) = form.as_str().split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    let value = host.strip_prefix(before)?;
    let (value, is_whole) = match after.split_once('{') {
        None => (value.strip_suffix(after)?, true),
        // Two open parts: the first ends where what follows it begins.
        Some((between, tail)) => {
            let (value, left) = value.split_once(between)?;
            let (_, end) = tail.split_once('}')?;
            let second = left.strip_suffix(end)?;
            (value, !second.is_empty() && !second.contains('.'))
        }
    };
    // Names of buckets may have dots, everything else is one label.
    (is_whole && !value.is_empty() && (name == "bucket" || !value.contains('.'))).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, host: &str, path: &str) -> Option<(String, Option<String>)> {
        of(method, host, path).map(|(operation, resource)| (operation.method, resource))
    }

    #[test]
    fn requests_are_named_by_the_catalogue() {
        for (method, host, path, name, resource) in [
            (
                "POST",
                "pubsub.googleapis.com",
                "/v1/projects/acme/topics/orders:publish",
                "pubsub.projects.topics.publish",
                Some("projects/acme/topics/orders"),
            ),
            (
                "GET",
                "europe-west4-pubsub.googleapis.com:443",
                "/v1/projects/acme/topics/orders",
                "pubsub.projects.topics.get",
                Some("projects/acme/topics/orders"),
            ),
            (
                "POST",
                "pubsub.googleapis.com",
                "/google.pubsub.v1.Publisher/Publish",
                "pubsub.projects.topics.publish",
                None,
            ),
            (
                "POST",
                "dataflow.googleapis.com",
                "/v1b3/projects/acme/locations/europe-west4/jobs",
                "dataflow.projects.locations.jobs.create",
                Some("projects/acme/locations/europe-west4/jobs"),
            ),
        ] {
            assert_eq!(
                found(method, host, path),
                Some((name.to_owned(), resource.map(str::to_owned))),
                "{method} {host}{path}"
            );
        }
        assert_eq!(
            of("POST", "dataflow.googleapis.com", "/v1b3/projects/acme/locations/europe-west4/jobs")
                .unwrap()
                .0
                .permissions,
            ["dataflow.jobs.create"]
        );
    }

    #[test]
    fn objects_are_named_with_their_slashes() {
        let (operation, resource) =
            of("GET", "storage.googleapis.com", "/storage/v1/b/lake/o/raw%2F2026%2Fa.parquet").unwrap();
        assert_eq!(operation.service, "storage");
        assert!(resource.as_ref().is_some_and(|name| name.ends_with("raw/2026/a.parquet")), "{resource:?}");
    }

    #[test]
    fn what_the_catalogue_does_not_have_is_absent() {
        for (method, host, path) in [
            ("POST", "orders.sales.example", "/v1/projects/acme/topics/orders:publish"),
            ("POST", "pubsub.googleapis.com.evil.example", "/v1/projects/acme/topics/orders:publish"),
            ("POST", "a.b-pubsub.googleapis.com", "/v1/projects/acme/topics/orders:publish"),
            ("PATCH", "pubsub.googleapis.com", "/v9/nothing"),
            ("GET", "pubsub.googleapis.com", "/"),
            ("GET", "pubsub.googleapis.com", ""),
            ("GET", "pubsub.googleapis.com", &"/a".repeat(1_000)),
        ] {
            assert_eq!(found(method, host, path), None, "{method} {host}{path}");
        }
    }

    #[test]
    fn permissions_lead_back_to_methods() {
        let methods = needing("dataflow.jobs.create");
        assert!(methods.iter().any(|(service, method)| {
            *service == "dataflow" && method.name == "dataflow.projects.locations.jobs.create"
        }));
        assert!(needing("no.such.permission").is_empty());
    }
}
