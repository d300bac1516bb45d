use super::*;
use crate::keys::testing::{key, key_set};

const HOUR: i64 = 3_600;
const NOW: i64 = 1_800_000_000;

fn url() -> KeySource {
    KeySource::Url("https://issuer.example/keys".into())
}

fn read(text: &str) -> Result<Document, String> {
    Document::read(text, PackKind::Generic)
}

#[test]
fn fetched_keys_count_for_two_days_and_more_and_their_end_changes_rarely() {
    let valid_until = |at| Record::new(url(), String::new(), at).valid_until();
    let mut distinct = std::collections::BTreeSet::new();
    for minutes in (0..48 * 60).step_by(5) {
        let at = NOW + minutes * 60;
        let remaining = valid_until(at) - at;
        assert!((48 * HOUR..=60 * HOUR).contains(&remaining), "{remaining}");
        distinct.insert(valid_until(at));
    }
    assert!(distinct.len() <= 5, "{distinct:?}");
}

#[test]
fn keys_in_the_rules_do_not_get_old() {
    assert_eq!(Record::new(KeySource::Inline(String::new()), String::new(), NOW).valid_until(), NEVER);
}

#[test]
fn a_document_without_a_fit_key_is_an_error_that_says_why() {
    assert_eq!(read(r#"{"keys": []}"#).unwrap_err(), "the key set is empty");
    let symmetric = read(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#).unwrap_err();
    assert!(symmetric.contains("keys[0]") && symmetric.contains("oct"), "{symmetric}");
    let garbage = read("<html>").unwrap_err();
    assert!(garbage.contains("key set"), "{garbage}");
}

#[test]
fn unfit_keys_beside_fit_ones_are_told_and_left_out() {
    let text = serde_json::json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}, key("k1")]}).to_string();
    let document = read(&text).unwrap();
    assert_eq!((document.keys.len(), document.refused.len()), (1, 1));
    assert!(document.refused[0].starts_with("keys[0]: "), "{:?}", document.refused);
}

