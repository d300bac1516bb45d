//! The engine against the naive reference interpreter: any policy, any request, the same decision.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 4 096).

#![cfg(not(target_arch = "wasm32"))]

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tidegate_engine::directory::{DirectoryModel, encode_directories};
use tidegate_engine::model::*;
use tidegate_engine::{
    Ambiguity, ClaimValue, Decision, Directories, HeaderFacts, Outcome, Peer, PolicySet, Reason, Request,
    TokenFault, TokenState, VerifiedToken, decide, encode, normal, reference,
};

fn cases() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(4096);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A few of everything, so that rules and requests meet often.
const DOMAINS: [&str; 2] = ["prod.example", "dev.example"];
const NAMES: [&str; 3] = ["etl", "ci", "sales"];
const SEGMENTS: [&str; 4] = ["v1", "orders", "orders-7", "x"];
const METHODS: [&str; 4] = ["GET", "POST", "PATCH", "LIST"];
const HOSTS: [&str; 4] = ["orders.example", "a.orders.example", "example", "b.a.orders.example"];
const TEXTS: [&str; 4] = ["true", "4711", "etl", ""];
const PORTS: [u16; 2] = [8080, 9090];
const AUDIENCES: [&str; 3] = ["https://orders.example", "orders.example", "other"];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

fn some<T: Clone + std::fmt::Debug + 'static>(
    all: &'static [T],
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    subsequence(all, 1..=most.min(all.len()))
}

fn strings(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    some(all, 2).prop_map(|texts| texts.into_iter().map(str::to_owned).collect())
}

fn peer_model() -> impl Strategy<Value = PeerModel> {
    let domain = || select(&DOMAINS[..]).prop_map(str::to_owned);
    prop_oneof![
        4 => (domain(), name(), proptest::option::of(strings(&NAMES)))
            .prop_map(|(trust_domain, namespace, service_accounts)| PeerModel::Mesh { trust_domain, namespace, service_accounts }),
        1 => domain().prop_map(|trust_domain| PeerModel::AnyMesh { trust_domain }),
        1 => Just(PeerModel::NoPeer),
        1 => Just(PeerModel::Anyone),
    ]
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        Just(Test::Present),
        strings(&TEXTS).prop_map(Test::OneOf),
        select(&TEXTS[..]).prop_map(|text| Test::OneOf(vec![text.to_owned()])),
        (-1i64..2).prop_map(Test::Integer),
        any::<bool>().prop_map(Test::Boolean),
        select(vec!["t*", "*1", "*", "4*1", "true"]).prop_map(|glob| Test::Glob(glob.to_owned())),
        select(&TEXTS[..]).prop_map(|text| Test::Contains(text.to_owned())),
        Just(Test::PeerNamespace),
        Just(Test::PeerServiceAccount),
        (0u16..2).prop_map(|slot| Test::Same(ClaimRef { issuer: 0, slot })),
        (0u16..2).prop_map(Test::Listed),
    ]
}

