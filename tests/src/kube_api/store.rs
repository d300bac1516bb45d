//! Objects, their versions, and what happened to them.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::fields::{self, Conflict, Manager, Managers};

/// A kind of object that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) versions: Vec<String>,
    pub(super) plural: String,
    pub(super) kind: String,
    pub(super) namespaced: bool,
    /// Whether `status` is written through its own address.
    pub(super) status: bool,
    /// Whether it came with a CustomResourceDefinition.
    pub(super) custom: bool,
}

/// Group, plural, namespace, name.
pub(super) type Key = (String, String, String, String);

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) object: Value,
    managers: Managers,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) resources: Vec<Resource>,
    pub(super) objects: BTreeMap<Key, Stored>,
    pub(super) log: VecDeque<Happened>,
    pub(super) version: u64,
    /// Watches cannot start before this version.
    pub(super) compacted: u64,
}

/// An answer that is not what was asked for: HTTP status, reason, message, causes.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) causes: Vec<Value>,
}

/// How an object is changed.
pub(super) enum Change<'b> {
    /// `PUT`.
    Replace(&'b Value),
    /// RFC 7396.
    Merge(&'b Value),
    /// Server-side apply.
    Apply { config: &'b Value, force: bool },
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), causes: Vec::new() }
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.full_name()))
    }

    fn conflicts(conflicts: &[Conflict]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|Conflict { manager, api_version, path }| {
                let mut who = format!("{:?}", manager.name);
                if !manager.subresource.is_empty() {
                    who = format!("{who} with subresource {:?}", manager.subresource);
                }
                if manager.operation == "Update" {
                    who = format!("{who} using {api_version}");
                }
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {who}"),
                    "field": format!(".{}", path.join(".")),
                })
            })
            .collect();
        let told: Vec<String> = causes
            .iter()
            .map(|cause| {
                format!(
                    "{}: {}",
                    cause["message"].as_str().unwrap_or(""),
                    cause["field"].as_str().unwrap_or("")
                )
            })
            .collect();
        let message = format!("Apply failed with {} conflict: {}", causes.len(), told.join(", "));
        Self { code: 409, reason: "Conflict", message, causes }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": {"causes": self.causes},
            "code": self.code,
        })
    }
}

// === impl Resource ===

impl Resource {
    fn builtin(group: &str, version: &str, plural: &str, kind: &str, namespaced: bool, status: bool) -> Self {
        Self {
            group: group.into(),
            versions: vec![version.into()],
            plural: plural.into(),
            kind: kind.into(),
            namespaced,
            status,
            custom: false,
        }
    }

    pub(super) fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// What a CustomResourceDefinition declares.
    fn custom(crd: &Value) -> Option<Self> {
        let spec = crd.get("spec")?;
        let versions = spec.get("versions")?.as_array()?;
        let served = versions.iter().filter(|version| version["served"] == true);
        Some(Self {
            group: spec.get("group")?.as_str()?.to_owned(),
            versions: served
                .map(|version| version["name"].as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            plural: spec.pointer("/names/plural")?.as_str()?.to_owned(),
            kind: spec.pointer("/names/kind")?.as_str()?.to_owned(),
            namespaced: spec.get("scope")? == "Namespaced",
            status: versions.iter().any(|version| version.pointer("/subresources/status").is_some()),
            custom: true,
        })
    }

    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

// === impl Store ===

impl Store {
    pub(super) fn new() -> Self {
        let builtin = Resource::builtin;
        let resources = vec![
            builtin("", "v1", "namespaces", "Namespace", false, true),
            builtin("", "v1", "pods", "Pod", true, true),
            builtin("", "v1", "events", "Event", true, false),
            builtin("", "v1", "configmaps", "ConfigMap", true, false),
            builtin("", "v1", "secrets", "Secret", true, false),
            builtin("events.k8s.io", "v1", "events", "Event", true, false),
            builtin("coordination.k8s.io", "v1", "leases", "Lease", true, false),
            builtin(
                "apiextensions.k8s.io",
                "v1",
                "customresourcedefinitions",
                "CustomResourceDefinition",
                false,
                true,
            ),
        ];
        Self { resources, objects: BTreeMap::new(), log: VecDeque::new(), version: 1, compacted: 0 }
    }

    pub(super) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| {
            resource.group == group
                && resource.plural == plural
                && resource.versions.iter().any(|v| v == version)
        })
    }

