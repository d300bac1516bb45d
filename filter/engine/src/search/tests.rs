//! However many rules there are, a request meets few of them.

use super::*;
use crate::directory::Directories;
use crate::encode::encode;
use crate::model::*;
use crate::normal;
use crate::request::{HeaderFacts, VerifiedToken};

const RULES: usize = 1_000;

fn literal(text: &str) -> SegmentPattern {
    SegmentPattern::Literal(text.to_owned())
}

fn anyone() -> FromModel {
    FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }
}

fn account(at: usize) -> FromModel {
    let peer = PeerModel::Mesh {
        trust_domain: "prod.example".into(),
        namespace: "etl".into(),
        service_accounts: Some(vec![format!("worker-{at}")]),
    };
    FromModel { peer, ..anyone() }
}

fn claim(slot: u16, test: Test) -> FromModel {
    let condition = Condition::All(vec![
        Condition::Claim(ClaimRef { issuer: 0, slot: 0 }, Test::OneOf(vec!["prod".into()])),
        Condition::Claim(ClaimRef { issuer: 0, slot }, test),
    ]);
    FromModel { issuers: vec![0], condition, ..anyone() }
}

fn path(segments: Vec<SegmentPattern>) -> OperationModel {
    OperationModel { paths: Some(vec![PathPattern { segments }]), ..OperationModel::default() }
}

