//! A candidate beside the rules in force.

use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::{
    BodyField, ClaimRef, Condition, Effect, Mode, Operand, OperationModel, PolicyModel, Test, TextTest,
};
use tidegate_proto::v1::subscribe_request::Message;

use super::*;

const CANDIDATES: [Metric; 4] = [
    Metric::CandidateCompared,
    Metric::CandidateWouldAllow,
    Metric::CandidateWouldDeny,
    Metric::CandidateUnknown,
];

/// A plugin that has got this, with its stream open.
fn with(bundle: &pb::Bundle) -> (Plugin, Fake) {
    let (mut plugin, host) = (waiting(""), request("/"));
    plugin.on_opened(3, &host);
    deliver(&mut plugin, bundle, 5, &host);
    plugin.take_messages();
    (plugin, host)
}

/// Compared, would allow, would deny, unknown.
fn counted(plugin: &Plugin) -> [u64; 4] {
    CANDIDATES.map(|metric| plugin.counters.total(metric))
}

fn keys() -> pb::Section {
    keys_section(oauth(&[("a", 7)]))
}

fn open() -> PolicyModel {
    let mut model = model();
    model.guards.clear();
    model
}

fn closed() -> PolicyModel {
    let mut model = model();
    model.rules[0].effect = Effect::Deny;
    model
}

fn in_shadow() -> PolicyModel {
    let mut model = closed();
    model.guards[0].mode = Mode::Shadow;
    model
}

/// The rule holds of whom the directory lists.
fn listing(token: bool) -> PolicyModel {
    let mut model = if token { token_model(|_| {}) } else { token_model(|rule| rule.effect = Effect::Deny) };
    model.directories = vec!["jobs".into()];
    model.rules[0].from[0].condition = Condition::Claim(ClaimRef { issuer: 0, slot: 0 }, Test::Listed(0));
    model
}

fn reading(effect: Effect) -> PolicyModel {
    let mut model = model();
    model.rules[0].effect = effect;
    model.rules[0].to = Some(vec![OperationModel {
        condition: Condition::Text(
            Operand::Body(BodyField::Json(vec![vec!["topic".into()]])),
            TextTest::Prefix("orders-".into()),
        ),
        ..OperationModel::default()
    }]);
    model
}

fn directory() -> pb::Section {
    let jobs = DirectoryModel { name: "jobs".into(), ids: vec!["worker-1".into()], fresh_until: NOW + 600 };
    section(pb::SectionKind::Directory, encode_directories(&[jobs]))
}

/// Bundles' sections of every kind: what can be in force, and what can be a candidate.
fn sets() -> Vec<Vec<pb::Section>> {
    let plain = [model(), closed(), in_shadow(), reading(Effect::Allow), reading(Effect::Deny)];
    let mut sets: Vec<Vec<pb::Section>> = plain.iter().map(|model| vec![rules_of(model)]).collect();
    sets.push(vec![rules_of(&token_model(|_| {})), keys()]);
    sets.push(vec![rules_of(&token_model(|rule| rule.effect = Effect::Deny)), keys()]);
    sets.push(vec![rules_of(&listing(true)), keys(), directory()]);
    sets.push(vec![rules_of(&listing(true)), keys()]);
    sets.push(vec![rules_of(&listing(false)), keys()]);
    sets
}

/// What nobody may use, and an unguarded set.
fn odd() -> Vec<Vec<pb::Section>> {
    vec![
        vec![rules_of(&open())],
        vec![section(pb::SectionKind::Rules, b"junk".to_vec())],
        vec![rules_of(&token_model(|_| {}))],
        vec![rules_of(&model()), section(pb::SectionKind::Directory, b"junk".to_vec())],
        vec![keys()],
    ]
}

