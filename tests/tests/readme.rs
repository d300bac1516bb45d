//! What the README says is true: its commands exist, its links lead somewhere, its rules compile and do what they say.

use std::path::Path;

use serde_json::Value;
use tidegate_compiler::{Inputs, SourceFile};
use tidegate_engine::body::{Format, Scanner};
use tidegate_engine::{Body, Directories, HeaderFacts, Outcome, Peer, PolicySet, Request, decide, normal};

const README: &str = include_str!("../../README.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Contents of fenced blocks of one language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn the_first_rule_compiles_and_lets_exactly_its_caller_in() {
    let yaml = blocks(README, "yaml");
    assert_eq!(yaml.len(), 7, "a new block needs a test of its own here");
    let compilation = tidegate_compiler::compile(&Inputs {
        sources: &[SourceFile { path: "rules/orders.yaml".into(), text: yaml[0].into() }],
        env: Default::default(),
        now: None,
    });
    assert!(compilation.diagnostics.is_empty(), "{:#?}", compilation.diagnostics);
    let output = compilation.output.expect("it compiles");
    let (_, policy) = output.workloads.iter().find(|(id, _)| id.to_string() == "sales/orders-api").unwrap();
    let rules = PolicySet::decode(&policy.rules).unwrap();
    let outcome = |service_account: &str, method: &str, path: &str| {
        let path = normal::path(path.as_bytes());
        let request = Request {
            now: 0,
            expiry_grace_s: 0,
            port: 8080,
            method: method.as_bytes(),
            host: Some("orders.sales.example"),
            path: &path,
            query: &[],
            headers: HeaderFacts::default(),
            fields: &[],
            body: Body::Unread,
            peer: Peer::Mesh { trust_domain: "prod.example", namespace: "etl", service_account },
            tokens: &[],
            directories: &Directories::default(),
        };
        decide(&rules, &request).outcome
    };
    assert_eq!(outcome("orders-worker", "POST", "/v1/orders/7"), Outcome::Allow);
    assert_eq!(outcome("orders-worker", "GET", "/v1/orders/7"), Outcome::Deny);
    assert_eq!(outcome("orders-worker", "POST", "/v1/orders"), Outcome::Deny);
    assert_eq!(outcome("other", "POST", "/v1/orders/7"), Outcome::Deny);
}

#[test]
fn the_conditions_compile_and_let_in_whom_they_say() {
    let yaml = blocks(README, "yaml");
    let sources = [("rules/orders.yaml", yaml[0]), ("rules/conditions.yaml", yaml[2])]
        .map(|(path, text)| SourceFile { path: path.into(), text: text.into() });
    let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
    let compilation = tidegate_compiler::compile(&inputs);
    assert!(compilation.diagnostics.is_empty(), "{:#?}", compilation.diagnostics);
    let compiled = compilation.output.expect("it compiles");
    let test = |expect: &str, more: &str| {
        let text = format!(
            "kind: RuleTest\nmetadata: {{name: t}}\nspec:\n  workload: sales/orders-api\n  tests:\n  - name: it\n    request: \
             {{peer: ci/runner, method: DELETE, path: /v1/orders/7, {more}}}\n    expect: {expect}\n"
        );
        let all = [sources.to_vec(), vec![SourceFile { path: "t.yaml".into(), text }]].concat();
        let inputs = Inputs { sources: &all, env: Default::default(), now: None };
        let tests = tidegate_compiler::check_tests(&inputs, &compiled);
        assert!(tests.diagnostics.is_empty(), "{:#?}", tests.diagnostics);
        let report = tidegate::ruletest::run(&compiled, &tests, 0);
        assert_eq!((report.passed, report.failed), (1, 0), "{more}: {:#?}", report.tests);
    };
    let claims = "project_id: '4711', job_project_id: '4711', pipeline_source: push, ref_protected: 'true'";
    let job = |level: &str, issued: &str| {
        format!(
            "tokens: [{{issuer: gitlab, claims: {{{claims}, user_access_level: {level}, iat: {issued}}}}}]"
        )
    };
    // 2026-11-23T09:30:00Z, a Monday, is 1795426200.
    let monday = "time: '2026-11-23T09:30:00Z'";
    test("Allow", &format!("{monday}, {}", job("owner", "1795426000")));
    test("Deny", &format!("{monday}, {}", job("developer", "1795426000")));
    test("Deny", &format!("{monday}, {}", job("owner", "1795425000")));
    test("Deny", &format!("{monday}, {}, headers: {{x-dry-run: '1'}}", job("owner", "1795426000")));
    test("Deny", &format!("time: '2026-11-24T09:30:00Z', {}", job("owner", "1795512600")));
}

