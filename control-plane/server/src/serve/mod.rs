//! The server: wiring of rules, keys, bundles, gRPC and the admin interface.
//!
//! INVARIANT: all tasks live in one set. If one ends while nobody stopped the server, the server ends with an error;
//! nothing lives on half-dead.

mod candidate;
mod cluster;
mod contents;
mod error;
mod judgement;
mod key_sources;
mod options;
mod publish;
mod source;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use self::candidate::CandidateJudge;
use self::cluster::{Channels, Cluster, Replicas};
use self::judgement::Judgement;
use self::publish::PublishTask;
use self::source::{Places, Source};
use crate::admin;
use crate::bundle::{Interlocks, Keyring, Publisher, TrustedKey};
use crate::clock;
use crate::control::Control;
use crate::decisions;
use crate::directories::{self, DirectoryReport};
use crate::export;
use crate::keys::{AddressGuard, Fetcher, IssuerReport, Reports};
use crate::kube::Leadership;
use crate::metrics::ExportMetrics;
use crate::module_server::{self, Modules};
use crate::push::{self, FleetReport, Followed, Hub, Served};
use crate::state::StateDir;
use crate::transport::{Acceptor, Authenticate, Certificates, Roster, Security, WhoIs};
use crate::uses;

pub use candidate::{CandidateReport, CandidateState, ComparisonReport};
#[cfg(test)]
pub(crate) use contents::Assembler;
pub use error::ServeError;
pub use judgement::Diagnosis;
pub(crate) use judgement::{InForce, Judgement as RuleJudgement, compile_again, compile_files};
pub(crate) use key_sources::key_sources;
pub(crate) use options::authorities;
pub use options::{Options, RuleSource};

/// How long streams and requests may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// Where filters connect.
    pub grpc_addr: SocketAddr,
    /// Where people and probes look.
    pub admin_addr: SocketAddr,
    /// Where proxies fetch the filter module.
    pub module_addr: Option<SocketAddr>,
    /// Where probes and metrics are served besides.
    pub probes_addr: Option<SocketAddr>,
    /// What filters are to trust.
    pub trusted_keys: Vec<TrustedKey>,
    hub: Arc<Hub>,
    diagnosis: Arc<Mutex<Diagnosis>>,
    candidate: Arc<Mutex<CandidateReport>>,
    issuers: Arc<Reports>,
    ready: watch::Receiver<bool>,
    leadership: watch::Receiver<Leadership>,
    tasks: JoinSet<(&'static str, Result<(), TaskError>)>,
}

/// Where rules are, as it was found at the start.
enum Place {
    Folder(Places),
    Cluster(Box<Cluster>),
}

