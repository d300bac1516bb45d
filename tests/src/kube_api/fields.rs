//! Who owns which field of an object: server-side apply with leaf fields and atomic lists.
//!
//! As the API server does it for objects without a schema: mappings are merged key by key, everything else (lists above
//! all) is one value. <https://kubernetes.io/docs/reference/using-api/server-side-apply/>

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Keys from the outside in.
pub(super) type Path = Vec<String>;

/// Whose fields these are, and how they came by them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    /// `Apply` or `Update`.
    pub(super) operation: &'static str,
    pub(super) subresource: String,
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owned {
    pub(super) api_version: String,
    pub(super) paths: BTreeSet<Path>,
}

pub(super) type Managers = BTreeMap<Manager, Owned>;

/// A field that somebody else owns with another value.
#[derive(Debug, Clone)]
pub(super) struct Conflict {
    pub(super) manager: Manager,
    pub(super) api_version: String,
    pub(super) path: Path,
}

const SYSTEM: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
];

/// Every field that can be owned, with its value.
pub(super) fn leaves(object: &Value) -> BTreeMap<Path, Value> {
    let mut all = BTreeMap::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        if key == "apiVersion" || key == "kind" {
            continue;
        }
        collect(value, &mut vec![key.clone()], &mut all);
    }
    all
}

fn collect(value: &Value, path: &mut Path, all: &mut BTreeMap<Path, Value>) {
    if let [first, second] = path.as_slice()
        && first == "metadata"
        && SYSTEM.contains(&second.as_str())
    {
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(key.clone());
                collect(value, path, all);
                path.pop();
            }
        }
        // Nobody owns the frame.
        Value::Object(_) if path.len() == 1 => {}
        value => {
            all.insert(path.clone(), value.clone());
        }
    }
}

