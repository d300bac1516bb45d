//! CEL text to the parser's tree, and what people call its parts.

use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Parser;
use tidegate_engine::model::ClaimPath;

use crate::context::Context;
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::text::check_text;

/// The longest condition that is read, in bytes.
const MAX_BYTES: usize = 1024;

/// What the parser makes of a text: a tree, or what it says of the first error, and at which character.
pub(super) type Parsed = Result<Expr, (String, isize)>;

/// Reads a condition. `None` if it is none.
pub(crate) fn parse(
    place: &Place<'_>,
    text: &str,
    example: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<Arc<Parsed>> {
    let before = findings.errors();
    check_text(place, text, findings);
    if text.len() > MAX_BYTES {
        findings.add(
            place,
            Code::MalformedCondition,
            format!("the condition has {} bytes", text.len()),
            format!("conditions of more than {MAX_BYTES} bytes are not read"),
            "write several; all of them must hold",
        );
    }
    if findings.errors() > before {
        return None;
    }
    let parsed = context.cache.expression(text);
    if let Err((what, column)) = parsed.as_ref() {
        findings.add(
            place,
            Code::MalformedCondition,
            format!("`{text}` is not an expression: at character {column}: {what}"),
            "conditions are written in CEL",
            format!("write e.g. `{example}`"),
        );
        return None;
    }
    Some(parsed)
}

pub(super) fn parse_text(text: &str) -> Parsed {
    match Parser::new().parse(text) {
        Ok(parsed) => Ok(parsed.expr),
        Err(errors) => {
            let first = errors.errors.first();
            let (what, column) = first.map_or(("", 0), |error| (error.msg.as_str(), error.pos.1));
            // What the parser would have liked to see there instead is long, and no help.
            let what =
                what.split(" expecting ").next().unwrap_or_default().trim_start_matches("Syntax error: ");
            Err((what.to_owned(), column))
        }
    }
}

/// `a.b["c"]`: the first name, and the others.
pub(crate) fn path_of(expr: &Expr) -> Option<(&str, ClaimPath)> {
    let mut path = Vec::new();
    let mut next = expr;
    loop {
        match next {
            Expr::Ident(root) => {
                path.reverse();
                return Some((root, path));
            }
            Expr::Select(select) if !select.test => {
                path.push(select.field.clone());
                next = &select.operand.expr;
            }
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::INDEX => {
                let [operand, index] = args.as_slice() else { return None };
                let Expr::Literal(LiteralValue::String(name)) = &index.expr else { return None };
                path.push(name.inner().to_owned());
                next = &operand.expr;
            }
            _ => return None,
        }
    }
}

/// What people call it.
pub(crate) fn describe(expr: &Expr) -> String {
    match expr {
        Expr::Ident(name) => format!("`{name}` alone"),
        Expr::Select(_) => "a claim that is not compared".to_owned(),
        Expr::Literal(_) => "a value that is written out".to_owned(),
        Expr::Call(call) => match call.func_name.as_str() {
            operators::LOGICAL_OR => "`||`".to_owned(),
            operators::LOGICAL_AND => "`&&`".to_owned(),
            operators::LOGICAL_NOT => "`!`".to_owned(),
            operators::EQUALS => "`==`".to_owned(),
            operators::NOT_EQUALS => "`!=`".to_owned(),
            operators::IN => "`in`".to_owned(),
            operators::SUBSTRACT => {
                "`-` (an issuer that has one in its name needs another name here, with `as`)".to_owned()
            }
            operators::CONDITIONAL => "`? :`".to_owned(),
            operators::INDEX => "an index that is no name".to_owned(),
            name if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                format!("the function `{name}`")
            }
            _ => "an operator".to_owned(),
        },
        Expr::List(_) => "a list".to_owned(),
        Expr::Map(_) | Expr::Struct(_) => "a mapping".to_owned(),
        Expr::Comprehension(_) => "a macro".to_owned(),
        Expr::Unspecified => "nothing".to_owned(),
    }
}
