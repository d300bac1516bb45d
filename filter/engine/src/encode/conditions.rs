//! Writes conditions and what they are made of.

use crate::layout::{MAX_CONDITION_DEPTH, MAX_CONDITION_PARTS, MAX_OPERAND_DEPTH, NONE, code, long_words};
use crate::model::{ClaimRef, Condition, Operand, Relation, Test, TextTest};
use crate::{normal, pattern, schedule};

use super::pool::{Kind, ListOf};
use super::{EncodeError, Place, TOO_MANY_FIELDS, Writer, claim_word};

fn refuse(place: Place<'_>) -> impl Fn(&'static str) -> EncodeError {
    move |why| EncodeError::Condition { place: place.to_string(), why }
}

// === impl Writer ===

impl Writer<'_> {
    /// Children are written before their parent.
    pub(super) fn condition(
        &mut self,
        condition: &Condition,
        issuers: &[u16],
        place: Place<'_>,
        depth: u32,
    ) -> Result<u32, EncodeError> {
        self.begin(place, depth)?;
        let record = match condition {
            Condition::True => [code::TRUE, 0, 0, 0],
            Condition::All(parts) | Condition::Any(parts) => {
                let operator = if matches!(condition, Condition::All(_)) { code::ALL } else { code::ANY };
                [operator, self.conditions(parts, issuers, place, depth + 1)?, 0, 0]
            }
            Condition::Not(inner) => [code::NOT, self.condition(inner, issuers, place, depth + 1)?, 0, 0],
            Condition::Claim(claim, test) => self.test(*claim, test, issuers, place)?,
            Condition::Compare(left, relation, right) => {
                let operator = match relation {
                    Relation::Equal => code::EQUAL,
                    Relation::Less => code::LESS,
                    Relation::LessOrEqual => code::LESS_OR_EQUAL,
                };
                let left = self.operand(left, issuers, place, 0)?;
                [operator, left, self.operand(right, issuers, place, 0)?, 0]
            }
            Condition::Text(operand, test) => {
                let operand = self.operand(operand, issuers, place, 0)?;
                let [operator, argument] = self.text_test(test, place)?;
                [operator, operand, argument, 0]
            }
            Condition::Within(within) => {
                let zone = schedule::encode_zone(&within.zone).map_err(refuse(place))?;
                let zone = self.zone(&zone);
                let windows =
                    self.optional(Some(&within.windows), ListOf::Numbers, place, "windows", |_, window| {
                        schedule::encode_window(*window).map_err(refuse(place))
                    })?;
                [code::WITHIN, zone, windows, 0]
            }
        };
        Ok(self.record(Kind::Condition, record))
    }

    /// What says that all of these hold, as [`Writer::condition`] does of a [`Condition::All`].
    pub(super) fn all<'c>(
        &mut self,
        parts: impl IntoIterator<Item = &'c Condition>,
        issuers: &[u16],
        place: Place<'_>,
    ) -> Result<u32, EncodeError> {
        self.begin(place, 0)?;
        let parts = self.conditions(parts, issuers, place, 1)?;
        Ok(self.record(Kind::Condition, [code::ALL, parts, 0, 0]))
    }

    /// A list of conditions.
    fn conditions<'c>(
        &mut self,
        parts: impl IntoIterator<Item = &'c Condition>,
        issuers: &[u16],
        place: Place<'_>,
        depth: u32,
    ) -> Result<u32, EncodeError> {
        let parts = parts.into_iter().map(|part| self.condition(part, issuers, place, depth));
        let parts = parts.collect::<Result<Vec<u32>, _>>()?;
        Ok(self.list(ListOf::Conditions, &parts))
    }

    /// Counts one more part of a condition.
    fn begin(&mut self, place: Place<'_>, depth: u32) -> Result<(), EncodeError> {
        if depth >= MAX_CONDITION_DEPTH {
            return Err(EncodeError::TooDeep(place.to_string()));
        }
        self.parts += 1;
        if self.parts > MAX_CONDITION_PARTS {
            return Err(EncodeError::TooManyParts(place.to_string()));
        }
        Ok(())
    }

    fn test(
        &mut self,
        claim: ClaimRef,
        test: &Test,
        issuers: &[u16],
        place: Place<'_>,
    ) -> Result<[u32; 4], EncodeError> {
        let at = self.claim(claim, issuers, place)?;
        Ok(match test {
            Test::Present => [code::PRESENT, at, 0, 0],
            Test::OneOf(values) => {
                let list = self.texts(values, place)?;
                [code::ONE_OF, at, list, 0]
            }
            Test::Integer(value) => {
                let [low, high] = long_words(*value);
                [code::INTEGER, at, low, high]
            }
            Test::Boolean(value) => [code::BOOLEAN, at, u32::from(*value), 0],
            Test::Glob(pattern) => [code::GLOB, at, self.string(pattern), 0],
            Test::Contains(value) => [code::CONTAINS, at, self.string(value), 0],
            Test::PeerNamespace => [code::PEER_NAMESPACE, at, 0, 0],
            Test::PeerServiceAccount => [code::PEER_ACCOUNT, at, 0, 0],
            Test::Same(other) => [code::SAME, at, self.claim(*other, issuers, place)?, 0],
            Test::Listed(directory) => [code::LISTED, at, self.directory(*directory, place)?, 0],
            Test::ListedOrStale(directory) => {
                [code::LISTED_OR_STALE, at, self.directory(*directory, place)?, 0]
            }
        })
    }

    fn directory(&self, directory: u16, place: Place<'_>) -> Result<u32, EncodeError> {
        if self.directories <= usize::from(directory) {
            return Err(EncodeError::Dangling { place: place.to_string(), what: "directory" });
        }
        Ok(u32::from(directory))
    }

    /// A claim as one word. Only tokens that the entry demands may be named: an entry that reads a token it does not
    /// demand would see nothing where the caller leaves the token out.
    pub(super) fn claim(
        &self,
        claim: ClaimRef,
        issuers: &[u16],
        place: Place<'_>,
    ) -> Result<u32, EncodeError> {
        let known = self.issuers.get(usize::from(claim.issuer));
        if !issuers.contains(&claim.issuer) || known.is_none() {
            return Err(EncodeError::Dangling { place: place.to_string(), what: "token" });
        }
        if claim_word(claim) == NONE
            || known.is_none_or(|issuer| issuer.slots.len() <= usize::from(claim.slot))
        {
            return Err(EncodeError::Dangling { place: place.to_string(), what: "claim" });
        }
        Ok(claim_word(claim))
    }

    /// What it is made of is written before it.
    fn operand(
        &mut self,
        operand: &Operand,
        issuers: &[u16],
        place: Place<'_>,
        depth: u32,
    ) -> Result<u32, EncodeError> {
        if depth >= MAX_OPERAND_DEPTH {
            return Err(EncodeError::TooDeep(place.to_string()));
        }
        let [kind, a, b, c] = match operand {
            Operand::Claim(claim) => [code::OPERAND_CLAIM, self.claim(*claim, issuers, place)?, 0, 0],
            Operand::PeerNamespace => [code::OPERAND_PEER_NAMESPACE, 0, 0, 0],
            Operand::PeerServiceAccount => [code::OPERAND_PEER_ACCOUNT, 0, 0, 0],
            Operand::PeerTrustDomain => [code::OPERAND_PEER_TRUST_DOMAIN, 0, 0, 0],
            Operand::Method => [code::OPERAND_METHOD, 0, 0, 0],
            Operand::Host => [code::OPERAND_HOST, 0, 0, 0],
            Operand::Path => [code::OPERAND_PATH, 0, 0, 0],
            Operand::Port => [code::OPERAND_PORT, 0, 0, 0],
            Operand::Header(name) => {
                if !normal::is_field_name(name.as_bytes()) {
                    return Err(refuse(place)("no header has this name"));
                }
                [code::OPERAND_HEADER, self.string(name), 0, 0]
            }
            Operand::Query(name) => {
                if name.is_empty() {
                    return Err(refuse(place)("a query parameter has a name"));
                }
                [code::OPERAND_QUERY, self.string(name), 0, 0]
            }
            Operand::Body(field) => {
                let text = field.to_string();
                if !self.of_operation {
                    return Err(refuse(place)("only operations read bodies"));
                }
                if text.parse() != Ok(field.clone()) {
                    return Err(refuse(place)("no body has this field"));
                }
                let at = self.field(field).ok_or_else(|| refuse(place)(TOO_MANY_FIELDS))?;
                [code::OPERAND_BODY, self.string(&text), at, 0]
            }
            Operand::Now => [code::OPERAND_NOW, 0, 0, 0],
            Operand::TokenClock => [code::OPERAND_TOKEN_CLOCK, 0, 0, 0],
            Operand::Text(text) => [code::OPERAND_TEXT, self.string(text), 0, 0],
            Operand::Integer(value) => {
                let [low, high] = long_words(*value);
                [code::OPERAND_INTEGER, low, high, 0]
            }
            Operand::Boolean(value) => [code::OPERAND_BOOLEAN, u32::from(*value), 0, 0],
            Operand::Length(of) => [code::OPERAND_LENGTH, self.operand(of, issuers, place, depth + 1)?, 0, 0],
            Operand::Plus(to, more) => {
                let [low, high] = long_words(*more);
                [code::OPERAND_PLUS, self.operand(to, issuers, place, depth + 1)?, low, high]
            }
        };
        Ok(self.record(Kind::Operand, [kind, a, b, c]))
    }

    fn texts(&mut self, values: &[String], place: Place<'_>) -> Result<u32, EncodeError> {
        self.optional(Some(values), ListOf::Texts, place, "values", |writer, value| Ok(writer.string(value)))
    }

    fn text_test(&mut self, test: &TextTest, place: Place<'_>) -> Result<[u32; 2], EncodeError> {
        Ok(match test {
            TextTest::Present => [code::TEXT_PRESENT, 0],
            TextTest::OneOf(values) => {
                let list = self.texts(values, place)?;
                [code::TEXT_ONE_OF, list]
            }
            TextTest::Prefix(text) => [code::TEXT_PREFIX, self.string(text)],
            TextTest::Suffix(text) => [code::TEXT_SUFFIX, self.string(text)],
            TextTest::Infix(text) => [code::TEXT_INFIX, self.string(text)],
            TextTest::Glob(glob) => [code::TEXT_GLOB, self.string(glob)],
            TextTest::Pattern(automaton) => {
                let run = pattern::encode(automaton).map_err(refuse(place))?;
                [code::TEXT_PATTERN, self.automaton(&run)]
            }
        })
    }
}
