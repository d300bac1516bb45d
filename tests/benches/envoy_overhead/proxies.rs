//! The Envoys: one per scenario, pinned, ready, and deciding as the scenario says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use tidegate::demo::client::{Call, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyBinary, EnvoyOptions};
use tidegate::demo::issuers::{Issuer, Issuers};
use tidegate::demo::mesh::{
    CONTROL_PLANE, HttpFilter, HttpListener, Listener, Node, OnFailure, ProxyConfig, WasmFilter,
};
use tidegate::plugin_config::{self, PluginConfig};

use super::control::{ControlPlane, workload};
use super::load::{self, Load};
use super::rules::HOST;
use super::scenarios::{self, Auth, Scenario};
use super::{machine, module, native, tokens};

const LISTENER: &str = "bench";
const CONTINUE: &str = "continue.wasm";

/// How long an Envoy may take until it decides: 100 000 rules have to be pushed, checked and installed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything that runs. Dropping it ends it.
pub struct Mesh {
    /// In the order of the scenarios.
    pub proxies: Vec<Proxy>,
    _control: ControlPlane,
    _issuers: Issuers,
    _folder: tempfile::TempDir,
}

/// An Envoy with its load.
pub struct Proxy {
    /// What it is for.
    pub scenario: Scenario,
    /// What is sent to it.
    pub load: Load,
    /// How many requests were sent to it.
    pub sent: AtomicU64,
    envoy: Envoy,
}

/// Starts everything; `filters` are the builds of Tidegate's module.
pub async fn start(binary: &EnvoyBinary, chosen: &[Scenario], filters: &[Vec<u8>]) -> Result<Mesh> {
    let folder = tempfile::tempdir()?;
    for (build, filter) in filters.iter().enumerate() {
        std::fs::write(folder.path().join(module_name(build)), filter)?;
    }
    std::fs::write(folder.path().join(CONTINUE), module::continue_always())?;
    let issuers = Issuers::start().await?;
    let sizes: BTreeSet<usize> = chosen
        .iter()
        .filter_map(|scenario| match scenario.auth {
            Auth::Tidegate { rules, .. } => Some(rules),
            Auth::None | Auth::Native { .. } | Auth::Continue => None,
        })
        .collect();
    let control = ControlPlane::start(&sizes, &issuers.gitlab).await?;
    let mut proxies = Vec::new();
    for scenario in chosen {
        let proxy = Proxy::start(binary, scenario, &issuers.gitlab, &control, folder.path()).await;
        proxies.push(proxy.with_context(|| format!("scenario `{}`", scenario.name))?);
    }
    Ok(Mesh { proxies, _control: control, _issuers: issuers, _folder: folder })
}

// === impl Proxy ===

impl Proxy {
    async fn start(
        binary: &EnvoyBinary,
        scenario: &Scenario,
        issuer: &Issuer,
        control: &ControlPlane,
        folder: &Path,
    ) -> Result<Self> {
        let listener = filters(scenario, issuer, control, folder)?
            .into_iter()
            .fold(HttpListener::forward_to(CONTROL_PLANE), HttpListener::filter);
        let mut config = ProxyConfig::new(Node::new("sales", scenario.name, "bench"))
            .listener(Listener::http(LISTENER, listener))
            .control_plane(control.address)
            .to_json();
        answer_directly(&mut config)?;
        let options = EnvoyOptions { concurrency: 1, log_level: "warning".into(), ..EnvoyOptions::default() };
        let envoy = Envoy::start(binary, scenario.name, &config, &options).await?;
        machine::pin(envoy.pid()).await?;
        let tokens = tokens::mint(issuer, scenario)?;
        let load = Load::prepare(scenario, envoy.address(LISTENER)?, &tokens, folder)?;
        let proxy = Self { scenario: *scenario, load, sent: AtomicU64::new(0), envoy };
        proxy.decides(tokens.last().context("there is a token")?).await?;
        Ok(proxy)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.envoy.pid()
    }

