use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::bundle::{Keyring, TrustedKey};
use crate::control::{End, EndHow, Intervention, InterventionKind, Pin, Revocation, Suspension, Target};
use crate::decisions::record::{Difference, Gap, GapCause, Outcome, Recorded, RuleRef};
use crate::decisions::run::{Run, RunKind};
use crate::export::attributes::testing::recorded;
use crate::rollout::{RolloutReport, RolloutState};
use crate::serve::compile_files;
use crate::state::StateDir;
use crate::uses::{Away, RuleUse, Verdict};

const RULES: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}
  - {namespace: lab, name: scratch, labels: {app: scratch}, serviceAccount: scratch}
---
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: writers, namespace: sales}
spec:
  owner: "=billing"
  target: {selector: {matchLabels: {app: orders}}}
  effect: Allow
  mode: Enforce
  from: [{peer: {namespace: etl}}]
  to: [{http: {methods: [POST], paths: ["/v1/orders"]}}]
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: trial, namespace: sales}
spec:
  owner: billing
  target: {selector: {matchLabels: {app: orders}}}
  effect: Deny
  mode: Shadow
  from: [{peer: {namespace: etl}}]
  to: [{http: {methods: [GET], paths: ["/v1/x"]}}]
"#;

fn moment(text: &str) -> Moment {
    Moment(crate::decisions::time::read(text).unwrap())
}

fn set(number: u64, at: &str) -> RuleSet {
    let at = moment(at).seconds();
    RuleSet { number, digest: format!("d{number}"), at, files: 1, bytes: 1 }
}

fn revocation(target: Target) -> Revocation {
    let (reason, by) = ("OPS-9".to_owned(), "somebody".to_owned());
    Revocation { id: "r-1".to_owned(), target, reason, by, at: 1, until: 2, frozen: None }
}

/// Of kinds that begin and end before, in, and after the time.
fn interventions() -> Vec<Intervention> {
    let day = |text: &str| moment(&format!("2026-{text}T00:00:00Z")).seconds();
    let one =
        |id: &str, kind, what: &str, from: &str, end: Option<(&str, EndHow, Option<&str>)>| Intervention {
            id: id.to_owned(),
            kind,
            what: what.to_owned(),
            reason: "+month end".to_owned(),
            ticket: "OPS-7".to_owned(),
            by: "ann".to_owned(),
            at: day(from),
            until: Some(day("12-01")),
            end: end.map(|(at, how, by)| End { at: day(at), how, by: by.map(str::to_owned) }),
        };
    use InterventionKind as Kind;
    vec![
        one("r-1", Kind::Revoked, "a token of gitlab", "09-01", Some(("09-30", EndHow::Time, None))),
        one("s-2", Kind::Suspended, "sales/orders", "09-01", Some(("10-01", EndHow::Lifted, Some("bob")))),
        one("s-3", Kind::Suspended, "sales/orders", "10-04", Some(("10-05", EndHow::Replaced, Some("=bob")))),
        one("r-4", Kind::Revoked, "Caller data/etl", "10-06", Some(("11-20", EndHow::Time, None))),
        one("", Kind::Pinned, "rule set 2 (d2)", "09-01", Some(("11-20", EndHow::Lifted, Some("bob")))),
        one("r-5", Kind::Revoked, "key k-1 of gitlab", "10-31", None),
        one("r-6", Kind::Revoked, "key k-2 of gitlab", "11-01", None),
    ]
}

