//! What of the decisions is recorded, and what never is.

use tidegate_engine::model::{Audit, Disclosure, RuleModel};

use super::*;
use crate::samples::SAMPLE;
use crate::strangers::{ONE_BY_ONE, TOGETHER};

/// A filter with the rule that demands a token, changed so; the stream that takes records is open.
fn world(change: impl FnOnce(&mut RuleModel)) -> Plugin {
    let (mut plugin, host) = (waiting(""), request("/v1/orders"));
    plugin.on_opened(3, &host);
    let sections = vec![rules_of(&token_model(change)), keys_section(oauth(&[("a", 7)]))];
    deliver(&mut plugin, &bundle_of(5, sections), 5, &host);
    plugin.on_sink_opened(9);
    plugin
}

/// A workload of the mesh that may do nothing, and is recorded each time.
fn other() -> Fake {
    request("/v1/orders").with_peer("spiffe://cluster.local/ns/etl/sa/other")
}

fn good() -> Fake {
    bearing(&token("a", 7, NOW + 300, "1")).with_peer(WORKER)
}

/// What was recorded since the last time, as it goes out.
fn batches(plugin: &mut Plugin) -> Vec<pb::ReportRequest> {
    let batches: Vec<_> = plugin.take_batches();
    let batches: Vec<_> =
        batches.iter().map(|batch| pb::ReportRequest::decode(batch.as_slice()).unwrap()).collect();
    for batch in &batches {
        plugin.on_acknowledged(&pb::ReportResponse { sequence: batch.sequence }.encode_to_vec());
    }
    batches
}

fn records(plugin: &mut Plugin) -> Vec<pb::DecisionRecord> {
    batches(plugin).into_iter().flat_map(|batch| batch.records).collect()
}

fn only(mut records: Vec<pb::DecisionRecord>) -> pb::DecisionRecord {
    assert_eq!(records.len(), 1, "{records:?}");
    records.remove(0)
}

#[test]
fn a_refusal_is_recorded_with_the_id_that_its_caller_saw() {
    let mut plugin = world(|_| {});
    let host = request("/v1/orders?secret=1#x").with_peer(WORKER);
    let Verdict::Refuse(refusal) = plugin.on_request(1, true, &host) else { panic!() };
    let record = only(records(&mut plugin));
    assert_eq!(record.decision_id, refusal.decision_id());
    assert_eq!(record.outcome(), pb::Outcome::Deny);
    assert_eq!(record.reason, "token_required");
    assert_eq!((record.method.as_str(), record.host.as_str()), ("GET", "orders.example"));
    assert_eq!(record.path, "/v1/orders");
    assert_eq!(record.peer, WORKER);
    assert_eq!(record.revision, Some(pb::Revision { epoch: 1, counter: 5 }));
    assert_eq!(record.manifest_sha256, plugin.installed().unwrap().manifest.digest);
    assert_eq!(record.time_ns, NOW * 1_000_000_000);
    assert_eq!((record.stands_for, record.ended), (1, false));
    assert!(record.claims.is_empty() && record.issuers.is_empty());
    assert_eq!(host.told.take(), [format!("deny token_required - {}", refusal.decision_id())]);
}

#[test]
fn an_access_log_hears_of_what_is_recorded() {
    let mut full = world(|rule| rule.audit = Audit::Full);
    let host = good();
    assert_eq!(full.on_request(1, true, &host), Verdict::Continue);
    let record = only(records(&mut full));
    assert_eq!(host.told.take(), [format!("allow allowed_by_rule sales/read {}", record.decision_id)]);

    host.wait(301_000);
    full.on_tick(&host);
    full.due(&host, |_| true);
    let ended = only(records(&mut full));
    assert_eq!(host.told.take(), [format!("ended token_expired - {}", ended.decision_id)]);

    let mut cold = waiting(", \"coldStart\": {\"holdMs\": 0, \"maxHeld\": 0}");
    let Verdict::Refuse(refusal) = cold.on_request(1, true, &host) else { panic!() };
    assert_eq!(host.told.take(), [format!("deny not_ready - {}", refusal.decision_id())]);
}

