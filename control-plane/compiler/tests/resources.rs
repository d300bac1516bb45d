//! What rules on resources let pass, and what they refuse.

mod common;

use common::calls::{EGRESS, Gateway, allowing, denying, rule};

const PUBLISH: &str = "resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/orders-*'], protocols: [http]}";

#[test]
fn a_topic_is_published_to_over_http() {
    let gateway = allowing(PUBLISH);
    gateway.allows(&[
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders-eu:publish",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders-eu:publish?alt=json&prettyPrint=false&$.xgafv=2",
        "POST europe-west4-pubsub.googleapis.com/v1/projects/acme/topics/orders-eu:publish",
        "POST pubsub.europe-west4.rep.googleapis.com/v1/projects/acme/topics/orders-eu:publish",
        "POST pubsub-private.p.googleapis.com/v1/projects/acme/topics/orders-eu:publish",
        "POST PubSub.GoogleAPIs.com.:443/v1/projects/acme/topics/orders-eu:publish",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders%2Deu%3Apublish",
    ]);
    gateway.refuses(&[
        "POST pubsub.googleapis.com/v1/projects/acme/topics/payments:publish",
        "POST pubsub.googleapis.com/v1/projects/other/topics/orders-eu:publish",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders-eu",
        "PUT pubsub.googleapis.com/v1/projects/acme/topics/orders-eu:publish",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders-eu",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc",
        "POST storage.googleapis.com/v1/projects/acme/topics/orders-eu:publish",
        "POST orders.example/v1/projects/acme/topics/orders-eu:publish",
    ]);
}

#[test]
fn grpc_is_allowed_where_the_names_cover_every_resource_of_the_kind() {
    let gateway =
        allowing("resources: {service: pubsub, actions: [publish], names: ['projects/*/topics/*']}");
    gateway.allows(&[
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc+proto",
        "POST pubsub.googleapis.com/v1/projects/a/topics/b:publish",
    ]);
    gateway.refuses(&[
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc-web",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/x-protobuf",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/DeleteTopic\ncontent-type: application/grpc",
        "POST pubsub.googleapis.com/$rpc/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc",
        "GET pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc",
    ]);
}

#[test]
fn a_consumer_is_one_class() {
    let gateway = allowing(
        "resources: {service: pubsub, actions: [read], names: ['projects/acme/subscriptions/orders'], protocols: [http]}",
    );
    for verb in ["pull", "acknowledge", "modifyAckDeadline"] {
        gateway
            .allows(&[&format!("POST pubsub.googleapis.com/v1/projects/acme/subscriptions/orders:{verb}")]);
    }
    gateway.allows(&["GET pubsub.googleapis.com/v1/projects/acme/subscriptions/orders"]);
    gateway.refuses(&[
        "POST pubsub.googleapis.com/v1/projects/acme/subscriptions/orders:seek",
        "POST pubsub.googleapis.com/v1/projects/acme/subscriptions/orders:modifyPushConfig",
        "PUT pubsub.googleapis.com/v1/projects/acme/subscriptions/orders",
        "DELETE pubsub.googleapis.com/v1/projects/acme/subscriptions/orders",
    ]);
}

#[test]
fn a_method_without_a_verb_does_not_let_verbs_pass() {
    let gateway = allowing(
        "resources: {service: pubsub, actions: [topics.get], names: ['projects/*/topics/*'], protocols: [http]}",
    );
    gateway.allows(&[
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders",
        "GET pubsub.googleapis.com/v1/projects/example.com:acme/topics/orders",
    ]);
    gateway.refuses(&[
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders:getIamPolicy",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders%3AgetIamPolicy",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders:whateverComesNext",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders/subscriptions",
    ]);
}

#[test]
fn rows_are_inserted_into_tables_whose_names_are_open_at_the_end() {
    let gateway = allowing(
        "resources: {service: bigquery, actions: [insertAll], names: ['projects/acme/datasets/sales/tables/orders*']}",
    );
    gateway.allows(&[
        "POST bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/orders_eu/insertAll",
        "POST www.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/orders_eu/insertAll",
    ]);
    gateway.refuses(&[
        "POST bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/secret/insertAll",
        "POST bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/secret$orders/insertAll",
        "POST bigquery.googleapis.com/upload/bigquery/v2/projects/acme/datasets/sales/tables/orders_eu/insertAll",
        "GET bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/orders_eu/data",
    ]);
}

