//! Conditions by names instead of positions, and what becomes of them in an Allow and in a Deny.
//!
//! INVARIANT: an Allow never holds because something is missing. What is absent makes a test false, and where the test is
//! negated an Allow demands besides that it is there; only `!has(…)` holds because of what is missing. A Deny holds as well
//! where a negated test is of something absent.

use std::ops::Add;

use tidegate_engine::model::{
    ClaimPath, ClaimRef, Condition, Effect, Operand, Relation, Schedule, Test, TextTest,
};

use crate::demand::Positions;

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tree {
    Constant(bool),
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Not(Box<Tree>),
    Compare(Value, Relation, Value),
    Text(Value, TextTest),
    /// A claim that is a list with this string.
    Contains(ClaimName, String),
    Within(Schedule),
}

/// A claim of the entry's token of an issuer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClaimName {
    pub(crate) issuer: String,
    pub(crate) path: ClaimPath,
}

/// A value that is read, or written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Claim(ClaimName),
    /// Of the request or of the peer.
    Request(Operand),
    Length(Box<Value>),
    Plus(Box<Value>, i64),
}

/// What evaluating a condition costs at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Conditions, and operands besides the first.
    pub(crate) nodes: usize,
    /// Transitions of automata.
    pub(crate) transitions: usize,
}

// === impl Cost ===

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            transitions: self.transitions.saturating_add(other.transitions),
        }
    }
}

// === impl Tree ===

impl Tree {
    pub(crate) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    pub(crate) fn cost(&self) -> Cost {
        let own = Cost { nodes: 1, transitions: 0 };
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::cost).fold(own, Cost::add),
            Self::Not(part) => own + part.cost(),
            Self::Text(_, TextTest::Pattern(pattern)) => {
                Cost { transitions: pattern.transitions.len(), ..own }
            }
            Self::Text(_, TextTest::OneOf(texts)) => Cost { nodes: texts.len(), ..own },
            // What is looked for is compared anew at each place.
            Self::Text(_, TextTest::Infix(text) | TextTest::Glob(text)) => {
                Cost { nodes: text.len().div_ceil(16), ..own }
            }
            Self::Constant(_) | Self::Compare(..) | Self::Text(..) | Self::Contains(..) | Self::Within(_) => {
                own
            }
        }
    }

    /// Calls for every value that it reads.
    fn each_value<'t>(&'t self, visit: &mut impl FnMut(&'t Value)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.each_value(visit)),
            Self::Not(part) => part.each_value(visit),
            Self::Compare(left, _, right) => {
                visit(left);
                visit(right);
            }
            Self::Text(value, _) => visit(value),
            Self::Constant(_) | Self::Contains(..) | Self::Within(_) => {}
        }
    }

    /// Calls for every claim that it reads.
    pub(crate) fn each_claim<'t>(&'t self, visit: &mut impl FnMut(&'t ClaimName)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.each_claim(visit)),
            Self::Not(part) => part.each_claim(visit),
            Self::Contains(claim, _) => visit(claim),
            _ => self.each_value(&mut |value| {
                if let Some(claim) = value.claim() {
                    visit(claim);
                }
            }),
        }
    }

    /// Whether it says anything of what the peer is.
    pub(crate) fn reads_peer(&self) -> bool {
        let mut reads = false;
        self.each_value(&mut |value| reads |= value.is_of_peer());
        reads
    }

    /// Whether it holds only of tokens of this issuer with certain values at one of these claims.
    pub(crate) fn ties_to(&self, issuer: &str, claims: &[&[&str]]) -> bool {
        let is = |claim: &ClaimName| {
            claim.issuer == issuer && claims.iter().any(|known| known.iter().eq(claim.path.iter()))
        };
        match self {
            Self::All(parts) => parts.iter().any(|part| part.ties_to(issuer, claims)),
            Self::Any(parts) => !parts.is_empty() && parts.iter().all(|part| part.ties_to(issuer, claims)),
            Self::Text(Value::Claim(claim), TextTest::OneOf(_)) | Self::Contains(claim, _) => is(claim),
            Self::Compare(Value::Claim(claim), Relation::Equal, Value::Request(Operand::Integer(_))) => {
                is(claim)
            }
            _ => false,
        }
    }

    /// As the engine reads it. `None` if a position is missing.
    pub(crate) fn condition(&self, effect: Effect, positions: &Positions) -> Option<Condition> {
        self.signed(true, effect, positions)
    }

    /// The condition, or its negation: negations are moved inwards, to the tests.
    fn signed(&self, positive: bool, effect: Effect, positions: &Positions) -> Option<Condition> {
        let all = |parts: &[Self]| {
            parts.iter().map(|part| part.signed(positive, effect, positions)).collect::<Option<Vec<_>>>()
        };
        match self {
            Self::Constant(holds) => {
                Some(if *holds == positive { Condition::True } else { Condition::Any(Vec::new()) })
            }
            Self::All(parts) if positive => Some(Condition::All(all(parts)?)),
            Self::Any(parts) if !positive => Some(Condition::All(all(parts)?)),
            Self::All(parts) | Self::Any(parts) => Some(Condition::Any(all(parts)?)),
            Self::Not(part) => part.signed(!positive, effect, positions),
            _ if positive => {
                let mut demanded = vec![self.leaf(positions)?];
                // Two claims that both say nothing are not the same thing.
                if effect == Effect::Allow
                    && let Self::Compare(Value::Claim(claim), Relation::Equal, Value::Claim(_)) = self
                {
                    let empty = Test::OneOf(vec![String::new()]);
                    let empty = Condition::Claim(claim.position(positions)?, empty);
                    demanded.push(Condition::Not(Box::new(empty)));
                }
                Some(one_or_all(demanded))
            }
            _ => {
                let mut demanded = if effect == Effect::Allow { self.guards(positions)? } else { Vec::new() };
                demanded.push(Condition::Not(Box::new(self.leaf(positions)?)));
                Some(one_or_all(demanded))
            }
        }
    }

    /// That everything is there that the test reads, and that can be missing.
    fn guards(&self, positions: &Positions) -> Option<Vec<Condition>> {
        if let Self::Text(_, TextTest::Present) = self {
            return Some(Vec::new());
        }
        if let Self::Contains(claim, _) = self {
            return Some(vec![Condition::Claim(claim.position(positions)?, Test::Present)]);
        }
        let mut values = Vec::new();
        self.each_value(&mut |value| values.push(value));
        values.into_iter().filter_map(|value| value.presence(positions)).collect()
    }

    fn leaf(&self, positions: &Positions) -> Option<Condition> {
        Some(match self {
            Self::Text(Value::Claim(claim), test @ (TextTest::Present | TextTest::OneOf(_))) => {
                let test = match test {
                    TextTest::OneOf(texts) => Test::OneOf(texts.clone()),
                    _ => Test::Present,
                };
                Condition::Claim(claim.position(positions)?, test)
            }
            Self::Text(value, test) => Condition::Text(value.operand(positions)?, test.clone()),
            Self::Compare(
                Value::Claim(claim),
                Relation::Equal,
                Value::Request(Operand::Integer(integer)),
            ) => Condition::Claim(claim.position(positions)?, Test::Integer(*integer)),
            Self::Compare(
                Value::Claim(claim),
                Relation::Equal,
                Value::Request(Operand::Boolean(boolean)),
            ) => Condition::Claim(claim.position(positions)?, Test::Boolean(*boolean)),
            Self::Compare(left, relation, right) => {
                Condition::Compare(left.operand(positions)?, *relation, right.operand(positions)?)
            }
            Self::Contains(claim, text) => {
                Condition::Claim(claim.position(positions)?, Test::Contains(text.clone()))
            }
            Self::Within(schedule) => Condition::Within(schedule.clone()),
            Self::Constant(_) | Self::All(_) | Self::Any(_) | Self::Not(_) => return None,
        })
    }
}

