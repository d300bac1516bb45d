//! A rules folder, a server on free ports, and a filter that speaks the wire contract.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::serve::{Options, Running, ServeError, start};
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::policy_distribution_client::PolicyDistributionClient;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

pub const WORKLOAD: &str = "sales/orders";

/// Longer than anything takes; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const MESH: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}
  - {namespace: sales, name: ledger, labels: {app: ledger}, serviceAccount: ledger}
  gateways:
  - {namespace: ingress, name: dataflow-in, labels: {gateway: dataflow-in}, serviceAccount: dataflow-in}
---
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.sales.example"}
"#;

/// A rule for `sales/orders` that lets one namespace use one path.
pub fn rule(name: &str, effect: &str, path: &str) -> String {
    format!(
        r#"
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {{name: {name}, namespace: sales}}
spec:
  owner: billing
  target: {{selector: {{matchLabels: {{app: orders}}}}}}
  effect: {effect}
  mode: Enforce
  from: [{{peer: {{namespace: etl}}}}]
  to: [{{http: {{methods: [POST], paths: ["{path}"]}}}}]
"#
    )
}

/// A rule that only lets in workers of a Dataflow job.
pub const DATAFLOW_RULE: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: "https://accounts.google.com", pack: google, keys: {jwksUri: "https://keys.invalid/certs"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: dataflow, namespace: sales}
spec:
  owner: billing
  target: {selector: {matchLabels: {app: orders}}}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: google, dataflowJob: {name: orders-etl, project: acme, region: europe-west4}}]
  to: [{http: {methods: [POST], paths: ["/v1/dataflow"]}}]
"#;

pub struct Place {
    pub folder: TempDir,
}

impl Place {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.rules()).unwrap();
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    pub fn rules(&self) -> std::path::PathBuf {
        self.folder.path().join("rules")
    }

    pub fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("state")
    }

    /// Replaces a file as careful programs do.
    pub fn write(&self, name: &str, text: &str) {
        let staged = self.folder.path().join("staged");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, self.rules().join(name)).unwrap();
    }

    pub fn candidate(&self) -> std::path::PathBuf {
        self.folder.path().join("candidate")
    }

    pub fn write_candidate(&self, name: &str, text: &str) {
        let staged = self.folder.path().join("staged");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, self.candidate().join(name)).unwrap();
    }

    pub fn delete(&self, name: &str) {
        std::fs::remove_file(self.rules().join(name)).unwrap();
    }

    pub fn options(&self) -> Options {
        Options {
            rules: self.rules().into(),
            candidate: None,
            state: self.state(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            modules: None,
            secrets: None,
            directory: None,
            directories: Default::default(),
            environment: None,
            issuer_ca: vec![],
            allow_issuer_loopback: false,
            allow_issuer_networks: vec![],
            decisions: Default::default(),
            transport: tidegate::transport::TransportOptions::insecure(),
            export: None,
        }
    }

    pub async fn try_start(&self) -> Result<Running, ServeError> {
        start(self.options()).await
    }

    pub async fn start(&self) -> Running {
        let mut running = self.try_start().await.unwrap();
        timeout(PATIENCE, running.ready()).await.expect("ready in time").unwrap();
        running
    }
}

/// What a filter does on its stream.
pub struct Filter {
    up: mpsc::Sender<pb::SubscribeRequest>,
    down: Streaming<pb::SubscribeResponse>,
}

/// A push with its sections put together.
#[derive(Debug)]
pub struct Received {
    pub push: pb::Push,
    pub manifest: pb::Manifest,
    /// By digest.
    pub sections: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub fn hello(workload: &str) -> pb::Hello {
    pb::Hello {
        protocol_version: 1,
        filter_version: "test".into(),
        workload: Some(pb::WorkloadHint { workload: workload.into(), instance: "pod-1".into() }),
        vm: Some(pb::VmId { instance: "pod-1".into(), generation: 7 }),
        ..Default::default()
    }
}

pub async fn channel(address: &str) -> tonic::transport::Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

impl Filter {
    pub async fn connect(running: &Running, hello: pb::Hello) -> Self {
        Self::connect_to(&running.grpc_addr.to_string(), hello).await
    }

    pub async fn connect_to(address: &str, hello: pb::Hello) -> Self {
        Self::over(channel(address).await, hello).await.unwrap()
    }

