//! What conditions mean after compilation: compiled, encoded, decoded and decided, in an Allow and in a Deny.

mod common;

use std::collections::BTreeMap;

use common::{compiled, policy, rule};
use proptest::prelude::*;
use tidegate_engine::model::Condition;
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Peer, PolicySet, Reason, Request, TokenState, VerifiedToken,
    decide, normal, reference,
};

/// A request, and what its tokens say by issuer and path.
#[derive(Debug, Clone)]
struct Sent {
    now: i64,
    method: &'static str,
    target: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    claims: BTreeMap<&'static str, ClaimValue>,
    absent_peer: bool,
}

fn text(text: &str) -> ClaimValue {
    ClaimValue::String(text.to_owned())
}

fn sent() -> Sent {
    Sent {
        // 2026-11-23T09:30:00Z, a Monday.
        now: 1_795_426_200,
        method: "POST",
        target: "/v1/orders?alt=json&name=a%20b",
        headers: vec![("x-env", "prod")],
        claims: BTreeMap::from([
            ("project_id", text("4711")),
            ("ref", text("main")),
            ("ref_protected", text("true")),
            ("user_access_level", text("maintainer")),
            ("runner_id", ClaimValue::Integer(7)),
            ("groups_direct", ClaimValue::Strings(vec!["data".to_owned(), "etl".to_owned()])),
            ("@fork", ClaimValue::Boolean(false)),
            ("environment", text("etl")),
            ("iat", ClaimValue::Integer(1_795_426_200 - 600)),
            ("sub", text("project_path:a")),
            ("level", ClaimValue::Integer(3)),
        ]),
        absent_peer: false,
    }
}

/// Why the request passes or not.
fn reason(model: &tidegate_compiler::WorkloadPolicy, sent: &Sent) -> Reason {
    let set = PolicySet::decode(&model.rules).unwrap();
    let tokens: Vec<VerifiedToken> = set
        .issuers()
        .map(|(_, slots)| VerifiedToken {
            audiences: vec!["https://orders.sales.example".to_owned()],
            expires_at: sent.now + 100,
            slots: slots
                .iter()
                .map(|slot| sent.claims.get(slot.join("/").as_str()).cloned().unwrap_or_default())
                .collect(),
        })
        .collect();
    let states: Vec<TokenState<'_>> = tokens.iter().map(TokenState::Verified).collect();
    let path = normal::path(sent.target.as_bytes());
    let fields: Vec<(&[u8], &[u8])> =
        sent.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let request = Request {
        now: sent.now,
        expiry_grace_s: 0,
        port: 8080,
        method: sent.method.as_bytes(),
        host: Some("orders.sales.example"),
        path: &path,
        query: normal::query(sent.target.as_bytes()),
        headers: HeaderFacts::default(),
        fields: &fields,
        body: tidegate_engine::Body::Unread,
        peer: match sent.absent_peer {
            true => Peer::Absent,
            false => Peer::Mesh { trust_domain: "prod.example", namespace: "etl", service_account: "worker" },
        },
        tokens: &states,
        directories: &Directories::default(),
    };
    let decision = decide(&set, &request);
    assert_eq!(decision, reference::decide(&model.model, &request), "{sent:?}");
    decision.reason
}

/// The rule with everything that follows `from`, as an Allow or, beside an Allow of everything, as a Deny.
fn policy_of(effect: &str, from: &str, to: &str, more: &str) -> tidegate_compiler::WorkloadPolicy {
    let mut rules = format!("{}{more}", rule(effect, from, to));
    if effect == "Deny" {
        let all = rule("Allow", "  - anyMesh: true", "").replace("name: r,", "name: all,");
        rules = format!("{rules}---\n{all}");
    }
    policy(&compiled(&rules), "sales", "orders-api").clone()
}

/// Whether a condition holds: as an Allow and as a Deny see it. `None`: it cannot be told.
fn holds_of(from: &str, to: &str, more: &str, sent: &Sent) -> Option<bool> {
    let allowed = reason(&policy_of("Allow", from, to, more), sent) == Reason::AllowedBy;
    let denied = reason(&policy_of("Deny", from, to, more), sent) == Reason::DeniedBy;
    match (allowed, denied) {
        (true, true) => Some(true),
        (false, false) => Some(false),
        (false, true) => None,
        (true, false) => panic!("allowed and not denied: {from} {to} {more} {sent:?}"),
    }
}

