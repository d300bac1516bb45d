//! Claims: what a pack knows of one, whether a token's claims are so, and what rules read.
//!
//! INVARIANT: a wrong type is never "absent". [`check_types`] refuses it, and [`extract`] reads a value that is there
//! as itself, as unknown, or as [`ClaimValue::Other`], which equals nothing.

use tidegate_engine::{ClaimValue, TokenFault};

use super::PackKind;
use crate::json::{Object, Value};

/// A claim that a pack knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimSpec {
    /// Member names from the outside in. The last may end in `*`, which stands for any text: [`ClaimSpec::is`].
    pub path: &'static [&'static str],
    /// Its type.
    pub kind: ClaimKind,
    /// Whether it keeps naming the same thing.
    pub stable: Stability,
    /// Whether it must be there.
    pub presence: Presence,
    /// When its absence says nothing.
    pub overage: Overage,
    /// The issuer also writes a boolean as `"true"`, `"1"`, `1` and so on, and a list of one string as the string.
    /// Rules read [`ClaimSpec::kind`] all the same.
    pub loose: bool,
}

/// The type of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimKind {
    /// A string without control or invisible characters.
    String,
    /// A string of printable ASCII, not empty.
    Identifier,
    /// A string of decimal digits, not empty.
    Digits,
    /// A string of the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, hexadecimal in lower case: one spelling of an id.
    Guid,
    /// The string `true` or the string `false`.
    BooleanString,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array of strings.
    Strings,
    /// A string, or an array of strings.
    StringOrStrings,
    /// An object or another structure that rules cannot compare as a whole.
    Structure,
}

/// Whether a claim keeps naming the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stability {
    /// Assigned by the issuer and never given to somebody else.
    Stable,
    /// A name that people choose, change or re-use.
    Renameable,
    /// What the caller said of itself when it asked for the token; the issuer only signs it.
    CallerAsserted,
}

/// Whether a claim must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// In every token.
    Required,
    /// May be missing; null is a wrong type.
    Optional,
    /// May be missing or null.
    Nullable,
}

/// When the absence of a claim says nothing, because the issuer leaves out what is too long or was not asked for. A claim that
/// `_claim_names` names (OpenID Connect Core 1.0 §5.6.2: what is distributed over other sources) is unknown as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overage {
    /// Absent is absent.
    Never,
    /// The issuer leaves it out without a word.
    Silent,
    /// The issuer leaves it out without a word, together with the object that it is in; where that is, absent is absent.
    Beneath,
    /// The issuer leaves it out and sets this member to true.
    Marked(&'static str),
}

/// Whether all known claims have their types.
pub(crate) fn check_types(kind: PackKind, claims: &Object) -> Result<(), TokenFault> {
    kind.claims().iter().try_for_each(|spec| check_claim(spec, claims))
}

/// Whether a known claim has its type, and is there if it must be.
pub(crate) fn check_claim(spec: &ClaimSpec, claims: &Object) -> Result<(), TokenFault> {
    if let Some((way, prefix)) = spec.wildcard() {
        return check_each(spec, claims, way, prefix);
    }
    match (find(claims, spec.path.iter().copied()), spec.presence) {
        (Found::Missing, Presence::Required) => Err(TokenFault::ClaimMissing),
        (Found::Missing, Presence::Optional | Presence::Nullable) => Ok(()),
        (Found::Value(Value::Null), Presence::Nullable) => Ok(()),
        (Found::Value(value), _) if spec.admits(value) => Ok(()),
        (Found::Value(_) | Found::Unreachable, _) => Err(TokenFault::ClaimMalformed),
    }
}

/// Every member of the object at `way` whose name begins so.
fn check_each(spec: &ClaimSpec, claims: &Object, way: &[&str], prefix: &str) -> Result<(), TokenFault> {
    let members = match find(claims, way.iter().copied()) {
        _ if way.is_empty() => claims,
        Found::Missing => return Ok(()),
        Found::Value(Value::Object(members)) => members,
        Found::Value(_) | Found::Unreachable => return Err(TokenFault::ClaimMalformed),
    };
    let fit = |(name, value): (&str, &Value)| !name.starts_with(prefix) || spec.admits(value);
    if members.iter().all(fit) { Ok(()) } else { Err(TokenFault::ClaimMalformed) }
}

