//! What people do to what is in force: revoke, suspend, go back.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::serve::Running;
use tidegate_identity::{IssuerSetSpec, RevokedKind};
use tidegate_proto::v1 as pb;

use crate::commands::{Ran, run};
use crate::fixture::*;

const CALLER: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Caller
metadata: {name: etl, namespace: data}
spec: {anyOf: [{peer: {namespace: etl, serviceAccounts: [worker]}}]}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: etl, namespace: sales}
spec:
  owner: billing
  target: {selector: {matchLabels: {app: orders}}}
  effect: Allow
  mode: Enforce
  from: [{caller: data/etl}]
  to: [{http: {methods: [POST], paths: ["/v1/etl"]}}]
"#;

fn place() -> Place {
    Place::new(&[("mesh.yaml", MESH), ("rule.yaml", &rule("a", "Allow", "/v1/first"))])
}

/// With a key that the rules themselves revoke.
fn full() -> Place {
    let place = place();
    let revoking = DATAFLOW_RULE.replace("spec: {issuer:", "spec: {revoked: {keys: [{kid: old}]}, issuer:");
    assert_ne!(revoking, DATAFLOW_RULE);
    place.write("dataflow.yaml", &revoking);
    place.write("caller.yaml", CALLER);
    place
}

async fn post(running: &Running, path: &str, body: Value) -> (u16, String) {
    send(running, "POST", path, "content-type: application/json\r\n", &body.to_string()).await
}

/// Runs the command line against this server; the server goes on meanwhile.
async fn tidegate(running: &Running, arguments: &[&str]) -> Ran {
    let admin = format!("http://{}", running.admin_addr);
    let mut all: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
    all.extend(["--admin".to_owned(), admin]);
    tokio::task::spawn_blocking(move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        run(&std::env::temp_dir(), &all, "")
    })
    .await
    .unwrap()
}

