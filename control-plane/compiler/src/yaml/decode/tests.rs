use std::collections::BTreeMap;

use serde::Deserialize;

use super::{DecodeFault, Decoded, Fault, decode};
use crate::yaml::{parse, show_path};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Sample {
    name: String,
    count: Option<u16>,
    flag: Option<bool>,
    colour: Option<Colour>,
    list: Option<Vec<Part>>,
    map: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Part {
    id: String,
}

fn read(text: &str) -> Decoded<Sample> {
    let (documents, faults) = parse(text);
    assert!(faults.is_empty(), "{faults:?}");
    decode(&documents[0].root)
}

fn faults(text: &str) -> Vec<(String, String)> {
    match read(text) {
        Decoded::Value(value) => panic!("{text} is {value:?}"),
        Decoded::Faults(faults) => {
            faults.iter().map(|DecodeFault { path, fault }| (show_path(path), format!("{fault:?}"))).collect()
        }
    }
}

#[test]
fn reads_plain_types() {
    let text = "{name: a, count: 7, flag: true, colour: Green, list: [{id: 'x'}], map: {a.b: c}}";
    let Decoded::Value(sample) = read(text) else { panic!() };
    assert_eq!(
        sample,
        Sample {
            name: "a".to_owned(),
            count: Some(7),
            flag: Some(true),
            colour: Some(Colour::Green),
            list: Some(vec![Part { id: "x".to_owned() }]),
            map: Some(BTreeMap::from([("a.b".to_owned(), "c".to_owned())])),
        }
    );
}

/// The same text means the same to a maintained serde reader, wherever both take it.
#[test]
fn agrees_with_another_reader() {
    let texts = [
        "name: a",
        "name: 'a'\ncount: 65535\n",
        "{name: \"a\\n\\u00e9\", flag: false}",
        "name: |\n  two\n  lines\n",
        "name: >-\n  one\n  line\n",
        "name: a b # comment\nlist:\n- id: x\n- {id: z}\n",
        "name: &n a\nmap: {x: *n}\n",
        "name: a\nlist: []\nmap: {}\n",
        "name: europe-west4\ncolour: Red\n",
    ];
    for text in texts {
        let theirs: Sample = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let Decoded::Value(ours) = read(text) else { panic!("{text}") };
        assert_eq!(ours, theirs, "{text}");
    }
}

#[test]
fn an_absent_field_is_none_and_a_null_is_a_fault() {
    let Decoded::Value(sample) = read("name: a") else { panic!() };
    assert_eq!(sample.list, None);
    for null in ["~", "null", "", "Null"] {
        assert_eq!(
            faults(&format!("name: a\nlist: {null}\n")),
            [("list".to_owned(), "Null".to_owned())],
            "{null}"
        );
    }
    assert_eq!(faults("name: a\nlist: [{id: }]\n"), [("list[0].id".to_owned(), "Null".to_owned())]);
}

#[test]
fn finds_every_fault_of_a_document() {
    let found = faults(
        "{count: 70000, flag: 'true', colour: Blue, list: [{id: 7}, {idd: a}, b], map: [], nmae: a, other: 1}",
    );
    let mut paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    paths.sort_unstable();
    // "" is the missing name, `list[1]` the missing id.
    assert_eq!(
        paths,
        [
            "",
            "colour",
            "count",
            "flag",
            "list[0].id",
            "list[1]",
            "list[1].idd",
            "list[2]",
            "map",
            "nmae",
            "other"
        ]
    );
}

#[test]
fn nothing_is_converted() {
    let fault = |text: &str| match read(text) {
        Decoded::Faults(mut faults) => faults.remove(0).fault,
        Decoded::Value(value) => panic!("{text} is {value:?}"),
    };
    let wrong = |expected: &str, found: &str| Fault::WrongType {
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    assert_eq!(fault("name: 7"), wrong("a string", "the number `7`"));
    assert_eq!(fault("name: true"), wrong("a string", "the boolean `true`"));
    assert_eq!(fault("name: [a]"), wrong("a string", "a list"));
    assert_eq!(fault("{name: a, count: '7'}"), wrong("a whole number", "the string `7`"));
    assert_eq!(fault("{name: a, count: 7.0}"), wrong("a whole number", "`7.0`, which may be a number"));
    assert_eq!(fault("{name: a, count: -1}"), wrong("a whole number from 0 to 65535", "the number `-1`"));
    assert_eq!(fault("{name: a, flag: 'true'}"), wrong("`true` or `false`", "the string `true`"));
    assert_eq!(fault("{name: a, flag: yes}"), wrong("`true` or `false`", "`yes`, which may be a boolean"));
    assert_eq!(fault("name: no"), Fault::Ambiguous { text: "no".to_owned(), meaning: "a boolean" });
    assert_eq!(
        fault("{name: a, map: {x: 0o7}}"),
        Fault::Ambiguous { text: "0o7".to_owned(), meaning: "a number" }
    );
    assert_eq!(fault("[name]"), wrong("a mapping", "a list"));
}
