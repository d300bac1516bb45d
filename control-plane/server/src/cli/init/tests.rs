use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate_compiler::{Inputs, SourceFile, check_tests, compile};

use super::*;
use crate::ruletest;

fn pair(text: &str) -> (String, String) {
    let (a, b) = text.split_once('/').expect("it is a pair");
    (a.to_owned(), b.to_owned())
}

/// What is written compiles, and its tests pass.
fn works(token: Option<&token::Known>, peer: &str) -> Vec<(&'static str, String)> {
    let files = files(&pair("sales/orders-api"), &pair(peer), "cluster.local", token);
    let sources: Vec<SourceFile> =
        files.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: text.clone() }).collect();
    let inputs = Inputs { sources: &sources, env: Default::default(), now: None };
    let compilation = compile(&inputs);
    let compiled = compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics));
    let tests = check_tests(&inputs, &compiled);
    assert!(tests.diagnostics.is_empty(), "{:#?}", tests.diagnostics);
    let report = ruletest::run(&compiled, &tests, 1_795_203_600);
    assert_eq!((report.passed, report.failed), (3, 0), "{:#?}", report.tests);
    files
}

fn token(claims: &str) -> token::Known {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = [part(r#"{"alg":"RS256","kid":"a","typ":"JWT"}"#), part(claims), part("signature")].join(".");
    token::read(text.as_bytes()).unwrap_or_else(|why| panic!("{claims}: {why}"))
}

#[test]
fn the_first_folder_compiles_and_its_tests_pass() {
    let files = works(None, "etl/orders-worker");
    let text: String = files.iter().map(|(name, text)| format!("--- {name}\n{text}")).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn a_rule_is_made_of_a_token() {
    let gitlab = token(
        r#"{"iss":"https://gitlab.com","sub":"project_path:a/b","aud":"https://orders.sales.example","exp":1795204000,"iat":1795203000,"project_id":"4711","job_project_id":"4711","ref_protected":"true","pipeline_source":"push","namespace_id":"1","user_email":"somebody@example.com","pipeline_id":"1","job_id":"2","ref":"main","ref_type":"branch"}"#,
    );
    let files = works(Some(&gitlab), "ci/runner");
    let text: String = files.iter().map(|(name, text)| format!("--- {name}\n{text}")).collect();
    assert!(!text.contains("somebody@example.com"), "{text}");
    insta::assert_snapshot!(text);
    for (claims, peer) in [
        (
            r#"{"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:etl:orders-worker","aud":["https://orders.sales.example"],"exp":1795204000,"iat":1795203000,"kubernetes.io":{"namespace":"etl","serviceaccount":{"name":"orders-worker","uid":"u"},"pod":{"name":"p","uid":"q"}}}"#,
            "etl/orders-worker",
        ),
        (
            r#"{"iss":"https://accounts.google.com","sub":"100000000000000000001","azp":"1","aud":"https://orders.sales.example","email":"a@b.iam.gserviceaccount.com","email_verified":true,"exp":1795204000,"iat":1795203000}"#,
            "etl/orders-worker",
        ),
        (
            r#"{"iss":"https://id.corp.example","sub":"orders","aud":"https://orders.sales.example","exp":1795204000,"iat":1795203000,"client_id":"orders"}"#,
            "etl/orders-worker",
        ),
    ] {
        works(Some(&token(claims)), peer);
    }
}

#[test]
fn what_is_no_token_is_told() {
    assert!(token::read(b"hello").is_err());
}
