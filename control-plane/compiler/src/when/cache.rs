//! What many rules write alike is parsed once for each compilation.
//!
//! INVARIANT: an answer depends on the text alone, so that nobody can tell whether it was there already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::pattern::{self, Compiled, InvalidPattern};
use super::syntax::{Parsed, parse_text};
use crate::entries::KnownNames;

/// Most texts of a kind that are kept.
const MAX_KEPT: usize = 4096;

/// Expressions and regular expressions by their text, and the names that rules read.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    expressions: Mutex<HashMap<String, Arc<Parsed>>>,
    patterns: Mutex<HashMap<String, Arc<Result<Compiled, InvalidPattern>>>>,
    pub(crate) names: KnownNames,
}

// === impl Cache ===

impl Cache {
    pub(super) fn expression(&self, text: &str) -> Arc<Parsed> {
        get(&self.expressions, text, parse_text)
    }

    pub(super) fn pattern(&self, text: &str) -> Arc<Result<Compiled, InvalidPattern>> {
        get(&self.patterns, text, pattern::compile)
    }
}

fn get<T>(known: &Mutex<HashMap<String, Arc<T>>>, text: &str, make: impl Fn(&str) -> T) -> Arc<T> {
    if let Some(known) = known.lock().unwrap_or_else(PoisonError::into_inner).get(text) {
        return Arc::clone(known);
    }
    let made = Arc::new(make(text));
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() < MAX_KEPT {
        known.insert(text.to_owned(), Arc::clone(&made));
    }
    made
}
