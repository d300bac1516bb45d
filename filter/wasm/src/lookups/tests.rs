use super::*;

fn key(key_id: &str) -> Question {
    Question::Key { issuer: "gitlab".into(), key_id: key_id.into() }
}

fn id(id: &str) -> Question {
    Question::Id { directory: "dataflow/acme/europe-west4/orders".into(), id: id.into() }
}

#[test]
fn the_same_is_asked_once_and_those_who_come_later_wait_no_longer_than_the_first() {
    let mut lookups = Lookups::default();
    let first = lookups.ask(&key("a"), 1_000, 1).unwrap();
    assert!(matches!(
        &first.send,
        Some(pb::SubscribeRequest { message: Some(Message::KeyLookup(asked)) })
            if asked.issuer == "gitlab" && asked.key_id == "a" && asked.nonce == first.nonce
    ));
    let second = lookups.ask(&key("a"), 1_800, 1).unwrap();
    assert_eq!((second.nonce, second.until_ms, second.send), (first.nonce, 1_900, None));
    assert_eq!(lookups.ask(&key("a"), 1_900, 1), None, "nobody has answered in time");
    let other = lookups.ask(&id("a"), 1_000, 1).unwrap();
    assert!(other.send.is_some() && other.nonce != first.nonce);
}

#[test]
fn an_answer_closes_its_question_and_is_remembered_for_a_while() {
    let mut lookups = Lookups::default();
    let (one, other) = (lookups.ask(&key("a"), 0, 1).unwrap(), lookups.ask(&id("a"), 0, 1).unwrap());
    lookups.answered(one.nonce, false);
    assert!(!lookups.is_open(one.nonce, 1) && lookups.is_open(other.nonce, 1));
    assert_eq!(lookups.ask(&key("a"), 10, 1), None);
    assert_eq!(lookups.ask(&key("a"), 4_999, 1), None);
    assert!(lookups.ask(&key("a"), 5_000, 1).unwrap().send.is_some());
    // Junk changes nothing.
    lookups.answered(0, true);
    lookups.answered(u64::MAX, false);
    assert!(lookups.is_open(other.nonce, 1));
}

#[test]
fn a_lost_stream_answers_nothing_any_more() {
    let mut lookups = Lookups::default();
    let nonces = [lookups.ask(&key("a"), 0, 1).unwrap().nonce, lookups.ask(&id("a"), 0, 1).unwrap().nonce];
    lookups.abandon();
    assert!(nonces.iter().all(|nonce| !lookups.is_open(*nonce, 1)));
}

#[test]
fn made_up_keys_are_bounded_and_do_not_keep_ids_from_being_asked_for() {
    let mut lookups = Lookups::default();
    let asked = (0..100_000).filter(|n| lookups.ask(&key(&n.to_string()), n / 100, 1).is_some()).count();
    assert_eq!(asked, MAX_OF_ISSUER, "within a second");
    let other = Question::Key { issuer: "other".into(), key_id: "rotated".into() };
    assert!(lookups.ask(&other, 1_000, 1).is_some(), "another issuer's keys are asked for all the same");
    let ids = (0..1_000).filter(|n| lookups.ask(&id(&n.to_string()), 1_000, 1).is_some()).count();
    assert_eq!(ids, MAX_REMEMBERED);
    assert!(lookups.ask(&key("real"), 6_000, 1).is_some());
    assert_eq!(lookups.ask(&key(&"x".repeat(257)), 6_000, 1), None, "longer than any key id");
}

#[test]
fn a_clock_that_goes_back_does_not_silence_anything() {
    let mut lookups = Lookups::default();
    lookups.ask(&key("a"), 1_000_000, 1).unwrap();
    assert!(lookups.ask(&key("a"), 10, 1).unwrap().send.is_some());
}

#[test]
fn what_is_found_is_waited_for_until_a_bundle_has_brought_it() {
    let mut lookups = Lookups::default();
    let nonce = lookups.ask(&id("a"), 0, 7).unwrap().nonce;
    lookups.answered(nonce, true);
    assert!(lookups.is_open(nonce, 7), "it is announced, and has not come");
    assert_eq!(lookups.ask(&id("a"), 10, 7).unwrap().nonce, nonce);
    assert!(!lookups.is_open(nonce, 8));
    assert_eq!(lookups.ask(&id("a"), 10, 8), None);
    // The Bundle may come first.
    let nonce = lookups.ask(&id("b"), 0, 8).unwrap().nonce;
    assert!(lookups.is_open(nonce, 9));
    lookups.answered(nonce, true);
    assert!(!lookups.is_open(nonce, 9));
}
