use super::*;

fn wanted(spec: Value) -> IstioObject {
    let labels = [(MANAGED_BY, MANAGER), (WORKLOAD, "orders")];
    IstioObject {
        api_version: KINDS[0].0,
        kind: KINDS[0].1,
        namespace: "sales".into(),
        name: "tidegate-orders".into(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        annotations: BTreeMap::new(),
        spec,
    }
}

fn live(spec: Value, manager: &str, operation: &str, labels: Value) -> Lives {
    let object = json!({
        "apiVersion": KINDS[0].0,
        "kind": KINDS[0].1,
        "metadata": {
            "namespace": "sales", "name": "tidegate-orders", "uid": "u", "resourceVersion": "7",
            "labels": labels,
            "managedFields": [{"manager": manager, "operation": operation}],
        },
        "spec": spec,
    });
    let object = serde_json::from_value(object).unwrap();
    let (key, live) = Live::new((KINDS[0].0, KINDS[0].1), &object).unwrap();
    BTreeMap::from([(key, Arc::new(live))])
}

fn wish(object: &IstioObject) -> Desired {
    Desired::from([(Key::of(object), Arc::new(object.clone()))])
}

fn changes(live: &Lives, desired: &Desired) -> Vec<Change> {
    super::changes(live, desired, &Agreed::default())
}

fn ours() -> Value {
    json!({MANAGED_BY: MANAGER, WORKLOAD: "orders"})
}

#[test]
fn only_what_differs_is_written() {
    let object = wanted(json!({"action": "ALLOW", "rules": []}));
    let desired = wish(&object);
    let there = |spec| live(spec, MANAGER, "Apply", ours());
    assert_eq!(changes(&there(object.spec.clone()), &desired), []);
    assert_eq!(changes(&BTreeMap::new(), &desired), [Change::Apply(Arc::new(object.clone()))]);
    assert_eq!(
        changes(&there(json!({"action": "DENY", "rules": []})), &desired),
        [Change::Apply(Arc::new(object.clone()))]
    );
    let without_label = live(object.spec.clone(), MANAGER, "Apply", json!({}));
    assert_eq!(changes(&without_label, &desired), [Change::Apply(Arc::new(object))]);
}

#[test]
fn what_somebody_added_is_taken_away() {
    let object = wanted(json!({"action": "ALLOW"}));
    let desired = wish(&object);
    let added = live(json!({"action": "ALLOW", "selector": {}}), MANAGER, "Apply", ours());
    assert!(
        matches!(&changes(&added, &desired)[..], [Change::Strip { fields, .. }] if *fields == [["selector"]])
    );
}

#[test]
fn what_somebody_added_inside_is_taken_away_as_well() {
    let object = wanted(json!({"action": "ALLOW", "selector": {"matchLabels": {"app": "orders"}}}));
    let desired = wish(&object);
    let labels = json!({"matchLabels": {"app": "orders", "nobody": "has-this"}});
    let added = live(json!({"action": "ALLOW", "selector": labels}), MANAGER, "Apply", ours());
    let found = changes(&added, &desired);
    let [Change::Strip { fields, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*fields, [["selector", "matchLabels", "nobody"]]);
    let mut patch = json!({});
    set_null(&mut patch, &fields[0]);
    assert_eq!(patch, json!({"selector": {"matchLabels": {"nobody": null}}}));
    let other = live(
        json!({"action": "DENY", "selector": {"matchLabels": {"app": "orders", "x": "y"}}}),
        MANAGER,
        "Apply",
        ours(),
    );
    assert_eq!(changes(&other, &desired), [Change::Apply(Arc::new(object))], "what differs comes first");
}

/// What was found right once is looked at again when either is another, also where it is at the same place.
#[test]
fn what_is_known_to_be_right_is_so_only_of_these_two() {
    let agreed = Agreed::default();
    let object = wanted(json!({"action": "ALLOW"}));
    let (desired, other) = (wish(&object), wish(&wanted(json!({"action": "DENY"}))));
    let there = live(object.spec.clone(), MANAGER, "Apply", ours());
    let count = |live: &Lives, desired: &Desired| super::changes(live, desired, &agreed).len();
    for _ in 0..2 {
        assert_eq!((count(&there, &desired), count(&there, &other)), (0, 1));
    }
    let edited = live(json!({"action": "DENY"}), "kubectl", "Update", ours());
    assert_eq!((count(&edited, &desired), count(&edited, &other)), (1, 1), "nobody applied it");
    let edited = live(json!({"action": "DENY"}), MANAGER, "Apply", ours());
    assert_eq!((count(&edited, &desired), count(&edited, &other), count(&there, &desired)), (1, 0, 0));
    agreed.forget_all_but(&Lives::new());
    assert!(agreed.0.lock().unwrap().is_empty());
    assert_eq!(count(&edited, &desired), 1);
}

#[test]
fn only_objects_of_ours_are_deleted() {
    let nothing = Desired::new();
    let spec = json!({"action": "ALLOW"});
    let count = |live| changes(&live, &nothing).len();
    assert_eq!(count(live(spec.clone(), MANAGER, "Apply", ours())), 1);
    assert_eq!(count(live(spec.clone(), "kubectl", "Apply", ours())), 0, "a copy that somebody made");
    assert_eq!(count(live(spec.clone(), MANAGER, "Update", ours())), 0);
    assert_eq!(count(live(spec, MANAGER, "Apply", json!({}))), 0);
}
