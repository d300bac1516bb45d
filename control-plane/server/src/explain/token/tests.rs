mod rules;
mod tokens;

use std::collections::BTreeMap;

use serde_json::json;
use tidegate_identity::{Authenticator, CacheLimits, TokenOutcome};

use self::tokens::{
    AUDIENCE, NOW, entra, entra_v1, gitlab, google, kubernetes, okta, part, rules, unsigned, with,
    with_header,
};
use super::*;
use crate::demo::issuers::{KeyKind, SigningKey};

fn explained(text: &str, rules: Option<&Compiled>, keys: Option<&[Jwk]>) -> Explanation {
    let owner = owner(text, rules).unwrap();
    answer(&owner, &Question { text, now: NOW, audience: None, rules, keys })
}

fn codes(explanation: &Explanation) -> Vec<&'static str> {
    explanation.mistakes.iter().map(|mistake| mistake.code).collect()
}

/// What it is, the token, what it comes to, and the hints.
type Row<'a> = (&'a str, String, Outcome, Option<&'a str>, &'a [&'a str]);

#[test]
fn the_usual_mistakes_are_named() {
    use Outcome::{Absent, Plausible, Refused};
    let rules = rules();
    let bare = json!({"alg": "RS256", "kid": "k"});
    let legacy = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:ci:x",
        "kubernetes.io/serviceaccount/namespace": "ci",
    });
    let pool = "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x";
    let table: &[Row<'_>] = &[
        ("good", unsigned(&google()), Plausible, None, &[]),
        (
            "format=standard",
            unsigned(&with(&google(), json!({"google": null}))),
            Plausible,
            None,
            &["google_standard_format"],
        ),
        (
            "a person's",
            unsigned(&with(&google(), json!({"google": null, "azp": "x.apps.googleusercontent.com"}))),
            Refused,
            Some("token_wrong_kind"),
            &[],
        ),
        (
            "federation",
            unsigned(&with(&google(), json!({"aud": pool}))),
            Refused,
            Some("token_minted_for_another_party"),
            &["workload_identity_federation"],
        ),
        (
            "audience typo",
            unsigned(&with(&gitlab(), json!({"aud": "https://orders.sales.exmaple"}))),
            Refused,
            Some("token_wrong_audience"),
            &["audience_typo"],
        ),
        (
            "audience slash",
            unsigned(&with(&gitlab(), json!({"aud": "https://orders.sales.example/"}))),
            Refused,
            Some("token_wrong_audience"),
            &["audience_typo"],
        ),
        (
            "audience scheme",
            unsigned(&with(&gitlab(), json!({"aud": "http://orders.sales.example"}))),
            Refused,
            Some("token_wrong_audience"),
            &["audience_typo"],
        ),
        (
            "another audience",
            unsigned(&with(&gitlab(), json!({"aud": "https://billing.example"}))),
            Refused,
            Some("token_wrong_audience"),
            &[],
        ),
        (
            "CI_JOB_JWT",
            unsigned(&with(&gitlab(), json!({"aud": null}))),
            Refused,
            Some("token_claim_missing"),
            &["gitlab_job_jwt"],
        ),
        (
            "expired",
            unsigned(&with(&gitlab(), json!({"iat": NOW - 900, "nbf": NOW - 900, "exp": NOW - 600}))),
            Refused,
            Some("token_expired"),
            &[],
        ),
        (
            "issuer slash",
            unsigned(&with(&gitlab(), json!({"iss": "https://gitlab.example/"}))),
            Absent,
            None,
            &["issuer_typo"],
        ),
        (
            "issuer typo",
            unsigned(&with(&gitlab(), json!({"iss": "https://gitalb.example"}))),
            Absent,
            None,
            &["issuer_typo"],
        ),
        (
            "unknown issuer",
            unsigned(&with(&gitlab(), json!({"iss": "https://git.other.example"}))),
            Absent,
            None,
            &["issuer_not_declared"],
        ),
        ("no issuer", unsigned(&with(&gitlab(), json!({"iss": null}))), Absent, None, &["no_issuer"]),
        ("v1 for v2", unsigned(&entra_v1()), Absent, None, &["entra_version"]),
        (
            "another tenant",
            unsigned(&serde_json::from_str(&entra().to_string().replace("bbbbbbbb", "bbbbbbbc")).unwrap()),
            Absent,
            None,
            &["issuer_not_declared"],
        ),
        (
            "Graph",
            unsigned(&with(&entra(), json!({"aud": "00000003-0000-0000-c000-000000000000"}))),
            Refused,
            Some("token_minted_for_another_party"),
            &["entra_graph_token"],
        ),
        (
            "Entra ID token",
            unsigned(&with(&entra(), json!({"azp": null, "scp": null, "nonce": "n"}))),
            Refused,
            Some("token_wrong_kind"),
            &["id_token"],
        ),
        (
            "too many groups",
            unsigned(&with(&entra(), json!({"aud": "x", "_claim_names": {"groups": "src1"}}))),
            Refused,
            Some("token_wrong_audience"),
            &["entra_group_overage"],
        ),
        (
            "org server",
            with_header(bare.clone(), &with(&okta(), json!({"iss": "https://id.example"}))),
            Absent,
            None,
            &["okta_org_server"],
        ),
        (
            "Okta ID token",
            with_header(bare.clone(), &with(&okta(), json!({"cid": null, "scp": null, "jti": "ID.1"}))),
            Refused,
            Some("token_wrong_kind"),
            &["id_token"],
        ),
        ("Secret", with_header(bare.clone(), &legacy), Absent, None, &["kubernetes_secret_token"]),
        (
            "default token",
            with_header(
                bare.clone(),
                &with(&kubernetes("ci", "runner"), json!({"aud": ["https://kubernetes.default.svc"]})),
            ),
            Refused,
            Some("token_minted_for_another_party"),
            &["kubernetes_default_token"],
        ),
        ("cut off", unsigned(&gitlab())[..200].to_owned(), Refused, Some("token_malformed"), &["cut_off"]),
        (
            "too large",
            format!("{}{}", unsigned(&gitlab()), "A".repeat(20_000)),
            Refused,
            Some("token_too_large"),
            &[],
        ),
        (
            "list of issuers",
            unsigned(&with(&gitlab(), json!({"iss": ["https://gitlab.example"]}))),
            Refused,
            Some("token_claim_malformed"),
            &[],
        ),
        (
            "none",
            with_header(json!({"alg": "none"}), &gitlab()),
            Refused,
            Some("token_algorithm_refused"),
            &[],
        ),
        (
            "encrypted",
            "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a.b.c.d".to_owned(),
            Absent,
            None,
            &["encrypted"],
        ),
        ("Google access token", "ya29.a0AfB".to_owned(), Absent, None, &["other_credential"]),
        ("nothing", String::new(), Absent, None, &["empty"]),
    ];
    for (name, text, outcome, reason, hints) in table {
        let explanation = explained(text, Some(&rules), None);
        assert_eq!(
            (explanation.verdict.outcome, explanation.verdict.reason, codes(&explanation)),
            (*outcome, *reason, hints.to_vec()),
            "{name}: {explanation:#?}"
        );
        let failed = explanation.checks.iter().filter(|line| line.result == CheckResult::Failed);
        for line in failed {
            assert!(
                !line.found.is_empty() && line.fix.as_ref().is_some_and(|fix| !fix.is_empty()),
                "{name}: {line:?}"
            );
        }
        // Neither the token nor a part of it.
        let told = serde_json::to_string(&explanation).unwrap();
        for part in text.split('.').filter(|part| part.len() > 8) {
            assert!(!told.contains(part), "{name}: {told}");
        }
    }
    println!("{} tokens explained", table.len());
}

