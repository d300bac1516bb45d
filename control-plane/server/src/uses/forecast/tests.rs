use super::super::testing::{DAY, NOW, ORDERS, enforce, fleet, key, look};
use super::*;
use crate::keys::SourceReport;

fn issuer(name: &str, valid_until: i64, keys: &[(&str, i64)]) -> IssuerReport {
    let key = |(id, since): &(&str, i64)| KeyReport {
        key_id: Some((*id).to_owned()),
        algorithm: None,
        kind: "P-256".to_owned(),
        thumbprint: (*id).to_owned(),
        since: *since,
        issuer: None,
    };
    IssuerReport {
        name: name.to_owned(),
        issuers: vec![],
        pack: "generic".to_owned(),
        used: true,
        source: SourceReport::Inline,
        keys: keys.iter().map(key).collect(),
        refused: vec![],
        valid_until: Some(valid_until),
        fetched_at: None,
        next_fetch_at: None,
        error: None,
        alerts: vec![],
    }
}

fn states(forecast: &Forecast) -> Vec<(&str, KeyState, usize)> {
    let keys = forecast.issuers.iter().flat_map(|issuer| &issuer.keys);
    keys.map(|key| (key.key_id.as_deref().unwrap_or_default(), key.state, key.workloads)).collect()
}

#[test]
fn an_old_key_that_is_still_used_beside_a_younger_one_is_told_before_it_goes() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW - DAY);
    ledger.told(ORDERS, &key("gitlab", "old", NOW - 60), NOW);
    let both = [issuer("gitlab", NOW + DAY, &[("old", NOW - 90 * DAY), ("new", NOW - 3_600)])];
    look(&ledger, &fleet(&[("pod-1", true)]), NOW - DAY, NOW);
    let found = forecast(&ledger, &both, &fleet(&[("pod-1", true)]), NOW);
    assert_eq!(states(&found), [("old", KeyState::Leaving, 1), ("new", KeyState::Idle, 0)]);
    assert_eq!((found.heard_since, found.issuers[0].why.len()), (Some(NOW - DAY), 0));
    // Of one of two nobody knows what it sees.
    let found = forecast(&ledger, &both, &fleet(&[("pod-1", true), ("pod-2", false)]), NOW);
    assert_eq!(states(&found), [("old", KeyState::Leaving, 1), ("new", KeyState::Unknown, 0)]);
    assert_eq!((found.filters, found.counting), (2, 1));
    assert_eq!((found.issuers[0].proxies, found.issuers[0].counting, found.issuers[0].why.len()), (2, 1, 1));
    assert_eq!(found.issuers[0].keys[0].at, [ORDERS]);
    // Everybody has gone over to the new one.
    ledger.told(ORDERS, &key("gitlab", "new", NOW + 2 * DAY), NOW + 2 * DAY);
    look(&ledger, &fleet(&[]), NOW, NOW + 2 * DAY);
    let found = forecast(&ledger, &both, &fleet(&[]), NOW + 2 * DAY);
    assert_eq!(states(&found), [("new", KeyState::InUse, 1), ("old", KeyState::Idle, 0)]);
}

#[test]
fn a_key_that_went_while_it_was_used_is_told_from_one_that_nobody_misses() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW - DAY);
    ledger.told(ORDERS, &key("gitlab", "missed", NOW - 60), NOW);
    ledger.told(ORDERS, &key("gitlab", "forgotten", NOW - DAY), NOW);
    look(&ledger, &fleet(&[]), NOW - DAY, NOW + 3_600);
    let left = [issuer("gitlab", NOW + DAY, &[("new", NOW)])];
    ledger.published(&left, NOW);
    let found = forecast(&ledger, &left, &fleet(&[]), NOW + 3_600);
    let expected =
        [("missed", KeyState::GoneInUse, 1), ("new", KeyState::Idle, 0), ("forgotten", KeyState::Gone, 0)];
    assert_eq!(states(&found), expected);
    assert!(found.issuers[0].keys[0].state.wants_attention());
    // A day later it is history, and another week later nothing.
    assert_eq!(states(&forecast(&ledger, &left, &fleet(&[]), NOW + DAY))[1].1, KeyState::Gone);
    assert_eq!(states(&forecast(&ledger, &left, &fleet(&[]), NOW + 9 * DAY)).len(), 1);
    // It comes back: an issuer that rolls back.
    let back = [issuer("gitlab", NOW + DAY, &[("missed", NOW), ("new", NOW)])];
    ledger.published(&back, NOW + 60);
    assert_eq!(states(&forecast(&ledger, &back, &fleet(&[]), NOW + 60))[0], ("missed", KeyState::InUse, 1));
}

