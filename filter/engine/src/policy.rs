//! A decoded rules section: checked once, then read in place.

use crate::decision::{Guarding, RuleIx};
use crate::index::{Shape, Shapes};
use crate::layout::{InvalidRules, MAGIC, MAX_SECTION_BYTES, NONE, Table, VERSION, code, size, word};
use crate::model::{Audit, BodyField, ClaimPath, Disclosure, Effect, Lease, Mode, OnExpiry};
use crate::packed::{Pack, Packed};
use crate::scan;

mod validate;

/// What one workload enforces. Made by [`PolicySet::decode`] only.
#[derive(Debug, Clone)]
pub struct PolicySet {
    words: Vec<u32>,
    /// Where each table begins, and how many words it has.
    tables: [(usize, usize); Table::ALL.len()],
    /// The packed tables, and the text.
    rest: Vec<u8>,
    packs: [Pack; Packed::ALL.len()],
    /// Where the text begins.
    text: usize,
    shapes: Shapes,
    /// How every port is guarded, where no Guard names ports.
    guarding: Option<Guarding>,
    needs_port: bool,
    needs_fields: bool,
    may_degrade: bool,
    body_fields: Vec<BodyField>,
    /// Conditions that read the clock, of rules that deny: each once.
    timed_denies: Vec<u32>,
    /// Rules that nothing suspends, in order.
    revoking: Vec<RuleIx>,
    reads_time: bool,
    keeps_slashes: bool,
}

/// A rule as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleView<'p> {
    /// `namespace/name`.
    pub id: &'p str,
    /// Whose rule it is.
    pub owner: &'p str,
    /// Whom to ask.
    pub contact: &'p str,
    /// Allow or Deny.
    pub effect: Effect,
    /// Enforced or only reported.
    pub mode: Mode,
    /// How much a refusal tells.
    pub disclosure: Disclosure,
    /// What is recorded of the requests that it allows.
    pub audit: Audit,
    /// How long a stream that it lets in may outlive its tokens.
    pub lease: Lease,
    /// It takes something back for a time, and nothing suspends it.
    pub revokes: bool,
}

// === impl PolicySet ===

