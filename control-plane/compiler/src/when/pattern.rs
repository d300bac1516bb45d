//! Regular expressions to automata.
//!
//! The syntax is RE2's, as far as the crate `regex` has it: no look-around and no back-references. `\d`, `\w`, `\s` and `\b`
//! mean ASCII, as in RE2. An expression matches if it matches anywhere in the text.
//!
//! INVARIANT: the automaton accepts exactly the texts in which the expression has a match.

use std::collections::BTreeMap;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::{Hir, Look};
use tidegate_engine::model::Pattern;

/// Most transitions of one automaton.
const MAX_TRANSITIONS: usize = 8192;

/// Most bytes that are used to find it.
const MAX_WORK: usize = 2 << 20;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InvalidPattern {
    /// It is no expression.
    Syntax(String),
    /// Its automaton would be too large.
    TooLarge,
}

/// An expression, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    pub(crate) pattern: Pattern,
    /// Every match begins where the text begins and ends where it ends.
    pub(crate) anchored: bool,
}

/// Compiles an expression.
pub(crate) fn compile(source: &str) -> Result<Compiled, InvalidPattern> {
    let mut ast = ast::parse::ParserBuilder::new()
        .nest_limit(32)
        .build()
        .parse(source)
        .map_err(|error| InvalidPattern::Syntax(error.kind().to_string()))?;
    to_ascii(&mut ast);
    let hir = regex_syntax::hir::translate::TranslatorBuilder::new()
        .utf8(false)
        .build()
        .translate(source, &ast)
        .map_err(|error| InvalidPattern::Syntax(error.kind().to_string()))?;
    let properties = hir.properties();
    let anchored = properties.look_set_prefix().contains(Look::Start)
        && properties.look_set_suffix().contains(Look::End);
    let pattern = automaton(source, &hir)?;
    Ok(Compiled { pattern, anchored })
}

/// Makes `\d`, `\w`, `\s` and `\b` mean ASCII.
fn to_ascii(ast: &mut Ast) {
    match ast {
        Ast::ClassPerl(class) => {
            *ast = Ast::class_bracketed(ast::ClassBracketed {
                span: class.span,
                negated: false,
                kind: ast::ClassSet::Item(ast::ClassSetItem::Ascii(ascii(class))),
            });
        }
        Ast::ClassBracketed(class) => set_to_ascii(&mut class.kind),
        Ast::Assertion(assertion) => {
            let span = assertion.span;
            let flag = |kind| ast::FlagsItem { span, kind };
            *ast = Ast::group(ast::Group {
                span,
                kind: ast::GroupKind::NonCapturing(ast::Flags {
                    span,
                    items: vec![
                        flag(ast::FlagsItemKind::Negation),
                        flag(ast::FlagsItemKind::Flag(ast::Flag::Unicode)),
                    ],
                }),
                ast: Box::new(Ast::assertion((**assertion).clone())),
            });
        }
        Ast::Repetition(repetition) => to_ascii(&mut repetition.ast),
        Ast::Group(group) => to_ascii(&mut group.ast),
        Ast::Alternation(alternation) => alternation.asts.iter_mut().for_each(to_ascii),
        Ast::Concat(concat) => concat.asts.iter_mut().for_each(to_ascii),
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::Dot(_) | Ast::ClassUnicode(_) => {}
    }
}

fn set_to_ascii(set: &mut ast::ClassSet) {
    match set {
        ast::ClassSet::Item(item) => item_to_ascii(item),
        ast::ClassSet::BinaryOp(operation) => {
            set_to_ascii(&mut operation.lhs);
            set_to_ascii(&mut operation.rhs);
        }
    }
}

fn item_to_ascii(item: &mut ast::ClassSetItem) {
    match item {
        ast::ClassSetItem::Perl(class) => *item = ast::ClassSetItem::Ascii(ascii(class)),
        ast::ClassSetItem::Bracketed(class) => set_to_ascii(&mut class.kind),
        ast::ClassSetItem::Union(union) => union.items.iter_mut().for_each(item_to_ascii),
        _ => {}
    }
}

fn ascii(class: &ast::ClassPerl) -> ast::ClassAscii {
    let kind = match class.kind {
        ast::ClassPerlKind::Digit => ast::ClassAsciiKind::Digit,
        ast::ClassPerlKind::Space => ast::ClassAsciiKind::Space,
        ast::ClassPerlKind::Word => ast::ClassAsciiKind::Word,
    };
    ast::ClassAscii { span: class.span, kind, negated: class.negated }
}

fn automaton(source: &str, hir: &Hir) -> Result<Pattern, InvalidPattern> {
    let too_large = |TooLarge| InvalidPattern::TooLarge;
    let nfa = thompson::Compiler::new()
        .configure(thompson::Config::new().utf8(false).shrink(true).nfa_size_limit(Some(MAX_WORK)))
        .build_from_hir(hir)
        .map_err(|_| InvalidPattern::TooLarge)?;
    let dfa = dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Unanchored)
                .dfa_size_limit(Some(MAX_WORK))
                .determinize_size_limit(Some(MAX_WORK)),
        )
        .build_from_nfa(&nfa)
        .map_err(|_| InvalidPattern::TooLarge)?;
    let start = dfa
        .start_state(&start::Config::new().anchored(Anchored::No))
        .map_err(|error| InvalidPattern::Syntax(error.to_string()))?;
    Machine::explore(&dfa, start).map_err(too_large)?.minimized().pattern(source)
}

