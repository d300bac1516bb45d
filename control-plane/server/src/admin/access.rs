//! Who may use the admin interface.
//!
//! INVARIANT: whoever is not on this machine, at a loopback address of it, and straight, has to be on the list; probes are
//! for anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{info, warn};

use super::Admin;
use crate::metrics::ReasonLabel;
use crate::transport::{Arrival, Caller, Security, TransportOptions};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    status: StatusCode,
    /// For metrics.
    reason: &'static str,
    why: String,
}

/// Lets through who may, and says to others why not.
pub(super) async fn admit(
    State(admin): State<Admin>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    request: Request<Body>,
    next: Next,
) -> Response {
    match judge(&admin.transport, &arrival, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            let reason = refused.reason;
            admin.hub.metrics.refused_admin_requests.get_or_create(&ReasonLabel::new(reason)).inc();
            info!(reason, "admin request refused: {}", refused.why);
            (refused.status, format!("{}\n", refused.why)).into_response()
        }
    }
}

/// What only the replica that leads knows is not answered by another one: it has its own filters, and half an answer looks like a
/// whole one.
pub(super) async fn ask_the_leader(
    State(admin): State<Admin>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let other = admin.leadership.borrow().other.clone();
    match other {
        None => next.run(request).await,
        Some(leader) => elsewhere(&leader, "knows what filters of all replicas do"),
    }
}

/// What is answered by a replica that does not lead. It asks nobody on behalf of others: whom the leader lets in is for the leader
/// to see by itself.
pub(super) fn elsewhere(leader: &str, what: &str) -> Response {
    let why = format!(
        "the replica `{leader}` leads, and {what}; ask that one: `kubectl port-forward pod/{leader} 15081` in the control plane's \
         namespace, and once more\n"
    );
    (StatusCode::CONFLICT, why).into_response()
}

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Writer(pub String);

/// Lets through who may change what is in force, and says to others why not.
pub(super) async fn admit_writer(
    State(admin): State<Admin>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    match judge_writer(&admin.transport, &arrival, request.headers()) {
        Ok(writer) => {
            request.extensions_mut().insert(writer);
            next.run(request).await
        }
        Err(refused) => {
            let reason = refused.reason;
            admin.hub.metrics.refused_admin_requests.get_or_create(&ReasonLabel::new(reason)).inc();
            warn!(
                reason,
                path = request.uri().path(),
                "admin request that changes something refused: {}",
                refused.why
            );
            (refused.status, format!("{}\n", refused.why)).into_response()
        }
    }
}

/// Being on this machine is not enough: who changes what is in force has to prove who they are, unless nobody has to.
fn judge_writer(
    options: &TransportOptions,
    arrival: &Arrival,
    headers: &HeaderMap,
) -> Result<Writer, Refused> {
    let refuse = |status, reason, why| Err(Refused { status, reason, why });
    match Caller::of(options, arrival, headers) {
        Ok(Caller::Unasked) => {
            judge(options, arrival, headers)?;
            // What a browser sends for a page.
            if headers.contains_key(header::ORIGIN) {
                let why = "pages of a browser change nothing here".to_owned();
                return refuse(StatusCode::FORBIDDEN, "browser", why);
            }
            Ok(Writer("a program on this machine, unasked".to_owned()))
        }
        Ok(Caller::Peer { peer, .. }) if options.admin_writers.contains(&peer) => {
            Ok(Writer(peer.to_string()))
        }
        Ok(Caller::Peer { peer, .. }) => {
            let why = format!(
                "{peer} is not among the principals that may revoke, suspend and roll back (`tidegate serve \
                 --admin-writers`)"
            );
            refuse(StatusCode::FORBIDDEN, "not_writer", why)
        }
        Err(refusal) => {
            let why = format!(
                "{refusal}; who revokes, suspends or rolls back needs a certificate of one of `--admin-writers`, on this \
                 machine too"
            );
            refuse(StatusCode::UNAUTHORIZED, refusal.word(), why)
        }
    }
}

fn judge(options: &TransportOptions, arrival: &Arrival, headers: &HeaderMap) -> Result<(), Refused> {
    if is_local(options, arrival) {
        return judge_local(headers);
    }
    let refuse = |status, reason, why| Err(Refused { status, reason, why });
    match Caller::of(options, arrival, headers) {
        // Without authentication only loopback is listened on, so this is no local caller.
        Ok(Caller::Unasked) => refuse(
            StatusCode::UNAUTHORIZED,
            "not_local",
            "the admin interface is for this machine only".to_owned(),
        ),
        Ok(Caller::Peer { peer, .. }) => {
            if options.admin_principals.contains(&peer) || options.admin_writers.contains(&peer) {
                return Ok(());
            }
            let why = format!(
                "{peer} is not among the principals that may use the admin interface (`--admin-principals`)"
            );
            refuse(StatusCode::FORBIDDEN, "not_listed", why)
        }
        Err(refusal) => refuse(StatusCode::UNAUTHORIZED, refusal.word(), refusal.to_string()),
    }
}

