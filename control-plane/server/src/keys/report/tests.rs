use tidegate_identity::PackKind;

use super::*;
use crate::keys::record::Document;
use crate::keys::testing::key_set;

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;

fn source(keys: KeySource) -> IssuerSource {
    IssuerSource {
        keys,
        issuers: vec!["https://issuer.example".into()],
        pack: PackKind::Generic,
        used: true,
        rotate_every_s: None,
        retire_at: 0,
    }
}

fn url() -> IssuerSource {
    source(KeySource::Url("https://issuer.example/keys".into()))
}

/// A record whose one key is known since then.
fn record(source: &IssuerSource, since: i64) -> Record {
    let document = key_set("k1");
    let mut record = Record::new(source.keys.clone(), document.clone(), NOW);
    record.date(&Document::read(&document, PackKind::Generic).unwrap().keys, &BTreeMap::new(), since);
    record
}

fn keys(record: &Record) -> IssuerKeys {
    record.keys(&Document::read(&record.document, PackKind::Generic).unwrap())
}

fn facts<'a>(
    source: &'a IssuerSource,
    record: Option<&'a Record>,
    keys: Option<&'a IssuerKeys>,
) -> Facts<'a> {
    Facts {
        name: "local",
        source,
        record,
        keys,
        refused: &[],
        error: None,
        is_pending: false,
        next_fetch_at: None,
    }
}

fn alerts(facts: &Facts<'_>, now: i64) -> Vec<Alert> {
    facts.report(now).alerts.iter().map(|raised| raised.alert).collect()
}

#[test]
fn an_issuer_in_good_order_has_no_alerts_and_tells_its_keys() {
    let source = url();
    let record = record(&source, NOW - HOUR);
    let keys = keys(&record);
    let report = facts(&source, Some(&record), Some(&keys)).report(NOW);
    assert_eq!(report.alerts, []);
    assert_eq!((report.fetched_at, report.valid_until), (Some(NOW), Some(keys.valid_until)));
    let key = &report.keys[0];
    assert_eq!((key.key_id.as_deref(), key.kind.as_str(), key.since), (Some("k1"), "P-256", NOW - HOUR));
}

#[test]
fn keys_that_are_written_in_the_rules_have_no_end_and_were_not_fetched() {
    let source = source(KeySource::Inline(key_set("k1")));
    let record = record(&source, NOW);
    let keys = keys(&record);
    let report = facts(&source, Some(&record), Some(&keys)).report(NOW + 1_000 * DAY_S);
    assert_eq!((report.alerts, report.fetched_at, report.valid_until), (vec![], None, None));
    assert_eq!(report.source, SourceReport::Inline);
}

#[test]
fn keys_that_expire_are_told_a_day_before() {
    let source = url();
    let record = record(&source, NOW);
    let keys = keys(&record);
    let facts = Facts { error: Some("no route"), ..facts(&source, Some(&record), Some(&keys)) };
    assert_eq!(alerts(&facts, keys.valid_until - DAY_S), []);
    assert_eq!(alerts(&facts, keys.valid_until - DAY_S + 1), [Alert::KeysExpireSoon]);
    assert_eq!(alerts(&facts, keys.valid_until - 1), [Alert::KeysExpireSoon]);
    assert_eq!(alerts(&facts, keys.valid_until), [Alert::KeysExpired]);
    assert!(facts.report(keys.valid_until).alerts[0].text.contains("no route"));
}

#[test]
fn an_issuer_without_keys_is_told_when_it_was_asked_and_only_if_rules_name_it() {
    let source = url();
    let never = Facts { error: Some("no route"), ..facts(&source, None, None) };
    assert_eq!(alerts(&never, NOW), [Alert::NoKeys]);
    assert_eq!(alerts(&Facts { is_pending: true, ..facts(&source, None, None) }, NOW), []);
    let unused = IssuerSource { used: false, ..url() };
    assert_eq!(alerts(&facts(&unused, None, None), NOW), []);
    let withdrawn = IssuerKeys { keys: vec![], valid_until: NOW + 100 * DAY_S };
    assert_eq!(alerts(&facts(&source, None, Some(&withdrawn)), NOW), [Alert::NoKeys]);
}

#[test]
fn a_wholly_replaced_set_is_told_for_a_day() {
    let source = url();
    let record = Record { replaced_at: Some(NOW), ..record(&source, NOW) };
    let keys = keys(&record);
    let facts = facts(&source, Some(&record), Some(&keys));
    assert_eq!(alerts(&facts, NOW), [Alert::KeysReplacedWholly]);
    assert_eq!(alerts(&facts, NOW + DAY_S - 1), [Alert::KeysReplacedWholly]);
    assert_eq!(alerts(&facts, NOW + DAY_S), []);
}

#[test]
fn a_rotation_is_overdue_when_the_youngest_key_is_too_old() {
    let every = 90 * DAY_S;
    let source = IssuerSource { rotate_every_s: Some(every), ..source(KeySource::Inline(key_set("k1"))) };
    let record = record(&source, NOW);
    let keys = keys(&record);
    let facts = facts(&source, Some(&record), Some(&keys));
    assert_eq!(alerts(&facts, NOW + every), []);
    assert_eq!(alerts(&facts, NOW + every + 1), [Alert::RotationOverdue]);
}

#[test]
fn retirement_is_told_a_month_before_and_when_it_has_come() {
    let source = IssuerSource { retire_at: NOW, ..source(KeySource::Inline(key_set("k1"))) };
    let record = record(&source, NOW - 100 * DAY_S);
    let keys = keys(&record);
    let facts = facts(&source, Some(&record), Some(&keys));
    assert_eq!(alerts(&facts, NOW - 30 * DAY_S - 1), []);
    assert_eq!(alerts(&facts, NOW - 30 * DAY_S), [Alert::RetiresSoon]);
    assert_eq!(alerts(&facts, NOW - 1), [Alert::RetiresSoon]);
    assert_eq!(alerts(&facts, NOW), [Alert::Retired]);
}

#[test]
fn words_are_those_of_the_serialized_form() {
    for alert in Alert::ALL {
        assert_eq!(serde_json::to_value(alert).unwrap(), alert.name());
    }
}

#[test]
fn keys_are_named_by_type_and_size() {
    let rsa = |bytes: usize| {
        use base64::Engine;
        let mut modulus = vec![0xff; bytes];
        modulus[bytes - 1] = 0xfd;
        let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(modulus);
        let text = serde_json::json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).to_string();
        kind(&Document::read(&text, PackKind::Generic).unwrap().keys[0])
    };
    assert_eq!([256, 384, 512].map(rsa), ["RSA 2048", "RSA 3072", "RSA 4096"]);
}
