//! Policies and requests by chance.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tidegate_engine::body::FieldValue;
use tidegate_engine::model::*;
use tidegate_engine::{ClaimValue, HeaderFacts, VerifiedToken};

/// A few of everything, so that rules and requests meet often.
pub const DOMAINS: [&str; 2] = ["prod.example", "dev.example"];
pub const NAMES: [&str; 3] = ["etl", "ci", "sales"];
pub const SEGMENTS: [&str; 4] = ["v1", "orders", "orders-7", "x"];
pub const METHODS: [&str; 4] = ["GET", "POST", "PATCH", "LIST"];
pub const HOSTS: [&str; 4] = ["orders.example", "a.orders.example", "example", "b.a.orders.example"];
pub const TEXTS: [&str; 4] = ["true", "4711", "etl", ""];
pub const PORTS: [u16; 2] = [8080, 9090];
pub const FIELDS: [&str; 3] = ["x-env", "x_env", "x-team"];
pub const PARAMETERS: [&str; 3] = ["alt", "name", "a b"];
pub const VALUES: [&str; 8] = ["true", "4711", "etl", "", "a b", "é", "/v1/orders", "POST"];
pub const AUDIENCES: [&str; 3] = ["https://orders.example", "orders.example", "other"];

pub fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

pub fn some<T: Clone + std::fmt::Debug + 'static>(
    all: &'static [T],
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    subsequence(all, 1..=most.min(all.len()))
}

pub fn strings(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    some(all, 2).prop_map(|texts| texts.into_iter().map(str::to_owned).collect())
}

pub fn peer_model() -> impl Strategy<Value = PeerModel> {
    let domain = || select(&DOMAINS[..]).prop_map(str::to_owned);
    prop_oneof![
        4 => (domain(), name(), proptest::option::of(strings(&NAMES)))
            .prop_map(|(trust_domain, namespace, service_accounts)| PeerModel::Mesh { trust_domain, namespace, service_accounts }),
        1 => domain().prop_map(|trust_domain| PeerModel::AnyMesh { trust_domain }),
        1 => Just(PeerModel::NoPeer),
        1 => Just(PeerModel::Anyone),
    ]
}

pub fn test() -> impl Strategy<Value = Test> {
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
        (0u16..3).prop_map(Test::Listed),
        (0u16..3).prop_map(Test::ListedOrStale),
    ]
}

/// A few operands; claims are of issuer 0.
fn operand(claims: bool) -> impl Strategy<Value = Operand> {
    let claim = if claims {
        (0u16..2).prop_map(|slot| Operand::Claim(ClaimRef { issuer: 0, slot })).boxed()
    } else {
        Just(Operand::Now).boxed()
    };
    prop_oneof![
        1 => Just(Operand::PeerNamespace),
        1 => Just(Operand::PeerServiceAccount),
        1 => Just(Operand::PeerTrustDomain),
        1 => Just(Operand::Method),
        1 => Just(Operand::Host),
        1 => Just(Operand::Path),
        1 => Just(Operand::Port),
        3 => select(&FIELDS[..]).prop_map(|name| Operand::Header(name.to_owned())),
        3 => select(&PARAMETERS[..]).prop_map(|name| Operand::Query(name.to_owned())),
        2 => Just(Operand::Now),
        1 => Just(Operand::TokenClock),
        3 => select(&VALUES[..]).prop_map(|text| Operand::Text(text.to_owned())),
        3 => select(vec![-1i64, 0, 1, 2, 4, 999, 1000, 1001, 1007, 8080, i64::MAX]).prop_map(Operand::Integer),
        1 => any::<bool>().prop_map(Operand::Boolean),
        6 => claim,
    ]
    .prop_recursive(2, 2, 1, |inner| {
        prop_oneof![
            inner.clone().prop_map(|of| Operand::Length(Box::new(of))),
            (inner, select(vec![-1i64, 1, 998, i64::MAX]))
                .prop_map(|(to, more)| Operand::Plus(Box::new(to), more)),
        ]
    })
}

