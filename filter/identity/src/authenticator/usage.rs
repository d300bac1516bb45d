//! How much the tokens of each issuer, and each of its keys, are used.

use super::{Authenticator, Binding, Terms};

/// What an issuer's tokens came to, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens that were verified, cached ones included.
    pub verified: u64,
    /// Tokens that were refused.
    pub refused: u64,
    /// Unix seconds of the last one that was verified; 0: none was.
    pub last_verified_at: i64,
}

/// What one key of an issuer was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUsage {
    /// Tokens that it had signed, cached ones included, since this was last taken.
    pub verified: u64,
    /// Unix seconds of the last one; 0: there was none.
    pub last_verified_at: i64,
}

/// A token that was verified: by the issuer's place in the policy, and the place of the key that had signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedUse {
    pub(super) issuer: usize,
    pub(super) key: usize,
}

// === impl Authenticator ===

impl Authenticator {
    /// What was verified of the request last given to [`Authenticator::authenticate`].
    pub fn verified(&self) -> &[VerifiedUse] {
        &self.verified
    }

    /// Counts what was verified of an earlier request once more: one like it has come, at this second. Only between two
    /// calls of [`Authenticator::replace`] do places stay what they are.
    pub fn count_again(&mut self, verified: &[VerifiedUse], now: i64) {
        for VerifiedUse { issuer, key } in verified {
            if let Some(binding) = self.terms.bindings.get_mut(*issuer) {
                binding.verified(*key, now);
            }
        }
    }

    /// Whether tokens are looked for in this header.
    pub fn reads(&self, header: &str) -> bool {
        self.terms.places.iter().any(|place| place.name.eq_ignore_ascii_case(header))
    }

    /// What the tokens of each issuer of the policy, by its name, came to as long as the policy names it.
    pub fn usage(&self) -> impl Iterator<Item = (&str, Usage)> {
        let Terms { set, bindings, .. } = &self.terms;
        bindings.iter().filter_map(|binding| Some((set.issuers().get(binding.issuer)?.name(), binding.usage)))
    }

    /// Tells what each key of the issuers of the policy was used for, with the issuer's name and the key's `kid`: those that
    /// were used since this was last told, or `all` that ever were. What is counted begins anew.
    pub fn tell_key_usage(&mut self, all: bool, mut tell: impl FnMut(&str, Option<&str>, KeyUsage)) {
        let Terms { set, bindings, .. } = &mut self.terms;
        for binding in bindings {
            let Some(issuer) = set.issuers().get(binding.issuer) else { continue };
            for (key, usage) in issuer.keys().iter().zip(&mut binding.keys) {
                if usage.verified > 0 || (all && usage.last_verified_at > 0) {
                    tell(issuer.name(), key.jwk().key_id(), *usage);
                    usage.verified = 0;
                }
            }
        }
    }
}

// === impl Binding ===

impl Binding {
    /// A token was refused.
    pub(super) fn refused(&mut self) {
        self.usage.refused = self.usage.refused.saturating_add(1);
    }

    /// A token was verified that the key at this position had signed.
    pub(super) fn verified(&mut self, key: usize, now: i64) {
        self.usage.verified = self.usage.verified.saturating_add(1);
        self.usage.last_verified_at = now;
        if let Some(key) = self.keys.get_mut(key) {
            key.verified = key.verified.saturating_add(1);
            key.last_verified_at = now;
        }
    }
}
