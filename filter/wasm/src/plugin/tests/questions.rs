//! Requests that wait for an answer of the control plane.

use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::{
    BodyField, ClaimRef, Condition, Operand, OperationModel, PolicyModel, Test, TextTest,
};
use tidegate_proto::v1::subscribe_request::Message;

use super::*;

const DIRECTORY: &str = "dataflow/acme/europe-west4/orders";

fn start(model: &PolicyModel, more: Vec<pb::Section>) -> Plugin {
    let mut sections = vec![rules_of(model)];
    sections.extend(more);
    let warm = warm(&bundle_of(5, sections));
    let plugin = Plugin::new(
        Config::parse(&config(&format!("{STREAM}{warm}"))).unwrap(),
        "pod".into(),
        &request("/"),
        None,
    );
    assert!(plugin.installed().is_some());
    plugin
}

/// Only key `a` is known.
fn with_key_a() -> Plugin {
    let mut plugin = start(&token_model(|_| {}), vec![keys_section(oauth(&[("a", 7)]))]);
    plugin.on_opened(3, &request("/"));
    plugin.take_messages();
    plugin
}

fn bearing(token: &str) -> Fake {
    Fake::with_headers(&[
        (":method", "GET"),
        (":path", "/v1/orders"),
        (":authority", "orders.example"),
        ("authorization", &format!("Bearer {token}")),
    ])
    .with_peer(WORKER)
}

fn by_key_b(id: &str) -> Fake {
    bearing(&token("b", 8, NOW + 60, id))
}

/// The questions that go out: issuer or directory, and key or id.
fn asked(plugin: &mut Plugin) -> Vec<(u64, String, String)> {
    answers(plugin.take_messages())
        .into_iter()
        .filter_map(|message| match message {
            Message::KeyLookup(lookup) => Some((lookup.nonce, lookup.issuer, lookup.key_id)),
            Message::Lookup(lookup) => Some((lookup.nonce, lookup.directory, lookup.id)),
            _ => None,
        })
        .collect()
}

fn answer(plugin: &mut Plugin, nonce: u64, listed: bool, host: &Fake) {
    let result = pb::LookupResult { nonce, listed };
    let message = pb::subscribe_response::Message::LookupResult(result);
    plugin.on_message(&pb::SubscribeResponse { message: Some(message) }.encode_to_vec(), host);
}

fn install(plugin: &mut Plugin, bundle: &pb::Bundle, host: &Fake) {
    deliver(plugin, bundle, 9, host);
}

fn released(plugin: &mut Plugin, host: &Fake) -> Vec<(u32, u16)> {
    let released = plugin.due(host, |_| true);
    released.iter().map(|(context, verdict)| (*context, status(verdict))).collect()
}

#[test]
fn a_token_of_an_unknown_key_waits_for_the_key_and_is_allowed_with_it() {
    let mut plugin = with_key_a();
    let host = by_key_b("1");
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    assert_eq!(plugin.tick_ms(), 100);
    let questions = asked(&mut plugin);
    assert_eq!(questions, [(questions[0].0, "oauth".to_owned(), "b".to_owned())]);
    // Another one of the same key asks nothing.
    assert_eq!(plugin.on_request(2, true, &by_key_b("2")), Verdict::Hold);
    assert_eq!(asked(&mut plugin), []);
    assert_eq!(released(&mut plugin, &host), []);
    let keys = keys_section(oauth(&[("a", 7), ("b", 8)]));
    install(&mut plugin, &bundle_of(6, vec![rules_of(&token_model(|_| {})), keys]), &host);
    assert_eq!(released(&mut plugin, &host), [(1, 200), (2, 200)]);
    // They live now as all others do.
    assert_eq!(plugin.leases.contexts().count(), 2);
    assert_eq!(plugin.counters.total(Metric::Held), 2);
    assert_eq!(plugin.counters.total(Metric::Lookups), 1);
    assert_eq!(plugin.tick_ms(), 1_000);
}