fn automaton() -> impl Strategy<Value = Pattern> {
    (1u16..4, 0u16..4).prop_flat_map(|(class_count, more)| {
        let states = 2 + more;
        let length = usize::from(more * class_count);
        (0..states, 2..=states, proptest::collection::vec(0..states, length)).prop_map(
            move |(start, ends_from, transitions)| Pattern {
                source: String::new(),
                classes: (0..=255).map(|byte: u8| byte % u8::try_from(class_count).unwrap()).collect(),
                class_count,
                start,
                ends_from,
                transitions,
            },
        )
    })
}

fn text_test() -> impl Strategy<Value = TextTest> {
    let text = || select(&VALUES[..]).prop_map(str::to_owned);
    prop_oneof![
        Just(TextTest::Present),
        strings(&VALUES).prop_map(TextTest::OneOf),
        text().prop_map(TextTest::Prefix),
        text().prop_map(TextTest::Suffix),
        text().prop_map(TextTest::Infix),
        select(vec!["t*", "*1", "*", "/v1/*", "a *"]).prop_map(|glob| TextTest::Glob(glob.to_owned())),
        automaton().prop_map(TextTest::Pattern),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let window = (1u8..128, 0u16..60, 1u16..1380).prop_map(|(days, from, more)| Window {
        days,
        from,
        to: from + more,
    });
    let offset = (select(vec![i64::MIN, 0, 900, 1000, 1001]), select(vec![-86_399, -3600, 0, 3600, 86_399]));
    (
        proptest::collection::btree_map(offset.clone().prop_map(|(since, _)| since), offset, 1..3),
        select(vec![1002, 2000, i64::MAX]),
        proptest::collection::vec(window, 1..3),
    )
        .prop_map(|(offsets, until, windows)| Schedule {
            zone: Zone {
                name: String::new(),
                offsets: offsets.into_iter().map(|(since, (_, seconds))| Offset { since, seconds }).collect(),
                until,
            },
            windows,
        })
}

/// What needs no claims; with them if `claims`.
fn request_condition(claims: bool) -> impl Strategy<Value = Condition> {
    let relation = select(vec![Relation::Equal, Relation::Less, Relation::LessOrEqual]);
    prop_oneof![
        3 => (operand(claims), relation, operand(claims))
            .prop_map(|(left, relation, right)| Condition::Compare(left, relation, right)),
        3 => (operand(claims), text_test()).prop_map(|(operand, test)| Condition::Text(operand, test)),
        1 => schedule().prop_map(Condition::Within),
    ]
}

/// What reads the body.
fn body_condition() -> impl Strategy<Value = Condition> {
    let field = || select(body_fields().to_vec()).prop_map(Operand::Body);
    prop_oneof![
        3 => (field(), text_test()).prop_map(|(field, test)| Condition::Text(field, test)),
        1 => (field(), operand(false))
            .prop_map(|(field, other)| Condition::Compare(field, Relation::Equal, other)),
        1 => (operand(false), field())
            .prop_map(|(other, field)| Condition::Compare(other, Relation::LessOrEqual, Operand::Length(Box::new(field)))),
    ]
}

/// Conditions on issuer 0, which entries with conditions demand.
pub fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        1 => Just(Condition::True),
        6 => (0u16..2, test()).prop_map(|(slot, test)| Condition::Claim(ClaimRef { issuer: 0, slot }, test)),
        6 => request_condition(true),
    ];
    combined(leaf)
}

/// Conditions of parts.
fn combined(leaf: impl Strategy<Value = Condition> + 'static) -> impl Strategy<Value = Condition> {
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::All),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

pub fn from_model() -> impl Strategy<Value = FromModel> {
    (peer_model(), 0u8..5, condition(), request_condition(false)).prop_map(
        |(peer, tokens, condition, bare)| match tokens {
            0 => FromModel { peer, issuers: vec![], condition: Condition::True },
            4 => FromModel { peer, issuers: vec![], condition: bare },
            1 => FromModel { peer, issuers: vec![1], condition: Condition::True },
            2 => FromModel { peer, issuers: vec![0], condition },
            _ => FromModel { peer, issuers: vec![1, 0], condition },
        },
    )
}

