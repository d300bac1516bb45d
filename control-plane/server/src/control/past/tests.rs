use serde_json::json;

use super::*;
use crate::control::{AskedRevocation, AskedSuspension};

const NOW: i64 = 1_000_000;

fn revoke(kept: &mut Kept, id: &str, now: i64) -> String {
    let target = Target::Token { issuer: "gitlab".into(), id: id.into() };
    let asked = AskedRevocation { target, seconds: 60, reason: "leaked".into() };
    kept.begin_past(now);
    kept.forget(now);
    kept.revoke(asked, None, "ann", now).unwrap().id
}

fn suspend(kept: &mut Kept, by: &str, now: i64) -> String {
    let (workload, ticket) = ("sales/orders".to_owned(), "OPS-7".to_owned());
    kept.begin_past(now);
    kept.forget(now);
    kept.suspend(AskedSuspension { workload, seconds: 60, reason: "close".into(), ticket }, by, now)
        .unwrap()
        .id
}

fn pin(number: u64, by: &str, at: i64) -> Pin {
    Pin { number, digest: "3fa9c2aa11".into(), reason: "18 is bad".into(), by: by.into(), at }
}

/// What happened: kind and id, since when, until when, how it ended and by whom.
fn told(kept: &Kept, now: i64) -> Vec<String> {
    let all = kept.interventions(now).into_iter();
    all.map(|one| {
        let end = one.end.map_or("in force".to_owned(), |end| {
            format!("{} {} {}", end.at - NOW, end.how.word(), end.by.unwrap_or_default())
        });
        format!("{} {} {} {}", one.kind.word(), one.id, one.at - NOW, end.trim_end())
    })
    .collect()
}

#[test]
fn how_everything_ended_and_by_whom_is_kept() {
    let mut kept = Kept::default();
    assert_eq!(kept.interventions_since(NOW), 0, "nobody has done anything");
    let leaked = revoke(&mut kept, "secret-jti", NOW);
    let first = suspend(&mut kept, "ann", NOW + 1);
    let second = suspend(&mut kept, "bob", NOW + 2);
    kept.pin(pin(17, "ann", NOW + 3));
    kept.pin(pin(16, "bob", NOW + 4));
    assert!(
        kept.lift(&leaked, "cy", NOW + 5)
            && !kept.lift(&leaked, "cy", NOW + 5)
            && !kept.lift(&first, "cy", NOW + 5)
    );
    assert_eq!(kept.unpin("cy", NOW + 6).unwrap().number, 16);
    assert_eq!(kept.unpin("cy", NOW + 6), None);
    let ended = [
        "suspended s-2 1 2 replaced bob",
        "pinned  3 4 replaced bob",
        "revoked r-1 0 5 lifted cy",
        "pinned  4 6 lifted cy",
    ];
    assert_eq!(told(&kept, NOW + 61), [&ended[..], &["suspended s-3 2 in force"]].concat());
    let by_time = [&ended[..], &["suspended s-3 2 62 its time was over"]].concat();
    assert_eq!(told(&kept, NOW + 62), by_time);
    // However late it is noticed, by whichever change.
    let mut lifted = kept.clone();
    assert!(lifted.lift(&second, "cy", NOW + 70));
    assert_eq!(told(&lifted, NOW + 70), by_time);
    kept.forget(NOW + 62 + 3_600);
    assert!(kept.suspensions.is_empty());
    assert_eq!(told(&kept, NOW + 99_999), by_time);
    assert_eq!(kept.interventions_since(NOW + 99_999), 0);
    assert_eq!(kept.clone().at(i64::MAX).interventions(NOW), kept.interventions(NOW));
    let text = serde_json::to_string(&kept).unwrap();
    assert!(!text.contains("secret-jti") && text.contains("a token of gitlab"), "{text}");
    assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
}

#[test]
fn it_is_bounded_by_count_and_bytes_and_says_since_when_it_is_whole() {
    let mut kept = Kept::default();
    for at in 0..1_002 {
        let id = revoke(&mut kept, "x", NOW + at);
        assert!(kept.lift(&id, "cy", NOW + at));
    }
    let all = kept.interventions(NOW);
    assert!(all.len() <= MAX && kept.past.bytes() <= MAX_BYTES, "{}", all.len());
    let gone = i64::try_from(1_002 - all.len()).unwrap();
    assert!(gone >= 2);
    assert_eq!((all[0].at, kept.interventions_since(NOW)), (NOW + gone, NOW + gone));
    // What is in force needs the room.
    let (bytes, count) = (kept.past.bytes(), all.len());
    assert!(kept.past.make_room(1_000) && kept.past.bytes() <= bytes - 1_000);
    let left = kept.interventions(NOW);
    assert!(left.len() < count && left.len() > count - 20);
    assert_eq!(kept.interventions_since(NOW), left[0].at);
    assert!(!kept.past.make_room(MAX_BYTES + 1));
}

#[test]
fn a_control_plane_that_did_not_write_it_down_before_says_from_when_on_it_does() {
    let text = json!({"revision": 7, "given": 4, "pin": null, "revocations": [], "suspensions": []});
    let mut old: Kept = serde_json::from_value(text).unwrap();
    assert_eq!((old.interventions(NOW), old.interventions_since(NOW)), (vec![], NOW));
    revoke(&mut old, "x", NOW + 5);
    assert_eq!(old.interventions_since(NOW + 9), NOW + 5);
}

