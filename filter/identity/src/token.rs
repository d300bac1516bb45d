//! One token, from its text to verified claims.
//!
//! The order of checks, cheap and safe first:
//!
//! 1. framing: length, three parts ([`crate::jose`]);
//! 2. claims as untrusted data: strict base64url, strict JSON; only `iss` (of a JWT-SVID the trust domain of `sub`) is
//!    read, to find the issuer;
//! 3. header: strict JSON, nothing but known members;
//! 4. `alg` and `typ` are the issuer's, it is not retired, its keys are not stale, and exactly one of *its* keys fits;
//! 5. signature;
//! 6. types of all claims that the pack knows, then revocations;
//! 7. times and lifetime;
//! 8. audience;
//! 9. the pack's checks across claims;
//! 10. binding to the connection (`cnf`).
//!
//! Steps 3 to 10 happen in [`UnverifiedToken::verify`], once the issuer is known: a failure there is a fault of this
//! issuer's token. Before, a token whose issuer cannot be told is [`Reading::Unattributable`].

use tidegate_engine::TokenFault;

use crate::base64url;
use crate::connection::{At, Connection, same_digest};
use crate::credentials;
use crate::issuer::{self, Issuer};
use crate::jose::{self, Framing, Header, Jws, media_type};
use crate::json::{Object, Value};
use crate::keys::{Algorithm, PublicKey};
use crate::pack::{self, LifetimeFrom, TokenFacts};
use crate::signature::{self, Verdict};

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
    /// SHA-256 of the client certificate that the token is bound to, if it is.
    pub certificate: Option<[u8; 32]>,
    /// Position of the key that signed it among the issuer's.
    pub key: usize,
}

/// When a token may be used. Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dates {
    pub expires_at: i64,
    /// When its life began.
    pub issued_at: i64,
    /// The latest date before which it must not be used.
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

/// Whether the issuer revokes this token, which was verified for it, or that cannot be told. `until` is left to the next
/// verification.
pub(crate) fn is_revoked(text: &[u8], issuer: &Issuer) -> bool {
    let Reading::Token(token) = read(text) else { return true };
    let revoked = token
        .key(issuer)
        .and_then(|key| check_revocations(issuer, &token.claims, key.jwk().key_id(), At::now(i64::MIN)));
    revoked.is_err()
}

/// The `kid` of a token: `None` if the header cannot be read.
pub(crate) fn key_id(text: &[u8]) -> Option<Option<String>> {
    match jose::frame(text) {
        Framing::Jws(jws) => Header::parse(jws.header).ok().map(|header| header.key_id),
        Framing::Opaque | Framing::Broken(_) => None,
    }
}

/// Whether a verified token may be used now. RFC 7519 §4.1.4: "the expiration time on or after which the JWT MUST NOT
/// be accepted"; §4.1.5: "the time before which the JWT MUST NOT be accepted"; both with the issuer's tolerance.
pub(crate) fn check_times(
    issuer: &Issuer,
    at: At,
    expires_at: i64,
    not_before: i64,
) -> Result<(), TokenFault> {
    check_standing(issuer, at)?;
    check_dates(issuer, at, expires_at, not_before)
}

pub(crate) fn check_dates(
    issuer: &Issuer,
    at: At,
    expires_at: i64,
    not_before: i64,
) -> Result<(), TokenFault> {
    if at.now >= expires_at.saturating_add(late(issuer, at)) {
        Err(TokenFault::Expired)
    } else if at.now < not_before.saturating_sub(issuer.skew_s()) {
        Err(TokenFault::NotYetValid)
    } else {
        Ok(())
    }
}

/// Seconds after its `exp` for which a token is still accepted.
fn late(issuer: &Issuer, at: At) -> i64 {
    issuer.skew_s().saturating_add(i64::from(at.expiry_grace_s))
}

/// Whether the issuer is accepted now, and its keys are.
pub(crate) fn check_standing(issuer: &Issuer, at: At) -> Result<(), TokenFault> {
    if issuer.retire_at() != 0 && at.now >= issuer.retire_at() {
        Err(TokenFault::IssuerRetired)
    } else if at.now > issuer.valid_until() {
        Err(TokenFault::KeysStale)
    } else {
        Ok(())
    }
}

/// Whether a token that is bound to this certificate (`None`: to none) may be used over this connection.
pub(crate) fn check_binding(
    certificate: Option<&[u8; 32]>,
    connection: &dyn Connection,
) -> Result<(), TokenFault> {
    let Some(bound) = certificate else { return Ok(()) };
    // RFC 8705 §3: "If the two do not match, the resource server MUST reject the request".
    match connection.certificate_sha256() {
        Some(presented) if same_digest(bound, &presented) => Ok(()),
        Some(_) | None => Err(TokenFault::NotBound),
    }
}

// === impl UnverifiedToken ===

