//! What people have done, as it is kept: revocations, suspensions, a pin.
//!
//! Pure. INVARIANT: every list is bounded, and everything in it but the pin has an end.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_identity::{Revoked, RevokedKind};
use tidegate_proto::MAX_SUSPENSION_S;

use super::past::{self, Past};

/// Longest that anything is revoked for at a time, in seconds: 90 days.
pub const MAX_REVOCATION_S: u32 = 90 * 24 * 3600;
/// Shortest of both, in seconds.
pub const MIN_S: u32 = 10;
/// How long what has ended stays written down: a clock that is ahead ends it for its own replica and for no other, and for
/// none once it is set right.
const GRACE_S: i64 = 3600;
/// Most revocations of Callers and instances: each is a rule of every workload.
const MAX_RULES: usize = 256;
/// Most of an issuer's: a keys section holds 4 096 of them.
const MAX_OF_ISSUER: usize = 4_096;
/// Most workloads that are suspended at a time.
pub(super) const MAX_SUSPENSIONS: usize = 256;
/// Longest reason or ticket, in characters.
const MAX_TEXT: usize = 300;
/// Longest name or id, in bytes.
pub(super) const MAX_NAME: usize = 2_048;

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Counts changes; of two of them the later one counts.
    #[serde(default)]
    pub revision: u64,
    /// How many ids were given out.
    pub given: u64,
    /// The rule set that is on offer whatever the rules say now.
    pub pin: Option<Pin>,
    /// What is taken back for a time.
    pub revocations: Vec<Revocation>,
    /// Workloads whose Guards only report for a time.
    pub suspensions: Vec<Suspension>,
    /// What has ended. Whatever is written there, the rest counts.
    #[serde(default, deserialize_with = "past::read")]
    pub past: Past,
    /// What was found in the cluster and does not count, and why. The next change writes it without.
    #[serde(skip)]
    pub unbelieved: Vec<Broken>,
}

/// A rule set that stays on offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// Its number in the history of the replica that pinned it. What tells others which it is is the digest.
    pub number: u64,
    /// Its digest, hexadecimal.
    pub digest: String,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub by: String,
    /// Unix seconds.
    pub at: i64,
}

/// Something that is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// Unique, e.g. `r-7`.
    pub id: String,
    /// What.
    pub target: Target,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub by: String,
    /// Unix seconds.
    pub at: i64,
    /// Unix seconds.
    pub until: i64,
    /// Of a Caller: who it was then. What it says later is revoked besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
}

/// The forms of a Caller at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frozen {
    /// Each as YAML, with references to the environment.
    pub forms: Vec<String>,
    /// What these referred to.
    pub environment: BTreeMap<String, String>,
}

/// A revocation that does not go together with the newest rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    /// Of the revocation.
    pub id: String,
    /// Why.
    pub why: String,
    /// Whether it is in force all the same, because earlier rules are.
    pub in_force: bool,
}

/// What can be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// A Caller in every form that it has, `namespace/name`.
    Caller {
        /// `namespace/name`.
        name: String,
    },
    /// The token of an issuer with this id (`jti`, or what the issuer has for it).
    Token {
        /// Name of the TrustedIssuer.
        issuer: String,
        /// The token's id.
        id: String,
    },
    /// All tokens of an issuer with this `sub`.
    Subject {
        /// Name of the TrustedIssuer.
        issuer: String,
        /// The `sub`.
        id: String,
    },
    /// All tokens that this key of an issuer signed.
    Key {
        /// Name of the TrustedIssuer.
        issuer: String,
        /// The `kid`.
        id: String,
    },
    /// All tokens of an issuer that were given to this machine or pod.
    Instance {
        /// Name of the TrustedIssuer.
        issuer: String,
        /// Compute Engine's instance id, or the pod's uid.
        id: String,
    },
}

/// A workload whose Guards only report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Unique, e.g. `s-8`.
    pub id: String,
    /// `namespace/name`.
    pub workload: String,
    /// Why.
    pub reason: String,
    /// Where it is followed up.
    pub ticket: String,
    /// Who did it.
    pub by: String,
    /// Unix seconds.
    pub at: i64,
    /// Unix seconds.
    pub until: i64,
}

/// What is asked to be revoked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AskedRevocation {
    /// What.
    pub target: Target,
    /// For how long.
    pub seconds: u32,
    /// Why.
    pub reason: String,
}

/// What is asked to be suspended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AskedSuspension {
    /// `namespace/name`.
    pub workload: String,
    /// For how long.
    pub seconds: u32,
    /// Why.
    pub reason: String,
    /// Where it is followed up.
    pub ticket: String,
}

