//! A thousand filters at once: what the fleet says of them is exact, whatever they do.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::push::{Standing, WorkloadReport};
use tidegate::serve::Running;
use tidegate_proto::v1 as pb;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::fixture::*;

/// Proxies with so many VMs each: 1 000 streams.
const PROXIES: usize = 250;
const VMS: usize = 4;
/// Connections that they share.
const CONNECTIONS: usize = 10;

/// What a simulated filter does with pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Acknowledges,
    Refuses,
    /// Takes them and says nothing.
    Dawdles,
}

/// How the VMs of a proxy are, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proxy {
    habit: Habit,
    /// What of its VMs only the last one does otherwise.
    last: Habit,
    is_old: bool,
}

struct Vm {
    filter: Filter,
    habit: Habit,
}

fn proxy(number: usize) -> Proxy {
    use Habit::*;
    let (habit, last) = match number % 10 {
        3 => (Refuses, Refuses),
        4 => (Acknowledges, Refuses),
        5 => (Acknowledges, Dawdles),
        6 => (Dawdles, Dawdles),
        _ => (Acknowledges, Acknowledges),
    };
    Proxy { habit, last, is_old: number % 7 == 2 }
}

impl Proxy {
    fn of(self, vm: usize) -> Habit {
        if vm + 1 == VMS { self.last } else { self.habit }
    }

    fn expected(self) -> (Standing, usize) {
        let enforcing = (0..VMS).filter(|vm| self.of(*vm) == Habit::Acknowledges).count();
        let refuses = (0..VMS).any(|vm| self.of(vm) == Habit::Refuses);
        let standing = match (refuses, enforcing == VMS) {
            (true, _) => Standing::Refusing,
            (false, true) => Standing::Enforcing,
            (false, false) => Standing::Lagging,
        };
        (standing, enforcing)
    }
}

fn name(number: usize) -> String {
    format!("orders-{number:03}")
}

fn greeting(number: usize, vm: usize) -> pb::Hello {
    let instance = name(number);
    let generation = u64::try_from(number * VMS + vm).unwrap();
    let mut capabilities = vec!["rules/1".to_owned(), "suspension/1".to_owned()];
    capabilities.truncate(if proxy(number).is_old { 1 } else { 2 });
    pb::Hello {
        filter_version: if proxy(number).is_old { "0.1.0" } else { "0.2.0" }.into(),
        capabilities,
        vm: Some(pb::VmId { instance: instance.clone(), generation }),
        workload: Some(pb::WorkloadHint { workload: WORKLOAD.into(), instance }),
        ..hello(WORKLOAD)
    }
}

impl Vm {
    /// Takes one push as it does.
    async fn take(&mut self) {
        let received = self.filter.receive().await;
        match self.habit {
            Habit::Acknowledges => self.filter.ack(&received).await,
            Habit::Refuses => self.filter.nack(&received, pb::NackReason::InvalidSection, "no").await,
            Habit::Dawdles => {}
        }
    }
}

