//! The schema says what the decoder does: on every example that the project shows, and on thousands of broken ones.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::compile_rules;
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};
use tidegate_compiler::{Code, Inputs, Kind, Severity, SourceFile, parse, schema};

/// Every field of every type.
const EVERYTHING: &str = include_str!("schema/everything.yaml");

fn validator(schema: &Value) -> Validator {
    jsonschema::options().with_draft(Draft::Draft202012).build(schema).expect("it is a schema")
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn is_ours(document: &Value) -> bool {
    Kind::ALL.iter().any(|kind| document["kind"] == kind.as_str())
}

fn errors(validator: &Validator, document: &Value) -> Vec<String> {
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// What the decoder says: JSON is YAML.
fn decoder(document: &Value) -> Vec<String> {
    let sources = [SourceFile { path: "a.yaml".into(), text: document.to_string() }];
    let parsed = parse(&Inputs { sources: &sources, env: Default::default(), now: None });
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

fn texts_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                texts_below(&path, found);
            }
        } else if [".yaml", ".yml", ".md"].iter().any(|end| name.ends_with(end)) {
            found.push(path);
        }
    }
}

/// Objects in our files: documents, those in the text of corpora, and YAML blocks of Markdown.
fn examples() -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    texts_below(&root, &mut files);
    let mut examples = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.display().to_string();
        let blocks: Vec<&str> = if name.ends_with(".md") {
            text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
        } else {
            vec![text.as_str()]
        };
        for block in blocks.into_iter().filter(|block| block.contains("kind:")) {
            for document in documents(block) {
                if let Some(rules) = document.get("rules").and_then(Value::as_str) {
                    examples.extend(documents(rules).into_iter().map(|one| (name.clone(), one)));
                }
                examples.push((name.clone(), document));
            }
        }
    }
    examples.retain(|(_, document)| is_ours(document));
    examples
}

#[test]
fn every_example_of_the_project_is_valid() {
    let any = validator(&schema::any());
    let examples = examples();
    let files: BTreeSet<&String> = examples.iter().map(|(file, _)| file).collect();
    assert!(examples.len() > 60 && files.len() >= 10, "{} in {files:?}", examples.len());
    for kind in Kind::ALL {
        assert!(examples.iter().any(|(_, one)| one["kind"] == kind.as_str()), "no example of {kind}");
    }
    for (file, document) in &examples {
        let kind = Kind::ALL.into_iter().find(|kind| document["kind"] == kind.as_str()).unwrap();
        for schema in [&any, &validator(&schema::of(kind))] {
            assert_eq!(errors(schema, document), Vec::<String>::new(), "{file}: {document:#}");
        }
        if document.to_string().contains("${env.") {
            continue;
        }
        let structural = validator(&schema::structural(kind));
        assert_eq!(errors(&structural, document), Vec::<String>::new(), "{file}: {document:#}");
    }
}

/// All keys anywhere in a document.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        Value::Object(members) => {
            found.extend(members.keys().cloned());
            members.values().for_each(|member| keys(member, found));
        }
        _ => {}
    }
}

/// All names that `properties` have anywhere in a schema.
fn fields(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            members.values().for_each(|member| fields(member, found));
        }
        _ => {}
    }
}

/// JSON Pointers to everything in a document.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, format!("{at}/{index}"), found));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| {
                places(member, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
            });
        }
        _ => {}
    }
    found.push(at);
}

/// Versions of a document that differ from it at one place.
fn broken(document: &Value) -> Vec<(String, Value)> {
    let others = [
        json!(null),
        json!(true),
        json!(7),
        json!(-7),
        json!(70_000),
        json!("x"),
        json!([]),
        json!(["x"]),
        json!([7]),
        json!({}),
        json!({"zzz": "x"}),
        json!({"zzz": {"a": [1, "b", {"c": true}]}}),
    ];
    let mut at = Vec::new();
    places(document, String::new(), &mut at);
    let mut all = Vec::new();
    for place in at {
        for other in &others {
            let mut changed = document.clone();
            *changed.pointer_mut(&place).unwrap() = other.clone();
            all.push((format!("{place} = {other}"), changed));
        }
        let mut more = document.clone();
        if let Some(Value::Object(members)) = more.pointer_mut(&place) {
            members.insert("zzz".into(), json!("x"));
            all.push((format!("{place} with another field"), more));
            for name in document.pointer(&place).unwrap().as_object().unwrap().keys() {
                let mut less = document.clone();
                less.pointer_mut(&place).unwrap().as_object_mut().unwrap().remove(name);
                all.push((format!("{place} without {name}"), less));
            }
        }
    }
    all
}

