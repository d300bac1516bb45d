//! The decision.
//!
//! Structure, outermost first: no Guard covers the port → allowed; the request is ambiguous → refused; any token is
//! invalid or meant for somebody else → refused; any Deny rule matches → refused; any Allow rule matches → allowed; else
//! refused. A rule matches iff *any* of its froms matches and *any* of its operations matches. A from matches iff its
//! peer *and* all its tokens *and* its condition hold. An operation matches iff its port *and* method *and* host *and*
//! path hold.
//!
//! Where some operation says that encoded slashes are data, a path that has some is ambiguous no more: only such an
//! operation allows it, and a Deny refuses it if it matches with either meaning.

use crate::condition::Listing;
use crate::decision::{Decision, Guarding, ShadowDifference, enforce};
use crate::index;
use crate::layout::code;
use crate::normal;
use crate::policy::PolicySet;
use crate::reason::{Outcome, Reason, TokenFault};
use crate::request::{Body, Peer, Request, TokenState, VerifiedToken};
use crate::search::{Search, lookup};
use crate::truth::Truth;

/// Decides a request. Total: whatever the request is, there is an answer.
pub fn decide(policy: &PolicySet, request: &Request<'_>) -> Decision {
    let guarding = policy.guarding(request.port);
    if guarding == Guarding::None {
        return Decision {
            outcome: Outcome::Allow,
            reason: Reason::NotGuarded,
            rule: None,
            degraded: false,
            awaits_body: false,
            shadow: None,
        };
    }
    if policy.keeps_slashes()
        && let Some((data, separated)) = request.path.readings()
    {
        let separated = Request { path: &separated, ..*request };
        return decide_as(policy, &Request { path: &data, ..*request }, guarding, Some(&separated));
    }
    decide_as(policy, request, guarding, None)
}

/// Decides a request while somebody has suspended the Guards: what they refuse passes, and is reported.
///
/// What is revoked is asked about first, and by itself: a request with a revoked token, and one that a Deny which takes
/// something back ([`crate::model::RuleModel::revokes`]) is about, is refused whatever else is right or wrong with it.
/// `revoking`: for each issuer of the policy, whether it has taken back any token. A token of such an issuer that must not be
/// accepted for another reason may be one of those, and is refused too.
pub fn decide_suspended(policy: &PolicySet, request: &Request<'_>, revoking: &[bool]) -> Decision {
    if policy.guarding(request.port) == Guarding::Enforce {
        if let Some(refused) = token_revoked(request, revoking) {
            return refused;
        }
        let search = Search::new(policy, request, Listing::Lenient);
        if let Some(rule) = policy.revoking().iter().find(|rule| search.takes_back(**rule)) {
            return Decision::revoked(Reason::DeniedBy, Some(*rule));
        }
    }
    decide(policy, request).unless_suspended()
}

/// The answer to a request that has a revoked token, or one that may be.
pub(crate) fn token_revoked(request: &Request<'_>, revoking: &[bool]) -> Option<Decision> {
    request.tokens.iter().enumerate().find_map(|(issuer, token)| {
        let TokenState::Invalid(fault) = token else { return None };
        let may_be_revoked = *fault == TokenFault::Revoked || revoking.get(issuer) == Some(&true);
        may_be_revoked.then(|| Decision::revoked(Reason::TokenInvalid(*fault), None))
    })
}

/// Decides a request with one reading of its path. A Deny matches as well if it does with the other.
#[inline]
fn decide_as(
    policy: &PolicySet,
    request: &Request<'_>,
    guarding: Guarding,
    other: Option<&Request<'_>>,
) -> Decision {
    if let Some(reason) =
        refused_before_rules(request, |audiences| policy.meant_for(audiences, request.port, request.host))
    {
        let refusal = ShadowDifference { outcome: Outcome::Deny, reason, rule: None };
        return enforce(guarding, refusal, refusal);
    }
    let search = Search::new(policy, request, Listing::Lenient);
    let other = other.map(|other| Search::new(policy, other, Listing::Lenient));
    let matches = |search: Search<'_, '_>, other: Option<Search<'_, '_>>| match other {
        Some(other) => search.matches().denied_as(&other.matches()),
        None => search.matches(),
    };
    let decision = matches(search, other).settle(guarding, || token_required(policy, request));
    let decision = if policy.may_degrade() { with_degradation(policy, request, decision) } else { decision };
    if policy.body_fields().is_empty() || request.body != Body::Unread {
        return decision;
    }
    let best = matches(search.best(), other.map(Search::best)).settle(guarding, || false);
    with_body(decision, best)
}