fn inputs() -> Inputs {
    let files = [("rules.yaml".to_owned(), RULES.to_owned())].into();
    let compilation = compile_files(&files, &Default::default());
    let compiled = compilation.output.unwrap_or_else(|| panic!("{:?}", compilation.diagnostics));
    let hash = |name: &str, hash: &str| (name.to_owned(), hash.to_owned());
    let used = RuleUse {
        rule: "sales/writers".to_owned(),
        verdict: Verdict::Used,
        why: vec![],
        first_seen: 0,
        counted_since: None,
        last_used: Some(moment("2026-10-09T00:00:00Z").seconds()),
        count: 7,
        proxies: 1,
        counting: 1,
        workloads: 1,
        at: vec![],
        source: None,
    };
    Inputs {
        from: moment("2026-10-01T00:00:00Z"),
        to: moment("2026-11-01T00:00:00Z"),
        made: moment("2026-11-02T00:00:00Z"),
        rules: Some(Rules { compiled, set: set(3, "2026-10-20T00:00:00Z") }),
        control: ControlReport {
            accepted: None,
            pin: Some(Pin {
                number: 2,
                digest: "d2".to_owned(),
                reason: "OPS-312".to_owned(),
                by: "spiffe://prod.example/ns/ops/sa/oncall".to_owned(),
                at: 1,
            }),
            revocations: vec![
                revocation(Target::Token { issuer: "gitlab".to_owned(), id: "jti-4711".to_owned() }),
                revocation(Target::Subject { issuer: "okta".to_owned(), id: "ann@acme.example".to_owned() }),
                revocation(Target::Caller { name: "data/orders-etl".to_owned() }),
            ],
            broken: vec![],
            rollouts: vec![
                rollout("sales/orders", RolloutState::Canary),
                RolloutReport {
                    why: Some("+40 of 60 requests are refused".to_owned()),
                    at: Some(3),
                    ..rollout("lab/scratch", RolloutState::Aborted)
                },
            ],
            interventions: interventions(),
            interventions_since: moment("2026-10-03T00:00:00Z").seconds(),
            suspensions: vec![Suspension {
                id: "s-1".to_owned(),
                workload: "sales/orders".to_owned(),
                reason: "@import month end".to_owned(),
                ticket: "OPS-7".to_owned(),
                by: "somebody".to_owned(),
                at: 1,
                until: 2,
            }],
            history: vec![
                set(1, "2026-09-01T00:00:00Z"),
                set(2, "2026-10-10T00:00:00Z"),
                set(3, "2026-10-20T00:00:00Z"),
                set(4, "2026-11-01T00:00:00Z"),
            ],
        },
        files: [
            (1, [hash("a.yaml", "1"), hash("b.yaml", "1")].into()),
            (2, [hash("a.yaml", "2"), hash("c.yaml", "1")].into()),
            (4, [hash("a.yaml", "3")].into()),
        ]
        .into(),
        uses: UnusedReport {
            since: 0,
            began: Some(0),
            away: vec![Away {
                from: moment("2026-10-05T00:00:00Z").seconds(),
                until: moment("2026-10-05T01:00:00Z").seconds(),
            }],
            used: 1,
            rules: vec![used],
        },
        sources: BTreeMap::new(),
        fleet: FleetReport::default(),
        bypassed: Some([("sales/orders".to_owned(), vec!["orders-7d9f".to_owned()])].into()),
        store: Some(StoreState { since: Some(moment("2026-10-03T00:00:00Z")), is_catching_up: false }),
    }
}

/// Records as they come, the latest first.
struct Given {
    pages: Vec<Vec<Entry>>,
    later: Vec<Entry>,
}

impl Decisions for Given {
    fn next(&mut self) -> Vec<Entry> {
        if self.pages.is_empty() { Vec::new() } else { self.pages.remove(0) }
    }

    fn noticed_later(&mut self) -> Vec<Entry> {
        self.later.clone()
    }

    fn has_failed(&self) -> bool {
        false
    }
}

fn gap(at: &str) -> Entry {
    Entry::Gap(Gap {
        time: moment(at),
        workload: "sales/orders".to_owned(),
        instance: "orders-7d9f".to_owned(),
        cause: GapCause::FilterDropped,
        lost: Some(12),
        lost_in_full: 3,
    })
}

fn decision(change: impl FnOnce(&mut Recorded)) -> Entry {
    let mut one = recorded();
    (one.shadow, one.candidate, one.stands_for, one.ended) = (None, None, 1, false);
    (one.degraded, one.time_refused) = (false, false);
    one.time = moment("2026-10-07T00:00:00Z");
    change(&mut one);
    Entry::Decision(Arc::new(one))
}

