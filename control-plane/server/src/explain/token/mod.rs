//! What would become of a token: every check of a filter with its result, the usual mistakes, and what rules would read.
//!
//! The checks are [`tidegate_identity::explain`], conditions are decided by the engine. What is here finds out whose token
//! it is, and puts results into words.
//!
//! INVARIANT: nothing that comes out of here contains the token or its signature, or anything that a terminal obeys.

mod checks;
mod guess;
mod mistakes;
mod opaque;
mod paste;
mod rules;
mod show;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;
use tidegate_compiler::{Compiled, TrustedIssuer};
use tidegate_engine::{ClaimValue, Reason, TokenFault};
use tidegate_identity::explain::{self, Check, Finding};
use tidegate_identity::signature::Verdict as SignatureVerdict;
use tidegate_identity::{
    Algorithm, At, Connection, InvalidKeys, Issuer, IssuerSet, IssuerSetSpec, IssuerSpec, Jwk, PackKind,
    PublicKey, VerifySignature,
};

use crate::clock;
use crate::keys::Native;

pub use checks::{CheckLine, CheckResult};
pub use paste::Pasted;
pub use rules::{ConditionLine, EntryReport, GuardReport, Holds, RuleReport};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The text, as [`Pasted`] left it.
    pub text: &'a str,
    /// Unix seconds.
    pub now: i64,
    /// What is demanded of the audience, if not what the rules' Guards demand.
    pub audience: Option<&'a str>,
    /// Rules to look at.
    pub rules: Option<&'a Compiled>,
    /// Keys of the issuer; `None`: the signature is not checked.
    pub keys: Option<&'a [Jwk]>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What it comes to.
    pub verdict: Verdict,
    /// Whose token it is; absent if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerFacts>,
    /// What it says, structures opened.
    pub claims: Vec<ClaimLine>,
    /// Every check in the order in which a filter makes them.
    pub checks: Vec<CheckLine>,
    /// What is usually behind it.
    pub mistakes: Vec<Mistake>,
    /// Rules that demand a token of this issuer; absent if no rules were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RuleReport>>,
}

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// The reason code that a caller would see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// In one sentence.
    pub sentence: String,
}

/// What it comes to, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All checks hold.
    Verified,
    /// Nothing is wrong with it, but the signature was not checked.
    Plausible,
    /// A check fails.
    Refused,
    /// It counts as no token.
    Absent,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerFacts {
    /// Name of the TrustedIssuer; absent if none has this issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pack: the TrustedIssuer's, or the one that would fit.
    pub pack: PackKind,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimLine {
    /// Its place, as rules write it.
    pub claim: String,
    /// Its value, made safe to be shown.
    pub value: String,
}

/// Something that usually goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// In one word, for programs.
    pub code: &'static str,
    /// What was found.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Whose token a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This TrustedIssuer's.
    Declared(&'a TrustedIssuer),
    /// Nobody's that the rules declare. Its tokens look like those of this pack.
    Guessed(PackKind),
}

/// What a token says, read leniently and believed by nobody.
#[derive(Debug)]
struct Said {
    header: Value,
    claims: Value,
}

/// Native verification over a connection that has whatever certificate the token is bound to.
struct Assumed {
    certificate: Option<[u8; 32]>,
}

/// Whose token it is.
///
/// # Errors
///
/// When the rules' issuers do not make a keys section, which compiled rules do.
pub fn owner<'a>(text: &str, rules: Option<&'a Compiled>) -> Result<Owner<'a>, InvalidKeys> {
    let declared = rules.map(|rules| rules.issuers.as_slice()).unwrap_or_default();
    let specs = declared.iter().map(|issuer| issuer.spec(Vec::new(), i64::MAX)).collect();
    let set = IssuerSet::decode(&IssuerSetSpec::new(specs).encode()?)?;
    let name = explain::owner(text.as_bytes(), &set).map(Issuer::name);
    let declared = name.and_then(|name| declared.iter().find(|issuer| issuer.name == name));
    Ok(declared.map_or_else(|| Owner::Guessed(guess::pack(&Said::read(text))), Owner::Declared))
}

