use proptest::prelude::*;
use proptest::sample::select;
use tidegate_compiler::{Code, Diagnostic, Kind};

use super::super::view::Kept;
use super::*;
use crate::rules::{Files, Finding};

const NOW: &str = "2026-01-01T00:00:00Z";
const WORKLOADS: usize = 3;
const OBJECTS: [(Kind, &str); 5] = [
    (Kind::Guard, "all"),
    (Kind::AccessRule, "one"),
    (Kind::AccessRule, "two"),
    (Kind::AccessRule, "three"),
    (Kind::Caller, "who"),
];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// An object is another: its text and its generation.
    Edit(usize, i64),
    /// It is gone, or there again.
    Hide(usize),
    /// What was seen of it is judged: accepted, or refused for this reason.
    Judge(usize, Option<&'static str>),
    /// Somebody writes a status.
    Forge(usize),
    Reach(usize, usize),
    Proxy(usize, u8),
    Fence(usize, u8),
    Attached(Option<u8>),
    Unfenced(bool),
    Unreachable(usize),
    OptOut,
    Offered(bool),
    /// Statuses that are due are written, but for one in so many.
    Write(usize),
}

struct Scene {
    live: BTreeMap<String, (Arc<RuleObject>, bool)>,
    judged: Judged,
    reach: Reach,
    proxies: BTreeMap<WorkloadId, Proxies>,
    fence: FenceView,
    is_fenced: bool,
    hidden: Hidden,
    unreachable: BTreeSet<(WorkloadId, String)>,
    opted_out: BTreeSet<String>,
    is_offered: bool,
}

fn event() -> impl Strategy<Value = Event> {
    let object = || 0..OBJECTS.len();
    let workload = || 0..WORKLOADS;
    prop_oneof![
        2 => (object(), 1i64..4).prop_map(|(at, generation)| Event::Edit(at, generation)),
        1 => object().prop_map(Event::Hide),
        4 => (object(), select(vec![None, None, Some("a"), Some("b")])).prop_map(|(at, why)| Event::Judge(at, why)),
        1 => object().prop_map(Event::Forge),
        2 => (object(), workload()).prop_map(|(at, to)| Event::Reach(at, to)),
        3 => (workload(), 0u8..5).prop_map(|(at, how)| Event::Proxy(at, how)),
        3 => (workload(), 0u8..5).prop_map(|(at, how)| Event::Fence(at, how)),
        1 => proptest::option::of(0u8..3).prop_map(Event::Attached),
        1 => any::<bool>().prop_map(Event::Unfenced),
        1 => workload().prop_map(Event::Unreachable),
        1 => Just(Event::OptOut),
        3 => any::<bool>().prop_map(Event::Offered),
        5 => (1usize..4).prop_map(Event::Write),
    ]
}

fn path(at: usize) -> String {
    let (kind, name) = OBJECTS[at];
    ObjectPath { kind, namespace: Some("sales".into()), name: name.into() }.to_string()
}

fn id(at: usize) -> WorkloadId {
    WorkloadId { namespace: "sales".into(), name: format!("w{at}") }
}

fn kept(how: u8) -> Option<Kept> {
    Some(match how {
        0 => Kept::Pending,
        1 => Kept::Done { notes: vec![] },
        2 => Kept::Done { notes: vec!["wider".into()] },
        3 => Kept::Conflict("somebody".into()),
        _ => return None,
    })
}

fn broken(file: String, why: &str) -> Finding {
    let code = Code::NotSupported;
    Finding::Rule(Diagnostic {
        file,
        line: 1,
        column: 1,
        severity: code.severity(),
        code,
        object: None,
        field: "spec".into(),
        message: why.into(),
        why: String::new(),
        fix: String::new(),
        related: Vec::new(),
    })
}

