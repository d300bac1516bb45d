use super::*;
use crate::decisions::record::RuleSource;
use crate::uses::Away;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn rule(name: &str, verdict: Verdict) -> RuleUse {
    RuleUse {
        rule: name.to_owned(),
        verdict,
        why: vec![],
        first_seen: NOW - 40 * DAY,
        counted_since: Some(NOW - 40 * DAY),
        last_used: None,
        count: 0,
        proxies: 2,
        counting: 2,
        workloads: 1,
        at: vec!["sales/orders".to_owned()],
        source: None,
    }
}

#[test]
fn what_is_not_used_is_told_apart_from_what_nobody_knows() {
    let source = RuleSource {
        file: "orders.yaml".to_owned(),
        line: 14,
        commit: None,
        author: None,
        committed: None,
        by_annotations: false,
    };
    let report = UnusedReport {
        since: NOW - 30 * DAY,
        began: Some(NOW - 40 * DAY),
        away: vec![Away { from: NOW - DAY, until: NOW - DAY + 600 }],
        used: 7,
        rules: vec![
            RuleUse { source: Some(source), ..rule("sales/old", Verdict::Unused) },
            RuleUse { counted_since: Some(NOW - DAY), ..rule("sales/new", Verdict::TooEarly) },
            RuleUse {
                why: vec!["1 of 2 proxies of `sales/orders` do not count".to_owned()],
                counted_since: None,
                ..rule("sales/unknown\u{1b}[2J", Verdict::Unknown)
            },
        ],
    };
    let expected = "\
NOT USED since 2026-12-16T08:00Z
  RULE     LAST USED  COUNTED SINCE      PROXIES  WRITTEN
  sales/old  never      2026-12-06T08:00Z  2 of 2   orders.yaml:14
TOO EARLY to say: no use so far, not counted for long enough
  RULE     LAST USED  COUNTED SINCE      PROXIES  WRITTEN
  sales/new  never      2027-01-14T08:00Z  2 of 2
CANNOT BE TOLD: no use is known, and not everything is counted
  sales/unknown\\u{1b}[2J
      1 of 2 proxies of `sales/orders` do not count
Nothing was heard from 2027-01-14T08:00Z to 2027-01-14T08:10Z: proxies that ended meanwhile have not told what they counted.
7 grants used since 2026-12-16T08:00Z, 3 not as far as known. Counting began 2026-12-06T08:00Z.
next: tidegate decisions --rule sales/old --since 30d
";
    let expected = expected.replace("  RULE     LAST", "  RULE       LAST");
    assert_eq!(shown(&report, NOW, Style::Plain), expected);
}

#[test]
fn nothing_is_claimed_before_anything_is_counted() {
    let report = UnusedReport { since: NOW, began: None, away: vec![], used: 0, rules: vec![] };
    assert!(shown(&report, NOW, Style::Plain).starts_with("This control plane has not begun"));
}