fn entry(when: &str) -> String {
    format!(
        "  - anyMesh: true\n    tokens: [{{issuer: gitlab, as: job, claims: {{project_id: '4711'}}}}]\n    when: ['{}']",
        when.replace('\'', "''")
    )
}

fn holds(when: &str, sent: &Sent) -> Option<bool> {
    holds_of(&entry(when), "", "", sent)
}

#[test]
fn conditions_mean_what_they_say() {
    let table = [
        // Strings.
        ("job.ref == \"main\"", true),
        ("job.ref != \"main\"", false),
        ("\"main\" == job.ref", true),
        ("job.ref_protected == \"true\"", true),
        ("job.user_access_level in [\"maintainer\", \"owner\"]", true),
        ("job.user_access_level in [\"developer\"]", false),
        ("!(job.user_access_level in [\"developer\"])", true),
        ("job.ref.startsWith(\"ma\")", true),
        ("job.ref.endsWith(\"in\") && job.ref.contains(\"ai\")", true),
        ("job.ref.contains(\"x\")", false),
        ("job.ref.matches(\"^(main|release-[0-9]+)$\")", true),
        ("matches(job.ref, \"^release\")", false),
        ("job.sub.matches(\"path:\")", true),
        ("size(job.ref) == 4 && job.ref.size() < 5", true),
        // Lists, numbers, booleans.
        ("\"etl\" in job.groups_direct", true),
        ("\"ops\" in job.groups_direct", false),
        ("size(job.groups_direct) >= 2", true),
        ("job.runner_id == 7", true),
        ("job.runner_id in [1, 7]", true),
        ("job.runner_id > 7 || job.runner_id < 7", false),
        ("job.runner_id + 1 == 8", true),
        ("-7 == 0 - job.runner_id", true),
        ("!job[\"@fork\"]", true),
        ("job[\"@fork\"] == true", false),
        // Logic.
        ("job.ref == \"main\" ? job.runner_id == 7 : job.runner_id == 8", true),
        ("job.ref == \"dev\" ? job.runner_id == 7 : job.runner_id == 8", false),
        ("!(job.ref == \"main\" && job.runner_id == 8)", true),
        // What is absent.
        ("has(job.ref)", true),
        ("has(job.deployment_tier)", false),
        ("!has(job.deployment_tier)", true),
        ("job.deployment_tier == \"prod\"", false),
        // Peer, request, time.
        ("job.environment == peer.namespace", true),
        ("peer.serviceAccount == job.environment", false),
        ("peer.namespace == \"etl\" && peer.trustDomain == \"prod.example\"", true),
        ("peer.serviceAccount.startsWith(\"work\")", true),
        ("request.method == \"POST\" && request.path == \"/v1/orders\"", true),
        ("request.host.endsWith(\".example\") && request.port == 8080", true),
        ("request.headers[\"X-Env\"] == \"prod\"", true),
        ("\"x-env\" in request.headers && !(\"x-other\" in request.headers)", true),
        ("request.query[\"name\"] == \"a b\"", true),
        ("request.query.alt in [\"json\", \"media\"]", true),
        ("\"fields\" in request.query", false),
        ("now < timestamp(\"2026-11-23T10:00:00Z\")", true),
        ("now >= timestamp(\"2026-11-23T10:30:00+01:00\")", true),
        ("now > timestamp(\"2026-11-23T10:30:00+01:00\")", false),
        ("now - timestamp(\"2026-11-23T09:00:00Z\") == duration(\"30m\")", true),
        ("timestamp(job.runner_id) + duration(\"1h\") < now", true),
    ];
    for (when, expected) in table {
        assert_eq!(holds(when, &sent()), Some(expected), "{when}");
    }
}

