//! The demo's table.

use std::fmt::Write as _;

use super::send::Sent;

/// One line per request: who, what, outcome, reason, rule, latency.
pub fn table(sent: &[Sent], colored: bool) -> String {
    let head = ["", "who", "what", "outcome", "reason", "rule", "ms"].map(str::to_owned);
    let lines: Vec<[String; 7]> =
        sent.iter().enumerate().map(|(index, sent)| line(index + 1, sent)).collect();
    let mut widths = [0; 7];
    for cells in std::iter::once(&head).chain(&lines) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    write_line(&mut text, &head, &widths, colored.then_some("1"));
    for (cells, sent) in lines.iter().zip(sent) {
        let color = match (sent.outcome.faults.is_empty(), sent.outcome.passed) {
            (false, _) => "1;31",
            (true, true) => "32",
            (true, false) => "33",
        };
        write_line(&mut text, cells, &widths, colored.then_some(color));
        // Writing to a string cannot fail.
        if let Some(shadow) = &sent.outcome.shadow {
            let _ = writeln!(text, "    in Shadow: {shadow} would decide otherwise");
        }
        for fault in &sent.outcome.faults {
            let _ = writeln!(text, "    NOT AS EXPECTED: {fault}");
        }
    }
    text
}

fn line(number: usize, sent: &Sent) -> [String; 7] {
    let outcome = &sent.outcome;
    let verb = if outcome.passed { "allowed" } else { "refused" };
    [
        number.to_string(),
        sent.row.who.to_owned(),
        sent.row.what.clone(),
        format!("{} {verb}", outcome.status),
        outcome.reason.clone(),
        outcome.rule.clone().unwrap_or_else(|| "-".to_owned()),
        format!("{:.1}", outcome.latency.as_secs_f64() * 1000.0),
    ]
}

/// Numbers to the right, text to the left; no spaces at the end.
fn write_line(text: &mut String, cells: &[String; 7], widths: &[usize; 7], color: Option<&str>) {
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if index == 0 { "" } else { "  " };
        let _ = match index {
            0 | 6 => write!(line, "{gap}{cell:>width$}"),
            _ => write!(line, "{gap}{cell:<width$}"),
        };
    }
    let _ = match color {
        Some(color) => writeln!(text, "\x1b[{color}m{}\x1b[0m", line.trim_end()),
        None => writeln!(text, "{}", line.trim_end()),
    };
}
