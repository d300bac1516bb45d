//! Puts things into a section: each where it is first needed, in the order of rules.
//!
//! INVARIANT: where a thing lies depends on the rules and their order alone, not on which things were known before.

use crate::body::MAX_BODY_FIELDS;
use crate::hash;
use crate::layout::{NONE, Table, code, size, word};
use crate::packed::Packed;

use super::found::{Found, Seed};
use super::pool::{Kind, ListOf, Pool, Thing};

pub(super) struct Linker<'p> {
    pool: &'p Pool,
    /// By position of the kind and number of the thing, where it lies; [`NONE`]: nowhere yet.
    placed: [Vec<u32>; Kind::ALL.len()],
    /// By position of the table.
    pub(super) tables: [Vec<u32>; Table::ALL.len()],
    pub(super) packed: [Vec<u32>; Packed::ALL.len()],
    pub(super) text: Vec<u8>,
    fields: u32,
    /// Runs that are written once however often they occur.
    lists: Found,
    automata: Found,
    zones: Found,
    /// Where lists are expected to differ: of each a part of its hash, and its position.
    ///
    /// Two lists of different things may be the same words. Where both are of rules, and neither of numbers, that is rare, and
    /// looking for it among many lists takes longer than anything else: so it is looked for when all are there.
    unlike: Option<Vec<u64>>,
    /// Whether rules are being put there: what comes before them lies where numbers are small, too.
    has_rules: bool,
    /// The run that is being put together.
    run: Vec<u32>,
}

/// How much there is in a section.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    tables: [usize; Table::ALL.len()],
    packed: [usize; Packed::ALL.len()],
    text: usize,
}

// === impl Linker ===

impl<'p> Linker<'p> {
    /// `sizes`: as many as there may be. `expects_unlike`: whether lists are expected to differ.
    pub fn new(pool: &'p Pool, sizes: Sizes, expects_unlike: bool) -> Self {
        let found = |kind| Found::with_capacity(size(pool.count(kind)));
        Self {
            pool,
            placed: Kind::ALL.map(|kind| vec![NONE; size(pool.count(kind))]),
            tables: sizes.tables.map(Vec::with_capacity),
            packed: sizes.packed.map(Vec::with_capacity),
            text: Vec::with_capacity(sizes.text),
            fields: 0,
            lists: if expects_unlike { Found::default() } else { found(Kind::List) },
            unlike: expects_unlike.then(|| Vec::with_capacity(size(pool.count(Kind::List)))),
            has_rules: false,
            automata: found(Kind::Automaton),
            zones: found(Kind::Zone),
            run: Vec::new(),
        }
    }

    /// All that is put there from now on is of rules.
    pub fn begin_rules(&mut self) {
        self.has_rules = true;
    }

    /// Whether lists differ where that was expected. All are there.
    pub fn is_as_expected(&mut self) -> bool {
        let Some(hashes) = &mut self.unlike else { return true };
        hashes.sort_unstable();
        let table = self.tables.get(Table::Lists.position()).map_or(&[][..], Vec::as_slice);
        let run_at = |hash: &u64| {
            let rest = table.get(size(u32::try_from(hash & 0xFFFF_FFFF).unwrap_or(NONE))..)?;
            rest.get(..size(*rest.first()?).saturating_add(1))
        };
        // All that have the same part of the hash are compared with each other.
        hashes.chunk_by(|a, b| a >> 32 == b >> 32).all(|same| {
            let mut rest = same;
            let mut differ = true;
            while let Some((one, others)) = rest.split_first() {
                differ &= others.iter().all(|other| run_at(one) != run_at(other));
                rest = others;
            }
            differ
        })
    }

    /// How much there is, and a little more.
    pub fn sizes(&self) -> Sizes {
        let more = |length: usize| length.saturating_add(length / 64).saturating_add(64);
        let of = |words: &Vec<u32>| more(words.len());
        Sizes {
            tables: self.tables.each_ref().map(of),
            packed: self.packed.each_ref().map(of),
            text: more(self.text.len()),
        }
    }

    /// Where a thing lies.
    #[inline]
    pub fn at(&self, kind: Kind, number: u32) -> u32 {
        self.placed.get(kind.position()).and_then(|placed| placed.get(size(number))).copied().unwrap_or(NONE)
    }

