//! Boolean structure and comparisons.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use tidegate_engine::model::{Effect, Operand, Relation, TextTest};

use crate::context::Context;
use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::spec::TokenSpec;
use crate::suggest;

use super::number::Linear;
use super::syntax::{describe, parse};
use super::tree::{Tree, Value};
use super::value::Typed;

/// What is read from `when`.
#[derive(Debug, Default)]
pub(crate) struct When {
    /// All of them; `None` if anything is wrong.
    pub(crate) trees: Option<Vec<Tree>>,
    /// Issuers of whose tokens it reads what callers choose.
    pub(crate) asserted: BTreeSet<String>,
}

/// Where a condition is, and what it may name.
pub(super) struct Checker<'c> {
    pub(super) place: &'c Place<'c>,
    /// `None`: in a form of a Caller, which is for both.
    pub(super) effect: Option<Effect>,
    pub(super) tokens: &'c [TokenSpec],
    pub(super) context: &'c Context<'c>,
    pub(super) findings: &'c mut Findings,
    pub(super) asserted: &'c mut BTreeSet<String>,
    /// Whether what is being read makes the condition hold, or makes it not hold.
    pub(super) positive: bool,
}

/// Reads the `when` of an entry with these tokens.
pub(crate) fn check(
    place: &Place<'_>,
    when: Option<&[String]>,
    effect: Option<Effect>,
    tokens: &[TokenSpec],
    context: &Context<'_>,
    findings: &mut Findings,
) -> When {
    let Some(when) = when else { return When { trees: Some(Vec::new()), ..When::default() } };
    not_empty(place, when, findings);
    let before = findings.errors();
    let mut asserted = BTreeSet::new();
    let mut trees = Vec::new();
    for (index, text) in when.iter().enumerate() {
        let place = place.index(index);
        let example = "job.user_access_level in [\"maintainer\", \"owner\"]";
        let parsed = parse(&place, text, example, context, findings);
        let Some(Ok(expr)) = parsed.as_deref() else { continue };
        let asserted = &mut asserted;
        let mut checker =
            Checker { place: &place, effect, tokens, context, findings, asserted, positive: true };
        let tree = checker.condition(expr);
        trees.extend(tree.and_then(|tree| checker.depends(tree)));
    }
    let fine = findings.errors() == before && trees.len() == when.len() && !when.is_empty();
    When { trees: fine.then_some(trees), asserted }
}

// === impl Checker ===

