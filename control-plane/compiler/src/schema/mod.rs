//! JSON Schema of the objects, from the types that they are decoded into: for editors, and for CustomResourceDefinitions.
//!
//! A schema knows shapes: fields, types, values of enumerations, what must be written. What else the compiler refuses, such
//! as names that nothing has, is not in it.
//!
//! INVARIANT: what a schema refuses does not compile. So a schema may say less than the compiler, and never more.

mod structural;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::place::Kind;
use crate::spec::{
    API_VERSION, AccessRuleSpec, CallerSpec, GuardSpec, MeshSpec, Metadata, RuleTestSpec, TrustedIssuerSpec,
};

/// The dialect, as `$schema` names it: <https://json-schema.org/draft/2020-12>.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What stands for a value of the environment, in files.
const OF_ENVIRONMENT: &str = r"\$\{env\.[^}]+\}";

/// Types of which exactly one of these fields must be written. (Not in the structural form: the compiler says it better.)
const EXACTLY_ONE: [(&str, &[&str]); 9] = [
    ("FieldSpec", &["exact", "prefix", "glob", "present", "absent"]),
    ("FormSpec", &["peer", "anyMesh", "tokenOnly"]),
    ("FromSpec", &["caller", "peer", "anyMesh", "tokenOnly", "anyone"]),
    ("KeysSpec", &["jwks", "jwksUri", "discovery"]),
    ("OperationSpec", &["http", "grpc", "launch", "resources"]),
    ("SpiffeSpec", &["id", "ids"]),
    ("TargetSpec", &["selector", "gateway"]),
    ("TektonSpec", &["pipeline", "task"]),
    ("TrustedIssuerSpec", &["issuer", "issuers"]),
];

/// The schema of objects of one kind (2020-12).
pub fn of(kind: Kind) -> Value {
    let mut generator = generator(false);
    let mut schema = object(kind, &mut generator);
    finish(&mut schema, generator);
    schema
}

/// The schema of objects of any kind (2020-12): for files in which they lie beside each other.
pub fn any() -> Value {
    let mut generator = generator(false);
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    let cases: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            json!({
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": format!("#/$defs/{kind}")},
            })
        })
        .collect();
    let objects: Vec<Value> = Kind::ALL.iter().map(|kind| object(*kind, &mut generator)).collect();
    let mut schema = json!({
        "title": "Tidegate",
        "description": "Rules of Tidegate: a document is one object.",
        "type": "object",
        "properties": {"kind": {"enum": kinds}},
        "required": ["kind"],
        "allOf": cases,
    });
    finish(&mut schema, generator);
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        definitions.extend(kinds.into_iter().map(str::to_owned).zip(objects.into_iter().map(tidied)));
    }
    schema
}

/// The `openAPIV3Schema` of a CustomResourceDefinition of this kind: structural, without `$ref`.
///
/// Unknown fields are not refused by it (a structural schema cannot; the API server prunes them, unless
/// `x-kubernetes-preserve-unknown-fields` is added). What is one type or another keeps whatever is written, and is for the
/// compiler to refuse. See
/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>.
pub fn structural(kind: Kind) -> Value {
    let mut generator = generator(true);
    let mut spec = spec(kind, &mut generator);
    tidy(&mut spec);
    structural::convert(&mut spec);
    json!({
        "description": about(kind),
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
        },
        "required": ["spec"],
    })
}

fn generator(inline: bool) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = inline;
    settings.into_generator()
}

fn spec(kind: Kind, generator: &mut SchemaGenerator) -> Value {
    fn of<S: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
        generator.subschema_for::<S>().to_value()
    }
    match kind {
        Kind::Mesh => of::<MeshSpec>(generator),
        Kind::TrustedIssuer => of::<TrustedIssuerSpec>(generator),
        Kind::Caller => of::<CallerSpec>(generator),
        Kind::Guard => of::<GuardSpec>(generator),
        Kind::AccessRule => of::<AccessRuleSpec>(generator),
        Kind::RuleTest => of::<RuleTestSpec>(generator),
    }
}

/// What objects of a kind say.
fn about(kind: Kind) -> &'static str {
    match kind {
        Kind::Mesh => "The mesh that rules are for, where it is not read from Kubernetes.",
        Kind::TrustedIssuer => "Who may issue tokens, with which keys.",
        Kind::Caller => "One named identity and its forms in several systems.",
        Kind::Guard => "A declaration that workloads are guarded: what no Allow matches is refused.",
        Kind::AccessRule => "Who may, or must not, do what. A Deny that matches always wins.",
        Kind::RuleTest => "Requests, and what must be decided about each. Never enforced, never pushed.",
    }
}