fn policy(effect: Effect, rule: impl Fn(usize) -> (FromModel, OperationModel)) -> PolicySet {
    let rules = (0..RULES).map(|at| {
        let (from, to) = rule(at);
        RuleModel {
            id: format!("sales/rule-{at}"),
            effect,
            mode: Mode::Enforce,
            owner: String::new(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![from],
            to: Some(vec![to]),
        }
    });
    let slots = vec![vec!["x".into()], vec!["y".into()]];
    let model = PolicyModel {
        issuers: vec![IssuerModel { name: "a".into(), slots }],
        rules: rules.map(Into::into).collect(),
        ..PolicyModel::default()
    };
    PolicySet::decode(&encode(&model).unwrap()).unwrap()
}

/// How many candidates a request of `worker-77` has, with this path and host and this value of the second claim.
fn candidates(policy: &PolicySet, target: &str, host: &str, value: ClaimValue) -> usize {
    let path = normal::path(target.as_bytes());
    let slots = vec![ClaimValue::String("prod".into()), value];
    let token = VerifiedToken { audiences: vec![], expires_at: 2000, slots };
    let tokens = [TokenState::Verified(&token)];
    let directories = Directories::default();
    let request = Request {
        now: 1000,
        expiry_grace_s: 0,
        port: 8080,
        method: b"GET",
        host: Some(host),
        path: &path,
        query: &[],
        headers: HeaderFacts::default(),
        fields: &[],
        body: crate::request::Body::Unread,
        peer: Peer::Mesh { trust_domain: "prod.example", namespace: "etl", service_account: "worker-77" },
        tokens: &tokens,
        directories: &directories,
    };
    let mut count = 0;
    Search::new(policy, &request, Listing::Lenient).each_candidate(|_| count += 1);
    count
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn rules_that_differ_in_one_thing_are_told_apart_by_it() {
    let same_path = || path(vec![literal("v1"), literal("orders"), SegmentPattern::One]);
    let host = |host: HostPattern| OperationModel { hosts: Some(vec![host]), ..same_path() };
    let text = |at: usize| Test::OneOf(vec![format!("v{at}")]);
    let (target, sent_host) = ("/v1/orders/7", "orders.example");
    let nothing = || ClaimValue::Absent;
    let some = || ClaimValue::String("v77".into());
    let list = || ClaimValue::Strings(vec!["v77".into(), "other".into()]);
    let (allow, deny) = (Effect::Allow, Effect::Deny);
    type Case<'t> = (&'static str, PolicySet, &'t str, &'t str, ClaimValue);
    let cases: [Case<'_>; 14] = [
        ("accounts", policy(allow, |at| (account(at), same_path())), target, sent_host, nothing()),
        ("accounts, denied", policy(deny, |at| (account(at), same_path())), target, sent_host, nothing()),
        (
            "first segments",
            policy(allow, |at| (account(77), path(vec![literal(&format!("s{at}")), SegmentPattern::Rest]))),
            "/s77/x",
            sent_host,
            nothing(),
        ),
        (
            "segments behind a placeholder",
            policy(allow, |at| (account(77), path(vec![SegmentPattern::One, literal(&format!("s{at}"))]))),
            "/anything/s77",
            sent_host,
            nothing(),
        ),
        (
            "beginnings of segments",
            policy(allow, |at| {
                (anyone(), path(vec![SegmentPattern::Glob(format!("team-{at}-*")), SegmentPattern::Rest]))
            }),
            "/team-77-blue/x",
            sent_host,
            nothing(),
        ),
        (
            "hosts",
            policy(allow, |at| (anyone(), host(HostPattern::Exact(format!("h{at}.example"))))),
            target,
            "h77.example",
            nothing(),
        ),
        (
            "suffixes of hosts",
            policy(deny, |at| (anyone(), host(HostPattern::Suffix(format!(".h{at}.example"))))),
            target,
            "a.b.h77.example",
            nothing(),
        ),
        ("texts", policy(allow, |at| (claim(1, text(at)), same_path())), target, sent_host, some()),
        ("texts, denied", policy(deny, |at| (claim(1, text(at)), same_path())), target, sent_host, some()),
        (
            "texts, denied, without the claim",
            policy(deny, |at| (claim(1, text(at)), same_path())),
            target,
            sent_host,
            nothing(),
        ),
        (
            "one of several texts",
            policy(allow, |at| {
                let values = vec![format!("v{at}"), format!("w{at}")];
                (claim(1, Test::OneOf(values)), same_path())
            }),
            target,
            sent_host,
            some(),
        ),
        (
            "numbers",
            policy(deny, |at| (claim(1, Test::Integer(i64::try_from(at).unwrap())), same_path())),
            target,
            sent_host,
            ClaimValue::Integer(77),
        ),
        (
            "items of a list",
            policy(deny, |at| (claim(1, Test::Contains(format!("v{at}"))), same_path())),
            target,
            sent_host,
            list(),
        ),
        // Nobody shares both; a hundred share either.
        (
            "accounts and segments",
            policy(allow, |at| {
                (account(at % 100), path(vec![literal(&format!("s{}", at / 100)), SegmentPattern::One]))
            }),
            "/s7/x",
            sent_host,
            nothing(),
        ),
    ];
    for (name, policy, target, host, value) in cases {
        let count = candidates(&policy, target, host, value);
        // The tags of an entry's neighbours may be the same.
        assert!(count <= 6, "{name}: {count} candidates");
        assert_eq!(count > 0, !name.contains("without"), "{name}: {count} candidates");
    }
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn where_a_claim_cannot_be_told_every_deny_that_demands_it_is_looked_at() {
    let policy = policy(Effect::Deny, |at| {
        (claim(1, Test::OneOf(vec![format!("v{at}")])), path(vec![literal("v1"), SegmentPattern::Rest]))
    });
    for value in [ClaimValue::Unknown, ClaimValue::Integer(7), ClaimValue::Strings(vec![])] {
        assert!(candidates(&policy, "/v1/x", "orders.example", value) >= RULES);
    }
}

#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn lists_are_told_apart_item_by_item_and_long_ones_by_what_their_items_share() {
    let accounts = |namespace: String, first: usize, count: usize| FromModel {
        peer: PeerModel::Mesh {
            trust_domain: "prod.example".into(),
            namespace,
            service_accounts: Some((0..count).map(|account| format!("worker-{}", first + account)).collect()),
        },
        ..anyone()
    };
    let paths = |start: &str, first: usize, count: usize| OperationModel {
        paths: Some(
            (first..first + count)
                .map(|path| PathPattern { segments: vec![literal(start), literal(&format!("s{path}"))] })
                .collect(),
        ),
        ..OperationModel::default()
    };
    let any_path = || path(vec![SegmentPattern::Rest]);
    let etl = || "etl".to_owned();
    let cases = [
        ("accounts", policy(Effect::Allow, |at| (accounts(etl(), at * 50, 50), any_path())), "/x"),
        ("paths", policy(Effect::Allow, |at| (anyone(), paths("v1", at * 50, 50))), "/v1/s77"),
        (
            "namespaces",
            policy(Effect::Allow, |at| {
                let namespace = if at == 7 { etl() } else { format!("n{at}") };
                (accounts(namespace, 0, 100), any_path())
            }),
            "/x",
        ),
        (
            "first segments",
            policy(Effect::Deny, |at| (anyone(), paths(&format!("v{at}"), 0, 100))),
            "/v1/s77",
        ),
        (
            "accounts, and long lists of paths",
            policy(Effect::Deny, |at| (accounts(etl(), at * 50, 50), paths("v1", 0, 100))),
            "/v1/s77",
        ),
    ];
    for (name, policy, target) in cases {
        let count = candidates(&policy, target, "orders.example", ClaimValue::Absent);
        assert!((1..=6).contains(&count), "{name}: {count} candidates");
    }
}

/// A rule of many froms or operations is not a candidate for everybody, and each of its parts is checked by itself.
#[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
#[test]
fn rules_of_many_parts_are_told_apart_by_their_longer_side() {
    let rule = |id: usize, from: Vec<FromModel>, to: Option<Vec<OperationModel>>| RuleModel {
        id: format!("sales/rule-{id}"),
        effect: Effect::Allow,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        audit: Default::default(),
        lease: Lease::default(),
        revokes: false,
        from,
        to,
    };
    let segment = |at: usize| path(vec![literal(&format!("s{at}"))]);
    let of = |id: usize, froms: usize, to: usize| {
        let first = id * 1000;
        let to = (to > 0).then(|| (0..to).map(|at| segment(first + at)).collect());
        rule(id, (0..froms).map(|at| account(first + at)).collect(), to)
    };
    let rules = (0..20)
        .flat_map(|at| [of(3 * at, 300, 0), of(3 * at + 1, 300, 2), of(3 * at + 2, 2, 300)])
        .map(Into::into)
        .collect();
    let policy =
        PolicySet::decode(&encode(&PolicyModel { rules, ..PolicyModel::default() }).unwrap()).unwrap();
    let count = candidates(&policy, "/s2001", "orders.example", ClaimValue::Absent);
    assert!((1..=6).contains(&count), "{count} candidates");
}