/// Explains a token.
pub fn answer(owner: &Owner<'_>, question: &Question<'_>) -> Explanation {
    let said = Said::read(question.text);
    let keys = question.keys.unwrap_or_default().to_vec();
    let spec = match owner {
        Owner::Declared(issuer) => issuer.spec(keys, i64::MAX),
        Owner::Guessed(pack) => IssuerSpec { keys, valid_until: i64::MAX, ..undeclared(*pack, &said) },
    };
    let issuer = Issuer::from(spec);
    let connection = Assumed { certificate: said.certificate() };
    let reports = explain::explain(question.text.as_bytes(), &issuer, At::now(question.now), &connection);
    if reports.is_empty() {
        return Explanation::absent(opaque::recognise(question.text));
    }
    let declared = match owner {
        Owner::Declared(issuer) => Some(*issuer),
        Owner::Guessed(_) => None,
    };
    let facts = checks::Facts {
        text: question.text,
        said: &said,
        issuer: &issuer,
        declared: declared.is_some(),
        now: question.now,
    };
    let has_keys = question.keys.is_some();
    let mut lines: Vec<_> = reports
        .iter()
        .map(|report| match report.check {
            Check::Key | Check::Signature if !has_keys => facts.without_keys(report.check),
            _ => facts.line(report),
        })
        .collect();
    if reports.len() < Check::ALL.len() {
        // Whose it is cannot be told: it is a fault of everybody's who reads the header.
        let fault = explain::verdict(&reports).err();
        return Explanation {
            verdict: Verdict::refused(fault.unwrap_or(TokenFault::Malformed)),
            issuer: None,
            claims: said.lines(),
            checks: lines,
            mistakes: mistakes::of_form(&facts).into_iter().collect(),
            rules: None,
        };
    }
    let guards = question.rules.map(rules::guards).unwrap_or_default();
    lines.extend(facts.guard_line(question.audience, &guards));
    let rules = question
        .rules
        .map(|rules| declared.map(|declared| rules::reports(rules, declared, question)).unwrap_or_default());
    let is_checked = has_keys
        && reports.iter().any(|report| report.check == Check::Signature && report.finding == Finding::Holds);
    let fault = lines.iter().find_map(|line| line.fault);
    let mut explanation = Explanation {
        verdict: Verdict::of(owner, &said, question.rules.is_some(), fault, is_checked),
        issuer: Some(IssuerFacts { name: declared.map(|issuer| issuer.name.clone()), pack: issuer.pack() }),
        claims: said.lines(),
        checks: lines,
        mistakes: Vec::new(),
        rules,
    };
    explanation.claims.extend(derived(question.text, issuer.pack()));
    if !explanation.would_do() || question.rules.is_none() {
        explanation.mistakes = mistakes::find(&facts, question.rules, question.audience, &guards);
    }
    explanation
}

/// The attributes that rules may read beside claims.
fn derived(text: &str, pack: PackKind) -> Vec<ClaimLine> {
    let names: Vec<_> = pack.derived_all().map(|derived| vec![derived.name.to_owned()]).collect();
    let values = explain::slots(text.as_bytes(), pack, &names);
    let told = names.iter().zip(&values).filter(|(_, value)| **value != ClaimValue::Absent);
    told.map(|(name, value)| ClaimLine { claim: show::path(name), value: show::claim(value) }).collect()
}

/// What a TrustedIssuer for this token would be if it said nothing but its issuer and pack.
fn undeclared(pack: PackKind, said: &Said) -> IssuerSpec {
    let iss = match pack {
        PackKind::Spiffe => said.trust_domain().unwrap_or_default(),
        _ => said.text("iss").unwrap_or_default().to_owned(),
    };
    IssuerSpec::new("", iss, pack)
}

// === impl Explanation ===

impl Explanation {
    fn absent(mistake: Mistake) -> Self {
        let sentence = "this is no signed JWT: a filter takes it for no token at all".to_owned();
        Self {
            verdict: Verdict { outcome: Outcome::Absent, reason: None, sentence },
            issuer: None,
            claims: Vec::new(),
            checks: Vec::new(),
            mistakes: vec![mistake],
            rules: None,
        }
    }

    /// Whether the token would do: nothing is wrong with it, and if there are rules, one of them lets somebody in with it.
    pub fn would_do(&self) -> bool {
        let has_rule = self.rules.is_none() || self.allowing().next().is_some();
        matches!(self.verdict.outcome, Outcome::Verified | Outcome::Plausible) && has_rule
    }

