//! A candidate: another whole policy, evaluated beside the one that is enforced, and compared with what that decided.
//!
//! What counts is what happens to the request. A candidate that does the same for another reason, or by another rule, is
//! no difference.
//!
//! Nothing is read for a candidate's sake: no body, no key, no directory. Where its decision depends on one that is not
//! there, what it would do is [`CandidateOutcome::Unknown`]; a guess is never told as an answer.
//!
//! INVARIANT: this takes a decision and changes nothing about it.

use crate::condition::Listing;
use crate::decide::decide;
use crate::decision::{Decision, RuleIx};
use crate::policy::PolicySet;
use crate::reason::{Outcome, Reason, TokenFault};
use crate::request::Request;
use crate::search::Search;

/// What a candidate would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateOutcome {
    /// Let the request go on.
    Allow,
    /// Refuse it.
    Deny,
    /// It depends on a body, a key or a directory that was not read.
    Unknown,
}

/// What a candidate would do otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CandidateDifference {
    /// What it would do.
    pub outcome: CandidateOutcome,
    /// Why; where that is unknown, what it would say as things are.
    pub reason: Reason,
    /// The candidate's rule that would decide.
    pub rule: Option<RuleIx>,
}

/// Compares what was decided with what a candidate says of the same request, with the candidate's own tokens and
/// directories. `None`: it would do the same.
pub fn compare(
    enforced: &Decision,
    candidate: &PolicySet,
    request: &Request<'_>,
) -> Option<CandidateDifference> {
    let Decision { outcome, reason, rule, .. } = decide(candidate, request);
    let outcome = if cannot_tell(enforced, candidate, request, reason) {
        CandidateOutcome::Unknown
    } else if outcome == enforced.outcome {
        return None;
    } else {
        match outcome {
            Outcome::Allow => CandidateOutcome::Allow,
            Outcome::Deny => CandidateOutcome::Deny,
        }
    };
    Some(CandidateDifference { outcome, reason, rule })
}

/// Whether it depends on something that nobody has read.
fn cannot_tell(enforced: &Decision, candidate: &PolicySet, request: &Request<'_>, reason: Reason) -> bool {
    match reason {
        // What the policy in force cannot tell either is refused by both.
        Reason::BodyUnread
        | Reason::TokenInvalid(TokenFault::KeyUnknown | TokenFault::KeysStale | TokenFault::CheckBudget) => {
            reason != enforced.reason
        }
        Reason::DeniedBy | Reason::AllowedBy | Reason::NoAllowMatched => {
            candidate.directories().any(|name| !request.directories.has(name)) && is_open(candidate, request)
        }
        _ => false,
    }
}

/// Whether a request would be allowed if all that cannot be told turned out well, and refused if it turned out badly.
fn is_open(policy: &PolicySet, request: &Request<'_>) -> bool {
    let readings = if policy.keeps_slashes() { request.path.readings() } else { None };
    let outcome = |best: bool| {
        let matches = |request: &Request<'_>| {
            let listing = if best { Listing::Lenient } else { Listing::Strict };
            let search = Search::new(policy, request, listing);
            if best { search.generous() } else { search }.matches()
        };
        let matches = match &readings {
            Some((data, separated)) => matches(&Request { path: data, ..*request })
                .denied_as(&matches(&Request { path: separated, ..*request })),
            None => matches(request),
        };
        matches.deny.is_none() && matches.allow.is_some()
    };
    outcome(true) != outcome(false)
}