/// "An Allow never holds because something is missing."
#[test]
fn what_is_absent_lets_no_allow_hold_and_every_negated_deny() {
    let without = |claim: &str| {
        let mut sent = sent();
        sent.claims.remove(claim);
        sent.headers.clear();
        sent
    };
    for when in [
        "job.ref != \"main\"",
        "!(job.ref == \"dev\")",
        "!(job.ref in [\"dev\"])",
        "!job.ref.startsWith(\"x\")",
        "!job.ref.matches(\"^x$\")",
        "!(size(job.ref) == 3)",
        "request.headers[\"x-env\"] != \"prod\"",
        "!(job.ref != \"main\" ? job.ref == \"a\" : job.ref == \"b\") && job.ref != \"c\"",
    ] {
        assert_eq!(holds(when, &without("ref")), None, "{when}");
    }
    for when in ["job.ref == \"main\"", "job.ref.startsWith(\"m\")", "size(job.ref) < 9", "has(job.ref)"] {
        assert_eq!(holds(when, &without("ref")), Some(false), "{when}");
    }
    assert_eq!(holds("!has(job.ref)", &without("ref")), Some(true));
    assert_eq!(holds("!has(job.ref) || job.ref != \"dev\"", &without("ref")), Some(true));
    assert_eq!(holds("!job[\"@fork\"]", &without("@fork")), None);
    assert_eq!(holds("!(\"ops\" in job.groups_direct)", &without("groups_direct")), None);
}

#[test]
fn what_cannot_be_told_is_unknown() {
    let with = |claim: &'static str, value: ClaimValue| {
        let mut sent = sent();
        sent.claims.insert(claim, value);
        sent
    };
    for when in
        ["job.ref == \"main\"", "job.ref != \"main\"", "job.ref.contains(\"a\")", "size(job.ref) == 4"]
    {
        assert_eq!(holds(when, &with("ref", ClaimValue::Unknown)), None, "{when}");
        assert_eq!(holds(when, &with("ref", ClaimValue::Other)), None, "{when}");
    }
    // What is too large to be added is taken away on the other side.
    assert_eq!(holds("job.runner_id + 9223372036854775807 > 5", &sent()), Some(true));
    let twice = Sent { headers: vec![("x-env", "prod"), ("x-env", "prod")], ..sent() };
    assert_eq!(holds("request.headers[\"x-env\"] == \"prod\"", &twice), None);
    let folded = Sent { headers: vec![("x_env", "prod")], ..sent() };
    assert_eq!(holds("\"x-env\" in request.headers", &folded), None);
    for target in ["/v1/orders?alt=json&alt=json", "/v1/orders?alt=json;alt=media", "/v1/orders?alt=%zz"] {
        let sent = Sent { target, ..sent() };
        assert_eq!(holds("request.query[\"alt\"] == \"json\"", &sent), None, "{target}");
    }
}

#[test]
fn claims_that_no_pack_knows_are_what_they_turn_out_to_be() {
    let entry = |when: &str| {
        format!("  - anyMesh: true\n    tokens: [{{issuer: corp, claims: {{sub: a}}}}]\n    when: ['{when}']")
    };
    let mut sent = sent();
    sent.claims.insert("sub", text("a"));
    for (when, expected) in [
        ("corp.level == 3", Some(true)),
        ("corp.level > 2 && corp.level <= 3", Some(true)),
        ("corp.level == \"3\"", None),
        ("corp.level", None),
        ("corp.other == 3", Some(false)),
        ("corp.level.startsWith(\"3\")", None),
        ("\"a\" in corp.level", None),
    ] {
        assert_eq!(holds_of(&entry(when), "", "", &sent), expected, "{when}");
    }
}

