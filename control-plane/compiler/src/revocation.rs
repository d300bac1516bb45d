//! Rules that take something back for a time: added to what people wrote, and never by them.
//!
//! INVARIANT: what is a revocation is known by the path that it is given under. No file of a folder and no object of a
//! cluster can have it, so nobody writes a rule that nothing suspends.

/// How the path of a source begins whose rules nothing suspends (`RuleModel::revokes`).
pub const PATHS: &str = "\0revocation ";

/// How the names of a revocation's objects begin; nobody else's may ([`crate::Code::ReservedName`]).
pub const NAMES: &str = "tidegate-revoked-";

/// Whether a source of this path is a revocation.
pub fn is_revocation(path: &str) -> bool {
    path.starts_with(PATHS)
}
