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
        filters: 3,
        counting: 2,
        issuers: vec![IssuerForecast {
            name: "gitlab".to_owned(),
            valid_until: Some(NOW + 50 * 3_600),
            error: None,
            keys: vec![
                key("ab12", KeyState::Leaving, Some(NOW - 90 * 86_400), 9, &["sales/orders", "sales/ledger"]),
                key("cd34", KeyState::Idle, Some(NOW - 10_800), 0, &[]),
            ],
        }],
    };
    let expected = "\
gitlab  keys count for 2 days without another answer of the issuer
  KEY   STATE    PUBLISHED FOR  LAST TOKEN  WORKLOADS
  ab12  LEAVING  90 days        3 min ago   9: sales/orders, sales/ledger, …
  cd34  idle     3 h            none seen   0
1 of 3 filters do not tell which keys they see: their version is too old.
Counted since 2027-01-14T08:00Z.
";
    assert_eq!(shown(&forecast, NOW, Style::Plain), expected);
    assert!(!ends_soon(&forecast.issuers[0], NOW));
    forecast.issuers[0].valid_until = Some(NOW + 3_600);
    forecast.issuers[0].error = Some("no answer".to_owned());
    assert!(ends_soon(&forecast.issuers[0], NOW));
    assert!(shown(&forecast, NOW, Style::Plain).contains("they cannot be fetched: no answer"));
    forecast.issuers[0].keys[0] = key("ab12", KeyState::GoneInUse, None, 2, &["sales/orders"]);
    assert!(shown(&forecast, NOW, Style::Plain).contains("1 key was in use when the issuer withdrew it"));
}
