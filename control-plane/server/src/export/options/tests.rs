use super::*;

fn read(flags: Flags, variables: &[(&str, &str)]) -> Result<Option<Options>, InvalidExport> {
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options::read(flags, &|name| {
        variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    })
}

fn to(endpoint: &str) -> Flags {
    Flags { endpoint: Some(endpoint.to_owned()), ..Flags::default() }
}

#[test]
fn nothing_is_exported_unless_somebody_says_where_to() {
    assert_eq!(read(Flags::default(), &[]).unwrap(), None);
    assert_eq!(read(Flags::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap(), None);
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_SDK_DISABLED", "TRUE")];
    assert_eq!(read(Flags::default(), &disabled).unwrap(), None);
    let flags = Flags { protocol: Some(Protocol::Grpc), ..Flags::default() };
    let error = read(flags, &[]).unwrap_err().to_string();
    assert!(error.starts_with("--otlp-protocol has no effect without --otlp-endpoint"), "{error}");
}

#[test]
fn the_protocol_is_what_is_said_or_goes_by_the_port() {
    for (endpoint, protocol, url) in [
        (
            "http://collector:4317",
            None,
            "http://collector:4317/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        ),
        ("http://collector:4318", None, "http://collector:4318/v1/logs"),
        ("https://apm.example/otlp/", None, "https://apm.example/otlp/v1/logs"),
        ("http://collector:4317", Some(Protocol::Http), "http://collector:4317/v1/logs"),
    ] {
        let options = read(Flags { protocol, ..to(endpoint) }, &[]).unwrap().unwrap();
        assert_eq!(options.logs.unwrap().url().as_str(), url, "{endpoint}");
        assert!(options.metrics.is_some() && options.traces.is_none());
    }
}

#[test]
fn variables_of_opentelemetry_are_respected_and_flags_win() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics.example/write"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b,x-tenant=7"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
        ("OTEL_SERVICE_NAME", "gate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=prod%2Feu"),
    ];
    let options = read(Flags::default(), &variables).unwrap().unwrap();
    let logs = options.logs.unwrap();
    assert_eq!(logs.url().as_str(), "http://all:4318/v1/logs");
    assert_eq!(logs.headers["api-key"], "a b");
    assert_eq!(logs.headers["x-tenant"], "7");
    assert!(logs.gzip && logs.timeout == Duration::from_millis(2500));
    assert_eq!(logs.identity, Some(("/cert.pem".into(), "/key.pem".into())));
    assert!(!format!("{logs:?}").contains("a b"), "{logs:?}");
    let metrics = options.metrics.unwrap();
    assert_eq!(metrics.url().as_str(), "https://metrics.example/write");
    assert!(!metrics.gzip);
    assert!(options.traces.is_some());
    assert_eq!(options.interval, Duration::from_secs(5));
    let expected = [("deployment.environment.name", "prod/eu"), ("service.name", "gate")];
    assert_eq!(options.resource, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));

    let flags = Flags { signals: Some(vec![Signal::Logs]), ..to("http://flag:4317") };
    let options = read(flags, &variables).unwrap().unwrap();
    assert_eq!(options.logs.unwrap().endpoint.host_str(), Some("flag"));
    assert!(options.metrics.is_none() && options.traces.is_none());
}

#[test]
fn what_cannot_be_used_is_refused_with_its_name_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "# comment\n\nAuthorization: Bearer s3cret\nno colon s3cret\n").unwrap();
    let with_file = Flags { headers_file: Some(file.clone()), ..to("http://c:4317") };
    let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    for (flags, variables, expected) in [
        (to("collector:4317"), vec![], "does not begin with `http://`"),
        (to("http://user:s3cret@collector:4317"), vec![], "credentials belong into --otlp-headers-file"),
        (to("http://collector:4317/?a=b"), vec![], "it has a query"),
        (to("127.0.0.1:4317"), vec![], "does not begin with `http://`"),
        (to("http://collector:4318/v1/logs"), vec![], "`v1/logs` is added by itself"),
        (Flags::default(), vec![(all, "http://c/otlp/v1/traces/")], "is added by itself"),
        (to("nonsense"), vec![], "--otlp-endpoint: `nonsense` is no endpoint"),
        (with_file, vec![], "entry 2: not `name: value`"),
        (
            Flags::default(),
            vec![(all, "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
            "http/json",
        ),
        (Flags::default(), vec![(all, "http://c"), ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")], "entry 1: not"),
        (Flags::default(), vec![(all, "http://c"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "0")], "milliseconds"),
        (
            Flags::default(),
            vec![(all, "http://c"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "k")],
            "CLIENT_CERTIFICATE",
        ),
        (Flags::default(), vec![(all, "http://c"), ("OTEL_LOGS_EXPORTER", "zipkin")], "`otlp`, `none`"),
        (Flags::default(), vec![(all, "http://c"), ("OTEL_RESOURCE_ATTRIBUTES", "x")], "key=value"),
    ] {
        let error = read(flags.clone(), &variables).unwrap_err().to_string();
        assert!(error.contains(expected), "{flags:?} {variables:?}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    std::fs::write(&file, "Authorization: Bearer s3cret\n").unwrap();
    assert_eq!(headers_of_file(&file).unwrap()["authorization"], "Bearer s3cret");
}