#[test]
fn the_first_test_passes_and_covers_the_rule() {
    let yaml = blocks(README, "yaml");
    let sources = [("rules/orders.yaml", yaml[0]), ("rules/orders.test.yaml", yaml[1])]
        .map(|(path, text)| SourceFile { path: path.into(), text: text.into() });
    let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
    let compiled = tidegate_compiler::compile(&inputs).output.expect("it compiles");
    let tests = tidegate_compiler::check_tests(&inputs, &compiled);
    assert!(tests.diagnostics.is_empty(), "{:#?}", tests.diagnostics);
    let report = tidegate::ruletest::run(&compiled, &tests, 0);
    assert_eq!((report.passed, report.failed), (3, 0), "{:#?}", report.tests);
    assert_eq!(report.coverage.conditions.percent(), 100, "{:#?}", report.coverage);
}

#[test]
fn the_rule_on_data_lets_exactly_its_topics_pass() {
    let yaml = blocks(README, "yaml");
    let compilation = tidegate_compiler::compile(&Inputs {
        sources: &[SourceFile { path: "rules/egress.yaml".into(), text: yaml[3].into() }],
        env: Default::default(),
        now: None,
    });
    let output = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
    let (_, policy) = output.workloads.iter().find(|(id, _)| id.to_string() == "egress/external").unwrap();
    let rules = PolicySet::decode(&policy.rules).unwrap();
    let decide_as = |service_account: &str, host: &str, path: &str, grpc: bool, body: &[u8]| {
        let wanted: Vec<u16> = (0..).take(rules.body_fields().len()).collect();
        let format = if grpc { Format::Grpc } else { Format::Json };
        let mut scanner = Scanner::new(Some(format), rules.body_fields(), &wanted);
        scanner.feed(body);
        let path = normal::path(path.as_bytes());
        let content_type: &[u8] = if grpc { b"application/grpc" } else { b"application/json" };
        let request = Request {
            now: 0,
            expiry_grace_s: 0,
            port: 443,
            method: b"POST",
            host: Some(host),
            path: &path,
            query: &[],
            headers: HeaderFacts { grpc, ..HeaderFacts::default() },
            fields: &[(b"content-type", content_type)],
            body: Body::Read { fields: rules.body_fields(), values: scanner.values() },
            peer: Peer::Mesh {
                trust_domain: "prod.example",
                namespace: if service_account == "runner" { "ci" } else { "etl" },
                service_account,
            },
            tokens: &[],
            directories: &Directories::default(),
        };
        decide(&rules, &request).outcome
    };
    let decide_on = |path: &str, grpc: bool, body: &[u8]| {
        decide_as("orders-worker", "pubsub.googleapis.com", path, grpc, body)
    };
    let message = |topic: &str| {
        let length = u8::try_from(topic.len()).unwrap();
        [&[0, 0, 0, 0, length + 2, 10, length][..], topic.as_bytes()].concat()
    };
    let publish = "/google.pubsub.v1.Publisher/Publish";
    for (topic, expected) in [("orders-eu", Outcome::Allow), ("payments", Outcome::Deny)] {
        let name = format!("projects/acme/topics/{topic}");
        assert_eq!(decide_on(publish, true, &message(&name)), expected, "{topic}");
        assert_eq!(decide_on(&format!("/v1/{name}:publish"), false, b"{}"), expected, "{topic}");
    }
    let template = "/v1b3/projects/acme/locations/europe-west4/templates";
    for (caller, account, expected) in [
        ("runner", "orders-etl", Outcome::Allow),
        ("runner", "admin", Outcome::Deny),
        ("orders-worker", "orders-etl", Outcome::Deny),
    ] {
        let body = format!(
            r#"{{"jobName": "orders-1", "gcsPath": "gs://acme-templates/orders/v1",
                 "environment": {{"serviceAccountEmail": "{account}@acme.iam.gserviceaccount.com"}}}}"#
        );
        let outcome = decide_as(caller, "dataflow.googleapis.com", template, false, body.as_bytes());
        assert_eq!(outcome, expected, "{caller} {account}");
    }
}

