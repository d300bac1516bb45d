//! Everything that rules are written with, each thing once: texts, lists, conditions, and what of rules is shared.
//!
//! A thing has a number by which others refer to it, in the order in which things were first needed. That is not where it
//! lies in a section: [`super::link`] puts things there in the order of rules. So rules can come and go, and what the others
//! are written with stays as it is.
//!
//! INVARIANT: two things of a kind have the same number if and only if they are the same.

use crate::body::MAX_BODY_FIELDS;
use crate::hash;
use crate::layout::{NONE, size, word};
use crate::model::BodyField;

use super::found::{Found, Seed};

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    List,
    Automaton,
    Zone,
    /// A field of bodies.
    Field,
    Condition,
    Operand,
    Heads,
    Froms,
    Peers,
    Demands,
    Operations,
    Frames,
    Nodes,
}

/// What the words of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListOf {
    Numbers,
    Texts,
    /// Texts, each with a bit.
    Hosts,
    Paths,
    Lists,
    Conditions,
    Froms,
    Operations,
}

/// A thing as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thing(u32);

/// Most things of a kind: of a section of which there is room for no more, by far.
const MOST: u32 = 1 << 28;

#[derive(Debug, Default)]
pub(super) struct Pool {
    seed: Seed,
    texts: Texts,
    lists: Runs,
    automata: Runs,
    zones: Runs,
    fields: Vec<BodyField>,
    /// By position of the kind, from [`Kind::Condition`] on.
    records: [Records; Kind::ALL.len()],
}

/// Texts as they lie in a section: length, and bytes.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    found: Found,
}

/// Words, each run behind the one before. Of a list the first word says what the others are.
#[derive(Debug, Default)]
struct Runs {
    words: Vec<u32>,
    ends: Vec<u32>,
    found: Found,
}

/// Records of the same size.
#[derive(Debug, Default)]
pub(super) struct Records {
    words: Vec<u32>,
    count: u32,
    found: Found,
}

// === impl Kind ===

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Text,
        Self::List,
        Self::Automaton,
        Self::Zone,
        Self::Field,
        Self::Condition,
        Self::Operand,
        Self::Heads,
        Self::Froms,
        Self::Peers,
        Self::Demands,
        Self::Operations,
        Self::Frames,
        Self::Nodes,
    ];

    pub const fn position(self) -> usize {
        match self {
            Self::Text => 0,
            Self::List => 1,
            Self::Automaton => 2,
            Self::Zone => 3,
            Self::Field => 4,
            Self::Condition => 5,
            Self::Operand => 6,
            Self::Heads => 7,
            Self::Froms => 8,
            Self::Peers => 9,
            Self::Demands => 10,
            Self::Operations => 11,
            Self::Frames => 12,
            Self::Nodes => 13,
        }
    }
}

// === impl ListOf ===

impl ListOf {
    const ALL: [Self; 8] = [
        Self::Numbers,
        Self::Texts,
        Self::Hosts,
        Self::Paths,
        Self::Lists,
        Self::Conditions,
        Self::Froms,
        Self::Operations,
    ];

    const fn word(self) -> u32 {
        match self {
            Self::Numbers => 0,
            Self::Texts => 1,
            Self::Hosts => 2,
            Self::Paths => 3,
            Self::Lists => 4,
            Self::Conditions => 5,
            Self::Froms => 6,
            Self::Operations => 7,
        }
    }
}

// === impl Thing ===

impl Thing {
    pub fn new(kind: Kind, number: u32) -> Self {
        Self(number << 4 | word(kind.position()))
    }

    #[inline]
    pub fn kind(self) -> Kind {
        Kind::ALL.get(size(self.0 & 15)).copied().unwrap_or(Kind::Text)
    }

    #[inline]
    pub fn number(self) -> u32 {
        self.0 >> 4
    }
}

// === impl Pool ===

