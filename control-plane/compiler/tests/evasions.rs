//! Ways around rules on resources: each of them is tried against an Allow that must not let it pass, and where it reaches
//! the same resource, against a Deny that must catch it.

mod common;

use common::calls::{Gateway, allowing, denying, frames, text};
use tidegate_engine::Reason;

const TOPIC: &str = "names: ['projects/acme/topics/orders']";

fn publisher() -> Gateway {
    allowing(&format!("resources: {{service: pubsub, actions: [publish], {TOPIC}, protocols: [http]}}"))
}

fn no_publisher() -> Gateway {
    denying(&format!("resources: {{service: pubsub, actions: [publish], {TOPIC}}}"))
}

fn reader() -> Gateway {
    allowing(
        "resources: {service: storage, actions: [objects.get], names: ['projects/_/buckets/lake/objects/**'], \
         protocols: [http]}",
    )
}

const PUBLISH: &str = "/v1/projects/acme/topics/orders:publish";

/// 1. "Closed host list per service, fold case, dot and port, unknown host denied."
#[test]
fn other_hosts() {
    let hosts = [
        "content-pubsub.googleapis.com",
        "pubsub.mtls.googleapis.com",
        "us-east1-pubsub.googleapis.com",
        "pubsub.us-east1.rep.googleapis.com",
        "pubsub-endpoint.p.googleapis.com",
        "PUBSUB.googleapis.com.",
        "pubsub.googleapis.com:443",
    ];
    let others = [
        "pubsub.googleapis.com.evil.example",
        "evil-pubsub.googleapis.com.evil.example",
        "a.pubsub.us-east1.rep.googleapis.com",
        "pubsub.a.us-east1.rep.googleapis.com",
        "www.googleapis.com",
        "restricted.googleapis.com",
        "199.36.153.8",
        "[2600:2d00:2:1000::]",
        "pubsub.s3nsapis.fr",
        "pubsub.googleapis.com..",
    ];
    let (allow, deny) = (publisher(), no_publisher());
    for host in hosts {
        let call = format!("POST {host}{PUBLISH}");
        allow.allows(&[&call]);
        deny.denies(&[&call]);
    }
    for host in others {
        let call = format!("POST {host}{PUBLISH}");
        allow.refuses(&[&call]);
        deny.refuses(&[&call]);
    }
    // The same path is another thing on a bucket's host, and where only the XML surface is.
    reader().refuses(&[
        "GET evil.storage.googleapis.com/storage/v1/b/lake/o/a",
        "GET storage.cloud.google.com/storage/v1/b/lake/o/a",
        "GET commondatastorage.googleapis.com/storage/v1/b/lake/o/a",
        "GET storage.storage.us.rep.googleapis.com/storage/v1/b/lake/o/a",
        "GET evil.storage-x.p.googleapis.com/storage/v1/b/lake/o/a",
    ]);
}

/// 2. "Refuse override."
#[test]
fn method_override() {
    let (allow, deny) = (publisher(), no_publisher());
    for (verb, more) in [
        ("POST", "?$httpMethod=DELETE"),
        ("POST", "?%24httpMethod=DELETE"),
        ("POST", "?$http_method=DELETE"),
        ("POST", "\nx-http-method-override: DELETE"),
        ("POST", "\nx_http_method_override: DELETE"),
        ("POST", "\nx-http-method: DELETE"),
        ("POST", "\nx-original-url: /v1/projects/acme/topics/secret:publish"),
    ] {
        allow.refuses(&[&format!("{verb} pubsub.googleapis.com{PUBLISH}{more}")]);
    }
    deny.denies(&[
        &format!("GET pubsub.googleapis.com{PUBLISH}?$httpMethod=POST"),
        &format!("PUT pubsub.googleapis.com{PUBLISH}?%24httpMethod=POST"),
        &format!("PUT pubsub.googleapis.com{PUBLISH}?$httpMethod=GET&$httpMethod=POST"),
    ]);
    deny.refuses(&[&format!("GET pubsub.googleapis.com{PUBLISH}\nx-http-method-override: POST")]);
}

