use base64::Engine;
use serde_json::{Value, json};
use tidegate::serve::{Options, Running};
use tidegate_identity::IssuerSet;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;

use crate::fixture::*;
use crate::issuer::{Issuer, key};

/// Two workloads, each of which trusts one of two issuers; nobody trusts a third.
fn rules(one: &Issuer, two: &Issuer) -> String {
    let mut rules = MESH.to_owned();
    for (name, issuer, app) in [("one", one, "orders"), ("two", two, "ledger"), ("unused", two, "")] {
        let url = issuer.url(if app.is_empty() { "/unused" } else { "" });
        rules.push_str(&format!(
            r#"---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {{name: {name}}}
spec: {{issuer: "{url}", pack: gitlab, keys: {{jwksUri: "{}"}}}}
"#,
            issuer.url(if app.is_empty() { "/unused" } else { "/keys" })
        ));
        if !app.is_empty() {
            rules.push_str(&format!(
                r#"---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: {name}, namespace: sales}}
spec:
  owner: billing
  target: {{selector: {{matchLabels: {{app: {app}}}}}}}
  effect: Allow
  mode: Enforce
  from: [{{anyMesh: true, tokens: [{{issuer: {name}, gitlab: {{project: 4711}}}}]}}]
  to: [{{http: {{methods: [POST], paths: ["/v1/orders"]}}}}]
"#
            ));
        }
    }
    rules
}

fn publish(issuer: &Issuer, keys: &[&Value]) {
    issuer.answer("/keys", &json!({"keys": keys}).to_string());
}

async fn start(place: &Place, issuers: &[&Issuer]) -> Running {
    let mut issuer_ca = Vec::new();
    for (number, issuer) in issuers.iter().enumerate() {
        let path = place.folder.path().join(format!("ca-{number}.pem"));
        let encoded = base64::engine::general_purpose::STANDARD.encode(&issuer.authority);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
        std::fs::write(&path, pem).unwrap();
        issuer_ca.push(path);
    }
    let options = Options { issuer_ca, allow_issuer_loopback: true, ..place.options() };
    let mut running = tidegate::serve::start(options).await.unwrap();
    tokio::time::timeout(PATIENCE, running.ready()).await.unwrap().unwrap();
    running
}

/// The key ids of an issuer in the keys section of a push.
fn key_ids(received: &Received, issuer: &str) -> Vec<String> {
    let section = received.manifest.sections.iter().find(|section| section.kind() == pb::SectionKind::Keys);
    let set = IssuerSet::decode(&received.sections[&section.unwrap().sha256]).unwrap();
    let issuer = set.issuers().iter().find(|found| found.name() == issuer).unwrap();
    issuer.keys().iter().map(|key| key.jwk().key_id().unwrap().to_owned()).collect()
}

async fn ask(filter: &Filter, nonce: u64, issuer: &str, key_id: &str) {
    let lookup = pb::KeyLookup { nonce, issuer: issuer.into(), key_id: key_id.into() };
    filter.send(Up::KeyLookup(lookup)).await;
}

async fn answer(filter: &mut Filter) -> (u64, bool) {
    match filter.message().await.unwrap() {
        Some(Down::LookupResult(result)) => (result.nonce, result.listed),
        message => panic!("{message:?}"),
    }
}