impl UnverifiedToken<'_> {
    /// `iss`, to select the issuer by exact comparison.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// `sub`, of which the trust domain selects the issuer of a JWT-SVID.
    pub fn subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// What it says, to be shown; nothing of it may be believed.
    pub fn claims(&self) -> &Object {
        &self.claims
    }

    /// Whether there is nothing in it but what is in one credential. (The claims were decoded, so theirs is none else.)
    pub(crate) fn is_one_credential(&self) -> bool {
        credentials::is_of_tokens(self.jws.header) && credentials::is_of_tokens(self.jws.signature)
    }

    /// Verifies the token for the issuer that it names.
    ///
    /// # Errors
    ///
    /// The first fault in the order of the module's documentation.
    pub fn verify(
        self,
        issuer: &Issuer,
        at: At,
        connection: &dyn Connection,
    ) -> Result<VerifiedClaims, TokenFault> {
        let iss = self.accepted_iss(issuer)?;
        let header = self.header(issuer)?;
        let algorithm = accepted_algorithm(issuer, &header)?;
        check_type(issuer, &header)?;
        check_standing(issuer, at)?;
        let key = signing_key(issuer, iss, &header, algorithm)?;
        self.check_signature(algorithm, key, connection)?;
        let claims = &self.claims;
        check_types(issuer, claims)?;
        check_revocations(issuer, claims, key.jwk().key_id(), at)?;
        let dates = Dates::read(issuer, claims)?;
        check_dates(issuer, at, dates.expires_at, dates.not_before)?;
        check_lifetime(issuer, &dates)?;
        let audiences = check_audiences(issuer, claims)?;
        check_pack(issuer, claims, iss, &dates)?;
        let certificate = check_confirmation(issuer, claims, connection)?;
        let Dates { expires_at, not_before, .. } = dates;
        let key = issuer.keys().iter().position(|known| std::ptr::eq(known, key)).unwrap_or(usize::MAX);
        Ok(VerifiedClaims { claims: self.claims, audiences, expires_at, not_before, certificate, key })
    }

    /// Which `iss` of the issuer the token has, or stands for.
    pub(crate) fn accepted_iss<'i>(&self, issuer: &'i Issuer) -> Result<&'i str, TokenFault> {
        // SPIFFE Trust Domain and Bundle §5: a bundle speaks for the ids of its own trust domain only.
        let elsewhere = |own: &str| {
            let domain = self.subject().and_then(issuer::trust_domain);
            !domain.is_some_and(|domain| domain.eq_ignore_ascii_case(own))
        };
        if issuer.trust_domain().is_some_and(elsewhere) {
            return Err(TokenFault::ClaimsContradict);
        }
        let mut accepted = issuer.iss().iter().map(String::as_str);
        let named = accepted.find(|iss| issuer.trust_domain().is_some() || self.issuer() == Some(iss));
        named.ok_or(TokenFault::KeyUnknown)
    }

    /// The header, if such members are accepted from the issuer.
    pub(crate) fn header(&self, issuer: &Issuer) -> Result<Header, TokenFault> {
        let header = Header::parse(self.jws.header)?;
        if header.thumbprint && issuer.pack().pack().strict_header {
            return Err(TokenFault::HeaderRefused);
        }
        Ok(header)
    }

    /// The key that must have signed the token.
    fn key<'i>(&self, issuer: &'i Issuer) -> Result<&'i PublicKey, TokenFault> {
        let header = self.header(issuer)?;
        signing_key(issuer, self.accepted_iss(issuer)?, &header, accepted_algorithm(issuer, &header)?)
    }

    pub(crate) fn check_signature(
        &self,
        algorithm: Algorithm,
        key: &PublicKey,
        connection: &dyn Connection,
    ) -> Result<(), TokenFault> {
        let signature = self.jws.signature_bytes().ok_or(TokenFault::Malformed)?;
        match signature::check(connection, algorithm, key, self.jws.signing_input, &signature) {
            Verdict::Valid => Ok(()),
            Verdict::Invalid => Err(TokenFault::BadSignature),
            Verdict::Unsupported => Err(TokenFault::AlgorithmUnsupported),
            Verdict::OverBudget => Err(TokenFault::CheckBudget),
        }
    }
}

pub(crate) fn accepted_algorithm(issuer: &Issuer, header: &Header) -> Result<Algorithm, TokenFault> {
    let accepted = header.algorithm.filter(|algorithm| issuer.algorithms().contains(algorithm));
    accepted.ok_or(TokenFault::AlgorithmRefused)
}

pub(crate) fn check_type(issuer: &Issuer, header: &Header) -> Result<(), TokenFault> {
    if accepts_type(issuer, header.kind.as_deref()) { Ok(()) } else { Err(TokenFault::TypeRefused) }
}

/// The one key that may have signed the token.
pub(crate) fn signing_key<'i>(
    issuer: &'i Issuer,
    iss: &str,
    header: &Header,
    algorithm: Algorithm,
) -> Result<&'i PublicKey, TokenFault> {
    issuer.key(header.key_id.as_deref(), algorithm, iss).ok_or(TokenFault::KeyUnknown)
}

pub(crate) fn check_types(issuer: &Issuer, claims: &Object) -> Result<(), TokenFault> {
    pack::check_types(issuer.pack(), claims)?;
    match pack::text(claims, &["sub"]) {
        Some("") => Err(TokenFault::ClaimMalformed),
        _ => Ok(()),
    }
}

