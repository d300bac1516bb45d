//! From contents to signed releases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use tidegate_proto::v1 as pb;

use super::{Keyring, Release, Revision, Revisions, Section};
use crate::state::{StateDir, StateError};

const FILE: &str = "manifests.json";
/// Those of canaries.
const CANARIES: &str = "canary-manifests.json";

/// How long a manifest may be installed after it was signed, in seconds. Bounds installing, never enforcing.
const INSTALLABLE_S: i64 = 24 * 3600;
/// A manifest is signed anew when less than this remains, in seconds.
const RENEWED_BELOW_S: i64 = INSTALLABLE_S / 2;

/// What one workload is to enforce, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Whether a Guard covers the workload.
    pub coverage: pb::Coverage,
    /// In a fixed order.
    pub sections: Vec<Arc<Section>>,
    /// What is evaluated beside them; none where nothing is, or it is the same.
    pub candidate: Vec<Arc<Section>>,
    /// Without which the sections would be misread.
    pub required_capabilities: Vec<String>,
    /// Without which a part of them is enforced more strictly than it says.
    pub used_capabilities: Vec<String>,
    /// Until when what is refused is only reported, in Unix seconds; 0: it is refused.
    pub suspended_until: i64,
}

/// Why nothing could be signed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// State cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The crypto library refuses; happens when the system has no randomness.
    #[error("cannot make or use a signing key: the cryptographic library refused")]
    Signing,
}

/// Signs manifests, and keeps those whose content has not changed.
#[derive(Debug)]
pub struct Publisher {
    state: Arc<StateDir>,
    keys: Keyring,
    revisions: Revisions,
    /// By workload.
    current: Signed,
    /// What canaries get instead. INVARIANT: later than what the others of the workload get, and written down before any
    /// filter has it: what comes after it has to be later.
    canaries: Signed,
    unsaved: bool,
    unsaved_canaries: bool,
}

/// Manifests by workload.
type Signed = BTreeMap<String, (pb::Manifest, pb::SignedManifest)>;

/// What is on offer.
#[derive(Debug, Default)]
pub struct Releases {
    /// To every proxy of a workload that is no canary.
    pub all: BTreeMap<String, Arc<Release>>,
    /// To its canaries.
    pub canaries: BTreeMap<String, Arc<Release>>,
}

// === impl Publisher ===

impl Publisher {
    /// Continues where the last process stopped. `now`: Unix seconds.
    pub fn open(state: Arc<StateDir>, now: i64) -> Result<Self, BundleError> {
        let keys = Keyring::open(&state)?;
        Self::with_keys(state, keys, now)
    }