/// Whether the caller is a program on this machine. A sidecar is, and speaks for others.
fn is_local(options: &TransportOptions, arrival: &Arrival) -> bool {
    let is_loopback = arrival.remote.is_some_and(|remote| {
        remote == IpAddr::V4(Ipv4Addr::LOCALHOST) || remote == IpAddr::V6(Ipv6Addr::LOCALHOST)
    });
    let is_sidecar = match &options.security {
        Security::Sidecar(sidecar) => sidecar.from.iter().any(|from| Some(*from) == arrival.remote),
        Security::Insecure | Security::Mutual(_) => false,
    };
    arrival.local && is_loopback && !is_sidecar
}

/// A proxy on this machine speaks for others, and so does a browser that a page of another host uses.
fn judge_local(headers: &HeaderMap) -> Result<(), Refused> {
    let refuse =
        |reason, why: &str| Err(Refused { status: StatusCode::FORBIDDEN, reason, why: why.to_owned() });
    if headers.keys().any(|name| is_of_a_proxy(name.as_str())) {
        return refuse(
            "proxied",
            "the request came through a proxy, so it does not count as one of this machine",
        );
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_own_host(host) {
        return refuse(
            "foreign_host",
            "the request is for another host; call the admin interface as `localhost` or by its address",
        );
    }
    Ok(())
}

fn is_of_a_proxy(header: &str) -> bool {
    ["x-forwarded-", "x-envoy-"].iter().any(|prefix| header.starts_with(prefix)) || header == "forwarded"
}

/// `localhost` or an address, with or without a port.
fn is_own_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::transport::{SidecarOptions, TlsOptions, VerifiedPeer};

    const ADMIN: &str = "spiffe://cluster.local/ns/ops/sa/admin";
    const WRITER: &str = "spiffe://cluster.local/ns/ops/sa/oncall";
    const OTHER: &str = "spiffe://cluster.local/ns/ops/sa/other";

    fn options(security: Security) -> TransportOptions {
        TransportOptions { admin_principals: vec![ADMIN.parse().unwrap()], ..TransportOptions::new(security) }
    }

    fn mutual() -> TransportOptions {
        let files = TlsOptions { certificate: "".into(), key: "".into(), authorities: "".into() };
        options(Security::Mutual(files))
    }

    fn sidecar() -> TransportOptions {
        options(Security::Sidecar(SidecarOptions::default()))
    }

    fn from(remote: &str, local: bool, peer: Option<&str>) -> Arrival {
        let peer = peer.map(|peer| Arc::new(peer.parse::<VerifiedPeer>().unwrap()));
        Arrival { remote: Some(remote.parse().unwrap()), peer, local }
    }

    fn judged(
        options: &TransportOptions,
        arrival: &Arrival,
        headers: &[(&'static str, &str)],
    ) -> &'static str {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        judge(options, arrival, &map).map_or_else(|refused| refused.reason, |()| "ok")
    }

    #[test]
    fn who_changes_something_is_on_a_list_of_their_own_and_proves_it_on_this_machine_too() {
        let judged = |options: &TransportOptions, arrival: &Arrival, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            judge_writer(options, arrival, &map).map_or_else(|refused| refused.reason, |_| "ok")
        };
        let local = from("127.0.0.1", true, None);
        let mutual = TransportOptions { admin_writers: vec![WRITER.parse().unwrap()], ..mutual() };
        for (peer, expected) in [
            (Some(WRITER), "ok"),
            (Some(ADMIN), "not_writer"),
            (Some(OTHER), "not_writer"),
            (None, "no_certificate"),
        ] {
            assert_eq!(judged(&mutual, &from("10.0.0.1", false, peer), &[HOST]), expected);
            assert_eq!(judged(&mutual, &from("127.0.0.1", true, peer), &[HOST]), expected);
        }
        assert!(
            judge(&mutual, &from("10.0.0.1", false, Some(WRITER)), &HeaderMap::new()).is_ok(),
            "may read"
        );
        let sidecar = TransportOptions { admin_writers: vec![WRITER.parse().unwrap()], ..sidecar() };
        let says = |id: &'static str| ("x-forwarded-client-cert", id);
        let writer = says("URI=spiffe://cluster.local/ns/ops/sa/oncall");
        assert_eq!(judged(&sidecar, &from("127.0.0.6", true, None), &[HOST, writer]), "ok");
        let admin = says("URI=spiffe://cluster.local/ns/ops/sa/admin");
        assert_eq!(judged(&sidecar, &from("127.0.0.6", true, None), &[HOST, admin]), "not_writer");
        assert_eq!(judged(&sidecar, &local, &[HOST, writer]), "not_from_sidecar");
        let insecure = options(Security::Insecure);
        assert_eq!(judged(&insecure, &local, &[HOST]), "ok");
        assert_eq!(judged(&insecure, &local, &[HOST, ("origin", "http://localhost")]), "browser");
        assert_eq!(judged(&insecure, &local, &[HOST, ("x-forwarded-for", "a")]), "proxied");
        assert_eq!(judged(&insecure, &from("10.0.0.1", false, None), &[HOST]), "not_local");
    }

    const HOST: (&str, &str) = ("host", "localhost:15081");

    #[test]
    fn programs_of_this_machine_may() {
        for options in [options(Security::Insecure), mutual(), sidecar()] {
            for remote in ["127.0.0.1", "::1"] {
                for host in ["localhost", "localhost:15081", "127.0.0.1:15081", "[::1]:15081", "[::1]"] {
                    assert_eq!(
                        judged(&options, &from(remote, true, None), &[("host", host)]),
                        "ok",
                        "{host}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_others_may_have_sent_is_not_of_this_machine() {
        for options in [options(Security::Insecure), mutual(), sidecar()] {
            let local = from("127.0.0.1", true, None);
            for name in
                ["x-forwarded-client-cert", "x-forwarded-for", "x-envoy-external-address", "forwarded"]
            {
                assert_eq!(judged(&options, &local, &[HOST, (name, "a")]), "proxied", "{name}");
            }
            for host in ["evil.example", "evil.example:15081", "localhost.evil.example", ""] {
                assert_eq!(judged(&options, &local, &[("host", host)]), "foreign_host", "{host}");
            }
            assert_eq!(judged(&options, &local, &[]), "foreign_host");
            assert_ne!(judged(&options, &from("127.0.0.6", true, None), &[HOST]), "ok");
            assert_ne!(judged(&options, &from("10.0.0.1", false, None), &[HOST]), "ok");
            assert_ne!(judged(&options, &from("127.0.0.1", false, None), &[HOST]), "ok", "not by loopback");
        }
    }

    #[test]
    fn certificates_are_compared_with_the_list() {
        let options = mutual();
        for (peer, expected) in [(Some(ADMIN), "ok"), (Some(OTHER), "not_listed"), (None, "no_certificate")] {
            assert_eq!(judged(&options, &from("10.0.0.1", false, peer), &[HOST]), expected);
        }
        let forged = ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/ops/sa/admin");
        assert_eq!(judged(&options, &from("10.0.0.1", false, Some(OTHER)), &[HOST, forged]), "not_listed");
        assert_eq!(judged(&options, &from("10.0.0.1", false, None), &[HOST, forged]), "no_certificate");
    }

    #[test]
    fn the_sidecar_says_who_calls_and_nobody_else_does() {
        let options = sidecar();
        let header = |value| ("x-forwarded-client-cert", value);
        let admin = header("By=x;Hash=a;Subject=\"\";URI=spiffe://cluster.local/ns/ops/sa/admin");
        let other =
            header("URI=spiffe://cluster.local/ns/ops/sa/admin,URI=spiffe://cluster.local/ns/ops/sa/other");
        let abroad = header("URI=spiffe://other.example/ns/ops/sa/admin");
        for local in [true, false] {
            let sidecar = from("127.0.0.6", local, None);
            assert_eq!(judged(&options, &sidecar, &[HOST, admin]), "ok");
            assert_eq!(judged(&options, &sidecar, &[HOST, other]), "not_listed");
            assert_eq!(judged(&options, &sidecar, &[HOST, abroad]), "other_trust_domain");
            assert_eq!(judged(&options, &sidecar, &[HOST]), "no_xfcc");
            assert_eq!(judged(&options, &sidecar, &[HOST, admin, admin]), "invalid_xfcc");
        }
        assert_eq!(judged(&options, &from("10.0.0.1", false, None), &[HOST, admin]), "not_from_sidecar");
        assert_eq!(judged(&options, &from("127.0.0.1", true, None), &[HOST, admin]), "proxied");
    }
}
