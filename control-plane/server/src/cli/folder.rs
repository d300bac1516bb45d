//! A folder of rules, compiled for a question about it.

use std::path::{Path, PathBuf};

use tidegate_compiler::{Compiled, Inputs, RuleTests, SourceFile, check_tests};

use super::{Ending, complain_text, print, report};
use crate::rules::{Environment, Files, Finding, load, load_environment};
use crate::serve::compile_files;

/// Rules that compile.
pub(super) struct Folder {
    pub files: Files,
    pub environment: Environment,
    pub compiled: Compiled,
}

/// Reads and compiles a folder. `Err` inside: it does not compile, and what is wrong has been printed.
pub(super) fn open(rules: &Path, env: Option<&Path>) -> anyhow::Result<Result<Folder, Ending>> {
    let loaded = load(rules)?;
    let environment = env.map(load_environment).transpose()?.unwrap_or_default();
    let compilation = compile_files(&loaded.files, &environment);
    match compilation.output.filter(|_| loaded.problems.is_empty()) {
        Some(compiled) => Ok(Ok(Folder { files: loaded.files, environment, compiled })),
        None => {
            let findings = loaded.problems.into_iter().map(Finding::File);
            let findings = findings.chain(compilation.diagnostics.into_iter().map(Finding::Rule));
            let style = report::Style::of_stderr();
            for finding in findings.filter(Finding::is_error) {
                complain_text(&report::render(&finding, &loaded.files, rules, style));
            }
            complain_text(&format!("the rules do not compile; next: tidegate check {}\n", rules.display()));
            Ok(Err(Ending::Refused))
        }
    }
}

/// The same without a word about what is wrong.
pub(super) fn open_quietly(rules: &Path, env: Option<&Path>) -> Option<Folder> {
    let loaded = load(rules).ok()?;
    let environment = env.map(load_environment).transpose().ok()?.unwrap_or_default();
    let compiled = compile_files(&loaded.files, &environment).output?;
    Some(Folder { files: loaded.files, environment, compiled })
}

// === impl Folder ===

impl Folder {
    /// The RuleTests of the folder.
    pub(super) fn tests(&self) -> RuleTests {
        let files = self.files.iter();
        let sources: Vec<SourceFile> =
            files.map(|(path, text)| SourceFile { path: path.clone(), text: text.clone() }).collect();
        check_tests(&Inputs { sources: &sources, env: self.environment.clone(), now: None }, &self.compiled)
    }
}

/// A file of the folder as somebody finds it who stands at the root of the checkout: where CI says that it is, else here.
pub(super) fn from_root(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    let root = std::env::var_os("CI_PROJECT_DIR").or_else(|| std::env::var_os("GITHUB_WORKSPACE"));
    let root = root.map(PathBuf::from).filter(|root| root.is_absolute());
    let here = std::env::current_dir().ok();
    let absolute = here.as_deref().map_or_else(|| path.clone(), |here| here.join(&path));
    let relative = [root.as_deref(), here.as_deref()]
        .into_iter()
        .flatten()
        .find_map(|root| absolute.strip_prefix(root).ok().map(Path::to_owned));
    let parts: Vec<String> = relative
        .unwrap_or(path)
        .components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/").replacen("//", "/", 1)
}

/// Prints JSON for programs.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&format!("{}\n", serde_json::to_string_pretty(value)?))?)
}
