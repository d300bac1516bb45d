//! Certificates change while streams are open.

use tonic::Code;

use super::*;

const TAKEN: &str = "tidegate_certificate_reloads_total{reason=\"taken\"}";

#[tokio::test]
async fn new_files_are_used_for_new_connections_and_streams_go_on() {
    let mut guarded = Guarded::new();
    let running = guarded.start().await;
    let mut filter = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    filter.install().await;
    // A new authority beside the old one, whose certificates go on.
    let old = std::mem::replace(&mut guarded.authority, Authority::new("mesh-2").unwrap());
    guarded.server = server_of(&guarded.authority);
    guarded.write_files();
    std::fs::write(guarded.files().authorities, format!("{}{}", old.pem(), guarded.authority.pem())).unwrap();
    until_metric(&running, TAKEN, 1).await;
    let again = guarded.filter(&running, ORDERS, WORKLOAD).await;
    assert_eq!(outcome(again).await.as_deref(), Ok(WORKLOAD));
    guarded.place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    assert!(filter.install().await.rules_mention("sales/b"));
    assert_eq!(metric(&running, ENDED).await, 0);
    running.shutdown().await.unwrap();
}

const ENDED: &str = "tidegate_ended_connections_total{reason=\"authority_removed\"}";

/// An authority is removed because its key was stolen: what it issued is worth nothing from then on, also where it is in use.
#[tokio::test]
async fn an_authority_that_is_removed_takes_its_connections_with_it() {
    let mut guarded = Guarded::new();
    let running = guarded.start().await;
    let mut filter = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    filter.install().await;
    let credential = guarded.authority.issue(&named(ORDERS)).unwrap();
    let mut silent =
        tls(running.grpc_addr, &client(guarded.authority.pem(), Some(&credential))).await.unwrap();
    let old = std::mem::replace(&mut guarded.authority, Authority::new("mesh").unwrap());
    guarded.server = server_of(&guarded.authority);
    guarded.write_files();
    std::fs::write(guarded.files().authorities, format!("{}{}", old.pem(), guarded.authority.pem())).unwrap();
    until_metric(&running, TAKEN, 1).await;
    let mut new = guarded.filter(&running, LEDGER, "sales/ledger").await.unwrap();
    new.install().await;
    filter.expect_silence().await;
    // Ours is renewed meanwhile, which ends nothing.
    guarded.server = server_of(&guarded.authority);
    guarded.write_files();
    until_metric(&running, TAKEN, 2).await;
    let (code, message) = filter.end().await;
    assert_ne!(code, Code::Ok, "{message}");
    until_metric(&running, ENDED, 2).await;
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest);
    timeout(PATIENCE, read).await.expect("a connection without streams ends as well").ok();
    get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["connected"] == 0).await;
    new.expect_silence().await;
    let config = client(guarded.authority.pem(), Some(&credential));
    if let Ok(channel) = channel_with(running.grpc_addr, &config).await {
        assert!(Filter::over(channel, hello(WORKLOAD)).await.is_err(), "of an authority that has gone");
    }
    until_metric(&running, "tidegate_refused_connections_total{reason=\"unknown_authority\"}", 1).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn broken_files_change_nothing() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let other = server_of(&guarded.authority);
    let files = guarded.files();
    let refused = "tidegate_certificate_reloads_total{reason=\"refused\"}";
    for (count, (path, text)) in (1_u64..).zip([
        (&files.key, other.key_pem.as_str()),
        (&files.key, ""),
        (&files.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        (&files.authorities, ""),
        (&files.authorities, "nothing"),
    ]) {
        guarded.write_files();
        // Long enough that this is seen as another complaint.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        std::fs::write(path, text).unwrap();
        until_metric(&running, refused, count).await;
        let filter = guarded.filter(&running, ORDERS, WORKLOAD).await;
        assert_eq!(outcome(filter).await.as_deref(), Ok(WORKLOAD), "{path:?} {text:?}");
    }
    std::fs::remove_file(&files.certificate).unwrap();
    until_metric(&running, refused, 6).await;
    assert_eq!(metric(&running, "tidegate_certificate_reloads_total{reason=\"taken\"}").await, 0);
    // What is whole again is taken.
    let server = server_of(&guarded.authority);
    let guarded = Guarded { server, ..guarded };
    guarded.write_files();
    until_metric(&running, "tidegate_certificate_reloads_total{reason=\"taken\"}", 1).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_does_not_start_with_files_that_do_not_fit() {
    let guarded = Guarded::new();
    std::fs::write(guarded.files().key, server_of(&guarded.authority).key_pem).unwrap();
    let options = Options { transport: guarded.transport(), ..guarded.place.options() };
    let refused = start(options.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("key.pem"), "{refused}");
    std::fs::remove_file(guarded.files().authorities).unwrap();
    let refused = start(options).await.unwrap_err().to_string();
    assert!(refused.contains("cannot read") && refused.contains("ca.pem"), "{refused}");
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_it_was_opened_with() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let short = CertificateSpec { valid_for: Some(Duration::from_secs(3)), ..named(ORDERS) };
    let channel = guarded.channel(&running, &short).await.unwrap();
    let mut filter = Filter::over(channel, hello(WORKLOAD)).await.unwrap();
    let mut other = guarded.filter(&running, LEDGER, "sales/ledger").await.unwrap();
    filter.install().await;
    other.install().await;
    let (code, message) = filter.end().await;
    assert_ne!(code, Code::Ok, "{message}");
    get_until(&running, "/fleet", |fleet| fleet["workloads"][WORKLOAD]["connected"] == 0).await;
    other.expect_silence().await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_its_age() {
    let guarded = Guarded::new();
    let age = Duration::from_secs(2);
    let running =
        guarded.start_with(TransportOptions { max_connection_age: age, ..guarded.transport() }).await;
    let mut filter = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    let received = filter.install().await;
    let (code, message) = filter.end().await;
    assert_ne!(code, Code::Ok, "{message}");
    // It resumes where it was.
    let resumed = pb::Hello { enforced_manifest: received.digest(), ..hello(WORKLOAD) };
    let channel = guarded.channel(&running, &named(ORDERS)).await.unwrap();
    Filter::over(channel, resumed).await.unwrap().expect_silence().await;
    running.shutdown().await.unwrap();
}
