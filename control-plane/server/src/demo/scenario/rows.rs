//! The demo's requests: who sends what, and what has to come of it.

use std::sync::Arc;

use anyhow::Result;
use http::Method;
use tidegate_engine::{Ambiguity, Reason, TokenFault};

use crate::demo::client::{Call, Protocol};
use crate::demo::issuers::{Draft, GitLabJob, KeyKind, SigningKey};
use crate::demo::world::{
    AUDIENCE, HOST, Way, World, orders_machine, orders_pod, other_machine, release_job,
};

/// The audience of tokens that are meant for workload identity federation.
const FEDERATION: &str = "https://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/ci/providers/gitlab";

/// One request.
#[derive(Debug, Clone)]
pub struct Row {
    /// Who calls, for people.
    pub who: &'static str,
    /// What is called, for people.
    pub what: String,
    /// As whom.
    pub way: Way,
    /// Over which version of HTTP.
    pub protocol: Protocol,
    /// The request.
    pub call: Call,
    /// What has to be decided.
    pub expected: Expected,
}

/// What has to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Why.
    pub reason: Reason,
    /// Which rule decides.
    pub rule: Option<&'static str>,
    /// Which Shadow rule would decide otherwise.
    pub shadow: Option<&'static str>,
}

const WRITES: &str = "sales/orders-etl-writes-orders";

/// All requests, in the order in which they are sent.
pub fn rows(world: &World) -> Result<Vec<Row>> {
    let mut rows = admitted(world)?;
    rows.extend(refused_for_the_token(world)?);
    rows.extend(refused_for_the_caller(world)?);
    rows.extend(refused_for_the_operation(world)?);
    rows.extend(special(world)?);
    Ok(rows)
}

fn admitted(world: &World) -> Result<Vec<Row>> {
    let pod = world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).sign()?;
    let elliptic = match world.issuers.cluster.key(KeyKind::Es256) {
        Some(key) => world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).signed_by(&key).sign()?,
        None => anyhow::bail!("the cluster publishes no elliptic-curve key"),
    };
    let machine = world.issuers.google.instance_token(&orders_machine(), AUDIENCE).sign()?;
    let job = world.issuers.gitlab.job_token(&release_job(), AUDIENCE).sign()?;
    Ok(vec![
        http1("pod with its own token", Way::OrdersWorker, post("/v1/orders/7").bearer(&pod))
            .allowed_by(WRITES),
        http2("pod, ES256 token", Way::OrdersWorker, post("/v1/orders/8").bearer(&elliptic))
            .allowed_by(WRITES),
        grpc("pod with its own token", Way::OrdersWorker, put().bearer(&pod)).allowed_by(WRITES),
        http1("Dataflow VM by the gateway", Way::Gateway, post("/v1/orders/9").bearer(&machine))
            .allowed_by(WRITES),
        http2("CI job on protected main", Way::CiRunner, schema().bearer(&job))
            .allowed_by("sales/release-updates-schema"),
        http1("health check by any pod", Way::ReportsWorker, get("/healthz")).allowed_by("sales/health"),
    ])
}

fn refused_for_the_token(world: &World) -> Result<Vec<Row>> {
    let draft = || world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE);
    let attacker = Arc::new(SigningKey::generate(KeyKind::Rs256)?);
    let row = |who, draft: Draft, fault| {
        let call = post("/v1/orders/7").bearer(&draft.sign()?);
        anyhow::Ok(http1(who, Way::OrdersWorker, call).refused(Reason::TokenInvalid(fault)))
    };
    let federated = world.issuers.gitlab.job_token(&release_job(), FEDERATION).sign()?;
    Ok(vec![
        http1("pod without a token", Way::OrdersWorker, post("/v1/orders/7")).refused(Reason::TokenRequired),
        grpc("pod without a token", Way::OrdersWorker, put()).refused(Reason::TokenRequired),
        row("pod, expired token", draft().expired(), TokenFault::Expired)?,
        row(
            "pod, token for billing",
            draft().audience("https://billing.example"),
            TokenFault::WrongAudience,
        )?,
        http2("CI job, token for Google's STS", Way::CiRunner, schema().bearer(&federated))
            .refused(Reason::TokenInvalid(TokenFault::MintedForAnotherParty)),
        row("forger, key of their own", draft().forged_with(&attacker), TokenFault::BadSignature)?,
        row("forger, alg none", draft().unsigned(), TokenFault::AlgorithmRefused)?,
        row("forger, HS256 by public key", draft().hmac_with_public_key(), TokenFault::AlgorithmRefused)?,
    ])
}

