//! `install`, `package oci`, `doctor` and the served module as people use them: what is written, and exit codes.

use std::io::Write;
use std::process::{Command, Stdio};

use http::Method;
use serde_json::Value;
use tidegate::demo::client::{Call, Endpoint, Protocol};

use crate::fixture::*;

/// Exit code, standard output, standard error.
fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone already.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn good() -> Place {
    Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))])
}

#[test]
fn what_is_to_be_applied_is_printed() {
    let (code, text, _) = run(&["install", "--namespace", "gate"], "");
    assert_eq!(code, 0);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!((&objects[0]["kind"], &objects[0]["metadata"]["name"]), (&"Namespace".into(), &"gate".into()));
    let (code, _, told) = run(&["install", "--namespace", "Gate"], "");
    assert!(code == 3 && told.contains("`Gate` is not a namespace"), "{code} {told}");
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart").display().to_string();
    assert_eq!(run(&["install", "--helm", &chart], "").0, 0);
    let (code, _, told) = run(&["install", "--helm", &chart], "");
    assert!(code == 3 && told.contains("is not empty"), "{code} {told}");
    assert_eq!(run(&["install", "--helm", &chart, "--image", "x"], "").0, 2);
}

#[test]
fn a_module_is_packaged_once() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("dist").display().to_string();
    let (code, text, _) = run(&["package", "oci", &layout, "-o", "json"], "");
    assert_eq!(code, 0);
    let told: Value = serde_json::from_str(&text).unwrap();
    let index: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("dist/index.json")).unwrap())
            .unwrap();
    for (told, written) in
        told["images"].as_array().unwrap().iter().zip(index["manifests"].as_array().unwrap())
    {
        assert_eq!(told["digest"], written["digest"]);
    }
    let (code, _, told) = run(&["package", "oci", &layout], "");
    assert!(code == 3 && told.contains("is not empty"), "{code} {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_guarded_workload_gets_its_plugin() {
    let place = good();
    place.write("dataflow.yaml", DATAFLOW_RULE);
    let running = place.start().await;
    let (rules, state) = (place.rules().display().to_string(), place.state().display().to_string());
    let admin = format!("http://{}", running.admin_addr);
    let plugins = |more: &[&str]| {
        let arguments = ["plugins", &rules, "--state", &state, "-o", "json"];
        tokio::task::block_in_place(|| run(&[&arguments[..], more].concat(), ""))
    };
    let registry = ["--module", "registry.example/tidegate/filter"];
    let (code, text, told) = plugins(&[&registry[..], &["--istio", "1.29"]].concat());
    assert_eq!(code, 0, "{told}");
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        all["items"].as_array().unwrap().len(),
        2,
        "also where Istio alone says what the rules say: {text}"
    );
    let (code, text, told) = plugins(&[&registry[..], &["--istio", "1.29", "--leave-out-exact"]].concat());
    assert_eq!(code, 0, "{told}");
    let list: Value = serde_json::from_str(&text).unwrap();
    let [object] = list["items"].as_array().unwrap().as_slice() else { panic!("{text}") };
    assert_eq!(
        (&object["kind"], &object["metadata"]["name"]),
        (&"WasmPlugin".into(), &"tidegate-orders".into())
    );
    let digest = tidegate::oci::digests().unwrap().headers;
    assert_eq!(object["spec"]["url"], format!("oci://registry.example/tidegate/filter@sha256:{digest}"));
    let config = &object["spec"]["pluginConfig"];
    let ids: Vec<&str> = running.trusted_keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!((&config["keys"][0]["id"], &config["keys"][1]["id"]), (&ids[0].into(), &ids[1].into()));
    assert!(config["bundle"].is_null());

    let served = ["--module", "http://tidegate.tidegate-system.svc:15082", "--warm-start", &admin];
    let (code, text, told) = plugins(&served);
    assert_eq!(code, 0, "{told}");
    let list: Value = serde_json::from_str(&text).unwrap();
    let spec = &list["items"][0]["spec"]["wasm"];
    assert_eq!(spec["sha256"], tidegate::FILTER_SHA256);
    assert!(spec["pluginConfig"]["bundle"].is_string());

    // Only tokens tell the gateway's callers: with the interlock, which its filter was told, nobody passes without the filter.
    let edge = DATAFLOW_RULE
        .replace("name: dataflow,", "name: edge,")
        .replace("namespace: sales", "namespace: ingress");
    let edge = edge.replace(
        "target: {selector: {matchLabels: {app: orders}}}",
        "target: {gateway: ingress/dataflow-in}",
    );
    let (_, edge) = edge.rsplit_once("---").unwrap();
    let guard = "kind: Guard\nmetadata: {name: edge, namespace: ingress}\nspec: {mode: Enforce, audience: \"https://a.example\"}\n";
    place.write("edge.yaml", &format!("{guard}---\n{edge}"));
    let (code, text, told) = plugins(&registry);
    assert_eq!(code, 0, "{told}");
    let list: Value = serde_json::from_str(&text).unwrap();
    let of_gateway = |object: &&Value| object["metadata"]["namespace"] == "ingress";
    let gateway = list["items"].as_array().unwrap().iter().find(of_gateway).unwrap();
    let interlock = gateway["spec"]["wasm"]["pluginConfig"]["interlock"].as_str().unwrap();
    assert_eq!(interlock.len(), 32);
    let others: Vec<&Value> =
        list["items"].as_array().unwrap().iter().filter(|object| !of_gateway(object)).collect();
    assert!(!others.is_empty());
    for object in others {
        assert!(
            object["spec"]["wasm"]["pluginConfig"]["interlock"].is_null(),
            "no Fence demands it: {object}"
        );
    }
    let render = |more: &[&str]| {
        tokio::task::block_in_place(|| run(&[&["render", &rules, "-o", "json"][..], more].concat(), ""))
    };
    assert!(!render(&[]).1.contains("x-tidegate-interlock"));
    let (code, text, told) = render(&["--interlock", &state]);
    assert_eq!(code, 0, "{told}");
    assert!(text.contains("request.headers[x-tidegate-interlock]") && text.contains(interlock), "{text}");
    let (code, _, told) = render(&["--interlock", &rules]);
    assert!(code == 3 && told.contains("holds no secret"), "{code} {told}");

    let (code, text, told) = plugins(&[&registry[..], &["--dormant"]].concat());
    assert_eq!(code, 0, "{told}");
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert!(told.contains("note [no_peers]"), "{told}");

    for (more, expected, word) in [
        (&["--module", "registry.example/tidegate/filter:tag"][..], 3, "not an OCI repository"),
        (&["--module", "http://h/path"], 3, "not where modules are served"),
        (&["--module", "http://h", "--pull-secret", "s"], 3, "for registries"),
        (&["--module", "r.example/f", "--istio", "1.26"], 2, "1.27"),
        (&["--module", "r.example/f", "--warm-start", "http://127.0.0.1:1"], 3, "cannot fetch the Bundle"),
    ] {
        let (code, text, told) = plugins(more);
        assert!(code == expected && told.contains(word) && text.is_empty(), "{more:?}: {code} {text} {told}");
    }
    // A workload that cannot be told from another.
    place.write("mesh.yaml", &MESH.replace("labels: {app: ledger}", "labels: {app: orders, more: x}"));
    let (code, _, told) = plugins(&registry);
    assert!(code == 1 && told.contains("no object [selects_others]"), "{code} {told}");
    running.shutdown().await.unwrap();
}

