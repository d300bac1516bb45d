//! A Guard that is suspended only reports, until the filter's own clock ends it.

use tidegate_engine::model::{Effect, PolicyModel};
use tidegate_identity::{Revoked, RevokedKind};

use super::*;

/// Pushes a Bundle whose Guard is suspended until then.
fn push_suspended(plugin: &mut Plugin, host: &Fake, counter: u64, sections: Vec<pb::Section>, until: i64) {
    let manifest = pb::Manifest { suspended_until: until, ..manifest(counter, &sections) };
    let bundle = pb::Bundle { manifest: Some(signed(&manifest, 1, "k1")), sections };
    deliver(plugin, &bundle, counter, host);
}

fn suspended(sections: Vec<pb::Section>, until: i64) -> (Plugin, Fake) {
    let (mut plugin, host) = (waiting(""), request("/v2/other").with_peer(WORKER));
    plugin.on_opened(3, &host);
    push_suspended(&mut plugin, &host, 5, sections, until);
    (plugin, host)
}

#[test]
fn what_is_refused_passes_until_the_clock_ends_it_and_open_streams_end_then() {
    let (mut plugin, host) = suspended(vec![rules_section()], NOW + 60);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    let allowed = request("/v1/orders").with_peer(WORKER);
    assert_eq!(plugin.on_request(2, true, &allowed), Verdict::Continue);
    let total = |plugin: &Plugin, metric| plugin.counters.total(metric);
    assert_eq!(
        (
            total(&plugin, Metric::Suspended),
            total(&plugin, Metric::ShadowDifferences),
            total(&plugin, Metric::Allowed)
        ),
        (1, 1, 2)
    );
    // The control plane is gone.
    plugin.on_closed(&host);
    host.wait(59_999);
    plugin.on_tick(&host);
    assert_eq!(plugin.due(&host, |_| true), []);
    assert_eq!(plugin.on_request(3, true, &host), Verdict::Continue);
    host.wait(1);
    assert_eq!(status(&plugin.on_request(4, true, &host)), 403);
    plugin.on_tick(&host);
    let ended = plugin.due(&host, |_| true);
    let mut ended: Vec<_> = ended.iter().map(|(context, verdict)| (*context, status(verdict))).collect();
    ended.sort_unstable();
    assert_eq!(ended, [(1, 403), (3, 403)], "what a rule allows goes on");
}

#[test]
fn it_ends_when_the_control_plane_says_so_too() {
    let (mut plugin, host) = suspended(vec![rules_section()], NOW + 60);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue);
    push_suspended(&mut plugin, &host, 6, vec![rules_section()], 0);
    assert_eq!(plugin.due(&host, |_| true).len(), 1);
    assert_eq!(status(&plugin.on_request(2, true, &host)), 403);
}

#[test]
fn a_suspension_that_is_too_long_is_refused_as_a_whole() {
    let most = 8 * 3600 - 10;
    let (plugin, _) = suspended(vec![rules_section()], NOW + most);
    assert!(plugin.installed().is_some());
    let (plugin, host) = suspended(vec![rules_section()], NOW + most + 1);
    assert!(plugin.installed().is_none());
    assert!(
        host.logged.borrow().iter().any(|line| line.contains("longer than 8 hours")),
        "{:?}",
        host.logged
    );
}

#[test]
fn what_is_revoked_stays_refused() {
    let bearing = |key: &str, seed| format!("Bearer {}", token(key, seed, NOW + 600, "1"));
    let sent = |credentials: &[&str]| {
        let mut headers = vec![(":method", "GET"), (":path", "/v2/other"), (":authority", "orders.example")];
        headers.extend(credentials.iter().map(|credential| ("authorization", *credential)));
        Fake::with_headers(&headers).with_peer(WORKER)
    };
    let (revoked, wrong) = (bearing("a", 7), bearing("b", 8));
    for is_revoked in [false, true] {
        let mut issuer = oauth(&[("a", 7)]);
        let key = Revoked { kind: RevokedKind::Key, value: "a".into(), until: 0 };
        issuer.revoked = if is_revoked { vec![key] } else { vec![] };
        let sections = vec![rules_of(&token_model(|_| {})), keys_section(issuer)];
        let (mut plugin, _) = suspended(sections, NOW + 60);
        // A token that fails otherwise may be one that is revoked: sent twice, by a key that nobody knows.
        for credentials in [&[revoked.as_str()][..], &[&revoked, &wrong], &[&revoked, "Bearer x"], &[&wrong]]
        {
            // Refused, or held until it is known whether there is such a key.
            let passes = plugin.on_request(1, true, &sent(credentials)) == Verdict::Continue;
            assert_eq!(passes, !is_revoked, "{credentials:?}");
        }
        assert_eq!(plugin.on_request(2, true, &sent(&[])), Verdict::Continue);
    }

    let deny = |revokes: bool| {
        let mut model: PolicyModel = model();
        let mut rule = model.rules[0].clone();
        // Whatever it is called.
        rule.id = if revokes { "mesh-config/one" } else { "mesh-config/tidegate-revoked-r-1" }.into();
        rule.effect = Effect::Deny;
        rule.to = None;
        // Another Deny that matches comes first.
        let mut first = rule.clone();
        first.id = "a/first".into();
        rule.revokes = revokes;
        model.rules.extend([first, rule]);
        suspended(vec![rules_of(&model)], NOW + 60)
    };
    let (mut plugin, host) = deny(true);
    assert_eq!(status(&plugin.on_request(1, true, &host)), 403);
    // Nor does it pass because something else is wrong with its request as well.
    let ambiguous = request("/v2//other/%2e%2e").with_peer(WORKER);
    assert_eq!(status(&plugin.on_request(2, true, &ambiguous)), 403);
    assert_eq!(
        plugin.on_request(3, true, &request("/v2/other")),
        Verdict::Continue,
        "who is not revoked passes"
    );
    let (mut plugin, host) = deny(false);
    assert_eq!(plugin.on_request(1, true, &host), Verdict::Continue, "other Denies are the Guard's");
}

#[test]
fn what_has_no_rules_yet_refuses_all_the_same() {
    let mut plugin = waiting(", \"coldStart\": {\"holdMs\": 0, \"maxHeld\": 0}");
    assert_eq!(status(&plugin.on_request(1, true, &request("/").with_peer(WORKER))), 503);
}
