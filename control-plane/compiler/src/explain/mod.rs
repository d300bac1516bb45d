//! Why a request is decided as it is: every rule with what it demands, what the request has, and which rule was nearest.
//!
//! [`explain`] reads the policy as data, as the engine's reference interpreter does, and looks at everything instead of
//! stopping at the first answer. Single conditions and operations are judged by that interpreter, so that a new kind of
//! condition needs only words here (`words`).
//!
//! INVARIANT: outcome, reason, rule and Shadow difference are those of [`tidegate_engine::decide`]. A property test
//! compares them over any policy and any request.
//!
//! INVARIANT: nothing that comes out of here contains a signed token, or anything that a terminal obeys.

mod claims;
mod nearest;
mod question;
mod trace;
mod words;

use tidegate_engine::model::{Effect, GuardModel, Mode, PeerModel, PolicyModel, RuleModel};
use tidegate_engine::{
    Ambiguity, Body, Guarding, Outcome, Peer, Reason, Request, TokenFault, TokenState, Truth, VerifiedToken,
    normal, reference,
};

pub use nearest::{Nearest, nearest};
pub use question::{AskedBody, AskedToken, InvalidQuestion, MeshPeer, Prepared, Question};
pub use trace::{Check, PartTrace, RuleTrace, Subject, trace};
pub(crate) use words::show_value;
pub use words::{describe_condition, describe_operation, describe_peer};

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happens.
    pub enforced: Verdict,
    /// What would happen, where Shadow rules or a Shadow Guard make a difference.
    pub shadow: Option<Verdict>,
    /// The Guards that cover the port, in the order of their ids.
    pub guards: Vec<(String, Mode)>,
    /// Every rule of the workload with what it demands, in the order of their ids.
    pub rules: Vec<RuleTrace>,
}

/// A decision in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request passes.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The rule that decides.
    pub rule: Option<String>,
}

/// Explains the decision on a request.
pub fn explain(model: &PolicyModel, request: &Request<'_>) -> Explanation {
    // Where some operation takes encoded slashes for data, that is the reading; a Deny counts with the other as well.
    let readings = reference::readings(model, request.path);
    let data = readings.as_ref().map(|(data, _)| Request { path: data, ..*request });
    let separated = readings.as_ref().map(|(_, separated)| Request { path: separated, ..*request });
    let request = data.as_ref().unwrap_or(request);
    let either = |rule: &RuleModel| {
        let traced = trace(model, rule, request);
        match &separated {
            Some(other) if rule.effect == Effect::Deny => {
                let other = trace(model, rule, other);
                let (holds, best) = (traced.holds.or(other.holds), traced.best.or(other.best));
                RuleTrace { holds, best, ..if traced.matches() { traced } else { other } }
            }
            _ => traced,
        }
    };
    let rules: Vec<RuleTrace> = sorted(model).into_iter().map(either).collect();
    let guards: Vec<&GuardModel> = guards(model, request.port);
    let (enforced, shadow) = settle(model, &guards, &rules, request);
    Explanation {
        enforced,
        shadow,
        guards: guards.iter().map(|guard| (guard.id.clone(), guard.mode)).collect(),
        rules,
    }
}

/// Rules in the order in which the first that matches decides.
fn sorted(model: &PolicyModel) -> Vec<&RuleModel> {
    let mut rules: Vec<&RuleModel> = model.rules.iter().map(|rule| &**rule).collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    rules
}

/// The Guards that cover a port.
fn guards(model: &PolicyModel, port: u16) -> Vec<&GuardModel> {
    let covers = |guard: &&GuardModel| guard.ports.as_ref().is_none_or(|ports| ports.contains(&port));
    let mut guards: Vec<&GuardModel> = model.guards.iter().filter(covers).collect();
    guards.sort_by(|a, b| a.id.cmp(&b.id));
    guards
}

fn settle(
    model: &PolicyModel,
    guards: &[&GuardModel],
    rules: &[RuleTrace],
    request: &Request<'_>,
) -> (Verdict, Option<Verdict>) {
    let guarding = if guards.iter().any(|guard| guard.mode == Mode::Enforce) {
        Guarding::Enforce
    } else if guards.is_empty() {
        Guarding::None
    } else {
        Guarding::Shadow
    };
    if guarding == Guarding::None {
        return (Verdict { outcome: Outcome::Allow, reason: Reason::NotGuarded, rule: None }, None);
    }
    if let Some(reason) = before_rules(guards, guarding, request) {
        let refusal = Verdict { outcome: Outcome::Deny, reason, rule: None };
        return guarded(guarding, refusal.clone(), refusal);
    }
    let refusal = || {
        if token_required(model, request) { Reason::TokenRequired } else { Reason::NoAllowMatched }
    };
    let by = |matches: fn(&RuleTrace) -> bool| {
        guarded(guarding, by_rules(rules, false, matches, refusal), by_rules(rules, true, matches, refusal))
    };
    let (enforced, shadow) = by(RuleTrace::matches);
    // "Until then nothing is allowed that some body would make refused."
    if request.body == Body::Unread && by(RuleTrace::matches_at_best).0.outcome != enforced.outcome {
        return (Verdict { reason: Reason::BodyUnread, rule: None, ..enforced }, shadow);
    }
    (enforced, shadow)
}

