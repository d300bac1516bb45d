//! Which rules and keys are used: filters tell, people ask.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tidegate::serve::Running;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::subscribe_request::Message as Up;

use crate::commands::{json, run};
use crate::fixture::*;

fn place() -> Place {
    Place::new(&[
        ("mesh.yaml", MESH),
        ("a.yaml", &rule("writers", "Allow", "/v1/orders")),
        ("b.yaml", &rule("readers", "Allow", "/v1/old")),
        ("c.yaml", &rule("never", "Deny", "/v1/x")),
    ])
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn counting() -> pb::Hello {
    pb::Hello { capabilities: vec![tidegate_proto::USES.into()], ..hello(WORKLOAD) }
}

/// Rules by name.
fn verdict<'r>(report: &'r Value, rule: &str) -> &'r Value {
    report["rules"].as_array().unwrap().iter().find(|found| found["rule"] == rule).unwrap_or(&Value::Null)
}

async fn unused(running: &Running, is_wanted: impl Fn(&Value) -> bool) -> Value {
    get_until(running, "/unused?all=true", is_wanted).await
}

#[tokio::test]
async fn a_filter_tells_which_rules_decide_and_it_is_known_after_a_restart() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, counting()).await;
    filter.install().await;
    let used_at = now();
    let rules = ["sales/writers", "sales/never", "ingress/invented"].map(|rule| pb::RuleUse {
        rule: rule.into(),
        count: 3,
        last_used_at: used_at,
    });
    filter.send(Up::Uses(pb::Uses { rules: rules.into(), keys: vec![] })).await;
    let is_used = |report: &Value| verdict(report, "sales/writers")["verdict"] == "used";
    let report = unused(&running, is_used).await;
    let of_writers = verdict(&report, "sales/writers");
    assert_eq!((&of_writers["count"], &of_writers["lastUsed"]), (&3.into(), &used_at.into()), "{report:#}");
    assert_eq!((&of_writers["counting"], &of_writers["proxies"]), (&1.into(), &1.into()), "{report:#}");
    // It has not been counted for a month; a Deny is no grant.
    assert_eq!(report["rules"].as_array().unwrap().len(), 2, "{report:#}");
    assert_ne!(verdict(&report, "sales/readers")["verdict"], "unused", "{report:#}");
    drop(filter);
    running.shutdown().await.unwrap();

    let running = place.start().await;
    let report = unused(&running, is_used).await;
    assert_eq!(verdict(&report, "sales/writers")["lastUsed"], used_at, "{report:#}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_told_is_not_claimed() {
    let place = place();
    let running = place.start().await;
    let mut old = Filter::connect(&running, hello(WORKLOAD)).await;
    old.install().await;
    let unknown = |report: &Value| verdict(report, "sales/readers")["verdict"] == "unknown";
    let report = unused(&running, unknown).await;
    let why = verdict(&report, "sales/readers")["why"][0].as_str().unwrap();
    assert!(why.starts_with("1 of 1 proxies of `sales/orders` do not count"), "{report:#}");
    let admin = running.admin_addr.to_string();
    let asked = |arguments: &'static [&'static str]| {
        let (admin, folder) = (admin.clone(), place.rules());
        let all = move || run(&folder, &[arguments, &["--admin", &admin]].concat(), "");
        async { tokio::task::spawn_blocking(all).await.unwrap() }
    };
    let told = asked(&["unused"]).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.starts_with("CANNOT BE TOLD"), "{}", told.out);
    let told = asked(&["unused", "-o", "json", "--since", "90d"]).await;
    assert_eq!((told.code, json(&told.out)["used"].as_u64()), (0, Some(0)), "{told:?}");
    assert_eq!(asked(&["keys", "forecast"]).await.out, "No rule in force names a TrustedIssuer.\n");
    assert_eq!(asked(&["keys", "forecast", "nobody"]).await.code, 3);
    for bad in ["/unused?since=x", "/unused?since=99999999999", "/unused?rule=a"] {
        assert_eq!(get(&running, bad).await.0, 400, "{bad}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_damaged_count_begins_anew_and_says_since_when() {
    let place = place();
    std::fs::create_dir_all(place.state()).unwrap();
    std::fs::write(place.state().join("uses.json"), "{").unwrap();
    let begun = now();
    let running = place.start().await;
    let report = unused(&running, |report| report["began"].is_i64()).await;
    assert!(report["began"].as_i64().unwrap() >= begun, "{report:#}");
    let forecast = json(&get(&running, "/keys/forecast").await.1);
    assert_eq!(forecast["issuers"], Value::Array(vec![]), "{forecast:#}");
    running.shutdown().await.unwrap();
}
