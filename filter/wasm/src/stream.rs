//! The stream to the control plane: when to open it, what arrives, what to answer.
//!
//! Messages in, messages out; the host calls are the caller's. Unknown kinds of message are ignored.
//!
//! INVARIANT: a stream on which nothing is heard is given up. The control plane answers every receipt with a message, if only
//! an empty one, so silence is not peace but a connection whose other end is gone, or a control plane that does not work.

use prost::Message as _;
use tidegate_identity::VerifySignature;
use tidegate_proto::v1::{self as pb, subscribe_request, subscribe_response};

use crate::bundle::{Assembly, Installed, Refused, Trust, accept};

/// First and longest pause between attempts, in milliseconds.
const PAUSES_MS: (u64, u64) = (200, 10_000);

/// How long a stream may be silent, in milliseconds: three receipts and their answers.
const SILENT_MS: u64 = 100_000;

/// How long to wait before the next attempt to open a stream.
#[derive(Debug, Default)]
pub struct Pauses {
    /// Attempts that failed since the last message arrived.
    failures: u32,
}

/// The subscription of one VM.
#[derive(Debug, Default)]
pub struct Subscription {
    stream: Stream,
    /// When something was heard on the open stream, or it was opened, in milliseconds.
    heard_ms: u64,
    pauses: Pauses,
    /// A Bundle whose sections are arriving.
    arriving: Option<(u64, Assembly)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// Opened before; due at this time in milliseconds.
    Closed(u64),
    /// With the host's token.
    Open(u32),
    /// Not tried yet. A context that exists only to check a configuration never gets further.
    #[default]
    New,
}

/// What a message led to.
#[derive(Debug, Default)]
pub struct Effect {
    /// To be enforced from now on.
    pub install: Option<Installed>,
    /// To be sent.
    pub answers: Vec<pb::SubscribeRequest>,
    /// For the log.
    pub refused: Option<Refused>,
    /// The answer to a question.
    pub answered: Option<pb::LookupResult>,
}

// === impl Pauses ===

impl Pauses {
    /// In milliseconds. Each is twice as long as the last one, between half of that and all of it by chance, so that filters
    /// do not come back all at once.
    pub fn next(&mut self, random: u64) -> u64 {
        let (first, longest) = PAUSES_MS;
        let pause = first.checked_shl(self.failures.min(16)).unwrap_or(longest).min(longest);
        self.failures = self.failures.saturating_add(1);
        pause / 2 + random % (pause / 2 + 1)
    }

