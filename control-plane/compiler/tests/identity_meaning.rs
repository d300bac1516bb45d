//! What notations of identity providers mean after compilation, in an Allow and in a Deny.

mod common;

use common::{codes, compile_rules, compiled, policy, rule, said, shown};
use tidegate_compiler::{DirectoryQuery, KeySource, TektonKind};
use tidegate_engine::RuleIx;
use tidegate_engine::model::{Lease, OnExpiry};
use tidegate_identity::issuer::{Revoked, RevokedKind};
use tidegate_identity::{Algorithm, IssuerSetSpec};

const TO: &str = "  - http: {methods: [POST], paths: [/v1/orders]}";

/// What an entry of a rule demands of tokens.
fn condition(effect: &str, entry: &str) -> String {
    let output = compiled(&rule(effect, &format!("  - {entry}"), TO));
    let model = &policy(&output, "sales", "orders-api").model;
    let [from] = model.rules[0].from.as_slice() else { panic!("one entry: {model:?}") };
    said(model, &from.condition)
}

/// The same for an entry of any peer with this token.
fn of_token(effect: &str, token: &str) -> String {
    condition(effect, &format!("{{anyMesh: true, tokens: [{token}]}}"))
}

fn is(claim: &str, value: &str) -> String {
    format!("{claim} OneOf([{value:?}])")
}

fn and(parts: &[String]) -> String {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    format!("({})", parts.join(" and "))
}

const APP: &str = "cccccccc-0000-4000-8000-000000000003";
const TENANT: &str = "bbbbbbbb-0000-4000-8000-000000000002";
const GROUP: &str = "eeeeeeee-0000-4000-8000-000000000005";
const STS: &str = "aws:https://sts.amazonaws.com/";

