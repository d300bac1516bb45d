use std::sync::Arc;

use tidegate_engine::{ShadowDifference, TokenFault, VerifiedToken};

use super::*;
use crate::config::Peers;
use crate::host::fake::Fake;

const NOW: i64 = 1_800_000_000;
const TOKEN: &str =
    "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ3b3JrZXItMSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZS1zaWduYXR1cmU";

fn headers(id: &str) -> Vec<(String, String)> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    [
        (":method", "GET"),
        (":path", "/v1/orders"),
        (":authority", "orders.example"),
        ("content-type", "application/json"),
        ("x-request-id", id),
        ("authorization", TOKEN),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-request-id-of", "1"),
        ("request-id", "1"),
    ]
    .map(pair)
    .to_vec()
}

fn read(headers: &[(String, String)], peer: Option<&str>, is_whole: bool) -> Received {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let host = Fake::with_headers(&headers);
    let host = peer.into_iter().fold(host, Fake::with_peer);
    Received::read(&host, Peers::Mesh, is_whole).unwrap()
}

fn request(id: &str) -> Received {
    read(&headers(id), Some("spiffe://prod.example/ns/etl/sa/worker"), true)
}

/// Allowed by a rule until then.
fn allowed(until: i64) -> Answer {
    let mut answer = Answer::without_tokens(Outcome::Allow, Reason::AllowedBy, None);
    answer.decision.rule = Some(RuleIx(3));
    answer.terms = Terms { expires_at: until, grace_s: 0, again_at: i64::MAX };
    answer
}

/// After this request has come twice.
fn after(received: &Received, answer: &Answer) -> Alike {
    let mut alike = Alike::default();
    for _ in 0..2 {
        let look = alike.look(received).unwrap();
        alike.keep(look, received, answer, &[], &[], NOW);
    }
    alike
}

fn finds(alike: &mut Alike, received: &Received, now: i64) -> bool {
    let look = alike.look(received).unwrap();
    alike.find(look, received, now).is_some()
}

#[test]
fn what_comes_twice_stands_for_what_differs_in_nothing_that_is_read() {
    let first = request("11111111-2222-3333-4444-555555555555");
    let mut alike = Alike::default();
    let look = alike.look(&first).unwrap();
    alike.keep(look, &first, &allowed(NOW + 60), &[], &[], NOW);
    assert!(!finds(&mut alike, &first, NOW), "once is not worth it");
    alike.keep(look, &first, &allowed(NOW + 60), &[], &[], NOW);
    let other = request("99999999-8888-7777-6666-000000000000");
    assert!(finds(&mut alike, &other, NOW));
    let look = alike.look(&other).unwrap();
    let standing = alike.find(look, &other, NOW).unwrap().standing;
    assert_eq!((standing.rule, standing.terms.expires_at), (Some(RuleIx(3)), NOW + 60));
}

#[test]
fn every_byte_that_may_be_read_makes_a_request_another_one() {
    let id = "11111111-2222-3333-4444-555555555555";
    let first = request(id);
    let mut alike = after(&first, &allowed(NOW + 60));
    assert!(finds(&mut alike, &first, NOW));
    let unread = ["x-request-id", "traceparent"];
    for (at, (name, value)) in headers(id).iter().enumerate() {
        for (part, text) in [name, value].into_iter().enumerate() {
            for byte in 0..text.len() {
                let mut changed = headers(id);
                let text = if part == 0 { &mut changed[at].0 } else { &mut changed[at].1 };
                let other = if text.as_bytes()[byte] == b'z' { "y" } else { "z" };
                text.replace_range(byte..=byte, other);
                let received = read(&changed, Some("spiffe://prod.example/ns/etl/sa/worker"), true);
                // Whatever place a hash gives it: compared with the one that is kept, it is another one.
                let kept = alike.places.iter_mut().flatten().next().unwrap();
                kept.stood_for = 0;
                let is_unread = part == 1 && unread.contains(&name.as_str());
                assert_eq!(kept.is_like(&received), is_unread, "{name}: {value}, byte {byte} of part {part}");
                assert_eq!(
                    finds(&mut alike, &received, NOW),
                    is_unread,
                    "{name}: byte {byte} of part {part}"
                );
            }
        }
    }
}

