//! Writes a [`PolicyModel`] in the flat form, index included.
//!
//! INVARIANT: deterministic. The same model gives the same bytes on every machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::layout::{
    MAGIC, MAX_CONDITION_DEPTH, MAX_CONDITION_PARTS, MAX_ISSUERS, MAX_SECTION_BYTES, NONE, TRAILING_SLASH,
    Table, VERSION, code, method_bit, tagged, word,
};
use crate::model::{
    ClaimRef, Disclosure, Effect, FromModel, GuardModel, HostPattern, Lease, Mode, OnExpiry, OperationModel,
    PathPattern, PeerModel, PolicyModel, RuleModel, SegmentPattern,
};

mod buckets;
mod clauses;
mod conditions;

use buckets::Buckets;
use clauses::ClauseIndex;

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
    let mut writer = Writer {
        model,
        tables: BTreeMap::new(),
        text: Vec::new(),
        strings: HashMap::new(),
        interned: HashMap::new(),
        parts: 0,
    };
    writer.issuers();
    for guard in &model.guards {
        writer.guard(guard)?;
    }
    for name in &model.directories {
        let name = writer.string(name);
        writer.push(Table::Directories, &[name]);
    }
    let mut index = ClauseIndex::default();
    for (position, rule) in rules.iter().enumerate() {
        let (froms, operations) = writer.rule(rule)?;
        index.add(word(position), rule, &froms, &operations);
    }
    let (clauses, keys) = index.finish();
    for clause in &clauses {
        writer.push(Table::Clauses, &[clause.rule, clause.from, clause.operation]);
    }
    for shape in keys.keys().map(|(shape, _)| *shape).collect::<BTreeSet<_>>() {
        writer.push(Table::Shapes, &[shape.subject, shape.claim, shape.depth]);
    }
    let buckets = Buckets::build(&keys);
    for (tag, value) in buckets.buckets {
        writer.push(Table::Buckets, &[tag, value]);
    }
    writer.push(Table::Postings, &buckets.postings);
    writer.finish()
}

struct Writer<'m> {
    model: &'m PolicyModel,
    tables: BTreeMap<usize, Vec<u32>>,
    text: Vec<u8>,
    strings: HashMap<String, u32>,
    /// Records that are written once however often they occur, by table and content.
    interned: HashMap<(usize, Vec<u32>), u32>,
    /// How many parts the condition has that is being written.
    parts: u32,
}

// === impl Writer ===