#[test]
fn an_answer_without_the_key_refuses_as_before_and_nobody_waits_for_it_again() {
    let mut plugin = with_key_a();
    let host = by_key_b("1");
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    let (nonce, ..) = asked(&mut plugin).remove(0);
    answer(&mut plugin, nonce + 1, false, &host);
    assert_eq!(released(&mut plugin, &host), [], "somebody else's answer");
    answer(&mut plugin, nonce, false, &host);
    assert_eq!(released(&mut plugin, &host), [(1, 401)]);
    assert_eq!(status(&plugin.on_request(2, true, &host)), 401);
    host.wait(4_000);
    assert_eq!(status(&plugin.on_request(3, true, &host)), 401);
    host.wait(1_000);
    assert_eq!(plugin.on_request(4, true, &host), Verdict::Hold);
    assert!(plugin.leases.contexts().next().is_none());
}

#[test]
fn nobody_waits_longer_than_a_second_or_when_nobody_can_answer() {
    let mut plugin = with_key_a();
    let host = by_key_b("1");
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    host.wait(899);
    assert_eq!(released(&mut plugin, &host), []);
    host.wait(1);
    assert_eq!(released(&mut plugin, &host), [(1, 401)]);

    let mut plugin = with_key_a();
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    plugin.on_closed(&host);
    assert_eq!(released(&mut plugin, &host), [(1, 401)], "the stream is lost");
    assert_eq!(status(&plugin.on_request(2, true, &by_key_b("2"))), 401);

    let mut plugin = start(&token_model(|_| {}), vec![keys_section(oauth(&[("a", 7)]))]);
    assert_eq!(status(&plugin.on_request(1, true, &host)), 401, "there is no stream yet");
}

#[test]
fn another_bundle_does_not_end_the_wait_for_a_key_that_it_lacks() {
    let mut plugin = with_key_a();
    let host = by_key_b("1");
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    let (nonce, ..) = asked(&mut plugin).remove(0);
    let keys = keys_section(oauth(&[("a", 7), ("c", 9)]));
    install(&mut plugin, &bundle_of(6, vec![rules_of(&token_model(|_| {})), keys]), &host);
    assert_eq!(released(&mut plugin, &host), []);
    // One that lets the request in otherwise does.
    let mut open = token_model(|rule| rule.from[0].issuers.clear());
    open.issuers.clear();
    install(&mut plugin, &bundle_of(7, vec![rules_of(&open)]), &host);
    assert_eq!(released(&mut plugin, &host), [(1, 200)]);
    answer(&mut plugin, nonce, false, &host);
    assert_eq!(released(&mut plugin, &host), []);
}

#[test]
fn a_replaced_key_of_the_same_id_is_asked_for_too() {
    let mut plugin = with_key_a();
    let host = bearing(&token("a", 8, NOW + 60, "1"));
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    assert_eq!(asked(&mut plugin)[0].2, "a");
    let keys = keys_section(oauth(&[("a", 8)]));
    install(&mut plugin, &bundle_of(6, vec![rules_of(&token_model(|_| {})), keys]), &host);
    assert_eq!(released(&mut plugin, &host), [(1, 200)]);
}

#[test]
fn made_up_keys_hold_a_bounded_number_and_what_is_known_passes_meanwhile() {
    let mut plugin = with_key_a();
    let (mut held, mut refused) = (0, 0);
    for context in 0..2_000u32 {
        let host = bearing(&token(&format!("made-up-{}", context / 4), 9, NOW + 60, "1"));
        match plugin.on_request(context, true, &host) {
            Verdict::Hold => held += 1,
            verdict => {
                assert_eq!(status(&verdict), 401);
                refused += 1;
            }
        }
    }
    // Sixteen questions about one issuer, and who else has the same one.
    assert_eq!((held, refused), (64, 1_936));
    assert_eq!(asked(&mut plugin).len(), 16);
    let host = bearing(&token("a", 7, NOW + 60, "1"));
    assert_eq!(plugin.on_request(9_999, true, &host), Verdict::Continue);
    // Those that leave make room.
    plugin.forget(0);
    assert_eq!(plugin.held.len(), 63);
    host.wait(900);
    assert_eq!(released(&mut plugin, &host).len(), 63);
    assert_eq!(plugin.tick_ms(), 1_000);
}

