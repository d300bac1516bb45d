//! `init`, `check`, `test`, `explain`, `who-can`, `what-can`, `diff` and `render` as people and CI systems run them: exit codes, and that
//! what programs read can be read.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(folder: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("CI_PROJECT_DIR")
        .env_remove("GITHUB_WORKSPACE")
        .env_remove("TIDEGATE_RULES")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it, and holds the exit code against what is expected.
pub(crate) fn expect(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let ran = run(folder, arguments, "");
    assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
    assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{arguments:?}: colours in a pipe");
    ran.out + &ran.err
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn from_nothing_to_enforced_rules() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    expect(at, 0, &["init"]);
    assert!(expect(at, 1, &["init"]).contains("is there already"));
    expect(at, 0, &["check", "rules"]);
    let told = expect(at, 0, &["test", "rules", "--fail-under", "80"]);
    assert!(told.contains("3 tests: 3 passed, 0 failed"), "{told}");

    // Enforced, what the tests said of Shadow becomes true, and they say so.
    std::fs::create_dir(at.join("enforced")).unwrap();
    for file in std::fs::read_dir(at.join("rules")).unwrap() {
        let file = file.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap().replace("mode: Shadow", "mode: Enforce");
        std::fs::write(at.join("enforced").join(file.file_name().unwrap()), text).unwrap();
    }
    let told = expect(at, 1, &["test", "enforced"]);
    assert!(told.contains("it does not delete") && told.contains("✗ method GET"), "{told}");
    let report = json(&expect(at, 1, &["test", "enforced", "-o", "json"]));
    assert_eq!((&report["passed"], &report["failed"]), (&Value::from(1), &Value::from(2)));
    let junit = expect(at, 1, &["test", "enforced", "-o", "junit"]);
    assert!(junit.contains("file=\"enforced/first.test.yaml\""), "{junit}");

    let read = ["explain", "GET", "/v1/things/7", "--rules", "enforced", "--peer"];
    let told = expect(at, 0, &[&read[..], &["etl/orders-worker"]].concat());
    assert!(told.starts_with("ALLOWED  allowed_by_rule"), "{told}");
    let told = expect(at, 1, &[&read[..], &["etl/other", "-o", "json"]].concat());
    let answer = json(&told);
    assert_eq!(answer["reason"], "no_allow_matched");
    assert_eq!(answer["nearest"]["rule"], "sales/orders-worker-reads");
    let told = expect(at, 1, &["explain", "enforced/first.test.yaml:11", "--rules", "enforced"]);
    assert!(told.contains("the test \"it does not delete\" expects Allow"), "{told}");

    let who = json(&expect(at, 0, &["who-can", "GET", "/v1/things/7", "--rules", "enforced", "-o", "json"]));
    assert_eq!(who["grants"][0]["caller"], "etl/orders-worker");
    assert!(expect(at, 1, &["who-can", "DELETE", "/v1/things/7", "--rules", "enforced"]).contains("nobody"));
    let what =
        json(&expect(at, 0, &["what-can", "sales/orders-worker", "--rules", "enforced", "-o", "json"]));
    assert_eq!(what["grants"][0]["operations"][0], "GET /v1/{**}");
    expect(at, 1, &["what-can", "--peer", "etl/other", "--rules", "enforced"]);
    expect(at, 3, &["what-can", "sales/orders-wroker", "--rules", "enforced"]);

    // The Guard enforces now: that is what differs.
    let difference = json(&expect(at, 1, &["diff", "rules", "enforced", "--fail-on", "wider", "-o", "json"]));
    assert_eq!(difference["guards"][0]["workload"], "sales/orders-api");
    std::fs::create_dir(at.join("wider")).unwrap();
    for name in ["mesh.yaml", "first.yaml"] {
        let text = std::fs::read_to_string(at.join("enforced").join(name)).unwrap();
        std::fs::write(at.join("wider").join(name), text.replace("[GET]", "[GET, POST]")).unwrap();
    }
    let told = expect(at, 1, &["diff", "enforced", "wider", "--fail-on", "wider"]);
    assert!(told.contains("WIDER") && told.contains("e.g. etl/orders-worker  POST /v1"), "{told}");
    expect(at, 0, &["diff", "enforced", "wider"]);
    expect(at, 0, &["diff", "wider", "enforced", "--fail-on", "wider"]);
    expect(at, 3, &["test", "wider"]);
}