    /// Kind, version and key of an object.
    pub(super) fn address(&self, object: &Value) -> Option<(Resource, String, Key)> {
        let api_version = object["apiVersion"].as_str()?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource =
            self.resources.iter().find(|r| r.group == group && object["kind"] == r.kind.as_str())?;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (resource.group.clone(), resource.plural.clone(), text("namespace"), text("name"));
        Some((resource.clone(), version.to_owned(), key))
    }

    /// Creates an object that is not there.
    pub(super) fn create(
        &mut self,
        resource: &Resource,
        version: &str,
        key: &Key,
        object: &Value,
        manager: &str,
    ) -> Result<Value, Refused> {
        let name = &key.3;
        if self.objects.contains_key(key) {
            let message = format!("{} \"{name}\" already exists", resource.full_name());
            return Err(Refused::new(409, "AlreadyExists", message));
        }
        self.has_namespace(resource, key)?;
        let mut object = object.clone();
        if resource.status && resource.custom {
            take(&mut object, "status");
        }
        let manager = Manager { name: manager.to_owned(), operation: "Update", subresource: String::new() };
        let api_version = resource.api_version(version);
        let managers = fields::update(&json!({}), &object, &Managers::new(), &manager, &api_version);
        Ok(self.put(resource, key, None, object, managers))
    }

