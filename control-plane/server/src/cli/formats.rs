//! Findings in the formats of other tools: JUnit, GitLab Code Quality, SARIF.
//!
//! INVARIANT: files are named as somebody finds them who stands at the root of the checkout, with `/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aws_lc_rs::digest;
use serde_json::{Value, json};
use tidegate_compiler::{Code, Diagnostic};

use super::folder::from_root;
use super::junit;
use crate::rules::{Files, Finding};

/// A case per file; it fails if the file has an error.
pub(super) fn junit(findings: &[Finding], files: &Files, folder: &Path) -> String {
    let mut by_file: BTreeMap<&str, Vec<&Finding>> =
        files.keys().map(|file| (file.as_str(), Vec::new())).collect();
    for finding in findings {
        by_file.entry(finding.file()).or_default().push(finding);
    }
    let case = |(file, findings): (&str, Vec<&Finding>)| {
        let errors: Vec<&&Finding> = findings.iter().filter(|finding| finding.is_error()).collect();
        let text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        let failure = errors.first().map(|first| junit::Failure {
            kind: place(first).code,
            message: place(first).message,
            text,
        });
        let line = errors.first().map_or(1, |first| place(first).line);
        let name = if file.is_empty() { "the mesh as a whole" } else { file };
        junit::Case { name: name.to_owned(), file: shown(folder, file), line, failure }
    };
    let cases = by_file.into_iter().map(case).collect();
    junit::report(&[junit::Suite { name: "tidegate check".to_owned(), cases }])
}

/// As <https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format> says.
pub(super) fn gitlab(findings: &[Finding], folder: &Path) -> Value {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let one = |finding: &Finding| {
        let place = place(finding);
        let path = shown(folder, finding.file());
        // The line is left out: a finding stays the same when lines are added above it.
        let identity = [
            place.code.as_str(),
            path.as_str(),
            place.object.as_str(),
            place.field.as_str(),
            place.message.as_str(),
        ]
        .join("\0");
        let again = seen.entry(identity.clone()).and_modify(|count| *count += 1).or_default();
        json!({
            "description": format!("{}; {}; {}", place.message, place.why, place.fix),
            "check_name": place.code,
            "fingerprint": fingerprint(&format!("{identity}\0{again}")),
            "severity": if finding.is_error() { "critical" } else { "minor" },
            "location": {"path": path, "lines": {"begin": place.line}},
        })
    };
    Value::Array(findings.iter().map(one).collect())
}