fn requests() -> Vec<Fake> {
    let bearing = |path: &str, token: &str| {
        Fake::with_headers(&[
            (":method", "GET"),
            (":path", path),
            (":authority", "orders.example"),
            ("authorization", &format!("Bearer {token}")),
        ])
        .with_peer(WORKER)
    };
    let good = token("a", 7, NOW + 60, "1");
    vec![
        request("/v1/orders").with_peer(WORKER),
        request("/v1/orders"),
        request("/v2").with_peer(WORKER),
        request("/v1/%2e%2e").with_peer(WORKER),
        bearing("/v1/orders", &good),
        bearing("/v1/orders", &good),
        bearing("/v2", &good),
        bearing("/v1/orders", &token("b", 8, NOW + 60, "2")),
        bearing("/v1/orders", &token("a", 8, NOW + 60, "3")),
        bearing("/v1/orders", &token("a", 7, NOW - 60, "4")),
        bearing("/v1/orders", "junk"),
    ]
}

/// "Never influencing the request": the same answers, the same questions, the same charges, whatever the candidate is.
#[test]
fn with_any_candidate_everything_is_answered_as_without() {
    let outcome = |plugin: &mut Plugin, requests: &[Fake]| {
        let mut told = Vec::new();
        for whole in [true, false] {
            for (context, host) in (0..).zip(requests) {
                host.removed.borrow_mut().clear();
                let verdict = plugin.on_request(context, whole, host);
                let messages = answers(plugin.take_messages());
                let asked: Vec<_> =
                    messages.into_iter().filter(|one| !matches!(one, Message::Receipt(_))).collect();
                told.push((verdict, host.removed.borrow().clone(), asked));
                plugin.forget(context);
            }
        }
        let counts = Metric::ALL.into_iter().filter(|metric| {
            !CANDIDATES.contains(metric)
                // Its own checks are counted as what they are.
                && !matches!(metric, Metric::HostSignatures | Metric::FallbackSignatures)
                // And what differs is recorded.
                && *metric != Metric::Records
        });
        let counts: Vec<(Metric, u64)> =
            counts.map(|metric| (metric, plugin.counters.total(metric))).collect();
        (told, counts, plugin.budget.borrow_mut().is_strained(0))
    };
    let mut differences = 0;
    for (at, enforced) in sets().into_iter().enumerate() {
        let (mut alone, _) = with(&bundle_of(5, enforced.clone()));
        let expected = outcome(&mut alone, &requests());
        assert_eq!(counted(&alone), [0; 4]);
        for (other, candidate) in sets().into_iter().chain(odd()).enumerate() {
            let (mut beside, _) = with(&bundle_with_candidate(5, enforced.clone(), candidate));
            assert_eq!(beside.installed().unwrap().manifest.revision, (1, 5), "{at} beside {other}");
            assert_eq!(outcome(&mut beside, &requests()), expected, "{at} beside {other}");
            let [compared, allow, deny, unknown] = counted(&beside);
            assert!(allow + deny + unknown <= compared, "{at} beside {other}");
            differences += allow + deny + unknown;
        }
    }
    assert!(differences > 100, "{differences}: the candidates have to differ");
}

#[test]
fn it_is_compared_of_each_request_however_alike_they_are() {
    let bundle = bundle_with_candidate(5, vec![rules_of(&model())], vec![rules_of(&closed())]);
    let (mut plugin, _) = with(&bundle);
    let headers = [(":method", "GET"), (":path", "/v1/orders"), (":authority", "orders.example")];
    let host = Fake::with_headers(&headers).with_peer(WORKER);
    host.drawn.set(Some(101));
    (0..10).for_each(|id| assert_eq!(plugin.on_request(id, true, &host), Verdict::Continue));
    assert_eq!(counted(&plugin), [10, 0, 10, 0]);
}