impl Scene {
    fn new() -> Self {
        let object = RuleObject {
            text: "1".into(),
            uid: "u".into(),
            generation: 1,
            status: Value::Null,
            commit: None,
            author: None,
        };
        let files: Files = (0..OBJECTS.len()).map(|at| (path(at), "1".to_owned())).collect();
        let mut judged = Judged { counting: files.clone(), ..Judged::default() };
        judged.loaded.files = files;
        Self {
            live: (0..OBJECTS.len()).map(|at| (path(at), (Arc::new(object.clone()), true))).collect(),
            judged,
            reach: Reach::new(),
            proxies: BTreeMap::new(),
            fence: FenceView::default(),
            is_fenced: true,
            hidden: Hidden::new(),
            unreachable: BTreeSet::new(),
            opted_out: BTreeSet::new(),
            is_offered: true,
        }
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut RuleObject)) {
        let live = &mut self.live.get_mut(&path(at)).unwrap().0;
        let mut changed = RuleObject::clone(live);
        change(&mut changed);
        *live = Arc::new(changed);
    }

    /// `judged`: what was judged last, which is another one afterwards if that changes.
    fn apply(&mut self, event: &Event, judged: &mut Arc<Judged>) {
        match *event {
            Event::Edit(at, generation) => self.change(at, |live| {
                (live.text, live.generation) = (generation.to_string().into(), generation);
            }),
            Event::Hide(at) => self.live.get_mut(&path(at)).unwrap().1 ^= true,
            Event::Judge(at, why) => {
                let text = self.live[&path(at)].0.text.to_string();
                self.judged.loaded.files.insert(path(at), text.clone());
                self.judged.findings.remove(&path(at));
                match why {
                    None => drop(self.judged.counting.insert(path(at), text)),
                    Some(why) => {
                        self.judged.findings.insert(path(at), vec![broken(path(at), why)]);
                    }
                }
            }
            Event::Forge(at) => self.change(at, |live| live.status = json!({"observedGeneration": 9})),
            Event::Reach(at, to) => {
                let (kind, name) = OBJECTS[at];
                let reached = self.reach.entry((kind, format!("sales/{name}"))).or_default();
                if !reached.remove(&id(to)) {
                    reached.insert(id(to));
                }
            }
            Event::Proxy(at, how) => {
                let pod = BTreeSet::from([format!("pod-{at}")]);
                let mut proxies = Proxies { all: pod.clone(), ..Proxies::default() };
                match how {
                    0 => drop(self.proxies.remove(&id(at))),
                    1 => proxies.enforcing = pod,
                    2 => proxies.silent = pod,
                    3 => proxies.bypassed = pod,
                    _ => {}
                }
                if how > 0 {
                    self.proxies.insert(id(at), proxies);
                }
            }
            Event::Fence(at, how) => {
                self.fence.workloads.remove(&id(at));
                self.fence.workloads.extend(kept(how).map(|kept| (id(at), kept)));
            }
            Event::Attached(how) => {
                self.fence.attached =
                    how.map(|how| kept(how).map(|kept| (id(0), kept)).into_iter().collect());
            }
            Event::Unfenced(is_fenced) => self.is_fenced = is_fenced,
            Event::Unreachable(at) => {
                let key = (id(at), format!("pod-{at}"));
                if !self.unreachable.remove(&key) {
                    self.unreachable.insert(key);
                }
            }
            Event::OptOut => {
                if !self.opted_out.remove("sales") {
                    self.opted_out.insert("sales".into());
                }
            }
            Event::Offered(is_offered) => self.is_offered = is_offered,
            Event::Write(_) => {}
        }
        if matches!(event, Event::Judge(..) | Event::Reach(..)) {
            *judged = Arc::new(Judged {
                loaded: self.judged.loaded.clone(),
                counting: self.judged.counting.clone(),
                findings: self.judged.findings.clone(),
                in_force: None,
            });
        }
    }

    fn view<'v>(&'v self, judged: &'v Judged) -> View<'v> {
        View {
            judged,
            reach: &self.reach,
            proxies: &self.proxies,
            fence: self.is_fenced.then_some(&self.fence),
            hidden: &self.hidden,
            opted_out: &self.opted_out,
            unreachable: &self.unreachable,
            is_offered: self.is_offered,
        }
    }

    /// What is due for who keeps what it has looked at.
    fn due(&self, judged: &Arc<Judged>, looked: &mut Looked) -> Vec<Write> {
        let live = self.live.iter().filter(|(_, (_, is_there))| *is_there);
        let objects: Vec<_> = live.map(|(path, (live, _))| (path.clone(), live.clone())).collect();
        let view = self.view(judged);
        looked.begin(judged, &view);
        looked.forget_all_but(&objects);
        due(&objects, looked, &view, NOW)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_passed_over_would_not_have_been_written(events in prop::collection::vec(event(), 1..60)) {
        let mut scene = Scene::new();
        let mut judged = Arc::new(Judged::default());
        scene.apply(&Event::Judge(0, None), &mut judged);
        let mut looked = Looked::default();
        for event in &events {
            scene.apply(event, &mut judged);
            let due = scene.due(&judged, &mut looked);
            prop_assert_eq!(&due, &scene.due(&judged, &mut Looked::default()), "{:?}", event);
            let Event::Write(but) = event else { continue };
            for write in due.into_iter().enumerate().filter(|(at, _)| at % 4 != *but).map(|(_, write)| write) {
                let live = &mut scene.live.get_mut(&write.object.to_string()).unwrap().0;
                *live = Arc::new(RuleObject { status: write.status, ..RuleObject::clone(live) });
            }
        }
    }
}

/// Of what was written and did not change, nothing is made up again: not while rules are on their way to filters either.
#[test]
fn what_is_right_is_not_looked_at_again() {
    let mut scene = Scene::new();
    let mut judged = Arc::new(Judged::default());
    for at in 0..3 {
        scene.apply(&Event::Reach(at, at), &mut judged);
        scene.apply(&Event::Fence(at, 1), &mut judged);
        scene.apply(&Event::Proxy(at, 1), &mut judged);
    }
    let mut looked = Looked::default();
    for write in scene.due(&judged, &mut looked) {
        let live = &mut scene.live.get_mut(&write.object.to_string()).unwrap().0;
        *live = Arc::new(RuleObject { status: write.status, ..RuleObject::clone(live) });
    }
    assert!(scene.due(&judged, &mut looked).is_empty());
    let passed = |scene: &Scene, judged: &Arc<Judged>, looked: &mut Looked| {
        let view = scene.view(judged);
        looked.begin(judged, &view);
        let is_right = |(path, (live, _)): (&String, &(Arc<RuleObject>, bool))| {
            looked.is_right(path, || ObjectPath::parse(path), live, &view)
        };
        scene.live.iter().map(is_right).collect::<Vec<_>>()
    };
    // In the order of paths: rules, the Caller, the Guard.
    let order: Vec<&str> = scene.live.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert_eq!(order, ["one.yaml", "three.yaml", "two.yaml", "who.yaml", "all.yaml"]);
    assert_eq!(passed(&scene, &judged, &mut looked), [true; 5]);
    scene.apply(&Event::Offered(false), &mut judged);
    scene.apply(&Event::Judge(4, None), &mut judged);
    assert_eq!(passed(&scene, &judged, &mut looked), [true; 5], "the same is judged again");
    scene.apply(&Event::Offered(true), &mut judged);
    assert_eq!(passed(&scene, &judged, &mut looked), [true; 5]);
    scene.apply(&Event::Proxy(1, 2), &mut judged);
    assert_eq!(passed(&scene, &judged, &mut looked), [false, true, true, true, true], "the rule at w1");
}
