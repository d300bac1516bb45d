use tidegate_compiler::explain::MeshPeer;

use super::*;
use crate::cli::asking::{add_token, assignments};
use crate::ruletest::tests::{NOW, folder as rules};

fn asked(method: &str, url: &str, peer: Option<&str>, tokens: &[&str]) -> String {
    let (compiled, _) = rules(
        "kind: RuleTest\nmetadata: {name: none}\nspec: {workload: sales/orders-api, tests: [{name: a, expect: Deny}]}\n",
    );
    let (host, path) = request::place_of(url).expect("it is a URL");
    let workload = request::workload_of(&compiled, host.as_deref()).expect("it is clear");
    let mut question = Question { method: method.to_owned(), host, path, ..request::blank(workload) };
    question.peer = peer.map(|peer| MeshPeer::parse(peer).expect("it is a peer"));
    for token in tokens {
        add_token(&mut question, token, &compiled).expect("it is a token");
    }
    shown(&request::answer(&compiled, &question, NOW).expect("it can be asked"))
}

const ORDER: &str = "https://orders.sales.example/v1/orders/7";

#[test]
fn an_allowed_request_names_its_rule() {
    insta::assert_snapshot!(asked("POST", ORDER, Some("etl/orders-worker"), &[]));
}

#[test]
fn a_refused_request_names_what_the_nearest_rule_lacks() {
    let token = "gitlab:project_id=4711,job_project_id=4711,ref_protected=false,pipeline_source=push";
    insta::assert_snapshot!(asked("POST", "/v1/migrations", Some("ci/runner"), &[token]));
}

#[test]
fn a_denied_request_names_the_deny() {
    insta::assert_snapshot!(asked("POST", "/v1/orders/archive-3", Some("etl/orders-worker"), &[]));
}

#[test]
fn a_missing_token_is_the_callers_turn() {
    insta::assert_snapshot!(asked("POST", "/v1/migrations", Some("ci/runner"), &[]));
}

#[test]
fn a_shadow_rule_is_told() {
    insta::assert_snapshot!(asked("GET", ORDER, Some("bi/reports"), &[]));
}

#[test]
fn an_ambiguous_path_is_no_question_of_rules() {
    insta::assert_snapshot!(asked("GET", "/v1/orders/..%2f7", None, &[]));
}

#[test]
fn an_error_body_needs_no_rules() {
    let body = r##"{"status":403,"type":"urn:tidegate:reason:denied_by_rule","reason":"denied_by_rule","decision":"7Q4K-M2XD-91BC","rule":"sales/archive-is-closed","owner":"team-compliance","contact":"#compliance"}"##;
    let refusal = Refusal::find(body).expect("it is one");
    insta::assert_snapshot!(render::refusal(&refusal, &advice(refusal.reason), None, Style::Plain));
    let line = "the token has expired; reason=token_expired decision=7Q4K-M2XD-91BC";
    let refusal = Refusal::find(line).expect("it is one");
    insta::assert_snapshot!(render::refusal(&refusal, &advice(refusal.reason), None, Style::Plain));
}

#[test]
fn a_curl_command_is_explained_and_its_token_is_not_shown() {
    let (compiled, _) = rules(
        "kind: RuleTest\nmetadata: {name: none}\nspec: {workload: sales/orders-api, tests: [{name: a, expect: Deny}]}\n",
    );
    use base64::Engine;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = r#"{"iss":"https://gitlab.com","sub":"x","aud":"https://orders.sales.example","exp":1795204000,"project_id":"4711","job_project_id":"4711","ref_protected":"true","pipeline_source":"push"}"#;
    let token = [part(r#"{"alg":"RS256","kid":"a","typ":"JWT"}"#), part(claims), part("signature")].join(".");
    for (header, expected) in [("X-Job-Token:", true), ("Authorization: Bearer", false)] {
        let text =
            format!("curl -sX POST https://orders.sales.example/v1/migrations -H '{header} {token}' -d @x");
        let Ok(super::Subject::Curl(request)) = understand(&text) else { panic!("{text}") };
        let workload = request::workload_of(&compiled, Some("orders.sales.example")).unwrap();
        let mut question = Question { path: "/v1/migrations".into(), ..request::blank(workload) };
        question.peer = MeshPeer::parse("ci/runner");
        let mut notes = Vec::new();
        request::add_curl(&mut question, request, &compiled, &mut notes);
        let answer = request::answer(&compiled, &question, NOW).unwrap();
        assert_eq!(
            answer.decided.decision == tidegate_engine::Outcome::Allow,
            expected,
            "{header} {notes:?}"
        );
        let text = shown(&answer) + &notes.join("\n");
        assert!(!text.contains(&token) && !text.contains(&part("signature")), "{text}");
    }
}

#[test]
fn flags_are_read() {
    assert_eq!(assignments(""), []);
    let of = |text: &str| assignments(text).into_iter().map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>();
    assert_eq!(of("a=1,b=2,3"), ["a=1", "b=2,3"]);
    assert_eq!(of("a.b=x=y"), ["a.b=x=y"]);
    assert_eq!(test_place("rules/a.test.yaml:14"), Some(("rules/a.test.yaml".to_owned(), 14)));
    assert_eq!(test_place("a.yml"), Some(("a.yml".to_owned(), 1)));
    assert_eq!(test_place("https://a.example/b.yaml"), None);
    assert!(matches!(subject(&["token_expired".to_owned()]), Ok(super::Subject::Refusal(_))));
    let error =
        subject(&["token_expird".to_owned()]).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("`token_expired`"), "{error}");
}
