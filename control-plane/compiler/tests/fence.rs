//! The Fence against the engine: whatever the filter allows, Istio lets through; whatever Istio denies, the filter refuses.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 256).

#[path = "../../../filter/engine/tests/reference/generate.rs"]
#[allow(dead_code)]
mod generate;
mod istio;

#[path = "fence/again.rs"]
mod again;
#[path = "fence/meshes.rs"]
mod meshes;
#[path = "fence/orders.rs"]
mod orders;
#[path = "fence/scene.rs"]
mod scene;
#[path = "fence/tokens.rs"]
mod tokens;

use std::collections::BTreeMap;

use generate::{Sent, Token, policy, sent};
use istio::{Http, Seen, allows, denied_by};
use proptest::prelude::*;
use proptest::sample::select;
use scene::{aims, models};
use serde_json::Value;
use tidegate_compiler::fence::{
    Aliases, Fence, FenceOptions, INTERLOCK_HEADER, IstioVersion, Normalization, PortProtocol, Surroundings,
    fence, fence_in,
};
use tidegate_compiler::{Compiled, Mesh, Workload, WorkloadId, WorkloadPolicy};
use tidegate_engine::body::FieldValue;
use tidegate_engine::model::*;
use tidegate_engine::{
    Body, Directories, Outcome, Peer, PolicySet, Request, TokenFault, TokenState, decide, encode, normal,
};

fn cases() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

const SECRET: &str = "0123456789abcdef";

fn id() -> WorkloadId {
    WorkloadId { namespace: "sales".to_owned(), name: "orders-api".to_owned() }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "orders-api".to_owned())])
}

/// A mesh of one workload with this policy.
fn compiled(model: &PolicyModel, tcp_ports: &[u16]) -> Compiled {
    let workload = Workload { labels: labels(), service_account: None, gateway: false };
    let policy = WorkloadPolicy {
        covered: !model.guards.is_empty(),
        tcp_ports: tcp_ports.to_vec(),
        model: model.clone(),
        rules: Vec::new(),
        issuers: Vec::new(),
        directories: Vec::new(),
        reads_bodies: false,
        rollout: None,
        is_root_rollout: false,
    };
    Compiled {
        mesh: Mesh {
            trust_domain: "prod.example".to_owned(),
            root_namespace: "istio-system".to_owned(),
            workloads: BTreeMap::from([(id(), workload)]),
        },
        issuers: Vec::new(),
        workloads: BTreeMap::from([(id(), policy.into())]),
    }
}

fn objects(fence: &Fence) -> Vec<Value> {
    fence.workloads.values().flat_map(|workload| &workload.objects).map(|object| object.to_json()).collect()
}

/// A request, how its host and path are spelled, and what the mesh does to paths.
#[derive(Debug, Clone)]
struct Call {
    sent: Sent,
    authority: String,
    path: String,
}