    /// Puts a thing there unless it is. What it refers to is there. `None`: there is no room.
    #[inline]
    pub fn place(&mut self, thing: Thing) -> Option<()> {
        let (kind, number) = (thing.kind(), thing.number());
        if self.at(kind, number) != NONE {
            return Some(());
        }
        let position = self.put(kind, number)?;
        *self.placed.get_mut(kind.position())?.get_mut(size(number))? = position;
        Some(())
    }

    fn put(&mut self, kind: Kind, number: u32) -> Option<u32> {
        Some(match kind {
            Kind::Text => {
                let position = word(self.text.len());
                self.text.extend_from_slice(self.pool.text_at(number));
                position
            }
            Kind::List => self.list(number),
            Kind::Automaton => self.of_numbers(Table::Automata, self.pool.automaton_at(number)),
            Kind::Zone => self.of_numbers(Table::Zones, self.pool.zone_at(number)),
            Kind::Field => {
                let position = self.fields;
                if size(position) >= MAX_BODY_FIELDS {
                    return None;
                }
                self.fields = position.saturating_add(1);
                position
            }
            Kind::Condition => {
                let record = self.condition(self.pool.record_at(kind, number));
                self.push(Table::Conditions, &record)
            }
            Kind::Operand => {
                let record = self.operand(self.pool.record_at(kind, number));
                self.push(Table::Operands, &record)
            }
            Kind::Heads => {
                let [flags, owner, contact] = self.pool.record_at(kind, number);
                self.append(Packed::Heads, &[flags, self.text(owner), self.text(contact)])
            }
            Kind::Froms => {
                let [peer, accounts, demand, value] = self.pool.record_at(kind, number);
                let accounts = self.one_or_list(accounts, |one| self.text(one));
                let record =
                    [self.at(Kind::Peers, peer), accounts, self.at(Kind::Demands, demand), self.text(value)];
                self.append(Packed::Froms, &record)
            }
            Kind::Peers => {
                let [kind, trust_domain, namespace] = self.pool.record_at(kind, number);
                self.append(Packed::Peers, &[kind, self.text(trust_domain), self.text(namespace)])
            }
            Kind::Demands => {
                let [issuers, claim, condition] = self.pool.record_at(kind, number);
                let record = [self.at(Kind::List, issuers), claim, self.at(Kind::Condition, condition)];
                self.append(Packed::Demands, &record)
            }
            Kind::Operations => {
                let [frame, paths, condition] = self.pool.record_at(kind, number);
                let paths = self.one_or_list(paths, |one| self.path(one));
                let record = [self.at(Kind::Frames, frame), paths, self.at(Kind::Condition, condition)];
                self.append(Packed::Operations, &record)
            }
            Kind::Frames => {
                let [flags, bits, others, ports, hosts] = self.pool.record_at(kind, number);
                let list = |list| self.at(Kind::List, list);
                self.append(Packed::Frames, &[flags, bits, list(others), list(ports), list(hosts)])
            }
            Kind::Nodes => {
                let [segment, next] = self.pool.record_at(kind, number);
                let segment = match segment & 3 {
                    code::SEGMENT_ONE => segment,
                    kind => self.text(segment >> 2) << 2 | kind,
                };
                self.append(Packed::Nodes, &[segment, self.path(next)])
            }
        })
    }

    #[inline]
    fn text(&self, number: u32) -> u32 {
        self.at(Kind::Text, number)
    }

    /// What a path goes on with.
    #[inline]
    fn path(&self, next: u32) -> u32 {
        match next.checked_sub(code::PATH_NODES) {
            Some(node) => self.at(Kind::Nodes, node).saturating_add(code::PATH_NODES),
            None => next,
        }
    }

    /// As in a rule's record.
    #[inline]
    pub fn one_or_list(&self, word: u32, one: impl Fn(u32) -> u32) -> u32 {
        match word {
            NONE => NONE,
            list if list & 1 == 1 => self.at(Kind::List, list >> 1) << 1 | 1,
            alone => one(alone >> 1) << 1,
        }
    }

    fn list(&mut self, number: u32) -> u32 {
        let (of, words) = self.pool.list_at(number);
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        run.push(word(words.len()));
        run.extend(words.iter().map(|word| match of {
            ListOf::Numbers => *word,
            ListOf::Texts => self.text(*word),
            ListOf::Hosts => self.text(word >> 1) << 1 | word & 1,
            ListOf::Paths => self.path(*word),
            ListOf::Lists => self.at(Kind::List, *word),
            ListOf::Conditions => self.at(Kind::Condition, *word),
            ListOf::Froms => self.at(Kind::Froms, *word),
            ListOf::Operations => self.at(Kind::Operations, *word),
        }));
        let may_be_another = !self.has_rules || matches!(of, ListOf::Numbers | ListOf::Lists);
        self.run(Table::Lists, run, may_be_another)
    }

