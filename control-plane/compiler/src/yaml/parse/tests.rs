use super::{MAX_DEPTH, MAX_DOCUMENTS, parse};
use crate::diagnostic::Code;
use crate::yaml::{Node, Position, Value};

fn faults(text: &str) -> Vec<(Code, u32, u32, String)> {
    let (_, faults) = parse(text);
    faults.into_iter().map(|fault| (fault.code, fault.at.line, fault.at.column, fault.field)).collect()
}

fn one(text: &str) -> Node<'_> {
    let (mut documents, faults) = parse(text);
    assert!(faults.is_empty(), "{faults:?}\n{text}");
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).root
}

#[test]
fn every_node_knows_its_place() {
    let root = one("# first\nspec:\n  from:\n  - peer: {namespace: étl, b: 'c'}\n");
    let place = |node: &Node<'_>| (node.at.line, node.at.column);
    let spec = root.entry("spec").unwrap();
    assert_eq!((spec.key_at.line, spec.key_at.column), (2, 1));
    let from = &spec.value.entry("from").unwrap().value;
    // A list is where its first entry is.
    assert_eq!(place(from), (4, 5));
    let peer = &from.item(0).unwrap().entry("peer").unwrap().value;
    assert_eq!(place(peer), (4, 11));
    // Columns count characters, not bytes.
    let b = peer.entry("b").unwrap();
    assert_eq!((b.key_at.column, b.value.at.column), (28, 31));
}

#[test]
fn empty_documents_are_nothing_and_explicit_nulls_are_something() {
    assert_eq!(parse("").0.len(), 0);
    assert_eq!(parse("---\n---\n# only a comment\n---\n").0.len(), 0);
    assert_eq!(parse("---\n~\n").0.len(), 1);
    assert_eq!(parse("---\n''\n").0.len(), 1);
}

#[test]
fn a_malformed_document_costs_only_itself() {
    let (documents, faults) = parse("a: 1\n---\nb: [\n---\nc: 3\n---\n\"d\n---\ne: 5\n");
    let keys: Vec<String> = documents
        .iter()
        .map(|document| match &document.root.value {
            Value::Map(entries) => entries[0].key.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(keys.starts_with(&["a".to_owned(), "c".to_owned()]), "{keys:?}");
    assert!(!keys.contains(&"b".to_owned()) && !keys.contains(&"d".to_owned()), "{keys:?}");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.code == Code::MalformedYaml), "{faults:?}");
}

#[test]
fn aliases_stand_for_their_anchors_in_the_same_document_only() {
    let root = one("a: &x [1, 2]\nb: *x\n");
    let (a, b) = (root.entry("a").unwrap(), root.entry("b").unwrap());
    assert_eq!(a.value.value, b.value.value);
    assert_eq!(b.value.at, Position { line: 2, column: 4 });
    assert_eq!(faults("a: &x 1\n---\nb: *x\n").len(), 1);
    assert_eq!(faults("b: *x\n").len(), 1);
}

#[test]
fn alias_bombs_end_at_a_bound() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, previous) in ('b'..='l').zip('a'..='k') {
        let aliases = vec![format!("*{previous}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    let found = faults(&bomb);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Code::LimitExceeded);
    assert!(parse(&bomb).0.is_empty());
}

#[test]
fn depth_ends_at_a_bound_in_every_notation() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(faults(&deep(MAX_DEPTH)), []);
    assert_eq!(faults(&deep(MAX_DEPTH + 1))[0].0, Code::LimitExceeded);
    let block: String = (0..=MAX_DEPTH).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(faults(&block)[0].0, Code::LimitExceeded);
    let half = MAX_DEPTH / 2 + 1;
    let by_alias = format!("a: &a {}\nb: {}*a{}\n", deep(half), "[".repeat(half), "]".repeat(half));
    assert_eq!(faults(&by_alias)[0].0, Code::LimitExceeded);
    // Far beyond what would overflow a stack.
    assert_eq!(faults(&"[".repeat(100_000)).len(), 1);
}

#[test]
fn the_number_of_documents_ends_at_a_bound() {
    assert_eq!(faults(&"--- {a: b}\n".repeat(MAX_DOCUMENTS)), []);
    let found = faults(&"--- {a: b}\n".repeat(MAX_DOCUMENTS + 1));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, Code::LimitExceeded);
}

#[test]
fn a_key_is_a_string_and_there_once() {
    let table = [
        ("a: 1\nb: 2\na: 3\n", Code::DuplicateKey, 3, 1, "a"),
        ("x: {a: 1, 'a': 2}\n", Code::DuplicateKey, 1, 11, "x.a"),
        ("- {a: 1}\n- {b: 1, \"b\": 2}\n", Code::DuplicateKey, 2, 10, "[1].b"),
        ("~: 1\n", Code::YamlFeature, 1, 1, ""),
        (": 1\n", Code::YamlFeature, 1, 1, ""),
        ("[a]: 1\n", Code::YamlFeature, 1, 1, ""),
        ("? {a: b}\n: 1\n", Code::YamlFeature, 1, 3, ""),
        ("a: &x b\n*x : 1\n", Code::YamlFeature, 2, 1, ""),
        ("<<: {a: b}\n", Code::YamlFeature, 1, 1, ""),
        ("a: !!str b\n", Code::YamlFeature, 1, 10, "a"),
        ("a: !custom {b: c}\n", Code::YamlFeature, 1, 12, "a"),
        ("%YAML 1.1\n---\na: b\n", Code::MalformedYaml, 1, 1, ""),
    ];
    for (text, code, line, column, field) in table {
        let found = faults(text);
        assert_eq!(found, [(code, line, column, field.to_owned())], "{text}");
        assert!(parse(text).0.iter().all(|document| document.broken), "{text}");
    }
    // A quoted `<<` is a name like any other.
    assert!(one("\"<<\": a\n").entry("<<").is_some());
}