#[test]
fn the_doctor_reads_what_kubectl_prints() {
    let place = good();
    let rules = place.rules().display().to_string();
    let pods = |app: &str| {
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: sales, labels: {{app: \
             {app}}}}}, spec: {{hostNetwork: true}}}}\n"
        )
    };
    let codes = |text: &str| -> Vec<String> {
        let all: Vec<Value> = serde_json::from_str(text).unwrap();
        all.iter().map(|one| one["code"].as_str().unwrap().to_owned()).collect()
    };
    let (code, text, told) = run(&["doctor", &rules, "--manifests", "-", "-o", "json"], &pods("orders"));
    assert_eq!((code, codes(&text)), (1, vec!["TD0203".to_owned()]), "{told}");
    let other = pods("other");
    assert_eq!(run(&["doctor", &rules, "--manifests", "-"], &other).0, 0, "a warning");
    assert_eq!(run(&["doctor", &rules, "--manifests", "-", "--strict"], &other).0, 1);
    place.write("dataflow.yaml", DATAFLOW_RULE);
    let (code, text, _) = run(&["doctor", &rules, "--target-istio", "1.31"], "");
    assert!(code == 0 && text.contains("TD0701"), "{code} {text}");
    let (code, text, _) = run(&["doctor", &rules, "--istio", "1.30", "--target-istio", "1.31"], "");
    assert!(code == 0 && text == "nothing found\n", "{code} {text}");
    place.write(
        "bad.yaml",
        "kind: Guard\nmetadata: {name: g, namespace: sales}\nspec: {mode: Enforce, typo: 1}\n",
    );
    let (code, text, _) = run(&["doctor", &rules, "-o", "json"], "");
    assert!(code == 1 && codes(&text).iter().all(|code| code.starts_with("TG")), "{code} {text}");
}