#[test]
fn what_others_wrote_into_the_cluster_is_bounded_too() {
    let good = json!({
        "id": "r-1", "kind": "revoked", "what": "Caller data/etl", "reason": "x", "by": "me", "at": 1, "until": 2,
        "end": {"at": 2, "how": "time"},
    });
    let with = |name: &str, value: serde_json::Value| {
        let mut bad = good.clone();
        bad[name] = value;
        bad
    };
    let odd = [
        with("what", json!("x".repeat(MAX_NAME + 1))),
        with("by", json!("\u{1b}[31m")),
        with("end", json!({"at": 2, "how": "lifted", "by": "a\nb"})),
        with("end", json!(null)),
    ];
    let all: Vec<_> = odd.into_iter().chain(std::iter::repeat_n(good.clone(), 2_000)).collect();
    let spec = json!({
        "revision": 3, "given": 1, "pin": null, "revocations": [], "suspensions": [],
        "past": {"since": 0, "ended": all},
    });
    let kept = serde_json::from_value::<Kept>(spec).unwrap().check(NOW);
    let left = kept.interventions(NOW);
    assert!(
        (500..=MAX).contains(&left.len()) && left.iter().all(|one| one.what == "Caller data/etl"),
        "{}",
        left.len()
    );
    assert_eq!(kept.interventions_since(0), NOW, "when those ended that are left out nobody knows");
    assert_eq!(kept.clone().check(NOW + 9), kept, "once is enough");
}

#[test]
fn what_cannot_be_read_of_it_is_left_out_and_the_rest_counts() {
    let good = json!({
        "id": "r-1", "kind": "revoked", "what": "Caller data/etl", "reason": "x", "by": "me", "at": 1, "until": 2,
        "end": {"at": 2, "how": "time"},
    });
    let mut later = good.clone();
    later["end"]["how"] = "superseded".into();
    let target = json!({"kind": "caller", "name": "data/etl"});
    let revocation = json!({"id": "r-2", "target": target, "reason": "x", "by": "me", "at": 1, "until": 9});
    let read = |past: &serde_json::Value| {
        let spec = json!({
            "revision": 3, "given": 2, "pin": null, "revocations": [revocation], "suspensions": [], "past": past,
        });
        let kept: Kept = serde_json::from_value(spec).unwrap();
        assert_eq!(kept.revocations.len(), 1, "{past}");
        kept.past
    };
    let began = crate::clock::now();
    for (past, left) in [
        (json!({"since": 5, "ended": [good, later, good]}), 2),
        (json!({"since": 5, "ended": [good, 7, null]}), 1),
        (json!({"since": "5", "ended": [good]}), 1),
        (json!({"since": 5, "ended": {}}), 0),
        (json!({"since": 5}), 0),
        (json!({}), 0),
        (json!([good]), 0),
        (json!("x"), 0),
        (json!(null), 0),
    ] {
        let read = read(&past);
        assert_eq!(read.ended.len(), left, "{past}");
        assert!(read.since.unwrap() >= began, "{past}");
    }
    let whole = read(&json!({"since": 5, "ended": [good]}));
    assert_eq!((whole.since, whole.ended.len()), (Some(5), 1));
    assert_eq!(read(&json!({"since": null, "ended": []})), Past::default());
}

#[test]
fn long_names_are_shortened_and_take_no_room_from_the_rest() {
    let mut kept = Kept::default();
    for _ in 0..100 {
        kept.begin_past(NOW);
        let target = Target::Key { issuer: "gitlab".into(), id: "ü".repeat(1_020) };
        let asked = AskedRevocation { target, seconds: 60, reason: "leaked".into() };
        let id = kept.revoke(asked, None, "ann", NOW).unwrap().id;
        assert!(kept.lift(&id, "cy", NOW));
    }
    let text = serde_json::to_string(&kept).unwrap();
    let kept = serde_json::from_str::<Kept>(&text).unwrap().check(NOW);
    let all = kept.interventions(NOW);
    assert_eq!((all.len(), kept.interventions_since(NOW)), (100, 0));
    for one in all {
        assert!(one.what.starts_with("key üü") && one.what.ends_with("ü…"), "{}", one.what);
        assert!((MAX_WHAT - 1..=MAX_WHAT).contains(&one.what.len()), "{}", one.what.len());
    }
    assert_eq!(shortened("x".repeat(MAX_WHAT)), "x".repeat(MAX_WHAT));
}

#[test]
fn of_many_that_end_at_once_each_is_measured_a_few_times() {
    let mut kept = Kept::default();
    revoke(&mut kept, "x", NOW);
    let one = kept.revocations.remove(0);
    kept.revocations = vec![one; 10_000];
    let began = std::time::Instant::now();
    kept.end_what_is_over(NOW + 60);
    // Measuring all of them for each takes minutes.
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert!(kept.revocations.is_empty() && (500..=MAX).contains(&kept.past.ended.len()));
    assert_eq!(kept.past.since, Some(NOW + 61));
}
