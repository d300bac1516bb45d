use super::*;
use crate::rules::{Environment, Files};

const NOW: i64 = 1_800_000_000;

const RULES: &str = r#"
kind: TrustedIssuer
metadata: {name: gitlab}
spec: {issuer: "https://gitlab.example", pack: gitlab, keys: {discovery: true}}
---
kind: Caller
metadata: {name: old-only, namespace: ci}
spec:
  anyOf:
  - peer: {namespace: ci}
  - peer: {namespace: ci}
    tokens: [{issuer: gitlab, gitlab: {project: 1}}]
---
kind: Caller
metadata: {name: moved, namespace: ci}
spec:
  anyOf:
  - {anyMesh: true, tokens: [{issuer: "${env.ci}", gitlab: {project: 1}}]}
  - {anyMesh: true, tokens: [{issuer: gitlab-new, gitlab: {project: 1}}]}
---
kind: Caller
metadata: {name: needs-both, namespace: ci}
spec:
  anyOf:
  - {anyMesh: true, tokens: [{issuer: gitlab}, {issuer: gitlab-new}]}
---
kind: AccessRule
metadata: {name: no-forks, namespace: sales}
spec:
  effect: Deny
  from: [{anyMesh: true, tokens: [{issuer: gitlab}]}]
---
kind: AccessRule
metadata: {name: by-caller, namespace: sales}
spec:
  effect: Allow
  from: [{caller: ci/moved}, {peer: {namespace: etl}}]
---
"#;

fn found() -> Vec<Mention> {
    let files = Files::from([("ci.yaml".to_owned(), RULES.to_owned())]);
    let environment = Environment::from([("ci".to_owned(), "gitlab".to_owned())]);
    mentions(&files, &environment, "gitlab", "gitlab-new").unwrap()
}

fn used(issuer: &str, last_verified_at: Option<i64>) -> IssuerUseReport {
    let (workload, issuer) = ("sales/orders".to_owned(), issuer.to_owned());
    IssuerUseReport { workload, issuer, verified: 12, refused: 0, last_verified_at }
}

fn report(objects: Vec<Mention>, old: Option<Option<i64>>) -> Report {
    let seen = old.map(|at| Seen { since: NOW - 9_000, old: vec![used("gitlab", at)], new: vec![] });
    Report::new("gitlab", "gitlab-new", objects, seen, NOW)
}

#[test]
fn objects_are_ready_when_a_form_does_with_the_new_issuer_alone() {
    let found = found();
    let told: Vec<_> =
        found.iter().map(|object| (object.name.as_str(), object.standing, object.forms.join(","))).collect();
    assert_eq!(
        told,
        [
            ("ci/old-only", Standing::OldOnly, "anyOf[1]".to_owned()),
            ("ci/moved", Standing::Both, "anyOf[0]".to_owned()),
            ("ci/needs-both", Standing::OldOnly, "anyOf[0]".to_owned()),
            ("sales/no-forks", Standing::OldOnly, "from[0]".to_owned()),
        ]
    );
    assert_eq!(
        RULES.lines().nth(usize::try_from(found[0].line).unwrap() - 1).unwrap(),
        "  - peer: {namespace: ci}"
    );
    assert_eq!(found[0].line, 11);
}

#[test]
fn what_waits_is_told_with_its_place() {
    let text = report(found(), None).text(NOW);
    for line in [
        "Without a form that names `gitlab-new` (give them one):",
        "  ci.yaml:11  Caller ci/old-only                anyOf[1]",
        "  ci.yaml:31  AccessRule sales/no-forks (Deny)  from[0]",
        "Not yet: 3 objects need a form that names `gitlab-new`.",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
    assert!(!text.contains("by-caller"), "{text}");
}

#[test]
fn it_is_done_when_no_object_waits_and_no_token_was_seen_lately() {
    let ready: Vec<Mention> =
        found().into_iter().filter(|object| object.standing == Standing::Both).collect();
    for (objects, old, done, told) in [
        (found(), Some(None), false, "Not yet: 3 objects"),
        (ready.clone(), Some(Some(NOW - 60)), false, "tokens of `gitlab` are still sent"),
        (ready.clone(), Some(Some(NOW - LATELY_S)), true, "Nothing needs `gitlab` any more"),
        (ready.clone(), Some(None), true, "Nothing needs `gitlab` any more"),
        (ready, None, true, "ask with --admin"),
        (vec![], Some(None), true, "No Caller and no AccessRule names `gitlab`."),
    ] {
        let report = report(objects, old);
        let text = report.text(NOW);
        assert_eq!(report.done, done, "{text}");
        assert!(text.contains(told), "{told}\n{text}");
    }
}

#[test]
fn workloads_that_saw_tokens_are_told_with_the_time() {
    let text = report(vec![], Some(Some(NOW - 240))).text(NOW);
    assert!(text.contains("Tokens of `gitlab` (heard of for 2 h):"), "{text}");
    assert!(text.contains("  sales/orders  last 4 min ago  2027-01-15T07:56Z  12 requests"), "{text}");
    assert!(text.contains("Tokens of `gitlab-new` (heard of for 2 h):\n  none was seen"), "{text}");
}
