//! Policies of every shape that has to be decided in the same time however many rules there are, and for each the requests
//! of rules spread over all of it.

use tidegate_engine::model::*;
use tidegate_engine::{
    ClaimValue, Decision, Directories, HeaderFacts, Outcome, Peer, PolicySet, Request, TokenState,
    VerifiedToken, decide, normal,
};

/// How many rules requests are made for.
const REQUESTS: usize = 256;

/// A way in which rules differ.
pub struct Shape {
    pub name: &'static str,
    pub policy: fn(usize) -> PolicyModel,
    /// The request that the rule at this position allows (or denies).
    pub sent: fn(usize) -> Sent,
    pub expected: Outcome,
}

/// What differs from request to request.
pub struct Sent {
    pub account: String,
    pub target: String,
    pub token: VerifiedToken,
}

pub const SHAPES: [Shape; 7] = [
    // Everything differs: account, claim and path; beside them a Deny and a Shadow rule for every hundred.
    Shape {
        name: "mixed",
        policy: mixed,
        sent: |at| sent(at, &format!("/svc-{at}/orders/123")),
        expected: Outcome::Allow,
    },
    // Callers with many rules each, rules with several callers and paths, Deny, Shadow, claims.
    Shape { name: "estate", policy: estate, sent: estate_sent, expected: Outcome::Allow },
    // The same host and path for all.
    Shape {
        name: "callers",
        policy: callers,
        sent: |at| sent(at, "/v1/orders/123"),
        expected: Outcome::Allow,
    },
    // The same caller for all; paths differ behind a placeholder.
    Shape {
        name: "paths",
        policy: paths,
        sent: |at| sent(0, &format!("/v1/projects/acme/topics/topic-{at}")),
        expected: Outcome::Allow,
    },
    // Anyone of the mesh; paths begin with a glob.
    Shape {
        name: "globs",
        policy: globs,
        sent: |at| sent(0, &format!("/team-{at}-blue/v1/orders")),
        expected: Outcome::Allow,
    },
    // Denies without paths: accounts.
    Shape { name: "banned", policy: banned, sent: |at| sent(at, "/v1/orders/123"), expected: Outcome::Deny },
    // Denies without peers and paths: subjects of tokens.
    Shape {
        name: "revoked",
        policy: revoked,
        sent: |at| sent(at, "/v1/orders/123"),
        expected: Outcome::Deny,
    },
];

fn literal(text: &str) -> SegmentPattern {
    SegmentPattern::Literal(text.to_owned())
}

fn glob(pattern: String) -> SegmentPattern {
    SegmentPattern::Glob(pattern)
}

fn operation(method: &str, segments: Vec<SegmentPattern>) -> OperationModel {
    OperationModel {
        methods: Some(vec![method.to_owned()]),
        hosts: Some(vec![HostPattern::Exact("orders.example".into())]),
        paths: Some(vec![PathPattern { segments }]),
        ..OperationModel::default()
    }
}