#[test]
fn schema_and_decoder_agree_on_every_way_to_break_an_object() {
    let mut known = BTreeSet::new();
    let mut all = BTreeSet::new();
    let (mut accepted, mut refused, mut by_number) = (0, 0, 0);
    for document in documents(EVERYTHING) {
        let kind = Kind::ALL.into_iter().find(|kind| document["kind"] == kind.as_str()).unwrap();
        let schema = schema::of(kind);
        keys(&document, &mut known);
        fields(&schema, &mut all);
        let schema = validator(&schema);
        assert_eq!(errors(&schema, &document), Vec::<String>::new(), "{document:#}");
        assert_eq!(decoder(&document), Vec::<String>::new(), "{document:#}");
        for (how, changed) in broken(&document) {
            if changed["kind"] != document["kind"] {
                // What is of no kind, or of another, is for the schema of all of them.
                continue;
            }
            let said: Vec<_> = schema.iter_errors(&changed).collect();
            let decoded = decoder(&changed);
            // "Exactly one of these" is no shape; that the compiler refuses it is tested below.
            let only_number = said.iter().all(|error| error.schema_path().as_str().contains("/oneOf"));
            if decoded.is_empty() && !said.is_empty() && only_number {
                by_number += 1;
                continue;
            }
            let told: Vec<String> = said.iter().map(ToString::to_string).collect();
            assert_eq!(
                decoded.is_empty(),
                told.is_empty(),
                "{kind}: {how}\ndecoder: {decoded:#?}\nschema: {told:#?}"
            );
            *if decoded.is_empty() { &mut accepted } else { &mut refused } += 1;
        }
    }
    let missing: Vec<&String> = all.difference(&known).collect();
    assert!(missing.is_empty(), "everything.yaml lacks {missing:?}");
    assert!(accepted > 500 && refused > 4000 && by_number > 50, "{accepted} {refused} {by_number}");
}

#[test]
fn values_may_come_from_the_environment_in_files_and_not_in_kubernetes() {
    let text = "kind: Guard\nmetadata: {name: g, namespace: sales}\nspec: {mode: '${env.mode}', ports: ['${env.port}']}\n";
    let document = &documents(text)[0];
    assert_eq!(errors(&validator(&schema::any()), document), Vec::<String>::new());
    assert_eq!(errors(&validator(&schema::structural(Kind::Guard)), document).len(), 2);
    let other = &documents(&text.replace("${env.port}", "8080"))[0];
    assert_eq!(errors(&validator(&schema::of(Kind::Guard)), other).len(), 1);
}

#[test]
fn documents_of_no_known_kind_are_refused() {
    let any = validator(&schema::any());
    for document in [
        json!({"kind": "AccesRule", "metadata": {"name": "a"}, "spec": {}}),
        json!({"metadata": {"name": "a"}}),
        json!({"kind": "Guard", "metadata": {"name": "a", "namespace": "b"}, "spec": {"mode": "Enforced"}}),
        json!({"apiVersion": "tidegate.dev/v2", "kind": "Guard", "metadata": {"name": "a", "namespace": "b"}, "spec": {"mode": "Enforce"}}),
        json!({"kind": "Guard", "metadata": {"name": "a"}, "spec": {"mode": "Enforce"}}),
        json!({"kind": "TrustedIssuer", "metadata": {"name": "a", "namespace": "b"}, "spec": {"issuer": "https://a", "pack": "gitlab", "keys": {"discovery": true}}}),
        json!([]),
        json!("Guard"),
    ] {
        assert!(!errors(&any, &document).is_empty(), "{document}");
        assert!(!decoder(&document).is_empty(), "{document}");
    }
}

