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
}

// === impl Release ===

impl Release {
    /// INVARIANT: `signed.manifest` is the serialized `manifest`, and `sections` are those it names, in its order.
    pub(super) fn new(
        manifest: pb::Manifest,
        signed: pb::SignedManifest,
        sections: Vec<Arc<Section>>,
    ) -> Self {
        Self {
            workload: manifest.audience.clone(),
            sha256: sha256(&signed.manifest),
            revision: manifest.revision.unwrap_or_default().into(),
            manifest,
            signed,
            sections,
        }
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

    /// Its sections, in the manifest's order.
    pub fn sections(&self) -> &[Arc<Section>] {
        &self.sections
    }

    /// Everything in one message: the warm start of a plugin configuration.
    pub fn bundle(&self) -> Vec<u8> {
        let sections = self
            .sections
            .iter()
            .map(|section| pb::Section { kind: section.kind().into(), content: section.content().to_vec() });
        pb::Bundle { manifest: Some(self.signed.clone()), sections: sections.collect() }.encode_to_vec()
    }
}
