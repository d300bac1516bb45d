use std::path::Path;

use super::*;
use crate::bundle::{SectionStore, sha256};

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;

fn open(folder: &Path, now: i64) -> Publisher {
    Publisher::open(Arc::new(StateDir::open(folder).unwrap()), now).unwrap()
}

fn contents(entries: &[(&str, &str)]) -> BTreeMap<String, Contents> {
    let mut store = SectionStore::default();
    let contents = |rules: &str| Contents {
        coverage: pb::Coverage::Guarded,
        sections: vec![store.section(pb::SectionKind::Rules, rules.as_bytes())],
        required_capabilities: vec![],
        used_capabilities: vec![],
        candidate: vec![],
        suspended_until: 0,
    };
    let mut contents = contents;
    entries.iter().map(|(workload, rules)| (workload.to_string(), contents(rules))).collect()
}

#[test]
fn a_manifest_says_for_whom_what_and_until_when_and_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let releases = publisher.publish(contents(&[("sales/orders", "rules")]), NOW).unwrap();
    let release = &releases["sales/orders"];
    let manifest = pb::Manifest::decode(release.signed().manifest.as_slice()).unwrap();
    assert_eq!(&manifest, release.manifest());
    assert_eq!(manifest.audience, "sales/orders");
    assert_eq!(manifest.format_version, 1);
    assert_eq!(manifest.coverage(), pb::Coverage::Guarded);
    assert_eq!(manifest.issued_at, NOW);
    assert_eq!(manifest.not_after, NOW + 24 * HOUR);
    assert_eq!(manifest.sections[0].sha256, sha256(b"rules"));
    assert_eq!(manifest.sections[0].size, 5);
    assert!(publisher.keys().is_signed(release.signed()));
    assert_eq!(release.sha256(), &sha256(&release.signed().manifest));
}

#[test]
fn equal_content_keeps_its_manifest_and_changed_content_gets_a_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let first = publisher.publish(contents(&[("a/a", "1"), ("b/b", "1")]), NOW).unwrap();
    let second = publisher.publish(contents(&[("a/a", "1"), ("b/b", "2")]), NOW + 60).unwrap();
    assert_eq!(first["a/a"].sha256(), second["a/a"].sha256());
    assert_ne!(first["b/b"].sha256(), second["b/b"].sha256());
    assert!(second["b/b"].revision() > first["b/b"].revision());
    assert!(second["b/b"].revision() > first["a/a"].revision());
}

#[test]
fn equal_content_keeps_its_manifest_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let before = publisher.publish(contents(&[("a/a", "1"), ("b/b", "1")]), NOW).unwrap();
    publisher.save().unwrap();
    drop(publisher);
    let mut publisher = open(folder.path(), NOW + 60);
    let after = publisher.publish(contents(&[("a/a", "1"), ("b/b", "2")]), NOW + 60).unwrap();
    assert_eq!(before["a/a"].signed(), after["a/a"].signed());
    assert!(after["b/b"].revision() > before["b/b"].revision());
}

#[test]
fn manifests_that_were_pushed_but_not_saved_are_followed_by_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let pushed = publisher.publish(contents(&[("a/a", "1")]), NOW).unwrap();
    drop(publisher);
    let mut publisher = open(folder.path(), NOW + 60);
    let after = publisher.publish(contents(&[("a/a", "1")]), NOW + 60).unwrap();
    assert!(after["a/a"].revision() > pushed["a/a"].revision());
}

#[test]
fn a_manifest_is_renewed_before_it_can_no_longer_be_installed() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let digest = |publisher: &mut Publisher, now| {
        *publisher.publish(contents(&[("a/a", "1")]), now).unwrap()["a/a"].sha256()
    };
    let first = digest(&mut publisher, NOW);
    assert_eq!(first, digest(&mut publisher, NOW + 12 * HOUR));
    assert_ne!(first, digest(&mut publisher, NOW + 12 * HOUR + 1));
}

#[test]
fn coverage_and_capabilities_are_content() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let mut digests = Vec::new();
    let bodies = || vec![tidegate_proto::BODIES.to_owned()];
    for (coverage, required, used) in [
        (pb::Coverage::Guarded, vec![], vec![]),
        (pb::Coverage::Unguarded, vec![], vec![]),
        (pb::Coverage::Unguarded, bodies(), vec![]),
        (pb::Coverage::Unguarded, vec![], bodies()),
    ] {
        let mut contents = contents(&[("a/a", "1")]);
        let content = contents.get_mut("a/a").unwrap();
        content.coverage = coverage;
        content.required_capabilities = required;
        content.used_capabilities = used;
        digests.push(*publisher.publish(contents, NOW).unwrap()["a/a"].sha256());
    }
    let different: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn a_workload_that_left_and_came_back_gets_a_later_revision() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let first = publisher.publish(contents(&[("a/a", "1")]), NOW).unwrap();
    assert!(publisher.publish(contents(&[]), NOW).unwrap().is_empty());
    let back = publisher.publish(contents(&[("a/a", "1")]), NOW).unwrap();
    assert!(back["a/a"].revision() > first["a/a"].revision());
}

