//! Writes a [`PolicyModel`] in the flat form, index included.
//!
//! INVARIANT: deterministic. The same model gives the same bytes on every machine.

use std::borrow::Cow;

use crate::layout::{
    MAGIC, MAX_CONDITION_DEPTH, MAX_CONDITION_PARTS, MAX_ISSUERS, MAX_SECTION_BYTES, NONE, Table, VERSION,
    code, word,
};
use crate::model::{BodyField, ClaimRef, GuardModel, Lease, Mode, PolicyModel, RuleModel};
use crate::packed::{MOST_FIELDS, Packed, pack};

mod buckets;
mod clauses;
mod conditions;
mod interned;
mod place;
mod rules;
mod shapes;

use clauses::Clauses;
use interned::{Map, Seed, Texts};
use place::Place;
use rules::Rarity;

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
    let mut rules: Vec<&RuleModel> = model.rules.iter().collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some([twice, _]) = rules.array_windows::<2>().find(|[a, b]| a.id == b.id) {
        return Err(EncodeError::Duplicate(twice.id.clone()));
    }
    if model.issuers.len() > MAX_ISSUERS {
        return Err(EncodeError::Issuers("more issuers are named than filters accept (64)".to_owned()));
    }
    for (position, issuer) in model.issuers.iter().enumerate() {
        if model.issuers.iter().take(position).any(|earlier| earlier.name == issuer.name) {
            return Err(EncodeError::Issuers(format!("issuer `{}` is there twice", issuer.name)));
        }
    }
    let seed = Seed::default();
    let mut writer = Writer {
        model,
        rarity: rules::rarity(model, seed),
        tables: Default::default(),
        packed: Default::default(),
        text: Vec::new(),
        // Most rules have three or four of their own.
        strings: Map::with_capacity_and_hasher(4 * rules.len(), seed),
        runs: Map::with_hasher(seed),
        run: Vec::new(),
        records: Map::with_hasher(seed),
        shared: Map::with_capacity_and_hasher(4 * rules.len(), seed),
        parts: 0,
        of_operation: false,
        body_fields: Vec::new(),
    };
    writer.issuers();
    for guard in &model.guards {
        writer.guard(guard)?;
    }
    for name in &model.directories {
        let name = writer.string(name);
        writer.push(Table::Directories, &[name]);
    }
    let written = rules.iter().map(|rule| writer.parts_of(rule)).collect::<Result<Vec<_>, _>>()?;
    let mut clauses = Clauses::new(&rules, seed);
    for (position, (rule, written)) in rules.iter().zip(&written).enumerate() {
        writer.rule(rule, written)?;
        clauses.add(position, rule, written);
    }
    clauses.write(&mut writer);
    writer.finish()
}

struct Writer<'m> {
    model: &'m PolicyModel,
    rarity: Rarity<'m>,
    /// By position of the table.
    tables: [Vec<u32>; Table::ALL.len()],
    packed: [Vec<u32>; Packed::ALL.len()],
    text: Vec<u8>,
    strings: Texts<'m>,
    /// Runs that are written once however often they occur, by content and table.
    runs: Map<Vec<u32>, Vec<(usize, u32)>>,
    /// The run that is being put together.
    run: Vec<u32>,
    /// The same of records: conditions and operands.
    records: Map<(usize, [u32; 4]), u32>,
    shared: Map<(Packed, [u32; MOST_FIELDS]), u32>,
    /// How many parts the condition has that is being written.
    parts: u32,
    /// Whether it may read the body.
    of_operation: bool,
    /// Fields of bodies, in the order of their operands.
    body_fields: Vec<BodyField>,
}

// === impl Writer ===

impl<'m> Writer<'m> {
    /// Appends a record; returns its position.
    fn push(&mut self, table: Table, record: &[u32]) -> u32 {
        let Some(words) = self.tables.get_mut(table.position()) else { return NONE };
        let position = words.len() / table.width();
        words.extend_from_slice(record);
        word(position)
    }

    /// Appends a record unless the same one is there already.
    fn intern(&mut self, table: Table, record: [u32; 4]) -> u32 {
        let key = (table.position(), record);
        if let Some(known) = self.records.get(&key) {
            return *known;
        }
        let position = self.push(table, &record);
        self.records.insert(key, position);
        position
    }

