//! The example of the design, from its first line to its last: all of it is read, what this version does not support is
//! refused as such, and the rest means what it says.

mod common;

use common::{ISSUERS, MESH, codes, compile_files, env, files, policy, shown};
use tidegate_compiler::{Inputs, parse};
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Peer, PolicySet, Reason, Request, TokenState, VerifiedToken,
    decide, normal,
};

const EXAMPLE: &str = r##"apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {name: sales, namespace: sales}        # in the root namespace: the whole mesh, system namespaces excepted
spec: {mode: Enforce, audience: "https://orders.sales.example"}     # selector, ports, tcpPorts optional
---
kind: Caller
metadata: {name: orders-etl, namespace: data}
spec:
  anyOf:
  - peer: {namespace: etl, serviceAccounts: [orders-worker]}        # workers in pods; token bound to the peer by default
    tokens: [{issuer: prod-cluster}]
  - tokenOnly: {via: [ingress/dataflow-in]}                         # Google-managed workers arrive without a mesh certificate
    tokens: [{issuer: google, dataflowJob: {name: orders-etl, project: "${env.project}", region: europe-west4}}]
---
kind: AccessRule
metadata: {name: orders-etl-writes-orders, namespace: sales}
spec:
  owner: team-billing
  contact: "#billing-oncall"          # both named in the caller's error
  target: {selector: {matchLabels: {app: orders-api}}}
  effect: Allow                       # a Deny that matches always wins
  mode: Enforce                       # or Shadow: evaluated and reported, never enforced. Always written out.
  from: [{caller: data/orders-etl}]
  to: [{http: {methods: [POST], paths: ["/v1/orders/{id}"]}}]
"##;

const LAUNCH: &str = r#"---
kind: AccessRule
metadata: {name: release-launches-orders, namespace: egress}
spec:
  owner: team-billing
  target: {gateway: egress/external}
  effect: Allow
  mode: Enforce
  audit: full
  from:
  - peer: {namespace: ci, serviceAccounts: [runner]}
    tokens: [{issuer: gitlab, as: job, gitlab: {project: 4711, protectedRef: true, environment: production}}]
    when: ['job.user_access_level in ["maintainer", "owner"]']      # CEL syntax, typed and total
  to:
  - launch: {service: dataflow, project: "${env.project}", region: europe-west4, jobName: "orders-*",
             template: "gs://acme-templates/orders/*", runAs: "orders-etl@${env.project}.iam.gserviceaccount.com"}
  - resources: {service: pubsub, actions: [write], names: ["projects/acme/topics/orders-*"]}
"#;

#[test]
fn every_object_of_the_example_is_read() {
    let sources = files(&[("design.yaml", &format!("{EXAMPLE}{LAUNCH}"))]);
    let parsed = parse(&Inputs { sources: &sources, env: env(), now: None });
    assert_eq!(parsed.diagnostics, []);
    let ids: Vec<String> = parsed.objects.iter().map(ToString::to_string).collect();
    assert_eq!(
        ids,
        [
            "Caller `data/orders-etl`",
            "Guard `sales/sales`",
            "AccessRule `egress/release-launches-orders`",
            "AccessRule `sales/orders-etl-writes-orders`",
        ]
    );
}

#[test]
fn all_of_it_compiles() {
    let compilation = compile_files(&files(&[
        ("mesh.yaml", MESH),
        ("issuers.yaml", ISSUERS),
        ("design.yaml", &format!("{EXAMPLE}{LAUNCH}")),
    ]));
    // Nothing guards the gateway of the example.
    assert_eq!(codes(&compilation), ["TG0901"], "{}", shown(&compilation));
    assert!(compilation.output.is_some());
}

