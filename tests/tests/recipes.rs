//! The client recipes work: token providers against a metadata server that misbehaves, the scripts of CI jobs against a
//! service, and what they ask for is what their rules demand.

use std::time::{Duration, Instant};

use tidegate::demo::issuers::{GitLabJob, GoogleInstance, Issuers, KubernetesPod};

mod recipes {
    pub mod client;
    pub mod metadata_server;
    pub mod rules;
    pub mod scripts;
}

use recipes::client::{Client, Language, is_there};
use recipes::metadata_server::{Answer, MetadataServer};
use recipes::rules::{rules, satisfies};
use recipes::scripts::{Service, gitlab, run, tekton};

const AUDIENCE: &str = "https://orders.sales.example";

/// Runs a test for each language that is there.
fn in_each_language(test: impl Fn(&MetadataServer, &mut Client)) {
    for language in [Language::Python, Language::Java] {
        if let Some(program) = language.missing() {
            println!("SKIPPED: {language:?}: no `{program}` here");
            continue;
        }
        let server = MetadataServer::start();
        let mut client = Client::start(language, server.address, AUDIENCE);
        println!("{language:?}");
        test(&server, &mut client);
    }
}

#[track_caller]
fn is_token(outcome: &str) {
    assert!(outcome.starts_with("eyJ") && outcome.matches('.').count() == 2, "{outcome}");
    assert!(!outcome.contains(['\t', ' ']), "more than one: {outcome}");
}

#[track_caller]
fn is_error(outcome: &str, with: &str) {
    assert!(
        outcome.starts_with("error: ") && outcome.contains(with),
        "expected an error with `{with}`: {outcome}"
    );
    assert!(!outcome.contains("eyJ"), "a message holds a token: {outcome}");
}

#[test]
fn the_metadata_server_is_asked_for_the_audience_and_in_full() {
    in_each_language(|server, client| {
        is_token(&client.tell("token"));
        let requests = server.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let line = requests[0].lines().next().unwrap();
        assert_eq!(
            line,
            "GET /computeMetadata/v1/instance/service-accounts/default/identity\
             ?audience=https%3A%2F%2Forders.sales.example&format=full HTTP/1.1"
        );
    });
}

#[test]
fn a_token_is_fetched_once_for_all_threads() {
    in_each_language(|server, client| {
        server.answer([Answer::Slow(3600, Duration::from_millis(300))]);
        is_token(&client.tell("burst 32"));
        assert_eq!(server.requests().len(), 1);
    });
}

#[test]
fn a_token_is_kept_until_shortly_before_it_ends() {
    in_each_language(|server, client| {
        let first = client.tell("token");
        let pass = |client: &mut Client, seconds: i64| {
            server.advance(seconds);
            client.tell(&format!("advance {seconds}"));
        };
        pass(client, 3600 - 300 - 20);
        assert_eq!(client.tell("token"), first);
        assert_eq!(server.requests().len(), 1);
        pass(client, 21);
        let second = client.tell("token");
        is_token(&second);
        assert_ne!(second, first);
        assert_eq!(server.requests().len(), 1);
    });
}

#[test]
fn a_short_lived_token_is_used_for_half_of_its_life() {
    in_each_language(|server, client| {
        server.answer([Answer::Token(60)]);
        let first = client.tell("token");
        for (pass, renewed) in [(25, false), (6, true)] {
            server.advance(pass);
            client.tell(&format!("advance {pass}"));
            assert_eq!(client.tell("token") != first, renewed);
        }
        assert_eq!(server.requests().len(), 2);
    });
}

#[test]
fn while_a_token_is_renewed_the_old_one_is_used() {
    in_each_language(|server, client| {
        let first = client.tell("token");
        server.requests();
        server.advance(3400);
        client.tell("advance 3400");
        server.answer([Answer::Slow(3600, Duration::from_millis(500))]);
        let outcomes = client.tell("burst 16");
        let outcomes: Vec<&str> = outcomes.split('\t').collect();
        assert_eq!(outcomes.len(), 2, "one thread got the new one, the others the old one: {outcomes:?}");
        assert!(outcomes.contains(&first.as_str()));
        assert_eq!(server.requests().len(), 1);
        assert_ne!(client.tell("token"), first);
    });
}

