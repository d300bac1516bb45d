use super::super::testing::{DAY, NOW, ORDERS, enforce, fleet, key};
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
    let found = forecast(&ledger, &both, &fleet(&[("pod-1", true), ("pod-2", false)]), NOW);
    assert_eq!(states(&found), [("old", KeyState::Leaving, 1), ("new", KeyState::Idle, 0)]);
    assert_eq!((found.filters, found.counting), (2, 1));
    assert_eq!(found.issuers[0].keys[0].at, [ORDERS]);
    // Everybody has gone over to the new one.
    ledger.told(ORDERS, &key("gitlab", "new", NOW + 2 * DAY), NOW + 2 * DAY);
    let found = forecast(&ledger, &both, &fleet(&[]), NOW + 2 * DAY);
    assert_eq!(states(&found), [("new", KeyState::InUse, 1), ("old", KeyState::Idle, 0)]);
}

#[test]
fn a_key_that_went_while_it_was_used_is_told_from_one_that_nobody_misses() {
    let ledger = Ledger::default();
    enforce(&ledger, &["sales/a"], NOW - DAY);
    ledger.told(ORDERS, &key("gitlab", "missed", NOW - 60), NOW);
    ledger.told(ORDERS, &key("gitlab", "forgotten", NOW - DAY), NOW);
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
