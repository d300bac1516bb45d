//! Every issuer changes its keys while requests flow: no valid token is refused, and none of a key that has gone is
//! accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use tidegate::demo::client::{Call, Protocol};
use tidegate::demo::issuers::{Draft, Issuer};
use tidegate_tests::corpus::{spiffe_id, token_of};
use tidegate_tests::rig::Rig;

/// The control plane asks an issuer again at most so often for a key that it does not know.
const PAUSE: Duration = Duration::from_secs(11);
const PATIENCE: Duration = Duration::from_secs(30);

/// Issuers of the corpus, with the path that their tokens open under `rotation.yaml`.
const ISSUERS: [&str; 9] =
    ["google", "gitlab", "cluster", "entra", "okta", "aws", "github", "batch", "oauth"];

/// Requests of one issuer's tokens, one after the other.
struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

fn issuer<'r>(rig: &'r Rig, name: &str) -> &'r Issuer {
    let (issuers, providers) = (&rig.issuers, &rig.providers);
    match name {
        "google" => &issuers.google,
        "gitlab" => &issuers.gitlab,
        "cluster" => &issuers.cluster,
        "entra" => &providers.entra,
        "okta" => &providers.okta,
        "aws" => &providers.aws,
        "github" => &providers.github,
        "batch" => &providers.spiffe,
        _ => &providers.oauth,
    }
}

fn rules() -> String {
    let mut rules = String::from(
        "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
",
    );
    for name in ISSUERS {
        let demand = match name {
            "google" => "google: {subject: \"100000000000000000001\"}",
            "gitlab" => "gitlab: {project: 4711, protectedRef: true}",
            "entra" => "entra: {app: cccccccc-0000-4000-8000-000000000003, appOnly: true}",
            "okta" => "okta: {client: 0oa0example}",
            "aws" => "aws: {account: \"123456789012\", role: OrdersEtl}",
            "github" => "github: {repository: 456, owner: 123}",
            "batch" => "spiffe: {id: \"spiffe://batch.example/ns/etl/sa/orders\"}",
            "oauth" => "claims: {client_id: orders}",
            _ => "kubernetes: {namespace: etl, serviceAccount: orders-worker}",
        };
        let issuer = if name == "cluster" { "prod-cluster" } else { name };
        rules.push_str(&format!(
            "---
kind: AccessRule
metadata: {{name: {name}, namespace: sales}}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from: [{{anyMesh: true, tokens: [{{issuer: {issuer}, {demand}}}]}}]
  to: [{{http: {{methods: [GET], paths: [\"/v1/{name}\"]}}}}]
"
        ));
    }
    rules
}

fn call(name: &str, token: &str) -> Call {
    Call::new(Method::GET, &format!("/v1/{name}")).authority("orders.sales.example").bearer(token)
}

/// The status, and what a refusal says.
async fn answer(rig: &Rig, name: &str, token: &str) -> Result<(u16, String)> {
    let endpoint = rig.service_as(&spiffe_id("etl/orders-worker"))?;
    let answer = endpoint.call(Protocol::Http2, call(name, token)).await?;
    Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
}

async fn accepted(rig: &Rig, name: &str, token: &str, what: &str) -> Result<()> {
    let (status, told) = answer(rig, name, token).await?;
    ensure!(status == 200, "{name}: {what} was refused: {told}");
    Ok(())
}

/// A token with a `jti` (or another claim that nobody reads) of its own, so that none is cached.
fn fresh(rig: &Rig, name: &str, number: u64) -> Result<Draft> {
    let draft = token_of(rig, name)?;
    let header = match name {
        "batch" | "google" | "aws" => return Ok(draft.shifted(-i64::try_from(number % 60)?)),
        "entra" => "uti",
        "okta" => return Ok(draft.claim("jti", format!("AT.{number}"))),
        _ => "jti",
    };
    Ok(draft.claim(header, format!("n-{number}")))
}

// === impl Flow ===

impl Flow {
    /// Sends until stopped. Tokens are minted in between by `next`, which `rig` cannot be borrowed for.
    fn start(rig: &Rig, name: &'static str, tokens: Vec<String>) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let endpoint = rig.service_as(&spiffe_id("etl/orders-worker"))?;
        let task = tokio::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            async move {
                let mut connection = endpoint.connect(Protocol::Http2).await?;
                for token in tokens.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let answer = connection.call(call(name, token)).await?;
                    let told = String::from_utf8_lossy(&answer.body).into_owned();
                    ensure!(answer.status.as_u16() == 200, "{name}: a valid token was refused: {told}");
                    sent.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            }
        });
        Ok(Self { stop, sent, task })
    }

    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

fn tokens(rig: &Rig, name: &str, from: u64) -> Result<Vec<String>> {
    (from..from + 20).map(|number| Ok(fresh(rig, name, number)?.sign()?)).collect()
}

async fn refused_soon(rig: &Rig, name: &str, token: &str, what: &str) -> Result<()> {
    let begin = Instant::now();
    while answer(rig, name, token).await?.0 != 401 {
        ensure!(begin.elapsed() < PATIENCE, "{name}: {what} is still accepted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub async fn keys_change_while_requests_flow(rig: &Rig) -> Result<()> {
    rig.apply(&rules()).await?;
    let mut total = 0;
    // A key is added and signs at once; the one before it stays published.
    let mut flows = Vec::new();
    let mut before = Vec::new();
    for name in ISSUERS {
        let old = tokens(rig, name, 0)?;
        before.push(old[0].clone());
        flows.push(Flow::start(rig, name, old)?);
    }
    for name in ISSUERS {
        let issuer = issuer(rig, name);
        issuer.rotate(issuer.signing_key().kind())?;
        for number in 100..104 {
            let token = fresh(rig, name, number)?.sign()?;
            accepted(rig, name, &token, "a token of the new key").await?;
        }
    }
    for flow in flows {
        total += flow.stop().await.context("while a key was added")?;
    }
    tokio::time::sleep(PAUSE).await;
    // The old key goes. It is noticed as soon as anything makes the control plane ask.
    let mut flows = Vec::new();
    for name in ISSUERS {
        let issuer = issuer(rig, name);
        flows.push(Flow::start(rig, name, tokens(rig, name, 200)?)?);
        issuer.withdraw_old_keys();
        let newest = issuer.rotate(issuer.signing_key().kind())?;
        let token = fresh(rig, name, 300)?.signed_by(&newest).sign()?;
        accepted(rig, name, &token, "a token of the newest key").await?;
    }
    for (name, token) in ISSUERS.into_iter().zip(&before) {
        refused_soon(rig, name, token, "a token of a key that has gone").await?;
    }
    for flow in flows {
        total += flow.stop().await.context("while a key was removed")?;
    }
    tokio::time::sleep(PAUSE).await;
    // Another key under the same id.
    for name in ISSUERS {
        let issuer = issuer(rig, name);
        let old = fresh(rig, name, 400)?.sign()?;
        accepted(rig, name, &old, "a valid token").await?;
        issuer.replace_key()?;
        let new = fresh(rig, name, 401)?.sign()?;
        accepted(rig, name, &new, "a token of the replaced key").await?;
        refused_soon(rig, name, &old, "a token of a key that was replaced").await?;
    }
    println!(
        "{total} requests while keys were added and removed, none refused; tokens of keys that have gone are"
    );
    Ok(())
}