#[test]
fn the_rollout_is_one_and_says_what_the_text_says() {
    let yaml = blocks(README, "yaml");
    let guard = yaml[0].split("---\n").find(|document| document.contains("kind: Guard")).unwrap();
    let text = yaml[0].replace(guard, &format!("{}\n", yaml[4]));
    assert_ne!(text, yaml[0]);
    let sources = [SourceFile { path: "rules/orders.yaml".into(), text }];
    let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
    let compilation = tidegate_compiler::compile(&inputs);
    let output = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
    let (_, policy) = output.workloads.iter().find(|(id, _)| id.to_string() == "sales/orders-api").unwrap();
    let rollout = policy.rollout.unwrap();
    assert_eq!([1, 1, 2, 20].map(|proxies| rollout.canary.of(proxies)), [1, 1, 1, 2]);
    assert_eq!(rollout.hold_s, 600);
    let abort_on = rollout.abort_on.unwrap();
    assert_eq!((abort_on.new_refusals.to_string().as_str(), abort_on.min_requests), ("1%", 100));
}

/// A block that is no object of ours.
fn values(block: usize) -> Value {
    serde_saphyr::from_str(blocks(README, "yaml")[block]).expect("it is YAML")
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// That it connects is tested where the program is: `control-plane/server/tests/server/telemetry.rs`.
#[test]
fn the_collector_takes_what_the_command_below_sends() {
    let collector = values(5);
    let known: Value = serde_saphyr::from_str(&file("manifests/observability/otel-collector.yaml")).unwrap();
    assert_eq!(collector, known);
    let at = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].as_str().unwrap();
    assert!(README.contains(&format!("--otlp-endpoint http://{at}\n")), "{at}");
    for signal in ["logs", "metrics", "traces"] {
        let pipeline = &collector["service"]["pipelines"][signal];
        for part in ["receivers", "exporters"] {
            let names = pipeline[part].as_array().unwrap();
            assert!(!names.is_empty());
            for name in names {
                assert!(!collector[part][name.as_str().unwrap()].is_null(), "{signal}: {part}: {name}");
            }
        }
    }
}

/// That Envoy writes so, and has the label, is tested on Envoy: `observability/three_sides.rs`.
#[test]
fn istio_is_told_what_the_documentation_says() {
    let mesh = &values(6)["meshConfig"];
    let names: Vec<&String> = mesh.as_object().unwrap().keys().collect();
    assert_eq!(names, ["accessLogFile", "accessLogFormat", "defaultConfig"]);
    let telemetry = file("control-plane/docs/telemetry.md");
    let operator = "%FILTER_STATE(wasm.tidegate.decision:PLAIN)%";
    for text in [mesh["accessLogFormat"].as_str().unwrap(), &telemetry] {
        assert!(text.contains(operator), "{text}");
    }
    assert_eq!(mesh["defaultConfig"], serde_json::json!({"extraStatTags": ["tidegate_reason"]}));
    assert!(telemetry.contains("`extraStatTags: [tidegate_reason]`"));
}

#[test]
fn links_lead_somewhere() {
    for (file, text) in [("README.md", README), ("filter/README.md", include_str!("../../filter/README.md"))]
    {
        let base = root().join(file);
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let path = base.parent().unwrap().join(target);
                assert!(path.exists(), "{file} links to `{target}`, which does not exist");
            }
        }
    }
}

/// What a person would type has to parse, placeholders and all.
#[test]
fn commands_exist() {
    let mut seen = 0;
    for line in blocks(README, "sh").iter().flat_map(|block| block.lines()) {
        let command = line.split('#').next().unwrap_or_default().trim();
        let words: Vec<&str> = command.split_whitespace().collect();
        let arguments = match words.as_slice() {
            ["cargo", "run", "--release", "--", arguments @ ..] | ["tidegate", arguments @ ..] => arguments,
            ["cargo", "test" | "bench", ..] => continue,
            ["otelcol", "--config", "collector.yaml"] => continue,
            ["prometheus", config] => {
                let config = config.strip_prefix("--config.file=").expect("it has a configuration");
                assert!(root().join(config).is_file(), "{config}");
                continue;
            }
            other => panic!("the README has a command that this test does not know: {other:?}"),
        };
        // Where the shell puts what is printed.
        let arguments = match arguments {
            [arguments @ .., ">", _] => arguments,
            arguments => arguments,
        };
        let typed = std::iter::once("tidegate").chain(arguments.iter().copied());
        if let Err(error) = tidegate::cli::command_line().try_get_matches_from(typed) {
            panic!("`{command}`: {error}");
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} commands were found");
}
