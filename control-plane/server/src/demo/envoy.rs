//! Runs Envoy: from a configuration to a process that is ready, with the ports that it chose.
//!
//! Listeners and the admin interface bind port 0, and the ports are read back, so that nothing collides.
//!
//! INVARIANT: an [`Envoy`] that was returned answered as ready with its workers started; when it is dropped the
//! process is gone.

mod find;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::{Answer, Call, CallError, Endpoint, Protocol};
use super::process::ChildProcess;

pub use find::{EnvoyBinary, EnvoyRelease, EnvoySearch, EnvoyVersion, FindEnvoyError, Origin, find_envoy};

/// How to run an Envoy.
#[derive(Debug, Clone)]
pub struct EnvoyOptions {
    /// Worker threads.
    pub concurrency: u32,
    /// `trace`, `debug`, `info`, `warning`, `error`, `critical`; with components as `info,wasm:debug`.
    pub log_level: String,
    /// How long it may take until it is ready.
    pub ready_within: Duration,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// A running Envoy; dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    name: String,
    process: ChildProcess,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
    // Last: removed when the process is gone.
    directory: tempfile::TempDir,
}

/// An Envoy did not start, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// Its files cannot be written.
    #[error("Envoy `{name}`: cannot {action}: {source}")]
    Files {
        /// Which Envoy.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The process cannot be started.
    #[error("Envoy `{name}`: cannot start `{}`: {source}", path.display())]
    Spawn {
        /// Which Envoy.
        name: String,
        /// The program.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("Envoy `{name}` ended with {status} before it was ready; the end of its log:\n{log}")]
    Ended {
        /// Which Envoy.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It is not ready in time.
    #[error("Envoy `{name}` was not ready within {} s ({state}); the end of its log:\n{log}", within.as_secs_f32())]
    NotReady {
        /// Which Envoy.
        name: String,
        /// How long was waited.
        within: Duration,
        /// The last that was seen.
        state: String,
        /// The end of its log.
        log: String,
    },
    /// The admin interface cannot be called.
    #[error("Envoy `{name}`: `{path}` of the admin interface: {source}")]
    Admin {
        /// Which Envoy.
        name: String,
        /// What was asked for.
        path: String,
        /// What came of it.
        source: CallError,
    },
    /// The admin interface answers something else than expected.
    #[error("Envoy `{name}`: `{path}` of the admin interface answers: {answer}")]
    Answer {
        /// Which Envoy.
        name: String,
        /// What was asked for.
        path: String,
        /// The answer, or why it cannot be read.
        answer: String,
    },
    /// There is no listener of that name.
    #[error("Envoy `{name}` has no listener `{listener}`; it has {known:?}")]
    NoListener {
        /// Which Envoy.
        name: String,
        /// What was asked for.
        listener: String,
        /// What there is.
        known: Vec<String>,
    },
}

// === impl EnvoyOptions ===

impl Default for EnvoyOptions {
    fn default() -> Self {
        Self {
            concurrency: 1,
            log_level: "info".into(),
            // V8 optimises the module before it runs it; on a busy machine with few cores that takes seconds.
            ready_within: Duration::from_secs(60),
            arguments: Vec::new(),
        }
    }
}

// === impl Envoy ===

impl Envoy {
    /// Starts `binary` with the bootstrap `config` and waits until it is ready. `name` is for messages.
    ///
    /// The admin interface of `config` is replaced by one on a free loopback port.
    pub async fn start(
        binary: &EnvoyBinary,
        name: &str,
        config: &Value,
        options: &EnvoyOptions,
    ) -> Result<Self, EnvoyError> {
        let files = |action| move |source| EnvoyError::Files { name: name.to_owned(), action, source };
        let directory = tempfile::Builder::new()
            .prefix(&format!("tidegate-envoy-{name}-"))
            .tempdir()
            .map_err(files("create a temporary folder"))?;
        let config_path = config_path(directory.path());
        let admin_path = directory.path().join("admin-address");
        let mut config = config.clone();
        // Anything but an object is left for Envoy to refuse.
        if let Some(config) = config.as_object_mut() {
            let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
            config.insert("admin".into(), json!({"address": address}));
        }
        fs::write(&config_path, format!("{config:#}\n")).map_err(files("write its configuration"))?;
        let log = fs::File::create(log_path(directory.path())).map_err(files("create its log"))?;
        let log_too = log.try_clone().map_err(files("create its log"))?;

        let mut command = Command::new(&binary.path);
        command
            .arg("--config-path")
            .arg(&config_path)
            .arg("--admin-address-path")
            .arg(&admin_path)
            // No shared memory and no socket by which two Envoys of one machine would find each other.
            .arg("--disable-hot-restart")
            .args(["--concurrency", &options.concurrency.to_string()])
            .args(log_level_arguments(&options.log_level))
            .args(["--file-flush-interval-msec", "50"])
            .args(&options.arguments)
            .stdout(log)
            .stderr(log_too);
        let process = ChildProcess::spawn(command).map_err(|source| EnvoyError::Spawn {
            name: name.to_owned(),
            path: binary.path.clone(),
            source,
        })?;
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let mut envoy = Self {
            name: name.to_owned(),
            process,
            admin: unspecified,
            listeners: BTreeMap::new(),
            directory,
        };
        envoy.become_ready(&admin_path, options.ready_within).await?;
        envoy.listeners = envoy.read_listeners().await?;
        Ok(envoy)
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its admin interface listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Where the listener of this name listens.
    pub fn address(&self, listener: &str) -> Result<SocketAddr, EnvoyError> {
        self.listeners.get(listener).copied().ok_or_else(|| EnvoyError::NoListener {
            name: self.name.clone(),
            listener: listener.to_owned(),
            known: self.listeners.keys().cloned().collect(),
        })
    }

    /// Its configuration, with its private keys.
    pub fn config_path(&self) -> PathBuf {
        config_path(self.directory.path())
    }

    /// Its log file.
    pub fn log_path(&self) -> PathBuf {
        log_path(self.directory.path())
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    /// Asks the admin interface, e.g. `/stats?filter=wasm`.
    pub async fn admin_get(&self, path: &str) -> Result<String, EnvoyError> {
        self.admin_call(Call::new(http::Method::GET, path)).await
    }

    /// Tells the admin interface, e.g. `/logging?wasm=debug`.
    pub async fn admin_post(&self, path: &str) -> Result<String, EnvoyError> {
        self.admin_call(Call::new(http::Method::POST, path)).await
    }

    /// Counters and gauges whose names match the regular expression `filter`.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>, EnvoyError> {
        let encoded: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let text = self.admin_get(&format!("/stats?filter={encoded}")).await?;
        // Other lines are histograms and texts.
        let numbers = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(numbers.collect())
    }

    /// Ends it in order: asks, waits up to 5 s, then kills. Says how it ended.
    pub async fn stop(self) -> Option<ExitStatus> {
        self.process.stop(Duration::from_secs(5)).await
    }

    async fn admin_call(&self, call: Call) -> Result<String, EnvoyError> {
        let path = call.path().to_owned();
        let answer = self.ask(call).await.map_err(|source| EnvoyError::Admin {
            name: self.name.clone(),
            path: path.clone(),
            source,
        })?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status.is_success() {
            Ok(text)
        } else {
            Err(self.unexpected(&path, format!("{}: {text}", answer.status)))
        }
    }

    async fn ask(&self, call: Call) -> Result<Answer, CallError> {
        Endpoint::plain(self.admin).call(Protocol::Http1, call).await
    }

    fn unexpected(&self, path: &str, answer: String) -> EnvoyError {
        EnvoyError::Answer { name: self.name.clone(), path: path.to_owned(), answer }
    }

    async fn become_ready(&mut self, admin_path: &Path, within: Duration) -> Result<(), EnvoyError> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exited() {
                return Err(EnvoyError::Ended { name: self.name.clone(), status, log: self.log_tail(30) });
            }
            let state = self.readiness(admin_path).await;
            if state == Readiness::Ready {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (name, state) = (self.name.clone(), state.to_string());
                return Err(EnvoyError::NotReady { name, within, state, log: self.log_tail(30) });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn readiness(&mut self, admin_path: &Path) -> Readiness {
        let written = fs::read_to_string(admin_path).unwrap_or_default();
        let Ok(admin) = written.trim().parse() else { return Readiness::NoAdmin };
        self.admin = admin;
        match self.ask(Call::new(http::Method::GET, "/ready")).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => return Readiness::Waiting(String::from_utf8_lossy(&answer.body).trim().to_owned()),
            Err(error) => return Readiness::Waiting(error.to_string()),
        }
        // `/ready` says LIVE before the workers accept connections.
        let workers = "listener_manager.workers_started";
        match self.stats(&format!("^{workers}$")).await {
            Ok(stats) if stats.get(workers) == Some(&1) => Readiness::Ready,
            Ok(_) => Readiness::Waiting("its workers have not started".into()),
            Err(error) => Readiness::Waiting(error.to_string()),
        }
    }

    async fn read_listeners(&self) -> Result<BTreeMap<String, SocketAddr>, EnvoyError> {
        let path = "/listeners?format=json";
        let text = self.admin_get(path).await?;
        let listeners: Listeners =
            serde_json::from_str(&text).map_err(|error| self.unexpected(path, format!("{error}: {text}")))?;
        // Those inside of the proxy have none.
        let addresses = listeners.listener_statuses.into_iter().filter_map(|status| {
            let socket = status.local_address.socket_address?;
            let ip = socket.address.parse().map_err(|_| self.unexpected(path, text.clone()));
            Some(ip.map(|ip| (status.name, SocketAddr::new(ip, socket.port_value))))
        });
        addresses.collect()
    }
}

/// How far a starting Envoy is.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    NoAdmin,
    Waiting(String),
    Ready,
}

impl std::fmt::Display for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAdmin => f.write_str("it has not opened its admin interface"),
            Self::Waiting(state) => write!(f, "last seen: {state}"),
            Self::Ready => f.write_str("ready"),
        }
    }
}

#[derive(Deserialize)]
struct Listeners {
    #[serde(default)]
    listener_statuses: Vec<ListenerStatus>,
}

#[derive(Deserialize)]
struct ListenerStatus {
    name: String,
    local_address: LocalAddress,
}

#[derive(Deserialize)]
struct LocalAddress {
    socket_address: Option<SocketAddressStatus>,
}

#[derive(Deserialize)]
struct SocketAddressStatus {
    address: String,
    port_value: u16,
}

fn config_path(directory: &Path) -> PathBuf {
    directory.join("envoy.json")
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("envoy.log")
}

/// `info,wasm:debug` is one level for all and levels for components.
fn log_level_arguments(level: &str) -> Vec<String> {
    let (general, components) = level.split_once(',').unwrap_or((level, ""));
    let mut arguments = vec!["--log-level".to_owned(), general.to_owned()];
    if !components.is_empty() {
        arguments.extend(["--component-log-level".to_owned(), components.to_owned()]);
    }
    arguments
}

#[cfg(test)]
mod tests;
