//! Requests that wait, and requests that were allowed and live.
//!
//! INVARIANT: a request is in at most one of the two lists; when it is refused it is in neither, so that the proxy is
//! asked once to answer or end it. (Two ending calls for one stream within one callback crash Envoy.)

use std::mem;

use tidegate_engine::Reason;
use tidegate_identity::At;

use super::{Now, Plugin, State, Verdict, unavailable};
use crate::downstream::{CONNECTION_ID, Downstream, Unsettled};
use crate::enforcer::Answer;
use crate::host::{Host, Metric};
use crate::leases::Terms;
use crate::lookups::Question;
use crate::reply::Refusal;
use crate::request::{Received, Unreadable};
use crate::signature::Signatures;

/// Requests that may wait for keys at once, and that may wait for ids: who makes keys up, without proving anything, does
/// not keep those from waiting who have a verified token.
const MAX_HELD_FOR_ANSWERS: usize = 128;

/// The start of a request, in the proxy's own resolution: with the connection it tells one stream from another.
const REQUEST_TIME: &[u8] = b"request\0time";

/// Between ticks, in milliseconds: while something is left to do, while something is awaited, and otherwise.
const TICKS_MS: (u64, u64, u64) = (1, 100, 1_000);

/// How long looking again may take per callback, in milliseconds: so much later than usual others are served meanwhile.
const SLICE_MS: u64 = 2;

/// How much is looked at between two looks at the clock.
const SLICE: usize = 16;

/// Most that is looked at per callback, in case the clock stands still.
const MAX_SLICES: usize = 256;

/// Most requests that one callback ends or sets going again. Envoy does so when the callback has returned, each from
/// within the one before: some hundreds overflow the stack, and that is the VM's end. (`filter/README.md`, "Ending an
/// open stream".)
const MAX_ANSWERED: usize = 128;

/// How many of them are for requests that wait, however many end.
const ANSWERS_FOR_HELD: usize = 32;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Held {
    context: u32,
    received: Received,
    awaits: Awaits,
    deadline_ms: u64,
    /// Which Bundle it was decided by.
    installs: u32,
    /// What checking its signatures was charged.
    unsettled: Option<Unsettled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The first Bundle.
    Bundle,
    /// The answer to the question about a key with this nonce.
    Key(u64),
    /// The answer to the question about an id with this nonce.
    Id(u64),
}

/// Why a request that was allowed may not go on.
#[derive(Debug)]
pub(super) struct Ended {
    pub refusal: Refusal,
    /// Why.
    pub reason: Reason,
    /// What was decided, if anything could be.
    pub answer: Option<Box<Answer>>,
}

/// What one callback does to requests.
#[derive(Debug, Default)]
struct Due {
    verdicts: Vec<(u32, Verdict)>,
    streams: Vec<Vec<u8>>,
}

// === impl Plugin ===

impl Plugin {
    pub(super) fn hold_for_bundle(
        &mut self,
        context: u32,
        received: Received,
        now: Now,
        host: &dyn Host,
    ) -> Verdict {
        let deadline_ms = self.started_ms.saturating_add(self.config.hold_ms);
        if self.held.len() >= self.config.max_held || now.ms >= deadline_ms {
            return self.unavailable(Some(&received), Reason::NotReady, host);
        }
        self.hold(context, received, Awaits::Bundle, deadline_ms, None)
    }

    /// Whether a refused request is worth holding: it would be allowed if the control plane knew one thing more.
    pub(super) fn hold_for_answer(&mut self, answer: &Answer, now: Now) -> Option<(Awaits, u64)> {
        let question = answer.question.as_ref()?;
        let awaits = match question {
            Question::Key { .. } => Awaits::Key,
            Question::Id { .. } => Awaits::Id,
        };
        let alike = mem::discriminant(&awaits(0));
        let held = self.held.iter().filter(|held| mem::discriminant(&held.awaits) == alike).count();
        if self.subscription.token().is_none() || held >= MAX_HELD_FOR_ANSWERS {
            return None;
        }
        let awaited = self.lookups.ask(question, now.ms, self.installs)?;
        if let Some(message) = awaited.send {
            self.counters.add(Metric::Lookups);
            self.send(&message);
        }
        Some((awaits(awaited.nonce), awaited.until_ms))
    }

    pub(super) fn hold(
        &mut self,
        context: u32,
        received: Received,
        awaits: Awaits,
        deadline_ms: u64,
        unsettled: Option<Unsettled>,
    ) -> Verdict {
        self.counters.add(Metric::Held);
        self.held.push(Held { context, received, awaits, deadline_ms, installs: self.installs, unsettled });
        Verdict::Hold
    }

    /// The proxy has deleted the context.
    pub fn forget(&mut self, context: u32) {
        self.leases.forget(context);
        self.scans.forget(context);
        self.held.retain(|held| held.context != context);
    }

    /// What happens now to requests that were allowed and are no longer, and to those that need not wait any longer: as
    /// many as one callback may answer. `select` is called before a request is looked at, so that host calls are about it;
    /// it says whether the request still lives.
    pub fn due(&mut self, host: &dyn Host, select: impl Fn(u32) -> bool) -> Vec<(u32, Verdict)> {
        let mut due = Due::default();
        self.renew(host, &select, &mut due);
        self.release(host, &select, &mut due);
        due.verdicts
    }

