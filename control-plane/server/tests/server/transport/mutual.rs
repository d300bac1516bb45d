use tidegate_proto::v1::decision_sink_client::DecisionSinkClient;
use tonic::Code;

use super::*;

#[tokio::test]
async fn a_filter_gets_the_bundle_of_its_own_workload_and_of_no_other() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    for (id, workload) in [
        (ORDERS, "sales/orders"),
        (LEDGER, "sales/ledger"),
        ("spiffe://prod.example/ns/ingress/sa/dataflow-in", "ingress/dataflow-in"),
    ] {
        assert_eq!(outcome(guarded.filter(&running, id, workload).await).await.as_deref(), Ok(workload));
    }
    for (id, workload) in [
        (LEDGER, "sales/orders"),
        (ORDERS, "sales/ledger"),
        (ORDERS, "ingress/dataflow-in"),
        (ORDERS, "sales/unknown"),
        (ORDERS, ""),
        ("spiffe://prod.example/ns/other/sa/orders", "sales/orders"),
        ("spiffe://prod.example/ns/sales/sa/nobody", "sales/orders"),
    ] {
        let refused = outcome(guarded.filter(&running, id, workload).await).await;
        assert_eq!(refused, Err(Code::PermissionDenied), "{id} {workload}");
    }
    assert_eq!(metric(&running, "tidegate_refused_streams_total{reason=\"not_its_own\"}").await, 7);
    assert_eq!(metric(&running, "tidegate_pushes_total").await, 3);
    running.shutdown().await.unwrap();
}

/// What a refused filter is told must not say how others run, nor which workloads there are.
#[tokio::test]
async fn a_refused_filter_learns_nothing_of_others() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let mut told = Vec::new();
    for workload in ["sales/ledger", "sales/unknown"] {
        let mut filter = guarded.filter(&running, ORDERS, workload).await.unwrap();
        let (_, message) = filter.end().await;
        told.push(message.replace(workload, "…"));
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0].contains(ORDERS), "{told:?}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn certificates_that_do_not_prove_a_workload_are_refused_by_name() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let foreign = Authority::new("mesh").unwrap();
    let own = |spec: &CertificateSpec| Some(guarded.authority.issue(spec).unwrap());
    let uris = |uris: &[&str]| CertificateSpec {
        uris: uris.iter().map(|uri| uri.to_string()).collect(),
        ..Default::default()
    };
    let cases = [
        ("no_certificate", None),
        ("unknown_authority", Some(foreign.issue(&named(ORDERS)).unwrap())),
        ("expired", own(&CertificateSpec { expired: true, ..named(ORDERS) })),
        ("not_yet_valid", own(&CertificateSpec { not_yet_valid: true, ..named(ORDERS) })),
        ("wrong_purpose", own(&CertificateSpec { for_servers_only: true, ..named(ORDERS) })),
        ("other_trust_domain", own(&named("spiffe://prod.example.evil/ns/sales/sa/orders"))),
        ("not_spiffe", own(&uris(&[ORDERS, LEDGER]))),
        ("not_spiffe", own(&uris(&[ORDERS, "https://orders.example"]))),
        ("not_spiffe", own(&uris(&[]))),
        ("not_spiffe", own(&named("spiffe://prod.example/ns/sales/sa/orders/x"))),
        ("not_spiffe", own(&named("spiffe://prod.example/ns/sales/sa/Orders"))),
        (
            "not_spiffe",
            own(&CertificateSpec {
                dns_names: vec![ORDERS.replace("spiffe://", ""), "orders.sales.svc".into()],
                common_name: Some(ORDERS.into()),
                ..Default::default()
            }),
        ),
    ];
    for (reason, credential) in &cases {
        let name = format!("tidegate_refused_connections_total{{reason=\"{reason}\"}}");
        let before = metric(&running, &name).await;
        let config = client(guarded.authority.pem(), credential.as_ref());
        if let Ok(channel) = channel_with(running.grpc_addr, &config).await {
            // TLS 1.3: the client learns of it with its first read.
            let filter = Filter::over(channel, hello(WORKLOAD)).await;
            assert!(filter.is_err(), "{reason}: the stream is open");
        }
        until_metric(&running, &name, before + 1).await;
    }
    assert_eq!(metric(&running, "tidegate_pushes_total").await, 0);
    // A DNS name besides the id is nothing wrong.
    let spec = CertificateSpec { dns_names: vec!["orders.sales.svc".into()], ..named(ORDERS) };
    let filter = Filter::over(guarded.channel(&running, &spec).await.unwrap(), hello(WORKLOAD)).await;
    assert_eq!(outcome(filter).await.as_deref(), Ok(WORKLOAD));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn plain_text_gets_nothing() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let filter = Filter::over(plain_from("127.0.0.1", running.grpc_addr).await, hello(WORKLOAD)).await;
    assert!(filter.is_err());
    until_metric(&running, "tidegate_refused_connections_total{reason=\"handshake\"}", 1).await;
    running.shutdown().await.unwrap();
}

