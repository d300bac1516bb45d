//! Bundles: whose they are, whether they are newer, and their sections.
//!
//! The order of checks: well formed, signed by a trusted key, for this workload, of a format and capabilities that are
//! understood, not older than what is enforced, in time. Only then is memory spent on sections, and only as much as the
//! signed manifest says.
//!
//! INVARIANT: a Bundle takes effect as a whole or not at all. What is refused changes nothing.

use std::rc::Rc;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidegate_engine::{Directories, PolicySet};
use tidegate_identity::signature::check;
use tidegate_identity::{Algorithm, IssuerSet, PublicKey, Verdict, VerifySignature};
use tidegate_proto::MAX_SUSPENSION_S;
use tidegate_proto::v1::{self as pb, NackReason};

use crate::capabilities;

/// SHA-256.
pub type Sha = [u8; 32];

/// Most bytes that the sections of one Bundle may have.
const MAX_BUNDLE_BYTES: u64 = 96 << 20;

/// How far the control plane's clock may be ahead of ours, in seconds.
pub const MAX_CLOCK_DIFFERENCE: i64 = 300;

/// Why a Bundle was refused: the reason for programs, the detail for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// As it is reported.
    pub reason: NackReason,
    /// What, where, why.
    pub detail: String,
}

fn refused<T>(reason: NackReason, detail: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { reason, detail: detail.into() })
}

/// Epoch, then counter.
pub type Revision = (u64, u64);

/// A manifest that may be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of its bytes.
    pub digest: Sha,
    /// Where it stands in the order of revisions.
    pub revision: Revision,
    /// When it was issued, in Unix seconds: a clock that is far before this is wrong.
    pub issued_at: i64,
    /// Whether the workload is guarded.
    pub guarded: bool,
    /// Until when what is refused passes all the same, in Unix seconds.
    pub suspended_until: i64,
    /// A capability that this filter lacks, so that a part of the rules is enforced more strictly than it says.
    pub lacks: Option<String>,
    /// What is enforced.
    pub enforced: Sections,
    /// What is evaluated beside it, and never enforced.
    pub candidate: Option<Sections>,
}

/// One section of each kind at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sections {
    /// Rules, if any.
    pub rules: Option<SectionRef>,
    /// Issuers' keys, if any.
    pub keys: Option<SectionRef>,
    /// Directories, if any.
    pub directory: Option<SectionRef>,
}

/// A section by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionRef {
    /// SHA-256 of the content.
    pub digest: Sha,
    /// Its length in bytes.
    pub size: usize,
}

/// What a filter believes and enforces, as far as accepting a manifest depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'t> {
    /// The only audience that is accepted.
    pub workload: &'t str,
    /// Keys by id.
    pub keys: &'t [(String, PublicKey)],
    /// What is enforced now: its revision and digest.
    pub enforced: Option<(Revision, Sha)>,
    /// The candidate that belongs to it is not there: a warm start has none.
    pub lacks_candidate: bool,
    /// Unix seconds.
    pub now: i64,
}

/// What can be enforced: decoded sections, each with the digest it came from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Its manifest.
    pub manifest: Manifest,
    /// Empty for a workload that is not guarded.
    pub rules: Option<Rc<PolicySet>>,
    /// Issuers and keys.
    pub keys: Option<Rc<IssuerSet>>,
    /// Empty where no rule looks ids up.
    pub directory: Rc<Directories>,
    /// What is evaluated beside, if the manifest has it and it could be read.
    pub candidate: Option<Decoded>,
}

/// Decoded sections.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// Rules.
    pub rules: Option<Rc<PolicySet>>,
    /// Issuers and keys.
    pub keys: Option<Rc<IssuerSet>>,
    /// Empty where no rule looks ids up.
    pub directory: Rc<Directories>,
}