    /// Waits until a request with this token is answered as it should be.
    async fn decides(&self, token: &str) -> Result<()> {
        let endpoint = Endpoint::plain(self.envoy.address(LISTENER)?);
        let begin = Instant::now();
        loop {
            let call = Call::new(Method::GET, &self.scenario.path()).authority(HOST).bearer(token);
            let call = load::HEADERS.iter().fold(call, |call, (name, value)| call.header(name, value));
            let answer = endpoint.call(Protocol::Http1, call).await?;
            self.sent.fetch_add(1, Ordering::Relaxed);
            if answer.status.as_u16() == self.scenario.status() {
                return Ok(());
            }
            // What is not installed yet is not available; anything else is wrong.
            if answer.status.as_u16() != 503 || begin.elapsed() > PATIENCE {
                bail!(
                    "answers {} after {:?}, expected {}: {}\n{}",
                    answer.status,
                    begin.elapsed(),
                    self.scenario.status(),
                    String::from_utf8_lossy(&answer.body),
                    self.envoy.log_tail(20)
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What tells against the scenario: tokens must have been verified, or taken from the cache, as it says.
    pub async fn doubt(&self) -> Result<Option<String>> {
        let sent = self.sent.load(Ordering::Relaxed);
        let count = async |pattern: &str| anyhow::Ok(self.envoy.stats(pattern).await?.values().sum::<u64>());
        let (what, counted, wanted) = match self.scenario.auth {
            Auth::None | Auth::Continue => return Ok(None),
            Auth::Native { cache, .. } => {
                let hits = count("jwt_authn\\.jwt_cache_hit$").await?;
                ("tokens were in jwt_authn's cache", hits, if cache { sent } else { 0 })
            }
            Auth::Tidegate { .. } => {
                let failures = count("wasm.*(vm_reload|crash)").await?;
                ensure!(failures == 0, "`{}`: a VM failed", self.scenario.name);
                let verified = count("tidegate_signatures_host_total$").await?;
                let all = match self.scenario.load {
                    scenarios::Load::FirstSight => sent,
                    // As many as the budget of a connection allows; the others are refused unchecked.
                    scenarios::Load::BadSignature => verified.clamp(1, sent),
                    scenarios::Load::Warm | scenarios::Load::Unlike | scenarios::Load::Malformed => 0,
                };
                ("signatures were verified by the proxy", verified, all)
            }
        };
        // Bundles are signed too, and a first request fills a cache.
        let few = sent / 100 + 10;
        Ok((counted.abs_diff(wanted) > few).then(|| {
            let name = self.scenario.name;
            format!("`{name}`: {counted} {what} in {sent} requests, expected {wanted}")
        }))
    }
}

fn module_name(build: usize) -> String {
    format!("tidegate_filter_{build}.wasm")
}

fn filters(
    scenario: &Scenario,
    issuer: &Issuer,
    control: &ControlPlane,
    folder: &Path,
) -> Result<Vec<HttpFilter>> {
    Ok(match scenario.auth {
        Auth::None => Vec::new(),
        Auth::Native { policies, cache, form } => {
            vec![native::jwt_authn(issuer.url(), &issuer.jwks(), cache, form), native::rbac(policies, form)]
        }
        Auth::Continue => vec![
            WasmFilter {
                name: "continue".into(),
                module: folder.join(CONTINUE),
                configuration: String::new(),
                on_failure: OnFailure::Close,
            }
            .into(),
        ],
        Auth::Tidegate { rules, peers } => {
            let mut config = PluginConfig::new(workload(rules), control.trusted_keys.clone());
            config.peers = peers;
            config.control_plane = Some(plugin_config::ControlPlane {
                cluster: CONTROL_PLANE.into(),
                authority: "tidegate.tidegate-system.svc".into(),
            });
            vec![
                WasmFilter::tidegate(
                    folder.join(module_name(scenario.build)),
                    &serde_json::to_value(config)?,
                )
                .into(),
            ]
        }
    })
}

/// Replaces the route: requests that pass are answered at once.
fn answer_directly(config: &mut Value) -> Result<()> {
    let routes = config
        .pointer_mut(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes",
        )
        .context("the listener has routes")?;
    *routes = json!([{
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "{\"id\":123}"}},
    }]);
    Ok(())
}
