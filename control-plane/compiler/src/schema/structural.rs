//! JSON Schema to the structural form that Kubernetes demands.

use serde_json::{Map, Value, json};

/// What a structural schema may not have.
const LEFT_OUT: [&str; 5] = ["$schema", "$defs", "title", "format", "oneOf"];

/// Converts a schema and what it contains.
pub(super) fn convert(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    LEFT_OUT.iter().for_each(|name| drop(members.remove(*name)));
    if members.get("additionalProperties") == Some(&Value::Bool(false)) {
        members.remove("additionalProperties");
    }
    if let Some(only) = members.remove("const") {
        members.insert("type".to_owned(), "string".into());
        members.insert("enum".to_owned(), Value::Array(vec![only]));
    }
    match members.get("type") {
        Some(Value::Array(types)) if is_int_or_string(types) => {
            replace(members, "x-kubernetes-int-or-string")
        }
        // Types that refer to themselves have no `type` here either.
        Some(Value::Array(_)) | None => replace(members, "x-kubernetes-preserve-unknown-fields"),
        Some(_) => {}
    }
    if let Some(Value::Object(fields)) = members.get_mut("properties") {
        fields.values_mut().for_each(convert);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = members.get_mut(name) {
            convert(inner);
        }
    }
}

fn is_int_or_string(types: &[Value]) -> bool {
    types.len() == 2 && ["integer", "string"].iter().all(|name| types.contains(&json!(name)))
}

/// Nothing but what it is for, and how its type is left open.
fn replace(members: &mut Map<String, Value>, extension: &str) {
    members.retain(|name, _| name == "description");
    members.insert(extension.to_owned(), Value::Bool(true));
}
