//! Derived attributes: what rules read under a name with `@`, computed from verified claims, the same for all packs as
//! far as their tokens say the same.
//!
//! INVARIANT: what a token does not say is [`ClaimValue::Unknown`] or [`ClaimValue::Absent`], never a guess.

use tidegate_engine::{ClaimValue, TokenFault};

use super::claim::{is_visible, text};
use super::{ClaimKind, PackKind, Stability};
use crate::json::{Object, Value};

/// Longest chain of actors that is accepted.
pub const MAX_ACTORS: usize = 4;

/// An attribute that is computed from claims.
#[derive(Debug, Clone, Copy)]
pub struct DerivedSpec {
    /// Its name, with the `@`.
    pub name: &'static str,
    /// Its type, where it is neither absent nor unknown.
    pub kind: ClaimKind,
    /// Whether it keeps naming the same thing.
    pub stable: Stability,
    /// Its value. The types of all known claims hold.
    pub compute: fn(&Object) -> ClaimValue,
}

/// What every pack has, unless it says otherwise under the same name.
static COMMON: [DerivedSpec; 5] = [
    DerivedSpec::new("@subject", ClaimKind::String, |claims| string(text(claims, &["sub"]))),
    DerivedSpec::new("@actor", ClaimKind::String, |claims| Actors::of(claims).outermost()),
    DerivedSpec::new("@actor_chain", ClaimKind::Strings, |claims| Actors::of(claims).chain()),
    DerivedSpec::new("@actors", ClaimKind::Integer, |claims| Actors::of(claims).count()),
    DerivedSpec::new("@human_in_loop", ClaimKind::Boolean, |_| ClaimValue::Unknown),
];

/// For issuers that give tokens to workloads only.
pub(super) const NO_HUMAN: DerivedSpec =
    DerivedSpec::new("@human_in_loop", ClaimKind::Boolean, |_| ClaimValue::Boolean(false));

/// For issuers whose `sub` is made of names.
pub(super) const SUBJECT_OF_NAMES: DerivedSpec = DerivedSpec {
    stable: Stability::Renameable,
    ..DerivedSpec::new("@subject", ClaimKind::String, |claims| string(text(claims, &["sub"])))
};

/// Who acts for the subject, outermost first; `None` for an actor of another issuer, whose `sub` may be that of somebody
/// else here.
pub(super) struct Actors<'c>(Vec<Option<&'c str>>);

pub(super) fn all(kind: PackKind) -> impl Iterator<Item = &'static DerivedSpec> {
    let own = kind.pack().derived;
    own.iter().chain(COMMON.iter().filter(|common| own.iter().all(|spec| spec.name != common.name)))
}

/// A string, or absent.
pub(super) fn string(text: Option<&str>) -> ClaimValue {
    text.map_or(ClaimValue::Absent, |text| ClaimValue::String(text.to_owned()))
}

/// The words of a text that are separated by spaces, as in RFC 6749 §3.3; none if there is no text.
pub(super) fn words(text: Option<&str>) -> ClaimValue {
    let words = text.unwrap_or_default().split(' ').filter(|word| !word.is_empty());
    ClaimValue::Strings(words.map(str::to_owned).collect())
}

/// `act` says in `sub` who acts, and in `act` who acted before. RFC 8693 §4.1: "The "act" claim value is a JSON object,
/// and members in the JSON object are claims that identify the actor."
pub(super) fn check_actors(claims: &Object) -> Result<(), TokenFault> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty() && is_visible(text));
    let mut next = claims.get("act");
    for _ in 0..MAX_ACTORS {
        let Some(actor) = next else { return Ok(()) };
        let actor = actor.as_object().ok_or(TokenFault::ClaimMalformed)?;
        if !actor.get("sub").is_some_and(is_text) || !actor.get("iss").is_none_or(is_text) {
            return Err(TokenFault::ClaimMalformed);
        }
        next = actor.get("act");
    }
    if next.is_none() { Ok(()) } else { Err(TokenFault::ClaimMalformed) }
}

// === impl DerivedSpec ===

impl DerivedSpec {
    /// A stable attribute.
    pub(super) const fn new(name: &'static str, kind: ClaimKind, compute: fn(&Object) -> ClaimValue) -> Self {
        Self { name, kind, stable: Stability::Stable, compute }
    }
}

// === impl Actors ===

impl<'c> Actors<'c> {
    /// Those in `act`.
    pub(super) fn of(claims: &'c Object) -> Self {
        let issuer = claims.get("iss").and_then(Value::as_str);
        let mut actors = Vec::new();
        let mut next = claims.get("act").and_then(Value::as_object);
        while let Some(actor) = next {
            let own = actor.get("iss").is_none_or(|iss| issuer.is_some() && iss.as_str() == issuer);
            actors.push(actor.get("sub").and_then(Value::as_str).filter(|_| own));
            next = actor.get("act").and_then(Value::as_object);
        }
        Self(actors)
    }

    /// With one more, who acts for all of them.
    pub(super) fn under(self, outermost: Option<&'c str>) -> Self {
        let mut actors = vec![outermost];
        actors.extend(self.0);
        Self(actors)
    }

    /// RFC 8693 §4.1: "the consumer of a token MUST only consider the token's top-level claims and the party identified
    /// as the current actor by the "act" claim". The others are for the record.
    pub(super) fn outermost(&self) -> ClaimValue {
        match self.0.first() {
            None => ClaimValue::Absent,
            Some(None) => ClaimValue::Unknown,
            Some(actor) => string(*actor),
        }
    }

    pub(super) fn chain(&self) -> ClaimValue {
        let chain: Option<Vec<_>> = self.0.iter().map(|actor| actor.map(str::to_owned)).collect();
        chain.map_or(ClaimValue::Unknown, ClaimValue::Strings)
    }

    pub(super) fn count(&self) -> ClaimValue {
        i64::try_from(self.0.len()).map_or(ClaimValue::Unknown, ClaimValue::Integer)
    }
}
