//! A plugin that knows requests again does what one does that decides each.

use tidegate_engine::model::{
    Audit, Condition, Effect, Mode, Operand, PolicyModel, Relation, SegmentPattern, TextTest,
};
use tidegate_identity::TokenHeader;

use super::*;

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.below(u64::try_from(count).unwrap())).unwrap()
    }

    fn one(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.one_of(choices.len())]
    }
}

/// Whom the rule allows, and what.
fn policy(random: &mut Random) -> PolicyModel {
    let mut model = if random.below(4) == 0 { model() } else { token_model(|_| ()) };
    let path = random.one(&["v1", "v1", "v1", "v2"]);
    let rule = &mut model.rules[0];
    rule.to.as_mut().unwrap()[0].paths.as_mut().unwrap()[0].segments[0] =
        SegmentPattern::Literal(path.into());
    rule.audit = if random.below(8) == 0 { Audit::Full } else { Audit::Sampled };
    model
}

/// Everything that a plugin has counted.
fn counted(plugin: &mut Plugin) -> String {
    let totals: Vec<u64> = Metric::ALL.iter().map(|metric| plugin.counters.total(*metric)).collect();
    let contexts: std::collections::BTreeSet<u32> = plugin.leases.contexts().collect();
    let rules = plugin.installed().and_then(|installed| installed.rules.clone());
    let uses = plugin.uses.tell(rules.as_deref(), u64::MAX / 2);
    let State::Ready(enforcer) = &mut plugin.state else { return format!("{totals:?}") };
    let usage: Vec<_> = enforcer.usage().map(|(_, usage)| usage).collect();
    let keys = enforcer.take_key_uses(true);
    format!("{totals:?} {contexts:?} {usage:?} {keys:?} {uses:?}")
}