#[test]
fn the_rest_means_what_it_says() {
    let compilation =
        compile_files(&files(&[("mesh.yaml", MESH), ("issuers.yaml", ISSUERS), ("design.yaml", EXAMPLE)]));
    assert_eq!(codes(&compilation), Vec::<&str>::new(), "{}", shown(&compilation));
    let output = compilation.output.unwrap();
    let policy = policy(&output, "sales", "orders-api");
    assert!(policy.covered);
    assert_eq!(policy.issuers, ["google", "prod-cluster"]);
    let set = PolicySet::decode(&policy.rules).unwrap();
    let directories = directory(&policy.directories[0].to_string(), &["4570000000000000001"], 2_000);

    let worker =
        Peer::Mesh { trust_domain: "prod.example", namespace: "etl", service_account: "orders-worker" };
    let gateway =
        Peer::Mesh { trust_domain: "prod.example", namespace: "ingress", service_account: "dataflow-in" };
    let pod = |namespace: &str, account: &str| {
        let claims: &[(&[&str], ClaimValue)] = &[
            (&["kubernetes.io", "namespace"], ClaimValue::String(namespace.to_owned())),
            (&["kubernetes.io", "serviceaccount", "name"], ClaimValue::String(account.to_owned())),
        ];
        token(&set, "prod-cluster", claims)
    };
    let machine = |id: &str, project: &str| {
        let claims: &[(&[&str], ClaimValue)] = &[
            (&["google", "compute_engine", "instance_id"], ClaimValue::String(id.to_owned())),
            (&["google", "compute_engine", "project_id"], ClaimValue::String(project.to_owned())),
        ];
        token(&set, "google", claims)
    };
    let own = pod("etl", "orders-worker");
    let stolen = pod("etl", "other");
    let job = machine("4570000000000000001", "acme");
    let other_machine = machine("4570000000000000002", "acme");
    let other_project = machine("4570000000000000001", "evil");

    type Sent<'t> = Option<(&'t str, &'t VerifiedToken)>;
    let own = Some(("prod-cluster", &own));
    let stolen = Some(("prod-cluster", &stolen));
    let job = Some(("google", &job));
    let other_machine = Some(("google", &other_machine));
    let other_project = Some(("google", &other_project));
    let (order, now) = ("POST /v1/orders/7", 1_000);
    let cases: [(&str, Peer<'_>, Sent<'_>, &str, i64, Reason); 12] = [
        ("a worker with its own token", worker, own, order, now, Reason::AllowedBy),
        ("without a token", worker, None, order, now, Reason::TokenRequired),
        ("with another pod's token", worker, stolen, order, now, Reason::NoAllowMatched),
        ("another peer with the token", gateway, own, order, now, Reason::NoAllowMatched),
        ("another method", worker, own, "GET /v1/orders/7", now, Reason::NoAllowMatched),
        ("another path", worker, own, "POST /v1/orders/7/items", now, Reason::NoAllowMatched),
        ("a managed worker through the gateway", gateway, job, order, now, Reason::AllowedBy),
        ("not through the gateway", worker, job, order, now, Reason::NoAllowMatched),
        ("past the mesh", Peer::Absent, job, order, now, Reason::NoAllowMatched),
        ("a machine of another job", gateway, other_machine, order, now, Reason::NoAllowMatched),
        ("a machine of another project", gateway, other_project, order, now, Reason::NoAllowMatched),
        ("with a stale directory", gateway, job, order, 3_000, Reason::NoAllowMatched),
    ];
    for (what, peer, sent, call, now, expected) in cases {
        let (method, path) = call.split_once(' ').unwrap();
        let tokens: Vec<TokenState<'_>> = set
            .issuers()
            .map(|(name, _)| match sent {
                Some((issuer, token)) if issuer == name => TokenState::Verified(token),
                _ => TokenState::Absent,
            })
            .collect();
        let path = normal::path(path.as_bytes());
        let decision = decide(
            &set,
            &Request {
                now,
                expiry_grace_s: 0,
                port: 8080,
                method: method.as_bytes(),
                host: Some("orders.sales.example"),
                path: &path,
                query: &[],
                headers: HeaderFacts::default(),
                fields: &[],
                body: tidegate_engine::Body::Unread,
                peer,
                tokens: &tokens,
                directories: &directories,
            },
        );
        assert_eq!(decision.reason, expected, "{what}: {decision:?}");
    }
}

fn directory(name: &str, ids: &[&str], fresh_until: i64) -> Directories {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let bytes = encode_directories(&[DirectoryModel { name: name.to_owned(), ids, fresh_until }]);
    Directories::decode(&bytes).unwrap()
}

/// A token of an issuer, its claims in the order of the policy's slots.
fn token(set: &PolicySet, issuer: &str, claims: &[(&[&str], ClaimValue)]) -> VerifiedToken {
    let (_, slots) = set.issuers().find(|(name, _)| *name == issuer).unwrap();
    VerifiedToken {
        audiences: vec!["https://orders.sales.example".to_owned()],
        expires_at: 9_000,
        slots: slots
            .iter()
            .map(|slot| {
                claims
                    .iter()
                    .find(|(path, _)| slot.iter().eq(path.iter()))
                    .map_or(ClaimValue::Absent, |(_, value)| value.clone())
            })
            .collect(),
    }
}
