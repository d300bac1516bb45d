//! Moments to the microsecond, as RFC 3339 writes them in UTC.

use crate::clock::civil;

/// `2026-11-21T02:14:07.000123Z`. `at`: Unix microseconds.
pub fn write(at: i64) -> String {
    let (seconds, micros) = (at.div_euclid(1_000_000), at.rem_euclid(1_000_000));
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Unix microseconds of what [`write()`] writes, with any number of digits after the second; `None`: it is something else.
pub fn read(text: &str) -> Option<i64> {
    let rest = text.strip_suffix('Z')?;
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    let seconds = tidegate_compiler::moment(&format!("{whole}Z"))?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros: i64 = format!("{:0<6}", fraction).get(..6)?.parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for at in [0, 1, -1, 951_782_400_000_000, 1_795_203_600_123_456, 253_402_300_799_999_999] {
            let text = write(at);
            if at >= 0 {
                assert_eq!(read(&text), Some(at), "{text}");
            }
        }
        assert_eq!(write(1_795_203_600_000_123), "2026-11-20T19:40:00.000123Z");
        assert_eq!(write(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(read("2026-11-20T19:40:00Z"), Some(1_795_203_600_000_000));
        assert_eq!(read("2026-11-20T19:40:00.5Z"), Some(1_795_203_600_500_000));
        for text in
            ["", "2026-11-20", "2026-11-20T19:40:00.Z", "2026-11-20T19:40:00.x5Z", "2026-13-20T19:40:00Z"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
