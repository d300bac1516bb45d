//! The state folder: what must survive a restart.
//!
//! Every file is replaced atomically (written beside, synced, renamed, folder synced), so that a crash leaves the old or
//! the new content and nothing between. One process owns a folder at a time.
//!
//! INVARIANT: [`StateDir::write`] has returned `Ok` only when the content is on disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const LOCK_FILE: &str = "lock";

/// A folder of the state folder: files that are there as a whole or not at all, and never change.
#[derive(Debug)]
pub struct StateFolder {
    root: PathBuf,
}

/// An open state folder; locked until dropped.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held for its lock.
    _lock: File,
}

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refuses.
    #[error("state: cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error(
        "state: folder `{path}` is in use by another `tidegate serve`; stop it or give this one its own `--state`",
        path = path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file is there, but is not what this program wrote.
    #[error(
        "state: `{path}` is damaged: {why}; restore it from a backup, or remove it and accept that it starts anew",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

// === impl StateDir ===

impl StateDir {
    /// Opens the folder, creating it (for its owner only) if it is missing.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        create_private(root).map_err(io_error("create the folder", root))?;
        let lock_path = root.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io_error("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: root.to_owned() }),
            Err(TryLockError::Error(source)) => {
                Err(StateError::Io { action: "lock", path: lock_path, source })
            }
        }
    }

    /// Lets go of it for good, and leaves no trace but its files.
    pub fn unlock(self) -> Result<(), StateError> {
        self.remove(LOCK_FILE)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The names of its files and folders.
    pub fn names(&self) -> Result<Vec<String>, StateError> {
        names(&self.root)
    }

    /// A folder in it, which is created if it is missing.
    pub fn folder(&self, name: &str) -> Result<StateFolder, StateError> {
        let root = self.root.join(name);
        create_private(&root).map_err(io_error("create the folder", &root))?;
        sync_folder(&self.root).map_err(io_error("sync", &self.root))?;
        Ok(StateFolder { root })
    }

    /// The content of a file; `None` when it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        read(&self.root, name)
    }

    /// A JSON file; `None` when it is not there.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        read_json(&self.root, name)
    }

    /// Replaces a file, readable by its owner only.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        replace(&self.root, name, content)?;
        sync_folder(&self.root).map_err(io_error("sync", &self.root))
    }

    /// Replaces a JSON file.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let content = serde_json::to_vec_pretty(value)
            .map_err(|error| self.damaged(name, format!("cannot be written as JSON: {error}")))?;
        self.write(name, &content)
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => sync_folder(&self.root).map_err(io_error("sync", &self.root)),
        }
    }

    /// An error about a file whose content makes no sense.
    pub fn damaged(&self, name: &str, why: impl Into<String>) -> StateError {
        StateError::Damaged { path: self.root.join(name), why: why.into() }
    }
}

// === impl StateFolder ===

impl StateFolder {
    /// The names of its files.
    pub fn names(&self) -> Result<Vec<String>, StateError> {
        names(&self.root)
    }

    /// Writes a file, readable by its owner only. It is sure to be there only after [`StateFolder::sync`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        replace(&self.root, name, content)
    }

    /// Returns when all files that were written are on disk.
    pub fn sync(&self) -> Result<(), StateError> {
        sync_folder(&self.root).map_err(io_error("sync", &self.root))
    }

    /// Removes a file. It may be there again after a crash.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.root.join(name);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }
}

/// Reads a JSON file of a state folder that another process may own; `None` when it is not there.
pub fn read_json<T: DeserializeOwned>(root: &Path, name: &str) -> Result<Option<T>, StateError> {
    let Some(content) = read(root, name)? else { return Ok(None) };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|error| StateError::Damaged { path: root.join(name), why: error.to_string() })
}

/// Reads a file of a state folder that another process may own; `None` when it is not there.
pub fn read(root: &Path, name: &str) -> Result<Option<Vec<u8>>, StateError> {
    let path = root.join(name);
    let mut content = Vec::new();
    match File::open(&path).and_then(|mut file| file.read_to_end(&mut content)) {
        Ok(_) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { action: "read", path, source }),
    }
}

/// Replaces a file by a synced one, without syncing the folder.
fn replace(root: &Path, name: &str, content: &[u8]) -> Result<(), StateError> {
    let path = root.join(name);
    let staged = root.join(format!(".{name}.new"));
    let mut file = create_private_file(&staged).map_err(io_error("create", &staged))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error("write", &staged))?;
    fs::rename(&staged, &path).map_err(io_error("replace", &path))
}

fn names(folder: &Path) -> Result<Vec<String>, StateError> {
    let listed: io::Result<Vec<String>> = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    });
    listed.map_err(io_error("list", folder))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |source| StateError::Io { action, path: path.to_owned(), source }
}

#[cfg(unix)]
fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn create_private_file(path: &Path) -> io::Result<File> {
    // A leftover of a crash may have other permissions; those of an existing file would stay.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_what_was_not_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.read("a").unwrap(), None);
        state.write("a", b"first").unwrap();
        state.write("a", b"2").unwrap();
        assert_eq!(state.read("a").unwrap().as_deref(), Some(&b"2"[..]));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "a" || name == "lock"), "{names:?}");
    }

    #[test]
    fn a_second_owner_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        assert!(matches!(StateDir::open(folder.path()), Err(StateError::InUse { .. })));
        drop(first);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn damaged_json_is_an_error_and_not_an_absent_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.write("a.json", b"{").unwrap();
        assert!(matches!(state.read_json::<Vec<u8>>("a.json"), Err(StateError::Damaged { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folder_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("state");
        let state = StateDir::open(&root).unwrap();
        state.write("key", b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("key")), 0o600);
    }
}
