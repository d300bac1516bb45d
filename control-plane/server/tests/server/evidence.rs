//! Exports of evidence, from a control plane that runs to a folder that is verified.

use std::path::Path;

use crate::commands::{Ran, json, run};
use crate::decisions::{Reporter, allowed, place, refused, start, until};
use crate::fixture::*;

const SECOND_NS: i64 = 1_000_000_000;
/// A moment of whole seconds, lately.
const AGO_S: i64 = 600;

async fn command(folder: &Path, arguments: &[&str]) -> Ran {
    let (folder, arguments) =
        (folder.to_owned(), arguments.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
    let all = move || run(&folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "");
    tokio::task::spawn_blocking(all).await.unwrap()
}

/// As RFC 3339 writes it. (The system's `date` knows the calendar.)
fn time(seconds: i64) -> String {
    let date = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn what_was_decided_is_exported_verified_and_half_open_in_time() {
    let place = place();
    let running = start(&place).await;
    let now =
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
            .unwrap();
    let (from, to) = (now - AGO_S, now - AGO_S / 2);
    let mut reporter = Reporter::connect(&running).await;
    let at = |id: &str, time_ns: i64| tidegate_proto::v1::DecisionRecord { time_ns, ..refused(id) };
    reporter
        .report(vec![
            at("BEFO-RE00-0001", from * SECOND_NS - 1_000),
            at("F1RS-T000-0002", from * SECOND_NS),
            tidegate_proto::v1::DecisionRecord {
                time_ns: from * SECOND_NS + 5,
                path: "=cmd|' /C calc'!A0".into(),
                ..allowed("ALL0-WED0-0003")
            },
            at("1AST-0000-0004", to * SECOND_NS - 1_000),
            at("AFTE-R000-0005", to * SECOND_NS),
        ])
        .await;
    until(&running, "/decisions/AFTE-R000-0005", |status, _| status == 200).await;
    let admin = running.admin_addr.to_string();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (from, to) = (time(from), time(to));
    let export = ["evidence", "--from", &from, "--to", &to, "-o", "out", "--admin", &admin];
    let told = command(folder.path(), &export).await;
    assert_eq!(told.code, 0, "{told:?}");
    let decisions = std::fs::read_to_string(out.join("decisions.csv")).unwrap();
    let ids: Vec<&str> = decisions.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(ids, ["1AST-0000-0004", "A110-WED0-0003", "F1RS-T000-0002"], "{decisions}");
    assert!(decisions.contains(",'=cmd|"), "{decisions}");
    assert!(std::fs::read_to_string(out.join("who-can.csv")).unwrap().contains("sales/writers"));
    let history = std::fs::read_to_string(out.join("rule-history.csv")).unwrap();
    assert!(history.contains("is not kept"), "no rules were accepted before: {history}");

    // The fingerprint comes from elsewhere.
    let key = command(folder.path(), &["evidence", "key", "--admin", &admin]).await;
    let fingerprint = key.out.trim().to_owned();
    assert_eq!((key.code, fingerprint.len()), (0, 64), "{key:?}");
    let verify =
        async |more: &[&str]| command(folder.path(), &[&["evidence", "verify", "out"], more].concat()).await;
    let verified = verify(&["--fingerprint", &fingerprint]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
    assert_eq!(verify(&["--fingerprint", &"0".repeat(64)]).await.code, 1);
    assert_eq!(verify(&[]).await.code, 2, "somebody has to say whose it must be");
    assert_eq!(verify(&["--any-key"]).await.code, 0);
    assert_eq!(command(folder.path(), &export).await.code, 2, "exports are not mixed");
    std::fs::write(out.join("decisions.csv"), decisions.replace("deny", "allow")).unwrap();
    let changed = verify(&["--fingerprint", &fingerprint]).await;
    assert_eq!(changed.code, 1);
    assert!(
        changed.err.contains("decisions.csv` was changed; the first change is in lines 1 to"),
        "{changed:?}"
    );
    assert_eq!(command(folder.path(), &["evidence", "verify", "nothing", "--any-key"]).await.code, 3);

    for (query, why) in [
        ("", "are needed"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "before"),
        ("from=2026-01-01T00:00:00Z&to=2999-01-01T00:00:00Z", "future"),
        ("from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "400 days"),
        ("from=x&to=2026-01-01T00:00:00Z", "write times"),
        ("from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&who=me", "there are"),
    ] {
        let (status, body) = get(&running, &format!("/evidence?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body.contains(why), "{query}: {body}");
    }
    drop(reporter);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_export_says_that_decisions_are_not_kept() {
    let place = place();
    let running = place.start().await;
    let admin = running.admin_addr.to_string();
    let folder = tempfile::tempdir().unwrap();
    let told = command(folder.path(), &["evidence", "--from", "2h", "--to", "1h", "--admin", &admin]).await;
    assert_eq!(told.code, 0, "{told:?}");
    let gaps = std::fs::read_to_string(folder.path().join("evidence/record-gaps.csv")).unwrap();
    assert!(gaps.contains("not_kept"), "{gaps}");
    let manifest = std::fs::read_to_string(folder.path().join("evidence/manifest.json")).unwrap();
    assert_eq!(json(&manifest)["format"], "tidegate.evidence/1");
    running.shutdown().await.unwrap();
    let told =
        command(folder.path(), &["evidence", "--from", "2h", "--to", "1h", "-o", "x", "--admin", &admin])
            .await;
    assert_eq!((told.code, folder.path().join("x").exists()), (3, false), "nothing half is left");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_did_is_exported_when_it_has_ended_over_a_restart_too() {
    let place = Place::new(&[("mesh.yaml", MESH), ("dataflow.yaml", DATAFLOW_RULE)]);
    let running = place.start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = running.admin_addr.to_string();
    let suspend = [
        "suspend", WORKLOAD, "--to", "shadow", "--for", "1h", "--reason", "close", "--ticket", "OPS-1",
        "--admin", &at,
    ];
    let revoke = [
        "revoke", "--token", "jti-1", "--issuer", "google", "--for", "1h", "--reason", "leaked", "--admin",
        &at,
    ];
    let key =
        ["revoke", "--kid", "k-1", "--issuer", "google", "--for", "1h", "--reason", "leaked", "--admin", &at];
    for arguments in [&suspend[..], &revoke, &key, &["revoke", "--lift", "r-2", "--admin", &at]] {
        let ran = command(folder.path(), arguments).await;
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }
    let ran = command(folder.path(), &["suspend", "--resume", WORKLOAD, "--admin", &at]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    running.shutdown().await.unwrap();

    let running = place.start().await;
    let at = running.admin_addr.to_string();
    // What began in this second is in exports of times until the next.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let ran = command(folder.path(), &["evidence", "--from", "1h", "--to", "0s", "--admin", &at]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let told = std::fs::read_to_string(folder.path().join("evidence/interventions.csv")).unwrap();
    let lines: Vec<&str> = told.lines().skip(1).collect();
    let expected = [
        ("revoked,r-2,a token of google,", ",lifted,"),
        ("suspended,s-1,sales/orders,", ",lifted,"),
        ("revoked,r-3,key k-1 of google,", ",,in force,,"),
    ];
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, (begin, how)) in lines.iter().zip(expected) {
        assert!(line.starts_with(begin) && line.contains(how), "{begin}{how} in {line}");
    }
    running.shutdown().await.unwrap();
}