/// What is asked to be put in force again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AskedPin {
    /// A number of the history, or the beginning of a digest.
    pub rules: String,
    /// Why.
    pub reason: String,
}

// === impl Kept ===

impl Kept {
    /// Without what has ended: what counts now.
    #[must_use]
    pub fn at(mut self, now: i64) -> Self {
        self.revocations.retain(|one| one.until > now);
        self.suspensions.retain(|one| one.until > now);
        self
    }

    /// What ended so long ago that it has by any clock is past, for what is written down for all.
    pub fn forget(&mut self, now: i64) {
        self.end_what_is_over(now.saturating_sub(GRACE_S));
    }

    /// When the first of everything ends, in Unix seconds.
    pub fn next_end(&self) -> Option<i64> {
        let revocations = self.revocations.iter().map(|one| one.until);
        revocations.chain(self.suspensions.iter().map(|one| one.until)).min()
    }

    /// What a keys section says is revoked of this issuer: what the rules say, and what was revoked besides. What is revoked
    /// twice ends with the later one. Never more than a section holds: those that end soonest have to stay out
    /// ([`Self::without_room`]).
    pub fn revoked(&self, issuer: &str, by_rules: Vec<Revoked>, now: i64) -> Vec<Revoked> {
        let (mut all, further) = self.all_revoked(issuer, by_rules, now);
        let room = MAX_OF_ISSUER.saturating_sub(all.len());
        all.extend(further.into_iter().take(room));
        all
    }

    /// Ids of the revocations of this issuer for which its keys section has no room.
    pub fn without_room(&self, issuer: &str, by_rules: Vec<Revoked>, now: i64) -> Vec<String> {
        let (all, further) = self.all_revoked(issuer, by_rules, now);
        let room = MAX_OF_ISSUER.saturating_sub(all.len());
        let out: BTreeSet<(RevokedKind, &str)> =
            further.iter().skip(room).map(|one| (one.kind, one.value.as_str())).collect();
        let is_out = |target: &Target| {
            target.in_keys().is_some_and(|(of, kind, value)| of == issuer && out.contains(&(kind, value)))
        };
        self.revocations.iter().filter(|one| is_out(&one.target)).map(|one| one.id.clone()).collect()
    }

    /// What the rules say, and what was revoked besides, the latest end first.
    fn all_revoked(&self, issuer: &str, by_rules: Vec<Revoked>, now: i64) -> (Vec<Revoked>, Vec<Revoked>) {
        let own = self.revoked_besides(issuer, now);
        let (mut all, mut further) = (by_rules, Vec::new());
        for one in own {
            match all.iter_mut().find(|known| known.kind == one.kind && known.value == one.value) {
                Some(known) if known.until == 0 => {}
                Some(known) => known.until = known.until.max(one.until),
                None => further.push(one),
            }
        }
        further.sort_by_key(|one| std::cmp::Reverse(one.until));
        (all, further)
    }

    fn revoked_besides(&self, issuer: &str, now: i64) -> Vec<Revoked> {
        let mut revoked = BTreeMap::<(RevokedKind, String), i64>::new();
        for one in self.revocations.iter().filter(|one| one.until > now) {
            let Some((of, kind, value)) = one.target.in_keys() else { continue };
            if of == issuer {
                let until = revoked.entry((kind, value.to_owned())).or_default();
                *until = one.until.max(*until);
            }
        }
        revoked.into_iter().map(|((kind, value), until)| Revoked { kind, value, until }).collect()
    }

    /// Until when the Guards of this workload only report. A manifest that is signed now cannot say more than filters
    /// believe, whatever the clock said before.
    pub fn suspended_until(&self, workload: &str, now: i64) -> Option<i64> {
        let suspended = self.suspensions.iter().filter(|one| one.workload == workload && one.until > now);
        suspended.map(|one| one.until.min(now.saturating_add(MAX_SUSPENSION_S))).max()
    }

    /// Revocations that are rules.
    pub fn rules(&self) -> impl Iterator<Item = &Revocation> {
        self.revocations.iter().filter(|one| one.target.in_keys().is_none())
    }

