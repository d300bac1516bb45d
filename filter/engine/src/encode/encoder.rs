//! Writes a policy again and again as its rules change.
//!
//! Of every rule it is known what it is written with, and under what it is filed; a rule that is still the same in memory is not
//! looked at again. What depends on all rules, which is where things lie and what tells rules apart, is made of that each time.
//!
//! INVARIANT: what was written before never changes what is written. There is one way: a first time is one in which all rules
//! are new.

use std::collections::BTreeMap;

use crate::index;
use crate::index::Shape;
use crate::layout::{MAX_ISSUERS, MAX_SECTION_BYTES, NONE, Table, code, size};
use crate::model::{GuardModel, IssuerModel, Mode, PolicyModel, RuleModel, SharedRule};
use crate::packed::Packed;

use super::choice::{Choices, Range, Rarity};
use super::clauses::{self, Item};
use super::link::{Linker, Sizes};
use super::place::Place;
use super::pool::{Kind, ListOf, Pool, Records, Thing};
use super::shapes::{Known, Shapes, Target};
use super::{EncodeError, TOO_MANY_FIELDS, Writer, buckets, rules, section};

/// With no more lists it is not worth expecting anything of them.
const MANY_LISTS: u32 = 1024;

/// Writes a policy again and again as its rules change: a rule that is still the same in memory costs little.
#[derive(Debug, Default)]
pub struct Encoder {
    issuers: Vec<IssuerModel>,
    directories: Vec<String>,
    /// In the order of ids.
    models: Vec<SharedRule>,
    /// What was made of each.
    recipes: Vec<Recipe>,
    pool: Pool,
    rarity: Rarity,
    noted: Vec<Thing>,
    items: Vec<Item>,
    /// Of every item, under what it would be filed with all that it demands.
    full: Vec<u32>,
    shapes: Records,
    known: Known,
    /// Who needs a token.
    subjects: Records,
    /// How much there was when this began.
    begun: usize,
    sizes: Sizes,
    /// Whether there were two lists of the same words where that is not expected.
    are_some_alike: bool,
}

/// What a rule is written with.
#[derive(Debug, Default)]
struct Recipe {
    choices: Choices,
    /// Each behind what it refers to.
    noted: Range,
    items: Range,
    /// As in a rule's record, with numbers for positions.
    from_list: u32,
    to_list: u32,
    head: u32,
    id: u32,
    /// A from and an operation of each clause, where these are told apart; [`NONE`] for any.
    clauses: Box<[[u32; 2]]>,
    /// Who needs a token, which from says so, and the part of the key.
    token_required: Box<[(u32, u32, u64)]>,
}

/// A rule among some of which one has changed at least.
enum Next {
    Known(Recipe),
    New(Choices),
}

/// What is written each time anew.
#[derive(Debug, Default)]
struct Header {
    noted: Vec<Thing>,
    records: Vec<(Table, Vec<u32>)>,
}

// === impl Encoder ===

impl Encoder {
    /// Writes the rules section of a policy, as [`super::encode`] does.
    ///
    /// # Errors
    /// When the model contains something that the format cannot say; nothing is ever left out.
    pub fn encode(&mut self, model: &PolicyModel) -> Result<Vec<u8>, EncodeError> {
        let was_new = self.models.is_empty();
        let section = self.write(model);
        if section.is_ok() || was_new {
            return section;
        }
        // What nothing refers to any more may be why.
        self.write(model)
    }

    fn write(&mut self, model: &PolicyModel) -> Result<Vec<u8>, EncodeError> {
        let section = self.update(model).and_then(|header| match self.link(&header)? {
            Some(section) => Ok(section),
            // There were such: now they are looked for from the beginning.
            None => self.link(&header)?.ok_or(EncodeError::TooLarge(usize::MAX)),
        });
        if section.is_err() {
            // What is half done is not gone on with.
            *self = Self::default();
        }
        section
    }

