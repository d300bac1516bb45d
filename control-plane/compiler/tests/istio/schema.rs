//! What the custom resource definitions of Istio 1.27 to 1.31 demand, and what Istio's validation refuses or warns of.

use serde_json::Value;

/// Everything that is wrong with an object.
pub fn wrong_with(object: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    members(object, &["apiVersion", "kind", "metadata", "spec"], "", &mut wrong);
    let metadata = &object["metadata"];
    members(metadata, &["annotations", "labels", "name", "namespace"], "metadata", &mut wrong);
    let name = metadata["name"].as_str().unwrap_or_default();
    let dns = |text: &str| {
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        text.split('.').all(label)
    };
    if name.len() > 63 || !dns(name) {
        wrong.push(format!("name `{name}`"));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("?");
        if value.len() > 63 || value.ends_with(['-', '.']) {
            wrong.push(format!("label `{key}: {value}`"));
        }
    }
    for (key, expected) in [
        ("app.kubernetes.io/managed-by", Some("tidegate")),
        ("tidegate.dev/part", None),
        ("tidegate.dev/workload", None),
    ] {
        match metadata["labels"][key].as_str() {
            Some(value) if expected.is_none_or(|expected| expected == value) => {}
            other => wrong.push(format!("label `{key}`: {other:?}")),
        }
    }
    let spec = &object["spec"];
    selector(spec, &mut wrong);
    match (object["apiVersion"].as_str(), object["kind"].as_str()) {
        (Some("security.istio.io/v1"), Some("AuthorizationPolicy")) => policy(spec, &mut wrong),
        (Some("security.istio.io/v1"), Some("RequestAuthentication")) => authentication(spec, &mut wrong),
        other => wrong.push(format!("{other:?}")),
    }
    wrong
}

fn members(of: &Value, known: &[&str], place: &str, wrong: &mut Vec<String>) {
    match of.as_object() {
        None => wrong.push(format!("`{place}` is no object: {of}")),
        Some(members) => {
            for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
                wrong.push(format!("`{place}.{name}` is unknown"));
            }
        }
    }
}

/// Non-empty strings, at least one.
fn texts(of: &Value, place: &str, wrong: &mut Vec<String>) {
    match of.as_array() {
        Some(list)
            if !list.is_empty() && list.iter().all(|one| one.as_str().is_some_and(|one| !one.is_empty())) => {
        }
        _ => wrong.push(format!("`{place}`: {of}")),
    }
}

fn selector(spec: &Value, wrong: &mut Vec<String>) {
    let selector = spec.get("selector");
    let targets = spec.get("targetRefs");
    if usize::from(selector.is_some()) + usize::from(targets.is_some()) != 1 {
        wrong.push(
            "not exactly one of `selector` and `targetRefs`: it would reach the whole namespace".to_owned(),
        );
    }
    if let Some(selector) = selector {
        members(selector, &["matchLabels"], "selector", wrong);
        let labels = selector["matchLabels"].as_object();
        if labels.is_none_or(serde_json::Map::is_empty) {
            wrong.push("a selector without labels".to_owned());
        }
        for (key, value) in labels.into_iter().flatten() {
            let value = value.as_str().unwrap_or("*");
            if key.is_empty() || key.contains('*') || value.contains('*') || value.len() > 63 {
                wrong.push(format!("label `{key}: {value}`"));
            }
        }
    }
    let targets = targets.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if targets.len() > 16 {
        wrong.push("more than 16 targets".to_owned());
    }
    for target in targets {
        members(target, &["group", "kind", "name"], "targetRefs[]", wrong);
        for field in ["kind", "name"] {
            if target[field].as_str().is_none_or(str::is_empty) {
                wrong.push(format!("a target without `{field}`"));
            }
        }
    }
}

