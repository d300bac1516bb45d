//! Documents of every kind, and what makes them wrong.

use std::sync::LazyLock;

use super::{GUARD, ISSUERS, MESH, PROVIDERS};

/// Documents that compile together, in any order and in any distribution over files.
pub static DOCUMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut documents: Vec<String> = vec![MESH.to_owned(), GUARD.to_owned()];
    documents.extend(ISSUERS.split("---\n").chain(PROVIDERS.split("---\n")).map(str::to_owned));
    documents.extend(
        [
            "kind: Guard\nmetadata: {name: mesh, namespace: mesh-config}\nspec: {mode: Shadow, ports: [8080, 80]}\n",
            "kind: Caller\nmetadata: {name: etl, namespace: data}\nspec:\n  anyOf:\n  - {peer: {namespace: etl}, tokens: [{issuer: prod-cluster}]}\n  - tokenOnly: {via: [ingress/dataflow-in]}\n    tokens: [{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4}}]\n",
            "kind: AccessRule\nmetadata: {name: a, namespace: sales}\nspec: {owner: x, effect: Allow, mode: Enforce, from: [{caller: data/etl}], to: [{http: {methods: [POST, GET], paths: ['/v1/{id}', '/v1/a-*']}}]}\n",
            "kind: AccessRule\nmetadata: {name: b, namespace: sales}\nspec: {owner: x, effect: Deny, mode: Enforce, from: [{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {protectedRef: false}}]}]}\n",
            "kind: AccessRule\nmetadata: {name: c, namespace: mesh-config}\nspec: {owner: x, effect: Allow, mode: Shadow, from: [{anyMesh: true, tokens: [{issuer: corp, claims: {sub: a, level: 3}}, {issuer: gitlab, gitlab: {project: 7}}]}]}\n",
            "kind: AccessRule\nmetadata: {name: d, namespace: egress}\nspec: {owner: x, target: {gateway: egress/external}, effect: Allow, mode: Enforce, from: [{peer: {namespace: etl, serviceAccounts: [b, a]}}], to: [{grpc: {services: [a.B, a.A]}}]}\n",
            "kind: AccessRule\nmetadata: {name: h, namespace: egress}\nspec: {owner: x, target: {gateway: egress/external}, effect: Allow, mode: Enforce, from: [{peer: {namespace: etl}}], to: [{resources: {service: pubsub, actions: [publish, subscriptions.pull], names: ['projects/acme/topics/b-*', 'projects/acme/topics/a', 'projects/acme/subscriptions/*'], protocols: [http]}}, {launch: {service: dataflow, project: acme, region: europe-west4, template: 'gs://acme/*', methods: [templates.launch], protocols: [http], unchecked: [runAs, parameters, replacesRunningJob]}}]}\n",
            "kind: AccessRule\nmetadata: {name: i, namespace: egress}\nspec: {owner: x, target: {gateway: egress/external}, effect: Deny, mode: Enforce, from: [{peer: {namespace: etl}}], to: [{resources: {service: bigquery, actions: [write], names: ['projects/acme/datasets/secret/tables/*']}}]}\n",
            "kind: AccessRule\nmetadata: {name: f, namespace: etl}\nspec: {owner: x, effect: Allow, mode: Enforce, expiryGrace: 30s, from: [{anyMesh: true, tokens: [{issuer: gitlab, as: job, gitlab: {project: 7}}, {issuer: github, github: {repository: 1, pullRequest: false}}], bind: ['job.sha == github.sha && job.environment == peer.namespace']}, {peer: {namespace: ci}, tokens: [{issuer: prod-cluster, tekton: {task: deploy}}]}]}\n",
            "kind: AccessRule\nmetadata: {name: g, namespace: etl}\nspec: {owner: x, effect: Deny, mode: Enforce, from: [{anyMesh: true, tokens: [{issuer: entra, entra: {groups: [eeeeeeee-0000-4000-8000-000000000005]}}]}, {anyMesh: true, tokens: [{issuer: aws, aws: {role: a}}, {issuer: okta, okta: {user: 00u1}, actor: none}]}, {anyMesh: true, tokens: [{issuer: batch, spiffe: {id: 'spiffe://batch.example/a'}}]}, {anyMesh: true, tokens: [{issuer: oauth, claims: {'@scopes': a}}]}]}\n",
            "kind: AccessRule\nmetadata: {name: e, namespace: sales}\nspec: {owner: x, effect: Allow, mode: Enforce, from: [{anyone: true}], to: [{http: {methods: [GET], paths: [/healthz]}}]}\n",
        ]
        .map(str::to_owned),
    );
    documents
});

/// What makes any document wrong, wherever it stands.
pub const MISTAKES: [(&str, &str); 20] = [
    ("effect:", "efect:"),
    ("mode: Enforce", "mode: enforce"),
    ("mode: Shadow", "mode: "),
    ("[POST, GET]", "[]"),
    ("namespace: etl", "namespace: [etl]"),
    ("'/v1/{id}'", "'/v1//{id}'"),
    ("owner: x", "owner: no"),
    ("issuer: gitlab,", "issuer: gitlap,"),
    ("caller: data/etl", "caller: data/elt"),
    ("via: [ingress/dataflow-in]", "via: []"),
    ("anyMesh: true", "anyMesh: false"),
    ("discovery: true", "discovery: yes"),
    ("spec: {", "spec: {audiense: a, "),
    ("kind: ", "kind: X"),
    ("job.sha ==", "job.sha !="),
    ("github.sha &&", "github.sha ||"),
    ("actor: none", "actor: nobody"),
    ("expiryGrace: 30s", "expiryGrace: 30"),
    ("tekton: {task: deploy}", "tekton: {}"),
    ("@scopes", "@scope s"),
];
