//! A folder as the source of rules: has what is on disk judged whenever it changes.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use crate::push::{Hub, stopped};
use crate::rules::{
    Environment, Fingerprint, FolderWatch, LoadError, Loaded, fingerprint, load, load_directory,
    load_environment,
};
use crate::state::StateError;

/// How often sizes and times are looked at, should an event have been missed (network file systems have none).
const POLL: Duration = Duration::from_secs(2);

/// Where files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub rules: PathBuf,
    pub environment: Option<PathBuf>,
    pub directory: Option<PathBuf>,
}

/// What becomes of the rules in a folder. Blocking.
pub(super) trait Considers: Send + 'static {
    /// Takes what is there now.
    fn consider(&mut self, loaded: &Loaded, environment: &Environment) -> Result<(), StateError>;
    /// Nothing is known of what is there, and why; `None`: it is.
    fn fails(&mut self, error: Option<String>);
}

/// Reads, and has it judged. Blocking.
pub(super) struct Source<C> {
    places: Places,
    hub: Arc<Hub>,
    judgement: C,
    seen: Option<(Loaded, Environment)>,
    fingerprint: Option<Fingerprint>,
    /// Whether it was said already that watching does not work.
    is_polling: bool,
}

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    State(#[from] StateError),
}

// === impl Places ===

impl Places {
    /// Reads everything once, to say at the start what cannot be read.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        load(&self.rules)?;
        self.environment.as_deref().map(load_environment).transpose()?;
        self.directory.as_deref().map(load_directory).transpose()?;
        Ok(())
    }

    fn environment(&self) -> Result<Environment, LoadError> {
        Ok(self.environment.as_deref().map(load_environment).transpose()?.unwrap_or_default())
    }

    fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        [&self.environment, &self.directory].into_iter().flatten().map(PathBuf::as_path)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint(&self.rules, self.files()).ok()
    }

    fn watch(&self) -> notify::Result<FolderWatch> {
        let mut watch = FolderWatch::new()?;
        watch.add_tree(&self.rules)?;
        // A folder that is watched as a tree must not be watched again as a folder.
        for file in self.files().filter(|file| !file.starts_with(&self.rules)) {
            watch.add_file(file)?;
        }
        Ok(watch)
    }
}

// === impl Source ===

impl<C: Considers> Source<C> {
    pub(super) fn new(places: Places, hub: Arc<Hub>, judgement: C) -> Self {
        Self { places, hub, judgement, seen: None, fingerprint: None, is_polling: false }
    }

    /// Watches until the server stops.
    pub(super) async fn run(mut self) -> Result<(), tokio::task::JoinError> {
        let mut stop = self.hub.stopping();
        let mut watch = self.start_watching();
        loop {
            self = tokio::task::spawn_blocking(move || {
                self.refresh();
                self
            })
            .await?;
            let begin_anew = {
                // Kept over polls: it may be waiting for the end of a write.
                let mut changed = pin!(async {
                    match &watch {
                        Some(watch) => watch.changed().await,
                        None => std::future::pending().await,
                    }
                });
                loop {
                    tokio::select! {
                        () = &mut changed => break false,
                        () = tokio::time::sleep(POLL) => {
                            if watch.as_ref().is_some_and(FolderWatch::is_being_written) {
                                continue;
                            }
                            let places = self.places.clone();
                            let fingerprint =
                                tokio::task::spawn_blocking(move || places.fingerprint()).await?;
                            if fingerprint != self.fingerprint || self.seen.is_none() {
                                break true;
                            }
                        }
                        () = stopped(&mut stop) => return Ok(()),
                    }
                }
            };
            if begin_anew {
                // No event came. The folder may be another one of the same name.
                watch = self.start_watching();
            }
        }
    }

    fn start_watching(&mut self) -> Option<FolderWatch> {
        let watch = self.places.watch();
        if let Err(error) = &watch
            && !self.is_polling
        {
            warn!("changes are noticed within {} s instead of at once: {error}", POLL.as_secs());
        }
        self.is_polling = watch.is_err();
        watch.ok()
    }

    fn refresh(&mut self) {
        self.fingerprint = self.places.fingerprint();
        self.refresh_directories();
        let error = self.refresh_rules().err().map(|error| error.to_string());
        if error.is_some() {
            // It is looked at again with every poll.
            self.seen = None;
        }
        self.judgement.fails(error);
    }

    fn refresh_directories(&self) {
        let Some(path) = &self.places.directory else { return };
        match load_directory(path) {
            Ok(loaded) => self.hub.directories.set_file(loaded),
            Err(error) => error!("the directories stay as they were: {error}"),
        }
    }

    fn refresh_rules(&mut self) -> Result<(), SourceError> {
        let now = (load(&self.places.rules)?, self.places.environment()?);
        if self.seen.as_ref() == Some(&now) {
            return Ok(());
        }
        let (loaded, environment) = &now;
        self.judgement.consider(loaded, environment)?;
        self.seen = Some(now);
        Ok(())
    }
}