#[test]
fn another_peer_a_body_and_more_or_fewer_headers_make_a_request_another_one() {
    let id = "11111111-2222-3333-4444-555555555555";
    let worker = "spiffe://prod.example/ns/etl/sa/worker";
    let mut alike = after(&request(id), &allowed(NOW + 60));
    let mut is_found = |headers: &[(String, String)], peer, is_whole| {
        let received = read(headers, peer, is_whole);
        let kept = alike.places.iter().flatten().next().unwrap();
        let is_like = kept.is_like(&received);
        assert_eq!(finds(&mut alike, &received, NOW), is_like);
        is_like
    };
    assert!(is_found(&headers(id), Some(worker), true));
    assert!(!is_found(&headers(id), Some("spiffe://prod.example/ns/etl/sa/worked"), true));
    assert!(!is_found(&headers(id), None, true));
    assert!(!is_found(&headers(id), Some(worker), false));
    for at in 0..headers(id).len() {
        let (mut fewer, mut more, mut swapped) = (headers(id), headers(id), headers(id));
        fewer.remove(at);
        more.insert(at, more[at].clone());
        swapped.swap(at, (at + 1) % headers(id).len());
        for changed in [fewer, more, swapped] {
            assert!(!is_found(&changed, Some(worker), true), "{changed:?}");
        }
    }
    let mut moved = headers(id);
    // The same bytes with another border between them.
    moved[0].1 = "GETx".to_owned();
    assert!(!is_found(&moved, Some(worker), true));
}

#[test]
fn it_stands_from_when_it_was_decided_until_something_ends() {
    let received = request("11111111-2222-3333-4444-555555555555");
    let mut alike = after(&received, &allowed(NOW + 60));
    for (now, stands) in
        [(NOW - 1, false), (NOW, true), (NOW + 59, true), (NOW + 60, false), (i64::MAX, false)]
    {
        assert_eq!(finds(&mut alike, &received, now), stands, "{}", now - NOW);
    }
    let mut answer = allowed(i64::MAX);
    answer.terms.again_at = NOW + 10;
    let mut alike = after(&received, &answer);
    assert!(finds(&mut alike, &received, NOW + 9) && !finds(&mut alike, &received, NOW + 10));
    assert_eq!(after(&received, &allowed(NOW)).count(), 0);
}

