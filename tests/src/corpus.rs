//! The corpus: rules, requests, and what must be decided, with reason and rule.
//!
//! Every case runs through the engine and the reference interpreter natively, and through the packaged filter in Envoy.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tidegate::demo::client::{Answer, Call, CallError, Endpoint, Protocol};
use tidegate::demo::issuers::{Draft, GitLabJob, GoogleInstance, KeyKind, KubernetesPod};
use tidegate_engine::Outcome;

use crate::native::{self, Seen};
use crate::rig::{Applied, GATEWAY, Rig, SERVICE};

/// For whom tokens are meant unless a case says otherwise.
pub const AUDIENCE: &str = "https://orders.sales.example";

/// One file of the corpus.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Objects beside those of `base.yaml`.
    pub rules: String,
    /// Cases under these rules.
    pub cases: Vec<Case>,
}

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence.
    pub name: String,
    /// Where it arrives.
    #[serde(default)]
    pub at: Place,
    /// `namespace/account` of a mesh certificate; at the service one is needed.
    #[serde(default)]
    pub peer: Option<String>,
    /// A certificate of another authority with this SPIFFE id instead.
    #[serde(default)]
    pub foreign: Option<String>,
    /// How it is sent.
    #[serde(default)]
    pub via: Via,
    /// Not for gRPC.
    #[serde(default)]
    pub method: Option<String>,
    /// As sent.
    pub path: String,
    /// As sent.
    #[serde(default = "default_host")]
    pub host: String,
    /// Further headers, in this order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Tokens.
    #[serde(default)]
    pub tokens: Vec<TokenSpec>,
    /// What must happen.
    pub expect: Expected,
    /// Its reason; none where the connection is refused.
    #[serde(default)]
    pub reason: String,
    /// The rule that decides.
    #[serde(default)]
    pub rule: Option<String>,
}

fn default_host() -> String {
    "orders.sales.example".to_owned()
}

/// Where a request arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// At the service's sidecar, which demands a mesh certificate.
    #[default]
    Service,
    /// At the gateway, which asks for none.
    Gateway,
}

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// A gRPC call.
    Grpc,
}

/// What must happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// The upstream answers.
    Allow,
    /// The filter answers.
    Deny,
    /// There is no connection.
    Handshake,
}

/// A token, right as the issuer makes it unless something is changed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// As [`token_of`] names it.
    pub issuer: String,
    /// Claims to set, by path with slashes; null removes.
    #[serde(default)]
    pub claims: BTreeMap<String, Value>,
    /// Members of the JOSE header to set; null removes.
    #[serde(default)]
    pub jose: BTreeMap<String, Value>,
    /// What is wrong with the signature or the times.
    #[serde(default)]
    pub forge: Option<Forge>,
    /// Before the token in the header's value.
    #[serde(default = "bearer")]
    pub scheme: String,
}

fn bearer() -> String {
    "Bearer ".to_owned()
}

/// Ways to bend a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forge {
    /// `alg: none`.
    Unsigned,
    /// `alg: HS256` with the public key for a secret.
    Hmac,
    /// One bit of the signature turned over.
    Damaged,
    /// Another issuer's key under this issuer's `kid`.
    OtherKey,
    /// Two hours old.
    Expired,
    /// Of the next hour.
    Early,
}

/// How many cases ran, and how they were decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Cases that passed.
    pub allowed: u32,
    /// Cases that were refused.
    pub denied: u32,
}

// === impl Suite ===

impl Suite {
    /// Reads a file of the corpus.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(serde_saphyr::from_str(text)?)
    }

    /// Runs all cases; reports all failures at once.
    pub async fn run(&self, rig: &Rig) -> Result<Tally> {
        let applied = rig.apply(&self.rules).await?;
        let mut tally = Tally::default();
        let mut failures = Vec::new();
        for case in &self.cases {
            match case.run(rig, &applied).await {
                Ok(()) if case.expect == Expected::Allow => tally.allowed += 1,
                Ok(()) => tally.denied += 1,
                Err(error) => failures.push(format!("{}: {error:#}", case.name)),
            }
        }
        ensure!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
        Ok(tally)
    }
}

// === impl Case ===

impl Case {
    async fn run(&self, rig: &Rig, applied: &Applied) -> Result<()> {
        let tokens = self.tokens.iter().map(|token| token.mint(rig)).collect::<Result<Vec<_>>>()?;
        if self.expect != Expected::Handshake {
            self.run_natively(rig, applied, &tokens).context("natively")?;
        }
        self.run_in_envoy(rig, &tokens).await.context("in Envoy")
    }

