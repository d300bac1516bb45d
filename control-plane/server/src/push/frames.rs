//! What travels to filters, encoded once and shared by all streams.
//!
//! A push differs between streams only in which sections the filter lacks, so every such variant of a release is encoded
//! when the first stream needs it, as gRPC messages with their prefix, ready for HTTP/2. Large sections are not even
//! copied: a chunk's header and a slice of the section follow each other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tidegate_proto::MAX_CHUNK_BYTES;
use tidegate_proto::v1 as pb;

use crate::bundle::{Release, Revision, Section, Sha256};

/// Chunks up to this size are copied together with their neighbours into one buffer, in bytes.
const COALESCED_BYTES: usize = 16 << 10;

// Field numbers of `tidegate.v1`; the tests decode what is written here with the generated code.
const RESPONSE_CHUNK: u32 = 2;
const CHUNK_CONTENT: u32 = 3;

/// A release on offer to the streams of its workload.
#[derive(Debug)]
pub struct Offer {
    release: Arc<Release>,
    since: Instant,
    /// By the set of sections that travel.
    variants: Mutex<Vec<(u64, Arc<[Bytes]>)>>,
}

// === impl Offer ===

impl Offer {
    /// Nothing is encoded yet.
    pub fn new(release: Arc<Release>) -> Self {
        Self { release, since: Instant::now(), variants: Mutex::default() }
    }

    /// What is on offer.
    pub fn release(&self) -> &Arc<Release> {
        &self.release
    }

    /// For how long it has been on offer.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What identifies a push of this release in `Ack` and `Nack`: of the revision's epoch and counter, which two releases on one
    /// stream never have in common, whoever signed them. Never 0: counters begin with 1.
    pub fn nonce(&self) -> u64 {
        let Revision { epoch, counter } = self.release.revision();
        (epoch << 32) | (counter & u64::from(u32::MAX))
    }

    /// The push and the sections that are not `held`, as data for the wire. `with_candidate`: to a filter that knows what
    /// that is.
    pub fn frames(&self, held: &[Sha256], with_candidate: bool) -> Arc<[Bytes]> {
        let missing = self.missing(held, with_candidate);
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frames)) = variants.iter().find(|(set, _)| *set == missing) {
            return frames.clone();
        }
        let frames = self.encode(missing);
        variants.push((missing, frames.clone()));
        frames
    }

    /// Sections that may travel, each once: what is enforced, then what only the candidate needs.
    fn sections(&self) -> impl Iterator<Item = &Arc<Section>> {
        let enforced = self.release.sections();
        let candidate = self.release.candidate().iter();
        enforced.iter().chain(candidate.filter(|section| !enforced.contains(section)))
    }

    /// One bit per section. A manifest has a handful of sections; should one have more than 64, those beyond never
    /// travel.
    fn missing(&self, held: &[Sha256], with_candidate: bool) -> u64 {
        let count = if with_candidate { 64 } else { self.release.sections().len() };
        let sections = self.sections().take(count.min(64)).enumerate();
        sections.filter(|(_, section)| !held.contains(section.sha256())).fold(0, |set, (ix, _)| set | 1 << ix)
    }

    fn encode(&self, missing: u64) -> Arc<[Bytes]> {
        let sections = self.sections().take(64).enumerate();
        let sections: Vec<&Arc<Section>> =
            sections.filter(|(ix, _)| missing & 1 << ix != 0).map(|(_, section)| section).collect();
        let chunk_bytes = sections.iter().map(|section| length(section.content().len())).sum();
        let push =
            pb::Push { nonce: self.nonce(), manifest: Some(self.release.signed().clone()), chunk_bytes };
        let mut wire = Wire::default();
        wire.message(&pb::SubscribeResponse { message: Some(pb::subscribe_response::Message::Push(push)) });
        for section in sections {
            wire.section(section);
        }
        wire.finish()
    }
}

/// One message as data for the wire.
pub fn frame(message: &pb::SubscribeResponse) -> Bytes {
    framed(message)
}

/// The same of any kind.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let mut wire = Wire::default();
    wire.message(message);
    wire.pending.freeze()
}

/// Messages one after another.
#[derive(Default)]
pub(super) struct Wire {
    done: Vec<Bytes>,
    pending: BytesMut,
}

// === impl Wire ===

impl Wire {
    pub(super) fn message(&mut self, message: &impl Message) {
        let encoded = message.encode_to_vec();
        self.prefix(encoded.len());
        self.pending.put_slice(&encoded);
    }

    /// "Length-Prefixed-Message → Compressed-Flag Message-Length Message" (gRPC over HTTP/2).
    fn prefix(&mut self, message_length: usize) {
        self.pending.put_u8(0);
        // INVARIANT: a message is a chunk of at most 1 MiB with a short header, or a manifest.
        self.pending.put_u32(u32::try_from(message_length).unwrap_or(u32::MAX));
    }

    /// The chunks of a section, as a `SubscribeResponse` or a `FollowResponse` has them.
    pub(super) fn section(&mut self, section: &Section) {
        let content = section.content();
        let mut offset = 0;
        while offset < content.len() {
            let end = content.len().min(offset + MAX_CHUNK_BYTES);
            self.chunk(section.sha256(), offset, content.slice(offset..end));
            offset = end;
        }
    }

    /// `SubscribeResponse { chunk: SectionChunk { sha256, offset, content } }`, the content last.
    fn chunk(&mut self, sha256: &Sha256, offset: usize, content: Bytes) {
        let head =
            pb::SectionChunk { sha256: sha256.to_vec(), offset: length(offset), content: Bytes::new() };
        let head = head.encode_to_vec();
        let chunk_length =
            head.len() + key_len(CHUNK_CONTENT) + encoded_len_varint(length(content.len())) + content.len();
        self.prefix(key_len(RESPONSE_CHUNK) + encoded_len_varint(length(chunk_length)) + chunk_length);
        encode_key(RESPONSE_CHUNK, WireType::LengthDelimited, &mut self.pending);
        encode_varint(length(chunk_length), &mut self.pending);
        self.pending.put_slice(&head);
        encode_key(CHUNK_CONTENT, WireType::LengthDelimited, &mut self.pending);
        encode_varint(length(content.len()), &mut self.pending);
        if content.len() <= COALESCED_BYTES {
            self.pending.put_slice(&content);
        } else {
            self.flush();
            self.done.push(content);
        }
        if self.pending.len() >= COALESCED_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.done.push(self.pending.split().freeze());
        }
    }

    pub(super) fn finish(mut self) -> Arc<[Bytes]> {
        self.flush();
        self.done.into()
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