/// The value that rules read at a path.
pub(crate) fn extract(kind: PackKind, claims: &Object, path: &[String]) -> ClaimValue {
    // A member that is called so is not read: names with `@` are ours.
    if let Some(first) = path.first()
        && first.starts_with('@')
    {
        let derived = if path.len() == 1 { kind.derived(first) } else { None };
        return derived.map_or(ClaimValue::Absent, |spec| (spec.compute)(claims));
    }
    // Whose name an actor's `sub` is says its `iss`, which no comparison of one of them sees: `@actor` says both.
    if path.len() > 1 && path.first().is_some_and(|first| first == "act") {
        return ClaimValue::Unknown;
    }
    let spec = kind.claim(path);
    if is_elsewhere(claims, path) || spec.is_some_and(|spec| spec.is_marked(claims)) {
        return ClaimValue::Unknown;
    }
    match find(claims, path.iter().map(String::as_str)) {
        Found::Missing | Found::Value(Value::Null) => match spec {
            Some(spec) if spec.is_untold(claims) => ClaimValue::Unknown,
            _ => ClaimValue::Absent,
        },
        Found::Unreachable => ClaimValue::Other,
        Found::Value(value) => match spec {
            Some(spec) if spec.loose => spec.kind.tightened(value).unwrap_or_else(|| comparable(value)),
            _ => comparable(value),
        },
    }
}

/// The value of a member, as rules read one that no pack knows.
pub(super) fn extract_plain(claims: &Object, name: &str) -> ClaimValue {
    claims.get(name).map_or(ClaimValue::Absent, comparable)
}

/// Whether the token says that another source has this claim. That source is never asked: its address comes from the
/// token.
pub(super) fn is_elsewhere(claims: &Object, path: &[impl AsRef<str>]) -> bool {
    let names = claims.get("_claim_names").and_then(Value::as_object);
    names.zip(path.first()).is_some_and(|(names, first)| names.get(first.as_ref()).is_some())
}

fn comparable(value: &Value) -> ClaimValue {
    match value {
        Value::Null => ClaimValue::Absent,
        Value::Boolean(boolean) => ClaimValue::Boolean(*boolean),
        Value::Integer(integer) => ClaimValue::Integer(*integer),
        Value::String(string) if is_visible(string) => ClaimValue::String(string.clone()),
        Value::Array(elements) => elements
            .iter()
            .map(|element| element.as_str().filter(|s| is_visible(s)).map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(ClaimValue::Other, ClaimValue::Strings),
        Value::String(_) | Value::Number(_) | Value::Object(_) => ClaimValue::Other,
    }
}

enum Found<'v> {
    Missing,
    /// Something on the way is there and no object.
    Unreachable,
    Value(&'v Value),
}

fn find<'v, 'p>(claims: &'v Object, path: impl Iterator<Item = &'p str>) -> Found<'v> {
    let mut members = Some(claims);
    let mut found = None;
    for name in path {
        let Some(object) = members else { return Found::Unreachable };
        match object.get(name) {
            None => return Found::Missing,
            Some(value) => {
                members = value.as_object();
                found = Some(value);
                if *value == Value::Null {
                    // Whatever lies below null is as missing as null is.
                    break;
                }
            }
        }
    }
    found.map_or(Found::Missing, Found::Value)
}

/// The string at a path, if there is one.
pub(crate) fn text<'v>(claims: &'v Object, path: &[&str]) -> Option<&'v str> {
    match find(claims, path.iter().copied()) {
        Found::Value(value) => value.as_str(),
        Found::Missing | Found::Unreachable => None,
    }
}

/// Whether something other than null is at a path.
pub(crate) fn present(claims: &Object, path: &[&str]) -> bool {
    match find(claims, path.iter().copied()) {
        Found::Value(value) => *value != Value::Null,
        Found::Unreachable => true,
        Found::Missing => false,
    }
}

/// No control characters (C0, DEL, C1), and none that are invisible or change the direction of text: such a string
/// looks like another one in logs and rules.
pub(crate) fn is_visible(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_plain
        || !text.chars().any(|c| {
            c.is_control()
                || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        })
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || matches!(b, b'a'..=b'f'),
        })
}

// === impl ClaimKind ===