#[test]
fn what_it_would_do_otherwise_is_counted_and_nothing_else() {
    let rules = |model: &PolicyModel| vec![rules_of(model)];
    let tokens = |model: &PolicyModel| vec![rules_of(model), keys()];
    let worker = || request("/v1/orders").with_peer(WORKER);
    let bearing = |key_id: &str, seed| {
        Fake::with_headers(&[
            (":method", "GET"),
            (":path", "/v1/orders"),
            (":authority", "orders.example"),
            ("authorization", &format!("Bearer {}", token(key_id, seed, NOW + 60, "1"))),
        ])
        .with_peer(WORKER)
    };
    for (enforced, candidate, host, expected) in [
        (rules(&model()), rules(&model()), worker(), [1, 0, 0, 0]),
        (rules(&model()), rules(&closed()), worker(), [1, 0, 1, 0]),
        (rules(&closed()), rules(&model()), worker(), [1, 1, 0, 0]),
        // A Guard in Shadow refuses nobody, and one that is not there neither.
        (rules(&model()), rules(&in_shadow()), worker(), [1, 0, 0, 0]),
        (rules(&model()), rules(&open()), request("/v2"), [1, 1, 0, 0]),
        (rules(&in_shadow()), rules(&closed()), worker(), [1, 0, 1, 0]),
        // Its tokens are verified for it.
        (rules(&model()), tokens(&token_model(|_| {})), worker(), [1, 0, 1, 0]),
        (rules(&model()), tokens(&token_model(|_| {})), bearing("a", 7), [1, 0, 0, 0]),
        (rules(&model()), tokens(&token_model(|_| {})), bearing("a", 8), [1, 0, 1, 0]),
        // Of a key that nobody fetched for it, of a directory that nobody reads for it, and of a body it can tell nothing.
        (rules(&model()), tokens(&token_model(|_| {})), bearing("b", 8), [1, 0, 0, 1]),
        (rules(&model()), tokens(&listing(true)), bearing("a", 7), [1, 0, 0, 1]),
        (rules(&model()), rules(&reading(Effect::Allow)), worker(), [1, 0, 0, 1]),
    ] {
        let (mut plugin, _) = with(&bundle_with_candidate(5, enforced, candidate));
        let whole = expected != [1, 0, 0, 1];
        plugin.on_request(1, whole, &host);
        assert_eq!(counted(&plugin), expected);
        let Message::Receipt(receipt) = ({
            plugin.receipt_due_ms = 0;
            plugin.on_tick(&host);
            answers(plugin.take_messages()).remove(0)
        }) else {
            panic!("a receipt is due")
        };
        let counters = receipt.counters.unwrap();
        let told = [
            counters.candidate_compared,
            counters.candidate_would_allow,
            counters.candidate_would_deny,
            counters.candidate_unknown,
        ];
        assert_eq!(told, expected);
    }
}

#[test]
fn a_workload_that_nobody_guards_yet_has_a_candidate_as_well() {
    let open = vec![rules_of(&open())];
    let mut bundle = bundle_with_candidate(5, open, vec![rules_of(&model())]);
    let mut manifest = pb::Manifest::decode(bundle.manifest.unwrap().manifest.as_slice()).unwrap();
    manifest.coverage = pb::Coverage::Unguarded.into();
    bundle.manifest = Some(signed(&manifest, 1, "k1"));
    let (mut plugin, _) = with(&bundle);
    assert_eq!(plugin.on_request(1, true, &request("/v2")), Verdict::Continue);
    assert_eq!(plugin.on_request(2, true, &request("/v1/orders").with_peer(WORKER)), Verdict::Continue);
    assert_eq!(counted(&plugin), [2, 0, 1, 0]);
}

#[test]
fn a_body_that_is_read_for_the_rules_in_force_decides_for_the_candidate_too() {
    for (topic, expected) in [("orders-1", [1, 0, 1, 0]), ("other", [1, 1, 0, 0])] {
        let sections = vec![rules_of(&reading(Effect::Allow))];
        let mut candidate = reading(Effect::Deny);
        let mut allow = candidate.rules[0].clone();
        allow.id = "sales/all".into();
        (allow.effect, allow.to) = (Effect::Allow, None);
        candidate.rules.push(allow);
        let (mut plugin, _) = with(&bundle_with_candidate(5, sections, vec![rules_of(&candidate)]));
        plugin.scans = Scans::new(true);
        let host = Fake::with_headers(&[
            (":method", "GET"),
            (":path", "/v1/orders"),
            (":authority", "orders.example"),
            ("content-type", "application/json"),
        ])
        .with_peer(WORKER);
        assert_eq!(plugin.on_request(1, false, &host), Verdict::Continue);
        assert_eq!(counted(&plugin), [0; 4], "nothing is decided yet");
        plugin.on_body(1, format!("{{\"topic\": \"{topic}\"}}").as_bytes(), true, &host);
        assert_eq!(counted(&plugin), expected, "{topic}");
    }
}