fn given() -> Given {
    let allowed = |one: &mut Recorded| {
        one.outcome = Outcome::Allow;
        one.reason = "allowed_by_rule".to_owned();
        one.rule = Some(RuleRef { name: "sales/writers".to_owned(), source: None });
    };
    let many = (0..600).map(|at| {
        decision(|one| {
            allowed(one);
            one.id = format!("ID-{at:04}");
            one.stands_for = 100;
        })
    });
    let others = vec![
        decision(|one| {
            allowed(one);
            one.identities = vec!["=HYPERLINK(\"http://evil\")".to_owned()];
            one.path = "@SUM(1)".to_owned();
            one.degraded = true;
        }),
        gap("2026-10-06T00:00:00Z"),
        decision(|one| {
            allowed(one);
            one.reason = "guard_in_shadow".to_owned();
            one.rule = None;
            one.identities = vec![];
            one.run = Some(Run {
                kind: RunKind::GitlabPipeline,
                id: "91".to_owned(),
                issuer: "gitlab".to_owned(),
                guessed: false,
                by_labels: false,
                attempt: None,
                job: None,
                project: Some("acme/etl".to_owned()),
                commit: None,
                reference: None,
                initiator: None,
                agent: None,
                model: None,
            });
            one.shadow = Some(Difference {
                outcome: Outcome::Deny,
                reason: "no_allow_matched".to_owned(),
                rule: None,
            });
        }),
    ];
    Given { pages: vec![many.collect(), others], later: vec![gap("2026-11-01T00:00:30Z")] }
}

/// Writes into a folder.
struct Folder<'f> {
    path: &'f Path,
    current: String,
}

impl Sink for Folder<'_> {
    fn open(&mut self, name: &str) -> io::Result<()> {
        self.current = name.to_owned();
        fs::write(self.path.join(name), "")
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        use io::Write;
        fs::OpenOptions::new().append(true).open(self.path.join(&self.current))?.write_all(text.as_bytes())
    }
}

fn keys(folder: &Path) -> Keyring {
    Keyring::open(&StateDir::open(folder).unwrap()).unwrap()
}

fn seal(folder: &Path, manifest: &Manifest, keys: &Keyring) {
    let bytes = manifest.bytes().unwrap();
    let signed = SignatureFile::from(keys.sign_evidence(&bytes).unwrap());
    fs::write(folder.join(MANIFEST), bytes).unwrap();
    fs::write(folder.join(SIGNATURE), signed.bytes().unwrap()).unwrap();
}

fn made(folder: &Path, keys: &Keyring) -> Manifest {
    let mut sink = Folder { path: folder, current: String::new() };
    let manifest = export(&inputs(), &mut given(), &mut sink).unwrap();
    seal(folder, &manifest, keys);
    manifest
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Names and contents.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

fn wrong(folder: &Path) -> String {
    verify(folder).unwrap().expect_err("a change is found").join("; ")
}

#[test]
fn the_same_inputs_make_the_same_bytes_and_nothing_is_wrong_with_them() {
    let state = tempfile::tempdir().unwrap();
    let keys = keys(state.path());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made(one.path(), &keys);
    made(two.path(), &keys);
    let (mut first, mut second) = (contents(one.path()), contents(two.path()));
    // A signature has a random part.
    assert!(first.remove(SIGNATURE).is_some() && second.remove(SIGNATURE).is_some());
    assert_eq!(first, second);
    let verified = verify(one.path()).unwrap().unwrap();
    assert_eq!(verified.fingerprint, keys.current().fingerprint().unwrap());
    assert_eq!(
        first.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "CONTROLS.md",
            "chain.csv",
            "decisions-by-identity.csv",
            "decisions-by-resource.csv",
            "decisions-by-run.csv",
            "decisions.csv",
            "exceptions.csv",
            "interventions.csv",
            "manifest.json",
            "record-gaps.csv",
            "rule-history.csv",
            "rules-in-force.csv",
            "who-can.csv",
        ]
    );
}

