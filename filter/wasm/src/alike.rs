//! Requests that are alike.
//!
//! Workers send the same request again and again: the same method, host, path and token from the same peer, and only a
//! request id is another one. What was decided of such a request stands for the next one that is like it, until something
//! ends on which it rests. This is worth it because the way to a decision is long: a proxy that does something else between
//! two requests pays for every line of code that it has to fetch again.
//!
//! INVARIANT: requests are alike only if all is the same that a decision can depend on, byte by byte: the peer, whether a body
//! follows, and all headers in their order, but for the values of `UNREAD`. A hash only finds whom to compare with.
//!
//! INVARIANT: kept is only what is allowed, with nothing to be said or done of it: no record but a sample, no difference in
//! shadow, no header to be removed, no token that is not accepted, nothing that was asked about the connection. Whoever
//! enforces something else begins anew ([`Alike::default`]), and does not begin where decisions read what is not compared
//! ([`can_stand`]).

use core::fmt;

use tidegate_engine::model::Audit;
use tidegate_engine::scan::same;
use tidegate_engine::{Decision, Outcome, PolicySet, Reason, RuleIx, normal};
use tidegate_identity::{Authenticator, TokenOutcome, VerifiedUse};

use crate::enforcer::Answer;
use crate::leases::Terms;
use crate::request::{Content, Received, parse};

/// Headers of which no decision reads the value: ids of requests and traces, and what a sender says of its patience and of the
/// body's length. That they are there, how often, and how long they are, is compared.
const UNREAD: [&str; 11] = [
    "content-length",
    "grpc-timeout",
    "traceparent",
    "tracestate",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-client-trace-id",
    "x-cloud-trace-context",
    "x-request-id",
];

/// How many requests are kept; of those that share a place one.
const PLACES: u64 = 128;

/// Most bytes of headers of one that is kept.
const MAX_BLOCK: usize = 4096;

/// Values from this length on are tokens rather than anything else; of the longest one so many bytes find its place.
const TOKEN_BYTES: usize = 64;
const TAIL_BYTES: usize = 32;

/// Most bytes of pseudo headers that find a request's place.
const HEAD_BYTES: usize = 512;

/// Where of so many requests fewer than these are like an earlier one, nobody is looked for during the next so many.
const LOOKS: u32 = 512;
const FEW: u32 = 32;
const REST: u32 = 8192;

/// One of so many that are known is decided all the same: that a token is used is noted then where known tokens are kept, and
/// those that are not used make room for others.
const AGAIN: u8 = 128;

/// What was decided of requests.
#[derive(Debug, Default)]
pub struct Alike {
    places: Vec<Option<Box<Kept>>>,
    /// Per place.
    last: Vec<Last>,
    looks: u32,
    found: u32,
    rest: u32,
    /// How many were known again.
    #[cfg(test)]
    pub known: u32,
}

/// What the last request in a place looked like that was not known, and how many in a row did.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    look: Look,
    unknown: u8,
}

/// Where a request that is like another one is looked for. Unlike requests may have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look(u64);

/// A request, and what was decided of it.
pub struct Kept {
    look: Look,
    block: Box<[u8]>,
    peer: Option<Box<[u8]>>,
    has_body: bool,
    /// What of the block is compared: begin and end.
    read: Vec<(usize, usize)>,
    /// Unix seconds: it stands from then, and until then.
    from: i64,
    until: i64,
    /// For how many it has stood.
    stood_for: u8,
    /// What was decided.
    pub standing: Standing,
    /// Whose tokens and keys were used.
    pub uses: Vec<VerifiedUse>,
}

/// A request goes on, as one like it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// By this rule.
    pub rule: Option<RuleIx>,
    /// Its tokens were known.
    pub remembered: bool,
    /// What bounds it.
    pub terms: Terms,
}

// === impl Alike ===

impl Alike {
    /// Where to look for a request like this one. `None`: it is not worth it.
    pub fn look(&mut self, received: &Received) -> Option<Look> {
        if self.rest > 0 {
            self.rest = self.rest.saturating_sub(1);
            return None;
        }
        if self.looks >= LOOKS {
            self.rest = if self.found < FEW { REST } else { 0 };
            (self.looks, self.found) = (0, 0);
        }
        self.looks = self.looks.saturating_add(1);
        Look::at(received)
    }

