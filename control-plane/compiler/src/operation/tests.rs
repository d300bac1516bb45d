use tidegate_engine::model::{PathPattern, SegmentPattern};
use tidegate_engine::normal;

use super::path;

fn literal(text: &str) -> SegmentPattern {
    SegmentPattern::Literal(text.to_owned())
}

#[test]
fn reads_templates() {
    let table = [
        ("/", vec![literal("")]),
        ("/v1", vec![literal("v1")]),
        ("/v1/", vec![literal("v1"), literal("")]),
        ("/v1/orders/{id}", vec![literal("v1"), literal("orders"), SegmentPattern::One]),
        ("/{**}", vec![SegmentPattern::Rest]),
        ("/v1/{**}", vec![literal("v1"), SegmentPattern::Rest]),
        ("/{id}/", vec![SegmentPattern::One, literal("")]),
        ("/orders-*", vec![SegmentPattern::Glob("orders-*".to_owned())]),
        ("/v1/{name}:publish", vec![]),
        ("/v1/topics/a:publish", vec![literal("v1"), literal("topics"), literal("a:publish")]),
        ("/a%20b", vec![literal("a%20b")]),
        (
            "/google.pubsub.v1.Publisher/Publish",
            vec![literal("google.pubsub.v1.Publisher"), literal("Publish")],
        ),
    ];
    for (text, segments) in table {
        let read = path(text).ok();
        let expected = if segments.is_empty() { None } else { Some(PathPattern { segments }) };
        assert_eq!(read, expected, "{text}");
    }
}

/// A template without variables is a path that normalisation leaves alone, so that it matches the request it shows.
#[test]
fn what_is_accepted_is_in_normal_form() {
    let bytes: Vec<u8> = (0u8..=255).collect();
    for byte in bytes {
        let Ok(text) = String::from_utf8(vec![b'/', b'a', byte, b'b']) else { continue };
        if text.contains(['{', '}', '*']) {
            continue;
        }
        if path(&text).is_ok() {
            let read = normal::path(text.as_bytes());
            assert!(!read.ambiguous(), "{text:?}");
            assert_eq!(read.display().to_string(), text);
        }
    }
    for byte in 0u8..=255 {
        let text = format!("/a%{byte:02X}b");
        let read = normal::path(text.as_bytes());
        let canonical = !read.ambiguous() && read.display().to_string() == text;
        assert_eq!(path(&text).is_ok(), canonical, "{text}");
    }
}
