//! The two forms of an entry: what it lets pass as an Allow, the same entry refuses as a Deny.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::subsequence;
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Peer, PolicySet, Reason, Request, TokenState, VerifiedToken,
    decide, normal,
};

/// A claim of an issuer's token.
type Claim = (String, Vec<String>);
type Values = BTreeMap<Claim, ClaimValue>;

const GROUP: &str = "eeeeeeee-0000-4000-8000-000000000005";

/// Tokens of entries whose Deny form must hold wherever their Allow form does.
const TOKENS: [&str; 21] = [
    "{issuer: prod-cluster}",
    "{issuer: prod-cluster, kubernetes: {namespace: etl, serviceAccount: a}}",
    "{issuer: prod-cluster, tekton: {task: deploy, namespace: etl}}",
    "{issuer: gitlab, gitlab: {project: 1}}",
    "{issuer: gitlab, gitlab: {project: 1, protectedRef: true}}",
    "{issuer: gitlab, gitlab: {namespace: 1, protectedRef: false}}",
    "{issuer: gitlab, gitlab: {project: 1, protectedEnvironment: true, environment: a}}",
    "{issuer: gitlab, gitlab: {project: 1, protectedEnvironment: false}}",
    "{issuer: gitlab, gitlab: {project: 1, ref: a, refType: branch, tier: production, pipelineSources: [push]}}",
    "{issuer: google, google: {serviceAccount: a@b.iam.gserviceaccount.com, subject: 1, region: europe-west4}}",
    "{issuer: google, dataflowJob: {name: a, project: acme, region: europe-west4}}",
    "{issuer: google, google: {subject: 1}, dataflowJob: {name: a, project: acme, region: europe-west4, onStale: degradeToServiceAccount}}",
    "{issuer: entra, entra: {app: eeeeeeee-0000-4000-8000-000000000005, appOnly: true, roles: [a, b]}}",
    "{issuer: entra, entra: {groups: [eeeeeeee-0000-4000-8000-000000000005], agent: false}, humanInLoop: true}",
    "{issuer: okta, okta: {client: a, scopes: [a]}, humanInLoop: false, actor: none}",
    "{issuer: oauth, claims: {sub: a}, actor: {subjects: [a, b]}}",
    "{issuer: aws, aws: {account: '123456789012', role: a, organization: o-example1234}}",
    "{issuer: batch, spiffe: {id: 'spiffe://batch.example/a'}}",
    "{issuer: github, github: {repository: 1, ref: refs/heads/main, events: [push], pullRequest: false}}",
    "{issuer: gitlab, as: job, gitlab: {project: 1}}, {issuer: github, github: {repository: 1, environment: a}}], bind: ['job.sha == github.sha'",
    "{issuer: corp, claims: {sub: a}}], bind: ['corp.unit == peer.namespace && corp.app == peer.serviceAccount'",
];

/// The entries as an Allow and as a Deny.
static BOTH: LazyLock<Vec<(PolicySet, PolicySet)>> = LazyLock::new(|| {
    let with_effect = |tokens: &str, effect: &str| {
        let entry = format!("  - {{anyMesh: true, tokens: [{tokens}]}}");
        let output = common::compiled(&common::rule(effect, &entry, ""));
        PolicySet::decode(&common::policy(&output, "sales", "orders-api").rules).unwrap()
    };
    TOKENS.iter().map(|tokens| (with_effect(tokens, "Allow"), with_effect(tokens, "Deny"))).collect()
});

