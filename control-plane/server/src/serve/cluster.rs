//! Wiring of a Kubernetes cluster as the source of rules.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::judgement::{InForce, Judgement};
use super::{TaskError, named};
use crate::bundle::{Interlocks, Keyring, TrustedKey};
use crate::control::Control;
use crate::decisions::rules::Authors;
use crate::kube::{
    self, Attachments, ClusterError, ClusterSource, Election, FenceView, Index, Judged, Keeper, Leadership,
    Options, PodRoster, SharedKept, SharedTask, StatusTask, Watched,
};
use crate::push::{FollowTask, Followed, Served};
use crate::rules::{LoadError, load_directory, load_environment};
use crate::transport::{Roster, TransportOptions, WhoIs};

/// For so many times as long as a Lease lasts a replica goes on with what it had from a leader that it cannot reach: longer than
/// it takes to elect another one.
const LOST_AFTER: u32 = 2;

/// A cluster that can be asked.
pub(super) struct Cluster {
    client: ::kube::Client,
    index: Arc<Index>,
    shared: Arc<SharedKept>,
    options: Options,
    environment: Option<PathBuf>,
    directory: Option<PathBuf>,
}

/// What the parts of the server tell each other.
pub(super) struct Channels {
    /// Rules that were accepted.
    pub(super) accepted: watch::Receiver<Option<Arc<InForce>>>,
    /// Those that filters are to enforce.
    pub(super) in_force: Option<watch::Sender<Option<Arc<InForce>>>>,
    /// Those of which everything is on offer.
    pub(super) offered: watch::Receiver<Option<Arc<InForce>>>,
    pub(super) leadership: watch::Sender<Leadership>,
    /// Whose signatures filters are to trust.
    pub(super) keys: Vec<TrustedKey>,
    pub(super) interlocks: Interlocks,
    pub(super) control: Arc<Control>,
}

/// What is needed to follow another replica, and to be followed.
pub(super) struct Replicas<'t> {
    /// Who gets what.
    pub(super) roster: Arc<Roster>,
    pub(super) signer: Arc<Keyring>,
    pub(super) transport: &'t TransportOptions,
    /// Where filters are listened for.
    pub(super) at: SocketAddr,
    pub(super) followed: watch::Sender<Followed>,
    pub(super) served: watch::Receiver<Served>,
}

/// Why a cluster cannot be the source of rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCluster {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

// === impl Cluster ===

impl Cluster {
    /// Reads files once, to say at the start what cannot be read. The cluster itself may come later.
    pub(super) async fn new(
        options: Options,
        environment: Option<PathBuf>,
        directory: Option<PathBuf>,
    ) -> Result<Self, NoCluster> {
        environment.as_deref().map(load_environment).transpose()?;
        directory.as_deref().map(load_directory).transpose()?;
        let client = kube::connect(&options).await?;
        let shared = Arc::new(SharedKept::new(client.clone(), &options.lease.namespace));
        Ok(Self { client, index: Arc::default(), shared, options, environment, directory })
    }

    /// Whether Istio's policies are written.
    pub(super) fn is_fenced(&self) -> bool {
        self.options.fence.is_some()
    }

    /// Who wrote rules, as their objects say.
    pub(super) fn authors(&self) -> Arc<dyn Authors> {
        self.index.clone()
    }

    /// What people did, as all replicas have it.
    pub(super) fn shared(&self) -> Arc<SharedKept> {
        self.shared.clone()
    }

    /// Who knows which workload a pod is of.
    pub(super) fn who_is(&self, roster: Arc<Roster>) -> Arc<dyn WhoIs> {
        Arc::new(PodRoster::new(self.index.clone(), roster))
    }

    /// Starts everything that reads the cluster and writes to it.
    pub(super) fn spawn(
        self,
        tasks: &mut JoinSet<(&'static str, Result<(), TaskError>)>,
        judgement: Judgement,
        channels: Channels,
        replicas: Replicas<'_>,
    ) {
        let Channels { accepted, in_force, offered, leadership, keys, interlocks, control } = channels;
        let in_force = in_force.unwrap_or_default();
        let key_ids = keys.iter().map(|key| key.id.clone()).collect();
        leadership.send_replace(Leadership::default());
        let index = self.index;
        let hub = judgement.hub().clone();
        let (judged_in, judged) = watch::channel(Arc::<Judged>::default());
        let (view_in, view) = watch::channel(Arc::<FenceView>::default());
        let fence = self.options.fence.as_ref();
        let plugins = fence.and_then(|plan| Some((plan.istio, plan.plugins.as_deref()?)));
        let written = fence.into_iter().flat_map(|_| Watched::fence());
        let brought = plugins.into_iter().flat_map(|(istio, _)| Watched::plugins(istio));
        for watched in Watched::inputs().chain(written).chain(brought) {
            let follow = kube::follow(self.client.clone(), watched, index.clone(), hub.clone());
            tasks.spawn(named("a watch over the cluster", follow));
        }
        let status = StatusTask {
            client: self.client.clone(),
            index: index.clone(),
            hub: hub.clone(),
            judged,
            offered: offered.clone(),
            fence: fence.map(|_| view),
            leadership: leadership.subscribe(),
        };
        tasks.spawn(named("the writing of statuses", status.run()));
        let keeper = Keeper {
            client: self.client.clone(),
            index: index.clone(),
            hub: hub.clone(),
            plan: self.options.fence.clone(),
            attachments: plugins.map(|(istio, plan)| Attachments::new(plan, istio, keys, interlocks)),
            leadership: leadership.subscribe(),
            accepted: accepted.clone(),
            in_force,
            offered,
            view: view_in,
        };
        tasks.spawn(named("the keeping of policies", keeper.run()));
        let followers = leadership.subscribe();
        let kept = control.kept();
        let (elected_in, elected) = watch::channel(Leadership::default());
        let shared = SharedTask { shared: self.shared, control, hub: hub.clone(), elected, leadership };
        tasks.spawn(named("the sharing of revocations", shared.run()));
        let relay = self.options.relay.clone();
        if let Some(relay) = &relay {
            hub.relay.among(relay.account.clone(), replicas.roster);
        }
        let address = relay.as_ref().and_then(|relay| {
            let own = || Some(replicas.at.to_string()).filter(|_| !replicas.at.ip().is_unspecified());
            relay.address.clone().or_else(own)
        });
        let follow = FollowTask {
            hub: hub.clone(),
            options: relay,
            security: replicas.transport.security.clone(),
            replica: self.options.lease.identity.clone(),
            keys: replicas.signer,
            leadership: followers,
            kept,
            followed: replicas.followed,
            served: replicas.served,
            lost_after: self.options.lease.duration * LOST_AFTER,
        };
        tasks.spawn(named("the following of another replica", follow.run()));
        let election = Election {
            client: self.client,
            options: self.options.lease.clone(),
            address,
            hub,
            keys: key_ids,
            leadership: elected_in,
        };
        tasks.spawn(named("the election", election.run()));
        let source = ClusterSource {
            index,
            options: self.options,
            judgement,
            environment: self.environment,
            directory: self.directory,
            accepted,
            judged: judged_in,
        };
        tasks.spawn(named("the watch over rules", source.run()));
    }
}
