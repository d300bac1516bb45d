//! Small grammars that several kinds of objects share.

/// A Kubernetes object name: a DNS subdomain of at most 253 characters (RFC 1123, as Kubernetes reads it).
pub(crate) fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A DNS label: at most 63 lower-case letters, digits and hyphens, hyphens only inside.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A SPIFFE trust domain: lower-case letters, digits, `.`, `-` and `_`, at most 255 characters (SPIFFE-ID section 2.1).
pub(crate) fn is_trust_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte))
}

/// `namespace/name` of an object.
pub(crate) fn qualified(text: &str) -> Option<(&str, &str)> {
    let (namespace, name) = text.split_once('/')?;
    (is_label(namespace) && is_object_name(name)).then_some((namespace, name))
}

/// An authentication scheme (RFC 9110 section 11.1: a token).
pub(crate) fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whole seconds, minutes, hours or days: `30s`, `15m`, `1h`, `1d`. In seconds.
pub(crate) fn duration(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) || number.starts_with('0') {
        return None;
    }
    number.parse::<u32>().ok()?.checked_mul(seconds)
}

/// Seconds, as [`duration`] reads them.
pub(crate) fn show_duration(seconds: u32) -> String {
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "m")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

/// An absolute https URL without user, query and fragment, of visible ASCII characters.
pub(crate) fn is_https_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && !host.starts_with('.')
        && !host.contains("..")
        && port_ok
        && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\\"<>^`{|}@".contains(&byte))
}

/// Text that can be compared and shown: no control characters, and none that are invisible or change the direction of text.
/// Tokens with such characters are never accepted, so a rule with one would never match.
pub(crate) fn is_plain_text(text: &str) -> bool {
    !text.chars().any(|letter| {
        letter.is_control()
            || matches!(letter,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    })
}

#[cfg(test)]
mod tests {
    use super::{
        duration, is_https_url, is_label, is_object_name, is_trust_domain, qualified, show_duration,
    };

    #[test]
    fn names_are_those_of_kubernetes() {
        for (text, label, name) in [
            ("orders", true, true),
            ("orders-2", true, true),
            ("2", true, true),
            ("orders.v1", false, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("A", false, false),
            ("a_b", false, false),
            ("a..b", false, false),
            ("a/b", false, false),
        ] {
            assert_eq!((is_label(text), is_object_name(text)), (label, name), "{text}");
        }
        assert!(!is_label(&"a".repeat(64)));
        assert_eq!(qualified("data/orders-etl"), Some(("data", "orders-etl")));
        assert_eq!(qualified("orders-etl"), None);
        assert_eq!(qualified("a/b/c"), None);
        assert!(
            is_trust_domain("cluster.local") && !is_trust_domain("Cluster.local") && !is_trust_domain("a/b")
        );
    }

    #[test]
    fn durations_have_a_unit_and_no_leading_zero() {
        for (text, expected) in [
            ("30s", Some(30)),
            ("15m", Some(900)),
            ("1h", Some(3600)),
            ("2d", Some(172_800)),
            ("0s", None),
            ("30", None),
            ("s", None),
            ("", None),
            ("1.5h", None),
            ("-1h", None),
            ("99999999d", None),
            ("1hé", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        for text in ["30s", "15m", "1h", "2d", "90s"] {
            assert_eq!(duration(text).map(show_duration).as_deref(), Some(text));
        }
    }

    #[test]
    fn issuer_urls_are_https_and_exact() {
        for (text, expected) in [
            ("https://accounts.google.com", true),
            ("https://gitlab.example.com:8443/base", true),
            ("https://sts.windows.net/bbbb/", true),
            ("http://accounts.google.com", false),
            ("https://", false),
            ("https:///path", false),
            ("https://user@host", false),
            ("https://host?query", false),
            ("https://host#fragment", false),
            ("https://host:0", false),
            ("https://ho st", false),
            ("accounts.google.com", false),
        ] {
            assert_eq!(is_https_url(text), expected, "{text}");
        }
    }
}
