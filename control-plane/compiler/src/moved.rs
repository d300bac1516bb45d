//! The same condition with other positions of issuers, claims and directories.

use tidegate_engine::model::{ClaimRef, Condition, FromModel, Operand, Test};

/// What has which position now. What is not there gets a position that nothing has, which the engine refuses to encode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// By issuer: its position, and those of its slots.
    pub(crate) issuers: Vec<(u16, Vec<u16>)>,
    pub(crate) directories: Vec<u16>,
}

/// Positions are those of a list that has everything.
pub(crate) fn number(at: Option<usize>) -> u16 {
    at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
}

// === impl Moved ===

impl Moved {
    /// An entry: its issuers stay in order.
    pub(crate) fn entry(&self, entry: &mut FromModel) {
        entry.issuers.iter_mut().for_each(|issuer| *issuer = self.issuer(*issuer));
        entry.issuers.sort_unstable();
        self.condition(&mut entry.condition);
    }

    pub(crate) fn condition(&self, condition: &mut Condition) {
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

    fn operand(&self, operand: &mut Operand) {
        match operand {
            Operand::Claim(claim) => self.claim(claim),
            Operand::Length(inner) | Operand::Plus(inner, _) => self.operand(inner),
            _ => {}
        }
    }
}