/// What says last in an access log is what happened.
#[test]
fn what_must_be_recorded_and_is_not_is_told_as_refused() {
    let (mut plugin, host) = (world(|rule| rule.audit = Audit::Required), good());
    let mut last = Verdict::Continue;
    for _ in 0..100_000 {
        last = plugin.on_request(4, true, &host);
        if last != Verdict::Continue {
            break;
        }
    }
    let Verdict::Refuse(refusal) = last else { panic!() };
    let told = host.told.take().pop().unwrap();
    assert_eq!(told, format!("deny audit_unavailable - {}", refusal.decision_id()));
}

/// Headers, and where they came from; the clock. Nothing else is asked or told of a request that is just allowed.
#[test]
fn what_is_not_recorded_costs_no_call() {
    let calls = |audit| {
        let mut plugin = world(|rule| rule.audit = audit);
        let host = good();
        host.drawn.set(Some(u64::from(SAMPLE) + 1));
        assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
        plugin.forget(1);
        host.calls.set(0);
        host.told.take();
        assert_eq!(plugin.on_request(2, true, &host), Verdict::Continue);
        (host.calls.get(), host.told.take().len())
    };
    let (sampled, full) = (calls(Audit::Sampled), calls(Audit::Full));
    assert_eq!(sampled, (3, 0));
    // The time that the record has, and what the access log is told.
    assert_eq!(full, (5, 1));
}

#[test]
fn every_refusal_is_counted_by_its_reason_without_a_call() {
    let mut plugin = world(|rule| rule.audit = Audit::Required);
    let expired = bearing(&token("a", 7, NOW - 900, "1")).with_peer(WORKER);
    for caller in [&expired, &expired, &request("/v1/orders").with_peer(WORKER)] {
        assert_eq!(status(&plugin.on_request(1, true, caller)), 401);
        assert!(caller.refusals.borrow().is_empty(), "a request pays no call for counts");
    }
    plugin.on_sink_closed(&expired);
    assert_eq!(status(&plugin.on_request(1, true, &good())), 503);
    let host = request("/");
    plugin.counters.flush(&host);
    let expected = [
        (Reason::TokenInvalid(TokenFault::Expired), 2),
        (Reason::TokenRequired, 1),
        (Reason::AuditUnavailable, 1),
    ];
    assert_eq!(host.refusals.take(), expected.into());
    assert_eq!(
        (plugin.counters.total(Metric::Denied), plugin.counters.total(Metric::Unavailable)),
        (3, 1),
        "the same by what became of them"
    );
    plugin.counters.flush(&host);
    assert!(host.refusals.borrow().is_empty(), "what was counted is not counted again");
}

#[test]
fn a_flood_of_strangers_is_recorded_together_and_known_callers_each() {
    let mut plugin = world(|_| {});
    let stranger = request("/v1/orders");
    for (host, expected) in [(&other(), vec![1; 228]), (&stranger, [vec![1; 100], vec![64; 2]].concat())] {
        let mut told = Vec::new();
        for context in 0..ONE_BY_ONE + 2 * TOGETHER {
            assert_eq!(status(&plugin.on_request(context, true, host)), 403);
            told.extend(records(&mut plugin).into_iter().map(|record| record.stands_for));
        }
        assert_eq!(told, expected);
        assert_eq!(host.told.take().len(), expected.len(), "what is recorded is what access logs tell of");
    }
    assert_eq!(plugin.counters.total(Metric::Denied), 456, "each is counted");
    assert_eq!(plugin.counters.total(Metric::RecordsDropped), 0);
}

#[test]
fn what_a_rule_wants_in_full_is_recorded_with_who_called() {
    let mut plugin = world(|rule| rule.audit = Audit::Full);
    assert_eq!(plugin.on_request(1, true, &good()), Verdict::Continue);
    let record = only(records(&mut plugin));
    assert_eq!((record.outcome(), record.rule.as_str()), (pb::Outcome::Allow, "sales/read"));
    assert_eq!(record.issuers, ["oauth"]);
    let claims: Vec<_> =
        record.claims.iter().map(|claim| (claim.claim.as_str(), claim.values.as_slice())).collect();
    assert!(claims.contains(&("sub", &["worker-1".to_owned()][..])), "{claims:?}");
    assert_eq!(record.decision_id.len(), 14);
    assert_eq!(plugin.counters.total(Metric::Records), 1);
}

