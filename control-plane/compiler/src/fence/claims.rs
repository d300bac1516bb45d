//! What tokens say, where Istio verifies them as well.
//!
//! INVARIANT: a RequestAuthentication refuses whatever it does not understand. There is one only where every request that the
//! filter allows has exactly one token, in the one header of all issuers, and of an issuer that it names: else something that
//! the filter takes for no token at all would be refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_engine::model::{ClaimRef, Condition, Effect, FromModel, Mode, Test};
use tidegate_identity::pack::ClaimKind;
use tidegate_identity::{PackKind, TokenHeader};

use super::allow::Enforced;
use super::branch::When;
use super::note::{Note, NoteKind};
use super::object::{IstioObject, SECURITY_API, object};
use super::select::Selector;
use super::words::exact;
use crate::issuers::{KeySource, TrustedIssuer};
use crate::mesh::WorkloadId;
use crate::plan::WorkloadPolicy;

/// By how much Envoy lets clocks differ, in seconds.
const ENVOY_SKEW_S: u32 = 60;

/// What a RequestAuthentication of ours covers.
pub(super) struct Claims {
    /// In the order of the policy.
    issuers: Vec<TrustedIssuer>,
    /// Claims by issuer and slot.
    slots: Vec<Vec<Vec<String>>>,
    /// For whom tokens are meant, where it is not the request's host.
    audiences: Option<BTreeSet<String>>,
}

/// What Istio can verify at a workload; `None`: nothing, and it is noted why.
pub(super) fn claims(
    issuers: &[TrustedIssuer],
    policy: &WorkloadPolicy,
    enforced: &Enforced,
    alone: bool,
    notes: &mut BTreeSet<Note>,
) -> Option<Claims> {
    let model = &policy.model;
    if model.issuers.is_empty() {
        return None;
    }
    let mut refuse = |why: &str| {
        notes.insert(Note::new(NoteKind::Wider, None, format!("Istio verifies no tokens here: {why}")));
    };
    if *enforced != Enforced::Everywhere {
        refuse("some ports are not guarded, and it would refuse tokens there too");
        return None;
    }
    if !alone {
        refuse("it would do so at other workloads whose pods have these labels");
        return None;
    }
    let allows = model.rules.iter().filter(|rule| rule.effect == Effect::Allow && rule.mode == Mode::Enforce);
    if allows.flat_map(|rule| &rule.from).any(|from| from.issuers.len() != 1) {
        refuse("some callers need no token, or several, and it would refuse what they send in place of one");
        return None;
    }
    let mut named = Vec::new();
    for one in &model.issuers {
        let issuer = issuers.iter().find(|issuer| issuer.name == one.name)?;
        if let Err(why) = coverable(issuer) {
            refuse(&format!("`{}`: {why}", issuer.name));
            return None;
        }
        named.push(issuer.clone());
    }
    if named.iter().any(|issuer| Some(&issuer.headers) != named.first().map(|first| &first.headers)) {
        refuse("tokens are in several headers, and of several tokens it tells only one");
        return None;
    }
    let text = "Istio verifies tokens as well: it fetches keys itself, and knows the scheme before a token only as it is written in \
                the TrustedIssuer, or `Bearer`";
    notes.insert(Note::new(NoteKind::Assumption, None, text));
    let mut audiences = Some(BTreeSet::new());
    for guard in model.guards.iter().filter(|guard| guard.mode == Mode::Enforce) {
        match (&mut audiences, &guard.audiences) {
            (Some(all), Some(more)) => all.extend(more.iter().cloned()),
            _ => audiences = None,
        }
    }
    let slots = model.issuers.iter().map(|issuer| issuer.slots.clone()).collect();
    Some(Claims { issuers: named, slots, audiences })
}

/// Whether Istio accepts every token of the issuer that the filter accepts.
fn coverable(issuer: &TrustedIssuer) -> Result<(), &'static str> {
    if issuer.pack == PackKind::Spiffe {
        return Err("its tokens have no `iss` that Istio could look for");
    }
    if issuer.skew_s > ENVOY_SKEW_S {
        return Err("its clocks may differ by more than Envoy allows");
    }
    if issuer.headers.len() != 1 {
        return Err("its tokens are in several headers");
    }
    if matches!(issuer.keys, KeySource::Discovery(_)) && issuer.issuers.len() != 1 {
        return Err("it has several names, and Istio would look for keys at each");
    }
    Ok(())
}

