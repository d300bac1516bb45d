use super::name::{Name, Segment, encode, glob_matches};

fn pattern(text: &str) -> Vec<String> {
    text.split('/').map(str::to_owned).collect()
}

#[test]
fn names_are_read_or_refused() {
    let literal = |text: &str| Segment::Literal(text.to_owned());
    for (text, segments) in [
        ("**", vec![Segment::Rest]),
        ("projects/acme", vec![literal("projects"), literal("acme")]),
        ("a/*/b-*/**", vec![literal("a"), Segment::Any, Segment::Glob("b-*".to_owned()), Segment::Rest]),
        ("a/b c", vec![literal("a"), literal("b c")]),
    ] {
        assert_eq!(Name::parse(text).unwrap().segments(), segments, "{text}");
    }
    for text in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "a/**/b",
        "a/b**",
        "a/{id}",
        "a/.",
        "a/..",
        "a/b.",
        "a/b ",
        "a/b;c",
        "a/b%2Fc",
        "a/b\\c",
        "a/b?c",
        "a/b#c",
        "a/b\nc",
        "//pubsub.googleapis.com/projects/acme",
        "https://a/b",
        "gs://a/b",
    ] {
        assert!(Name::parse(text).is_err(), "{text}");
    }
}

#[test]
fn names_meet_and_cover_patterns() {
    for (name, of, meets, covers) in [
        ("projects/acme/topics/orders", "projects/*/topics/*", true, false),
        ("projects/*/topics/*", "projects/*/topics/*", true, true),
        ("projects/*/topics/o*", "projects/*/topics/*", true, false),
        ("projects/**", "projects/*/topics/*", true, true),
        ("projects/acme/**", "projects/*/topics/*", true, false),
        ("**", "projects/*/topics/*", true, true),
        ("projects/*/topics", "projects/*/topics/*", false, false),
        ("projects/*/topics/**", "projects/*/topics", false, false),
        ("projects/*/topics/*/x", "projects/*/topics/*", false, false),
        ("projects/_/buckets/b/objects/a/b", "projects/_/buckets/*/objects/**", true, false),
        ("projects/acme/buckets/b/objects/a", "projects/_/buckets/*/objects/**", false, false),
        ("projects/_/buckets/*/objects/*", "projects/_/buckets/*/objects/**", true, false),
        ("projects/_/buckets/*/objects/**", "projects/_/buckets/*/objects/**", true, true),
        ("projects/a/b/operations/c", "projects/**/operations/*", true, false),
        ("projects/a/b/other/c", "projects/**/operations/*", false, false),
        ("projects/a/**", "projects/**/operations/*", true, false),
        ("**", "**", true, true),
    ] {
        let read = Name::parse(name).unwrap();
        assert_eq!(read.meets(&pattern(of)), meets, "{name} meets {of}");
        assert_eq!(read.covers(&pattern(of)), covers, "{name} covers {of}");
    }
}

#[test]
fn globs_match_whole_texts() {
    for (glob, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*", "a", true),
        ("a*b*c", "aXbYc", true),
        ("a*b*c", "acb", false),
        ("*-a", "b-a", true),
        ("a*a", "a", false),
    ] {
        assert_eq!(glob_matches(glob, text), expected, "{glob} {text}");
    }
}

#[test]
fn names_are_encoded_as_requests_are_read() {
    for (text, expected) in
        [("a-b_c.d~e", Some("a-b_c.d~e")), ("a b", Some("a%20b")), ("ä", Some("%C3%A4")), ("a*", Some("a*"))]
    {
        assert_eq!(encode(text).as_deref(), expected, "{text}");
    }
    for text in ["%", ".", "a.", "a ", ";", "a/b", "a\u{7f}"] {
        assert_eq!(encode(text), None, "{text}");
    }
}
