use super::*;

const NOW: i64 = 1_800_000_000;

#[test]
fn keys_are_told_with_who_would_miss_them() {
    let key = |id: &str, state, since, workloads, at: &[&str]| KeyForecast {
        key_id: Some(id.to_owned()),
        state,
        since,
        last_verified: Some(NOW - 180).filter(|_| workloads > 0),
        verified: 3,
        workloads,
        at: at.iter().map(|&one| one.to_owned()).collect(),
    };
    let mut forecast = Forecast {
        began: Some(NOW - 86_400),
        heard_since: Some(NOW - 7_200),
        filters: 3,
        counting: 2,
        issuers: vec![IssuerForecast {
            name: "gitlab".to_owned(),
            valid_until: Some(NOW + 50 * 3_600),
            error: None,
            proxies: 3,
            counting: 3,
            why: vec!["all proxies have been heard for 2 h only".to_owned()],
            keys: vec![
                key("ab12", KeyState::Leaving, Some(NOW - 90 * 86_400), 9, &["sales/orders", "sales/ledger"]),
                key("cd34", KeyState::Unknown, Some(NOW - 10_800), 0, &[]),
            ],
        }],
    };
    let expected = "\
gitlab  keys count for 2 days without another answer of the issuer
  KEY   STATE    PUBLISHED FOR  LAST TOKEN  WORKLOADS
  ab12  LEAVING  90 days        3 min ago   9: sales/orders, sales/ledger, …
  cd34  unknown  3 h            none seen   0
  Whether nobody uses the others is not known: all proxies have been heard for 2 h only.
1 of 3 filters do not tell which keys they see: their version is too old.
Counted since 2027-01-14T08:00Z, and heard without a gap since 2027-01-15T06:00Z.
";
    assert_eq!(shown(&forecast, NOW, Style::Plain), expected);
    forecast.issuers[0].keys[1].state = KeyState::Idle;
    let told = shown(&forecast, NOW, Style::Plain);
    assert!(told.contains("  cd34  idle ") && !told.contains("not known"), "{told}");
    forecast.heard_since = None;
    assert!(shown(&forecast, NOW, Style::Plain).contains("08:00Z; nothing is heard now.\n"));
    assert!(!ends_soon(&forecast.issuers[0], NOW));
    forecast.issuers[0].valid_until = Some(NOW + 3_600);
    forecast.issuers[0].error = Some("no answer".to_owned());
    assert!(ends_soon(&forecast.issuers[0], NOW));
    assert!(shown(&forecast, NOW, Style::Plain).contains("they cannot be fetched: no answer"));
    forecast.issuers[0].keys[0] = key("ab12", KeyState::GoneInUse, None, 2, &["sales/orders"]);
    assert!(shown(&forecast, NOW, Style::Plain).contains("1 key was in use when the issuer withdrew it"));
}
