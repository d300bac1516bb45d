//! The flat form of the rules section, used in place.
//!
//! ```text
//! magic "TGRULES\0" │ version u32 │ table count u32 │ (offset u32, length u32) per table │ words … │ text …
//! ```
//!
//! Everything is little-endian `u32` words except the last table, which is UTF-8 text. Offsets and lengths are in words,
//! for the text in bytes, and count from the end of the table directory. Tables lie one behind the other, in the order
//! of [`Table`], without gaps; so do the strings in the text and the runs in lists and postings: one policy has one
//! encoding, and it is checked in linear time.
//!
//! | table | a record |
//! | --- | --- |
//! | strings | offset, length in the text |
//! | issuers | name, list of slots (each a list of names) |
//! | guards | id, mode, list of ports, list of audiences |
//! | rules | id, meta, flags and grace after expiry, list of froms, list of operations |
//! | meta | owner, contact |
//! | froms | peer kind, trust domain, namespace, list of accounts, list of issuers, condition |
//! | operations | flags, method bits, list of other methods, list of ports, list of hosts, list of paths, condition |
//! | conditions | operator, a, b, c; children come before their parents |
//! | lists | runs of words, each preceded by its length; a list is referred to by where its length stands |
//! | clauses | rule, from, operation: what the index points to |
//! | shapes | subject kind, issuer and slot, depth: which keys the index has |
//! | buckets | tag, value: open addressing, a power of two of them |
//! | postings | as lists, of clauses |
//! | directories | name |
//! | operands | kind, a, b, c; what an operand is made of comes before it |
//! | automata | as lists, see `pattern` |
//! | zones | as lists, see `schedule` |
//! | text | bytes |
//!
//! INVARIANT: [`crate::PolicySet::decode`] has checked every reference. Readers here still never index: what could not
//! be read is [`NONE`], which stands for nothing and matches nothing.

/// Version of the format.
pub const VERSION: u32 = 2;

/// Largest accepted section, in bytes.
pub const MAX_SECTION_BYTES: usize = 64 << 20;

/// Deepest nesting of conditions.
pub(crate) const MAX_CONDITION_DEPTH: u32 = 32;

/// Most conditions that one condition consists of, each counted as often as it is evaluated: records are shared, so a
/// small section could otherwise describe one that takes years.
pub(crate) const MAX_CONDITION_PARTS: u32 = 4096;

/// Deepest nesting of operands.
pub(crate) const MAX_OPERAND_DEPTH: u32 = 4;

/// Longest header, query parameter or path that conditions read, in bytes as sent. Of a longer one nothing is known but
/// that it is there.
pub(crate) const MAX_TEXT: usize = 8192;

/// Most issuers that the rules of one workload name.
pub(crate) const MAX_ISSUERS: usize = 64;

/// Longest literal prefix of a path that the index uses, in segments.
pub(crate) const MAX_DEPTH: usize = 6;

/// "No constraint" for a list, "none" for an index.
pub(crate) const NONE: u32 = u32::MAX;

pub(crate) const MAGIC: [u8; 8] = *b"TGRULES\0";

/// The tables, in the order in which they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Strings,
    Issuers,
    Guards,
    Rules,
    Meta,
    Froms,
    Operations,
    Conditions,
    Lists,
    Clauses,
    Shapes,
    Buckets,
    Postings,
    Directories,
    Operands,
    Automata,
    Zones,
}

impl Table {
    pub const ALL: [Self; 17] = [
        Self::Strings,
        Self::Issuers,
        Self::Guards,
        Self::Rules,
        Self::Meta,
        Self::Froms,
        Self::Operations,
        Self::Conditions,
        Self::Lists,
        Self::Clauses,
        Self::Shapes,
        Self::Buckets,
        Self::Postings,
        Self::Directories,
        Self::Operands,
        Self::Automata,
        Self::Zones,
    ];

    /// Words per record.
    pub const fn width(self) -> usize {
        match self {
            Self::Lists | Self::Postings | Self::Directories | Self::Automata | Self::Zones => 1,
            Self::Strings | Self::Issuers | Self::Meta | Self::Buckets => 2,
            Self::Clauses | Self::Shapes => 3,
            Self::Guards | Self::Conditions | Self::Operands => 4,
            Self::Rules => 5,
            Self::Froms => 6,
            Self::Operations => 7,
        }
    }

    pub const fn position(self) -> usize {
        match self {
            Self::Strings => 0,
            Self::Issuers => 1,
            Self::Guards => 2,
            Self::Rules => 3,
            Self::Meta => 4,
            Self::Froms => 5,
            Self::Operations => 6,
            Self::Conditions => 7,
            Self::Lists => 8,
            Self::Clauses => 9,
            Self::Shapes => 10,
            Self::Buckets => 11,
            Self::Postings => 12,
            Self::Directories => 13,
            Self::Operands => 14,
            Self::Automata => 15,
            Self::Zones => 16,
        }
    }
}

/// Numbers that stand for variants. Zero is never one of them.
pub(crate) mod code {
    pub const ENFORCE: u32 = 1;
    pub const SHADOW: u32 = 2;

    // Flags of a rule.
    pub const RULE_DENY: u32 = 1;
    pub const RULE_SHADOW: u32 = 2;
    pub const RULE_DISCLOSE_CODE: u32 = 4;
    pub const RULE_DISCLOSE_NOTHING: u32 = 8;
    /// The expiry of a token does not end a stream.
    pub const RULE_KEEP: u32 = 16;
    pub const RULE_FLAGS: u32 = 31;
    /// The flags' upper bits: the grace after expiry, in seconds.
    pub const RULE_GRACE_SHIFT: u32 = 8;