// === impl Claims ===

impl Claims {
    /// What an entry demands of its token, as far as Istio can say it. Its condition may demand more.
    pub(super) fn of(&self, from: &FromModel) -> BTreeMap<String, When> {
        let mut conditions = BTreeMap::new();
        let [issuer] = from.issuers.as_slice() else { return conditions };
        let Some(trusted) = self.issuers.get(usize::from(*issuer)) else { return conditions };
        let mut demand = |key: String, values: &mut dyn Iterator<Item = &String>| {
            let values: Option<BTreeSet<String>> = values.map(|value| exact(value)).collect();
            if let Some(values) = values.filter(|values| !values.is_empty()) {
                conditions.entry(key).or_insert(When { values, not: false });
            }
        };
        demand("request.auth.claims[iss]".to_owned(), &mut trusted.issuers.iter());
        if let Some(audiences) = &self.audiences {
            demand("request.auth.audiences".to_owned(), &mut audiences.iter());
        }
        let mut parts = vec![&from.condition];
        while let Some(part) = parts.pop() {
            match part {
                Condition::All(all) => parts.extend(all),
                Condition::Claim(claim, Test::OneOf(values)) if claim.issuer == *issuer => {
                    if let Some(key) = self.key(trusted, *claim, false) {
                        demand(key, &mut values.iter());
                    }
                }
                Condition::Claim(claim, Test::Contains(value)) if claim.issuer == *issuer => {
                    if let Some(key) = self.key(trusted, *claim, true) {
                        demand(key, &mut std::iter::once(value));
                    }
                }
                _ => {}
            }
        }
        conditions
    }

    /// Istio's name of a claim that is a string, or a list of strings, in the token itself.
    fn key(&self, issuer: &TrustedIssuer, claim: ClaimRef, list: bool) -> Option<String> {
        let path = self.slots.get(usize::from(claim.issuer))?.get(usize::from(claim.slot))?;
        if path
            .iter()
            .any(|member| member.is_empty() || member.starts_with('@') || member.contains(['[', ']']))
        {
            return None;
        }
        let known = issuer.pack.claim(path);
        let fits = match known.map(|spec| (spec.kind, spec.loose)) {
            Some((_, true)) => false,
            Some((ClaimKind::Strings | ClaimKind::StringOrStrings, false)) => list,
            Some((
                ClaimKind::String
                | ClaimKind::Identifier
                | ClaimKind::Digits
                | ClaimKind::Guid
                | ClaimKind::BooleanString,
                false,
            )) => !list,
            Some((ClaimKind::Integer | ClaimKind::Boolean | ClaimKind::Structure, false)) => false,
            None => issuer.pack == PackKind::Generic,
        };
        let inside: String = path.iter().map(|member| format!("[{member}]")).collect();
        fits.then(|| format!("request.auth.claims{inside}"))
    }

    /// The RequestAuthentication.
    pub(super) fn object(&self, id: &WorkloadId, selector: &Selector) -> IstioObject {
        let mut rules: BTreeMap<&str, Value> = BTreeMap::new();
        for issuer in &self.issuers {
            for iss in &issuer.issuers {
                let mut members = vec![
                    ("forwardOriginalToken", Value::from(true)),
                    ("fromHeaders", Value::Array(issuer.headers.iter().map(from_header).collect())),
                    ("issuer", Value::from(iss.as_str())),
                ];
                match &issuer.keys {
                    KeySource::Inline(jwks) => members.push(("jwks", Value::from(jwks.as_str()))),
                    KeySource::Uri(uri) => members.push(("jwksUri", Value::from(uri.as_str()))),
                    // Without keys Istio asks the issuer, as we do.
                    KeySource::Discovery(_) => {}
                }
                rules.insert(iss, object(members));
            }
        }
        let rules = Value::Array(rules.into_values().collect());
        let spec = object([("jwtRules", rules), (selector.field, selector.value.clone())]);
        IstioObject::new(SECURITY_API, "RequestAuthentication", id, ("auth", "-auth"), spec)
    }
}

fn from_header(header: &TokenHeader) -> Value {
    let name = ("name", Value::from(header.name.as_str()));
    let prefix = header.prefix.as_ref().map(|prefix| ("prefix", Value::from(format!("{prefix} "))));
    object([name].into_iter().chain(prefix))
}
