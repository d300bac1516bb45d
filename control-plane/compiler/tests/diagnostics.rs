//! What the compiler says about rules that are wrong: code, place, what, why and fix.

mod common;

use common::{ISSUERS, MESH, codes, compile_files, compile_rules, files, refused, rule, shown, warned};

const PEER: &str = "  - peer: {namespace: etl, serviceAccounts: [orders-worker]}";
const TO: &str = "  - http: {methods: [POST], paths: [\"/v1/orders/{id}\"]}";

fn from(from: &str) -> String {
    rule("Allow", from, TO)
}

fn to(to: &str) -> String {
    rule("Allow", PEER, to)
}

fn token(token: &str) -> String {
    from(&format!("  - peer: {{namespace: etl}}\n    tokens: [{token}]"))
}

refused! {
    says_every_error_of_a_document_at_once: "\
kind: AccessRule
metadata: {name: many, namespace: sales, owner: me}
spec:
  effect: allow
  mode: Enforced
  from:
  - peeer: {namespace: etl}
  - peer: {namespace: 7, serviceaccounts: [a]}
    tokens: {issuer: google}
  - peer: {}
  to:
  - http: {methods: POST, paths: ['/a', 5], ports: ['80', 70000, yes]}
  extra: 1
";
    refuses_a_field_without_a_value: rule("Allow", PEER, "  - http: {methods: [POST], paths: }");
    refuses_what_yaml_readers_read_differently: "\
kind: AccessRule
metadata: {name: no, namespace: off}
spec: {owner: 0123, contact: y, effect: Deny, mode: Enforce, from: [{anyMesh: yes}], to: [{http: {methods: [0x1, N, 1e3]}}]}
";
    refuses_duplicate_keys: "\
kind: AccessRule
metadata: {name: twice, namespace: sales}
spec:
  owner: a
  effect: Deny
  mode: Enforce
  effect: Allow
  from: [{anyMesh: true}]
";
    refuses_tags_merge_keys_and_keys_that_are_not_strings: "\
kind: AccessRule
metadata: {name: yaml, namespace: sales}
spec:
  <<: {owner: a}
  owner: !!str 7
  effect: Deny
  mode: Enforce
  [a]: b
  from: [{anyMesh: true}]
";
    refuses_values_that_contain_themselves: "kind: Caller\nmetadata: {name: a, namespace: b}\nspec: &a {anyOf: [*a]}\n";
    refuses_unknown_kinds_and_versions: "\
apiVersion: tidegate.dev/v2
kind: Guard
metadata: {name: a, namespace: sales}
spec: {mode: Enforce}
---
kind: AccesRule
---
just text
---
metadata: {name: a}
---
- kind: Guard
";
    a_malformed_document_costs_only_itself: "\
kind: Guard
metadata: {name: a, namespace: sales
spec: {mode: Enforce}
---
kind: Guard
metadata: {name: b, namespace: sales}
spec: {mode: Enforced}
";
    refuses_unset_and_malformed_references_to_the_environment: "\
kind: AccessRule
metadata: {name: env, namespace: sales}
spec:
  owner: '${env.projct}'
  contact: ${HOME}
  effect: Deny
  mode: Enforce
  from: [{peer: {namespace: '${env.}', serviceAccounts: ['${env.project']}}]
";
    refuses_names_and_namespaces: "\
kind: Guard
metadata: {name: Sales, namespace: sales}
spec: {mode: Enforce}
---
kind: Guard
metadata: {name: nowhere}
spec: {mode: Enforce}
---
kind: TrustedIssuer
metadata: {name: other, namespace: sales}
spec: {issuer: 'https://a.example', pack: generic, keys: {discovery: true}}
---
kind: Guard
metadata: {name: system, namespace: kube-system}
spec: {mode: Enforce}
";
    refuses_names_of_revocations: from(PEER).replace("name: r,", "name: tidegate-revoked-r-1,");

    refuses_the_same_object_twice_and_names_both_places: format!("{}---\n{}", from(PEER), from(PEER));

    refuses_an_empty_list_anywhere: "\
kind: AccessRule
metadata: {name: empty, namespace: sales}
spec:
  owner: a
  effect: Allow
  mode: Enforce
  from:
  - {peer: {namespace: etl, serviceAccounts: []}, tokens: []}
  - {tokenOnly: {via: []}, tokens: [{issuer: prod-cluster, claims: {sub: []}}]}
  to:
  - http: {methods: [], paths: [], hosts: [], ports: []}
  - grpc: {services: [], methods: []}
---
kind: AccessRule
metadata: {name: from, namespace: sales}
spec: {owner: a, effect: Allow, mode: Enforce, from: [], to: []}
---
kind: Guard
metadata: {name: empty, namespace: sales}
spec: {mode: Enforce, audience: [], ports: [], selector: {matchLabels: {}}}
---
kind: Caller
metadata: {name: empty, namespace: sales}
spec: {anyOf: []}
---
kind: TrustedIssuer
metadata: {name: empty}
spec: {issuer: 'https://a.example', pack: generic, keys: {discovery: true}, audiences: [], algorithms: [], headers: [], allowedNamespaces: []}
";
    refuses_empty_strings_and_mappings: "\
kind: AccessRule
metadata: {name: empty, namespace: sales}
spec:
  owner: ''
  target: {}
  effect: Allow
  mode: Enforce
  from: [{}, {peer: {namespace: ''}, tokens: [{issuer: gitlab, claims: {}, gitlab: {}}]}]
  to: [{}, {http: {}}, {http: {methods: ['']}}]
";

    refuses_an_entry_that_states_no_peer_or_two: from("\
\x20 - tokens: [{issuer: prod-cluster}]
  - {peer: {namespace: etl}, anyMesh: true}
  - {anyMesh: false}
  - {anyone: false}");
    refuses_tokens_of_anyone_and_no_tokens_of_token_only: from("\
\x20 - {anyone: true, tokens: [{issuer: prod-cluster}]}
  - {tokenOnly: {via: [ingress/dataflow-in]}}");
    refuses_anyone_for_more_than_exact_operations: format!("{}---\n{}", rule("Allow", "  - anyone: true", TO), "\
kind: AccessRule
metadata: {name: all, namespace: sales}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{anyone: true}]}
---
kind: AccessRule
metadata: {name: no-method, namespace: sales}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{anyone: true}], to: [{http: {paths: [/healthz]}}, {http: {methods: [GET], paths: [/ready]}}]}
");
    refuses_references_to_what_is_not_there: from("\
\x20 - caller: data/orders-elt
  - caller: orders-etl
  - {tokenOnly: {via: [ingress/dataflow-inn, sales/orders-api]}, tokens: [{issuer: prod-cluster}]}
  - {anyMesh: true, tokens: [{issuer: prod-clutser}]}");
    refuses_targets_elsewhere: "\
kind: AccessRule
metadata: {name: elsewhere, namespace: sales}
spec: {owner: a, target: {gateway: egress/external}, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}
---
kind: AccessRule
metadata: {name: both, namespace: egress}
spec: {owner: a, target: {gateway: egress/external, selector: {matchLabels: {a: b}}}, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}
";
    refuses_issuers_that_are_for_other_namespaces: "\
kind: Caller
metadata: {name: person, namespace: sales}
spec: {anyOf: [{anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}]}]}
---
kind: Caller
metadata: {name: person, namespace: etl}
spec: {anyOf: [{anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}]}]}
---
kind: AccessRule
metadata: {name: r, namespace: etl}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{caller: sales/person}]}
---
kind: AccessRule
metadata: {name: root, namespace: mesh-config}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{caller: sales/person}]}
";
    refuses_callers_that_name_nobody: "\
kind: Caller
metadata: {name: nobody, namespace: data}
spec: {anyOf: [{anyMesh: true}, {tokenOnly: {via: [ingress/dataflow-in]}}, {}, {caller: data/a}]}
---
kind: Caller
metadata: {name: everybody, namespace: data}
spec: {anyOf: [{anyMesh: true}, {tokenOnly: {via: [ingress/dataflow-in]}}, {tokens: [{issuer: google}]}]}
";
    refuses_two_tokens_of_an_issuer_or_name: from("\
\x20 - peer: {namespace: etl}
    tokens: [{issuer: prod-cluster, as: a}, {issuer: prod-cluster, as: a}, {issuer: corp, as: 'a b'}]");

    refuses_claims_that_tokens_do_not_have: token("{issuer: gitlab, claims: {project_idd: '1', 'a..b': x, colour: red, aud: a, project_id: '1'}}");
    refuses_parts_of_claims_that_are_never_compared: from("\
\x20 - {anyMesh: true, tokens: [{issuer: oauth, claims: {act.sub: orders}}]}
  - {anyMesh: true, tokens: [{issuer: oauth, claims: {sub.id: a, 'client_id.name': b}}]}
  - {anyMesh: true, tokens: [{issuer: entra, claims: {act.sub: orders}}]}
  - anyMesh: true
    tokens: [{issuer: oauth, as: job, claims: {client_id: a}}]
    when: ['job.act.act.sub == \"orders\"', 'job.sub.id == \"a\"']");
    refuses_comparisons_of_different_types: token(
        "{issuer: gitlab, claims: {ref_protected: true, project_id: 4711, runner_id: '7', user_identities: a, \
         environment_protected: yes-please, groups_direct: 7}}"
    );
    refuses_patterns_and_empty_strings_as_values: token(
        "{issuer: gitlab, claims: {project_id: '', ref: 'release-*', sub: [a, '*'], user_id: \"a\\tb\"}}"
    );
    refuses_a_shared_issuer_without_a_tenant: from("\
\x20 - {peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {protectedRef: true}}]}
  - {tokenOnly: {via: [ingress/dataflow-in]}, tokens: [{issuer: google}]}");
    refuses_notations_of_another_pack: from("\
\x20 - peer: {namespace: etl}
    tokens:
    - {issuer: google, gitlab: {project: 1}, kubernetes: {namespace: a}}
    - {issuer: gitlab, google: {subject: 1}, dataflowJob: {name: a, project: b, region: c}}");
    refuses_ids_names_and_addresses_that_nobody_has: from("\
\x20 - peer: {namespace: etl}
    tokens:
    - {issuer: gitlab, gitlab: {project: data/orders, namespace: '07', environment: 'prod*'}}
    - {issuer: google, google: {serviceAccount: sam@example.com, subject: a, project: '1234', projectNumber: '99999999999999999999'}}
    - {issuer: prod-cluster, kubernetes: {serviceAccount: a}}
  - peer: {namespace: ETL, serviceAccounts: ['*'], trustDomain: 'a b'}
    tokens: [{issuer: google, dataflowJob: {name: 'orders-*', project: ACME, region: Europe}}]");

    refuses_paths_with_more_than_one_reading: to(
        "  - http: {paths: [v1, '', '//a', /a//b, /a/../b, /./a, '/a;b', '/a?b=c', '/a#b', '/a%2Fb', '/a%41', '/a b', '/\\a', '/*', '/a/**', '/{*}', '/{**}/a', '/{id', '/x{id}', '/{a-b}', '/{}', /ä, '/a\"b', '/a%zz']}"
    );
    refuses_methods_hosts_and_ports_that_no_request_has: to(
        "  - http: {methods: [post, PSOT, '*', 'A B'], hosts: ['*', 'a.*.b', 'https://a', 'a:80', 'a.', 'a b', '*a'], ports: [0]}"
    );
    refuses_grpc_names_that_no_request_has: to("  - grpc: {services: [Publisher/Publish, 'google.*', ''], methods: [a.B, '*']}");
    refuses_several_kinds_of_operations_in_one_entry: to("  - {http: {methods: [GET]}, grpc: {services: [a.B]}}");
    refuses_tcp_ports_that_are_guarded_or_none: "\
kind: Guard
metadata: {name: tcp, namespace: sales}
spec: {mode: Enforce, ports: [8080], tcpPorts: [8080, 0]}
---
kind: Guard
metadata: {name: empty, namespace: sales}
spec: {mode: Enforce, tcpPorts: []}
";
    refuses_rollouts_that_are_none: "\
kind: Guard
metadata: {name: amounts, namespace: sales}
spec: {mode: Enforce, rollout: {canary: 100%, hold: 9s, abortOn: {newRefusals: '1', minRequests: 0}}}
---
kind: Guard
metadata: {name: more, namespace: etl}
spec: {mode: Enforce, rollout: {canary: 0, hold: 2d, abortOn: {newRefusals: 100%}, pause: 1m}}
---
kind: Guard
metadata: {name: nothing, namespace: etl}
spec: {mode: Enforce, rollout: {canary: 0, hold: 2d, abortOn: {newRefusals: 100%}}}
---
kind: Guard
metadata: {name: short, namespace: etl}
spec: {mode: Enforce, rollout: {canary: '0.001%', hold: 30s, abortOn: {newRefusals: 0%}}}
---
kind: Guard
metadata: {name: empty, namespace: etl}
spec: {mode: Enforce, rollout: {}}
";
    refuses_two_rollouts_for_one_workload: "\
kind: Guard
metadata: {name: all, namespace: mesh-config}
spec: {mode: Enforce, rollout: {canary: 1, hold: 5m}}
---
kind: Guard
metadata: {name: some, namespace: sales}
spec: {mode: Enforce, rollout: {canary: 1, hold: 10m}}
";
    refuses_issuers_that_cannot_be_trusted: "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuer: 'http://a.example', pack: gitlap, keys: {}}
---
kind: TrustedIssuer
metadata: {name: b}
spec:
  issuer: https://b.example
  pack: generic
  keys: {jwksUri: 'https://b.example/keys', discovery: true}
  algorithms: [RS256, HS256, none, RS256]
  headers: [{name: Authorization}, {name: x_token}, {name: Host}, {name: x-tidegate-a}, {name: x-a, prefix: 'Bearer '}, {name: X-A}]
  maxLifetime: 1.5h
  skew: 5m
  audiences: [sts.amazonaws.com, 'a b']
  allowedNamespaces: ['*']
---
kind: TrustedIssuer
metadata: {name: c}
spec: {issuer: 'https://c.example', pack: google, keys: {discovery: false}, requirePodBinding: true}
---
kind: TrustedIssuer
metadata: {name: d}
spec: {issuer: 'https://d.example', pack: generic, keys: {jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}'}}
---
kind: TrustedIssuer
metadata: {name: e}
spec: {issuer: 'https://e.example', pack: generic, keys: {jwks: '{\"keys\":[]}'}}
---
kind: TrustedIssuer
metadata: {name: f}
spec: {issuer: 'https://f.example', pack: generic, keys: {jwks: 'not json'}, maxLifetime: 0s}
---
kind: TrustedIssuer
metadata: {name: g}
spec: {issuer: 'https://accounts.google.com', pack: google, keys: {discovery: true}}
";
    refuses_a_guard_for_tokens_of_somebody_else: "\
kind: Guard
metadata: {name: other, namespace: sales}
spec: {mode: Enforce, audience: sts.amazonaws.com, ports: [0]}
";
}

warned! {
    warns_of_workloads_that_no_guard_covers: "\
kind: AccessRule
metadata: {name: uncovered, namespace: egress}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}
";
    warns_of_objects_that_target_nothing: "\
kind: AccessRule
metadata: {name: nothing, namespace: sales}
spec: {owner: a, target: {selector: {matchLabels: {app: order-api}}}, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}
---
kind: Guard
metadata: {name: nothing, namespace: nowhere}
spec: {mode: Enforce}
";
    warns_of_names_that_pass_to_others: from("\
\x20 - peer: {namespace: etl}
    tokens:
    - {issuer: gitlab, claims: {project_path: data/orders, project_id: '20'}}
    - {issuer: google, google: {serviceAccount: orders-etl@acme.iam.gserviceaccount.com}}");
    warns_of_default_accounts: from("\
\x20 - peer: {namespace: etl, serviceAccounts: [default]}
    tokens:
    - {issuer: google, google: {serviceAccount: 123-compute@developer.gserviceaccount.com, subject: 1}}
    - {issuer: prod-cluster, kubernetes: {namespace: etl, serviceAccount: default}}");
    warns_of_entries_that_are_wider_than_they_look: from("\
\x20 - {tokenOnly: {via: [ingress/dataflow-in]}, tokens: [{issuer: prod-cluster}]}
  - {peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {project: 4711, environment: production}}]}");
    warns_of_values_that_are_there_twice: rule("Allow", "  - peer: {namespace: etl, serviceAccounts: [a, a]}", "  - http: {methods: [GET, GET], paths: [/a, /a], ports: [80, 80]}");
    warns_of_audiences_that_an_issuer_never_has: "\
kind: Guard
metadata: {name: other, namespace: sales}
spec: {mode: Enforce, audience: 'https://ledger.sales.example'}
---
kind: AccessRule
metadata: {name: r, namespace: sales}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}]}]}
";
    warns_where_callers_choose_for_whom_tokens_are_meant: "\
kind: TrustedIssuer
metadata: {name: many}
spec: {issuer: 'https://many.example', pack: generic, keys: {jwksUri: 'https://many.example/keys'}, audiences: [a, b]}
---
kind: TrustedIssuer
metadata: {name: single}
spec: {issuer: 'https://single.example', pack: generic, keys: {jwksUri: 'https://single.example/keys'}, audiences: [a]}
---
kind: Guard
metadata: {name: other, namespace: sales}
spec: {mode: Enforce}
---
kind: AccessRule
metadata: {name: r, namespace: sales}
spec:
  owner: a
  effect: Allow
  mode: Enforce
  from:
  - {anyMesh: true, tokens: [{issuer: many, claims: {sub: a}}]}
  - {anyMesh: true, tokens: [{issuer: single, claims: {sub: a}}]}
";
    warns_of_an_issuer_that_every_cluster_has: "\
kind: TrustedIssuer
metadata: {name: here}
spec: {issuer: 'https://kubernetes.default.svc', pack: kubernetes, keys: {discovery: true}}
";
}