#[test]
fn every_change_of_every_file_is_found_and_told_where_it_is() {
    let state = tempfile::tempdir().unwrap();
    let keys = keys(state.path());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made(folder, &keys);
    for (name, content) in contents(folder) {
        let path = folder.join(&name);
        for at in [0, content.len() / 2, content.len() - 1] {
            let mut changed = content.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(wrong(folder).contains(&name), "{name} at {at}: {}", wrong(folder));
        }
        // The last line is cut off, and one is put in.
        let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
        for changed in [lines[..lines.len() - 1].concat(), [&content[..], lines[lines.len() - 1]].concat()] {
            fs::write(&path, changed).unwrap();
            assert!(wrong(folder).contains(&name), "{name}");
        }
        fs::remove_file(&path).unwrap();
        assert!(wrong(folder).contains(&name), "{name}");
        fs::write(&path, content).unwrap();
    }
    // 605 lines are three blocks.
    let text = read(folder, "decisions.csv");
    fs::write(folder.join("decisions.csv"), text.replacen("ID-0300", "ID-0301", 1)).unwrap();
    assert!(wrong(folder).contains("the first change is in lines 257 to 512"), "{}", wrong(folder));
    fs::write(folder.join("decisions.csv"), text).unwrap();
    fs::write(folder.join("more.csv"), "x").unwrap();
    assert!(wrong(folder).contains("`more.csv` is no part"), "{}", wrong(folder));
    fs::remove_file(folder.join("more.csv")).unwrap();
    verify(folder).unwrap().unwrap();
}

#[test]
fn who_changes_everything_has_another_key() {
    let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (own, others) = (keys(state.path()), keys(other.path()));
    let folder = tempfile::tempdir().unwrap();
    let manifest = made(folder.path(), &own);
    seal(folder.path(), &manifest, &others);
    let verified = verify(folder.path()).unwrap().unwrap();
    assert_ne!(verified.fingerprint, own.current().fingerprint().unwrap());
    // The right key's name on the wrong key's signature.
    let mut signed: SignatureFile = serde_json::from_str(&read(folder.path(), SIGNATURE)).unwrap();
    signed.fingerprint = own.current().fingerprint().unwrap();
    fs::write(folder.path().join(SIGNATURE), signed.bytes().unwrap()).unwrap();
    assert!(wrong(folder.path()).contains("no signature"));
    signed.key = TrustedKey { ..own.current() };
    fs::write(folder.path().join(SIGNATURE), signed.bytes().unwrap()).unwrap();
    assert!(wrong(folder.path()).contains("no signature"));
    // A signature over what filters enforce is none over evidence.
    let bytes = manifest.bytes().unwrap();
    signed.signature = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        own.sign(&bytes).unwrap().signature,
    );
    fs::write(folder.path().join(SIGNATURE), signed.bytes().unwrap()).unwrap();
    assert!(wrong(folder.path()).contains("no signature"));
}

#[test]
fn files_that_are_exchanged_break_the_chain() {
    let state = tempfile::tempdir().unwrap();
    let keys = keys(state.path());
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = made(folder.path(), &keys);
    manifest.files.swap(0, 1);
    seal(folder.path(), &manifest, &keys);
    assert!(wrong(folder.path()).contains("the chain does not end"), "{}", wrong(folder.path()));
    manifest.files.swap(0, 1);
    manifest.to = moment("2026-12-01T00:00:00Z");
    seal(folder.path(), &manifest, &keys);
    assert!(wrong(folder.path()).contains("the chain does not end"), "the time is part of it");
    manifest.format = "tidegate.evidence/9".to_owned();
    seal(folder.path(), &manifest, &keys);
    assert!(wrong(folder.path()).contains("this program knows"));
    fs::remove_file(folder.path().join(MANIFEST)).unwrap();
    assert!(wrong(folder.path()).contains("is missing"));
}