    fn method(&self) -> &str {
        match (self.via, &self.method) {
            (Via::Grpc, _) => "POST",
            (_, Some(method)) => method,
            (_, None) => "GET",
        }
    }

    fn run_natively(&self, rig: &Rig, applied: &Applied, tokens: &[String]) -> Result<()> {
        let mut headers: Vec<(String, Vec<u8>)> = vec![
            (":method".into(), self.method().into()),
            (":path".into(), self.path.clone().into()),
            (":authority".into(), self.host.clone().into()),
        ];
        if self.via == Via::Grpc {
            headers.push(("content-type".into(), "application/grpc".into()));
        }
        headers.extend(
            self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone().into())),
        );
        // As Envoy does with headers that it knows.
        if !tokens.is_empty() {
            headers.push(("authorization".into(), tokens.join(",").into()));
        }
        let (workload, policy, listener) = match self.at {
            Place::Service => (SERVICE, &applied.service, "service"),
            Place::Gateway => (GATEWAY, &applied.gateway, "gateway"),
        };
        let seen = Seen {
            headers,
            peer: self.peer.as_ref().filter(|_| self.at == Place::Service).map(|peer| spiffe_id(peer)),
            port: rig.envoy.address(listener)?.port(),
        };
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let (decision, rule) = native::decision(rig, workload, policy, &seen, now)?;
        let expected = if self.expect == Expected::Allow { Outcome::Allow } else { Outcome::Deny };
        ensure!(
            (decision.outcome, decision.reason.code(), &rule) == (expected, self.reason.as_str(), &self.rule),
            "decided {:?} {} by {rule:?}, expected {expected:?} {} by {:?}",
            decision.outcome,
            decision.reason,
            self.reason,
            self.rule
        );
        Ok(())
    }

    async fn run_in_envoy(&self, rig: &Rig, tokens: &[String]) -> Result<()> {
        let answer = self.send(rig, tokens).await;
        let answer = match (answer, self.expect) {
            (Err(_), Expected::Handshake) => return Ok(()),
            (Ok(answer), Expected::Handshake) => {
                bail!("expected no connection, got status {}", answer.status)
            }
            (answer, _) => answer?,
        };
        let decided = |status: u16| match status {
            200 => 0,
            401 => 16,
            403 => 7,
            503 => 14,
            _ => 2,
        };
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let told =
            if self.via == Via::Grpc { answer.grpc_message().unwrap_or_default().to_owned() } else { body };
        let expected: u16 = match (self.expect, self.reason.as_str()) {
            (Expected::Allow, _) => 200,
            (_, "token_required") => 401,
            (_, reason) if reason.starts_with("token_") => 401,
            _ => 403,
        };
        let status = answer.status.as_u16();
        if self.via == Via::Grpc {
            let grpc = answer.grpc_status();
            ensure!(
                grpc == Some(decided(expected)),
                "gRPC status {grpc:?}, expected {}: {told}",
                decided(expected)
            );
        } else {
            ensure!(status == expected, "status {status}, expected {expected}: {told}");
        }
        if self.expect == Expected::Deny {
            ensure!(told.contains(&self.reason), "the refusal does not say `{}`: {told}", self.reason);
            ensure!(answer.header("x-tidegate-decision").is_some(), "the refusal has no decision id");
            if let Some(rule) = &self.rule {
                ensure!(told.contains(rule.as_str()), "the refusal does not name the rule `{rule}`: {told}");
            }
        }
        Ok(())
    }

    async fn send(&self, rig: &Rig, tokens: &[String]) -> Result<Answer> {
        let endpoint: Endpoint = match (self.at, &self.peer, &self.foreign) {
            (Place::Gateway, _, _) => rig.gateway()?,
            (Place::Service, Some(peer), None) => rig.service_as(&spiffe_id(peer))?,
            (Place::Service, None, Some(id)) => rig.service_with(&rig.foreign.workload(id)?)?,
            (Place::Service, ..) => bail!("a request to the service needs `peer` or `foreign`"),
        };
        let (protocol, call) = self.call(tokens)?;
        endpoint.call(protocol, call).await.map_err(|error: CallError| error.into())
    }

    /// The request with these tokens, and how it is sent.
    pub fn call(&self, tokens: &[String]) -> Result<(Protocol, Call)> {
        let mut call = match self.via {
            Via::Grpc => Call::grpc(&self.path, b""),
            Via::Http1 | Via::Http2 => Call::new(Method::from_bytes(self.method().as_bytes())?, &self.path),
        }
        .authority(&self.host);
        for (name, value) in &self.headers {
            call = call.header(name, value.as_bytes());
        }
        for token in tokens {
            call = call.header("authorization", token.as_bytes());
        }
        let protocol = if self.via == Via::Http1 { Protocol::Http1 } else { Protocol::Http2 };
        Ok((protocol, call))
    }
}

