//! How Istio reads its policies: a second interpreter, written from what Istio's own code does and independent of what made
//! the objects. It reads them as JSON, as they are applied.
//!
//! Sources, of istio/istio: `pilot/pkg/security/authz/{builder,model,matcher}`, `pilot/pkg/model/policyattachment.go`.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod schema;

use std::collections::BTreeMap;

use serde_json::Value;

/// What Istio sees of a request, or of a connection on which it reads no HTTP.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The workload's port.
    pub port: u16,
    /// The URI of the peer's certificate.
    pub principal: Option<String>,
    /// `None`: bytes that are not read as HTTP.
    pub http: Option<Http>,
}

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Http {
    pub method: String,
    /// `:authority`, as sent.
    pub authority: String,
    /// `:path`, as it is after the mesh's normalisation.
    pub path: String,
    /// In lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The payload of the token that Istio has verified.
    pub claims: Option<Value>,
}

/// "DENY match → deny; no ALLOW policies → allow; ALLOW match → allow; else deny."
pub fn allows(policies: &[Value], labels: &BTreeMap<String, String>, seen: &Seen) -> bool {
    let selected: Vec<&Value> = policies.iter().filter(|policy| selects(policy, labels)).collect();
    let of = |action: &str| -> Vec<&Value> {
        selected
            .iter()
            .filter(|policy| policy["kind"] == "AuthorizationPolicy" && policy["spec"]["action"] == action)
            .copied()
            .collect()
    };
    if of("DENY").iter().any(|policy| denied_by(policy, seen)) {
        return false;
    }
    let allows = of("ALLOW");
    allows.is_empty()
        || allows.iter().any(|policy| rules(policy).iter().any(|rule| matches(rule, seen, false)))
}

/// Whether a DENY policy matches.
pub fn denied_by(policy: &Value, seen: &Seen) -> bool {
    rules(policy).iter().any(|rule| matches(rule, seen, true))
}

fn rules(policy: &Value) -> &[Value] {
    policy["spec"]["rules"].as_array().map_or(&[], Vec::as_slice)
}

/// "Pods with the gateway-name label: targetRefs required; else label-subset match."
fn selects(policy: &Value, labels: &BTreeMap<String, String>) -> bool {
    let gateway = labels.get("gateway.networking.k8s.io/gateway-name");
    if let Some(targets) = policy["spec"]["targetRefs"].as_array() {
        return targets.iter().any(|target| gateway.is_some_and(|name| target["name"] == name.as_str()));
    }
    match policy["spec"]["selector"]["matchLabels"].as_object() {
        None => true,
        Some(wanted) => {
            wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
        }
    }
}

/// What a field says: it matches, it does not, or it means nothing where no HTTP is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Is(bool),
    HttpOnly,
}

