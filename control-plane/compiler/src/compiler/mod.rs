//! Compilation, whole and again after a change: what did not change is not read, checked or encoded again.
//!
//! There is one way through the compiler. A first compilation is one of which everything is new.
//!
//! INVARIANT: what [`Compiler::compile`] gives depends on its inputs alone, never on what was compiled before: a rule that
//! stayed in force because something was not looked at again would be a hole. So nothing is kept under less than all that it
//! was made of, and that is compared as a whole, not by digests:
//!
//! - what a piece of a file says ([`file`]): its path, its text, where it begins, and the environment;
//! - what was checked of its Guards and rules: the same, and the values of the mesh, of all issuers and of all Callers
//!   ([`base`]); where a reference leads nowhere, also which objects are there and broken;
//! - a workload's policy ([`workloads`]): all Guards and rules that reach it (the same in memory, or equal in all but their
//!   places), and the same base.

mod base;
mod file;
mod files;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::Base;
use file::{File, Known, Reading, Text};
use files::Files;
use workloads::Workloads;

use crate::diagnostic::Code;
use crate::parallel;
use crate::place::Findings;
use crate::when::Cache;
use crate::{Compilation, Compiled, Inputs, without_place};

/// Compiles the same rules again and again as they change.
///
/// Keeps the texts of all files and what was made of them.
#[derive(Debug, Default)]
pub struct Compiler {
    env: BTreeMap<String, String>,
    cache: Cache,
    files: Files,
    base: Base,
    workloads: Workloads,
}

// === impl Compiler ===

impl Compiler {
    /// One that has compiled nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compiles rules. Never fails: whatever is wrong is a diagnostic. Gives exactly what [`crate::compile`] gives.
    pub fn compile(&mut self, inputs: &Inputs<'_>) -> Compilation {
        let sources = inputs.sources.iter().map(|source| (source.path.as_str(), source.text.as_str()));
        self.compile_texts(sources, &inputs.env, inputs.now)
    }

    /// The same, of paths and texts wherever they are.
    pub fn compile_texts<'s>(
        &mut self,
        sources: impl IntoIterator<Item = (&'s str, &'s str)>,
        env: &BTreeMap<String, String>,
        now: Option<i64>,
    ) -> Compilation {
        if self.env != *env {
            *self = Self { env: env.clone(), ..Self::default() };
        }
        let mut findings = Findings::default();
        self.update(&sources.into_iter().collect::<Vec<_>>(), now);
        self.files.tell(now, &mut findings);
        self.base.tell(&mut findings);
        let output = if findings.errors() == 0 { self.plan(&mut findings) } else { None };
        let output = output.filter(|_| findings.errors() == 0);
        if output.is_none() && findings.errors() == 0 {
            findings.push(without_place(
                Code::Unfinished,
                "the rules could not be compiled, and no reason was found",
                "this is a defect of the compiler",
                "report it with the rules",
            ));
        }
        self.files.forget_trees();
        Compilation { diagnostics: findings.into_sorted(), output }
    }

    /// Gives up everything, on all processors: where there is much, dropping it on one takes a while.
    pub fn discard(self) {
        let Self { files, base, workloads, .. } = self;
        drop((base, workloads));
        files.discard();
    }

    /// Reads and checks what is new or has changed, and what rests on something that has.
    fn update(&mut self, sources: &[Text<'_>], now: Option<i64>) {
        let (new, gone) = self.files.compare(sources);
        let env = &self.env;
        let before = before(&gone, &new);
        let mut readings =
            parallel::map(&new, |source| Reading::new(*source, before.get(source.0).copied(), env));
        drop(before);
        let kept: BTreeSet<*const File> = readings.iter().flat_map(Reading::kept).map(Arc::as_ptr).collect();
        let gone: Vec<Arc<File>> = gone
            .iter()
            .flat_map(Known::files)
            .filter(|file| !kept.contains(&Arc::as_ptr(file)))
            .cloned()
            .collect();
        self.forget(gone);
        let objects = self.files.base().chain(readings.iter().flat_map(Reading::objects));
        let unchanged = self.base.update(objects, now, &self.cache);
        if !unchanged.values {
            self.workloads.forget_plans();
        }
        // What was made of a piece is given up as a whole, and the piece is read again.
        readings.extend(self.files.take_stale(unchanged));
        self.forget(readings.iter().flat_map(|file| file.stale(unchanged)).cloned().collect());
        let context = self.base.context(&self.cache);
        let env = &self.env;
        let checked = parallel::map_owned(readings, |file| file.read_stale(unchanged, env).check(&context));
        let (files, new): (Vec<Known>, Vec<Vec<Arc<File>>>) = checked.into_iter().flatten().unzip();
        let new: Vec<Arc<File>> = new.into_iter().flatten().collect();
        self.workloads.add(&new);
        self.files.remember(&new);
        self.files.add(files);
    }

    /// These pieces do not count any more.
    fn forget(&mut self, gone: Vec<Arc<File>>) {
        self.workloads.remove(&gone);
        self.files.forget(&gone);
    }

    /// Makes the policies. Only where there are no errors.
    fn plan(&mut self, findings: &mut Findings) -> Option<Compiled> {
        if !self.files.is_whole() {
            return None;
        }
        let (mesh, issuers) = (self.base.mesh()?, self.base.issuers());
        let (workloads, covered) = self.workloads.plan(mesh, issuers, self.files.guards(), findings);
        self.files.tell_late(covered, findings);
        let issuers = issuers.values().cloned().collect::<Option<Vec<_>>>()?;
        Some(Compiled { mesh: mesh.clone(), issuers, workloads: workloads? })
    }
}

/// By path the file that is there no more and that one new one goes on from: no piece is kept for two.
fn before<'k>(gone: &'k [Known], new: &[Text<'_>]) -> BTreeMap<&'k str, &'k Known> {
    let alone = gone.chunk_by(|a, b| a.path == b.path).filter_map(|same| match same {
        [one] => Some((&*one.path, one)),
        _ => None,
    });
    let mut before: BTreeMap<&str, &Known> = alone.collect();
    for [(first, _), (second, _)] in new.array_windows::<2>() {
        if first == second {
            before.remove::<str>(first);
        }
    }
    before
}