/// Whatever names sort first: what a namespace says is no error of the root namespace.
#[test]
fn of_two_rollouts_the_guard_that_is_not_the_root_namespaces_is_wrong() {
    let guard = |namespace: &str, hold: &str| {
        format!(
            "kind: Guard\nmetadata: {{name: g, namespace: {namespace}}}\nspec: {{mode: Enforce, rollout: {{canary: 1, hold: {hold}}}}}\n"
        )
    };
    for namespace in ["etl", "sales"] {
        let rules = format!("{}---\n{}", guard("mesh-config", "5m"), guard(namespace, "10m"));
        let found = compile_rules(&rules);
        assert_eq!(codes(&found), ["TG0310"], "{}", shown(&found));
        let named = format!("Guard `{namespace}/g`: `spec.rollout`: Guard `mesh-config/g` declares");
        assert!(shown(&found).contains(&named), "{}", shown(&found));
    }
}

#[test]
fn there_must_be_exactly_one_mesh() {
    let none = compile_files(&files(&[("issuers.yaml", ISSUERS)]));
    assert_eq!(codes(&none), ["TG0303"], "{}", shown(&none));
    assert!(none.output.is_none());
    let other = MESH.replace("name: prod", "name: other");
    let two = compile_files(&files(&[("a.yaml", MESH), ("b.yaml", &other)]));
    assert_eq!(codes(&two), ["TG0303"], "{}", shown(&two));
    assert!(two.output.is_none());
}