#[test]
fn while_the_metadata_server_is_down_a_good_token_is_used_on() {
    in_each_language(|server, client| {
        let first = client.tell("token");
        server.requests();
        client.tell("advance 3400");
        server.advance(3400);
        server.answer([Answer::Status(503)]);
        assert_eq!(client.tell("token"), first);
        let asked = server.requests().len();
        assert!((2..=5).contains(&asked), "{asked} attempts");
        assert_eq!(client.tell("token"), first);
        assert_eq!(server.requests().len(), 0, "the next attempt is not made at once");
        client.tell("advance 195");
        is_error(&client.tell("token"), "answered 503");
        server.answer([Answer::Token(3600)]);
        is_token(&client.tell("token"));
    });
}

#[test]
fn a_passing_failure_is_not_noticed() {
    in_each_language(|server, client| {
        server.answer([Answer::Status(503), Answer::Nothing, Answer::Status(429), Answer::Token(3600)]);
        is_token(&client.tell("token"));
        assert_eq!(server.requests().len(), 4);
    });
}

#[test]
fn waiting_threads_share_a_failure() {
    in_each_language(|server, client| {
        server.answer([Answer::Status(500)]);
        let started = Instant::now();
        is_error(&client.tell("burst 16"), "answered 500");
        let asked = server.requests().len();
        assert!(asked <= 8, "{asked} requests for 16 threads");
        assert!(started.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn what_will_not_pass_is_said_at_once() {
    in_each_language(|server, client| {
        for (answer, words) in [
            (Answer::Status(404), "no service account"),
            (Answer::Status(400), "answered 400"),
            (Answer::Stranger, "is this a Google VM?"),
            (Answer::WithoutVm, "which VM"),
            (Answer::Token(-5), "clock"),
            (Answer::Token(3), "clock"),
            (Answer::Text("<html>Sign in</html>"), "no identity token"),
            (Answer::Text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.x"), "no identity token"),
            (Answer::Text("a.!!.c"), "no identity token"),
            (Answer::Text(""), "no identity token"),
        ] {
            server.answer([answer.clone()]);
            is_error(&client.tell("token"), words);
            assert_eq!(server.requests().len(), 1, "{answer:?}");
        }
    });
}

#[test]
fn a_redirect_is_not_followed() {
    in_each_language(|server, client| {
        let elsewhere = MetadataServer::start();
        server.answer([Answer::Redirect(elsewhere.address)]);
        is_error(&client.tell("token"), "answered 302");
        assert_eq!(elsewhere.requests(), Vec::<String>::new());
    });
}

#[test]
fn a_provider_never_shows_its_token() {
    in_each_language(|_, client| {
        is_token(&client.tell("token"));
        assert_eq!(client.tell("describe").replace('\'', ""), format!("IdentityTokens({AUDIENCE})"));
        let serialized = client.tell("serialize");
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, serialized).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(AUDIENCE), "{text}");
        assert!(!text.contains("eyJ"), "{text}");
    });
}

#[test]
fn python_gives_grpc_the_token_or_the_reason() {
    if let Some(program) = Language::Python.missing() {
        println!("SKIPPED: no `{program}` here");
        return;
    }
    let server = MetadataServer::start();
    let mut client = Client::start(Language::Python, server.address, AUDIENCE);
    server.answer([Answer::Status(404)]);
    is_error(&client.tell("grpc"), "no service account");
    server.answer([Answer::Token(3600)]);
    let metadata = client.tell("grpc");
    is_token(metadata.strip_prefix("authorization Bearer ").unwrap_or_default());
}

/// Runs a job's script with a token, against a service that lets it in, and against one that does not.
fn calls_with_its_token(script: &str, environment: impl Fn(&str, &str) -> Vec<(String, String)>) {
    if !is_there("curl") {
        println!("SKIPPED: no `curl` here");
        return;
    }
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
    let refusal = r#"{"reason":"no_allow_matched","decision":"7Q4K-M2XD-91BC"}"#;
    for (status, body) in [(200, "{}"), (403, refusal)] {
        let service = Service::start(status, body);
        let environment = environment(&format!("http://{}", service.address), token);
        let environment: Vec<_> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let output = run(script, &environment);
        let request = service.request();
        assert!(request.starts_with("PUT /v1/schema HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nAuthorization: Bearer {token}\r\n")), "{request}");
        assert!(request.ends_with(r#"{"version": 3}"#), "{request}");
        let told = format!("{output:?}");
        assert_eq!(output.status.success(), status == 200, "{told}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(body), "{told}");
        assert!(!told.contains("eyJ"), "the job's log shows the token: {told}");
    }
}

#[test]
fn the_tekton_task_calls_with_the_token_of_its_volume() {
    let (account, task, run) = tekton();
    assert_eq!((account.api_version.as_str(), account.kind.as_str()), ("v1", "ServiceAccount"));
    assert_eq!((task.api_version.as_str(), task.kind.as_str()), ("tekton.dev/v1", "Task"));
    assert_eq!((run.api_version.as_str(), run.kind.as_str()), ("tekton.dev/v1", "TaskRun"));
    assert!(!account.automount_service_account_token);
    assert_eq!(Some(run.spec.service_account_name), account.metadata.name);
    assert_eq!(Some(run.spec.task_ref.name), task.metadata.name);
    assert_eq!(run.metadata.generate_name.as_deref(), Some("update-orders-schema-"));
    for namespace in [&account.metadata.namespace, &task.metadata.namespace, &run.metadata.namespace] {
        assert_eq!(namespace, "ci");
    }
    let declared: Vec<_> = task.spec.params.iter().map(|param| (&*param.name, &*param.kind)).collect();
    assert_eq!(declared, [("url", "string")]);
    assert_eq!(run.spec.params[0].name, "url");
    assert!(run.spec.params[0].value.starts_with("http://"));

    let ([volume], [step]) = (&task.spec.volumes[..], &task.spec.steps[..]) else { panic!("{task:?}") };
    let [source] = &volume.projected.sources[..] else { panic!("{volume:?}") };
    let token = &source.service_account_token;
    assert_eq!(token.audience, AUDIENCE);
    // "The minimum value is 600" (Kubernetes, ServiceAccountTokenProjection); a Tidegate issuer takes an hour or less.
    assert!((600..=3600).contains(&token.expiration_seconds));
    let [mount] = &step.volume_mounts[..] else { panic!("{step:?}") };
    assert!(mount.read_only && mount.name == volume.name);
    let variable =
        |name: &str| step.env.iter().find(|variable| variable.name == name).unwrap().value.as_str();
    assert_eq!(variable("TOKEN_FILE"), format!("{}/{}", mount.mount_path, token.path));
    assert_eq!(variable("URL"), "$(params.url)");
    assert!(step.image.contains("curl") && !step.name.is_empty());
    assert!(!step.script.contains("$(params"), "what is pasted into a script is run: {}", step.script);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    calls_with_its_token(&step.script, |url, token| {
        std::fs::write(&file, token).unwrap();
        vec![("URL".into(), url.into()), ("TOKEN_FILE".into(), file.display().to_string())]
    });
}

#[test]
fn the_gitlab_job_calls_with_its_id_token() {
    let jobs = gitlab();
    let (_, job) = jobs.first_key_value().unwrap();
    assert_eq!(jobs.len(), 1);
    let (name, token) = job.id_tokens.first_key_value().unwrap();
    assert_eq!((job.id_tokens.len(), token.aud.as_str()), (1, AUDIENCE));
    assert_eq!((job.stage.as_str(), job.environment.as_str()), ("deploy", "production"));
    assert_eq!(job.timeout, "10 minutes");
    // The image's own entrypoint is curl, and GitLab wants a shell.
    assert!(job.image.name.contains("curl") && job.image.entrypoint == [""]);
    assert!(job.rules[0]["if"].contains("$CI_COMMIT_REF_PROTECTED == \"true\""));
    assert!(job.variables["ORDERS_URL"].starts_with("https://"));
    calls_with_its_token(&job.script.join("\n"), |url, token| {
        vec![("ORDERS_URL".into(), url.into()), (name.clone(), token.into())]
    });
}

/// Tokens as the issuers make them for what the recipes ask, against the rules beside the recipes.
#[tokio::test]
async fn what_the_recipes_ask_for_satisfies_their_rules() {
    let rules = rules();
    let issuers = Issuers::start().await.unwrap();
    let (_, task, run) = tekton();
    let jobs = gitlab();
    let job = jobs.values().next().unwrap();

    let worker = GoogleInstance {
        email: "orders-etl@acme.iam.gserviceaccount.com".into(),
        subject: "100000000000000000001".into(),
        project: "acme".into(),
        project_number: 123_456_789_012,
        zone: "europe-west4-b".into(),
        instance_id: "4570000000000000001".into(),
        instance_name: "orders-etl-1".into(),
    };
    let (google, rule) = (issuers.google.jwks(), "sales/orders-etl-writes-orders");
    let token = issuers.google.instance_token(&worker, AUDIENCE).sign().unwrap();
    assert!(satisfies(&rules, &google, &token, rule));
    let standard = issuers.google.service_account_token(&worker, AUDIENCE).sign().unwrap();
    assert!(!satisfies(&rules, &google, &standard, rule), "format=standard names no VM");

    let rule = "sales/release-updates-schema";
    let of_cluster = |account: &str, audience: &str| {
        let pod = KubernetesPod {
            namespace: run.metadata.namespace.clone(),
            service_account: account.to_owned(),
            pod: "pod".into(),
        };
        let issuer = "https://container.googleapis.com/v1/projects/acme/locations/europe-west4/clusters/prod";
        issuers.cluster.pod_token(&pod, audience).claim("iss", issuer).sign().unwrap()
    };
    let cluster = issuers.cluster.jwks();
    let audience = &task.spec.volumes[0].projected.sources[0].service_account_token.audience;
    assert!(satisfies(&rules, &cluster, &of_cluster(&run.spec.service_account_name, audience), rule));
    assert!(!satisfies(&rules, &cluster, &of_cluster("default", audience), rule), "another account");
    assert!(!satisfies(&rules, &cluster, &of_cluster(&run.spec.service_account_name, "other"), rule));

    let of_gitlab = |protected: bool, source: &str| {
        let claims = GitLabJob {
            project_id: "4711".into(),
            project_path: "data/orders".into(),
            namespace_id: "72".into(),
            job_project_id: "4711".into(),
            branch: "main".into(),
            protected,
            source: source.into(),
            environment: Some(job.environment.clone()),
            user_access_level: "maintainer".into(),
        };
        let audience = &job.id_tokens.values().next().unwrap().aud;
        issuers.gitlab.job_token(&claims, audience).claim("iss", "https://gitlab.example.com").sign().unwrap()
    };
    let keys = issuers.gitlab.jwks();
    assert!(satisfies(&rules, &keys, &of_gitlab(true, "push"), rule));
    assert!(!satisfies(&rules, &keys, &of_gitlab(false, "push"), rule), "an unprotected branch");
    assert!(!satisfies(&rules, &keys, &of_gitlab(true, "merge_request_event"), rule), "a merge request");
}

#[test]
fn what_the_overview_links_to_is_there() {
    let folder = recipes::client::recipes();
    let overview = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let links: Vec<&str> = overview.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() >= 6, "{links:?}");
    for link in links {
        assert!(folder.join(link).exists(), "`{link}` is not there");
    }
}
