//! Checks in words: what was found, and what to do about it.

use serde::Serialize;
use serde_json::Value;
use tidegate_engine::TokenFault;
use tidegate_identity::Issuer;
use tidegate_identity::explain::{Check, CheckReport, Finding};

use super::rules::GuardReport;
use super::{Said, show};
use crate::clock::{self, span};

mod failures;

/// A check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckLine {
    /// Which one.
    pub check: &'static str,
    /// What came of it.
    pub result: CheckResult,
    /// The reason code that a caller would see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    #[serde(skip)]
    pub(super) fault: Option<TokenFault>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckResult {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// It was not made.
    NotChecked,
}

/// What is known of a token and its issuer.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub text: &'a str,
    pub said: &'a Said,
    pub issuer: &'a Issuer,
    /// Whether the issuer is a TrustedIssuer of the rules.
    pub declared: bool,
    /// Unix seconds.
    pub now: i64,
}

// === impl CheckLine ===

impl CheckLine {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Ok, reason: None, found: found.into(), fix: None, fault: None }
    }

    fn failed(check: &'static str, fault: TokenFault, found: String, fix: impl Into<String>) -> Self {
        Self {
            check,
            result: CheckResult::Failed,
            reason: Some(fault.code()),
            found,
            fix: Some(fix.into()),
            fault: Some(fault),
        }
    }

    fn not_checked(check: &'static str, found: impl Into<String>, fix: Option<&str>) -> Self {
        Self {
            check,
            result: CheckResult::NotChecked,
            reason: None,
            found: found.into(),
            fix: fix.map(str::to_owned),
            fault: None,
        }
    }
}

#[cfg(test)]
impl CheckLine {
    pub(crate) fn made_up(check: &'static str, result: CheckResult, found: &str) -> Self {
        Self { result, ..Self::ok(check, found) }
    }
}

/// The name of a check.
pub(super) const fn name(check: Check) -> &'static str {
    match check {
        Check::Framing => "framing",
        Check::Claims => "json",
        Check::Issuer => "issuer",
        Check::Header => "header",
        Check::Algorithm => "algorithm",
        Check::Type => "type",
        Check::Standing => "standing",
        Check::Key => "key",
        Check::Signature => "signature",
        Check::ClaimTypes => "claims",
        Check::Revocation => "revocation",
        Check::Times => "times",
        Check::Lifetime => "lifetime",
        Check::Audience => "audience",
        Check::Provider => "provider",
        Check::Binding => "binding",
    }
}

// === impl Facts ===