#[test]
fn objects_of_istio_are_printed_without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    expect(at, 0, &["init"]);
    for file in std::fs::read_dir(at.join("rules")).unwrap() {
        let file = file.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap().replace("mode: Shadow", "mode: Enforce");
        std::fs::write(&file, text).unwrap();
    }
    let ran = run(at, &["render", "rules"], "");
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("\nkind: AuthorizationPolicy\n") && ran.out.contains("\n# sales/orders-api: "),
        "{}",
        ran.out
    );
    assert!(ran.err.starts_with("1 object for "), "{}", ran.err);
    let list = json(&run(at, &["render", "rules", "-o", "json", "--istio", "1.31", "--claims"], "").out);
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&"List".into(), &"tidegate-orders-api".into())
    );
    assert_eq!(run(at, &["render", "rules"], "").out, ran.out, "the same bytes");
    for arguments in
        [&["render"][..], &["render", "rules", "--istio", "1.26"], &["render", "rules", "-o", "xml"]]
    {
        expect(at, 2, arguments);
    }
    expect(at, 3, &["render", "nowhere"]);
    std::fs::write(at.join("rules/first.yaml"), "kind: AccessRule\n").unwrap();
    let ran = run(at, &["render", "rules"], "");
    assert!(
        ran.code == 1 && ran.out.is_empty() && ran.err.contains("next: tidegate check rules"),
        "{}",
        ran.err
    );
}

#[test]
fn what_was_pasted_is_explained_without_rules() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let body = r#"{"status":401,"type":"urn:tidegate:reason:token_expired","reason":"token_expired","decision":"7Q4K-M2XD-91BC"}"#;
    let ran = run(at, &["explain", "-"], body);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("7Q4K-M2XD-91BC") && ran.out.contains("the caller's"), "{}", ran.out);
    let line =
        "a rule denies this request; reason=denied_by_rule decision=7Q4K-M2XD-91BC rule=a/b owner=team";
    let ran = run(at, &["explain", "-o", "json"], line);
    assert_eq!(json(&ran.out)["advice"]["turn"], "owner", "{}", ran.err);
    assert_eq!(run(at, &["explain", "not_ready"], "").code, 0);
    for (input, said) in
        [("RBAC: access denied", "Istio"), ("hello", "no refusal of Tidegate"), ("curl 'x", "cannot be read")]
    {
        let ran = run(at, &["explain", "-"], input);
        assert!(ran.code == 3 && ran.err.contains(said), "{input}: {}", ran.err);
    }
    let ran = run(at, &["explain", "GET", "/x"], "");
    assert!(ran.code == 3 && ran.err.contains("--rules"), "{}", ran.err);
}

#[test]
fn tests_and_rules_that_are_wrong_are_told_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    expect(at, 0, &["init"]);
    let path = at.join("rules/first.test.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("peer: etl/somebody-else", "peer: somebody-else")).unwrap();
    let told = expect(at, 1, &["test", "rules"]);
    assert!(told.contains("first.test.yaml:15:") && told.contains("`somebody-else` is no peer"), "{told}");
    let findings = json(&expect(at, 1, &["check", "rules", "-o", "gitlab"]));
    assert_eq!(findings[0]["location"]["path"], "rules/first.test.yaml");
    assert_eq!(json(&expect(at, 1, &["check", "rules", "-o", "sarif"]))["version"], "2.1.0");
    assert!(expect(at, 1, &["check", "rules", "-o", "junit"]).contains("failures=\"1\""));
    // CI systems check out where they please, and start anywhere.
    let absolute = at.join("rules");
    let ran = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "-o", "gitlab"])
        .arg(&absolute)
        .current_dir("/")
        .env("CI_PROJECT_DIR", at)
        .output()
        .unwrap();
    let findings = json(&String::from_utf8(ran.stdout).unwrap());
    assert_eq!(findings[0]["location"]["path"], "rules/first.test.yaml");

    std::fs::write(at.join("rules/first.yaml"), "kind: AccessRule\n").unwrap();
    for command in
        [&["test", "rules"][..], &["explain", "GET", "/x", "--rules", "rules"], &["who-can", "GET", "/x"]]
    {
        let told = expect(at, 1, command);
        assert!(told.contains("TG0202") && told.contains("next: tidegate check rules"), "{told}");
    }
    for command in [
        &["test"][..],
        &["explain", "a", "b", "c"],
        &["who-can", "GET"],
        &["diff", "a"],
        &["what-can"],
        &["check", "rules", "-o", "xml"],
    ] {
        expect(at, 2, command);
    }
}

/// The rules that lie in the repository for people compile without a word, and do what their tests say.
#[test]
fn the_examples_do_what_their_tests_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let told = expect(&root, 0, &["check", "manifests/examples/rules"]);
    assert!(told.contains("0 errors, 0 warnings"), "{told}");
    let told = expect(&root, 0, &["test", "manifests/examples/rules", "--fail-under", "70", "-o", "json"]);
    assert_eq!(json(&told)["failed"], 0, "{told}");
}