fn object(kind: Kind, generator: &mut SchemaGenerator) -> Value {
    let spec = spec(kind, generator);
    let mut metadata = <Metadata as JsonSchema>::json_schema(generator).to_value();
    if let Value::Object(metadata) = &mut metadata {
        if kind.is_namespaced() {
            metadata.insert("required".to_owned(), json!(["name", "namespace"]));
        } else if let Some(Value::Object(fields)) = metadata.get_mut("properties") {
            fields.remove("namespace");
        }
    }
    json!({
        "title": kind.as_str(),
        "description": about(kind),
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "May be left out in files."},
            "kind": {"const": kind.as_str()},
            "metadata": metadata,
            "spec": spec,
        },
        "required": ["kind", "metadata", "spec"],
        "additionalProperties": false,
    })
}

/// Adds the definitions that a schema refers to.
fn finish(schema: &mut Value, mut generator: SchemaGenerator) {
    let mut definitions: Map<String, Value> = generator.take_definitions(true);
    for (name, fields) in EXACTLY_ONE {
        if let Some(Value::Object(definition)) = definitions.get_mut(name) {
            let one: Vec<Value> = fields.iter().map(|field| json!({"required": [field]})).collect();
            definition.insert("oneOf".to_owned(), Value::Array(one));
        }
    }
    if let Value::Object(members) = schema {
        members.insert("$schema".to_owned(), DIALECT.into());
        members.insert("$defs".to_owned(), Value::Object(definitions));
    }
    tidy(schema);
    open_to_environment(schema);
}

fn tidied(mut schema: Value) -> Value {
    tidy(&mut schema);
    open_to_environment(&mut schema);
    schema
}

/// Numbers, booleans and names of enumerations may come from the environment, which is a string before it is replaced.
fn open_to_environment(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(open_to_environment),
        Value::Object(members) => {
            members.values_mut().for_each(open_to_environment);
            if ["integer", "boolean"].iter().any(|name| members.get("type") == Some(&json!(name))) {
                let own = members.remove("type");
                members.insert("type".to_owned(), json!([own, "string"]));
                members.insert("pattern".to_owned(), OF_ENVIRONMENT.into());
            } else if members.get("type") == Some(&json!("string"))
                && let Some(names) = members.remove("enum")
            {
                members.insert("anyOf".to_owned(), json!([{"enum": names}, {"pattern": OF_ENVIRONMENT}]));
            }
        }
        _ => {}
    }
}

/// Says what the decoder does: a null is never "absent"; an enumeration is a list of names.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(members) => {
            members.values_mut().for_each(tidy);
            without_null(members);
            as_names(members);
            // Formats of Rust, beside bounds that say the same.
            members.remove("format");
            if let Some(Value::String(description)) = members.get_mut("description") {
                *description = description.replace('\n', " ");
            }
        }
        _ => {}
    }
}

fn without_null(members: &mut Map<String, Value>) {
    if members.get("default") == Some(&Value::Null) {
        members.remove("default");
    }
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(cases)) = members.get_mut("anyOf") else { return };
    cases.retain(|case| *case != json!({"type": "null"}));
    if let [Value::Object(only)] = cases.as_mut_slice() {
        let only = std::mem::take(only);
        members.remove("anyOf");
        for (name, value) in only {
            // What is said of the field counts over what is said of its type.
            members.entry(name).or_insert(value);
        }
    }
}

/// `oneOf` constants with descriptions → `enum`, all of it in one description.
fn as_names(members: &mut Map<String, Value>) {
    let Some(Value::Array(cases)) = members.get("oneOf") else { return };
    let names: Option<Vec<(String, String)>> = cases
        .iter()
        .map(|case| {
            let description = case.get("description").and_then(Value::as_str).unwrap_or_default();
            Some((case.get("const")?.as_str()?.to_owned(), description.to_owned()))
        })
        .collect();
    let Some(names) = names else { return };
    let each: Vec<String> =
        names.iter().map(|(name, description)| format!("`{name}`: {description}")).collect();
    let described = members.get("description").and_then(Value::as_str).unwrap_or_default();
    let description = format!("{described} {}", each.join(" ")).trim().to_owned();
    members.remove("oneOf");
    members.insert("type".to_owned(), "string".into());
    members.insert("enum".to_owned(), names.into_iter().map(|(name, _)| name).collect());
    members.insert("description".to_owned(), description.into());
}
