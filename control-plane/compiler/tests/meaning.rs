//! What rules mean after compilation: reach, gateways, bindings, and the two forms of what is implied.

mod common;

use common::{codes, compile_rules, compiled, policy, rule, said, shown};
use tidegate_compiler::{DirectoryQuery, KeySource, WorkloadId};
use tidegate_engine::model::{
    Audit, Disclosure, Effect, FromModel, HostPattern, Mode, PathPattern, PeerModel, PolicyModel,
    SegmentPattern,
};

const TO: &str = "  - http: {methods: [POST], paths: [/v1/orders]}";

/// The `from` of the one rule of orders-api.
fn from(effect: &str, from: &str) -> (PolicyModel, Vec<FromModel>) {
    let output = compiled(&rule(effect, from, TO));
    let model = policy(&output, "sales", "orders-api").model.clone();
    let from = model.rules[0].from.clone();
    (model, from)
}

fn conditions(effect: &str, entries: &str) -> Vec<String> {
    let (model, from) = from(effect, entries);
    from.iter().map(|one| said(&model, &one.condition)).collect()
}

fn mesh_peer(namespace: &str, accounts: Option<&[&str]>) -> PeerModel {
    PeerModel::Mesh {
        trust_domain: "prod.example".to_owned(),
        namespace: namespace.to_owned(),
        service_accounts: accounts.map(|accounts| accounts.iter().map(|one| (*one).to_owned()).collect()),
    }
}

#[test]
fn a_rule_reaches_its_namespace_and_a_root_rule_the_mesh_without_system_namespaces() {
    let output = compiled(
        "\
kind: AccessRule
metadata: {name: own, namespace: sales}
spec: {owner: a, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}
---
kind: AccessRule
metadata: {name: root, namespace: mesh-config}
spec: {owner: a, effect: Deny, mode: Shadow, from: [{anyMesh: true}]}
---
kind: AccessRule
metadata: {name: root-egress, namespace: mesh-config}
spec: {owner: a, target: {gateway: egress/external}, effect: Deny, mode: Enforce, from: [{anyMesh: true}]}
---
kind: AccessRule
metadata: {name: root-ledger, namespace: mesh-config}
spec: {owner: a, target: {selector: {matchLabels: {app: ledger}}}, effect: Deny, mode: Enforce, from: [{anyMesh: true}]}
---
kind: Guard
metadata: {name: mesh, namespace: mesh-config}
spec: {mode: Shadow}
",
    );
    let table: [(&str, &str, &[&str], &[&str]); 6] = [
        ("sales", "orders-api", &["mesh-config/root", "sales/own"], &["mesh-config/mesh", "sales/sales"]),
        (
            "sales",
            "ledger",
            &["mesh-config/root", "mesh-config/root-ledger", "sales/own"],
            &["mesh-config/mesh", "sales/sales"],
        ),
        ("etl", "orders-worker", &["mesh-config/root"], &["mesh-config/mesh"]),
        ("ingress", "dataflow-in", &["mesh-config/root"], &["mesh-config/mesh"]),
        ("egress", "external", &["mesh-config/root", "mesh-config/root-egress"], &["mesh-config/mesh"]),
        ("kube-system", "dns", &[], &[]),
    ];
    assert_eq!(output.workloads.len(), table.len());
    for (namespace, name, rules, guards) in table {
        let policy = policy(&output, namespace, name);
        let ids: Vec<&str> = policy.model.rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(ids, rules, "{namespace}/{name}");
        let ids: Vec<&str> = policy.model.guards.iter().map(|guard| guard.id.as_str()).collect();
        assert_eq!(ids, guards, "{namespace}/{name}");
        assert_eq!(policy.covered, !guards.is_empty(), "{namespace}/{name}");
    }
}

