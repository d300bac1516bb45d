//! `bind`: claims that must be equal to other claims, or to what the peer is.
//!
//! Written as CEL, of which only `==` between two paths and `&&` between such comparisons is understood:
//! `job.project_id == release.project_id`, `job["kubernetes.io"].namespace == peer.namespace`.
//!
//! INVARIANT: whatever else is written is refused, never left out. Both sides are strings. What `claims` refuses or warns
//! of is refused or warned of here too.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, operators};
use tidegate_engine::model::ClaimPath;
use tidegate_identity::pack::ClaimKind;

use crate::claim_path;
use crate::context::Context;
use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::place::{Findings, Place};
use crate::spec::TokenSpec;
use crate::suggest;
use crate::tokens::{check_stability, known_claim};
use crate::when::{describe, parse, path_of};

/// Two values that must be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Equality {
    /// A claim of the entry's token of this issuer.
    pub(crate) issuer: String,
    pub(crate) path: ClaimPath,
    pub(crate) other: Other,
}

/// What a claim must be equal to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Other {
    /// A claim of the entry's token of this issuer.
    Claim(String, ClaimPath),
    Peer(PeerPart),
}

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerPart {
    Namespace,
    ServiceAccount,
    TrustDomain,
}

/// What is read from `bind`.
#[derive(Debug, Default)]
pub(crate) struct Bind {
    /// `None` if anything is wrong with it.
    pub(crate) equalities: Option<Vec<Equality>>,
    /// Issuers of whose tokens it compares what callers choose.
    pub(crate) asserted: BTreeSet<String>,
}

enum Operand {
    Claim(String, ClaimPath),
    Peer(PeerPart),
}

/// Where a condition is, and what it may name.
struct Reader<'r> {
    place: &'r Place<'r>,
    tokens: &'r [TokenSpec],
    context: &'r Context<'r>,
    asserted: &'r mut BTreeSet<String>,
}

/// Reads the `bind` of an entry with these tokens.
pub(crate) fn check(
    place: &Place<'_>,
    bind: Option<&[String]>,
    tokens: &[TokenSpec],
    context: &Context<'_>,
    findings: &mut Findings,
) -> Bind {
    let Some(bind) = bind else {
        return Bind { equalities: Some(Vec::new()), ..Bind::default() };
    };
    not_empty(place, bind, findings);
    let mut equalities = Some(Vec::new());
    let mut asserted = BTreeSet::new();
    for (index, text) in bind.iter().enumerate() {
        let place = place.index(index);
        let mut reader = Reader { place: &place, tokens, context, asserted: &mut asserted };
        let example = "job.project_id == release.project_id";
        let parsed = parse(&place, text, example, context, findings);
        let read = match parsed.as_deref() {
            Some(Ok(expr)) => reader.conditions(expr, findings),
            _ => None,
        };
        equalities = equalities.zip(read).map(|(mut equalities, read)| {
            equalities.extend(read);
            equalities
        });
    }
    Bind { equalities: equalities.filter(|_| !bind.is_empty()), asserted }
}

fn refuse(place: &Place<'_>, message: impl Into<String>, findings: &mut Findings) {
    findings.add(
        place,
        Code::MalformedCondition,
        message,
        "`bind` compares claims with other claims or with what the peer is, and nothing else",
        "write `==` between two paths, and `&&` between such comparisons; values are demanded with `claims`",
    );
}

// === impl Reader ===

