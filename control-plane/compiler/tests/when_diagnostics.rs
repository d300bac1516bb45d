//! What the compiler says about conditions, times and fields of requests that are wrong.

mod common;

use common::{compile_rules, refused, rule, shown, warned};

const TO: &str = "  - http: {methods: [POST], paths: [/v1/orders]}";
const PEER: &str = "  - anyMesh: true";

/// An entry of any peer with a token `job` of a GitLab project, and one of another issuer, with these conditions.
fn entry(effect: &str, when: &[&str]) -> String {
    let list: String = when.iter().map(|when| format!("    - '{}'\n", when.replace('\'', "''"))).collect();
    let from = format!(
        "  - anyMesh: true\n    tokens:\n    - {{issuer: gitlab, as: job, claims: {{project_id: '4711'}}}}\n    - {{issuer: \
         corp, claims: {{sub: a}}}}\n    when:\n{}",
        list.trim_end()
    );
    rule(effect, &from, TO)
}

fn when(when: &[&str]) -> String {
    entry("Allow", when)
}

fn to(to: &str) -> String {
    rule("Allow", PEER, to)
}

fn time(lines: &str) -> String {
    format!("{}{lines}", rule("Allow", PEER, TO))
}

refused! {
    refuses_comparisons_of_different_types: when(&[
        "job.ref_protected == true",
        "job.ref_protected",
        "!job.ref_protected",
        "job.ref_protected == \"yes\"",
        "job.project_id == 4711",
        "job.project_id == \"acme/app\"",
        "job.ref < \"z\"",
        "job.runner_id == \"7\"",
        "job.runner_id < \"7\"",
        "job[\"@fork\"] == \"true\"",
        "job.groups_direct == \"a\"",
        "job.groups_direct.contains(\"a\")",
        "job.ref in job.pipeline_source",
        "\"a\" in \"b\"",
        "now < 5",
        "now - timestamp(\"2026-01-01T00:00:00Z\") < 5",
        "now < timestamp(\"2026-01-01\")",
        "timestamp(job.ref) < now",
        "now < duration(\"1 hour\")",
        "request.port == \"8080\"",
        "request.method == 5",
        "size(job.runner_id) == 1",
        "job.runner_id.startsWith(\"7\")",
        "job.job_config == \"a\"",
    ]);
    refuses_what_is_no_condition: when(&[
        "job.ref",
        "job.runner_id",
        "now",
        "\"main\"",
        "5",
        "true",
        "1 == 1",
        "\"a\" == \"b\"",
        "job.ref == job.ref",
        "now == now",
        "[\"a\"]",
        "job",
        "peer",
        "request",
        "job.ref == [\"main\"]",
        "job.ref in []",
        "job.ref ? true : false",
        "job.ref == \"main\" || true",
        "false && job.ref == \"main\"",
        "!false",
        "job.ref == \"main\" ? true : true",
    ]);
    refuses_names_that_an_entry_does_not_have: when(&[
        "job.refprotected == \"true\"",
        "jop.ref == \"main\"",
        "release.ref == \"main\"",
        "gitlab.ref == \"main\"",
        "peer.name == \"a\"",
        "request.verb == \"GET\"",
        "request.header[\"x\"] == \"a\"",
        "request.headers == \"a\"",
        "request.headers[\"host\"] == \"a\"",
        "request.headers[\":path\"] == \"a\"",
        "request.headers[\"x-tidegate-rule\"] == \"a\"",
        "request.headers[\"x y\"] == \"a\"",
        "request.query[\"a b\"] == \"a\"",
        "job.iat < 5",
        "has(job.refs)",
        "has(request.path)",
        "now.seconds == 5",
    ]);
    refuses_what_conditions_do_not_have: when(&[
        "job.ref.lowerAscii() == \"main\"",
        "job.groups_direct.exists(g, g == \"a\")",
        "job.ref + \"a\" == \"maina\"",
        "job.runner_id * 2 == 4",
        "1.5 < job.runner_id",
        "job.deployment_tier == null",
        "job.ref == job.pipeline_source + \"\"",
        "job.ref.startsWith(job.pipeline_source)",
        "job.ref.startsWith(\"\")",
        "peer.namespace in job.groups_direct",
        "job.runner_id + corp.a < corp.b + corp.c",
        "{\"a\": 1} == {\"a\": 1}",
        "int(job.project_id) == 5",
    ]);
    refuses_text_that_is_no_expression: when(&["job.ref ==", "job.ref = \"main\"", "", "job.ref == \"a\u{200b}\"", "job.ref == 'release-*'"]);
    refuses_values_that_no_request_has: when(&[
        "request.method == \"post\"",
        "request.method in [\"POST\", \"DELET\"]",
        "request.host == \"Orders.example.com\"",
        "request.host == \"orders.example.com:443\"",
        "request.path == \"v1/orders\"",
        "request.path == \"/v1/../orders\"",
        "request.path == \"/v1/orders?alt=json\"",
    ]);
    refuses_regular_expressions_that_cannot_be_used: when(&[
        "job.ref.matches(\"^(main$\")",
        "job.ref.matches(\"^main(?!x)$\")",
        "job.ref.matches(\"^(a)\\\\1$\")",
        "job.ref.matches(\"[ab]*a[ab]{16}\")",
        "job.ref.matches(job.pipeline_source)",
        "job.groups_direct.matches(\"a\")",
    ]);
    refuses_conditions_that_cost_too_much: {
        let values: Vec<String> = (0..60).map(|value| format!("\"v{value}\"")).collect();
        let long = format!("job.ref in [{}]", values.join(", "));
        let pattern = "job.ref.matches(\"^[ab]{0,9}a[ab]{8}$\")";
        let mut all = vec![long.as_str(); 10];
        all.extend([pattern; 8]);
        when(&all)
    };
    refuses_the_peer_of_entries_that_have_none: "\
kind: AccessRule
metadata: {name: via, namespace: egress}
spec:
  owner: a
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: gitlab, as: job, claims: {project_id: '4711'}}]
    when: ['peer.namespace == \"etl\"']