fn policy(spec: &Value, wrong: &mut Vec<String>) {
    members(spec, &["action", "rules", "selector", "targetRefs"], "spec", wrong);
    let action = spec["action"].as_str().unwrap_or_default();
    if !["ALLOW", "DENY"].contains(&action) {
        wrong.push(format!("action `{action}`"));
    }
    let rules = spec.get("rules").map(|rules| rules.as_array().map_or(&[][..], Vec::as_slice));
    if action == "DENY" && rules.is_none_or(<[Value]>::is_empty) {
        wrong.push("a DENY without rules".to_owned());
    }
    let rules = rules.unwrap_or_default();
    if rules.len() > 512 {
        wrong.push(format!("{} rules", rules.len()));
    }
    for rule in rules {
        members(rule, &["from", "to", "when"], "rules[]", wrong);
        let list = |field: &str| rule.get(field).map(|list| list.as_array().map_or(&[][..], Vec::as_slice));
        for from in list("from").unwrap_or_default() {
            members(from, &["source"], "from[]", wrong);
            members(&from["source"], &["principals", "notPrincipals"], "source", wrong);
            if from["source"].as_object().is_none_or(serde_json::Map::is_empty) {
                wrong.push("an empty source".to_owned());
            }
            for (name, values) in from["source"].as_object().into_iter().flatten() {
                texts(values, name, wrong);
            }
        }
        for to in list("to").unwrap_or_default() {
            members(to, &["operation"], "to[]", wrong);
            let operation = &to["operation"];
            members(operation, &["hosts", "methods", "notPorts", "paths", "ports"], "operation", wrong);
            if operation.as_object().is_none_or(serde_json::Map::is_empty) {
                wrong.push("an empty operation".to_owned());
            }
            for (name, values) in operation.as_object().into_iter().flatten() {
                texts(values, name, wrong);
            }
            for path in operation["paths"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                template(path, wrong);
            }
            for port in ["ports", "notPorts"]
                .iter()
                .flat_map(|field| operation[field].as_array().into_iter().flatten())
            {
                if port.as_str().and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
                    wrong.push(format!("port {port}"));
                }
            }
            // istio#61126, and what becomes of HTTP fields where no HTTP is read.
            if action == "DENY" && operation.get("ports").is_none() {
                wrong.push(format!("a DENY without ports: {rule}"));
            }
            let http = ["hosts", "methods", "paths"].iter().any(|field| operation.get(field).is_some());
            let whole_ports = operation.as_object().is_some_and(|operation| {
                operation.len() == 1
                    && (operation.contains_key("notPorts") || operation.contains_key("ports"))
            });
            if action == "ALLOW" && !http && !(whole_ports && rule.get("from").is_none()) {
                wrong.push(format!("an ALLOW that is not only for HTTP: {rule}"));
            }
        }
        if list("to").is_none() && rule.as_object().is_some_and(|rule| !rule.is_empty()) {
            wrong.push(format!("no operation: {rule}"));
        }
        if list("from").is_some_and(<[Value]>::is_empty) || list("to").is_some_and(<[Value]>::is_empty) {
            wrong.push(format!("an empty list: {rule}"));
        }
        for when in list("when").unwrap_or_default() {
            members(when, &["key", "values", "notValues"], "when[]", wrong);
            let key = when["key"].as_str().unwrap_or_default();
            let fits = ["request.headers[", "request.auth.claims["].iter().any(|start| {
                key.strip_prefix(start).is_some_and(|rest| rest.len() > 1 && rest.ends_with(']'))
            });
            if !fits && key != "request.auth.audiences" {
                wrong.push(format!("condition on `{key}`"));
            }
            if when.get("values").is_none() && when.get("notValues").is_none() {
                wrong.push(format!("a condition without values: {when}"));
            }
            for field in ["values", "notValues"] {
                if let Some(values) = when.get(field) {
                    texts(values, field, wrong);
                }
            }
        }
    }
}

/// As `CheckValidPathTemplate`: braces only as whole segments, `{**}` last, no other stars in a templated path.
fn template(path: &str, wrong: &mut Vec<String>) {
    if !path.starts_with('/') {
        wrong.push(format!("path `{path}`"));
    }
    if !path.contains(['{', '}']) {
        return;
    }
    let segments: Vec<&str> = path.split('/').collect();
    for (position, segment) in segments.iter().enumerate() {
        let last = position + 1 == segments.len();
        let literal =
            segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte));
        let empty = segment.is_empty() && position > 0;
        if !(*segment == "{*}" || (*segment == "{**}" && last) || literal) || empty {
            wrong.push(format!("template `{path}`"));
        }
    }
}

fn authentication(spec: &Value, wrong: &mut Vec<String>) {
    members(spec, &["jwtRules", "selector", "targetRefs"], "spec", wrong);
    let rules = spec["jwtRules"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.is_empty() || rules.len() > 4096 {
        wrong.push(format!("{} jwtRules", rules.len()));
    }
    for rule in rules {
        members(
            rule,
            &["forwardOriginalToken", "fromHeaders", "issuer", "jwks", "jwksUri"],
            "jwtRules[]",
            wrong,
        );
        if rule["issuer"].as_str().is_none_or(str::is_empty) || rule["forwardOriginalToken"] != true {
            wrong.push(format!("{rule}"));
        }
        if rule.get("jwks").is_some() && rule.get("jwksUri").is_some() {
            wrong.push(format!("two sources of keys: {rule}"));
        }
        if let Some(uri) = rule.get("jwksUri").map(|uri| uri.as_str().unwrap_or_default())
            && (uri.len() > 2048 || !(uri.starts_with("https://") || uri.starts_with("http://")))
        {
            wrong.push(format!("jwksUri `{uri}`"));
        }
        for header in rule["fromHeaders"].as_array().into_iter().flatten() {
            members(header, &["name", "prefix"], "fromHeaders[]", wrong);
            if header["name"].as_str().is_none_or(str::is_empty) {
                wrong.push(format!("{rule}"));
            }
        }
    }
}
