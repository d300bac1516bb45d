//! Who may connect, as who, and how much they may use.

mod admin;
mod load;
mod mutual;
mod quotas;
mod rotation;
mod sidecar;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tidegate::demo::pki::{Authority, CertificateSpec, Credential};
use tidegate::serve::{Options, Running, start};
use tidegate::transport::{TlsOptions, TransportOptions};
use tidegate_proto::v1 as pb;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::fixture::*;

pub const ORDERS: &str = "spiffe://prod.example/ns/sales/sa/orders";
pub const LEDGER: &str = "spiffe://prod.example/ns/sales/sa/ledger";

/// A server that demands certificates of one authority.
pub struct Guarded {
    pub place: Place,
    pub authority: Authority,
    pub server: Credential,
}

impl Guarded {
    pub fn new() -> Self {
        let place = Place::new(&[("mesh.yaml", MESH), ("rule.yaml", &rule("a", "Allow", "/v1/first"))]);
        let authority = Authority::new("mesh").unwrap();
        let server = server_of(&authority);
        let guarded = Self { place, authority, server };
        guarded.write_files();
        guarded
    }

    /// What the server is to read.
    pub fn write_files(&self) {
        let files = self.files();
        std::fs::write(files.certificate, &self.server.chain_pem).unwrap();
        std::fs::write(files.key, &self.server.key_pem).unwrap();
        std::fs::write(files.authorities, self.authority.pem()).unwrap();
    }

    pub fn files(&self) -> TlsOptions {
        let at = |name: &str| -> PathBuf { self.place.folder.path().join(name) };
        TlsOptions { certificate: at("cert.pem"), key: at("key.pem"), authorities: at("ca.pem") }
    }

    pub fn transport(&self) -> TransportOptions {
        TransportOptions::mutual(self.files(), "prod.example")
    }

    pub async fn start(&self) -> Running {
        self.start_with(self.transport()).await
    }

    pub async fn start_with(&self, transport: TransportOptions) -> Running {
        ready(Options { transport, ..self.place.options() }).await
    }

    /// With a store of decisions.
    pub async fn start_with_store(&self) -> Running {
        self.start_with_store_and(self.transport()).await
    }

    pub async fn start_with_store_and(&self, transport: TransportOptions) -> Running {
        let decisions = tidegate::decisions::Options {
            folder: Some(self.place.state().join("decisions")),
            ..Default::default()
        };
        ready(Options { transport, decisions, ..self.place.options() }).await
    }

    pub async fn channel(&self, running: &Running, spec: &CertificateSpec) -> Result<Channel, String> {
        let credential = self.authority.issue(spec).unwrap();
        channel_with(running.grpc_addr, &client(self.authority.pem(), Some(&credential))).await
    }

    /// A filter that has this id in its certificate, and says that it is this workload.
    pub async fn filter(&self, running: &Running, id: &str, workload: &str) -> Result<Filter, tonic::Status> {
        let channel = self.channel(running, &named(id)).await.unwrap();
        Filter::over(channel, hello(workload)).await
    }
}

pub async fn ready(options: Options) -> Running {
    let mut running = start(options).await.unwrap();
    timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
    running
}

pub fn named(id: &str) -> CertificateSpec {
    CertificateSpec { uris: vec![id.to_owned()], ..CertificateSpec::default() }
}

pub fn server_of(authority: &Authority) -> Credential {
    authority
        .issue(&CertificateSpec {
            uris: vec!["spiffe://prod.example/ns/tidegate-system/sa/tidegate".to_owned()],
            dns_names: vec!["localhost".to_owned()],
            ..CertificateSpec::default()
        })
        .unwrap()
}

pub fn client(authority: &str, credential: Option<&Credential>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => {
            let chain = CertificateDer::pem_slice_iter(credential.chain_pem.as_bytes()).map(Result::unwrap);
            let key = PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.collect(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub async fn tls(address: SocketAddr, config: &ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], address.port()))).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config.clone())).connect(name, stream).await
}

/// A connection for gRPC. TLS 1.3 servers refuse a certificate after the client's part of the handshake is over, so it is
/// tried whether the connection is of use.
pub async fn channel_with(address: SocketAddr, config: &ClientConfig) -> Result<Channel, String> {
    let config = config.clone();
    let connector = tower::service_fn(move |_| {
        let config = config.clone();
        async move { tls(address, &config).await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://tidegate").connect_timeout(PATIENCE);
    endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))
}

/// A connection in plain text, from this address of the machine.
pub async fn plain_from(from: &str, to: SocketAddr) -> Channel {
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    let connector = tower::service_fn(move |_| async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind(from)?;
        socket.connect(to).await.map(hyper_util::rt::TokioIo::new)
    });
    tonic::transport::Endpoint::from_static("http://tidegate").connect_with_connector_lazy(connector)
}

/// The metric's value; 0 where it is not there.
pub async fn metric(running: &Running, name: &str) -> u64 {
    let (status, text) = get(running, "/metrics").await;
    assert_eq!(status, 200, "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

pub async fn until_metric(running: &Running, name: &str, wanted: u64) {
    for _ in 0..500 {
        if metric(running, name).await >= wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} stays {}, {wanted} is wanted", metric(running, name).await);
}

/// What a filter gets, or how it is refused.
pub async fn outcome(filter: Result<Filter, tonic::Status>) -> Result<String, tonic::Code> {
    let mut filter = filter.map_err(|status| status.code())?;
    match filter.message().await {
        Ok(Some(pb::subscribe_response::Message::Push(push))) => {
            let manifest = push.manifest.unwrap().manifest;
            Ok(<pb::Manifest as prost::Message>::decode(manifest.as_slice()).unwrap().audience)
        }
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(status.code()),
    }
}