/// Checks a signed manifest. `Ok(None)`: it is the one that is enforced already, and nothing of it is missing.
///
/// # Errors
/// With the reason to report; see the module's documentation for the order.
pub fn accept(
    signed: &pb::SignedManifest,
    trust: Trust<'_>,
    verifier: &dyn VerifySignature,
) -> Result<Option<Manifest>, Refused> {
    let input = tidegate_proto::manifest_signing_input(&signed.manifest);
    let trusted = signed.signatures.iter().take(4).any(|one| {
        trust.keys.iter().any(|(id, key)| {
            *id == one.key_id
                && check(verifier, Algorithm::Es256, key, &input, &one.signature) == Verdict::Valid
        })
    });
    if !trusted {
        return refused(NackReason::BadSignature, "no trusted key has signed this manifest");
    }
    let digest = sha256(&signed.manifest);
    let is_enforced = trust.enforced.is_some_and(|(_, enforced)| enforced == digest);
    if is_enforced && !trust.lacks_candidate {
        return Ok(None);
    }
    let Ok(manifest) = pb::Manifest::decode(signed.manifest.as_slice()) else {
        return refused(NackReason::Malformed, "the manifest is not a Manifest message");
    };
    if manifest.format_version != tidegate_proto::VERSION {
        return refused(
            NackReason::MissingCapability,
            format!(
                "the manifest has format {}, this filter reads {}",
                manifest.format_version,
                tidegate_proto::VERSION
            ),
        );
    }
    if manifest.audience != trust.workload {
        return refused(
            NackReason::WrongAudience,
            format!("the Bundle is for `{}`, this is `{}`", manifest.audience, trust.workload),
        );
    }
    let lacks = |needed: &&String| !capabilities().any(|known| known == needed.as_str());
    if let Some(missing) = manifest.required_capabilities.iter().find(lacks) {
        return refused(NackReason::MissingCapability, format!("this filter lacks `{missing}`"));
    }
    let Some(revision) = manifest.revision.map(|revision| (revision.epoch, revision.counter)) else {
        return refused(NackReason::Malformed, "the manifest has no revision");
    };
    if let Some((enforced, _)) = trust.enforced
        && revision <= enforced
        && !is_enforced
    {
        return refused(
            NackReason::StaleRevision,
            format!(
                "revision {}.{} does not follow {}.{}, which is enforced",
                revision.0, revision.1, enforced.0, enforced.1
            ),
        );
    }
    let is_too_late = trust.now > manifest.not_after;
    let is_too_early = trust.now < manifest.issued_at.saturating_sub(MAX_CLOCK_DIFFERENCE);
    // It stays enforced, whatever it lacks.
    if is_enforced && (is_too_late || is_too_early) {
        return Ok(None);
    }
    if is_too_late {
        return refused(NackReason::Expired, "the Bundle may no longer be installed; is this clock right?");
    }
    if is_too_early {
        return refused(NackReason::Expired, "the Bundle was issued in the future; is this clock right?");
    }
    let suspended_until = manifest.suspended_until;
    if suspended_until > manifest.issued_at.saturating_add(MAX_SUSPENSION_S) {
        return refused(NackReason::Malformed, "the Guard would be suspended for longer than 8 hours");
    }
    let guarded = match manifest.coverage() {
        pb::Coverage::Guarded => true,
        pb::Coverage::Unguarded => false,
        pb::Coverage::Unspecified => {
            return refused(
                NackReason::Malformed,
                "the manifest does not say whether the workload is guarded",
            );
        }
    };
    let (enforced, total) = sections(&manifest.sections)?;
    if total > MAX_BUNDLE_BYTES {
        return refused(NackReason::TooLarge, format!("the sections have {total} bytes"));
    }
    if guarded && enforced.rules.is_none() {
        return refused(NackReason::MissingSection, "the workload is guarded, and there is no rules section");
    }
    // Whatever is wrong with a candidate, it is left out.
    let candidate = sections(&manifest.candidate).ok().filter(|(candidate, more)| {
        candidate.rules.is_some() && total.saturating_add(*more) <= MAX_BUNDLE_BYTES
    });
    let candidate = candidate.map(|(candidate, _)| candidate);
    let lacks = manifest.used_capabilities.iter().find(lacks).cloned();
    let issued_at = manifest.issued_at;
    Ok(Some(Manifest { digest, revision, issued_at, guarded, suspended_until, lacks, enforced, candidate }))
}

