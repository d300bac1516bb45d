//! Questions to the control plane: a key that an issuer is not known to have, an id that a directory does not list.
//!
//! A key that has just been rotated in, or a worker that has just started, is known a moment later. So the request waits
//! for the answer, and is decided again. Whoever makes tokens up can make questions up: each is asked at most once in a
//! while, whatever the answer was, and all together are bounded.
//!
//! INVARIANT: nothing here decides; without an answer a request is refused as it would have been.

use tidegate_proto::v1::{self as pb, subscribe_request::Message};

/// How long a request waits for the answer, in milliseconds: a second, with the tick that ends the wait.
const PATIENCE_MS: u64 = 900;

/// How long the same is not asked again, in milliseconds.
const MEMORY_MS: u64 = 5_000;

/// Questions remembered, for keys and for ids each: it is also the most that is asked in [`MEMORY_MS`]. Made-up keys do
/// not displace ids: only verified callers can ask for those.
const MAX_REMEMBERED: usize = 128;

/// Keys of one issuer among them: who makes up keys of one does not stop questions about others. (The control plane asks
/// an issuer more rarely anyway.)
const MAX_OF_ISSUER: usize = 16;

/// Longest text in a question, in bytes. Issuers' key ids have at most 256, ids of what runs somewhere fewer.
const MAX_TEXT_BYTES: usize = 256;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether an issuer has a key by now.
    Key {
        /// Name of the TrustedIssuer.
        issuer: String,
        /// Empty: the token has none.
        key_id: String,
    },
    /// Whether a directory lists an id by now.
    Id {
        /// Name of the directory.
        directory: String,
        /// The id.
        id: String,
    },
}

/// An answer that is worth waiting for.
#[derive(Debug, Clone, PartialEq)]
pub struct Awaited {
    /// Which question it answers.
    pub nonce: u64,
    /// Until when to wait, in milliseconds.
    pub until_ms: u64,
    /// To be sent; `None`: somebody else has asked.
    pub send: Option<pb::SubscribeRequest>,
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Lookups {
    keys: Vec<Asked>,
    ids: Vec<Asked>,
    last_nonce: u64,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    nonce: u64,
    at_ms: u64,
    /// How many Bundles had been installed.
    installs: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// It is known by now; unless another Bundle has been installed since the question, it is still on its way.
    Found,
    Closed,
}

// === impl Question ===

impl Question {
    fn texts(&self) -> [&str; 2] {
        match self {
            Self::Key { issuer, key_id } => [issuer, key_id],
            Self::Id { directory, id } => [directory, id],
        }
    }

    fn message(&self, nonce: u64) -> Message {
        match self.clone() {
            Self::Key { issuer, key_id } => Message::KeyLookup(pb::KeyLookup { nonce, issuer, key_id }),
            Self::Id { directory, id } => Message::Lookup(pb::Lookup { nonce, directory, id }),
        }
    }
}

// === impl Lookups ===

impl Lookups {
    /// Whether it is worth waiting for the answer to this. There must be a stream to the control plane; `installs` counts
    /// the Bundles that were installed.
    pub fn ask(&mut self, question: &Question, now_ms: u64, installs: u32) -> Option<Awaited> {
        if question.texts().iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return None;
        }
        let asked = match question {
            Question::Key { .. } => &mut self.keys,
            Question::Id { .. } => &mut self.ids,
        };
        // What lies ahead was asked before the clock went back.
        asked.retain(|one| one.at_ms <= now_ms && now_ms - one.at_ms < MEMORY_MS);
        if let Some(one) = asked.iter().find(|one| one.question == *question) {
            let until_ms = one.at_ms.saturating_add(PATIENCE_MS);
            let is_open = one.is_open(installs) && now_ms < until_ms;
            return is_open.then_some(Awaited { nonce: one.nonce, until_ms, send: None });
        }
        if asked.len() >= MAX_REMEMBERED {
            return None;
        }
        if let Question::Key { issuer, .. } = question {
            let of_issuer = |one: &&Asked| one.question.texts()[0] == issuer;
            if asked.iter().filter(of_issuer).count() >= MAX_OF_ISSUER {
                return None;
            }
        }
        self.last_nonce = self.last_nonce.wrapping_add(1);
        let nonce = self.last_nonce;
        asked.push(Asked { question: question.clone(), nonce, at_ms: now_ms, installs, state: State::Open });
        let send = Some(pb::SubscribeRequest { message: Some(question.message(nonce)) });
        Some(Awaited { nonce, until_ms: now_ms.saturating_add(PATIENCE_MS), send })
    }

    /// The control plane has answered.
    pub fn answered(&mut self, nonce: u64, listed: bool) {
        if let Some(one) = self.all().find(|one| one.nonce == nonce && one.state == State::Open) {
            one.state = if listed { State::Found } else { State::Closed };
        }
    }

    /// The stream has ended: no answer will come.
    pub fn abandon(&mut self) {
        self.all().for_each(|one| one.state = State::Closed);
    }

    /// Whether the answer, or what it announces, is still to come.
    pub fn is_open(&self, nonce: u64, installs: u32) -> bool {
        self.keys.iter().chain(&self.ids).any(|one| one.nonce == nonce && one.is_open(installs))
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Asked> {
        self.keys.iter_mut().chain(&mut self.ids)
    }
}

// === impl Asked ===

impl Asked {
    fn is_open(&self, installs: u32) -> bool {
        match self.state {
            State::Open => true,
            State::Found => self.installs == installs,
            State::Closed => false,
        }
    }
}

#[cfg(test)]
mod tests;
