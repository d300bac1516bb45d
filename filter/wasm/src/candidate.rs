//! A candidate: a whole rule set beside the one that is enforced, and compared with what that decided.
//!
//! It has everything of its own: tokens are verified for it a second time, with its own issuers, memory of tokens and
//! budget. What it would need besides, nobody reads for it: no body, no key, no directory is asked for.
//!
//! INVARIANT: nothing here answers, holds, changes or charges a request. A candidate that cannot be used is not evaluated.

use std::cell::RefCell;
use std::rc::Rc;

use tidegate_engine::body::FieldValue;
use tidegate_engine::{
    Body, CandidateDifference, CandidateOutcome, Decision, Directories, Outcome, PolicySet, Request,
    RuleView, TokenState, compare, normal, wanted_fields,
};
use tidegate_identity::{At, Authenticator, CacheLimits, MissingIssuer, TokenOutcome};

use crate::budget::Budget;
use crate::bundle::Decoded;
use crate::downstream::Downstream;
use crate::enforcer::value_of;
use crate::host::Host;
use crate::request::{Content, Received, Unreadable, header};
use crate::signature::Signatures;

/// Verified tokens kept for it: so many, and so many bytes.
const CACHE: CacheLimits = CacheLimits { max_entries: 512, max_bytes: 2 << 20 };

/// What is evaluated beside what is enforced.
#[derive(Debug)]
pub struct Candidate {
    rules: Rc<PolicySet>,
    directory: Rc<Directories>,
    authenticator: Option<Authenticator>,
    budget: RefCell<Budget>,
    outcomes: Vec<TokenOutcome>,
}

// === impl Candidate ===

impl Candidate {
    /// Puts another one in the place of the last, of which known tokens stay.
    ///
    /// # Errors
    /// When its rules name an issuer that its keys lack; there is none then.
    pub fn replace(
        place: &mut Option<Box<Self>>,
        decoded: Option<&Decoded>,
        now_ms: u64,
    ) -> Result<(), MissingIssuer> {
        let last = place.take();
        let Some(Decoded { rules: Some(rules), keys, directory }) = decoded else { return Ok(()) };
        let (last, budget) = match last {
            Some(last) => (last.authenticator, last.budget),
            None => (None, RefCell::new(Budget::new(now_ms))),
        };
        let authenticator = match (keys, last) {
            (None, _) => match rules.issuers().next() {
                Some((name, _)) => return Err(MissingIssuer { name: name.to_owned() }),
                None => None,
            },
            (Some(keys), Some(mut last)) => {
                last.replace(Some((**keys).clone()), rules.issuers())?;
                Some(last)
            }
            (Some(keys), None) => Some(Authenticator::new((**keys).clone(), rules.issuers(), CACHE)?),
        };
        let (rules, directory) = (Rc::clone(rules), Rc::clone(directory));
        *place = Some(Box::new(Self { rules, directory, authenticator, budget, outcomes: Vec::new() }));
        Ok(())
    }

    /// A rule of it.
    pub fn rule(&self, difference: &CandidateDifference) -> Option<RuleView<'_>> {
        self.rules.rule(difference.rule?)
    }

    /// What it would have done otherwise. `now`: Unix seconds and milliseconds.
    ///
    /// # Errors
    /// When the request cannot be read.
    pub fn compare(
        &mut self,
        enforced: &Decision,
        received: &Received,
        host: &dyn Host,
        signatures: Signatures<'_>,
        now: (i64, u64),
    ) -> Result<Option<CandidateDifference>, Unreadable> {
        let headers = received.headers(None)?;
        let rules = &*self.rules;
        let downstream = Downstream::new(host, received, signatures, Some(&self.budget), now.1);
        let port = if rules.needs_port() { downstream.port().ok_or(Unreadable::NoPort)? } else { 0 };
        self.outcomes.clear();
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.authenticate(&headers, At::now(now.0), &downstream, &mut self.outcomes);
        }
        let tokens: Vec<TokenState<'_>> = self.outcomes.iter().map(TokenOutcome::state).collect();
        let path = normal::path(header(&headers, b":path"));
        let named = normal::host(header(&headers, b":authority"));
        let mut request = Request {
            now: now.0,
            expiry_grace_s: 0,
            port,
            method: header(&headers, b":method"),
            host: named.as_deref(),
            path: &path,
            query: normal::query(header(&headers, b":path")),
            headers: normal::header_facts(headers.iter().copied()),
            fields: &headers,
            body: Body::Unread,
            peer: received.peer(),
            tokens: &tokens,
            directories: &self.directory,
        };
        let fields = rules.body_fields();
        let values: Vec<FieldValue>;
        match received.body() {
            Content::Unread => {}
            Content::Empty => request.body = Body::Empty,
            Content::Fields(found) if !fields.is_empty() => {
                values = fields.iter().map(|field| value_of(field, found)).collect();
                // What the rules in force did not ask of the body is not known, and then the candidate has read nothing.
                let wanted = wanted_fields(rules, &request);
                let is_known = |at: &u16| {
                    values.get(usize::from(*at)).is_some_and(|value| *value != FieldValue::Unknown)
                };
                if wanted.iter().all(is_known) {
                    request.body = Body::Read { fields, values: &values };
                }
            }
            Content::Fields(_) => {}
        }
        let difference = compare(enforced, rules, &request);
        let allows = match &difference {
            None => enforced.outcome == Outcome::Allow,
            Some(difference) => difference.outcome == CandidateOutcome::Allow,
        };
        // Good tokens are free, as they are for the rules in force.
        if allows && downstream.checks() > 0 {
            downstream.allowed();
        }
        Ok(difference)
    }
}