#[test]
fn without_rules_the_checks_are_those_of_the_pack_that_would_fit() {
    for (claims, pack) in [
        (google(), PackKind::Google),
        (kubernetes("ci", "runner"), PackKind::Kubernetes),
        (gitlab(), PackKind::Gitlab),
        (entra(), PackKind::Entra),
        (entra_v1(), PackKind::Entra),
        (okta(), PackKind::Okta),
    ] {
        let text = with_header(json!({"alg": "RS256", "kid": "k"}), &claims);
        let explanation = explained(&text, None, None);
        assert_eq!(explanation.verdict.outcome, Outcome::Plausible, "{pack:?} {:#?}", explanation.checks);
        assert_eq!(explanation.issuer, Some(IssuerFacts { name: None, pack }));
        assert_eq!(codes(&explanation), ["issuer_not_declared"]);
        assert!(explanation.would_do() && explanation.rules.is_none());
    }
    let spiffe =
        json!({"sub": "spiffe://batch.example/ns/etl/sa/x", "aud": [AUDIENCE], "iat": NOW, "exp": NOW + 300});
    let explanation = explained(&with_header(json!({"alg": "ES256", "kid": "k"}), &spiffe), None, None);
    assert_eq!(explanation.issuer, Some(IssuerFacts { name: None, pack: PackKind::Spiffe }));
    assert_eq!(explanation.verdict.outcome, Outcome::Plausible, "{:#?}", explanation.checks);
}