    /// One that has written nothing yet.
    fn of(model: &PolicyModel) -> Self {
        let (issuers, directories) = (model.issuers.clone(), model.directories.clone());
        Self { issuers, directories, ..Self::default() }
    }

    /// Looks at what is new.
    fn update(&mut self, model: &PolicyModel) -> Result<Header, EncodeError> {
        check_issuers(&model.issuers)?;
        // What nothing refers to any more is still there.
        let is_full = self.words() > self.begun.saturating_mul(2).saturating_add(1 << 16);
        if is_full || self.issuers != model.issuers || self.directories != model.directories {
            *self = Self::of(model);
        }
        let mut sorted = Vec::new();
        let mut rules = model.rules.as_slice();
        let (mut begin, mut end) = same(&self.models, rules);
        if !is_ordered(rules, begin, end) {
            sorted.extend(rules.iter().cloned());
            sorted.sort_by(|a, b| a.id.cmp(&b.id));
            if let Some([twice, _]) = sorted.array_windows::<2>().find(|[a, b]| a.id == b.id) {
                return Err(EncodeError::Duplicate(twice.id.clone()));
            }
            rules = &sorted;
            (begin, end) = same(&self.models, rules);
        }
        if begin == 0 && end == 0 {
            *self = Self::of(model);
        }
        let header = self.header(model)?;
        let is_first = self.models.is_empty();
        let gone = begin..self.models.len().saturating_sub(end);
        let new = rules.get(begin..rules.len().saturating_sub(end)).unwrap_or_default();
        let known = self.models.get(gone.clone()).unwrap_or_default().to_vec();
        let taken = self.recipes.get_mut(gone.clone()).unwrap_or_default().iter_mut().map(std::mem::take);
        let mut known = known.into_iter().zip(taken.collect::<Vec<_>>()).peekable();
        let mut next = Vec::with_capacity(new.len());
        for rule in new {
            while let Some((_, recipe)) = known.next_if(|(model, _)| model.id < rule.id) {
                self.forget(&recipe);
            }
            next.push(match known.next_if(|(model, _)| model.id == rule.id) {
                Some((model, recipe)) if model.is_same(rule) => Next::Known(recipe),
                other => {
                    other.into_iter().for_each(|(_, recipe)| self.forget(&recipe));
                    Next::New(self.rarity.add(rule, &mut self.pool))
                }
            });
        }
        known.for_each(|(_, recipe)| self.forget(&recipe));
        let is_changed = self.rarity.is_changed(is_first);
        let mut recipes = Vec::with_capacity(new.len());
        for (rule, next) in new.iter().zip(next) {
            recipes.push(match next {
                Next::Known(recipe) => recipe,
                Next::New(choices) => {
                    self.rarity.choose(choices);
                    self.recipe(rule, choices)?
                }
            });
        }
        self.models.splice(gone.clone(), new.iter().cloned());
        self.recipes.splice(gone, recipes);
        if is_first {
            self.begun = self.words();
        } else if is_changed {
            self.choose_again()?;
        }
        if self.pool.is_overfull() {
            return Err(EncodeError::TooLarge(usize::MAX));
        }
        Ok(header)
    }

    /// A rule goes.
    fn forget(&mut self, recipe: &Recipe) {
        self.rarity.remove(recipe.choices);
        self.known.change(recipe.items.of(&self.items), false);
    }

    /// Something is rarer now, or not so rare any more.
    fn choose_again(&mut self) -> Result<(), EncodeError> {
        for at in 0..self.recipes.len() {
            let Some(choices) = self.recipes.get(at).map(|recipe| recipe.choices) else { continue };
            if self.rarity.choose(choices)
                && let Some(rule) = self.models.get(at).cloned()
            {
                let recipe = self.recipe(&rule, choices)?;
                if let Some(known) = self.recipes.get_mut(at) {
                    let before = std::mem::replace(known, recipe);
                    self.known.change(before.items.of(&self.items), false);
                }
            }
        }
        Ok(())
    }