";
    refuses_an_empty_list_of_conditions: rule("Allow", "  - anyMesh: true\n    when: []", TO);
    refuses_times_that_are_none: time("  notBefore: 2026-13-01
  notAfter: tomorrow
  schedule: {timeZone: europe/berlin, windows: [{days: [Mon, Mon], from: '8:00', to: '25:00'}, {days: [], from: '08:00', to: '08:00'}]}
");
    refuses_rules_that_never_hold: time("  notBefore: 2026-06-01
  notAfter: 2026-05-01
  schedule: {timeZone: Mars/Olympus, windows: []}
");
    refuses_other_spellings_of_days: time("  schedule: {timeZone: UTC, windows: [{days: [Monday], from: '08:00', to: '18:00'}]}\n");
    refuses_ages_that_are_none: rule("Allow", "  - anyMesh: true\n    tokens: [{issuer: gitlab, claims: {project_id: '4711'}, maxTokenAge: 8d}, {issuer: corp, claims: {sub: a}, maxTokenAge: soon}]", TO);
    refuses_ages_in_a_deny: rule("Deny", "  - anyMesh: true\n    tokens: [{issuer: gitlab, claims: {project_id: '4711'}, maxTokenAge: 5m}]", TO);
    refuses_fields_that_say_nothing_or_too_much: to("  - http:
      methods: [POST]
      headers:
      - {name: x-env}
      - {name: x-env, exact: a, prefix: b}
      - {name: x-env, present: false}
      - {name: x-env, absent: false}
      - {name: x-env, exact: 'a*'}
      - {name: x-env, glob: '*'}
      - {name: x-env, prefix: ''}
      - {name: ':path', exact: /}
      - {name: Host, exact: a}
      - {name: x-tidegate-id, present: true}
      - {name: 'x env', present: true}
      query:
      - {name: '', present: true}
      - {name: 'a+b', present: true}
  - http: {headers: []}
  - http: {query: []}");
    refuses_an_allow_for_any_project_that_only_a_condition_reads: rule("Allow", "  - anyMesh: true\n    tokens: [{issuer: gitlab, as: job}]\n    when: ['job.ref_protected == \"true\"']", TO);
}

warned! {
    warns_of_expressions_that_match_anywhere: when(&[
        "job.ref.matches(\"^main\")",
        "job.ref.matches(\"main$\")",
        "job.ref.matches(\"^main$\")",
        "!job.ref.matches(\"dev\")",
        "job.ref != \"a\" && job.ref.matches(\"main\")",
    ]);
    warns_of_names_that_pass_to_others_in_conditions: when(&["job.project_path == \"acme/app\""]);
}

#[test]
fn a_deny_may_match_anywhere() {
    let compilation = compile_rules(&entry("Deny", &["job.user_access_level.matches(\"dev\")"]));
    assert_eq!(shown(&compilation), "=> compiled\n");
}