/// What the token of an entry says that is meant by it.
fn meant(entry: usize) -> Values {
    let tokens = TOKENS[entry];
    let text = |text: &str| ClaimValue::String(text.to_owned());
    let list = |text: &str| ClaimValue::Strings(vec!["z".to_owned(), text.to_owned()]);
    let unless = |written: &str| if tokens.contains(written) { "false" } else { "true" };
    let human = tokens.contains("humanInLoop: true");
    let actor = if tokens.contains("actor: none") { ClaimValue::Absent } else { text("b") };
    let sub = if tokens.contains("google") {
        "1"
    } else if tokens.contains("spiffe") {
        "spiffe://batch.example/a"
    } else {
        "a"
    };
    let sts = "https://sts.amazonaws.com/";
    let git_ref = if tokens.contains("github: {repository: 1, ref") { "refs/heads/main" } else { "a" };
    let claims: [(&[&str], ClaimValue); 40] = [
        (&["kubernetes.io", "namespace"], text("etl")),
        (&["kubernetes.io", "serviceaccount", "name"], text("a")),
        (&["kubernetes.io", "pod", "uid"], text("1")),
        (&["project_id"], text("1")),
        (&["job_project_id"], text("1")),
        (&["namespace_id"], text("1")),
        (&["job_namespace_id"], text("1")),
        (&["ref_protected"], text(unless("protectedRef: false"))),
        (&["pipeline_source"], text("push")),
        (&["environment"], text("a")),
        (&["environment_protected"], text(unless("protectedEnvironment: false"))),
        (&["ref"], text(git_ref)),
        (&["ref_type"], text("branch")),
        (&["deployment_tier"], text("production")),
        (&["@fork"], ClaimValue::Boolean(false)),
        (&["sha"], text("c0ffee")),
        (&["sub"], text(sub)),
        (&["email"], text("a@b.iam.gserviceaccount.com")),
        (&["email_verified"], ClaimValue::Boolean(true)),
        (&["@region"], text("europe-west4")),
        (&["google", "compute_engine", "project_id"], text("acme")),
        (&["google", "compute_engine", "instance_id"], text("1")),
        (&["@client"], text(GROUP)),
        (&["@app_only"], ClaimValue::Boolean(true)),
        (&["roles"], list("b")),
        (&["@groups"], list(GROUP)),
        (&["@agent"], ClaimValue::Boolean(false)),
        (&["@human_in_loop"], ClaimValue::Boolean(human)),
        (&["@actor"], actor),
        (&["cid"], text("a")),
        (&["@scopes"], list("a")),
        (&[sts, "aws_account"], text("123456789012")),
        (&[sts, "org_id"], text("o-example1234")),
        (&["@role_name"], text("a")),
        (&["repository_id"], text("1")),
        (&["event_name"], text("push")),
        (&["@pull_request"], ClaimValue::Boolean(false)),
        (&["unit"], text("etl")),
        (&["app"], text("a")),
        (&["level"], ClaimValue::Integer(3)),
    ];
    let meant: BTreeMap<Vec<String>, ClaimValue> = claims
        .into_iter()
        .map(|(path, value)| (path.iter().map(|name| (*name).to_owned()).collect(), value))
        .collect();
    read(entry).into_iter().filter_map(|claim| Some((claim.clone(), meant.get(&claim.1)?.clone()))).collect()
}

fn claims_of(set: &PolicySet) -> impl Iterator<Item = Claim> {
    set.issuers().flat_map(|(issuer, slots)| slots.into_iter().map(|slot| (issuer.to_owned(), slot)))
}

/// What either form of an entry reads.
fn read(entry: usize) -> BTreeSet<Claim> {
    let (allow, deny) = &BOTH[entry];
    claims_of(allow).chain(claims_of(deny)).collect()
}

/// Why a request passes or not, with tokens whose claims have these values.
fn reason(set: &PolicySet, values: &Values, namespace: &str, fresh: bool) -> Reason {
    let value = |issuer: &str, slot: &Vec<String>| {
        values.get(&(issuer.to_owned(), slot.clone())).cloned().unwrap_or_default()
    };
    let tokens: Vec<VerifiedToken> = set
        .issuers()
        .map(|(issuer, slots)| VerifiedToken {
            audiences: vec!["https://orders.sales.example".to_owned()],
            expires_at: 100,
            slots: slots.iter().map(|slot| value(issuer, slot)).collect(),
        })
        .collect();
    let states: Vec<TokenState<'_>> = tokens.iter().map(TokenState::Verified).collect();
    let models = ["dataflow/acme/europe-west4/a", "tekton/prod-cluster/etl/task/deploy"].map(|name| {
        let fresh_until = if fresh { 100 } else { 0 };
        DirectoryModel { name: name.to_owned(), ids: vec!["1".to_owned()], fresh_until }
    });
    let directories = Directories::decode(&encode_directories(&models)).unwrap();
    let path = normal::path(b"/");
    let request = Request {
        now: 1,
        expiry_grace_s: 0,
        port: 80,
        method: b"GET",
        host: Some("orders.sales.example"),
        path: &path,
        query: &[],
        headers: HeaderFacts::default(),
        fields: &[],
        body: tidegate_engine::Body::Unread,
        peer: Peer::Mesh { trust_domain: "prod.example", namespace, service_account: "a" },
        tokens: &states,
        directories: &directories,
    };
    decide(set, &request).reason
}