    /// How many words everything takes.
    fn words(&self) -> usize {
        self.pool.words() + self.rarity.words() + self.noted.len() + 40 * self.items.len()
    }

    fn recipe(&mut self, rule: &RuleModel, choices: Choices) -> Result<Recipe, EncodeError> {
        let noted = self.noted.len();
        let lifted = self.rarity.lifted(choices);
        let written = self.writer().rule(rule, &lifted)?;
        let noted = Range::new(noted, &self.noted);
        let rules::Written { froms, operations, from_list, to_list, head, id } = written;
        let number = |all: &[u32], at: u32| all.get(size(at)).copied().unwrap_or(NONE);
        let required = clauses::token_required(rule).into_iter().map(|(from, subject)| {
            let mut text = |text| self.pool.text(text);
            let key =
                [subject.kind, text(subject.trust_domain), text(subject.namespace), text(subject.account)];
            (self.subjects.add(self.pool.seed(), key), number(&froms, from), subject.part)
        });
        let token_required = required.collect();
        let filed = clauses::file(rule, &self.rarity.filed(choices));
        let clauses = filed.clauses.into_iter();
        let clauses = clauses.map(|[from, to]| [number(&froms, from), number(&operations, to)]).collect();
        let items = self.items.len();
        for item in filed.items {
            self.full.push(self.shapes.add(self.pool.seed(), item.shape().words()));
            self.items.push(item);
        }
        let items = Range::new(items, &self.items);
        self.known.change(items.of(&self.items), true);
        Ok(Recipe { choices, noted, items, from_list, to_list, head, id, clauses, token_required })
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer {
            issuers: &self.issuers,
            directories: self.directories.len(),
            pool: &mut self.pool,
            noted: &mut self.noted,
            parts: 0,
            of_operation: false,
        }
    }

    fn header(&mut self, model: &PolicyModel) -> Result<Header, EncodeError> {
        let mut header = Header::default();
        let mut writer = Writer {
            issuers: &self.issuers,
            directories: self.directories.len(),
            pool: &mut self.pool,
            noted: &mut header.noted,
            parts: 0,
            of_operation: false,
        };
        for issuer in &model.issuers {
            let slots: Vec<u32> = issuer
                .slots
                .iter()
                .map(|path| {
                    let names: Vec<u32> = path.iter().map(|name| writer.string(name)).collect();
                    writer.list(ListOf::Texts, &names)
                })
                .collect();
            let record = vec![writer.string(&issuer.name), writer.list(ListOf::Lists, &slots)];
            header.records.push((Table::Issuers, record));
        }
        for guard in &model.guards {
            let record = writer.guard(guard)?;
            header.records.push((Table::Guards, record.to_vec()));
        }
        for name in &model.directories {
            let name = writer.string(name);
            header.records.push((Table::Directories, vec![name]));
        }
        Ok(header)
    }