    /// Changes an object, or creates it where that is what applying does.
    pub(super) fn change(
        &mut self,
        resource: &Resource,
        version: &str,
        key: &Key,
        subresource: &str,
        change: &Change<'_>,
        manager: &str,
    ) -> Result<Value, Refused> {
        let before = self.objects.get(key).cloned();
        let only_status = subresource == "status";
        let is_apply = matches!(change, Change::Apply { .. });
        if before.is_none() && (!is_apply || only_status) {
            return Err(Refused::not_found(resource, &key.3));
        }
        self.has_namespace(resource, key)?;
        let live = before.as_ref().map_or_else(|| json!({}), |stored| stored.object.clone());
        let managers = before.as_ref().map(|stored| stored.managers.clone()).unwrap_or_default();
        let manager = Manager {
            name: manager.to_owned(),
            operation: if is_apply { "Apply" } else { "Update" },
            subresource: subresource.to_owned(),
        };
        let api_version = resource.api_version(version);
        let wants = |body: &Value| {
            body.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned)
        };
        let (body, mut after) = match change {
            Change::Replace(body) => (body, (*body).clone()),
            Change::Merge(body) => {
                let mut after = live.clone();
                fields::merge(&mut after, body);
                (body, after)
            }
            Change::Apply { config, .. } => (config, (*config).clone()),
        };
        if let Some(wanted) = wants(body)
            && Some(wanted.as_str()) != live.pointer("/metadata/resourceVersion").and_then(Value::as_str)
        {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
                resource.full_name(),
                key.3
            );
            return Err(Refused::new(409, "Conflict", message));
        }
        // Each of the two addresses writes its own part.
        if resource.status {
            if only_status {
                let status = take(&mut after, "status");
                after = if is_apply { json!({}) } else { live.clone() };
                put_in(&mut after, "status", status);
            } else {
                take(&mut after, "status");
                if !is_apply {
                    put_in(&mut after, "status", live.get("status").cloned());
                }
            }
        }
        let (after, managers) = match change {
            Change::Apply { force, .. } => {
                fields::apply(&live, &managers, &after, &manager, &api_version, *force)
                    .map_err(|conflicts| Refused::conflicts(&conflicts))?
            }
            _ => {
                let managers = fields::update(&live, &after, &managers, &manager, &api_version);
                (after, managers)
            }
        };
        Ok(self.put(resource, key, before, after, managers))
    }

    pub(super) fn delete(
        &mut self,
        resource: &Resource,
        key: &Key,
        options: &Value,
    ) -> Result<Value, Refused> {
        let Some(stored) = self.objects.get(key) else { return Err(Refused::not_found(resource, &key.3)) };
        for field in ["uid", "resourceVersion"] {
            let wanted = options.pointer(&format!("/preconditions/{field}"));
            let found = stored.object.pointer(&format!("/metadata/{field}"));
            if wanted.is_some() && wanted != found {
                let message = format!("Precondition failed: {field}: {wanted:?} is not {found:?}");
                return Err(Refused::new(409, "Conflict", message));
            }
        }
        self.version += 1;
        let mut last = stored.object.clone();
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let before = self.objects.remove(key).map(|stored| stored.object);
        self.log.push_back(Happened {
            version: self.version,
            key: key.clone(),
            before: before.clone(),
            after: None,
        });
        if resource.plural == "customresourcedefinitions"
            && let Some(gone) = before.as_ref().and_then(Resource::custom)
        {
            self.resources.retain(|resource| resource.full_name() != gone.full_name());
            self.objects.retain(|key, _| !(key.0 == gone.group && key.1 == gone.plural));
        }
        Ok(last)
    }

    fn has_namespace(&self, resource: &Resource, key: &Key) -> Result<(), Refused> {
        let namespace = (String::new(), "namespaces".to_owned(), String::new(), key.2.clone());
        if resource.namespaced && !self.objects.contains_key(&namespace) {
            return Err(Refused::new(404, "NotFound", format!("namespaces \"{}\" not found", key.2)));
        }
        Ok(())
    }

    fn put(
        &mut self,
        resource: &Resource,
        key: &Key,
        before: Option<Stored>,
        mut object: Value,
        managers: Managers,
    ) -> Value {
        let old = before.as_ref().map(|stored| &stored.object);
        let metadata = |object: &Value, field: &str| object.pointer(&format!("/metadata/{field}")).cloned();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let next = self.version + 1;
        let generation =
            old.and_then(|old| metadata(old, "generation")).and_then(|g| g.as_u64()).unwrap_or(0);
        let is_same = |a: &Value, b: &Value| {
            let bare = |object: &Value| {
                let mut object = object.clone();
                take(&mut object, "metadata");
                take(&mut object, "status");
                take(&mut object, "apiVersion");
                object
            };
            bare(a) == bare(b)
        };
        let is_new_spec = old.is_none_or(|old| !is_same(old, &object));
        let creation = old.and_then(|old| metadata(old, "creationTimestamp"));
        let uid = old.and_then(|old| metadata(old, "uid"));
        let version = old.and_then(|old| metadata(old, "resourceVersion"));
        object["kind"] = resource.kind.clone().into();
        if object["apiVersion"].is_null() {
            let api_version = resource.versions.first().map(|version| resource.api_version(version));
            object["apiVersion"] = api_version.into();
        }
        let fields = &mut object["metadata"];
        fields["name"] = key.3.clone().into();
        if resource.namespaced {
            fields["namespace"] = key.2.clone().into();
        }
        fields["uid"] = uid.unwrap_or_else(|| format!("00000000-0000-4000-8000-{next:012}").into());
        fields["creationTimestamp"] = creation.unwrap_or_else(|| now().into());
        fields["generation"] = (generation + u64::from(is_new_spec)).into();
        fields["managedFields"] = fields::render(&managers);
        fields["resourceVersion"] = version.unwrap_or(Value::Null);
        if old == Some(&object) {
            return object;
        }
        self.version = next;
        object["metadata"]["resourceVersion"] = next.to_string().into();
        let before = before.map(|stored| stored.object);
        self.log.push_back(Happened { version: next, key: key.clone(), before, after: Some(object.clone()) });
        self.objects.insert(key.clone(), Stored { object: object.clone(), managers });
        if resource.plural == "customresourcedefinitions"
            && let Some(custom) = Resource::custom(&object)
        {
            self.resources.retain(|resource| resource.full_name() != custom.full_name());
            self.resources.push(custom);
        }
        object
    }
}

pub(super) fn take(object: &mut Value, field: &str) -> Option<Value> {
    object.as_object_mut().and_then(|object| object.remove(field))
}

fn put_in(object: &mut Value, field: &str, value: Option<Value>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(field.to_owned(), value);
    }
}

/// RFC 3339, in seconds, as the API server writes it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
