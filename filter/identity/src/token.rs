//! One token, from its text to verified claims.
//!
//! The order of checks, cheap and safe first:
//!
//! 1. framing: length, three parts ([`crate::jose`]);
//! 2. claims as untrusted data: strict base64url, strict JSON; only `iss` is read, to find the issuer;
//! 3. header: strict JSON, nothing but known members;
//! 4. `alg` and `typ` are the issuer's, its keys are not stale, and exactly one of *its* keys fits;
//! 5. signature;
//! 6. types of all claims that the pack knows;
//! 7. times and lifetime;
//! 8. audience;
//! 9. the pack's checks across claims, and `cnf`.
//!
//! Steps 3 to 9 happen in [`UnverifiedToken::verify`], once the issuer is known: a failure there is a fault of this
//! issuer's token. Before, a token whose issuer cannot be told is [`Reading::Unattributable`].

use tidegate_engine::TokenFault;

use crate::issuer::Issuer;
use crate::jose::{self, Framing, Header, Jws};
use crate::json::{Object, Value};
use crate::pack::{self, TokenFacts};
use crate::signature::{self, VerifySignature};

#[cfg(test)]
mod tests;

/// NumericDates beyond are no dates: 2^53 - 1, the last whole number that every JSON reader reads alike.
const LAST_DATE: i64 = (1 << 53) - 1;

/// What the text of a credential turns out to be.
#[derive(Debug)]
pub enum Reading<'t> {
    /// Not a signed JWT.
    Opaque,
    /// Something that a laxer reader could take for a signed JWT, and of which cannot be told whose it is.
    Unattributable(TokenFault),
    /// A token that says who issued it.
    Token(UnverifiedToken<'t>),
}

/// A token of which nothing may be believed yet.
#[derive(Debug)]
pub struct UnverifiedToken<'t> {
    jws: Jws<'t>,
    claims: Object,
}

/// What a token says, its signature and all checks of its issuer having held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedClaims {
    /// All claims.
    pub claims: Object,
    /// `aud`, one or more.
    pub audiences: Vec<String>,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
    /// The later of `nbf` and `iat`, Unix seconds.
    pub not_before: i64,
}

/// Reads a credential. Proves nothing.
pub fn read(text: &[u8]) -> Reading<'_> {
    let jws = match jose::frame(text) {
        Framing::Opaque => return Reading::Opaque,
        Framing::Broken(fault) => return Reading::Unattributable(fault),
        Framing::Jws(jws) => jws,
    };
    match jose::object(jws.payload) {
        // "The "iss" value is a case-sensitive string" (RFC 7519 §4.1.1). Readers that take an array or a number for it
        // exist, so another type is not the same as none.
        Ok(claims) => match claims.get("iss") {
            None | Some(Value::String(_)) => Reading::Token(UnverifiedToken { jws, claims }),
            Some(_) => Reading::Unattributable(TokenFault::ClaimMalformed),
        },
        Err(fault) => Reading::Unattributable(fault),
    }
}

/// The claims of a token that was verified before, read again.
pub(crate) fn reread(text: &[u8]) -> Option<Object> {
    match read(text) {
        Reading::Token(token) => Some(token.claims),
        Reading::Opaque | Reading::Unattributable(_) => None,
    }
}

/// Whether a verified token may be used now. RFC 7519 §4.1.4: "the expiration time on or after which the JWT MUST NOT
/// be accepted"; §4.1.5: "the time before which the JWT MUST NOT be accepted"; both with the issuer's tolerance.
pub(crate) fn check_times(
    issuer: &Issuer,
    now: i64,
    expires_at: i64,
    not_before: i64,
) -> Result<(), TokenFault> {
    if now > issuer.valid_until() {
        Err(TokenFault::KeysStale)
    } else if now >= expires_at.saturating_add(issuer.skew_s()) {
        Err(TokenFault::Expired)
    } else if now < not_before.saturating_sub(issuer.skew_s()) {
        Err(TokenFault::NotYetValid)
    } else {
        Ok(())
    }
}

// === impl UnverifiedToken ===