#[test]
fn a_rule_says_what_was_written() {
    let output = compiled(
        "\
kind: AccessRule
metadata: {name: all, namespace: sales}
spec:
  owner: team-billing
  contact: '#billing-oncall'
  effect: Deny
  mode: Shadow
  audit: sampled
  disclosure: opaque
  from: [{peer: {namespace: etl, serviceAccounts: [b, a]}}, {peer: {namespace: etl, trustDomain: other.example}}]
  to:
  - http: {methods: [PUT, GET], paths: ['/b/{id}', '/a/{**}', '/c-*'], hosts: [Orders.Example, '*.example'], ports: [81, 80]}
  - grpc: {services: [a.v1.B], methods: [C, D]}
  - grpc: {services: [a.v1.B], ports: [9000]}
",
    );
    let rule = policy(&output, "sales", "ledger").model.rules[0].clone();
    assert_eq!((rule.effect, rule.mode, rule.disclosure), (Effect::Deny, Mode::Shadow, Disclosure::Opaque));
    assert_eq!(rule.audit, Audit::Sampled);
    assert_eq!((rule.owner.as_str(), rule.contact.as_str()), ("team-billing", "#billing-oncall"));
    assert_eq!(rule.from[0].peer, mesh_peer("etl", Some(&["a", "b"])));
    assert_eq!(
        rule.from[1].peer,
        PeerModel::Mesh {
            trust_domain: "other.example".to_owned(),
            namespace: "etl".to_owned(),
            service_accounts: None
        }
    );
    let to = rule.to.clone().unwrap();
    let literal = |text: &str| SegmentPattern::Literal(text.to_owned());
    let pattern = |segments: &[SegmentPattern]| PathPattern { segments: segments.to_vec() };
    assert_eq!(to[0].methods, Some(vec!["GET".to_owned(), "PUT".to_owned()]));
    assert_eq!(to[0].ports, Some(vec![80, 81]));
    assert_eq!(
        to[0].hosts,
        Some(vec![
            HostPattern::Exact("orders.example".to_owned()),
            HostPattern::Suffix(".example".to_owned())
        ])
    );
    assert_eq!(
        to[0].paths,
        Some(vec![
            pattern(&[literal("a"), SegmentPattern::Rest]),
            pattern(&[literal("b"), SegmentPattern::One]),
            pattern(&[SegmentPattern::Glob("c-*".to_owned())]),
        ])
    );
    assert!(!to[0].grpc && to[1].grpc && to[2].grpc);
    assert_eq!(to[1].methods, Some(vec!["POST".to_owned()]));
    assert_eq!(
        to[1].paths,
        Some(vec![pattern(&[literal("a.v1.B"), literal("C")]), pattern(&[literal("a.v1.B"), literal("D")])])
    );
    assert_eq!(to[2].paths, Some(vec![pattern(&[literal("a.v1.B"), SegmentPattern::One])]));
}

#[test]
fn token_only_is_no_peer_at_the_gateway_and_the_gateway_behind_it() {
    let rules = "\
kind: AccessRule
metadata: {name: r, namespace: mesh-config}
spec:
  owner: a
  effect: Allow
  mode: Enforce
  from: [{tokenOnly: {via: [ingress/dataflow-in]}, tokens: [{issuer: google, google: {subject: 7}}]}]
";
    let output = compiled(&format!(
        "{rules}---\nkind: Guard\nmetadata: {{name: g, namespace: mesh-config}}\nspec: {{mode: Enforce}}\n"
    ));
    let peers = |namespace: &str, name: &str| {
        let from = &policy(&output, namespace, name).model.rules[0].from;
        from.iter().map(|one| one.peer.clone()).collect::<Vec<_>>()
    };
    assert_eq!(peers("ingress", "dataflow-in"), [PeerModel::NoPeer]);
    let gateway = mesh_peer("ingress", Some(&["dataflow-in"]));
    assert_eq!(peers("sales", "orders-api"), std::slice::from_ref(&gateway));
    assert_eq!(peers("egress", "external"), [gateway]);
}

#[test]
fn kubernetes_tokens_are_bound_where_the_peer_is_the_caller() {
    let bound = "(prod-cluster:kubernetes.io/namespace PeerNamespace and \
                 prod-cluster:kubernetes.io/serviceaccount/name PeerServiceAccount)";
    let tokens = "tokens: [{issuer: prod-cluster}]";
    assert_eq!(conditions("Allow", &format!("  - {{peer: {{namespace: etl}}, {tokens}}}")), [bound]);
    assert_eq!(conditions("Allow", &format!("  - {{anyMesh: true, {tokens}}}")), [bound]);
    // Through a gateway the peer is the gateway.
    let via = "tokenOnly: {via: [ingress/dataflow-in]}";
    assert_eq!(conditions("Allow", &format!("  - {{{via}, {tokens}}}")), ["true"]);
    // A binding would narrow a Deny: a stolen token of a denied caller would pass.
    assert_eq!(conditions("Deny", &format!("  - {{peer: {{namespace: etl}}, {tokens}}}")), ["true"]);
}

