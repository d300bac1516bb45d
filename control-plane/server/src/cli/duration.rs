//! How long, as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `90s`, `30m`, `24h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub Duration);

// === impl Span ===

impl Span {
    /// In whole seconds.
    pub(super) fn seconds(self) -> u32 {
        u32::try_from(self.0.as_secs()).unwrap_or(u32::MAX)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = |factor: u64, digits: &str| digits.parse::<u64>().ok()?.checked_mul(factor);
        let seconds = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]
            .into_iter()
            .find_map(|(letter, factor)| text.strip_suffix(letter).map(|digits| unit(factor, digits)))
            .flatten();
        match seconds {
            Some(seconds) if seconds > 0 => Ok(Self(Duration::from_secs(seconds))),
            _ => Err("write a number and a unit: 90s, 30m, 24h, 7d".to_owned()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::text::span(i64::from(self.seconds())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(text.parse::<Span>().unwrap().seconds(), seconds, "{text}");
        }
        for text in ["", "5", "m", "0s", "-1h", "1.5h", "5 m", "1w", "99999999999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
