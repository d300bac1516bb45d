//! What depends on all rules of a policy: which claim of a from is the one with the rarest value.
//!
//! Of every from it is kept what there is to choose from, so that a rule that comes or goes is looked at alone, and the choices
//! of others are made again by numbers.

use crate::layout::{NONE, size, word};
use crate::model::RuleModel;

use super::claim_word;
use super::clauses::{Claim, Demanded, MAX_VALUES, demanded};
use super::found::Seed;
use super::pool::{Pool, Records};
use super::rules::{conjuncts, equality};

/// Where something of a rule begins and ends among that of others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Range {
    begin: u32,
    end: u32,
}

/// What there is to choose from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Choices {
    /// Of every from: how many there are, the position of the chosen one, and of each its position and its number in `facts`.
    lifts: Range,
    /// Of every from: how many there are, which of them is chosen, and of each the claim, how many values, and their numbers in
    /// `values`.
    demands: Range,
}

/// How often what is said.
#[derive(Debug, Default)]
pub(super) struct Rarity {
    /// A claim and a text: in how many froms it is demanded to be this.
    facts: Counted,
    /// A claim of the index, and a part of its key: the same.
    values: Counted,
    words: Vec<u32>,
    /// What is said more or less often than when choices were made.
    changed: Vec<(Which, u32, bool)>,
}

#[derive(Debug, Default)]
struct Counted {
    known: Records,
    counts: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Fact,
    Value,
}

// === impl Range ===

impl Range {
    pub fn new<T>(begin: usize, all: &[T]) -> Self {
        Self { begin: word(begin), end: word(all.len()) }
    }

    pub fn of<T>(self, all: &[T]) -> &[T] {
        all.get(size(self.begin)..size(self.end)).unwrap_or_default()
    }

    pub fn begin(self) -> u32 {
        self.begin
    }
}

// === impl Counted ===

impl Counted {
    fn number<const WIDTH: usize>(&mut self, seed: Seed, record: [u32; WIDTH]) -> u32 {
        let number = self.known.add(seed, record);
        if self.counts.len() <= size(number) {
            self.counts.push(0);
        }
        number
    }

    fn often(&self, number: u32) -> u32 {
        self.counts.get(size(number)).copied().unwrap_or(0)
    }

    fn count(&mut self, number: u32, is_more: bool) {
        if let Some(count) = self.counts.get_mut(size(number)) {
            *count = if is_more { count.saturating_add(1) } else { count.saturating_sub(1) };
        }
    }
}

// === impl Rarity ===

impl Rarity {
    /// How many words it takes.
    pub fn words(&self) -> usize {
        self.words.len() + self.facts.counts.len() * 4 + self.values.counts.len() * 8
    }

    /// A rule comes: what there is to choose from, and nothing chosen yet.
    pub fn add(&mut self, rule: &RuleModel, pool: &mut Pool) -> Choices {
        let seed = pool.seed();
        let begin = self.words.len();
        for from in &rule.from {
            let head = self.words.len();
            self.words.extend([0, NONE]);
            for (position, part) in (0..).zip(conjuncts(&from.condition)) {
                let Some((claim, value)) = equality(part) else { continue };
                let fact = self.facts.number(seed, [claim_word(claim), pool.text(value)]);
                self.words.extend([position, fact]);
                if let Some(count) = self.words.get_mut(head) {
                    *count = count.saturating_add(1);
                }
            }
        }
        let lifts = Range::new(begin, &self.words);
        let begin = self.words.len();
        let mut all = Vec::new();
        for from in &rule.from {
            all.clear();
            demanded(&from.condition, &mut all);
            self.words.extend([word(all.len()), NONE]);
            for Demanded { claim, values } in &all {
                self.words.extend([claim.word, claim.kind, word(values.as_slice().len())]);
                for value in values.as_slice() {
                    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
                    let (low, high) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
                    let number = self.values.number(seed, [claim.word, claim.kind, low, high]);
                    self.words.push(number);
                }
            }
        }
        let choices = Choices { lifts, demands: Range::new(begin, &self.words) };
        self.count(choices, true);
        choices
    }

    /// A rule goes.
    pub fn remove(&mut self, choices: Choices) {
        self.count(choices, false);
    }

    fn count(&mut self, choices: Choices, is_more: bool) {
        let Self { facts, values, words, changed } = self;
        each_from(choices.lifts.of(words), Which::Fact, &mut |_, _, numbers| {
            for pair in numbers.as_chunks::<2>().0 {
                let [_, fact] = *pair;
                facts.count(fact, is_more);
                changed.push((Which::Fact, fact, is_more));
            }
        });
        each_from(choices.demands.of(words), Which::Value, &mut |_, _, numbers| {
            each_demand(numbers, &mut |_, of| {
                for value in of {
                    values.count(*value, is_more);
                    changed.push((Which::Value, *value, is_more));
                }
            });
        });
    }