#[test]
fn objects_are_uploaded_under_the_name_in_the_query() {
    let gateway = allowing(
        "resources: {service: storage, actions: [objects.insert], names: ['projects/_/buckets/lake/objects/raw/**'], \
         unchecked: [acl]}",
    );
    gateway.allows(&[
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?uploadType=media&name=raw%2F2026%2Fa.csv",
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?uploadType=multipart&name=raw/a.csv",
    ]);
    gateway.refuses(&[
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?uploadType=media&name=secret/a.csv",
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?uploadType=multipart",
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?name=raw/a&name=secret/a",
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?name=raw/a&n%61me=secret/a",
        "PUT storage.googleapis.com/upload/storage/v1/b/lake/o?name=raw/a&upload_id=abc",
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?name=raw/a&kmsKeyName=projects/x",
        "POST lake.storage.googleapis.com/upload/storage/v1/b/lake/o?name=raw/a",
        "POST storage.googleapis.com/upload/storage/v1/b/other/o?name=raw/a",
    ]);
}

#[test]
fn objects_have_slashes_in_their_names() {
    let reading = |names: &str| {
        allowing(&format!(
            "resources: {{service: storage, actions: [objects.get], names: [{names}], protocols: [http]}}"
        ))
    };
    let get = |object: &str| format!("GET storage.googleapis.com/storage/v1/b/lake/o/{object}?alt=media");
    let raw = reading("'projects/_/buckets/lake/objects/raw/2026/**'");
    raw.allows(&[&get("raw%2F2026%2Fa.csv"), &get("raw%2f2026%2f11%2fa.csv")]);
    raw.refuses(&[
        &get("raw%2F2025%2Fa.csv"),
        &get("raw%2F2026"),
        &get("raw%2F2026%2F"),
        &get("raw%2F2026%2F%2Fa"),
        &get("raw%2F2026%2F..%2F..%2Fsecret"),
        &get("raw%2F2026%2F%2e%2e%2Fsecret"),
        &get("raw%2F2026%5C..%5Csecret"),
        &get("raw%252F2026%252Fa.csv"),
        &get("raw/2026/a.csv"),
        &get("raw%2F2026/a.csv"),
        &get("secret"),
        "GET storage.googleapis.com/storage/v1/b/lake%2Fo%2Fraw%2F2026%2Fa",
        "GET storage.googleapis.com/storage/v1%2Fb%2Flake/o/raw%2F2026%2Fa",
        "GET pubsub.googleapis.com/storage/v1/b/lake/o/raw%2F2026%2Fa",
    ]);
    let csv = reading("'projects/_/buckets/lake/objects/raw/*.csv', 'projects/_/buckets/lake/objects/top-*'");
    csv.allows(&[&get("raw%2Fa.csv"), &get("top-a")]);
    csv.refuses(&[&get("raw%2Fb%2Fa.csv"), &get("top-%2Fa"), &get("top-a%2Fb"), &get("raw%2Fa.json")]);
    let any = reading("'projects/_/buckets/l*/objects/**'");
    any.allows(&[&get("a"), &get("a%2Fb%2Fc")]);
    any.refuses(&["GET storage.googleapis.com/storage/v1/b/l%2Fo%2Fx/o/a", &get("a%2Fb/acl")]);
}

/// A rule that takes encoded slashes for data opens nothing else: no other Allow matches such paths, and every Deny does
/// with either meaning.
#[test]
fn other_rules_do_not_see_past_encoded_slashes() {
    let object = "resources: {service: storage, actions: [objects.get], names: ['projects/_/buckets/lake/objects/**'], \
                  protocols: [http]}";
    let with = |others: &str| {
        Gateway::new(&common::compiled(&format!("{EGRESS}{}{others}", rule("a", "Allow", object))))
    };
    let get = "GET storage.googleapis.com/storage/v1/b/lake/o/raw%2Fsecret";
    with("").allows(&[get]);
    let all = with(&rule("b", "Allow", "http: {methods: [GET, POST], paths: ['/{**}']}"));
    all.allows(&[get, "GET orders.example/v1/orders"]);
    all.refuses(&[
        "GET orders.example/v1%2Forders",
        "POST storage.googleapis.com/storage/v1/b/lake/o/raw%2Fsecret",
    ]);
    let anything = "kind: AccessRule\nmetadata: {name: c, namespace: egress}\nspec: {owner: a, target: {gateway: \
                    egress/external}, effect: Allow, mode: Enforce, from: [{anyMesh: true}]}\n---\n";
    with(anything).refuses(&["GET orders.example/v1%2Forders"]);
    for deny in [
        "http: {paths: ['/storage/v1/b/lake/o/raw/{**}']}",
        "http: {paths: ['/storage/v1/b/lake/o/raw%20x', '/storage/v1/b/lake/o/{name}']}",
        "http: {paths: ['/storage/{**}']}",
        "http: {hosts: [storage.googleapis.com]}",
        "resources: {service: storage, actions: [read], names: ['projects/_/buckets/lake/objects/raw/**']}",
        "resources: {service: storage, actions: [read], names: ['projects/_/buckets/*/objects/raw/secret']}",
        "resources: {service: storage, actions: [read], names: ['projects/_/buckets/lake/objects/*/secret']}",
    ] {
        with(&rule("d", "Deny", deny)).denies(&[get]);
    }
    with(&rule("d", "Deny", "http: {paths: ['/storage/v1/b/lake/o/other/{**}']}")).allows(&[get]);
}

