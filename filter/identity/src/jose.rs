//! The JWS compact serialisation (RFC 7515 §7.1) and its header.
//!
//! Only signed tokens in compact form are read. Of the header, `alg` and `kid` select among what the issuer's key set
//! allows and `typ` is compared with the pack's list; nothing else of it is used, and every member that is not on the
//! list of [`Header::parse`] refuses the token. That covers `crit` ("if any of the listed extension Header Parameters
//! are not understood […] the JWS is invalid", RFC 7515 §4.1.11: none is understood), `b64` (RFC 7797), `zip`, `cty`
//! and `enc`, and the members that carry keys or where to get them: `jwk`, `jku`, `x5u`, `x5c`.
//!
//! INVARIANT: [`frame`] answers [`Framing::Opaque`] only for what no JWT library takes for a signed JWT. Whatever
//! begins like a JWT but is not strictly formed is [`Framing::Broken`].

use core::fmt;

use tidegate_engine::{TokenFault, scan};

use crate::keys::Algorithm;
use crate::{base64url, json};

#[cfg(test)]
mod tests;

/// Longer tokens are refused before anything is decoded. Bytes of the token's text.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Of a longer header it is not found out whether it is that of an encrypted token.
const MAX_HEADER_BYTES: usize = 4 * 1024;

/// What the text of a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing<'t> {
    /// Not a signed JWT: an opaque or an encrypted token.
    Opaque,
    /// Begins like a JWT, but cannot be one that is accepted; whose it is cannot be told.
    Broken(TokenFault),
    /// Three parts, the first of which begins like a JSON object.
    Jws(Jws<'t>),
}

/// A JWS in compact serialisation, not decoded yet. The signature may be empty, and no part need be base64url.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Jws<'t> {
    /// `BASE64URL(header)`.
    pub header: &'t [u8],
    /// `BASE64URL(payload)`.
    pub payload: &'t [u8],
    /// `BASE64URL(signature)`.
    pub signature: &'t [u8],
    /// What is signed: header, dot, payload.
    pub signing_input: &'t [u8],
}

/// The members of a header that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`; `None` for `none`, symmetric and unknown algorithms.
    pub algorithm: Option<Algorithm>,
    /// `kid`: opaque, compared exactly within the issuer's set.
    pub key_id: Option<String>,
    /// `typ`.
    pub kind: Option<String>,
    /// Whether it has `x5t` or `x5t#S256`, which some issuers add: digests of a certificate. They name a key and carry
    /// none; unused.
    pub thumbprint: bool,
}

/// The media type that a `typ` names. RFC 7515 §4.1.9: "A recipient using the media type value MUST treat it as if
/// "application/" were prepended to any "typ" value not containing a '/'"; case is for the caller to ignore.
pub(crate) fn media_type(kind: &str) -> &str {
    const PREFIX: &str = "application/";
    match kind.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => kind,
    }
}

/// Whether this is a type of JWTs that say something else than who calls: proofs of possession, which are worth nothing
/// without what they prove, statements between servers, and credentials that must not be borne. None is accepted from
/// anybody, whatever a TrustedIssuer says.
pub fn is_never_bearer(kind: &str) -> bool {
    const NEVER: [&str; 13] = [
        "dpop+jwt",                         // RFC 9449 §4.2
        "wit+jwt",                          // draft-ietf-wimse-workload-creds
        "wpt+jwt",                          // draft-ietf-wimse-wpt
        "kb+jwt",                           // RFC 9901 §4.3
        "secevent+jwt",                     // RFC 8417 §2.3
        "logout+jwt",                       // OpenID Connect Back-Channel Logout §2.4
        "token-introspection+jwt",          // RFC 9701 §5
        "oauth-authz-req+jwt",              // RFC 9101 §10.8
        "entity-statement+jwt",             // OpenID Federation §3
        "trust-mark+jwt",                   // OpenID Federation §7
        "jwk-set+jwt",                      // OpenID Federation §5.2.1
        "txntoken+jwt",                     // draft-ietf-oauth-transaction-tokens
        "oauth-client-attestation-pop+jwt", // draft-ietf-oauth-attestation-based-client-auth
    ];
    NEVER.iter().any(|never| media_type(kind).eq_ignore_ascii_case(never))
}

/// Finds the parts of a token.
pub fn frame(text: &[u8]) -> Framing<'_> {
    let Some((header, rest)) = cut(text).filter(|(header, _)| is_like_object(header)) else {
        return Framing::Opaque;
    };
    let Some((payload, signature)) = cut(rest) else { return Framing::Broken(TokenFault::Malformed) };
    if scan::position(signature, b'.').is_some() {
        let dots = signature.iter().filter(|byte| **byte == b'.').count();
        return match dots == 2 && is_encrypted(header) {
            true => Framing::Opaque,
            false => Framing::Broken(TokenFault::Malformed),
        };
    }
    if text.len() > MAX_TOKEN_BYTES {
        return Framing::Broken(TokenFault::TooLarge);
    }
    // The first dot belongs to the signing input, the second does not.
    let signed = header.len().saturating_add(1).saturating_add(payload.len());
    match text.get(..signed) {
        Some(signing_input) => Framing::Jws(Jws { header, payload, signature, signing_input }),
        None => Framing::Broken(TokenFault::Malformed),
    }
}

