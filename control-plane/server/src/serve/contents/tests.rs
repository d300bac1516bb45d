use tidegate_compiler::DirectoryQuery;
use tidegate_engine::directory::Directories as Section;
use tidegate_identity::IssuerSet;

use super::*;
use crate::directories::Listing;
use crate::keys::KeyRing;
use crate::rules::{Environment, Files};

const NOW: i64 = 1_800_000_000;

const RULES: &str = r#"
apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod}
spec:
  trustDomain: prod.example
  rootNamespace: mesh-config
  workloads:
  - {namespace: sales, name: orders, labels: {app: orders}, serviceAccount: orders}
  - {namespace: sales, name: ledger, labels: {app: ledger}, serviceAccount: ledger}
  - {namespace: free, name: web, labels: {app: web}, serviceAccount: web}
  gateways:
  - {namespace: ingress, name: dataflow-in, labels: {gateway: dataflow-in}, serviceAccount: dataflow-in}
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: google}
spec: {issuer: "https://accounts.google.com", pack: google, keys: {jwksUri: "https://www.googleapis.com/oauth2/v3/certs"}}
---
apiVersion: tidegate.dev/v1alpha1
kind: TrustedIssuer
metadata: {name: prod-cluster}
spec: {issuer: "https://kubernetes.prod.example", pack: kubernetes, keys: {discovery: true}}
---
apiVersion: tidegate.dev/v1alpha1
kind: Guard
metadata: {name: sales, namespace: sales}
spec: {mode: Enforce, audience: "https://orders.sales.example"}
---
apiVersion: tidegate.dev/v1alpha1
kind: AccessRule
metadata: {name: etl, namespace: sales}
spec:
  owner: billing
  target: {selector: {matchLabels: {app: orders}}}
  effect: Allow
  mode: Enforce
  from:
  - tokenOnly: {via: [ingress/dataflow-in]}
    tokens: [{issuer: google, dataflowJob: {name: orders-etl, project: acme, region: europe-west4}}]
  to: [{http: {methods: [POST], paths: ["/v1/orders/{id}"]}}]
"#;

const DIRECTORY: &str = "dataflow/acme/europe-west4/orders-etl";

fn compiled() -> Compiled {
    let files = Files::from([("rules.yaml".to_owned(), RULES.to_owned())]);
    let compilation = crate::serve::compile_files(&files, &Environment::new());
    compilation.output.unwrap_or_else(|| panic!("{:#?}", compilation.diagnostics))
}

/// What a file says.
fn directories(ids: &[&str]) -> Arc<Directories> {
    let listing = |ids: &[&str]| Listing {
        ids: Arc::new(ids.iter().map(|id| id.to_string()).collect()),
        fresh_until: None,
    };
    let listings =
        BTreeMap::from([(DIRECTORY.to_owned(), listing(ids)), ("other".to_owned(), listing(&["1"]))]);
    Arc::new(Directories { listings, ..Default::default() })
}

fn section(contents: &Contents, kind: pb::SectionKind) -> Option<&Arc<crate::bundle::Section>> {
    contents.sections.iter().find(|section| section.kind() == kind)
}

#[test]
fn every_workload_of_the_mesh_has_contents_and_says_whether_it_is_guarded() {
    let contents = Assembler::default()
        .contents(&compiled(), &KeyRing::default(), &Directories::default(), &Kept::default(), NOW)
        .unwrap();
    let coverage: Vec<_> =
        contents.iter().map(|(workload, contents)| (workload.as_str(), contents.coverage)).collect();
    assert_eq!(
        coverage,
        [
            ("free/web", pb::Coverage::Unguarded),
            ("ingress/dataflow-in", pb::Coverage::Unguarded),
            ("sales/ledger", pb::Coverage::Guarded),
            ("sales/orders", pb::Coverage::Guarded),
        ]
    );
    assert!(contents.values().all(|contents| section(contents, pb::SectionKind::Rules).is_some()));
}

#[test]
fn rules_of_policies_that_did_not_change_are_not_hashed_again() {
    let mut assembler = Assembler::default();
    let mut round = |compiled: &Compiled| {
        let (keys, kept) = (KeyRing::default(), Kept::default());
        let contents = assembler.contents(compiled, &keys, &Directories::default(), &kept, NOW).unwrap();
        let section = |workload: &str| section(&contents[workload], pb::SectionKind::Rules).unwrap().clone();
        [section("sales/orders"), section("sales/ledger")].map(|section| Arc::downgrade(&section))
    };
    let mut compiled = compiled();
    let first = round(&compiled);
    // Nobody else holds them.
    assert!(first.iter().all(|section| section.strong_count() == 1));
    for (id, policy) in &mut compiled.workloads {
        if id.name == "orders" {
            Arc::make_mut(policy).rules.push(0);
        }
    }
    let second = round(&compiled);
    assert!(first[0].upgrade().is_none() && second[0].upgrade().is_some());
    assert!(std::sync::Weak::ptr_eq(&first[1], &second[1]) && first[1].upgrade().is_some());
}

