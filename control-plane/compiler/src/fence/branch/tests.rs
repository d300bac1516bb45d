//! How branches become fewer.

use super::*;

fn branch(principal: &str, method: &str, path: &str) -> Branch {
    Branch {
        interlock: false,
        principals: Values::one(principal),
        hosts: Values::Any,
        methods: Values::one(method),
        paths: Values::one(path),
        ports: Values::Any,
        when: BTreeMap::new(),
    }
}

#[test]
fn what_differs_in_one_part_is_merged_without_loss() {
    let (branches, widened) = fit(vec![
        branch("td/ns/a/sa/b", "GET", "/x"),
        branch("td/ns/a/sa/b", "GET", "/y"),
        branch("td/ns/a/sa/b", "POST", "/x"),
        branch("td/ns/a/sa/b", "POST", "/y"),
    ]);
    assert!(widened.is_empty(), "{widened:?}");
    assert_eq!(branches.len(), 1, "{branches:?}");
}

#[test]
fn more_than_the_most_branches_are_widened_step_by_step() {
    let many: Vec<Branch> = (0..200)
        .map(|number| branch(&format!("td/ns/n{}/sa/a{number}", number % 50), "GET", &format!("/{number}")))
        .collect();
    let (branches, widened) = fit(many.clone());
    assert!(branches.len() <= MAX_BRANCHES, "{}", branches.len());
    assert!(widened.contains(&Widened::Callers), "{widened:?}");
    for one in &many {
        let covers = |values: &Values, part: &Values| match (values, part) {
            (Values::Any, _) => true,
            (Values::Of(all), Values::Of(part)) => part.is_subset(all),
            _ => false,
        };
        let covered = branches
            .iter()
            .any(|branch| covers(&branch.principals, &one.principals) && covers(&branch.paths, &one.paths));
        assert!(covered, "{one:?}");
    }
    let mut reversed = many;
    reversed.reverse();
    assert_eq!(fit(reversed).0, branches);
}

#[test]
fn operations_of_one_caller_give_way_before_callers_do() {
    let many = (0..200).map(|number| {
        branch(&format!("td/ns/n/sa/a{}", number % 20), &format!("M{number}"), &format!("/{number}"))
    });
    let (branches, widened) = fit(many.collect());
    assert_eq!(branches.len(), 20);
    assert_eq!(widened.into_iter().collect::<Vec<_>>(), [Widened::Conditions, Widened::Operations]);
}

#[test]
fn a_branch_with_an_interlock_is_never_merged_with_one_without() {
    let many = (0..400).map(|number| Branch {
        interlock: number % 2 == 0,
        ..branch(&format!("td/ns/n{number}/sa/a"), &format!("M{number}"), &format!("/{number}"))
    });
    let (branches, _) = fit(many.collect());
    assert!(branches.len() <= MAX_BRANCHES);
    for branch in &branches {
        let Values::Of(methods) = &branch.methods else { panic!("{branch:?}") };
        let even =
            methods.iter().all(|method| method.trim_start_matches('M').parse::<u32>().unwrap() % 2 == 0);
        assert_eq!(even, branch.interlock, "{branch:?}");
    }
}

#[test]
fn too_many_values_are_said_by_what_they_have_in_common() {
    let accounts = (0..300).map(|number| branch(&format!("td/ns/n{}/sa/a{number}", number % 2), "GET", "/x"));
    let (branches, widened) = fit(accounts.collect());
    assert_eq!(widened.into_iter().collect::<Vec<_>>(), [Widened::Values]);
    let expected = BTreeSet::from(["td/ns/n0/sa/*".to_owned(), "td/ns/n1/sa/*".to_owned()]);
    assert_eq!(branches.first().map(|branch| &branch.principals), Some(&Values::Of(expected)));
    let paths = (0..300).map(|number| branch("td/ns/a/sa/b", "GET", &format!("/{number}")));
    assert_eq!(fit(paths.collect()).0.first().map(|branch| &branch.paths), Some(&Values::Any));
}

#[test]
fn what_a_prefix_covers_is_not_said_again() {
    let (branches, _) = fit(vec![
        branch("td/ns/a/sa/b", "GET", "/v1/*"),
        branch("td/ns/a/sa/b", "GET", "/v1/orders"),
        branch("td/ns/a/sa/b", "GET", "/v1/{*}"),
        branch("td/ns/a/sa/b", "GET", "/v1/a*"),
        branch("td/ns/a/sa/b", "GET", "/v10"),
    ]);
    let expected = BTreeSet::from(["/v1/*".to_owned(), "/v10".to_owned()]);
    assert_eq!(branches.first().map(|branch| &branch.paths), Some(&Values::Of(expected)));
}
