//! Reading the rules folder.
//!
//! Every `*.yaml` and `*.yml` below it, however deep; names that begin with a dot are skipped (editors' files, and the
//! `..data` folders of Kubernetes volumes, whose content is seen through the links beside them).
//!
//! INVARIANT: whatever cannot be read is an error or a [`FileProblem`], never an absent file: absent means deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Environment, FileProblem, Files};

/// Largest file that is read, in bytes. The compiler may allow less.
const MAX_FILE: u64 = 16 << 20;
/// Deepest folder below the rules folder; ends loops of links.
const MAX_DEPTH: usize = 16;
/// How often a folder that changes while it is read is read again, and after what time.
const ATTEMPTS_AT_A_MOMENT: usize = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);
/// How often a file that vanishes between listing and reading is looked for again.
const ATTEMPTS: usize = 3;

/// What is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Text by path relative to the folder, with `/`.
    pub files: Files,
    /// Files that are there and cannot be read as rules.
    pub problems: Vec<FileProblem>,
}

/// What changes when the folder does, without reading the files.
pub type Fingerprint = BTreeMap<PathBuf, Stamp>;

/// Size in bytes, time of the last change, and inode of a file; zeros where it cannot be looked at.
pub type Stamp = (u64, Option<SystemTime>, u64);

/// Why nothing is known of what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder is not there, or is none.
    #[error("rules folder `{path}`: {source}; it must be a folder with *.yaml files", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No rule file anywhere below it.
    #[error("rules folder `{path}` holds no *.yaml or *.yml file; at least the Mesh must be declared", path = path.display())]
    NoRules {
        /// The folder.
        path: PathBuf,
    },
    /// A values file or directory file.
    #[error("`{path}`: {why}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads every rule file below `folder`, as it was at one moment.
///
/// Reading takes time, and folders change as a whole (a checkout, a swapped link): what changed meanwhile is read again,
/// so that no mixture of two versions is taken for a third. What was opened has to be what was there before and after: a
/// folder that is swapped and swapped back in between looks the same from outside.
pub fn load(folder: &Path) -> Result<Loaded, LoadError> {
    for attempt in 0..ATTEMPTS_AT_A_MOMENT {
        if attempt > 0 {
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        let before = fingerprint(folder, std::iter::empty())?;
        let (loaded, opened) = load_once(folder)?;
        let is_what_was_there = opened.len() == before.len()
            && opened.iter().all(|(path, stamp)| {
                before.get(path).is_some_and(|before| stamp.is_none_or(|stamp| stamp == *before))
            });
        if is_what_was_there && fingerprint(folder, std::iter::empty())? == before {
            return Ok(loaded);
        }
    }
    let source = io::Error::other("it changes all the time while it is read");
    Err(LoadError::Folder { path: folder.to_owned(), source })
}

/// Also every file that was listed, with what was opened under its name.
fn load_once(folder: &Path) -> Result<(Loaded, BTreeMap<PathBuf, Option<Stamp>>), LoadError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut loaded = Loaded::default();
        let mut opened = BTreeMap::new();
        let mut vanished = false;
        for path in list(folder)? {
            let name = relative_name(folder, &path);
            let mut stamp = None;
            match read_rules(&path, &name, &mut stamp) {
                Ok(Ok(text)) => {
                    loaded.files.insert(name, text);
                }
                Ok(Err(problem)) => loaded.problems.push(problem),
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                    vanished = true
                }
                Err(error) => loaded.problems.push(FileProblem::unreadable(&name, &error)),
            }
            opened.insert(path, stamp);
        }
        if vanished {
            continue;
        }
        if loaded == Loaded::default() {
            return Err(LoadError::NoRules { path: folder.to_owned() });
        }
        return Ok((loaded, opened));
    }
}

/// Sizes, times and inodes of every rule file below `folder`, and of `files`.
pub fn fingerprint<'a>(
    folder: &Path,
    files: impl Iterator<Item = &'a Path>,
) -> Result<Fingerprint, LoadError> {
    let mut fingerprint = Fingerprint::new();
    for path in list(folder)?.into_iter().chain(files.map(Path::to_owned)) {
        let entry = fs::metadata(&path).map(|metadata| stamp_of(&metadata)).unwrap_or_default();
        fingerprint.insert(path, entry);
    }
    Ok(fingerprint)
}

fn stamp_of(metadata: &Metadata) -> Stamp {
    (metadata.len(), metadata.modified().ok(), inode(metadata))
}

/// Reads a values file: a YAML or JSON mapping of names to strings.
pub fn load_environment(path: &Path) -> Result<Environment, LoadError> {
    let text = read_text(path)?;
    serde_saphyr::from_str(&text).map_err(|error| LoadError::File {
        path: path.to_owned(),
        why: format!("a values file is a mapping of names to strings: {error}"),
    })
}

/// Reads a directory file: a JSON object of directory names to lists of ids.
pub fn load_directory(path: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, LoadError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| LoadError::File {
        path: path.to_owned(),
        why: format!("a directory file is a JSON object of directory names to lists of ids: {error}"),
    })
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

fn read_text(path: &Path) -> Result<String, LoadError> {
    let failed = |why: String| LoadError::File { path: path.to_owned(), why };
    let content = read_bounded(path, &mut None).map_err(|error| failed(error.to_string()))?;
    let content = content.ok_or_else(|| failed(format!("larger than {MAX_FILE} bytes")))?;
    String::from_utf8(content).map_err(|error| failed(format!("not UTF-8: {error}")))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut found = Vec::new();
    list_into(folder, 0, &mut found).map_err(|(path, source)| LoadError::Folder { path, source })?;
    found.sort_unstable();
    Ok(found)
}

fn list_into(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (folder.to_owned(), error);
    if depth > MAX_DEPTH {
        return Err(failed(io::Error::other(format!(
            "more than {MAX_DEPTH} folders deep, or a loop of links"
        ))));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let is_rules = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // Follows links.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => list_into(&path, depth + 1, found)?,
            // What cannot be looked at is reported when it is read.
            _ if is_rules => found.push(path),
            Ok(_) => {}
            // A link that leads nowhere may have led to a folder of rules. What has vanished since it was listed has not.
            Err(error) if fs::symlink_metadata(&path).is_ok() => return Err((path, error)),
            Err(_) => {}
        }
    }
    Ok(())
}

fn relative_name(folder: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

fn read_rules(
    path: &Path,
    name: &str,
    opened: &mut Option<Stamp>,
) -> io::Result<Result<String, FileProblem>> {
    let Some(content) = read_bounded(path, opened)? else {
        return Ok(Err(FileProblem::too_large(name, MAX_FILE)));
    };
    if content.iter().all(u8::is_ascii_whitespace) {
        return Ok(Err(FileProblem::empty(name)));
    }
    let text = String::from_utf8(content);
    Ok(text.map_err(|error| FileProblem::not_utf8(name, error.utf8_error().valid_up_to())))
}

/// `opened`: what was read, whatever it says.
fn read_bounded(path: &Path, opened: &mut Option<Stamp>) -> io::Result<Option<Vec<u8>>> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    *opened = Some(stamp_of(&metadata));
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content)?;
    let fits = u64::try_from(content.len()).is_ok_and(|length| length <= MAX_FILE);
    Ok(fits.then_some(content))
}

#[cfg(test)]
mod tests;