/// Signed by this key, under a header with its id.
fn signed(key: &SigningKey, claims: &Value) -> String {
    let header = json!({"alg": key.kind().name(), "kid": key.id(), "typ": "JWT"});
    let input = format!("{}.{}", part(&header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).unwrap());
    format!("{input}.{signature}")
}

fn jwk(key: &SigningKey) -> Jwk {
    let set = json!({"keys": [key.jwk()]}).to_string();
    tidegate_identity::keys::select_for(&set, tidegate_identity::KeyUse::Sig).unwrap().keys.remove(0)
}

#[test]
fn with_keys_the_answer_is_what_a_filter_says() {
    let rules = rules();
    let [key, other] = [(); 2].map(|()| SigningKey::generate(KeyKind::Rs256).unwrap());
    let keys = [jwk(&key)];
    let good = signed(&key, &gitlab());
    let mut forged = signed(&other, &gitlab());
    // The same header, another key's signature.
    forged.replace_range(..forged.rfind('.').unwrap(), &good[..good.rfind('.').unwrap()]);
    let mut seen = BTreeMap::new();
    for text in [
        good.clone(),
        forged,
        signed(&other, &gitlab()),
        good[..good.len() - 4].to_owned(),
        format!("{good}="),
        signed(&key, &with(&gitlab(), json!({"exp": NOW - 100}))),
        signed(&key, &with(&gitlab(), json!({"iat": NOW + 100, "nbf": NOW + 100}))),
        signed(&key, &with(&gitlab(), json!({"exp": NOW + 90_000}))),
        signed(&key, &with(&gitlab(), json!({"project_id": 4711}))),
        signed(&key, &with(&gitlab(), json!({"project_id": null}))),
        signed(&key, &with(&gitlab(), json!({"aud": ["sts.amazonaws.com"]}))),
        signed(&key, &with(&gitlab(), json!({"cnf": {"jkt": "x"}}))),
        signed(&key, &with(&gitlab(), json!({"iss": "https://nobody.example"}))),
        "opaque".to_owned(),
        good[..good.rfind('.').unwrap()].to_owned(),
    ] {
        let explanation = explained(&text, Some(&rules), Some(&keys));
        let spec = rules.issuers.iter().find(|issuer| issuer.name == "gitlab").unwrap();
        let set = IssuerSetSpec::new(vec![spec.spec(keys.to_vec(), i64::MAX)]).encode().unwrap();
        let policy = [("gitlab", Vec::new())];
        let mut filter =
            Authenticator::new(IssuerSet::decode(&set).unwrap(), policy, CacheLimits::default()).unwrap();
        let mut outcomes = Vec::new();
        let header = format!("Bearer {text}");
        filter.authenticate(&[(b"authorization", header.as_bytes())], At::now(NOW), &Native, &mut outcomes);
        let expected = match &outcomes[0] {
            TokenOutcome::Absent => (Outcome::Absent, None),
            TokenOutcome::Invalid(fault) => (Outcome::Refused, Some(fault.code())),
            TokenOutcome::Verified(_) => (Outcome::Verified, None),
        };
        assert_eq!(
            (explanation.verdict.outcome, explanation.verdict.reason),
            expected,
            "{:#?}",
            explanation.checks
        );
        *seen.entry(format!("{expected:?}")).or_insert(0) += 1;
    }
    assert!(seen.len() >= 10, "{seen:?}");
    assert!(explained(&good, Some(&rules), Some(&keys)).would_do());
}

