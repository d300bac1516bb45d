use tidegate_proto::v1 as pb;

use super::*;
use crate::bundle::{Publisher, Sha256};
use crate::directories::{Directories, Index};
use crate::keys::KeyRing;
use crate::push::{Hub, Lookups, VmKey};
use crate::rules::{AcceptedRules, Environment, Files};
use crate::serve::{InForce, compile_files};

use std::time::Duration;

use crate::control::Kept;

const WORKLOAD: &str = "sales/orders";
/// What is tried.
const REV: &str = "2";
const NOW: i64 = 1_800_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn text(rollout: &str, rule: &str) -> String {
    format!(
        r#"
kind: Mesh
metadata: {{name: prod}}
spec:
  trustDomain: prod.example
  rootNamespace: root
  workloads: [{{namespace: sales, name: orders, labels: {{app: orders}}, serviceAccount: orders}}]
---
kind: Guard
metadata: {{name: sales, namespace: sales}}
spec: {{mode: Enforce, audience: "https://orders.sales.example"{rollout}}}
---
kind: TrustedIssuer
metadata: {{name: gitlab}}
spec: {{issuer: "https://gitlab.example", pack: gitlab, keys: {{jwksUri: "https://gitlab.invalid/keys"}}}}
---
kind: AccessRule
metadata: {{name: etl, namespace: sales}}
spec:
  owner: billing
  effect: Allow
  mode: Enforce
{rule}
"#
    )
}

fn allow(path: &str) -> String {
    format!(
        "  from: [{{peer: {{namespace: etl}}}}]\n  to: [{{http: {{methods: [POST], paths: [\"{path}\"]}}}}]"
    )
}

fn in_force(number: u64, text: &str) -> InForce {
    let files = Files::from([("rules.yaml".to_owned(), text.to_owned())]);
    let compiled = compile_files(&files, &Environment::new());
    let compiled = compiled.output.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics));
    let rules = Arc::new(AcceptedRules { files, environment: Environment::new() });
    let set = RuleSet { number, digest: format!("0123456789digest-{number}"), at: NOW, files: 1, bytes: 1 };
    InForce::new(compiled, rules, set, Instant::now())
}

