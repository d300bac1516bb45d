//! `tidegate token explain` as people run it: exit codes, what it prints, and what it never prints.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tidegate::demo::issuers::{Behaviour, Draft, GitLabJob, Issuers};

use crate::fixture::MESH;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn explain(folder: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["token", "explain"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments reads nothing.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    for part in input.trim().split('.').filter(|part| part.len() > 20) {
        assert!(!ran.out.contains(part) && !ran.err.contains(part), "{arguments:?}: {}{}", ran.out, ran.err);
    }
    ran
}

/// A folder with rules for GitLab jobs, and what fetching their keys needs.
fn folder(issuers: &Issuers) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rules = format!(
        r#"{MESH}---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {{name: gitlab}}
spec: {{issuer: "{}", pack: gitlab, keys: {{discovery: true}}}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: release, namespace: sales}}
spec:
  owner: billing
  effect: Allow
  mode: Enforce
  from:
  - peer: {{namespace: ci, serviceAccounts: [runner]}}
    tokens: [{{issuer: gitlab, gitlab: {{project: 4711, protectedRef: true}}}}]
  to: [{{http: {{methods: [PUT], paths: ["/v1/schema"]}}}}]
"#,
        issuers.gitlab.url()
    );
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::write(folder.path().join("rules/rules.yaml"), rules).unwrap();
    std::fs::write(folder.path().join("ca.pem"), issuers.authority_pem()).unwrap();
    std::fs::write(folder.path().join("jwks.json"), issuers.gitlab.jwks().to_string()).unwrap();
    folder
}

fn job(issuers: &Issuers, protected: bool) -> Draft {
    let job = GitLabJob {
        project_id: "4711".into(),
        project_path: "data/orders".into(),
        namespace_id: "72".into(),
        job_project_id: "4711".into(),
        branch: "main".into(),
        protected,
        source: "push".into(),
        environment: None,
        user_access_level: "maintainer".into(),
    };
    issuers.gitlab.job_token(&job, "https://orders.sales.example")
}

const FETCH: [&str; 6] = ["--rules", "rules", "--fetch", "--allow-issuer-loopback", "--issuer-ca", "ca.pem"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_explained_with_the_keys_that_its_issuer_publishes() {
    let issuers = Issuers::start().await.unwrap();
    let folder = folder(&issuers);
    let good = job(&issuers, true).sign().unwrap();
    let forged = job(&issuers, true).damaged().sign().unwrap();
    for (token, arguments, code, start, words) in [
        (&good, &FETCH[..], 0, "VERIFIED", "1 rule would let the right caller in"),
        (&good, &["--rules", "rules", "--keys", "jwks.json"], 0, "VERIFIED", "release (Allow) at"),
        (&good, &["--rules", "rules"], 0, "PLAUSIBLE", "give `--fetch`"),
        (&good, &["--keys", "jwks.json"], 0, "VERIFIED", "no TrustedIssuer"),
        (&good, &["--rules", "rules", "--at", "2020-01-01T00:00:00Z"], 1, "REFUSED", "token_not_yet_valid"),
        (&good, &["--audience", "https://billing.example"], 1, "REFUSED", "token_wrong_audience"),
        (&forged, &FETCH, 1, "REFUSED", "token_bad_signature"),
        (&forged, &["--rules", "rules"], 0, "PLAUSIBLE", "was not checked"),
        (
            &job(&issuers, false).sign().unwrap(),
            &FETCH,
            1,
            "VERIFIED",
            "ref_protected is \"true\"; it is \"false\"",
        ),
        (&job(&issuers, true).expired().sign().unwrap(), &FETCH, 1, "REFUSED", "token_expired"),
        (&job(&issuers, true).unsigned().sign().unwrap(), &FETCH, 1, "REFUSED", "token_algorithm_refused"),
        (&"opaque".to_owned(), &FETCH, 1, "NO TOKEN", "an opaque token"),
    ] {
        let ran = explain(folder.path(), arguments, token);
        assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{arguments:?}: {}", ran.out);
        assert!(ran.out.starts_with(start) && ran.out.contains(words), "{arguments:?}: {}", ran.out);
        assert!(!ran.out.contains('\u{1b}'), "no colours in a pipe: {}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_explained_is_said_with_its_own_exit_code() {
    let issuers = Issuers::start().await.unwrap();
    let folder = folder(&issuers);
    std::fs::create_dir(folder.path().join("broken")).unwrap();
    std::fs::write(folder.path().join("broken/rules.yaml"), "kind: [").unwrap();
    let good = job(&issuers, true).sign().unwrap();
    let on_the_command_line = good.clone();
    for (arguments, code, words) in [
        (&["missing.txt"][..], 3, "cannot read `missing.txt`"),
        (&["rules"], 3, "cannot read `rules`"),
        (&["--rules", "missing"], 3, "rules folder `missing`"),
        (&["--rules", "broken"], 3, "`tidegate check broken` says why"),
        (&["--keys", "missing.json"], 3, "cannot read `missing.json`"),
        (&["--keys", "ca.pem"], 3, "it must be a JSON Web Key Set"),
        (&["--rules", "rules", "--fetch"], 3, "cannot get the keys of `gitlab`"),
        (&["--fetch"], 2, "--rules"),
        (&["--at", "tomorrow"], 2, "2026-11-21T03:00:00Z"),
        (&["--keys", "a", "--fetch", "--rules", "rules"], 2, "cannot be used with"),
        (&[&on_the_command_line], 2, "there is a token on the command line"),
        (&["a", &on_the_command_line], 2, "there is a token on the command line"),
    ] {
        let ran = explain(folder.path(), arguments, &good);
        assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
        assert!(ran.out.is_empty() && ran.err.contains(words), "{}{}", ran.out, ran.err);
    }
    issuers.gitlab.behave(Behaviour::Garbage);
    let ran = explain(folder.path(), &FETCH, &good);
    assert_eq!(ran.code, 3, "{}", ran.out);
    assert!(ran.err.contains("cannot get the keys of `gitlab`"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_get_json_and_files_may_hold_more_than_the_token() {
    let issuers = Issuers::start().await.unwrap();
    let folder = folder(&issuers);
    let good = job(&issuers, true).sign().unwrap();
    std::fs::write(folder.path().join("answer.json"), format!("{{\"access_token\": \"{good}\"}}\n")).unwrap();
    let ran =
        explain(folder.path(), &["answer.json", "--rules", "rules", "--keys", "jwks.json", "-o", "json"], "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(!ran.out.contains(&good[good.rfind('.').unwrap()..]), "{}", ran.out);
    let explanation: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(explanation["verdict"]["outcome"], "verified");
    assert_eq!(explanation["issuer"]["name"], "gitlab");
    assert_eq!(explanation["mistakes"][0]["code"], "json");
    assert_eq!(explanation["rules"][0]["rule"], "sales/release");
    assert_eq!(explanation["rules"][0]["holds"], "yes");
    let checks = explanation["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 17);
    assert!(checks.iter().all(|check| check["result"] == "ok"), "{checks:#?}");
}
