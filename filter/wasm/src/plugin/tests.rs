use prost::Message as _;
use tidegate_proto::v1::{self as pb, subscribe_request};

use super::*;
use crate::capabilities;
use crate::host::fake::Fake;
use crate::testing::*;

mod alike;
mod audit;
mod bodies;
mod budget;
mod candidate;
mod leases;
mod questions;
mod suspended;

const WORKER: &str = "spiffe://prod.example/ns/etl/sa/worker";
const STREAM: &str = ", \"controlPlane\": {\"cluster\": \"tidegate\", \"authority\": \"tidegate.example\"}";

fn request(path: &str) -> Fake {
    Fake::with_headers(&[
        (":method", "GET"),
        (":path", path),
        (":authority", "orders.example"),
        ("x-tidegate-decision", "forged"),
    ])
}

fn ready() -> Plugin {
    Plugin::new(Config::parse(&config(&warm(&bundle(5)))).unwrap(), "pod".into(), &request("/"), None)
}

fn waiting(more: &str) -> Plugin {
    Plugin::new(
        Config::parse(&config(&format!("{STREAM}{more}"))).unwrap(),
        "pod".into(),
        &request("/"),
        None,
    )
}

fn status(verdict: &Verdict) -> u16 {
    match verdict {
        Verdict::Continue => 200,
        Verdict::Refuse(refusal) => refusal.status,
        Verdict::Hold => 0,
    }
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

fn reason(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Refuse(refusal) => {
            let body: serde_json::Value = serde_json::from_str(&refusal.body).unwrap();
            body["reason"].as_str().unwrap().to_owned()
        }
        Verdict::Continue => "allowed".to_owned(),
        Verdict::Hold => "held".to_owned(),
    }
}

/// The connection's other end is gone without a word, or the control plane takes everything and answers nothing.
#[test]
fn a_silent_stream_is_given_up_and_one_that_is_only_quiet_is_not() {
    let host = request("/");
    let config = Config::parse(&config(&format!("{STREAM}{}", warm(&bundle(5))))).unwrap();
    let mut plugin = Plugin::new(config, "pod".into(), &host, None);
    plugin.on_opened(7, &host);
    let is_receipt = |message: &Vec<u8>| {
        let message = pb::SubscribeRequest::decode(message.as_slice()).unwrap().message;
        matches!(message, Some(subscribe_request::Message::Receipt(_)))
    };
    // A quiet day: receipts go out, and their answers are all that comes.
    for _ in 0..24 * 60 * 6 {
        host.wait(10_000);
        assert_eq!(plugin.take_silent(&host), None);
        plugin.on_tick(&host);
        for _ in plugin.take_messages().iter().filter(|message| is_receipt(message)) {
            plugin.on_message(&[], &host);
        }
        assert!(plugin.take_messages().is_empty(), "an answer is not answered");
    }
    assert_eq!(plugin.stream(), Some(7));
    // Now nothing comes any more.
    let begin = host.now_ms.get();
    let token = loop {
        host.wait(1_000);
        plugin.on_tick(&host);
        if let Some(token) = plugin.take_silent(&host) {
            break token;
        }
        assert!(host.now_ms.get() - begin < 300_000, "it is never given up");
    };
    let waited = host.now_ms.get() - begin;
    assert!((60_000..=120_000).contains(&waited), "{waited} ms");
    assert_eq!((token, plugin.stream()), (7, None));
    assert_eq!(plugin.counters.total(Metric::StreamsSilent), 1);
    assert_eq!(status(&plugin.on_request(1, true, &request("/v1/orders").with_peer(WORKER))), 200);
    assert_eq!(status(&plugin.on_request(1, true, &request("/v1/orders"))), 403);
    host.wait(10_000);
    assert!(plugin.on_tick(&host), "it is opened anew");
    plugin.on_opened(8, &host);
    // A clock that is set back does not make it wait for ever.
    host.now_ms.set(host.now_ms.get() - 86_400_000);
    assert_eq!(plugin.take_silent(&host), None);
    host.wait(120_000);
    assert_eq!(plugin.take_silent(&host), Some(8));
}

