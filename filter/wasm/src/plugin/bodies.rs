//! Requests whose bodies decide.
//!
//! The server has got the headers already, and gets the body as it comes: what is decided here are operations that cannot
//! be done without the whole of a message. So the request is decided when a message has been read to its end, before its
//! last piece goes on; a stream is decided again with each message that says something new.
//!
//! An answer may come before the decision. Errors and redirects pass: without the whole body the server has done nothing, and
//! callers need them (an expired credential, a body that is too large). Of a gRPC stream the server may send its headers
//! before it has read anything: these wait for the decision. Any other success is none that rules rest on, and is refused.
//!
//! What is refused then is not held for a directory's answer; at its headers it was, if that could have helped whatever its
//! body says. Behind the headers it could wait only where the end of the body comes with the last piece of it: what comes
//! during a pause Envoy keeps, and lets go with the rest, and nobody would have read it.
//!
//! INVARIANT: what has not been allowed is refused when its body ends and when its body cannot be read, and no success gets
//! out before it is allowed. Nothing of a request that was refused goes on.

use std::collections::HashMap;

use tidegate_engine::Reason;
use tidegate_engine::body::{FieldValue, MAX_BODY_VALUE_BYTES, Scanner, Step};
use tidegate_engine::model::BodyField;

use super::{Now, Plugin, State, Verdict};
use crate::downstream::Unsettled;
use crate::enforcer::Answer;
use crate::host::{Host, Metric};
use crate::request::{Received, Unreadable};

/// Bytes of headers that may be kept per VM and configuration of requests whose bodies are read; more are refused.
const MAX_BYTES: usize = 64 << 20;

/// Bytes of an entry beside its headers: what is found in a body, and the rest roughly.
const ENTRY_BYTES: usize = MAX_BODY_VALUE_BYTES + 1024;

/// Requests whose bodies are read.
#[derive(Debug)]
pub(super) struct Scans {
    /// Whether the proxy shows bodies to this build of the module.
    possible: bool,
    entries: HashMap<u32, Scan>,
    bytes: usize,
}

/// A request whose body is read.
#[derive(Debug)]
struct Scan {
    scanner: Scanner,
    /// The policy's fields when the body began.
    fields: Vec<BodyField>,
    /// [`Scanner::changes`] when the request was decided last.
    known: u32,
    stage: Stage,
    /// The server's answer waits for the decision.
    withholds: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is decided yet; what checking its signatures was charged.
    Undecided(Received, Option<Unsettled>),
    /// It is allowed, and there is a lease.
    Allowed,
    /// It was refused.
    Refused,
}

/// An answer that comes before the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Early {
    /// An error or a redirect.
    Failure,
    /// The headers of a gRPC stream.
    Begins,
    Success,
}

// === impl Scans ===

impl Scans {
    pub fn new(possible: bool) -> Self {
        Self { possible, entries: HashMap::new(), bytes: 0 }
    }

    pub fn are_possible(&self) -> bool {
        // So that the other build lacks the code.
        cfg!(any(test, feature = "bodies")) && self.possible
    }

    /// The proxy has deleted the context.
    pub fn forget(&mut self, context: u32) {
        // Even of an empty map a key would be hashed, for every request.
        if self.entries.is_empty() {
            return;
        }
        if let Some(scan) = self.entries.remove(&context) {
            self.bytes = self.bytes.saturating_sub(scan.weight());
        }
    }

    #[must_use]
    fn insert(&mut self, context: u32, scan: Scan) -> bool {
        self.forget(context);
        let bytes = self.bytes.saturating_add(scan.weight());
        if bytes > MAX_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.entries.insert(context, scan);
        true
    }

    fn take(&mut self, context: u32) -> Option<Scan> {
        let scan = self.entries.remove(&context)?;
        self.bytes = self.bytes.saturating_sub(scan.weight());
        Some(scan)
    }
}

// === impl Scan ===

impl Scan {
    fn weight(&self) -> usize {
        match &self.stage {
            Stage::Undecided(received, _) => received.bytes().saturating_add(ENTRY_BYTES),
            Stage::Allowed | Stage::Refused => ENTRY_BYTES,
        }
    }

    fn found(&self) -> Vec<(BodyField, FieldValue)> {
        self.fields.iter().cloned().zip(self.scanner.values().iter().cloned()).collect()
    }
}

// === impl Plugin ===

impl Plugin {
    /// The body of this request decides: it goes on, and is read while it does.
    pub(super) fn read_body(
        &mut self,
        context: u32,
        received: Received,
        answer: Answer,
        host: &dyn Host,
    ) -> Verdict {
        let Some((format, wanted)) = answer.awaits else {
            return self.unreadable(Some(&received), Unreadable::NotReady, host);
        };
        if !self.mark(&answer.remove, host) {
            return self.unreadable(Some(&received), Unreadable::NotRemoved, host);
        }
        let fields = match &self.state {
            State::Ready(enforcer) => enforcer.body_fields().to_vec(),
            State::NotReady | State::Invalid => Vec::new(),
        };
        let scanner = Scanner::new(format, &fields, &wanted);
        let stage = Stage::Undecided(received, answer.unsettled);
        if !self.scans.insert(context, Scan { scanner, fields, known: 0, stage, withholds: false }) {
            return self.unreadable(None, Unreadable::TooMany, host);
        }
        Verdict::Continue
    }