#[test]
fn what_the_doctor_cannot_read_is_no_clean_result() {
    let place = good();
    let rules = place.rules().display().to_string();
    for (arguments, expected, word) in [
        (&["doctor"][..], 3, "nothing to look at"),
        (&["doctor", "/nowhere"], 3, "/nowhere"),
        (&["doctor", "--manifests", "-"], 3, "holds no object"),
        (&["doctor", "--manifests", "/nowhere"], 3, "/nowhere"),
        (&["doctor", "--admin", "http://127.0.0.1:1"], 3, "cannot ask"),
        (&["doctor", &rules, "--target-istio", "1.26"], 2, "1.27"),
        (&["doctor", "--target-istio", "1.31"], 2, "DIR"),
        (&["doctor", "--manifests", &rules, "--state", "/nowhere"], 3, "no signing keys"),
    ] {
        let (code, out, told) = run(arguments, "");
        assert!(
            code == expected && told.contains(word) && out.is_empty(),
            "{arguments:?}: {code} {out} {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_asks_a_control_plane_that_runs() {
    let place = good();
    let running = place.start().await;
    let admin = format!("http://{}", running.admin_addr);
    let ask = || tokio::task::block_in_place(|| run(&["doctor", "--admin", &admin], ""));
    let (code, text, told) = ask();
    assert!(code == 0 && text == "nothing found\n", "{code} {text} {told}");
    // A filter that says nothing of what it enforces.
    let _filter = Filter::connect(&running, hello("sales/orders")).await;
    let mut behind = ask();
    for _ in 0..100 {
        if behind.1.contains("TD0803") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        behind = ask();
    }
    assert!(behind.0 == 0 && behind.1.contains("1 of 1 connected VMs are behind"), "{behind:?}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_has_its_module_on_a_port_of_its_own() {
    let place = good();
    let mut options = place.options();
    options.modules = Some("127.0.0.1:0".parse().unwrap());
    let mut running = tidegate::serve::start(options).await.unwrap();
    running.ready().await.unwrap();
    let endpoint = Endpoint::plain(running.module_addr.unwrap());
    let get = async |path: &str| endpoint.call(Protocol::Http1, Call::new(Method::GET, path)).await.unwrap();
    let module = get(&tidegate::module_server::path(tidegate::FILTER_SHA256)).await;
    assert_eq!(module.status, 200);
    assert_eq!(module.body, tidegate::FILTER_WASM);
    for path in ["/metrics", "/fleet", "/bundle/sales/orders", "/"] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    running.shutdown().await.unwrap();
}
