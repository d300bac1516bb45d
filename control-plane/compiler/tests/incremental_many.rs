//! What is kept of a workload of many rules, for the next edit of one, changes nothing of what is said.
//!
//! `TIDEGATE_CASES` sets the number of cases (default 4), each of up to ten edits.

mod common;

use common::{GUARD, ISSUERS, MESH, env, files, rule, shown};
use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_compiler::{Compilation, Compiler, Inputs, SourceFile, compile};

/// More than the compiler takes for few.
const MANY: usize = 300;
/// More than are read as one piece.
const PER_FILE: usize = 130;

/// What a rule says. Numbers are small, so that rules meet and cover each other.
#[derive(Debug, Clone)]
struct Says {
    kind: u8,
    number: u8,
    path: u8,
    denies: bool,
    is_shadow: bool,
}

#[derive(Debug, Clone)]
enum Edit {
    Says(Index, Says),
    /// As another one.
    Copies(Index, Index),
    Goes(Index),
    Comes(Says),
    /// Of one rule the name, so that it is elsewhere among the others.
    Named(Index),
    /// A line more, so that places are others and rules are not.
    Moves(Index),
    Guard,
    Issuer,
}

fn says() -> impl Strategy<Value = Says> {
    (0u8..8, 0u8..6, 0u8..6, prop::bool::weighted(0.3), prop::bool::weighted(0.1))
        .prop_map(|(kind, number, path, denies, is_shadow)| Says { kind, number, path, denies, is_shadow })
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        6 => (at(), says()).prop_map(|(at, says)| Edit::Says(at, says)),
        3 => (at(), at()).prop_map(|(at, of)| Edit::Copies(at, of)),
        2 => at().prop_map(Edit::Goes),
        2 => says().prop_map(Edit::Comes),
        1 => at().prop_map(Edit::Named),
        1 => at().prop_map(Edit::Moves),
        1 => Just(Edit::Guard),
        1 => Just(Edit::Issuer),
    ]
}

impl Says {
    fn text(&self, name: &str) -> String {
        let Self { kind, number, path, .. } = self;
        let peer = format!("  - peer: {{namespace: etl, serviceAccounts: [worker-{number}]}}\n");
        let gitlab = |more: &str| {
            format!(
                "    tokens: [{{issuer: gitlab, as: job, gitlab: {{project: {}{more}}}}}]\n",
                4000 + u32::from(*number)
            )
        };
        let from = match kind {
            0 | 1 => peer,
            2 => peer + &gitlab(", protectedRef: true, environment: production"),
            3 => peer + &gitlab(", environment: production"),
            4 => format!("  - anyMesh: true\n{}", gitlab("")),
            5 => format!("{peer}    tokens: [{{issuer: prod-cluster}}]\n"),
            6 => format!(
                "  - peer: {{namespace: etl}}\n{}    when: ['job.job_id == \"{number}\"']\n",
                gitlab("")
            ),
            _ => peer.replace("}\n", "}\n  - peer: {namespace: ci}\n"),
        };
        let effect = if self.denies { "Deny" } else { "Allow" };
        let mode = if self.is_shadow { "mode: Shadow" } else { "mode: Enforce" };
        rule(
            effect,
            from.trim_end(),
            &format!("  - http: {{methods: [GET], paths: [\"/v1/orders-{path}/{{id}}\"]}}"),
        )
        .replace("name: r,", &format!("name: {name},"))
        .replace("mode: Enforce", mode)
    }
}

struct Folder {
    rules: Vec<(String, Says, usize)>,
    guard: String,
    issuers: String,
}

impl Folder {
    fn new() -> Self {
        let says = |at: usize| Says {
            kind: u8::try_from(at % 8).unwrap(),
            number: u8::try_from(at % 97).unwrap(),
            path: u8::try_from(at % 131).unwrap(),
            denies: at % 17 == 3,
            is_shadow: at % 29 == 5,
        };
        Self {
            rules: (0..MANY).map(|at| (format!("rule-{at:03}"), says(at), 0)).collect(),
            guard: GUARD.to_owned(),
            issuers: ISSUERS.to_owned(),
        }
    }

    fn apply(&mut self, edit: &Edit, number: usize) {
        let all = self.rules.len();
        match edit {
            Edit::Says(at, says) => self.rules[at.index(all)].1 = says.clone(),
            Edit::Copies(at, of) => self.rules[at.index(all)].1 = self.rules[of.index(all)].1.clone(),
            Edit::Goes(at) => drop(self.rules.remove(at.index(all))),
            Edit::Comes(says) => self.rules.push((format!("more-{number}"), says.clone(), 0)),
            Edit::Named(at) => self.rules[at.index(all)].0 = format!("named-{number}"),
            Edit::Moves(at) => self.rules[at.index(all)].2 += 1,
            Edit::Guard => self.guard = GUARD.replace("orders.sales", &format!("orders-{number}.sales")),
            Edit::Issuer => self.issuers = ISSUERS.replace("gitlab.com", &format!("gitlab-{number}.com")),
        }
    }

    fn sources(&self) -> Vec<SourceFile> {
        let mut sources =
            files(&[("mesh.yaml", MESH), ("issuers.yaml", &self.issuers), ("guard.yaml", &self.guard)]);
        let rules = self.rules.chunks(PER_FILE).enumerate().map(|(file, rules)| {
            let text = rules.iter().map(|(name, says, lines)| "# one\n".repeat(*lines) + &says.text(name));
            SourceFile { path: format!("rules-{file}.yaml"), text: text.collect::<Vec<_>>().join("---\n") }
        });
        sources.extend(rules);
        sources
    }
}

fn compared(compiler: &mut Compiler, folder: &Folder, said: &str) -> Compilation {
    let sources = folder.sources();
    let inputs = Inputs { sources: &sources, env: env(), now: None };
    let (again, new) = (compiler.compile(&inputs), compile(&inputs));
    assert!(shown(&again) == shown(&new), "{said}\n{}\nis not\n{}", shown(&again), shown(&new));
    assert!(again.output == new.output, "{said}: something else comes out");
    new
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn an_edit_among_many_rules_says_what_a_new_compilation_says(
        edits in proptest::collection::vec(edit(), 1..10),
    ) {
        let (mut compiler, mut folder) = (Compiler::new(), Folder::new());
        let first = compared(&mut compiler, &folder, "at first");
        prop_assert!(first.output.is_some(), "{}", shown(&first));
        for (number, edit) in edits.iter().enumerate() {
            folder.apply(edit, number);
            compared(&mut compiler, &folder, &format!("after {edit:?}"));
        }
    }
}