#[test]
fn what_is_missing_is_said() {
    let state = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &keys(state.path()));
    let gaps = read(folder.path(), "record-gaps.csv");
    for line in [
        "2026-10-06T00:00:00.000000Z,sales/orders,orders-7d9f,filter_dropped,12,3,\r\n",
        "2026-11-01T00:00:30.000000Z,sales/orders,orders-7d9f,filter_dropped,12,3,\"noticed after the time",
        "2026-10-03T00:00:00.000000Z,,,before_store,unknown",
        "2026-10-05T00:00:00.000000Z,,,control_plane_away,unknown",
    ] {
        assert!(gaps.contains(line), "{line} in {gaps}");
    }
    let controls = read(folder.path(), "CONTROLS.md");
    for text in [
        "SOC 2 CC6.1",
        "SOC 2 CC6.3",
        "SOC 2 CC7.2",
        "A.5.15",
        "A.5.18",
        "A.8.15",
        "602 records are here",
        "600 records here stand for more requests than one",
        "1 gaps are known, with at least 12",
        "does not reach back",
    ] {
        assert!(controls.contains(text), "{text} in {controls}");
    }
    let mut nothing = inputs();
    (nothing.store, nothing.bypassed, nothing.rules) = (None, None, None);
    let mut sink = Folder { path: folder.path(), current: String::new() };
    export(&nothing, &mut Given { pages: vec![], later: vec![] }, &mut sink).unwrap();
    assert!(read(folder.path(), "record-gaps.csv").contains("not_kept"));
    assert!(read(folder.path(), "exceptions.csv").contains("bypassed-not-known"));
    let controls = read(folder.path(), "CONTROLS.md");
    for text in ["does not see pods", "No rules were on offer", "are not kept by this control plane"] {
        assert!(controls.contains(text), "{text} in {controls}");
    }
}

fn rollout(workload: &str, state: RolloutState) -> RolloutReport {
    RolloutReport {
        workload: workload.to_owned(),
        state,
        rules: 3,
        digest: "d3".to_owned(),
        before: 2,
        before_digest: "d2".to_owned(),
        since: 2,
        canaries: ["orders-1".to_owned()].into(),
        proxies: 3,
        hold_s: 60,
        held_s: 0,
        requests: 0,
        new_refusals: 0,
        most_new_refusals: None,
        min_requests: None,
        why: None,
        by: None,
        at: None,
    }
}

#[test]
fn tables_say_who_did_what_and_what_is_not_as_it_should_be() {
    let state = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &keys(state.path()));
    let has = |name: &str, line: &str| {
        let text = read(folder.path(), name);
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {name}: {text}");
    };
    has("decisions-by-identity.csv", "(nobody proved anything),sales/orders,allow,guard_in_shadow,,1,1,,");
    has("decisions-by-run.csv", "GitLab pipeline,gitlab,91,token,acme/etl,,,allow,1,1,,");
    let resources = read(folder.path(), "decisions-by-resource.csv");
    assert!(resources.contains(",60001,601,yes,2026-10-07T00:00:00.000000Z,"), "{resources}");
    has(
        "rules-in-force.csv",
        "sales/writers,Allow,Enforce,sampled,'=billing,,1,sales/orders,,,,,,2026-10-09T00:00",
    );
    has("who-can.csv", "lab/scratch,anything,Allow,Enforce,everybody,,");
    let who = read(folder.path(), "who-can.csv");
    assert!(who.contains("sales/writers") && who.contains(",Deny,Shadow,"), "{who}");
    for line in [
        "passed-unenforced,sales/orders,,,,,no_allow_matched,,1,1,,",
        "passed-without-directory,sales/orders,sales/writers,,,,allowed_by_rule,,1,1,,",
        "rule-in-shadow,sales/orders,sales/trial,",
        "unguarded,lab/scratch,",
        "suspended,sales/orders,s-1,1970-01-01T00:00:01.000000Z,1970-01-01T00:00:02.000000Z,somebody,'@import month end,OPS-7,",
        "pinned,,rule set 2,",
        "changed-rules-held-back,sales/orders,rule set 3 (those of 2 are enforced),1970-01-01T00:00:02.000000Z,,,canaries",
        "changed-rules-given-up,lab/scratch,rule set 3 (those of 2 are enforced),1970-01-01T00:00:03.000000Z,,,'+40 of",
        "bypassed,sales/orders,orders-7d9f,",
    ] {
        has("exceptions.csv", line);
    }
    let controls = read(folder.path(), "CONTROLS.md");
    for line in read(folder.path(), "exceptions.csv").lines().skip(1) {
        let kind = line.split(',').next().unwrap();
        assert!(controls.contains(&format!("| {kind} |")), "{kind}");
    }
    let first = "2026-09-01T00:00:00.000000Z,1,d1,in force before,";
    has("rule-history.csv", &format!("{first}a.yaml,1,1,"));
    has("rule-history.csv", "2026-10-10T00:00:00.000000Z,2,d2,changed,a.yaml,1,2,");
    has("rule-history.csv", "2026-10-10T00:00:00.000000Z,2,d2,removed,b.yaml,1,,");
    has("rule-history.csv", "2026-10-10T00:00:00.000000Z,2,d2,added,c.yaml,,1,");
    has("rule-history.csv", "2026-10-20T00:00:00.000000Z,3,d3,unknown,,,,its files are not kept");
    let history = read(folder.path(), "rule-history.csv");
    assert!(!history.contains(",4,d4,"), "accepted when the time was over: {history}");
}