impl Checker<'_> {
    /// Notes a finding, and that there is nothing to go on with.
    pub(super) fn refuse<T>(
        &mut self,
        message: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Option<T> {
        self.findings.add(self.place, Code::MalformedCondition, message, why, fix);
        None
    }

    /// The same for values of the wrong type.
    pub(super) fn mistyped<T>(&mut self, message: impl Into<String>, fix: impl Into<String>) -> Option<T> {
        let why = "a comparison of different types never holds";
        self.findings.add(self.place, Code::ClaimType, message, why, fix);
        None
    }

    /// An expression that is true or false.
    pub(super) fn condition(&mut self, expr: &Expr) -> Option<Tree> {
        match expr {
            Expr::Literal(LiteralValue::Boolean(value)) => Some(Tree::Constant(*value.inner())),
            Expr::Call(CallExpr { func_name, target: None, args }) => {
                let args: Vec<&Expr> = args.iter().map(|arg| &arg.expr).collect();
                match (func_name.as_str(), args.as_slice()) {
                    (operators::LOGICAL_AND, [_, _]) => self.all(&args).map(Tree::All),
                    (operators::LOGICAL_OR, [_, _]) => self.all(&args).map(Tree::Any),
                    (operators::LOGICAL_NOT, [inner]) => self.negated(inner).map(Tree::not),
                    (operators::CONDITIONAL, [condition, yes, no]) => self.conditional(condition, yes, no),
                    (operators::EQUALS, [left, right]) => self.equal(left, right),
                    (operators::NOT_EQUALS, [left, right]) => {
                        self.positive = !self.positive;
                        let equal = self.equal(left, right);
                        self.positive = !self.positive;
                        equal.map(Tree::not)
                    }
                    (operators::LESS, [left, right]) => self.ordered(left, Relation::Less, right),
                    (operators::LESS_EQUALS, [left, right]) => {
                        self.ordered(left, Relation::LessOrEqual, right)
                    }
                    (operators::GREATER, [left, right]) => self.ordered(right, Relation::Less, left),
                    (operators::GREATER_EQUALS, [left, right]) => {
                        self.ordered(right, Relation::LessOrEqual, left)
                    }
                    (operators::IN, [needle, stack]) => self.contained(needle, stack),
                    ("matches", [text, pattern]) => self.text_function("matches", text, pattern),
                    _ => self.boolean(expr),
                }
            }
            Expr::Call(CallExpr { func_name, target: Some(target), args }) => match args.as_slice() {
                [argument] => self.text_function(func_name, &target.expr, &argument.expr),
                _ => self.boolean(expr),
            },
            Expr::Select(select) if select.test => self.present(expr),
            _ => self.boolean(expr),
        }
    }

    fn all(&mut self, exprs: &[&Expr]) -> Option<Vec<Tree>> {
        let trees: Vec<Option<Tree>> = exprs.iter().map(|expr| self.condition(expr)).collect();
        trees.into_iter().map(|tree| self.depends(tree?)).collect()
    }

    /// Refuses what is the same for every request, where that would make more of the condition so.
    fn depends(&mut self, tree: Tree) -> Option<Tree> {
        match tree {
            Tree::Constant(holds) => self.refuse(
                format!("a condition is always `{holds}`"),
                "a condition depends on something",
                "remove it",
            ),
            tree => Some(tree),
        }
    }

    fn negated(&mut self, expr: &Expr) -> Option<Tree> {
        self.positive = !self.positive;
        let tree = self.condition(expr);
        self.positive = !self.positive;
        self.depends(tree?)
    }

    fn conditional(&mut self, condition: &Expr, yes: &Expr, no: &Expr) -> Option<Tree> {
        let condition = self.condition(condition);
        let (yes, no) = (self.condition(yes), self.condition(no));
        let (condition, yes, no) = (self.depends(condition?)?, yes?, no?);
        if matches!((&yes, &no), (Tree::Constant(yes), Tree::Constant(no)) if yes == no) {
            return self.refuse(
                "both sides of `? :` are the same",
                "what is asked before makes no difference",
                "write one of them alone",
            );
        }
        Some(Tree::Any(vec![Tree::All(vec![condition.clone(), yes]), Tree::All(vec![condition.not(), no])]))
    }

    /// A value that is itself true or false.
    fn boolean(&mut self, expr: &Expr) -> Option<Tree> {
        match self.value(expr)? {
            Typed::Boolean(value, _) | Typed::Any(value, _) => {
                Some(Tree::Compare(value, Relation::Equal, Value::boolean(true)))
            }
            Typed::Text(_, kind, shown) => {
                let fix = match kind.is_boolean() {
                    true => format!("write `{shown} == \"true\"`"),
                    false => {
                        format!("compare it, e.g. `{shown} == \"…\"`; that it is there says `has({shown})`")
                    }
                };
                self.mistyped(format!("`{shown}` is {}, and a condition is true or false", kind.name()), fix)
            }
            other => {
                let what = other.describe();
                self.mistyped(
                    format!("{what} alone is no condition, which is true or false"),
                    "compare it with something",
                )
            }
        }
    }

    fn equal(&mut self, left: &Expr, right: &Expr) -> Option<Tree> {
        let (left, right) = (self.value(left), self.value(right));
        self.equality(left?, right?)
    }

    /// That two values are the same.
    pub(super) fn equality(&mut self, left: Typed, right: Typed) -> Option<Tree> {
        use Typed::{Any, Boolean, BooleanLiteral, List, Literal, Literals, Number, Text};
        let same = |left, right| Some(Tree::Compare(left, Relation::Equal, right));
        match (left, right) {
            (Literal(_) | BooleanLiteral(_), Literal(_) | BooleanLiteral(_)) => self.refuse(
                "the condition compares two values that are written out",
                "it would always, or never, hold",
                "compare a claim, or something of the request",
            ),
            (Text(value, kind, shown), Literal(text)) | (Literal(text), Text(value, kind, shown)) => {
                self.checked_literal(kind, &shown, &text)?;
                Some(Tree::Text(value, TextTest::OneOf(vec![text])))
            }
            (Any(value, _), Literal(text)) | (Literal(text), Any(value, _)) => {
                Some(Tree::Text(value, TextTest::OneOf(vec![text])))
            }
            (Text(left, _, shown) | Any(left, shown), Text(right, ..) | Any(right, _)) => {
                if left == right {
                    return self.refuse(
                        format!("the condition compares `{shown}` with itself"),
                        "it would always hold",
                        "compare it with something else",
                    );
                }
                // A claim stands first.
                match (&left, &right) {
                    (Value::Request(_), Value::Claim(_)) => same(right, left),
                    _ => same(left, right),
                }
            }
            (Boolean(value, _) | Any(value, _), BooleanLiteral(boolean))
            | (BooleanLiteral(boolean), Boolean(value, _) | Any(value, _)) => {
                same(value, Value::boolean(boolean))
            }
            (Boolean(left, _), Boolean(right, _) | Any(right, _)) | (Any(left, _), Boolean(right, _)) => {
                same(left, right)
            }
            (Number(left), Number(right)) => self.compare(left, Relation::Equal, right),
            (Number(number), Any(value, shown)) | (Any(value, shown), Number(number)) => {
                self.compare(Linear::integer(value, shown), Relation::Equal, number)
            }
            (Text(_, kind, shown), BooleanLiteral(boolean))
            | (BooleanLiteral(boolean), Text(_, kind, shown)) => self.mistyped(
                format!("`{shown}` is {}, and is compared with the boolean `{boolean}`", kind.name()),
                format!("write `{shown} == \"{boolean}\"`"),
            ),
            (Text(_, kind, shown), Number(number)) | (Number(number), Text(_, kind, shown)) => {
                let fix = match number.as_constant() {
                    Some(constant) => format!("write `{shown} == \"{constant}\"`"),
                    None => "compare it with a string".to_owned(),
                };
                self.mistyped(
                    format!("`{shown}` is {}, and is compared with {}", kind.name(), number.describe()),
                    fix,
                )
            }
            (List(_, shown), _) | (_, List(_, shown)) => self.mistyped(
                format!("`{shown}` is a list of strings, and is compared as a whole"),
                format!("write `\"…\" in {shown}`"),
            ),
            (Literals(_), _) | (_, Literals(_)) => self.refuse(
                "a list is compared as a whole",
                "values are looked for in lists",
                "write e.g. `job.ref in [\"main\", \"release\"]`",
            ),
            (left, right) => {
                let (left, right) = (left.describe(), right.describe());
                self.mistyped(format!("{left} is compared with {right}"), "compare values of the same type")
            }
        }
    }

    fn ordered(&mut self, left: &Expr, relation: Relation, right: &Expr) -> Option<Tree> {
        let (left, right) = (self.value(left), self.value(right));
        let (left, right) = (left?, right?);
        let (left_is, right_is) = (left.describe(), right.describe());
        match (left.number(), right.number()) {
            (Some(left), Some(right)) => self.compare(left, relation, right),
            _ => self.mistyped(
                format!("{left_is} and {right_is} are not ordered"),
                "only numbers, timestamps and durations are less or greater than others",
            ),
        }
    }

    /// Numbers, timestamps and durations: what is added on one side is taken away on the other, until each has at most one
    /// value that is read.
    fn compare(&mut self, left: Linear, relation: Relation, right: Linear) -> Option<Tree> {
        if left.unit != right.unit {
            let (left, right) = (left.describe(), right.describe());
            return self
                .mistyped(format!("{left} is compared with {right}"), "compare values of the same type");
        }
        let moved = left.balanced(right);
        let Some((left, right)) = moved else {
            return self.refuse(
                "the sides of a comparison add up more than can be compared",
                "on each side there is at most one value that is read, and a number that is written out",
                "write several conditions",
            );
        };
        match (&left, &right) {
            (Value::Request(Operand::Integer(_)), Value::Request(Operand::Integer(_))) => self.refuse(
                "the condition compares two values that are written out",
                "it would always, or never, hold",
                "compare a claim, or something of the request",
            ),
            _ if left == right => self.refuse(
                "the condition compares a value with itself",
                "it would always, or never, hold",
                "compare it with something else",
            ),
            // A claim stands first, where it does not matter.
            (Value::Request(_), Value::Claim(_)) if relation == Relation::Equal => {
                Some(Tree::Compare(right, relation, left))
            }
            _ => Some(Tree::Compare(left, relation, right)),
        }
    }

    fn contained(&mut self, needle: &Expr, stack: &Expr) -> Option<Tree> {
        if let Some(tree) = self.in_fields(needle, stack) {
            return tree;
        }
        let (needle, stack) = (self.value(needle), self.value(stack));
        let (needle, stack) = (needle?, stack?);
        match (needle, stack) {
            (needle, Typed::Literals(values)) => {
                if values.is_empty() {
                    return self.refuse(
                        "the list is empty",
                        "nothing is in it",
                        "write the values, or remove the condition",
                    );
                }
                let mut texts = Vec::new();
                let mut any = Vec::new();
                for value in values {
                    match self.equality(needle.clone(), value)? {
                        Tree::Text(_, TextTest::OneOf(one)) => texts.extend(one),
                        other => any.push(other),
                    }
                }
                texts.sort_unstable();
                texts.dedup();
                if let (false, Typed::Text(value, ..) | Typed::Any(value, _)) = (texts.is_empty(), needle) {
                    any.push(Tree::Text(value, TextTest::OneOf(texts)));
                }
                match (any.pop(), any.is_empty()) {
                    (Some(only), true) => Some(only),
                    (last, _) => {
                        any.extend(last);
                        Some(Tree::Any(any))
                    }
                }
            }
            (
                Typed::Literal(text),
                Typed::List(Value::Claim(claim), _) | Typed::Any(Value::Claim(claim), _),
            ) => Some(Tree::Contains(claim, text)),
            (_, Typed::List(_, shown)) => self.refuse(
                format!("what is looked for in `{shown}` is not written out"),
                "only strings that are written out are looked for in lists of a token",
                format!("write `\"…\" in {shown}`"),
            ),
            (_, Typed::Text(_, kind, shown)) => self.mistyped(
                format!("`{shown}` is {}, and no list", kind.name()),
                format!("write `{shown}.contains(\"…\")`, or the values as a list"),
            ),
            (_, other) => {
                let what = other.describe();
                self.mistyped(format!("{what} is no list"), "write a list, e.g. `[\"a\", \"b\"]`")
            }
        }
    }

    /// `has(…)`: that a claim, or a part of the peer, is there.
    fn present(&mut self, expr: &Expr) -> Option<Tree> {
        let Expr::Select(select) = expr else { return None };
        let mut plain = select.clone();
        plain.test = false;
        let value = match self.value(&Expr::Select(plain))? {
            Typed::Text(value, ..)
            | Typed::Boolean(value, _)
            | Typed::Any(value, _)
            | Typed::List(value, _) => value,
            Typed::Number(number) => match number.as_value() {
                Some(value) => value,
                None => return self.boolean(expr),
            },
            _ => return self.boolean(expr),
        };
        match value {
            Value::Request(
                Operand::Method | Operand::Host | Operand::Path | Operand::Port | Operand::Now,
            ) => self.refuse("what `has` is asked for is always there", "it would always hold", "remove it"),
            value => Some(Tree::Text(value, TextTest::Present)),
        }
    }

    /// What is not understood.
    pub(super) fn unknown<T>(&mut self, expr: &Expr) -> Option<T> {
        let what = describe(expr);
        self.refuse(
            format!("{what} is not understood here"),
            "what could fail, or run long, while a request is decided is not part of conditions",
            format!(
                "comparisons, {} are",
                suggest::list([
                    "in",
                    "has",
                    "startsWith",
                    "endsWith",
                    "contains",
                    "matches",
                    "size",
                    "timestamp",
                    "duration",
                    "&&",
                    "||",
                    "!",
                    "? :",
                ])
            ),
        )
    }
}
