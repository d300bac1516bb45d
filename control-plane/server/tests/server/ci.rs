//! The scripts of `manifests/ci`, as GitLab and Tekton run them: with this program, a repository, and a GitLab that answers.
//!
//! What `apply` does to a cluster is tried in `tests/tests/manifests`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::fixture::{MESH, rule};

const TEST: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: RuleTest
metadata: {name: orders}
spec:
  workload: sales/orders
  tests:
  - {name: one, request: {peer: etl/x, method: POST, path: /v1/one}, expect: Allow}
";

fn manifests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/ci").join(file);
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Scripts by step, with the names of `system` for what is asked.
fn scripts(system: &str) -> BTreeMap<String, String> {
    if system == "gitlab" {
        let jobs = &manifests("gitlab/templates/tidegate.yml")[1];
        let of = |job: &str| jobs[format!("tidegate-{job}")]["script"][0].as_str().unwrap().to_owned();
        return ["check", "test", "diff"].map(|job| (job.to_owned(), of(job))).into();
    }
    let task = &manifests("tekton/task.yaml")[0];
    let steps = task["spec"]["steps"].as_array().unwrap();
    let of = |step: &Value| {
        (step["name"].as_str().unwrap().to_owned(), step["script"].as_str().unwrap().to_owned())
    };
    let mut all: BTreeMap<_, _> = steps.iter().map(of).collect();
    // Steps that follow each other in one folder; a shell each, as there.
    let parts = ["diff", "comment", "outcome"].map(|step| all.remove(step).unwrap());
    let quoted = parts.map(|part| format!("sh -c '{}' || exit", part.replace('\'', "'\\''")));
    all.insert("diff".to_owned(), quoted.join("\n"));
    all
}

/// A clone with a base commit, and changes on top of it.
struct Clone {
    folder: tempfile::TempDir,
    base: String,
}

// === impl Clone ===

impl Clone {
    fn new() -> Self {
        let mut clone = Self { folder: tempfile::tempdir().unwrap(), base: String::new() };
        clone.git(&["init", "--quiet", "--initial-branch", "main"]);
        clone.write("rules/mesh.yaml", MESH);
        clone.write("rules/one.yaml", &rule("one", "Allow", "/v1/one"));
        clone.write("rules/one.test.yaml", TEST);
        clone.commit();
        clone.base = clone.git(&["rev-parse", "HEAD"]);
        clone
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("clone")
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn git(&self, arguments: &[&str]) -> String {
        std::fs::create_dir_all(self.path()).unwrap();
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t.example", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
    }

    /// Exit code and what was printed.
    fn run(&self, script: &str, more: &[(&str, &str)]) -> (i32, String) {
        let program = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().to_owned();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let token = self.folder.path().join("token");
        std::fs::write(&token, "glpat-secret").unwrap();
        let Output { status, stdout, stderr } = Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(self.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("TIDEGATE_RULES", "rules")
            .env("TIDEGATE_VALUES", "")
            .env("TIDEGATE_COVERAGE", "0")
            .env("TIDEGATE_FAIL_ON", "never")
            .env("TIDEGATE_BEFORE", &self.base)
            .env("CI_PROJECT_ID", "7")
            .env("CI_MERGE_REQUEST_IID", "3")
            .env("TOKEN_IS_BOUND", "false")
            .env("TOKEN_FILE", token)
            .envs(more.iter().copied())
            .output()
            .unwrap();
        let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (status.code().unwrap(), text)
    }
}

/// GitLab's notes of one merge request: method, path, token and body of every request, in order.
struct GitLab {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<[String; 4]>>>,
}

// === impl GitLab ===

impl GitLab {
    /// `notes`: those that are there.
    fn start(notes: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<[String; 4]>>>::default());
        let all = seen.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                let lower = head.to_ascii_lowercase();
                let field = |name: &str| {
                    lower.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                };
                let mut body = vec![0; field("content-length: ").parse().unwrap_or(0)];
                reader.read_exact(&mut body).unwrap();
                let mut words = head.split_whitespace().map(str::to_owned);
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                let answer = match (method.as_str(), path.as_str()) {
                    ("GET", "/api/v4/user") => json!({"id": 42}),
                    ("GET", _) => notes.clone(),
                    _ => json!({"id": 1}),
                };
                all.lock().unwrap().push([
                    method,
                    path,
                    field("private-token: "),
                    String::from_utf8(body).unwrap(),
                ]);
                let answer = answer.to_string();
                let length = answer.len();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
                )
                .unwrap();
            }
        });
        Self { address, seen }
    }

    fn api(&self) -> String {
        format!("http://{}/api/v4", self.address)
    }
}

