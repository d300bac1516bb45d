use super::*;
use crate::keys::testing::{Issuer as Server, key_set};
use crate::keys::{AddressGuard, NEVER};

const NOW: i64 = 1_800_000_000;

fn keeper(folder: &std::path::Path) -> Keeper {
    Keeper::open(Arc::new(StateDir::open(folder).unwrap()), Arc::default()).unwrap()
}

fn sources(entries: &[(&str, KeySource)]) -> Arc<KeySources> {
    Arc::new(entries.iter().map(|(name, source)| (name.to_string(), source.clone())).collect())
}

fn url(path: &str) -> KeySource {
    KeySource::Url(format!("https://issuer.example{path}"))
}

fn report(keeper: &Keeper, name: &str) -> IssuerReport {
    keeper.lock_reports()[name].clone()
}

#[test]
fn keys_that_are_written_in_the_rules_are_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = keeper(folder.path());
    keeper.set_sources(sources(&[("gitlab", KeySource::Inline(key_set("k1")))]));
    assert_eq!(keeper.ring.get("gitlab").unwrap().valid_until, NEVER);
    assert!(keeper.ring.pending.is_empty());
    assert!(keeper.take_due(Instant::now()).is_empty());
}

#[test]
fn an_issuer_that_was_never_reached_has_no_keys_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = keeper(folder.path());
    keeper.set_sources(sources(&[("google", url("/keys"))]));
    assert!(keeper.ring.pending.contains("google"));
    assert_eq!(keeper.take_due(Instant::now()).len(), 1);
    keeper.take("google", url("/keys"), Err("no route".into()), NOW);
    assert!(keeper.ring.get("google").is_none());
    assert!(keeper.ring.pending.is_empty());
    assert_eq!(report(&keeper, "google").error.as_deref(), Some("no route"));
    assert!(keeper.next_due().is_some(), "it is asked again");
}

#[test]
fn a_failure_keeps_the_last_known_good_keys_and_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = keeper(folder.path());
    keeper.set_sources(sources(&[("google", url("/keys"))]));
    keeper.take("google", url("/keys"), Ok(key_set("k1")), NOW);
    let known = keeper.ring.clone();
    for failure in [Err("no route".to_owned()), Ok("<html>".to_owned()), Ok(r#"{"keys":[]}"#.to_owned())] {
        keeper.take("google", url("/keys"), failure, NOW + 20 * 3_600);
        assert_eq!(keeper.ring, known);
    }
    assert!(report(&keeper, "google").error.is_some());
    keeper.take("google", url("/keys"), Ok(key_set("k2")), NOW + 21 * 3_600);
    assert_ne!(keeper.ring.get("google").unwrap().keys, known.get("google").unwrap().keys);
    assert!(report(&keeper, "google").error.is_none());
}

#[test]
fn last_known_good_keys_survive_a_restart_with_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = keeper(folder.path());
    before.set_sources(sources(&[("google", url("/keys"))]));
    before.take("google", url("/keys"), Ok(key_set("k1")), NOW);
    let known = before.ring.clone();
    drop(before);
    let mut after = keeper(folder.path());
    after.set_sources(sources(&[("google", url("/keys"))]));
    assert_eq!(after.ring, known);
}

#[test]
fn keys_of_another_source_never_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = keeper(folder.path());
    keeper.set_sources(sources(&[("google", url("/keys"))]));
    keeper.take("google", url("/keys"), Ok(key_set("k1")), NOW);
    keeper.set_sources(sources(&[("google", url("/other"))]));
    assert!(keeper.ring.get("google").is_none());
    keeper.take("google", url("/keys"), Ok(key_set("k1")), NOW);
    assert!(keeper.ring.get("google").is_none(), "an answer to the old question");
    keeper.set_sources(sources(&[]));
    assert!(keeper.lock_reports().is_empty());
}

#[test]
fn retries_slow_down_to_the_usual_pace() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = keeper(folder.path());
    keeper.set_sources(sources(&[("google", url("/keys"))]));
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = Instant::now();
        keeper.take("google", url("/keys"), Err("no route".into()), NOW);
        waits.push((keeper.next_due().unwrap() - before).as_secs());
    }
    assert_eq!(waits[..4], [2, 4, 8, 16]);
    assert_eq!(waits.last(), Some(&EVERY.as_secs()));
}

#[tokio::test]
async fn an_issuer_is_asked_as_soon_as_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    server.answer("/keys", &key_set("k1"));
    let guard = AddressGuard { allow_loopback: true };
    let fetcher = Fetcher::new(std::slice::from_ref(&server.authority), guard).unwrap();
    let state = Arc::new(StateDir::open(folder.path()).unwrap());
    let (sources_in, sources_out) = watch::channel(Arc::default());
    let (ring_in, mut ring) = watch::channel(Arc::default());
    let task =
        tokio::spawn(refresh(fetcher, state, sources_out, ring_in, Arc::default(), Arc::new(Hub::new())));
    sources_in.send_replace(sources(&[("local", KeySource::Url(server.url("/keys")))]));
    let there = ring.wait_for(|ring| ring.get("local").is_some());
    tokio::time::timeout(Duration::from_secs(10), there).await.unwrap().unwrap();
    drop(sources_in);
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
}