fn refused_for_the_caller(world: &World) -> Result<Vec<Row>> {
    let stolen = world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).sign()?;
    let other = world.issuers.google.instance_token(&other_machine(), AUDIENCE).sign()?;
    let job = |job: &GitLabJob| world.issuers.gitlab.job_token(job, AUDIENCE).sign();
    let branch = job(&GitLabJob { branch: "try-it".to_owned(), protected: false, ..release_job() })?;
    let fork = job(&GitLabJob {
        job_project_id: "9999".to_owned(),
        source: "merge_request_event".to_owned(),
        ..release_job()
    })?;
    let nobody = Reason::NoAllowMatched;
    Ok(vec![
        http1("other pod, stolen token", Way::ReportsWorker, post("/v1/orders/7").bearer(&stolen))
            .refused(nobody),
        http1("VM of another Dataflow job", Way::Gateway, post("/v1/orders/7").bearer(&other))
            .refused(nobody),
        http2("CI job on unprotected branch", Way::CiRunner, schema().bearer(&branch)).refused(nobody),
        http2("CI job of a fork", Way::CiRunner, schema().bearer(&fork)).refused(nobody),
    ])
}

fn refused_for_the_operation(world: &World) -> Result<Vec<Row>> {
    let pod = world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).sign()?;
    let nobody = Reason::NoAllowMatched;
    let delete = Call::new(Method::DELETE, "/v1/orders/7").authority(HOST);
    let other_method = Call::grpc("/sales.v1.Orders/Purge", b"").authority(HOST);
    let hidden = post("/v1/orders/7%2F..%2Fadmin");
    Ok(vec![
        http1("pod, wrong method", Way::OrdersWorker, delete.bearer(&pod)).refused(nobody),
        http1("pod, wrong path", Way::OrdersWorker, post("/v1/customers/7").bearer(&pod)).refused(nobody),
        grpc("pod, wrong gRPC method", Way::OrdersWorker, other_method.bearer(&pod)).refused(nobody),
        http1("pod, path with %2F", Way::OrdersWorker, hidden.bearer(&pod))
            .refused(Reason::Ambiguous(Ambiguity::Path)),
    ])
}

fn special(world: &World) -> Result<Vec<Row>> {
    let pod = world.issuers.cluster.pod_token(&orders_pod(), AUDIENCE).sign()?;
    let machine = world.issuers.google.instance_token(&orders_machine(), AUDIENCE).sign()?;
    let closed = "sales/archive-is-closed";
    let way = Way::OrdersWorker;
    let draft = http1("pod, Shadow rule", way, post("/v1/orders/draft-3").bearer(&pod));
    let archive = http1("pod, Deny wins", way, post("/v1/orders/archive-3").bearer(&pod));
    let archive_vm =
        http2("Dataflow VM, Deny wins", Way::Gateway, post("/v1/orders/archive-4").bearer(&machine));
    let metrics = http1("pod, unguarded port", Way::OrdersWorkerToMetrics, get("/metrics"));
    Ok(vec![
        draft.allowed_by(WRITES).with_shadow("sales/drafts-need-review"),
        archive.denied_by(closed),
        archive_vm.denied_by(closed),
        metrics.decided(Reason::NotGuarded),
    ])
}

fn get(path: &str) -> Call {
    Call::new(Method::GET, path).authority(HOST)
}

fn post(path: &str) -> Call {
    Call::new(Method::POST, path).authority(HOST).header("content-type", "application/json").body("{}")
}

fn schema() -> Call {
    Call::new(Method::PUT, "/v1/schema").authority(HOST).body("{}")
}

fn put() -> Call {
    Call::grpc("/sales.v1.Orders/Put", b"").authority(HOST)
}

fn http1(who: &'static str, way: Way, call: Call) -> Row {
    row(who, way, Protocol::Http1, call)
}

fn http2(who: &'static str, way: Way, call: Call) -> Row {
    row(who, way, Protocol::Http2, call)
}

fn grpc(who: &'static str, way: Way, call: Call) -> Row {
    Row { what: format!("gRPC {}", call.path()), ..row(who, way, Protocol::Http2, call) }
}

fn row(who: &'static str, way: Way, protocol: Protocol, call: Call) -> Row {
    let version = match protocol {
        Protocol::Http1 => "h1",
        Protocol::Http2 => "h2",
    };
    let what = format!("{version} {} {}", call.method(), call.path());
    let expected = Expected { reason: Reason::NoAllowMatched, rule: None, shadow: None };
    Row { who, what, way, protocol, call, expected }
}

// === impl Row ===

impl Row {
    fn decided(mut self, reason: Reason) -> Self {
        self.expected.reason = reason;
        self
    }

    fn refused(self, reason: Reason) -> Self {
        self.decided(reason)
    }

    fn allowed_by(mut self, rule: &'static str) -> Self {
        self.expected.rule = Some(rule);
        self.decided(Reason::AllowedBy)
    }

    fn denied_by(mut self, rule: &'static str) -> Self {
        self.expected.rule = Some(rule);
        self.decided(Reason::DeniedBy)
    }

    fn with_shadow(mut self, rule: &'static str) -> Self {
        self.expected.shadow = Some(rule);
        self
    }
}

// === impl Expected ===

impl Expected {
    /// Whether the request has to reach the application.
    pub fn passes(&self) -> bool {
        matches!(self.reason, Reason::AllowedBy | Reason::NotGuarded | Reason::GuardInShadow)
    }
}
