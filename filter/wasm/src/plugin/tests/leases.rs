//! What was allowed is ended when it is not allowed any more.

use std::cell::RefCell;

use tidegate_engine::model::{Lease as RuleLease, Mode, OnExpiry, PolicyModel, RuleModel};
use tidegate_identity::{IssuerSpec, Revoked, RevokedKind};

use super::*;

/// What the control plane pushes, one after the other.
struct World {
    plugin: Plugin,
    host: Fake,
    counter: u64,
}

impl World {
    /// Callers need a token, and this changes the rule.
    fn new(change: impl FnOnce(&mut RuleModel)) -> Self {
        let host = request("/v1/orders").with_peer(WORKER);
        let mut world = Self { plugin: waiting(""), host, counter: 4 };
        world.plugin.on_opened(3, &world.host);
        world.push(&token_model(change), oauth(&[("a", 7)]));
        world
    }

    fn push(&mut self, model: &PolicyModel, issuer: IssuerSpec) {
        self.counter += 1;
        let sections = vec![rules_of(model), keys_section(issuer)];
        let mut statement = manifest(self.counter, &sections);
        statement.issued_at = i64::try_from(self.host.now_ms.get() / 1_000).unwrap();
        statement.not_after = statement.issued_at + 10;
        let bundle = pb::Bundle { manifest: Some(signed(&statement, 1, "k1")), sections };
        deliver(&mut self.plugin, &bundle, self.counter, &self.host);
        let enforced = self.plugin.installed().unwrap().manifest.revision;
        assert_eq!(enforced, (1, self.counter), "{:?}", self.host.logged.borrow());
    }

    /// A request with a token that is valid for so many seconds.
    fn begin(&mut self, context: u32, seconds: i64) -> Verdict {
        let now = i64::try_from(self.host.now_ms.get() / 1_000).unwrap();
        let token = token("a", 7, now + seconds, &context.to_string());
        let host = bearing(&token);
        host.now_ms.set(self.host.now_ms.get());
        self.plugin.on_request(context, true, &host)
    }

    /// Time passes, and the tick comes: which requests are ended, with what.
    fn tick(&mut self, seconds: u64) -> Vec<(u32, u16)> {
        self.host.wait(seconds * 1_000);
        self.plugin.on_tick(&self.host);
        self.ended()
    }

    fn ended(&mut self) -> Vec<(u32, u16)> {
        let ended = self.plugin.due(&self.host, |_| true);
        let ended: Vec<_> = ended.iter().map(|(context, verdict)| (*context, status(verdict))).collect();
        assert!(ended.iter().all(|(context, _)| self.plugin.leases.contexts().all(|live| live != *context)));
        ended
    }
}

fn on_expiry(on_expiry: OnExpiry, grace_s: u32) -> impl FnOnce(&mut RuleModel) {
    move |rule| rule.lease = RuleLease { on_expiry, grace_s }
}

#[test]
fn a_stream_ends_when_its_token_expires_and_not_before() {
    let mut world = World::new(|_| {});
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    assert_eq!(world.begin(2, 90), Verdict::Continue);
    assert_eq!(world.tick(59), []);
    assert_eq!(world.tick(1), [(1, 401)]);
    assert_eq!(world.tick(29), []);
    assert_eq!(world.tick(1), [(2, 401)]);
    assert_eq!(world.tick(1_000), []);
    assert_eq!(world.plugin.counters.total(Metric::LeasesEnded), 2);
}

#[test]
fn a_tolerated_difference_of_clocks_is_tolerated_on_streams_too() {
    let mut world = World::new(|_| {});
    let mut issuer = oauth(&[("a", 7)]);
    issuer.skew_s = 30;
    world.push(&token_model(|_| {}), issuer);
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    assert_eq!(world.tick(89), []);
    assert_eq!(world.tick(1), [(1, 401)]);
}

#[test]
fn a_rule_may_give_grace_or_keep_streams_but_lets_no_expired_token_in() {
    let mut world = World::new(on_expiry(OnExpiry::Reset, 30));
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    assert_eq!(world.tick(89), []);
    assert_eq!(status(&world.begin(2, -1)), 401);
    assert_eq!(world.tick(1), [(1, 401)]);

    let mut world = World::new(on_expiry(OnExpiry::Keep, 0));
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    assert_eq!(world.tick(100_000), []);
    assert_eq!(status(&world.begin(2, -1)), 401);
}

