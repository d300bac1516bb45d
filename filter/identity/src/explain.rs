//! What becomes of a token, check by check: for people who ask why.
//!
//! [`explain`] goes through the checks of [`crate::token`] in their order, by the same functions, and does not stop at
//! the first that fails. Nothing may be believed because of a report: whoever lets somebody in calls
//! [`UnverifiedToken::verify`].
//!
//! INVARIANT: [`verdict`] of the reports is what [`UnverifiedToken::verify`] says. A property test compares them.

use tidegate_engine::model::ClaimPath;
use tidegate_engine::{ClaimValue, TokenFault};

use crate::connection::{At, Connection};
use crate::issuer::{Issuer, IssuerSet};
use crate::jose::{self, Framing};
use crate::json::{self, Limits, Value};
use crate::pack::{self, ClaimSpec, PackKind};
use crate::token::{self, Dates, Reading, UnverifiedToken};

#[cfg(test)]
mod tests;

/// A check of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Length, and three parts.
    Framing,
    /// The claims are base64url and JSON in the strict sense, and `iss` is a string if it is there.
    Claims,
    /// It is the issuer's.
    Issuer,
    /// The header is strict, and has only members that are accepted.
    Header,
    /// `alg` is accepted from the issuer.
    Algorithm,
    /// `typ` is accepted from the issuer.
    Type,
    /// The issuer is not retired, and its keys are not stale.
    Standing,
    /// Exactly one key of the issuer fits.
    Key,
    /// The signature is this key's.
    Signature,
    /// All claims that the pack knows have their types, and those that it demands are there.
    ClaimTypes,
    /// Neither the token nor its subject nor its key is revoked.
    Revocation,
    /// It has begun, and has not ended.
    Times,
    /// It does not live for longer than the issuer may give.
    Lifetime,
    /// It is not for somebody else.
    Audience,
    /// What the pack demands across claims.
    Provider,
    /// If it is bound to a certificate, the connection has that.
    Binding,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It holds.
    Holds,
    /// It does not.
    Fails(TokenFault),
    /// It rests on another check that does not hold.
    NotChecked(Check),
}

/// A check and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    /// Which one.
    pub check: Check,
    /// What came of it.
    pub finding: Finding,
}

/// Goes through all checks of a token, in their order. Without any: the text is not a signed JWT and counts as no token
/// at all.
pub fn explain(text: &[u8], issuer: &Issuer, at: At, connection: &dyn Connection) -> Vec<CheckReport> {
    let mut reports = Reports::default();
    let framed = match jose::frame(text) {
        Framing::Opaque => return Vec::new(),
        Framing::Broken(fault) => Err(fault),
        Framing::Jws(_) => Ok(()),
    };
    if reports.note(Check::Framing, framed).is_some() {
        let token = match token::read(text) {
            Reading::Token(token) => Ok(token),
            Reading::Unattributable(fault) => Err(fault),
            Reading::Opaque => Err(TokenFault::Malformed),
        };
        if let Some(token) = reports.note(Check::Claims, token) {
            examine(&token, issuer, at, connection, &mut reports);
        }
    }
    reports.0
}

/// What the reports come to: the first fault.
///
/// # Errors
///
/// The fault of the first check that fails.
pub fn verdict(reports: &[CheckReport]) -> Result<(), TokenFault> {
    let fault = reports.iter().find_map(|report| match report.finding {
        Finding::Fails(fault) => Some(fault),
        Finding::Holds | Finding::NotChecked(_) => None,
    });
    fault.map_or(Ok(()), Err)
}

/// The issuer of the set whose token the text would be.
pub fn owner<'s>(text: &[u8], set: &'s IssuerSet) -> Option<&'s Issuer> {
    let Reading::Token(token) = token::read(text) else { return None };
    set.issuers().get(set.owner(token.issuer(), token.subject())?)
}

/// Known claims that are not as the pack says, and what is wrong with each.
pub fn wrong_claims(text: &[u8], pack: PackKind) -> Vec<(&'static ClaimSpec, TokenFault)> {
    let Reading::Token(token) = token::read(text) else { return Vec::new() };
    let wrong = |spec| Some((spec, pack::check_claim(spec, token.claims()).err()?));
    pack.claims().iter().filter_map(wrong).collect()
}

/// What rules would read of the token if it were verified: one value per path.
pub fn slots(text: &[u8], pack: PackKind, paths: &[ClaimPath]) -> Vec<ClaimValue> {
    let Reading::Token(token) = token::read(text) else { return Vec::new() };
    paths.iter().map(|path| pack::extract(pack, token.claims(), path)).collect()
}

/// What rules would read of a verified token with these claims, a JSON object: one value per path. `None`: they are not
/// JSON in the strict sense.
pub fn slots_of(claims: &str, pack: PackKind, paths: &[ClaimPath]) -> Option<Vec<ClaimValue>> {
    let Ok(Value::Object(claims)) = json::parse(claims, Limits::TOKEN) else { return None };
    Some(paths.iter().map(|path| pack::extract(pack, &claims, path)).collect())
}

