//! A sidecar that ends mutual TLS, and says who calls. It calls from 127.0.0.6 as Istio's does.

use tidegate::transport::{Security, SidecarOptions};
use tidegate_proto::v1::policy_distribution_client::PolicyDistributionClient;
use tidegate_proto::v1::subscribe_request::Message as Up;
use tonic::{Code, Request};

use super::*;

const SIDECAR: &str = "127.0.0.6";

fn behind_sidecar(socket: Option<PathBuf>) -> TransportOptions {
    let sidecar = SidecarOptions { socket, ..SidecarOptions::default() };
    TransportOptions {
        trust_domains: vec!["prod.example".into()],
        ..TransportOptions::new(Security::Sidecar(sidecar))
    }
}

/// Subscribes with these `x-forwarded-client-cert` headers.
pub async fn subscribe(channel: Channel, xfcc: &[String], workload: &str) -> Result<Filter, tonic::Status> {
    let mut client = PolicyDistributionClient::new(channel);
    let (up, requests) = tokio::sync::mpsc::channel(16);
    up.send(pb::SubscribeRequest { message: Some(Up::Hello(hello(workload))) }).await.unwrap();
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(requests));
    for value in xfcc {
        request.metadata_mut().append("x-forwarded-client-cert", value.parse().unwrap());
    }
    let down = client.subscribe(request).await?.into_inner();
    Ok(Filter::of(up, down))
}

fn xfcc(id: &str) -> String {
    format!("By=spiffe://prod.example/ns/tidegate-system/sa/tidegate;Hash=ab12;Subject=\"\";URI={id}")
}

#[tokio::test]
async fn what_the_sidecar_says_counts_and_only_its_last_word() {
    let place = Guarded::new().place;
    let running = ready(Options { transport: behind_sidecar(None), ..place.options() }).await;
    let ask = async |headers: &[String], workload: &str| {
        outcome(subscribe(plain_from(SIDECAR, running.grpc_addr).await, headers, workload).await).await
    };
    assert_eq!(ask(&[xfcc(ORDERS)], WORKLOAD).await.as_deref(), Ok(WORKLOAD));
    let appended = format!("URI={LEDGER},{}", xfcc(ORDERS));
    assert_eq!(ask(&[appended], WORKLOAD).await.as_deref(), Ok(WORKLOAD));
    // What the client sent comes first.
    let forged = format!("{},{}", xfcc(ORDERS), xfcc(LEDGER));
    assert_eq!(ask(std::slice::from_ref(&forged), WORKLOAD).await, Err(Code::PermissionDenied));
    assert_eq!(ask(&[forged], "sales/ledger").await.as_deref(), Ok("sales/ledger"));
    for headers in [
        vec![],
        vec![String::new()],
        vec![xfcc(ORDERS), xfcc(ORDERS)],
        vec![format!("{};URI={LEDGER}", xfcc(ORDERS))],
        vec![format!("{},Hash=ab", xfcc(ORDERS))],
        vec![format!("{};DNS=\",{}", xfcc(ORDERS), xfcc(LEDGER))],
        vec![xfcc("spiffe://other.example/ns/sales/sa/orders")],
        vec![xfcc("https://orders.example")],
    ] {
        assert_eq!(ask(&headers, WORKLOAD).await, Err(Code::Unauthenticated), "{headers:?}");
    }
    assert_eq!(metric(&running, "tidegate_refused_streams_total{reason=\"no_xfcc\"}").await, 1);
    assert_eq!(metric(&running, "tidegate_refused_streams_total{reason=\"other_trust_domain\"}").await, 1);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn nobody_but_the_sidecar_is_believed() {
    let place = Guarded::new().place;
    let running = ready(Options { transport: behind_sidecar(None), ..place.options() }).await;
    for from in ["127.0.0.1", "127.0.0.5", "127.0.0.7"] {
        let filter = subscribe(plain_from(from, running.grpc_addr).await, &[xfcc(ORDERS)], WORKLOAD).await;
        assert!(filter.is_err(), "{from}");
    }
    until_metric(&running, "tidegate_refused_connections_total{reason=\"not_from_sidecar\"}", 3).await;
    assert_eq!(metric(&running, "tidegate_pushes_total").await, 0);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn another_address_of_the_sidecar_takes_the_place_of_the_usual_one() {
    let place = Guarded::new().place;
    let mut transport = behind_sidecar(None);
    let from = vec!["127.0.0.9".parse().unwrap()];
    transport.security = Security::Sidecar(SidecarOptions { from, socket: None });
    let running = ready(Options { transport, ..place.options() }).await;
    for (from, is_served) in [("127.0.0.9", true), (SIDECAR, false)] {
        let filter = subscribe(plain_from(from, running.grpc_addr).await, &[xfcc(ORDERS)], WORKLOAD).await;
        assert_eq!(filter.is_ok(), is_served, "{from}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_sidecar_may_use_a_unix_socket() {
    let place = Guarded::new().place;
    let path = place.folder.path().join("filters.sock");
    let options = Options { transport: behind_sidecar(Some(path.clone())), ..place.options() };
    // What an earlier process has left is no hindrance; what another one still uses is.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let running = ready(options.clone()).await;
    let state = place.folder.path().join("other-state");
    let second = start(Options { state, ..options }).await;
    assert!(second.unwrap_err().to_string().contains("--sidecar-socket"));
    let ask = async |headers: &[String]| {
        let path = path.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://tidegate");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        outcome(subscribe(channel, headers, WORKLOAD).await).await
    };
    assert_eq!(ask(&[xfcc(ORDERS)]).await.as_deref(), Ok(WORKLOAD));
    assert_eq!(ask(&[]).await, Err(Code::Unauthenticated));
    assert_eq!(ask(&[xfcc(LEDGER)]).await, Err(Code::PermissionDenied));
    running.shutdown().await.unwrap();
}
