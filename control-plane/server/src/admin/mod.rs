//! The admin interface: probes, metrics, what people ask, and what they do in an emergency.
//!
//! INVARIANT: everything but probes is for principals on the list and for programs on this machine; what writes is for
//! principals on a list of their own. Connections are bounded in number, and those that prove nothing in time.

mod access;
mod control;
mod decisions;
mod evidence;
mod uses;

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::bundle::Keyring;
use crate::clock;
use crate::control::Control;
use crate::directories::DirectoryReport;
use crate::keys::{IssuerReport, Reports};
use crate::kube::Leadership;
use crate::push::{FleetReport, Followed, Following, Hub, IssuerUseReport, stopped};
use crate::serve::{CandidateReport, Diagnosis, InForce};
use crate::transport::{Acceptor, Arrival, Socket, TransportOptions};

pub use self::control::ControlState;
pub use self::decisions::{Line, Page};
pub use self::evidence::{EvidenceKey, Frame};

/// What is shown.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Offers, fleet and metrics.
    pub hub: Arc<Hub>,
    /// About the rules on disk.
    pub diagnosis: Arc<Mutex<Diagnosis>>,
    /// About the rules that are only compared.
    pub candidate: Arc<Mutex<CandidateReport>>,
    /// About the issuers' keys.
    pub issuers: Arc<Reports>,
    /// Whether an accepted set of rules is on offer.
    pub ready: watch::Receiver<bool>,
    /// Which replica's Bundles count.
    pub leadership: watch::Receiver<Leadership>,
    /// How far this replica follows another one.
    pub followed: watch::Receiver<Followed>,
    /// When this control plane started to hear of filters. Unix seconds.
    pub since: i64,
    /// Who may ask.
    pub transport: Arc<TransportOptions>,
    /// What people do to what is in force.
    pub control: Arc<Control>,
    /// Signs exports of evidence.
    pub signer: Arc<Keyring>,
    /// Leave to export evidence: one at a time.
    pub exports: Arc<Semaphore>,
    /// Rules of which everything is on offer.
    pub(crate) offered: watch::Receiver<Option<Arc<InForce>>>,
}

/// Who uses the tokens of which issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Since when this control plane hears of filters, which themselves count since they started. Unix seconds.
    pub since: i64,
    /// By workload and issuer.
    pub uses: Vec<IssuerUseReport>,
}

/// Serves until the hub stops.
pub(crate) async fn serve(admin: Admin, acceptor: Acceptor) -> std::io::Result<()> {
    let mut stop = admin.hub.stopping();
    axum::serve(acceptor, router(admin).into_make_service_with_connect_info::<Arrival>())
        .with_graceful_shutdown(async move { stopped(&mut stop).await })
        .into_future()
        .await
}

/// Serves probes and metrics to anybody, until the hub stops.
pub(crate) async fn serve_probes(admin: Admin, acceptor: Acceptor) -> std::io::Result<()> {
    let mut stop = admin.hub.stopping();
    let router = probes().route("/metrics", get(metrics)).with_state(admin);
    axum::serve(acceptor, router)
        .with_graceful_shutdown(async move { stopped(&mut stop).await })
        .into_future()
        .await
}

/// Who enforces what, compared with what is on offer.
pub fn fleet(hub: &Hub) -> FleetReport {
    hub.fleet.report(hub.distributor.wanted(), clock::now())
}

/// What there is to say about the candidate, and what filters say of it.
pub fn candidate(hub: &Hub, report: &Mutex<CandidateReport>) -> CandidateReport {
    let releases = hub.distributor.releases().into_iter();
    let compared = releases.filter(|(_, release)| !release.candidate().is_empty()).map(|(id, _)| id);
    let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
    report.with_fleet(&fleet(hub), compared)
}