struct World {
    rollouts: Rollouts,
    hub: Hub,
    publisher: Publisher,
    in_force: Option<InForce>,
    now: i64,
    kept: Kept,
    state: Arc<StateDir>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(folder.path()).unwrap());
        Self {
            rollouts: Rollouts::open(state.clone()).unwrap(),
            hub: Hub::new(Index::new(SECOND)),
            publisher: Publisher::open(state.clone(), NOW).unwrap(),
            in_force: None,
            now: NOW,
            kept: Kept::default(),
            state,
            _folder: folder,
        }
    }

    fn change(&mut self, output: InForce) -> Vec<String> {
        self.change_with(output, false, |_| None)
    }

    /// Takes rules, and returns which workloads keep those before.
    fn change_with(
        &mut self,
        output: InForce,
        is_pinned: bool,
        compile: impl FnMut(&str) -> Option<tidegate_compiler::Compiled>,
    ) -> Vec<String> {
        let change = Change {
            output: &output,
            current: self.in_force.as_ref(),
            is_pinned,
            fleet: &self.hub.fleet,
            now: self.now,
        };
        let staged = self.rollouts.stage(&change, compile);
        let mut next = output.with_staged(staged);
        self.rollouts.choose(&next, &self.hub, self.now);
        next.staged = self.rollouts.staged(&next.staged);
        self.offer(next)
    }

    fn offer(&mut self, next: InForce) -> Vec<String> {
        let (keys, directories, kept) = (KeyRing::default(), Directories::default(), Kept::default());
        let mut assembler = crate::serve::Assembler::default();
        let now = self.now;
        let mut contents = assembler.contents(&next.compiled, &keys, &directories, &kept, now).unwrap();
        let staged = (&next.compiled, &next.staged);
        let canaries = assembler.stage(&mut contents, staged, &keys, &directories, &kept, now).unwrap();
        let releases = self.publisher.publish_staged(contents, canaries, now).unwrap();
        let canaries = offers(&next.staged, &releases.canaries);
        self.hub.distributor.publish_staged(&releases.all, canaries, Lookups::default());
        let names = next.staged.keys().map(ToString::to_string).collect();
        self.in_force = Some(next);
        names
    }

    /// So many looks, a second each.
    fn pass(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1;
            let in_force = self.in_force.clone().unwrap();
            if self.rollouts.look(&in_force, &self.hub, &self.kept, SECOND, self.now) {
                let staged = self.rollouts.staged(&in_force.staged);
                self.offer(in_force.with_staged(staged));
            }
        }
    }

    /// Another process, of which no proxy knows yet, takes these rules; the first ones are in its history.
    fn restart(&mut self, output: InForce) -> Vec<String> {
        self.rollouts.save();
        self.rollouts = Rollouts::open(self.state.clone()).unwrap();
        self.hub = Hub::new(Index::new(SECOND));
        self.in_force = None;
        let base = in_force(1, &text(TRIED, &allow("/v1/old"))).compiled;
        self.change_with(output, false, |digest| (digest == "0123456789digest-1").then(|| base.clone()))
    }

    fn connect(&self, name: &str, generation: u64) -> (VmKey, crate::push::StreamId) {
        let key = VmKey { workload: WORKLOAD.into(), instance: name.into(), generation };
        let hello = pb::Hello { capabilities: vec![tidegate_proto::CANDIDATE.into()], ..Default::default() };
        let stream = self.hub.fleet.connect(&key, &hello, self.now);
        (key, stream)
    }

    fn canaries(&self) -> Vec<String> {
        let rollout = self.rollouts.stored.workloads.get(WORKLOAD);
        rollout.map(|one| one.canaries.iter().cloned().collect()).unwrap_or_default()
    }

    fn canary_manifest(&self) -> Sha256 {
        *self.hub.distributor.canary(WORKLOAD).unwrap().release.sha256()
    }

    fn report(&self) -> Option<RolloutReport> {
        self.rollouts.report(self.in_force.as_ref()).pop()
    }
}

const TRIED: &str = ", rollout: {canary: 1, hold: 1m}";

/// Rules that are tried, with so many proxies.
fn tried(proxies: &[&str]) -> World {
    let mut world = World::new();
    assert!(
        world.change(in_force(1, &text(TRIED, &allow("/v1/old")))).is_empty(),
        "the first rules are for all"
    );
    for name in proxies {
        world.connect(name, 1);
    }
    assert_eq!(world.change(in_force(2, &text(TRIED, &allow("/v1/new")))), [WORKLOAD]);
    world
}

#[test]
fn the_time_begins_when_a_canary_enforces_the_rules_and_stands_while_none_does() {
    let mut world = tried(&["a", "b", "c"]);
    let [canary] = world.canaries()[..].to_vec().try_into().unwrap_or_else(|all| panic!("{all:?}"));
    world.pass(30);
    assert_eq!(world.report().unwrap().held_s, 0);
    let (key, stream) = world.connect(&canary, 1);
    world.hub.fleet.enforces(&key, &world.canary_manifest(), None, world.now);
    world.pass(40);
    assert_eq!(world.report().unwrap().held_s, 40);
    world.hub.fleet.disconnect(&key, stream, world.now);
    world.pass(30);
    assert_eq!(world.report().unwrap().held_s, 40);
    let (key, _) = world.connect(&canary, 1);
    world.hub.fleet.enforces(&key, &world.canary_manifest(), None, world.now);
    world.pass(19);
    assert!(world.report().is_some());
    world.pass(1);
    assert_eq!(world.report(), None);
    assert!(world.in_force.unwrap().staged.is_empty() && world.hub.distributor.canary(WORKLOAD).is_none());
}

