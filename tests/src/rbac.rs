//! AuthorizationPolicies as Envoy's RBAC filters, as Istio's control plane translates them.
//!
//! Written from istio/istio `pilot/pkg/security/authz/{builder,model,matcher}`: one filter per action, DENY before ALLOW; of a
//! rule, `to` becomes permissions, `from` and `when` principals. What this does not know is an error, never left out.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tidegate::demo::mesh::HttpFilter;

/// The filters for these policies, which all select the workload, in their order.
pub fn filters(policies: &[Value]) -> Result<Vec<HttpFilter>> {
    let mut filters = Vec::new();
    for action in ["DENY", "ALLOW"] {
        let of_action: Vec<&Value> = policies
            .iter()
            .filter(|policy| policy["kind"] == "AuthorizationPolicy" && policy["spec"]["action"] == action)
            .collect();
        if !of_action.is_empty() {
            filters.push(filter(action, &of_action)?);
        }
    }
    Ok(filters)
}

fn filter(action: &str, policies: &[&Value]) -> Result<HttpFilter> {
    let mut translated = Map::new();
    for policy in policies {
        let (namespace, name) = (&policy["metadata"]["namespace"], &policy["metadata"]["name"]);
        let key = |index: usize| {
            format!(
                "ns[{}]-policy[{}]-rule[{index}]",
                namespace.as_str().unwrap_or_default(),
                name.as_str().unwrap_or_default()
            )
        };
        match policy["spec"]["rules"].as_array() {
            // "`rules` absent: an explicit policy that never matches."
            None => {
                let never = json!({"not_rule": {"any": true}});
                translated.insert(
                    key(0),
                    json!({"permissions": [never], "principals": [{"not_id": {"any": true}}]}),
                );
            }
            Some(rules) => {
                for (index, rule) in rules.iter().enumerate() {
                    let translation = translate(rule).with_context(|| format!("{name}: rule {index}"))?;
                    translated.insert(key(index), translation);
                }
            }
        }
    }
    Ok(HttpFilter::Other(json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": action, "policies": translated},
            "rules_stat_prefix": format!("fence_{}_", action.to_ascii_lowercase()),
        },
    })))
}

fn translate(rule: &Value) -> Result<Value> {
    only(rule, &["from", "to", "when"])?;
    let mut permissions = Vec::new();
    for to in list(&rule["to"])? {
        permissions.push(json!({"and_rules": {"rules": operation(&to["operation"])?}}));
    }
    if permissions.is_empty() {
        permissions.push(json!({"any": true}));
    }
    let when = list(&rule["when"])?.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let mut sources = Vec::new();
    for from in list(&rule["from"])? {
        sources.push(source(&from["source"])?);
    }
    if sources.is_empty() {
        sources.push(Vec::new());
    }
    let principals: Vec<Value> = sources
        .into_iter()
        .map(|source| {
            let ids: Vec<Value> = source.into_iter().chain(when.iter().cloned()).collect();
            if ids.is_empty() { json!({"any": true}) } else { json!({"and_ids": {"ids": ids}}) }
        })
        .collect();
    Ok(json!({"permissions": permissions, "principals": principals}))
}

fn list(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.clone()),
        other => bail!("not a list: {other}"),
    }
}

fn texts(value: &Value) -> Result<Vec<String>> {
    list(value)?
        .iter()
        .map(|text| text.as_str().map(str::to_owned).with_context(|| format!("not a string: {text}")))
        .collect()
}

fn only(of: &Value, known: &[&str]) -> Result<()> {
    for name in of.as_object().into_iter().flatten().map(|(name, _)| name) {
        ensure!(known.contains(&name.as_str()), "`{name}` is not translated: {of}");
    }
    Ok(())
}

fn operation(of: &Value) -> Result<Vec<Value>> {
    only(of, &["hosts", "methods", "notPorts", "paths", "ports"])?;
    let mut rules = Vec::new();
    let mut field = |name: &str, of_value: &dyn Fn(&str) -> Result<Value>| -> Result<()> {
        let any = texts(&of[name])?.iter().map(|value| of_value(value)).collect::<Result<Vec<_>>>()?;
        if !any.is_empty() {
            let any = json!({"or_rules": {"rules": any}});
            rules.push(if name.starts_with("not") { json!({"not_rule": any}) } else { any });
        }
        Ok(())
    };
    field("hosts", &|value| Ok(json!({"header": header(":authority", value, true)})))?;
    field("methods", &|value| Ok(json!({"header": header(":method", value, false)})))?;
    field("paths", &|value| Ok(path(value)))?;
    let port = |value: &str| Ok(json!({"destination_port": value.parse::<u16>()?}));
    field("ports", &port)?;
    field("notPorts", &port)?;
    if rules.is_empty() {
        rules.push(json!({"any": true}));
    }
    Ok(rules)
}

