//! Decisions as filters report them: read, kept for a while, and handed on.
//!
//! The way of a record: a filter's batch is read and cleaned ([`record`] is what comes of it), offered to whoever listens,
//! and queued for the store. Nothing of that ever waits: what there is no room for is dropped, counted, and shown as a
//! gap.
//!
//! INVARIANT: what a filter says is untrusted. It is never a label of a metric, never a path, and never shown as it came.

pub mod clean;
pub mod record;
pub mod run;
pub mod time;
