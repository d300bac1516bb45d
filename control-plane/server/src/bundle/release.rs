//! A release: one workload's signed manifest together with the sections it names.

use std::sync::Arc;

use prost::Message;
use tidegate_proto::v1 as pb;

use super::{Revision, Section, Sha256, sha256};

/// What one workload is to enforce.
#[derive(Debug)]
pub struct Release {
    workload: String,
    manifest: pb::Manifest,
    signed: pb::SignedManifest,
    sha256: Sha256,
    revision: Revision,
    sections: Vec<Arc<Section>>,
    candidate: Vec<Arc<Section>>,
}

// === impl Release ===

impl Release {
    /// INVARIANT: `signed.manifest` is the serialized `manifest`, and `sections` and `candidate` are those it names, in its
    /// order.
    pub(super) fn new(
        manifest: pb::Manifest,
        signed: pb::SignedManifest,
        sections: Vec<Arc<Section>>,
        candidate: Vec<Arc<Section>>,
    ) -> Self {
        Self {
            workload: manifest.audience.clone(),
            sha256: sha256(&signed.manifest),
            revision: manifest.revision.unwrap_or_default().into(),
            manifest,
            signed,
            sections,
            candidate,
        }
    }

    /// One that another replica signed.
    ///
    /// INVARIANT: as [`Self::new`].
    pub(crate) fn relayed(
        manifest: pb::Manifest,
        signed: pb::SignedManifest,
        sections: Vec<Arc<Section>>,
        candidate: Vec<Arc<Section>>,
    ) -> Self {
        Self::new(manifest, signed, sections, candidate)
    }

    /// `namespace/name`.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// What was signed.
    pub fn manifest(&self) -> &pb::Manifest {
        &self.manifest
    }

    /// What travels.
    pub fn signed(&self) -> &pb::SignedManifest {
        &self.signed
    }

    /// The digest of the serialized manifest.
    pub fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// Its place in the order of all manifests.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Its enforced sections, in the manifest's order.
    pub fn sections(&self) -> &[Arc<Section>] {
        &self.sections
    }

    /// The sections of its candidate, in the manifest's order; they may be among the others.
    pub fn candidate(&self) -> &[Arc<Section>] {
        &self.candidate
    }

    /// What is enforced, in one message: the warm start of a plugin configuration. Not the candidate, which is not worth
    /// its bytes there.
    pub fn bundle(&self) -> Vec<u8> {
        let sections = self
            .sections
            .iter()
            .map(|section| pb::Section { kind: section.kind().into(), content: section.content().to_vec() });
        pb::Bundle { manifest: Some(self.signed.clone()), sections: sections.collect() }.encode_to_vec()
    }
}
