//! Properties: order never matters, a broken piece never yields output, and no text makes the compiler panic.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use common::{GUARD, ISSUERS, MESH, compile_files, shown};
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use tidegate_compiler::{Compiled, SourceFile};
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Peer, PolicySet, Reason, Request, TokenState, VerifiedToken,
    decide, normal,
};

/// Documents that compile together, in any order and in any distribution over files.
static DOCUMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut documents: Vec<String> = vec![MESH.to_owned(), GUARD.to_owned()];
    documents.extend(ISSUERS.split("---\n").map(str::to_owned));
    documents.extend(
        [
            "kind: Guard\nmetadata: {name: mesh, namespace: mesh-config}\nspec: {mode: Shadow, ports: [8080, 80]}\n",
            "kind: Caller\nmetadata: {name: etl, namespace: data}\nspec:\n  anyOf:\n  - {peer: {namespace: etl}, tokens: [{issuer: prod-cluster}]}\n  - tokenOnly: {via: [ingress/dataflow-in]}\n    tokens: [{issuer: google, dataflowJob: {name: etl, project: acme, region: europe-west4}}]\n",
            "kind: AccessRule\nmetadata: {name: a, namespace: sales}\nspec: {owner: x, effect: Allow, mode: Enforce, from: [{caller: data/etl}], to: [{http: {methods: [POST, GET], paths: ['/v1/{id}', '/v1/a-*']}}]}\n",
            "kind: AccessRule\nmetadata: {name: b, namespace: sales}\nspec: {owner: x, effect: Deny, mode: Enforce, from: [{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {protectedRef: false}}]}]}\n",
            "kind: AccessRule\nmetadata: {name: c, namespace: mesh-config}\nspec: {owner: x, effect: Allow, mode: Shadow, from: [{anyMesh: true, tokens: [{issuer: corp, claims: {sub: a, level: 3}}, {issuer: gitlab, gitlab: {project: 7}}]}]}\n",
            "kind: AccessRule\nmetadata: {name: d, namespace: egress}\nspec: {owner: x, target: {gateway: egress/external}, effect: Allow, mode: Enforce, from: [{peer: {namespace: etl, serviceAccounts: [b, a]}}], to: [{grpc: {services: [a.B, a.A]}}]}\n",
            "kind: AccessRule\nmetadata: {name: e, namespace: sales}\nspec: {owner: x, effect: Allow, mode: Enforce, from: [{anyone: true}], to: [{http: {methods: [GET], paths: [/healthz]}}]}\n",
        ]
        .map(str::to_owned),
    );
    documents
});

static WHOLE: LazyLock<Compiled> = LazyLock::new(|| {
    let compilation = compile_files(&one_file(&DOCUMENTS));
    let said = shown(&compilation);
    compilation.output.unwrap_or_else(|| panic!("{said}"))
});

fn one_file(documents: &[String]) -> Vec<SourceFile> {
    vec![SourceFile { path: "all.yaml".to_owned(), text: documents.join("---\n") }]
}

/// The documents in some order, each in one of some files.
fn arrangement() -> impl Strategy<Value = Vec<SourceFile>> {
    let files = prop::collection::vec(0usize..4, DOCUMENTS.len());
    (Just(DOCUMENTS.clone()).prop_shuffle(), files, Just((0..4).collect::<Vec<usize>>()).prop_shuffle())
        .prop_map(|(documents, files, order)| {
            let mut texts: Vec<Vec<String>> = vec![Vec::new(); 4];
            for (document, file) in documents.into_iter().zip(files) {
                texts[file].push(document);
            }
            order
                .into_iter()
                .map(|file| SourceFile { path: format!("{file}.yaml"), text: texts[file].join("---\n") })
                .collect()
        })
}