/// 3. "Deny `$ct`, `$httpMethod`, `callback`." Noise that changes nothing passes.
#[test]
fn content_override() {
    let allow = publisher();
    for query in ["$ct=text/plain", "%24ct=text/plain", "$c%74=x", "callback=f", "$callback=f", "a=1;$ct=x"] {
        allow.refuses(&[&format!("POST pubsub.googleapis.com{PUBLISH}?{query}")]);
    }
    for query in [
        "alt=json",
        "$alt=json",
        "alt=proto",
        "$.xgafv=2",
        "prettyPrint=false",
        "fields=a",
        "$fields=a",
        "quotaUser=x",
    ] {
        allow.allows(&[&format!("POST pubsub.googleapis.com{PUBLISH}?{query}")]);
    }
}

/// 4. "Strip or deny": a second credential, another identity, another project that pays.
#[test]
fn second_credential() {
    let allow = publisher();
    for more in [
        "?access_token=x",
        "?oauth_token=x",
        "?key=x",
        "?X-Goog-Signature=x",
        "?Signature=x&GoogleAccessId=y",
        "?userProject=other",
        "\nx-goog-api-key: x",
        "\nx-goog-user-project: other",
        "\nx-goog-iam-authorization-token: x",
        "\nx-goog-iam-authority-selector: x",
        "\nx_goog_api_key: x",
    ] {
        allow.refuses(&[&format!("POST pubsub.googleapis.com{PUBLISH}{more}")]);
    }
    let open = allowing(&format!(
        "resources: {{service: pubsub, actions: [publish], {TOPIC}, protocols: [http], unchecked: [userProject]}}"
    ));
    open.allows(&[&format!("POST pubsub.googleapis.com{PUBLISH}\nx-goog-user-project: other")]);
}

/// 5. "Deny (`*.protobuf_rpc` entries)."
#[test]
fn protobuf_rpc_and_grpc_web() {
    let calls = [
        "POST pubsub.googleapis.com/$rpc/google.pubsub.v1.Publisher/Publish\ncontent-type: application/x-protobuf",
        "POST pubsub.googleapis.com/%24rpc/google.pubsub.v1.Publisher/Publish\ncontent-type: application/x-protobuf",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc-web",
        "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/json",
    ];
    publisher().refuses(&calls);
    allowing("resources: {service: pubsub, actions: [publish], names: ['**']}").refuses(&calls);
    no_publisher().denies(&calls);
}

/// 6. "Deny": one request that carries many.
#[test]
fn batch() {
    let allow = reader();
    let deny = denying(
        "resources: {service: storage, actions: [read], names: ['projects/_/buckets/lake/objects/**']}",
    );
    for path in ["/batch", "/batch/storage/v1", "/batch/storage/v1/b/lake/o/a"] {
        allow.refuses(&[&format!("POST storage.googleapis.com{path}")]);
        deny.denies(&[&format!("POST www.googleapis.com{path}")]);
    }
}

/// 7. Encodings. "`%2F` inside of a segment, dot segments, double encoding: deny."
#[test]
fn encodings() {
    let (allow, deny) = (publisher(), no_publisher());
    for path in [
        "/v1/projects/acme/topics%2Forders:publish",
        "/v1/projects/acme/topics/x/../orders:publish",
        "/v1/projects/acme/topics/x/%2e%2e/orders:publish",
        "/v1/projects/acme/topics/./orders:publish",
        "/v1/projects/acme/topics//orders:publish",
        "//v1/projects/acme/topics/orders:publish",
        "/v1/projects/acme/topics/orders;x=y:publish",
        "/v1/projects/acme/topics/orders%3Bx:publish",
        "/v1/projects/acme/topics/orders%00:publish",
        "/v1/projects/acme/topics/%256Frders:publish",
        "/v1/projects/acme/topics\\orders:publish",
        "/v1/projects/acme/topics/%C1%AFrders:publish",
        "/v1/projects/acme/topics/orders:publish%",
        "/v1/projects/acme/topics/orders:publish%20",
    ] {
        let call = format!("POST pubsub.googleapis.com{path}");
        allow.refuses(&[&call]);
        deny.refuses(&[&call]);
    }
    for path in ["/v1/projects/acme/topics/%6frders:publish", "/%76%31/projects/acme/topics/orders%3apublish"]
    {
        let call = format!("POST pubsub.googleapis.com{path}");
        allow.allows(&[&call]);
        deny.denies(&[&call]);
    }
}