    /// Adds a revocation. `frozen`: of a Caller, who it is now.
    ///
    /// # Errors
    /// With words where it is not possible.
    pub fn revoke(
        &mut self,
        asked: AskedRevocation,
        frozen: Option<Frozen>,
        by: &str,
        now: i64,
    ) -> Result<Revocation, String> {
        check_text("reason", &asked.reason)?;
        check_seconds(asked.seconds, i64::from(MAX_REVOCATION_S))?;
        asked.target.check()?;
        let alike = |one: &&Revocation| match (one.target.in_keys(), asked.target.in_keys()) {
            (Some((one, ..)), Some((other, ..))) => one == other,
            (None, None) => true,
            _ => false,
        };
        let (known, most) = (
            self.revocations.iter().filter(|one| one.until > now).filter(alike).count(),
            if asked.target.in_keys().is_some() { MAX_OF_ISSUER } else { MAX_RULES },
        );
        if known >= most {
            return Err(format!(
                "{known} such revocations are in force already, and there cannot be more; lift some, or take the right away in \
                 the rules"
            ));
        }
        let id = self.next_id("r");
        let until = now.saturating_add(i64::from(asked.seconds));
        let AskedRevocation { target, reason, .. } = asked;
        let revocation = Revocation { id, target, reason, by: by.to_owned(), at: now, until, frozen };
        self.revocations.push(revocation.clone());
        Ok(revocation)
    }

    /// Adds a suspension, or replaces that of the same workload.
    ///
    /// # Errors
    /// With words where it is not possible.
    pub fn suspend(&mut self, asked: AskedSuspension, by: &str, now: i64) -> Result<Suspension, String> {
        check_text("reason", &asked.reason)?;
        check_text("ticket", &asked.ticket)?;
        check_seconds(asked.seconds, MAX_SUSPENSION_S)?;
        self.replace_suspension(&asked.workload, by, now);
        if self.suspensions.iter().filter(|one| one.until > now).count() >= MAX_SUSPENSIONS {
            return Err(format!(
                "{MAX_SUSPENSIONS} workloads are suspended already, and there cannot be more"
            ));
        }
        let AskedSuspension { workload, seconds, reason, ticket } = asked;
        let until = now.saturating_add(i64::from(seconds));
        let id = self.next_id("s");
        let suspension = Suspension { id, workload, reason, ticket, by: by.to_owned(), at: now, until };
        self.suspensions.push(suspension.clone());
        Ok(suspension)
    }

    pub(super) fn next_id(&mut self, kind: &str) -> String {
        self.given = self.given.saturating_add(1);
        format!("{kind}-{}", self.given)
    }
}

// === impl Target ===

impl Target {
    /// What it is in a keys section: the issuer, and what of it. `None`: it takes a rule.
    pub fn in_keys(&self) -> Option<(&str, RevokedKind, &str)> {
        match self {
            Self::Token { issuer, id } => Some((issuer, RevokedKind::Token, id)),
            Self::Subject { issuer, id } => Some((issuer, RevokedKind::Subject, id)),
            Self::Key { issuer, id } => Some((issuer, RevokedKind::Key, id)),
            Self::Caller { .. } | Self::Instance { .. } => None,
        }
    }

    /// Whether it is known by a token, which a caller may leave out.
    pub fn is_by_token(&self) -> bool {
        !matches!(self, Self::Caller { .. })
    }

    /// The issuer that it is about.
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::Token { issuer, .. }
            | Self::Subject { issuer, .. }
            | Self::Key { issuer, .. }
            | Self::Instance { issuer, .. } => Some(issuer),
            Self::Caller { .. } => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let value = match self {
            Self::Caller { name } => name,
            Self::Token { id, .. }
            | Self::Subject { id, .. }
            | Self::Key { id, .. }
            | Self::Instance { id, .. } => id,
        };
        if value.is_empty() || value.len() > MAX_NAME || value.chars().any(char::is_control) {
            return Err(format!(
                "what is revoked has a name of 1 to {MAX_NAME} bytes without control characters"
            ));
        }
        Ok(())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Caller { name } => write!(f, "Caller {name}"),
            Self::Token { issuer, id } => write!(f, "token {id} of {issuer}"),
            Self::Subject { issuer, id } => write!(f, "subject {id} of {issuer}"),
            Self::Key { issuer, id } => write!(f, "key {id} of {issuer}"),
            Self::Instance { issuer, id } => write!(f, "instance {id} of {issuer}"),
        }
    }
}

pub(super) fn check_text(field: &str, text: &str) -> Result<(), String> {
    let length = text.trim().chars().count();
    if length == 0 || text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(format!(
            "`{field}`: say it in 1 to {MAX_TEXT} characters, on one line; it is kept and shown"
        ));
    }
    Ok(())
}

fn check_seconds(seconds: u32, most: i64) -> Result<(), String> {
    if seconds < MIN_S || i64::from(seconds) > most {
        let most = crate::clock::span(most);
        return Err(format!("`seconds` is {seconds}; it ends by itself after {MIN_S} s to {most}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
