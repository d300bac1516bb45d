//! `TIDEGATE_CASES` sets the number of cases of each property (default 2000).

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::PlainReader;
use crate::yaml::builder::Builder;
use crate::yaml::parse::{Document, YamlFault, parse, read_rest};

/// As the parser of all of YAML reads it.
fn by_all_of_yaml(text: &str) -> (Vec<Document<'_>>, Vec<YamlFault>) {
    let (mut builder, mut documents) = (Builder::default(), Vec::new());
    read_rest(text, 0, 0, &mut builder, |document| documents.push(document));
    (documents, builder.faults)
}

/// How many documents are plain before the first that is not, and whether there is none such.
fn plain(text: &str) -> (usize, bool) {
    let (mut reader, mut builder, mut read) = (PlainReader::new(text, 0), Builder::default(), 0);
    while reader.read(&mut builder) {
        read += 1;
    }
    (read, reader.is_at_end())
}

const PLAIN: [&str; 14] = [
    "a: b\n",
    "a: b",
    "---\na: b\n---\nc: d\n",
    "# first\n\n---\n# second\n\na: b # third\n   # fourth\n\n---\n\n  # fifth\nc: 'd'   \n  ",
    "a:\n  b:\n    c: d\n  e: f\ng: h\n",
    "a:\n- b\n- c: d\n  e: f\n-   g: h\n    i: j\nk: l\n",
    "a:\n  - b\n  # here\n  - c: d\n    e:\n    - f\n    - [g]\n    h:\n      - i\n",
    "a: {b: c, 'd': e}\n",
    "a: {b: c, d: [e, \"f\", 'g''s', {h: -7}], i: {}, j: []}\nk: [ l , m ]  # n\n",
    "a: http://b:80/c?d={e}#f\nb: it's 10.0.0.1 - 'c' & \"d\" * !e\nd.e/f-g_h: [x:y, a#b]\n",
    "a: \"b: \\\"c\\\" \\\\ \\/ \\n # d\"\nb: '# \\ {c}, [d]: e'\nc: \"\"\nd: ''\n",
    "a: b:c\nnull1: '<<'\ntrue: false\n",
    r#"{"a":"b","c":[{"d":1,"e":{}},[],"f"],"g":true,"<<":{"h":"i"}}"#,
    "{\n  \"a\": \"b\",\n  \"c\": [\n    1,\n    {\n      \"d\":\n        \"e\"\n    }\n  ]\n}\n---\n{a: b\n, c: d}\n",
];

#[test]
fn what_is_plain_is_read_as_all_of_yaml_reads_it() {
    for text in PLAIN {
        // One of them shows what single quotes do to a name.
        let expected = !text.contains("'d': e");
        assert_eq!(plain(text).1, expected, "{text}");
        assert_eq!(parse(text), by_all_of_yaml(text), "{text}");
        assert_eq!(by_all_of_yaml(text).1, [], "{text}");
    }
}