#[test]
fn what_people_did_is_told_where_it_was_in_force_in_the_time_with_how_it_ended() {
    let state = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &keys(state.path()));
    let day = |text: &str| format!("2026-{text}T00:00:00.000000Z");
    let line = |kind: &str, id: &str, what: &str, from: &str, end: &str| {
        let (from, until) = (day(from), day("12-01"));
        format!("{kind},{id},{what},{from},ann,'+month end,OPS-7,{until},{end},")
    };
    let told: Vec<String> =
        read(folder.path(), "interventions.csv").lines().skip(1).map(str::to_owned).collect();
    let expected = [
        format!("unknown,,,{},,,,,,,,what ended before {} is not all kept", day("10-01"), day("10-03")),
        line("suspended", "s-2", "sales/orders", "09-01", &format!("{},lifted,bob", day("10-01"))),
        line("suspended", "s-3", "sales/orders", "10-04", &format!("{},replaced,'=bob", day("10-05"))),
        line("revoked", "r-4", "Caller data/etl", "10-06", &format!("{},its time was over,", day("11-20"))),
        line("pinned", "", "rule set 2 (d2)", "09-01", &format!("{},lifted,bob", day("11-20"))),
        line("revoked", "r-5", "key k-1 of gitlab", "10-31", ",in force,"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_revoked_is_told_without_what_is_not_safe() {
    let state = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &keys(state.path()));
    let exceptions = read(folder.path(), "exceptions.csv");
    for told in ["r-1: a token of gitlab", "r-1: a subject of okta", "data/orders-etl"] {
        assert!(exceptions.contains(told), "{told} in {exceptions}");
    }
    for (name, content) in contents(folder.path()) {
        let text = String::from_utf8(content).unwrap();
        assert!(!text.contains("jti-4711") && !text.contains("ann@acme.example"), "{name}");
    }
}

#[test]
fn no_cell_is_a_formula_and_every_record_is_one_line() {
    let state = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    made(folder.path(), &keys(state.path()));
    for (name, content) in contents(folder.path()) {
        if !name.ends_with(".csv") {
            continue;
        }
        let text = String::from_utf8(content).unwrap();
        let columns = text.lines().next().unwrap().split(',').count();
        for line in text.lines() {
            let cells = cells(line);
            assert_eq!(cells.len(), columns, "{name}: {line}");
            for cell in cells {
                assert!(!cell.starts_with(['=', '+', '-', '@']), "{name}: {line}");
            }
        }
    }
    assert_eq!(row(&["a\r\nb", "=x"]), "a  b,'=x\r\n");
}

/// The cells of a line (RFC 4180).
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}
