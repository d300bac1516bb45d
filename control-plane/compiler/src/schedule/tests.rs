use super::*;

#[test]
fn offsets_are_those_of_the_database() {
    let berlin =
        offsets("Europe/Berlin", &TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap()).unwrap();
    assert_eq!(berlin.offsets.first(), Some(&Offset { since: BEGIN, seconds: 3600 }));
    // 2026-03-29T01:00:00Z and 2026-10-25T01:00:00Z.
    for (since, seconds) in [(1_774_746_000, 7200), (1_792_890_000, 3600)] {
        assert!(berlin.offsets.contains(&Offset { since, seconds }), "{since}");
    }
    // Twice a year for thirty years.
    assert_eq!((berlin.offsets.len(), berlin.until), (61, HORIZON));
    let kolkata = offsets("Asia/Kolkata", &TimeZoneDatabase::bundled().get("Asia/Kolkata").unwrap()).unwrap();
    assert_eq!(kolkata.offsets, [Offset { since: BEGIN, seconds: 19_800 }]);
    let utc = offsets("UTC", &TimeZoneDatabase::bundled().get("UTC").unwrap()).unwrap();
    assert_eq!(
        (utc.offsets.as_slice(), utc.until),
        ([Offset { since: BEGIN, seconds: 0 }].as_slice(), i64::MAX)
    );
}

#[test]
fn times_of_day_have_two_digits_each() {
    for (text, expected) in [
        ("00:00", Some(0)),
        ("08:05", Some(485)),
        ("23:59", Some(1439)),
        ("24:00", Some(1440)),
        ("24:01", None),
        ("8:00", None),
        ("08:60", None),
        ("08:0", None),
        ("0800", None),
        ("08:00:00", None),
        ("+8:00", None),
        ("", None),
    ] {
        assert_eq!(clock(text), expected, "{text}");
    }
}