impl Writer<'_> {
    /// Appends a record; returns its position.
    fn push(&mut self, table: Table, record: &[u32]) -> u32 {
        let words = self.tables.entry(table.position()).or_default();
        let position = words.len() / table.width();
        words.extend_from_slice(record);
        word(position)
    }

    /// Appends a record unless the same one is there already.
    fn intern(&mut self, table: Table, record: Vec<u32>) -> u32 {
        let key = (table.position(), record);
        if let Some(known) = self.interned.get(&key) {
            return *known;
        }
        let position = self.push(table, &key.1);
        self.interned.insert(key, position);
        position
    }

    fn string(&mut self, text: &str) -> u32 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let record = [word(self.text.len()), word(text.len())];
        self.text.extend_from_slice(text.as_bytes());
        let position = self.push(Table::Strings, &record);
        self.strings.insert(text.to_owned(), position);
        position
    }

    fn list(&mut self, items: &[u32]) -> u32 {
        self.flagged_list(0, items)
    }

    fn flagged_list(&mut self, flags: u32, items: &[u32]) -> u32 {
        let mut run = Vec::with_capacity(items.len() + 1);
        run.push(word(items.len()) | flags);
        run.extend_from_slice(items);
        self.intern(Table::Lists, run)
    }

    fn strings(&mut self, items: &[String]) -> u32 {
        let items: Vec<u32> = items.iter().map(|item| self.string(item)).collect();
        self.list(&items)
    }

    fn optional<T>(
        &mut self,
        items: Option<&[T]>,
        place: &str,
        field: &str,
        mut item: impl FnMut(&mut Self, &T) -> Result<u32, EncodeError>,
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

    fn guard(&mut self, guard: &GuardModel) -> Result<(), EncodeError> {
        let place = format!("guard {}", guard.id);
        let ports = self.optional(guard.ports.as_deref(), &place, "ports", |_, port| Ok(u32::from(*port)))?;
        let audiences = self
            .optional(guard.audiences.as_deref(), &place, "audience", |writer, one| Ok(writer.string(one)))?;
        let mode = match guard.mode {
            Mode::Enforce => code::ENFORCE,
            Mode::Shadow => code::SHADOW,
        };
        let record = [self.string(&guard.id), mode, ports, audiences];
        self.push(Table::Guards, &record);
        Ok(())
    }

    /// Writes a rule; returns the positions of its froms and of its operations (`None`: any operation).
    fn rule(&mut self, rule: &RuleModel) -> Result<(Vec<u32>, Option<Vec<u32>>), EncodeError> {
        let place = format!("rule {}", rule.id);
        let froms = rule
            .from
            .iter()
            .enumerate()
            .map(|(position, from)| self.from(from, &format!("{place}: from[{position}]")))
            .collect::<Result<Vec<u32>, _>>()?;
        let from_list = self.optional(Some(&froms), &place, "from", |_, from| Ok(*from))?;
        let operations = match &rule.to {
            None => None,
            Some(to) => Some(
                to.iter()
                    .enumerate()
                    .map(|(position, one)| self.operation(one, &format!("{place}: to[{position}]")))
                    .collect::<Result<Vec<u32>, _>>()?,
            ),
        };
        let to_list = self.optional(operations.as_deref(), &place, "to", |_, one| Ok(*one))?;
        let mut flags = 0;
        if rule.effect == Effect::Deny {
            flags |= code::RULE_DENY;
        }
        if rule.mode == Mode::Shadow {
            flags |= code::RULE_SHADOW;
        }
        flags |= match rule.disclosure {
            Disclosure::Full => 0,
            Disclosure::Code => code::RULE_DISCLOSE_CODE,
            Disclosure::Opaque => code::RULE_DISCLOSE_NOTHING,
        };
        if rule.lease.on_expiry == OnExpiry::Keep {
            flags |= code::RULE_KEEP;
        }
        if rule.lease.grace_s > Lease::MAX_GRACE_S {
            return Err(EncodeError::Grace(place));
        }
        flags |= rule.lease.grace_s << code::RULE_GRACE_SHIFT;
        let meta = vec![self.string(&rule.owner), self.string(&rule.contact)];
        let meta = self.intern(Table::Meta, meta);
        let record = [self.string(&rule.id), meta, flags, from_list, to_list];
        self.push(Table::Rules, &record);
        Ok((froms, operations))
    }

    fn from(&mut self, from: &FromModel, place: &str) -> Result<u32, EncodeError> {
        let (kind, trust_domain, namespace, accounts) = match &from.peer {
            PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
                let accounts = self.optional(
                    service_accounts.as_deref(),
                    place,
                    "peer.serviceAccounts",
                    |writer, account| Ok(writer.string(account)),
                )?;
                (code::PEER_MESH, self.string(trust_domain), self.string(namespace), accounts)
            }
            PeerModel::AnyMesh { trust_domain } => {
                (code::PEER_ANY_MESH, self.string(trust_domain), NONE, NONE)
            }
            PeerModel::NoPeer => (code::PEER_NONE, NONE, NONE, NONE),
            PeerModel::Anyone => (code::PEER_ANYONE, NONE, NONE, NONE),
        };
        let mut issuers: Vec<u32> = from.issuers.iter().map(|issuer| u32::from(*issuer)).collect();
        issuers.sort_unstable();
        issuers.dedup();
        if issuers.iter().any(|issuer| word(self.model.issuers.len()) <= *issuer) {
            return Err(EncodeError::Dangling { place: place.to_owned(), what: "issuer" });
        }
        let issuer_list = self.list(&issuers);
        self.parts = 0;
        let condition = self.condition(&from.condition, &from.issuers, place, 0)?;
        Ok(self.intern(Table::Froms, vec![kind, trust_domain, namespace, accounts, issuer_list, condition]))
    }

    fn operation(&mut self, operation: &OperationModel, place: &str) -> Result<u32, EncodeError> {
        let (bits, others) = match operation.methods.as_deref() {
            None => (NONE, NONE),
            Some([]) => return Err(EncodeError::Empty(format!("{place}.methods"))),
            Some(methods) => {
                let bits = methods.iter().fold(0, |bits, method| bits | method_bit(method.as_bytes()));
                let others: Vec<String> =
                    methods.iter().filter(|method| method_bit(method.as_bytes()) == 0).cloned().collect();
                (bits, if others.is_empty() { NONE } else { self.strings(&others) })
            }
        };
        let ports =
            self.optional(operation.ports.as_deref(), place, "ports", |_, port| Ok(u32::from(*port)))?;
        let hosts = self.optional(operation.hosts.as_deref(), place, "hosts", |writer, host| {
            Ok(match host {
                HostPattern::Exact(name) => tagged(code::HOST_EXACT, writer.string(name)),
                HostPattern::Suffix(suffix) if suffix.starts_with('.') => {
                    tagged(code::HOST_SUFFIX, writer.string(suffix))
                }
                HostPattern::Suffix(_) => {
                    return Err(EncodeError::Pattern {
                        place: format!("{place}.hosts"),
                        why: "the suffix after `*` must begin with a dot",
                    });
                }
            })
        })?;
        let paths = self
            .optional(operation.paths.as_deref(), place, "paths", |writer, path| writer.path(path, place))?;
        let flags = if operation.grpc { code::OPERATION_GRPC } else { 0 };
        // No tokens are demanded, so no claims can be read.
        self.parts = 0;
        let condition = self.condition(&operation.condition, &[], place, 0)?;
        Ok(self.intern(Table::Operations, vec![flags, bits, others, ports, hosts, paths, condition]))
    }

    /// A template's last segment may be an empty literal: a trailing slash.
    fn path(&mut self, path: &PathPattern, place: &str) -> Result<u32, EncodeError> {
        let refuse = |why| EncodeError::Pattern { place: format!("{place}.paths"), why };
        let (segments, trailing) = match path.segments.as_slice() {
            [one] if *one == SegmentPattern::Literal(String::new()) => (&[][..], 0),
            [inner @ .., last] if *last == SegmentPattern::Literal(String::new()) => (inner, TRAILING_SLASH),
            [] => return Err(refuse("a path has at least one segment; `/` is one empty literal")),
            all => (all, 0),
        };
        let mut words = Vec::with_capacity(segments.len());
        for (position, segment) in segments.iter().enumerate() {
            words.push(match segment {
                SegmentPattern::Literal(text) if text.is_empty() || text.contains('/') => {
                    return Err(refuse("a literal segment is not empty and has no slash"));
                }
                SegmentPattern::Literal(text) => tagged(code::SEGMENT_LITERAL, self.string(text)),
                SegmentPattern::One => tagged(code::SEGMENT_ONE, 0),
                SegmentPattern::Rest if position + 1 < segments.len() || trailing != 0 => {
                    return Err(refuse("`{**}` can only be the last segment"));
                }
                SegmentPattern::Rest => tagged(code::SEGMENT_REST, 0),
                SegmentPattern::Glob(pattern) => tagged(code::SEGMENT_GLOB, self.string(pattern)),
            });
        }
        Ok(self.flagged_list(trailing, &words))
    }

    fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let tables: Vec<Vec<u32>> = Table::ALL
            .iter()
            .map(|table| self.tables.remove(&table.position()).unwrap_or_default())
            .collect();
        let out = section(&tables, &self.text);
        if out.len() > MAX_SECTION_BYTES { Err(EncodeError::TooLarge(out.len())) } else { Ok(out) }
    }
}

/// A section of these tables, in the order of [`Table::ALL`], and this text.
pub(crate) fn section(tables: &[Vec<u32>], text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&word(tables.len() + 1).to_le_bytes());
    let mut offset = 0;
    for words in tables {
        out.extend_from_slice(&word(offset).to_le_bytes());
        out.extend_from_slice(&word(words.len()).to_le_bytes());
        offset += words.len();
    }
    out.extend_from_slice(&word(offset * 4).to_le_bytes());
    out.extend_from_slice(&word(text.len()).to_le_bytes());
    for one in tables.iter().flatten() {
        out.extend_from_slice(&one.to_le_bytes());
    }
    out.extend_from_slice(text);
    out
}

/// Issuer and slot as one word.
pub(crate) fn claim_word(claim: ClaimRef) -> u32 {
    u32::from(claim.issuer) << 16 | u32::from(claim.slot)
}
