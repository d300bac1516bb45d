use tokio::sync::oneshot::Receiver;

use super::*;
use crate::keys::testing::{Issuer as Server, key, key_set};
use crate::keys::{AddressGuard, Fetcher, IssuerReport, KeySource, NEVER};
use tidegate_identity::PackKind;

const NOW: i64 = 1_800_000_000;

struct Bench {
    keeper: Keeper,
    metrics: Metrics,
    folder: std::path::PathBuf,
}

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

fn url(path: &str) -> IssuerSource {
    source(KeySource::Url(format!("https://issuer.example{path}")))
}

fn sources(entries: &[(&str, IssuerSource)]) -> Arc<KeySources> {
    Arc::new(entries.iter().map(|(name, source)| (name.to_string(), source.clone())).collect())
}

fn document(text: &str) -> Result<KeySet, String> {
    Ok(KeySet {
        url: "https://issuer.example/keys".into(),
        document: Some(text.to_owned()),
        etag: Some("\"v1\"".into()),
        fresh_for: None,
    })
}

fn unchanged() -> Result<KeySet, String> {
    document("").map(|keys| KeySet { document: None, ..keys })
}

fn ids(bench: &Bench, name: &str) -> Vec<String> {
    let keys = bench.keeper.ring.get(name).into_iter().flat_map(|keys| &keys.keys);
    keys.map(|key| key.key_id().unwrap().to_owned()).collect()
}

fn set(keys: &[&serde_json::Value]) -> String {
    serde_json::json!({"keys": keys}).to_string()
}

impl Bench {
    fn open(folder: &std::path::Path) -> Self {
        let state = Arc::new(StateDir::open(folder).unwrap());
        let keeper = Keeper::open(state, Arc::default()).unwrap();
        Self { keeper, metrics: Metrics::default(), folder: folder.to_owned() }
    }

    /// With these issuers, all asked already.
    fn with(folder: &std::path::Path, entries: &[(&str, IssuerSource)]) -> Self {
        let mut bench = Self::open(folder);
        bench.set(entries);
        bench
    }

    fn set(&mut self, entries: &[(&str, IssuerSource)]) {
        self.keeper.set_sources(sources(entries), NOW);
    }

    /// Fetches what is due, as if now.
    fn due(&mut self, name: &str) -> Due {
        self.keeper.issuers.get_mut(name).unwrap().due = Some(Instant::now());
        let due = self.keeper.take_due(Instant::now());
        due.into_iter().find(|due| due.name == name).unwrap()
    }

    fn fetch(&mut self, name: &str, result: Result<KeySet, String>, now: i64) {
        let due = self.due(name);
        self.keeper.take(&due, result, now, &self.metrics);
    }

    fn report(&mut self, name: &str, now: i64) -> IssuerReport {
        self.keeper.show(now, &self.metrics);
        self.keeper.reports.lock().unwrap()[name].clone()
    }

    fn alerts(&mut self, name: &str, now: i64) -> Vec<Alert> {
        self.report(name, now).alerts.iter().map(|raised| raised.alert).collect()
    }

    fn ask(&mut self, issuer: &str, key_id: &str, now: Instant) -> Receiver<Option<u64>> {
        self.ask_for("sales/orders", issuer, key_id, now)
    }

    fn ask_for(&mut self, workload: &str, issuer: &str, key_id: &str, now: Instant) -> Receiver<Option<u64>> {
        let (answer, answered) = oneshot::channel();
        let workload = workload.to_owned();
        let question = KeyQuestion { workload, issuer: issuer.into(), key_id: key_id.into(), answer };
        self.keeper.take_question(question, now, &self.metrics);
        answered
    }

    /// Hands out what is known, and answers.
    fn hand_out(&mut self) -> u64 {
        let version = self.keeper.ring().version;
        self.keeper.answer();
        version
    }

    fn restart(self) -> Self {
        let folder = self.folder.clone();
        drop(self);
        Self::open(&folder)
    }
}

#[test]
fn keys_that_are_written_in_the_rules_are_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("gitlab", source(KeySource::Inline(key_set("k1"))))]);
    assert_eq!(bench.keeper.ring.get("gitlab").unwrap().valid_until, NEVER);
    assert!(bench.keeper.ring.pending.is_empty());
    assert!(bench.keeper.take_due(Instant::now()).is_empty());
}

