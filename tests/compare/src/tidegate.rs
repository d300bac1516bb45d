use tidegate_engine::model::*;
use tidegate_engine::{
    ClaimValue, Directories, HeaderFacts, Outcome, Peer, PolicySet, Request, TokenState, VerifiedToken,
    decide, encode, normal,
};

use crate::{Asked, Engine, HOST, Made};

pub struct Tidegate {
    policy: PolicySet,
    directories: Directories,
    token: VerifiedToken,
}

impl Tidegate {
    pub fn new(rules: usize) -> Made {
        let literal = |text: String| SegmentPattern::Literal(text);
        let rule = |at: usize| RuleModel {
            id: format!("sales/rule-{at:06}"),
            effect: Effect::Allow,
            mode: Mode::Enforce,
            owner: "team".into(),
            contact: String::new(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![FromModel {
                peer: PeerModel::Mesh {
                    trust_domain: "prod.example".into(),
                    namespace: "etl".into(),
                    service_accounts: Some(vec![format!("worker-{at}")]),
                },
                issuers: vec![0],
                condition: Condition::Claim(
                    ClaimRef { issuer: 0, slot: 0 },
                    Test::OneOf(vec![at.to_string()]),
                ),
            }],
            to: Some(vec![OperationModel {
                methods: Some(vec!["GET".into()]),
                hosts: Some(vec![HostPattern::Exact(HOST.into())]),
                paths: Some(vec![PathPattern {
                    segments: vec![
                        literal(format!("svc-{at}")),
                        literal("orders".into()),
                        SegmentPattern::Rest,
                    ],
                }]),
                ..OperationModel::default()
            }]),
        };
        let model = PolicyModel {
            issuers: vec![IssuerModel { name: "gitlab".into(), slots: vec![vec!["project_id".into()]] }],
            guards: vec![GuardModel {
                id: "sales/g".into(),
                mode: Mode::Enforce,
                ports: None,
                audiences: Some(vec!["https://orders.example".into()]),
            }],
            directories: vec![],
            rules: (0..rules).map(|at| rule(at).into()).collect(),
        };
        Ok(Box::new(Self {
            policy: PolicySet::decode(&encode(&model)?)?,
            directories: Directories::default(),
            token: VerifiedToken {
                audiences: vec!["https://orders.example".into()],
                expires_at: 2_000,
                slots: vec![ClaimValue::String(String::new())],
            },
        }))
    }
}

impl Engine for Tidegate {
    fn name(&self) -> &'static str {
        "tidegate"
    }

    fn allows(&mut self, asked: &Asked) -> bool {
        // Tokens come verified from a cache; copying the claim stands for that.
        if let Some(ClaimValue::String(claim)) = self.token.slots.first_mut() {
            claim.clear();
            claim.push_str(&asked.project);
        }
        let path = normal::path(asked.path.as_bytes());
        let host = normal::host(asked.host.as_bytes());
        let tokens = [TokenState::Verified(&self.token)];
        let request = Request {
            now: 1_000,
            expiry_grace_s: 0,
            port: 8080,
            method: asked.method.as_bytes(),
            host: host.as_deref(),
            path: &path,
            query: &[],
            headers: HeaderFacts::default(),
            fields: &[],
            body: tidegate_engine::Body::Unread,
            peer: Peer::Mesh {
                trust_domain: "prod.example",
                namespace: "etl",
                service_account: &asked.account,
            },
            tokens: &tokens,
            directories: &self.directories,
        };
        decide(&self.policy, &request).outcome == Outcome::Allow
    }
}
