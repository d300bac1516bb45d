//! Who changed which file of the rules last, where their folder is in a Git work tree.
//!
//! Git is asked in the background, and only what it has committed. A folder may come from somebody else, and its Git
//! configuration with it, so everything by which that could start a program or reach a network is switched off.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use super::record::Moment;

/// How long Git may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many commits are looked at: whoever changed a file before is not known.
const MOST_COMMITS: &str = "20000";
/// Longest answer, in bytes.
const MOST_BYTES: u64 = 64 << 20;
/// Begins the line of a commit; no file's name that Git prints unquoted has it.
const COMMIT: char = '\u{1}';

/// The last change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Hexadecimal.
    pub commit: String,
    /// As the commit says.
    pub author: String,
    /// When it was committed.
    pub at: Moment,
}

fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("--no-pager").arg("-C").arg(folder).args([
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.sshCommand=false",
        "-c",
        "core.quotePath=false",
        "-c",
        "gpg.program=false",
        "-c",
        "log.showSignature=false",
        "-c",
        "protocol.allow=never",
    ]);
    git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
    // Those of whoever started the server are about another folder.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_TRACE"] {
        git.env_remove(name);
    }
    git.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    git
}

/// The last changes of files below a folder, by path relative to it. A file whose text is not as it was committed has none;
/// without Git, or outside of a work tree, no file has one.
pub async fn last_changes(folder: &Path, files: &BTreeMap<String, String>) -> BTreeMap<String, Change> {
    tokio::time::timeout(PATIENCE, look(folder, files)).await.ok().flatten().unwrap_or_default()
}

async fn look(folder: &Path, files: &BTreeMap<String, String>) -> Option<BTreeMap<String, Change>> {
    let committed = committed(folder).await?;
    let is_as_committed = |(path, text): &(&String, &String)| {
        committed.get(path.as_str()).is_some_and(|blob| is_blob(text.as_bytes(), blob))
    };
    let mut wanted: Vec<&str> = files.iter().filter(is_as_committed).map(|(path, _)| path.as_str()).collect();
    let mut changes = BTreeMap::new();
    if wanted.is_empty() {
        return Some(changes);
    }
    let format = format!("--format={COMMIT}%H{COMMIT}%ct{COMMIT}%an");
    let mut log = git(folder);
    log.args(["log", "--no-show-signature", "--no-ext-diff", "--no-textconv", "--no-renames", "--name-only"]);
    log.args(["--relative", "--max-count", MOST_COMMITS, &format, "HEAD", "--", "."]);
    let mut child = log.spawn().ok()?;
    let mut lines = BufReader::new(child.stdout.take()?.take(MOST_BYTES)).lines();
    let mut current: Option<Change> = None;
    // Ends the process too, as soon as everything is known.
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(about) = line.strip_prefix(COMMIT) {
            let mut parts = about.splitn(3, COMMIT);
            current = match (parts.next(), parts.next().and_then(|at| at.parse().ok()), parts.next()) {
                (Some(commit), Some(at), Some(author)) => Some(Change {
                    commit: super::clean::text(commit, 64),
                    author: super::clean::text(author, 128),
                    at: Moment::of_seconds(at),
                }),
                _ => None,
            };
        } else if let Some(at) = wanted.iter().position(|path| *path == line) {
            let path = wanted.swap_remove(at);
            changes.extend(current.clone().map(|change| (path.to_owned(), change)));
            if wanted.is_empty() {
                break;
            }
        }
    }
    Some(changes)
}

/// The blobs of the last commit, by path relative to the folder.
async fn committed(folder: &Path) -> Option<BTreeMap<String, String>> {
    let mut tree = git(folder);
    tree.args(["ls-tree", "-r", "-z", "HEAD", "--", "."]);
    let mut child = tree.spawn().ok()?;
    let mut answer = Vec::new();
    child.stdout.take()?.take(MOST_BYTES).read_to_end(&mut answer).await.ok()?;
    if !child.wait().await.ok()?.success() {
        return None;
    }
    // `100644 blob 3b18e512…<tab>orders.yaml`
    let entry = |line: &[u8]| {
        let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
        let mut words = about.split(' ').skip(1);
        (words.next() == Some("blob")).then_some(())?;
        Some((path.to_owned(), words.next()?.to_owned()))
    };
    Some(answer.split(|byte| *byte == 0).filter_map(entry).collect())
}

/// Whether this is the content of the blob, in a repository of either format.
fn is_blob(content: &[u8], id: &str) -> bool {
    use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
    let algorithm = if id.len() == 64 { &SHA256 } else { &SHA1_FOR_LEGACY_USE_ONLY };
    let mut digest = Context::new(algorithm);
    digest.update(format!("blob {}\0", content.len()).as_bytes());
    digest.update(content);
    crate::bundle::hex(digest.finish().as_ref()) == id
}

#[cfg(test)]
mod tests {
    use std::process::Command as Blocking;

    use super::*;

    fn run(folder: &Path, arguments: &[&str]) -> String {
        let output = Blocking::new("git")
            .arg("-C")
            .arg(folder)
            .args([
                "-c",
                "user.name=Dana",
                "-c",
                "user.email=dana@sales.example",
                "-c",
                "commit.gpgSign=false",
            ])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn has_git() -> bool {
        let there = Blocking::new("git").arg("--version").output().is_ok();
        if !there {
            println!("SKIPPED: there is no git");
        }
        there
    }

    fn texts(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect()
    }

    #[tokio::test]
    async fn every_file_has_the_commit_that_changed_it_last_unless_it_differs_from_that() {
        if !has_git() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("rules");
        std::fs::create_dir_all(folder.join("b")).unwrap();
        run(place.path(), &["init", "-q"]);
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("a.yaml", "one");
        write("b/größe.yaml", "two");
        write("c.yaml", "three");
        run(place.path(), &["add", "."]);
        run(place.path(), &["commit", "-qm", "first"]);
        let first = run(place.path(), &["rev-parse", "HEAD"]);
        write("a.yaml", "one, changed");
        run(place.path(), &["commit", "-qam", "second"]);
        let second = run(place.path(), &["rev-parse", "HEAD"]);
        // The repository tries to start programs.
        let canary = place.path().join("started");
        let program = format!("touch {}; false", canary.display());
        for key in ["core.fsmonitor", "core.pager", "gpg.program", "core.sshCommand", "diff.external"] {
            run(place.path(), &["config", key, &program]);
        }
        run(place.path(), &["config", "log.showSignature", "true"]);
        let files = texts(&[
            ("a.yaml", "one, changed"),
            ("b/größe.yaml", "two"),
            ("c.yaml", "not committed"),
            ("d.yaml", ""),
        ]);
        let changes = last_changes(&folder, &files).await;
        let found: Vec<(&str, &str, &str)> = changes
            .iter()
            .map(|(path, change)| (path.as_str(), change.commit.as_str(), change.author.as_str()))
            .collect();
        assert_eq!(found, [("a.yaml", second.as_str(), "Dana"), ("b/größe.yaml", first.as_str(), "Dana")]);
        assert!(!canary.exists(), "the repository's configuration started a program");
    }

    #[tokio::test]
    async fn outside_of_a_work_tree_nothing_is_known() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), "one").unwrap();
        assert_eq!(last_changes(folder.path(), &texts(&[("a.yaml", "one")])).await, BTreeMap::new());
    }
}