    /// Appends a run and its length unless the same one is there already.
    fn run(&mut self, table: Table, words: &[u32]) -> u32 {
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        run.push(word(words.len()));
        run.extend_from_slice(words);
        let known =
            self.runs.get(&run).and_then(|known| known.iter().find(|(at, _)| *at == table.position()));
        let position = match known {
            Some((_, position)) => *position,
            None => {
                let position = self.push(table, &run);
                self.runs.entry(run.clone()).or_default().push((table.position(), position));
                position
            }
        };
        self.run = run;
        position
    }

    /// Appends a record to a packed table; returns its position.
    fn put(&mut self, table: Packed, record: &[u32]) -> u32 {
        let Some(words) = self.packed.get_mut(table.position()) else { return NONE };
        let position = words.len() / table.fields();
        words.extend_from_slice(record);
        word(position)
    }

    /// Appends a record to a packed table unless the same one is there already.
    fn share<const FIELDS: usize>(&mut self, table: Packed, record: [u32; FIELDS]) -> u32 {
        let mut key = [NONE; MOST_FIELDS];
        for (field, value) in key.iter_mut().zip(record) {
            *field = value;
        }
        let words = self.packed.get(table.position()).map_or(0, Vec::len);
        let position = word(words / table.fields());
        let known = *self.shared.entry((table, key)).or_insert(position);
        if known == position {
            self.put(table, &record);
        }
        known
    }

    fn string(&mut self, text: impl Into<Cow<'m, str>>) -> u32 {
        let text = text.into();
        if let Some(known) = self.strings.get(&text) {
            return *known;
        }
        let position = word(self.text.len());
        let mut length = word(text.len());
        loop {
            let group = length.to_le_bytes().first().map_or(0, |byte| byte & 63);
            length >>= 6;
            if length == 0 {
                self.text.push(group);
                break;
            }
            self.text.push(group | 64);
        }
        self.text.extend_from_slice(text.as_bytes());
        self.strings.insert(text, position);
        position
    }

    fn list(&mut self, items: &[u32]) -> u32 {
        self.run(Table::Lists, items)
    }

    fn strings(&mut self, items: &'m [String]) -> u32 {
        let items: Vec<u32> = items.iter().map(|item| self.string(item)).collect();
        self.list(&items)
    }

    fn optional<'t, T>(
        &mut self,
        items: Option<&'t [T]>,
        place: Place<'_>,
        field: &str,
        mut item: impl FnMut(&mut Self, &'t T) -> Result<u32, EncodeError>,
    ) -> Result<u32, EncodeError> {
        match items {
            None => Ok(NONE),
            Some([]) => Err(EncodeError::Empty(format!("{place}.{field}"))),
            Some(items) => {
                let words = items.iter().map(|one| item(self, one)).collect::<Result<Vec<u32>, _>>()?;
                Ok(self.list(&words))
            }
        }
    }

    fn issuers(&mut self) {
        for issuer in &self.model.issuers {
            let slots: Vec<u32> = issuer.slots.iter().map(|path| self.strings(path)).collect();
            let record = [self.string(&issuer.name), self.list(&slots)];
            self.push(Table::Issuers, &record);
        }
    }

    fn guard(&mut self, guard: &'m GuardModel) -> Result<(), EncodeError> {
        let place = Place::Guard(&guard.id);
        let ports = self.optional(guard.ports.as_deref(), place, "ports", |_, port| Ok(u32::from(*port)))?;
        let audiences = self
            .optional(guard.audiences.as_deref(), place, "audience", |writer, one| Ok(writer.string(one)))?;
        let mode = match guard.mode {
            Mode::Enforce => code::ENFORCE,
            Mode::Shadow => code::SHADOW,
        };
        let record = [self.string(&guard.id), mode, ports, audiences];
        self.push(Table::Guards, &record);
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, EncodeError> {
        let out = section(&self.tables, &self.packed, &self.text);
        if out.len() > MAX_SECTION_BYTES { Err(EncodeError::TooLarge(out.len())) } else { Ok(out) }
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