impl PolicySet {
    /// Reads and checks a rules section, in time linear in its size.
    ///
    /// # Errors
    /// When it is not exactly what [`crate::encode`] writes: another version, a reference to something that is not
    /// there, an unknown code, an empty list where nothing would match.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidRules> {
        Self::decode_in_place(bytes.to_vec())
    }

    /// As [`Self::decode`], and most of the section stays where it is: it is not in memory twice.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_in_place(mut section: Vec<u8>) -> Result<Self, InvalidRules> {
        if section.len() > MAX_SECTION_BYTES {
            return Err(InvalidRules::TooLarge(section.len()));
        }
        let rest = section.strip_prefix(&MAGIC).ok_or(InvalidRules::Magic)?;
        let mut reader = Reader { rest };
        let version = reader.word()?;
        if version != VERSION {
            return Err(InvalidRules::Version(version));
        }
        let mut tables = [(0, 0); Table::ALL.len()];
        let mut words = 0usize;
        for (table, slot) in Table::ALL.iter().zip(tables.iter_mut()) {
            let length = size(reader.word()?);
            if !length.is_multiple_of(table.width()) {
                return Err(InvalidRules::Tables);
            }
            *slot = (words, length);
            words = words.checked_add(length).ok_or(InvalidRules::Tables)?;
        }
        let mut packs = [Pack::default(); Packed::ALL.len()];
        let mut text = 0usize;
        for (table, slot) in Packed::ALL.iter().zip(packs.iter_mut()) {
            let pack = Pack::new(*table, text, reader.word()?, *reader.chunk()?)?;
            text = pack.length().and_then(|length| text.checked_add(length)).ok_or(InvalidRules::Tables)?;
            *slot = pack;
        }
        let text_length = size(reader.word()?);
        let words = words.checked_mul(4).ok_or(InvalidRules::Tables)?;
        let (words, rest) = reader.rest.split_at_checked(words).ok_or(InvalidRules::Tables)?;
        if text.checked_add(text_length) != Some(rest.len()) {
            return Err(InvalidRules::Tables);
        }
        let before = section.len().saturating_sub(rest.len());
        let words = words_of(words);
        section.drain(..before);
        section.shrink_to_fit();
        let mut policy = Self {
            words,
            tables,
            rest: section,
            packs,
            text,
            shapes: Shapes::default(),
            guarding: None,
            needs_port: false,
            needs_fields: false,
            may_degrade: false,
            body_fields: Vec::new(),
            timed_denies: Vec::new(),
            revoking: Vec::new(),
            reads_time: false,
            keeps_slashes: false,
        };
        let validated = validate::validate(&policy)?;
        policy.timed_denies = validated.timed_denies;
        policy.reads_time = validated.reads_time;
        policy.revoking = validated.revoking;
        policy.shapes = Shapes::new(
            (0..word(policy.count(Table::Shapes)))
                .map(|shape| Shape::of_words(policy.record(Table::Shapes, shape))),
        );
        policy.guarding = (!policy.guards_name_ports()).then(|| policy.guarding_of(0));
        policy.needs_port =
            policy.guarding.is_none() || policy.rules_name_ports() || policy.reads(code::OPERAND_PORT);
        policy.needs_fields = policy.reads(code::OPERAND_HEADER);
        policy.may_degrade = policy.degrades();
        policy.body_fields = policy.fields_of_bodies();
        policy.keeps_slashes = policy.allows_encoded_slashes();
        Ok(policy)
    }

    /// How many rules there are.
    pub fn rule_count(&self) -> usize {
        self.packed_count(Packed::Rules)
    }

    /// How many bytes of the section are strings, their lengths included. Equal strings are there once.
    pub fn string_bytes(&self) -> usize {
        self.text().len()
    }

    /// All strings, each behind its length.
    fn text(&self) -> &[u8] {
        self.rest.get(self.text..).unwrap_or_default()
    }

    /// The issuers that rules name, with the claims they read; positions are the indices that
    /// [`crate::Request::tokens`] and [`crate::VerifiedToken::slots`] use.
    pub fn issuers(&self) -> impl Iterator<Item = (&str, Vec<ClaimPath>)> {
        (0..word(self.count(Table::Issuers))).map(|issuer| {
            let [name, slots] = self.record(Table::Issuers, issuer);
            let slots = self
                .list(slots)
                .iter()
                .map(|path| self.list(*path).iter().map(|part| self.string(*part).to_owned()).collect())
                .collect();
            (self.string(name), slots)
        })
    }

    /// The names of the directories that conditions look ids up in.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        (0..word(self.count(Table::Directories))).map(|directory| self.directory(directory))
    }

    /// Whether any Guard covers the workload.
    pub fn has_guards(&self) -> bool {
        self.count(Table::Guards) > 0
    }

    /// Whether some rule lets nothing pass that cannot be recorded ([`Audit::Required`]). Looks at all rules' heads.
    pub fn requires_audit(&self) -> bool {
        (0..word(self.packed_count(Packed::Heads))).any(|head| {
            let [flags, _, _] = self.packed(Packed::Heads, head);
            flags & code::RULE_AUDIT_REQUIRED != 0
        })
    }

    /// Whether decisions depend on the port: a Guard or a rule names ports.
    pub fn needs_port(&self) -> bool {
        self.needs_port
    }

    /// Whether decisions depend on headers by their names: [`crate::Request::fields`].
    pub fn needs_fields(&self) -> bool {
        self.needs_fields
    }

    /// The fields of bodies that conditions read, for [`crate::body::Scanner`]. Without any, no decision
    /// [awaits](crate::Decision::awaits_body) a body.
    pub fn body_fields(&self) -> &[BodyField] {
        &self.body_fields
    }

    fn fields_of_bodies(&self) -> Vec<BodyField> {
        let operands = (0..word(self.count(Table::Operands))).map(|at| self.record(Table::Operands, at));
        let fields = operands.filter(|[kind, _, _, _]| *kind == code::OPERAND_BODY);
        // Each can be read: `validate` has tried.
        fields.filter_map(|[_, text, _, _]| self.string(text).parse().ok()).collect()
    }

    /// What a rule says about itself. `None` for a position that the policy does not have.
    pub fn rule(&self, rule: RuleIx) -> Option<RuleView<'_>> {
        if size(rule.0) >= self.rule_count() {
            return None;
        }
        let [id, head, _, _] = self.packed(Packed::Rules, rule.0);
        let [flags, owner, contact] = self.packed(Packed::Heads, head);
        let disclosure = if flags & code::RULE_DISCLOSE_NOTHING != 0 {
            Disclosure::Opaque
        } else if flags & code::RULE_DISCLOSE_CODE != 0 {
            Disclosure::Code
        } else {
            Disclosure::Full
        };
        Some(RuleView {
            id: self.string(id),
            owner: self.string(owner),
            contact: self.string(contact),
            effect: if flags & code::RULE_DENY != 0 { Effect::Deny } else { Effect::Allow },
            mode: if flags & code::RULE_SHADOW != 0 { Mode::Shadow } else { Mode::Enforce },
            disclosure,
            audit: if flags & code::RULE_AUDIT_REQUIRED != 0 {
                Audit::Required
            } else if flags & code::RULE_AUDIT_FULL != 0 {
                Audit::Full
            } else {
                Audit::Sampled
            },
            lease: if flags & code::RULE_DENY != 0 {
                Lease::default()
            } else {
                Lease {
                    on_expiry: if flags & code::RULE_KEEP != 0 { OnExpiry::Keep } else { OnExpiry::Reset },
                    grace_s: flags >> code::RULE_GRACE_SHIFT,
                }
            },
            revokes: self.revoking.binary_search(&rule).is_ok(),
        })
    }

    /// How a port is guarded: Enforce if any Guard that covers it enforces.
    pub fn guarding(&self, port: u16) -> Guarding {
        // Most policies have Guards for all ports only.
        match self.guarding {
            Some(guarding) => guarding,
            None => self.guarding_of(port),
        }
    }

    fn guarding_of(&self, port: u16) -> Guarding {
        let mut guarding = Guarding::None;
        for [_, mode, _, _] in self.guards_of(port) {
            if mode == code::ENFORCE {
                return Guarding::Enforce;
            }
            guarding = Guarding::Shadow;
        }
        guarding
    }

    /// Whether a token is meant for what the Guards of this port say: one of their audiences or, for a Guard without
    /// any, the request's host, as `host` or `https://host`. With several Guards one suffices; where one enforces, those
    /// in Shadow mode do not count: they would let more in.
    pub(crate) fn meant_for(&self, audiences: &[String], port: u16, host: Option<&str>) -> bool {
        let enforced = self.guarding(port) == Guarding::Enforce;
        self.guards_of(port).filter(|[_, mode, _, _]| !enforced || *mode == code::ENFORCE).any(
            |[_, _, _, list]| {
                audiences.iter().any(|audience| {
                    if list == NONE {
                        host.is_some_and(|host| audience.strip_prefix("https://").unwrap_or(audience) == host)
                    } else {
                        self.list(list)
                            .iter()
                            .any(|known| scan::same(self.bytes(*known), audience.as_bytes()))
                    }
                })
            },
        )
    }

    fn guards_of(&self, port: u16) -> impl Iterator<Item = [u32; 4]> {
        (0..word(self.count(Table::Guards)))
            .map(|guard| self.record(Table::Guards, guard))
            .filter(move |[_, _, ports, _]| *ports == NONE || self.list(*ports).contains(&u32::from(port)))
    }

    fn guards_name_ports(&self) -> bool {
        (0..word(self.count(Table::Guards))).any(|guard| {
            let [_, _, ports, _] = self.record(Table::Guards, guard);
            ports != NONE
        })
    }

    fn rules_name_ports(&self) -> bool {
        (0..word(self.packed_count(Packed::Frames))).any(|frame| {
            let [_, _, _, ports, _] = self.packed(Packed::Frames, frame);
            ports != NONE
        })
    }

    /// Whether any condition reads this kind of operand.
    fn reads(&self, kind: u32) -> bool {
        (0..word(self.count(Table::Operands))).any(|operand| {
            let [there, _, _, _] = self.record(Table::Operands, operand);
            there == kind
        })
    }

    /// Whether any condition reads the clock.
    pub fn reads_time(&self) -> bool {
        self.reads_time
    }

    /// Conditions of Deny rules that read the clock.
    pub(crate) fn timed_denies(&self) -> &[u32] {
        &self.timed_denies
    }

    /// Rules that nothing suspends, in order.
    pub(crate) fn revoking(&self) -> &[RuleIx] {
        &self.revoking
    }

    /// Whether any operation takes encoded slashes for data.
    pub(crate) fn keeps_slashes(&self) -> bool {
        self.keeps_slashes
    }

    fn allows_encoded_slashes(&self) -> bool {
        (0..word(self.packed_count(Packed::Frames))).any(|frame| {
            let [flags, ..] = self.packed::<5>(Packed::Frames, frame);
            flags & code::OPERATION_ENCODED_SLASHES != 0
        })
    }

    /// Whether any condition holds where a directory is stale.
    pub(crate) fn may_degrade(&self) -> bool {
        self.may_degrade
    }

    fn degrades(&self) -> bool {
        (0..word(self.count(Table::Conditions))).any(|condition| {
            let [operator, _, _, _] = self.record(Table::Conditions, condition);
            operator == code::LISTED_OR_STALE
        })
    }

    // Readers. INVARIANT: `validate` has seen every reference; what cannot be read is NONE or empty all the same.

    /// How many records a table has.
    #[inline]
    pub(crate) fn count(&self, table: Table) -> usize {
        self.tables.get(table.position()).map_or(0, |(_, length)| length / table.width())
    }

    #[inline]
    pub(crate) fn record<const WIDTH: usize>(&self, table: Table, position: u32) -> [u32; WIDTH] {
        debug_assert_eq!(WIDTH, table.width());
        self.table(table)
            .get(size(position).saturating_mul(WIDTH)..)
            .and_then(|rest| rest.first_chunk::<WIDTH>())
            .copied()
            .unwrap_or([NONE; WIDTH])
    }

    #[inline]
    pub(crate) fn table(&self, table: Table) -> &[u32] {
        let Some((offset, length)) = self.tables.get(table.position()) else { return &[] };
        self.words.get(*offset..).and_then(|rest| rest.get(..*length)).unwrap_or_default()
    }

    /// A list's items. Not for [`NONE`], which is "no constraint" and not an empty list.
    #[inline]
    pub(crate) fn list(&self, at: u32) -> &[u32] {
        self.run(Table::Lists, at)
    }

    /// A run of words behind its length.
    #[inline]
    pub(crate) fn run(&self, table: Table, at: u32) -> &[u32] {
        let run = self.table(table).get(size(at)..).and_then(<[u32]>::split_first);
        run.and_then(|(length, rest)| rest.get(..size(*length))).unwrap_or_default()
    }

    /// Calls `holds` with what is one thing or a list of them, until one is found.
    #[inline]
    pub(crate) fn each_of(&self, one_or_list: u32, mut found: impl FnMut(u32) -> bool) -> bool {
        if one_or_list & 1 == 0 {
            found(one_or_list >> 1)
        } else {
            self.list(one_or_list >> 1).iter().any(|one| found(*one))
        }
    }

    /// How many records a packed table has.
    #[inline]
    pub(crate) fn packed_count(&self, table: Packed) -> usize {
        self.packs.get(table.position()).map_or(0, Pack::count)
    }

    #[inline]
    pub(crate) fn packed<const FIELDS: usize>(&self, table: Packed, position: u32) -> [u32; FIELDS] {
        debug_assert_eq!(FIELDS, table.fields());
        match self.packs.get(table.position()) {
            Some(pack) => pack.record(&self.rest, position),
            None => [NONE; FIELDS],
        }
    }

    pub(crate) fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    #[inline]
    pub(crate) fn bytes(&self, string: u32) -> &[u8] {
        let text = self.rest.get(self.text.saturating_add(size(string))..).unwrap_or_default();
        let Some((first, rest)) = text.split_first() else { return &[] };
        if *first < 64 {
            return rest.get(..usize::from(*first)).unwrap_or_default();
        }
        string_at(text).map_or(&[], |(string, _)| string)
    }

    pub(crate) fn string(&self, string: u32) -> &str {
        core::str::from_utf8(self.bytes(string)).unwrap_or_default()
    }

    pub(crate) fn directory(&self, directory: u32) -> &str {
        let [name] = self.record(Table::Directories, directory);
        self.string(name)
    }
}

/// The string whose length is at the beginning of this text, and what follows it.
#[cold]
pub(crate) fn string_at(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut shift) = (0usize, 0u32);
    let mut rest = text;
    loop {
        let (byte, behind) = rest.split_first()?;
        // At most five groups, and none that says nothing: a length has one spelling.
        if *byte >= 128 || shift > 24 || (*byte == 0 && shift > 0) {
            return None;
        }
        rest = behind;
        length |= usize::from(*byte & 63) << shift;
        if *byte < 64 {
            return rest.split_at_checked(length);
        }
        shift += 6;
    }
}

/// What is left of a section's beginning.
struct Reader<'b> {
    rest: &'b [u8],
}

// === impl Reader ===

impl<'b> Reader<'b> {
    fn chunk<const LENGTH: usize>(&mut self) -> Result<&'b [u8; LENGTH], InvalidRules> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(InvalidRules::Tables)?;
        self.rest = rest;
        Ok(chunk)
    }

    fn word(&mut self) -> Result<u32, InvalidRules> {
        self.chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

fn words_of(bytes: &[u8]) -> Vec<u32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}
