//! When an issuer's tokens are refused although they are signed: types, revocation, retirement.

use std::collections::BTreeSet;

use tidegate_identity::PackKind;
use tidegate_identity::issuer::{MAX_REVOKED, Revoked, RevokedKind};

use crate::diagnostic::Code;
use crate::mesh::not_empty;
use crate::operation::repeated;
use crate::place::{Findings, Place};
use crate::spec::RevokedSpec;
use crate::syntax;
use crate::text::{check_moment, check_text};

/// How long before an issuer is refused somebody is told.
const RETIRES_SOON_S: i64 = 30 * 86_400;

/// Accepted `typ`, each once.
pub(super) fn check_types(
    place: &Place<'_>,
    types: Option<&[String]>,
    findings: &mut Findings,
) -> Vec<String> {
    let Some(types) = types else { return Vec::new() };
    not_empty(place, types, findings);
    let mut checked = BTreeSet::new();
    for (index, written) in types.iter().enumerate() {
        let place = place.index(index);
        // RFC 7515 section 4.1.9: media types, compared without case.
        let token_type = written.to_ascii_lowercase();
        if !syntax::is_token_type(&token_type) {
            findings.add(
                &place,
                Code::MalformedValue,
                format!("`{}` is not a type of tokens", written.escape_debug()),
                "it is compared with the header's `typ`",
                "write a media type without `application/`, e.g. `JWT` or `at+jwt`",
            );
        }
        if !checked.insert(token_type) {
            repeated(&place, written, findings);
        }
    }
    checked.into_iter().collect()
}

/// When the issuer's tokens are refused, in Unix seconds. Says so from some time before.
pub(super) fn check_retirement(
    place: &Place<'_>,
    after: Option<&str>,
    now: Option<i64>,
    findings: &mut Findings,
) -> Option<i64> {
    let after = after?;
    let at = check_moment(place, after, findings)?;
    let Some(now) = now else { return Some(at) };
    let remaining = at.saturating_sub(now);
    let message = if remaining <= 0 {
        format!("its tokens are refused since `{after}` is over")
    } else if remaining <= RETIRES_SOON_S {
        format!("its tokens are refused as soon as `{after}` is over")
    } else {
        return Some(at);
    };
    findings.add(
        place,
        Code::IssuerRetires,
        message,
        "`retireAfter` says so",
        "move its callers to another issuer and remove this one, or write a later day",
    );
    Some(at)
}

/// What is refused although it is signed and has not expired.
pub(super) fn check_revoked(
    place: &Place<'_>,
    spec: Option<&RevokedSpec>,
    pack: PackKind,
    findings: &mut Findings,
) -> Vec<Revoked> {
    let Some(spec) = spec else { return Vec::new() };
    let RevokedSpec { subjects, tokens, keys } = spec;
    if subjects.is_none() && tokens.is_none() && keys.is_none() {
        crate::tokens::empty(place, findings);
    }
    if tokens.is_some() && pack.pack().token_id.is_none() {
        findings.add(
            &place.key("tokens"),
            Code::WrongPack,
            format!("tokens of the pack `{}` have no id", pack.name()),
            "a revocation that matches nothing would look like one",
            "revoke the subject until the token has expired",
        );
    }
    let mut revoked = Vec::new();
    if let Some(subjects) = subjects {
        let named = subjects.iter().map(|one| (one.subject.as_str(), one.until.as_deref()));
        check_list(&place.key("subjects"), "subject", RevokedKind::Subject, named, &mut revoked, findings);
    }
    if let Some(tokens) = tokens {
        let named = tokens.iter().map(|one| (one.id.as_str(), one.until.as_deref()));
        check_list(&place.key("tokens"), "id", RevokedKind::Token, named, &mut revoked, findings);
    }
    if let Some(keys) = keys {
        let named = keys.iter().map(|one| (one.kid.as_str(), one.until.as_deref()));
        check_list(&place.key("keys"), "kid", RevokedKind::Key, named, &mut revoked, findings);
    }
    if revoked.len() > MAX_REVOKED {
        findings.add(
            place,
            Code::MalformedValue,
            format!("{} revocations are more than filters accept", revoked.len()),
            "every filter keeps all of them",
            format!("write at most {MAX_REVOKED}, and remove those whose tokens have expired"),
        );
    }
    revoked.sort_by(|a, b| (a.kind, &a.value).cmp(&(b.kind, &b.value)));
    revoked
}

fn check_list<'s>(
    place: &Place<'_>,
    field: &str,
    kind: RevokedKind,
    list: impl ExactSizeIterator<Item = (&'s str, Option<&'s str>)>,
    revoked: &mut Vec<Revoked>,
    findings: &mut Findings,
) {
    if list.len() == 0 {
        not_empty::<()>(place, &[], findings);
    }
    let mut values = BTreeSet::new();
    for (index, (value, until)) in list.enumerate() {
        let place = place.index(index);
        check_text(&place.key(field), value, findings);
        let until = until.and_then(|until| check_moment(&place.key("until"), until, findings));
        if !values.insert(value) {
            findings.add(
                &place.key(field),
                Code::MalformedValue,
                format!("`{value}` is revoked twice"),
                "until when would be open",
                "keep one of them",
            );
            continue;
        }
        revoked.push(Revoked { kind, value: value.to_owned(), until: until.unwrap_or(0) });
    }
}