    /// Puts everything where it belongs. `None`: some lists are the same words, which was not expected.
    fn link(&mut self, header: &Header) -> Result<Option<Vec<u8>>, EncodeError> {
        let expects_unlike = !self.are_some_alike && self.pool.count(Kind::List) > MANY_LISTS;
        let mut linker = Linker::new(&self.pool, self.sizes.clone(), expects_unlike);
        for thing in &header.noted {
            // There is always room for what is no field of a body.
            linker.place(*thing);
        }
        for (table, record) in &header.records {
            linker.header(*table, record);
        }
        linker.begin_rules();
        for (recipe, model) in self.recipes.iter().zip(&self.models) {
            for thing in recipe.noted.of(&self.noted) {
                linker.place(*thing).ok_or_else(|| EncodeError::Condition {
                    place: Place::Rule(&model.id).to_string(),
                    why: TOO_MANY_FIELDS,
                })?;
            }
        }
        if !linker.is_as_expected() {
            self.are_some_alike = true;
            return Ok(None);
        }
        let mut targets: BTreeMap<u32, Vec<Target>> = BTreeMap::new();
        let mut entries = Vec::new();
        let mut known = vec![false; size(self.subjects.count())];
        for (position, recipe) in (0..).zip(&self.recipes) {
            let first = self.rule(&mut linker, position, recipe);
            self.file(recipe, position, first, &mut targets);
            for (subject, from, part) in &recipe.token_required {
                if let Some(known) = known.get_mut(size(*subject)).filter(|known| !**known) {
                    *known = true;
                    let target = linker.at(Kind::Froms, *from) << 2 | code::TARGET_TOKEN_REQUIRED;
                    entries.push((index::token_required(*part), target));
                }
            }
        }
        let full =
            targets.into_iter().map(|(number, targets)| (Shape::of_words(self.shapes.get(number)), targets));
        let shapes = Shapes::new(&self.items, full.collect(), &mut self.known);
        for shape in shapes.shapes() {
            linker.push(Table::Shapes, &shape.words());
        }
        entries.extend(shapes.entries());
        buckets::write(&mut linker, &entries);
        self.sizes = linker.sizes();
        let Linker { tables, packed, text, .. } = linker;
        let out = section(&tables, &packed, &text);
        if out.len() > MAX_SECTION_BYTES { Err(EncodeError::TooLarge(out.len())) } else { Ok(Some(out)) }
    }

    /// A rule's record, its names, and its clauses; returns the position of the first of these.
    fn rule(&self, linker: &mut Linker<'_>, position: u32, recipe: &Recipe) -> u32 {
        if linker.at(Kind::Heads, recipe.head) == NONE {
            let [_, owner, contact] = self.pool.record_at(Kind::Heads, recipe.head);
            for (kind, number) in [(Kind::Text, owner), (Kind::Text, contact), (Kind::Heads, recipe.head)] {
                linker.place(Thing::new(kind, number));
            }
        }
        linker.place(Thing::new(Kind::Text, recipe.id));
        let record = [
            linker.at(Kind::Text, recipe.id),
            linker.at(Kind::Heads, recipe.head),
            linker.one_or_list(recipe.from_list, |from| linker.at(Kind::Froms, from)),
            linker.one_or_list(recipe.to_list, |operation| linker.at(Kind::Operations, operation)),
        ];
        linker.append(Packed::Rules, &record);
        let mut first = NONE;
        for [from, operation] in &recipe.clauses {
            let clause = [position, linker.at(Kind::Froms, *from), linker.at(Kind::Operations, *operation)];
            first = linker.append(Packed::Clauses, &clause).min(first);
        }
        first
    }

    /// What the index points to for a rule. `first`: of its clauses, if these are told apart.
    fn file(&self, recipe: &Recipe, position: u32, first: u32, all: &mut BTreeMap<u32, Vec<Target>>) {
        let items = recipe.items;
        let of_rule = (items.begin()..).zip(items.of(&self.items).iter().zip(items.of(&self.full)));
        for (at, (item, full)) in of_rule {
            let target = if recipe.clauses.is_empty() {
                position << 2 | code::TARGET_RULE
            } else {
                first.saturating_add(item.clause) << 2 | code::TARGET_CLAUSE
            };
            all.entry(*full).or_default().push(Target { target, item: at });
        }
    }
}

fn check_issuers(issuers: &[IssuerModel]) -> Result<(), EncodeError> {
    if issuers.len() > MAX_ISSUERS {
        return Err(EncodeError::Issuers("more issuers are named than filters accept (64)".to_owned()));
    }
    for (position, issuer) in issuers.iter().enumerate() {
        if issuers.iter().take(position).any(|earlier| earlier.name == issuer.name) {
            return Err(EncodeError::Issuers(format!("issuer `{}` is there twice", issuer.name)));
        }
    }
    Ok(())
}