    /// Looks at requests that were allowed and live.
    fn renew(&mut self, host: &dyn Host, select: &dyn Fn(u32) -> bool, due: &mut Due) {
        let begun = Now::read(host);
        for _ in 0..MAX_SLICES {
            for _ in 0..SLICE {
                let Some(position) = self.leases.next(begun.s()) else { return };
                let Some(context) = self.leases.get(position).map(|lease| lease.context) else { return };
                if !select(context) {
                    self.leases.forget(context);
                    continue;
                }
                match self.decide_again(position, begun, host) {
                    Ok(terms) => self.leases.renew(position, terms, begun.s()),
                    // Once more in the next callback, if it still lives then.
                    Err(_) if !due.is_first_of_stream(host) => return,
                    Err(ended) => {
                        self.record_end(position, &ended, host);
                        self.leases.forget(context);
                        self.counters.add(Metric::LeasesEnded);
                        due.verdicts.push((context, Verdict::Refuse(ended.refusal)));
                        if due.verdicts.len() >= MAX_ANSWERED - ANSWERS_FOR_HELD {
                            return;
                        }
                    }
                }
            }
            if Now::read(host).ms.saturating_sub(begun.ms) >= SLICE_MS {
                return;
            }
        }
    }

    /// Decides requests that need not wait any longer.
    fn release(&mut self, host: &dyn Host, select: &dyn Fn(u32) -> bool, due: &mut Due) {
        self.is_behind = false;
        if self.held.is_empty() {
            return;
        }
        let now = Now::read(host);
        for held in mem::take(&mut self.held) {
            if due.verdicts.len() >= MAX_ANSWERED {
                self.is_behind = true;
                self.held.push(held);
                continue;
            }
            let is_over = now.ms >= held.deadline_ms
                || match held.awaits {
                    Awaits::Bundle => matches!(self.state, State::Ready(_)),
                    Awaits::Key(nonce) | Awaits::Id(nonce) => !self.lookups.is_open(nonce, self.installs),
                };
            if !is_over && held.installs == self.installs {
                self.held.push(held);
                continue;
            }
            if !select(held.context) {
                continue;
            }
            if !due.is_first_of_stream(host) {
                self.is_behind = true;
                self.held.push(held);
                continue;
            }
            let Held { context, received, unsettled, .. } = held;
            let answer = match received.headers(None) {
                Ok(headers) => self.decide(&received, &headers, now, host),
                Err(unreadable) => Err(unreadable),
            };
            let verdict = match answer {
                // Another Bundle came meanwhile, and it was not what is awaited.
                Ok(answer) if !is_over && answer.question.is_some() => {
                    self.held.push(Held { received, installs: self.installs, unsettled, ..held });
                    due.streams.pop();
                    continue;
                }
                Ok(answer) => {
                    if let (None, Some(unsettled)) = (&answer.refusal, unsettled) {
                        unsettled.allowed(&mut self.budget.borrow_mut(), now.ms);
                    }
                    let drawn = self.draw(host);
                    self.conclude(context, received, answer, None, drawn, host)
                }
                Err(unreadable) => self.unreadable(Some(&received), unreadable, host),
            };
            due.verdicts.push((context, verdict));
        }
    }

    /// Whether what was allowed still is. Nothing is asked or charged, nor counted but that its rule is still needed: nobody
    /// has sent anything. What has to be said of it now and was not is recorded.
    pub(super) fn decide_again(
        &mut self,
        position: usize,
        now: Now,
        host: &dyn Host,
    ) -> Result<Terms, Ended> {
        let undecided = |reason| Ended { refusal: unavailable(reason, host), reason, answer: None };
        let (State::Ready(enforcer), Some(lease)) = (&mut self.state, self.leases.get(position)) else {
            return Err(undecided(Reason::NotReady));
        };
        let signatures = Signatures::new(host, &self.signatures, &self.counters);
        let downstream = Downstream::new(host, &lease.received, signatures, None, now.ms);
        let at = At { now: now.s(), expiry_grace_s: lease.terms.grace_s };
        let answer: Result<Answer, Unreadable> = lease.received.headers(None).and_then(|headers| {
            enforcer.decide(&lease.received, &headers, at, &downstream, || host.random())
        });
        match answer {
            Ok(answer) => match answer.refusal.clone() {
                Some(refusal) => {
                    Err(Ended { refusal, reason: answer.decision.reason, answer: Some(Box::new(answer)) })
                }
                None if self.record_again(position, &answer, host) => {
                    if let Some(rule) = answer.decision.rule {
                        self.uses.add(rule, self.second);
                    }
                    Ok(answer.terms)
                }
                None => Err(undecided(Reason::AuditUnavailable)),
            },
            Err(_) => Err(undecided(Reason::NotReady)),
        }
    }

    /// How long until the next tick is wanted, in milliseconds.
    pub fn tick_ms(&self) -> u64 {
        let (at_once, often, seldom) = TICKS_MS;
        if self.is_behind || self.leases.has_remaining() {
            at_once
        } else if self.is_impatient() || !self.held.is_empty() {
            often
        } else {
            seldom
        }
    }
}

// === impl Due ===

impl Due {
    /// Whether nothing is done yet in this callback to the stream that host calls are about. Another filter of the same
    /// chain may have a context of it too, and two ending calls for one stream crash the proxy. A proxy that does not tell
    /// streams apart has one for all.
    fn is_first_of_stream(&mut self, host: &dyn Host) -> bool {
        let property = |path| host.property(path).unwrap_or_default();
        let stream = [property(CONNECTION_ID), property(REQUEST_TIME)].concat();
        let is_first = !self.streams.contains(&stream);
        if is_first {
            self.streams.push(stream);
        }
        is_first
    }
}
