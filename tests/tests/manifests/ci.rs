//! What `manifests/ci` does to a cluster. What it says to people is tried beside the program (`tests/server/ci.rs`).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use crate::access::{TURN, apply, as_account, until};
use crate::real::{RealApi, client};
use crate::{documents, root};

/// The scripts that apply, with the system that runs them.
fn scripts() -> [(&'static str, String); 2] {
    let component = documents(&root().join("ci/gitlab/templates/tidegate.yml"));
    let gitlab = component[1]["tidegate-apply"]["script"][0].as_str().unwrap().to_owned();
    let tasks = documents(&root().join("ci/tekton/task.yaml"));
    let tekton = tasks[1]["spec"]["steps"][0]["script"].as_str().unwrap().to_owned();
    [("gitlab", gitlab), ("tekton", tekton)]
}

/// They differ in what the systems demand before them only.
#[test]
fn both_systems_apply_alike() {
    let [(_, gitlab), (_, tekton)] = scripts();
    assert_eq!(tekton.strip_prefix("#!/bin/sh\nset -eu\n"), Some(gitlab.as_str()));
}

/// Parameters are handed over by the environment: pasted into a script they would be run.
#[test]
fn scripts_have_no_parameters_pasted_into_them() {
    let component = std::fs::read_to_string(root().join("ci/gitlab/templates/tidegate.yml")).unwrap();
    for job in serde_saphyr::from_multiple::<Value>(&component).unwrap()[1].as_object().unwrap().values() {
        let script = job["script"].to_string();
        assert!(!script.contains("$[["), "{script}");
    }
    for task in documents(&root().join("ci/tekton/task.yaml")) {
        for step in task["spec"]["steps"].as_array().unwrap() {
            let script = step["script"].as_str().unwrap();
            assert!(!script.contains("$(params") && !script.contains("$(workspaces"), "{script}");
        }
    }
}

/// What a Pipeline hands over is what its Tasks take.
#[test]
fn the_pipeline_fits_its_tasks() {
    let pipeline = &documents(&root().join("ci/tekton/pipeline.yaml"))[0]["spec"];
    let tasks = documents(&root().join("ci/tekton/task.yaml"));
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let params = names(&pipeline["params"]);
    for step in pipeline["tasks"].as_array().unwrap() {
        let named = |task: &&Value| task["metadata"]["name"] == step["taskRef"]["name"];
        let task = tasks.iter().find(named).unwrap();
        for field in ["params", "workspaces"] {
            assert_eq!(sorted(names(&step[field])), sorted(names(&task["spec"][field])), "{field}");
        }
        for param in step["params"].as_array().unwrap() {
            let name = param["name"].as_str().unwrap();
            assert_eq!(param["value"], format!("$(params.{name})"));
            assert!(params.iter().any(|known| known == name), "{name}");
        }
    }
}

/// The values of a component's inputs are those that are declared, and every one of them is used.
#[test]
fn the_component_uses_the_inputs_that_it_declares() {
    let text = std::fs::read_to_string(root().join("ci/gitlab/templates/tidegate.yml")).unwrap();
    let (head, jobs) = text.split_once("\n---\n").unwrap();
    let head: Value = serde_saphyr::from_str(head).unwrap();
    let declared: std::collections::BTreeSet<&str> =
        head["spec"]["inputs"].as_object().unwrap().keys().map(String::as_str).collect();
    let used: std::collections::BTreeSet<&str> =
        jobs.split("$[[ inputs.").skip(1).map(|rest| rest.split_once(" ]]").unwrap().0).collect();
    assert_eq!(declared, used);
    for (name, input) in head["spec"]["inputs"].as_object().unwrap() {
        assert!(
            input["description"].is_string() && (name == "image" || !input["default"].is_null()),
            "{name}"
        );
    }
}

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn write(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A program of this name.
    fn program(&self, name: &str, text: &str) {
        self.write(&format!("bin/{name}"), text);
        let path = self.folder.path().join("bin").join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, script: &str, kubeconfig: &Path) -> (bool, String) {
        let bin = self.folder.path().join("bin");
        let output = Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", kubeconfig)
            .env("TIDEGATE_RULES", "rules")
            .env("TIDEGATE_VALUES", "")
            .env("TIDEGATE_CONTEXT", "")
            .env("TIDEGATE_OWNER", "orders")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.success(), text)
    }
}