/// A Dataflow job starts behind a gateway: many tokens that nobody has seen, over one connection.
#[test]
fn what_was_charged_for_requests_that_waited_is_given_back_when_they_are_allowed() {
    let keys = || keys_section(oauth(&[("a", 7)]));
    let mut plugin = start(&listed_model(), vec![keys(), directory(&["worker-0"])]);
    plugin.on_opened(3, &request("/v1/orders"));
    let worker = |id: u32| bearing(&token("a", 7, NOW + 60, &id.to_string())).over(5);
    let held = (0..100).take_while(|id| plugin.on_request(*id, true, &worker(*id)) == Verdict::Hold).count();
    assert!((10..100).contains(&held), "the connection's budget is spent after {held}");
    let sections = vec![rules_of(&listed_model()), keys(), directory(&["worker-1"])];
    install(&mut plugin, &bundle_of(6, sections), &worker(0));
    assert_eq!(released(&mut plugin, &worker(0)).len(), held);
    assert_eq!(plugin.on_request(200, true, &worker(200)), Verdict::Continue);
}

#[test]
fn two_filters_of_one_stream_are_not_answered_in_one_callback() {
    let one_stream = |host: Fake| host.over(5).with_property("request\0time", b"begun");
    let mut plugin = with_key_a();
    let host = one_stream(by_key_b("1"));
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    assert_eq!(plugin.on_request(2, true, &host), Verdict::Hold);
    host.wait(900);
    assert_eq!(released(&mut plugin, &host).len(), 1);
    assert_eq!(plugin.tick_ms(), 1);
    assert_eq!(released(&mut plugin, &host).len(), 1);
    // Nor are two that end.
    let host = one_stream(bearing(&token("a", 7, NOW + 60, "1")));
    for context in [3, 4] {
        assert_eq!(plugin.on_request(context, true, &host), Verdict::Continue);
    }
    host.wait(91_000);
    let mut ended = Vec::new();
    for _ in 0..2 {
        let due = plugin.due(&host, |_| true);
        ended.extend(due.iter().map(|(context, verdict)| (*context, status(verdict))));
        assert_eq!(due.len(), 1);
    }
    assert_eq!(ended, [(4, 401), (3, 401)]);
}

/// Tokens must be of an id that the directory lists.
fn listed_model() -> PolicyModel {
    let mut model = token_model(|rule| {
        let claim = ClaimRef { issuer: 0, slot: 0 };
        rule.from[0].condition = Condition::Claim(claim, Test::Listed(0));
    });
    model.directories = vec![DIRECTORY.to_owned()];
    model
}