#[test]
fn an_issuer_that_was_never_reached_has_no_keys_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    assert!(bench.keeper.ring.pending.contains("google"));
    assert_eq!(bench.alerts("google", NOW), [], "it is being asked");
    bench.fetch("google", Err("no route".into()), NOW);
    assert!(bench.keeper.ring.get("google").is_none());
    assert!(bench.keeper.ring.pending.is_empty());
    let report = bench.report("google", NOW);
    assert_eq!(report.error.as_deref(), Some("no route"));
    assert!(report.next_fetch_at.is_some(), "it is asked again");
    assert_eq!(bench.alerts("google", NOW), [Alert::NoKeys]);
}

#[test]
fn an_issuer_that_no_rule_names_is_not_asked_until_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let unused = IssuerSource { used: false, ..url("/keys") };
    let inline = IssuerSource { used: false, ..source(KeySource::Inline(key_set("k1"))) };
    let mut bench = Bench::with(folder.path(), &[("google", unused), ("gitlab", inline)]);
    assert!(bench.keeper.take_due(Instant::now()).is_empty());
    assert!(bench.keeper.ring.pending.is_empty());
    assert!(bench.keeper.ring.get("gitlab").is_none());
    assert!(!bench.report("google", NOW).used);
    bench.set(&[("google", url("/keys"))]);
    assert_eq!(bench.keeper.take_due(Instant::now()).len(), 1);
}