#[test]
fn of_the_rest_samples_are_recorded_that_say_for_how_many_they_stand() {
    let mut plugin = world(|_| {});
    let host = good();
    for context in 1..=3 {
        host.drawn.set(Some(u64::from(context % 3 == 0) ^ 1));
        assert_eq!(plugin.on_request(context, true, &host), Verdict::Continue);
    }
    let batch = batches(&mut plugin).remove(0);
    assert_eq!((batch.records.len(), batch.unsampled, batch.dropped), (1, 2, 0));
    assert_eq!(batch.records[0].stands_for, SAMPLE);
}

#[test]
fn of_a_rule_that_allows_very_many_fewer_are_recorded_that_stand_for_more() {
    let (mut plugin, host) = (world(|_| {}), good());
    plugin.on_tick(&host);
    host.drawn.set(Some(0));
    for context in 0..200 {
        assert_eq!(plugin.on_request(context, true, &host), Verdict::Continue);
        assert_eq!(only(records(&mut plugin)).stands_for, SAMPLE);
        plugin.forget(context);
    }
    host.wait(1_000);
    plugin.on_tick(&host);
    for (random, expected) in [(1, vec![]), (100, vec![]), (300, vec![]), (400, vec![400]), (0, vec![400])] {
        host.drawn.set(Some(random));
        assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
        let told: Vec<u32> = records(&mut plugin).iter().map(|record| record.stands_for).collect();
        assert_eq!(told, expected, "{random}");
    }
    // Of new rules nothing is known.
    let sections = vec![rules_of(&token_model(|_| {})), keys_section(oauth(&[("a", 7)]))];
    deliver(&mut plugin, &bundle_of(9, sections), 9, &host);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(only(records(&mut plugin)).stands_for, SAMPLE);
}

#[test]
fn of_requests_that_waited_samples_are_recorded_as_well() {
    let (mut plugin, host) = (waiting(""), request("/v1/orders").with_peer(WORKER));
    plugin.on_opened(3, &host);
    plugin.on_sink_opened(9);
    for drawn in [1, 0] {
        host.drawn.set(Some(drawn));
        plugin.state = State::NotReady;
        assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
        deliver(&mut plugin, &bundle(5 + drawn), 5 + drawn, &host);
        assert_eq!(plugin.due(&host, |_| true), [(1, Verdict::Continue)]);
        let told: Vec<u32> = records(&mut plugin).iter().map(|record| record.stands_for).collect();
        assert_eq!(told, if drawn == 0 { vec![SAMPLE] } else { vec![] });
    }
}

#[test]
fn nothing_passes_unrecorded_that_a_rule_demands_to_be_recorded() {
    let (mut plugin, host) = (world(|rule| rule.audit = Audit::Required), good());
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(only(records(&mut plugin)).outcome(), pb::Outcome::Allow);

    plugin.on_sink_closed(&host);
    let verdict = plugin.on_request(2, true, &host);
    assert_eq!((status(&verdict), reason(&verdict).as_str()), (503, "audit_unavailable"));
    plugin.on_sink_opened(10);
    assert_eq!(only(records(&mut plugin)).reason, "audit_unavailable");
    assert_eq!(plugin.on_request(3, true, &host), Verdict::Continue);

    // Nobody takes them.
    let mut passed = 0;
    while plugin.on_request(4, true, &host) == Verdict::Continue {
        passed += 1;
        assert!(passed < 100_000);
    }
    assert_eq!(reason(&plugin.on_request(4, true, &host)), "audit_unavailable");
    let recorded = records(&mut plugin);
    assert!(!recorded.is_empty());
    assert_eq!(plugin.on_request(5, true, &host), Verdict::Continue);
    // Others are not held up by it.
    let mut plugin = world(|rule| rule.audit = Audit::Full);
    plugin.on_sink_closed(&host);
    for context in 0..20_000 {
        assert_eq!(plugin.on_request(context, true, &host), Verdict::Continue);
        plugin.forget(context);
    }
    assert!(plugin.counters.total(Metric::RecordsDropped) > 0);
}