/// States by number, as [`Pattern`] has them.
struct Machine {
    /// The class of each byte.
    classes: Vec<u8>,
    class_count: usize,
    start: usize,
    /// For each state, the next by class. The first two states are not looked at.
    rows: Vec<Vec<usize>>,
    /// Whether it accepts where the text ends.
    ends: Vec<bool>,
}

struct TooLarge;

// === impl Machine ===

impl Machine {
    /// All states that can be reached.
    fn explore(dfa: &dense::DFA<Vec<u32>>, start: StateID) -> Result<Self, TooLarge> {
        let byte_classes = dfa.byte_classes();
        let mut representatives: BTreeMap<u8, u8> = BTreeMap::new();
        let classes: Vec<u8> = (0..=255)
            .map(|byte| {
                representatives.entry(byte_classes.get(byte)).or_insert(byte);
                byte_classes.get(byte)
            })
            .collect();
        // Classes that bytes have are numbered without gaps.
        let numbers: BTreeMap<u8, u8> = representatives.keys().copied().zip(0..=255).collect();
        let classes = classes.iter().map(|class| numbers.get(class).copied().unwrap_or(0)).collect();
        let mut known: BTreeMap<StateID, usize> = BTreeMap::new();
        let mut found = vec![None, None];
        // A match is told one byte late: whatever follows a state that says so, there is one.
        let mut number = |state: StateID, found: &mut Vec<Option<StateID>>| {
            if dfa.is_dead_state(state) {
                0
            } else if dfa.is_match_state(state) {
                1
            } else {
                *known.entry(state).or_insert_with(|| {
                    found.push(Some(state));
                    found.len().saturating_sub(1)
                })
            }
        };
        let start = number(start, &mut found);
        let (mut rows, mut ends) = (vec![Vec::new(), Vec::new()], vec![false, true]);
        let mut at = 2;
        while let Some(state) = found.get(at).copied().flatten() {
            let next = |byte: &u8| dfa.next_state(state, *byte);
            let row: Vec<usize> =
                representatives.values().map(|byte| number(next(byte), &mut found)).collect();
            rows.push(row);
            ends.push(dfa.is_match_state(dfa.next_eoi_state(state)));
            at = at.saturating_add(1);
            if at.saturating_mul(representatives.len()) > MAX_TRANSITIONS.saturating_mul(8) {
                return Err(TooLarge);
            }
        }
        Ok(Self { classes, class_count: representatives.len(), start, rows, ends })
    }

    /// With states that cannot be told apart made one (Moore's algorithm).
    fn minimized(&self) -> Self {
        // State 0 accepts nothing and state 1 everything: they stay themselves, and others may turn out to be them.
        let mut groups: Vec<usize> = self.ends.iter().map(|ends| usize::from(*ends)).collect();
        let row = |state: usize| -> Vec<usize> {
            match self.rows.get(state) {
                Some(row) if !row.is_empty() => row.clone(),
                _ => vec![state; self.class_count],
            }
        };
        loop {
            let mut numbers: BTreeMap<(usize, Vec<usize>), usize> = BTreeMap::new();
            let next: Vec<usize> = (0..self.rows.len())
                .map(|state| {
                    let of = |state: usize| groups.get(state).copied().unwrap_or(0);
                    let key = (of(state), row(state).into_iter().map(of).collect());
                    let count = numbers.len();
                    *numbers.entry(key).or_insert(count)
                })
                .collect();
            if next == groups {
                break;
            }
            groups = next;
        }
        let count = groups.iter().max().map_or(0, |last| last.saturating_add(1));
        let of = |state: usize| groups.get(state).copied().unwrap_or(0);
        let mut rows = vec![Vec::new(); count];
        let mut ends = vec![false; count];
        for (state, group) in groups.iter().enumerate() {
            if let (Some(slot), Some(end)) = (rows.get_mut(*group), ends.get_mut(*group)) {
                *slot = row(state).into_iter().map(of).collect();
                *end = self.ends.get(state).copied().unwrap_or(false);
            }
        }
        Self {
            classes: self.classes.clone(),
            class_count: self.class_count,
            start: of(self.start),
            rows,
            ends,
        }
    }

    /// In the engine's order: those that accept where the text ends come last.
    fn pattern(&self, source: &str) -> Result<Pattern, InvalidPattern> {
        let states: Vec<usize> = (2..self.rows.len()).collect();
        let ends = |state: &usize| self.ends.get(*state).copied().unwrap_or(false);
        let (others, accepting): (Vec<usize>, Vec<usize>) =
            states.into_iter().partition(|state| !ends(state));
        let ends_from = others.len().saturating_add(2);
        let order: Vec<usize> = [0, 1].into_iter().chain(others).chain(accepting).collect();
        let positions: BTreeMap<usize, usize> =
            order.iter().enumerate().map(|(position, state)| (*state, position)).collect();
        let position = |state: usize| {
            let position = positions.get(&state).copied().unwrap_or(0);
            u16::try_from(position).map_err(|_| InvalidPattern::TooLarge)
        };
        let mut transitions = Vec::new();
        for state in order.iter().skip(2) {
            for next in self.rows.get(*state).into_iter().flatten() {
                transitions.push(position(*next)?);
            }
        }
        if transitions.len() > MAX_TRANSITIONS {
            return Err(InvalidPattern::TooLarge);
        }
        Ok(Pattern {
            source: source.to_owned(),
            classes: self.classes.clone(),
            class_count: u16::try_from(self.class_count).map_err(|_| InvalidPattern::TooLarge)?,
            start: position(self.start)?,
            ends_from: u16::try_from(ends_from).map_err(|_| InvalidPattern::TooLarge)?,
            transitions,
        })
    }
}

#[cfg(test)]
mod tests;
