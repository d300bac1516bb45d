//! Rules with what is revoked, compiled.
//!
//! INVARIANT: a revocation that was in force is given up last. Where the newest rules do not compile with it, what is in force
//! stays, or earlier rules that do are; only where there are none is it left out, and told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tidegate_compiler::{Code, Compilation, Compiled, Compiler, Diagnostic, revocation};
use tracing::{error, info};

use super::history::{History, RuleSet};
use super::kept::{Broken, Kept, Revocation};
use super::overlay;
use crate::rules::AcceptedRules;
use crate::serve::{InForce, compile_again};

/// How many earlier rule sets are tried at most: each is compiled as a whole.
const TRIED: usize = 5;
/// See [`Maker::halvings`].
pub(super) const HALVINGS: usize = 32;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// What is to be in force; `None`: what is.
    pub(super) output: Option<Arc<InForce>>,
    /// Of what it was made; `None`: of nothing, so it is made again next time.
    pub(super) of: Option<MadeOf>,
    /// Revocations that do not go together with the newest rules.
    pub(super) broken: Vec<Broken>,
    /// Whether nothing can be in force whatever is asked for.
    pub(super) is_nothing: bool,
}

/// The rules, the pin, and the revocations.
#[derive(Debug, Clone)]
pub(super) struct MadeOf {
    pub(super) judged: Arc<InForce>,
    pub(super) pin: Option<String>,
    /// As a whole: one may be changed under its id.
    pub(super) revocations: Vec<Revocation>,
}

/// Why rules do not compile with revocations.
enum Obstacle {
    /// These stand in the way.
    Revocations(Vec<(String, String)>),
    /// The rules themselves do not compile.
    Rules(Vec<Diagnostic>),
}

/// What rules are compiled with.
pub(super) struct Maker<'m> {
    pub(super) compiler: &'m mut Compiler,
    pub(super) history: &'m History,
    pub(super) kept: &'m Kept,
    /// The newest rules, for the mesh and the issuers as they are.
    pub(super) newest: &'m Arc<InForce>,
    /// What is in force.
    pub(super) current: Option<Arc<InForce>>,
    /// The revocation that is asked for: nothing is looked for that it would compile with.
    pub(super) asked: Option<&'m str>,
    /// How often it may be looked for which of many revocations is in the way: each time is two compilations.
    pub(super) halvings: usize,
}

// === impl MadeOf ===

impl PartialEq for MadeOf {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.judged, &other.judged)
            && self.pin == other.pin
            && self.revocations == other.revocations
    }
}

// === impl Maker ===