/// Conditions on issuer 0, which entries with conditions demand.
fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        1 => Just(Condition::True),
        6 => (0u16..2, test()).prop_map(|(slot, test)| Condition::Claim(ClaimRef { issuer: 0, slot }, test)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn from_model() -> impl Strategy<Value = FromModel> {
    (peer_model(), 0u8..4, condition()).prop_map(|(peer, tokens, condition)| match tokens {
        0 => FromModel { peer, issuers: vec![], condition: Condition::True },
        1 => FromModel { peer, issuers: vec![1], condition: Condition::True },
        2 => FromModel { peer, issuers: vec![0], condition },
        _ => FromModel { peer, issuers: vec![1, 0], condition },
    })
}

fn path_pattern() -> impl Strategy<Value = PathPattern> {
    let segment = prop_oneof![
        5 => select(&SEGMENTS[..]).prop_map(|text| SegmentPattern::Literal(text.to_owned())),
        1 => Just(SegmentPattern::One),
        1 => select(vec!["orders*", "*-7", "*"]).prop_map(|glob| SegmentPattern::Glob(glob.to_owned())),
    ];
    (proptest::collection::vec(segment, 0..4), 0u8..4).prop_map(|(mut segments, end)| {
        match end {
            0 => segments.push(SegmentPattern::Rest),
            1 => segments.push(SegmentPattern::Literal(String::new())),
            _ if segments.is_empty() => segments.push(SegmentPattern::Literal(String::new())),
            _ => {}
        }
        PathPattern { segments }
    })
}

fn operation() -> impl Strategy<Value = OperationModel> {
    let host = prop_oneof![
        select(&HOSTS[..]).prop_map(|host| HostPattern::Exact(host.to_owned())),
        select(vec![".example", ".orders.example"]).prop_map(|suffix| HostPattern::Suffix(suffix.to_owned())),
    ];
    (
        proptest::option::weighted(0.2, some(&PORTS, 2)),
        proptest::option::of(strings(&METHODS)),
        proptest::option::weighted(0.3, proptest::collection::vec(host, 1..3)),
        proptest::option::weighted(0.8, proptest::collection::vec(path_pattern(), 1..4)),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(ports, methods, hosts, paths, grpc)| OperationModel {
            ports,
            methods,
            hosts,
            paths,
            grpc,
        })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)]
}

fn rule() -> impl Strategy<Value = RuleModel> {
    (
        prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)],
        mode(),
        proptest::collection::vec(from_model(), 1..4),
        proptest::option::weighted(0.9, proptest::collection::vec(operation(), 1..3)),
    )
        .prop_map(|(effect, mode, from, to)| RuleModel {
            id: String::new(),
            effect,
            mode,
            owner: "team".into(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            from,
            to,
        })
}

fn guard() -> impl Strategy<Value = GuardModel> {
    (
        mode(),
        proptest::option::weighted(0.3, some(&PORTS, 2)),
        proptest::option::weighted(0.5, strings(&AUDIENCES)),
    )
        .prop_map(|(mode, ports, audiences)| GuardModel { id: "sales/g".into(), mode, ports, audiences })
}

fn policy() -> impl Strategy<Value = PolicyModel> {
    (proptest::collection::vec(rule(), 0..12), proptest::collection::vec(guard(), 0..3)).prop_map(
        |(mut rules, mut guards)| {
            for (position, rule) in rules.iter_mut().enumerate() {
                rule.id = format!("sales/rule-{position:02}");
            }
            for (position, guard) in guards.iter_mut().enumerate() {
                guard.id = format!("sales/guard-{position}");
            }
            PolicyModel {
                issuers: vec![
                    IssuerModel {
                        name: "a".into(),
                        slots: vec![vec!["x".into()], vec!["y".into(), "z".into()]],
                    },
                    IssuerModel { name: "b".into(), slots: vec![] },
                ],
                guards,
                directories: vec!["fresh".into(), "stale".into()],
                rules,
            }
        },
    )
}

fn claim() -> impl Strategy<Value = ClaimValue> {
    prop_oneof![
        1 => Just(ClaimValue::Absent),
        1 => Just(ClaimValue::Unknown),
        1 => any::<bool>().prop_map(ClaimValue::Boolean),
        1 => (-1i64..2).prop_map(ClaimValue::Integer),
        6 => select(&TEXTS[..]).prop_map(|text| ClaimValue::String(text.to_owned())),
        1 => proptest::collection::vec(select(&TEXTS[..]).prop_map(str::to_owned), 0..3).prop_map(ClaimValue::Strings),
        1 => Just(ClaimValue::Other),
    ]
}

#[derive(Debug, Clone)]
enum Token {
    Absent,
    Invalid,
    Verified(VerifiedToken),
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        4 => Just(Token::Absent),
        1 => Just(Token::Invalid),
        12 => (strings(&AUDIENCES), proptest::collection::vec(claim(), 2), 900i64..1100)
            .prop_map(|(audiences, slots, expires_at)| Token::Verified(VerifiedToken { audiences, expires_at, slots })),
    ]
}