type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// Starts a server. It runs until [`Running::shutdown`]; rules are compiled after this returns, see [`Running::ready`].
///
/// Must be called in a tokio runtime.
///
/// # Errors
/// When something it needs is missing, unreadable or in use.
pub async fn start(options: Options) -> Result<Running, ServeError> {
    let (rules, environment, directory) = (options.rules, options.environment, options.directory);
    let environment_of_candidate = environment.clone();
    let place = match rules {
        RuleSource::Folder(rules) => {
            let places = Places { rules, environment, directory };
            places.check()?;
            Place::Folder(places)
        }
        RuleSource::Cluster(cluster) => {
            Place::Cluster(Box::new(Cluster::new(cluster, environment, directory).await?))
        }
    };
    let transport = Arc::new(options.transport);
    transport.check(options.listen, options.admin)?;
    let (certificates, keeper) = match &transport.security {
        Security::Mutual(files) => Some(Certificates::load(files, &transport.trust_domains)?).unzip(),
        Security::Sidecar(_) | Security::Insecure => (None, None),
    };
    let guard = AddressGuard::new(options.allow_issuer_loopback, options.allow_issuer_networks);
    let fetcher = Fetcher::new(&authorities(&options.issuer_ca)?, guard)?;
    let index = directories::Index::new(options.directories.fresh_for);
    let directory_sources = directories::Sources::new(&options.directories)?;
    let state = Arc::new(StateDir::open(&options.state)?);
    directories::restore(&index, &state)?;
    let missing = |folder: &Path| ServeError::Secrets { path: folder.to_owned() };
    // Made at the first start, so that objects can be written with them from then on.
    let keyring = || match &options.secrets {
        None => Ok(Keyring::open(&state)?),
        Some(folder) => Keyring::read(folder)?.ok_or_else(|| missing(folder)),
    };
    let interlocks = match &options.secrets {
        None => Interlocks::open(&state)?,
        Some(folder) => Interlocks::peek(folder)?.ok_or_else(|| missing(folder))?,
    };
    let (keyring, signer) = (keyring()?, Arc::new(keyring()?));
    let publisher = Publisher::with_keys(state.clone(), keyring, clock::now())?;
    let trusted_keys = publisher.keys().trusted();
    let (grpc, grpc_addr) = listen(options.listen, "filters", "--listen").await?;
    let (http, admin_addr) = listen(options.admin, "the admin interface", "--admin").await?;
    let modules = match options.modules {
        None => None,
        Some(address) => {
            let (listener, address) = listen(address, "the filter module", "--module-listen").await?;
            Some((Modules::open(&state)?, listener, address))
        }
    };
    let probes = match transport.probes {
        Some(address) => Some(listen(address, "probes", "--probes").await?),
        None => None,
    };

    let roster = Arc::new(Roster::new(&transport.trust_domains));
    let who_is: Arc<dyn WhoIs> = match &place {
        Place::Folder(_) => roster.clone(),
        Place::Cluster(cluster) => cluster.who_is(roster.clone()),
    };
    let hub = Arc::new(Hub::with(index, who_is, &transport));
    let writing = decisions::open(&options.decisions, &hub)?;
    let written = match &place {
        Place::Folder(places) => decisions::rules::Place::Folder(places.rules.clone()),
        Place::Cluster(cluster) => decisions::rules::Place::Objects(cluster.authors()),
    };
    let grpc =
        Acceptor::filters(grpc, &transport, certificates.clone(), hub.clone()).map_err(ServeError::Socket)?;
    let http = Acceptor::admin(http, &transport, certificates, hub.clone()).map_err(ServeError::Socket)?;
    let authenticate = Authenticate::new(hub.clone(), transport.clone());
    let exporter = match options.export {
        Some(export) => Some(export::start(export, &hub)?),
        None => None,
    };
    let diagnosis = Arc::<Mutex<Diagnosis>>::default();
    let candidate_report = Arc::<Mutex<CandidateReport>>::default();
    let (candidate_in, candidate) = watch::channel(None);
    let reports = Arc::<Reports>::default();
    // What a folder's rules say is in force at once; a cluster's wait for what has to come first.
    let (accepted_in, accepted) = watch::channel(None);
    let (in_force_in, in_force) = match &place {
        Place::Folder(_) => (None, accepted.clone()),
        Place::Cluster(_) => {
            let (sender, receiver) = watch::channel(None);
            (Some(sender), receiver)
        }
    };
    let (sources_in, sources) = watch::channel(Arc::default());
    let (keys_in, keys) = watch::channel(Arc::default());
    let (ready_in, ready) = watch::channel(false);
    let (offered_in, offered) = watch::channel(None);
    let (leadership_in, leadership) = watch::channel(Leadership::alone());
    let (followed_in, followed) = watch::channel(Followed::default());
    let (served_in, served) = watch::channel(Served::default());

    let (is_fenced, shared) = match &place {
        Place::Folder(_) => (false, None),
        Place::Cluster(cluster) => (cluster.is_fenced(), Some(cluster.shared())),
    };
    let control = Arc::new(Control::open(state.clone(), hub.clone(), accepted_in, shared, is_fenced)?);
    let judgement = Judgement::new(hub.clone(), diagnosis.clone(), control.clone())?;
    let publish = PublishTask {
        hub: hub.clone(),
        roster: roster.clone(),
        publisher,
        in_force: in_force.clone(),
        candidate,
        candidate_report: candidate_report.clone(),
        keys,
        directories: hub.directories.offered(),
        kept: control.kept(),
        ready: ready_in,
        offered: offered_in,
        leadership: leadership.clone(),
        term: None,
        followed: followed.clone(),
        served: served_in,
    };
    let (control_task, try_out) = (control.clone(), control.clone().try_out());
    let admin = admin::Admin {
        hub: hub.clone(),
        diagnosis: diagnosis.clone(),
        candidate: candidate_report.clone(),
        issuers: reports.clone(),
        ready: ready.clone(),
        leadership: leadership.clone(),
        followed,
        since: clock::now(),
        transport: transport.clone(),
        control: control.clone(),
        signer: signer.clone(),
        exports: Arc::new(Semaphore::new(1)),
        offered: offered.clone(),
    };
    let follow = directories::keep(hub.clone(), directory_sources, state.clone());
    uses::restore(&hub, &state);
    let follow_uses = uses::keep(hub.clone(), state.clone(), reports.clone(), offered.clone());
    let follow_rules = decisions::follow(hub.clone(), state.clone(), written, offered.clone());
    let refresh = crate::keys::refresh(fetcher, state, sources, keys_in, reports.clone(), hub.clone());

    let mut tasks = JoinSet::new();
    if let Some(folder) = options.candidate {
        let judge = CandidateJudge::new(folder.clone(), hub.clone(), candidate_report.clone(), candidate_in);
        let places = Places { rules: folder, environment: environment_of_candidate, directory: None };
        tasks.spawn(named("the watch over the candidate", Source::new(places, hub.clone(), judge).run()));
    }
    match place {
        Place::Folder(places) => {
            tasks.spawn(named("the watch over rules", Source::new(places, hub.clone(), judgement).run()));
        }
        Place::Cluster(cluster) => {
            let channels = Channels {
                accepted,
                in_force: in_force_in,
                offered,
                leadership: leadership_in,
                keys: trusted_keys.clone(),
                interlocks,
                control: control.clone(),
            };
            let replicas = Replicas {
                roster,
                signer,
                transport: &transport,
                at: grpc_addr,
                followed: followed_in,
                served,
            };
            cluster.spawn(&mut tasks, judgement, channels, replicas);
        }
    }
    tasks.spawn(named("the hand-over of issuers", hand_over_sources(hub.clone(), in_force, sources_in)));
    tasks.spawn(named("the refresh of keys", refresh));
    tasks.spawn(named("the reading of directories", follow));
    tasks.spawn(named("the publisher", publish.run()));
    tasks.spawn(named("the ends of revocations", control_task.run()));
    tasks.spawn(named("the watch over canaries", try_out));
    tasks.spawn(named("the gRPC server", push::serve(hub.clone(), grpc.into_incoming(), authenticate)));
    tasks.spawn(named("the watch over what decisions rest on", follow_rules));
    tasks.spawn(named("the count of uses", follow_uses));
    if let Some(writing) = writing {
        tasks.spawn(named("the store of decisions", writing.run(hub.clone())));
    }
    if let Some(exporter) = exporter {
        tasks.spawn(named("the export", exporter.run()));
    }
    if let Some(keeper) = keeper {
        tasks.spawn(named("the watch over certificates", keeper.run(hub.clone())));
    }
    let probes_addr = probes.as_ref().map(|(_, address)| *address);
    if let Some((listener, _)) = probes {
        let acceptor =
            Acceptor::anybody(listener, &admin.transport, hub.clone()).map_err(ServeError::Socket)?;
        tasks.spawn(named("the server for probes", admin::serve_probes(admin.clone(), acceptor)));
    }
    tasks.spawn(named("the admin server", admin::serve(admin, http)));
    let mut module_addr = None;
    if let Some((modules, listener, address)) = modules {
        module_addr = Some(address);
        info!(%address, digests = ?modules.digests().collect::<Vec<_>>(), "serving the filter module");
        let acceptor = Acceptor::anybody(listener, &transport, hub.clone()).map_err(ServeError::Socket)?;
        let server = module_server::serve(modules, acceptor, hub.stopping());
        tasks.spawn(named("the server of the filter module", server));
    }
    info!(%grpc_addr, %admin_addr, "serving");
    Ok(Running {
        grpc_addr,
        admin_addr,
        module_addr,
        probes_addr,
        trusted_keys,
        hub,
        diagnosis,
        candidate: candidate_report,
        issuers: reports,
        ready,
        leadership,
        tasks,
    })
}

