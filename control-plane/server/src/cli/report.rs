//! Findings for people.

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode, SourceSpan,
    ThemeCharacters, ThemeStyles,
};

use crate::rules::{Files, Finding};

/// How findings are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One line each, as compilers do, for logs and tools.
    Lines,
    /// With the lines of the file that they are about.
    Graphical {
        /// With colours.
        color: bool,
    },
}

// === impl Style ===

impl Style {
    /// Graphical on a terminal only, in colour unless `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() {
            Self::Graphical { color: std::env::var_os("NO_COLOR").is_none() }
        } else {
            Self::Lines
        }
    }

    /// The same for standard error.
    pub(super) fn of_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Graphical { color: std::env::var_os("NO_COLOR").is_none() }
        } else {
            Self::Lines
        }
    }
}

/// A finding as text, with its line end.
pub(super) fn render(finding: &Finding, files: &Files, folder: &Path, style: Style) -> String {
    let color = match (style, finding) {
        (Style::Graphical { color }, Finding::Rule(_)) => color,
        _ => return format!("{finding}\n"),
    };
    let theme = GraphicalTheme {
        characters: ThemeCharacters::unicode(),
        styles: if color { ThemeStyles::ansi() } else { ThemeStyles::none() },
    };
    let drawing = Drawing::new(finding, files, folder);
    let mut text = String::new();
    match GraphicalReportHandler::new_themed(theme).with_links(false).render_report(&mut text, &drawing) {
        Ok(()) => text + "\n",
        Err(fmt::Error) => format!("{finding}\n"),
    }
}

/// A finding in miette's terms.
#[derive(Debug)]
struct Drawing {
    title: String,
    code: String,
    severity: Severity,
    help: String,
    source: Option<NamedSource<String>>,
    label: Option<LabeledSpan>,
}

// === impl Drawing ===

impl Drawing {
    fn new(finding: &Finding, files: &Files, folder: &Path) -> Self {
        let (Finding::Rule(found), file) = (finding, finding.file()) else {
            return Self {
                title: finding.to_string(),
                code: String::new(),
                severity: Severity::Error,
                help: String::new(),
                source: None,
                label: None,
            };
        };
        let text = files.get(file).filter(|_| found.line > 0);
        let label = text.map(|text| {
            let about = if found.field.is_empty() { found.message.clone() } else { found.field.clone() };
            LabeledSpan::new_with_span(Some(about), span(text, found.line, found.column))
        });
        let object = found.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
        Self {
            title: format!("{object}{}", found.message),
            code: found.code.to_string(),
            severity: if found.is_error() { Severity::Error } else { Severity::Warning },
            help: format!("{}\n{}", found.fix, found.why),
            source: text.map(|text| NamedSource::new(folder.join(file).display().to_string(), text.clone())),
            label,
        }
    }
}

impl fmt::Display for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

impl std::error::Error for Drawing {}

impl miette::Diagnostic for Drawing {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.label.clone().into_iter()))
    }
}

/// The word that begins at this line and column (both from 1, in characters), as bytes of the text.
fn span(text: &str, line: u32, column: u32) -> SourceSpan {
    let from_one = |place: u32| usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut start = 0;
    let mut rest = "";
    for (number, content) in text.split_inclusive('\n').enumerate() {
        rest = content;
        if number == from_one(line) {
            break;
        }
        start += content.len();
    }
    let before: usize = rest.chars().take(from_one(column)).map(char::len_utf8).sum();
    let word = rest.get(before..).unwrap_or_default();
    let length = word.find(|c: char| c.is_whitespace() || "{}[],".contains(c)).unwrap_or(word.len());
    SourceSpan::new((start + before).into(), length.max(1).min(word.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_compiler::{Code, Diagnostic, Severity};

    fn finding(line: u32, column: u32) -> Finding {
        Finding::Rule(Diagnostic {
            file: "team/a.yaml".into(),
            line,
            column,
            code: Code::UnknownField,
            severity: Severity::Error,
            object: Some("AccessRule `sales/orders`".into()),
            field: "spec.mod".into(),
            message: "unknown field `mod`".into(),
            why: "nobody would enforce it".into(),
            fix: "did you mean `mode`?".into(),
            related: vec![],
        })
    }

    fn files() -> Files {
        Files::from([("team/a.yaml".to_owned(), "kind: AccessRule\nspec: {é: 1, mod: Enforce}\n".to_owned())])
    }

    #[test]
    fn without_a_terminal_a_finding_is_one_line_with_file_line_and_column() {
        let text = render(&finding(2, 14), &files(), Path::new("rules"), Style::Lines);
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with("team/a.yaml:2:14: error[TG0201]: "), "{text}");
        assert!(text.contains("did you mean `mode`?"), "{text}");
    }

    #[test]
    fn on_a_terminal_the_word_in_question_is_underlined() {
        let text = render(&finding(2, 14), &files(), Path::new("rules"), Style::Graphical { color: false });
        assert!(text.contains("rules/team/a.yaml:2:"), "{text}");
        assert!(text.contains("spec: {é: 1, mod: Enforce}"), "{text}");
        assert!(text.contains("did you mean `mode`?"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let colored = render(&finding(2, 14), &files(), Path::new("rules"), Style::Graphical { color: true });
        assert!(colored.contains('\u{1b}'));
    }

    #[test]
    fn a_place_outside_of_the_file_is_no_panic() {
        for (line, column) in [(0, 0), (1, 1_000), (1_000, 1), (3, 1), (u32::MAX, u32::MAX)] {
            let text = render(
                &finding(line, column),
                &files(),
                Path::new("rules"),
                Style::Graphical { color: false },
            );
            assert!(text.contains("unknown field"), "{line}:{column}: {text}");
        }
    }

    #[test]
    fn a_column_counts_characters_and_a_span_bytes() {
        let text = "kind: AccessRule\nspec: {é: 1, mod: Enforce}\n";
        let span = span(text, 2, 14);
        assert_eq!(&text[span.offset()..span.offset() + span.len()], "mod:");
    }
}