#[test]
fn a_failure_keeps_the_last_known_good_keys_and_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    let first = key("k1");
    bench.fetch("google", document(&set(&[&first])), NOW);
    let known = bench.keeper.ring().clone();
    let twice = set(&[&key("k1"), &key("k1")]);
    let many: Vec<_> = (0..65).map(|id| key(&format!("k{id}"))).collect();
    let many = set(&many.iter().collect::<Vec<_>>());
    for failure in [
        Err("no route".to_owned()),
        document("<html>"),
        document(r#"{"keys":[]}"#),
        document(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
        document(&twice),
        document(&many),
    ] {
        bench.fetch("google", failure, NOW + 20 * 3_600);
        assert_eq!(bench.keeper.ring().version, known.version);
        assert!(bench.report("google", NOW).error.is_some());
    }
    let report = bench.report("google", NOW + 20 * 3_600);
    assert_eq!(
        (report.fetched_at, report.valid_until),
        (Some(NOW), known.get("google").map(|keys| keys.valid_until))
    );
    bench.fetch("google", document(&set(&[&first, &key("k2")])), NOW + 21 * 3_600);
    assert_eq!(ids(&bench, "google"), ["k1", "k2"]);
    assert!(bench.report("google", NOW).error.is_none());
}

#[test]
fn an_unreachable_issuer_is_announced_and_ends_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    bench.fetch("google", document(&key_set("k1")), NOW);
    let end = bench.keeper.ring.get("google").unwrap().valid_until;
    bench.fetch("google", Err("no route".into()), end - 2 * 3_600);
    assert_eq!(bench.alerts("google", end - 2 * 3_600), [Alert::KeysExpireSoon]);
    assert_eq!(bench.alerts("google", end), [Alert::KeysExpired]);
    bench.keeper.show(end, &bench.metrics);
    let text = bench.metrics.text();
    assert!(text.contains(r#"tidegate_issuer_alert{issuer="google",alert="keys_expired"} 1"#), "{text}");
    // The issuer says that nothing has changed, and that is enough.
    bench.fetch("google", unchanged(), end);
    assert_eq!(bench.alerts("google", end), []);
    assert_eq!(ids(&bench, "google"), ["k1"]);
    assert!(bench.keeper.ring.get("google").unwrap().valid_until > end);
}

#[test]
fn keys_come_go_and_change_under_the_same_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    let (one, two, another_two) = (key("k1"), key("k2"), key("k2"));
    bench.fetch("google", document(&set(&[&one])), NOW);
    bench.fetch("google", document(&set(&[&one, &two])), NOW + 100);
    assert_eq!(ids(&bench, "google"), ["k1", "k2"]);
    bench.fetch("google", document(&set(&[&two])), NOW + 200);
    assert_eq!(ids(&bench, "google"), ["k2"]);
    assert_eq!(bench.alerts("google", NOW + 200), []);
    assert_eq!(bench.report("google", NOW + 200).keys[0].since, NOW + 100);
    let before = bench.keeper.ring();
    bench.fetch("google", document(&set(&[&another_two])), NOW + 300);
    assert_eq!(ids(&bench, "google"), ["k2"]);
    assert_ne!(bench.keeper.ring().get("google"), before.get("google"));
    assert_eq!(bench.alerts("google", NOW + 300), [Alert::KeysReplacedWholly]);
    // It stays told when the next answer brings nothing new, and for a day only.
    bench.fetch("google", unchanged(), NOW + 400);
    assert_eq!(bench.alerts("google", NOW + 400), [Alert::KeysReplacedWholly]);
    assert_eq!(bench.alerts("google", NOW + 300 + 24 * 3_600), []);
}

#[test]
fn last_known_good_keys_survive_a_restart_with_their_end_and_age() {
    let folder = tempfile::tempdir().unwrap();
    let entries = [("google", url("/keys")), ("gitlab", source(KeySource::Inline(key_set("k2"))))];
    let mut before = Bench::with(folder.path(), &entries);
    before.fetch("google", document(&key_set("k1")), NOW - 1_000);
    let known = before.report("google", NOW);
    let ring = before.keeper.ring();
    let mut after = before.restart();
    after.keeper.set_sources(sources(&entries), NOW + 50 * 24 * 3_600);
    assert_eq!(after.keeper.ring.get("google"), ring.get("google"));
    assert_eq!(after.report("google", NOW).keys, known.keys);
    assert_eq!(after.report("gitlab", NOW).keys[0].since, NOW);
    let due = after.due("google");
    assert_eq!(due.known.unwrap().etag, "\"v1\"");
}

#[test]
fn keys_that_came_before_the_clock_was_set_back_do_not_outlive_those_that_come_now() {
    let folder = tempfile::tempdir().unwrap();
    let entries = [("google", url("/keys"))];
    let mut before = Bench::with(folder.path(), &entries);
    before.fetch("google", document(&key_set("k1")), NOW + 365 * 24 * 3_600);
    let mut after = before.restart();
    after.keeper.set_sources(sources(&entries), NOW);
    let valid_until = after.keeper.ring.get("google").unwrap().valid_until;
    assert!(valid_until - NOW <= 60 * 3_600, "{}", valid_until - NOW);
    let mut again = after.restart();
    again.keeper.set_sources(sources(&entries), NOW + 50 * 24 * 3_600);
    assert_eq!(again.keeper.ring.get("google").unwrap().valid_until, valid_until, "it was written down");
}

#[test]
fn keys_of_another_source_never_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    bench.fetch("google", document(&key_set("k1")), NOW);
    let late = bench.due("google");
    bench.set(&[("google", url("/other"))]);
    assert!(bench.keeper.ring.get("google").is_none());
    bench.keeper.take(&late, document(&key_set("k1")), NOW, &bench.metrics);
    assert!(bench.keeper.ring.get("google").is_none(), "an answer to the old question");
    assert!(bench.due("google").known.is_none(), "what is known is of another source");
    bench.keeper.show(NOW, &bench.metrics);
    bench.set(&[]);
    bench.keeper.show(NOW, &bench.metrics);
    assert!(bench.keeper.reports.lock().unwrap().is_empty());
    assert!(!bench.metrics.text().contains("google"), "{}", bench.metrics.text());
}

#[test]
fn what_does_not_concern_keys_changes_without_asking_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    bench.fetch("google", document(&key_set("k1")), NOW);
    bench.set(&[("google", IssuerSource { retire_at: NOW + 10, ..url("/keys") })]);
    assert_eq!(ids(&bench, "google"), ["k1"]);
    assert!(bench.keeper.take_due(Instant::now()).is_empty());
    assert_eq!(bench.alerts("google", NOW), [Alert::RetiresSoon]);
}