#[test]
fn another_canary_is_chosen_when_all_are_gone_and_not_before() {
    let mut world = tried(&["a", "b", "c"]);
    let before = world.canaries();
    let (key, stream) = world.connect(&before[0], 1);
    world.hub.fleet.disconnect(&key, stream, world.now);
    world.pass(100);
    assert_eq!(world.canaries(), before, "a control plane that began a moment ago waits for it");
    world.rollouts.since = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
    world.pass(1);
    let after = world.canaries();
    assert_eq!((before.len(), after.len()), (1, 2), "{after:?}");
    let (key, _) = world.connect(after.iter().find(|name| !before.contains(name)).unwrap(), 1);
    world.hub.fleet.enforces(&key, &world.canary_manifest(), None, world.now);
    world.pass(60);
    assert_eq!(world.report(), None, "it is tried to the end");
}

#[test]
fn where_no_canary_can_be_had_it_ends_all_the_same() {
    let mut nobody = World::new();
    nobody.change(in_force(1, &text(TRIED, &allow("/v1/old"))));
    nobody.change(in_force(2, &text(TRIED, &allow("/v1/new"))));
    nobody.pass(59);
    assert!(nobody.report().is_some());
    nobody.pass(1);
    assert_eq!(nobody.report(), None, "nobody is protected by waiting");

    let mut deaf = tried(&["a", "b"]);
    deaf.pass(719);
    assert_eq!(deaf.report().unwrap().state, RolloutState::Canary);
    deaf.pass(1);
    let report = deaf.report().unwrap();
    assert_eq!(report.state, RolloutState::Aborted, "{report:?}");
}

#[test]
fn after_a_start_proxies_have_time_to_come_back_before_one_is_chosen() {
    let mut world = World::new();
    world.change(in_force(1, &text(TRIED, &allow("/v1/old"))));
    world.change(in_force(2, &text(TRIED, &allow("/v1/new"))));
    world.connect("a", 1);
    world.pass(1);
    assert!(world.canaries().is_empty());
    world.connect("b", 1);
    world.rollouts.since = Instant::now().checked_sub(Duration::from_secs(15)).unwrap();
    world.pass(1);
    assert_eq!(world.canaries().len(), 1);
}

#[test]
fn filters_that_start_anew_again_and_again_are_no_good_sign() {
    for (others_too, expected) in [(false, RolloutState::Aborted), (true, RolloutState::Canary)] {
        let mut world = tried(&["a", "b"]);
        let canary = world.canaries().remove(0);
        let other = if canary == "a" { "b" } else { "a" };
        world.pass(1);
        for generation in 1..4 {
            for name in [canary.as_str(), other].into_iter().take(1 + usize::from(others_too)) {
                let (key, stream) = world.connect(name, generation);
                world.hub.fleet.disconnect(&key, stream, world.now);
                world.connect(name, generation + 1);
            }
            world.pass(11);
        }
        assert_eq!(world.report().unwrap().state, expected);
    }
}

#[test]
fn an_issuer_that_is_no_longer_trusted_is_not_held_back() {
    let job =
        "  from: [{anyMesh: true, tokens: [{issuer: gitlab, gitlab: {project: 1, protectedRef: true}}]}]";
    let mut world = World::new();
    world.change(in_force(1, &text(TRIED, job)));
    let kept = text(TRIED, &job.replace("project: 1", "project: 2"));
    assert_eq!(world.change(in_force(2, &kept)), [WORKLOAD], "the rules are held back");
    // Its keys may change, which all get.
    assert_eq!(
        world.change(in_force(3, &kept.replace("gitlab.invalid/keys", "gitlab.invalid/new"))),
        [WORKLOAD]
    );
    assert!(world.report().is_some());
    let gone = text(TRIED, &allow("/v1/new")).replace("name: gitlab", "name: other");
    assert!(world.change(in_force(4, &gone)).is_empty(), "and the issuer is not");
    assert_eq!(world.report(), None);
    for (what, instead) in [
        ("issuer: \"https://gitlab.example\"", "issuer: \"https://gitlab.other\""),
        ("pack: gitlab", "allowedNamespaces: [sales], pack: gitlab"),
    ] {
        let mut world = World::new();
        world.change(in_force(1, &text(TRIED, job)));
        let changed = kept.replace(what, instead);
        assert_ne!(changed, kept);
        assert!(world.change(in_force(2, &changed)).is_empty(), "{instead}");
    }
}

