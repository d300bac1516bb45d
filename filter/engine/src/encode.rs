//! Writes a [`PolicyModel`] in the flat form, index included.
//!
//! INVARIANT: deterministic. The same model gives the same bytes on every machine, whatever was written before.

use crate::layout::{
    MAGIC, MAX_CONDITION_DEPTH, MAX_CONDITION_PARTS, MAX_SECTION_BYTES, NONE, VERSION, word,
};
use crate::model::{BodyField, ClaimRef, IssuerModel, Lease, PolicyModel};
use crate::packed::{Packed, pack};

mod buckets;
mod choice;
mod clauses;
mod conditions;
mod counts;
mod encoder;
mod found;
mod link;
mod place;
mod pool;
mod rules;
mod shapes;

pub use encoder::Encoder;

use place::Place;
use pool::{Kind, ListOf, Pool, Thing};

const TOO_MANY_FIELDS: &str = "the policy reads too many fields of bodies";

/// Why a model cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A list that would match nothing; "no constraint" is written otherwise.
    #[error("`{0}` is empty: it would never match; leave it out for \"any\"")]
    Empty(String),
    /// Two rules have the same id.
    #[error("rule `{0}` is there twice")]
    Duplicate(String),
    /// Issuers that are there twice, or too many.
    #[error("{0}")]
    Issuers(String),
    /// A reference to an issuer, claim or directory that the model does not have.
    #[error("`{place}` refers to a {what} that the policy does not have")]
    Dangling {
        /// Which rule.
        place: String,
        /// What kind of thing.
        what: &'static str,
    },
    /// A pattern that cannot be expressed.
    #[error("`{place}`: {why}")]
    Pattern {
        /// Which rule, and which field.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A condition that cannot be expressed.
    #[error("`{place}`: {why}")]
    Condition {
        /// Which rule, and which entry.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A rule that contradicts itself.
    #[error("`{place}`: {why}")]
    Rule {
        /// Which rule.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A grace longer than can be written.
    #[error("`{0}`: the grace after expiry is longer than {max} seconds", max = Lease::MAX_GRACE_S)]
    Grace(String),
    /// Conditions nested too deep.
    #[error("`{0}`: conditions are nested deeper than {MAX_CONDITION_DEPTH}")]
    TooDeep(String),
    /// A condition of too many parts.
    #[error("`{0}`: a condition has more than {MAX_CONDITION_PARTS} parts")]
    TooManyParts(String),
    /// The section would be larger than filters accept.
    #[error("the rules section would have {0} bytes, and filters accept {MAX_SECTION_BYTES}")]
    TooLarge(usize),
}

/// Writes the rules section of a policy. Rules are ordered by id.
///
/// # Errors
/// When the model contains something that the format cannot say; nothing is ever left out.
pub fn encode(model: &PolicyModel) -> Result<Vec<u8>, EncodeError> {
    Encoder::default().encode(model)
}

/// Writes things into the pool, and notes which these are: each behind what it refers to.
struct Writer<'w> {
    issuers: &'w [IssuerModel],
    /// How many there are.
    directories: usize,
    pool: &'w mut Pool,
    noted: &'w mut Vec<Thing>,
    /// How many parts the condition has that is being written.
    parts: u32,
    /// Whether it may read the body.
    of_operation: bool,
}

// === impl Writer ===

impl Writer<'_> {
    fn note(&mut self, kind: Kind, number: u32) -> u32 {
        self.noted.push(Thing::new(kind, number));
        number
    }

    fn string(&mut self, text: &str) -> u32 {
        let number = self.pool.text(text);
        self.note(Kind::Text, number)
    }

    fn list(&mut self, of: ListOf, words: &[u32]) -> u32 {
        let number = self.pool.list(of, words);
        self.note(Kind::List, number)
    }

    fn automaton(&mut self, words: &[u32]) -> u32 {
        let number = self.pool.automaton(words);
        self.note(Kind::Automaton, number)
    }

    fn zone(&mut self, words: &[u32]) -> u32 {
        let number = self.pool.zone(words);
        self.note(Kind::Zone, number)
    }

    /// `None`: there are too many.
    fn field(&mut self, field: &BodyField) -> Option<u32> {
        let number = self.pool.field(field)?;
        Some(self.note(Kind::Field, number))
    }

    fn record<const WIDTH: usize>(&mut self, kind: Kind, record: [u32; WIDTH]) -> u32 {
        let number = self.pool.record(kind, record);
        self.note(kind, number)
    }

    fn optional<'t, T>(
        &mut self,
        items: Option<&'t [T]>,
        of: ListOf,
        place: Place<'_>,
        field: &str,
        mut item: impl FnMut(&mut Self, &'t T) -> Result<u32, EncodeError>,
    ) -> Result<u32, EncodeError> {
        match items {
            None => Ok(NONE),
            Some([]) => Err(EncodeError::Empty(format!("{place}.{field}"))),
            Some(items) => {
                let words = items.iter().map(|one| item(self, one)).collect::<Result<Vec<u32>, _>>()?;
                Ok(self.list(of, &words))
            }
        }
    }
}

/// A section of these tables, in the order of [`Table::ALL`] and [`Packed::ALL`], and this text.
pub(crate) fn section(tables: &[Vec<u32>], packed: &[Vec<u32>], text: &[u8]) -> Vec<u8> {
    let packed: Vec<_> = Packed::ALL.iter().zip(packed).map(|(table, values)| pack(*table, values)).collect();
    let words: usize = tables.iter().map(Vec::len).sum();
    let records: usize = packed.iter().map(|(_, _, bytes)| bytes.len()).sum();
    let directory = MAGIC.len() + 8 + 4 * tables.len() + 12 * packed.len();
    let mut out = Vec::with_capacity(directory + 4 * words + records + text.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    for words in tables {
        out.extend_from_slice(&word(words.len()).to_le_bytes());
    }
    for (count, widths, _) in &packed {
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(widths);
    }
    out.extend_from_slice(&word(text.len()).to_le_bytes());
    for one in tables.iter().flatten() {
        out.extend_from_slice(&one.to_le_bytes());
    }
    packed.iter().for_each(|(_, _, bytes)| out.extend_from_slice(bytes));
    out.extend_from_slice(text);
    out
}

/// Issuer and slot as one word.
pub(crate) fn claim_word(claim: ClaimRef) -> u32 {
    u32::from(claim.issuer) << 16 | u32::from(claim.slot)
}
