//! A refusal of Google's own, wherever in a text: which permission is missing, by its words and the catalogue.

use serde::Serialize;
use serde_json::Value;

use super::refusal::documents;
use crate::decisions::operation;

/// What a cloud service refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudRefusal {
    /// Always `google`.
    pub refused_by: &'static str,
    /// The IAM permission that is missing, where the answer names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// On what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Methods of the catalogue that need the permission.
    pub operations: Vec<String>,
}

/// Longest permission or resource that is shown.
const MAX_WORD: usize = 300;
/// Most methods that are listed.
const MAX_METHODS: usize = 6;

/// Finds a refusal by Google's IAM in what somebody pasted: the JSON of an API, or the line of a gRPC error.
pub fn find(text: &str) -> Option<CloudRefusal> {
    let document = documents(text).find(is_denied);
    let is_line = || text.contains("PERMISSION_DENIED") || text.contains("PermissionDenied");
    if document.is_none() && !is_line() {
        return None;
    }
    let metadata = |name: &str| {
        let details = document.as_ref()?.pointer("/error/details")?.as_array()?;
        let of = |detail: &Value| Some(detail.get("metadata")?.get(name)?.as_str()?.to_owned());
        details.iter().find_map(of)
    };
    let words = message(document.as_ref()).unwrap_or_else(|| text.to_owned());
    let permission = metadata("permission").or_else(|| permission(&words));
    let resource = metadata("resource").or_else(|| resource(&words));
    // Anybody's service may say PERMISSION_DENIED: without a permission of IAM's form it is not known to be Google's.
    if permission.is_none() && document.is_none() {
        return None;
    }
    let needing = permission.as_deref().map(operation::needing).unwrap_or_default();
    let operations = needing.iter().take(MAX_METHODS).map(|(_, method)| method.name.clone()).collect();
    let short = |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect();
    Some(CloudRefusal {
        refused_by: "google",
        permission: permission.map(short),
        resource: resource.map(short),
        operations,
    })
}

/// `{"error": {"code": 403, "status": "PERMISSION_DENIED", …}}`, as AIP-193 describes it; older APIs say why in `errors`.
fn is_denied(document: &Value) -> bool {
    let error = document.get("error");
    let text = |name: &str| error.and_then(|error| error.get(name)?.as_str());
    let code = error.and_then(|error| error.get("code")?.as_i64());
    let reason = document.pointer("/error/errors/0/reason").and_then(Value::as_str);
    text("status") == Some("PERMISSION_DENIED")
        || (code == Some(403) && matches!(reason, Some("forbidden" | "accessDenied")))
}

fn message(document: Option<&Value>) -> Option<String> {
    Some(document?.pointer("/error/message")?.as_str()?.to_owned())
}

/// What stands between quotes or blanks.
fn tokens(words: &str) -> impl Iterator<Item = &str> {
    words.split(|c: char| {
        c.is_whitespace() || matches!(c, '\'' | '"' | '`' | ',' | ';' | '(' | ')' | '[' | ']')
    })
}

/// `service.type.verb`, as IAM writes permissions.
fn permission(words: &str) -> Option<String> {
    let is_permission = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        let is_part = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        parts.len() == 3 && parts.iter().all(is_part) && !word.ends_with(".com")
    };
    let named: Vec<&str> =
        tokens(words).map(|word| word.trim_end_matches(['.', ':'])).filter(is_permission).collect();
    // One that the catalogue knows before any other word of that form.
    let known = named.iter().find(|word| !operation::needing(word).is_empty());
    let after = words.to_ascii_lowercase().contains("permission");
    known.or(named.first().filter(|_| after)).map(|word| (*word).to_owned())
}

fn resource(words: &str) -> Option<String> {
    let named = tokens(words).map(|word| word.trim_start_matches("//").trim_end_matches(['.', ':']));
    let mut named = named.filter(|word| word.contains("projects/") && word.len() > "projects/".len());
    named.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_googles_names_what_is_missing() {
        let info = r#"{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "(1f2): Could not create workflow; user does not have write access to project: acme Causes: (1f3): Permission 'dataflow.jobs.create' denied on project: 'acme'",
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED", "metadata": {"permission": "dataflow.jobs.create", "resource": "projects/acme"}}]}}"#;
        let plain = r#"{"error": {"code": 403, "message": "Permission 'dataflow.jobs.create' denied on resource '//dataflow.googleapis.com/projects/acme/locations/europe-west4' (or it may not exist).", "status": "PERMISSION_DENIED"}}"#;
        let line = "rpc error: code = PermissionDenied desc = Permission 'dataflow.jobs.create' denied on resource 'projects/acme' (or it may not exist).";
        let curl = format!("$ curl -i https://dataflow.googleapis.com/\nHTTP/2 403\n\n{info}\n");
        for text in [info, plain, line, &curl] {
            let found = find(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(found.permission.as_deref(), Some("dataflow.jobs.create"), "{text}");
            assert!(found.resource.as_ref().is_some_and(|name| name.contains("projects/acme")), "{found:?}");
            assert!(
                found.operations.contains(&"dataflow.projects.locations.jobs.create".to_owned()),
                "{found:?}"
            );
        }
        let storage = r#"{"error": {"code": 403, "message": "etl@acme.iam.gserviceaccount.com does not have storage.objects.get access to the Google Cloud Storage object.", "errors": [{"reason": "forbidden"}]}}"#;
        assert_eq!(find(storage).unwrap().permission.as_deref(), Some("storage.objects.get"));
    }

    #[test]
    fn what_is_not_googles_is_not_taken_for_it() {
        for text in [
            "",
            "PERMISSION_DENIED",
            "rpc error: code = PermissionDenied desc = go away, www.example.com said",
            r#"{"error": {"code": 404, "status": "NOT_FOUND", "message": "dataflow.jobs.create"}}"#,
            r#"{"error": "access_denied"}"#,
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