type Made = (Vec<(&'static str, String)>, &'static str, bool);

/// A request: headers, peer, and whether no body follows.
fn made_up(random: &mut Random, tokens: &[String]) -> Made {
    let paths = ["/v1/orders", "/v1/orders", "/v1/orders", "/v2/x", "/v1/%2e", "/v1/a?b"];
    let hosts = ["orders.example", "orders.example", "orders.example", "other.example"];
    let mut headers = vec![
        (":method", random.one(&["GET", "GET", "GET", "GET", "POST"]).to_owned()),
        (":path", random.one(&paths).to_owned()),
        (":authority", random.one(&hosts).to_owned()),
        ("x-request-id", String::new()),
    ];
    if random.below(8) != 0 {
        headers.push(("authorization", format!("Bearer {}", tokens[random.one_of(tokens.len())])));
    }
    if random.below(10) == 0 {
        let odd = ["x-http-method-override", "x-tidegate-interlock", "authorization", "x_request_id"];
        headers.push((random.one(&odd), "GET".to_owned()));
    }
    if random.below(3) != 0 {
        // What most rules allow.
        for (at, plain) in ["GET", "/v1/orders", "orders.example"].into_iter().enumerate() {
            headers[at].1 = plain.to_owned();
        }
        headers.truncate(4);
        headers.push(("authorization", format!("Bearer {}", tokens[random.one_of(3)])));
        return (headers, WORKER, random.below(4) != 0);
    }
    let peer = random.one(&[WORKER, WORKER, WORKER, "spiffe://prod.example/ns/etl/sa/other", ""]);
    (headers, peer, random.below(4) != 0)
}

fn known(plugin: &Plugin) -> u32 {
    match &plugin.state {
        State::Ready(enforcer) => enforcer.known(),
        State::NotReady | State::Invalid => 0,
    }
}

#[test]
fn requests_that_are_known_again_are_decided_as_if_they_were_not() {
    let mut found = 0;
    for seed in 1..=8 {
        let mut random = Random(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
        let clock = request("/");
        let interlock = ", \"interlock\": \"0123456789abcdef0123456789abcdef\"";
        let mut plugins = [waiting(interlock), waiting(interlock)];
        for plugin in &mut plugins {
            plugin.on_opened(3, &clock);
            plugin.on_sink_opened(4);
        }
        let mut counter = 4;
        let tokens: Vec<String> =
            (0..4).map(|at| token("a", 7, NOW + 60 + at * 60, &at.to_string())).collect();
        // And one that another key has signed.
        let tokens = [tokens, vec![token("a", 8, NOW + 4_000, "other")]].concat();
        let mut last = None;
        for step in 0..1_500_u32 {
            clock.wait(random.below(220));
            if random.below(400) == 0 {
                clock.now_ms.set(clock.now_ms.get() - 3_000);
            }
            if step == 0 || random.below(150) == 0 {
                counter += 1;
                let model = policy(&mut random);
                let keys = if random.below(10) == 0 { [("a", 8)] } else { [("a", 7)] };
                let sections = vec![rules_of(&model), keys_section(oauth(&keys))];
                let now = i64::try_from(clock.now_ms.get() / 1_000).unwrap();
                let suspended_until = if random.below(10) == 0 { now + 20 } else { 0 };
                let manifest = pb::Manifest {
                    issued_at: now,
                    not_after: now + 60,
                    suspended_until,
                    ..manifest(counter, &sections)
                };
                let bundle = pb::Bundle { manifest: Some(signed(&manifest, 1, "k1")), sections };
                for plugin in &mut plugins {
                    deliver(plugin, &bundle, counter, &clock);
                    assert_eq!(plugin.installed().unwrap().manifest.revision, (1, counter));
                }
            }
            let second = clock.now_ms.get() / 1_000;
            // Ticks may be late.
            if plugins[0].second != i64::try_from(second).unwrap() && random.below(4) != 0 {
                let ended = plugins.each_mut().map(|plugin| {
                    plugin.on_tick(&clock);
                    let ended = plugin.due(&clock, |_| true);
                    plugin.take_messages();
                    let batches = plugin.take_batches();
                    for _ in &batches {
                        plugin.on_acknowledged(&[]);
                    }
                    (
                        ended
                            .iter()
                            .map(|(context, verdict)| (*context, status(verdict)))
                            .collect::<Vec<_>>(),
                        batches,
                    )
                });
                assert_eq!(ended[0], ended[1], "seed {seed}, step {step}");
            }
            // Mostly one like an earlier one, so that something is known again.
            let id = format!("{:036}", random.below(1 << 40));
            let (mut headers, peer, is_whole) = match random.below(12) {
                0 => made_up(&mut random, &tokens),
                _ => last.take().unwrap_or_else(|| made_up(&mut random, &tokens)),
            };
            headers[3].1.clone_from(&id);
            last = Some((headers.clone(), peer, is_whole));
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            let chance = if random.below(10) == 0 { 100 } else { 101 };
            let [one, other] = plugins.each_mut().map(|plugin| {
                let host = Fake::with_headers(&headers);
                let host = if peer.is_empty() { host } else { host.with_peer(peer) };
                host.now_ms.set(clock.now_ms.get());
                host.drawn.set(Some(chance));
                let before = known(plugin);
                let verdict = plugin.on_request(step, is_whole, &host);
                let (removed, set) = (host.removed.borrow(), host.set.borrow());
                let said = format!("{} {} {removed:?} {set:?}", status(&verdict), reason(&verdict));
                (said, known(plugin) - before, host.calls.get())
            });
            assert_eq!(one.0, other.0, "seed {seed}, step {step}: {headers:?} of {peer}");
            assert_eq!(
                (one.2, other.1),
                (other.2, 0),
                "as many calls, and the second one knows nothing again"
            );
            found += one.1;
            if let State::Ready(enforcer) = &mut plugins[1].state {
                enforcer.forget_alike();
            }
            let gone = u32::try_from(random.below(u64::from(step) + 1)).unwrap();
            for plugin in &mut plugins {
                plugin.forget(gone);
            }
        }
        let [one, other] = plugins.each_mut().map(counted);
        assert_eq!(one, other, "seed {seed}");
    }
    assert!(found > 3_000, "{found}");
}

/// A plugin that enforces this for an hour and more.
fn enforcing(model: &PolicyModel, issuer: tidegate_identity::IssuerSpec) -> Plugin {
    let bundle = bundle_of(5, vec![rules_of(model), keys_section(issuer)]);
    Plugin::new(Config::parse(&config(&warm(&bundle))).unwrap(), "pod".into(), &request("/"), None)
}

/// A request of the worker with a token in this header, and with this one besides.
fn with_headers(token: (&str, &str), other: (&str, &str)) -> Fake {
    let headers =
        [(":method", "GET"), (":path", "/v1/orders"), (":authority", "orders.example"), token, other];
    Fake::with_headers(&headers).with_peer(WORKER)
}

#[test]
fn a_header_that_a_rule_or_an_issuer_reads_is_read_of_each() {
    let bearer = format!("Bearer {}", token("a", 7, NOW + 600, "1"));
    let good = ("authorization", bearer.as_str());
    let trace = |value| with_headers(good, ("x-client-trace-id", value));
    let mut plugin = enforcing(&token_model(|_| {}), oauth(&[("a", 7)]));
    for (times, value) in [(4, "v1"), (1, "v2")] {
        (0..times).for_each(|id| assert_eq!(plugin.on_request(id, true, &trace(value)), Verdict::Continue));
    }
    assert_eq!(known(&plugin), 3, "nobody reads it");

    let is_v1 =
        Condition::Text(Operand::Header("x-client-trace-id".into()), TextTest::OneOf(vec!["v1".into()]));
    let model = token_model(|rule| rule.to.as_mut().unwrap()[0].condition = is_v1);
    let mut plugin = enforcing(&model, oauth(&[("a", 7)]));
    (0..4).for_each(|id| assert_eq!(plugin.on_request(id, true, &trace("v1")), Verdict::Continue));
    assert_eq!(status(&plugin.on_request(5, true, &trace("v2"))), 403);

    let mut issuer = oauth(&[("a", 7)]);
    issuer.headers = vec![TokenHeader { name: "x-client-trace-id".into(), prefix: None }];
    let mut plugin = enforcing(&token_model(|_| {}), issuer);
    let bringing = |token: &str| with_headers(("x-client-trace-id", token), ("x-more", "1"));
    let good = token("a", 7, NOW + 600, "1");
    (0..4).for_each(|id| assert_eq!(plugin.on_request(id, true, &bringing(&good)), Verdict::Continue));
    let forged = token("a", 8, NOW + 600, "1");
    assert_eq!(forged.len(), good.len());
    assert_eq!(status(&plugin.on_request(5, true, &bringing(&forged))), 401);
}

#[test]
fn a_rule_in_shadow_that_reads_the_time_is_asked_for_each() {
    let mut model = token_model(|_| {});
    let mut late = model.rules[0].clone();
    late.id = "sales/late".into();
    (late.effect, late.mode) = (Effect::Deny, Mode::Shadow);
    let later = Condition::Compare(Operand::Integer(NOW + 29), Relation::Less, Operand::Now);
    late.from[0].condition = later;
    model.rules.push(late);
    let mut plugin = enforcing(&model, oauth(&[("a", 7)]));
    let host = bearing(&token("a", 7, NOW + 600, "1"));
    let mut differences = Vec::new();
    for id in 0..8 {
        assert_eq!(plugin.on_request(id, true, &host), Verdict::Continue);
        differences.push(plugin.counters.total(Metric::ShadowDifferences));
        host.wait(if id == 3 { 30_000 } else { 0 });
    }
    assert_eq!(differences, [0, 0, 0, 0, 1, 2, 3, 4]);
}
