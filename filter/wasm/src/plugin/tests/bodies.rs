//! Requests whose bodies decide.

use tidegate_engine::model::{Audit, BodyField, Condition, Operand, OperationModel, PolicyModel, TextTest};

use super::*;

/// POST /v1/publish is allowed where the message's field 1, or the member `topic`, begins with `orders-`.
fn publish() -> PolicyModel {
    let mut model = model();
    let is_orders = |field| Condition::Text(Operand::Body(field), TextTest::Prefix("orders-".into()));
    let operation = |grpc, condition| OperationModel {
        methods: Some(vec!["POST".into()]),
        grpc,
        condition,
        ..OperationModel::default()
    };
    let topic = BodyField::Json(vec![vec!["topic".into()]]);
    model.rules[0].to = Some(vec![
        operation(true, is_orders(BodyField::Protobuf(vec![1]))),
        operation(false, is_orders(topic)),
    ]);
    model
}

struct World {
    plugin: Plugin,
    host: Fake,
    counter: u64,
}

impl World {
    fn new(content_type: &str, reads_bodies: bool) -> Self {
        let host = Fake::with_headers(&[
            (":method", "POST"),
            (":path", "/v1/publish"),
            (":authority", "orders.example"),
            ("content-type", content_type),
            ("x-tidegate-rule", "forged"),
        ])
        .with_peer(WORKER);
        let mut world = Self { plugin: waiting(""), host, counter: 4 };
        world.plugin.scans = Scans::new(reads_bodies);
        world.plugin.on_opened(3, &world.host);
        world.push(&publish());
        world
    }

    fn push(&mut self, model: &PolicyModel) {
        self.counter += 1;
        let sections = vec![rules_of(model)];
        let bundle =
            pb::Bundle { manifest: Some(signed(&manifest(self.counter, &sections), 1, "k1")), sections };
        deliver(&mut self.plugin, &bundle, self.counter, &self.host);
        assert_eq!(self.plugin.installed().unwrap().manifest.revision, (1, self.counter));
    }

    fn begin(&mut self, context: u32) -> u16 {
        status(&self.plugin.on_request(context, false, &self.host))
    }

    fn piece(&mut self, context: u32, piece: &[u8], is_last: bool) -> u16 {
        status(&self.plugin.on_body(context, piece, is_last, &self.host))
    }
}

fn frame(topic: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len()).unwrap();
    let (field, message) = if topic.is_empty() { (vec![], 0) } else { (vec![10, length], length + 2) };
    [&[0, 0, 0, 0, message][..], &field, topic.as_bytes()].concat()
}

#[test]
fn a_message_decides_before_its_last_byte_goes_on() {
    let mut world = World::new("application/grpc", true);
    for (context, topic, expected) in [(1, "orders-1", 200), (2, "billing", 403), (3, "", 403)] {
        assert_eq!(world.begin(context), 200, "the headers go on");
        let body = frame(topic);
        let (last, before) = body.split_last().unwrap();
        assert_eq!(world.piece(context, before, false), 200);
        assert_eq!(world.piece(context, &[*last], false), expected, "{topic}");
        // Nothing of a refused request goes on, and it is answered once.
        let after = if expected == 200 { 200 } else { 0 };
        assert_eq!(world.piece(context, b"", true), after);
        world.plugin.forget(context);
    }
    assert_eq!(world.plugin.leases.contexts().count(), 0);
    let count = |metric| world.plugin.counters.total(metric);
    assert_eq!((count(Metric::Allowed), count(Metric::Denied)), (1, 2));
}

#[test]
fn each_message_of_a_stream_decides_again() {
    let mut world = World::new("application/grpc", true);
    assert_eq!(world.begin(1), 200);
    // The second says nothing, the third another that is allowed; the fourth changes the target.
    for (topic, expected) in [("orders-1", 200), ("", 200), ("orders-2", 200), ("billing", 403)] {
        assert_eq!(world.piece(1, &frame(topic), false), expected, "{topic}");
    }
    assert_eq!(world.piece(1, &frame("orders-1"), false), 0);
    // Two in one piece: the first does not excuse the second, nor the other way round.
    for messages in [["orders-1", "billing"], ["billing", "orders-1"], ["", "orders-1"]] {
        assert_eq!(world.begin(2), 200);
        let both: Vec<u8> = messages.into_iter().flat_map(frame).collect();
        assert_eq!(world.piece(2, &both, false), 403, "{messages:?}");
        world.plugin.forget(2);
    }
}

