//! The rules, in Tidegate's form.
//!
//! Rule `i` allows a token of project `i` to GET `/svc<i>/orders/{id}` on one host. [`super::native`] says the same.

use anyhow::Result;
use tidegate_engine::encode;
use tidegate_engine::model::{
    ClaimRef, Condition, Disclosure, Effect, FromModel, GuardModel, HostPattern, IssuerModel, Lease, Mode,
    OperationModel, PathPattern, PeerModel, PolicyModel, RuleModel, SegmentPattern, Test,
};

/// For whom tokens are.
pub const AUDIENCE: &str = "https://orders.sales.example";
/// The host of every request.
pub const HOST: &str = "orders.sales.example";
/// Name of the issuer.
pub const ISSUER: &str = "gitlab";
/// The claim that rules compare.
pub const CLAIM: &str = "project_id";

/// The rules section with this many rules.
pub fn section(rules: usize) -> Result<Vec<u8>> {
    let literal = |text: &str| SegmentPattern::Literal(text.to_owned());
    let rule = |i: usize| {
        let project = Test::OneOf(vec![i.to_string()]);
        let from = FromModel {
            peer: PeerModel::NoPeer,
            issuers: vec![0],
            condition: Condition::Claim(ClaimRef { issuer: 0, slot: 0 }, project),
        };
        let path = PathPattern {
            segments: vec![literal(&format!("svc{i}")), literal("orders"), SegmentPattern::One],
        };
        let operation = OperationModel {
            methods: Some(vec!["GET".into()]),
            hosts: Some(vec![HostPattern::Exact(HOST.into())]),
            paths: Some(vec![path]),
            ..OperationModel::default()
        };
        RuleModel {
            id: format!("sales/rule-{i:06}"),
            effect: Effect::Allow,
            mode: Mode::Enforce,
            owner: "team-billing".into(),
            contact: "#billing-oncall".into(),
            disclosure: Disclosure::Full,
            audit: Default::default(),
            lease: Lease::default(),
            revokes: false,
            from: vec![from],
            to: Some(vec![operation]),
        }
    };
    let model = PolicyModel {
        issuers: vec![IssuerModel { name: ISSUER.into(), slots: vec![vec![CLAIM.into()]] }],
        guards: vec![GuardModel {
            id: "sales/sales".into(),
            mode: Mode::Enforce,
            ports: None,
            audiences: Some(vec![AUDIENCE.into()]),
        }],
        directories: Vec::new(),
        rules: (0..rules).map(|at| rule(at).into()).collect(),
    };
    Ok(encode(&model)?)
}
