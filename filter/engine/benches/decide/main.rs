//! What a decision costs, natively, as rules grow: with peer, token, host, method, path template, claims, Deny and Shadow
//! rules, and for policies whose rules differ in one thing only. Run with `cargo bench -p tidegate-engine`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate_engine::{Directories, Outcome, PolicySet, encode};

mod shapes;

use shapes::{SHAPES, decided, spread};

fn bench(criterion: &mut Criterion) {
    let directories = Directories::default();
    for shape in &SHAPES {
        let mut group = criterion.benchmark_group(shape.name);
        group
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(1))
            .sample_size(30);
        for rules in [10usize, 1_000, 10_000, 100_000] {
            let encoded = encode(&(shape.policy)(rules)).expect("the policy encodes");
            let set = PolicySet::decode(&encoded).expect("the policy decodes");
            let per_rule = |bytes: usize| bytes as f64 / rules as f64;
            let strings = set.string_bytes();
            println!(
                "{}, {rules} rules: {} bytes, {:.1} a rule; {:.1} of these are strings",
                shape.name,
                encoded.len(),
                per_rule(encoded.len()),
                per_rule(strings),
            );
            let all = spread(shape, rules);
            // One request again and again, requests of all rules, and requests that no rule is for.
            group.bench_function(BenchmarkId::new("same", rules), |bencher| {
                bencher.iter(|| decided(black_box(&set), black_box(&all[0]), &directories))
            });
            let mut next = all.iter().cycle();
            group.bench_function(BenchmarkId::new("any", rules), |bencher| {
                bencher.iter(|| {
                    let decision = decided(black_box(&set), next.next().expect("a cycle"), &directories);
                    assert_eq!(decision.outcome, shape.expected);
                    decision
                })
            });
            if shape.expected == Outcome::Allow {
                let other = (shape.sent)(rules + 20);
                group.bench_function(BenchmarkId::new("refused", rules), |bencher| {
                    bencher.iter(|| {
                        let decision = decided(black_box(&set), black_box(&other), &directories);
                        assert_eq!(decision.outcome, Outcome::Deny);
                        decision
                    })
                });
            }
            if rules == 100_000 {
                group.bench_function(BenchmarkId::new("decode", rules), |bencher| {
                    bencher.iter(|| PolicySet::decode(black_box(&encoded)))
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
