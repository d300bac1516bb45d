//! The rules of the recipes, and whether a token satisfies them.

use tidegate::explain::token::{Explanation, Outcome, Question, answer, owner};
use tidegate_compiler::{Compiled, Inputs, SourceFile};
use tidegate_identity::{Jwk, KeyUse, keys};

use super::client::recipes;

pub fn rules() -> Compiled {
    let text = std::fs::read_to_string(recipes().join("rules.yaml")).unwrap();
    let sources = [SourceFile { path: "rules.yaml".into(), text }];
    let compilation =
        tidegate_compiler::compile(&Inputs { sources: &sources, env: Default::default(), now: None });
    assert!(compilation.diagnostics.is_empty(), "{:#?}", compilation.diagnostics);
    compilation.output.unwrap()
}

/// Whether the token verifies with these keys, and the rule then lets its caller in.
pub fn satisfies(rules: &Compiled, jwks: &serde_json::Value, token: &str, rule: &str) -> bool {
    let keys: Vec<Jwk> = keys::select_for(&jwks.to_string(), KeyUse::Sig).unwrap().keys;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let question = Question {
        text: token,
        now: now.try_into().unwrap(),
        audience: None,
        rules: Some(rules),
        keys: Some(&keys),
    };
    let explanation: Explanation = answer(&owner(token, Some(rules)).unwrap(), &question);
    explanation.verdict.outcome == Outcome::Verified
        && explanation.allowing().any(|allowing| allowing.rule == rule)
}
