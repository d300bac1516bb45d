//! What engine and reference share, or what nobody should have to look for, told by example.

use tidegate_engine::model::*;
use tidegate_engine::{
    Ambiguity, EncodeError, HeaderFacts, Outcome, Reason, TokenFault, VerifiedToken, encode,
};

use crate::generate::{Sent, Token};
use crate::outcome;

pub fn closed() -> PolicyModel {
    PolicyModel {
        guards: vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports: None, audiences: None }],
        ..PolicyModel::default()
    }
}

pub fn plain() -> Sent {
    Sent {
        now: 1000,
        expiry_grace_s: 0,
        port: 8080,
        method: "GET".into(),
        host: Some("orders.example".into()),
        path: "/v1/orders".into(),
        query: String::new(),
        headers: HeaderFacts::default(),
        fields: vec![],
        peer: None,
        tokens: vec![],
        body: vec![],
    }
}

#[test]
fn a_guard_without_rules_refuses_everything() {
    let decision = outcome(&closed(), &plain());
    assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Reason::NoAllowMatched));
}

#[test]
fn without_a_guard_nothing_is_refused() {
    let decision = outcome(&PolicyModel::default(), &plain());
    assert_eq!((decision.outcome, decision.reason), (Outcome::Allow, Reason::NotGuarded));
}

#[test]
fn a_path_that_can_be_read_otherwise_is_refused_even_where_any_path_is_allowed() {
    let mut model = closed();
    model.rules.push(
        RuleModel {
            id: "sales/any".into(),
            effect: Effect::Allow,
            mode: Mode::Enforce,
            owner: String::new(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
            to: None,
        }
        .into(),
    );
    assert_eq!(outcome(&model, &plain()).reason, Reason::AllowedBy);
    let odd = Sent { path: "/v1/%2e%2e/admin".into(), ..plain() };
    assert_eq!(outcome(&model, &odd).reason, Reason::Ambiguous(Ambiguity::Path));
}

#[test]
fn what_would_never_match_is_not_encoded() {
    let empty = |change: fn(&mut RuleModel)| {
        let mut model = closed();
        let mut rule = RuleModel {
            id: "sales/any".into(),
            effect: Effect::Allow,
            mode: Mode::Enforce,
            owner: String::new(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
            to: Some(vec![OperationModel::default()]),
        };
        change(&mut rule);
        model.rules.push(rule.into());
        encode(&model)
    };
    assert!(empty(|_| {}).is_ok());
    assert!(empty(|rule| rule.from.clear()).is_err());
    assert!(empty(|rule| rule.to = Some(vec![])).is_err());
    assert!(
        empty(|rule| rule.to = Some(vec![OperationModel { methods: Some(vec![]), ..Default::default() }]))
            .is_err()
    );
    assert!(
        empty(|rule| rule.to = Some(vec![OperationModel { paths: Some(vec![]), ..Default::default() }]))
            .is_err()
    );
    assert!(
        empty(|rule| rule.to = Some(vec![OperationModel { hosts: Some(vec![]), ..Default::default() }]))
            .is_err()
    );
    assert!(
        empty(|rule| rule.to = Some(vec![OperationModel { ports: Some(vec![]), ..Default::default() }]))
            .is_err()
    );
}

#[test]
fn what_refuses_before_any_rule_is_named() {
    let mut model = closed();
    model.issuers.push(IssuerModel { name: "a".into(), slots: vec![] });
    model.guards[0].audiences = Some(vec!["https://orders.example".into()]);
    model.rules.push(
        RuleModel {
            id: "sales/any".into(),
            effect: Effect::Allow,
            mode: Mode::Enforce,
            owner: String::new(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
            to: None,
        }
        .into(),
    );
    let token = |audience: &str, expires_at| {
        Token::Verified(VerifiedToken { audiences: vec![audience.into()], expires_at, slots: vec![] })
    };
    let facts = HeaderFacts::default();
    let cases = [
        (Sent { tokens: vec![token("https://orders.example", 2000)], ..plain() }, Reason::AllowedBy),
        (
            Sent { tokens: vec![token("https://other.example", 2000)], ..plain() },
            Reason::TokenInvalid(TokenFault::WrongAudience),
        ),
        // A prefix or an extension of the audience is another audience.
        (
            Sent { tokens: vec![token("https://orders.example/", 2000)], ..plain() },
            Reason::TokenInvalid(TokenFault::WrongAudience),
        ),
        (
            Sent { tokens: vec![token("https://orders.example", 800)], ..plain() },
            Reason::TokenInvalid(TokenFault::Expired),
        ),
        (Sent { tokens: vec![Token::Invalid], ..plain() }, Reason::TokenInvalid(TokenFault::BadSignature)),
        (Sent { path: "/a/../b".into(), ..plain() }, Reason::Ambiguous(Ambiguity::Path)),
        (Sent { host: None, ..plain() }, Reason::Ambiguous(Ambiguity::Host)),
        (Sent { method: "A B".into(), ..plain() }, Reason::Ambiguous(Ambiguity::Method)),
        (
            Sent { headers: HeaderFacts { overrides: true, ..facts }, ..plain() },
            Reason::Ambiguous(Ambiguity::Override),
        ),
        (
            Sent { headers: HeaderFacts { duplicates: true, ..facts }, ..plain() },
            Reason::Ambiguous(Ambiguity::DuplicateHeader),
        ),
    ];
    for (sent, expected) in cases {
        let decision = outcome(&model, &sent);
        assert_eq!(decision.reason, expected, "{sent:?}");
        assert_eq!(decision.outcome == Outcome::Allow, expected == Reason::AllowedBy, "{sent:?}");
    }
    // A Guard in Shadow mode for another audience lets nobody in where one enforces.
    let mut shadowed = model.clone();
    shadowed.guards.push(GuardModel {
        id: "sales/shadow".into(),
        mode: Mode::Shadow,
        ports: None,
        audiences: Some(vec!["https://other.example".into()]),
    });
    let foreign = Sent { tokens: vec![token("https://other.example", 2000)], ..plain() };
    assert_eq!(outcome(&shadowed, &foreign).reason, Reason::TokenInvalid(TokenFault::WrongAudience));
    // Without audiences of its own a Guard means the request's host.
    model.guards[0].audiences = None;
    for (audience, accepted) in [
        ("https://orders.example", true),
        ("orders.example", true),
        ("http://orders.example", false),
        ("example", false),
    ] {
        let sent = Sent { tokens: vec![token(audience, 2000)], ..plain() };
        assert_eq!(outcome(&model, &sent).outcome == Outcome::Allow, accepted, "{audience}");
    }
}

#[test]
fn a_condition_has_at_most_so_many_parts() {
    let with_parts = |parts: usize| {
        let mut model = closed();
        model.rules.push(
            RuleModel {
                id: "sales/any".into(),
                effect: Effect::Allow,
                mode: Mode::Enforce,
                owner: String::new(),
                contact: String::new(),
                disclosure: Disclosure::Full,
                audit: Default::default(),
                lease: Lease::default(),
                revokes: false,
                from: vec![FromModel {
                    peer: PeerModel::Anyone,
                    issuers: vec![],
                    // The list itself is a part.
                    condition: Condition::All(vec![Condition::True; parts - 1]),
                }],
                to: None,
            }
            .into(),
        );
        model
    };
    assert_eq!(outcome(&with_parts(4096), &plain()).reason, Reason::AllowedBy);
    let error = encode(&with_parts(4097)).unwrap_err();
    assert!(matches!(error, EncodeError::TooManyParts(_)), "{error}");
}
