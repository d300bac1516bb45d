//! What requests carry besides path and body that changes what they do, by service.
//!
//! Sources: docs.cloud.google.com/apis/docs/system-parameters; the Kubernetes API server's authentication
//! ("impersonation"); GitLab's REST authentication page.

use tidegate_engine::model::Condition;

use super::USER_PROJECT;
use super::conditions::{all, without_headers, without_query};

/// Another content type, method or shape of the answer than the request seems to have; and credentials beside the header.
const GOOGLE_QUERY: [&str; 28] = [
    "$access_token",
    "$callback",
    "$ct",
    "$httpHeaders",
    "$httpMethod",
    "$http_headers",
    "$http_method",
    "$key",
    "$oauth_token",
    "$req",
    "AWSAccessKeyId",
    "GoogleAccessId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Goog-Credential",
    "X-Goog-Signature",
    "access_token",
    "bearer_token",
    "callback",
    "ct",
    "httpHeaders",
    "httpMethod",
    "key",
    "oauth_token",
    "x-goog-credential",
    "x-goog-signature",
    "xoauth_requestor_id",
];

const GOOGLE_HEADERS: [&str; 3] =
    ["x-goog-api-key", "x-goog-iam-authority-selector", "x-goog-iam-authorization-token"];

/// Who pays, and so whose limits and policies count.
const GOOGLE_PROJECT_QUERY: [&str; 4] = ["$userProject", "$user_project", "userProject", "user_project"];

const KUBERNETES_HEADERS: [&str; 3] = ["impersonate-group", "impersonate-uid", "impersonate-user"];

const GITLAB_QUERY: [&str; 5] = ["access_token", "job_token", "private_token", "rss_token", "sudo"];

/// Where a second method can be written, besides headers that the engine refuses. (`$httpHeaders` holds whole headers.)
pub(super) const GOOGLE_METHOD: [&str; 6] =
    ["$httpHeaders", "$httpMethod", "$http_headers", "$http_method", "httpHeaders", "httpMethod"];

/// Where a second content type can be written, or a second body.
pub(super) const GOOGLE_TYPE: [&str; 6] =
    ["$ct", "$httpHeaders", "$http_headers", "$req", "ct", "httpHeaders"];

/// What an Allow demands besides, whatever the method.
pub(super) fn absent(service: &str, is_unchecked: impl Fn(&str) -> bool) -> Condition {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    match service {
        "kubernetes" => without_headers(owned(&KUBERNETES_HEADERS)),
        "gitlab" => all(vec![without_query(owned(&GITLAB_QUERY)), without_headers(owned(&["sudo"]))]),
        _ => {
            let mut query = owned(&GOOGLE_QUERY);
            let mut headers = owned(&GOOGLE_HEADERS);
            if !is_unchecked(USER_PROJECT) {
                query.extend(owned(&GOOGLE_PROJECT_QUERY));
                headers.push("x-goog-user-project".to_owned());
            }
            all(vec![without_query(query), without_headers(headers)])
        }
    }
}
