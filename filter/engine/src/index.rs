//! Keys of the index: what a rule demands literally, and what a request offers.
//!
//! A rule is filed under a *shape* — which of subject, claim, host and path segments it is looked up by — and under the
//! hash of these values. A request is looked up once per shape that occurs. However many rules there are, a request meets
//! those of its own subject, claim, host and segments, as far as telling them apart needs these (see `encode/shapes`).
//!
//! INVARIANT: a rule that matches a request, or may match it, is found: every part of its key is something that the
//! request must offer for the rule not to be false.

use crate::condition;
use crate::hash;
use crate::layout::{NONE, code, size};
use crate::request::{ClaimValue, Peer, Request};
use crate::scan;

/// Segments from the path's beginning that the index uses.
pub(crate) const MAX_SEGMENTS: usize = 8;

/// Most labels of a host's suffix that the index uses.
pub(crate) const MAX_LABELS: u32 = 6;

/// Longest beginning of a segment that the index uses, in bytes.
pub(crate) const MAX_BEGINNING: u32 = 64;

/// Which parts a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shape {
    /// `code::SUBJECT_*`.
    pub subject: u32,
    /// Issuer and slot of a demanded claim, as `issuer << 16 | slot`; `NONE` without.
    pub claim: u32,
    /// `code::CLAIM_*`; 0 without a claim.
    pub claim_kind: u32,
    /// 0 without, 1 for the whole host, `n + 1` for its last `n` labels and the dot before them.
    pub host: u32,
    /// One bit for each segment.
    pub segments: u32,
    /// Of one segment more only how it begins: `position << 8 | bytes`; 0 without.
    pub beginning: u32,
}

/// What different parts begin with, so that the same text in two of them is not the same.
mod domain {
    pub const SHAPE: u64 = 1;
    pub const NAMESPACE: u64 = 2;
    pub const CLAIM: u64 = 3;
    pub const HOST: u64 = 4;
    pub const TRUST_DOMAIN: u64 = 5;
    pub const SEGMENT: u64 = 16;
    pub const BEGINNING: u64 = 32;
}

/// The claim's part of a key under which rules are that match where the claim cannot be told.
pub(crate) const UNTELLABLE: u64 = 1;

fn seeded(domain: u64, text: &[u8]) -> u64 {
    hash::bytes(domain.wrapping_mul(0x9E37_79B9_7F4A_7C15), text)
}

pub(crate) fn account_part(namespace: u64, account: &str) -> u64 {
    hash::bytes(namespace, account.as_bytes())
}

pub(crate) fn namespace_part(namespace: &str) -> u64 {
    seeded(domain::NAMESPACE, namespace.as_bytes())
}

pub(crate) fn text_part(value: &str) -> u64 {
    seeded(domain::CLAIM, value.as_bytes())
}

pub(crate) fn integer_part(value: i64) -> u64 {
    seeded(domain::CLAIM, &value.to_le_bytes())
}

pub(crate) fn host_part(host: &str) -> u64 {
    seeded(domain::HOST, host.as_bytes())
}

pub(crate) fn segment_part(position: usize, segment: &[u8]) -> u64 {
    seeded(domain::SEGMENT.wrapping_add(u64::try_from(position).unwrap_or(0)), segment)
}

pub(crate) fn beginning_part(position: u32, beginning: &[u8]) -> u64 {
    seeded(domain::BEGINNING.wrapping_add(u64::from(position)), beginning)
}

/// A key from the shape's [salt](Shape::salt) and the exclusive or of its parts.
#[inline]
pub(crate) fn key(salt: u64, parts: u64) -> u64 {
    hash::number(salt, parts)
}

/// The bucket of a key, of so many.
#[inline]
pub(crate) fn bucket(key: u64, buckets: u32) -> u32 {
    u32::try_from(((key >> 32).wrapping_mul(u64::from(buckets))) >> 32).unwrap_or(0)
}

/// What tells most keys of one bucket apart; 0 to 254, so that it takes one byte.
#[inline]
pub(crate) fn tag(key: u64) -> u32 {
    u32::try_from(key & 0xFF).unwrap_or(0).min(254)
}

/// The key that marks peers which are let in only with a token.
pub(crate) fn token_required(subject: u64) -> u64 {
    let shape = Shape {
        subject: code::SUBJECT_TOKEN_REQUIRED,
        claim: NONE,
        claim_kind: 0,
        host: 0,
        segments: 0,
        beginning: 0,
    };
    key(shape.salt(), subject)
}

/// Subjects of [`token_required`] that are no account or namespace.
pub(crate) const WITHOUT_PEER: u64 = 1;
pub(crate) const ANYONE: u64 = 2;

pub(crate) fn any_mesh_part(trust_domain: &str) -> u64 {
    seeded(domain::TRUST_DOMAIN, trust_domain.as_bytes())
}

// === impl Shape ===

impl Shape {
    /// Differs from shape to shape.
    pub fn salt(self) -> u64 {
        let words = [self.subject, self.claim, self.claim_kind, self.host, self.segments, self.beginning];
        words.into_iter().fold(domain::SHAPE, |salt, word| hash::number(salt, u64::from(word)))
    }

    pub fn words(self) -> [u32; 6] {
        [self.subject, self.claim, self.claim_kind, self.host, self.segments, self.beginning]
    }