/// Whoever may do nothing can be refused as often as it likes, and nobody takes records for a while.
#[test]
fn junk_that_is_refused_takes_no_room_from_what_a_rule_requires() {
    let (mut plugin, junk) = (world(|rule| rule.audit = Audit::Required), other());
    let mut refused = 0_usize;
    while plugin.counters.total(Metric::RecordsDropped) < 1_000 {
        assert_eq!(status(&plugin.on_request(1, true, &junk)), 403);
        refused += 1;
        assert!(refused < 100_000);
    }
    let mut allowed = 0;
    for context in 2..502 {
        assert_eq!(plugin.on_request(context, true, &good()), Verdict::Continue, "{context}");
        assert_eq!(status(&plugin.on_request(1, true, &junk)), 403);
        allowed += 1;
        refused += 1;
    }
    let (mut told, mut seen) = (0, Vec::new());
    loop {
        let more = batches(&mut plugin);
        if more.is_empty() {
            break;
        }
        for batch in more {
            told += usize::try_from(batch.dropped).unwrap();
            seen.extend(batch.records);
        }
    }
    let required = seen.iter().filter(|record| record.audit() == pb::Audit::Required);
    assert_eq!(required.count(), allowed);
    assert_eq!(seen.len() + told, refused + allowed, "what was dropped is told");
}

#[test]
fn a_record_says_how_completely_it_is_to_be_recorded() {
    for (audit, expected) in [
        (Audit::Required, pb::Audit::Required),
        (Audit::Full, pb::Audit::Full),
        (Audit::Sampled, pb::Audit::Sampled),
    ] {
        let (mut plugin, host) = (world(|rule| rule.audit = audit), good());
        host.drawn.set(Some(0));
        assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
        let record = only(records(&mut plugin));
        let stands_for = if audit == Audit::Sampled { SAMPLE } else { 1 };
        assert_eq!((record.audit(), record.stands_for), (expected, stands_for));
        assert_eq!(status(&plugin.on_request(2, true, &request("/v1/orders"))), 403);
        let refusal = only(records(&mut plugin));
        assert_eq!((refusal.audit(), refusal.stands_for), (pb::Audit::Full, 1), "a refusal");
    }
}

/// With `TIDEGATE_LONG=1` 10 000 requests a second for a minute, while nobody takes records.
#[test]
fn while_nobody_takes_records_requests_go_on_and_every_record_comes_later_or_is_counted() {
    let requests: u64 = if std::env::var_os("TIDEGATE_LONG").is_some() { 600_000 } else { 20_000 };
    let mut plugin = world(|rule| rule.audit = Audit::Full);
    let (host, junk) = (good(), other());
    plugin.on_sink_closed(&host);
    for number in 0..requests {
        let context = 2 + u32::try_from(number).unwrap();
        if number.is_multiple_of(10) {
            assert_eq!(status(&plugin.on_request(context, true, &junk)), 403);
        } else {
            assert_eq!(plugin.on_request(context, true, &host), Verdict::Continue);
            plugin.forget(context);
        }
    }
    plugin.on_sink_opened(10);
    let (mut came, mut dropped, mut in_full) = (0, 0, 0);
    loop {
        let more = batches(&mut plugin);
        if more.is_empty() {
            break;
        }
        for batch in more {
            came += u64::try_from(batch.records.len()).unwrap();
            (dropped, in_full) = (dropped + batch.dropped, in_full + batch.dropped_in_full);
        }
    }
    assert_eq!((came + dropped, in_full), (requests, dropped));
    assert!(came > 1_000 && dropped > 1_000, "{came} came, {dropped} were dropped");
}

#[test]
fn a_stream_for_required_records_is_wanted_before_the_first_request() {
    let host = request("/");
    for (audit, wanted) in [(Audit::Required, true), (Audit::Full, false)] {
        let (mut plugin, sections) = (waiting(""), |audit| {
            vec![rules_of(&token_model(|rule| rule.audit = audit)), keys_section(oauth(&[("a", 7)]))]
        });
        plugin.on_opened(3, &host);
        deliver(&mut plugin, &bundle_of(5, sections(audit)), 5, &host);
        assert_eq!(plugin.wants_sink(&host), wanted);
    }
}