/// Whether what the scripts need beside us is here.
fn is_here() -> bool {
    let missing =
        ["git", "curl", "jq"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(tool) = missing {
        println!("SKIPPED: scripts of CI systems: no `{tool}` here");
    }
    missing.is_none()
}

#[test]
fn rules_are_checked_and_tested() {
    if !is_here() {
        return;
    }
    for system in ["gitlab", "tekton"] {
        let (scripts, clone) = (scripts(system), Clone::new());
        let (code, text) = clone.run(&scripts["check"], &[]);
        assert_eq!(code, 0, "{system}: {text}");
        let read = |file: &str| std::fs::read_to_string(clone.path().join(file)).unwrap();
        assert_eq!(read("gl-code-quality-report.json").trim(), "[]", "{system}");
        let (code, text) = clone.run(&scripts["test"], &[]);
        assert_eq!(code, 0, "{system}: {text}");
        assert!(read("tidegate-tests.xml").contains("<testsuite"), "{system}");
        let (code, text) = clone.run(&scripts["test"], &[("TIDEGATE_COVERAGE", "100")]);
        assert_eq!(code, 1, "{system}: {text}");

        clone.write("rules/one.test.yaml", &TEST.replace("path: /v1/one", "path: /v1/two"));
        let (code, text) = clone.run(&scripts["test"], &[]);
        assert!(code == 1 && text.contains("no_allow_matched"), "{system}: {text}");
        assert!(read("tidegate-tests.xml").contains("<failure"), "{system}");
        clone.write("rules/bad.yaml", &rule("bad", "Perhaps", "/v1/bad"));
        let (code, text) = clone.run(&scripts["check"], &[]);
        assert!(code == 1 && text.contains("Perhaps"), "{system}: {text}");
        assert!(read("gl-code-quality-report.json").contains("bad.yaml"), "{system}");
        // Values for the environment are a file's.
        clone.write("rules/bad.yaml", &rule("bad", "Allow", "/v1/${env.version}"));
        clone.write("values with spaces.yaml", "version: v9\n");
        assert_eq!(clone.run(&scripts["check"], &[]).0, 1, "{system}");
        let (code, text) = clone.run(&scripts["check"], &[("TIDEGATE_VALUES", "values with spaces.yaml")]);
        assert_eq!(code, 0, "{system}: {text}");
    }
}

#[test]
fn what_differs_is_said_at_the_merge_request() {
    if !is_here() {
        return;
    }
    for system in ["gitlab", "tekton"] {
        let (script, clone) = (&scripts(system)["diff"], Clone::new());
        clone.write("rules/two.yaml", &rule("two", "Allow", "/v1/__two__"));
        clone.write("rules/three.yaml", &rule("three", "Allow", "/v1/three"));
        clone.commit();
        // Nothing to comment with: the log has it.
        let (code, text) = clone.run(script, &[]);
        assert!(code == 0 && text.contains("/v1/three"), "{system}: {code} {text}");
        let (code, text) = clone.run(script, &[("TIDEGATE_FAIL_ON", "wider")]);
        assert!(code == 1 && text.contains("/v1/three"), "{system}: {code} {text}");

        let ours = "<!-- tidegate-diff -->\n\nold";
        let of = |author: u64, id: u64, body: &str| json!({"id": id, "author": {"id": author}, "body": body});
        for (notes, expected) in [
            (json!([]), "POST /api/v4/projects/7/merge_requests/3/notes"),
            // Somebody else wrote it.
            (json!([of(41, 5, ours), of(42, 6, "hello")]), "POST /api/v4/projects/7/merge_requests/3/notes"),
            (json!([of(41, 5, ours), of(42, 6, ours)]), "PUT /api/v4/projects/7/merge_requests/3/notes/6"),
        ] {
            let gitlab = GitLab::start(notes);
            let api = gitlab.api();
            let environment = [
                ("CI_API_V4_URL", api.as_str()),
                ("TIDEGATE_COMMENT_TOKEN", "glpat-secret"),
                ("TOKEN_IS_BOUND", "true"),
                ("TIDEGATE_FAIL_ON", "wider"),
            ];
            let (code, text) = clone.run(script, &environment);
            assert_eq!(code, 1, "{system}: it fails after it has told why: {text}");
            assert!(!text.contains("glpat"), "{system}: {text}");
            let seen = gitlab.seen.lock().unwrap().clone();
            let [.., [method, path, token, body]] = seen.as_slice() else { panic!("{system}: {seen:?}") };
            assert_eq!(format!("{method} {path}"), expected, "{system}");
            assert!(seen.iter().all(|request| request[2] == "glpat-secret"), "{system}: {token}");
            let body: String =
                url::form_urlencoded::parse(body.as_bytes()).map(|(_, value)| value.into_owned()).collect();
            assert!(body.starts_with("<!-- tidegate-diff -->\n"), "{system}: {body}");
            // Names are never markup: every line that is not ours is indented.
            let rest = body.lines().skip(4).filter(|line| !line.is_empty());
            assert!(
                rest.clone().count() > 2 && rest.clone().all(|line| line.starts_with("    ")),
                "{system}: {body}"
            );
            assert!(body.contains("/v1/three"), "{system}: {body}");
        }
    }
}

#[test]
fn a_first_folder_and_a_commit_that_is_not_there_are_no_surprise() {
    if !is_here() {
        return;
    }
    for system in ["gitlab", "tekton"] {
        let (script, mut clone) = (&scripts(system)["diff"], Clone::new());
        clone.git(&["mv", "rules", "other"]);
        clone.commit();
        clone.base = clone.git(&["rev-parse", "HEAD"]);
        clone.git(&["mv", "other", "rules"]);
        clone.commit();
        let (code, text) = clone.run(script, &[("TIDEGATE_FAIL_ON", "any")]);
        assert!(code == 0 && text.contains("no rules before"), "{system}: {code} {text}");
        // No remote has it either.
        let (code, text) =
            clone.run(script, &[("TIDEGATE_BEFORE", "0123456789012345678901234567890123456789")]);
        assert!(code != 0 && !text.contains("no rules before"), "{system}: {code} {text}");
    }
}