#[test]
fn a_filter_that_asks_makes_the_issuer_be_asked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    let one = key("k1");
    bench.fetch("google", document(&set(&[&one])), NOW);
    bench.hand_out();
    let now = Instant::now();
    let mut first = bench.ask("google", "k2", now);
    let due = bench.keeper.take_due(Instant::now());
    assert_eq!(due.len(), 1);
    let mut second = bench.ask("google", "k2", now);
    let mut other = bench.ask("google", "k3", now);
    bench.hand_out();
    assert!(first.try_recv().is_err(), "it waits for the fetch");
    bench.keeper.take(&due[0], document(&set(&[&one, &key("k2")])), NOW, &bench.metrics);
    let version = bench.hand_out();
    assert_eq!(first.try_recv().unwrap(), Some(version));
    assert_eq!(second.try_recv().unwrap(), Some(version), "one fetch answers everybody");
    assert_eq!(other.try_recv().unwrap(), None);
    // Whoever asks while the news spread is answered without asking again.
    let mut late = bench.ask("google", "k2", now);
    bench.hand_out();
    assert_eq!(late.try_recv().unwrap(), Some(version));
    assert!(bench.keeper.take_due(Instant::now()).is_empty());
}

#[test]
fn invented_key_ids_do_not_flood_the_issuer() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    bench.fetch("google", document(&key_set("k1")), NOW);
    let start = Instant::now() + 2 * SPREADS_FOR;
    let mut fetches = 0;
    for tenth in 0..300 {
        let now = start + Duration::from_millis(100 * tenth);
        let mut answered = bench.ask("google", &format!("invented-{tenth}"), now);
        for due in bench.keeper.take_due(now) {
            fetches += 1;
            bench.keeper.take(&due, unchanged(), NOW, &bench.metrics);
        }
        bench.hand_out();
        assert_eq!(answered.try_recv().unwrap(), None, "{tenth}");
    }
    assert_eq!(fetches, 2 + 2, "two at once, then one every ten seconds");
    let text = bench.metrics.text();
    assert!(text.contains(r#"tidegate_key_lookups_total{reason="unknown"} 4"#), "{text}");
    assert!(text.contains(r#"tidegate_key_lookups_total{reason="limited"} 296"#), "{text}");
}

/// A workload whose filters are sent tokens with invented key ids.
#[test]
fn a_workload_that_asks_without_end_leaves_fetches_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    let one = key("k1");
    bench.fetch("google", document(&set(&[&one])), NOW);
    let now = Instant::now() + 2 * SPREADS_FOR;
    for number in 0..1_000 {
        drop(bench.ask_for("sales/greedy", "google", &format!("invented-{number}"), now));
        for due in bench.keeper.take_due(now) {
            bench.keeper.take(&due, unchanged(), NOW, &bench.metrics);
        }
    }
    bench.hand_out();
    let mut greedy = bench.ask_for("sales/greedy", "google", "k2", now);
    bench.hand_out();
    assert_eq!(greedy.try_recv().unwrap(), None, "it has used up its share");
    let mut answered = bench.ask("google", "k2", now);
    let due = bench.keeper.take_due(now);
    bench.keeper.take(&due[0], document(&set(&[&one, &key("k2")])), NOW, &bench.metrics);
    let version = bench.hand_out();
    assert_eq!(answered.try_recv().unwrap(), Some(version), "somebody else has theirs");
}

#[test]
fn the_same_id_with_another_key_is_found_by_asking() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    bench.fetch("google", document(&key_set("k1")), NOW);
    let known = bench.hand_out();
    let now = Instant::now() + 2 * SPREADS_FOR;
    let mut answered = bench.ask("google", "k1", now);
    let due = bench.keeper.take_due(now);
    bench.keeper.take(&due[0], document(&key_set("k1")), NOW, &bench.metrics);
    assert!(bench.hand_out() > known);
    assert_eq!(answered.try_recv().unwrap(), Some(known + 1));
}

#[test]
fn nobody_is_asked_for_keys_that_are_written_in_the_rules_or_of_unknown_issuers() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("gitlab", source(KeySource::Inline(key_set("k1"))))]);
    for (issuer, key_id) in [("gitlab", "k2"), ("nobody", "k1")] {
        let mut answered = bench.ask(issuer, key_id, Instant::now());
        bench.hand_out();
        assert_eq!(answered.try_recv().unwrap(), None);
    }
    assert!(bench.keeper.take_due(Instant::now()).is_empty());
}