/// Applies the Guard's mode to a verdict of the enforced rules, beside the verdict with Shadow rules included.
fn guarded(guarding: Guarding, enforced: Verdict, candidate: Verdict) -> (Verdict, Option<Verdict>) {
    match guarding {
        // Shadow rules report what they would do, against what is enforced now.
        Guarding::Enforce => {
            let differs = candidate.outcome != enforced.outcome;
            (enforced, differs.then_some(candidate))
        }
        // A Guard in Shadow mode evaluates all that, the implied refusal included, and reports.
        Guarding::Shadow | Guarding::None => {
            let differs = candidate.outcome == Outcome::Deny;
            let passes = Verdict { outcome: Outcome::Allow, reason: Reason::GuardInShadow, rule: None };
            (passes, differs.then_some(candidate))
        }
    }
}

/// "The request is ambiguous → refused; any token is invalid or meant for somebody else → refused."
fn before_rules(guards: &[&GuardModel], guarding: Guarding, request: &Request<'_>) -> Option<Reason> {
    let ambiguity = if request.path.ambiguous() {
        Some(Ambiguity::Path)
    } else if request.host.is_none() {
        Some(Ambiguity::Host)
    } else if !normal::is_method(request.method) {
        Some(Ambiguity::Method)
    } else if request.headers.overrides {
        Some(Ambiguity::Override)
    } else if request.headers.duplicates {
        Some(Ambiguity::DuplicateHeader)
    } else {
        None
    };
    if let Some(ambiguity) = ambiguity {
        return Some(Reason::Ambiguous(ambiguity));
    }
    request.tokens.iter().find_map(|token| match token {
        TokenState::Absent => None,
        TokenState::Invalid(fault) => Some(Reason::TokenInvalid(*fault)),
        TokenState::Verified(token) if request.now >= ends(token, request) => {
            Some(Reason::TokenInvalid(TokenFault::Expired))
        }
        TokenState::Verified(token) if !is_meant(token, guards, guarding, request) => {
            Some(Reason::TokenInvalid(TokenFault::WrongAudience))
        }
        TokenState::Verified(_) => None,
    })
}

/// No issuer's skew is larger, in seconds.
const MAX_SKEW_S: i64 = 120;

fn ends(token: &VerifiedToken, request: &Request<'_>) -> i64 {
    token.expires_at.saturating_add(MAX_SKEW_S).saturating_add(i64::from(request.expiry_grace_s))
}

/// Whether any Guard that counts accepts any audience of the token.
fn is_meant(
    token: &VerifiedToken,
    guards: &[&GuardModel],
    guarding: Guarding,
    request: &Request<'_>,
) -> bool {
    guards.iter().filter(|guard| guarding == Guarding::Shadow || guard.mode == Mode::Enforce).any(|guard| {
        token.audiences.iter().any(|audience| match (&guard.audiences, request.host) {
            (Some(accepted), _) => accepted.contains(audience),
            (None, Some(host)) => audience == host || audience.strip_prefix("https://") == Some(host),
            (None, None) => false,
        })
    })
}

/// Deny wins; without any Allow everything is refused.
fn by_rules(
    rules: &[RuleTrace],
    with_shadow: bool,
    matches: fn(&RuleTrace) -> bool,
    refusal: impl Fn() -> Reason,
) -> Verdict {
    // An enforced rule comes before any Shadow rule of its effect.
    let first = |effect: Effect| {
        let of = |mode: Mode| {
            rules.iter().find(|rule| rule.effect == effect && rule.mode == mode && matches(rule))
        };
        of(Mode::Enforce).or_else(|| of(Mode::Shadow).filter(|_| with_shadow))
    };
    if let Some(deny) = first(Effect::Deny) {
        return Verdict { outcome: Outcome::Deny, reason: Reason::DeniedBy, rule: Some(deny.rule.clone()) };
    }
    match first(Effect::Allow) {
        Some(allow) => {
            Verdict { outcome: Outcome::Allow, reason: Reason::AllowedBy, rule: Some(allow.rule.clone()) }
        }
        None => Verdict { outcome: Outcome::Deny, reason: refusal(), rule: None },
    }
}

/// Whether some Allow would let this caller in, but only with a token, and it has sent none.
fn token_required(model: &PolicyModel, request: &Request<'_>) -> bool {
    let has_token = request.tokens.iter().any(|token| matches!(token, TokenState::Verified(_)));
    let demands = |rule: &RuleModel| {
        rule.effect == Effect::Allow
            && rule.mode == Mode::Enforce
            && rule
                .from
                .iter()
                .any(|from| !from.issuers.is_empty() && reference::peer_matches(&from.peer, request.peer))
    };
    !has_token && model.rules.iter().any(|rule| demands(rule))
}

/// A peer for people: its trust domain only where another one is demanded.
fn shown_peer(peer: Peer<'_>, demanded: &PeerModel) -> String {
    match peer {
        Peer::Absent => "no mesh peer".to_owned(),
        Peer::Mesh { trust_domain, namespace, service_account } => {
            let is_other = matches!(
                demanded,
                PeerModel::Mesh { trust_domain: demanded, .. } | PeerModel::AnyMesh { trust_domain: demanded }
                    if demanded != trust_domain
            );
            let domain =
                if is_other { format!(" of the trust domain {trust_domain}") } else { String::new() };
            words::safe(&format!("{namespace}/{service_account}{domain}"))
        }
    }
}

/// Whether a truth value makes a rule of this effect match.
fn counts(effect: Effect, truth: Truth) -> bool {
    match truth {
        Truth::True => true,
        Truth::Unknown => effect == Effect::Deny,
        Truth::False => false,
    }
}