/// 8. "The verb is the text after the last `:` of the last segment."
#[test]
fn verbs() {
    let allow = allowing(
        "resources: {service: pubsub, actions: [topics.get, topics.delete], names: ['projects/acme/topics/*'], \
         protocols: [http]}",
    );
    allow.allows(&["GET pubsub.googleapis.com/v1/projects/acme/topics/orders"]);
    allow.refuses(&[
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders:getIamPolicy",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/orders%3AgetIamPolicy",
        "GET pubsub.googleapis.com/v1/projects/acme/topics/:",
        "DELETE pubsub.googleapis.com/v1/projects/acme/topics/orders:unlisted",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish",
    ]);
    publisher().refuses(&[
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish:publish",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:setIamPolicy",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:Publish",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish/x",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish/",
    ]);
    let files = allowing(
        "resources: {service: artifactregistry, actions: [files.get], names: \
         ['projects/acme/locations/eu/repositories/base/files/**'], protocols: [http]}",
    );
    files.allows(&[
        "GET artifactregistry.googleapis.com/v1/projects/acme/locations/eu/repositories/base/files/a",
    ]);
    files.refuses(&[
        "GET artifactregistry.googleapis.com/v1/projects/acme/locations/eu/repositories/base/files/a:download",
        "GET artifactregistry.googleapis.com/download/v1/projects/acme/locations/eu/repositories/base/files/a:download",
    ]);
}

/// 9. Template precedence: a literal before a variable, keys of the query before none, and the XML surface behind all.
#[test]
fn template_precedence() {
    reader().refuses(&[
        "GET storage.googleapis.com/storage/v1/b/lake/o/a/acl",
        "GET storage.googleapis.com/storage/v1/b/lake/o/a/iam",
        "GET storage.googleapis.com/storage/v1/b/lake/o",
        "GET storage.googleapis.com/lake/a",
        "GET lake.storage.googleapis.com/a",
        "GET storage.googleapis.com/lake/a?acl",
        "GET storage.googleapis.com/storage/v1/b/lake/o/a/",
        "HEAD storage.googleapis.com/lake/a",
    ]);
    let deny = denying(
        "resources: {service: storage, actions: [admin], names: ['projects/_/buckets/lake/objects/**']}",
    );
    deny.denies(&[
        "PUT storage.googleapis.com/lake/a?acl",
        "PUT storage.googleapis.com/lake/a?acl=",
        "PUT storage.googleapis.com/lake/a?%61cl",
        "PUT lake.storage.googleapis.com/a?acl",
        "PUT storage.googleapis.com/storage/v1/b/lake/o/a/iam",
    ]);
    deny.allows(&["PUT storage.googleapis.com/lake/a", "GET storage.googleapis.com/storage/v1/b/lake/o/a"]);
}

/// 10. Both spellings of a field, and a variable of the path that the query repeats.
#[test]
fn repeated_fields() {
    publisher().refuses(&[
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish?topic=projects/acme/topics/secret",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish?t%6Fpic=x",
        "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish?topic",
    ]);
    allowing(
        "resources: {service: dataflow, actions: [jobs.get], names: ['projects/acme/locations/europe-west4/jobs/*'], \
         protocols: [http]}",
    )
    .refuses(&[
        "GET dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/jobs/1?projectId=other",
        "GET dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/jobs/1?project_id=other",
        "GET dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/jobs/1?location=us-central1",
        "GET dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/jobs/1?jobId=2",
    ]);
}

/// 11. A project's number and its id, and wildcards: an Allow fails closed, a Deny covers them.
#[test]
fn project_numbers() {
    let (allow, deny) = (publisher(), no_publisher());
    for project in ["123456", "0", "-", "_"] {
        let call = format!("POST pubsub.googleapis.com/v1/projects/{project}/topics/orders:publish");
        allow.refuses(&[&call]);
        deny.denies(&[&call]);
    }
    deny.allows(&["POST pubsub.googleapis.com/v1/projects/other/topics/orders:publish"]);
    denying("resources: {service: dataflow, actions: [jobs.list], names: ['projects/acme/locations/europe-west4/jobs']}")
        .denies(&[
            "GET dataflow.googleapis.com/v1b3/projects/acme/locations/-/jobs",
            "GET dataflow.googleapis.com/v1b3/projects/123/locations/-/jobs",
            "GET dataflow.googleapis.com/v1b3/projects/acme/jobs",
            "GET dataflow.googleapis.com/v1b3/projects/acme/jobs?location=europe-west4",
        ]);
}