#[test]
fn a_token_without_a_key_id_is_helped_by_a_change_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::with(folder.path(), &[("google", url("/keys"))]);
    bench.fetch("google", document(&key_set("k1")), NOW);
    let later = Instant::now() + 2 * SPREADS_FOR;
    bench.keeper.issuers.get_mut("google").unwrap().changed_at = None;
    for (answer, expected) in [(unchanged(), false), (document(&key_set("k2")), true)] {
        let mut answered = bench.ask("google", "", later);
        let due = bench.keeper.take_due(later);
        bench.keeper.take(&due[0], answer, NOW, &bench.metrics);
        bench.hand_out();
        assert_eq!(answered.try_recv().unwrap().is_some(), expected);
    }
}

#[test]
fn an_older_spiffe_bundle_is_never_taken_and_an_empty_one_withdraws_all_keys() {
    let folder = tempfile::tempdir().unwrap();
    let spiffe = IssuerSource { pack: PackKind::Spiffe, ..url("/bundle") };
    let mut bench = Bench::with(folder.path(), &[("batch", spiffe.clone())]);
    let bundle = |ids: &[&str], sequence: u64| {
        let key = |id: &&str| {
            let mut key = key(id);
            key["use"] = "jwt-svid".into();
            key
        };
        let keys: Vec<_> = ids.iter().map(key).collect();
        document(
            &serde_json::json!({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 3_600})
                .to_string(),
        )
    };
    bench.fetch("batch", bundle(&["k1"], 7), NOW);
    let due = bench.report("batch", NOW).next_fetch_at.unwrap() - NOW;
    assert!((3_200..=3_600).contains(&due), "{due}");
    bench.fetch("batch", bundle(&["k0"], 6), NOW + 10);
    assert_eq!(ids(&bench, "batch"), ["k1"]);
    let error = bench.report("batch", NOW).error.unwrap();
    assert!(error.contains("`spiffe_sequence` is 6, and was 7"), "{error}");
    // Nor after a restart.
    let mut bench = bench.restart();
    bench.set(&[("batch", spiffe)]);
    bench.fetch("batch", bundle(&["k0"], 6), NOW + 20);
    assert_eq!(ids(&bench, "batch"), ["k1"]);
    bench.fetch("batch", bundle(&["k1", "k2"], 8), NOW + 30);
    assert_eq!(ids(&bench, "batch"), ["k1", "k2"]);
    bench.fetch("batch", bundle(&[], 9), NOW + 40);
    assert!(ids(&bench, "batch").is_empty());
    assert_eq!(bench.alerts("batch", NOW + 40), [Alert::NoKeys, Alert::KeysReplacedWholly]);
}

