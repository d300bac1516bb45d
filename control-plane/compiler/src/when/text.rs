//! Strings: what they may be compared with, and the functions that test them.

use cel::common::ast::{Expr, LiteralValue};
use tidegate_engine::model::{Effect, TextTest};
use tidegate_engine::normal;
use tidegate_identity::pack::ClaimKind;

use crate::diagnostic::Code;
use crate::operation::check_method;
use crate::tokens::check_string;

use super::check::Checker;
use super::pattern::InvalidPattern;
use super::tree::Tree;
use super::value::{TextKind, Typed};

// === impl Checker ===

impl Checker<'_> {
    /// A string that the value can be. `None`: refused.
    pub(super) fn checked_literal(&mut self, kind: TextKind, shown: &str, text: &str) -> Option<()> {
        match kind {
            TextKind::Claim(ClaimKind::BooleanString) if text != "true" && text != "false" => self.mistyped(
                format!("`{shown}` is {}, and is compared with the string `{text}`", kind.name()),
                "write `\"true\"` or `\"false\"`",
            ),
            TextKind::Claim(claim) => {
                check_string(self.place, shown, text, Some(claim), self.findings).then_some(())
            }
            TextKind::Method => check_method(self.place, text, self.findings).map(|_| ()),
            TextKind::Host if normal::host(text.as_bytes()).is_none_or(|host| host != text) => self.refuse(
                format!("no request has the host `{text}`"),
                "hosts are compared in lower case, without port and without a trailing dot",
                "write a name such as `orders.example.com`",
            ),
            TextKind::Path => {
                let path = normal::path(text.as_bytes());
                if path.ambiguous() || path.text() != text {
                    return self.refuse(
                        format!("no request has the path `{text}`"),
                        "paths are compared in their normal form, without the query",
                        "write it as it is sent, e.g. `/v1/orders`",
                    );
                }
                Some(())
            }
            TextKind::Host | TextKind::Other => Some(()),
        }
    }

    /// `startsWith` and the like.
    pub(super) fn text_function(&mut self, name: &str, of: &Expr, argument: &Expr) -> Option<Tree> {
        if !matches!(name, "startsWith" | "endsWith" | "contains" | "matches") {
            return self.refuse(
                format!("the function `{name}` is not understood here"),
                "what could fail, or run long, while a request is decided is not part of conditions",
                "write `startsWith`, `endsWith`, `contains` or `matches`",
            );
        }
        let (value, shown) = match self.value(of)? {
            Typed::Text(value, _, shown) | Typed::Any(value, shown) => (value, shown),
            Typed::List(_, shown) => {
                return self.mistyped(
                    format!("`{shown}` is a list of strings, and `{name}` is for strings"),
                    format!("write `\"…\" in {shown}`"),
                );
            }
            other => {
                let is = other.describe();
                return self.mistyped(
                    format!("{is} is no string, and `{name}` is for strings"),
                    "compare it with `==`",
                );
            }
        };
        let Expr::Literal(LiteralValue::String(text)) = argument else {
            return self.refuse(
                format!("what `{name}` looks for is not written out"),
                "what a request is compared with is known beforehand",
                format!("write `{shown}.{name}(\"…\")`"),
            );
        };
        let text = text.inner().to_owned();
        if text.is_empty() {
            return self.refuse(
                format!("`{name}(\"\")` says nothing"),
                "every string has an empty one in it",
                format!("remove it; that it is there says `has({shown})`"),
            );
        }
        let test = match name {
            "startsWith" => TextTest::Prefix(text),
            "endsWith" => TextTest::Suffix(text),
            "contains" => TextTest::Infix(text),
            _ => self.pattern(&shown, &text)?,
        };
        Some(Tree::Text(value, test))
    }

    fn pattern(&mut self, shown: &str, source: &str) -> Option<TextTest> {
        let refused = |checker: &mut Self, message: String, why: &str, fix: &str| {
            checker.findings.add(checker.place, Code::MalformedPattern, message, why, fix);
            None
        };
        match self.context.cache.pattern(source).as_ref() {
            Ok(compiled) => {
                let widens = self.effect != Some(Effect::Deny);
                if !compiled.anchored && widens && self.positive {
                    self.findings.add(
                        self.place,
                        Code::PatternNotAnchored,
                        format!("`{source}` may match anywhere in `{shown}`"),
                        "`matches` holds if any part of the string matches, whatever stands before and after it",
                        "write `^` and `$` around it, or `startsWith`, `endsWith` or `contains`",
                    );
                }
                Some(TextTest::Pattern(compiled.pattern.clone()))
            }
            Err(InvalidPattern::Syntax(what)) => refused(
                self,
                format!("`{source}` is not a regular expression: {what}"),
                "the syntax is RE2's, without look-around and back-references",
                "correct it, or write `startsWith`, `endsWith` or `contains`",
            ),
            Err(InvalidPattern::TooLarge) => refused(
                self,
                format!("the automaton of `{source}` would be too large"),
                "expressions become tables beforehand, so that a decision takes the same time whatever is sent",
                "write smaller counts such as `{1,8}`, or several conditions",
            ),
        }
    }
}
