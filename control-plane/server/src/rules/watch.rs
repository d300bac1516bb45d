//! Notices changes on disk.
//!
//! Folders are watched, not files: editors replace files, and Kubernetes swaps the links of a volume. What is written into other
//! files of a folder is passed over: a log beside the file that is watched is nobody's rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// This long nothing may happen before the files are read, so that a file is not read while it is written.
const QUIET: Duration = Duration::from_millis(8);
/// After this long they are read although more happens.
const LONGEST: Duration = Duration::from_millis(20);
/// So long a file that is being written is waited for: half of a rule can be a wider rule.
const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// Watches until dropped.
#[derive(Debug)]
pub struct FolderWatch {
    watcher: RecommendedWatcher,
    /// Trees and files whose content counts.
    watched: Arc<Mutex<Vec<PathBuf>>>,
    changes: Arc<Notify>,
    /// Files that have been written to and not been closed since.
    being_written: Arc<Mutex<BTreeSet<PathBuf>>>,
}

// === impl FolderWatch ===

impl FolderWatch {
    /// Watches nothing yet.
    pub fn new() -> notify::Result<Self> {
        let changes = Arc::new(Notify::new());
        let notifier = changes.clone();
        let being_written = Arc::<Mutex<BTreeSet<PathBuf>>>::default();
        let writes = being_written.clone();
        let watched = Arc::<Mutex<Vec<PathBuf>>>::default();
        let counts = watched.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = &event {
                if is_content(event)
                    && !concerns(event, &counts.lock().unwrap_or_else(PoisonError::into_inner))
                {
                    return;
                }
                note_writes(event, &mut writes.lock().unwrap_or_else(PoisonError::into_inner));
            }
            // An error (a queue that ran over) may hide a change.
            if event.as_ref().map_or(true, is_change) {
                notifier.notify_one();
            }
        })?;
        Ok(Self { watcher, watched, changes, being_written })
    }

    /// Watches a folder and those below it.
    pub fn add_tree(&mut self, folder: &Path) -> notify::Result<()> {
        self.count(folder.to_owned());
        self.watcher.watch(folder, RecursiveMode::Recursive)
    }

    /// Watches a file through its folder.
    pub fn add_file(&mut self, file: &Path) -> notify::Result<()> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        self.count(folder.join(file.file_name().unwrap_or_default()));
        self.watcher.watch(folder, RecursiveMode::NonRecursive)
    }

    /// Events name what is watched by its absolute path.
    fn count(&self, path: PathBuf) {
        let path = std::path::absolute(&path).unwrap_or(path);
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    /// Resolves when something changed and has come to rest.
    pub async fn changed(&self) {
        self.changes.notified().await;
        let end = Instant::now() + LONGEST;
        let rest = async { while timeout(QUIET, self.changes.notified()).await.is_ok() {} };
        // At the end of the longest wait the files are read anyway.
        let _ = timeout_at(end, rest).await;
        let patience = Instant::now() + LONGEST_WRITE;
        while self.is_being_written() && timeout_at(patience, self.changes.notified()).await.is_ok() {}
        self.being_written.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether a file has been written to and not been closed since.
    pub fn is_being_written(&self) -> bool {
        !self.being_written.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

fn note_writes(event: &Event, being_written: &mut BTreeSet<PathBuf>) {
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => being_written.extend(event.paths.iter().cloned()),
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => {
            for path in &event.paths {
                being_written.remove(path);
            }
        }
        _ => {}
    }
}

/// Whether something was written into a file that was there before and still is.
fn is_content(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) | EventKind::Access(_)
    )
}

fn concerns(event: &Event, watched: &[PathBuf]) -> bool {
    event.paths.is_empty()
        || event.paths.iter().any(|path| watched.iter().any(|counts| path.starts_with(counts)))
}

/// Reading files is an event too, and we read them.
fn is_change(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn writing_replacing_and_deleting_are_noticed_and_reading_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::new().unwrap();
        watch.add_tree(folder.path()).unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        timeout(PATIENCE, watch.changed()).await.expect("written");
        std::fs::write(folder.path().join("new"), "b").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        timeout(PATIENCE, watch.changed()).await.expect("replaced");
        while timeout(Duration::from_millis(100), watch.changed()).await.is_ok() {}
        std::fs::read(&file).unwrap();
        assert!(timeout(Duration::from_millis(200), watch.changed()).await.is_err(), "read");
        std::fs::remove_file(&file).unwrap();
        timeout(PATIENCE, watch.changed()).await.expect("deleted");
    }

    #[tokio::test]
    async fn folders_that_come_later_are_watched_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::new().unwrap();
        watch.add_tree(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("team")).unwrap();
        timeout(PATIENCE, watch.changed()).await.expect("folder made");
        while timeout(Duration::from_millis(100), watch.changed()).await.is_ok() {}
        std::fs::write(folder.path().join("team/a.yaml"), "a").unwrap();
        timeout(PATIENCE, watch.changed()).await.expect("written in the new folder");
    }

    #[tokio::test]
    async fn what_is_written_beside_a_watched_file_is_passed_over() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("values.yaml"), folder.path().join("log"));
        std::fs::write(&file, "a").unwrap();
        let mut log = std::fs::File::create(log).unwrap();
        let mut watch = FolderWatch::new().unwrap();
        watch.add_file(&file).unwrap();
        log.write_all(b"one").unwrap();
        assert!(timeout(Duration::from_millis(300), watch.changed()).await.is_err(), "a log");
        std::fs::write(&file, "b").unwrap();
        log.write_all(b"two").unwrap();
        timeout(PATIENCE / 2, watch.changed()).await.expect("the file, though the log is open");
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_waited_for() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::new().unwrap();
        watch.add_tree(folder.path()).unwrap();
        let mut file = std::fs::File::create(folder.path().join("a.yaml")).unwrap();
        file.write_all(b"half").unwrap();
        assert!(timeout(Duration::from_millis(500), watch.changed()).await.is_err(), "half a file");
        file.write_all(b" and half").unwrap();
        drop(file);
        timeout(PATIENCE, watch.changed()).await.expect("closed");
    }
}
