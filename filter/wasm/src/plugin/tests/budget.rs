//! Signatures: who verifies them, how many, and for whom.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tidegate_identity::IssuerSpec;

use super::*;

const CERTIFICATE: &str = "connection\0sha256_peer_certificate_digest";

fn start(more: &str, issuer: IssuerSpec, host: &Fake) -> Plugin {
    let sections = vec![rules_of(&token_model(|_| {})), keys_section(issuer)];
    let warm = warm(&bundle_of(5, sections));
    Plugin::new(Config::parse(&config(&format!("{more}{warm}"))).unwrap(), "pod".into(), host, None)
}

fn enforcing() -> Plugin {
    start("", oauth(&[("a", 7)]), &request("/"))
}

fn good(id: u32) -> Fake {
    bearing(&token("a", 7, NOW + 60, &id.to_string()))
}

/// Well formed, of a known key, and signed by somebody else.
fn junk(id: u32) -> Fake {
    bearing(&token("a", 8, NOW + 60, &id.to_string()))
}

#[test]
fn junk_is_refused_unchecked_after_a_while_and_harms_nobody_on_another_connection() {
    let mut plugin = enforcing();
    let reasons: Vec<_> =
        (0..200).map(|id| reason(&plugin.on_request(id, true, &junk(id).over(1)))).collect();
    let checked = reasons.iter().filter(|reason| *reason == "token_bad_signature").count();
    assert!((50..70).contains(&checked), "{checked} of 200 were checked");
    assert!(reasons.ends_with(&["token_check_budget".to_owned()]));
    let verdict = plugin.on_request(1_000, true, &junk(1_000).over(1));
    let Verdict::Refuse(refusal) = &verdict else { panic!("{verdict:?}") };
    assert_eq!(refusal.status, 429);
    assert!(refusal.headers.contains(&("retry-after", "1".to_owned())), "{refusal:?}");
    assert_eq!(plugin.on_request(1_001, true, &good(1).over(2)), Verdict::Continue);
    assert_eq!(plugin.counters.total(Metric::OverBudget), 201 - u64::try_from(checked).unwrap());
}

#[test]
fn tokens_that_are_known_are_never_counted_however_strained_the_budget_is() {
    let mut plugin = enforcing();
    let known = good(1).over(1);
    assert_eq!(plugin.on_request(1, true, &known), Verdict::Continue);
    for id in 0..200_000u32 {
        let connection = u64::from(id / 10);
        plugin.on_request(2, true, &junk(0).over(10 + connection));
        if id % 1_000 == 0 {
            assert_eq!(plugin.on_request(1, true, &known), Verdict::Continue, "after {id}");
        }
        if plugin.counters.total(Metric::OverBudget) > 100 {
            break;
        }
    }
    assert!(plugin.counters.total(Metric::OverBudget) > 100);
    assert_eq!(status(&plugin.on_request(3, true, &good(2).over(9))), 429, "a newcomer waits");
    assert_eq!(plugin.on_request(4, true, &known), Verdict::Continue);
    // Whose token is known may bring its next one.
    assert_eq!(plugin.on_request(5, true, &good(3).over(1)), Verdict::Continue);
    // However often it came before: over another connection as well.
    (0..10_000).for_each(|_| assert_eq!(plugin.on_request(6, true, &known), Verdict::Continue));
    assert_eq!(plugin.on_request(7, true, &good(1).over(8)), Verdict::Continue);
    assert_eq!(plugin.on_request(8, true, &good(4).over(8)), Verdict::Continue);
}

#[test]
fn a_valid_token_that_allows_nothing_does_not_prove_a_connection() {
    let mut plugin = enforcing();
    let elsewhere = |id: u32| {
        let token = token("a", 7, NOW + 60, &id.to_string());
        Fake::with_headers(&[
            (":method", "GET"),
            (":path", "/v2/elsewhere"),
            (":authority", "orders.example"),
            ("authorization", &format!("Bearer {token}")),
        ])
        .with_peer(WORKER)
        .over(1)
    };
    let refused: Vec<_> = (0..200).map(|id| status(&plugin.on_request(id, true, &elsewhere(id)))).collect();
    assert!(refused.contains(&403) && refused.ends_with(&[429]), "{refused:?}");
    assert!((0..200).all(|id| plugin.on_request(id, true, &good(id).over(2)) == Verdict::Continue));
}

