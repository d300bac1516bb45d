//! Who may use the admin interface.

use tidegate::transport::{Security, SidecarOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;

const ADMIN: &str = "spiffe://prod.example/ns/ops/sa/admin";
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
const OTHERS: [&str; 8] = [
    "/metrics",
    "/fleet",
    "/diagnostics",
    "/issuers",
    "/usage",
    "/directories",
    "/bundle/sales/orders",
    "/nothing",
];

/// Status of a GET; 0 when there was no answer.
async fn status(stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> u16 {
    let mut stream = stream;
    let request = format!("GET {path} HTTP/1.1\r\nhost: tidegate\r\nconnection: close\r\n{headers}\r\n");
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn elsewhere_only_listed_principals_may_ask() {
    let guarded = Guarded::new();
    let transport = TransportOptions {
        admin_principals: vec![ADMIN.parse().unwrap()],
        probes: Some("127.0.0.1:0".parse().unwrap()),
        ..guarded.transport()
    };
    let admin = "0.0.0.0:0".parse().unwrap();
    let running = ready(Options { admin, transport, ..guarded.place.options() }).await;
    let ask = async |credential: Option<&Credential>, path: &str, headers: &str| {
        let mut config = client(guarded.authority.pem(), credential);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        match tls(running.admin_addr, &config).await {
            Ok(stream) => status(stream, path, headers).await,
            Err(_) => 0,
        }
    };
    let own = |id: &str| guarded.authority.issue(&named(id)).unwrap();
    let foreign = Authority::new("mesh").unwrap().issue(&named(ADMIN)).unwrap();
    let forged = format!("x-forwarded-client-cert: URI={ADMIN}\r\n");
    for path in PROBES {
        assert_eq!(ask(None, path, "").await, 200, "{path}");
    }
    for path in OTHERS {
        let expected = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(ask(Some(&own(ADMIN)), path, "").await, expected, "{path}");
        assert_eq!(ask(Some(&own(ORDERS)), path, "").await, 403, "{path}");
        assert_eq!(ask(None, path, "").await, 401, "{path}");
        assert_eq!(ask(None, path, &forged).await, 401, "{path}");
        assert_eq!(ask(Some(&foreign), path, "").await, 0, "{path}");
    }
    let plain = TcpStream::connect(("127.0.0.1", running.admin_addr.port())).await.unwrap();
    assert_eq!(status(plain, "/fleet", "").await, 0, "in plain text");
    let probes = running.probes_addr.unwrap();
    for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/fleet", 404)] {
        assert_eq!(status(TcpStream::connect(probes).await.unwrap(), path, "").await, expected, "{path}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn behind_a_sidecar_it_says_who_asks() {
    let guarded = Guarded::new();
    let transport = TransportOptions {
        admin_principals: vec![ADMIN.parse().unwrap()],
        trust_domains: vec!["prod.example".into()],
        ..TransportOptions::new(Security::Sidecar(SidecarOptions::default()))
    };
    let running = ready(Options { transport, ..guarded.place.options() }).await;
    let ask = async |from: &str, headers: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        status(socket.connect(running.admin_addr).await.unwrap(), "/fleet", headers).await
    };
    let says = |id: &str| format!("x-forwarded-client-cert: Hash=a;Subject=\"\";URI={id}\r\n");
    assert_eq!(ask("127.0.0.6", &says(ADMIN)).await, 200);
    assert_eq!(ask("127.0.0.6", &says(ORDERS)).await, 403);
    assert_eq!(ask("127.0.0.6", "").await, 401);
    assert_eq!(ask("127.0.0.1", &says(ADMIN)).await, 403, "not the sidecar");
    assert_eq!(ask("127.0.0.5", &says(ADMIN)).await, 401);
    assert_eq!(get(&running, "/fleet").await.0, 200, "a program on this machine");
    running.shutdown().await.unwrap();
}

/// As in a pod: every address is listened on, and `kubectl port-forward` comes by loopback.
#[tokio::test]
async fn behind_a_sidecar_loopback_is_this_machine_and_other_addresses_are_not() {
    let guarded = Guarded::new();
    let transport = TransportOptions::new(Security::Sidecar(SidecarOptions::default()));
    let admin = "0.0.0.0:0".parse().unwrap();
    let running = ready(Options { admin, transport, ..guarded.place.options() }).await;
    assert_eq!(get(&running, "/fleet").await.0, 200);
    // Not every machine has another address than loopback.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect("192.0.2.1:9").is_ok() {
        let own = probe.local_addr().unwrap().ip();
        let stream = TcpStream::connect((own, running.admin_addr.port())).await.unwrap();
        assert_eq!(status(stream, "/fleet", "").await, 401, "{own}");
        let stream = TcpStream::connect((own, running.admin_addr.port())).await.unwrap();
        assert_eq!(status(stream, "/healthz", "").await, 200, "{own}");
    }
    running.shutdown().await.unwrap();
}

/// The command line asks by TLS, as a principal on the list, and looks at whom it asks.
#[tokio::test(flavor = "multi_thread")]
async fn commands_prove_who_they_are_and_whom_they_ask() {
    let guarded = Guarded::new();
    let transport =
        TransportOptions { admin_principals: vec![ADMIN.parse().unwrap()], ..guarded.transport() };
    let admin = "0.0.0.0:0".parse().unwrap();
    let running = ready(Options { admin, transport, ..guarded.place.options() }).await;
    let at = |name: &str| guarded.place.folder.path().join(name).to_str().unwrap().to_owned();
    for (name, id) in [("admin", ADMIN), ("other", ORDERS)] {
        let credential = guarded.authority.issue(&named(id)).unwrap();
        std::fs::write(at(&format!("{name}.pem")), credential.chain_pem).unwrap();
        std::fs::write(at(&format!("{name}.key.pem")), credential.key_pem).unwrap();
    }
    std::fs::write(at("foreign.pem"), Authority::new("mesh").unwrap().pem()).unwrap();
    let (by_name, by_address) = (
        format!("https://localhost:{}", running.admin_addr.port()),
        format!("https://127.0.0.1:{}", running.admin_addr.port()),
    );
    let (rules, state) = (at("rules"), at("state"));
    let commands = [
        vec!["keys", "status", "--admin"],
        vec!["doctor", "--admin"],
        vec!["plugins", &rules, "--state", &state, "--module", "registry.example/filter", "--warm-start"],
    ];
    let run = async |arguments: &[&str], url: &str, ca: &str, who: &str, server: Option<&str>| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).args([url, "--admin-ca", &at(ca)]);
        command.args([
            "--admin-cert",
            &at(&format!("{who}.pem")),
            "--admin-key",
            &at(&format!("{who}.key.pem")),
        ]);
        if let Some(server) = server {
            command.args(["--admin-id", server]);
        }
        let output = command.output().await.unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let id = Some("spiffe://prod.example/ns/tidegate-system/sa/tidegate");
    for (command, url, server) in [
        (0, &by_name, None),
        (0, &by_name, id),
        (0, &by_address, id),
        (1, &by_name, None),
        (1, &by_address, id),
        (2, &by_name, None),
        (2, &by_address, id),
    ] {
        let (code, told) = run(&commands[command], url, "ca.pem", "admin", server).await;
        assert_eq!(code, 0, "{:?} {url} {server:?}: {told}", commands[command]);
    }
    for (command, url, ca, who, server, why) in [
        (1, &by_name, "ca.pem", "other", None, "--admin-principals"),
        (1, &by_name, "foreign.pem", "admin", None, "certificate"),
        (1, &by_address, "ca.pem", "admin", None, "certificate"),
        (2, &by_name, "ca.pem", "other", None, "--admin-principals"),
        (2, &by_name, "foreign.pem", "admin", None, "certificate"),
        (2, &by_name, "ca.pem", "admin", Some(ORDERS), "the server is spiffe://"),
        (0, &by_name, "ca.pem", "other", None, "--admin-principals"),
        (0, &by_name, "foreign.pem", "admin", None, "certificate"),
        (0, &by_name, "foreign.pem", "admin", id, "certificate"),
        (0, &by_address, "ca.pem", "admin", None, "certificate"),
        (0, &by_name, "ca.pem", "admin", Some(ORDERS), "the server is spiffe://"),
    ] {
        let (code, told) = run(&commands[command], url, ca, who, server).await;
        assert_eq!(code, 3, "{command} {url} {ca} {who} {server:?}: {told}");
        assert!(told.contains(why), "{command} {url} {ca} {who} {server:?}: {told}");
    }
    running.shutdown().await.unwrap();
}