/// 12. Handles stand for resources that were named elsewhere.
#[test]
fn handles() {
    let upload = allowing(
        "resources: {service: storage, actions: [objects.insert], names: ['projects/_/buckets/lake/objects/raw*'], \
         unchecked: [acl]}",
    );
    upload.allows(&["POST storage.googleapis.com/upload/storage/v1/b/lake/o?uploadType=resumable&name=raw1"]);
    upload.refuses(&[
        "PUT storage.googleapis.com/upload/storage/v1/b/lake/o?upload_id=x&name=raw1",
        "PUT storage.googleapis.com/upload/storage/v1/b/lake/o?uploadId=x&name=raw1",
        "PUT storage.googleapis.com/resumable/upload/storage/v1/b/lake/o?upload_id=x&name=raw1",
        "POST storage.googleapis.com/upload/storage/v1/b/lake/o?upload_id=x&name=raw1",
    ]);
    denying("resources: {service: storage, actions: [write], names: ['projects/_/buckets/lake/objects/**']}").denies(&[
        "PUT storage.googleapis.com/upload/storage/v1/b/other/o?upload_id=x",
        "PUT storage.googleapis.com/resumable/upload/storage/v1/b/other/o?upload_id=x",
        "POST storage.googleapis.com/google.storage.v2.Storage/CancelResumableWrite\ncontent-type: application/grpc",
        "POST storage.googleapis.com/other?delete",
    ]);
}

/// 13. Indirect launches: services that are not in the catalogue are not allowed by any rule on another.
#[test]
fn indirect_launches() {
    let launch = allowing(
        "resources: {service: dataflow, actions: [launch], names: ['projects/*/locations/*/jobs'], protocols: [http], \
         unchecked: [runAs, template, templateImage, workerImage, temp, staging, parameters, replaces, replacesRunningJob, \
         locationInBody, projectInBody]}",
    );
    launch.allows(&["POST dataflow.googleapis.com/v1b3/projects/acme/locations/europe-west4/jobs"]);
    launch.refuses(&[
        "POST datapipelines.googleapis.com/v1/projects/acme/locations/europe-west4/pipelines",
        "POST datapipelines.googleapis.com/v1/projects/acme/locations/europe-west4/pipelines/a:run",
        "POST composer.googleapis.com/v1/projects/acme/locations/europe-west4/environments",
        "POST iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a:generateAccessToken",
    ]);
    denying("resources: {service: iamcredentials, actions: [launch], names: ['projects/-/serviceAccounts/*']}").denies(&[
        "POST iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b.iam.gserviceaccount.com:generateAccessToken",
        "POST iamcredentials.googleapis.com/google.iam.credentials.v1.IAMCredentials/SignBlob\ncontent-type: application/grpc",
    ]);
}

/// 15. HEAD and OPTIONS: only where they are listed.
#[test]
fn head_and_options() {
    reader().refuses(&[
        "HEAD storage.googleapis.com/storage/v1/b/lake/o/a",
        "OPTIONS storage.googleapis.com/storage/v1/b/lake/o/a",
    ]);
    denying("resources: {service: storage, actions: [objects.get], names: ['projects/_/buckets/lake/objects/**']}")
        .denies(&["HEAD storage.googleapis.com/storage/v1/b/lake/o/a"]);
}

/// Decorators and suffixes of BigQuery's tables.
#[test]
fn decorators() {
    let insert = allowing(
        "resources: {service: bigquery, actions: [insertAll, tabledata.list], names: \
         ['projects/acme/datasets/sales/tables/*_open', 'projects/acme/datasets/sales/tables/orders'], unchecked: \
         [templateSuffix]}",
    );
    let table = |table: &str| {
        format!("GET bigquery.googleapis.com/bigquery/v2/projects/acme/datasets/sales/tables/{table}/data")
    };
    insert.allows(&[&table("orders"), &table("x_open")]);
    insert.refuses(&[
        &table("secret$_open"),
        &table("secret%24_open"),
        &table("secret@1_open"),
        &table("orders$20240101"),
        &table("orders@-3600000"),
    ]);
    let deny = denying(
        "resources: {service: bigquery, actions: [read, write], names: ['projects/acme/datasets/sales/tables/secret']}",
    );
    deny.denies(&[
        &table("secret"),
        &table("secret$20240101"),
        &table("secret%24__PARTITIONS_SUMMARY__"),
        &table("secret@-3600000"),
        "POST bigquery.googleapis.com/bigquery/v2/projects/acme/jobs",
        "POST bigquery.googleapis.com/bigquery/v2/projects/acme/queries",
        "POST bigquery.googleapis.com/upload/bigquery/v2/projects/acme/jobs?uploadType=resumable",
        "POST bigquery.googleapis.com/batch/bigquery/v2",
    ]);
    deny.allows(&[&table("orders")]);
}

