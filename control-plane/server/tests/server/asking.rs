//! `init --from-decision`, `preflight`, `align`, `schema` and `--watch` as people and CI systems run them.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::commands::{expect, json, run};

/// A folder whose Guard is enforced, with the first rule.
fn enforced(at: &Path) {
    expect(at, 0, &["init"]);
    for file in ["mesh.yaml", "first.yaml"] {
        let path = at.join("rules").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("mode: Shadow", "mode: Enforce")).unwrap();
    }
    std::fs::remove_file(at.join("rules/first.test.yaml")).unwrap();
}

const REFUSED: &str = r#"{"status":403,"type":"urn:tidegate:reason:no_allow_matched","reason":"no_allow_matched","decision":"7Q4K-M2XD-91BC"}"#;

#[test]
fn a_refusal_becomes_a_shadow_rule_and_its_test() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    enforced(at);
    let url = "https://orders-api.sales.example/v1/things/8?x=1";
    let flags =
        ["init", "rules", "--from-decision", "-", "--method", "POST", "--url", url, "--peer", "etl/other"];
    let ran = run(at, &flags, REFUSED);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let rule = std::fs::read_to_string(at.join("rules/from-7q4k-m2xd-91bc.yaml")).unwrap();
    assert!(rule.contains("mode: Shadow") && rule.contains("paths: [\"/v1/things/8\"]"), "{rule}");
    expect(at, 0, &["check", "rules"]);
    assert!(expect(at, 0, &["test", "rules"]).contains("2 tests: 2 passed"));
    let told = expect(at, 1, &["explain", "POST", "/v1/things/8", "--peer", "etl/other", "--rules", "rules"]);
    assert!(told.contains("would allow it"), "{told}");
    let again = run(at, &flags, REFUSED);
    assert!(again.code == 1 && again.err.contains("is there already"), "{}", again.err);
    // The command line beside what it printed, and a decision that was written down.
    let pasted = format!(
        "$ curl -X POST https://orders-api.sales.example/v1/x\n{}\n",
        REFUSED.replace("7Q4K", "AAAA")
    );
    let ran = run(at, &["init", "rules", "--from-decision", "-", "--peer", "etl/zz"], &pasted);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let record =
        expect(at, 1, &["explain", "PUT", "/v1/y", "--peer", "etl/other", "--rules", "rules", "-o", "json"]);
    let ran = run(at, &["explain", "-", "--rules", "rules"], &record);
    assert!(
        ran.code == 1 && ran.out.contains("PUT https://orders-api.sales.example/v1/y"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert!(
        run(at, &["explain", "-", "--rules", "rules", "--peer", "etl/zz", "-o", "json"], &record)
            .out
            .contains("etl/zz")
    );
    assert_eq!(run(at, &["init", "rules", "--from-decision", "-"], &record).code, 0);
    assert!(at.join("rules/from-decision.test.yaml").is_file());
    expect(at, 0, &["test", "rules"]);
}

#[test]
fn a_refusal_that_tells_too_little_becomes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    enforced(at);
    let url = ["--method", "POST", "--url", "/v1/things/8"];
    let who = ["--peer", "etl/other"];
    let denied = r##"{"reason":"denied_by_rule","rule":"sales/closed","owner":"team-x","contact":"#x"}"##;
    for (input, flags, said) in [
        (REFUSED, vec![], "--request FILE"),
        (REFUSED, url.to_vec(), "nothing says who sent the request"),
        (REFUSED, [&url[..], &["--peer", "none"]].concat(), "nothing says who sent the request"),
        (REFUSED, vec!["--url", "/v1/things/8", "--peer", "etl/orders-worker"], "do not refuse this request"),
        (REFUSED, [&["--url", "/v1/%2F"][..], &who].concat(), "ambiguous_path"),
        (REFUSED, [&["--url", "/v1/a*b"][..], &who].concat(), "characters that mean something"),
        (denied, [&url[..], &who].concat(), "Ask team-x (#x)"),
        (r#"{"reason":"token_expired"}"#, [&url[..], &who].concat(), "no Allow rule changes"),
        (r#"{"reason":"too_new"}"#, who.to_vec(), "not one of this version"),
        ("RBAC: access denied", who.to_vec(), "Istio"),
        ("hello", who.to_vec(), "no refusal of Tidegate"),
        ("curl 'x\nreason=no_allow_matched", who.to_vec(), "cannot be read"),
    ] {
        let ran = run(at, &[&["init", "rules", "--from-decision", "-"][..], &flags].concat(), input);
        assert!(
            ran.code == 1 && ran.err.contains(said),
            "{input} {flags:?}: {} {}{}",
            ran.code,
            ran.out,
            ran.err
        );
    }
    for (flags, code) in [
        (vec!["--from-decision", "nowhere"], 3),
        (vec!["--from-decision", "-", "--peer", "x", "--url", "/a"], 3),
        (vec!["--url", "/a"], 2),
        (vec!["--from-decision", "-", "--from-token", "x"], 2),
        (vec!["--token", "a:b=c"], 3),
    ] {
        let ran = run(at, &[&["init", "rules"][..], &flags].concat(), REFUSED);
        assert_eq!(ran.code, code, "{flags:?}: {}{}", ran.out, ran.err);
    }
    assert_eq!(std::fs::read_dir(at.join("rules")).unwrap().count(), 2, "nothing was written");
}

#[test]
fn a_token_that_was_sent_is_demanded_by_its_stable_claims_only() {
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    enforced(at);
    let issuer = "kind: TrustedIssuer\nmetadata: {name: gitlab}\nspec: {issuer: 'https://gitlab.com', pack: gitlab, keys: {discovery: true}}\n";
    std::fs::write(at.join("rules/issuer.yaml"), issuer).unwrap();
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = r#"{"iss":"https://gitlab.com","sub":"project_path:a/b","aud":"https://orders-api.sales.example","exp":4102444800,"iat":4102440000,"project_id":"4711","job_project_id":"4711","ref_protected":"true","pipeline_source":"push","user_email":"somebody@example.com","ref":"main","ref_type":"branch"}"#;
    let token = format!("{}.{}.{}", part(r#"{"alg":"RS256","kid":"a"}"#), part(claims), part("signature"));
    std::fs::write(at.join("token.txt"), &token).unwrap();
    let flags = [
        "init",
        "rules",
        "--from-decision",
        "-",
        "--url",
        "/v2/x",
        "--peer",
        "ci/runner",
        "--token-file",
        "token.txt",
    ];
    let ran = run(at, &flags, REFUSED);
    // No rule names the issuer yet, and without the token the caller is refused as well.
    assert_eq!(ran.code, 0, "{}", ran.err);
    let rule = std::fs::read_to_string(at.join("rules/from-7q4k-m2xd-91bc.yaml")).unwrap();
    let test = std::fs::read_to_string(at.join("rules/from-7q4k-m2xd-91bc.test.yaml")).unwrap();
    assert!(rule.contains("{issuer: gitlab, gitlab: {project: \"4711\", protectedRef: true}}"), "{rule}");
    assert!(test.contains("\"project_id\":\"4711\""), "{test}");
    assert!(!test.contains("somebody@") && !rule.contains("somebody@"), "{test}");
    expect(at, 0, &["test", "rules"]);
    std::fs::write(at.join("token.txt"), "hello").unwrap();
    let ran = run(at, &flags, REFUSED);
    assert!(ran.code == 3 && ran.err.contains("no signed JWT"), "{}", ran.err);
}

#[test]
fn schemas_preflights_and_alignments_are_for_programs_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    enforced(at);
    assert_eq!(json(&expect(at, 0, &["schema"]))["properties"]["kind"]["enum"][0], "Mesh");
    assert_eq!(json(&expect(at, 0, &["schema", "guard"]))["title"], "Guard");
    assert_eq!(json(&expect(at, 0, &["schema", "Guard", "--structural"]))["type"], "object");
    expect(at, 2, &["schema", "Guards"]);
    expect(at, 2, &["schema", "--structural"]);

    let curl =
        "curl https://orders-api.sales.example/v1/x\ncurl -X PUT https://orders-api.sales.example/v1/x";
    let ran = run(at, &["preflight", "-", "--as", "sales/orders-worker", "-o", "json"], curl);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let report = json(&ran.out);
    assert_eq!((&report["passed"], &report["refused"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(report["requests"][1]["answer"]["nearest"]["rule"], "sales/orders-worker-reads");
    let one = curl.lines().next().unwrap();
    assert_eq!(run(at, &["preflight", "-", "--as", "sales/orders-worker"], one).code, 0);
    let open = format!("{one}\ngrpcurl x\n");
    assert_eq!(run(at, &["preflight", "-", "--as", "sales/orders-worker"], &open).code, 0);
    assert_eq!(run(at, &["preflight", "-", "--as", "sales/orders-worker", "--strict"], &open).code, 1);
    assert_eq!(run(at, &["preflight", "-", "--peer", "a/b"], "curl 'x").code, 3);
    assert_eq!(run(at, &["preflight", "-", "--peer", "a/b"], "hello").code, 3);
    assert_eq!(run(at, &["preflight", "-"], one).code, 3);
    expect(at, 3, &["preflight", "nowhere.json", "--peer", "a/b"]);
    expect(at, 2, &["preflight"]);

    let account = "kind: ServiceAccount\nmetadata: {name: orders-worker, namespace: etl}\n";
    let ran = run(at, &["align", "-"], account);
    assert!(
        ran.code == 0 && ran.out.contains("1 service account, 0 objects with pods, 1 Caller"),
        "{}{}",
        ran.out,
        ran.err
    );
    let ran = run(at, &["align", "-", "-o", "json"], &account.replace("orders-worker", "other"));
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(json(&ran.out)["findings"][0]["code"], "AL001");
    assert_eq!(run(at, &["align", "-"], "kind: ConfigMap\n").code, 3);
    expect(at, 3, &["align", "nowhere"]);
    expect(at, 2, &["align"]);
    std::fs::create_dir(at.join("deploy")).unwrap();
    std::fs::write(at.join("deploy/a.yaml"), account.replace("orders-worker", "other")).unwrap();
    assert!(expect(at, 1, &["align", "deploy"]).contains("rules/first.yaml:7: error[AL001]"));
}

#[cfg(unix)]
#[test]
fn watching_runs_again_and_ends_as_the_last_run_did() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    expect(at, 0, &["init"]);
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "rules", "--watch"])
        .current_dir(at)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut until = |wanted: &str| {
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains(wanted));
        assert!(line.is_some(), "{wanted} was not printed");
    };
    until("3 files: 0 errors");
    let path = at.join("rules/first.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("effect: Allow", "efect: Allow")).unwrap();
    until("3 files: 1 error,");
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(1));
    expect(at, 3, &["check", "nowhere", "--watch"]);
}
