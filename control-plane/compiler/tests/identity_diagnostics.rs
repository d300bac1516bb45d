//! What the compiler says about issuers and notations of identity providers that are wrong.

mod common;

use common::{GUARD, MESH, codes, compile_files, compile_rules, files, refused, rule, shown, warned};
use tidegate_compiler::{Compilation, Inputs, compile};

const TO: &str = "  - http: {methods: [POST], paths: [\"/v1/orders/{id}\"]}";

fn from(from: &str) -> String {
    rule("Allow", from, TO)
}

/// Entries of any peer with each of these tokens.
fn tokens(tokens: &[&str]) -> String {
    let entry = |token: &&str| format!("  - anyMesh: true\n    tokens: [{token}]\n");
    from(tokens.iter().map(entry).collect::<String>().trim_end())
}

/// Entries with tokens of GitLab (`job`) and GitHub, and each of these conditions.
fn bind(conditions: &[&str]) -> String {
    let entry = |condition: &&str| {
        format!(
            "  - anyMesh: true\n    tokens: [{{issuer: gitlab, as: job, claims: {{project_id: '1'}}}}, {{issuer: github, \
             claims: {{repository_id: '2'}}}}]\n    bind: ['{condition}']\n"
        )
    };
    from(conditions.iter().map(entry).collect::<String>().trim_end())
}

/// A GitLab that is not `https://gitlab.com`, and entries with each of these demands on its tokens.
fn own_gitlab(effect: &str, demands: &[&str]) -> String {
    let entry = |demand: &&str| format!("  - {{anyMesh: true, tokens: [{{issuer: own, {demand}}}]}}\n");
    let issuer = "\
kind: TrustedIssuer
metadata: {name: own}
spec: {issuer: 'https://gitlab.corp.example', pack: gitlab, keys: {discovery: true}}
---
";
    format!("{issuer}{}", rule(effect, demands.iter().map(entry).collect::<String>().trim_end(), TO))
}

