//! The Fence of written rules: objects and notes, as people see them.

mod common;
mod istio;

use std::sync::Arc;

use common::{compiled, rule};
use serde_json::Value;
use tidegate_compiler::fence::{Aliases, Fence, FenceOptions, Surroundings, WorkloadFence, fence, fence_in};
use tidegate_compiler::{Compiled, WorkloadId};

fn id(text: &str) -> WorkloadId {
    let (namespace, name) = text.split_once('/').unwrap();
    WorkloadId { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn options(claims: bool) -> FenceOptions {
    FenceOptions { claims, ..FenceOptions::default() }
}

fn made(compiled: &Compiled, options: &FenceOptions) -> Fence {
    let made = fence(compiled, options);
    for object in made.workloads.values().flat_map(|workload| &workload.objects) {
        let wrong = istio::schema::wrong_with(&object.to_json());
        assert!(wrong.is_empty(), "{wrong:?}\n{:#}", object.to_json());
    }
    made
}

fn shown(workload: &WorkloadFence) -> String {
    let mut text: String = workload.notes.iter().map(|note| format!("# {note}\n")).collect();
    text.push_str(&format!(
        "# needs the filter: {}, interlock: {}\n",
        workload.needs_filter,
        workload.interlock.is_some()
    ));
    for object in &workload.objects {
        text.push_str(&format!("{:#}\n", object.to_json()));
    }
    text
}

/// What is made for a workload of the mesh.
fn of(rules: &str, workload: &str, options: &FenceOptions) -> String {
    let compiled = compiled(rules);
    shown(&made(&compiled, options).workloads[&id(workload)])
}

const WORKER: &str =
    "  - peer: {namespace: etl, serviceAccounts: [orders-worker]}\n    tokens: [{issuer: prod-cluster}]\n";

#[test]
fn a_worker_with_a_token() {
    let rules = rule("Allow", WORKER, "  - http: {methods: [POST], paths: ['/v1/orders/{id}']}");
    insta::assert_snapshot!(of(&rules, "sales/orders-api", &options(false)));
}

#[test]
fn without_any_allow_nothing_passes() {
    insta::assert_snapshot!(of("", "sales/orders-api", &options(false)));
}

#[test]
fn without_any_guard_there_is_nothing() {
    insta::assert_snapshot!(of("", "etl/orders-worker", &options(false)));
}

const EDGE: &str = "\
kind: Guard
metadata: {name: edge, namespace: ingress}
spec: {mode: Enforce, ports: [8443], tcpPorts: [9000], audience: 'https://orders.sales.example'}
---
kind: AccessRule
metadata: {name: enter, namespace: ingress}
spec:
  owner: a
  target: {gateway: ingress/dataflow-in}
  effect: Allow
  mode: Enforce
  from: [{tokenOnly: {via: [ingress/dataflow-in]}, tokens: [{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4}}]}]
  to: [{http: {methods: [POST], hosts: [orders.sales.example], paths: ['/v1/orders/{id}', '/v1/topics/x:publish'], headers: [{name: x-env, exact: prod}]}}]
---
kind: AccessRule
metadata: {name: no-deletes, namespace: ingress}
spec:
  owner: a
  target: {gateway: ingress/dataflow-in}
  effect: Deny
  mode: Enforce
  from: [{anyMesh: true}, {anyMesh: true, tokens: [{issuer: gitlab}]}]
  to: [{http: {methods: [DELETE], paths: ['/{**}'], hosts: ['*.example']}}, {http: {paths: ['/admin/{**}', '/tmp-*'], ports: [8443, 9443]}}]
";

#[test]
fn callers_without_a_peer_at_a_gateway() {
    insta::assert_snapshot!(of(EDGE, "ingress/dataflow-in", &options(false)));
}

#[test]
fn callers_without_a_peer_need_the_interlock() {
    let secrets = [(id("ingress/dataflow-in"), "c2VjcmV0".to_owned())];
    let options = FenceOptions { interlock_secrets: secrets.into(), ..FenceOptions::default() };
    let made = made(&compiled(EDGE), &options);
    let workload = &made.workloads[&id("ingress/dataflow-in")];
    assert_eq!(workload.interlock.as_ref().map(|interlock| interlock.value.as_str()), Some("c2VjcmV0"));
    let text = shown(workload);
    assert!(text.contains("request.headers[x-tidegate-interlock]") && !text.contains("# open"), "{text}");
    // A workload without such callers does not need it, whatever value it was given.
    let secrets = [(id("sales/orders-api"), "c2VjcmV0".to_owned())];
    let options = FenceOptions { interlock_secrets: secrets.into(), ..FenceOptions::default() };
    assert!(fence(&compiled(EDGE), &options).workloads[&id("sales/orders-api")].interlock.is_none());
}

#[test]
fn an_interlock_that_istio_would_take_for_a_pattern_is_not_used() {
    for secret in ["", "*", "abc*", "*abc", "a b", "ü"] {
        let secrets = [(id("ingress/dataflow-in"), secret.to_owned())];
        let options = FenceOptions { interlock_secrets: secrets.into(), ..FenceOptions::default() };
        let made = made(&compiled(EDGE), &options);
        let workload = &made.workloads[&id("ingress/dataflow-in")];
        assert!(workload.interlock.is_none() && !workload.objects.is_empty(), "{secret:?}");
        assert!(workload.notes.iter().any(|note| note.text.contains("interlock is empty")), "{secret:?}");
    }
}

/// istio#61126: of a DENY that has nothing but HTTP, ztunnel keeps nothing, and reports that it is stricter.
#[test]
fn a_deny_without_ports_is_left_to_the_filter() {
    let rules = rule("Deny", "  - anyone: true\n", "  - http: {methods: [DELETE]}");
    let text = of(&rules, "sales/orders-api", &options(false));
    assert!(!text.contains("\"DENY\""), "{text}");
    assert!(text.contains("# deny: sales/r: no ports are known"), "{text}");
    let rules = rule("Deny", "  - anyone: true\n", "  - http: {methods: [DELETE], ports: [8080]}");
    let text = of(&rules, "sales/orders-api", &options(false));
    assert!(text.contains("\"DENY\"") && text.contains("\"8080\""), "{text}");
}

#[test]
fn a_deny_that_istio_would_say_wider_is_left_to_the_filter() {
    for (from, to) in [
        ("  - {anyMesh: true, tokens: [{issuer: gitlab}]}\n", "  - http: {methods: [DELETE], ports: [8080]}"),
        (
            "  - {anyMesh: true, when: ['request.headers[\"x-a\"] == \"b\"']}\n",
            "  - http: {methods: [DELETE], ports: [8080]}",
        ),
        (
            "  - anyMesh: true\n",
            "  - http: {methods: [DELETE], ports: [8080], headers: [{name: x-a, exact: b}]}",
        ),
        ("  - anyMesh: true\n", "  - http: {paths: ['/a-*'], ports: [8080]}"),
        (
            "  - {peer: {namespace: a, trustDomain: other.example}}\n",
            "  - http: {methods: [DELETE], ports: [8080]}",
        ),
    ] {
        let text = of(&rule("Deny", from, to), "sales/orders-api", &options(false));
        assert!(!text.contains("\"DENY\"") && text.contains("# deny: sales/r: "), "{from}{to}\n{text}");
    }
}

#[test]
fn what_istio_says_exactly_needs_no_filter() {
    let exact = "  - http: {methods: [GET], paths: ['/healthz']}";
    let peer = "  - {peer: {namespace: etl, serviceAccounts: [orders-worker]}}\n";
    let of = |from: &str, to: &str| shown(&without_aliases(&compiled(&rule("Allow", from, to))));
    let text = of(peer, exact);
    assert!(text.contains("# needs the filter: false"), "{text}");
    for (from, to) in [
        (WORKER, exact),
        (peer, "  - http: {methods: [GET], paths: ['/{a}']}"),
        (peer, "  - http: {methods: [GET], paths: ['/a:b']}"),
        (peer, "  - http: {paths: ['/healthz']}"),
        (peer, "  - http: {methods: [GET]}"),
        (peer, "  - http: {methods: [GET], paths: ['/healthz'], hosts: [a.example]}"),
        (peer, "  - http: {methods: [GET], paths: ['/healthz'], headers: [{name: x-a, exact: b}]}"),
        (peer, "  - grpc: {services: [a.B], methods: [C]}"),
        ("  - {peer: {namespace: etl}, when: ['request.headers[\"x-a\"] == \"b\"']}\n", exact),
        ("  - {peer: {namespace: etl, trustDomain: cluster.local}}\n", exact),
    ] {
        let text = of(from, to);
        assert!(text.contains("# needs the filter: true"), "{from}{to}\n{text}");
    }
}

const CORP: &str =
    "  - {anyMesh: true, tokens: [{issuer: corp, claims: {sub: a, roles: [writer], level: 3}}]}\n";

#[test]
fn claims_that_istio_verifies_as_well() {
    let rules = rule("Allow", CORP, "  - http: {methods: [POST], paths: ['/v1/orders/{id}']}");
    insta::assert_snapshot!(of(&rules.replace("roles: [writer], ", ""), "sales/orders-api", &options(true)));
}

#[test]
fn no_token_is_verified_by_istio_where_that_would_refuse_what_the_filter_allows() {
    let allow = |from: &str| rule("Allow", from, "  - http: {methods: [POST], paths: ['/v1/orders']}");
    let corp = "  - {anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}]}\n";
    let whole = of(&allow(corp), "sales/orders-api", &options(true));
    assert!(whole.contains("RequestAuthentication") && whole.contains("request.auth.claims[sub]"), "{whole}");
    assert!(!of(&allow(corp), "sales/orders-api", &options(false)).contains("RequestAuthentication"));
    let ports =
        "kind: Guard\nmetadata: {name: b, namespace: etl}\nspec: {mode: Enforce, ports: [8080]}\n---\n";
    for (rules, workload) in [
        // Somebody needs no token: an opaque one of theirs would be refused.
        (allow(&format!("{corp}  - peer: {{namespace: ops}}\n")), "sales/orders-api"),
        // Two tokens.
        (
            allow(
                "  - {anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}, {issuer: google, claims: {sub: '1'}}]}\n",
            ),
            "sales/orders-api",
        ),
        // Two headers.
        (
            allow(&format!(
                "{corp}  - {{anyMesh: true, tokens: [{{issuer: gitlab, gitlab: {{project: 7, protectedRef: true}}}}]}}\n"
            )),
            "sales/orders-api",
        ),
        // No `iss`.
        (
            allow(
                "  - {anyMesh: true, tokens: [{issuer: batch, spiffe: {id: 'spiffe://batch.example/a'}}]}\n",
            ),
            "sales/orders-api",
        ),
        // Ports that are not guarded.
        (
            format!(
                "{ports}{}",
                allow("  - {anyMesh: true, tokens: [{issuer: google, claims: {sub: '1'}}]}\n")
                    .replace("namespace: sales", "namespace: etl")
                    .replace("app: orders-api", "app: orders-worker")
            ),
            "etl/orders-worker",
        ),
    ] {
        let text = of(&rules, workload, &options(true));
        assert!(!text.contains("RequestAuthentication") && !text.contains("request.auth"), "{rules}\n{text}");
        assert!(text.contains("Istio verifies no tokens here"), "{rules}\n{text}");
    }
}

/// "CORS preflight bypasses jwt_authn": such a request has no claims for Istio.
#[test]
fn no_claims_are_demanded_of_what_may_be_a_preflight() {
    let corp = "  - {anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}]}\n";
    for to in ["", "  - http: {paths: [/a]}", "  - http: {methods: [GET, OPTIONS], paths: [/a]}"] {
        let text = of(&rule("Allow", corp, to), "sales/orders-api", &options(true));
        assert!(!text.contains("request.auth"), "{to}\n{text}");
    }
}

#[test]
fn gateways_of_the_gateway_api_are_targets() {
    let mut compiled = compiled(&rule("Allow", WORKER, ""));
    let workload = compiled.mesh.workloads.get_mut(&id("sales/orders-api")).unwrap();
    workload.labels.insert("gateway.networking.k8s.io/gateway-name".to_owned(), "front".to_owned());
    let made = made(&compiled, &options(false));
    let spec = &made.workloads[&id("sales/orders-api")].objects[0].spec;
    assert_eq!(spec["targetRefs"][0]["name"], "front");
    assert_eq!(spec.get("selector"), None);
}

#[test]
fn a_workload_that_cannot_be_selected_has_no_fence() {
    for labels in [vec![], vec![("app", "a*")], vec![("", "a")]] {
        let mut compiled = compiled(&rule("Allow", WORKER, ""));
        let workload = compiled.mesh.workloads.get_mut(&id("sales/orders-api")).unwrap();
        workload.labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let workload = &made(&compiled, &options(false)).workloads[&id("sales/orders-api")];
        assert!(workload.objects.is_empty() && workload.needs_filter, "{labels:?}");
        assert!(workload.notes.iter().any(|note| note.text.contains("no labels")), "{labels:?}");
    }
}

#[test]
fn many_rules_stay_within_the_most_branches() {
    let many: String = (0..100)
        .map(|number| {
            let from =
                format!("  - {{peer: {{namespace: n{}, serviceAccounts: [a{number}]}}}}\n", number % 40);
            let to = format!("  - http: {{methods: [GET], paths: ['/v1/x{number}/{{id}}']}}");
            rule("Allow", &from, &to).replace("name: r,", &format!("name: r{number},")) + "---\n"
        })
        .collect();
    let compiled = compiled(many.trim_end_matches("---\n"));
    let made = made(&compiled, &options(false));
    let workload = &made.workloads[&id("sales/orders-api")];
    let branches: usize = workload.objects[0].spec["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["to"].as_array().map_or(1, Vec::len))
        .sum();
    assert_eq!(branches, tidegate_compiler::fence::MAX_BRANCHES);
    assert!(
        workload.notes.iter().any(|note| note.text.starts_with("more than 32 branches")),
        "{:?}",
        workload.notes
    );
    let callers: usize = workload.objects[0].spec["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["from"][0]["source"]["principals"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(callers, 100, "every caller is still named");
    let text: Value = workload.objects[0].to_json();
    assert!(!text.to_string().contains("\"*\""), "nothing was given up altogether");
}

const PLAIN: &str = "  - peer: {namespace: etl, serviceAccounts: [orders-worker]}\n";

/// Where it is known that the mesh has no `trustDomainAliases`.
fn without_aliases(compiled: &Compiled) -> Arc<WorkloadFence> {
    let around = Surroundings { aliases: Aliases::Absent, ..Surroundings::default() };
    Arc::clone(&fence_in(compiled, &options(false), &around).workloads[&id("sales/orders-api")])
}

/// "Expanded to the mesh domain and all aliases": with an alias, Istio lets peers pass whom the rules do not name.
#[test]
fn rules_that_name_peers_need_the_filter_unless_there_are_no_aliases() {
    let operation = "  - http: {methods: [GET], paths: [/a]}";
    for (from, named) in [(PLAIN, true), ("  - anyMesh: true\n", true), ("  - anyone: true\n", false)] {
        let compiled = compiled(&rule("Allow", from, operation));
        let unknown = made(&compiled, &options(false)).workloads[&id("sales/orders-api")].clone();
        let known = without_aliases(&compiled);
        assert_eq!((unknown.needs_filter, known.needs_filter), (named, false), "{from}");
        assert_eq!(unknown.objects, known.objects, "{from}: only what is said of them differs");
        let said = unknown.notes.iter().any(|note| note.text.contains("trustDomainAliases"));
        assert_eq!(said, named, "{from}: {:?}", unknown.notes);
    }
}

/// Inside a waypoint, a connection may have no port: the filter refuses it, and Istio's `notPorts` lets it pass.
#[test]
fn a_gateway_whose_guard_names_ports_needs_the_filter() {
    let anyone = rule("Allow", "  - anyone: true\n", "  - http: {methods: [GET], paths: [/a]}");
    for (ports, gateway, needs) in
        [(Some(vec![8443]), false, false), (Some(vec![8443]), true, true), (None, true, false)]
    {
        let mut compiled = compiled(&anyone);
        compiled.mesh.workloads.get_mut(&id("sales/orders-api")).unwrap().gateway = gateway;
        let policy = Arc::make_mut(compiled.workloads.get_mut(&id("sales/orders-api")).unwrap());
        policy.model.guards.iter_mut().for_each(|guard| guard.ports.clone_from(&ports));
        let workload = without_aliases(&compiled);
        assert_eq!(workload.needs_filter, needs, "{ports:?} {gateway}: {:?}", workload.notes);
        assert_eq!(workload.objects[0].to_json().to_string().contains("notPorts"), ports.is_some());
    }
}

/// "A policy applies to workloads in all namespaces when it is in the root namespace": to pods as well that the mesh does not list.
#[test]
fn a_workload_of_the_root_namespace_has_no_policy_that_selects() {
    let mut compiled = compiled(&rule("Allow", PLAIN, "  - http: {methods: [GET], paths: [/a]}"));
    compiled.mesh.root_namespace = "sales".to_owned();
    let workload = &made(&compiled, &options(false)).workloads[&id("sales/orders-api")];
    assert!(workload.objects.is_empty() && workload.needs_filter);
    assert!(workload.notes.iter().any(|note| note.text.contains("every namespace")), "{:?}", workload.notes);
    // A Gateway is named, and a name means one of the policy's namespace.
    let gateway = compiled.mesh.workloads.get_mut(&id("sales/orders-api")).unwrap();
    gateway.labels.insert("gateway.networking.k8s.io/gateway-name".to_owned(), "front".to_owned());
    let workload = &made(&compiled, &options(false)).workloads[&id("sales/orders-api")];
    assert_eq!(workload.objects[0].spec["targetRefs"][0]["name"], "front");
}

/// A certificate of an authority that only this gateway trusts may say `spiffe://…/ns/etl/sa/orders-worker`, which Istio compares
/// and the filter knows to be no peer.
#[test]
fn a_gateway_whose_rules_name_peers_needs_the_filter() {
    let rules = rule("Allow", PLAIN, "  - http: {methods: [GET], paths: [/a]}");
    let made_with = |change: &dyn Fn(&mut tidegate_compiler::Workload)| {
        let mut compiled = compiled(&rules);
        change(compiled.mesh.workloads.get_mut(&id("sales/orders-api")).unwrap());
        made(&compiled, &options(false)).workloads[&id("sales/orders-api")].clone()
    };
    let compiled = compiled(&rules);
    assert!(!without_aliases(&compiled).needs_filter, "at a sidecar Istio says exactly that");
    let gateway = made_with(&|workload| workload.gateway = true);
    let label = "gateway.networking.k8s.io/gateway-name";
    let of_the_api =
        made_with(&|workload| drop(workload.labels.insert(label.to_owned(), "front".to_owned())));
    for workload in [gateway, of_the_api] {
        assert!(workload.needs_filter);
        assert!(
            workload.notes.iter().any(|note| note.text.contains("another authority")),
            "{:?}",
            workload.notes
        );
    }
}

/// Where no ALLOW reaches a pod, Istio lets everything through.
#[test]
fn a_rollout_does_not_leave_the_fence_behind() {
    let mut compiled = compiled(&rule("Allow", PLAIN, "  - http: {methods: [GET], paths: [/a]}"));
    let workload = compiled.mesh.workloads.get_mut(&id("sales/orders-api")).unwrap();
    workload.labels.insert("pod-template-hash".to_owned(), "5d4f8c".to_owned());
    workload.labels.insert("istio.io/rev".to_owned(), "1-30".to_owned());
    let made = made(&compiled, &options(false));
    let spec = &made.workloads[&id("sales/orders-api")].objects[0].spec;
    assert_eq!(spec["selector"]["matchLabels"], serde_json::json!({"app": "orders-api"}));
}

/// Istio takes `cluster.local` for the mesh's own trust domain, and would no longer compare the peer's.
#[test]
fn a_peer_of_another_mesh_that_is_called_cluster_local_is_not_refused() {
    let peer = "  - peer: {namespace: etl, serviceAccounts: [orders-worker], trustDomain: cluster.local}\n";
    let mut compiled = compiled(&rule("Allow", peer, "  - http: {methods: [GET], paths: [/a]}"));
    let principals = |compiled: &Compiled| {
        let workload = without_aliases(compiled);
        (
            workload.objects[0].spec["rules"][0]["from"][0]["source"]["principals"].clone(),
            workload.needs_filter,
        )
    };
    compiled.mesh.trust_domain = "prod.example".to_owned();
    assert_eq!(principals(&compiled), (serde_json::json!(["cluster.local/ns/etl/*"]), true));
    compiled.mesh.trust_domain = "cluster.local".to_owned();
    assert_eq!(principals(&compiled), (serde_json::json!(["cluster.local/ns/etl/sa/orders-worker"]), false));
}