/// Known claims that are there and not of the kind that the pack demands. `None`: as with [`slots_of`].
pub fn ill_typed(claims: &str, pack: PackKind) -> Option<Vec<&'static ClaimSpec>> {
    let Ok(Value::Object(claims)) = json::parse(claims, Limits::TOKEN) else { return None };
    let is_wrong = |spec: &&ClaimSpec| pack::check_claim(spec, &claims) == Err(TokenFault::ClaimMalformed);
    Some(pack.claims().iter().filter(is_wrong).collect())
}

fn examine(
    token: &UnverifiedToken<'_>,
    issuer: &Issuer,
    at: At,
    connection: &dyn Connection,
    reports: &mut Reports,
) {
    let claims = token.claims();
    let iss = reports.note(Check::Issuer, token.accepted_iss(issuer));
    let header = reports.note(Check::Header, token.header(issuer));
    let algorithm = header.as_ref().map(|header| token::accepted_algorithm(issuer, header));
    let algorithm = reports.note_after(Check::Header, Check::Algorithm, algorithm);
    let kind = header.as_ref().map(|header| token::check_type(issuer, header));
    reports.note_after(Check::Header, Check::Type, kind);
    reports.note(Check::Standing, token::check_standing(issuer, at));
    let key = match (&iss, &header, algorithm) {
        (None, _, _) => reports.skip(Check::Key, Check::Issuer),
        (_, None, _) => reports.skip(Check::Key, Check::Header),
        (_, _, None) => reports.skip(Check::Key, Check::Algorithm),
        (Some(iss), Some(header), Some(algorithm)) => {
            let key = token::signing_key(issuer, iss, header, algorithm);
            reports.note(Check::Key, key).map(|key| (algorithm, key))
        }
    };
    let signature = key.map(|(algorithm, key)| token.check_signature(algorithm, key, connection));
    reports.note_after(Check::Key, Check::Signature, signature);

    let typed = reports.note(Check::ClaimTypes, token::check_types(issuer, claims)).is_some();
    // Without the key, what the token says of it.
    let revoked = header.as_ref().map(|header| {
        let key_id = key.map_or(header.key_id.as_deref(), |(_, key)| key.jwk().key_id());
        token::check_revocations(issuer, claims, key_id, at)
    });
    reports.note_after(Check::Header, Check::Revocation, revoked);
    let dates = Dates::read(issuer, claims);
    let times = dates.and_then(|dates| token::check_dates(issuer, at, dates.expires_at, dates.not_before));
    reports.note(Check::Times, times);
    let lifetime = dates.ok().map(|dates| token::check_lifetime(issuer, &dates));
    reports.note_after(Check::Times, Check::Lifetime, lifetime);
    reports.note(Check::Audience, token::check_audiences(issuer, claims));
    match (iss, typed, dates) {
        (None, _, _) => reports.skip::<()>(Check::Provider, Check::Issuer),
        (_, false, _) => reports.skip(Check::Provider, Check::ClaimTypes),
        (_, _, Err(_)) => reports.skip(Check::Provider, Check::Times),
        (Some(iss), true, Ok(dates)) => {
            reports.note(Check::Provider, token::check_pack(issuer, claims, iss, &dates))
        }
    };
    reports.note(Check::Binding, token::check_confirmation(issuer, claims, connection));
}

#[derive(Debug, Default)]
struct Reports(Vec<CheckReport>);

// === impl Check ===

impl Check {
    /// Every check, in their order.
    pub const ALL: [Self; 16] = [
        Self::Framing,
        Self::Claims,
        Self::Issuer,
        Self::Header,
        Self::Algorithm,
        Self::Type,
        Self::Standing,
        Self::Key,
        Self::Signature,
        Self::ClaimTypes,
        Self::Revocation,
        Self::Times,
        Self::Lifetime,
        Self::Audience,
        Self::Provider,
        Self::Binding,
    ];
}

// === impl Reports ===

impl Reports {
    /// Notes a result, and gives what others rest on.
    fn note<T>(&mut self, check: Check, result: Result<T, TokenFault>) -> Option<T> {
        let (finding, value) = match result {
            Ok(value) => (Finding::Holds, Some(value)),
            Err(fault) => (Finding::Fails(fault), None),
        };
        self.0.push(CheckReport { check, finding });
        value
    }

    /// Notes a result, or that there is none because `basis` does not hold.
    fn note_after<T>(
        &mut self,
        basis: Check,
        check: Check,
        result: Option<Result<T, TokenFault>>,
    ) -> Option<T> {
        match result {
            Some(result) => self.note(check, result),
            None => self.skip(check, basis),
        }
    }

    fn skip<T>(&mut self, check: Check, basis: Check) -> Option<T> {
        self.0.push(CheckReport { check, finding: Finding::NotChecked(basis) });
        None
    }
}