/// Whatever a control plane answers: what is enforced stays enforced, and what has no rules yet refuses.
#[test]
fn a_refused_stream_opens_nothing_and_is_tried_again_ever_later() {
    let requests = [(request("/v1/orders").with_peer(WORKER), 200), (request("/v1/orders"), 403)];
    for status_code in 0..=16 {
        let is_refusal = [3, 5, 7, 8, 9, 16].contains(&status_code);
        let host = request("/");
        let mut warm = Plugin::new(
            Config::parse(&config(&format!("{STREAM}{}", warm(&bundle(5))))).unwrap(),
            "pod".into(),
            &host,
            None,
        );
        let mut cold = waiting(", \"coldStart\": {\"holdMs\": 0, \"maxHeld\": 0}");
        let mut last = 0;
        for attempt in 0..8 {
            for plugin in [&mut warm, &mut cold] {
                plugin.on_opened(7, &host);
                plugin.on_ended(status_code, b"because%0aof \xFF %60this%60 %4x %", &host);
                assert_eq!(plugin.stream(), None);
                plugin.on_tick(&host);
                assert!(!plugin.on_tick(&host), "status {status_code}: tried again at once");
            }
            for (request, expected) in &requests {
                assert_eq!(status(&warm.on_request(1, true, request)), *expected, "status {status_code}");
                assert_eq!(status(&cold.on_request(1, true, request)), 503, "status {status_code}");
            }
            let begin = host.now_ms.get();
            while !warm.on_tick(&host) {
                host.wait(10);
            }
            let pause = host.now_ms.get() - begin;
            assert!(pause <= 10_000, "status {status_code}: {pause} ms");
            assert!(attempt > 5 || pause > last, "status {status_code}: {pause} ms after {last} ms");
            last = pause;
        }
        let refused = warm.counters.total(Metric::StreamsRefused);
        assert_eq!(refused, if is_refusal { 8 } else { 0 }, "status {status_code}");
        let logged = host.logged.borrow();
        let verb = if is_refusal { "refused" } else { "closed" };
        let line = format!(
            "stream to the control plane {verb} (gRPC status {status_code}): becauseof \u{FFFD} `this` %4x %"
        );
        assert!(logged.iter().any(|logged| logged.ends_with(&line)), "{logged:?}");
    }
}

#[test]
fn a_filter_says_in_its_log_what_it_lacks() {
    let (mut plugin, host) = (waiting(""), request("/v1/orders").with_peer(WORKER));
    plugin.on_opened(3, &host);
    for (counter, used, expected) in [(5, "time-travel/1", 1), (6, "rules/1", 1)] {
        let sections = vec![rules_section()];
        let manifest = pb::Manifest { used_capabilities: vec![used.into()], ..manifest(counter, &sections) };
        let bundle = pb::Bundle { manifest: Some(signed(&manifest, 1, "k1")), sections };
        deliver(&mut plugin, &bundle, counter, &host);
        assert_eq!(
            plugin.installed().unwrap().manifest.revision,
            (1, counter),
            "it is enforced all the same"
        );
        let told = host.logged.borrow().iter().filter(|line| line.contains("lacks `time-travel/1`")).count();
        assert_eq!(told, expected);
    }
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
}

#[test]
fn a_warm_start_decides_at_once() {
    let mut plugin = ready();
    assert_eq!(plugin.on_request(1, true, &request("/v1/orders").with_peer(WORKER)), Verdict::Continue);
    assert_eq!(status(&plugin.on_request(2, true, &request("/v2/orders").with_peer(WORKER))), 403);
    assert_eq!(status(&plugin.on_request(3, true, &request("/v1/orders"))), 403);
    assert_eq!(status(&plugin.on_request(4, true, &request("/v1/%2e%2e").with_peer(WORKER))), 403);
    for other in [
        "spiffe://prod.example/ns/etl/sa/other",
        "spiffe://dev.example/ns/etl/sa/worker",
        "spiffe://prod.example/ns/etl/sa/worker/x",
        "https://prod.example/ns/etl/sa/worker",
    ] {
        assert_eq!(
            status(&plugin.on_request(5, true, &request("/v1/orders").with_peer(other))),
            403,
            "{other}"
        );
    }
    assert_eq!(plugin.counters.total(Metric::Allowed), 1);
    assert_eq!(plugin.counters.total(Metric::Denied), 7);
}

#[test]
fn a_listener_without_mesh_peers_has_none() {
    let mut json = String::from_utf8(config(&warm(&bundle(5)))).unwrap();
    json = json.replace("\"mesh\"", "\"none\"");
    let mut plugin = Plugin::new(Config::parse(json.as_bytes()).unwrap(), "pod".into(), &request("/"), None);
    assert_eq!(status(&plugin.on_request(1, true, &request("/v1/orders").with_peer(WORKER))), 403);
}

