//! Rules as plain owned data: what the compiler produces, what [`crate::encode`] writes, and what the naive reference
//! interpreter reads.
//!
//! Nothing here is used while a request is decided; the filter only sees the encoded form.
//!
//! INVARIANT: *absent* (`None`: no constraint) and *empty* (`Some` of an empty list: refused by [`crate::encode`]) are
//! different things. There is no way to write "unsupported".

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Everything that one workload enforces, apart from keys and directories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyModel {
    /// Issuers that rules name, with the claims that rules read. Position is the issuer's index.
    pub issuers: Vec<IssuerModel>,
    /// Guards that cover the workload. Without any, nothing is guarded.
    pub guards: Vec<GuardModel>,
    /// Names of directories that conditions refer to. Position is the directory's index.
    pub directories: Vec<String>,
    /// Rules that target the workload.
    pub rules: Vec<SharedRule>,
}

/// A rule that several policies may have. Whoever changes it gets a copy of its own.
///
/// INVARIANT: a rule does not change as long as anybody else has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRule(Arc<RuleModel>);

/// Where a field is in a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BodyField {
    /// In JSON: members from the outside in, each by any of its names; through arrays without saying so.
    Json(Vec<Vec<String>>),
    /// In a message of Protocol Buffers: numbers of fields from the outside in.
    Protobuf(Vec<u32>),
}

/// An issuer as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerModel {
    /// Name of the `TrustedIssuer`.
    pub name: String,
    /// Claims that rules read. Position is the slot.
    pub slots: Vec<ClaimPath>,
}

/// Where a claim is: member names from the outside in, e.g. `["kubernetes.io", "namespace"]`.
pub type ClaimPath = Vec<String>;

/// Whether something is enforced or only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Evaluated and enforced.
    Enforce,
    /// Evaluated and reported, never enforced.
    Shadow,
}

/// What a rule does with the requests that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Lets the request pass unless a Deny matches.
    Allow,
    /// Refuses the request, whatever else matches.
    Deny,
}

/// How much a refusal tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Disclosure {
    /// Reason, rule and owner, for verified callers.
    #[default]
    Full,
    /// The reason code only.
    Code,
    /// An opaque 404: the resource's existence is not told.
    Opaque,
}

/// What is recorded of the requests that a rule allows. Refusals are always recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Audit {
    /// Some of them.
    #[default]
    Sampled,
    /// Each.
    Full,
    /// Each, and none passes that cannot be recorded.
    Required,
}

/// What becomes of a stream that the rule let in, once a token that it rests on has expired. Everything else that ends
/// what was allowed (a revocation, a removed key, a changed rule) ends the stream whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lease {
    /// Whether expiry ends the stream.
    pub on_expiry: OnExpiry,
    /// How long after expiry the stream may still go on, in seconds, at most [`Lease::MAX_GRACE_S`]. Nothing rests on it
    /// where expiry does not end the stream.
    pub grace_s: u32,
}

/// Whether the expiry of a token ends a stream that was let in with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnExpiry {
    /// The stream is ended, after the grace.
    #[default]
    Reset,
    /// The stream may go on for as long as it lasts.
    Keep,
}

// === impl SharedRule ===

impl SharedRule {
    /// Whether it is the same in memory, and so says the same.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<RuleModel> for SharedRule {
    fn from(rule: RuleModel) -> Self {
        Self(Arc::new(rule))
    }
}

impl Deref for SharedRule {
    type Target = RuleModel;

    fn deref(&self) -> &RuleModel {
        &self.0
    }
}

impl DerefMut for SharedRule {
    fn deref_mut(&mut self) -> &mut RuleModel {
        Arc::make_mut(&mut self.0)
    }
}

// === impl Lease ===

impl Lease {
    /// The longest grace, in seconds.
    pub const MAX_GRACE_S: u32 = (1 << 24) - 1;

    /// For how many seconds after the expiry of its tokens a stream may go on: what [`crate::Request::expiry_grace_s`]
    /// is when the stream is looked at again.
    pub const fn expiry_grace_s(self) -> u32 {
        match self.on_expiry {
            OnExpiry::Reset => self.grace_s,
            OnExpiry::Keep => u32::MAX,
        }
    }
}

/// A declaration that the workload is guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardModel {
    /// `namespace/name`.
    pub id: String,
    /// Enforced or only reported.
    pub mode: Mode,
    /// Ports that it covers; `None`: all.
    pub ports: Option<Vec<u16>>,
    /// For whom tokens must be meant; `None`: the request's host.
    pub audiences: Option<Vec<String>>,
}