pub fn path_pattern() -> impl Strategy<Value = PathPattern> {
    let segment = prop_oneof![
        5 => select(&SEGMENTS[..]).prop_map(|text| SegmentPattern::Literal(text.to_owned())),
        1 => Just(SegmentPattern::One),
        1 => Just(SegmentPattern::Literal("v1%2Forders".to_owned())),
        1 => select(vec!["orders*", "*-7", "*", "v1%2F*"]).prop_map(|glob| SegmentPattern::Glob(glob.to_owned())),
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

pub fn operation() -> impl Strategy<Value = OperationModel> {
    let host = prop_oneof![
        select(&HOSTS[..]).prop_map(|host| HostPattern::Exact(host.to_owned())),
        select(vec![".example", ".orders.example"]).prop_map(|suffix| HostPattern::Suffix(suffix.to_owned())),
    ];
    (
        proptest::option::weighted(0.2, some(&PORTS, 2)),
        proptest::option::of(strings(&METHODS)),
        proptest::option::weighted(0.3, proptest::collection::vec(host, 1..3)),
        proptest::option::weighted(0.8, proptest::collection::vec(path_pattern(), 1..4)),
        (proptest::bool::weighted(0.2), proptest::bool::weighted(0.1)),
        prop_oneof![
            3 => Just(Condition::True),
            1 => combined(request_condition(false)),
            1 => combined(prop_oneof![body_condition(), request_condition(false)]),
        ],
    )
        .prop_map(|(ports, methods, hosts, paths, (grpc, encoded_slashes), condition)| OperationModel {
            ports,
            methods,
            hosts,
            paths,
            grpc,
            encoded_slashes,
            condition,
        })
}

pub fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)]
}

pub fn lease() -> impl Strategy<Value = Lease> {
    (select(vec![OnExpiry::Reset, OnExpiry::Keep]), select(vec![0, 1, 30, Lease::MAX_GRACE_S]))
        .prop_map(|(on_expiry, grace_s)| Lease { on_expiry, grace_s })
}

pub fn rule() -> impl Strategy<Value = RuleModel> {
    (
        prop_oneof![3 => Just(Effect::Allow), 1 => Just(Effect::Deny)],
        mode(),
        proptest::collection::vec(from_model(), 1..4),
        proptest::option::weighted(0.9, proptest::collection::vec(operation(), 1..3)),
        lease(),
        select(vec![Audit::Sampled, Audit::Full, Audit::Required]),
    )
        .prop_map(|(effect, mode, from, to, lease, audit)| RuleModel {
            id: String::new(),
            effect,
            mode,
            owner: "team".into(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit,
            lease: if effect == Effect::Deny { Lease::default() } else { lease },
            // Every Deny that can take something back does.
            revokes: effect == Effect::Deny && mode == Mode::Enforce && to.is_none(),
            from,
            to,
        })
}

pub fn guard() -> impl Strategy<Value = GuardModel> {
    (
        mode(),
        proptest::option::weighted(0.3, some(&PORTS, 2)),
        proptest::option::weighted(0.5, strings(&AUDIENCES)),
    )
        .prop_map(|(mode, ports, audiences)| GuardModel { id: "sales/g".into(), mode, ports, audiences })
}

pub fn policy() -> impl Strategy<Value = PolicyModel> {
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
                directories: vec!["fresh".into(), "stale".into(), "missing".into()],
                rules: rules.into_iter().map(Into::into).collect(),
            }
        },
    )
}

pub fn claim() -> impl Strategy<Value = ClaimValue> {
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
pub enum Token {
    Absent,
    Invalid,
    Verified(VerifiedToken),
}

pub fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        4 => Just(Token::Absent),
        1 => Just(Token::Invalid),
        12 => (strings(&AUDIENCES), proptest::collection::vec(claim(), 2), 840i64..1040)
            .prop_map(|(audiences, slots, expires_at)| Token::Verified(VerifiedToken { audiences, expires_at, slots })),
    ]
}