/// The sections by kind, and how many bytes they have.
fn sections(named: &[pb::SectionRef]) -> Result<(Sections, u64), Refused> {
    let mut sections = Sections::default();
    let mut total = 0u64;
    for section in named {
        total = total.saturating_add(section.size);
        let (Ok(digest), Ok(size @ 1..)) =
            (Sha::try_from(section.sha256.as_slice()), usize::try_from(section.size))
        else {
            return refused(NackReason::Malformed, "a section has no SHA-256, or is empty");
        };
        let slot = match section.kind() {
            pb::SectionKind::Rules => &mut sections.rules,
            pb::SectionKind::Keys => &mut sections.keys,
            pb::SectionKind::Directory => &mut sections.directory,
            pb::SectionKind::Automata | pb::SectionKind::Unspecified => {
                return refused(
                    NackReason::MissingCapability,
                    format!("unknown kind of section {}", section.kind),
                );
            }
        };
        if slot.replace(SectionRef { digest, size }).is_some() {
            return refused(NackReason::Malformed, "two sections are of one kind");
        }
    }
    Ok((sections, total))
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Sha {
    Sha256::digest(bytes).into()
}

/// A Bundle whose manifest has been accepted and whose sections are arriving.
#[derive(Debug)]
pub struct Assembly {
    manifest: Manifest,
    /// At most one per kind of section, and as many of the candidate.
    missing: Vec<Partial>,
    complete: Vec<(Sha, Vec<u8>)>,
}

#[derive(Debug)]
struct Partial {
    digest: Sha,
    size: usize,
    content: Vec<u8>,
    hasher: Sha256,
}

// === impl Sections ===

impl Sections {
    fn each(&self) -> impl Iterator<Item = SectionRef> {
        [self.rules, self.keys, self.directory].into_iter().flatten()
    }

    fn has(&self, digest: &[u8]) -> bool {
        self.each().any(|section| section.digest == digest)
    }
}

// === impl Assembly ===

impl Assembly {
    /// Begins; sections that are installed already are not waited for.
    pub fn new(manifest: Manifest, installed: Option<&Installed>) -> Self {
        let mut known = installed.map(Installed::held).unwrap_or_default();
        let mut missing = Vec::new();
        for SectionRef { digest, size } in
            manifest.enforced.each().chain(manifest.candidate.iter().flat_map(Sections::each))
        {
            if !known.contains(&digest) {
                known.push(digest);
                missing.push(Partial { digest, size, content: Vec::new(), hasher: Sha256::new() });
            }
        }
        Self { manifest, missing, complete: Vec::new() }
    }

    /// So many bytes follow. Where that is not all that is missing, it is done without the candidate.
    pub fn expect(&mut self, bytes: u64) {
        let missing = self.missing.iter().filter_map(|partial| u64::try_from(partial.size).ok()).sum::<u64>();
        if missing != bytes {
            self.leave_out_candidate();
        }
    }

    /// Does not wait for what only the candidate needs.
    fn leave_out_candidate(&mut self) {
        let enforced = self.manifest.enforced;
        self.missing.retain(|partial| enforced.has(&partial.digest));
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Takes a part of a section. The digest is computed as parts arrive, which spreads the work.
    ///
    /// # Errors
    /// When the part belongs to no missing section, is out of order, or completes a section with another digest. The
    /// Bundle is then lost.
    pub fn add(&mut self, digest: &[u8], offset: u64, content: &[u8]) -> Result<(), Refused> {
        let Some(position) = self.missing.iter().position(|partial| partial.digest == digest) else {
            if self.manifest.candidate.is_some_and(|sections| sections.has(digest)) {
                return Ok(());
            }
            return refused(NackReason::Malformed, "a part of a section that is not missing");
        };
        let mut partial = self.missing.swap_remove(position);
        let end = partial.content.len().saturating_add(content.len());
        if u64::try_from(partial.content.len()) != Ok(offset) || end > partial.size || content.is_empty() {
            return refused(
                NackReason::Malformed,
                "a part of a section is out of order, or longer than announced",
            );
        }
        partial.hasher.update(content);
        partial.content.extend_from_slice(content);
        if end < partial.size {
            self.missing.push(partial);
        } else if Sha::from(partial.hasher.finalize()) == partial.digest {
            self.complete.push((partial.digest, partial.content));
        } else if self.manifest.enforced.has(digest) {
            return refused(NackReason::DigestMismatch, "a section's content is not what the manifest says");
        }
        Ok(())
    }

    /// Decodes the sections and puts them together with those that are installed already.
    ///
    /// # Errors
    /// When a section is missing or is not what its kind says, or contradicts the manifest.
    pub fn install(mut self, installed: Option<&Installed>) -> Result<Installed, Refused> {
        if !self.is_complete() {
            return refused(NackReason::MissingSection, "a section has not arrived");
        }
        let manifest = self.manifest.clone();
        let mut known = Vec::new();
        if let Some(old) = installed {
            let Installed { rules, keys, directory, .. } = old.clone();
            known.push((old.manifest.enforced, Decoded { rules, keys, directory }));
            known.extend(old.manifest.candidate.zip(old.candidate.clone()));
        }
        let decoded = self.decode_all(&manifest.enforced, &known)?;
        known.push((manifest.enforced, decoded.clone()));
        let Decoded { rules, keys, directory } = decoded;
        // The statement about coverage and the rules must agree: neither can take back what the other says.
        if rules.as_ref().is_some_and(|rules| rules.has_guards()) != manifest.guarded {
            return refused(
                NackReason::InvalidSection,
                "the manifest and the rules disagree about whether the workload is guarded",
            );
        }
        let missing = rules.iter().flat_map(|rules| rules.issuers()).find(|(name, _)| {
            !keys
                .iter()
                .any(|keys: &Rc<IssuerSet>| keys.issuers().iter().any(|issuer| issuer.name() == *name))
        });
        if let Some((name, _)) = missing {
            return refused(
                NackReason::InvalidSection,
                format!("rules name the issuer `{name}`, which the keys section lacks"),
            );
        }
        // A candidate that cannot be read, or that a warm start does not have, is left out.
        let candidate = manifest.candidate.and_then(|sections| self.decode_all(&sections, &known).ok());
        Ok(Installed { manifest, rules, keys, directory, candidate })
    }

    /// Sections of which some are decoded already.
    fn decode_all(&mut self, sections: &Sections, known: &[(Sections, Decoded)]) -> Result<Decoded, Refused> {
        let mut decoded = Decoded::default();
        if let Some(section) = sections.rules {
            let there = known.iter().find(|(at, _)| at.rules == Some(section));
            decoded.rules = match there.and_then(|(_, known)| known.rules.clone()) {
                None => Some(self.decode(section, "rules", PolicySet::decode_in_place)?),
                there => there,
            };
        }
        if let Some(section) = sections.keys {
            let there = known.iter().find(|(at, _)| at.keys == Some(section));
            decoded.keys = match there.and_then(|(_, known)| known.keys.clone()) {
                None => Some(self.decode(section, "keys", |content| IssuerSet::decode(&content))?),
                there => there,
            };
        }
        if let Some(section) = sections.directory {
            let there = known.iter().find(|(at, _)| at.directory == Some(section));
            decoded.directory = match there {
                None => self.decode(section, "directory", |content| Directories::decode(&content))?,
                Some((_, known)) => Rc::clone(&known.directory),
            };
        }
        Ok(decoded)
    }

    fn decode<T, E: std::fmt::Display>(
        &mut self,
        section: SectionRef,
        kind: &str,
        decode: impl FnOnce(Vec<u8>) -> Result<T, E>,
    ) -> Result<Rc<T>, Refused> {
        let Some(at) = self.complete.iter().position(|(digest, _)| *digest == section.digest) else {
            return refused(NackReason::MissingSection, format!("the {kind} section has not arrived"));
        };
        // It is not needed again, and need not be in memory twice.
        let (_, content) = self.complete.swap_remove(at);
        match decode(content) {
            Ok(decoded) => Ok(Rc::new(decoded)),
            Err(error) => refused(NackReason::InvalidSection, error.to_string()),
        }
    }
}

// === impl Installed ===

impl Installed {
    /// Digests of the sections that need not travel again.
    pub fn held(&self) -> Vec<Sha> {
        let candidate = self.manifest.candidate.filter(|_| self.candidate.is_some());
        let all = self.manifest.enforced.each().chain(candidate.iter().flat_map(Sections::each));
        all.map(|section| section.digest).collect()
    }

    /// Whether the manifest has a candidate that is not there.
    pub fn lacks_candidate(&self) -> bool {
        self.manifest.candidate.is_some() && self.candidate.is_none()
    }

    /// Accepts and installs a whole Bundle at once. `Ok(None)`: it is enforced already.
    ///
    /// # Errors
    /// As [`accept`], [`Assembly::add`] and [`Assembly::install`].
    pub fn from_bundle(
        bundle: &pb::Bundle,
        trust: Trust<'_>,
        verifier: &dyn VerifySignature,
        installed: Option<&Self>,
    ) -> Result<Option<Self>, Refused> {
        let Some(signed) = &bundle.manifest else {
            return refused(NackReason::Malformed, "the Bundle has no manifest");
        };
        let Some(manifest) = accept(signed, trust, verifier)? else { return Ok(None) };
        let mut assembly = Assembly::new(manifest, installed);
        for section in &bundle.sections {
            let digest = sha256(&section.content);
            if assembly.missing.iter().any(|partial| partial.digest == digest) {
                assembly.add(&digest, 0, &section.content)?;
            }
        }
        assembly.leave_out_candidate();
        assembly.install(installed).map(Some)
    }
}

#[cfg(test)]
mod tests;