fn rule(
    id: String,
    effect: Effect,
    mode: Mode,
    from: Vec<FromModel>,
    to: Option<Vec<OperationModel>>,
) -> RuleModel {
    RuleModel {
        id,
        effect,
        mode,
        owner: "team".into(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        audit: Default::default(),
        lease: Lease::default(),
        revokes: false,
        from,
        to,
    }
}

fn allow(at: usize, from: FromModel, to: OperationModel) -> RuleModel {
    rule(format!("sales/rule-{at:06}"), Effect::Allow, Mode::Enforce, vec![from], Some(vec![to]))
}

fn mesh(account: String) -> PeerModel {
    PeerModel::Mesh {
        trust_domain: "prod.example".into(),
        namespace: "etl".into(),
        service_accounts: Some(vec![account]),
    }
}

fn any_mesh() -> PeerModel {
    PeerModel::AnyMesh { trust_domain: "prod.example".into() }
}

fn claim(slot: u16, text: &str) -> Condition {
    Condition::Claim(ClaimRef { issuer: 0, slot }, Test::OneOf(vec![text.into()]))
}

fn with_token(peer: PeerModel, project: &str) -> FromModel {
    FromModel { peer, issuers: vec![0], condition: Condition::All(vec![claim(0, project), claim(1, "true")]) }
}

fn without_token(peer: PeerModel) -> FromModel {
    FromModel { peer, issuers: vec![], condition: Condition::True }
}

fn policy(rules: Vec<RuleModel>) -> PolicyModel {
    PolicyModel {
        issuers: vec![IssuerModel {
            name: "gitlab".into(),
            slots: vec![vec!["project_id".into()], vec!["ref_protected".into()]],
        }],
        guards: vec![GuardModel {
            id: "sales/g".into(),
            mode: Mode::Enforce,
            ports: None,
            audiences: Some(vec!["https://orders.example".into()]),
        }],
        directories: vec![],
        rules: rules.into_iter().map(Into::into).collect(),
    }
}

/// Rule `i` allows account `worker-i` with a token of project `i` to GET `/svc-i/orders/{id}`; beside them a Deny and a
/// Shadow rule for every hundred, and always at least one of each.
fn mixed(rules: usize) -> PolicyModel {
    let mut all: Vec<RuleModel> = (0..rules)
        .map(|at| {
            let path = vec![literal(&format!("svc-{at}")), literal("orders"), SegmentPattern::One];
            allow(at, with_token(mesh(format!("worker-{at}")), &at.to_string()), operation("GET", path))
        })
        .collect();
    for at in 0..(rules / 100).max(1) {
        let path = |name: &str| vec![literal(name), literal(&format!("area-{at}")), SegmentPattern::Rest];
        for (name, effect, mode) in
            [("admin", Effect::Deny, Mode::Enforce), ("next", Effect::Allow, Mode::Shadow)]
        {
            let to = Some(vec![operation("GET", path(name))]);
            all.push(rule(
                format!("sales/{name}-{at:06}"),
                effect,
                mode,
                vec![without_token(any_mesh())],
                to,
            ));
        }
    }
    policy(all)
}

/// Twenty rules for a caller; every fourth with two callers and two operations, every tenth a Deny or a Shadow rule.
fn estate(rules: usize) -> PolicyModel {
    let all = (0..rules).map(|at| {
        let caller = at / 20;
        let path = |kind: &str| {
            let resource = format!("orders-{at}");
            vec![literal("v1"), literal(kind), literal(&resource), SegmentPattern::One]
        };
        let mut from = vec![with_token(mesh(format!("worker-{caller}")), &caller.to_string())];
        let mut to = vec![operation("GET", path("items"))];
        if at % 4 == 0 {
            from.push(with_token(mesh(format!("worker-{}", caller + 1)), &(caller + 1).to_string()));
            to.push(operation("POST", path("batches")));
        }
        let (effect, mode) = match at % 20 {
            9 => (Effect::Deny, Mode::Enforce),
            19 => (Effect::Allow, Mode::Shadow),
            _ => (Effect::Allow, Mode::Enforce),
        };
        rule(format!("sales/orders-{at}"), effect, mode, from, Some(to))
    });
    policy(all.collect())
}

fn estate_sent(at: usize) -> Sent {
    // A rule that is enforced and allows.
    let at = at - at % 10;
    sent(at / 20, &format!("/v1/items/orders-{at}/7"))
}

fn callers(rules: usize) -> PolicyModel {
    let path = || vec![literal("v1"), literal("orders"), SegmentPattern::One];
    policy(
        (0..rules)
            .map(|at| allow(at, without_token(mesh(format!("worker-{at}"))), operation("GET", path())))
            .collect(),
    )
}

fn paths(rules: usize) -> PolicyModel {
    let path = |at| {
        let topic = format!("topic-{at}");
        vec![literal("v1"), literal("projects"), SegmentPattern::One, literal("topics"), literal(&topic)]
    };
    policy(
        (0..rules)
            .map(|at| allow(at, without_token(mesh("worker-0".into())), operation("GET", path(at))))
            .collect(),
    )
}

fn globs(rules: usize) -> PolicyModel {
    let path = |at| vec![glob(format!("team-{at}-*")), SegmentPattern::Rest];
    policy((0..rules).map(|at| allow(at, without_token(any_mesh()), operation("GET", path(at)))).collect())
}

fn denies(rules: usize, from: fn(usize) -> FromModel) -> PolicyModel {
    let path = vec![literal("v1"), SegmentPattern::Rest];
    let deny = |at| rule(format!("sales/deny-{at:06}"), Effect::Deny, Mode::Enforce, vec![from(at)], None);
    let all = [allow(0, without_token(any_mesh()), operation("GET", path))];
    policy(all.into_iter().chain((0..rules).map(deny)).collect())
}

fn banned(rules: usize) -> PolicyModel {
    denies(rules, |at| without_token(mesh(format!("worker-{at}"))))
}

fn revoked(rules: usize) -> PolicyModel {
    denies(rules, |at| FromModel {
        peer: PeerModel::Anyone,
        issuers: vec![0],
        condition: claim(0, &at.to_string()),
    })
}

fn sent(at: usize, target: &str) -> Sent {
    Sent {
        account: format!("worker-{at}"),
        target: target.to_owned(),
        token: VerifiedToken {
            audiences: vec!["https://orders.example".into()],
            expires_at: 2_000,
            slots: vec![ClaimValue::String(at.to_string()), ClaimValue::String("true".into())],
        },
    }
}

/// Requests of rules all over the policy.
pub fn spread(shape: &Shape, rules: usize) -> Vec<Sent> {
    (0..REQUESTS).map(|step| (shape.sent)((step * 7919 + 13) % rules)).collect()
}

/// Reads and decides a request, tokens apart, as the filter does.
pub fn decided(set: &PolicySet, sent: &Sent, directories: &Directories) -> Decision {
    let path = normal::path(sent.target.as_bytes());
    let host = normal::host(b"orders.example");
    let tokens = [TokenState::Verified(&sent.token)];
    decide(
        set,
        &Request {
            now: 1_000,
            expiry_grace_s: 0,
            port: 8080,
            method: b"GET",
            host: host.as_deref(),
            path: &path,
            query: &[],
            headers: HeaderFacts::default(),
            fields: &[],
            body: tidegate_engine::Body::Unread,
            peer: Peer::Mesh {
                trust_domain: "prod.example",
                namespace: "etl",
                service_account: &sent.account,
            },
            tokens: &tokens,
            directories,
        },
    )
}