#[test]
fn without_a_control_plane_nothing_is_recorded_and_what_must_be_is_refused() {
    for (audit, expected) in [(Audit::Full, 200), (Audit::Required, 503)] {
        let sections =
            vec![rules_of(&token_model(|rule| rule.audit = audit)), keys_section(oauth(&[("a", 7)]))];
        let config = Config::parse(&config(&warm(&bundle_of(5, sections)))).unwrap();
        let mut plugin = Plugin::new(config, "pod".into(), &request("/"), None);
        assert_eq!(status(&plugin.on_request(1, true, &good())), expected);
        assert_eq!(status(&plugin.on_request(2, true, &request("/v1/orders"))), 403);
        assert!(!plugin.wants_sink(&request("/")));
        plugin.on_sink_opened(9);
        assert_eq!(batches(&mut plugin), []);
    }
}

#[test]
fn what_one_request_proved_is_not_said_of_the_next() {
    let mut plugin = world(|rule| rule.audit = Audit::Full);
    let host = good();
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(only(records(&mut plugin)).issuers, ["oauth"]);
    // A clock that is wrong refuses before tokens are looked at.
    let forged = bearing(&token("a", 8, NOW + 300, "1")).with_peer(WORKER);
    forged.now_ms.set(forged.now_ms.get() - 600_000);
    assert_eq!(reason(&plugin.on_request(2, true, &forged)), "clock_wrong");
    let record = records(&mut plugin).pop().unwrap();
    assert_eq!(record.reason, "clock_wrong");
    assert!(record.issuers.is_empty() && record.claims.is_empty(), "{record:?}");
}

#[test]
fn the_end_of_what_was_allowed_is_recorded() {
    let mut plugin = world(|rule| rule.audit = Audit::Full);
    let host = good();
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    records(&mut plugin);
    host.wait(301_000);
    plugin.on_tick(&host);
    let ended = plugin.due(&host, |_| true);
    let Verdict::Refuse(refusal) = &ended[0].1 else { panic!() };
    let record = only(records(&mut plugin));
    assert!(record.ended);
    assert_eq!(record.decision_id, refusal.decision_id());
    assert_eq!((record.outcome(), record.reason.as_str()), (pb::Outcome::Deny, "token_expired"));
    assert_eq!(record.path, "/v1/orders");
}

/// Other rules are pushed.
fn push(plugin: &mut Plugin, counter: u64, change: impl FnOnce(&mut RuleModel), host: &Fake) {
    let sections = vec![rules_of(&token_model(change)), keys_section(oauth(&[("a", 7)]))];
    deliver(plugin, &bundle_of(counter, sections), counter, host);
    assert_eq!(plugin.installed().unwrap().manifest.revision, (1, counter));
}

#[test]
fn what_goes_on_by_another_rule_is_recorded_again_and_only_then() {
    let named = |id: &str, audit| {
        let id = id.to_owned();
        move |rule: &mut RuleModel| (rule.id, rule.audit) = (id, audit)
    };
    let mut plugin = world(named("sales/read", Audit::Sampled));
    let host = good();
    host.drawn.set(Some(1));
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    let mut counter = 5;
    let mut recorded_by = |plugin: &mut Plugin, id: &str, audit| {
        counter += 1;
        push(plugin, counter, named(id, audit), &host);
        host.told.take();
        let ended = plugin.due(&host, |_| true).len();
        let records = records(plugin);
        let told = |record: &pb::DecisionRecord| {
            format!("allow allowed_by_rule {} {}", record.rule, record.decision_id)
        };
        assert_eq!(host.told.take(), records.iter().map(told).collect::<Vec<_>>());
        (ended, records.into_iter().map(|record| record.rule).collect::<Vec<_>>())
    };
    let none = Vec::<String>::new();
    assert_eq!(recorded_by(&mut plugin, "sales/other", Audit::Sampled), (0, none.clone()));
    assert_eq!(recorded_by(&mut plugin, "sales/read", Audit::Full), (0, vec!["sales/read".into()]));
    assert_eq!(recorded_by(&mut plugin, "sales/read", Audit::Full), (0, none.clone()));
    assert_eq!(recorded_by(&mut plugin, "sales/other", Audit::Full), (0, vec!["sales/other".into()]));
    assert_eq!(recorded_by(&mut plugin, "sales/other", Audit::Required), (0, vec!["sales/other".into()]));
    assert_eq!(recorded_by(&mut plugin, "sales/other", Audit::Sampled), (0, none));
}