#[test]
fn an_end_that_is_brought_forward_reaches_those_who_keep_the_rules() {
    let until = |day: &str, path: &str| text(TRIED, &format!("{}\n  notAfter: {day}", allow(path)));
    let mut world = World::new();
    world.change(in_force(1, &until("2030-12-31", "/v1/old")));
    assert!(world.change(in_force(2, &until("2030-06-30", "/v1/old"))).is_empty(), "only the end is another");
    assert_eq!(world.change(in_force(3, &until("2030-03-31", "/v1/new"))), [WORKLOAD]);
    let kept = world.in_force.as_ref().unwrap().staged.values().next().unwrap().before.clone();
    let expected = in_force(9, &until("2030-03-31", "/v1/old"));
    let expected = expected.compiled.workloads.values().next().unwrap();
    assert_eq!((&kept.model.rules, &kept.rules), (&expected.model.rules, &expected.rules));
    // The next change is compared with the rules as they were.
    assert_eq!(world.change(in_force(5, &until("2030-12-31", "/v1/newer"))), [WORKLOAD]);
    let kept = world.in_force.as_ref().unwrap().staged.values().next().unwrap().before.clone();
    let good = in_force(9, &until("2030-06-30", "/v1/old"));
    assert_eq!(kept.rules, good.compiled.workloads.values().next().unwrap().rules);
    // One that is put off is a change like others, and a rule that had none gets one.
    assert_eq!(world.change(in_force(4, &until("2031-12-31", "/v1/old"))), [WORKLOAD]);
    let mut world = World::new();
    world.change(in_force(1, &text(TRIED, &allow("/v1/old"))));
    assert_eq!(world.change(in_force(2, &until("2030-03-31", "/v1/new"))), [WORKLOAD]);
    let kept = world.in_force.as_ref().unwrap().staged.values().next().unwrap().before.clone();
    assert_eq!(
        kept.rules,
        in_force(9, &until("2030-03-31", "/v1/old")).compiled.workloads.values().next().unwrap().rules
    );
}

#[test]
fn a_pin_and_rules_before_that_are_not_here_hold_nothing_back() {
    let mut world = tried(&["a", "b"]);
    let earlier = in_force(1, &text(TRIED, &allow("/v1/old")));
    assert!(world.change_with(earlier, true, |_| None).is_empty());
    assert_eq!(world.report(), None);
    // When it is released, the newest are tried.
    assert_eq!(world.change(in_force(2, &text(TRIED, &allow("/v1/new")))), [WORKLOAD]);

    // After a restart.
    world.rollouts.save();
    world.rollouts = Rollouts::open(world.state.clone()).unwrap();
    world.in_force = None;
    let again = || in_force(2, &text(TRIED, &allow("/v1/new")));
    let base = in_force(1, &text(TRIED, &allow("/v1/old"))).compiled;
    let kept =
        world.change_with(again(), false, |digest| (digest == "0123456789digest-1").then(|| base.clone()));
    assert_eq!(kept, [WORKLOAD]);
    world.in_force = None;
    assert!(world.change_with(again(), false, |_| None).is_empty());
}