/// `key_id` is that of the key that signed the token: the token itself need not name it.
pub(crate) fn check_revocations(
    issuer: &Issuer,
    claims: &Object,
    key_id: Option<&str>,
    at: At,
) -> Result<(), TokenFault> {
    match issuer.revocations().concern(issuer.pack(), claims, key_id, at.now, late(issuer, at)) {
        true => Err(TokenFault::Revoked),
        false => Ok(()),
    }
}

pub(crate) fn check_lifetime(issuer: &Issuer, dates: &Dates) -> Result<(), TokenFault> {
    let lifetime = dates.expires_at.saturating_sub(dates.issued_at);
    if lifetime > issuer.max_lifetime_s().saturating_add(issuer.skew_s()) {
        Err(TokenFault::LifetimeTooLong)
    } else if dates.expires_at <= dates.not_before {
        Err(TokenFault::ClaimsContradict)
    } else {
        Ok(())
    }
}

/// The pack's checks across claims. The types of all known claims hold.
pub(crate) fn check_pack(
    issuer: &Issuer,
    claims: &Object,
    iss: &str,
    dates: &Dates,
) -> Result<(), TokenFault> {
    let facts = TokenFacts {
        claims,
        iss,
        types_overridden: !issuer.types().is_empty(),
        issued_at: dates.issued_at,
        skew: issuer.skew_s(),
        allow_unbound: issuer.allow_unbound(),
    };
    pack::check(issuer.pack(), &facts)
}

/// The certificate that the token is bound to, if it is; it is that of the connection.
pub(crate) fn check_confirmation(
    issuer: &Issuer,
    claims: &Object,
    connection: &dyn Connection,
) -> Result<Option<[u8; 32]>, TokenFault> {
    let certificate = confirmation(claims)?;
    if certificate.is_none() && issuer.require_cnf() {
        return Err(TokenFault::NotBound);
    }
    check_binding(certificate.as_ref(), connection)?;
    Ok(certificate)
}

// === impl Dates ===

impl Dates {
    pub(crate) fn read(issuer: &Issuer, claims: &Object) -> Result<Self, TokenFault> {
        let expires_at = date(claims, "exp")?.ok_or(TokenFault::ClaimMissing)?;
        let (issued, not_before) = (date(claims, "iat")?, date(claims, "nbf")?);
        let issued_at = match issuer.pack().pack().lifetime_from {
            LifetimeFrom::IssuedAt => issued.or(not_before),
            LifetimeFrom::NotBefore => not_before,
        };
        let issued_at = issued_at.ok_or(TokenFault::ClaimMissing)?;
        let not_before = [issued, not_before].into_iter().flatten().fold(issued_at, i64::max);
        Ok(Self { expires_at, issued_at, not_before })
    }
}

/// Whether the issuer gives tokens of this `typ`. One that is missing says `JWT`: many send none, and RFC 7519 §5.1 knows
/// no other type that need not be written. A list without `jwt` therefore demands one of its own (RFC 9068 §4).
fn accepts_type(issuer: &Issuer, kind: Option<&str>) -> bool {
    let pack = issuer.pack().pack();
    let kind = kind.unwrap_or("JWT");
    // JWT-SVID §2.3: "If set, its value MUST be either `JWT` or `JOSE`."
    if jose::is_never_bearer(kind) || (pack.strict_header && !matches!(kind, "JWT" | "JOSE")) {
        return false;
    }
    let listed = |accepted: &str| media_type(accepted).eq_ignore_ascii_case(media_type(kind));
    match issuer.types() {
        [] => pack.types.iter().any(|accepted| listed(accepted)),
        types => types.iter().any(|accepted| listed(accepted)),
    }
}

/// The token's audiences, if the issuer may have given it and not for a known other party.
pub(crate) fn check_audiences(issuer: &Issuer, claims: &Object) -> Result<Vec<String>, TokenFault> {
    let audiences = audiences(claims)?;
    if audiences.iter().any(|audience| pack::another_party(audience).is_some()) {
        return Err(TokenFault::MintedForAnotherParty);
    }
    if issuer.single_audience() && audiences.len() > 1 {
        return Err(TokenFault::SeveralAudiences);
    }
    let ceiling = issuer.audiences();
    if !ceiling.is_empty() && !audiences.iter().any(|audience| ceiling.contains(audience)) {
        return Err(TokenFault::WrongAudience);
    }
    Ok(audiences)
}

/// What the presenter must prove to hold (RFC 7800 §3.1): of all methods only the digest of the client certificate
/// (RFC 8705 §3.1) can be checked here, and only where it is alone.
fn confirmation(claims: &Object) -> Result<Option<[u8; 32]>, TokenFault> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let mut members = cnf.as_object().ok_or(TokenFault::NotBound)?.iter();
    let digest = match (members.next(), members.next()) {
        (Some(("x5t#S256", Value::String(digest))), None) => base64url::decode(digest.as_bytes()),
        _ => None,
    };
    let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
    digest.map(Some).ok_or(TokenFault::NotBound)
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
