//! What a decision costs, natively, as rules grow: with peer, token, host, method, path template, claims, Deny and Shadow
//! rules. Run with `cargo bench -p tidegate-engine`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate_engine::model::*;
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Outcome, Peer, PolicySet, Request, TokenState, VerifiedToken,
    decide, encode, normal,
};

fn literal(text: &str) -> SegmentPattern {
    SegmentPattern::Literal(text.to_owned())
}

fn operation(method: &str, segments: Vec<SegmentPattern>) -> OperationModel {
    OperationModel {
        methods: Some(vec![method.to_owned()]),
        hosts: Some(vec![HostPattern::Exact("orders.example".into())]),
        paths: Some(vec![PathPattern { segments }]),
        ..OperationModel::default()
    }
}

fn rule(id: String, effect: Effect, mode: Mode, from: FromModel, to: OperationModel) -> RuleModel {
    RuleModel {
        id,
        effect,
        mode,
        owner: "team".into(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        lease: Lease::default(),
        from: vec![from],
        to: Some(vec![to]),
    }
}

/// Rule `i` allows account `worker-i` with a token of project `i` to GET `/svc-i/orders/{id}`; beside them a Deny and a
/// Shadow rule for every hundred, and always at least one of each.
fn policy(rules: usize) -> PolicyModel {
    let mesh = |account: String| PeerModel::Mesh {
        trust_domain: "prod.example".into(),
        namespace: "etl".into(),
        service_accounts: Some(vec![account]),
    };
    let claim =
        |slot, text: &str| Condition::Claim(ClaimRef { issuer: 0, slot }, Test::OneOf(vec![text.into()]));
    let mut all: Vec<RuleModel> = (0..rules)
        .map(|i| {
            let condition = Condition::All(vec![claim(0, &i.to_string()), claim(1, "true")]);
            let from = FromModel { peer: mesh(format!("worker-{i}")), issuers: vec![0], condition };
            let path = vec![literal(&format!("svc-{i}")), literal("orders"), SegmentPattern::One];
            rule(format!("sales/rule-{i:06}"), Effect::Allow, Mode::Enforce, from, operation("GET", path))
        })
        .collect();
    for i in 0..(rules / 100).max(1) {
        let from = || FromModel {
            peer: PeerModel::AnyMesh { trust_domain: "prod.example".into() },
            issuers: vec![],
            condition: Condition::True,
        };
        let path = |name: &str| vec![literal(name), literal(&format!("area-{i}")), SegmentPattern::Rest];
        all.push(rule(
            format!("sales/deny-{i:06}"),
            Effect::Deny,
            Mode::Enforce,
            from(),
            operation("GET", path("admin")),
        ));
        all.push(rule(
            format!("sales/shadow-{i:06}"),
            Effect::Allow,
            Mode::Shadow,
            from(),
            operation("GET", path("next")),
        ));
    }
    PolicyModel {
        issuers: vec![IssuerModel {
            name: "gitlab".into(),
            slots: vec![vec!["project_id".into()], vec!["ref_protected".into()]],
        }],
        guards: vec![GuardModel {
            id: "sales/g".into(),
            mode: Mode::Enforce,
            ports: None,
            audiences: Some(vec!["https://orders.example".into()]),
        }],
        directories: vec![],
        rules: all,
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(50);
    for rules in [10usize, 1_000, 10_000, 100_000] {
        let encoded = encode(&policy(rules)).expect("the policy encodes");
        let set = PolicySet::decode(&encoded).expect("the policy decodes");
        println!(
            "{rules} rules: section {} bytes, {:.1} per rule",
            encoded.len(),
            encoded.len() as f64 / rules as f64
        );
        for (name, at, expected) in
            [("allowed", rules - 1, Outcome::Allow), ("refused", rules, Outcome::Deny)]
        {
            let (account, target) = (format!("worker-{at}"), format!("/svc-{at}/orders/123"));
            let token = VerifiedToken {
                audiences: vec!["https://orders.example".into()],
                expires_at: 2_000,
                slots: vec![ClaimValue::String(at.to_string()), ClaimValue::String("true".into())],
            };
            let tokens = [TokenState::Verified(&token)];
            let directories = Directories::default();
            group.bench_function(BenchmarkId::new(name, rules), |bencher| {
                bencher.iter(|| {
                    let path = normal::path(black_box(target.as_bytes()));
                    let host = normal::host(black_box(b"orders.example"));
                    let decision = decide(
                        black_box(&set),
                        &Request {
                            now: 1_000,
                            expiry_grace_s: 0,
                            port: 8080,
                            method: b"GET",
                            host: host.as_deref(),
                            path: &path,
                            query: &[],
                            headers: HeaderFacts::default(),
                            fields: &[],
                            peer: Peer::Mesh {
                                trust_domain: "prod.example",
                                namespace: "etl",
                                service_account: &account,
                            },
                            tokens: &tokens,
                            directories: &directories,
                        },
                    );
                    assert_eq!(decision.outcome, expected);
                    decision
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