/// A layer of another repository, mounted instead of sent (OCI distribution specification, "Mounting a blob").
#[test]
fn mounted_layers() {
    let push = allowing(
        "resources: {service: artifactregistry-docker, actions: [startBlobUpload], names: \
         ['projects/acme/locations/europe/repositories/base/dockerImages/**']}",
    );
    push.allows(&["POST europe-docker.pkg.dev/v2/acme/base/app/blobs/uploads/"]);
    push.refuses(&[
        "POST europe-docker.pkg.dev/v2/acme/base/app/blobs/uploads/?mount=sha256:a&from=acme/secret/app",
    ]);
}

/// Locations that the path does not say.
#[test]
fn paths_without_a_region() {
    let jobs = allowing(
        "resources: {service: dataflow, actions: [jobs.get], names: ['projects/acme/locations/us-central1/jobs/*'], \
         protocols: [http]}",
    );
    jobs.allows(&["GET dataflow.googleapis.com/v1b3/projects/acme/locations/us-central1/jobs/1"]);
    jobs.refuses(&[
        "GET dataflow.googleapis.com/v1b3/projects/acme/jobs/1",
        "GET dataflow.googleapis.com/v1b3/projects/acme/jobs/1?location=us-central1",
    ]);
    let everywhere = allowing(
        "resources: {service: dataflow, actions: [jobs.get], names: ['projects/acme/locations/*/jobs/*'], protocols: [http]}",
    );
    everywhere.allows(&["GET dataflow.googleapis.com/v1b3/projects/acme/jobs/1?location=us-central1"]);
}

/// A Deny is a Deny, not an ambiguity that refuses by luck.
#[test]
fn refusals_have_the_reason_that_is_meant() {
    let deny = no_publisher();
    assert_eq!(deny.reason(&format!("POST pubsub.googleapis.com{PUBLISH}")), Reason::DeniedBy);
    assert!(matches!(
        deny.reason("POST pubsub.googleapis.com/v1/projects/acme/topics%2Forders:publish"),
        Reason::Ambiguous(_)
    ));
    assert_eq!(
        publisher().reason("POST pubsub.googleapis.com/v1/projects/acme/topics/secret:publish"),
        Reason::NoAllowMatched
    );
}

/// Google takes `$httpHeaders` for headers of the request, and `$req` for its body.
#[test]
fn headers_and_bodies_in_the_query() {
    for noise in [
        "$httpHeaders=X-HTTP-Method-Override:DELETE%0D%0A",
        "$http_headers=Content-Type:application/x-protobuf",
        "httpHeaders=Authorization:x",
        "$req=%7B%7D",
        "%24req=%7B%7D",
    ] {
        publisher().refuses(&[&format!("POST pubsub.googleapis.com{PUBLISH}?{noise}")]);
        no_publisher().denies(&[&format!("POST pubsub.googleapis.com{PUBLISH}?{noise}")]);
    }
    no_publisher()
        .denies(&[&format!("GET pubsub.googleapis.com{PUBLISH}?$httpHeaders=X-HTTP-Method-Override:POST")]);
}

/// Whose number it is nobody knows here: a Deny that names a project by its number catches every project.
#[test]
fn projects_by_number_and_by_id() {
    for names in ["projects/123456/topics/orders", "projects/*56/topics/orders"] {
        let gateway =
            denying(&format!("resources: {{service: pubsub, actions: [publish], names: ['{names}']}}"));
        gateway.denies(&[
            "POST pubsub.googleapis.com/v1/projects/123456/topics/orders:publish",
            "POST pubsub.googleapis.com/v1/projects/acme/topics/orders:publish",
        ]);
        let call =
            "POST pubsub.googleapis.com/google.pubsub.v1.Publisher/Publish\ncontent-type: application/grpc";
        for name in ["projects/acme/topics/orders", "//pubsub.googleapis.com/projects/acme/topics/orders"] {
            gateway.denies_bodies(call, &[&frames(&[text(1, name)])]);
        }
    }
}
