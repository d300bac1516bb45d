//! The tokens of tests.

use std::collections::BTreeMap;

use tidegate_engine::Reason;
use tidegate_identity::PackKind;

use super::{many, reason};
use crate::claim_path;
use crate::context::Context;
use crate::diagnostic::Code;
use crate::explain::AskedToken;
use crate::place::{Findings, Place};
use crate::spec::{TestTokenFields, write_members};
use crate::suggest;

/// Resolves `like`, whatever the order in which names are written.
pub(super) fn named_tokens(
    place: &Place<'_>,
    tokens: Option<&BTreeMap<String, TestTokenFields>>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, AskedToken> {
    let mut known = BTreeMap::new();
    let Some(tokens) = tokens else { return known };
    let mut waiting: Vec<(&String, &TestTokenFields)> = tokens.iter().collect();
    loop {
        let before = waiting.len();
        waiting.retain(|(name, fields)| {
            let ready = fields.like.as_ref().is_none_or(|like| known.contains_key(like));
            if ready && let Some(token) = token(&place.key(name), fields, &known, context, findings) {
                known.insert((*name).clone(), token);
            }
            !ready
        });
        if waiting.is_empty() {
            return known;
        }
        if waiting.len() == before {
            break;
        }
    }
    for (name, fields) in waiting {
        let like = fields.like.as_deref().unwrap_or_default();
        unknown_token(&place.key(name).key("like"), like, tokens.keys(), findings);
    }
    known
}

pub(super) fn unknown_token<'n>(
    place: &Place<'_>,
    name: &str,
    known: impl IntoIterator<Item = &'n String>,
    findings: &mut Findings,
) {
    findings.add(
        place,
        Code::UnknownReference,
        format!("there is no usable token `{name}` in `spec.tokens`"),
        "a test without its token tests something else",
        match suggest::closest(name, known.into_iter().map(String::as_str).filter(|known| *known != name)) {
            Some(close) => format!("did you mean `{close}`?"),
            None => "add it there, or write the token out: `{issuer: …, claims: {…}}`".to_owned(),
        },
    );
}

pub(super) fn token(
    place: &Place<'_>,
    fields: &TestTokenFields,
    known: &BTreeMap<String, AskedToken>,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<AskedToken> {
    let mut token = match (&fields.like, &fields.issuer) {
        (Some(like), _) => match known.get(like) {
            Some(token) => token.clone(),
            None => {
                unknown_token(&place.key("like"), like, known.keys(), findings);
                return None;
            }
        },
        (None, Some(_)) => AskedToken::default(),
        (None, None) => {
            findings.add(
                place,
                Code::MissingField,
                "neither `issuer` nor `like` is there",
                "whose token it is decides what rules read",
                "write the name of a TrustedIssuer in `issuer`",
            );
            return None;
        }
    };
    if let Some(issuer) = &fields.issuer {
        token.issuer.clone_from(issuer);
    }
    let issuer = context.issuer(&place.key("issuer"), &token.issuer, findings)?;
    if let Some(claims) = &fields.claims {
        token.merge(claims);
    }
    for (index, claim) in fields.without.iter().flatten().enumerate() {
        if !token.remove(claim) {
            findings.add(
                &place.key("without").index(index),
                Code::UnknownClaim,
                format!("there is no claim `{claim}` to leave out"),
                "the test would not test what it says",
                "write the path of a claim that `like` has, e.g. `google.compute_engine.zone`",
            );
        }
    }
    check_claims(&place.key("claims"), &token, issuer.pack, findings);
    if let Some(audience) = &fields.audience {
        token.audiences = Some(many(audience));
    }
    if let Some(code) = &fields.refused {
        let place = place.key("refused");
        match reason(&place, code, findings) {
            Some(Reason::TokenInvalid(fault)) => token.fault = Some(fault),
            Some(_) => findings.add(
                &place,
                Code::UnknownValue,
                format!("`{code}` is no fault of a token"),
                "only what is wrong with the token itself makes a filter refuse it",
                "write a code that begins with `token_`, e.g. `token_expired`; not `token_required`",
            ),
            None => {}
        }
    }
    Some(token)
}

/// Refuses claims that the issuer's tokens cannot have.
fn check_claims(place: &Place<'_>, token: &AskedToken, pack: PackKind, findings: &mut Findings) {
    let mut json = String::new();
    write_members(&token.claims, &mut json);
    let Some(wrong) = tidegate_identity::explain::ill_typed(&json, pack) else {
        findings.add(
            place,
            Code::LimitExceeded,
            "the claims are more or deeper than a token may have",
            "a filter refuses such a token",
            "write only the claims that matter",
        );
        return;
    };
    for spec in wrong {
        let name = claim_path::show(spec.path);
        findings.add(
            &place.key(spec.path.first().copied().unwrap_or_default()),
            Code::ClaimType,
            format!("`{name}` is not what tokens of the pack `{}` have there", pack.name()),
            format!("it is {}; a filter refuses any other as `token_claim_malformed`", kind(spec.kind)),
            "write it as the issuer does; to test the refusal, write `refused: token_claim_malformed`",
        );
    }
    for name in token.claims.keys() {
        let known = pack.claims().iter().filter_map(|spec| spec.path.first().copied());
        let is_known = known.clone().any(|known| known == name);
        if pack.pack().open || is_known || known.clone().any(|known| known.trim_end_matches('*') == name) {
            continue;
        }
        findings.add(
            &place.key(name),
            Code::UnknownClaim,
            format!("tokens of the pack `{}` have no claim `{name}`", pack.name()),
            "no rule can read it, so the test would not test what it says",
            match suggest::closest(name, known) {
                Some(close) => format!("did you mean `{close}`?"),
                None => "remove it".to_owned(),
            },
        );
    }
}

fn kind(kind: tidegate_identity::pack::ClaimKind) -> &'static str {
    use tidegate_identity::pack::ClaimKind as K;
    match kind {
        K::String => "a string",
        K::Identifier => "a string of printable ASCII characters",
        K::Digits => "a string of digits, in quotes",
        K::Guid => "a string, a UUID in lower case",
        K::BooleanString => "a string, `\"true\"` or `\"false\"` in quotes",
        K::Integer => "a whole number, without quotes",
        K::Boolean => "`true` or `false`, without quotes",
        K::Strings => "a list of strings",
        K::StringOrStrings => "a string or a list of strings",
        K::Structure => "a structure",
    }
}