/// What is written is demanded in both effects; nothing of these is only implied.
#[test]
fn notations_demand_what_is_written() {
    let table = [
        (
            format!("{{issuer: entra, entra: {{tenant: {TENANT}, app: {APP}, appOnly: true}}}}"),
            and(&[
                is("entra:@tenant", TENANT),
                is("entra:@client", APP),
                "entra:@app_only Boolean(true)".to_owned(),
            ]),
        ),
        (
            format!("{{issuer: entra, entra: {{object: {APP}, roles: [Ledger.Write, Ledger.Admin]}}}}"),
            and(&[
                is("entra:oid", APP),
                "(entra:roles Contains(\"Ledger.Admin\") or entra:roles Contains(\"Ledger.Write\"))".to_owned(),
            ]),
        ),
        (
            format!("{{issuer: entra, entra: {{groups: [{GROUP}], scopes: [ledger.read], agent: false}}}}"),
            and(&[
                format!("entra:@groups Contains({GROUP:?})"),
                "entra:@scopes Contains(\"ledger.read\")".to_owned(),
                "entra:@agent Boolean(false)".to_owned(),
            ]),
        ),
        (
            "{issuer: okta, okta: {client: 0oa0example, scopes: [a, b]}, humanInLoop: false}".to_owned(),
            and(&[
                is("okta:cid", "0oa0example"),
                "(okta:@scopes Contains(\"a\") or okta:@scopes Contains(\"b\"))".to_owned(),
                "okta:@human_in_loop Boolean(false)".to_owned(),
            ]),
        ),
        ("{issuer: okta, okta: {user: 00u0example}}".to_owned(), is("okta:uid", "00u0example")),
        (
            "{issuer: aws, aws: {account: '123456789012', role: OrdersEtl, organization: o-example1234}}".to_owned(),
            and(&[
                is(&format!("{STS}/aws_account"), "123456789012"),
                is("aws:@role_name", "OrdersEtl"),
                is(&format!("{STS}/org_id"), "o-example1234"),
            ]),
        ),
        (
            "{issuer: aws, aws: {role: 'arn:aws:iam::123456789012:role/etl/OrdersEtl'}}".to_owned(),
            is("aws:sub", "arn:aws:iam::123456789012:role/etl/OrdersEtl"),
        ),
        (
            "{issuer: aws, aws: {role: OrdersEtl, principalTags: {team: data}, requestTags: {job-id: J-1}}, \
             callerAsserted: true}"
                .to_owned(),
            and(&[
                is("aws:@role_name", "OrdersEtl"),
                is(&format!("{STS}/principal_tags/team"), "data"),
                is(&format!("{STS}/request_tags/job-id"), "J-1"),
            ]),
        ),
        (
            "{issuer: batch, spiffe: {id: 'spiffe://batch.example/ns/etl/sa/orders'}}".to_owned(),
            is("batch:sub", "spiffe://batch.example/ns/etl/sa/orders"),
        ),
        (
            "{issuer: batch, spiffe: {ids: ['spiffe://batch.example/b', 'spiffe://batch.example/A_1.x']}}".to_owned(),
            "batch:sub OneOf([\"spiffe://batch.example/A_1.x\", \"spiffe://batch.example/b\"])".to_owned(),
        ),
        (
            "{issuer: github, github: {repository: 456, owner: '123', environment: prod, ref: refs/heads/main, events: \
             [push, workflow_dispatch], workflow: 'acme/ci/.github/workflows/release.yml@refs/tags/v1', pullRequest: \
             false}}"
                .to_owned(),
            and(&[
                is("github:repository_id", "456"),
                is("github:repository_owner_id", "123"),
                is("github:environment", "prod"),
                is("github:ref", "refs/heads/main"),
                "github:event_name OneOf([\"push\", \"workflow_dispatch\"])".to_owned(),
                is("github:job_workflow_ref", "acme/ci/.github/workflows/release.yml@refs/tags/v1"),
                "github:@pull_request Boolean(false)".to_owned(),
            ]),
        ),
        (
            "{issuer: google, google: {subject: 7, region: europe-west4}}".to_owned(),
            and(&[is("google:sub", "7"), is("google:@region", "europe-west4")]),
        ),
        (
            "{issuer: oauth, claims: {'@scopes': [orders.write], '@subject': orders}}".to_owned(),
            and(&["oauth:@scopes Contains(\"orders.write\")".to_owned(), is("oauth:@subject", "orders")]),
        ),
        (
            "{issuer: oauth, actor: none, humanInLoop: true}".to_owned(),
            and(&["oauth:@human_in_loop Boolean(true)".to_owned(), "not oauth:@actor Present".to_owned()]),
        ),
        (
            "{issuer: oauth, claims: {sub: sam}, actor: {subjects: [b, a]}}".to_owned(),
            and(&[is("oauth:sub", "sam"), "oauth:@actor OneOf([\"a\", \"b\"])".to_owned()]),
        ),
        (
            "{issuer: entra, claims: {email: sam@example.com, xms_edov: true}, callerAsserted: true}".to_owned(),
            and(&[is("entra:email", "sam@example.com"), "entra:xms_edov Boolean(true)".to_owned()]),
        ),
        (
            "{issuer: aws, claims: {'[\"https://sts.amazonaws.com/\"].source_identity': sam}, callerAsserted: true}"
                .to_owned(),
            is(&format!("{STS}/source_identity"), "sam"),
        ),
        (
            format!("{{issuer: entra, claims: {{oid: {APP}, roles: Ledger.Write}}}}"),
            and(&[is("entra:oid", APP), "entra:roles Contains(\"Ledger.Write\")".to_owned()]),
        ),
    ];
    for (token, expected) in table {
        for effect in ["Allow", "Deny"] {
            assert_eq!(of_token(effect, &token), expected, "{effect} {token}");
        }
    }
}

#[test]
fn gitlab_refs_and_tiers_are_not_those_of_forks_unless_merge_requests_are_meant() {
    let project = ["job_project_id", "project_id"].map(|claim| is(&format!("gitlab:{claim}"), "4711"));
    let own = "gitlab:@fork Boolean(false)".to_owned();
    let table = [
        ("ref: main, refType: branch", vec![is("gitlab:ref", "main"), is("gitlab:ref_type", "branch")], true),
        ("refType: tag", vec![is("gitlab:ref_type", "tag")], true),
        ("tier: production", vec![is("gitlab:deployment_tier", "production")], true),
        (
            "pipelineSources: [schedule, push]",
            vec!["gitlab:pipeline_source OneOf([\"push\", \"schedule\"])".to_owned()],
            true,
        ),
        (
            "pipelineSources: [merge_request_event]",
            vec![is("gitlab:pipeline_source", "merge_request_event")],
            false,
        ),
    ];
    for (written, demands, forks_refused) in table {
        let token = format!("{{issuer: gitlab, gitlab: {{project: 4711, {written}}}}}");
        let mut allow = demands.clone();
        allow.push(format!("({})", project.join(" and ")));
        if forks_refused {
            allow.push(own.clone());
        }
        assert_eq!(of_token("Allow", &token), and(&allow), "{written}");
        let mut deny = demands;
        deny.push(format!("({})", project.join(" or ")));
        assert_eq!(of_token("Deny", &token), and(&deny), "{written}");
    }
}

