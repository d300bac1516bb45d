//! A candidate beside the policy that is enforced.

use proptest::prelude::*;
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::*;
use tidegate_engine::{
    Body, CandidateDifference, CandidateOutcome, Decision, Directories, Outcome, PolicySet, Reason,
    TokenFault, compare, decide, encode,
};

use crate::bodies::with_body;
use crate::examples::{closed, plain};
use crate::generate::{Sent, Token, policy, sent};
use crate::{cases, decoded, with_directories, with_request};

fn compared(enforced: &Decision, candidate: &PolicySet, sent: &Sent) -> Option<CandidateDifference> {
    with_request(sent, |request| compare(enforced, candidate, request))
}

/// What would be decided if what nobody reads for a candidate's sake had been read: the directory that is missing, and
/// the body.
fn with_everything(candidate: &PolicySet, sent: &Sent, listed: &[&str]) -> [Outcome; 3] {
    let directory = |name: &str, ids: &[&str], fresh_until| DirectoryModel {
        name: name.into(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        fresh_until,
    };
    let directories = Directories::decode(&encode_directories(&[
        directory("fresh", &["4711"], 2000),
        directory("missing", listed, 2000),
        directory("stale", &["4711"], 999),
    ]))
    .unwrap();
    with_directories(&directories, sent, |request| {
        let empty = decide(candidate, &tidegate_engine::Request { body: Body::Empty, ..*request });
        let read = with_body(candidate, sent, None, |read| {
            decide(candidate, &tidegate_engine::Request { body: read.body, ..*request })
        });
        [decide(candidate, request).outcome, empty.outcome, read.outcome]
    })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_told_of_a_candidate_is_what_it_decides_or_that_it_cannot_be_told(
        enforced in policy(), candidate in policy(), all in proptest::collection::vec(sent(), 1..8)
    ) {
        let (policy, candidate) = (decoded(&enforced), decoded(&candidate));
        for sent in &all {
            let before = with_request(sent, |request| decide(&policy, request));
            let alone = with_request(sent, |request| decide(&candidate, request));
            let outcome = match compared(&before, &candidate, sent) {
                None => {
                    prop_assert_eq!(alone.outcome, before.outcome, "{:?}", sent);
                    before.outcome
                }
                Some(difference) => {
                    prop_assert_eq!((difference.reason, difference.rule), (alone.reason, alone.rule));
                    match difference.outcome {
                        CandidateOutcome::Unknown => continue,
                        CandidateOutcome::Allow => Outcome::Allow,
                        CandidateOutcome::Deny => Outcome::Deny,
                    }
                }
            };
            prop_assert_eq!(outcome, alone.outcome);
            if alone.reason == Reason::BodyUnread {
                prop_assert_eq!(before.reason, Reason::BodyUnread, "only what both cannot tell is alike: {:?}", sent);
                continue;
            }
            // Whatever the directory and the body that nobody read say: it stays what it was told to be.
            for listed in [&[][..], &["4711"], &["4711", "etl", "true", ""]] {
                for decided in with_everything(&candidate, sent, listed) {
                    prop_assert_eq!(decided, outcome, "{:?} with {:?}: {:?}", alone, listed, sent);
                }
            }
        }
    }

    #[test]
    fn a_policy_is_no_candidate_for_itself(model in policy(), sent in sent()) {
        let mut model = model;
        model.directories.truncate(0);
        for rule in &mut model.rules {
            rule.from.iter_mut().for_each(|from| from.condition = Condition::True);
            rule.to = None;
        }
        let policy = decoded(&model);
        let decision = with_request(&sent, |request| decide(&policy, request));
        prop_assert_eq!(compared(&decision, &policy, &sent), None);
    }
}

fn closed_and_open() -> (PolicySet, PolicySet) {
    let open = PolicyModel { guards: vec![], ..closed() };
    (decoded(&closed()), PolicySet::decode(&encode(&open).unwrap()).unwrap())
}

#[test]
fn only_what_happens_counts() {
    let (closed, open) = closed_and_open();
    let sent = plain();
    let decision = |policy: &PolicySet| with_request(&sent, |request| decide(policy, request));
    let difference = |outcome, reason| Some(CandidateDifference { outcome, reason, rule: None });
    assert_eq!(
        compared(&decision(&closed), &open, &sent),
        difference(CandidateOutcome::Allow, Reason::NotGuarded)
    );
    assert_eq!(
        compared(&decision(&open), &closed, &sent),
        difference(CandidateOutcome::Deny, Reason::NoAllowMatched)
    );
    let elsewhere = Decision { reason: Reason::DeniedBy, ..decision(&closed) };
    assert_eq!(compared(&elsewhere, &closed, &sent), None, "refused for another reason is refused");
}

#[test]
fn a_token_that_was_not_checked_for_it_is_unknown_and_one_that_is_bad_is_not() {
    let (closed, open) = closed_and_open();
    let sent = plain();
    let open = with_request(&sent, |request| decide(&open, request));
    for fault in TokenFault::ALL {
        let told = with_request(&sent, |request| {
            let tokens = [tidegate_engine::TokenState::Invalid(fault)];
            compare(&open, &closed, &tidegate_engine::Request { tokens: &tokens, ..*request })
        });
        let unread =
            [TokenFault::KeyUnknown, TokenFault::KeysStale, TokenFault::CheckBudget].contains(&fault);
        let expected = if unread { CandidateOutcome::Unknown } else { CandidateOutcome::Deny };
        assert_eq!(told.map(|told| told.outcome), Some(expected), "{fault:?}");
        // Where the policy in force says the same of the token, both refuse.
        let alike = Decision { outcome: Outcome::Deny, reason: Reason::TokenInvalid(fault), ..open };
        let told = with_request(&sent, |request| {
            let tokens = [tidegate_engine::TokenState::Invalid(fault)];
            compare(&alike, &closed, &tidegate_engine::Request { tokens: &tokens, ..*request })
        });
        assert_eq!(told, None, "{fault:?}");
    }
    assert!(!sent.tokens.iter().any(|token| matches!(token, Token::Invalid)));
}
