//! Properties: order never matters, a broken piece never yields output, and no text makes the compiler panic.

mod common;

use std::sync::LazyLock;

use common::documents::{DOCUMENTS, MISTAKES};
use common::{compile_files, shown};
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use tidegate_compiler::{Compiled, SourceFile};

static WHOLE: LazyLock<Compiled> = LazyLock::new(|| {
    let compilation = compile_files(&one_file(&DOCUMENTS));
    let said = shown(&compilation);
    compilation.output.unwrap_or_else(|| panic!("{said}"))
});

fn one_file(documents: &[String]) -> Vec<SourceFile> {
    vec![SourceFile { path: "all.yaml".to_owned(), text: documents.join("---\n") }]
}

/// The documents in some order, each in one of some files.
fn arrangement() -> impl Strategy<Value = Vec<SourceFile>> {
    let files = prop::collection::vec(0usize..4, DOCUMENTS.len());
    (Just(DOCUMENTS.clone()).prop_shuffle(), files, Just((0..4).collect::<Vec<usize>>()).prop_shuffle())
        .prop_map(|(documents, files, order)| {
            let mut texts: Vec<Vec<String>> = vec![Vec::new(); 4];
            for (document, file) in documents.into_iter().zip(files) {
                texts[file].push(document);
            }
            order
                .into_iter()
                .map(|file| SourceFile { path: format!("{file}.yaml"), text: texts[file].join("---\n") })
                .collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_files_and_documents_never_changes_the_output(files in arrangement()) {
        let compilation = compile_files(&files);
        let said = shown(&compilation);
        let output = compilation.output;
        prop_assert!(output.is_some(), "{}", said);
        prop_assert!(output.as_ref() == Some(&*WHOLE), "{files:?}");
    }

    #[test]
    fn the_order_of_files_never_changes_what_is_said(files in arrangement(), mistake in any::<Index>()) {
        let (from, to) = MISTAKES[mistake.index(MISTAKES.len())];
        let broken: Vec<SourceFile> = files
            .iter()
            .map(|file| SourceFile { path: file.path.clone(), text: file.text.replacen(from, to, 1) })
            .collect();
        let mut reversed = broken.clone();
        reversed.reverse();
        prop_assert_eq!(compile_files(&broken).diagnostics, compile_files(&reversed).diagnostics);
    }

    #[test]
    fn a_broken_piece_never_yields_output(files in arrangement(), mistakes in subsequence(MISTAKES.to_vec(), 1..3)) {
        let broken: Vec<SourceFile> = files
            .iter()
            .map(|file| {
                let text = mistakes.iter().fold(file.text.clone(), |text, (from, to)| text.replacen(from, to, 1));
                SourceFile { path: file.path.clone(), text }
            })
            .collect();
        prop_assert!(broken != files);
        let compilation = compile_files(&broken);
        prop_assert!(compilation.output.is_none(), "{mistakes:?}");
        prop_assert!(compilation.diagnostics.iter().any(|found| found.is_error()), "{mistakes:?}");
    }

    /// Output and errors exclude each other, whatever is written.
    #[test]
    fn there_is_output_if_and_only_if_there_is_no_error(
        position in any::<Index>(), length in 0usize..12, replacement in "[a-z{}\\[\\]:,'\"\\-\\n &*!#|>%@`$~0-9.]{0,6}"
    ) {
        let text = DOCUMENTS.join("---\n");
        let start = position.index(text.len());
        let end = (start + length).min(text.len());
        let (Some(before), Some(after)) = (text.get(..start), text.get(end..)) else { return Ok(()) };
        let file = SourceFile { path: "a.yaml".to_owned(), text: format!("{before}{replacement}{after}") };
        let compilation = compile_files(std::slice::from_ref(&file));
        let errors = compilation.diagnostics.iter().filter(|found| found.is_error()).count();
        prop_assert_eq!(compilation.output.is_some(), errors == 0, "{}", shown(&compilation));
        for found in &compilation.diagnostics {
            let lines = file.text.lines().count();
            let line = usize::try_from(found.line).unwrap();
            prop_assert!(line <= lines + 1, "{found} of {lines} lines");
            prop_assert!(!found.message.is_empty() && !found.why.is_empty() && !found.fix.is_empty(), "{found}");
        }
    }

    /// Whatever is written as a condition either compares what the entry has, or is refused.
    #[test]
    fn no_condition_makes_it_panic_or_is_left_out(
        text in prop_oneof![
            "\\PC{0,80}",
            "(job|github|peer|a|has|true)(\\.|\\[|\"sha\"|sha|\\]|\\(|\\)| == | && |\\|\\||!|-|\\?|:|,|\\{|\\}|1|job|github|peer\\.namespace){0,16}",
            "\\({0,200}job\\.sha == github\\.sha\\){0,200}",
        ]
    ) {
        let bind = |bind: &str| {
            let rule = common::rule("Allow", &format!(
                "  - anyMesh: true\n    tokens: [{{issuer: gitlab, as: job, claims: {{project_id: '1'}}}}, {{issuer: github, \
                 claims: {{repository_id: '1'}}}}]\n{bind}"
            ), "");
            common::compile_rules(&rule)
        };
        let without = bind("").output.unwrap();
        let bound = bind(&format!("    bind: [{}]\n", serde_json::to_string(&text).unwrap()));
        let errors = bound.diagnostics.iter().any(|found| found.is_error());
        prop_assert_eq!(bound.output.is_none(), errors, "{}", shown(&bound));
        if let Some(output) = bound.output {
            prop_assert!(output.workloads != without.workloads, "{text:?}");
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", more in "[a-z:\\-{}\\[\\]&*!|>'\"%#\\n ]{0,200}") {
        compile_files(&[
            SourceFile { path: "a.yaml".to_owned(), text },
            SourceFile { path: "b.yaml".to_owned(), text: more },
        ]);
    }
}

#[test]
fn every_mistake_is_one_in_the_documents_as_they_are() {
    let text = DOCUMENTS.join("---\n");
    for (from, to) in MISTAKES {
        assert!(text.contains(from), "{from}");
        let file = SourceFile { path: "a.yaml".to_owned(), text: text.replacen(from, to, 1) };
        assert!(compile_files(&[file]).output.is_none(), "{from} → {to}");
    }
}

/// Leaving a document out changes the output, or is an error: none of them is ignored.
#[test]
fn every_document_counts() {
    for left_out in 0..DOCUMENTS.len() {
        let mut documents = DOCUMENTS.clone();
        let document = documents.remove(left_out);
        let output = compile_files(&one_file(&documents)).output;
        assert!(output.as_ref() != Some(&*WHOLE), "{document}");
    }
}