/// Documents may begin on the line of their mark, and end with one of their own.
#[test]
fn no_document_is_lost_wherever_it_begins() {
    let script = &scripts()[0].1;
    let program = script.split_once("awk '\n").unwrap().1.split_once("' \"$file\"").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let sort = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new("awk").arg(program).arg(&file).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let kept = |texts: &[&str]| (true, texts.iter().map(|text| format!("---\n{text}\n")).collect::<String>());
    for (text, expected) in [
        ("kind: Guard\na: 1\n---\nkind: Caller\n", kept(&["kind: Guard\na: 1", "kind: Caller"])),
        ("--- # first\nkind: Guard\n---\t# next\nkind: Mesh\n", kept(&["# first\nkind: Guard"])),
        ("kind: Guard\n...\nkind: Caller\n", kept(&["kind: Guard", "kind: Caller"])),
        ("kind: Mesh\n...\n--- \r\nkind: Caller\n", kept(&["kind: Caller"])),
    ] {
        assert_eq!(sort(text), expected, "{text}");
    }
    for text in ["--- {kind: Guard}\n", "kind: Guard\n--- {kind: Caller}\n", "---x\n", "--- !!map\n{}\n"] {
        assert!(!sort(text).0, "{text} is neither kept nor refused");
    }
}

fn rule(name: &str, path: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1\nkind: AccessRule\nmetadata: {{name: {name}, namespace: sales}}\nspec:\n  owner: team\n  effect: \
         Allow\n  mode: Enforce\n  from: [{{peer: {{namespace: etl}}}}]\n  to: [{{http: {{methods: [GET], paths: [\"{path}\"]}}}}]\n"
    )
}

/// Of every object the commit that changed its file last, where the clone can tell; whatever the author is called.
#[test]
fn what_is_applied_says_which_commit_it_is_from() {
    for program in ["kubectl", "jq", "git"] {
        if Command::new(program).arg("--help").output().is_err() {
            return println!("SKIPPED: what is applied says which commit it is from: no `{program}` here");
        }
    }
    let which = Command::new("sh").args(["-c", "command -v kubectl"]).output().unwrap();
    let kubectl = String::from_utf8(which.stdout).unwrap();
    for (system, script) in scripts() {
        let folder = Folder { folder: tempfile::tempdir().unwrap() };
        folder.program("tidegate", "#!/bin/sh\n");
        // What is said to a cluster stays here.
        let shim = format!(
            "#!/bin/sh\ncase $1 in\nlabel) exec {} \"$@\" ;;\napply) for last; do :; done; cp \"$last\" applied.json; cat \"$last\" ;;\n\
             get) echo '{{\"items\": []}}' ;;\nesac\n",
            kubectl.trim()
        );
        folder.program("kubectl", &shim);
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args(["-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"])
                .args(arguments)
                .current_dir(folder.folder.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let commit = |author: &str| {
            git(&["add", "--all", "rules"]);
            git(&["-c", &format!("user.name={author}"), "commit", "--quiet", "--message", "x"]);
            git(&["rev-parse", "HEAD"])
        };
        let annotations = || -> Vec<(String, Value)> {
            let (is_done, text) = folder.run(&script, Path::new("/nowhere"));
            assert!(is_done, "{system}: {text}");
            let applied = std::fs::read_to_string(folder.folder.path().join("applied.json")).unwrap();
            let applied: Value = serde_json::from_str(&applied).unwrap();
            let items = applied["items"].as_array().unwrap().iter();
            let of = |object: &Value| object["metadata"]["annotations"].clone();
            items
                .map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), of(object)))
                .collect()
        };
        let names =
            |found: &[(String, Value)]| found.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        folder.write("rules/a.yaml", &format!("{}---\n{}", rule("one", "/one"), rule("two", "/two")));
        let found = annotations();
        assert!(found.iter().all(|(_, one)| one.is_null()), "{system}: there is no clone: {found:?}");

        git(&["init", "--quiet", "--initial-branch", "main"]);
        folder.write("rules/z*.yaml", &rule("other", "/other"));
        let first = commit("Dana");
        folder.write("rules/zz.yaml", &rule("three", "/three"));
        let author = "O'Hara \"$(touch started)\" \\t `x`";
        let second = commit(author);
        folder.write("rules/zzz.yaml", &rule("new", "/new"));
        let found = annotations();
        let by = |commit: &str, author: &str| json!({"tidegate.dev/commit": commit, "tidegate.dev/author": author});
        assert_eq!(names(&found), ["one", "two", "other", "three", "new"], "{system}");
        let expected =
            [by(&first, "Dana"), by(&first, "Dana"), by(&first, "Dana"), by(&second, author), Value::Null];
        for ((name, found), expected) in found.iter().zip(expected) {
            assert_eq!(*found, expected, "{system}: {name}");
        }
        assert!(!folder.folder.path().join("started").exists());

        // What was changed since then is nobody's commit, and where a clone begins nothing need have changed.
        folder.write("rules/zz.yaml", &rule("three", "/changed"));
        assert_eq!(annotations()[3].1, Value::Null, "{system}");
        folder.write("rules/zz.yaml", &rule("three", "/three"));
        folder.write(".git/shallow", &format!("{second}\n"));
        assert!(annotations().iter().all(|(_, one)| one.is_null()), "{system}");
    }
}

/// As an account that may do this and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_has_what_the_folder_has() {
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") else {
        return println!("SKIPPED: applying on a real API server: KUBEBUILDER_ASSETS is not set");
    };
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        return println!("SKIPPED: applying on a real API server: no `kubectl` here");
    }
    let _turn = TURN.lock().await;
    let real = RealApi::start(assets.as_ref()).await;
    let admin = client(&real.kubeconfig).await;
    for object in tidegate::kube::crds() {
        apply(&admin, &object).await;
    }
    for name in ["sales", "ci"] {
        apply(&admin, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    }
    let role = &documents(&root().join("ci/role.yaml"))[0];
    apply(&admin, role).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "ci"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": "ci"}],
    });
    apply(&admin, &binding).await;
    let all = |kind: &str| -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("tidegate.dev", "v1alpha1", kind);
        let plural = format!("{}s", kind.to_lowercase());
        Api::all_with(admin.clone(), &ApiResource::from_gvk_with_plural(&gvk, &plural))
    };
    let there = async || -> Vec<String> {
        let mut names = Vec::new();
        for kind in ["TrustedIssuer", "Caller", "Guard", "AccessRule"] {
            let list = all(kind).list(&Default::default()).await.unwrap();
            names.extend(
                list.items.iter().map(|object| format!("{kind} {}", object.metadata.name.as_ref().unwrap())),
            );
        }
        names
    };
    for kind in ["TrustedIssuer", "Caller", "Guard", "AccessRule"] {
        until(kind, async || all(kind).list(&Default::default()).await.is_ok()).await;
    }
    let by_hand: Value = serde_saphyr::from_str(&rule("by-hand", "/hand")).unwrap();
    apply(&admin, &by_hand).await;

    for (system, script) in scripts() {
        let folder = Folder { folder: tempfile::tempdir().unwrap() };
        // Rules are checked by the program itself in another test.
        folder.program("tidegate", "#!/bin/sh\n[ \"$1 $2\" = 'check rules' ]\n");
        let kubeconfig: PathBuf = folder.folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, as_account(&real.kubeconfig, "ci", "ci")).unwrap();
        // A new server has not granted everybody yet what everybody may.
        until("the account may ask which kinds there are", async || {
            folder.run("kubectl api-versions", &kubeconfig).0
        })
        .await;
        let issuer = "apiVersion: tidegate.dev/v1alpha1\nkind: 'TrustedIssuer' # ours\nmetadata: {name: corp}\nspec: {issuer: \"https://i.example\", \
                      pack: generic, keys: {discovery: true}}\n";
        let guard = "apiVersion: tidegate.dev/v1alpha1\nkind: Guard\nmetadata: {name: all, namespace: sales}\nspec: {mode: Enforce, \
                     audience: \"${env.audience}\"}\n";
        folder.write("rules/mesh.yaml", "kind: Mesh\nmetadata: {name: m}\nspec: {}\n");
        folder.write("rules/a.yaml", &format!("# one\n---\n{issuer}---\n{guard}"));
        folder.write("rules/deep er/one.yml", &rule("one", "/one"));
        folder.write(
            "rules/two.yaml",
            &format!("{}---\nkind: RuleTest\nmetadata: {{name: t}}\nspec: {{}}\n", rule("two", "/two")),
        );
        let (is_done, text) = folder.run(&script, &kubeconfig);
        assert!(is_done, "{system}: {text}");
        let whole =
            ["TrustedIssuer corp", "Guard all", "AccessRule by-hand", "AccessRule one", "AccessRule two"];
        assert_eq!(there().await, whole, "{system}: {text}");
        let found = all("Guard").list(&Default::default()).await.unwrap().items.remove(0);
        assert_eq!(
            found.data["spec"]["audience"], "${env.audience}",
            "values are the control plane's to put in"
        );

        // A hand edit is not what the folder says; what is gone there goes here; nobody else's does.
        let one: Api<DynamicObject> = {
            let gvk = GroupVersionKind::gvk("tidegate.dev", "v1alpha1", "AccessRule");
            Api::namespaced_with(
                admin.clone(),
                "sales",
                &ApiResource::from_gvk_with_plural(&gvk, "accessrules"),
            )
        };
        let edit = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        one.patch("one", &edit, &Patch::Merge(json!({"spec": {"effect": "Deny"}}))).await.unwrap();
        std::fs::remove_file(folder.folder.path().join("rules/two.yaml")).unwrap();
        folder.write("rules/a.yaml", guard);
        let (is_done, text) = folder.run(&script, &kubeconfig);
        assert!(is_done, "{system}: {text}");
        assert_eq!(there().await, ["Guard all", "AccessRule by-hand", "AccessRule one"], "{system}: {text}");
        assert_eq!(one.get("one").await.unwrap().data["spec"]["effect"], "Allow", "{system}");

        // What cannot be told is an error, and an empty folder is no order to delete everything.
        for (file, bad) in [
            (
                "rules/flow.yaml",
                "{apiVersion: tidegate.dev/v1alpha1, kind: AccessRule, metadata: {name: flow, namespace: sales}, spec: {}}\n",
            ),
            ("rules/other.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: sales}\n"),
        ] {
            folder.write(file, bad);
            let (is_done, text) = folder.run(&script, &kubeconfig);
            assert!(!is_done && text.contains(file), "{system}: {text}");
            std::fs::remove_file(folder.folder.path().join(file)).unwrap();
        }
        std::fs::remove_dir_all(folder.folder.path().join("rules")).unwrap();
        folder.write("rules/mesh.yaml", "kind: Mesh\nmetadata: {name: m}\nspec: {}\n");
        let (is_done, text) = folder.run(&script, &kubeconfig);
        assert!(!is_done, "{system}: {text}");
        // A check that fails comes before everything.
        folder.program("tidegate", "#!/bin/sh\nexit 1\n");
        folder.write("rules/three.yaml", &rule("three", "/three"));
        let (is_done, text) = folder.run(&script, &kubeconfig);
        assert!(!is_done, "{system}: {text}");
        assert_eq!(there().await, ["Guard all", "AccessRule by-hand", "AccessRule one"], "{system}: {text}");
    }
}
