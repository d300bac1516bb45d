//! Automata over classes of bytes: how patterns are matched without an engine for regular expressions.
//!
//! ```text
//! states │ classes << 16 · start │ ends_from << 16 · 64 words: the classes of the 256 bytes, four in each ·
//! transitions, two in each word: for the states from 2 on, the next state by class
//! ```
//!
//! INVARIANT: [`check`] has seen the run. A text is walked once, one look-up for each byte.

use crate::layout::{size, word};
use crate::model::Pattern;

/// Never accepts, whatever follows.
const DEAD: u32 = 0;

/// Accepts, whatever follows.
const MATCHED: u32 = 1;

/// Most transitions of one automaton: 64 KiB.
pub(crate) const MAX_TRANSITIONS: usize = 1 << 15;

/// Words before the transitions.
const HEAD: usize = 2 + 64;

/// Whether the automaton accepts a text.
pub(crate) fn accepts(run: &[u32], text: &[u8]) -> bool {
    let [sizes, bounds] = run.first_chunk::<2>().copied().unwrap_or_default();
    let (class_count, ends_from) = (sizes >> 16, bounds >> 16);
    let (head, transitions) = run.split_at_checked(HEAD).unwrap_or_default();
    let classes = head.get(2..).unwrap_or_default();
    let mut state = bounds & 0xFFFF;
    for byte in text {
        if state <= MATCHED {
            break;
        }
        let class = packed(classes, u32::from(*byte), 2);
        let at = state.saturating_sub(2).saturating_mul(class_count).saturating_add(class);
        state = packed(transitions, at, 1);
    }
    state == MATCHED || (state != DEAD && state >= ends_from)
}

/// The number at a position, of `1 << shift` in each word; 0 (which accepts nothing) outside.
fn packed(words: &[u32], at: u32, shift: u32) -> u32 {
    let bits = 32 >> shift;
    let word = words.get(size(at >> shift)).copied().unwrap_or(DEAD);
    (word >> ((at & ((1 << shift) - 1)) * bits)) & ((1 << bits) - 1)
}

/// Writes an automaton as a run.
///
/// # Errors
/// When it is none.
pub(crate) fn encode(pattern: &Pattern) -> Result<Vec<u32>, &'static str> {
    let Pattern { classes, class_count, start, ends_from, transitions, .. } = pattern;
    if classes.len() != 256 {
        return Err("an automaton has a class for each byte");
    }
    if *class_count == 0 || !transitions.len().is_multiple_of(usize::from(*class_count)) {
        return Err("an automaton has a transition for each class");
    }
    if transitions.len() > MAX_TRANSITIONS {
        return Err("an automaton is too large");
    }
    let states = word(transitions.len() / usize::from(*class_count)).saturating_add(2);
    let mut run = Vec::with_capacity(HEAD + transitions.len().div_ceil(2));
    run.push(states | u32::from(*class_count) << 16);
    run.push(u32::from(*start) | u32::from(*ends_from) << 16);
    let (quads, _) = classes.as_chunks::<4>();
    run.extend(quads.iter().map(|quad| u32::from_le_bytes(*quad)));
    run.extend(transitions.chunks(2).map(|pair| {
        let [low, high] = [pair.first(), pair.get(1)].map(|state| state.map_or(0, |state| u32::from(*state)));
        low | high << 16
    }));
    check(&run)?;
    Ok(run)
}

/// Checks a run, in time linear in its length.
pub(crate) fn check(run: &[u32]) -> Result<(), &'static str> {
    let (Some([sizes, bounds]), Some((head, transitions))) =
        (run.first_chunk::<2>(), run.split_at_checked(HEAD))
    else {
        return Err("an automaton is cut off");
    };
    let (states, class_count) = (sizes & 0xFFFF, sizes >> 16);
    let (start, ends_from) = (bounds & 0xFFFF, bounds >> 16);
    if states < 2 || class_count == 0 || class_count > 256 {
        return Err("an automaton has no states or classes");
    }
    if start >= states || ends_from < 2 || ends_from > states {
        return Err("an automaton refers to a state that is not there");
    }
    let classes = head.iter().skip(2).flat_map(|word| word.to_le_bytes());
    if classes.into_iter().any(|class| u32::from(class) >= class_count) {
        return Err("an automaton refers to a class that is not there");
    }
    let count = states.saturating_sub(2).saturating_mul(class_count);
    if size(count) > MAX_TRANSITIONS || transitions.len() != size(count).div_ceil(2) {
        return Err("an automaton has another size than it says");
    }
    let next = transitions.iter().flat_map(|word| [word & 0xFFFF, word >> 16]);
    if next.into_iter().any(|next| next >= states) {
        return Err("an automaton refers to a state that is not there");
    }
    // One automaton has one form.
    if count % 2 == 1 && transitions.last().is_some_and(|word| word >> 16 != 0) {
        return Err("something follows an automaton");
    }
    Ok(())
}