#[test]
fn in_a_waypoint_the_peer_is_who_opened_the_tunnel() {
    let json = String::from_utf8(config(&warm(&bundle(5)))).unwrap().replace("\"mesh\"", "\"waypoint\"");
    let mut plugin = Plugin::new(Config::parse(json.as_bytes()).unwrap(), "pod".into(), &request("/"), None);
    let through = |uri: &str| {
        request("/v1/orders").with_property("filter_state\0io.istio.peer_principal", uri.as_bytes())
    };
    assert_eq!(
        status(&plugin.on_request(1, true, &request("/v1/orders").with_peer(WORKER))),
        403,
        "the node's proxy"
    );
    assert_eq!(status(&plugin.on_request(2, true, &through("spiffe://other.example/ns/etl/sa/worker"))), 403);
    assert_eq!(plugin.counters.total(Metric::Allowed), 0);
    plugin.on_request(3, true, &through(WORKER).with_peer("spiffe://prod.example/ns/x/sa/y"));
    assert_eq!(plugin.counters.total(Metric::Allowed), 1);
}

#[test]
fn headers_that_only_tidegate_sets_are_removed_or_the_request_is_refused() {
    let mut plugin = ready();
    let host = request("/v1/orders").with_peer(WORKER);
    plugin.on_request(1, true, &host);
    assert_eq!(*host.removed.borrow(), ["x-tidegate-decision"]);
    *host.refuses_removal.borrow_mut() = true;
    assert_eq!(status(&plugin.on_request(1, true, &host)), 503);
}

#[test]
fn only_what_goes_on_gets_the_interlock() {
    let json = config(&format!("{}, \"interlock\": \"c2VjcmV0\"", warm(&bundle(5))));
    let mut plugin = Plugin::new(Config::parse(&json).unwrap(), "pod".into(), &request("/"), None);
    let forged = Fake::with_headers(&[
        (":method", "GET"),
        (":path", "/v1/orders"),
        (":authority", "orders.example"),
        ("x-tidegate-interlock", "c2VjcmV0"),
    ]);
    let host = forged.with_peer(WORKER);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(*host.removed.borrow(), ["x-tidegate-interlock"]);
    assert_eq!(*host.set.borrow(), [("x-tidegate-interlock".to_owned(), "c2VjcmV0".to_owned())]);
    let host = request("/v2/orders").with_peer(WORKER);
    assert_eq!(status(&plugin.on_request(2, true, &host)), 403);
    assert!(host.set.borrow().is_empty(), "what is refused goes nowhere");
    let host =
        Fake::with_headers(&[(":method", "GET"), (":path", "/v1/orders"), (":authority", "orders.example")]);
    let host = host.with_peer(WORKER);
    *host.refuses_removal.borrow_mut() = true;
    assert_eq!(status(&plugin.on_request(3, true, &host)), 503, "what cannot be marked is refused");
    // Without one, nothing is set.
    let host = request("/v1/orders").with_peer(WORKER);
    assert_eq!(ready().on_request(1, true, &host), Verdict::Continue);
    assert!(host.set.borrow().is_empty());
}

#[test]
fn without_headers_a_request_is_refused() {
    let mut plugin = ready();
    let host = request("/v1/orders").with_peer(WORKER);
    *host.headers.borrow_mut() = None;
    assert_eq!(status(&plugin.on_request(1, true, &host)), 503);
    *host.headers.borrow_mut() = Some(vec![9, 9]);
    assert_eq!(status(&plugin.on_request(1, true, &host)), 503);
}

#[test]
fn a_cold_start_holds_a_bounded_number_for_a_bounded_time() {
    let mut plugin = waiting(", \"coldStart\": {\"holdMs\": 1000, \"maxHeld\": 2}");
    let host = request("/v1/orders").with_peer(WORKER);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    assert_eq!(plugin.on_request(2, true, &host), Verdict::Hold);
    assert_eq!(status(&plugin.on_request(3, true, &host)), 503, "one too many");
    plugin.forget(1);
    assert!(plugin.due(&host, |_| true).is_empty());
    host.wait(1_000);
    let released = plugin.due(&host, |_| true);
    assert_eq!(
        released.iter().map(|(context, verdict)| (*context, status(verdict))).collect::<Vec<_>>(),
        [(2, 503)]
    );
    assert_eq!(status(&plugin.on_request(4, true, &host)), 503, "too late to wait");
}