#[test]
fn a_stale_directory_degrades_only_to_a_service_account_and_never_in_a_deny() {
    let account = "google: {serviceAccount: etl@acme.iam.gserviceaccount.com, subject: 7}";
    let token = |on_stale: &str, account: &str| {
        let job = format!("dataflowJob: {{name: etl, project: acme, region: europe-west4{on_stale}}}");
        format!("{{issuer: google, {job}{account}}}")
    };
    let degrade = token(", onStale: degradeToServiceAccount", &format!(", {account}"));
    let listed = "google:google/compute_engine/instance_id in dataflow/acme/europe-west4/etl";
    let of_account = [is("google:email", "etl@acme.iam.gserviceaccount.com"), is("google:sub", "7")];
    let [email, subject] = of_account;
    let implied = [
        is("google:google/compute_engine/project_id", "acme"),
        "google:email_verified Boolean(true)".to_owned(),
    ];
    let [project, verified] = implied;
    assert_eq!(
        of_token("Allow", &degrade),
        and(&[email.clone(), verified, subject.clone(), project.clone(), format!("{listed} or stale")])
    );
    assert_eq!(of_token("Deny", &degrade), and(&[email, subject, listed.to_owned()]));
    // `deny` is what holds without a word.
    for on_stale in ["", ", onStale: deny"] {
        assert_eq!(of_token("Allow", &token(on_stale, "")), and(&[project.clone(), listed.to_owned()]));
    }
    let alone = rule(
        "Allow",
        &format!("  - {{anyMesh: true, tokens: [{}]}}", token(", onStale: degradeToServiceAccount", "")),
        TO,
    );
    assert_eq!(codes(&compile_rules(&alone)), ["TG0202"]);
}

#[test]
fn tekton_is_a_directory_of_pods_in_the_namespace_that_is_demanded() {
    let bound = [
        "prod-cluster:kubernetes.io/namespace PeerNamespace",
        "prod-cluster:kubernetes.io/serviceaccount/name PeerServiceAccount",
    ];
    let run = |kind: &str, name: &str| {
        format!("prod-cluster:kubernetes.io/pod/uid in tekton/prod-cluster/ci/{kind}/{name}")
    };
    let namespace = is("prod-cluster:kubernetes.io/namespace", "ci");
    let table = [
        ("peer: {namespace: ci}", "tekton: {pipeline: release}", "pipeline", "release"),
        ("anyMesh: true", "tekton: {task: deploy, namespace: ci}", "task", "deploy"),
        ("peer: {namespace: etl}", "tekton: {task: deploy, namespace: ci}", "task", "deploy"),
    ];
    for (peer, tekton, kind, name) in table {
        let entry = format!("{{{peer}, tokens: [{{issuer: prod-cluster, {tekton}}}]}}");
        let allow = and(&[namespace.clone(), bound[0].to_owned(), bound[1].to_owned(), run(kind, name)]);
        assert_eq!(condition("Allow", &entry), allow, "{entry}");
        assert_eq!(condition("Deny", &entry), run(kind, name), "{entry}");
    }
    // Through a gateway the peer's namespace is the gateway's.
    let via = "tokenOnly: {via: [ingress/dataflow-in]}";
    let stated = "tokens: [{issuer: prod-cluster, kubernetes: {namespace: ci}, tekton: {pipeline: release}}]";
    let written = format!("{{{via}, {stated}}}");
    assert_eq!(condition("Allow", &written), and(&[namespace, run("pipeline", "release")]));
    let open = format!("{{{via}, tokens: [{{issuer: prod-cluster, tekton: {{pipeline: release}}}}]}}");
    assert_eq!(codes(&compile_rules(&rule("Allow", &format!("  - {open}"), TO))), ["TG0202"]);

    let output = compiled(&rule("Allow", &format!("  - {written}"), TO));
    assert_eq!(
        policy(&output, "sales", "orders-api").directories,
        [DirectoryQuery::TektonRun {
            issuer: "prod-cluster".to_owned(),
            namespace: "ci".to_owned(),
            kind: TektonKind::Pipeline,
            name: "release".to_owned(),
        }]
    );
}