#[test]
fn only_issuers_and_directories_that_rules_read_travel() {
    let compiled = compiled();
    let contents = Assembler::default()
        .contents(&compiled, &KeyRing::default(), &directories(&["1"]), &Kept::default(), NOW)
        .unwrap();
    let ledger = &contents["sales/ledger"];
    assert!(section(ledger, pb::SectionKind::Keys).is_none());
    assert!(section(ledger, pb::SectionKind::Directory).is_none());
    let orders = &contents["sales/orders"];
    let keys = IssuerSet::decode(section(orders, pb::SectionKind::Keys).unwrap().content()).unwrap();
    assert_eq!(keys.issuers().len(), 1);
    let directory = Section::decode(section(orders, pb::SectionKind::Directory).unwrap().content()).unwrap();
    use tidegate_engine::Truth;
    assert_eq!(directory.lists(DIRECTORY, "1", NOW), Truth::True);
    assert_eq!(directory.lists(DIRECTORY, "2", NOW), Truth::False);
    assert_eq!(directory.lists(DIRECTORY, "1", NOW + 25 * 3_600), Truth::Unknown, "it gets stale");
    assert_eq!(directory.lists("other", "1", NOW), Truth::Unknown, "it does not travel");
    let lookups = lookups(&compiled, &Staged::new(), &directories(&["1"]));
    assert_eq!(lookups.readable.keys().collect::<Vec<_>>(), ["sales/orders"]);
    assert_eq!(lookups.readable["sales/orders"], BTreeSet::from([DIRECTORY.to_owned()]));
}

#[test]
fn an_issuer_whose_keys_never_came_travels_without_keys_and_out_of_date() {
    let contents = Assembler::default()
        .contents(&compiled(), &KeyRing::default(), &Directories::default(), &Kept::default(), NOW)
        .unwrap();
    let section = section(&contents["sales/orders"], pb::SectionKind::Keys).unwrap();
    let spec = IssuerSetSpec::decode(section.content()).unwrap();
    assert_eq!((spec.issuers[0].name.as_str(), spec.issuers[0].keys.len()), ("google", 0));
    assert!(spec.issuers[0].valid_until < NOW);
}

#[test]
fn new_ids_change_the_directory_section_only() {
    let compiled = compiled();
    let mut assembler = Assembler::default();
    let mut contents = |ids: &[&str], now| {
        let mut all = assembler
            .contents(&compiled, &KeyRing::default(), &directories(ids), &Kept::default(), now)
            .unwrap();
        all.remove("sales/orders").unwrap().sections
    };
    let before = contents(&["1"], NOW);
    let same = contents(&["1"], NOW + 60);
    assert!(before.iter().zip(&same).all(|(a, b)| Arc::ptr_eq(a, b)), "nothing changed");
    let after = contents(&["1", "2"], NOW + 60);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| a.kind()).collect();
    assert_eq!(changed, [pb::SectionKind::Directory]);
}

#[test]
fn a_directory_that_was_read_counts_until_its_own_end() {
    let compiled = compiled();
    let mut directories = directories(&["1"]);
    let listing = Arc::make_mut(&mut directories).listings.get_mut(DIRECTORY).unwrap();
    listing.fresh_until = Some(NOW + 120);
    let contents = Assembler::default()
        .contents(&compiled, &KeyRing::default(), &directories, &Kept::default(), NOW)
        .unwrap();
    let section = section(&contents["sales/orders"], pb::SectionKind::Directory).unwrap();
    let directory = Section::decode(section.content()).unwrap();
    use tidegate_engine::Truth;
    assert_eq!(directory.lists(DIRECTORY, "1", NOW + 120), Truth::True);
    assert_eq!(directory.lists(DIRECTORY, "1", NOW + 121), Truth::Unknown);
}

#[test]
fn only_directories_that_rules_name_are_to_be_read() {
    let [project, region, name] = ["acme", "europe-west4", "orders-etl"].map(str::to_owned);
    let query = DirectoryQuery::DataflowJob { project, region, name };
    assert_eq!(queries(&compiled()), Queries::from([(DIRECTORY.to_owned(), query)]));
}