#[test]
fn a_copy_needs_both_names_and_the_right_to_read() {
    let gateway = allowing(
        "resources: {service: storage, actions: [read, objects.copy], names: ['projects/_/buckets/lake/objects/**'], \
         protocols: [http], unchecked: [userProject]}",
    );
    gateway.allows(&[
        "POST storage.googleapis.com/storage/v1/b/lake/o/a/copyTo/b/lake/o/b",
        "GET storage.googleapis.com/storage/v1/b/lake/o/a?alt=media",
    ]);
    gateway.refuses(&[
        "POST storage.googleapis.com/storage/v1/b/secret/o/a/copyTo/b/lake/o/b",
        "POST storage.googleapis.com/storage/v1/b/lake/o/a/copyTo/b/other/o/b",
        "DELETE storage.googleapis.com/storage/v1/b/lake/o/a",
    ]);
}

#[test]
fn a_template_is_launched_as_it_is_named() {
    let gateway = allowing(
        "launch: {service: dataflow, project: acme, region: europe-west4, template: 'gs://acme-templates/orders/*', \
         methods: [templates.launch], protocols: [http], unchecked: [runAs, parameters, replacesRunningJob]}",
    );
    let launch = |query: &str| {
        format!(
            "POST dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/templates:launch?{query}"
        )
    };
    gateway.allows(&[
        &launch("gcsPath=gs://acme-templates/orders/v1"),
        &launch("gcs_path=gs%3A%2F%2Facme-templates%2Forders%2Fv1&alt=json"),
    ]);
    for query in [
        "",
        "gcsPath=gs://evil/orders/v1",
        "gcsPath=gs://acme-templates/orders/v1&gcs_path=gs://evil/x",
        "gcsPath=gs://acme-templates/orders/v1&gcsPath=gs://evil/x",
        "gcsPath=gs://acme-templates/orders/v1&dynamicTemplate.gcsPath=gs://evil/x",
        "gcsPath=gs://acme-templates/orders/v1&dynamic_template.gcs_path=gs://evil/x",
        "gcsPath=gs://acme-templates/orders/v1&dynamicTemplate.stagingLocation=gs://evil/x",
        "gcsPath=gs://acme-templates/orders/v1&location=us-central1",
    ] {
        gateway.refuses(&[&launch(query)]);
    }
    gateway.refuses(&[
        "POST dataflow.googleapis.com/v1b3/projects/acme/templates:launch?gcsPath=gs://acme-templates/orders/v1",
        "POST dataflow.googleapis.com/v1b3/projects/acme/locations/us-central1/templates:launch?gcsPath=gs://acme-templates/orders/v1",
        "POST dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/flexTemplates:launch",
        "POST dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/jobs",
    ]);
}

#[test]
fn kubernetes_is_where_the_operator_says() {
    let gateway = allowing(
        "resources: {service: kubernetes, actions: [pipelineruns.list, pipelineruns.get], names: [namespaces/ci/pipelineruns, \
         'namespaces/ci/pipelineruns/*'], hosts: [api.prod.example]}",
    );
    gateway.allows(&[
        "GET api.prod.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns",
        "GET api.prod.example/apis/tekton.dev/v1beta1/namespaces/ci/pipelineruns/a?pretty=true",
    ]);
    gateway.refuses(&[
        "GET api.other.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns",
        "GET api.prod.example/apis/tekton.dev/v1/namespaces/prod/pipelineruns",
        "GET api.prod.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns?watch=1",
        "GET api.prod.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns\nimpersonate-user: admin",
        "POST api.prod.example/apis/tekton.dev/v1/namespaces/ci/pipelineruns",
    ]);
}

