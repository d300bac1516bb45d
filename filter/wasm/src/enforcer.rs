//! What is enforced, and the decision on one request.

use std::rc::Rc;

use tidegate_engine::body::{FieldValue, Format};
use tidegate_engine::model::{Audit, BodyField};
use tidegate_engine::{
    Body, CandidateDifference, Decision, Guarding, Outcome, Peer, Reason, Request, TokenState, decide,
    decide_suspended, normal, unlisted, until, wanted_fields,
};
use tidegate_identity::{At, Authenticator, CacheLimits, MissingIssuer, TokenOutcome, Usage};
use tidegate_proto::v1 as pb;

use crate::alike::{self, Alike, Look, Standing};
use crate::bundle::{Installed, MAX_CLOCK_DIFFERENCE};
use crate::downstream::{Downstream, Unsettled};
use crate::leases::Terms;
use crate::lookups::Question;
use crate::reply::{Refusal, Telling, decision_id, refuse};
use crate::request::{Content, Header, Received, Unreadable, header};

mod record;

pub use record::{Made, candidate_told, undecided};

/// Verified tokens kept per VM: so many, and so many bytes.
const CACHE: CacheLimits = CacheLimits { max_entries: 1024, max_bytes: 4 << 20 };

/// An installed Bundle with what deciding needs besides.
#[derive(Debug)]
pub struct Enforcer {
    installed: Installed,
    authenticator: Option<Authenticator>,
    /// Per issuer of the rules: for how many seconds after `exp` a token is accepted because clocks differ.
    skews: Vec<i64>,
    /// Per issuer of the rules: when its keys and itself cease to count.
    ends: Vec<[i64; 2]>,
    /// Per issuer of the rules: whether any token of it is revoked.
    revoking: Vec<bool>,
    outcomes: Vec<TokenOutcome>,
    /// What was decided of requests, where it stands for others; `None`: it never does.
    alike: Option<Alike>,
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was decided.
    pub decision: Decision,
    /// What to send where the request is refused.
    pub refusal: Option<Refusal>,
    /// What is recorded of the request where it is allowed.
    pub audit: Audit,
    /// Headers to remove before the request goes on: credentials that are not to be forwarded.
    pub remove: Vec<String>,
    /// What bounds a request that is allowed.
    pub terms: Terms,
    /// What a request that is refused would need to be known, with everything else right.
    pub question: Option<Question>,
    /// What the body decides: how to read it, and the fields to look for, by position in the policy's.
    pub awaits: Option<(Option<Format>, Vec<u16>)>,
    /// What was charged for checking signatures, where the request may yet be allowed.
    pub unsettled: Option<Unsettled>,
    /// Tokens were accepted without checking a signature: they are known.
    pub remembered: bool,
    /// What the candidate would have done otherwise. Only told of what is concluded.
    pub candidate: Option<CandidateDifference>,
    /// It is allowed only because the Guard is suspended.
    pub suspended: bool,
    /// It is refused, and nobody has proven to have sent it: no mesh peer, no verified token.
    pub is_stranger: bool,
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
        Ok(Self {
            skews: skews(&installed),
            ends: ends(&installed),
            revoking: revoking(&installed),
            alike: alike(&installed, authenticator.as_ref()),
            installed,
            authenticator,
            outcomes: Vec::new(),
        })
    }

    /// Enforces another Bundle. Verified tokens stay verified where their issuer has not changed.
    ///
    /// # Errors
    /// When rules name an issuer that the keys lack; nothing has changed then.
    pub fn update(&mut self, installed: Installed) -> Result<(), MissingIssuer> {
        match (&mut self.authenticator, &installed.rules, &installed.keys) {
            (Some(authenticator), Some(rules), Some(keys)) => {
                authenticator.replace(Some((**keys).clone()), rules.issuers())?;
                self.skews = skews(&installed);
                self.ends = ends(&installed);
                self.revoking = revoking(&installed);
                self.alike = alike(&installed, Some(authenticator));
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

    /// The rule that decided, as `namespace/name`.
    pub fn rule_name(&self, decision: &Decision) -> Option<&str> {
        let rules = self.installed.rules.as_ref()?;
        rules.rule(decision.rule?).map(|rule| rule.id)
    }

    /// The fields of bodies that rules read.
    pub fn body_fields(&self) -> &[BodyField] {
        self.installed.rules.as_ref().map_or(&[], |rules| rules.body_fields())
    }

    /// How much each issuer's tokens are used, by its name.
    pub fn usage(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.authenticator.iter().flat_map(Authenticator::usage)
    }

    /// Which keys had signed what was verified since this was asked last, or `all` that ever had.
    pub fn take_key_uses(&mut self, all: bool) -> Vec<pb::KeyUse> {
        let mut uses = Vec::new();
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.tell_key_usage(all, |issuer, key_id, usage| {
                uses.push(pb::KeyUse {
                    issuer: issuer.to_owned(),
                    key_id: key_id.unwrap_or_default().to_owned(),
                    verified: usage.verified,
                    last_verified_at: usage.last_verified_at,
                });
            });
        }
        uses
    }

    /// Until when the keys of this issuer may be used, in Unix seconds.
    pub fn keys_valid_until(&self, issuer: &str) -> i64 {
        let keys = self.installed.keys.iter().flat_map(|keys| keys.issuers());
        keys.filter(|known| known.name() == issuer).map(|known| known.valid_until()).next().unwrap_or(0)
    }

    /// Where to look for a request like this one, where what is decided of one may stand for others.
    pub fn look(&mut self, received: &Received) -> Option<Look> {
        self.alike.as_mut()?.look(received)
    }

    /// What was decided of a request like this one, where that still stands at this second. Its tokens are
    /// counted as used.
    pub fn recall(&mut self, look: Look, received: &Received, now: i64) -> Option<Standing> {
        let kept = self.alike.as_mut()?.find(look, received, now)?;
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.count_again(&kept.uses, now);
        }
        Some(kept.standing)
    }

    /// Keeps what has just been decided of this request, at this second, where it may stand for others.
    pub fn keep(&mut self, look: Look, received: &Received, answer: &Answer, now: i64) {
        if let Some(alike) = &mut self.alike {
            let uses = self.authenticator.as_ref().map(Authenticator::verified).unwrap_or_default();
            alike.keep(look, received, answer, &self.outcomes, uses, now);
        }
    }

    /// Nothing that was decided stands for others any more.
    #[cfg(test)]
    pub fn forget_alike(&mut self) {
        self.alike = self.alike.take().map(|_| Alike::default());
    }

    /// How often what was decided of a request stood for another one.
    #[cfg(test)]
    pub fn known(&self) -> u32 {
        self.alike.as_ref().map_or(0, |alike| alike.known)
    }

    /// Decides a request with these headers of it. `random` makes the decision's id where one is needed.
    ///
    /// # Errors
    /// When the request cannot be read; it is then to be refused.
    // Once in the module, not in every caller.
    #[inline(never)]
    pub fn decide(
        &mut self,
        received: &Received,
        headers: &[Header<'_>],
        at: At,
        downstream: &Downstream<'_>,
        random: impl FnOnce() -> u64,
    ) -> Result<Answer, Unreadable> {
        // What was found in an earlier request is never said of this one.
        self.outcomes.clear();
        // The signed statement that the workload is not guarded; `Assembly::install` has compared it with the rules.
        let Some(rules) =
            self.installed.rules.as_ref().map(Rc::clone).filter(|_| self.installed.manifest.guarded)
        else {
            return Ok(Answer::without_tokens(Outcome::Allow, Reason::NotGuarded, None));
        };
        if at.now < self.installed.manifest.issued_at.saturating_sub(MAX_CLOCK_DIFFERENCE) {
            let telling =
                Telling { reason: Reason::ClockWrong, rule: None, caller_is_verified: false, grpc: false };
            let refusal = refuse(telling, decision_id(random()));
            return Ok(Answer::without_tokens(Outcome::Deny, Reason::ClockWrong, Some(refusal)));
        }
        let port = if rules.needs_port() { downstream.port().ok_or(Unreadable::NoPort)? } else { 0 };
        if let Some(authenticator) = &mut self.authenticator {
            authenticator.authenticate(headers, at, downstream, &mut self.outcomes);
        }
        let tokens: Vec<TokenState<'_>> = self.outcomes.iter().map(TokenOutcome::state).collect();
        let path = normal::path(header(headers, b":path"));
        let host = normal::host(header(headers, b":authority"));
        let facts = normal::header_facts(headers.iter().copied());
        let values: Vec<FieldValue>;
        let body = match received.body() {
            Content::Unread => Body::Unread,
            Content::Empty => Body::Empty,
            Content::Fields(found) => {
                let fields = rules.body_fields();
                values = fields.iter().map(|field| value_of(field, found)).collect();
                Body::Read { fields, values: &values }
            }
        };
        let request = Request {
            now: at.now,
            expiry_grace_s: at.expiry_grace_s,
            port,
            method: header(headers, b":method"),
            host: host.as_deref(),
            path: &path,
            query: normal::query(header(headers, b":path")),
            headers: facts,
            fields: headers,
            body,
            peer: received.peer(),
            tokens: &tokens,
            directories: &self.installed.directory,
        };
        let suspended_until = self.installed.manifest.suspended_until;
        let is_suspended = at.now < suspended_until;
        let decision = if is_suspended {
            decide_suspended(&rules, &request, &self.revoking)
        } else {
            decide(&rules, &request)
        };
        // Where a Guard enforces, only a suspension makes it report.
        let suspended = decision.reason == Reason::GuardInShadow && rules.guarding(port) == Guarding::Enforce;
        let rule = decision.rule.and_then(|rule| rules.rule(rule));
        let verified = tokens.iter().any(|token| matches!(token, TokenState::Verified(_)));
        let awaits = decision.reason == Reason::BodyUnread;
        let remove = || {
            let withheld = self.authenticator.iter().flat_map(Authenticator::withheld_headers);
            withheld.map(str::to_owned).collect()
        };
        if decision.outcome == Outcome::Allow {
            if verified && !tokens.iter().any(|token| matches!(token, TokenState::Invalid(_))) {
                downstream.allowed();
            }
            return Ok(Answer {
                decision,
                refusal: None,
                audit: if suspended { Audit::Full } else { rule.map_or(Audit::Sampled, |rule| rule.audit) },
                remove: remove(),
                terms: Terms {
                    expires_at: expires_at(&tokens, &self.skews),
                    grace_s: rule.map_or(0, |rule| rule.lease.expiry_grace_s()),
                    again_at: self
                        .again_at(&tokens, at.now)
                        .min(until(&rules, &request, &decision))
                        .min(if is_suspended { suspended_until } else { i64::MAX }),
                },
                question: None,
                awaits: None,
                unsettled: None,
                remembered: verified && downstream.checks() == 0,
                candidate: None,
                suspended,
                is_stranger: false,
            });
        }
        let question = match decision.reason {
            Reason::TokenInvalid(_) => {
                let wanted = self.authenticator.as_ref().and_then(Authenticator::wanted_key);
                wanted.map(|wanted| Question::Key {
                    issuer: wanted.issuer.to_owned(),
                    key_id: wanted.key_id.unwrap_or_default().to_owned(),
                })
            }
            Reason::NoAllowMatched => unlisted(&rules, &request).map(|missing| Question::Id {
                directory: missing.directory.to_owned(),
                id: missing.id.to_owned(),
            }),
            _ => None,
        };
        let caller_is_verified = matches!(request.peer, Peer::Mesh { .. }) || verified;
        let telling = Telling { reason: decision.reason, rule, caller_is_verified, grpc: facts.grpc };
        Ok(Answer {
            decision,
            refusal: Some(refuse(telling, decision_id(random()))),
            audit: Audit::Full,
            remove: if awaits { remove() } else { Vec::new() },
            terms: Terms::UNBOUNDED,
            unsettled: (awaits || question.is_some()).then(|| downstream.unsettled()).flatten(),
            awaits: awaits.then(|| (format_of(headers), wanted_fields(&rules, &request))),
            question,
            remembered: verified && downstream.checks() == 0,
            candidate: None,
            suspended: false,
            is_stranger: !caller_is_verified,
        })
    }
}

impl Enforcer {
    /// When the first of the issuers' keys, the issuers and the directories that the decision may rest on ends.
    fn again_at(&self, tokens: &[TokenState<'_>], now: i64) -> i64 {
        let ends = tokens.iter().zip(&self.ends).filter_map(|(token, ends)| match token {
            TokenState::Verified(_) => ends.iter().copied().filter(|end| *end > now).min(),
            TokenState::Absent | TokenState::Invalid(_) => None,
        });
        ends.min().unwrap_or(i64::MAX).min(self.installed.directory.next_stale(now))
    }
}

/// Where what is decided may stand for others: where there are rules, and they depend on nothing that is not compared.
fn alike(installed: &Installed, authenticator: Option<&Authenticator>) -> Option<Alike> {
    let rules = installed.rules.as_ref().filter(|_| installed.manifest.guarded)?;
    alike::can_stand(rules, authenticator).then(Alike::default)
}

/// How the body is to be read. Not at all where it is encoded: a server that decodes it reads something else.
fn format_of(headers: &[Header<'_>]) -> Option<Format> {
    let encodes = |(name, value): &Header<'_>| {
        (*name == b"content-encoding" || *name == b"content_encoding")
            && !value.eq_ignore_ascii_case(b"identity")
    };
    if headers.iter().any(encodes) { None } else { Format::of(header(headers, b"content-type")) }
}

/// What a body says of a field, as far as it was looked for.
pub(crate) fn value_of(field: &BodyField, found: &[(BodyField, FieldValue)]) -> FieldValue {
    let known = found.iter().find(|(known, _)| known == field);
    known.map_or(FieldValue::Unknown, |(_, value)| value.clone())
}

/// For each issuer of the rules, in their order: when its keys and itself cease to count, in Unix seconds.
fn ends(installed: &Installed) -> Vec<[i64; 2]> {
    let (Some(rules), Some(keys)) = (&installed.rules, &installed.keys) else { return Vec::new() };
    let ends = |name| {
        let issuer = keys.issuers().iter().find(|issuer| issuer.name() == name);
        issuer.map_or([i64::MAX; 2], |issuer| {
            let retires = if issuer.retire_at() == 0 { i64::MAX } else { issuer.retire_at() };
            [issuer.valid_until().saturating_add(1), retires]
        })
    };
    rules.issuers().map(|(name, _)| ends(name)).collect()
}

/// For each issuer of the rules, in their order: whether any token of it is revoked.
fn revoking(installed: &Installed) -> Vec<bool> {
    let (Some(rules), Some(keys)) = (&installed.rules, &installed.keys) else { return Vec::new() };
    let revokes = |name| keys.issuers().iter().any(|issuer| issuer.name() == name && issuer.revokes());
    rules.issuers().map(|(name, _)| revokes(name)).collect()
}

/// The tolerance for each issuer of the rules, in their order.
fn skews(installed: &Installed) -> Vec<i64> {
    let (Some(rules), Some(keys)) = (&installed.rules, &installed.keys) else { return Vec::new() };
    let skew =
        |name| keys.issuers().iter().find(|issuer| issuer.name() == name).map_or(0, |issuer| issuer.skew_s());
    rules.issuers().map(|(name, _)| skew(name)).collect()
}

/// When the first of the verified tokens ceases to be accepted.
fn expires_at(tokens: &[TokenState<'_>], skews: &[i64]) -> i64 {
    let ends = tokens.iter().zip(skews).filter_map(|(token, skew)| match token {
        TokenState::Verified(token) => Some(token.expires_at.saturating_add(*skew)),
        TokenState::Absent | TokenState::Invalid(_) => None,
    });
    ends.min().unwrap_or(i64::MAX)
}

// === impl Answer ===

impl Answer {
    pub(crate) fn without_tokens(outcome: Outcome, reason: Reason, refusal: Option<Refusal>) -> Self {
        Self {
            decision: Decision {
                outcome,
                reason,
                rule: None,
                degraded: false,
                awaits_body: false,
                shadow: None,
            },
            refusal,
            audit: Audit::Sampled,
            remove: Vec::new(),
            terms: Terms::UNBOUNDED,
            question: None,
            awaits: None,
            unsettled: None,
            remembered: false,
            candidate: None,
            suspended: false,
            is_stranger: false,
        }
    }
}
