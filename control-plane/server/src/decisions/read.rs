//! Reads a filter's record: everything is bounded, cleaned and completed by what the control plane knows itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_identity::PackKind;
use tidegate_proto::v1 as pb;

use super::clean;
use super::record::{Audit, Claim, Difference, Moment, Outcome, Recorded, Revision, RuleRef, RuleSource};
use super::{operation, run};
use crate::bundle::hex;

/// Longest path, in bytes.
const MAX_PATH: usize = 2_048;
/// Longest host, in bytes (RFC 1035 limits names to 253).
const MAX_HOST: usize = 262;
/// Longest name of a rule, an issuer, an instance or a claim, in bytes.
const MAX_NAME: usize = 320;
/// Longest SPIFFE id, in bytes (SPIFFE-ID §2.3: 2048, but those of the mesh are far shorter).
const MAX_PEER: usize = 768;
/// Longest word: a method, a reason.
const MAX_WORD: usize = 64;
/// Longest value of a claim, in bytes.
const MAX_VALUE: usize = 512;
/// Most issuers, claims, and values of a claim.
const MAX_ISSUERS: usize = 16;
const MAX_CLAIMS: usize = 64;
const MAX_VALUES: usize = 32;
/// All values of all claims together, in bytes.
const MAX_CLAIM_BYTES: usize = 8 << 10;
/// How old a decision may be when its record comes: filters do not buffer for longer.
const OLDEST_US: i64 = 24 * 3_600 * 1_000_000;
/// How far the clock of a proxy may be ahead.
const NEWEST_US: i64 = 5 * 60 * 1_000_000;

/// What the control plane knows about what records name.
#[derive(Debug, Default)]
pub struct Known {
    /// The packs of issuers.
    pub packs: BTreeMap<String, PackKind>,
    /// Where rules are written, and who changed them last.
    pub rules: BTreeMap<String, Arc<RuleSource>>,
    /// The last revision that was signed when this was known; a later one may be of other rules.
    pub until: Option<Revision>,
}

/// Whose batch it is.
#[derive(Debug, Clone)]
pub struct From<'s> {
    /// Verified: `namespace/name`.
    pub workload: &'s str,
    /// Self-reported, cleaned.
    pub instance: &'s str,
    /// SHA-256 of the manifest that the workload is to enforce now.
    pub manifest: Option<[u8; 32]>,
}

/// A record, and how many tokens had to be removed from it.
#[derive(Debug)]
pub struct Read {
    /// The record.
    pub recorded: Recorded,
    /// Texts in which something looked like a token.
    pub tokens_removed: u64,
}

struct Cleaner {
    removed: u64,
}

// === impl Cleaner ===

impl Cleaner {
    fn text(&mut self, raw: &str, most: usize) -> String {
        let text = clean::text(raw, most);
        if text.contains(clean::REMOVED) {
            self.removed = self.removed.saturating_add(1);
        }
        text
    }

    fn some(&mut self, raw: &str, most: usize) -> Option<String> {
        Some(self.text(raw, most)).filter(|text| !text.is_empty())
    }

    fn claims(&mut self, raw: &[pb::RecordedClaim]) -> Vec<Claim> {
        let mut left = MAX_CLAIM_BYTES;
        let mut claims = Vec::with_capacity(raw.len().min(MAX_CLAIMS));
        for claim in raw.iter().take(MAX_CLAIMS) {
            let mut values = Vec::new();
            for value in claim.values.iter().take(MAX_VALUES) {
                let value = self.text(value, MAX_VALUE.min(left));
                left = left.saturating_sub(value.len());
                values.push(value);
            }
            claims.push(Claim {
                issuer: self.text(&claim.issuer, MAX_NAME),
                claim: self.text(&claim.claim, MAX_NAME),
                values,
            });
            if left == 0 {
                break;
            }
        }
        claims
    }

    fn difference(&mut self, raw: &pb::ShadowDifference) -> Difference {
        Difference {
            outcome: raw.outcome().into(),
            reason: self.text(&raw.reason, MAX_WORD),
            rule: self.some(&raw.rule, MAX_NAME),
        }
    }
}

impl std::convert::From<pb::Outcome> for Outcome {
    fn from(outcome: pb::Outcome) -> Self {
        match outcome {
            pb::Outcome::Allow => Self::Allow,
            pb::Outcome::Deny => Self::Deny,
            pb::Outcome::Unspecified => Self::Unknown,
        }
    }
}

