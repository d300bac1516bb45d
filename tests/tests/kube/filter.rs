//! A filter that installs whatever it is pushed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prost::Message;
use tidegate_proto::v1 as pb;
use tidegate_proto::v1::policy_distribution_client::PolicyDistributionClient;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::subscribe_response::Message as Down;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Runs until dropped; connects again when its stream ends.
pub struct Filter {
    installed: Arc<Mutex<Vec<Installed>>>,
    since: Arc<Mutex<Vec<Instant>>>,
    streams: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

/// What a filter enforces.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    pub manifest: pb::Manifest,
    /// As it was signed.
    pub signed: pb::SignedManifest,
    pub sections: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Filter {
    pub fn start(address: std::net::SocketAddr, workload: &str, pod: &str) -> Self {
        let installed = Arc::<Mutex<Vec<Installed>>>::default();
        let (target, workload, pod) = (installed.clone(), workload.to_owned(), pod.to_owned());
        let streams = Arc::<AtomicUsize>::default();
        let count = streams.clone();
        let since = Arc::<Mutex<Vec<Instant>>>::default();
        let times = since.clone();
        let task = tokio::spawn(async move {
            loop {
                let _ = stream(address, &workload, &pod, (&target, &times), &count).await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        Self { installed, since, streams, task }
    }

    /// Whether what it enforces mentions this text.
    pub fn mentions(&self, text: &str) -> bool {
        self.installed.lock().unwrap().last().is_some_and(|installed| installed.mentions(text))
    }

    /// Whether it enforces something, and everything that it ever enforced mentions this text.
    pub fn always_mentioned(&self, text: &str) -> bool {
        let installed = self.installed.lock().unwrap();
        !installed.is_empty() && installed.iter().all(|installed| installed.mentions(text))
    }

    /// When it began to enforce something that mentions this text.
    pub fn mentions_since(&self, text: &str) -> Option<Instant> {
        let at = self.installed.lock().unwrap().iter().position(|installed| installed.mentions(text))?;
        self.since.lock().unwrap().get(at).copied()
    }

    /// How many streams it was given something on.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// What it enforces.
    pub fn enforced(&self) -> Option<Installed> {
        self.installed.lock().unwrap().last().cloned()
    }

    /// Epoch and counter of what it enforces.
    pub fn revision(&self) -> Option<(u64, u64)> {
        let installed = self.installed.lock().unwrap();
        let revision = installed.last()?.manifest.revision?;
        Some((revision.epoch, revision.counter))
    }
}

impl Installed {
    fn mentions(&self, text: &str) -> bool {
        let sections = self.manifest.sections.iter().filter_map(|section| self.sections.get(&section.sha256));
        sections
            .into_iter()
            .any(|section| section.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn stream(
    address: std::net::SocketAddr,
    workload: &str,
    pod: &str,
    (installed, since): (&Mutex<Vec<Installed>>, &Mutex<Vec<Instant>>),
    streams: &AtomicUsize,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
    let (up, requests) = mpsc::channel(16);
    let hello = pb::Hello {
        protocol_version: 1,
        filter_version: "test".into(),
        workload: Some(pb::WorkloadHint { workload: workload.into(), instance: pod.into() }),
        vm: Some(pb::VmId { instance: pod.into(), generation: 7 }),
        ..Default::default()
    };
    up.send(pb::SubscribeRequest { message: Some(Up::Hello(hello)) }).await?;
    let mut client = PolicyDistributionClient::new(channel);
    let mut down = client.subscribe(ReceiverStream::new(requests)).await?.into_inner();
    let mut sections = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    let mut push: Option<(pb::Push, u64)> = None;
    let mut is_counted = false;
    while let Some(message) = down.message().await? {
        match message.message {
            Some(Down::Push(next)) => {
                if !std::mem::replace(&mut is_counted, true) {
                    streams.fetch_add(1, Ordering::Relaxed);
                }
                let bytes = next.chunk_bytes;
                push = Some((next, bytes));
            }
            Some(Down::Chunk(chunk)) => {
                if let Some((_, missing)) = &mut push {
                    *missing -= u64::try_from(chunk.content.len())?;
                }
                sections.entry(chunk.sha256).or_default().extend(chunk.content);
            }
            _ => {}
        }
        if let Some((done, _)) = push.take_if(|(_, missing)| *missing == 0) {
            let signed = done.manifest.unwrap_or_default();
            let manifest = pb::Manifest::decode(signed.manifest.as_slice())?;
            let digest = tidegate::bundle::sha256(&signed.manifest).to_vec();
            since.lock().unwrap().push(Instant::now());
            installed.lock().unwrap().push(Installed { manifest, signed, sections: sections.clone() });
            let ack = pb::Ack { nonce: done.nonce, manifest_sha256: digest };
            up.send(pb::SubscribeRequest { message: Some(Up::Ack(ack)) }).await?;
        }
    }
    Ok(())
}