/// Tells whether a body can make a difference. In `decision` it turned out badly for the request, in `best` well.
pub(crate) fn with_body(decision: Decision, best: Decision) -> Decision {
    let outcome = |shadow: Option<ShadowDifference>| shadow.map(|shadow| shadow.outcome);
    let awaits_body = decision.outcome != best.outcome || outcome(decision.shadow) != outcome(best.shadow);
    if decision.outcome == best.outcome {
        return Decision { awaits_body, ..decision };
    }
    Decision { awaits_body, reason: Reason::BodyUnread, rule: None, ..decision }
}

/// The fields of the body, by position in [`PolicySet::body_fields`], on which the decision depends.
pub fn wanted_fields(policy: &PolicySet, request: &Request<'_>) -> Vec<u16> {
    let mut wanted = Vec::new();
    Search::new(policy, request, Listing::Lenient).wanted_fields(&mut wanted);
    wanted
}

/// Tells whether the Allow would not have matched with the answers that its directories give.
#[cold]
fn with_degradation(policy: &PolicySet, request: &Request<'_>, decision: Decision) -> Decision {
    let degraded = decision.outcome == Outcome::Allow
        && decision
            .rule
            .is_some_and(|rule| Search::new(policy, request, Listing::Strict).rule(rule) != Truth::True);
    Decision { degraded, ..decision }
}

/// What refuses a request whatever the rules say. `meant_for` tells whether a token with these audiences is for us.
pub(crate) fn refused_before_rules(
    request: &Request<'_>,
    meant_for: impl Fn(&[String]) -> bool,
) -> Option<Reason> {
    if let Some(ambiguity) = normal::ambiguity(request) {
        return Some(Reason::Ambiguous(ambiguity));
    }
    request.tokens.iter().find_map(|token| match token {
        TokenState::Absent => None,
        TokenState::Invalid(fault) => Some(Reason::TokenInvalid(*fault)),
        TokenState::Verified(token) if request.now >= counts_until(token, request) => {
            Some(Reason::TokenInvalid(TokenFault::Expired))
        }
        TokenState::Verified(token) if !meant_for(&token.audiences) => {
            Some(Reason::TokenInvalid(TokenFault::WrongAudience))
        }
        TokenState::Verified(_) => None,
    })
}

/// When a token counts no more, Unix seconds.
fn counts_until(token: &VerifiedToken, request: &Request<'_>) -> i64 {
    token.expires_at.saturating_add(MAX_SKEW).saturating_add(i64::from(request.expiry_grace_s))
}

/// No issuer's skew may be larger, in seconds: a second net under the identity layer's own check.
const MAX_SKEW: i64 = 120;

/// Whether some Allow would let this caller in, but only with a token, and it has sent none.
fn token_required(policy: &PolicySet, request: &Request<'_>) -> bool {
    if request.tokens.iter().any(|token| matches!(token, TokenState::Verified(_))) {
        return false;
    }
    let subjects = match request.peer {
        Peer::Absent => [index::WITHOUT_PEER, index::ANYONE, index::ANYONE, index::ANYONE],
        Peer::Mesh { trust_domain, namespace, service_account } => {
            let namespace = index::namespace_part(namespace);
            [
                index::account_part(namespace, service_account),
                namespace,
                index::any_mesh_part(trust_domain),
                index::ANYONE,
            ]
        }
    };
    let search = Search::new(policy, request, Listing::Lenient);
    subjects.into_iter().any(|subject| {
        let mut found = false;
        lookup(policy, index::token_required(subject), |target| {
            found |= target & 3 == code::TARGET_TOKEN_REQUIRED && search.wants_token(target >> 2);
        });
        found
    })
}
