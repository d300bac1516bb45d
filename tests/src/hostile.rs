//! A control plane that lies: it serves what a test tells it to, and remembers what filters answer.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use tidegate_proto::v1::policy_distribution_server::{PolicyDistribution, PolicyDistributionServer};
use tidegate_proto::v1::subscribe_request::Message as Up;
use tidegate_proto::v1::{SubscribeRequest, SubscribeResponse};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// A server on loopback; dropping it stops it.
pub struct Hostile {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    /// Sent to everybody who subscribes.
    greeting: Mutex<Vec<SubscribeResponse>>,
    live: broadcast::Sender<SubscribeResponse>,
    received: Mutex<Vec<Up>>,
    authorities: Mutex<Vec<String>>,
}

struct Service(Arc<Shared>);

// === impl Hostile ===

impl Hostile {
    /// Starts one.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            greeting: Mutex::default(),
            live: broadcast::channel(64).0,
            received: Mutex::default(),
            authorities: Mutex::default(),
        });
        let service = PolicyDistributionServer::new(Service(Arc::clone(&shared)));
        let task = tokio::spawn(async move {
            let _ = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
        });
        Ok(Self { address, shared, task })
    }

    /// What everybody is sent who subscribes from now on.
    pub fn greet_with(&self, messages: Vec<SubscribeResponse>) {
        *self.shared.greeting.lock().expect("no holder panics") = messages;
    }

    /// Sends to everybody who is subscribed.
    pub fn send(&self, message: SubscribeResponse) {
        // Without subscribers there is nobody to hear it.
        let _ = self.shared.live.send(message);
    }

    /// Takes what has been received.
    pub fn received(&self) -> Vec<Up> {
        std::mem::take(&mut *self.shared.received.lock().expect("no holder panics"))
    }

    /// Authorities that streams were opened with.
    pub fn authorities(&self) -> Vec<String> {
        self.shared.authorities.lock().expect("no holder panics").clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl PolicyDistribution for Service {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let authority = request.extensions().get::<http::uri::Authority>().map(ToString::to_string);
        self.0.authorities.lock().expect("no holder panics").extend(authority);
        let mut requests = request.into_inner();
        let shared = Arc::clone(&self.0);
        let live = shared.live.subscribe();
        let greeting = shared.greeting.lock().expect("no holder panics").clone();
        tokio::spawn(async move {
            while let Ok(Some(SubscribeRequest { message: Some(message) })) = requests.message().await {
                shared.received.lock().expect("no holder panics").push(message);
            }
        });
        let live = tokio_stream::wrappers::BroadcastStream::new(live).filter_map(Result::ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(greeting).chain(live).map(Ok))))
    }
}