#[test]
fn an_audience_that_is_asked_for_counts_instead_of_the_guards() {
    let rules = rules();
    let text = unsigned(&gitlab());
    let owner = owner(&text, Some(&rules)).unwrap();
    let question = Question { text: &text, now: NOW, audience: None, rules: Some(&rules), keys: None };
    for (audience, reason) in [
        (None, None),
        (Some(AUDIENCE), None),
        (Some("https://billing.example"), Some("token_wrong_audience")),
    ] {
        let explanation = answer(&owner, &Question { audience, ..question });
        assert_eq!(explanation.verdict.reason, reason, "{audience:?}");
    }
}

#[test]
fn a_bound_token_is_one_for_the_right_connection() {
    let digest = URL_SAFE_NO_PAD.encode([7; 32]);
    let bound = unsigned(&with(&gitlab(), json!({"cnf": {"x5t#S256": digest}})));
    let explanation = explained(&bound, None, None);
    let binding = explanation.checks.iter().find(|line| line.check == "binding").unwrap();
    assert_eq!(binding.result, CheckResult::Ok);
    assert!(binding.found.contains(&"07".repeat(32)), "{binding:?}");
    let dpop = unsigned(&with(&gitlab(), json!({"cnf": {"jkt": digest}})));
    assert_eq!(explained(&dpop, None, None).verdict.reason, Some("token_not_bound"));
}

#[test]
fn nothing_that_a_token_says_reaches_the_terminal_as_it_is() {
    let inner = unsigned(&gitlab());
    let text = unsigned(&with(
        &gitlab(),
        json!({"ref": "\u{1b}[31m\u{202e}", "\u{1b}]0;x\u{7}": 1, "nested": inner, "iss": "https://x.example/\u{1b}"}),
    ));
    for rules in [None, Some(rules())] {
        let told = format!("{:?}", serde_json::to_value(explained(&text, rules.as_ref(), None)).unwrap());
        assert!(!told.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{told}");
        assert!(!told.contains(&part(&gitlab())) && !told.contains("U0lHTkFUVVJF"), "{told}");
    }
}

#[test]
fn whatever_is_pasted_gets_an_answer() {
    let rules = rules();
    let mut state = 7_u64;
    let mut random = |below: usize| {
        // A linear congruential generator (Knuth, MMIX).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let tokens = [
        unsigned(&google()),
        unsigned(&gitlab()),
        unsigned(&entra_v1()),
        "{\"access_token\": \"eyJ.\"}".into(),
    ];
    let pieces: [&[u8]; 10] =
        [b"\xff", b"\xff\xfe", b"Bearer ", b".", b"=", b"\n", b"\"", b"{", "\u{202e}".as_bytes(), b"eyJ"];
    let mut outcomes = BTreeMap::new();
    for _ in 0..1000 {
        let mut bytes = tokens[random(tokens.len())].clone().into_bytes();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = bytes[at].wrapping_add(1),
                1 => bytes.truncate(at + 1),
                _ => drop(bytes.splice(at..at, pieces[random(pieces.len())].iter().copied())),
            }
        }
        let Pasted { text, .. } = Pasted::read(&bytes);
        let explanation = explained(&text, Some(&rules), Some(&[]));
        let told = serde_json::to_string(&explanation).unwrap();
        assert!(!told.contains('\u{202e}'), "{told}");
        *outcomes.entry(format!("{:?}", explanation.verdict.outcome)).or_insert(0) += 1;
    }
    assert!(outcomes.len() >= 2 && !outcomes.contains_key("Verified"), "{outcomes:?}");
}