    fn of_numbers(&mut self, table: Table, words: &[u32]) -> u32 {
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        run.push(word(words.len()));
        run.extend_from_slice(words);
        self.run(table, run, true)
    }

    /// A run and its length, unless the same one is there already. `may_be_another`: else that is not expected.
    fn run(&mut self, table: Table, run: Vec<u32>, may_be_another: bool) -> u32 {
        let hash = run
            .iter()
            .fold(Seed::number(self.pool.seed()), |hash, word| hash::number(hash, u64::from(*word)));
        let there = self.tables.get(table.position()).map_or(&[][..], Vec::as_slice);
        let position = word(there.len());
        let found = match table {
            Table::Automata => &mut self.automata,
            Table::Zones => &mut self.zones,
            _ => &mut self.lists,
        };
        if self.unlike.is_none() || may_be_another {
            let is_it = |at: u32| there.get(size(at)..).is_some_and(|there| there.starts_with(&run));
            match found.get_or_insert(hash, is_it) {
                Ok(known) => {
                    self.run = run;
                    return known;
                }
                Err(free) => found.insert(free, position),
            }
        }
        if let (Table::Lists, Some(hashes)) = (table, &mut self.unlike) {
            hashes.push(hash >> 32 << 32 | u64::from(position));
        }
        self.push(table, &run);
        self.run = run;
        position
    }

    fn condition(&self, [operator, a, b, c]: [u32; 4]) -> [u32; 4] {
        let (list, text) = (|list| self.at(Kind::List, list), |text| self.text(text));
        let operand = |operand| self.at(Kind::Operand, operand);
        let [a, b] = match operator {
            code::ALL | code::ANY => [list(a), b],
            code::NOT => [self.at(Kind::Condition, a), b],
            code::ONE_OF => [a, list(b)],
            code::GLOB | code::CONTAINS => [a, text(b)],
            code::EQUAL | code::LESS | code::LESS_OR_EQUAL => [operand(a), operand(b)],
            code::TEXT_PRESENT => [operand(a), b],
            code::TEXT_ONE_OF => [operand(a), list(b)],
            code::TEXT_PREFIX | code::TEXT_SUFFIX | code::TEXT_INFIX | code::TEXT_GLOB => {
                [operand(a), text(b)]
            }
            code::TEXT_PATTERN => [operand(a), self.at(Kind::Automaton, b)],
            code::WITHIN => [self.at(Kind::Zone, a), list(b)],
            // What refers to nothing but claims and directories.
            _ => [a, b],
        };
        [operator, a, b, c]
    }

    fn operand(&self, [kind, a, b, c]: [u32; 4]) -> [u32; 4] {
        let [a, b] = match kind {
            code::OPERAND_HEADER | code::OPERAND_QUERY | code::OPERAND_TEXT => [self.text(a), b],
            code::OPERAND_BODY => [self.text(a), self.at(Kind::Field, b)],
            code::OPERAND_LENGTH | code::OPERAND_PLUS => [self.at(Kind::Operand, a), b],
            _ => [a, b],
        };
        [kind, a, b, c]
    }

    /// A record of the header, and of what it refers to.
    pub fn header(&mut self, table: Table, record: &[u32]) {
        let (text, list) = (|text| self.text(text), |list| self.at(Kind::List, list));
        match (table, record) {
            (Table::Issuers, [name, slots]) => self.push(table, &[text(*name), list(*slots)]),
            (Table::Guards, [id, mode, ports, audiences]) => {
                self.push(table, &[text(*id), *mode, list(*ports), list(*audiences)])
            }
            (_, names) => {
                let names: Vec<u32> = names.iter().map(|name| text(*name)).collect();
                self.push(table, &names)
            }
        };
    }

    /// Appends a record; returns its position.
    pub fn push(&mut self, table: Table, record: &[u32]) -> u32 {
        let Some(words) = self.tables.get_mut(table.position()) else { return NONE };
        let position = words.len() / table.width();
        words.extend_from_slice(record);
        word(position)
    }

    /// Appends a record to a packed table; returns its position.
    #[inline]
    pub fn append(&mut self, table: Packed, record: &[u32]) -> u32 {
        let Some(words) = self.packed.get_mut(table.position()) else { return NONE };
        let position = words.len() / table.fields();
        words.extend_from_slice(record);
        word(position)
    }
}