/// What the control plane sends for a Bundle.
fn push(bundle: &pb::Bundle, nonce: u64) -> Vec<Vec<u8>> {
    use pb::subscribe_response::Message;
    let wrap = |message| pb::SubscribeResponse { message: Some(message) }.encode_to_vec();
    let chunk_bytes =
        bundle.sections.iter().map(|section| u64::try_from(section.content.len()).unwrap()).sum();
    let mut messages =
        vec![wrap(Message::Push(pb::Push { nonce, manifest: bundle.manifest.clone(), chunk_bytes }))];
    for section in &bundle.sections {
        messages.push(wrap(Message::Chunk(pb::SectionChunk {
            sha256: crate::bundle::sha256(&section.content).to_vec(),
            offset: 0,
            content: section.content.clone().into(),
        })));
    }
    messages
}

/// Pushes a Bundle with the sections that are not installed yet.
fn deliver(plugin: &mut Plugin, bundle: &pb::Bundle, nonce: u64, host: &Fake) {
    let held = plugin.installed().map(crate::bundle::Installed::held).unwrap_or_default();
    let mut lacking = bundle.clone();
    lacking.sections.retain(|section| !held.contains(&crate::bundle::sha256(&section.content)));
    for message in push(&lacking, nonce) {
        plugin.on_message(&message, host);
    }
}

fn answers(messages: Vec<Vec<u8>>) -> Vec<subscribe_request::Message> {
    messages
        .iter()
        .map(|message| pb::SubscribeRequest::decode(message.as_slice()).unwrap().message.unwrap())
        .collect()
}

/// Takes a message; what is sent in return.
fn sent(plugin: &mut Plugin, message: &[u8], host: &Fake) -> Vec<subscribe_request::Message> {
    plugin.on_message(message, host);
    answers(plugin.take_messages())
}

#[test]
fn what_waited_is_decided_when_the_first_bundle_arrives() {
    let mut plugin = waiting("");
    let host = request("/v1/orders").with_peer(WORKER);
    assert!(!plugin.on_tick(&host), "the first tick only arms");
    assert!(plugin.on_tick(&host));
    plugin.on_opened(3, &host);
    let hello = answers(plugin.take_messages());
    assert!(
        matches!(&hello[0], subscribe_request::Message::Hello(hello) if hello.capabilities.iter().map(String::as_str).eq(capabilities()))
    );
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Hold);
    assert_eq!(plugin.on_request(2, true, &request("/v2").with_peer(WORKER)), Verdict::Hold);
    let messages = push(&bundle(5), 9);
    assert_eq!(sent(&mut plugin, &messages[0], &host), [], "nothing is acknowledged yet");
    let sent = sent(&mut plugin, &messages[1], &host);
    assert!(matches!(&sent[0], subscribe_request::Message::Ack(ack) if ack.nonce == 9), "{sent:?}");
    assert!(
        matches!(&sent[1], subscribe_request::Message::Receipt(receipt)
        if receipt.state == i32::from(pb::FilterState::Ready)),
        "{sent:?}"
    );
    let selected = std::cell::RefCell::new(Vec::new());
    let released = plugin.due(&host, |context| {
        selected.borrow_mut().push(context);
        true
    });
    assert_eq!(
        released.iter().map(|(context, verdict)| (*context, status(verdict))).collect::<Vec<_>>(),
        [(1, 200), (2, 403)]
    );
    assert_eq!(*selected.borrow(), [1, 2]);
}

#[test]
fn a_bad_push_is_refused_and_what_was_enforced_stays() {
    let mut plugin = Plugin::new(
        Config::parse(&config(&format!("{STREAM}{}", warm(&bundle(5))))).unwrap(),
        "pod".into(),
        &request("/"),
        None,
    );
    let host = request("/v1/orders").with_peer(WORKER);
    plugin.on_opened(3, &host);
    plugin.take_messages();
    let mut unsigned = bundle(6);
    unsigned.manifest.as_mut().unwrap().signatures.clear();
    let mut damaged = bundle(6);
    damaged.sections = vec![section(pb::SectionKind::Rules, vec![0; 4])];
    for bad in [unsigned, bundle(4)] {
        let sent = sent(&mut plugin, &push(&bad, 7)[0], &host);
        assert!(
            sent.iter().any(|one| matches!(one, subscribe_request::Message::Nack(nack) if nack.nonce == 7)),
            "{sent:?}"
        );
        assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    }
    assert_eq!(plugin.counters.total(Metric::Nacks), 2);
    // The same revision again is acknowledged.
    let acknowledged = sent(&mut plugin, &push(&bundle(5), 8)[0], &host);
    assert!(
        matches!(&acknowledged[0], subscribe_request::Message::Ack(ack) if ack.nonce == 8),
        "{acknowledged:?}"
    );
    // Junk and unknown kinds of message change nothing.
    for junk in [&b""[..], b"\xff\xff\xff", &[0x7a, 0x00]] {
        assert_eq!(sent(&mut plugin, junk, &host), [], "{junk:?}");
    }
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
}

