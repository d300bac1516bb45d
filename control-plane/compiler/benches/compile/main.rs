//! How long compilations take: `cargo bench -p tidegate-compiler [-- LAYOUT]`.
//!
//! No criterion: one compilation of 100 000 rules is a sample, and the best of a few is what the machine can do while
//! others use it.

mod estate;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use estate::Layout;
use tidegate_compiler::{Compilation, Compiled, Inputs, SourceFile, compile, parse};

const LAYOUTS: [Layout; 4] = [
    Layout { name: "500-workloads", rules: 100_000, workloads: 500, rules_per_file: 200 },
    Layout { name: "large-files", rules: 100_000, workloads: 500, rules_per_file: 1000 },
    Layout { name: "file-per-rule", rules: 100_000, workloads: 500, rules_per_file: 1 },
    Layout { name: "one-workload", rules: 100_000, workloads: 1, rules_per_file: 200 },
];

/// Samples of each.
const RUNS: usize = 3;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for layout in LAYOUTS {
        if wanted.is_empty() || wanted.iter().any(|name| name == layout.name) {
            measure(layout);
        }
    }
}

fn inputs(sources: &[SourceFile]) -> Inputs<'_> {
    Inputs { sources, env: BTreeMap::new(), now: Some(1_795_000_000) }
}

fn best<T>(mut run: impl FnMut() -> T) -> Duration {
    let runs = (0..RUNS).map(|_| {
        let started = Instant::now();
        let made = run();
        let took = started.elapsed();
        drop(made);
        took
    });
    runs.min().unwrap_or_default()
}

fn digest(compiled: &Compiled) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (id, policy) in &compiled.workloads {
        (id, &policy.rules, &policy.issuers).hash(&mut hasher);
    }
    hasher.finish()
}

fn output(compilation: Compilation) -> Compiled {
    for found in compilation.diagnostics.iter().filter(|found| found.is_error()).take(3) {
        eprintln!("{found}");
    }
    compilation.output.expect("the estate compiles")
}

fn measure(layout: Layout) {
    let files = layout.files();
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    println!(
        "{}: {} rules, {} workloads, {} files, {} KiB",
        layout.name,
        layout.rules,
        layout.workloads,
        files.len(),
        bytes / 1024
    );
    let parsing = best(|| parse(&inputs(&files)));
    let compiling = best(|| compile(&inputs(&files)));
    let compilation = compile(&inputs(&files));
    let warnings = compilation.diagnostics.len();
    let compiled = output(compilation);
    let encoding = best(|| {
        compiled.workloads.values().map(|policy| tidegate_engine::encode(&policy.model)).collect::<Vec<_>>()
    });
    let section: usize = compiled.workloads.values().map(|policy| policy.rules.len()).sum();
    println!("  parse and decode      {parsing:>10.1?}");
    println!("  all of it             {compiling:>10.1?}   {warnings} warnings");
    println!("  of that, encode       {encoding:>10.1?}   {} KiB", section / 1024);
    let expected = digest(&compiled);
    for seed in [1, 2] {
        let shuffled = shuffled(&files, seed);
        assert_eq!(digest(&output(compile(&inputs(&shuffled)))), expected, "the order of files counts");
    }
    println!("  digest                {expected:016x}, the same with files and documents in other orders");
}

/// The same documents in another order, in other files.
fn shuffled(files: &[SourceFile], seed: usize) -> Vec<SourceFile> {
    let mut documents: Vec<&str> = files.iter().flat_map(|file| file.text.split("---\n")).collect();
    documents.retain(|document| !document.is_empty());
    documents.sort_by_key(|document| {
        let mut hasher = DefaultHasher::new();
        (seed, document).hash(&mut hasher);
        hasher.finish()
    });
    let chunks = documents.chunks(100 + seed).enumerate();
    chunks
        .map(|(at, documents)| SourceFile { path: format!("{at}.yaml"), text: documents.join("---\n") })
        .collect()
}