#[test]
fn whatever_else_there_is_is_left_to_the_other_parser() {
    let table = [
        "",
        "# a\n",
        "---\n",
        "--- a\n",
        "a\n",
        "- a\n",
        "[a]\n",
        " a: b\n",
        "a: b\n...\n",
        "%A\n---\na: b\n",
        "a:\n",
        "a: ~\n",
        "a: |\n  b\n",
        "a: >\n  b\n",
        "a: b\n  c\n",
        "a: 'b\n  c'\n",
        "a: \"b\n  c\"\n",
        "a: {b: c,\n  d: e}\n",
        "a: [b,\n  c]\n",
        "a: &b c\n",
        "a: *b\n",
        "a: !b c\n",
        "a: @b\n",
        "a: `b\n",
        "? a\n: b\n",
        "? a\n",
        ": a\n",
        "a : b\n",
        "'a': b\n",
        "\"a\" : b\n",
        "a: b: c\n",
        "a:\n- - b\n",
        "a:\n-\n  b\n",
        "a:\n- ? b\n",
        "a: {b}\n",
        "a: {b: }\n",
        "a: {b:c}\n",
        "a: {b: c,}\n",
        "a: [b,]\n",
        "a: [b: c]\n",
        "a: [,]\n",
        "a: [b c: d]\n",
        "a: [b # c\n]\n",
        "a: b #\u{7f}\n",
        "a: é\n",
        "é: a\n",
        "a: b # é\n",
        "a: \"é\"\n",
        "\u{feff}a: b\n",
        "a:\tb\n",
        "a: b\t\n",
        "a: b\r\n",
        "a: \"\\x41\"\n",
        "a: \"\\u0041\"\n",
        "a: \"b\\\n  c\"\n",
        "a: {\"b\" : c}\n",
        "a: 'b'#c\n",
        "a: 'b'c\n",
        "a: [b]c\n",
        "a: b\n c: d\n",
        "a:\n  b: c\n d: e\n",
        "a:\n  - b\n - c\n",
        "a:\n- b\nc: d\n- e\n",
        "a: b\na: c\n",
        "a: {b: c, \"b\": d}\n",
        "<<: {a: b}\n",
        "null: a\n",
        "a: -\n",
        "a: - b\n",
        "a: .b\n",
        "a: ?b\n",
        "{a: b}: c\n",
        "{a: b} c\n",
        "{a: b}\nc: d\n",
        "{a: b\n---\nc: d}\n",
        "a: \"b\n---\nc\"\n",
        "a: b\0\n",
        "\"a\":[b]\n",
        "\"a\":b\n",
        "a: b\n\"c\":{d: e}\n",
    ];
    for text in table {
        assert!(!plain(text).1 || text.is_empty(), "{text:?}");
        assert_eq!(plain(text).0, 0, "{text:?}");
        assert_eq!(parse(text), by_all_of_yaml(text), "{text:?}");
    }
    let name = |length: usize| format!("{}: b\n", "a".repeat(length));
    assert_eq!((plain(&name(256)), plain(&name(257))), ((1, true), (0, false)));
    let deep = |levels: usize| format!("a: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    assert_eq!((plain(&deep(47)), plain(&deep(48))), ((1, true), (0, false)));
}

#[test]
fn places_of_the_rest_are_those_of_the_file() {
    let text = "a: b\n---\nc: d\n---\n# here\ne: é\nf: [\n---\ng: h\ng: i\n";
    assert_eq!(plain(text), (2, false));
    let (documents, faults) = parse(text);
    assert_eq!((documents.len(), faults.len()), (3, 2), "{faults:?}");
    assert_eq!((documents, faults), by_all_of_yaml(text));
}

/// Pieces of YAML, those that end or change something among them.
const PIECES: [&str; 66] = [
    "a", "b", "ab", "1", "-1", "true", "null", "~", "kind", "x.y/z", "http://a", "é", "\u{feff}", "\u{2028}",
    "\u{85}", "\n", "\n", "\n\n", "\n  ", "\n  ", "\n    ", "\n ", " ", " ", "  ", "\t", "\r", "\r\n", "\0",
    "\u{7f}", "\u{1b}", ":", ": ", ": ", ": ", ":\n", ":\n  ", "- ", "- ", "\n- ", "\n  - ", "-", "? ", "{",
    "}", "[", "]", ", ", ",", "\"", "'", "''", "\\", "\\\"", "\\n", "#", " # ", "\n---\n", "---", "...",
    "&a ", "*a", "!a ", "|\n", "<<", "%",
];

fn piece() -> impl Strategy<Value = &'static str> {
    select(PIECES.to_vec())
}

/// A rule, and everything that is plain.
fn seeds() -> Vec<&'static str> {
    let rule = "apiVersion: tidegate.dev/v1alpha1\nkind: AccessRule\nmetadata:\n  name: rule-1\n  namespace: team\n\
        spec:\n  contact: \"#team\"\n  target: {selector: {matchLabels: {app: svc}}}\n  from:\n  - peer: {namespace: etl, \
        serviceAccounts: [worker-1]}\n    tokens: [{issuer: gitlab, as: job}]\n    when: ['job.a in [\"b\", \"c\"]']\n  to:\n  \
        - http: {methods: [GET], paths: [\"/v1/{id}\"]}\n";
    PLAIN.into_iter().chain([rule]).collect()
}

