//! Which module, and where it is fetched.
//!
//! INVARIANT: a module is always named with its SHA-256. Istio compares that with the manifest's digest for OCI images, and
//! with the module's for HTTP (istio `pkg/wasm/imagefetcher.go`, `cache.go`).

use std::collections::BTreeMap;

use tidegate_compiler::WorkloadId;

use crate::bundle::sha256;

/// Where both builds of one version of the module are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleSource {
    /// In a registry: the digests are those of the manifests that `tidegate package oci` writes.
    Oci {
        /// Registry and repository, without scheme, tag and digest.
        repository: String,
        /// Digests of the manifests.
        digests: ModuleDigests,
        /// A Secret with credentials, in the namespace of each workload.
        pull_secret: Option<String>,
    },
    /// At the control plane (`serve --module-listen`): the digests are those of the modules.
    Served {
        /// Scheme, host and port.
        base: String,
        /// Digests of the modules.
        digests: ModuleDigests,
    },
}

/// SHA-256 of the two builds, lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleDigests {
    /// Of the build that looks at headers only.
    pub headers: String,
    /// Of the build that reads bodies.
    pub bodies: String,
}

/// Which workloads have which version of the module: a new one is never a side effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// What there is.
    pub current: ModuleSource,
    /// What is to come, and for how many of a hundred workloads. The same ones stay in as the share grows.
    pub next: Option<(ModuleSource, u8)>,
    /// What these workloads have, whatever else is said.
    pub pinned: BTreeMap<WorkloadId, ModuleSource>,
}

/// A place where no module can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// Not registry and repository.
    #[error(
        "`{0}` is not an OCI repository: write registry and repository without scheme, tag and digest, e.g. \
         `registry.example/platform/tidegate-filter`"
    )]
    Repository(String),
    /// Not the base of a URL.
    #[error(
        "`{0}` is not where modules are served: write scheme, host and port, e.g. `http://tidegate.tidegate-system:15082`"
    )]
    Base(String),
    /// Not a SHA-256.
    #[error("`{0}` is not a SHA-256: write 64 lower-case hexadecimal digits")]
    Digest(String),
}

// === impl ModuleSource ===

impl ModuleSource {
    /// In a registry.
    ///
    /// # Errors
    /// When the repository has a scheme, a tag or a digest, or a digest is none.
    pub fn oci(
        repository: &str,
        digests: ModuleDigests,
        pull_secret: Option<String>,
    ) -> Result<Self, InvalidSource> {
        let repository = repository.strip_prefix("oci://").unwrap_or(repository);
        let invalid = || InvalidSource::Repository(repository.to_owned());
        let (registry, path) = repository.split_once('/').ok_or_else(invalid)?;
        let host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        let good = !registry.is_empty()
            && registry.chars().all(host)
            && !path.is_empty()
            && path.chars().all(name)
            && path.split('/').all(|part| !part.is_empty());
        if !good {
            return Err(invalid());
        }
        let digests = digests.checked()?;
        Ok(Self::Oci { repository: repository.to_owned(), digests, pull_secret })
    }

    /// At the control plane.
    ///
    /// # Errors
    /// When the base is not that of a URL, or a digest is none.
    pub fn served(base: &str, digests: ModuleDigests) -> Result<Self, InvalidSource> {
        let invalid = || InvalidSource::Base(base.to_owned());
        let url = url::Url::parse(base).map_err(|_| invalid())?;
        let good = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !good {
            return Err(invalid());
        }
        let digests = digests.checked()?;
        Ok(Self::Served { base: base.trim_end_matches('/').to_owned(), digests })
    }

    /// URL and SHA-256 for a workload.
    pub(super) fn module(&self, reads_bodies: bool) -> (String, &str) {
        match self {
            Self::Oci { repository, digests, .. } => {
                let digest = digests.of(reads_bodies);
                (format!("oci://{repository}@sha256:{digest}"), digest)
            }
            Self::Served { base, digests } => {
                let digest = digests.of(reads_bodies);
                (format!("{base}{}", crate::module_server::path(digest)), digest)
            }
        }
    }

    /// The Secret with credentials.
    pub(super) fn pull_secret(&self) -> Option<&str> {
        match self {
            Self::Oci { pull_secret, .. } => pull_secret.as_deref(),
            Self::Served { .. } => None,
        }
    }
}

// === impl ModuleDigests ===