impl Reader<'_> {
    /// All comparisons of a conjunction.
    fn conditions(&mut self, expr: &Expr, findings: &mut Findings) -> Option<Vec<Equality>> {
        match expr {
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::LOGICAL_AND => {
                let read: Vec<Option<Vec<Equality>>> =
                    args.iter().map(|arg| self.conditions(&arg.expr, findings)).collect();
                Some(read.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
            }
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::EQUALS => {
                let [left, right] = args.as_slice() else {
                    refuse(self.place, "a comparison has two sides", findings);
                    return None;
                };
                let left = self.operand(&left.expr, findings);
                let right = self.operand(&right.expr, findings);
                self.equality(left?, right?, findings).map(|equality| vec![equality])
            }
            other => {
                refuse(self.place, format!("{} is not understood here", describe(other)), findings);
                None
            }
        }
    }

    fn equality(&self, left: Operand, right: Operand, findings: &mut Findings) -> Option<Equality> {
        let (issuer, path, other) = match (left, right) {
            (Operand::Peer(_), Operand::Peer(_)) => {
                refuse(self.place, "the condition compares no claim", findings);
                return None;
            }
            (Operand::Claim(issuer, path), Operand::Peer(part))
            | (Operand::Peer(part), Operand::Claim(issuer, path)) => (issuer, path, Other::Peer(part)),
            (Operand::Claim(issuer, path), Operand::Claim(other, other_path)) => {
                if issuer == other && path == other_path {
                    refuse(self.place, "the condition compares a claim with itself", findings);
                    return None;
                }
                (issuer, path, Other::Claim(other, other_path))
            }
        };
        Some(Equality { issuer, path, other })
    }

    fn operand(&mut self, expr: &Expr, findings: &mut Findings) -> Option<Operand> {
        let Some((root, path)) = path_of(expr) else {
            refuse(self.place, format!("{} is not a path", describe(expr)), findings);
            return None;
        };
        if root == "peer" {
            if self.tokens.iter().any(|token| token.alias.is_none() && token.issuer == root) {
                findings.add(
                    self.place,
                    Code::MalformedCondition,
                    "the entry has a token `peer`",
                    "in conditions `peer` is what the peer's certificate says, never a token",
                    "give the token another name with `as`",
                );
                return None;
            }
            return self.peer(&path, findings).map(Operand::Peer);
        }
        let Some(token) = self.tokens.iter().find(|token| token.name() == root) else {
            let names: Vec<&str> = self.tokens.iter().map(TokenSpec::name).collect();
            findings.add(
                self.place,
                Code::MalformedCondition,
                format!("the entry has no token `{root}`"),
                "a condition is about the tokens that are written in its own entry, and about the `peer`",
                match suggest::closest(root, names.iter().copied()) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None if names.is_empty() => "write the token into the entry".to_owned(),
                    None => format!(
                        "its tokens are {}; give a token a name that conditions can write with `as`",
                        suggest::list(names)
                    ),
                },
            );
            return None;
        };
        let issuer = self.context.usable_issuer(&token.issuer)?;
        let shown = claim_path::show(&path);
        if path.is_empty() {
            refuse(self.place, format!("`{root}` is a token, and no claim of it"), findings);
            return None;
        }
        let known = known_claim(self.place, &shown, Some(path), issuer, findings)?;
        let is = match known.kind {
            Some(ClaimKind::Integer) => Some("a number"),
            Some(ClaimKind::Boolean) => Some("a boolean"),
            Some(ClaimKind::Strings) => Some("a list of strings"),
            Some(ClaimKind::Structure | ClaimKind::StringOrStrings) => Some("a structure"),
            // What no pack knows equals a string only if it is one.
            None
            | Some(
                ClaimKind::String
                | ClaimKind::Identifier
                | ClaimKind::Digits
                | ClaimKind::Guid
                | ClaimKind::BooleanString,
            ) => None,
        };
        if let Some(is) = is {
            findings.add(
                self.place,
                Code::ClaimType,
                format!("`{shown}` of `{root}` is {is}"),
                "only strings are compared with each other",
                "compare another claim",
            );
            return None;
        }
        let written: Vec<&str> = std::iter::once(root).chain(known.path.iter().map(String::as_str)).collect();
        if check_stability(self.place, &claim_path::show(&written), &known, token, issuer, findings) {
            self.asserted.insert(token.issuer.clone());
        }
        Some(Operand::Claim(token.issuer.clone(), known.path))
    }

    fn peer(&self, path: &[String], findings: &mut Findings) -> Option<PeerPart> {
        match path {
            [part] if part == "namespace" => Some(PeerPart::Namespace),
            [part] if part == "serviceAccount" => Some(PeerPart::ServiceAccount),
            [part] if part == "trustDomain" => Some(PeerPart::TrustDomain),
            _ => {
                let what = match path {
                    [] => "`peer` is not compared as a whole".to_owned(),
                    _ => format!("`peer` has no `{}`", claim_path::show(path)),
                };
                findings.add(
                    self.place,
                    Code::MalformedCondition,
                    what,
                    "a peer is what its certificate says",
                    "write `peer.namespace`, `peer.serviceAccount` or `peer.trustDomain`",
                );
                None
            }
        }
    }
}