/// How many are the same in memory, from the beginning, and of the others from the end.
fn same(known: &[SharedRule], rules: &[SharedRule]) -> (usize, usize) {
    let is_same = |(a, b): &(&SharedRule, &SharedRule)| a.is_same(b);
    let begin = known.iter().zip(rules).take_while(is_same).count();
    let rest = |all: &'_ [SharedRule]| all.len().saturating_sub(begin);
    let most = rest(known).min(rest(rules));
    let end = known.iter().rev().zip(rules.iter().rev()).take(most).take_while(is_same).count();
    (begin, end)
}

/// Whether rules are in the order of ids and none is there twice, where so many from the beginning and from the end are.
fn is_ordered(rules: &[SharedRule], begin: usize, end: usize) -> bool {
    let until = rules.len().saturating_sub(end).saturating_add(1).min(rules.len());
    let new = rules.get(begin.saturating_sub(1)..until).unwrap_or_default();
    new.array_windows::<2>().all(|[a, b]| a.id < b.id)
}

// === impl Writer ===

impl Writer<'_> {
    fn guard(&mut self, guard: &GuardModel) -> Result<[u32; 4], EncodeError> {
        let place = Place::Guard(&guard.id);
        let (ports, audiences) = (guard.ports.as_deref(), guard.audiences.as_deref());
        let ports = self.optional(ports, ListOf::Numbers, place, "ports", |_, port| Ok(u32::from(*port)))?;
        let audiences =
            self.optional(audiences, ListOf::Texts, place, "audience", |writer, one| Ok(writer.string(one)))?;
        let mode = match guard.mode {
            Mode::Enforce => code::ENFORCE,
            Mode::Shadow => code::SHADOW,
        };
        Ok([self.string(&guard.id), mode, ports, audiences])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Audit, ClaimRef, Condition, Disclosure, Effect, FromModel, Lease, OperationModel, PeerModel, Test,
    };

    /// Rules with lists of their own: of accounts, of values, and of froms and operations where these are two.
    fn policy(count: u32, operations: u32) -> PolicyModel {
        let text = |what: &str, at: u32| format!("{what}-{at}");
        let rule = |at: u32| RuleModel {
            id: format!("sales/rule-{at:05}"),
            effect: Effect::Allow,
            mode: Mode::Enforce,
            owner: "team".into(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Audit::Sampled,
            lease: Lease::default(),
            revokes: false,
            from: (0..2)
                .map(|from| FromModel {
                    peer: PeerModel::Mesh {
                        trust_domain: "prod".into(),
                        namespace: "etl".into(),
                        service_accounts: Some(vec![text("account", 2 * at + from), text("other", at)]),
                    },
                    issuers: vec![0],
                    condition: Condition::Claim(
                        ClaimRef { issuer: 0, slot: 0 },
                        Test::OneOf(vec![text("a", at), text("b", at)]),
                    ),
                })
                .collect(),
            to: Some(
                (0..operations)
                    .map(|operation| OperationModel {
                        methods: Some(vec![text("METHOD", operations * at + operation)]),
                        ..OperationModel::default()
                    })
                    .collect(),
            ),
        };
        PolicyModel {
            issuers: vec![IssuerModel { name: "gitlab".into(), slots: vec![vec!["job".into()]] }],
            rules: (0..count).map(|at| rule(at).into()).collect(),
            ..PolicyModel::default()
        }
    }

    /// Froms and operations lie at the same places of their tables where each rule has two of both.
    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn lists_of_the_same_words_are_written_once_whether_they_are_expected_or_not() {
        for (operations, are_some_alike) in [(1, false), (2, true)] {
            let mut encoder = Encoder::default();
            for count in [MANY_LISTS, MANY_LISTS + 1, MANY_LISTS - 1] {
                let model = policy(count, operations);
                let section = encoder.encode(&model);
                assert!(section.is_ok(), "{section:?}");
                // One that expects nothing.
                let mut other = Encoder::default();
                let header = other.update(&model).unwrap();
                other.are_some_alike = true;
                assert!(section == other.link(&header).map(Option::unwrap), "{count} {operations}");
                assert_eq!(encoder.are_some_alike, are_some_alike, "{count} {operations}");
            }
        }
    }
}
