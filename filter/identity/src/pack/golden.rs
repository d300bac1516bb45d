//! One token of each pack as its issuer really sends it, and how to bend one.

use serde_json::{Value, json};

use super::PackKind;

pub const AUDIENCE: &str = "https://ledger.svc.example.com";
pub const ISSUED: i64 = 1_795_200_000;

/// An issuer that the pack accepts.
pub fn issuer(pack: PackKind) -> &'static str {
    match pack {
        PackKind::Google => "https://accounts.google.com",
        PackKind::Kubernetes => "https://kubernetes.example.com",
        PackKind::Gitlab => "https://gitlab.example.com",
        PackKind::Entra => "https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0",
        PackKind::Okta => "https://id.example.com/oauth2/aus0example",
        PackKind::Aws => "https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws",
        PackKind::Spiffe => "spiffe://batch.example",
        PackKind::Github => "https://token.actions.githubusercontent.com",
        PackKind::Generic => "https://issuer.example.com",
    }
}

/// `typ`, where the issuer sends it.
pub fn header_type(pack: PackKind) -> Option<&'static str> {
    match pack {
        PackKind::Kubernetes | PackKind::Okta => None,
        PackKind::Generic => Some("at+jwt"),
        _ => Some("JWT"),
    }
}

pub fn claims(pack: PackKind) -> Value {
    match pack {
        PackKind::Google => google(),
        PackKind::Kubernetes => kubernetes(),
        PackKind::Gitlab => gitlab(),
        PackKind::Entra => entra(),
        PackKind::Okta => okta(),
        PackKind::Aws => aws(),
        PackKind::Spiffe => spiffe(),
        PackKind::Github => github(),
        PackKind::Generic => access_token(),
    }
}

/// A copy in which the member at this path is something else, or missing.
pub fn with(claims: &Value, path: &[&str], value: Option<Value>) -> Value {
    let mut claims = claims.clone();
    let (last, way) = path.split_last().unwrap();
    let object = way.iter().fold(&mut claims, |object, name| &mut object[*name]).as_object_mut().unwrap();
    match value {
        Some(value) => object.insert((*last).to_owned(), value),
        None => object.remove(*last),
    };
    claims
}

/// Of an issuer that does not follow RFC 9068, whose TrustedIssuer says which `typ` it uses.
pub fn generic() -> Value {
    json!({
        "iss": "https://issuer.example.com", "sub": "robot", "aud": AUDIENCE,
        "iat": ISSUED, "exp": ISSUED + 3600, "jti": "1",
    })
}

/// RFC 9068 §2.2.
pub fn access_token() -> Value {
    with(&generic(), &["client_id"], Some(json!("orders")))
}

/// `format=full` from a VM's metadata server.
pub fn google() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE,
        "azp": "100000000000000000001", "sub": "100000000000000000001",
        "email": "df-worker@proj-example.iam.gserviceaccount.com", "email_verified": true,
        "iat": ISSUED, "exp": ISSUED + 3600,
        "google": {"compute_engine": {
            "project_id": "proj-example", "project_number": 123_456_789_012_i64, "zone": "europe-west4-b",
            "instance_id": "4570000000000000001",
            "instance_name": "orders-etl-11210101-ab1c-harness-x9z0",
            "instance_creation_timestamp": 1_795_199_000_i64,
            "instance_confidentiality": 1, "license_id": ["1000204"],
        }},
    })
}

pub fn kubernetes() -> Value {
    json!({
        "aud": [AUDIENCE], "iss": "https://kubernetes.example.com",
        "sub": "system:serviceaccount:etl:orders-runner",
        "exp": ISSUED + 3600, "iat": ISSUED, "nbf": ISSUED,
        "jti": "6f6b8a5e-0000-4000-8000-000000000001",
        "kubernetes.io": {
            "namespace": "etl",
            "serviceaccount": {"name": "orders-runner", "uid": "11111111-1111-4111-8111-111111111111"},
            "pod": {"name": "orders-run-7xk2p-pod", "uid": "22222222-2222-4222-8222-222222222222"},
            "node": {"name": "gke-prod-pool-1", "uid": "33333333-3333-4333-8333-333333333333"},
            "warnafter": ISSUED + 3607,
        },
    })
}

pub fn gitlab() -> Value {
    json!({
        "iss": "https://gitlab.example.com", "aud": AUDIENCE,
        "sub": "project_path:data/orders:ref_type:branch:ref:main",
        "iat": ISSUED, "nbf": ISSUED - 5, "exp": ISSUED + 300,
        "jti": "0b2f3c1a-0000-4000-8000-000000000002",
        "namespace_id": "72", "namespace_path": "data",
        "project_id": "20", "project_path": "data/orders", "project_visibility": "private",
        "job_project_id": "20", "job_project_path": "data/orders",
        "job_namespace_id": "72", "job_namespace_path": "data",
        "user_id": "9", "user_login": "sam", "user_email": "sam@example.com", "user_access_level": "developer",
        "pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "job_source": "push",
        "ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
        "environment": "prod", "environment_protected": "true", "deployment_tier": "production",
        "environment_action": "start", "runner_id": 1, "runner_environment": "self-hosted",
        "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "ci_config_ref_uri": "gitlab.example.com/data/orders//.gitlab-ci.yml@refs/heads/main",
        "ci_config_sha": null,
    })
}