#[test]
fn the_proxy_is_asked_for_the_connection_only_when_a_signature_is_checked() {
    let mut plugin = enforcing();
    let host = good(1).over(1);
    let asked = |host: &Fake| host.asked.borrow().iter().filter(|path| **path == *b"connection\0id").count();
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(asked(&host), 1);
    assert_eq!(plugin.on_request(2, true, &host), Verdict::Continue);
    assert_eq!(asked(&host), 1);
    assert_eq!(plugin.counters.total(Metric::TokensRemembered), 1);
    assert_eq!(plugin.counters.total(Metric::HostSignatures), 2, "the Bundle's and the token's");
}

#[test]
fn which_path_is_in_use_is_said_once_and_counted() {
    for (verifies, fips, line) in [
        (true, false, "RS* and ES* by the proxy, PS*"),
        (true, true, "others not at all"),
        (false, false, "all in WebAssembly"),
        (false, true, "none can be verified"),
    ] {
        let host = good(1);
        host.verifies.set(verifies);
        let more = if fips { ", \"fips\": true" } else { "" };
        let mut plugin = start(more, oauth(&[("a", 7)]), &host);
        let verdict = plugin.on_request(1, true, &host);
        let lines = host.logged.borrow().iter().filter(|said| said.contains(line)).count();
        assert_eq!(lines, 1, "{verifies} {fips}: {:?}", host.logged);
        if fips && !verifies {
            // Not even the Bundle.
            assert_eq!(status(&verdict), 503);
            continue;
        }
        assert_eq!(verdict, Verdict::Continue);
        let (by_host, fallback) = (
            plugin.counters.total(Metric::HostSignatures),
            plugin.counters.total(Metric::FallbackSignatures),
        );
        assert_eq!((by_host, fallback), if verifies { (2, 0) } else { (0, 2) });
    }
}

#[test]
fn what_the_proxy_cannot_verify_is_not_verified_in_fips_mode() {
    let mut issuer = oauth(&[]);
    let x = BASE64_URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    issuer.keys = vec![tidegate_identity::Jwk::ed25519(Some("e".into()), None, &x).unwrap()];
    let input = unsigned("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\",\"kid\":\"e\"}", NOW + 60, "1");
    let host = bearing(&format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode([1; 64])));
    for (more, expected) in [("", "token_bad_signature"), (", \"fips\": true", "token_algorithm_unsupported")]
    {
        let mut plugin = start(more, issuer.clone(), &host);
        assert_eq!(reason(&plugin.on_request(1, true, &host)), expected);
    }
}

#[test]
fn a_bound_token_is_accepted_only_with_the_certificate_it_is_bound_to() {
    let mut issuer = oauth(&[("a", 7)]);
    issuer.require_cnf = true;
    let mut plugin = start("", issuer, &request("/"));
    assert_eq!(reason(&plugin.on_request(1, true, &good(1))), "token_not_bound");
    let bound = |digest: [u8; 32]| {
        let header = "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"a\"}";
        let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(digest);
        let confirmation = format!("\"cnf\":{{\"x5t#S256\":\"{thumbprint}\"}},\"iss\"");
        bearing(&resigned(header, |claims| claims.replacen("\"iss\"", &confirmation, 1)))
    };
    let hex = |digest: [u8; 32]| digest.map(|byte| format!("{byte:02x}")).concat();
    let certified = |host: Fake, digest| host.with_property(CERTIFICATE, hex(digest).as_bytes());
    assert_eq!(plugin.on_request(2, true, &certified(bound([7; 32]), [7; 32])), Verdict::Continue);
    for (host, what) in [
        (certified(bound([7; 32]), [8; 32]), "another certificate"),
        (bound([7; 32]), "no certificate"),
        (bound([7; 32]).with_property(CERTIFICATE, b"07"), "no digest"),
    ] {
        assert_eq!(reason(&plugin.on_request(3, true, &host)), "token_not_bound", "{what}");
    }
    assert_eq!(plugin.on_request(4, true, &certified(bound([7; 32]), [7; 32])), Verdict::Continue);
}

fn resigned(header: &str, change: impl FnOnce(&str) -> String) -> String {
    use p256::ecdsa::signature::Signer as _;
    let input = unsigned(header, NOW + 60, "1");
    let (header, claims) = input.split_once('.').unwrap();
    let claims = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let input = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(change(&claims)));
    let signature: p256::ecdsa::Signature = signing_key(7).sign(input.as_bytes());
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

