//! Claim paths as text: `google.compute_engine.zone`, `["kubernetes.io"].namespace`.
//!
//! Names between dots are letters, digits, `_` and `-`; any other member name is written in brackets and quotes, as in CEL.
//! An attribute that is derived from claims is one name that begins with `@`, and no member of the token.

use tidegate_engine::model::ClaimPath;

/// Reads a path. `None` if it is not one.
pub(crate) fn parse(text: &str) -> Option<ClaimPath> {
    if is_derived(text) {
        return Some(vec![text.to_owned()]);
    }
    let mut path = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (name, after) = quoted.split_once("\"]")?;
            if name.is_empty() || name.contains(['"', '\\']) {
                return None;
            }
            path.push(name.to_owned());
            rest = after;
        } else {
            let dotted = if path.is_empty() { rest } else { rest.strip_prefix('.')? };
            let end = dotted.find(['.', '[']).unwrap_or(dotted.len());
            let (name, after) = dotted.split_at_checked(end)?;
            if !is_plain_name(name) {
                return None;
            }
            path.push(name.to_owned());
            rest = after;
        }
        if rest == "." {
            return None;
        }
    }
    (!path.is_empty()).then_some(path)
}

/// Writes a path, as [`parse`] reads it.
pub(crate) fn show<S: AsRef<str>>(path: &[S]) -> String {
    if let [only] = path
        && is_derived(only.as_ref())
    {
        return only.as_ref().to_owned();
    }
    let mut shown = String::new();
    for name in path {
        let name = name.as_ref();
        if !is_plain_name(name) {
            shown.push_str(&format!("[\"{name}\"]"));
        } else if shown.is_empty() {
            shown.push_str(name);
        } else {
            shown.push('.');
            shown.push_str(name);
        }
    }
    shown
}

/// Whether the name is that of a derived attribute.
fn is_derived(name: &str) -> bool {
    name.strip_prefix('@').is_some_and(is_plain_name)
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::{parse, show};

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        let table: [(&str, Option<&[&str]>); 19] = [
            ("sub", Some(&["sub"])),
            ("google.compute_engine.zone", Some(&["google", "compute_engine", "zone"])),
            ("[\"kubernetes.io\"].namespace", Some(&["kubernetes.io", "namespace"])),
            ("[\"https://sts.amazonaws.com/\"].org_id", Some(&["https://sts.amazonaws.com/", "org_id"])),
            ("a[\"b c\"]", Some(&["a", "b c"])),
            ("a[\"b c\"].d", Some(&["a", "b c", "d"])),
            ("@subject", Some(&["@subject"])),
            ("a[\"@b\"]", Some(&["a", "@b"])),
            ("@", None),
            ("@a.b", None),
            ("a.@b", None),
            ("", None),
            (".a", None),
            ("a.", None),
            ("a..b", None),
            ("[\"\"]", None),
            ("[\"a\"]b", None),
            ("[a]", None),
            ("a b", None),
        ];
        for (text, expected) in table {
            let parsed = parse(text);
            let expected =
                expected.map(|path| path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(parsed, expected, "{text}");
            if let Some(path) = parsed {
                assert_eq!(show(&path), text);
            }
        }
    }
}