#[test]
fn a_document_with_many_members_is_read_in_time_and_its_duplicates_are_found() {
    let members = |names: std::ops::Range<usize>| {
        let members: Vec<String> = names.map(|name| format!("\"{name:x}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    let text = |more: String| format!(r#"{{"more":{more},{}"#, &key_set("k1")[1..]);
    let took = |more: String| {
        let (text, began) = (text(more), std::time::Instant::now());
        assert_eq!(read(&text).unwrap().keys.len(), 1);
        began.elapsed()
    };
    // As many members in objects of 50; compared each with each, those of one object take hundreds of times as long.
    let small = (0..26_000).step_by(50).map(|first| members(first..first + 50)).collect::<Vec<_>>();
    let small = took(format!("[{}]", small.join(",")));
    let large = took(members(0..26_000));
    assert!(large < small * 20, "{large:?}, and {small:?} in small objects");
    let twice = text(members(0..26_000).replace("\"658f\"", "\"7\""));
    assert!(read(&twice).unwrap_err().contains("duplicate"));
}

#[test]
fn what_is_told_of_a_document_is_bounded_and_on_a_line() {
    let kty = format!("x\n\u{1b}[2J{}", "y".repeat(10_000));
    let unfit = serde_json::json!({"kty": kty});
    let none = read(&bundle(&[unfit.clone(), unfit.clone()], serde_json::json!({}))).unwrap_err();
    let document = read(&bundle(&[unfit, key("k1")], serde_json::json!({}))).unwrap();
    let sequence = bundle(&[svid("k1")], serde_json::json!({"spiffe_sequence": kty}));
    let sequence = Document::read(&sequence, PackKind::Spiffe).unwrap_err();
    for told in [&none, &document.refused[0], &sequence] {
        assert!(!told.contains(char::is_control) && told.chars().count() <= 1_025, "{told}");
    }
}

#[test]
fn a_thumbprint_names_the_key_and_not_its_id() {
    let one = key("k1");
    let select = |key: &serde_json::Value| {
        let text = serde_json::json!({"keys": [key]}).to_string();
        thumbprint(&read(&text).unwrap().keys[0])
    };
    let mut renamed = one.clone();
    renamed["kid"] = "k2".into();
    renamed["alg"] = "ES256".into();
    assert_eq!(select(&one), select(&renamed));
    assert_ne!(select(&one), select(&key("k1")));
    // RFC 7638 §3.1, the example.
    let example = serde_json::json!({
        "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
              oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHz\
              u6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8a\
              wapJzKnqDKgw"
    });
    assert_eq!(select(&example), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn keys_keep_the_time_when_they_were_seen_first() {
    let (one, two, three) = (key("k1"), key("k2"), key("k3"));
    let date = |keys: &[&serde_json::Value], before: &BTreeMap<String, i64>, now| {
        let text = serde_json::json!({"keys": keys}).to_string();
        let mut record = Record::new(url(), text.clone(), now);
        let all_new = record.date(&read(&text).unwrap().keys, before, now);
        (record, all_new)
    };
    let (first, all_new) = date(&[&one], &BTreeMap::new(), 10);
    assert!(!all_new, "there was nothing before");
    let (second, all_new) = date(&[&one, &two], &first.since, 20);
    assert!(!all_new);
    assert_eq!(second.since.values().copied().collect::<std::collections::BTreeSet<_>>(), [10, 20].into());
    let (third, all_new) = date(&[&two], &second.since, 30);
    assert!(!all_new);
    assert_eq!(third.youngest(), Some(20));
    let (fourth, all_new) = date(&[&three], &third.since, 40);
    assert!(all_new);
    assert_eq!(fourth.youngest(), Some(40));
}

#[test]
fn what_is_dated_in_the_future_counts_from_now() {
    let written =
        Record { replaced_at: Some(NOW + 9), ..Record::new(url(), String::new(), NOW + 365 * 24 * HOUR) };
    let mut record = written.not_after(NOW);
    assert_eq!((record.at, record.replaced_at), (NOW, Some(NOW)));
    assert_eq!(Record::new(url(), String::new(), NOW - 1).not_after(NOW).at, NOW - 1);
    let keys = read(&key_set("k1")).unwrap().keys;
    let before = [(thumbprint(&keys[0]), NOW + 9)].into();
    record.date(&keys, &before, NOW);
    assert_eq!(record.youngest(), Some(NOW));
}

#[test]
fn what_an_earlier_version_has_written_down_is_read() {
    let written = r#"{"source": {"url": "https://issuer.example/keys"}, "at": 7, "document": "{}"}"#;
    let record: Record = serde_json::from_str(written).unwrap();
    assert_eq!(record, Record::new(url(), "{}".into(), 7));
}

#[test]
fn only_what_has_an_entity_tag_is_asked_for_conditionally() {
    let mut record = Record::new(url(), key_set("k1"), NOW);
    assert_eq!(record.known(), None);
    record.url = "https://issuer.example/keys".into();
    record.etag = Some("\"v1\"".into());
    assert_eq!(record.known().unwrap().etag, "\"v1\"");
}

fn bundle(keys: &[serde_json::Value], more: serde_json::Value) -> String {
    let mut bundle = serde_json::json!({"keys": keys});
    bundle.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    bundle.to_string()
}

fn svid(kid: &str) -> serde_json::Value {
    let mut key = key(kid);
    key["use"] = "jwt-svid".into();
    key
}

#[test]
fn a_spiffe_bundle_gives_its_jwt_keys_its_sequence_and_its_pace() {
    let x509 = serde_json::json!({"kty": "EC", "use": "x509-svid", "crv": "P-256"});
    let text = bundle(
        &[svid("k1"), x509, key("k2")],
        serde_json::json!({"spiffe_sequence": 7, "spiffe_refresh_hint": 600}),
    );
    let document = Document::read(&text, PackKind::Spiffe).unwrap();
    assert_eq!(document.keys.iter().map(Jwk::key_id).collect::<Vec<_>>(), [Some("k1")]);
    assert_eq!((document.sequence, document.refresh_hint), (Some(7), Some(Duration::from_secs(600))));
    assert_eq!(document.refused.len(), 2);
    // Elsewhere these members mean nothing, and keys for JWT-SVIDs verify nothing.
    assert!(Document::read(&text, PackKind::Generic).unwrap().sequence.is_none());
    assert!(Document::read(&bundle(&[svid("k1")], serde_json::json!({})), PackKind::Generic).is_err());
}

#[test]
fn a_trust_domain_may_withdraw_all_its_keys_and_others_may_not() {
    let empty = bundle(&[], serde_json::json!({"spiffe_sequence": 8}));
    assert_eq!(Document::read(&empty, PackKind::Spiffe).unwrap().keys, []);
    assert!(Document::read(&empty, PackKind::Kubernetes).is_err());
    // Keys that are there and unfit are a mistake, not a withdrawal.
    for text in [
        bundle(&[key("k1")], serde_json::json!({})),
        bundle(&[serde_json::json!({"kty": "EC", "use": "jwt-svid"})], serde_json::json!({})),
        "{}".to_owned(),
        bundle(&[svid("k1")], serde_json::json!({"spiffe_sequence": "7"})),
        bundle(&[svid("k1")], serde_json::json!({"spiffe_sequence": -1})),
    ] {
        assert!(Document::read(&text, PackKind::Spiffe).is_err(), "{text}");
    }
}