/// `namespace/account` in the mesh's trust domain; a whole id stays as it is.
pub fn spiffe_id(peer: &str) -> String {
    match peer.split_once('/') {
        Some((namespace, account)) if !peer.contains(':') => {
            format!("spiffe://prod.example/ns/{namespace}/sa/{account}")
        }
        _ => peer.to_owned(),
    }
}

// === impl TokenSpec ===

impl TokenSpec {
    /// The header's value.
    pub fn mint(&self, rig: &Rig) -> Result<String> {
        let issuers = &rig.issuers;
        let mut draft = token_of(rig, &self.issuer)?;
        for (path, value) in &self.claims {
            draft = draft.claims(|claims| set(claims, path, value.clone()));
        }
        for (name, value) in &self.jose {
            draft = draft.header(|header| set(header, name, value.clone()));
        }
        draft = match self.forge {
            None => draft,
            Some(Forge::Unsigned) => draft.unsigned(),
            Some(Forge::Hmac) => draft.hmac_with_public_key(),
            Some(Forge::Damaged) => draft.damaged(),
            Some(Forge::OtherKey) => {
                let stranger = if self.issuer == "google" { &issuers.gitlab } else { &issuers.google };
                draft.forged_with(&stranger.key(KeyKind::Rs256).unwrap_or_else(|| stranger.signing_key()))
            }
            Some(Forge::Expired) => draft.expired(),
            Some(Forge::Early) => draft.shifted(3600),
        };
        Ok(format!("{}{}", self.scheme, draft.sign()?))
    }
}

/// A token as this issuer makes it for the workload that the corpus is about.
pub fn token_of(rig: &Rig, issuer: &str) -> Result<Draft> {
    let (issuers, providers) = (&rig.issuers, &rig.providers);
    Ok(match issuer {
        "google" => issuers.google.instance_token(&dataflow_worker(), AUDIENCE),
        "gitlab" => issuers.gitlab.job_token(&release_job(), AUDIENCE),
        "cluster" => issuers.cluster.pod_token(&orders_worker(), AUDIENCE),
        "entra" => providers.entra.entra_app_token("cccccccc-0000-4000-8000-000000000003", AUDIENCE),
        "okta" => providers.okta.okta_client_token("0oa0example", AUDIENCE),
        "aws" => providers.aws.aws_role_token("OrdersEtl", AUDIENCE),
        "github" => providers.github.github_job_token(AUDIENCE),
        "batch" => providers.spiffe.jwt_svid("/ns/etl/sa/orders", AUDIENCE),
        "oauth" => providers.oauth.access_token("orders", AUDIENCE),
        other => bail!("no issuer `{other}`"),
    })
}

fn set(value: &mut Value, path: &str, new: Value) {
    let (parent, name) = match path.rsplit_once('/') {
        Some((parents, name)) => {
            let parent = parents.split('/').try_fold(value, |value, part| value.get_mut(part));
            (parent, name)
        }
        None => (Some(value), path),
    };
    if let Some(members) = parent.and_then(Value::as_object_mut) {
        if new.is_null() {
            members.remove(name);
        } else {
            members.insert(name.to_owned(), new);
        }
    }
}

/// A worker of the Dataflow job `orders-etl`.
pub fn dataflow_worker() -> GoogleInstance {
    GoogleInstance {
        email: "orders-etl@acme.iam.gserviceaccount.com".into(),
        subject: "100000000000000000001".into(),
        project: "acme".into(),
        project_number: 123_456_789_012,
        zone: "europe-west4-b".into(),
        instance_id: "4570000000000000001".into(),
        instance_name: "orders-etl-11210101-ab1c-harness-x9z0".into(),
    }
}

/// A job on the protected branch of project 4711.
pub fn release_job() -> GitLabJob {
    GitLabJob {
        project_id: "4711".into(),
        project_path: "data/orders".into(),
        namespace_id: "72".into(),
        job_project_id: "4711".into(),
        branch: "main".into(),
        protected: true,
        source: "push".into(),
        environment: Some("production".into()),
        user_access_level: "maintainer".into(),
    }
}

/// The pod of `etl/orders-worker`.
pub fn orders_worker() -> KubernetesPod {
    KubernetesPod {
        namespace: "etl".into(),
        service_account: "orders-worker".into(),
        pod: "orders-worker-7xk2p".into(),
    }
}