/// v2, of a person through an application.
pub fn entra() -> Value {
    json!({
        "aud": "aaaaaaaa-0000-4000-8000-000000000001",
        "iss": "https://login.microsoftonline.com/bbbbbbbb-0000-4000-8000-000000000002/v2.0",
        "iat": ISSUED - 7200, "nbf": ISSUED, "exp": ISSUED + 4500, "aio": "opaque", "rh": "opaque",
        "azp": "cccccccc-0000-4000-8000-000000000003", "azpacr": "1", "idtyp": "user",
        "oid": "dddddddd-0000-4000-8000-000000000004", "sub": "pairwise-opaque-value",
        "tid": "bbbbbbbb-0000-4000-8000-000000000002",
        "scp": "ledger.read ledger.write", "roles": ["Ledger.Admin"],
        "groups": ["eeeeeeee-0000-4000-8000-000000000005"], "wids": ["ffffffff-0000-4000-8000-000000000006"],
        "preferred_username": "sam@example.com", "name": "Sam", "uti": "synthetic", "ver": "2.0",
    })
}

/// v1, of a managed identity.
pub fn entra_app() -> Value {
    json!({
        "aud": "api://ledger.example.com",
        "iss": "https://sts.windows.net/bbbbbbbb-0000-4000-8000-000000000002/",
        "iat": ISSUED, "nbf": ISSUED, "exp": ISSUED + 86_400,
        "appid": "cccccccc-0000-4000-8000-000000000003", "appidacr": "2", "idtyp": "app",
        "idp": "https://sts.windows.net/bbbbbbbb-0000-4000-8000-000000000002/",
        "oid": "99999999-0000-4000-8000-000000000007", "sub": "99999999-0000-4000-8000-000000000007",
        "tid": "bbbbbbbb-0000-4000-8000-000000000002", "roles": ["Ledger.Write"],
        "xms_mirid": "/subscriptions/1/resourcegroups/etl/providers/Microsoft.ManagedIdentity/userAssignedIdentities/etl",
        "uti": "synthetic", "ver": "1.0",
    })
}

/// Of a person.
pub fn okta() -> Value {
    json!({
        "ver": 1, "jti": "AT.synthetic", "iss": "https://id.example.com/oauth2/aus0example", "aud": "api://ledger",
        "iat": ISSUED, "exp": ISSUED + 3600, "auth_time": ISSUED - 1000,
        "cid": "0oa0example", "uid": "00u0example", "scp": ["ledger.read"], "sub": "sam@example.com",
    })
}

/// Of a client that acts for itself.
pub fn okta_client() -> Value {
    let claims = with(&okta(), &["uid"], None);
    with(&with(&claims, &["auth_time"], None), &["sub"], Some(json!("0oa0example")))
}

/// Of a role's session on an EC2 instance.
pub fn aws() -> Value {
    json!({
        "iss": "https://00000000-1111-2222-3333-444444444444.tokens.sts.global.api.aws", "aud": AUDIENCE,
        "sub": "arn:aws:iam::123456789012:role/OrdersEtl",
        "iat": ISSUED, "exp": ISSUED + 300, "jti": "c9c99a1c-0000-4db3-87c4-000000000000",
        "https://sts.amazonaws.com/": {
            "aws_account": "123456789012", "source_region": "eu-west-1", "org_id": "o-example1234",
            "ou_path": ["o-example1234/r-ab12/ou-ab12-11111111/"],
            "principal_id": "arn:aws:iam::123456789012:role/OrdersEtl",
            "principal_tags": {"team": "data"}, "request_tags": {"job-id": "J-1"},
            "original_session_exp": "2026-11-21T10:00:00Z",
            "ec2_source_instance_arn": "arn:aws:ec2:eu-west-1:123456789012:instance/i-0example",
            "ec2_instance_source_vpc": "vpc-0example", "ec2_instance_source_private_ipv4": "10.0.1.25",
            "ec2_role_delivery": "2.0",
        },
    })
}

pub fn spiffe() -> Value {
    json!({
        "sub": "spiffe://batch.example/ns/etl/sa/orders", "aud": [AUDIENCE], "iat": ISSUED, "exp": ISSUED + 300,
    })
}

pub fn github() -> Value {
    json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": AUDIENCE,
        "sub": "repo:acme/orders:environment:production",
        "iat": ISSUED, "nbf": ISSUED - 300, "exp": ISSUED + 300, "jti": "6cf8862b-0000-4372-9998-000000000000",
        "actor": "octocat", "actor_id": "12", "base_ref": "", "check_run_id": "56363837828",
        "enterprise": "acme-inc", "enterprise_id": "11468", "environment": "production",
        "event_name": "push", "head_ref": "",
        "job_workflow_ref": "acme/orders/.github/workflows/release.yml@refs/heads/main",
        "job_workflow_sha": "15a5ebfa3fb5ddf10c4b4250e14496bec7f03a56",
        "ref": "refs/heads/main", "ref_protected": "true", "ref_type": "branch",
        "repository": "acme/orders", "repository_id": "456",
        "repository_owner": "acme", "repository_owner_id": "123", "repository_visibility": "private",
        "repo_property_regions": "us-east-1,eu-west-1",
        "run_attempt": "1", "run_id": "19677834613", "run_number": "4", "runner_environment": "github-hosted",
        "sha": "15a5ebfa3fb5ddf10c4b4250e14496bec7f03a56",
        "workflow": "release", "workflow_ref": "acme/orders/.github/workflows/release.yml@refs/heads/main",
        "workflow_sha": "15a5ebfa3fb5ddf10c4b4250e14496bec7f03a56",
    })
}