    /// On a connection that is there.
    pub async fn over(channel: tonic::transport::Channel, hello: pb::Hello) -> Result<Self, Status> {
        let mut client = PolicyDistributionClient::new(channel);
        let (up, requests) = mpsc::channel(16);
        up.send(pb::SubscribeRequest { message: Some(Up::Hello(hello)) }).await.unwrap();
        let down = client.subscribe(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// A stream that was opened elsewhere.
    pub fn of(up: mpsc::Sender<pb::SubscribeRequest>, down: Streaming<pb::SubscribeResponse>) -> Self {
        Self { up, down }
    }

    /// Sends, if the stream is still there.
    pub async fn try_send(&self, message: Up) {
        let _ = self.up.send(pb::SubscribeRequest { message: Some(message) }).await;
    }

    pub async fn send(&self, message: Up) {
        self.up.send(pb::SubscribeRequest { message: Some(message) }).await.unwrap();
    }

    /// The next message that says something.
    pub async fn message(&mut self) -> Result<Option<Down>, Status> {
        loop {
            match self.any_message().await? {
                Some(pb::SubscribeResponse { message: None }) => {}
                Some(pb::SubscribeResponse { message }) => return Ok(message),
                None => return Ok(None),
            }
        }
    }

    /// The next message, however long it takes.
    pub async fn message_at_any_time(&mut self) -> Result<Option<Down>, Status> {
        loop {
            match self.down.message().await? {
                Some(pb::SubscribeResponse { message: None }) => {}
                Some(pb::SubscribeResponse { message }) => return Ok(message),
                None => return Ok(None),
            }
        }
    }

    pub async fn any_message(&mut self) -> Result<Option<pb::SubscribeResponse>, Status> {
        timeout(PATIENCE, self.down.message()).await.expect("an answer in time")
    }

    pub async fn receive(&mut self) -> Received {
        let Some(Down::Push(push)) = self.message().await.unwrap() else { panic!("a push is expected") };
        let manifest: pb::Manifest =
            prost::Message::decode(push.manifest.as_ref().unwrap().manifest.as_slice()).unwrap();
        let mut sections = BTreeMap::<_, Vec<u8>>::new();
        let mut missing = push.chunk_bytes;
        while missing > 0 {
            let Some(Down::Chunk(chunk)) = self.message().await.unwrap() else {
                panic!("a chunk is expected")
            };
            missing -= chunk.content.len() as u64;
            sections.entry(chunk.sha256).or_default().extend(chunk.content);
        }
        for (digest, content) in &sections {
            assert_eq!(digest[..], tidegate::bundle::sha256(content));
        }
        Received { push, manifest, sections }
    }

    pub async fn ack(&self, received: &Received) {
        let ack = pb::Ack { nonce: received.push.nonce, manifest_sha256: received.digest() };
        self.send(Up::Ack(ack)).await;
    }

    pub async fn nack(&self, received: &Received, reason: pb::NackReason, detail: &str) {
        let nack = pb::Nack { nonce: received.push.nonce, reason: reason.into(), detail: detail.into() };
        self.send(Up::Nack(nack)).await;
    }

    /// Receives and acknowledges.
    pub async fn install(&mut self) -> Received {
        let received = self.receive().await;
        self.ack(&received).await;
        received
    }

    /// Waits for the end of the stream.
    pub async fn end(&mut self) -> (Code, String) {
        match self.message().await {
            Ok(None) => (Code::Ok, String::new()),
            Ok(Some(message)) => panic!("{message:?}"),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    }

    pub async fn expect_silence(&mut self) {
        let message = timeout(Duration::from_millis(300), self.message()).await;
        assert!(message.is_err(), "{message:?}");
    }
}

impl Received {
    pub fn digest(&self) -> Vec<u8> {
        tidegate::bundle::sha256(&self.push.manifest.as_ref().unwrap().manifest).to_vec()
    }

    pub fn revision(&self) -> (u64, u64) {
        let revision = self.manifest.revision.unwrap();
        (revision.epoch, revision.counter)
    }

    pub fn named(&self) -> Vec<Vec<u8>> {
        self.manifest.sections.iter().map(|section| section.sha256.clone()).collect()
    }

    /// Whether the rules section mentions this text.
    pub fn rules_mention(&self, text: &str) -> bool {
        let digest = &self.manifest.sections[0].sha256;
        let rules = self.sections.get(digest).expect("the rules travelled");
        rules.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// Status and body of a GET at the admin interface.
pub async fn get(running: &Running, path: &str) -> (u16, String) {
    send(running, "GET", path, "", "").await
}

/// The same with another method, further headers and a body.
pub async fn send(running: &Running, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(running.admin_addr).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks again until the JSON at `path` is as wanted.
pub async fn get_until(running: &Running, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let ask = async {
        loop {
            let (status, body) = get(running, path).await;
            assert_eq!(status, 200, "{path}");
            last = serde_json::from_str(&body).unwrap();
            if is_wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, ask).await.is_err() {
        panic!("{path} stays {last:#}");
    }
    last
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
