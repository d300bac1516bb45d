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
use crate::layout::code;
use crate::packed::Packed;
use crate::policy::PolicySet;
use crate::reason::{Outcome, Reason, TokenFault};
use crate::request::Request;
use crate::search::Search;
use crate::truth::Truth;

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
    let outcome = if cannot_tell(enforced, candidate, request, reason, rule) {
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
fn cannot_tell(
    enforced: &Decision,
    candidate: &PolicySet,
    request: &Request<'_>,
    reason: Reason,
    rule: Option<RuleIx>,
) -> bool {
    let readings = if candidate.keeps_slashes() { request.path.readings() } else { None };
    let request = &match &readings {
        Some((data, _)) => Request { path: data, ..*request },
        None => *request,
    };
    let lacks_directory = || candidate.directories().any(|name| !request.directories.has(name));
    let search = || Search::new(candidate, request, Listing::Strict);
    match reason {
        // What the policy in force cannot tell either is refused by both.
        Reason::BodyUnread
        | Reason::TokenInvalid(TokenFault::KeyUnknown | TokenFault::KeysStale | TokenFault::CheckBudget) => {
            reason != enforced.reason
        }
        // The rule does not match for certain: a Deny on what cannot be told, an Allow that may do without its directory.
        Reason::DeniedBy | Reason::AllowedBy => {
            lacks_directory() && rule.is_some_and(|rule| search().rule(rule) != Truth::True)
        }
        Reason::NoAllowMatched => {
            let mut may_allow = false;
            if lacks_directory() {
                let search = search();
                search.each_candidate(|found| {
                    let [_, head, _, _] = candidate.packed(Packed::Rules, found.rule);
                    let [flags, _, _] = candidate.packed(Packed::Heads, head);
                    may_allow |= flags & (code::RULE_DENY | code::RULE_SHADOW) == 0
                        && search.rule(RuleIx(found.rule)) == Truth::Unknown;
                });
            }
            may_allow
        }
        _ => false,
    }
}
