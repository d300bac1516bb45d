//! Values: what is read, what is written out, and what is computed of them.

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use tidegate_engine::model::{Operand, TextTest};
use tidegate_engine::normal;
use tidegate_identity::pack::ClaimKind;

use crate::claim_path;
use crate::spec::TokenSpec;
use crate::suggest;
use crate::syntax;
use crate::tokens::{check_stability, known_claim};

use super::check::Checker;
use super::number::{Linear, Unit};
use super::syntax::path_of;
use super::tree::{ClaimName, Tree, Value};

/// A value and its type. Texts are what people wrote.
#[derive(Debug, Clone)]
pub(super) enum Typed {
    Text(Value, TextKind, String),
    Boolean(Value, String),
    /// A list of strings.
    List(Value, String),
    /// A claim that the pack does not know.
    Any(Value, String),
    Number(Linear),
    Literal(String),
    BooleanLiteral(bool),
    Literals(Vec<Typed>),
}

/// Which strings a value can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    Claim(ClaimKind),
    Method,
    Host,
    Path,
    Other,
}

// === impl Typed ===

impl Typed {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Text(_, kind, shown) => format!("`{shown}`, {},", kind.name()),
            Self::Boolean(_, shown) => format!("`{shown}`, a boolean,"),
            Self::List(_, shown) => format!("`{shown}`, a list of strings,"),
            Self::Any(_, shown) => format!("`{shown}`"),
            Self::Number(number) => number.describe(),
            Self::Literal(text) => format!("the string `{text}`"),
            Self::BooleanLiteral(value) => format!("the boolean `{value}`"),
            Self::Literals(_) => "a list that is written out".to_owned(),
        }
    }

    /// As a number, if it is or may be one.
    pub(super) fn number(self) -> Option<Linear> {
        match self {
            Self::Number(number) => Some(number),
            Self::Any(value, shown) => Some(Linear::integer(value, shown)),
            _ => None,
        }
    }
}

// === impl TextKind ===

impl TextKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Claim(ClaimKind::BooleanString) => "the string `true` or `false`",
            Self::Claim(ClaimKind::Digits) => "a string of digits",
            Self::Claim(_) | Self::Method | Self::Host | Self::Path | Self::Other => "a string",
        }
    }

    pub(super) fn is_boolean(self) -> bool {
        self == Self::Claim(ClaimKind::BooleanString)
    }
}

// === impl Checker ===