impl std::convert::From<pb::Audit> for Audit {
    fn from(audit: pb::Audit) -> Self {
        match audit {
            pb::Audit::Unspecified => Self::Unsaid,
            pb::Audit::Sampled => Self::Sampled,
            pb::Audit::Full => Self::Full,
            pb::Audit::Required => Self::Required,
        }
    }
}

/// The instance of a batch, fit to be kept.
pub fn instance(raw: &str) -> String {
    clean::text(raw, MAX_NAME)
}

/// An id as it is looked for: what people type instead of what they see counts (Crockford's base 32).
pub fn id(raw: &str) -> String {
    let same = |c: char| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    clean::text(raw.trim(), MAX_WORD).chars().map(same).collect()
}

/// Whether it has the form of an id: three groups of four characters.
pub fn is_id(text: &str) -> bool {
    let groups: Vec<&str> = text.trim().split('-').collect();
    let is_group = |group: &&str| group.len() == 4 && group.bytes().all(|byte| byte.is_ascii_alphanumeric());
    groups.len() == 3 && groups.iter().all(is_group)
}

/// Reads a record. `now`: when it came.
pub fn record(raw: &pb::DecisionRecord, from: &From<'_>, known: &Known, now: Moment) -> Read {
    let mut cleaner = Cleaner { removed: 0 };
    let told = raw.time_ns.div_euclid(1_000);
    let is_absurd = told < now.0.saturating_sub(OLDEST_US) || told > now.0.saturating_add(NEWEST_US);
    let revision = raw.revision.as_ref().map(|one| Revision { epoch: one.epoch, counter: one.counter });
    let claims = cleaner.claims(&raw.claims);
    let issuers: Vec<String> =
        raw.issuers.iter().take(MAX_ISSUERS).map(|name| cleaner.text(name, MAX_NAME)).collect();
    let packs = || issuers.iter().filter_map(|name| Some((name.as_str(), *known.packs.get(name)?)));
    let peer = cleaner.some(&raw.peer, MAX_PEER);
    let identities = peer.iter().cloned().chain(run::identities(&claims, packs())).collect();
    let run = run::of(&claims, packs());
    let method = cleaner.text(&raw.method, MAX_WORD);
    let host = cleaner.text(&raw.host, MAX_HOST);
    let path = cleaner.text(&raw.path, MAX_PATH);
    let (operation, resource) = operation::of(&method, &host, &path).unzip();
    // Of other rules than those of now nobody knows here where they were written.
    let is_current = from.manifest.is_some_and(|manifest| raw.manifest_sha256 == manifest)
        && revision.is_some()
        && revision <= known.until;
    let rule = cleaner.some(&raw.rule, MAX_NAME).map(|name| RuleRef {
        source: known.rules.get(&name).filter(|_| is_current).map(|source| RuleSource::clone(source)),
        name,
    });
    let recorded = Recorded {
        id: id(&raw.decision_id),
        time: if is_absurd { now } else { Moment(told) },
        time_refused: is_absurd,
        workload: from.workload.to_owned(),
        instance: from.instance.to_owned(),
        outcome: raw.outcome().into(),
        audit: raw.audit().into(),
        reason: cleaner.text(&raw.reason, MAX_WORD),
        rule,
        peer,
        identities,
        issuers,
        claims,
        run,
        method,
        host,
        path,
        port: u16::try_from(raw.port).ok().filter(|port| *port != 0),
        operation,
        // It was decoded, so what was harmless before may not be any more.
        resource: resource.flatten().map(|name| cleaner.text(&name, MAX_PATH)),
        revision,
        digest: fixed::<32>(&raw.manifest_sha256),
        trace_id: fixed::<16>(&raw.trace_id),
        span_id: fixed::<8>(&raw.span_id),
        trace_flags: raw.trace_flags.and_then(|flags| flags.try_into().ok()),
        decided_in_ns: raw.decided_in_ns,
        shadow: raw.shadow.as_ref().map(|one| cleaner.difference(one)),
        candidate: raw.candidate.as_ref().map(|one| cleaner.difference(one)),
        degraded: raw.degraded,
        ended: raw.ended,
        stands_for: raw.stands_for.max(1),
        self_reported: true,
    };
    Read { recorded, tokens_removed: cleaner.removed }
}

/// Hexadecimal, if it is so many bytes and not all of them are zero.
fn fixed<const N: usize>(bytes: &[u8]) -> Option<String> {
    let is_there = bytes.len() == N && bytes.iter().any(|byte| *byte != 0);
    is_there.then(|| hex(bytes))
}

#[cfg(test)]
mod tests;
