use std::process::{Command, Output};

use tidegate::serve::ServeError;

use crate::fixture::*;

fn good() -> Place {
    Place::new(&[("mesh.yaml", MESH), ("a.yaml", &rule("one", "Allow", "/v1/one"))])
}

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_missing_folder_an_empty_one_and_bad_files_stop_the_start() {
    let place = good();
    for (options, expected) in [
        (
            tidegate::serve::Options { rules: place.folder.path().join("missing").into(), ..place.options() },
            "missing",
        ),
        (
            tidegate::serve::Options { rules: tempfile::tempdir().unwrap().keep().into(), ..place.options() },
            "no *.yaml",
        ),
        (
            tidegate::serve::Options { directory: Some(place.rules().join("mesh.yaml")), ..place.options() },
            "directory file",
        ),
        (
            tidegate::serve::Options { environment: Some("/nowhere.yaml".into()), ..place.options() },
            "/nowhere.yaml",
        ),
        (
            tidegate::serve::Options { issuer_ca: vec![place.rules().join("mesh.yaml")], ..place.options() },
            "BEGIN CERTIFICATE",
        ),
    ] {
        let error = tidegate::serve::start(options).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn a_port_in_use_stops_the_start_and_names_the_option() {
    let place = good();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = other.local_addr().unwrap();
    let options = tidegate::serve::Options { listen, ..place.options() };
    let error = tidegate::serve::start(options).await.unwrap_err();
    assert!(matches!(error, ServeError::Listen { flag: "--listen", .. }), "{error}");
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
    let options = tidegate::serve::Options { admin: listen, ..place.options() };
    let error = tidegate::serve::start(options).await.unwrap_err();
    assert!(matches!(error, ServeError::Listen { flag: "--admin", .. }), "{error}");
}

#[tokio::test]
async fn a_state_folder_in_use_or_damaged_stops_the_start() {
    let place = good();
    let running = place.start().await;
    let error = place.try_start().await.unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    running.shutdown().await.unwrap();
    for file in ["revision.json", "manifests.json", "accepted.json", "issuer-keys.json", "signing-key.p8"] {
        let state = place.folder.path().join(format!("damaged-{file}"));
        copy_tree(&place.state(), &state);
        std::fs::write(state.join(file), "{").unwrap();
        let options = tidegate::serve::Options { state, ..place.options() };
        let error = match tidegate::serve::start(options).await {
            Ok(mut running) => running.failed().await.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(file) && error.contains("damaged"), "{file}: {error}");
    }
}

#[test]
fn serve_exits_with_3_when_the_environment_is_wrong_and_with_2_when_the_command_line_is() {
    let place = good();
    let state = place.state();
    let output = tidegate(&[
        "serve",
        "--rules",
        "/nowhere",
        "--state",
        state.to_str().unwrap(),
        "--insecure-no-authentication",
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("/nowhere"), "{}", text(&output.stderr));
    assert_eq!(tidegate(&["serve", "--rules"]).status.code(), Some(2));
    assert_eq!(tidegate(&["--log", "a=b=c", "check", "/nowhere"]).status.code(), Some(2));
}

#[test]
fn check_says_what_is_wrong_and_exits_with_1() {
    let place = good();
    let rules = place.rules();
    let rules = rules.to_str().unwrap();
    let output = tidegate(&["check", rules]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    place.write("b.yaml", &rule("two", "Allow", "/v1/two").replace("mode:", "mod:"));
    let output = tidegate(&["check", rules]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("b.yaml:9:3: error[TG0201]") && said.contains("`mode`"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours without a terminal: {said}");
    let output = tidegate(&["check", rules, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["code"] == "TG0201").unwrap();
    assert_eq!((found["file"].as_str(), found["line"].as_u64()), (Some("b.yaml"), Some(9)));
    assert_eq!(tidegate(&["check", "/nowhere"]).status.code(), Some(3));
}

#[cfg(unix)]
#[test]
fn a_running_serve_stops_cleanly_on_sigterm_and_plugin_config_reads_its_state() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let place = good();
    let (rules, state) = (place.rules(), place.state());
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([
            "--log-format",
            "json",
            "serve",
            "--insecure-no-authentication",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--rules",
        ])
        .arg(&rules)
        .arg("--state")
        .arg(&state)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut admin = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in lines.by_ref() {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        if let Some(address) = event["fields"]["admin_addr"].as_str() {
            admin = address.to_owned();
        }
        if event["fields"]["message"] == "bundles published" {
            break;
        }
    }
    let state = state.to_str().unwrap();
    let warm = format!("http://{admin}");
    let output =
        tidegate(&["plugin-config", "--state", state, "--workload", WORKLOAD, "--warm-start", &warm]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["workload"], WORKLOAD);
    assert_eq!(config["keys"].as_array().unwrap().len(), 2);
    assert!(config["bundle"].as_str().unwrap().len() > 100);
    let printed = |more: &[&str]| {
        let ran = tidegate(
            &[&["plugin-config", "--state", state, "--workload", WORKLOAD, "--envoy"], more].concat(),
        );
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let (code, _, why) = printed(&["--module", "/nowhere.wasm"]);
    assert!(code == Some(3) && why.contains("tidegate module --out /nowhere.wasm"), "{why}");
    let module = place.rules().join("mesh.yaml");
    let module = module.to_str().unwrap();
    let (code, yaml, why) = printed(&["--module", module, "--upstream", "orders.internal:8081"]);
    assert_eq!(code, Some(0), "{why}");
    let envoy: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(envoy["static_resources"]["clusters"][0]["type"], "STRICT_DNS");
    assert!(yaml.contains(r#""peers":"none""#) && yaml.contains(module), "{yaml}");
    for (wrong, why) in [
        (&["--module", module, "--peers", "mesh"][..], "--identity"),
        (&["--module", module, "--peers", "waypoint"], "waypoint"),
        (&["--module", module, "--identity", "/nowhere"], "cert-chain.pem"),
    ] {
        let (code, _, said) = printed(wrong);
        assert!(code == Some(3) && said.contains(why), "{wrong:?}: {said}");
    }
    // Nobody guards it: such an Envoy would let everything pass.
    let open = ["--workload", "ingress/dataflow-in", "--envoy", "--module", module];
    let output = tidegate(&[&["plugin-config", "--state", state], &open[..]].concat());
    let why = text(&output.stderr);
    assert!(output.status.code() == Some(3) && why.contains("no Guard covers port 8080"), "{why}");
    let output = tidegate(&["plugin-config", "--state", state, "--workload", "sales/unknown"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("sales/orders"), "{}", text(&output.stderr));

    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
}

#[test]
fn the_embedded_module_can_be_written_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("filter.wasm");
    let output = tidegate(&["module", "--out", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).trim(), tidegate::FILTER_SHA256);
    assert_eq!(std::fs::read(path).unwrap(), tidegate::FILTER_WASM);
}
