//! What is said about a workload's Fence.

use std::fmt;

/// Something that people should know of a Fence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// What kind of thing.
    pub kind: NoteKind,
    /// The rule that it is about, `namespace/name`; `None`: the whole workload.
    pub rule: Option<String>,
    /// Where and why, in words.
    pub text: String,
}

/// What kind of thing is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// Everybody passes the Fence there: only the filter stands in the way.
    Open,
    /// A port that nothing guards.
    Unguarded,
    /// A guarded port on which Istio may not read HTTP: connections pass all filters by, and the Fence refuses them.
    Port,
    /// Which pods Istio selects.
    Selection,
    /// The Fence allows more than the rules.
    Wider,
    /// A Deny that only the filter enforces.
    Deny,
    /// What the Fence takes for granted.
    Assumption,
}

// === impl NoteKind ===

impl NoteKind {
    /// A word for it, as in `wider: …`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Unguarded => "unguarded",
            Self::Port => "port",
            Self::Selection => "selection",
            Self::Wider => "wider",
            Self::Deny => "deny",
            Self::Assumption => "assumption",
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Note ===

impl Note {
    pub(super) fn new(kind: NoteKind, rule: Option<&str>, text: impl Into<String>) -> Self {
        Self { kind, rule: rule.map(str::to_owned), text: text.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "{}: {rule}: {}", self.kind, self.text),
            None => write!(f, "{}: {}", self.kind, self.text),
        }
    }
}