impl ClaimKind {
    fn admits(self, value: &Value) -> bool {
        let visible = |value: &Value| value.as_str().is_some_and(is_visible);
        match self {
            Self::String => visible(value),
            Self::Identifier => value
                .as_str()
                .is_some_and(|text| !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))),
            Self::Digits => value.as_str().is_some_and(is_digits),
            Self::Guid => value.as_str().is_some_and(is_guid),
            Self::BooleanString => matches!(value.as_str(), Some("true" | "false")),
            Self::Integer => matches!(value, Value::Integer(_)),
            Self::Boolean => matches!(value, Value::Boolean(_)),
            Self::Strings => value.as_array().is_some_and(|elements| elements.iter().all(visible)),
            Self::StringOrStrings => visible(value) || Self::Strings.admits(value),
            Self::Structure => matches!(value, Value::Object(_) | Value::Array(_)),
        }
    }

    /// What another spelling of a value of this kind stands for.
    fn tightened(self, value: &Value) -> Option<ClaimValue> {
        match (self, value) {
            (Self::Boolean, Value::String(text)) => match text.as_str() {
                "true" | "1" => Some(ClaimValue::Boolean(true)),
                "false" | "0" => Some(ClaimValue::Boolean(false)),
                _ => None,
            },
            (Self::Boolean, Value::Integer(1)) => Some(ClaimValue::Boolean(true)),
            (Self::Boolean, Value::Integer(0)) => Some(ClaimValue::Boolean(false)),
            (Self::Strings, Value::String(text)) if is_visible(text) => {
                Some(ClaimValue::Strings(vec![text.clone()]))
            }
            _ => None,
        }
    }
}

// === impl ClaimSpec ===

impl ClaimSpec {
    /// Whether this is the claim at the path. A last name that ends in `*` stands for all that begin like it.
    pub fn is(&self, path: &[impl AsRef<str>]) -> bool {
        self.path.len() == path.len()
            && self.path.iter().zip(path).all(|(own, name)| match own.strip_suffix('*') {
                Some(prefix) => name.as_ref().starts_with(prefix),
                None => *own == name.as_ref(),
            })
    }

    /// A stable, optional claim.
    pub(super) const fn new(path: &'static [&'static str], kind: ClaimKind) -> Self {
        Self {
            path,
            kind,
            stable: Stability::Stable,
            presence: Presence::Optional,
            overage: Overage::Never,
            loose: false,
        }
    }

    pub(super) const fn required(self) -> Self {
        Self { presence: Presence::Required, ..self }
    }

    pub(super) const fn nullable(self) -> Self {
        Self { presence: Presence::Nullable, ..self }
    }

    pub(super) const fn renameable(self) -> Self {
        Self { stable: Stability::Renameable, ..self }
    }

    pub(super) const fn caller_asserted(self) -> Self {
        Self { stable: Stability::CallerAsserted, ..self }
    }

    pub(super) const fn overage(self, overage: Overage) -> Self {
        Self { overage, ..self }
    }

    pub(super) const fn loose(self) -> Self {
        Self { loose: true, ..self }
    }

    fn admits(&self, value: &Value) -> bool {
        self.kind.admits(value) || (self.loose && self.kind.tightened(value).is_some())
    }

    /// For a path that ends in `*`: where the object is, and how its members' names begin.
    fn wildcard(&self) -> Option<(&'static [&'static str], &'static str)> {
        let (last, way) = self.path.split_last()?;
        Some((way, last.strip_suffix('*')?))
    }

    /// Whether the token says that this claim was left out.
    fn is_marked(&self, claims: &Object) -> bool {
        match self.overage {
            Overage::Marked(name) => {
                !matches!(claims.get(name), None | Some(Value::Null | Value::Boolean(false)))
            }
            Overage::Never | Overage::Silent | Overage::Beneath => false,
        }
    }

    /// Whether nothing can be told from the absence of this claim.
    fn is_untold(&self, claims: &Object) -> bool {
        match self.overage {
            Overage::Silent => true,
            Overage::Beneath => self.path.split_last().is_some_and(|(_, way)| !present(claims, way)),
            Overage::Never | Overage::Marked(_) => false,
        }
    }
}

/// A pack's claims, and those that mean the same in all of them (RFC 7519 §4.1.4 to §4.1.7, RFC 8693 §4.1). Each pack
/// says itself what `iss`, `sub` and `aud` are.
macro_rules! claims {
    ($($spec:expr),* $(,)?) => {
        &[
            $($spec,)*
            $crate::pack::ClaimSpec::new(&["exp"], $crate::pack::ClaimKind::Integer).required(),
            $crate::pack::ClaimSpec::new(&["nbf"], $crate::pack::ClaimKind::Integer),
            $crate::pack::ClaimSpec::new(&["iat"], $crate::pack::ClaimKind::Integer),
            $crate::pack::ClaimSpec::new(&["jti"], $crate::pack::ClaimKind::Identifier),
            $crate::pack::ClaimSpec::new(&["act"], $crate::pack::ClaimKind::Structure),
        ]
    };
}
pub(super) use claims;