    // Kinds of peer.
    pub const PEER_MESH: u32 = 1;
    pub const PEER_ANY_MESH: u32 = 2;
    pub const PEER_NONE: u32 = 3;
    pub const PEER_ANYONE: u32 = 4;

    // Flags of an operation.
    pub const OPERATION_GRPC: u32 = 1;
    pub const OPERATION_FLAGS: u32 = 1;

    // Operators of conditions.
    pub const TRUE: u32 = 1;
    pub const ALL: u32 = 2;
    pub const ANY: u32 = 3;
    pub const NOT: u32 = 4;
    pub const PRESENT: u32 = 5;
    pub const ONE_OF: u32 = 6;
    pub const INTEGER: u32 = 7;
    pub const BOOLEAN: u32 = 8;
    pub const GLOB: u32 = 9;
    pub const CONTAINS: u32 = 10;
    pub const PEER_NAMESPACE: u32 = 11;
    pub const PEER_ACCOUNT: u32 = 12;
    pub const SAME: u32 = 13;
    pub const LISTED: u32 = 14;
    pub const LISTED_OR_STALE: u32 = 15;
    pub const EQUAL: u32 = 16;
    pub const LESS: u32 = 17;
    pub const LESS_OR_EQUAL: u32 = 18;
    pub const TEXT_PRESENT: u32 = 19;
    pub const TEXT_ONE_OF: u32 = 20;
    pub const TEXT_PREFIX: u32 = 21;
    pub const TEXT_SUFFIX: u32 = 22;
    pub const TEXT_INFIX: u32 = 23;
    pub const TEXT_GLOB: u32 = 24;
    pub const TEXT_PATTERN: u32 = 25;
    pub const WITHIN: u32 = 26;

    // Kinds of operands.
    pub const OPERAND_CLAIM: u32 = 1;
    pub const OPERAND_PEER_NAMESPACE: u32 = 2;
    pub const OPERAND_PEER_ACCOUNT: u32 = 3;
    pub const OPERAND_PEER_TRUST_DOMAIN: u32 = 4;
    pub const OPERAND_METHOD: u32 = 5;
    pub const OPERAND_HOST: u32 = 6;
    pub const OPERAND_PATH: u32 = 7;
    pub const OPERAND_PORT: u32 = 8;
    pub const OPERAND_HEADER: u32 = 9;
    pub const OPERAND_QUERY: u32 = 10;
    pub const OPERAND_NOW: u32 = 11;
    pub const OPERAND_TEXT: u32 = 12;
    pub const OPERAND_INTEGER: u32 = 13;
    pub const OPERAND_BOOLEAN: u32 = 14;
    pub const OPERAND_LENGTH: u32 = 15;
    pub const OPERAND_PLUS: u32 = 16;

    // Two high bits of a segment's or host's word; the rest is a string.
    pub const KIND_SHIFT: u32 = 30;
    pub const STRING_MASK: u32 = (1 << KIND_SHIFT) - 1;
    pub const SEGMENT_LITERAL: u32 = 0;
    pub const SEGMENT_ONE: u32 = 1;
    pub const SEGMENT_REST: u32 = 2;
    pub const SEGMENT_GLOB: u32 = 3;
    pub const HOST_EXACT: u32 = 0;
    pub const HOST_SUFFIX: u32 = 1;

    // Kinds of subject in the index.
    pub const SUBJECT_NONE: u32 = 0;
    pub const SUBJECT_ACCOUNT: u32 = 1;
    pub const SUBJECT_NAMESPACE: u32 = 2;
    /// Not for rules: marks peers that are let in only with a token.
    pub const SUBJECT_TOKEN_REQUIRED: u32 = 3;

    /// In a bucket: the value is one clause, not a run of postings.
    pub const BUCKET_INLINE: u32 = 1 << 31;
}

/// Methods that have a bit of their own.
pub(crate) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The bit of a well-known method; 0 for others.
pub(crate) fn method_bit(method: &[u8]) -> u32 {
    METHODS.iter().position(|known| known.as_bytes() == method).map_or(0, |position| 1 << position)
}

/// Packs a kind and a string.
pub(crate) const fn tagged(kind: u32, string: u32) -> u32 {
    (kind << code::KIND_SHIFT) | (string & code::STRING_MASK)
}

/// The trailing slash of a path template, in the length word of its list.
pub(crate) const TRAILING_SLASH: u32 = 1 << 31;

/// Why a rules section was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRules {
    /// Not a rules section.
    #[error("rules section: not a rules section")]
    Magic,
    /// A version that this engine does not read.
    #[error("rules section: version {0}, and this engine reads version {VERSION}")]
    Version(u32),
    /// Larger than is accepted.
    #[error("rules section: {0} bytes, and at most {MAX_SECTION_BYTES} are accepted")]
    TooLarge(usize),
    /// The table directory does not describe the bytes.
    #[error("rules section: the table directory does not fit the content")]
    Tables,
    /// The text is not UTF-8, or a string cuts a character.
    #[error("rules section: text is not UTF-8")]
    Text,
    /// A record refers to something that is not there, has an unknown code, or is empty where it must not be.
    #[error("rules section: {table}[{record}] is invalid: {why}")]
    Record {
        /// Which table.
        table: &'static str,
        /// Which record.
        record: usize,
        /// What is wrong.
        why: &'static str,
    },
}

/// `usize` from a word. The targets have at least 32 bits, so nothing is lost.
pub(crate) fn size(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// A number of two words, the lower one first.
pub(crate) fn long(low: u32, high: u32) -> i64 {
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, g, h] = high.to_le_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The two words of a number, the lower one first.
pub(crate) fn long_words(number: i64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// A word from a `usize`; saturates at [`NONE`], which every decoder refuses.
pub(crate) fn word(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(NONE)
}
