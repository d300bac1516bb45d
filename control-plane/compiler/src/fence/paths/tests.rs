//! What is said of paths.

use super::*;

fn pattern(text: &str) -> PathPattern {
    let segments = text.strip_prefix('/').unwrap().split('/').map(|segment| match segment {
        "{**}" => SegmentPattern::Rest,
        _ if segment.starts_with('{') => SegmentPattern::One,
        _ if segment.contains('*') => SegmentPattern::Glob(segment.to_owned()),
        _ => SegmentPattern::Literal(segment.to_owned()),
    });
    PathPattern { segments: segments.collect() }
}

fn said(text: &str, normalization: Normalization) -> Vec<String> {
    containing(&pattern(text), normalization).map_or_else(Vec::new, |said| said.values.into_iter().collect())
}

#[test]
fn contains_every_spelling_of_a_path() {
    for (path, expected) in [
        ("/", &["/"][..]),
        ("/v1/orders", &["/v1/orders"]),
        ("/v1/orders/", &["/v1/orders/"]),
        ("/{**}", &[]),
        ("/v1/{**}", &["/v1", "/v1/*"]),
        ("/v1/orders/{id}", &["/v1/orders/{*}"]),
        ("/v1/{a}/x/{b}", &["/v1/{*}/x/{*}"]),
        ("/v1/{a}/", &["/v1/{*}/{**}"]),
        ("/v1/{a}/{**}", &["/v1/{*}", "/v1/{*}/{**}"]),
        ("/v1/orders-*", &["/v1/orders-*"]),
        ("/v1/*-7", &["/v1/{*}"]),
        ("/v1/orders-*/lines", &["/v1/{*}/lines"]),
        ("/v1/topics:pub", &["/v1/topics%*", "/v1/topics:pub"]),
        ("/v1/{a}/x:y", &["/v1/{*}/{*}"]),
        ("/a%20b/c", &["/a%*", "/a%20b/c"]),
        ("/a%20b/{c}", &["/a%*", "/a%20b/{*}"]),
    ] {
        assert_eq!(said(path, Normalization::Base), expected, "{path}");
    }
}

#[test]
fn where_nothing_is_normalised_any_character_may_be_encoded() {
    assert_eq!(said("/v1", Normalization::Off), ["/%*", "/v%*", "/v1"]);
    assert_eq!(said("/v/{a}/x", Normalization::Off), ["/%*", "/v/{*}/{*}"]);
    assert_eq!(said("/v/{**}", Normalization::Off), ["/%*", "/v", "/v/*"]);
}

#[test]
fn within_says_only_what_matches() {
    let values = |path: &str| match within(&pattern(path)) {
        Within::Any => vec!["any".to_owned()],
        Within::Nothing => vec!["nothing".to_owned()],
        Within::Values(values) => values.into_iter().collect(),
    };
    for (path, expected) in [
        ("/", &["/"][..]),
        ("/{**}", &["any"]),
        ("/v1", &["/v1", "/v1/"]),
        ("/v1/", &["/v1", "/v1/"]),
        ("/v1/{**}", &["/v1", "/v1/*"]),
        ("/v1/{a}", &["/v1/{*}"]),
        ("/v1/{a}/{**}", &["/v1/{*}", "/v1/{*}/{**}"]),
        ("/v1/{a}/", &["/v1/{*}"]),
        ("/v1/orders-*", &["nothing"]),
        ("/v1/{a}/b-*", &["nothing"]),
    ] {
        assert_eq!(values(path), expected, "{path}");
    }
}

#[test]
fn a_star_that_is_itself_is_never_taken_for_a_wildcard() {
    let star = |segments: &[SegmentPattern]| within(&PathPattern { segments: segments.to_vec() });
    let literal = |text: &str| SegmentPattern::Literal(text.to_owned());
    assert_eq!(star(&[literal("a*")]), Within::Nothing);
    assert_eq!(star(&[literal("a*b"), SegmentPattern::One]), Within::Nothing);
    let said =
        containing(&PathPattern { segments: vec![literal("a*b"), SegmentPattern::One] }, Normalization::Base);
    assert_eq!(said.unwrap().values.into_iter().collect::<Vec<_>>(), ["/a%*", "/{*}/{*}"]);
}