#[test]
fn images_are_pulled_from_the_location_that_is_named() {
    let gateway = allowing(
        "resources: {service: artifactregistry-docker, actions: [pullManifest, pullBlob], names: \
         ['projects/acme/locations/europe/repositories/base/dockerImages/**']}",
    );
    gateway.allows(&[
        "GET europe-docker.pkg.dev/v2/acme/base/python/manifests/latest",
        "GET europe-docker.pkg.dev/v2/acme/base/tools/python/blobs/sha256:abc",
    ]);
    gateway.refuses(&[
        "GET us-docker.pkg.dev/v2/acme/base/python/manifests/latest",
        "GET europe-docker.pkg.dev/v2/acme/other/python/manifests/latest",
        "GET gcr.io/v2/acme/base/python/manifests/latest",
        "PUT europe-docker.pkg.dev/v2/acme/base/python/manifests/latest",
        "GET europe-docker.pkg.dev/v2/acme/base/python/tags/list",
    ]);
}

#[test]
fn a_deny_catches_every_spelling_and_whatever_could_name_it() {
    let gateway =
        denying("resources: {service: pubsub, actions: [publish], names: ['projects/acme/topics/secret']}");
    gateway.denies(&[
        "POST pubsub.googleapis.com/v1/projects/acme/topics/secret:publish",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/secret:publish/",
        "POST pubsub.googleapis.com/v1/projects/123456/topics/secret:publish",
        "POST pubsub.googleapis.com/v1/projects/-/topics/secret:publish",
        "POST 199.36.153.8/v1/projects/acme/topics/secret:publish",
        "POST anything.example/v1/projects/acme/topics/%73ecret%3Apublish",
        "PUT pubsub.googleapis.com/v1/projects/acme/topics/secret:publish?$httpMethod=POST",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc-web",
        "POST pubsub.googleapis.com/$rpc/google.pubsub.v1.Publisher/Publish",
        "POST pubsub.googleapis.com/batch",
    ]);
    gateway.allows(&[
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/secret",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/GetTopic\ncontent-type: application/grpc",
    ]);
}

#[test]
fn a_deny_on_a_bucket_covers_all_surfaces() {
    let gateway = denying(
        "resources: {service: storage, actions: [read, write], names: ['projects/_/buckets/secret/objects/**']}",
    );
    gateway.denies(&[
        "GET storage.googleapis.com/storage/v1/b/secret/o/a?alt=media",
        "HEAD storage.googleapis.com/storage/v1/b/secret/o/a",
        "GET www.googleapis.com/storage/v1/b/secret/o/a",
        "GET storage.googleapis.com/download/storage/v1/b/secret/o/a?alt=media",
        "POST storage.googleapis.com/upload/storage/v1/b/secret/o?name=a",
        "GET storage.googleapis.com/secret/a/b",
        "GET secret.storage.googleapis.com/a/b",
        "GET secret.storage.europe-west4.rep.googleapis.com/a/b",
        "PUT commondatastorage.googleapis.com/secret/a",
        "POST storage.googleapis.com/storage/v1/b/secret/o/a/copyTo/b/mine/o/b",
        "POST storage.googleapis.com/storage/v1/b/secret/o/a/rewriteTo/b/mine/o/b",
        "POST storage.googleapis.com/google.storage.v2.Storage/ReadObject\ncontent-type: application/grpc",
        "POST storage.googleapis.com/batch/storage/v1",
        "PUT storage.googleapis.com/mine/b\nx-goog-copy-source: secret/a",
    ]);
    gateway
        .allows(&["GET storage.googleapis.com/storage/v1/b/mine/o/a", "GET mine.storage.googleapis.com/a"]);
}

/// The example of the catalogue's README means what it says there.
#[test]
fn the_example_of_the_documentation_compiles() {
    let readme = include_str!("../catalogue/README.md");
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let gateway = Gateway::new(&common::compiled(&format!("{EGRESS}{example}")));
    let publish = "POST pubsub.googleapis.com/v1/projects/acme/topics/orders-eu:publish";
    let launch = "POST dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/templates:launch?gcsPath=gs://acme-templates/orders/v1\ncontent-type: application/json";
    let body: &[u8] =
        br#"{"jobName": "orders-1", "parameters": {"input": "gs://lake/x"}, "environment": {"tempLocation":
        "gs://acme-temp/x", "serviceAccountEmail": "orders-etl@acme.iam.gserviceaccount.com"}}"#;
    // Only the account that the rule names.
    gateway.refuses(&[publish]);
    gateway.refuses_bodies(launch, &[body]);
    let anybody = example.replace(", serviceAccounts: [orders-worker]", "");
    let gateway = Gateway::new(&common::compiled(&format!("{EGRESS}{anybody}")));
    gateway.allows(&[publish]);
    gateway.allows_bodies(launch, &[body]);
}