/// The object after an apply, or who has something against it.
pub(super) fn apply(
    live: &Value,
    managers: &Managers,
    config: &Value,
    manager: &Manager,
    api_version: &str,
    force: bool,
) -> Result<(Value, Managers), Vec<Conflict>> {
    let wanted = leaves(config);
    let mut conflicts = Vec::new();
    for (path, value) in &wanted {
        if get(live, path) == Some(value) {
            continue;
        }
        for (other, owned) in managers.iter().filter(|(other, _)| *other != manager) {
            let overlaps = |theirs: &&Path| theirs.starts_with(path) || path.starts_with(theirs);
            if owned.paths.iter().any(|theirs| overlaps(&theirs)) {
                conflicts.push(Conflict {
                    manager: other.clone(),
                    api_version: owned.api_version.clone(),
                    path: path.clone(),
                });
            }
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    let mut managers = managers.clone();
    for conflict in conflicts {
        if let Some(owned) = managers.get_mut(&conflict.manager) {
            let taken = &conflict.path;
            owned.paths.retain(|path| !path.starts_with(taken) && !taken.starts_with(path));
        }
    }
    let before = managers.remove(manager).map(|owned| owned.paths).unwrap_or_default();
    let mut object = live.clone();
    for path in before.iter().filter(|path| !wanted.contains_key(*path)) {
        if !managers.values().any(|owned| owned.paths.contains(path)) {
            remove(&mut object, path);
        }
    }
    for (path, value) in &wanted {
        set(&mut object, path, value.clone());
    }
    let owned = Owned { api_version: api_version.to_owned(), paths: wanted.into_keys().collect() };
    managers.insert(manager.clone(), owned);
    managers.retain(|_, owned| !owned.paths.is_empty());
    Ok((object, managers))
}

/// Who owns what after an object was replaced: whoever changed a field has it.
pub(super) fn update(
    before: &Value,
    after: &Value,
    managers: &Managers,
    manager: &Manager,
    api_version: &str,
) -> Managers {
    let (old, new) = (leaves(before), leaves(after));
    let changed: BTreeSet<Path> = new
        .iter()
        .filter(|(path, value)| old.get(*path) != Some(value))
        .map(|(path, _)| path.clone())
        .collect();
    let mut managers = managers.clone();
    for (other, owned) in &mut managers {
        owned.paths.retain(|path| new.contains_key(path) && (other == manager || !changed.contains(path)));
    }
    if !changed.is_empty() {
        let owned = managers
            .entry(manager.clone())
            .or_insert_with(|| Owned { api_version: api_version.to_owned(), paths: BTreeSet::new() });
        owned.paths.extend(changed);
    }
    managers.retain(|_, owned| !owned.paths.is_empty());
    managers
}

/// `metadata.managedFields`.
pub(super) fn render(managers: &Managers) -> Value {
    let entry = |(manager, owned): (&Manager, &Owned)| {
        let mut fields = json!({});
        for path in &owned.paths {
            let path: Path = path.iter().map(|key| format!("f:{key}")).collect();
            set(&mut fields, &path, json!({}));
        }
        let mut entry = json!({
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": owned.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        });
        if !manager.subresource.is_empty() {
            entry["subresource"] = manager.subresource.clone().into();
        }
        entry
    };
    managers.iter().map(entry).collect()
}

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

pub(super) fn get<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = object;
    for key in parents {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(key.clone()).or_insert_with(|| json!({}));
    }
    if !at.is_object() {
        *at = json!({});
    }
    if let Value::Object(map) = at {
        map.insert(last.clone(), value);
    }
}

fn remove(object: &mut Value, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            if let Value::Object(map) = object {
                map.remove(last);
            }
        }
        [first, rest @ ..] => {
            let Some(child) = object.get_mut(first) else { return };
            remove(child, rest);
            let is_empty = child.as_object().is_some_and(Map::is_empty);
            if is_empty
                && first != "metadata"
                && let Value::Object(map) = object
            {
                map.remove(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &str, operation: &'static str) -> Manager {
        Manager { name: name.into(), operation, subresource: String::new() }
    }

    #[test]
    fn applying_merges_mappings_and_replaces_lists() {
        let a = manager("a", "Apply");
        let b = manager("b", "Apply");
        let none = Managers::new();
        let (live, managers) =
            apply(&json!({}), &none, &json!({"spec": {"x": 1, "list": [1, 2]}}), &a, "v1", false).unwrap();
        let (live, managers) =
            apply(&live, &managers, &json!({"spec": {"y": {"z": 2}}}), &b, "v1", false).unwrap();
        assert_eq!(live["spec"], json!({"x": 1, "list": [1, 2], "y": {"z": 2}}));
        // What a manager no longer says goes, unless another one says it too.
        let (live, managers) =
            apply(&live, &managers, &json!({"spec": {"list": [3]}}), &a, "v1", false).unwrap();
        assert_eq!(live["spec"], json!({"list": [3], "y": {"z": 2}}));
        let conflicts =
            apply(&live, &managers, &json!({"spec": {"list": [4]}}), &b, "v1", false).unwrap_err();
        assert_eq!(
            (conflicts[0].manager.name.as_str(), conflicts[0].path.join(".")),
            ("a", "spec.list".into())
        );
        let (live, managers) =
            apply(&live, &managers, &json!({"spec": {"list": [4], "y": {"z": 2}}}), &b, "v1", true).unwrap();
        assert_eq!(live["spec"]["list"], json!([4]));
        assert!(!managers.contains_key(&a), "it owns nothing any more");
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let a = manager("a", "Apply");
        let edit = manager("edit", "Update");
        let (live, managers) =
            apply(&json!({}), &Managers::new(), &json!({"spec": {"x": 1, "y": 1}}), &a, "v1", false).unwrap();
        let mut edited = live.clone();
        edited["spec"]["x"] = json!(2);
        let managers = update(&live, &edited, &managers, &edit, "v1");
        assert_eq!(managers[&a].paths, BTreeSet::from([vec!["spec".to_owned(), "y".to_owned()]]));
        let again = apply(&edited, &managers, &json!({"spec": {"x": 1, "y": 1}}), &a, "v1", false);
        assert_eq!(again.unwrap_err()[0].manager, edit);
    }
}