#[test]
fn hours_and_moments_bound_a_rule() {
    let at = |now: i64| Sent { now, ..sent() };
    let from = "  - anyMesh: true";
    let monday = 1_795_426_200;
    let hours = "  schedule: {timeZone: Europe/Berlin, windows: [{days: [Mon, Fri], from: \"08:00\", to: \"18:00\"}]}\n";
    // In Berlin it is one hour later.
    for (now, expected) in [
        (monday, Some(true)),
        (monday - 2 * 3600 - 30 * 60, Some(true)),
        (monday - 2 * 3600 - 30 * 60 - 1, Some(false)),
        (monday + 7 * 3600 + 30 * 60 - 1, Some(true)),
        (monday + 7 * 3600 + 30 * 60, Some(false)),
        (monday + 86_400, Some(false)),
        (monday + 4 * 86_400, Some(true)),
        // Beyond what is known.
        (2_524_608_000, None),
        (0, None),
    ] {
        assert_eq!(holds_of(from, "", hours, &at(now)), expected, "{now}");
    }
    let night = "  schedule: {timeZone: UTC, windows: [{days: [Sun], from: \"22:00\", to: \"06:00\"}]}\n";
    let midnight = monday - 9 * 3600 - 30 * 60;
    for (now, expected) in [
        (midnight - 2 * 3600 - 1, Some(false)),
        (midnight - 2 * 3600, Some(true)),
        (midnight, Some(true)),
        (midnight + 6 * 3600 - 1, Some(true)),
        (midnight + 6 * 3600, Some(false)),
        (midnight + 86_400, Some(false)),
    ] {
        assert_eq!(holds_of(from, "", night, &at(now)), expected, "{now}");
    }
    let day = "  notBefore: 2026-11-23\n  notAfter: 2026-11-23\n";
    for (now, expected) in
        [(midnight - 1, false), (midnight, true), (midnight + 86_399, true), (midnight + 86_400, false)]
    {
        assert_eq!(holds_of(from, "", day, &at(now)), Some(expected), "{now}");
    }
    let moment = "  notAfter: 2026-11-23T10:30:00+01:00\n";
    assert_eq!(holds_of(from, "", moment, &at(monday - 1)), Some(true));
    assert_eq!(holds_of(from, "", moment, &at(monday)), Some(false));
}

#[test]
fn a_token_is_at_most_as_old_as_is_said() {
    let from =
        "  - anyMesh: true\n    tokens: [{issuer: gitlab, claims: {project_id: '4711'}, maxTokenAge: 10m}]";
    let allow = policy_of("Allow", from, "", "");
    let aged = |age: i64| {
        let mut sent = sent();
        sent.claims.insert("iat", ClaimValue::Integer(sent.now - age));
        sent
    };
    assert_eq!(reason(&allow, &aged(600)), Reason::AllowedBy);
    assert_eq!(reason(&allow, &aged(601)), Reason::NoAllowMatched);
    let mut sent = aged(0);
    for other in [ClaimValue::Absent, ClaimValue::Other, ClaimValue::Integer(i64::MAX)] {
        sent.claims.insert("iat", other);
        assert_eq!(reason(&allow, &sent), Reason::NoAllowMatched);
    }
    // In a Caller that a Deny names, the age narrows nothing.
    let caller = "kind: Caller\nmetadata: {name: c, namespace: sales}\nspec:\n  anyOf:\n  - anyMesh: true\n    tokens: \
                  [{issuer: gitlab, claims: {project_id: '4711'}, maxTokenAge: 10m}]\n---\n";
    let rules = |effect: &str| format!("{caller}{}", rule(effect, "  - caller: sales/c", ""));
    let deny = policy(&compiled(&rules("Deny")), "sales", "orders-api").clone();
    assert_eq!(reason(&deny, &aged(601)), Reason::DeniedBy);
    let allow = policy(&compiled(&rules("Allow")), "sales", "orders-api").clone();
    assert_eq!(reason(&allow, &aged(600)), Reason::AllowedBy);
    assert_eq!(reason(&allow, &aged(601)), Reason::NoAllowMatched);
}

#[test]
fn operations_have_headers_and_parameters() {
    let to = |fields: &str| format!("  - http: {{methods: [POST], {fields}}}");
    let holds = |fields: &str, sent: &Sent| holds_of("  - anyMesh: true", &to(fields), "", sent);
    for (fields, expected) in [
        ("headers: [{name: X-Env, exact: prod}]", true),
        ("headers: [{name: x-env, exact: dev}]", false),
        ("headers: [{name: x-env, prefix: pr}]", true),
        ("headers: [{name: x-env, glob: 'p*d'}]", true),
        ("headers: [{name: x-env, glob: 'p*x'}]", false),
        ("headers: [{name: x-env, present: true}]", true),
        ("headers: [{name: x-env, absent: true}]", false),
        ("headers: [{name: x-other, absent: true}]", true),
        ("headers: [{name: x-other, exact: a}]", false),
        ("query: [{name: alt, exact: json}, {name: name, exact: 'a b'}]", true),
        ("query: [{name: alt, exact: json}, {name: name, exact: 'b'}]", false),
        ("query: [{name: alt, prefix: j}]", true),
        ("query: [{name: upload, absent: true}]", true),
        ("headers: [{name: x-env, present: true}], query: [{name: alt, glob: 'js*'}]", true),
    ] {
        assert_eq!(holds(fields, &sent()), Some(expected), "{fields}");
    }
    let twice = Sent { headers: vec![("x-env", "prod"), ("x-env", "dev")], ..sent() };
    let repeated = Sent { target: "/?alt=json&a%6ct=media", ..sent() };
    for (fields, sent) in [
        ("headers: [{name: x-env, exact: prod}]", &twice),
        ("headers: [{name: x-env, absent: true}]", &twice),
        ("headers: [{name: x-env, present: true}]", &twice),
        ("query: [{name: alt, exact: media}]", &repeated),
        ("query: [{name: alt, absent: true}]", &repeated),
    ] {
        assert_eq!(holds(fields, sent), None, "{fields}");
    }
}

