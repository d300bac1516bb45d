//! JUnit's XML, as GitLab, Jenkins and GitHub's actions read it.

use std::fmt::Write as _;

/// What belongs together.
#[derive(Debug)]
pub(super) struct Suite {
    pub name: String,
    pub cases: Vec<Case>,
}

/// One thing that holds or fails.
#[derive(Debug)]
pub(super) struct Case {
    pub name: String,
    /// The file, as the reader of the report would find it, and the line.
    pub file: String,
    pub line: u32,
    pub failure: Option<Failure>,
}

#[derive(Debug)]
pub(super) struct Failure {
    /// In one word.
    pub kind: String,
    /// In one line.
    pub message: String,
    /// All of it.
    pub text: String,
}

/// A report.
pub(super) fn report(suites: &[Suite]) -> String {
    let failed = |suite: &Suite| suite.cases.iter().filter(|case| case.failure.is_some()).count();
    let all: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    let failures: usize = suites.iter().map(failed).sum();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(xml, "<testsuites name=\"tidegate\" tests=\"{all}\" failures=\"{failures}\">");
    for suite in suites {
        let (name, tests) = (escape(&suite.name), suite.cases.len());
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{}\" errors=\"0\" skipped=\"0\">",
            failed(suite)
        );
        for case in &suite.cases {
            let _ = write!(
                xml,
                "    <testcase classname=\"{name}\" name=\"{}\" file=\"{}\" line=\"{}\"",
                escape(&case.name),
                escape(&case.file),
                case.line
            );
            let _ = match &case.failure {
                None => writeln!(xml, "/>"),
                Some(failure) => writeln!(
                    xml,
                    ">\n      <failure type=\"{}\" message=\"{}\">{}</failure>\n    </testcase>",
                    escape(&failure.kind),
                    escape(&failure.message),
                    escape(&failure.text)
                ),
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// XML 1.0 §2.2 and §2.4: characters that stand for markup are written as references, and those that no document may
/// have are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push(character),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {}
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_do_no_harm() {
        assert_eq!(escape("a<b>&\"c\"\u{1b}[0m\nd"), "a&lt;b&gt;&amp;&quot;c&quot;[0m&#10;d");
    }

    #[test]
    fn failures_are_counted() {
        let failure = Failure { kind: "x".into(), message: "m".into(), text: "t".into() };
        let case = |failure| Case { name: "n".into(), file: "f".into(), line: 1, failure };
        let xml = report(&[Suite { name: "s".into(), cases: vec![case(None), case(Some(failure))] }]);
        assert!(xml.contains("<testsuites name=\"tidegate\" tests=\"2\" failures=\"1\">"), "{xml}");
    }
}
