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

/// A day or a moment as RFC 3339 section 5.6 writes them: `2026-12-31`, `2026-12-31T18:00:00Z`. In Unix seconds: of a day
/// its end, of a moment itself, without fractions.
pub fn moment(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let midnight = days_since_1970(date)? * 86_400;
    let Some(time) = time else { return Some(midnight + 86_400) };
    let (clock, offset) = time.split_at_checked(time.find(['Z', 'z', '+', '-'])?)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let offset = match offset.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        ("+", offset) => seconds(&numbers(offset, ':', &[2, 2])?)?,
        ("-", offset) => -seconds(&numbers(offset, ':', &[2, 2])?)?,
        _ => return None,
    };
    let of_day = seconds(&numbers(clock, ':', &[2, 2, 2])?)?;
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_fraction.then_some(midnight + of_day - offset)
}

/// Hours, minutes and perhaps seconds, in seconds.
fn seconds(clock: &[i64]) -> Option<i64> {
    match *clock {
        [hours @ 0..24, minutes @ 0..60] => Some(hours * 3600 + minutes * 60),
        [hours @ 0..24, minutes @ 0..60, seconds @ 0..60] => Some(hours * 3600 + minutes * 60 + seconds),
        _ => None,
    }
}

/// Days from 1970-01-01 to a later day of the Gregorian calendar.
fn days_since_1970(date: &str) -> Option<i64> {
    let &[year, month, day] = numbers(date, '-', &[4, 2, 2])?.as_slice() else { return None };
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).ok()?;
    let fits = year >= 1970 && (1..=*months.get(before)?).contains(&day);
    let of_years: i64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let of_months: i64 = months.iter().take(before).sum();
    fits.then_some(of_years + of_months + day - 1)
}

/// Decimal numbers of exactly so many digits between separators.
fn numbers(text: &str, separator: char, lengths: &[usize]) -> Option<Vec<i64>> {
    let parts: Vec<&str> = text.split(separator).collect();
    let one = |(part, length): (&&str, &usize)| {
        let well_formed = part.len() == *length && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| well_formed)
    };
    (parts.len() == lengths.len()).then(|| parts.iter().zip(lengths).map(one).collect()).flatten()
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

/// An id as `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, hexadecimal in lower case: tokens write it so.
pub(crate) fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
        })
}

/// A media type, or what is left of it without `application/` (RFC 7515 section 4.1.9), in lower case.
pub(crate) fn is_token_type(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&-^_.+".contains(&byte)
            })
    };
    match text.split_once('/') {
        Some((kind, name)) => is_name(kind) && is_name(name),
        None => is_name(text),
    }
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
        duration, is_guid, is_https_url, is_label, is_object_name, is_token_type, is_trust_domain, moment,
        qualified, show_duration,
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
    fn moments_are_those_of_rfc_3339_and_a_day_is_its_end() {
        for (text, expected) in [
            ("1970-01-01", Some(86_400)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-21T00:00:00Z", Some(1_795_219_200)),
            ("2026-11-20", Some(1_795_219_200)),
            ("2026-11-21t01:02:03.999z", Some(1_795_222_923)),
            ("2026-11-21T01:00:00+01:00", Some(1_795_219_200)),
            ("2026-11-20T23:30:00-00:30", Some(1_795_219_200)),
            ("2024-02-29", Some(1_709_251_200)),
            ("2000-02-29T23:59:59Z", Some(951_868_799)),
            ("9999-12-31T00:00:00Z", Some(253_402_214_400)),
            ("2026-02-29", None),
            ("2100-02-29", None),
            ("1969-12-31", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-01-00", None),
            ("2026-1-1", None),
            ("26-01-01", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:60:00Z", None),
            ("2026-01-01T00:00:60Z", None),
            ("2026-01-01T00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00ZZ", None),
            ("2026-01-01T00:00:00+24:00", None),
            ("2026-01-01T00:00:00+1", None),
            ("2026-01-01T", None),
            ("2026-01-01 00:00:00Z", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(moment(text), expected, "{text}");
        }
    }

    #[test]
    fn guids_and_token_types_are_in_lower_case() {
        assert!(is_guid("bbbbbbbb-0000-4000-8000-000000000002"));
        for text in [
            "",
            "BBBBBBBB-0000-4000-8000-000000000002",
            "bbbbbbbb00004000800000000000000002",
            "bbbbbbbb-0000-4000-8000-00000000000g",
            "bbbbbbbb-0000-4000-8000-0000000000023",
            "bbbbbbbb-00004-000-8000-000000000002",
        ] {
            assert!(!is_guid(text), "{text}");
        }
        for text in ["jwt", "at+jwt", "application/at+jwt", "x.y_z-1"] {
            assert!(is_token_type(text), "{text}");
        }
        for text in ["", "JWT", "a b", "a/", "/a", "a/b/c", "*", "jwt;a=b"] {
            assert!(!is_token_type(text), "{text}");
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