#[test]
fn nothing_goes_on_unrecorded_that_a_changed_rule_demands_to_be_recorded() {
    for (audit, ended) in [(Audit::Full, 0), (Audit::Required, 1)] {
        let (mut plugin, host) = (world(|rule| rule.audit = Audit::Required), good());
        assert_eq!(plugin.on_request(0, true, &host), Verdict::Continue);
        // Nobody takes them, until there is no room for anything.
        let mut context = 1;
        while plugin.on_request(context, true, &host) == Verdict::Continue {
            plugin.forget(context);
            context += 1;
        }
        assert_eq!(plugin.counters.total(Metric::RecordsDropped), 1);
        push(
            &mut plugin,
            6,
            |rule| {
                rule.id = "sales/other".into();
                rule.audit = audit;
            },
            &host,
        );
        let due = plugin.due(&host, |_| true);
        assert_eq!(due.len(), ended);
        assert!(due.iter().all(|(_, verdict)| reason(verdict) == "audit_unavailable"), "{due:?}");
        let told = host.told.take().pop().unwrap();
        assert_eq!(told.starts_with("ended audit_unavailable - "), ended == 1, "{told}");
        assert_eq!(plugin.counters.total(Metric::RecordsDropped), 2);
    }
}

#[test]
fn before_the_first_bundle_refusals_are_recorded_too() {
    let mut plugin = waiting(", \"coldStart\": {\"holdMs\": 0, \"maxHeld\": 0}");
    assert_eq!(status(&plugin.on_request(1, true, &good())), 503);
    plugin.on_sink_opened(9);
    let record = only(records(&mut plugin));
    assert_eq!((record.reason.as_str(), record.path.as_str()), ("not_ready", "/v1/orders"));
    assert!(record.claims.is_empty());
}

/// Whatever is decided: of the token nothing but recorded claims leaves the filter.
#[test]
fn no_token_leaves_the_filter() {
    let sections = |disclosure| {
        let change = |rule: &mut RuleModel| {
            rule.audit = Audit::Full;
            rule.disclosure = disclosure;
        };
        vec![rules_of(&token_model(change)), keys_section(oauth(&[("a", 7)]))]
    };
    let (valid, forged) = (token("a", 7, NOW + 300, "canary-1"), token("a", 8, NOW + 300, "canary-2"));
    let expired = token("a", 7, NOW - 300, "canary-3");
    for disclosure in [Disclosure::Full, Disclosure::Opaque] {
        let (mut plugin, host) = (waiting(""), request("/"));
        plugin.on_opened(3, &host);
        deliver(&mut plugin, &bundle_of(5, sections(disclosure)), 5, &host);
        plugin.on_sink_opened(9);
        let mut sent = Vec::new();
        for token in [&valid, &forged, &expired] {
            let bearer = format!("Bearer {token}");
            for path in [
                "/v1/orders".to_owned(),
                format!("/v1/{token}"),
                format!("/v1/a?access_token={token}"),
                format!("/{token}#{token}"),
            ] {
                let host = Fake::with_headers(&[
                    (":method", "GET"),
                    (":path", &path),
                    (":authority", &format!("{token}.example")),
                    ("authorization", &bearer),
                    ("cookie", &format!("session={token}")),
                    ("traceparent", &format!("00-{token}-{token}-01")),
                ])
                .with_peer(WORKER);
                plugin.on_request(1, true, &host);
            }
            sent.extend(plugin.take_batches().concat());
        }
        assert!(sent.len() > 1_000);
        for token in [&valid, &forged, &expired] {
            for part in token.split('.') {
                let canary = &part.as_bytes()[..24];
                assert!(!sent.windows(24).any(|window| window == canary), "{part} leaves the filter");
            }
        }
        assert!(!sent.windows(6).any(|window| window == b"canary"));
    }
}
