//! What callers do to get past the filter, and what filters do to get what is not theirs; on real Envoys, with inbound
//! listeners shaped like Istio's and mutual TLS everywhere.
//!
//! Every attempt that must fail stands beside one that differs in one thing and works.

mod mesh;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use tidegate::demo::client::{Call, CallError, Endpoint, Protocol};
use tidegate::demo::envoy::{Envoy, EnvoyOptions, EnvoyRelease};
use tidegate::demo::mesh::{
    CONTROL_PLANE, Cluster, HttpListener, Listener, Node, ProxyConfig, Tcp, UpstreamProtocol, UpstreamTls,
    sds_secrets,
};
use tidegate::demo::pki::{Authority, CertificateSpec, Credential};
use tidegate::transport::{Security, SidecarOptions, TransportOptions};
use tidegate_proto::v1 as pb;

use mesh::*;

/// The oldest that the filter supports, and the one that most tests use.
const BOTH: [EnvoyRelease; 2] = [EnvoyRelease::Current, EnvoyRelease::Oldest];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_past_the_filter() -> Result<()> {
    for release in BOTH {
        nobody_gets_past(release).await.with_context(|| format!("{release:?}"))?;
    }
    Ok(())
}

async fn nobody_gets_past(release: EnvoyRelease) -> Result<()> {
    let mesh = Mesh::mutual(release).await?;
    println!("Envoy {}", mesh.binary.version);
    let tls = mesh.tls(ORDERS_ID)?;
    let envoy = mesh.service("service", "sales/orders-api", mesh.direct(tls)).await?;
    mesh.until(&envoy, "/first", 200).await?;
    let caller = mesh.authority.workload(CALLER_ID)?;
    connections_that_say_they_are_not_http(&mesh, &envoy, &caller).await?;
    certificates_of_others(&mesh, &envoy).await?;
    headers_of_others(&mesh, &envoy, &caller).await?;
    ensure!(mesh.connected("sales/orders-api") == 2, "the worker's and the main thread's VM are connected");
    Ok(())
}

