//! Reads what flags and variables hold.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use super::InvalidExport;

pub(super) fn milliseconds(name: &str, value: &str) -> Result<Duration, InvalidExport> {
    match value.parse() {
        Ok(milliseconds) if (1..=86_400_000).contains(&milliseconds) => {
            Ok(Duration::from_millis(milliseconds))
        }
        _ => Err(InvalidExport::Word {
            name: name.to_owned(),
            value: value.to_owned(),
            expected: "the milliseconds of up to a day",
        }),
    }
}

pub(super) fn endpoint(name: &str, value: &str) -> Result<Url, InvalidExport> {
    let refused = |why: &str| InvalidExport::Endpoint {
        name: name.to_owned(),
        // Without what might be a password.
        value: value.rsplit('@').next().unwrap_or_default().to_owned(),
        why: why.to_owned(),
    };
    let url = Url::parse(value).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => refused("it does not begin with `http://` or `https://`"),
        error => refused(&error.to_string()),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("it does not begin with `http://` or `https://`"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("credentials belong into --otlp-headers-file"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it has a query or a fragment"));
    }
    Ok(url)
}

/// Headers of a file: `name: value` per line; empty lines and those that begin with `#` say nothing.
pub(in crate::export) fn headers_of_file(path: &Path) -> Result<HeaderMap, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    headers(lines, ':', false)
}

pub(super) fn headers<'t>(
    pairs: impl Iterator<Item = &'t str>,
    between: char,
    is_encoded: bool,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (position, pair) in pairs.enumerate() {
        // What it says may be secret.
        let wrong = |why: &str| format!("entry {}: {why}", position.saturating_add(1));
        let (name, value) =
            pair.split_once(between).ok_or_else(|| wrong(&format!("not `name{between} value`")))?;
        let name =
            HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong("no name of a header"))?;
        let value = if is_encoded { decoded(value.trim()) } else { value.trim().to_owned() };
        let mut value = HeaderValue::from_str(&value).map_err(|_| wrong("no value of a header"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// Percent-decoded, as W3C Baggage has it; what is no encoding stays.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |digit: Option<&u8>| digit.and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(after.first()), hex(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