/// What a filter writes into a header that a sidecar would write counts nothing where the certificate is ours to see.
#[tokio::test]
async fn a_forged_header_counts_nothing() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let channel = guarded.channel(&running, &named(LEDGER)).await.unwrap();
    let filter = sidecar::subscribe(channel, &[format!("URI={ORDERS}")], WORKLOAD).await;
    assert_eq!(outcome(filter).await, Err(Code::PermissionDenied));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn decisions_are_those_of_the_workload_that_the_certificate_says() {
    let guarded = Guarded::new();
    let running = guarded.start_with_store().await;
    let batch = |workload: &str, sequence| pb::ReportRequest {
        sequence,
        records: vec![pb::DecisionRecord { outcome: pb::Outcome::Deny.into(), ..Default::default() }; 3],
        workload: (!workload.is_empty())
            .then(|| pb::WorkloadHint { workload: workload.into(), instance: "pod-1".into() }),
        ..Default::default()
    };
    let report = async |id: &str, batches: Vec<pb::ReportRequest>| {
        let mut sink = DecisionSinkClient::new(guarded.channel(&running, &named(id)).await.unwrap());
        let mut answers = sink.report(tokio_stream::iter(batches)).await?.into_inner();
        let mut taken = Vec::new();
        while let Some(answer) = answers.message().await.map_err(|status| {
            assert_eq!(
                taken.len(),
                usize::from(status.message().contains("the first batch say")),
                "{status}"
            );
            status
        })? {
            taken.push(answer.sequence);
        }
        Ok::<_, tonic::Status>(taken)
    };
    let count = async |workload: &str| {
        let line = format!("tidegate_decisions_total{{workload=\"{workload}\",outcome=\"deny\"}}");
        metric(&running, &line).await
    };
    let refused = "tidegate_refused_reports_total{reason=\"not_its_own\"}";
    let taken = report(ORDERS, vec![batch(WORKLOAD, 1), batch(WORKLOAD, 2), batch("", 3)]).await;
    assert_eq!(taken.unwrap(), [1, 2, 3]);
    assert_eq!((count(WORKLOAD).await, metric(&running, refused).await), (9, 0));
    // Another one's, from the beginning or later.
    for (number, batches) in (1..).zip([
        vec![batch("sales/ledger", 1)],
        vec![batch("sales/unknown", 1)],
        vec![batch("", 1)],
        vec![batch(WORKLOAD, 1), batch("sales/ledger", 2)],
    ]) {
        let status = report(ORDERS, batches).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{number}: {status}");
        assert_eq!(metric(&running, refused).await, number);
    }
    assert_eq!(
        (count(WORKLOAD).await, count("sales/ledger").await, count("sales/unknown").await),
        (12, 0, 0)
    );
    // What is kept is what was taken, as the certificate's.
    until_metric(&running, "tidegate_decisions_stored_total", 12).await;
    let page: serde_json::Value =
        serde_json::from_str(&get(&running, "/decisions?limit=100").await.1).unwrap();
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 12, "{page}");
    assert!(entries.iter().all(|entry| entry["decision"]["workload"] == WORKLOAD), "{page}");
    let channel = plain_from("127.0.0.1", running.grpc_addr).await;
    assert!(DecisionSinkClient::new(channel).report(tokio_stream::iter([batch(WORKLOAD, 1)])).await.is_err());
    running.shutdown().await.unwrap();
}

