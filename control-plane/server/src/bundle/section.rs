//! Sections: parts of a Bundle, named by their content.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tidegate_proto::v1 as pb;

use super::{Sha256, sha256};

/// One section. Equal content exists once in memory, however many workloads share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    kind: pb::SectionKind,
    sha256: Sha256,
    content: Bytes,
}

/// Finds sections that exist already.
#[derive(Debug, Default)]
pub struct SectionStore {
    known: HashMap<(pb::SectionKind, Sha256), Weak<Section>>,
}

// === impl Section ===

impl Section {
    /// What it is.
    pub fn kind(&self) -> pb::SectionKind {
        self.kind
    }

    /// Its name.
    pub fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// Its bytes.
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// How a manifest names it.
    pub fn reference(&self) -> pb::SectionRef {
        pb::SectionRef {
            kind: self.kind.into(),
            sha256: self.sha256.to_vec(),
            size: u64::try_from(self.content.len()).unwrap_or(u64::MAX),
        }
    }
}

// === impl SectionStore ===

impl SectionStore {
    /// The section with this content.
    pub fn section(&mut self, kind: pb::SectionKind, content: &[u8]) -> Arc<Section> {
        let sha256 = sha256(content);
        if let Some(section) = self.known.get(&(kind, sha256)).and_then(Weak::upgrade) {
            return section;
        }
        let section = Arc::new(Section { kind, sha256, content: Bytes::copy_from_slice(content) });
        self.known.insert((kind, sha256), Arc::downgrade(&section));
        section
    }

    /// Forgets sections that nobody holds any more.
    pub fn sweep(&mut self) {
        self.known.retain(|_, section| section.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_exists_once_and_is_forgotten_when_unused() {
        let mut store = SectionStore::default();
        let first = store.section(pb::SectionKind::Rules, b"rules");
        let again = store.section(pb::SectionKind::Rules, b"rules");
        let other_kind = store.section(pb::SectionKind::Keys, b"rules");
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &other_kind));
        drop((first, again, other_kind));
        store.sweep();
        assert!(store.known.is_empty());
    }
}