impl Facts<'_> {
    pub(super) fn line(&self, report: &CheckReport) -> CheckLine {
        let check = name(report.check);
        match report.finding {
            Finding::Holds => CheckLine::ok(check, self.found(report.check)),
            Finding::NotChecked(basis) => CheckLine::not_checked(
                check,
                format!("rests on `{}`, which does not hold", name(basis)),
                None,
            ),
            Finding::Fails(fault) => {
                let (found, fix) = self.failure(report.check, fault);
                CheckLine::failed(check, fault, found, fix)
            }
        }
    }

    /// The line of a check that needs keys, where there are none.
    pub(super) fn without_keys(&self, check: Check) -> CheckLine {
        let fix = match (check, self.declared) {
            (Check::Key, true) => Some("give `--fetch`, or the issuer's key set: `--keys jwks.json`"),
            (Check::Key, false) => Some(
                "give the issuer's key set: `--keys jwks.json`; nothing is fetched from where a token says",
            ),
            _ => None,
        };
        CheckLine::not_checked(name(check), "no keys were given", fix)
    }

    /// Whether the token is for the service.
    pub(super) fn guard_line(&self, audience: Option<&str>, guards: &[GuardReport]) -> Option<CheckLine> {
        const NAME: &str = "guard";
        let theirs = self.said.texts("aud");
        let fits = |wanted: &[String]| wanted.iter().any(|one| theirs.contains(&one.as_str()));
        if let Some(wanted) = audience {
            let line = match theirs.contains(&wanted) {
                true => CheckLine::ok(NAME, format!("for {}, as is demanded", show::text(wanted))),
                false => CheckLine::failed(
                    NAME,
                    TokenFault::WrongAudience,
                    format!("for {}, not for {}", show::list(&theirs), show::text(wanted)),
                    "ask for a token with exactly this audience; audiences are compared character by character",
                ),
            };
            return Some(line);
        }
        if guards.is_empty() {
            return None;
        }
        let fit: Vec<_> = guards
            .iter()
            .filter(|guard| guard.audiences.as_deref().is_some_and(fits))
            .map(|guard| guard.guard.as_str())
            .collect();
        if !fit.is_empty() {
            return Some(CheckLine::ok(NAME, format!("for what these Guards cover: {}", fit.join(", "))));
        }
        if let Some(by_host) = guards.iter().find(|guard| guard.audiences.is_none()) {
            return Some(CheckLine::not_checked(
                NAME,
                format!("the Guard `{}` names no audience: the request's host counts", by_host.guard),
                Some("give the host's URL or name: `--audience HOST`"),
            ));
        }
        let wanted: Vec<_> = guards.iter().flat_map(|guard| guard.audiences.iter().flatten()).collect();
        Some(CheckLine::failed(
            NAME,
            TokenFault::WrongAudience,
            format!("for {}; Guards demand {}", show::list(&theirs), show::list(wanted)),
            "ask for a token with exactly the Guard's audience",
        ))
    }

    fn header(&self, name: &str) -> String {
        self.said.header.get(name).map_or_else(|| "none".to_owned(), show::value)
    }

    fn members(&self) -> Vec<&str> {
        let members = self.said.header.as_object().into_iter().flatten();
        members.map(|(name, _)| name.as_str()).collect()
    }

    fn date(&self, name: &str) -> Option<i64> {
        self.said.claims.get(name).and_then(Value::as_i64)
    }

    /// What was found where a check holds.
    fn found(&self, check: Check) -> String {
        let pack = self.issuer.pack();
        match check {
            Check::Framing => format!("three parts, {} bytes", self.text.len()),
            Check::Claims => match self.said.claims.as_object().map_or(0, serde_json::Map::len) {
                1 => "1 claim, strict JSON".to_owned(),
                count => format!("{count} claims, strict JSON"),
            },
            Check::Issuer => match (self.declared, self.said.text("iss")) {
                (true, _) => format!("the TrustedIssuer `{}`", self.issuer.name()),
                (false, Some(iss)) => format!("{}, whom no TrustedIssuer names", show::text(iss)),
                (false, None) => "the trust domain of `sub`".to_owned(),
            },
            Check::Header => format!("only members that are accepted: {}", self.members().join(", ")),
            Check::Algorithm => self.said.header.get("alg").map(show::value).unwrap_or_default(),
            Check::Type => match self.said.header.get("typ") {
                Some(kind) => show::value(kind),
                None => "none, which is the same as \"JWT\"".to_owned(),
            },
            Check::Standing => match self.issuer.retire_at() {
                0 => "the issuer is not retired".to_owned(),
                at => format!("the issuer retires at {}", clock::rfc3339(at)),
            },
            Check::Key => format!("one key of the issuer fits `kid` {}", self.header("kid")),
            Check::Signature => "is this key's".to_owned(),
            Check::ClaimTypes => {
                format!("what the pack `{}` knows is there, and of the right type", pack.name())
            }
            Check::Revocation => "neither the token nor its subject nor its key is revoked".to_owned(),
            Check::Times => self.times(),
            Check::Lifetime => format!(
                "{}; accepted are {}",
                span(self.lifetime().unwrap_or_default()),
                span(self.issuer.max_lifetime_s())
            ),
            Check::Audience => match self.issuer.audiences() {
                [] => format!("{}, which is nobody else's", show::list(self.said.texts("aud"))),
                _ => format!("{}, which the TrustedIssuer lists", show::list(self.said.texts("aud"))),
            },
            Check::Provider => format!("what the pack `{}` demands across claims", pack.name()),
            Check::Binding => match self.said.certificate() {
                Some(digest) => {
                    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("only over a connection with the client certificate whose SHA-256 is {hex}")
                }
                None => "to nothing: whoever has the token may use it".to_owned(),
            },
        }
    }

    fn times(&self) -> String {
        let of = |name| self.date(name).map(|at| relative(at, self.now));
        let began = of("nbf").or_else(|| of("iat")).map(|at| format!("from {at} "));
        format!("{}to {}", began.unwrap_or_default(), of("exp").unwrap_or_default())
    }

    fn lifetime(&self) -> Option<i64> {
        Some(self.date("exp")?.saturating_sub(self.date("iat").or_else(|| self.date("nbf"))?))
    }
}

/// A moment, seen from another.
fn relative(at: i64, now: i64) -> String {
    let seconds = at.saturating_sub(now);
    let when = if seconds < 0 { format!("{} ago", span(-seconds)) } else { format!("in {}", span(seconds)) };
    format!("{} ({when})", clock::rfc3339(at))
}
