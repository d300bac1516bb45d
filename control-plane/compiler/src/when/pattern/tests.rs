use proptest::prelude::*;
use tidegate_engine::model::*;

use super::*;

/// What the engine says.
fn accepts(pattern: &Pattern, text: &str) -> bool {
    let model = PolicyModel {
        guards: vec![GuardModel { id: "a/g".into(), mode: Mode::Enforce, ports: None, audiences: None }],
        rules: vec![
            RuleModel {
                id: "a/r".into(),
                effect: Effect::Allow,
                mode: Mode::Enforce,
                owner: String::new(),
                contact: String::new(),
                disclosure: Disclosure::Full,
                audit: Default::default(),
                lease: Lease::default(),
                revokes: false,
                from: vec![FromModel {
                    peer: PeerModel::Anyone,
                    issuers: vec![],
                    condition: Condition::Text(
                        Operand::Text(text.to_owned()),
                        TextTest::Pattern(pattern.clone()),
                    ),
                }],
                to: None,
            }
            .into(),
        ],
        ..PolicyModel::default()
    };
    let bytes = tidegate_engine::encode(&model).expect("the model encodes");
    let policy = tidegate_engine::PolicySet::decode(&bytes).expect("what was encoded decodes");
    let path = tidegate_engine::normal::path(b"/");
    let request = tidegate_engine::Request {
        now: 0,
        expiry_grace_s: 0,
        port: 0,
        method: b"GET",
        host: Some("a"),
        path: &path,
        query: &[],
        headers: Default::default(),
        fields: &[],
        body: tidegate_engine::Body::Unread,
        peer: tidegate_engine::Peer::Absent,
        tokens: &[],
        directories: &Default::default(),
    };
    let decision = tidegate_engine::decide(&policy, &request);
    assert_eq!(decision, tidegate_engine::reference::decide(&model, &request));
    decision.outcome == tidegate_engine::Outcome::Allow
}

/// The same in the crate `regex`, whose classes are of Unicode: they are written as RE2 means them.
fn expected(source: &str, text: &str) -> bool {
    let source = source.replace("\\d", "[0-9]").replace("\\w", "[0-9A-Za-z_]").replace("\\b", "(?-u:\\b)");
    regex::Regex::new(&source).expect("an expression").is_match(text)
}

const TEXTS: [&str; 22] = [
    "",
    "a",
    "b",
    "ab",
    "aab",
    "ba",
    "abab",
    "release-1",
    "release-12",
    "xrelease-1",
    "release-1x",
    "main",
    "a\nb",
    "\n",
    "é",
    "éa",
    "٣",
    "-",
    "a-b",
    "orders.v1",
    "ordersXv1",
    "RELEASE-1",
];

#[test]
fn an_automaton_accepts_what_the_expression_matches() {
    let sources = [
        "a",
        "^a",
        "a$",
        "^a$",
        "",
        "^$",
        "^",
        "$",
        "a*",
        "a+b",
        "(a|b)*",
        "^(a|b)+$",
        "^release-[0-9]+$",
        "release-\\d+",
        "\\bmain\\b",
        "^orders\\.v1$",
        "orders.v1",
        "^.$",
        "^..$",
        "(?i)release",
        "(?m)^b$",
        "(?s)a.b",
        "[^a]",
        "^[^a]*$",
        "é",
        "^[à-ü]$",
        "^\\w+$",
        "a{2,3}",
        "^(?:a|ab)(?:b|)$",
        "\\bb",
        "a\\b",
        "^\\d$",
        "[\\d]",
        "\\p{Lu}",
        "x^",
        "$x",
        "a|^b$|c$",
    ];
    for source in sources {
        let compiled = compile(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
        for text in TEXTS {
            assert_eq!(accepts(&compiled.pattern, text), expected(source, text), "{source} on {text:?}");
        }
    }
}

#[test]
fn an_expression_is_anchored_if_every_alternative_is() {
    for (source, anchored) in [
        ("^a$", true),
        ("^(?:a|b)$", true),
        ("^a$|^b$", true),
        ("^a|b$", false),
        ("a", false),
        ("^a", false),
        ("a$", false),
        ("(?m)^a$", false),
    ] {
        assert_eq!(compile(source).unwrap().anchored, anchored, "{source}");
    }
}

#[test]
fn automata_are_as_small_as_can_be() {
    // Two states besides those that accept everything and nothing: `release-` was read to somewhere, and digits were.
    for (source, rows) in [("^release-[0-9]+$", 10), ("a", 1), ("", 0), ("^[a-z]+$", 2)] {
        let pattern = compile(source).unwrap().pattern;
        assert_eq!(
            pattern.transitions.len() / usize::from(pattern.class_count),
            rows,
            "{source}: {pattern:?}"
        );
    }
}

#[test]
fn what_would_be_too_large_or_is_none_is_refused() {
    for source in ["[ab]*a[ab]{16}", "^(?:[a-z]{1,64}){1,64}$", "\\p{L}{200}", "a{1000}{1000}"] {
        assert_eq!(compile(source).err(), Some(InvalidPattern::TooLarge), "{source}");
    }
    for source in ["(", "a(?=b)", "(a)\\1", "[z-a]", "\\q", "a{2,1}", "*"] {
        assert!(matches!(compile(source), Err(InvalidPattern::Syntax(_))), "{source}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_expression_is_accepted_as_it_matches(
        source in "(\\^|)([ab]|\\.|a\\*|\\(a\\|b\\)|b\\+|\\[\\^a\\]|\\\\b|\\(\\?:ab\\)\\?){0,5}(\\$|)",
        texts in proptest::collection::vec("[ab\u{e9}\n-]{0,6}", 1..8),
    ) {
        if let Ok(compiled) = compile(&source) {
            for text in texts {
                prop_assert_eq!(accepts(&compiled.pattern, &text), expected(&source, &text), "{} on {:?}", source, text);
            }
        } else {
            prop_assert!(regex::Regex::new(&source).is_err(), "{}", source);
        }
    }
}