/// Values that entries demand, and others.
fn claim() -> impl Strategy<Value = ClaimValue> {
    const TEXTS: [&str; 8] = ["1", "true", "false", "a", "etl", "push", "merge_request_event", GROUP];
    let text = prop::sample::select(&TEXTS[..]).prop_map(str::to_owned);
    prop_oneof![
        2 => Just(ClaimValue::Absent),
        2 => Just(ClaimValue::Unknown),
        2 => any::<bool>().prop_map(ClaimValue::Boolean),
        1 => Just(ClaimValue::Other),
        1 => prop::collection::vec(text.clone(), 0..3).prop_map(ClaimValue::Strings),
        6 => text.prop_map(ClaimValue::String),
    ]
}

/// An entry, and what a token says that is like the one that is meant by it.
fn alike() -> impl Strategy<Value = (usize, Values)> {
    (0..TOKENS.len())
        .prop_flat_map(|entry| {
            let paths: Vec<Claim> = read(entry).into_iter().collect();
            let most = paths.len().min(3);
            (Just(entry), subsequence(paths, 0..=most), prop::collection::vec(claim(), most))
        })
        .prop_map(|(entry, changed, values)| {
            let mut all = meant(entry);
            all.extend(changed.into_iter().zip(values));
            (entry, all)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn a_deny_catches_at_least_what_the_same_allow_lets_pass(
        (entry, values) in alike(), namespace in prop::sample::select(&["etl", "ci"][..]), fresh in any::<bool>()
    ) {
        let (allow, deny) = &BOTH[entry];
        if reason(allow, &values, namespace, fresh) == Reason::AllowedBy {
            let refused = reason(deny, &values, namespace, fresh);
            prop_assert_eq!(refused, Reason::DeniedBy, "{}: {:?}", TOKENS[entry], values);
        }
    }
}

/// The property above is about something: every entry lets the request pass that it means, no other that lacks any of it,
/// and whatever of it is unknown, the same Deny refuses.
#[test]
fn every_entry_lets_the_request_pass_that_it_means() {
    for (entry, (allow, deny)) in BOTH.iter().enumerate() {
        let tokens = TOKENS[entry];
        let good = meant(entry);
        assert_eq!(reason(allow, &good, "etl", true), Reason::AllowedBy, "{tokens}");
        assert_eq!(reason(deny, &good, "etl", true), Reason::DeniedBy, "{tokens}");
        for claim in read(entry) {
            let other = |value: ClaimValue| {
                let mut values = good.clone();
                values.insert(claim.clone(), value);
                values
            };
            let unknown = other(ClaimValue::Unknown);
            assert_eq!(reason(deny, &unknown, "etl", true), Reason::DeniedBy, "{tokens}: {claim:?}");
            if !claims_of(allow).any(|one| one == claim) {
                continue;
            }
            // Of the source of a pipeline it is said what it must not be.
            let wrong = if claim.1 == ["pipeline_source"] { "merge_request_event" } else { "z" };
            for values in [unknown, other(ClaimValue::String(wrong.to_owned()))] {
                let passes = reason(allow, &values, "etl", true) == Reason::AllowedBy;
                assert!(!passes, "{tokens}: {claim:?}: {values:?}");
            }
        }
    }
}

#[test]
fn a_stale_directory_lets_in_only_who_may_degrade_and_no_deny_forgets_anybody() {
    let mut degraded = 0;
    for (entry, (allow, deny)) in BOTH.iter().enumerate() {
        let tokens = TOKENS[entry];
        if !tokens.contains("dataflowJob") && !tokens.contains("tekton") {
            continue;
        }
        let may_degrade = tokens.contains("degradeToServiceAccount");
        let passes = reason(allow, &meant(entry), "etl", false) == Reason::AllowedBy;
        assert_eq!(passes, may_degrade, "{tokens}");
        assert_eq!(reason(deny, &meant(entry), "etl", false), Reason::DeniedBy, "{tokens}");
        degraded += usize::from(passes);
    }
    assert_eq!(degraded, 1);
}
