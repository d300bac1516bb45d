//! Rules on resources whose names are in gRPC messages, and the ways around them.

mod common;

use common::calls::{Gateway, Message, allowing, at, denying, frames, text};
use tidegate_engine::Reason;

const GRPC: &str = "content-type: application/grpc";

fn grpc(host: &str, method: &str) -> String {
    format!("POST {host}.googleapis.com/{method}\n{GRPC}")
}

fn publish() -> String {
    grpc("pubsub", "google.pubsub.v1.Publisher/Publish")
}

/// A message that is published.
fn event() -> Message {
    Message::default().message(2, &text(1, "projects/acme/topics/secret"))
}

fn publisher() -> Gateway {
    allowing("resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/orders-*']}")
}

#[test]
fn a_topic_is_published_to() {
    let topic = |name: &str| frames(&[text(1, name).message(2, &event())]);
    let gateway = publisher();
    assert_eq!(gateway.reason(&publish()), Reason::BodyUnread);
    gateway.allows_bodies(
        &publish(),
        &[
            &topic("projects/acme/topics/orders-eu"),
            &topic("projects/acme/topics/orders-"),
            // The name may come last, and be there twice.
            &frames(&[event().text(1, "projects/acme/topics/orders-eu")]),
            &frames(&[text(1, "projects/acme/topics/orders-eu").text(1, "projects/acme/topics/orders-eu")]),
        ],
    );
    gateway.allows(&["POST pubsub.googleapis.com/v1/projects/acme/topics/orders-eu:publish"]);
    gateway.refuses_bodies(
        &publish(),
        &[
            &topic("projects/acme/topics/payments"),
            &topic("projects/other/topics/orders-eu"),
            &topic("projects/acme/topics/orders-eu/x"),
            &topic("projects/acme/topics/orders-eu/"),
            &topic("/projects/acme/topics/orders-eu"),
            &topic("//pubsub.googleapis.com/projects/acme/topics/orders-eu"),
            &topic("projects/acme/Topics/orders-eu"),
            &topic("projects/acme/topics/ORDERS-eu"),
            &topic("projects/123456/topics/orders-eu"),
            &topic(""),
            &frames(&[event()]),
            &[],
        ],
    );
}

/// "Header topic=A and body topic=B"; a second value; a value that is not where it should be.
#[test]
fn a_message_hides_no_second_topic() {
    let (good, bad) = ("projects/acme/topics/orders-eu", "projects/acme/topics/secret");
    let gateway = publisher();
    let hidden: [Vec<u8>; 11] = [
        frames(&[text(1, good).text(1, bad)]),
        frames(&[text(1, bad).text(1, good)]),
        frames(&[text(1, good).message(2, &event()).text(1, bad)]),
        frames(&[text(1, good), text(1, bad)]),
        frames(&[text(1, good).number(1, 7)]),
        frames(&[text(2, good)]),
        // A compressed message.
        [&[1], frames(&[text(1, good)]).get(1..).unwrap()].concat(),
        // A message that is cut, and one that is longer than it says.
        frames(&[text(1, good)]).get(..12).unwrap().to_vec(),
        [frames(&[text(1, good)]), vec![0, 0]].concat(),
        // No gRPC at all.
        format!("{{\"topic\": \"{good}\"}}").into_bytes(),
        text(1, good).0,
    ];
    let hidden: Vec<&[u8]> = hidden.iter().map(Vec::as_slice).collect();
    gateway.refuses_bodies(&publish(), &hidden);
    // What the header says does not count.
    let told = format!("{}\nx-goog-request-params: topic={good}", publish());
    gateway.refuses_bodies(&told, &[&frames(&[text(1, bad)])]);
    let told = format!("{}\nx-goog-request-params: topic={bad}", publish());
    gateway.allows_bodies(&told, &[&frames(&[text(1, good)])]);
}