/// `StringMatcher` of Istio: present, suffix, prefix or exact.
fn matcher(value: &str, ignore_case: bool) -> Value {
    let mut matcher = if value == "*" {
        return json!({"safe_regex": {"regex": ".+"}});
    } else if let Some(suffix) = value.strip_prefix('*') {
        json!({"suffix": suffix})
    } else if let Some(prefix) = value.strip_suffix('*') {
        json!({"prefix": prefix})
    } else {
        json!({"exact": value})
    };
    if ignore_case {
        matcher["ignore_case"] = true.into();
    }
    matcher
}

fn header(name: &str, value: &str, ignore_case: bool) -> Value {
    if value == "*" {
        return json!({"name": name, "present_match": true});
    }
    json!({"name": name, "string_match": matcher(value, ignore_case)})
}

fn path(value: &str) -> Value {
    if value.contains("{*}") || value.contains("{**}") {
        return json!({"uri_template": {
            "name": "uri-template",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": value.replace("{**}", "**").replace("{*}", "*"),
            },
        }});
    }
    json!({"url_path": {"path": matcher(value, false)}})
}

fn source(of: &Value) -> Result<Vec<Value>> {
    only(of, &["principals", "notPrincipals"])?;
    let mut ids = Vec::new();
    for name in ["principals", "notPrincipals"] {
        let any: Vec<Value> = texts(&of[name])?.iter().map(|value| principal(value)).collect();
        if !any.is_empty() {
            let any = json!({"or_ids": {"ids": any}});
            ids.push(if name.starts_with("not") { json!({"not_id": any}) } else { any });
        }
    }
    Ok(ids)
}

fn principal(value: &str) -> Value {
    let name = if value == "*" {
        json!({"safe_regex": {"regex": ".+"}})
    } else if let Some(suffix) = value.strip_prefix('*') {
        json!({"safe_regex": {"regex": format!("spiffe://.*{}", suffix.replace('.', "\\."))}})
    } else {
        matcher(&format!("spiffe://{value}"), false)
    };
    json!({"authenticated": {"principal_name": name}})
}

fn condition(of: &Value) -> Result<Value> {
    only(of, &["key", "values", "notValues"])?;
    let key = of["key"].as_str().context("a condition without a key")?;
    let Some(name) = key.strip_prefix("request.headers[").and_then(|key| key.strip_suffix(']')) else {
        bail!("the attribute `{key}` is not translated");
    };
    let any = |field: &str| -> Result<Option<Value>> {
        let any: Vec<Value> =
            texts(&of[field])?.iter().map(|value| json!({"header": header(name, value, false)})).collect();
        Ok((!any.is_empty()).then(|| json!({"or_ids": {"ids": any}})))
    };
    let mut ids = Vec::new();
    ids.extend(any("values")?);
    ids.extend(any("notValues")?.map(|any| json!({"not_id": any})));
    ensure!(!ids.is_empty(), "a condition without values: {of}");
    Ok(json!({"and_ids": {"ids": ids}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_an_error() {
        let policy = |rule: Value| {
            json!({"kind": "AuthorizationPolicy", "metadata": {"name": "a", "namespace": "b"},
                "spec": {"action": "ALLOW", "rules": [rule]}})
        };
        for rule in [
            json!({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}),
            json!({"to": [{"operation": {"notPaths": ["/a"]}}]}),
            json!({"when": [{"key": "request.auth.claims[iss]", "values": ["a"]}]}),
            json!({"when": [{"key": "request.headers[a]"}]}),
            json!({"to": {}}),
        ] {
            assert!(filters(&[policy(rule.clone())]).is_err(), "{rule}");
        }
        assert_eq!(filters(&[policy(json!({}))]).map(|filters| filters.len()).ok(), Some(1));
        assert!(filters(&[]).is_ok_and(|filters| filters.is_empty()));
    }
}
