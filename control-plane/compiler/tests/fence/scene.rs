//! Policies, and requests that are aimed at their rules: by chance alone, few requests are allowed.

use super::*;
use generate::SEGMENTS;
use tidegate_engine::VerifiedToken;

/// Policies of which many rules have neither tokens nor conditions, with a Guard that often names its ports.
pub fn models() -> impl Strategy<Value = PolicyModel> {
    (policy(), prop::collection::vec(any::<u8>(), 12), 0u8..4).prop_map(|(model, dice, guard)| {
        let mut model = with_colons(model);
        for (rule, die) in model.rules.iter_mut().zip(dice) {
            if die & 3 != 0 {
                for from in &mut rule.from {
                    from.issuers.clear();
                    from.condition = Condition::True;
                }
                for operation in rule.to.iter_mut().flatten() {
                    operation.condition = Condition::True;
                }
            }
            if die & 4 != 0 {
                rule.mode = Mode::Enforce;
            }
            if die & 24 != 0 && rule.effect == Effect::Deny {
                // A Deny of everything would leave nothing to look at.
                rule.to.get_or_insert_with(|| vec![OperationModel::default()]).truncate(1);
                rule.revokes = false;
                rule.from.truncate(1);
            }
        }
        let ports = match guard {
            0 => None,
            1 => Some(vec![8080]),
            _ => Some(vec![8080, 9090]),
        };
        if guard != 3 {
            model.guards =
                vec![GuardModel { id: "sales/g".into(), mode: Mode::Enforce, ports, audiences: None }];
        }
        model
    })
}

/// `x` in paths is `x:y`, which clients send in several spellings.
fn with_colons(mut model: PolicyModel) -> PolicyModel {
    for rule in &mut model.rules {
        for path in rule.to.iter_mut().flatten().filter_map(|operation| operation.paths.as_mut()).flatten() {
            for segment in &mut path.segments {
                if *segment == SegmentPattern::Literal("x".to_owned()) {
                    *segment = SegmentPattern::Literal("x:y".to_owned());
                }
            }
        }
    }
    model
}

/// How a request is aimed and spelled.
#[derive(Debug, Clone)]
pub struct Aim {
    sent: Sent,
    picks: [usize; 6],
    aimed: bool,
    port: &'static str,
    upper: bool,
    encoded: Option<usize>,
}

pub fn aims(most: usize) -> impl Strategy<Value = Vec<Aim>> {
    let aim = (
        sent(),
        prop::array::uniform6(0usize..12),
        prop::bool::weighted(0.8),
        select(vec!["", "", "", ":8080", ".", ".:443", ":0"]),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.5, 0usize..24),
    );
    let aim = aim.prop_map(|(sent, picks, aimed, port, upper, encoded)| Aim {
        sent,
        picks,
        aimed,
        port,
        upper,
        encoded,
    });
    prop::collection::vec(aim, 1..most)
}

impl Aim {
    /// The request, aimed at one of these policies' rules.
    pub fn at(&self, models: &[&PolicyModel]) -> Call {
        let mut sent = self.sent.clone();
        sent.path = sent.path.replace("/x", "/x:y");
        let rules: Vec<&RuleModel> = models
            .iter()
            .flat_map(|model| model.rules.iter().map(|rule| &**rule))
            .filter(|rule| rule.mode == Mode::Enforce && (rule.effect == Effect::Allow || self.picks[5] < 4))
            .collect();
        if self.aimed && !rules.is_empty() {
            self.aim(rules[self.picks[0] % rules.len()], &mut sent);
        }
        let mut authority = sent.host.clone().unwrap_or_else(|| "a b".to_owned());
        if self.upper {
            authority = authority.to_ascii_uppercase();
        }
        authority.push_str(self.port);
        let mut path = sent.path.clone();
        if let Some(at) = self.encoded.map(|at| at % path.len().max(1))
            && let Some(byte) = path.as_bytes().get(at).copied().filter(|byte| *byte != b'/' && *byte != b'%')
            && !path[..at].ends_with('%')
            && !path[..at.saturating_sub(1)].ends_with('%')
        {
            let digits = if self.upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
            path.replace_range(at..=at, &digits);
        }
        Call { sent, authority, path }
    }