// === impl Running ===

impl Running {
    /// Resolves when an accepted set of rules is compiled, signed and on offer, or with an error when the server ends
    /// before.
    pub async fn ready(&mut self) -> Result<(), ServeError> {
        let mut ready = self.ready.clone();
        tokio::select! {
            // An error means that the publisher ended, which the other branch tells.
            Ok(_) = ready.wait_for(|ready| *ready) => Ok(()),
            error = self.failed() => Err(error),
        }
    }

    /// Whether an accepted set of rules is on offer.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// What becomes of what is exported.
    pub fn export_metrics(&self) -> ExportMetrics {
        self.hub.metrics.export.clone()
    }

    /// Whether this replica is the one that writes, and who is if not.
    pub fn leadership(&self) -> Leadership {
        self.leadership.borrow().clone()
    }

    /// Resolves when a part of the server ends although nobody stopped it.
    pub async fn failed(&mut self) -> ServeError {
        match self.tasks.join_next().await {
            Some(ended) => unexpected(ended),
            None => ServeError::TaskEnded { task: "everything", why: "nothing runs any more".to_owned() },
        }
    }

    /// A workload's whole Bundle (`tidegate.v1.Bundle`, serialized), for the warm start in a plugin configuration.
    pub fn bundle(&self, workload: &str) -> Option<Vec<u8>> {
        self.hub.distributor.release(workload).map(|release| release.bundle())
    }