async fn connections_that_say_they_are_not_http(
    mesh: &Mesh,
    envoy: &Envoy,
    caller: &Credential,
) -> Result<()> {
    let attempt = async |listener: &str, alpn: &[&str], protocol, path: &str| -> Result<Option<u16>> {
        let before = mesh.upstream.requests();
        let endpoint = mesh.endpoint(envoy, listener, caller)?.with_alpn(alpn);
        match endpoint.call(protocol, get(path)).await {
            Ok(answer) => Ok(Some(answer.status.as_u16())),
            Err(CallError::Broken { .. } | CallError::Handshake { .. }) => {
                ensure!(
                    mesh.upstream.requests() == before,
                    "{listener} {alpn:?}: it reached the application"
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    };
    for listener in ["declared", "undeclared", "unfenced", "tcp-port"] {
        // As sidecars say it, as gateways and programs do: HTTP, which is decided.
        for (alpn, protocol) in [
            (&["istio-h2", "h2"][..], Protocol::Http2),
            (&["istio-http/1.1", "http/1.1"][..], Protocol::Http1),
            (&["h2", "http/1.1"][..], Protocol::Http2),
            (&["http/1.1"][..], Protocol::Http1),
        ] {
            for (path, expected) in [("/first", 200), ("/second", 403)] {
                let status = attempt(listener, alpn, protocol, path).await?;
                ensure!(status == Some(expected), "{listener} {alpn:?} {path}: {status:?}");
            }
        }
        // The same requests over connections that are not HTTP to Istio: past every HTTP filter. What is fenced is closed;
        // without a fence, or where TCP is allowed, they get to the application unasked.
        for alpn in
            [&[][..], &["istio"][..], &["istio-peer-exchange", "istio"][..], &["foo"][..], &["HTTP/1.1"][..]]
        {
            for protocol in [Protocol::Http1, Protocol::Http2] {
                let status = attempt(listener, alpn, protocol, "/second").await?;
                let expected = if matches!(listener, "declared" | "undeclared") { None } else { Some(200) };
                ensure!(status == expected, "{listener} {alpn:?} {protocol:?}: {status:?}");
            }
        }
    }
    Ok(())
}

/// The same id, from other authorities.
async fn certificates_of_others(mesh: &Mesh, envoy: &Envoy) -> Result<()> {
    let foreign = Authority::new("mesh")?;
    let alike = [
        ("another authority of the same name", foreign.workload(CALLER_ID)?),
        (
            "a certificate that a workload's key signed",
            foreign.issue(&CertificateSpec {
                uris: vec![CALLER_ID.to_owned()],
                common_name: Some("mesh".to_owned()),
                ..CertificateSpec::default()
            })?,
        ),
    ];
    for listener in ["declared", "undeclared"] {
        for (what, credential) in &alike {
            for alpn in [&["istio-h2", "h2"][..], &["h2"][..], &[][..]] {
                let endpoint = mesh.endpoint(envoy, listener, credential)?.with_alpn(alpn);
                let before = mesh.upstream.requests();
                let answer = endpoint.call(Protocol::Http2, get("/first")).await;
                ensure!(
                    answer.is_err() && mesh.upstream.requests() == before,
                    "{listener}: {what}: {answer:?}"
                );
            }
        }
        let none = Endpoint::mesh(envoy.address(listener)?, mesh.authority.pem());
        ensure!(
            none.call(Protocol::Http2, get("/first")).await.is_err(),
            "{listener}: without a certificate"
        );
        let own = mesh.endpoint(envoy, listener, &mesh.authority.workload(CALLER_ID)?)?;
        ensure!(own.call(Protocol::Http2, get("/first")).await?.status == 200, "{listener}: the mesh's own");
    }
    Ok(())
}

async fn headers_of_others(mesh: &Mesh, envoy: &Envoy, caller: &Credential) -> Result<()> {
    let stranger = mesh.authority.workload(STRANGER_ID)?;
    let forged = format!("By={ORDERS_ID};Hash=ab;Subject=\"\";URI={CALLER_ID}");
    for (name, value) in [
        ("x-forwarded-client-cert", forged.as_str()),
        ("x-tidegate-peer", CALLER_ID),
        ("x-tidegate-decision", "allow"),
        ("x-tidegate-interlock", "secret"),
        ("x-envoy-peer-metadata", "abc"),
    ] {
        for listener in ["declared", "undeclared"] {
            let call = || get("/first").header(name, value);
            let endpoint = mesh.endpoint(envoy, listener, &stranger)?;
            let status = endpoint.call(Protocol::Http2, call()).await?.status;
            ensure!(status == 403, "{listener} {name}: a stranger got {status}");
            // Nor does it harm whom it names, or reach the application where it is ours.
            let answer = mesh.endpoint(envoy, listener, caller)?.call(Protocol::Http2, call()).await?;
            ensure!(answer.status == 200, "{listener} {name}: the caller got {}", answer.status);
            let ours = received(&answer, "x-tidegate-")?;
            ensure!(
                !ours.iter().any(|found| found == value),
                "{listener} {name}: {ours:?} reached the application"
            );
            if name == "x-forwarded-client-cert" {
                let stated = received(&answer, name)?.concat();
                let last = stated.rsplit(',').next().unwrap_or_default().to_owned();
                ensure!(last.contains(&format!("URI={CALLER_ID}")), "{stated}");
            }
        }
    }
    Ok(())
}

/// What a filter is configured to be is not what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_gets_its_own_rules_only() -> Result<()> {
    for release in BOTH {
        its_own_rules_only(release).await.with_context(|| format!("{release:?}"))?;
    }
    Ok(())
}

async fn its_own_rules_only(release: EnvoyRelease) -> Result<()> {
    let mesh = Mesh::mutual(release).await?;
    let greedy = mesh.service("greedy", "sales/ledger", mesh.direct(mesh.tls(ORDERS_ID)?)).await?;
    let foreign_tls = UpstreamTls {
        credential: Some(Authority::new("mesh")?.workload(ORDERS_ID)?),
        ..mesh.tls(ORDERS_ID)?
    };
    let foreign = mesh.service("foreign", "sales/orders-api", mesh.direct(foreign_tls)).await?;
    let own = mesh.service("own", "sales/orders-api", mesh.direct(mesh.tls(ORDERS_ID)?)).await?;
    mesh.until(&own, "/first", 200).await?;
    let begin = Instant::now();
    while mesh.metric("tidegate_refused_streams_total{reason=\"not_its_own\"}").await? < 6
        || mesh.metric("tidegate_refused_connections_total{reason=\"unknown_authority\"}").await? < 2
    {
        ensure!(begin.elapsed() < PATIENCE, "the others did not try again\n{}", greedy.log_tail(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // No rules are no permission.
    for path in ["/first", "/second", "/"] {
        ensure!(mesh.get(&greedy, path).await? == 503, "{path}: without rules");
        ensure!(mesh.get(&foreign, path).await? == 503, "{path}: without rules");
    }
    ensure!(mesh.connected("sales/ledger") == 0, "a Bundle of sales/ledger went to sales/orders-api");
    ensure!(mesh.connected("sales/orders-api") == 2, "one proxy of sales/orders-api is connected");
    let refused: u64 = greedy.stats("tidegate_streams_refused_total").await?.values().sum();
    ensure!(refused >= 6, "refusals are counted: {refused}");
    ensure!(
        greedy.log_tail(200).contains("may not have the Bundle"),
        "the log says why\n{}",
        greedy.log_tail(50)
    );
    Ok(())
}

/// Every certificate and the authority are replaced while streams are open and requests flow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_rotated_while_streams_are_open() -> Result<()> {
    for release in BOTH {
        certificates_are_rotated(release).await.with_context(|| format!("{release:?}"))?;
    }
    Ok(())
}

async fn certificates_are_rotated(release: EnvoyRelease) -> Result<()> {
    let mesh = Mesh::start(release, |folder| TransportOptions {
        max_connection_age: Duration::from_secs(3),
        ..TransportOptions::mutual(identity(folder), "prod.example")
    })
    .await?;
    let secrets = mesh.folder.path().join("secrets");
    std::fs::create_dir(&secrets)?;
    let put = |credential: &Credential, authorities: &str| -> Result<()> {
        for (name, text) in sds_secrets(credential, authorities) {
            let staged = mesh.folder.path().join(name);
            std::fs::write(&staged, text)?;
            std::fs::rename(staged, secrets.join(name))?;
        }
        Ok(())
    };
    let short = |authority: &Authority| {
        authority.issue(&CertificateSpec {
            uris: vec![ORDERS_ID.to_owned()],
            valid_for: Some(Duration::from_secs(3_600)),
            ..CertificateSpec::default()
        })
    };
    put(&short(&mesh.authority)?, mesh.authority.pem())?;
    let tls = UpstreamTls { secrets: Some(secrets.clone()), ..mesh.tls(ORDERS_ID)? };
    let envoy = mesh.service("service", "sales/orders-api", mesh.direct(tls)).await?;
    mesh.until(&envoy, "/first", 200).await?;

    // Both authorities, then the new certificates, then the new authority alone.
    let new = Authority::new("mesh-2")?;
    let both = format!("{}{}", mesh.authority.pem(), new.pem());
    let folder = mesh.folder.path();
    let steps = [
        (mesh.authority.workload(SERVER_ID)?, short(&mesh.authority)?, both.as_str()),
        (new.workload(SERVER_ID)?, short(&new)?, both.as_str()),
        (new.workload(SERVER_ID)?, short(&new)?, new.pem()),
    ];
    let mut path = "/first".to_owned();
    for (step, (server, client, authorities)) in steps.iter().enumerate() {
        write_identity(folder, server, authorities)?;
        put(client, authorities)?;
        let taken = "tidegate_certificate_reloads_total{reason=\"taken\"}";
        let begin = Instant::now();
        // Until every connection is a new one.
        while begin.elapsed() < Duration::from_secs(4) || mesh.metric(taken).await? < u64::try_from(step)? + 1
        {
            ensure!(mesh.get(&envoy, &path).await? == 200, "step {step}: {path} was allowed");
            ensure!(begin.elapsed() < PATIENCE, "step {step}: the files are not taken");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        path = format!("/step-{step}");
        std::fs::write(folder.join("rules").join("rules.yaml"), rules(&path))?;
        mesh.until(&envoy, &path, 200).await.with_context(|| format!("step {step}"))?;
    }
    // What the old authority issued is worth nothing any more.
    put(&short(&mesh.authority)?, new.pem())?;
    let refused = "tidegate_refused_connections_total{reason=\"unknown_authority\"}";
    let begin = Instant::now();
    while mesh.metric(refused).await? == 0 {
        ensure!(begin.elapsed() < PATIENCE, "a certificate of the old authority is still taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(mesh.get(&envoy, &path).await? == 200, "what is enforced stays");
    put(&short(&new)?, new.pem())?;
    std::fs::write(folder.join("rules").join("rules.yaml"), rules("/last"))?;
    mesh.until(&envoy, "/last", 200).await.context("after the way back")
}

/// The control plane behind a sidecar: a real one, whose listener is Istio's, and which calls from 127.0.0.6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_sidecar_everybody_gets_their_own() -> Result<()> {
    for release in BOTH {
        behind_a_sidecar(release).await.with_context(|| format!("{release:?}"))?;
    }
    Ok(())
}

async fn behind_a_sidecar(release: EnvoyRelease) -> Result<()> {
    let mesh = Mesh::start(release, |_| TransportOptions {
        trust_domains: vec!["prod.example".into()],
        ..TransportOptions::new(Security::Sidecar(SidecarOptions::default()))
    })
    .await?;
    let application = Cluster::new("application", mesh.server.grpc_addr)
        .protocol(UpstreamProtocol::Http2)
        .from_address("127.0.0.6".parse()?);
    let config = ProxyConfig::new(Node::new("tidegate-system", "tidegate", "tidegate"))
        .listener(
            Listener::istio("grpc", HttpListener::forward_to("application"), Tcp::Fenced)
                .tls(mesh.mutual_listener(SERVER_ID)?),
        )
        .cluster(application);
    let options = EnvoyOptions { concurrency: 1, ..EnvoyOptions::default() };
    let sidecar = Envoy::start(&mesh.binary, "sidecar", &config.to_json(), &options).await?;
    let through = |id: &str| -> Result<Cluster> {
        let address = sidecar.address("grpc")?;
        Ok(Cluster::new(CONTROL_PLANE, address).protocol(UpstreamProtocol::Http2).tls(mesh.tls(id)?))
    };
    let own = mesh.service("own", "sales/orders-api", through(ORDERS_ID)?).await?;
    let greedy = mesh.service("greedy", "sales/ledger", through(ORDERS_ID)?).await?;
    mesh.until(&own, "/first", 200).await?;
    let begin = Instant::now();
    while mesh.metric("tidegate_refused_streams_total{reason=\"not_its_own\"}").await? < 4 {
        ensure!(begin.elapsed() < PATIENCE, "it did not try\n{}", greedy.log_tail(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(mesh.get(&greedy, "/first").await? == 503, "without rules");

    // A program of the mesh that writes the header itself, and one that calls past the sidecar.
    let hello = pb::SubscribeRequest {
        message: Some(pb::subscribe_request::Message::Hello(pb::Hello {
            protocol_version: 1,
            workload: Some(pb::WorkloadHint { workload: "sales/ledger".into(), instance: "pod".into() }),
            ..pb::Hello::default()
        })),
    };
    let subscribe = |xfcc: Option<&str>| {
        let call = Call::grpc("/tidegate.v1.PolicyDistribution/Subscribe", &hello.encode_to_vec());
        let call = call.authority(AUTHORITY);
        match xfcc {
            Some(xfcc) => call.header("x-forwarded-client-cert", xfcc),
            None => call,
        }
    };
    let as_whom = |id: &str| mesh.endpoint(&sidecar, "grpc", &mesh.authority.workload(id)?);
    let forged = format!("By={SERVER_ID};Hash=ab;Subject=\"\";URI={LEDGER_ID}");
    let unclosed = format!("URI={LEDGER_ID};Subject=\"");
    for (xfcc, wanted) in [(None, 7), (Some(forged.as_str()), 7), (Some(unclosed.as_str()), 16)] {
        let answer = as_whom(ORDERS_ID)?.call(Protocol::Http2, subscribe(xfcc)).await?;
        ensure!(
            answer.grpc_status() == Some(wanted),
            "{xfcc:?}: {:?} {:?}",
            answer.grpc_status(),
            answer.body
        );
        ensure!(answer.body.is_empty(), "{xfcc:?}: something was sent");
    }
    let answer = as_whom(LEDGER_ID)?.call(Protocol::Http2, subscribe(Some(&forged))).await?;
    ensure!(!answer.body.is_empty(), "its own: {:?}", answer.grpc_status());
    let past = Endpoint::plain(mesh.server.grpc_addr).call(Protocol::Http2, subscribe(Some(&forged))).await;
    ensure!(past.is_err(), "past the sidecar: {past:?}");
    Ok(())
}