/// What a request is made of, owned.
#[derive(Debug, Clone)]
struct Sent {
    port: u16,
    method: String,
    host: Option<String>,
    path: String,
    headers: HeaderFacts,
    peer: Option<(String, String, String)>,
    tokens: Vec<Token>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let path =
        (proptest::collection::vec(select(&SEGMENTS[..]), 0..4), proptest::bool::weighted(0.2), 0u8..20)
            .prop_map(|(segments, slash, odd)| {
                let slash = if slash && !segments.is_empty() { "/" } else { "" };
                let odd = if odd == 0 { "/%2e%2e/x" } else { "" };
                format!("/{}{slash}{odd}", segments.join("/"))
            });
    let headers = (any::<bool>(), proptest::bool::weighted(0.03), proptest::bool::weighted(0.03))
        .prop_map(|(grpc, overrides, duplicates)| HeaderFacts { grpc, overrides, duplicates });
    (
        select(&PORTS[..]),
        select(&METHODS[..]).prop_map(str::to_owned),
        proptest::option::weighted(0.97, select(&HOSTS[..]).prop_map(str::to_owned)),
        path,
        headers,
        proptest::option::weighted(0.8, (select(&DOMAINS[..]).prop_map(str::to_owned), name(), name())),
        proptest::collection::vec(token(), 0..3),
    )
        .prop_map(|(port, method, host, path, headers, peer, tokens)| Sent {
            port,
            method,
            host,
            path,
            headers,
            peer,
            tokens,
        })
}

fn directories() -> Directories {
    Directories::decode(&encode_directories(&[
        DirectoryModel { name: "fresh".into(), ids: vec!["4711".into()], fresh_until: 2000 },
        DirectoryModel { name: "stale".into(), ids: vec!["4711".into()], fresh_until: 999 },
    ]))
    .expect("directories decode")
}