    /// Who enforces what.
    pub fn fleet(&self) -> FleetReport {
        admin::fleet(&self.hub)
    }

    /// What is known of the issuers' keys.
    pub fn issuers(&self) -> Vec<IssuerReport> {
        admin::issuers(&self.issuers)
    }

    /// What is known of directories.
    pub fn directories(&self) -> Vec<DirectoryReport> {
        self.hub.directories.report(clock::now())
    }

    /// What there is to say about the rules on disk.
    pub fn diagnosis(&self) -> Diagnosis {
        self.diagnosis.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// What there is to say about the candidate, and what filters say of it.
    pub fn candidate(&self) -> CandidateReport {
        admin::candidate(&self.hub, &self.candidate)
    }

    /// Ends streams and requests, then everything.
    ///
    /// # Errors
    /// When something had ended badly before, or does not end in time; it is cut off then.
    pub async fn shutdown(mut self) -> Result<(), ServeError> {
        self.hub.stop();
        let drain = async {
            let mut result = Ok(());
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    ended => result = Err(unexpected(ended)),
                }
            }
            result
        };
        match tokio::time::timeout(GRACE, drain).await {
            Ok(result) => result,
            Err(_) => {
                self.tasks.shutdown().await;
                Err(ServeError::Unfinished)
            }
        }
    }
}

impl Drop for Running {
    /// Without [`Running::shutdown`] everything is cut off.
    fn drop(&mut self) {
        self.hub.stop();
    }
}

fn unexpected(ended: Result<(&'static str, Result<(), TaskError>), tokio::task::JoinError>) -> ServeError {
    match ended {
        Ok((task, Ok(()))) => ServeError::TaskEnded { task, why: "it returned".to_owned() },
        Ok((task, Err(error))) => ServeError::TaskEnded { task, why: error.to_string() },
        Err(error) => ServeError::TaskEnded { task: "a task", why: error.to_string() },
    }
}

async fn named<E: Into<TaskError>>(
    name: &'static str,
    task: impl Future<Output = Result<(), E>>,
) -> (&'static str, Result<(), TaskError>) {
    (name, task.await.map_err(Into::into))
}

/// Tells the refresh of keys which issuers there are.
async fn hand_over_sources(
    hub: Arc<Hub>,
    mut in_force: watch::Receiver<Option<Arc<judgement::InForce>>>,
    sources: watch::Sender<Arc<crate::keys::KeySources>>,
) -> Result<(), std::convert::Infallible> {
    let mut stop = hub.stopping();
    loop {
        tokio::select! {
            changed = in_force.changed() => {
                if changed.is_err() {
                    // The watch over rules ended.
                    return Ok(());
                }
            }
            () = push::stopped(&mut stop) => return Ok(()),
        }
        let current = in_force.borrow_and_update().clone();
        if let Some(current) = current {
            sources.send_if_modified(|sources| {
                let is_changed = *sources != current.sources;
                sources.clone_from(&current.sources);
                is_changed
            });
        }
    }
}

async fn listen(
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, purpose, flag, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves until the process is told to stop (SIGTERM, SIGINT) or a part of it fails.
///
/// # Errors
/// When the server does not start or ends with an error.
pub async fn run(options: Options) -> Result<(), ServeError> {
    let signal = termination();
    let mut running = start(options).await?;
    tokio::select! {
        failure = running.failed() => {
            error!("{failure}");
            let _ = running.shutdown().await;
            Err(failure)
        }
        () = signal => {
            info!("stopping");
            running.shutdown().await
        }
    }
}

#[cfg(unix)]
async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process as they always do.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(not(unix))]
async fn termination() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