    pub fn of_words([subject, claim, claim_kind, host, segments, beginning]: [u32; 6]) -> Self {
        Self { subject, claim, claim_kind, host, segments, beginning }
    }
}

/// The shapes of a policy, ready to be looked up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shapes {
    shapes: Vec<(Shape, u64)>,
    /// Segments that any shape needs.
    segments: u32,
    /// Whether any shape has a subject.
    subjects: bool,
}

// === impl Shapes ===

impl Shapes {
    pub fn new(shapes: impl Iterator<Item = Shape>) -> Self {
        let mut all = Self::default();
        for shape in shapes {
            all.segments |= shape.segments;
            all.subjects |= shape.subject != code::SUBJECT_NONE;
            all.shapes.push((shape, shape.salt()));
        }
        all
    }

    /// Calls `visit` with every key that the request offers.
    #[inline]
    pub fn each_key(&self, request: &Request<'_>, mut visit: impl FnMut(u64)) {
        let (namespace, account) = match request.peer {
            Peer::Mesh { namespace, service_account, .. } if self.subjects => {
                let namespace = namespace_part(namespace);
                (Some(namespace), Some(account_part(namespace, service_account)))
            }
            _ => (None, None),
        };
        let (segments, there) = self.segments(request.path.inner().as_bytes());
        for (shape, salt) in &self.shapes {
            let subject = match shape.subject {
                code::SUBJECT_NONE => Some(0),
                code::SUBJECT_ACCOUNT => account,
                code::SUBJECT_NAMESPACE => namespace,
                _ => None,
            };
            let Some(mut parts) = subject else { continue };
            if shape.segments & !there != 0 {
                continue;
            }
            let mut wanted = shape.segments;
            while wanted != 0 {
                let position = wanted.trailing_zeros();
                parts ^= segments.get(size(position)).copied().unwrap_or(0);
                wanted &= wanted.wrapping_sub(1);
            }
            if shape.host != 0 {
                match request.host.and_then(|host| last_labels(host, shape.host.wrapping_sub(1))) {
                    Some(host) => parts ^= host_part(host),
                    None => continue,
                }
            }
            if shape.beginning != 0 {
                match beginning(request.path.inner().as_bytes(), shape.beginning) {
                    Some(part) => parts ^= part,
                    None => continue,
                }
            }
            if shape.claim == NONE {
                visit(key(*salt, parts));
            } else {
                each_claim_part(request, shape, |claim| visit(key(*salt, parts ^ claim)));
            }
        }
    }

    /// The parts of the segments that any shape needs, and which there are.
    #[inline]
    fn segments(&self, path: &[u8]) -> ([u64; MAX_SEGMENTS], u32) {
        let mut parts = [0; MAX_SEGMENTS];
        let (mut there, mut bit) = (0, 1);
        let mut rest = path;
        for (position, part) in parts.iter_mut().enumerate() {
            if rest.is_empty() || self.segments < bit {
                break;
            }
            let (segment, behind) = scan::before(rest, b'/');
            there |= bit;
            if self.segments & bit != 0 {
                *part = segment_part(position, segment);
            }
            rest = behind;
            bit <<= 1;
        }
        (parts, there)
    }
}

/// The part of a segment's beginning; `None` if there is no such segment, or a shorter one.
fn beginning(path: &[u8], beginning: u32) -> Option<u64> {
    let (position, length) = (beginning >> 8, beginning & 0xFF);
    let segment = path.split(|byte| *byte == b'/').nth(size(position))?;
    segment.get(..size(length)).map(|start| beginning_part(position, start))
}

/// The host itself for 0 labels, else its last ones and the dot before them; `None` if there is nothing before it.
pub(crate) fn last_labels(host: &str, labels: u32) -> Option<&str> {
    if labels == 0 {
        return Some(host);
    }
    let (at, _) =
        host.bytes().enumerate().rev().filter(|(_, byte)| *byte == b'.').nth(size(labels).wrapping_sub(1))?;
    if at == 0 { None } else { host.get(at..) }
}

/// What the request offers where a rule demands a value of this claim.
fn each_claim_part(request: &Request<'_>, shape: &Shape, mut visit: impl FnMut(u64)) {
    match (shape.claim_kind, condition::claim(request, shape.claim)) {
        // Every test of an absent claim is false.
        (_, ClaimValue::Absent) => {}
        (code::CLAIM_TEXT, ClaimValue::String(value)) => visit(text_part(value)),
        (code::CLAIM_INTEGER, ClaimValue::Integer(value)) => visit(integer_part(*value)),
        (code::CLAIM_LIST, ClaimValue::Strings(values)) => {
            values.iter().for_each(|value| visit(text_part(value)))
        }
        // What cannot be told, or is of another type than the test's, makes a Deny match.
        _ => visit(UNTELLABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(target_arch = "wasm32", wasm_bindgen_test::wasm_bindgen_test)]
    #[test]
    fn a_suffix_is_found_by_its_labels() {
        let table = [
            ("a.orders.example", 0, Some("a.orders.example")),
            ("a.orders.example", 1, Some(".example")),
            ("a.orders.example", 2, Some(".orders.example")),
            ("a.orders.example", 3, None),
            ("example", 1, None),
            (".example", 1, None),
        ];
        for (host, labels, expected) in table {
            assert_eq!(last_labels(host, labels), expected, "{host} {labels}");
        }
    }
}