/// What Envoy makes of a path: it decodes what is unreserved.
fn normalised(path: &str, normalization: Normalization) -> String {
    if normalization == Normalization::Off {
        return path.to_owned();
    }
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text.push('%');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

impl Call {
    /// As Istio sees it behind the filter, which has set the interlock.
    fn seen(&self, normalization: Normalization, interlock: Option<&str>) -> Seen {
        let sent = &self.sent;
        let mut headers = sent.fields.clone();
        if sent.headers.grpc {
            headers.push(("content-type".to_owned(), b"application/grpc".to_vec()));
        }
        if sent.headers.overrides {
            headers.push(("x-original-url".to_owned(), b"/admin".to_vec()));
        }
        headers.extend(interlock.map(|secret| (INTERLOCK_HEADER.to_owned(), secret.as_bytes().to_vec())));
        Seen {
            port: sent.port,
            principal: sent
                .peer
                .as_ref()
                .map(|(domain, namespace, account)| format!("spiffe://{domain}/ns/{namespace}/sa/{account}")),
            http: Some(Http {
                method: sent.method.clone(),
                authority: self.authority.clone(),
                path: format!("{}?{}", normalised(&self.path, normalization), sent.query),
                headers,
                claims: None,
            }),
        }
    }

    /// What the filter decides: without a body, and with the one that it has.
    fn outcomes(&self, policy: &PolicySet, normalization: Normalization) -> [Outcome; 3] {
        let sent = &self.sent;
        let path = normalised(&self.path, normalization);
        let path = normal::path(path.as_bytes());
        let host = normal::host(self.authority.as_bytes());
        let tokens: Vec<TokenState<'_>> = sent
            .tokens
            .iter()
            .map(|token| match token {
                Token::Absent => TokenState::Absent,
                Token::Invalid => TokenState::Invalid(TokenFault::BadSignature),
                Token::Verified(token) => TokenState::Verified(token),
            })
            .collect();
        let fields: Vec<(&[u8], &[u8])> =
            sent.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        let directories = Directories::default();
        let all = generate::body_fields();
        let values: Vec<FieldValue> = policy
            .body_fields()
            .iter()
            .map(|field| {
                let at = all.iter().position(|known| known == field);
                at.and_then(|at| sent.body.get(at)).cloned().unwrap_or(FieldValue::Unknown)
            })
            .collect();
        let read = Body::Read { fields: policy.body_fields(), values: &values };
        [Body::Unread, Body::Empty, read].map(|body| {
            let request = Request {
                now: sent.now,
                expiry_grace_s: sent.expiry_grace_s,
                port: sent.port,
                method: sent.method.as_bytes(),
                host: host.as_deref(),
                path: &path,
                query: sent.query.as_bytes(),
                headers: sent.headers,
                fields: &fields,
                body,
                peer: match &sent.peer {
                    None => Peer::Absent,
                    Some((trust_domain, namespace, service_account)) => {
                        Peer::Mesh { trust_domain, namespace, service_account }
                    }
                },
                tokens: &tokens,
                directories: &directories,
            };
            decide(policy, &request).outcome
        })
    }
}

fn decoded(model: &PolicyModel) -> PolicySet {
    PolicySet::decode(&encode(model).expect("the model encodes")).expect("what was encoded decodes")
}

fn normalization() -> impl Strategy<Value = Normalization> {
    select(vec![Normalization::Base, Normalization::Base, Normalization::Off])
}

fn tcp_ports() -> impl Strategy<Value = Vec<u16>> {
    select(vec![vec![], vec![], vec![9090], vec![5432], vec![8080, 9090]])
}

fn without_aliases() -> Surroundings {
    Surroundings { aliases: Aliases::Absent, ..Surroundings::default() }
}

fn options(interlock: bool) -> FenceOptions {
    let secret = interlock.then(|| (id(), SECRET.to_owned()));
    FenceOptions { interlock_secrets: secret.into_iter().collect(), ..FenceOptions::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_the_filter_allows_istio_lets_through(
        model in models(), all in aims(12),
        normalization in normalization(), interlock in any::<bool>(), tcp in tcp_ports(),
    ) {
        let policy = decoded(&model);
        let surroundings = Surroundings { normalization, ..Surroundings::default() };
        let made = fence_in(&compiled(&model, &tcp), &options(interlock), &surroundings);
        let secret = made.workloads[&id()].interlock.as_ref().map(|interlock| interlock.value.as_str());
        let objects = objects(&made);
        for call in all.iter().map(|aim| aim.at(&[&model])) {
            let seen = call.seen(normalization, secret);
            let outcomes = call.outcomes(&policy, normalization);
            if outcomes.contains(&Outcome::Allow) {
                prop_assert!(allows(&objects, &labels(), &seen), "{call:?}\n{seen:?}\n{objects:#?}");
            }
            for object in objects.iter().filter(|object| object["spec"]["action"] == "DENY") {
                if denied_by(object, &seen) {
                    prop_assert!(!outcomes.contains(&Outcome::Allow), "{call:?}\n{object:#}");
                }
            }
        }
    }

    /// Connections that Istio does not read as HTTP pass every HTTP filter by.
    #[test]
    fn no_connection_passes_a_guarded_port_unread(model in models(), tcp in tcp_ports(), one in aims(2)) {
        let guarded = |port: u16| {
            let covers = |guard: &GuardModel| guard.ports.as_ref().is_none_or(|ports| ports.contains(&port));
            model.guards.iter().any(|guard| guard.mode == Mode::Enforce && covers(guard))
        };
        let call = one[0].at(&[&model]);
        let seen = Seen { http: None, ..call.seen(Normalization::Base, None) };
        let made = fence(&compiled(&model, &tcp), &options(false));
        let objects = objects(&made);
        let expected = !guarded(seen.port) || tcp.contains(&seen.port);
        let passes = allows(&objects, &labels(), &seen);
        // Where it passes, a DENY of fewer fields may still stop it.
        prop_assert!(!passes || expected, "port {}: {objects:#?}", seen.port);
        if !passes && expected {
            let denied = objects.iter().any(|object| object["spec"]["action"] == "DENY" && denied_by(object, &seen));
            prop_assert!(denied && guarded(seen.port), "port {}: {objects:#?}", seen.port);
        }
    }

    #[test]
    fn every_object_is_as_istio_wants_it(model in models(), tcp in tcp_ports(), interlock in any::<bool>(), normalization in normalization()) {
        let surroundings = Surroundings { normalization, ..Surroundings::default() };
        let made = fence_in(&compiled(&model, &tcp), &options(interlock), &surroundings);
        for object in objects(&made) {
            let wrong = istio::schema::wrong_with(&object);
            prop_assert!(wrong.is_empty(), "{wrong:?}\n{object:#}");
        }
    }

    #[test]
    fn the_same_rules_make_the_same_bytes_for_every_version(model in models(), seed in any::<usize>()) {
        let mut turned = model.clone();
        let length = turned.rules.len().max(1);
        turned.rules.rotate_left(seed % length);
        turned.guards.reverse();
        let one = fence(&compiled(&model, &[]), &options(false));
        let other = fence(&compiled(&turned, &[]), &options(false));
        prop_assert_eq!(&one, &other);
        for istio in IstioVersion::ALL {
            let made = fence(&compiled(&model, &[]), &FenceOptions { istio, ..options(false) });
            prop_assert_eq!(&made, &one, "{}", istio);
        }
    }

    /// Shadow rules and Shadow Guards never enter.
    #[test]
    fn what_is_in_shadow_changes_no_object(model in models()) {
        let mut enforced = model.clone();
        enforced.rules.retain(|rule| rule.mode == Mode::Enforce);
        enforced.guards.retain(|guard| guard.mode == Mode::Enforce);
        let (with, without) = (fence(&compiled(&model, &[]), &options(true)), fence(&compiled(&enforced, &[]), &options(true)));
        // Where nothing but shadow is left out, the rules are the same; only that the filter is not needed may differ.
        let bare = |fence: &Fence| -> Vec<Value> {
            objects(fence).into_iter().map(|mut object| {
                for rule in object["spec"]["rules"].as_array_mut().into_iter().flatten() {
                    if let Some(when) = rule["when"].as_array_mut() {
                        when.retain(|one| one.get("notValues").is_none());
                    }
                }
                object
            }).collect()
        };
        prop_assert_eq!(bare(&with), bare(&without));
    }

    /// Where it is said that the filter is not needed, Istio alone decides as the filter does.
    #[test]
    fn what_needs_no_filter_is_decided_alike(model in plain(), all in aims(16)) {
        let policy = decoded(&model);
        let made = fence_in(&compiled(&model, &[]), &options(false), &without_aliases());
        if made.workloads[&id()].needs_filter {
            return Ok(());
        }
        for call in all.iter().map(|aim| aim.at(&[&model])).filter(|call| !call.sent.headers.duplicates) {
            let call = Call { sent: Sent { tokens: Vec::new(), ..call.sent.clone() }, ..call };
            let [outcome, ..] = call.outcomes(&policy, Normalization::Base);
            let seen = call.seen(Normalization::Base, None);
            if seen.http.as_ref().is_some_and(|http| normal::host(http.authority.as_bytes()).is_none()) {
                continue;
            }
            prop_assert_eq!(allows(&objects(&made), &labels(), &seen), outcome == Outcome::Allow, "{:?}\n{:#?}", call, objects(&made));
        }
    }

    /// With the interlock, nobody passes without the filter where callers are known by tokens only.
    #[test]
    fn with_the_interlock_nobody_without_a_peer_passes_alone(model in models(), one in aims(2)) {
        let made = fence(&compiled(&model, &[]), &options(true));
        let objects = objects(&made);
        let call = one[0].at(&[&model]);
        let call = Call { sent: Sent { peer: None, ..call.sent.clone() }, ..call };
        let anyone = model.rules.iter().any(|rule| rule.from.iter().any(|from| from.peer == PeerModel::Anyone));
        let everywhere = model.guards.iter().any(|guard| guard.mode == Mode::Enforce && guard.ports.is_none());
        if everywhere && !anyone {
            prop_assert!(!allows(&objects, &labels(), &call.seen(Normalization::Base, None)), "{call:?}\n{objects:#?}");
        }
    }
}

/// Policies that Istio may be able to say.
fn plain() -> impl Strategy<Value = PolicyModel> {
    models().prop_map(|mut model| {
        let open = SegmentPattern::Literal("orders".to_owned());
        model.guards.iter_mut().for_each(|guard| guard.mode = Mode::Enforce);
        model.rules.retain(|rule| rule.effect == Effect::Allow);
        for rule in &mut model.rules {
            rule.mode = Mode::Enforce;
            for from in &mut rule.from {
                from.issuers.clear();
                from.condition = Condition::True;
            }
            rule.from.retain(|from| from.peer != PeerModel::NoPeer);
            for from in &mut rule.from {
                // What Istio makes of several trust domains depends on the mesh.
                if let PeerModel::Mesh { trust_domain, .. } | PeerModel::AnyMesh { trust_domain } =
                    &mut from.peer
                {
                    *trust_domain = "prod.example".to_owned();
                }
            }
            for operation in rule.to.get_or_insert_with(|| vec![OperationModel::default()]) {
                operation.condition = Condition::True;
                (operation.grpc, operation.encoded_slashes, operation.hosts) = (false, false, None);
                operation.methods.get_or_insert_with(|| vec!["GET".to_owned()]);
                let paths =
                    operation.paths.get_or_insert_with(|| vec![PathPattern { segments: vec![open.clone()] }]);
                for segment in paths.iter_mut().flat_map(|path| &mut path.segments) {
                    match segment {
                        SegmentPattern::Literal(text) if !text.contains([':', '%']) => {}
                        _ => *segment = open.clone(),
                    }
                }
            }
        }
        model.rules.retain(|rule| !rule.from.is_empty());
        model.rules.iter_mut().for_each(|rule| rule.audit = Audit::Sampled);
        model
    })
}

#[test]
fn what_is_to_be_recorded_needs_the_filter() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..64 {
        let mut model = plain().new_tree(&mut runner).unwrap().current();
        for (rule, audit) in model.rules.iter_mut().zip([Audit::Full, Audit::Required].into_iter().cycle()) {
            rule.audit = audit;
        }
        let recorded = !model.guards.is_empty() && !model.rules.is_empty();
        let made = fence_in(&compiled(&model, &[]), &options(false), &without_aliases());
        assert!(!recorded || made.workloads[&id()].needs_filter);
    }
}

#[test]
fn some_policies_need_no_filter() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let without = (0..64)
        .filter(|_| {
            let model = plain().new_tree(&mut runner).unwrap().current();
            let guarded = !model.guards.is_empty();
            let made = fence_in(&compiled(&model, &[]), &options(false), &without_aliases());
            guarded && !made.workloads[&id()].needs_filter
        })
        .count();
    assert!(without > 16, "{without}");
}

#[test]
fn guarded_ports_that_are_not_declared_are_noted() {
    let model = PolicyModel {
        guards: vec![GuardModel {
            id: "sales/g".into(),
            mode: Mode::Enforce,
            ports: Some(vec![80, 81, 82, 83]),
            audiences: None,
        }],
        ..PolicyModel::default()
    };
    let declared = BTreeMap::from([
        (80, PortProtocol::Http),
        (81, PortProtocol::Tcp),
        (82, PortProtocol::Undeclared),
        (99, PortProtocol::Tcp),
    ]);
    let surroundings =
        Surroundings { declared_ports: BTreeMap::from([(id(), declared)]), ..Surroundings::default() };
    let made = fence_in(&compiled(&model, &[]), &options(false), &surroundings);
    let notes: Vec<String> = made.workloads[&id()].notes.iter().map(ToString::to_string).collect();
    let about =
        |port: &str| notes.iter().filter(|note| note.starts_with(&format!("port: port {port} "))).count();
    assert_eq!(["80", "81", "82", "83", "99"].map(about), [0, 1, 1, 1, 0], "{notes:#?}");
}
