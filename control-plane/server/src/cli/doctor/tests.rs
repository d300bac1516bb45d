use super::*;

fn finding(severity: Severity) -> Finding {
    Finding {
        severity,
        code: "TD0203".into(),
        source: "pods.yaml".into(),
        object: "Pod sales/a".into(),
        field: "spec.hostNetwork".into(),
        message: "it is in the node's network".into(),
        why: "because".into(),
        fix: "do not".into(),
    }
}

#[test]
fn a_finding_says_what_where_why_and_what_to_do() {
    let text = text(&[finding(Severity::Error), finding(Severity::Note)], Style::Plain);
    assert_eq!(
        text,
        "✗ TD0203 Pod sales/a spec.hostNetwork: it is in the node's network\n    in  pods.yaml\n    why because\n    fix do not\n\
         · TD0203 Pod sales/a spec.hostNetwork: it is in the node's network\n    in  pods.yaml\n    why because\n    fix do not\n\
         1 error, 0 warnings, 1 note\n"
    );
    assert_eq!(super::text(&[], Style::Plain), "nothing found\n");
}