    /// What was decided of a request like this one, if it still stands at this second. `None` now and then where it does, so
    /// that it is decided again.
    pub fn find(&mut self, look: Look, received: &Received, now: i64) -> Option<&Kept> {
        let kept = self.places.get_mut(look.place())?.as_deref_mut()?;
        let stands = kept.look == look && (kept.from..kept.until).contains(&now) && kept.is_like(received);
        if !stands {
            return None;
        }
        self.found = self.found.saturating_add(1);
        kept.stood_for = kept.stood_for.wrapping_add(1);
        if kept.stood_for.is_multiple_of(AGAIN) {
            return None;
        }
        #[cfg(test)]
        {
            self.known += 1;
        }
        Some(kept)
    }

    /// Keeps what was decided of a request, at this second, if it may stand for others and has come before.
    pub fn keep(
        &mut self,
        look: Look,
        received: &Received,
        answer: &Answer,
        outcomes: &[TokenOutcome],
        uses: &[VerifiedUse],
        now: i64,
    ) {
        if self.last.is_empty() {
            let places = usize::try_from(PLACES).unwrap_or_default();
            self.last.resize(places, Last::default());
            self.places.resize_with(places, || None);
        }
        let (Some(last), Some(place)) = (self.last.get_mut(look.place()), self.places.get_mut(look.place()))
        else {
            return;
        };
        if !last.comes_again(look) || !may_stand(answer, outcomes) {
            return;
        }
        if let Some(kept) = Kept::new(look, received, answer, uses, now) {
            *place = Some(Box::new(kept));
        }
    }

    /// How many are kept.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.places.iter().flatten().count()
    }
}

/// Whether decisions by these rules depend on nothing but what is compared, and on time only as the terms of an answer say.
pub fn can_stand(rules: &PolicySet, authenticator: Option<&Authenticator>) -> bool {
    let reads = |name: &&str| authenticator.is_some_and(|authenticator| authenticator.reads(name));
    !rules.needs_port() && !rules.needs_fields() && !rules.reads_time() && !UNREAD.iter().any(reads)
}

/// Whether what was decided stands for others, and leaves nothing to be done for each. (Most of an answer says something only
/// of what is refused; all of it is looked at, so that nothing that is added to it is overlooked.)
fn may_stand(answer: &Answer, outcomes: &[TokenOutcome]) -> bool {
    let Answer {
        decision: Decision { outcome, reason, rule: _, degraded, awaits_body, shadow },
        refusal,
        audit,
        remove,
        terms: _,
        question,
        awaits,
        unsettled,
        remembered,
        candidate,
        suspended,
        is_stranger,
    } = answer;
    let verified = outcomes.iter().any(|outcome| matches!(outcome, TokenOutcome::Verified(_)));
    let refused = outcomes.iter().any(|outcome| matches!(outcome, TokenOutcome::Invalid(_)));
    let says_more = *degraded || *awaits_body || shadow.is_some() || candidate.is_some() || *suspended;
    let asks_more = refusal.is_some()
        || !remove.is_empty()
        || question.is_some()
        || awaits.is_some()
        || unsettled.is_some()
        || *is_stranger;
    *outcome == Outcome::Allow
        && *reason == Reason::AllowedBy
        && *audit == Audit::Sampled
        && !refused
        && !says_more
        && !asks_more
        // A signature that had to be checked has been checked, once.
        && *remembered == verified
}

// === impl Last ===

impl Last {
    /// Whether it is worth keeping what was decided of this request, of which nothing was known: it has come a second time.
    /// Where ever more look so and are yet unlike (in a header that changes with each, say), few of them are kept.
    fn comes_again(&mut self, look: Look) -> bool {
        self.unknown = match (self.look == look, self.unknown) {
            (false, _) => 1,
            (true, 128..) => 65,
            (true, unknown) => unknown.saturating_add(1),
        };
        self.look = look;
        self.unknown > 1 && self.unknown.is_power_of_two()
    }
}

// === impl Kept ===

impl Kept {
    fn new(look: Look, received: &Received, answer: &Answer, uses: &[VerifiedUse], now: i64) -> Option<Self> {
        let block = received.block();
        let until = answer.terms.expires_at.min(answer.terms.again_at);
        if block.len() > MAX_BLOCK || received.asked_connection() || until <= now {
            return None;
        }
        Some(Self {
            look,
            read: read_parts(block)?,
            block: block.into(),
            peer: received.peer_uri().map(Box::from),
            has_body: has_body(received)?,
            from: now,
            until,
            stood_for: 0,
            standing: Standing {
                rule: answer.decision.rule,
                remembered: answer.remembered,
                terms: answer.terms,
            },
            uses: uses.to_vec(),
        })
    }