/// The Mesh says later that the workload runs as somebody else, and there is nothing to push.
#[tokio::test]
async fn who_a_peer_is_is_asked_again_although_nothing_is_on_offer() {
    let guarded = Guarded::new();
    let transport = TransportOptions { identify_every: Duration::from_secs(1), ..guarded.transport() };
    let running = guarded.start_with(transport).await;
    let mut filter = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    let mut other = guarded.filter(&running, LEDGER, "sales/ledger").await.unwrap();
    filter.install().await;
    other.install().await;
    let mut sink = DecisionSinkClient::new(guarded.channel(&running, &named(ORDERS)).await.unwrap());
    let (batches, sent) = tokio::sync::mpsc::channel(1);
    let workload = Some(pb::WorkloadHint { workload: WORKLOAD.into(), instance: "pod-1".into() });
    batches.send(pb::ReportRequest { sequence: 1, workload, ..Default::default() }).await.unwrap();
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut answers = sink.report(sent).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().sequence, 1);
    // Longer than until it is asked again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    filter.expect_silence().await;
    let mesh = MESH.replace("serviceAccount: orders}", "serviceAccount: orders-v2}");
    guarded.place.write("mesh.yaml", &mesh);
    assert_eq!(filter.end().await.0, Code::PermissionDenied);
    let end = timeout(PATIENCE, answers.message()).await.expect("it ends too").unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied);
    other.expect_silence().await;
    running.shutdown().await.unwrap();
}

/// The Mesh says later that the workload runs as somebody else: the stream that is there gets nothing any more.
#[tokio::test]
async fn a_workload_that_gets_another_account_takes_its_bundles_away_from_the_old_one() {
    let guarded = Guarded::new();
    let running = guarded.start().await;
    let mut filter = guarded.filter(&running, ORDERS, WORKLOAD).await.unwrap();
    filter.install().await;
    let mesh = MESH.replace("serviceAccount: orders}", "serviceAccount: orders-v2}");
    assert_ne!(mesh, MESH);
    guarded.place.write("mesh.yaml", &mesh);
    guarded.place.write("rule.yaml", &rule("b", "Allow", "/v1/second"));
    // Whichever of the files is read first.
    let end = loop {
        match filter.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a status"),
            Err(status) => break status.code(),
        }
    };
    assert_eq!(end, Code::PermissionDenied);
    let again = outcome(guarded.filter(&running, ORDERS, WORKLOAD).await).await;
    assert_eq!(again, Err(Code::PermissionDenied));
    let new = guarded.filter(&running, "spiffe://prod.example/ns/sales/sa/orders-v2", WORKLOAD).await;
    assert_eq!(outcome(new).await.as_deref(), Ok(WORKLOAD));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_authentication_only_loopback_is_served() {
    let guarded = Guarded::new();
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    for options in [
        Options { listen: everywhere, ..guarded.place.options() },
        Options { admin: everywhere, ..guarded.place.options() },
    ] {
        let refused = start(options).await.unwrap_err().to_string();
        assert!(refused.contains("--tls-cert"), "{refused}");
    }
    for domain in ["", "Prod.example", "spiffe://prod.example", "a/b"] {
        let transport = TransportOptions { trust_domains: vec![domain.into()], ..guarded.transport() };
        let refused = start(Options { transport, ..guarded.place.options() }).await.unwrap_err().to_string();
        assert!(refused.contains("--trust-domain"), "{domain}: {refused}");
    }
}