#[test]
fn issuers_are_told_in_the_order_in_which_their_keys_cease_to_count() {
    let issuers = [
        issuer("later", NOW + 2 * DAY, &[("a", NOW)]),
        IssuerReport { valid_until: None, ..issuer("always", 0, &[]) },
        issuer("soon", NOW + 60, &[("a", NOW)]),
        IssuerReport { used: false, ..issuer("unused", NOW, &[("a", NOW)]) },
    ];
    let ledger = Ledger::default();
    let found = forecast(&ledger, &issuers, &fleet(&[]), NOW);
    let names: Vec<_> = found.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    assert_eq!((names, found.began), (vec!["soon", "later", "always"], None));
}

/// A replica that leads since a moment ago, or leads again, has not heard what filters told the one before.
#[test]
fn what_was_not_heard_is_not_said_to_be_unused() {
    let issuers = [issuer("gitlab", NOW + 90 * DAY, &[("old", NOW - 90 * DAY), ("new", NOW - 3_600)])];
    let pods = fleet(&[("pod-1", true)]);
    let found = |ledger: &Ledger, now| forecast(ledger, &issuers, &pods, now);
    let unknown = [("new", KeyState::Unknown, 0), ("old", KeyState::Unknown, 0)];
    let idle = [("new", KeyState::Idle, 0), ("old", KeyState::Idle, 0)];
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW);
    assert_eq!(states(&found(&ledger, NOW)), unknown, "it has heard nothing yet");
    assert_eq!(found(&ledger, NOW).heard_since, None);
    look(&ledger, &pods, NOW, NOW + DAY - 60);
    let early = found(&ledger, NOW + DAY - 60);
    assert_eq!((states(&early), early.heard_since), (unknown.to_vec(), Some(NOW)));
    assert!(early.issuers[0].why[0].contains("for 23 h only"), "{:?}", early.issuers[0].why);
    look(&ledger, &pods, NOW + DAY, NOW + DAY);
    assert_eq!(states(&found(&ledger, NOW + DAY)), idle);
    // Another one led for an hour.
    let back = NOW + DAY + 3_600;
    let away = found(&ledger, back);
    assert_eq!((states(&away), away.heard_since), (unknown.to_vec(), None));
    look(&ledger, &pods, back, back + DAY - 60);
    assert_eq!(states(&found(&ledger, back + DAY - 60)), unknown);
    assert_eq!(found(&ledger, back + DAY - 60).heard_since, Some(back));
    look(&ledger, &pods, back + DAY, back + DAY);
    assert_eq!(states(&found(&ledger, back + DAY)), idle);
    // A filter that does not tell was there for a moment, and is gone.
    look(&ledger, &fleet(&[("pod-1", false)]), back + DAY + 60, back + DAY + 60);
    look(&ledger, &pods, back + DAY + 120, back + DAY + 120);
    assert_eq!(states(&found(&ledger, back + DAY + 120)), unknown);
    // What was heard, was.
    ledger.told(ORDERS, &key("gitlab", "old", back + DAY), back + DAY);
    assert_eq!(states(&found(&ledger, back + DAY + 120))[0], ("old", KeyState::Leaving, 1));
}

#[test]
fn a_key_that_went_while_nobody_listened_is_not_said_to_be_missed_by_nobody() {
    let left = [issuer("gitlab", NOW + 90 * DAY, &[])];
    for (began, expected) in [(NOW - 3_600, KeyState::Gone), (NOW - 3_540, KeyState::Unknown)] {
        let ledger = Ledger::default();
        enforce(&ledger, &["sales/a"], NOW - 3_600);
        ledger.told(ORDERS, &key("gitlab", "old", NOW - 7_200), NOW - 60);
        look(&ledger, &fleet(&[]), began, NOW);
        ledger.published(&left, NOW);
        assert_eq!(states(&forecast(&ledger, &left, &fleet(&[]), NOW)), [("old", expected, 1)]);
    }
}