refused! {
    refuses_entra_names_and_ids_of_nobody: tokens(&[
        "{issuer: entra, entra: {}}",
        "{issuer: entra, entra: {tenant: contoso.example, app: ledger, object: BBBBBBBB-0000-4000-8000-000000000002}}",
        "{issuer: entra, entra: {tenant: bbbbbbbb-0000-4000-8000-000000000003}}",
        "{issuer: entra, entra: {groups: [Finance], roles: ['*'], scopes: ['a b']}}",
        "{issuer: entra, entra: {groups: [], roles: [], scopes: []}}",
        "{issuer: entra, entra: {object: cccccccc-0000-4000-8000-000000000003, appOnly: true, scopes: [a]}}",
        "{issuer: entra, claims: {oid: CCCCCCCC-0000-4000-8000-000000000003, '@client': x}}",
    ]);
    refuses_addresses_and_names_of_entra_that_strangers_can_set: tokens(&[
        "{issuer: entra, claims: {email: sam@example.com}}",
        "{issuer: entra, claims: {email: sam@example.com, xms_edov: true}}",
        "{issuer: entra, claims: {email: sam@example.com}, callerAsserted: true}",
        "{issuer: entra, claims: {upn: a, preferred_username: b, unique_name: c, name: d, xms_edov: true}, callerAsserted: true}",
    ]);
    refuses_what_the_caller_chooses: tokens(&[
        "{issuer: aws, aws: {role: OrdersEtl, requestTags: {job: J-1}}}",
        "{issuer: aws, claims: {'[\"https://sts.amazonaws.com/\"].request_tags.job': J-1}}",
        "{issuer: aws, claims: {'[\"https://sts.amazonaws.com/\"].source_identity': sam}}",
        "{issuer: aws, aws: {role: OrdersEtl}, callerAsserted: true}",
        "{issuer: aws, aws: {role: OrdersEtl}, callerAsserted: false}",
    ]);
    refuses_aws_principals_that_no_token_names: tokens(&[
        "{issuer: aws, aws: {}}",
        "{issuer: aws, aws: {account: '1234', organization: acme, role: 'etl/OrdersEtl'}}",
        "{issuer: aws, aws: {role: 'arn:aws:sts::123456789012:assumed-role/OrdersEtl/session'}}",
        "{issuer: aws, aws: {role: 'arn:aws:iam::123456789012:role/'}}",
        "{issuer: aws, aws: {role: 'arn:aws:iam::123456789012:role/*'}}",
        "{issuer: aws, aws: {account: '210987654321', role: 'arn:aws:iam::123456789012:role/OrdersEtl'}}",
        "{issuer: aws, aws: {principalTags: {}, requestTags: {a: ''}}, callerAsserted: true}",
    ]);
    refuses_okta_names: tokens(&[
        "{issuer: okta, okta: {}}",
        "{issuer: okta, okta: {client: '', user: sam@example.com, scopes: []}}",
    ]);
    refuses_spiffe_ids_of_other_trust_domains: tokens(&[
        "{issuer: batch, spiffe: {}}",
        "{issuer: batch, spiffe: {id: 'spiffe://batch.example/a', ids: ['spiffe://batch.example/b']}}",
        "{issuer: batch, spiffe: {id: 'spiffe://other.example/a'}}",
        "{issuer: batch, spiffe: {id: 'spiffe://batch.example.evil/a'}}",
        "{issuer: batch, spiffe: {ids: ['spiffe://batch.example', 'spiffe://batch.example/', 'spiffe://batch.example/a/../b', 'spiffe://batch.example/%41', 'spiffe://batch.example/*']}}",
        "{issuer: batch, spiffe: {ids: []}}",
    ]);
    refuses_github_names_and_short_refs: tokens(&[
        "{issuer: github, github: {}}",
        "{issuer: github, github: {repository: acme/orders, owner: acme, ref: main, events: [Push, 'pull_*'], workflow: release.yml, environment: ''}}",
        "{issuer: github, github: {repository: 456, ref: refs/pull/7/merge, workflow: acme/ci/.github/workflows/release.yml, events: []}}",
        "{issuer: github, claims: {repository_id: acme/orders, actor_id: 7}}",
    ]);
    refuses_a_shared_issuer_of_any_pack_without_a_tenant: format!("\
kind: TrustedIssuer
metadata: {{name: personal}}
spec: {{issuer: 'https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0', pack: entra, keys: {{discovery: true}}}}
---
kind: TrustedIssuer
metadata: {{name: terraform}}
spec: {{issuers: ['https://app.terraform.io'], pack: generic, tokenTypes: [JWT], keys: {{discovery: true}}}}
---
{}", tokens(&[
        "{issuer: github, github: {events: [push]}}",
        "{issuer: github, claims: {'@subject': 'repo:acme/orders:ref:refs/heads/main'}}",
        "{issuer: gitlab, gitlab: {tier: production}}",
        "{issuer: google, google: {region: europe-west4}}",
        "{issuer: personal, entra: {roles: [a]}}",
        "{issuer: terraform, claims: {'@scopes': a}}",
    ]));
    refuses_what_any_project_of_a_gitlab_says_of_itself: own_gitlab("Allow", &[
        "gitlab: {protectedRef: true}",
        "gitlab: {protectedEnvironment: true, environment: production}",
        "gitlab: {ref: main, refType: branch, protectedRef: true}",
        "gitlab: {tier: production}",
        "claims: {ref_protected: 'true', user_id: '7'}",
    ]);
    refuses_gitlab_refs_of_which_the_kind_is_open: tokens(&[
        "{issuer: gitlab, gitlab: {project: 1, ref: main, tier: prod, pipelineSources: [Push]}}",
        "{issuer: gitlab, gitlab: {project: 1, ref: refs/heads/main, refType: branch, protectedRef: true}}",
        "{issuer: gitlab, gitlab: {project: 1, ref: 'release-*', refType: branch, pipelineSources: []}}",
        "{issuer: gitlab, gitlab: {}}",
    ]);
    refuses_other_kinds_of_gitlab_refs: tokens(&["{issuer: gitlab, gitlab: {project: 1, ref: main, refType: Branch}}"]);
    refuses_tekton_runs_and_regions_of_nobody: tokens(&[
        "{issuer: prod-cluster, tekton: {}}",
        "{issuer: prod-cluster, tekton: {pipeline: a, task: b, namespace: ci}}",
        "{issuer: prod-cluster, tekton: {pipeline: 'release-*', namespace: CI}}",
        "{issuer: prod-cluster, tekton: {task: deploy}}",
        "{issuer: google, tekton: {task: deploy, namespace: ci}, google: {subject: 7, region: EU}}",
    ]);
    refuses_to_degrade_to_nothing: tokens(&[
        "{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4, onStale: degradeToServiceAccount}}",
        "{issuer: google, google: {region: europe-west4, project: acme}, dataflowJob: {name: etl, project: acme, region: europe-west4, onStale: degradeToServiceAccount}}",
    ]);
    refuses_other_spellings_of_what_a_stale_directory_means: tokens(&[
        "{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4, onStale: allow}}",
    ]);
    refuses_actors_and_people_that_no_token_has: tokens(&[
        "{issuer: gitlab, gitlab: {project: 1}, humanInLoop: true}",
        "{issuer: oauth, claims: {sub: a}, actor: {subjects: []}}",
        "{issuer: oauth, claims: {sub: a}, actor: {subjects: ['*']}}",
        "{issuer: oauth, claims: {sub: a, '@humans': true, '@actor.sub': a, '@actors': one}}",
    ]);
    refuses_actors_that_are_not_written_as_such: tokens(&[
        "{issuer: oauth, claims: {sub: a}, actor: nobody}",
        "{issuer: oauth, claims: {sub: a}, actor: {}}",
        "{issuer: oauth, claims: {sub: a}, actor: {subject: a}}",
        "{issuer: oauth, claims: {sub: a}, actor: [a]}",
    ]);
    refuses_notations_of_packs_that_the_issuer_does_not_have: tokens(&[
        "{issuer: oauth, entra: {agent: true}, okta: {client: a}, aws: {role: a}, spiffe: {id: a}, github: {owner: 1}, tekton: {task: a}}",
    ]);

    refuses_conditions_that_are_no_comparisons_of_paths: bind(&[
        "job.project_id ==",
        "job.project_id",
        "job.project_id != github.repository_id",
        "job.project_id == github.repository_id || true",
        "!(job.project_id == github.repository_id)",
        "job.project_id == \"1\"",
        "job.sha.startsWith(github.sha)",
        "job.project_id in [\"1\"]",
        "job == github",
        "job.sha == github[0]",
        "job.sha == github[job.ref]",
        "has(job.sha)",
        "job.sha == (job.ref == job.sha)",
        "[1].exists(x, x == 1)",
        "true && job.sha == github.sha",
        "job.sha == github.sha && true",
        "{}",
        "",
    ]);
    refuses_conditions_on_what_the_entry_does_not_have: bind(&[
        "jop.sha == github.sha",
        "gitlab.sha == github.sha",
        "job.shah == github.sha",
        "job.sha == github.aud",
        "job.runner_id == github.run_id",
        "job.groups_direct == github.sha",
        "job[\"@fork\"] == github.sha",
        "job.sha == job.sha",
        "peer.namespace == peer.serviceAccount",
        "peer.name == job.sha",
        "peer == job.sha",
        "peer.namespace.a == job.sha",
        "prod-cluster.sub == job.sha",
    ]);
    refuses_to_compare_with_a_peer_that_is_not_the_caller: from("\
\x20 - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: corp, claims: {sub: a}}]
    bind: ['corp.namespace == peer.namespace']
  - anyMesh: true
    bind: ['corp.namespace == peer.namespace']
  - anyMesh: true
    bind: []");
    refuses_to_compare_what_callers_or_strangers_choose: from("\
\x20 - anyMesh: true
    tokens: [{issuer: aws, aws: {role: OrdersEtl}}]
    bind: ['aws[\"https://sts.amazonaws.com/\"].request_tags.job == peer.namespace']
  - anyMesh: true
    tokens: [{issuer: aws, aws: {role: OrdersEtl}, callerAsserted: true}]
    bind: ['aws[\"https://sts.amazonaws.com/\"].org_id == peer.namespace']
  - anyMesh: true
    tokens: [{issuer: entra, callerAsserted: true}, {issuer: okta, okta: {user: 00u0example}}]
    bind: ['entra.email == okta.uid && okta.uid == entra.preferred_username']
  - anyMesh: true
    tokens: [{issuer: entra, claims: {xms_edov: true}}, {issuer: okta, okta: {user: 00u0example}}]
    bind: ['entra.email == okta.uid']");
    refuses_a_token_with_the_name_of_the_peer: format!("\
kind: TrustedIssuer
metadata: {{name: peer}}
spec: {{issuer: 'https://peer.example', pack: generic, keys: {{discovery: true}}}}
---
{}", from("\
\x20 - anyMesh: true
    tokens: [{issuer: peer, claims: {sub: a}}, {issuer: corp}]
    bind: ['corp.namespace == peer.namespace']"));
    refuses_names_of_tokens_that_conditions_cannot_write: from("\
\x20 - anyMesh: true
    tokens: [{issuer: corp, as: peer, claims: {sub: a}}, {issuer: oauth, as: in, claims: {sub: a}}]
  - anyMesh: true
    tokens: [{issuer: corp, claims: {sub: a}}, {issuer: oauth, as: corp, claims: {sub: a}}]");
    refuses_conditions_that_are_too_long: bind(&[&"job.sha == github.sha && ".repeat(50)]);

    refuses_leases_that_say_nothing: format!(
        "{}---\n{}---\n{}",
        rule("Deny", "  - anyMesh: true", TO).replace("  mode: Enforce\n", "  mode: Enforce\n  onExpiry: keep\n  expiryGrace: 30s\n"),
        from("  - anyMesh: true").replace("name: r,", "name: s,").replace("  mode: Enforce\n", "  mode: Enforce\n  onExpiry: keep\n  expiryGrace: 30s\n"),
        from("  - anyMesh: true").replace("name: r,", "name: t,").replace("  mode: Enforce\n", "  mode: Enforce\n  expiryGrace: 2h\n"),
    );
    refuses_other_spellings_of_leases: from("  - anyMesh: true").replace("  mode: Enforce\n", "  mode: Enforce\n  onExpiry: Reset\n  expiryGrace: 30\n");

    refuses_issuers_without_or_with_two_kinds_of_names: "\
kind: TrustedIssuer
metadata: {name: a}
spec: {pack: generic, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://b.example', issuers: ['https://b.example'], pack: generic, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: c}
spec: {issuers: [], pack: generic, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: d}
spec: {issuers: ['https://d.example', 'http://d.example', 'https://gitlab.com'], pack: generic, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: e}
spec: {issuers: ['spiffe://e.example', 'spiffe://f.example'], pack: spiffe, keys: {discovery: true}}
";
    refuses_issuers_that_a_pack_does_not_have: "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuer: 'https://acme.okta.com', pack: okta, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuers: ['https://login.microsoftonline.com/common/v2.0', 'https://sts.windows.net/bbbbbbbb-0000-4000-8000-000000000002'], pack: entra, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: c}
spec: {issuer: 'https://oidc.eks.eu-west-1.amazonaws.com/id/ABC', pack: aws, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: d}
spec: {issuer: 'spiffe://D.example', pack: spiffe, keys: {jwksUri: 'https://d.example'}}
---
kind: TrustedIssuer
metadata: {name: e}
spec: {issuer: 'https://token.actions.example.com', pack: github, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: f}
spec: {issuer: 'spiffe://f.example', pack: generic, keys: {jwksUri: 'https://f.example'}}
";
    refuses_to_take_the_issuers_of_a_pack_for_generic: "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuers: ['https://a.example', 'https://gitlab.corp.example'], pack: generic, tokenTypes: [JWT], keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://acme.okta.com/oauth2/default', pack: generic, keys: {discovery: true}}
";
    refuses_token_types_that_are_none_or_not_for_the_pack: "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuer: 'https://a.example', pack: generic, keys: {discovery: true}, tokenTypes: [JWT, jwt, 'a b', '']}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://b.example', pack: generic, keys: {discovery: true}, tokenTypes: [DPoP+JWT]}
---
kind: TrustedIssuer
metadata: {name: c}
spec: {issuer: 'https://c.example', pack: gitlab, keys: {discovery: true}, tokenTypes: [JWT]}
---
kind: TrustedIssuer
metadata: {name: d}
spec: {issuer: 'https://d.example', pack: generic, keys: {discovery: true}, tokenTypes: []}
";
    refuses_revocations_that_match_nothing: "\
kind: TrustedIssuer
metadata: {name: a}
spec:
  issuer: https://a.example
  pack: generic
  keys: {discovery: true}
  revoked: {subjects: [{subject: ''}, {subject: b, until: tomorrow}, {subject: b}], tokens: [], keys: [{kid: a, until: '2026-02-30'}]}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://b.example', pack: generic, keys: {discovery: true}, revoked: {}}
";
    refuses_times_and_durations_that_are_none: "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuer: 'https://a.example', pack: generic, keys: {discovery: true}, retireAfter: 31.12.2026, rotateEvery: 3 months}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://b.example', pack: generic, keys: {discovery: true}, retireAfter: '2026-12-31T00:00:00', rotateEvery: 9999d}
";
}

warned! {
    warns_of_people_who_come_through_the_same_client: tokens(&[
        "{issuer: entra, entra: {app: cccccccc-0000-4000-8000-000000000003}}",
        "{issuer: okta, okta: {client: 0oa0example}}",
    ]);
    warns_of_tags_that_others_may_choose: tokens(&["{issuer: aws, aws: {principalTags: {team: data}}}"]);
    warns_of_pull_requests_that_match_as_well: tokens(&[
        "{issuer: github, github: {repository: 456, ref: refs/heads/main}}",
    ]);
    warns_of_refs_that_any_developer_makes: tokens(&[
        "{issuer: gitlab, gitlab: {project: 1, ref: main, refType: branch}}",
    ]);
    warns_of_claims_of_every_pack_that_pass_to_others: tokens(&[
        "{issuer: okta, claims: {sub: sam@example.com}}",
        "{issuer: okta, claims: {cid: a, email: sam@example.com, name: Sam, preferred_username: sam}}",
        "{issuer: github, claims: {repository_id: '1', repository: acme/orders, repo_property_tier: gold}}",
        "{issuer: gitlab, claims: {project_id: '1', '@subject': 'project_path:data/orders:ref_type:branch:ref:main'}}",
    ]);
    warns_of_comparisons_with_what_passes_to_others: from("\
\x20 - anyMesh: true
    tokens: [{issuer: gitlab, as: job, gitlab: {project: 1}}, {issuer: github, github: {repository: 2, pullRequest: false}}]
    bind: ['github.head_ref == job.environment', 'job[\"@subject\"] == peer.namespace']
  - anyMesh: true
    tokens: [{issuer: entra, claims: {xms_edov: true}, callerAsserted: true}, {issuer: okta, okta: {user: 00u0example}}]
    bind: ['entra.email == okta.uid']");
    warns_of_any_token_of_an_issuer: from("\
\x20 - {anyMesh: true, tokens: [{issuer: corp}]}
  - {anyMesh: true, tokens: [{issuer: corp}, {issuer: oauth}]}
  - {tokenOnly: {via: [ingress/dataflow-in]}, tokens: [{issuer: corp}]}");
    warns_of_values_that_are_there_twice_in_notations: tokens(&[
        "{issuer: entra, entra: {roles: [a, a]}}",
        "{issuer: batch, spiffe: {ids: ['spiffe://batch.example/a', 'spiffe://batch.example/a']}}",
    ]);
}

/// The same notations, written so that nothing is left to be said.
#[test]
fn says_nothing_about_notations_that_leave_nothing_open() {
    let rules = tokens(&[
        "{issuer: entra, entra: {app: cccccccc-0000-4000-8000-000000000003, appOnly: true}}",
        "{issuer: entra, entra: {app: cccccccc-0000-4000-8000-000000000003}, humanInLoop: false}",
        "{issuer: okta, okta: {client: 0oa0example}, humanInLoop: false}",
        "{issuer: github, github: {repository: 456, ref: refs/heads/main, pullRequest: false}}",
        "{issuer: gitlab, gitlab: {project: 1, ref: main, refType: branch, protectedRef: true}}",
        "{issuer: aws, aws: {role: OrdersEtl, requestTags: {job: J-1}}, callerAsserted: true}",
        "{issuer: google, google: {subject: 7}, dataflowJob: {name: etl, project: acme, region: europe-west4, onStale: degradeToServiceAccount}}",
        "{issuer: gitlab, gitlab: {project: 1}, humanInLoop: false, actor: none}",
    ]);
    let compilation = compile_rules(&rules);
    assert_eq!(codes(&compilation), Vec::<&str>::new(), "{}", shown(&compilation));
}

/// What is refused or warned of above, written so that nothing is left to be said.
#[test]
fn says_nothing_about_comparisons_and_entries_that_are_as_wide_as_they_look() {
    let entries = from(
        "\
\x20 - anyMesh: true
    tokens: [{issuer: aws, aws: {role: 'arn:aws:iam::123456789012:role/OrdersEtl'}, callerAsserted: true}]
    bind: ['aws[\"https://sts.amazonaws.com/\"].request_tags.job == peer.namespace']
  - anyMesh: true
    tokens: [{issuer: gitlab, as: job, gitlab: {project: 1}}, {issuer: corp}]
    bind: ['job.project_id == corp.project']
  - {peer: {namespace: etl}, tokens: [{issuer: corp}]}
  - {anyMesh: true, tokens: [{issuer: corp, claims: {sub: a}}, {issuer: oauth}]}",
    );
    let named_peer = "\
kind: TrustedIssuer
metadata: {name: peer}
spec: {issuer: 'https://peer.example', pack: generic, keys: {discovery: true}}
---
";
    let aliased = from(
        "\
\x20 - anyMesh: true
    tokens: [{issuer: peer, as: other, claims: {sub: a}}, {issuer: corp}]
    bind: ['corp.namespace == peer.namespace && other.unit == corp.unit']
  - {anyMesh: true, tokens: [{issuer: peer, claims: {sub: a}}]}",
    );
    let of_a_project = [
        "gitlab: {project: 1, protectedRef: true}",
        "gitlab: {namespace: 1, environment: production, protectedEnvironment: true}",
        "claims: {job_project_id: '1', ref_protected: 'true'}",
        "claims: {user_id: '7'}",
        "claims: {project_visibility: internal}",
    ];
    for rules in [
        entries,
        format!("{named_peer}{aliased}"),
        own_gitlab("Allow", &of_a_project),
        // A Deny of more is only stricter.
        own_gitlab("Deny", &["gitlab: {protectedRef: false}", "claims: {ref_protected: 'true'}"]),
        rule("Deny", "  - {anyMesh: true, tokens: [{issuer: corp}]}", TO),
    ] {
        let compilation = compile_rules(&rules);
        assert_eq!(codes(&compilation), Vec::<&str>::new(), "{rules}\n{}", shown(&compilation));
    }
}

const RETIRES: &str = "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuer: 'https://a.example', pack: generic, keys: {discovery: true}, retireAfter: 2026-12-31}
";

/// 2027-01-01T00:00:00Z, when the day is over.
const RETIRED: i64 = 1_798_761_600;

fn at(now: Option<i64>) -> Compilation {
    let sources = files(&[("mesh.yaml", MESH), ("guard.yaml", GUARD), ("issuer.yaml", RETIRES)]);
    compile(&Inputs { sources: &sources, env: common::env(), now })
}

#[test]
fn an_issuer_that_retires_is_announced_for_thirty_days_and_then_said_to_be_refused() {
    let month = 30 * 86_400;
    let soon = "as soon as `2026-12-31` is over";
    let over = "since `2026-12-31` is over";
    for (now, expected) in [
        (None, None),
        (Some(RETIRED - month - 1), None),
        (Some(RETIRED - month), Some(soon)),
        (Some(RETIRED - 1), Some(soon)),
        (Some(RETIRED), Some(over)),
        (Some(RETIRED + month), Some(over)),
    ] {
        let compilation = at(now);
        let said = shown(&compilation);
        assert_eq!(codes(&compilation), expected.map_or(vec![], |_| vec!["TG0909"]), "{now:?}: {said}");
        assert!(said.contains(expected.unwrap_or_default()), "{now:?}: {said}");
        // The time changes what is said, never what is enforced.
        assert_eq!(compilation.output, at(None).output, "{now:?}");
        assert_eq!(compilation.output.unwrap().issuers[0].retire_at, Some(RETIRED));
    }
}

#[test]
fn revoked_tokens_of_a_pack_without_ids_are_refused() {
    let issuer = |pack: &str, url: &str| {
        format!(
            "kind: TrustedIssuer\nmetadata: {{name: a}}\nspec: {{issuer: '{url}', pack: {pack}, keys: {{discovery: true}}, \
             revoked: {{tokens: [{{id: x}}]}}}}\n"
        )
    };
    for (pack, url, expected) in [
        ("google", "https://accounts.google.com", &["TG0408"][..]),
        ("gitlab", "https://gitlab.example.com", &[]),
    ] {
        let text = issuer(pack, url);
        let compilation = compile_files(&files(&[("mesh.yaml", MESH), ("issuers.yaml", &text)]));
        assert_eq!(codes(&compilation), expected, "{}", shown(&compilation));
    }
}

#[test]
fn two_issuers_with_one_name_in_common_are_refused_and_both_places_named() {
    let issuers = "\
kind: TrustedIssuer
metadata: {name: a}
spec: {issuers: ['https://a.example', 'https://b.example'], pack: generic, keys: {discovery: true}}
---
kind: TrustedIssuer
metadata: {name: b}
spec: {issuer: 'https://b.example', pack: generic, keys: {discovery: true}}
";
    let compilation = compile_files(&files(&[("mesh.yaml", MESH), ("issuers.yaml", issuers)]));
    assert_eq!(codes(&compilation), ["TG0307"], "{}", shown(&compilation));
    let found = &compilation.diagnostics[0];
    assert_eq!((found.line, found.field.as_str(), found.related[0].line), (7, "spec.issuer", 1));
}