#[test]
fn a_stream_ends_when_its_rule_does_and_when_a_token_is_too_old() {
    use tidegate_engine::model::{Condition, Operand, Relation};
    let began = World::new(|_| {}).host.now_ms.get() / 1_000;
    let began = i64::try_from(began).unwrap();
    let before = |clock: Operand| Condition::Compare(clock, Relation::Less, Operand::Integer(began + 30));
    for lease in [OnExpiry::Reset, OnExpiry::Keep] {
        let mut world = World::new(|rule| {
            rule.lease = RuleLease { on_expiry: lease, grace_s: 0 };
            rule.from[0].condition = before(Operand::Now);
        });
        assert_eq!(world.begin(1, 600), Verdict::Continue);
        assert_eq!(world.tick(29), []);
        assert_eq!(world.tick(1), [(1, 403)], "{lease:?}");
    }
    // A token that has become too old is as one that has expired: there may be grace.
    let mut world = World::new(|rule| {
        rule.lease = RuleLease { on_expiry: OnExpiry::Reset, grace_s: 10 };
        rule.from[0].condition = before(Operand::TokenClock);
    });
    assert_eq!(world.begin(1, 600), Verdict::Continue);
    assert_eq!(world.tick(39), []);
    assert_eq!(status(&world.begin(2, 600)), 403);
    assert_eq!(world.tick(1), [(1, 403)]);
}

#[test]
fn a_changed_rule_ends_what_it_no_longer_allows_at_once_kept_or_not() {
    for lease in [OnExpiry::Reset, OnExpiry::Keep] {
        let mut world = World::new(on_expiry(lease, 0));
        assert_eq!(world.begin(1, 600), Verdict::Continue);
        world.host.wait(1_000);
        world.push(&token_model(on_expiry(lease, 0)), oauth(&[("a", 7)]));
        assert_eq!(world.ended(), [], "the same rule");
        world.push(&token_model(|rule| rule.mode = Mode::Shadow), oauth(&[("a", 7)]));
        assert_eq!(world.ended(), [(1, 403)]);
    }
}

#[test]
fn a_removed_key_and_a_revocation_end_streams_kept_or_not_and_expired_or_not() {
    let revoked = |kind, value: &str| {
        let mut issuer = oauth(&[("a", 7)]);
        issuer.revoked = vec![Revoked { kind, value: value.to_owned(), until: 0 }];
        issuer
    };
    for issuer in [
        oauth(&[("b", 8)]),
        oauth(&[("a", 8)]),
        revoked(RevokedKind::Subject, "worker-1"),
        revoked(RevokedKind::Token, "1"),
        revoked(RevokedKind::Key, "a"),
    ] {
        for seconds in [10, 100] {
            let mut world = World::new(on_expiry(OnExpiry::Keep, 0));
            assert_eq!(world.begin(1, 60), Verdict::Continue);
            assert_eq!(world.tick(seconds), []);
            world.push(&token_model(on_expiry(OnExpiry::Keep, 0)), oauth(&[("a", 7), ("c", 9)]));
            assert_eq!(world.ended(), [], "another key comes");
            world.push(&token_model(on_expiry(OnExpiry::Keep, 0)), issuer.clone());
            assert_eq!(world.ended(), [(1, 401)], "{issuer:?} after {seconds} s");
        }
    }
    // Somebody else's revocation.
    let mut world = World::new(|_| {});
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    world.push(&token_model(|_| {}), revoked(RevokedKind::Subject, "worker-2"));
    assert_eq!(world.ended(), []);
}

#[test]
fn a_stream_ends_with_the_keys_and_the_issuer_that_it_rests_on_kept_or_not() {
    for lease in [OnExpiry::Reset, OnExpiry::Keep] {
        for of_keys in [true, false] {
            let mut world = World::new(|_| {});
            let now = i64::try_from(world.host.now_ms.get() / 1_000).unwrap();
            let mut issuer = oauth(&[("a", 7)]);
            match of_keys {
                true => issuer.valid_until = now + 99,
                false => issuer.retire_at = now + 100,
            }
            world.push(&token_model(on_expiry(lease, 0)), issuer);
            assert_eq!(world.begin(1, 600), Verdict::Continue);
            assert_eq!(world.tick(99), []);
            assert_eq!(world.tick(1), [(1, 401)], "{lease:?}, keys: {of_keys}");
        }
    }
}

#[test]
fn a_rule_that_keeps_no_longer_ends_what_has_expired_meanwhile() {
    let mut world = World::new(on_expiry(OnExpiry::Keep, 0));
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    assert_eq!(world.tick(100), []);
    world.push(&token_model(|_| {}), oauth(&[("a", 7)]));
    assert_eq!(world.ended(), []);
    assert_eq!(world.tick(1), [(1, 401)]);
}

#[test]
fn what_needs_no_token_is_ended_by_rules_alone() {
    let mut plugin = ready();
    let host = request("/v1/orders").with_peer(WORKER);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    host.wait(100_000_000);
    assert_eq!(plugin.due(&host, |_| true), []);
}

