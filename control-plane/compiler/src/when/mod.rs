//! `when`: conditions in CEL syntax on tokens, peer, request and time.
//!
//! Text becomes the parser's tree ([`syntax`]), that becomes a typed tree by names ([`tree`]) while every part of it is
//! checked ([`check`], [`value`]), and that becomes the engine's condition, with positions instead of names.
//!
//! INVARIANT: whatever is written is understood or refused, never left out. A condition cannot fail while a request is
//! decided: what could fail in CEL (another type, an overflow) is unknown, and a Deny matches on it and an Allow does not.

mod cache;
mod check;
mod number;
mod pattern;
mod syntax;
mod text;
mod tree;
mod value;

pub(crate) use cache::Cache;
pub(crate) use check::{When, check};
pub(crate) use syntax::{describe, parse, path_of};
pub(crate) use tree::{ClaimName, Cost, Tree, Value};
pub(crate) use value::{header_name, parameter_name};

/// The automaton of an expression; `None`: it would be too large.
pub(crate) fn pattern(source: &str) -> Option<tidegate_engine::model::Pattern> {
    pattern::compile(source).ok().map(|compiled| compiled.pattern)
}