const PAIR: &str = "tokens: [{issuer: gitlab, as: job, claims: {project_id: '1'}}, {issuer: github, claims: \
                    {repository_id: '2'}}]";

#[test]
fn bind_compares_claims_with_claims_and_with_the_peer() {
    let written = [is("gitlab:project_id", "1"), is("github:repository_id", "2")];
    let table = [
        ("job.sha == github.sha", vec!["gitlab:sha is github:sha"]),
        ("github.sha == job.sha", vec!["github:sha is gitlab:sha"]),
        ("job[\"sha\"] == (github.sha)", vec!["gitlab:sha is github:sha"]),
        ("job.project_id == job.job_project_id", vec!["gitlab:project_id is gitlab:job_project_id"]),
        ("job[\"@subject\"] == github[\"@subject\"]", vec!["gitlab:@subject is github:@subject"]),
        (
            "job.environment == peer.namespace && peer.serviceAccount == job.ref && job.sha == github.sha",
            vec![
                "gitlab:environment PeerNamespace",
                "gitlab:ref PeerServiceAccount",
                "gitlab:sha is github:sha",
            ],
        ),
        ("job.environment == peer.trustDomain", vec!["gitlab:environment OneOf([\"prod.example\"])"]),
    ];
    for (bind, expected) in table {
        let mut all = written.to_vec();
        all.extend(expected.iter().map(|test| (*test).to_owned()));
        let entry = format!("{{anyMesh: true, {PAIR}, bind: ['{bind}']}}");
        assert_eq!(condition("Deny", &entry), and(&all), "{bind}");
        // Two claims that are empty are not the same thing; what the peer is is never empty.
        let of_claims = expected.iter().filter_map(|test| test.split_once(" is "));
        all.extend(of_claims.map(|(claim, _)| format!("not {}", is(claim, ""))));
        assert_eq!(condition("Allow", &entry), and(&all), "{bind}");
    }
    let elsewhere = format!(
        "{{peer: {{namespace: etl, trustDomain: other.example}}, {PAIR}, bind: ['job.environment == \
         peer.trustDomain', 'job.sha == github.sha']}}"
    );
    let [project, repository] = written;
    assert_eq!(
        condition("Allow", &elsewhere),
        and(&[
            project,
            repository,
            "gitlab:environment OneOf([\"other.example\"])".to_owned(),
            "gitlab:sha is github:sha".to_owned(),
            format!("not {}", is("gitlab:sha", "")),
        ])
    );
}

#[test]
fn a_bound_entry_of_a_caller_is_bound_in_every_form() {
    let caller = "\
kind: Caller
metadata: {name: release, namespace: data}
spec:
  anyOf:
  - {peer: {namespace: ci}, tokens: [{issuer: gitlab, as: job, claims: {project_id: '1'}}], bind: ['job.environment == peer.namespace']}
  - {peer: {namespace: etl, trustDomain: other.example}}
---
";
    let bound = "  - {caller: data/release, tokens: [{issuer: corp, claims: {sub: a}}], bind: ['corp.domain == peer.trustDomain']}";
    let output = compiled(&format!("{caller}{}", rule("Allow", bound, TO)));
    let model = &policy(&output, "sales", "orders-api").model;
    let said: Vec<String> = model.rules[0].from.iter().map(|from| said(model, &from.condition)).collect();
    assert_eq!(
        said,
        [
            "(corp:domain OneOf([\"prod.example\"]) and corp:sub OneOf([\"a\"]) and gitlab:environment PeerNamespace \
             and gitlab:project_id OneOf([\"1\"]))",
            "(corp:domain OneOf([\"other.example\"]) and corp:sub OneOf([\"a\"]))",
        ]
    );
}

const ISSUER: &str = "\
kind: TrustedIssuer
metadata: {name: legacy}
spec:
  issuers: ['https://b.legacy.example', 'https://a.legacy.example']
  pack: generic
  keys: {discovery: true}
  algorithms: [EdDSA, PS256]
  tokenTypes: [JWT, application/AT+JWT]
  singleAudience: true
  requireCnf: true
  revoked:
    subjects: [{subject: mallory}, {subject: alice, until: 2026-12-31}]
    tokens: [{id: t-1, until: '2026-12-31T18:00:00+01:00'}]
    keys: [{kid: lost}]
  retireAfter: '2027-06-30T12:00:00Z'
  rotateEvery: 90d
";