/// What precedes and what follows the first dot.
fn cut(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (before, from_dot) = text.split_at_checked(scan::position(text, b'.')?)?;
    from_dot.split_first().map(|(_, after)| (before, after))
}

/// Whether a lax reader could take this for a JWT: it begins like an object, and there is a dot. Some readers, Python's
/// among them, leave out what is no base64 instead of refusing it.
pub fn looks_like_jwt(text: &[u8]) -> bool {
    cut(text).is_some_and(|(header, _)| is_like_object(header))
}

/// [`begins_like_object`] for readers that leave out what is no base64.
fn is_like_object(header: &[u8]) -> bool {
    decodes_to_object(header.iter().filter_map(sextet))
}

/// Whether this decodes to a text that begins with `{`, whatever the alphabet and what precedes the brace of white
/// space. Stops at the first character that is not base64.
pub(crate) fn begins_like_object(text: &[u8]) -> bool {
    decodes_to_object(text.iter().map_while(sextet))
}

/// The value of a character of either base64 alphabet.
fn sextet(byte: &u8) -> Option<u8> {
    match *byte {
        letter @ b'A'..=b'Z' => letter.checked_sub(b'A'),
        letter @ b'a'..=b'z' => letter.checked_sub(b'a' - 26),
        digit @ b'0'..=b'9' => digit.checked_add(52 - b'0'),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn decodes_to_object(sextets: impl Iterator<Item = u8>) -> bool {
    let mut bits: u32 = 0;
    let mut count: u32 = 0;
    for sextet in sextets {
        bits = (bits << 6) | u32::from(sextet);
        count = count.saturating_add(6);
        if count >= 8 {
            count = count.saturating_sub(8);
            match (bits >> count) & 0xff {
                // `{`
                0x7b => return true,
                // White space, and the bytes of a byte order mark.
                0x20 | 0x09 | 0x0a | 0x0d | 0xef | 0xbb | 0xbf => {}
                _ => return false,
            }
        }
    }
    false
}

/// Whether this is the header of a JWE (RFC 7516 §4.1.2: `enc` "MUST be present").
fn is_encrypted(header: &[u8]) -> bool {
    header.len() <= MAX_HEADER_BYTES
        && object(header).is_ok_and(|members| members.get("enc").is_some_and(|enc| enc.as_str().is_some()))
}

/// Decodes a part that must be one JSON object.
pub(crate) fn object(part: &[u8]) -> Result<json::Object, TokenFault> {
    let bytes = base64url::decode(part).ok_or(TokenFault::Malformed)?;
    let text = str::from_utf8(&bytes).map_err(|_| TokenFault::Malformed)?;
    match json::parse(text, json::Limits::TOKEN) {
        Ok(json::Value::Object(object)) => Ok(object),
        Err(json::InvalidJson::TooLarge(_)) => Err(TokenFault::TooLarge),
        Ok(_) | Err(json::InvalidJson::Syntax(_) | json::InvalidJson::Duplicate(_)) => {
            Err(TokenFault::Malformed)
        }
    }
}

// === impl Jws ===

/// Tokens are not for logs.
impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws").field("bytes", &self.signing_input.len()).finish_non_exhaustive()
    }
}

impl Jws<'_> {
    /// The signature's bytes; `None` unless it is in its one spelling, and not empty.
    pub fn signature_bytes(&self) -> Option<Vec<u8>> {
        base64url::decode(self.signature).filter(|signature| !signature.is_empty())
    }
}

// === impl Header ===

impl Header {
    /// Decodes a header.
    ///
    /// # Errors
    ///
    /// [`TokenFault::Malformed`], [`TokenFault::TooLarge`] or [`TokenFault::HeaderRefused`].
    pub fn parse(part: &[u8]) -> Result<Self, TokenFault> {
        let mut header = Self { algorithm: None, key_id: None, kind: None, thumbprint: false };
        for (name, value) in object(part)?.iter() {
            let text = || value.as_str().ok_or(TokenFault::Malformed);
            match name {
                "alg" => header.algorithm = Algorithm::from_name(text()?),
                "kid" => header.key_id = Some(text()?.to_owned()),
                "typ" => header.kind = Some(text()?.to_owned()),
                "x5t" | "x5t#S256" => {
                    text()?;
                    header.thumbprint = true;
                }
                _ => return Err(TokenFault::HeaderRefused),
            }
        }
        Ok(header)
    }
}