    fn is_like(&self, received: &Received) -> bool {
        let block = received.block();
        block.len() == self.block.len()
            && has_body(received) == Some(self.has_body)
            && match (received.peer_uri(), self.peer.as_deref()) {
                (Some(one), Some(other)) => same(one, other),
                (None, None) => true,
                _ => false,
            }
            && self.read.iter().all(|(begin, end)| {
                match (block.get(*begin..*end), self.block.get(*begin..*end)) {
                    (Some(one), Some(other)) => same(one, other),
                    _ => false,
                }
            })
    }
}

/// Tokens are not for logs.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until, standing, .. } = self;
        f.debug_struct("Kept")
            .field("from", from)
            .field("until", until)
            .field("standing", standing)
            .finish_non_exhaustive()
    }
}

/// Whether a body follows; `None`: it was read.
fn has_body(received: &Received) -> Option<bool> {
    match received.body() {
        Content::Empty => Some(false),
        Content::Unread => Some(true),
        Content::Fields(_) => None,
    }
}

/// What is compared of a block: all of it but values of [`UNREAD`]. `None`: it has headers that only Tidegate sets, or is
/// malformed.
fn read_parts(block: &[u8]) -> Option<Vec<(usize, usize)>> {
    let headers = parse(block).ok()?;
    let lengths = headers.len().checked_mul(8)?.checked_add(4)?;
    let (mut parts, mut begin, mut at) = (Vec::new(), 0, lengths);
    for (name, value) in headers {
        if normal::is_own_header(name) {
            return None;
        }
        let value_begins = at.checked_add(name.len())?.checked_add(1)?;
        let value_ends = value_begins.checked_add(value.len())?;
        if is_unread(name) {
            parts.push((begin, value_begins));
            begin = value_ends;
        }
        at = value_ends.checked_add(1)?;
    }
    parts.push((begin, block.len()));
    Some(parts)
}

fn is_unread(name: &[u8]) -> bool {
    UNREAD.iter().any(|unread| unread.as_bytes() == name)
}

// === impl Look ===

impl Look {
    /// Of the lengths of all headers, the pseudo headers, the end of the longest value, which is the token's signature where
    /// there is one, and the peer. (Not of what differs from request to request, or no request would be found.)
    fn at(received: &Received) -> Option<Self> {
        let (count, rest) = received.block().split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(8)?;
        let (lengths, content) = rest.split_at_checked(size)?;
        let (lengths, _) = lengths.as_chunks::<8>();
        let mut hash: u64 = 0x243f_6a88_85a3_08d3;
        let (mut end, mut head, mut longest, mut tail) = (0_usize, 0, 0, 0);
        let (mut is_pseudo, mut longest_name) = (true, &[][..]);
        for pair in lengths {
            let pair = u64::from_le_bytes(*pair);
            hash = mix(hash, pair);
            let begin = end;
            is_pseudo &= content.get(begin) == Some(&b':');
            let (name, value) =
                (usize::try_from(pair & 0xffff_ffff).ok()?, usize::try_from(pair >> 32).ok()?);
            end = end.checked_add(name)?.checked_add(value)?.checked_add(2)?;
            if is_pseudo {
                head = end;
            }
            if value > longest {
                (longest, tail) = (value, end.checked_sub(1)?);
                longest_name = content.get(begin..begin.checked_add(name)?)?;
            }
        }
        hash = text(hash, content.get(..head.min(HEAD_BYTES))?);
        if longest >= TOKEN_BYTES && !is_unread(longest_name) {
            hash = text(hash, content.get(tail.checked_sub(TAIL_BYTES)?..tail)?);
        }
        if let Some(peer) = received.peer_uri() {
            hash = text(hash, peer);
        }
        Some(Self(hash ^ (hash >> 32)))
    }

    fn place(self) -> usize {
        // Less than that, so it fits whatever a `usize` is.
        usize::try_from(self.0 % PLACES).unwrap_or_default()
    }
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

fn text(hash: u64, text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

#[cfg(test)]
mod tests;