#[test]
fn who_means_rules_that_others_have_replaced_decides_nothing() {
    let mut world = tried(&["a", "b"]);
    let looked_at = world.report().unwrap();
    assert_eq!((looked_at.rules, looked_at.digest.as_str()), (2, "0123456789digest-2"));
    assert_eq!(world.change(in_force(3, &text(TRIED, &allow("/v1/newer")))), [WORKLOAD]);
    let other = || NotEnded::Other(SetRef { number: 3, digest: "0123456789digest-3".into() });
    let tried = world.rollouts.stored.clone();
    for asked in [REV, "0123456789digest-2", "0123456789diges", "1", "diges", "", "33", "-3"] {
        assert_eq!(world.rollouts.promote(WORKLOAD, asked), Err(other()), "{asked}");
        let aborted = world.rollouts.abort(WORKLOAD, asked, "x".into(), "me", NOW);
        assert_eq!(aborted, Err(other()), "{asked}");
        assert_eq!(world.rollouts.stored, tried, "{asked}");
    }
    assert_eq!(world.rollouts.promote("sales/other", "3"), Err(NotEnded::Nothing));
    let before = world.rollouts.abort(WORKLOAD, "0123456789digest-3", "x".into(), "me", NOW).unwrap();
    assert_eq!(before.number, 1);
    assert_eq!(
        world.rollouts.abort(WORKLOAD, "3", "x".into(), "me", NOW),
        Err(NotEnded::Nothing),
        "once is enough"
    );
    assert_eq!(world.rollouts.promote(WORKLOAD, REV), Err(other()));
    assert_eq!(world.rollouts.promote(WORKLOAD, "3").unwrap().number, 3);
    assert_eq!(world.report(), None);
}

#[test]
fn what_stands_on_disk_is_read_again() {
    let mut world = tried(&["a", "b"]);
    world.rollouts.abort(WORKLOAD, REV, "it refuses too much".into(), "me", NOW).unwrap();
    let stored = world.rollouts.stored.clone();
    assert_eq!(Rollouts::open(world.state.clone()).unwrap().stored, stored);
}

#[test]
fn what_is_guarded_and_who_anybody_is_are_never_held_back() {
    let before = text(TRIED, &allow("/v1/old"));
    let changed = text(TRIED, &allow("/v1/new"));
    for (what, instead) in [
        ("{mode: Enforce, aud", "{mode: Shadow, aud"),
        ("{mode: Enforce, aud", "{mode: Enforce, ports: [8080], aud"),
        ("{mode: Enforce, aud", "{mode: Enforce, tcpPorts: [5432], aud"),
        ("trustDomain: prod.example", "trustDomain: other.example"),
        (
            "serviceAccount: orders}]",
            "serviceAccount: orders}]\n  gateways: [{namespace: in, name: way, labels: {app: way}, serviceAccount: way}]",
        ),
    ] {
        let was = before.replace(what, instead);
        assert_ne!(was, before, "{what}");
        let mut world = World::new();
        world.change(in_force(1, &was));
        assert!(world.change(in_force(2, &changed)).is_empty(), "{instead}");
        assert_eq!(world.report(), None);
        // With the same on both sides it is a change of rules.
        let mut world = World::new();
        world.change(in_force(1, &was));
        assert_eq!(world.change(in_force(2, &changed.replace(what, instead))), [WORKLOAD], "{instead}");
    }
    // Nothing was guarded.
    let (head, rest) = before.split_once("---\nkind: Guard").unwrap();
    let (_, rest) = rest.split_once("---\n").unwrap();
    let mut world = World::new();
    world.change(in_force(1, &format!("{head}---\n{rest}")));
    assert!(world.change(in_force(2, &changed)).is_empty());
}