/// Junk costs twice what it costs without, and no more: the candidate has a budget of its own.
#[test]
fn what_was_not_checked_is_not_checked_for_the_candidate() {
    let sections = vec![rules_of(&token_model(|_| {})), keys()];
    let (mut plugin, host) = with(&bundle_with_candidate(5, sections.clone(), sections));
    // So that nobody waits for another key.
    plugin.on_closed(&host);
    let mut statuses = Vec::new();
    for id in 0..200 {
        let junk = token("a", 8, NOW + 60, &id.to_string());
        let host = Fake::with_headers(&[
            (":method", "GET"),
            (":path", "/v1/orders"),
            (":authority", "orders.example"),
            ("authorization", &format!("Bearer {junk}")),
        ]);
        statuses.push(status(&plugin.on_request(id, true, &host)));
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused > 10, "{statuses:?}");
    let [compared, allow, deny, _] = counted(&plugin);
    assert_eq!((compared, allow, deny), (u64::try_from(200 - refused).unwrap(), 0, 0));
}

#[test]
fn a_section_that_is_there_does_not_travel_again_when_the_candidate_is_put_in_force() {
    let (old, new) = (vec![rules_of(&model())], vec![rules_of(&closed())]);
    let (mut plugin, host) = with(&bundle_with_candidate(5, old.clone(), new.clone()));
    let candidate = plugin.installed().unwrap().candidate.clone().unwrap().rules.unwrap();
    let bundle = bundle_of(6, new);
    let without_sections = pb::Bundle { sections: vec![], ..bundle };
    let messages = push(&without_sections, 6);
    assert_eq!(messages.len(), 1);
    plugin.on_message(&messages[0], &host);
    let installed = plugin.installed().unwrap();
    assert_eq!(installed.manifest.revision, (1, 6));
    assert!(std::rc::Rc::ptr_eq(installed.rules.as_ref().unwrap(), &candidate));
    assert!(installed.candidate.is_none() && !installed.lacks_candidate());
    assert_eq!(status(&plugin.on_request(1, true, &request("/v1/orders").with_peer(WORKER))), 403);
    assert_eq!(counted(&plugin), [0; 4]);
    // And back: what was in force as a candidate.
    deliver(&mut plugin, &bundle_with_candidate(7, vec![rules_of(&closed())], old), 7, &host);
    assert!(plugin.installed().unwrap().candidate.is_some());
}

#[test]
fn a_warm_start_without_its_candidate_is_enforced_and_gets_it_later() {
    let whole = bundle_with_candidate(5, vec![rules_of(&model())], vec![rules_of(&closed())]);
    let start = pb::Bundle { sections: vec![rules_of(&model())], ..whole.clone() };
    let host = request("/v1/orders").with_peer(WORKER);
    let config = Config::parse(&config(&format!("{STREAM}{}", warm(&start)))).unwrap();
    let mut plugin = Plugin::new(config, "pod".into(), &host, None);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(counted(&plugin), [0; 4]);
    plugin.on_opened(3, &host);
    plugin.take_messages();
    deliver(&mut plugin, &whole, 9, &host);
    let acknowledged = answers(plugin.take_messages());
    assert!(matches!(&acknowledged[0], Message::Ack(ack) if ack.nonce == 9), "{acknowledged:?}");
    assert_eq!(plugin.on_request(2, true, &host), Verdict::Continue);
    assert_eq!(counted(&plugin), [1, 0, 1, 0]);
    // A control plane that does not send it again is answered all the same, and so is one that sends what is there.
    for (nonce, bundle) in [(10, &whole), (11, &start)] {
        let without_sections = pb::Bundle { sections: vec![], ..bundle.clone() };
        plugin.on_message(&push(&without_sections, nonce)[0], &host);
        let acknowledged = answers(plugin.take_messages());
        assert!(matches!(&acknowledged[0], Message::Ack(ack) if ack.nonce == nonce), "{acknowledged:?}");
    }
}