fn one_or_all(mut parts: Vec<Condition>) -> Condition {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            Condition::All(parts)
        }
    }
}

// === impl ClaimName ===

impl ClaimName {
    fn position(&self, positions: &Positions) -> Option<ClaimRef> {
        let (issuer, slots) = positions.issuers.get(&self.issuer)?;
        Some(ClaimRef { issuer: *issuer, slot: *slots.get(&self.path)? })
    }
}

// === impl Value ===

impl Value {
    fn claim(&self) -> Option<&ClaimName> {
        match self {
            Self::Claim(claim) => Some(claim),
            Self::Request(_) => None,
            Self::Length(inner) | Self::Plus(inner, _) => inner.claim(),
        }
    }

    fn is_of_peer(&self) -> bool {
        match self {
            Self::Claim(_) => false,
            Self::Request(operand) => matches!(
                operand,
                Operand::PeerNamespace | Operand::PeerServiceAccount | Operand::PeerTrustDomain
            ),
            Self::Length(inner) | Self::Plus(inner, _) => inner.is_of_peer(),
        }
    }

    /// That it is there; `None` for what always is. The inner `None`: a position is missing.
    fn presence(&self, positions: &Positions) -> Option<Option<Condition>> {
        match self {
            Self::Claim(claim) => {
                Some(claim.position(positions).map(|claim| Condition::Claim(claim, Test::Present)))
            }
            Self::Request(
                operand @ (Operand::PeerNamespace
                | Operand::PeerServiceAccount
                | Operand::PeerTrustDomain
                | Operand::Header(_)
                | Operand::Query(_)),
            ) => Some(Some(Condition::Text(operand.clone(), TextTest::Present))),
            Self::Request(_) => None,
            Self::Length(inner) | Self::Plus(inner, _) => inner.presence(positions),
        }
    }

    fn operand(&self, positions: &Positions) -> Option<Operand> {
        Some(match self {
            Self::Claim(claim) => Operand::Claim(claim.position(positions)?),
            Self::Request(operand) => operand.clone(),
            Self::Length(inner) => Operand::Length(Box::new(inner.operand(positions)?)),
            Self::Plus(inner, more) => Operand::Plus(Box::new(inner.operand(positions)?), *more),
        })
    }
}