#[test]
fn gitlab_notation_implies_the_fork_checks_in_an_allow_and_catches_forks_in_a_deny() {
    let entry =
        |gitlab: &str| format!("  - {{anyMesh: true, tokens: [{{issuer: gitlab, gitlab: {gitlab}}}]}}");
    let is = |claim: &str, value: &str| format!("gitlab:{claim} OneOf([{value:?}])");
    let (job, project) = (is("job_project_id", "4711"), is("project_id", "4711"));
    for id in ["4711", "'4711'"] {
        let written = entry(&format!("{{project: {id}}}"));
        assert_eq!(conditions("Allow", &written), [format!("({job} and {project})")]);
        assert_eq!(conditions("Deny", &written), [format!("({job} or {project})")]);
    }
    let protected = is("ref_protected", "true");
    let trusted = format!(
        "(gitlab:pipeline_source Present and {protected} and not {})",
        is("pipeline_source", "merge_request_event")
    );
    assert_eq!(
        conditions("Allow", &entry("{project: 4711, protectedRef: true}")),
        [format!("(({job} and {project}) and {trusted})")]
    );
    assert_eq!(conditions("Deny", &entry("{protectedRef: true}")), [protected]);
    // "No unprotected ref" is whatever an Allow would not take for protected.
    assert_eq!(conditions("Deny", &entry("{protectedRef: false}")), [format!("not {trusted}")]);
    let table = [
        (
            "namespace: 72",
            format!("({} and {})", is("job_namespace_id", "72"), is("namespace_id", "72")),
            None,
        ),
        ("protectedRef: false", is("ref_protected", "false"), None),
        ("environment: prod", is("environment", "prod"), Some(is("environment", "prod"))),
        (
            "protectedEnvironment: true",
            is("environment_protected", "true"),
            Some(is("environment_protected", "true")),
        ),
        (
            "protectedEnvironment: false",
            is("environment_protected", "false"),
            Some(format!("not {}", is("environment_protected", "true"))),
        ),
    ];
    for (gitlab, allow, deny) in table {
        let both = entry(&format!("{{project: 4711, {gitlab}}}"));
        let mut parts = [format!("({job} and {project})"), allow];
        parts.sort_unstable();
        assert_eq!(conditions("Allow", &both), [format!("({})", parts.join(" and "))], "{gitlab}");
        if let Some(deny) = deny {
            assert_eq!(conditions("Deny", &entry(&format!("{{{gitlab}}}"))), [deny], "{gitlab}");
        }
    }
}

#[test]
fn claims_and_notations_of_other_packs_compare_exactly_what_is_written() {
    let entry = |token: &str| format!("  - {{anyMesh: true, tokens: [{token}]}}");
    let table = [
        (
            "{issuer: google, google: {subject: '1000', projectNumber: 123456789012}}",
            "(google:google/compute_engine/project_number Integer(123456789012) and google:sub OneOf([\"1000\"]))",
        ),
        (
            "{issuer: google, google: {subject: 7, project: acme}}",
            "(google:google/compute_engine/project_id OneOf([\"acme\"]) and google:sub OneOf([\"7\"]))",
        ),
        (
            "{issuer: google, google: {subject: 7, serviceAccount: a@b.iam.gserviceaccount.com}}",
            "(google:email OneOf([\"a@b.iam.gserviceaccount.com\"]) and google:email_verified Boolean(true) and \
             google:sub OneOf([\"7\"]))",
        ),
        (
            "{issuer: google, claims: {google.compute_engine.license_id: [b, a], sub: '7'}}",
            "((google:google/compute_engine/license_id Contains(\"a\") or \
             google:google/compute_engine/license_id Contains(\"b\")) and google:sub OneOf([\"7\"]))",
        ),
        (
            "{issuer: gitlab, claims: {project_id: ['2', '1'], ref_protected: 'true', runner_id: 7}}",
            "(gitlab:project_id OneOf([\"1\", \"2\"]) and gitlab:ref_protected OneOf([\"true\"]) and \
             gitlab:runner_id Integer(7))",
        ),
        (
            "{issuer: corp, claims: {sub: a, level: 3, admin: true, 'a[\"b.c\"]': d}}",
            "(corp:a/b.c OneOf([\"d\"]) and corp:admin Boolean(true) and corp:level Integer(3) and \
             corp:sub OneOf([\"a\"]))",
        ),
    ];
    for (token, expected) in table {
        assert_eq!(conditions("Allow", &entry(token)), [expected], "{token}");
    }
    let kubernetes = "{tokenOnly: {via: [ingress/dataflow-in]}, tokens: [{issuer: prod-cluster, kubernetes: {namespace: \
                      etl, serviceAccount: a}}]}";
    assert_eq!(
        conditions("Allow", &format!("  - {kubernetes}")),
        ["(prod-cluster:kubernetes.io/namespace OneOf([\"etl\"]) and \
          prod-cluster:kubernetes.io/serviceaccount/name OneOf([\"a\"]))"]
    );
}