/// Objects that write none and two of what must be written once.
#[test]
fn what_the_schema_wants_exactly_once_the_compiler_does_too() {
    let rule = |from: &str, to: &str, target: &str| {
        format!(
            "kind: AccessRule\nmetadata: {{name: r, namespace: sales}}\nspec:\n  owner: a\n  effect: Allow\n  mode: Enforce\n  \
             target: {target}\n  from: [{from}]\n  to: [{to}]\n"
        )
    };
    let (peer, http, label) = (
        "{peer: {namespace: etl}}",
        "{http: {methods: [GET], paths: [/a]}}",
        "{selector: {matchLabels: {app: orders-api}}}",
    );
    let from = |from: &str| rule(from, http, label);
    let token = |token: &str| from(&format!("{{peer: {{namespace: etl}}, tokens: [{token}]}}"));
    let header = |field: &str| {
        rule(
            peer,
            &format!("{{http: {{methods: [GET], paths: [/a], headers: [{{name: x, {field}}}]}}}}"),
            label,
        )
    };
    let issuer = |fields: &str| {
        format!("kind: TrustedIssuer\nmetadata: {{name: more}}\nspec: {{pack: generic, {fields}}}\n")
    };
    let caller = |form: &str| {
        format!("kind: Caller\nmetadata: {{name: c, namespace: data}}\nspec: {{anyOf: [{form}]}}\n")
    };
    let cases = [
        from(peer),
        from("{tokens: [{issuer: google}]}"),
        from("{peer: {namespace: etl}, anyMesh: true}"),
        from("{caller: data/x, anyone: true}"),
        rule(peer, "{}", label),
        rule(peer, "{http: {methods: [GET]}, grpc: {services: [a.B]}}", label),
        rule(peer, http, "{}"),
        rule(peer, http, "{selector: {matchLabels: {app: orders-api}}, gateway: egress/external}"),
        header("exact: a, prefix: a"),
        rule(peer, "{http: {methods: [GET], paths: [/a], headers: [{name: x}]}}", label),
        token("{issuer: batch, spiffe: {}}"),
        token("{issuer: batch, spiffe: {id: 'spiffe://batch.example/a', ids: ['spiffe://batch.example/a']}}"),
        token("{issuer: prod-cluster, tekton: {namespace: ci}}"),
        token("{issuer: prod-cluster, tekton: {namespace: ci, pipeline: a, task: b}}"),
        issuer("keys: {discovery: true}"),
        issuer("issuer: 'https://a.example', issuers: ['https://a.example'], keys: {discovery: true}"),
        issuer("issuer: 'https://a.example', keys: {}"),
        issuer("issuer: 'https://a.example', keys: {discovery: true, jwksUri: 'https://a.example/k'}"),
        caller("{tokens: [{issuer: google}]}"),
        caller("{peer: {namespace: etl}, anyMesh: true, tokens: [{issuer: google}]}"),
    ];
    let any = validator(&schema::any());
    let mut refused = 0;
    for (position, text) in cases.iter().enumerate() {
        let document = &documents(text)[0];
        let compilation = compile_rules(text);
        let errors_of_compiler =
            compilation.diagnostics.iter().filter(|one| one.severity == Severity::Error).count();
        let said = errors(&any, document);
        assert_eq!(said.is_empty(), position == 0, "{text}\n{said:#?}");
        assert_eq!(errors_of_compiler == 0, position == 0, "{text}\n{:#?}", compilation.diagnostics);
        assert_eq!(decoder(document), Vec::<String>::new(), "{text}");
        refused += usize::from(!said.is_empty());
    }
    assert_eq!(refused, cases.len() - 1);
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
fn assert_structural(schema: &Value, at: &str) {
    let members = schema.as_object().unwrap_or_else(|| panic!("{at}: {schema}"));
    let allowed = [
        "type",
        "description",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "enum",
        "minimum",
        "maximum",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
    ];
    for name in members.keys() {
        assert!(allowed.contains(&name.as_str()), "{at}: `{name}` in {schema}");
    }
    let is_open = members.contains_key("x-kubernetes-int-or-string")
        || members.contains_key("x-kubernetes-preserve-unknown-fields");
    match &members.get("type") {
        Some(Value::String(name)) => {
            assert!(
                ["object", "array", "string", "integer", "boolean"].contains(&name.as_str()),
                "{at}: {name}"
            );
            assert!(!is_open, "{at}");
            assert_eq!(name == "array", members.contains_key("items"), "{at}");
        }
        None => assert!(is_open, "{at}: no type in {schema}"),
        Some(other) => panic!("{at}: {other}"),
    }
    assert!(!(members.contains_key("properties") && members.contains_key("additionalProperties")), "{at}");
    if let Some(properties) = members.get("properties") {
        properties
            .as_object()
            .unwrap()
            .iter()
            .for_each(|(name, one)| assert_structural(one, &format!("{at}.{name}")));
    }
    for name in ["items", "additionalProperties"] {
        members.get(name).iter().for_each(|one| assert_structural(one, &format!("{at}.{name}")));
    }
}

#[test]
fn the_form_for_kubernetes_is_structural() {
    for kind in Kind::ALL {
        assert_structural(&schema::structural(kind), kind.as_str());
    }
    let guard = schema::structural(Kind::Guard);
    assert_eq!(guard["properties"]["spec"]["properties"]["mode"]["enum"], json!(["Enforce", "Shadow"]));
    assert_eq!(guard["properties"]["spec"]["required"], json!(["mode"]));
    let project = &schema::structural(Kind::Caller)["properties"]["spec"]["properties"]["anyOf"]["items"]["properties"]
        ["tokens"]["items"]["properties"]["gitlab"]["properties"]["project"];
    assert_eq!(project["x-kubernetes-int-or-string"], json!(true));
}

#[test]
fn schemas_are_the_same_each_time_and_look_like_this() {
    assert_eq!(schema::any(), schema::any());
    insta::assert_snapshot!("guard", serde_json::to_string_pretty(&schema::of(Kind::Guard)).unwrap());
    insta::assert_snapshot!(
        "guard_structural",
        serde_json::to_string_pretty(&schema::structural(Kind::Guard)).unwrap()
    );
}

#[test]
fn unknown_fields_are_refused_with_a_code() {
    let text = "kind: Guard\nmetadata: {name: g, namespace: sales}\nspec: {mode: Enforce, audiences: [a]}\n";
    assert!(compile_rules(text).diagnostics.iter().any(|one| one.code == Code::UnknownField));
    assert!(!errors(&validator(&schema::any()), &documents(text)[0]).is_empty());
}