/// Calls `with` with the request.
fn with_request<T>(sent: &Sent, with: impl FnOnce(&Request<'_>) -> T) -> T {
    let path = normal::path(sent.path.as_bytes());
    let directories = directories();
    let tokens: Vec<TokenState<'_>> = sent
        .tokens
        .iter()
        .map(|token| match token {
            Token::Absent => TokenState::Absent,
            Token::Invalid => TokenState::Invalid(TokenFault::BadSignature),
            Token::Verified(token) => TokenState::Verified(token),
        })
        .collect();
    with(&Request {
        now: 1000,
        port: sent.port,
        method: sent.method.as_bytes(),
        host: sent.host.as_deref(),
        path: &path,
        headers: sent.headers,
        peer: match &sent.peer {
            None => Peer::Absent,
            Some((trust_domain, namespace, service_account)) => {
                Peer::Mesh { trust_domain, namespace, service_account }
            }
        },
        tokens: &tokens,
        directories: &directories,
    })
}

fn decoded(model: &PolicyModel) -> PolicySet {
    PolicySet::decode(&encode(model).expect("the model encodes")).expect("what was encoded decodes")
}

fn outcome(model: &PolicyModel, sent: &Sent) -> Decision {
    let policy = decoded(model);
    with_request(sent, |request| decide(&policy, request))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_engine_decides_as_the_reference_does(model in policy(), all in proptest::collection::vec(sent(), 1..12)) {
        let policy = decoded(&model);
        for sent in &all {
            let (engine, expected) =
                with_request(sent, |request| (decide(&policy, request), reference::decide(&model, request)));
            prop_assert_eq!(engine, expected, "request {:?}", sent);
        }
    }

    #[test]
    fn the_order_of_rules_never_matters(model in policy(), sent in sent(), seed in any::<usize>()) {
        let mut shuffled = model.clone();
        let length = shuffled.rules.len().max(1);
        shuffled.rules.rotate_left(seed % length);
        shuffled.rules.reverse();
        prop_assert_eq!(encode(&model), encode(&shuffled));
        prop_assert_eq!(outcome(&model, &sent), outcome(&shuffled, &sent));
    }

    #[test]
    fn another_deny_never_allows_and_a_removed_allow_never_allows_more(model in policy(), sent in sent(), extra in rule()) {
        let before = outcome(&model, &sent);
        let mut more = model.clone();
        more.rules.push(RuleModel { id: "zz/extra".into(), effect: Effect::Deny, ..extra });
        if before.outcome == Outcome::Deny {
            prop_assert_eq!(outcome(&more, &sent).outcome, Outcome::Deny);
            for position in 0..model.rules.len() {
                if model.rules[position].effect == Effect::Allow {
                    let mut fewer = model.clone();
                    fewer.rules.remove(position);
                    prop_assert_eq!(outcome(&fewer, &sent).outcome, Outcome::Deny, "without rule {}", position);
                }
            }
        }
    }

    #[test]
    fn shadow_rules_never_change_what_is_enforced(model in policy(), sent in sent()) {
        let mut enforced_only = model.clone();
        enforced_only.rules.retain(|rule| rule.mode == Mode::Enforce);
        prop_assert_eq!(outcome(&model, &sent).outcome, outcome(&enforced_only, &sent).outcome);
    }

    #[test]
    fn a_damaged_section_is_refused_or_still_decides(model in policy(), sent in sent(), at in any::<usize>(), bit in 0u8..8, cut in any::<usize>()) {
        let mut bytes = encode(&model).expect("the model encodes");
        let position = at % bytes.len();
        prop_assert!(PolicySet::decode(&bytes[..cut % bytes.len()]).is_err(), "truncated");
        bytes[position] ^= 1 << bit;
        if let Ok(policy) = PolicySet::decode(&bytes) {
            // Whatever it says now, deciding ends and does not panic.
            let _ = with_request(&sent, |request| decide(&policy, request));
        }
    }

    #[test]
    fn reading_a_path_twice_changes_nothing(raw in "/[ -~]{0,24}") {
        let once = normal::path(raw.as_bytes());
        if !once.ambiguous() {
            let shown = once.display().to_string();
            let twice = normal::path(shown.as_bytes());
            prop_assert!(!twice.ambiguous(), "{} became ambiguous", shown);
            prop_assert_eq!(twice.display().to_string(), shown);
        }
    }

    #[test]
    fn no_bytes_make_normalisation_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = normal::path(&raw).display().to_string();
        let _ = normal::host(&raw);
        let _ = normal::is_method(&raw);
        let _ = PolicySet::decode(&raw);
        let _ = Directories::decode(&raw);
    }
}

fn closed() -> PolicyModel {
    PolicyModel {
        guards: vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports: None, audiences: None }],
        ..PolicyModel::default()
    }
}

fn plain() -> Sent {
    Sent {
        port: 8080,
        method: "GET".into(),
        host: Some("orders.example".into()),
        path: "/v1/orders".into(),
        headers: HeaderFacts::default(),
        peer: None,
        tokens: vec![],
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
    model.rules.push(RuleModel {
        id: "sales/any".into(),
        effect: Effect::Allow,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
        to: None,
    });
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
            from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
            to: Some(vec![OperationModel::default()]),
        };
        change(&mut rule);
        model.rules.push(rule);
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

/// What engine and reference share is told by example.
#[test]
fn what_refuses_before_any_rule_is_named() {
    let mut model = closed();
    model.issuers.push(IssuerModel { name: "a".into(), slots: vec![] });
    model.guards[0].audiences = Some(vec!["https://orders.example".into()]);
    model.rules.push(RuleModel {
        id: "sales/any".into(),
        effect: Effect::Allow,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        from: vec![FromModel { peer: PeerModel::Anyone, issuers: vec![], condition: Condition::True }],
        to: None,
    });
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