impl Checker<'_> {
    /// An expression that is a value.
    pub(super) fn value(&mut self, expr: &Expr) -> Option<Typed> {
        match expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::List(list) => {
                if !list.optional_indices.is_empty() {
                    return self.unknown(expr);
                }
                let values: Vec<Option<Typed>> =
                    list.elements.iter().map(|element| self.value(&element.expr)).collect();
                values.into_iter().collect::<Option<Vec<_>>>().map(Typed::Literals)
            }
            Expr::Call(CallExpr { func_name, target, args }) => {
                let target = target.iter().map(|target| &target.expr);
                let all: Vec<&Expr> = target.chain(args.iter().map(|arg| &arg.expr)).collect();
                match (func_name.as_str(), all.as_slice()) {
                    (operators::INDEX, _) => self.path(expr),
                    (operators::ADD, [left, right]) => self.sum(left, false, right),
                    (operators::SUBSTRACT, [left, right]) => self.sum(left, true, right),
                    (operators::NEGATE, [inner]) => self.negative(inner),
                    ("size", [of]) => self.size(of),
                    ("timestamp", [of]) => self.timestamp(of),
                    ("duration", [Expr::Literal(LiteralValue::String(text))]) => self.duration(text.inner()),
                    _ => self.unknown(expr),
                }
            }
            Expr::Ident(_) | Expr::Select(_) => self.path(expr),
            _ => self.unknown(expr),
        }
    }

    fn literal(&mut self, literal: &LiteralValue) -> Option<Typed> {
        match literal {
            LiteralValue::Boolean(value) => Some(Typed::BooleanLiteral(*value.inner())),
            LiteralValue::Int(value) => {
                let value = *value.inner();
                Some(Typed::Number(Linear::constant(Unit::Integer, value, value.to_string())))
            }
            LiteralValue::String(text) => {
                let text = text.inner();
                if !syntax::is_plain_text(text) {
                    return self.refuse(
                        "a string has control or invisible characters",
                        "values with such characters are never accepted from tokens or requests",
                        "remove them",
                    );
                }
                Some(Typed::Literal(text.to_owned()))
            }
            LiteralValue::Null => self.refuse(
                "`null` is not compared",
                "what is absent makes a comparison false",
                "write `has(…)`, or `!has(…)`",
            ),
            LiteralValue::UInt(_) | LiteralValue::Double(_) | LiteralValue::Bytes(_) => self.refuse(
                "a number with a fraction or a suffix, or bytes, are not compared",
                "claims and requests have whole numbers, strings and booleans",
                "write a whole number, or a string",
            ),
        }
    }

    fn sum(&mut self, left: &Expr, subtract: bool, right: &Expr) -> Option<Typed> {
        let (left, right) = (self.value(left), self.value(right));
        let (left, right) = (left?, right?);
        let (left_is, right_is) = (left.describe(), right.describe());
        let combined = left.number().zip(right.number()).and_then(|(l, r)| l.combined(subtract, r));
        match combined {
            Some(sum) => Some(Typed::Number(sum)),
            None => self.refuse(
                format!("{left_is} and {right_is} have no {}", if subtract { "difference" } else { "sum" }),
                "numbers, timestamps and durations are added where that means something, and are not too large",
                "write e.g. `now - timestamp(\"2026-12-31T18:00:00Z\") < duration(\"1h\")`; in the name of an issuer \
                 `-` cannot be written: give its token another with `as`",
            ),
        }
    }

    fn negative(&mut self, expr: &Expr) -> Option<Typed> {
        let value = self.value(expr)?;
        let is = value.describe();
        let zero = |unit| Linear::constant(unit, 0, String::new());
        let negative = value.number().and_then(|number| {
            let shown = format!("-{}", number.shown);
            zero(number.unit).combined(true, number).map(|sum| sum.shown_as(shown))
        });
        match negative {
            Some(negative) => Some(Typed::Number(negative)),
            None => self.refuse(format!("{is} has no negative"), "only numbers have", "remove the sign"),
        }
    }

    fn size(&mut self, of: &Expr) -> Option<Typed> {
        match self.value(of)? {
            Typed::Text(value, _, shown) | Typed::List(value, shown) | Typed::Any(value, shown) => {
                let length = Value::Length(Box::new(value));
                Some(Typed::Number(Linear::integer(length, format!("size({shown})"))))
            }
            other => {
                let is = other.describe();
                self.mistyped(format!("{is} has no size"), "strings and lists of a token have a size")
            }
        }
    }

    fn timestamp(&mut self, of: &Expr) -> Option<Typed> {
        match self.value(of)? {
            Typed::Literal(text) => {
                match text.contains(['T', 't']).then(|| syntax::moment(&text)).flatten() {
                    Some(moment) => {
                        let shown = format!("timestamp(\"{text}\")");
                        Some(Typed::Number(Linear::constant(Unit::Timestamp, moment, shown)))
                    }
                    None => self.refuse(
                        format!("`{text}` is not a moment"),
                        "times are written as RFC 3339 says, with an offset",
                        "write `timestamp(\"2026-12-31T18:00:00Z\")`",
                    ),
                }
            }
            value => {
                let is = value.describe();
                match value.number() {
                    Some(number) if number.unit == Unit::Integer => {
                        let shown = format!("timestamp({})", number.shown);
                        Some(Typed::Number(number.into_timestamp().shown_as(shown)))
                    }
                    _ => self.mistyped(
                        format!("{is} is no timestamp"),
                        "write a moment, or a claim that counts seconds since 1970",
                    ),
                }
            }
        }
    }

    fn duration(&mut self, text: &str) -> Option<Typed> {
        match syntax::duration(text) {
            Some(seconds) => {
                let shown = format!("duration(\"{text}\")");
                Some(Typed::Number(Linear::constant(Unit::Duration, i64::from(seconds), shown)))
            }
            None => self.refuse(
                format!("`{text}` is not a duration"),
                "a duration is a whole number with a unit",
                "write `duration(\"30s\")`, `15m`, `1h` or `7d`",
            ),
        }
    }

    /// `now`, `peer.namespace`, `request.headers["x"]`, `job.claim`.
    fn path(&mut self, expr: &Expr) -> Option<Typed> {
        let Some((root, path)) = path_of(expr) else { return self.unknown(expr) };
        let names_token = self.tokens.iter().any(|token| token.alias.is_none() && token.issuer == root);
        match root {
            "now" | "peer" | "request" if names_token => self.refuse(
                format!("the entry has a token `{root}`"),
                format!("in conditions `{root}` means something else"),
                "give the token another name with `as`",
            ),
            "now" if !path.is_empty() => self.refuse(
                "`now` has no parts",
                "it is a moment, and compared as one",
                "write e.g. `now < timestamp(\"2026-12-31T18:00:00Z\")`; hours and days go into `schedule`",
            ),
            "now" => {
                let now = Linear::integer(Value::Request(Operand::Now), "now".to_owned());
                Some(Typed::Number(now.into_timestamp()))
            }
            "peer" => self.of_peer(&path),
            "request" => self.of_request(&path),
            _ => self.of_token(root, path),
        }
    }

    fn of_peer(&mut self, path: &[String]) -> Option<Typed> {
        let operand = match path {
            [part] if part == "namespace" => Operand::PeerNamespace,
            [part] if part == "serviceAccount" => Operand::PeerServiceAccount,
            [part] if part == "trustDomain" => Operand::PeerTrustDomain,
            _ => {
                let what = match path {
                    [] => "`peer` is not compared as a whole".to_owned(),
                    _ => format!("`peer` has no `{}`", claim_path::show(path)),
                };
                return self.refuse(
                    what,
                    "a peer is what its certificate says",
                    "write `peer.namespace`, `peer.serviceAccount` or `peer.trustDomain`",
                );
            }
        };
        Some(Typed::Text(
            Value::Request(operand),
            TextKind::Other,
            format!("peer.{}", claim_path::show(path)),
        ))
    }

    fn of_request(&mut self, path: &[String]) -> Option<Typed> {
        let shown = format!("request.{}", claim_path::show(path));
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        let (operand, kind) = match parts.as_slice() {
            ["method"] => (Operand::Method, TextKind::Method),
            ["host"] => (Operand::Host, TextKind::Host),
            ["path"] => (Operand::Path, TextKind::Path),
            ["port"] => {
                let port = Linear::integer(Value::Request(Operand::Port), shown);
                return Some(Typed::Number(port));
            }
            ["headers", name] => (self.header(name)?, TextKind::Other),
            ["query", name] => (self.parameter(name)?, TextKind::Other),
            _ => {
                let known = ["method", "host", "path", "port", "headers", "query"];
                let close = parts.first().and_then(|first| suggest::closest(first, known));
                return self.refuse(
                    match parts.as_slice() {
                        [] => "`request` is not compared as a whole".to_owned(),
                        ["headers" | "query"] => format!("`{shown}` is not compared as a whole"),
                        _ => format!("`request` has no `{}`", claim_path::show(path)),
                    },
                    "of a request its method, host, path, port, headers and query are known",
                    match close {
                        Some("headers") => "write `request.headers[\"x-name\"]`".to_owned(),
                        Some("query") => "write `request.query[\"name\"]`".to_owned(),
                        Some(close) => format!("did you mean `request.{close}`?"),
                        None => "write e.g. `request.method` or `request.headers[\"x-name\"]`".to_owned(),
                    },
                );
            }
        };
        Some(Typed::Text(Value::Request(operand), kind, shown))
    }

    /// `"x" in request.headers`, `"x" in request.query`; the outer `None`: something else.
    pub(super) fn in_fields(&mut self, needle: &Expr, stack: &Expr) -> Option<Option<Tree>> {
        let (root, path) = path_of(stack)?;
        let [field] = path.as_slice() else { return None };
        let is_headers = match (root, field.as_str()) {
            ("request", "headers") => true,
            ("request", "query") => false,
            _ => return None,
        };
        let Expr::Literal(LiteralValue::String(name)) = needle else {
            return Some(self.refuse(
                "what is looked for is not written out",
                "headers and parameters are looked for by names that are known beforehand",
                format!("write `\"name\" in request.{field}`"),
            ));
        };
        let operand = if is_headers { self.header(name.inner()) } else { self.parameter(name.inner()) };
        Some(operand.map(|operand| Tree::Text(Value::Request(operand), TextTest::Present)))
    }

    fn header(&mut self, name: &str) -> Option<Operand> {
        match header_name(name) {
            Ok(name) => Some(Operand::Header(name)),
            Err((why, fix)) => {
                self.refuse(format!("`{name}` is not a header that conditions read"), why, fix)
            }
        }
    }

    fn parameter(&mut self, name: &str) -> Option<Operand> {
        match parameter_name(name) {
            Ok(()) => Some(Operand::Query(name.to_owned())),
            Err((why, fix)) => {
                self.refuse(format!("`{name}` is not a parameter that conditions read"), why, fix)
            }
        }
    }

    fn of_token(&mut self, root: &str, path: Vec<String>) -> Option<Typed> {
        let Some(token) = self.tokens.iter().find(|token| token.name() == root) else {
            let mut names: Vec<&str> = self.tokens.iter().map(TokenSpec::name).collect();
            let close = suggest::closest(root, names.iter().copied().chain(["peer", "request", "now"]));
            let fix = match close {
                Some(close) => format!("did you mean `{close}`?"),
                None if names.is_empty() => "write the token into the entry".to_owned(),
                None => {
                    names.sort_unstable();
                    format!(
                        "its tokens are {}; give a token a name that conditions can write with `as`",
                        suggest::list(names)
                    )
                }
            };
            return self.refuse(
                format!("the entry has no token `{root}`"),
                "a condition is about the tokens of its own entry, and about `peer`, `request` and `now`",
                fix,
            );
        };
        let issuer = self.context.usable_issuer(&token.issuer)?;
        let shown = claim_path::show(&path);
        if path.is_empty() {
            return self.refuse(
                format!("`{root}` is a token, and no claim of it"),
                "the entry matches only with this token",
                format!("write a claim, e.g. `{root}.sub`"),
            );
        }
        if path == ["iat"] {
            return self.refuse(
                "`iat` is not compared by conditions",
                "a token's age is asked for where the token is written",
                format!("write `maxTokenAge: 15m` beside `issuer: {}`", token.issuer),
            );
        }
        let known = known_claim(self.place, &shown, Some(path), issuer, self.findings)?;
        let written: Vec<&str> = std::iter::once(root).chain(known.path.iter().map(String::as_str)).collect();
        let shown = claim_path::show(&written);
        if check_stability(self.place, &shown, &known, token, issuer, self.findings) {
            self.asserted.insert(token.issuer.clone());
        }
        let value = Value::Claim(ClaimName { issuer: token.issuer.clone(), path: known.path });
        Some(match known.kind {
            None => Typed::Any(value, shown),
            Some(ClaimKind::Integer) => Typed::Number(Linear::integer(value, shown)),
            Some(ClaimKind::Boolean) => Typed::Boolean(value, shown),
            Some(ClaimKind::Strings) => Typed::List(value, shown),
            Some(ClaimKind::Structure | ClaimKind::StringOrStrings) => {
                return self.mistyped(format!("`{shown}` is a structure"), "compare another claim");
            }
            Some(
                kind @ (ClaimKind::String
                | ClaimKind::Identifier
                | ClaimKind::Digits
                | ClaimKind::Guid
                | ClaimKind::BooleanString),
            ) => Typed::Text(value, TextKind::Claim(kind), shown),
        })
    }
}

/// A header's name in lower case, or why it is none, and what to write.
pub(crate) fn header_name(name: &str) -> Result<String, (&'static str, &'static str)> {
    let lower = name.to_ascii_lowercase();
    if lower == "host" || lower.starts_with(':') {
        return Err((
            "methods, hosts and paths are compared in their normal form",
            "write `request.method`, `request.host` or `request.path`",
        ));
    }
    if normal::is_own_header(lower.as_bytes()) {
        return Err(("such headers are removed before anything is decided", "compare another header"));
    }
    if !normal::is_field_name(lower.as_bytes()) {
        return Err((
            "names of headers are letters, digits and a few other characters (RFC 9110 section 5.6.2)",
            "write a name such as `x-environment`",
        ));
    }
    Ok(lower)
}

/// Whether it is the name of a query parameter, or why not, and what to write.
pub(crate) fn parameter_name(name: &str) -> Result<(), (&'static str, &'static str)> {
    if name.is_empty() || !syntax::is_plain_text(name) || name.contains(['+', ' ']) {
        return Err((
            "servers read names with blanks, plus signs and control characters differently",
            "write the decoded name, e.g. `alt`",
        ));
    }
    Ok(())
}