impl UnverifiedToken<'_> {
    /// `iss`, to select the issuer by exact comparison.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Verifies the token for the issuer that it names.
    ///
    /// # Errors
    ///
    /// The first fault in the order of the module's documentation.
    pub fn verify(
        self,
        issuer: &Issuer,
        now: i64,
        verifier: &dyn VerifySignature,
    ) -> Result<VerifiedClaims, TokenFault> {
        if self.issuer() != Some(issuer.issuer()) {
            return Err(TokenFault::KeyUnknown);
        }
        self.check_signature(issuer, now, verifier)?;
        let claims = self.claims;
        pack::check_types(issuer.pack(), &claims)?;
        if pack::text(&claims, &["sub"]).is_some_and(str::is_empty) {
            return Err(TokenFault::ClaimMalformed);
        }

        let expires_at = date(&claims, "exp")?.ok_or(TokenFault::ClaimMissing)?;
        let (issued, not_before) = (date(&claims, "iat")?, date(&claims, "nbf")?);
        let issued_at = issued.or(not_before).ok_or(TokenFault::ClaimMissing)?;
        let not_before = issued_at.max(not_before.unwrap_or(issued_at));
        check_times(issuer, now, expires_at, not_before)?;
        let lifetime = expires_at.saturating_sub(issued_at);
        if lifetime > issuer.max_lifetime_s().saturating_add(issuer.skew_s()) {
            return Err(TokenFault::LifetimeTooLong);
        }
        if expires_at <= not_before {
            return Err(TokenFault::ClaimsContradict);
        }

        let audiences = audiences(&claims)?;
        if audiences.iter().any(|audience| pack::another_party(audience).is_some()) {
            return Err(TokenFault::MintedForAnotherParty);
        }
        let ceiling = issuer.audiences();
        if !ceiling.is_empty() && !audiences.iter().any(|audience| ceiling.contains(audience)) {
            return Err(TokenFault::WrongAudience);
        }

        let (skew, allow_unbound) = (issuer.skew_s(), issuer.allow_unbound());
        pack::check(issuer.pack(), &TokenFacts { claims: &claims, issued_at, skew, allow_unbound })?;
        // RFC 7800 §3.1: the presenter must prove that it holds this key. Nothing here can check that.
        if claims.get("cnf").is_some() {
            return Err(TokenFault::NotBound);
        }
        Ok(VerifiedClaims { claims, audiences, expires_at, not_before })
    }

    fn check_signature(
        &self,
        issuer: &Issuer,
        now: i64,
        verifier: &dyn VerifySignature,
    ) -> Result<(), TokenFault> {
        let header = Header::parse(self.jws.header)?;
        let algorithm = header.algorithm.filter(|a| issuer.algorithms().contains(a));
        let algorithm = algorithm.ok_or(TokenFault::AlgorithmRefused)?;
        if let Some(kind) = &header.kind
            && !issuer.pack().pack().types.iter().any(|accepted| kind.eq_ignore_ascii_case(accepted))
        {
            return Err(TokenFault::TypeRefused);
        }
        if now > issuer.valid_until() {
            return Err(TokenFault::KeysStale);
        }
        let key = issuer.key(header.key_id.as_deref(), algorithm).ok_or(TokenFault::KeyUnknown)?;
        let signature = crate::base64url::decode(self.jws.signature).ok_or(TokenFault::Malformed)?;
        if signature.is_empty() {
            return Err(TokenFault::Malformed);
        }
        if signature::check(verifier, algorithm, key, self.jws.signing_input, &signature) {
            Ok(())
        } else {
            Err(TokenFault::BadSignature)
        }
    }
}

/// A NumericDate (RFC 7519 §2): whole seconds only.
fn date(claims: &Object, name: &str) -> Result<Option<i64>, TokenFault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Integer(date)) if (0..=LAST_DATE).contains(date) => Ok(Some(*date)),
        Some(_) => Err(TokenFault::ClaimMalformed),
    }
}

/// RFC 7519 §4.1.3: "an array of case-sensitive strings […]. In the special case when the JWT has one audience, the
/// "aud" value MAY be a single case-sensitive string". Neither none nor an empty one means anybody.
fn audiences(claims: &Object) -> Result<Vec<String>, TokenFault> {
    let audiences = match claims.get("aud") {
        None => return Err(TokenFault::ClaimMissing),
        Some(Value::String(audience)) => vec![audience.clone()],
        Some(Value::Array(elements)) => elements
            .iter()
            .map(|element| element.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or(TokenFault::ClaimMalformed)?,
        Some(_) => return Err(TokenFault::ClaimMalformed),
    };
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(TokenFault::ClaimMalformed);
    }
    Ok(audiences)
}
