use super::*;
use crate::keys::{Alert, AlertReport};

const NOW: i64 = 1_800_000_000;

fn report(name: &str) -> IssuerReport {
    IssuerReport {
        name: name.into(),
        issuers: vec![format!("https://{name}.example")],
        pack: "generic".into(),
        used: true,
        source: SourceReport::Discovery(format!("https://{name}.example")),
        keys: vec![KeyReport {
            key_id: Some("k1".into()),
            algorithm: Some("RS256".into()),
            kind: "RSA 2048".into(),
            thumbprint: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".into(),
            since: NOW - 12 * 86_400,
            issuer: None,
        }],
        refused: vec![],
        valid_until: Some(NOW + 50 * 3_600),
        fetched_at: Some(NOW - 130),
        next_fetch_at: Some(NOW + 170),
        error: None,
        alerts: vec![],
    }
}

#[test]
fn an_issuer_in_good_order_is_told_with_its_keys() {
    let expected = "\
ISSUER  PACK     KEYS  FETCHED    COUNT FOR  STATE
gitlab  generic  1     2 min ago  2 days     good

gitlab
  issuer    https://gitlab.example
  from      where the metadata of https://gitlab.example says
  key       k1  RSA 2048 for RS256, known for 12 days
  count     until 2027-01-17T10:00Z
  next      fetch in 2 min
";
    assert_eq!(describe(&[report("gitlab")], NOW), expected);
}

#[test]
fn what_wants_attention_stands_in_the_table_and_is_explained() {
    let wrong = IssuerReport {
        fetched_at: Some(NOW - 31 * 3_600),
        valid_until: Some(NOW + 17 * 3_600),
        error: Some("`https://cluster.example/keys`: answered 503".into()),
        alerts: vec![AlertReport {
            alert: Alert::KeysExpireSoon,
            text: "its keys cannot be fetched, and its tokens will be refused within a day: no route".into(),
        }],
        ..report("cluster")
    };
    let inline = IssuerReport {
        source: SourceReport::Inline,
        fetched_at: None,
        valid_until: None,
        next_fetch_at: None,
        ..report("inline")
    };
    let unused =
        IssuerReport { used: false, keys: vec![], fetched_at: None, valid_until: None, ..report("spare") };
    let text = describe(&[wrong, inline, unused], NOW);
    for line in [
        "cluster  generic  1     31 h ago      17 h       keys_expire_soon",
        "inline   generic  1     in the rules  always     good",
        "spare    generic  0     -             -          no rule names it",
        "  ATTENTION keys_expire_soon: its keys cannot be fetched, and its tokens will be refused within a",
        "            day: no route",
        "  failed    `https://cluster.example/keys`: answered 503",
        "  keys      not fetched: no rule names it",
        "1 thing wants attention.",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}:\n{text}");
    }
}

#[test]
fn key_ids_of_an_issuer_neither_command_the_terminal_nor_fill_it() {
    let mut hostile = report("gitlab");
    hostile.keys[0].key_id = Some(format!("\u{1b}]0;owned\u{7}{}", "é".repeat(300)));
    let text = describe(&[hostile], NOW);
    assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    assert!(text.contains("é…") && text.len() < 700, "{text}");
}

#[test]
fn an_unknown_name_is_told_with_those_that_there_are() {
    let error = chosen(vec![report("gitlab"), report("google")], &["gitlub".into()]).unwrap_err().to_string();
    assert!(error.contains("`gitlub`") && error.contains("gitlab, google"), "{error}");
    let chosen = chosen(vec![report("gitlab"), report("google")], &["google".into()]).unwrap();
    assert_eq!(chosen.iter().map(|report| report.name.as_str()).collect::<Vec<_>>(), ["google"]);
}