#[test]
fn a_clock_before_the_bundle_was_issued_decides_nothing() {
    let mut plugin = enforcing();
    let host = good(1);
    let issued_ms = u64::try_from(NOW - 10).unwrap() * 1_000;
    host.now_ms.set(issued_ms - 300_000);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue, "within what clocks may differ");
    host.now_ms.set(issued_ms - 300_001);
    let verdict = plugin.on_request(1, true, &host);
    assert_eq!((status(&verdict), reason(&verdict).as_str()), (503, "clock_wrong"));
    assert_eq!(plugin.counters.total(Metric::ClockWrong), 1);
    host.now_ms.set(0);
    assert_eq!(reason(&plugin.on_request(1, true, &host)), "clock_wrong");
}

#[test]
fn receipts_tell_what_was_counted_and_how_issuers_are_used() {
    let mut plugin = start(STREAM, oauth(&[("a", 7)]), &request("/"));
    assert_eq!(plugin.on_request(1, true, &good(1)), Verdict::Continue);
    assert_eq!(plugin.on_request(2, true, &good(1)), Verdict::Continue);
    assert_eq!(status(&plugin.on_request(3, true, &junk(1))), 401);
    let host = good(1);
    plugin.on_opened(3, &host);
    let receipt = answers(plugin.take_messages())
        .into_iter()
        .find_map(|message| match message {
            subscribe_request::Message::Receipt(receipt) => Some(receipt),
            _ => None,
        })
        .unwrap();
    let counters = receipt.counters.unwrap();
    assert_eq!((counters.allowed, counters.denied, counters.token_cache_hits), (2, 1, 1));
    assert_eq!(counters.signature_checks_host, 3);
    let used = &receipt.issuers[0];
    assert_eq!((used.issuer.as_str(), used.verified, used.refused), ("oauth", 2, 1));
    assert_eq!(used.last_verified_at, NOW);
}

/// What is told of uses with the next tick.
fn uses(plugin: &mut Plugin, host: &Fake) -> Vec<pb::Uses> {
    plugin.on_tick(host);
    let uses = |message| match message {
        subscribe_request::Message::Uses(uses) => Some(uses),
        _ => None,
    };
    answers(plugin.take_messages()).into_iter().filter_map(uses).collect()
}

#[test]
fn the_control_plane_is_told_which_rules_decide_and_which_keys_sign() {
    let mut plugin = start(STREAM, oauth(&[("a", 7), ("b", 8)]), &request("/"));
    let host = good(1);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(plugin.on_request(2, true, &host), Verdict::Continue);
    assert_eq!(status(&plugin.on_request(3, true, &junk(1))), 401);
    assert_eq!(uses(&mut plugin, &host), [], "nobody listens");
    plugin.on_opened(3, &host);
    let rule = |count| pb::RuleUse { rule: "sales/read".into(), count, last_used_at: NOW };
    let key =
        |verified| pb::KeyUse { issuer: "oauth".into(), key_id: "a".into(), verified, last_verified_at: NOW };
    assert_eq!(uses(&mut plugin, &host), [pb::Uses { rules: vec![rule(2)], keys: vec![key(2)] }]);
    assert_eq!(uses(&mut plugin, &host), [], "not with every tick");
    host.wait(60_000);
    assert_eq!(uses(&mut plugin, &host), [], "nothing new");
    plugin.on_closed(&host);
    plugin.on_opened(4, &host);
    let again = pb::Uses { rules: vec![rule(0)], keys: vec![key(0)] };
    assert_eq!(uses(&mut plugin, &host), [again], "what was told may not have arrived");
}

#[test]
fn a_stream_that_goes_on_under_new_rules_still_needs_its_rule() {
    let host = request("/v1/orders").with_peer(WORKER);
    let config = Config::parse(&config(&format!("{STREAM}{}", warm(&bundle(5))))).unwrap();
    let mut plugin = Plugin::new(config, "pod".into(), &host, None);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    plugin.on_opened(3, &host);
    assert_eq!(uses(&mut plugin, &host)[0].rules[0].count, 1);
    host.wait(60_000);
    plugin.on_tick(&host);
    plugin.leases.question_all();
    assert_eq!(plugin.due(&host, |_| true), []);
    host.wait(60_000);
    let again = uses(&mut plugin, &host);
    assert_eq!((again[0].rules[0].count, again[0].rules[0].last_used_at), (1, NOW + 60), "{again:?}");
}
