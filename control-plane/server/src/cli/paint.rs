//! Colours.

use std::io::IsTerminal;

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Colored,
}

/// What something is, not how it looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Color {
    Good,
    Bad,
    Warn,
    Dim,
    Bold,
}

// === impl Style ===

impl Style {
    /// In colour on a terminal only, and not where `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        match std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            true => Self::Colored,
            false => Self::Plain,
        }
    }

    pub(super) fn paint(self, color: Color, text: &str) -> String {
        // ECMA-48 §8.3.117.
        let code = match color {
            Color::Good => "32",
            Color::Bad => "1;31",
            Color::Warn => "33",
            Color::Dim => "2",
            Color::Bold => "1",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Colored => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}