/// Everything that a server may do wrong, one after the other.
#[tokio::test]
async fn a_hostile_issuer_changes_nothing_but_its_own_report() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let good = Server::start().await;
    let authorities = [server.authority.clone(), good.authority.clone()];
    let fetcher = Fetcher::new(&authorities, AddressGuard::new(true, [])).unwrap();
    let fetcher = fetcher.with_patience(Duration::from_millis(500));
    let metadata = |issuer: &str, jwks_uri: &str| {
        server.answer(
            "/.well-known/openid-configuration",
            &serde_json::json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string(),
        );
    };
    let (name, keys) = (server.url(""), server.url("/keys"));
    let document = key_set("k1");
    let restore = || {
        metadata(&name, &keys);
        server.answer("/keys", &document);
    };
    restore();
    good.answer("/keys", &key_set("g1"));
    let entries = [
        ("hostile", source(KeySource::Discovery(name.clone()))),
        ("good", source(KeySource::Url(good.url("/keys")))),
    ];
    let mut bench = Bench::with(folder.path(), &entries);
    for issuer in ["hostile", "good"] {
        let due = bench.due(issuer);
        let fetched = fetcher.keys(&due.source.keys, None).await.map_err(|error| error.to_string());
        bench.keeper.take(&due, fetched, NOW, &bench.metrics);
    }
    let known = bench.keeper.ring();
    assert_eq!((ids(&bench, "hostile"), ids(&bench, "good")), (vec!["k1".into()], vec!["g1".into()]));

    let huge = format!("{{\"keys\": [\"{}\"]}}", "x".repeat(10_000_000));
    let many: Vec<_> = (0..65).map(|id| key(&format!("k{id}"))).collect();
    let many = set(&many.iter().collect::<Vec<_>>());
    let twice = set(&[&key("k1"), &key("k1")]);
    let private =
        r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "d": "AAAA", "x": "AA", "y": "AA"}]}"#;
    let duplicate = document.replacen("\"kid\"", "\"kid\":\"k0\",\"kid\"", 1);
    type Wrong<'a> = (&'a str, Box<dyn Fn() + 'a>, &'a str);
    let wrong: Vec<Wrong<'_>> = vec![
        (
            "down",
            Box::new(|| server.answer_raw("/keys", "503 Down\r\ncontent-length: 0\r\n\r\n")),
            "answered 503",
        ),
        ("silent", Box::new(|| server.answer_raw("/keys", "")), "no complete answer"),
        (
            "metadata is silent",
            Box::new(|| server.answer_raw("/.well-known/openid-configuration", "")),
            "no complete",
        ),
        ("10 MB", Box::new(|| server.answer("/keys", &huge)), "more than"),
        (
            "10 MB of metadata",
            Box::new(|| server.answer("/.well-known/openid-configuration", &huge)),
            "more than",
        ),
        (
            "redirect to another host",
            Box::new(|| server.redirect("/keys", &good.url("/keys"))),
            "another host",
        ),
        (
            "redirect to metadata services",
            Box::new(|| server.redirect("/keys", "http://169.254.169.254/computeMetadata/v1/")),
            "another host",
        ),
        ("redirects in a circle", Box::new(|| server.redirect("/keys", "/keys")), "as many redirects"),
        ("garbage", Box::new(|| server.answer("/keys", "<html>it works!</html>")), "key set"),
        (
            "not UTF-8",
            Box::new(|| server.answer_raw("/keys", "200 OK\r\ncontent-length: 0\r\n\r\n")),
            "key set",
        ),
        ("empty set", Box::new(|| server.answer("/keys", r#"{"keys": []}"#)), "empty"),
        ("oversized set", Box::new(|| server.answer("/keys", &many)), "more than 64 keys"),
        ("duplicate kid", Box::new(|| server.answer("/keys", &twice)), "same `kid`"),
        ("duplicate member", Box::new(|| server.answer("/keys", &duplicate)), "key set"),
        ("private key", Box::new(|| server.answer("/keys", private)), "private key"),
        ("unasked 304", Box::new(|| server.answer_raw("/keys", "304 Not Modified\r\n\r\n")), "answered 304"),
        (
            "another issuer",
            Box::new(|| metadata("https://accounts.google.com", &keys)),
            "says that the issuer is",
        ),
        ("keys over http", Box::new(|| metadata(&name, "http://localhost/keys")), "https only"),
        ("keys at a private address", Box::new(|| metadata(&name, "https://10.0.0.1/keys")), "is private"),
        (
            "keys at a metadata service",
            Box::new(|| metadata(&name, "https://169.254.169.254/")),
            "never asked",
        ),
    ];
    for (what, misbehave, expected) in &wrong {
        restore();
        misbehave();
        let due = bench.due("hostile");
        let fetched =
            fetcher.keys(&due.source.keys, due.known.as_ref()).await.map_err(|error| error.to_string());
        bench.keeper.take(&due, fetched, NOW + 3_600, &bench.metrics);
        let (report, other) = (bench.report("hostile", NOW), bench.report("good", NOW));
        let error = report.error.unwrap_or_else(|| panic!("{what}"));
        assert!(error.contains(expected), "{what}: {error}");
        assert_eq!((other.error, other.alerts), (None, vec![]), "{what}");
        assert!(Arc::ptr_eq(&bench.keeper.ring(), &known), "{what}: the keys are others");
    }
    assert_eq!(good.asked("/keys"), 1);
    let text = bench.metrics.text();
    let failed = format!(r#"tidegate_key_fetches_total{{issuer="hostile",result="failed"}} {}"#, wrong.len());
    assert!(text.contains(&failed), "{text}");
    assert!(!text.contains(r#"issuer="good",result="failed""#), "{text}");
    println!("{} ways to misbehave, nothing changed", wrong.len());

    restore();
    let due = bench.due("hostile");
    let fetched = fetcher.keys(&due.source.keys, None).await.map_err(|error| error.to_string());
    bench.keeper.take(&due, fetched, NOW + 7_200, &bench.metrics);
    assert_eq!(bench.report("hostile", NOW).error, None);
}