impl Pool {
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Text => word(self.texts.ends.len()),
            Kind::List => word(self.lists.ends.len()),
            Kind::Automaton => word(self.automata.ends.len()),
            Kind::Zone => word(self.zones.ends.len()),
            Kind::Field => word(self.fields.len()),
            kind => self.records.get(kind.position()).map_or(0, |records| records.count),
        }
    }

    /// Whether there is more of something than can be told apart.
    pub fn is_overfull(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.count(kind) >= MOST)
    }

    /// How many words everything takes.
    pub fn words(&self) -> usize {
        let records: usize = self.records.iter().map(|records| records.words.len()).sum();
        records
            + self.texts.bytes.len() / 4
            + self.lists.words.len()
            + self.automata.words.len()
            + self.zones.words.len()
    }

    pub fn text(&mut self, text: &str) -> u32 {
        let Self { seed, texts: Texts { bytes, ends, found }, .. } = self;
        let hash = hash::bytes(seed.number(), text.as_bytes());
        let is_it = |at: u32| plain(run_of(bytes, ends, at)) == text.as_bytes();
        found.get_or_insert(hash, is_it).unwrap_or_else(|free| {
            let mut length = word(text.len());
            loop {
                let group = length.to_le_bytes().first().map_or(0, |byte| byte & 63);
                length >>= 6;
                if length == 0 {
                    bytes.push(group);
                    break;
                }
                bytes.push(group | 64);
            }
            bytes.extend_from_slice(text.as_bytes());
            let number = word(ends.len());
            ends.push(word(bytes.len()));
            found.insert(free, number);
            number
        })
    }

    /// A text's length and bytes.
    #[inline]
    pub fn text_at(&self, number: u32) -> &[u8] {
        run_of(&self.texts.bytes, &self.texts.ends, number)
    }

    pub fn list(&mut self, of: ListOf, words: &[u32]) -> u32 {
        self.lists.add(self.seed, Some(of.word()), words)
    }

    /// What the words of a list are, and these.
    #[inline]
    pub fn list_at(&self, number: u32) -> (ListOf, &[u32]) {
        match run_of(&self.lists.words, &self.lists.ends, number) {
            [of, words @ ..] => (ListOf::ALL.get(size(*of)).copied().unwrap_or(ListOf::Numbers), words),
            [] => (ListOf::Numbers, &[]),
        }
    }

    pub fn automaton(&mut self, words: &[u32]) -> u32 {
        self.automata.add(self.seed, None, words)
    }

    pub fn automaton_at(&self, number: u32) -> &[u32] {
        run_of(&self.automata.words, &self.automata.ends, number)
    }

    pub fn zone(&mut self, words: &[u32]) -> u32 {
        self.zones.add(self.seed, None, words)
    }

    pub fn zone_at(&self, number: u32) -> &[u32] {
        run_of(&self.zones.words, &self.zones.ends, number)
    }

    /// `None`: there are many more than any policy may read.
    pub fn field(&mut self, field: &BodyField) -> Option<u32> {
        let known = self.fields.iter().position(|known| known == field);
        if known.is_none() && self.fields.len() < 2 * MAX_BODY_FIELDS {
            self.fields.push(field.clone());
        }
        let at = known.unwrap_or(self.fields.len().saturating_sub(1));
        self.fields.get(at).filter(|known| *known == field).map(|_| word(at))
    }

    pub fn record<const WIDTH: usize>(&mut self, kind: Kind, record: [u32; WIDTH]) -> u32 {
        let seed = self.seed;
        self.records.get_mut(kind.position()).map_or(NONE, |records| records.add(seed, record))
    }

    #[inline]
    pub fn record_at<const WIDTH: usize>(&self, kind: Kind, number: u32) -> [u32; WIDTH] {
        self.records.get(kind.position()).map_or([NONE; WIDTH], |records| records.get(number))
    }
}

/// The bytes of a text.
fn plain(text: &[u8]) -> &[u8] {
    let length = text.iter().position(|byte| *byte < 64).map_or(0, |last| last + 1);
    text.get(length..).unwrap_or_default()
}

/// One of runs that lie one behind the other.
#[inline]
fn run_of<'r, T>(all: &'r [T], ends: &[u32], number: u32) -> &'r [T] {
    let number = size(number);
    let begin = number.checked_sub(1).map_or(0, |before| ends.get(before).copied().map_or(0, size));
    let end = ends.get(number).copied().map_or(begin, size);
    all.get(begin..end).unwrap_or_default()
}

// === impl Runs ===

impl Runs {
    fn add(&mut self, seed: Seed, first: Option<u32>, words: &[u32]) -> u32 {
        let Self { words: all, ends, found } = self;
        let whole = || first.iter().chain(words);
        let hash = whole().fold(seed.number(), |hash, one| hash::number(hash, u64::from(*one)));
        found.get_or_insert(hash, |at| run_of(all, ends, at).iter().eq(whole())).unwrap_or_else(|free| {
            all.extend(whole());
            let number = word(ends.len());
            ends.push(word(all.len()));
            found.insert(free, number);
            number
        })
    }
}

// === impl Records ===

impl Records {
    pub fn add<const WIDTH: usize>(&mut self, seed: Seed, record: [u32; WIDTH]) -> u32 {
        let Self { words, count, found } = self;
        let hash = record.iter().fold(seed.number(), |hash, one| hash::number(hash, u64::from(*one)));
        let is_it = |at: u32| record_of::<WIDTH>(words, at) == Some(&record);
        found.get_or_insert(hash, is_it).unwrap_or_else(|free| {
            words.extend_from_slice(&record);
            let number = *count;
            *count = count.saturating_add(1);
            found.insert(free, number);
            number
        })
    }

    #[inline]
    pub fn get<const WIDTH: usize>(&self, number: u32) -> [u32; WIDTH] {
        record_of(&self.words, number).copied().unwrap_or([NONE; WIDTH])
    }

    pub fn count(&self) -> u32 {
        self.count
    }
}

#[inline]
fn record_of<const WIDTH: usize>(words: &[u32], number: u32) -> Option<&[u32; WIDTH]> {
    words.get(size(number).checked_mul(WIDTH)?..)?.first_chunk()
}