#[test]
fn only_grpc_is_read_as_grpc() {
    let good = frames(&[text(1, "projects/acme/topics/orders-eu")]);
    let gateway = publisher();
    for kind in
        ["application/grpc-web", "application/json", "application/x-protobuf", "application/grpc+json"]
    {
        let call = publish().replace("application/grpc", kind);
        gateway.refuses_bodies(&call, &[&good, br#"{"topic": "projects/acme/topics/orders-eu"}"#]);
    }
    gateway.refuses_bodies(&publish().replace(GRPC, "x: y"), &[&good]);
    gateway.refuses_bodies(&publish().replace("/google", "/$rpc/google"), &[&good]);
    gateway.refuses_bodies(&publish().replace("POST", "GET"), &[&good]);
    gateway.refuses_bodies(&publish().replace("/Publish", "/Publish?$httpMethod=PUT"), &[&good]);
    gateway.refuses_bodies(&publish().replace("/Publish", "/DeleteTopic"), &[&good]);
    gateway.allows_bodies(&publish().replace("application/grpc", "application/grpc+proto"), &[&good]);
    gateway.allows_bodies(&publish().replace("/Publish", "/Publish?alt=json&$.xgafv=2"), &[&good]);
}

#[test]
fn a_consumer_reads_one_subscription() {
    let gateway = allowing(
        "resources: {service: pubsub, actions: [read], names: ['projects/acme/subscriptions/orders']}",
    );
    let (good, bad) = ("projects/acme/subscriptions/orders", "projects/acme/subscriptions/orders2");
    for method in ["Pull", "Acknowledge", "ModifyAckDeadline", "GetSubscription", "StreamingPull"] {
        let call = grpc("pubsub", &format!("google.pubsub.v1.Subscriber/{method}"));
        gateway.allows_bodies(&call, &[&frames(&[text(1, good)])]);
        gateway.refuses_bodies(&call, &[&frames(&[text(1, bad)]), &frames(&[text(2, good)]), &[]]);
    }
    let stream = grpc("pubsub", "google.pubsub.v1.Subscriber/StreamingPull");
    // Later messages leave it out.
    gateway.allows_bodies(&stream, &[&frames(&[text(1, good), text(2, "ack-1"), text(2, "ack-2")])]);
    gateway.refuses_bodies(
        &stream,
        &[
            &frames(&[text(1, good), text(2, "ack-1"), text(1, bad)]),
            &frames(&[text(2, "ack-1"), text(1, good)]),
        ],
    );
    gateway.refuses_bodies(&grpc("pubsub", "google.pubsub.v1.Subscriber/Seek"), &[&frames(&[text(1, good)])]);
}

/// "One AppendRows connection may switch destination in a later message."
#[test]
fn every_message_of_a_writer_counts() {
    let gateway = allowing(
        "resources: {service: bigquerystorage, actions: [AppendRows], names: \
         ['projects/acme/datasets/sales/tables/orders/streams/*']}",
    );
    let call = grpc("bigquerystorage", "google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows");
    let orders = "projects/acme/datasets/sales/tables/orders/streams/_default";
    let other = "projects/acme/datasets/sales/tables/orders/streams/a";
    let secret = "projects/acme/datasets/sales/tables/secret/streams/_default";
    gateway.allows_bodies(
        &call,
        &[
            &frames(&[text(1, orders), text(4, "rows"), text(4, "rows")]),
            &frames(&[text(1, orders), text(1, other)]),
        ],
    );
    gateway.refuses_bodies(
        &call,
        &[
            &frames(&[text(1, orders), text(1, secret)]),
            &frames(&[text(1, orders), text(4, "rows"), text(1, orders).text(1, secret)]),
            &frames(&[text(4, "rows")]),
        ],
    );
}

#[test]
fn a_session_reads_one_table_and_is_billed_to_a_project_that_is_left_open() {
    let rule = |more: &str| {
        format!(
            "resources: {{service: bigquerystorage, actions: [CreateReadSession], names: \
             ['projects/acme/datasets/sales/tables/orders']{more}}}"
        )
    };
    let call = grpc("bigquerystorage", "google.cloud.bigquery.storage.v1.BigQueryRead/CreateReadSession");
    let orders = at(&[2, 6], "projects/acme/datasets/sales/tables/orders");
    let secret = at(&[2, 6], "projects/acme/datasets/sales/tables/secret");
    let billed = orders.clone().text(1, "projects/acme");
    let closed = allowing(&rule(""));
    closed.allows_bodies(&call, &[&frames(std::slice::from_ref(&orders))]);
    closed.refuses_bodies(
        &call,
        &[&frames(std::slice::from_ref(&billed)), &frames(std::slice::from_ref(&secret))],
    );
    let open = allowing(&rule(", unchecked: [billingProject]"));
    open.allows_bodies(&call, &[&frames(&[billed])]);
    // A message that is there twice is merged.
    let merged = Message([orders.0, secret.0].concat());
    open.refuses_bodies(&call, &[&frames(&[merged])]);
}

#[test]
fn a_name_in_several_fields_needs_all_of_them() {
    let gateway = allowing(
        "resources: {service: dataflow, actions: [jobs.get], names: ['projects/acme/locations/europe-west4/jobs/*']}",
    );
    let call = grpc("dataflow", "google.dataflow.v1beta3.JobsV1Beta3/GetJob");
    let job = |project: &str, region: &str| text(1, project).text(2, "2026-11-21_1").text(4, region);
    gateway.allows_bodies(&call, &[&frames(&[job("acme", "europe-west4")])]);
    gateway.refuses_bodies(
        &call,
        &[
            &frames(&[job("acme", "us-central1")]),
            &frames(&[job("other", "europe-west4")]),
            &frames(&[job("acme", "")]),
            // A region that is left out is us-central1.
            &frames(&[text(1, "acme").text(2, "2026-11-21_1")]),
            &frames(&[job("acme", "europe-west4").text(4, "us-central1")]),
            &frames(&[job("acme", "europe-west4").text(1, "other")]),
        ],
    );
}

#[test]
fn objects_are_told_by_bucket_and_object() {
    let gateway = allowing(
        "resources: {service: storage, actions: [grpc.ReadObject, WriteObject, BidiWriteObject], names: \
         ['projects/_/buckets/lake/objects/raw/**', 'projects/_/buckets/lab-*/objects/*/open/**']}",
    );
    let read = grpc("storage", "google.storage.v2.Storage/ReadObject");
    let object = |bucket: &str, object: &str| frames(&[text(1, bucket).text(2, object)]);
    gateway.allows_bodies(
        &read,
        &[
            &object("projects/_/buckets/lake", "raw/2026/a.csv"),
            &object("projects/_/buckets/lake", "raw/a"),
            &object("projects/_/buckets/lab-1", "x/open/a/b"),
        ],
    );
    gateway.refuses_bodies(
        &read,
        &[
            &object("projects/_/buckets/lake", "secret/a"),
            &object("projects/_/buckets/lake", "raw"),
            &object("projects/_/buckets/other", "raw/a"),
            &object("projects/acme/buckets/lake", "raw/a"),
            &object("projects/_/buckets/lab-1", "x/y/open/a"),
            &object("projects/_/buckets/lab-1", "x/open/"),
            &object("projects/_/buckets/lab-/x", "x/open/a"),
        ],
    );
    let resource = |bucket: &str, name: &str| text(1, name).text(2, bucket);
    let spec = |bucket: &str, name: &str| Message::default().message(1, &resource(bucket, name));
    let write = |bucket: &str, name: &str| Message::default().message(2, &spec(bucket, name));
    for method in ["WriteObject", "BidiWriteObject"] {
        let call = grpc("storage", &format!("google.storage.v2.Storage/{method}"));
        let good = write("projects/_/buckets/lake", "raw/a");
        let data = Message::default().message(4, &text(1, "content"));
        gateway.allows_bodies(&call, &[&frames(&[good.clone(), data.clone()])]);
        gateway.refuses_bodies(
            &call,
            &[
                &frames(&[write("projects/_/buckets/lake", "secret/a")]),
                // A handle instead of a name, or beside it.
                &frames(&[text(1, "projects/_/buckets/lake/objects/raw/a")]),
                &frames(&[good.clone().text(1, "upload")]),
                &frames(&[good.clone(), data, text(1, "upload")]),
                &frames(&[good.clone(), write("projects/_/buckets/lake", "secret/a")]),
            ],
        );
    }
    // Exactly one of the alternatives.
    let call = grpc("storage", "google.storage.v2.Storage/BidiWriteObject");
    let append =
        |bucket: &str, object: &str| Message::default().message(11, &text(1, bucket).text(2, object));
    let good = append("projects/_/buckets/lake", "raw/a");
    gateway.allows_bodies(&call, &[&frames(std::slice::from_ref(&good))]);
    let both = Message([good.0, write("projects/_/buckets/lake", "raw/a").0].concat());
    gateway
        .refuses_bodies(&call, &[&frames(&[both]), &frames(&[append("projects/_/buckets/lake", "secret")])]);
}

#[test]
fn a_copy_names_both_objects() {
    let rule = |actions: &str| {
        format!(
            "resources: {{service: storage, actions: [{actions}], names: ['projects/_/buckets/lake/objects/raw/**'], \
             protocols: [grpc]}}"
        )
    };
    let gateway = allowing(&rule("grpc.MoveObject, grpc.GetObject, read"));
    let call = grpc("storage", "google.storage.v2.Storage/MoveObject");
    let r#move =
        |from: &str, to: &str| frames(&[text(1, "projects/_/buckets/lake").text(2, from).text(3, to)]);
    gateway.allows_bodies(&call, &[&r#move("raw/a", "raw/b")]);
    gateway.refuses_bodies(&call, &[&r#move("secret/a", "raw/b"), &r#move("raw/a", "open/b")]);
}

#[test]
fn views_of_a_table_are_named_by_themselves() {
    let gateway = allowing(
        "resources: {service: bigtable, actions: [ReadRows], names: ['projects/acme/instances/i/tables/orders', \
         'projects/acme/instances/i/tables/orders/authorizedViews/eu'], protocols: [grpc]}",
    );
    let call = grpc("bigtable", "google.bigtable.v2.Bigtable/ReadRows");
    let table = "projects/acme/instances/i/tables/orders";
    let view = "projects/acme/instances/i/tables/orders/authorizedViews/eu";
    gateway.allows_bodies(&call, &[&frames(&[text(1, table)]), &frames(&[text(9, view)])]);
    gateway.refuses_bodies(
        &call,
        &[
            &frames(&[text(1, table).text(9, view)]),
            &frames(&[text(9, &view.replace("eu", "us"))]),
            &frames(&[text(9, table)]),
            &frames(&[text(11, "projects/acme/instances/i/materializedViews/orders")]),
            &frames(&[text(1, table).text(11, "projects/acme/instances/i/materializedViews/secret")]),
        ],
    );
}

#[test]
fn what_else_a_message_names_is_absent_or_left_open() {
    let rule = |more: &str| {
        format!(
            "resources: {{service: pubsub, actions: [subscriptions.create], names: \
             ['projects/acme/subscriptions/orders'], protocols: [grpc]{more}}}"
        )
    };
    let call = grpc("pubsub", "google.pubsub.v1.Subscriber/CreateSubscription");
    let plain = text(1, "projects/acme/subscriptions/orders");
    let full = plain.clone().text(2, "projects/acme/topics/orders");
    let push = full.clone().message(4, &text(1, "https://evil.example"));
    let lake = full.clone().message(18, &text(1, "evil.sales.t"));
    let open = allowing(&rule(", unchecked: [topic]"));
    open.allows_bodies(&call, &[&frames(&[full])]);
    open.refuses_bodies(&call, &[&frames(&[push]), &frames(&[lake])]);
}

#[test]
fn a_deny_reads_the_message() {
    let gateway =
        denying("resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/secret']}");
    gateway.denies_bodies(
        &publish(),
        &[
            &frames(&[text(1, "projects/acme/topics/secret")]),
            &frames(&[text(1, "projects/123456/topics/secret")]),
            &frames(&[text(1, "projects/-/topics/secret")]),
            &frames(&[text(1, "projects/acme/topics/open").text(1, "projects/acme/topics/secret")]),
            &frames(&[text(1, "projects/acme/topics/open"), text(1, "projects/acme/topics/secret")]),
            &frames(&[text(1, "//pubsub.googleapis.com/projects/acme/topics/secret")]),
            &frames(&[event()]),
            &[],
            &[1, 0, 0, 0, 1, 0],
            b"{}",
        ],
    );
    gateway.allows_bodies(
        &publish(),
        &[
            &frames(&[text(1, "projects/acme/topics/open")]),
            &frames(&[text(1, "projects/other/topics/secret")]),
        ],
    );
    for call in [
        publish().replace("application/grpc", "application/grpc-web"),
        publish().replace("/google", "/$rpc/google").replace("application/grpc", "application/x-protobuf"),
        publish().replace(GRPC, "content-type: application/json"),
    ] {
        gateway.denies_bodies(&call, &[&frames(&[text(1, "projects/acme/topics/open")])]);
    }
}

#[test]
fn a_deny_of_a_region_covers_calls_that_leave_it_out() {
    let gateway = denying(
        "resources: {service: dataflow, actions: [jobs.get], names: ['projects/acme/locations/us-central1/jobs/*']}",
    );
    let call = grpc("dataflow", "google.dataflow.v1beta3.JobsV1Beta3/GetJob");
    let job = |project: &str, region: &str| frames(&[text(1, project).text(2, "1").text(4, region)]);
    gateway.denies_bodies(
        &call,
        &[
            &job("acme", "us-central1"),
            &job("123", "us-central1"),
            &job("acme", "-"),
            &job("acme", ""),
            &frames(&[text(1, "acme").text(2, "1")]),
        ],
    );
    gateway.allows_bodies(&call, &[&job("acme", "europe-west4"), &job("other", "us-central1")]);
}