    /// Whether anything is said more or less often than when this was asked before, as it is the first time.
    pub fn is_changed(&mut self, is_first: bool) -> bool {
        let mut changed = std::mem::take(&mut self.changed);
        if is_first {
            return true;
        }
        changed.sort_unstable();
        changed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).any(|same| {
            let more = same.iter().filter(|(_, _, is_more)| *is_more).count();
            more * 2 != same.len()
        })
    }

    /// Makes the choices of a rule; whether any is another one now.
    pub fn choose(&mut self, choices: Choices) -> bool {
        let Self { facts, values, words, .. } = self;
        let mut chosen = Vec::new();
        each_from(choices.lifts.of(words), Which::Fact, &mut |at, now, numbers| {
            let pairs = numbers.as_chunks::<2>().0.iter();
            let rarest = pairs.min_by_key(|[position, fact]| (facts.often(*fact), *position));
            let rarest = rarest.map_or(NONE, |[position, _]| *position);
            if rarest != now {
                chosen.push((size(choices.lifts.begin) + at, rarest));
            }
        });
        each_from(choices.demands.of(words), Which::Value, &mut |at, now, numbers| {
            let mut best: Option<((u32, usize, Claim), u32)> = None;
            let mut index = 0;
            each_demand(numbers, &mut |claim, of| {
                let often = of.iter().map(|value| values.often(*value)).max().unwrap_or(0);
                let key = (often, of.len(), claim);
                if of.len() <= MAX_VALUES && best.is_none_or(|(least, _)| key < least) {
                    best = Some((key, index));
                }
                index += 1;
            });
            let rarest = best.map_or(NONE, |(_, index)| index);
            if rarest != now {
                chosen.push((size(choices.demands.begin) + at, rarest));
            }
        });
        let is_other = !chosen.is_empty();
        for (at, rarest) in chosen {
            if let Some(chosen) = self.words.get_mut(at) {
                *chosen = rarest;
            }
        }
        is_other
    }

    /// Of every from the position of the part that is lifted out of its condition.
    pub fn lifted(&self, choices: Choices) -> Vec<Option<u32>> {
        let mut all = Vec::new();
        each_from(choices.lifts.of(&self.words), Which::Fact, &mut |_, chosen, _| {
            all.push(Some(chosen).filter(|chosen| *chosen != NONE));
        });
        all
    }

    /// Of every from the claim that it is filed under, and its values.
    pub fn filed(&self, choices: Choices) -> Vec<Option<(Claim, Vec<u64>)>> {
        let mut all = Vec::new();
        each_from(choices.demands.of(&self.words), Which::Value, &mut |_, chosen, numbers| {
            let mut index = 0;
            let mut filed = None;
            each_demand(numbers, &mut |claim, of| {
                if index == chosen {
                    let value = |number: &u32| {
                        let [_, _, low, high] = self.values.known.get(*number);
                        u64::from(high) << 32 | u64::from(low)
                    };
                    filed = Some((claim, of.iter().map(value).collect()));
                }
                index += 1;
            });
            all.push(filed);
        });
        all
    }
}

/// Visits every from: where it says what is chosen, that, and what there is to choose from.
fn each_from(words: &[u32], which: Which, visit: &mut dyn FnMut(usize, u32, &[u32])) {
    let mut rest = words;
    while let [count, chosen, behind @ ..] = rest {
        let length = match which {
            Which::Fact => size(*count).saturating_mul(2),
            Which::Value => {
                let mut length = 0_usize;
                for _ in 0..*count {
                    let values = behind.get(length.saturating_add(2)).copied().unwrap_or(0);
                    length = length.saturating_add(3).saturating_add(size(values));
                }
                length
            }
        };
        let at = words.len().saturating_sub(rest.len()).saturating_add(1);
        let (numbers, next) = behind.split_at(length.min(behind.len()));
        visit(at, *chosen, numbers);
        rest = next;
    }
}

/// Visits every claim that a from demands, with its values.
fn each_demand(numbers: &[u32], visit: &mut dyn FnMut(Claim, &[u32])) {
    let mut rest = numbers;
    while let [word, kind, count, behind @ ..] = rest {
        let (values, next) = behind.split_at(size(*count).min(behind.len()));
        visit(Claim { word: *word, kind: *kind }, values);
        rest = next;
    }
}