/// What a request is made of, owned.
#[derive(Debug, Clone)]
pub struct Sent {
    pub now: i64,
    pub expiry_grace_s: u32,
    pub port: u16,
    pub method: String,
    pub host: Option<String>,
    pub path: String,
    pub query: String,
    pub headers: HeaderFacts,
    pub fields: Vec<(String, Vec<u8>)>,
    pub peer: Option<(String, String, String)>,
    pub tokens: Vec<Token>,
    /// What its body says, by position in [`body_fields`].
    pub body: Vec<FieldValue>,
}

/// Fields of bodies.
pub fn body_fields() -> [BodyField; 3] {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    [
        BodyField::Json(vec![names(&["topic"])]),
        BodyField::Json(vec![names(&["env"]), names(&["runAs", "run_as"])]),
        BodyField::Protobuf(vec![2, 6]),
    ]
}

fn field_value() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        1 => Just(FieldValue::Absent),
        1 => Just(FieldValue::Unknown),
        3 => strings(&VALUES).prop_map(FieldValue::Texts),
        4 => select(&VALUES[..]).prop_map(|text| FieldValue::Texts(vec![text.to_owned()])),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = select(vec!["alt", "%61lt", "name", "a%20b", "a+b", "%zz", ""]);
    let value = select(vec![
        "=true", "=etl", "", "=", "=4711", "=a%20b", "=a+b", "=%C3%A9", "=%c3%a", "=%FF", "=etl%00", "=x;y",
        "=a=b", "=%",
    ]);
    proptest::collection::vec((name, value), 0..4).prop_map(|pieces| {
        pieces.into_iter().map(|(name, value)| format!("{name}{value}")).collect::<Vec<_>>().join("&")
    })
}

fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let value =
        select(vec![&b"true"[..], b"etl", b"", b"4711", b"\xFF", b"a b", "\u{e9}".as_bytes(), &[b'x'; 9000]]);
    proptest::collection::vec((select(&FIELDS[..]), value), 0..4).prop_map(|fields| {
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
    })
}

pub fn sent() -> impl Strategy<Value = Sent> {
    let path =
        (proptest::collection::vec(select(&SEGMENTS[..]), 0..4), proptest::bool::weighted(0.2), 0u8..20)
            .prop_map(|(segments, slash, odd)| {
                let slash = if slash && !segments.is_empty() { "/" } else { "" };
                let odd = if odd == 0 { "/%2e%2e/x" } else { "" };
                let path = format!("/{}{slash}{odd}", segments.join("/"));
                if odd.is_empty() && segments.len() > 1 && path.len().is_multiple_of(4) {
                    path.replacen('/', "%2F", 2).replacen("%2F", "/", 1)
                } else {
                    path
                }
            });
    let headers = (any::<bool>(), proptest::bool::weighted(0.03), proptest::bool::weighted(0.03))
        .prop_map(|(grpc, overrides, duplicates)| HeaderFacts { grpc, overrides, duplicates });
    (
        select(&PORTS[..]),
        select(&METHODS[..]).prop_map(str::to_owned),
        proptest::option::weighted(0.97, select(&HOSTS[..]).prop_map(str::to_owned)),
        path,
        (headers, query(), fields()),
        proptest::option::weighted(0.8, (select(&DOMAINS[..]).prop_map(str::to_owned), name(), name())),
        proptest::collection::vec(token(), 0..3),
        select(vec![0, 0, 0, 30, u32::MAX]),
        proptest::collection::vec(field_value(), 3),
    )
        .prop_map(
            |(port, method, host, path, (headers, query, fields), peer, tokens, expiry_grace_s, body)| Sent {
                now: 1000,
                expiry_grace_s,
                port,
                method,
                host,
                path,
                query,
                headers,
                fields,
                peer,
                tokens,
                body,
            },
        )
}