    /// The same with keys that are not the state folder's own.
    pub fn with_keys(state: Arc<StateDir>, keys: Keyring, now: i64) -> Result<Self, BundleError> {
        let mut revisions = Revisions::open(state.clone(), now)?;
        let mut read = |file: &'static str| -> Result<Signed, BundleError> {
            let mut current = Signed::new();
            let stored: BTreeMap<String, String> = state.read_json(file)?.unwrap_or_default();
            for (workload, signed) in stored {
                let (manifest, signed) =
                    decode(&signed).filter(|(manifest, _)| manifest.audience == workload).ok_or_else(
                        || state.damaged(file, format!("the manifest of `{workload}` does not parse")),
                    )?;
                revisions.at_least(manifest.revision.unwrap_or_default().into())?;
                // One of another key is signed anew.
                if keys.is_signed(&signed) {
                    current.insert(workload, (manifest, signed));
                }
            }
            Ok(current)
        };
        let (current, canaries) = (read(FILE)?, read(CANARIES)?);
        Ok(Self { state, keys, revisions, current, canaries, unsaved: false, unsaved_canaries: false })
    }

    /// The keys that sign.
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The last revision that was used.
    pub fn last_revision(&self) -> Revision {
        self.revisions.last()
    }

    /// Signs everything anew under this epoch, if it is later than what was signed before.
    pub fn begin_epoch(&mut self, epoch: u64) -> Result<(), BundleError> {
        if epoch > self.revisions.last().epoch {
            self.revisions.at_least(Revision { epoch, counter: 0 })?;
            // Filters may have had later ones of another replica.
            self.current.clear();
            self.canaries.clear();
            self.unsaved = true;
        }
        Ok(())
    }

    /// Signs what changed or expires soon; everything else keeps its manifest. Workloads that are not in `contents` are
    /// forgotten. `now`: Unix seconds.
    pub fn publish(
        &mut self,
        contents: BTreeMap<String, Contents>,
        now: i64,
    ) -> Result<BTreeMap<String, Arc<Release>>, BundleError> {
        Ok(self.publish_staged(contents, BTreeMap::new(), now)?.all)
    }

    /// The same, with what canaries of some workloads get instead of what is in `contents`.
    pub fn publish_staged(
        &mut self,
        contents: BTreeMap<String, Contents>,
        canaries: BTreeMap<String, Contents>,
        now: i64,
    ) -> Result<Releases, BundleError> {
        let known = (self.current.len(), self.canaries.len());
        // Filters may have had what canaries got: whatever comes after it has to be later.
        for (ended, _) in self.canaries.extract_if(.., |workload, _| !canaries.contains_key(workload)) {
            self.current.remove(&ended);
        }
        let is_stale = |known: &Signed, (workload, contents): (&String, &Contents)| {
            !known.get(workload).is_some_and(|(manifest, _)| is_current(manifest, contents, now))
        };
        let changed: BTreeSet<String> = contents
            .iter()
            .filter(|one| is_stale(&self.current, *one))
            .map(|(workload, _)| workload.clone())
            .collect();
        let is_later = |workload: &String| {
            let of = |known: &Signed| known.get(workload).and_then(|(manifest, _)| manifest.revision);
            of(&self.canaries).map(Revision::from) > of(&self.current).map(Revision::from)
        };
        let tried: Vec<String> = canaries
            .iter()
            .filter(|(workload, contents)| {
                changed.contains(*workload)
                    || !is_later(workload)
                    || is_stale(&self.canaries, (workload, contents))
            })
            .map(|(workload, _)| workload.clone())
            .collect();
        let count = u64::try_from(changed.len().saturating_add(tried.len())).unwrap_or(u64::MAX);
        if count > 0 {
            let mut revisions = self.revisions.take(count)?;
            for (workload, revision) in changed.iter().zip(&mut revisions) {
                if let Some(contents) = contents.get(workload) {
                    let signed = self.sign(workload, contents, revision, now)?;
                    self.current.insert(workload.clone(), signed);
                }
            }
            for (workload, revision) in tried.iter().zip(&mut revisions) {
                if let Some(contents) = canaries.get(workload) {
                    let signed = self.sign(workload, contents, revision, now)?;
                    self.canaries.insert(workload.clone(), signed);
                }
            }
        }
        self.current.retain(|workload, _| contents.contains_key(workload));
        self.unsaved |= count > 0 || (self.current.len(), self.canaries.len()) < known;
        self.unsaved_canaries |= !tried.is_empty();
        if self.unsaved_canaries {
            self.state.write_json(CANARIES, &stored(&self.canaries))?;
            self.unsaved_canaries = false;
        }
        Ok(Releases { all: releases(&self.current, contents), canaries: releases(&self.canaries, canaries) })
    }

    fn sign(
        &self,
        workload: &str,
        contents: &Contents,
        revision: Revision,
        now: i64,
    ) -> Result<(pb::Manifest, pb::SignedManifest), BundleError> {
        let manifest = pb::Manifest {
            format_version: tidegate_proto::VERSION,
            audience: workload.to_owned(),
            revision: Some(revision.into()),
            coverage: contents.coverage.into(),
            sections: contents.sections.iter().map(|section| section.reference()).collect(),
            issued_at: now,
            not_after: now.saturating_add(INSTALLABLE_S),
            required_capabilities: contents.required_capabilities.clone(),
            used_capabilities: contents.used_capabilities.clone(),
            candidate: contents.candidate.iter().map(|section| section.reference()).collect(),
            suspended_until: contents.suspended_until,
        };
        let serialized = manifest.encode_to_vec();
        let signatures = vec![self.keys.sign(&serialized)?];
        Ok((manifest, pb::SignedManifest { manifest: serialized, signatures }))
    }

    /// Writes the manifests down, so that a restart keeps them. Not needed for safety: what is lost is signed anew
    /// under a later revision. Therefore it can wait until they have been pushed.
    pub fn save(&mut self) -> Result<(), StateError> {
        if !self.unsaved {
            return Ok(());
        }
        self.state.write_json(FILE, &stored(&self.current))?;
        // Afterwards: as long as a canary's is there, what is not later than it is signed anew.
        if !self.canaries.is_empty() || self.state.read(CANARIES)?.is_some() {
            self.state.write_json(CANARIES, &stored(&self.canaries))?;
        }
        self.unsaved = false;
        Ok(())
    }
}

fn stored(signed: &Signed) -> BTreeMap<&String, String> {
    let encode = |(_, signed): &(_, pb::SignedManifest)| STANDARD.encode(signed.encode_to_vec());
    signed.iter().map(|(workload, signed)| (workload, encode(signed))).collect()
}

fn releases(signed: &Signed, contents: BTreeMap<String, Contents>) -> BTreeMap<String, Arc<Release>> {
    let releases = contents.into_iter().filter_map(|(workload, contents)| {
        let (manifest, signed) = signed.get(&workload)?.clone();
        Some((workload, Arc::new(Release::new(manifest, signed, contents.sections, contents.candidate))))
    });
    releases.collect()
}

/// Whether the manifest says exactly this and can be installed for long enough.
fn is_current(manifest: &pb::Manifest, contents: &Contents, now: i64) -> bool {
    manifest.format_version == tidegate_proto::VERSION
        && manifest.coverage == i32::from(contents.coverage)
        && manifest.required_capabilities == contents.required_capabilities
        && manifest.used_capabilities == contents.used_capabilities
        && manifest.suspended_until == contents.suspended_until
        && names(&manifest.sections, &contents.sections)
        && names(&manifest.candidate, &contents.candidate)
        // Signed ahead of a clock that was set back: filters with the right clock would refuse it.
        && manifest.issued_at <= now
        && manifest.not_after.saturating_sub(now) >= RENEWED_BELOW_S
}

fn names(named: &[pb::SectionRef], sections: &[Arc<Section>]) -> bool {
    named.len() == sections.len()
        && named.iter().zip(sections).all(|(named, section)| *named == section.reference())
}

fn decode(stored: &str) -> Option<(pb::Manifest, pb::SignedManifest)> {
    let signed = pb::SignedManifest::decode(STANDARD.decode(stored).ok()?.as_slice()).ok()?;
    let manifest = pb::Manifest::decode(signed.manifest.as_slice()).ok()?;
    Some((manifest, signed))
}

#[cfg(test)]
mod tests;