impl Maker<'_> {
    /// These rules with all revocations, or what comes closest. `cluster`: puts the cluster as it is now beside earlier rules.
    pub(super) fn make(
        mut self,
        rules: Arc<AcceptedRules>,
        set: RuleSet,
        cluster: impl Fn(AcceptedRules) -> AcceptedRules,
    ) -> Made {
        let obstacle = match self.compile(&rules, &BTreeSet::new()) {
            Ok(compiled) => return self.made(compiled, rules, set, BTreeSet::new(), Vec::new()),
            Err(obstacle) => obstacle,
        };
        let in_the_way = match obstacle {
            Obstacle::Revocations(found) => found,
            Obstacle::Rules(found) => {
                found.iter().for_each(|found| error!("{found}"));
                error!(
                    number = set.number,
                    "the rules do not compile with the cluster as it is; what is in force stays"
                );
                return Made {
                    broken: self.all_broken("the rules do not compile, see the log"),
                    ..Made::default()
                };
            }
        };
        let broken = |in_force: bool, instead: &str| -> Vec<Broken> {
            let told = in_the_way.iter();
            told.map(|(id, why)| Broken { id: id.clone(), why: format!("{why}; {instead}"), in_force })
                .collect()
        };
        if self.asked.is_some_and(|asked| in_the_way.iter().any(|(id, _)| id == asked)) {
            return Made { broken: broken(false, "nothing has changed"), ..Made::default() };
        }
        for (id, why) in &in_the_way {
            error!(id, rules = set.number, "rules do not compile with a revocation: {why}");
        }
        let wanted: BTreeSet<&str> = self.kept.rules().map(|one| one.id.as_str()).collect();
        if let Some(current) = self.current.clone()
            && wanted.iter().all(|id| current.revoking.contains(*id) && !current.left_out.contains(*id))
        {
            let instead = format!("rules {} stay on offer, with it", current.set.number);
            error!("what is in force stays: {instead}");
            let broken = broken(true, &instead);
            let now = cluster(AcceptedRules::clone(&current.rules));
            if now != *current.rules
                && let Ok(compiled) = self.compile(&now, &BTreeSet::new())
            {
                return self.made(compiled, Arc::new(now), current.set.clone(), BTreeSet::new(), broken);
            }
            return Made { broken, ..Made::default() };
        }
        let earlier: Vec<RuleSet> =
            self.history.sets().iter().rev().filter(|one| one.number < set.number).cloned().collect();
        for earlier in earlier.into_iter().take(TRIED) {
            let Ok(Some(rules)) = self.history.rules(earlier.number) else { continue };
            let rules = Arc::new(cluster(AcceptedRules::clone(&rules)));
            if let Ok(compiled) = self.compile(&rules, &BTreeSet::new()) {
                let instead = format!("rules {} are on offer, with it", earlier.number);
                error!("earlier rules are put in force: {instead}");
                return self.made(compiled, rules, earlier, BTreeSet::new(), broken(true, &instead));
            }
        }
        let mut left_out: BTreeSet<String> = in_the_way.iter().map(|(id, _)| id.clone()).collect();
        // Without some of them others may be in the way.
        let compiled = loop {
            match self.compile(&rules, &left_out) {
                Ok(compiled) => break Some(compiled),
                Err(Obstacle::Revocations(more)) => {
                    let before = left_out.len();
                    left_out.extend(more.into_iter().map(|(id, _)| id));
                    if left_out.len() == before {
                        break None;
                    }
                }
                Err(Obstacle::Rules(_)) => break None,
            }
        };
        match compiled {
            Some(compiled) => {
                for id in &left_out {
                    error!(id, "a revocation is not in force, and no earlier rules compile with it");
                }
                let told = self.kept.rules().filter(|one| left_out.contains(&one.id));
                let why =
                    |id: &str| in_the_way.iter().find(|(known, _)| known == id).map(|(_, why)| why.clone());
                let told = told.map(|one| Broken {
                    id: one.id.clone(),
                    why: why(&one.id).unwrap_or_else(|| "the rules do not compile with it".to_owned()),
                    in_force: false,
                });
                let told = told.collect();
                self.made(compiled, rules, set, left_out, told)
            }
            None => Made {
                broken: self.all_broken("the rules do not compile with it, see the log"),
                ..Made::default()
            },
        }
    }

    /// These rules with all revocations; `None`: they do not compile so.
    pub(super) fn alone(mut self, rules: &AcceptedRules) -> Option<Compiled> {
        self.compile(rules, &BTreeSet::new()).ok()
    }

    /// Every revocation that is a rule; those that what is in force has are.
    fn all_broken(&self, why: &str) -> Vec<Broken> {
        let is_in_force = |id: &str| {
            self.current
                .as_ref()
                .is_some_and(|current| current.revoking.contains(id) && !current.left_out.contains(id))
        };
        let all = self.kept.rules();
        all.map(|one| Broken { id: one.id.clone(), why: why.to_owned(), in_force: is_in_force(&one.id) })
            .collect()
    }

    fn made(
        self,
        compiled: Compiled,
        rules: Arc<AcceptedRules>,
        set: RuleSet,
        left_out: BTreeSet<String>,
        broken: Vec<Broken>,
    ) -> Made {
        let since = if set.digest == self.newest.set.digest { self.newest.since } else { Instant::now() };
        let revoking = self.kept.rules().map(|one| one.id.clone()).collect();
        let in_force = InForce { revoking, left_out, ..InForce::new(compiled, rules, set, since) };
        let of = MadeOf {
            judged: self.newest.clone(),
            pin: self.kept.pin.as_ref().map(|pin| pin.digest.clone()),
            revocations: self.kept.rules().cloned().collect(),
        };
        Made { output: Some(Arc::new(in_force)), of: Some(of), broken, is_nothing: false }
    }

    /// Compiles these rules with all revocations but those. What names something that is not there any more is left out of a
    /// revocation that names more: nobody is it.
    fn compile(&mut self, rules: &AcceptedRules, but: &BTreeSet<String>) -> Result<Compiled, Obstacle> {
        let revocations: Vec<&Revocation> = self.kept.rules().filter(|one| !but.contains(&one.id)).collect();
        let mut gone: BTreeSet<(String, usize)> = BTreeSet::new();
        loop {
            let mut files = rules.files.clone();
            let mut environment = rules.environment.clone();
            let mut in_the_way = Vec::new();
            for one in &revocations {
                let without = gone.iter().filter(|(id, _)| *id == one.id).map(|(_, at)| *at).collect();
                match overlay::files(one, &self.newest.compiled, &without) {
                    Ok(more) => files.extend(more),
                    Err(why) => in_the_way.push((one.id.clone(), why)),
                }
                environment.extend(overlay::environment(one));
            }
            if !in_the_way.is_empty() {
                return Err(Obstacle::Revocations(in_the_way));
            }
            let Compilation { diagnostics, output } = compile_again(self.compiler, &files, &environment);
            if let Some(compiled) = output {
                return Ok(compiled);
            }
            let errors: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
            let before = gone.len();
            for one in &revocations {
                let found: Vec<(Option<usize>, &Diagnostic)> =
                    errors.iter().filter_map(|error| Some((entry(one, error)?, error))).collect();
                let is_gone = |(at, error): &(Option<usize>, &Diagnostic)| {
                    at.is_some() && error.code == Code::UnknownReference && one.frozen.is_some()
                };
                match found.iter().find(|found| !is_gone(found)) {
                    Some((_, error)) => in_the_way.push((one.id.clone(), error.message.clone())),
                    None => gone.extend(found.iter().filter_map(|(at, _)| Some((one.id.clone(), (*at)?)))),
                }
            }
            if !in_the_way.is_empty() {
                return Err(Obstacle::Revocations(in_the_way));
            }
            if gone.len() == before {
                return Err(self.who_is_to_blame(rules, &revocations, errors));
            }
            for (id, at) in &gone {
                info!(
                    id,
                    entry = at,
                    "a part of a revocation names what is not there any more: nobody is it"
                );
            }
        }
    }

    /// Where the errors are about no file of theirs: half of the revocations at a time, as long as that may take.
    fn who_is_to_blame(
        &mut self,
        rules: &AcceptedRules,
        revocations: &[&Revocation],
        errors: Vec<Diagnostic>,
    ) -> Obstacle {
        let why = errors.first().map_or_else(String::new, |error| error.message.clone());
        let all = |some: &[&Revocation]| some.iter().map(|one| (one.id.clone(), why.clone())).collect();
        let (first, second) = revocations.split_at(revocations.len() / 2);
        let mut found = Vec::new();
        match (first, second) {
            (_, []) => return Obstacle::Rules(errors),
            ([], _) => {
                let alone = compile_again(self.compiler, &rules.files, &rules.environment);
                if alone.output.is_none() {
                    return Obstacle::Rules(errors);
                }
                return Obstacle::Revocations(all(second));
            }
            _ if self.halvings == 0 => return Obstacle::Revocations(all(revocations)),
            (first, second) => {
                self.halvings = self.halvings.saturating_sub(1);
                for half in [first, second] {
                    let wanted: BTreeSet<&str> = half.iter().map(|one| one.id.as_str()).collect();
                    let others = self.kept.rules().map(|one| &one.id);
                    let others = others.filter(|id| !wanted.contains(id.as_str())).cloned().collect();
                    match self.compile(rules, &others) {
                        Ok(_) => {}
                        Err(Obstacle::Revocations(more)) => found.extend(more),
                        Err(rules) => return rules,
                    }
                }
            }
        }
        // Each half goes, and both do not.
        if found.is_empty() { Obstacle::Revocations(all(revocations)) } else { Obstacle::Revocations(found) }
    }
}

/// Which entry of a revocation's rule an error is about, if it is about that revocation; `None` inside: about none of them.
fn entry(one: &Revocation, error: &Diagnostic) -> Option<Option<usize>> {
    if !revocation::is_revocation(&error.file) {
        return None;
    }
    if error.file == overlay::path(&one.id) {
        let at = error.field.strip_prefix("spec.from[").and_then(|rest| rest.split_once(']'));
        return Some(at.and_then(|(at, _)| at.parse().ok()));
    }
    let forms = one.frozen.as_ref().map_or(0, |frozen| frozen.forms.len());
    let form = (0..forms).find(|form| error.file == overlay::form_path(&one.id, *form))?;
    Some(Some(form.saturating_add(1)))
}