pub fn revoked(received: &Received) -> Vec<(RevokedKind, String)> {
    let keys = received.manifest.sections.iter().find(|one| one.kind() == pb::SectionKind::Keys).unwrap();
    let set = IssuerSetSpec::decode(&received.sections[&keys.sha256]).unwrap();
    set.issuers.into_iter().flat_map(|issuer| issuer.revoked).map(|one| (one.kind, one.value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_pushed_at_once_kept_over_a_restart_and_ends_by_itself() {
    let place = full();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    let by_rules = (RevokedKind::Key, "old".to_owned());
    let both = [by_rules.clone(), (RevokedKind::Key, "k-1".to_owned())];
    assert_eq!(revoked(&first), std::slice::from_ref(&by_rules));
    let ran = tidegate(
        &running,
        &["revoke", "--kid", "k-1", "--issuer", "google", "--for", "24h", "--reason", "leaked"],
    )
    .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("Revoked: key k-1 of google until "), "{ran:?}");
    let second = filter.install().await;
    assert_eq!(revoked(&second), both);
    assert!(second.revision() > first.revision());
    assert_eq!(second.sections.len(), 1, "the rules need not travel");

    running.shutdown().await.unwrap();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    assert_eq!(revoked(&filter.install().await), both);
    let state = get_until(&running, "/control", |_| true).await;
    assert_eq!(state["revocations"][0]["reason"], "leaked");
    let listed = tidegate(&running, &["revoke", "--list"]).await;
    assert!(listed.out.contains("key k-1 of google for another 2"), "{listed:?}");

    // One that is short, beside it.
    let asked =
        json!({"target": {"kind": "token", "issuer": "google", "id": "t"}, "seconds": 10, "reason": "x"});
    assert_eq!(post(&running, "/control/revocations", asked).await.0, 200);
    assert_eq!(revoked(&filter.install().await).len(), 3);
    let began = std::time::Instant::now();
    let after = filter.install().await;
    assert_eq!(revoked(&after), both);
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());

    let lifted = tidegate(&running, &["revoke", "--lift", "r-1"]).await;
    assert_eq!(lifted.code, 0, "{lifted:?}");
    assert_eq!(revoked(&filter.install().await), [by_rules]);
    assert_eq!(tidegate(&running, &["revoke", "--lift", "r-1"]).await.code, 1);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_caller_is_a_deny_of_every_workload_with_its_end_in_it() {
    let place = full();
    let running = place.start().await;
    let mut orders = Filter::connect(&running, hello(WORKLOAD)).await;
    let mut ledger = Filter::connect(&running, hello("sales/ledger")).await;
    let first = orders.install().await;
    assert!(!first.rules_mention("tidegate-revoked"));
    ledger.install().await;
    let ran = tidegate(&running, &["revoke", "data/etl", "--for", "1h", "--reason", "compromised"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let second = orders.install().await;
    assert!(second.rules_mention("mesh-config/tidegate-revoked-r-1"));
    assert!(!second.rules_mention("compromised"), "why is nobody's business there");
    assert!(ledger.install().await.rules_mention("mesh-config/tidegate-revoked-r-1"));

    // Rules that change meanwhile keep it, and a restart does.
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let third = orders.install().await;
    assert!(third.rules_mention("sales/b") && third.rules_mention("tidegate-revoked-r-1"));
    running.shutdown().await.unwrap();
    let running = place.start().await;
    let mut orders = Filter::connect(&running, hello(WORKLOAD)).await;
    assert!(orders.install().await.rules_mention("tidegate-revoked-r-1"));

    // Whoever may change the Caller frees nobody: who it was stays revoked, and who it becomes is.
    place.write(
        "caller.yaml",
        &CALLER.replace("serviceAccounts: [worker]", "serviceAccounts: [other-account]"),
    );
    let other = orders.install().await;
    assert!(other.rules_mention("other-account") && other.rules_mention("worker"));
    place.delete("caller.yaml");
    let gone = orders.install().await;
    assert!(gone.rules_mention("tidegate-revoked-r-1") && gone.rules_mention("worker"));
    assert!(!gone.rules_mention("other-account"));
    let told = tidegate(&running, &["revoke", "--list"]).await;
    assert!(
        told.out.contains("REVOKED     Caller data/etl") && !told.out.contains("NOT REVOKED"),
        "{told:?}"
    );
    place.write("caller.yaml", CALLER);
    assert!(orders.install().await.rules_mention("sales/etl"));
    assert_eq!(tidegate(&running, &["revoke", "--lift", "r-1"]).await.code, 0);
    assert!(!orders.install().await.rules_mention("tidegate-revoked-r-1"));
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_known_by_what_its_tokens_say() {
    let place = full();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let ran = tidegate(
        &running,
        &[
            "revoke",
            "--instance",
            "4570000000000000001",
            "--issuer",
            "google",
            "--for",
            "1h",
            "--reason",
            "x",
        ],
    )
    .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let received = filter.install().await;
    assert!(received.rules_mention("tidegate-revoked-r-1") && received.rules_mention("4570000000000000001"));
    running.shutdown().await.unwrap();
}

/// So many issuers, one more whose tokens name pods, and a rule that names all but that one.
fn issuers(count: usize) -> String {
    let issuer = |name: &str, pack: &str| {
        format!(
            "kind: TrustedIssuer\nmetadata: {{name: {name}}}\nspec: {{issuer: \"https://{name}.example\", pack: {pack}, keys: \
             {{jwksUri: \"https://{name}.invalid/keys\"}}}}\n---\n"
        )
    };
    let mut text = issuer("pods", "kubernetes");
    let mut from = String::new();
    for at in 0..count {
        text += &issuer(&format!("i{at}"), "generic");
        from +=
            &format!("  - {{peer: {{namespace: etl}}, tokens: [{{issuer: i{at}, claims: {{sub: [a]}}}}]}}\n");
    }
    text + &rule("many", "Allow", "/v1/many")
        .replace("  from: [{peer: {namespace: etl}}]\n", &format!("  from:\n{from}"))
}

const REVOKE_POD: [&str; 9] =
    ["revoke", "--instance", "uid-7", "--issuer", "pods", "--for", "1h", "--reason", "x"];

/// "Done" is said of what is in force: filters accept 64 issuers, and the revocation would be the 65th.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_the_rules_do_not_compile_with_is_refused() {
    let place = place();
    place.write("many.yaml", &issuers(64));
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let asked = json!({"target": {"kind": "instance", "issuer": "pods", "id": "uid-7"}, "seconds": 60, "reason": "x"});
    let (status, told) = post(&running, "/control/revocations", asked).await;
    assert_eq!(status, 422, "{told}");
    assert!(
        told.contains("instance uid-7 of pods cannot be revoked") && told.contains("65 issuers"),
        "{told}"
    );
    let state = get_until(&running, "/control", |_| true).await;
    assert_eq!((&state["revocations"], &state["broken"]), (&json!([]), &Value::Null));
    filter.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_do_not_compile_with_a_revocation_wait_also_after_a_restart() {
    let place = place();
    place.write("many.yaml", &issuers(63));
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let ran = tidegate(&running, &REVOKE_POD).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let revoked = filter.install().await;
    assert!(revoked.rules_mention("tidegate-revoked-r-1"));

    // While it runs what is in force stays, and it is told.
    place.write("many.yaml", &issuers(64));
    get_until(&running, "/control", |state| state["broken"][0]["inForce"] == true).await;
    filter.expect_silence().await;
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains("tidegate_revocations_broken 1\n"), "{metrics}");
    let shown = tidegate(&running, &["fleet"]).await;
    assert!(shown.out.contains("HOLDS BACK  instance uid-7 of pods"), "{shown:?}");
    running.shutdown().await.unwrap();

    // After a restart the last rules that do compile with it come back.
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let again = filter.install().await;
    assert_eq!(again.named(), revoked.named(), "the same content");
    let state = get_until(&running, "/control", |_| true).await;
    assert_eq!((&state["broken"][0]["id"], &state["broken"][0]["inForce"]), (&json!("r-1"), &json!(true)));
    // More can be revoked meanwhile.
    place.write("caller.yaml", CALLER);
    place.write("many.yaml", &issuers(63));
    assert!(filter.install().await.rules_mention("sales/etl"));
    assert_eq!(get_until(&running, "/control", |_| true).await["broken"], Value::Null);
    place.write("many.yaml", &issuers(64));
    get_until(&running, "/control", |state| state["broken"][0]["inForce"] == true).await;
    let ran = tidegate(&running, &["revoke", "data/etl", "--for", "1h", "--reason", "x"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let both = filter.install().await;
    assert!(both.rules_mention("tidegate-revoked-r-1") && both.rules_mention("tidegate-revoked-r-2"));
    running.shutdown().await.unwrap();

    // Where there are no such rules any more, it is left out, and that is told as what it is.
    for entry in std::fs::read_dir(place.state()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "history.json" || name.starts_with("rules-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let without = filter.install().await;
    assert!(!without.rules_mention("tidegate-revoked-r-1") && without.rules_mention("tidegate-revoked-r-2"));
    let shown = tidegate(&running, &["fleet"]).await;
    assert!(shown.out.contains("NOT REVOKED instance uid-7 of pods"), "{shown:?}");
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keys_have_no_room_for_is_refused_with_words() {
    let place = place();
    let many: Vec<String> = (0..4095).map(|at| format!("{{kid: k{at}}}")).collect();
    let revoking = format!("spec: {{revoked: {{keys: [{}]}}, issuer:", many.join(", "));
    place.write("dataflow.yaml", &DATAFLOW_RULE.replace("spec: {issuer:", &revoking));
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let kid =
        |kid: &'static str| ["revoke", "--kid", kid, "--issuer", "google", "--for", "1h", "--reason", "x"];
    assert_eq!(tidegate(&running, &kid("one")).await.code, 0);
    assert_eq!(revoked(&filter.install().await).len(), 4096);
    let ran = tidegate(&running, &kid("two")).await;
    assert!(ran.code == 1 && ran.err.contains("have room for 4096"), "{ran:?}");
    assert_eq!(tidegate(&running, &kid("k7")).await.code, 0, "what the rules revoke takes no room");
    filter.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_that_a_suspension_lets_pass_who_leaves_the_token_out() {
    let place = full();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let suspend =
        ["suspend", WORKLOAD, "--to", "shadow", "--for", "1h", "--reason", "close", "--ticket", "INC-1"];
    let kid = ["revoke", "--kid", "k", "--issuer", "google", "--for", "1h", "--reason", "x"];
    let first = tidegate(&running, &suspend).await;
    assert!(first.code == 0 && first.err.is_empty(), "{first:?}");
    let ran = tidegate(&running, &kid).await;
    assert!(ran.code == 0 && ran.err.contains("whoever leaves the token out passes there"), "{ran:?}");
    let by_peer = tidegate(&running, &["revoke", "data/etl", "--for", "1h", "--reason", "x"]).await;
    assert!(by_peer.code == 0 && by_peer.err.is_empty(), "{by_peer:?}");
    let again = tidegate(&running, &suspend).await;
    assert!(again.code == 0 && again.err.contains("passes without it: key k of google"), "{again:?}");
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_revoked_or_suspended_is_refused_with_why_and_changes_nothing() {
    let place = full();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    filter.install().await;
    let key = |issuer: &str, seconds: i64, reason: &str| json!({"target": {"kind": "key", "issuer": issuer, "id": "k"}, "seconds": seconds, "reason": reason});
    let suspend = |workload: &str, seconds: i64| json!({"workload": workload, "seconds": seconds, "reason": "x", "ticket": "x"});
    let caller = json!({"target": {"kind": "caller", "name": "data/other"}, "seconds": 60, "reason": "x"});
    let invisible = json!({"target": {"kind": "token", "issuer": "google", "id": "a\u{200b}b"}, "seconds": 60, "reason": "x"});
    let (revocations, suspensions) = ("/control/revocations", "/control/suspensions");
    for (path, body, status, said) in [
        (revocations, key("other", 60, "x"), 422, "declared are: google"),
        (revocations, key("google", 5, "x"), 422, "`seconds` is 5"),
        (revocations, key("google", 60, ""), 422, "`reason`"),
        (revocations, invisible, 422, "invisible"),
        (revocations, key("google", -1, "x"), 422, ""),
        (revocations, caller, 422, "Caller data/other cannot be revoked"),
        (revocations, json!({"target": {"kind": "world"}, "seconds": 60, "reason": "x"}), 422, "world"),
        (suspensions, suspend("sales/other", 60), 422, "no workload `sales/other`"),
        (suspensions, suspend("ingress/dataflow-in", 60), 422, "no Guard covers"),
        (suspensions, suspend(WORKLOAD, 9 * 3600), 422, "8 h"),
        ("/control/pin", json!({"rules": "99", "reason": "x"}), 404, "no rule set `99`"),
        ("/control/pin", json!({"rules": "1", "reason": ""}), 422, "`reason`"),
    ] {
        let answer = post(&running, path, body.clone()).await;
        assert_eq!(answer.0, status, "{body}: {answer:?}");
        assert!(answer.1.contains(said), "{body}: {answer:?}");
    }
    // A page in a browser can send neither.
    let body = key("google", 60, "x").to_string();
    assert_eq!(send(&running, "POST", revocations, "content-type: text/plain\r\n", &body).await.0, 415);
    let origin = "content-type: application/json\r\norigin: http://evil.example\r\n";
    assert_eq!(send(&running, "POST", revocations, origin, &body).await.0, 403);
    assert_eq!(send(&running, "DELETE", "/control/pin", "", "").await.0, 404);
    let state = get_until(&running, "/control", |_| true).await;
    assert_eq!((&state["revocations"], &state["suspensions"]), (&json!([]), &json!([])));
    filter.expect_silence().await;

    for (arguments, code) in [
        (&["revoke", "data/etl", "--reason", "x"][..], 2),
        (&["revoke", "data/etl", "--for", "1h"], 2),
        (&["revoke", "--kid", "k", "--for", "1h", "--reason", "x"], 2),
        (&["revoke"], 2),
        (&["suspend", WORKLOAD, "--for", "1h"], 2),
        (&["rollback", "1"], 2),
        (&["rollback"], 2),
        (&["rollback", "77", "--reason", "x"], 1),
        (&["revoke", "data/nobody", "--for", "1h", "--reason", "x"], 1),
    ] {
        let ran = tidegate(&running, arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    }
    running.shutdown().await.unwrap();
    let gone = run(&std::env::temp_dir(), &["fleet", "--admin", "http://127.0.0.1:9"], "");
    assert_eq!(gone.code, 3, "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_rules_come_back_under_a_new_revision_and_stay_until_they_are_released() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.install().await;
    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let second = filter.install().await;
    // It is said to be on offer when it has been offered.
    get_until(&running, "/control", |state| state["offered"]["number"] == 2).await;
    let listed = tidegate(&running, &["rollback", "--list"]).await;
    assert!(listed.out.contains("on offer, newest"), "{listed:?}");
    let ran = tidegate(&running, &["rollback", "1", "--reason", "b is wrong"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let third = filter.install().await;
    assert!(third.revision() > second.revision());
    assert_eq!(third.named(), first.named(), "the same content");

    // Judged, kept, and not offered; also over a restart.
    place.write("rule.yaml", &rule("c", "Allow", "/v1/third"));
    get_until(&running, "/control", |state| state["accepted"]["number"] == 3).await;
    filter.expect_silence().await;
    place.write("broken.yaml", "kind: AccessRule\nnonsense: true\n");
    get_until(&running, "/control", |state| state["errors"] != 0).await;
    filter.expect_silence().await;
    let shown = tidegate(&running, &["fleet"]).await;
    assert!(shown.out.contains("PINNED      to rules 1 ("), "{shown:?}");
    running.shutdown().await.unwrap();
    place.delete("broken.yaml");
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let pinned = filter.install().await;
    assert!(pinned.rules_mention("sales/a") && !pinned.rules_mention("sales/c"));

    let ran = tidegate(&running, &["rollback", "--release"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let last = filter.install().await;
    assert!(last.rules_mention("sales/c") && last.revision() > pinned.revision());
    assert_eq!(tidegate(&running, &["rollback", "--release"]).await.code, 1);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_is_part_of_what_is_signed_and_ends_by_itself() {
    let place = place();
    let running = place.start().await;
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    assert_eq!(filter.install().await.manifest.suspended_until, 0);
    let suspend =
        ["suspend", WORKLOAD, "--to", "shadow", "--for", "10s", "--reason", "close", "--ticket", "INC-1"];
    let ran = tidegate(&running, &suspend).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let suspended = filter.install().await;
    let until = suspended.manifest.suspended_until;
    assert!((1..=10).contains(&(until - suspended.manifest.issued_at)), "{:?}", suspended.manifest);
    assert_eq!(suspended.manifest.used_capabilities, [tidegate_proto::SUSPENSION]);
    let fleet = get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["enforcing"] == 1).await;
    assert_eq!(fleet["workloads"][WORKLOAD]["suspendedUntil"], until);
    assert_eq!(fleet["workloads"][WORKLOAD]["lacking"], 1, "a filter that does not know it goes on refusing");
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains("tidegate_suspended 1\n"), "{metrics}");
    assert_eq!(filter.install().await.manifest.suspended_until, 0, "over");

    let ran = tidegate(&running, &[&suspend[..4], &["--for", "1h"], &suspend[6..]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(filter.install().await.manifest.suspended_until, 0);
    assert_eq!(tidegate(&running, &["suspend", "--resume", WORKLOAD]).await.code, 0);
    assert_eq!(filter.install().await.manifest.suspended_until, 0);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_waited_for_and_its_end_is_an_exit_code() {
    let place = place();
    let running = place.start().await;
    let rules = place.rules();
    let rules = rules.to_str().unwrap();
    let wait = |timeout: &'static str| {
        ["rollout", "status", "--wait", "enforced", "--rules", rules, "--timeout", timeout]
    };
    let mut filter = Filter::connect(&running, hello(WORKLOAD)).await;
    let first = filter.receive().await;
    let late = tidegate(&running, &wait("1s")).await;
    assert_eq!(late.code, 4, "{late:?}");
    assert!(late.out.contains("enforced  0 of 1 proxies") && late.out.contains("lagging"), "{late:?}");
    filter.ack(&first).await;
    let done = tidegate(&running, &wait("30s")).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.ends_with("\nEnforced.\n"), "{done:?}");
    assert!(done.out.contains("no filter"), "{done:?}");
    let only = tidegate(&running, &["rollout", "status", "--workload", "sales/nothing"]).await;
    assert_eq!(only.code, 3, "{only:?}");

    place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    let second = filter.receive().await;
    filter.nack(&second, pb::NackReason::TooLarge, "no room").await;
    let refused = tidegate(&running, &wait("30s")).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.out.contains("too_large: no room"), "{refused:?}");

    // Rules that the control plane refuses are not waited for.
    place.write("rule.yaml", &rule("b", "Maybe", "/v1/second"));
    get_until(&running, "/control", |state| state["errors"] != 0).await;
    let broken = tidegate(&running, &wait("30s")).await;
    assert_eq!(broken.code, 1, "{broken:?}");
    assert!(broken.out.contains("refused by the control plane"), "{broken:?}");
    let json = tidegate(&running, &["rollout", "status", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["progress"], &json["refusing"]), (&json!("refusedByFilters"), &json!(1)));
    running.shutdown().await.unwrap();
}