#[test]
fn what_passed_unguarded_is_ended_when_a_guard_comes() {
    let mut statement = manifest(4, &[]);
    statement.coverage = pb::Coverage::Unguarded.into();
    let open = pb::Bundle { manifest: Some(signed(&statement, 1, "k1")), sections: vec![] };
    let host = request("/anything");
    let config = Config::parse(&config(&format!("{STREAM}{}", warm(&open)))).unwrap();
    let mut plugin = Plugin::new(config, "pod".into(), &host, None);
    plugin.on_opened(3, &host);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    assert_eq!(plugin.on_request(2, true, &request("/v1/orders").with_peer(WORKER)), Verdict::Continue);
    deliver(&mut plugin, &bundle(5), 9, &host);
    let ended = plugin.due(&host, |_| true);
    assert_eq!(ended.iter().map(|(context, _)| *context).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_port_that_mattered_to_no_rule_before_is_asked_for_when_it_does() {
    for (port, ended) in [(8080i64, 0), (9090, 1)] {
        let mut world = World::new(|_| {});
        assert_eq!(world.begin(1, 60), Verdict::Continue);
        let host = request("/").with_property("destination\0port", &port.to_le_bytes());
        world.host = host;
        let ports = |rule: &mut RuleModel| {
            for operation in rule.to.iter_mut().flatten() {
                operation.ports = Some(vec![8080]);
            }
        };
        world.push(&token_model(ports), oauth(&[("a", 7)]));
        assert_eq!(world.ended().len(), ended, "{port}");
    }
    // Where the proxy does not tell it, nothing goes on.
    let mut world = World::new(|_| {});
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    let mut model = token_model(|_| {});
    model.guards[0].ports = Some(vec![8080]);
    world.push(&model, oauth(&[("a", 7)]));
    assert_eq!(world.ended(), [(1, 503)]);
}

#[test]
fn requests_that_ended_by_themselves_are_forgotten() {
    let mut world = World::new(|_| {});
    for context in 1..=3 {
        assert_eq!(world.begin(context, 60), Verdict::Continue);
    }
    world.plugin.forget(2);
    let selected = RefCell::new(Vec::new());
    world.host.wait(60_000);
    let ended = world.plugin.due(&world.host, |context| {
        selected.borrow_mut().push(context);
        // The proxy knows this one no more.
        context != 3
    });
    assert_eq!(ended.iter().map(|(context, _)| *context).collect::<Vec<_>>(), [1]);
    assert_eq!(*selected.borrow(), [3, 1]);
    assert!(world.plugin.leases.contexts().next().is_none());
}

#[test]
fn many_are_looked_at_in_slices_and_refused_requests_are_not_kept() {
    const MANY: u32 = 10_000;
    let mut plugin = Plugin::new(
        Config::parse(&config(&format!("{STREAM}{}", warm(&bundle(5))))).unwrap(),
        "pod".into(),
        &request("/"),
        None,
    );
    let host = request("/v1/orders").with_peer(WORKER);
    plugin.on_opened(3, &host);
    for context in 0..MANY {
        assert_eq!(plugin.on_request(context, true, &host), Verdict::Continue);
    }
    assert_eq!(status(&plugin.on_request(MANY, true, &request("/v2").with_peer(WORKER))), 403);
    assert_eq!(plugin.leases.contexts().count(), 10_000);
    let mut closed = model();
    closed.rules[0].mode = Mode::Shadow;
    deliver(&mut plugin, &bundle_of(6, vec![rules_of(&closed)]), 9, &host);
    let mut slices = Vec::new();
    while plugin.tick_ms() == 1 {
        slices.push(plugin.due(&host, |_| true).len());
    }
    assert_eq!(slices.iter().sum::<usize>(), 10_000);
    assert!(slices.iter().all(|ended| *ended <= 128), "more overflow the proxy's stack: {slices:?}");
}

#[test]
fn what_expires_with_an_overrun_budget_is_still_looked_at() {
    let mut world = World::new(on_expiry(OnExpiry::Keep, 0));
    assert_eq!(world.begin(1, 60), Verdict::Continue);
    let at_ms = world.host.now_ms.get();
    for connection in 0..10_000 {
        let _ = world.plugin.budget.borrow_mut().charge(connection, 2_000, at_ms);
    }
    // Another key: the token has to be verified anew.
    world.push(&token_model(on_expiry(OnExpiry::Keep, 0)), oauth(&[("a", 7), ("b", 8)]));
    assert_eq!(world.ended(), []);
    assert_eq!(status(&world.begin(2, 60)), 429);
}

#[test]
fn ticks_come_often_while_a_request_waits() {
    let mut world = World::new(|_| ());
    assert_eq!(world.plugin.tick_ms(), 1_000);
    let unknown = bearing(&token("new", 9, NOW + 600, "1"));
    assert_eq!(world.plugin.on_request(1, true, &unknown), Verdict::Hold);
    assert_eq!(world.plugin.tick_ms(), 100);
    world.plugin.forget(1);
    assert_eq!(world.plugin.tick_ms(), 1_000);
}
