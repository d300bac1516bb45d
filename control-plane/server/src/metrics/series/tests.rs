use super::*;
use crate::decisions::record::{Difference, Gap, GapCause, Moment, Outcome, RuleRef};
use crate::export::attributes::testing::recorded;
use crate::metrics::Metrics;
use crate::serve::compile_files;

const MESH: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}
"#;

fn rule(name: &str, effect: &str, mode: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: AccessRule\nmetadata: {{name: {name}, namespace: sales}}\nspec:\n  \
         owner: billing\n  target: {{selector: {{matchLabels: {{app: orders}}}}}}\n  effect: {effect}\n  mode: {mode}\n  \
         from: [{{peer: {{namespace: etl}}}}]\n  to: [{{http: {{methods: [POST], paths: [\"/v1/{name}\"]}}}}]\n"
    )
}

fn compiled(guard: &str, rules: &[String]) -> Compiled {
    let guard = format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Guard\nmetadata: {{name: sales, namespace: sales}}\nspec: {{mode: {guard}}}\n"
    );
    let text = format!("{MESH}{guard}{}", rules.concat());
    let files = [("rules.yaml".to_owned(), text)].into();
    let compilation = compile_files(&files, &Default::default());
    compilation.output.unwrap_or_else(|| panic!("{:?}", compilation.diagnostics))
}

/// Everything that filters of `sales/orders` can say comes to as many series as was said, and no more.
#[test]
fn there_are_as_many_series_as_was_said_when_everything_happens() {
    for guard in ["Enforce", "Shadow"] {
        let rules =
            [rule("a", "Allow", "Enforce"), rule("d", "Deny", "Enforce"), rule("s", "Allow", "Shadow")];
        let compiled = compiled(guard, &rules);
        let metrics = Metrics::default();
        let mut one = recorded();
        (one.shadow, one.candidate, one.rule, one.stands_for) = (None, None, None, 1);
        one.workload = "sales/orders".to_owned();
        let named = |name: &str| Some(RuleRef { name: name.to_owned(), source: None });
        for (outcome, reason, rule) in [
            (Outcome::Allow, Reason::AllowedBy, named("sales/a")),
            (Outcome::Deny, Reason::DeniedBy, named("sales/d")),
        ] {
            (one.outcome, one.reason, one.rule) = (outcome, reason.code().to_owned(), rule);
            metrics.decided.count(&one);
        }
        one.rule = None;
        for reason in Reason::all().filter(|one| !matches!(one, Reason::AllowedBy | Reason::DeniedBy)) {
            let passes = matches!(reason, Reason::NotGuarded | Reason::GuardInShadow);
            one.outcome = if passes { Outcome::Allow } else { Outcome::Deny };
            one.reason = reason.code().to_owned();
            metrics.decided.count(&one);
        }
        let differ = |outcome, rule: &str| Difference {
            outcome,
            reason: String::new(),
            rule: Some(rule.to_owned()).filter(|rule| !rule.is_empty()),
        };
        let mut differences = vec![differ(Outcome::Allow, "sales/s")];
        if guard == "Shadow" {
            differences.extend([differ(Outcome::Deny, "sales/d"), differ(Outcome::Deny, "")]);
        }
        for difference in differences {
            one.shadow = Some(difference);
            metrics.decided.count(&one);
        }
        for cause in [
            GapCause::FilterDropped,
            GapCause::BatchesMissing,
            GapCause::ControlPlaneDropped,
            GapCause::StoreDamaged,
        ] {
            let workload = "sales/orders".to_owned();
            let gap = Gap {
                time: Moment(0),
                workload,
                instance: String::new(),
                cause,
                lost: Some(1),
                lost_in_full: 0,
            };
            metrics.decided.count_gap(&gap);
        }
        let text = metrics.text();
        let of_rules = ["tidegate_rule_", "tidegate_decision_gap_records_total"];
        let is_of_rules = |line: &&str| of_rules.iter().any(|name| line.starts_with(name));
        let lines = text.lines().filter(is_of_rules).count();
        let said = series(&compiled, Series::BUDGET);
        assert_eq!(lines, said.control_plane, "{guard}: {text}");
        assert_eq!(said.most, Some(("sales/orders".to_owned(), lines)));
        assert_eq!(said.findings(), []);
    }
}

#[test]
fn too_many_are_a_warning_with_what_is_lost() {
    let rules: Vec<String> =
        (0..MAX_WORKLOAD_SERIES).map(|at| rule(&format!("r{at}"), "Allow", "Enforce")).collect();
    let compiled = compiled("Enforce", &rules);
    let said = series(&compiled, 100);
    let found = said.findings();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|one| one.code == Code::ManySeries && !one.is_error()));
    assert_eq!(found[0].object.as_deref(), Some("workload `sales/orders`"));
    assert!(found[1].message.contains("the budget is 100"), "{}", found[1]);
    assert_eq!(series(&compiled, Series::BUDGET).findings().len(), 1, "of the workload alone");
    assert!(said.summary().contains("of 500 at sales/orders; none per proxy"), "{}", said.summary());
    assert!(
        said.summary().ends_with("resource: at most 500, whatever the rules are\n"),
        "{}",
        said.summary()
    );
}
