use super::*;

mod clients;

fn hints() -> Hints {
    Hints { project: Some("acme".to_owned()), region: Some("europe-west4".to_owned()), ..Hints::default() }
}

fn plan(text: &str) -> Plan {
    read(text, &hints()).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// Each request in a line.
fn told(plan: &Plan) -> Vec<String> {
    let by = |by: &By| match by {
        By::Runner => String::new(),
        By::Workers => "workers ".to_owned(),
        By::Pod(peer) => format!("{}/{} ", peer.namespace, peer.service_account),
    };
    let line = |one: &Implied| {
        format!(
            "{}{}{} {}",
            by(&one.by),
            if one.line > 0 { format!("{}: ", one.line) } else { String::new() },
            one.method,
            one.url
        )
    };
    plan.requests.iter().map(line).collect()
}

/// Why each thing is not understood, with its line.
fn open(plan: &Plan) -> Vec<(u32, String, String)> {
    plan.not_understood.iter().map(|one| (one.line, one.text.clone(), one.why.clone())).collect()
}

const FLEX: &str =
    "https://dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/flexTemplates:launch";

#[test]
fn the_four_launches_of_dataflow_are_told_apart() {
    let environment = r#""environment": {"serviceAccountEmail": "etl@acme.iam.gserviceaccount.com"}"#;
    let base = "https://dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4";
    for (text, url) in [
        (
            format!(
                r#"{{"launchParameter": {{"jobName": "a", "containerSpecGcsPath": "gs://t/a", {environment}}}}}"#
            ),
            FLEX.to_owned(),
        ),
        (
            format!("launch_parameter: {{job_name: a, container_spec_gcs_path: 'gs://t/a', {environment}}}"),
            FLEX.to_owned(),
        ),
        (format!(r#"{{"jobName": "a", "gcsPath": "gs://t/a", {environment}}}"#), format!("{base}/templates")),
        (r#"{"name": "a", "type": "JOB_TYPE_BATCH", "environment": {}}"#.to_owned(), format!("{base}/jobs")),
    ] {
        let plan = plan(&text);
        assert_eq!(told(&plan), [format!("POST {url}")], "{text}");
        assert!(plan.requests[0].body.is_some());
    }
    let launch = Hints { template: Some("gs://t/a b".to_owned()), ..hints() };
    let plan = read(r#"{"jobName": "a", "parameters": {}}"#, &launch).unwrap();
    assert_eq!(told(&plan), [format!("POST {base}/templates:launch?gcsPath=gs%3A%2F%2Ft%2Fa%20b")]);
}

#[test]
fn what_is_launched_is_named() {
    let plan = plan(
        r#"{"launchParameter": {"jobName": "a", "containerSpecGcsPath": "gs://t/a", "environment": {"serviceAccountEmail": "x@y", "tempLocation": "gs://tmp/x/", "stagingLocation": "gs://stage", "sdkContainerImage": "img"}}}"#,
    );
    let names: Vec<String> =
        plan.requests[0].names.iter().map(|(role, name)| format!("{role} {name}")).collect();
    assert_eq!(
        names,
        [
            "template gs://t/a",
            "jobName a",
            "runAs x@y",
            "temp gs://tmp/x/",
            "staging gs://stage",
            "workerImage img"
        ]
    );
    assert_eq!(
        told(&plan)[1..],
        [
            "workers POST https://storage.googleapis.com/upload/storage/v1/b/tmp/o?uploadType=media&name=x%2Fpreflight",
            "workers POST https://storage.googleapis.com/upload/storage/v1/b/stage/o?uploadType=media&name=preflight",
        ]
    );
}

#[test]
fn parameters_are_understood_where_they_say_it_and_not_guessed_otherwise() {
    let one = |name: &str, value: &str| {
        plan(&format!(r#"{{"launchParameter": {{"jobName": "a", "parameters": {{"{name}": "{value}"}}}}}}"#))
    };
    for (name, value, expected) in [
        (
            "outputTopic",
            "projects/p/topics/t",
            "workers POST https://pubsub.googleapis.com/v1/projects/p/topics/t:publish",
        ),
        (
            "inputSubscription",
            "projects/p/subscriptions/s",
            "workers POST https://pubsub.googleapis.com/v1/projects/p/subscriptions/s:pull",
        ),
        (
            "outputTable",
            "proj:data.t",
            "workers POST https://bigquery.googleapis.com/bigquery/v2/projects/proj/datasets/data/tables/t/insertAll",
        ),
        (
            "input_table",
            "proj.data.t",
            "workers GET https://bigquery.googleapis.com/bigquery/v2/projects/proj/datasets/data/tables/t/data",
        ),
        (
            "inputFile",
            "gs://b/a/b.csv",
            "workers GET https://storage.googleapis.com/storage/v1/b/b/o/a%2Fb.csv?alt=media",
        ),
        (
            "output",
            "gs://b/a",
            "workers POST https://storage.googleapis.com/upload/storage/v1/b/b/o?uploadType=media&name=a",
        ),
    ] {
        let plan = one(name, value);
        assert_eq!(told(&plan)[1..], [expected], "{name}={value}");
        assert_eq!(open(&plan), [], "{name}={value}");
    }
    for (name, value) in [
        ("inputTopic", "projects/p/topics/t"),
        ("topic", "projects/p/topics/t"),
        ("inputOutput", "projects/p/topics/t"),
        ("table", "proj:data.t"),
        ("file", "gs://b/a"),
        ("input", "gs://b/*.csv"),
        ("input", "gs://b/"),
    ] {
        let plan = one(name, value);
        assert_eq!((plan.requests.len(), plan.not_understood.len()), (1, 1), "{name}={value}");
    }
    for (name, value) in
        [("mode", "fast"), ("output", "a.b.c"), ("host", "db.example.com:5432"), ("query", "SELECT 1")]
    {
        let plan = one(name, value);
        assert_eq!((plan.requests.len(), plan.not_understood.len()), (1, 0), "{name}={value}");
    }
}

#[test]
fn what_is_no_launch_is_refused_with_what_is_missing() {
    for (text, hints, said) in [
        ("{}", hints(), "no launch and no pipeline"),
        ("[1]", hints(), "a mapping"),
        ("", hints(), "nothing in it"),
        ("a: [", hints(), "neither YAML nor JSON"),
        ("{\"launchParameter\": 7}", hints(), "`launchParameter` is no mapping"),
        ("{\"jobName\": \"a\"}", hints(), "--template"),
        ("{\"launchParameter\": {}}", Hints::default(), "--project and --region"),
        ("{\"launchParameter\": {}}", Hints { region: Some("r".into()), ..Hints::default() }, "--project"),
        (
            "{\"jobName\": \"a\", \"gcsPath\": \"gs://a/b\"}",
            Hints { template: Some("gs://c/d".into()), ..hints() },
            "leave --template out",
        ),
        ("{apiVersion: v1, kind: Pod}", hints(), "no launch"),
        ("{apiVersion: tekton.dev/v1, kind: Pipeline}", hints(), "runs nothing by itself"),
        ("{apiVersion: tekton.dev/v1, kind: TaskRun, metadata: {name: a}}", hints(), "--namespace"),
    ] {
        let why = read(text, &hints).expect_err(text);
        assert!(why.contains(said), "{text}: {why}");
    }
}

const PIPELINE: &str = r#"variables:
  REGION: europe-west1
  WHERE: "projects/$PROJECT/topics"
  PROJECT: acme
default:
  before_script: [gcloud config set project beta]
.template:
  script: [curl https://hidden.example]
launch:
  id_tokens:
    JOB: {aud: https://egress.example}
    OTHER: {aud: [a, b]}
  variables: {NAME: "orders-$CI_PIPELINE_ID", PLAIN: orders-7}
  script:
  - ./build.sh && echo done
  - >
    gcloud dataflow flex-template run $PLAIN
    --template-file-gcs-location=gs://t/a --region $REGION --parameters outputTopic=$WHERE/x,mode=fast --parameters a=b
    --service-account-email x@y --temp-location gs://tmp/x --max-workers 3 --disable-public-ips
  - gcloud dataflow flex-template run $NAME --template-file-gcs-location gs://t/a --region $REGION
  - |
    set -e
    if true; then
      curl -X POST https://a.example/v1/x -H "X-Job-Token: $JOB" -H "authorization: Bearer $JOB" --json '{"a": 1}' | jq .
    fi
    cat <<EOF > x
    curl https://not.a/command
    EOF
    gcloud pubsub topics publish orders --message=hi 2>&1
    bq load sales.orders gs://b/x.csv,gs://b/y.csv
  - gcloud dataflow jobs cancel 1 2 --region $REGION
  - kubectl apply -f x
  - curl https://a.example/$CI_JOB_ID
  - gcloud dataflow flex-template run o --weird x --template-file-gcs-location gs://t/a --region $REGION
other:
  extends: .template
  script: gsutil cp a.txt b.txt gs://b/dir/
"#;

#[test]
fn a_pipeline_of_gitlab_is_read_as_a_shell_would() {
    let plan = plan(PIPELINE);
    let dataflow = "https://dataflow.googleapis.com/v1b3/projects/beta/locations/europe-west1";
    let upload = "https://storage.googleapis.com/upload/storage/v1/b";
    assert_eq!(
        told(&plan),
        [
            format!("17: POST {dataflow}/flexTemplates:launch"),
            format!("workers 17: POST {upload}/tmp/o?uploadType=media&name=x%2Fpreflight"),
            "workers 17: POST https://pubsub.googleapis.com/v1/projects/acme/topics/x:publish".to_owned(),
            "24: POST https://a.example/v1/x".to_owned(),
            "29: POST https://pubsub.googleapis.com/v1/projects/beta/topics/orders:publish".to_owned(),
            "30: POST https://bigquery.googleapis.com/bigquery/v2/projects/beta/jobs".to_owned(),
            format!("31: PUT {dataflow}/jobs/1"),
            format!("31: PUT {dataflow}/jobs/2"),
            format!("37: POST {upload}/b/o?uploadType=media&name=dir%2Fa.txt"),
            format!("37: POST {upload}/b/o?uploadType=media&name=dir%2Fb.txt"),
        ]
    );
    assert_eq!(
        plan.requests[0].body,
        Some(serde_json::json!({"launchParameter": {
            "jobName": "orders-7",
            "containerSpecGcsPath": "gs://t/a",
            "parameters": {"outputTopic": "projects/acme/topics/x", "mode": "fast", "a": "b"},
            "environment": {"serviceAccountEmail": "x@y", "tempLocation": "gs://tmp/x", "maxWorkers": 3, "ipConfiguration": "WORKER_IP_PRIVATE"},
        }}))
    );
    // A header with a token is what flags say that the token says.
    assert_eq!(
        plan.requests[3].headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["content-type"]
    );
    let why: Vec<String> = open(&plan).into_iter().map(|(line, _, why)| format!("{line}: {why}")).collect();
    assert_eq!(
        why,
        [
            "20: what `$NAME` stands for is not known",
            "32: what is in `x` is not looked at: give that file to `tidegate preflight`",
            "33: what `$CI_JOB_ID` stands for is not known",
            "34: what `--weird` changes about the request is not known",
            "0: whether these programs send requests is not known",
            "35: what it stands for is not read",
        ]
    );
    let audiences: Vec<&str> = plan.audiences.iter().map(|(audience, _)| audience.as_str()).collect();
    assert_eq!(audiences, ["https://egress.example", "a", "b"]);
}

#[test]
fn what_a_pipeline_refers_to_is_not_guessed() {
    let text = "spec:\n  inputs: {a: {}}\n---\n.x: &x\n  before_script: [curl https://a.example/1]\njob:\n  <<: *x\n  script:\n  - \
                !reference [.x, script]\n  - curl https://a.example/$[[ inputs.a ]]\n  - [[curl https://a.example/2]]\ninclude: b.yml\nmore: \
                {trigger: a/b}\n";
    let plan = plan(text);
    assert_eq!(told(&plan), ["5: GET https://a.example/1", "11: GET https://a.example/2"]);
    let what: Vec<String> =
        open(&plan).into_iter().map(|(line, text, _)| format!("{line}: {text}")).collect();
    assert_eq!(
        what,
        ["12: include", "9: !reference", "10: curl https://a.example/$[[ inputs.a ]]", "13: more: trigger"]
    );
}

#[test]
fn a_run_of_tekton_creates_itself_and_its_steps_send_as_its_account() {
    let text = r#"apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {generateName: release-, namespace: ci}
spec:
  taskRunTemplate: {serviceAccountName: runner}
  pipelineSpec:
    tasks:
    - taskSpec:
        steps:
        - env: [{name: TOPIC, value: done}]
          script: |
            #!/bin/sh
            # what it does
            curl -X POST "https://pubsub.googleapis.com/v1/projects/acme/topics/$TOPIC:publish" --json '{}'
            curl https://x.example/$(params.id)
        - command: [gcloud, pubsub, topics, publish, orders]
        - command: [sh, -c]
          args: ["curl https://y.example/z"]
"#;
    let plan = plan(text);
    assert_eq!(
        told(&plan),
        [
            "2: POST https://kubernetes.default.svc/apis/tekton.dev/v1/namespaces/ci/pipelineruns",
            "ci/runner 14: POST https://pubsub.googleapis.com/v1/projects/acme/topics/done:publish",
            "ci/runner 16: POST https://pubsub.googleapis.com/v1/projects/acme/topics/orders:publish",
            "ci/runner 18: GET https://y.example/z",
        ]
    );
    assert_eq!(
        open(&plan),
        [(
            15,
            "curl https://x.example/$(params.id)".to_owned(),
            "what `$(params.id)` stands for is not known".to_owned()
        )]
    );
    let reference = read(
        "{apiVersion: tekton.dev/v1, kind: PipelineRun, metadata: {name: a}, spec: {pipelineRef: {name: release}}}",
        &Hints { namespace: Some("ci".into()), kubernetes_host: Some("k8s.example".into()), ..Hints::default() },
    )
    .unwrap();
    assert_eq!(
        told(&reference),
        ["1: POST https://k8s.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns"]
    );
    assert_eq!(open(&reference)[0].1, "pipelineRef: release");
}

#[test]
fn a_file_of_command_lines_is_read_line_by_line() {
    let plan = plan(
        "# two\n\n$ curl -X DELETE https://a.example/1\n\ncurl 'https://a.example/2?x=$HOME' \\\n  -d 'a=b'; grpcurl b\n",
    );
    assert_eq!(told(&plan), ["3: DELETE https://a.example/1", "5: POST https://a.example/2?x=$HOME"]);
    assert!(plan.requests[1].unknown_body && plan.requests[1].body.is_none());
    assert_eq!(open(&plan)[0].2, "command lines of `grpcurl` are not understood");
    for (text, why) in [
        ("curl 'x", "a `'` is not closed"),
        ("curl \"x", "a `\"` is not closed"),
        ("curl `x", "a \"`\" is not closed"),
        ("curl $(x", "a `(` is not closed"),
        ("curl", "there is no URL in the command"),
        (
            "gcloud dataflow jobs run a --gcs-location gs://a/b --account x --region r",
            "it is sent as another account than the job's own",
        ),
        ("gcloud dataflow jobs run a --region r", "`--gcs-location` is missing"),
        (
            "gcloud dataflow flex-template run a --template-file-gcs-location gs://a/b --parameters ^~^a=b",
            "parameters with a separator of their own are not understood",
        ),
        (
            "gcloud dataflow flex-template run a --template-file-gcs-location gs://a/b --max-workers many",
            "`--max-workers many` is no number",
        ),
        ("gsutil cp -r a gs://b/c", "which files a folder holds is not known"),
        ("gsutil cp gs://a/b gs://b/c", "copies from bucket to bucket are not understood"),
        ("gcloud storage cp 'gs://a/*' .", "which files a pattern stands for is not known"),
        ("bq mk x", "this command of bq is not understood"),
    ] {
        let plan = self::plan(text);
        assert_eq!((told(&plan), open(&plan).len()), (vec![], 1), "{text}");
        assert_eq!(open(&plan)[0].2, why, "{text}");
    }
}

/// "Nothing is guessed": of a variable that may be something else when the command runs, nothing is known.
#[test]
fn a_variable_that_may_be_something_else_is_not_known() {
    const PUBLISH: &str = "gcloud pubsub topics publish projects/acme/topics/$T --message=a";
    for before in [
        "T=safe\nfor T in secret other; do",
        "T=safe\nif true; then\nT=secret\nfi",
        "T=safe\n[ \"$CI\" = true ] && T=secret",
        "T=safe\n[ \"$CI\" = true ] || T=secret",
        "T=safe\nread T",
        "T=safe\nread -r T",
        "T=safe\nunset T",
        "T=sa\nT+=fe",
        "T=safe\n. ./settings.sh",
        "T=safe\nsource settings.sh",
        "T=safe\nlocal T=secret",
        "T=safe\ndeclare -x T=secret",
        "T=safe\ncase $X in\na) T=secret;;\nesac",
        "T=safe\nwhile true; do T=secret; break; done",
        "T=safe echo a",
        "(T=safe)",
        "echo a | T=safe",
        "T=safe\nfalse &&\nT=secret",
        "f() { T=safe; }",
    ] {
        let plan = plan(&format!("curl https://a.example/\n{before}\n{PUBLISH}"));
        assert_eq!(plan.requests.len(), 1, "{before}: {:?}", told(&plan));
        assert!(open(&plan).iter().any(|(_, text, _)| text.contains("topics publish")), "{before}");
    }
    for before in [
        "T=safe",
        "export T=safe",
        "T=other\nT=safe",
        "export T=safe && echo a",
        "sleep 1 &\nT=safe",
        "if true; then echo a; fi\nT=safe",
    ] {
        let plan = plan(&format!("curl https://a.example/\n{before}\n{PUBLISH}"));
        let is_safe = plan.requests.iter().any(|one| one.url.ends_with("/topics/safe:publish"));
        assert!(is_safe, "{before}: {:?}", open(&plan));
    }
}