/// A plain value as it may be written in brackets or behind a name.
fn flow() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z0-9/_$(][a-zA-Z0-9 ./*'\"!&%@`|>?=+-]{0,8}[a-z0-9.]",
        "'([ -&(-~]|''){0,8}'",
        r#""([ !#-\[\]-~]|\\["\\/nt]){0,8}""#,
        "-?[0-9]{1,3}",
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let space = || "[ ]{0,2}";
        let name = "[a-zA-Z_][a-zA-Z0-9_./-]{0,6}";
        prop_oneof![
            (prop::collection::vec((space(), inner.clone(), space()), 0..4)).prop_map(|parts| {
                let parts: Vec<String> = parts
                    .into_iter()
                    .map(|(before, part, behind)| format!("{before}{part}{behind}"))
                    .collect();
                format!("[{}]", parts.join(","))
            }),
            prop::collection::vec((any::<bool>(), name, inner, space()), 0..4).prop_map(|parts| {
                // No name is there twice.
                let parts = parts.into_iter().enumerate().map(|(at, (quoted, name, part, space))| {
                    if quoted {
                        format!("\"{name}: {at}\":{part}{space}")
                    } else {
                        format!("{name}{at}: {part}{space}")
                    }
                });
                format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

/// Lines of a block: a mapping's, or a list's.
fn block() -> impl Strategy<Value = Vec<String>> {
    let end = || prop_oneof![4 => Just(""), 1 => Just(" # x: [y"), 1 => Just("  ")];
    let leaf = prop::collection::btree_map("[a-z]{1,3}", (flow(), end()), 1..4).prop_map(|entries| {
        entries.into_iter().map(|(name, (value, end))| format!("{name}: {value}{end}")).collect::<Vec<_>>()
    });
    leaf.prop_recursive(4, 32, 3, move |inner| {
        let indented = |lines: Vec<String>, by: usize| {
            lines.into_iter().map(move |line| format!("{}{line}", " ".repeat(by))).collect::<Vec<_>>()
        };
        let item = (
            prop_oneof![
                inner.clone(),
                (flow(), end()).prop_map(|(value, end)| vec![format!("{value}{end}")])
            ],
            1..3usize,
        );
        let item = item.prop_map(move |(lines, by)| {
            let mut lines = indented(lines, by + 1);
            lines[0].replace_range(..1, "-");
            lines
        });
        let list = prop::collection::vec(item, 1..4).prop_map(|items| items.concat());
        let nested = prop_oneof![(inner, 1..4usize), (list, 0..4usize)];
        prop::collection::btree_map("[a-z]{1,3}", (nested, end(), any::<bool>()), 1..4).prop_map(
            move |entries| {
                let entries = entries.into_iter().map(|(name, ((lines, by), end, comment))| {
                    let mut all = vec![format!("{name}:{end}")];
                    all.extend(comment.then(|| "# y".to_owned()));
                    all.extend(indented(lines, by));
                    all
                });
                entries.collect::<Vec<_>>().concat()
            },
        )
    })
}

fn config() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pieces_are_read_as_all_of_yaml_reads_them(pieces in prop::collection::vec(piece(), 0..24)) {
        let text = pieces.concat();
        prop_assert_eq!(parse(&text), by_all_of_yaml(&text), "{:?}", text);
    }

    #[test]
    fn what_was_plain_is_read_as_all_of_yaml_reads_it(
        seed in select(seeds()),
        changes in prop::collection::vec((any::<Index>(), 0..3usize, prop::option::of(piece())), 1..4),
    ) {
        let mut text: Vec<char> = seed.chars().collect();
        for (at, gone, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + gone).min(text.len());
            text.splice(at..end, piece.into_iter().flat_map(str::chars));
        }
        let text: String = text.into_iter().collect();
        prop_assert_eq!(parse(&text), by_all_of_yaml(&text), "{:?}", text);
    }

    #[test]
    fn plain_blocks_are_plain(documents in prop::collection::vec(block(), 1..3)) {
        let documents: Vec<String> = documents.into_iter().map(|lines| lines.join("\n") + "\n").collect();
        let text = documents.join("---\n");
        prop_assert_eq!(parse(&text), by_all_of_yaml(&text), "{}", text);
        prop_assert_eq!(plain(&text), (documents.len(), true), "{}", text);
    }
}
