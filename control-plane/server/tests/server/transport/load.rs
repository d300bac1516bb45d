//! Many filters at one control plane, over mutual TLS. `TIDEGATE_LONG=1` opens five thousand streams; without it, a few.

use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use super::*;

/// A proxy has a thread or two, with a connection each; here a few streams share one.
const STREAMS_PER_CONNECTION: usize = 4;

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_reaches_every_filter_of_a_large_fleet() {
    let streams = if std::env::var_os("TIDEGATE_LONG").is_some() {
        5_000
    } else {
        println!("SKIPPED: the figures of 5000 streams, which take TIDEGATE_LONG=1");
        100
    };
    let guarded = Guarded::new();
    let files = guarded.files();
    // A process of its own, so that its memory is the server's and not ours.
    let mut server = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("serve")
        .args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--trust-domain",
            "prod.example",
            "--max-streams-per-principal",
            "10000",
        ])
        .arg("--rules")
        .arg(guarded.place.rules())
        .arg("--state")
        .arg(guarded.place.state())
        .arg("--tls-cert")
        .arg(files.certificate)
        .arg("--tls-key")
        .arg(files.key)
        .arg("--tls-ca")
        .arg(files.authorities)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = loop {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("it serves");
        let told = line.split_once("grpc_addr=").map(|(_, rest)| rest.split(' ').next().unwrap().to_owned());
        if let Some(address) = told {
            break address.parse::<SocketAddr>().unwrap();
        }
    };
    // What it says is not read by anybody, and must not fill the pipe.
    let drained = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let process = server.id().unwrap();
    let credential = guarded.authority.issue(&named(ORDERS)).unwrap();
    let config = client(guarded.authority.pem(), Some(&credential));
    let first = channel_with(address, &config).await.unwrap();
    // It listens before the rules are compiled.
    let _one = loop {
        let mut filter = Filter::over(first.clone(), hello(WORKLOAD)).await.unwrap();
        if matches!(filter.message().await, Ok(Some(pb::subscribe_response::Message::Push(_)))) {
            break filter;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let before = resident(process);

    let (told, mut installed) = mpsc::unbounded_channel();
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..streams / STREAMS_PER_CONNECTION {
        let channel = channel_with(address, &config).await.unwrap();
        for stream in 0..STREAMS_PER_CONNECTION {
            let (channel, told) = (channel.clone(), told.clone());
            let number = connection * STREAMS_PER_CONNECTION + stream;
            let mut hello = hello(WORKLOAD);
            hello.vm = Some(pb::VmId { instance: format!("pod-{connection}"), generation: number as u64 });
            tasks.spawn(async move {
                let mut filter = Filter::over(channel, hello).await.unwrap();
                loop {
                    let message = filter.message_at_any_time().await;
                    let Ok(Some(pb::subscribe_response::Message::Push(push))) = message else {
                        let Ok(Some(_)) = message else { return };
                        continue;
                    };
                    let manifest = push.manifest.unwrap().manifest;
                    let manifest_sha256 = tidegate::bundle::sha256(&manifest).to_vec();
                    let ack = pb::Ack { nonce: push.nonce, manifest_sha256 };
                    filter.try_send(pb::subscribe_request::Message::Ack(ack)).await;
                    if told.send(push.nonce).is_err() {
                        return;
                    }
                }
            });
        }
    }
    let mut all = async |what: &str| {
        for number in 0..streams {
            let nonce = timeout(2 * PATIENCE, installed.recv()).await;
            nonce.unwrap_or_else(|_| panic!("{what}: {number} of {streams} have it")).unwrap();
        }
    };
    all("the first push").await;
    let connected = begin.elapsed();
    let after = resident(process);
    let begin = Instant::now();
    guarded.place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    all("the edit").await;
    let pushed = begin.elapsed();
    let kib = |kib: Option<u64>| kib.map_or("unknown".to_owned(), |kib| format!("{} MiB", kib / 1_024));
    let each = before.zip(after).map(|(before, after)| after.saturating_sub(before) * 1_024 / streams as u64);
    println!(
        "{streams} streams, {STREAMS_PER_CONNECTION} to a connection of mutual TLS: opened and given their first Bundle in \
         {connected:.1?}; {} before and {} after, {} bytes each; an edit has reached all of them after {pushed:.1?}",
        kib(before),
        kib(after),
        each.map_or("unknown".to_owned(), |each| each.to_string()),
    );
    if streams >= 5_000 {
        // Far above what is seen: to notice when a stream begins to cost another kind of sum.
        assert!(each.is_none_or(|each| each < 200_000), "{each:?} bytes for each stream");
    }
    tasks.shutdown().await;
    server.kill().await.unwrap();
    drained.abort();
}
