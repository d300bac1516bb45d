//! What was allowed is ended when it is not allowed any more, and junk tokens stop at a budget.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tidegate::demo::client::{Call, Connection, Endpoint, Protocol};
use tidegate_tests::corpus::spiffe_id;
use tidegate_tests::rig::Rig;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);

/// How much later than it should something may end here. (What it takes is printed.)
const TOLERANCE: Duration = Duration::from_secs(5);

/// Below `/v1/reset` streams end with their token, below `/v1/keep` they do not.
const RULES: &str = "
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: \"https://orders.sales.example\"}
---
kind: AccessRule
metadata: {name: reset, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: etl, serviceAccounts: [orders-worker]}, tokens: [{issuer: leasing}]}]
  to: [{http: {methods: [GET, POST], paths: [\"/v1/reset/{**}\"]}}]
---
kind: AccessRule
metadata: {name: keep, namespace: sales}
spec:
  owner: team-billing
  effect: Allow
  mode: Enforce
  onExpiry: keep
  from: [{peer: {namespace: etl, serviceAccounts: [orders-worker]}, tokens: [{issuer: leasing}]}]
  to: [{http: {methods: [GET, POST], paths: [\"/v1/keep/{**}\"]}}]
---
kind: TrustedIssuer
metadata: {name: leasing}
spec:
  issuer: \"https://issuer.leasing.example\"
  pack: generic
  tokenTypes: [JWT]
  algorithms: [RS256]
  skew: 1s
  keys:
    jwks: 'JWKS'
";

/// How a caller speaks, and what its endless request looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
    Grpc,
}

/// What became of a request.
pub struct Went {
    pub status: u16,
    grpc_status: Option<String>,
    pieces: usize,
    /// It ended by itself, with everything that belongs to it.
    complete: bool,
    at: Instant,
    /// When something of it arrived last.
    pub heard_at: Instant,
}

// === impl Speaks ===

impl Speaks {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];

    fn protocol(self) -> Protocol {
        if self == Self::Http1 { Protocol::Http1 } else { Protocol::Http2 }
    }

    /// A request that is answered bit by bit until the caller leaves.
    pub fn stream(self, below: &str, token: &str) -> Call {
        match self {
            Self::Grpc => Call::grpc(&format!("/v1/{below}/Watch?interval_ms=20"), b""),
            _ => Call::new(Method::GET, &format!("/v1/{below}/stream?interval_ms=20")),
        }
        .authority("orders.sales.example")
        .bearer(token)
    }

    /// A request whose answer does not begin for a long time.
    fn late(self, below: &str, token: &str) -> Call {
        let path = format!("/v1/{below}/late?delay_ms=60000");
        match self {
            Self::Grpc => Call::grpc(&path, b""),
            _ => Call::new(Method::GET, &path),
        }
        .authority("orders.sales.example")
        .bearer(token)
    }

    /// A refusal with this HTTP status.
    fn is_refused(self, went: &Went, status: u16) -> bool {
        let grpc_status = if status == 401 { "16" } else { "7" };
        match self {
            Self::Grpc => went.status == 200 && went.grpc_status.as_deref() == Some(grpc_status),
            _ => went.status == status,
        }
    }

    pub fn begin(self, rig: &Rig, call: Call) -> Result<JoinHandle<Result<Went>>> {
        Ok(self.begin_at(rig.service_as(&spiffe_id("etl/orders-worker"))?, call))
    }

    fn begin_at(self, endpoint: Endpoint, call: Call) -> JoinHandle<Result<Went>> {
        tokio::spawn(async move {
            let mut connection = endpoint.connect(self.protocol()).await?;
            follow(&mut connection, call).await
        })
    }
}

async fn follow(connection: &mut Connection, call: Call) -> Result<Went> {
    let (head, mut body) = connection.start(call).await?.into_parts();
    let grpc_status = |headers: &http::HeaderMap| {
        headers.get("grpc-status").and_then(|status| status.to_str().ok()).map(str::to_owned)
    };
    let mut went = Went {
        status: head.status.as_u16(),
        grpc_status: grpc_status(&head.headers),
        pieces: 0,
        complete: true,
        at: Instant::now(),
        heard_at: Instant::now(),
    };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                went.pieces += usize::from(frame.is_data());
                went.heard_at = Instant::now();
            }
            Err(_) => {
                went.complete = false;
                break;
            }
        }
    }
    went.at = Instant::now();
    Ok(went)
}

pub fn declared(rig: &Rig) -> String {
    RULES.replace("JWKS", &rig.issuers.gitlab.jwks().to_string())
}

/// A token of the test's own issuer for this subject, valid for so many seconds.
pub fn token(rig: &Rig, seconds: i64, subject: &str) -> Result<String> {
    let now = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
    let claims = json!({"aud": "https://orders.sales.example", "sub": subject, "jti": subject});
    let draft = rig.issuers.gitlab.other_token(claims, 600);
    Ok(draft
        .claim("iss", "https://issuer.leasing.example")
        .claim("iat", now - 60)
        .claim("exp", now + seconds)
        .sign()?)
}

pub async fn ended(task: JoinHandle<Result<Went>>, what: &str) -> Result<Went> {
    tokio::time::timeout(PATIENCE, task).await.with_context(|| format!("{what} goes on"))??
}

/// Expiry: what a rule says, with the right status where nothing was answered yet.
pub async fn streams_end_with_their_tokens(rig: &Rig) -> Result<()> {
    const VALID: Duration = Duration::from_secs(3);
    rig.apply(&declared(rig)).await?;
    for speaks in Speaks::ALL {
        // A second of it is the tolerance for clocks.
        let token = token(rig, 2, &format!("expires {speaks:?}"))?;
        let begun = Instant::now();
        let reset = speaks.begin(rig, speaks.stream("reset", &token))?;
        let late = speaks.begin(rig, speaks.late("reset", &token))?;
        let keep = speaks.begin(rig, speaks.stream("keep", &token))?;
        let reset = ended(reset, "a stream whose token has expired").await?;
        let heard = reset.heard_at - begun;
        ensure!(reset.status == 200 && reset.grpc_status.is_none(), "{speaks:?}: answered {}", reset.status);
        ensure!(reset.pieces > 10, "{speaks:?}: only {} pieces", reset.pieces);
        // The token's times are whole seconds.
        ensure!(heard > VALID - Duration::from_millis(1_200), "{speaks:?}: ended after {heard:?}");
        ensure!(heard < VALID + TOLERANCE, "{speaks:?}: went on for {heard:?}");
        let late = ended(late, "a request that waits for its answer").await?;
        ensure!(speaks.is_refused(&late, 401), "{speaks:?}: answered {} {:?}", late.status, late.grpc_status);
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(!keep.is_finished(), "{speaks:?}: what is to be kept has ended");
        keep.abort();
        println!(
            "{speaks:?}: a token valid for {VALID:?}: stream ended after {heard:?}, unanswered one got 401"
        );
    }
    Ok(())
}

/// Rules and revocations end what they no longer allow, whatever the rule says about expiry.
pub async fn streams_end_when_they_are_no_longer_allowed(rig: &Rig) -> Result<()> {
    let allowing = declared(rig);
    for (what, status) in [("a changed rule", 403), ("a revoked subject", 401)] {
        for speaks in Speaks::ALL {
            rig.apply(&allowing).await?;
            let subject = format!("robot {what} {speaks:?}");
            let token = token(rig, 300, &subject)?;
            let change = if status == 403 {
                allowing.replace("[orders-worker]", "[other]")
            } else {
                format!("{allowing}  revoked: {{subjects: [{{subject: \"{subject}\"}}]}}\n")
            };
            let before = rig.upstream.requests();
            let calls = ["reset", "keep"].into_iter().flat_map(|below| {
                [(true, speaks.stream(below, &token)), (false, speaks.late(below, &token))]
            });
            let tasks: Vec<_> =
                calls.map(|(begins, call)| Ok((begins, speaks.begin(rig, call)?))).collect::<Result<_>>()?;
            rig.wait("four requests to reach the application", || {
                let reached = rig.upstream.requests() - before;
                Ok((reached < 4).then(|| format!("{reached} have")))
            })
            .await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            ensure!(tasks.iter().all(|(_, task)| !task.is_finished()), "{what}: ended too early");
            let written = Instant::now();
            std::fs::write(rig.rules_file(), &change)?;
            let mut heard = Duration::ZERO;
            for (begins, task) in tasks {
                let went = ended(task, what).await?;
                if begins {
                    ensure!(went.status == 200 && went.pieces > 0, "{what}: answered {}", went.status);
                    heard = heard.max(went.heard_at.saturating_duration_since(written));
                } else {
                    ensure!(
                        speaks.is_refused(&went, status),
                        "{what}: answered {} {:?}",
                        went.status,
                        went.grpc_status
                    );
                    heard = heard.max(went.at - written);
                }
            }
            println!("{speaks:?}: {what}: the last stream was heard of {heard:?} after the file was written");
        }
    }
    Ok(())
}

/// Two filters of one configuration in one chain: both have what they allowed, and it is ended once. (Twice in one
/// callback crashes Envoy.)
pub async fn two_filters_end_a_stream_once(rig: &Rig) -> Result<()> {
    const STREAMS: usize = 20;
    let allowing = declared(rig);
    for speaks in Speaks::ALL {
        for (what, seconds) in [("a changed rule", 300), ("expiry", 3)] {
            rig.apply(&allowing).await?;
            let token = token(rig, seconds, &format!("twice {what} {speaks:?}"))?;
            let before = rig.upstream.requests();
            let tasks: Vec<_> = (0..STREAMS)
                .map(|number| {
                    let endpoint = rig.service_twice_as(&spiffe_id("etl/orders-worker"))?;
                    let late = number % 2 == 1;
                    let call =
                        if late { speaks.late("reset", &token) } else { speaks.stream("reset", &token) };
                    Ok(speaks.begin_at(endpoint, call))
                })
                .collect::<Result<_>>()?;
            rig.wait("the requests to reach the application", || {
                let reached = rig.upstream.requests() - before;
                Ok((reached < u64::try_from(STREAMS)?).then(|| format!("{reached} have")))
            })
            .await?;
            if what != "expiry" {
                std::fs::write(rig.rules_file(), allowing.replace("[orders-worker]", "[other]"))?;
            }
            for task in tasks {
                ended(task, what).await?;
            }
            let call = Call::new(Method::GET, "/v1/none").authority("orders.sales.example");
            let answer = rig.service_as(&spiffe_id("ops/admin"))?.call(Protocol::Http2, call).await;
            let status =
                answer.with_context(|| format!("{speaks:?}: after {what}, {}", rig.envoy.log_tail(20)))?;
            ensure!(status.status == 403, "{speaks:?}: after {what}: answered {}", status.status);
        }
    }
    println!("two filters in one chain: every stream was ended, and the proxy lives");
    Ok(())
}

/// A thousand streams that end at once harm nothing. (More than some hundreds in one callback overflow Envoy's stack.)
pub async fn many_streams_end_at_once(rig: &Rig) -> Result<()> {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 100;
    let allowing = declared(rig);
    rig.apply(&allowing).await?;
    let token = Arc::new(token(rig, 300, "many")?);
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection =
            rig.service_as(&spiffe_id("etl/orders-worker"))?.connect(Protocol::Http2).await?;
        let mut bodies = Vec::new();
        for _ in 0..STREAMS {
            let call = Call::grpc("/v1/keep/Watch?interval_ms=3600000", b"");
            let call = call.authority("orders.sales.example").bearer(&token);
            let answer = connection.start(call).await?;
            ensure!(answer.status() == 200 && answer.headers().get("grpc-status").is_none(), "{answer:?}");
            bodies.push(answer.into_body());
        }
        tasks.push(tokio::spawn(async move {
            let mut last = Instant::now();
            for body in bodies {
                let _ = body.collect().await;
                last = Instant::now();
            }
            drop(connection);
            last
        }));
    }
    let change = allowing.replace("[orders-worker]", "[other]");
    let written = Instant::now();
    let applied = rig.apply(&change).await?;
    let mut last = Duration::ZERO;
    for task in tasks {
        let at = tokio::time::timeout(PATIENCE, task).await.context("streams go on")??;
        last = last.max(at.saturating_duration_since(written));
    }
    println!(
        "{} streams: the last ended {last:?} after the file was written, enforced after {:?}",
        CONNECTIONS * STREAMS,
        applied.after
    );
    ensure!(rig.stat("wasm.*vm_reload").await? == 0, "a VM failed");
    Ok(())
}

/// Tokens whose signatures are wrong are refused unchecked after a while, and others are checked meanwhile.
pub async fn junk_stops_at_a_budget(rig: &Rig) -> Result<()> {
    const JUNK: usize = 400;
    rig.apply(&declared(rig)).await?;
    let good = rig.service_as(&spiffe_id("etl/orders-worker"))?;
    let mut flood = rig.service_as(&spiffe_id("nobody/special"))?.connect(Protocol::Http2).await?;
    let (mut checked, mut unchecked) = (0, 0);
    for number in 0..JUNK {
        let claims =
            json!({"aud": "https://orders.sales.example", "sub": "robot-7", "jti": format!("junk {number}")});
        let draft =
            rig.issuers.gitlab.other_token(claims, 600).claim("iss", "https://issuer.leasing.example");
        let junk = draft.damaged().sign()?;
        let call = Call::new(Method::GET, "/v1/reset/orders").authority("orders.sales.example").bearer(&junk);
        let answer = flood.call(call).await?;
        match answer.status.as_u16() {
            401 => checked += 1,
            429 => {
                ensure!(answer.header("retry-after") == Some("1"), "{:?}", answer.headers);
                unchecked += 1;
            }
            other => anyhow::bail!("answered {other}"),
        }
        if number % 20 == 0 {
            let token = token(rig, 300, &format!("good {number}"))?;
            let call =
                Call::new(Method::GET, "/v1/reset/orders").authority("orders.sales.example").bearer(&token);
            let answer = good.call(Protocol::Http2, call).await?;
            ensure!(
                answer.status == 200,
                "a good token was refused: {}",
                String::from_utf8_lossy(&answer.body)
            );
        }
    }
    println!("{JUNK} junk tokens over one connection: {checked} checked, {unchecked} refused unchecked");
    ensure!(checked > 0 && unchecked > 0, "{checked} checked, {unchecked} not");
    Ok(())
}