    /// Rules that would let the right caller in with it.
    pub fn allowing(&self) -> impl Iterator<Item = &RuleReport> {
        let rules = self.rules.as_deref().unwrap_or_default().iter();
        rules.filter(|rule| rule.allows && rule.enforced && rule.holds >= Holds::Depends)
    }

    /// Rules that may refuse whoever has it. What cannot be told matches them.
    pub fn denying(&self) -> impl Iterator<Item = &RuleReport> {
        let rules = self.rules.as_deref().unwrap_or_default().iter();
        rules.filter(|rule| !rule.allows && rule.enforced && rule.holds > Holds::No)
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(
        owner: &Owner<'_>,
        said: &Said,
        has_rules: bool,
        fault: Option<TokenFault>,
        is_checked: bool,
    ) -> Self {
        let (outcome, sentence) = match (owner, fault) {
            (Owner::Declared(_), Some(fault)) => return Self::refused(fault),
            (Owner::Guessed(_), _) if has_rules => (
                Outcome::Absent,
                "no TrustedIssuer of the rules has this issuer: a filter takes it for no token at all"
                    .to_owned(),
            ),
            (Owner::Guessed(_), _) if said.text("iss").is_none() && said.trust_domain().is_none() => (
                Outcome::Absent,
                "it does not say who issued it: a filter takes it for no token at all".to_owned(),
            ),
            (Owner::Guessed(_), Some(fault)) => return Self::refused(fault),
            (_, None) if is_checked => (Outcome::Verified, "every check holds".to_owned()),
            (_, None) => (
                Outcome::Plausible,
                "nothing is wrong with what it says; whether its issuer signed it was not checked".to_owned(),
            ),
        };
        Self { outcome, reason: None, sentence }
    }

    fn refused(fault: TokenFault) -> Self {
        let sentence = Reason::TokenInvalid(fault).sentence().to_owned();
        Self { outcome: Outcome::Refused, reason: Some(fault.code()), sentence }
    }
}

// === impl Mistake ===

impl Mistake {
    pub(crate) fn new(code: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, what: what.into(), fix: fix.into() }
    }
}

// === impl Said ===

impl Said {
    fn read(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice(&bytes).ok()
        });
        let mut next = || parts.next().flatten().unwrap_or_default();
        Self { header: next(), claims: next() }
    }

    /// The string of a claim at the top level.
    fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }

    /// All strings of a claim that is one or a list of them.
    fn texts(&self, name: &str) -> Vec<&str> {
        match self.claims.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(elements)) => elements.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// `spiffe://` and the trust domain of `sub`.
    fn trust_domain(&self) -> Option<String> {
        let rest = self.text("sub")?.strip_prefix("spiffe://")?;
        Some(format!("spiffe://{}", rest.split('/').next()?))
    }

    /// The digest of the certificate that it is bound to.
    fn certificate(&self) -> Option<[u8; 32]> {
        let digest = self.claims.get("cnf")?.get("x5t#S256")?.as_str()?;
        URL_SAFE_NO_PAD.decode(digest).ok()?.try_into().ok()
    }

    fn lines(&self) -> Vec<ClaimLine> {
        let leaves = show::leaves(&self.claims).into_iter().filter(|(path, _)| !path.is_empty());
        let line = |(path, value): (Vec<String>, &Value)| {
            let moment = value.as_i64().filter(|_| matches!(path.as_slice(), [name] if is_date(name)));
            let moment = moment.map(|at| format!(" ({})", clock::rfc3339(at))).unwrap_or_default();
            ClaimLine { claim: show::path(&path), value: show::value(value) + &moment }
        };
        leaves.map(line).collect()
    }
}

/// Claims that are NumericDates: RFC 7519 §4.1, OpenID Connect Core 1.0 §2.
fn is_date(name: &str) -> bool {
    matches!(name, "exp" | "iat" | "nbf" | "auth_time")
}

// === impl Assumed ===

impl VerifySignature for Assumed {
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &PublicKey,
        input: &[u8],
        signature: &[u8],
    ) -> SignatureVerdict {
        Native.verify(algorithm, key, input, signature)
    }
}

impl Connection for Assumed {
    fn certificate_sha256(&self) -> Option<[u8; 32]> {
        self.certificate
    }
}