#[test]
fn a_revision_file_from_an_older_backup_does_not_bring_revisions_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let backup = std::fs::read(folder.path().join("revision.json")).unwrap();
    let first = publisher.publish(contents(&[("a/a", "1")]), NOW).unwrap();
    publisher.save().unwrap();
    drop(publisher);
    std::fs::write(folder.path().join("revision.json"), backup).unwrap();
    let mut publisher = open(folder.path(), NOW);
    let second = publisher.publish(contents(&[("a/a", "2")]), NOW).unwrap();
    assert!(second["a/a"].revision() > first["a/a"].revision());
}

#[test]
fn a_stored_manifest_with_a_broken_signature_is_signed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    publisher.publish(contents(&[("a/a", "1")]), NOW).unwrap();
    publisher.current.get_mut("a/a").unwrap().1.signatures[0].signature[7] ^= 1;
    publisher.save().unwrap();
    drop(publisher);
    let mut publisher = open(folder.path(), NOW);
    let releases = publisher.publish(contents(&[("a/a", "1")]), NOW).unwrap();
    assert!(publisher.keys().is_signed(releases["a/a"].signed()));
}

#[test]
fn stored_manifests_that_do_not_parse_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), NOW));
    for damaged in [r#"{"a/a": "AAAA"}"#, r#"{"a/a": "no base64"}"#, "{"] {
        std::fs::write(folder.path().join(FILE), damaged).unwrap();
        let opened = Publisher::open(Arc::new(StateDir::open(folder.path()).unwrap()), NOW);
        assert!(matches!(opened, Err(BundleError::State(_))), "{damaged}");
    }
}

#[test]
fn the_warm_start_holds_manifest_and_sections() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let releases = publisher.publish(contents(&[("a/a", "rules")]), NOW).unwrap();
    let bundle = pb::Bundle::decode(releases["a/a"].bundle().as_slice()).unwrap();
    assert_eq!(bundle.manifest.as_ref(), Some(releases["a/a"].signed()));
    assert_eq!(bundle.sections[0].content, b"rules");
}

#[test]
fn canaries_get_what_is_later_than_what_others_have_and_what_comes_after_is_later_still() {
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(folder.path(), NOW);
    let (old, new) = (|| contents(&[("a/a", "old")]), || contents(&[("a/a", "new")]));
    let first = publisher.publish(old(), NOW).unwrap();
    let tried = publisher.publish_staged(old(), new(), NOW).unwrap();
    assert_eq!(tried.all["a/a"].sha256(), first["a/a"].sha256(), "what others have stays");
    assert!(tried.canaries["a/a"].revision() > first["a/a"].revision());
    let again = publisher.publish_staged(old(), new(), NOW).unwrap();
    assert_eq!(again.canaries["a/a"].sha256(), tried.canaries["a/a"].sha256());
    // Others get something, and whoever becomes a canary then has to be able to take what canaries have.
    let more = publisher.publish_staged(contents(&[("a/a", "older")]), new(), NOW).unwrap();
    assert!(more.all["a/a"].revision() > tried.canaries["a/a"].revision());
    assert!(more.canaries["a/a"].revision() > more.all["a/a"].revision());
    let back = publisher.publish(contents(&[("a/a", "older")]), NOW).unwrap();
    assert!(back["a/a"].revision() > more.canaries["a/a"].revision(), "the same again, for canaries to take");

    let tried = publisher.publish_staged(contents(&[("a/a", "older")]), new(), NOW).unwrap();
    let all = publisher.publish(new(), NOW).unwrap();
    assert!(all["a/a"].revision() > tried.canaries["a/a"].revision());
}

#[test]
fn what_canaries_have_is_known_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let old = || contents(&[("a/a", "old")]);
    let mut publisher = open(folder.path(), NOW);
    publisher.publish(old(), NOW).unwrap();
    publisher.save().unwrap();
    let tried = publisher.publish_staged(old(), contents(&[("a/a", "new")]), NOW).unwrap();
    // Nothing is saved.
    drop(publisher);
    let mut publisher = open(folder.path(), NOW);
    let again = publisher.publish_staged(old(), contents(&[("a/a", "new")]), NOW).unwrap();
    assert_eq!(again.canaries["a/a"].sha256(), tried.canaries["a/a"].sha256());
    drop(publisher);
    let mut publisher = open(folder.path(), NOW);
    let back = publisher.publish(old(), NOW).unwrap();
    assert!(back["a/a"].revision() > tried.canaries["a/a"].revision());
    publisher.save().unwrap();
    drop(publisher);
    let kept = open(folder.path(), NOW).publish(old(), NOW).unwrap();
    assert_eq!(kept["a/a"].sha256(), back["a/a"].sha256(), "and then it is over");
}
