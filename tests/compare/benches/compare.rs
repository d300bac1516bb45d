//! What a decision costs, beside other policy engines. Run with `cargo bench` in this folder.
//!
//! Before anything is measured, every engine has to answer a set of allowed and refused requests as the rules say. What is
//! measured is one decision, the making of the request included, half of them allowed. The table at the end has the best
//! of all samples; the ratios are what counts, since they do not depend on the machine.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate_compare::{Casbin, Cedar, Made, Rego, Tidegate, requests};

/// An engine that took longer than this to take its rules, or for a decision, is not asked for ten times as many.
const LONGEST_LOAD: Duration = Duration::from_secs(10);
const LONGEST_DECISION: Duration = Duration::from_millis(10);

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];

/// A line of the table: an engine, and what it took at each size.
struct Line {
    name: &'static str,
    make: fn(usize) -> Made,
    best: Vec<Option<Duration>>,
}

fn bench(criterion: &mut Criterion) {
    let line = |name, make| Line { name, make, best: Vec::new() };
    let mut lines = [
        line("tidegate", Tidegate::new as fn(usize) -> Made),
        line("cedar-policy", Cedar::new),
        line("regorus, linear", Rego::linear),
        line("regorus, indexed", Rego::indexed),
        line("casbin", Casbin::new),
    ];
    let mut group = criterion.benchmark_group("decide");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let mut left_out = [false; 5];
    for rules in SIZES {
        let requests = requests(rules);
        for (line, left_out) in lines.iter_mut().zip(&mut left_out) {
            if *left_out {
                println!("{} at {rules} rules: left out, it would take minutes", line.name);
                line.best.push(None);
                continue;
            }
            let started = Instant::now();
            let mut engine = (line.make)(rules).expect("the engine takes the rules");
            let loaded = started.elapsed();
            assert_eq!(engine.name(), line.name);
            let started = Instant::now();
            for asked in &requests {
                assert_eq!(engine.allows(asked), asked.allowed, "{}: {asked:?}", line.name);
            }
            let decided = started.elapsed() / u32::try_from(requests.len()).unwrap_or(1);
            println!("{} at {rules} rules: loaded in {loaded:.1?}, answers as the rules say", line.name);
            *left_out = loaded > LONGEST_LOAD || decided > LONGEST_DECISION;
            let best = Cell::new(Duration::MAX);
            let mut next = requests.iter().cycle();
            group.bench_function(BenchmarkId::new(line.name, rules), |bencher| {
                bencher.iter_custom(|times| {
                    // Whole rounds of requests, so that every sample has the same mixture.
                    let rounds = times.div_ceil(requests.len() as u64);
                    let decisions = rounds * requests.len() as u64;
                    let started = Instant::now();
                    for _ in 0..decisions {
                        let asked = next.next().expect("a cycle has no end");
                        black_box(engine.allows(black_box(asked)));
                    }
                    let one = started.elapsed().div_f64(decisions as f64);
                    best.set(best.get().min(one));
                    one.mul_f64(times as f64)
                })
            });
            line.best.push(Some(best.get()));
        }
    }
    group.finish();
    print_table(&lines);
}

fn print_table(lines: &[Line]) {
    println!("\nbest of all samples, and how many times as long as tidegate:\n");
    println!("{:<18}{}", "", SIZES.map(|rules| format!("{rules:>26}")).concat());
    for line in lines {
        let ours = lines.first().map(|ours| &ours.best);
        let cells = line.best.iter().enumerate().map(|(at, best)| {
            let ours = ours.and_then(|ours| ours.get(at).copied().flatten());
            match (best, ours) {
                (Some(best), Some(ours)) => {
                    let ratio = best.as_secs_f64() / ours.as_secs_f64();
                    format!("{:>14}{:>12}", format!("{best:.1?}"), format!("{ratio:.0} x"))
                }
                _ => format!("{:>26}", "left out"),
            }
        });
        println!("{:<18}{}", line.name, cells.collect::<String>());
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
