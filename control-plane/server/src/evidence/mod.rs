//! Evidence for auditors: what was decided, by which rules, who could do what, and what is missing, as files that nobody
//! can change without its being found.
//!
//! An export is a folder of tables. Every line goes into a chain of hashes (`seal`); the chain's end and each file's
//! digest are in `manifest.json`, and that is signed with the key that signs Bundles, as evidence.
//!
//! INVARIANT: what is missing is said: gaps, samples, times that are not kept, and what this control plane cannot know.
//! The same inputs make the same bytes, but for the signature. No cell is a formula.

mod controls;
mod decided;
mod seal;
mod standing;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tidegate_compiler::Compiled;

use crate::control::{ControlReport, RuleSet};
use crate::decisions::csv;
use crate::decisions::record::{Entry, Moment, RuleSource};
use crate::push::FleetReport;
use crate::uses::UnusedReport;

pub use seal::{CHAIN, FileSeal, MANIFEST, Manifest, SIGNATURE, SignatureFile, Verified, Writer, verify};

/// Longest time that one export is about, in microseconds: 400 days.
pub const MAX_TIME_US: i64 = 400 * 86_400 * 1_000_000;
/// Gaps are noticed after what is missing was decided: those of so long after are told as well, in microseconds.
pub const NOTICED_US: i64 = 86_400 * 1_000_000;

/// Where an export goes.
pub trait Sink {
    /// A file begins, and the one before has ended.
    ///
    /// # Errors
    /// When it cannot be written.
    fn open(&mut self, name: &str) -> io::Result<()>;

    /// A part of the file.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&mut self, text: &str) -> io::Result<()>;
}

/// What an export is made of.
#[derive(Debug)]
pub struct Inputs {
    /// Decided then or later.
    pub from: Moment,
    /// Decided before then.
    pub to: Moment,
    /// When it is made.
    pub made: Moment,
    /// Rules that are on offer, if any are.
    pub(crate) rules: Option<Rules>,
    /// What people have done to what is in force.
    pub control: ControlReport,
    /// Digests of the files of each rule set that is kept, by its number and their name.
    pub files: BTreeMap<u64, BTreeMap<String, String>>,
    /// Which grants were used since `from`.
    pub uses: UnusedReport,
    /// Where rules are written.
    pub sources: BTreeMap<String, Arc<RuleSource>>,
    /// Who enforces what.
    pub fleet: FleetReport,
    /// Pods without a proxy, by workload; `None`: this control plane does not see pods.
    pub bypassed: Option<BTreeMap<String, Vec<String>>>,
    /// The store of decisions; `None`: they are not kept.
    pub store: Option<StoreState>,
}

/// Rules, and what they are called.
#[derive(Debug, Clone)]
pub struct Rules {
    /// As compiled.
    pub compiled: Compiled,
    /// Their number and digest.
    pub set: RuleSet,
}

/// What is known of the store of decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreState {
    /// Nothing is kept from before; `None`: it is empty.
    pub since: Option<Moment>,
    /// Files from before the start are still being read.
    pub is_catching_up: bool,
}

/// Where decisions come from.
pub trait Decisions {
    /// The next of them, the latest first; none: that was all.
    fn next(&mut self) -> Vec<Entry>;

    /// Gaps that were noticed after the time that is asked for, but not long after.
    fn noticed_later(&mut self) -> Vec<Entry>;

    /// Whether something that is there could not be read.
    fn has_failed(&self) -> bool;
}

/// Writes all files but the manifest and its signature, and says what the manifest has to say.
///
/// # Errors
/// When something cannot be written.
pub fn export(inputs: &Inputs, decisions: &mut dyn Decisions, sink: &mut dyn Sink) -> io::Result<Manifest> {
    let mut out = Writer::new(sink, (inputs.from, inputs.to));
    let decided = decided::write(inputs, decisions, &mut out)?;
    standing::write(inputs, &decided, &mut out)?;
    out.file("CONTROLS.md", |out| {
        controls::text(inputs, &decided).split_inclusive('\n').try_for_each(|line| out.line(line))
    })?;
    out.end(inputs)
}

/// A line of a table: one, whatever is in the cells.
fn row<T: AsRef<str>>(cells: &[T]) -> String {
    let flat = |text: &T| -> String {
        text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    };
    csv::line(&cells.iter().map(flat).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