#[test]
fn a_dataflow_job_is_a_directory_and_its_project() {
    let job =
        "{issuer: google, dataflowJob: {name: orders-etl, project: '${env.project}', region: europe-west4}}";
    let entry = format!("  - {{tokenOnly: {{via: [ingress/dataflow-in]}}, tokens: [{job}]}}");
    let listed = "google:google/compute_engine/instance_id in dataflow/acme/europe-west4/orders-etl";
    let project = "google:google/compute_engine/project_id OneOf([\"acme\"])";
    assert_eq!(conditions("Allow", &entry), [format!("({listed} and {project})")]);
    assert_eq!(conditions("Deny", &entry), [listed]);
    let output = compiled(&rule("Allow", &entry, TO));
    assert_eq!(
        policy(&output, "sales", "orders-api").directories,
        [DirectoryQuery::DataflowJob {
            project: "acme".to_owned(),
            region: "europe-west4".to_owned(),
            name: "orders-etl".to_owned()
        }]
    );
}

#[test]
fn a_caller_is_any_of_its_forms_with_all_tokens_of_the_entry() {
    let rules = format!(
        "{}---\n{}",
        "\
kind: Caller
metadata: {name: release, namespace: data}
spec:
  anyOf:
  - {peer: {namespace: ci}, tokens: [{issuer: gitlab, claims: {project_id: '4711'}}]}
  - {peer: {namespace: etl}}
",
        rule(
            "Allow",
            "  - {caller: data/release, tokens: [{issuer: gitlab, claims: {job_project_id: '4711', ref_protected: 'true'}}]}",
            TO
        )
    );
    let output = compiled(&rules);
    let model = &policy(&output, "sales", "orders-api").model;
    let from = &model.rules[0].from;
    assert_eq!(from.len(), 2);
    assert_eq!(from[0].issuers, [0]);
    assert_eq!(from[1].issuers, [0]);
    let first = said(model, &from[0].condition);
    let second = said(model, &from[1].condition);
    for claim in ["job_project_id", "ref_protected"] {
        assert!(first.contains(claim) && second.contains(claim), "{first}\n{second}");
    }
    assert!(first.contains(":project_id") && !second.contains(":project_id"), "{first}\n{second}");
}

#[test]
fn the_tenant_of_a_shared_issuer_may_come_from_the_caller() {
    let caller = "\
kind: Caller
metadata: {name: release, namespace: data}
spec: {anyOf: [{peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {project: 4711}}]}]}
---
";
    let only_ref = "tokens: [{issuer: gitlab, claims: {ref_protected: 'true'}}]";
    let through = rule("Allow", &format!("  - {{caller: data/release, {only_ref}}}"), TO);
    assert!(compile_rules(&format!("{caller}{through}")).output.is_some());
    let bare = rule("Allow", &format!("  - {{peer: {{namespace: ci}}, {only_ref}}}"), TO);
    assert_eq!(codes(&compile_rules(&bare)), ["TG0407"]);
    // A Deny for all tenants is only stricter.
    let deny = rule("Deny", &format!("  - {{peer: {{namespace: ci}}, {only_ref}}}"), TO);
    let compilation = compile_rules(&deny);
    assert!(compilation.output.is_some(), "{}", shown(&compilation));
    // Excluding a tenant is not naming one: there is no way to write it, and a Caller cannot do without either.
    let nobody = "kind: Caller\nmetadata: {name: a, namespace: data}\nspec: {anyOf: [{peer: {namespace: ci}, tokens: [{issuer: gitlab, gitlab: {protectedRef: true}}]}]}\n";
    assert_eq!(codes(&compile_rules(nobody)), ["TG0407"]);
}

#[test]
fn anyone_may_do_exactly_what_is_written() {
    let output =
        compiled(&rule("Allow", "  - anyone: true", "  - http: {methods: [GET], paths: [/healthz, /]}"));
    assert_eq!(policy(&output, "sales", "orders-api").model.rules[0].from[0].peer, PeerModel::Anyone);
    // A Deny of everybody may be wide.
    let output = compiled(&rule("Deny", "  - anyone: true", "  - http: {paths: ['/admin/{**}']}"));
    assert_eq!(policy(&output, "sales", "orders-api").model.rules[0].effect, Effect::Deny);
}