/// SARIF 2.1.0 (OASIS), <https://docs.oasis-open.org/sarif/sarif/v2.1.0/>.
pub(super) fn sarif(findings: &[Finding], folder: &Path) -> Value {
    let codes: BTreeSet<String> = findings.iter().map(|finding| place(finding).code).collect();
    let title = |code: &str| Code::ALL.iter().find(|known| known.as_str() == code).map(|known| known.title());
    let rules: Vec<Value> = codes
        .iter()
        .map(|code| json!({"id": code, "shortDescription": {"text": title(code).unwrap_or("A file that cannot be read as rules.")}}))
        .collect();
    let result = |finding: &Finding| {
        let place = place(finding);
        let location = |file: &str, line: u32, column: u32, message: Option<&str>| {
            let mut location = json!({"physicalLocation": {
                "artifactLocation": {"uri": uri(&shown(folder, file)), "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": line.max(1), "startColumn": column.max(1)},
            }});
            if let Some(message) = message {
                location["message"] = json!({"text": message});
            }
            location
        };
        let mut result = json!({
            "ruleId": place.code,
            "ruleIndex": codes.iter().position(|code| *code == place.code).unwrap_or_default(),
            "level": if finding.is_error() { "error" } else { "warning" },
            "message": {"text": format!("{}; {}; {}", place.message, place.why, place.fix)},
        });
        if !finding.file().is_empty() {
            let mut here = location(finding.file(), place.line, place.column, None);
            if !place.object.is_empty() {
                let name = format!("{} {}", place.object, place.field);
                here["logicalLocations"] = json!([{"fullyQualifiedName": name.trim()}]);
            }
            result["locations"] = json!([here]);
        }
        if let Finding::Rule(Diagnostic { related, .. }) = finding
            && !related.is_empty()
        {
            let related =
                related.iter().map(|one| location(&one.file, one.line, one.column, Some(&one.message)));
            result["relatedLocations"] = related.collect();
        }
        result
    };
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "tidegate",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// What both kinds of findings have.
struct Place {
    code: String,
    line: u32,
    column: u32,
    object: String,
    field: String,
    message: String,
    why: String,
    fix: String,
}

fn place(finding: &Finding) -> Place {
    match finding {
        Finding::Rule(found) => Place {
            code: found.code.to_string(),
            line: found.line.max(1),
            column: found.column.max(1),
            object: found.object.clone().unwrap_or_default(),
            field: found.field.clone(),
            message: found.message.clone(),
            why: found.why.clone(),
            fix: found.fix.clone(),
        },
        Finding::File(found) => Place {
            code: found.code.to_owned(),
            line: 1,
            column: 1,
            object: String::new(),
            field: String::new(),
            message: found.message.clone(),
            why: found.why.to_owned(),
            fix: found.fix.to_owned(),
        },
    }
}

fn shown(folder: &Path, file: &str) -> String {
    // What is about no file is about all of them.
    from_root(folder, file).trim_end_matches('/').to_owned()
}

fn fingerprint(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3986 §3.3: what a path segment may have stands for itself.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte))
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_compiler::{Inputs, SourceFile, compile};

    use super::*;

    fn findings() -> (Vec<Finding>, Files) {
        let text = "kind: Mesh\nmetadata: {name: mesh}\nspec: {trustDomain: a.b, rootNamespace: root, workloads: \
                    [{namespace: a, name: b}]}\n---\nkind: AccessRule\nmetadata: {name: r, namespace: a}\nspec: {owner: x, \
                    efect: Allow, mode: Enforce, from: [{anyMesh: true}]}\n---\nkind: Guard\nmetadata: {name: g, \
                    namespace: c}\nspec: {mode: Enforce}\n";
        let again = "kind: Guard\nmetadata: {name: g, namespace: c}\nspec: {mode: Enforce}\n";
        let sources = [("a b.yaml", text), ("c.yaml", again)]
            .map(|(path, text)| SourceFile { path: path.into(), text: text.into() });
        let found = compile(&Inputs { sources: &sources, env: BTreeMap::new(), now: None }).diagnostics;
        let files = sources.into_iter().map(|source| (source.path, source.text)).collect();
        (found.into_iter().map(Finding::Rule).collect(), files)
    }

    #[test]
    fn findings_are_told_in_the_formats_of_other_tools() {
        let (findings, files) = findings();
        let folder = Path::new("team/rules");
        insta::assert_snapshot!("junit", junit(&findings, &files, folder));
        insta::assert_snapshot!("gitlab", serde_json::to_string_pretty(&gitlab(&findings, folder)).unwrap());
        let sarif = serde_json::to_string_pretty(&sarif(&findings, folder)).unwrap();
        insta::assert_snapshot!("sarif", sarif.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn the_same_finding_twice_has_two_fingerprints_and_lines_do_not_matter() {
        let (findings, _) = findings();
        let twice = [findings[0].clone(), findings[0].clone()];
        let report = gitlab(&twice, Path::new("rules"));
        assert_ne!(report[0]["fingerprint"], report[1]["fingerprint"]);
        let Finding::Rule(mut moved) = findings[0].clone() else { panic!("it is about a rule") };
        moved.line += 7;
        let moved = gitlab(&[Finding::Rule(moved)], Path::new("rules"));
        assert_eq!(report[0]["fingerprint"], moved[0]["fingerprint"]);
    }
}