#[tokio::test]
async fn an_unknown_key_is_fetched_pushed_and_then_answered() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    let (k1, k2) = (key("k1"), key("k2"));
    publish(&one, &[&k1]);
    publish(&two, &[&k1]);
    let place = Place::new(&[("rules.yaml", &rules(&one, &two))]);
    let running = start(&place, &[&one, &two]).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let mut bystander = Filter::connect(&running, hello("sales/ledger")).await;
    let first = filter.install().await;
    bystander.install().await;
    assert_eq!(key_ids(&first, "one"), ["k1"]);

    // The issuer rotates; a filter sees the new key before anybody else does.
    publish(&one, &[&k1, &k2]);
    ask(&filter, 1, "one", "k2").await;
    let second = filter.receive().await;
    assert_eq!(key_ids(&second, "one"), ["k1", "k2"]);
    assert_eq!(second.sections.len(), 1, "only the keys travel");
    filter.expect_silence().await;
    filter.ack(&second).await;
    assert_eq!(answer(&mut filter).await, (1, true), "after it is installed");

    // It is there now, and nobody is asked for it.
    let asked = one.asked("/keys");
    ask(&filter, 2, "one", "k2").await;
    assert_eq!(answer(&mut filter).await, (2, true));
    assert_eq!(one.asked("/keys"), asked);

    // Keys that nobody has: one more question reaches the issuer, then none.
    for (nonce, key_id) in [(3, "k3"), (4, "k4"), (5, "k5"), (6, &"x".repeat(300))] {
        ask(&filter, nonce, "one", key_id).await;
        assert_eq!(answer(&mut filter).await, (nonce, false), "{key_id}");
    }
    assert_eq!(one.asked("/keys"), asked + 1);
    for (nonce, issuer) in [(7, "unused"), (8, "nobody"), (9, "")] {
        ask(&filter, nonce, issuer, "k1").await;
        assert_eq!(answer(&mut filter).await, (nonce, false), "{issuer}");
    }
    assert_eq!(two.asked("/unused"), 0, "no rule names it");
    bystander.expect_silence().await;
    assert_eq!(two.asked("/keys"), 1, "the other issuer is left alone");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn another_key_under_the_same_id_is_pushed_and_a_withdrawn_one_goes() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    publish(&one, &[&key("k1"), &key("k2")]);
    publish(&two, &[&key("k1")]);
    let place = Place::new(&[("rules.yaml", &rules(&one, &two))]);
    let running = start(&place, &[&one, &two]).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    publish(&one, &[&key("k1")]);
    ask(&filter, 1, "one", "k1").await;
    let second = filter.install().await;
    assert_eq!(key_ids(&second, "one"), ["k1"]);
    assert_ne!(first.named(), second.named());
    assert_eq!(answer(&mut filter).await, (1, true));
    let replaced = |issuers: &Value| issuers[0]["alerts"][0]["alert"] == "keys_replaced_wholly";
    get_until(&running, "/issuers", replaced).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_misbehaves_changes_nothing_but_what_is_told_of_it() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    publish(&one, &[&key("k1")]);
    publish(&two, &[&key("k1")]);
    let place = Place::new(&[("rules.yaml", &rules(&one, &two))]);
    let running = start(&place, &[&one, &two]).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let mut bystander = Filter::connect(&running, hello("sales/ledger")).await;
    filter.install().await;
    bystander.install().await;
    one.redirect("/keys", "http://169.254.169.254/latest/meta-data/");
    ask(&filter, 1, "one", "k2").await;
    assert_eq!(answer(&mut filter).await, (1, false));
    let issuers = get_until(&running, "/issuers", |issuers| issuers[0]["error"].is_string()).await;
    assert!(issuers[0]["error"].as_str().unwrap().contains("another host"), "{issuers}");
    assert_eq!((&issuers[0]["keys"][0]["keyId"], &issuers[0]["alerts"]), (&"k1".into(), &json!([])));
    assert_eq!((&issuers[1]["name"], &issuers[1]["error"]), (&"two".into(), &Value::Null));
    assert_eq!((&issuers[2]["name"], &issuers[2]["used"]), (&"unused".into(), &false.into()));
    filter.expect_silence().await;
    bystander.expect_silence().await;
    let (_, metrics) = get(&running, "/metrics").await;
    for line in [
        r#"tidegate_key_fetches_total{issuer="one",result="ok"} 1"#,
        r#"tidegate_key_fetches_total{issuer="one",result="failed"} 1"#,
        r#"tidegate_key_fetches_total{issuer="two",result="ok"} 1"#,
        r#"tidegate_issuer_keys{issuer="one"} 1"#,
        r#"tidegate_issuer_alert{issuer="one",alert="no_keys"} 0"#,
        r#"tidegate_key_lookups_total{reason="unknown"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // It recovers by itself.
    publish(&one, &[&key("k1"), &key("k2")]);
    assert_eq!(key_ids(&filter.install().await, "one"), ["k1", "k2"]);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_uses_which_issuer_is_told() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    publish(&one, &[&key("k1")]);
    publish(&two, &[&key("k1")]);
    let place = Place::new(&[("rules.yaml", &rules(&one, &two))]);
    let running = start(&place, &[&one, &two]).await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let used = pb::IssuerUse {
        issuer: "one".into(),
        verified: 4,
        refused: 1,
        last_verified_at: 1_700_000_000,
        keys_valid_until: 0,
    };
    filter.send(Up::Receipt(pb::Receipt { issuers: vec![used], ..Default::default() })).await;
    let usage = get_until(&running, "/usage", |usage| usage["uses"] != json!([])).await;
    let expected = json!({
        "workload": WORKLOAD, "issuer": "one", "verified": 4, "refused": 1, "lastVerifiedAt": 1_700_000_000
    });
    assert_eq!(usage["uses"], json!([expected]));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_commands_tell_of_a_running_control_plane() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    publish(&one, &[&key("k1")]);
    publish(&two, &[&key("k1")]);
    let place = Place::new(&[("rules.yaml", &rules(&one, &two))]);
    let running = start(&place, &[&one, &two]).await;
    let admin = running.admin_addr.to_string();
    let rules = place.rules().to_str().unwrap().to_owned();
    let run = async |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let run = move || {
            std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, told, _) = run(&["keys", "status", "--admin", &admin]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("one     gitlab  1 ") && told.contains("no rule names it"), "{told}");
    let (code, told, _) = run(&["keys", "status", "--admin", &admin, "-o", "json", "one"]).await;
    let reports: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, reports[0]["keys"][0]["keyId"].as_str()), (Some(0), Some("k1")));
    let (code, _, error) = run(&["keys", "status", "--admin", &admin, "three"]).await;
    assert_eq!(code, Some(3));
    assert!(error.contains("`three`") && error.contains("one, two, unused"), "{error}");

    let migration = ["issuer", "migration", "one", "two", "--rules", &rules, "--admin", &admin];
    let (code, told, _) = run(&migration).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("AccessRule sales/one") && told.contains("none was seen"), "{told}");
    let (code, told, _) =
        run(&["issuer", "migration", "unused", "two", "--rules", &rules, "--admin", &admin]).await;
    assert_eq!(code, Some(0), "{told}");
    let (code, _, error) = run(&["issuer", "migration", "three", "two", "--rules", &rules]).await;
    assert_eq!(code, Some(3));
    assert!(error.contains("no TrustedIssuer `three`"), "{error}");
    running.shutdown().await.unwrap();

    let (code, _, error) = run(&["keys", "status", "--admin", &admin]).await;
    assert_eq!(code, Some(3));
    assert!(error.contains("--admin"), "{error}");
}
