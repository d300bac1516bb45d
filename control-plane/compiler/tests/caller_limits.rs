//! A Caller is small enough to be revoked, whoever writes it.

mod common;

use common::{GUARD, ISSUERS, MESH, codes, compile_files, files, shown};
use tidegate_compiler::{Compilation, Inputs, compile, revocation};

/// Of the Caller that is called `data/large`.
fn caller(forms: &[String]) -> String {
    let forms: String = forms.iter().map(|form| format!("  - {form}\n")).collect();
    format!("kind: Caller\nmetadata: {{name: large, namespace: data}}\nspec:\n  anyOf:\n{forms}")
}

fn peer(accounts: usize, length: usize) -> String {
    let accounts: Vec<String> = (0..accounts).map(|at| format!("w{at:0>length$}")).collect();
    format!("peer: {{namespace: etl, serviceAccounts: [{}]}}", accounts.join(", "))
}

fn at(path: &str, text: &str, env: &[(&str, String)]) -> Compilation {
    let sources =
        files(&[("mesh.yaml", MESH), ("issuers.yaml", ISSUERS), ("guard.yaml", GUARD), (path, text)]);
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    compile(&Inputs { sources: &sources, env, now: None })
}

fn errors(compilation: &Compilation) -> Vec<String> {
    compilation.diagnostics.iter().filter(|found| found.is_error()).map(ToString::to_string).collect()
}

#[test]
fn refuses_callers_of_which_there_is_too_much() {
    let forms = |count: usize| -> Vec<String> {
        (0..count).map(|at| format!("peer: {{namespace: etl-{at}}}")).collect()
    };
    let claims: Vec<String> = (0..257).map(|at| format!("c{at}: x")).collect();
    let claims = format!("{{anyMesh: true, tokens: [{{issuer: corp, claims: {{{}}}}}]}}", claims.join(", "));
    let said: String =
        [caller(&forms(33)), caller(&[peer(257, 3)]), caller(&[claims]), caller(&[peer(250, 62)])]
            .iter()
            .map(|text| {
                let compilation = at("callers.yaml", text, &[]);
                assert!(compilation.output.is_none());
                errors(&compilation).join("\n") + "\n"
            })
            .collect();
    insta::assert_snapshot!(said);
    // One less of each is none too much.
    for fine in [caller(&forms(32)), caller(&[peer(256, 3)])] {
        let compilation = at("callers.yaml", &fine, &[]);
        assert_eq!(errors(&compilation), [] as [&str; 0], "{fine}");
    }
}

/// Names are short, and what stands for them is not; or the other way round.
#[test]
fn what_the_environment_adds_counts_and_so_does_what_refers_to_it() {
    let account =
        |name: &str| caller(&[format!("peer: {{namespace: etl, serviceAccounts: [\"${{env.{name}}}\"]}}")]);
    let long = "a".repeat(20_000);
    let compilation = at("callers.yaml", &account("long"), &[("long", long.clone())]);
    assert!(codes(&compilation).contains(&"TG0309"), "{}", shown(&compilation));
    let compilation = at("callers.yaml", &account(&long), &[(&long, "short".to_owned())]);
    assert!(codes(&compilation).contains(&"TG0309"), "{}", shown(&compilation));
    let compilation =
        at("callers.yaml", &account("short"), &[("short", "worker".to_owned()), ("long", long)]);
    assert_eq!(codes(&compilation), [] as [&str; 0], "{}", shown(&compilation));
    let hidden = caller(&[peer(250, 62)]).replacen("kind: Caller", "kind: \"${env.kind}\"", 1);
    let compilation = at("callers.yaml", &hidden, &[("kind", "Caller".to_owned())]);
    assert_eq!(codes(&compilation), ["TG0309"], "{}", shown(&compilation));
}

/// An anchor is written once, and what refers to it as often as it is there.
#[test]
fn what_is_repeated_by_reference_counts_each_time() {
    let first = format!(
        "peer: &all {{namespace: etl, serviceAccounts: [{}]}}",
        vec!["worker-with-a-name"; 100].join(", ")
    );
    let mut forms = vec![first];
    forms.extend((1..20).map(|_| "peer: *all".to_owned()));
    let compilation = at("callers.yaml", &caller(&forms), &[]);
    assert!(codes(&compilation).contains(&"TG0309"), "{}", shown(&compilation));
}

/// It was revoked before there was a limit, and stays so.
#[test]
fn what_is_revoked_already_is_not_refused() {
    let text = caller(&[peer(250, 62)]).replace("name: large", "name: tidegate-revoked-r-1-0");
    let path = format!("{}r-1, form 0.yaml", revocation::PATHS);
    let compilation = at(&path, &text, &[]);
    assert_eq!(errors(&compilation), [] as [&str; 0]);
    // Nobody else's is let through by the name.
    let compilation =
        compile_files(&files(&[("mesh.yaml", MESH), ("issuers.yaml", ISSUERS), ("callers.yaml", &text)]));
    assert!(codes(&compilation).contains(&"TG0309"), "{}", shown(&compilation));
}