    /// Reads a piece of a body before it goes on; `is_last`: nothing follows it.
    pub fn on_body(&mut self, context: u32, piece: &[u8], is_last: bool, host: &dyn Host) -> Verdict {
        let Some(mut scan) = self.scans.take(context) else { return Verdict::Continue };
        let verdict = self.read_piece(context, &mut scan, piece, is_last, host);
        if matches!(verdict, Verdict::Refuse(_)) {
            scan.stage = Stage::Refused;
        }
        // It was there a moment ago, and weighs no more now.
        if self.scans.insert(context, scan) {
            verdict
        } else {
            self.unreadable(None, Unreadable::TooMany, host)
        }
    }

    /// A piece of a body could not be looked at.
    pub fn on_lost_piece(&mut self, context: u32, host: &dyn Host) -> Verdict {
        let Some(scan) = self.scans.entries.get_mut(&context) else { return Verdict::Continue };
        scan.scanner.lose();
        self.on_body(context, &[], true, host)
    }

    fn read_piece(
        &mut self,
        context: u32,
        scan: &mut Scan,
        mut piece: &[u8],
        is_last: bool,
        host: &dyn Host,
    ) -> Verdict {
        if matches!(scan.stage, Stage::Refused) {
            return Verdict::Hold;
        }
        loop {
            match scan.scanner.feed(piece) {
                Step::More => break,
                Step::Message(rest) => piece = rest,
                Step::Broken => return self.decide_on_body(context, scan, host),
            }
            match self.decide_on_body(context, scan, host) {
                Verdict::Continue => {}
                other => return other,
            }
        }
        if is_last && (!scan.scanner.finish() || matches!(scan.stage, Stage::Undecided(..))) {
            return self.decide_on_body(context, scan, host);
        }
        Verdict::Continue
    }

    /// Decides on what was read so far.
    fn decide_on_body(&mut self, context: u32, scan: &mut Scan, host: &dyn Host) -> Verdict {
        let changes = scan.scanner.changes();
        if matches!(scan.stage, Stage::Allowed) {
            if self.leases.position(context).is_none() {
                // Without a lease it has been ended, and its answer is on the way.
                scan.stage = Stage::Refused;
                return Verdict::Hold;
            }
            if scan.known == changes {
                return Verdict::Continue;
            }
        }
        scan.known = changes;
        let now = Now::read(host);
        match std::mem::replace(&mut scan.stage, Stage::Allowed) {
            Stage::Undecided(mut received, unsettled) => {
                received.set_body(scan.found());
                let answer =
                    received.headers(None).and_then(|headers| self.decide(&received, &headers, now, host));
                match answer {
                    Ok(answer) => {
                        if let (None, Some(unsettled)) = (&answer.refusal, unsettled) {
                            unsettled.allowed(&mut self.budget.borrow_mut(), now.ms);
                        }
                        let drawn = self.draw(host);
                        self.conclude(context, received, answer, Some(now), drawn, host)
                    }
                    Err(unreadable) => self.unreadable(Some(&received), unreadable, host),
                }
            }
            Stage::Allowed => {
                let Some(position) = self.leases.position(context) else { return Verdict::Hold };
                self.leases.set_body(position, scan.found());
                match self.decide_again(position, now, host) {
                    Ok(terms) => {
                        self.leases.renew(position, terms, now.s());
                        Verdict::Continue
                    }
                    Err(ended) => {
                        self.record_end(position, &ended, host);
                        self.leases.forget(context);
                        self.counters.refuse(Metric::Denied, ended.reason);
                        Verdict::Refuse(ended.refusal)
                    }
                }
            }
            Stage::Refused => Verdict::Hold,
        }
    }

    /// The server answers. What has not been allowed gets no success of it.
    pub fn on_response(&mut self, context: u32, host: &dyn Host) -> Verdict {
        let Some(mut scan) = self.scans.take(context) else { return Verdict::Continue };
        let verdict = match (&scan.stage, Early::read(host)) {
            (Stage::Allowed | Stage::Refused, _) | (Stage::Undecided(..), Early::Failure) => {
                Verdict::Continue
            }
            (Stage::Undecided(..), Early::Begins) => {
                scan.withholds = true;
                Verdict::Hold
            }
            (Stage::Undecided(received, _), Early::Success) => {
                let refusal = super::unavailable(Reason::BodyUnread, host);
                self.record_undecided(Some(received), Reason::BodyUnread, refusal.decision_id(), host);
                scan.stage = Stage::Refused;
                self.counters.refuse(Metric::Denied, Reason::BodyUnread);
                Verdict::Refuse(refusal)
            }
        };
        // It was there a moment ago, and weighs no more now.
        if self.scans.insert(context, scan) {
            verdict
        } else {
            self.unreadable(None, Unreadable::TooMany, host)
        }
    }

    /// Whether an answer that waited may go on now; said once.
    pub fn releases_answer(&mut self, context: u32) -> bool {
        let scan = self.scans.entries.get_mut(&context).filter(|scan| matches!(scan.stage, Stage::Allowed));
        scan.is_some_and(|scan| std::mem::take(&mut scan.withholds))
    }
}

// === impl Early ===

impl Early {
    fn read(host: &dyn Host) -> Self {
        let is_grpc =
            host.response_header(b"content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
        match host.response_header(b":status").as_deref() {
            // 1xx is no answer, and never comes here.
            Some([b'3' | b'4' | b'5', _, _]) => Self::Failure,
            Some(b"200") if is_grpc => match host.response_header(b"grpc-status").as_deref() {
                // Headers that are trailers as well: the call has ended.
                Some(b"0") => Self::Success,
                Some(_) => Self::Failure,
                None => Self::Begins,
            },
            _ => Self::Success,
        }
    }
}