#[test]
fn a_wrong_mesh_is_reported_field_by_field() {
    let mesh = "\
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: Prod.Example
  rootNamespace: ''
  workloads:
  - {namespace: sales, name: a, labels: {}}
  - {namespace: sales, name: a}
  - {namespace: Sales, name: 'a b', serviceAccount: '*'}
  gateways:
  - {namespace: ingress, name: in}
";
    insta::assert_snapshot!(shown(&compile_files(&files(&[("mesh.yaml", mesh)]))));
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let large = format!("{MESH}#{}", "x".repeat(1 << 20));
    let compilation = compile_files(&files(&[("mesh.yaml", &large)]));
    assert_eq!(codes(&compilation), ["TG0101"], "{}", shown(&compilation));
}

#[test]
fn findings_are_json_with_stable_names() {
    let compilation =
        compile_rules("kind: Guard\nmetadata: {name: a, namespace: sales}\nspec: {mode: enforce}\n");
    let json = serde_json::to_value(&compilation.diagnostics).unwrap();
    assert_eq!(
        json,
        serde_json::json!([{
            "file": "rules.yaml",
            "line": 3,
            "column": 14,
            "code": "TG0205",
            "severity": "error",
            "object": "Guard `sales/a`",
            "field": "spec.mode",
            "message": "`enforce` is not a value of this field",
            "why": "nothing is guessed",
            "fix": "did you mean `Enforce`?",
        }])
    );
}

#[test]
fn too_many_names_and_revocations_are_refused() {
    let list =
        |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let names = |count| list(count, &|index| format!("'https://{index}.example'"));
    let subjects = |count| list(count, &|index| format!("{{subject: s{index}}}"));
    let issuer = |names: &str, subjects: &str| {
        format!(
            "kind: TrustedIssuer\nmetadata: {{name: a}}\nspec: {{issuers: [{names}], pack: generic, keys: {{discovery: \
             true}}, revoked: {{subjects: [{subjects}]}}}}\n"
        )
    };
    for (names, subjects, refused) in
        [(names(64), subjects(4096), false), (names(65), subjects(1), true), (names(1), subjects(4097), true)]
    {
        let text = issuer(&names, &subjects);
        let compilation = compile_files(&files(&[("mesh.yaml", MESH), ("issuers.yaml", &text)]));
        let expected: &[&str] = if refused { &["TG0211"] } else { &[] };
        assert_eq!(codes(&compilation), expected, "{}", shown(&compilation));
    }
}