impl ModuleDigests {
    /// Of the modules that this binary carries, for where they are served as they are.
    pub fn of_modules() -> Self {
        Self { headers: crate::FILTER_SHA256.to_owned(), bodies: crate::FILTER_BODIES_SHA256.to_owned() }
    }

    fn of(&self, reads_bodies: bool) -> &str {
        if reads_bodies { &self.bodies } else { &self.headers }
    }

    fn checked(self) -> Result<Self, InvalidSource> {
        for digest in [&self.headers, &self.bodies] {
            if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            {
                return Err(InvalidSource::Digest(digest.clone()));
            }
        }
        Ok(self)
    }
}

// === impl Rollout ===

impl Rollout {
    /// The same for all.
    pub fn only(current: ModuleSource) -> Self {
        Self { current, next: None, pinned: BTreeMap::new() }
    }

    /// What a workload has.
    pub fn of(&self, workload: &WorkloadId) -> &ModuleSource {
        if let Some(pinned) = self.pinned.get(workload) {
            return pinned;
        }
        match &self.next {
            Some((next, percent)) if place(workload) < *percent => next,
            _ => &self.current,
        }
    }
}

/// From 0 to 99, the same whenever and wherever it is asked for.
fn place(workload: &WorkloadId) -> u8 {
    let [first, second, ..] = sha256(workload.to_string().as_bytes());
    u8::try_from(u16::from_be_bytes([first, second]) % 100).unwrap_or(99)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests() -> ModuleDigests {
        ModuleDigests { headers: "a".repeat(64), bodies: "b".repeat(64) }
    }

    #[test]
    fn a_module_is_always_pinned() {
        let oci = ModuleSource::oci("oci://registry.example:5000/platform/filter", digests(), None).unwrap();
        let (url, sha256) = oci.module(false);
        assert_eq!(url, format!("oci://registry.example:5000/platform/filter@sha256:{}", "a".repeat(64)));
        assert_eq!(sha256, "a".repeat(64));
        let served = ModuleSource::served("http://tidegate.tidegate-system.svc:15082/", digests()).unwrap();
        let (url, sha256) = served.module(true);
        let expected =
            format!("http://tidegate.tidegate-system.svc:15082/module/sha256/{}.wasm", "b".repeat(64));
        assert_eq!((url, sha256), (expected, "b".repeat(64).as_str()));
    }

    #[test]
    fn what_pins_nothing_is_refused() {
        let short = ModuleDigests { headers: "a".repeat(63), ..digests() };
        let upper = ModuleDigests { bodies: "A".repeat(64), ..digests() };
        for digests in [short, upper] {
            assert!(matches!(ModuleSource::oci("r.example/f", digests, None), Err(InvalidSource::Digest(_))));
        }
        for repository in [
            "f",
            "",
            "/f",
            "r.example/",
            "r.example/f:tag",
            "r.example/f@sha256:00",
            "https://r.example/f",
            "r.example/F",
        ] {
            let source = ModuleSource::oci(repository, digests(), None);
            assert!(matches!(source, Err(InvalidSource::Repository(_))), "{repository}: {source:?}");
        }
        for base in ["tidegate", "ftp://h", "http://h/path", "http://user@h", "http://h/?q", "file:///x", ""]
        {
            let source = ModuleSource::served(base, digests());
            assert!(matches!(source, Err(InvalidSource::Base(_))), "{base}: {source:?}");
        }
    }

    #[test]
    fn who_is_in_stays_in_while_the_share_grows() {
        let old = ModuleSource::served("http://old", digests()).unwrap();
        let new = ModuleSource::served("http://new", digests()).unwrap();
        let workloads: Vec<_> =
            (0..500).map(|n| WorkloadId { namespace: "n".into(), name: format!("w{n}") }).collect();
        let share = |percent| {
            let rollout = Rollout { next: Some((new.clone(), percent)), ..Rollout::only(old.clone()) };
            workloads.iter().filter(|id| *rollout.of(id) == new).cloned().collect::<Vec<_>>()
        };
        assert!(share(0).is_empty());
        let (ten, fifty) = (share(10), share(50));
        assert!((20..100).contains(&ten.len()) && (180..320).contains(&fifty.len()));
        assert!(ten.iter().all(|id| fifty.contains(id)));
        assert_eq!(share(100).len(), 500);
        let pinned = [(workloads[0].clone(), old.clone())].into();
        let rollout = Rollout { current: old.clone(), next: Some((new, 100)), pinned };
        assert_eq!(*rollout.of(&workloads[0]), old);
    }
}
