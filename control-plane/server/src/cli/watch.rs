//! `--watch`: a command again whenever the rules change.
//!
//! INVARIANT: standard output has only what the command prints; what separates runs is on standard error.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Ending, complain, complain_text, with_causes};
use crate::clock;
use crate::rules::{Fingerprint, FolderWatch, fingerprint};

/// This long nothing may happen before the command runs again: editors and checkouts write several files.
const QUIET: Duration = Duration::from_millis(100);
/// After this long it runs although more happens.
const LONGEST: Duration = Duration::from_secs(2);

/// Runs a command now and after every change below `folder` or of `file`, until Ctrl-C. Ends as the last run did.
pub(super) fn repeat(
    folder: &Path,
    file: Option<&Path>,
    run: impl FnMut() -> anyhow::Result<Ending>,
) -> anyhow::Result<Ending> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // First of all, so that it is not missed while the command runs.
        let stop = stop()?;
        until(stop, folder, file, run).await
    })
}

async fn until(
    stop: impl Future<Output = ()>,
    folder: &Path,
    file: Option<&Path>,
    mut run: impl FnMut() -> anyhow::Result<Ending>,
) -> anyhow::Result<Ending> {
    let mut watch = FolderWatch::new().context("cannot watch for changes")?;
    watch
        .add_tree(folder)
        .with_context(|| format!("cannot watch `{}`; it must be a folder with rules", folder.display()))?;
    // A checkout may replace the folder itself. A relative name has no parent; it lies here.
    for beside in [Some(folder), file].into_iter().flatten() {
        watch.add_file(beside).with_context(|| format!("cannot watch where `{}` is", beside.display()))?;
    }
    tokio::pin!(stop);
    for number in 2_u64.. {
        let seen = state(folder, file);
        let ended = run().unwrap_or_else(|error| {
            complain(&with_causes(&error));
            Ending::Failed
        });
        complain_text(&format!("\nwatching {}; Ctrl-C ends it\n", folder.display()));
        loop {
            tokio::select! {
                () = &mut stop => return Ok(ended),
                () = settled(&watch) => {}
            }
            // A folder that was replaced is another one.
            if folder.is_dir() {
                watch.add_tree(folder).with_context(|| format!("cannot watch `{}`", folder.display()))?;
            }
            if state(folder, file) != seen {
                break;
            }
        }
        complain_text(&format!("\n--- run {number}, {} ---\n\n", clock::rfc3339(clock::now())));
    }
    Ok(Ending::Failed)
}

async fn settled(watch: &FolderWatch) {
    watch.changed().await;
    let end = Instant::now() + LONGEST;
    let rest = async { while timeout(QUIET, watch.changed()).await.is_ok() {} };
    // At the end of the longest wait it runs anyway.
    let _ = timeout_at(end, rest).await;
}

/// What differs after a change that matters. `None`: there is nothing to read.
fn state(folder: &Path, file: Option<&Path>) -> Option<Fingerprint> {
    fingerprint(folder, file.into_iter()).ok()
}

#[cfg(unix)]
fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals =
        || Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    let (mut interrupt, mut terminate) = signals().context("cannot wait for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn it_runs_again_on_a_change_and_ends_as_the_last_run_did() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("rules");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), "a").unwrap();
        let (ran, runs) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let stop = async { drop(ended.await) };
        let at = folder.clone();
        let change = async move {
            let wait = |wanted: usize| {
                let runs = &runs;
                async move {
                    let mut seen: usize = 0;
                    let begin = std::time::Instant::now();
                    while seen < wanted {
                        match runs.try_recv() {
                            Ok(()) => seen += 1,
                            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                        }
                        assert!(begin.elapsed() < PATIENCE, "{seen} runs, {wanted} wanted");
                    }
                }
            };
            wait(1).await;
            // Nothing of rules.
            std::fs::write(at.join("notes.txt"), "x").unwrap();
            tokio::time::sleep(QUIET * 4).await;
            assert!(runs.try_recv().is_err(), "a run for a file that is no rule");
            std::fs::write(at.join("a.yaml"), "ab").unwrap();
            wait(1).await;
            // The folder is replaced as a whole, and edited afterwards.
            std::fs::rename(&at, at.with_extension("old")).unwrap();
            wait(1).await;
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("b.yaml"), "b").unwrap();
            wait(1).await;
            std::fs::write(at.join("b.yaml"), "bc").unwrap();
            wait(1).await;
            end.send(()).unwrap();
        };
        let mut count = 0;
        let run = || {
            count += 1;
            ran.send(()).unwrap();
            if count == 5 { Ok(Ending::Refused) } else { anyhow::bail!("run {count}") }
        };
        let (ending, ()) = tokio::join!(until(stop, &folder, None, run), change);
        assert_eq!(ending.unwrap(), Ending::Refused);
        assert_eq!(count, 5);
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("rules");
        let error = until(std::future::pending(), &missing, None, || Ok(Ending::Done)).await.unwrap_err();
        assert!(error.to_string().contains("it must be a folder"), "{error}");
    }
}
