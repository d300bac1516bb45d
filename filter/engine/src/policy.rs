//! A decoded rules section: checked once, then read in place.

use crate::decision::{Guarding, RuleIx};
use crate::layout::{
    InvalidRules, MAGIC, MAX_SECTION_BYTES, NONE, TRAILING_SLASH, Table, VERSION, code, size, word,
};
use crate::model::{ClaimPath, Disclosure, Effect, Lease, Mode, OnExpiry};

mod validate;

/// What one workload enforces. Made by [`PolicySet::decode`] only.
#[derive(Debug, Clone)]
pub struct PolicySet {
    words: Vec<u32>,
    /// Where each table begins, and how many words it has.
    tables: [(usize, usize); Table::ALL.len()],
    text: Vec<u8>,
    needs_port: bool,
    needs_fields: bool,
    may_degrade: bool,
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
    /// How long a stream that it lets in may outlive its tokens.
    pub lease: Lease,
}

// === impl PolicySet ===

impl PolicySet {
    /// Reads and checks a rules section, in time linear in its size.
    ///
    /// # Errors
    /// When it is not exactly what [`crate::encode`] writes: another version, a reference to something that is not
    /// there, an unknown code, an empty list where nothing would match.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidRules> {
        if bytes.len() > MAX_SECTION_BYTES {
            return Err(InvalidRules::TooLarge(bytes.len()));
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(InvalidRules::Magic)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(InvalidRules::Tables)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(InvalidRules::Version(version));
        }
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(InvalidRules::Tables)?;
        if size(u32::from_le_bytes(*count)) != Table::ALL.len() + 1 {
            return Err(InvalidRules::Tables);
        }
        let (directory, body) =
            rest.split_at_checked((Table::ALL.len() + 1) * 8).ok_or(InvalidRules::Tables)?;
        let mut directory = words_of(directory).into_iter();
        let mut next = || directory.next().map(size).ok_or(InvalidRules::Tables);
        let mut tables = [(0, 0); Table::ALL.len()];
        let mut expected = 0;
        for (table, slot) in Table::ALL.iter().zip(tables.iter_mut()) {
            let (offset, length) = (next()?, next()?);
            if offset != expected || !length.is_multiple_of(table.width()) {
                return Err(InvalidRules::Tables);
            }
            expected = expected.checked_add(length).ok_or(InvalidRules::Tables)?;
            *slot = (offset, length);
        }
        let (text_offset, text_length) = (next()?, next()?);
        if expected.checked_mul(4) != Some(text_offset) {
            return Err(InvalidRules::Tables);
        }
        let (body, text) = body.split_at_checked(text_offset).ok_or(InvalidRules::Tables)?;
        if text.len() != text_length {
            return Err(InvalidRules::Tables);
        }
        let mut policy = Self {
            words: words_of(body),
            tables,
            text: text.to_vec(),
            needs_port: false,
            needs_fields: false,
            may_degrade: false,
        };
        validate::validate(&policy)?;
        policy.needs_port = policy.constrains_ports();
        policy.needs_fields = policy.reads(code::OPERAND_HEADER);
        policy.may_degrade = policy.degrades();
        Ok(policy)
    }

    /// How many rules there are.
    pub fn rule_count(&self) -> usize {
        self.count(Table::Rules)
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

    /// Whether decisions depend on the port: a Guard or a rule names ports.
    pub fn needs_port(&self) -> bool {
        self.needs_port
    }

    /// Whether decisions depend on headers by their names: [`crate::Request::fields`].
    pub fn needs_fields(&self) -> bool {
        self.needs_fields
    }

    /// What a rule says about itself. `None` for a position that the policy does not have.
    pub fn rule(&self, rule: RuleIx) -> Option<RuleView<'_>> {
        if size(rule.0) >= self.rule_count() {
            return None;
        }
        let [id, meta, flags, _, _] = self.record(Table::Rules, rule.0);
        let [owner, contact] = self.record(Table::Meta, meta);
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
            lease: Lease {
                on_expiry: if flags & code::RULE_KEEP != 0 { OnExpiry::Keep } else { OnExpiry::Reset },
                grace_s: flags >> code::RULE_GRACE_SHIFT,
            },
        })
    }

    /// How a port is guarded: Enforce if any Guard that covers it enforces.
    pub fn guarding(&self, port: u16) -> Guarding {
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
                        self.list(list).iter().any(|known| self.string(*known) == audience)
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

    fn constrains_ports(&self) -> bool {
        let guard = |guard| {
            let [_, _, ports, _]: [u32; 4] = self.record(Table::Guards, guard);
            ports != NONE
        };
        let operation = |operation| {
            let [_, _, _, ports, _, _, _]: [u32; 7] = self.record(Table::Operations, operation);
            ports != NONE
        };
        (0..word(self.count(Table::Guards))).any(guard)
            || (0..word(self.count(Table::Operations))).any(operation)
            || self.reads(code::OPERAND_PORT)
    }

    /// Whether any condition reads this kind of operand.
    fn reads(&self, kind: u32) -> bool {
        (0..word(self.count(Table::Operands))).any(|operand| {
            let [there, _, _, _] = self.record(Table::Operands, operand);
            there == kind
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
    pub(crate) fn count(&self, table: Table) -> usize {
        self.tables.get(table.position()).map_or(0, |(_, length)| length / table.width())
    }

    pub(crate) fn record<const WIDTH: usize>(&self, table: Table, position: u32) -> [u32; WIDTH] {
        debug_assert_eq!(WIDTH, table.width());
        self.table(table)
            .get(size(position).saturating_mul(WIDTH)..)
            .and_then(|rest| rest.first_chunk::<WIDTH>())
            .copied()
            .unwrap_or([NONE; WIDTH])
    }

    pub(crate) fn table(&self, table: Table) -> &[u32] {
        let Some((offset, length)) = self.tables.get(table.position()) else { return &[] };
        self.words.get(*offset..).and_then(|rest| rest.get(..*length)).unwrap_or_default()
    }

    /// A list's items. Not for [`NONE`], which is "no constraint" and not an empty list.
    pub(crate) fn list(&self, at: u32) -> &[u32] {
        self.run(Table::Lists, at).1
    }

    /// A list with the flags in its length.
    pub(crate) fn run(&self, table: Table, at: u32) -> (u32, &[u32]) {
        let Some((length, rest)) = self.table(table).get(size(at)..).and_then(<[u32]>::split_first) else {
            return (0, &[]);
        };
        (length & TRAILING_SLASH, rest.get(..size(length & !TRAILING_SLASH)).unwrap_or_default())
    }

    pub(crate) fn bytes(&self, string: u32) -> &[u8] {
        let [offset, length]: [u32; 2] = self.record(Table::Strings, string);
        self.text.get(size(offset)..).and_then(|rest| rest.get(..size(length))).unwrap_or_default()
    }

    pub(crate) fn string(&self, string: u32) -> &str {
        core::str::from_utf8(self.bytes(string)).unwrap_or_default()
    }

    pub(crate) fn directory(&self, directory: u32) -> &str {
        let [name] = self.record(Table::Directories, directory);
        self.string(name)
    }
}

fn words_of(bytes: &[u8]) -> Vec<u32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect()
}