/// One AccessRule as it applies to the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleModel {
    /// `namespace/name`; unique.
    pub id: String,
    /// Allow or Deny.
    pub effect: Effect,
    /// Enforced or only reported.
    pub mode: Mode,
    /// Named in the caller's error; may be empty.
    pub owner: String,
    /// Named in the caller's error; may be empty.
    pub contact: String,
    /// How much a refusal by this rule tells.
    pub disclosure: Disclosure,
    /// What is recorded of the requests that it allows.
    pub audit: Audit,
    /// How long a stream that it lets in may outlive its tokens. A Deny lets none in, and has none.
    pub lease: Lease,
    /// It takes something back for a time, and nothing suspends it ([`crate::decide_suspended`]): an enforced Deny of any
    /// operation.
    pub revokes: bool,
    /// Any of them must match.
    pub from: Vec<FromModel>,
    /// Any of them must match; `None`: any operation.
    pub to: Option<Vec<OperationModel>>,
}

/// Who may call: all parts must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromModel {
    /// The workload at the other end of the connection.
    pub peer: PeerModel,
    /// Issuers (by index) of which a verified token must be present.
    pub issuers: Vec<u16>,
    /// What must hold besides. Refers only to issuers in `issuers`.
    pub condition: Condition,
}

/// What is demanded of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerModel {
    /// A mesh peer of this namespace and, if given, one of these service accounts.
    Mesh {
        /// Trust domain of the SPIFFE id.
        trust_domain: String,
        /// Kubernetes namespace.
        namespace: String,
        /// `None`: any account of the namespace.
        service_accounts: Option<Vec<String>>,
    },
    /// Any mesh peer of this trust domain.
    AnyMesh {
        /// Trust domain of the SPIFFE id.
        trust_domain: String,
    },
    /// No mesh peer: the caller is known by its token only (`tokenOnly`, at the gateway itself).
    NoPeer,
    /// Whoever it is (`anyone: true`).
    Anyone,
}

/// What is called: all parts must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OperationModel {
    /// Ports of the workload; `None`: any.
    pub ports: Option<Vec<u16>>,
    /// Methods, exact; `None`: any.
    pub methods: Option<Vec<String>>,
    /// Hosts, lower case, without port; `None`: any.
    pub hosts: Option<Vec<HostPattern>>,
    /// Paths; `None`: any.
    pub paths: Option<Vec<PathPattern>>,
    /// A gRPC call: an Allow demands a gRPC content type, a Deny does not.
    pub grpc: bool,
    /// Encoded slashes in the path are data inside of segments; for an Allow only. Without it no Allow matches a path that
    /// has some, and a Deny matches if it does with either meaning.
    pub encoded_slashes: bool,
    /// What must hold of the request besides. Reads no claims.
    pub condition: Condition,
}

/// A host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// The whole name, lower case.
    Exact(String),
    /// `*.example.com`: one or more labels before this suffix, which begins with a dot.
    Suffix(String),
}

/// A path template: segments between slashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    /// Without the leading slash; `/` alone is one empty literal.
    pub segments: Vec<SegmentPattern>,
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SegmentPattern {
    /// Exactly these characters.
    Literal(String),
    /// `{name}`: one segment, not empty.
    One,
    /// `{**}`: the rest of the path, zero or more segments. Only last.
    Rest,
    /// A glob inside one segment: `*` stands for zero or more characters.
    Glob(String),
}

/// What must hold of tokens, peer, request and time; three-valued, see [`crate::Truth`].
///
/// What is absent (a claim, a header, a query parameter, the peer) makes every test of it false. What is there but cannot
/// be told (of another type than the test's, not UTF-8, sent twice) makes every test of it unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always holds.
    #[default]
    True,
    /// Every one holds; true when empty.
    All(Vec<Condition>),
    /// At least one holds; false when empty.
    Any(Vec<Condition>),
    /// Does not hold.
    Not(Box<Condition>),
    /// A test of one claim.
    Claim(ClaimRef, Test),
    /// A comparison: of integers, of booleans and strings only [`Relation::Equal`].
    Compare(Operand, Relation, Operand),
    /// A test of a string.
    Text(Operand, TextTest),
    /// The time of the request is in one of these windows.
    Within(Schedule),
}