/// [`publish`] by two rules: records in full of topics that begin with `orders-1`, required ones of the rest.
fn publish_by_two() -> PolicyModel {
    let (mut model, mut all) = (publish(), publish().rules.remove(0));
    let first = &mut model.rules[0];
    first.audit = Audit::Full;
    for operation in first.to.iter_mut().flatten() {
        if let Condition::Text(_, test) = &mut operation.condition {
            *test = TextTest::Prefix("orders-1".into());
        }
    }
    all.id = "sales/write-all".into();
    all.audit = Audit::Required;
    model.rules.push(all);
    model
}

#[test]
fn a_message_that_another_rule_allows_is_recorded() {
    let mut world = World::new("application/grpc", true);
    let model = publish_by_two();
    let first = model.rules[0].id.clone();
    world.push(&model);
    world.plugin.on_sink_opened(9);
    let rules = |world: &mut World| {
        let batches = world.plugin.take_batches();
        let batches = batches.iter().map(|batch| pb::ReportRequest::decode(batch.as_slice()).unwrap());
        let rules: Vec<_> = batches.flat_map(|batch| batch.records).map(|record| record.rule).collect();
        rules
    };
    assert_eq!(world.begin(1), 200);
    assert_eq!(rules(&mut world), [""; 0]);
    for (topic, recorded) in [
        ("orders-1", vec![first.as_str()]),
        ("orders-10", vec![]),
        ("orders-2", vec!["sales/write-all"]),
        ("orders-3", vec![]),
    ] {
        assert_eq!(world.piece(1, &frame(topic), false), 200, "{topic}");
        assert_eq!(rules(&mut world), recorded, "{topic}");
    }
}

#[test]
fn no_message_goes_on_by_a_rule_that_requires_records_where_nobody_takes_them() {
    let bundle = bundle_of(5, vec![rules_of(&publish_by_two())]);
    let config = Config::parse(&config(&warm(&bundle))).unwrap();
    let mut world = World::new("application/grpc", true);
    world.plugin = Plugin::new(config, "pod".into(), &request("/"), None);
    world.plugin.scans = Scans::new(true);
    assert_eq!(world.begin(1), 200);
    assert_eq!(world.piece(1, &frame("orders-1"), false), 200);
    assert_eq!(world.piece(1, &frame("orders-2"), false), 503);
}