    /// The other side answers.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

// === impl Subscription ===

impl Subscription {
    /// Whether it is time to open the stream; `now_ms` is wall clock.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        match self.stream {
            // The first tick only arms: contexts that check a configuration do not live to see another one.
            Stream::New => {
                self.stream = Stream::Closed(0);
                false
            }
            Stream::Closed(due) => now_ms >= due,
            Stream::Open(_) => false,
        }
    }

    /// The stream was opened; `now_ms` is wall clock.
    pub fn opened(&mut self, token: u32, now_ms: u64) {
        self.stream = Stream::Open(token);
        self.heard_ms = now_ms;
        self.arriving = None;
    }

    /// The token of the open stream.
    pub fn token(&self) -> Option<u32> {
        match self.stream {
            Stream::Open(token) => Some(token),
            Stream::New | Stream::Closed(_) => None,
        }
    }

    /// Whether nothing was heard for too long; `now_ms` is wall clock.
    pub fn is_silent(&mut self, now_ms: u64) -> bool {
        // A clock that was set back does not keep a stream for ever.
        self.heard_ms = self.heard_ms.min(now_ms);
        self.token().is_some() && now_ms.saturating_sub(self.heard_ms) > SILENT_MS
    }

    /// Something was heard, whatever it is.
    pub fn heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// The stream could not be opened, or was closed.
    pub fn closed(&mut self, now_ms: u64, random: u64) {
        self.stream = Stream::Closed(now_ms.saturating_add(self.pauses.next(random)));
        self.arriving = None;
    }

    /// Takes a message.
    pub fn receive(
        &mut self,
        message: &[u8],
        trust: Trust<'_>,
        verifier: &dyn VerifySignature,
        installed: Option<&Installed>,
    ) -> Effect {
        let Ok(pb::SubscribeResponse { message: Some(message) }) = pb::SubscribeResponse::decode(message)
        else {
            // Not decodable, or a kind that is newer than this filter: neither says anything about a Bundle.
            return Effect::default();
        };
        self.pauses.reset();
        match message {
            subscribe_response::Message::Push(push) => {
                self.arriving = None;
                match accept(&push.manifest.unwrap_or_default(), trust, verifier) {
                    Ok(None) => {
                        let digest = trust.enforced.map(|(_, digest)| digest.to_vec()).unwrap_or_default();
                        Effect { answers: vec![ack(push.nonce, digest)], ..Effect::default() }
                    }
                    Ok(Some(manifest)) => {
                        let mut assembly = Assembly::new(manifest, installed);
                        assembly.expect(push.chunk_bytes);
                        self.arriving = Some((push.nonce, assembly));
                        self.finish(installed)
                    }
                    Err(refused) => nack(push.nonce, refused),
                }
            }
            subscribe_response::Message::Chunk(chunk) => {
                let Some((nonce, assembly)) = &mut self.arriving else { return Effect::default() };
                match assembly.add(&chunk.sha256, chunk.offset, &chunk.content) {
                    Ok(()) => self.finish(installed),
                    Err(refused) => {
                        let nonce = *nonce;
                        self.arriving = None;
                        nack(nonce, refused)
                    }
                }
            }
            subscribe_response::Message::LookupResult(result) => {
                Effect { answered: Some(result), ..Effect::default() }
            }
        }
    }

    fn finish(&mut self, installed: Option<&Installed>) -> Effect {
        let Some((nonce, assembly)) = self.arriving.take_if(|(_, assembly)| assembly.is_complete()) else {
            return Effect::default();
        };
        match assembly.install(installed) {
            Ok(install) => Effect {
                answers: vec![ack(nonce, install.manifest.digest.to_vec())],
                install: Some(install),
                ..Effect::default()
            },
            Err(refused) => nack(nonce, refused),
        }
    }
}

fn ack(nonce: u64, manifest_sha256: Vec<u8>) -> pb::SubscribeRequest {
    request(subscribe_request::Message::Ack(pb::Ack { nonce, manifest_sha256 }))
}

fn nack(nonce: u64, refused: Refused) -> Effect {
    let nack = pb::Nack { nonce, reason: refused.reason.into(), detail: refused.detail.clone() };
    Effect {
        answers: vec![request(subscribe_request::Message::Nack(nack))],
        refused: Some(refused),
        ..Effect::default()
    }
}

/// Wraps a message.
pub fn request(message: subscribe_request::Message) -> pb::SubscribeRequest {
    pb::SubscribeRequest { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tick_only_arms() {
        let mut subscription = Subscription::default();
        assert!(!subscription.is_due(1_000));
        assert!(subscription.is_due(1_000));
        subscription.opened(7, 1_000);
        assert!(!subscription.is_due(1_000));
        assert_eq!(subscription.token(), Some(7));
    }

    #[test]
    fn pauses_grow_are_bounded_and_differ() {
        let mut subscription = Subscription::default();
        let mut longest = 0;
        for _ in 0..40 {
            subscription.closed(0, u64::MAX);
            let Stream::Closed(due) = subscription.stream else { panic!("not closed") };
            assert!(due <= PAUSES_MS.1, "{due}");
            longest = longest.max(due);
        }
        assert!(longest > PAUSES_MS.1 / 2);
        let at = |random| {
            let mut subscription = Subscription::default();
            subscription.closed(0, random);
            subscription.stream
        };
        assert_ne!(at(3), at(50));
    }
}