/// Every VM takes a push, all at once.
async fn take(vms: BTreeMap<(usize, usize), Vm>) -> BTreeMap<(usize, usize), Vm> {
    let mut tasks = JoinSet::new();
    for (key, mut vm) in vms {
        tasks.spawn(async move {
            // One that has not answered is sent nothing.
            if vm.habit != Habit::Dawdles {
                vm.take().await;
            }
            (key, vm)
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// Waits until the fleet says exactly this of every proxy.
async fn until(running: &Running, what: &str, expected: impl Fn(&WorkloadReport) -> Result<(), String>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let report = running.fleet().workloads.remove(WORKLOAD).unwrap();
        match expected(&report) {
            Ok(()) => return,
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(20)).await,
            Err(wrong) => panic!("{what}: {wrong}"),
        }
    }
}

fn exactly(
    report: &WorkloadReport,
    expected: impl Fn(usize) -> (Standing, usize, usize),
) -> Result<(), String> {
    if report.proxies.len() != PROXIES {
        return Err(format!("{} proxies", report.proxies.len()));
    }
    for (number, found) in report.proxies.iter().enumerate() {
        let (standing, vms, enforcing) = expected(number);
        if (found.instance != name(number))
            || (found.standing, found.vms, found.enforcing) != (standing, vms, enforcing)
        {
            return Err(format!("{found:?}, expected {standing:?} {enforcing} of {vms}"));
        }
    }
    let sum = |of: fn((Standing, usize, usize)) -> usize| {
        (0..PROXIES).map(|number| of(expected(number))).sum::<usize>()
    };
    let found = (report.connected, report.enforcing);
    let wanted = (sum(|(_, vms, _)| vms), sum(|(_, _, enforcing)| enforcing));
    if found == wanted { Ok(()) } else { Err(format!("{found:?}, expected {wanted:?}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_filters_are_told_exactly_during_pushes_disconnects_and_version_skew() {
    let place = Place::new(&[("mesh.yaml", MESH), ("rule.yaml", &rule("a", "Allow", "/v1/first"))]);
    let running = place.start().await;
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(channel(&running.grpc_addr.to_string()).await);
    }
    let mut tasks = JoinSet::new();
    for number in 0..PROXIES {
        for vm in 0..VMS {
            let channel = channels[number % CONNECTIONS].clone();
            tasks.spawn(async move {
                let filter = Filter::over(channel, greeting(number, vm)).await.unwrap();
                let mut one = Vm { filter, habit: proxy(number).of(vm) };
                one.take().await;
                ((number, vm), one)
            });
        }
    }
    let mut vms: BTreeMap<_, _> = tasks.join_all().await.into_iter().collect();
    let as_they_are = |number: usize| {
        let (standing, enforcing) = proxy(number).expected();
        (standing, VMS, enforcing)
    };
    until(&running, "the first push", |report| exactly(report, as_they_are)).await;
    assert_eq!(running.fleet().workloads[WORKLOAD].lacking, 0);

    // Several edits, one after the other, while what was not answered stays unanswered.
    for round in 0..3 {
        place.write("rule.yaml", &rule(&format!("r{round}"), "Allow", "/v1/other"));
        vms = take(vms).await;
        until(&running, "an edit", |report| exactly(report, as_they_are)).await;
    }

    // Every third proxy loses one stream, every twentieth all.
    let lost = |number: usize| match number {
        _ if number.is_multiple_of(20) => VMS,
        _ if number.is_multiple_of(3) => 1,
        _ => 0,
    };
    vms.retain(|(number, vm), _| *vm >= lost(*number));
    let diminished = |number: usize| {
        let left: Vec<Habit> = (lost(number)..VMS).map(|vm| proxy(number).of(vm)).collect();
        let enforcing = left.iter().filter(|habit| **habit == Habit::Acknowledges).count();
        let standing = match () {
            () if left.is_empty() => Standing::Silent,
            () if left.contains(&Habit::Refuses) => Standing::Refusing,
            () if enforcing == left.len() => Standing::Enforcing,
            () => Standing::Lagging,
        };
        (standing, left.len(), enforcing)
    };
    until(&running, "lost streams", |report| exactly(report, diminished)).await;

    // A push while they are away, and then they are back: VMs that were reloaded, with a generation of their own.
    place.write("rule.yaml", &rule("away", "Allow", "/v1/away"));
    vms = take(vms).await;
    until(&running, "a push without them", |report| exactly(report, diminished)).await;
    let mut tasks = JoinSet::new();
    for number in 0..PROXIES {
        for vm in 0..lost(number) {
            let channel = channels[number % CONNECTIONS].clone();
            tasks.spawn(async move {
                let mut hello = greeting(number, vm);
                hello.vm.as_mut().unwrap().generation += 1_000_000;
                let filter = Filter::over(channel, hello).await.unwrap();
                let mut one = Vm { filter, habit: proxy(number).of(vm) };
                one.take().await;
                ((number, vm), one)
            });
        }
    }
    vms.extend(tasks.join_all().await);
    until(&running, "the return", |report| exactly(report, as_they_are)).await;

    // Old filters lack what is used now: they get it all the same, and are told from others.
    let asked = serde_json::json!({"workload": WORKLOAD, "seconds": 600, "reason": "x", "ticket": "x"});
    let json = "content-type: application/json\r\n";
    assert_eq!(send(&running, "POST", "/control/suspensions", json, &asked.to_string()).await.0, 200);
    vms = take(vms).await;
    until(&running, "version skew", |report| exactly(report, as_they_are)).await;
    let report = running.fleet().workloads.remove(WORKLOAD).unwrap();
    // What was never answered to is compared with what it was offered last.
    let old = |vm: &&tidegate::push::VmReport| vm.connected && vm.filter_version == "0.1.0";
    let lacking: Vec<_> = report.vms.iter().filter(old).collect();
    assert!(!lacking.is_empty() && lacking.iter().all(|vm| vm.lacks == ["suspension/1"]));
    assert_eq!(report.lacking, lacking.len());
    drop(vms);
    running.shutdown().await.unwrap();
}
