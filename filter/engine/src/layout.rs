//! The flat form of the rules section, used in place.
//!
//! ```text
//! magic "TGRULES\0" │ version u32 │ length u32 per table of words │ (count u32, 8 × width u8) per packed table
//! │ length u32 of the text │ words … │ packed records … │ text …
//! ```
//!
//! Everything is little-endian. Tables lie one behind the other, in the order of [`Table`] and [`Packed`], without gaps;
//! so do the strings in the text and the runs in lists: one policy has one encoding, and it is checked in linear time.
//!
//! What there is much of lies in packed tables, see [`crate::packed`], the rest in tables of `u32` words:
//!
//! | table | a record |
//! | --- | --- |
//! | issuers | name, list of slots (each a list of names) |
//! | guards | id, mode, list of ports, list of audiences |
//! | conditions | operator, a, b, c; children come before their parents |
//! | lists | runs of words, each preceded by its length; a list is referred to by where its length stands |
//! | shapes | see [`crate::index::Shape`]: which keys the index has |
//! | directories | name |
//! | operands | kind, a, b, c; what an operand is made of comes before it |
//! | automata | as lists, see `pattern` |
//! | zones | as lists, see `schedule` |
//!
//! A string is referred to by where its length stands in the text: in groups of six bits, the lowest first, each in a byte
//! below 64 or, where another one follows, from 64 to 127. Its UTF-8 bytes follow.
//!
//! [`Packed`]: crate::packed::Packed
//!
//! INVARIANT: [`crate::PolicySet::decode`] has checked every reference. Readers here still never index: what could not
//! be read is [`NONE`], which stands for nothing and matches nothing.

/// Version of the format.
pub const VERSION: u32 = 3;

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

/// "No constraint" for a list, "none" for an index.
pub(crate) const NONE: u32 = u32::MAX;

pub(crate) const MAGIC: [u8; 8] = *b"TGRULES\0";

/// The tables of words, in the order in which they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Issuers,
    Guards,
    Conditions,
    Lists,
    Shapes,
    Directories,
    Operands,
    Automata,
    Zones,
}

impl Table {
    pub const ALL: [Self; 9] = [
        Self::Issuers,
        Self::Guards,
        Self::Conditions,
        Self::Lists,
        Self::Shapes,
        Self::Directories,
        Self::Operands,
        Self::Automata,
        Self::Zones,
    ];

    /// Words per record.
    pub const fn width(self) -> usize {
        match self {
            Self::Lists | Self::Directories | Self::Automata | Self::Zones => 1,
            Self::Issuers => 2,
            Self::Guards | Self::Conditions | Self::Operands => 4,
            Self::Shapes => 6,
        }
    }

    pub const fn position(self) -> usize {
        match self {
            Self::Issuers => 0,
            Self::Guards => 1,
            Self::Conditions => 2,
            Self::Lists => 3,
            Self::Shapes => 4,
            Self::Directories => 5,
            Self::Operands => 6,
            Self::Automata => 7,
            Self::Zones => 8,
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
    /// Each request that it allows is recorded.
    pub const RULE_AUDIT_FULL: u32 = 32;
    /// And none passes unrecorded.
    pub const RULE_AUDIT_REQUIRED: u32 = 64;
    pub const RULE_FLAGS: u32 = 127;
    /// The flags' upper bits: of an Allow the grace after expiry, in seconds.
    pub const RULE_GRACE_SHIFT: u32 = 8;
    /// Of a Deny, which has no grace, the same bits: it takes something back for a time, and nothing suspends it. Engines that
    /// do not know this take it for a grace and deny all the same.
    pub const RULE_REVOKES: u32 = 1 << RULE_GRACE_SHIFT;

    // Kinds of peer.
    pub const PEER_MESH: u32 = 1;
    pub const PEER_ANY_MESH: u32 = 2;
    pub const PEER_NONE: u32 = 3;
    pub const PEER_ANYONE: u32 = 4;

    // Flags of an operation.
    pub const OPERATION_GRPC: u32 = 1;
    pub const OPERATION_ENCODED_SLASHES: u32 = 1 << 1;
    pub const OPERATION_FLAGS: u32 = OPERATION_GRPC | OPERATION_ENCODED_SLASHES;

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
    pub const OPERAND_TOKEN_CLOCK: u32 = 17;
    pub const OPERAND_BODY: u32 = 18;

    // The two low bits of a segment; the rest is a string.
    pub const SEGMENT_LITERAL: u32 = 0;
    pub const SEGMENT_ONE: u32 = 1;
    pub const SEGMENT_GLOB: u32 = 2;

    // What follows a segment; from `PATH_NODES` on, a node.
    pub const PATH_END: u32 = 0;
    pub const PATH_END_SLASH: u32 = 1;
    /// Whatever follows, nothing included.
    pub const PATH_REST: u32 = 2;
    pub const PATH_NODES: u32 = 3;

    // The low bit of a host; the rest is a string.
    pub const HOST_EXACT: u32 = 0;
    pub const HOST_SUFFIX: u32 = 1;

    // Kinds of subject in the index.
    pub const SUBJECT_NONE: u32 = 0;
    pub const SUBJECT_ACCOUNT: u32 = 1;
    pub const SUBJECT_NAMESPACE: u32 = 2;
    /// Not for rules: marks peers that are let in only with a token.
    pub const SUBJECT_TOKEN_REQUIRED: u32 = 3;

    // Kinds of claim in the index: which values it has.
    pub const CLAIM_TEXT: u32 = 1;
    pub const CLAIM_INTEGER: u32 = 2;
    /// A list, of which one item suffices.
    pub const CLAIM_LIST: u32 = 3;

    // The two low bits of an entry's target; the rest is a position.
    pub const TARGET_RULE: u32 = 0;
    pub const TARGET_CLAUSE: u32 = 1;
    /// A from that lets somebody in only with a token.
    pub const TARGET_TOKEN_REQUIRED: u32 = 2;
}

/// The bit of a well-known method; 0 for others.
pub(crate) fn method_bit(method: &[u8]) -> u32 {
    match method {
        b"GET" => 1,
        b"HEAD" => 1 << 1,
        b"POST" => 1 << 2,
        b"PUT" => 1 << 3,
        b"DELETE" => 1 << 4,
        b"CONNECT" => 1 << 5,
        b"OPTIONS" => 1 << 6,
        b"TRACE" => 1 << 7,
        b"PATCH" => 1 << 8,
        _ => 0,
    }
}

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
    /// The text is not UTF-8, or no sequence of strings.
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