/// "OR over `from[]`, AND OR over `to[]`, AND all `when[]`." Where a field cannot be generated, the whole rule of an ALLOW is
/// dropped, of a DENY only the field.
fn matches(rule: &Value, seen: &Seen, deny: bool) -> bool {
    let mut dropped = false;
    let mut all = |fields: Vec<Field>| {
        fields.into_iter().all(|field| match field {
            Field::Is(holds) => holds,
            Field::HttpOnly => {
                dropped = true;
                true
            }
        })
    };
    let mut any = |list: &Value, name: &str, fields: fn(&Value, &Seen) -> Vec<Field>| match list.as_array() {
        None => true,
        Some(list) => {
            // All are looked at: what is dropped in one of them drops the rule.
            list.iter()
                .map(|one| all(fields(&one[name], seen)))
                .collect::<Vec<_>>()
                .into_iter()
                .any(|holds| holds)
        }
    };
    let from = any(&rule["from"], "source", source);
    let to = any(&rule["to"], "operation", operation);
    let when = match rule["when"].as_array() {
        None => true,
        Some(conditions) => all(conditions.iter().map(|condition| when(condition, seen)).collect()),
    };
    if dropped && !deny {
        return false;
    }
    from && to && when
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A field with its values, and its negation.
fn pair(fields: &mut Vec<Field>, of: &Value, name: &str, mut test: impl FnMut(&str) -> Field) {
    let negated = {
        let mut letters = name.chars();
        let first = letters.next().unwrap().to_ascii_uppercase();
        format!("not{first}{}", letters.as_str())
    };
    for (name, expected) in [(name.to_owned(), true), (negated, false)] {
        if let Some(values) = of.get(&name) {
            let results: Vec<Field> = texts(values).into_iter().map(&mut test).collect();
            fields.push(if results.contains(&Field::HttpOnly) {
                Field::HttpOnly
            } else {
                Field::Is(results.contains(&Field::Is(true)) == expected)
            });
        }
    }
}

fn source(of: &Value, seen: &Seen) -> Vec<Field> {
    known(of, &["principals", "notPrincipals"]);
    let mut fields = Vec::new();
    pair(&mut fields, of, "principals", |value| {
        Field::Is(seen.principal.as_deref().is_some_and(|id| is_principal(value, id)))
    });
    fields
}

/// "`spiffe://` is prepended. `*` is `.+`, `*x` the regex `spiffe://.*x`, `x*` the prefix `spiffe://x`, else exact."
fn is_principal(value: &str, id: &str) -> bool {
    if value == "*" {
        !id.is_empty()
    } else if let Some(suffix) = value.strip_prefix('*') {
        id.strip_prefix("spiffe://").is_some_and(|rest| rest.ends_with(suffix))
    } else if let Some(prefix) = value.strip_suffix('*') {
        id.starts_with(&format!("spiffe://{prefix}"))
    } else {
        id == format!("spiffe://{value}")
    }
}

fn operation(of: &Value, seen: &Seen) -> Vec<Field> {
    known(of, &["hosts", "methods", "paths", "ports", "notPorts"]);
    let http = |test: &dyn Fn(&Http) -> bool| {
        seen.http.as_ref().map_or(Field::HttpOnly, |http| Field::Is(test(http)))
    };
    let mut fields = Vec::new();
    pair(&mut fields, of, "hosts", |value| {
        http(&|http| is_text(&value.to_ascii_lowercase(), http.authority.to_ascii_lowercase().as_bytes()))
    });
    pair(&mut fields, of, "methods", |value| http(&|http| is_text(value, http.method.as_bytes())));
    pair(&mut fields, of, "paths", |value| {
        http(&|http| is_path(value, http.path.split(['?', '#']).next().unwrap_or_default()))
    });
    pair(&mut fields, of, "ports", |value| Field::Is(value == seen.port.to_string()));
    fields
}

/// "`*`: present and not empty; `*x` suffix; `x*` prefix; else exact. A `*` elsewhere is itself."
fn is_text(value: &str, sent: &[u8]) -> bool {
    if value == "*" {
        !sent.is_empty()
    } else if let Some(suffix) = value.strip_prefix('*') {
        sent.ends_with(suffix.as_bytes())
    } else if let Some(prefix) = value.strip_suffix('*') {
        sent.starts_with(prefix.as_bytes())
    } else {
        sent == value.as_bytes()
    }
}

/// "Without `{*}` or `{**}`: a string match; with them: a template, which matches the whole path."
fn is_path(value: &str, path: &str) -> bool {
    if !value.contains('{') {
        return is_text(value, path.as_bytes());
    }
    template(value, path)
}

/// A template: `{*}` is one or more characters of a segment, `{**}` any number of characters, slashes among them.
fn template(pattern: &str, path: &str) -> bool {
    let in_segment = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=*".contains(&byte);
    if pattern.is_empty() {
        return path.is_empty();
    }
    if let Some(rest) = pattern.strip_prefix("{**}") {
        assert!(rest.is_empty(), "`{{**}}` must be last: {pattern}");
        return path.bytes().all(|byte| in_segment(byte) || byte == b'/');
    }
    if let Some(rest) = pattern.strip_prefix("{*}") {
        let most = path.bytes().take_while(|byte| in_segment(*byte)).count();
        return (1..=most).any(|taken| template(rest, &path[taken..]));
    }
    let literal = pattern.chars().next().unwrap();
    assert!(literal != '*' && literal != '{' && literal != '}', "an operator outside of braces: {pattern}");
    path.strip_prefix(literal).is_some_and(|rest| template(&pattern[literal.len_utf8()..], rest))
}

fn when(condition: &Value, seen: &Seen) -> Field {
    known(condition, &["key", "values", "notValues"]);
    let key = condition["key"].as_str().unwrap();
    let mut fields = Vec::new();
    let attribute = |value: &str| -> Field {
        let Some(http) = &seen.http else { return Field::HttpOnly };
        Field::Is(
            if let Some(name) = key.strip_prefix("request.headers[").and_then(|key| key.strip_suffix(']')) {
                // Each value is looked at by itself (CVE-2026-26308).
                let mut sent = http.headers.iter().filter(|(sent, _)| sent == name);
                if value == "*" { sent.next().is_some() } else { sent.any(|(_, sent)| is_text(value, sent)) }
            } else if key == "request.auth.audiences" {
                is_claim(http.claims.as_ref(), &["aud"], value)
            } else if let Some(path) =
                key.strip_prefix("request.auth.claims[").and_then(|key| key.strip_suffix(']'))
            {
                is_claim(http.claims.as_ref(), &path.split("][").collect::<Vec<_>>(), value)
            } else {
                panic!("an attribute that Istio does not know: {key}")
            },
        )
    };
    // As a source or an operation has it.
    let named = serde_json::json!({"x": condition.get("values"), "notX": condition.get("notValues")});
    let named: serde_json::Map<String, Value> = named
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    pair(&mut fields, &Value::Object(named), "x", attribute);
    if fields.contains(&Field::HttpOnly) {
        return Field::HttpOnly;
    }
    Field::Is(fields.iter().all(|field| *field == Field::Is(true)))
}

/// "OR of a list that has one of the values, and of a string. Only strings match."
fn is_claim(claims: Option<&Value>, path: &[&str], value: &str) -> bool {
    let Some(claims) = claims else { return false };
    match path.iter().try_fold(claims, |object, member| object.get(member)) {
        Some(Value::String(text)) => is_text(value, text.as_bytes()),
        Some(Value::Array(items)) => {
            items.iter().filter_map(Value::as_str).any(|text| is_text(value, text.as_bytes()))
        }
        _ => false,
    }
}

/// What this interpreter does not know must not be emitted.
fn known(of: &Value, fields: &[&str]) {
    for name in of.as_object().into_iter().flatten().map(|(name, _)| name) {
        assert!(fields.contains(&name.as_str()), "unknown field `{name}` in {of}");
    }
}