/// A claim of a verified token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimRef {
    /// Index into [`PolicyModel::issuers`].
    pub issuer: u16,
    /// Index into [`IssuerModel::slots`].
    pub slot: u16,
}

/// A test of one claim. An absent claim fails every test; a claim of another type than the test's is *unknown*.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The claim is there (and not null).
    Present,
    /// A string, one of these, byte for byte.
    OneOf(Vec<String>),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
    /// A string that this glob matches: `*` stands for zero or more characters.
    Glob(String),
    /// A list that contains this string.
    Contains(String),
    /// A string that equals the peer's namespace. False without a mesh peer.
    PeerNamespace,
    /// A string that equals the peer's service account. False without a mesh peer.
    PeerServiceAccount,
    /// A string that equals this other claim.
    Same(ClaimRef),
    /// A string that this directory (by index) lists. Unknown while the directory is stale or missing.
    Listed(u16),
    /// The same, but true while the directory is stale or missing: what else is demanded then suffices. A decision that
    /// rests on this is [`crate::Decision::degraded`].
    ListedOrStale(u16),
}

/// A value that a request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// A claim of a verified token.
    Claim(ClaimRef),
    /// The peer's namespace; absent without a mesh peer.
    PeerNamespace,
    /// The peer's service account; absent without a mesh peer.
    PeerServiceAccount,
    /// The peer's trust domain; absent without a mesh peer.
    PeerTrustDomain,
    /// The method.
    Method,
    /// The host, normalised.
    Host,
    /// The path, normalised, with its leading slash and without the query.
    Path,
    /// The workload's port.
    Port,
    /// A header by its name in lower case.
    Header(String),
    /// A query parameter by its name.
    Query(String),
    /// A field of the body. Only operations read bodies. A test of it holds if it does of every value that the field has;
    /// of some but not all, it is unknown.
    Body(BodyField),
    /// When the request is decided, in Unix seconds.
    Now,
    /// The same for the age of tokens: less the grace that a stream has after their expiry
    /// ([`crate::Request::expiry_grace_s`]), so that a token that has become too old is as one that has expired.
    TokenClock,
    /// This string.
    Text(String),
    /// This number.
    Integer(i64),
    /// This boolean.
    Boolean(bool),
    /// How many characters (Unicode scalar values) a string has, or how many items a list.
    Length(Box<Operand>),
    /// An integer and this number; unknown where that overflows.
    Plus(Box<Operand>, i64),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// The first is less.
    Less,
    /// The first is less, or they are the same.
    LessOrEqual,
}

/// A test of a string, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// It is there, whatever it is.
    Present,
    /// One of these.
    OneOf(Vec<String>),
    /// It begins with this.
    Prefix(String),
    /// It ends with this.
    Suffix(String),
    /// This is in it.
    Infix(String),
    /// A glob that matches it as a whole: `*` stands for zero or more characters.
    Glob(String),
    /// An automaton that accepts it.
    Pattern(Pattern),
}

/// A deterministic automaton over classes of bytes.
///
/// State 0 never accepts, whatever follows; state 1 accepts, whatever follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The expression that it was made of. For people; not encoded.
    pub source: String,
    /// The class of each of the 256 bytes, less than `class_count`.
    pub classes: Vec<u8>,
    /// How many classes there are.
    pub class_count: u16,
    /// Where it begins.
    pub start: u16,
    /// States from this one on accept where the text ends; at least 2.
    pub ends_from: u16,
    /// For the states from 2 on, the next state by class.
    pub transitions: Vec<u16>,
}

/// Weekly windows in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What the clocks show.
    pub zone: Zone,
    /// Any of them.
    pub windows: Vec<Window>,
}

/// A time zone's offsets, as far as they are known. Before the first of them, and from the end on, it is unknown what time
/// it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// For people; not encoded.
    pub name: String,
    /// In the order of time.
    pub offsets: Vec<Offset>,
    /// From when on nothing is known, in Unix seconds; later than the last offset begins.
    pub until: i64,
}

/// What clocks differ from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// From when on, in Unix seconds.
    pub since: i64,
    /// What is added to UTC, in seconds; less than a day.
    pub seconds: i32,
}

/// Some hours on some days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// One bit for each day: 1 is Monday, 64 Sunday. At least one.
    pub days: u8,
    /// The first minute of the day, from 0.
    pub from: u16,
    /// The minute that is not in it any more, at most 1440; later than `from`.
    pub to: u16,
}