#[test]
fn a_condition_names_the_tenant_of_a_shared_issuer() {
    let entry = |when: &str| {
        format!("  - anyMesh: true\n    tokens: [{{issuer: gitlab, as: job}}]\n    when: ['{when}']")
    };
    let compiles = |when: &str| common::compile_rules(&rule("Allow", &entry(when), "")).output.is_some();
    assert!(compiles("job.project_id == \"4711\""));
    assert!(compiles("job.project_id in [\"4711\", \"4712\"] && job.ref_protected == \"true\""));
    assert!(!compiles("job.ref_protected == \"true\""));
    assert!(!compiles("job.project_id == \"4711\" || job.ref_protected == \"true\""));
    assert!(!compiles("job.project_id != \"4711\""));
    assert!(!compiles("job.project_id.startsWith(\"4\")"));
}

/// What an equality demands is still found by the index: a test of a claim, and nothing around it.
#[test]
fn equalities_are_tests_of_claims() {
    let model = policy_of("Allow", &entry("job.ref == \"main\""), "", "").model;
    let Condition::All(parts) = &model.rules[0].from[0].condition else { panic!("{model:?}") };
    assert!(parts.iter().all(|part| matches!(part, Condition::Claim(..))), "{parts:?}");
}

fn claim() -> impl Strategy<Value = ClaimValue> {
    prop_oneof![
        2 => Just(ClaimValue::Absent),
        1 => Just(ClaimValue::Unknown),
        1 => Just(ClaimValue::Other),
        1 => any::<bool>().prop_map(ClaimValue::Boolean),
        2 => (5i64..9).prop_map(ClaimValue::Integer),
        4 => prop::sample::select(&["main", "dev", "true", "4711", ""][..]).prop_map(text),
        1 => Just(ClaimValue::Strings(vec!["etl".to_owned()])),
    ]
}

/// Expressions by chance, of a few parts.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(
        &[
            "job.ref == \"main\"",
            "job.ref != \"main\"",
            "job.ref.startsWith(\"m\")",
            "job.ref.matches(\"^(main|dev)$\")",
            "size(job.ref) > 3",
            "has(job.ref)",
            "job.runner_id < 7",
            "job.runner_id == 7",
            "\"etl\" in job.groups_direct",
            "job[\"@fork\"]",
            "job.environment == peer.namespace",
            "job.environment == job.ref",
            "now < timestamp(job.runner_id)",
            "request.query[\"alt\"] == \"json\"",
            "\"x-env\" in request.headers",
        ][..],
    );
    leaf.prop_map(str::to_owned).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// "The Deny form holds wherever the Allow form does"; and an expression and its negation never both let pass.
    #[test]
    fn a_deny_catches_what_the_same_allow_lets_pass(
        when in expression(),
        values in prop::collection::vec(claim(), 5),
    ) {
        let names = ["ref", "runner_id", "groups_direct", "@fork", "environment"];
        let mut sent = sent();
        for (name, value) in names.into_iter().zip(values) {
            sent.claims.insert(name, value);
        }
        // Panics where an Allow matches and the Deny does not.
        let plain = holds(&when, &sent);
        let negated = holds(&format!("!({when})"), &sent);
        prop_assert!(!(plain == Some(true) && negated == Some(true)), "{}", when);
        prop_assert!(!(plain == Some(false) && negated == Some(false)), "{}", when);
    }
}