#[test]
fn what_has_to_be_said_or_done_of_each_stands_for_none() {
    let received = request("11111111-2222-3333-4444-555555555555");
    type Change = (&'static str, fn(&mut Answer));
    let changes: [Change; 11] = [
        ("refused", |answer| answer.decision.outcome = Outcome::Deny),
        ("unguarded", |answer| answer.decision.reason = Reason::NotGuarded),
        ("a Guard in shadow", |answer| answer.decision.reason = Reason::GuardInShadow),
        ("a difference", |answer| {
            answer.decision.shadow =
                Some(ShadowDifference { outcome: Outcome::Deny, reason: Reason::DeniedBy, rule: None });
        }),
        ("degraded", |answer| answer.decision.degraded = true),
        ("all are recorded", |answer| answer.audit = Audit::Full),
        ("all must be recorded", |answer| answer.audit = Audit::Required),
        ("a header goes", |answer| answer.remove = vec!["x-token".into()]),
        ("suspended", |answer| answer.suspended = true),
        ("a body decides", |answer| answer.awaits = Some((None, vec![]))),
        ("nothing was verified, and yet it was known", |answer| answer.remembered = true),
    ];
    assert_eq!(after(&received, &allowed(NOW + 60)).count(), 1);
    for (what, change) in changes {
        let mut answer = allowed(NOW + 60);
        change(&mut answer);
        assert_eq!(after(&received, &answer).count(), 0, "{what}");
    }
    let with = |remembered, outcome| may_stand(&Answer { remembered, ..allowed(NOW + 60) }, &[outcome]);
    let verified = || {
        TokenOutcome::Verified(Arc::new(VerifiedToken {
            audiences: vec![],
            expires_at: NOW + 60,
            slots: vec![],
        }))
    };
    assert!(with(false, TokenOutcome::Absent) && with(true, verified()));
    assert!(!with(false, verified()), "its signature was checked");
    assert!(!with(false, TokenOutcome::Invalid(TokenFault::Expired)));
    assert!(!with(true, TokenOutcome::Invalid(TokenFault::Expired)));
    // What the proxy said of the connection, and what only Tidegate sets.
    let asked = request("11111111-2222-3333-4444-555555555555");
    asked.port(&Fake::default());
    assert_eq!(after(&asked, &allowed(NOW + 60)).count(), 0);
    let asked = request("11111111-2222-3333-4444-555555555555");
    asked.certificate_sha256(&Fake::default());
    assert_eq!(after(&asked, &allowed(NOW + 60)).count(), 0);
    let mut own = headers("1");
    own.push(("x_tidegate_interlock".into(), "forged".into()));
    assert_eq!(after(&read(&own, None, true), &allowed(NOW + 60)).count(), 0);
}

/// On wasm32 a `usize` holds less than a hash.
#[test]
fn requests_are_spread_over_all_places() {
    for hash in [0, 5, u64::from(u32::MAX) + 6, u64::MAX] {
        assert_eq!(u64::try_from(Look(hash).place()).unwrap(), hash % PLACES);
    }
    let mut alike = Alike::default();
    let mut places = std::collections::BTreeSet::new();
    for number in 0..500 {
        let mut headers = headers("1");
        headers[1].1 = format!("/v1/orders/{number}");
        places.insert(alike.look(&read(&headers, None, true)).unwrap().place());
    }
    assert!(places.len() > 100, "{places:?}");
    // What differs from request to request has no part in it, however long it is.
    let mut states = headers("1");
    states.truncate(4);
    states.push(("tracestate".into(), "a".repeat(200)));
    let one = alike.look(&read(&states, None, true));
    states[4].1 = "b".repeat(200);
    assert_eq!(alike.look(&read(&states, None, true)), one);
}

#[test]
fn memory_is_bounded_and_nobody_is_looked_for_where_all_differ() {
    let mut alike = Alike::default();
    let answer = allowed(NOW + 60);
    let mut looked = 0;
    for number in 0..50_000 {
        let mut headers = headers("1");
        headers[1].1 = format!("/v1/orders/{number}");
        let received = read(&headers, None, true);
        for _ in 0..2 {
            if let Some(look) = alike.look(&received) {
                looked += 1;
                alike.keep(look, &received, &answer, &[], &[], NOW);
            }
        }
        assert!(u64::try_from(alike.count()).unwrap() <= PLACES);
    }
    assert!(looked < 100_000 / 8, "{looked}");
    let mut long = headers("1");
    long[5].1 = "a".repeat(MAX_BLOCK);
    assert_eq!(after(&read(&long, None, true), &answer).count(), 0);
    // Where many are alike, they are looked for all the time.
    let received = request("1");
    let mut alike = after(&received, &answer);
    let found = (0..10 * LOOKS).filter(|_| finds(&mut alike, &received, NOW)).count();
    // Now and then one is decided all the same, and is kept as it was.
    assert_eq!(u32::try_from(found).unwrap(), 10 * LOOKS - 10 * LOOKS / u32::from(AGAIN));
}

/// A header that is another one with each request, and as long as the last: they look alike.
#[test]
fn of_those_that_only_look_alike_few_are_kept() {
    let mut alike = Alike::default();
    let mut kept = 0;
    for number in 0..2_048_u32 {
        let mut headers = headers("1");
        headers[8].1 = format!("{number:08}");
        let received = read(&headers, None, true);
        let look = alike.look(&received).unwrap();
        assert!(alike.find(look, &received, NOW).is_none());
        alike.keep(look, &received, &allowed(NOW + 60), &[], &[], NOW);
        kept += u32::from(finds(&mut alike, &received, NOW));
        // Others are found, so that there is no rest.
        alike.looks = 0;
    }
    // After 2, 4, 8, 16, 32, 64 and 128, then of each 64 one.
    assert_eq!(kept, 7 + (2_048 - 128) / 64);
}
