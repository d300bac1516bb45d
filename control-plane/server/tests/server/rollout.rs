//! Changed rules that canaries try first.

use serde_json::{Value, json};
use tidegate::serve::Running;
use tidegate_identity::RevokedKind;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::subscribe_request::Message as Up;

use crate::commands::{Ran, run};
use crate::control::revoked;
use crate::fixture::*;

const CALLER: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Caller
metadata: {name: etl, namespace: data}
spec: {anyOf: [{peer: {namespace: etl, serviceAccounts: [worker]}}]}
"#;

const AUDIENCE: &str = "audience: \"https://orders.sales.example\"";

/// A place whose Guard asks for this rollout.
fn place(rollout: &str) -> Place {
    let mesh = MESH.replace(AUDIENCE, &format!("{AUDIENCE}, rollout: {rollout}"));
    assert_ne!(mesh, MESH);
    Place::new(&[
        ("mesh.yaml", &mesh),
        ("caller.yaml", CALLER),
        ("rule.yaml", &rule("old", "Allow", "/v1/old")),
    ])
}

struct Proxy {
    name: String,
    filter: Filter,
    last: Received,
}

async fn connect(running: &Running, name: &str) -> Proxy {
    let hello = pb::Hello {
        capabilities: vec![tidegate_proto::CANDIDATE.into()],
        vm: Some(pb::VmId { instance: name.into(), generation: 7 }),
        ..hello(WORKLOAD)
    };
    let mut filter = Filter::connect(running, hello).await;
    let last = filter.install().await;
    Proxy { name: name.to_owned(), filter, last }
}

async fn connect_all(running: &Running, count: usize) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for at in 0..count {
        proxies.push(connect(running, &format!("orders-{at}")).await);
    }
    proxies
}

impl Proxy {
    async fn install(&mut self) -> &Received {
        let received = self.filter.install().await;
        assert!(received.revision() > self.last.revision(), "{}: never an older one", self.name);
        self.last = received;
        &self.last
    }

    /// Tells how many requests were compared, and how many of them are refused that were allowed before.
    async fn tell(&self, compared: u64, refused: u64) {
        let (epoch, counter) = self.last.revision();
        let counters = pb::Counters {
            candidate_compared: compared,
            candidate_would_allow: refused,
            ..Default::default()
        };
        let receipt = pb::Receipt {
            vm: Some(pb::VmId { instance: self.name.clone(), generation: 7 }),
            state: pb::FilterState::Ready.into(),
            manifest_sha256: self.last.digest(),
            revision: Some(pb::Revision { epoch, counter }),
            counters: Some(counters),
            ..Default::default()
        };
        self.filter.send(Up::Receipt(receipt)).await;
    }
}

/// Whoever means other rules than 2, which are held back, decides nothing.
async fn refuses_others(running: &Running, how: &str) {
    let state = get_until(running, "/control", |_| true).await;
    let rollout = &state["rollouts"][0];
    let (digest, before) = (rollout["digest"].as_str().unwrap(), rollout["beforeDigest"].as_str().unwrap());
    for other in
        ["1", "3", "0", "2x", "", &digest[..15], &before[..16], &digest.to_uppercase(), &format!("{digest}0")]
    {
        let ran = tidegate(running, &["rollout", how, WORKLOAD, other, "--reason", "x"]).await;
        let told = format!("rules 2 ({}) are held back, and not `{other}`", &digest[..16]);
        assert!(ran.code == 1 && ran.err.contains(&told), "{other}: {ran:?}");
    }
    let after = get_until(running, "/control", |_| true).await;
    assert_eq!(after["rollouts"][0]["state"], rollout["state"]);
}

/// The canary and the others.
async fn canary_of(running: &Running, proxies: Vec<Proxy>) -> (Proxy, Vec<Proxy>) {
    let is_chosen =
        |state: &Value| state["rollouts"][0]["canaries"].as_array().is_some_and(|all| !all.is_empty());
    let state = get_until(running, "/control", is_chosen).await;
    let canaries = &state["rollouts"][0]["canaries"];
    let (mut canary, others): (Vec<Proxy>, _) =
        proxies.into_iter().partition(|one| *canaries == json!([one.name]));
    assert_eq!(canary.len(), 1, "{state:#}");
    (canary.remove(0), others)
}

/// Three proxies, of which one has got the changed rules.
async fn tried(place: &Place, running: &Running) -> (Proxy, Vec<Proxy>) {
    let proxies = connect_all(running, 3).await;
    place.write("rule.yaml", &rule("new", "Allow", "/v1/new"));
    let (mut canary, mut others) = canary_of(running, proxies).await;
    let changed = canary.install().await;
    assert!(changed.rules_mention("sales/new"));
    for other in &mut others {
        other.filter.expect_silence().await;
    }
    (canary, others)
}

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

