//! `tidegate secrets`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{Ending, print};
use crate::bundle::{Interlocks, Keyring};
use crate::state::StateDir;

/// Make what all replicas of a control plane share: the keys that sign, and the secret of interlocks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate secrets keys
  kubectl -n tidegate-system create secret generic tidegate-secrets --from-file=keys

For `serve --secrets`, in a folder that is empty or not there yet. Filters trust whoever has these files: keep a copy where nobody
else can read it, and remove the folder. A control plane that has run by itself has them in its --state already.

Exit codes: 0 made; 2 the command line is wrong; 3 the folder is not empty, or cannot be written.")]
pub(super) struct Arguments {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let folder = &arguments.folder;
    if folder.exists() && std::fs::read_dir(folder)?.next().is_some() {
        bail!("`{}` is not empty; name a new folder, so that no key is taken for another", folder.display());
    }
    let state = StateDir::open(folder)?;
    let keys = Keyring::open(&state)?.trusted();
    Interlocks::open(&state)?;
    state.unlock()?;
    let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
    print(&format!("made `{}`; filters trust the keys {}\n", folder.display(), ids.join(" and ")))?;
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replicas_share_is_made_once_and_nothing_else_is_in_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("keys");
        let arguments = Arguments { folder: folder.clone() };
        run(&arguments).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["interlock-secret", "next-signing-key.p8", "signing-key.p8"]);
        let keys = Keyring::read(&folder).unwrap().unwrap().trusted();
        assert!(Interlocks::peek(&folder).unwrap().is_some());
        let error = run(&arguments).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        assert_eq!(Keyring::read(&folder).unwrap().unwrap().trusted(), keys);
    }
}
