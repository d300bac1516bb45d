//! Values of tokens, made safe to be shown: never a token, nothing that a terminal obeys, nothing endless.

use serde_json::Value;
use tidegate_engine::ClaimValue;
use tidegate_identity::jose;

/// Characters of a value that are shown.
const MAX_CHARS: usize = 120;

/// A string, quoted. Control, invisible and direction-changing characters are escaped.
pub(super) fn text(text: &str) -> String {
    if has_token(text) {
        return "(a token)".to_owned();
    }
    let mut shown: String = text.chars().take(MAX_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Whether it is a token, or says one among other things.
fn has_token(text: &str) -> bool {
    let looks_like_jwt = |text: &str| jose::looks_like_jwt(text.as_bytes());
    let is_between = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '"' | '\'' | '`');
    // Lax readers skip these within a token; more often they stand before one.
    let is_before = |c: char| matches!(c, '=' | ';' | '(' | '<' | '[' | '{' | '|');
    let mut pieces =
        text.split(is_between).flat_map(|piece| std::iter::once(piece).chain(piece.split(is_before)));
    looks_like_jwt(text) || pieces.any(looks_like_jwt)
}

/// Strings, quoted, as a list in words.
pub(super) fn list<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let texts: Vec<_> = texts.into_iter().map(|one| text(one.as_ref())).collect();
    match texts.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Any JSON value on one line.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        Value::Array(elements) => {
            let mut shown: Vec<_> = elements.iter().take(8).map(self::value).collect();
            if shown.len() < elements.len() {
                shown.push(format!("… {} more", elements.len() - shown.len()));
            }
            format!("[{}]", shown.join(", "))
        }
        Value::Object(members) => format!("{{{} members}}", members.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// What a rule reads.
pub(super) fn claim(value: &ClaimValue) -> String {
    match value {
        ClaimValue::Absent => "missing".to_owned(),
        ClaimValue::Unknown => "not told (the issuer left it out, or says that it cannot tell)".to_owned(),
        ClaimValue::Boolean(boolean) => boolean.to_string(),
        ClaimValue::Integer(integer) => integer.to_string(),
        ClaimValue::String(string) => text(string),
        ClaimValue::Strings(strings) => {
            let strings = strings.iter().map(|string| Value::String(string.clone())).collect();
            self::value(&Value::Array(strings))
        }
        ClaimValue::Other => "a structure that rules cannot compare".to_owned(),
    }
}

/// A claim's place, as rules write it.
pub(super) fn path<S: AsRef<str>>(path: &[S]) -> String {
    let plain = |name: &str| {
        let name = name.strip_prefix('@').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    path.iter().fold(String::new(), |shown, name| match name.as_ref() {
        name if !plain(name) => format!("{shown}[{}]", text(name)),
        name if shown.is_empty() => name.to_owned(),
        name => format!("{shown}.{name}"),
    })
}

/// All values of an object with their places, structures opened, in the object's order.
pub(super) fn leaves(object: &Value) -> Vec<(Vec<String>, &Value)> {
    fn open<'v>(way: &mut Vec<String>, value: &'v Value, leaves: &mut Vec<(Vec<String>, &'v Value)>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    way.push(name.clone());
                    open(way, value, leaves);
                    way.pop();
                }
            }
            _ => leaves.push((way.clone(), value)),
        }
    }
    let mut leaves = Vec::new();
    open(&mut Vec::new(), object, &mut leaves);
    leaves
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_shown_is_a_token_or_obeyed_by_a_terminal() {
        for (value, expected) in [
            (json!("plain"), "\"plain\""),
            (json!("\u{1b}[31m\u{202e}\u{200b}\n"), "\"\\u{1b}[31m\\u{202e}\\u{200b}\\n\""),
            (json!("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"), "(a token)"),
            (json!(["a", 1, null, "eyJhbGciOiJSUzI1NiJ9.e30.x"]), "[\"a\", 1, null, (a token)]"),
            (json!({"a": 1}), "{1 members}"),
        ] {
            assert_eq!(super::value(&value), expected);
        }
        assert_eq!(text(&"é".repeat(1000)).chars().count(), MAX_CHARS + 3);
        assert_eq!(super::value(&json!(vec![0; 10])), "[0, 0, 0, 0, 0, 0, 0, 0, … 2 more]");
        assert!(claim(&ClaimValue::Strings(vec!["eyJhbGciOiJSUzI1NiJ9.e30.x".into()])).contains("(a token)"));
    }

    #[test]
    fn a_token_among_other_things_is_not_shown_either() {
        const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
        for around in [
            ["Bearer ", ""],
            ["pre ", " post"],
            ["a,", ",b"],
            ["'", "'"],
            ["{\"token\":\"", "\"}"],
            ["x\u{a0}", ""],
            ["x\n", ""],
            ["x\0", ""],
            ["token=", ""],
            ["a=b;", ""],
            ["(", ")"],
        ] {
            assert_eq!(text(&around.join(TOKEN)), "(a token)", "{around:?}");
        }
        assert_eq!(text(&format!("{}{TOKEN}", "x ".repeat(200))), "(a token)");
        for plain in
            ["Bearer of news. Read on", "https://exchange.example/a.b?c=d", "repo:a/b:ref:refs/heads/v1.2"]
        {
            assert_eq!(text(plain), format!("{plain:?}"));
        }
    }

    #[test]
    fn places_are_written_as_in_rules() {
        assert_eq!(path(&["google", "compute_engine", "zone"]), "google.compute_engine.zone");
        assert_eq!(path(&["kubernetes.io", "pod", "uid"]), "[\"kubernetes.io\"].pod.uid");
        assert_eq!(path(&["@region"]), "@region");
        let claims = json!({"a": {"b.c": 1, "d": {}}, "e": [1]});
        let paths: Vec<_> = leaves(&claims).into_iter().map(|(at, _)| path(&at)).collect();
        assert_eq!(paths, ["a[\"b.c\"]", "a.d", "e"]);
        assert_eq!(list(["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
