//! Rules on disk: reading them, judging them, and keeping the last good ones.

mod accepted;
mod finding;
mod load;
mod objects;
mod store;
mod watch;

pub use accepted::{AcceptedRules, Environment, Files, Origin, Verdict, judge};
pub use finding::{FileProblem, Finding};
pub use load::{Fingerprint, LoadError, Loaded, fingerprint, load, load_directory, load_environment};
pub use objects::{ObjectPath, judge_objects};
pub use store::{RuleStore, SetName, read};
pub use watch::FolderWatch;
