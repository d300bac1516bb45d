//! Many rules that share most of what they demand, so that the index has to use every part by which rules can be told
//! apart: accounts, claims of every kind, hosts and suffixes, segments behind placeholders, beginnings of segments.

use proptest::prelude::*;
use proptest::sample::select;
use tidegate_engine::model::*;
use tidegate_engine::{ClaimValue, Outcome, VerifiedToken, decide, reference};

use crate::examples::{closed, plain};
use crate::generate::{Sent, Token, sent};
use crate::{decoded, with_request};

const ACCOUNTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const GROUPS: [&str; 6] = ["red", "blue", "green", "white", "black", "grey"];
const HOSTS: [&str; 6] = ["a.example", "b.example", "x.a.example", "y.b.example", "example", "z.y.b.example"];
const STARTS: [&str; 5] = ["team-", "team-1", "te", "team-12-", "x"];

fn account() -> impl Strategy<Value = String> {
    select(&ACCOUNTS[..]).prop_map(str::to_owned)
}

fn peer() -> impl Strategy<Value = PeerModel> {
    prop_oneof![
        6 => (select(vec!["prod.example", "dev.example"]), proptest::collection::vec(account(), 1..3)).prop_map(|(domain, accounts)| {
            PeerModel::Mesh { trust_domain: domain.into(), namespace: "etl".into(), service_accounts: Some(accounts) }
        }),
        1 => account().prop_map(|namespace| PeerModel::Mesh {
            trust_domain: "prod.example".into(),
            namespace,
            service_accounts: None,
        }),
        1 => Just(PeerModel::AnyMesh { trust_domain: "prod.example".into() }),
        1 => Just(PeerModel::NoPeer),
        2 => Just(PeerModel::Anyone),
    ]
}

