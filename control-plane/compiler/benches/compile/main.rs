//! How long compilations take: `cargo bench -p tidegate-compiler [-- LAYOUT]`.
//!
//! No criterion: one compilation of 100 000 rules is a sample, and the best of a few is what the machine can do while
//! others use it.

mod estate;
mod memory;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use estate::Layout;
use tidegate_compiler::{Compilation, Compiled, Compiler, Inputs, SourceFile, compile, parse};

const LAYOUTS: [Layout; 4] = [
    Layout { name: "500-workloads", rules: 100_000, workloads: 500, rules_per_file: 200 },
    Layout { name: "large-files", rules: 100_000, workloads: 500, rules_per_file: 1000 },
    Layout { name: "file-per-rule", rules: 100_000, workloads: 500, rules_per_file: 1 },
    Layout { name: "one-workload", rules: 100_000, workloads: 1, rules_per_file: 200 },
];

/// Samples of each.
const RUNS: usize = 3;

/// Rules that are edited.
const EDITS: usize = 20;

fn main() {
    println!("allocator: {}", memory::NAME);
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

/// What something took: by the clock, and of all processors together. The latter says more where others use the machine.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Took {
    clock: Duration,
    processors: Duration,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9.1?} by the clock {:>9.1?} of processors", self.clock, self.processors)
    }
}

/// What this process has used of processors, in hundredths of a second; zero where that is not told.
fn used() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(10 * fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
}

fn measured<T>(run: impl FnOnce() -> T) -> (T, Took) {
    let (started, before) = (Instant::now(), used());
    let made = run();
    (made, Took { clock: started.elapsed(), processors: used().saturating_sub(before) })
}

fn best<T>(mut run: impl FnMut() -> T) -> Took {
    let runs = (0..RUNS).map(|_| {
        let (made, took) = measured(&mut run);
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
    println!("  parse and decode      {parsing}");
    println!("  all of it             {compiling}   {warnings} warnings");
    println!("  of that, encode       {encoding}   {} KiB", section / 1024);
    let kept = memory::bytes_of(|| {
        let mut compiler = Compiler::new();
        output(compiler.compile(&inputs(&files)));
        compiler
    });
    println!(
        "  kept for an edit      {:>6} MiB with the texts, {} B per rule without",
        kept >> 20,
        kept.saturating_sub(bytes) / layout.rules
    );
    edits(layout, files.clone());
    let expected = digest(&compiled);
    for seed in [1, 2] {
        let shuffled = shuffled(&files, seed);
        assert_eq!(digest(&output(compile(&inputs(&shuffled)))), expected, "the order of files counts");
    }
    println!("  digest                {expected:016x}, the same with files and documents in other orders");
}

/// One rule after another is edited; each time everything is compiled again.
fn edits(layout: Layout, mut files: Vec<SourceFile>) {
    let mut compiler = Compiler::new();
    output(compiler.compile(&inputs(&files)));
    let mut processors = Duration::ZERO;
    let mut all: Vec<Duration> = (0..EDITS)
        .map(|edit| {
            let rule = (edit + 1) * layout.rules / (EDITS + 2);
            let path = format!("/orders-{rule}/{{id}}");
            let file = files.iter_mut().find(|file| file.text.contains(&path)).expect("the rule is there");
            file.text = file.text.replace(&path, &format!("/orders-{rule}/edited/{{id}}"));
            let (compilation, took) = measured(|| compiler.compile(&inputs(&files)));
            output(compilation);
            processors += took.processors;
            took.clock
        })
        .collect();
    all.sort_unstable();
    let (best, middle) =
        (all.first().copied().unwrap_or_default(), all.get(EDITS / 2).copied().unwrap_or_default());
    println!(
        "  one rule edited       {best:>9.1?} by the clock, {middle:.1?} in the middle of {EDITS}; {:.1?} of processors on \
         the average",
        processors / u32::try_from(EDITS).unwrap_or(1)
    );
    let (kept, new) = (output(compiler.compile(&inputs(&files))), output(compile(&inputs(&files))));
    assert!(kept == new, "an edit gives something else than a new compilation");
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
