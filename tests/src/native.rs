//! The same decision natively: the very sections that filters get, through the engine and through the reference.

use anyhow::{Context as _, Result, ensure};
use tidegate_compiler::WorkloadPolicy;
use tidegate_engine::{Decision, Directories, Peer, PolicySet, Request, decide, normal, reference};
use tidegate_identity::{At, Authenticator, CacheLimits, IssuerSet, PureRust, SpiffeId, TokenOutcome};
use tidegate_proto::v1 as pb;

use crate::rig::Rig;

/// A request as the filter reads it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// With pseudo headers, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The URI SAN of a certificate that the mesh's authority issued.
    pub peer: Option<String>,
    /// The port that accepted the connection.
    pub port: u16,
}

/// Decides with the sections that are on offer to a workload. Fails when engine and reference disagree.
pub fn decision(
    rig: &Rig,
    workload: &str,
    policy: &WorkloadPolicy,
    seen: &Seen,
    now: i64,
) -> Result<(Decision, Option<String>)> {
    let rules = PolicySet::decode(&policy.rules)?;
    let headers: Vec<(&[u8], &[u8])> =
        seen.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
    let mut outcomes: Vec<TokenOutcome> = Vec::new();
    if let Some(keys) = rig.section(workload, pb::SectionKind::Keys)? {
        let limits = CacheLimits { max_entries: 16, max_bytes: 1 << 16 };
        let mut authenticator = Authenticator::new(IssuerSet::decode(&keys)?, rules.issuers(), limits)?;
        authenticator.authenticate(&headers, At::now(now), &PureRust, &mut outcomes);
    }
    let directories = match rig.section(workload, pb::SectionKind::Directory)? {
        Some(section) => Directories::decode(&section)?,
        None => Directories::default(),
    };
    let tokens: Vec<_> = outcomes.iter().map(TokenOutcome::state).collect();
    let header =
        |name: &[u8]| headers.iter().find(|(known, _)| *known == name).map_or(&b""[..], |(_, value)| value);
    let path = normal::path(header(b":path"));
    let host = normal::host(header(b":authority"));
    let peer = match seen.peer.as_deref().map(|uri| SpiffeId::parse(uri.as_bytes())) {
        Some(Ok(id)) => Peer::Mesh {
            trust_domain: id.trust_domain,
            namespace: id.namespace,
            service_account: id.service_account,
        },
        _ => Peer::Absent,
    };
    let request = Request {
        now,
        expiry_grace_s: 0,
        port: seen.port,
        method: header(b":method"),
        host: host.as_deref(),
        path: &path,
        query: normal::query(header(b":path")),
        headers: normal::header_facts(headers.iter().copied()),
        fields: &headers,
        body: tidegate_engine::Body::Unread,
        peer,
        tokens: &tokens,
        directories: &directories,
    };
    let decision = decide(&rules, &request);
    let expected = reference::decide(&policy.model, &request);
    ensure!(decision == expected, "the engine decides {decision:?}, the reference {expected:?}");
    let rule = match decision.rule {
        Some(rule) => Some(rules.rule(rule).context("the rule that decided exists")?.id.to_owned()),
        None => None,
    };
    Ok((decision, rule))
}
