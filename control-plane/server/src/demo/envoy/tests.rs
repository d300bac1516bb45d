use super::super::mesh::{Listener, ProxyConfig};
use super::super::upstream::Upstream;
use super::*;
use crate::demo::mesh::{Cluster, HttpListener, Node};

async fn binary() -> EnvoyBinary {
    find_envoy(EnvoyRelease::Current, None).await.unwrap()
}

fn forwarding_to(upstream: SocketAddr) -> Value {
    ProxyConfig::new(Node::new("orders", "orders-api", "orders"))
        .listener(Listener::http("first", HttpListener::forward_to("upstream")))
        .listener(Listener::tcp("second", "upstream"))
        .cluster(Cluster::new("upstream", upstream))
        .to_json()
}

#[tokio::test]
async fn starts_ready_on_ports_of_its_own_and_leaves_nothing_behind() {
    let upstream = Upstream::start().await.unwrap();
    let config = forwarding_to(upstream.address());
    let envoy = Envoy::start(&binary().await, "one", &config, &EnvoyOptions::default()).await.unwrap();
    let (first, second) = (envoy.address("first").unwrap(), envoy.address("second").unwrap());
    assert_ne!(first.port(), 0);
    assert_ne!(first, second);
    for address in [first, second] {
        let call = Call::new(http::Method::GET, "/v1/orders/7");
        let answer = Endpoint::plain(address).call(Protocol::Http1, call).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json().unwrap()["path"], "/v1/orders/7");
    }
    assert_eq!(
        envoy.stats("^http.first.downstream_rq_total$").await.unwrap().values().copied().sum::<u64>(),
        1
    );

    let (pid, directory) = (envoy.pid(), envoy.log_path().parent().unwrap().to_owned());
    assert!(directory.exists());
    drop(envoy);
    assert!(!directory.exists());
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    assert!(rustix::process::test_kill_process(pid).is_err(), "the process is still there");
    assert!(std::net::TcpStream::connect(first).is_err(), "the port is still open");
}

#[tokio::test]
async fn two_run_side_by_side_and_stop_in_order() {
    let upstream = Upstream::start().await.unwrap();
    let (binary, config) = (binary().await, forwarding_to(upstream.address()));
    let options = EnvoyOptions::default();
    let (one, two) = tokio::join!(
        Envoy::start(&binary, "one", &config, &options),
        Envoy::start(&binary, "two", &config, &options)
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.address("first").unwrap(), two.address("first").unwrap());
    assert!(one.stop().await.unwrap().success());
    assert!(two.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_refused_configuration_is_an_error_with_the_end_of_the_log() {
    let config = json!({"static_resources": {"listeners": [{"nme": "x"}]}});
    let error = Envoy::start(&binary().await, "bad", &config, &EnvoyOptions::default()).await.unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("Envoy `bad` ended with exit status: 1 before it was ready"), "{message}");
    assert!(message.contains("nme"), "{message}");
}

#[tokio::test]
async fn not_being_ready_in_time_is_an_error_with_the_end_of_the_log() {
    let upstream = Upstream::start().await.unwrap();
    let options = EnvoyOptions { ready_within: Duration::ZERO, ..EnvoyOptions::default() };
    let error = Envoy::start(&binary().await, "slow", &forwarding_to(upstream.address()), &options)
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("Envoy `slow` was not ready within 0 s"), "{message}");
}

#[tokio::test]
async fn an_unknown_listener_is_an_error_that_names_the_known_ones() {
    let upstream = Upstream::start().await.unwrap();
    let config = forwarding_to(upstream.address());
    let envoy = Envoy::start(&binary().await, "one", &config, &EnvoyOptions::default()).await.unwrap();
    let message = envoy.address("third").unwrap_err().to_string();
    assert_eq!(message, r#"Envoy `one` has no listener `third`; it has ["first", "second"]"#);
}

#[test]
fn splits_the_log_level_by_component() {
    assert_eq!(log_level_arguments("info"), ["--log-level", "info"]);
    assert_eq!(
        log_level_arguments("info,wasm:debug"),
        ["--log-level", "info", "--component-log-level", "wasm:debug"]
    );
}
