//! JSON values as YAML that people read.
//!
//! INVARIANT: whatever a YAML reader might take for anything but this string is quoted, as JSON, which is YAML.

use serde_json::Value;

/// A value in block style, with a line end.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// A value whose first line may stand behind `- `; further lines are indented.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (position, (name, value)) in members.iter().enumerate() {
                if position > 0 {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(&scalar(&Value::from(name.as_str())));
                text.push(':');
                member(value, indent, text);
            }
        }
        other => {
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

/// What follows a name and a colon.
fn member(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            text.push_str(&" ".repeat(indent + 2));
            block(value, indent + 2, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                text.push_str(&" ".repeat(indent));
                text.push_str("- ");
                if let Value::Array(_) = item {
                    text.push_str(&item.to_string());
                    text.push('\n');
                } else {
                    block(item, indent + 2, text);
                }
            }
        }
        other => {
            text.push(' ');
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a string is one without quotes as well, in YAML 1.1 and 1.2.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 11] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'/')
        && text.bytes().all(inside)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let value = serde_json::json!({
            "a": {"b": ["x", "8080", "*", "/v1/{*}", "true", "No", "~", "", " ", "a: b", "#", "- x", "1e3", "0x1F", "é\n\u{7}"]},
            "empty": {"list": [], "map": {}, "null": null, "yes": true, "number": 7},
            "list": [{"c": {"d": "e", "f": [{"g": 1}, {"h": {"i": "j"}}]}, "k": "l"}, ["m", ["n"]], 1, {}],
            "key: with": "x", "on": "y",
        });
        let text = document(&value);
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, value, "{text}");
        assert!(
            text.contains("- \"8080\"\n")
                && text.contains("- \"true\"\n")
                && text.contains("\"on\": \"y\"\n"),
            "{text}"
        );
    }
}