#[tokio::test(flavor = "multi_thread")]
async fn canaries_get_changed_rules_first_and_all_have_them_after_the_hold() {
    let place = place("{canary: 10%, hold: 10s}");
    let running = place.start().await;
    let (mut canary, mut others) = tried(&place, &running).await;
    assert_eq!(
        canary.last.manifest.candidate[0], others[0].last.manifest.sections[0],
        "what is enforced there is compared with the rules before"
    );
    let status = tidegate(&running, &["rollout", "status"]).await;
    assert_eq!(status.code, 4, "{status:?}");
    let shown = format!("CANARY      {WORKLOAD}: rules 2 (");
    assert!(status.out.contains(&shown) && status.out.contains("1 of 3 proxies"), "{status:?}");
    assert!(status.out.contains("enforced  3 of 3 proxies"), "each what it is to: {status:?}");
    let fleet = tidegate(&running, &["fleet"]).await;
    assert!(fleet.out.contains("1 canary") && fleet.out.contains(&canary.name), "{fleet:?}");
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains("tidegate_rollouts_canary 1\n"), "{metrics}");

    // Who comes late keeps the rules before, also where it is told to wait.
    let late = connect(&running, "orders-late").await;
    assert!(late.last.rules_mention("sales/old") && !late.last.rules_mention("sales/new"));
    others.push(late);
    let wait = ["rollout", "status", "--wait", "enforced", "--timeout", "60s", "-o", "json"];
    let waiting = tidegate(&running, &wait);
    let installing = async {
        for other in &mut others {
            assert!(other.install().await.rules_mention("sales/new"), "{}", other.name);
        }
        // The same rules under a later revision.
        assert_eq!(canary.install().await.manifest.candidate, []);
    };
    let (done, ()) = tokio::join!(waiting, installing);
    assert_eq!(done.code, 0, "{done:?}");
    let told: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&told["progress"], &told["control"]["rollouts"]), (&json!("enforced"), &Value::Null));
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_refuse_too_much_are_given_up_and_the_next_change_begins_from_the_last_good_ones() {
    let place = place("{canary: 1, hold: 1h, abortOn: {newRefusals: 10%, minRequests: 50}}");
    let running = place.start().await;
    let (mut canary, mut others) = tried(&place, &running).await;
    canary.tell(1_000, 900).await;
    canary.tell(1_040, 935).await;
    get_until(&running, "/control", |state| state["rollouts"][0]["requests"] == 40).await;
    canary.filter.expect_silence().await;
    let before = std::time::Instant::now();
    canary.tell(1_060, 940).await;
    let back = canary.install().await;
    assert!(before.elapsed() < std::time::Duration::from_secs(15));
    assert_eq!(back.named(), others[0].last.named(), "the rules before");
    for other in &mut others {
        let same = other.last.named();
        assert_eq!(other.install().await.named(), same);
    }
    let state = get_until(&running, "/control", |state| state["rollouts"][0]["state"] == "aborted").await;
    let why = "40 of 60 requests at canaries are refused that were allowed before; at most 10% may be; whoever the changed rules refuse can \
               bring that about by going on: if that was meant, promote them";
    assert_eq!(state["rollouts"][0]["why"], why, "{state:#}");
    let (_, metrics) = get(&running, "/metrics").await;
    assert!(metrics.contains("tidegate_rollouts_aborted 1\n"), "{metrics}");
    let status = tidegate(&running, &["rollout", "status", "--wait", "enforced"]).await;
    assert!(status.code == 1 && status.out.contains("ABORTED"), "{status:?}");
    let late = connect(&running, "orders-late").await;
    assert!(late.last.rules_mention("sales/old"));
    others.push(late);

    // Something else changes, and these rules stay given up.
    place.write("other.yaml", &CALLER.replace("name: etl", "name: other"));
    get_until(&running, "/control", |state| state["offered"]["number"] == 3).await;
    others[0].filter.expect_silence().await;
    assert_eq!(tidegate(&running, &["rollout", "status"]).await.code, 1);

    // The next form of the rules is tried from the last good ones.
    others.push(canary);
    place.write("rule.yaml", &rule("better", "Allow", "/v1/new"));
    let is_tried = |state: &Value| state["rollouts"][0]["state"] == "canary";
    let state = get_until(&running, "/control", is_tried).await;
    assert_eq!((&state["rollouts"][0]["before"], &state["rollouts"][0]["requests"]), (&json!(1), &json!(0)));
    let (mut canary, mut others) = canary_of(&running, others).await;
    assert!(canary.install().await.rules_mention("sales/better"));

    // And an author who goes back is there at once.
    place.write("rule.yaml", &rule("old", "Allow", "/v1/old"));
    let good = others[0].last.named();
    assert_eq!(canary.install().await.named(), good);
    assert_eq!(others[0].install().await.named(), good);
    get_until(&running, "/control", |state| state["rollouts"] == Value::Null).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_reaches_every_proxy_with_whichever_rules_it_has() {
    let place = place("{canary: 1, hold: 1h}");
    place.write("dataflow.yaml", DATAFLOW_RULE);
    let running = place.start().await;
    let (mut canary, mut others) = tried(&place, &running).await;
    let revoke = ["revoke", "data/etl", "--for", "1h", "--reason", "x"];
    let ran = tidegate(&running, &revoke).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let has = |received: &Received, rule: &str| {
        assert!(received.rules_mention("tidegate-revoked-r-1"), "{rule}");
        assert!(received.rules_mention(rule), "{rule}");
    };
    for other in &mut others {
        has(other.install().await, "sales/old");
        assert!(!other.last.rules_mention("sales/new"));
    }
    has(canary.install().await, "sales/new");
    let state = get_until(&running, "/control", |_| true).await;
    assert_eq!(state["rollouts"][0]["canaries"], json!([canary.name]), "it is the same rollout");

    // Over a restart too: neither is offered to the others, and nothing older than what they have.
    running.shutdown().await.unwrap();
    let running = place.start().await;
    for one in others.iter_mut().chain([&mut canary]) {
        let hello = pb::Hello {
            vm: Some(pb::VmId { instance: one.name.clone(), generation: 8 }),
            enforced_manifest: one.last.digest(),
            held_sections: one.last.named(),
            ..hello(WORKLOAD)
        };
        one.filter = Filter::connect(&running, hello).await;
        one.filter.expect_silence().await;
    }
    let late = connect(&running, "orders-late").await;
    has(&late.last, "sales/old");

    // What is lifted is so everywhere, and a suspension is at once.
    assert_eq!(tidegate(&running, &["revoke", "--lift", "r-1"]).await.code, 0);
    for other in &mut others {
        assert!(!other.install().await.rules_mention("tidegate-revoked"));
    }
    assert!(canary.install().await.rules_mention("sales/new"));
    let kid = ["revoke", "--kid", "k-1", "--issuer", "google", "--for", "24h", "--reason", "leaked"];
    assert_eq!(tidegate(&running, &kid).await.code, 0);
    let is_revoked = |received: &Received| {
        assert!(revoked(received).contains(&(RevokedKind::Key, "k-1".to_owned())));
    };
    is_revoked(canary.install().await);
    for other in &mut others {
        is_revoked(other.install().await);
    }
    let suspend =
        ["suspend", WORKLOAD, "--to", "shadow", "--for", "1h", "--reason", "close", "--ticket", "INC-1"];
    assert_eq!(tidegate(&running, &suspend).await.code, 0);
    assert_ne!(canary.install().await.manifest.suspended_until, 0);
    for other in &mut others {
        assert_ne!(other.install().await.manifest.suspended_until, 0);
    }

    // A rollback is for all.
    let ran = tidegate(&running, &["rollback", "1", "--reason", "x"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(canary.install().await.named(), others[0].last.named());
    get_until(&running, "/control", |state| state["rollouts"] == Value::Null).await;
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn people_end_a_rollout_either_way_and_a_filter_that_refuses_the_rules_does() {
    let place = place("{canary: 1, hold: 1h}");
    let running = place.start().await;
    let end = |how: &'static str, rev: &'static str| ["rollout", how, WORKLOAD, rev, "--reason", "OPS-7"];
    for how in ["promote", "abort"] {
        let ran = tidegate(&running, &end(how, "1")).await;
        assert!(
            ran.code == 1 && ran.err.contains("held back") | ran.err.contains("no canary tries"),
            "{ran:?}"
        );
        assert_eq!(tidegate(&running, &["rollout", how, WORKLOAD, "1"]).await.code, 2, "it wants a reason");
        let nameless = ["rollout", how, WORKLOAD, "--reason", "OPS-7"];
        assert_eq!(tidegate(&running, &nameless).await.code, 2, "it wants to know which rules");
    }
    let (mut canary, mut others) = tried(&place, &running).await;
    refuses_others(&running, "abort").await;
    canary.filter.expect_silence().await;
    assert_eq!(tidegate(&running, &end("abort", "2")).await.code, 0);
    assert!(canary.install().await.named() == others[0].install().await.named());
    others[1].install().await;
    let status = tidegate(&running, &["rollout", "status"]).await;
    assert!(status.code == 1 && status.out.contains("OPS-7"), "{status:?}");
    assert_eq!(tidegate(&running, &end("abort", "2")).await.code, 1, "once is enough");

    // What was given up stays so over a restart, and whoever knows better gets it.
    running.shutdown().await.unwrap();
    let running = place.start().await;
    let mut proxies = connect_all(&running, 3).await;
    assert!(proxies.iter().all(|one| one.last.rules_mention("sales/old")));
    refuses_others(&running, "promote").await;
    proxies[0].filter.expect_silence().await;
    let state = get_until(&running, "/control", |_| true).await;
    let digest = state["rollouts"][0]["digest"].as_str().unwrap();
    let promote = ["rollout", "promote", WORKLOAD, &digest[..16], "--reason", "OPS-7"];
    let ran = tidegate(&running, &promote).await;
    assert!(ran.code == 0 && ran.out.contains(&format!("get rules 2 ({}).", &digest[..16])), "{ran:?}");
    for one in &mut proxies {
        assert!(one.install().await.rules_mention("sales/new"));
    }

    place.write("rule.yaml", &rule("newer", "Allow", "/v1/newer"));
    let (mut canary, mut others) = canary_of(&running, proxies).await;
    let refused = canary.filter.receive().await;
    canary.filter.nack(&refused, pb::NackReason::TooLarge, "no room").await;
    let back = canary.filter.install().await;
    assert!(back.revision() > refused.revision());
    assert_eq!(back.named(), others[0].install().await.named());
    let state = get_until(&running, "/control", |state| state["rollouts"][0]["state"] == "aborted").await;
    assert!(state["rollouts"][0]["why"].as_str().unwrap().contains("too_large no room"), "{state:#}");
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_proxy_is_the_canary_and_a_change_without_a_rollout_is_for_all() {
    let place = place("{canary: 90%, hold: 1h}");
    let running = place.start().await;
    let mut only = connect(&running, "orders-0").await;
    place.write("rule.yaml", &rule("new", "Allow", "/v1/new"));
    assert!(only.install().await.rules_mention("sales/new"));
    let mut second = connect(&running, "orders-1").await;
    assert!(second.last.rules_mention("sales/old"));
    // The author no longer wants it.
    place.write("mesh.yaml", MESH);
    assert!(second.install().await.rules_mention("sales/new"));
    assert!(only.install().await.manifest.candidate.is_empty());
    place.write("rule.yaml", &rule("newer", "Allow", "/v1/newer"));
    for one in [&mut only, &mut second] {
        assert!(one.install().await.rules_mention("sales/newer"));
    }
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_changed_rules_know_no_more_is_revoked_where_those_before_let_it_in() {
    let place = place("{canary: 1, hold: 1h}");
    let both = format!("{}---{CALLER}", rule("old", "Allow", "/v1/old"));
    place.write("caller.yaml", &CALLER.replace("name: etl", "name: other"));
    place.write("rule.yaml", &both);
    let running = place.start().await;
    let (mut canary, mut others) = tried(&place, &running).await;
    let revoke = ["revoke", "data/etl", "--for", "1h", "--reason", "x"];
    for id in ["r-1", "r-2"] {
        let ran = tidegate(&running, &revoke).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        for other in &mut others {
            let received = other.install().await;
            assert!(
                received.rules_mention(&format!("tidegate-revoked-{id}"))
                    && received.rules_mention("sales/old")
            );
        }
        assert!(canary.install().await.rules_mention(&format!("tidegate-revoked-{id}")));
        assert_eq!(tidegate(&running, &["revoke", "--lift", id]).await.code, 0);
        for one in others.iter_mut().chain([&mut canary]) {
            assert!(!one.install().await.rules_mention("tidegate-revoked"));
        }
        if id == "r-1" {
            // The same when they are given up.
            let abort = ["rollout", "abort", WORKLOAD, "2", "--reason", "x"];
            assert_eq!(tidegate(&running, &abort).await.code, 0);
            let before = others[0].last.named();
            for one in others.iter_mut().chain([&mut canary]) {
                assert_eq!(one.install().await.named(), before);
            }
        }
    }
    let unknown = ["revoke", "data/nobody", "--for", "1h", "--reason", "x"];
    assert_eq!(tidegate(&running, &unknown).await.code, 1, "nobody was ever that");
    running.shutdown().await.unwrap();
}