#[test]
fn a_refused_warm_start_without_a_control_plane_never_decides() {
    let mut bad = bundle(5);
    bad.manifest.as_mut().unwrap().signatures.clear();
    let host = request("/v1/orders").with_peer(WORKER);
    let mut plugin = Plugin::new(Config::parse(&config(&warm(&bad))).unwrap(), "pod".into(), &host, None);
    assert_eq!(status(&plugin.on_request(1, true, &host)), 503);
    assert!(host.logged.borrow().iter().any(|line| line.contains("no trusted key")), "{:?}", host.logged);
}

#[test]
fn a_signed_statement_that_nothing_is_guarded_lets_pass() {
    let mut statement = manifest(5, &[]);
    statement.coverage = pb::Coverage::Unguarded.into();
    let open = pb::Bundle { manifest: Some(signed(&statement, 1, "k1")), sections: vec![] };
    let host = request("/anything");
    let mut plugin = Plugin::new(Config::parse(&config(&warm(&open))).unwrap(), "pod".into(), &host, None);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
}

#[test]
fn a_changed_configuration_keeps_what_was_enforced() {
    let installed = ready().installed().cloned();
    let host = request("/v1/orders").with_peer(WORKER);
    let config = Config::parse(&config(&format!("{STREAM}{}", warm(&bundle(4))))).unwrap();
    let mut plugin = Plugin::new(config, "pod".into(), &host, installed);
    assert_eq!(plugin.installed().unwrap().manifest.revision, (1, 5));
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
}

#[test]
fn configurations_that_cannot_work_are_refused_with_the_field() {
    let good = String::from_utf8(config(STREAM)).unwrap();
    assert!(Config::parse(good.as_bytes()).is_ok());
    let (before_key, _) = good.split_once("\"publicKey\"").unwrap();
    for (bad, field) in [
        (String::new(), "not JSON"),
        ("[]".to_owned(), "must be an object"),
        ("{}".to_owned(), "workload"),
        (good.replace("\"peers\"", "\"peer\""), "peer"),
        (good.replace("\"mesh\"", "\"gateway\""), "peers"),
        (good.replace("sales/orders-api", "orders-api"), "workload"),
        (good.replace(STREAM, ""), "controlPlane"),
        (good.replace("tidegate.example", "outbound|1||x"), "controlPlane.authority"),
        (good.replace("tidegate.example", &"x".repeat(130)), "controlPlane"),
        (format!("{}\"publicKey\": \"AAAA\"}}]{STREAM}}}", before_key), "keys[0]"),
        (String::from_utf8(config(&format!("{STREAM}, \"bundle\": \"!\""))).unwrap(), "bundle"),
        (
            String::from_utf8(config(&format!(
                "{STREAM}, \"coldStart\": {{\"holdMs\": 9999, \"maxHeld\": 1}}"
            )))
            .unwrap(),
            "coldStart.holdMs",
        ),
        (
            String::from_utf8(config(&format!("{STREAM}, \"coldStart\": {{\"holdMs\": 9}}"))).unwrap(),
            "coldStart.maxHeld",
        ),
        (String::from_utf8(config(&format!("{STREAM}, \"fips\": \"yes\""))).unwrap(), "fips"),
        (String::from_utf8(config(&format!("{STREAM}, \"interlock\": \"\""))).unwrap(), "interlock"),
        (String::from_utf8(config(&format!("{STREAM}, \"interlock\": \"a b\""))).unwrap(), "interlock"),
        (String::from_utf8(config(&format!("{STREAM}, \"interlock\": \"abc*\""))).unwrap(), "interlock"),
        (String::from_utf8(config(&format!("{STREAM}, \"interlock\": 7"))).unwrap(), "interlock"),
        (
            String::from_utf8(config(&format!("{STREAM}, \"interlock\": \"{}\"", "x".repeat(129)))).unwrap(),
            "interlock",
        ),
        (
            String::from_utf8(config(&format!("{STREAM}, \"fips\": true, \"fips\": false"))).unwrap(),
            "duplicate",
        ),
        (good.replace("\"id\"", "\"name\""), "keys[0].name"),
    ] {
        let error = Config::parse(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(field), "{bad}: {error}");
    }
}
