//! Text for people.

use std::sync::OnceLock;

pub(super) use crate::clock::span;

/// Columns that lines are broken at, at most.
const WIDTH: usize = 100;
/// Narrower terminals break lines themselves.
const NARROWEST: usize = 60;
/// Columns before what a label is about.
const INDENT: usize = 12;

/// Columns that lines are broken at: those of the terminal, if it is one.
fn width() -> usize {
    static COLUMNS: OnceLock<usize> = OnceLock::new();
    *COLUMNS.get_or_init(|| {
        // Tests may run on terminals of any width, and compare what is printed.
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|_| !cfg!(test));
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        columns.unwrap_or(WIDTH).clamp(NARROWEST, WIDTH)
    })
}

/// What others have written, without anything that a terminal would obey or hide.
pub(super) fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            // Invisible, and changes of direction.
            || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// A line with a label, broken at spaces.
pub(super) fn labelled(label: &str, text: &str) -> String {
    hanging(&format!("  {label:<width$}", width = INDENT - 2), INDENT, text)
}

/// A line that begins with `start`, which is `indent` columns wide, broken at spaces; further lines begin there.
pub(super) fn hanging(start: &str, indent: usize, text: &str) -> String {
    let mut lines = start.to_owned();
    let mut column = indent;
    let width = width();
    for (position, word) in visible(text).split(' ').enumerate() {
        let length = word.chars().count();
        if position > 0 && column + 1 + length > width {
            lines.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else if position > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines.push('\n');
    lines
}

/// Seconds of `90s`, `15m`, `12h` or `30d`.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// `1 test`, `2 tests`.
pub(super) fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(visible("k\u{1b}[31m\n\u{202e}é"), "k\\u{1b}[31m\\u{a}\\u{202e}é");
    }

    #[test]
    fn long_lines_are_broken_at_spaces_and_long_words_are_not() {
        assert_eq!(labelled("from", "the rules"), "  from      the rules\n");
        let words = ["word"; 40].join(" ");
        let lines = labelled("ATTENTION", &words);
        assert!(lines.lines().all(|line| line.len() <= WIDTH), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with("            word")), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 41);
        let url = format!("https://issuer.example/{}", "x".repeat(120));
        assert_eq!(labelled("from", &url), format!("  from      {url}\n"));
    }

    #[test]
    fn spans_of_time_are_read() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("2h", Some(7_200)),
            ("1d", Some(86_400)),
            ("0s", Some(0)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["", "h", "1", "1w", "-1h", "1.5h", "1é", "é"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_table_has_columns_and_no_trailing_space() {
        let rows = [["A", "B"], ["long", "x"], ["s", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     B\nlong  x\ns\n");
    }
}
