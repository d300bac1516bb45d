//! Launches that say again, in a field or a parameter, what their rule says: where workers are, as whom they run.

mod common;

use common::calls::{Gateway, Message, allowing, frames, text};

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

/// Workers may be elsewhere than the service that starts them.
#[test]
fn workers_are_where_the_job_is() {
    let good = format!(r#"{{"jobName": "orders-1", {ENVIRONMENT}}}"#);
    let flex = format!(
        r#"{{"launchParameter": {{"jobName": "orders-1", "containerSpecGcsPath": "gs://acme-templates/orders/v1", {ENVIRONMENT}}}}}"#
    );
    let template = "templates:launch?gcsPath=gs://acme-templates/orders/v1";
    for (path, body) in [(template, &good), ("flexTemplates:launch", &flex)] {
        let call = dataflow(path);
        let at = |place: &str| {
            body.replace("\"serviceAccountEmail\"", &format!("{place}, \"serviceAccountEmail\""))
        };
        let elsewhere = [
            at(r#""workerRegion": "us-central1""#),
            at(r#""worker_region": "us-central1""#),
            at(r#""workerZone": "us-central1-a""#),
            at(r#""zone": "us-central1-a""#),
            at(r#""zone": "europe-west4-a", "workerZone": "us-central1-a""#),
            at(r#""workerZone": "europe-west40""#),
        ];
        let here = [
            body.clone(),
            at(r#""workerRegion": "europe-west4""#),
            at(r#""workerZone": "europe-west4-b""#),
            at(r#""zone": "europe-west4-a""#),
        ];
        let texts = |texts: &[String]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        let (here, elsewhere) = (texts(&here), texts(&elsewhere));
        let gateway = launch("");
        for (bodies, is_here) in [(&here, true), (&elsewhere, false)] {
            for body in bodies {
                match is_here {
                    true => gateway.allows_bodies(&call, &[body]),
                    false => gateway.refuses_bodies(&call, &[body]),
                }
            }
        }
        // What is left open may be anywhere.
        let open = launch(", unchecked: [workerRegion, workerZone]");
        elsewhere.iter().for_each(|body| open.allows_bodies(&call, &[body]));
    }
    // A job with steps of its own, over HTTP and gRPC.
    let gateway = allowing(
        "launch: {service: dataflow, project: acme, region: europe-west4, runAs: etl@acme.iam.gserviceaccount.com, \
         methods: [jobs.create]}",
    );
    let job = |more: &str| format!(r#"{{"name": "a", {}}}"#, ENVIRONMENT.replace('}', &format!("{more}}}")));
    bodies(
        &gateway,
        &dataflow("jobs"),
        &[&job(""), &job(r#", "workerPools": [{"zone": "europe-west4-a"}]"#)],
        &[
            &job(r#", "workerRegion": "us-east1""#),
            &job(r#", "workerPools": [{"zone": "europe-west4-a"}, {"zone": "us-east1-b"}]"#),
        ],
    );
    let call = "POST dataflow.googleapis.com/google.dataflow.v1beta3.JobsV1Beta3/CreateJob\ncontent-type: application/grpc";
    let job = |environment: Message| {
        let environment = environment.text(10, "etl@acme.iam.gserviceaccount.com");
        let job = Message::default().message(5, &environment);
        frames(&[text(1, "acme").text(5, "europe-west4").message(2, &job)])
    };
    gateway.allows_bodies(call, &[&job(Message::default()), &job(text(13, "europe-west4"))]);
    let pools = Message::default().message(4, &text(9, "us-east1-b"));
    gateway.refuses_bodies(call, &[&job(text(13, "us-east1")), &job(text(14, "us-east1-b")), &job(pools)]);
}

/// Parameters become options of the pipeline, and these can say again what the rule says.
#[test]
fn parameters_that_are_open_do_not_undo_what_the_rule_says() {
    let call = dataflow("flexTemplates:launch");
    let with = |parameters: &str| {
        format!(
            r#"{{"launchParameter": {{"jobName": "orders-1", "containerSpecGcsPath": "gs://acme-templates/orders/v1", "parameters": {{{parameters}}}, {ENVIRONMENT}}}}}"#
        )
    };
    bodies(
        &launch(", temp: 'gs://acme-temp/*', unchecked: [parameters]"),
        &call,
        &[
            &with(""),
            &with(r#""input": "gs://lake/x", "numWorkers": "3""#),
            &with(r#""serviceAccount": "etl@acme.iam.gserviceaccount.com""#),
            &with(r#""region": "europe-west4", "project": "acme", "tempLocation": "gs://acme-temp/x""#),
        ],
        &[
            &with(r#""serviceAccount": "admin@acme.iam.gserviceaccount.com""#),
            &with(r#""input": "x", "service_account": "admin@acme.iam.gserviceaccount.com""#),
            &with(r#""serviceAccountEmail": "admin@acme.iam.gserviceaccount.com""#),
            &with(r#""service_account_email": "admin@acme.iam.gserviceaccount.com""#),
            &with(r#""serviceAccount": "etl@acme.iam.gserviceaccount.com", "serviceAccount": "admin@x""#),
            &with(r#""impersonateServiceAccount": "admin@acme.iam.gserviceaccount.com""#),
            &with(r#""impersonate_service_account": "etl@acme.iam.gserviceaccount.com""#),
            &with(r#""region": "us-central1""#),
            &with(r#""workerRegion": "us-central1""#),
            &with(r#""worker_zone": "us-central1-a""#),
            &with(r#""project": "other""#),
            &with(r#""gcpTempLocation": "gs://evil/x""#),
            &with(r#""staging_location": "gs://evil/x""#),
            &with(r#""sdkContainerImage": "evil""#),
            &with(r#""sdk_container_image": "evil""#),
        ],
    );
    // The default account is the one that nobody names.
    let default = "launch: {service: dataflow, project: acme, region: europe-west4, template: 'gs://t/*', runAs: default, \
                   methods: [flexTemplates.launch], unchecked: [parameters]}";
    let body = |parameters: &str| {
        format!(
            r#"{{"launchParameter": {{"jobName": "a", "containerSpecGcsPath": "gs://t/v1", "parameters": {{{parameters}}}}}}}"#
        )
    };
    bodies(
        &allowing(default),
        &call,
        &[&body(r#""input": "x""#)],
        &[&body(r#""serviceAccount": "default""#), &body(r#""serviceAccount": "admin@acme""#)],
    );
    // Over gRPC, once the options of which the catalogue has no number are open, a map is keys and values.
    let grpc = "POST dataflow.googleapis.com/google.dataflow.v1beta3.FlexTemplatesService/LaunchFlexTemplate\ncontent-type: \
                application/grpc";
    let launched = |parameters: &[(&str, &str)]| {
        let environment = text(4, "etl@acme.iam.gserviceaccount.com");
        let mut launch =
            text(1, "orders-1").text(5, "gs://acme-templates/orders/v1").message(7, &environment);
        for (key, value) in parameters {
            launch = launch.message(2, &text(1, key).text(2, value));
        }
        frames(&[text(1, "acme").text(3, "europe-west4").message(2, &launch)])
    };
    let gateway = launch(", unchecked: [parameters, options]");
    gateway.allows_bodies(grpc, &[&launched(&[]), &launched(&[("input", "x"), ("output", "y")])]);
    for key in ["serviceAccount", "service_account_email", "impersonate_service_account", "region"] {
        gateway.refuses_bodies(grpc, &[&launched(&[(key, "x")]), &launched(&[("input", "x"), (key, "x")])]);
    }
}
