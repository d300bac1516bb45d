//! Weekly windows in a time zone whose offsets are listed.
//!
//! A zone is a run: from when on nothing is known (two words), then for each offset since when it holds (two words) and the
//! seconds (one word, two's complement). A window is one word: a bit for each day, `from << 8`, `to << 20`.

use crate::layout::{long, long_words};
use crate::model::{Window, Zone};
use crate::truth::Truth;

const DAY_S: i64 = 86_400;

/// Minutes of a day.
const DAY_MIN: u32 = 1440;

/// Whether it is in one of the windows; unknown where the zone's offset is.
pub(crate) fn within(zone: &[u32], windows: &[u32], now: i64) -> Truth {
    let Some(offset) = offset(zone, now) else { return Truth::Unknown };
    let Some(local) = now.checked_add(offset) else { return Truth::Unknown };
    // 1970-01-01 was a Thursday, the fourth day from Monday.
    let day = local.div_euclid(DAY_S).saturating_add(3).rem_euclid(7);
    let (Ok(day), Ok(minute)) = (u32::try_from(day), u32::try_from(local.rem_euclid(DAY_S) / 60)) else {
        return Truth::Unknown;
    };
    Truth::from(windows.iter().any(|window| {
        let (days, from, to) = parts(*window);
        days >> day & 1 == 1 && from <= minute && minute < to
    }))
}

/// The first moment after `now` at which [`within`] may answer otherwise: an edge of a window, or of what is known.
pub(crate) fn next_change(zone: &[u32], windows: &[u32], now: i64) -> i64 {
    let (offsets, until) = read(zone);
    let after = offsets.partition_point(|[low, high, _]| long(*low, *high) <= now);
    let known = offsets.get(after).map_or(until, |[low, high, _]| long(*low, *high));
    let known = if known > now { known } else { i64::MAX };
    let Some(local) = offset(zone, now).and_then(|offset| now.checked_add(offset)) else { return known };
    let second = local.rem_euclid(DAY_S);
    let edges = windows.iter().flat_map(|window| {
        let (_, from, to) = parts(*window);
        [i64::from(from) * 60, i64::from(to) * 60]
    });
    // The day's remaining edges, whichever day it is, and its end.
    let next = edges.filter(|edge| *edge > second).min().unwrap_or(DAY_S);
    known.min(now.saturating_add(next).saturating_sub(second))
}

fn read(zone: &[u32]) -> (&[[u32; 3]], i64) {
    let Some(([low, high], offsets)) = zone.split_first_chunk::<2>() else { return (&[], i64::MIN) };
    let (offsets, _) = offsets.as_chunks::<3>();
    (offsets, long(*low, *high))
}

/// Seconds to add to UTC.
fn offset(zone: &[u32], now: i64) -> Option<i64> {
    let (offsets, until) = read(zone);
    let after = offsets.partition_point(|[low, high, _]| long(*low, *high) <= now);
    let [_, _, seconds] = offsets.get(after.checked_sub(1)?)?;
    (now < until).then_some(i64::from(seconds.cast_signed()))
}

const fn parts(window: u32) -> (u32, u32, u32) {
    (window & 0x7F, window >> 8 & 0xFFF, window >> 20)
}

/// Writes a zone as a run.
pub(crate) fn encode_zone(zone: &Zone) -> Result<Vec<u32>, &'static str> {
    let mut run = Vec::from(long_words(zone.until));
    for offset in &zone.offsets {
        run.extend(long_words(offset.since));
        run.push(offset.seconds.cast_unsigned());
    }
    check_zone(&run)?;
    Ok(run)
}

/// Writes a window as a word.
pub(crate) fn encode_window(window: Window) -> Result<u32, &'static str> {
    if window.days & 0x80 != 0 {
        return Err("a week has seven days");
    }
    if window.from >= window.to || u32::from(window.to) > DAY_MIN {
        return Err("a window ends after it begins, on the same day");
    }
    let word = u32::from(window.days) | u32::from(window.from) << 8 | u32::from(window.to) << 20;
    check_window(word)?;
    Ok(word)
}

/// Checks a zone's run.
pub(crate) fn check_zone(run: &[u32]) -> Result<(), &'static str> {
    let (offsets, until) = read(run);
    if offsets.is_empty() || run.len() != offsets.len().saturating_mul(3).saturating_add(2) {
        return Err("a time zone has no offsets");
    }
    let begins = offsets.iter().map(|[low, high, _]| long(*low, *high)).chain([until]);
    if !begins.is_sorted_by(|earlier, later| earlier < later) {
        return Err("a time zone's offsets are not in the order of time");
    }
    if offsets.iter().any(|[_, _, seconds]| i64::from(seconds.cast_signed()).abs() >= DAY_S) {
        return Err("a time zone's offset is a day or more");
    }
    Ok(())
}

/// Checks a window's word.
pub(crate) fn check_window(window: u32) -> Result<(), &'static str> {
    let (days, from, to) = parts(window);
    if days == 0 || window & 0x80 != 0 || from >= to || to > DAY_MIN {
        return Err("a window has no time in it");
    }
    Ok(())
}