#[test]
fn issuers_have_their_packs_defaults_and_what_is_written() {
    let output = compiled(
        "\
kind: TrustedIssuer
metadata: {name: all}
spec:
  issuer: https://all.example/
  pack: kubernetes
  keys: {jwksUri: 'https://all.example/keys'}
  algorithms: [ES256]
  headers: [{name: X-All}, {name: Authorization, prefix: Bearer}]
  maxLifetime: 15m
  skew: 5s
  audiences: [b, a]
  allowedNamespaces: [sales]
  requirePodBinding: false
  forward: true
",
    );
    let find = |name: &str| output.issuers.iter().find(|issuer| issuer.name == name).unwrap();
    let all = find("all");
    assert_eq!(all.keys, KeySource::Uri("https://all.example/keys".to_owned()));
    assert_eq!((all.max_lifetime_s, all.skew_s, all.forward, all.require_pod_binding), (900, 5, true, false));
    assert_eq!(all.audiences, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(all.allowed_namespaces, Some(vec!["sales".to_owned()]));
    assert_eq!(all.headers.len(), 2);
    let spec = all.spec(Vec::new(), 77);
    assert!(spec.allow_unbound && spec.forward);
    assert_eq!((spec.max_lifetime_s, spec.skew_s, spec.valid_until), (900, 5, 77));
    let gitlab = find("gitlab");
    assert_eq!((gitlab.headers[0].name.as_str(), gitlab.forward), ("x-job-token", false));
    let cluster = find("prod-cluster");
    assert_eq!((cluster.max_lifetime_s, cluster.skew_s, cluster.forward), (3600, 30, true));
    assert_eq!(cluster.keys, KeySource::Discovery("https://kubernetes.prod.example".to_owned()));
    let names: Vec<&str> = output.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    assert!(
        names.is_sorted() && ["all", "corp", "gitlab"].iter().all(|name| names.contains(name)),
        "{names:?}"
    );
}

#[test]
fn a_policy_has_only_the_issuers_and_claims_that_its_rules_read() {
    let output = compiled(&rule(
        "Allow",
        "  - {anyMesh: true, tokens: [{issuer: gitlab, claims: {project_id: '1'}}]}",
        TO,
    ));
    let orders = policy(&output, "sales", "orders-api");
    assert_eq!(orders.issuers, ["gitlab"]);
    assert_eq!(orders.model.issuers[0].slots, [["project_id".to_owned()]]);
    let ledger = &output.workloads[&WorkloadId { namespace: "sales".to_owned(), name: "ledger".to_owned() }];
    assert!(ledger.issuers.is_empty() && ledger.model.rules.is_empty() && ledger.covered);
}

#[test]
fn a_reference_to_something_broken_is_reported_once_where_it_is_broken() {
    let rules = format!(
        "kind: Caller\nmetadata: {{name: broken, namespace: data}}\nspec: {{anyOff: []}}\n---\n{}",
        rule("Allow", "  - caller: data/broken", TO)
    );
    let compilation = compile_rules(&rules);
    assert_eq!(codes(&compilation), ["TG0201"], "{}", shown(&compilation));
    assert!(compilation.output.is_none());
}

#[test]
fn what_changes_something_is_recorded_in_full_unless_the_rule_says_otherwise() {
    let audit = |said: &str, to: &str| {
        let rule = format!(
            "kind: AccessRule\nmetadata: {{name: one, namespace: egress}}\nspec:\n  owner: a\n  effect: Allow\n  mode: Enforce\n  \
             target: {{gateway: egress/external}}\n{said}  from: [{{peer: {{namespace: ci, serviceAccounts: [a]}}}}]\n{to}"
        );
        policy(&compiled(&rule), "egress", "external").model.rules[0].audit
    };
    let resources = |service: &str, actions: &str, name: &str| {
        format!("  to: [{{resources: {{service: {service}, actions: [{actions}], names: ['{name}']}}}}]\n")
    };
    let topic = "projects/acme/topics/orders";
    let rows: [(&str, String, Audit); 8] = [
        ("", String::new(), Audit::Sampled),
        ("", "  to: [{http: {methods: [POST]}}]\n".to_owned(), Audit::Sampled),
        ("", resources("pubsub", "read", "projects/acme/subscriptions/orders"), Audit::Sampled),
        ("", resources("pubsub", "write", topic), Audit::Full),
        ("", resources("pubsub", "publish", topic), Audit::Full),
        ("", resources("pubsub", "admin", topic), Audit::Full),
        ("  audit: sampled\n", resources("pubsub", "write", topic), Audit::Sampled),
        ("  audit: required\n", "  to: [{http: {methods: [GET]}}]\n".to_owned(), Audit::Required),
    ];
    for (said, to, expected) in rows {
        assert_eq!(audit(said, &to), expected, "{said}{to}");
    }
}