fn directory(ids: &[&str]) -> pb::Section {
    let listed = DirectoryModel {
        name: DIRECTORY.into(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        fresh_until: NOW + 1_000,
    };
    section(pb::SectionKind::Directory, encode_directories(&[listed]))
}

#[test]
fn a_caller_that_is_not_listed_yet_waits_until_it_is() {
    let keys = || keys_section(oauth(&[("a", 7)]));
    let mut plugin = start(&listed_model(), vec![keys(), directory(&["worker-0"])]);
    let host = bearing(&token("a", 7, NOW + 60, "1"));
    plugin.on_opened(3, &host);
    plugin.take_messages();
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    let questions = asked(&mut plugin);
    assert_eq!(questions, [(questions[0].0, DIRECTORY.to_owned(), "worker-1".to_owned())]);
    // Not one whose path is wrong as well: no answer would let it in.
    let other = Fake::with_headers(&[
        (":method", "GET"),
        (":path", "/v2/orders"),
        (":authority", "orders.example"),
        ("authorization", &format!("Bearer {}", token("a", 7, NOW + 60, "1"))),
    ])
    .with_peer(WORKER);
    assert_eq!(status(&plugin.on_request(2, true, &other)), 403);
    let listed = directory(&["worker-0", "worker-1"]);
    install(&mut plugin, &bundle_of(6, vec![rules_of(&listed_model()), keys(), listed]), &host);
    answer(&mut plugin, questions[0].0, true, &host);
    assert_eq!(released(&mut plugin, &host), [(1, 200)]);
    // And when it is listed no more, its stream ends.
    let unlisted = directory(&["worker-0"]);
    install(&mut plugin, &bundle_of(7, vec![rules_of(&listed_model()), keys(), unlisted]), &host);
    let ended = plugin.due(&host, |_| true);
    assert_eq!(
        ended.iter().map(|(context, verdict)| (*context, status(verdict))).collect::<Vec<_>>(),
        [(1, 403)]
    );
}

/// What its body says is seen when it is listed: then it is read.
#[test]
fn a_caller_that_is_not_listed_yet_waits_where_a_rule_reads_its_body_too() {
    let keys = || keys_section(oauth(&[("a", 7)]));
    let mut model = listed_model();
    let topic = Operand::Body(BodyField::Protobuf(vec![1]));
    model.rules[0].to = Some(vec![OperationModel {
        grpc: true,
        condition: Condition::Text(topic, TextTest::Prefix("orders-".into())),
        ..OperationModel::default()
    }]);
    let mut plugin = start(&model, vec![keys(), directory(&["worker-0"])]);
    plugin.scans = Scans::new(true);
    let host = Fake::with_headers(&[
        (":method", "POST"),
        (":path", "/google.pubsub.v1.Publisher/Publish"),
        (":authority", "orders.example"),
        ("content-type", "application/grpc"),
        ("authorization", &format!("Bearer {}", token("a", 7, NOW + 60, "1"))),
    ])
    .with_peer(WORKER);
    plugin.on_opened(3, &host);
    plugin.take_messages();
    for context in [1, 2] {
        assert_eq!(plugin.on_request(context, false, &host), Verdict::Hold);
    }
    let questions = asked(&mut plugin);
    assert_eq!(questions, [(questions[0].0, DIRECTORY.to_owned(), "worker-1".to_owned())]);
    let listed = directory(&["worker-0", "worker-1"]);
    install(&mut plugin, &bundle_of(6, vec![rules_of(&model), keys(), listed]), &host);
    assert_eq!(released(&mut plugin, &host), [(1, 200), (2, 200)], "their headers go on");
    assert_eq!(plugin.leases.contexts().count(), 0, "and nothing is allowed yet");
    for (context, topic, expected) in [(1, "orders-1", 200), (2, "billing", 403)] {
        let length = u8::try_from(topic.len()).unwrap();
        let message = [&[0, 0, 0, 0, length + 2, 10, length], topic.as_bytes()].concat();
        assert_eq!(status(&plugin.on_body(context, &message, true, &host)), expected, "{topic}");
    }
    assert_eq!(plugin.leases.contexts().count(), 1);
}

#[test]
fn a_caller_that_leaves_while_it_waits_is_not_decided() {
    let mut plugin = with_key_a();
    let host = by_key_b("1");
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    assert_eq!(plugin.on_request(2, true, &host), Verdict::Hold);
    plugin.forget(1);
    host.wait(1_000);
    // The proxy knows the other one no more, although it did not say so.
    assert_eq!(plugin.due(&host, |_| false), []);
    assert!(plugin.held.is_empty() && plugin.leases.contexts().next().is_none());
}

#[test]
fn what_waited_for_the_first_bundle_does_not_wait_again() {
    let mut plugin = waiting("");
    let host = by_key_b("1");
    plugin.on_opened(3, &host);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    let sections = vec![rules_of(&token_model(|_| {})), keys_section(oauth(&[("a", 7)]))];
    install(&mut plugin, &bundle_of(5, sections), &host);
    assert_eq!(released(&mut plugin, &host), [(1, 401)]);
}