    fn aim(&self, rule: &RuleModel, sent: &mut Sent) {
        let pick = |at: usize, length: usize| self.picks[at] % length.max(1);
        sent.headers = tidegate_engine::HeaderFacts { grpc: true, overrides: false, duplicates: false };
        let from = &rule.from[pick(1, rule.from.len())];
        match &from.peer {
            PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
                let account = service_accounts.as_ref().map_or("other", |all| &all[pick(2, all.len())]);
                sent.peer = Some((trust_domain.clone(), namespace.clone(), account.to_owned()));
            }
            PeerModel::AnyMesh { trust_domain } => {
                sent.peer = Some((trust_domain.clone(), "any".to_owned(), "any".to_owned()));
            }
            PeerModel::NoPeer => sent.peer = None,
            PeerModel::Anyone => {}
        }
        let any = OperationModel::default();
        let operations = rule.to.as_deref().unwrap_or_default();
        let operation = operations.get(pick(3, operations.len())).unwrap_or(&any);
        if let Some(ports) = &operation.ports {
            sent.port = ports[pick(2, ports.len())];
        }
        if let Some(methods) = &operation.methods {
            sent.method = methods[pick(2, methods.len())].clone();
        }
        match operation.hosts.as_ref().map(|hosts| &hosts[pick(4, hosts.len())]) {
            None => sent.host = Some("orders.example".to_owned()),
            Some(HostPattern::Exact(name)) => sent.host = Some(name.clone()),
            Some(HostPattern::Suffix(suffix)) => sent.host = Some(format!("a.b{suffix}")),
        }
        if let Some(paths) = &operation.paths {
            sent.path = self.path(&paths[pick(4, paths.len())]);
        }
        let host = sent.host.clone().unwrap_or_default();
        let token = Token::Verified(VerifiedToken {
            audiences: vec![host, "https://orders.example".to_owned()],
            expires_at: 2000,
            slots: vec![tidegate_engine::ClaimValue::String("4711".to_owned()); 2],
        });
        sent.tokens = vec![Token::Absent, Token::Absent];
        for issuer in &from.issuers {
            sent.tokens[usize::from(*issuer)] = token.clone();
        }
    }

    fn path(&self, pattern: &PathPattern) -> String {
        let mut text = String::new();
        for (at, segment) in pattern.segments.iter().enumerate() {
            let pick = self.picks[(at + 2) % 6];
            match segment {
                SegmentPattern::Literal(literal) => text.push_str(&format!("/{literal}")),
                SegmentPattern::One => {
                    text.push_str(&format!("/{}", ["7", "a:b", "a%20b", SEGMENTS[pick % 4]][pick % 4]))
                }
                SegmentPattern::Glob(glob) => {
                    let text_of = glob.replace('*', ["", "7", "a:b", "-"][pick % 4]);
                    text.push_str(&format!("/{}", if text_of.is_empty() { "7" } else { &text_of }));
                }
                SegmentPattern::Rest => text.push_str(["", "/", "/x", "/v1/a:b", "/a/b/"][pick % 5]),
            }
        }
        if text.is_empty() { "/".to_owned() } else { text }
    }
}

/// Most requests that are aimed are allowed, and every kind of spelling is among them: without that, nothing is tested.
#[test]
fn enough_is_allowed_and_denied() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut allowed, mut encoded, mut ported, mut denied, mut sent) = (0, 0, 0, 0, 0);
    for _ in 0..192 {
        let model = models().new_tree(&mut runner).unwrap().current();
        let policy = decoded(&model);
        let made = objects(&fence(&compiled(&model, &[]), &options(false)));
        for aim in aims(8).new_tree(&mut runner).unwrap().current() {
            let call = aim.at(&[&model]);
            sent += 1;
            let seen = call.seen(Normalization::Base, None);
            denied += usize::from(
                made.iter().any(|object| object["spec"]["action"] == "DENY" && denied_by(object, &seen)),
            );
            if !made.is_empty() && call.outcomes(&policy, Normalization::Base).contains(&Outcome::Allow) {
                allowed += 1;
                encoded += usize::from(call.path.contains("%3"));
                ported += usize::from(call.authority.contains(':'));
            }
        }
    }
    println!(
        "{sent} sent, {allowed} allowed, {encoded} of them encoded, {ported} with a port; {denied} denied by Istio"
    );
    assert!(
        allowed * 5 > sent && encoded > 4 && ported > 30 && denied > 20,
        "{allowed} {encoded} {ported} {denied} of {sent}"
    );
}
