//! Addresses and answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::discovery::discovery;
use super::store::{Change, Happened, Key, Refused, Resource};
use super::{Call, Shared};

type Body = BoxBody<Bytes, Infallible>;

/// How long a watch lasts that does not say so, as the API server has it at least.
const WATCH: Duration = Duration::from_secs(1_800);
/// How often a quiet watch is told the version.
const BOOKMARK: Duration = Duration::from_millis(500);

/// What an address names.
struct Target {
    resource: Resource,
    version: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: String,
}

/// Which objects are asked for.
#[derive(Clone)]
struct Selection {
    group: String,
    plural: String,
    namespace: Option<String>,
    api_version: String,
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

#[derive(Clone)]
enum Test {
    Is(String),
    IsNot(String),
    Exists,
}

pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let agent = header("user-agent");
    let path = parts.uri.path().to_owned();
    let is_watch = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
    shared.calls().push(Call {
        method: parts.method.to_string(),
        path: path.clone(),
        is_watch,
        agent: agent.clone(),
    });
    let failure = shared.failure(&parts.method, &path);
    if let Some(code) = failure {
        let refused = Refused::new(code, "InternalError", "the API server is told to fail");
        return Ok(reply(code, &refused.to_json()));
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if let Some(document) = discovery(&shared, &path) {
        return Ok(reply(200, &document));
    }
    let Some(target) = target(&shared, &path) else {
        let refused = Refused::new(404, "NotFound", "the server could not find the requested resource");
        return Ok(reply(404, &refused.to_json()));
    };
    if parts.method == Method::GET && is_watch {
        return Ok(watch(shared, &target, &query));
    }
    let manager = query
        .get("fieldManager")
        .cloned()
        .unwrap_or_else(|| agent.split('/').next().unwrap_or("").to_owned());
    let outcome = serve(&shared, &parts.method, &target, &query, &header("content-type"), &body, &manager);
    Ok(match outcome {
        Ok((code, value)) => reply(code, &value),
        Err(refused) => reply(refused.code, &refused.to_json()),
    })
}

fn serve(
    shared: &Shared,
    method: &Method,
    target: &Target,
    query: &BTreeMap<String, String>,
    content_type: &str,
    body: &[u8],
    manager: &str,
) -> Result<(u16, Value), Refused> {
    let bad = |why: String| Refused::new(400, "BadRequest", why);
    let mut store = shared.store();
    let resource = &target.resource;
    let served = |object: Value| as_version(object, &resource.api_version(&target.version));
    if *method == Method::GET {
        return match &target.name {
            Some(name) => {
                let stored = store
                    .objects
                    .get(&key(target, name))
                    .ok_or_else(|| Refused::not_found(resource, name))?;
                Ok((200, served(stored.object.clone())))
            }
            None => Ok((200, list(&store, target, query)?)),
        };
    }
    let parsed: Value = match body {
        [] => Value::Null,
        body => match serde_json::from_slice(body) {
            Ok(parsed) => parsed,
            Err(_) => serde_saphyr::from_slice(body)
                .map_err(|error| bad(format!("neither JSON nor YAML: {error}")))?,
        },
    };
    let changed = match (method.as_str(), &target.name) {
        ("POST", None) => {
            let metadata =
                |field: &str| parsed.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
            let name = match (metadata("name"), metadata("generateName")) {
                (Some(name), _) => name.to_owned(),
                (None, Some(prefix)) => format!("{prefix}{:05x}", store.version),
                (None, None) => return Err(Refused::new(422, "Invalid", "name or generateName is required")),
            };
            let created = store.create(resource, &target.version, &key(target, &name), &parsed, manager)?;
            drop(store);
            shared.announce();
            return Ok((201, served(created)));
        }
        ("PUT", Some(name)) => {
            let key = key(target, name);
            store.change(
                resource,
                &target.version,
                &key,
                &target.subresource,
                &Change::Replace(&parsed),
                manager,
            )
        }
        ("PATCH", Some(name)) => {
            let key = key(target, name);
            let change = match content_type.split(';').next().unwrap_or("") {
                "application/apply-patch+yaml" => {
                    if query.get("fieldManager").is_none_or(String::is_empty) {
                        return Err(bad("fieldManager is required for apply patch".into()));
                    }
                    Change::Apply {
                        config: &parsed,
                        force: query.get("force").is_some_and(|force| force == "true"),
                    }
                }
                "application/merge-patch+json" => Change::Merge(&parsed),
                other => {
                    return Err(Refused::new(
                        415,
                        "UnsupportedMediaType",
                        format!("`{other}` is not supported"),
                    ));
                }
            };
            store.change(resource, &target.version, &key, &target.subresource, &change, manager)
        }
        ("DELETE", Some(name)) => store.delete(resource, &key(target, name), &parsed),
        (other, _) => Err(Refused::new(405, "MethodNotAllowed", format!("{other} is not possible here"))),
    }?;
    drop(store);
    shared.announce();
    Ok((200, served(changed)))
}

fn list(
    store: &super::store::Store,
    target: &Target,
    query: &BTreeMap<String, String>,
) -> Result<Value, Refused> {
    let selection = Selection::new(target, query)?;
    let mut after: Option<String> = None;
    if let Some(token) = query.get("continue").filter(|token| !token.is_empty()) {
        let (version, last) = token.split_once('!').unwrap_or(("0", ""));
        if version.parse().unwrap_or(0) < store.compacted {
            return Err(Refused::new(410, "Expired", "the continue token is too old"));
        }
        after = Some(last.to_owned());
    }
    let limit = query.get("limit").and_then(|limit| limit.parse::<usize>().ok()).filter(|limit| *limit > 0);
    let place = |key: &Key| format!("{}/{}", key.2, key.3);
    let mut items = store
        .objects
        .iter()
        .filter(|(key, stored)| selection.selects(key, &stored.object))
        .filter(|(key, _)| after.as_ref().is_none_or(|after| place(key) > *after));
    let mut page = Vec::new();
    let mut last = String::new();
    for (key, stored) in items.by_ref().take(limit.unwrap_or(usize::MAX)) {
        last = place(key);
        page.push(as_version(stored.object.clone(), &selection.api_version));
    }
    let rest = items.count();
    let mut metadata = json!({"resourceVersion": store.version.to_string()});
    if rest > 0 {
        metadata["continue"] = format!("{}!{last}", store.version).into();
        metadata["remainingItemCount"] = rest.into();
    }
    Ok(json!({
        "apiVersion": selection.api_version,
        "kind": format!("{}List", target.resource.kind),
        "metadata": metadata,
        "items": page,
    }))
}

/// An open watch.
struct Watching {
    shared: Arc<Shared>,
    selection: Selection,
    kind: String,
    seen: u64,
    changed: tokio::sync::watch::Receiver<u64>,
    end: Instant,
    bookmarks: bool,
    first: Vec<Value>,
    ended: bool,
}

fn watch(shared: Arc<Shared>, target: &Target, query: &BTreeMap<String, String>) -> Response<Body> {
    let selection = match Selection::new(target, query) {
        Ok(selection) => selection,
        Err(refused) => return reply(refused.code, &refused.to_json()),
    };
    let from = query.get("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    let lasting = query.get("timeoutSeconds").and_then(|s| s.parse().ok()).map_or(WATCH, Duration::from_secs);
    let changed = shared.changed.subscribe();
    let mut first = Vec::new();
    let mut seen = from;
    let mut ended = false;
    {
        let store = shared.store();
        if from == 0 {
            let all = store.objects.iter().filter(|(key, stored)| selection.selects(key, &stored.object));
            first.extend(all.map(|(_, stored)| {
                event("ADDED", as_version(stored.object.clone(), &selection.api_version))
            }));
            seen = store.version;
        } else if from < store.compacted {
            let message = format!("too old resource version: {from} ({})", store.compacted);
            first.push(event("ERROR", Refused::new(410, "Expired", message).to_json()));
            ended = true;
        }
    }
    let watching = Watching {
        kind: target.resource.kind.clone(),
        shared,
        selection,
        seen,
        changed,
        end: Instant::now() + lasting,
        bookmarks: query.get("allowWatchBookmarks").is_some_and(|wanted| wanted == "true" || wanted == "1"),
        first,
        ended,
    };
    let lines = stream::unfold(watching, |mut watching| async move {
        let events = watching.next().await?;
        Some((events, watching))
    });
    let frames = lines.map(|events| {
        let text: String = events.iter().map(|event| format!("{event}\n")).collect();
        Ok(Frame::data(Bytes::from(text)))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

// === impl Watching ===

impl Watching {
    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<Vec<Value>> {
        if !self.first.is_empty() {
            return Some(std::mem::take(&mut self.first));
        }
        while !self.ended {
            self.changed.borrow_and_update();
            let events = self.news();
            if !events.is_empty() {
                return Some(events);
            }
            let now = Instant::now();
            if now >= self.end {
                break;
            }
            let until = self.end.min(now + BOOKMARK);
            let is_quiet = tokio::time::timeout_at(until, self.changed.changed()).await.is_err();
            if is_quiet && self.bookmarks {
                let object = json!({
                    "kind": self.kind,
                    "apiVersion": self.selection.api_version,
                    "metadata": {"resourceVersion": self.seen.to_string(), "creationTimestamp": null},
                });
                return Some(vec![event("BOOKMARK", object)]);
            }
        }
        None
    }

    fn news(&mut self) -> Vec<Value> {
        let store = self.shared.store();
        let first = store.log.partition_point(|happened| happened.version <= self.seen);
        let events = store.log.range(first..).filter_map(|happened| self.selection.event(happened)).collect();
        self.seen = store.version.max(self.seen);
        events
    }
}

// === impl Selection ===

impl Selection {
    fn new(target: &Target, query: &BTreeMap<String, String>) -> Result<Self, Refused> {
        let mut fields = tests(query.get("fieldSelector").map_or("", String::as_str))?;
        if let Some(name) = &target.name {
            fields.push(("metadata.name".to_owned(), Test::Is(name.clone())));
        }
        Ok(Self {
            group: target.resource.group.clone(),
            plural: target.resource.plural.clone(),
            namespace: target.namespace.clone(),
            api_version: target.resource.api_version(&target.version),
            labels: tests(query.get("labelSelector").map_or("", String::as_str))?,
            fields,
        })
    }

    fn selects(&self, key: &Key, object: &Value) -> bool {
        let in_place = key.0 == self.group
            && key.1 == self.plural
            && self.namespace.as_ref().is_none_or(|namespace| key.2 == *namespace);
        let label = |name: &str| {
            object.pointer("/metadata/labels").and_then(|labels| labels.get(name)).and_then(Value::as_str)
        };
        let field = |path: &str| {
            let found = path.split('.').try_fold(object, |value, key| value.get(key));
            Some(found.and_then(Value::as_str).unwrap_or(""))
        };
        in_place
            && self.labels.iter().all(|(name, test)| test.holds(label(name)))
            && self.fields.iter().all(|(path, test)| test.holds(field(path)))
    }

    /// What a watcher is told: an object that no longer fits is gone for it.
    fn event(&self, happened: &Happened) -> Option<Value> {
        let fits = |object: &Option<Value>| {
            object.as_ref().is_some_and(|object| self.selects(&happened.key, object))
        };
        let (kind, object) = match (fits(&happened.before), fits(&happened.after)) {
            (false, false) => return None,
            (false, true) => ("ADDED", happened.after.clone()?),
            (true, true) => ("MODIFIED", happened.after.clone()?),
            (true, false) => {
                let mut last = happened.before.clone()?;
                last["metadata"]["resourceVersion"] = happened.version.to_string().into();
                ("DELETED", last)
            }
        };
        Some(event(kind, as_version(object, &self.api_version)))
    }
}

// === impl Test ===

impl Test {
    fn holds(&self, found: Option<&str>) -> bool {
        match self {
            Self::Is(value) => found == Some(value),
            Self::IsNot(value) => found != Some(value),
            Self::Exists => found.is_some(),
        }
    }
}

fn tests(selector: &str) -> Result<Vec<(String, Test)>, Refused> {
    selector
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            if part.contains(['(', '!']) && !part.contains("!=") {
                return Err(Refused::new(
                    400,
                    "BadRequest",
                    format!("the selector `{part}` is not supported"),
                ));
            }
            Ok(match part.split_once("!=") {
                Some((name, value)) => (name.to_owned(), Test::IsNot(value.to_owned())),
                None => match part.split_once('=') {
                    Some((name, value)) => {
                        (name.to_owned(), Test::Is(value.trim_start_matches('=').to_owned()))
                    }
                    None => (part.to_owned(), Test::Exists),
                },
            })
        })
        .collect()
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn as_version(mut object: Value, api_version: &str) -> Value {
    object["apiVersion"] = api_version.into();
    object
}

fn key(target: &Target, name: &str) -> Key {
    let namespace = target.namespace.clone().unwrap_or_default();
    (target.resource.group.clone(), target.resource.plural.clone(), namespace, name.to_owned())
}

fn target(shared: &Shared, path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, plural, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
            (Some((*namespace).to_owned()), *plural, rest)
        }
        [plural, rest @ ..] => (None, *plural, rest),
        [] => return None,
    };
    let resource = shared.store().resource(group, version, plural)?.clone();
    if namespace.is_some() && !resource.namespaced {
        return None;
    }
    let (name, subresource) = match rest {
        [] => (None, ""),
        [name] => (Some((*name).to_owned()), ""),
        [name, "status"] if resource.status => (Some((*name).to_owned()), "status"),
        _ => return None,
    };
    if resource.namespaced && name.is_some() && namespace.is_none() {
        return None;
    }
    Some(Target {
        resource,
        version: version.to_owned(),
        namespace,
        name,
        subresource: subresource.to_owned(),
    })
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() =
        hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
