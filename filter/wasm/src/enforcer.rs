//! What is enforced, and the decision on one request.

use std::rc::Rc;

use tidegate_engine::{Decision, Outcome, Peer, Reason, Request, TokenState, decide, normal};
use tidegate_identity::{Authenticator, CacheLimits, MissingIssuer, TokenOutcome, VerifySignature};

use crate::bundle::Installed;
use crate::reply::{Refusal, Telling, decision_id, refuse};
use crate::request::{Header, Received, Unreadable, header};

/// Verified tokens kept per VM: so many, and so many bytes.
const CACHE: CacheLimits = CacheLimits { max_entries: 1024, max_bytes: 4 << 20 };

/// An installed Bundle with what deciding needs besides.
#[derive(Debug)]
pub struct Enforcer {
    installed: Installed,
    authenticator: Option<Authenticator>,
    outcomes: Vec<TokenOutcome>,
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was decided.
    pub decision: Decision,
    /// What to send where the request is refused.
    pub refusal: Option<Refusal>,
    /// Headers to remove before the request goes on: credentials that are not to be forwarded.
    pub remove: Vec<String>,
}

// === impl Enforcer ===

impl Enforcer {
    /// Enforces a Bundle.
    ///
    /// # Errors
    /// When rules name an issuer that the keys lack.
    pub fn new(installed: Installed) -> Result<Self, MissingIssuer> {
        let authenticator = match (&installed.rules, &installed.keys) {
            (Some(rules), Some(keys)) => Some(Authenticator::new((**keys).clone(), rules.issuers(), CACHE)?),
            _ => None,
        };
        Ok(Self { installed, authenticator, outcomes: Vec::new() })
    }

    /// Enforces another Bundle. Verified tokens stay verified where their issuer has not changed.
    ///
    /// # Errors
    /// When rules name an issuer that the keys lack; nothing has changed then.
    pub fn update(&mut self, installed: Installed) -> Result<(), MissingIssuer> {
        match (&mut self.authenticator, &installed.rules, &installed.keys) {
            (Some(authenticator), Some(rules), Some(keys)) => {
                authenticator.replace(Some((**keys).clone()), rules.issuers())?;
                self.installed = installed;
            }
            _ => *self = Self::new(installed)?,
        }
        Ok(())
    }

    /// What is enforced.
    pub fn installed(&self) -> &Installed {
        &self.installed
    }

    /// Whether a decision depends on the port.
    pub fn needs_port(&self) -> bool {
        self.installed.rules.as_ref().is_some_and(|rules| rules.needs_port())
    }

    /// Decides a request with these headers of it. `now` is in Unix seconds; `random` makes the decision's id where one is needed.
    ///
    /// # Errors
    /// When the request cannot be read; it is then to be refused.
    pub fn decide(
        &mut self,
        received: &Received,
        headers: &[Header<'_>],
        now: i64,
        verifier: &dyn VerifySignature,
        random: impl FnOnce() -> u64,
    ) -> Result<Answer, Unreadable> {
        let passes = |reason| Answer {
            decision: Decision { outcome: Outcome::Allow, reason, rule: None, shadow: None },
            refusal: None,
            remove: Vec::new(),
        };
        // The signed statement that the workload is not guarded; `Assembly::install` has compared it with the rules.
        let Some(rules) =
            self.installed.rules.as_ref().map(Rc::clone).filter(|_| self.installed.manifest.guarded)
        else {
            return Ok(passes(Reason::NotGuarded));
        };
        let port = match received.port {
            Some(port) => port,
            None if rules.needs_port() => return Err(Unreadable::NoPort),
            None => 0,
        };
        self.outcomes.clear();
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.authenticate(headers, now, verifier, &mut self.outcomes);
        }
        let tokens: Vec<TokenState<'_>> = self.outcomes.iter().map(TokenOutcome::state).collect();
        let path = normal::path(header(headers, b":path"));
        let host = normal::host(header(headers, b":authority"));
        let facts = normal::header_facts(headers.iter().copied());
        let request = Request {
            now,
            port,
            method: header(headers, b":method"),
            host: host.as_deref(),
            path: &path,
            headers: facts,
            peer: received.peer(),
            tokens: &tokens,
            directories: &self.installed.directory,
        };
        let decision = decide(&rules, &request);
        if decision.outcome == Outcome::Allow {
            let remove = self
                .authenticator
                .iter()
                .flat_map(|authenticator| authenticator.withheld_headers().map(str::to_owned))
                .collect();
            return Ok(Answer { decision, refusal: None, remove });
        }
        let caller_is_verified = matches!(request.peer, Peer::Mesh { .. })
            || tokens.iter().any(|token| matches!(token, TokenState::Verified(_)));
        let telling = Telling {
            reason: decision.reason,
            rule: decision.rule.and_then(|rule| rules.rule(rule)),
            caller_is_verified,
            grpc: facts.grpc,
        };
        Ok(Answer { decision, refusal: Some(refuse(telling, decision_id(random()))), remove: Vec::new() })
    }
}
