//! What an unquoted scalar is.
//!
//! INVARIANT: where YAML 1.1 (most tools of the Kubernetes world) and YAML 1.2 read a scalar differently, it is
//! [`Plain::Ambiguous`], and refused.

/// What an unquoted scalar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Null,
    Boolean(bool),
    /// Decimal, without leading zeros, plus sign or separators.
    Integer(i64),
    /// Something that some readers take for what this says, and others for a string.
    Ambiguous(&'static str),
    Text,
}

pub(super) fn classify(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" => return Plain::Boolean(true),
        "false" => return Plain::Boolean(false),
        _ => {}
    }
    // What begins with a letter is no number, and longer than the names of booleans it is nothing else either.
    if text.len() > 5 && text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) {
        return Plain::Text;
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n") {
        return Plain::Ambiguous("a boolean");
    }
    if is_canonical_integer(text) {
        return match text.parse() {
            Ok(integer) => Plain::Integer(integer),
            Err(_) => Plain::Ambiguous("a number"),
        };
    }
    if looks_like_number(&lower) { Plain::Ambiguous("a number") } else { Plain::Text }
}

/// `0`, `42`, `-7`; not `007`, `+1`, `-0`, `1_000`.
pub(super) fn is_canonical_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.as_bytes() {
        [b'0'] => text == "0",
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Numbers of YAML 1.1 and 1.2 in any notation: octal, hexadecimal, binary, separators, fractions, exponents, sexagesimal,
/// infinities.
fn looks_like_number(lower: &str) -> bool {
    let unsigned = lower.strip_prefix(['-', '+']).unwrap_or(lower);
    if matches!(unsigned, ".inf" | ".nan") {
        return true;
    }
    if !unsigned.bytes().any(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let joined: String = unsigned.chars().filter(|letter| *letter != '_').collect();
    let radix = |prefix: &str, radix: u32| {
        joined.strip_prefix(prefix).is_some_and(|digits| digits.chars().all(|digit| digit.is_digit(radix)))
    };
    let sexagesimal = joined.contains(':')
        && joined.bytes().all(|byte| byte.is_ascii_digit() || byte == b':' || byte == b'.')
        && !joined.starts_with(':');
    joined.parse::<f64>().is_ok() || radix("0x", 16) || radix("0o", 8) || radix("0b", 2) || sexagesimal
}

#[cfg(test)]
mod tests {
    use super::{Plain, classify};

    #[test]
    fn reads_a_plain_scalar_only_where_all_readers_agree() {
        let boolean = Plain::Ambiguous("a boolean");
        let number = Plain::Ambiguous("a number");
        let table = [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("null", Plain::Null),
            ("true", Plain::Boolean(true)),
            ("false", Plain::Boolean(false)),
            ("True", boolean),
            ("yes", boolean),
            ("No", boolean),
            ("on", boolean),
            ("OFF", boolean),
            ("0", Plain::Integer(0)),
            ("4711", Plain::Integer(4711)),
            ("-7", Plain::Integer(-7)),
            ("-0", number),
            ("+1", number),
            ("007", number),
            ("0x1F", number),
            ("0o17", number),
            ("0b11", number),
            ("1_000", number),
            ("1.5", number),
            ("1e3", number),
            (".5", number),
            (".inf", number),
            ("22:30", number),
            ("1:2:3", number),
            ("99999999999999999999", number),
            ("1h", Plain::Text),
            ("30s", Plain::Text),
            ("10.0.0.1", Plain::Text),
            ("inf", Plain::Text),
            ("nan", Plain::Text),
            ("2026-11-21", Plain::Text),
            ("europe-west4", Plain::Text),
            ("y", boolean),
            ("Y", boolean),
            ("n", boolean),
            ("N", boolean),
            ("yy", Plain::Text),
            ("ny", Plain::Text),
            ("falsey", Plain::Text),
            ("e1_000", Plain::Text),
            ("infinity1", Plain::Text),
            ("::1", Plain::Text),
            ("#billing-oncall", Plain::Text),
        ];
        for (text, expected) in table {
            assert_eq!(classify(text), expected, "{text}");
        }
    }
}