#[test]
fn an_issuer_says_what_filters_are_told() {
    let output = compiled(ISSUER);
    let find = |name: &str| output.issuers.iter().find(|issuer| issuer.name == name).unwrap();
    let legacy = find("legacy");
    assert_eq!(legacy.keys, KeySource::Discovery("https://b.legacy.example".to_owned()));
    assert_eq!(legacy.rotate_every_s, Some(90 * 86_400));
    let spec = legacy.spec(Vec::new(), 77);
    assert_eq!(spec.iss, ["https://b.legacy.example", "https://a.legacy.example"]);
    assert_eq!(spec.types, ["application/at+jwt", "jwt"]);
    assert_eq!(spec.algorithms, [Algorithm::Ps256, Algorithm::EdDsa]);
    assert_eq!((spec.single_audience, spec.require_cnf, spec.valid_until), (true, true, 77));
    assert_eq!(spec.retire_at, 1_814_356_800);
    let revoked = |kind, value: &str, until| Revoked { kind, value: value.to_owned(), until };
    assert_eq!(
        spec.revoked,
        [
            revoked(RevokedKind::Subject, "alice", 1_798_761_600),
            revoked(RevokedKind::Subject, "mallory", 0),
            revoked(RevokedKind::Token, "t-1", 1_798_736_400),
            revoked(RevokedKind::Key, "lost", 0),
        ]
    );
    // Without a word it is as the pack says.
    for issuer in &output.issuers {
        let spec = issuer.spec(Vec::new(), 0);
        if issuer.name != "legacy" {
            assert_eq!(
                spec.single_audience,
                matches!(issuer.name.as_str(), "aws" | "batch"),
                "{}",
                issuer.name
            );
            assert!(spec.types.is_empty() && spec.revoked.is_empty() && !spec.require_cnf, "{}", issuer.name);
            assert_eq!((spec.retire_at, issuer.retire_at, issuer.rotate_every_s), (0, None, None));
        }
        assert!(IssuerSetSpec::new(vec![spec]).encode().is_ok(), "{}", issuer.name);
    }
}

#[test]
fn a_trust_domain_takes_keys_of_jwt_svids_only() {
    let key = |purpose: &str| {
        format!(
            r#"{{"kty":"EC","crv":"P-256","kid":"a","use":"{purpose}","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}"#
        )
    };
    let issuer = |name: &str, pack: &str, purpose: &str| {
        format!(
            "kind: TrustedIssuer\nmetadata: {{name: fixed}}\nspec: {{issuer: '{name}', pack: {pack}, keys: {{jwks: \
             '{{\"keys\":[{}]}}'}}}}\n",
            key(purpose)
        )
    };
    for (name, pack, purpose, expected) in [
        ("spiffe://other.example", "spiffe", "jwt-svid", &[][..]),
        ("spiffe://other.example", "spiffe", "sig", &["TG0414"]),
        ("https://other.example", "generic", "sig", &[]),
        ("https://other.example", "generic", "jwt-svid", &["TG0414"]),
    ] {
        let compilation = compile_rules(&issuer(name, pack, purpose));
        assert_eq!(codes(&compilation), expected, "{pack} {purpose}: {}", shown(&compilation));
    }
}

#[test]
fn a_rule_says_what_becomes_of_streams_when_tokens_expire() {
    let lease = |on_expiry, grace_s| Lease { on_expiry, grace_s };
    let table = [
        ("", Lease::default()),
        ("  onExpiry: reset\n", lease(OnExpiry::Reset, 0)),
        ("  onExpiry: keep\n", lease(OnExpiry::Keep, 0)),
        ("  expiryGrace: 30s\n", lease(OnExpiry::Reset, 30)),
        ("  onExpiry: reset\n  expiryGrace: 1h\n", lease(OnExpiry::Reset, 3600)),
    ];
    for (written, expected) in table {
        let rule = rule("Allow", "  - anyMesh: true", TO)
            .replace("  mode: Enforce\n", &format!("  mode: Enforce\n{written}"));
        let compilation = compile_rules(&rule);
        let output = compilation.output.as_ref().unwrap_or_else(|| panic!("{}", shown(&compilation)));
        assert_eq!(policy(output, "sales", "orders-api").model.rules[0].lease, expected, "{written}");
        let set = tidegate_engine::PolicySet::decode(&policy(output, "sales", "orders-api").rules).unwrap();
        assert_eq!(set.rule(RuleIx(0)).unwrap().lease, expected, "{written}");
    }
}