#[test]
fn a_guard_of_a_namespace_holds_back_nothing_of_the_root_namespace() {
    let deny = |mode: &str, path: &str| {
        format!(
            "---\nkind: AccessRule\nmetadata: {{name: deny, namespace: root}}\nspec:\n  owner: sec\n  effect: Deny\n  mode: {mode}\n  \
             from: [{{anyMesh: true}}]\n  to: [{{http: {{methods: [POST], paths: [\"{path}\"]}}}}]\n"
        )
    };
    let own = |deny: &str, path: &str| text(TRIED, &allow(path)) + deny;
    let roots = |deny: &str, path: &str| {
        let guard = format!(
            "---\nkind: Guard\nmetadata: {{name: all, namespace: root}}\nspec: {{mode: Enforce{TRIED}}}\n"
        );
        text("", &allow(path)) + deny + &guard
    };
    for (before, after, expected) in [
        (own("", "/v1/old"), own(&deny("Enforce", "/a"), "/v1/old"), &[][..]),
        (own(&deny("Enforce", "/a"), "/v1/old"), own(&deny("Enforce", "/b"), "/v1/new"), &[]),
        (own(&deny("Shadow", "/a"), "/v1/old"), own(&deny("Enforce", "/a"), "/v1/old"), &[]),
        (own(&deny("Enforce", "/a"), "/v1/old"), own("", "/v1/new"), &[]),
        (own(&deny("Enforce", "/a"), "/v1/old"), own(&deny("Enforce", "/a"), "/v1/new"), &[WORKLOAD]),
        (own(&deny("Shadow", "/a"), "/v1/old"), own(&deny("Shadow", "/b"), "/v1/new"), &[WORKLOAD]),
        (roots("", "/v1/old"), roots(&deny("Enforce", "/a"), "/v1/old"), &[WORKLOAD]),
    ] {
        let mut world = World::new();
        world.change(in_force(1, &before));
        assert_eq!(world.change(in_force(2, &after)), expected, "{before}\n=>\n{after}");
    }
}

#[test]
fn time_in_which_no_control_plane_looked_decides_nothing() {
    for is_there in [false, true] {
        let mut world = tried(&["a", "b"]);
        world.pass(30);
        world.now += 100_000;
        assert_eq!(world.restart(in_force(2, &text(TRIED, &allow("/v1/new")))), [WORKLOAD]);
        if is_there {
            world.connect("a", 2);
        }
        world.pass(40);
        assert_eq!(world.report().map(|one| one.state), Some(RolloutState::Canary), "{is_there}");
        // What was looked before the restart counts where it ends in nothing.
        world.pass(20);
        assert_eq!(world.report().is_some(), is_there, "nobody came in all of the time");
        world.pass(629);
        assert_eq!(world.report().is_some_and(|one| one.state == RolloutState::Canary), is_there);
        world.pass(1);
        assert_eq!(world.report().is_some_and(|one| one.state == RolloutState::Aborted), is_there);
    }
}

#[test]
fn what_was_given_up_stays_so_over_a_restart_with_other_rule_sets() {
    let mut world = tried(&["a", "b"]);
    world.rollouts.abort(WORKLOAD, REV, "it refuses too much".into(), "me", NOW).unwrap();
    let other = "---\nkind: Caller\nmetadata: {name: x, namespace: sales}\nspec: {anyOf: [{peer: {namespace: etl}}]}\n";
    let changed = text(TRIED, &allow("/v1/new"));
    assert_eq!(world.restart(in_force(3, &(changed + other))), [WORKLOAD]);
    let report = world.report().unwrap();
    assert_eq!((report.state, report.rules), (RolloutState::Aborted, 3));
    assert_eq!(world.restart(in_force(4, &text(TRIED, &allow("/v1/newer")))), [WORKLOAD]);
    assert_eq!(world.report().unwrap().state, RolloutState::Canary, "other rules are tried");
}

#[test]
fn nothing_counts_while_the_workload_is_suspended() {
    let mut world = tried(&["a", "b"]);
    let (key, _) = world.connect(&world.canaries()[0], 1);
    world.hub.fleet.enforces(&key, &world.canary_manifest(), None, world.now);
    world.pass(10);
    world.kept.suspensions.push(crate::control::Suspension {
        id: "s-1".into(),
        workload: WORKLOAD.into(),
        reason: "x".into(),
        ticket: "x".into(),
        by: "me".into(),
        at: world.now,
        until: world.now + 101,
    });
    world.pass(100);
    assert_eq!(world.report().unwrap().held_s, 10);
    world.pass(10);
    assert_eq!(world.report().unwrap().held_s, 20);
}
