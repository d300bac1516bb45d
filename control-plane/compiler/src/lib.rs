//! The compiler: rules as people write them to what each workload enforces, or to diagnostics that say what to change.
//!
//! The way of a rule: files become trees that know their places, trees become plain types
//! ([`spec`]), types are checked against the mesh, the issuers and their claim packs, and every workload gets the rules that
//! target it in the engine's form.
//!
//! INVARIANT: pure. No I/O, no clock, no network: keys are described, not fetched.
//!
//! INVARIANT: nothing is ever dropped. *Absent* (no constraint), *empty* (refused) and *unsupported* (refused) are three
//! things. [`Compilation::output`] is there only if there is no error at all, so that a broken piece can neither widen a
//! rule nor make a Deny disappear.
//!
//! INVARIANT: deterministic. The order of files, documents and map entries never changes the output.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions
)]

use std::collections::BTreeMap;
use std::sync::Arc;

mod audit;
mod bind;
mod callers;
pub mod catalogue;
mod claim_path;
mod compiler;
mod context;
mod demand;
mod diagnostic;
pub mod diff;
mod directory;
mod entries;
mod environment;
pub mod explain;
pub mod fence;
mod issuers;
mod labels;
mod launch;
mod mesh;
mod moved;
mod objects;
mod operation;
mod parallel;
mod place;
mod plan;
mod resources;
pub mod revocation;
mod rollout;
mod rules;
mod ruletest;
mod schedule;
pub mod schema;
pub mod spec;
mod suggest;
mod syntax;
mod tally;
mod text;
mod tokens;
pub mod tree;
mod warnings;
mod when;
mod yaml;

pub use compiler::Compiler;
pub use diagnostic::{Code, Diagnostic, Related, Severity};
pub use directory::{DirectoryQuery, InvalidDirectoryName, TektonKind};
pub use issuers::{KeySource, TrustedIssuer};
pub use labels::LabelIndex;
pub use mesh::{Mesh, Workload, WorkloadId, is_system_namespace};
pub use place::{Kind, ObjectId};
pub use plan::WorkloadPolicy;
pub use rollout::{AbortOn, Canary, Rollout, Share};
pub use ruletest::{Expectation, RuleTest, RuleTests, check as check_tests, rule_object, split_url};
pub use syntax::moment;

use place::Findings;

/// A file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// As diagnostics should name it.
    pub path: String,
    /// One or more YAML documents.
    pub text: String,
}

/// Everything that is compiled together.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// All files; their order does not matter.
    pub sources: &'a [SourceFile],
    /// Values for `${env.name}`.
    pub env: BTreeMap<String, String>,
    /// Unix seconds, for warnings of what comes to an end; `None`: there are none. Never changes the output.
    pub now: Option<i64>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Compilation {
    /// Errors and warnings, ordered by place.
    pub diagnostics: Vec<Diagnostic>,
    /// There if and only if no diagnostic is an error.
    pub output: Option<Compiled>,
}

/// The whole mesh's policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// What was compiled for.
    pub mesh: Mesh,
    /// All declared issuers, by name.
    pub issuers: Vec<TrustedIssuer>,
    /// One policy per workload of the mesh.
    pub workloads: BTreeMap<WorkloadId, Arc<WorkloadPolicy>>,
}

/// What files contain, before anything but their shape is checked.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Objects that are well formed, sorted.
    pub objects: Vec<ObjectId>,
    /// What is wrong with the shape of the others.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads files and checks their shape only: YAML, fields and types.
pub fn parse(inputs: &Inputs<'_>) -> Parsed {
    let mut findings = Findings::default();
    let objects = objects::read(inputs.sources, &inputs.env, &mut findings);
    Parsed { objects: objects.ids(), diagnostics: findings.into_sorted() }
}

/// Compiles rules. Never fails: whatever is wrong is a diagnostic.
pub fn compile(inputs: &Inputs<'_>) -> Compilation {
    let mut compiler = Compiler::new();
    let compilation = compiler.compile(inputs);
    compiler.discard();
    compilation
}

fn without_place(code: Code, message: &str, why: &str, fix: &str) -> Diagnostic {
    Diagnostic {
        file: String::new(),
        line: 0,
        column: 0,
        code,
        severity: code.severity(),
        object: None,
        field: String::new(),
        message: message.to_owned(),
        why: why.to_owned(),
        fix: fix.to_owned(),
        related: Vec::new(),
    }
}
