//! From one state to the next: no Bundle that may be in force allows what the Fence beside it refuses.

use super::*;
use tidegate_compiler::fence::{Step, transition};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn in_no_step_does_the_fence_refuse_what_a_filter_allows(
        states in prop::collection::vec((models(), any::<bool>(), tcp_ports()), 2..4),
        all in aims(8),
    ) {
        let made: Vec<Fence> = states
            .iter()
            .map(|(model, interlock, tcp)| fence(&compiled(model, tcp), &options(*interlock)))
            .collect();
        let policies: Vec<PolicySet> = states.iter().map(|(model, ..)| decoded(model)).collect();
        let models: Vec<&PolicyModel> = states.iter().map(|(model, ..)| model).collect();
        let all: Vec<Call> = all.iter().map(|aim| aim.at(&models)).collect();
        for (at, pair) in made.windows(2).enumerate() {
            let [old, new] = pair else { unreachable!() };
            let steps = transition(old, new);
            let position = steps.iter().position(|step| *step == Step::Bundle).expect("Bundles are pushed once");
            prop_assert_eq!(steps.iter().filter(|step| **step == Step::Bundle).count(), 1);
            // While objects are applied, any mixture of the old and the new ones may be in force.
            let mut in_force = objects(old);
            for (number, step) in steps.iter().enumerate() {
                let bundles: &[&PolicySet] = match number.cmp(&position) {
                    std::cmp::Ordering::Less => &[&policies[at]],
                    std::cmp::Ordering::Equal => &[&policies[at], &policies[at + 1]],
                    std::cmp::Ordering::Greater => &[&policies[at + 1]],
                };
                let mut fences = vec![in_force.clone()];
                if let Step::Fence(next) = step {
                    for object in objects(next) {
                        in_force.retain(|known| known["metadata"]["name"] != object["metadata"]["name"] || known["kind"] != object["kind"]);
                        in_force.push(object);
                        fences.push(in_force.clone());
                    }
                    in_force = objects(next);
                    fences.push(in_force.clone());
                }
                for call in &all {
                    for bundle in bundles {
                        if call.outcomes(bundle, Normalization::Base).contains(&Outcome::Allow) {
                            let secret = [old, new].iter().any(|fence| fence.workloads[&id()].interlock.is_some()).then_some(SECRET);
                            let seen = call.seen(Normalization::Base, secret);
                            for objects in &fences {
                                prop_assert!(allows(objects, &labels(), &seen), "step {number} of {steps:#?}\n{call:?}");
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(in_force, objects(new));
        }
    }
}

fn with(methods: &[&str], deny: &[&str]) -> Fence {
    let rule = |id: &str, effect, methods: &[&str]| RuleModel {
        id: id.to_owned(),
        effect,
        mode: Mode::Enforce,
        owner: String::new(),
        contact: String::new(),
        disclosure: Disclosure::Full,
        audit: Default::default(),
        lease: Lease::default(),
        revokes: false,
        from: vec![FromModel {
            peer: PeerModel::AnyMesh { trust_domain: "prod.example".to_owned() },
            issuers: Vec::new(),
            condition: Condition::True,
        }],
        to: Some(vec![OperationModel {
            methods: Some(methods.iter().map(|method| (*method).to_owned()).collect()),
            ..OperationModel::default()
        }]),
    };
    let mut rules = vec![rule("a/a", Effect::Allow, methods).into()];
    rules.extend((!deny.is_empty()).then(|| rule("a/b", Effect::Deny, deny).into()));
    let guard =
        GuardModel { id: "a/g".into(), mode: Mode::Enforce, ports: Some(vec![8080]), audiences: None };
    fence(
        &compiled(&PolicyModel { guards: vec![guard], rules, ..PolicyModel::default() }, &[]),
        &options(false),
    )
}

fn kinds(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().map(|step| if *step == Step::Bundle { "bundle" } else { "fence" }).collect()
}

#[test]
fn widening_begins_with_the_fence_and_narrowing_with_the_bundle() {
    let (narrow, wide) = (with(&["GET"], &[]), with(&["GET", "POST"], &[]));
    assert_eq!(kinds(&transition(&narrow, &narrow)), ["bundle"]);
    // What both let through is written as two rules, until the old one is not needed any more.
    assert_eq!(kinds(&transition(&narrow, &wide)), ["fence", "bundle", "fence"]);
    assert_eq!(kinds(&transition(&wide, &narrow)), ["fence", "bundle", "fence"]);
    let denying = with(&["GET"], &["DELETE"]);
    assert_eq!(kinds(&transition(&narrow, &denying)), ["bundle", "fence"]);
    assert_eq!(kinds(&transition(&denying, &narrow)), ["fence", "bundle"]);
    assert_eq!(kinds(&transition(&Fence::default(), &narrow)), ["bundle", "fence"]);
    assert_eq!(kinds(&transition(&narrow, &Fence::default())), ["fence", "bundle"]);
}