#[test]
fn what_is_enforced_without_its_candidate_is_acknowledged_too_late_as_well() {
    let whole = bundle_with_candidate(5, vec![rules_of(&model())], vec![rules_of(&closed())]);
    let start = pb::Bundle { sections: vec![rules_of(&model())], ..whole.clone() };
    let host = request("/v1/orders").with_peer(WORKER);
    let config = Config::parse(&config(&format!("{STREAM}{}", warm(&start)))).unwrap();
    let mut plugin = Plugin::new(config, "pod".into(), &host, None);
    plugin.on_opened(3, &host);
    plugin.take_messages();
    host.wait(365 * 24 * 3_600_000);
    deliver(&mut plugin, &whole, 9, &host);
    let acknowledged = answers(plugin.take_messages());
    assert!(matches!(&acknowledged[0], Message::Ack(ack) if ack.nonce == 9), "{acknowledged:?}");
    assert!(plugin.installed().unwrap().lacks_candidate(), "nothing is installed so late");
}

#[test]
fn a_candidate_that_does_not_arrive_is_not_waited_for() {
    let (mut plugin, host) = with(&bundle(4));
    let junk = section(pb::SectionKind::Rules, b"junk".to_vec());
    deliver(&mut plugin, &bundle_with_candidate(5, vec![rules_of(&closed())], vec![junk.clone()]), 5, &host);
    assert!(plugin.installed().unwrap().lacks_candidate());
    assert!(host.logged.borrow().iter().any(|line| line.contains("candidate is not there")));
    // The control plane takes it for held, and sends nothing of it.
    let next = bundle_with_candidate(6, vec![rules_of(&model())], vec![junk]);
    let enforced = pb::Bundle { sections: vec![rules_of(&model())], ..next };
    deliver(&mut plugin, &enforced, 6, &host);
    assert_eq!(plugin.installed().unwrap().manifest.revision, (1, 6));
    assert_eq!(plugin.on_request(1, true, &request("/v1/orders").with_peer(WORKER)), Verdict::Continue);
}

fn recorded(plugin: &mut Plugin) -> Vec<pb::DecisionRecord> {
    let batches = plugin.take_batches();
    let batches = batches.iter().map(|batch| pb::ReportRequest::decode(batch.as_slice()).unwrap());
    batches.flat_map(|batch| batch.records).collect()
}

#[test]
fn what_it_would_do_otherwise_is_recorded_beside_what_was_done() {
    let deny = |id: &str| {
        let mut model = closed();
        model.rules[0].id = id.into();
        model
    };
    for (chance, (enforced, candidate, path, expected)) in (0..).zip([
        (
            model(),
            deny("sales/next"),
            "/v1/orders",
            Some((pb::Outcome::Deny, "denied_by_rule", "sales/next")),
        ),
        (closed(), model(), "/v1/orders", Some((pb::Outcome::Allow, "allowed_by_rule", "sales/read"))),
        (model(), reading(Effect::Allow), "/v1/orders", Some((pb::Outcome::Unspecified, "body_unread", ""))),
        (model(), deny("sales/next"), "/v2", None),
    ]) {
        let (mut plugin, _) =
            with(&bundle_with_candidate(5, vec![rules_of(&enforced)], vec![rules_of(&candidate)]));
        plugin.on_sink_opened(9);
        let host = request(path).with_peer(WORKER);
        // Also where it is drawn as a sample: it is recorded in any case.
        host.drawn.set(Some(chance));
        plugin.on_request(1, false, &host);
        let records = recorded(&mut plugin);
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(records[0].stands_for, 1);
        let told = records[0].candidate.as_ref();
        let told = told.map(|told| (told.outcome(), told.reason.as_str(), told.rule.as_str()));
        assert_eq!(told, expected);
    }
}

/// "What a rule demands to be recorded does not pass unless its record was kept": so nothing of a candidate takes that room.
#[test]
fn where_a_rule_demands_records_there_are_none_for_a_candidate() {
    let mut demanding = model();
    demanding.rules[0].audit = tidegate_engine::model::Audit::Required;
    let (mut plugin, _) =
        with(&bundle_with_candidate(5, vec![rules_of(&demanding)], vec![rules_of(&closed())]));
    plugin.on_sink_opened(9);
    let host = request("/v1/orders").with_peer(WORKER);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(counted(&plugin), [1, 0, 1, 0]);
    let records = recorded(&mut plugin);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].candidate, None);
}
