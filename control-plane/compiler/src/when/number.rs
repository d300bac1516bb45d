//! Numbers, timestamps and durations, as far as they are added and taken away.
//!
//! INVARIANT: nothing is rounded and nothing wraps: what is too large is refused.

use tidegate_engine::model::Operand;

use super::tree::Value;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Integer,
    /// Seconds since 1970.
    Timestamp,
    /// Seconds.
    Duration,
}

/// Values that are added and taken away, and a number.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub(super) unit: Unit,
    plus: Vec<Value>,
    minus: Vec<Value>,
    constant: i64,
    pub(super) shown: String,
}

// === impl Value ===

impl Value {
    pub(super) fn boolean(value: bool) -> Self {
        Self::Request(Operand::Boolean(value))
    }

    fn plus(self, more: i64) -> Self {
        if more == 0 { self } else { Self::Plus(Box::new(self), more) }
    }
}

// === impl Linear ===

impl Linear {
    pub(super) fn integer(value: Value, shown: String) -> Self {
        Self { unit: Unit::Integer, plus: vec![value], minus: Vec::new(), constant: 0, shown }
    }

    pub(super) fn constant(unit: Unit, constant: i64, shown: String) -> Self {
        Self { unit, plus: Vec::new(), minus: Vec::new(), constant, shown }
    }

    /// Seconds since 1970.
    pub(super) fn into_timestamp(self) -> Self {
        Self { unit: Unit::Timestamp, ..self }
    }

    pub(super) fn shown_as(self, shown: String) -> Self {
        Self { shown, ..self }
    }

    pub(super) fn as_constant(&self) -> Option<i64> {
        (self.plus.is_empty() && self.minus.is_empty()).then_some(self.constant)
    }

    pub(super) fn as_value(&self) -> Option<Value> {
        match (self.plus.as_slice(), self.minus.as_slice(), self.constant) {
            ([one], [], 0) => Some(one.clone()),
            _ => None,
        }
    }

    pub(super) fn describe(&self) -> String {
        let unit = match self.unit {
            Unit::Integer => "number",
            Unit::Timestamp => "timestamp",
            Unit::Duration => "duration",
        };
        match self.as_constant() {
            Some(_) => format!("the {unit} `{}`", self.shown),
            None => format!("`{}`, a {unit},", self.shown),
        }
    }

    /// The sum or difference; `None` where the types have none, or it is too large.
    pub(super) fn combined(self, subtract: bool, other: Self) -> Option<Self> {
        let unit = match (self.unit, subtract, other.unit) {
            (Unit::Integer, _, Unit::Integer) => Unit::Integer,
            (Unit::Duration, _, Unit::Duration) => Unit::Duration,
            (Unit::Timestamp, true, Unit::Timestamp) => Unit::Duration,
            (Unit::Timestamp, _, Unit::Duration) | (Unit::Duration, false, Unit::Timestamp) => {
                Unit::Timestamp
            }
            _ => return None,
        };
        let (plus, minus, constant) = match subtract {
            true => (other.minus, other.plus, self.constant.checked_sub(other.constant)?),
            false => (other.plus, other.minus, self.constant.checked_add(other.constant)?),
        };
        let sign = if subtract { '-' } else { '+' };
        Some(Self {
            unit,
            plus: self.plus.into_iter().chain(plus).collect(),
            minus: self.minus.into_iter().chain(minus).collect(),
            constant,
            shown: format!("{} {sign} {}", self.shown, other.shown),
        })
    }

    /// Both sides of a comparison as one value each.
    pub(super) fn balanced(self, other: Self) -> Option<(Value, Value)> {
        let number = |constant| Value::Request(Operand::Integer(constant));
        let mut left: Vec<Value> = self.plus.into_iter().chain(other.minus).collect();
        let mut right: Vec<Value> = self.minus.into_iter().chain(other.plus).collect();
        left.retain(|value| match right.iter().position(|other| other == value) {
            Some(at) => {
                right.remove(at);
                false
            }
            None => true,
        });
        let constant = other.constant.checked_sub(self.constant)?;
        let (first, second) = (left.pop(), right.pop());
        if !left.is_empty() || !right.is_empty() {
            return None;
        }
        Some(match (first, second) {
            (None, None) => (number(0), number(constant)),
            (Some(left), None) => (left, number(constant)),
            (None, Some(right)) => (number(constant.checked_neg()?), right),
            (Some(left), Some(right)) => (left, right.plus(constant)),
        })
    }
}