/// Slot 0 is a text, slot 1 a number, slot 2 a list; tokens may say otherwise.
fn equality() -> impl Strategy<Value = Condition> {
    let group = || select(&GROUPS[..]).prop_map(str::to_owned);
    let test = prop_oneof![
        3 => group().prop_map(|group| (0, Test::OneOf(vec![group]))),
        1 => proptest::collection::vec(group(), 2..4).prop_map(|groups| (0, Test::OneOf(groups))),
        2 => (0i64..6).prop_map(|number| (1, Test::Integer(number))),
        2 => group().prop_map(|group| (2, Test::Contains(group))),
        1 => Just((0, Test::Present)),
    ];
    (test, 0u8..3).prop_map(|((slot, test), said)| {
        let claim = ClaimRef { issuer: 0, slot };
        let operand = || Operand::Claim(claim);
        // The same, said in other words.
        match (test, said) {
            (Test::OneOf(values), 1) => Condition::Text(operand(), TextTest::OneOf(values)),
            (Test::OneOf(values), 2) => {
                let equal = |value| Condition::Compare(Operand::Text(value), Relation::Equal, operand());
                let mut values: Vec<Condition> = values.into_iter().map(equal).collect();
                if values.len() == 1 { values.remove(0) } else { Condition::Any(values) }
            }
            (Test::Integer(value), 1) => {
                Condition::Compare(operand(), Relation::Equal, Operand::Integer(value))
            }
            (Test::Integer(value), 2) => {
                Condition::Compare(Operand::Integer(value), Relation::Equal, operand())
            }
            (test, _) => Condition::Claim(claim, test),
        }
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let several = || proptest::collection::vec(equality(), 1..4);
    prop_oneof![
        4 => equality(),
        3 => several().prop_map(Condition::All),
        2 => several().prop_map(Condition::Any),
        1 => (equality(), several()).prop_map(|(one, any)| Condition::All(vec![one, Condition::Any(any)])),
        1 => equality().prop_map(|one| Condition::Not(Box::new(one))),
    ]
}

fn from() -> impl Strategy<Value = FromModel> {
    (peer(), proptest::option::weighted(0.7, condition())).prop_map(|(peer, condition)| FromModel {
        peer,
        issuers: if condition.is_some() { vec![0] } else { vec![] },
        condition: condition.unwrap_or(Condition::True),
    })
}

fn path() -> impl Strategy<Value = PathPattern> {
    let literal = |text: &str| SegmentPattern::Literal(text.to_owned());
    let segment = prop_oneof![
        4 => select(vec!["v1", "x", "team-12-blue"]).prop_map(literal),
        1 => Just(SegmentPattern::One),
        2 => select(&STARTS[..]).prop_map(|start| SegmentPattern::Glob(format!("{start}*"))),
    ];
    (proptest::collection::vec(segment, 1..11), any::<bool>()).prop_map(|(mut segments, rest)| {
        if rest {
            segments.push(SegmentPattern::Rest);
        }
        PathPattern { segments }
    })
}

fn operation() -> impl Strategy<Value = OperationModel> {
    let host = select(&HOSTS[..]).prop_flat_map(|host| {
        prop_oneof![Just(HostPattern::Exact(host.to_owned())), Just(HostPattern::Suffix(format!(".{host}"))),]
    });
    (
        proptest::option::of(proptest::collection::vec(host, 1..3)),
        proptest::option::weighted(0.7, proptest::collection::vec(path(), 1..3)),
    )
        .prop_map(|(hosts, paths)| OperationModel { hosts, paths, ..OperationModel::default() })
}

pub fn rule() -> impl Strategy<Value = RuleModel> {
    (
        prop_oneof![2 => Just(Effect::Allow), 1 => Just(Effect::Deny)],
        prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Shadow)],
        proptest::collection::vec(from(), 1..3),
        proptest::option::weighted(0.8, proptest::collection::vec(operation(), 1..3)),
    )
        .prop_map(|(effect, mode, from, to)| RuleModel {
            id: String::new(),
            effect,
            mode,
            owner: String::new(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from,
            to,
        })
}

pub fn policy() -> impl Strategy<Value = PolicyModel> {
    // Few kinds of rules, each many times with other froms: rules that differ in one thing.
    (proptest::collection::vec(rule(), 1..6), proptest::collection::vec((any::<usize>(), from()), 0..60))
        .prop_map(|(kinds, copies)| {
            let mut model = closed();
            model.issuers = vec![IssuerModel {
                name: "a".into(),
                slots: vec![vec!["x".into()], vec!["y".into()], vec!["z".into()]],
            }];
            for (kind, from) in copies {
                let mut rule = kinds[kind % kinds.len()].clone();
                rule.from[0] = from;
                model.rules.push(rule.into());
            }
            model.rules.extend(kinds.into_iter().map(SharedRule::from));
            if let Some(FromModel {
                peer: PeerModel::Mesh { service_accounts: Some(accounts), .. }, ..
            }) = model.rules.last_mut().and_then(|rule| rule.from.first_mut())
            {
                accounts.extend((0..70).map(|account| format!("other-{account}")));
            }
            if let Some(paths) =
                model.rules.first_mut().and_then(|rule| rule.to.as_mut()?.first_mut()?.paths.as_mut())
            {
                let mut path = paths[0].clone();
                path.segments[0] = SegmentPattern::Literal("other".into());
                for _ in 0..70 {
                    path.segments.insert(1, SegmentPattern::Literal("v1".into()));
                    paths.push(path.clone());
                }
            }
            for (position, rule) in model.rules.iter_mut().enumerate() {
                rule.id = format!("sales/rule-{position:02}");
            }
            model
        })
}

fn claim() -> impl Strategy<Value = ClaimValue> {
    let group = || select(&GROUPS[..]).prop_map(str::to_owned);
    prop_oneof![
        4 => group().prop_map(ClaimValue::String),
        3 => (0i64..6).prop_map(ClaimValue::Integer),
        3 => proptest::collection::vec(group(), 0..3).prop_map(ClaimValue::Strings),
        1 => select(vec![ClaimValue::Absent, ClaimValue::Unknown, ClaimValue::Other, ClaimValue::Boolean(true)]),
    ]
}

fn request() -> impl Strategy<Value = Sent> {
    let segment = select(vec!["v1", "x", "team-12-blue", "team-1", "te", "y"]);
    let path =
        proptest::collection::vec(segment, 0..11).prop_map(|segments| format!("/{}", segments.join("/")));
    (
        sent(),
        path,
        select(&HOSTS[..]),
        proptest::option::weighted(
            0.8,
            (select(vec!["prod.example", "dev.example"]), select(vec!["etl", "a", "b"]), account()),
        ),
        proptest::option::weighted(0.8, proptest::collection::vec(claim(), 3)),
    )
        .prop_map(|(sent, path, host, peer, slots)| Sent {
            port: 8080,
            method: "GET".into(),
            path,
            host: Some(host.to_owned()),
            peer: peer.map(|(domain, namespace, account)| (domain.to_owned(), namespace.to_owned(), account)),
            tokens: slots
                .map(|slots| VerifiedToken { audiences: vec![host.to_owned()], expires_at: 2000, slots })
                .map_or_else(Vec::new, |token| vec![Token::Verified(token)]),
            headers: plain().headers,
            ..sent
        })
}

proptest! {
    #![proptest_config(crate::cases())]

    #[test]
    fn among_many_similar_rules_the_engine_finds_those_that_the_reference_does(model in policy(), all in proptest::collection::vec(request(), 1..8)) {
        let policy = decoded(&model);
        for sent in &all {
            let (engine, expected) =
                with_request(sent, |request| (decide(&policy, request), reference::decide(&model, request)));
            prop_assert_eq!(engine, expected, "request {:?}", sent);
        }
    }
}

/// One that every part of a key is needed for: without any of them more than a few rules would share it.
#[test]
fn a_rule_is_found_by_all_that_it_demands() {
    let mut model = closed();
    model.issuers = vec![IssuerModel { name: "a".into(), slots: vec![vec!["x".into()]] }];
    let size = 6usize;
    for at in 0..size.pow(5) {
        let digit = |place: u32| at / size.pow(place) % size;
        model.rules.push(
            RuleModel {
                id: format!("sales/rule-{at:05}"),
                effect: Effect::Allow,
                mode: Mode::Enforce,
                owner: String::new(),
                contact: String::new(),
                disclosure: Disclosure::Full,
                audit: Default::default(),
                lease: Lease::default(),
                revokes: false,
                from: vec![FromModel {
                    peer: PeerModel::Mesh {
                        trust_domain: "prod.example".into(),
                        namespace: "etl".into(),
                        service_accounts: Some(vec![ACCOUNTS[digit(0)].to_owned()]),
                    },
                    issuers: vec![0],
                    condition: Condition::Claim(
                        ClaimRef { issuer: 0, slot: 0 },
                        Test::OneOf(vec![GROUPS[digit(1)].to_owned()]),
                    ),
                }],
                to: Some(vec![OperationModel {
                    hosts: Some(vec![HostPattern::Exact(HOSTS[digit(2)].to_owned())]),
                    paths: Some(vec![PathPattern {
                        segments: vec![
                            SegmentPattern::Literal(format!("v{}", digit(3))),
                            SegmentPattern::One,
                            SegmentPattern::Glob(format!("team-{}-*", digit(4))),
                        ],
                    }]),
                    ..OperationModel::default()
                }]),
            }
            .into(),
        );
    }
    let policy = decoded(&model);
    for at in (0..size.pow(5)).step_by(97) {
        let digit = |place: u32| at / size.pow(place) % size;
        let token = VerifiedToken {
            audiences: vec![HOSTS[digit(2)].to_owned()],
            expires_at: 2000,
            slots: vec![ClaimValue::String(GROUPS[digit(1)].to_owned())],
        };
        let right = Sent {
            host: Some(HOSTS[digit(2)].to_owned()),
            path: format!("/v{}/anything/team-{}-blue", digit(3), digit(4)),
            peer: Some(("prod.example".into(), "etl".into(), ACCOUNTS[digit(0)].into())),
            tokens: vec![Token::Verified(token)],
            ..plain()
        };
        let decision = with_request(&right, |request| decide(&policy, request));
        assert_eq!(decision.rule.map(|rule| rule.0), u32::try_from(at).ok(), "{right:?}");
        let wrong = Sent { path: format!("/v{}/anything/team-{}", digit(3), digit(4)), ..right };
        assert_eq!(
            with_request(&wrong, |request| decide(&policy, request)).outcome,
            Outcome::Deny,
            "{wrong:?}"
        );
    }
}
