//! Two policies with the same positions of issuers, claims and directories, so that their rules can be compared.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_engine::model::{ClaimPath, ClaimRef, Condition, IssuerModel, Operand, PolicyModel, Test};

/// Positions of one policy in the joint one.
struct Moved {
    /// By issuer: its joint position, and those of its slots.
    issuers: Vec<(u16, Vec<u16>)>,
    directories: Vec<u16>,
}

/// Both policies, with joint issuers and directories.
pub(super) fn models(before: PolicyModel, after: PolicyModel) -> (PolicyModel, PolicyModel) {
    let mut issuers: BTreeMap<String, BTreeSet<ClaimPath>> = BTreeMap::new();
    for issuer in before.issuers.iter().chain(&after.issuers) {
        issuers.entry(issuer.name.clone()).or_default().extend(issuer.slots.iter().cloned());
    }
    let joint: Vec<IssuerModel> = issuers
        .into_iter()
        .map(|(name, slots)| IssuerModel { name, slots: slots.into_iter().collect() })
        .collect();
    let directories: BTreeSet<String> =
        before.directories.iter().chain(&after.directories).cloned().collect();
    let directories: Vec<String> = directories.into_iter().collect();
    (moved(before, &joint, &directories), moved(after, &joint, &directories))
}

fn moved(mut model: PolicyModel, joint: &[IssuerModel], directories: &[String]) -> PolicyModel {
    let moved = Moved {
        issuers: model
            .issuers
            .iter()
            .map(|issuer| {
                let at = joint.iter().position(|known| known.name == issuer.name).unwrap_or(usize::MAX);
                let slots = joint.get(at).map(|known| known.slots.as_slice()).unwrap_or_default();
                let slot = |path: &ClaimPath| number(slots.iter().position(|known| known == path));
                (number(Some(at)), issuer.slots.iter().map(slot).collect())
            })
            .collect(),
        directories: model
            .directories
            .iter()
            .map(|name| number(directories.iter().position(|known| known == name)))
            .collect(),
    };
    for rule in &mut model.rules {
        for from in &mut rule.from {
            from.issuers.iter_mut().for_each(|issuer| *issuer = moved.issuer(*issuer));
            from.issuers.sort_unstable();
            moved.condition(&mut from.condition);
        }
        rule.to.iter_mut().flatten().for_each(|to| moved.condition(&mut to.condition));
    }
    PolicyModel { issuers: joint.to_vec(), directories: directories.to_vec(), ..model }
}

/// Positions are those of a joint list that has them all.
fn number(at: Option<usize>) -> u16 {
    at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
}

// === impl Moved ===

impl Moved {
    fn issuer(&self, issuer: u16) -> u16 {
        self.issuers.get(usize::from(issuer)).map_or(u16::MAX, |(at, _)| *at)
    }

    fn claim(&self, claim: &mut ClaimRef) {
        let known = self.issuers.get(usize::from(claim.issuer));
        *claim = ClaimRef {
            issuer: known.map_or(u16::MAX, |(at, _)| *at),
            slot: known
                .and_then(|(_, slots)| slots.get(usize::from(claim.slot)))
                .copied()
                .unwrap_or(u16::MAX),
        };
    }

    fn directory(&self, directory: &mut u16) {
        *directory = self.directories.get(usize::from(*directory)).copied().unwrap_or(u16::MAX);
    }

    fn condition(&self, condition: &mut Condition) {
        match condition {
            Condition::True | Condition::Within(_) => {}
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter_mut().for_each(|part| self.condition(part));
            }
            Condition::Not(part) => self.condition(part),
            Condition::Claim(claim, test) => {
                self.claim(claim);
                match test {
                    Test::Same(other) => self.claim(other),
                    Test::Listed(directory) | Test::ListedOrStale(directory) => self.directory(directory),
                    _ => {}
                }
            }
            Condition::Compare(left, _, right) => {
                self.operand(left);
                self.operand(right);
            }
            Condition::Text(operand, _) => self.operand(operand),
        }
    }

    fn operand(&self, operand: &mut Operand) {
        match operand {
            Operand::Claim(claim) => self.claim(claim),
            Operand::Length(inner) | Operand::Plus(inner, _) => self.operand(inner),
            _ => {}
        }
    }
}
