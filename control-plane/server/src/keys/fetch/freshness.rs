//! For how long an answer says that it is fresh (RFC 9111).

use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};

/// The time that remains of `max-age`; `None` when nothing is said of it. RFC 9111 §5.2.2.4 and §5.2.2.5: `no-cache` and
/// `no-store` allow no use without asking again.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let mut max_age = None;
    for value in headers.get_all(CACHE_CONTROL) {
        // What is not text says nothing.
        for directive in value.to_str().unwrap_or_default().split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" | "no-store" => return Some(Duration::ZERO),
                // RFC 9111 §5.2: "a cache MUST be able to parse" the quoted form as well. The least of several counts.
                "max-age" => {
                    let seconds = argument.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
                    max_age = max_age.into_iter().chain(seconds).min();
                }
                _ => {}
            }
        }
    }
    // RFC 9111 §4.2.3: it has been in caches for that long already.
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    max_age.map(|max_age: Duration| max_age.saturating_sub(Duration::from_secs(age)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh_for(values: &[(&'static str, &'static str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, value.parse().unwrap());
        }
        of(&headers).map(|duration| duration.as_secs())
    }

    #[test]
    fn max_age_counts_less_the_time_in_caches() {
        let control = "cache-control";
        for (headers, expected) in [
            (&[(control, "public, max-age=19204, must-revalidate, no-transform")][..], Some(19_204)),
            (&[(control, "Max-Age=\"60\"")], Some(60)),
            (&[(control, "max-age=300"), ("age", "100")], Some(200)),
            (&[(control, "max-age=300"), ("age", "900")], Some(0)),
            (&[(control, "max-age=300"), ("age", "old")], Some(300)),
            (&[(control, "public"), (control, "max-age=7")], Some(7)),
            (&[(control, "max-age=300, max-age=200")], Some(200)),
            (&[(control, "max-age=300, no-cache")], Some(0)),
            (&[(control, "no-store")], Some(0)),
            (&[(control, "s-maxage=300")], None),
            (&[(control, "max-age=soon")], None),
            (&[(control, "max-age=-1")], None),
            (&[("age", "100")], None),
            (&[], None),
        ] {
            assert_eq!(fresh_for(headers), expected, "{headers:?}");
        }
    }
}
