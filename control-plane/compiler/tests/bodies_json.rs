//! Rules on what JSON bodies say, and the ways around them.

mod common;

use common::calls::{Gateway, Message, allowing, at, frames, text};

const JSON: &str = "content-type: application/json";

fn launch(more: &str) -> Gateway {
    allowing(&format!(
        "launch: {{service: dataflow, project: acme, region: europe-west4, jobName: 'orders-*', template: \
         'gs://acme-templates/orders/*', runAs: etl@acme.iam.gserviceaccount.com{more}}}"
    ))
}

fn dataflow(path: &str) -> String {
    format!("POST dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/{path}\n{JSON}")
}

const ENVIRONMENT: &str = r#""environment": {"serviceAccountEmail": "etl@acme.iam.gserviceaccount.com"}"#;

fn bodies(gateway: &Gateway, call: &str, allowed: &[&str], refused: &[&str]) {
    let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let (allowed, refused) = (bytes(allowed), bytes(refused));
    gateway.allows_bodies(call, &allowed.iter().map(Vec::as_slice).collect::<Vec<_>>());
    gateway.refuses_bodies(call, &refused.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn a_job_is_created_from_a_template() {
    let gateway = launch("");
    let job = |more: &str| {
        format!(
            r#"{{"jobName": "orders-1", "gcsPath": "gs://acme-templates/orders/v1", {ENVIRONMENT}{more}}}"#
        )
    };
    let call = dataflow("templates");
    bodies(
        &gateway,
        &call,
        &[
            &job(""),
            &job(r#", "location": "europe-west4""#),
            &job(r#", "parameters": null"#),
            &job("").replace("jobName", "job_name").replace("gcsPath", "gcs_path"),
            &job("").replace("orders-1", "orders\\u002d1"),
        ],
        &[
            &job("").replace("orders-1", "payments-1"),
            &job("").replace("acme-templates", "evil"),
            &job("").replace("etl@", "admin@"),
            &job("").replace(ENVIRONMENT, r#""environment": {}"#),
            &job(r#", "location": "us-central1""#),
            // Unstated: parameters, another bucket, options that name another account.
            &job(r#", "parameters": {"input": "gs://secret"}"#),
            &job(r#", "parameters": {}"#),
            &job("").replace("}", r#", "tempLocation": "gs://evil/x"}"#),
            &job("").replace("}", r#", "additionalPipelineOptions": ["--serviceAccount=admin@acme"]}"#),
            &job("").replace("}", r#", "additional_experiments": ["a"]}"#),
            // Two values, two spellings, another case, a broken document, none.
            &job(r#", "gcsPath": "gs://evil/x""#),
            &job(r#", "gcs_path": "gs://evil/x""#),
            &job(r#", "GcsPath": "gs://evil/x""#),
            &job(r#", "gcs\u0050ath": "gs://evil/x""#),
            &job("").replace(r#""orders-1""#, r#"["orders-1", "payments"]"#),
            &job("").replace(r#""orders-1""#, r#"{"a": "orders-1"}"#),
            job("").get(..40).unwrap(),
            &format!("{}{{}}", job("")),
            "{}",
            "",
            "[]",
        ],
    );
    let good = job("");
    for kind in
        ["text/plain", "application/json; charset=utf-16", "application/x-protobuf", "application/grpc"]
    {
        gateway.refuses_bodies(&call.replace("application/json", kind), &[good.as_bytes()]);
    }
    gateway.refuses_bodies(&call.replace(JSON, "x: y"), &[good.as_bytes()]);
    gateway.refuses_bodies(&call, &[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]]);
    for query in [
        "$ct=application/x-protobuf",
        "gcsPath=gs://evil/x",
        "callback=f",
        "$httpMethod=PUT",
        "location=us-central1",
    ] {
        gateway
            .refuses_bodies(&call.replace("/templates", &format!("/templates?{query}")), &[good.as_bytes()]);
    }
    gateway.allows_bodies(&call.replace("/templates", "/templates?alt=json&$.xgafv=2"), &[good.as_bytes()]);
    gateway.refuses_bodies(&call.replace("europe-west4", "us-central1"), &[good.as_bytes()]);
}

#[test]
fn a_template_is_launched() {
    let gateway = launch("");
    let call = dataflow("templates:launch?gcsPath=gs://acme-templates/orders/v1");
    let good = format!(r#"{{"jobName": "orders-1", {ENVIRONMENT}}}"#);
    bodies(
        &gateway,
        &call,
        &[&good],
        &[
            &good.replace("orders-1", "x"),
            &good.replace("etl@", "admin@"),
            r#"{"jobName": "orders-1"}"#,
            &good.replace('{', r#"{"update": true, "#),
        ],
    );
    gateway.refuses_bodies(&call.replace("acme-templates", "evil"), &[good.as_bytes()]);
    gateway.refuses_bodies(&dataflow("templates:launch"), &[good.as_bytes()]);
    // A template says nothing of a job that brings its own steps.
    gateway.refuses_bodies(&dataflow("jobs"), &[good.replace("jobName", "name").as_bytes()]);
}

#[test]
fn a_flexible_template_is_launched() {
    let gateway = launch(", temp: 'gs://acme-temp/*'");
    let call = dataflow("flexTemplates:launch");
    let environment = ENVIRONMENT.replace('}', r#", "tempLocation": "gs://acme-temp/orders"}"#);
    let good = format!(
        r#"{{"launchParameter": {{"jobName": "orders-1", "containerSpecGcsPath": "gs://acme-templates/orders/v1", {environment}}}}}"#
    );
    bodies(
        &gateway,
        &call,
        &[&good, &good.replace("launchParameter", "launch_parameter")],
        &[
            &good.replace("acme-temp/", "evil/"),
            &good.replace("acme-templates/", "evil/"),
            &good.replace(
                r#""containerSpecGcsPath""#,
                r#""containerSpec": {"image": "evil"}, "containerSpecGcsPath""#,
            ),
            &good.replace(r#""tempLocation""#, r#""sdkContainerImage": "evil", "tempLocation""#),
            &good.replace(r#""jobName""#, r#""parameters": {"serviceAccount": "admin"}, "jobName""#),
        ],
    );
}

#[test]
fn a_job_with_steps_of_its_own_is_created() {
    let gateway = allowing(
        "launch: {service: dataflow, project: acme, region: europe-west4, jobName: 'orders-*', runAs: \
         etl@acme.iam.gserviceaccount.com, methods: [jobs.create]}",
    );
    let call = dataflow("jobs");
    let good = format!(r#"{{"name": "orders-1", "projectId": "acme", {ENVIRONMENT}}}"#);
    bodies(
        &gateway,
        &call,
        &[&good],
        &[
            &good.replace("acme\"", "other\""),
            &good.replace('{', r#"{"location": "us-central1", "#),
            &good.replace("orders-1", "x"),
            &good.replace("etl@", "admin@"),
            &good.replace("\"name\"", r#""replaceJobId": "1", "name""#),
        ],
    );
    let call = "POST dataflow.googleapis.com/google.dataflow.v1beta3.JobsV1Beta3/CreateJob\ncontent-type: application/grpc";
    let job = |name: &str, account: &str| {
        let job = Message(text(3, name).0).message(5, &text(10, account));
        frames(&[text(1, "acme").text(5, "europe-west4").message(2, &job)])
    };
    let account = "etl@acme.iam.gserviceaccount.com";
    gateway.allows_bodies(call, &[&job("orders-1", account)]);
    gateway
        .refuses_bodies(call, &[&job("x", account), &job("orders-1", "admin@acme.iam.gserviceaccount.com")]);
}

#[test]
fn a_default_account_is_written_out() {
    let gateway = allowing(
        "launch: {service: dataflow, project: acme, region: europe-west4, template: 'gs://t/*', runAs: default, methods: \
         [templates.launch]}",
    );
    let call = dataflow("templates:launch?gcsPath=gs://t/v1");
    bodies(
        &gateway,
        &call,
        &[r#"{"jobName": "a"}"#],
        &[
            &format!(r#"{{"jobName": "a", {ENVIRONMENT}}}"#),
            r#"{"environment": {"service_account_email": "x"}}"#,
        ],
    );
}

#[test]
fn an_on_call_person_cancels_and_does_nothing_else() {
    let gateway = allowing(
        "resources: {service: dataflow, actions: [cancel, drain], names: ['projects/acme/locations/europe-west4/jobs/*']}",
    );
    let call = dataflow("jobs/1").replace("POST", "PUT");
    bodies(
        &gateway,
        &call,
        &[r#"{"requestedState": "JOB_STATE_CANCELLED"}"#, r#"{"requested_state": "JOB_STATE_DRAINING"}"#],
        &[
            r#"{"requestedState": "JOB_STATE_RUNNING"}"#,
            r#"{"requestedState": ["JOB_STATE_CANCELLED", "JOB_STATE_DONE"]}"#,
            r#"{"requestedState": "JOB_STATE_CANCELLED", "requested_state": "JOB_STATE_DONE"}"#,
            "{}",
            "",
        ],
    );
    let cancel = br#"{"requestedState": "JOB_STATE_CANCELLED"}"#;
    gateway.refuses_bodies(&call.replace("jobs/1", "jobs/1?updateMask=x"), &[cancel]);
    gateway.refuses_bodies(&call.replace("europe-west4", "us-central1"), &[cancel]);
    let call = "POST dataflow.googleapis.com/google.dataflow.v1beta3.JobsV1Beta3/UpdateJob\ncontent-type: application/grpc";
    let state = |state: u64| {
        let job = Message::default().number(9, state);
        frames(&[text(1, "acme").text(2, "1").text(4, "europe-west4").message(3, &job)])
    };
    gateway.allows_bodies(call, &[&state(5), &state(7), &state(8)]);
    gateway.refuses_bodies(
        call,
        &[&state(2), &state(0), &frames(&[text(1, "acme").text(2, "1").text(4, "europe-west4")])],
    );
}

#[test]
fn rows_go_to_the_table_that_is_named() {
    let gateway = allowing(
        "resources: {service: bigquery, actions: [insertAll], names: ['projects/acme/datasets/sales/tables/orders']}",
    );
    let call = format!(
        "POST bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/orders/insertAll\n{JSON}"
    );
    bodies(
        &gateway,
        &call,
        &[r#"{"rows": [{"json": {"templateSuffix": "x"}}]}"#, r#"{"templateSuffix": null, "rows": []}"#],
        &[r#"{"templateSuffix": "_secret", "rows": []}"#, r#"{"template_suffix": "_secret"}"#],
    );
}

#[test]
fn tables_and_datasets_are_created_under_their_names() {
    let gateway = allowing(
        "resources: {service: bigquery, actions: [tables.insert], names: ['projects/acme/datasets/sales/tables/orders_*'], \
         unchecked: [sql]}",
    );
    let call =
        format!("POST bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables\n{JSON}");
    let table = |project: &str, dataset: &str, table: &str| {
        format!(
            r#"{{"tableReference": {{"projectId": "{project}", "datasetId": "{dataset}", "tableId": "{table}"}}, "schema": {{}}}}"#
        )
    };
    bodies(
        &gateway,
        &call,
        &[&table("acme", "sales", "orders_eu"), r#"{"tableReference": {"tableId": "orders_eu"}}"#],
        &[
            &table("acme", "sales", "secret"),
            &table("acme", "hr", "orders_eu"),
            &table("other", "sales", "orders_eu"),
            r#"{"tableReference": {"tableId": "orders_eu"}, "externalDataConfiguration": {"sourceUris": ["gs://x"]}}"#,
            "{}",
        ],
    );
    let gateway = allowing(
        "resources: {service: bigquery, actions: [datasets.insert], names: ['projects/acme/datasets/sales_*']}",
    );
    let call = format!("POST bigquery.googleapis.com/bigquery/v2/projects/acme/datasets\n{JSON}");
    bodies(
        &gateway,
        &call,
        &[r#"{"datasetReference": {"datasetId": "sales_eu", "projectId": "acme"}}"#],
        &[
            r#"{"datasetReference": {"datasetId": "hr"}}"#,
            r#"{"datasetReference": {"datasetId": "sales_eu", "projectId": "other"}}"#,
            r#"{"datasetReference": {"datasetId": "sales_eu"}, "access": [{"role": "OWNER"}]}"#,
        ],
    );
    let call = "POST bigquery.googleapis.com/google.cloud.bigquery.v2.DatasetService/InsertDataset\ncontent-type: application/grpc";
    let dataset = at(&[2, 5, 1], "sales_eu");
    gateway.allows_bodies(call, &[&frames(&[dataset.clone().text(1, "acme")])]);
    gateway.refuses_bodies(
        call,
        &[&frames(&[Message([dataset.0, at(&[2, 5, 2], "other").0].concat()).text(1, "acme")])],
    );
}

#[test]
fn a_subscription_is_of_the_topic_that_is_named() {
    let gateway = allowing(
        "resources: {service: pubsub, actions: [subscriptions.create], names: ['projects/acme/subscriptions/orders', \
         'projects/acme/topics/orders']}",
    );
    let call = format!("PUT pubsub.googleapis.com/v1/projects/acme/subscriptions/orders\n{JSON}");
    bodies(
        &gateway,
        &call,
        &[r#"{"topic": "projects/acme/topics/orders"}"#],
        &[
            r#"{"topic": "projects/acme/topics/secret"}"#,
            r#"{"topic": "projects/acme/topics/orders", "pushConfig": {"pushEndpoint": "https://evil.example"}}"#,
            r#"{"topic": "projects/acme/topics/orders", "push_config": {"push_endpoint": "https://evil.example"}}"#,
            r#"{"topic": "projects/acme/topics/orders", "bigqueryConfig": {"table": "x"}}"#,
        ],
    );
    let call = "POST pubsub.googleapis.com/google.pubsub.v1.Subscriber/CreateSubscription\ncontent-type: application/grpc";
    let subscription = text(1, "projects/acme/subscriptions/orders");
    gateway.allows_bodies(call, &[&frames(&[subscription.clone().text(2, "projects/acme/topics/orders")])]);
    gateway.refuses_bodies(call, &[&frames(&[subscription.text(2, "projects/acme/topics/secret")])]);
}

#[test]
fn a_pipeline_runs_as_the_account_that_is_named() {
    let gateway = allowing(
        "launch: {service: tekton, namespace: ci, template: 'orders-*', runAs: builder, hosts: [api.prod.example]}",
    );
    let call = format!("POST api.prod.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns\n{JSON}");
    let good = r#"{"kind": "PipelineRun", "metadata": {"generateName": "orders-"}, "spec": {"pipelineRef": {"name": "orders-build"}, "taskRunTemplate": {"serviceAccountName": "builder"}}}"#;
    bodies(
        &gateway,
        &call,
        &[good],
        &[
            &good.replace("orders-build", "evil"),
            &good.replace("\"builder\"", "\"admin\""),
            &good.replace("\"pipelineRef\"", r#""pipelineSpec": {"tasks": []}, "pipelineRef""#),
            &good.replace("\"name\"", r#""resolver": "git", "name""#),
            &good.replace("serviceAccountName", "service_account_name"),
            &good.replace(
                "\"pipelineRef\"",
                r#""taskRunSpecs": [{"serviceAccountName": "admin"}], "pipelineRef""#,
            ),
            r#"{"spec": {"pipelineRef": {"name": "orders-build"}}}"#,
        ],
    );
    // In the older version the account is elsewhere.
    gateway.refuses_bodies(&call.replace("/v1/", "/v1beta1/"), &[good.as_bytes()]);
    gateway.refuses_bodies(&call.replace("application/json", "application/yaml"), &[good.as_bytes()]);
    gateway.refuses_bodies(&call.replace("pipelineruns", "taskruns"), &[good.as_bytes()]);
}

#[test]
fn a_pipeline_is_triggered_on_one_ref() {
    let gateway = allowing(
        "launch: {service: gitlab, project: '4711', ref: main, hosts: [gitlab.example], unchecked: \
         [credential, variables, inputs]}",
    );
    let call = format!("POST gitlab.example/api/v4/projects/4711/trigger/pipeline\n{JSON}");
    bodies(
        &gateway,
        &call,
        &[r#"{"token": "t", "ref": "main"}"#],
        &[
            r#"{"token": "t", "ref": "evil"}"#,
            r#"{"token": "t", "ref": ["main", "evil"]}"#,
            r#"{"token": "t"}"#,
            "",
        ],
    );
    let good: &[u8] = br#"{"token": "t", "ref": "main"}"#;
    for query in ["ref=evil", "r%65f=evil", "ref", "private_token=x"] {
        gateway.refuses_bodies(&call.replace("/pipeline", &format!("/pipeline?{query}")), &[good]);
    }
    gateway.refuses_bodies(
        &call.replace("application/json", "application/x-www-form-urlencoded"),
        &[b"ref=main"],
    );
    gateway.refuses_bodies(&call.replace("4711", "4712"), &[good]);
}

/// People are told which workloads need the build of the module that reads bodies.
#[test]
fn a_policy_says_whether_it_reads_bodies() {
    let reads = |names: &str| {
        let to = format!("resources: {{service: pubsub, actions: [publish], names: ['{names}']}}");
        let rules = format!("{}{}", common::calls::EGRESS, common::calls::rule("a", "Allow", &to));
        let compiled = common::compiled(&rules);
        let policy = common::policy(&compiled, "egress", "external");
        assert_eq!(
            policy.reads_bodies,
            !tidegate_engine::PolicySet::decode(&policy.rules).unwrap().body_fields().is_empty()
        );
        policy.reads_bodies
    };
    assert!(reads("projects/acme/topics/orders"));
    assert!(!reads("projects/*/topics/*"));
}

#[test]
fn jobs_read_and_write_what_is_named() {
    let gateway = allowing(
        "launch: {service: bigquery, project: acme, kinds: [load, copy, extract], sources: ['gs://lake/raw/*', \
         'projects/acme/datasets/sales/tables/orders*'], destinations: ['projects/acme/datasets/mart/tables/*', \
         'gs://export/*']}",
    );
    let call = format!("POST bigquery.googleapis.com/bigquery/v2/projects/acme/jobs\n{JSON}");
    let table = |dataset: &str, table: &str| {
        format!(r#"{{"projectId": "acme", "datasetId": "{dataset}", "tableId": "{table}"}}"#)
    };
    let job = |kind: &str, more: &str| {
        format!(r#"{{"jobReference": {{"projectId": "acme"}}, "configuration": {{"{kind}": {{{more}}}}}}}"#)
    };
    let (orders, mart, secret) =
        (table("sales", "orders_eu"), table("mart", "orders"), table("hr", "salaries"));
    let load = job(
        "load",
        &format!(r#""sourceUris": ["gs://lake/raw/a", "gs://lake/raw/b"], "destinationTable": {mart}"#),
    );
    let copy = job("copy", &format!(r#""sourceTable": {orders}, "destinationTable": {mart}"#));
    let several =
        job("copy", &format!(r#""sourceTables": [{orders}, {orders}], "destinationTable": {mart}"#));
    let extract =
        job("extract", &format!(r#""sourceTable": {orders}, "destinationUris": ["gs://export/a"]"#));
    bodies(
        &gateway,
        &call,
        &[&load, &copy, &several, &extract],
        &[
            &load.replace("lake/raw/b", "evil/b"),
            &load.replace("mart", "hr"),
            &load.replace("\"acme\", \"datasetId\"", "\"other\", \"datasetId\""),
            &load.replace("{\"projectId\": \"acme\"}", "{\"projectId\": \"other\"}"),
            &copy.replace(&orders, &secret),
            &copy.replace(&mart, &secret),
            &several.replacen(&orders, &secret, 1),
            &extract.replace("export", "evil"),
            &extract.replace(&orders, &secret),
            &extract
                .replace("\"destinationUris\"", "\"destinationUri\": \"gs://evil/a\", \"destinationUris\""),
            // Exactly one kind.
            &load.replace("\"load\"", "\"query\": {\"query\": \"SELECT 1\"}, \"load\""),
            &load.replace("\"load\"", "\"extract\": {}, \"load\""),
            &job("query", r#""query": "DROP TABLE x""#),
            "{}",
            "",
        ],
    );
    gateway
        .refuses_bodies(&call.replace("/jobs", "/queries"), &[load.as_bytes(), b"{\"query\": \"SELECT 1\"}"]);
    gateway.refuses_bodies(&call.replace("/acme/", "/other/"), &[load.as_bytes()]);
    let upload = call.replace("/bigquery/v2", "/upload/bigquery/v2");
    gateway.refuses_bodies(&upload.replace("application/json", "multipart/related"), &[load.as_bytes()]);
}