/// What makes any document wrong, wherever it stands.
const MISTAKES: [(&str, &str); 14] = [
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
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_files_and_documents_never_changes_the_output(files in arrangement()) {
        let compilation = compile_files(&files);
        let said = shown(&compilation);
        let output = compilation.output;
        prop_assert!(output.is_some(), "{}", said);
        prop_assert!(output.as_ref() == Some(&*WHOLE), "{files:?}");
    }

    #[test]
    fn the_order_of_files_never_changes_what_is_said(files in arrangement(), mistake in any::<Index>()) {
        let (from, to) = MISTAKES[mistake.index(MISTAKES.len())];
        let broken: Vec<SourceFile> = files
            .iter()
            .map(|file| SourceFile { path: file.path.clone(), text: file.text.replacen(from, to, 1) })
            .collect();
        let mut reversed = broken.clone();
        reversed.reverse();
        prop_assert_eq!(compile_files(&broken).diagnostics, compile_files(&reversed).diagnostics);
    }

    #[test]
    fn a_broken_piece_never_yields_output(files in arrangement(), mistakes in subsequence(MISTAKES.to_vec(), 1..3)) {
        let broken: Vec<SourceFile> = files
            .iter()
            .map(|file| {
                let text = mistakes.iter().fold(file.text.clone(), |text, (from, to)| text.replacen(from, to, 1));
                SourceFile { path: file.path.clone(), text }
            })
            .collect();
        prop_assert!(broken != files);
        let compilation = compile_files(&broken);
        prop_assert!(compilation.output.is_none(), "{mistakes:?}");
        prop_assert!(compilation.diagnostics.iter().any(|found| found.is_error()), "{mistakes:?}");
    }

    /// Output and errors exclude each other, whatever is written.
    #[test]
    fn there_is_output_if_and_only_if_there_is_no_error(
        position in any::<Index>(), length in 0usize..12, replacement in "[a-z{}\\[\\]:,'\"\\-\\n &*!#|>%@`$~0-9.]{0,6}"
    ) {
        let text = DOCUMENTS.join("---\n");
        let start = position.index(text.len());
        let end = (start + length).min(text.len());
        let (Some(before), Some(after)) = (text.get(..start), text.get(end..)) else { return Ok(()) };
        let file = SourceFile { path: "a.yaml".to_owned(), text: format!("{before}{replacement}{after}") };
        let compilation = compile_files(std::slice::from_ref(&file));
        let errors = compilation.diagnostics.iter().filter(|found| found.is_error()).count();
        prop_assert_eq!(compilation.output.is_some(), errors == 0, "{}", shown(&compilation));
        for found in &compilation.diagnostics {
            let lines = file.text.lines().count();
            let line = usize::try_from(found.line).unwrap();
            prop_assert!(line <= lines + 1, "{found} of {lines} lines");
            prop_assert!(!found.message.is_empty() && !found.why.is_empty() && !found.fix.is_empty(), "{found}");
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", more in "[a-z:\\-{}\\[\\]&*!|>'\"%#\\n ]{0,200}") {
        compile_files(&[
            SourceFile { path: "a.yaml".to_owned(), text },
            SourceFile { path: "b.yaml".to_owned(), text: more },
        ]);
    }
}

/// Entries whose Deny form must hold wherever their Allow form does.
const ENTRIES: [&str; 9] = [
    "{peer: {namespace: etl}, tokens: [{issuer: prod-cluster}]}",
    "{anyMesh: true, tokens: [{issuer: prod-cluster, kubernetes: {namespace: etl, serviceAccount: a}}]}",
    "{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 1}}]}",
    "{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 1, protectedRef: true}}]}",
    "{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {namespace: 1, protectedRef: false}}]}",
    "{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 1, protectedEnvironment: true, environment: a}}]}",
    "{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 1, protectedEnvironment: false}}]}",
    "{anyMesh: true, tokens: [{issuer: google, google: {serviceAccount: a@b.iam.gserviceaccount.com, subject: 1}}]}",
    "{anyMesh: true, tokens: [{issuer: google, dataflowJob: {name: a, project: acme, region: europe-west4}}]}",
];

fn with_effect(entry: &str, effect: &str) -> PolicySet {
    let output = common::compiled(&common::rule(effect, &format!("  - {entry}"), ""));
    PolicySet::decode(&common::policy(&output, "sales", "orders-api").rules).unwrap()
}

static BOTH: LazyLock<Vec<(PolicySet, PolicySet)>> = LazyLock::new(|| {
    ENTRIES.iter().map(|entry| (with_effect(entry, "Allow"), with_effect(entry, "Deny"))).collect()
});

/// Values that the entries demand, and others.
fn claim() -> impl Strategy<Value = ClaimValue> {
    const TEXTS: [&str; 10] = [
        "1",
        "2",
        "true",
        "false",
        "a",
        "etl",
        "acme",
        "push",
        "merge_request_event",
        "a@b.iam.gserviceaccount.com",
    ];
    prop_oneof![
        1 => Just(ClaimValue::Absent),
        1 => Just(ClaimValue::Unknown),
        1 => any::<bool>().prop_map(ClaimValue::Boolean),
        1 => Just(ClaimValue::Other),
        12 => prop::sample::select(&TEXTS[..]).prop_map(|text| ClaimValue::String(text.to_owned())),
    ]
}

/// Why a request passes or not, with a token whose claims have these values, by path.
fn reason(set: &PolicySet, values: &BTreeMap<Vec<String>, ClaimValue>, namespace: &str) -> Reason {
    let tokens: Vec<VerifiedToken> = set
        .issuers()
        .map(|(_, slots)| VerifiedToken {
            audiences: vec!["https://orders.sales.example".to_owned()],
            expires_at: 100,
            slots: slots.iter().map(|slot| values.get(slot).cloned().unwrap_or_default()).collect(),
        })
        .collect();
    let states: Vec<TokenState<'_>> = tokens.iter().map(TokenState::Verified).collect();
    let model = DirectoryModel {
        name: "dataflow/acme/europe-west4/a".to_owned(),
        ids: vec!["1".to_owned()],
        fresh_until: 100,
    };
    let directories = Directories::decode(&encode_directories(&[model])).unwrap();
    let path = normal::path(b"/");
    let request = Request {
        now: 1,
        port: 80,
        method: b"GET",
        host: Some("orders.sales.example"),
        path: &path,
        headers: HeaderFacts::default(),
        peer: Peer::Mesh { trust_domain: "prod.example", namespace, service_account: "a" },
        tokens: &states,
        directories: &directories,
    };
    decide(set, &request).reason
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The same entry as an Allow and as a Deny: what the one lets pass, the other refuses.
    #[test]
    fn a_deny_catches_at_least_what_the_same_allow_lets_pass(
        entry in 0..ENTRIES.len(), values in prop::collection::vec(claim(), 8), namespace in prop::sample::select(&["etl", "ci"][..])
    ) {
        let (allow, deny) = &BOTH[entry];
        let paths: BTreeSet<Vec<String>> =
            allow.issuers().chain(deny.issuers()).flat_map(|(_, slots)| slots).collect();
        let values: BTreeMap<Vec<String>, ClaimValue> = paths.into_iter().zip(values).collect();
        if reason(allow, &values, namespace) == Reason::AllowedBy {
            prop_assert_eq!(reason(deny, &values, namespace), Reason::DeniedBy, "{}: {:?}", ENTRIES[entry], values);
        }
    }
}

/// The property above is about something: every entry lets a request pass.
#[test]
fn every_entry_lets_the_request_pass_that_it_means() {
    let good = |entry: usize| {
        let claims: [(&[&str], &str); 13] = [
            (&["kubernetes.io", "namespace"], "etl"),
            (&["kubernetes.io", "serviceaccount", "name"], "a"),
            (&["project_id"], "1"),
            (&["job_project_id"], "1"),
            (&["namespace_id"], "1"),
            (&["job_namespace_id"], "1"),
            (&["ref_protected"], if entry == 4 { "false" } else { "true" }),
            (&["pipeline_source"], "push"),
            (&["environment"], "a"),
            (&["environment_protected"], if entry == 6 { "false" } else { "true" }),
            (&["email"], "a@b.iam.gserviceaccount.com"),
            (&["google", "compute_engine", "project_id"], "acme"),
            (&["google", "compute_engine", "instance_id"], "1"),
        ];
        let mut values: BTreeMap<Vec<String>, ClaimValue> = claims
            .iter()
            .map(|(path, text)| {
                (path.iter().map(|name| (*name).to_owned()).collect(), ClaimValue::String((*text).to_owned()))
            })
            .collect();
        values.insert(vec!["sub".to_owned()], ClaimValue::String("1".to_owned()));
        values.insert(vec!["email_verified".to_owned()], ClaimValue::Boolean(true));
        values
    };
    for (entry, (allow, deny)) in BOTH.iter().enumerate() {
        assert_eq!(reason(allow, &good(entry), "etl"), Reason::AllowedBy, "{}", ENTRIES[entry]);
        assert_eq!(reason(deny, &good(entry), "etl"), Reason::DeniedBy, "{}", ENTRIES[entry]);
        // A fork's pipeline, a stolen token, a machine elsewhere: no Allow, and no way around a Deny of the same.
        for claim in good(entry).keys() {
            let mut values = good(entry);
            values.insert(claim.clone(), ClaimValue::Unknown);
            if reason(allow, &values, "etl") != Reason::AllowedBy {
                assert_eq!(reason(deny, &values, "etl"), Reason::DeniedBy, "{}: {claim:?}", ENTRIES[entry]);
            }
        }
    }
}

#[test]
fn every_mistake_is_one_in_the_documents_as_they_are() {
    let text = DOCUMENTS.join("---\n");
    for (from, to) in MISTAKES {
        assert!(text.contains(from), "{from}");
        let file = SourceFile { path: "a.yaml".to_owned(), text: text.replacen(from, to, 1) };
        assert!(compile_files(&[file]).output.is_none(), "{from} → {to}");
    }
}

/// Leaving a document out changes the output, or is an error: none of them is ignored.
#[test]
fn every_document_counts() {
    for left_out in 0..DOCUMENTS.len() {
        let mut documents = DOCUMENTS.clone();
        let document = documents.remove(left_out);
        let output = compile_files(&one_file(&documents)).output;
        assert!(output.as_ref() != Some(&*WHOLE), "{document}");
    }
}
