//! Why a request passes: the control plane's own evaluation of the Bundle that a filter enforces.
//!
//! A caller that is let in is not told by which rule. Here the same engine decides the same request on the same Bundle;
//! where it disagrees with what the filter did, the demo fails.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use prost::Message as _;
use tidegate_engine::{
    Decision, Directories, Outcome, Peer, PolicySet, Reason, Request, RuleIx, ShadowDifference, TokenState,
    decide, normal,
};
use tidegate_identity::{At, Authenticator, CacheLimits, IssuerSet, PureRust, SpiffeId, TokenOutcome};
use tidegate_proto::v1 as pb;

use crate::clock;
use crate::demo::client::Call;
use crate::demo::world::{GATEWAY, SERVICE, Way, World};

/// What was decided, in words that are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happens.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// `namespace/name` of the rule that decided.
    pub rule: Option<String>,
    /// What Shadow rules would have done: the rule's name, or the reason where none decided.
    pub shadow: Option<String>,
}

/// The Bundles of service and gateway, decoded.
#[derive(Debug)]
pub struct Explainer {
    bundles: BTreeMap<&'static str, Bundle>,
}

#[derive(Debug)]
struct Bundle {
    guarded: bool,
    rules: PolicySet,
    authenticator: Option<Authenticator>,
    directories: Directories,
}

// === impl Explainer ===

impl Explainer {
    /// Reads what is on offer now.
    pub fn new(world: &World) -> Result<Self> {
        let mut bundles = BTreeMap::new();
        for workload in [SERVICE, GATEWAY] {
            let bytes = world
                .control_plane()?
                .bundle(workload)
                .with_context(|| format!("the control plane has no Bundle for `{workload}`"))?;
            let bundle = Bundle::decode(&bytes).with_context(|| format!("the Bundle for `{workload}`"))?;
            bundles.insert(workload, bundle);
        }
        Ok(Self { bundles })
    }

    /// Decides a request that comes this way: at the gateway first where there is one, then at the service.
    pub fn explain(&mut self, way: Way, service_port: u16, call: &Call) -> Result<Explanation> {
        let id = SpiffeId::parse(way.spiffe_id().as_bytes()).map_err(|_| anyhow!("`{}`", way.spiffe_id()))?;
        let peer = Peer::Mesh {
            trust_domain: id.trust_domain,
            namespace: id.namespace,
            service_account: id.service_account,
        };
        if way == Way::Gateway {
            // Its Guard covers every port.
            let explanation = self.decide(GATEWAY, Peer::Absent, 0, call)?;
            if explanation.outcome == Outcome::Deny {
                return Ok(explanation);
            }
        }
        self.decide(SERVICE, peer, service_port, call)
    }

    fn decide(&mut self, workload: &str, peer: Peer<'_>, port: u16, call: &Call) -> Result<Explanation> {
        let bundle = self.bundles.get_mut(workload).with_context(|| format!("no Bundle for `{workload}`"))?;
        if !bundle.guarded {
            let (outcome, reason) = (Outcome::Allow, Reason::NotGuarded);
            return Ok(Explanation { outcome, reason, rule: None, shadow: None });
        }
        let mut headers: Vec<(&[u8], &[u8])> = vec![
            (b":method", call.method().as_str().as_bytes()),
            (b":authority", call.host().unwrap_or_default().as_bytes()),
            (b":path", call.path().as_bytes()),
        ];
        headers.extend(call.headers().iter().map(|(name, value)| (name.as_bytes(), value.as_slice())));
        let now = clock::now();
        let mut outcomes = Vec::new();
        if let Some(authenticator) = &mut bundle.authenticator {
            authenticator.authenticate(&headers, At::now(now), &PureRust, &mut outcomes);
        }
        let tokens: Vec<TokenState<'_>> = outcomes.iter().map(TokenOutcome::state).collect();
        let path = normal::path(call.path().as_bytes());
        let host = normal::host(call.host().unwrap_or_default().as_bytes());
        let decision = decide(
            &bundle.rules,
            &Request {
                now,
                expiry_grace_s: 0,
                port,
                method: call.method().as_str().as_bytes(),
                host: host.as_deref(),
                path: &path,
                query: normal::query(call.path().as_bytes()),
                headers: normal::header_facts(headers.iter().copied()),
                fields: &headers,
                body: tidegate_engine::Body::Unread,
                peer,
                tokens: &tokens,
                directories: &bundle.directories,
            },
        );
        Ok(bundle.word(decision))
    }
}

// === impl Bundle ===

impl Bundle {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let bundle = pb::Bundle::decode(bytes)?;
        let signed = bundle.manifest.context("it has no manifest")?;
        let manifest = pb::Manifest::decode(signed.manifest.as_slice())?;
        let section = |kind: pb::SectionKind| {
            bundle
                .sections
                .iter()
                .find(|section| section.kind() == kind)
                .map(|section| section.content.as_slice())
        };
        let rules = PolicySet::decode(section(pb::SectionKind::Rules).context("it has no rules")?)?;
        let authenticator = match section(pb::SectionKind::Keys) {
            Some(keys) => {
                let limits = CacheLimits { max_entries: 64, max_bytes: 1 << 20 };
                Some(Authenticator::new(IssuerSet::decode(keys)?, rules.issuers(), limits)?)
            }
            None => None,
        };
        let directories = match section(pb::SectionKind::Directory) {
            Some(directory) => Directories::decode(directory)?,
            None => Directories::default(),
        };
        let guarded = manifest.coverage() == pb::Coverage::Guarded;
        Ok(Self { guarded, rules, authenticator, directories })
    }

    fn word(&self, decision: Decision) -> Explanation {
        let Decision { outcome, reason, rule, shadow, .. } = decision;
        let name = |rule: Option<RuleIx>| Some(self.rules.rule(rule?)?.id.to_owned());
        let shadow = shadow.map(|ShadowDifference { reason, rule, .. }| {
            name(rule).unwrap_or_else(|| reason.code().to_owned())
        });
        Explanation { outcome, reason, rule: name(rule), shadow }
    }
}