/// What is known of the issuers' keys.
pub fn issuers(reports: &Reports) -> Vec<IssuerReport> {
    reports.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

fn router(admin: Admin) -> Router {
    let of_leader = Router::new()
        .route("/fleet", get(|State(admin): State<Admin>| async move { Json(fleet(&admin.hub)) }))
        .route(
            "/candidate",
            get(|State(admin): State<Admin>| async move { Json(candidate(&admin.hub, &admin.candidate)) }),
        )
        .route("/usage", get(usage))
        .route("/unused", get(uses::rules))
        .route("/keys/forecast", get(uses::keys))
        .layer(from_fn_with_state(admin.clone(), access::ask_the_leader));
    let asked = Router::new()
        .merge(of_leader)
        .route("/metrics", get(metrics))
        .route("/diagnostics", get(diagnostics))
        .route("/issuers", get(|State(admin): State<Admin>| async move { Json(issuers(&admin.issuers)) }))
        .route("/evidence", get(evidence::files))
        .route("/evidence/key", get(evidence::key))
        .route("/directories", get(directories))
        .route("/decisions", get(decisions::list))
        .route("/decisions/tail", get(decisions::tail))
        .route("/decisions/{id}", get(decisions::one))
        .route("/bundle/{namespace}/{name}", get(bundle))
        .route("/control", get(control::control))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
        .layer(from_fn_with_state(admin.clone(), access::admit));
    let written = control::router(&admin);
    probes().merge(asked).merge(written).with_state(admin)
}

fn probes() -> Router<Admin> {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readyz))
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let leadership = admin.leadership.borrow().clone();
    let is_stopping = *admin.hub.stopping().borrow();
    if let Some(other) = leadership.other.filter(|_| !is_stopping) {
        let followed = admin.followed.borrow().clone();
        if leadership.is_stranger {
            let why = format!(
                "not ready to take over: filters of `{other}` do not trust this replica's signing key; give all replicas the same `--secrets`\n"
            );
            return (StatusCode::SERVICE_UNAVAILABLE, why);
        }
        return following(&other, followed);
    }
    if leadership.unread && !is_stopping {
        let why = "not ready: this replica was elected, and cannot read what is revoked; the log says why\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
    }
    if *admin.ready.borrow() && !is_stopping {
        let told = if leadership.reached {
            "ready\n"
        } else {
            "ready, degraded: the API server does not answer; what was accepted last is served\n"
        };
        (StatusCode::OK, told.to_owned())
    } else {
        let why = "not ready: no rules have been accepted and signed; see /diagnostics\n";
        (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    }
}

/// Of a replica that does not lead: whether filters find what they need.
fn following(leader: &str, followed: Followed) -> (StatusCode, String) {
    let is_ready = followed.is_ready();
    let told = match followed.state {
        Following::Impossible(why) if is_ready => {
            format!(
                "ready to take over, and to nothing else: `{leader}` leads, and cannot be followed: {why}; filters get nothing here\n"
            )
        }
        Following::Impossible(why) => {
            format!(
                "not ready: `{leader}` leads, is not being replaced, and cannot be followed: {why}; mend that here or there, or \
                 delete the pod `{leader}`, and this one takes over\n"
            )
        }
        Following::Current => format!("ready: `{leader}` leads, and what it has on offer is on offer here\n"),
        Following::Cut(why) => {
            format!(
                "ready, degraded: `{leader}` leads and cannot be followed: {why}; what it had on offer is on offer here\n"
            )
        }
        Following::Nobody | Following::Beginning(None) => {
            format!("not ready: `{leader}` leads, and nothing has come from it yet\n")
        }
        Following::Beginning(Some(why)) => {
            format!("not ready: `{leader}` leads, and nothing has come from it yet: {why}\n")
        }
        Following::Ahead => {
            format!(
                "not ready: `{leader}` leads, and what filters have here is later than what it has; it has to begin anew\n"
            )
        }
        Following::Lost(why) => {
            format!("not ready: `{leader}` leads, and has not been followed for too long: {why}\n")
        }
    };
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, told)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.hub.scrape())
}

async fn diagnostics(State(admin): State<Admin>) -> Json<Diagnosis> {
    Json(lock(&admin.diagnosis).clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn directories(State(admin): State<Admin>) -> Json<Vec<DirectoryReport>> {
    Json(admin.hub.directories.report(clock::now()))
}

async fn usage(State(admin): State<Admin>) -> Json<UsageReport> {
    // A replica that began to lead hears of all filters only since then; epochs are of that time.
    let term = admin.leadership.borrow().epoch.and_then(|epoch| i64::try_from(epoch).ok());
    let since = admin.since.max(term.unwrap_or(0).min(clock::now()));
    Json(UsageReport { since, uses: admin.hub.fleet.usage() })
}

async fn bundle(State(admin): State<Admin>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let workload = format!("{namespace}/{name}");
    match admin.hub.distributor.release(&workload) {
        Some(release) => {
            ([(header::CONTENT_TYPE, "application/x-protobuf")], release.bundle()).into_response()
        }
        None => (StatusCode::NOT_FOUND, format!("no workload `{workload}` in the Mesh\n")).into_response(),
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Socket;
    type Addr = Arrival;

    async fn accept(&mut self) -> (Socket, Arrival) {
        let socket = Acceptor::accept(self).await;
        let arrival = socket.arrival().clone();
        (socket, arrival)
    }

    fn local_addr(&self) -> std::io::Result<Arrival> {
        let address = self.address()?;
        Ok(Arrival { remote: Some(address.ip()), peer: None, local: address.ip().is_loopback() })
    }
}

impl Connected<IncomingStream<'_, Acceptor>> for Arrival {
    fn connect_info(stream: IncomingStream<'_, Acceptor>) -> Self {
        stream.remote_addr().clone()
    }
}