#[test]
fn a_document_decides_when_it_is_whole() {
    let mut world = World::new("application/json", true);
    for (context, body, expected) in [
        (1, r#"{"topic":"orders-1","data":"x"}"#, 200),
        (2, r#"{"topic":"billing"}"#, 403),
        (3, r#"{"data":"x"}"#, 403),
        (4, r#"{"topic":"orders-1","topic":"billing"}"#, 403),
        (5, r#"{"topic":["orders-1","billing"]}"#, 403),
        (6, "topic=orders-1", 403),
        (7, r#"{"topic":"orders-1"}{"topic":"billing"}"#, 403),
    ] {
        assert_eq!(world.begin(context), 200);
        let mut answers: Vec<u16> =
            body.as_bytes().chunks(3).map(|piece| world.piece(context, piece, false)).collect();
        answers.push(world.piece(context, b"", true));
        let refused = answers.iter().position(|answer| *answer == 403);
        assert_eq!(refused.is_none(), expected == 200, "{body}: {answers:?}");
        // After the refusal nothing goes on.
        assert!(answers.iter().skip(refused.map_or(answers.len(), |at| at + 1)).all(|answer| *answer == 0));
        world.plugin.forget(context);
    }
}

#[test]
fn what_ends_too_early_is_not_allowed() {
    for (content_type, body) in [
        ("application/grpc", &frame("orders-1")[..6]),
        ("application/grpc", &[][..]),
        ("application/json", br#"{"topic":"orders-1""#),
        ("application/json", b""),
        ("text/plain", br#"{"topic":"orders-1"}"#),
        ("application/grpc", br#"{"topic":"orders-1"}"#),
        ("application/json", &frame("orders-1")),
    ] {
        let mut world = World::new(content_type, true);
        assert_eq!(world.begin(1), 200);
        assert_eq!(world.piece(1, body, true), 403, "{content_type}");
    }
    // Without any body.
    let mut world = World::new("application/json", true);
    assert_eq!(status(&world.plugin.on_request(1, true, &world.host)), 403);
}

/// What becomes of an answer that comes so early, and then of the rest of the body.
fn early(content_type: &str, answer: &[(&str, &str)]) -> (u16, World) {
    let mut world = World::new(content_type, true);
    assert_eq!(world.begin(1), 200);
    world.host.answers(answer);
    let verdict = status(&world.plugin.on_response(1, &world.host));
    assert!(!world.plugin.releases_answer(1));
    (verdict, world)
}

#[test]
fn no_success_gets_out_before_the_decision() {
    for answer in [
        &[(":status", "200")][..],
        &[(":status", "204")],
        &[(":status", "200"), ("content-type", "application/json"), ("grpc-status", "7")],
        &[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")],
        &[(":status", "101")],
        &[(":status", "")],
        &[],
    ] {
        let (verdict, mut world) = early("application/json", answer);
        assert_eq!(verdict, 403, "{answer:?}");
        assert_eq!(world.piece(1, br#"{"topic":"orders-1"}"#, true), 0);
        assert_eq!(world.plugin.counters.total(Metric::Denied), 1);
    }
    let mut world = World::new("application/json", true);
    assert_eq!(world.begin(2), 200);
    assert_eq!(world.piece(2, br#"{"topic":"orders-1"}"#, true), 200);
    world.host.answers(&[(":status", "200")]);
    assert_eq!(status(&world.plugin.on_response(2, &world.host)), 200);
}

#[test]
fn errors_and_redirects_pass_and_the_rest_of_the_body_is_decided() {
    let grpc = ("content-type", "application/grpc");
    for answer in [
        &[(":status", "401")][..],
        &[(":status", "413")],
        &[(":status", "307"), ("location", "https://elsewhere.example")],
        &[(":status", "503")],
        &[(":status", "200"), grpc, ("grpc-status", "16")],
    ] {
        for (topic, expected) in [("orders-1", 200), ("billing", 403)] {
            let (verdict, mut world) = early("application/grpc", answer);
            assert_eq!(verdict, 200, "{answer:?}");
            assert_eq!(world.piece(1, &frame(topic), false), expected, "{answer:?} {topic}");
            assert!(!world.plugin.releases_answer(1), "it did not wait");
        }
    }
}

#[test]
fn the_headers_of_a_stream_wait_for_the_decision() {
    for kind in ["application/grpc", "application/grpc+proto"] {
        for (topic, expected) in [("orders-1", 200), ("billing", 403)] {
            let (verdict, mut world) =
                early("application/grpc", &[(":status", "200"), ("content-type", kind)]);
            assert_eq!(verdict, 0, "it waits");
            assert_eq!(world.piece(1, &frame(topic)[..4], false), 200);
            assert!(!world.plugin.releases_answer(1), "nothing is decided yet");
            assert_eq!(world.piece(1, &frame(topic)[4..], false), expected, "{topic}");
            assert_eq!(world.plugin.releases_answer(1), expected == 200, "{topic}");
            assert!(!world.plugin.releases_answer(1), "once");
        }
    }
}

#[test]
fn the_build_that_reads_no_bodies_refuses() {
    let mut world = World::new("application/grpc", false);
    let verdict = world.plugin.on_request(1, false, &world.host);
    let Verdict::Refuse(refusal) = verdict else { panic!("{verdict:?}") };
    assert!(refusal.body.contains("body_unread"), "{}", refusal.body);
}

#[test]
fn other_rules_hold_for_a_body_that_is_being_read() {
    let mut world = World::new("application/grpc", true);
    assert_eq!(world.begin(1), 200);
    let mut model = publish();
    model.rules.clear();
    world.push(&model);
    assert_eq!(world.piece(1, &frame("orders-1"), false), 403);
    // A stream that was allowed by its body stays so with the same rules, and ends without them.
    world.push(&publish());
    assert_eq!(world.begin(2), 200);
    assert_eq!(world.piece(2, &frame("orders-1"), false), 200);
    let mut renamed = publish();
    renamed.rules[0].owner = "others".into();
    world.push(&renamed);
    assert_eq!(world.plugin.due(&world.host, |_| true), []);
    world.push(&model);
    // Its lease ends, and nothing more of its body goes on, whether it says something new or not.
    let ended = world.plugin.due(&world.host, |_| true);
    assert_eq!(
        ended.iter().map(|(context, verdict)| (*context, status(verdict))).collect::<Vec<_>>(),
        [(2, 403)]
    );
    for topic in ["orders-1", "", "orders-2", "orders-2", ""] {
        assert_eq!(world.piece(2, &frame(topic), false), 0, "{topic}");
    }
}
